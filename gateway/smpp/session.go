package smpp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Limits and times of a session. Those of [SessionConfig] are defaults.
const (
	defaultWindow          = 10                      // requests; 10 to 50 is what operators allow
	defaultResponseTimeout = 30 * time.Second        // 1 to 2 s, usual elsewhere, makes duplicates
	defaultEnquireInterval = 30 * time.Second        // shorter than the 60 s after which SMSCs drop a silent ESME
	defaultEnquireTimeout  = 7500 * time.Millisecond // two misses: a dead link is seen within 45 s
	defaultPDUTimeout      = 10 * time.Second        // from the first octet of a PDU to its last
	defaultWriteTimeout    = 30 * time.Second        // a peer that takes no octet this long is gone
	defaultInboundLimit    = 1000                    // requests of the peer not answered yet

	enquireMisses = 2
	enoughAnswers = 100 // before their p99 means anything
	slowestFactor = 4   // the response timeout grows with the p99, at most this many times

	unbindTimeout = 5 * time.Second // for unbind_resp, before we close anyway
	unbindGrace   = 2 * time.Second // for outstanding answers, before we answer an unbind
	lingerTimeout = time.Second     // for the peer to take our last octets

	queueLimit    = 64 << 10  // octets waiting for the socket above which Submit waits
	queueMax      = 192 << 10 // octets above which the peer does not read its answers
	inboundOctets = 512 << 10 // of requests of the peer not answered yet

	lateLimit = 2048      // given-up requests whose late answer is still known
	lateLife  = time.Hour // and how long; later the receipt tells

	strangeRate  = 10  // undecodable or unknown PDUs a second ...
	strangeBurst = 100 // ... and at once, before the peer counts as broken
	enquireRate  = 20  // enquire_link a second ...
	enquireBurst = 200 // ... and at once

	maxSequence = 0x7FFFFFFF // SMPP 3.4, section 5.1.4
)

// Causes of the end of a session, to be compared with [errors.Is]. Others are
// errors of the socket, a [*FrameError] or [ErrSlowPDU].
var (
	// ErrClosed means that we ended the session.
	ErrClosed = errors.New("session closed by us")
	// ErrUnbound means that the peer ended the session with unbind.
	ErrUnbound = errors.New("session unbound by the peer")
	// ErrDead means that enquire_link stayed unanswered twice and nothing else
	// came either.
	ErrDead = errors.New("peer is silent")
	// ErrStuck means that the peer lives but answers no request.
	ErrStuck = errors.New("peer answers no requests")
	// ErrFlood means that the peer sent too many PDUs that make no sense.
	ErrFlood = errors.New("peer floods")
	// ErrDeaf means that the peer sends requests and does not read the answers.
	ErrDeaf = errors.New("peer does not read its answers")
	// ErrNacked means that the peer answered with a generic_nack without a
	// sequence number: it could not read what we sent.
	ErrNacked = errors.New("peer cannot read our stream")
	// ErrFenced means that [SessionConfig.Fence] forbade to write what had been
	// submitted.
	ErrFenced = errors.New("the right to send has ended")
	// ErrTimeout is the cause of an unknown outcome: no answer in time.
	ErrTimeout = errors.New("no answer in time")
)

// Side says which end of the link a session is.
type Side uint8

const (
	// SideESME is the end that binds.
	SideESME Side = iota
	// SideSMSC is the end that is bound to.
	SideSMSC
)

