package carrier

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"zvonok/gateway/smpp"
	"zvonok/gateway/smpp/smpptest"
	"zvonok/templates/gsm"
)

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// deliver sends a PDU as the operator and returns our answer.
func deliver(t *testing.T, o *smpptest.Operator, m *smpp.Message) smpp.Status {
	t.Helper()
	if m.Command == 0 {
		m.Command = smpp.CmdDeliverSM
	}
	status, err := o.Send(within(t), m)
	if err != nil {
		t.Fatal(err)
	}
	return status
}

func TestATextOfASubscriberIsStoredAndThenAcknowledged(t *testing.T) {
	t.Parallel()
	x, smsc := connected(t, smpptest.Behaviour{})
	if status, err := smsc.SendText(within(t), "79000000001", "377", "Стоп 😀"); err != nil || status != smpp.StatusOK {
		t.Fatalf("got %s, %v", status, err)
	}
	x.heard(func() {
		if len(x.texts) != 1 || x.texts[0].Text != "Стоп 😀" || x.texts[0].From != "79000000001" ||
			x.texts[0].To.Addr != "377" || x.texts[0].Operator != "mts" || x.texts[0].Incomplete {
			t.Errorf("got %+v", x.texts)
		}
	})
}

// Pain 19: while the database is away the operator keeps what it brings.
func TestWhatCannotBeStoredIsRefusedForNowAndComesAgain(t *testing.T) {
	t.Parallel()
	x, smsc := connected(t, smpptest.Behaviour{ReceiptRetry: 50 * time.Millisecond})
	x.heard(func() { x.storeErr = errors.New("database is away") })
	if status, _ := smsc.SendText(within(t), "79000000001", "377", "СТОП"); status != smpp.StatusReceiverTemporary {
		t.Errorf("a text got %s", status)
	}
	if r := x.send("mts", sms(1, number(1), "a"))[1]; r.Class != OK {
		t.Fatalf("got %+v", r)
	}
	x.until("a refused receipt", func() bool { return smsc.Stats().Retried > 0 })
	x.heard(func() {
		if len(x.receipts) != 0 || len(x.texts) != 0 {
			t.Error("something was stored")
		}
		x.storeErr = nil
	})
	x.until("the receipt", func() bool { return len(x.receipts) == 1 })
	if status, _ := smsc.SendText(within(t), "79000000001", "377", "СТОП"); status != smpp.StatusOK {
		t.Errorf("the text got %s", status)
	}
}

// Fault row 21: texts that quote a receipt, in every class that is not one.
func TestATextThatLooksLikeAReceiptIsAText(t *testing.T) {
	t.Parallel()
	x, smsc := connected(t, smpptest.Behaviour{})
	quote := "id:1 sub:001 dlvrd:001 submit date:2611220814 done date:2611220815 stat:DELIVRD err:000 text:"
	for i, class := range []byte{0x00, 0x03, 0x02, 0x80} {
		status := deliver(t, smsc.Operator, &smpp.Message{
			ESMClass: class, Source: smpp.Address{TON: 1, NPI: 1, Addr: "79000000001"}, ShortMessage: []byte(quote),
			TLVs: smpp.TLVs{smpp.Text(smpp.TagReceiptedMessageID, "1"), smpp.Uint8(smpp.TagMessageState, 2)},
		})
		if status != smpp.StatusOK {
			t.Errorf("class 0x%02X: %s", class, status)
		}
		x.heard(func() {
			if len(x.receipts) != 0 || len(x.texts) != i+1 {
				t.Errorf("class 0x%02X: %d receipts, %d texts", class, len(x.receipts), len(x.texts))
			}
		})
	}
}

func TestAcknowledgementsAndNotificationsAreNeitherReceiptsNorTexts(t *testing.T) {
	t.Parallel()
	x, smsc := connected(t, smpptest.Behaviour{}, func(c *OperatorConfig) { c.Roles = []Role{RoleSMS} })
	for _, class := range []byte{
		smpp.ESMClassDeliveryAck, smpp.ESMClassUserAck, smpp.ESMClassAbort,
		smpp.ESMClassIntermediate,
	} {
		if status := deliver(t, smsc.Operator, &smpp.Message{
			ESMClass:     class,
			ShortMessage: []byte("id:1 stat:DELIVRD"),
		}); status != smpp.StatusOK {
			t.Errorf("class 0x%02X: %s", class, status)
		}
	}
	x.heard(func() {
		if len(x.receipts)+len(x.texts) != 0 {
			t.Errorf("%d receipts, %d texts", len(x.receipts), len(x.texts))
		}
	})
}

