package gsm

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// UnencodableError says that GSM-7 has no such character.
type UnencodableError struct {
	Rune   rune
	Offset int // octets into the UTF-8 text
}

// Error names the character by its code point, so that it may be logged: a
// single character is nobody's name.
func (e *UnencodableError) Error() string {
	return fmt.Sprintf("GSM-7 has no character %U (octet %d of the text)", e.Rune, e.Offset)
}

// MalformedError says that octets are no text of their alphabet.
type MalformedError struct {
	Alphabet Alphabet
	Offset   int // of the first wrong octet
}

// Error names the place.
func (e *MalformedError) Error() string {
	return fmt.Sprintf("octet %d is not %v", e.Offset, e.Alphabet)
}

// EncodeGSM7 returns the text as unpacked septets, one an octet. The error is
// an *UnencodableError and names the first character GSM-7 does not have.
func EncodeGSM7(text string) ([]byte, error) {
	return AppendGSM7(make([]byte, 0, len(text)), text)
}

// AppendGSM7 is EncodeGSM7 into the end of dst. After an error dst holds what
// came before the character that has no septet.
func AppendGSM7(dst []byte, text string) ([]byte, error) {
	for i, r := range text {
		c := codeOf(r)
		if c == unwritable {
			return dst, &UnencodableError{Rune: r, Offset: i}
		}
		if c&escaped != 0 {
			dst = append(dst, escape)
		}
		dst = append(dst, byte(c))
	}
	return dst, nil
}

// DecodeGSM7 reads unpacked septets. As 3GPP TS 23.038 section 6.2.1.1 asks of
// a receiver, an escape before a septet that the extension table does not have
// shows the character of the default table, and an escape before an escape or
// at the end shows a space. An octet above 0x7F is no septet: it becomes U+FFFD
// and the first such octet is named by the *MalformedError that comes with the
// text.
func DecodeGSM7(septets []byte) (string, error) {
	var text strings.Builder
	text.Grow(len(septets))
	var err error
	for i := 0; i < len(septets); i++ {
		s := septets[i]
		switch {
		case s > 0x7F:
			text.WriteRune(utf8.RuneError)
			if err == nil {
				err = &MalformedError{GSM7, i}
			}
		case s != escape:
			text.WriteRune(tables.char[s])
		case i+1 == len(septets) || septets[i+1] > 0x7F:
			text.WriteByte(' ')
		default:
			i++
			switch r := tables.extended[septets[i]]; {
			case r != 0:
				text.WriteRune(r)
			case septets[i] == escape:
				text.WriteByte(' ')
			default:
				text.WriteRune(tables.char[septets[i]])
			}
		}
	}
	return text.String(), err
}

// EncodeUCS2 returns the text as UTF-16 in big-endian order. Octets that are
// not UTF-8 become U+FFFD.
func EncodeUCS2(text string) []byte {
	return AppendUCS2(make([]byte, 0, 2*Units(text)), text)
}

// AppendUCS2 is EncodeUCS2 into the end of dst.
func AppendUCS2(dst []byte, text string) []byte {
	for _, r := range text {
		if r >= 0x10000 {
			high, low := utf16.EncodeRune(r)
			dst = binary.BigEndian.AppendUint16(dst, uint16(high))
			dst = binary.BigEndian.AppendUint16(dst, uint16(low))
			continue
		}
		dst = binary.BigEndian.AppendUint16(dst, uint16(r))
	}
	return dst
}

// DecodeUCS2 reads UTF-16 in big-endian order. Half a surrogate pair and an odd
// octet at the end become U+FFFD each; the first of them is named by the
// *MalformedError that comes with the text.
func DecodeUCS2(octets []byte) (string, error) {
	var text strings.Builder
	text.Grow(len(octets))
	var err error
	malformed := func(offset int) {
		text.WriteRune(utf8.RuneError)
		if err == nil {
			err = &MalformedError{UCS2, offset}
		}
	}
	i := 0
	for ; i+1 < len(octets); i += 2 {
		r := rune(binary.BigEndian.Uint16(octets[i:]))
		if !utf16.IsSurrogate(r) {
			text.WriteRune(r)
			continue
		}
		if i+3 < len(octets) {
			if pair := utf16.DecodeRune(r, rune(binary.BigEndian.Uint16(octets[i+2:]))); pair != utf8.RuneError {
				text.WriteRune(pair)
				i += 2
				continue
			}
		}
		malformed(i)
	}
	if i < len(octets) {
		malformed(i)
	}
	return text.String(), err
}
