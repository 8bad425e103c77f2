package smpp

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// Inbound is a request of the peer. It belongs to the handler, who may keep it
// and answer it later.
type Inbound struct {
	Header     Header
	PDU        PDU // *Message, *Query, *Cancel, *Replace or *AlertNotification
	ReceivedAt time.Time

	session  *Session
	answered atomic.Bool
}

// ErrAnswered means that a request of the peer was answered before.
var ErrAnswered = errors.New("request is answered already")

// Session is the session the request came over.
func (in *Inbound) Session() *Session { return in.session }

// Answer answers the request with a status and, for a message, its message id:
// the id that names it from now on for submit_sm and data_sm, empty for
// deliver_sm. It never waits. The error is [ErrAnswered], or a [*ClosedError]
// if the session ended before; the peer then still holds the message as
// unacknowledged.
func (in *Inbound) Answer(status Status, messageID string) error {
	switch p := in.PDU.(type) {
	case *Message:
		resp := MessageResp{Command: p.Command.Response(), MessageID: messageID}
		// 3.4 leaves the body out of a submit_sm_resp that is an error, but not
		// out of a deliver_sm_resp (sections 4.4.2 and 4.6.2).
		resp.NoBody = status != StatusOK && messageID == "" && p.Command != CmdDeliverSM
		return in.AnswerPDU(status, &resp)
	case *Query:
		resp := QueryResp{MessageID: p.MessageID, NoBody: status != StatusOK}
		return in.AnswerPDU(status, &resp)
	default:
		return in.AnswerPDU(status, &Plain{Command: in.Header.Command.Response()})
	}
}

// AnswerPDU answers the request with a status and a PDU of the answering kind,
// for example a [*QueryResp]. See [Inbound.Answer]. Answering an
// alert_notification, which has no answer, does nothing.
func (in *Inbound) AnswerPDU(status Status, p PDU) error {
	if in.Header.Command == CmdAlertNotification {
		return nil
	}
	if p.CommandID() != in.Header.Command.Response() {
		return fmt.Errorf("answer %s with %s: wrong kind of PDU", in.Header.Command, p.CommandID())
	}
	if in.answered.Swap(true) {
		return ErrAnswered
	}
	s := in.session
	s.mu.Lock()
	err := s.enqueue(in.Header.Sequence, status, p)
	if errors.Is(err, ErrNotEncodable) {
		in.answered.Store(false)
		s.mu.Unlock()
		return err
	}
	s.inboundPending--
	s.inboundOctets -= int(in.Header.Length)
	s.n.inboundAnswered++
	s.progress()
	s.mu.Unlock()
	if errors.Is(err, ErrDeaf) {
		s.fail(err)
	}
	return err
}

// request takes in a request of the peer: decodes it, refuses it if there is a
// reason to, and otherwise leaves it to the handler.
func (s *Session) request(frame []byte, now time.Time) error {
	h, pdu, err := Decode(frame)
	if err != nil {
		var bad *DecodeError
		errors.As(err, &bad)
		if err := s.inspect(frame, bad.Reason); err != nil {
			return err
		}
		return s.refuse(h, bad.Status)
	}
	if s.flood != nil && !s.flood.AllowN(now, 1) {
		return fmt.Errorf("%w: %s", ErrFlood, h.Command)
	}
	if status := s.admit(h, pdu, now); status != StatusOK {
		return s.refuse(h, status)
	}
	s.inbox.push(&Inbound{Header: h, PDU: pdu, ReceivedAt: now, session: s})
	return nil
}

// admit says whether a request may go to the handler, and counts it if so.
func (s *Session) admit(h Header, pdu PDU, now time.Time) Status {
	if s.cfg.Handle == nil {
		return StatusInvalidCommandID
	}
	if s.binding.Side == SideSMSC && s.binding.Type == Receiver && h.Command != CmdDataSM {
		return StatusInvalidBindStatus
	}
	if m, ok := pdu.(*Message); ok {
		if _, ussd := m.TLVs.Get(TagUSSDServiceOp); ussd && s.refuseUSSD {
			return StatusTLVNotAllowed
		}
		if s.quota != nil && !s.quota.AllowN(now, 1) {
			return StatusThrottled
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.Command == CmdAlertNotification {
		s.n.inbound++
		return StatusOK
	}
	if s.state >= stateRefusing || s.inboundPending >= s.cfg.InboundLimit ||
		s.inboundOctets+int(h.Length) > inboundOctets {
		return busy(h.Command)
	}
	s.inboundPending++
	s.inboundOctets += int(h.Length)
	s.n.inbound++
	return StatusOK
}

// busy is the status that makes the sender of a request keep it and try again.
func busy(command CommandID) Status {
	switch command {
	case CmdSubmitSM:
		return StatusThrottled
	case CmdDeliverSM, CmdDataSM:
		return StatusReceiverTemporary
	default:
		return StatusSystemError
	}
}

// refuse answers a request that does not go to the handler.
func (s *Session) refuse(h Header, status Status) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n.refused++
	var err error
	switch h.Command {
	case CmdAlertNotification:
	case CmdSubmitSM, CmdDeliverSM, CmdDataSM:
		err = s.enqueue(h.Sequence, status,
			&MessageResp{Command: h.Command.Response(), NoBody: h.Command != CmdDeliverSM})
	case CmdQuerySM:
		err = s.enqueue(h.Sequence, status, &QueryResp{NoBody: true})
	default:
		err = s.enqueue(h.Sequence, status, &Plain{Command: h.Command.Response()})
	}
	return err
}
