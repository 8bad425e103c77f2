package pg

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// Limits of reading from a replica.
const (
	// beatEvery is how often primary and replica are asked where they are. What is read is so old at least, at worst,
	// when the replica is as fast as it can be.
	beatEvery = 250 * time.Millisecond
	// beatTime bounds both questions together; a connection that has to be made is in it.
	beatTime = 2 * time.Second
	// replicaTime is how long a read may take on the replica before it is begun anew on the primary: a person who
	// dialled is answered in time all the same.
	replicaTime = time.Second
	// replicaRest is for how long a replica that broke a read, or was too slow for it, is left alone, however well it
	// tells where it is.
	replicaRest = 10 * time.Second
	// marksKept bounds what is remembered of a primary whose replica does not follow: a quarter of an hour.
	marksKept = 4096
)

// ErrNotReplica says that database.replica_url leads to a server that does not follow the primary: another cluster,
// one that was promoted, or one that follows another branch of the primary's history.
var ErrNotReplica = errors.New("it is no replica of the primary")

// ErrBehind is what a read gives back, its results all the same, when it finds by itself that it has read a state older
// than one that is known. To the primary it means nothing.
var ErrBehind = errors.New("the replica is behind")

// Reader reads what may be a moment old and decides nothing: from a replica while that is fit, else from the primary.
//
// # How old
//
// Four times a second the primary is asked for its position in the log, and the replica up to which it has replayed it.
// What was committed before a question that the replica's answer covers can be read there: the time since that question
// was asked is the replica's lag. So an idle primary makes no lag, and neither clock matters but our own. A replica whose
// lag exceeds ReaderConfig.MaxLag is not read; a beat that does not come back lets the lag grow like a replica that
// stands still, so nobody need notice that it hangs.
//
// # Whose
//
// A replica of another cluster, a server that was promoted by mistake and one that follows another branch than the
// primary after a failover would give wrong answers fast. Each beat compares the system identifier, whether it is in
// recovery and the timeline, and such a server is not read whatever its position. (After a failover it is recognised
// again when it has finished a restartpoint on the new timeline, minutes later at most.)
//
// # When it fails
//
// A read that the replica breaks, or does not finish within a second, is begun anew on the primary, and nobody hears of
// it; the replica is left alone for ten seconds then. A read that was cancelled because the replica had to replay what
// it stood in the way of is repeated too, but says nothing against the replica.
//
// # What belongs here
//
// Nothing that decides: rights, money that is spent, what a change depends on. Nothing that its reader has just written
// himself, or would miss: whoever has topped an account up looks for it at once. What the primary can say in one row,
// the balance and how many movements led to it, it says, and a list that comes from here and lacks the last of them is
// ErrBehind. What is left is as old as MaxLag at most, which is less than news of it take to reach a person.
type Reader struct {
	primary *pgxpool.Pool
	replica *pgxpool.Pool // nil when there is none
	maxLag  time.Duration
	log     *slog.Logger
	metrics *readerMetrics

	// One connection each for the beat, which must not wait behind reads.
	askPrimary, askReplica *pgxpool.Pool

	mu        sync.Mutex
	marks     []mark    // of the primary, which the replica has not replayed yet; the oldest first
	confirmed time.Time // what was committed before can be read on the replica
	trouble   error     // why the last beat failed; nil when it did not
	resting   time.Time // until then the replica is left alone
	failed    error     // of the read after which it rests
	state     readerState
}

// mark is a position of the primary, in octets of its log.
type mark struct {
	at       time.Time // just before it was asked for
	position int64
}

// readerState is where reads go, and why.
type readerState string

const (
	stateAlone   readerState = ""            // there is no replica in the settings
	stateUsed    readerState = "used"        // reads go to the replica
	stateBehind  readerState = "behind"      // it lags, or nobody knows how far
	stateAway    readerState = "unreachable" // it does not answer, or did not in time
	stateRefused readerState = "refused"     // it is no replica of the primary
)

