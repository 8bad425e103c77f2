package smpptest

import (
	"encoding/binary"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"zvonok/gateway/smpp"
)

// lines are the connections of an operator. They carry its octets, and tamper
// with them when its behaviour says so.
type lines struct {
	operator *Operator

	mu       sync.Mutex
	count    int
	open     map[*line]struct{}
	byRemote map[string]*line
}

func newLines(o *Operator) *lines {
	return &lines{operator: o, open: make(map[*line]struct{}), byRemote: make(map[string]*line)}
}

// wrap puts a line on a connection.
func (ls *lines) wrap(conn net.Conn) *line {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.count++
	l := &line{
		Conn:   conn,
		lines:  ls,
		number: ls.count,
		draw:   rand.New(rand.NewPCG(ls.operator.cfg.Seed, uint64(ls.count)<<32)),
		gone:   make(chan struct{}),
	}
	ls.open[l] = struct{}{}
	ls.byRemote[lineKey(conn)] = l
	return l
}

func lineKey(conn net.Conn) string {
	return conn.LocalAddr().String() + " " + conn.RemoteAddr().String()
}

// die makes the line of a session half open: whatever the session does, its
// peer hears nothing more, and the connection stays.
func (ls *lines) die(s *smpp.Session) {
	b := s.Binding()
	ls.mu.Lock()
	l := ls.byRemote[b.Local.String()+" "+b.Remote.String()]
	ls.mu.Unlock()
	if l != nil {
		l.mu.Lock()
		l.dead = true
		l.mu.Unlock()
	}
}

// closeAll closes the connections for good, those half open as well.
func (ls *lines) closeAll() {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for l := range ls.open {
		l.Conn.Close()
	}
	clear(ls.open)
	clear(ls.byRemote)
}

// line is a connection that can be bad.
type line struct {
	net.Conn

	lines  *lines
	number int
	closed sync.Once
	gone   chan struct{} // closed by Close

	mu     sync.Mutex
	dead   bool
	frames uint64 // written
	inward []byte // read and not yet recorded, because a frame is not whole
	draw   *rand.Rand
}

// CloseWrite closes our half, if the connection can.
func (l *line) CloseWrite() error {
	l.mu.Lock()
	dead := l.dead
	l.mu.Unlock()
	if half, ok := l.Conn.(interface{ CloseWrite() error }); ok && !dead {
		return half.CloseWrite()
	}
	return net.ErrClosed
}

// Close closes the connection, unless it is half open: then only the session
// believes so.
func (l *line) Close() error {
	l.mu.Lock()
	l.closed.Do(func() { close(l.gone) })
	if l.dead {
		defer l.mu.Unlock()
		// It wakes a reader that waits.
		return l.Conn.SetReadDeadline(time.Unix(1, 0))
	}
	l.mu.Unlock()
	l.lines.mu.Lock()
	delete(l.lines.open, l)
	delete(l.lines.byRemote, lineKey(l.Conn))
	l.lines.mu.Unlock()
	return l.Conn.Close()
}

// SetReadDeadline does nothing after Close: on a half-open line the deadline is
// what wakes the reader, and nobody may take it back.
func (l *line) SetReadDeadline(t time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.gone:
		return net.ErrClosed
	default:
		return l.Conn.SetReadDeadline(t)
	}
}

func (l *line) Read(p []byte) (int, error) {
	for {
		n, err := l.Conn.Read(p)
		l.mu.Lock()
		dead := l.dead
		if recorder := l.lines.operator.cfg.Record; recorder != nil && n > 0 && !dead {
			l.inward = append(l.inward, p[:n]...)
			l.inward = recorder.frames(l.number, Inward, l.inward)
		}
		l.mu.Unlock()
		if !dead || err != nil {
			return n, err
		}
		select {
		case <-l.gone:
			return 0, net.ErrClosed
		default: // what comes over a dead line is not heard
		}
	}
}

// Write gets whole PDUs, because a session writes nothing else.
func (l *line) Write(p []byte) (int, error) {
	b := l.lines.operator.behaviour.Load()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		return len(p), nil
	}
	out := p
	if b.tampers() {
		out = l.tamper(b, p)
	}
	if recorder := l.lines.operator.cfg.Record; recorder != nil {
		recorder.frames(l.number, Outward, append([]byte(nil), out...))
	}
	if !b.SplitFrames {
		if _, err := l.Conn.Write(out); err != nil {
			return 0, err
		}
		return len(p), nil
	}
	for len(out) > 0 {
		n := min(1+l.draw.IntN(11), len(out))
		if _, err := l.Conn.Write(out[:n]); err != nil {
			return 0, err
		}
		out = out[n:]
	}
	return len(p), nil
}

