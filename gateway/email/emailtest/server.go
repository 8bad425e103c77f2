// Package emailtest is the other side of an e-mail dialogue: an SMTP server on
// a real socket that keeps every letter it takes, and can be told to misbehave
// in each way a relay does.
//
// It has two uses. In development it is the mail catcher: it takes whatever is
// sent, and [Server.Handler] is a page of the letters. In tests it is the relay
// with knobs: a [Behaviour] interferes at a step of the dialogue, and the
// letters that were really taken are there to be counted.
//
//	relay, err := emailtest.Listen("127.0.0.1:0")
//	relay.Behave(emailtest.Refuse("RCPT", "550 5.1.1 No such user"))
//
// The server is written against the sockets and not upon an SMTP library, since
// what it has to do is what a library prevents.
package emailtest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// Limits of the server.
const (
	maxLine    = 4096     // octets of a command; RFC 5321 has 512 and extensions lengthen it
	maxBody    = 10 << 20 // octets of a letter
	maxLetters = 1000     // kept; the oldest go
	idleTime   = 5 * time.Minute
)

// Server is an SMTP server that keeps what it takes.
type Server struct {
	listener net.Listener
	tls      *tls.Config // nil: no STARTTLS
	implicit bool        // TLS from the first octet
	user     string      // "": nobody needs to log in
	password string

	mu         sync.Mutex
	behaviours []Behaviour
	letters    []Letter
	taken      int           // letters ever taken
	news       chan struct{} // closed and replaced at each letter
	sessions   []Session
	conns      map[net.Conn]struct{}
	closed     bool

	stop chan struct{} // closed by Close
	done sync.WaitGroup
}

// Option changes a Server before it listens.
type Option func(*Server)

// WithTLS offers STARTTLS with these certificates.
func WithTLS(certificates ...tls.Certificate) Option {
	return func(s *Server) { s.tls = &tls.Config{Certificates: certificates} }
}

// WithImplicitTLS speaks TLS from the first octet.
func WithImplicitTLS(certificates ...tls.Certificate) Option {
	return func(s *Server) { s.tls, s.implicit = &tls.Config{Certificates: certificates}, true }
}

// WithLogin demands this login before a letter.
func WithLogin(user, password string) Option {
	return func(s *Server) { s.user, s.password = user, password }
}

// Listen starts a server on an address such as "127.0.0.1:1025"; port 0 picks a
// free one.
func Listen(addr string, options ...Option) (*Server, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for mail: %w", err)
	}
	s := &Server{listener: l, news: make(chan struct{}), stop: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	for _, o := range options {
		o(s)
	}
	s.done.Go(s.accept)
	return s, nil
}

// Addr returns host:port.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Close stops listening, breaks all connections off and waits for them. The
// letters stay readable.
func (s *Server) Close() error {
	err := s.listener.Close()
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.stop)
	}
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.done.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Behave sets how the server behaves from the next step on, in place of what
// was set before. At each step the first behaviour that has an answer decides.
// Without any the server behaves well.
func (s *Server) Behave(b ...Behaviour) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.behaviours = b
}

// Letters returns the letters taken, oldest first.
func (s *Server) Letters() []Letter {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.letters)
}

// Letter returns the letter with a number, counted from 1.
func (s *Server) Letter(number int) (Letter, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.letters {
		if l.Number == number {
			return l, true
		}
	}
	return Letter{}, false
}

// Wait returns the first letter, already taken or still to come, that is
// wanted. The error is that of ctx.
func (s *Server) Wait(ctx context.Context, wanted func(Letter) bool) (Letter, error) {
	for {
		s.mu.Lock()
		letters, news := slices.Clone(s.letters), s.news
		s.mu.Unlock()
		if i := slices.IndexFunc(letters, wanted); i >= 0 {
			return letters[i], nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return Letter{}, context.Cause(ctx)
		}
	}
}

