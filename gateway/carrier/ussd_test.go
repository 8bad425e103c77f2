package carrier

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"zvonok/gateway/smpp"
	"zvonok/gateway/smpp/smpptest"
)

// service answers every dial with a screen: "you dialled ..." and waits, or ends when 0 was pressed.
type service struct {
	mu      sync.Mutex
	x       *Exchange
	dials   []Dial
	answers []Answered
	errs    []error
}

func (s *service) dial(d Dial) {
	s.mu.Lock()
	s.dials = append(s.dials, d)
	s.mu.Unlock()
	if d.Op == 129 || !d.HasOp {
		return
	}
	r := d.Reply()
	r.Op = 2
	if d.Text == "0" {
		r.Op = 17
	}
	for _, tag := range []smpp.Tag{smpp.TagITSSessionInfo, smpp.TagUserMessageReference, smpp.TagUSSDSessionID} {
		if value, ok := d.TLVs.Get(tag); ok {
			value = bytes.Clone(value)
			if tag == smpp.TagITSSessionInfo && r.Op == 17 {
				value[1] |= 1
			}
			r.TLVs = append(r.TLVs, smpp.TLV{Tag: tag, Value: value})
		}
	}
	r.Octets = []byte("you dialled " + d.Text)
	r.Done = func(a Answered) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.answers = append(s.answers, a)
	}
	if err := s.x.Answer(context.Background(), r); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.errs = append(s.errs, err)
	}
}

func (s *service) heard() ([]Dial, []Answered, []error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.dials), slices.Clone(s.answers), slices.Clone(s.errs)
}

// dialable is a box with the service and a client operator bound to a new SMSC.
func dialable(t *testing.T, b smpptest.Behaviour, change ...func(*OperatorConfig)) (*box, *service, *smpptest.SMSC) {
	t.Helper()
	smsc, cfg := operatorOf(t, b)
	for _, f := range change {
		f(&cfg)
	}
	s := &service{}
	x := newBox(t, Config{Operators: []OperatorConfig{cfg}, Dial: s.dial})
	s.x = x.Exchange
	x.until("the binds", func() bool {
		up := x.Status()[0]
		return up.BindsUp == up.Binds
	})
	return x, s, smsc
}

func dialogue(t *testing.T, o *smpptest.Operator, profile, phone string) {
	t.Helper()
	p, err := smpptest.USSDProfileNamed(profile)
	if err != nil {
		t.Fatal(err)
	}
	call, err := o.Dial(within(t), p, phone, "*377*888#")
	if err != nil {
		t.Fatal(err)
	}
	screen, err := call.Screen(within(t))
	if err != nil || screen.End {
		t.Fatalf("got %+v, %v", screen, err)
	}
	for _, keys := range []string{"1", "2"} {
		if screen, err = call.Ask(within(t), keys); err != nil || screen.Text != "you dialled "+keys || screen.End {
			t.Fatalf("after %s: %+v, %v", keys, screen, err)
		}
	}
	if screen, err = call.Ask(within(t), "0"); err != nil || !screen.End {
		t.Errorf("at the end: %+v, %v", screen, err)
	}
}

func TestADialogueOverEveryKindOfGateway(t *testing.T) {
	t.Parallel()
	for _, profile := range []string{
		"plain-its", "mica", "smpp+", "eyeline", "c-gateway", "huawei", "units",
		"glo", "sixdee",
	} {
		t.Run(profile, func(t *testing.T) {
			t.Parallel()
			_, s, smsc := dialable(t, smpptest.Behaviour{})
			dialogue(t, smsc.Operator, profile, "79000000001")
			dials, _, errs := s.heard()
			if len(dials) != 4 || len(errs) != 0 {
				t.Fatalf("%d dials, errors %v", len(dials), errs)
			}
			begin := dials[0]
			command := smpp.CmdDeliverSM
			if profile == "glo" {
				command = smpp.CmdDataSM
			}
			if begin.Operator != "mts" || begin.Link == 0 || begin.Command != command || begin.Op != 1 || !begin.HasOp ||
				begin.Phone != "79000000001" || begin.Source.Addr != "79000000001" {
				t.Errorf("begin %+v", begin)
			}
		})
	}
}

