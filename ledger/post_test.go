package ledger_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"zvonok/ledger"
	"zvonok/ledger/money"
)

func codes(verdicts []ledger.Verdict) []ledger.Code {
	list := make([]ledger.Code, len(verdicts))
	for i, v := range verdicts {
		list[i] = v.Code
	}
	return list
}

// Each row posts a first call and then a second one on a wallet 0 that holds
// 100 roubles and a wallet 1 that holds 50 (D11, 2.4, 2.11, 2.15).
func TestVerdicts(t *testing.T) {
	t.Parallel()
	const (
		posted    = ledger.CodePosted
		duplicate = ledger.CodeDuplicate
		conflict  = ledger.CodeConflict
		refused   = ledger.CodeRefused
	)
	type list = []ledger.Entry
	b := newBooks(t, 0)
	for _, row := range []struct {
		name  string
		first func(b *books) list
		then  func(b *books) list
		want  []ledger.Code // of both calls
		left  money.Amount  // in wallet 0
	}{
		{
			"a purchase may spend all there is", func(b *books) list { return list{b.buy(0, "a", 100_00)} },
			func(b *books) list { return list{b.buy(0, "b", 1)} },
			[]ledger.Code{posted, refused},
			0,
		},
		{
			"a purchase above the balance is refused and takes nothing", func(b *books) list { return list{b.buy(0, "a", 100_01)} },
			nil,
			[]ledger.Code{refused},
			100_00,
		},
		{
			"a refused id stays refused when money has come", func(b *books) list { return list{b.buy(0, "a", 150_00)} },
			func(b *books) list { return list{b.topUp(0, "t", 100_00), b.buy(0, "a", 150_00)} },
			[]ledger.Code{refused, posted, refused},
			200_00,
		},
		{
			"something else under a refused id is a conflict", func(b *books) list { return list{b.buy(0, "a", 150_00)} },
			func(b *books) list { return list{b.buy(0, "a", 10_00)} },
			[]ledger.Code{refused, conflict},
			100_00,
		},
		{
			"one hot meal may be eaten on debt", func(b *books) list { return list{b.eat(0, "a", 110_00)} },
			nil,
			[]ledger.Code{posted},
			-10_00,
		},
		{
			"a second hot meal on debt is refused", func(b *books) list { return list{b.eat(0, "a", 110_00), b.eat(0, "b", 1)} },
			nil,
			[]ledger.Code{posted, refused},
			-10_00,
		},
		{
			"a hot meal does not go below the floor of the organisation", func(b *books) list { return list{b.eat(0, "a", 400_01)} },
			nil,
			[]ledger.Code{refused},
			100_00,
		},
		{
			"a hot meal may go down to the floor itself", func(b *books) list { return list{b.eat(0, "a", 400_00)} },
			nil,
			[]ledger.Code{posted},
			-300_00,
		},
		{
			"the buffet gives no credit on a wallet in debt", func(b *books) list { return list{b.eat(0, "a", 110_00)} },
			func(b *books) list { return list{b.buy(0, "b", 1)} },
			[]ledger.Code{posted, refused},
			-10_00,
		},
		{
			"an offline sale is booked whatever the balance", func(b *books) list { return list{offline(b.buy(0, "a", 1000_00))} },
			func(b *books) list { return list{offline(b.eat(0, "b", 1000_00))} },
			[]ledger.Code{posted, posted},
			-1900_00,
		},
		{
			"online purchases are refused below the floor until the debt is paid",
			func(b *books) list { return list{offline(b.buy(0, "a", 1000_00)), b.eat(0, "b", 1)} },
			func(b *books) list { return list{b.topUp(0, "t", 900_00), b.eat(0, "c", 1_00), b.eat(0, "d", 1_00)} },
			[]ledger.Code{posted, refused, posted, posted, refused},
			-1_00,
		},
		{
			"a top-up in the batch pays for the purchase behind it",
			func(b *books) list { return list{b.topUp(0, "t", 50_00), b.buy(0, "a", 150_00)} },
			nil,
			[]ledger.Code{posted, posted},
			0,
		},
		{
			"a top-up in the batch does not pay for the purchase before it",
			func(b *books) list { return list{b.buy(0, "a", 150_00), b.topUp(0, "t", 50_00)} },
			nil,
			[]ledger.Code{refused, posted},
			150_00,
		},
		{
			"a small purchase fits behind a large one that was refused",
			func(b *books) list { return list{b.buy(0, "a", 150_00), b.buy(0, "b", 100_00)} },
			nil,
			[]ledger.Code{refused, posted},
			0,
		},
		{
			"a repeat gets the first answer", func(b *books) list { return list{b.buy(0, "a", 30_00)} },
			func(b *books) list { return list{b.buy(0, "a", 30_00)} },
			[]ledger.Code{posted, duplicate},
			70_00,
		},
		{
			"a repeat inside one batch counts once", func(b *books) list { return list{b.buy(0, "a", 30_00), b.buy(0, "a", 30_00)} },
			nil,
			[]ledger.Code{posted, duplicate},
			70_00,
		},
		{
			"another sum under the same id is a conflict", func(b *books) list { return list{b.topUp(0, "t", 30_00)} },
			func(b *books) list { return list{b.topUp(0, "t", 31_00)} },
			[]ledger.Code{posted, conflict},
			130_00,
		},
		{
			"another account under the same id is a conflict", func(b *books) list { return list{b.topUp(0, "t", 30_00)} },
			func(b *books) list { return list{b.topUp(1, "t", 30_00)} },
			[]ledger.Code{posted, conflict},
			130_00,
		},
		{
			"a top-up of less than 10 roubles is refused", func(b *books) list { return list{b.topUp(0, "t", 9_99)} },
			nil,
			[]ledger.Code{ledger.CodeBadAmount},
			100_00,
		},
		{
			"a top-up of more than 15,000 roubles is refused", func(b *books) list { return list{b.topUp(0, "t", 15000_01)} },
			nil,
			[]ledger.Code{ledger.CodeBadAmount},
			100_00,
		},
		{
			"a bad amount does not take the id", func(b *books) list { return list{b.topUp(0, "t", 9_99)} },
			func(b *books) list { return list{b.topUp(0, "t", 10_00)} },
			[]ledger.Code{ledger.CodeBadAmount, posted},
			110_00,
		},
		{
			"nothing and less than nothing are not amounts", func(b *books) list { return list{b.buy(0, "a", 0), b.buy(0, "b", -5)} },
			func(b *books) list { return list{b.buy(0, "c", 0)} },
			[]ledger.Code{ledger.CodeBadAmount, ledger.CodeBadAmount, ledger.CodeBadAmount},
			100_00,
		},
		{
			"an account that does not exist", func(b *books) list {
				unknown := b.buy(0, "a", 1)
				unknown.Debit = 99_999_999
				return list{unknown}
			},
			func(b *books) list {
				unknown := b.buy(0, "b", 1)
				unknown.Credit = 999_999
				return list{unknown}
			},
			[]ledger.Code{ledger.CodeUnknownAccount, ledger.CodeUnknownAccount},
			100_00,
		},
		{
			"a kind goes only between its accounts", func(b *books) list {
				e := b.buy(0, "a", 1)
				e.Credit = b.provider
				return list{e}
			},
			func(b *books) list {
				back, self := b.buy(0, "b", 1), b.buy(0, "c", 1)
				back.Debit, back.Credit = back.Credit, back.Debit
				self.Kind, self.Credit = ledger.Transfer, self.Debit
				return list{back, self}
			},
			[]ledger.Code{ledger.CodeBadLegs, ledger.CodeBadLegs, ledger.CodeBadLegs},
			100_00,
		},
		{
			"a top-up cannot be forced", func(b *books) list { return list{offline(b.topUp(0, "t", 10_00))} },
			nil,
			[]ledger.Code{ledger.CodeBadLegs},
			100_00,
		},
		{
			"a transfer moves money between wallets", func(b *books) list { return list{b.transfer(0, 1, "a", 60_00)} },
			func(b *books) list { return list{b.transfer(1, 0, "b", 110_00), b.transfer(0, 1, "c", 151_00)} },
			[]ledger.Code{posted, posted, refused},
			150_00,
		},
		{
			"a refused transfer does not pay for what stands behind it",
			func(b *books) list { return list{b.transfer(1, 0, "a", 60_00), b.buy(0, "b", 120_00)} },
			nil,
			[]ledger.Code{refused, refused},
			100_00,
		},
		{
			"a meal is given back once", func(b *books) list { return list{b.eat(0, "a", 40_00)} },
			func(b *books) list {
				return list{b.reverse("r", "till/1", "a", 0), b.reverse("r", "till/1", "a", 0), b.reverse("r2", "till/1", "a", 1)}
			},
			[]ledger.Code{posted, posted, duplicate, ledger.CodeOverReversed},
			100_00,
		},
		{
			"a meal is given back in parts", func(b *books) list { return list{b.eat(0, "a", 40_00)} },
			func(b *books) list {
				return list{b.reverse("r", "till/1", "a", 15_00), b.reverse("r2", "till/1", "a", 25_01), b.reverse("r3", "till/1", "a", 25_00)}
			},
			[]ledger.Code{posted, posted, ledger.CodeOverReversed, posted},
			100_00,
		},
		{
			"a top-up that was spent is not given back", func(b *books) list { return list{b.topUp(0, "t", 50_00), b.buy(0, "a", 120_00)} },
			func(b *books) list {
				return list{b.reverse("r", "bank/mkb", "t", 0), b.reverse("r2", "bank/mkb", "t", 30_00)}
			},
			[]ledger.Code{posted, posted, refused, posted},
			0,
		},
		{
			"a reversal is not reversed", func(b *books) list { return list{b.eat(0, "a", 40_00)} },
			func(b *books) list { return list{b.reverse("r", "till/1", "a", 0), b.reverse("x", "nobody", "y", 0)} },
			[]ledger.Code{posted, posted, ledger.CodeNoOriginal},
			100_00,
		},
		{
			"a refused sale cannot be reversed", func(b *books) list { return list{b.buy(0, "a", 400_00)} },
			func(b *books) list { return list{b.reverse("r", "till/1", "a", 0)} },
			[]ledger.Code{refused, ledger.CodeNoOriginal},
			100_00,
		},
		{
			"a subsidised meal touches no wallet", func(b *books) list { return list{b.subsidise(0, "a", 90_00)} },
			func(b *books) list { return list{b.subsidise(0, "a", 90_00), b.subsidise(1, "a", 90_00)} },
			[]ledger.Code{posted, duplicate, conflict},
			100_00,
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := b.twoWallets(t)
			verdicts := b.post(row.first(b)...)
			if row.then != nil {
				verdicts = append(verdicts, b.post(row.then(b)...)...)
			}
			if got := codes(verdicts); !slices.Equal(got, row.want) {
				t.Errorf("verdicts %v, want %v", got, row.want)
			}
			if got := b.balance(0).Posted; got != row.left {
				t.Errorf("%s left in the wallet, want %s", got, row.left)
			}
		})
	}
	b.sound()
}

