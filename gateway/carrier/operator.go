package carrier

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"zvonok/gateway/smpp"
)

// Limits of an operator at work.
const (
	unboundGrace  = 5 * time.Second        // without a bind until waiting messages are given back
	partPatience  = 10 * time.Minute       // for a bind, of messages of which the operator has some parts
	notBoundRetry = 5 * time.Second        // RetryAfter of what is given back
	stableBind    = 30 * time.Second       // a session that lived this long was a good one: the backoff begins anew
	housekeeping  = 100 * time.Millisecond // between looks at deadlines and delayed parts
	leasePoll     = 100 * time.Millisecond // between looks whether a lease in doubt holds again
	yieldAfter    = 3                      // connections in a row that failed, before another process may try
	yieldPause    = 15 * time.Second       // before this one does again
	queryPause    = time.Hour              // after an operator said that it knows no query_sm
	retireTimeout = 10 * time.Second       // for outstanding answers of a session that is given up
)

// operator is one operator at work: its sessions, the queue before them, and what was learned about it.
//
// Each session that can carry messages has a goroutine that pulls from the queue while the session has room in its
// window and the pace has tokens, so messages go to whichever session is free, and nothing is pulled while nothing is
// bound. Outcomes come on the sessions' goroutines; they change the state under the lock and put results into a list
// from which one goroutine hands them to the callers, so that a caller's delay is never the session's.
type operator struct {
	cfg    OperatorConfig
	x      *Exchange
	log    *slog.Logger
	rules  *Rules
	coder  encoder
	reader receiptReader
	dials  *dialPool // nil without RoleUSSD
	ids    acceptedIDs

	mu         sync.Mutex
	queue      *queue
	delayed    []*message
	pace       *pace
	full       fullQueues
	circuit    circuit
	refs       *references
	form       form // what worked last
	links      map[Link]*link
	inflight   int           // parts out
	taken      int           // messages from Send to the return of their done
	settling   int           // those of them that have a result
	room       chan struct{} // closed when taken falls; nil while nobody waits
	draining   bool
	leased     int                  // binds that this process may have
	unbound    time.Time            // since when no session can send; zero while one can
	alarms     map[string]time.Time // by reason
	blocked    limits
	measured   time.Time     // when the gauges were last set
	bestRTT    time.Duration // the shortest median round trip of late
	bestRTTAt  time.Time
	queryAgain time.Time // before this it is not asked by query_sm

	aloneSlot int         // the only slot that may bind, -1 for all
	bindFails int         // refused binds in a row, all slots
	bindError string      // why the operator is not bound, for Status
	complaint smpp.Status // the last one about speed, for Status

	results resultList     // for the callers of Send, alarms, link changes
	replies resultList     // for the callers of Answer, whom a slow caller of Send must not delay
	tasks   sync.WaitGroup // slots, pullers, housekeeping
}

func newOperator(cfg OperatorConfig, x *Exchange) (*operator, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	rules, err := NewRules(cfg.Overrides...)
	if err != nil {
		return nil, fmt.Errorf("operator %q: %w", cfg.Name, err)
	}
	ids, err := NewIDRule(cfg.MessageID)
	if err != nil {
		return nil, fmt.Errorf("operator %q: %w", cfg.Name, err)
	}
	source, err := sourceAddress(cfg.Source)
	if err != nil {
		return nil, fmt.Errorf("operator %q: %w", cfg.Name, err)
	}
	command := smpp.CmdSubmitSM
	if cfg.Mode == Server {
		command = smpp.CmdDeliverSM
	}
	now := x.now()
	o := &operator{
		cfg:   cfg,
		x:     x,
		log:   x.cfg.Log.With("operator", cfg.Name),
		rules: rules,
		coder: encoder{
			command: command, source: source, serviceType: cfg.ServiceType, latinCoding: cfg.LatinCoding,
		},
		reader: receiptReader{
			operator: cfg.Name, ids: ids, errors: cfg.NetworkErrors, zone: cfg.Location, region: cfg.Region,
		},
		ids:       newAcceptedIDs(cfg.SystemID, cfg.Password),
		queue:     newQueue(),
		pace:      newPace(cfg.Rate, now),
		refs:      newReferences(uint16(rand.Uint32())),
		form:      form{method: cfg.Concatenation},
		links:     make(map[Link]*link),
		unbound:   now,
		alarms:    make(map[string]time.Time),
		aloneSlot: -1,
	}
	o.results.wake = make(chan struct{}, 1)
	o.replies.wake = make(chan struct{}, 1)
	if cfg.has(RoleUSSD) && x.cfg.Dial != nil {
		o.dials = newDialPool(x.cfg.Dial)
	}
	return o, nil
}

