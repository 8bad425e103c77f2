// Package gsm knows how text travels in a short message: which characters each
// alphabet has, how many places a text takes, how it becomes octets, where it
// may be cut, and how Russian is written in Latin letters.
//
// A short message is written in one of two alphabets.
//
//   - GSM-7, the default alphabet of 3GPP TS 23.038 section 6.2.1 with its
//     extension table (6.2.1.1): 128 characters in septets; ten more, such as
//     "[" and "€", as an escape and a septet. A message holds 160 septets, a
//     part of a longer one 153, or 152 when the parts carry a 16-bit reference.
//     Over SMPP each septet travels in an octet of its own (unpacked).
//   - UCS-2 for everything else: UTF-16 in big-endian order, surrogate pairs
//     included, since handsets read it so. A message holds 70 units, a part 67
//     or 66.
//
// One letter outside GSM-7 puts the whole text into UCS-2 and more than halves
// its room, which is why the catalogue of texts counts with this package.
//
// The package never replaces a character it cannot write by another one:
// encoding into GSM-7 fails and names the character, and transliteration
// leaves what its table does not have. Octets that are no text are decoded to
// U+FFFD, which is visible, together with an error.
package gsm

import "unicode/utf8"

// Alphabet is the alphabet of a short message.
type Alphabet uint8

// The alphabets.
const (
	GSM7 Alphabet = iota // 3GPP TS 23.038 default alphabet with extension table
	UCS2                 // UTF-16, big-endian
)

// String returns "GSM-7" or "UCS-2".
func (a Alphabet) String() string {
	if a == GSM7 {
		return "GSM-7"
	}
	return "UCS-2"
}

// AlphabetOf returns the cheaper alphabet that can write the text.
func AlphabetOf(text string) Alphabet {
	if IsGSM7(text) {
		return GSM7
	}
	return UCS2
}

// escape announces a character of the extension table.
const escape = 0x1B

// defaultTable is the table of 3GPP TS 23.038 section 6.2.1: the character of a
// septet is the rune with its index. Index 0x1B is the escape and no character.
const defaultTable = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ" +
	" !\"#¤%&'()*+,-./0123456789:;<=>?" +
	"¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§" +
	"¿abcdefghijklmnopqrstuvwxyzäöñüà"

// extension is the table of section 6.2.1.1: the characters written as an
// escape and this septet.
var extension = [...]struct {
	septet byte
	char   rune
}{
	{0x0A, '\f'},
	{0x14, '^'},
	{0x28, '{'},
	{0x29, '}'},
	{0x2F, '\\'},
	{0x3C, '['},
	{0x3D, '~'},
	{0x3E, ']'},
	{0x40, '|'},
	{0x65, '€'},
}

const (
	lastIndexed = 'Ω'    // highest character of the default table, and the end of the indexed range
	unwritable  = 0xFFFF // no septet
	escaped     = 0x100  // set in the code of a character of the extension table
)

// tables are the two directions of the alphabet; nothing changes them.
var tables = newTables()

type table struct {
	code     [lastIndexed + 1]uint16 // by character: its septet, with the bit escaped, or unwritable
	char     [128]rune               // by septet
	extended [128]rune               // by septet after an escape; zero where the extension table is empty
}

func newTables() *table {
	t := new(table)
	for i := range t.code {
		t.code[i] = unwritable
	}
	septet := 0
	for _, r := range defaultTable {
		t.char[septet] = r
		if septet != escape {
			t.code[r] = uint16(septet)
		}
		septet++
	}
	for _, e := range extension {
		t.extended[e.septet] = e.char
		if e.char <= lastIndexed {
			t.code[e.char] = uint16(e.septet) | escaped
		}
	}
	return t
}

// codeOf returns the septet of a character, with the bit escaped set when it
// needs an escape before it, or unwritable.
func codeOf(r rune) uint16 {
	switch {
	case uint32(r) <= lastIndexed:
		return tables.code[r]
	case r == '€':
		return 0x65 | escaped
	default:
		return unwritable
	}
}

// septetsOf returns how many septets a character takes: 1, 2, or 0 when GSM-7
// does not have it.
func septetsOf(r rune) int {
	switch c := codeOf(r); {
	case c == unwritable:
		return 0
	case c&escaped != 0:
		return 2
	default:
		return 1
	}
}

// unitsOf returns how many UTF-16 units a character takes.
func unitsOf(r rune) int {
	if r >= 0x10000 {
		return 2
	}
	return 1
}

// Encodable reports whether GSM-7 has the character, in either of its tables.
func Encodable(r rune) bool { return codeOf(r) != unwritable }

// IsGSM7 reports whether GSM-7 can write the whole text. Text that is not valid
// UTF-8 is not GSM-7.
func IsGSM7(text string) bool {
	_, ok := Septets(text)
	return ok
}

// Septets returns how many septets the text takes in GSM-7, characters of the
// extension table counting twice, and whether GSM-7 can write it at all; if
// not, the count is 0.
func Septets(text string) (n int, ok bool) {
	for _, r := range text {
		s := septetsOf(r)
		if s == 0 {
			return 0, false
		}
		n += s
	}
	return n, true
}

// Units returns how many UTF-16 units the text takes in UCS-2. An octet that is
// not UTF-8 counts as one, the replacement character.
func Units(text string) int {
	n := utf8.RuneCountInString(text)
	for i := range len(text) {
		if text[i] >= 0xF0 { // the first octet of a character above U+FFFF, or of none
			if r, _ := utf8.DecodeRuneInString(text[i:]); r >= 0x10000 {
				n++
			}
		}
	}
	return n
}
