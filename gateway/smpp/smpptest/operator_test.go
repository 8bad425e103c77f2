package smpptest_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"zvonok/gateway/smpp"
	"zvonok/gateway/smpp/smpptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// esme is the other side of an operator: it collects what comes.
type esme struct {
	*smpp.Session
	in     chan *smpp.Inbound
	late   chan smpp.Outcome
	status smpp.Status // of its answers
}

// inBubble runs a test in virtual time against an operator over a loop.
func inBubble(t *testing.T, cfg smpptest.OperatorConfig,
	test func(t *testing.T, smsc *smpptest.SMSC, bind func(smpp.BindType) *esme),
) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		loop := smpptest.NewLoop()
		smsc, err := smpptest.Start(smpptest.Config{OperatorConfig: cfg, Listener: loop})
		if err != nil {
			t.Fatal(err)
		}
		var all []*esme
		defer func() {
			for _, e := range all {
				e.Kill(errors.New("end of test"))
				<-e.Done()
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_ = smsc.Close(ctx)
		}()
		test(t, smsc, func(kind smpp.BindType) *esme {
			e, err := dialESME(t, smpp.ClientConfig{Dial: loop.DialContext, Type: kind})
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, e)
			return e
		})
	})
}

func dialESME(t *testing.T, cfg smpp.ClientConfig) (*esme, error) {
	e := &esme{in: make(chan *smpp.Inbound, 10_000), late: make(chan smpp.Outcome, 100)}
	cfg.SystemID = "zvonok"
	cfg.Session.Window = 100
	cfg.Session.Late = func(o smpp.Outcome) { e.late <- o }
	cfg.Session.Handle = func(in *smpp.Inbound) {
		_ = in.Answer(e.status, "")
		e.in <- in
	}
	s, err := smpp.Dial(t.Context(), cfg)
	e.Session = s
	return e, err
}

func sms(to, text string) *smpp.Message {
	return &smpp.Message{
		Command:            smpp.CmdSubmitSM,
		Source:             smpp.Address{TON: 5, Addr: "Zvonok"},
		Destination:        smpp.Address{TON: 1, NPI: 1, Addr: to},
		RegisteredDelivery: 1,
		ShortMessage:       []byte(text),
	}
}

func (e *esme) send(t *testing.T, m smpp.PDU) smpp.Outcome {
	t.Helper()
	o, err := e.Do(t.Context(), smpp.Request{PDU: m})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func (e *esme) receipt(t *testing.T) *smpp.Message {
	t.Helper()
	m := (<-e.in).PDU.(*smpp.Message)
	if !m.IsReceipt() {
		t.Fatalf("%+v is no receipt", m)
	}
	return m
}

func TestAnHonestOperatorShowsTheTextAndSendsTheReceipt(t *testing.T) {
	shown := make(chan smpptest.SMS, 10)
	inBubble(t, smpptest.OperatorConfig{
		Behaviour: smpptest.Behaviour{ReceiptDelay: time.Second},
		OnSMS:     func(m smpptest.SMS) { shown <- m },
	}, func(t *testing.T, smsc *smpptest.SMSC, bind func(smpp.BindType) *esme) {
		e := bind(smpp.Transceiver)
		start := time.Now()
		o := e.send(t, sms("79000000001", "\x1b\x65 5"))
		if o.MessageID() != "2700000001" {
			t.Errorf("id %q", o.MessageID())
		}
		m := <-shown
		if m.Text != "€ 5" || m.To != "79000000001" || m.From != "Zvonok" || m.SystemID != "zvonok" || m.Parts != 1 ||
			!reflect.DeepEqual(m.IDs, []string{o.MessageID()}) {
			t.Errorf("shown %+v", m)
		}
		if all := smsc.MessagesTo("79000000001"); len(all) != 1 || len(smsc.MessagesTo("79000000002")) != 0 {
			t.Errorf("remembered %+v", all)
		}
		r := e.receipt(t)
		if took := time.Since(start); took != time.Second {
			t.Errorf("the receipt came after %s", took)
		}
		want := "id:2700000001 sub:001 dlvrd:001 submit date:0001010000 done date:0001010000 stat:DELIVRD err:000 Text:"
		if got := string(r.ShortMessage); got != want || r.Source.Addr != "79000000001" || r.Destination.Addr != "Zvonok" {
			t.Errorf("receipt %q from %s to %s", got, r.Source.Addr, r.Destination.Addr)
		}
		synctest.Wait()
		if n := smsc.Stats(); n.Messages != 1 || n.Accepted != 1 || n.SMS != 1 || n.Receipts != 1 || n.Waiting != 0 {
			t.Errorf("stats %+v", n)
		}
	})
}

func TestPartsAreJoinedByEveryMethod(t *testing.T) {
	part := func(esmClass uint8, tlvs smpp.TLVs, text string) *smpp.Message {
		m := sms("79000000001", text)
		m.ESMClass, m.TLVs = esmClass, tlvs
		return m
	}
	sar := func(number uint8) smpp.TLVs {
		return smpp.TLVs{
			smpp.Uint16(smpp.TagSARMsgRefNum, 9), smpp.Uint8(smpp.TagSARTotalSegments, 2),
			smpp.Uint8(smpp.TagSARSegmentSeqnum, number),
		}
	}
	payload := sms("79000000001", "")
	payload.TLVs = smpp.TLVs{{Tag: smpp.TagMessagePayload, Value: []byte("one two")}}
	for name, parts := range map[string][]*smpp.Message{
		"udh8":           {part(0x40, nil, "\x05\x00\x03\x07\x02\x01one "), part(0x40, nil, "\x05\x00\x03\x07\x02\x02two")},
		"udh8 backwards": {part(0x40, nil, "\x05\x00\x03\x07\x02\x02two"), part(0x40, nil, "\x05\x00\x03\x07\x02\x01one ")},
		"udh16": {
			part(0x40, nil, "\x06\x08\x04\x01\x07\x02\x01one "), part(0x40, nil, "\x06\x08\x04\x01\x07\x02\x02two"),
		},
		"udh with a language before it": {
			part(0x40, nil, "\x08\x24\x01\x03\x00\x03\x07\x02\x01one "),
			part(0x40, nil, "\x08\x24\x01\x03\x00\x03\x07\x02\x02two"),
		},
		"sar":     {part(0, sar(1), "one "), part(0, sar(2), "two")},
		"payload": {payload},
		"twice": {
			part(0x40, nil, "\x05\x00\x03\x07\x02\x01one "), part(0x40, nil, "\x05\x00\x03\x07\x02\x01one "),
			part(0x40, nil, "\x05\x00\x03\x07\x02\x02two"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, smpptest.OperatorConfig{}, func(t *testing.T, smsc *smpptest.SMSC, bind func(smpp.BindType) *esme) {
				e := bind(smpp.Transceiver)
				for _, m := range parts {
					e.send(t, m)
				}
				all := smsc.Messages()
				if len(all) != 1 || all[0].Text != "one two" || len(all[0].IDs) != all[0].Parts {
					t.Errorf("shown %+v", all)
				}
			})
		})
	}
}

