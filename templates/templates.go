// Package templates holds every text a person reads in a message: one struct
// per message, each with a method SMS that renders it in the reader's language
// and, where the message also travels as a letter, a method Mail.
//
//	templates.Pass{Children: maria, At: at, In: true}.SMS(templates.Style{Language: templates.RU})
//
// The words are in texts/ru.toml and texts/en.toml, in the form of go-i18n: a
// text, or a text for each plural form of CLDR, with variables written
// {{.Name}}. A deployment may replace texts by a file of its own ([Load]); both
// go through the same compiler, which takes a text apart once and refuses
// anything but words and known variables, so that rendering cannot fail and
// what a person typed is never read as a template. That is also why the plural
// forms come from x/text rather than through go-i18n, whose templates run, and
// may fail, at the moment of use.
//
// The package promises of every SMS:
//
//   - It fits one part (70 characters in Russian, 160 in English and in Latin
//     transliteration) for given names of up to 12 letters and two children.
//     With longer or more names the longest are shortened to their initial
//     before a second part is spent.
//   - Its words are separated by one space, none stands at its ends, and it has
//     no line break (USSD texts may have one), so that it matches the form that
//     operators register ([Texts.OperatorForm]).
//   - A child is a given name and the initial of the family name. No class, no
//     school, no address; benefits are named to the child's own representatives
//     alone (D5).
//   - Names and dishes are neutralised: only letters, digits, spaces, hyphens
//     and apostrophes of a name come through, of a dish also plain punctuation.
//
// Times are printed as they are; callers give them in the zone of the
// organisation.
package templates

import (
	"time"

	"zvonok/ledger/money"
	"zvonok/templates/gsm"
)

// Language is the language a person reads.
type Language string

// The languages. Any other value reads as RU.
const (
	RU Language = "ru"
	EN Language = "en"
)

// Languages are all languages, Russian first.
func Languages() []Language { return []Language{RU, EN} }

// known returns the language itself, or RU for one that has no texts.
func (l Language) known() Language {
	if l == EN {
		return EN
	}
	return RU
}

// Style is how a person wants to read. The zero Style is Russian in Cyrillic
// with the built-in texts.
type Style struct {
	Language Language
	Latin    bool   // Russian in Latin letters, one part of GSM-7 where Cyrillic needs UCS-2 (D15); English always is
	Texts    *Texts // the deployment's texts; nil means the built-in ones
}

// Styles are all ways to read an SMS, with the given texts.
func Styles(texts *Texts) []Style {
	return []Style{
		{Language: RU, Texts: texts},
		{Language: RU, Latin: true, Texts: texts},
		{Language: EN, Texts: texts},
	}
}

// latin reports whether everything is to be written in GSM-7.
func (s Style) latin() bool { return s.Latin || s.Language.known() == EN }

// texts returns the texts of the style.
func (s Style) texts() *Texts {
	if s.Texts == nil {
		return Builtin()
	}
	return s.Texts
}

// text renders one text of the catalogue.
func (s Style) text(k key, v values) string {
	return s.finish(s.texts().find(s.Language, k).text(v))
}

// plural renders the form of a text that fits a number.
func (s Style) plural(k key, n int) string {
	return s.finish(s.texts().find(s.Language, k).count(s.Language, n))
}

func (s Style) finish(text string) string {
	if s.latin() {
		return gsm.Transliterate(text)
	}
	return text
}

// person is somebody a text names, and the word that stands for a name with
// nothing to show.
type person struct {
	Name
	word key
}

// children makes persons of children's names.
func children(names ...Name) []person {
	persons := make([]person, len(names))
	for i, n := range names {
		persons[i] = person{n, "child"}
	}
	return persons
}

// fit renders a text with its names as long as one part allows. The longest
// names are shortened first; if no shortening saves a part, the text keeps them
// whole.
func (s Style) fit(persons []person, render func(shown []string) string) string {
	shown := make([]string, len(persons))
	for i, p := range persons {
		shown[i] = p.short(s)
	}
	best := render(shown)
	parts := gsm.Parts(best)
	for parts > 1 {
		longest, length := -1, 0
		for i, p := range persons {
			if l := gsm.Units(shown[i]); l > gsm.Units(p.initials(s)) && l > length {
				longest, length = i, l
			}
		}
		if longest < 0 {
			break
		}
		shown[longest] = persons[longest].initials(s)
		if text := render(shown); gsm.Parts(text) < parts {
			best, parts = text, gsm.Parts(text)
		}
	}
	return best
}

// sum writes money for an SMS: no grouping and no sign of the currency, which
// would each put a Latin text into UCS-2.
func (s Style) sum(a money.Amount) string {
	if s.Language.known() == EN {
		return a.String() + " RUB"
	}
	return s.finish(a.RU() + " р")
}

// clock writes a time of day.
func clock(t time.Time) string { return t.Format("15:04") }

// date writes a day for an SMS.
func date(t time.Time) string { return t.Format("02.01") }

// dates writes a range of days for an SMS: "12-16.05", "28.04-02.05".
func dates(from, to time.Time) string {
	switch {
	case sameDay(from, to):
		return date(from)
	case from.Month() == to.Month() && from.Year() == to.Year():
		return from.Format("02") + "-" + date(to)
	default:
		return date(from) + "-" + date(to)
	}
}

func sameDay(a, b time.Time) bool {
	ay, am, ad := a.Date()
	by, bm, bd := b.Date()
	return ay == by && am == bm && ad == bd
}
