package templates

import (
	"strings"
	"time"

	"zvonok/ledger/money"
)

// Pass says that children came in or went out (R43). Siblings who passed the
// same door share one message; no more than six of them should, since more
// initials than that may take a second part.
type Pass struct {
	Children  []Name // in the order to be told
	In        bool
	At        time.Time
	Companion Name          // who brought or collected a kindergarten child (R49); zero for none
	Admitted  bool          // let in or out by staff without a card (D9)
	Late      bool          // reported too late to be news (D6); digests say it
	Dated     bool          // of another day than the message, so that the SMS names the day
	Balance   *money.Amount // shown beside one child alone; nil for none
	Links     Links         // for letters
}

// SMS renders the message, "Вход 08:15 Маша П.".
func (p Pass) SMS(s Style) string {
	persons := children(p.Children...)
	if len(persons) == 0 {
		persons = children(Name{}) // somebody passed; the word for a child says so
	}
	accompanied := p.Companion != Name{}
	if accompanied {
		persons = append(persons, person{p.Companion, "companion"})
	}
	k := p.key()
	v := values{"Time": clock(p.At)}
	if p.Late || p.Dated {
		v["Time"] = date(p.At) + " " + clock(p.At)
	}
	if p.Balance != nil {
		v["Balance"] = s.sum(*p.Balance)
	}
	return s.fit(persons, func(shown []string) string {
		if accompanied {
			last := len(shown) - 1
			shown, v["Companion"] = shown[:last], shown[last]
		}
		v["Names"] = strings.Join(shown, ", ")
		return s.text(k, v)
	})
}

func (p Pass) key() key {
	direction := "out"
	if p.In {
		direction = "in"
	}
	kind := ""
	switch {
	case p.Late:
		kind = "_late"
	case p.Companion != Name{}:
		kind = "_companion"
	case p.Admitted:
		kind = "_admitted"
	case p.Balance != nil && len(p.Children) == 1:
		kind = "_balance"
	}
	return key("pass_" + direction + kind)
}

// Mail renders the message as a letter.
func (p Pass) Mail(l Language) Mail {
	s := Style{Language: l}
	k := key("mail_pass_out")
	if p.In {
		k = "mail_pass_in"
	}
	rows := []row{
		{Label: s.label("label_child"), Value: s.names(p.Children)},
		{Label: s.label("label_time"), Value: s.moment(p.At)},
	}
	if (p.Companion != Name{}) {
		rows = append(rows, row{Label: s.label("label_companion"), Value: person{p.Companion, "companion"}.short(s)})
	}
	var notes []string
	if p.Admitted {
		notes = append(notes, s.text("mail_admitted", nil))
	}
	if p.Late {
		notes = append(notes, s.text("mail_late", nil))
	}
	if notes != nil {
		rows = append(rows, row{Label: s.label("label_note"), Value: strings.Join(notes, ", ")})
	}
	if p.Balance != nil && len(p.Children) == 1 {
		rows = append(rows, s.balanceRow(*p.Balance))
	}
	return s.letter(page{
		subject:  s.text(k, values{"Time": clock(p.At), "Givens": s.givens(p.Children)}),
		sections: []section{{Rows: rows}},
		links:    p.Links, subscribed: true,
	})
}