// A gateway whose link was away sends what waits right behind its answer to the bind, before we have taken note that
// there is a link again.
func TestADialThatComesWithTheAnswerToTheBindIsAnswered(t *testing.T) {
	virtually(t, func(t *testing.T) {
		listener, address, dial := listen(t)
		cfg := account(address)
		cfg.Dial = dial
		gate := make(chan struct{})
		var shut atomic.Bool
		s := &service{}
		x := newBox(t, Config{
			Operators: []OperatorConfig{cfg}, Dial: s.dial,
			Now: func() time.Time { // asked between the end of the bind and the beginning of the link
				if shut.Load() {
					<-gate
				}
				return time.Now()
			},
		})
		s.x = x.Exchange
		conn, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		frames := smpp.NewFrameReader(conn, smpp.MaxUnboundPDU)
		next := func() smpp.PDU {
			t.Helper()
			frame, err := frames.Next()
			if err != nil {
				t.Fatal(err)
			}
			_, pdu, err := smpp.Decode(frame)
			if err != nil {
				t.Fatal(err)
			}
			return pdu
		}
		write := func(sequence uint32, pdu smpp.PDU) {
			t.Helper()
			octets, err := smpp.Append(nil, sequence, smpp.StatusOK, pdu)
			if err == nil {
				_, err = conn.Write(octets)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if bind, ok := next().(*smpp.Bind); !ok || bind.SystemID != cfg.SystemID {
			t.Fatalf("got %+v", bind)
		}
		shut.Store(true)
		write(1, &smpp.BindResp{Type: smpp.Transceiver})
		write(1, &smpp.Message{
			Command: smpp.CmdDeliverSM, Source: smpp.Address{TON: 1, NPI: 1, Addr: "79000000001"},
			Destination: smpp.Address{Addr: "377"}, TLVs: smpp.USSD(1),
		})
		synctest.Wait()
		shut.Store(false)
		close(gate)
		if _, ok := next().(*smpp.MessageResp); !ok {
			t.Error("the dial is not acknowledged first")
		}
		if m, ok := next().(*smpp.Message); !ok || string(m.ShortMessage) != "you dialled " {
			t.Errorf("the dial is answered with %+v", m)
		}
		if _, _, errs := s.heard(); len(errs) != 0 {
			t.Error(errs)
		}
	})
}

func TestADialogueWithAGatewayThatBindsToUs(t *testing.T) {
	t.Parallel()
	s := &service{}
	cfg := OperatorConfig{Name: "local", Mode: Server, SystemID: "gate", Password: "secret", Roles: []Role{RoleUSSD}}
	x := newBox(t, Config{Operators: []OperatorConfig{cfg}, Dial: s.dial})
	s.x = x.Exchange
	g, err := gateway(t, serve(t, x))
	if err != nil {
		t.Fatal(err)
	}
	dialogue(t, g.Operator, "plain-its", "79000000001")
	if dials, _, errs := s.heard(); len(errs) != 0 || dials[0].Command != smpp.CmdSubmitSM ||
		dials[0].Operator != "local" {
		t.Errorf("dials %+v, errors %v", dials, errs)
	}
}

// The acknowledgement goes first: a gateway that sees the answer before it refuses the answer.
func TestADialIsAcknowledgedBeforeItIsAnswered(t *testing.T) {
	t.Parallel()
	smsc := newSMSC(t, behaving(smpptest.Behaviour{}))
	cfg := account(smsc.Addr())
	release, called := make(chan struct{}), make(chan Dial, 1)
	x := newBox(t, Config{Operators: []OperatorConfig{cfg}, Dial: func(d Dial) {
		called <- d
		<-release
	}})
	t.Cleanup(func() { close(release) })
	x.untilReady("mts")
	// Dial returns when the begin is acknowledged, while the callback is still at work.
	p, _ := smpptest.USSDProfileNamed("plain-its")
	if _, err := smsc.Dial(within(t), p, "79000000001", "*377*888#"); err != nil {
		t.Fatal(err)
	}
	if d := <-called; d.Text != "*377*888#" {
		t.Errorf("dial %+v", d)
	}
	// A text and a message pass by the waiting callback.
	if status, err := smsc.SendText(within(t), "79000000002", "377", "?"); err != nil || status != smpp.StatusOK {
		t.Errorf("a text got %s, %v", status, err)
	}
	if r := x.send("mts", sms(1, number(1), "a"))[1]; r.Class != OK {
		t.Errorf("a message got %+v", r)
	}
}

// Only links with the role may assert a caller; a forged source address would read any child's balance.
func TestUSSDOnALinkWithoutTheRoleIsRefused(t *testing.T) {
	t.Parallel()
	_, s, smsc := dialable(t, smpptest.Behaviour{}, func(c *OperatorConfig) { c.Roles = []Role{RoleSMS} })
	for _, command := range []smpp.CommandID{smpp.CmdDeliverSM, smpp.CmdDataSM} {
		status := deliver(t, smsc.Operator, &smpp.Message{
			Command: command, Source: smpp.Address{TON: 1, NPI: 1, Addr: "79000000001"}, TLVs: smpp.USSD(1),
		})
		if status != smpp.StatusReceiverPermanent {
			t.Errorf("%s got %s", command, status)
		}
	}
	if dials, _, _ := s.heard(); len(dials) != 0 {
		t.Errorf("%d dials", len(dials))
	}
	if err := s.x.Answer(context.Background(), Reply{Operator: "mts", Command: smpp.CmdSubmitSM}); !errors.Is(err,
		ErrNoRole) {
		t.Errorf("answer: %v", err)
	}
}

// ussd.md 1.2 and 1.4: what is USSD without ussd_service_op.
func TestAbortsWithoutAnOperationAreDials(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		m    smpp.Message
		want bool
	}{
		{"esm_class 0x08", smpp.Message{ESMClass: 0x08, ShortMessage: []byte("ABORT from mobile phone")}, true},
		{"esm_class 0x18", smpp.Message{ESMClass: 0x18}, true},
		{"a session of SMPP+", smpp.Message{TLVs: smpp.TLVs{smpp.Uint32(smpp.TagUSSDSessionID, 7)}}, true},
		{"its_session_info of the service USSD", smpp.Message{
			ServiceType: "USSD",
			TLVs:        smpp.TLVs{smpp.Uint16(smpp.TagITSSessionInfo, 1)},
		}, true},
		{"the service type alone is a text", smpp.Message{ServiceType: "USSD", ShortMessage: []byte("hi")}, false},
		{"its_session_info without the service is a text", smpp.Message{TLVs: smpp.TLVs{smpp.Uint16(smpp.TagITSSessionInfo, 1)}}, false},
		{"a receipt stays a receipt", smpp.Message{
			ESMClass: 0x04, ShortMessage: []byte("id:1 stat:DELIVRD"),
			TLVs: smpp.USSD(1),
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, s, smsc := dialable(t, smpptest.Behaviour{})
			test.m.Source = smpp.Address{TON: 1, NPI: 1, Addr: "79000000001"}
			if status := deliver(t, smsc.Operator, &test.m); status != smpp.StatusOK {
				t.Errorf("got %s", status)
			}
			if test.want {
				waitFor(t, func() bool { dials, _, _ := s.heard(); return len(dials) == 1 })
			}
			if dials, _, _ := s.heard(); (len(dials) == 1) != test.want || test.want && dials[0].HasOp {
				t.Errorf("dials %+v", dials)
			}
		})
	}
}

// waitFor waits for something that no callback of the box announces.
func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for !condition() {
		select {
		case <-poll.C:
		case <-deadline.C:
			t.Fatal("waited in vain")
		}
	}
}

