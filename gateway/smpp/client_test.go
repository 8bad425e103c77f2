package smpp_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"zvonok/gateway/smpp"
)

// scripted binds over a pipe whose other end the script plays.
func scripted(t *testing.T, cfg smpp.ClientConfig, script func(p *peer, bind smpp.Header)) (*smpp.Session, error) {
	t.Helper()
	ours, theirs := net.Pipe()
	p := newPeer(t, theirs)
	played := make(chan struct{})
	go func() {
		defer close(played)
		h, _ := p.expect(cfg.Type.Command())
		script(p, h)
	}()
	cfg.Address = "pipe"
	s, err := smpp.BindOver(t.Context(), ours, cfg)
	<-played
	if err == nil {
		t.Cleanup(func() {
			s.Kill(errors.New("end of test"))
			<-s.Done()
		})
	}
	return s, err
}

func TestAnSMSCMayAskAndTalkBeforeItAnswersTheBind(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, err := scripted(t, smpp.ClientConfig{Type: smpp.Receiver}, func(p *peer, bind smpp.Header) {
			p.send(1, 0, &smpp.Plain{Command: smpp.CmdEnquireLink})
			p.expect(smpp.CmdEnquireLinkResp)
			p.send(2, 0, &smpp.Outbind{SystemID: "SMSC"})
			p.send(bind.Sequence, 0, &smpp.BindResp{Type: smpp.Receiver, SystemID: "SMSC"})
		})
		if err != nil || s.Binding().PeerSystemID != "SMSC" || s.Binding().Version != 0 {
			t.Errorf("bound to %+v, %v", s.Binding(), err)
		}
	})
}

// Some SMSCs write the first receipts into the segment of the bind answer.
func TestWhatFollowsTheBindAnswerInTheSameSegmentIsNotLost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		handled := make(chan *smpp.Inbound, 10)
		_, err := scripted(t, smpp.ClientConfig{Session: smpp.SessionConfig{
			Handle: func(in *smpp.Inbound) { handled <- in },
		}}, func(p *peer, bind smpp.Header) {
			segment, err := smpp.Append(nil, bind.Sequence, 0, &smpp.BindResp{SystemID: "SMSC"})
			for i := range uint32(3) {
				if err == nil {
					segment, err = smpp.Append(segment, i+1, 0, &smpp.Message{Command: smpp.CmdDeliverSM})
				}
			}
			if err != nil {
				t.Error(err)
			}
			p.write(segment[:len(segment)-5])
			p.write(segment[len(segment)-5:])
		})
		if err != nil {
			t.Fatal(err)
		}
		for i := range uint32(3) {
			if in := <-handled; in.Header.Sequence != i+1 {
				t.Errorf("%d came, want %d", in.Header.Sequence, i+1)
			}
		}
	})
}

func TestARefusedBindTellsItsStatus(t *testing.T) {
	for name, c := range map[string]struct {
		status smpp.Status
		answer smpp.PDU
	}{
		"without a body":  {smpp.StatusInvalidPassword, &smpp.BindResp{NoBody: true}},
		"with a body":     {smpp.StatusAlreadyBound, &smpp.BindResp{SystemID: "SMSC"}},
		"with a bad body": {smpp.StatusBindFailed, &smpp.Raw{Command: smpp.CmdBindTransceiverResp, Body: []byte("no end")}},
		"by generic_nack": {smpp.StatusInvalidCommandID, &smpp.Plain{Command: smpp.CmdGenericNack}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				_, err := scripted(t, smpp.ClientConfig{}, func(p *peer, bind smpp.Header) {
					p.send(bind.Sequence, c.status, c.answer)
				})
				var refused *smpp.BindError
				if !errors.As(err, &refused) || refused.Status != c.status || refused.Address != "pipe" {
					t.Errorf("error %v", err)
				}
			})
		})
	}
}

func TestABindThatFailsOtherwiseIsNoRefusal(t *testing.T) {
	for name, script := range map[string]func(*peer, smpp.Header){
		"the connection ends": func(p *peer, _ smpp.Header) { p.conn.Close() },
		"the answer is broken": func(p *peer, bind smpp.Header) {
			p.send(bind.Sequence, 0, &smpp.Raw{Command: smpp.CmdBindTransceiverResp, Body: []byte("no end")})
		},
		"the answer is HTTP": func(p *peer, _ smpp.Header) { _, _ = p.conn.Write([]byte("HTTP/1.1 200 OK\r\n")) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				_, err := scripted(t, smpp.ClientConfig{}, script)
				var refused *smpp.BindError
				if err == nil || errors.As(err, &refused) || errors.Is(err, smpp.ErrTimeout) {
					t.Errorf("error %v", err)
				}
			})
		})
	}
}

func TestSubmitWaitsWhileTheSocketTakesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		go func() {
			frames := smpp.NewFrameReader(theirs, smpp.MaxPDU)
			if _, err := frames.Next(); err != nil {
				t.Error(err)
			}
			if err := writeFrame(theirs, 1, &smpp.BindResp{SystemID: "SMSC"}); err != nil {
				t.Error(err)
			}
		}()
		s, err := smpp.BindOver(t.Context(), ours, smpp.ClientConfig{Session: smpp.SessionConfig{Window: 10_000}})
		if err != nil {
			t.Fatal(err)
		}
		c := make(outcomes, 10_000)
		accepted := 0
		for ; ; accepted++ {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			err := s.Submit(ctx, smpp.Request{PDU: typical(), Done: c.done})
			cancel()
			if err != nil {
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("error %v", err)
				}
				break
			}
		}
		if n := s.Snapshot(); n.QueuedOut > 65<<10 || accepted < 300 || n.InWindow != accepted {
			t.Errorf("%d accepted, snapshot %+v", accepted, n)
		}
		start := time.Now()
		<-s.Done() // the write times out
		if took := time.Since(start); took > 30*time.Second {
			t.Errorf("ended after %s", took)
		}
		kinds := make(map[smpp.OutcomeKind]int)
		for range accepted {
			kinds[(<-c).Kind]++
		}
		// Nothing was taken, not an octet.
		if kinds[smpp.NeverWritten] != accepted {
			t.Errorf("outcomes %v of %d", kinds, accepted)
		}
	})
}

func writeFrame(conn net.Conn, sequence uint32, pdu smpp.PDU) error {
	frame, err := smpp.Append(nil, sequence, 0, pdu)
	if err == nil {
		_, err = conn.Write(frame)
	}
	return err
}

func TestDoWaitsForTheOutcomeOrItsContext(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, p := boundESME(t, smpp.SessionConfig{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		c := make(outcomes, 1)
		o, err := s.Do(ctx, smpp.Request{PDU: &smpp.Query{MessageID: "A1"}, Token: "q", Done: c.done})
		if err != nil || o.Kind != smpp.Unknown || o.Token != "q" || !errors.Is(o.Err, context.DeadlineExceeded) {
			t.Errorf("outcome %+v, %v", o, err)
		}
		h, pdu := p.expect(smpp.CmdQuerySM)
		if pdu.(*smpp.Query).MessageID != "A1" {
			t.Errorf("asked for %+v", pdu)
		}
		p.send(h.Sequence, 0, &smpp.QueryResp{MessageID: "A1", State: smpp.StateDelivered})
		if o := <-c; o.Kind != smpp.Answered || o.Answer.(*smpp.QueryResp).State != smpp.StateDelivered {
			t.Errorf("outcome %+v", o)
		}
	})
}

func TestTwoCallersMayCloseASession(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, p := boundESME(t, smpp.SessionConfig{})
		closed := make(chan error, 2)
		for range 2 {
			go func() { closed <- s.Close(t.Context()) }()
		}
		h, _ := p.expect(smpp.CmdUnbind)
		synctest.Wait()
		p.send(h.Sequence, 0, &smpp.Plain{Command: smpp.CmdUnbindResp})
		for range 2 {
			if err := <-closed; err != nil {
				t.Error(err)
			}
		}
		p.expectEnd() // and one unbind was all
	})
}

func TestEveryErrorAndKindSpeaks(t *testing.T) {
	t.Parallel()
	for got, want := range map[string]string{
		(&smpp.BindError{Address: "smsc:2775", Status: smpp.StatusInvalidPassword}).Error(): "bind to smsc:2775 refused: ESME_RINVPASWD",
		(&smpp.FrameError{Length: 7, Max: smpp.MaxUnboundPDU}).Error():                      "command_length 7 is not within 16 and 1024",
		(&smpp.ClosedError{Cause: smpp.ErrDead}).Error():                                    "session is closed: peer is silent",
		smpp.Answered.String():     "answered",
		smpp.NeverWritten.String(): "never written",
		smpp.Unknown.String():      "unknown",
		smpp.Transceiver.String():  "transceiver",
		smpp.Transmitter.String():  "transmitter",
		smpp.Receiver.String():     "receiver",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
