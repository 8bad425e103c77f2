package smpptest

import (
	"cmp"
	"math/rand/v2"
	"time"

	"zvonok/gateway/smpp"
)

// promise plans the receipts of an accepted message.
func (o *Operator) promise(b *Behaviour, in *smpp.Inbound, m *smpp.Message, n uint64, id string, draw *rand.Rand) {
	now := in.ReceivedAt
	state, code := smpp.StateDelivered, 0
	if share(draw, b.Undelivered) {
		state, code = b.UndeliveredState, b.ReceiptError
	}
	wait := b.ReceiptDelay
	if b.ReceiptJitter > 0 {
		wait += time.Duration(draw.Int64N(int64(b.ReceiptJitter)))
	}
	o.rememberState(id, accepted{doneAt: now.Add(wait), state: state})
	asked := m.RegisteredDelivery & 0x03
	if asked == 0 || asked == 2 && state == smpp.StateDelivered {
		return
	}
	r := receipt{
		due:      now.Add(wait),
		systemID: in.Session().Binding().SystemID,
		bind:     in.Session(),
		id:       b.receiptID(o.cfg.Seed, n),
		message:  addresses{m.Source, m.Destination},
		state:    state,
		err:      code,
		submitAt: now.In(o.cfg.Zone),
	}
	if share(draw, b.LostReceipts) {
		return
	}
	if share(draw, b.EarlyReceipts) && r.bind.Binding().Type == smpp.Transceiver {
		// Queued before the answer, so it is on the wire before it.
		o.sendReceipt(b, r, r.bind, true)
	} else {
		o.schedule(r)
	}
	if share(draw, b.DoubleReceipts) {
		o.schedule(r)
	}
	if share(draw, b.Intermediate) {
		r.state, r.err = smpp.StateEnroute, 0
		o.schedule(r)
	}
}

// schedule plans a receipt.
func (o *Operator) schedule(r receipt) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.receiptNo++
	r.order = o.receiptNo
	o.pushReceipt(r)
	if o.receipts[0].order == r.order {
		select {
		case o.wake <- struct{}{}:
		default:
		}
	}
}

func earlier(a, b *receipt) bool {
	return cmp.Or(a.due.Compare(b.due), cmp.Compare(a.order, b.order)) < 0
}

func (o *Operator) pushReceipt(r receipt) {
	h := append(o.receipts, r)
	for i := len(h) - 1; i > 0; {
		parent := (i - 1) / 2
		if !earlier(&h[i], &h[parent]) {
			break
		}
		h[i], h[parent] = h[parent], h[i]
		i = parent
	}
	o.receipts = h
}

func (o *Operator) popReceipt() receipt {
	h := o.receipts
	first, last := h[0], len(h)-1
	h[0] = h[last]
	h[last] = receipt{}
	h = h[:last]
	for i := 0; ; {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < last; child++ {
			if earlier(&h[child], &h[least]) {
				least = child
			}
		}
		if least == i {
			break
		}
		h[i], h[least] = h[least], h[i]
		i = least
	}
	o.receipts = h
	return first
}

// sendReceipts sends receipts when they are due.
func (o *Operator) sendReceipts() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		o.mu.Lock()
		wait := time.Hour
		var due *receipt
		if len(o.receipts) > 0 {
			if wait = time.Until(o.receipts[0].due); wait <= 0 {
				r := o.popReceipt()
				due = &r
			}
		}
		o.mu.Unlock()
		if due != nil {
			b := o.behaviour.Load()
			o.sendReceipt(b, *due, o.bindFor(b, due), false)
			if o.ctx.Err() != nil {
				return
			}
			continue
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-o.wake:
		case <-o.ctx.Done():
			return
		}
	}
}

// bindFor chooses the bind a receipt goes over: the one of the message, or
// another of the account that can take it. It may return nil.
func (o *Operator) bindFor(b *Behaviour, r *receipt) *smpp.Session {
	if !b.ReceiptElsewhere && takes(r.bind) {
		return r.bind
	}
	all := o.sessions(r.systemID)
	for _, s := range all {
		if s != r.bind && takes(s) {
			return s
		}
	}
	if takes(r.bind) {
		return r.bind
	}
	return nil
}

// takes says whether a message can be delivered over a session.
func takes(s *smpp.Session) bool {
	select {
	case <-s.Closing():
		return false
	default:
	}
	switch binding := s.Binding(); {
	case binding.Side == smpp.SideSMSC:
		return binding.Type != smpp.Transmitter
	default:
		return binding.Type != smpp.Receiver
	}
}

// sendReceipt sends a receipt and plans it anew if it is not taken. A hurried
// one does not wait for the window.
func (o *Operator) sendReceipt(b *Behaviour, r receipt, s *smpp.Session, hurried bool) {
	again := func() {
		o.mu.Lock()
		o.retried++
		o.mu.Unlock()
		r.due = time.Now().Add(b.ReceiptRetry)
		o.schedule(r)
	}
	if s == nil {
		again()
		return
	}
	err := s.Submit(o.ctx, smpp.Request{
		PDU:           r.deliver(b.Receipt, o.deliverCommand(), time.Now().In(o.cfg.Zone)),
		OutsideWindow: hurried,
		Timeout:       receiptTimeout,
		Done: func(out smpp.Outcome) {
			if out.Kind == smpp.Answered && !temporary(out.Status) {
				o.mu.Lock()
				o.acked++
				o.mu.Unlock()
				return
			}
			again()
		},
	})
	if err != nil && o.ctx.Err() == nil {
		again()
	}
}

// deliverCommand is the command that carries a message towards the other side.
func (o *Operator) deliverCommand() smpp.CommandID {
	if o.client {
		return smpp.CmdSubmitSM
	}
	return smpp.CmdDeliverSM
}

// temporary says whether an SMSC keeps what was refused so and tries again.
func temporary(status smpp.Status) bool {
	switch status {
	case smpp.StatusReceiverTemporary, smpp.StatusSystemError, smpp.StatusThrottled, smpp.StatusQueueFull:
		return true
	default:
		return false
	}
}