// send takes messages into the queue. See Exchange.Send.
func (o *operator) send(ctx context.Context, batch []SMS, done func(Result)) error {
	for i := range batch {
		m := &message{sms: batch[i], done: done}
		if err := o.admit(ctx, m); err != nil {
			for j := i; j < len(batch); j++ {
				o.refuse(&message{sms: batch[j], done: done}, ending{class: NeverWritten, reason: "not taken"})
			}
			return fmt.Errorf("send to operator %s: %w", o.cfg.Name, err)
		}
	}
	return nil
}

// admit waits for room and puts one message into the queue, or settles it at once when there is nothing to wait for.
func (o *operator) admit(ctx context.Context, m *message) error {
	for {
		o.mu.Lock()
		now := o.x.now()
		if e, refused := o.refusal(now); refused {
			o.mu.Unlock()
			o.refuse(m, e)
			return nil
		}
		if o.taken < o.cfg.QueueLimit {
			o.taken++
			m.entered = now
			m.sms.Attempt = max(m.sms.Attempt, 1)
			o.queue.push(m)
			o.wake()
			o.mu.Unlock()
			return nil
		}
		if o.room == nil {
			o.room = make(chan struct{})
		}
		room := o.room
		o.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// refusal says why nothing is taken now. o.mu is held.
func (o *operator) refusal(now time.Time) (ending, bool) {
	switch {
	case o.draining:
		return stopping, true
	case o.away(now):
		return notBound, true
	case o.circuit.open(now):
		return o.circuit.ending(now), true
	default:
		return ending{}, false
	}
}

// refuse settles a message that was never taken, on the caller's goroutine.
func (o *operator) refuse(m *message, e ending) {
	r := m.result(o.cfg.Name, e.class, -1)
	r.Reason, r.RetryAfter, r.Failover = e.reason, e.wait, e.wait > 0
	o.x.metrics.message(o.cfg.Name, e.class)
	m.done(r)
}

// away reports that the operator has had no session to send by for longer than a short reconnection takes.
func (o *operator) away(now time.Time) bool {
	return !o.unbound.IsZero() && now.Sub(o.unbound) >= unboundGrace
}

// ready reports whether a message sent now would be written soon.
func (o *operator) ready() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !o.draining && o.unbound.IsZero() && !o.circuit.open(o.x.now())
}

// appetite is how many messages of one part can be sent in a time.
func (o *operator) appetite(in time.Duration) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pace.advance(o.x.now())
	return o.appetiteLocked(in)
}

func (o *operator) appetiteLocked(in time.Duration) int {
	most, window := o.pace.rate*in.Seconds(), 0
	var slowest time.Duration
	for _, l := range o.links {
		if l.sends && !l.closing {
			window += o.cfg.Window
			slowest = max(slowest, l.session.Snapshot().RTTP50)
		}
	}
	if slowest > 0 {
		most = min(most, float64(window)*in.Seconds()/slowest.Seconds())
	}
	return max(int(most), 2*window, 1)
}

// started reports that a part of the message is with the operator or may be, so that only this operator can finish it.
func (m *message) started() bool {
	for i := range m.parts {
		if c := m.parts[i].class; c == OK || c == Unknown {
			return true
		}
	}
	return false
}