func TestTextsAreDecodedAsAPhoneWould(t *testing.T) {
	for name, c := range map[string]struct {
		coding uint8
		octets string
		want   string
	}{
		"GSM":                  {0, "\x00\x02\x11\x1b\x3c\x1b\x3eA", "@$_[]A"},
		"GSM, unknown escape":  {0, "\x1bA", "A"},
		"GSM, escape at end":   {0, "A\x1b", "A "},
		"GSM, above seven bit": {0, "A\x80", "A\uFFFD"},
		"UCS-2":                {8, "\x04\x11\x04\x30", "Ба"},
		"UCS-2 by its DCS":     {0x48, "\x04\x11", "Б"},
		"UCS-2 surrogates":     {8, "\xd8\x3d\xdc\x4d", "👍"},
		"UCS-2, odd":           {8, "\x04\x11\x04", "Б\uFFFD"},
		"Latin 1":              {3, "caf\xe9", "café"},
		"binary":               {4, "\x01\xff", "01ff"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, smpptest.OperatorConfig{}, func(t *testing.T, smsc *smpptest.SMSC, bind func(smpp.BindType) *esme) {
				m := sms("79000000001", c.octets)
				m.DataCoding = c.coding
				bind(smpp.Transceiver).send(t, m)
				if got := smsc.Messages()[0].Text; got != c.want {
					t.Errorf("shown %q, want %q", got, c.want)
				}
			})
		})
	}
}

