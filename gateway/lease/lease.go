// Package lease shares the operators' binds among the processes on one
// database: whoever holds the lease of a bind may bind and send by it, nobody
// else (smpp.md, pain 15; reliability.md, rows 40 and 41).
//
// # How it holds
//
// A lease is a session advisory lock of PostgreSQL, taken by one connection per
// process. There is no table, no clock of another machine and no gossip; what
// the database says is so.
//
//   - A process that dies loses its connection, and with it the locks, at once.
//     Another takes them over after [Config.Courtesy].
//   - A process that hangs (SIGSTOP, a frozen machine, a cut network) stops
//     beating. PostgreSQL ends its session after [Config.Life] by
//     idle_session_timeout, so nobody has to judge whether it is dead.
//   - The holder itself stops believing in its leases a margin before another
//     could have them, whichever way the locks were lost: after less than both the
//     life and the courtesy, by its own monotonic clock, counted from before its
//     last beat was sent ([Lease.Valid]). Woken up again it finds the time over
//     before it has asked anybody. That is the fence: it is asked before every
//     write to the socket. Closed, it only silences the link: with the database
//     back and the lock still ours, sending goes on.
//   - When only the connection breaks, the holder takes the locks again with a
//     new one; that is what the courtesy is for. A process whose own connection
//     broke supposes that PostgreSQL was restarted and the others lost theirs too,
//     and leaves them time from when it is back itself, so that a restart moves no
//     bind, however long it takes. A holder that does not come back in that time
//     loses the bind: work that can be done must not wait for it.
//   - A holder that gives a bind back and lives still is told from one that is
//     gone by the other locks of its session. Nobody waits for it.
//
// What remains is the time between the fence and the system call behind it: a
// process that is stopped right there writes one batch when it goes on. SMPP has
// no fencing token by which the operator could refuse it.
//
// # How it shares
//
// Every process counts who else wants an operator's binds, by shared locks, and
// takes no more than its share of them, rounded up. One that has more, because
// another came, gives one back when its link is closed. With more processes than
// binds the others stand by.
package lease

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
)

// Limits of the leases. Those of [Config] are defaults.
const (
	defaultLife     = 5 * time.Second // of a session without a beat
	defaultCourtesy = 3 * time.Second // of others for a holder whose locks are gone
	defaultBeat     = 500 * time.Millisecond

	margin        = 8 // a holder believes in its leases an eighth of the time less
	statementTime = 3 * time.Second
	reconnectWait = 500 * time.Millisecond
)

// Config is what a Keeper needs.
type Config struct {
	URL     string
	Process string // unlike that of any other process; whoever holds its lock lives (see [Dead])
	Log     *slog.Logger
	Metrics prometheus.Registerer // nil for none

	// Life is how long PostgreSQL waits for a beat before it ends the session
	// and gives the leases away, 5 s by default. Courtesy is how long a bind stays
	// free whose holder is gone before another process takes it, 3 s by default;
	// it must be the same in all processes, for the fence counts on it. A process
	// that hangs is replaced after the sum. Beat is the time between two beats.
	Life, Courtesy, Beat time.Duration
}

// Keeper keeps the leases of one process. Its methods may be called by any
// goroutine.
type Keeper struct {
	cfg   Config
	since time.Time    // for a clock that cannot be set
	until atomic.Int64 // ns from since for which the leases surely hold
	poke  chan struct{}

	stop context.CancelFunc
	done sync.WaitGroup

	mu        sync.Mutex
	held      map[bind]*Lease
	waiting   map[bind]chan *Lease
	operators map[string]*standing
	released  []bind // to be unlocked
	notBefore map[bind]time.Time

	// The rest is the loop's own.
	conn     *pgx.Conn
	backend  uint32          // of the last connection, to end what is left of it
	contends map[string]bool // shared locks of this connection
	links    map[string]bool
	back     time.Time         // when the connection was made in place of one that broke
	seen     map[bind]sighting // binds that were seen held

	metrics *metrics
}

// bind names what is leased.
type bind struct {
	operator string
	number   int
}

// sighting is who was seen to hold a bind.
type sighting struct {
	backend int32     // of PostgreSQL, that has or had the lock
	free    time.Time // since when it has not, zero while it has
}

// standing is what is known of an operator.
type standing struct {
	binds     int  // in all
	processes int  // that want them, this one included
	others    int  // other processes that can send
	link      bool // this one can
}

