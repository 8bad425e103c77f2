package smpp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"zvonok/gateway/smpp"
	"zvonok/gateway/smpp/smpptest"
)

// Pain 17: gateways take the SMSC's request for the answer to theirs when both
// carry the same number, and count from 1 on both sides.
func TestADeliverSMWithTheNumberOfAWaitingSubmitIsNotItsAnswer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var handled []*smpp.Inbound
		s, p := boundESME(t, smpp.SessionConfig{Handle: func(in *smpp.Inbound) {
			handled = append(handled, in)
			if err := in.Answer(smpp.StatusOK, ""); err != nil {
				t.Error(err)
			}
		}})
		c := make(outcomes, 10)
		submit(t, s, "ours", c)
		h, _ := p.expect(smpp.CmdSubmitSM)

		receipt := text("377")
		receipt.Command = smpp.CmdDeliverSM
		p.send(h.Sequence, smpp.StatusOK, receipt)
		if ack, _ := p.expect(smpp.CmdDeliverSMResp); ack.Sequence != h.Sequence {
			t.Errorf("deliver_sm %d is acknowledged with the number %d", h.Sequence, ack.Sequence)
		}
		synctest.Wait()
		if len(handled) != 1 || len(c) != 0 {
			t.Fatalf("%d requests handled, %d outcomes; want 1 and 0", len(handled), len(c))
		}
		p.answer(h.Sequence, "A1")
		if o := <-c; o.Kind != smpp.Answered || o.Token != "ours" || o.MessageID() != "A1" {
			t.Errorf("outcome %+v", o)
		}
	})
}

// Pain 18: time-outs of one or two seconds turn slow answers into duplicates.
func TestAnAnswerMayTakeThirtySecondsByDefault(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, p := boundESME(t, smpp.SessionConfig{})
		keepAlive(p)
		c := make(outcomes, 10)
		start := time.Now()
		submit(t, s, 1, c)
		o := <-c
		if took := time.Since(start); took < 30*time.Second || took > 31*time.Second {
			t.Errorf("given up after %s", took)
		}
		if o.Kind != smpp.Unknown || !errors.Is(o.Err, smpp.ErrTimeout) || o.Token != 1 {
			t.Errorf("outcome %+v", o)
		}
	})
}

// keepAlive lets the peer answer enquire_link and ignore the rest.
func keepAlive(p *peer) {
	go func() {
		for h := range p.in {
			<-p.pdus
			if h.Command == smpp.CmdEnquireLink {
				frame, _ := smpp.Append(nil, h.Sequence, 0, &smpp.Plain{Command: smpp.CmdEnquireLinkResp})
				if _, err := p.conn.Write(frame); err != nil {
					return
				}
			}
		}
	}()
}

// Fault row 17 and pain 18: an answer after 40 s still belongs to its message.
func TestALateAnswerIsHandedOverWithItsToken(t *testing.T) {
	bubble(t, func(t *testing.T) {
		late := make(outcomes, 10)
		s, p := boundESME(t, smpp.SessionConfig{Late: late.done})
		c := make(outcomes, 10)
		submit(t, s, "slow", c)
		h, _ := p.expect(smpp.CmdSubmitSM)
		keepAlive(p)
		if o := <-c; o.Kind != smpp.Unknown {
			t.Fatalf("outcome %+v", o)
		}
		time.Sleep(10 * time.Second)
		p.answer(h.Sequence, "LATE1")
		o := <-late
		if o.Kind != smpp.Answered || o.Token != "slow" || o.MessageID() != "LATE1" || o.RTT < 40*time.Second {
			t.Errorf("late outcome %+v", o)
		}
		p.answer(h.Sequence, "LATE1") // and only once
		synctest.Wait()
		if n := s.Snapshot(); len(late) != 0 || len(c) != 0 || n.Late != 1 || n.Unknown != 1 || n.Stray != 1 {
			t.Errorf("%d late, %d outcomes, snapshot %+v", len(late), len(c), n)
		}
	})
}

// Pain 18: where answers usually take long the session waits longer.
func TestTheResponseTimeoutFollowsASlowPeer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, p := boundESME(t, smpp.SessionConfig{Window: 100})
		if got := s.Snapshot().ResponseTimeout; got != 30*time.Second {
			t.Errorf("timeout %s at first", got)
		}
		c := make(outcomes, 100)
		for i := range 100 {
			submit(t, s, i, c)
		}
		var numbers []uint32
		for range 100 {
			h, _ := p.expect(smpp.CmdSubmitSM)
			numbers = append(numbers, h.Sequence)
		}
		time.Sleep(20 * time.Second)
		for _, n := range numbers {
			p.answer(n, "id")
		}
		for range 100 {
			<-c
		}
		if got := s.Snapshot().ResponseTimeout; got < 60*time.Second || got > 120*time.Second {
			t.Errorf("timeout %s although answers take 20 s", got)
		}
	})
}

