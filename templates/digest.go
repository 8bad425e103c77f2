package templates

import (
	"strings"
	"time"

	"zvonok/ledger/money"
)

// longForecast is the number of school days above which a forecast says "more
// than": money for a school year is no news, and the pace will have changed.
const longForecast = 60

// Message is anything that can be told in an SMS.
type Message interface{ SMS(Style) string }

// Digest tells of one day, or of several, what happened to a reader's children
// (R53). From and To are the same day in a digest of a day.
type Digest struct {
	From, To time.Time
	Children []ChildDigest
	Links    Links
}

// Coverage says what of a child a digest may tell: a consent may be to visits
// alone, or to meals and money alone.
type Coverage uint8

// The coverages.
const (
	Everything Coverage = iota
	VisitsOnly
	MealsOnly // and money
)

// ChildDigest is a child's part of a digest.
type ChildDigest struct {
	Child   Name
	Own     bool // the reader is the child's own representative and may read of benefits (D5)
	Covers  Coverage
	Days    []Day
	Balance money.Amount // at the end
	Lasts   Forecast
}

// Day is what happened to a child on one day. Days on which nothing happened
// are left out.
type Day struct {
	Date     time.Time
	Visits   []Visit
	Meals    []Eaten
	Spent    money.Amount // from the child's account
	ToppedUp money.Amount
	Also     []Message // news that was not told one by one; shown in the words of its SMS
}

// Only returns what of a day a consent covers. News is about passes or about money.
func (d Day) Only(c Coverage) Day {
	switch c {
	case VisitsOnly:
		d.Meals, d.Spent, d.ToppedUp = nil, 0, 0
	case MealsOnly:
		d.Visits = nil
	default:
		return d
	}
	var also []Message
	for _, m := range d.Also {
		if _, pass := m.(Pass); pass == (c == VisitsOnly) {
			also = append(also, m)
		}
	}
	d.Also = also
	return d
}

// Empty reports whether there is nothing to tell of a day.
func (d Day) Empty() bool {
	return len(d.Visits) == 0 && len(d.Meals) == 0 && len(d.Also) == 0 && d.Spent == 0 && d.ToppedUp == 0
}

// Eaten is one purchase or meal of a day.
type Eaten struct {
	Kind   Kind
	Meal   Meal
	Dishes []Dish
	Sum    money.Amount // paid by the child's account
	Date   time.Time    // of another day than the page it stands on; zero: of that
	Late   bool         // reported too late for the digest of its day; said of one with a date
}

// Forecast says for how many school days the balance lasts at the present pace.
// The zero Forecast is none: too little was bought to tell.
type Forecast struct {
	Known      bool
	SchoolDays int
}

// isDay reports whether the digest is of one day.
func (d Digest) isDay() bool { return sameDay(d.From, d.To) }

// SMS renders the short form, one text for each child in order: "Маша П. 14.05
// 08:12-13:40, траты 180,00 р, баланс 73,50 р", of a week "Маша П. 12-16.05 5
// дней, траты 900,00 р, баланс 73,50 р". What the consent does not cover is left
// out.
func (d Digest) SMS(s Style) []string {
	texts := make([]string, len(d.Children))
	for i, c := range d.Children {
		texts[i] = s.digest(d, c)
	}
	return texts
}

func (s Style) digest(d Digest, c ChildDigest) string {
	var spent money.Amount
	present := 0
	var whole Visit // from the first entry to the last exit
	for _, day := range c.Days {
		spent += day.Spent
		if len(day.Visits) > 0 {
			present++
			whole = Visit{In: day.Visits[0].In, Out: day.Visits[len(day.Visits)-1].Out}
		}
	}
	k, v := key("week"), values{}
	if d.isDay() {
		k, v["Date"] = "day", date(d.From)
	} else {
		v["Dates"] = dates(d.From, d.To)
	}
	if c.Covers != MealsOnly {
		v["Visit"], v["Days"] = s.stay(whole), s.plural("days", present)
	}
	if c.Covers != VisitsOnly {
		v["Spent"], v["Balance"] = s.sum(spent), s.sum(c.Balance)
	}
	return s.one(c.Child, k+c.Covers.suffix(), v)
}

// suffix is what the keys of texts of this coverage end with.
func (c Coverage) suffix() key {
	switch c {
	case VisitsOnly:
		return "_visits"
	case MealsOnly:
		return "_meals"
	default:
		return ""
	}
}

// Mail renders the digest of all children as one letter.
func (d Digest) Mail(l Language) Mail {
	s := Style{Language: l}
	names := make([]Name, len(d.Children))
	sections := make([]section, len(d.Children))
	for i, c := range d.Children {
		names[i] = c.Child
		sections[i] = section{Heading: c.Child.Short(s), Rows: s.report(d, c)}
	}
	v := values{"Givens": s.givens(names)}
	k := key("mail_week")
	if d.isDay() {
		k = "mail_day"
		v["Date"] = s.day(d.From)
	} else {
		v["Dates"] = s.days(d.From, d.To)
	}
	return s.letter(page{subject: s.text(k, v), sections: sections, links: d.Links, subscribed: true})
}

