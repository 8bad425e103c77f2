package smpp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"

	"zvonok/gateway/smpp"
	"zvonok/gateway/smpp/smpptest"
)

// BenchmarkSubmit sends messages over one TCP connection on loopback to an
// operator in a box in the same process, and waits for the answers.
func BenchmarkSubmit(b *testing.B) {
	for _, window := range []int{1, 10, 100, 1000} {
		b.Run(fmt.Sprintf("window=%d", window), func(b *testing.B) {
			smsc, err := smpptest.Start(smpptest.Config{
				OperatorConfig: smpptest.OperatorConfig{Keep: -1, Session: smpp.SessionConfig{InboundLimit: 2000}},
			})
			if err != nil {
				b.Fatal(err)
			}
			s, err := smpp.Dial(context.Background(), smpp.ClientConfig{
				Address: smsc.Addr(), SystemID: "zvonok", Session: smpp.SessionConfig{Window: window},
			})
			if err != nil {
				b.Fatal(err)
			}
			var wg sync.WaitGroup
			done := func(o smpp.Outcome) {
				if o.Kind != smpp.Answered || o.Status != smpp.StatusOK {
					b.Errorf("outcome %+v", o)
				}
				wg.Done()
			}
			m := typical()
			m.RegisteredDelivery = 0
			b.ReportAllocs()
			for b.Loop() {
				wg.Add(1)
				if err := s.Submit(context.Background(), smpp.Request{PDU: m, Done: done}); err != nil {
					b.Fatal(err)
				}
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "submits/s")
			if err := errors.Join(s.Close(context.Background()), smsc.Close(context.Background())); err != nil {
				b.Error(err)
			}
		})
	}
}

// One bind takes less than 1 MiB at a window of 1000, here with the whole
// window unanswered. It runs alone, because it measures.
func TestABindWithAFullWindowOfAThousandTakesLessThanAMegabyte(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var sinks sync.WaitGroup
	defer sinks.Wait()
	const binds = 10
	sinks.Go(func() {
		for range binds {
			conn, err := l.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			resp, _ := smpp.Append(nil, 1, 0, &smpp.BindResp{SystemID: "sink"})
			if _, err := conn.Write(resp); err != nil {
				t.Error(err)
			}
			sinks.Go(func() { _, _ = io.Copy(io.Discard, conn); conn.Close() })
		}
	})
	before := heap()
	var sessions []*smpp.Session
	for range binds {
		s := mustBind(t, smpp.ClientConfig{
			Address: l.Addr().String(), SystemID: "zvonok", Session: smpp.SessionConfig{Window: 1000},
		})
		for i := range 1000 {
			if err := s.Submit(t.Context(), smpp.Request{PDU: typical(), Token: i}); err != nil {
				t.Fatal(err)
			}
		}
		sessions = append(sessions, s)
	}
	grown := (heap() - before) / binds
	runtime.KeepAlive(sessions)
	t.Logf("%d KiB for a bind with 1000 unanswered requests", grown>>10)
	if grown > 1<<20 {
		t.Errorf("%d octets for a bind", grown)
	}
	for _, s := range sessions {
		s.Kill(errors.New("enough"))
		<-s.Done()
	}
}