// Fault row 18.
func TestWrongAndDoubleAnswersChangeNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, p := boundESME(t, smpp.SessionConfig{})
		c := make(outcomes, 10)
		submit(t, s, "a", c)
		submit(t, s, "b", c)
		a, _ := p.expect(smpp.CmdSubmitSM)
		b, _ := p.expect(smpp.CmdSubmitSM)

		p.answer(9999, "nobody's")
		p.send(a.Sequence, smpp.StatusOK, &smpp.QueryResp{MessageID: "other kind"})
		p.send(a.Sequence, smpp.StatusOK, &smpp.Plain{Command: smpp.CmdEnquireLinkResp})
		synctest.Wait()
		if len(c) != 0 {
			t.Fatalf("outcome %+v for an answer to nothing", <-c)
		}
		p.answer(b.Sequence, "B")
		p.answer(b.Sequence, "B again")
		p.answer(a.Sequence, "A")
		if o := <-c; o.Token != "b" || o.MessageID() != "B" {
			t.Errorf("outcome %+v", o)
		}
		if o := <-c; o.Token != "a" || o.MessageID() != "A" {
			t.Errorf("outcome %+v", o)
		}
		synctest.Wait()
		if n := s.Snapshot(); len(c) != 0 || n.Answered != 2 || n.Stray != 4 {
			t.Errorf("snapshot %+v", n)
		}
	})
}

// Fault row 18: a generic_nack with our number settles that request and no
// other.
func TestAGenericNackSettlesExactlyOneRequest(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, p := boundESME(t, smpp.SessionConfig{})
		c := make(outcomes, 10)
		submit(t, s, "a", c)
		submit(t, s, "b", c)
		a, _ := p.expect(smpp.CmdSubmitSM)
		p.expect(smpp.CmdSubmitSM)
		p.send(a.Sequence, smpp.StatusThrottled, &smpp.Plain{Command: smpp.CmdGenericNack})
		p.send(77_777, smpp.StatusThrottled, &smpp.Plain{Command: smpp.CmdGenericNack})
		if o := <-c; o.Token != "a" || !o.Nacked || o.Status != smpp.StatusThrottled || o.Kind != smpp.Answered {
			t.Errorf("outcome %+v", o)
		}
		synctest.Wait()
		if n := s.Snapshot(); len(c) != 0 || n.InWindow != 1 || n.Nacks != 2 || n.Stray != 1 {
			t.Errorf("snapshot %+v", n)
		}
	})
}

func TestAGenericNackWithoutNumberEndsTheSession(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, p := boundESME(t, smpp.SessionConfig{})
		p.send(0, smpp.StatusInvalidCommandLength, &smpp.Plain{Command: smpp.CmdGenericNack})
		<-s.Done()
		if !errors.Is(s.Err(), smpp.ErrNacked) {
			t.Errorf("ended with %v", s.Err())
		}
	})
}

// Pain 16 and fault row 22: one strange PDU kills the session of others.
func TestNoStrangePDUEndsTheSession(t *testing.T) {
	for _, garbage := range smpptest.GarbagePDUs() {
		t.Run(garbage.Name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				strange := make(chan smpp.Strange, 10)
				s, p := boundESME(t, smpp.SessionConfig{
					Handle:  func(in *smpp.Inbound) { t.Errorf("%s reached the handler", in.Header.Command) },
					Inspect: func(x smpp.Strange) { strange <- x },
				})
				p.write(garbage.Octets)
				h := smpp.ParseHeader(garbage.Octets)
				synctest.Wait()

				// Every request gets an answer, no answer gets one.
				if !h.Command.IsResponse() {
					got, ok := <-p.in
					if !ok {
						t.Fatal("the session ended")
					}
					<-p.pdus
					if got.Sequence != h.Sequence || got.Status == smpp.StatusOK || !got.Command.IsResponse() {
						t.Errorf("answered with %+v", got)
					}
				}
				// What could not be understood is shown to people.
				_, _, decodeErr := smpp.Decode(garbage.Octets)
				if decodeErr != nil {
					x := <-strange
					if x.Header.Sequence != h.Sequence || x.Reason == "" || len(x.Octets) > 1024 ||
						!strings.HasPrefix(string(garbage.Octets), string(x.Octets)) {
						t.Errorf("shown %+v", x)
					}
				}
				// And the session goes on.
				c := make(outcomes, 1)
				submit(t, s, 1, c)
				sent, _ := p.expect(smpp.CmdSubmitSM)
				p.answer(sent.Sequence, "fine")
				if o := <-c; o.MessageID() != "fine" {
					t.Errorf("outcome %+v", o)
				}
			})
		})
	}
}

