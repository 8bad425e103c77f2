package pg_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"zvonok/ledger/pg"
	"zvonok/ledger/pg/pgtest"
)

// reading is a Reader of a primary and a replica, with what it says.
type reading struct {
	*testing.T
	*pg.Reader
	primary *pgxpool.Pool
	owner   *pgx.Conn // of the primary's database
	metrics *prometheus.Registry

	mu  sync.Mutex
	log []string
}

func (r *reading) Write(line []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = append(r.log, string(line))
	return len(line), nil
}

func (r *reading) said() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.log...)
}

// openReading opens a Reader and runs it.
func openReading(t *testing.T, primary, replica *pgtest.Cluster, maxLag time.Duration) *reading {
	t.Helper()
	r := &reading{T: t, metrics: prometheus.NewPedanticRegistry()}
	var err error
	if r.primary, err = pg.Open(t.Context(), pg.Config{URL: primary.URL(), MaxConns: 4, Role: pg.AppRole}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.primary.Close)
	r.owner = connect(t, primary)
	if _, err := r.owner.Exec(t.Context(), `CREATE TABLE IF NOT EXISTS public.seen (n int); GRANT ALL ON public.seen TO `+pg.AppRole); err != nil {
		t.Fatal(err)
	}
	r.Reader, err = pg.OpenReader(t.Context(), pg.ReaderConfig{
		Primary: r.primary, Replica: pg.Config{URL: replica.URL(), MaxConns: 4, Role: pg.AppRole}, MaxLag: maxLag,
		Log: slog.New(slog.NewTextHandler(r, nil)), Metrics: r.metrics,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.Reader.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done; r.Close() })
	return r
}

func connect(t *testing.T, cluster *pgtest.Cluster) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), cluster.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// from says where a read is read.
func (r *reading) from() string {
	r.Helper()
	var standby bool
	if err := r.Read(r.Context(), func(ctx context.Context, q pg.Querier) error {
		return q.QueryRow(ctx, `SELECT pg_is_in_recovery()`).Scan(&standby)
	}); err != nil {
		r.Fatalf("a read failed: %v", err)
	}
	if standby {
		return "replica"
	}
	return "primary"
}

func (r *reading) await(what string, condition func() bool) {
	r.Helper()
	for began := time.Now(); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			r.Fatalf("waited in vain for %s; %s; it said %q", what, r, r.said())
		}
	}
}

func (r *reading) awaitFrom(where string) {
	r.Helper()
	r.await("reads from the "+where, func() bool { return r.from() == where })
}

// write puts a number into the primary.
func (r *reading) write(n int) {
	r.Helper()
	if _, err := r.primary.Exec(r.Context(), `INSERT INTO public.seen VALUES ($1)`, n); err != nil {
		r.Fatal(err)
	}
}

