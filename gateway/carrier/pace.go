package carrier

import (
	"time"

	"zvonok/access/phone"
)

// Limits of the pace.
const (
	firstPause   = time.Second      // of a throttled link, doubling ...
	longestPause = 30 * time.Second // ... to this
	calm         = 10 * time.Second // without a throttle after a pause, and the next pause is a first one again
	climb        = 1.0              // parts per second that the rate grows every second
	slowestRate  = 1.0              // parts per second below which the rate is never halved
	burst        = 25 * time.Millisecond
	nearMeasured = 0.95                   // of the measured rate of the operator is where the rate returns to ...
	returnTime   = 3 * time.Second        // ... in this time ...
	holdGoal     = 60 * time.Second       // ... and rests this long after the throttle before it tries for more
	provenStep   = 0.25                   // of the way from a proven rate to the one that was too much
	idleTokens   = 0.1                    // seconds' worth of tokens lost to a full bucket: nothing was there to send
	measureLeast = 5                      // parts that make a measurement
	measureSpan  = 10 * time.Second       // a measurement looks back this far at most
	savedAtFirst = time.Second            // of its rate may an operator have saved up in a pause
	savedLater   = 500 * time.Millisecond // of that is still in a measurement of the whole span
	sliceLength  = 200 * time.Millisecond // of the counts of accepted parts
)

// counts is how many slices of accepted parts are kept.
const counts = int64(measureSpan / sliceLength)

// pace says when the next parts may be written. It is a token bucket in parts per second for all sessions of an
// operator together, whose rate follows the operator's complaints: a throttle halves it and pauses the link, then it
// grows by one part per second every second (AIMD).
//
// Plain AIMD spends its time between a half and the whole of what the operator allows, three quarters on average, and
// every touch of the ceiling costs a pause. So the pace also measures: the parts accepted while it was writing as fast
// as its tokens allowed, divided by that time and by what an operator may have saved up, are what the operator allows.
// After the pause the rate returns to nearMeasured of that within returnTime, rests there for holdGoal, and only then
// asks for more by one part per second. If what is allowed is less than half of what was tried, the rate does not go
// there by halves. Without a measurement it is plain AIMD.
//
// All throttles of parts that were written before a pause began are one event. After a pause a single message is the
// probe: until the operator accepts something, nothing else is written.
//
// pace knows no clock and no lock; its owner gives it the time.
type pace struct {
	configured float64 // parts per second
	rate       float64
	tokens     float64
	at         time.Time // of tokens and rate

	episode     time.Time // when the last throttle event began
	pausedUntil time.Time
	pause       time.Duration // the last one; doubles while events follow each other
	probing     bool
	goal        float64 // parts per second to which the rate returns after a throttle; 0 is not known
	gain        float64 // parts per second per second on the way there
	proven      float64 // the rate that rested for holdGoal without a complaint; 0 is none

	busySince time.Time       // since when the tokens have not been at rest
	accepted  [counts]float64 // parts accepted in each of the last slices of time
	newest    int64           // number of the newest slice
}

func newPace(rate float64, now time.Time) *pace {
	p := &pace{configured: rate, at: now}
	p.rate = p.configured
	p.tokens = p.capacity()
	p.busySince = now
	return p
}

// configure sets another rate: this process's share of it has changed. What was found out about the operator's own
// limit changes with it.
func (p *pace) configure(rate float64, now time.Time) {
	if rate == p.configured {
		return
	}
	p.advance(now)
	by := rate / p.configured
	p.configured, p.rate = rate, max(min(slowestRate, rate), p.rate*by)
	p.goal, p.proven, p.gain = p.goal*by, p.proven*by, max(climb, p.gain*by)
	p.tokens = min(p.tokens, p.capacity())
}

// capacity is how many tokens an idle link saves up. It is small: an operator that counts the parts of each second
// would take a larger burst for a violation.
func (p *pace) capacity() float64 { return max(1, p.rate*burst.Seconds()) }

// advance brings tokens and rate up to now.
func (p *pace) advance(now time.Time) {
	from := p.at
	if now.After(p.at) {
		p.at = now
	}
	if from.Before(p.pausedUntil) {
		from = p.pausedUntil
	}
	dt := now.Sub(from).Seconds()
	if dt <= 0 {
		return
	}
	p.tokens += dt * p.rate
	if p.tokens >= p.capacity()+idleTokens*p.rate {
		p.busySince = now
	}
	p.tokens = min(p.capacity(), p.tokens)
	p.grow(from, now)
}

