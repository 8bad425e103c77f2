package email

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"zvonok/gateway/email/emailtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is a time that tests move by hand.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// room is a Sender and the relay it talks to.
type room struct {
	relay   *emailtest.Server
	sender  *Sender
	clock   *clock
	metrics *Metrics
	log     *bytes.Buffer
}

// bench starts a relay and a Sender.
func bench(t *testing.T, change func(*Config), options ...emailtest.Option) *room {
	t.Helper()
	relay, err := emailtest.Listen("127.0.0.1:0", options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { relay.Close() })
	r := &room{
		relay: relay, clock: &clock{now: time.Date(2026, time.May, 14, 19, 0, 0, 0, time.UTC)}, log: new(bytes.Buffer),
		metrics: NewMetrics(prometheus.NewPedanticRegistry()),
	}
	path, err := NewReturnPath("bounce@example.org", []byte("0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	config := Config{
		Relay: relay.Addr(), Security: Plain, From: "Школа <pass@example.org>", ReturnPath: path,
		Log: slog.New(slog.NewTextHandler(&lockedWriter{w: r.log}, nil)), Metrics: r.metrics, Now: r.clock.Now,
	}
	if change != nil {
		change(&config)
	}
	r.sender, err = NewSender(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.sender.Close)
	return r
}

// hurry makes a Sender give up soon.
func (r *room) hurry() {
	const soon = 2 * time.Second // what does answer must have the time for it
	r.sender.times = times{dial: soon, command: soon, write: soon, final: soon, letter: 10 * soon}
}

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

func (r *room) send(t *testing.T, l Letter) *Error {
	t.Helper()
	err := r.sender.Send(t.Context(), l)
	if err == nil {
		return nil
	}
	wrong, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("%T is no *Error", err)
	}
	return wrong
}

func letter(to string) Letter {
	return Letter{
		ID: 42, To: to, Subject: "Сводка за 14 мая: Маша", Text: "Маша П.\nБаланс: 73,50 ₽\n",
		HTML:        "<p>Маша П.</p>\n.\n<p>Баланс: 73,50&nbsp;₽</p>",
		MessageID:   "day.17.2026-05-14@example.org",
		References:  []string{"child.17@example.org"},
		Unsubscribe: "https://zvonok.example.org/u/abc?x=1&y=2",
	}
}

const parent = "masha.parent@mail.example.net"

func TestALetterArrivesAsItWasWritten(t *testing.T) {
	t.Parallel()
	r := bench(t, nil)
	l := letter(parent)
	if wrong := r.send(t, l); wrong != nil {
		t.Fatal(wrong)
	}
	got := r.relay.Letters()
	if len(got) != 1 || got[0].From != r.sender.config.ReturnPath.For(42) || !slices.Equal(got[0].To, []string{parent}) {
		t.Fatalf("%+v", got)
	}
	c, err := got[0].Content()
	if err != nil {
		t.Fatal(err)
	}
	if c.Subject != l.Subject || c.Text != "Маша П.\r\nБаланс: 73,50 ₽\r\n" || c.From != "Школа <pass@example.org>" ||
		c.HTML != strings.ReplaceAll(l.HTML, "\n", "\r\n")+"\r\n" {
		t.Errorf("%+v", c)
	}
	for _, tt := range []struct{ field, want string }{
		{"To", "<" + parent + ">"},
		{"Message-Id", "<day.17.2026-05-14@example.org>"},
		{"References", "<child.17@example.org>"},
		{"Auto-Submitted", "auto-generated"},
		{"List-Unsubscribe", "<https://zvonok.example.org/u/abc?x=1&y=2>"},
		{"List-Unsubscribe-Post", "List-Unsubscribe=One-Click"},
		{"Date", "Thu, 14 May 2026 19:00:00 +0000"},
		{"Mime-Version", "1.0"},
	} {
		if got := c.Header.Get(tt.field); got != tt.want {
			t.Errorf("%s is %q, want %q", tt.field, got, tt.want)
		}
	}
	assertWire(t, got[0].Data)
}