func TestAnAnswerThatDoesNotDecodeStillSettlesItsRequestByItsStatus(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, p := boundESME(t, smpp.SessionConfig{})
		c := make(outcomes, 1)
		submit(t, s, 1, c)
		h, _ := p.expect(smpp.CmdSubmitSM)
		p.send(h.Sequence, smpp.StatusOK, &smpp.Raw{Command: smpp.CmdSubmitSMResp, Body: []byte("no end")})
		if o := <-c; o.Kind != smpp.Answered || o.Status != smpp.StatusOK || o.MessageID() != "" {
			t.Errorf("outcome %+v", o)
		}
	})
}

// Pain 19: a receipt is acknowledged after it was stored, and refused with 0x64
// when it cannot be, so that the SMSC keeps it.
func TestAReceiptIsAcknowledgedWhenAndHowTheHandlerSays(t *testing.T) {
	bubble(t, func(t *testing.T) {
		handled := make(chan *smpp.Inbound, 10)
		s, p := boundESME(t, smpp.SessionConfig{Handle: func(in *smpp.Inbound) { handled <- in }})
		receipt := text("377")
		receipt.Command = smpp.CmdDeliverSM
		p.send(1, smpp.StatusOK, receipt)
		p.send(2, smpp.StatusOK, receipt)
		first, second := <-handled, <-handled
		time.Sleep(5 * time.Second) // the database is slow
		synctest.Wait()
		if len(p.in) != 0 {
			t.Fatal("acknowledged before the handler said so")
		}
		if n := s.Snapshot(); n.InboundPending != 2 {
			t.Errorf("%d pending, want 2", n.InboundPending)
		}
		for _, err := range []error{
			second.Answer(smpp.StatusReceiverTemporary, ""), first.Answer(smpp.StatusOK, ""),
		} {
			if err != nil {
				t.Error(err)
			}
		}
		for _, want := range []smpp.Header{
			{Length: 17, Command: smpp.CmdDeliverSMResp, Sequence: 2, Status: smpp.StatusReceiverTemporary},
			{Length: 17, Command: smpp.CmdDeliverSMResp, Sequence: 1},
		} {
			if h, _ := p.expect(smpp.CmdDeliverSMResp); h != want {
				t.Errorf("answered with %+v, want %+v", h, want)
			}
		}
		if err := first.Answer(smpp.StatusOK, ""); !errors.Is(err, smpp.ErrAnswered) {
			t.Errorf("a second answer: %v", err)
		}
		if n := s.Snapshot(); n.InboundPending != 0 || n.InboundAnswered != 2 {
			t.Errorf("snapshot %+v", n)
		}
	})
}

func TestAnAnswerAfterTheEndOfTheSessionIsAnError(t *testing.T) {
	bubble(t, func(t *testing.T) {
		handled := make(chan *smpp.Inbound, 1)
		s, p := boundESME(t, smpp.SessionConfig{Handle: func(in *smpp.Inbound) { handled <- in }})
		receipt := text("377")
		receipt.Command = smpp.CmdDeliverSM
		p.send(1, smpp.StatusOK, receipt)
		in := <-handled
		p.conn.Close()
		<-s.Done()
		var closed *smpp.ClosedError
		if err := in.Answer(smpp.StatusOK, ""); !errors.As(err, &closed) {
			t.Errorf("error %v", err)
		}
	})
}

