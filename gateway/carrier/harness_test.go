package carrier

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"math/big"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"zvonok/access/phone"
	"zvonok/gateway/smpp"
	"zvonok/gateway/smpp/smpptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of the tests; nothing that works comes near it, however busy the machine is.
const patience = time.Minute

// virtualTests are the tests that run in virtual time, by their *testing.T.
var virtualTests sync.Map

// virtually runs a test about time in a synctest bubble: time passes when everybody waits, so that it does not matter
// how busy the machine is. The operators of the test are reached through memory instead of sockets.
func virtually(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		virtualTests.Store(t, nil)
		defer virtualTests.Delete(t)
		test(t)
	})
}

// listen is where an operator of a test listens, and how it is reached.
func listen(t *testing.T) (listener net.Listener, address string, dial dialFunc) {
	t.Helper()
	if _, virtual := virtualTests.Load(t); virtual {
		loop := smpptest.NewLoop()
		return loop, "loop:1", loop.DialContext
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener, listener.Addr().String(), nil
}

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// box is an exchange under test with what its callbacks heard.
type box struct {
	*Exchange
	t *testing.T

	mu       sync.Mutex
	changed  chan struct{}
	results  []Result
	late     []Result
	receipts []Receipt
	texts    []MO
	alarms   []Alarm
	ups      []bool
	ported   []Ported
	parts    []TextPart // stored

	storeErr error // what Receipts, Messages and StoreParts return
}

// newBox starts an exchange with these operators and stops it at the end of the test.
func newBox(t *testing.T, cfg Config) *box {
	t.Helper()
	b := &box{t: t, changed: make(chan struct{})}
	note := func(f func()) {
		b.mu.Lock()
		defer b.mu.Unlock()
		f()
		close(b.changed)
		b.changed = make(chan struct{})
	}
	cfg.Receipts = func(_ context.Context, r []Receipt) (err error) {
		note(func() {
			if err = b.storeErr; err == nil {
				b.receipts = append(b.receipts, r...)
			}
		})
		return err
	}
	cfg.Messages = func(_ context.Context, m []MO) (err error) {
		note(func() {
			if err = b.storeErr; err == nil {
				for _, mo := range m {
					stored := len(b.parts)
					b.parts = slices.DeleteFunc(b.parts, func(p TextPart) bool { return p.TextKey == mo.Parts })
					if !mo.Claimed || len(b.parts) < stored {
						b.texts = append(b.texts, mo)
					}
				}
			}
		})
		return err
	}
	cfg.StoreParts = func(_ context.Context, parts []TextPart) (whole []TextPart, err error) {
		note(func() {
			if err = b.storeErr; err != nil {
				return
			}
			for _, p := range parts {
				same := func(q TextPart) bool { return q.TextKey == p.TextKey }
				if !slices.ContainsFunc(b.parts, func(q TextPart) bool { return same(q) && q.Number == p.Number }) {
					b.parts = append(b.parts, p)
				}
				text := slices.DeleteFunc(slices.Clone(b.parts), func(q TextPart) bool { return !same(q) })
				if len(text) == int(p.Count) && !slices.ContainsFunc(whole, same) {
					whole = append(whole, text...)
				}
			}
		})
		return whole, err
	}
	cfg.OverdueParts = func(_ context.Context, before time.Time) (overdue []TextPart, _ error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, p := range b.parts {
			if p.ReceivedAt.Before(before) {
				overdue = append(overdue, p)
			}
		}
		return overdue, nil
	}
	cfg.Late = func(r Result) { note(func() { b.late = append(b.late, r) }) }
	cfg.Alarm = func(a Alarm) { note(func() { b.alarms = append(b.alarms, a) }) }
	cfg.LinkChanged = func(_ string, up bool) { note(func() { b.ups = append(b.ups, up) }) }
	cfg.Ported = func(p Ported) { note(func() { b.ported = append(b.ported, p) }) }
	if testing.Verbose() {
		cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	x, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	b.Exchange = x
	x.Start()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = x.Stop(ctx) // tests that leave answers missing say so
	})
	return b
}

// note is the done of Send.
func (b *box) note(r Result) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.results = append(b.results, r)
	close(b.changed)
	b.changed = make(chan struct{})
}

