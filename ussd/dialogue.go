package ussd

import (
	"time"

	"zvonok/access/phone"
	"zvonok/templates"
)

// key names the one dialogue a phone can have on a link (a phone holds one USSD transaction). The link is part of it:
// nobody reaches a dialogue by another operator's link. The phone is part of it: a session id alone, which gateways
// reuse and anybody can invent, names nothing.
type key struct {
	link  *link
	phone phone.Number
}

// link is the state of one Link. Its fields are guarded by Server.mu.
type link struct {
	Link
	speaks  convention // over HTTP
	meter   *linkMetrics
	open    list // dialogues, the one heard of longest ago first
	closed  list // dialogues that ended less than repeatWindow ago, kept to know repetitions
	waiting turns
}

// dialogue is one session of one phone: where it stands and what is needed to recognise repetitions and late messages.
//
// A begin makes a new dialogue and forgets the old one, so the pointer is the generation: whatever comes back late (a
// screen from the menu, an acknowledgement, a deadline) finds that its dialogue is over and does nothing.
//
// Server.mu guards all fields. While working is true one worker besides may read and replace stand.
type dialogue struct {
	key
	id     string // as the link names it, "" when it does not
	former string // the id of the dialogue this one replaced; its inputs are stale
	over   bool

	stand stand
	latin bool
	hint  templates.Language
	sim   string

	asked    question // the last message heard
	answered answered // the last answer given
	doubt    *event   // an input that repeats the last one, or is a key pressed twice
	doubtAt  time.Time
	steps    int
	followed bool // the SMS went out

	turn    *turn     // the step at work or waiting for a worker; nil while the person thinks
	working bool      // a worker has it in hand
	heir    *turn     // starts when that worker is done
	after   *dialogue // the replaced dialogue whose worker this one waits for

	heard      time.Time
	list       *list
	prev, next *dialogue
}

// question is what identifies a message for the sake of repetitions.
type question struct {
	kind    kind
	id      string  // the session id it came with; some gateways change theirs in mid-dialogue
	imprint imprint // of the words; for HTTP callers that repeat everything so far, of all of it
	at      time.Time
}

// answered is the last answer of a dialogue and what is known of its fate.
type answered struct {
	answer
	number int    // counts answers; news of an older one are of no interest
	sms    string // the same answer as an SMS
	fate   fate
	at     time.Time
}

// fate of an answer.
type fate int

const (
	pending fate = iota // written, no acknowledgement yet
	accepted
	failed // not written, refused, or lost with its link
)

// stand is where a dialogue stands. It is a value: a step computes the next one, and it takes effect or not as a whole.
type stand struct {
	places []Place // the screens under this one, the first screen first; empty on the first screen
	screen Screen
	pages  []int // where the pages before this one begin
	page   page
	wrong  int // answers in a row that were no key
}

// list is a doubly linked list of dialogues, oldest first. A dialogue is on one list at most.
type list struct {
	first, last *dialogue
	length      int
}

func (l *list) push(d *dialogue) {
	d.list, d.prev, d.next = l, l.last, nil
	if l.last != nil {
		l.last.next = d
	} else {
		l.first = d
	}
	l.last = d
	l.length++
}

func (l *list) remove(d *dialogue) {
	if d.prev != nil {
		d.prev.next = d.next
	} else {
		l.first = d.next
	}
	if d.next != nil {
		d.next.prev = d.prev
	} else {
		l.last = d.prev
	}
	d.list, d.prev, d.next = nil, nil, nil
	l.length--
}

// find returns the phone's dialogue, open or just closed, or nil. One past its time is dropped here, so that time is
// kept exactly whenever the sweep comes. The caller holds mu.
func (s *Server) find(k key, now time.Time) *dialogue {
	d := s.dialogues[k]
	switch {
	case d == nil:
		return nil
	case d.over && now.Sub(d.heard) >= repeatWindow:
		s.forget(d)
		return nil
	case !d.over && now.Sub(d.heard) >= k.link.TTL:
		s.drop(d, endedExpired, now)
		return nil
	default:
		return d
	}
}

// add opens a dialogue, after the oldest ones made room for it. The caller holds mu.
func (s *Server) add(d *dialogue, now time.Time) {
	for d.link.open.length >= d.link.MaxOpen {
		s.drop(d.link.open.first, endedEvicted, now)
	}
	for s.open >= s.config.MaxOpen {
		var oldest *dialogue
		for _, l := range s.ring {
			if first := l.open.first; first != nil && (oldest == nil || first.heard.Before(oldest.heard)) {
				oldest = first
			}
		}
		s.drop(oldest, endedEvicted, now)
	}
	d.heard = now
	s.dialogues[d.key] = d
	d.link.open.push(d)
	s.open++
	s.meter.open.Inc()
}

// drop ends a dialogue and forgets it at once. The caller holds mu.
func (s *Server) drop(d *dialogue, why ending, now time.Time) {
	s.end(d, why, now)
	s.forget(d)
}

// touch marks that something was heard of an open dialogue. The caller holds mu.
func (s *Server) touch(d *dialogue, now time.Time) {
	d.heard = now
	if l := d.list; l != nil {
		l.remove(d)
		l.push(d)
	}
}

// end closes a dialogue: its step, if any, will not be answered any more. It stays findable for repetitions until
// forget. The caller holds mu.
func (s *Server) end(d *dialogue, why ending, now time.Time) {
	if d.over {
		return
	}
	d.over, d.heard = true, now
	if d.turn != nil {
		d.turn.drop()
		d.turn = nil
	}
	d.stand = stand{}
	s.open--
	s.meter.open.Dec()
	d.link.meter.ended[why].Inc()
	d.link.open.remove(d)
	d.link.closed.push(d)
}

// forget removes every trace of a closed dialogue. The caller holds mu.
func (s *Server) forget(d *dialogue) {
	if s.dialogues[d.key] == d {
		delete(s.dialogues, d.key)
	}
	if d.list != nil {
		d.list.remove(d)
	}
}

// sweep drops dialogues past their time, open and closed.
func (s *Server) sweep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.config.Now()
	for _, l := range s.ring {
		for d := l.open.first; d != nil && now.Sub(d.heard) >= l.TTL; d = l.open.first {
			s.drop(d, endedExpired, now)
		}
		for d := l.closed.first; d != nil && now.Sub(d.heard) >= repeatWindow; d = l.closed.first {
			s.forget(d)
		}
	}
}