// SessionConfig is what both ends of a link have in common. The zero value of
// every field means its default.
type SessionConfig struct {
	// Window is how many of our requests may be unanswered, 10 by default. A
	// request leaves the window when its Done is about to be called.
	Window int

	// ResponseTimeout is how long an answer may take before the outcome counts
	// as unknown, 30 s by default. When the peer is slow it grows to three times
	// the 99th percentile of the answers, at most fourfold.
	ResponseTimeout time.Duration

	// EnquireInterval is the time between two enquire_link, 30 s by default.
	EnquireInterval time.Duration

	// EnquireTimeout is how long one may stay unanswered, 7.5 s by default. Any
	// PDU counts as a sign of life. After two misses the session ends with
	// [ErrDead].
	EnquireTimeout time.Duration

	// PDUTimeout is the longest time from the first octet of a PDU to its last,
	// 10 s by default.
	PDUTimeout time.Duration

	// WriteTimeout is the longest time one write to the socket may take, 30 s by
	// default.
	WriteTimeout time.Duration

	// InboundLimit is how many requests of the peer may be unanswered, 1000 by
	// default. More are answered at once with 0x58 (submit_sm), 0x64
	// (deliver_sm, data_sm) or 0x08 (others) and do not reach Handle.
	InboundLimit int

	// StuckAfter is after how many requests in a row without an answer the
	// session ends with [ErrStuck], twice the window by default. Negative means
	// never.
	StuckAfter int

	// Fence, if not nil, is asked right before requests of ours are handed to the
	// socket whether they still may be. If not, the session ends with [ErrFenced]
	// and they count as never written. It is called by one goroutine and must be
	// quick.
	Fence func() bool

	// Handle gets the requests of the peer that could be decoded, in the order
	// they came: *Message, *Query, *Cancel, *Replace and *AlertNotification. It
	// is called by one goroutine that does nothing else, so it may take its
	// time and may call Submit, and it must see to it that [Inbound.Answer] is
	// called once, by whom and when it likes. Without it the peer's requests are
	// answered with 0x03.
	Handle func(*Inbound)

	// Late gets an answer that came after the outcome of its request was
	// declared unknown, as an outcome with the token of the request. It is called
	// like [Request.Done].
	Late func(Outcome)

	// Inspect gets PDUs that could not be decoded or are unknown, for people to
	// look at. It is called like [Request.Done].
	Inspect func(Strange)
}

func (c SessionConfig) withDefaults() SessionConfig {
	setDefault(&c.Window, defaultWindow)
	setDefault(&c.ResponseTimeout, defaultResponseTimeout)
	setDefault(&c.EnquireInterval, defaultEnquireInterval)
	setDefault(&c.EnquireTimeout, defaultEnquireTimeout)
	setDefault(&c.PDUTimeout, defaultPDUTimeout)
	setDefault(&c.WriteTimeout, defaultWriteTimeout)
	setDefault(&c.InboundLimit, defaultInboundLimit)
	setDefault(&c.StuckAfter, 2*c.Window)
	return c
}

