package carrier

import (
	"math"
	"time"

	"zvonok/gateway/smpp"
	"zvonok/templates/gsm"
)

// message is an SMS on its way through an operator. Between Send and its Result it is either in the queue, or delayed,
// or out; the operator's lock covers it.
type message struct {
	sms      SMS
	done     func(Result)
	entered  time.Time // into the queue for the first time
	order    int64     // of arrival
	finished bool      // its Result was handed over
	late     bool      // finished as Unknown: a late answer is news
	probed   bool      // met a full queue as the probe after a pause

	form      form
	segments  []gsm.Segment
	parts     []partState
	reference uint16
	tried     actionSet
	retries   int       // of the refused parts of a message whose other parts were accepted
	due       time.Time // when delayed
	out       int       // parts written whose outcome is awaited
}

// partState is a Part with what the carrier decided about it.
type partState struct {
	Part
	class    Class // of its last outcome; "" while it never had one
	decision Decision
	send     bool // to be written in the message's next turn
}

// actionSet is a set of Actions.
type actionSet uint8

func (s actionSet) has(a Action) bool { return s&(1<<a) != 0 }

// class returns the priority as an index of the queue.
func (m *message) class() Priority {
	switch p := m.sms.Priority; {
	case p == 0:
		return Normal
	case p < Urgent:
		return Urgent
	case p > Bulk:
		return Bulk
	default:
		return p
	}
}

// deadline returns the end of life in Unix ns.
func (m *message) deadline() int64 {
	if m.sms.Deadline.IsZero() {
		return math.MaxInt64
	}
	return m.sms.Deadline.UnixNano()
}

// cut makes parts of the text under the message's form.
func (m *message) cut() error {
	segments, err := m.form.segments(m.sms.Text)
	if err != nil {
		return err
	}
	m.segments = segments
	m.parts = make([]partState, len(segments))
	for i := range m.parts {
		m.parts[i] = partState{Part: Part{Number: i + 1, Count: len(segments)}, send: true}
	}
	return nil
}

// pending returns the parts and the tokens of the message's next turn.
func (m *message) pending() (parts, cost int) {
	for i := range m.parts {
		if m.parts[i].send {
			parts++
			cost += tokens(m.segments[i])
		}
	}
	return parts, cost
}

// step is what to do with a message whose parts all have an outcome.
type step struct {
	kind  stepKind
	class Class // of finish
	part  int   // the part that decided, index; -1 when none did
	wait  time.Duration
}

type stepKind uint8

const (
	finish stepKind = iota
	resend          // at once, at the head of its lane
	later           // after wait
)

// severity orders the classes of parts: the worst one is the message's.
func severity(c Class) int {
	switch c {
	case OK:
		return 0
	case NeverWritten, Throttle, Rebind:
		return 1
	case Unknown:
		return 2
	case QueueFull:
		return 3
	case Temporary:
		return 4
	case PermanentRoute:
		return 5
	case PermanentRecipient:
		return 6
	default:
		return 7
	}
}

// next decides what becomes of the message after a turn. The rules, in this order:
//
//   - every part accepted: finished;
//   - a refusal the carrier can do something about: the message changes its form and goes again, once per kind of
//     change, and as a whole only while no part was accepted;
//   - a refusal for good: finished as that;
//   - a refusal for now: finished as that, so that the caller keeps it, unless other parts are with the operator
//     already: then only the refused parts are kept here and tried again, because the caller could not send a part;
//   - parts that were never written or refused for speed go again at once;
//   - what is left are accepted parts and parts whose answer is missing: unknown.
func (m *message) next() step {
	var accepted, unknown, free, soft, hard int
	worst := -1
	for i := range m.parts {
		switch c := m.parts[i].class; c {
		case OK:
			accepted++
		case Unknown:
			unknown++
		case NeverWritten, Throttle, Rebind:
			free++
		case QueueFull, Temporary:
			soft++
		default:
			hard++
		}
		if worst < 0 || severity(m.parts[i].class) > severity(m.parts[worst].class) {
			worst = i
		}
	}
	taken := accepted + unknown
	if accepted == len(m.parts) {
		return step{kind: finish, class: OK, part: worst}
	}
	if m.adapt(taken == 0) {
		return step{kind: resend}
	}
	switch {
	case hard > 0:
		return step{kind: finish, class: m.parts[worst].class, part: worst}
	case soft > 0 && taken == 0:
		return step{kind: finish, class: m.parts[worst].class, part: worst}
	case soft > 0:
		m.retries++
		limit, wait := m.parts[worst].decision.Rule.Attempts, temporaryWait(m.retries, 0)
		if m.parts[worst].class == QueueFull {
			limit, wait = len(queueFullWaits)+1, m.parts[worst].decision.RetryAfter
		}
		if m.retries >= limit {
			return step{kind: finish, class: m.parts[worst].class, part: worst}
		}
		m.again(QueueFull, Temporary, NeverWritten, Throttle, Rebind)
		return step{kind: later, wait: wait}
	case free > 0:
		m.again(NeverWritten, Throttle, Rebind)
		return step{kind: resend}
	default:
		return step{kind: finish, class: Unknown, part: worst}
	}
}

