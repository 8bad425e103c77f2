package carrier

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"zvonok/access/phone"
)

var paceStart = time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)

// send takes as many messages of so many parts as the pace allows from now for d, and returns the parts.
func (p *pace) send(now time.Time, d time.Duration, parts int) (int, time.Time) {
	sent, end := 0, now.Add(d)
	for now.Before(end) {
		if wait := p.wait(parts, now); wait > 0 {
			now = now.Add(wait)
			continue
		}
		p.take(parts)
		p.accept(now)
		p.answered()
		sent += parts
	}
	return sent, end
}

// Pain 6: the cap counts parts.
func TestTheRateCountsParts(t *testing.T) {
	t.Parallel()
	for _, parts := range []int{1, 3, 7} {
		sent, _ := newPace(100, paceStart).send(paceStart, 10*time.Second, parts)
		if sent < 990 || sent > 1010 {
			t.Errorf("messages of %d parts: %d parts in 10 s at 100/s", parts, sent)
		}
	}
}

// Pain 6: all tokens at once, no half-sent long message.
func TestALongMessageTakesAllItsTokensAtOnce(t *testing.T) {
	t.Parallel()
	p := newPace(10, paceStart)
	if wait := p.wait(5, paceStart); wait != 0 {
		t.Fatalf("a full bucket makes a long message wait %s", wait)
	}
	p.take(5)
	// One token was there, four are owed, and the next part needs one more: half a second.
	if wait := p.wait(1, paceStart); wait < 490*time.Millisecond || wait > 510*time.Millisecond {
		t.Errorf("after five parts at 10/s the next waits %s", wait)
	}
}

func TestNoSecondHasMorePartsThanTheRateAllows(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.IntRange(1, 2000).Draw(t, "rate")
		p := newPace(float64(rate), paceStart)
		now := paceStart.Add(time.Duration(rapid.IntRange(0, 10_000).Draw(t, "idle ms")) * time.Millisecond)
		most := rapid.IntRange(1, 8).Draw(t, "parts")
		sent, _ := p.send(now, time.Second, most)
		// A bucket's worth over, and the message that is longer than the bucket.
		if limit := float64(rate) + p.capacity() + float64(most); float64(sent) > limit {
			t.Fatalf("%d parts in a second at %d/s", sent, rate)
		}
	})
}

// Pain 7, fault row 14: halve, pause 1 s doubling to 30 s, then one part per second more every second.
func TestAThrottleHalvesTheRateAndPauses(t *testing.T) {
	t.Parallel()
	p := newPace(64, paceStart)
	now := paceStart
	pauses := []time.Duration{1, 2, 4, 8, 16, 30, 30}
	rates := []float64{32, 16, 8, 4, 2, 1, 1}
	for i := range pauses {
		now = now.Add(time.Millisecond)
		p.rate = math.Round(p.rate) // forget what the pauses between added
		if !p.throttled(now, now) {
			t.Fatalf("throttle %d was taken for an old one", i+1)
		}
		if math.Abs(p.rate-rates[i]) > 0.01 {
			t.Errorf("throttle %d: rate %g, want %g", i+1, p.rate, rates[i])
		}
		if wait := p.wait(1, now); wait != pauses[i]*time.Second {
			t.Errorf("throttle %d: pause %s, want %ds", i+1, wait, pauses[i])
		}
		now = p.pausedUntil
	}
}

func TestWithoutAMeasurementTheRateGrowsByOnePartASecond(t *testing.T) {
	t.Parallel()
	p := newPace(100, paceStart)
	p.throttled(paceStart, paceStart)
	p.answered()
	if p.rate != 50 {
		t.Fatalf("rate %g", p.rate)
	}
	p.advance(paceStart.Add(time.Second)) // the pause
	if p.rate != 50 {
		t.Errorf("the rate grew to %g in the pause", p.rate)
	}
	p.advance(paceStart.Add(11 * time.Second))
	if math.Abs(p.rate-60) > 0.01 {
		t.Errorf("ten seconds after the pause the rate is %g, want 60", p.rate)
	}
	p.advance(paceStart.Add(5 * time.Minute))
	if p.rate != 100 {
		t.Errorf("the rate grew to %g, want the configured 100", p.rate)
	}
}

