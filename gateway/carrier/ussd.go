package carrier

import (
	"context"
	"errors"
	"fmt"
	"time"

	"zvonok/gateway/smpp"
)

// Answer writes one USSD PDU. It returns when the PDU is queued for the socket; what the operator says to it goes to
// r.Done. It waits neither for the window nor for the rate of SMS, only, as long as ctx allows, for a socket that does
// not keep up. The PDU goes by the session r.Link if that can carry it, otherwise by any session of the operator: of a
// pair of binds the dial comes by the receiver and the answer goes by the transmitter.
//
// The error is ErrUnknownOperator, ErrNoRole, ErrNotBound or one that wraps smpp.ErrNotEncodable; nothing was written
// then and Done is not called.
func (x *Exchange) Answer(ctx context.Context, r Reply) error {
	o, ok := x.operators[r.Operator]
	switch {
	case !ok:
		return fmt.Errorf("answer USSD: %w", ErrUnknownOperator)
	case !o.cfg.has(RoleUSSD):
		return fmt.Errorf("answer USSD: %w", ErrNoRole)
	}
	m, err := r.pdu()
	if err != nil {
		return fmt.Errorf("answer USSD: %w", err)
	}
	if r.Wait <= 0 {
		r.Wait = DefaultReplyWait
	}
	if err := o.answer(ctx, r, m); err != nil {
		return fmt.Errorf("answer USSD: %w", err)
	}
	x.metrics.replies.WithLabelValues(o.cfg.Name).Inc()
	return nil
}

// pdu makes the PDU of a reply, ussd_service_op first: some gateways look at nothing else.
func (r Reply) pdu() (*smpp.Message, error) {
	switch r.Command {
	case smpp.CmdDeliverSM, smpp.CmdSubmitSM, smpp.CmdDataSM:
	default:
		return nil, fmt.Errorf("%w: %s carries no USSD", smpp.ErrNotEncodable, r.Command)
	}
	m := &smpp.Message{
		Command:     r.Command,
		ServiceType: r.ServiceType,
		Source:      r.Source,
		Destination: r.Destination,
		ESMClass:    r.ESMClass,
		DataCoding:  r.DataCoding,
	}
	if r.NoOp {
		m.TLVs = append(m.TLVs, r.TLVs...)
	} else {
		m.TLVs = smpp.USSD(r.Op, r.TLVs...)
	}
	if r.Payload || r.Command == smpp.CmdDataSM {
		m.TLVs = append(m.TLVs, smpp.TLV{Tag: smpp.TagMessagePayload, Value: r.Octets})
	} else {
		m.ShortMessage = r.Octets
	}
	return m, nil
}

// answer submits a reply over the best link there is, going on to the next one while a session refuses because it is
// ending.
func (o *operator) answer(ctx context.Context, r Reply, m *smpp.Message) error {
	tried := make(map[Link]bool)
	for {
		session, id := o.replyLink(r.Link, tried)
		if session == nil {
			return ErrNotBound
		}
		tried[id] = true
		err := session.Submit(ctx, smpp.Request{
			PDU: m, OutsideWindow: true, Timeout: r.Wait,
			Done: func(outcome smpp.Outcome) { o.answered(r, m, outcome) },
		})
		var closed *smpp.ClosedError
		if err == nil || !errors.As(err, &closed) {
			return err
		}
	}
}

// replyLink returns a session that can carry a reply, the preferred one if it can, and none that was tried. A session
// whose lease is in doubt would end over it, so it has to stay silent.
func (o *operator) replyLink(preferred Link, tried map[Link]bool) (*smpp.Session, Link) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var best *link
	for id, l := range o.links {
		if !l.sends || l.closing || tried[id] || !l.lease.Valid() {
			continue
		}
		if best == nil || id == preferred || id < best.id && best.id != preferred {
			best = l
		}
	}
	if best == nil {
		return nil, 0
	}
	return best.session, best.id
}

// answered reports what became of a reply. One that the socket never took goes once more by another session, if there
// is one: that is no repetition.
func (o *operator) answered(r Reply, m *smpp.Message, outcome smpp.Outcome) {
	if outcome.Kind == smpp.NeverWritten {
		// Submit must not be called on a session's own goroutine.
		o.tasks.Go(func() {
			ctx, cancel := context.WithTimeout(o.x.ctx, replyRewrite)
			defer cancel()
			if err := o.answer(ctx, r, m); err != nil {
				o.report(r, Answered{Err: ErrNotBound, At: o.x.now()})
			}
		})
		return
	}
	a := Answered{At: o.x.now()}
	switch {
	case outcome.Kind == smpp.Answered:
		a.Status, a.MessageID = outcome.Status, outcome.MessageID()
		if resp, ok := outcome.Answer.(*smpp.MessageResp); ok {
			a.TLVs = resp.TLVs
		}
	case errors.Is(outcome.Err, smpp.ErrTimeout):
		a.Err = ErrNoAnswer
	default:
		a.Err = ErrLinkLost
	}
	o.report(r, a)
}

// replyRewrite is how long a reply that was never written looks for another session.
const replyRewrite = 5 * time.Second

func (o *operator) report(r Reply, a Answered) {
	if r.Done != nil {
		o.replies.push(func() { r.Done(a) })
	}
}
