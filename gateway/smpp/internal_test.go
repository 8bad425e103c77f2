package smpp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// Sequence numbers go from 1 to 0x7FFFFFFF and begin again (SMPP 3.4, section
// 5.1.4; fiorix runs past the end). Numbers in use are left out.
func TestSequenceNumbersWrapAndLeaveOutThoseInUse(t *testing.T) {
	t.Parallel()
	s := &Session{
		sequence: maxSequence - 2,
		pending:  map[uint32]request{maxSequence: {}, 1: {}, 4: {}},
		late:     map[uint32]lateRequest{2: {}},
	}
	var got []uint32
	for range 4 {
		got = append(got, s.nextSequence())
	}
	want := []uint32{maxSequence - 1, 3, 5, 6}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("numbers %x, want %x", got, want)
		}
	}
}

func TestTheOldestGivenUpRequestsAreForgottenFirst(t *testing.T) {
	t.Parallel()
	s := &Session{late: make(map[uint32]lateRequest)}
	start := time.Now()
	for i := range uint32(lateLimit + 10) {
		s.rememberLate(i+1, request{sent: start.Add(time.Duration(i) * time.Second)})
	}
	if len(s.late) != lateLimit {
		t.Errorf("%d are remembered", len(s.late))
	}
	for i := range uint32(10) {
		if _, ok := s.late[i+1]; ok {
			t.Errorf("request %d is still remembered", i+1)
		}
	}
}

func TestPercentilesAreUpperBoundsExactToAFourth(t *testing.T) {
	t.Parallel()
	draw := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		d := time.Duration(draw.Int64N(int64(time.Minute)) >> draw.IntN(20))
		var l latency
		for range 10 {
			l.add(d)
		}
		got := l.quantile(0.99)
		if got < d || d >= 4*latencyUnit && got > d*5/4+1 || got != l.quantile(0.01) {
			t.Fatalf("all answers took %s, percentile is %s", d, got)
		}
	}
	var l latency
	if l.quantile(0.5) != 0 {
		t.Error("a percentile of nothing")
	}
	for i := range 1000 {
		l.add(time.Duration(i+1) * time.Millisecond)
	}
	if p50, p99 := l.quantile(0.5), l.quantile(0.99); p50 < 500*time.Millisecond || p50 > 625*time.Millisecond ||
		p99 < 990*time.Millisecond || p99 > 1240*time.Millisecond {
		t.Errorf("p50 %s, p99 %s of 1 to 1000 ms", p50, p99)
	}
	l.add(24 * time.Hour)
	l.add(-time.Second)
	for range 10 * latencyMemory {
		l.add(time.Millisecond)
	}
	if p99 := l.quantile(0.99); p99 > 1250*time.Microsecond {
		t.Errorf("p99 %s although the last thousands took 1 ms", p99)
	}
}

// A length is a claim. Memory is for what has come (fault row 22).
func TestAFrameTakesMemoryAsItComes(t *testing.T) {
	t.Parallel()
	for arrived := 4; arrived < MaxPDU; arrived = arrived*3 + 1 {
		claim := binary.BigEndian.AppendUint32(nil, MaxPDU)
		src := &countingReader{Reader: bytes.NewReader(append(claim, make([]byte, arrived-4)...))}
		f := NewFrameReader(src, MaxPDU)
		f.setBound(func(time.Time) error { return nil }, time.Second)
		if _, err := f.Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("error %v", err)
		}
		if src.largest > 2*max(arrived, boundBuffer) {
			t.Errorf("room for %d octets when %d had come", src.largest, arrived)
		}
	}
}

// countingReader remembers the largest room it was offered.
type countingReader struct {
	io.Reader
	largest int
}

func (r *countingReader) Read(p []byte) (int, error) {
	r.largest = max(r.largest, len(p))
	return r.Reader.Read(p)
}