// grow raises the rate for the time between from and to.
func (p *pace) grow(from, to time.Time) {
	rest := to.Sub(from).Seconds()
	if p.goal > 0 && p.rate < p.goal && !p.probing {
		up := min(p.goal-p.rate, rest*p.gain)
		p.rate += up
		rest -= up / p.gain
	}
	if p.goal > 0 && p.rate >= p.goal {
		until := p.episode.Add(holdGoal)
		if to.Before(until) {
			return
		}
		rest = min(rest, to.Sub(until).Seconds())
		p.proven, p.goal = p.goal, 0
	}
	if rest > 0 {
		p.rate = min(p.configured, p.rate+rest*climb)
	}
}

// wait returns how long a message of so many parts has to wait; 0 means that it may be written now, and take must
// follow. A message that is longer than the bucket is written when the bucket is full and leaves it in debt, so that a
// long message never goes out by halves.
func (p *pace) wait(parts int, now time.Time) time.Duration {
	if now.Before(p.pausedUntil) {
		return p.pausedUntil.Sub(now)
	}
	p.advance(now)
	need := min(float64(parts), p.capacity()) - p.tokens
	// A billionth of a token is what rounding leaves over.
	if need < 1e-9 {
		return 0
	}
	return time.Duration(need/p.rate*float64(time.Second)) + time.Microsecond
}

// take spends the tokens of a message, all parts at once.
func (p *pace) take(parts int) { p.tokens -= float64(parts) }

// giveBack returns the tokens of parts that were never written.
func (p *pace) giveBack(parts int) { p.tokens = min(p.capacity(), p.tokens+float64(parts)) }

// throttled takes note that a part written at some time was refused for speed. It reports whether this began a new
// event and so a pause.
func (p *pace) throttled(written, now time.Time) bool {
	if !written.After(p.episode) && !p.episode.IsZero() {
		return false
	}
	p.advance(now)
	before := p.rate
	p.rate /= 2
	p.goal, p.gain = 0, climb
	if measured, ok := p.measure(now); ok {
		p.goal = min(before, measured) * nearMeasured
		if p.proven > 0 {
			// What rested without a complaint is allowed, and a little more may be.
			p.goal = max(p.goal, p.proven+provenStep*(before-p.proven))
		}
		p.rate = min(p.rate, p.goal)
		p.gain = max(climb, (p.goal-p.rate)/returnTime.Seconds())
	}
	p.proven = 0
	p.rate = max(min(slowestRate, p.configured), p.rate)

	if p.pause == 0 || now.Sub(p.pausedUntil) > calm {
		p.pause = firstPause
	} else {
		p.pause = min(2*p.pause, longestPause)
	}
	p.episode = now
	p.pausedUntil = now.Add(p.pause)
	p.tokens = 1
	p.busySince = p.pausedUntil
	p.probing = true
	return true
}

// answered takes note of an answer that was no complaint about speed.
func (p *pace) answered() { p.probing = false }

// accept takes note that the operator accepted a part.
func (p *pace) accept(now time.Time) {
	p.turn(now)
	p.accepted[p.newest%counts]++
}

// measure returns the parts per second that the operator allowed since the tokens were last at rest.
func (p *pace) measure(now time.Time) (float64, bool) {
	span, saved := now.Sub(p.busySince), savedAtFirst
	if span >= measureSpan {
		span, saved = measureSpan, savedLater
	}
	if span < 0 {
		return 0, false
	}
	count := p.acceptedIn(now, int64((span+sliceLength-1)/sliceLength))
	return count / (span + saved).Seconds(), count >= measureLeast
}

// throughput returns the parts accepted in the last second.
func (p *pace) throughput(now time.Time) float64 {
	return p.acceptedIn(now, int64(time.Second/sliceLength))
}

// acceptedIn returns the parts accepted in the last n slices.
func (p *pace) acceptedIn(now time.Time, n int64) float64 {
	p.turn(now)
	sum := 0.0
	for i := range min(max(n, 1), counts) {
		sum += p.accepted[(p.newest-i+counts)%counts]
	}
	return sum
}