func TestIDsHaveEveryForm(t *testing.T) {
	for _, c := range []struct {
		name            string
		behaviour       smpptest.Behaviour
		answer, receipt string
	}{
		{"decimal", smpptest.Behaviour{}, "2700000001", "id:2700000001 "},
		{"hex and decimal", smpptest.Behaviour{ID: smpptest.Hex, ReceiptID: smpptest.Decimal}, "a0eebb01", "id:2700000001 "},
		{"decimal and hex", smpptest.Behaviour{ReceiptID: smpptest.HexUpper}, "2700000001", "id:A0EEBB01 "},
		{"padded", smpptest.Behaviour{ID: smpptest.ZeroPadded}, "00000000002700000001", "id:00000000002700000001 "},
		{"hex padded", smpptest.Behaviour{ID: smpptest.HexPadded}, "00000000A0EEBB01", "id:00000000A0EEBB01 "},
		{
			"71 bits",
			smpptest.Behaviour{BigIDs: true, ReceiptID: smpptest.ZeroPadded},
			"1180591620720111303425", "id:001180591620720111303425 ",
		},
		{
			"71 bits in hex",
			smpptest.Behaviour{BigIDs: true, ID: smpptest.Hex, ReceiptID: smpptest.Decimal},
			"4000000000a0eebb01", "id:1180591620720111303425 ",
		},
		{"UUID", smpptest.Behaviour{ID: smpptest.UUID}, "", "id:"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, smpptest.OperatorConfig{Seed: 1, Behaviour: c.behaviour},
				func(t *testing.T, _ *smpptest.SMSC, bind func(smpp.BindType) *esme) {
					e := bind(smpp.Transceiver)
					id := e.send(t, sms("79000000001", "x")).MessageID()
					if c.name == "UUID" {
						c.answer, c.receipt = id, "id:"+id+" "
						if len(id) != 36 || strings.Count(id, "-") != 4 || id[14] != '4' {
							t.Errorf("id %q is no UUID", id)
						}
					}
					if text := string(e.receipt(t).ShortMessage); id != c.answer || !strings.HasPrefix(text, c.receipt) {
						t.Errorf("answer %q, receipt %q", id, text)
					}
				})
		})
	}
}

func TestReceiptsHaveEveryShape(t *testing.T) {
	const short = "submit date:0001010300 done date:0001010300 "
	want := map[smpptest.ReceiptForm]string{
		smpptest.ReceiptStandard: "id:2700000001 sub:001 dlvrd:000 " + short + "stat:UNDELIV err:011 Text:",
		smpptest.ReceiptSeconds: "id:2700000001 sub:001 dlvrd:000 " +
			"submit date:000101030000 done date:000101030000 stat:UNDELIV err:011 Text:",
		smpptest.ReceiptLongYear: "id:2700000001 sub:001 dlvrd:000 " +
			"submit date:20000101030000 done date:20000101030000 stat:UNDELIV err:011 Text:",
		smpptest.ReceiptBoth:    "id:2700000001 sub:001 dlvrd:000 " + short + "stat:UNDELIV err:011 Text:",
		smpptest.ReceiptTLVOnly: "",
		smpptest.ReceiptNoID:    "sub:001 dlvrd:000 " + short + "stat:UNDELIV err:011",
		smpptest.ReceiptSpelled: "id:2700000001 sub:1 dlvrd:0 " + short + "stat:UNDELIVERABLE err:11 text:",
		smpptest.ReceiptLower:   "id:2700000001 sub:001 dlvrd:000 " + short + "stat:undeliv",
		smpptest.ReceiptJoined: "Id:2700000001 Sub:001 Dlvrd:000 " +
			"SubmitDate:0001010300 DoneDate:0001010300 Stat:UNDELIV Err:011 Text:",
		smpptest.ReceiptHexError: "id:2700000001 sub:001 dlvrd:000 " + short + "stat:UNDELIV err:0x000B Text:",
	}
	for _, form := range smpptest.ReceiptForms() {
		t.Run(form.String(), func(t *testing.T) {
			inBubble(t, smpptest.OperatorConfig{
				Zone:      time.FixedZone("", 3*3600),
				Behaviour: smpptest.Behaviour{Receipt: form, Undelivered: 1, ReceiptError: 11},
			}, func(t *testing.T, _ *smpptest.SMSC, bind func(smpp.BindType) *esme) {
				e := bind(smpp.Transceiver)
				e.send(t, sms("79000000001", "x"))
				r := e.receipt(t)
				text, ok := want[form]
				if !ok || string(r.ShortMessage) != text {
					t.Errorf("text %q", r.ShortMessage)
				}
				id, hasID := r.TLVs.Text(smpp.TagReceiptedMessageID)
				state, _ := r.TLVs.Uint(smpp.TagMessageState)
				network, _ := r.TLVs.Get(smpp.TagNetworkErrorCode)
				switch form {
				case smpptest.ReceiptBoth, smpptest.ReceiptTLVOnly, smpptest.ReceiptNoID:
					if id != "2700000001" || state != uint32(smpp.StateUndeliverable) || !bytes.Equal(network, []byte{3, 0, 11}) {
						t.Errorf("TLVs %v", r.TLVs)
					}
				default:
					if hasID || len(r.TLVs) != 0 {
						t.Errorf("TLVs %v", r.TLVs)
					}
				}
			})
		})
	}
}

