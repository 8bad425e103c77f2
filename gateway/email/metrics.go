package email

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the figures of the package. One Metrics serves the Sender and the
// Intake of a process.
type Metrics struct {
	letters     *prometheus.CounterVec
	duration    prometheus.Histogram
	dials       *prometheus.CounterVec
	connections prometheus.Gauge
	relay       prometheus.Gauge
	pausedCount prometheus.Gauge
	bounces     *prometheus.CounterVec
}

// accepted is the result of a letter the relay took.
const accepted = "accepted"

// Results of the intake of bounces.
const (
	bounceFailed     = "failed"     // matched, stored
	bounceDelayed    = "delayed"    // matched; the other side is still trying
	bounceOther      = "other"      // matched, but says that the letter was delivered or passed on
	bounceForged     = "forged"     // a recipient in our form whose signature is not ours
	bounceStray      = "stray"      // any other recipient
	bounceUnreadable = "unreadable" // matched, but no delivery status notification: a holiday reply, say
	bounceDeferred   = "deferred"   // it could not be stored; the other side will bring it again
)

// NewMetrics registers the package's metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		letters: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zvonok_email_letters_total", Help: "Letters by outcome of an attempt to send them.",
		}, []string{"result"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "zvonok_email_send_duration_seconds", Help: "Time of an attempt, waiting for a connection included.",
			Buckets:                     []float64{0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100},
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
		}),
		dials: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zvonok_email_dials_total", Help: "Connections to the relay by result.",
		}, []string{"result"}),
		connections: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "zvonok_email_connections", Help: "Open connections to the relay.",
		}),
		relay: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "zvonok_email_relay_up", Help: "1 while the relay takes letters, 0 after it failed.",
		}),
		pausedCount: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "zvonok_email_destinations_paused", Help: "Destination domains that refuse us (5.7.x) and are paused.",
		}),
		bounces: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zvonok_email_bounces_total", Help: "What came in on the return path, by what it was.",
		}, []string{"result"}),
	}
	m.relay.Set(1)
	m.letters.WithLabelValues(accepted)
	for _, c := range Classes() {
		m.letters.WithLabelValues(string(c))
	}
	for _, result := range []string{"opened", "failed"} {
		m.dials.WithLabelValues(result)
	}
	for _, result := range []string{
		bounceFailed, bounceDelayed, bounceOther, bounceForged, bounceStray, bounceUnreadable, bounceDeferred,
	} {
		m.bounces.WithLabelValues(result)
	}
	r.MustRegister(m.letters, m.duration, m.dials, m.connections, m.relay, m.pausedCount, m.bounces)
	return m
}

func (m *Metrics) sent(wrong *Error, took time.Duration) {
	result := accepted
	if wrong != nil {
		result = string(wrong.Class)
	}
	m.letters.WithLabelValues(result).Inc()
	m.duration.Observe(took.Seconds())
}

func (m *Metrics) dialled(err error) {
	if err != nil {
		m.dials.WithLabelValues("failed").Inc()
		return
	}
	m.dials.WithLabelValues("opened").Inc()
	m.connections.Inc()
}

func (m *Metrics) hungUp() { m.connections.Dec() }

func (m *Metrics) relayUp(up bool) {
	m.relay.Set(0)
	if up {
		m.relay.Set(1)
	}
}

func (m *Metrics) paused(n int) { m.pausedCount.Set(float64(n)) }

func (m *Metrics) bounce(result string) { m.bounces.WithLabelValues(result).Inc() }