// tamper does to frames what no honest session would.
func (l *line) tamper(b *Behaviour, frames []byte) []byte {
	var out []byte
	for len(frames) >= smpp.HeaderSize {
		h := smpp.ParseHeader(frames)
		frame := frames[:h.Length]
		frames = frames[h.Length:]
		l.frames++
		if b.IgnoreEnquire && (h.Command == smpp.CmdEnquireLink || h.Command == smpp.CmdEnquireLinkResp) {
			continue
		}
		if every(b.BadLengthEvery, l.frames) {
			out = binary.BigEndian.AppendUint32(out, 0x7FFFFFFF)
			out = append(out, frame[4:]...)
			continue
		}
		if share(l.draw, b.Garbage) {
			out = append(out, Garbage(l.draw)...)
		}
		answer := h.Command.IsResponse() && h.Command != smpp.CmdUnbindResp && !isBindResp(h.Command)
		switch {
		case answer && share(l.draw, b.WrongSequence):
			at := len(out)
			out = append(out, frame...)
			binary.BigEndian.PutUint32(out[at+12:], h.Sequence^0x55555555)
		case answer && h.Command != smpp.CmdEnquireLinkResp && share(l.draw, b.Nacks):
			// Appending a PDU without a body cannot fail.
			out, _ = smpp.Append(out, h.Sequence, b.NackStatus, &smpp.Plain{Command: smpp.CmdGenericNack})
		case answer && share(l.draw, b.DoubleAnswers):
			out = append(append(out, frame...), frame...)
		default:
			out = append(out, frame...)
		}
	}
	return append(out, frames...)
}

func isBindResp(c smpp.CommandID) bool {
	switch c {
	case smpp.CmdBindReceiverResp, smpp.CmdBindTransmitterResp, smpp.CmdBindTransceiverResp:
		return true
	default:
		return false
	}
}

// Garbage draws one PDU that makes no sense but has a true length: a session
// must survive it.
func Garbage(draw *rand.Rand) []byte {
	kinds := GarbagePDUs()
	return kinds[draw.IntN(len(kinds))].Octets
}

// NamedPDU is a PDU with a word about it.
type NamedPDU struct {
	Name   string
	Octets []byte
}

// GarbagePDUs lists PDUs that make no sense although their length is true.
func GarbagePDUs() []NamedPDU {
	frame := func(command uint32, sequence uint32, body ...byte) []byte {
		f := binary.BigEndian.AppendUint32(nil, uint32(smpp.HeaderSize+len(body)))
		f = binary.BigEndian.AppendUint32(f, command)
		f = binary.BigEndian.AppendUint32(f, 0)
		f = binary.BigEndian.AppendUint32(f, sequence)
		return append(f, body...)
	}
	message := func(sm ...byte) []byte {
		body := append([]byte("\x00\x01\x0179000000001\x00\x00\x013777\x00"), 0, 0, 0, 0, 0, 0, 0, 0, 0)
		return append(body, sm...)
	}
	long := make([]byte, 60_000)
	for i := range long {
		long[i] = 'x'
	}
	return []NamedPDU{
		{"unknown command", frame(0x0000DEAD, 900_001, 1, 2, 3)},
		{"unknown answer", frame(0x8000DEAD, 900_002, 1, 2, 3)},
		{"answer to nothing", frame(uint32(smpp.CmdSubmitSMResp), 900_003, 'x', 0)},
		{"answer without end of its id", frame(uint32(smpp.CmdSubmitSMResp), 900_004, 'x', 'y', 'z')},
		{"deliver_sm without a body", frame(uint32(smpp.CmdDeliverSM), 900_005)},
		{"deliver_sm with sm_length beyond its end", frame(uint32(smpp.CmdDeliverSM), 900_006, message(200, 'a', 'b')...)},
		{"deliver_sm with sm_length 255", frame(uint32(smpp.CmdDeliverSM), 900_007,
			message(append([]byte{255}, make([]byte, 255)...)...)...)},
		{"deliver_sm with an address of 60,000 octets", frame(uint32(smpp.CmdDeliverSM), 900_009,
			append([]byte{0, 1, 1}, long...)...)},
		{"generic_nack with a body", frame(uint32(smpp.CmdGenericNack), 900_010, 'w', 'h', 'y')},
		{"outbind", frame(uint32(smpp.CmdOutbind), 900_011, 'a', 0, 'b', 0)},
		{"submit_multi", frame(uint32(smpp.CmdSubmitMulti), 900_012, 0, 0, 0, 0)},
		{"bind on a bound session", frame(uint32(smpp.CmdBindTransceiver), 900_013, 'a', 0, 'b', 0, 0, 0x34, 0, 0, 0)},
		{"query_sm cut short", frame(uint32(smpp.CmdQuerySM), 900_014, 'i', 'd')},
		{"answer that is a request of nobody", frame(uint32(smpp.CmdEnquireLinkResp), 900_015)},
	}
}
