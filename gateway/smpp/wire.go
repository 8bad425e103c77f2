package smpp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
)

// Longest values of the fields, in octets without the final NUL. The figures
// are those of SMPP 3.4, section 4, unless a comment says otherwise.
const (
	maxSystemID     = 15
	maxPassword     = 8
	maxSystemType   = 12
	maxAddressRange = 40
	maxServiceType  = 5
	maxAddress      = 20
	maxLongAddress  = 64 // alert_notification
	maxTime         = 16
	maxShortMessage = 254
	maxTLVValue     = 65535

	// 3.4 says 64. Peers with longer ids exist, and a message without its id
	// is a message without its receipt, so they are taken.
	maxMessageID = 255
)

// decoder walks over the body of a PDU. The first thing that is wrong stops
// it: later reads return nothing, and fail says what and how to answer.
type decoder struct {
	b    []byte
	i    int
	fail *DecodeError
}

func (d *decoder) stop(status Status, reason string) {
	if d.fail == nil {
		d.fail = &DecodeError{Status: status, Reason: reason}
		d.i = len(d.b)
	}
}

// span is a C-octet string by the place of its octets.
type span struct{ from, to int }

func (s span) of(text string) string { return text[s.from:s.to] }

// cstring reads a C-octet string of at most limit octets before its NUL.
func (d *decoder) cstring(field string, limit int, status Status) span {
	if d.fail != nil {
		return span{}
	}
	n := bytes.IndexByte(d.b[d.i:], 0)
	switch {
	case n < 0:
		d.stop(StatusInvalidMessageLength, field+" has no end")
		return span{}
	case n > limit:
		d.stop(status, field+" is too long")
		return span{}
	}
	s := span{d.i, d.i + n}
	d.i += n + 1
	return s
}

func (d *decoder) octet(field string) uint8 {
	if d.fail != nil {
		return 0
	}
	if d.i >= len(d.b) {
		d.stop(StatusInvalidMessageLength, field+" is missing")
		return 0
	}
	d.i++
	return d.b[d.i-1]
}

// octets reads n octets without copying them.
func (d *decoder) octets(field string, n int) []byte {
	if d.fail != nil || n == 0 {
		return nil
	}
	if n > len(d.b)-d.i {
		d.stop(StatusInvalidMessageLength, field+" is cut short")
		return nil
	}
	b := d.b[d.i : d.i+n : d.i+n]
	d.i += n
	return b
}

func (d *decoder) shortMessage() []byte {
	n := int(d.octet("sm_length"))
	if n > maxShortMessage {
		d.stop(StatusInvalidMessageLength, "sm_length is above 254")
	}
	return d.octets("short_message", n)
}

// tail returns what has not been read, or nil.
func (d *decoder) tail() []byte {
	if d.i >= len(d.b) {
		return nil
	}
	return d.b[d.i:]
}

func (d *decoder) tlvs() (ts TLVs, tail []byte) { return decodeTLVs(d.b[d.i:]) }

// text copies the octets read so far, once, so that every C-octet string of
// the PDU is a part of one string.
func (d *decoder) text() string { return string(d.b[:d.i]) }

// encoder appends fields to a buffer and remembers the first that does not
// fit.
type encoder struct {
	b   []byte
	err error
}

func (e *encoder) cstring(field, s string, limit int) {
	switch {
	case len(s) > limit:
		e.refuse(field, len(s), limit)
	case strings.IndexByte(s, 0) >= 0:
		if e.err == nil {
			e.err = fmt.Errorf("%w: %s has a NUL inside", ErrNotEncodable, field)
		}
	default:
		e.b = append(append(e.b, s...), 0)
	}
}

func (e *encoder) octet(n uint8) { e.b = append(e.b, n) }

func (e *encoder) address(field string, a Address, limit int) {
	e.b = append(e.b, a.TON, a.NPI)
	e.cstring(field, a.Addr, limit)
}

func (e *encoder) shortMessage(b []byte) {
	if len(b) > maxShortMessage {
		e.refuse("short_message", len(b), maxShortMessage)
		return
	}
	e.b = append(append(e.b, uint8(len(b))), b...)
}

func (e *encoder) tlvs(ts TLVs) {
	for i := range ts {
		if len(ts[i].Value) > maxTLVValue {
			e.refuse(ts[i].Tag.String(), len(ts[i].Value), maxTLVValue)
			return
		}
		e.b = binary.BigEndian.AppendUint16(e.b, uint16(ts[i].Tag))
		e.b = binary.BigEndian.AppendUint16(e.b, uint16(len(ts[i].Value)))
		e.b = append(e.b, ts[i].Value...)
	}
}

func (e *encoder) refuse(field string, length, limit int) {
	if e.err == nil {
		e.err = fmt.Errorf("%w: %s has %d octets, at most %d fit", ErrNotEncodable, field, length, limit)
	}
}