// A gateway may answer a screen only when the person has typed: that holds up no message and outlives the response
// timeout of SMS.
func TestAScreenThatWaitsForInputHoldsNoWindow(t *testing.T) {
	virtually(t, func(t *testing.T) {
		x, s, smsc := dialable(t, smpptest.Behaviour{}, func(c *OperatorConfig) {
			c.Window, c.ResponseTimeout = 1, 200*time.Millisecond
		})
		p, _ := smpptest.USSDProfileNamed("eyeline")
		var calls []*smpptest.Call
		for i := range 20 {
			call, err := smsc.Dial(within(t), p, string(number(i)), "*377*888#")
			if err != nil {
				t.Fatal(err)
			}
			calls = append(calls, call)
		}
		for _, call := range calls {
			if _, err := call.Screen(within(t)); err != nil {
				t.Fatal(err)
			}
		}
		if r := x.send("mts", sms(1, number(50), "a"))[1]; r.Class != OK {
			t.Errorf("a message beside 20 open dialogues got %+v", r)
		}
		// A message that the operator swallows shows that the response timeout of SMS is long over.
		smsc.SetBehaviour(smpptest.Behaviour{Swallow: 1})
		x.post("mts", sms(2, number(51), "a"))
		if r := x.await(2)[2]; r.Class != Unknown {
			t.Fatalf("got %+v", r)
		}
		if _, answers, _ := s.heard(); len(answers) != 0 {
			t.Fatalf("%d screens were answered or given up", len(answers))
		}
		if err := calls[0].Press(within(t), "1"); err != nil {
			t.Fatal(err)
		}
		waitFor(t, func() bool { _, answers, _ := s.heard(); return len(answers) == 1 })
		if _, answers, _ := s.heard(); answers[0].Err != nil || answers[0].Status != smpp.StatusOK {
			t.Errorf("got %+v", answers[0])
		}
		if err := calls[1].Abort(within(t)); err != nil {
			t.Fatal(err)
		}
		waitFor(t, func() bool { _, answers, _ := s.heard(); return len(answers) == 2 })
		if _, answers, _ := s.heard(); answers[1].Status == smpp.StatusOK {
			t.Errorf("an abort was answered with %+v", answers[1])
		}
	})
}

