package carrier

import (
	"strings"
	"sync"
	"time"

	"zvonok/gateway/smpp"
)

// Limits of long texts from subscribers.
const (
	joinAck      = 2 * time.Second // a part's acknowledgement waits this long for the other parts
	joinPatience = time.Minute     // then the text is handed over without the missing parts
	maxJoining   = 1000            // texts of which parts are missing; the oldest makes room
)

// joiner brings the parts of long texts together. A text must be stored before it is acknowledged, but an operator
// with a window of one sends the second part only when the first is acknowledged. So an acknowledgement waits for the
// rest of the text up to joinAck and is then given for a part that is only in memory: the one thing a crash may lose,
// and a part of a text never answers anybody.
type joiner struct {
	mu   sync.Mutex
	open map[joinKey]*joining
	kept []joinedText // whole, but not stored yet
}

// joinedText is a whole text with the requests it came in that are not answered yet.
type joinedText struct {
	mo           MO
	acks         []received
	acknowledged bool // some part was answered before the text was stored
}

type joinKey struct {
	operator string
	from, to string
	ref      uint16
	count    uint8
	wide     bool // 16-bit reference
}

type joining struct {
	parts        []joinPart
	missing      int
	since        time.Time
	mo           MO
	acks         []received // not answered yet
	acknowledged bool
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

func newJoiner() *joiner { return &joiner{open: make(map[joinKey]*joining)} }

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

// add puts a part in its place and returns the texts to be stored now: that of the part when it is complete, and one
// that has to make room.
func (j *joiner) add(c concat, mo MO, octets []byte, coding byte, r received) (texts []joinedText) {
	j.mu.Lock()
	defer j.mu.Unlock()
	key := joinKey{mo.Operator, mo.Source.Addr, mo.To.Addr, c.ref, c.count, c.wide}
	o := j.open[key]
	if o == nil {
		if len(j.open) >= maxJoining {
			texts = j.dropOldest()
		}
		o = &joining{parts: make([]joinPart, c.count), missing: int(c.count), since: mo.ReceivedAt, mo: mo}
		o.mo.Owed = nil
		j.open[key] = o
	}
	o.mo.Owed = append(o.mo.Owed, mo.Owed...)
	p := &o.parts[c.number-1]
	if !p.have {
		o.missing--
	}
	*p = joinPart{have: true, octets: octets, coding: coding}
	o.acks = append(o.acks, r)
	if o.missing > 0 {
		return texts
	}
	delete(j.open, key)
	o.mo.Text = o.text()
	return append(texts, joinedText{mo: o.mo, acks: o.acks, acknowledged: o.acknowledged})
}

// keep takes a text whose parts are acknowledged and that could not be stored; the next tick returns it again. It is
// false when there are too many.
func (j *joiner) keep(mo MO) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.kept) >= textsKept {
		return false
	}
	j.kept = append(j.kept, joinedText{mo: mo, acknowledged: true})
	return true
}

// dropOldest makes room. The operator keeps a text of which it was told nothing yet; one of which it has given parts
// away is returned as it is. j.mu is held.
func (j *joiner) dropOldest() []joinedText {
	var oldest joinKey
	var at time.Time
	for key, o := range j.open {
		if at.IsZero() || o.since.Before(at) {
			oldest, at = key, o.since
		}
	}
	o := j.open[oldest]
	delete(j.open, oldest)
	if o.acknowledged {
		return []joinedText{o.incomplete()}
	}
	for _, r := range o.acks {
		r.refuse(refuseFull(r.in))
	}
	return nil
}

// incomplete is a text whose missing parts are waited for no more.
func (o *joining) incomplete() joinedText {
	o.mo.Text, o.mo.Incomplete = o.text(), true
	return joinedText{mo: o.mo, acks: o.acks, acknowledged: o.acknowledged}
}

// rest returns what the operators have given away and is not stored, at the end of everything.
func (j *joiner) rest() []joinedText {
	j.mu.Lock()
	defer j.mu.Unlock()
	texts := j.kept
	j.kept = nil
	for key, o := range j.open {
		if o.acknowledged {
			texts = append(texts, o.incomplete())
		}
		delete(j.open, key)
	}
	return texts
}

// tick acknowledges parts that waited long enough and returns the texts to store: those that will not be complete, and
// those that were kept.
func (j *joiner) tick(now time.Time) []joinedText {
	j.mu.Lock()
	defer j.mu.Unlock()
	texts := j.kept
	j.kept = nil
	for key, o := range j.open {
		age := now.Sub(o.since)
		if age >= joinAck && len(o.acks) > 0 {
			for _, r := range o.acks {
				r.accept()
			}
			o.acks, o.acknowledged = nil, true
		}
		if age >= joinPatience {
			delete(j.open, key)
			texts = append(texts, o.incomplete())
		}
	}
	return texts
}
