package carrier

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"time"

	"zvonok/access/phone"
	"zvonok/gateway/smpp"
	"zvonok/templates/gsm"
)

// Method says how the parts of a long text are joined again by the phone (setting concatenation).
type Method string

// The methods.
const (
	UDH8    Method = "udh8"    // user data header with an 8-bit reference, 3GPP TS 23.040 section 9.2.3.24.1
	UDH16   Method = "udh16"   // the same with 16 bits, section 9.2.3.24.8
	SAR     Method = "sar"     // sar_msg_ref_num, sar_total_segments, sar_segment_seqnum, SMPP 3.4 section 5.3.2.22
	Payload Method = "payload" // one PDU with message_payload; the operator cuts it
)

// next returns the method to try after an operator refused m, "" after the last.
func (m Method) next() Method {
	switch m {
	case UDH16:
		return UDH8
	case UDH8:
		return SAR
	case SAR:
		return Payload
	default:
		return ""
	}
}

// limits returns what a part holds under the method.
func (m Method) limits() gsm.Limits {
	if m == UDH8 {
		return gsm.Limits8()
	}
	return gsm.Limits16()
}

// Values of data_coding, SMPP 3.4 section 5.2.19.
const (
	codingDefault = 0x00 // the SMSC's default alphabet, taken for unpacked GSM-7
	codingASCII   = 0x01
	codingLatin1  = 0x03
	codingBinary  = 0x04
	codingUCS2    = 0x08
)

// Information elements of a user data header, 3GPP TS 23.040 section 9.2.3.24.
const (
	elementConcat8  = 0x00
	elementConcat16 = 0x08
)

// sourceAddress gives a sender its type of number and plan: a name is alphanumeric (5/0), three to eight digits are a
// short code (3/0, network specific), more are an international number (1/1).
func sourceAddress(source string) (smpp.Address, error) {
	digits := source
	if len(digits) > 1 && digits[0] == '+' {
		digits = digits[1:]
	}
	numeric := digits != ""
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' {
			numeric = false
		}
	}
	switch {
	case source == "":
		// The operator puts in its own.
		return smpp.Address{}, nil
	case numeric && len(digits) <= 8:
		return smpp.Address{TON: 3, NPI: 0, Addr: digits}, nil
	case numeric && len(digits) <= 15:
		return smpp.Address{TON: 1, NPI: 1, Addr: digits}, nil
	case numeric:
		return smpp.Address{}, fmt.Errorf("source %q: a number has at most 15 digits", source)
	}
	// Eleven septets fit into the address field of a phone (3GPP TS 23.040 section 9.1.2.5).
	if n, ok := gsm.Septets(source); !ok || n > 11 || len(source) > 20 {
		return smpp.Address{}, fmt.Errorf("source %q: a sender name has at most 11 characters of the GSM alphabet", source)
	}
	return smpp.Address{TON: 5, NPI: 0, Addr: source}, nil
}

// references gives long texts the numbers by which phones join their parts. A number must not come back while parts
// of an earlier text for the same phone are on the way, so each phone has its own counter. It begins at a number taken
// from the phone's digits: after a restart the numbers go on differing between phones, and within one phone a text
// would have to be under way since before the restart to be confused.
type references struct {
	next map[phone.Number]uint16
	salt uint16 // of this process
}

// maxReferences bounds the memory; all counters start anew past it, at another place.
const maxReferences = 50_000

func newReferences(salt uint16) *references {
	return &references{next: make(map[phone.Number]uint16), salt: salt}
}

func (r *references) take(to phone.Number) uint16 {
	n, ok := r.next[to]
	if !ok {
		if len(r.next) >= maxReferences {
			clear(r.next)
			r.salt += 97
		}
		h := fnv.New32a()
		_, _ = h.Write([]byte(to))
		n = uint16(h.Sum32()) + r.salt
	}
	r.next[to] = n + 1
	return n
}

// encoder makes PDUs of texts for one operator.
type encoder struct {
	command     smpp.CommandID // CmdSubmitSM, or CmdDeliverSM when the operator is bound to us
	source      smpp.Address
	serviceType string
	latinCoding byte // data_coding of GSM-7; 0 unless the operator wants another
}

// form is how a message is to be written; it changes when an operator refuses something (Action).
type form struct {
	method    Method
	noReceipt bool // registered_delivery 0
	noTLVs    bool // without optional parameters; long texts then need a user data header
	noExpiry  bool // empty validity_period
}

// segments cuts a text under a form. A text too long for the method is an error, since no operator would take it.
func (f form) segments(text string) ([]gsm.Segment, error) {
	limits := f.method.limits()
	if f.method == Payload {
		// message_payload takes 64 KiB; what fits into a phone's 255 parts is the true limit.
		whole := gsm.Split(text, gsm.Limits{GSM7: maxPayload, GSM7Part: maxPayload, UCS2: maxPayload, UCS2Part: maxPayload})
		if len(whole) > 1 {
			return nil, fmt.Errorf("text is longer than %d octets", maxPayload)
		}
		return whole, nil
	}
	segments := gsm.Split(text, limits)
	if len(segments) > gsm.MaxParts {
		return nil, fmt.Errorf("text has %d parts, at most %d can be joined", len(segments), gsm.MaxParts)
	}
	return segments, nil
}

