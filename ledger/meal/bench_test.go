package meal_test

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger"
	"zvonok/ledger/meal"
	"zvonok/ledger/money"
)

// BenchmarkSell sells to a thousand children: seats, rules, accounts, book,
// sales and the job, a transaction per call.
func BenchmarkSell(b *testing.B) {
	const children = 1000
	c := newCanteen(b)
	c.exec(`INSERT INTO ledger.person (code, organisation_id, kind, family_name, given_name)
	        SELECT 'p-' || i, $1, 'pupil', 'Ivanov', 'Ivan' FROM generate_series(1, $2::int) AS i`, c.school, children)
	rows, err := c.pool.Query(b.Context(), `SELECT id FROM ledger.person WHERE code LIKE 'p-%' ORDER BY id`)
	c.must(err)
	people, err := pgx.CollectRows(rows, pgx.RowTo[ledger.PersonID])
	c.must(err)
	var openings []ledger.WalletOpening
	for i, person := range people {
		number, err := ledger.NewAccountNumber("34", int64(i+1))
		c.must(err)
		openings = append(openings, ledger.WalletOpening{Person: person, Number: number})
	}
	c.inTx(func(tx pgx.Tx) error { return ledger.OpenWallets(b.Context(), tx, openings) })
	b.ResetTimer()
	for _, size := range []int{1, 50, 500} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			for b.Loop() {
				sales := make([]meal.Sale, size)
				events, err := ledger.NextEventIDs(b.Context(), c.pool, size)
				c.must(err)
				for i := range sales {
					c.seq++
					sales[i] = meal.Sale{
						Event: events[i], Person: people[c.seq%children], Kind: meal.Buffet, Total: 70 * money.Rouble,
						Items: []meal.Item{{Code: "b12", Name: "Булочка", Quantity: 2, Price: 35 * money.Rouble}},
						At:    noon, Device: c.seq % 50, Seq: c.seq, Mode: ledger.Offline,
					}
				}
				for _, v := range c.sell(sales...) {
					if v.Code != meal.CodeSold {
						b.Fatalf("a sale is %+v", v)
					}
				}
			}
			b.ReportMetric(float64(b.N)*float64(size)/b.Elapsed().Seconds(), "sales/s")
		})
	}
}
