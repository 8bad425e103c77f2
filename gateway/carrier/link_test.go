package carrier

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"zvonok/gateway/smpp"
	"zvonok/gateway/smpp/smpptest"
)

// bubble is an exchange and an operator in a synctest bubble: time passes when everybody waits.
type bubble struct {
	*Exchange
	smsc    *smpptest.SMSC
	start   time.Time
	down    atomic.Bool // connections are refused
	mu      sync.Mutex
	alarms  []Alarm
	told    map[string]int  // receipts of final states, by phone
	dialled []time.Duration // when connections were tried, since the start
}

// inBubble runs a test of time against an operator that behaves so, reached through a loop in memory. What sleeps in
// it moves the clock of the bubble on (testing/synctest); nobody waits.
func inBubble(t *testing.T, b smpptest.Behaviour, change func(*OperatorConfig), test func(t *testing.T, b *bubble)) {
	t.Helper()
	bubbleOf(t, b, change, false, test)
}

func bubbleOf(
	t *testing.T, b smpptest.Behaviour, change func(*OperatorConfig), down bool, test func(t *testing.T, b *bubble),
) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		loop := smpptest.NewLoop()
		cfg := behaving(b)
		cfg.Listener, cfg.SystemID, cfg.Password = loop, "school", "secret"
		smsc, err := smpptest.Start(cfg)
		if err != nil {
			t.Fatal(err)
		}
		v := &bubble{smsc: smsc, start: time.Now(), told: map[string]int{}}
		operator := account("loop:1")
		operator.Dial = func(ctx context.Context, network, address string) (conn netConn, err error) {
			v.mu.Lock()
			v.dialled = append(v.dialled, time.Since(v.start))
			v.mu.Unlock()
			if v.down.Load() {
				return nil, syscall.ECONNREFUSED
			}
			return loop.DialContext(ctx, network, address)
		}
		if change != nil {
			change(&operator)
		}
		v.Exchange, err = New(Config{
			Operators: []OperatorConfig{operator},
			Alarm: func(a Alarm) {
				v.mu.Lock()
				defer v.mu.Unlock()
				v.alarms = append(v.alarms, a)
			},
			Receipts: func(_ context.Context, receipts []Receipt) error {
				v.mu.Lock()
				defer v.mu.Unlock()
				for _, r := range receipts {
					if r.State.Final() {
						v.told[string(r.To)]++
					}
				}
				return nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			if err := v.Stop(ctx); err != nil {
				t.Errorf("stop: %v", err)
			}
			if err := smsc.Close(ctx); err != nil {
				t.Errorf("close: %v", err)
			}
		}()
		v.down.Store(down)
		v.Start()
		test(t, v)
	})
}

func (b *bubble) tries() []time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.dialled)
}

func (b *bubble) heardAlarms() []Alarm {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.alarms)
}

// Pain 20, row 0x05: already bound waits longer than the SMSC's session timeout, and no other bind is tried meanwhile.
func TestAlreadyBoundWaitsForTheOldSessionToEnd(t *testing.T) {
	t.Parallel()
	inBubble(t, smpptest.Behaviour{RefuseBinds: 3}, func(c *OperatorConfig) { c.Binds = 2 }, func(t *testing.T,
		b *bubble,
	) {
		time.Sleep(30 * time.Second)
		if tries := b.tries(); len(tries) > 2 {
			t.Errorf("tried at %v", tries)
		}
		time.Sleep(10 * time.Minute)
		if !b.Ready("mts") || b.Status()[0].BindsUp != 2 {
			t.Errorf("not bound: %+v", b.Status()[0])
		}
		tries := b.tries()
		for i := 2; i < len(tries)-1; i++ {
			if gap := tries[i] - tries[i-1]; gap < time.Minute {
				t.Errorf("tried at %v", tries)
			}
		}
	})
}

