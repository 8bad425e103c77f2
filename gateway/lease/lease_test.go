package lease_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/gateway/lease"
	"zvonok/ledger/pg/pgtest"
)

// patience bounds every wait; each ends as soon as what is waited for happens.
const patience = time.Minute

// process is a process that wants binds of the operator "mts".
type process struct {
	t      *testing.T
	name   string
	url    string
	keeper *lease.Keeper
	stop   context.CancelFunc
	tasks  sync.WaitGroup

	mu   sync.Mutex
	held map[int]*lease.Lease
}

// launch starts a process that wants so many binds. It uses each until it is
// taken back, as the carrier does.
func launch(t *testing.T, url, name string, binds int, change func(*lease.Config)) *process {
	t.Helper()
	cfg := lease.Config{URL: url, Process: name, Life: 4 * time.Second, Courtesy: 2 * time.Second, Beat: 100 * time.Millisecond}
	if change != nil {
		change(&cfg)
	}
	keeper, err := lease.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{t: t, name: name, url: url, keeper: keeper, stop: cancel, held: make(map[int]*lease.Lease)}
	for n := range binds {
		p.tasks.Go(func() {
			for {
				l, err := keeper.Acquire(ctx, "mts", n, binds)
				if err != nil {
					return
				}
				p.mu.Lock()
				p.held[n] = l
				p.mu.Unlock()
				select {
				case <-l.Ended():
				case <-ctx.Done():
				}
				p.mu.Lock()
				delete(p.held, n)
				p.mu.Unlock()
				l.Release()
			}
		})
	}
	t.Cleanup(p.end)
	return p
}

// end is an orderly stop.
func (p *process) end() {
	p.stop()
	p.tasks.Wait()
	p.keeper.Close()
}

// holds returns the binds whose lease is valid here.
func (p *process) holds() []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	var binds []int
	for n, l := range p.held {
		if l.Valid() {
			binds = append(binds, n)
		}
	}
	slices.Sort(binds)
	return binds
}

// has returns the lease of bind 0, valid or not, nil for none.
func (p *process) has() *lease.Lease {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held[0]
}

// patient is a configuration by which nothing moves in the time of a test because
// a holder is slow to come back.
func patient(c *lease.Config) { c.Life, c.Courtesy = 2*patience, 2*patience }

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// exclusive fails when two processes hold one bind at once. It is called again
// and again while things change hands.
func exclusive(t *testing.T, all ...*process) {
	t.Helper()
	owner := map[int]string{}
	for _, p := range all {
		for _, n := range p.holds() {
			if owner[n] != "" {
				t.Fatalf("bind %d is held by %s and %s", n, owner[n], p.name)
			}
			owner[n] = p.name
		}
	}
}

