package carrier

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"zvonok/gateway/lease"
	"zvonok/gateway/smpp"
)

// link is one session of an operator.
type link struct {
	id      Link
	session *smpp.Session
	lease   *lease.Lease // of its bind; nil when the process is alone, and for our server's sessions
	sends   bool         // it can carry what we send
	wakeup  chan struct{}
	// attached is closed when the link is one of the operator's, or never will be. Nothing that comes by it is looked
	// at before: an operator may have a dial waiting for the bind, and its answer needs the link.
	attached chan struct{}

	// The rest is covered by the operator's lock.
	out     int       // parts without an outcome
	idle    bool      // its puller waits ...
	why     Limit     // ... for this ...
	since   time.Time // ... since then
	closing bool      // takes nothing more
	retired bool      // is being closed by us
	syntax  int       // complaints about unreadable PDUs in a row
}

// sends reports whether a session can carry our messages: submit_sm goes from the ESME over a transceiver or a
// transmitter, deliver_sm to it over a transceiver or a receiver.
func sends(b smpp.Binding) bool {
	switch b.Type {
	case smpp.Transmitter:
		return b.Side == smpp.SideESME
	case smpp.Receiver:
		return b.Side == smpp.SideSMSC
	default:
		return true
	}
}

// bindTypes returns what each slot of a client operator binds as.
func (c OperatorConfig) bindTypes() []smpp.BindType {
	var types []smpp.BindType
	for range c.Binds {
		if c.Pair {
			types = append(types, smpp.Transmitter, smpp.Receiver)
		} else {
			types = append(types, smpp.Transceiver)
		}
	}
	return types
}

// keepLeased keeps one bind of a client operator, or pair of binds, bound whenever this process may have it, until ctx
// ends.
func (o *operator) keepLeased(ctx context.Context, bind int) {
	for {
		held, err := o.x.cfg.Leases.Acquire(ctx, o.cfg.Name, bind, o.cfg.Binds)
		if err != nil {
			return
		}
		o.share(+1)
		during, cancel := context.WithCancel(ctx)
		var slots sync.WaitGroup
		slots.Go(func() {
			select {
			case <-held.Ended():
				cancel()
				o.giveUp(held)
			case <-during.Done():
			}
		})
		per := 1
		if o.cfg.Pair {
			per = 2
		}
		var bound sync.WaitGroup
		for slot := bind * per; slot < (bind+1)*per; slot++ {
			bound.Go(func() { o.keepBound(during, slot, o.cfg.bindTypes()[slot], held) })
		}
		bound.Wait()
		cancel()
		slots.Wait()
		o.share(-1)
		held.Release()
	}
}

// share takes note that this process has one bind more or less, and so of how much of the operator's rate is its own.
func (o *operator) share(more int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.leased += more
	if o.x.cfg.Leases != nil && o.leased > 0 {
		o.pace.configure(o.cfg.Rate*float64(o.leased)/float64(o.cfg.Binds), o.x.now())
	}
}

// giveUp closes the sessions of a lease that has ended: politely when another process is to have the bind, at once when
// it may have it already.
func (o *operator) giveUp(held *lease.Lease) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, l := range o.links {
		switch {
		case l.lease != held:
		case held.Lost():
			l.closing = true
			l.session.Kill(lease.ErrEnded)
		default:
			o.retire(l, "another process is to have the bind")
		}
	}
	o.linkChanged()
}

// keepBound keeps one slot of a client operator bound until ctx ends.
func (o *operator) keepBound(ctx context.Context, slot int, t smpp.BindType, held *lease.Lease) {
	failures := 0 // of this slot in a row, refused binds apart
	for ctx.Err() == nil {
		if !o.mayBind(ctx, slot) {
			return
		}
		l := o.newLink()
		l.lease = held
		session, err := smpp.Dial(ctx, o.clientConfig(t, l))
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			failures++
			wait := o.bindFailed(slot, failures, err)
			var refused *smpp.BindError
			if failures >= yieldAfter && !errors.As(err, &refused) && held.Yield(yieldPause) {
				o.log.Warn("the operator cannot be reached from here: another process may have the bind", "slot", slot)
			}
			o.rest(ctx, wait)
			continue
		}
		since := o.x.now()
		o.bound(slot)
		o.lead(l, session)
		if o.x.now().Sub(since) >= stableBind {
			failures = 0
		}
		failures++
		o.rest(ctx, Reconnect(failures, rand.Float64()))
	}
}

