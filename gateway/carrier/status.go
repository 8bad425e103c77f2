package carrier

import (
	"fmt"
	"math"
	"time"

	"zvonok/gateway/smpp"
)

// Limit is what keeps an operator from sending more (pain 5).
type Limit string

// The limits.
const (
	LimitNothing   Limit = "nothing"
	LimitRate      Limit = "rate"       // parts per second of the settings
	LimitWindow    Limit = "window"     // submits awaiting an answer
	LimitRoundTrip Limit = "round trip" // the window is full because the operator answers slower than it does at best
	LimitDatabase  Limit = "database"   // results or receipts are not stored as fast as they come
	LimitOperator  Limit = "operator"   // not bound, throttling, or failing
)

// limitsAll lists the limits for metrics.
var limitsAll = [...]Limit{LimitNothing, LimitRate, LimitWindow, LimitRoundTrip, LimitDatabase, LimitOperator}

// Limits of the live view.
const (
	limitMemory   = 2 * time.Second // of what blocked the links
	unstoredGoal  = 2 * time.Second // messages of so much sending wait for the database, and it is the limit
	slowRoundTrip = 2               // times the best round trip, and ...
	slowAtLeast   = 100 * time.Millisecond
	bestForgotten = 10 * time.Minute // the best round trip is that of this time
)

// limits adds up for how long the links waited for what, forgetting with half-life limitMemory.
type limits struct {
	waited map[Limit]float64 // s
	at     time.Time
}

func (l *limits) add(why Limit, d time.Duration, now time.Time) {
	l.fade(now)
	l.waited[why] += d.Seconds()
}

func (l *limits) fade(now time.Time) {
	if l.waited == nil {
		l.waited = make(map[Limit]float64)
	}
	f := math.Exp2(-now.Sub(l.at).Seconds() / limitMemory.Seconds())
	for why := range l.waited {
		l.waited[why] *= f
	}
	l.at = now
}

func (l *limits) most(now time.Time) Limit {
	l.fade(now)
	best, most := LimitNothing, 0.0
	for _, why := range limitsAll {
		if l.waited[why] > most {
			best, most = why, l.waited[why]
		}
	}
	return best
}

// Status is the live view of one operator.
type Status struct {
	Operator        string
	Mode            Mode
	BindsUp, Binds  int // sessions
	BindsElsewhere  int // of Binds, those that other processes may have
	WindowUsed      int // parts awaiting their answer
	Window          int // of all sessions that are up
	Rate            float64
	RateConfigured  float64 // parts per second
	Throughput      float64 // parts accepted in the last second
	Queue           int     // messages waiting
	QueueParts      int
	Oldest          time.Duration // age of the oldest message waiting
	RoundTrip       time.Duration // median of the slowest session
	MessageID       IDMode        // applied now
	Concatenation   Method        // used now
	LimitedBy       Limit
	Explanation     string    // a sentence about LimitedBy
	Clears          time.Time // when the queue is empty at the present pace; zero when there is none or no pace
	CircuitOpen     bool
	PausedUntil     time.Time // of a throttle; zero when there is none
	LastBindFailure string

	limit string // the sentence without the backlog
	ready bool   // what waits goes out
}

// Waiting returns the view with so many messages waiting, the oldest of them for so long: those that wait in the
// caller's table as well as those the operator has taken.
func (s Status) Waiting(messages int, oldest time.Duration, now time.Time) Status {
	if messages <= s.Queue {
		return s
	}
	parts := 1.0
	if s.Queue > 0 {
		parts = float64(s.QueueParts) / float64(s.Queue)
	}
	s.Queue, s.QueueParts, s.Oldest = messages, int(float64(messages)*parts), max(s.Oldest, oldest)
	s.sayBacklog(now)
	return s
}

// sayBacklog adds to the sentence how much waits and until when.
func (s *Status) sayBacklog(now time.Time) {
	s.Explanation, s.Clears = s.limit, time.Time{}
	if s.Queue == 0 {
		return
	}
	pace := s.Throughput
	if pace == 0 {
		pace = s.Rate
	}
	s.Explanation = fmt.Sprintf("%s; backlog %d", s.limit, s.Queue)
	if !s.ready || pace <= 0 {
		return
	}
	start := now
	if s.PausedUntil.After(now) {
		start = s.PausedUntil
	}
	s.Clears = start.Add(time.Duration(float64(s.QueueParts) / pace * float64(time.Second)))
	s.Explanation += ", clears " + s.Clears.Format(time.TimeOnly)
}

// Status returns the live view of every operator in the order of the settings.
func (x *Exchange) Status() []Status {
	all := make([]Status, 0, len(x.names))
	for _, name := range x.names {
		all = append(all, x.operators[name].status())
	}
	return all
}

func (o *operator) status() Status {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.statusLocked(o.x.now())
}

