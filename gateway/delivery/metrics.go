package delivery

import (
	"github.com/prometheus/client_golang/prometheus"

	"zvonok/gateway/carrier"
)

// Metrics counts what became of messages.
type Metrics struct {
	outcomes *prometheus.CounterVec
	receipts *prometheus.CounterVec
	resends  prometheus.Counter
	rerouted *prometheus.CounterVec
	shared   *prometheus.CounterVec
	waiting  *prometheus.GaugeVec
	oldest   *prometheus.GaugeVec
	latency  prometheus.Histogram
	owed     *prometheus.CounterVec
	owing    *prometheus.GaugeVec
	owedAge  *prometheus.GaugeVec
}

// NewMetrics registers the package's metrics. Operators are pre-created so that
// a zero is visible before the first failure.
func NewMetrics(r prometheus.Registerer, operators []string) *Metrics {
	m := &Metrics{
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zvonok_delivery_outcomes_total",
			Help: "Outcomes of attempts to send an SMS or a letter, by operator and class (smpp.md, Outcome classes).",
		}, []string{"operator", "class"}),
		receipts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zvonok_delivery_receipts_total",
			Help: "Receipts matched to a part of a message, by operator and state.",
		}, []string{"operator", "state"}),
		resends: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "zvonok_delivery_resends_total",
			Help: "Messages with an unknown outcome that were sent once more.",
		}),
		rerouted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zvonok_delivery_rerouted_total",
			Help: "Messages that went by another operator because theirs had no link, by the operator they left.",
		}, []string{"operator"}),
		shared: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zvonok_delivery_shared_total",
			Help: "Messages of the operator that this process took off another one, which had more than it could send.",
		}, []string{"operator"}),
		waiting: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "zvonok_delivery_waiting",
			Help: "Messages due and without an outcome, in the database, by operator. Every process tells the same.",
		}, []string{"operator"}),
		oldest: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "zvonok_delivery_oldest_seconds",
			Help: "Age of the oldest of them; zero without any.",
		}, []string{"operator"}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "zvonok_delivery_submit_seconds",
			Help:    "Time from the storing of a message to the answer of the operator that took it.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2, 5, 15, 60, 300, 900},
		}),
		owed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zvonok_delivery_owed_receipts_total",
			Help: "Receipts that gateways bound to us had asked for, by operator and outcome.",
		}, []string{"operator", "outcome"}),
		owing: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "zvonok_delivery_owed_receipts",
			Help: "Receipts still owed to the operator's gateway. Every process tells the same.",
		}, []string{"operator"}),
		owedAge: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "zvonok_delivery_owed_receipts_oldest_seconds",
			Help: "Age of the oldest of them; zero without any.",
		}, []string{"operator"}),
	}
	r.MustRegister(m.outcomes, m.receipts, m.resends, m.rerouted, m.shared, m.waiting, m.oldest, m.latency, m.owed, m.owing, m.owedAge)
	for _, operator := range operators {
		m.rerouted.WithLabelValues(operator)
		m.shared.WithLabelValues(operator)
		m.waiting.WithLabelValues(operator)
		m.oldest.WithLabelValues(operator)
		m.owing.WithLabelValues(operator)
		m.owedAge.WithLabelValues(operator)
		for _, outcome := range []string{owedGiven, owedRefused, owedDropped} {
			m.owed.WithLabelValues(operator, outcome)
		}
		for _, class := range carrier.Classes() {
			m.outcomes.WithLabelValues(operator, string(class))
		}
		for _, state := range []string{partEnroute, partUnknown, partDelivered, partUndelivered, partExpired, partDeleted, partRejected} {
			m.receipts.WithLabelValues(operator, state)
		}
	}
	return m
}

func (m *Metrics) outcome(operator string, class carrier.Class) {
	m.outcomes.WithLabelValues(operator, string(class)).Inc()
}

func (m *Metrics) receipt(operator, state string) {
	m.receipts.WithLabelValues(operator, state).Inc()
}