// Rows 0x0E, 0x0F, 0x53, class CF: alarm at once, ten minutes between tries, an hour of rest after six, so that the
// account is not locked.
func TestAWrongPasswordIsTriedSeldomAndAlarms(t *testing.T) {
	t.Parallel()
	for _, status := range []smpp.Status{smpp.StatusInvalidPassword, smpp.StatusInvalidSystemType} {
		inBubble(t, smpptest.Behaviour{RefuseBinds: 1 << 30, RefuseBindStatus: status},
			func(c *OperatorConfig) { c.Binds = 4 },
			func(t *testing.T, b *bubble) {
				time.Sleep(5 * time.Second)
				if alarms := b.heardAlarms(); len(alarms) == 0 || alarms[0].Class != Configuration {
					t.Errorf("alarms after 5 s: %+v", alarms)
				}
				early := len(b.tries())
				if early > 4 {
					t.Errorf("%d tries in 5 s", early)
				}
				time.Sleep(time.Hour)
				if later := len(b.tries()) - early; later > 6 {
					t.Errorf("%d tries in the next hour", later)
				}
				if s := b.Status()[0]; s.LimitedBy != LimitOperator || s.LastBindFailure == "" {
					t.Errorf("status %+v", s)
				}
			})
	}
}

// Row 0x0D: 30 s doubling to 10 min.
func TestAFailedBindIsTriedAfter30sDoubling(t *testing.T) {
	t.Parallel()
	inBubble(t, smpptest.Behaviour{RefuseBinds: 1 << 30, RefuseBindStatus: smpp.StatusBindFailed}, nil,
		func(t *testing.T, b *bubble) {
			time.Sleep(time.Hour)
			tries := b.tries()
			want := []time.Duration{0, 30, 90, 210, 450, 930, 1530, 2130, 2730, 3330}
			if len(tries) != len(want) {
				t.Fatalf("tried at %v", tries)
			}
			for i := range want {
				if d := tries[i] - want[i]*time.Second; d < 0 || d > 5*time.Second {
					t.Errorf("try %d at %s, want %ds", i+1, tries[i], want[i])
				}
			}
		})
}

// Pain 9, pain 20: a dead operator is tried every minute at last, with jitter, and nothing is pulled meanwhile.
func TestADeadOperatorIsTriedWithGrowingPausesAndGetsNothing(t *testing.T) {
	t.Parallel()
	bubbleOf(t, smpptest.Behaviour{}, nil, true, func(t *testing.T, b *bubble) {
		time.Sleep(6 * time.Second) // past the grace of a short reconnection
		given := make(chan Result, 100)
		before := time.Now()
		if err := b.Send(context.Background(), "mts", batch(100), func(r Result) { given <- r }); err != nil {
			t.Error(err)
		}
		if took := time.Since(before); took > time.Millisecond {
			t.Errorf("giving back took %s", took)
		}
		for range 100 {
			if r := <-given; r.Class != NeverWritten || r.Counted || !r.Failover || r.RetryAfter < time.Second {
				t.Fatalf("got %+v", r)
			}
		}
		if b.Ready("mts") {
			t.Error("it is called ready")
		}
		time.Sleep(30 * time.Minute)
		tries := b.tries()
		if n := len(tries); n < 30 || n > 55 {
			t.Errorf("%d tries in half an hour", n)
		}
		for i := 1; i < len(tries); i++ {
			if gap := tries[i] - tries[i-1]; gap < time.Second || gap > time.Minute {
				t.Errorf("tries %d and %d are %s apart", i, i+1, gap)
			}
		}
	})
}

