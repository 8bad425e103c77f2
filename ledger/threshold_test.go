package ledger_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"zvonok/ledger"
	"zvonok/ledger/money"
)

const mother, father = 7001, 7002

func (b *books) setThreshold(person int, owner int64, amount money.Amount, upward bool) {
	b.Helper()
	b.inTx(func(tx pgx.Tx) error {
		return b.book.SetThreshold(b.Context(), tx, b.people[person], owner, amount, upward)
	})
}

// crossings returns the crossings that the jobs tell of, in order of their events.
func (b *books) crossings() []ledger.Crossing {
	b.Helper()
	rows, err := b.pool.Query(b.Context(), `SELECT args FROM river.river_job WHERE kind = 'ledger_crossed' ORDER BY id`)
	b.must(err)
	facts, err := pgx.CollectRows(rows, pgx.RowTo[ledger.Crossed])
	b.must(err)
	var all ledger.Crossed
	for _, fact := range facts {
		all.EventIDs = append(all.EventIDs, fact.EventIDs...)
	}
	slices.Sort(all.EventIDs)
	if n := len(slices.Compact(slices.Clone(all.EventIDs))); n != len(all.EventIDs) {
		b.Errorf("%d crossings are announced twice", len(all.EventIDs)-n)
	}
	crossings, err := ledger.Crossings(b.Context(), b.pool, all)
	b.must(err)
	if len(crossings) != len(all.EventIDs) {
		b.Errorf("%d crossings for %d announced", len(crossings), len(all.EventIDs))
	}
	return crossings
}

// D1: one notice per downward crossing, re-armed when the balance is at or
// above the threshold again. Each row is a wallet of 200 roubles whose
// recipient set 150.
func TestThresholds(t *testing.T) {
	t.Parallel()
	b := newBooks(t, 0)
	for _, row := range []struct {
		name string
		post func(b *books)
		want []money.Amount // balances told of
	}{
		{"falling below is told", func(b *books) { b.postOne(b.buy(0, "a", 51_00)) }, []money.Amount{149_00}},
		{"reaching it exactly is not below", func(b *books) { b.postOne(b.buy(0, "a", 50_00)) }, nil},
		{"falling further is not told again", func(b *books) {
			b.postOne(b.buy(0, "a", 51_00))
			b.postOne(b.buy(0, "b", 10_00))
			b.post(b.buy(0, "c", 10_00), b.buy(0, "d", 10_00))
		}, []money.Amount{149_00}},
		{"falling from the threshold itself is told", func(b *books) {
			b.postOne(b.buy(0, "a", 50_00))
			b.postOne(b.buy(0, "b", 1_00))
		}, []money.Amount{149_00}},
		{"rising to it arms it again", func(b *books) {
			b.postOne(b.buy(0, "a", 60_00))
			b.postOne(b.topUp(0, "t", 10_00))
			b.postOne(b.buy(0, "b", 1_00))
		}, []money.Amount{140_00, 149_00}},
		{"rising but staying below does not arm it", func(b *books) {
			b.postOne(b.buy(0, "a", 80_00))
			b.postOne(b.topUp(0, "t", 10_00))
			b.postOne(b.buy(0, "b", 1_00))
		}, []money.Amount{120_00}},
		{"a dip and recovery inside one batch is told", func(b *books) {
			b.post(b.buy(0, "a", 60_00), b.topUp(0, "t", 100_00))
		}, []money.Amount{140_00}},
		{"two dips inside one batch are told twice", func(b *books) {
			b.post(b.buy(0, "a", 60_00), b.topUp(0, "t", 100_00), b.buy(0, "b", 100_00))
		}, []money.Amount{140_00, 140_00}},
		{"an offline sale is told like any other", func(b *books) {
			b.postOne(offline(b.buy(0, "a", 1000_00)))
		}, []money.Amount{-800_00}},
		{"a refused purchase is not told", func(b *books) { b.postOne(b.buy(0, "a", 1000_00)) }, nil},
		{"a repeat is not told again", func(b *books) {
			e := b.buy(0, "a", 60_00)
			b.postOne(e)
			b.postOne(e)
			b.post(e, b.buy(0, "b", 1_00))
		}, []money.Amount{140_00}},
		{"the wallet that gives in a transfer crosses, not the one that takes", func(b *books) {
			b.postOne(b.transfer(0, 1, "a", 60_00))
		}, []money.Amount{140_00}},
		{"a reversal crosses too", func(b *books) {
			b.postOne(b.topUp(0, "t", 10_00))
			b.postOne(b.buy(0, "a", 55_00))
			b.postOne(b.reverse("r", "bank/mkb", "t", 0))
		}, []money.Amount{145_00}},
		{"setting a threshold above the balance is told at once", func(b *books) {
			b.setThreshold(0, father, 201_00, false)
		}, []money.Amount{200_00}},
		{"setting one that is no nearer is not told", func(b *books) {
			b.setThreshold(0, father, 200_00, false)
			b.setThreshold(0, mother, 10_00, false)
		}, nil},
		{"raising a threshold that has been crossed is not told again", func(b *books) {
			b.postOne(b.buy(0, "a", 60_00))
			b.setThreshold(0, mother, 160_00, false)
		}, []money.Amount{140_00}},
		{"the new threshold counts from then on", func(b *books) {
			b.setThreshold(0, mother, 100_00, false)
			b.postOne(b.buy(0, "a", 60_00))
			b.postOne(b.buy(0, "b", 60_00))
		}, []money.Amount{80_00}},
		{"a removed threshold is silent", func(b *books) {
			b.inTx(func(tx pgx.Tx) error {
				return ledger.RemoveThresholds(b.Context(), tx, []ledger.Threshold{{Person: b.people[0], Owner: mother}})
			})
			b.postOne(b.buy(0, "a", 60_00))
			b.post(b.buy(0, "b", 10_00), b.buy(0, "c", 10_00))
		}, nil},
		{"an imported threshold is silent about what is low already", func(b *books) {
			b.inTx(func(tx pgx.Tx) error {
				return ledger.LoadThresholds(b.Context(), tx, []ledger.Threshold{
					{Person: b.people[0], Owner: father, Amount: 500_00}, {Person: b.people[0], Owner: father, Amount: 300_00},
				})
			})
		}, nil},
		{"two recipients are told each", func(b *books) {
			b.setThreshold(0, father, 145_00, false)
			b.postOne(b.buy(0, "a", 60_00))
		}, []money.Amount{140_00, 140_00}},
		{"an upward threshold is told when the balance rises above it", func(b *books) {
			b.setThreshold(0, mother, 300_00, true)
			b.postOne(b.topUp(0, "t", 100_00))
			b.postOne(b.topUp(0, "t2", 10_00))
			b.postOne(b.topUp(0, "t3", 10_00))
			b.post(b.buy(0, "a", 20_00), b.topUp(0, "t4", 10_00))
		}, []money.Amount{310_00, 310_00}},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := b.twoWallets(t)
			b.postOne(b.topUp(0, "second", 100_00))
			b.setThreshold(0, mother, 150_00, false)
			row.post(b)
			var got []money.Amount
			for _, c := range b.crossings() {
				if c.Person == b.people[0] {
					got = append(got, c.Balance)
				}
			}
			if !slices.Equal(got, row.want) {
				t.Errorf("told of %v, want %v", got, row.want)
			}
		})
	}
	b.sound()
}

