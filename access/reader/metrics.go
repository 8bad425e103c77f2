package reader

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the figures of the intake.
type Metrics struct {
	events     *prometheus.CounterVec // type, result
	rejections *prometheus.CounterVec // code
	responses  *prometheus.CounterVec // route, status
	batch      prometheus.Histogram
	commit     prometheus.Histogram
	answer     *prometheus.HistogramVec // route
	underWay   *prometheus.GaugeVec     // route
	skewed     prometheus.Counter
	split      prometheus.Counter
	alarms     *prometheus.CounterVec // kind
}

// Results of an event, as labels.
const (
	resultAcknowledged = "acknowledged"
	resultRepeated     = "repeated"
	resultRejected     = "rejected"
	resultConflict     = "conflict"
)

// The routes, as labels.
const (
	eventsRoute    = "events"
	authorizeRoute = "authorize"
	listsRoute     = "lists"
)

// NewMetrics registers the figures.
func NewMetrics(registerer prometheus.Registerer) *Metrics {
	m := &Metrics{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zvonok_reader_events_total",
			Help: "Events of devices by type and by what became of them.",
		}, []string{"type", "result"}),
		rejections: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zvonok_reader_rejections_total",
			Help: "Rejected events by reason.",
		}, []string{"code"}),
		responses: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zvonok_reader_responses_total",
			Help: "Answers to devices by route and HTTP status.",
		}, []string{"route", "status"}),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:                        "zvonok_reader_batch_events",
			Help:                        "Events stored by one transaction.",
			Buckets:                     prometheus.ExponentialBuckets(1, 2, 11),
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100,
		}),
		commit: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:                        "zvonok_reader_commit_seconds",
			Help:                        "Time of a transaction that stores events, from begin to commit.",
			Buckets:                     prometheus.ExponentialBuckets(0.001, 2, 14),
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100,
		}),
		answer: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:                        "zvonok_reader_answer_seconds",
			Help:                        "Time from a request's headers to its answer, for those answered with 200.",
			Buckets:                     prometheus.ExponentialBuckets(0.001, 2, 14),
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100,
		}, []string{"route"}),
		underWay: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "zvonok_reader_requests",
			Help: "Requests of devices under way.",
		}, []string{"route"}),
		skewed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "zvonok_reader_skewed_uploads_total",
			Help: "Uploads of devices whose clock is off by more than two minutes.",
		}),
		split: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "zvonok_reader_split_batches_total",
			Help: "Batches that the database refused and that were halved to find the event at fault.",
		}),
	}
	m.alarms = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "zvonok_reader_device_alarms_total",
		Help: "Alarms raised because a device's key may be stolen or the device cloned, by what showed it.",
	}, []string{"kind"})
	registerer.MustRegister(m.events, m.rejections, m.responses, m.batch, m.commit, m.answer, m.underWay, m.skewed,
		m.split, m.alarms)
	for _, kind := range DeviceAlarms() {
		m.alarms.WithLabelValues(string(kind))
	}
	for _, name := range eventTypes {
		for _, result := range []string{resultAcknowledged, resultRepeated, resultRejected, resultConflict} {
			m.events.WithLabelValues(name, result)
		}
	}
	for _, c := range codes {
		m.rejections.WithLabelValues(string(c.Code))
	}
	for _, route := range []string{eventsRoute, authorizeRoute, listsRoute} {
		for _, status := range []int{200, 400, 401, 408, 413, 415, 422, 429, 500, 503} {
			m.responses.WithLabelValues(route, strconv.Itoa(status))
		}
		m.answer.WithLabelValues(route)
		m.underWay.WithLabelValues(route)
	}
	return m
}

func (m *Metrics) response(route string, status int) {
	m.responses.WithLabelValues(route, strconv.Itoa(status)).Inc()
}

func (m *Metrics) answered(route string, took time.Duration) {
	m.response(route, 200)
	m.answer.WithLabelValues(route).Observe(took.Seconds())
}
