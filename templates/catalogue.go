package templates

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"zvonok/ledger/money"
	"zvonok/templates/gsm"
)

// key names a text.
type key string

// variable names what a text has a place for.
type variable string

// use says where a text is read.
type use uint8

const (
	useSMS  use = iota // an SMS, or a push message
	useUSSD            // a screen, or a line of one
	useWord            // a word or figure inside an SMS
	useMail            // a letter
)

// open reports whether a deployment may replace such texts. Letters are not
// registered with anybody and cost nothing by length, so there is no need.
func (u use) open() bool { return u != useMail }

// entry is what is fixed about a text, whatever its words are.
type entry struct {
	use       use
	variables []variable // all of them must be in the text, and no others
	plural    bool
	benefits  bool // read only by the child's own representatives
}

// catalogue is the closed list of texts.
var catalogue = map[key]entry{
	"pass_in":            sms("Time", "Names"),
	"pass_in_balance":    sms("Time", "Names", "Balance"),
	"pass_in_companion":  sms("Time", "Names", "Companion"),
	"pass_in_admitted":   sms("Time", "Names"),
	"pass_in_late":       sms("Time", "Names"),
	"pass_out":           sms("Time", "Names"),
	"pass_out_balance":   sms("Time", "Names", "Balance"),
	"pass_out_companion": sms("Time", "Names", "Companion"),
	"pass_out_admitted":  sms("Time", "Names"),
	"pass_out_late":      sms("Time", "Names"),

	"sale_buffet":         sms("Sum", "Names", "Balance"),
	"sale_hot":            sms("Meal", "Sum", "Names", "Balance"),
	"sale_subsidised":     sms("Meal", "Names"),
	"sale_subsidised_own": {use: useSMS, variables: []variable{"Meal", "Names"}, benefits: true},
	"top_up":              sms("Sum", "Names", "Balance"),
	"refund":              sms("Sum", "Names", "Balance"),
	"charge":              sms("Sum", "Names", "Balance"),
	"blocked":             sms("Time", "Names", "Why"),
	"threshold_down":      sms("Names", "Balance", "Threshold"),
	"threshold_up":        sms("Names", "Balance", "Threshold"),

	"alarm":       sms("Time", "Names"),
	"alarm_staff": sms("Time", "Names"),
	"absent":      sms("Names", "Time"),

	"login_code":        sms("Code", "Minutes"),
	"phone_code":        sms("Code", "Minutes"),
	"opt_out":           sms(),
	"opt_in":            sms(),
	"capped":            sms(),
	"invitation":        sms("Inviter", "Date"),
	"decision_accepted": sms(),
	"decision_refused":  sms(),
	"unknown":           sms(),

	"balance":               sms("Names", "Balance", "Visit"),
	"balance_no_visit":      sms("Names", "Balance"),
	"balance_hidden":        sms("Names", "Visit"),
	"balance_several":       sms("Balances"),
	"ussd_answer":           sms("Code", "Names", "Balance", "Visit"),
	"ussd_answer_no_visit":  sms("Code", "Names", "Balance"),
	"ussd_balance":          ussd("Names", "Balance", "Visit"),
	"ussd_balance_no_visit": ussd("Names", "Balance"),
	"ussd_line":             ussd("Names", "Balance", "Visit"),
	"ussd_line_no_visit":    ussd("Names", "Balance"),

	"day":  sms("Names", "Date", "Visit", "Spent", "Balance"),
	"week": sms("Names", "Dates", "Days", "Spent", "Balance"),

	"day_visits":  sms("Names", "Date", "Visit"),
	"day_meals":   sms("Names", "Date", "Spent", "Balance"),
	"week_visits": sms("Names", "Dates", "Days"),
	"week_meals":  sms("Names", "Dates", "Spent", "Balance"),

	"child": word(), "companion": word(), "somebody": word(),
	"breakfast": word(), "lunch": word(), "snack": word(), "dinner": word(), "meal": word(), "buffet": word(),
	"why_ban": word(), "why_limit": word(), "why_funds": word(), "no_data": word(),
	"visit_in": word("Time"), "visit_out": word("Time"), "visit_none": word(),
	"minutes": {use: useWord, variables: []variable{"Count"}, plural: true},
	"days":    {use: useWord, variables: []variable{"Count"}, plural: true},

	"mail_service": mail(), "mail_pass_in": mail("Time", "Givens"), "mail_pass_out": mail("Time", "Givens"),
	"mail_sale": mail("Meal", "Givens"), "mail_top_up": mail("Givens"), "mail_correction": mail("Givens"),
	"mail_threshold_down": mail("Threshold", "Givens"), "mail_threshold_up": mail("Threshold", "Givens"),
	"mail_blocked": mail("Givens"), "mail_alarm": mail("Time", "Givens"), "mail_absent": mail("Givens"),
	"mail_decision_accepted": mail(), "mail_decision_accepted_text": mail(),
	"mail_decision_refused": mail(), "mail_decision_refused_text": mail(),
	"mail_invitation": mail(), "mail_day": mail("Date", "Givens"), "mail_week": mail("Dates", "Givens"),

	"mail_code": mail(), "mail_code_text": mail("Code", "Minutes"),
	"mail_alarm_text": mail(), "mail_absent_text": mail(), "mail_invitation_text": mail("Inviter", "Date"),
	"mail_late": mail(), "mail_admitted": mail(), "mail_no_exit": mail(), "mail_no_entry": mail(),
	"mail_brought": mail("Companion"), "mail_collected": mail("Companion"),
	"mail_subsidised": {use: useMail, benefits: true},
	"mail_kcal":       mail("Count"),
	"mail_lasts":      {use: useMail, variables: []variable{"Count"}, plural: true},
	"mail_lasts_none": mail(), "mail_served": mail(),
	"mail_lasts_not": mail(), "mail_lasts_long": mail("Count"),

	"label_child": mail(), "label_time": mail(), "label_companion": mail(), "label_note": mail(), "label_sum": mail(),
	"label_bought": mail(), "label_dishes": mail(), "label_balance": mail(), "label_threshold": mail(),
	"label_why":    mail(),
	"label_visits": mail(),
	"label_spent":  mail(), "label_topped_up": mail(), "label_lasts": mail(), "label_also": mail(),

	"footer_why": mail(), "footer_settings": mail(), "footer_invitation": mail(), "footer_cabinet": mail(), "footer_unsubscribe": mail(),

	"weekday_1": mail(), "weekday_2": mail(), "weekday_3": mail(), "weekday_4": mail(), "weekday_5": mail(),
	"weekday_6": mail(), "weekday_7": mail(),
	"month_01": mail(), "month_02": mail(), "month_03": mail(), "month_04": mail(), "month_05": mail(), "month_06": mail(),
	"month_07": mail(), "month_08": mail(), "month_09": mail(), "month_10": mail(), "month_11": mail(), "month_12": mail(),
}