func (o *operator) statusLocked(now time.Time) Status {
	o.pace.advance(now)
	s := Status{
		Operator: o.cfg.Name, Mode: o.cfg.Mode, Binds: o.cfg.Binds,
		Rate: o.pace.rate, RateConfigured: o.pace.configured, Throughput: o.pace.throughput(now),
		Queue: o.queue.len + len(o.delayed), MessageID: o.reader.ids.Mode(), Concatenation: o.form.method,
		CircuitOpen: o.circuit.open(now), LastBindFailure: o.bindError,
	}
	if o.x.cfg.Leases != nil && o.cfg.Mode == Client {
		s.BindsElsewhere = o.cfg.Binds - o.leased
	}
	if o.cfg.Pair {
		s.Binds *= 2
		s.BindsElsewhere *= 2
	}
	if o.pace.paused(now) {
		s.PausedUntil = o.pace.pausedUntil
	}
	best := time.Duration(0)
	for _, l := range o.links {
		if l.closing {
			continue
		}
		s.BindsUp++
		if !l.sends {
			continue
		}
		o.waited(l, now)
		s.Window += o.cfg.Window
		s.WindowUsed += l.out
		snapshot := l.session.Snapshot()
		s.RoundTrip = max(s.RoundTrip, snapshot.RTTP50)
		best = max(best, o.bestRoundTrip(snapshot.RTTP50, now))
	}
	oldest := now
	count := func(m *message) {
		if m.entered.Before(oldest) {
			oldest = m.entered
		}
		if m.parts == nil {
			s.QueueParts += estimate(m.sms.Text)
			return
		}
		_, cost := m.pending()
		s.QueueParts += max(cost, 1)
	}
	o.queue.each(count)
	for _, m := range o.delayed {
		count(m)
	}
	s.Oldest = now.Sub(oldest)
	o.explain(&s, best, now)
	return s
}

// bestRoundTrip remembers the shortest median round trip of late.
func (o *operator) bestRoundTrip(rtt time.Duration, now time.Time) time.Duration {
	if rtt > 0 && (o.bestRTT == 0 || rtt < o.bestRTT || now.Sub(o.bestRTTAt) > bestForgotten) {
		o.bestRTT, o.bestRTTAt = rtt, now
	}
	return o.bestRTT
}

// explain finds what limits the operator and says it in a sentence.
func (o *operator) explain(s *Status, best time.Duration, now time.Time) {
	s.ready = o.unbound.IsZero() && !s.CircuitOpen
	say := func(l Limit, format string, args ...any) {
		s.LimitedBy, s.limit = l, fmt.Sprintf(format, args...)
	}
	why := o.blocked.most(now)
	unstored := o.settling + o.x.cfg.Unstored(o.cfg.Name)
	switch {
	case o.draining:
		say(LimitOperator, "stopping")
	case !o.unbound.IsZero() && s.BindsElsewhere == s.Binds:
		where := "no process is bound yet"
		if o.x.cfg.Leases.AnyLinked(o.cfg.Name) {
			where = "another process is bound and sends"
		}
		say(LimitOperator, "standing by: %s", where)
	case !o.unbound.IsZero() && s.BindsUp > 0 && o.x.cfg.Leases != nil:
		say(LimitDatabase, "the lease of the bind is in doubt: the database does not answer")
	case !o.unbound.IsZero():
		reason := "connecting"
		switch {
		case s.LastBindFailure != "":
			reason = s.LastBindFailure
		case o.cfg.Mode == Server && s.BindsUp > 0:
			reason = "the operator has bound to us only to send"
		case o.cfg.Mode == Server:
			reason = "the operator has not bound to us"
		}
		say(LimitOperator, "not bound: %s", reason)
	case s.CircuitOpen:
		say(LimitOperator, "circuit open after system errors (%s) until %s", smpp.StatusSystemError,
			o.circuit.openUntil.Format(time.TimeOnly))
	case !s.PausedUntil.IsZero():
		say(LimitOperator, "throttled by the operator (%s) until %s, then %.0f/s of %.0f/s",
			o.complaint, s.PausedUntil.Format(time.TimeOnly), s.Rate, s.RateConfigured)
	case unstored > min(o.cfg.QueueLimit, o.appetiteLocked(unstoredGoal))/2 || o.x.receipts.crowded():
		say(LimitDatabase, "limited by the database: %d messages and %d receipts wait for it",
			unstored, len(o.x.receipts.items))
	case s.Queue == 0 || why == LimitNothing:
		say(LimitNothing, "not limited")
	case why == LimitOperator:
		say(LimitOperator, "slowed by the operator (%s) to %.0f/s of %.0f/s", o.complaint, s.Rate, s.RateConfigured)
	case why == LimitWindow && s.RoundTrip > slowRoundTrip*best && s.RoundTrip > slowAtLeast:
		say(LimitRoundTrip, "limited by the operator's round trip of %s, at best %s: window %d on %d binds makes %s/s",
			rounded(s.RoundTrip), rounded(best), o.cfg.Window, s.BindsUp, windowRate(s))
	case why == LimitWindow:
		say(LimitWindow, "limited by window %d on %d binds at a round trip of %s: %s/s",
			o.cfg.Window, s.BindsUp, rounded(s.RoundTrip), windowRate(s))
	case s.RateConfigured < o.cfg.Rate:
		say(LimitRate, "limited by this process's share of the operator rate, %.0f/s of %.0f/s", s.RateConfigured, o.cfg.Rate)
	default:
		say(LimitRate, "limited by operator rate %.0f/s", s.RateConfigured)
	}
	s.sayBacklog(now)
}

// windowRate is what the windows let through in parts per second, "?" while no round trip is known.
func windowRate(s *Status) string {
	if s.RoundTrip <= 0 {
		return "?"
	}
	rate := float64(s.Window) / s.RoundTrip.Seconds()
	if rate < 10 {
		return fmt.Sprintf("%.1f", rate)
	}
	return fmt.Sprintf("%.0f", rate)
}

// rounded cuts a duration to what a person reads.
func rounded(d time.Duration) time.Duration {
	if d > 10*time.Millisecond {
		return d.Round(time.Millisecond)
	}
	return d.Round(10 * time.Microsecond)
}

// measure brings the gauges up to date, once a second. o.mu is held.
func (o *operator) measure(now time.Time) {
	if now.Sub(o.measured) < time.Second {
		return
	}
	o.measured = now
	o.x.metrics.status(o.statusLocked(now))
}