func setDefault[T int | float64 | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

// Strange is a PDU that made no sense.
type Strange struct {
	Header Header
	Reason string
	Octets []byte // the first 1024 at most, header included
}

const maxStrangeOctets = 1024

// Binding describes the bind a session stands on.
type Binding struct {
	Side         Side
	Type         BindType
	SystemID     string // of the ESME
	PeerSystemID string // of the SMSC; empty on its own side
	SystemType   string
	Version      uint8 // interface version of the peer, 0 if it told none
	Local        net.Addr
	Remote       net.Addr
	Account      Account // only on the side of the SMSC
}

type sessionState uint8

const (
	stateOpen      sessionState = iota
	stateDraining               // no new requests of ours
	stateRefusing               // nor of the peer's
	stateFinishing              // the last octets are being written
)

// Session is a bound link. It is made by [Dial] or [BindOver] at the ESME's end
// and by a [Server] at the SMSC's. All methods may be called by any goroutine.
type Session struct {
	cfg     SessionConfig
	binding Binding
	conn    net.Conn
	frames  *FrameReader
	since   time.Time

	slots   chan struct{} // the window
	waiting atomic.Int64  // goroutines waiting for it
	waited  atomic.Int64  // nanoseconds they waited

	results *queue[result]
	inbox   *queue[*Inbound]

	quota      *rate.Limiter // of the account; nil is no limit
	flood      *rate.Limiter // far above the quota; nil is no limit
	strange    *rate.Limiter
	enquiries  *rate.Limiter
	refuseUSSD bool

	wake     chan struct{} // holds a token while the writer has something to look at
	draining chan struct{} // closed on leaving stateOpen
	dead     chan struct{} // closed when the session has failed
	done     chan struct{} // closed when everything has ended
	leaving  bool          // the peer has sent unbind; for the reader only
	lastIn   atomic.Int64  // nanoseconds from since to the last PDU of the peer: no clock that can be set
	written  atomic.Int64  // octets the socket took
	bytesIn  atomic.Int64
	helpers  sync.WaitGroup // reader, writer, keeper and leave

	mu        sync.Mutex
	state     sessionState
	unbinding bool  // we have sent unbind
	goodbye   error // why the session is ending although nothing failed
	err       error // why it ended
	changed   chan struct{}
	room      chan struct{} // closed when the writer has taken the queue; nil if nobody waits
	out       []byte        // encoded PDUs waiting for the writer
	fenced    bool          // requests of our callers are among them
	queued    int64         // octets ever queued: where in the stream the next PDU starts
	sequence  uint32
	pending   map[uint32]request
	late      map[uint32]lateRequest
	inFlight  int // pending requests of our callers
	inWindow  int // those of them in the window

	inboundPending int
	inboundOctets  int
	silent         int // requests in a row that were given up
	rtt            latency
	n              counters
}

// request is what we remember of a request of ours until its answer comes.
type request struct {
	command  CommandID
	internal bool // enquire_link or unbind of the session itself
	windowed bool
	offset   int64 // of its first octet in the stream
	sent     time.Time
	timeout  time.Duration // 0 is the session's
	token    any
	done     func(Outcome)
}

type lateRequest struct {
	command CommandID
	sent    time.Time
	token   any
}

// result is something for the goroutine that calls the callbacks.
type result struct {
	outcome  Outcome
	done     func(Outcome)
	windowed bool
	strange  *Strange
}

func newSession(conn net.Conn, frames *FrameReader, cfg SessionConfig, binding Binding) *Session {
	cfg = cfg.withDefaults()
	now := time.Now()
	s := &Session{
		cfg:       cfg,
		binding:   binding,
		conn:      conn,
		frames:    frames,
		since:     now,
		slots:     make(chan struct{}, cfg.Window),
		results:   newQueue[result](),
		inbox:     newQueue[*Inbound](),
		strange:   rate.NewLimiter(strangeRate, strangeBurst),
		enquiries: rate.NewLimiter(enquireRate, enquireBurst),
		wake:      make(chan struct{}, 1),
		draining:  make(chan struct{}),
		dead:      make(chan struct{}),
		done:      make(chan struct{}),
		changed:   make(chan struct{}),
		pending:   make(map[uint32]request),
		late:      make(map[uint32]lateRequest),
	}
	return s
}

func (s *Session) start() {
	s.frames.setBound(s.conn.SetReadDeadline, s.cfg.PDUTimeout)
	s.helpers.Go(func() { s.fail(s.read()) })
	s.helpers.Go(s.write)
	s.helpers.Go(s.keep)
	var callbacks sync.WaitGroup
	callbacks.Go(s.deliverResults)
	callbacks.Go(s.deliverInbox)
	go func() {
		<-s.dead
		s.conn.Close()
		s.helpers.Wait()
		s.settleAll()
		s.results.close()
		s.inbox.close()
		callbacks.Wait()
		close(s.done)
	}()
}

// Binding describes the bind the session stands on.
func (s *Session) Binding() Binding { return s.binding }

// Done is closed when the session has ended and every outcome has been handed
// over.
func (s *Session) Done() <-chan struct{} { return s.done }

// Closing is closed when the session takes no more requests, be it because it
// has failed, because we are closing it or because the peer has sent unbind.
func (s *Session) Closing() <-chan struct{} { return s.draining }

// Err says why the session ended. It is nil while the session lives.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Kill ends the session at once and without unbind. It does not wait; cause
// becomes [Session.Err] and the cause of the unknown outcomes.
func (s *Session) Kill(cause error) { s.fail(cause) }

// Close ends the session politely: it takes no more requests, waits for the
// answers to those under way and for our answers to the peer's as long as ctx
// allows, sends unbind, waits up to 5 s for its answer, closes the connection
// and waits until every outcome has been handed over. The error says that
// answers were still missing when ctx ended. Close must not be called from a
// callback of the session, because it waits for them.
func (s *Session) Close(ctx context.Context) error {
	s.enter(stateDraining)
	err := s.waitUntil(ctx.Done(), func() bool { return s.inFlight == 0 })
	s.enter(stateRefusing)
	if err == nil {
		err = s.waitUntil(ctx.Done(), func() bool { return s.inboundPending == 0 })
	}
	if err != nil {
		err = fmt.Errorf("close session: answers are missing: %w", ctx.Err())
	}
	s.unbind()
	<-s.done
	return err
}

// unbind says goodbye and ends the session.
func (s *Session) unbind() {
	s.mu.Lock()
	if s.goodbye == nil {
		s.goodbye = ErrClosed
	}
	if s.unbinding {
		s.mu.Unlock()
		return
	}
	s.unbinding = true
	answered := make(chan struct{})
	_, err := s.enqueueRequest(request{
		command:  CmdUnbind,
		internal: true,
		done:     func(Outcome) { close(answered) },
	}, &Plain{Command: CmdUnbind})
	s.mu.Unlock()
	if err == nil {
		timer := time.NewTimer(unbindTimeout)
		defer timer.Stop()
		select {
		case <-answered:
		case <-timer.C:
		case <-s.dead:
		}
	}
	s.finish(ErrClosed)
}

// leave answers the unbind of the peer. It gives the answers under way a moment
// first, because each one that is missing is an unknown outcome at one end.
func (s *Session) leave(sequence uint32) {
	s.mu.Lock()
	if s.goodbye == nil {
		s.goodbye = ErrUnbound
	}
	s.enterLocked(stateRefusing)
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), unbindGrace)
	defer cancel()
	// Whether the answers came or not, the peer is answered now.
	_ = s.waitUntil(ctx.Done(), func() bool { return s.inFlight == 0 && s.inboundPending == 0 })
	_ = s.answer(sequence, StatusOK, &Plain{Command: CmdUnbindResp})
	s.finish(ErrUnbound)
}

