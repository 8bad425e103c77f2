package templates

import (
	"strconv"
	"strings"
	"time"

	"zvonok/ledger/money"
)

// Kind is what was sold.
type Kind string

// The kinds of sales, as devices report them (contract.md section 5).
const (
	Buffet     Kind = "buffet"
	Hot        Kind = "hot"
	Subsidised Kind = "subsidised"
)

// Meal is the meal of the day a hot or subsidised dish belongs to. A value that
// is not one of these reads as "meal".
type Meal string

// The meals.
const (
	Breakfast Meal = "breakfast"
	Lunch     Meal = "lunch"
	Snack     Meal = "snack"
	Dinner    Meal = "dinner"
)

// Dish is something eaten or bought, as a letter shows it.
type Dish struct {
	Name     string
	Quantity int // 0 and 1 are not shown
	Kcal     int // of all pieces together; 0 means unknown
}

// Sale says that a child bought or was given something to eat (R44, R45).
type Sale struct {
	Child   Name
	Kind    Kind
	Meal    Meal // of hot and subsidised dishes
	At      time.Time
	Sum     money.Amount // what the child's account paid; not shown for a subsidised meal
	Balance money.Amount // after it; not shown for a subsidised meal
	Own     bool         // the reader is the child's own representative and may read of benefits (D5)
	Dishes  []Dish       // for letters
	Links   Links        // for letters
}

// SMS renders the message, "Буфет 70,00 р Маша П. Баланс 73,50 р". Of a
// subsidised meal only the child's own representatives read that it was one;
// others read the meal.
func (a Sale) SMS(s Style) string {
	k := key("sale_subsidised")
	switch {
	case a.Kind == Buffet:
		k = "sale_buffet"
	case a.Kind == Hot:
		k = "sale_hot"
	case a.Own:
		k = "sale_subsidised_own"
	}
	return s.one(a.Child, k, values{"Sum": s.sum(a.Sum), "Balance": s.sum(a.Balance), "Meal": capitalised(s.meal(a.Meal))})
}

// Mail renders the message as a letter.
func (a Sale) Mail(l Language) Mail {
	s := Style{Language: l}
	what, dishes := s.meal(a.Meal), key("label_dishes")
	if a.Kind == Buffet {
		what, dishes = s.text("buffet", nil), "label_bought"
	}
	rows := []row{
		{Label: s.label("label_child"), Value: a.Child.Short(s)},
		{Label: s.label("label_time"), Value: s.moment(a.At)},
	}
	if text := s.dishes(a.Dishes); text != "" {
		rows = append(rows, row{Label: s.label(dishes), Value: text, Notes: notes(s.kcal(a.Dishes))})
	}
	switch {
	case a.Kind != Subsidised:
		rows = append(rows, row{Label: s.label("label_sum"), Value: s.money(a.Sum)}, s.balanceRow(a.Balance))
	case a.Own:
		rows = append(rows, row{Label: s.label("label_note"), Value: s.text("mail_subsidised", nil)})
	}
	return s.letter(page{
		subject:  s.text("mail_sale", values{"Meal": capitalised(what), "Givens": a.Child.first(s)}),
		sections: []section{{Rows: rows}},
		links:    a.Links, subscribed: true,
	})
}

// Why is the reason a purchase was refused.
type Why string

// The reasons.
const (
	Ban   Why = "ban"   // a dish, category or allergen the parents banned
	Limit Why = "limit" // the daily limit
	Funds Why = "funds" // not enough money
)

// Blocked says that a till refused a purchase because of what the parents set
// or for want of money.
type Blocked struct {
	Child Name
	At    time.Time
	Why   Why
	Dish  string // what was wanted; for letters, may be empty
	Dated bool   // of another day than the message, so that the SMS names the day
	Links Links
}

// SMS renders the message, "Покупка 10:40 отклонена, Маша П.: лимит".
func (b Blocked) SMS(s Style) string {
	v := values{"Time": clock(b.At), "Why": s.why(b.Why)}
	if b.Dated {
		v["Time"] = date(b.At) + " " + clock(b.At)
	}
	return s.one(b.Child, "blocked", v)
}

// Mail renders the message as a letter.
func (b Blocked) Mail(l Language) Mail {
	s := Style{Language: l}
	rows := []row{
		{Label: s.label("label_child"), Value: b.Child.Short(s)},
		{Label: s.label("label_time"), Value: s.moment(b.At)},
		{Label: s.label("label_why"), Value: s.why(b.Why), Notes: notes(cleanDish(b.Dish))},
	}
	return s.letter(page{
		subject:  s.text("mail_blocked", values{"Givens": b.Child.first(s)}),
		sections: []section{{Rows: rows}},
		links:    b.Links, subscribed: true,
	})
}

// one fits a text about one child.
func (s Style) one(child Name, k key, v values) string {
	return s.fit(children(child), func(shown []string) string {
		v["Names"] = shown[0]
		return s.text(k, v)
	})
}

// meal returns the word for a meal.
func (s Style) meal(m Meal) string {
	switch m {
	case Breakfast, Lunch, Snack, Dinner:
		return s.text(key(m), nil)
	}
	return s.text("meal", nil)
}

func (s Style) why(w Why) string {
	switch w {
	case Ban:
		return s.text("why_ban", nil)
	case Limit:
		return s.text("why_limit", nil)
	}
	return s.text("why_funds", nil)
}

// dishes lists dishes for a letter.
func (s Style) dishes(dishes []Dish) string {
	var list []string
	for _, d := range dishes {
		name := cleanDish(d.Name)
		if name == "" {
			continue
		}
		if d.Quantity > 1 {
			name += " × " + strconv.Itoa(d.Quantity)
		}
		list = append(list, name)
	}
	return strings.Join(list, ", ")
}

// kcal sums the calories of dishes, or returns "" when none are known.
func (s Style) kcal(dishes []Dish) string {
	sum := 0
	for _, d := range dishes {
		sum += d.Kcal
	}
	if sum <= 0 {
		return ""
	}
	return s.plural("mail_kcal", sum)
}