// turn empties the slices that lie further back than measureSpan.
func (p *pace) turn(now time.Time) {
	newest := now.UnixNano() / int64(sliceLength)
	for n := max(p.newest+1, newest-counts+1); n <= newest; n++ {
		p.accepted[n%counts] = 0
	}
	p.newest = max(p.newest, newest)
}

// paused reports whether the link rests after a throttle.
func (p *pace) paused(now time.Time) bool { return now.Before(p.pausedUntil) }

// fullQueues tells a recipient whose queue is full from an operator that has no room: queueFullRecipients distinct
// recipients within queueFullWithin are the operator. It also remembers how often a recipient was full in a row.
type fullQueues struct {
	recent []fullQueue
	rows   map[phone.Number]fullRow
}

type fullQueue struct {
	to phone.Number
	at time.Time
}

type fullRow struct {
	times int
	until time.Time
}

// maxFullRows bounds the memory of deferred recipients; past it the expired ones are swept.
const maxFullRows = 10_000

// link takes note of a full queue and reports whether it is the link that is to be throttled.
func (f *fullQueues) link(to phone.Number, now time.Time) bool {
	keep := f.recent[:0]
	for _, q := range f.recent {
		if now.Sub(q.at) <= queueFullWithin && q.to != to {
			keep = append(keep, q)
		}
	}
	f.recent = append(keep, fullQueue{to, now})
	return len(f.recent) >= queueFullRecipients
}

// deferral defers a recipient and returns for how long: 1, 2, 5, 15 min.
func (f *fullQueues) deferral(to phone.Number, now time.Time) time.Duration {
	if f.rows == nil {
		f.rows = make(map[phone.Number]fullRow)
	}
	if len(f.rows) >= maxFullRows {
		f.sweep(now)
	}
	row := f.rows[to]
	row.times++
	wait := queueFullWait(row.times)
	row.until = now.Add(wait)
	f.rows[to] = row
	return wait
}

// deferred returns for how long a recipient is still deferred.
func (f *fullQueues) deferred(to phone.Number, now time.Time) time.Duration {
	return max(0, f.rows[to].until.Sub(now))
}

// clear forgets a recipient that accepted a message.
func (f *fullQueues) clear(to phone.Number) { delete(f.rows, to) }

// sweep drops recipients whose deferral ended a longest wait ago, and all of them if that makes no room.
func (f *fullQueues) sweep(now time.Time) {
	for to, row := range f.rows {
		if now.Sub(row.until) > queueFullWaits[len(queueFullWaits)-1] {
			delete(f.rows, to)
		}
	}
	if len(f.rows) >= maxFullRows {
		clear(f.rows)
	}
}

// circuit stops an operator that answers with system errors: systemErrors of them within systemErrorsWithin open it,
// for circuitFirst at first and twice as long each time up to circuitLongest. Then one message is let through; if it
// fails, the circuit opens again, and any other answer closes it.
type circuit struct {
	errors    []time.Time
	openUntil time.Time
	wait      time.Duration
	half      bool // the next answer decides
}

// failed takes note of a system error and reports whether it opened the circuit.
func (c *circuit) failed(now time.Time) bool {
	keep := c.errors[:0]
	for _, at := range c.errors {
		if now.Sub(at) < systemErrorsWithin {
			keep = append(keep, at)
		}
	}
	c.errors = append(keep, now)
	if c.open(now) || (!c.half && len(c.errors) < systemErrors) {
		return false
	}
	c.wait = min(max(2*c.wait, circuitFirst), circuitLongest)
	c.openUntil = now.Add(c.wait)
	c.half = true
	c.errors = c.errors[:0]
	return true
}

// answered takes note of any other answer.
func (c *circuit) answered(now time.Time) {
	if c.half && !c.open(now) {
		c.half, c.wait = false, 0
	}
}

func (c *circuit) open(now time.Time) bool { return now.Before(c.openUntil) }

// ending is how a message leaves that meets the open circuit.
func (c *circuit) ending(now time.Time) ending {
	return ending{class: NeverWritten, part: -1, reason: "circuit open", wait: c.openUntil.Sub(now)}
}

// probing reports whether only one message may be outstanding.
func (c *circuit) probing(now time.Time) bool { return c.half && !c.open(now) }
