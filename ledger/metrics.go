package ledger

import (
	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts what the book does. Verdicts are counted when they are given;
// those of a transaction that is rolled back stay counted.
type Metrics struct {
	verdicts  *prometheus.CounterVec
	forced    prometheus.Counter
	crossings prometheus.Counter
	batch     prometheus.Histogram
	foldRows  prometheus.Gauge
	foldAge   prometheus.Gauge
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
	registerer.MustRegister(m.verdicts, m.forced, m.crossings, m.batch, m.foldRows, m.foldAge, m.unsealed,
		m.verified, m.verifiedAt)
	return m
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