// Pain 1: a receipt overtakes the answer to its message.
func TestAnEarlyReceiptIsOnTheWireBeforeTheAnswer(t *testing.T) {
	inBubble(t, smpptest.OperatorConfig{Behaviour: smpptest.Behaviour{EarlyReceipts: 1}},
		func(t *testing.T, _ *smpptest.SMSC, bind func(smpp.BindType) *esme) {
			e := bind(smpp.Transceiver)
			for range 100 {
				o := e.send(t, sms("79000000001", "x"))
				in := <-e.in
				if in.ReceivedAt.After(o.SentAt.Add(o.RTT)) {
					t.Fatal("the receipt came after the answer")
				}
				if text := string(in.PDU.(*smpp.Message).ShortMessage); !strings.Contains(text, o.MessageID()) {
					t.Errorf("answer %s, receipt %q", o.MessageID(), text)
				}
			}
		})
}

// Fault row 19: receipts twice, out of order, with interim ones after the final
// one, some never.
func TestReceiptsMultiplyShuffleAndGetLost(t *testing.T) {
	inBubble(t, smpptest.OperatorConfig{Seed: 3, Behaviour: smpptest.Behaviour{
		ReceiptJitter: time.Minute, DoubleReceipts: 0.2, LostReceipts: 0.1, Intermediate: 0.3,
	}}, func(t *testing.T, _ *smpptest.SMSC, bind func(smpp.BindType) *esme) {
		e := bind(smpp.Transceiver)
		for range 1000 {
			e.send(t, sms("79000000001", "x"))
		}
		time.Sleep(2 * time.Minute)
		final, interim, shuffled, last := make(map[string]int), 0, 0, ""
		for len(e.in) > 0 {
			text := string(e.receipt(t).ShortMessage)
			id, _, _ := strings.Cut(strings.TrimPrefix(text, "id:"), " ")
			if strings.Contains(text, "stat:ENROUTE") {
				interim++
				continue
			}
			final[id]++
			if id < last {
				shuffled++
			}
			last = id
		}
		double := 0
		for _, n := range final {
			double += n - 1
		}
		near := func(what string, got, want int) {
			if got < want*7/10 || got > want*13/10 {
				t.Errorf("%s: %d, want about %d", what, got, want)
			}
		}
		near("final", len(final), 900)
		near("double", double, 180)
		near("interim", interim, 270)
		near("out of order", shuffled, 500)
	})
}

func TestAReceiptIsSentAgainUntilItIsTaken(t *testing.T) {
	inBubble(t, smpptest.OperatorConfig{}, func(t *testing.T, smsc *smpptest.SMSC, bind func(smpp.BindType) *esme) {
		e := bind(smpp.Transceiver)
		e.status = smpp.StatusReceiverTemporary // pain 19: the database is away
		e.send(t, sms("79000000001", "x"))
		for range 3 {
			e.receipt(t)
		}
		// The receipt waits while nobody is bound, and comes over the next bind.
		e.Kill(errors.New("cut"))
		<-e.Done()
		e.status = smpp.StatusOK
		time.Sleep(10 * time.Second)
		next := bind(smpp.Receiver)
		next.receipt(t)
		time.Sleep(10 * time.Second)
		if n := smsc.Stats(); n.Receipts != 1 || n.Waiting != 0 || len(next.in) != 0 || n.Retried < 3 {
			t.Errorf("stats %+v", n)
		}
	})
}

// Pain 3: the receipt arrives on a sibling bind.
func TestReceiptsMayComeOverAnotherBind(t *testing.T) {
	inBubble(t, smpptest.OperatorConfig{Behaviour: smpptest.Behaviour{ReceiptElsewhere: true}},
		func(t *testing.T, _ *smpptest.SMSC, bind func(smpp.BindType) *esme) {
			sender, other := bind(smpp.Transceiver), bind(smpp.Transceiver)
			sender.send(t, sms("79000000001", "x"))
			other.receipt(t)
			transmitter := bind(smpp.Transmitter)
			transmitter.send(t, sms("79000000001", "x"))
			sender.receipt(t)
			if len(transmitter.in)+len(other.in) != 0 {
				t.Error("a receipt came twice or over a transmitter")
			}
		})
}