// Session is what is remembered of a connection, for tests of what was said in
// the clear and how connections are used.
type Session struct {
	Number   int
	Commands []string // as they came, without the letters; what is inside TLS too
	Clear    []byte   // everything the client sent before TLS, letters included
	TLS      bool
	Letters  int // taken
}

// Sessions returns the connections there were, oldest first.
func (s *Server) Sessions() []Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	sessions := slices.Clone(s.sessions)
	for i := range sessions {
		sessions[i].Commands = slices.Clone(sessions[i].Commands)
		sessions[i].Clear = bytes.Clone(sessions[i].Clear)
	}
	return sessions
}

func (s *Server) accept() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			c.Close()
			return
		}
		s.conns[c] = struct{}{}
		s.sessions = append(s.sessions, Session{Number: len(s.sessions) + 1})
		d := &dialogue{server: s, raw: c, session: len(s.sessions)}
		s.mu.Unlock()
		s.done.Go(func() {
			defer func() {
				c.Close()
				s.mu.Lock()
				delete(s.conns, c)
				s.mu.Unlock()
			}()
			d.run()
		})
	}
}

// note changes what is remembered of a session.
func (s *Server) note(session int, change func(*Session)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.sessions[session-1])
}

// keep stores a letter.
func (s *Server) keep(l Letter, session int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken++
	l.Number = s.taken
	s.letters = append(s.letters, l)
	if len(s.letters) > maxLetters {
		s.letters = slices.Delete(s.letters, 0, len(s.letters)-maxLetters)
	}
	s.sessions[session-1].Letters++
	close(s.news)
	s.news = make(chan struct{})
}

// ask returns what the behaviours say to a step; the zero Answer is to go on as usual.
func (s *Server) ask(step Step) Answer {
	s.mu.Lock()
	behaviours := s.behaviours
	s.mu.Unlock()
	for _, b := range behaviours {
		if a := b(step); a != nil {
			return *a
		}
	}
	return Answer{}
}

// dialogue is one connection.
type dialogue struct {
	server  *Server
	raw     net.Conn
	conn    net.Conn // raw, or TLS over it
	in      *bufio.Reader
	session int
	tls     bool
	pace    time.Duration // between octets of a reply; 0: at once

	loggedIn bool
	from     string
	mailed   bool // MAIL was taken
	to       []string
	last     string // the last reply
}

// errOver ends a dialogue.
var errOver = errors.New("the dialogue is over")

func (d *dialogue) run() {
	d.use(d.raw)
	if d.server.implicit && d.secure() != nil {
		return
	}
	if d.reply("CONNECT", "", "220 catcher.example.org ESMTP") != nil {
		return
	}
	for {
		line, err := d.readLine()
		if err != nil {
			return
		}
		d.server.note(d.session, func(s *Session) { s.Commands = append(s.Commands, line) })
		if d.command(line) != nil {
			return
		}
	}
}

// use reads from and writes to a connection from now on.
func (d *dialogue) use(c net.Conn) {
	d.conn = c
	var r io.Reader = c
	if !d.tls {
		r = io.TeeReader(c, clearLog{d})
	}
	d.in = bufio.NewReaderSize(r, maxLine)
}

// clearLog remembers what came in the clear.
type clearLog struct{ d *dialogue }

func (l clearLog) Write(b []byte) (int, error) {
	l.d.server.note(l.d.session, func(s *Session) { s.Clear = append(s.Clear, b...) })
	return len(b), nil
}

func (d *dialogue) secure() error {
	c := tls.Server(d.raw, d.server.tls)
	if err := c.Handshake(); err != nil {
		return err
	}
	d.tls = true
	d.server.note(d.session, func(s *Session) { s.TLS = true })
	d.use(c)
	return nil
}

func (d *dialogue) readLine() (string, error) {
	if err := d.conn.SetReadDeadline(time.Now().Add(idleTime)); err != nil {
		return "", err
	}
	line, err := d.in.ReadSlice('\n')
	if err != nil {
		return "", err // a line above maxLine ends the dialogue, too
	}
	return strings.TrimRight(string(line), "\r\n"), nil
}

