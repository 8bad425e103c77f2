package carrier

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"zvonok/gateway/smpp"
	"zvonok/gateway/smpp/smpptest"
	"zvonok/templates/gsm"
)

func TestAMessageIsAcceptedAndShownOnThePhone(t *testing.T) {
	t.Parallel()
	x, smsc := connected(t, smpptest.Behaviour{})
	message := sms(1, "79000000001", "Вход 08:15 Маша П.")
	message.Deadline = time.Now().Add(15 * time.Minute)
	r := x.send("mts", message)[1]
	if r.Class != OK || r.Operator != "mts" || r.Attempt != 1 || len(r.Parts) != 1 || r.Counted {
		t.Fatalf("got %+v", r)
	}
	shown := smsc.MessagesTo("79000000001")
	if len(shown) != 1 || shown[0].Text != message.Text || shown[0].From != "SCHOOL" ||
		shown[0].IDs[0] != r.Parts[0].MessageID {
		t.Fatalf("the phone shows %+v", shown)
	}
	if !strings.HasPrefix(shown[0].Validity, "0000000014") && !strings.HasPrefix(shown[0].Validity, "0000000015") {
		t.Errorf("validity %q", shown[0].Validity)
	}
	x.until("the receipt", func() bool { return len(x.receipts) == 1 })
	if got := x.receipts[0]; got.State != StateDelivered || got.To != "79000000001" ||
		!slices.Contains(got.Keys, r.Parts[0].Key) {
		t.Errorf("receipt %+v of part %+v", got, r.Parts[0])
	}
}

// Pain 1, fault row 19: a receipt that overtakes the answer to its message is stored like any other.
func TestAReceiptThatOvertakesTheAnswerIsStored(t *testing.T) {
	t.Parallel()
	x, _ := connected(t, smpptest.Behaviour{EarlyReceipts: 1, AnswerDelay: 20 * time.Millisecond})
	x.post("mts", batch(20)...)
	x.until("receipts", func() bool { return len(x.receipts) >= 20 })
	results := x.await(20)
	for _, r := range results {
		found := slices.ContainsFunc(x.receipts, func(got Receipt) bool { return slices.Contains(got.Keys, r.Parts[0].Key) })
		if r.Class != OK || !found {
			t.Errorf("message %d: class %s, receipt found %t", r.ID, r.Class, found)
		}
	}
}

// Pain 2, fault row 20: hexadecimal in the answer, decimal in the receipt, and ids of 71 bits.
func TestReceiptsFindTheirPartsInWhateverFormTheOperatorWritesIDs(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name       string
		sent, told smpptest.IDForm
		big        bool
		learned    IDMode
	}{
		{"hexadecimal and decimal", smpptest.Hex, smpptest.Decimal, false, IDHex},
		{"decimal and hexadecimal", smpptest.Decimal, smpptest.HexUpper, false, IDDec},
		{"decimal and padded", smpptest.Decimal, smpptest.ZeroPadded, false, IDAsIs},
		{"71 bits, hexadecimal and padded decimal", smpptest.Hex, smpptest.ZeroPadded, true, IDHex},
		{"UUID", smpptest.UUID, smpptest.UUID, false, IDAsIs},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			x, _ := connected(t, smpptest.Behaviour{ID: test.sent, ReceiptID: test.told, BigIDs: test.big})
			results := x.send("mts", batch(25)...)
			x.until("receipts", func() bool { return len(x.receipts) == 25 })
			for _, receipt := range x.receipts {
				matched := false
				for _, r := range results {
					if slices.Contains(receipt.Keys, r.Parts[0].Key) && receipt.To == number(int(r.ID)-1) {
						matched = true
						x.Learn("mts", r.Parts[0].MessageID, receipt.MessageID)
					}
				}
				if !matched {
					t.Fatalf("receipt of %s with keys %q finds no part", receipt.To.Masked(), receipt.Keys)
				}
			}
			if mode := x.Status()[0].MessageID; mode != test.learned {
				t.Errorf("learned %s, want %s", mode, test.learned)
			}
		})
	}
}

// Pain 3: a receipt that arrives on a sibling bind belongs to the account.
func TestAReceiptOnAnotherBindBelongsToTheSameOperator(t *testing.T) {
	t.Parallel()
	x, _ := connected(t, smpptest.Behaviour{ReceiptElsewhere: true}, func(c *OperatorConfig) { c.Binds = 3 })
	x.until("three binds", func() bool { return x.Status()[0].BindsUp == 3 })
	results := x.send("mts", batch(30)...)
	x.until("receipts", func() bool { return len(x.receipts) == 30 })
	for _, receipt := range x.receipts {
		if receipt.Operator != "mts" || !slices.ContainsFunc(receipt.Keys, func(key string) bool {
			for _, r := range results {
				if r.Parts[0].Key == key {
					return true
				}
			}
			return false
		}) {
			t.Errorf("receipt %q of %q", receipt.MessageID, receipt.Operator)
		}
	}
}

