package carrier

import (
	"errors"
	"math/rand/v2"
	"time"

	"zvonok/access/phone"
	"zvonok/gateway/smpp"
)

// next waits until a message may be written over the link and returns it taken from the queue, its parts counted as
// out. It returns nil when the link takes no more.
func (o *operator) next(l *link) *message {
	for {
		o.mu.Lock()
		if l.closing || o.draining {
			o.mu.Unlock()
			return nil
		}
		now := o.x.now()
		o.waited(l, now)
		var m *message
		wait, why := leasePoll, LimitDatabase
		if l.lease.Valid() {
			m, wait, why = o.pick(l, now)
		}
		l.idle, l.why, l.since = m == nil, why, now
		o.mu.Unlock()
		if m != nil {
			return m
		}
		o.pause(l, wait)
	}
}

// waited adds up for how long the link has waited for what. o.mu is held.
func (o *operator) waited(l *link, now time.Time) {
	if l.idle && l.why != LimitNothing {
		o.blocked.add(l.why, now.Sub(l.since), now)
	}
	l.since = now
}

// pause waits for a wake-up of the link or for the time to pass; 0 is for ever.
func (o *operator) pause(l *link, wait time.Duration) {
	var expired <-chan time.Time
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		expired = timer.C
	}
	select {
	case <-l.wakeup:
	case <-expired:
	case <-l.session.Closing():
	}
}

// pick takes the next message if the link, the pace and the message's recipient allow it; otherwise it says how long to
// wait (0 is until something happens) and for what. o.mu is held.
func (o *operator) pick(l *link, now time.Time) (m *message, wait time.Duration, why Limit) {
	for {
		m := o.queue.next()
		switch {
		case m == nil:
			return nil, 0, LimitNothing
		case m.deadline() <= now.UnixNano():
			o.drop(stale, now)
			continue
		case o.circuit.open(now):
			return nil, o.circuit.openUntil.Sub(now), LimitOperator
		}
		if wait := o.full.deferred(m.sms.To, now); wait > 0 {
			o.deferRecipient(m.sms.To, wait, now)
			continue
		}
		if m.parts == nil && !o.prepare(m, now) {
			continue
		}
		if (o.pace.probing || o.circuit.probing(now)) && o.inflight > 0 {
			return nil, 0, LimitOperator
		}
		parts, cost := m.pending()
		if free := o.cfg.Window - l.out; free < min(parts, o.cfg.Window) {
			return nil, 0, LimitWindow
		}
		if wait := o.pace.wait(cost, now); wait > 0 {
			why := LimitRate
			if o.pace.paused(now) || o.pace.rate < o.pace.configured {
				why = LimitOperator
			}
			return nil, wait, why
		}
		o.pace.take(cost)
		o.queue.take()
		m.out = parts
		l.out += parts
		o.inflight += parts
		return m, 0, LimitNothing
	}
}

// prepare cuts a message into parts. A text that cannot be cut is the message's fault.
func (o *operator) prepare(m *message, now time.Time) bool {
	m.form = o.form
	if err := m.cut(); err != nil {
		o.drop(ending{class: PermanentMessage, part: -1, reason: "text too long"}, now)
		o.alarm(Alarm{Reason: "text too long", Class: PermanentMessage, Delivery: m.sms.ID, Text: err.Error()}, now)
		return false
	}
	if len(m.parts) > 1 {
		m.reference = o.refs.take(m.sms.To)
	}
	return true
}

// drop ends the message whose turn it is without writing it.
func (o *operator) drop(e ending, now time.Time) {
	m := o.queue.take()
	o.queue.free(m.sms.To)
	o.finish(m, e, now)
}

// deferRecipient gives back everything that waits for a recipient whose queue with the operator is full.
func (o *operator) deferRecipient(to phone.Number, wait time.Duration, now time.Time) {
	for _, m := range o.queue.removeRecipient(to) {
		if m.started() {
			o.delay(m, wait, now)
			continue
		}
		o.finish(m, ending{class: QueueFull, part: -1, reason: "recipient deferred", wait: wait}, now)
	}
}

// write sends the parts of a message that next returned. Every part gets its outcome: from the session, or here.
func (o *operator) write(l *link, m *message) {
	now := o.x.now()
	for i := range m.segments {
		if !m.parts[i].send {
			continue
		}
		err := l.session.Submit(o.x.ctx, smpp.Request{
			PDU:   o.coder.pdu(m, i, now),
			Token: &ticket{operator: o, link: l, message: m, part: i},
			Done:  settleTicket,
		})
		if err == nil {
			continue
		}
		outcome := smpp.Outcome{Kind: smpp.NeverWritten, Err: err}
		o.settle(&ticket{operator: o, link: l, message: m, part: i}, outcome)
	}
}

