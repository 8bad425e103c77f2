package smpp

import (
	"context"
	"fmt"
	"time"
)

// OutcomeKind says what is known about the fate of a request.
type OutcomeKind uint8

const (
	// Answered means that the peer answered; the status is its word.
	Answered OutcomeKind = iota
	// NeverWritten means that no octet of the request reached the socket. It can
	// be sent again without fear of a duplicate.
	NeverWritten
	// Unknown means that the request was written, at least in part, and no
	// answer came: the peer may or may not have acted on it.
	Unknown
)

// String is "answered", "never written" or "unknown".
func (k OutcomeKind) String() string {
	switch k {
	case Answered:
		return "answered"
	case NeverWritten:
		return "never written"
	case Unknown:
		return "unknown"
	default:
		return fmt.Sprintf("OutcomeKind(%d)", uint8(k))
	}
}

// Outcome is how a request ended.
type Outcome struct {
	Kind  OutcomeKind
	Token any // of the [Request]

	// Status is the status of the answer. It means nothing unless the request
	// was answered.
	Status Status

	// Answer is the answer: *MessageResp, *QueryResp or *Plain. It is nil if the
	// request was not answered, if the answer was a generic_nack, or if its body
	// could not be decoded; the status counts even then.
	Answer PDU

	// Nacked says that the answer was a generic_nack.
	Nacked bool

	// Err says why a request was not answered: [ErrTimeout] or the end of the
	// session.
	Err error

	Sequence uint32
	SentAt   time.Time     // when the request was queued for the socket
	RTT      time.Duration // from there to the answer
}

// MessageID is the message id of the answer to a submit_sm or data_sm, empty if
// there is none.
func (o Outcome) MessageID() string {
	if resp, ok := o.Answer.(*MessageResp); ok {
		return resp.MessageID
	}
	return ""
}

// Request is one request to the peer: *Message, *Query, *Cancel, *Replace or
// *Raw.
type Request struct {
	// PDU is encoded before Submit returns and is not kept.
	PDU PDU

	// Token comes back in the outcome.
	Token any

	// Done gets the outcome, exactly once if Submit returned nil and never
	// otherwise. All callbacks of a session are called by one goroutine, in the
	// order in which the answers came. While one runs, answers are still read
	// and enquire_link is still answered, but the window does not move on, so it
	// must hand long work over. It must not call Submit except for a request
	// outside the window, because a full window would wait for that very
	// goroutine. It may be nil.
	Done func(Outcome)

	// OutsideWindow lets the request go at once even if the window is full. It is
	// meant for USSD requests that the peer answers only when a person has
	// pressed a key.
	OutsideWindow bool

	// Timeout is how long the answer may take; zero means
	// [SessionConfig.ResponseTimeout].
	Timeout time.Duration
}