// twoWallets opens two new wallets with 100 and 50 roubles for one row of a
// table, whose ids have their own sources.
func (b *books) twoWallets(t *testing.T) *books {
	t.Helper()
	row := *b
	row.TB = t
	name := t.Name()
	row.prefix = fmt.Sprintf("%d/", row.count(`SELECT count(*) FROM ledger.person`))
	row.exec(`INSERT INTO ledger.person (code, organisation_id, kind, family_name, given_name)
	          SELECT left($1, 60) || i, o.id, 'pupil', 'Ivanov', 'Ivan' FROM generate_series(1, 2) AS i, ledger.organisation o`, name)
	row.openWallets()
	row.post(row.topUp(0, "first", 100_00), row.topUp(1, "first too", 50_00))
	return &row
}

func (b *books) transfer(from, to int, id string, amount money.Amount) ledger.Entry {
	e := b.buy(from, id, amount)
	e.Kind, e.Credit = ledger.Transfer, b.wallets[to]
	return e
}

// A sale made offline lowers a wallet's floor; money that comes in raises it again,
// from another wallet too (I4).
func TestATransferRaisesTheFloorThatASaleLowered(t *testing.T) {
	t.Parallel()
	b := newBooks(t, 2)
	b.fund(100_00)
	b.post(offline(b.buy(1, "served", 500_00)))
	if got := b.balance(1).Posted; got != -400_00 {
		t.Fatalf("the sale left %s", got)
	}
	b.post(b.topUp(0, "rich", 1000_00), b.transfer(0, 1, "gift", 450_00))
	if floor := b.count(`SELECT floor FROM ledger.balance WHERE account_id = $1`, b.wallets[1]); floor != int(b.balance(1).DebtFloor) {
		t.Errorf("the floor is %d with %s in the wallet", floor, b.balance(1).Posted)
	}
	b.sound()
}