// assertWire checks what RFC 5321 and 5322 ask of the octets of a letter.
func assertWire(t interface {
	Helper()
	Errorf(string, ...any)
}, data []byte,
) {
	t.Helper()
	for i, line := range bytes.SplitAfter(data, []byte("\n")) {
		if len(line) > 0 && !bytes.HasSuffix(line, []byte("\r\n")) || len(line) > 1000 || bytes.Count(line, []byte("\r")) > 1 {
			t.Errorf("line %d is %q", i+1, line)
		}
		for _, b := range line {
			if b > 0x7E || b < ' ' && b != '\r' && b != '\n' && b != '\t' {
				t.Errorf("line %d has the octet %#x", i+1, b)
			}
		}
	}
}

func TestALetterWithoutHTMLIsOnePart(t *testing.T) {
	t.Parallel()
	r := bench(t, nil)
	l := letter(parent)
	l.HTML, l.Unsubscribe, l.References = "", "http://localhost:8080/u/abc", nil
	if wrong := r.send(t, l); wrong != nil {
		t.Fatal(wrong)
	}
	c, err := r.relay.Letters()[0].Content()
	if err != nil || c.HTML != "" || c.Text != "Маша П.\r\nБаланс: 73,50 ₽\r\n" {
		t.Errorf("%+v, %v", c, err)
	}
	kind, _, _ := c.Header.ContentType()
	if kind != "text/plain" || c.Header.Has("References") {
		t.Errorf("%s, references %v", kind, c.Header.Get("References"))
	}
	if !c.Header.Has("List-Unsubscribe") || c.Header.Has("List-Unsubscribe-Post") {
		t.Error("one click without https (RFC 8058 section 3.1)")
	}
}

// notices.md: one envelope per recipient, connections reused.
func TestLettersGoOneAfterAnotherOverOneConnection(t *testing.T) {
	t.Parallel()
	r := bench(t, nil)
	for range lettersPerConnection + 5 {
		if wrong := r.send(t, letter(parent)); wrong != nil {
			t.Fatal(wrong)
		}
	}
	sessions := r.relay.Sessions()
	if len(sessions) != 2 || sessions[0].Letters != lettersPerConnection || sessions[1].Letters != 5 {
		t.Fatalf("%d connections", len(sessions))
	}
	if last := sessions[0].Commands[len(sessions[0].Commands)-1]; last != "QUIT" {
		t.Errorf("the first connection ended with %s", last)
	}
	if n := testutil.ToFloat64(r.metrics.connections); n != 1 {
		t.Errorf("%v connections are counted as open", n)
	}
	r.sender.Close()
	if n := testutil.ToFloat64(r.metrics.connections); n != 0 {
		t.Errorf("%v connections are counted as open after Close", n)
	}
}

func TestARefusedRecipientDoesNotCostTheConnection(t *testing.T) {
	t.Parallel()
	r := bench(t, nil)
	r.relay.Behave(emailtest.For("bad@mail.example.net", emailtest.Refuse("RCPT", "550 5.1.1 No such user")))
	for _, to := range []string{parent, "bad@mail.example.net", parent, "bad@mail.example.net", parent} {
		r.send(t, letter(to))
	}
	if sessions := r.relay.Sessions(); len(sessions) != 1 || sessions[0].Letters != 3 {
		t.Errorf("%+v", sessions)
	}
}

func TestAnIdleConnectionTheRelayClosedIsNoFailure(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		end  emailtest.Behaviour
	}{
		{"closed without a word", emailtest.Times(1, emailtest.HangUp("MAIL"))},
		{"closed with 421", emailtest.Times(1, emailtest.Refuse("MAIL", "421 4.4.2 Idle too long"))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := bench(t, nil)
			if wrong := r.send(t, letter(parent)); wrong != nil {
				t.Fatal(wrong)
			}
			r.relay.Behave(tt.end)
			if wrong := r.send(t, letter(parent)); wrong != nil {
				t.Fatal(wrong)
			}
			if len(r.relay.Letters()) != 2 || len(r.relay.Sessions()) != 2 {
				t.Errorf("%d letters over %d connections", len(r.relay.Letters()), len(r.relay.Sessions()))
			}
		})
	}
}