func TestAFullInboxRefusesSoThatThePeerKeepsTheMessage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		handled := make(chan *smpp.Inbound, 10)
		_, p := boundESME(t, smpp.SessionConfig{InboundLimit: 2, Handle: func(in *smpp.Inbound) { handled <- in }})
		for i, c := range []struct {
			pdu    smpp.PDU
			status smpp.Status
		}{
			{&smpp.Message{Command: smpp.CmdDeliverSM}, 0},
			{&smpp.Message{Command: smpp.CmdDeliverSM}, 0},
			{&smpp.Message{Command: smpp.CmdDeliverSM}, smpp.StatusReceiverTemporary},
			{&smpp.Message{Command: smpp.CmdDataSM}, smpp.StatusReceiverTemporary},
			{&smpp.Message{Command: smpp.CmdSubmitSM}, smpp.StatusThrottled},
			{&smpp.Query{}, smpp.StatusSystemError},
			{&smpp.Cancel{}, smpp.StatusSystemError},
		} {
			p.send(uint32(i+1), 0, c.pdu)
			if c.status == smpp.StatusOK {
				continue
			}
			if h, _ := p.expect(c.pdu.CommandID().Response()); h.Status != c.status || h.Sequence != uint32(i+1) {
				t.Errorf("%s is answered with %+v, want %s", c.pdu.CommandID(), h, c.status)
			}
		}
		if err := (<-handled).Answer(smpp.StatusOK, ""); err != nil {
			t.Fatal(err)
		}
		p.expect(smpp.CmdDeliverSMResp)
		p.send(100, 0, &smpp.Message{Command: smpp.CmdDeliverSM})
		<-handled
		if in := <-handled; in.Header.Sequence != 100 {
			t.Errorf("%d is handled after there was room again", in.Header.Sequence)
		}
	})
}

func TestAHandlerThatHangsDelaysNeitherAnswersNorEnquireLink(t *testing.T) {
	bubble(t, func(t *testing.T) {
		free := make(chan struct{})
		s, p := boundESME(t, smpp.SessionConfig{Handle: func(in *smpp.Inbound) { <-free }})
		defer close(free)
		p.send(1, 0, &smpp.Message{Command: smpp.CmdDeliverSM})
		c := make(outcomes, 1)
		submit(t, s, 1, c)
		h, _ := p.expect(smpp.CmdSubmitSM)
		p.answer(h.Sequence, "A1")
		if o := <-c; o.MessageID() != "A1" {
			t.Errorf("outcome %+v", o)
		}
		p.send(2, 0, &smpp.Plain{Command: smpp.CmdEnquireLink})
		if h, _ := p.expect(smpp.CmdEnquireLinkResp); h.Sequence != 2 {
			t.Errorf("enquire_link is answered with %+v", h)
		}
	})
}

// Pain 5: throughput is window divided by round trip, and the snapshot says
// that the window is the limit.
func TestThroughputIsWindowByRoundTripAndTheSnapshotSaysSo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const window, roundTrip, messages = 10, 50 * time.Millisecond, 200
		s, p := boundESME(t, smpp.SessionConfig{Window: window})
		go func() {
			for h := range p.in {
				<-p.pdus
				if h.Command != smpp.CmdSubmitSM {
					continue
				}
				time.AfterFunc(roundTrip, func() { p.answer(h.Sequence, "id") })
			}
		}()
		c := make(outcomes, messages)
		start := time.Now()
		for i := range messages {
			submit(t, s, i, c)
		}
		for range messages {
			<-c
		}
		perSecond := messages / time.Since(start).Seconds()
		if perSecond < 190 || perSecond > 201 {
			t.Errorf("%.0f messages a second, want 200", perSecond)
		}
		n := s.Snapshot()
		if n.Window != window || n.Waited < 500*time.Millisecond || n.InWindow != 0 || n.Answered != messages {
			t.Errorf("snapshot %+v", n)
		}
		if n.RTTP50 < roundTrip || n.RTTP50 > roundTrip*6/5 || n.RTTP99 < roundTrip || n.RTTLast != roundTrip {
			t.Errorf("round trip p50 %s p99 %s last %s, want %s", n.RTTP50, n.RTTP99, n.RTTLast, roundTrip)
		}
	})
}

func TestAFullWindowWaitsAndIsNoError(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, p := boundESME(t, smpp.SessionConfig{Window: 2})
		c := make(outcomes, 10)
		submit(t, s, 1, c)
		submit(t, s, 2, c)
		first, _ := p.expect(smpp.CmdSubmitSM)
		p.expect(smpp.CmdSubmitSM)

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := s.Submit(ctx, smpp.Request{PDU: text("79000000001"), Done: c.done})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		accepted := make(chan error, 1)
		go func() {
			accepted <- s.Submit(t.Context(), smpp.Request{PDU: text("79000000003"), Token: 3, Done: c.done})
		}()
		synctest.Wait()
		if n := s.Snapshot(); n.Waiting != 1 || n.InWindow != 2 || len(accepted) != 0 {
			t.Errorf("snapshot %+v", n)
		}
		p.answer(first.Sequence, "A1")
		if err := <-accepted; err != nil {
			t.Error(err)
		}
		if _, pdu := p.expect(smpp.CmdSubmitSM); pdu.(*smpp.Message).Destination.Addr != "79000000003" {
			t.Errorf("%+v was sent", pdu)
		}
	})
}