func (b *books) reverse(id, ofSource, of string, amount money.Amount) ledger.Entry {
	return ledger.Entry{
		Event: b.event(), Kind: ledger.Reversal, Amount: amount, Source: b.prefix + "back", ExternalID: id, OccurredAt: today,
		Reverses: ledger.Key{Source: b.prefix + ofSource, ExternalID: of},
	}
}

func (b *books) subsidise(person int, id string, amount money.Amount) ledger.Entry {
	return ledger.Entry{
		Event: b.event(), Kind: ledger.SubsidisedMeal, Debit: b.budget, Credit: b.provider, Amount: amount,
		Source: b.prefix + "subsidy", ExternalID: id, OccurredAt: today, Subject: b.people[person],
	}
}

func TestARepeatAnswersWithTheFirstPosting(t *testing.T) {
	t.Parallel()
	b := newBooks(t, 1)
	b.fund(100_00)
	first := b.postOne(b.buy(0, "a", 30_00))
	b.postOne(b.buy(0, "b", 5_00))
	for name, again := range map[string]ledger.Verdict{
		"alone":      b.postOne(b.buy(0, "a", 30_00)),
		"in a batch": b.post(b.buy(0, "a", 30_00), b.buy(0, "c", 5_00))[0],
	} {
		want := first
		want.Code = ledger.CodeDuplicate
		if again != want {
			t.Errorf("a repeat %s answers %+v, the first was %+v", name, again, want)
		}
	}
	b.sound()
}