// ticket finds the part an outcome belongs to.
type ticket struct {
	operator *operator
	link     *link
	message  *message
	part     int
}

func settleTicket(outcome smpp.Outcome) {
	t := outcome.Token.(*ticket)
	t.operator.settle(t, outcome)
}

// settle takes the outcome of one part.
func (o *operator) settle(t *ticket, outcome smpp.Outcome) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.x.now()
	m, l := t.message, t.link
	l.out--
	o.inflight--
	m.out--
	o.judge(l, m, t.part, outcome, now)
	if m.out == 0 {
		o.conclude(m, now)
	}
	o.wake()
}

// judge applies the table to one outcome and lets the pace, the circuit and the session draw their conclusions.
func (o *operator) judge(l *link, m *message, part int, outcome smpp.Outcome, now time.Time) {
	p := &m.parts[part]
	switch outcome.Kind {
	case smpp.NeverWritten:
		if errors.Is(outcome.Err, smpp.ErrNotEncodable) {
			d := Decision{
				Rule:  Rule{Name: "not encodable", Class: PermanentMessage},
				Class: PermanentMessage, Counted: true, Alarm: true,
			}
			p.settle(PermanentMessage, outcome, d, now)
			o.alarm(Alarm{
				Reason: "not encodable", Class: PermanentMessage, Delivery: m.sms.ID, Text: outcome.Err.Error(),
			}, now)
			return
		}
		o.pace.giveBack(tokens(m.segments[part]))
		p.settle(NeverWritten, outcome, Decision{Class: NeverWritten}, now)
		return
	case smpp.Unknown:
		p.settle(Unknown, outcome, Decision{Class: Unknown, Counted: true}, outcome.SentAt)
		return
	}
	o.x.metrics.answer(o.cfg.Name, outcome.RTT)

	d := o.rules.Decide(Answer{
		Status: outcome.Status, Nack: outcome.Nacked, Attempt: m.sms.Attempt + int16(m.retries),
		Foreign: o.x.router.foreign(m.sms.To, o.cfg.Name, now),
		Jitter:  rand.Float64(),
	})
	class := d.Class
	if class == QueueFull {
		// The probe after a pause speaks about the link, too; but only once, since it may have hit a recipient that is
		// full indeed and would come back as the next probe.
		probe := o.pace.probing && !m.probed
		m.probed = m.probed || probe
		if o.full.link(m.sms.To, now) || probe {
			class = Throttle
		} else {
			d.RetryAfter = o.full.deferral(m.sms.To, now)
		}
	}
	if outcome.Status == smpp.StatusSystemError {
		if o.circuit.failed(now) {
			o.openCircuit(now)
		}
	} else {
		o.circuit.answered(now)
	}
	if class != Throttle {
		o.pace.answered()
	}
	switch class {
	case OK:
		o.pace.accept(now)
		if len(o.full.rows) > 0 {
			o.full.clear(m.sms.To)
		}
		o.learnPorting(m.sms.To, now)
	case Throttle:
		o.complaint = outcome.Status
		if o.pace.throttled(outcome.SentAt, now) {
			o.x.metrics.throttles.WithLabelValues(o.cfg.Name).Inc()
			o.log.Warn("operator throttles", "rate", o.pace.rate, "pause", o.pace.pause)
		}
	case Rebind:
		o.retire(l, d.Rule.Name)
	}
	if d.Action == LearnPorted {
		o.taught(o.x.router.refused(m.sms.To, o.cfg.Name, now))
	}
	o.syntax(l, outcome.Status)
	p.settle(class, outcome, d, now)
	if d.Alarm {
		o.complain(m, part, d, now)
	}
}

// learnPorting takes note that the operator accepted a number, which is news when another one had refused it.
func (o *operator) learnPorting(to phone.Number, now time.Time) {
	if learned, news := o.x.router.accepted(to, o.cfg.Name, now); news {
		o.taught(learned)
	}
}

// taught reports what an answer taught about a number.
func (o *operator) taught(p Ported) {
	if report := o.x.cfg.Ported; report != nil {
		o.results.push(func() { report(p) })
	}
}

// syntax counts complaints about PDUs the peer cannot read; several in a row are a session out of step.
func (o *operator) syntax(l *link, s smpp.Status) {
	if s != smpp.StatusInvalidCommandLength && s != smpp.StatusInvalidCommandID {
		l.syntax = 0
		return
	}
	if l.syntax++; l.syntax >= syntaxErrors {
		o.retire(l, "unreadable PDUs")
	}
}