// A menu that waits for a key must not hold the SMS behind it, nor wait behind
// them (spec/ussd.md, section 1.4).
func TestAUSSDRequestOutsideTheWindowGoesAtOnceAndMayWaitForMinutes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, p := boundESME(t, smpp.SessionConfig{Window: 1})
		c := make(outcomes, 10)
		submit(t, s, "sms", c)
		sms, _ := p.expect(smpp.CmdSubmitSM)
		menu := text("79000000002")
		menu.TLVs = smpp.USSD(2)
		err := s.Submit(t.Context(), smpp.Request{
			PDU: menu, Token: "menu", Done: c.done, OutsideWindow: true, Timeout: 180 * time.Second,
		})
		if err != nil {
			t.Fatal(err)
		}
		ussd, _ := p.expect(smpp.CmdSubmitSM)
		if n := s.Snapshot(); n.InWindow != 1 || n.Outside != 1 {
			t.Errorf("snapshot %+v", n)
		}
		p.answer(sms.Sequence, "A1")
		if o := <-c; o.Token != "sms" {
			t.Fatalf("outcome %+v", o)
		}
		keepAlive(p)
		time.Sleep(170 * time.Second)
		p.answer(ussd.Sequence, "U1")
		if o := <-c; o.Token != "menu" || o.Kind != smpp.Answered {
			t.Errorf("outcome %+v", o)
		}
	})
}

// Fault row 11: half-open TCP. Pain 20: closed but alive.
func TestASilentPeerIsDeadWithinFortyFiveSecondsAndItsMessagesAreInDoubt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, p := boundESME(t, smpp.SessionConfig{})
		c := make(outcomes, 10)
		time.Sleep(20 * time.Second)
		submit(t, s, "in doubt", c)
		p.expect(smpp.CmdSubmitSM)
		start := time.Now()
		<-s.Done()
		if took := time.Since(start); took > 26*time.Second || took < 24*time.Second {
			t.Errorf("seen as dead after %s, 45 s after the bind it should be", 20*time.Second+took)
		}
		if !errors.Is(s.Err(), smpp.ErrDead) {
			t.Errorf("ended with %v", s.Err())
		}
		if o := <-c; o.Kind != smpp.Unknown || !errors.Is(o.Err, smpp.ErrDead) {
			t.Errorf("outcome %+v", o)
		}
	})
}

func TestAnyPDUOfThePeerCountsAsLife(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, p := boundESME(t, smpp.SessionConfig{Handle: func(in *smpp.Inbound) {
			if err := in.Answer(smpp.StatusOK, ""); err != nil {
				t.Error(err)
			}
		}})
		go func() {
			for range p.in { // no enquire_link is ever answered
				<-p.pdus
			}
		}()
		for i := range 100 {
			time.Sleep(6 * time.Second)
			p.send(uint32(i+1), 0, &smpp.Message{Command: smpp.CmdDeliverSM})
		}
		if err := s.Err(); err != nil {
			t.Errorf("ended with %v", err)
		}
	})
}

// Fault row 13: the peer answers enquire_link and nothing else.
func TestAStuckWindowExpiresAndTheSessionIsGivenUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, p := boundESME(t, smpp.SessionConfig{Window: 5})
		keepAlive(p)
		c := make(outcomes, 100)
		start := time.Now()
		var err error
		for i := 0; err == nil; i++ {
			err = s.Submit(t.Context(), smpp.Request{PDU: text("79000000001"), Token: i, Done: c.done})
		}
		<-s.Done()
		// Two windows of five expire at 30 s each.
		if took := time.Since(start); took < 60*time.Second || took > 62*time.Second || !errors.Is(s.Err(), smpp.ErrStuck) {
			t.Errorf("ended after %s with %v", took, s.Err())
		}
		var closed *smpp.ClosedError
		if !errors.As(err, &closed) || !errors.Is(err, smpp.ErrStuck) {
			t.Errorf("the next request: %v", err)
		}
		close(c)
		unknown := 0
		for o := range c {
			if o.Kind == smpp.Unknown {
				unknown++
			}
		}
		if unknown < 10 {
			t.Errorf("%d unknown outcomes", unknown)
		}
	})
}