// enter moves the session on to a later state.
func (s *Session) enter(state sessionState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.enterLocked(state)
}

func (s *Session) enterLocked(state sessionState) {
	if s.state >= state {
		return
	}
	if s.state == stateOpen {
		close(s.draining)
	}
	s.state = state
}

var errGivenUp = errors.New("given up waiting")

// waitUntil waits for a condition on the fields under mu, the death of the
// session or stop.
func (s *Session) waitUntil(stop <-chan struct{}, condition func() bool) error {
	for {
		s.mu.Lock()
		met, changed := condition(), s.changed
		s.mu.Unlock()
		if met {
			return nil
		}
		select {
		case <-changed:
		case <-s.dead:
			return nil
		case <-stop:
			return errGivenUp
		}
	}
}

// progress wakes those in waitUntil. Nobody waits while the session is open.
func (s *Session) progress() {
	if s.state != stateOpen {
		close(s.changed)
		s.changed = make(chan struct{})
	}
}

// finish lets the writer write what is queued and then end the session.
func (s *Session) finish(cause error) {
	s.mu.Lock()
	if s.goodbye == nil {
		s.goodbye = cause
	}
	s.enterLocked(stateFinishing)
	s.mu.Unlock()
	s.signalWriter()
}

// fail ends the session at once.
func (s *Session) fail(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failLocked(cause)
}

func (s *Session) failLocked(cause error) {
	if s.err != nil {
		return
	}
	if s.goodbye != nil {
		cause = s.goodbye
	}
	s.err = cause
	s.enterLocked(stateFinishing)
	close(s.dead)
}

// settleAll declares the outcome of every request that is still open. Reader
// and writer have ended, so what the socket took is known for good.
func (s *Session) settleAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	written := s.written.Load()
	for _, sequence := range s.inOrder(func(request) bool { return true }) {
		r := s.pending[sequence]
		kind := Unknown
		if r.offset >= written {
			kind = NeverWritten
		}
		s.settle(sequence, r, Outcome{Kind: kind, Err: s.err})
	}
	clear(s.late)
}

// inOrder returns the numbers of the open requests that meet a condition, in
// the order in which they were sent.
func (s *Session) inOrder(condition func(request) bool) []uint32 {
	var all []uint32
	for sequence, r := range s.pending {
		if condition(r) {
			all = append(all, sequence)
		}
	}
	slices.SortFunc(all, func(a, b uint32) int { return cmp.Compare(s.pending[a].offset, s.pending[b].offset) })
	return all
}

// settle removes an open request and hands its outcome to the callbacks.
func (s *Session) settle(sequence uint32, r request, o Outcome) {
	delete(s.pending, sequence)
	if r.internal {
		if r.done != nil && o.Kind == Answered {
			r.done(o)
		}
		return
	}
	s.inFlight--
	if r.windowed {
		s.inWindow--
	}
	switch o.Kind {
	case Answered:
		s.n.answered++
	case NeverWritten:
		s.n.neverWritten++
	case Unknown:
		s.n.unknown++
	}
	o.Token, o.Sequence, o.SentAt = r.token, sequence, r.sent
	s.results.push(result{outcome: o, done: r.done, windowed: r.windowed})
	s.progress()
}

func (s *Session) closedError() error {
	cause := s.err
	if cause == nil {
		cause = s.goodbye
	}
	if cause == nil {
		cause = ErrClosed
	}
	return &ClosedError{Cause: cause}
}

// ClosedError says that a session takes no more requests or answers.
type ClosedError struct {
	Cause error // why the session ended or is ending
}

func (e *ClosedError) Error() string { return "session is closed: " + e.Cause.Error() }

// Unwrap returns the cause.
func (e *ClosedError) Unwrap() error { return e.Cause }