func TestACancelledIDIsNeverBooked(t *testing.T) {
	t.Parallel()
	b := newBooks(t, 1)
	b.fund(100_00)
	first := b.postOne(b.buy(0, "came", 30_00))
	var booked []ledger.PostingID
	b.inTx(func(tx pgx.Tx) (err error) {
		booked, err = b.book.Cancel(t.Context(), tx, []ledger.Key{
			{Source: "till/1", ExternalID: "came"}, {Source: "till/1", ExternalID: "lost"}, {Source: "till/1", ExternalID: "lost"},
		})
		return err
	})
	if !slices.Equal(booked, []ledger.PostingID{first.Posting, 0, 0}) {
		t.Errorf("cancelling answers %v", booked)
	}
	if v := b.postOne(b.buy(0, "lost", 30_00)); v.Code != ledger.CodeCancelled {
		t.Errorf("the late original of a cancelled id is %s", v.Code)
	}
	if v := b.post(b.buy(0, "lost", 30_00), b.buy(0, "x", 1))[0]; v.Code != ledger.CodeCancelled {
		t.Errorf("the late original of a cancelled id is %s in a batch", v.Code)
	}
	b.sound()
}

func TestAClosedWalletTakesNothingButWhatIsOwed(t *testing.T) {
	t.Parallel()
	b := newBooks(t, 1)
	b.fund(100_00)
	b.postOne(b.buy(0, "before", 10_00))
	b.inTx(func(tx pgx.Tx) error {
		return ledger.SetClosed(t.Context(), tx, b.wallets, true, "accountant 5", "left")
	})
	refund := b.buy(0, "refund", 5_00)
	refund.Kind, refund.Credit = ledger.Refund, b.bank
	for _, row := range []struct {
		entry ledger.Entry
		want  ledger.Code
	}{
		{b.topUp(0, "t", 10_00), ledger.CodeClosedAccount},
		{b.buy(0, "a", 1_00), ledger.CodeClosedAccount},
		{offline(b.buy(0, "b", 1_00)), ledger.CodePosted},
		{b.reverse("r", "till/1", "before", 0), ledger.CodePosted},
		{refund, ledger.CodePosted},
		{b.buy(0, "before", 10_00), ledger.CodeDuplicate},
	} {
		if v := b.postOne(row.entry); v.Code != row.want {
			t.Errorf("%s of a closed wallet alone is %s, want %s", row.entry.Kind, v.Code, row.want)
		}
		again := row.want
		if again == ledger.CodePosted {
			again = ledger.CodeDuplicate
		}
		if v := b.post(row.entry, row.entry)[0]; v.Code != again {
			t.Errorf("%s of a closed wallet in a batch is %s, want %s", row.entry.Kind, v.Code, again)
		}
	}
	b.sound()
}