// complain raises the alarm of a refusal. Of a wrong message and of an unknown code people get to see the PDU.
func (o *operator) complain(m *message, part int, d Decision, now time.Time) {
	a := Alarm{Reason: d.Rule.Name, Class: d.Class, Status: d.Rule.Status, Delivery: m.sms.ID}
	if d.Class == PermanentMessage || !o.rules.Known(d.Rule.Status) {
		a.PDU, _ = smpp.Append(nil, 0, 0, o.coder.pdu(m, part, now))
	}
	o.alarm(a, now)
}

// openCircuit gives back what waits, so that it may go by another operator.
func (o *operator) openCircuit(now time.Time) {
	for _, m := range o.queue.removeAll(func(m *message) bool { return m.started() }) {
		o.finish(m, o.circuit.ending(now), now)
	}
	o.x.metrics.circuits.WithLabelValues(o.cfg.Name).Inc()
	o.alarm(Alarm{Reason: "circuit open", Class: Temporary, Status: smpp.StatusSystemError}, now)
}

// conclude decides about a message that has no part out any more.
func (o *operator) conclude(m *message, now time.Time) {
	was := m.form
	s := m.next()
	o.adopt(m, s)
	if m.form.method != was.method && len(m.parts) > 1 && m.reference == 0 {
		m.reference = o.refs.take(m.sms.To)
	}
	switch s.kind {
	case finish:
		reason := ""
		if s.class == Unknown {
			reason = "no answer"
		}
		o.queue.free(m.sms.To)
		o.finish(m, ending{class: s.class, part: s.part, reason: reason}, now)
		if s.class == QueueFull {
			o.deferRecipient(m.sms.To, max(o.full.deferred(m.sms.To, now), time.Second), now)
		}
	case resend:
		o.requeue(m, now)
	case later:
		o.queue.free(m.sms.To)
		o.delay(m, s.wait, now)
	}
}

// delay keeps a message of which some parts are with the operator until its other parts may be tried again.
func (o *operator) delay(m *message, wait time.Duration, now time.Time) {
	m.due = now.Add(wait)
	o.delayed = append(o.delayed, m)
}

// adopt keeps the way of joining parts that an operator accepted after it had refused another.
func (o *operator) adopt(m *message, s step) {
	if s.kind != finish || s.class != OK || !m.tried.has(SwitchConcatenation) && !m.tried.has(DropTLVs) {
		return
	}
	if o.form.method == m.form.method && o.form.noTLVs == m.form.noTLVs {
		return
	}
	o.form.method, o.form.noTLVs = m.form.method, m.form.noTLVs
	o.log.Warn("operator refuses the configured form of messages; another one is used from now on",
		"concatenation", m.form.method, "without_tlvs", m.form.noTLVs)
}

// requeue puts a message back at the head of its lane, or ends it when its time is over, the operator stops or its
// circuit is open.
func (o *operator) requeue(m *message, now time.Time) {
	switch {
	case o.draining:
		o.queue.free(m.sms.To)
		o.finish(m, stopping, now)
	case m.deadline() <= now.UnixNano():
		o.queue.free(m.sms.To)
		o.finish(m, stale, now)
	case o.circuit.open(now) && !m.started():
		// It was under way when the circuit opened; another operator may have it, like all that waited.
		o.queue.free(m.sms.To)
		o.finish(m, o.circuit.ending(now), now)
	default:
		o.queue.pushFront(m)
	}
}

func lateTicket(outcome smpp.Outcome) {
	// Answers to USSD requests have no ticket; when they are late the dialogue is over.
	if t, ok := outcome.Token.(*ticket); ok {
		t.operator.late(t, outcome)
	}
}

// late takes an answer that came after its part was given up as unknown.
func (o *operator) late(t *ticket, outcome smpp.Outcome) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.x.now()
	m := t.message
	o.x.metrics.late.WithLabelValues(o.cfg.Name).Inc()
	if m.parts[t.part].class != Unknown {
		return
	}
	o.judge(t.link, m, t.part, outcome, now)
	if !m.finished || !m.late || o.x.cfg.Late == nil {
		return
	}
	// The message was reported as unknown. What is known now: all accepted, or refused and so surely not sent.
	worst, class := -1, OK
	for i := range m.parts {
		c := m.parts[i].class
		if c == Unknown {
			return
		}
		if worst < 0 || severity(c) > severity(m.parts[worst].class) {
			worst, class = i, c
		}
	}
	m.late = false
	r := m.result(o.cfg.Name, class, worst)
	if class == Throttle || class == Rebind || class == NeverWritten {
		r.RetryAfter = time.Second
	}
	if r.Reason == "" {
		r.Reason = "late answer"
	}
	report := o.x.cfg.Late
	o.results.push(func() { report(r) })
}