func TestThrottlesOfPartsWrittenBeforeThePauseAreOneEvent(t *testing.T) {
	t.Parallel()
	p := newPace(100, paceStart)
	written := paceStart
	now := paceStart.Add(50 * time.Millisecond)
	if !p.throttled(written, now) {
		t.Fatal("the first one is no event")
	}
	for range 49 {
		if p.throttled(written.Add(10*time.Millisecond), now.Add(time.Millisecond)) {
			t.Fatal("a part of the same window is a second event")
		}
	}
	if p.rate != 50 {
		t.Errorf("rate %g after one event", p.rate)
	}
}

func TestAfterCalmThePauseIsAFirstOneAgain(t *testing.T) {
	t.Parallel()
	p := newPace(100, paceStart)
	p.throttled(paceStart, paceStart)
	later := paceStart.Add(20 * time.Second)
	p.throttled(later, later)
	if p.pause != firstPause {
		t.Errorf("pause %s", p.pause)
	}
}

func TestTheFirstMessageAfterAPauseIsAProbe(t *testing.T) {
	t.Parallel()
	p := newPace(100, paceStart)
	p.throttled(paceStart, paceStart)
	if !p.probing {
		t.Fatal("no probe is asked for")
	}
	p.answered()
	if p.probing {
		t.Error("the probe's answer did not end the probing")
	}
}

// allowance is how an operator counts: may says whether it accepts a part at a time.
type allowance interface{ may(now time.Time) bool }

// savingAllowance saves up to a second's worth while nothing comes.
type savingAllowance struct {
	rate, saved float64
	at          time.Time
}

func (a *savingAllowance) may(now time.Time) bool {
	a.saved = min(a.rate, a.saved+a.rate*now.Sub(a.at).Seconds())
	a.at = now
	if a.saved < 1 {
		return false
	}
	a.saved--
	return true
}

// strictAllowance counts the parts of each second of the clock.
type strictAllowance struct {
	rate   int
	second int64
	count  int
}

func (a *strictAllowance) may(now time.Time) bool {
	if now.Unix() != a.second {
		a.second, a.count = now.Unix(), 0
	}
	a.count++
	return a.count <= a.rate
}

// against runs a pace against an operator with a round trip of 50 ms for ten minutes, always with something to send.
func (p *pace) against(operator allowance) (accepted, refused float64) {
	type answer struct {
		due, written time.Time
		refused      bool
	}
	var out []answer
	for now, end := paceStart, paceStart.Add(10*time.Minute); now.Before(end); {
		for len(out) > 0 && !out[0].due.After(now) {
			a := out[0]
			out = out[1:]
			if a.refused {
				p.throttled(a.written, a.due)
				continue
			}
			p.answered()
			p.accept(a.due)
		}
		wait := p.wait(1, now)
		if p.probing && len(out) > 0 {
			wait = out[0].due.Sub(now)
		}
		if wait > 0 {
			if len(out) > 0 {
				wait = min(wait, out[0].due.Sub(now))
			}
			now = now.Add(max(wait, time.Microsecond))
			continue
		}
		p.take(1)
		a := answer{due: now.Add(50 * time.Millisecond), written: now, refused: !operator.may(now)}
		if a.refused {
			refused++
		} else {
			accepted++
		}
		out = append(out, a)
	}
	return accepted, refused
}

