package ussd

import (
	"iter"
	"strings"
	"unicode"
	"unicode/utf8"

	"zvonok/templates"
	"zvonok/templates/gsm"
)

// Keys that mean the same on every screen (ussd.md section 6).
const (
	keyBack  = "0"
	keyFirst = "00"
	keyMore  = "9"
)

// nothing stands for a text of which no letter can be shown: a page without any is illegal on the air (ussd.md section 3).
const nothing = "-"

// layout is everything that decides how a screen is cut: the screen, the words round it, where the dialogue stands.
// It is a value made for one page and thrown away, since cutting a screen anew costs microseconds and keeping its
// pages would cost every open dialogue memory.
type layout struct {
	chunks []chunk
	bar    []Choice
	lead   int
	words  templates.USSDFrame
	top    bool // the dialogue began here, so "0" leaves
	end    bool // nothing follows the last page
	alone  bool // the operator wants the answer alone: one page, no keys

	gsm7 bool
	size func(string) int
	max  int // of a page, in what size counts
}

// chunk is what is never cut: a line or, of a line that may have to be broken, a word.
type chunk struct {
	text      string
	continues bool // belongs to the line of the chunk before it
}

// page is one page of a screen, ready to be encoded.
type page struct {
	text string
	from int // where it begins: a position in chunks, or beyond them in the bar
	next int // where the page after it begins
	last bool
	gsm7 bool // the whole screen can be written in the GSM 7-bit alphabet
}

// newLayout chooses the alphabet of the whole screen, since a dialogue whose pages change size confuses, and breaks the
// lines into chunks. With latin everything is made to fit GSM-7.
func newLayout(screen Screen, words templates.USSDFrame, top, alone, latin bool, limits Limits) *layout {
	l := &layout{lead: screen.Lead, words: words, top: top, end: screen.End, alone: alone, gsm7: words.GSM7}
	line := func(text string) string {
		text = oneLine(text, latin)
		l.gsm7 = l.gsm7 && gsm.IsGSM7(text)
		return text
	}
	lines := make([]string, 0, len(screen.Lines)+len(screen.Items))
	for _, text := range screen.Lines {
		lines = append(lines, line(text))
	}
	for _, item := range screen.Items {
		if alone {
			lines = append(lines, line(item.Label))
		} else {
			lines = append(lines, item.Key+" "+line(item.Label))
		}
	}
	if !alone {
		for _, choice := range screen.Bar {
			l.bar = append(l.bar, Choice{Key: choice.Key, Label: line(choice.Label)})
		}
	}
	l.size, l.max = gsm.Units, limits.UCS2
	if l.gsm7 {
		l.size, l.max = septets, limits.GSM7
	}
	width := l.max - l.size(l.footer(true, true)) - l.size(words.Hint) - 2
	for _, text := range lines {
		if text != "" {
			l.chunks = l.split(l.chunks, text, width)
		}
	}
	if len(l.chunks)+len(l.bar) == 0 { // a dish named by a pictogram, on a link that carries Latin letters only
		l.chunks = []chunk{{text: nothing}}
	}
	return l
}

// page cuts the page that begins at from. A hint, when there is one, is its first line.
func (l *layout) page(from int, hint string) page {
	p := page{from: from, gsm7: l.gsm7}
	if from > len(l.chunks) || from == len(l.chunks) && len(l.bar) > 0 && from > 0 {
		l.barPage(&p, hint)
		return p
	}
	whole := l.join(hint, l.chunks[from:])
	for tail := range l.tails(from == 0) {
		if text := withLine(whole, tail.text); l.size(text) <= l.max {
			p.text, p.next, p.last = text, len(l.chunks)+tail.shown, tail.last
			return p
		}
	}
	footer := l.footer(true, from == 0)
	text, at := hint, from
	for at < len(l.chunks) {
		end := at + 1
		for end < len(l.chunks) && l.chunks[end].continues {
			end++
		}
		grown := l.extend(text, l.chunks[at:end], at == from)
		if l.fits(grown, footer) {
			text, at = grown, end
			continue
		}
		if at > from && l.fits(l.join("", l.chunks[at:end]), footer) {
			break // the whole line has room on the next page
		}
		for at < end {
			grown = l.extend(text, l.chunks[at:at+1], at == from)
			if at > from && !l.fits(grown, footer) {
				break
			}
			text, at = grown, at+1
		}
		break
	}
	p.text, p.next = withLine(text, footer), at
	return p
}

// barPage lists the choices of the bar that had no room on it, a line each.
func (l *layout) barPage(p *page, hint string) {
	at := p.from - len(l.chunks)
	text := hint
	for at < len(l.bar) {
		choice := l.bar[at]
		grown := withLine(text, choice.Key+" "+choice.Label)
		last := at == len(l.bar)-1
		if at > p.from-len(l.chunks) && !l.fits(grown, l.footer(!last, false)) {
			break
		}
		text, at = grown, at+1
	}
	p.last = at == len(l.bar)
	p.text, p.next = withLine(text, l.footer(!p.last, false)), len(l.chunks)+at
}

