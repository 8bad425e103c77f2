package ussd

import (
	"time"

	"zvonok/access/phone"
)

// bursts counts the begins of each phone on each link. A minute begins with a phone's first begin; ten are served, the
// next is told so, the rest of the minute is turned away.
//
// Two generations of a map, changed every minute, forget phones without looking for them; a generation that is full
// changes early, so that a flood from ever new numbers costs a bounded amount of memory and at worst lets some phone
// start its minute anew.
type bursts struct {
	now, before map[subscriber]spell
	since       time.Time
}

// subscriber is a phone on a link: a forged flood on one link must not cost a phone its service on another.
type subscriber struct {
	link  *link
	phone phone.Number
}

// spell is a phone's minute.
type spell struct {
	since time.Time
	count uint16
}

// admission is what a phone's begin gets.
type admission int

const (
	admitted   admission = iota
	turnedAway           // the first over the limit: say so
	ignored              // the others
)

func newBursts(at time.Time) *bursts {
	return &bursts{now: map[subscriber]spell{}, before: map[subscriber]spell{}, since: at}
}

// admit counts one begin.
func (b *bursts) admit(who subscriber, at time.Time) admission {
	if at.Sub(b.since) >= burstPeriod || len(b.now) >= maxBursts {
		b.before, b.now, b.since = b.now, make(map[subscriber]spell, len(b.now)/2), at
	}
	r, ok := b.now[who]
	if !ok {
		r = b.before[who]
	}
	if at.Sub(r.since) >= burstPeriod {
		r = spell{since: at}
	}
	if r.count < burst+2 {
		r.count++
		b.now[who] = r
	}
	switch {
	case r.count <= burst:
		return admitted
	case r.count == burst+1:
		return turnedAway
	default:
		return ignored
	}
}