// until waits for a condition on what the callbacks heard.
func (b *box) until(what string, condition func() bool) {
	b.t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	poll := time.NewTicker(5 * time.Millisecond) // for conditions on the other side
	defer poll.Stop()
	for {
		b.mu.Lock()
		met, changed := condition(), b.changed
		b.mu.Unlock()
		if met {
			return
		}
		select {
		case <-changed:
		case <-poll.C:
		case <-timer.C:
			b.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// send sends and waits for as many results; it returns them by id.
func (b *box) send(operator string, batch ...SMS) map[int64]Result {
	b.t.Helper()
	b.post(operator, batch...)
	return b.await(len(batch))
}

// post sends and waits for nothing.
func (b *box) post(operator string, batch ...SMS) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := b.Send(ctx, operator, batch, b.note); err != nil {
		b.t.Fatal(err)
	}
}

// await waits for n results in all and returns them by id. Two results for one message are a failure.
func (b *box) await(n int) map[int64]Result {
	b.t.Helper()
	b.until("results", func() bool { return len(b.results) >= n })
	b.mu.Lock()
	defer b.mu.Unlock()
	byID := make(map[int64]Result)
	for _, r := range b.results {
		if _, twice := byID[r.ID]; twice {
			b.t.Fatalf("message %d has two results", r.ID)
		}
		byID[r.ID] = r
	}
	return byID
}

func (b *box) untilReady(operator string) {
	b.t.Helper()
	b.until(operator+" to be ready", func() bool { return b.Ready(operator) })
}

func (b *box) heard(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
}

// newSMSC starts an operator in a box.
func newSMSC(t *testing.T, cfg smpptest.Config) *smpptest.SMSC {
	t.Helper()
	if cfg.SystemID == "" {
		cfg.SystemID, cfg.Password = "school", "secret"
	}
	smsc, err := smpptest.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = smsc.Close(ctx)
	})
	return smsc
}

func behaving(b smpptest.Behaviour) smpptest.Config {
	return smpptest.Config{OperatorConfig: smpptest.OperatorConfig{Behaviour: b}}
}

// account is a client operator's account with the SMSC at an address, fast enough for tests.
func account(address string) OperatorConfig {
	return OperatorConfig{
		Name: "mts", Address: address, SystemID: "school", Password: "secret",
		Rate: 5000, Window: 50, Roles: []Role{RoleSMS, RoleUSSD}, Source: "SCHOOL",
	}
}

// connected is a box with one client operator, bound to a new SMSC.
func connected(t *testing.T, b smpptest.Behaviour, change ...func(*OperatorConfig)) (*box, *smpptest.SMSC) {
	t.Helper()
	smsc, cfg := operatorOf(t, b)
	for _, f := range change {
		f(&cfg)
	}
	x := newBox(t, Config{Operators: []OperatorConfig{cfg}})
	x.untilReady("mts")
	return x, smsc
}

// operatorOf is a new SMSC and the account with it.
func operatorOf(t *testing.T, b smpptest.Behaviour) (*smpptest.SMSC, OperatorConfig) {
	t.Helper()
	listener, address, dial := listen(t)
	settings := behaving(b)
	settings.Listener = listener
	cfg := account(address)
	cfg.Dial = dial
	return newSMSC(t, settings), cfg
}

// scripted is an SMSC that answers each message as a function says; it keeps what it was sent.
type scripted struct {
	server  *smpp.Server
	address string
	dial    dialFunc

	mu  sync.Mutex
	got []*smpp.Message
}

// silentAnswer as a status means no answer.
const silentAnswer = smpp.Status(0xFFFFFFFF)

// script starts an SMSC whose n-th message, counted from 1, gets the status that answer returns.
func script(t *testing.T, answer func(n int, m *smpp.Message) smpp.Status) *scripted {
	t.Helper()
	listener, address, dial := listen(t)
	s := &scripted{address: address, dial: dial}
	s.server = smpp.NewServer(smpp.ServerConfig{
		Authenticate: func(context.Context, smpp.BindRequest) (smpp.Account, smpp.Status) {
			return smpp.Account{Roles: smpp.RoleUSSD, MaxBinds: 100}, smpp.StatusOK
		},
		Session: smpp.SessionConfig{Handle: func(in *smpp.Inbound) {
			m, ok := in.PDU.(*smpp.Message)
			if !ok {
				_ = in.Answer(smpp.StatusInvalidCommandID, "")
				return
			}
			s.mu.Lock()
			s.got = append(s.got, m)
			n := len(s.got)
			s.mu.Unlock()
			if status := answer(n, m); status != silentAnswer {
				_ = in.Answer(status, "id"+string(m.Destination.Addr)+"-"+string(rune('a'+n%26)))
			}
		}},
		Log: slog.New(slog.DiscardHandler),
	})
	served := make(chan struct{})
	go func() { defer close(served); _ = s.server.Serve(listener) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = s.server.Shutdown(ctx)
		<-served
	})
	return s
}

func (s *scripted) messages() []*smpp.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got)
}

// against is a box with one client operator, bound to a scripted SMSC.
func (s *scripted) against(t *testing.T, change ...func(*OperatorConfig)) *box {
	t.Helper()
	cfg := account(s.address)
	cfg.Dial = s.dial
	for _, f := range change {
		f(&cfg)
	}
	x := newBox(t, Config{Operators: []OperatorConfig{cfg}})
	x.untilReady("mts")
	return x
}

// batch makes n messages for different phones.
func batch(n int) []SMS {
	all := make([]SMS, n)
	for i := range all {
		all[i] = SMS{ID: int64(i + 1), To: number(i), Text: "Entry 08:15", Priority: Urgent}
	}
	return all
}

func sms(id int64, to phone.Number, text string) SMS {
	return SMS{ID: id, To: to, Text: text, Priority: Urgent}
}

// netConn spares the test files that only pass connections on an import.
type netConn = net.Conn

// selfSigned makes a certificate for an address and the pool that trusts it.
func selfSigned(t *testing.T, address string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.ParseIP(address)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}