// ReaderConfig says how to open a Reader. All but Replica is required.
type ReaderConfig struct {
	// Primary is the pool of the primary. The caller closes it, after the Reader.
	Primary *pgxpool.Pool
	// Replica says how to reach the replica; without a URL everything is read from the primary.
	Replica Config
	// MaxLag is how old what is read may be.
	MaxLag  time.Duration
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// NewReader returns a Reader of the primary alone, for whoever has no replica.
func NewReader(primary *pgxpool.Pool) *Reader { return &Reader{primary: primary} }

// OpenReader opens a Reader and looks at the replica once. A replica that does not answer is no error, it is read as
// soon as it does; a server that belongs to another cluster gives ErrNotReplica, since that is a mistake in the settings.
// The caller runs Run, and closes the Reader after the last read.
func OpenReader(ctx context.Context, config ReaderConfig) (*Reader, error) {
	r := &Reader{
		primary: config.Primary, maxLag: config.MaxLag, log: config.Log, metrics: newReaderMetrics(config.Metrics),
		confirmed: time.Now().Add(-config.MaxLag - 1), // it is too old until it has shown itself
	}
	if config.Replica.URL == "" {
		return r, nil
	}
	pc, err := poolConfig(config.Replica)
	if err != nil {
		return nil, err
	}
	// Whose server it is must come out before a role is asked for that it does not know.
	ask, askPrimary := pc.Copy(), config.Primary.Config()
	for _, one := range []*pgxpool.Config{ask, askPrimary} {
		one.MaxConns, one.MinConns, one.MinIdleConns, one.AfterConnect = 1, 0, 0, nil
	}
	for pool, config := range map[**pgxpool.Pool]*pgxpool.Config{
		&r.replica: pc, &r.askReplica: ask, &r.askPrimary: askPrimary,
	} {
		if *pool, err = pgxpool.NewWithConfig(context.WithoutCancel(ctx), config); err != nil {
			r.Close()
			return nil, fmt.Errorf("open the pool of connections to the replica: %w", err)
		}
	}
	config.Metrics.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "zvonok_database_replica_lag_seconds", Help: "How old what is read from the replica is, at most.",
	}, func() float64 { return r.lag().Seconds() }))
	r.beat(ctx)
	if err := r.refusal(); errors.Is(err, errOtherCluster) {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Run keeps an eye on the replica until ctx ends.
func (r *Reader) Run(ctx context.Context) {
	if r.replica == nil {
		return
	}
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			r.beat(ctx)
		}
	}
}

// Close closes the connections to the replica.
func (r *Reader) Close() {
	for _, pool := range []*pgxpool.Pool{r.replica, r.askReplica, r.askPrimary} {
		if pool != nil {
			pool.Close()
		}
	}
}

// Replica is the pool of the replica, nil without one.
func (r *Reader) Replica() *pgxpool.Pool { return r.replica }

// String says where reads go, for people.
func (r *Reader) String() string {
	if r.replica == nil {
		return "no replica"
	}
	state, why := r.settle(time.Now())
	text := fmt.Sprintf("replica %s, lag %s", state, r.lag().Round(100*time.Millisecond))
	if state != stateUsed && why != nil {
		text += ": " + why.Error()
	}
	return text
}

// Read calls read with where to read from. It is called a second time, with the primary, when the replica fails it: read
// must do nothing but read, and put its results in place of earlier ones.
func (r *Reader) Read(ctx context.Context, read func(ctx context.Context, q Querier) error) error {
	if r.replica == nil {
		return fromPrimary(read(ctx, r.primary))
	}
	if state, _ := r.settle(time.Now()); state == stateUsed {
		limited, cancel := context.WithTimeout(ctx, replicaTime)
		err := read(limited, r.replica)
		cancel()
		if err == nil || ctx.Err() != nil {
			r.metrics.reads.WithLabelValues("replica").Inc()
			return err
		}
		// Whatever it was, the primary knows better: it may be a table that the replica does not have yet.
		r.metrics.repeated.Inc()
		if replicaAtFault(err) {
			r.leave(fmt.Errorf("a read: %w", err))
		}
	}
	r.metrics.reads.WithLabelValues("primary").Inc()
	return fromPrimary(read(ctx, r.primary))
}

// fromPrimary is the error of a read from the primary, which is not behind anything.
func fromPrimary(err error) error {
	if errors.Is(err, ErrBehind) {
		return nil
	}
	return err
}

// replicaAtFault says whether an error of a read speaks against the replica.
func replicaAtFault(err error) bool {
	var server *pgconn.PgError
	if errors.As(err, &server) && (server.Code == "40001" || server.Code == "40P01") {
		return false // in the way of what is replayed
	}
	return Temporary(err) || errors.Is(err, context.DeadlineExceeded)
}

// leave lets the replica rest.
func (r *Reader) leave(why error) {
	now := time.Now()
	r.mu.Lock()
	r.failed, r.resting = why, now.Add(replicaRest)
	r.mu.Unlock()
	r.settle(now)
}

// position is where a server is.
type position struct {
	system   int64
	timeline int32
	octets   int64
}

var errOtherCluster = fmt.Errorf("%w: it belongs to another cluster, with another system identifier", ErrNotReplica)

// The functions are open to everybody, pg_stat_wal_receiver is not: the timeline is that of the last restartpoint, or of
// the pages written since.
const (
	selectPrimary = `
		SELECT (pg_control_system()).system_identifier, ('x' || left(pg_walfile_name(at), 8))::bit(32)::int4,
		       pg_wal_lsn_diff(at, '0/0')::int8
		  FROM pg_current_wal_flush_lsn() AS at`
	selectReplica = `
		SELECT (pg_control_system()).system_identifier,
		       greatest((pg_control_checkpoint()).timeline_id, (pg_control_recovery()).min_recovery_end_timeline),
		       coalesce(pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::int8, 0), pg_is_in_recovery()`
)