func TestAnUnfitIDIsAnError(t *testing.T) {
	t.Parallel()
	b := newBooks(t, 1)
	for _, id := range []string{"", strings.Repeat("x", 65), "a\x00b", "\xff"} {
		e := b.topUp(0, id, 10_00)
		if _, err := b.tryPost(t.Context(), e); err == nil {
			t.Errorf("the id %q was taken", id)
		}
		e = b.topUp(0, "x", 10_00)
		e.Source = id
		if _, err := b.tryPost(t.Context(), e); err == nil {
			t.Errorf("the source %q was taken", id)
		}
	}
}

// T1: the same transaction id a hundred times from sixteen clients is one
// credit and ninety-nine equal answers; an altered amount changes nothing.
func TestOneIDFromManyClientsIsOneCredit(t *testing.T) {
	t.Parallel()
	b := newBooks(t, 2)
	var mu sync.Mutex
	var all []ledger.Verdict
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(16)
	for i := range 100 {
		group.Go(func() error {
			entries := []ledger.Entry{b.topUp(0, "880055501234", 500_00)}
			if i%3 == 0 { // some come in a batch with something else
				entries = append(entries, b.topUp(1, fmt.Sprint(i), 10_00))
			}
			verdicts, err := b.tryPost(ctx, entries...)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, verdicts[0])
			return nil
		})
	}
	b.must(group.Wait())
	credits := 0
	for _, v := range all {
		if v.Code == ledger.CodePosted {
			credits++
			v.Code = ledger.CodeDuplicate
		}
		want := all[0]
		want.Code = ledger.CodeDuplicate
		if v != want {
			t.Errorf("answer %+v, another was %+v", v, want)
		}
	}
	if credits != 1 {
		t.Errorf("%d credits", credits)
	}
	if v := b.postOne(b.topUp(0, "880055501234", 500_01)); v.Code != ledger.CodeConflict {
		t.Errorf("an altered amount is %s", v.Code)
	}
	if got := b.balance(0).Posted; got != 500_00 {
		t.Errorf("the wallet holds %s", got)
	}
	b.sound()
}