// Fault row 10 and pain 8: when the line breaks, what was written is in doubt
// and what was not is known not to be sent.
func TestWhenTheLineBreaksOnlyWhatWasWrittenIsInDoubt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		handshake := make(chan struct{})
		go func() { // a peer that stops reading after three messages
			defer close(handshake)
			frames := smpp.NewFrameReader(theirs, smpp.MaxPDU)
			frame, err := frames.Next()
			if err != nil {
				t.Error(err)
				return
			}
			resp, _ := smpp.Append(nil, smpp.ParseHeader(frame).Sequence, 0, &smpp.BindResp{SystemID: "SMSC"})
			if _, err := theirs.Write(resp); err != nil {
				t.Error(err)
			}
		}()
		s, err := smpp.BindOver(t.Context(), ours, smpp.ClientConfig{SystemID: "zvonok"})
		<-handshake
		if err != nil {
			t.Fatal(err)
		}
		c := make(outcomes, 10)
		frame, err := smpp.Append(nil, 1, 0, text("79000000001"))
		if err != nil {
			t.Fatal(err)
		}
		for i := range 5 {
			submit(t, s, i, c)
			synctest.Wait()
			if i < 3 {
				if _, err := io.ReadFull(theirs, make([]byte, len(frame))); err != nil {
					t.Fatal(err)
				}
			}
		}
		if _, err := io.ReadFull(theirs, make([]byte, 10)); err != nil { // part of the fourth
			t.Fatal(err)
		}
		theirs.Close()
		<-s.Done()
		kinds := make(map[any]smpp.OutcomeKind)
		for range 5 {
			o := <-c
			kinds[o.Token] = o.Kind
		}
		for token, want := range map[any]smpp.OutcomeKind{
			0: smpp.Unknown, 1: smpp.Unknown, 2: smpp.Unknown, 3: smpp.Unknown, 4: smpp.NeverWritten,
		} {
			if kinds[token] != want {
				t.Errorf("message %v is %s, want %s", token, kinds[token], want)
			}
		}
	})
}

// Pain 20: unbind, then wait, then close.
func TestCloseWaitsForAnswersThenUnbinds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, p := boundESME(t, smpp.SessionConfig{})
		c := make(outcomes, 10)
		submit(t, s, 1, c)
		h, _ := p.expect(smpp.CmdSubmitSM)
		closed := make(chan error, 1)
		go func() { closed <- s.Close(t.Context()) }()
		synctest.Wait()
		if len(p.in) != 0 {
			t.Fatal("something was sent before the answer came")
		}
		var refused *smpp.ClosedError
		if err := s.Submit(t.Context(), smpp.Request{PDU: text("79000000001")}); !errors.As(err, &refused) {
			t.Errorf("a request while closing: %v", err)
		}
		p.answer(h.Sequence, "A1")
		u, _ := p.expect(smpp.CmdUnbind)
		p.send(u.Sequence, 0, &smpp.Plain{Command: smpp.CmdUnbindResp})
		if err := <-closed; err != nil {
			t.Error(err)
		}
		p.expectEnd()
		if o := <-c; o.Kind != smpp.Answered {
			t.Errorf("outcome %+v", o)
		}
		if !errors.Is(s.Err(), smpp.ErrClosed) {
			t.Errorf("ended with %v", s.Err())
		}
	})
}

func TestCloseDoesNotWaitForeverForAPeerThatIgnoresUnbind(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, p := boundESME(t, smpp.SessionConfig{})
		c := make(outcomes, 10)
		submit(t, s, 1, c)
		p.expect(smpp.CmdSubmitSM)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		if err := s.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		if took := time.Since(start); took != 8*time.Second {
			t.Errorf("took %s, want 3 s for answers and 5 s for unbind_resp", took)
		}
		if o := <-c; o.Kind != smpp.Unknown {
			t.Errorf("outcome %+v", o)
		}
	})
}

