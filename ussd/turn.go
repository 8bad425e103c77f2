package ussd

import (
	"context"
	"errors"
	"time"

	"zvonok/gateway/carrier"
	"zvonok/templates"
)

// turn is our move: an answer somebody waits for, from the event that asks for it until it is written.
type turn struct {
	event
	dialogue *dialogue // nil for words said outside of any dialogue
	path     []string  // of a begin: the shortcuts dialled
	pressed  string    // of an input: the key, "" when nothing was typed
	words    answer    // to be said as they are
	again    bool      // words are the dialogue's last answer once more
	number   int       // of that answer
	follow   string    // to be sent by SMS instead
	also     []event   // repetitions whose callers wait for the same answer
	at       time.Time // when the event came

	cancel   context.CancelFunc // of the step in a worker's hand
	overdue  *time.Timer
	done     bool // answered, or never to be
	orphaned bool // never to be answered, but its answer may follow by SMS
	next     *turn
}

// turns is a queue of turns.
type turns struct {
	first, last *turn
	length      int
}

func (q *turns) push(t *turn) {
	if q.last != nil {
		q.last.next = t
	} else {
		q.first = t
	}
	q.last = t
	q.length++
}

func (q *turns) pop() *turn {
	t := q.first
	if t == nil {
		return nil
	}
	q.first = t.next
	if q.first == nil {
		q.last = nil
	}
	t.next = nil
	q.length--
	return t
}

// drop gives a turn up: it will not be answered. The caller holds Server.mu.
func (t *turn) drop() {
	t.done = true
	if t.overdue != nil {
		t.overdue.Stop()
	}
	if t.cancel != nil && !t.orphaned {
		t.cancel()
	}
}

// saying is a text the engine says by itself.
type saying int

const (
	sayLater saying = iota
	sayExpired
	sayTooMany
	sayBye
)

// say queues words of our own that close whatever the phone sees. The caller holds mu.
func (s *Server) say(e event, what saying, style templates.Style, now time.Time) bool {
	if e.link.waiting.length >= 2*maxWaiting {
		e.link.meter.ignored[ignoredOverload].Inc()
		return false
	}
	e.link.meter.said[what].Inc()
	s.start(&turn{event: e, words: s.sentence(style, what)}, now)
	return true
}

// sentence returns a text of our own as a last page.
func (s *Server) sentence(style templates.Style, what saying) answer {
	words := s.frame(style)
	text := words.Later
	switch what {
	case sayExpired:
		text = words.Expired + " " + s.codes[0].String()
	case sayTooMany:
		text = words.TooMany
	case sayBye:
		text = words.Bye
	}
	return answer{text: text, gsm7: words.GSM7, end: true}
}

// start gives a turn to the workers, in its order among the turns of its dialogue. The deadline runs from here, not
// from when a worker is free. The caller holds mu.
func (s *Server) start(t *turn, now time.Time) {
	t.at = now
	d := t.dialogue
	if d == nil || t.again {
		s.enqueue(t)
		return
	}
	d.turn = t
	t.overdue = time.AfterFunc(s.config.Deadline, func() { s.tooLate(t) })
	if before := d.busy(); before != nil {
		before.heir = t
		return
	}
	s.enqueue(t)
}

func (s *Server) enqueue(t *turn) {
	t.link.waiting.push(t)
	s.meter.waiting.Inc()
	s.work.Signal()
}

// next returns the turn to take up, of the links in turn, so that a flood on one of them costs the others nothing but
// their share of the workers. It waits for one; when the server drains and nothing waits or is in hand it returns nil.
func (s *Server) next() *turn {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		for range s.ring {
			l := s.ring[s.whose]
			s.whose = (s.whose + 1) % len(s.ring)
			if t := l.waiting.pop(); t != nil {
				s.meter.waiting.Dec()
				s.inHand++
				return t
			}
		}
		if s.draining && s.inHand == 0 {
			s.work.Broadcast()
			return nil
		}
		s.work.Wait()
	}
}

// done puts a turn out of a worker's hand.
func (s *Server) done() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inHand--
	if s.draining {
		s.work.Broadcast()
	}
}

// run makes our move.
func (s *Server) run(base context.Context, t *turn) {
	switch {
	case t.follow != "":
		s.send(base, t)
		return
	case t.dialogue == nil:
		s.write(t, t.words, func(carrier.Answered) {})
		return
	case t.again:
		s.hand(t, t.words, t.number)
		return
	}
	d := t.dialogue
	s.mu.Lock()
	if t.done && !t.orphaned {
		s.mu.Unlock()
		return
	}
	ctx, cancel := context.WithTimeout(base, s.config.Deadline)
	defer cancel()
	t.cancel, d.working, d.after = cancel, true, nil
	from := d.stand
	s.mu.Unlock()

	m, err := s.step(ctx, t, from)
	if number, current := s.commit(t, &m, err); current {
		s.hand(t, m.answer, number)
	}
	s.release(d)
}

