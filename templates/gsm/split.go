package gsm

import (
	"unicode"
	"unicode/utf8"
)

// MaxParts is how many parts a concatenated message can have: the information
// element of 3GPP TS 23.040 section 9.2.3.24.1 counts them in one octet. Split
// does not enforce it; who sends more refuses the message.
const MaxParts = 255

// Limits say how much one message holds, in octets of user data as they travel
// over SMPP: a septet is an octet, a UCS-2 unit is two. None may be below the
// four octets of the largest character.
type Limits struct {
	GSM7     int // a message by itself
	GSM7Part int // a part of a longer one, without its header
	UCS2     int
	UCS2Part int
}

// Limits8 are the limits when parts are joined by a header with an 8-bit
// reference (3GPP TS 23.040 section 9.2.3.24.1): 160 and 153 septets, 70 and 67
// units.
func Limits8() Limits { return Limits{GSM7: 160, GSM7Part: 153, UCS2: 140, UCS2Part: 134} }

// Limits16 are the limits when the reference has 16 bits (section
// 9.2.3.24.8): 160 and 152 septets, 70 and 66 units. They also suit sar_msg_ref_num
// of SMPP, which has 16 bits and leaves the choice of header to the operator.
func Limits16() Limits { return Limits{GSM7: 160, GSM7Part: 152, UCS2: 140, UCS2Part: 132} }

// Segment is one part of a text, ready to send.
type Segment struct {
	Text     string
	Alphabet Alphabet // the same for all parts of a text
	Octets   []byte   // Text in Alphabet; unpacked septets for GSM-7
}

// Split cuts a text into the parts that carry it, in order; their texts joined
// are the text. A text that fits into one message is one part, the empty text
// too. A part ends only where the reader sees a character end: never between
// an escape and its septet, between surrogates, or between a letter and its
// marks, joiners and modifiers. Only a single character larger than a whole
// part is cut inside, between two code points. Octets that are not UTF-8 become
// U+FFFD first.
func Split(text string, limits Limits) []Segment {
	if !utf8.ValidString(text) {
		text = string([]rune(text))
	}
	alphabet := AlphabetOf(text)
	cuts := cut(text, alphabet, limits)
	segments := make([]Segment, 0, len(cuts))
	octets := make([]byte, 0, size(text, alphabet))
	start := 0
	for _, end := range cuts {
		from := len(octets)
		if alphabet == GSM7 {
			octets, _ = AppendGSM7(octets, text[start:end]) // AlphabetOf has seen every character
		} else {
			octets = AppendUCS2(octets, text[start:end])
		}
		segments = append(segments, Segment{
			Text: text[start:end], Alphabet: alphabet, Octets: octets[from:len(octets):len(octets)],
		})
		start = end
	}
	return segments
}

// Parts returns how many short messages a text costs with an 8-bit reference:
// the length of Split(text, Limits8()).
func Parts(text string) int {
	if n, ok := Septets(text); ok && n <= 160 {
		return 1
	} else if !ok && Units(text) <= 70 {
		return 1
	}
	return len(cut(text, AlphabetOf(text), Limits8()))
}

// size returns the octets a text takes.
func size(text string, alphabet Alphabet) int {
	if alphabet == GSM7 {
		n, _ := Septets(text)
		return n
	}
	return 2 * Units(text)
}

// octetsOf returns the octets one character takes.
func octetsOf(r rune, alphabet Alphabet) int {
	if alphabet == GSM7 {
		return septetsOf(r)
	}
	return 2 * unitsOf(r)
}

// cut returns the offsets at which the parts of a text end; the last is its length.
func cut(text string, alphabet Alphabet, limits Limits) []int {
	whole, part := limits.GSM7, limits.GSM7Part
	if alphabet == UCS2 {
		whole, part = limits.UCS2, limits.UCS2Part
	}
	total := size(text, alphabet)
	if total <= whole {
		return []int{len(text)}
	}
	ends := make([]int, 0, total/part+2)
	used := 0 // octets of the part that is being filled
	for pos := 0; pos < len(text); {
		end := clusterEnd(text, pos)
		octets := size(text[pos:end], alphabet)
		switch {
		case used+octets <= part:
			used += octets
		case octets <= part:
			ends = append(ends, pos)
			used = octets
		default: // one character larger than a part: fill on, and break it where a code point ends
			for i, r := range text[pos:end] {
				n := octetsOf(r, alphabet)
				if used+n > part {
					ends = append(ends, pos+i)
					used = 0
				}
				used += n
			}
		}
		pos = end
	}
	return append(ends, len(text))
}

// clusterEnd returns where the character that begins at pos ends as a reader
// sees it. It is the part of Unicode's grapheme clusters (UAX 29) that matters
// for messages: CR LF, marks, joiners, variation selectors, skin tones, flags
// and their tags, decomposed Hangul.
func clusterEnd(text string, pos int) int {
	first, width := utf8.DecodeRuneInString(text[pos:])
	end := pos + width
	if first < 0x20 || first == 0x7F {
		if first == '\r' && end < len(text) && text[end] == '\n' {
			end++
		}
		return end
	}
	previous, flags := first, 0
	if isFlag(first) {
		flags = 1
	}
	for end < len(text) {
		if text[end] < utf8.RuneSelf && previous != joiner {
			break // the common case: nothing in ASCII continues a character
		}
		r, width := utf8.DecodeRuneInString(text[end:])
		switch {
		case extends(r):
		case previous == joiner && r > 0x20 && r != 0x7F:
		case flags == 1 && isFlag(r):
			flags = 2
		default:
			return end
		}
		previous = r
		end += width
	}
	return end
}

// joiner is the zero-width joiner that makes one emoji of several.
const joiner = '\u200D'

// isFlag reports whether r is a regional indicator; two of them are a flag.
func isFlag(r rune) bool { return 0x1F1E6 <= r && r <= 0x1F1FF }

// extends reports whether r belongs to the character before it.
func extends(r rune) bool {
	switch {
	case r < 0x300, 0x370 <= r && r < 0x483, 0x48A <= r && r < 0x591: // Latin, Greek, Cyrillic: most of all text
		return false
	case r == joiner, r == '\u200C':
		return true
	case 0x1F3FB <= r && r <= 0x1F3FF: // skin tones
		return true
	case 0xE0020 <= r && r <= 0xE007F: // tags
		return true
	case 0x1160 <= r && r <= 0x11FF, 0xD7B0 <= r && r <= 0xD7FB: // vowels and finals of Hangul
		return true
	default:
		return unicode.Is(unicode.M, r)
	}
}
