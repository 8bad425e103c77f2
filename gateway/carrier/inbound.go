package carrier

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/fnv"
	"strings"
	"sync"
	"time"

	"zvonok/access/phone"
	"zvonok/gateway/smpp"
)

// Limits of USSD events.
const (
	dialWorkers  = 32  // per operator; one phone is always with the same one, so that its events keep their order
	dialsWaiting = 256 // per worker; more are refused with a temporary error
	inboundLeast = 100 // messages per second that an operator may send to our server, or its rate if that is more
)

// handle takes one request of the operator. It is called by one goroutine per session.
func (o *operator) handle(l *link, in *smpp.Inbound) {
	<-l.attached
	switch p := in.PDU.(type) {
	case *smpp.Message:
		o.message(l.id, in, p)
	case *smpp.Query:
		o.query(in, p)
	case *smpp.Cancel:
		_ = in.Answer(smpp.StatusCancelFailed, "")
	case *smpp.Replace:
		_ = in.Answer(smpp.StatusReplaceFailed, "")
	default:
		_ = in.Answer(smpp.StatusOK, "") // alert_notification
	}
}

// message sorts what an operator sent: USSD, a receipt, a text from a subscriber, or something that needs nothing but
// its acknowledgement.
func (o *operator) message(id Link, in *smpp.Inbound, m *smpp.Message) {
	switch kind := m.ESMClass & smpp.ESMClassTypeMask; {
	case isReceipt(m.ESMClass):
		o.receipt(in, m)
	case isUSSD(m, o.cfg.has(RoleUSSD)):
		o.dialled(id, in, m)
	case kind != 0:
		// Acknowledgements by the recipient's phone and intermediate notifications settle nothing.
		o.x.metrics.inbound(o.cfg.Name, "notification")
		_ = in.Answer(smpp.StatusOK, "")
	case !o.cfg.has(RoleSMS):
		o.x.metrics.inbound(o.cfg.Name, "refused")
		_ = in.Answer(smpp.StatusReceiverPermanent, "")
	default:
		o.text(in, m)
	}
}

// isUSSD tells USSD by its operation first. Without one it takes, on links for USSD only, aborts (esm_class 0x08 and
// 0x18) and PDUs with a session of USSD; a service type alone says nothing (ussd.md 1.2).
func isUSSD(m *smpp.Message, role bool) bool {
	if _, ok := m.TLVs.Get(smpp.TagUSSDServiceOp); ok {
		return true
	}
	if !role {
		return false
	}
	switch m.ESMClass & smpp.ESMClassTypeMask {
	case smpp.ESMClassDeliveryAck, smpp.ESMClassAbort:
		return true
	}
	if _, ok := m.TLVs.Get(smpp.TagUSSDSessionID); ok {
		return true
	}
	_, its := m.TLVs.Get(smpp.TagITSSessionInfo)
	return its && strings.HasPrefix(m.ServiceType, "USSD")
}

// refuseLater is the status with which a request comes again: 0x08 for a submit_sm, 0x64 for the others.
func refuseLater(in *smpp.Inbound) smpp.Status {
	if in.Header.Command == smpp.CmdSubmitSM {
		return smpp.StatusSystemError
	}
	return smpp.StatusReceiverTemporary
}

// errCrowded means that too much waits to be stored.
var errCrowded = errors.New("too much waits to be stored")

// refuseFull is the status when too much waits to be stored: 0x14 for a submit_sm, 0x64 for the others.
func refuseFull(in *smpp.Inbound) smpp.Status {
	if in.Header.Command == smpp.CmdSubmitSM {
		return smpp.StatusQueueFull
	}
	return smpp.StatusReceiverTemporary
}