// command answers one command.
func (d *dialogue) command(line string) error {
	verb, arg, _ := strings.Cut(line, " ")
	verb = strings.ToUpper(verb)
	switch verb {
	case "EHLO":
		d.reset()
		return d.hello(arg)
	case "HELO":
		d.reset()
		return d.reply(verb, arg, "250 catcher.example.org")
	case "STARTTLS":
		return d.startTLS()
	case "AUTH":
		return d.login(arg)
	case "MAIL":
		return d.mail(arg)
	case "RCPT":
		return d.rcpt(arg)
	case "DATA":
		return d.data()
	case "RSET":
		d.reset()
		return d.reply(verb, arg, "250 2.0.0 OK")
	case "NOOP":
		return d.reply(verb, arg, "250 2.0.0 OK")
	case "QUIT":
		if err := d.reply(verb, arg, "221 2.0.0 Bye"); err != nil {
			return err
		}
		return errOver
	default:
		return d.reply(verb, arg, "500 5.5.2 Unknown command")
	}
}

func (d *dialogue) reset() { d.from, d.mailed, d.to = "", false, nil }

func (d *dialogue) hello(arg string) error {
	lines := []string{"catcher.example.org", "8BITMIME", "ENHANCEDSTATUSCODES", fmt.Sprintf("SIZE %d", maxBody)}
	a := d.server.ask(d.step("EHLO", arg))
	if d.server.tls != nil && !d.tls {
		lines = append(lines, "STARTTLS")
	}
	if d.server.user != "" && (d.tls || d.server.tls == nil) {
		lines = append(lines, "AUTH PLAIN")
	}
	lines = slices.DeleteFunc(lines, func(l string) bool { return a.Hide != "" && l == a.Hide })
	text := ""
	for i, l := range lines {
		separator := "-"
		if i == len(lines)-1 {
			separator = " "
		}
		text += "250" + separator + l + "\r\n"
	}
	return d.say(a, strings.TrimSuffix(text, "\r\n"))
}

func (d *dialogue) startTLS() error {
	if d.server.tls == nil || d.tls {
		return d.reply("STARTTLS", "", "502 5.5.1 Not here")
	}
	if err := d.reply("STARTTLS", "", "220 2.0.0 Go ahead"); err != nil {
		return err
	}
	return d.secure()
}

func (d *dialogue) login(arg string) error {
	mechanism, initial, _ := strings.Cut(arg, " ")
	if !strings.EqualFold(mechanism, "PLAIN") {
		return d.reply("AUTH", mechanism, "504 5.5.4 Only PLAIN")
	}
	raw, err := base64.StdEncoding.DecodeString(initial)
	parts := strings.Split(string(raw), "\x00")
	if err != nil || len(parts) != 3 || parts[1] != d.server.user || parts[2] != d.server.password {
		return d.reply("AUTH", mechanism, "535 5.7.8 Wrong user or password")
	}
	d.loggedIn = true
	return d.reply("AUTH", mechanism, "235 2.7.0 Welcome")
}

func (d *dialogue) mail(arg string) error {
	address, ok := path(arg, "FROM:")
	switch {
	case !ok:
		return d.reply("MAIL", arg, "501 5.5.4 MAIL FROM:<address>")
	case d.server.user != "" && !d.loggedIn:
		return d.reply("MAIL", arg, "530 5.7.0 Log in first")
	case d.mailed:
		return d.reply("MAIL", arg, "503 5.5.1 One at a time")
	}
	d.from = address
	if err := d.reply("MAIL", address, "250 2.1.0 OK"); err != nil {
		return err
	}
	d.mailed = d.took()
	return nil
}

func (d *dialogue) rcpt(arg string) error {
	address, ok := path(arg, "TO:")
	if !ok || address == "" {
		return d.reply("RCPT", arg, "501 5.5.4 RCPT TO:<address>")
	}
	if !d.mailed {
		return d.reply("RCPT", arg, "503 5.5.1 MAIL first")
	}
	d.to = append(d.to, address)
	if err := d.reply("RCPT", address, "250 2.1.5 OK"); err != nil {
		return err
	}
	if !d.took() {
		d.to = d.to[:len(d.to)-1]
	}
	return nil
}