func TestAnUnbindInMidWindowIsAnsweredAfterTheAnswersThatStillCome(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, p := boundESME(t, smpp.SessionConfig{})
		c := make(outcomes, 10)
		submit(t, s, 1, c)
		submit(t, s, 2, c)
		first, _ := p.expect(smpp.CmdSubmitSM)
		p.expect(smpp.CmdSubmitSM)
		p.send(500, 0, &smpp.Plain{Command: smpp.CmdUnbind})
		p.send(501, 0, &smpp.Plain{Command: smpp.CmdUnbind}) // some ask twice
		<-s.Closing()
		var closed *smpp.ClosedError
		if err := s.Submit(t.Context(), smpp.Request{PDU: text("79000000001")}); !errors.As(err, &closed) ||
			!errors.Is(err, smpp.ErrUnbound) {
			t.Errorf("a request after unbind: %v", err)
		}
		p.answer(first.Sequence, "A1")
		start := time.Now()
		if h, _ := p.expect(smpp.CmdUnbindResp); h.Sequence != 500 || h.Status != 0 {
			t.Errorf("answered with %+v", h)
		}
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("answered after %s, want the 2 s of grace", took)
		}
		<-s.Done()
		if !errors.Is(s.Err(), smpp.ErrUnbound) {
			t.Errorf("ended with %v", s.Err())
		}
		if o := <-c; o.Kind != smpp.Answered || o.Token != 1 {
			t.Errorf("outcome %+v", o)
		}
		if o := <-c; o.Kind != smpp.Unknown || o.Token != 2 || !errors.Is(o.Err, smpp.ErrUnbound) {
			t.Errorf("outcome %+v", o)
		}
	})
}

// Fault row 23: a PDU has a deadline, not an octet.
func TestAPDUThatTricklesInEndsTheSession(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, p := boundESME(t, smpp.SessionConfig{})
		time.Sleep(25 * time.Second) // silence between PDUs is allowed
		frame, err := smpp.Append(nil, 1, 0, &smpp.Message{Command: smpp.CmdDeliverSM, ShortMessage: make([]byte, 200)})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		for i := range frame {
			if _, err := p.conn.Write(frame[i : i+1]); err != nil {
				break
			}
			time.Sleep(time.Second)
		}
		<-s.Done()
		if took := time.Since(start); took < 10*time.Second || took > 12*time.Second || !errors.Is(s.Err(), smpp.ErrSlowPDU) {
			t.Errorf("ended after %s with %v", took, s.Err())
		}
	})
}

func TestFramesMaySplitAnywhere(t *testing.T) {
	bubble(t, func(t *testing.T) {
		handled := make(chan *smpp.Inbound, 100)
		_, p := boundESME(t, smpp.SessionConfig{Handle: func(in *smpp.Inbound) { handled <- in }})
		var stream []byte
		for i := range 30 {
			m := &smpp.Message{Command: smpp.CmdDeliverSM, ShortMessage: []byte(strings.Repeat("x", i))}
			if i == 20 {
				m.TLVs = smpp.TLVs{{Tag: smpp.TagMessagePayload, Value: make([]byte, 60_000)}}
			}
			var err error
			if stream, err = smpp.Append(stream, uint32(i+1), 0, m); err != nil {
				t.Fatal(err)
			}
		}
		for size := 1; len(stream) > 0; size = size*5%977 + 1 {
			n := min(size, len(stream))
			p.write(stream[:n])
			stream = stream[n:]
		}
		for i := range 30 {
			in := <-handled
			if in.Header.Sequence != uint32(i+1) || len(in.PDU.(*smpp.Message).ShortMessage) != i {
				t.Errorf("PDU %d came as %+v", i, in.Header)
			}
		}
	})
}

// Fault row 22.
func TestAnImpossibleLengthIsNackedAndEndsTheSession(t *testing.T) {
	for name, octets := range map[string]string{
		"two gigabytes":      "\x7F\xFF\xFF\xFF\x00\x00\x00\x05",
		"four gigabytes":     "\xFF\xFF\xFF\xFF\x00\x00\x00\x05",
		"less than a header": "\x00\x00\x00\x0F\x00\x00\x00\x05",
		"nothing":            "\x00\x00\x00\x00\x00\x00\x00\x05",
		"64 KiB and one":     "\x00\x01\x00\x01\x00\x00\x00\x05",
		"HTTP":               "HTTP/1.1 400 Bad Request\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s, p := boundESME(t, smpp.SessionConfig{})
				p.write([]byte(octets))
				if h, _ := p.expect(smpp.CmdGenericNack); h.Status != smpp.StatusInvalidCommandLength {
					t.Errorf("answered with %+v", h)
				}
				<-s.Done()
				var bad *smpp.FrameError
				if !errors.As(s.Err(), &bad) {
					t.Errorf("ended with %v", s.Err())
				}
			})
		})
	}
}

