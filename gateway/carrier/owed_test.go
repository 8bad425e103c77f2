package carrier

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"zvonok/gateway/smpp"
	"zvonok/gateway/smpp/smpptest"
)

// asking binds to our server as a gateway that wants receipts; what it is given goes into the channel.
func asking(t *testing.T, address string, version uint8, answer smpp.Status) (*smpp.Session, <-chan *smpp.Message) {
	t.Helper()
	given := make(chan *smpp.Message, 100)
	session, err := smpp.Dial(within(t), smpp.ClientConfig{
		Address: address, SystemID: "gate", Password: "secret", InterfaceVersion: version,
		Session: smpp.SessionConfig{Handle: func(in *smpp.Inbound) {
			if m, ok := in.PDU.(*smpp.Message); ok {
				given <- m
			}
			_ = in.Answer(answer, "")
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = session.Close(ctx)
	})
	return session, given
}

// submit sends a message as the gateway and returns the id it got.
func submit(t *testing.T, s *smpp.Session, m *smpp.Message) string {
	t.Helper()
	if m.Command == 0 {
		m.Command = smpp.CmdSubmitSM
	}
	m.Source, m.Destination = smpp.Address{TON: 1, NPI: 1, Addr: "79000000001"}, smpp.Address{TON: 3, Addr: "377"}
	outcome, err := s.Do(within(t), smpp.Request{PDU: m})
	if err != nil || outcome.Status != smpp.StatusOK || outcome.MessageID() == "" {
		t.Fatalf("submit: %+v, %v", outcome, err)
	}
	return outcome.MessageID()
}

// SMPP 3.4 section 5.2.17: what a gateway asks for is owed with the text, one receipt for each part; a receipt in case of
// failure only is not, because what fails is told by the answer.
func TestAReceiptIsOwedToTheGatewayThatAsksForOne(t *testing.T) {
	t.Parallel()
	x, address := serving(t)
	gate, _ := asking(t, address, 0, smpp.StatusOK)
	for asked, want := range map[uint8]bool{0: false, 1: true, 2: false, 3: true, 0x10: false, 0x1D: true} {
		for _, command := range []smpp.CommandID{smpp.CmdSubmitSM, smpp.CmdDataSM} {
			m := &smpp.Message{Command: command, RegisteredDelivery: asked}
			if command == smpp.CmdDataSM {
				m.TLVs = smpp.TLVs{{Tag: smpp.TagMessagePayload, Value: []byte("?")}}
			} else {
				m.ShortMessage = []byte("?")
			}
			id := submit(t, gate, m)
			x.heard(func() {
				got := x.texts[len(x.texts)-1].Owed
				switch {
				case !want && len(got) == 0:
				case want && len(got) == 1 && got[0].MessageID == id && got[0].Operator == "local" &&
					got[0].Source.Addr == "377" && got[0].Destination.Addr == "79000000001" && !got[0].AcceptedAt.IsZero():
				default:
					t.Errorf("%s with registered_delivery %#x: owed %+v, id %s", command, asked, got, id)
				}
			})
		}
	}
	// The parts of a long text have an id each, and the text waits for all of them.
	var ids []string
	var sending sync.WaitGroup
	var mu sync.Mutex
	parts := longText(strings.Repeat("a", 200), false)
	for _, part := range parts {
		sending.Go(func() {
			id := submit(t, gate, &smpp.Message{ESMClass: part.ESMClass, ShortMessage: part.ShortMessage, RegisteredDelivery: 1})
			mu.Lock()
			defer mu.Unlock()
			ids = append(ids, id)
		})
	}
	sending.Wait()
	x.heard(func() {
		got := x.texts[len(x.texts)-1].Owed
		if len(got) != len(parts) || got[0].MessageID == got[1].MessageID ||
			fmt.Sprint(got) == "" || !strings.Contains(strings.Join(ids, " "), got[1].MessageID) {
			t.Errorf("owed for a text of %d parts: %+v", len(parts), got)
		}
	})
}

// A deliver_sm of an operator we are bound to asks for nothing of the kind: its bits are those of the phones.
func TestNothingIsOwedToAnOperatorWeAreBoundTo(t *testing.T) {
	t.Parallel()
	x, smsc := connected(t, smpptest.Behaviour{})
	for _, command := range []smpp.CommandID{smpp.CmdDeliverSM, smpp.CmdDataSM} {
		deliver(t, smsc.Operator, &smpp.Message{
			Command: command, RegisteredDelivery: 1, Source: smpp.Address{TON: 1, NPI: 1, Addr: "79000000001"},
			TLVs: smpp.TLVs{{Tag: smpp.TagMessagePayload, Value: []byte("?")}},
		})
	}
	x.heard(func() {
		for _, text := range x.texts {
			if len(text.Owed) > 0 {
				t.Errorf("owed %+v", text.Owed)
			}
		}
	})
}

// ussd.md section 1: a receipt for USSD is meaningless, and there are gateways that write 3 into every PDU. One that
// asks plainly is owed one, and hears of its dial as before, in the order of ussd.md 1.4, also while nothing is stored.
func TestADialThatAsksPlainlyIsOwedAReceipt(t *testing.T) {
	t.Parallel()
	var (
		mu    sync.Mutex
		owed  []Owed
		dials int
		away  error
	)
	x := newBox(t, Config{
		Operators: []OperatorConfig{{
			Name: "local", Mode: Server, SystemID: "gate", Password: "secret", Roles: []Role{RoleUSSD},
		}},
		Owe: func(_ context.Context, batch []Owed) error {
			mu.Lock()
			defer mu.Unlock()
			if away == nil {
				owed = append(owed, batch...)
			}
			return away
		},
		Dial: func(Dial) {
			mu.Lock()
			defer mu.Unlock()
			dials++
		},
	})
	gate, _ := asking(t, serve(t, x), 0, smpp.StatusOK)
	dial := func(registered uint8) string {
		return submit(t, gate, &smpp.Message{
			ServiceType: "USSD", RegisteredDelivery: registered, ShortMessage: []byte("*377#"), TLVs: smpp.USSD(1),
		})
	}
	dial(0)
	dial(3)
	id := dial(1)
	mu.Lock()
	if len(owed) != 1 || owed[0].MessageID != id {
		t.Errorf("owed %+v for %s", owed, id)
	}
	away = errors.New("database is away")
	mu.Unlock()
	dial(1)
	x.until("the dials", func() bool { mu.Lock(); defer mu.Unlock(); return dials == 4 })
	// query_sm says what the receipt says.
	asked, err := gate.Do(within(t), smpp.Request{PDU: &smpp.Query{MessageID: id}})
	if resp, ok := asked.Answer.(*smpp.QueryResp); err != nil || !ok || resp.State != smpp.StateDelivered {
		t.Errorf("query: %+v, %v", asked, err)
	}
}

// SMPP 3.4 sections 5.2.12, 5.3.2.12, 5.3.2.35 and appendix B: what a gateway is given is a receipt by every sign, in
// the shape that our own reader of receipts understands, with the text and with the parameters alone.
func TestAReceiptWeGiveIsOneByEverySign(t *testing.T) {
	t.Parallel()
	x, address := serving(t)
	gate, given := asking(t, address, 0, smpp.StatusOK)
	accepted := time.Now().Add(-time.Minute)
	r := Owed{
		Operator: "local", MessageID: submit(t, gate, &smpp.Message{ShortMessage: []byte("?")}),
		Source: smpp.Address{TON: 3, Addr: "377"}, Destination: smpp.Address{TON: 1, NPI: 1, Addr: "79000000001"},
		AcceptedAt: accepted,
	}
	if got := x.Give(within(t), r, 0); got.Class != OK {
		t.Fatalf("got %+v", got)
	}
	m := <-given
	if !m.IsReceipt() || m.ESMClass != smpp.ESMClassReceipt || m.Command != smpp.CmdDeliverSM ||
		m.Source != r.Source || m.Destination != r.Destination || m.RegisteredDelivery != 0 {
		t.Errorf("came as %+v", m)
	}
	if id, _ := m.TLVs.Text(smpp.TagReceiptedMessageID); id != r.MessageID {
		t.Errorf("receipted_message_id %q", id)
	}
	if state, _ := m.TLVs.Uint(smpp.TagMessageState); state != uint32(smpp.StateDelivered) {
		t.Errorf("message_state %d", state)
	}
	want := fmt.Sprintf("id:%s sub:001 dlvrd:001 submit date:%s done date:", r.MessageID, accepted.UTC().Format("0601021504"))
	if text := string(m.ShortMessage); !strings.HasPrefix(text, want) || !strings.HasSuffix(text, " stat:DELIVRD err:000 text:") {
		t.Errorf("text %q, want %q ...", text, want)
	}
	ids, err := NewIDRule(IDAuto)
	if err != nil {
		t.Fatal(err)
	}
	reader := receiptReader{operator: "us", ids: ids, zone: time.UTC, region: "RU"}
	for name, shape := range map[string]*smpp.Message{
		"text": {ShortMessage: m.ShortMessage}, "parameters": {TLVs: m.TLVs}, "both": m,
	} {
		read, ok := reader.read(shape, time.Now())
		if !ok || read.MessageID != r.MessageID || read.State != StateDelivered {
			t.Errorf("by the %s it reads as %+v, %t", name, read, ok)
		}
	}
	// A peer of 3.3 gets no optional parameters.
	_ = gate.Close(within(t))
	_, old := asking(t, address, 0x33, smpp.StatusOK)
	x.until("the other bind", func() bool { return x.Gives("local") && x.Give(within(t), r, 0).Class == OK })
	if m := <-old; len(m.TLVs) != 0 || !strings.Contains(string(m.ShortMessage), "stat:DELIVRD") {
		t.Errorf("3.3 got %+v", m)
	}
}

func TestWhatTheGatewayAnswersToAReceiptDecides(t *testing.T) {
	t.Parallel()
	for status, want := range map[smpp.Status]Given{
		smpp.StatusOK:                   {Class: OK},
		smpp.StatusThrottled:            {Class: Throttle, RetryAfter: givePause},
		smpp.StatusQueueFull:            {Class: QueueFull, RetryAfter: 2 * time.Minute},
		smpp.StatusReceiverTemporary:    {Class: Temporary, RetryAfter: time.Minute},
		smpp.StatusSystemError:          {Class: Temporary, RetryAfter: time.Minute},
		smpp.StatusReceiverPermanent:    {Class: PermanentRecipient},
		smpp.StatusInvalidMessageID:     {Class: Temporary, RetryAfter: time.Minute}, // theirs may come to know it
		smpp.StatusInvalidMessageLength: {Class: PermanentMessage},
	} {
		x, address := serving(t)
		_, given := asking(t, address, 0, status)
		x.until("the bind", func() bool { return x.Gives("local") })
		got := x.Give(within(t), Owed{Operator: "local", MessageID: "1"}, 1)
		if got.Class != want.Class || got.RetryAfter != want.RetryAfter {
			t.Errorf("%s: %+v, want %+v", status, got, want)
		}
		<-given
	}
	x, _ := serving(t)
	if got := x.Give(within(t), Owed{Operator: "local", MessageID: "1"}, 0); got.Class != NeverWritten || got.RetryAfter == 0 {
		t.Errorf("while nobody is bound: %+v", got)
	}
	if got := x.Give(within(t), Owed{Operator: "nobody", MessageID: "1"}, 0); got.Class != NeverWritten || x.Gives("nobody") {
		t.Errorf("an unknown operator: %+v", got)
	}
}