// Lease is the right to use one bind. A nil Lease is that of a process that is
// alone: it always holds.
type Lease struct {
	keeper *Keeper
	bind   bind
	ended  chan struct{} // closed when it is to be given back, or is lost
	once   sync.Once
	lost   atomic.Bool
}

// Open connects, shows the other processes that this one lives, and keeps the
// leases that are asked for until [Keeper.Close].
func Open(ctx context.Context, cfg Config) (*Keeper, error) {
	cfg.Life, cfg.Courtesy = cmp.Or(cfg.Life, defaultLife), cmp.Or(cfg.Courtesy, defaultCourtesy)
	cfg.Beat = cmp.Or(cfg.Beat, defaultBeat)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	k := &Keeper{
		cfg: cfg, since: time.Now(), poke: make(chan struct{}, 1),
		held: make(map[bind]*Lease), waiting: make(map[bind]chan *Lease), operators: make(map[string]*standing),
		notBefore: make(map[bind]time.Time), seen: make(map[bind]sighting), metrics: newMetrics(cfg.Metrics),
	}
	if err := k.connect(ctx); err != nil {
		return nil, fmt.Errorf("announce the process: %w", err)
	}
	background, stop := context.WithCancel(context.Background())
	k.stop = stop
	k.done.Go(func() { k.run(background) })
	return k, nil
}

// Close gives everything back. Leases that are still held are lost.
func (k *Keeper) Close() {
	k.stop()
	k.done.Wait()
}

// Acquire waits until this process may use a bind of an operator that has so
// many binds in all. It returns the error of ctx when that ends first. For a nil
// Keeper it returns a nil Lease.
func (k *Keeper) Acquire(ctx context.Context, operator string, number, binds int) (*Lease, error) {
	if k == nil {
		return nil, ctx.Err()
	}
	b := bind{operator, number}
	granted := make(chan *Lease, 1)
	k.mu.Lock()
	if k.operators[operator] == nil {
		k.operators[operator] = &standing{processes: 1}
	}
	k.operators[operator].binds = binds
	k.waiting[b] = granted
	k.mu.Unlock()
	k.nudge()
	select {
	case l := <-granted:
		return l, nil
	case <-ctx.Done():
	}
	k.mu.Lock()
	delete(k.waiting, b)
	k.mu.Unlock()
	select {
	case l := <-granted: // in the same moment
		l.Release()
	default:
	}
	return nil, ctx.Err()
}

// Linked takes note whether this process can send to an operator now.
func (k *Keeper) Linked(operator string, up bool) {
	if k == nil {
		return
	}
	k.mu.Lock()
	if k.operators[operator] == nil {
		k.operators[operator] = &standing{processes: 1}
	}
	changed := k.operators[operator].link != up
	k.operators[operator].link = up
	k.mu.Unlock()
	if changed {
		k.nudge()
	}
}