// ending is how a message leaves the carrier.
type ending struct {
	class  Class
	part   int           // the part that decided, -1 for none
	reason string        // when no part decided
	wait   time.Duration // earliest return of a message given back unsent
}

// The endings of messages that were not written.
var (
	stale    = ending{class: Stale, part: -1, reason: "stale"}
	stopping = ending{class: NeverWritten, part: -1, reason: "stopping"}
	notBound = ending{class: NeverWritten, part: -1, reason: "not bound", wait: notBoundRetry}
)

// finish hands over the Result of a message. o.mu is held; the message is in no list any more.
func (o *operator) finish(m *message, e ending, now time.Time) {
	// A part that may have been sent outweighs the reason why another was not.
	if e.class == Stale || e.class == NeverWritten {
		for i := range m.parts {
			if m.parts[i].class == Unknown {
				e.class = Unknown
			}
		}
	}
	r := m.result(o.cfg.Name, e.class, e.part)
	if r.Reason == "" {
		r.Reason = e.reason
	}
	if e.part < 0 {
		r.RetryAfter = e.wait
		// What did not get out because of this operator may go by another; what was stopped by us may not.
		r.Failover = e.class == NeverWritten && e.wait > 0 && !m.started()
	}
	m.finished, m.late = true, e.class == Unknown
	o.settling++
	o.x.metrics.message(o.cfg.Name, e.class)
	o.results.push(func() { m.done(r); o.release() })
}

// release makes room for one message after its result was taken.
func (o *operator) release() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.taken--
	o.settling--
	o.admitWaiting()
}

// admitWaiting lets those who wait in admit look again. o.mu is held.
func (o *operator) admitWaiting() {
	if o.room != nil {
		close(o.room)
		o.room = nil
	}
}

// wake lets the idle links look at the queue again. o.mu is held.
func (o *operator) wake() {
	for _, l := range o.links {
		if !l.idle {
			continue
		}
		select {
		case l.wakeup <- struct{}{}:
		default:
		}
	}
}

// housekeep ends what is out of time and gives back what cannot be sent. It runs until the operator is stopped.
func (o *operator) housekeep(ctx context.Context) {
	ticker := time.NewTicker(housekeeping)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		o.mu.Lock()
		now := o.x.now()
		for _, m := range o.queue.expired(now) {
			o.finish(m, stale, now)
		}
		o.bringBack(now)
		if o.x.cfg.Leases != nil {
			o.linkChanged()
		}
		if o.away(now) {
			// Only this operator can send what is left of a message of which it has a part.
			keep := func(m *message) bool { return m.started() && now.Sub(m.entered) < partPatience }
			for _, m := range o.queue.removeAll(keep) {
				o.finish(m, notBound, now)
			}
		}
		o.measure(now)
		o.mu.Unlock()
	}
}

// bringBack puts delayed parts whose time has come into the queue.
func (o *operator) bringBack(now time.Time) {
	keep := o.delayed[:0]
	for _, m := range o.delayed {
		switch {
		case m.deadline() <= now.UnixNano():
			o.finish(m, stale, now)
		case !m.due.After(now):
			m.due = time.Time{}
			o.queue.push(m)
			o.wake()
		default:
			keep = append(keep, m)
		}
	}
	clear(o.delayed[len(keep):])
	o.delayed = keep
}

// drain stops pulling and gives back everything that was not written.
func (o *operator) drain() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.draining = true
	now := o.x.now()
	for _, m := range o.queue.removeAll(func(*message) bool { return false }) {
		o.finish(m, stopping, now)
	}
	for _, m := range o.delayed {
		o.finish(m, stopping, now)
	}
	o.delayed = nil
	o.admitWaiting()
	for _, l := range o.links {
		select {
		case l.wakeup <- struct{}{}:
		default:
		}
	}
}