// receipt stores a receipt and then acknowledges it.
func (o *operator) receipt(in *smpp.Inbound, m *smpp.Message) {
	r, ok := o.reader.read(m, in.ReceivedAt)
	if !ok {
		o.x.metrics.inbound(o.cfg.Name, "unreadable receipt")
		o.mu.Lock()
		o.alarm(Alarm{Reason: "unreadable receipt", Class: Temporary}, o.x.now())
		o.mu.Unlock()
		_ = in.Answer(smpp.StatusOK, "")
		return
	}
	if r.State == StateDeleted {
		o.mu.Lock()
		o.alarm(Alarm{Reason: "receipt DELETED", Class: PermanentRoute}, o.x.now())
		o.mu.Unlock()
	}
	taken := o.x.receipts.offer(r, func(err error) {
		if err != nil {
			o.x.metrics.inbound(o.cfg.Name, "receipt not stored")
			_ = in.Answer(refuseLater(in), "")
			return
		}
		o.x.metrics.receipt(o.cfg.Name, r.State)
		_ = in.Answer(smpp.StatusOK, "")
	})
	if !taken {
		o.x.metrics.inbound(o.cfg.Name, "receipt not stored")
		_ = in.Answer(refuseFull(in), "")
	}
}

// text stores a text from a subscriber and then acknowledges it.
func (o *operator) text(in *smpp.Inbound, m *smpp.Message) {
	place, octets := concatOf(m)
	from, _ := phone.FromMSISDN(m.Source.Addr, m.Source.TON, m.Source.NPI, o.cfg.Region)
	r := o.received(in)
	var owes []Owed
	if owed, asked := o.owed(r, m, false); asked {
		owes = []Owed{owed}
	}
	if place.count == 0 {
		o.x.storeText(joinedText{mo: MO{
			Operator: o.cfg.Name, From: from, Source: m.Source, To: m.Destination, Text: decodeText(octets, m.DataCoding),
			Owed: owes, ReceivedAt: in.ReceivedAt,
		}, acks: []received{r}})
		return
	}
	part := TextPart{
		TextKey: TextKey{
			Operator: o.cfg.Name, Sender: strings.ToValidUTF8(m.Source.Addr, "\uFFFD"),
			Recipient: strings.ToValidUTF8(m.Destination.Addr, "\uFFFD"),
			Reference: place.ref, Wide: place.wide, Count: place.count,
		},
		Number: place.number, From: from, Source: m.Source, To: m.Destination, Coding: m.DataCoding, Octets: octets,
		Owed: owes, ReceivedAt: in.ReceivedAt,
	}
	for _, t := range o.x.joiner.add(part, r) {
		o.x.storeText(t)
	}
}

// storeText hands a whole text over and acknowledges what it came in. When it cannot be stored the operator keeps those
// parts that it was told nothing of; those that were acknowledged are stored, and complete the text when the others
// come again.
func (x *Exchange) storeText(t joinedText) {
	settle := func(err error) {
		if err == nil {
			x.metrics.inbound(t.mo.Operator, "text")
			for _, r := range t.acks {
				r.accept()
			}
			return
		}
		x.metrics.inbound(t.mo.Operator, "text not stored")
		for _, r := range t.acks {
			r.refuse(refuseLater(r.in))
		}
	}
	if !x.texts.offer(t.mo, settle) {
		settle(errCrowded)
	}
}

// query answers for a message that we accepted: it is with us, which is where it was going.
func (o *operator) query(in *smpp.Inbound, q *smpp.Query) {
	accepted, ours := o.ids.read(q.MessageID)
	if !ours {
		_ = in.Answer(smpp.StatusInvalidMessageID, "")
		return
	}
	_ = in.AnswerPDU(smpp.StatusOK, &smpp.QueryResp{
		MessageID: q.MessageID, FinalDate: smpp.FormatTime(accepted), State: smpp.StateDelivered,
	})
}

// acceptedIDs makes the ids of messages we accepted. An id proves itself: it holds the time, a random number and a code
// over both that only this account's key makes, so that query_sm is answered after a restart and by every process, and
// nothing is remembered. The key comes from the account's password.
type acceptedIDs struct{ key [sha256.Size]byte }

// Octets of an id before it is written in hexadecimal: 32 characters, half of what SMPP 3.4 allows (section 5.2.23).
const (
	idTime   = 5 // s since 1970
	idRandom = 4
	idCode   = 7
)

func newAcceptedIDs(systemID, password string) acceptedIDs {
	return acceptedIDs{sha256.Sum256([]byte("zvonok message ids\x00" + systemID + "\x00" + password))}
}

func (a acceptedIDs) code(b []byte) []byte {
	mac := hmac.New(sha256.New, a.key[:])
	mac.Write(b)
	return mac.Sum(nil)[:idCode]
}

