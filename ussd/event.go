package ussd

import (
	"hash/maphash"
	"strings"
	"time"

	"zvonok/gateway/carrier"
	"zvonok/templates"
)

// kind is what a message from a link means, whatever its protocol.
type kind int

const (
	begin   kind = iota // the phone dialled
	input               // the person answered a page
	confirm             // the network says that a page was shown
	abort               // the dialogue is gone: the person hung up, or the network did
	// either is a call of an HTTP convention that does not say which of begin and input it is: an input if its session
	// is known, else a begin.
	either
)

// event is one message from a link: what every convention, SMPP or HTTP, is turned into.
type event struct {
	key
	kind   kind
	id     string // session id, "" when the link has none
	dialed string // the destination: the code, an alias, or nothing
	text   string
	// cumulative: text repeats all inputs so far, joined by stars.
	cumulative bool
	// once: there may be one answer only and it closes the dialogue (a phase 1 phone).
	once bool
	// mustAnswer: the caller waits for an answer to this very message, also when it is a repetition.
	mustAnswer bool
	hint       templates.Language
	sim        string // the keyed hash of the IMSI, "" when the link reports none
	// write hands an answer to the link. It must not block long; settled is called once with what became of it, unless
	// write returns an error.
	write func(a answer, settled func(carrier.Answered)) error
}

// guess returns the style for who is not known.
func (e *event) guess(latin bool) templates.Style { return Guess(e.phone, e.hint, latin) }

// answer is one page on its way to a phone.
type answer struct {
	text string
	gsm7 bool // fits the GSM 7-bit alphabet
	end  bool
}

// take is the only way in: it decides under the lock, without waiting for anything, what a message means for its
// phone's dialogue. It reports whether an answer will be written.
func (s *Server) take(e event) bool {
	now := s.config.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.find(e.key, now)
	if e.kind == either {
		e.kind = begin
		if d != nil && d.id == e.id {
			e.kind = input
			if d.asked.imprint == s.imprint(e) {
				e.kind = d.asked.kind
			}
		}
	}
	if e.kind == input && begins(s.codes, e.text) && !e.cumulative {
		e.kind = begin
	}
	e.link.meter.events[e.kind].Inc()
	switch e.kind {
	case begin:
		return s.begin(d, e, now)
	case input:
		return s.input(d, e, now)
	case confirm:
		s.confirmed(d, now)
	case abort:
		s.aborted(d, e, now)
	}
	return false
}

// begin opens a dialogue; it always replaces the one the phone had. The caller holds mu.
func (s *Server) begin(d *dialogue, e event, now time.Time) bool {
	if d != nil && d.repeats(e, begin, s.imprint(e), now) {
		return s.repeat(d, e, now)
	}
	former, after := "", (*dialogue)(nil)
	if d != nil {
		former, after = d.id, d.busy()
		s.drop(d, endedReplaced, now)
	}
	path, latin := dialled(s.codes, e.dialed, e.text)
	latin = latin || e.link.Latin
	switch s.bursts.admit(subscriber{e.link, e.phone}, now) {
	case turnedAway:
		return s.say(e, sayTooMany, e.guess(latin), now)
	case ignored:
		if e.link.Profile.FloodCloses || e.mustAnswer {
			return s.say(e, sayTooMany, e.guess(latin), now)
		}
		e.link.meter.ignored[ignoredFlood].Inc()
		return false
	}
	if s.draining || e.link.waiting.length >= maxWaiting {
		return s.say(e, sayLater, e.guess(latin), now)
	}
	d = &dialogue{key: e.key, id: e.id, former: former, latin: latin, hint: e.hint, sim: e.sim, after: after}
	d.asked = question{begin, e.id, s.imprint(e), now}
	s.add(d, now)
	s.start(&turn{event: e, dialogue: d, path: path}, now)
	return true
}

// input is an answer of the person. The caller holds mu.
func (s *Server) input(d *dialogue, e event, now time.Time) bool {
	if d == nil || d.over && !d.repeats(e, input, s.imprint(e), now) {
		return s.unknown(d, e, now)
	}
	if e.id != d.id {
		if e.id != "" && e.id == d.former {
			e.link.meter.ignored[ignoredStale].Inc()
			return false
		}
		// The only dialogue its phone has: gateways bump and drop ids in mid-dialogue.
		e.link.meter.attached.Inc()
		s.log.Debug("ussd: an input with another session id is taken for its phone's dialogue", "link", e.link.Name)
	}
	if d.repeats(e, input, s.imprint(e), now) {
		if e.link.Profile.LateAck && d.turn == nil && !d.over {
			d.doubt, d.doubtAt = &e, now // the acknowledgement that would tell may be a moment behind
		}
		return s.repeat(d, e, now)
	}
	if d.turn != nil {
		e.link.meter.ignored[ignoredEarly].Inc()
		return e.mustAnswer && s.say(e, sayLater, s.style(d), now)
	}
	d.steps++
	style := s.style(d)
	switch {
	case s.draining || e.link.waiting.length >= maxWaiting:
		s.drop(d, endedFailed, now)
		return s.say(e, sayLater, style, now)
	case d.steps >= maxSteps:
		s.drop(d, endedLong, now)
		return s.say(e, sayBye, style, now)
	}
	typed := e.text
	if e.cumulative {
		typed = s.lastInput(d.asked.imprint, e.text)
	}
	d.doubt = nil
	d.asked = question{input, e.id, s.imprint(e), now}
	if d.answered.fate == pending {
		d.answered.fate = accepted // it was shown: the person answered it
	}
	s.touch(d, now)
	s.start(&turn{event: e, dialogue: d, pressed: pressed(typed)}, now)
	return true
}

