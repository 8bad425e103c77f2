package topup_test

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Payments over HTTP from sixteen clients as fast as they go, then fifty a
// second, which is what the terminals of a city of 1.5 million send at most.
func BenchmarkPay(b *testing.B) {
	c := newCity(b).withBanks()
	var txn atomic.Int64
	b.Run("as-fast-as-they-go", func(b *testing.B) {
		b.SetParallelism(8)
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				account := []string{example, second}[txn.Add(1)%2]
				if status, body := c.get(osmpPay("mkb", fmt.Sprint(txn.Add(1)), account, "10.00")); status != 200 {
					b.Errorf("status %d: %s", status, body)
				}
			}
		})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pays/s")
	})
	b.Run("fifty-a-second", func(b *testing.B) {
		for b.Loop() {
			const n = 250
			took := make([]time.Duration, n)
			var clients sync.WaitGroup
			ticker := time.NewTicker(20 * time.Millisecond)
			for i := range n {
				<-ticker.C
				clients.Go(func() {
					began := time.Now()
					c.get(osmpPay("mkb", fmt.Sprint(txn.Add(1)), []string{example, second}[i%2], "10.00"))
					took[i] = time.Since(began)
				})
			}
			ticker.Stop()
			clients.Wait()
			slices.Sort(took)
			b.ReportMetric(float64(took[n/2].Microseconds())/1000, "ms-p50")
			b.ReportMetric(float64(took[n*99/100].Microseconds())/1000, "ms-p99")
		}
	})
}