func TestAPeerThatDoesNotReadItsAnswersIsDropped(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		go func() {
			frames := smpp.NewFrameReader(theirs, smpp.MaxPDU)
			frame, err := frames.Next()
			if err != nil {
				t.Error(err)
				return
			}
			resp, _ := smpp.Append(nil, smpp.ParseHeader(frame).Sequence, 0, &smpp.BindResp{SystemID: "SMSC"})
			for i := uint32(1); err == nil; i++ { // and from now on it only writes
				_, err = theirs.Write(resp)
				resp, _ = smpp.Append(nil, i, 0, &smpp.Message{Command: smpp.CmdDeliverSM})
			}
		}()
		s, err := smpp.BindOver(t.Context(), ours, smpp.ClientConfig{SystemID: "zvonok", Session: smpp.SessionConfig{
			Handle: func(in *smpp.Inbound) { _ = in.Answer(smpp.StatusOK, "") },
		}})
		if err != nil {
			t.Fatal(err)
		}
		<-s.Done()
		if !errors.Is(s.Err(), smpp.ErrDeaf) {
			t.Errorf("ended with %v", s.Err())
		}
		if n := s.Snapshot(); n.QueuedOut > 256<<10 {
			t.Errorf("%d octets queued", n.QueuedOut)
		}
	})
}

func TestAFloodOfNonsenseEndsTheSession(t *testing.T) {
	for name, c := range map[string]struct {
		pdu smpp.PDU
		n   int
	}{
		"unknown commands": {&smpp.Raw{Command: 0x77}, 150},
		"enquire_link":     {&smpp.Plain{Command: smpp.CmdEnquireLink}, 300},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s, p := boundESME(t, smpp.SessionConfig{})
				frame, err := smpp.Append(nil, 1, 0, c.pdu)
				if err != nil {
					t.Fatal(err)
				}
				for range c.n {
					if _, err := p.conn.Write(frame); err != nil {
						break
					}
				}
				<-s.Done()
				if !errors.Is(s.Err(), smpp.ErrFlood) {
					t.Errorf("ended with %v", s.Err())
				}
			})
		})
	}
}

// The promise of the package: one outcome for every request accepted, whatever
// the peer does.
func TestEveryRequestHasExactlyOneOutcomeUnderEveryOperator(t *testing.T) {
	for _, profile := range smpptest.Profiles() {
		t.Run(profile.Name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				loop := smpptest.NewLoop()
				smsc, err := smpptest.Start(smpptest.Config{
					Listener:       loop,
					OperatorConfig: smpptest.OperatorConfig{Seed: 7, Behaviour: profile.Behaviour},
				})
				if err != nil {
					t.Fatal(err)
				}
				const messages = 3000
				var (
					mu       sync.Mutex
					seen     = make(map[int]int)
					late     int
					accepted []int
				)
				settle := func(o smpp.Outcome) {
					mu.Lock()
					defer mu.Unlock()
					seen[o.Token.(int)]++
				}
				var sessions []*smpp.Session
				for next := 0; next < messages; {
					s, err := smpp.Dial(t.Context(), smpp.ClientConfig{
						Dial: loop.DialContext, SystemID: "zvonok",
						Session: smpp.SessionConfig{
							Window: 100,
							Late:   func(smpp.Outcome) { mu.Lock(); late++; mu.Unlock() },
							Handle: func(in *smpp.Inbound) { _ = in.Answer(smpp.StatusOK, "") },
						},
					})
					if err != nil {
						time.Sleep(time.Second)
						continue
					}
					sessions = append(sessions, s)
					for next < messages {
						to := fmt.Sprintf("7900000%04d", next)
						err := s.Submit(t.Context(), smpp.Request{PDU: text(to), Token: next, Done: settle})
						if err != nil {
							break // the session has ended: bind again
						}
						accepted = append(accepted, next)
						next++
					}
				}
				for _, s := range sessions {
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					_ = s.Close(ctx) // some operators leave answers out
					cancel()
				}
				mu.Lock()
				for _, token := range accepted {
					if seen[token] != 1 {
						t.Fatalf("message %d has %d outcomes", token, seen[token])
					}
				}
				if len(seen) != messages {
					t.Errorf("%d outcomes for %d messages", len(seen), messages)
				}
				mu.Unlock()
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				_ = smsc.Close(ctx)
			})
		})
	}
}

func TestOutcomesComeInTheOrderOfTheAnswers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, p := boundESME(t, smpp.SessionConfig{Window: 50})
		c := make(outcomes, 50)
		var numbers []uint32
		for i := range 50 {
			submit(t, s, i, c)
			h, _ := p.expect(smpp.CmdSubmitSM)
			numbers = append(numbers, h.Sequence)
		}
		slices.Reverse(numbers)
		for _, n := range numbers {
			p.answer(n, "id")
		}
		for i := range 50 {
			if o := <-c; o.Token != 49-i {
				t.Fatalf("outcome %d is of %v", i, o.Token)
			}
		}
	})
}