// Pain 4: a row and a receipt for every part.
func TestALongMessageHasARowAndAReceiptForEveryPart(t *testing.T) {
	t.Parallel()
	for _, method := range []Method{UDH8, UDH16, SAR} {
		t.Run(string(method), func(t *testing.T) {
			t.Parallel()
			x, smsc := connected(t, smpptest.Behaviour{}, func(c *OperatorConfig) { c.Concatenation = method })
			text := strings.Repeat("Баланс 143,50 р 😀 ", 12)
			r := x.send("mts", sms(1, "79000000001", text))[1]
			want := len(gsm.Split(text, method.limits()))
			if r.Class != OK || len(r.Parts) != want {
				t.Fatalf("class %s, %d parts, want %d", r.Class, len(r.Parts), want)
			}
			x.until("receipts", func() bool { return len(x.receipts) == want })
			for i, p := range r.Parts {
				if p.Number != i+1 || p.Count != want || !slices.ContainsFunc(x.receipts, func(got Receipt) bool {
					return slices.Contains(got.Keys, p.Key)
				}) {
					t.Errorf("part %+v has no receipt", p)
				}
			}
			if shown := smsc.MessagesTo("79000000001"); len(shown) != 1 || shown[0].Text != text {
				t.Errorf("the phone shows %+v", shown)
			}
		})
	}
}

func TestALongMessageGoesAsOnePayload(t *testing.T) {
	t.Parallel()
	x, smsc := connected(t, smpptest.Behaviour{}, func(c *OperatorConfig) { c.Concatenation = Payload })
	text := strings.Repeat("Баланс 143,50 р ", 12)
	r := x.send("mts", sms(1, "79000000001", text))[1]
	if shown := smsc.MessagesTo("79000000001"); r.Class != OK || len(r.Parts) != 1 || len(shown) != 1 ||
		shown[0].Text != text {
		t.Errorf("got %+v, shown %+v", r, shown)
	}
}

// Pain 22: an operator that drops or refuses one way of joining parts.
func TestAnOperatorThatForbidsHeadersGetsItsLongTextsAnotherWay(t *testing.T) {
	t.Parallel()
	smsc := script(t, func(_ int, m *smpp.Message) smpp.Status {
		if m.ESMClass&smpp.ESMClassUDHI != 0 {
			return smpp.StatusInvalidESMClass
		}
		return smpp.StatusOK
	})
	x := smsc.against(t)
	long := strings.Repeat("a", 400)
	if r := x.send("mts", sms(1, "79000000001", long))[1]; r.Class != OK || len(r.Parts) != 3 {
		t.Fatalf("got %+v", r)
	}
	tried := len(smsc.messages())
	if tried != 9 { // udh16, udh8, sar: three parts each
		t.Errorf("%d PDUs were written", tried)
	}
	x.post("mts", sms(2, "79000000001", long))
	if r := x.await(2)[2]; r.Class != OK || len(smsc.messages())-tried != 3 {
		t.Errorf("the second text took %d PDUs", len(smsc.messages())-tried)
	}
	if got := x.Status()[0].Concatenation; got != SAR {
		t.Errorf("the operator's method is %s", got)
	}
}

// Pain 7, fault row 14: a throttling storm pauses the link, keeps the order of each recipient and counts no attempt.
func TestAThrottleStormKeepsTheOrderAndCountsNothing(t *testing.T) {
	virtually(t, func(t *testing.T) {
		var mu sync.Mutex
		var accepted []string
		var storm int
		var since time.Time
		smsc := script(t, func(n int, m *smpp.Message) smpp.Status {
			mu.Lock()
			defer mu.Unlock()
			if n > 10 && since.IsZero() {
				since = time.Now()
			}
			if n > 10 && time.Since(since) < 800*time.Millisecond {
				storm++
				return smpp.StatusThrottled
			}
			accepted = append(accepted, m.Destination.Addr+" "+string(m.ShortMessage))
			return smpp.StatusOK
		})
		x := smsc.against(t)
		var all []SMS
		for i := range 60 {
			all = append(all, sms(int64(i+1), number(i%6), fmt.Sprintf("%03d", i)))
		}
		for _, r := range x.send("mts", all...) {
			if r.Class != OK || r.Counted || r.Attempt != 1 {
				t.Errorf("message %d: %+v", r.ID, r)
			}
		}
		last := map[string]string{}
		for _, line := range accepted {
			to, text, _ := strings.Cut(line, " ")
			if text <= last[to] {
				t.Errorf("to %s: %s after %s", to, text, last[to])
			}
			last[to] = text
		}
		if s := x.Status()[0]; s.Rate >= s.RateConfigured {
			t.Errorf("the rate is still %g", s.Rate)
		}
		if storm == 0 {
			t.Error("there was no storm")
		}
	})
}