// report is a child's rows in the letter.
func (s Style) report(d Digest, c ChildDigest) []row {
	var rows []row
	var spent, toppedUp money.Amount
	for _, day := range c.Days {
		spent += day.Spent
		toppedUp += day.ToppedUp
		if d.isDay() {
			rows = append(rows, s.dayRows(c, day)...)
		} else {
			rows = append(rows, s.weekRows(c, day)...)
		}
	}
	if d.isDay() && len(c.Days) == 0 && c.Covers != MealsOnly {
		rows = append(rows, row{Label: s.label("label_visits"), Value: s.text("visit_none", nil)})
	}
	if c.Covers == VisitsOnly {
		return rows
	}
	rows = append(rows, row{Label: s.label("label_spent"), Value: s.money(spent)})
	if toppedUp != 0 {
		rows = append(rows, row{Label: s.label("label_topped_up"), Value: s.money(toppedUp)})
	}
	rows = append(rows, s.balanceRow(c.Balance))
	if c.Lasts.Known {
		rows = append(rows, row{Label: s.label("label_lasts"), Value: s.lasts(c)})
	}
	return rows
}

// dayRows tell of the only day of a digest: a row for each visit and each meal.
func (s Style) dayRows(c ChildDigest, day Day) []row {
	var rows []row
	for i, v := range day.Visits {
		r := row{Value: s.fullStay(v), Notes: notes(s.company(v))}
		if i == 0 {
			r.Label = s.label("label_visits")
		}
		rows = append(rows, r)
	}
	if len(day.Visits) == 0 && c.Covers != MealsOnly {
		rows = append(rows, row{Label: s.label("label_visits"), Value: s.text("visit_none", nil)})
	}
	for _, e := range day.Meals {
		rows = append(rows, row{Label: capitalised(s.eaten(e)), Value: s.dishesOrSum(e), Notes: notes(s.mealNote(c, e))})
	}
	return append(rows, s.also(day)...)
}

// weekRows tell of one day of several in a row or two.
func (s Style) weekRows(c ChildDigest, day Day) []row {
	var stays []string
	for _, v := range day.Visits {
		stays = append(stays, s.fullStay(v))
	}
	if stays == nil {
		stays = []string{s.text("visit_none", nil)}
	}
	var meals []string
	for _, e := range day.Meals {
		text := s.eaten(e) + ": " + s.dishesOrSum(e)
		if note := s.mealNote(c, e); note != "" {
			text += ", " + note
		}
		meals = append(meals, text)
	}
	r := row{
		Label: s.weekday(day.Date) + " " + date(day.Date), Value: strings.Join(stays, ", "), Notes: meals,
	}
	if c.Covers == MealsOnly {
		if len(meals) == 0 {
			return s.also(day)
		}
		r.Value, r.Notes = meals[0], meals[1:]
	}
	return append([]row{r}, s.also(day)...)
}

// also tells the news that was kept for the digest.
func (s Style) also(day Day) []row {
	rows := make([]row, 0, len(day.Also))
	for i, m := range day.Also {
		r := row{Value: m.SMS(s)}
		if i == 0 {
			r.Label = s.label("label_also")
		}
		rows = append(rows, r)
	}
	return rows
}

// eaten names a purchase or meal, with its date where that is another one than its page's.
func (s Style) eaten(e Eaten) string {
	name := s.meal(e.Meal)
	if e.Kind == Buffet {
		name = s.text("buffet", nil)
	}
	if !e.Date.IsZero() {
		name += " " + date(e.Date)
	}
	return name
}

func (s Style) dishesOrSum(e Eaten) string {
	if text := s.dishes(e.Dishes); text != "" {
		return text
	}
	if e.Kind == Subsidised {
		return s.text("mail_served", nil)
	}
	return s.money(e.Sum)
}

// mealNote is what is told of a meal beside the dishes: calories, price, to the
// child's own representatives that it was subsidised, and that it came late.
func (s Style) mealNote(c ChildDigest, e Eaten) string {
	var notes []string
	if kcal := s.kcal(e.Dishes); kcal != "" {
		notes = append(notes, kcal)
	}
	switch {
	case e.Kind != Subsidised:
		if s.dishes(e.Dishes) != "" {
			notes = append(notes, s.money(e.Sum))
		}
	case c.Own:
		notes = append(notes, s.text("mail_subsidised", nil))
	}
	if e.Late {
		notes = append(notes, s.text("mail_late", nil))
	}
	return strings.Join(notes, ", ")
}

// fullStay writes a visit with what is missing or late about it.
func (s Style) fullStay(v Visit) string {
	in, out := s.text("mail_no_entry", nil), s.text("mail_no_exit", nil)
	if !v.In.IsZero() {
		in = s.reported(v.In, v.InLate)
	}
	if !v.Out.IsZero() {
		out = s.reported(v.Out, v.OutLate)
	}
	return in + "\u00a0– " + out
}

func (s Style) reported(at time.Time, late bool) string {
	if late {
		return clock(at) + " (" + s.text("mail_late", nil) + ")"
	}
	return clock(at)
}

// company names who came with a kindergarten child.
func (s Style) company(v Visit) string {
	var who []string
	if (v.BroughtBy != Name{}) {
		who = append(who, s.text("mail_brought", values{"Companion": person{v.BroughtBy, "companion"}.short(s)}))
	}
	if (v.CollectedBy != Name{}) {
		who = append(who, s.text("mail_collected", values{"Companion": person{v.CollectedBy, "companion"}.short(s)}))
	}
	return strings.Join(who, ", ")
}

// lasts writes a forecast.
func (s Style) lasts(c ChildDigest) string {
	switch days := c.Lasts.SchoolDays; {
	case c.Balance <= 0:
		return s.text("mail_lasts_none", nil)
	case days <= 0:
		return s.text("mail_lasts_not", nil)
	case days > longForecast:
		return s.plural("mail_lasts_long", longForecast)
	default:
		return s.plural("mail_lasts", days)
	}
}