// T4: of a hundred simultaneous purchases against money for ten exactly ten are accepted.
func TestManyPurchasesAtOnceSpendOnlyWhatIsThere(t *testing.T) {
	t.Parallel()
	b := newBooks(t, 1)
	b.fund(100_00)
	var mu sync.Mutex
	tally := map[ledger.Code]int{}
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(16)
	for i := range 50 {
		group.Go(func() error {
			one, err := b.tryPost(ctx, b.buy(0, fmt.Sprintf("single-%d", i), 10_00))
			if err != nil {
				return err
			}
			two, err := b.tryPost(ctx, b.buy(0, fmt.Sprintf("batch-%d", i), 10_00), b.topUp(0, "none", 1))
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			tally[one[0].Code]++
			tally[two[0].Code]++
			return nil
		})
	}
	b.must(group.Wait())
	if tally[ledger.CodePosted] != 10 || tally[ledger.CodeRefused] != 90 {
		t.Errorf("verdicts %v", tally)
	}
	b.sound()
}

// deadlockSeconds is how long the next test goes on for; unset, a number of calls
// is enough. `make faults` sets it to the minute of the specification.
const deadlockSeconds = "ZVONOK_TEST_DEADLOCK_SECONDS"

// T5: opposite transfers, batches in random order and singles, all over the
// same few wallets, never deadlock and keep the money.
func TestOppositeTransfersNeverDeadlock(t *testing.T) {
	t.Parallel()
	const wallets, workers, calls = 12, 12, 40
	b := newBooks(t, wallets)
	b.fund(1000_00)
	seconds, err := strconv.Atoi(cmp.Or(os.Getenv(deadlockSeconds), "0"))
	b.must(err)
	until := time.Now().Add(time.Duration(seconds) * time.Second)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	before := b.count(`SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`)
	var mu sync.Mutex
	made, batches := money.Amount(0), 0 // what came in from outside less what went out
	group, ctx := errgroup.WithContext(t.Context())
	for w := range workers {
		random := rand.New(rand.NewPCG(seed, uint64(w)))
		group.Go(func() error {
			for c := 0; c < calls || time.Now().Before(until); c++ {
				var entries []ledger.Entry
				for i := range 1 + random.IntN(9) {
					from := random.IntN(wallets)
					to := (from + 1 + random.IntN(wallets-1)) % wallets
					id := fmt.Sprintf("%d-%d-%d", w, c, i)
					switch random.IntN(4) {
					case 0:
						entries = append(entries, b.buy(from, id, 1_00))
					case 1:
						entries = append(entries, b.topUp(from, id, 10_00))
					default: // and its opposite, by another or by this one
						entries = append(entries, b.transfer(from, to, id, money.Amount(1+i)*100))
					}
				}
				verdicts, err := b.tryPost(ctx, entries...)
				if err != nil {
					return err
				}
				mu.Lock()
				batches++
				for i, v := range verdicts {
					if v.Code == ledger.CodePosted {
						switch entries[i].Kind {
						case ledger.TopUp:
							made += entries[i].Amount
						case ledger.BuffetSale:
							made -= entries[i].Amount
						}
					}
				}
				mu.Unlock()
			}
			return nil
		})
	}
	b.must(group.Wait())
	// A deadlock would also have been the error of a call; the server's count comes
	// when its processes tell of themselves, which they do when they have nothing to do.
	b.exec(`SELECT pg_stat_clear_snapshot()`)
	if after := b.count(`SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`); after != before {
		t.Errorf("%d deadlocks", after-before)
	}
	held := money.Amount(0)
	for w := range wallets {
		held += b.balance(w).Posted
	}
	if want := wallets*1000_00 + made; held != want {
		t.Errorf("after %d calls the wallets hold %s together, want %s", batches, held, want)
	}
	b.sound()
}