func TestAFullQueueOfOneRecipientDefersOnlyThatRecipient(t *testing.T) {
	virtually(t, func(t *testing.T) {
		smsc := script(t, func(_ int, m *smpp.Message) smpp.Status {
			if m.Destination.Addr == string(number(1)) {
				return smpp.StatusQueueFull
			}
			return smpp.StatusOK
		})
		x := smsc.against(t)
		results := x.send("mts", sms(1, number(1), "a"), sms(2, number(1), "b"), sms(3, number(2), "c"))
		if r := results[1]; r.Class != QueueFull || r.RetryAfter != time.Minute || r.Counted {
			t.Errorf("the refused one: %+v", r)
		}
		if r := results[2]; r.Class != QueueFull || r.RetryAfter <= 50*time.Second || r.Counted {
			t.Errorf("the one behind it: %+v", r)
		}
		if r := results[3]; r.Class != OK {
			t.Errorf("the other recipient's: %+v", r)
		}
		x.post("mts", sms(4, number(1), "d"))
		if r := x.await(4)[4]; r.Class != QueueFull || r.RetryAfter <= 0 {
			t.Errorf("a later one: %+v", r)
		}
		for _, m := range smsc.messages() {
			if text := string(m.ShortMessage); text == "b" || text == "d" {
				t.Errorf("%q was written to a deferred recipient", text)
			}
		}
	})
}

func TestFullQueuesOfThreeRecipientsAreAThrottle(t *testing.T) {
	virtually(t, func(t *testing.T) {
		var first atomic.Int64
		smsc := script(t, func(n int, _ *smpp.Message) smpp.Status {
			first.CompareAndSwap(0, time.Now().UnixNano())
			if time.Now().UnixNano()-first.Load() < int64(500*time.Millisecond) {
				return smpp.StatusQueueFull
			}
			return smpp.StatusOK
		})
		x := smsc.against(t, func(c *OperatorConfig) { c.Window = 20 })
		results := x.send("mts", batch(20)...)
		full, ok := 0, 0
		for _, r := range results {
			switch r.Class {
			case QueueFull:
				full++
			case OK:
				ok++
			default:
				t.Errorf("message %d: %s", r.ID, r.Class)
			}
		}
		if full != 2 || ok != 18 {
			t.Errorf("%d were deferred and %d accepted after the pause", full, ok)
		}
	})
}

// Fault row 16: no retry after permanent errors, and each class blames whom it should.
func TestPermanentRefusalsGoBackAtOnce(t *testing.T) {
	t.Parallel()
	x, smsc := connected(t, smpptest.Behaviour{Refuse: map[string]smpp.Status{
		"79000001": 0x0B, "79000002": 0x0A, "79000003": 0x01, "79000004": 0x455,
	}}, func(c *OperatorConfig) { c.Prefixes = []string{"7900"} })
	results := x.send("mts", sms(1, "79000001000", "a"), sms(2, "79000002000", "a"), sms(3, "79000003000", "a"),
		sms(4, "79000004000", "a"))
	for id, want := range map[int64]Result{
		1: {Class: PermanentRecipient, NumberBad: true, Reason: "RINVDSTADR"},
		2: {Class: PermanentRoute, Failover: true, Alarm: true, Reason: "RINVSRCADR"},
		3: {Class: PermanentMessage, Alarm: true, Reason: "RINVMSGLEN"},
		4: {Class: Temporary, Alarm: true, Reason: "vendor 0x455"},
	} {
		r := results[id]
		if r.Class != want.Class || r.NumberBad != want.NumberBad || r.Failover != want.Failover || r.Alarm != want.Alarm ||
			r.Reason != want.Reason || !r.Counted {
			t.Errorf("got %+v", r)
		}
	}
	if got := smsc.Stats().Messages; got != 4 {
		t.Errorf("%d submits", got)
	}
	x.until("alarms", func() bool { return len(x.alarms) == 3 })
	for _, a := range x.alarms {
		if wantPDU := a.Class != PermanentRoute; (len(a.PDU) > 0) != wantPDU {
			t.Errorf("alarm %q has a PDU of %d octets", a.Reason, len(a.PDU))
		}
	}
}

