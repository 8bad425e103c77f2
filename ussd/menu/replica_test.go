package menu

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"zvonok/access/door"
	"zvonok/ledger/pg"
	"zvonok/ledger/pg/pgtest"
	"zvonok/ussd"
)

// With database.replica_url visits come from the replica, as old as it is. Money is never older than the top-up: the
// balance is the primary's, and a replica that lacks the last movement is not believed about movements. A right taken
// away on the primary is gone at once.
func TestAReplicaShowsVisitsAndNeverHidesATopUp(t *testing.T) {
	t.Parallel()
	primary := pgtest.NewPrimary(t)
	w := newSchoolOn(t, openPool(t, primary.URL()))
	replica := primary.Replica(t)
	var err error
	w.menu.config.Read, err = pg.OpenReader(t.Context(), pg.ReaderConfig{
		Primary: w.pool, Replica: pg.Config{URL: replica.URL(), MaxConns: 4, Role: pg.AppRole}, MaxLag: time.Hour,
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewPedanticRegistry(),
	})
	w.must(err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); w.menu.config.Read.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done; w.menu.config.Read.Close() })
	until(t, "the replica is used", func() bool { return strings.Contains(w.menu.config.Read.String(), "replica used") })
	standby, err := pgx.Connect(t.Context(), replica.URL())
	w.must(err)
	defer standby.Close(context.Background())
	_, err = standby.Exec(t.Context(), `SELECT pg_wal_replay_pause()`)
	w.must(err)
	until(t, "the replica stands still", func() bool {
		var state string
		w.must(standby.QueryRow(t.Context(), `SELECT pg_get_wal_replay_pause_state()`).Scan(&state))
		return state == "paused"
	})

	show := func(place string) string {
		t.Helper()
		v := ussd.Visit{Link: "op", Phone: mother, At: now}
		if place != "" {
			v.Place = ussd.Place{Name: place, Arg: int64(w.people["Маша"])}
		}
		// A read that this machine was too slow for has gone to the primary and lets the replica rest.
		var screen ussd.Screen
		until(t, "a screen with the replica in use", func() bool {
			used := func() bool { return strings.Contains(w.menu.config.Read.String(), "replica used") }
			if !used() {
				return false
			}
			screen, err = w.menu.Show(t.Context(), v)
			w.must(err)
			return used()
		})
		return strings.Join(screen.Lines, "\n")
	}
	w.topUp("Маша", 1000_00, now)
	w.passes("Маша", door.Out, clock(0, 13, 47))
	first := show("")
	if !strings.Contains(first, "1143,50") {
		t.Errorf("the balance is not the primary's:\n%s", first)
	}
	if !strings.Contains(first, "08:15") || strings.Contains(first, "13:47") {
		t.Errorf("the last visit is not the replica's:\n%s", first)
	}
	if visits := show(placeVisits); strings.Contains(visits, "13:47") {
		t.Errorf("the visits are not the replica's:\n%s", visits)
	}
	if history := show(placeHistory); !strings.Contains(history, "1000,00") {
		t.Errorf("the top-up is missing among the movements:\n%s", history)
	}
	w.sell("Маша", "buffet", "", 7_77, now)
	if meals := show(placeMeals); strings.Contains(meals, "7,77") || !strings.Contains(meals, "Булочка") {
		t.Errorf("the meals are not the replica's:\n%s", meals)
	}
	w.exec(`UPDATE access.consent SET withdrawn_at = $2 WHERE child_id = $1`, w.people["Маша"], now.Add(-time.Second))
	if first := show(""); strings.Contains(first, "1143") || strings.Contains(first, "08:15") {
		t.Errorf("after a withdrawal it shows:\n%s", first)
	}
}