// unknown answers an input without a dialogue: one whose time is over, of another process, or made up. It says nothing
// about anybody. It counts like a begin, so that made-up inputs are no cheaper. The caller holds mu.
func (s *Server) unknown(d *dialogue, e event, now time.Time) bool {
	latin := e.link.Latin || d != nil && d.latin
	if s.bursts.admit(subscriber{e.link, e.phone}, now) != admitted && !e.mustAnswer {
		e.link.meter.ignored[ignoredFlood].Inc()
		return false
	}
	return s.say(e, sayExpired, e.guess(latin), now)
}

// confirmed: a page was shown. The caller holds mu.
func (s *Server) confirmed(d *dialogue, now time.Time) {
	if d == nil {
		return
	}
	if d.answered.fate == pending {
		d.answered.fate = accepted
	}
	if !d.over {
		s.touch(d, now)
	}
}

// aborted drops the dialogue; nothing is sent back. An abort that names another dialogue, one long replaced, is not
// meant for this one. The caller holds mu.
func (s *Server) aborted(d *dialogue, e event, now time.Time) {
	if d == nil || e.id != "" && e.id != d.id && e.id != d.asked.id {
		e.link.meter.ignored[ignoredStale].Inc()
		return
	}
	switch {
	case d.turn != nil:
		d.turn.orphaned = d.link.FollowBySMS
	case d.answered.fate != accepted && !d.shown(now):
		s.follow(d, d.answered.sms)
	}
	s.drop(d, endedAborted, now)
}

// busy returns the dialogue whose worker must be done before a successor of d starts, or nil.
func (d *dialogue) busy() *dialogue {
	if d.working {
		return d
	}
	if d.after != nil && d.after.working {
		return d.after
	}
	return nil
}

// shown says whether the last answer has been on the air long enough to have been seen.
func (d *dialogue) shown(now time.Time) bool {
	return d.answered.number > 0 && now.Sub(d.answered.at) >= shownAfter
}

// repeats says whether a message is a repetition of the last one by the gateway: the same words for the same dialogue
// within seconds. The person may truly press a key or dial a code twice, which shows by the answer in between: once it
// was acknowledged, an equal input, or an equal begin that no session id ties to the first, is a new one.
func (d *dialogue) repeats(e event, as kind, p imprint, now time.Time) bool {
	if d.asked.kind != as || d.asked.imprint != p || e.id != d.asked.id || now.Sub(d.asked.at) >= repeatWindow {
		return false
	}
	if e.cumulative || as == begin && e.id != "" {
		return true
	}
	return d.answered.fate != accepted || d.turn != nil
}

// imprint is what two messages with the same words have in common. It is kept in place of the words, which may be 64 kB.
type imprint struct {
	hash   uint64
	length int
}

func (s *Server) imprint(e event) imprint {
	text := e.text
	if e.kind == begin && !e.cumulative {
		text = e.dialed + "\x00" + e.text
	}
	return imprint{maphash.String(s.seed, text), len(text)}
}

// repeat answers a repetition: with nothing while the answer is on its way or has arrived, with the same answer again
// when the first did not get through. The caller holds mu.
func (s *Server) repeat(d *dialogue, e event, now time.Time) bool {
	e.link.meter.ignored[ignoredRepeat].Inc()
	switch {
	case d.turn != nil:
		if e.mustAnswer {
			d.turn.also = append(d.turn.also, e)
		}
		return e.mustAnswer
	case e.mustAnswer || d.answered.fate == failed && d.answered.number > 0:
		d.answered.fate, d.answered.at = pending, now
		s.start(&turn{event: e, dialogue: d, again: true, words: d.answered.answer, number: d.answered.number}, now)
		return true
	default:
		return false
	}
}

// lastInput returns what was added to the inputs of a caller that repeats them all.
func (s *Server) lastInput(before imprint, all string) string {
	n := before.length
	if 0 < n && n < len(all) && maphash.String(s.seed, all[:n]) == before.hash {
		return all[n:]
	}
	return all[strings.LastIndexByte(all, '*')+1:]
}