// 0x0B of an operator that is not the number's own teaches where the number is not.
func TestAnotherOperatorsAcceptanceTeachesAPorting(t *testing.T) {
	t.Parallel()
	first := newSMSC(t, behaving(smpptest.Behaviour{Refuse: map[string]smpp.Status{"79": 0x0B}}))
	second := newSMSC(t, behaving(smpptest.Behaviour{}))
	a, b := account(first.Addr()), account(second.Addr())
	a.Name, b.Name = "a", "b"
	a.Prefixes, a.Overrides = []string{"7900"}, []Override{{Status: 0x0B, Class: PermanentRoute, Action: LearnPorted}}
	x := newBox(t, Config{Operators: []OperatorConfig{a, b}})
	x.untilReady("a")
	x.untilReady("b")
	to := number(1)
	if got := x.Route(to); !slices.Equal(got, []string{"a", "b"}) {
		t.Fatalf("route %v", got)
	}
	if r := x.send("a", sms(1, to, "x"))[1]; r.Class != PermanentRoute || !r.Failover || r.NumberBad {
		t.Fatalf("got %+v", r)
	}
	x.post("b", sms(2, to, "x"))
	x.await(2)
	x.until("the porting", func() bool { return len(x.ported) == 2 })
	if got := x.Route(to); !slices.Equal(got, []string{"b", "a"}) || x.ported[0].Not != "a" || x.ported[1].Operator != "b" {
		t.Errorf("route %v, learned %+v", got, x.ported)
	}
}

// Pain 8, pain 18, fault row 17: an answer after our timeout still counts, and nothing was sent twice.
func TestALateAnswerIsStillHonoured(t *testing.T) {
	virtually(t, func(t *testing.T) {
		x, smsc := connected(t, smpptest.Behaviour{AnswerDelay: 600 * time.Millisecond}, func(c *OperatorConfig) {
			c.ResponseTimeout = 150 * time.Millisecond
		})
		r := x.send("mts", sms(1, number(1), "a"))[1]
		if r.Class != Unknown || !r.Counted || r.Failover || !r.Parts[0].Written || r.Parts[0].Answered {
			t.Fatalf("got %+v", r)
		}
		x.until("the late answer", func() bool { return len(x.late) == 1 })
		if late := x.late[0]; late.ID != 1 || late.Class != OK || late.Parts[0].MessageID == "" {
			t.Errorf("late: %+v", late)
		}
		if got := smsc.Stats().Messages; got != 1 {
			t.Errorf("%d submits", got)
		}
	})
}

func TestALateRefusalSaysThatNothingWasSent(t *testing.T) {
	virtually(t, func(t *testing.T) {
		x, _ := connected(t, smpptest.Behaviour{
			AnswerDelay: 500 * time.Millisecond, Refuse: map[string]smpp.Status{"79": smpp.StatusSystemError},
		}, func(c *OperatorConfig) { c.ResponseTimeout = 150 * time.Millisecond })
		if r := x.send("mts", sms(1, number(1), "a"))[1]; r.Class != Unknown {
			t.Fatalf("got %+v", r)
		}
		x.until("the late answer", func() bool { return len(x.late) == 1 })
		if late := x.late[0]; late.Class != Temporary || late.RetryAfter == 0 {
			t.Errorf("late: %+v", late)
		}
	})
}

// Pain 8: a lost connection leaves what was written unknown and what was not in the queue; nothing is sent twice.
func TestALostConnectionLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	seen := map[string]int{}
	cfg := behaving(smpptest.Behaviour{DropEvery: 40, AnswerDelay: 2 * time.Millisecond})
	cfg.OnMessage = func(m *smpp.Message, _ smpp.Status) {
		mu.Lock()
		defer mu.Unlock()
		seen[m.Destination.Addr]++
	}
	smsc := newSMSC(t, cfg)
	operator := account(smsc.Addr())
	operator.Binds, operator.Window = 2, 10
	x := newBox(t, Config{Operators: []OperatorConfig{operator}})
	x.untilReady("mts")
	const n = 150
	x.post("mts", batch(n)...)
	ok, unknown := 0, 0
	for _, r := range x.await(n) {
		switch r.Class {
		case OK:
			ok++
		case Unknown:
			unknown++
		default:
			t.Errorf("message %d: %s %s", r.ID, r.Class, r.Reason)
		}
	}
	if unknown == 0 || ok+unknown != n {
		t.Errorf("%d accepted, %d unknown", ok, unknown)
	}
	mu.Lock()
	defer mu.Unlock()
	for to, times := range seen {
		if times > 1 {
			t.Errorf("%s was written %d times", to, times)
		}
	}
}

