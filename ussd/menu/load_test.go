package menu

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"zvonok/gateway/carrier"
	"zvonok/gateway/smpp/smpptest"
	"zvonok/ussd"
)

// BenchmarkDials is the walk from a phone to its answer over real sockets and a real database: an operator in a box,
// the carrier, the engine, the menu, PostgreSQL, all on one machine. Phones dial 500 a second; -benchtime says how
// many. It reports what the phones waited, in milliseconds.
func BenchmarkDials(b *testing.B) {
	const rate = 500
	pool, _ := traced(b)
	fill(b, pool)
	menu := plain(pool)
	smsc, err := smpptest.Start(smpptest.Config{SystemID: "esme01", Password: "secret01"})
	if err != nil {
		b.Fatal(err)
	}
	var server *ussd.Server
	bound := make(chan struct{}, 8)
	exchange, err := carrier.New(carrier.Config{
		Operators: []carrier.OperatorConfig{{
			Name: "op", Mode: carrier.Client, Address: smsc.Addr(), SystemID: "esme01", Password: "secret01",
			Roles: []carrier.Role{carrier.RoleUSSD, carrier.RoleSMS}, Binds: 2,
		}},
		Dial:        func(d carrier.Dial) { server.Dial(d) },
		LinkChanged: func(string, bool) { bound <- struct{}{} },
	})
	if err != nil {
		b.Fatal(err)
	}
	profiles, err := ussd.NewProfiles(nil)
	if err != nil {
		b.Fatal(err)
	}
	server, err = ussd.New(ussd.Config{
		Links: []ussd.Link{{Name: "op", Profile: profiles["plain-its"]}}, Codes: []string{"*377*888#"}, Show: menu.Show,
		Answer: exchange.Answer, Log: slog.New(slog.DiscardHandler), Metrics: ussd.NewMetrics(prometheus.NewRegistry()),
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { menu.Run(ctx) })
	running.Go(func() { server.Run(ctx) })
	exchange.Start()
	<-bound
	profile, err := smpptest.USSDProfileNamed("plain-its")
	if err != nil {
		b.Fatal(err)
	}

	waits := make([]time.Duration, b.N)
	var phones sync.WaitGroup
	tick := time.NewTicker(time.Second / rate)
	b.ResetTimer()
	for n := range b.N {
		<-tick.C
		phones.Go(func() {
			limit, cancel := context.WithTimeout(ctx, 30*time.Second)
			defer cancel()
			begun := time.Now()
			call, err := smsc.Dial(limit, profile, fmt.Sprintf("7900%07d", 1+n%crowd), "*377*888#")
			if err == nil {
				_, err = call.Screen(limit)
			}
			if err != nil {
				b.Error(err)
			}
			waits[n] = time.Since(begun)
		})
	}
	phones.Wait()
	b.StopTimer()
	tick.Stop()
	slices.Sort(waits)
	b.ReportMetric(float64(waits[b.N/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(waits[b.N*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(0, "ns/op")
	stop()
	running.Wait()
	end, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := exchange.Stop(end); err != nil {
		b.Error(err)
	}
	if err := smsc.Close(end); err != nil {
		b.Error(err)
	}
}
