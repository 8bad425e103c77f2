package smpp

import (
	"errors"
	"fmt"
	"io"
	"time"
)

// read owns the reading side of the socket. Its error is the end of the
// session.
func (s *Session) read() error {
	for {
		frame, err := s.frames.Next()
		if err != nil {
			return s.readError(err)
		}
		now := time.Now()
		s.lastIn.Store(int64(now.Sub(s.since)))
		s.bytesIn.Add(int64(len(frame)))
		err = s.dispatch(frame, now)
		var closed *ClosedError
		if err != nil && !errors.As(err, &closed) {
			return err
		}
	}
}

// readError tells the peer about a length that makes the rest of its stream
// unreadable, and lets what it has sent run into the sand for a moment, so that
// closing does not take back what we told it.
func (s *Session) readError(err error) error {
	var bad *FrameError
	if !errors.As(err, &bad) {
		return fmt.Errorf("read: %w", err)
	}
	if s.answer(0, StatusInvalidCommandLength, &Plain{Command: CmdGenericNack}) == nil {
		s.finish(err)
		if s.conn.SetReadDeadline(time.Now().Add(lingerTimeout)) == nil {
			// It ends with the connection, the deadline or the limit: all are fine.
			_, _ = io.CopyN(io.Discard, s.conn, MaxPDU)
		}
	}
	return err
}

// dispatch does what a frame of the peer asks for. An error ends the session.
func (s *Session) dispatch(frame []byte, now time.Time) error {
	h := ParseHeader(frame)
	switch h.Command {
	case CmdGenericNack:
		return s.nacked(h, now)
	case CmdSubmitSM, CmdDeliverSM, CmdDataSM, CmdQuerySM, CmdCancelSM, CmdReplaceSM, CmdAlertNotification:
		return s.request(frame, now)
	case CmdEnquireLink:
		if !s.enquiries.AllowN(now, 1) {
			return fmt.Errorf("%w: enquire_link", ErrFlood)
		}
		return s.answer(h.Sequence, StatusOK, &Plain{Command: CmdEnquireLinkResp})
	case CmdUnbind:
		if !s.leaving {
			s.leaving = true
			s.helpers.Go(func() { s.leave(h.Sequence) })
		}
		return nil
	case CmdBindReceiver, CmdBindTransmitter, CmdBindTransceiver:
		return s.answer(h.Sequence, StatusAlreadyBound, &BindResp{Type: bindTypeOf(h.Command), NoBody: true})
	}
	if h.Command.IsResponse() {
		return s.response(frame, now)
	}
	if err := s.inspect(frame, "unknown command"); err != nil {
		return err
	}
	return s.answer(h.Sequence, StatusInvalidCommandID, &Plain{Command: CmdGenericNack})
}

// inspect shows a strange PDU to people. Too many of them are a flood.
func (s *Session) inspect(frame []byte, reason string) error {
	s.mu.Lock()
	s.n.strange++
	s.mu.Unlock()
	if s.cfg.Inspect != nil {
		s.results.push(result{strange: &Strange{
			Header: ParseHeader(frame),
			Reason: reason,
			Octets: append([]byte(nil), frame[:min(len(frame), maxStrangeOctets)]...),
		}})
	}
	if !s.strange.Allow() {
		return fmt.Errorf("%w: PDUs without sense", ErrFlood)
	}
	return nil
}