// AnyLinked reports whether some process could send to the operator at the last
// beat.
func (k *Keeper) AnyLinked(operator string) bool {
	if k == nil {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.operators[operator]
	return s != nil && (s.others > 0 || s.link)
}

// Shared reports whether, at the last beat, another process could send to the
// operator, too.
func (k *Keeper) Shared(operator string) bool {
	if k == nil {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.operators[operator]
	return s != nil && s.others > 0
}

// Valid reports whether the lease holds. It is cheap enough to be asked before
// every write.
func (l *Lease) Valid() bool {
	return l == nil || !l.lost.Load() && int64(time.Since(l.keeper.since)) < l.keeper.until.Load()
}

// Ended is closed when the bind is to be given up: because another process is to
// have it, or has it already ([Lease.Lost]).
func (l *Lease) Ended() <-chan struct{} {
	if l == nil {
		return nil
	}
	return l.ended
}

// Lost reports that the lease does not hold any more, so that no moment must be
// lost over a polite end.
func (l *Lease) Lost() bool { return l != nil && l.lost.Load() }

// Release gives the lease back, once the bind is closed.
func (l *Lease) Release() {
	if l == nil {
		return
	}
	l.end()
	k := l.keeper
	k.mu.Lock()
	if k.held[l.bind] == l {
		delete(k.held, l.bind)
		if !l.lost.Load() {
			k.released = append(k.released, l.bind)
		}
	}
	k.mu.Unlock()
	k.nudge()
}

// Yield offers the lease to other processes for a while, since this one cannot
// use it. It is false when there is no other; then nothing has changed.
func (l *Lease) Yield(pause time.Duration) bool {
	if l == nil {
		return false
	}
	k := l.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	if s := k.operators[l.bind.operator]; s == nil || s.processes < 2 {
		return false
	}
	k.notBefore[l.bind] = time.Now().Add(pause)
	l.end()
	return true
}

func (l *Lease) end() { l.once.Do(func() { close(l.ended) }) }

func (k *Keeper) nudge() {
	select {
	case k.poke <- struct{}{}:
	default:
	}
}

// run beats until ctx ends.
func (k *Keeper) run(ctx context.Context) {
	ticker := time.NewTicker(k.cfg.Beat)
	defer ticker.Stop()
	defer k.loseAll()
	for {
		if k.conn == nil {
			k.reconnect(ctx)
		}
		if k.conn != nil {
			if err := k.beat(ctx); err != nil && ctx.Err() == nil {
				k.cfg.Log.Warn("the connection that holds the leases broke", "error", err)
				k.drop()
				continue // reconnect at once
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-k.poke:
		}
	}
}

// drop closes the connection, whatever state it is in.
func (k *Keeper) drop() {
	ctx, cancel := context.WithTimeout(context.Background(), statementTime)
	defer cancel()
	_ = k.conn.Close(ctx) // it is broken
	k.conn = nil
}

func (k *Keeper) loseAll() {
	if k.conn != nil {
		k.drop()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for b, l := range k.held {
		k.lose(b, l)
	}
}

// lose ends a lease that another may have now; k.mu is held.
func (k *Keeper) lose(b bind, l *Lease) {
	l.lost.Store(true)
	l.end()
	delete(k.held, b)
}

// connect takes the process's own lock on a new connection.
func (k *Keeper) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, statementTime)
	defer cancel()
	settings, err := pgx.ParseConfig(k.cfg.URL)
	if err != nil {
		return fmt.Errorf("database.url: %w", err)
	}
	settings.RuntimeParams["application_name"] = k.cfg.Process + " leases"
	settings.RuntimeParams["idle_session_timeout"] = fmt.Sprint(k.cfg.Life.Milliseconds())
	sent := time.Now()
	conn, err := pgx.ConnectConfig(ctx, settings)
	if err != nil {
		return err
	}
	// What is left of the connection before, if the network swallowed its end,
	// still holds our own locks.
	_, err = conn.Exec(ctx, `
		SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND application_name = $2`,
		int64(k.backend), k.cfg.Process+" leases")
	if err == nil {
		_, err = conn.Exec(ctx, `SELECT pg_advisory_lock(`+processKey+`)`, k.cfg.Process)
	}
	if err != nil {
		closing, cancel := context.WithTimeout(context.Background(), statementTime)
		defer cancel()
		_ = conn.Close(closing)
		return err
	}
	k.conn, k.backend = conn, conn.PgConn().PID()
	k.contends, k.links = make(map[string]bool), make(map[string]bool)
	return k.lockAgain(ctx, sent)
}

// reconnect does the same after a break.
func (k *Keeper) reconnect(ctx context.Context) {
	err := k.connect(ctx)
	if err == nil {
		k.back = time.Now()
		k.cfg.Log.Info("the leases are kept by a new connection")
		return
	}
	k.conn = nil
	if ctx.Err() == nil {
		k.cfg.Log.Warn("connect for the leases", "error", err)
	}
	select {
	case <-ctx.Done():
	case <-time.After(reconnectWait):
	}
}

// lockAgain takes the locks of the leases that are held, on a new connection.
// Those that another process has by now are lost.
func (k *Keeper) lockAgain(ctx context.Context, sent time.Time) error {
	k.mu.Lock()
	held := make([]bind, 0, len(k.held))
	for b := range k.held {
		held = append(held, b)
	}
	k.released = nil // the old connection has released them
	k.mu.Unlock()
	for _, b := range held {
		ours, err := k.try(ctx, b)
		if err != nil {
			return err
		}
		if !ours {
			k.mu.Lock()
			if l := k.held[b]; l != nil {
				k.lose(b, l)
			}
			k.mu.Unlock()
			k.metrics.lost.WithLabelValues(b.operator).Inc()
			k.cfg.Log.Warn("another process has the bind now", "operator", b.operator, "bind", b.number)
		}
	}
	k.extend(sent)
	return nil
}

// extend lets the leases hold, from a moment before the database was last asked,
// for less than it takes until another process has them: that waits for the
// courtesy after it saw the locks gone, which the database takes away after a
// life, or at any moment when somebody ends the session or the server.
func (k *Keeper) extend(sent time.Time) {
	hold := min(k.cfg.Life, k.cfg.Courtesy)
	k.until.Store(int64(sent.Sub(k.since) + hold - hold/margin))
}

// processKey, bindKey and the like are the names of the locks, in SQL.
const (
	processKey = `hashtextextended('zvonok process ' || $1, 0)`
	bindKey    = `hashtextextended('zvonok bind ' || $1::text || ' ' || $2::int, 0)`
	wantKey    = `hashtextextended('zvonok binds wanted ' || $1, 0)`
	linkKey    = `hashtextextended('zvonok link ' || $1, 0)`
)

func (k *Keeper) try(ctx context.Context, b bind) (ours bool, err error) {
	if err := k.conn.QueryRow(ctx, `SELECT pg_try_advisory_lock(`+bindKey+`)`, b.operator, b.number).Scan(&ours); err != nil {
		return false, fmt.Errorf("take the lease of bind %d of operator %s: %w", b.number, b.operator, err)
	}
	return ours, nil
}

// beat shows PostgreSQL that we live, learns how things stand, and gives and
// takes what is due.
func (k *Keeper) beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, statementTime)
	defer cancel()
	if err := k.announce(ctx); err != nil {
		return err
	}
	k.mu.Lock()
	names, binds := make([]string, 0, len(k.operators)), make([]int, 0, len(k.operators))
	for name, s := range k.operators {
		names, binds = append(names, name), append(binds, s.binds)
	}
	k.mu.Unlock()
	sent := time.Now()
	rows, err := k.conn.Query(ctx, `
		WITH locks AS MATERIALIZED (
			SELECT (classid::bigint << 32) | objid::bigint AS key, pid FROM pg_locks
			WHERE locktype = 'advisory' AND objsubid = 1 AND granted
			  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
		)
		SELECT o.name,
			(SELECT count(*) FROM locks WHERE key = hashtextextended('zvonok binds wanted ' || o.name, 0)),
			(SELECT count(*) FROM locks WHERE key = hashtextextended('zvonok link ' || o.name, 0) AND pid <> pg_backend_pid()),
			ARRAY (SELECT coalesce(max(l.pid), 0)
				FROM generate_series(0, o.binds - 1) AS n
				LEFT JOIN locks AS l ON l.key = hashtextextended('zvonok bind ' || o.name || ' ' || n, 0)
				GROUP BY n ORDER BY n),
			ARRAY (SELECT pid FROM locks WHERE key = hashtextextended('zvonok binds wanted ' || o.name, 0))
		FROM unnest($1::text[], $2::int[]) AS o (name, binds)`, names, binds)
	if err != nil {
		return fmt.Errorf("beat: %w", err)
	}
	free := make(map[string][]int)
	var (
		name      string
		processes int
		others    int
		holders   []int32
		wanting   []int32
	)
	_, err = pgx.ForEachRow(rows, []any{&name, &processes, &others, &holders, &wanting}, func() error {
		k.mu.Lock()
		defer k.mu.Unlock()
		s := k.operators[name]
		s.processes, s.others = max(processes, 1), others
		free[name] = k.free(name, holders, wanting, sent)
		return nil
	})
	if err != nil {
		return fmt.Errorf("beat: %w", err)
	}
	k.extend(sent)
	for _, b := range k.take(&k.released) {
		if _, err := k.conn.Exec(ctx, `SELECT pg_advisory_unlock(`+bindKey+`)`, b.operator, b.number); err != nil {
			return fmt.Errorf("give back bind %d of operator %s: %w", b.number, b.operator, err)
		}
	}
	k.share()
	return k.grant(ctx, free)
}

