package email

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"pgregory.net/rapid"
)

func TestAReturnPathIsRecognisedAndNothingElseIs(t *testing.T) {
	t.Parallel()
	key, old, foreign := []byte("0123456789abcdef"), []byte("fedcba9876543210"), []byte("ffffffffffffffff")
	path := func(keys ...[]byte) *ReturnPath {
		p, err := NewReturnPath("Bounce@example.org", keys...)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	now, before, other := path(key, old), path(old), path(foreign)
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.Int64().Draw(t, "id")
		address := now.For(id)
		if len(address[:strings.IndexByte(address, '@')]) > 64 {
			t.Fatalf("the local part of %s is too long (RFC 5321 section 4.5.3.1.1)", address)
		}
		for _, written := range []string{address, strings.ToUpper(address), before.For(id)} {
			if got, ok := now.Match(written); !ok || got != id {
				t.Fatalf("%s is letter %d, %v", written, got, ok)
			}
		}
		if _, ok := now.Match(other.For(id)); ok {
			t.Fatal("a foreign signature is taken")
		}
		if _, ok := before.Match(address); ok {
			t.Fatal("a newer key is known to the older path")
		}
		// one letter changed anywhere in the token
		at := rapid.IntRange(len("bounce+"), strings.IndexByte(address, '@')-1).Draw(t, "at")
		forged := []byte(address)
		forged[at] = rapid.SampledFrom([]byte("0123456789abcdefghijklmnopqrstuv")).Draw(t, "letter")
		if got, ok := now.Match(string(forged)); ok && got != id {
			t.Fatalf("%s passes as letter %d", forged, got)
		}
	})
	for _, address := range []string{
		"", "bounce@example.org", "bounce+@example.org", "bounce+x@example.org",
		"bounce+" + strings.Repeat("0", 29) + "@example.org",
		strings.Replace(now.For(1), "example.org", "example.com", 1), strings.Replace(now.For(1), "bounce", "other", 1),
		strings.Replace(now.For(1), "@", "00@", 1),
	} {
		if _, ok := now.Match(address); ok {
			t.Errorf("%s is taken", address)
		}
	}
}

func TestAReturnPathNeedsAnAddressAndAKey(t *testing.T) {
	t.Parallel()
	good := []byte("0123456789abcdef")
	for _, tt := range []struct {
		name, address string
		keys          [][]byte
	}{
		{"no address", "bounce", [][]byte{good}},
		{"no key", "bounce@example.org", nil},
		{"a short key", "bounce@example.org", [][]byte{[]byte("short")}},
		{"a plus", "a+b@example.org", [][]byte{good}},
		{"a long local part", strings.Repeat("b", 33) + "@example.org", [][]byte{good}},
	} {
		if _, err := NewReturnPath(tt.address, tt.keys...); err == nil {
			t.Errorf("%s is taken", tt.name)
		}
	}
}

// postfix is a notification as Postfix writes it.
const postfix = "From: MAILER-DAEMON@mail.example.net (Mail Delivery System)\r\n" +
	"To: bounce@example.org\r\nSubject: Undelivered Mail Returned to Sender\r\n" +
	"MIME-Version: 1.0\r\nContent-Type: multipart/report; report-type=delivery-status;\r\n boundary=\"B1\"\r\n\r\n" +
	"--B1\r\nContent-Description: Notification\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n" +
	"<masha.parent@mail.example.net>: user unknown\r\n\r\n" +
	"--B1\r\nContent-Description: Delivery report\r\nContent-Type: message/delivery-status\r\n\r\n" +
	"Reporting-MTA: dns; mail.example.net\r\nArrival-Date: Thu, 14 May 2026 19:00:05 +0300 (MSK)\r\n\r\n" +
	"Final-Recipient: rfc822; masha.parent@mail.example.net\r\nAction: ACTION\r\nStatus: STATUS\r\n" +
	"Diagnostic-Code: smtp; 550 5.1.1 User unknown\r\n\r\n" +
	"--B1\r\nContent-Type: message/rfc822\r\n\r\nFrom: pass@example.org\r\nSubject: x\r\n\r\nx\r\n--B1--\r\n"

func notification(action, status string) string {
	return strings.NewReplacer("ACTION", action, "STATUS", status).Replace(postfix)
}

// taker is an Intake and what it was brought.
type taker struct {
	addr    string
	intake  *Intake
	path    *ReturnPath
	metrics *Metrics

	mu      sync.Mutex
	bounces []Bounce
	refuse  error
}