// Messages that wait when the link goes are held for a short reconnection and then given back.
func TestWaitingMessagesOutliveAShortLossOfTheLink(t *testing.T) {
	t.Parallel()
	inBubble(t, smpptest.Behaviour{}, func(c *OperatorConfig) { c.Rate = 10 }, func(t *testing.T, b *bubble) {
		time.Sleep(time.Second)
		results := make(chan Result, 100)
		if err := b.Send(context.Background(), "mts", batch(50), func(r Result) { results <- r }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		b.smsc.Cut()
		time.Sleep(20 * time.Second)
		ok, unknown := 0, 0
		for range 50 {
			switch r := <-results; r.Class {
			case OK:
				ok++
			case Unknown:
				unknown++
			default:
				t.Errorf("message %d: %s %s", r.ID, r.Class, r.Reason)
			}
		}
		if ok < 48 {
			t.Errorf("%d accepted, %d unknown", ok, unknown)
		}
	})
}

func TestWaitingMessagesAreGivenBackWhenTheLinkStaysAway(t *testing.T) {
	t.Parallel()
	inBubble(t, smpptest.Behaviour{}, func(c *OperatorConfig) { c.Rate = 1 }, func(t *testing.T, b *bubble) {
		time.Sleep(time.Second)
		results := make(chan Result, 100)
		if err := b.Send(context.Background(), "mts", batch(50), func(r Result) { results <- r }); err != nil {
			t.Fatal(err)
		}
		b.smsc.SetBehaviour(smpptest.Behaviour{RefuseBinds: 1 << 30, RefuseBindStatus: smpp.StatusSystemError})
		b.smsc.Cut()
		time.Sleep(unboundGrace + time.Second)
		back := 0
		for range 50 {
			if r := <-results; r.Class == NeverWritten && r.Failover && r.Reason == "not bound" {
				back++
			}
		}
		if back < 48 {
			t.Errorf("%d given back", back)
		}
	})
}

// Pain 18: thirty seconds before an answer is given up, and the session's own enquire_link meanwhile.
func TestAnAnswerMayTakeHalfAMinute(t *testing.T) {
	t.Parallel()
	inBubble(t, smpptest.Behaviour{AnswerDelay: 29 * time.Second}, nil, func(t *testing.T, b *bubble) {
		time.Sleep(time.Second)
		got := make(chan Result, 1)
		if err := b.Send(context.Background(), "mts", batch(1), func(r Result) { got <- r }); err != nil {
			t.Fatal(err)
		}
		if r := <-got; r.Class != OK {
			t.Errorf("got %+v", r)
		}
	})
}

// Fault row 11: a half-open connection is seen within 45 s, and what was written is unknown.
func TestAHalfOpenConnectionIsSeenWithin45s(t *testing.T) {
	t.Parallel()
	inBubble(t, smpptest.Behaviour{HalfOpenEvery: 3}, nil, func(t *testing.T, b *bubble) {
		time.Sleep(time.Second)
		got := make(chan Result, 10)
		if err := b.Send(context.Background(), "mts", batch(3), func(r Result) { got <- r }); err != nil {
			t.Fatal(err)
		}
		since := time.Now()
		unknown := 0
		for range 3 {
			if r := <-got; r.Class == Unknown {
				unknown++
			}
		}
		for b.Ready("mts") && time.Since(since) < time.Minute {
			time.Sleep(100 * time.Millisecond)
		}
		if took := time.Since(since); took > 46*time.Second || unknown == 0 {
			t.Errorf("seen after %s, %d unknown", took, unknown)
		}
		b.smsc.SetBehaviour(smpptest.Behaviour{})
		time.Sleep(5 * time.Second)
		if !b.Ready("mts") {
			t.Error("not bound again")
		}
	})
}

// Fault row 13: an operator that answers enquire_link and no submit is bound again.
func TestAnOperatorThatAnswersNoSubmitIsBoundAgain(t *testing.T) {
	t.Parallel()
	inBubble(t, smpptest.Behaviour{Silence: 1}, func(c *OperatorConfig) { c.Window = 2 }, func(t *testing.T, b *bubble) {
		time.Sleep(time.Second)
		got := make(chan Result, 10)
		if err := b.Send(context.Background(), "mts", batch(6), func(r Result) { got <- r }); err != nil {
			t.Fatal(err)
		}
		for range 6 {
			if r := <-got; r.Class != Unknown {
				t.Errorf("got %+v", r)
			}
		}
		time.Sleep(10 * time.Second)
		if n := len(b.tries()); n < 2 {
			t.Errorf("%d binds", n)
		}
		if alarms := b.heardAlarms(); len(alarms) != 1 || alarms[0].Reason != smpp.ErrStuck.Error() {
			t.Errorf("alarms %+v", alarms)
		}
	})
}

// Pain 16, pain 20: storms, silence, late answers, unbinding in mid-window, noise and split frames, all at once, cost
// nothing but time: every message that was sent gets one result, and sent again as its result allows it is shown once.
func TestEveryMessageIsSettledOnceByAHostileOperator(t *testing.T) {
	t.Parallel()
	profile, err := smpptest.ProfileNamed("hostile")
	if err != nil {
		t.Fatal(err)
	}
	hostile := profile.Behaviour
	hostile.StormEvery, hostile.UnbindEvery = 150, 90
	inBubble(t, hostile, func(c *OperatorConfig) { c.Binds = 2 }, func(t *testing.T, b *bubble) {
		const n = 1000
		results := make(chan Result, n)
		classes := map[Class]int{}
		ended := map[int64]Class{}
		open := map[int64]bool{}
		all := batch(n)
		waiting := slices.Clone(all)
		for since := time.Now(); len(ended) < n; {
			if time.Since(since) > 2*time.Hour {
				t.Fatalf("after two hours %d of %d messages have ended, classes %v, operator %+v", len(ended), n, classes,
					b.smsc.Stats())
			}
			for _, m := range waiting {
				open[m.ID] = true
			}
			if err := b.Send(context.Background(), "mts", waiting, func(r Result) { results <- r }); err != nil {
				t.Fatal(err)
			}
			waiting = nil
			time.Sleep(5 * time.Second)
			for range len(results) {
				r := <-results
				if !open[r.ID] {
					t.Fatalf("message %d has a second result, %s %s", r.ID, r.Class, r.Reason)
				}
				delete(open, r.ID)
				classes[r.Class]++
				switch r.Class {
				case NeverWritten, Temporary:
					waiting = append(waiting, all[r.ID-1])
				default:
					ended[r.ID] = r.Class
				}
			}
		}
		t.Logf("classes %v, operator %+v", classes, b.smsc.Stats())
		if classes[OK] < n*9/10 || classes[OK]+classes[Unknown] != n || classes[Temporary] == 0 {
			t.Errorf("results %v", classes)
		}
		times := map[string]int{}
		for _, m := range b.smsc.Messages() {
			times[m.To]++
		}
		for id, class := range ended {
			if shown := times[string(number(int(id)-1))]; shown > 1 || shown == 0 && class == OK {
				t.Errorf("message %d ended %s and is shown %d times", id, class, shown)
			}
		}
		time.Sleep(time.Minute)
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.told) != len(times) {
			t.Errorf("%d phones got messages and of %d there are receipts", len(times), len(b.told))
		}
	})
}

