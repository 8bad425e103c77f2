package email

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-message"
	"github.com/emersion/go-smtp"
)

// Bounce says that a letter the relay had accepted was not delivered.
type Bounce struct {
	ID       int64  // of the letter
	Class    Class  // Address, Reputation or Refused
	Enhanced [3]int // the status of RFC 3463; zero when the notification has none
	At       time.Time
}

// IntakeConfig is what an Intake needs.
type IntakeConfig struct {
	ReturnPath *ReturnPath
	Hello      string      // our name in the greeting
	TLS        *tls.Config // offers STARTTLS; may be nil

	// OnBounce stores a bounce. The notification is acknowledged after it
	// returns nil; with an error the other side keeps it and comes again.
	OnBounce func(ctx context.Context, b Bounce) error

	Log     *slog.Logger
	Metrics *Metrics
	Now     func() time.Time
}

// Intake is a small SMTP server that takes delivery status notifications and
// nothing else.
type Intake struct {
	config IntakeConfig
	server *smtp.Server
	peers  *peers
}

// NewIntake returns an Intake.
func NewIntake(c IntakeConfig) *Intake {
	in := &Intake{config: c, peers: newPeers()}
	in.server = smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) {
		return &intakeSession{intake: in}, nil
	}))
	in.server.Domain = c.Hello
	in.server.TLSConfig = c.TLS
	in.server.MaxMessageBytes = maxBounce
	in.server.MaxRecipients = 1 // a notification of ours has one, whoever lists more is guessing
	in.server.ReadTimeout = bounceReadTime
	in.server.WriteTimeout = bounceWriteTime
	in.server.ErrorLog = quietLog{c.Log}
	return in
}

// Serve takes notifications from a listener until Shutdown.
func (in *Intake) Serve(l net.Listener) error {
	if err := in.server.Serve(&limited{Listener: l, peers: in.peers}); err != nil {
		return fmt.Errorf("take bounces: %w", err)
	}
	return nil
}

// Shutdown stops taking connections, waits until the open ones have ended or
// ctx has, and closes the rest: a notification that was not acknowledged comes
// again.
func (in *Intake) Shutdown(ctx context.Context) error {
	in.peers.stop()
	if err := in.server.Shutdown(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, smtp.ErrServerClosed) {
		return fmt.Errorf("stop taking bounces: %w", err)
	}
	in.peers.closeAll()
	return nil
}

// quietLog takes go-smtp's own log lines, which may quote what a peer sent, and
// keeps only that there was one.
type quietLog struct{ log *slog.Logger }

func (q quietLog) Printf(string, ...any) { q.log.Debug("a peer of the bounce intake broke off") }
func (q quietLog) Println(...any)        { q.log.Debug("a peer of the bounce intake broke off") }

// intakeSession is one transaction after another of a peer.
type intakeSession struct {
	intake *Intake
	id     int64
}

// Mail takes any sender: notifications come from the null sender, but nothing
// is believed of it.
func (s *intakeSession) Mail(string, *smtp.MailOptions) error { return nil }

// Rcpt takes a signed return path.
func (s *intakeSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	id, ok := s.intake.config.ReturnPath.Match(to)
	if !ok {
		result := bounceStray
		if _, ours := s.intake.config.ReturnPath.token(to); ours {
			result = bounceForged
		}
		s.intake.config.Metrics.bounce(result)
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "No such mailbox"}
	}
	s.id = id
	return nil
}

// Data reads a notification and has it stored.
func (s *intakeSession) Data(r io.Reader) error {
	c := &s.intake.config
	status, err := readStatus(r)
	if _, copyErr := io.Copy(io.Discard, r); copyErr != nil {
		return copyErr // too large, or broken off; go-smtp knows the reply
	}
	if err != nil {
		c.Metrics.bounce(bounceUnreadable)
		return nil
	}
	switch status.action {
	case "failed":
	case "delayed":
		c.Metrics.bounce(bounceDelayed)
		return nil
	default:
		c.Metrics.bounce(bounceOther)
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), bounceStoreTime)
	defer cancel()
	bounce := Bounce{ID: s.id, Class: status.class(), Enhanced: status.enhanced, At: c.Now()}
	if err := c.OnBounce(ctx, bounce); err != nil {
		c.Metrics.bounce(bounceDeferred)
		c.Log.Error("store bounce", "letter", s.id, "error", err)
		return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "Please try again later"}
	}
	c.Metrics.bounce(bounceFailed)
	return nil
}

// Reset forgets the transaction.
func (s *intakeSession) Reset() { s.id = 0 }

// Logout ends the session.
func (s *intakeSession) Logout() error { return nil }

// status is what a notification says of its recipient.
type status struct {
	action   string // failed, delayed, delivered, relayed, expanded (RFC 3464 section 2.3.3)
	enhanced [3]int
}

