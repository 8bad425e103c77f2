package carrier

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics of the carrier. Labels are the operators' names and closed lists; every series exists from the start.
type Metrics struct {
	messages     *prometheus.CounterVec // by operator and class
	answers      *prometheus.HistogramVec
	inbounds     *prometheus.CounterVec // by operator and kind
	receipts     *prometheus.CounterVec // by operator and state
	replies      *prometheus.CounterVec
	throttles    *prometheus.CounterVec
	circuits     *prometheus.CounterVec
	late         *prometheus.CounterVec
	linksLost    *prometheus.CounterVec
	bindFailures *prometheus.CounterVec // by operator and class
	strange      *prometheus.CounterVec
	alarms       *prometheus.CounterVec

	links      *prometheus.GaugeVec
	window     *prometheus.GaugeVec
	waiting    *prometheus.GaugeVec
	oldest     *prometheus.GaugeVec
	rate       *prometheus.GaugeVec
	configured *prometheus.GaugeVec
	limitedBy  *prometheus.GaugeVec // by operator and limit
}

// inboundKinds are the values of the label kind.
var inboundKinds = [...]string{
	"text", "text not stored", "receipt not stored", "unreadable receipt", "notification", "dial", "dial refused",
	"receipt not owed", "refused",
}

// NewMetrics makes the metrics and registers them; a nil registerer makes them invisible.
func NewMetrics(r prometheus.Registerer) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append([]string{"operator"}, labels...))
		if r != nil {
			r.MustRegister(c)
		}
		return c
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, append([]string{"operator"}, labels...))
		if r != nil {
			r.MustRegister(g)
		}
		return g
	}
	m := &Metrics{
		messages: counter("zvonok_carrier_messages_total", "Results of attempts to send, by outcome class.", "class"),
		inbounds: counter("zvonok_carrier_inbound_total", "Requests of operators that are no readable receipts.", "kind"),
		receipts: counter("zvonok_carrier_receipts_total", "Receipts stored, by state.", "state"),
		replies:  counter("zvonok_carrier_ussd_replies_total", "USSD PDUs written."),
		throttles: counter("zvonok_carrier_throttles_total",
			"Times an operator complained about speed and the link was paused."),
		circuits: counter("zvonok_carrier_circuit_opened_total", "Times system errors stopped an operator."),
		late: counter("zvonok_carrier_late_answers_total",
			"Answers that came after their message had been reported as unknown."),
		linksLost:    counter("zvonok_carrier_links_ended_total", "Sessions that ended."),
		bindFailures: counter("zvonok_carrier_bind_failures_total", "Binds that failed, by class.", "class"),
		strange:      counter("zvonok_carrier_unreadable_pdus_total", "PDUs of operators that made no sense."),
		alarms:       counter("zvonok_carrier_alarms_total", "Alarms raised."),
		links:        gauge("zvonok_carrier_links", "Sessions bound."),
		window:       gauge("zvonok_carrier_window_used", "Parts written and not answered."),
		waiting:      gauge("zvonok_carrier_queue_messages", "Messages waiting for their turn."),
		oldest:       gauge("zvonok_carrier_queue_oldest_seconds", "Age of the oldest waiting message."),
		rate:         gauge("zvonok_carrier_rate_parts_per_second", "Rate the operator allows now."),
		configured:   gauge("zvonok_carrier_rate_configured_parts_per_second", "Rate of the settings."),
		limitedBy:    gauge("zvonok_carrier_limited_by", "1 for what limits the operator now.", "limit"),
	}
	m.answers = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "zvonok_carrier_answer_seconds",
		Help:    "Time from the writing of a submit to its answer.",
		Buckets: []float64{.002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30},
	}, []string{"operator"})
	if r != nil {
		r.MustRegister(m.answers)
	}
	return m
}

// prepare makes the series of an operator visible at zero.
func (m *Metrics) prepare(operator string) {
	for _, c := range Classes() {
		m.messages.WithLabelValues(operator, string(c))
	}
	for _, k := range inboundKinds {
		m.inbounds.WithLabelValues(operator, k)
	}
	for _, s := range receiptStates() {
		m.receipts.WithLabelValues(operator, string(s))
	}
	for _, c := range []Class{Rebind, Configuration} {
		m.bindFailures.WithLabelValues(operator, string(c))
	}
	for _, l := range limitsAll {
		m.limitedBy.WithLabelValues(operator, string(l))
	}
	for _, v := range []*prometheus.CounterVec{
		m.replies, m.throttles, m.circuits, m.late, m.linksLost, m.strange, m.alarms,
	} {
		v.WithLabelValues(operator)
	}
	for _, v := range []*prometheus.GaugeVec{m.links, m.window, m.waiting, m.oldest, m.rate, m.configured} {
		v.WithLabelValues(operator)
	}
	m.answers.WithLabelValues(operator)
}

func (m *Metrics) message(operator string, c Class) {
	m.messages.WithLabelValues(operator, string(c)).Inc()
}

func (m *Metrics) answer(operator string, rtt time.Duration) {
	m.answers.WithLabelValues(operator).Observe(rtt.Seconds())
}

func (m *Metrics) inbound(operator, kind string) { m.inbounds.WithLabelValues(operator, kind).Inc() }

func (m *Metrics) receipt(operator string, s ReceiptState) {
	m.receipts.WithLabelValues(operator, string(s)).Inc()
}

func (m *Metrics) status(s Status) {
	m.links.WithLabelValues(s.Operator).Set(float64(s.BindsUp))
	m.window.WithLabelValues(s.Operator).Set(float64(s.WindowUsed))
	m.waiting.WithLabelValues(s.Operator).Set(float64(s.Queue))
	m.oldest.WithLabelValues(s.Operator).Set(s.Oldest.Seconds())
	m.rate.WithLabelValues(s.Operator).Set(s.Rate)
	m.configured.WithLabelValues(s.Operator).Set(s.RateConfigured)
	for _, l := range limitsAll {
		v := 0.0
		if l == s.LimitedBy {
			v = 1
		}
		m.limitedBy.WithLabelValues(s.Operator, string(l)).Set(v)
	}
}