// free returns the binds that may be taken of those that nobody holds: holders
// are the backends that do, 0 for none, wanting those that share the operator.
// A bind that was held before is left alone for the courtesy: its holder may have
// lost no more than its connection. If that was given back and is wanted by its
// holder's session still, a beat is enough to know it: the locks of a session that
// ends go within an instant, but not at one.
func (k *Keeper) free(operator string, holders, wanting []int32, sent time.Time) []int {
	seen := time.Now() // the holder may have beaten after we asked
	var free []int
	for n, holder := range holders {
		b := bind{operator, n}
		last, held := k.seen[b]
		switch {
		case holder != 0:
			k.seen[b] = sighting{backend: holder}
			continue
		case held && last.free.IsZero():
			last.free = seen
			k.seen[b] = last
		}
		wait := time.Duration(0)
		if held {
			wait = k.cfg.Courtesy
		}
		if held && slices.Contains(wanting, last.backend) {
			wait = k.cfg.Beat
		}
		// Whoever held it when our connection broke may have lost it in the same way.
		back := !k.back.IsZero() && sent.Sub(k.back) < max(k.cfg.Life, k.cfg.Courtesy)
		if !back && sent.Sub(last.free) >= wait {
			free = append(free, n)
		}
	}
	return free
}

func (k *Keeper) take(list *[]bind) []bind {
	k.mu.Lock()
	defer k.mu.Unlock()
	taken := *list
	*list = nil
	return taken
}