func TestRefusalsThrottlingAndErrors(t *testing.T) {
	inBubble(t, smpptest.OperatorConfig{}, func(t *testing.T, smsc *smpptest.SMSC, bind func(smpp.BindType) *esme) {
		e := bind(smpp.Transceiver)
		send := func(to string, n int) map[smpp.Status]int {
			got := make(map[smpp.Status]int)
			for range n {
				got[e.send(t, sms(to, "x")).Status]++
			}
			return got
		}
		same := func(what string, got, want map[smpp.Status]int) {
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %v, want %v", what, got, want)
			}
		}
		smsc.SetBehaviour(smpptest.Behaviour{Refuse: map[string]smpp.Status{
			"7900": smpp.StatusInvalidDestinationAddress, "79000": smpp.StatusQueueFull,
		}})
		same("the longest prefix counts", send("79000000001", 2), map[smpp.Status]int{smpp.StatusQueueFull: 2})
		same("a shorter one", send("79001000001", 2), map[smpp.Status]int{smpp.StatusInvalidDestinationAddress: 2})
		same("none", send("79110000001", 2), map[smpp.Status]int{0: 2})

		smsc.SetBehaviour(smpptest.Behaviour{Rate: 10})
		same("above the rate", send("79000000001", 25), map[smpp.Status]int{0: 10, smpp.StatusThrottled: 15})
		time.Sleep(time.Second)
		same("a second later", send("79000000001", 25), map[smpp.Status]int{0: 10, smpp.StatusThrottled: 15})

		smsc.SetBehaviour(smpptest.Behaviour{Errors: 1, ErrorStatus: 0x412})
		same("errors", send("79000000001", 3), map[smpp.Status]int{0x412: 3})

		smsc.SetBehaviour(smpptest.Behaviour{StormEvery: 25, StormFor: time.Minute, ThrottleStatus: smpp.StatusQueueFull})
		first := send("79000000001", 20)
		if first[smpp.StatusQueueFull] == 0 || first[0] == 0 {
			t.Errorf("no storm: %v", first)
		}
		time.Sleep(time.Minute)
		same("after the storm", send("79000000001", 1), map[smpp.Status]int{0: 1})

		n := smsc.Stats()
		if n.Refused[smpp.StatusThrottled] != 30 || n.Refused[0x412] != 3 || n.Messages != 6+50+3+21 {
			t.Errorf("stats %+v", n)
		}
		if smsc.Behaviour().StormEvery != 25 {
			t.Error("the behaviour is not the one set last")
		}
	})
}

func TestSilenceLateAnswersAndSwallowedMessages(t *testing.T) {
	inBubble(t, smpptest.OperatorConfig{Seed: 5, Behaviour: smpptest.Behaviour{
		Silence: 0.1, Swallow: 0.1, Late: 0.1, LateDelay: 40 * time.Second,
		AnswerDelay: time.Second, AnswerJitter: time.Second,
	}}, func(t *testing.T, smsc *smpptest.SMSC, bind func(smpp.BindType) *esme) {
		e := bind(smpp.Transceiver)
		var mu sync.Mutex
		kinds := make(map[smpp.OutcomeKind]int)
		var slowest time.Duration
		for range 500 {
			err := e.Submit(t.Context(), smpp.Request{PDU: sms("79000000001", "x"), Done: func(o smpp.Outcome) {
				mu.Lock()
				defer mu.Unlock()
				kinds[o.Kind]++
				slowest = max(slowest, o.RTT)
			}})
			if err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Minute)
		mu.Lock()
		defer mu.Unlock()
		n := smsc.Stats()
		late := len(e.late)
		if kinds[smpp.Answered]+kinds[smpp.Unknown] != 500 || kinds[smpp.Unknown] != int(n.Silent)+late ||
			late < 10 || n.Silent < 60 || n.Silent > 140 || slowest < time.Second {
			t.Errorf("outcomes %v, %d late, slowest %s, stats %+v", kinds, late, slowest, n)
		}
		// A message that was swallowed is not shown, one met by silence is.
		if n.SMS != n.Accepted || n.Accepted < 420 || n.Accepted > 480 {
			t.Errorf("stats %+v", n)
		}
	})
}

// The same seed and the same traffic meet the same accidents.
func TestAnOperatorIsDeterministic(t *testing.T) {
	run := func(t *testing.T, seed uint64) (log string) {
		synctest.Test(t, func(t *testing.T) {
			hostile, err := smpptest.ProfileNamed("messy-receipts")
			if err != nil {
				t.Fatal(err)
			}
			b := hostile.Behaviour
			b.Errors, b.Silence, b.AnswerJitter, b.Garbage, b.DoubleAnswers = 0.1, 0.05, time.Second, 0.05, 0.05
			loop := smpptest.NewLoop()
			var recording bytes.Buffer
			recorder := smpptest.NewRecorder(&recording)
			smsc, err := smpptest.Start(smpptest.Config{Listener: loop, OperatorConfig: smpptest.OperatorConfig{
				Seed: seed, Behaviour: b, Record: recorder,
			}})
			if err != nil {
				t.Fatal(err)
			}
			e, err := dialESME(t, smpp.ClientConfig{Dial: loop.DialContext})
			if err != nil {
				t.Fatal(err)
			}
			for i := range 200 {
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				if _, err := e.Do(ctx, smpp.Request{PDU: sms(fmt.Sprintf("7900000%04d", i), "x")}); err != nil {
					t.Fatal(err)
				}
				cancel()
			}
			time.Sleep(time.Minute)
			e.Kill(errors.New("enough"))
			<-e.Done()
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_ = smsc.Close(ctx)
			if err := recorder.Close(); err != nil {
				t.Error(err)
			}
			log = recording.String()
		})
		return log
	}
	t.Run("bubbles", func(t *testing.T) {
		// What happens at the same instant may be recorded in any order.
		first, again, other := sorted(run(t, 1)), sorted(run(t, 1)), sorted(run(t, 2))
		if first != again {
			t.Error("two runs with one seed differ")
		}
		if first == other {
			t.Error("two runs with different seeds are the same")
		}
		if strings.Count(first, "\n") < 600 {
			t.Errorf("only %d PDUs are recorded", strings.Count(first, "\n"))
		}
	})
}