func startIntake(t *testing.T) *taker {
	t.Helper()
	path, err := NewReturnPath("bounce@example.org", []byte("0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	k := &taker{path: path, metrics: NewMetrics(prometheus.NewPedanticRegistry())}
	k.intake = NewIntake(IntakeConfig{
		ReturnPath: path, Hello: "mx.example.org",
		OnBounce: func(_ context.Context, b Bounce) error {
			k.mu.Lock()
			defer k.mu.Unlock()
			if k.refuse != nil {
				return k.refuse
			}
			k.bounces = append(k.bounces, b)
			return nil
		},
		Log: slog.New(slog.DiscardHandler), Metrics: k.metrics, Now: func() time.Time { return thursday },
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k.addr = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- k.intake.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := k.intake.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return k
}

// bring brings a notification, as another mail server does.
func (k *taker) bring(t *testing.T, to, body string) error {
	t.Helper()
	c, err := smtp.Dial(k.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.SendMail("", []string{to}, strings.NewReader(body))
}

// Fault row 30: matched by the signed return path only; W = 0.
func TestABounceIsTakenFromTheSignedReturnPathOnly(t *testing.T) {
	t.Parallel()
	k := startIntake(t)
	if err := k.bring(t, k.path.For(42), notification("failed", "5.1.1")); err != nil {
		t.Fatal(err)
	}
	stranger, err := NewReturnPath("bounce@example.org", []byte("another key 0123"))
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{
		stranger.For(42), "bounce+x@example.org", "bounce@example.org", "pass@example.org", "masha@mail.example.net",
	} {
		reply, ok := errors.AsType[*smtp.SMTPError](k.bring(t, to, notification("failed", "5.1.1")))
		if !ok || reply.Code != 550 {
			t.Errorf("%s: %v", to, reply)
		}
	}
	want := Bounce{ID: 42, Class: Address, Enhanced: [3]int{5, 1, 1}, At: thursday}
	if len(k.bounces) != 1 || k.bounces[0] != want {
		t.Errorf("%+v", k.bounces)
	}
	for result, n := range map[string]float64{bounceFailed: 1, bounceForged: 2, bounceStray: 3} {
		if got := testutil.ToFloat64(k.metrics.bounces.WithLabelValues(result)); got != n {
			t.Errorf("%v are counted as %s, want %v", got, result, n)
		}
	}
}

func TestWhatANotificationMeans(t *testing.T) {
	t.Parallel()
	quoted := strings.Replace(notification("failed", "5.7.1"), "message/delivery-status\r\n",
		"message/delivery-status\r\nContent-Transfer-Encoding: quoted-printable\r\n", 1)
	two := strings.Replace(notification("failed", "5.1.1"), "Final-Recipient",
		"Final-Recipient: rfc822; x@example.net\r\nAction: delivered\r\nStatus: 2.0.0\r\n\r\nFinal-Recipient", 1)
	for _, tt := range []struct {
		name, body string
		class      Class // "": nothing is stored
		result     string
	}{
		{"the mailbox does not exist", notification("failed", "5.1.1"), Address, bounceFailed},
		{"its domain does not exist", notification("failed", "5.1.2"), Address, bounceFailed},
		{"null MX", notification("failed", "5.1.10"), Address, bounceFailed},
		{"disabled", notification("failed", "5.2.1 (mailbox disabled)"), Address, bounceFailed},
		{"full", notification("failed", "5.2.2"), Refused, bounceFailed},
		{"our reputation", notification("Failed", "5.7.1"), Reputation, bounceFailed},
		{"given up after days", notification("failed", "4.4.7"), Refused, bounceFailed},
		{"no status", notification("failed", "unknown"), Refused, bounceFailed},
		{"still trying", notification("delayed", "4.4.1"), "", bounceDelayed},
		{"delivered", notification("delivered", "2.0.0"), "", bounceOther},
		{"encoded", quoted, Reputation, bounceFailed},
		{"of two recipients the one that failed", two, Address, bounceFailed},
		{
			"an international notification", strings.Replace(notification("failed", "5.1.1"),
				"message/delivery-status", "message/global-delivery-status", 1), Address, bounceFailed,
		},
		{
			"a holiday reply", "From: masha@example.net\r\nSubject: Away\r\nAuto-Submitted: auto-replied\r\n\r\nI am away\r\n",
			"", bounceUnreadable,
		},
		{
			"a report of another kind", strings.Replace(postfix, "report-type=delivery-status", "report-type=feedback-report", 1),
			"", bounceUnreadable,
		},
		{
			"a report without its status", strings.Replace(postfix, "message/delivery-status", "text/plain", 1),
			"", bounceUnreadable,
		},
		{"a status without an action", notification("", "5.1.1"), "", bounceUnreadable},
		{"a report cut off", postfix[:600], "", bounceUnreadable},
		{"nothing", "", "", bounceUnreadable},
		{"garbage", "\x00\x01\xff\r\n\r\n\r\n", "", bounceUnreadable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			k := startIntake(t)
			if err := k.bring(t, k.path.For(-7), tt.body); err != nil {
				t.Fatal(err)
			}
			if got := testutil.ToFloat64(k.metrics.bounces.WithLabelValues(tt.result)); got != 1 {
				t.Errorf("it is not counted as %s", tt.result)
			}
			if tt.class == "" {
				if len(k.bounces) != 0 {
					t.Errorf("%+v", k.bounces)
				}
				return
			}
			if len(k.bounces) != 1 || k.bounces[0].ID != -7 || k.bounces[0].Class != tt.class {
				t.Errorf("%+v", k.bounces)
			}
		})
	}
}

func TestABounceThatCannotBeStoredComesAgain(t *testing.T) {
	t.Parallel()
	k := startIntake(t)
	k.refuse = errors.New("the database is away")
	reply, ok := errors.AsType[*smtp.SMTPError](k.bring(t, k.path.For(42), notification("failed", "5.1.1")))
	if !ok || reply.Code != 451 {
		t.Fatalf("%v", reply)
	}
	k.refuse = nil
	if err := k.bring(t, k.path.For(42), notification("failed", "5.1.1")); err != nil || len(k.bounces) != 1 {
		t.Errorf("%v, %+v", err, k.bounces)
	}
}

func TestAnEndlessNotificationIsRefused(t *testing.T) {
	t.Parallel()
	k := startIntake(t)
	body := strings.Replace(notification("failed", "5.1.1"), "\r\nx\r\n--B1--",
		"\r\n"+strings.Repeat("x\r\n", maxBounce/3)+"--B1--", 1)
	reply, ok := errors.AsType[*smtp.SMTPError](k.bring(t, k.path.For(42), body))
	if !ok || reply.Code != 552 || len(k.bounces) != 0 {
		t.Errorf("%v, %+v", reply, k.bounces)
	}
}

func TestOnlySoManyPeersAreServedAtOnce(t *testing.T) {
	t.Parallel()
	k := startIntake(t)
	var idlers []net.Conn
	for range maxBouncePeers {
		c, err := net.Dial("tcp", k.addr)
		if err != nil {
			t.Fatal(err)
		}
		idlers = append(idlers, c)
		if _, err := c.Read(make([]byte, 1)); err != nil { // the greeting has begun
			t.Fatal(err)
		}
	}
	done := make(chan error, 1)
	go func() { done <- k.bring(t, k.path.For(42), notification("failed", "5.1.1")) }()
	select {
	case err := <-done:
		t.Errorf("one more was served: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	idlers[0].Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	for _, c := range idlers {
		c.Close()
	}
}

func TestShutdownEndsPeersThatStay(t *testing.T) {
	t.Parallel()
	k := startIntake(t)
	c, err := net.Dial("tcp", k.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if err := k.intake.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 512)
	for err == nil {
		_, err = c.Read(buffer)
	}
	if wrong, ok := errors.AsType[net.Error](err); ok && wrong.Timeout() {
		t.Error("the connection is still open")
	}
}

func FuzzReadStatus(f *testing.F) {
	f.Add([]byte(notification("failed", "5.1.1")))
	f.Add([]byte(notification("delayed", "4.0.0")))
	f.Add([]byte("Content-Type: multipart/report; report-type=delivery-status\r\n\r\n"))
	f.Add([]byte("Content-Type: multipart/report; report-type=delivery-status; boundary=x\r\n\r\n" +
		"--x\r\nContent-Type: message/delivery-status\r\n\r\nAction"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := readStatus(bytes.NewReader(data))
		if err != nil {
			if s != (status{}) {
				t.Fatalf("%+v with %v", s, err)
			}
			return
		}
		if s.action == "" || s.class() == "" {
			t.Fatalf("%+v", s)
		}
	})
}

func FuzzMatch(f *testing.F) {
	path, err := NewReturnPath("bounce@example.org", []byte("0123456789abcdef"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(path.For(42))
	f.Add("bounce+@example.org")
	f.Fuzz(func(t *testing.T, address string) {
		if id, ok := path.Match(address); ok && !strings.EqualFold(path.For(id), address) {
			t.Fatalf("%s passes as letter %d", address, id)
		}
	})
}
