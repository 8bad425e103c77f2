package topup

import (
	"sync"
	"time"
)

// How checks are watched.
const (
	// watchWindow is over what time checks are counted.
	watchWindow = time.Minute
	// watchPause is how long checks are answered as technically impossible once
	// someone has been seen walking through account numbers.
	watchPause = 5 * time.Minute
	// rangeDigits is how many last digits of an account number its range leaves
	// out: ten thousand numbers, a thousand with a right check digit.
	rangeDigits = 4
)

// watch counts the checks of all partners, in memory: it forgets with the process.
type watch struct {
	mu       sync.Mutex
	partners map[PartnerID]*watched
}

// watched is one partner's present minute.
type watched struct {
	since         time.Time
	checks, wrong int
	ranges        map[string]*watchedRange
	// paused is until when, by range; "" is all of the partner's.
	paused map[string]time.Time
}

type watchedRange struct {
	wrong   int
	numbers map[string]bool
}

func newWatch() *watch { return &watch{partners: map[PartnerID]*watched{}} }

// rangeOf returns the range of an account number, which may be anything.
func rangeOf(number string) string {
	if !onlyDigits(number) || len(number) <= rangeDigits || len(number) > maxTxnDigits {
		return "other"
	}
	return number[:len(number)-rangeDigits]
}

func (w *watch) of(p *Partner, now time.Time) *watched {
	at := w.partners[p.ID]
	if at == nil {
		at = &watched{since: now, ranges: map[string]*watchedRange{}, paused: map[string]time.Time{}}
		w.partners[p.ID] = at
	}
	if age := now.Sub(at.since); age >= watchWindow || age < 0 {
		at.since, at.checks, at.wrong = now, 0, 0
		clear(at.ranges)
		for name, until := range at.paused {
			if !now.Before(until) {
				delete(at.paused, name)
			}
		}
	}
	return at
}

// admit tells whether a check may be answered, and counts it.
func (w *watch) admit(p *Partner, number string, now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	at := w.of(p, now)
	at.checks++
	return at.checks <= p.Limits.Checks && !now.Before(at.paused[""]) && !now.Before(at.paused[rangeOf(number)])
}

// note counts what a check found out, and tells whether it was the one too many.
func (w *watch) note(p *Partner, number string, wrong bool, now time.Time) (alarm bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	at := w.of(p, now)
	name := rangeOf(number)
	in := at.ranges[name]
	if in == nil {
		in = &watchedRange{numbers: map[string]bool{}}
		at.ranges[name] = in
	}
	if wrong {
		at.wrong++
		in.wrong++
	} else {
		in.numbers[number] = true
	}
	if in.wrong > p.Limits.RangeWrong || len(in.numbers) > p.Limits.RangeNumbers {
		alarm = !now.Before(at.paused[name])
		at.paused[name] = now.Add(watchPause)
	}
	if at.wrong > p.Limits.Wrong {
		alarm = alarm || !now.Before(at.paused[""])
		at.paused[""] = now.Add(watchPause)
	}
	return alarm
}