// Fault row 29 and pain 25: every kind of refusal, at every command. Wrongly
// suppressed = 0: only the four codes of the mailbox give the class Address.
func TestARefusalIsClassified(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		verb, reply string
		class       Class
		retry       time.Duration
	}{
		{"RCPT", "550 5.1.1 No such user", Address, 0},
		{"RCPT", "550 5.1.2 No such domain", Address, 0},
		{"RCPT", "556 5.1.10 Null MX", Address, 0},
		{"RCPT", "550 5.2.1 Mailbox disabled", Address, 0},
		{"END", "550 5.1.1 No such user", Address, 0},

		{"RCPT", "550 No such user", Refused, 0},
		{"RCPT", "550-No\r\n550 such user", Refused, 0},
		{"RCPT", "552 5.2.2 Mailbox full", Refused, 0},
		{"RCPT", "550 5.4.1 Recipient denied", Refused, 0},
		{"RCPT", "553 5.1.3 Bad address", Refused, 0},
		{"RCPT", "551 5.1.6 Moved", Refused, 0},
		{"END", "554 5.6.0 Malformed", Refused, 0},
		{"END", "552 5.3.4 Too big", Refused, 0},
		{"MAIL", "552 5.3.4 Too big", Refused, 0},
		{"MAIL", "552 Too big", Refused, 0},

		{"RCPT", "550 5.7.1 Blocked, see our page", Reputation, reputationPause},
		{"RCPT", "550 5.7.26 No DKIM", Reputation, reputationPause},
		{"END", "554 5.7.1 Spam", Reputation, reputationPause},
		{"MAIL", "550 5.7.1 Your address is on a list", Reputation, reputationPause},
		{"DATA", "550 5.7.0 Policy", Reputation, reputationPause},

		{"RCPT", "450 4.2.0 Try later", Temporary, mailboxFullWait},
		{"RCPT", "452 4.2.2 Mailbox full", Temporary, mailboxFullWait},
		{"RCPT", "451 4.7.1 Greylisted", Temporary, greylistWait},
		{"RCPT", "450 4.7.1 Please try again in 7 minutes", Temporary, 7 * time.Minute},
		{"RCPT", "450 4.7.1 retry after 600 seconds", Temporary, 10 * time.Minute},
		{"RCPT", "450 4.7.1 retry in 5 s", Temporary, time.Minute},
		{"RCPT", "450 4.7.1 retry in 99999 minutes", Temporary, longestHint},
		{"MAIL", "452 4.3.1 Out of space", Temporary, greylistWait},
		{"DATA", "451 Local error", Temporary, greylistWait},
		{"END", "451 4.3.0 Scanner down", Temporary, greylistWait},

		{"MAIL", "553 5.1.8 Sender address unknown", Misconfigured, configBackoff},
		{"MAIL", "501 5.1.7 Bad sender", Misconfigured, configBackoff},
		{"MAIL", "530 5.7.0 Log in first", Misconfigured, configBackoff},
		{"RCPT", "554 5.7.8 Log in first", Misconfigured, configBackoff},
		{"CONNECT", "554 5.7.1 You are not welcome", Misconfigured, configBackoff},
		{"EHLO", "550 5.7.1 Bad name", Misconfigured, configBackoff},

		{"CONNECT", "421 4.3.2 Going down", HostDown, 0},
		{"CONNECT", "450 Busy", HostDown, 0},
		{"EHLO", "421 Too many connections", HostDown, 0},
		{"MAIL", "421 Too many letters", HostDown, 0},
		{"RCPT", "421 4.7.0 Too many recipients", HostDown, 0},
		{"DATA", "421 Going down", HostDown, 0},
		{"END", "421 4.3.0 Not queued", HostDown, 0},
	} {
		t.Run(tt.verb+" "+tt.reply, func(t *testing.T) {
			t.Parallel()
			r := bench(t, nil)
			r.relay.Behave(emailtest.Refuse(tt.verb, tt.reply))
			wrong := r.send(t, letter(parent))
			if wrong == nil || wrong.Class != tt.class || wrong.Code == 0 || len(r.relay.Letters()) != 0 {
				t.Fatalf("%v", wrong)
			}
			retry := wrong.RetryAfter
			if tt.class == HostDown { // the pause of the relay, with its jitter
				if retry < firstHostBackoff || retry > firstHostBackoff*5/4+1 {
					t.Errorf("retry after %v", retry)
				}
			} else if retry != tt.retry {
				t.Errorf("retry after %v, want %v", retry, tt.retry)
			}
			if wrong.Temporary() != (tt.class != Address && tt.class != Refused) {
				t.Errorf("temporary is %v", wrong.Temporary())
			}
			if n := testutil.ToFloat64(r.metrics.letters.WithLabelValues(string(tt.class))); n != 1 {
				t.Errorf("%s is counted %v times", tt.class, n)
			}
		})
	}
}

