package smpp_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"zvonok/gateway/smpp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// peer is the other end of a session, PDU by PDU.
type peer struct {
	t    *testing.T
	conn net.Conn
	in   chan smpp.Header
	pdus chan smpp.PDU
}

func newPeer(t *testing.T, conn net.Conn) *peer {
	p := &peer{t: t, conn: conn, in: make(chan smpp.Header, 10_000), pdus: make(chan smpp.PDU, 10_000)}
	t.Cleanup(func() { conn.Close() })
	go func() {
		defer close(p.in)
		defer close(p.pdus)
		frames := smpp.NewFrameReader(conn, smpp.MaxPDU)
		for {
			frame, err := frames.Next()
			if err != nil {
				return
			}
			h, pdu, err := smpp.Decode(frame)
			if err != nil {
				t.Errorf("the session sent what does not decode: %v", err)
			}
			p.in <- h
			p.pdus <- pdu
		}
	}()
	return p
}

// expect waits for a PDU of a kind; enquire_link before it is left out.
func (p *peer) expect(command smpp.CommandID) (smpp.Header, smpp.PDU) {
	p.t.Helper()
	for {
		h, ok := <-p.in
		if !ok {
			p.t.Fatalf("the connection ended, %s was expected", command)
		}
		pdu := <-p.pdus
		if h.Command == command {
			return h, pdu
		}
		if h.Command != smpp.CmdEnquireLink {
			p.t.Fatalf("%s came, %s was expected", h.Command, command)
		}
	}
}

// expectEnd waits until the session has closed the connection.
func (p *peer) expectEnd() {
	p.t.Helper()
	for h := range p.in {
		<-p.pdus
		if h.Command != smpp.CmdEnquireLink && h.Command != smpp.CmdGenericNack {
			p.t.Errorf("%s came, the end was expected", h.Command)
		}
	}
}

func (p *peer) send(sequence uint32, status smpp.Status, pdu smpp.PDU) {
	p.t.Helper()
	frame, err := smpp.Append(nil, sequence, status, pdu)
	if err != nil {
		p.t.Fatal(err)
	}
	p.write(frame)
}

func (p *peer) write(octets []byte) {
	p.t.Helper()
	if _, err := p.conn.Write(octets); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) answer(sequence uint32, id string) {
	p.t.Helper()
	p.send(sequence, smpp.StatusOK, &smpp.MessageResp{Command: smpp.CmdSubmitSMResp, MessageID: id})
}

// boundESME is a session of ours that has bound to the peer.
func boundESME(t *testing.T, cfg smpp.SessionConfig) (*smpp.Session, *peer) {
	t.Helper()
	ours, theirs := net.Pipe()
	p := newPeer(t, theirs)
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		h, _ := p.expect(smpp.CmdBindTransceiver)
		p.send(h.Sequence, smpp.StatusOK, &smpp.BindResp{Type: smpp.Transceiver, SystemID: "SMSC"})
	}()
	s, err := smpp.BindOver(t.Context(), ours, smpp.ClientConfig{Address: "pipe", SystemID: "zvonok", Session: cfg})
	<-answered
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Kill(errors.New("end of test"))
		<-s.Done()
	})
	return s, p
}

// outcomes collects what becomes of requests.
type outcomes chan smpp.Outcome

func (c outcomes) done(o smpp.Outcome) { c <- o }

// submit sends a message that must be accepted.
func submit(t *testing.T, s *smpp.Session, token any, c outcomes) {
	t.Helper()
	if err := s.Submit(t.Context(), smpp.Request{PDU: text("79000000001"), Token: token, Done: c.done}); err != nil {
		t.Fatal(err)
	}
}

func text(to string) *smpp.Message {
	return &smpp.Message{
		Command:            smpp.CmdSubmitSM,
		Source:             smpp.Address{TON: 5, Addr: "Zvonok"},
		Destination:        smpp.Address{TON: 1, NPI: 1, Addr: to},
		RegisteredDelivery: 1,
		ShortMessage:       []byte("text"),
	}
}

// bubble runs a test in virtual time.
func bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, test)
}

// serverOf starts a server on a free port.
func serverOf(t *testing.T, cfg smpp.ServerConfig) (srv *smpp.Server, address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Authenticate == nil {
		cfg.Authenticate = func(context.Context, smpp.BindRequest) (smpp.Account, smpp.Status) {
			return smpp.Account{MaxBinds: 100}, smpp.StatusOK
		}
	}
	srv = smpp.NewServer(cfg)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // answers that are missing at the end of a test stay missing
		_ = srv.Shutdown(ctx)
		if err := <-served; !errors.Is(err, smpp.ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
	return srv, l.Addr().String()
}

// dialTCP opens a connection of which the test closes what is left.
func dialTCP(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// readAll reads until the other end closes, and says how long that took.
func readAll(conn net.Conn) (octets []byte, took time.Duration) {
	start := time.Now()
	octets, _ = io.ReadAll(conn) // a reset is an end as well
	return octets, time.Since(start)
}

// logBuffer is a log that can be read while it is written.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