// Fault row 12, pain 12: one operator that answers slowly does not delay another.
func TestASlowOperatorDelaysNoOther(t *testing.T) {
	virtually(t, func(t *testing.T) {
		_, a := operatorOf(t, smpptest.Behaviour{Silence: 1})
		_, b := operatorOf(t, smpptest.Behaviour{})
		a.Name, b.Name, a.Window, a.QueueLimit = "slow", "quick", 5, 5
		x := newBox(t, Config{Operators: []OperatorConfig{a, b}})
		x.untilReady("slow")
		x.untilReady("quick")
		ctx, cancel := context.WithCancel(context.Background())
		blocked := make(chan error, 1)
		go func() {
			blocked <- x.Send(ctx, "slow", batch(50), func(Result) {})
		}()
		start := time.Now()
		for _, r := range x.send("quick", batch(200)...) {
			if r.Class != OK {
				t.Errorf("message %d: %s", r.ID, r.Class)
			}
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("200 messages took %s", took)
		}
		cancel()
		if err := <-blocked; !errors.Is(err, context.Canceled) {
			t.Errorf("the blocked caller got %v", err)
		}
	})
}

func TestSendWaitsWhileTheQueueIsFullAndGivesBackWhatItDidNotTake(t *testing.T) {
	virtually(t, func(t *testing.T) {
		x, _ := connected(t, smpptest.Behaviour{Silence: 1}, func(c *OperatorConfig) { c.Window, c.QueueLimit = 2, 10 })
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		if err := x.Send(ctx, "mts", batch(30), x.note); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		results := x.await(20)
		for id := int64(11); id <= 30; id++ {
			if r := results[id]; r.Class != NeverWritten || r.Counted {
				t.Errorf("message %d: %+v", id, r)
			}
		}
		if s := x.Status()[0]; s.Queue != 8 || s.WindowUsed != 2 {
			t.Errorf("%d wait, %d in the window", s.Queue, s.WindowUsed)
		}
	})
}

// Fault row 15: system errors open the circuit; what waits goes back for another route, and few submits are lost.
func TestSystemErrorsOpenTheCircuit(t *testing.T) {
	t.Parallel()
	x, smsc := connected(t, smpptest.Behaviour{Errors: 1}, func(c *OperatorConfig) { c.Window = 2 })
	results := x.send("mts", batch(60)...)
	var refused, back int
	for _, r := range results {
		switch {
		case r.Class == Temporary:
			refused++
		case r.Class == NeverWritten && r.Failover && !r.Counted && r.RetryAfter > 0:
			back++
		default:
			t.Errorf("message %d: %+v", r.ID, r)
		}
	}
	if refused < 5 || refused > 7 || refused+back != 60 {
		t.Errorf("%d refused, %d given back", refused, back)
	}
	if x.Ready("mts") {
		t.Error("the operator is called ready")
	}
	if got := smsc.Stats().Messages; got > 7 {
		t.Errorf("%d submits to a failing operator", got)
	}
	if s := x.Status()[0]; !s.CircuitOpen || s.LimitedBy != LimitOperator {
		t.Errorf("status %+v", s)
	}
}

// Rows 0x02, 0x03: three in a row rebind; row 0x04 rebinds at once and leaves the message.
func TestASessionOutOfStepIsBoundAgain(t *testing.T) {
	t.Parallel()
	t.Run("three unreadable commands in a row", func(t *testing.T) {
		t.Parallel()
		smsc := script(t, func(n int, _ *smpp.Message) smpp.Status {
			if n <= 3 {
				return smpp.StatusInvalidCommandID
			}
			return smpp.StatusOK
		})
		x := smsc.against(t)
		for id := int64(1); id <= 3; id++ {
			x.post("mts", sms(id, number(int(id)), "a"))
			if r := x.await(int(id))[id]; r.Class != PermanentMessage {
				t.Fatalf("got %+v", r)
			}
		}
		x.until("the loss and the return of the link", func() bool { return len(x.ups) == 3 })
		x.post("mts", sms(4, number(4), "a"))
		if r := x.await(4)[4]; r.Class != OK {
			t.Errorf("got %+v", r)
		}
	})
	t.Run("wrong bind state", func(t *testing.T) {
		t.Parallel()
		smsc := script(t, func(n int, _ *smpp.Message) smpp.Status {
			if n == 1 {
				return smpp.StatusInvalidBindStatus
			}
			return smpp.StatusOK
		})
		x := smsc.against(t)
		if r := x.send("mts", sms(1, number(1), "a"))[1]; r.Class != OK || r.Attempt != 1 {
			t.Errorf("got %+v", r)
		}
		x.until("the loss and the return of the link", func() bool { return len(x.ups) == 3 })
	})
}