func TestFramesAreTheSameHoweverTheStreamIsCut(t *testing.T) {
	t.Parallel()
	draw := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		var stream []byte
		var want [][]byte
		for range 20 {
			body := make([]byte, draw.IntN(1<<draw.IntN(16)))
			frame, err := Append(nil, draw.Uint32(), 0, &Raw{Command: CommandID(draw.Uint32()), Body: body})
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, frame)
			stream = append(stream, frame...)
		}
		f := NewFrameReader(&choppyReader{stream, draw}, MaxPDU)
		for i := range want {
			got, err := f.Next()
			if err != nil || !bytes.Equal(got, want[i]) {
				t.Fatalf("frame %d: %d octets, want %d, error %v", i, len(got), len(want[i]), err)
			}
		}
		if _, err := f.Next(); !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("at the end: %v", err)
		}
	}
}

type choppyReader struct {
	rest []byte
	draw *rand.Rand
}

func (r *choppyReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.rest[:1+r.draw.IntN(len(r.rest))])
	r.rest = r.rest[n:]
	return n, nil
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x10\x00\x00\x00\x15\x00\x00\x00\x00\x00\x00\x00\x01"), uint8(3))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), uint8(200))
	f.Fuzz(func(t *testing.T, stream []byte, cut uint8) {
		r := NewFrameReader(io.MultiReader(
			bytes.NewReader(stream[:min(int(cut), len(stream))]), bytes.NewReader(stream[min(int(cut), len(stream)):]),
		), MaxPDU)
		var read []byte
		for {
			frame, err := r.Next()
			if err != nil {
				break
			}
			if len(frame) < HeaderSize || int(ParseHeader(frame).Length) != len(frame) {
				t.Fatalf("frame %x", frame)
			}
			read = append(read, frame...)
		}
		if !bytes.HasPrefix(stream, read) {
			t.Fatalf("read %x of %x", read, stream)
		}
	})
}

func TestSMPPTimesAreWrittenAndRead(t *testing.T) {
	t.Parallel()
	moscow := time.FixedZone("", 3*3600)
	newYork := time.FixedZone("", -(4*3600 + 1800))
	now := time.Date(2026, 9, 1, 8, 15, 0, 0, moscow)
	for text, want := range map[string]time.Time{
		"260901081559712+": time.Date(2026, 9, 1, 8, 15, 59, 7e8, moscow),
		"260901081500018-": time.Date(2026, 9, 1, 8, 15, 0, 0, newYork),
	} {
		got, err := ParseTime(text, now)
		if err != nil || !got.Equal(want) {
			t.Errorf("%s is %s, want %s, error %v", text, got, want, err)
		}
		if again := FormatTime(want); again != text {
			t.Errorf("%s is written %s", want, again)
		}
	}
	for d, text := range map[time.Duration]string{
		15 * time.Minute:               "000000001500000R",
		25*time.Hour + 61*time.Second:  "000001010101000R",
		time.Millisecond:               "000000000001000R",
		1500 * time.Millisecond:        "000000000002000R",
		-time.Hour:                     "000000000001000R",
		1000 * time.Hour * 24:          "000031000000000R",
		24*time.Hour - time.Nanosecond: "000001000000000R",
	} {
		if got := FormatPeriod(d); got != text {
			t.Errorf("%s is written %s, want %s", d, got, text)
		}
		got, err := ParseTime(text, now)
		if want := min(max(d, time.Second), maxPeriod); err != nil || got.Sub(now) < want || got.Sub(now) > want+time.Second {
			t.Errorf("%s is read as %s, error %v", text, got.Sub(now), err)
		}
	}
	if got, err := ParseTime("", now); err != nil || !got.IsZero() {
		t.Errorf("the empty time is %s, error %v", got, err)
	}
	for _, text := range []string{
		"2609010815590", "26090108155971x+", "260901081559712*", "261301081559712+", "260231081559712+",
		"260901241559712+", "260901086059712+", "260901081560712+", "260901081559749+", "1234567890123456",
	} {
		if got, err := ParseTime(text, now); err == nil {
			t.Errorf("%s is read as %s", text, got)
		}
	}
}