// announce takes the shared locks by which processes count each other.
func (k *Keeper) announce(ctx context.Context) error {
	type change struct {
		sql, operator string
		marks         map[string]bool
		on            bool
	}
	var changes []change
	k.mu.Lock()
	for name, s := range k.operators {
		if s.binds > 0 && !k.contends[name] {
			changes = append(changes, change{`SELECT pg_advisory_lock_shared(` + wantKey + `)`, name, k.contends, true})
		}
		if s.link && !k.links[name] {
			changes = append(changes, change{`SELECT pg_advisory_lock_shared(` + linkKey + `)`, name, k.links, true})
		}
		if !s.link && k.links[name] {
			changes = append(changes, change{`SELECT pg_advisory_unlock_shared(` + linkKey + `)`, name, k.links, false})
		}
	}
	k.mu.Unlock()
	for _, c := range changes {
		if _, err := k.conn.Exec(ctx, c.sql, c.operator); err != nil {
			return fmt.Errorf("announce: %w", err)
		}
		c.marks[c.operator] = c.on
	}
	return nil
}

// share asks for leases back that are more than this process's share.
func (k *Keeper) share() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for name, s := range k.operators {
		var ours []*Lease
		for b, l := range k.held {
			if b.operator == name {
				ours = append(ours, l)
			}
		}
		k.metrics.held.WithLabelValues(name).Set(float64(len(ours)))
		if len(ours) <= s.fair() {
			continue
		}
		slices.SortFunc(ours, func(a, b *Lease) int { return cmp.Compare(a.bind.number, b.bind.number) })
		for _, l := range ours[s.fair():] {
			l.end()
		}
	}
}

// fair is how many binds one process may have.
func (s *standing) fair() int { return (s.binds + s.processes - 1) / s.processes }

// grant takes free leases that somebody here waits for, up to the share.
func (k *Keeper) grant(ctx context.Context, free map[string][]int) error {
	now := time.Now()
	for name, numbers := range free {
		for _, number := range numbers {
			b := bind{name, number}
			k.mu.Lock()
			_, wanted := k.waiting[b]
			s := k.operators[name]
			count := 0
			for other := range k.held {
				if other.operator == name {
					count++
				}
			}
			may := wanted && count < s.fair() &&
				(s.processes == 1 || !now.Before(k.notBefore[b]))
			k.mu.Unlock()
			if !may {
				continue
			}
			ours, err := k.try(ctx, b)
			if err != nil {
				return err
			}
			if ours {
				k.hand(b)
			}
		}
	}
	return nil
}

// hand gives a lease to the one that waits for it.
func (k *Keeper) hand(b bind) {
	k.mu.Lock()
	defer k.mu.Unlock()
	granted, wanted := k.waiting[b]
	if !wanted {
		k.released = append(k.released, b)
		return
	}
	delete(k.waiting, b)
	delete(k.notBefore, b)
	l := &Lease{keeper: k, bind: b, ended: make(chan struct{})}
	k.held[b] = l
	granted <- l
}

// Dead reports that no process of that name lives, and keeps it so until the
// end of the transaction.
func Dead(ctx context.Context, tx pgx.Tx, process string) (bool, error) {
	var dead bool
	if err := tx.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock(`+processKey+`)`, process).Scan(&dead); err != nil {
		return false, fmt.Errorf("ask after process %s: %w", process, err)
	}
	return dead, nil
}

// ErrEnded is why a link was given up.
var ErrEnded = errors.New("the lease of the bind has ended")

type metrics struct {
	held *prometheus.GaugeVec
	lost *prometheus.CounterVec
}

func newMetrics(registry prometheus.Registerer) *metrics {
	m := &metrics{
		held: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "zvonok_lease_held", Help: "Binds of the operator whose lease this process holds.",
		}, []string{"operator"}),
		lost: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zvonok_lease_lost_total", Help: "Leases that another process took while this one held them.",
		}, []string{"operator"}),
	}
	if registry != nil {
		registry.MustRegister(m.held, m.lost)
	}
	return m
}