func TestAnUnreadableReceiptIsAcknowledgedAndRaisesAnAlarm(t *testing.T) {
	t.Parallel()
	x, smsc := connected(t, smpptest.Behaviour{})
	m := &smpp.Message{ESMClass: smpp.ESMClassReceipt, ShortMessage: []byte("what is this")}
	if status := deliver(t, smsc.Operator, m); status != smpp.StatusOK {
		t.Errorf("got %s", status)
	}
	x.until("the alarm", func() bool { return len(x.alarms) == 1 && x.alarms[0].Reason == "unreadable receipt" })
}

// longText makes the parts of a text as an operator delivers them.
func longText(text string, sar bool) []*smpp.Message {
	segments := gsm.Split(text, gsm.Limits8())
	var parts []*smpp.Message
	for i, s := range segments {
		m := &smpp.Message{
			Command: smpp.CmdDeliverSM, Source: smpp.Address{TON: 1, NPI: 1, Addr: "79000000001"},
			Destination: smpp.Address{TON: 3, Addr: "377"}, ShortMessage: s.Octets,
		}
		if s.Alphabet == gsm.UCS2 {
			m.DataCoding = 8
		}
		if sar {
			m.TLVs = smpp.TLVs{
				smpp.Uint16(smpp.TagSARMsgRefNum, 99), smpp.Uint8(smpp.TagSARTotalSegments, uint8(len(segments))),
				smpp.Uint8(smpp.TagSARSegmentSeqnum, uint8(i+1)),
			}
		} else {
			m.ESMClass = smpp.ESMClassUDHI
			m.ShortMessage = append([]byte{5, 0, 3, 99, byte(len(segments)), byte(i + 1)}, s.Octets...)
		}
		parts = append(parts, m)
	}
	return parts
}

func TestALongTextOfASubscriberIsJoined(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("Когда ребёнок пришёл? 😀 ", 8)
	for _, sar := range []bool{false, true} {
		t.Run(fmt.Sprintf("sar %t", sar), func(t *testing.T) {
			t.Parallel()
			x, smsc := connected(t, smpptest.Behaviour{})
			parts := longText(text, sar)
			answers := make(chan smpp.Status, len(parts))
			for i := range parts {
				go func() { answers <- deliver(t, smsc.Operator, parts[len(parts)-1-i]) }() // the last first, or any order
			}
			for range parts {
				if status := <-answers; status != smpp.StatusOK {
					t.Errorf("a part got %s", status)
				}
			}
			x.heard(func() {
				if len(x.texts) != 1 || x.texts[0].Text != text || x.texts[0].Incomplete {
					t.Errorf("got %+v", x.texts)
				}
			})
		})
	}
}

// An operator that sends one PDU at a time gets an acknowledgement for a part after a while, and the text is joined.
func TestALongTextIsJoinedFromAnOperatorThatWaitsForEachAnswer(t *testing.T) {
	t.Parallel()
	x, smsc := connected(t, smpptest.Behaviour{})
	text := strings.Repeat("a", 200)
	for _, part := range longText(text, false) {
		if status := deliver(t, smsc.Operator, part); status != smpp.StatusOK {
			t.Errorf("a part got %s", status)
		}
	}
	x.heard(func() {
		if len(x.texts) != 1 || x.texts[0].Text != text {
			t.Errorf("got %+v", x.texts)
		}
	})
}

// smpp.md, Session: a receipt or text is acknowledged only after it is stored. What was acknowledged is stored by itself,
// so that the operator keeps no more than what is refused.
func TestALongTextWhoseLastPartCannotBeStoredIsWholeWhenThatPartComesAgain(t *testing.T) {
	virtually(t, func(t *testing.T) {
		x, smsc := connected(t, smpptest.Behaviour{})
		text := strings.Repeat("a", 200)
		parts := longText(text, false)
		if status := deliver(t, smsc.Operator, parts[0]); status != smpp.StatusOK {
			t.Errorf("the first part got %s", status)
		}
		x.heard(func() {
			if len(x.parts) != 1 {
				t.Errorf("%d parts are stored when the first is acknowledged", len(x.parts))
			}
			x.storeErr = errors.New("database is away")
		})
		if status := deliver(t, smsc.Operator, parts[1]); status != smpp.StatusReceiverTemporary {
			t.Errorf("the last part got %s while the database is away", status)
		}
		x.heard(func() { x.storeErr = nil })
		if status := deliver(t, smsc.Operator, parts[1]); status != smpp.StatusOK {
			t.Errorf("the last part got %s", status)
		}
		x.until("the text", func() bool { return len(x.texts) == 1 })
		x.heard(func() {
			if x.texts[0].Text != text || x.texts[0].Incomplete || len(x.parts) != 0 {
				t.Errorf("got %+v, %d parts left", x.texts, len(x.parts))
			}
		})
	})
}

