package delivery_test

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"zvonok/gateway/carrier"
	"zvonok/gateway/delivery"
	"zvonok/gateway/smpp/smpptest"
)

// smpp.md, Receipts: UNKNOWN is kept 24 h, then there is no proof; so is what was
// on its way and of which nothing more was heard. A final receipt settles a
// message at any time.
func TestAMessageWithoutAProofIsClosedADayAfterTheLastWord(t *testing.T) {
	t.Parallel()
	type said struct {
		after time.Duration
		state carrier.ReceiptState
	}
	const hour = time.Hour
	for name, test := range map[string]struct {
		said           []said
		before, closed delivery.State // 1 s before and at 24 h after the last news
		reason         string
		at             time.Duration // of the close; 24 h when zero
	}{
		"UNKNOWN":                     {said: []said{{0, carrier.StateUnknown}}, before: delivery.Sent, closed: delivery.Unproved, reason: "receipt unknown"},
		"ENROUTE":                     {said: []said{{0, carrier.StateEnroute}}, before: delivery.Sent, closed: delivery.Unproved, reason: "receipt enroute"},
		"ACCEPTD":                     {said: []said{{0, carrier.StateAccepted}}, before: delivery.Sent, closed: delivery.Unproved, reason: "receipt enroute"},
		"UNKNOWN again and again":     {said: []said{{0, carrier.StateUnknown}, {20 * hour, carrier.StateUnknown}}, before: delivery.Sent, closed: delivery.Unproved, reason: "receipt unknown"},
		"UNKNOWN after ENROUTE":       {said: []said{{0, carrier.StateEnroute}, {20 * hour, carrier.StateUnknown}}, before: delivery.Sent, closed: delivery.Unproved, reason: "receipt enroute"},
		"ENROUTE after UNKNOWN":       {said: []said{{0, carrier.StateUnknown}, {20 * hour, carrier.StateEnroute}}, before: delivery.Sent, closed: delivery.Unproved, reason: "receipt enroute", at: 44 * hour},
		"DELIVRD after UNKNOWN":       {said: []said{{0, carrier.StateUnknown}, {20 * hour, carrier.StateDelivered}}, before: delivery.Delivered, closed: delivery.Delivered},
		"UNKNOWN after DELIVRD":       {said: []said{{0, carrier.StateDelivered}, {hour, carrier.StateUnknown}}, before: delivery.Delivered, closed: delivery.Delivered},
		"UNDELIV after UNKNOWN":       {said: []said{{0, carrier.StateUnknown}, {hour, carrier.StateUndeliverable}}, before: delivery.Failed, closed: delivery.Failed, reason: "receipt undelivered"},
		"UNKNOWN after the message's": {said: []said{{30 * hour, carrier.StateUnknown}}, before: delivery.Sent, closed: delivery.Unproved, reason: "receipt unknown", at: 54 * hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, smpptest.Behaviour{LostReceipts: 1})
			b.start()
			b.enqueue(draft(1))
			b.await("the answer", func() bool { return b.states()[delivery.Sent] == 1 })
			var id string
			if err := b.pool.QueryRow(t.Context(), `SELECT message_id FROM delivery.part`).Scan(&id); err != nil {
				t.Fatal(err)
			}
			began, ahead := time.Now(), time.Duration(0)
			receipts := delivery.NewReceipts(delivery.ReceiptsConfig{
				Pool: b.pool, Desk: b.desk, Metrics: delivery.NewMetrics(prometheus.NewPedanticRegistry(), []string{"box1"}),
				Now:   func() time.Time { return began.Add(ahead) },
				Learn: func(string, string, string) {}, Delivered: func(string, string, bool) {},
			})
			say := func(s carrier.ReceiptState) {
				err := receipts.Store(context.Background(), []carrier.Receipt{{
					Operator: "box1", MessageID: id, Keys: []string{carrier.CanonicalID(id)}, State: s, To: "79000000001",
				}})
				if err != nil {
					t.Fatal(err)
				}
			}
			stands := func(when string, want delivery.State, reason string) {
				t.Helper()
				if err := receipts.SweepDoubts(t.Context()); err != nil {
					t.Fatal(err)
				}
				var state delivery.State
				var got string
				if err := b.pool.QueryRow(t.Context(), `SELECT state, coalesce(reason, '') FROM delivery.delivery`).Scan(&state, &got); err != nil {
					t.Fatal(err)
				}
				if state != want || got != reason {
					t.Errorf("%s it is %s, %q; want %s, %q", when, state, got, want, reason)
				}
			}
			for _, s := range test.said {
				ahead = s.after
				say(s.state)
			}
			at := test.at
			if at == 0 {
				at = 24 * hour
			}
			reason := ""
			if test.before == test.closed {
				reason = test.reason
			}
			ahead = at - time.Second
			stands("before its time", test.before, reason)
			ahead = at
			stands("when its time is over", test.closed, test.reason)
			if test.closed != delivery.Unproved {
				return
			}
			// A proof is a proof, however late.
			ahead = at + hour
			say(carrier.StateDelivered)
			stands("with a late proof", delivery.Delivered, "")
			var doubts int
			if err := b.pool.QueryRow(t.Context(), `SELECT count(*) FROM delivery.doubt`).Scan(&doubts); err != nil || doubts != 0 {
				t.Errorf("%d doubts are left, %v", doubts, err)
			}
		})
	}
}

// A long message of which one part is lost and another unheard of is lost.
func TestAMessageOfWhichAPartIsLostAndAnotherUnknownHasFailed(t *testing.T) {
	t.Parallel()
	b := setup(t, smpptest.Behaviour{LostReceipts: 1})
	b.start()
	long := draft(1)
	for len([]rune(long.Body)) < 100 {
		long.Body += " и ещё"
	}
	b.enqueue(long)
	b.await("the answers", func() bool { return b.states()[delivery.Sent] == 1 })
	for i, state := range []carrier.ReceiptState{carrier.StateUndeliverable, carrier.StateUnknown} {
		var id string
		if err := b.pool.QueryRow(t.Context(), `SELECT message_id FROM delivery.part WHERE number = $1`, i+1).Scan(&id); err != nil {
			t.Fatal(err)
		}
		if err := b.receipts.Store(t.Context(), []carrier.Receipt{{
			Operator: "box1", MessageID: id, Keys: []string{carrier.CanonicalID(id)}, State: state, To: "79000000001",
		}}); err != nil {
			t.Fatal(err)
		}
	}
	later := delivery.NewReceipts(delivery.ReceiptsConfig{
		Pool: b.pool, Desk: b.desk, Metrics: b.metrics, Now: func() time.Time { return time.Now().Add(25 * time.Hour) },
	})
	if err := later.SweepDoubts(t.Context()); err != nil {
		t.Fatal(err)
	}
	if states := b.states(); states[delivery.Failed] != 1 {
		t.Errorf("got %v", states)
	}
}
