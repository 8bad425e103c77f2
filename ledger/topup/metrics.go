package topup

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts what banks ask and are told.
type Metrics struct {
	requests  *prometheus.CounterVec
	seconds   *prometheus.HistogramVec
	forbidden *prometheus.CounterVec
	suspense  *prometheus.CounterVec
	alarms    prometheus.Counter
	conflicts prometheus.Counter
	// What waits for a person, as MeasureOpen found it last.
	open, openRoubles, openOldest *prometheus.GaugeVec
}

// NewMetrics makes the metrics and registers them.
func NewMetrics(registerer prometheus.Registerer) *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zvonok_topup_requests_total",
			Help: "Requests of banks, by command and outcome.",
		}, []string{"command", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "zvonok_topup_request_seconds",
			Help:    "How long banks waited for an answer.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2.5, 11),
		}, []string{"command"}),
		forbidden: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zvonok_topup_forbidden_total",
			Help: "Requests answered 403, by what was wrong.",
		}, []string{"reason"}),
		suspense: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zvonok_topup_suspense_total",
			Help: "Payments that went to the suspense account, by reason; each waits for someone.",
		}, []string{"reason"}),
		alarms: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "zvonok_topup_enumeration_alarms_total",
			Help: "Times that someone was seen walking through account numbers.",
		}),
		conflicts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "zvonok_topup_conflicts_total",
			Help: "Payments under an id of another payment; each is to be cleared up with the bank.",
		}),
	}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "zvonok_topup_open" + name, Help: help}, []string{"what"})
	}
	m.open = gauge("", "What waits for a person: lines of registries that wait for a later file (waiting) or are in dispute (disputed), payments in suspense, refunds of which nobody has said how they ended (refund), and days of the last week without a registry (no_registry).")
	m.openRoubles = gauge("_roubles", "The differences between bank and books, or the payments, of what waits for a person.")
	m.openOldest = gauge("_oldest_seconds", "How long the oldest of what waits for a person has waited; 0 when nothing does.")
	for _, c := range commands() {
		for _, outcome := range Outcomes() {
			m.requests.WithLabelValues(string(c), string(outcome))
		}
		m.seconds.WithLabelValues(string(c))
	}
	for _, r := range refusals() {
		m.forbidden.WithLabelValues(string(r))
	}
	for _, r := range []reason{toClosed, toLeft, foreignPayee, toUnknown, outsideLimits} {
		m.suspense.WithLabelValues(string(r))
	}
	registerer.MustRegister(m.requests, m.seconds, m.forbidden, m.suspense, m.alarms, m.conflicts,
		m.open, m.openRoubles, m.openOldest)
	return m
}

func (m *Metrics) answered(c command, outcome Outcome, took time.Duration) {
	if m == nil {
		return
	}
	m.requests.WithLabelValues(string(c), string(outcome)).Inc()
	m.seconds.WithLabelValues(string(c)).Observe(took.Seconds())
	if outcome == Conflict {
		m.conflicts.Inc()
	}
}

func (m *Metrics) refused(r refusal) {
	if m != nil {
		m.forbidden.WithLabelValues(string(r)).Inc()
	}
}

func (m *Metrics) suspended(r reason) {
	if m != nil {
		m.suspense.WithLabelValues(string(r)).Inc()
	}
}

func (m *Metrics) walked() {
	if m != nil {
		m.alarms.Inc()
	}
}