// T6: each of five hundred postings is reversed twice at once: five hundred successes.
func TestEachPostingIsReversedOnce(t *testing.T) {
	t.Parallel()
	const n = 500
	b := newBooks(t, 20)
	b.fund(1000_00)
	sales := make([]ledger.Entry, n)
	for i := range sales {
		sales[i] = b.buy(i%20, fmt.Sprint(i), 10_00)
		if i%5 == 0 { // no wallet to lock
			sales[i] = b.subsidise(i%20, fmt.Sprint(i), 10_00)
			sales[i].Source = "till/1"
		}
	}
	for _, v := range b.post(b.events(sales)...) {
		if v.Code != ledger.CodePosted {
			t.Fatalf("a sale is %s", v.Code)
		}
	}
	var mu sync.Mutex
	tally := map[ledger.Code]int{}
	group, ctx := errgroup.WithContext(t.Context())
	for w := range 2 {
		for part := range 10 { // forwards and backwards, in pieces
			group.Go(func() error {
				var entries []ledger.Entry
				for i := part * n / 10; i < (part+1)*n/10; i++ {
					entries = append(entries, b.reverse(fmt.Sprintf("%d-%d", w, i), "till/1", fmt.Sprint(i), 0))
				}
				if w == 1 {
					slices.Reverse(entries)
				}
				verdicts, err := b.tryPost(ctx, entries...)
				if err != nil {
					return err
				}
				mu.Lock()
				defer mu.Unlock()
				for _, v := range verdicts {
					tally[v.Code]++
				}
				return nil
			})
		}
	}
	b.must(group.Wait())
	if tally[ledger.CodePosted] != n || tally[ledger.CodeOverReversed] != n {
		t.Errorf("verdicts %v", tally)
	}
	for i := range 20 {
		if got := b.balance(i).Posted; got != 1000_00 {
			t.Errorf("wallet %d holds %s", i, got)
		}
	}
	b.sound()
}

// T16: one bad item of five hundred does not hold up the others; the same batch
// again books nothing.
func TestOneBadItemDoesNotHoldUpABatch(t *testing.T) {
	t.Parallel()
	const n, bad = 500, 321
	b := newBooks(t, 50)
	b.fund(1000_00)
	entries := make([]ledger.Entry, n)
	for i := range entries {
		entries[i] = b.buy(i%50, fmt.Sprint(i), 10_00)
	}
	entries[bad].Debit = 77_777_777
	b.events(entries)
	for i, v := range b.post(entries...) {
		want := ledger.CodePosted
		if i == bad {
			want = ledger.CodeUnknownAccount
		}
		if v.Code != want {
			t.Errorf("item %d is %s, want %s", i, v.Code, want)
		}
	}
	for i, v := range b.post(entries...) {
		want := ledger.CodeDuplicate
		if i == bad {
			want = ledger.CodeUnknownAccount
		}
		if v.Code != want {
			t.Errorf("item %d again is %s, want %s", i, v.Code, want)
		}
	}
	if got := b.count(`SELECT count(*) FROM ledger.posting WHERE kind = 'buffet'`); got != n-1 {
		t.Errorf("%d postings", got)
	}
	b.sound()
}

// T21: batches with overlapping ids at the same time book each id once, also
// when no wallet's lock keeps them apart, and no caller sees an error.
func TestOverlappingBatchesBookEachIDOnce(t *testing.T) {
	t.Parallel()
	const ids, size, workers = 200, 60, 8
	b := newBooks(t, 10)
	b.fund(10000_00)
	for _, make := range []func(i int) ledger.Entry{
		func(i int) ledger.Entry { return b.buy(i%10, fmt.Sprint(i), 10_00) },
		func(i int) ledger.Entry { return b.subsidise(i%10, fmt.Sprint(i), 10_00) },
	} {
		var mu sync.Mutex
		booked := map[string]int{}
		group, ctx := errgroup.WithContext(t.Context())
		for w := range workers {
			group.Go(func() error {
				for start := w * 13; start < ids+w*13; start += size / 2 {
					var entries []ledger.Entry
					for i := range size {
						at := (start + i*(1+2*(w%2))) % ids
						entries = append(entries, make(at))
					}
					verdicts, err := b.tryPost(ctx, entries...)
					if err != nil {
						return err
					}
					mu.Lock()
					for i, v := range verdicts {
						if !v.Booked() {
							t.Errorf("%s is %s", entries[i].ExternalID, v.Code)
						}
						if v.Code == ledger.CodePosted {
							booked[entries[i].ExternalID]++
						}
					}
					mu.Unlock()
				}
				return nil
			})
		}
		b.must(group.Wait())
		for id, times := range booked {
			if times != 1 {
				t.Errorf("id %s was booked %d times", id, times)
			}
		}
	}
	b.sound()
}

