package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/riverqueue/river"
	"riverqueue.com/riverui"

	"zvonok/gateway/delivery"
)

const (
	readyTimeout = 2 * time.Second // of the database's answer
	maxScrapes   = 4
)

// readiness is why this process is not ready, nil when it is.
type readiness struct {
	mu     sync.Mutex
	reason error
	known  bool
}

func (r *readiness) set(reason error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reason, r.known = reason, true
}

func (r *readiness) get() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.known {
		return fmt.Errorf("starting")
	}
	return r.reason
}

// adminHandler serves what administrators see: nothing of it belongs on a
// public address.
func (a *App) adminHandler(client *river.Client[pgx.Tx]) (http.Handler, error) {
	ui, err := riverui.NewHandler(&riverui.HandlerOpts{
		Endpoints:                riverui.NewEndpoints(client, nil),
		JobListHideArgsByDefault: true,
		Logger:                   slog.New(slog.DiscardHandler),
		Prefix:                   "/jobs",
	})
	if err != nil {
		return nil, fmt.Errorf("set up the job queue's page: %w", err)
	}
	background, cancel := context.WithCancel(context.Background())
	if err := ui.Start(background); err != nil {
		cancel()
		return nil, fmt.Errorf("start the job queue's page: %w", err)
	}
	a.stops.add("job queue's page", func(context.Context) error { cancel(); return nil })

	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.InstrumentMetricHandler(a.registry,
		promhttp.HandlerFor(a.registry, promhttp.HandlerOpts{EnableOpenMetrics: true, MaxRequestsInFlight: maxScrapes})))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := a.checkReady(r.Context()); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, err)
			return
		}
		fmt.Fprintln(w, "ok")
		if a.reader.Replica() != nil { // we work without it
			fmt.Fprintln(w, a.reader)
		}
	})
	mux.HandleFunc("GET /operators", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
		defer cancel()
		backlogs, err := delivery.Backlogs(ctx, a.pool, a.exchange.Operators())
		if err != nil { // the links are worth a look all the more
			a.log.Warn("answer with the operators", "error", err)
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(operatorLines(a.exchange.Status(), backlogs, time.Now())); err != nil {
			a.log.Warn("answer with the operators", "error", err)
		}
	})
	mux.HandleFunc("POST /recall", a.recall)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.Handle("/jobs/", ui)
	return mux, nil
}

// checkReady says which part is not ready.
func (a *App) checkReady(ctx context.Context) error {
	if err := a.ready.get(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if err := a.pool.Ping(ctx); err != nil {
		return fmt.Errorf("database: %w", err)
	}
	return nil
}

// hstsAge is how long a browser that has seen us over TLS comes back by TLS alone: a year.
const hstsAge = 365 * 24 * time.Hour

// secured sets the headers that every answer on the public address carries,
// errors included (V3.4.1 to V3.4.6); a page with needs of its own changes them.
// PublicURL is our address as browsers see it: TLS is ended by a proxy of ours, so
// it alone tells whether they may be told to come back by TLS only.
func secured(publicURL string, next http.Handler) http.Handler {
	hsts := ""
	if strings.HasPrefix(publicURL, "https://") {
		hsts = fmt.Sprintf("max-age=%d", int(hstsAge.Seconds()))
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		if hsts != "" {
			h.Set("Strict-Transport-Security", hsts)
		}
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'")
		h.Set("X-Frame-Options", "DENY") // for browsers that do not know frame-ancestors
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		next.ServeHTTP(w, r)
	})
}