// What was under way when the circuit opened and came back unsent goes to another operator, too, and does not wait
// until the circuit closes.
func TestAMessageThrottledWhileTheCircuitOpensIsGivenBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o, err := newOperator(account("loop:1"), &Exchange{now: time.Now, cfg: Config{Log: slog.New(slog.DiscardHandler)}})
		if err != nil {
			t.Fatal(err)
		}
		o.x.metrics = NewMetrics(nil)
		got := make(chan Result, 1)
		m := &message{sms: sms(1, number(1), "a"), done: func(r Result) { got <- r }}
		m.form = o.form
		if err := m.cut(); err != nil {
			t.Fatal(err)
		}
		m.parts[0].class, m.parts[0].send = Throttle, false
		now := time.Now()
		for range systemErrors {
			o.circuit.failed(now)
		}
		o.mu.Lock()
		o.conclude(m, now)
		o.mu.Unlock()
		go o.results.run()
		defer o.results.close()
		synctest.Wait()
		select {
		case r := <-got:
			if r.Class != NeverWritten || !r.Failover || r.Counted || r.RetryAfter != circuitFirst {
				t.Errorf("got %+v", r)
			}
		default:
			t.Error("it waits in the operator's queue")
		}
	})
}

// Row "bind unanswered 10 s": the connection is given up and tried again.
func TestABindThatIsNotAnsweredIsGivenUpAfterTenSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var tries []time.Duration
		start := time.Now()
		cfg := account("loop:1")
		cfg.Dial = func(context.Context, string, string) (netConn, error) {
			tries = append(tries, time.Since(start))
			near, far := net.Pipe()
			go func() { _, _ = io.Copy(io.Discard, far); far.Close() }()
			return near, nil
		}
		x, err := New(Config{Operators: []OperatorConfig{cfg}})
		if err != nil {
			t.Fatal(err)
		}
		x.Start()
		time.Sleep(35 * time.Second)
		if s := x.Status()[0]; s.LastBindFailure != "bind is not answered" {
			t.Errorf("status %+v", s)
		}
		if err := x.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		if len(tries) != 3 || tries[1] < 11*time.Second || tries[1] > 12*time.Second {
			t.Errorf("tried at %v", tries)
		}
	})
}