// class says what a failure that came later means. A 4.x.x that became final is
// a letter the other side gave up on.
func (s status) class() Class {
	switch {
	case isMailbox(s.enhanced):
		return Address
	case s.enhanced[0] == 5 && s.enhanced[1] == 7:
		return Reputation
	default:
		return Refused
	}
}

// errNoReport says that a message is no delivery status notification.
var errNoReport = errors.New("not a delivery status notification")

// readStatus reads a notification (RFC 3464): of a multipart/report the part
// message/delivery-status, and of that the first recipient whose delivery
// failed, or else the first.
func readStatus(r io.Reader) (status, error) {
	m, err := message.Read(r)
	if err != nil && !message.IsUnknownCharset(err) && !message.IsUnknownEncoding(err) {
		return status{}, err
	}
	kind, params, err := m.Header.ContentType()
	if err != nil || kind != "multipart/report" || !strings.EqualFold(params["report-type"], "delivery-status") {
		return status{}, errNoReport
	}
	parts := m.MultipartReader()
	if parts == nil {
		return status{}, errNoReport
	}
	for range maxParts {
		part, err := parts.NextPart()
		if err != nil && !message.IsUnknownCharset(err) && !message.IsUnknownEncoding(err) {
			return status{}, errNoReport
		}
		kind, _, err := part.Header.ContentType()
		if err == nil && (kind == "message/delivery-status" || kind == "message/global-delivery-status") { // RFC 6533
			return readGroups(io.LimitReader(part.Body, maxStatusPart))
		}
	}
	return status{}, errNoReport
}

// readGroups reads the groups of fields of a status part: one for the message,
// then one for each recipient.
func readGroups(r io.Reader) (status, error) {
	fields := textproto.NewReader(bufio.NewReader(r))
	var first *status
	for range maxGroups {
		group, err := fields.ReadMIMEHeader()
		if action := strings.ToLower(strings.TrimSpace(group.Get("Action"))); action != "" {
			s := status{action: action, enhanced: parseStatus(group.Get("Status"))}
			if first == nil {
				first = &s
			}
			if action == "failed" {
				return s, nil
			}
		}
		if err != nil {
			break
		}
	}
	if first == nil {
		return status{}, errNoReport
	}
	return *first, nil
}

// parseStatus reads "5.1.1", with a comment after it or not; anything else is zero.
func parseStatus(text string) [3]int {
	text, _, _ = strings.Cut(strings.TrimSpace(text), " ")
	var code [3]int
	digits := strings.Split(text, ".")
	if len(digits) != len(code) {
		return [3]int{}
	}
	for i, d := range digits {
		n, err := strconv.ParseUint(d, 10, 16)
		if err != nil || len(d) > 3 {
			return [3]int{}
		}
		code[i] = int(n)
	}
	if code[0] != 2 && code[0] != 4 && code[0] != 5 {
		return [3]int{}
	}
	return code
}

// peers are the open connections of an Intake.
type peers struct {
	places chan struct{}
	done   chan struct{} // closed by stop

	mu   sync.Mutex
	open map[*peer]struct{}
}

func newPeers() *peers {
	return &peers{places: make(chan struct{}, maxBouncePeers), done: make(chan struct{}), open: map[*peer]struct{}{}}
}

func (p *peers) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.done:
	default:
		close(p.done)
	}
}

func (p *peers) closeAll() {
	p.mu.Lock()
	open := slices.Collect(maps.Keys(p.open))
	p.mu.Unlock()
	for _, c := range open {
		c.Close()
	}
}

// limited is a listener whose connections are at most so many at once, each for
// a limited time; further ones wait in the kernel's queue.
type limited struct {
	net.Listener
	peers *peers
}

// Accept waits for a place, then for a connection.
func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.peers.places <- struct{}{}:
	case <-l.peers.done:
		return nil, net.ErrClosed
	}
	raw, err := l.Listener.Accept()
	if err != nil {
		<-l.peers.places
		return nil, err
	}
	c := &peer{Conn: raw}
	c.leave = sync.OnceFunc(func() {
		<-l.peers.places
		l.peers.mu.Lock()
		delete(l.peers.open, c)
		l.peers.mu.Unlock()
	})
	c.overdue = time.AfterFunc(bouncePeerTime, func() { c.Close() })
	l.peers.mu.Lock()
	l.peers.open[c] = struct{}{}
	l.peers.mu.Unlock()
	return c, nil
}

// peer is one connection.
type peer struct {
	net.Conn
	overdue *time.Timer
	leave   func()
}

// Close gives the place back.
func (c *peer) Close() error {
	c.overdue.Stop()
	c.leave()
	return c.Conn.Close()
}
