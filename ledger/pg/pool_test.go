package pg_test

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"zvonok/ledger/pg"
	"zvonok/ledger/pg/pgtest"
)

func TestAConnectionHasItsRoleItsNameAndItsLimits(t *testing.T) {
	t.Parallel()
	address := pgtest.NewURL(t)
	open := func(address string) map[string]string {
		pool, err := pg.Open(t.Context(), pg.Config{URL: address, MaxConns: 3, AppName: "zvonok test", Role: pg.AppRole})
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		if n := pool.Config().MaxConns; n != 3 {
			t.Errorf("the pool takes %d connections; want 3", n)
		}
		got := map[string]string{}
		for _, name := range []string{
			"role", "application_name", "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout",
		} {
			var value string
			if err := pool.QueryRow(t.Context(), "SELECT current_setting($1)", name).Scan(&value); err != nil {
				t.Fatal(err)
			}
			got[name] = value
		}
		return got
	}
	for name, want := range map[string]string{
		"role": "zvonok_app", "application_name": "zvonok test", "statement_timeout": "30s", "lock_timeout": "10s",
		"idle_in_transaction_session_timeout": "1min",
	} {
		if got := open(address)[name]; got != want {
			t.Errorf("%s is %q; want %q", name, got, want)
		}
	}
	parsed, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	query := parsed.Query()
	query.Set("statement_timeout", "77000")
	parsed.RawQuery = query.Encode()
	if got := open(parsed.String())["statement_timeout"]; got != "77s" {
		t.Errorf("statement_timeout is %q; want the URL's own 77s", got)
	}
}

func TestAPoolThatCannotWorkIsAnErrorAtOnce(t *testing.T) {
	t.Parallel()
	address := pgtest.NewURL(t)
	for _, row := range []struct {
		sentence  string
		config    pg.Config
		temporary bool
	}{
		{"a malformed URL", pg.Config{URL: "postgres://%zz"}, false},
		{"nobody listens", pg.Config{URL: "postgres://zvonok@/zvonok?host=/nonexistent"}, true},
		{"a database that does not exist", pg.Config{URL: strings.Replace(address, "/test_", "/absent_", 1)}, false},
		{"a role that does not exist", pg.Config{URL: address, Role: "zvonok_nobody"}, false},
	} {
		pool, err := pg.Open(t.Context(), row.config)
		if err == nil {
			pool.Close()
			t.Errorf("%s: it opened", row.sentence)
			continue
		}
		if got := pg.Temporary(err); got != row.temporary {
			t.Errorf("%s: temporary is %v; want %v: %v", row.sentence, got, row.temporary, err)
		}
	}
}

func TestErrorsTellWhetherARepeatMayHelp(t *testing.T) {
	t.Parallel()
	pool, err := pg.Open(t.Context(), pg.Config{URL: pgtest.NewURL(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	ctx := t.Context()
	exec := func(sql string) func() error {
		return func() error {
			_, err := pool.Exec(ctx, sql)
			return err
		}
	}
	for _, row := range []struct {
		sentence string
		do       func() error
		want     bool
	}{
		{"a broken constraint stays broken", exec("INSERT INTO ledger.payee VALUES ('', '', '', '')"), false},
		{"wrong SQL stays wrong", exec("SELEKT"), false},
		{"a right that is missing stays missing", exec("SET ROLE zvonok_app; DROP SCHEMA ledger"), false},
		{
			"a statement that took too long may be faster next time",
			exec("SET statement_timeout = 1; SELECT pg_sleep(5); RESET statement_timeout"), true,
		},
		{"a backend that was ended is replaced", exec("SELECT pg_terminate_backend(pg_backend_pid())"), true},
		{"a lock may be free next time", func() error {
			holder, err := pool.Begin(ctx)
			if err != nil {
				return err
			}
			defer holder.Rollback(ctx)
			if _, err := holder.Exec(ctx, "SELECT pg_advisory_xact_lock(1)"); err != nil {
				return err
			}
			_, err = pool.Exec(ctx, "SET lock_timeout = 1; SELECT pg_advisory_lock(1)")
			return err
		}, true},
		{"a caller who gave up does not want a repeat", func() error {
			ended, cancel := context.WithCancel(ctx)
			cancel()
			_, err := pool.Exec(ended, "SELECT 1")
			return err
		}, false},
		{"no rows are no failure of the server", func() error {
			return pool.QueryRow(ctx, "SELECT code FROM ledger.payee").Scan(new(string))
		}, false},
		{"no error needs no repeat", func() error { return nil }, false},
	} {
		err := row.do()
		if got := pg.Temporary(err); got != row.want {
			t.Errorf("%s: temporary is %v; want %v: %v", row.sentence, got, row.want, err)
		}
		pool.Reset() // a setting of one row must not reach the next
	}
}

// Fault rows 4 and 5: PostgreSQL is stopped, killed and started again.
func TestAPoolOutlivesItsServer(t *testing.T) {
	t.Parallel()
	cluster := pgtest.NewCluster(t)
	pool, err := pg.Open(t.Context(), pg.Config{URL: cluster.URL(), Role: pg.AppRole})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	committed := 0
	add := func() error {
		_, err := pool.Exec(t.Context(), `
			INSERT INTO ledger.payee (code, name, inn, payment_code)
			SELECT n::text, 'x', '7723862777', n::text FROM (SELECT count(*) AS n FROM ledger.payee) AS c`)
		if err == nil {
			committed++
		}
		return err
	}
	for _, fault := range []func(testing.TB){cluster.Kill9, cluster.Stop} {
		if err := add(); err != nil {
			t.Fatal(err)
		}
		fault(t)
		err := add()
		if err == nil || !pg.Temporary(err) {
			t.Fatalf("a statement on a dead server gave %v; want a temporary error", err)
		}
		cluster.Restart(t)
		for deadline := time.Now().Add(10 * time.Second); add() != nil; {
			if time.Now().After(deadline) {
				t.Fatal("the pool does not work 10 s after the server does")
			}
		}
	}
	var kept int
	err = pool.QueryRow(t.Context(), "SELECT count(*) FROM ledger.payee").Scan(&kept)
	if err != nil || kept != committed {
		t.Fatalf("%d rows are there, %v; want the %d that were committed", kept, err, committed)
	}
}

func TestTheMetricsOfAPoolFollowIt(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	registry := prometheus.NewPedanticRegistry()
	pg.NewMetrics(registry, map[string]*pgxpool.Pool{"api": pool})
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	want := `
# HELP zvonok_database_connections Connections of the pool by state.
# TYPE zvonok_database_connections gauge
zvonok_database_connections{pool="api",state="busy"} 1
zvonok_database_connections{pool="api",state="connecting"} 0
zvonok_database_connections{pool="api",state="idle"} 0
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "zvonok_database_connections"); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("the lint says %v, %v", problems, err)
	}
}

func TestQuerierIsAllThree(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	one := func(q pg.Querier) (n int, err error) {
		err = q.QueryRow(t.Context(), "SELECT 1").Scan(&n)
		return n, err
	}
	err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		_, poolErr := one(pool)
		_, txErr := one(tx)
		_, connErr := one(tx.Conn())
		return errors.Join(poolErr, txErr, connErr)
	})
	if err != nil {
		t.Fatal(err)
	}
}
