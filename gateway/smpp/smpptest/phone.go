package smpptest

import (
	"context"
	"errors"
	"slices"
	"time"

	"zvonok/gateway/smpp"
)

// SMS is a message as a phone shows it: its parts joined, its text decoded.
type SMS struct {
	SystemID   string // of the account it came from
	From, To   string
	Text       string
	Parts      int
	IDs        []string // of the parts, in their order
	DataCoding uint8
	Validity   string // validity_period as it came
	At         time.Time
}

type joinKey struct {
	systemID, from, to string
	reference          uint32
	total              int
}

type unjoined struct {
	parts [][]byte
	ids   []string
	have  int
}

// Messages returns the last SMS shown to phones, oldest first.
func (o *Operator) Messages() []SMS {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Concat(o.shown[o.shownFirst:], o.shown[:o.shownFirst])
}

// MessagesTo returns those of [Operator.Messages] to one number.
func (o *Operator) MessagesTo(number string) []SMS {
	all := o.Messages()
	return slices.DeleteFunc(all, func(m SMS) bool { return m.To != number })
}

// show joins the parts of a message and shows it to its phone.
func (o *Operator) show(in *smpp.Inbound, m *smpp.Message, id string) {
	if o.cfg.Keep < 0 && o.cfg.OnSMS == nil {
		return
	}
	part := segmentOf(m)
	sms := SMS{
		SystemID:   in.Session().Binding().SystemID,
		From:       m.Source.Addr,
		To:         m.Destination.Addr,
		Parts:      part.total,
		IDs:        []string{id},
		DataCoding: m.DataCoding,
		Validity:   m.ValidityPeriod,
		At:         in.ReceivedAt,
	}
	octets := part.octets
	o.mu.Lock()
	if part.total > 1 {
		var whole bool
		if octets, sms.IDs, whole = o.join(&sms, part, id); !whole {
			o.mu.Unlock()
			return
		}
	}
	sms.Text = decodeText(m.DataCoding, octets)
	o.smsCount++
	o.keep(sms)
	o.mu.Unlock()
	if o.cfg.OnSMS != nil {
		o.cfg.OnSMS(sms)
	}
}

// join puts a part with the others of its message. It is called with mu held.
func (o *Operator) join(sms *SMS, part segment, id string) (octets []byte, ids []string, whole bool) {
	key := joinKey{sms.SystemID, sms.From, sms.To, part.reference, part.total}
	u := o.unjoined[key]
	if u == nil {
		if len(o.joinOrder) >= maxUnjoined {
			delete(o.unjoined, o.joinOrder[0])
			o.joinOrder = o.joinOrder[1:]
		}
		u = &unjoined{parts: make([][]byte, part.total), ids: make([]string, part.total)}
		o.unjoined[key] = u
		o.joinOrder = append(o.joinOrder, key)
	}
	if u.ids[part.number-1] == "" {
		u.have++
	}
	u.parts[part.number-1], u.ids[part.number-1] = part.octets, id
	if u.have < part.total {
		return nil, nil, false
	}
	delete(o.unjoined, key)
	o.joinOrder = slices.DeleteFunc(o.joinOrder, func(k joinKey) bool { return k == key })
	return slices.Concat(u.parts...), u.ids, true
}

func (o *Operator) keep(sms SMS) {
	switch {
	case o.cfg.Keep < 0:
	case len(o.shown) < o.cfg.Keep:
		o.shown = append(o.shown, sms)
	default:
		o.shown[o.shownFirst] = sms
		o.shownFirst = (o.shownFirst + 1) % len(o.shown)
	}
}

// ErrNoBind means that no session can carry a message to the other side.
var ErrNoBind = errors.New("no bind takes messages")

func (o *Operator) anyBind() (*smpp.Session, error) {
	for _, s := range o.sessions("") {
		if takes(s) {
			return s, nil
		}
	}
	return nil, ErrNoBind
}

// SendText sends a text from a phone to a number of the other side, in one part,
// and waits for the answer.
func (o *Operator) SendText(ctx context.Context, from, to, text string) (smpp.Status, error) {
	dataCoding, octets := encodeText(text)
	m := &smpp.Message{
		Command:     o.deliverCommand(),
		Source:      smpp.Address{TON: 1, NPI: 1, Addr: from},
		Destination: smpp.Address{NPI: 1, Addr: to},
		DataCoding:  dataCoding,
	}
	if len(octets) <= 254 {
		m.ShortMessage = octets
	} else {
		m.TLVs = smpp.TLVs{{Tag: smpp.TagMessagePayload, Value: octets}}
	}
	return o.Send(ctx, m)
}

// Send sends a PDU over any bind that takes messages and waits for the answer.
// An outcome that is not an answer is an error.
func (o *Operator) Send(ctx context.Context, p smpp.PDU) (smpp.Status, error) {
	s, err := o.anyBind()
	if err != nil {
		return 0, err
	}
	out, err := s.Do(ctx, smpp.Request{PDU: p})
	if err != nil {
		return 0, err
	}
	return out.Status, out.Err
}
