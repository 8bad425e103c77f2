package templates

import (
	"strings"
	"time"

	"zvonok/ledger/money"
)

// LoginCode carries the one-time code of a sign-in (D3), or with Phone set the
// code that confirms a new phone number.
type LoginCode struct {
	Code    string
	Minutes int // how long it is good for
	Phone   bool
}

// SMS renders the message, "Код входа 123456. Никому не сообщайте. Срок 10 минут".
func (c LoginCode) SMS(s Style) string {
	k := key("login_code")
	if c.Phone {
		k = "phone_code"
	}
	return s.text(k, values{"Code": cleanCode(c.Code), "Minutes": s.plural("minutes", c.Minutes)})
}

// MailboxCode carries the one-time code that confirms a new mailbox.
type MailboxCode struct {
	Code    string
	Minutes int // how long it is good for
}

// Mail renders the message as a letter; the code is in its body only, which no
// locked screen shows.
func (c MailboxCode) Mail(l Language) Mail {
	s := Style{Language: l}
	return s.letter(page{
		subject: s.text("mail_code", nil),
		lead:    s.text("mail_code_text", values{"Code": cleanCode(c.Code), "Minutes": s.plural("minutes", c.Minutes)}),
	})
}

// ServiceName is what the service is called.
func ServiceName(l Language) string { return Style{Language: l}.text("mail_service", nil) }

// OptedOut confirms that a phone gets no more SMS. It names no child: the word
// STOP may come from anybody.
type OptedOut struct{}

// SMS renders the message.
func (OptedOut) SMS(s Style) string { return s.text("opt_out", nil) }

// OptedIn confirms that a phone gets SMS again.
type OptedIn struct{}

// SMS renders the message.
func (OptedIn) SMS(s Style) string { return s.text("opt_in", nil) }

// Capped is the one notice of a day that says the phone has had as many SMS as
// a day allows, and that the rest comes in the digest.
type Capped struct{}

// SMS renders the message.
func (Capped) SMS(s Style) string { return s.text("capped", nil) }

// Unknown is what a phone reads that no child belongs to, or none any more. It
// is the same whatever the reason, so that it says nothing (ussd.md section 6).
type Unknown struct{}

// SMS renders the message.
func (Unknown) SMS(s Style) string { return s.text("unknown", nil) }

// USSD renders the message for a screen.
func (Unknown) USSD(s Style) string { return s.text("unknown", nil) }

// Unconfirmed is what somebody reads in the cabinet of whose phone nothing is known, or who may not be its owner. It is
// one text for both.
func Unconfirmed(s Style) string {
	return s.say("По этому номеру сведений нет. Если вы представитель ребёнка и сменили SIM-карту или давно не обращались "+
		"к сервису, подтвердите, что номер по-прежнему ваш: введите номер лицевого счёта ребёнка. До этого на номер не "+
		"приходят и SMS. Если номера счёта под рукой нет, обратитесь в школу.",
		"Nothing is known of this number. If you are a child's representative and have changed the SIM card, or have not used "+
			"the service for long, confirm that the number is still yours: give the child's account number. Until then no SMS "+
			"come to it either. If you have no account number at hand, ask the school.")
}

// Invitation asks a person to accept what a parent offers (R62). It names no
// child, since the phone may be another's than the parent meant.
type Invitation struct {
	Inviter Name
	Until   time.Time
	Links   Links // Settings leads to the invitation
}

// SMS renders the message, "Ольга С. приглашает: Проход и питание. Ответ на сайте до 21.05".
func (i Invitation) SMS(s Style) string {
	return s.fit([]person{{i.Inviter, "somebody"}}, func(shown []string) string {
		return s.text("invitation", values{"Inviter": capitalised(shown[0]), "Date": date(i.Until)})
	})
}

// Mail renders the message as a letter.
func (i Invitation) Mail(l Language) Mail {
	s := Style{Language: l}
	inviter := capitalised(person{i.Inviter, "somebody"}.short(s))
	return s.letter(page{
		subject: s.text("mail_invitation", nil),
		lead:    s.text("mail_invitation_text", values{"Inviter": inviter, "Date": s.day(i.Until)}),
		links:   Links{Settings: i.Links.Settings},
	})
}

// Decision tells who has applied electronically what the school has decided. It
// names neither child nor school; the reason of a refusal stands in the cabinet.
type Decision struct {
	Accepted bool
	Links    Links // Settings leads to the cabinet
}

// SMS renders the message, "Заявление принято: Проход и питание. Подробности на сайте".
func (d Decision) SMS(s Style) string { return s.text("decision_"+d.word(), nil) }

// Mail renders the message as a letter.
func (d Decision) Mail(l Language) Mail {
	s := Style{Language: l}
	return s.letter(page{
		subject: s.text("mail_decision_"+d.word(), nil), lead: s.text("mail_decision_"+d.word()+"_text", nil),
		cabinet: true, links: d.Links,
	})
}

