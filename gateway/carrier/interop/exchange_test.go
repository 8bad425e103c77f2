//go:build interop

package interop_test

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"zvonok/access/phone"
	"zvonok/gateway/carrier"
	"zvonok/gateway/smpp"
)

// The texts of the tests. The long one is Cyrillic with a character outside the basic plane, in several parts; the
// other one has characters of the GSM extension table.
const (
	longText = "Маша П. вошла в школу 14.05 в 08:15. Баланс 143,50 ₽. Это сообщение длиннее одной части: съешь же " +
		"ещё этих мягких французских булок да выпей чаю 🫖, и это уже третья часть."
	latinText = "Masha P. came in 08:15 [main] {3} ~ €143.50 ^|\\"
)

const enquireInterval = 300 * time.Millisecond

// box is an exchange with what its callbacks heard.
type box struct {
	*carrier.Exchange
	t *testing.T

	mu       sync.Mutex
	changed  chan struct{}
	results  map[int64]carrier.Result
	receipts []carrier.Receipt
	texts    []carrier.MO
	dials    []carrier.Dial
	ups      []bool
	next     int64
}

func newBox(t *testing.T, operators ...carrier.OperatorConfig) *box {
	t.Helper()
	b := &box{t: t, changed: make(chan struct{}), results: make(map[int64]carrier.Result)}
	x, err := carrier.New(carrier.Config{
		Operators: operators,
		Receipts: func(_ context.Context, r []carrier.Receipt) error {
			b.note(func() { b.receipts = append(b.receipts, r...) })
			return nil
		},
		Messages: func(_ context.Context, m []carrier.MO) error {
			b.note(func() { b.texts = append(b.texts, m...) })
			return nil
		},
		Dial:        func(d carrier.Dial) { b.note(func() { b.dials = append(b.dials, d) }) },
		LinkChanged: func(_ string, up bool) { b.note(func() { b.ups = append(b.ups, up) }) },
		Log:         slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	b.Exchange = x
	x.Start()
	t.Cleanup(b.stop)
	return b
}

// stop ends the exchange; a second time does nothing.
func (b *box) stop() {
	b.mu.Lock()
	x := b.Exchange
	b.Exchange = nil
	b.mu.Unlock()
	if x == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := x.Stop(ctx); err != nil {
		b.t.Errorf("stop: %v", err)
	}
}

func (b *box) note(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
	close(b.changed)
	b.changed = make(chan struct{})
}

// until waits for a condition on what the callbacks heard.
func (b *box) until(what string, condition func() bool) {
	b.t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	poll := time.NewTicker(20 * time.Millisecond) // for conditions no callback tells
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
			b.mu.Lock()
			defer b.mu.Unlock()
			b.t.Fatalf("waited in vain for %s; receipts %+v, texts %+v, dials %+v", what, b.receipts, b.texts, b.dials)
		}
	}
}

func (b *box) untilReady(operator string) {
	b.t.Helper()
	b.until(operator+" to be ready", func() bool { return b.Ready(operator) })
}

// send sends one text and returns its result.
func (b *box) send(operator string, to phone.Number, text string) carrier.Result {
	b.t.Helper()
	b.mu.Lock()
	b.next++
	id := b.next
	b.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	sms := carrier.SMS{ID: id, To: to, Text: text, Priority: carrier.Urgent, Deadline: time.Now().Add(time.Hour)}
	err := b.Send(ctx, operator, []carrier.SMS{sms}, func(r carrier.Result) { b.note(func() { b.results[r.ID] = r }) })
	if err != nil {
		b.t.Fatal(err)
	}
	b.until("the result", func() bool { _, ok := b.results[id]; return ok })
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.results[id]
}

// untilDelivered waits until a receipt of state DELIVRD has been matched with every part of a message.
func (b *box) untilDelivered(r carrier.Result) {
	b.t.Helper()
	for _, part := range r.Parts {
		b.until("the receipt of part "+part.MessageID, func() bool {
			return slices.ContainsFunc(b.receipts, func(got carrier.Receipt) bool {
				return got.Operator == r.Operator && got.State == carrier.StateDelivered && slices.Contains(got.Keys, part.Key)
			})
		})
	}
}

// textFrom waits for a text from a phone and returns it.
func (b *box) textFrom(from phone.Number) carrier.MO {
	b.t.Helper()
	var found carrier.MO
	b.until("a text from the phone", func() bool {
		i := slices.IndexFunc(b.texts, func(m carrier.MO) bool { return m.From == from })
		if i >= 0 {
			found = b.texts[i]
		}
		return i >= 0
	})
	return found
}

// dialFrom waits for a USSD event of a phone with an operation and returns it.
func (b *box) dialFrom(from phone.Number, op byte) carrier.Dial {
	b.t.Helper()
	var found carrier.Dial
	b.until("a dial from the phone", func() bool {
		i := slices.IndexFunc(b.dials, func(d carrier.Dial) bool { return d.Phone == from && d.Op == op })
		if i >= 0 {
			found = b.dials[i]
		}
		return i >= 0
	})
	return found
}

// answerDial shows a screen and waits for what the operator says to it.
func (b *box) answerDial(d carrier.Dial, op, coding byte, octets []byte) {
	b.t.Helper()
	r := d.Reply()
	r.Op, r.DataCoding, r.Octets = op, coding, octets
	if info, ok := d.TLVs.Get(smpp.TagITSSessionInfo); ok {
		r.TLVs = smpp.TLVs{{Tag: smpp.TagITSSessionInfo, Value: info}}
	}
	answered := make(chan carrier.Answered, 1)
	r.Done = func(a carrier.Answered) { answered <- a }
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := b.Answer(ctx, r); err != nil {
		b.t.Fatal(err)
	}
	select {
	case a := <-answered:
		if a.Err != nil || a.Status != smpp.StatusOK {
			b.t.Errorf("the screen was answered with %s, %v", a.Status, a.Err)
		}
	case <-ctx.Done():
		b.t.Fatal("the screen was not answered")
	}
}

// client is our account with an operator that listens on a port.
func client(name string, port int, method carrier.Method) carrier.OperatorConfig {
	return carrier.OperatorConfig{
		Name: name, Address: loopback(port), SystemID: "school", Password: "secret",
		Rate: 500, Roles: []carrier.Role{carrier.RoleSMS, carrier.RoleUSSD}, Source: "SCHOOL",
		Concatenation: method, EnquireInterval: enquireInterval, EnquireTimeout: 20 * time.Second,
	}
}

// serving is a box whose operator binds to our server, and the server.
func serving(t *testing.T) (b *box, server *smpp.Server, port int) {
	t.Helper()
	b = newBox(t, carrier.OperatorConfig{
		Name: "local", Mode: carrier.Server, SystemID: "gate", Password: "secret", Rate: 500, Binds: 2,
		Roles: []carrier.Role{carrier.RoleSMS, carrier.RoleUSSD}, Source: "SCHOOL",
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	settings := b.ServerConfig()
	settings.SystemID, settings.Log = "zvonok", slog.New(slog.NewTextHandler(t.Output(), nil))
	settings.Session.EnquireInterval, settings.Session.EnquireTimeout = enquireInterval, 20*time.Second
	server = smpp.NewServer(settings)
	served := make(chan struct{})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = server.Shutdown(ctx) // peers that have gone already do not matter
		listener.Close()
		<-served
	})
	go func() { defer close(served); _ = server.Serve(listener) }()
	return b, server, listener.Addr().(*net.TCPAddr).Port
}