// cut ends the connection that holds a process's locks and returns its backend,
// which may have them still for an instant.
func (p *process) cut() (backend int) {
	p.t.Helper()
	conn, err := pgx.Connect(p.t.Context(), p.url)
	if err != nil {
		p.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var ended bool
	if err := conn.QueryRow(p.t.Context(), `
		SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE application_name = $1 || ' leases' AND datname = current_database()`, p.name).Scan(&backend, &ended); err != nil || !ended {
		p.t.Fatalf("cut the connection of %s: %t, %v", p.name, ended, err)
	}
	return backend
}

// Pain 15: binds are shared among the processes that want them, evenly, and
// move when one comes or goes; at no moment do two have the same.
func TestProcessesShareTheBindsOfAnOperator(t *testing.T) {
	t.Parallel()
	url := pgtest.NewURL(t)
	a := launch(t, url, "a", 3, nil)
	eventually(t, "all binds for the only process", func() bool { return len(a.holds()) == 3 })
	b := launch(t, url, "b", 3, nil)
	eventually(t, "two and one", func() bool {
		exclusive(t, a, b)
		return len(a.holds()) == 2 && len(b.holds()) == 1
	})
	c := launch(t, url, "c", 3, nil)
	eventually(t, "one each", func() bool {
		exclusive(t, a, b, c)
		return len(a.holds()) == 1 && len(b.holds()) == 1 && len(c.holds()) == 1
	})
	d := launch(t, url, "d", 3, nil)
	a.end()
	eventually(t, "the fourth to step in for the first", func() bool {
		exclusive(t, b, c, d)
		return len(b.holds()) == 1 && len(c.holds()) == 1 && len(d.holds()) == 1
	})
	c.end()
	d.end()
	eventually(t, "all binds for the last process", func() bool { return len(b.holds()) == 3 })
}

// Fault row 40: a process that hangs loses its leases by PostgreSQL's clock,
// believes in them no longer than that by its own, and another takes over.
func TestAProcessThatHangsLosesItsLeasesAndKnowsItBefore(t *testing.T) {
	t.Parallel()
	url := pgtest.NewURL(t)
	// It beats once and then never again, as if it had been stopped.
	a := launch(t, url, "a", 1, func(c *lease.Config) { c.Life, c.Beat = 2*time.Second, time.Hour })
	eventually(t, "the lease", func() bool { return a.has() != nil })
	old := a.has()
	b := launch(t, url, "b", 1, nil)
	began := time.Now()
	eventually(t, "the other process to take over", func() bool {
		exclusive(t, a, b)
		return len(b.holds()) == 1
	})
	t.Logf("taken over after %s", time.Since(began).Round(time.Millisecond))
	// Woken up, it finds out and gives up what is not its own.
	a.keeper.Linked("mts", true) // any reason to look will do
	eventually(t, "it to give up", func() bool {
		exclusive(t, a, b)
		select {
		case <-old.Ended():
			return old.Lost() && !old.Valid()
		default:
			return false
		}
	})
}

// The fence counts on the courtesy, not on the life alone: a holder that does not
// notice that its session was ended stops believing before another takes over.
func TestAHolderThatDoesNotNoticeABrokenConnectionStopsBelievingInTime(t *testing.T) {
	t.Parallel()
	url := pgtest.NewURL(t)
	a := launch(t, url, "a", 1, func(c *lease.Config) { c.Life, c.Beat = time.Hour, time.Hour })
	eventually(t, "the lease", func() bool { return a.has() != nil })
	b := launch(t, url, "b", 1, nil)
	eventually(t, "them to know each other", func() bool { return alive(t, url, "b") })
	a.cut()
	eventually(t, "the other process to take over", func() bool {
		exclusive(t, a, b)
		return len(b.holds()) == 1
	})
}

// A broken connection alone moves nothing: the holder takes its locks again
// before others do.
func TestABrokenConnectionMovesNoBind(t *testing.T) {
	t.Parallel()
	url := pgtest.NewURL(t)
	a, b := launch(t, url, "a", 2, patient), launch(t, url, "b", 2, patient)
	eventually(t, "one each", func() bool { return len(a.holds()) == 1 && len(b.holds()) == 1 })
	mine, yours := a.holds()[0], b.holds()[0]
	for range 5 {
		backend := a.cut()
		eventually(t, "a new connection", func() bool {
			exclusive(t, a, b)
			return locks(t, url, backend) == 2
		})
	}
	if got := fmt.Sprint(a.holds(), b.holds()); got != fmt.Sprint([]int{mine}, []int{yours}) {
		t.Errorf("the binds moved: %s", got)
	}
}

// locks returns how many of the binds of "mts" are locked in the database, not
// counting a backend.
func locks(t *testing.T, url string, without int) (n int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	err = conn.QueryRow(t.Context(), `
		SELECT count(*) FROM pg_locks AS l, generate_series(0, 9) AS n
		WHERE l.pid <> $1 AND l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
		  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
		  AND (l.classid::bigint << 32) | l.objid::bigint = hashtextextended('zvonok bind mts ' || n, 0)`, without).Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func alive(t *testing.T, url, name string) bool {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var dead bool
	err = pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) (err error) {
		dead, err = lease.Dead(t.Context(), tx, name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return !dead
}

// Fault row 4: a crash of PostgreSQL takes every lock; the holders take their own
// again, whoever of them is back first and however much earlier.
func TestARestartOfPostgreSQLMovesNoBind(t *testing.T) {
	t.Parallel()
	cluster := pgtest.NewCluster(t)
	url := cluster.URL()
	a, b := launch(t, url, "a", 2, patient), launch(t, url, "b", 2, patient)
	eventually(t, "one each", func() bool { return len(a.holds()) == 1 && len(b.holds()) == 1 })
	mine, yours := a.holds()[0], b.holds()[0]
	cluster.Kill9(t)
	cluster.Restart(t)
	eventually(t, "both to be back", func() bool {
		exclusive(t, a, b)
		return locks(t, url, 0) == 2
	})
	if got := fmt.Sprint(a.holds(), b.holds()); got != fmt.Sprint([]int{mine}, []int{yours}) {
		t.Errorf("the binds moved: %s", got)
	}
}

// Fault row 4: a database that is away for longer than the leases surely hold
// closes the fence and ends nothing; the binds stay up, silent, and send again.
func TestALeaseOutlivesADatabaseThatIsAway(t *testing.T) {
	t.Parallel()
	cluster := pgtest.NewCluster(t)
	a := launch(t, cluster.URL(), "a", 1, nil)
	eventually(t, "the lease", func() bool { return a.has() != nil && a.has().Valid() })
	held := a.has()
	cluster.Kill9(t)
	eventually(t, "the fence to close", func() bool { return !held.Valid() })
	cluster.Restart(t)
	eventually(t, "it to open again", held.Valid)
	select {
	case <-held.Ended():
		t.Error("the bind was given up")
	default:
	}
}

// A process that cannot reach the operator lets another try.
func TestALeaseOfNoUseIsOfferedToOthers(t *testing.T) {
	t.Parallel()
	url := pgtest.NewURL(t)
	a := launch(t, url, "a", 1, nil)
	eventually(t, "the lease", func() bool { return len(a.holds()) == 1 })
	held := func() *lease.Lease {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.held[0]
	}
	if held().Yield(time.Hour) {
		t.Error("the lease was given up although nobody else wants it")
	}
	b := launch(t, url, "b", 1, nil)
	eventually(t, "the offer", func() bool { return held().Yield(time.Hour) })
	eventually(t, "the other process", func() bool {
		exclusive(t, a, b)
		return len(b.holds()) == 1
	})
	b.keeper.Linked("mts", true)
	eventually(t, "everybody to know that the operator is bound", func() bool { return a.keeper.AnyLinked("mts") })
	eventually(t, "the other one to be counted", func() bool { return a.keeper.Shared("mts") })
	if b.keeper.Shared("mts") {
		t.Error("the only one that is bound counts itself among the others")
	}
	b.keeper.Linked("mts", false)
	eventually(t, "the link to be forgotten", func() bool { return !a.keeper.AnyLinked("mts") && !b.keeper.AnyLinked("mts") })
}

func TestWithoutAKeeperEveryLeaseHolds(t *testing.T) {
	t.Parallel()
	var alone *lease.Keeper
	if alone.Shared("mts") || alone.AnyLinked("mts") {
		t.Error("the only process shares")
	}
	l, err := alone.Acquire(t.Context(), "mts", 0, 1)
	if err != nil || !l.Valid() || l.Lost() || l.Ended() != nil || l.Yield(time.Second) {
		t.Errorf("a lease of the only process: %v", err)
	}
	l.Release()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := alone.Acquire(ended, "mts", 0, 1); err == nil {
		t.Error("a lease after the end")
	}
}