// Two binds or a rebind in mid-dialogue: the bind the last PDU came from, and if it is gone any other of the operator.
func TestTheAnswerGoesBackByTheSameLinkOrByAnyOther(t *testing.T) {
	t.Parallel()
	x, _, smsc := dialable(t, smpptest.Behaviour{}, func(c *OperatorConfig) { c.Binds = 3 })
	o := x.operators["mts"]
	for id := range linkIDs(o) {
		session, got := o.replyLink(id, nil)
		if got != id || session == nil {
			t.Errorf("for link %d: link %d", id, got)
		}
	}
	if _, got := o.replyLink(9999, nil); got == 0 {
		t.Error("for a link that is gone there is none")
	}
	smsc.SetBehaviour(smpptest.Behaviour{RefuseBinds: 1 << 30})
	smsc.Cut()
	x.until("the loss", func() bool { return x.Status()[0].BindsUp == 0 })
	err := x.Answer(within(t), Reply{
		Operator: "mts", Command: smpp.CmdSubmitSM, Octets: []byte("a"),
		Done: func(Answered) {
			t.Error("Done is called although Answer failed")
		},
	})
	if !errors.Is(err, ErrNotBound) {
		t.Errorf("got %v", err)
	}
}

func linkIDs(o *operator) map[Link]bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	ids := map[Link]bool{}
	for id := range o.links {
		ids[id] = true
	}
	return ids
}

func TestAPairOfBindsCarriesADialogue(t *testing.T) {
	t.Parallel()
	_, s, smsc := dialable(t, smpptest.Behaviour{}, func(c *OperatorConfig) { c.Pair = true })
	dialogue(t, smsc.Operator, "plain-its", "79000000001")
	if _, _, errs := s.heard(); len(errs) != 0 {
		t.Errorf("errors %v", errs)
	}
}

