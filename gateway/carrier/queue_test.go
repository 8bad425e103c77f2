package carrier

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"zvonok/access/phone"
)

func number(n int) phone.Number { return phone.Number(fmt.Sprintf("7900000%04d", n)) }

func queued(q *queue, id int64, to phone.Number, p Priority, life time.Duration) *message {
	m := &message{sms: SMS{ID: id, To: to, Priority: p}}
	if life > 0 {
		m.sms.Deadline = paceStart.Add(life)
	}
	q.push(m)
	return m
}

// takeAll empties the queue, freeing each recipient at once, and returns the ids.
func takeAll(q *queue) []int64 {
	var ids []int64
	for q.next() != nil {
		m := q.take()
		q.free(m.sms.To)
		ids = append(ids, m.sms.ID)
	}
	return ids
}

func expectOrder(t *testing.T, got []int64, want ...int64) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got order %v, want %v", got, want)
	}
}

func TestPrioritiesGoBeforeDeadlinesAndDeadlinesBeforeArrival(t *testing.T) {
	t.Parallel()
	q := newQueue()
	queued(q, 1, number(1), Bulk, time.Minute)
	queued(q, 2, number(2), Normal, time.Hour)
	queued(q, 3, number(3), Urgent, 15*time.Minute)
	queued(q, 4, number(4), Urgent, 5*time.Minute)
	queued(q, 5, number(5), Urgent, 5*time.Minute)
	queued(q, 6, number(6), 0, time.Minute) // no priority is Normal
	queued(q, 7, number(7), Urgent, 0)      // no deadline is the latest
	expectOrder(t, takeAll(q), 4, 5, 3, 7, 6, 2, 1)
}

// Pain 7: the order within a recipient is kept.
func TestARecipientsMessagesKeepTheirOrderWhateverTheirDeadlines(t *testing.T) {
	t.Parallel()
	q := newQueue()
	queued(q, 1, number(1), Urgent, time.Hour)
	queued(q, 2, number(1), Urgent, time.Minute)
	queued(q, 3, number(2), Urgent, 10*time.Minute)
	// The second message's deadline carries the first with it.
	expectOrder(t, takeAll(q), 1, 2, 3)
}

func TestARecipientHasOneMessageOutAtATime(t *testing.T) {
	t.Parallel()
	q := newQueue()
	queued(q, 1, number(1), Urgent, 0)
	queued(q, 2, number(1), Urgent, 0)
	queued(q, 3, number(1), Bulk, 0)
	first := q.take()
	if m := q.next(); m != nil {
		t.Fatalf("message %d is offered while %d is out", m.sms.ID, first.sms.ID)
	}
	q.pushFront(first)
	expectOrder(t, takeAll(q), 1, 2, 3)
}

func TestALowerPriorityStillGetsItsShare(t *testing.T) {
	t.Parallel()
	q := newQueue()
	for i := range 320 {
		queued(q, 1, number(i), Urgent, 0)
	}
	for i := range 100 {
		queued(q, 2, number(1000+i), Normal, 0)
		queued(q, 3, number(2000+i), Bulk, 0)
	}
	count := map[int64]int{}
	for range 320 {
		m := q.take()
		count[m.sms.ID]++
		q.free(m.sms.To)
	}
	if count[3] != 10 || count[2] != 30 || count[1] != 280 {
		t.Errorf("of 320 turns Urgent had %d, Normal %d, Bulk %d", count[1], count[2], count[3])
	}
}

func TestExpiredMessagesAreTakenOutWhereverTheyStand(t *testing.T) {
	t.Parallel()
	q := newQueue()
	queued(q, 1, number(1), Normal, time.Hour)
	queued(q, 2, number(1), Normal, time.Second)
	queued(q, 3, number(2), Bulk, time.Second)
	queued(q, 4, number(3), Urgent, 0)
	var ids []int64
	for _, m := range q.expired(paceStart.Add(time.Second)) {
		ids = append(ids, m.sms.ID)
	}
	if len(ids) != 2 || ids[0]+ids[1] != 5 {
		t.Errorf("expired: %v", ids)
	}
	expectOrder(t, takeAll(q), 4, 1)
	if q.len != 0 || len(q.lanes) != 0 || len(q.busy) != 0 {
		t.Errorf("left behind: %d messages, %d lanes, %d busy", q.len, len(q.lanes), len(q.busy))
	}
}

func TestARecipientCanBeTakenOutWhole(t *testing.T) {
	t.Parallel()
	q := newQueue()
	queued(q, 1, number(1), Urgent, 0)
	queued(q, 2, number(1), Bulk, 0)
	queued(q, 3, number(2), Bulk, 0)
	if got := len(q.removeRecipient(number(1))); got != 2 {
		t.Errorf("%d messages removed", got)
	}
	expectOrder(t, takeAll(q), 3)
}

// A queue under random traffic loses and invents nothing, never has two messages of a recipient out, and keeps the
// order of each recipient and class.
func TestTheQueueKeepsItsPromisesUnderRandomTraffic(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		q := newQueue()
		out := map[phone.Number]*message{}
		last := map[laneKey]int64{}
		in, done, id := 0, 0, int64(0)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"push", "take", "done", "back", "expire"}).Draw(t, "step") {
			case "push":
				id++
				life := time.Duration(rapid.IntRange(0, 50).Draw(t, "life")) * time.Second
				queued(q, id, number(rapid.IntRange(0, 5).Draw(t, "to")), Priority(rapid.IntRange(1, 3).Draw(t, "class")), life)
				in++
			case "take":
				m := q.next()
				if m == nil {
					continue
				}
				if got := q.take(); got != m {
					t.Fatalf("next offered %d, take gave %d", m.sms.ID, got.sms.ID)
				}
				if other := out[m.sms.To]; other != nil {
					t.Fatalf("%d is out while %d is", m.sms.ID, other.sms.ID)
				}
				key := laneKey{m.sms.To, m.class()}
				if m.sms.ID < last[key] {
					t.Fatalf("%d comes after %d", m.sms.ID, last[key])
				}
				last[key] = m.sms.ID
				out[m.sms.To] = m
			case "done":
				for to := range out {
					delete(out, to)
					q.free(to)
					done++
					break
				}
			case "back":
				for to, m := range out {
					delete(out, to)
					q.pushFront(m)
					break
				}
			case "expire":
				done += len(q.expired(paceStart.Add(time.Duration(rapid.IntRange(0, 50).Draw(t, "now")) * time.Second)))
			}
			if q.len+len(out)+done != in {
				t.Fatalf("%d in, %d waiting, %d out, %d done", in, q.len, len(out), done)
			}
		}
	})
}
