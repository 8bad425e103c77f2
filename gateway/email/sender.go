package email

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	netmail "net/mail"
	"slices"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
)

// Config is what a Sender needs.
type Config struct {
	Relay    string // host:port of the smarthost; the certificate must be for this host
	Security Security
	Roots    *x509.CertPool // who may have issued the relay's certificate; nil: the system's

	Username, Password string // empty: no login. A login is refused without TLS.

	Hello string // our name in EHLO; empty: "localhost"
	From  string // the mailbox letters come from, "Школа <pass@example.org>"

	ReturnPath *ReturnPath // nil: the address of From, and no bounce is ever matched
	DKIM       *DKIM       // nil: the relay signs, or nobody

	Connections    int // to the relay at once; 0: 8
	PerDestination int // letters to one domain at once; 0: 4

	Log     *slog.Logger
	Metrics *Metrics
	Now     func() time.Time
}

// Sender hands letters to one relay. Its methods may be called from any
// goroutine; as many calls of Send run at once as there are connections.
type Sender struct {
	config Config
	from   string // the address of config.From
	times  times

	slots chan struct{} // one for each connection that may be open and at work

	mu           sync.Mutex
	closed       bool
	idle         []*session // the most recently used last
	destinations map[string]*destination
	pauses       int // how many of them are paused
	relay        relay
}

// relay is what is known of the relay's health.
type relay struct {
	down     Class // "" while it is up
	failures int
	failed   time.Time // the last failure that was counted
	until    time.Time // nobody tries before
}

// destination is a domain letters go to. It is forgotten when nobody uses it
// and it is not paused.
type destination struct {
	slots  chan struct{}
	users  int
	paused time.Time // until then; zero: not paused
}

// NewSender returns a Sender. It opens no connection yet.
func NewSender(c Config) (*Sender, error) {
	host, _, err := net.SplitHostPort(c.Relay)
	if err != nil || host == "" {
		return nil, fmt.Errorf("the relay %q is not host:port", c.Relay)
	}
	switch c.Security {
	case Plain, STARTTLS, TLS:
	default:
		return nil, fmt.Errorf("the TLS policy %q is none of none, starttls, tls", c.Security)
	}
	if c.Username != "" && c.Security == Plain {
		return nil, errors.New("a login to the relay needs starttls or tls, or the password is sent in the clear")
	}
	sender, err := netmail.ParseAddress(c.From)
	if err != nil {
		return nil, fmt.Errorf("the sender %q is not a mailbox: %w", c.From, err)
	}
	from, _, err := parseAddress(sender.Address)
	if err != nil {
		return nil, fmt.Errorf("the sender %q: %w", c.From, err)
	}
	if c.Hello == "" {
		c.Hello = "localhost"
	}
	if c.Connections <= 0 {
		c.Connections = defaultConnections
	}
	if c.PerDestination <= 0 {
		c.PerDestination = defaultPerDestination
	}
	return &Sender{
		config: c, from: from, times: defaultTimes(),
		slots: make(chan struct{}, c.Connections), destinations: map[string]*destination{},
	}, nil
}

// Send hands a letter to the relay and returns nil once the relay has taken
// responsibility for it. Any other outcome is an *Error. Send waits while all
// connections or all places of the letter's destination are taken; it returns
// when ctx ends, with Unknown if the letter may have left by then.
func (s *Sender) Send(ctx context.Context, l Letter) error {
	began := time.Now()
	err := s.send(ctx, l)
	s.config.Metrics.sent(err, time.Since(began))
	if err != nil {
		return err
	}
	return nil
}

func (s *Sender) send(ctx context.Context, l Letter) *Error {
	to, domain, err := parseAddress(l.To)
	if err != nil {
		return &Error{Class: Address, Phase: Building, Err: err}
	}
	from := l.From
	if from == "" {
		from = s.config.From
	}
	message, err := build(l, from, to, s.config.Now(), s.config.DKIM)
	if err != nil {
		return &Error{Class: Refused, Phase: Building, Err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, s.times.letter)
	defer cancel()

	d, wrong := s.enter(ctx, domain)
	if wrong != nil {
		return wrong
	}
	defer s.leave(domain, d)
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return &Error{Class: HostDown, Phase: Waiting, RetryAfter: firstHostBackoff, Err: context.Cause(ctx)}
	}

	wrong = s.deliver(ctx, envelope{from: s.sender(l), to: to, message: message})
	s.learn(d, wrong)
	return wrong
}

// sender returns the envelope sender of a letter.
func (s *Sender) sender(l Letter) string {
	if s.config.ReturnPath == nil {
		return s.from
	}
	return s.config.ReturnPath.For(l.ID)
}

// envelope is a letter as the relay sees it.
type envelope struct {
	from, to string
	message  []byte
}