func TestExpiredMessagesAreGivenBackUnsent(t *testing.T) {
	t.Parallel()
	x, smsc := connected(t, smpptest.Behaviour{})
	old := sms(1, number(1), "a")
	old.Deadline = time.Now().Add(-time.Second)
	results := x.send("mts", old, sms(2, number(1), "b"))
	if r := results[1]; r.Class != Stale || r.Counted {
		t.Errorf("got %+v", r)
	}
	if shown := smsc.Messages(); results[2].Class != OK || len(shown) != 1 || shown[0].Text != "b" {
		t.Errorf("shown: %+v", shown)
	}
}

func TestTheWindowIsNeverExceeded(t *testing.T) {
	virtually(t, func(t *testing.T) {
		x, smsc := connected(t, smpptest.Behaviour{AnswerDelay: 5 * time.Millisecond},
			func(c *OperatorConfig) { c.Window, c.Binds = 4, 2 })
		x.until("two binds", func() bool { return x.Status()[0].BindsUp == 2 })
		x.post("mts", batch(200)...)
		most := 0
		x.until("all results", func() bool {
			for _, s := range smsc.Sessions("") {
				most = max(most, s.Snapshot().InboundPending)
			}
			return len(x.results) == 200
		})
		if most > 4 {
			t.Errorf("%d submits were out on one bind", most)
		}
	})
}

// Pain 6, fault row "refused/submitted": the operator counts parts as we do and refuses none.
func TestTheConfiguredRateIsKeptInParts(t *testing.T) {
	virtually(t, func(t *testing.T) {
		x, smsc := connected(t, smpptest.Behaviour{Rate: 120}, func(c *OperatorConfig) { c.Rate = 100 })
		var all []SMS
		for i := range 60 {
			all = append(all, sms(int64(i+1), number(i), strings.Repeat("a", 400)))
		}
		start := time.Now()
		for _, r := range x.send("mts", all...) {
			if r.Class != OK {
				t.Errorf("message %d: %s", r.ID, r.Class)
			}
		}
		if took := time.Since(start); took < 1700*time.Millisecond {
			t.Errorf("180 parts at 100/s took %s", took)
		}
		if refused := smsc.Stats().Refused[smpp.StatusThrottled]; refused != 0 {
			t.Errorf("%d parts were refused", refused)
		}
	})
}

// Pain 20, fault row 3: an orderly stop writes nothing new, waits for answers, unbinds, and settles everything once.
func TestStoppingSettlesEverythingAndUnbinds(t *testing.T) {
	t.Parallel()
	smsc := newSMSC(t, behaving(smpptest.Behaviour{AnswerDelay: 100 * time.Millisecond}))
	operator := account(smsc.Addr())
	operator.Window = 10
	x, err := New(Config{Operators: []OperatorConfig{operator}})
	if err != nil {
		t.Fatal(err)
	}
	x.Start()
	b := &box{Exchange: x, t: t, changed: make(chan struct{})}
	b.untilReady("mts")
	b.post("mts", batch(50)...)
	b.until("some answers", func() bool { return len(b.results) > 0 })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := x.Stop(ctx); err != nil {
		t.Errorf("stop: %v", err)
	}
	var ok, back int
	for _, r := range b.await(50) {
		switch {
		case r.Class == OK:
			ok++
		case r.Class == NeverWritten && !r.Failover && r.Reason == "stopping":
			back++
		default:
			t.Errorf("message %d: %+v", r.ID, r)
		}
	}
	if ok == 0 || back == 0 || uint64(ok) != smsc.Stats().Accepted {
		t.Errorf("%d accepted, %d given back, the operator has %d", ok, back, smsc.Stats().Accepted)
	}
	b.until("the operator to see the unbind", func() bool { return len(smsc.Sessions("")) == 0 })
	if err := x.Send(context.Background(), "mts", batch(1), func(r Result) {
		if r.Class != NeverWritten {
			t.Errorf("after the stop: %+v", r)
		}
	}); err != nil {
		t.Error(err)
	}
}

