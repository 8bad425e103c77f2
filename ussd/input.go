package ussd

import (
	"strings"
	"unicode"
)

// maxInput bounds what is looked at of a typed text, in characters; an SMPP text has at most 255 octets.
const maxInput = 255

// digitZeros are the zeros of the digit alphabets that phones send: Arabic-Indic, extended Arabic-Indic, Devanagari,
// full-width. Each is followed by its nine others.
var digitZeros = [...]rune{'\u0660', '\u06F0', '\u0966', '\uFF10'}

// plain brings a typed or dialled text into ASCII where phones and centres vary: digits and signs of other scripts,
// every kind of space, and at the ends what padding leaves there (spaces, CR, NUL, and the "@" that a NUL octet is in
// GSM-7).
func plain(s string) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n++; n > maxInput {
			break
		}
		switch {
		case r == '＊':
			r = '*'
		case r == '＃':
			r = '#'
		case r == 0 || unicode.IsSpace(r) || unicode.Is(unicode.Cf, r):
			r = ' '
		default:
			for _, zero := range digitZeros {
				if zero <= r && r <= zero+9 {
					r += '0' - zero
					break
				}
			}
		}
		b.WriteRune(r)
	}
	return strings.Trim(b.String(), " @")
}

// pressed returns the key in an answer: the first token of what was typed, so that "1#", "*1#" and "1 " are all the
// key "1". It is empty when nothing was typed.
func pressed(text string) string {
	typed := strings.FieldsFunc(plain(text), func(r rune) bool { return r == '*' || r == '#' || r == ' ' })
	if len(typed) == 0 {
		return ""
	}
	return typed[0]
}