func sorted(lines string) string {
	all := strings.Split(lines, "\n")
	slices.Sort(all)
	return strings.Join(all, "\n")
}

func TestRefusedBindsAndCutLines(t *testing.T) {
	t.Parallel()
	smsc, err := smpptest.Start(smpptest.Config{
		SystemID: "zvonok", Password: "secret",
		OperatorConfig: smpptest.OperatorConfig{Behaviour: smpptest.Behaviour{RefuseBinds: 2}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer smsc.Close(t.Context())
	for i, want := range []smpp.Status{smpp.StatusAlreadyBound, smpp.StatusAlreadyBound, smpp.StatusInvalidPassword} {
		_, err := dialESME(t, smpp.ClientConfig{Address: smsc.Addr(), Password: "wrong"})
		var refused *smpp.BindError
		if !errors.As(err, &refused) || refused.Status != want {
			t.Errorf("bind %d: %v", i, err)
		}
	}
	e, err := dialESME(t, smpp.ClientConfig{Address: smsc.Addr(), Password: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	if smsc.Binds() != 4 {
		t.Errorf("%d binds were tried", smsc.Binds())
	}
	smsc.Cut()
	<-e.Done()
	if !errors.Is(e.Err(), io.EOF) && !strings.Contains(e.Err().Error(), "reset") {
		t.Errorf("ended with %v", e.Err())
	}
	if e, err = dialESME(t, smpp.ClientConfig{Address: smsc.Addr(), Password: "secret"}); err != nil {
		t.Fatal(err)
	}
	if err := smsc.Unbind(t.Context()); err != nil {
		t.Error(err)
	}
	<-e.Done()
	if !errors.Is(e.Err(), smpp.ErrUnbound) {
		t.Errorf("ended with %v", e.Err())
	}
}

func TestTheLineDropsUnbindsOrGoesHalfOpen(t *testing.T) {
	for name, c := range map[string]struct {
		behaviour smpptest.Behaviour
		want      error
		after     time.Duration
	}{
		"drop":       {smpptest.Behaviour{DropEvery: 5}, io.EOF, 0},
		"unbind":     {smpptest.Behaviour{UnbindEvery: 5}, smpp.ErrUnbound, 0},
		"half open":  {smpptest.Behaviour{HalfOpenEvery: 5}, smpp.ErrDead, 45 * time.Second},
		"bad length": {smpptest.Behaviour{BadLengthEvery: 4}, new(smpp.FrameError), 0},
		"no answer to enquire_link": {
			smpptest.Behaviour{IgnoreEnquire: true, Silence: 1, AnswerDelay: time.Hour}, smpp.ErrDead, 45 * time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, smpptest.OperatorConfig{Behaviour: c.behaviour},
				func(t *testing.T, _ *smpptest.SMSC, bind func(smpp.BindType) *esme) {
					e := bind(smpp.Transceiver)
					start := time.Now()
					m := sms("79000000001", "x")
					m.RegisteredDelivery = 0 // a receipt would be a sign of life
					for {
						if err := e.Submit(t.Context(), smpp.Request{PDU: m}); err != nil {
							break
						}
						synctest.Wait()
					}
					<-e.Done()
					took := time.Since(start)
					var frame *smpp.FrameError
					if ok := errors.Is(e.Err(), c.want) || name == "bad length" && errors.As(e.Err(), &frame); !ok {
						t.Errorf("ended with %v", e.Err())
					}
					if took < c.after || took > c.after+3*time.Second {
						t.Errorf("ended after %s, want %s", took, c.after)
					}
				})
		})
	}
}

// Fault row 18.
func TestWrongNumbersAndNacksOfAnOperator(t *testing.T) {
	inBubble(t, smpptest.OperatorConfig{Seed: 1, Behaviour: smpptest.Behaviour{
		WrongSequence: 0.1, DoubleAnswers: 0.1, Nacks: 0.1, NackStatus: smpp.StatusThrottled,
		SplitFrames: true, Garbage: 0.05,
	}}, func(t *testing.T, _ *smpptest.SMSC, bind func(smpp.BindType) *esme) {
		e := bind(smpp.Transceiver)
		var mu sync.Mutex
		kinds, nacked := make(map[smpp.OutcomeKind]int), 0
		for range 500 {
			m := sms("79000000001", "x")
			m.RegisteredDelivery = 0
			err := e.Submit(t.Context(), smpp.Request{PDU: m, Done: func(o smpp.Outcome) {
				mu.Lock()
				defer mu.Unlock()
				kinds[o.Kind]++
				if o.Nacked && o.Status == smpp.StatusThrottled {
					nacked++
				}
			}})
			if err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(40 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		n := e.Snapshot()
		if kinds[smpp.Answered]+kinds[smpp.Unknown] != 500 || kinds[smpp.Unknown] < 25 || nacked < 25 ||
			n.Stray < 50 || n.Strange == 0 || e.Err() != nil {
			t.Errorf("outcomes %v, %d nacked, snapshot %+v, %v", kinds, nacked, n, e.Err())
		}
	})
}

func TestMessagesCanBeQueriedAndCancelled(t *testing.T) {
	inBubble(t, smpptest.OperatorConfig{Keep: 2, Behaviour: smpptest.Behaviour{ReceiptDelay: time.Minute}},
		func(t *testing.T, smsc *smpptest.SMSC, bind func(smpp.BindType) *esme) {
			e := bind(smpp.Transceiver)
			id := e.send(t, sms("79000000001", "one")).MessageID()
			query := func() smpp.MessageState {
				o := e.send(t, &smpp.Query{MessageID: id})
				if o.Status != smpp.StatusOK {
					t.Fatalf("query_sm: %s", o.Status)
				}
				return o.Answer.(*smpp.QueryResp).State
			}
			if state := query(); state != smpp.StateEnroute {
				t.Errorf("state %d at first", state)
			}
			if o := e.send(t, &smpp.Cancel{MessageID: id}); o.Status != smpp.StatusOK || query() != smpp.StateDeleted {
				t.Errorf("cancel_sm: %s", o.Status)
			}
			id = e.send(t, sms("79000000001", "two")).MessageID()
			time.Sleep(2 * time.Minute)
			if state := query(); state != smpp.StateDelivered {
				t.Errorf("state %d at last", state)
			}
			if o := e.send(t, &smpp.Cancel{MessageID: id}); o.Status != smpp.StatusCancelFailed {
				t.Errorf("cancel_sm after delivery: %s", o.Status)
			}
			first := id
			e.send(t, sms("79000000001", "three"))
			e.send(t, sms("79000000001", "four"))
			if o := e.send(t, &smpp.Query{MessageID: first}); o.Status != smpp.StatusInvalidMessageID {
				t.Errorf("query_sm of what is forgotten: %s", o.Status)
			}
			if o := e.send(t, &smpp.Cancel{MessageID: first}); o.Status != smpp.StatusInvalidMessageID {
				t.Errorf("cancel_sm of what is forgotten: %s", o.Status)
			}
			if all := smsc.Messages(); len(all) != 2 || all[0].Text != "three" || all[1].Text != "four" {
				t.Errorf("remembered %+v", all)
			}
		})
}

func TestPhonesWriteBack(t *testing.T) {
	inBubble(t, smpptest.OperatorConfig{}, func(t *testing.T, smsc *smpptest.SMSC, bind func(smpp.BindType) *esme) {
		if _, err := smsc.SendText(t.Context(), "79000000001", "377", "STOP"); !errors.Is(err, smpptest.ErrNoBind) {
			t.Errorf("error %v although nobody is bound", err)
		}
		e := bind(smpp.Transceiver)
		long := strings.Repeat("СТОП ", 60)
		for text, coding := range map[string]uint8{"STOP [1]": 0, "СТОП": 8, long: 8} {
			status, err := smsc.SendText(t.Context(), "79000000001", "377", text)
			if err != nil || status != smpp.StatusOK {
				t.Fatal(status, err)
			}
			m := (<-e.in).PDU.(*smpp.Message)
			if m.DataCoding != coding || m.Source.Addr != "79000000001" || m.Destination.Addr != "377" || m.IsReceipt() {
				t.Errorf("%q came as %+v", text, m)
			}
			if len(text) > 254 && len(m.ShortMessage) > 0 || len(m.Octets()) == 0 {
				t.Errorf("%q came as %+v", text, m)
			}
		}
	})
}

func TestARecordingReplaysAgainstBothSides(t *testing.T) {
	t.Parallel()
	var written bytes.Buffer
	recorder := smpptest.NewRecorder(&written)
	smsc, err := smpptest.Start(smpptest.Config{OperatorConfig: smpptest.OperatorConfig{
		Behaviour: smpptest.Behaviour{ID: smpptest.Hex}, Record: recorder,
	}})
	if err != nil {
		t.Fatal(err)
	}
	talk := func(e *esme, texts ...string) {
		for _, text := range texts {
			o := e.send(t, sms("79000000001", text))
			if !strings.HasPrefix(o.MessageID(), "a0eebb0") {
				t.Errorf("id %q", o.MessageID())
			}
			e.receipt(t)
		}
		if err := e.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	e, err := dialESME(t, smpp.ClientConfig{Address: smsc.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	talk(e, "one", "two")
	if err := errors.Join(smsc.Close(t.Context()), recorder.Close()); err != nil {
		t.Fatal(err)
	}
	recording, err := smpptest.ReadRecording(strings.NewReader("# by hand\n\n" + written.String()))
	if err != nil {
		t.Fatal(err)
	}
	recording = smpptest.OneLine(recording, 1)
	if len(recording) != 12 {
		t.Fatalf("%d PDUs are recorded:\n%s", len(recording), written.String())
	}

	// As the operator, against our session.
	replay := func(texts ...string) error {
		near, far := net.Pipe()
		defer far.Close()
		played := make(chan error, 1)
		go func() {
			played <- smpptest.Replay(t.Context(), far, recording, smpptest.Outward, false)
			far.Close()
		}()
		e := &esme{in: make(chan *smpp.Inbound, 100)}
		e.Session, err = smpp.BindOver(t.Context(), near, smpp.ClientConfig{
			SystemID: "zvonok", Session: smpp.SessionConfig{Handle: func(in *smpp.Inbound) {
				_ = in.Answer(smpp.StatusOK, "")
				e.in <- in
			}},
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range texts {
			if _, err := e.Do(t.Context(), smpp.Request{PDU: sms("79000000001", text)}); err != nil {
				break
			}
			select {
			case <-e.in: // the receipt
			case <-e.Done():
			}
		}
		_ = e.Close(t.Context()) // the player is gone if something differed
		return <-played
	}
	if err := replay("one", "two"); err != nil {
		t.Errorf("as the operator: %v", err)
	}
	if err := replay("one", "other"); err == nil || !strings.Contains(err.Error(), "submit_sm has the body") {
		t.Errorf("another text: %v", err)
	}

	// As the ESME, against an operator of the same seed.
	again, err := smpptest.Start(smpptest.Config{OperatorConfig: smpptest.OperatorConfig{
		Behaviour: smpptest.Behaviour{ID: smpptest.Hex},
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close(t.Context())
	conn, err := net.Dial("tcp", again.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for i := range recording { // dates differ, if a minute begins between the two
		if m := recording[i].Frame; bytes.Contains(m, []byte("submit date:")) {
			recording[i].Frame = nil
		}
	}
	recording = deleteEmpty(recording)
	if err := smpptest.Replay(t.Context(), conn, recording, smpptest.Inward, true); err != nil {
		t.Errorf("as the ESME: %v", err)
	}
	if got := again.MessagesTo("79000000001"); len(got) != 2 || got[1].Text != "two" {
		t.Errorf("shown %+v", got)
	}
}

func deleteEmpty(recording []smpptest.Recorded) (kept []smpptest.Recorded) {
	for _, rec := range recording {
		if rec.Frame != nil {
			kept = append(kept, rec)
		}
	}
	return kept
}

func TestABrokenRecordingIsAnError(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"no fields":       "hello",
		"no direction":    "1 1 up 00",
		"no hexadecimal":  "1 1 in 0g",
		"no line number":  "1 x in 00",
		"a line too long": "1 1 in " + hex.EncodeToString(make([]byte, 300_000)),
	} {
		if _, err := smpptest.ReadRecording(strings.NewReader(text)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestAnOperatorSpeaksTLS(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	smsc, err := smpptest.Start(smpptest.Config{
		TLS: &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		// The line lies above TLS and can tamper.
		OperatorConfig: smpptest.OperatorConfig{Behaviour: smpptest.Behaviour{SplitFrames: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer smsc.Close(t.Context())
	e, err := dialESME(t, smpp.ClientConfig{Address: smsc.Addr(), TLS: &tls.Config{RootCAs: pool}})
	if err != nil {
		t.Fatal(err)
	}
	if o := e.send(t, sms("79000000001", "x")); o.Status != smpp.StatusOK {
		t.Errorf("outcome %+v", o)
	}
	if err := e.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestProfilesHaveNamesOfTheirOwn(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for _, p := range smpptest.Profiles() {
		if seen[p.Name] || p.About == "" {
			t.Errorf("profile %q", p.Name)
		}
		seen[p.Name] = true
		if got, err := smpptest.ProfileNamed(p.Name); err != nil || !reflect.DeepEqual(got, p) {
			t.Errorf("profile %q is not found: %v", p.Name, err)
		}
	}
	if _, err := smpptest.ProfileNamed("none"); err == nil {
		t.Error("a profile that is none")
	}
}