// A reply often repeats the address; so it stays out of what is logged.
func TestNeitherErrorNorLogHoldsTheAddress(t *testing.T) {
	t.Parallel()
	for _, reply := range []string{
		"550 5.1.1 <" + parent + ">: unknown", "550 5.7.1 <" + parent + "> refuses",
		"421 4.0.0 " + parent, "553 5.1.8 " + parent,
	} {
		r := bench(t, nil)
		r.relay.Behave(emailtest.Refuse("RCPT", reply), emailtest.Refuse("MAIL", "553 5.1.8 "+parent))
		wrong := r.send(t, letter(parent))
		if strings.Contains(wrong.Error()+r.log.String(), "masha") || !strings.Contains(wrong.Reply, "masha") {
			t.Errorf("%v\n%s", wrong, r.log)
		}
	}
}

// Fault row 29: 4xx is tried again; the envelope stays the same, or every
// attempt would be a new one to the greylist.
func TestAGreylistedLetterPassesAtTheNextAttempt(t *testing.T) {
	t.Parallel()
	r := bench(t, nil)
	r.relay.Behave(emailtest.Greylist())
	first := r.send(t, letter(parent))
	if first == nil || first.Class != Temporary || first.RetryAfter != 5*time.Minute {
		t.Fatalf("%v", first)
	}
	if wrong := r.send(t, letter(parent)); wrong != nil {
		t.Fatal(wrong)
	}
	if n := len(r.relay.Letters()); n != 1 {
		t.Errorf("%d letters", n)
	}
}

// Fault row 29: 421 closes and backs off the host.
func TestARelayThatGoesDownIsLeftInPeaceForAWhile(t *testing.T) {
	t.Parallel()
	r := bench(t, nil)
	r.relay.Behave(emailtest.Refuse("CONNECT", "421 4.3.2 Going down"))
	pause := time.Duration(0)
	for attempt := range 12 {
		wrong := r.send(t, letter(parent))
		if wrong == nil || wrong.Class != HostDown || wrong.Phase != Greeting {
			t.Fatalf("attempt %d: %v", attempt, wrong)
		}
		if wrong.RetryAfter < pause || wrong.RetryAfter > longestHostBackoff*5/4 {
			t.Fatalf("attempt %d: the pause went from %v to %v", attempt, pause, wrong.RetryAfter)
		}
		pause = min(wrong.RetryAfter, longestHostBackoff*3/4)
		again := r.send(t, letter(parent))
		if again == nil || again.Phase != Waiting || again.Class != HostDown || again.RetryAfter > wrong.RetryAfter {
			t.Fatalf("in the pause: %v", again)
		}
		if n := len(r.relay.Sessions()); n != attempt+1 {
			t.Fatalf("%d connections after %d attempts", n, attempt+1)
		}
		r.clock.advance(wrong.RetryAfter)
	}
	if up := testutil.ToFloat64(r.metrics.relay); up != 0 {
		t.Errorf("the relay counts as up: %v", up)
	}
	r.relay.Behave()
	if wrong := r.send(t, letter(parent)); wrong != nil {
		t.Fatal(wrong)
	}
	if wrong := r.send(t, letter(parent)); wrong != nil {
		t.Fatal(wrong)
	}
	if up := testutil.ToFloat64(r.metrics.relay); up != 1 {
		t.Errorf("the relay counts as down: %v", up)
	}
	if n := strings.Count(r.log.String(), "mail relay cannot be used"); n != 1 {
		t.Errorf("its failure is logged %d times", n)
	}
	if n := strings.Count(r.log.String(), "mail relay works again"); n != 1 {
		t.Errorf("its return is logged %d times", n)
	}
}

