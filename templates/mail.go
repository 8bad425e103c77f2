package templates

import (
	_ "embed" // mail.html
	"fmt"
	"html/template"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"zvonok/ledger/money"
)

// maxGivens is how many children the subject of a letter names.
const maxGivens = 3

// Mail is a letter ready to be sent by any mailer. The subject names children
// by their given names alone.
type Mail struct{ Subject, Text, HTML string }

// Links lead from a letter to the portal. An empty one is not shown. They must
// be http or https; anything else is shown as a harmless anchor.
type Links struct {
	Settings    string
	Unsubscribe string
}

// page is what a letter shows, in either form.
type page struct {
	subject    string
	lead       string
	sections   []section
	alarm      bool
	cabinet    bool // the footer leads to the cabinet, for nothing that is to be answered
	subscribed bool // the reader asked for such letters, and the footer says so; else they invite
	links      Links
}

// section is a part of a letter, usually a child. The fields are exported for
// the template.
type section struct {
	Heading string
	Rows    []row
}

// row is a line of a section. A row without a label continues the one above.
type row struct {
	Label, Value string
	Notes        []string // a line each, below the value
	Short        bool     // a sum that is below zero
}

// notes makes the lines below a value; empty ones are left out.
func notes(lines ...string) []string {
	return slices.DeleteFunc(lines, func(line string) bool { return line == "" })
}

//go:embed mail.html
var mailHTML string

// mailTemplate is the form of every letter; html/template escapes what it shows
// for the place it stands in.
var mailTemplate = template.Must(template.New("mail").Parse(mailHTML))

// view is what mail.html sees.
type view struct {
	Language, Service, Subject, Lead string
	Alarm                            bool
	Sections                         []section
	Why, Settings, Unsubscribe       string
	Links                            Links
}

// letter renders a page.
func (s Style) letter(p page) Mail {
	v := view{
		Language: string(s.Language.known()), Service: s.text("mail_service", nil), Subject: p.subject, Lead: p.lead,
		Alarm: p.alarm, Sections: p.sections, Links: p.links,
		Settings: s.text("footer_invitation", nil), Unsubscribe: s.text("footer_unsubscribe", nil),
	}
	if p.cabinet {
		v.Settings = s.text("footer_cabinet", nil)
	}
	if p.subscribed {
		v.Why, v.Settings = s.text("footer_why", nil), s.text("footer_settings", nil)
	}
	var html strings.Builder
	if err := mailTemplate.Execute(&html, v); err != nil {
		// The template sees strings only and a strings.Builder takes everything.
		panic(fmt.Errorf("render a letter: %w", err))
	}
	return Mail{Subject: p.subject, Text: v.text(), HTML: html.String()}
}

// text is the letter for readers of plain text.
func (v view) text() string {
	var b strings.Builder
	paragraph := func(text string) {
		if text == "" {
			return
		}
		if b.Len() > 0 {
			b.WriteString("\n")
		}
		b.WriteString(text + "\n")
	}
	paragraph(v.Subject)
	paragraph(v.Lead)
	for _, s := range v.Sections {
		paragraph(s.lines())
	}
	footer := []string{}
	if v.Why != "" {
		footer = append(footer, v.Why)
	}
	if v.Links.Settings != "" {
		footer = append(footer, v.Settings+": "+v.Links.Settings)
	}
	if v.Links.Unsubscribe != "" {
		footer = append(footer, v.Unsubscribe+": "+v.Links.Unsubscribe)
	}
	if len(footer) > 0 {
		paragraph("-- \n" + strings.Join(footer, "\n")) // the signature mark of RFC 3676 section 4.3
	}
	return b.String()
}

// lines writes a section with its values in a column.
func (s section) lines() string {
	width := 0
	for _, r := range s.Rows {
		width = max(width, utf8.RuneCountInString(r.Label)+2)
	}
	var lines []string
	if s.Heading != "" {
		lines = append(lines, s.Heading)
	}
	for _, r := range s.Rows {
		label := ""
		if r.Label != "" {
			label = r.Label + ":"
		}
		line := label + strings.Repeat(" ", width-utf8.RuneCountInString(label)) + r.Value
		lines = append(lines, strings.TrimRight(line+strings.Join(append([]string{""}, r.Notes...), "; "), " "))
	}
	return strings.Join(lines, "\n")
}

// label returns a word that names a row.
func (s Style) label(k key) string { return s.text(k, nil) }

func (s Style) balanceRow(a money.Amount) row {
	return row{Label: s.label("label_balance"), Value: s.money(a), Short: a < 0}
}

// names lists names as messages show them.
func (s Style) names(names []Name) string {
	shown := make([]string, len(names))
	for i, n := range names {
		shown[i] = n.Short(s)
	}
	return strings.Join(shown, ", ")
}

// givens lists given names for a subject, the first few.
func (s Style) givens(names []Name) string {
	shown := make([]string, 0, maxGivens+1)
	for i, n := range names {
		if i == maxGivens {
			shown = append(shown, "…")
			break
		}
		shown = append(shown, n.first(s))
	}
	return strings.Join(shown, ", ")
}

// money writes a sum for a letter, with grouping and the sign of the currency:
// "−1 250,00 ₽", "−1,250.00 RUB". The spaces do not break.
func (s Style) money(a money.Amount) string {
	text, separator, currency := a.RU(), "\u00a0", "\u00a0₽"
	if s.Language.known() == EN {
		text, separator, currency = a.String(), ",", "\u00a0RUB"
	}
	sign := ""
	if a < 0 {
		sign, text = "−", text[1:]
	}
	whole := text[:len(text)-3]
	var grouped strings.Builder
	for i := range len(whole) {
		if i > 0 && (len(whole)-i)%3 == 0 {
			grouped.WriteString(separator)
		}
		grouped.WriteByte(whole[i])
	}
	return sign + grouped.String() + text[len(text)-3:] + currency
}

// day writes a date for a letter, "14 мая".
func (s Style) day(t time.Time) string {
	return fmt.Sprintf("%d %s", t.Day(), s.text(key(t.Format("month_01")), nil))
}

// days writes a range of dates for a letter, "12–16 мая", "28 апреля – 2 мая".
func (s Style) days(from, to time.Time) string {
	if from.Month() == to.Month() {
		return fmt.Sprintf("%d–%s", from.Day(), s.day(to))
	}
	return s.day(from) + " – " + s.day(to)
}

// moment writes a date and time for a letter, "чт 14 мая, 08:15".
func (s Style) moment(t time.Time) string {
	return s.weekday(t) + " " + s.day(t) + ", " + clock(t)
}

// weekday returns the short name of a day of the week.
func (s Style) weekday(t time.Time) string {
	day := t.Weekday()
	if day == time.Sunday {
		day = 7
	}
	return s.text(key(fmt.Sprintf("weekday_%d", day)), nil)
}
