package templates

import "time"

// Alarm says that a child left a kindergarten without a listed companion: with
// nobody, with somebody who is not on the list, or who is too young (D10).
type Alarm struct {
	Child Name
	At    time.Time
	Staff bool // the reader works there, and is not to be told to call
	Links Links
}

// SMS renders the message, "Тревога! 17:40 Ваня С.: выход не по списку. Позвоните в сад".
func (a Alarm) SMS(s Style) string {
	k := key("alarm")
	if a.Staff {
		k = "alarm_staff"
	}
	return s.one(a.Child, k, values{"Time": clock(a.At)})
}

// Mail renders the message as a letter.
func (a Alarm) Mail(l Language) Mail {
	s := Style{Language: l}
	lead := ""
	if !a.Staff {
		lead = s.text("mail_alarm_text", nil)
	}
	return s.letter(page{
		subject: s.text("mail_alarm", values{"Time": clock(a.At), "Givens": a.Child.first(s)}),
		lead:    lead,
		sections: []section{{Rows: []row{
			{Label: s.label("label_child"), Value: a.Child.Short(s)},
			{Label: s.label("label_time"), Value: s.moment(a.At)},
		}}},
		alarm: true, links: a.Links, subscribed: !a.Staff,
	})
}

// Absent says that a child did not arrive by the time the organisation set, and
// that nobody gave a reason.
type Absent struct {
	Child Name
	By    time.Time
	Links Links
}

// SMS renders the message, "Маша П.: к 08:45 нет отметки о приходе".
func (a Absent) SMS(s Style) string {
	return s.one(a.Child, "absent", values{"Time": clock(a.By)})
}

// Mail renders the message as a letter.
func (a Absent) Mail(l Language) Mail {
	s := Style{Language: l}
	return s.letter(page{
		subject: s.text("mail_absent", values{"Givens": a.Child.first(s)}),
		lead:    s.text("mail_absent_text", nil),
		sections: []section{{Rows: []row{
			{Label: s.label("label_child"), Value: a.Child.Short(s)},
			{Label: s.label("label_time"), Value: s.moment(a.By)},
		}}},
		alarm: true, links: a.Links, subscribed: true,
	})
}
