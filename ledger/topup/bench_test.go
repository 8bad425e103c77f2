package topup_test

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger"
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
	fifty := func(b *testing.B) {
		const n = 500
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
	b.Run("fifty-a-second", func(b *testing.B) {
		for b.Loop() {
			fifty(b)
		}
	})
	// The peak of meals: sales gathered as the devices' intake gathers them.
	b.Run("fifty-a-second-beside-430-sales", func(b *testing.B) {
		wallets := c.schoolOf(1000)
		for b.Loop() {
			done := make(chan struct{})
			var canteens sync.WaitGroup
			var sold atomic.Int64
			began := time.Now()
			canteens.Go(func() {
				ticker := time.NewTicker(50 * time.Millisecond)
				defer ticker.Stop()
				for {
					select {
					case <-done:
						return
					case <-ticker.C:
						// What is due by now: a late tick is made good.
						due := int64(time.Since(began).Seconds()*430) - sold.Load()
						c.sellTo(wallets, int(sold.Load()), int(due))
						sold.Add(due)
					}
				}
			})
			fifty(b)
			b.ReportMetric(float64(sold.Load())/time.Since(began).Seconds(), "sales/s")
			close(done)
			canteens.Wait()
		}
	})
}

// schoolOf opens wallets for so many more pupils.
func (c *city) schoolOf(pupils int) []ledger.AccountID {
	c.Helper()
	c.exec(`INSERT INTO ledger.person (code, organisation_id, kind, family_name, given_name)
	        SELECT 'x-' || i, o.id, 'pupil', 'Ivanov', 'Ivan' FROM generate_series(1, $1::int) AS i, ledger.organisation o WHERE o.code = 's1'`, pupils)
	rows, err := c.pool.Query(c.Context(), `SELECT id FROM ledger.person WHERE code LIKE 'x-%' ORDER BY id`)
	c.must(err)
	people, err := pgx.CollectRows(rows, pgx.RowTo[ledger.PersonID])
	c.must(err)
	openings := make([]ledger.WalletOpening, len(people))
	for i, person := range people {
		number, err := ledger.NewAccountNumber("34", int64(i+1))
		c.must(err)
		openings[i] = ledger.WalletOpening{Person: person, Number: number}
	}
	c.inTx(func(tx pgx.Tx) error { return ledger.OpenWallets(c.Context(), tx, openings) })
	rows, err = c.pool.Query(c.Context(), `SELECT id FROM ledger.account WHERE person_id = ANY ($1) ORDER BY id`, people)
	c.must(err)
	wallets, err := pgx.CollectRows(rows, pgx.RowTo[ledger.AccountID])
	c.must(err)
	return wallets
}

// sellTo books n sales of the buffet, from the serial number first on.
func (c *city) sellTo(wallets []ledger.AccountID, first, n int) {
	c.Helper()
	if n <= 0 {
		return
	}
	c.inTx(func(tx pgx.Tx) error {
		buffet, err := ledger.SystemAccounts(c.Context(), tx, ledger.SystemAccount{Kind: ledger.Buffet, Owner: "kp"})
		if err != nil {
			return err
		}
		events, err := ledger.NextEventIDs(c.Context(), tx, n)
		if err != nil {
			return err
		}
		entries := make([]ledger.Entry, n)
		for i := range entries {
			entries[i] = ledger.Entry{
				Event: events[i], Kind: ledger.BuffetSale, Debit: wallets[(first+i)%len(wallets)], Credit: buffet[0], Amount: 70_00,
				Source: "till/1", ExternalID: fmt.Sprint(events[i]), Mode: ledger.Offline, OccurredAt: c.clock.now(),
			}
		}
		_, err = c.book.Post(c.Context(), tx, entries)
		return err
	})
}
