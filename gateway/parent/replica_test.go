package parent_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"zvonok/access/door"
	"zvonok/gateway/parent"
	"zvonok/ledger/meal"
	"zvonok/ledger/money"
	"zvonok/ledger/pg"
	"zvonok/ledger/pg/pgtest"
)

// With database.replica_url the history comes from the replica, as old as it is; a top-up is never missing to who has
// just made it, what a parent has set is there at once, and a right taken away is gone at once.
func TestHistoryComesFromAReplicaAndNoTopUpIsMissing(t *testing.T) {
	t.Parallel()
	primary := pgtest.NewPrimary(t)
	pool, err := pg.Open(t.Context(), pg.Config{URL: primary.URL(), MaxConns: 4, Role: pg.AppRole})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	replica := primary.Replica(t)
	reads, err := pg.OpenReader(t.Context(), pg.ReaderConfig{
		Primary: pool, Replica: pg.Config{URL: replica.URL(), MaxConns: 4, Role: pg.AppRole}, MaxLag: time.Hour,
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewPedanticRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); reads.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done; reads.Close() })
	w := worldReading(t, primary.URL(), reads)
	w.tap("masha", door.In)
	w.pay("masha", 200_00)
	mother := w.signIn(olga)

	standby, err := pgx.Connect(t.Context(), replica.URL())
	w.must(err)
	defer standby.Close(context.Background())
	w.eventually("the replica to have the pass", func() bool {
		var n int
		w.must(standby.QueryRow(t.Context(), `SELECT count(*) FROM door.pass`).Scan(&n))
		return n == 1
	})
	_, err = standby.Exec(t.Context(), `SELECT pg_wal_replay_pause()`)
	w.must(err)
	w.eventually("the replica to stand still", func() bool {
		var state string
		w.must(standby.QueryRow(t.Context(), `SELECT pg_get_wal_replay_pause_state()`).Scan(&state))
		return state == "paused"
	})
	// read reads with the replica in use from the beginning to the end: a read that this machine was too slow for goes to
	// the primary and lets the replica rest.
	read := func(path string, into any) {
		t.Helper()
		used := func() bool { return strings.Contains(reads.String(), "replica used") }
		w.eventually("a read with the replica in use", func() bool {
			if !used() {
				return false
			}
			mother.get(w.path("masha", path), into)
			return used()
		})
	}

	w.pass(time.Hour)
	w.tap("masha", door.Out)
	w.pay("masha", 1000_00)
	w.sell(meal.Sale{Person: w.people["masha"], Kind: meal.Buffet, Total: 35_00, Items: []meal.Item{{Name: "Сок", Quantity: 1, Price: 35_00}}})
	var child parent.ChildView
	read("", &child)
	if child.Wallet == nil || child.Wallet.Balance != 1165_00 || child.Visit == nil || child.Visit.State != "inside" {
		t.Errorf("the balance is not the primary's or the visit not the replica's: %+v %+v", child.Wallet, child.Visit)
	}
	var visits parent.VisitsView
	read("/visits", &visits)
	if len(visits.Days) == 0 || len(visits.Days[0].Passes) != 1 {
		t.Errorf("the visits are not the replica's: %+v", visits)
	}
	var meals parent.MealsView
	read("/meals", &meals)
	if len(meals.Days) != 0 {
		t.Errorf("the meals are not the replica's: %+v", meals)
	}
	var movements parent.MovementsView
	read("/movements", &movements)
	if len(movements.Movements) != 3 || movements.Movements[1].Amount != 1000_00 {
		t.Errorf("the top-up is missing: %+v", movements)
	}
	limit := money.Amount(150_00)
	mother.want(200, "PUT", w.path("masha", "/rules"), parent.RulesWish{Limit: &limit, Bans: []parent.BanView{}})
	var rules parent.RulesView
	read("/rules", &rules)
	if rules.Limit == nil || *rules.Limit != limit {
		t.Errorf("the limit that was set is missing: %+v", rules)
	}
	w.exec(`UPDATE access.consent SET withdrawn_at = $2 WHERE child_id = $1`, w.people["masha"], w.now().Add(-time.Second))
	mother.want(404, "GET", w.path("masha", "/visits"), nil)
}