// T7: a random walk round three thresholds, by singles, batches and offline
// sales at the same time: every crossing is there once and has its job (I10).
func TestARandomWalkRoundThresholdsMissesNoCrossing(t *testing.T) {
	t.Parallel()
	const wallets, workers, calls = 6, 8, 30
	b := newBooks(t, wallets)
	b.fund(150_00)
	for w := range wallets {
		b.setThreshold(w, mother, 150_00, false)
		b.setThreshold(w, father, 100_00, false)
		b.setThreshold(w, father, 200_00, true)
	}
	group, ctx := errgroup.WithContext(t.Context())
	for w := range workers {
		group.Go(func() error {
			random := rand.New(rand.NewPCG(uint64(w), 20261122))
			for c := range calls {
				var entries []ledger.Entry
				for i := range 1 + random.IntN(6)*random.IntN(2) {
					id, wallet := fmt.Sprintf("%d-%d-%d", w, c, i), random.IntN(wallets)
					amount := money.Amount(10_00 + random.IntN(60_00))
					switch random.IntN(5) {
					case 0, 1:
						entries = append(entries, b.buy(wallet, id, amount))
					case 2:
						entries = append(entries, offline(b.eat(wallet, id, amount)))
					default:
						entries = append(entries, b.topUp(wallet, id, amount))
					}
				}
				if _, err := b.tryPost(ctx, entries...); err != nil {
					return err
				}
				if random.IntN(10) == 0 {
					if err := pgx.BeginFunc(ctx, b.pool, func(tx pgx.Tx) error {
						return b.book.SetThreshold(ctx, tx, b.people[random.IntN(wallets)], mother,
							money.Amount(140_00+random.IntN(20_00)), false)
					}); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	b.must(group.Wait())
	announced := b.crossings()
	if got := b.count(`SELECT count(*) FROM ledger.crossing`); got != len(announced) || got < 20 {
		t.Errorf("%d crossings, %d announced", got, len(announced))
	}
	b.sound()
}