func TestReadsGoToAReplicaThatFollows(t *testing.T) {
	t.Parallel()
	primary := pgtest.NewPrimary(t)
	r := openReading(t, primary, primary.Replica(t), time.Minute)
	r.awaitFrom("replica")
	// The primary is idle now for longer than a beat: that is no lag.
	r.await("an idle primary to make no lag", func() bool { return strings.Contains(r.String(), "replica used, lag 0") })
	r.write(1)
	r.await("the row on the replica", func() bool {
		var n int
		if err := r.Read(t.Context(), func(ctx context.Context, q pg.Querier) error {
			return q.QueryRow(ctx, `SELECT count(*) FROM public.seen WHERE pg_is_in_recovery()`).Scan(&n)
		}); err != nil {
			t.Fatal(err)
		}
		return n == 1
	})
	if n := testutil.CollectAndCount(r.metrics, "zvonok_database_replica_lag_seconds"); n != 1 {
		t.Errorf("the lag is shown %d times", n)
	}
	if err := testutil.GatherAndCompare(r.metrics, strings.NewReader(`
# HELP zvonok_database_replica 1 for the state that the replica is in; all 0 without one.
# TYPE zvonok_database_replica gauge
zvonok_database_replica{state="behind"} 0
zvonok_database_replica{state="refused"} 0
zvonok_database_replica{state="unreachable"} 0
zvonok_database_replica{state="used"} 1
`), "zvonok_database_replica"); err != nil {
		t.Error(err)
	}
	// What a read has found out by itself to be too old, the primary is asked for; the replica stays.
	calls := 0
	if err := r.Read(t.Context(), func(ctx context.Context, q pg.Querier) error {
		if calls++; calls == 1 {
			return fmt.Errorf("look: %w", pg.ErrBehind)
		}
		return nil
	}); err != nil || calls != 2 {
		t.Errorf("a read that saw that the replica is behind was called %d times: %v", calls, err)
	}
	if from := r.from(); from != "replica" {
		t.Errorf("after it reads go to the %s", from)
	}
	// An error that the primary gives too is the read's own.
	err := r.Read(t.Context(), func(ctx context.Context, q pg.Querier) error {
		_, err := q.Exec(ctx, `SELECT * FROM public.nowhere`)
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("a read of a table that is nowhere: %v", err)
	}
}

func TestAReplicaThatIsKilledOrHangsFailsNoReadAndIsUsedAgain(t *testing.T) {
	t.Parallel()
	primary := pgtest.NewPrimary(t)
	replica := primary.Replica(t)
	r := openReading(t, primary, replica, time.Minute)
	r.awaitFrom("replica")

	// Reads go on all the time; none may fail.
	ctx, stop := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for ctx.Err() == nil {
				if err := r.Read(ctx, func(ctx context.Context, q pg.Querier) error {
					_, err := q.Exec(ctx, `SELECT count(*) FROM public.seen`)
					return err
				}); err != nil && ctx.Err() == nil {
					t.Errorf("a read failed: %v", err)
					return
				}
			}
		})
	}
	defer readers.Wait()
	defer stop()

	replica.Kill9(t)
	if from := r.from(); from != "primary" {
		t.Errorf("with the replica dead reads go to the %s", from)
	}
	r.await("the state", func() bool { return strings.Contains(r.String(), "unreachable") })
	replica.Restart(t)
	r.awaitFrom("replica")

	// One that is stopped in its tracks answers nothing, and does not refuse.
	before := time.Now()
	replica.Freeze(t)
	if from := r.from(); from != "primary" {
		t.Errorf("with the replica stopped reads go to the %s", from)
	}
	t.Logf("a read beside a stopped replica took %s", time.Since(before).Round(time.Millisecond))
	replica.Thaw(t)
	r.awaitFrom("replica")
	stop()
	readers.Wait()

	// Each change is said once.
	var states []string
	for _, line := range r.said() {
		_, state, left := strings.Cut(line, "why=")
		state, _, _ = strings.Cut(state, " ")
		if !left {
			state = "used"
		}
		if n := len(states); n > 0 && states[n-1] == state {
			t.Errorf("it was said twice that the replica is %s:\n%s", state, line)
		}
		states = append(states, state)
	}
	if n := strings.Count(strings.Join(states, " "), "used"); n < 3 || !strings.Contains(strings.Join(r.said(), ""), "why=unreachable") {
		t.Errorf("it said %q", r.said())
	}
}