// tail is a possible last line under the end of a screen's text.
type tail struct {
	text  string
	shown int  // choices of the bar on it
	last  bool // nothing is left for another page
}

// tails yields the last lines a screen may have, best first: the whole bar; its leading choices with the keys to leave
// and to see more, then without the latter; fewer choices; the key to the menu alone.
func (l *layout) tails(first bool) iter.Seq[tail] {
	back := l.footer(false, first)
	return func(yield func(tail) bool) {
		switch {
		case l.alone:
			yield(tail{last: true})
			return
		case len(l.bar) == 0:
			// Leaving is also hanging up; an answer on one page is worth more than the key to leave.
			if yield(tail{text: back, last: true}) && l.top && first && back != "" {
				yield(tail{last: true})
			}
			return
		case !yield(tail{text: inline(l.bar, back), shown: len(l.bar), last: true}):
			return
		}
		lead := min(l.lead, len(l.bar))
		if lead > 0 && lead < len(l.bar) {
			if !yield(tail{text: inline(l.bar[:lead], back, l.words.MoreShort), shown: lead}) ||
				!yield(tail{text: inline(l.bar[:lead], back), shown: lead}) {
				return
			}
		}
		for n := lead - 1; n > 0; n-- {
			if !yield(tail{text: inline(l.bar[:n], l.words.MoreShort, back), shown: n}) {
				return
			}
		}
		_ = yield(tail{text: inline(nil, l.words.Menu, back)}) && yield(tail{text: l.words.Menu})
	}
}

// footer returns the keys under a page: "9" when more follows, and what "0" does.
func (l *layout) footer(more, first bool) string {
	back := l.words.Back
	if l.top && first {
		back = l.words.Exit
	}
	switch {
	case l.alone || l.end && !more:
		return ""
	case l.end:
		return l.words.More
	case more:
		return l.words.More + " " + back
	default:
		return back
	}
}

func (l *layout) fits(text, footer string) bool { return l.size(withLine(text, footer)) <= l.max }

// join writes chunks under a first line.
func (l *layout) join(first string, chunks []chunk) string { return l.extend(first, chunks, true) }

// extend adds chunks to a text. A chunk that continues its line stands on that line, unless it opens the page.
func (l *layout) extend(text string, chunks []chunk, opens bool) string {
	for i, c := range chunks {
		if c.continues && !(opens && i == 0) {
			text += " " + c.text
		} else {
			text = withLine(text, c.text)
		}
	}
	return text
}

// split appends a line: as one chunk when it fits beside a footer and a hint, else as its words. A word longer than that
// is cut between characters, since it fits no page.
func (l *layout) split(chunks []chunk, line string, width int) []chunk {
	if l.size(line) <= width {
		return append(chunks, chunk{text: line})
	}
	continues := false
	for word := range strings.FieldsSeq(line) {
		for word != "" {
			cut := l.head(word, width)
			chunks = append(chunks, chunk{text: word[:cut], continues: continues})
			word, continues = word[cut:], true
		}
	}
	return chunks
}

// head returns how many octets of a word fit into a width.
func (l *layout) head(word string, width int) int {
	if l.size(word) <= width {
		return len(word)
	}
	for at := range word {
		_, next := utf8.DecodeRuneInString(word[at:])
		if l.size(word[:at+next]) > width && at > 0 {
			return at
		}
	}
	return len(word)
}

// inline writes choices and further keys on one line.
func inline(choices []Choice, more ...string) string {
	var line strings.Builder
	add := func(parts ...string) {
		for i, part := range parts {
			if part != "" && (i > 0 || line.Len() > 0) {
				line.WriteByte(' ')
			}
			line.WriteString(part)
		}
	}
	for _, c := range choices {
		add(c.Key, c.Label)
	}
	for _, m := range more {
		add(m)
	}
	return line.String()
}

func withLine(text, line string) string {
	if text == "" || line == "" {
		return text + line
	}
	return text + "\n" + line
}

// oneLine makes one line of a text somebody typed, such as the name of a dish: no control characters, no marks that
// turn the direction of writing, one space between words. With latin it is in Latin letters, without what has none.
func oneLine(s string, latin bool) string {
	if latin {
		s = gsm.Transliterate(s)
	} else if tidy(s) {
		return s
	}
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == utf8.RuneError:
			return -1
		case latin && !gsm.Encodable(r):
			return -1
		default:
			return r
		}
	}, s)
	return strings.Join(strings.Fields(s), " ")
}

// tidy says that a text is one line already: nearly every text is.
func tidy(s string) bool {
	space := true // one at the beginning is one too many
	for _, r := range s {
		switch {
		case r == ' ' && space || r < ' ' || r == utf8.RuneError:
			return false
		case r == ' ':
		case r > utf8.RuneSelf && (unicode.IsSpace(r) || unicode.IsControl(r) || unicode.Is(unicode.Cf, r)) || r == 0x7F:
			return false
		}
		space = r == ' '
	}
	return !space
}

// septets counts GSM 7-bit septets of a text that is known to be of that alphabet.
func septets(s string) int {
	n, _ := gsm.Septets(s)
	return n
}
