package meal

import "github.com/prometheus/client_golang/prometheus"

// Metrics counts what the canteens do. Verdicts are counted when they are
// given; those of a transaction that is rolled back stay counted.
type Metrics struct {
	sales *prometheus.CounterVec
}

// NewMetrics makes the metrics and registers them.
func NewMetrics(registerer prometheus.Registerer) *Metrics {
	m := &Metrics{sales: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "zvonok_meal_sales_total",
		Help: "Sales brought to the canteen, by kind and verdict.",
	}, []string{"kind", "verdict"})}
	for _, kind := range []Kind{Buffet, Hot, Subsidised, otherKind} {
		for _, code := range Codes() {
			m.sales.WithLabelValues(string(kind), string(code))
		}
	}
	registerer.MustRegister(m.sales)
	return m
}

// otherKind labels sales that are of no kind.
const otherKind Kind = "other"

func (m *Metrics) count(kind Kind, code Code) {
	if m == nil {
		return
	}
	switch kind {
	case Buffet, Hot, Subsidised:
	default:
		kind = otherKind
	}
	m.sales.WithLabelValues(string(kind), string(code)).Inc()
}