func TestAnUnknownOperatorGivesEverythingBack(t *testing.T) {
	t.Parallel()
	x := newBox(t, Config{})
	var got []Result
	err := x.Send(context.Background(), "nobody", batch(2), func(r Result) { got = append(got, r) })
	if !errors.Is(err, ErrUnknownOperator) || len(got) != 2 || got[0].Class != NeverWritten || !got[0].Failover {
		t.Errorf("got %v, %+v", err, got)
	}
	if x.Ready("nobody") {
		t.Error("it is called ready")
	}
}

func TestAPairOfBindsSendsByOneAndReceivesByTheOther(t *testing.T) {
	t.Parallel()
	x, smsc := connected(t, smpptest.Behaviour{}, func(c *OperatorConfig) { c.Pair, c.Binds = true, 2 })
	x.until("four sessions", func() bool { return len(smsc.Sessions("")) == 4 && x.Status()[0].BindsUp == 4 })
	for _, r := range x.send("mts", batch(20)...) {
		if r.Class != OK {
			t.Errorf("message %d: %s", r.ID, r.Class)
		}
	}
	x.until("receipts", func() bool { return len(x.receipts) == 20 })
	if s := x.Status()[0]; s.Binds != 4 || s.Window != 100 {
		t.Errorf("status %+v", s)
	}
}

func TestWrongSettingsNameTheKeyAndWhatIsAllowed(t *testing.T) {
	t.Parallel()
	for key, change := range map[string]func(*OperatorConfig){
		"name":             func(c *OperatorConfig) { c.Name = "" },
		"mode":             func(c *OperatorConfig) { c.Mode = "both" },
		"address":          func(c *OperatorConfig) { c.Address = "nowhere" },
		"system_id":        func(c *OperatorConfig) { c.SystemID = "longer than fifteen" },
		"password":         func(c *OperatorConfig) { c.Password = "ninechars" },
		"binds":            func(c *OperatorConfig) { c.Binds = 51 },
		"window":           func(c *OperatorConfig) { c.Window = -1 },
		"rate":             func(c *OperatorConfig) { c.Rate = -1 },
		"roles":            func(c *OperatorConfig) { c.Roles = []Role{"fax"} },
		"prefixes":         func(c *OperatorConfig) { c.Prefixes = []string{"+7910"} },
		"weight":           func(c *OperatorConfig) { c.Weight = -1 },
		"source":           func(c *OperatorConfig) { c.Source = "ШКОЛА" },
		"message_id":       func(c *OperatorConfig) { c.MessageID = "oct" },
		"concatenation":    func(c *OperatorConfig) { c.Concatenation = "udh" },
		"network_errors":   func(c *OperatorConfig) { c.NetworkErrors = map[string]Class{"1": OK} },
		"status 0x00":      func(c *OperatorConfig) { c.Overrides = []Override{{Class: OK}} },
		"service_type":     func(c *OperatorConfig) { c.ServiceType = "TOOLONG" },
		"configured twice": nil,
	} {
		c := account("127.0.0.1:2775")
		operators := []OperatorConfig{c, c}
		if change != nil {
			change(&c)
			operators = []OperatorConfig{c}
		}
		if _, err := New(Config{Operators: operators}); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: got %v", key, err)
		}
	}
}

// Row generic_nack with our number: believed about speed, otherwise our PDU is at fault.
func TestAGenericNackWithOurNumberSettlesItsMessage(t *testing.T) {
	t.Parallel()
	x, _ := connected(t, smpptest.Behaviour{Nacks: 1, NackStatus: smpp.StatusInvalidCommandID})
	if r := x.send("mts", sms(1, number(1), "a"))[1]; r.Class != PermanentMessage || !r.Alarm || !r.Parts[0].Answered {
		t.Errorf("got %+v", r)
	}
}

// rawPeer is an SMSC of which a test writes every octet: it accepts one bind after another and hands each frame that
// follows to react, whose octets it sends back.
func rawPeer(t *testing.T, react func(smpp.Header) []byte) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var peers sync.WaitGroup
	t.Cleanup(func() { listener.Close(); peers.Wait() })
	peers.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			peers.Go(func() {
				defer conn.Close()
				frames := smpp.NewFrameReader(conn, smpp.MaxPDU)
				for {
					frame, err := frames.Next()
					if err != nil {
						return
					}
					h := smpp.ParseHeader(frame)
					var answer []byte
					switch h.Command {
					case smpp.CmdBindTransceiver:
						answer, _ = smpp.Append(nil, h.Sequence, 0, &smpp.BindResp{SystemID: "raw"})
					case smpp.CmdUnbind, smpp.CmdEnquireLink:
						answer, _ = smpp.Append(nil, h.Sequence, 0, &smpp.Plain{Command: h.Command.Response()})
					default:
						answer = react(h)
					}
					if _, err := conn.Write(answer); err != nil {
						return
					}
				}
			})
		}
	})
	return listener.Addr().String()
}

