package delivery_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"zvonok/gateway/carrier"
	"zvonok/gateway/delivery"
	"zvonok/gateway/smpp/smpptest"
	"zvonok/ledger/pg"
	"zvonok/ledger/pg/pgtest"
)

// member is one of several processes on one database that share an operator.
type member struct{ sender *delivery.Sender }

// join starts a process with a bind of its own to the operator "mts" and a share of its rate.
func join(t *testing.T, b *bench, name, address string, rate float64, window int) *member {
	t.Helper()
	m := &member{}
	log := slog.New(slog.DiscardHandler)
	exchange, err := carrier.New(carrier.Config{
		Operators: []carrier.OperatorConfig{{
			Name: "mts", Address: address, SystemID: "school", Password: "secret", Window: window, Rate: rate,
		}},
		Receipts:    func(context.Context, []carrier.Receipt) error { return nil },
		LinkChanged: func(operator string, up bool) { m.sender.LinkChanged(operator, up) }, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	b.desk = delivery.NewDesk(b.insert, exchange.Route)
	m.sender = delivery.NewSender(delivery.SenderConfig{
		Pool: b.pool, Desk: b.desk, Exchange: exchange, Operators: []string{"mts"}, Process: name, Log: log, Now: time.Now,
		Metrics: delivery.NewMetrics(prometheus.NewPedanticRegistry(), []string{"mts"}),
	})
	workers := river.NewWorkers()
	m.sender.Register(workers)
	client, err := river.NewClient(riverpgxv5.New(b.pool), &river.Config{
		ID: name, Schema: pg.RiverSchema, Workers: workers, Queues: m.sender.Queues(), Logger: log,
		FetchCooldown: 10 * time.Millisecond, FetchPollInterval: 50 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	m.sender.Follow(client)
	m.sender.Start()
	exchange.Start()
	if err := client.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		m.sender.Drain()
		_ = client.Stop(ctx)
		_ = exchange.Stop(ctx)
		m.sender.Stop()
	})
	return m
}

// Fault row 41 and smpp.md: a process that has fetched a whole burst claims no
// more than it can send in two seconds, and one that comes to have a link takes
// half of the rest off it. Each message goes out once.
func TestTwoProcessesShareABurstThatOneHasFetched(t *testing.T) {
	t.Parallel()
	const (
		messages = 1024
		rate     = 60 // of each process
		window   = 10
	)
	smsc, err := smpptest.Start(smpptest.Config{
		OperatorConfig: smpptest.OperatorConfig{Behaviour: smpptest.Behaviour{LostReceipts: 1}}, SystemID: "school", Password: "secret",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = smsc.Close(context.Background()) })
	b := &bench{t: t, pool: pgtest.New(t)}
	if b.insert, err = river.NewClient(riverpgxv5.New(b.pool), &river.Config{Schema: pg.RiverSchema}); err != nil {
		t.Fatal(err)
	}
	first := join(t, b, "first", smsc.Addr(), rate, window)
	drafts := make([]delivery.Draft, messages)
	for i := range drafts {
		drafts[i] = draft(i)
		drafts[i].Expires = time.Now().Add(time.Hour)
	}
	b.enqueue(drafts...)
	count := func(sql string) (n int) {
		t.Helper()
		if err := b.pool.QueryRow(t.Context(), sql).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	b.await("the first process to have every job", func() bool {
		return count(`SELECT count(*) FROM river.river_job WHERE state <> 'running' AND kind = 'sms'`) == 0 && b.states()[delivery.Sent] > 0
	})
	second := join(t, b, "second", smsc.Addr(), rate, window)
	both := func(string) bool { return true }
	claimed := 0
	b.await("every message to be sent", func() bool {
		for _, m := range []*member{first, second} {
			if err := m.sender.Share(t.Context(), both); err != nil {
				t.Fatal(err)
			}
		}
		claimed = max(claimed, count(`SELECT coalesce(max(n), 0) FROM (SELECT count(*) AS n FROM delivery.delivery WHERE state = 'sending' GROUP BY sender) AS c`))
		return b.states()[delivery.Sent] == messages
	})
	if limit := 2*rate + window; claimed > limit {
		t.Errorf("a process had claimed %d messages at once, want %d at most", claimed, limit)
	}
	by := map[string]int{}
	rows, err := b.pool.Query(t.Context(), `SELECT sender, count(*) FROM delivery.delivery GROUP BY sender`)
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var sender string
		var n int
		if err := rows.Scan(&sender, &n); err != nil {
			t.Fatal(err)
		}
		by[sender] = n
	}
	if by["first"] < messages/5 || by["second"] < messages/5 {
		t.Errorf("the processes sent %v of %d", by, messages)
	}
	t.Logf("shares %v, most claimed at once %d", by, claimed)
	if got := len(smsc.Messages()); got != messages {
		t.Errorf("the operator got %d messages, want each of %d once", got, messages)
	}
	if stray := count(`SELECT count(*) FROM river.river_job WHERE queue LIKE 'share%' AND state NOT IN ('completed', 'running')`); stray != 0 {
		t.Errorf("%d jobs of shared messages are left", stray)
	}
}

// What a process took off another one comes back to the operator's queue when it
// dies, and when it loses its link.
func TestSharedMessagesComeHomeWhenTheirProcessIsGone(t *testing.T) {
	t.Parallel()
	b := setup(t, smpptest.Behaviour{})
	stored := b.enqueue(draft(1))
	args := delivery.SMSArgs{Operator: "box1", At: stored[0].At, IDs: []delivery.ID{stored[0].ID}, Home: delivery.SMSQueue("box1")}
	b.exec(`DELETE FROM river.river_job`)
	for i, state := range []string{"running", "available"} {
		job, err := b.insert.Insert(t.Context(), args, &river.InsertOpts{Queue: fmt.Sprintf("share_%d", i)})
		if err != nil {
			t.Fatal(err)
		}
		b.exec(`UPDATE river.river_job SET state = $2::river.river_job_state, attempted_by = '{dead}', created_at = now() - interval '2 minutes' WHERE id = $1`,
			job.Job.ID, state)
	}
	tx, err := b.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := delivery.TakeOver(t.Context(), tx, b.insert, "dead", time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.ahead = 2 * time.Minute
	b.sender = delivery.NewSender(delivery.SenderConfig{
		Pool: b.pool, Desk: b.desk, Receipts: b.receipts, Exchange: b.exchange, Operators: []string{"box1"}, Process: "test",
		Log: slog.New(slog.DiscardHandler), Metrics: b.metrics, Now: func() time.Time { return time.Now().Add(b.ahead) },
	})
	b.ahead = 4 * time.Minute
	if err := b.sender.Share(t.Context(), func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	var home int
	if err := b.pool.QueryRow(t.Context(), `SELECT count(*) FROM river.river_job WHERE queue = $1 AND state = 'available'`,
		delivery.SMSQueue("box1")).Scan(&home); err != nil || home != 2 {
		t.Errorf("%d jobs came home, %v", home, err)
	}
}