func TestAPartThatCannotBeStoredIsRefusedForNow(t *testing.T) {
	virtually(t, func(t *testing.T) {
		x, smsc := connected(t, smpptest.Behaviour{})
		text := strings.Repeat("a", 200)
		parts := longText(text, false)
		x.heard(func() { x.storeErr = errors.New("database is away") })
		if status := deliver(t, smsc.Operator, parts[0]); status != smpp.StatusReceiverTemporary {
			t.Errorf("a part got %s", status)
		}
		x.heard(func() { x.storeErr = nil })
		for _, i := range []int{1, 0} {
			if status := deliver(t, smsc.Operator, parts[i]); status != smpp.StatusOK {
				t.Errorf("part %d got %s", i+1, status)
			}
		}
		x.heard(func() {
			if len(x.texts) != 1 || x.texts[0].Text != text || len(x.parts) != 0 {
				t.Errorf("got %+v, %d parts left", x.texts, len(x.parts))
			}
		})
	})
}

func TestAnIncompleteTextIsHandedOverAfterAWhile(t *testing.T) {
	virtually(t, func(t *testing.T) {
		x, smsc := connected(t, smpptest.Behaviour{})
		began := time.Now()
		parts := longText(strings.Repeat("a", 153)+strings.Repeat("b", 153)+"end", false)
		for _, i := range []int{2, 0, 0} { // a part may come twice
			if status := deliver(t, smsc.Operator, parts[i]); status != smpp.StatusOK {
				t.Errorf("part %d got %s", i+1, status)
			}
		}
		if early := time.Since(began); early < joinAck {
			t.Errorf("acknowledged after %s", early)
		}
		x.heard(func() {
			if len(x.parts) != 2 || len(x.texts) != 0 {
				t.Errorf("%d parts are stored, %d texts handed over", len(x.parts), len(x.texts))
			}
		})
		time.Sleep(joinPatience)
		x.heard(func() {
			if len(x.texts) != 0 {
				t.Errorf("too early: %+v", x.texts)
			}
		})
		time.Sleep(overdueAfter - joinPatience + overdueEvery)
		x.heard(func() {
			if len(x.texts) != 1 || x.texts[0].Text != strings.Repeat("a", 153)+"end" || !x.texts[0].Incomplete || len(x.parts) != 0 {
				t.Errorf("got %+v, %d parts left", x.texts, len(x.parts))
			}
		})
		if n := len(x.joiner.open); n != 0 {
			t.Errorf("%d texts are still open", n)
		}
	})
}

// The last part comes while the one before it is being stored: the text is handed over when that is over, so that the
// stored part goes with the text.
func TestATextCompletedWhileAPartIsBeingStoredWaitsForIt(t *testing.T) {
	t.Parallel()
	part := func(n uint8) TextPart {
		return TextPart{TextKey: TextKey{Operator: "mts", Count: 2}, Number: n, Octets: []byte{'0' + n}, ReceivedAt: paceStart}
	}
	for _, err := range []error{nil, errors.New("database is away")} {
		j := newJoiner()
		j.add(part(1), waiting())
		storing := j.tick(paceStart.Add(joinAck))
		if len(storing) != 1 {
			t.Fatalf("%d parts are stored", len(storing))
		}
		if texts := j.add(part(2), waiting()); len(texts) != 0 {
			t.Fatal("it does not wait")
		}
		texts := j.stored(storing[0], err)
		if err != nil {
			if len(texts) != 0 {
				t.Fatal("a refused part is in a text")
			}
			texts = j.add(part(1), waiting()) // again
		}
		if len(texts) != 1 || texts[0].mo.Text != "12" || texts[0].mo.Incomplete || len(j.open) != 0 {
			t.Errorf("after %v: %+v", err, texts)
		}
	}
}

