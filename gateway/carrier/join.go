package carrier

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"zvonok/gateway/smpp"
)

// Limits of long texts from subscribers.
const (
	joinAck      = 2 * time.Second // a part's acknowledgement waits this long for the other parts; then it is stored
	joinPatience = time.Minute     // so long a text waits for its parts; then it is handed over without the missing ones
	maxJoining   = 1000            // texts of which parts are missing; the oldest makes room

	// Stored texts are looked through this often for those past their time. Parts that came within it are all stored by
	// then, in this process and in others.
	overdueEvery = 5 * time.Second
	overdueAfter = joinPatience + 5*joinAck
)

// joiner brings the parts of long texts together. A text must be stored before it is acknowledged, but an operator
// with a window of one sends the second part only when the first is acknowledged. So a part waits for the rest of its
// text up to joinAck; then it is stored by itself and acknowledged (Config.StoreParts). What is here is therefore never
// the only copy of what an operator has given away: a text that is not completed here is completed from the stored
// parts, by whatever process stores the last one.
type joiner struct {
	mu   sync.Mutex
	open map[TextKey]*joining
}

// joinedText is a whole text with the requests it came in that are not answered yet.
type joinedText struct {
	mo   MO
	acks []received
}

// waitingPart is a part whose request is not answered yet.
type waitingPart struct {
	TextPart
	received
	of *joining
}

type joining struct {
	parts   []joinPart
	missing int
	since   time.Time
	waiting []waitingPart // neither answered nor stored
	storing int           // so many are being stored
}

type joinPart struct {
	have   bool
	octets []byte
	coding byte
}

// text decodes the parts. As long as their coding is the same they are decoded as one, since a pair of octets that is
// one character may have been split between two parts.
func (j *joining) text() string {
	var text strings.Builder
	var octets []byte
	for i, p := range j.parts {
		if !p.have {
			continue
		}
		octets = append(octets, p.octets...)
		if last := i == len(j.parts)-1; last || !j.parts[i+1].have || j.parts[i+1].coding != p.coding {
			text.WriteString(decodeText(octets, p.coding))
			octets = octets[:0]
		}
	}
	return text.String()
}

func newJoiner() *joiner { return &joiner{open: make(map[TextKey]*joining)} }

func newJoining(p TextPart) *joining {
	return &joining{parts: make([]joinPart, p.Count), missing: int(p.Count), since: p.ReceivedAt}
}

// put puts a part in its place.
func (j *joining) put(p TextPart) {
	place := &j.parts[p.Number-1]
	if !place.have {
		j.missing--
	}
	*place = joinPart{have: true, octets: p.Octets, coding: p.Coding}
}

// message is the text as far as it is here, with a part's addresses.
func (j *joining) message(p TextPart) MO {
	return MO{
		Operator: p.Operator, From: p.From, Source: p.Source, To: p.To, Text: j.text(), Incomplete: j.missing > 0,
		ReceivedAt: j.since, Parts: p.TextKey,
	}
}

// concat is the place of a text among the parts of a long one.
type concat struct {
	ref           uint16
	wide          bool
	count, number uint8
}

// concatOf finds where in a long text a message belongs, from its user data header or its SAR parameters, and returns
// the octets behind the header. A message by itself has count 0.
func concatOf(m *smpp.Message) (concat, []byte) {
	octets := m.Octets()
	if m.ESMClass&smpp.ESMClassUDHI != 0 && len(octets) > 0 && int(octets[0])+1 <= len(octets) {
		header, rest := octets[1:int(octets[0])+1], octets[int(octets[0])+1:]
		for len(header) >= 2 && int(header[1])+2 <= len(header) {
			element, value := header[0], header[2:int(header[1])+2]
			header = header[int(header[1])+2:]
			switch {
			case element == elementConcat8 && len(value) == 3:
				return concat{ref: uint16(value[0]), count: value[1], number: value[2]}.valid(), rest
			case element == elementConcat16 && len(value) == 4:
				c := concat{ref: uint16(value[0])<<8 | uint16(value[1]), wide: true, count: value[2], number: value[3]}
				return c.valid(), rest
			}
		}
		return concat{}, rest
	}
	ref, ok1 := m.TLVs.Uint(smpp.TagSARMsgRefNum)
	count, ok2 := m.TLVs.Uint(smpp.TagSARTotalSegments)
	number, ok3 := m.TLVs.Uint(smpp.TagSARSegmentSeqnum)
	if ok1 && ok2 && ok3 && count <= 255 && number <= 255 {
		return concat{ref: uint16(ref), wide: true, count: uint8(count), number: uint8(number)}.valid(), octets
	}
	return concat{}, octets
}

// valid returns c if its numbers make sense, and otherwise the place of a message by itself: such a part is shown as
// it is (3GPP TS 23.040 section 9.2.3.24.1).
func (c concat) valid() concat {
	if c.count < 2 || c.number == 0 || c.number > c.count {
		return concat{}
	}
	return c
}

// add puts a part in its place and returns the text when it is complete.
func (j *joiner) add(p TextPart, r received) []joinedText {
	j.mu.Lock()
	defer j.mu.Unlock()
	o := j.open[p.TextKey]
	if o == nil {
		if len(j.open) >= maxJoining {
			j.dropOldest()
		}
		o = newJoining(p)
		j.open[p.TextKey] = o
	}
	o.put(p)
	o.waiting = append(o.waiting, waitingPart{p, r, o})
	return j.whole(o, p)
}