// beat asks both servers where they are.
func (r *Reader) beat(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, beatTime)
	defer cancel()
	asked := time.Now()
	err := r.compare(ctx, asked)
	now := time.Now()
	r.mu.Lock()
	r.trouble = err
	r.mu.Unlock()
	if !errors.Is(ctx.Err(), context.Canceled) { // we stop
		r.settle(now)
	}
}

// compare learns how old the replica is. It returns why it cannot be read.
func (r *Reader) compare(ctx context.Context, asked time.Time) error {
	var primary, replica position
	if err := r.askPrimary.QueryRow(ctx, selectPrimary).Scan(&primary.system, &primary.timeline, &primary.octets); err != nil {
		// The replica may be well. Its lag grows until we know better.
		return &unknownError{fmt.Errorf("ask the primary where it is: %w", err)}
	}
	var following bool
	err := r.askReplica.QueryRow(ctx, selectReplica).Scan(&replica.system, &replica.timeline, &replica.octets, &following)
	switch {
	case err != nil:
		return fmt.Errorf("ask the replica where it is: %w", err)
	case replica.system != primary.system:
		return errOtherCluster
	case !following:
		return fmt.Errorf("%w: it is not in recovery, so it was promoted or is the primary itself", ErrNotReplica)
	case replica.timeline != primary.timeline:
		return fmt.Errorf("%w: it is on timeline %d and the primary on %d", ErrNotReplica, replica.timeline, primary.timeline)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mark(asked, primary.octets)
	for len(r.marks) > 0 && r.marks[0].position <= replica.octets {
		r.confirmed, r.marks = r.marks[0].at, r.marks[1:]
	}
	return nil
}

// mark remembers a position of the primary. One that has not moved needs no further mark, and without the oldest ones
// the lag is taken for longer than it is.
func (r *Reader) mark(at time.Time, position int64) {
	if n := len(r.marks); n > 0 && r.marks[n-1].position == position {
		r.marks[n-1].at = at
		return
	}
	if len(r.marks) == marksKept {
		r.marks = r.marks[1:]
	}
	r.marks = append(r.marks, mark{at, position})
}

// unknownError says that nothing is known of the replica.
type unknownError struct{ error }

func (e *unknownError) Unwrap() error { return e.error }

// settle decides where reads go at a moment, and says so when that changes.
func (r *Reader) settle(now time.Time) (readerState, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	lag := now.Sub(r.confirmed)
	var unknown *unknownError
	state, why := stateUsed, r.trouble
	switch {
	case errors.Is(r.trouble, ErrNotReplica):
		state = stateRefused
	case now.Before(r.resting):
		state, why = stateAway, r.failed
	case r.trouble != nil && !errors.As(r.trouble, &unknown):
		state = stateAway
	case lag > r.maxLag:
		state = stateBehind
		if why == nil {
			why = ErrBehind
		}
	}
	if state == r.state {
		return state, why
	}
	first := r.state == stateAlone
	r.state = state
	r.metrics.in(state)
	switch {
	case state == stateUsed && first:
		r.log.Info("USSD and the parents' pages read from the replica")
	case state == stateUsed:
		r.log.Info("USSD and the parents' pages read from the replica again", "lag", lag)
	case state == stateRefused:
		r.log.Error("database.replica_url is not read, USSD and the parents' pages read from the primary", "error", why)
	default:
		r.log.Warn("the replica is left, USSD and the parents' pages read from the primary", "why", state, "lag", lag, "error", why)
	}
	return state, why
}

func (r *Reader) lag() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Since(r.confirmed)
}

// refusal is why the replica is refused, nil if it is not.
func (r *Reader) refusal() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if errors.Is(r.trouble, ErrNotReplica) {
		return r.trouble
	}
	return nil
}

// readerMetrics are there without a replica too, as zeros.
type readerMetrics struct {
	states   *prometheus.GaugeVec
	reads    *prometheus.CounterVec
	repeated prometheus.Counter
}

func newReaderMetrics(registerer prometheus.Registerer) *readerMetrics {
	m := &readerMetrics{
		states: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "zvonok_database_replica", Help: "1 for the state that the replica is in; all 0 without one.",
		}, []string{"state"}),
		reads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zvonok_database_reads_total", Help: "What might be read from the replica, by where it was read. Counted with a replica only.",
		}, []string{"from"}),
		repeated: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "zvonok_database_replica_repeated_reads_total", Help: "Reads that the replica failed and the primary repeated.",
		}),
	}
	m.in(stateAlone)
	for _, from := range []string{"primary", "replica"} {
		m.reads.WithLabelValues(from)
	}
	registerer.MustRegister(m.states, m.reads, m.repeated)
	return m
}

func (m *readerMetrics) in(state readerState) {
	for _, s := range []readerState{stateUsed, stateBehind, stateAway, stateRefused} {
		value := 0.0
		if s == state {
			value = 1
		}
		m.states.WithLabelValues(string(s)).Set(value)
	}
}