// deliver sends a letter over an idle connection or a new one. A relay may have
// closed an idle connection; that is noticed at MAIL, when nothing of the letter
// has been said, and costs a new connection only.
func (s *Sender) deliver(ctx context.Context, e envelope) *Error {
	c := s.takeIdle()
	for reused := c != nil; ; reused = false {
		if c == nil {
			if wrong := s.mayDial(); wrong != nil {
				return wrong
			}
			var err error
			c, err = s.open(ctx)
			s.config.Metrics.dialled(err)
			if err != nil {
				wrong, _ := errors.AsType[*Error](err)
				return wrong
			}
		}
		wrong := s.transact(ctx, c, e)
		s.putBack(c, wrong)
		if reused && wrong != nil && wrong.Phase == Mail && wrong.Class == HostDown && ctx.Err() == nil {
			c = nil
			continue
		}
		return wrong
	}
}

// transact sends one letter over a dialogue.
func (s *Sender) transact(ctx context.Context, c *session, e envelope) *Error {
	stop := context.AfterFunc(ctx, func() { c.conn.Close() })
	defer stop()
	c.used++
	if err := c.client.Mail(e.from, &smtp.MailOptions{Size: int64(len(e.message))}); err != nil {
		return commandError(ctx, Mail, err)
	}
	if err := c.client.Rcpt(e.to, nil); err != nil {
		return commandError(ctx, Rcpt, err)
	}
	w, err := c.client.Data()
	if err != nil {
		return commandError(ctx, Data, err)
	}
	if _, err := io.Copy(w, bytes.NewReader(e.message)); err != nil {
		return commandError(ctx, Data, err)
	}
	if _, err := w.CloseWithResponse(); err != nil {
		return finalError(ctx, c, err)
	}
	return nil
}

// commandError says what a failure before the final dot means.
func commandError(ctx context.Context, phase Phase, err error) *Error {
	if reply, ok := errors.AsType[*smtp.SMTPError](err); ok {
		return classify(phase, reply.Code, reply.EnhancedCode, reply.Message)
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return &Error{Class: HostDown, Phase: phase, RetryAfter: firstHostBackoff, Err: plainError(err)}
}

// finalError says what a failure at the final dot means. If the write that held
// the dot failed, the relay cannot have seen all of the letter; once it was
// written, only a reply can tell.
func finalError(ctx context.Context, c *session, err error) *Error {
	if reply, ok := errors.AsType[*smtp.SMTPError](err); ok {
		return classify(Final, reply.Code, reply.EnhancedCode, reply.Message)
	}
	if c.conn.broken.Load() {
		return commandError(ctx, Data, err)
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return &Error{Class: Unknown, Phase: Final, RetryAfter: unknownWait, Err: plainError(err)}
}

// takeIdle returns the connection used last, or nil.
func (s *Sender) takeIdle() *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.idle) > 0 {
		c := s.idle[len(s.idle)-1]
		s.idle = s.idle[:len(s.idle)-1]
		if c.idle.Stop() { // else its time is over and it is being closed
			c.idle = nil
			return c
		}
	}
	return nil
}

// putBack keeps a connection for the next letter, if it can carry one.
func (s *Sender) putBack(c *session, wrong *Error) {
	if !s.reusable(c, wrong) {
		s.config.Metrics.hungUp()
		if wrong == nil || wrong.Code != 0 {
			c.quit()
		} else {
			c.conn.Close() // it does not answer
		}
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		s.config.Metrics.hungUp()
		c.conn.Close()
		return
	}
	c.idle = time.AfterFunc(idleLife, func() { s.expire(c) })
	s.idle = append(s.idle, c)
}

// reusable reports whether a dialogue can carry another letter, and after a
// refusal brings it back to its beginning.
func (s *Sender) reusable(c *session, wrong *Error) bool {
	switch {
	case c.conn.broken.Load() || c.used >= lettersPerConnection:
		return false
	case wrong == nil:
		return true
	case wrong.Code == 0 || wrong.Code == 421:
		return false
	case wrong.Phase == Final:
		return true // the transaction is over
	default:
		return c.client.Reset() == nil
	}
}

// expire closes a connection that had no work.
func (s *Sender) expire(c *session) {
	s.mu.Lock()
	s.idle = slices.DeleteFunc(s.idle, func(other *session) bool { return other == c })
	s.mu.Unlock()
	s.config.Metrics.hungUp()
	c.quit()
}

// Close ends the idle connections; those at work end with their letter. No
// letter is to be sent afterwards.
func (s *Sender) Close() {
	s.mu.Lock()
	idle := s.idle
	s.idle, s.closed = nil, true
	s.mu.Unlock()
	for _, c := range idle {
		if c.idle.Stop() {
			s.config.Metrics.hungUp()
			c.quit()
		}
	}
}

// mayDial is nil when the relay may be tried. While it is down one attempt is
// made at the end of each pause, and all others learn how long it still lasts.
func (s *Sender) mayDial() *Error {
	now := s.config.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &s.relay
	if r.down == "" || !now.Before(r.until) {
		if r.down != "" {
			r.until = now.Add(s.times.dial + s.times.command) // this one tries; the others wait for what it finds
		}
		return nil
	}
	return &Error{Class: r.down, Phase: Waiting, RetryAfter: max(r.until.Sub(now), time.Second), Err: errRelayDown}
}