func (a acceptedIDs) issue(now time.Time) string {
	b := make([]byte, 8, idTime+idRandom+idCode)
	binary.BigEndian.PutUint64(b, uint64(now.Unix()))
	b = append(b[:0], b[8-idTime:]...)
	b = b[:idTime+idRandom]
	_, _ = rand.Read(b[idTime:]) // never fails, see crypto/rand
	return hex.EncodeToString(append(b, a.code(b)...))
}

// read returns when a text was accepted, and whether the id is one of ours.
func (a acceptedIDs) read(id string) (time.Time, bool) {
	b, err := hex.DecodeString(id)
	if err != nil || len(b) != idTime+idRandom+idCode {
		return time.Time{}, false
	}
	said, code := b[:idTime+idRandom], b[idTime+idRandom:]
	if !hmac.Equal(code, a.code(said)) {
		return time.Time{}, false
	}
	return time.Unix(int64(binary.BigEndian.Uint64(append(make([]byte, 8-idTime), said[:idTime]...))), 0), true
}

// dialled acknowledges a USSD event and hands it to the callback. On a link without the role it is refused: whoever may
// send SMS could otherwise ask about anybody's child.
func (o *operator) dialled(id Link, in *smpp.Inbound, m *smpp.Message) {
	if o.dials == nil {
		o.x.metrics.inbound(o.cfg.Name, "dial refused")
		_ = in.Answer(smpp.StatusReceiverPermanent, "")
		return
	}
	d := Dial{
		Operator: o.cfg.Name, Link: id, Command: m.Command,
		Source: m.Source, Destination: m.Destination,
		ServiceType: m.ServiceType, ESMClass: m.ESMClass, DataCoding: m.DataCoding,
		TLVs: m.TLVs, Octets: m.Octets(), ReceivedAt: in.ReceivedAt,
	}
	d.Op, d.HasOp = m.USSDOp()
	d.Text = decodeText(d.Octets, d.DataCoding)
	d.Phone, _ = phone.FromMSISDN(m.Source.Addr, m.Source.TON, m.Source.NPI, o.cfg.Region)
	r := o.received(in)
	owed, asked := o.owed(r, m, true)
	if !asked || !o.x.owes.offer(owed, func(err error) {
		// The dialogue goes on even if the receipt cannot be promised: its first screen says that the database is away.
		if err != nil {
			o.x.metrics.inbound(o.cfg.Name, "receipt not owed")
		}
		o.hand(d, r)
	}) {
		o.hand(d, r)
	}
}

// hand gives a USSD event to its worker, or refuses it.
func (o *operator) hand(d Dial, r received) {
	if !o.dials.hand(d, r) {
		o.x.metrics.inbound(o.cfg.Name, "dial refused")
		r.refuse(smpp.StatusReceiverTemporary)
		return
	}
	o.x.metrics.inbound(o.cfg.Name, "dial")
}

// dialPool runs the Dial callback on a few goroutines, the events of one phone always on the same one.
type dialPool struct {
	call    func(Dial)
	workers [dialWorkers]dialWorker
	tasks   sync.WaitGroup
}

type dialWorker struct {
	mu     sync.Mutex // one at a time hands over, so that room seen is room kept
	events chan Dial
}

func newDialPool(call func(Dial)) *dialPool {
	p := &dialPool{call: call}
	for i := range p.workers {
		p.workers[i].events = make(chan Dial, dialsWaiting)
	}
	return p
}

func (p *dialPool) start() {
	for i := range p.workers {
		p.tasks.Go(func() {
			for d := range p.workers[i].events {
				p.call(d)
			}
		})
	}
}

// hand acknowledges an event and gives it to its worker, in this order: a gateway that sees our answer before the
// acknowledgement refuses it (ussd.md 1.4). It does not wait, and is false when the worker has too many events.
func (p *dialPool) hand(d Dial, r received) bool {
	h := fnv.New32a()
	_, _ = h.Write([]byte(d.Source.Addr))
	w := &p.workers[h.Sum32()%dialWorkers]
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.events) == cap(w.events) {
		return false
	}
	r.accept()
	w.events <- d
	return true
}

// stop waits for the events taken. Nothing may be handed over any more.
func (p *dialPool) stop() {
	for i := range p.workers {
		close(p.workers[i].events)
	}
	p.tasks.Wait()
}
