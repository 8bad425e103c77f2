package ledger_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/sync/errgroup"

	"zvonok/ledger"
)

func TestMetricsCountVerdicts(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewPedanticRegistry()
	b := newBooks(t, 1)
	b.book.Metrics = ledger.NewMetrics(registry)
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
	b.fund(100_00)
	b.setThreshold(0, mother, 90_00, false)
	b.post(b.buy(0, "a", 20_00), b.buy(0, "b", 200_00), offline(b.eat(0, "c", 200_00)), b.buy(0, "a", 20_00))
	verified := b.sound()
	_, err := b.book.Fold(t.Context(), b.pool)
	b.must(err)
	if err := testutil.GatherAndCompare(registry, strings.NewReader(`
		# HELP zvonok_ledger_crossings_total Thresholds crossed.
		# TYPE zvonok_ledger_crossings_total counter
		zvonok_ledger_crossings_total 1
		# HELP zvonok_ledger_forced_debits_total Debits booked whatever the balance, because they were made offline.
		# TYPE zvonok_ledger_forced_debits_total counter
		zvonok_ledger_forced_debits_total 1
	`), "zvonok_ledger_crossings_total", "zvonok_ledger_forced_debits_total"); err != nil {
		t.Error(err)
	}
	families, err := registry.Gather()
	b.must(err)
	got := map[string]float64{}
	for _, family := range families {
		if family.GetName() == "zvonok_ledger_verify_timestamp_seconds" {
			if at := family.GetMetric()[0].GetGauge().GetValue(); at != float64(verified.At.Unix()) {
				t.Errorf("verified at %v by the metric, at %s", at, verified.At)
			}
		}
		if family.GetName() != "zvonok_ledger_entries_total" {
			continue
		}
		for _, m := range family.GetMetric() {
			if n := m.GetCounter().GetValue(); n > 0 {
				got[m.GetLabel()[0].GetValue()+" "+m.GetLabel()[1].GetValue()] = n
			}
		}
	}
	want := map[string]float64{"topup posted": 1, "buffet posted": 1, "buffet refused": 1, "buffet duplicate": 1, "hot posted": 1}
	for name, n := range want {
		if got[name] != n {
			t.Errorf("%s is counted %v times, want %v", name, got[name], n)
		}
	}
	if len(got) != len(want) {
		t.Errorf("counted %v", got)
	}
}

// What holds the book up is seen: how long calls take, which of them the database
// undoes, and the transaction that holds the totals up.
func TestMetricsShowWhatHoldsTheBookUp(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewPedanticRegistry()
	b := newBooks(t, 2)
	b.book.Metrics = ledger.NewMetrics(registry)
	b.fund(100_00)
	b.postOne(b.buy(0, "a", 1_00))
	value := func(name, label string) float64 {
		t.Helper()
		families, err := registry.Gather()
		b.must(err)
		for _, family := range families {
			for _, m := range family.GetMetric() {
				if family.GetName() == name && (label == "" || m.GetLabel()[0].GetValue() == label) {
					return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
				}
			}
		}
		t.Fatalf("there is no %s of %q", name, label)
		return 0
	}
	if n := value("zvonok_ledger_call_seconds", "one"); n != 1 {
		t.Errorf("%v calls of one entry", n)
	}
	if n := value("zvonok_ledger_call_seconds", "several"); n != 1 {
		t.Errorf("%v calls of several entries", n)
	}

	// A transaction that stays open with the wallet's lock.
	holder, err := b.pool.Begin(t.Context())
	b.must(err)
	defer holder.Rollback(context.WithoutCancel(t.Context()))
	b.must(b.book.LockWallets(t.Context(), holder, b.wallets[:1]))
	var xid float64
	b.must(holder.QueryRow(t.Context(), `SELECT pg_current_xact_id()::text::float8`).Scan(&xid))
	b.postOne(b.buy(1, "b", 1_00))
	_, err = b.book.Fold(t.Context(), b.pool)
	b.must(err)
	// Transactions of the whole cluster count, so another test's may be older still.
	if got := value("zvonok_ledger_fold_oldest_xid", ""); got <= 0 || got > xid {
		t.Errorf("the oldest transaction is %v by the metric, and %v still runs", got, xid)
	}
	if n := value("zvonok_ledger_fold_lag_transactions", ""); n < 2 {
		t.Errorf("%v transactions have begun since the oldest", n)
	}
	b.must(holder.Rollback(t.Context()))

	// Two transactions that lock against each other: one is undone, and counted.
	ready := make(chan struct{}, 2)
	var group errgroup.Group
	var undone atomic.Int64
	for i := range 2 {
		group.Go(func() error {
			err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
				if err := b.book.LockWallets(t.Context(), tx, b.wallets[i:i+1]); err != nil {
					return err
				}
				ready <- struct{}{}
				for len(ready) < 2 {
					runtime.Gosched()
				}
				_, err := b.book.Post(t.Context(), tx, []ledger.Entry{b.buy(1-i, fmt.Sprint("d", i), 1_00)})
				return err
			})
			if err != nil && strings.Contains(err.Error(), "40P01") {
				undone.Add(1)
				return nil
			}
			return err
		})
	}
	b.must(group.Wait())
	if n := undone.Load(); n != 1 || value("zvonok_ledger_failed_calls_total", "deadlock") != 1 {
		t.Errorf("%d were undone, %v counted", n, value("zvonok_ledger_failed_calls_total", "deadlock"))
	}
	await(t, func() bool { // the server's statistics come a moment later
		_, err := b.book.Fold(t.Context(), b.pool)
		b.must(err)
		return value("zvonok_ledger_deadlocks_total", "") == 1
	})
	b.sound()
}

