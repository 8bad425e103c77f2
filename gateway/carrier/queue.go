package carrier

import (
	"container/heap"
	"math"
	"time"

	"zvonok/access/phone"
)

// queue is the order in which the messages of an operator go out.
//
// Between recipients: the priority classes one after another, and inside a class the earliest deadline first. So that
// no class starves under load, one turn in normalTurns belongs to Normal first and one in bulkTurns to Bulk.
//
// Within a recipient: at most one message is out, the next waits for its outcome, and messages of one class keep their
// order whatever their deadlines. A message that comes back unsent takes its place at the head again.
//
// A lane holds the messages of one recipient and class; lanes whose recipient is free stand in the heap of their
// class by the earliest deadline in them. queue has no lock; the operator's lock covers it.
type queue struct {
	lanes map[laneKey]*lane
	ready [Bulk]laneHeap // by class; index is Priority-1
	busy  map[phone.Number]bool
	turn  uint32
	order int64 // of arrival, for ties
	len   int
}

// Turns that belong to the lower classes.
const (
	normalTurns = 8  // every 8th message is Normal if one waits
	bulkTurns   = 32 // every 32nd is Bulk
)

type laneKey struct {
	to    phone.Number
	class Priority
}

type lane struct {
	key      laneKey
	messages []*message // in order of arrival
	deadline int64      // earliest of messages, Unix ns
	order    int64      // arrival of the first message
	index    int        // in its heap; -1 when not there
}

type laneHeap []*lane

func (h laneHeap) Len() int { return len(h) }
func (h laneHeap) Less(i, j int) bool {
	if h[i].deadline != h[j].deadline {
		return h[i].deadline < h[j].deadline
	}
	return h[i].order < h[j].order
}
func (h laneHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i]; h[i].index, h[j].index = i, j }
func (h *laneHeap) Push(x any)   { l := x.(*lane); l.index = len(*h); *h = append(*h, l) }
func (h *laneHeap) Pop() any {
	old := *h
	l := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	l.index = -1
	return l
}

func newQueue() *queue {
	return &queue{lanes: make(map[laneKey]*lane), busy: make(map[phone.Number]bool)}
}

// push puts a message behind those of its recipient and class.
func (q *queue) push(m *message) {
	l := q.lane(m)
	q.order++
	m.order = q.order
	l.messages = append(l.messages, m)
	q.len++
	q.place(l)
}

// pushFront puts back a message that was taken and not sent. Its recipient becomes free.
func (q *queue) pushFront(m *message) {
	l := q.lane(m)
	l.messages = append(l.messages, nil)
	copy(l.messages[1:], l.messages)
	l.messages[0] = m
	q.len++
	q.free(m.sms.To)
	q.place(l)
}

func (q *queue) lane(m *message) *lane {
	key := laneKey{m.sms.To, m.class()}
	l := q.lanes[key]
	if l == nil {
		l = &lane{key: key, index: -1}
		q.lanes[key] = l
	}
	return l
}

// place puts a lane where its messages and its recipient's state say.
func (q *queue) place(l *lane) {
	h := &q.ready[l.key.class-1]
	if len(l.messages) == 0 || q.busy[l.key.to] {
		if l.index >= 0 {
			heap.Remove(h, l.index)
		}
		if len(l.messages) == 0 {
			delete(q.lanes, l.key)
		}
		return
	}
	l.deadline = math.MaxInt64
	for _, m := range l.messages {
		l.deadline = min(l.deadline, m.deadline())
	}
	l.order = l.messages[0].order
	if l.index >= 0 {
		heap.Fix(h, l.index)
	} else {
		heap.Push(h, l)
	}
}

// next returns the message whose turn it is without taking it, or nil.
func (q *queue) next() *message {
	if l := q.nextLane(); l != nil {
		return l.messages[0]
	}
	return nil
}

func (q *queue) nextLane() *lane {
	order := [...]Priority{Urgent, Normal, Bulk}
	switch {
	case q.turn%bulkTurns == bulkTurns-1:
		order = [...]Priority{Bulk, Normal, Urgent}
	case q.turn%normalTurns == normalTurns-1:
		order = [...]Priority{Normal, Urgent, Bulk}
	}
	for _, class := range order {
		if h := q.ready[class-1]; len(h) > 0 {
			return h[0]
		}
	}
	return nil
}

// take removes the message that next returns; its recipient is busy until free or pushFront.
func (q *queue) take() *message {
	l := q.nextLane()
	m := l.messages[0]
	l.messages[0] = nil
	l.messages = l.messages[1:]
	q.len--
	q.turn++
	q.busy[m.sms.To] = true
	for class := Urgent; class <= Bulk; class++ {
		if other := q.lanes[laneKey{m.sms.To, class}]; other != nil {
			q.place(other)
		}
	}
	return m
}

// free says that the recipient's message has its outcome.
func (q *queue) free(to phone.Number) {
	delete(q.busy, to)
	for class := Urgent; class <= Bulk; class++ {
		if l := q.lanes[laneKey{to, class}]; l != nil {
			q.place(l)
		}
	}
}

// expired removes and returns the messages whose deadline has passed, of recipients that are free.
func (q *queue) expired(now time.Time) []*message {
	var out []*message
	for i := range q.ready {
		for len(q.ready[i]) > 0 && q.ready[i][0].deadline <= now.UnixNano() {
			out = append(out, q.removeFrom(q.ready[i][0], func(m *message) bool {
				return m.deadline() <= now.UnixNano()
			})...)
		}
	}
	return out
}

// removeRecipient removes and returns everything that waits for one recipient.
func (q *queue) removeRecipient(to phone.Number) []*message {
	var out []*message
	for class := Urgent; class <= Bulk; class++ {
		if l := q.lanes[laneKey{to, class}]; l != nil {
			out = append(out, q.removeFrom(l, func(*message) bool { return true })...)
		}
	}
	return out
}

// removeAll removes and returns every message that keep does not want.
func (q *queue) removeAll(keep func(*message) bool) []*message {
	var out []*message
	for _, l := range q.lanes {
		out = append(out, q.removeFrom(l, func(m *message) bool { return !keep(m) })...)
	}
	return out
}

func (q *queue) removeFrom(l *lane, match func(*message) bool) []*message {
	var out []*message
	keep := make([]*message, 0, len(l.messages))
	for _, m := range l.messages {
		if match(m) {
			out = append(out, m)
		} else {
			keep = append(keep, m)
		}
	}
	l.messages = keep
	q.len -= len(out)
	q.place(l)
	return out
}

// each calls f for every waiting message.
func (q *queue) each(f func(*message)) {
	for _, l := range q.lanes {
		for _, m := range l.messages {
			f(m)
		}
	}
}