// Submit sends a request. It waits while the window is full or the socket does
// not keep up, until ctx ends. A nil error means that the request is queued for
// the socket and Done will be called; on an error nothing was queued and Done
// is not called. The error is a [*ClosedError] if the session is ending, wraps
// [ErrNotEncodable] if the PDU is wrong, and otherwise the error of ctx.
func (s *Session) Submit(ctx context.Context, r Request) error {
	if !r.OutsideWindow {
		if err := s.acquire(ctx); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.waitForRoom(ctx)
	if err == nil && s.state != stateOpen {
		err = s.closedError()
	}
	if err == nil {
		_, err = s.enqueueRequest(request{
			command:  r.PDU.CommandID(),
			windowed: !r.OutsideWindow,
			timeout:  r.Timeout,
			token:    r.Token,
			done:     r.Done,
		}, r.PDU)
	}
	if err != nil && !r.OutsideWindow {
		<-s.slots
	}
	return err
}

// Do sends a request and waits for its outcome. An error means that it was not
// queued. If ctx ends first the outcome is reported as unknown with the error
// of ctx, although the request stays in the window until it is settled.
func (s *Session) Do(ctx context.Context, r Request) (Outcome, error) {
	outcome := make(chan Outcome, 1)
	done := r.Done
	r.Done = func(o Outcome) {
		if done != nil {
			done(o)
		}
		outcome <- o
	}
	if err := s.Submit(ctx, r); err != nil {
		return Outcome{}, err
	}
	select {
	case o := <-outcome:
		return o, nil
	case <-ctx.Done():
		return Outcome{Kind: Unknown, Token: r.Token, Err: ctx.Err()}, nil
	}
}

// acquire takes a place in the window.
func (s *Session) acquire(ctx context.Context) error {
	select {
	case s.slots <- struct{}{}:
		return nil
	default:
	}
	s.waiting.Add(1)
	start := time.Now()
	defer func() {
		s.waiting.Add(-1)
		s.waited.Add(int64(time.Since(start)))
	}()
	select {
	case s.slots <- struct{}{}:
		return nil
	case <-s.draining:
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.closedError()
	case <-ctx.Done():
		return fmt.Errorf("wait for the window: %w", ctx.Err())
	}
}

// waitForRoom waits until the writer keeps up. It is called and returns with mu
// held.
func (s *Session) waitForRoom(ctx context.Context) error {
	for len(s.out) > queueLimit && s.state == stateOpen {
		if s.room == nil {
			s.room = make(chan struct{})
		}
		room := s.room
		s.mu.Unlock()
		var err error
		select {
		case <-room:
		case <-s.draining:
		case <-ctx.Done():
			err = fmt.Errorf("wait for the socket: %w", ctx.Err())
		}
		s.mu.Lock()
		if err != nil {
			return err
		}
	}
	return nil
}

// enqueueRequest numbers a request, queues it and remembers it. It is called
// with mu held.
func (s *Session) enqueueRequest(r request, p PDU) (uint32, error) {
	sequence := s.nextSequence()
	r.offset = s.queued
	r.sent = time.Now()
	if err := s.enqueue(sequence, StatusOK, p); err != nil {
		return 0, err
	}
	s.pending[sequence] = r
	if !r.internal {
		s.fenced = true
		s.inFlight++
		s.n.submitted++
		if r.windowed {
			s.inWindow++
		}
	}
	return sequence, nil
}

// nextSequence counts from 1 to 0x7FFFFFFF and begins again, leaving out
// numbers whose answer may still come.
func (s *Session) nextSequence() uint32 {
	for {
		s.sequence++
		if s.sequence > maxSequence {
			s.sequence = 1
		}
		if _, busy := s.pending[s.sequence]; busy {
			continue
		}
		if _, busy := s.late[s.sequence]; busy {
			continue
		}
		return s.sequence
	}
}

// response settles the request a PDU of the peer answers. Answers that nobody
// waits for, or that do not fit their request, change nothing.
func (s *Session) response(frame []byte, now time.Time) error {
	h, pdu, err := Decode(frame)
	s.answered(h, Outcome{Kind: Answered, Status: h.Status, Answer: pdu}, now)
	if err != nil {
		return s.inspect(frame, err.Error())
	}
	return nil
}

// nacked settles the request a generic_nack refuses.
func (s *Session) nacked(h Header, now time.Time) error {
	s.mu.Lock()
	s.n.nacks++
	s.mu.Unlock()
	if h.Sequence == 0 {
		return fmt.Errorf("%w: %s", ErrNacked, h.Status)
	}
	s.answered(h, Outcome{Kind: Answered, Status: h.Status, Nacked: true}, now)
	return nil
}

func (s *Session) answered(h Header, o Outcome, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.pending[h.Sequence]; ok && fits(h.Command, r.command) {
		o.RTT = now.Sub(r.sent)
		if !r.internal {
			s.silent = 0
			if r.windowed {
				s.rtt.add(o.RTT)
			}
		}
		s.settle(h.Sequence, r, o)
		return
	}
	l, ok := s.late[h.Sequence]
	if !ok || !fits(h.Command, l.command) {
		s.n.stray++
		return
	}
	delete(s.late, h.Sequence)
	s.silent = 0
	s.n.late++
	o.Token, o.Sequence, o.SentAt, o.RTT = l.token, h.Sequence, l.sent, now.Sub(l.sent)
	s.rtt.add(o.RTT)
	if s.cfg.Late != nil {
		s.results.push(result{outcome: o, done: s.cfg.Late})
	}
}

func fits(answer, request CommandID) bool {
	return answer == CmdGenericNack || answer == request.Response()
}