func FuzzParseTime(f *testing.F) {
	f.Add("260901081559712+")
	f.Add("000000001500000R")
	f.Fuzz(func(t *testing.T, text string) {
		now := time.Unix(1_800_000_000, 0)
		got, err := ParseTime(text, now)
		if err != nil || text == "" || text[15] == 'R' {
			return
		}
		again, err := ParseTime(FormatTime(got), now)
		if err != nil || !again.Equal(got) {
			t.Fatalf("%s is %s, written and read again %s, %v", text, got, again, err)
		}
	})
}

type remoteConn struct {
	net.Conn
	remote net.Addr
	closed bool
}

func (c *remoteConn) RemoteAddr() net.Addr { return c.remote }
func (c *remoteConn) Close() error         { c.closed = true; return nil }

func connFrom(ip string) *remoteConn {
	return &remoteConn{remote: &net.TCPAddr{IP: net.ParseIP(ip), Port: 1}}
}

func testGuard() *guard {
	return newGuard(ServerConfig{MaxConns: 100, MaxConnsPerAddress: 10, MaxUnbound: 20, MaxUnboundPerAddress: 5})
}

func TestAnAddressIsAnIPv4HostOrAnIPv6Network(t *testing.T) {
	t.Parallel()
	for ip, want := range map[string]string{
		"192.0.2.7":               "192.0.2.7",
		"::ffff:192.0.2.7":        "192.0.2.7",
		"2001:db8:1:2:3:4:5:6":    "2001:db8:1:2::",
		"2001:db8:1:2:ffff::beef": "2001:db8:1:2::",
	} {
		if got := sourceAddress(connFrom(ip).RemoteAddr()); got != netip.MustParseAddr(want) {
			t.Errorf("%s counts as %s, want %s", ip, got, want)
		}
	}
}

func TestTheOldestConnectionWithoutABindMakesRoomForANewOne(t *testing.T) {
	t.Parallel()
	g, now := testGuard(), time.Now()
	var conns []*remoteConn
	var visitors []*stranger
	for i := range 25 {
		conn := connFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}).String())
		visitor, ok := g.enter(conn, now)
		if !ok {
			t.Fatalf("connection %d is shut out", i)
		}
		if i == 1 {
			g.bound(visitor, now) // the second has bound and is not one of them any more
		}
		conns, visitors = append(conns, conn), append(visitors, visitor)
	}
	for i, conn := range conns {
		if want := i < 5 && i != 1; conn.closed != want {
			t.Errorf("connection %d closed: %v, want %v", i, conn.closed, want)
		}
	}
	for _, visitor := range visitors {
		g.leave(visitor, now)
	}
	if g.conns != 0 || len(g.unbound) != 0 {
		t.Errorf("%d connections and %d without bind are left", g.conns, len(g.unbound))
	}
	for address, r := range g.addresses {
		if r.conns != 0 || r.unbound != 0 {
			t.Errorf("%s: %+v", address, r)
		}
	}
}

func TestOneAddressHasItsShareOfConnections(t *testing.T) {
	t.Parallel()
	g, now := testGuard(), time.Now()
	in := 0
	for range 30 {
		if _, ok := g.enter(connFrom("192.0.2.1"), now); ok {
			in++
		}
	}
	if in != 5 {
		t.Errorf("%d connections without bind, want 5", in)
	}
	for range 30 {
		visitor, ok := g.enter(connFrom("192.0.2.2"), now)
		if ok {
			g.bound(visitor, now)
			in++
		}
	}
	if in != 15 {
		t.Errorf("%d bound connections, want 10", in-5)
	}
}