// Fault row 14: at least 90 % of what the operator permits, at most 5 % of the submits refused, over ten minutes, with
// settings that promise up to a hundred times what it allows. An operator that counts by the second of the clock gives
// no sign of how near the limit is; plain AIMD would get 75 % of it, we get some more.
func TestThePaceFindsTheTrueRateOfAThrottlingOperator(t *testing.T) {
	t.Parallel()
	for _, allowed := range []float64{5, 20, 50, 300} {
		for _, promised := range []float64{1.2, 10, 100} {
			for name, operator := range map[string]allowance{
				"saving": &savingAllowance{rate: allowed, saved: allowed, at: paceStart},
				"strict": &strictAllowance{rate: int(allowed)},
			} {
				accepted, refused := newPace(promised*allowed, paceStart).against(operator)
				used, lost := 100*accepted/(allowed*600), 100*refused/(accepted+refused)
				t.Logf("%s operator allows %g/s of %g/s: %.1f %% used, %.2f %% refused",
					name, allowed, promised*allowed, used, lost)
				if least := map[string]float64{"saving": 90, "strict": 78}[name]; used < least || lost > 5 {
					t.Errorf("%s operator allows %g/s of %g/s: %.1f %% used, %.2f %% refused",
						name, allowed, promised*allowed, used, lost)
				}
			}
		}
	}
}

func TestThreeRecipientsWithFullQueuesInTwoSecondsAreTheOperator(t *testing.T) {
	t.Parallel()
	a, b, c := phone.Number("79000000001"), phone.Number("79000000002"), phone.Number("79000000003")
	tests := []struct {
		name  string
		full  []phone.Number
		apart time.Duration
		want  bool
	}{
		{"three at once are the operator", []phone.Number{a, b, c}, 100 * time.Millisecond, true},
		{"two are two recipients", []phone.Number{a, b}, 100 * time.Millisecond, false},
		{"one three times is one recipient", []phone.Number{a, a, a}, 100 * time.Millisecond, false},
		{"three over four seconds are three recipients", []phone.Number{a, b, c}, 2 * time.Second, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var f fullQueues
			got, now := false, paceStart
			for _, to := range test.full {
				got = f.link(to, now)
				now = now.Add(test.apart)
			}
			if got != test.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

func TestAFullRecipientIsDeferred1_2_5_15Minutes(t *testing.T) {
	t.Parallel()
	var f fullQueues
	to, now := phone.Number("79000000001"), paceStart
	for _, want := range []time.Duration{1, 2, 5, 15, 15} {
		if got := f.deferral(to, now); got != want*time.Minute {
			t.Errorf("deferred %s, want %d min", got, want)
		}
		if left := f.deferred(to, now.Add(30*time.Second)); left != want*time.Minute-30*time.Second {
			t.Errorf("half a minute later %s are left", left)
		}
		now = now.Add(want * time.Minute)
	}
	f.clear(to)
	if got := f.deferral(to, now); got != time.Minute {
		t.Errorf("after an accepted message the deferral is %s", got)
	}
}

func TestDeferredRecipientsAreBounded(t *testing.T) {
	t.Parallel()
	var f fullQueues
	for i := range 3 * maxFullRows {
		f.deferral(phone.Number(rune(i)), paceStart)
	}
	if len(f.rows) > maxFullRows {
		t.Errorf("%d recipients are remembered", len(f.rows))
	}
}

// 0x08: five in ten seconds open the circuit.
func TestFiveSystemErrorsInTenSecondsOpenTheCircuit(t *testing.T) {
	t.Parallel()
	var c circuit
	now := paceStart
	for i := range 4 {
		if c.failed(now) {
			t.Fatalf("open after %d errors", i+1)
		}
		now = now.Add(time.Second)
	}
	if !c.failed(now) || !c.open(now) {
		t.Fatal("five errors did not open it")
	}
	if !c.open(now.Add(9*time.Second)) || c.open(now.Add(10*time.Second)) {
		t.Error("it is not open for 10 s")
	}
	now = now.Add(10 * time.Second)
	if !c.probing(now) {
		t.Error("no probe after the time")
	}
	if !c.failed(now) || !c.open(now.Add(19*time.Second)) {
		t.Error("a failed probe does not open it for 20 s")
	}
	now = now.Add(20 * time.Second)
	c.answered(now)
	if c.probing(now) || c.failed(now) {
		t.Error("an answered probe does not close it")
	}
}

func TestSystemErrorsFarApartLeaveTheCircuitClosed(t *testing.T) {
	t.Parallel()
	var c circuit
	now := paceStart
	for range 100 {
		if c.failed(now) {
			t.Fatal("open")
		}
		now = now.Add(3 * time.Second)
	}
}