// commit makes the outcome of a step that of its dialogue, unless the dialogue has gone on or ended without it. It
// returns the number of the answer.
func (s *Server) commit(t *turn, m *move, err error) (number int, current bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, now := t.dialogue, s.config.Now()
	if t.done {
		if t.orphaned && err == nil {
			s.follow(d, m.screen.SMS)
		}
		return 0, false
	}
	t.drop()
	d.turn = nil
	if err != nil {
		if text := err.Error(); text != s.trouble { // the same trouble of everybody is one line
			s.log.Error("ussd: no screen", "link", d.link.Name, "after", d.stand.screen.Place.Name, "error", err)
			s.trouble = text
		}
		d.link.meter.said[sayLater].Inc()
		*m = move{answer: s.sentence(s.style(d), sayLater), ending: endedFailed}
	} else if s.trouble != "" {
		s.log.Info("ussd: there are screens again")
		s.trouble = ""
	}
	d.answered = answered{answer: m.answer, number: d.answered.number + 1, sms: m.screen.SMS, at: now}
	if m.ending == "" {
		d.stand = m.stand
		s.touch(d, now)
	} else {
		s.end(d, m.ending, now)
	}
	return d.answered.number, true
}

// release gives a dialogue back after a step; what waited for that starts now.
func (s *Server) release(d *dialogue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d.working = false
	if heir := d.heir; heir != nil {
		d.heir = nil
		s.enqueue(heir)
	}
}

// tooLate closes a dialogue whose answer is overdue: "try later" is better than a network error. What the menu still
// brings is dropped.
func (s *Server) tooLate(t *turn) {
	s.mu.Lock()
	if t.done {
		s.mu.Unlock()
		return
	}
	d := t.dialogue
	a := s.sentence(s.style(d), sayLater)
	d.answered = answered{answer: a, number: d.answered.number + 1, at: s.config.Now()}
	number := d.answered.number
	s.end(d, endedLate, d.answered.at)
	d.link.meter.said[sayLater].Inc()
	s.mu.Unlock()
	s.hand(t, a, number)
}

// style is that of the screen a dialogue shows, or the best guess before there is one. The caller holds mu.
func (s *Server) style(d *dialogue) templates.Style {
	if d.stand.screen.Style != (templates.Style{}) {
		return d.stand.screen.Style
	}
	return Guess(d.phone, d.hint, d.latin)
}

// hand gives the answer of a dialogue to its link and to everybody who asked the same meanwhile.
func (s *Server) hand(t *turn, a answer, number int) {
	d := t.dialogue
	s.write(t, a, func(news carrier.Answered) { s.settled(d, number, news) })
	s.mu.Lock()
	also := t.also
	t.also = nil
	s.mu.Unlock()
	for _, e := range also {
		s.write(&turn{event: e, at: t.at}, a, func(carrier.Answered) {})
	}
}

// write gives an answer to its link. settled hears what became of it, once, also when it was not written.
func (s *Server) write(t *turn, a answer, settled func(carrier.Answered)) {
	err := t.write(a, settled)
	end := "no"
	if a.end {
		end = "yes"
	}
	if err != nil {
		s.log.Debug("ussd: answer not written", "link", t.link.Name, "error", err)
		t.link.meter.unwritten.Inc()
		settled(carrier.Answered{Err: err, At: s.config.Now()})
		return
	}
	t.link.meter.answers[end].Inc()
	t.link.meter.seconds.Observe(s.config.Now().Sub(t.at).Seconds())
}

// settled takes the news of an answer. The caller of an old answer is told nothing: its page is gone.
func (s *Server) settled(d *dialogue, number int, news carrier.Answered) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.answered.number != number || d.turn != nil {
		return
	}
	now := s.config.Now()
	late := d.link.Profile.LateAck && d.shown(now)
	switch {
	case errors.Is(news.Err, carrier.ErrNoAnswer):
		// Nothing is known; the dialogue lives until its time is over.
	case news.Err != nil:
		// The operator has no link, or lost it. The dialogue does not depend on it: the gateway may ask again by the next.
		d.answered.fate = failed
		if !late {
			s.follow(d, d.answered.sms)
		}
	case news.Status != 0:
		d.answered.fate = failed
		d.link.meter.refused.Inc()
		cancelled, why := d.link.Profile.Cancelled, endedRefused
		if cancelled[0] != 0 && cancelled[0] <= news.Status && news.Status <= cancelled[1] {
			why = endedAborted
		} else if !late {
			s.follow(d, d.answered.sms)
		}
		if !d.over {
			s.drop(d, why, now)
		}
	default:
		d.answered.fate = accepted
		if e := d.doubt; e != nil && !d.over && now.Sub(d.doubtAt) < doubtWindow {
			s.input(d, *e, now) // it was a key, then
		}
	}
}

// follow lets an answer that was not shown go by SMS, if the link's setting says so and the screen says anything, once
// a dialogue, and not when the phone has dialled anew since. The caller holds mu.
func (s *Server) follow(d *dialogue, sms string) {
	if !d.link.FollowBySMS || s.config.Continue == nil || sms == "" || d.followed {
		return
	}
	if newer := s.dialogues[d.key]; newer != nil && newer != d {
		return
	}
	d.followed = true
	s.start(&turn{event: event{key: d.key}, follow: sms}, s.config.Now())
}

func (s *Server) send(base context.Context, t *turn) {
	ctx, cancel := context.WithTimeout(base, s.config.Deadline)
	defer cancel()
	if err := s.config.Continue(ctx, t.phone, t.follow); err != nil {
		s.log.Error("ussd: the answer that was not shown could not follow by SMS", "link", t.link.Name, "error", err)
		return
	}
	t.link.meter.followed.Inc()
}