func TestFailuresThatComeTogetherAreOne(t *testing.T) {
	t.Parallel()
	r := bench(t, nil)
	var gathered sync.WaitGroup
	gathered.Add(8)
	r.relay.Behave(func(s emailtest.Step) *emailtest.Answer {
		if s.Verb != "EHLO" {
			return nil
		}
		gathered.Done()
		gathered.Wait()
		return &emailtest.Answer{Close: true}
	})
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			r.send(t, letter(string(rune('a'+i))+"@mail"+string(rune('a'+i))+".example.net"))
		})
	}
	all.Wait()
	if f := r.sender.relay.failures; f != 1 {
		t.Errorf("%d failures are counted", f)
	}
}

// Fault row 29: 5.7.x is our reputation at that destination; nobody else's.
func TestADestinationThatRefusesUsIsPausedAlone(t *testing.T) {
	t.Parallel()
	r := bench(t, nil)
	r.relay.Behave(emailtest.For("@hostile.example.net", emailtest.Refuse("RCPT", "550 5.7.1 Blocked")))
	if wrong := r.send(t, letter("a@hostile.example.net")); wrong == nil || wrong.Class != Reputation || wrong.Phase != Rcpt {
		t.Fatalf("%v", wrong)
	}
	r.relay.Behave()
	r.clock.advance(20 * time.Minute)
	wrong := r.send(t, letter("B@Hostile.Example.NET"))
	if wrong == nil || wrong.Class != Reputation || wrong.Phase != Waiting || wrong.RetryAfter != 40*time.Minute {
		t.Fatalf("%v", wrong)
	}
	if wrong := r.send(t, letter(parent)); wrong != nil {
		t.Fatalf("another destination: %v", wrong)
	}
	if n := testutil.ToFloat64(r.metrics.pausedCount); n != 1 {
		t.Errorf("%v destinations count as paused", n)
	}
	r.clock.advance(41 * time.Minute)
	if wrong := r.send(t, letter("a@hostile.example.net")); wrong != nil {
		t.Fatalf("after the pause: %v", wrong)
	}
	if n := testutil.ToFloat64(r.metrics.pausedCount); n != 0 {
		t.Errorf("%v destinations count as paused", n)
	}
	if n := len(r.sender.destinations); n != 0 {
		t.Errorf("%d destinations are remembered", n)
	}
}

// notices.md: at most N per destination at once.
func TestOneDestinationNeverTakesAllConnections(t *testing.T) {
	t.Parallel()
	r := bench(t, func(c *Config) { c.PerDestination, c.Connections = 2, 6 })
	arrived, release := make(chan string, 10), make(chan struct{})
	r.relay.Behave(func(s emailtest.Step) *emailtest.Answer {
		if s.Verb == "END" {
			arrived <- s.To[0]
			<-release
		}
		return nil
	})
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() { r.send(t, letter("a@busy.example.net")) })
	}
	if a, b := <-arrived, <-arrived; a != b {
		t.Fatal(a, b)
	}
	all.Go(func() { r.send(t, letter("b@quiet.example.net")) })
	if to := <-arrived; to != "b@quiet.example.net" {
		t.Errorf("the third letter under way is to %s", to)
	}
	select {
	case to := <-arrived:
		t.Errorf("a fourth is under way, to %s", to)
	default:
	}
	close(release)
	all.Wait()
	if n := len(r.relay.Letters()); n != 6 {
		t.Errorf("%d letters", n)
	}
}