// Every wait for the lock of a wallet is measured, of whatever call, and so is one
// that ends with the lock refused.
func TestMetricsMeasureEachWaitForALock(t *testing.T) {
	t.Parallel()
	const long = 100 * time.Millisecond
	registry := prometheus.NewPedanticRegistry()
	b := newBooks(t, 1)
	b.book.Metrics = ledger.NewMetrics(registry)
	b.fund(100_00)
	waits := func() (calls uint64, seconds float64) {
		t.Helper()
		families, err := registry.Gather()
		b.must(err)
		for _, family := range families {
			if family.GetName() == "zvonok_ledger_lock_wait_seconds" {
				h := family.GetMetric()[0].GetHistogram()
				return h.GetSampleCount(), h.GetSampleSum()
			}
		}
		t.Fatal("waits are not measured")
		return 0, 0
	}
	for name, call := range map[string]func(pgx.Tx) error{
		"one entry": func(tx pgx.Tx) error {
			_, err := b.book.Post(t.Context(), tx, []ledger.Entry{b.buy(0, "a", 1_00)})
			return err
		},
		"one entry that is refused": func(tx pgx.Tx) error {
			_, err := b.book.Post(t.Context(), tx, []ledger.Entry{b.buy(0, "b", 1_000_00)})
			return err
		},
		"several entries": func(tx pgx.Tx) error {
			_, err := b.book.Post(t.Context(), tx, []ledger.Entry{b.buy(0, "c", 1_00), b.buy(0, "d", 1_00)})
			return err
		},
		"several entries that are refused": func(tx pgx.Tx) error {
			_, err := b.book.Post(t.Context(), tx, []ledger.Entry{b.buy(0, "e", 1_000_00), b.buy(0, "f", 1_000_00)})
			return err
		},
		"wallets": func(tx pgx.Tx) error { return b.book.LockWallets(t.Context(), tx, b.wallets) },
		"a lock that is refused": func(tx pgx.Tx) error {
			if _, err := tx.Exec(t.Context(), `SET LOCAL lock_timeout = '500ms'`); err != nil {
				return err
			}
			_, err := b.book.Post(t.Context(), tx, []ledger.Entry{b.buy(0, "g", 1_00)})
			return err
		},
	} {
		callsBefore, before := waits()
		holder, err := b.pool.Begin(t.Context())
		b.must(err)
		if _, err := holder.Exec(t.Context(), `SELECT ledger.lock_wallets($1)`, b.wallets); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			done <- pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
				if _, err := tx.Exec(t.Context(), `SET LOCAL lock_timeout = '60s'`); err != nil {
					return err
				}
				return call(tx)
			})
		}()
		if name == "a lock that is refused" {
			if err := <-done; err == nil || !strings.Contains(err.Error(), "lock timeout") {
				t.Errorf("%s: %v", name, err)
			}
			b.must(holder.Rollback(t.Context()))
		} else {
			await(t, func() (waited bool) {
				b.must(b.pool.QueryRow(t.Context(), `
					SELECT coalesce(bool_or(clock_timestamp() - l.waitstart > $1), false)
					  FROM pg_locks l
					  JOIN pg_stat_activity a USING (pid)
					 WHERE a.datname = current_database()`, long).Scan(&waited))
				return waited
			})
			b.must(holder.Rollback(t.Context()))
			b.must(<-done)
		}
		if calls, after := waits(); calls != callsBefore+1 || after-before < long.Seconds() {
			t.Errorf("%s: after waiting for longer than %s, %d waits of %.3f s are measured", name, long, calls-callsBefore, after-before)
		}
	}
}