func sms(v ...variable) entry  { return entry{use: useSMS, variables: v} }
func ussd(v ...variable) entry { return entry{use: useUSSD, variables: v} }
func word(v ...variable) entry { return entry{use: useWord, variables: v} }
func mail(v ...variable) entry { return entry{use: useMail, variables: v} }

// longestUsual is the longest name a text must take whole: twelve letters and
// the widest initial. It is nobody's.
var longestUsual = Name{Given: "Мухаммадсаид", Family: "Щ"}

// The largest sums and the widest dates that are still usual: a balance just
// above the largest top-up (R34), what is spent in a day and in a week, a week
// that crosses two months.
const (
	muchMoney money.Amount = 15_999_99
	muchWeek  money.Amount = 9_999_95
	muchDay   money.Amount = 999_99
)

var (
	someDay  = time.Date(2026, time.April, 28, 20, 58, 0, 0, time.UTC)
	someWeek = someDay.AddDate(0, 0, 4)

	// every shape of a visit and every word that may stand in a text
	someVisits = []Visit{{In: someDay.Add(-time.Hour), Out: someDay}, {In: someDay}, {Out: someDay}}
	allMeals   = []Meal{Breakfast, Lunch, Snack, Dinner, ""}
	allWhy     = []Why{Ban, Limit, Funds}
)

// worst renders a text with the largest values that are usual and the given
// name in every place for one; of the words that may stand in it, with those
// that make it dearest. It returns "" for texts that are no message.
func worst(k key, n Name, s Style) string {
	dearest := ""
	for _, m := range worstOf(k, n) {
		text := m.SMS(s)
		parts, most := gsm.Parts(text), gsm.Parts(dearest)
		if parts > most || parts == most && gsm.Units(text) > gsm.Units(dearest) {
			dearest = text
		}
	}
	return dearest
}