// Fault row 24: who guesses is shut out for a while, who knows is not.
func TestGuessesRunOutAndComeBack(t *testing.T) {
	t.Parallel()
	g, now := testGuard(), time.Now()
	guess := func(ip string) bool {
		visitor, ok := g.enter(connFrom(ip), now)
		if !ok {
			return false
		}
		defer g.leave(visitor, now)
		if g.wrong(visitor, "operator", now) {
			g.refused("operator")
		}
		return true
	}
	tries := 0
	for guess("192.0.2.1") {
		tries++
	}
	if tries != wrongBindsPerMinute {
		t.Errorf("%d guesses, want %d", tries, wrongBindsPerMinute)
	}
	now = now.Add(7 * time.Second)
	if !guess("192.0.2.1") || guess("192.0.2.1") {
		t.Error("after 6 s one more guess is allowed, and no more")
	}
	// An address that has logged in may err as often as it likes.
	visitor, _ := g.enter(connFrom("192.0.2.2"), now)
	g.bound(visitor, now)
	for range 50 {
		if !guess("192.0.2.2") {
			t.Fatal("a known address is shut out")
		}
	}
	// While the name is attacked, those who guessed are not even listened to.
	fresh, _ := g.enter(connFrom("192.0.2.3"), now)
	if g.suspect(fresh, "operator", now) {
		t.Error("a new address is suspect")
	}
	if g.suspect(visitor, "operator", now) {
		t.Error("a known address is suspect")
	}
	g.wrong(fresh, "operator", now)
	if !g.suspect(fresh, "operator", now) {
		t.Error("an address that guessed is not suspect")
	}
	if g.suspect(fresh, "another", now) || g.suspect(fresh, "operator", now.Add(2*time.Minute)) {
		t.Error("suspicion spreads or stays")
	}
}

func TestOnlySoManyWaitForTheRefusalOfOneName(t *testing.T) {
	t.Parallel()
	g, now := testGuard(), time.Now()
	waiting := 0
	for i := range penaltyPerID + 10 {
		visitor := &stranger{address: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})}
		if g.wrong(visitor, "operator", now) {
			waiting++
		}
	}
	if waiting != penaltyPerID {
		t.Errorf("%d wait, want %d", waiting, penaltyPerID)
	}
	g.refused("operator")
	if !g.wrong(&stranger{}, "operator", now) {
		t.Error("nobody may wait although one has gone")
	}
}

func TestTheMemoryOfTheGuardIsBounded(t *testing.T) {
	t.Parallel()
	g, now := testGuard(), time.Now()
	for i := range 3 * guardLimit {
		now = now.Add(time.Millisecond)
		visitor := &stranger{address: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})}
		id := string(binary.BigEndian.AppendUint32(nil, uint32(i)))
		if g.wrong(visitor, id, now) {
			g.refused(id)
		}
	}
	if len(g.addresses) > guardLimit || len(g.ids) > guardLimit {
		t.Errorf("%d addresses and %d names are remembered", len(g.addresses), len(g.ids))
	}
}

func TestAQueueHandsOutInOrderAndEndsEmpty(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue[int]()
		go func() {
			for i := range 1000 {
				q.push(i)
			}
			q.close()
		}()
		next := 0
		var batch []int
		for {
			var ok bool
			if batch, ok = q.take(batch); !ok {
				break
			}
			for _, v := range batch {
				if v != next {
					t.Fatalf("%d came, want %d", v, next)
				}
				next++
			}
		}
		if next != 1000 {
			t.Errorf("%d came", next)
		}
	})
}

// A session with USSD dialogues open for minutes must not fill its window with
// them, and a place in the window is free again after every kind of failure.
func TestAFailedSubmitGivesItsPlaceInTheWindowBack(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	defer far.Close()
	s := newSession(near, NewFrameReader(near, MaxUnboundPDU), SessionConfig{Window: 1}, Binding{})
	s.start()
	go func() { _, _ = io.Copy(io.Discard, far) }()
	for range 3 {
		long := &Message{Command: CmdSubmitSM, ShortMessage: make([]byte, 300)}
		if err := s.Submit(context.Background(), Request{PDU: long}); !errors.Is(err, ErrNotEncodable) {
			t.Errorf("error %v", err)
		}
	}
	if len(s.slots) != 0 || s.Snapshot().InWindow != 0 {
		t.Errorf("%d places are taken", len(s.slots))
	}
	s.Kill(ErrClosed)
	<-s.Done()
}
