package carrier

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"zvonok/gateway/smpp/smpptest"
)

// shows waits until the live view names this limit and returns its sentence.
func (b *box) shows(want Limit) string {
	b.t.Helper()
	var last Status
	b.until(fmt.Sprintf("the limit %q", want), func() bool {
		last = b.Status()[0]
		return last.LimitedBy == want
	})
	return last.Explanation
}

// Pain 5: the live view says which of rate, window, round trip, database or operator is the limit now.
func TestTheLiveViewNamesTheRate(t *testing.T) {
	virtually(t, func(t *testing.T) {
		x, _ := connected(t, smpptest.Behaviour{}, func(c *OperatorConfig) { c.Rate = 20 })
		x.shows(LimitNothing)
		x.post("mts", batch(100)...)
		got := x.shows(LimitRate)
		if !regexp.MustCompile(`^limited by operator rate 20/s; backlog \d+, clears \d\d:\d\d:\d\d$`).MatchString(got) {
			t.Errorf("it says %q", got)
		}
		x.until("half of the results", func() bool { return len(x.results) > 40 })
		s := x.Status()[0]
		if left := time.Until(s.Clears); left < 500*time.Millisecond || left > 6*time.Second {
			t.Errorf("%d parts clear in %s", s.QueueParts, left)
		}
		if s.Oldest < time.Second || s.Oldest > 10*time.Second {
			t.Errorf("the oldest of %d is %s old", s.Queue, s.Oldest)
		}
	})
}

func TestTheLiveViewNamesTheWindow(t *testing.T) {
	virtually(t, func(t *testing.T) {
		x, _ := connected(t, smpptest.Behaviour{AnswerDelay: 40 * time.Millisecond}, func(c *OperatorConfig) { c.Window = 2 })
		x.post("mts", batch(100)...)
		x.shows(LimitWindow)
		x.until("the first answers", func() bool { return len(x.results) > 4 })
		got := x.shows(LimitWindow)
		if !regexp.MustCompile(`^limited by window 2 on 1 binds at a round trip of \d\d[.\d]*ms: \d\d/s; backlog `).MatchString(got) {
			t.Errorf("it says %q", got)
		}
	})
}

func TestTheLiveViewNamesTheRoundTrip(t *testing.T) {
	virtually(t, func(t *testing.T) {
		x, smsc := connected(t, smpptest.Behaviour{}, func(c *OperatorConfig) { c.Window = 2 })
		x.send("mts", batch(20)...)
		x.Status() // the best round trip is seen
		smsc.SetBehaviour(smpptest.Behaviour{AnswerDelay: 200 * time.Millisecond})
		more := batch(100)
		for i := range more {
			more[i].ID += 1000
		}
		x.post("mts", more...)
		if got := x.shows(LimitRoundTrip); !strings.Contains(got, "at best") {
			t.Errorf("it says %q", got)
		}
	})
}

func TestTheLiveViewNamesTheDatabase(t *testing.T) {
	virtually(t, func(t *testing.T) {
		x, _ := connected(t, smpptest.Behaviour{}, func(c *OperatorConfig) { c.QueueLimit = 50 })
		release := make(chan struct{})
		t.Cleanup(sync.OnceFunc(func() { close(release) }))
		go func() {
			// The first result is never stored; the others wait behind it.
			_ = x.Send(within(t), "mts", batch(50), func(r Result) { <-release; x.note(r) })
		}()
		if got := x.shows(LimitDatabase); !strings.HasPrefix(got, "limited by the database: ") {
			t.Errorf("it says %q", got)
		}
	})
}

func TestTheLiveViewNamesTheOperator(t *testing.T) {
	virtually(t, func(t *testing.T) {
		x, smsc := connected(t, smpptest.Behaviour{StormEvery: 1, StormFor: time.Hour})
		x.post("mts", batch(20)...)
		if got := x.shows(LimitOperator); !strings.Contains(got, "throttled by the operator (ESME_RTHROTTLED) until ") ||
			!strings.Contains(got, "backlog") {
			t.Errorf("it says %q", got)
		}
		smsc.SetBehaviour(smpptest.Behaviour{RefuseBinds: 1 << 30})
		smsc.Cut()
		x.until("the loss of the link", func() bool { return strings.HasPrefix(x.Status()[0].Explanation, "not bound: ") })
	})
}

func TestEveryMetricExistsAtZeroFromTheStart(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	if _, err := New(Config{Operators: []OperatorConfig{account("127.0.0.1:1")}, Metrics: registry}); err != nil {
		t.Fatal(err)
	}
	problems, err := testutil.GatherAndLint(registry)
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
	for name, want := range map[string]int{
		"zvonok_carrier_messages_total": len(Classes()), "zvonok_carrier_receipts_total": len(receiptStates()),
		"zvonok_carrier_inbound_total": len(inboundKinds), "zvonok_carrier_limited_by": len(limitsAll),
		"zvonok_carrier_throttles_total": 1, "zvonok_carrier_links": 1, "zvonok_carrier_answer_seconds": 1,
		"zvonok_carrier_bind_failures_total": 2,
	} {
		if got, err := testutil.GatherAndCount(registry, name); err != nil || got != want {
			t.Errorf("%s: %d series, want %d (%v)", name, got, want, err)
		}
	}
}

func TestTheMetricsCountWhatHappens(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	smsc := newSMSC(t, behaving(smpptest.Behaviour{}))
	x := newBox(t, Config{Operators: []OperatorConfig{account(smsc.Addr())}, Metrics: registry})
	x.untilReady("mts")
	x.send("mts", batch(7)...)
	x.until("receipts", func() bool { return len(x.receipts) == 7 })
	m := x.metrics
	waitFor(t, func() bool {
		return testutil.ToFloat64(m.receipts.WithLabelValues("mts", "DELIVRD")) == 7 &&
			testutil.ToFloat64(m.links.WithLabelValues("mts")) == 1
	})
	if got := testutil.ToFloat64(m.messages.WithLabelValues("mts", "OK")); got != 7 {
		t.Errorf("%g messages", got)
	}
	if got := testutil.ToFloat64(m.configured.WithLabelValues("mts")); got != 5000 {
		t.Errorf("configured rate %g", got)
	}
}
