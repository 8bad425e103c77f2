package delivery_test

import (
	"context"
	"testing"
	"time"

	"github.com/riverqueue/river"

	"zvonok/gateway/delivery"
	"zvonok/gateway/smpp/smpptest"
)

func (b *bench) recall(f delivery.Filter) delivery.RecallReport {
	b.t.Helper()
	report, err := delivery.Recall(context.Background(), b.pool, b.exchange, f, time.Now())
	if err != nil {
		b.t.Fatal(err)
	}
	return report
}

func TestARecallStopsWhatWaitsAndNothingElse(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		filter  delivery.Filter
		stopped int
	}{
		"one topic":             {delivery.Filter{Topic: "topup"}, 2},
		"one organisation":      {delivery.Filter{Organisation: 7}, 3},
		"both":                  {delivery.Filter{Topic: "topup", Organisation: 7}, 1},
		"an operator":           {delivery.Filter{Operator: "box1"}, 5},
		"another operator":      {delivery.Filter{Operator: "box2"}, 0},
		"since a later moment":  {delivery.Filter{Since: time.Now().Add(time.Hour)}, 0},
		"everything of the day": {delivery.Filter{}, 5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, smpptest.Behaviour{})
			var drafts []delivery.Draft
			for n := range 5 {
				d := draft(n)
				if n%2 == 1 {
					d.Topic = "topup"
				}
				d.Organisation = 8
				if n < 3 {
					d.Organisation = 7
				}
				drafts = append(drafts, d)
			}
			b.enqueue(drafts...)
			report := b.recall(test.filter)
			if report != (delivery.RecallReport{Stopped: test.stopped}) {
				t.Errorf("report %+v, want %d stopped", report, test.stopped)
			}
			b.start()
			b.awaitDelivered(5 - test.stopped)
			if n := len(b.boxes[0].Messages()); n != 5-test.stopped {
				t.Errorf("the operator got %d messages, want %d", n, 5-test.stopped)
			}
		})
	}
}

func TestARecallCancelsWhatTheOperatorStillHolds(t *testing.T) {
	t.Parallel()
	b := setup(t, smpptest.Behaviour{ReceiptDelay: time.Hour})
	b.start()
	b.enqueue(draft(1), draft(2), draft(3))
	b.await("the messages at the operator", func() bool { return b.states()[delivery.Sent] == 3 })
	if report := b.recall(delivery.Filter{Topic: "pass"}); report != (delivery.RecallReport{Cancelled: 3}) {
		t.Errorf("report %+v, want three cancelled", report)
	}
	if states := b.states(); states[delivery.Recalled] != 3 {
		t.Errorf("deliveries are %v", states)
	}
	if report := b.recall(delivery.Filter{Topic: "pass"}); report != (delivery.RecallReport{}) {
		t.Errorf("the second recall reports %+v, want nothing", report)
	}
}

func TestARecallSaysHowManyHadLeft(t *testing.T) {
	t.Parallel()
	b := setup(t, smpptest.Behaviour{})
	b.start()
	b.enqueue(draft(1), draft(2))
	b.awaitDelivered(2)
	if report := b.recall(delivery.Filter{}); report != (delivery.RecallReport{Left: 2}) {
		t.Errorf("report %+v, want two that had left", report)
	}
}

// Issue 7, item 6: stopped within a second, however long the recall takes to go through what waits.
func TestNothingLeavesWhileARecallGoesThroughWhatWaits(t *testing.T) {
	t.Parallel()
	b := setup(t, smpptest.Behaviour{})
	slow, err := b.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Rollback(context.WithoutCancel(t.Context()))
	if _, err := slow.Exec(t.Context(), `SELECT pg_advisory_xact_lock(hashtextextended('zvonok recall', 0))`); err != nil {
		t.Fatal(err)
	}
	b.start()
	b.enqueue(draft(1), draft(2), draft(3))
	b.await("the sender at the brake", func() bool {
		var waits bool
		if err := b.pool.QueryRow(t.Context(), `SELECT EXISTS (
			SELECT FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database
			WHERE d.datname = current_database() AND l.locktype = 'advisory' AND NOT l.granted)`).Scan(&waits); err != nil {
			t.Fatal(err)
		}
		return waits
	})
	if _, err := slow.Exec(t.Context(), `UPDATE delivery.delivery SET state = 'recalled' WHERE state = 'queued'`); err != nil {
		t.Fatal(err)
	}
	if err := slow.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.await("the jobs", func() bool {
		var left int
		if err := b.pool.QueryRow(t.Context(), `SELECT count(*) FROM river.river_job WHERE state <> 'completed'`).Scan(&left); err != nil {
			t.Fatal(err)
		}
		return left == 0
	})
	if states := b.states(); states[delivery.Recalled] != 3 {
		t.Errorf("deliveries are %v", states)
	}
	if n := len(b.boxes[0].Messages()); n != 0 {
		t.Errorf("%d messages left", n)
	}
}

func TestAnUnknownOutcomeThatWasRecalledIsNotSentAgain(t *testing.T) {
	t.Parallel()
	b := setup(t, smpptest.Behaviour{Swallow: 1})
	b.start()
	stored := b.enqueue(draft(1))
	b.await("the outcome", func() bool { return b.states()[delivery.Unknown] == 1 })
	if report := b.recall(delivery.Filter{}); report != (delivery.RecallReport{Left: 1}) {
		t.Errorf("report %+v, want one that may have left", report)
	}
	job, err := b.insert.Insert(t.Context(), delivery.ResolveArgs{At: stored[0].At, IDs: []delivery.ID{stored[0].ID}},
		&river.InsertOpts{Queue: delivery.ResolveQueue})
	if err != nil {
		t.Fatal(err)
	}
	b.await("the resolver", func() bool {
		var state string
		if err := b.pool.QueryRow(t.Context(), `SELECT state FROM river.river_job WHERE id = $1`, job.Job.ID).Scan(&state); err != nil {
			t.Fatal(err)
		}
		return state == "completed"
	})
	if states := b.states(); states[delivery.Unknown] != 1 {
		t.Errorf("deliveries are %v, want it to stay unknown", states)
	}
}

// BenchmarkRecall stops twenty thousand waiting messages.
func BenchmarkRecall(b *testing.B) {
	bench := setup(b, smpptest.Behaviour{})
	drafts := make([]delivery.Draft, 20_000)
	for i := range drafts {
		drafts[i] = draft(i)
	}
	for range b.N {
		b.StopTimer()
		bench.enqueue(drafts...)
		b.StartTimer()
		if report := bench.recall(delivery.Filter{Topic: "pass"}); report.Stopped != len(drafts) {
			b.Fatalf("report %+v", report)
		}
	}
}
