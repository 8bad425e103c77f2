package reader

import "time"

// clock is a device's clock as one upload shows it.
type clock struct {
	// skew is server time minus device time; 0 when it is not more than the
	// time on the way, or when the upload has no sent_at.
	skew       time.Duration
	receivedAt time.Time
}

// measure compares the device's clock with ours.
func measure(sentAt, receivedAt time.Time) clock {
	c := clock{receivedAt: receivedAt}
	if sentAt.IsZero() {
		return c
	}
	// Sub saturates at 292 years, which is as wrong as wrong can be.
	if skew := receivedAt.Sub(sentAt); skew.Abs() > travelTime {
		c.skew = skew
	}
	return c
}

// flagged: the device's clock needs setting.
func (c clock) flagged() bool { return c.skew.Abs() > flaggedSkew }

// wild: nobody is told of events timed by this clock.
func (c clock) wild() bool { return c.skew.Abs() > wildSkew }

// correct returns when something happened that the device's clock dated raw. An
// event that seems to lie in the future by moments happened now. ok is false
// when the result cannot be: the clock was set between the event and the upload,
// or shows a year of its factory.
func (c clock) correct(raw time.Time) (at time.Time, ok bool) {
	at = raw.Add(c.skew)
	switch ahead := at.Sub(c.receivedAt); {
	case ahead > wildSkew || ahead < -oldest:
		return c.receivedAt, false
	case ahead > soonest:
		return c.receivedAt, true
	default:
		return at, true
	}
}