func (o *operator) clientConfig(t smpp.BindType, l *link) smpp.ClientConfig {
	return smpp.ClientConfig{
		Address:     o.cfg.Address,
		TLS:         o.cfg.TLS,
		Dial:        o.cfg.Dial,
		Type:        t,
		SystemID:    o.cfg.SystemID,
		Password:    o.cfg.Password,
		SystemType:  o.cfg.SystemType,
		BindTimeout: o.cfg.BindTimeout,
		Session: smpp.SessionConfig{
			Window:          o.cfg.Window,
			ResponseTimeout: o.cfg.ResponseTimeout,
			EnquireInterval: o.cfg.EnquireInterval,
			EnquireTimeout:  o.cfg.EnquireTimeout,
			Handle:          func(in *smpp.Inbound) { o.handle(l, in) },
			Fence:           l.lease.Valid,
			Late:            lateTicket,
			Inspect:         o.inspect,
		},
	}
}

// rest waits unless the operator is stopped.
func (o *operator) rest(ctx context.Context, wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// bindPoll is how often a slot looks whether it may bind again while another slot alone may.
const bindPoll = time.Second

// mayBind waits while binds are forbidden to this slot. It is false when ctx ended.
func (o *operator) mayBind(ctx context.Context, slot int) bool {
	for {
		o.mu.Lock()
		alone := o.aloneSlot >= 0 && o.aloneSlot != slot
		o.mu.Unlock()
		if ctx.Err() != nil {
			return false
		}
		if !alone {
			return true
		}
		o.rest(ctx, bindPoll)
	}
}

// bindFailed takes note of a bind that did not succeed and returns how long the slot waits.
func (o *operator) bindFailed(slot, failures int, err error) time.Duration {
	var refused *smpp.BindError
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.x.now()
	if !errors.As(err, &refused) {
		wait := Reconnect(failures, rand.Float64())
		o.bindError = "no connection"
		if errors.Is(err, smpp.ErrTimeout) {
			o.bindError = "bind is not answered"
		}
		if o.aloneSlot == slot {
			o.aloneSlot = -1
		}
		o.x.metrics.bindFailures.WithLabelValues(o.cfg.Name, string(Rebind)).Inc()
		o.log.Warn("bind failed", "slot", slot, "retry_in", wait.Round(time.Millisecond), "err", err)
		return wait
	}
	o.bindFails++
	d := BindRetry(refused.Status, o.bindFails, rand.Float64())
	o.bindError = "bind refused: " + refused.Status.String()
	if d.Alone {
		o.aloneSlot = slot
	}
	o.x.metrics.bindFailures.WithLabelValues(o.cfg.Name, string(d.Class)).Inc()
	o.log.Warn("bind refused", "slot", slot, "status", refused.Status.String(), "class", string(d.Class),
		"retry_in", d.Wait.Round(time.Millisecond))
	if d.Alarm {
		o.alarm(Alarm{Reason: o.bindError, Class: d.Class, Status: refused.Status}, now)
	}
	return d.Wait
}

// bound takes note of a bind that succeeded.
func (o *operator) bound(slot int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.bindFails, o.bindError = 0, ""
	if o.aloneSlot == slot {
		o.aloneSlot = -1
	}
}

func (o *operator) newLink() *link {
	return &link{id: o.x.nextLink(), wakeup: make(chan struct{}, 1), attached: make(chan struct{})}
}

// lead serves a session from its bind to its end.
func (o *operator) lead(l *link, session *smpp.Session) {
	if !o.attach(l, session) {
		ctx, cancel := context.WithTimeout(context.Background(), retireTimeout)
		defer cancel()
		_ = session.Close(ctx)
		return
	}
	if l.sends {
		o.tasks.Go(func() { o.pull(l) })
	}
	<-session.Closing()
	o.detach(l)
	<-session.Done()
	o.forget(l)
}

// attach makes a session one of the operator's links; it does not when the operator is being stopped or the bind is to be
// another process's.
func (o *operator) attach(l *link, session *smpp.Session) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer close(l.attached)
	select {
	case <-l.lease.Ended(): // in the same moment
		return false
	default:
	}
	if o.draining {
		return false
	}
	l.session, l.sends = session, sends(session.Binding())
	o.links[l.id] = l
	o.log.Info("bound", "link", uint64(l.id), "type", session.Binding().Type.String())
	o.linkChanged()
	return true
}

