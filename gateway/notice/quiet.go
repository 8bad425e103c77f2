package notice

import (
	"time"
)

// fresh refuses what is no longer news (D6).
func fresh(candidates []*candidate, now time.Time) {
	for _, c := range candidates {
		switch {
		case !c.open():
		case c.news.moved:
			c.refuse(freshnessStage, Moved)
		case now.Before(c.news.expires):
			c.decided(freshnessStage, passed)
		default:
			c.refuse(freshnessStage, Stale)
		}
	}
}

// quiet defers what may wait until the quiet hours end, and lets it live on
// from there (D7).
func quiet(candidates []*candidate, now time.Time) {
	for _, c := range candidates {
		c.notAfter = c.news.expires
		if !c.open() {
			continue
		}
		if c.news.quiet == nil {
			c.decided(quietStage, exempt)
			continue
		}
		until := c.news.quiet.until(now.In(c.news.zone))
		if !until.After(now) {
			c.decided(quietStage, passed)
			continue
		}
		c.decided(quietStage, untilOutcome(until))
		c.notUntil = until
		if life := c.news.expires.Sub(now); c.notAfter.Before(until.Add(life)) {
			c.notAfter = until.Add(life)
		}
	}
}

// quietHours are minutes of the organisation's day.
type quietHours struct{ from, to time.Duration }

// until returns when the quiet hours that now lies in end, or now.
func (q quietHours) until(now time.Time) time.Time {
	midnight := time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, now.Location())
	at := func(day int, offset time.Duration) time.Time {
		d := midnight.AddDate(0, 0, day)
		return time.Date(d.Year(), d.Month(), d.Day(), 0, int(offset/time.Minute), 0, 0, now.Location())
	}
	for day := -1; day <= 0; day++ {
		from, to := at(day, q.from), at(day, q.to)
		if !to.After(from) {
			to = at(day+1, q.to)
		}
		if q.from != q.to && !now.Before(from) && now.Before(to) {
			return to
		}
	}
	return now
}