func (d Decision) word() key {
	if d.Accepted {
		return "accepted"
	}
	return "refused"
}

// Visit is one stay of a child, or what is known of it: a zero time is an entry
// or an exit that was not recorded.
type Visit struct {
	In, Out                time.Time
	InLate, OutLate        bool // reported too late to be news (D6)
	BroughtBy, CollectedBy Name // kindergarten (R49)
}

// last returns the later of the two moments, zero for no visit at all.
func (v Visit) last() time.Time {
	if v.Out.IsZero() {
		return v.In
	}
	return v.Out
}

// ChildBalance is a child's line in an answer.
type ChildBalance struct {
	Child   Name
	Balance money.Amount
	NoMoney bool  // the consent does not cover money: no balance is told
	Visit   Visit // the last one; zero for none
}

// Balance answers a person who asked by SMS or USSD. Without children it reads
// as Unknown.
type Balance struct {
	Children []ChildBalance
	Now      time.Time // the moment of the answer: a visit of the same day is shown without its date
}

// SMS renders the answer to a message: of one child the balance and the last
// visit, "Маша П.: баланс 143,50 р, вход 08:15", of several the balances.
func (b Balance) SMS(s Style) string {
	switch len(b.Children) {
	case 0:
		return Unknown{}.SMS(s)
	case 1:
		c := b.Children[0]
		if c.NoMoney {
			return s.one(c.Child, "balance_hidden", s.answer(c, b.Now))
		}
		return s.one(c.Child, withVisit("balance", c.Visit), s.answer(c, b.Now))
	default:
		return s.balances(b.Children)
	}
}

// USSD renders the first screen for one child, three short lines; of several
// children it has a line for each. The caller cuts pages.
func (b Balance) USSD(s Style) string {
	switch len(b.Children) {
	case 0:
		return Unknown{}.USSD(s)
	case 1:
		c := b.Children[0]
		return s.one(c.Child, withVisit("ussd_balance", c.Visit), s.answer(c, b.Now))
	}
	lines := make([]string, len(b.Children))
	for i, c := range b.Children {
		lines[i] = c.Line(s, b.Now)
	}
	return strings.Join(lines, "\n")
}

// Line renders a child's line of a screen, "Маша П. 143,50 р вход 08:15".
func (c ChildBalance) Line(s Style, now time.Time) string {
	return s.one(c.Child, withVisit("ussd_line", c.Visit), s.answer(c, now))
}

// USSDAnswer carries by SMS what a USSD screen could not show any more, or what
// the person asked to have sent.
type USSDAnswer struct {
	Code     string         // as dialled, "*377*888#"
	Children []ChildBalance // several, or none, read as in Balance
	Now      time.Time
}

// SMS renders the message, "*377*888#: Маша П. 143,50 р, вход 08:15".
func (a USSDAnswer) SMS(s Style) string {
	if len(a.Children) != 1 {
		return Balance{Children: a.Children, Now: a.Now}.SMS(s)
	}
	c := a.Children[0]
	v := s.answer(c, a.Now)
	v["Code"] = cleanCode(a.Code)
	return s.one(c.Child, withVisit("ussd_answer", c.Visit), v)
}

// balances fits the balances of several children into one text.
func (s Style) balances(balances []ChildBalance) string {
	names := make([]Name, len(balances))
	for i, c := range balances {
		names[i] = c.Child
	}
	return s.fit(children(names...), func(shown []string) string {
		list := make([]string, len(balances))
		for i, c := range balances {
			list[i] = shown[i] + " " + s.sum(c.Balance)
			if c.NoMoney {
				list[i] = shown[i] + " " + s.text("no_data", nil)
			}
		}
		return s.text("balance_several", values{"Balances": strings.Join(list, ", ")})
	})
}

func (s Style) answer(c ChildBalance, now time.Time) values {
	return values{"Balance": s.sum(c.Balance), "Visit": s.visit(c.Visit, now)}
}

// withVisit picks the text that fits what is known.
func withVisit(k key, v Visit) key {
	if v.last().IsZero() {
		return k + "_no_visit"
	}
	return k
}

// visit writes a visit for a short text: "вход 08:15", "08:12-13:40", with its
// date before it when that is not today.
func (s Style) visit(v Visit, today time.Time) string {
	text := s.stay(v)
	if last := v.last(); !last.IsZero() && !sameDay(last, today) {
		return date(last) + " " + text
	}
	return text
}

// stay writes a visit without its date.
func (s Style) stay(v Visit) string {
	switch {
	case v.In.IsZero() && v.Out.IsZero():
		return s.text("visit_none", nil)
	case v.Out.IsZero():
		return s.text("visit_in", values{"Time": clock(v.In)})
	case v.In.IsZero():
		return s.text("visit_out", values{"Time": clock(v.Out)})
	default:
		return clock(v.In) + "-" + clock(v.Out)
	}
}
