package templates

import (
	"time"

	"zvonok/ledger/money"
)

// TopUp says that money came to a child's account (R41).
type TopUp struct {
	Child   Name
	At      time.Time
	Sum     money.Amount
	Balance money.Amount // after it
	Links   Links
}

// SMS renders the message, "Пополнение 500,00 р Маша П. Баланс 573,50 р".
func (t TopUp) SMS(s Style) string {
	return s.one(t.Child, "top_up", values{"Sum": s.sum(t.Sum), "Balance": s.sum(t.Balance)})
}

// Mail renders the message as a letter.
func (t TopUp) Mail(l Language) Mail {
	s := Style{Language: l}
	return s.movement("mail_top_up", t.Child, t.At, t.Sum, t.Balance, t.Links)
}

// Correction says that an earlier movement was put right: a sale reversed
// (money back) or a top-up reversed (money away). A correction is an entry of
// its own and has a text of its own, so that nobody finds a balance changed
// without a word.
type Correction struct {
	Child   Name
	At      time.Time
	Sum     money.Amount // positive: back to the account; negative: away from it
	Balance money.Amount // after it
	Links   Links
}

// SMS renders the message, "Возврат 70,00 р Маша П. Баланс 143,50 р".
func (c Correction) SMS(s Style) string {
	k, sum := key("refund"), c.Sum
	if sum < 0 {
		k, sum = "charge", -sum
	}
	return s.one(c.Child, k, values{"Sum": s.sum(sum), "Balance": s.sum(c.Balance)})
}

// Mail renders the message as a letter.
func (c Correction) Mail(l Language) Mail {
	s := Style{Language: l}
	return s.movement("mail_correction", c.Child, c.At, c.Sum, c.Balance, c.Links)
}

// movement is a letter about one movement of money.
func (s Style) movement(subject key, child Name, at time.Time, sum, balance money.Amount, links Links) Mail {
	return s.letter(page{
		subject: s.text(subject, values{"Givens": child.first(s)}),
		sections: []section{{Rows: []row{
			{Label: s.label("label_child"), Value: child.Short(s)},
			{Label: s.label("label_time"), Value: s.moment(at)},
			{Label: s.label("label_sum"), Value: s.money(sum)},
			s.balanceRow(balance),
		}}},
		links: links, subscribed: true,
	})
}

// Threshold says that a balance crossed what the reader set for the child (R42,
// D1): it fell below, or with Up it reached the amount.
type Threshold struct {
	Child     Name
	Balance   money.Amount
	Threshold money.Amount
	Up        bool
	Links     Links
}

// SMS renders the message, "Маша П.: баланс 95,00 р, ниже 150,00 р".
func (t Threshold) SMS(s Style) string {
	k := key("threshold_down")
	if t.Up {
		k = "threshold_up"
	}
	return s.one(t.Child, k, values{"Balance": s.sum(t.Balance), "Threshold": s.sum(t.Threshold)})
}

// Mail renders the message as a letter.
func (t Threshold) Mail(l Language) Mail {
	s := Style{Language: l}
	k := key("mail_threshold_down")
	if t.Up {
		k = "mail_threshold_up"
	}
	return s.letter(page{
		subject: s.text(k, values{"Threshold": s.sum(t.Threshold), "Givens": t.Child.first(s)}),
		sections: []section{{Rows: []row{
			{Label: s.label("label_child"), Value: t.Child.Short(s)},
			s.balanceRow(t.Balance),
			{Label: s.label("label_threshold"), Value: s.money(t.Threshold)},
		}}},
		links: t.Links, subscribed: true,
	})
}
