package menu

import (
	"sync"
	"time"

	"zvonok/access/phone"
)

// quota counts what each phone has asked for within a day. It forgets everything when the day is over or too many
// phones are known, whichever is earlier.
type quota struct {
	perDay, phones int

	mu    sync.Mutex
	since time.Time
	asked map[phone.Number]int
}

func newQuota(perDay, phones int) *quota { return &quota{perDay: perDay, phones: phones} }

// take uses one up; it is false when there is none left.
func (q *quota) take(number phone.Number, at time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.asked == nil || at.Sub(q.since) >= dayLength || len(q.asked) >= q.phones {
		q.asked, q.since = map[phone.Number]int{}, at
	}
	if q.asked[number] >= q.perDay {
		return false
	}
	q.asked[number]++
	return true
}