func TestManyLettersAtOnceArriveOnceEach(t *testing.T) {
	t.Parallel()
	r := bench(t, func(c *Config) { c.Connections, c.PerDestination = 4, 4 })
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			for i := range 50 {
				l := letter(parent)
				l.ID = int64(worker*50 + i)
				if err := r.sender.Send(t.Context(), l); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	seen := map[int64]bool{}
	for _, l := range r.relay.Letters() {
		id, ok := r.sender.config.ReturnPath.Match(l.From)
		if !ok || seen[id] {
			t.Fatalf("letter %d comes again, or is nobody's", id)
		}
		seen[id] = true
	}
	if n := len(r.relay.Sessions()); len(seen) != 400 || n > 4+400/lettersPerConnection {
		t.Errorf("%d letters over %d connections", len(seen), n)
	}
}

// Fault row 28: a peer that is slow, silent or dies costs its time limit and no
// more, and what became of the letter is said as it is.
func TestASlowOrDyingPeer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		peer  emailtest.Behaviour
		class Class
		phase Phase
		kept  int
	}{
		{"says nothing at first", emailtest.Silence("CONNECT"), HostDown, Greeting, 0},
		{"says nothing to EHLO", emailtest.Silence("EHLO"), HostDown, Greeting, 0},
		{"says nothing to MAIL", emailtest.Silence("MAIL"), HostDown, Mail, 0},
		{"says nothing to RCPT", emailtest.Silence("RCPT"), HostDown, Rcpt, 0},
		{"says nothing to DATA", emailtest.Silence("DATA"), HostDown, Data, 0},
		{"says nothing to the final dot", emailtest.Silence("END"), Unknown, Final, 1},
		{"answers an octet at a time", emailtest.Drip("CONNECT", time.Second), HostDown, Greeting, 0},
		{"hangs up at first", emailtest.HangUp("CONNECT"), HostDown, Greeting, 0},
		{"hangs up at RCPT", emailtest.HangUp("RCPT"), HostDown, Rcpt, 0},
		{"hangs up at DATA", emailtest.HangUp("DATA"), HostDown, Data, 0},
		{"keeps the letter and hangs up", emailtest.HangUp("END"), Unknown, Final, 1},
		{"loses the letter and hangs up", emailtest.LoseAndHangUp(), Unknown, Final, 0},
		{"answers the final dot an octet at a time", emailtest.Drip("END", time.Second), Unknown, Final, 1},
		{"answers the final dot with nonsense", emailtest.Refuse("END", "what?"), Unknown, Final, 0},
		{"answers RCPT with nonsense", emailtest.Refuse("RCPT", "what?"), HostDown, Rcpt, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := bench(t, nil)
			r.hurry()
			r.relay.Behave(tt.peer)
			began := time.Now()
			wrong := r.send(t, letter(parent))
			if wrong == nil || wrong.Class != tt.class || wrong.Phase != tt.phase || !wrong.Temporary() {
				t.Fatalf("%v", wrong)
			}
			if took := time.Since(began); took > time.Minute { // the relay would be silent for ever
				t.Errorf("it took %v", took)
			}
			if n := len(r.relay.Letters()); n != tt.kept {
				t.Errorf("%d letters are kept, want %d", n, tt.kept)
			}
			if n := testutil.ToFloat64(r.metrics.connections); n != 0 {
				t.Errorf("%v connections are left open", n)
			}
		})
	}
}

// Fault row 28: dies in DATA. Nothing was taken, so the letter may be sent again.
func TestARelayThatDiesInTheLetterHasNotTakenIt(t *testing.T) {
	t.Parallel()
	r := bench(t, nil)
	r.relay.Behave(emailtest.Times(1, emailtest.DieInData(1000)))
	l := letter(parent)
	l.Text = strings.Repeat("Маша П. была в школе.\n", 4000)
	// Whether the break is noticed while the letter is written or at its end
	// depends on how much the kernels hold.
	wrong := r.send(t, l)
	if wrong == nil || wrong.Class != HostDown && wrong.Class != Unknown || len(r.relay.Letters()) != 0 {
		t.Fatalf("%v", wrong)
	}
	r.clock.advance(wrong.RetryAfter)
	if wrong := r.send(t, l); wrong != nil || len(r.relay.Letters()) != 1 {
		t.Fatalf("%v, %d letters", wrong, len(r.relay.Letters()))
	}
}

// Fault row 28: after the final dot the letter may be repeated once, and the
// two copies can be known as one: D by Message-ID = 0.
func TestTheRepetitionOfAnUnknownLetterIsTheSameLetter(t *testing.T) {
	t.Parallel()
	r := bench(t, nil)
	r.relay.Behave(emailtest.Times(1, emailtest.HangUp("END")))
	l := letter(parent)
	l.Date = r.clock.Now()
	wrong := r.send(t, l)
	if wrong == nil || wrong.Class != Unknown || wrong.RetryAfter != unknownWait {
		t.Fatalf("%v", wrong)
	}
	if n := len(r.relay.Letters()); n != 1 {
		t.Fatalf("the Sender repeated it by itself: %d letters", n)
	}
	r.clock.advance(wrong.RetryAfter)
	if wrong := r.send(t, l); wrong != nil {
		t.Fatal(wrong)
	}
	got := r.relay.Letters()
	if len(got) != 2 || !bytes.Equal(got[0].Data, got[1].Data) || got[0].From != got[1].From {
		t.Errorf("%d letters differ", len(got))
	}
	if up := testutil.ToFloat64(r.metrics.relay); up != 1 {
		t.Error("an unknown outcome says nothing about the relay")
	}
}