func TestTheOutcomeOfAnAnswerIsReportedOnce(t *testing.T) {
	t.Parallel()
	smsc := script(t, func(_ int, m *smpp.Message) smpp.Status {
		switch string(m.ShortMessage) {
		case "refuse":
			return 0x407
		case "silence", "lost":
			return silentAnswer
		}
		return smpp.StatusOK
	})
	x := smsc.against(t)
	reply := func(text string, wait time.Duration) chan Answered {
		t.Helper()
		got := make(chan Answered, 2)
		err := x.Answer(within(t), Reply{
			Operator: "mts", Command: smpp.CmdSubmitSM, Op: 17, Octets: []byte(text), Wait: wait,
			Done: func(a Answered) { got <- a },
		})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if a := <-reply("fine", 0); a.Err != nil || a.Status != smpp.StatusOK || a.MessageID == "" {
		t.Errorf("accepted: %+v", a)
	}
	if a := <-reply("refuse", 0); a.Err != nil || a.Status != 0x407 {
		t.Errorf("refused: %+v", a)
	}
	if a := <-reply("silence", 100*time.Millisecond); !errors.Is(a.Err, ErrNoAnswer) {
		t.Errorf("unanswered: %+v", a)
	}
	lost := reply("lost", time.Minute)
	waitFor(t, func() bool { return len(smsc.messages()) == 4 })
	for _, s := range smsc.server.Sessions("") {
		s.Kill(errors.New("cut"))
	}
	if a := <-lost; !errors.Is(a.Err, ErrLinkLost) {
		t.Errorf("cut off: %+v", a)
	}
	if m := smsc.messages()[0]; m.TLVs[0].Tag != smpp.TagUSSDServiceOp || m.RegisteredDelivery != 0 ||
		m.ValidityPeriod != "" {
		t.Errorf("the PDU is %+v", m)
	}
}

func TestWhatCannotBeWrittenIsAnErrorOfAnswer(t *testing.T) {
	t.Parallel()
	x, _, _ := dialable(t, smpptest.Behaviour{})
	for name, r := range map[string]Reply{
		"a text of 255 octets":           {Operator: "mts", Command: smpp.CmdSubmitSM, Octets: make([]byte, 255)},
		"a command that carries no USSD": {Operator: "mts", Command: smpp.CmdQuerySM},
		"an address with a NUL": {
			Operator: "mts", Command: smpp.CmdSubmitSM,
			Destination: smpp.Address{Addr: "7\x00"},
		},
	} {
		if err := x.Answer(within(t), r); !errors.Is(err, smpp.ErrNotEncodable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := x.Answer(within(t), Reply{Operator: "nobody"}); !errors.Is(err, ErrUnknownOperator) {
		t.Errorf("got %v", err)
	}
}

func TestAReplyMirrorsItsDial(t *testing.T) {
	t.Parallel()
	for command, mirror := range map[smpp.CommandID]smpp.CommandID{
		smpp.CmdDeliverSM: smpp.CmdSubmitSM, smpp.CmdSubmitSM: smpp.CmdDeliverSM, smpp.CmdDataSM: smpp.CmdDataSM,
	} {
		d := Dial{
			Operator: "mts", Link: 7, Command: command, ServiceType: "USSD_",
			Source: smpp.Address{TON: 1, NPI: 1, Addr: "79000000001"}, Destination: smpp.Address{TON: 5, Addr: "ussd:377"},
		}
		r := d.Reply()
		if r.Command != mirror || r.Source != d.Destination || r.Destination != d.Source || r.ServiceType != "USSD_" ||
			r.Operator != "mts" || r.Link != 7 || r.Payload != (command == smpp.CmdDataSM) {
			t.Errorf("%s: %+v", command, r)
		}
	}
}

// Fault row 51: a flood from one number meets a bound, and other numbers are served.
func TestAFloodOfDialsIsRefusedForNow(t *testing.T) {
	t.Parallel()
	smsc := newSMSC(t, behaving(smpptest.Behaviour{}))
	release := make(chan struct{})
	x := newBox(t, Config{Operators: []OperatorConfig{account(smsc.Addr())}, Dial: func(d Dial) {
		if d.Phone == number(1) {
			<-release
		}
	}})
	t.Cleanup(func() { close(release) })
	x.untilReady("mts")
	dial := func(phone string) smpp.Status {
		return deliver(t, smsc.Operator, &smpp.Message{
			Source: smpp.Address{TON: 1, NPI: 1, Addr: phone}, TLVs: smpp.USSD(1), ShortMessage: []byte("*377*888#"),
		})
	}
	refused := 0
	for range dialsWaiting + 50 {
		if status := dial(string(number(1))); status == smpp.StatusReceiverTemporary {
			refused++
		} else if status != smpp.StatusOK {
			t.Fatalf("got %s", status)
		}
	}
	if refused < 40 || refused > 50 {
		t.Errorf("%d of %d are refused", refused, dialsWaiting+50)
	}
	for i := 2; i < 6; i++ {
		if status := dial(fmt.Sprintf("7900111%04d", i)); status != smpp.StatusOK && status != smpp.StatusReceiverTemporary {
			t.Errorf("another number got %s", status)
		}
	}
}