// maxPayload is the longest text for message_payload in octets: 255 parts of 153.
const maxPayload = 255 * 153

// tokens returns how many parts a segment costs against the rate: one, or with message_payload what the operator will
// cut it into.
func tokens(s gsm.Segment) int {
	whole, part := 160, 153
	if s.Alphabet == gsm.UCS2 {
		whole, part = 140, 134
	}
	if len(s.Octets) <= whole {
		return 1
	}
	return (len(s.Octets) + part - 1) / part
}

// estimate returns how many parts a text costs, for display.
func estimate(text string) int { return gsm.Parts(text) }

// pdu writes one part.
func (e encoder) pdu(m *message, index int, now time.Time) *smpp.Message {
	segment := m.segments[index]
	p := &smpp.Message{
		Command:            e.command,
		ServiceType:        e.serviceType,
		Source:             e.source,
		Destination:        smpp.Address{TON: 1, NPI: 1, Addr: string(m.sms.To)},
		RegisteredDelivery: 1,
		DataCoding:         e.latinCoding,
	}
	if segment.Alphabet == gsm.UCS2 {
		p.DataCoding = codingUCS2
	}
	if m.form.noReceipt {
		p.RegisteredDelivery = 0
	}
	// A deliver_sm must not have a validity period (SMPP 3.4 section 4.6.1).
	if !m.form.noExpiry && !m.sms.Deadline.IsZero() && e.command == smpp.CmdSubmitSM {
		p.ValidityPeriod = smpp.FormatPeriod(m.sms.Deadline.Sub(now))
	}
	if !m.form.noTLVs {
		p.TLVs = append(p.TLVs, smpp.Uint16(smpp.TagUserMessageReference, userReference(m.sms.ID, index)))
	}
	if m.form.method == Payload && tokens(segment) > 1 {
		p.TLVs = append(p.TLVs, smpp.TLV{Tag: smpp.TagMessagePayload, Value: segment.Octets})
		return p
	}
	p.ShortMessage = segment.Octets
	if len(m.segments) == 1 {
		return p
	}
	number, count := byte(index+1), byte(len(m.segments))
	switch m.form.method {
	case UDH8:
		p.ESMClass |= smpp.ESMClassUDHI
		p.ShortMessage = append([]byte{5, elementConcat8, 3, byte(m.reference), count, number}, segment.Octets...)
	case UDH16:
		p.ESMClass |= smpp.ESMClassUDHI
		header := binary.BigEndian.AppendUint16([]byte{6, elementConcat16, 4}, m.reference)
		p.ShortMessage = append(append(header, count, number), segment.Octets...)
	case SAR:
		p.TLVs = append(p.TLVs,
			smpp.Uint16(smpp.TagSARMsgRefNum, m.reference),
			smpp.Uint8(smpp.TagSARTotalSegments, count),
			smpp.Uint8(smpp.TagSARSegmentSeqnum, number),
		)
	}
	return p
}

// userReference is user_message_reference (SMPP 3.4 section 5.3.2.17): the same for every attempt of a part, so that an
// operator who looks at it can tell a repetition, and different for the parts of one message.
func userReference(id int64, index int) uint16 {
	h := fnv.New32a()
	var b [9]byte
	binary.BigEndian.PutUint64(b[:8], uint64(id))
	b[8] = byte(index)
	_, _ = h.Write(b[:])
	sum := h.Sum32()
	return uint16(sum>>16) ^ uint16(sum)
}

// decodeText reads the text of something that came from an operator, by data_coding. Octets that are no text of their
// coding become U+FFFD; the text is for people and for keywords, nothing is refused for it.
//
// Besides the values of SMPP it understands raw data coding schemes of the radio side that leak through gateways
// (ussd.md 1.2): 0x0F GSM-7, 0x48 UCS-2, 0x11 UCS-2 behind two octets of language, 0x44 eight-bit.
func decodeText(octets []byte, coding byte) string {
	switch coding {
	case codingUCS2, 0x48, 0x18, 0x19:
		if narrow(octets) {
			text, _ := gsm.DecodeGSM7(octets)
			return text
		}
		text, _ := gsm.DecodeUCS2(octets)
		return text
	case 0x11:
		if len(octets) >= 2 && !narrow(octets) {
			text, _ := gsm.DecodeUCS2(octets[2:])
			return text
		}
	case codingASCII, codingLatin1, codingBinary, 0x02, 0x44:
		runes := make([]rune, len(octets))
		for i, b := range octets {
			runes[i] = rune(b)
		}
		return string(runes)
	}
	text, _ := gsm.DecodeGSM7(octets)
	return text
}

// narrow reports that octets marked as UCS-2 are not: a phone that answers a UCS-2 menu with 7-bit text, whose gateway
// copies the menu's coding (ussd.md section 5). Such text has an odd length, or is printable ASCII throughout, which as
// UCS-2 would be Chinese without a single digit, "*" or "#".
func narrow(octets []byte) bool {
	if len(octets) == 0 {
		return false
	}
	for _, b := range octets {
		switch {
		case b > 0x7E:
			return false
		case b < 0x20 && b != '\r' && b != '\n' && len(octets)%2 == 0:
			return false
		}
	}
	return true
}