// again marks the parts of these classes for the next turn.
func (m *message) again(classes ...Class) {
	for i := range m.parts {
		for _, c := range classes {
			if m.parts[i].class == c {
				m.parts[i].send = true
			}
		}
	}
}

// adapt changes the form as the first refused part with an untried action asks for, and marks the parts to send. whole
// says that no part is with the operator, so that the text may be cut anew. It reports whether anything changed.
func (m *message) adapt(whole bool) bool {
	for i := range m.parts {
		p := &m.parts[i]
		action := p.decision.Action
		if p.class == OK || p.class == Unknown || action == NoAction {
			continue
		}
		f := m.form
		recut := false
		switch action {
		case DropReceiptFlag:
			f.noReceipt = true
		case DefaultValidity, DropSchedule:
			f.noExpiry = true
		case DropTLVs:
			f.noTLVs = true
			if len(m.segments) > 1 && f.method == SAR || f.method == Payload && tokens(m.segments[0]) > 1 {
				f.method, recut = UDH16, true
			}
		case SwitchConcatenation:
			if len(m.segments) == 1 && tokens(m.segments[0]) == 1 {
				continue // it was not concatenated
			}
			f.method, recut = f.method.next(), true
			if f.method == "" || f.noTLVs && (f.method == SAR || f.method == Payload) {
				continue
			}
		default:
			continue
		}
		if f == m.form || recut && !whole || action != SwitchConcatenation && m.tried.has(action) {
			continue
		}
		m.form = f
		m.tried |= 1 << action
		if recut {
			// The text fitted before under a method with the same or tighter limits; if it does not now, the parts
			// stay as they are and the refusal stands.
			return m.cut() == nil
		}
		for j := range m.parts {
			if c := m.parts[j].class; c != OK && c != Unknown {
				m.parts[j].send = true
			}
		}
		return true
	}
	return false
}

// result makes the Result of a finished message.
func (m *message) result(operator string, class Class, part int) Result {
	r := Result{
		ID: m.sms.ID, Attempt: m.sms.Attempt, Operator: operator, Class: class,
		Counted: class == Unknown,
		Parts:   make([]Part, len(m.parts)),
	}
	taken := 0
	for i := range m.parts {
		r.Parts[i] = m.parts[i].Part
		if c := m.parts[i].class; c == OK || c == Unknown {
			taken++
		}
	}
	if part < 0 {
		return r
	}
	p := &m.parts[part]
	if p.class != class {
		return r
	}
	if p.Answered {
		r.Status = p.Status
		r.Reason = p.decision.Rule.Name
	}
	d := p.decision
	r.RetryAfter, r.Alarm, r.NumberBad = d.RetryAfter, d.Alarm, d.NumberBad
	r.Counted = r.Counted || d.Counted
	// Another operator would show the accepted parts a second time.
	r.Failover = d.Failover && taken == 0
	return r
}

// settle enters the answer to one part.
func (p *partState) settle(class Class, o smpp.Outcome, d Decision, at time.Time) {
	p.class, p.decision, p.send = class, d, false
	p.At = at
	switch o.Kind {
	case smpp.Answered:
		p.Written, p.Answered, p.Status = true, true, o.Status
		if class == OK {
			p.MessageID = o.MessageID()
			p.Key = CanonicalID(p.MessageID)
		}
	case smpp.Unknown:
		p.Written = true
	}
}
