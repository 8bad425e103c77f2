package templates

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"zvonok/templates/gsm"
)

// Limits of what is taken from a name or a dish.
const (
	maxTyped = 256 // code points looked at; a registry field may hold a page of text
	maxGiven = 32  // characters of a given name shown; a longer one is shown by its initial
	maxDish  = 80  // characters of a dish shown in a letter
	maxMarks = 3   // marks on one letter; scripts of India use up to three, stacked ornaments are cut
	maxCode  = 16  // characters of a code
)

// Name is a person's name as the registry has it. What is shown of it is the
// given name and the initial of the family name (D5).
type Name struct{ Given, Family string }

// Short returns the name as messages show it, "Маша П.": the given name and the
// initial of the family name, neutralised. A given name longer than 32
// characters is an initial too. In Latin and in English it is transliterated;
// letters that have no Latin form are left out. A name with nothing left to
// show is the word for a child.
func (n Name) Short(s Style) string { return person{n, "child"}.short(s) }

// first returns the given name of a child alone, as subjects of letters show it.
func (n Name) first(s Style) string {
	if given := s.given(n.Given); given != "" {
		return given
	}
	return person{n, "child"}.initials(s)
}

// short is Name.Short with the person's own word.
func (p person) short(s Style) string { return p.shown(s, s.given(p.Given)) }

// initials returns the shortest form that still tells siblings apart, "М. П.".
func (p person) initials(s Style) string { return p.shown(s, s.initial(p.Given)) }

func (p person) shown(s Style, given string) string {
	family := s.initial(p.Family)
	switch {
	case given == "" && family == "":
		return s.text(p.word, nil)
	case given == "":
		return family
	case family == "":
		return given
	default:
		return given + " " + family
	}
}

// given returns a given name in the letters of the style, or its initial when
// it is too long for any message.
func (s Style) given(typed string) string {
	name := s.letters(cleanName(typed))
	if utf8.RuneCountInString(name) > maxGiven {
		return s.initial(typed)
	}
	return name
}

// initial returns the first letter of a name as a capital with a dot, or "".
func (s Style) initial(typed string) string {
	name := cleanName(typed)
	for i, r := range name {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			end := i + utf8.RuneLen(r)
			for end < len(name) {
				mark, width := utf8.DecodeRuneInString(name[end:])
				if !unicode.Is(unicode.M, mark) {
					break
				}
				end += width
			}
			if letter := s.letters(string(unicode.ToUpper(r)) + name[i+utf8.RuneLen(r):end]); letter != "" {
				return letter + "."
			}
		}
	}
	return ""
}

// letters writes cleaned text in the letters the style can show.
func (s Style) letters(text string) string {
	if !s.latin() {
		return text
	}
	text = gsm.Transliterate(text)
	if gsm.IsGSM7(text) {
		return text
	}
	kept := strings.Map(func(r rune) rune {
		if !gsm.Encodable(r) {
			return ' '
		}
		return r
	}, text)
	return strings.Trim(strings.Join(strings.Fields(kept), " "), " -'")
}

// cleanName keeps of what was typed into a name what a name consists of:
// letters with their marks, digits, single spaces, hyphens, apostrophes, and
// the dot of an abbreviation. Line breaks and other spaces become a space, as
// do signs; control characters, direction marks and other invisible characters
// go. Ornamental letters become plain ones (NFKC).
func cleanName(typed string) string { return clean(typed, false) }

// cleanDish is cleanName for dishes and goods, which also have brackets, commas
// and the like.
func cleanDish(typed string) string {
	dish := clean(typed, true)
	if utf8.RuneCountInString(dish) <= maxDish {
		return dish
	}
	return strings.TrimRight(string([]rune(dish)[:maxDish-1]), " ,.-(") + "…"
}

func clean(typed string, punctuation bool) string {
	typed = norm.NFKC.String(strings.ToValidUTF8(head(typed, maxTyped), ""))
	var out strings.Builder
	out.Grow(len(typed))
	gap, marks := false, 0
	previous := rune(0) // last character kept; zero at the start and after a gap
	keep := func(r rune) {
		if gap && out.Len() > 0 {
			out.WriteByte(' ')
		}
		gap = false
		out.WriteRune(r)
		previous = r
	}
	for i, r := range typed {
		switch {
		case unicode.IsLetter(r) || unicode.Is(unicode.Nd, r):
			marks = 0
			keep(r)
		case unicode.Is(unicode.M, r):
			if marks++; !gap && previous != 0 && marks <= maxMarks && !unicode.Is(unicode.Me, r) && !isSelector(r) {
				out.WriteRune(r)
			}
		case unicode.IsSpace(r):
			gap, previous = true, 0
		case unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Co, r) || unicode.Is(unicode.Cs, r):
		case unicode.Is(unicode.Pd, r) && (previous != 0 || punctuation):
			keep('-')
		case isApostrophe(r) && previous != 0:
			keep('\'')
		case r == '.' && unicode.IsLetter(previous) && !letterAt(typed[i+1:]):
			keep('.')
		case punctuation && strings.ContainsRune(",.%)/»", r) && out.Len() > 0:
			gap = gap && r == '/'
			keep(r)
		case punctuation && strings.ContainsRune("(«\"+№&", r):
			keep(r)
		default:
			gap, previous = true, 0
		}
	}
	return strings.TrimRight(out.String(), " -'/&,(«+")
}

// head returns the first n code points of a text.
func head(text string, n int) string {
	for i := range text {
		if n == 0 {
			return text[:i]
		}
		n--
	}
	return text
}

// letterAt reports whether a text begins with a letter or digit: a dot before
// one would make a name look like an address on the web.
func letterAt(text string) bool {
	r, _ := utf8.DecodeRuneInString(text)
	return unicode.IsLetter(r) || unicode.IsDigit(r)
}

func isApostrophe(r rune) bool { return r == '\'' || r == '’' || r == 'ʼ' || r == '`' || r == '‘' }

// isSelector reports whether r asks for another shape of the character before it.
func isSelector(r rune) bool { return 0xFE00 <= r && r <= 0xFE0F || 0xE0100 <= r && r <= 0xE01EF }

// cleanCode keeps the ASCII letters, digits, "*" and "#" of a code.
func cleanCode(code string) string {
	return head(strings.Map(func(r rune) rune {
		switch {
		case '0' <= r && r <= '9', 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', r == '*', r == '#', r == '-':
			return r
		}
		return -1
	}, code), maxCode)
}

// capitalised returns a word of ours with a capital at its beginning.
func capitalised(word string) string {
	r, width := utf8.DecodeRuneInString(word)
	return string(unicode.ToUpper(r)) + word[width:]
}