// detach takes a link that is ending out of use.
func (o *operator) detach(l *link) {
	o.mu.Lock()
	defer o.mu.Unlock()
	l.closing = true
	o.linkChanged()
}

// forget removes a link whose session has ended with all its outcomes.
func (o *operator) forget(l *link) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.links, l.id)
	o.x.metrics.linksLost.WithLabelValues(o.cfg.Name).Inc()
	o.log.Info("link ended", "link", uint64(l.id), "cause", l.session.Err())
	for _, cause := range []error{smpp.ErrFenced, smpp.ErrStuck, smpp.ErrDead, smpp.ErrNacked, smpp.ErrFlood, smpp.ErrDeaf} {
		if errors.Is(l.session.Err(), cause) {
			o.alarm(Alarm{Reason: cause.Error(), Class: Rebind}, o.x.now())
		}
	}
}

// linkChanged tells when the first link that can send comes and when the last one goes. A link whose lease is in doubt
// cannot send: the process was asleep, or the database is away. o.mu is held.
func (o *operator) linkChanged() {
	up := false
	for _, l := range o.links {
		up = up || l.sends && !l.closing && l.lease.Valid()
	}
	if up == o.unbound.IsZero() {
		return
	}
	o.unbound = time.Time{}
	if !up {
		o.unbound = o.x.now()
	}
	if report := o.x.cfg.LinkChanged; report != nil {
		o.results.push(func() { report(o.cfg.Name, up) })
	}
}

// pull writes messages over a link until it takes no more.
func (o *operator) pull(l *link) {
	for {
		m := o.next(l)
		if m == nil {
			return
		}
		o.write(l, m)
	}
}

// retire gives a session up: it pulls nothing more, waits for outstanding answers and is closed with unbind; its slot
// then binds again. o.mu is held.
func (o *operator) retire(l *link, why string) {
	if l.retired {
		return
	}
	l.closing, l.retired = true, true
	o.log.Warn("session given up", "link", uint64(l.id), "cause", why)
	o.linkChanged()
	// Close waits for callbacks of the session, and this may be one.
	o.tasks.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), retireTimeout)
		defer cancel()
		_ = l.session.Close(ctx)
	})
}

// inspect takes a PDU that made no sense.
func (o *operator) inspect(s smpp.Strange) {
	o.x.metrics.strange.WithLabelValues(o.cfg.Name).Inc()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.alarm(Alarm{
		Reason: "unreadable PDU", Class: Rebind, Text: s.Header.Command.String() + ": " + s.Reason, PDU: s.Octets,
	}, o.x.now())
}

// closeLinks closes every session politely. The error says that answers were missing.
func (o *operator) closeLinks(ctx context.Context) error {
	o.mu.Lock()
	sessions := make([]*smpp.Session, 0, len(o.links))
	for _, l := range o.links {
		sessions = append(sessions, l.session)
	}
	o.mu.Unlock()
	errs := make([]error, len(sessions))
	var closing sync.WaitGroup
	for i, s := range sessions {
		closing.Go(func() { errs[i] = s.Close(ctx) })
	}
	closing.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close links of operator %s: %w", o.cfg.Name, err)
	}
	return nil
}
