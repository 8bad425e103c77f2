package menu

import "github.com/prometheus/client_golang/prometheus"

// Metrics are the counters of a Menu.
type Metrics struct {
	screens *prometheus.CounterVec
	waiting prometheus.Gauge
	written prometheus.Counter
	failed  prometheus.Counter
	sims    *prometheus.CounterVec
	// Phones of which something is remembered.
	remembered prometheus.Gauge
}

// NewMetrics registers the counters.
func NewMetrics(registerer prometheus.Registerer) *Metrics {
	m := &Metrics{
		screens: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zvonok_ussd_screens_total", Help: "Screens shown, by what they show.",
		}, []string{"screen"}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "zvonok_ussd_views_waiting", Help: "Views not yet in the access log.",
		}),
		written: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "zvonok_ussd_views_total", Help: "Views written to the access log.",
		}),
		failed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "zvonok_ussd_view_log_failures_total", Help: "Failed attempts to write the access log.",
		}),
		remembered: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "zvonok_ussd_remembered_phones",
			Help: "Phones whose last balances could be shown again should the database not answer.",
		}),
	}
	m.sims = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "zvonok_ussd_sims_total",
		Help: "SIM cards reported for phones whose card is known: the known one, another, or ignored as the operator is not believed.",
	}, []string{"sim"})
	for _, sim := range []string{"known", "another", "ignored"} {
		m.sims.WithLabelValues(sim)
	}
	registerer.MustRegister(m.sims, m.screens, m.waiting, m.written, m.failed, m.remembered)
	for _, screen := range []string{
		"neutral", "summary", "balance", "visit", "meals", "visits", "movements", "account", "access", "sms", "language",
		"by sms", "remembered",
	} {
		m.screens.WithLabelValues(screen)
	}
	return m
}

func (m *Metrics) shown(screen string) { m.screens.WithLabelValues(screen).Inc() }
