package ledger

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts what the book does. Verdicts are counted when they are given;
// those of a transaction that is rolled back stay counted.
type Metrics struct {
	verdicts  *prometheus.CounterVec
	forced    prometheus.Counter
	crossings prometheus.Counter
	batch     prometheus.Histogram
	// single and batched are how long calls of the book took; failed counts those
	// that the database undid.
	single, batched prometheus.Observer
	failed          *prometheus.CounterVec
	// deadlocks is what the server has counted.
	deadlocks atomic.Int64
	lockWaits prometheus.Histogram
	foldRows  prometheus.Gauge
	foldAge   prometheus.Gauge
	foldXid   prometheus.Gauge
	foldXids  prometheus.Gauge
	unsealed  prometheus.Gauge
	// verified and verifiedAt are of the last verification, whoever did it.
	verified   *prometheus.GaugeVec
	verifiedAt prometheus.Gauge
}

// NewMetrics makes the metrics and registers them.
func NewMetrics(registerer prometheus.Registerer) *Metrics {
	m := &Metrics{
		verdicts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zvonok_ledger_entries_total",
			Help: "Entries brought to the book, by kind and verdict.",
		}, []string{"kind", "verdict"}),
		forced: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "zvonok_ledger_forced_debits_total",
			Help: "Debits booked whatever the balance, because they were made offline.",
		}),
		crossings: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "zvonok_ledger_crossings_total",
			Help: "Thresholds crossed.",
		}),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "zvonok_ledger_batch_entries",
			Help:    "Entries per call of the book.",
			Buckets: prometheus.ExponentialBuckets(1, 4, 7),
		}),
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zvonok_ledger_failed_calls_total",
			Help: "Calls of the book that booked nothing because of the database, by reason; whoever made them repeats them.",
		}, []string{"reason"}),
		lockWaits: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "zvonok_ledger_lock_wait_seconds",
			Help:    "How long calls of the book took to get the locks of their wallets and days, or until they were refused them.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 9),
		}),
		foldXid: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "zvonok_ledger_fold_oldest_xid",
			Help: "The oldest transaction that still runs, whose postings and all later ones are not folded, as the book counts transactions.",
		}),
		foldXids: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "zvonok_ledger_fold_lag_transactions",
			Help: "How many transactions have begun since the oldest that still runs.",
		}),
		foldRows: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "zvonok_ledger_fold_lag_postings",
			Help: "Postings not yet folded into the totals of system accounts.",
		}),
		foldAge: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "zvonok_ledger_fold_lag_seconds",
			Help: "Age of the oldest posting not yet folded; a long transaction anywhere in the database holds it up.",
		}),
		unsealed: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "zvonok_ledger_missing_seals",
			Help: "Closed days without a seal.",
		}),
		verified: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "zvonok_ledger_verify_violations",
			Help: "Violations found by the last verification of any process, by invariant.",
		}, []string{"invariant"}),
		verifiedAt: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "zvonok_ledger_verify_timestamp_seconds",
			Help: "When any process last verified the books; 0 if none ever has.",
		}),
	}
	calls := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "zvonok_ledger_call_seconds",
		Help:    "How long calls of the book took in the database, with waiting for locks, of one entry or of several.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2.5, 11),
	}, []string{"entries"})
	m.single, m.batched = calls.WithLabelValues("one"), calls.WithLabelValues("several")
	deadlocks := prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "zvonok_ledger_deadlocks_total",
		Help: "Deadlocks in the database since its statistics began, as the server counts them.",
	}, func() float64 { return float64(m.deadlocks.Load()) })
	for _, reason := range failures() {
		m.failed.WithLabelValues(reason)
	}
	for _, kind := range Kinds() {
		for _, code := range Codes() {
			m.verdicts.WithLabelValues(string(kind), string(code))
		}
	}
	for _, check := range invariants {
		for _, name := range check.Names {
			m.verified.WithLabelValues(name)
		}
	}
	registerer.MustRegister(m.verdicts, m.forced, m.crossings, m.batch, calls, m.failed, deadlocks, m.lockWaits,
		m.foldRows, m.foldAge, m.foldXid, m.foldXids, m.unsealed, m.verified, m.verifiedAt)
	return m
}

// failures are why the database undoes a call.
func failures() []string {
	return []string{"deadlock", "serialisation", "lock_timeout", "statement_timeout", "other"}
}

// failureOf names the reason of an error.
func failureOf(err error) string {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		switch pgErr.Code {
		case "40P01":
			return "deadlock"
		case "40001":
			return "serialisation"
		case "55P03":
			return "lock_timeout"
		case "57014":
			return "statement_timeout"
		}
	}
	return "other"
}

// called records how long a call took, and how it failed if it did. One that was
// refused a lock has waited for it all the time.
func (m *Metrics) called(entries int, took time.Duration, err error) {
	switch {
	case m == nil:
	case err != nil:
		m.refused(took, err)
	case entries == 1:
		m.single.Observe(took.Seconds())
	default:
		m.batched.Observe(took.Seconds())
	}
}

// locked records how long wallets were waited for.
func (m *Metrics) locked(took time.Duration, err error) {
	switch {
	case m == nil:
	case err != nil:
		m.refused(took, err)
	default:
		m.waited(took.Seconds())
	}
}

// waited records how many seconds a call waited for its locks.
func (m *Metrics) waited(seconds float64) {
	if m != nil {
		m.lockWaits.Observe(seconds)
	}
}

func (m *Metrics) refused(took time.Duration, err error) {
	reason := failureOf(err)
	m.failed.WithLabelValues(reason).Inc()
	if reason == "deadlock" || reason == "lock_timeout" {
		m.waited(took.Seconds())
	}
}

// crossed records crossings that no posting made.
func (m *Metrics) crossed(crossings int) {
	if m != nil {
		m.crossings.Add(float64(crossings))
	}
}

// count records the verdicts of one call.
func (m *Metrics) count(entries []Entry, verdicts []Verdict, crossings int) {
	if m == nil {
		return
	}
	m.batch.Observe(float64(len(entries)))
	m.crossings.Add(float64(crossings))
	for i, v := range verdicts {
		m.verdicts.WithLabelValues(string(entries[i].Kind), string(v.Code)).Inc()
		if v.Code == CodePosted && entries[i].Mode == Offline {
			m.forced.Inc()
		}
	}
}

func (m *Metrics) setFoldLag(lag FoldLag) {
	if m == nil {
		return
	}
	m.foldRows.Set(float64(lag.Postings))
	m.foldAge.Set(lag.Age.Seconds())
	m.unsealed.Set(float64(lag.UnsealedDays))
	m.foldXid.Set(float64(lag.OldestXid))
	m.foldXids.Set(float64(lag.Transactions))
}

func (m *Metrics) setDeadlocks(deadlocks int64) {
	if m != nil {
		m.deadlocks.Store(deadlocks)
	}
}

func (m *Metrics) setVerified(v Verification) {
	if m == nil || v.At.IsZero() {
		return
	}
	for name, found := range v.Found {
		m.verified.WithLabelValues(name).Set(float64(found))
	}
	m.verifiedAt.Set(float64(v.At.Unix()))
}