// worstOf returns the messages whose text k may be, at their worst.
func worstOf(k key, n Name) []Message {
	much, one, pair := muchMoney, []Name{n}, []Name{n, n}
	switch k {
	case "pass_in":
		return []Message{Pass{Children: pair, In: true, At: someDay}}
	case "pass_in_balance":
		return []Message{Pass{Children: one, In: true, At: someDay, Balance: &much}}
	case "pass_in_companion":
		return []Message{Pass{Children: one, In: true, At: someDay, Companion: n}}
	case "pass_in_admitted":
		return []Message{Pass{Children: pair, In: true, At: someDay, Admitted: true}}
	case "pass_in_late":
		return []Message{Pass{Children: one, In: true, At: someDay, Late: true}}
	case "pass_out":
		return []Message{Pass{Children: pair, At: someDay}}
	case "pass_out_balance":
		return []Message{Pass{Children: one, At: someDay, Balance: &much}}
	case "pass_out_companion":
		return []Message{Pass{Children: one, At: someDay, Companion: n}}
	case "pass_out_admitted":
		return []Message{Pass{Children: pair, At: someDay, Admitted: true}}
	case "pass_out_late":
		return []Message{Pass{Children: one, At: someDay, Late: true}}
	case "sale_buffet":
		return []Message{Sale{Child: n, Kind: Buffet, Sum: muchDay, Balance: much}}
	case "sale_hot":
		return each(allMeals, func(m Meal) Message { return Sale{Child: n, Kind: Hot, Meal: m, Sum: muchDay, Balance: much} })
	case "sale_subsidised":
		return each(allMeals, func(m Meal) Message { return Sale{Child: n, Kind: Subsidised, Meal: m} })
	case "sale_subsidised_own":
		return each(allMeals, func(m Meal) Message { return Sale{Child: n, Kind: Subsidised, Meal: m, Own: true} })
	case "top_up":
		return []Message{TopUp{Child: n, Sum: much, Balance: much}}
	case "refund":
		return []Message{Correction{Child: n, Sum: much, Balance: much}}
	case "charge":
		return []Message{Correction{Child: n, Sum: -much, Balance: -much}}
	case "blocked":
		return each(allWhy, func(w Why) Message { return Blocked{Child: n, At: someDay, Why: w} })
	case "threshold_down":
		return []Message{Threshold{Child: n, Balance: much, Threshold: much}}
	case "threshold_up":
		return []Message{Threshold{Child: n, Balance: much, Threshold: much, Up: true}}
	case "alarm":
		return []Message{Alarm{Child: n, At: someDay}}
	case "alarm_staff":
		return []Message{Alarm{Child: n, At: someDay, Staff: true}}
	case "absent":
		return []Message{Absent{Child: n, By: someDay}}
	case "login_code":
		return []Message{LoginCode{Code: "12345678", Minutes: 10}}
	case "phone_code":
		return []Message{LoginCode{Code: "12345678", Minutes: 10, Phone: true}}
	case "opt_out":
		return []Message{OptedOut{}}
	case "opt_in":
		return []Message{OptedIn{}}
	case "capped":
		return []Message{Capped{}}
	case "invitation":
		return []Message{Invitation{Inviter: n, Until: someDay}}
	case "decision_accepted":
		return []Message{Decision{Accepted: true}}
	case "decision_refused":
		return []Message{Decision{}}
	case "unknown":
		return []Message{Unknown{}}
	case "balance":
		return answers(n, func(c ChildBalance) Message { return Balance{Children: []ChildBalance{c}} })
	case "balance_no_visit":
		return []Message{Balance{Children: []ChildBalance{{Child: n, Balance: much}}}}
	case "balance_hidden":
		return answers(n, func(c ChildBalance) Message {
			c.NoMoney = true
			return Balance{Children: []ChildBalance{c}}
		})
	case "balance_several":
		return []Message{Balance{Children: []ChildBalance{{Child: n, Balance: much}, {Child: n, Balance: much}}}}
	case "ussd_answer":
		return answers(n, func(c ChildBalance) Message { return USSDAnswer{Code: "*377*888#", Children: []ChildBalance{c}} })
	case "ussd_answer_no_visit":
		return []Message{USSDAnswer{Code: "*377*888#", Children: []ChildBalance{{Child: n, Balance: much}}}}
	case "ussd_balance":
		return answers(n, func(c ChildBalance) Message { return screen(Balance{Children: []ChildBalance{c}}.USSD) })
	case "ussd_balance_no_visit":
		return []Message{screen(Balance{Children: []ChildBalance{{Child: n, Balance: much}}}.USSD)}
	case "ussd_line":
		return answers(n, func(c ChildBalance) Message {
			return screen(func(s Style) string { return c.Line(s, time.Time{}) })
		})
	case "ussd_line_no_visit":
		c := ChildBalance{Child: n, Balance: much}
		return []Message{screen(func(s Style) string { return c.Line(s, time.Time{}) })}
	case "day", "day_visits", "day_meals":
		return []Message{
			digestOf(n, covers(k), someDay, Day{Visits: someVisits[:1], Spent: muchDay}),
			digestOf(n, covers(k), someDay, Day{Visits: someVisits[1:2], Spent: muchDay}),
			digestOf(n, covers(k), someDay, Day{Visits: someVisits[2:], Spent: muchDay}),
			digestOf(n, covers(k), someDay, Day{Spent: muchDay}),
		}
	case "week", "week_visits", "week_meals":
		days := slices.Repeat([]Day{{Visits: someVisits[:1], Spent: muchWeek / 5}}, 5)
		return []Message{digestOf(n, covers(k), someWeek, days...)}
	}
	return nil
}

