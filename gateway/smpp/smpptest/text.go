package smpptest

import (
	"encoding/binary"
	"encoding/hex"
	"strings"
	"unicode/utf16"

	"zvonok/gateway/smpp"
)

// The GSM 7 bit default alphabet and its extension (3GPP TS 23.038, sections
// 6.2.1 and 6.2.1.1), by code. ESC itself stands as a space.
const gsmBasic = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ ÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?" +
	"¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"

func gsmExtension(code byte) (rune, bool) {
	switch code {
	case 0x0A:
		return '\f', true
	case 0x14:
		return '^', true
	case 0x28:
		return '{', true
	case 0x29:
		return '}', true
	case 0x2F:
		return '\\', true
	case 0x3C:
		return '[', true
	case 0x3D:
		return '~', true
	case 0x3E:
		return ']', true
	case 0x40:
		return '|', true
	case 0x65:
		return '€', true
	default:
		return 0, false
	}
}

// decodeText turns octets into the text a phone would show. Octets outside
// their alphabet show as U+FFFD, binary data in hexadecimal.
func decodeText(dataCoding uint8, octets []byte) string {
	switch dataCoding {
	case 8, 0x48:
		units := make([]uint16, len(octets)/2)
		for i := range units {
			units[i] = binary.BigEndian.Uint16(octets[2*i:])
		}
		text := string(utf16.Decode(units))
		if len(octets)%2 == 1 {
			text += "\uFFFD"
		}
		return text
	case 3:
		runes := make([]rune, len(octets))
		for i, octet := range octets {
			runes[i] = rune(octet)
		}
		return string(runes)
	case 2, 4, 0x44:
		return hex.EncodeToString(octets)
	default:
		return decodeGSM(octets)
	}
}

func decodeGSM(octets []byte) string {
	alphabet := []rune(gsmBasic)
	var text strings.Builder
	for i := 0; i < len(octets); i++ {
		code := octets[i]
		switch {
		case code == 0x1B && i+1 < len(octets):
			i++
			if r, ok := gsmExtension(octets[i]); ok {
				text.WriteRune(r)
			} else if int(octets[i]) < len(alphabet) {
				text.WriteRune(alphabet[octets[i]])
			} else {
				text.WriteRune('\uFFFD')
			}
		case int(code) < len(alphabet):
			text.WriteRune(alphabet[code])
		default:
			text.WriteRune('\uFFFD')
		}
	}
	return text.String()
}

// encodeText writes a text of a phone: in the GSM alphabet if it fits, else in
// UCS-2.
func encodeText(text string) (dataCoding uint8, octets []byte) {
	codes := make(map[rune][]byte, 140)
	for code, r := range []rune(gsmBasic) {
		codes[r] = []byte{byte(code)}
	}
	for code := range byte(0x80) {
		if r, ok := gsmExtension(code); ok {
			codes[r] = []byte{0x1B, code}
		}
	}
	for _, r := range text {
		code, ok := codes[r]
		if !ok {
			return 8, ucs2(text)
		}
		octets = append(octets, code...)
	}
	return 0, octets
}

func ucs2(text string) []byte {
	var octets []byte
	for _, unit := range utf16.Encode([]rune(text)) {
		octets = binary.BigEndian.AppendUint16(octets, unit)
	}
	return octets
}

// segment is one part of a message, as the phone sees it.
type segment struct {
	octets        []byte
	reference     uint32
	total, number int // 1 and 1 for a message of one part
}

// segmentOf finds out which part of what a message is: by its user data header
// (3GPP TS 23.040, sections 9.2.3.24.1 and .8) or by the TLVs sar_*.
func segmentOf(m *smpp.Message) segment {
	s := segment{octets: m.Octets(), total: 1, number: 1}
	if m.ESMClass&smpp.ESMClassUDHI != 0 && len(s.octets) > 0 {
		end := 1 + int(s.octets[0])
		if end > len(s.octets) {
			return s
		}
		s.readHeader(s.octets[1:end])
		s.octets = s.octets[end:]
		return s
	}
	reference, ok1 := m.TLVs.Uint(smpp.TagSARMsgRefNum)
	total, ok2 := m.TLVs.Uint(smpp.TagSARTotalSegments)
	number, ok3 := m.TLVs.Uint(smpp.TagSARSegmentSeqnum)
	if ok1 && ok2 && ok3 {
		s.set(reference, int(total), int(number))
	}
	return s
}

func (s *segment) readHeader(header []byte) {
	for len(header) >= 2 && len(header) >= 2+int(header[1]) {
		value := header[2 : 2+int(header[1])]
		switch {
		case header[0] == 0x00 && len(value) == 3:
			s.set(uint32(value[0]), int(value[1]), int(value[2]))
		case header[0] == 0x08 && len(value) == 4:
			s.set(uint32(value[0])<<8|uint32(value[1]), int(value[2]), int(value[3]))
		}
		header = header[2+len(value):]
	}
}

func (s *segment) set(reference uint32, total, number int) {
	if total >= 1 && number >= 1 && number <= total {
		s.reference, s.total, s.number = reference, total, number
	}
}