// path reads "FROM:<address> PARAMETER=…".
func path(arg, prefix string) (string, bool) {
	if len(arg) < len(prefix) || !strings.EqualFold(arg[:len(prefix)], prefix) {
		return "", false
	}
	rest := strings.TrimLeft(arg[len(prefix):], " ")
	end := strings.LastIndexByte(strings.SplitN(rest, " ", 2)[0], '>')
	if !strings.HasPrefix(rest, "<") || end < 0 {
		return "", false
	}
	return rest[1:end], true
}

func (d *dialogue) data() error {
	if len(d.to) == 0 {
		return d.reply("DATA", "", "503 5.5.1 RCPT first")
	}
	step := d.step("DATA", "")
	a := d.server.ask(step)
	if err := d.say(a, "354 Go ahead"); err != nil {
		return err
	}
	if a.Reply != "" && !strings.HasPrefix(a.Reply, "354") {
		return nil
	}
	if a.StopReading {
		return d.hang()
	}
	body, err := d.readBody(a.BreakOffAfter)
	if err != nil {
		return err
	}
	letter := Letter{From: d.from, To: slices.Clone(d.to), Data: body, TLS: d.tls, At: time.Now()}
	d.reset()
	step.Verb, step.Body = "END", body
	end := d.server.ask(step)
	if end.Reply == "" || strings.HasPrefix(end.Reply, "2") {
		if !end.Lose {
			d.server.keep(letter, d.session)
		}
	}
	return d.say(end, "250 2.0.0 Queued")
}

// readBody reads a letter up to the final dot, or with a limit breaks off after
// so many octets.
func (d *dialogue) readBody(limit int) ([]byte, error) {
	var body bytes.Buffer
	for lineStart := true; ; {
		if err := d.conn.SetReadDeadline(time.Now().Add(idleTime)); err != nil {
			return nil, err
		}
		line, err := d.in.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
		if body.Len()+len(line) > maxBody || limit > 0 && body.Len()+len(line) >= limit {
			return nil, errOver
		}
		if lineStart {
			if bytes.Equal(line, []byte(".\r\n")) {
				return body.Bytes(), nil
			}
			line = bytes.TrimPrefix(line, []byte(".")) // RFC 5321 section 4.5.2
		}
		lineStart = err == nil
		body.Write(line)
	}
}

func (d *dialogue) step(verb, arg string) Step {
	return Step{Verb: verb, Arg: arg, Session: d.session, TLS: d.tls, From: d.from, To: slices.Clone(d.to)}
}

// reply answers a step as usual, unless a behaviour says otherwise.
func (d *dialogue) reply(verb, arg, usual string) error {
	return d.say(d.server.ask(d.step(verb, arg)), usual)
}

// say gives an answer, or the usual reply when it has none.
func (d *dialogue) say(a Answer, usual string) error {
	d.pace = a.Pace
	switch {
	case a.Silent:
		return d.hang()
	case a.Close && a.Reply == "":
		return errOver
	case a.Reply != "":
		usual = a.Reply
	}
	d.last = usual
	if err := d.write(usual + "\r\n"); err != nil {
		return err
	}
	if a.Close {
		return errOver
	}
	return nil
}

// took reports whether the last reply was a good one.
func (d *dialogue) took() bool { return strings.HasPrefix(d.last, "2") }

func (d *dialogue) write(text string) error {
	if d.pace == 0 {
		_, err := io.WriteString(d.conn, text)
		return err
	}
	for i := range len(text) {
		time.Sleep(d.pace)
		if _, err := io.WriteString(d.conn, text[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

// hang says nothing and reads nothing until the server closes.
func (d *dialogue) hang() error {
	<-d.server.stop
	return errOver
}
