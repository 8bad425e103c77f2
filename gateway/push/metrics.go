package push

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the figures of the package.
type Metrics struct {
	messages *prometheus.CounterVec
	duration prometheus.Histogram
	paused   prometheus.Gauge
}

// taken is the result of a message the service took.
const taken = "taken"

// NewMetrics registers the package's metrics, every result at zero.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zvonok_push_messages_total", Help: "Push messages, one for each browser, by outcome of an attempt to send them.",
		}, []string{"result"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "zvonok_push_send_duration_seconds", Help: "Time until a push service answered.",
			Buckets:                     []float64{0.01, 0.03, 0.1, 0.3, 1, 3, 10},
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
		}),
		paused: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "zvonok_push_services_paused", Help: "Push services that are left alone for a while.",
		}),
	}
	m.messages.WithLabelValues(taken)
	for _, c := range Classes() {
		m.messages.WithLabelValues(string(c))
	}
	r.MustRegister(m.messages, m.duration, m.paused)
	return m
}

func (m *Metrics) sent(wrong *Error, took time.Duration) {
	result := taken
	if wrong != nil {
		result = string(wrong.Class)
	}
	m.messages.WithLabelValues(result).Inc()
	m.duration.Observe(took.Seconds())
}

func (m *Metrics) pauses(n int) { m.paused.Set(float64(n)) }
