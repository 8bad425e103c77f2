package parent

import (
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the counters of the package.
type Metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	codes    *prometheus.CounterVec
	signIns  *prometheus.CounterVec
}

// NewMetrics registers the metrics of the package.
func NewMetrics(registerer prometheus.Registerer) *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zvonok_parent_requests_total", Help: "Requests of the parents' API by operation and status.",
		}, []string{"operation", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "zvonok_parent_request_seconds", Help: "Time to answer a request of the parents' API.",
			Buckets: []float64{.002, .005, .01, .02, .05, .1, .2, .5, 1, 5},
		}, []string{"operation"}),
		codes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zvonok_parent_codes_total",
			Help: "Codes for signing in: sent, unknown (of phones nobody is expected to sign in with), late. " +
				"A rise of unknown ones is somebody looking for phones.",
		}, []string{"outcome"}),
		signIns: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zvonok_parent_sign_ins_total",
			Help: "Codes that were typed, by verdict. A rise of wrong and unknown ones is somebody guessing.",
		}, []string{"verdict"}),
	}
	registerer.MustRegister(m.requests, m.seconds, m.codes, m.signIns)
	return m
}

// measured counts a request by its operation; paths hold ids.
func (s routes) measured(ctx huma.Context, next func(huma.Context)) {
	began := time.Now()
	next(ctx)
	operation := ctx.Operation().OperationID
	s.metrics.requests.WithLabelValues(operation, strconv.Itoa(ctx.Status())).Inc()
	s.metrics.seconds.WithLabelValues(operation).Observe(time.Since(began).Seconds())
}