var (
	errRelayDown = errors.New("the relay failed and is not tried yet")
	errPaused    = errors.New("the destination is paused")
)

// learn notes what an outcome says of the relay and of the destination.
func (s *Sender) learn(d *destination, wrong *Error) {
	now := s.config.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case wrong == nil:
		s.relayWorks()
	case wrong.Phase == Waiting, wrong.Class == Unknown, errors.Is(wrong.Err, context.Canceled):
		// it says nothing
	case wrong.Class == HostDown || wrong.Class == Misconfigured:
		s.relayFailed(now, wrong)
	default:
		s.relayWorks()
	}
	if wrong != nil && wrong.Class == Reputation && wrong.Phase != Waiting {
		s.pause(now, d, wrong.Phase, wrong.Code)
	}
}

// pause leaves a destination alone for a while, and alarms; the caller holds mu.
func (s *Sender) pause(now time.Time, d *destination, phase Phase, code int) {
	if d.paused.IsZero() {
		s.config.Log.Error("mail destination refuses us and is paused", "phase", phase, "code", code, "for", reputationPause)
		s.pauses++
		s.config.Metrics.paused(s.pauses)
	}
	d.paused = now.Add(reputationPause)
}

// Pause leaves the destination of an address alone as a refusal with 5.7.x does:
// such a refusal may also come later, as a bounce, when the relay is not the
// destination itself. An address that is none is left.
func (s *Sender) Pause(address string) {
	_, domain, err := parseAddress(address)
	if err != nil {
		return
	}
	now := s.config.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endPauses(now)
	d := s.destinations[domain]
	if d == nil {
		d = &destination{slots: make(chan struct{}, s.config.PerDestination)}
		s.destinations[domain] = d
	}
	s.pause(now, d, Bounced, 0)
}

// relayWorks ends a failure of the relay; the caller holds mu.
func (s *Sender) relayWorks() {
	if s.relay.down != "" {
		s.config.Log.Info("mail relay works again", "after_failures", s.relay.failures)
		s.relay = relay{}
		s.config.Metrics.relayUp(true)
	}
}

// relayFailed notes a failure of the relay and lengthens its pause; the caller
// holds mu. Failures that come together, of several connections, are one.
func (s *Sender) relayFailed(now time.Time, wrong *Error) {
	r := &s.relay
	if r.down != wrong.Class {
		s.config.Log.Error("mail relay cannot be used", "class", wrong.Class, "phase", wrong.Phase, "code", wrong.Code,
			"error", wrong.Err)
		s.config.Metrics.relayUp(false)
	} else if now.Sub(r.failed) < firstHostBackoff {
		wrong.RetryAfter = max(r.until.Sub(now), time.Second)
		return
	}
	pause := configBackoff
	if wrong.Class == HostDown {
		pause = longestHostBackoff
		if shift := min(r.failures, 16); firstHostBackoff<<shift < longestHostBackoff {
			pause = firstHostBackoff << shift
		}
		pause += rand.N(pause/4 + 1) // so that several processes do not come at once
	}
	r.down, r.failed, r.until = wrong.Class, now, now.Add(pause)
	r.failures++
	wrong.RetryAfter = pause
}

// enter takes a place among the letters to a destination.
func (s *Sender) enter(ctx context.Context, domain string) (*destination, *Error) {
	now := s.config.Now()
	s.mu.Lock()
	s.endPauses(now)
	d := s.destinations[domain]
	if d == nil {
		d = &destination{slots: make(chan struct{}, s.config.PerDestination)}
		s.destinations[domain] = d
	}
	if !d.paused.IsZero() {
		s.mu.Unlock()
		return nil, &Error{Class: Reputation, Phase: Waiting, RetryAfter: d.paused.Sub(now), Err: errPaused}
	}
	d.users++
	s.mu.Unlock()
	select {
	case d.slots <- struct{}{}:
		return d, nil
	case <-ctx.Done():
		s.forget(domain, d)
		return nil, &Error{Class: HostDown, Phase: Waiting, RetryAfter: firstHostBackoff, Err: context.Cause(ctx)}
	}
}

// endPauses lets the destinations go whose pause is over; the caller holds mu.
func (s *Sender) endPauses(now time.Time) {
	if s.pauses == 0 {
		return
	}
	for domain, d := range s.destinations {
		if d.paused.IsZero() || now.Before(d.paused) {
			continue
		}
		d.paused = time.Time{}
		s.pauses--
		if d.users == 0 {
			delete(s.destinations, domain)
		}
	}
	s.config.Metrics.paused(s.pauses)
}

// leave gives the place back.
func (s *Sender) leave(domain string, d *destination) {
	<-d.slots
	s.forget(domain, d)
}

// forget drops a destination nobody uses.
func (s *Sender) forget(domain string, d *destination) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.users--; d.users == 0 && d.paused.IsZero() {
		delete(s.destinations, domain)
	}
}
