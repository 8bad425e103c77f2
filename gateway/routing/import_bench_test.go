package routing_test

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"zvonok/access/phone"
	"zvonok/gateway/carrier"
	"zvonok/gateway/routing"
	"zvonok/ledger/pg/pgtest"
)

// portedNumbers is how many numbers the benchmark of the import has; a country's
// table has tens of millions (ZVONOK_PORTED=10000000).
func portedNumbers(b *testing.B) int {
	n := 100_000
	if s := os.Getenv("ZVONOK_PORTED"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			b.Fatal(err)
		}
	}
	return n
}

// numbers writes a file of n ported numbers in random order, none twice.
func numbers(n int) io.Reader {
	r, w := io.Pipe()
	go func() {
		out := bufio.NewWriterSize(w, 1<<20)
		fmt.Fprintln(out, "number,operator")
		step := 7919 // no divisor of the range: every number comes once
		span := 900_000_000
		at := rand.IntN(span)
		for i := range n {
			at = (at + step*104729) % span
			fmt.Fprintf(out, "7%010d,%s\n", 9_000_000_000+at, [...]string{"mts", "beeline", "any"}[i%3])
		}
		_ = out.Flush()
		_ = w.Close()
	}()
	return r
}

// peak samples the heap until stopped and returns the most it saw.
func peak() (stop func() uint64) {
	var most atomic.Uint64
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			most.Store(max(most.Load(), m.HeapInuse))
			select {
			case <-done:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	return func() uint64 { close(done); <-ended; return most.Load() }
}

// Issue 3, ported numbers by an imported file: a country's whole table.
func BenchmarkPortedNumbers(b *testing.B) {
	n := portedNumbers(b)
	pool := pgtest.New(b)
	file := func() routing.File {
		return routing.File{Name: "all.csv", Lines: numbers(n), Operators: []string{"mts", "beeline", "any"}}
	}
	b.Run("import", func(b *testing.B) {
		stop := peak()
		for b.Loop() {
			s, err := routing.Import(b.Context(), pool, file(), time.Now())
			if err != nil || s.Total != n {
				b.Fatalf("%+v, %v", s, err)
			}
		}
		b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "numbers/s")
		b.ReportMetric(float64(stop())/(1<<20), "heap-MiB")
	})
	exchange, err := carrier.New(carrier.Config{Operators: []carrier.OperatorConfig{
		{Name: "mts", Address: "127.0.0.1:1", SystemID: "s", Weight: 10},
		{Name: "beeline", Address: "127.0.0.1:1", SystemID: "s", Weight: 10},
		{Name: "any", Address: "127.0.0.1:1", SystemID: "s", Weight: 10},
	}})
	if err != nil {
		b.Fatal(err)
	}
	b.Run("read", func(b *testing.B) {
		runtime.GC()
		stop := peak()
		for b.Loop() {
			memory := routing.New(routing.Config{Pool: pool, Exchange: exchange, Log: slog.New(slog.DiscardHandler), Now: time.Now})
			if err := memory.Sync(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(stop())/(1<<20), "heap-MiB")
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(m.HeapInuse)/(1<<20), "kept-MiB")
	})
	b.Run("route", func(b *testing.B) {
		b.ReportAllocs()
		phones := make([]phone.Number, 1<<16)
		for i := range phones {
			phones[i] = phone.Number(fmt.Sprintf("7%010d", 9_000_000_000+rand.IntN(900_000_000)))
		}
		for i := 0; b.Loop(); i++ {
			if len(exchange.Route(phones[i%len(phones)])) == 0 {
				b.Fatal("no route")
			}
		}
	})
}