// whole returns a text when it is complete. While parts of it are being stored it waits for them, because they go with
// the transaction that stores the text. j.mu is held.
func (j *joiner) whole(o *joining, p TextPart) []joinedText {
	if o.missing > 0 || o.storing > 0 {
		return nil
	}
	delete(j.open, p.TextKey)
	t := joinedText{mo: o.message(p)}
	t.take(o.waiting)
	return []joinedText{t}
}

// take lets the text answer for parts, and for the receipts they ask for.
func (t *joinedText) take(parts []waitingPart) {
	for _, p := range parts {
		t.acks = append(t.acks, p.received)
		t.mo.Owed = append(t.mo.Owed, p.Owed...)
	}
}

// dropOldest makes room. The operator keeps the parts it was told nothing of, the others are stored. j.mu is held.
func (j *joiner) dropOldest() {
	var oldest TextKey
	var at time.Time
	for key, o := range j.open {
		if at.IsZero() || o.since.Before(at) {
			oldest, at = key, o.since
		}
	}
	for _, p := range j.open[oldest].waiting {
		p.refuse(refuseFull(p.in))
	}
	delete(j.open, oldest)
}

// tick returns the parts that waited long enough, to be stored, and forgets the texts that are waited for no more: what
// there is of them is stored. Each part's fate is to be told to stored.
func (j *joiner) tick(now time.Time) (parts []waitingPart) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for key, o := range j.open {
		switch age := now.Sub(o.since); {
		case age >= joinAck && len(o.waiting) > 0:
			parts = append(parts, o.waiting...)
			o.storing += len(o.waiting)
			o.waiting = nil
		case age >= joinPatience && o.storing == 0:
			delete(j.open, key)
		}
	}
	return parts
}

// stored takes note of a part that was stored or, after an error, was not: the operator brings it again. It returns the
// text if nothing else was waited for.
func (j *joiner) stored(p waitingPart, err error) []joinedText {
	j.mu.Lock()
	defer j.mu.Unlock()
	o := p.of
	o.storing--
	if j.open[p.TextKey] != o {
		return nil
	}
	again := slices.ContainsFunc(o.waiting, func(w waitingPart) bool { return w.Number == p.Number })
	if place := &o.parts[p.Number-1]; err != nil && !again && place.have {
		*place = joinPart{}
		o.missing++
	}
	return j.whole(o, p.TextPart)
}

// drop forgets a text that is complete in the store, and returns its parts that are not answered yet.
func (j *joiner) drop(key TextKey) []waitingPart {
	j.mu.Lock()
	defer j.mu.Unlock()
	o := j.open[key]
	if o == nil {
		return nil
	}
	delete(j.open, key)
	return o.waiting
}

// fromStore makes texts of stored parts. The parts of a text come one after another.
func fromStore(parts []TextPart) (texts []MO) {
	for len(parts) > 0 {
		first, o := parts[0], newJoining(parts[0])
		for len(parts) > 0 && parts[0].TextKey == first.TextKey {
			o.put(parts[0])
			if parts[0].ReceivedAt.Before(o.since) {
				o.since = parts[0].ReceivedAt
			}
			parts = parts[1:]
		}
		mo := o.message(first)
		mo.Claimed = true
		texts = append(texts, mo)
	}
	return texts
}

// storeParts stores parts by themselves and hands over the texts that are complete by them.
func (x *Exchange) storeParts(ctx context.Context, batch []waitingPart) error {
	parts := make([]TextPart, len(batch))
	for i, p := range batch {
		parts[i] = p.TextPart
	}
	whole, err := x.cfg.StoreParts(ctx, parts)
	if err != nil {
		return err
	}
	for _, mo := range fromStore(whole) {
		t := joinedText{mo: mo}
		t.take(x.joiner.drop(mo.Parts))
		x.storeText(t)
	}
	return nil
}

// tendJoins has the parts stored that waited long enough, until ctx ends.
func (x *Exchange) tendJoins(ctx context.Context) {
	ticker := time.NewTicker(housekeeping)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for _, p := range x.joiner.tick(x.now()) {
			settle := func(err error) {
				for _, t := range x.joiner.stored(p, err) {
					x.storeText(t)
				}
				if err == nil {
					p.accept()
					return
				}
				x.metrics.inbound(p.Operator, "text not stored")
				p.refuse(refuseLater(p.in))
			}
			if !x.parts.offer(p, settle) {
				settle(errCrowded)
			}
		}
	}
}

// handOverdue hands over stored texts whose missing parts are waited for no more, until ctx ends. Every process does;
// the transaction that stores a text says which of them had it (MO.Claimed).
func (x *Exchange) handOverdue(ctx context.Context) {
	ticker := time.NewTicker(overdueEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		limited, cancel := context.WithTimeout(ctx, storeTimeout)
		parts, err := x.cfg.OverdueParts(limited, x.now().Add(-overdueAfter))
		cancel()
		if err != nil {
			if ctx.Err() == nil {
				x.cfg.Log.Warn("look for incomplete texts", "error", err)
			}
			continue
		}
		for _, mo := range fromStore(parts) {
			x.storeText(joinedText{mo: mo})
		}
	}
}
