package notice

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"zvonok/gateway/subscription"
)

// Metrics counts what became of facts.
type Metrics struct {
	verdicts *prometheus.CounterVec
	digests  *prometheus.CounterVec
	delay    prometheus.Histogram
	batch    prometheus.Histogram
}

// NewMetrics registers the package's metrics, every reason at zero.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		verdicts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zvonok_notice_verdicts_total",
			Help: "What became of facts, per recipient and channel, by topic and reason (notices.md).",
		}, []string{"topic", "reason"}),
		digests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zvonok_notice_digests_total",
			Help: "What became of digests, per recipient, by kind and reason.",
		}, []string{"kind", "reason"}),
		delay: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "zvonok_notice_delay_seconds",
			Help:    "Time from a fact to its message, stored and about to be sent.",
			Buckets: []float64{.025, .05, .1, .25, .5, 1, 2, 5, 15, 60, 300, 900},
		}),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "zvonok_notice_batch_facts",
			Help:    "Facts told in one transaction.",
			Buckets: prometheus.ExponentialBuckets(1, 4, 7),
		}),
	}
	r.MustRegister(m.verdicts, m.digests, m.delay, m.batch)
	for _, topic := range Topics() {
		for _, reason := range Reasons() {
			m.verdicts.WithLabelValues(string(topic), string(reason))
		}
	}
	for _, kind := range []digestKind{daily, weekly} {
		for _, reason := range Reasons() {
			m.digests.WithLabelValues(string(kind), string(reason))
		}
	}
	return m
}

func (m *Metrics) verdict(topic subscription.Topic, reason Reason) {
	m.verdicts.WithLabelValues(string(topic), string(reason)).Inc()
}

func (m *Metrics) told(facts int, delay time.Duration) {
	m.batch.Observe(float64(facts))
	m.delay.Observe(delay.Seconds())
}