// A session that falls right after each bind is not bound in a hot loop.
func TestAFlappingSessionIsBoundMoreAndMoreSeldom(t *testing.T) {
	t.Parallel()
	inBubble(t, smpptest.Behaviour{}, nil, func(t *testing.T, b *bubble) {
		for range 600 {
			time.Sleep(time.Second)
			b.smsc.Cut()
		}
		if n := len(b.tries()); n > 25 {
			t.Errorf("%d binds in ten minutes", n)
		}
		time.Sleep(2 * time.Minute)
		if !b.Ready("mts") {
			t.Error("not bound after the flapping")
		}
	})
}

// Pain 13: deadlines are kept while nothing is written, so that nothing waits for ever.
func TestMessagesExpireWhileTheOperatorThrottles(t *testing.T) {
	t.Parallel()
	inBubble(t, smpptest.Behaviour{StormEvery: 1, StormFor: time.Hour}, nil, func(t *testing.T, b *bubble) {
		time.Sleep(time.Second)
		all := batch(20)
		for i := range all {
			all[i].Deadline = time.Now().Add(10 * time.Second)
		}
		got := make(chan Result, 20)
		if err := b.Send(context.Background(), "mts", all, func(r Result) { got <- r }); err != nil {
			t.Fatal(err)
		}
		since := time.Now()
		for range 20 {
			if r := <-got; r.Class != Stale || r.Counted {
				t.Errorf("got %+v", r)
			}
		}
		if took := time.Since(since); took > 11*time.Second {
			t.Errorf("took %s", took)
		}
	})
}

func TestALinkOverTLSChecksTheCertificate(t *testing.T) {
	t.Parallel()
	certificate, roots := selfSigned(t, "127.0.0.1")
	cfg := behaving(smpptest.Behaviour{})
	cfg.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	smsc := newSMSC(t, cfg)
	trusting, wary := account(smsc.Addr()), account(smsc.Addr())
	trusting.TLS = &tls.Config{RootCAs: roots}
	wary.Name, wary.TLS = "wary", &tls.Config{}
	x := newBox(t, Config{Operators: []OperatorConfig{trusting, wary}})
	x.untilReady("mts")
	if r := x.send("mts", sms(1, number(1), "a"))[1]; r.Class != OK {
		t.Errorf("got %+v", r)
	}
	x.until("a refused certificate", func() bool { return x.Status()[1].LastBindFailure != "" })
	if x.Ready("wary") {
		t.Error("an unknown certificate is trusted")
	}
}
