package smpp

import (
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	// HeaderSize is the length of the header of every PDU in octets (SMPP 3.4,
	// section 3.2).
	HeaderSize = 16

	// MaxPDU is the longest PDU we read or write, in octets with its header. A
	// message_payload of nearly 64 KiB fits; more would be memory for a
	// stranger to take.
	MaxPDU = 64 << 10

	// MaxUnboundPDU is the longest PDU we read before the peer has bound. The
	// longest bind has 107 octets.
	MaxUnboundPDU = 1 << 10
)

// Header is the header of a PDU (SMPP 3.4, section 3.2).
type Header struct {
	Length   uint32 // of the whole PDU in octets
	Command  CommandID
	Status   Status // zero in requests
	Sequence uint32
}

// ParseHeader reads the header of a frame. The frame must have at least
// [HeaderSize] octets, as every frame of a [FrameReader] has.
func ParseHeader(frame []byte) Header {
	_ = frame[HeaderSize-1]
	return Header{
		Length:   binary.BigEndian.Uint32(frame),
		Command:  CommandID(binary.BigEndian.Uint32(frame[4:])),
		Status:   Status(binary.BigEndian.Uint32(frame[8:])),
		Sequence: binary.BigEndian.Uint32(frame[12:]),
	}
}

// PDU is the body of a protocol data unit. The types are [Message],
// [MessageResp], [Bind], [BindResp], [Query], [QueryResp], [Cancel],
// [Replace], [AlertNotification], [Outbind], [Plain] and [Raw].
type PDU interface {
	// CommandID is the command the PDU is sent as.
	CommandID() CommandID

	// appendBody appends what follows the header.
	appendBody(dst []byte) ([]byte, error)
}

// ErrNotEncodable is wrapped by every error of [Append]: a field is longer than
// the specification allows or has a NUL inside. The PDU is wrong, not the link.
var ErrNotEncodable = errors.New("PDU cannot be encoded")

// DecodeError says what is wrong with the body of a PDU and with which status
// its sender should be answered.
type DecodeError struct {
	Command CommandID
	Status  Status
	Reason  string // names the field, never its value
}

func (e *DecodeError) Error() string {
	return fmt.Sprintf("decode %s: %s", e.Command, e.Reason)
}

// Append appends the PDU with its header to dst and returns the longer buffer.
// On an error, which wraps [ErrNotEncodable], dst is returned unchanged in
// length.
func Append(dst []byte, sequence uint32, status Status, p PDU) ([]byte, error) {
	start := len(dst)
	out := binary.BigEndian.AppendUint32(dst, 0)
	out = binary.BigEndian.AppendUint32(out, uint32(p.CommandID()))
	out = binary.BigEndian.AppendUint32(out, uint32(status))
	out = binary.BigEndian.AppendUint32(out, sequence)
	out, err := p.appendBody(out)
	if err != nil {
		return dst, fmt.Errorf("encode %s: %w", p.CommandID(), err)
	}
	length := len(out) - start
	if length > MaxPDU {
		return dst, fmt.Errorf("encode %s: %w: it has %d octets, at most %d fit",
			p.CommandID(), ErrNotEncodable, length, MaxPDU)
	}
	binary.BigEndian.PutUint32(out[start:], uint32(length))
	return out, nil
}

// Decode reads one whole frame, header included. The short message, the TLV
// values and the tail of the result are parts of frame, which therefore belongs
// to the PDU from now on; strings are copies.
//
// The error is a [*DecodeError]. The header is valid even then. A command we do
// not know is no error: it becomes a [Raw].
func Decode(frame []byte) (Header, PDU, error) {
	if len(frame) < HeaderSize {
		return Header{}, nil, &DecodeError{Status: StatusInvalidCommandLength, Reason: "frame is shorter than a header"}
	}
	h := ParseHeader(frame)
	if int64(h.Length) != int64(len(frame)) {
		return h, nil, &DecodeError{h.Command, StatusInvalidCommandLength, "command_length is not the length of the frame"}
	}
	d := decoder{b: frame[HeaderSize:]}
	var p PDU
	switch h.Command {
	case CmdSubmitSM, CmdDeliverSM:
		p = decodeMessage(h.Command, &d)
	case CmdDataSM:
		p = decodeData(&d)
	case CmdSubmitSMResp, CmdDeliverSMResp, CmdDataSMResp:
		p = decodeMessageResp(h.Command, &d)
	case CmdEnquireLink, CmdEnquireLinkResp, CmdUnbind, CmdUnbindResp, CmdGenericNack,
		CmdCancelSMResp, CmdReplaceSMResp:
		p = &Plain{Command: h.Command, Tail: d.tail()}
	case CmdBindReceiver, CmdBindTransmitter, CmdBindTransceiver:
		p = decodeBind(h.Command, &d)
	case CmdBindReceiverResp, CmdBindTransmitterResp, CmdBindTransceiverResp:
		p = decodeBindResp(h.Command, &d)
	case CmdQuerySM:
		p = decodeQuery(&d)
	case CmdQuerySMResp:
		p = decodeQueryResp(&d)
	case CmdCancelSM:
		p = decodeCancel(&d)
	case CmdReplaceSM:
		p = decodeReplace(&d)
	case CmdAlertNotification:
		p = decodeAlert(&d)
	case CmdOutbind:
		p = decodeOutbind(&d)
	default:
		p = &Raw{Command: h.Command, Body: d.tail()}
	}
	if d.fail != nil {
		d.fail.Command = h.Command
		return h, nil, d.fail
	}
	return h, p, nil
}

// Plain is a PDU without a body: enquire_link, unbind, their answers,
// generic_nack, cancel_sm_resp and replace_sm_resp.
type Plain struct {
	Command CommandID
	Tail    []byte // octets that should not be there; not encoded
}

// CommandID is the command the PDU is sent as.
func (p *Plain) CommandID() CommandID { return p.Command }

func (p *Plain) appendBody(dst []byte) ([]byte, error) { return dst, nil }

// Raw is a PDU whose command we do not know, or one that is to be sent octet
// for octet.
type Raw struct {
	Command CommandID
	Body    []byte
}

// CommandID is the command the PDU is sent as.
func (p *Raw) CommandID() CommandID { return p.Command }

func (p *Raw) appendBody(dst []byte) ([]byte, error) { return append(dst, p.Body...), nil }