func TestALostConnectionBooksNothing(t *testing.T) {
	t.Parallel()
	b := newBooks(t, 1)
	lost := errors.New("lost")
	err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
		if _, err := b.book.Post(t.Context(), tx, []ledger.Entry{b.topUp(0, "t", 500_00)}); err != nil {
			return err
		}
		return lost
	})
	if !errors.Is(err, lost) {
		t.Fatal(err)
	}
	if v := b.postOne(b.topUp(0, "t", 500_00)); v.Code != ledger.CodePosted {
		t.Errorf("the repeat is %s", v.Code)
	}
	if got := b.count(`SELECT count(*) FROM river.river_job`); got != 1 {
		t.Errorf("%d jobs", got)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.tryPost(cancelled, b.topUp(0, "t2", 500_00)); err == nil {
		t.Error("a cancelled call succeeded")
	}
	b.sound()
}

// Top-ups and corrections are announced in the transaction that books them;
// sales are announced by the canteen, refusals by nobody.
func TestTopUpsAndCorrectionsAreAnnounced(t *testing.T) {
	t.Parallel()
	b := newBooks(t, 1)
	entries := b.events([]ledger.Entry{
		b.topUp(0, "t", 500_00), b.buy(0, "a", 50_00), b.eat(0, "b", 50_00), b.buy(0, "c", 5000_00), b.subsidise(0, "d", 50_00),
	})
	b.post(entries...)
	fix := b.buy(0, "fix", 1_00)
	fix.Kind, fix.Debit, fix.Credit = ledger.Correction, b.writeOff, b.wallets[0]
	back := b.reverse("r", "bank/mkb", "t", 100_00)
	more := b.events([]ledger.Entry{fix, back, b.reverse("r2", "till/1", "a", 0)})
	b.post(more...)

	var got []int64
	rows, err := b.pool.Query(t.Context(), `SELECT args FROM river.river_job WHERE kind = 'ledger_posted' ORDER BY id`)
	b.must(err)
	facts, err := pgx.CollectRows(rows, pgx.RowTo[ledger.Posted])
	b.must(err)
	for _, fact := range facts {
		got = append(got, fact.EventIDs...)
		var from, to time.Time // not the test's day: midnight is where the organisation is
		b.must(b.pool.QueryRow(t.Context(), `SELECT min(booking_day), max(booking_day) FROM ledger.posting WHERE event_id = ANY($1)`,
			fact.EventIDs).Scan(&from, &to))
		if !fact.From.Equal(from) || !fact.To.Equal(to) {
			t.Errorf("the job bounds the days %s to %s, its postings %s to %s", fact.From, fact.To, from, to)
		}
	}
	if want := []int64{int64(entries[0].Event), int64(more[0].Event), int64(more[1].Event)}; !slices.Equal(got, want) {
		t.Errorf("announced %v, want %v", got, want)
	}
	movements, err := ledger.PostedMovements(t.Context(), b.pool, facts[1])
	b.must(err)
	if len(movements) != 2 || movements[0].Amount != 1_00 || movements[1].Amount != -100_00 || movements[1].Person != b.people[0] ||
		movements[0].After != 401_00 || movements[1].After != 301_00 {
		t.Errorf("the job tells of %+v", movements)
	}
}