func TestACallerWhoGivesUpIsTold(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		verb  string
		class Class
		phase Phase
	}{
		{"in the greeting", "EHLO", HostDown, Greeting},
		{"before the letter", "RCPT", HostDown, Rcpt},
		{"after the final dot", "END", Unknown, Final},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := bench(t, nil)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			r.relay.Behave(func(s emailtest.Step) *emailtest.Answer {
				if s.Verb != tt.verb {
					return nil
				}
				cancel()
				return &emailtest.Answer{Silent: true}
			})
			wrong, ok := errors.AsType[*Error](r.sender.Send(ctx, letter(parent)))
			if !ok || wrong.Class != tt.class || wrong.Phase != tt.phase || !errors.Is(wrong, context.Canceled) {
				t.Errorf("%v", wrong)
			}
			if r.sender.relay.down != "" {
				t.Error("the relay is blamed for it")
			}
		})
	}
	t.Run("while it waits for a place", func(t *testing.T) {
		t.Parallel()
		r := bench(t, func(c *Config) { c.Connections, c.PerDestination = 1, 1 })
		r.sender.slots <- struct{}{}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		wrong, ok := errors.AsType[*Error](r.sender.Send(ctx, letter(parent)))
		if !ok || wrong.Phase != Waiting || wrong.Class != HostDown || len(r.sender.destinations) != 0 {
			t.Errorf("%v", wrong)
		}
	})
}

func TestNobodyListening(t *testing.T) {
	t.Parallel()
	r := bench(t, nil)
	r.relay.Close()
	wrong := r.send(t, letter(parent))
	if wrong == nil || wrong.Class != HostDown || wrong.Phase != Dialling {
		t.Errorf("%v", wrong)
	}
}

func TestASenderIsRefusedItsWrongSettings(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		c    Config
		want string
	}{
		{"no port", Config{Relay: "mail.example.org", Security: Plain, From: "a@example.org"}, "host:port"},
		{"no host", Config{Relay: ":25", Security: Plain, From: "a@example.org"}, "host:port"},
		{"an unknown policy", Config{Relay: "h:25", Security: "maybe", From: "a@example.org"}, "none, starttls, tls"},
		{"a login in the clear", Config{Relay: "h:25", Security: Plain, Username: "u", From: "a@example.org"}, "in the clear"},
		{"no sender", Config{Relay: "h:25", Security: TLS}, "not a mailbox"},
		{"a sender without a domain", Config{Relay: "h:25", Security: TLS, From: "school"}, "not a mailbox"},
	} {
		if _, err := NewSender(tt.c); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestMetricsAreThereBeforeAnythingHappened(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewPedanticRegistry()
	NewMetrics(registry)
	problems, err := testutil.GatherAndLint(registry)
	if err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
	if n, err := testutil.GatherAndCount(registry, "zvonok_email_letters_total"); err != nil || n != 8 {
		t.Errorf("%d results are counted, %v", n, err)
	}
}

func BenchmarkSend(b *testing.B) {
	relay, err := emailtest.Listen("127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer relay.Close()
	path, err := NewReturnPath("bounce@example.org", []byte("0123456789abcdef"))
	if err != nil {
		b.Fatal(err)
	}
	s, err := NewSender(Config{
		Relay: relay.Addr(), Security: Plain, From: "Школа <pass@example.org>", ReturnPath: path, PerDestination: 8,
		Log: slog.New(slog.DiscardHandler), Metrics: NewMetrics(prometheus.NewRegistry()), Now: time.Now,
	})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := s.Send(context.Background(), letter(parent)); err != nil {
				b.Error(err)
			}
		}
	})
}