func TestPartsWithSenselessNumbersAreTextsByThemselves(t *testing.T) {
	t.Parallel()
	for _, header := range [][]byte{
		{5, 0, 3, 9, 0, 1}, {5, 0, 3, 9, 2, 0}, {5, 0, 3, 9, 2, 3}, {5, 0, 3, 9, 1, 1}, {2, 5, 0}, {5, 0, 9, 9, 2, 1},
	} {
		m := &smpp.Message{ESMClass: smpp.ESMClassUDHI, ShortMessage: append(bytes.Clone(header), "text"...)}
		if place, rest := concatOf(m); place.count != 0 || string(rest) != "text" {
			t.Errorf("header %v: %+v %q", header, place, rest)
		}
	}
}

func TestIncompleteTextsAreBounded(t *testing.T) {
	t.Parallel()
	j := newJoiner()
	for i := range maxJoining + 100 {
		j.add(TextPart{
			TextKey: TextKey{Sender: fmt.Sprint(i), Count: 2}, Number: 1, ReceivedAt: paceStart.Add(time.Duration(i)),
		}, waiting())
	}
	if len(j.open) != maxJoining {
		t.Errorf("%d texts are open", len(j.open))
	}
	if _, kept := j.open[TextKey{Sender: "99", Count: 2}]; kept {
		t.Error("it is not the oldest that made room")
	}
}

// waiting is a request whose answer goes nowhere.
func waiting() received {
	return received{in: &smpp.Inbound{
		PDU: &smpp.Plain{}, Header: smpp.Header{Command: smpp.CmdAlertNotification},
	}}
}

// Pain 17: requests of both sides with the same sequence numbers are never mixed up.
func TestBothSidesNumberTheirRequestsAlike(t *testing.T) {
	t.Parallel()
	x, smsc := connected(t, smpptest.Behaviour{AnswerDelay: time.Millisecond}, func(c *OperatorConfig) { c.Window = 5 })
	done := make(chan error, 1)
	go func() {
		for i := range 100 {
			if status, err := smsc.SendText(context.Background(), string(number(i)), "377", "?"); err != nil ||
				status != smpp.StatusOK {
				done <- fmt.Errorf("text %d: %s, %w", i, status, err)
				return
			}
		}
		done <- nil
	}()
	for _, r := range x.send("mts", batch(100)...) {
		if r.Class != OK {
			t.Errorf("message %d: %s", r.ID, r.Class)
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	x.until("receipts and texts", func() bool { return len(x.receipts) == 100 && len(x.texts) == 100 })
}

func TestAnOperatorWithoutTheRoleSMSBringsNoTexts(t *testing.T) {
	t.Parallel()
	smsc := newSMSC(t, behaving(smpptest.Behaviour{}))
	cfg := account(smsc.Addr())
	cfg.Roles = []Role{RoleUSSD}
	x := newBox(t, Config{Operators: []OperatorConfig{cfg}})
	x.until("the bind", func() bool { return x.Status()[0].BindsUp == 1 })
	if status, _ := smsc.SendText(within(t), "79000000001", "377", "?"); status != smpp.StatusReceiverPermanent {
		t.Errorf("got %s", status)
	}
	if x.Ready("mts") || len(x.Route("79000000001")) != 0 {
		t.Error("it is offered for SMS")
	}
}

func TestReceiptsAreGatheredIntoBatches(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	sizes := make(chan int, 1000)
	g := newGatherer(func(_ context.Context, batch []int) error {
		<-release
		sizes <- len(batch)
		return nil
	})
	g.start()
	settled := make(chan error, 1000)
	for i := range 1000 {
		if !g.offer(i, func(err error) { settled <- err }) {
			t.Fatal("refused")
		}
	}
	close(release)
	g.stop()
	if len(settled) != 1000 {
		t.Errorf("%d of 1000 are settled", len(settled))
	}
	if n := len(sizes); n > 20 {
		t.Errorf("1000 receipts took %d calls", n)
	}
}

func TestTooManyWaitingReceiptsAreRefused(t *testing.T) {
	t.Parallel()
	g := newGatherer(func(context.Context, []int) error { return nil })
	for i := range gatherWaiting {
		g.offer(i, func(error) {})
	}
	if g.offer(0, func(error) {}) || !g.crowded() {
		t.Error("more than the limit is taken")
	}
	g.start()
	g.stop()
}
