package pg

import (
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// Metrics shows how busy the pools are. It reads their counters when it is
// scraped and asks nothing of the database.
type Metrics struct {
	pools       map[string]*pgxpool.Pool
	connections *prometheus.Desc
	limit       *prometheus.Desc
	acquired    *prometheus.Desc
	waited      *prometheus.Desc
	waitSeconds *prometheus.Desc
	cancelled   *prometheus.Desc
}

// NewMetrics registers the metrics of pools, which are told apart by their
// names in the map.
func NewMetrics(registerer prometheus.Registerer, pools map[string]*pgxpool.Pool) *Metrics {
	describe := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("zvonok_database_"+name, help, append([]string{"pool"}, labels...), nil)
	}
	m := &Metrics{
		pools:       pools,
		connections: describe("connections", "Connections of the pool by state.", "state"),
		limit:       describe("connections_limit", "Connections the pool may have."),
		acquired:    describe("acquires_total", "Connections taken out of the pool."),
		waited:      describe("acquire_waits_total", "Connections that had to be waited for."),
		waitSeconds: describe("acquire_wait_seconds_total", "Time spent waiting for connections."),
		cancelled:   describe("acquires_cancelled_total", "Waits given up by the caller."),
	}
	registerer.MustRegister(m)
	return m
}

// Describe is of prometheus.Collector.
func (m *Metrics) Describe(descriptions chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.connections, m.limit, m.acquired, m.waited, m.waitSeconds, m.cancelled} {
		descriptions <- d
	}
}

// Collect is of prometheus.Collector.
func (m *Metrics) Collect(metrics chan<- prometheus.Metric) {
	for name, pool := range m.pools {
		stat := pool.Stat()
		gauge := func(d *prometheus.Desc, value int32, labels ...string) {
			labels = append([]string{name}, labels...)
			metrics <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(value), labels...)
		}
		counter := func(d *prometheus.Desc, value float64) {
			metrics <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, value, name)
		}
		gauge(m.connections, stat.AcquiredConns(), "busy")
		gauge(m.connections, stat.IdleConns(), "idle")
		gauge(m.connections, stat.ConstructingConns(), "connecting")
		gauge(m.limit, stat.MaxConns())
		counter(m.acquired, float64(stat.AcquireCount()))
		counter(m.waited, float64(stat.EmptyAcquireCount()))
		counter(m.waitSeconds, stat.EmptyAcquireWaitTime().Seconds())
		counter(m.cancelled, float64(stat.CanceledAcquireCount()))
	}
}