// covers is the coverage a digest's text is for.
func covers(k key) Coverage {
	for _, c := range []Coverage{VisitsOnly, MealsOnly} {
		if strings.HasSuffix(string(k), string(c.suffix())) {
			return c
		}
	}
	return Everything
}

// screen is a message to a USSD screen, to be measured like the others.
type screen func(Style) string

// SMS renders the screen.
func (show screen) SMS(s Style) string { return show(s) }

func each[T any](list []T, message func(T) Message) []Message {
	messages := make([]Message, len(list))
	for i, v := range list {
		messages[i] = message(v)
	}
	return messages
}

func answers(n Name, message func(ChildBalance) Message) []Message {
	return each(someVisits, func(v Visit) Message { return message(ChildBalance{Child: n, Balance: muchMoney, Visit: v}) })
}

// digestOf is the short form of a child's digest.
func digestOf(n Name, c Coverage, to time.Time, days ...Day) Message {
	d := Digest{From: someDay, To: to, Children: []ChildDigest{{Child: n, Covers: c, Days: days, Balance: muchMoney}}}
	return screen(func(s Style) string { return d.SMS(s)[0] })
}

// Template is one text of the catalogue that is sent as it stands, by SMS or to
// a USSD screen.
type Template struct {
	Key       string
	USSD      bool     // shown on a screen rather than sent
	Variables []string // what stands for {{.…}} in it

	texts *Texts
}

// Catalogue lists the texts that are sent by SMS or shown on USSD screens, in
// the order of their keys.
func (t *Texts) Catalogue() []Template {
	var list []Template
	for k, e := range catalogue {
		if e.use != useSMS && e.use != useUSSD {
			continue
		}
		entry := Template{Key: string(k), USSD: e.use == useUSSD, texts: t}
		for _, v := range e.variables {
			entry.Variables = append(entry.Variables, string(v))
		}
		list = append(list, entry)
	}
	slices.SortFunc(list, func(a, b Template) int { return cmp.Compare(a.Key, b.Key) })
	return list
}

// Source returns the text with its variables, "Вход {{.Time}} {{.Names}}".
func (t Template) Source(l Language) string { return t.texts.find(l, key(t.Key)).source }

// Finding says what a text costs at its worst over a list of names: with the
// largest usual sums, the widest dates, and the name that makes it longest.
type Finding struct {
	Key      string
	Language Language
	Latin    bool
	Alphabet gsm.Alphabet
	Length   int    // septets or UCS-2 units of the longest text
	Parts    int    // of the longest text
	Text     string // the longest text

	Example   Name   // the name in it
	Costly    int    // names for which the text takes more than one part
	Shortened int    // names that had to be shortened to the initial
	Names     []Name `json:"-"` // the first of the costly ones, at most maxCostly; whoever prints them shows whose they are
}

// maxCostly is how many names a finding lists: who has more must change the text, not look at names.
const maxCostly = 100

// Price returns what the longest text costs, at a price per part.
func (f Finding) Price(perPart money.Amount) money.Amount { return money.Amount(f.Parts) * perPart }

