package email

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"sync/atomic"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// Security says how a connection to the relay is protected.
type Security string

// The policies. There is none that takes TLS when it is offered and does
// without when it is not: whoever can strip the offer could read the letters.
const (
	Plain    Security = "none"     // only to a relay on the same machine or network
	STARTTLS Security = "starttls" // RFC 3207; a relay that does not offer it is an error
	TLS      Security = "tls"      // TLS from the first octet (RFC 8314)
)

// timedConn is a connection on which nothing lasts for ever. go-smtp sets a
// deadline round each command, of minutes before it can be told otherwise, and
// none while a letter's body is written.
type timedConn struct {
	net.Conn
	limit time.Duration // the longest deadline anybody may set
	write time.Duration // for one write

	broken atomic.Bool // a write failed, so that not all of what was written left
}

// Write writes with a deadline of its own.
func (c *timedConn) Write(b []byte) (int, error) {
	if err := c.Conn.SetWriteDeadline(time.Now().Add(c.write)); err != nil {
		c.broken.Store(true)
		return 0, err
	}
	n, err := c.Conn.Write(b)
	if err != nil {
		c.broken.Store(true)
	}
	return n, err
}

// SetDeadline limits the reads to come. Writes have their own limit, and a
// deadline that is lifted leaves reads with the longest one.
func (c *timedConn) SetDeadline(t time.Time) error {
	longest := time.Now().Add(c.limit)
	if t.IsZero() || t.After(longest) {
		t = longest
	}
	return c.Conn.SetReadDeadline(t)
}

// session is one dialogue with the relay, over which letters go one after
// another.
type session struct {
	client *smtp.Client
	conn   *timedConn
	used   int         // letters begun
	idle   *time.Timer // ends it when it has had no work; nil while it works
}

// open dials the relay and brings the dialogue to where letters can be sent.
// The error is an *Error.
func (s *Sender) open(ctx context.Context) (*session, error) {
	dialer := net.Dialer{Timeout: s.times.dial}
	raw, err := dialer.DialContext(ctx, "tcp", s.config.Relay)
	if err != nil {
		return nil, &Error{Class: HostDown, Phase: Dialling, RetryAfter: firstHostBackoff, Err: plainError(err)}
	}
	conn := &timedConn{Conn: raw, limit: max(s.times.command, s.times.final), write: s.times.write}
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	client, err := s.greet(ctx, conn)
	if !stop() { // ctx ended, and closed the connection under the dialogue
		err = &Error{Class: HostDown, Phase: Greeting, RetryAfter: firstHostBackoff, Err: context.Cause(ctx)}
	}
	if err != nil {
		raw.Close()
		return nil, err
	}
	return &session{client: client, conn: conn}, nil
}

// greet goes through greeting, TLS and login.
func (s *Sender) greet(ctx context.Context, conn *timedConn) (*smtp.Client, error) {
	host, _, _ := net.SplitHostPort(s.config.Relay) // checked by NewSender
	secure := &tls.Config{ServerName: host, RootCAs: s.config.Roots, MinVersion: tls.VersionTLS12}
	conn.limit = s.times.command
	defer func() { conn.limit = max(s.times.command, s.times.final) }()

	var client *smtp.Client
	switch s.config.Security {
	case STARTTLS:
		c, err := smtp.NewClientStartTLS(conn, secure)
		if err != nil {
			return nil, greetingError(err, true)
		}
		client = c // the handshake itself happens with the next command
	case TLS:
		ctx, cancel := context.WithTimeout(ctx, s.times.command)
		defer cancel()
		tc := tls.Client(conn, secure)
		if err := tc.HandshakeContext(ctx); err != nil {
			return nil, greetingError(err, false)
		}
		client = smtp.NewClient(tc)
	default:
		client = smtp.NewClient(conn)
	}
	client.CommandTimeout, client.SubmissionTimeout = s.times.command, s.times.final
	if err := client.Hello(s.config.Hello); err != nil {
		return nil, greetingError(err, false)
	}
	if s.config.Username == "" {
		return client, nil
	}
	if err := s.login(client); err != nil {
		return nil, err
	}
	return client, nil
}

// login authenticates. NewSender has made sure that there is TLS.
func (s *Sender) login(client *smtp.Client) error {
	var mechanism sasl.Client
	switch {
	case client.SupportsAuth(sasl.Plain):
		mechanism = sasl.NewPlainClient("", s.config.Username, s.config.Password)
	case client.SupportsAuth(sasl.Login):
		mechanism = sasl.NewLoginClient(s.config.Username, s.config.Password)
	default:
		return &Error{
			Class: Misconfigured, Phase: Login, RetryAfter: configBackoff,
			Err: errors.New("the relay offers neither PLAIN nor LOGIN"),
		}
	}
	err := client.Auth(mechanism)
	if err == nil {
		return nil
	}
	if reply, ok := errors.AsType[*smtp.SMTPError](err); ok {
		return classify(Login, reply.Code, reply.EnhancedCode, reply.Message)
	}
	return &Error{Class: HostDown, Phase: Login, RetryAfter: firstHostBackoff, Err: plainError(err)}
}

// errNoSTARTTLS says that the relay did not offer what is demanded.
var errNoSTARTTLS = errors.New("the relay does not offer STARTTLS")

// greetingError says what a failure before the first letter means. What is
// neither a reply nor the loss of the connection, nor the torn reply a dying peer
// leaves, is a peer that does not do as our settings say: it has no STARTTLS, or
// a certificate we do not trust.
func greetingError(err error, beforeTLS bool) *Error {
	e := &Error{Phase: Greeting, RetryAfter: configBackoff, Class: Misconfigured, Err: plainError(err)}
	if reply, ok := errors.AsType[*smtp.SMTPError](err); ok {
		return classify(Greeting, reply.Code, reply.EnhancedCode, reply.Message)
	}
	switch _, torn := errors.AsType[textproto.ProtocolError](err); {
	case torn || isNetwork(err):
		e.Class, e.RetryAfter = HostDown, firstHostBackoff
	case beforeTLS: // go-smtp has no type for it, and no other error is left here
		e.Err = errNoSTARTTLS
	}
	return e
}

// isNetwork reports whether an error is the loss of a connection or a time-out.
// An alert of the peer's TLS comes as an error of the network too, but is none.
func isNetwork(err error) bool {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) {
		return true
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
		return false
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return false
	}
	_, ok := errors.AsType[net.Error](err)
	return ok
}

// plainError keeps of an error what may be logged: go-smtp's replies often
// repeat an address and never get here, network errors name hosts of ours.
func plainError(err error) error {
	if _, ok := errors.AsType[*smtp.SMTPError](err); ok {
		return errors.New("refused")
	}
	return fmt.Errorf("relay: %w", err)
}

// quit ends the dialogue in good order, if the relay is quick about it.
func (c *session) quit() {
	c.client.CommandTimeout = quitTime
	if c.client.Quit() != nil {
		c.conn.Close()
	}
}