// Row generic_nack without a number: the session is bound again, and what was out is unknown.
func TestAGenericNackWithoutANumberBindsAgain(t *testing.T) {
	t.Parallel()
	var submits atomic.Int64
	address := rawPeer(t, func(h smpp.Header) []byte {
		if submits.Add(1) == 1 {
			nack, _ := smpp.Append(nil, 0, smpp.StatusInvalidCommandLength, &smpp.Plain{Command: smpp.CmdGenericNack})
			return nack
		}
		answer, _ := smpp.Append(nil, h.Sequence, 0, &smpp.MessageResp{Command: h.Command.Response(), MessageID: "1"})
		return answer
	})
	x := newBox(t, Config{Operators: []OperatorConfig{account(address)}})
	x.untilReady("mts")
	if r := x.send("mts", sms(1, number(1), "a"))[1]; r.Class != Unknown {
		t.Errorf("got %+v", r)
	}
	x.until("the loss and the return of the link", func() bool { return len(x.ups) == 3 })
	x.post("mts", sms(2, number(1), "a"))
	if r := x.await(2)[2]; r.Class != OK {
		t.Errorf("got %+v", r)
	}
}

// Row 0x00 without message_id: accepted, without a receipt to match.
func TestAnAnswerWithoutAnIDIsAccepted(t *testing.T) {
	t.Parallel()
	address := rawPeer(t, func(h smpp.Header) []byte {
		answer, _ := smpp.Append(nil, h.Sequence, 0, &smpp.MessageResp{Command: h.Command.Response(), NoBody: true})
		return answer
	})
	x := newBox(t, Config{Operators: []OperatorConfig{account(address)}})
	x.untilReady("mts")
	if r := x.send("mts", sms(1, number(1), "a"))[1]; r.Class != OK || r.Parts[0].Key != "" || r.Parts[0].MessageID != "" {
		t.Errorf("got %+v", r)
	}
}

// Pain 16: senseless PDUs and split frames cost nothing.
func TestSenselessPDUsInBetweenCostNothing(t *testing.T) {
	t.Parallel()
	x, _ := connected(t, smpptest.Behaviour{Garbage: 0.3, SplitFrames: true})
	for _, r := range x.send("mts", batch(50)...) {
		if r.Class != OK {
			t.Errorf("message %d: %s", r.ID, r.Class)
		}
	}
	x.until("receipts and an alarm", func() bool { return len(x.receipts) == 50 && len(x.alarms) > 0 })
	if len(x.ups) != 1 {
		t.Errorf("the link went up and down: %v", x.ups)
	}
}

func BenchmarkExchange(b *testing.B) {
	smsc, err := smpptest.Start(smpptest.Config{OperatorConfig: smpptest.OperatorConfig{Keep: -1}})
	if err != nil {
		b.Fatal(err)
	}
	defer smsc.Close(context.Background())
	cfg := account(smsc.Addr())
	cfg.Rate, cfg.Window, cfg.Binds, cfg.QueueLimit, cfg.Roles = 1e9, 200, 2, 2000, []Role{RoleSMS}
	x, err := New(Config{
		Operators: []OperatorConfig{cfg},
		Receipts:  func(context.Context, []Receipt) error { return nil },
	})
	if err != nil {
		b.Fatal(err)
	}
	x.Start()
	for !x.Ready("mts") || x.Status()[0].BindsUp < 2 {
		time.Sleep(time.Millisecond)
	}
	all := make([]SMS, 500)
	for i := range all {
		all[i] = SMS{To: number(i), Text: "Вход 08:15 Маша П. Баланс 143,50 р", Deadline: time.Now().Add(time.Hour)}
	}
	var done sync.WaitGroup
	done.Add(b.N)
	b.ReportAllocs()
	b.ResetTimer()
	for left := b.N; left > 0; left -= len(all) {
		_ = x.Send(context.Background(), "mts", all[:min(left, len(all))], func(r Result) {
			if r.Class != OK {
				b.Errorf("got %s %s", r.Class, r.Reason)
			}
			done.Done()
		})
	}
	done.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
	_ = x.Stop(context.Background())
}