// Lint measures every text of the catalogue in every style over the names of a
// deployment. The findings come dearest first, then by key; there is one for
// each text and style, so that what is well is seen to be. Four hundred
// thousand names take some ten seconds: names of equal measure are rendered once.
func (t *Texts) Lint(names []Name) []Finding {
	var findings []Finding
	for _, s := range Styles(t) {
		measures := measure(names, s)
		for _, entry := range t.Catalogue() {
			findings = append(findings, entry.worst(s, measures))
		}
	}
	slices.SortStableFunc(findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(b.Parts, a.Parts), cmp.Compare(a.Key, b.Key))
	})
	return findings
}

// Worst measures one text over names, as Lint does for all.
func (t Template) Worst(s Style, names []Name) Finding {
	s.Texts = t.texts
	return t.worst(s, measure(names, s))
}

// measured are names that take the same room, whole and shortened.
type measured struct {
	example Name
	names   []Name
}

func measure(names []Name, s Style) []measured {
	type room struct {
		whole, initials int
		gsm7            bool
	}
	index := map[room]int{}
	var list []measured
	for _, n := range names {
		whole, initials := n.Short(s), person{n, "child"}.initials(s)
		r := room{gsm.Units(whole), gsm.Units(initials), gsm.IsGSM7(whole)}
		i, ok := index[r]
		if !ok {
			i = len(list)
			index[r] = i
			list = append(list, measured{example: n})
		}
		list[i].names = append(list[i].names, n)
	}
	return list
}

func (t Template) worst(s Style, names []measured) Finding {
	f := Finding{Key: t.Key, Language: s.Language, Latin: s.Latin}
	for _, m := range names {
		text := worst(key(t.Key), m.example, s)
		parts := gsm.Parts(text)
		if parts > 1 {
			f.Costly += len(m.names)
			f.Names = append(f.Names, m.names[:min(len(m.names), maxCostly-len(f.Names))]...)
		}
		if t.hasName() && !strings.Contains(text, m.example.Short(s)) {
			f.Shortened += len(m.names)
		}
		alphabet, length := gsm.AlphabetOf(text), gsm.Units(text)
		if alphabet == gsm.GSM7 {
			length, _ = gsm.Septets(text)
		}
		if parts > f.Parts || parts == f.Parts && length > f.Length {
			f.Alphabet, f.Length, f.Parts, f.Text, f.Example = alphabet, length, parts, text, m.example
		}
	}
	return f
}

// hasName reports whether a name stands in the text.
func (t Template) hasName() bool {
	return slices.ContainsFunc(t.Variables, func(v string) bool {
		return v == "Names" || v == "Balances" || v == "Inviter"
	})
}

// OperatorTemplate is a text in the form in which mobile operators register
// the texts of a sender: words, and places for what changes.
type OperatorTemplate struct {
	Key       string
	Text      string   // "Вход %Time% %Names%"
	Latin     string   // the same in Latin transliteration; for English the text itself
	Variables []string // in the order of the catalogue
	Example   string   // a text it stands for
}

// OperatorForm lists every SMS of a language as operators register them. Each
// operator writes its places in its own way ("%w", "{word}"), so they are named
// here between percent signs, to be replaced by hand or by a script. One space
// stands on each side of a place, and none at the ends.
func (t *Texts) OperatorForm(l Language) []OperatorTemplate {
	var list []OperatorTemplate
	for _, entry := range t.Catalogue() {
		if entry.USSD {
			continue
		}
		v := values{}
		for _, name := range entry.Variables {
			v[variable(name)] = "%" + name + "%"
		}
		form := OperatorTemplate{Key: entry.Key, Variables: entry.Variables}
		form.Text = t.find(l, key(entry.Key)).text(v)
		form.Latin = Style{Latin: true}.finish(form.Text)
		form.Example = worst(key(entry.Key), Name{Given: "Маша", Family: "П"}, Style{Language: l, Texts: t})
		list = append(list, form)
	}
	return list
}

// String writes a finding as a line of a report. It holds no name.
func (f Finding) String() string {
	style := string(f.Language)
	if f.Latin {
		style += " Latin"
	}
	return fmt.Sprintf("%s (%s): %d parts, %d of %v, %d names cost more than one part, %d are shortened",
		f.Key, style, f.Parts, f.Length, f.Alphabet, f.Costly, f.Shortened)
}