func TestAReplicaThatStandsStillIsLeftWithinTheBound(t *testing.T) {
	t.Parallel()
	const maxLag = 2 * time.Second
	primary := pgtest.NewPrimary(t)
	replica := primary.Replica(t)
	r := openReading(t, primary, replica, maxLag)
	r.awaitFrom("replica")
	standby := connect(t, replica)
	exec := func(sql string) {
		t.Helper()
		if _, err := standby.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec(`SELECT pg_wal_replay_pause()`)
	r.await("the replay to pause", func() bool {
		var state string
		if err := standby.QueryRow(t.Context(), `SELECT pg_get_wal_replay_pause_state()`).Scan(&state); err != nil {
			t.Fatal(err)
		}
		return state == "paused"
	})
	r.write(1)
	written := time.Now()
	// Older than the bound nothing is read, however slow this machine is: the lag is counted from before the commit.
	r.await("the replica to be left", func() bool {
		began := time.Now()
		var rows int
		var standby bool
		if err := r.Read(t.Context(), func(ctx context.Context, q pg.Querier) error {
			return q.QueryRow(ctx, `SELECT count(*), pg_is_in_recovery() FROM public.seen`).Scan(&rows, &standby)
		}); err != nil {
			t.Fatal(err)
		}
		if standby && began.Sub(written) > maxLag {
			t.Fatalf("%s after a commit the replica is read, which does not have it", began.Sub(written))
		}
		if !standby && rows != 1 {
			t.Fatalf("the primary has %d rows", rows)
		}
		return !standby
	})
	r.await("the state", func() bool { return strings.Contains(r.String(), "replica behind") })
	exec(`SELECT pg_wal_replay_resume()`)
	r.awaitFrom("replica")
	said := strings.Join(r.said(), "")
	if !strings.Contains(said, "why=behind") || !strings.Contains(said, "from the replica again") {
		t.Errorf("it said:\n%s", said)
	}
}

func TestAServerThatDoesNotFollowThePrimaryIsRefused(t *testing.T) {
	t.Parallel()
	primary := pgtest.NewPrimary(t)
	promoted, other := primary.Replica(t), primary.Replica(t)
	r := openReading(t, primary, promoted, time.Minute)
	r.awaitFrom("replica")
	if _, err := connect(t, promoted).Exec(t.Context(), `SELECT pg_promote()`); err != nil {
		t.Fatal(err)
	}
	r.await("the promoted one to be refused", func() bool { return strings.Contains(r.String(), "replica refused") })
	if _, err := connect(t, promoted).Exec(t.Context(), `INSERT INTO public.seen VALUES (1)`); err != nil {
		t.Fatal(err)
	}
	var rows int
	if err := r.Read(t.Context(), func(ctx context.Context, q pg.Querier) error {
		return q.QueryRow(ctx, `SELECT count(*) FROM public.seen`).Scan(&rows)
	}); err != nil || rows != 0 {
		t.Errorf("%d rows are read that the primary does not have: %v", rows, err)
	}
	if said := strings.Join(r.said(), ""); !strings.Contains(said, "level=ERROR") || !strings.Contains(said, "was promoted") {
		t.Errorf("it said:\n%s", said)
	}

	// The promoted one is the primary now, and the other still follows the old.
	branch := openReading(t, promoted, other, time.Minute)
	branch.await("the one of another branch to be refused", func() bool { return strings.Contains(branch.String(), "on timeline 1 and the primary on 2") })
	if from := branch.from(); from != "primary" {
		t.Errorf("reads go to the %s", from)
	}

	// Another cluster is a mistake of the settings.
	dir, err := os.MkdirTemp("", "zvonok-stranger-") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o711); err != nil { // PostgreSQL may run as another account
		t.Fatal(err)
	}
	stranger, err := pg.StartCluster(t.Context(), pg.ClusterConfig{DataDir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := stranger.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	pool, err := pg.Open(t.Context(), pg.Config{URL: pgtest.NewURL(t), MaxConns: 4, Role: pg.AppRole})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	_, err = pg.OpenReader(t.Context(), pg.ReaderConfig{
		Primary: pool, Replica: pg.Config{URL: stranger.URL(), Role: pg.AppRole}, MaxLag: time.Minute,
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewPedanticRegistry(),
	})
	if !errors.Is(err, pg.ErrNotReplica) || !strings.Contains(err.Error(), "another cluster") {
		t.Errorf("a replica of another cluster: %v", err)
	}
}

func TestAReplicaThatIsAwayAtTheStartIsReadOnceItIsThere(t *testing.T) {
	t.Parallel()
	primary := pgtest.NewPrimary(t)
	replica := primary.Replica(t)
	replica.Stop(t)
	r := openReading(t, primary, replica, time.Minute)
	if from := r.from(); from != "primary" {
		t.Errorf("reads go to the %s", from)
	}
	replica.Restart(t)
	r.awaitFrom("replica")
}
