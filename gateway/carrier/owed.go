package carrier

import (
	"context"
	"errors"
	"fmt"
	"time"

	"zvonok/gateway/smpp"
)

// Owed is a receipt that we owe: a gateway that is bound to our server sent a text or a dial by submit_sm or data_sm
// and asked what became of it (registered_delivery, SMPP 3.4 section 5.2.17). It was taken, and so it has arrived: we
// are where it was going. What is not taken is told by the answer to the submit, so that a receipt asked for in case of
// failure only is never owed.
type Owed struct {
	Operator    string
	MessageID   string       // the id we gave it, by which query_sm tells the same
	Source      smpp.Address // of the receipt: what the message was sent to ...
	Destination smpp.Address // ... and who had sent it
	AcceptedAt  time.Time
}

// Values of the bits of registered_delivery that ask for a receipt of the SMSC, SMPP 3.4 section 5.2.17. The value 3 is
// reserved there; SMPP 5.0 (section 4.7.21) means by it a receipt in case of success.
const (
	receiptBits      = 0x03
	receiptAnyway    = 1
	receiptOnFailure = 2
)

// received is a request of an operator that waits for its answer.
type received struct {
	in *smpp.Inbound
	id string // given to what comes to our server, by which it can be asked for with query_sm; empty for the others
}

func (o *operator) received(in *smpp.Inbound) received {
	r := received{in: in}
	if in.Session().Binding().Side == smpp.SideSMSC && in.Header.Command != smpp.CmdDeliverSM {
		r.id = o.ids.issue(o.x.now())
	}
	return r
}

// accept tells the operator that its request was taken.
func (r received) accept() { _ = r.in.Answer(smpp.StatusOK, r.id) }

func (r received) refuse(s smpp.Status) { _ = r.in.Answer(s, "") }

// owed returns the receipt that a message asks for, if it does and may. Of USSD only the plain value counts: a receipt
// for a dialogue is meaningless (ussd.md section 1), and there are gateways that write 3 into every PDU.
func (o *operator) owed(r received, m *smpp.Message, ussd bool) (Owed, bool) {
	asked := m.RegisteredDelivery & receiptBits
	if r.id == "" || asked == 0 || asked == receiptOnFailure || ussd && asked != receiptAnyway {
		return Owed{}, false
	}
	return Owed{
		Operator: o.cfg.Name, MessageID: r.id, Source: m.Destination, Destination: m.Source, AcceptedAt: r.in.ReceivedAt,
	}, true
}

// Given is what became of an attempt to give a receipt.
type Given struct {
	Class      Class         // OK: the gateway has it. Unknown: it may have it. NeverWritten: it surely has not
	RetryAfter time.Duration // 0: it refuses the receipt for good
	Reason     string        // name of the status or of the cause, from a closed list
}

// Limits of receipts we give.
const (
	giveTimeout = time.Minute // for a place in the window and for the answer
	givePause   = time.Second // after a complaint about speed
)

// Give sends a receipt over any of the operator's sessions that carries it and waits for the answer; it is never
// counted against the rate. attempt is how often it was tried before.
func (x *Exchange) Give(ctx context.Context, r Owed, attempt int) Given {
	o, ok := x.operators[r.Operator]
	if !ok {
		return Given{Class: NeverWritten, RetryAfter: notBoundRetry, Reason: "no such operator"}
	}
	session, _ := o.replyLink(0, nil)
	if session == nil {
		return Given{Class: NeverWritten, RetryAfter: notBoundRetry, Reason: "not bound"}
	}
	ctx, cancel := context.WithTimeout(ctx, giveTimeout)
	defer cancel()
	outcome, err := session.Do(ctx, smpp.Request{PDU: r.pdu(o.cfg.Location, session.Binding().Version, x.now())})
	switch {
	case errors.Is(err, smpp.ErrNotEncodable):
		return Given{Class: PermanentMessage, Reason: "not encodable"}
	case err != nil, outcome.Kind == smpp.NeverWritten:
		return Given{Class: NeverWritten, RetryAfter: notBoundRetry, Reason: "not written"}
	case outcome.Kind == smpp.Unknown:
		return Given{Class: Unknown, Reason: "no answer"}
	}
	d := o.rules.Decide(Answer{Status: outcome.Status, Nack: outcome.Nacked})
	g := Given{Class: d.Class, Reason: d.Rule.Name}
	switch d.Class {
	case Throttle:
		g.RetryAfter = givePause
	case QueueFull:
		g.RetryAfter = queueFullWait(attempt + 1)
	case Temporary:
		g.RetryAfter = temporaryWait(attempt+1, 0)
	case Rebind:
		g.RetryAfter = notBoundRetry
	}
	return g
}

// Gives reports whether a receipt could be given to the operator now.
func (x *Exchange) Gives(operator string) bool {
	o, ok := x.operators[operator]
	if !ok {
		return false
	}
	session, _ := o.replyLink(0, nil)
	return session != nil
}

// pdu writes the receipt in the customary text (SMPP 3.4 appendix B), without the message's own words, which are
// nobody's business any more. A peer that speaks 3.3 cannot read optional parameters.
func (r Owed) pdu(zone *time.Location, version uint8, now time.Time) *smpp.Message {
	const minute = "0601021504"
	m := &smpp.Message{
		Command: smpp.CmdDeliverSM, ESMClass: smpp.ESMClassReceipt, Source: r.Source, Destination: r.Destination,
		ShortMessage: fmt.Appendf(nil, "id:%s sub:001 dlvrd:001 submit date:%s done date:%s stat:%s err:000 text:",
			r.MessageID, r.AcceptedAt.In(zone).Format(minute), now.In(zone).Format(minute), StateDelivered),
	}
	if version >= smpp.Version34 {
		m.TLVs = smpp.TLVs{
			smpp.Text(smpp.TagReceiptedMessageID, r.MessageID),
			smpp.Uint8(smpp.TagMessageState, uint8(smpp.StateDelivered)),
		}
	}
	return m
}
