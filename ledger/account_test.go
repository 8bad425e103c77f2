package ledger_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"zvonok/ledger"
	"zvonok/ledger/money"
)

func TestSystemAccountsAreOpenedOnce(t *testing.T) {
	t.Parallel()
	b := newBooks(t, 0)
	names := []ledger.SystemAccount{
		{Kind: ledger.Bank, Owner: "new"}, {Kind: ledger.Budget}, {Kind: ledger.Bank, Owner: "new"}, {Kind: ledger.Bank, Owner: "mkb"},
	}
	first, err := ledger.SystemAccounts(t.Context(), b.pool, names...)
	b.must(err)
	again, err := ledger.SystemAccounts(t.Context(), b.pool, names...)
	b.must(err)
	if !slices.Equal(first, again) || first[0] != first[2] || first[1] != b.budget || first[3] != b.bank || first[0].IsWallet() {
		t.Errorf("accounts %v, then %v", first, again)
	}
	if _, err := ledger.SystemAccounts(t.Context(), b.pool, ledger.SystemAccount{Kind: ledger.Wallet}); err == nil {
		t.Error("a wallet was opened as a system account")
	}
	if _, err := ledger.SystemAccounts(t.Context(), b.pool, ledger.SystemAccount{Kind: "purse"}); err == nil {
		t.Error("an account of an unknown kind was opened")
	}
}

func TestWalletsAreOpenedOnce(t *testing.T) {
	t.Parallel()
	b := newBooks(t, 2)
	number := b.balance(0).Number
	open := func(person ledger.PersonID, number string) error {
		return pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
			return ledger.OpenWallets(t.Context(), tx, []ledger.WalletOpening{{Person: person, Number: number}})
		})
	}
	b.must(open(b.people[0], number)) // a repeat changes nothing
	for name, err := range map[string]error{
		"a second wallet of a person": open(b.people[0], "99999997"),
		"a number that is taken":      open(b.people[1], number),
		"a number of seven digits":    open(b.people[1], "1234567"),
		"a person nobody knows":       open(4711, "99999997"),
	} {
		var pgErr *pgconn.PgError
		if !errors.As(err, &pgErr) {
			t.Errorf("%s: %v", name, err)
		}
	}
	wallets, err := ledger.WalletsByNumber(t.Context(), b.pool, []string{number, "99999997"})
	b.must(err)
	if len(wallets) != 1 || wallets[number].Person != b.people[0] || wallets[number].DebtFloor != -300_00 {
		t.Errorf("wallets by number %+v", wallets)
	}
	b.sound()
}

// The account moves with the child between organisations, with its money; its
// debt floor is that of the new one.
func TestTheDebtFloorFollowsTheOrganisation(t *testing.T) {
	t.Parallel()
	b := newBooks(t, 2)
	b.fund(10_00)
	b.exec(`INSERT INTO ledger.organisation (code, kind, name, short_name, time_zone, debt_floor)
	        VALUES ('s2', 'school', 'School 2', 'S2', 'Europe/Moscow', -10000)`)
	b.postOne(b.eat(0, "deep", 200_00))
	b.exec(`UPDATE ledger.person SET organisation_id = (SELECT id FROM ledger.organisation WHERE code = 's2')`)
	if got := b.balance(0); got.DebtFloor != -100_00 || got.Posted != -190_00 {
		t.Errorf("after moving %+v", got)
	}
	b.sound() // the wallet is below its new floor, and the change of policy says why
	if v := b.postOne(b.eat(1, "a", 110_01)); v.Code != ledger.CodeRefused {
		t.Errorf("below the new floor: %s", v.Code)
	}
	if v := b.postOne(b.eat(1, "b", 110_00)); v.Code != ledger.CodePosted {
		t.Errorf("down to the new floor: %s", v.Code)
	}
	b.exec(`UPDATE ledger.organisation SET debt_floor = 0 WHERE code = 's2'`)
	if got := b.balance(1); got.DebtFloor != 0 {
		t.Errorf("after the organisation gave up debts %+v", got)
	}
	b.post(b.topUp(0, "t", 190_00), b.topUp(1, "t2", 100_00))
	if v := b.postOne(b.eat(1, "c", 1)); v.Code != ledger.CodeRefused {
		t.Errorf("a debt meal where none is allowed: %s", v.Code)
	}
	b.sound()
}

// Orders for a child come from two parents' phones at once: together they hold no more than there is (I9).
func TestManyHoldsAtOnceSetAsideOnlyWhatIsThere(t *testing.T) {
	t.Parallel()
	b := newBooks(t, 1)
	b.fund(100_00)
	var held atomic.Int64
	var holders sync.WaitGroup
	for i := range 25 {
		holders.Go(func() {
			err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
				codes, err := b.book.HoldMoney(t.Context(), tx, []ledger.Hold{{
					Account: b.wallets[0], Amount: 10_00, Key: ledger.Key{Source: "preorder", ExternalID: strconv.Itoa(i)},
				}})
				if err == nil && codes[0] == ledger.CodeHeld {
					held.Add(1)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	holders.Wait()
	if got := b.balance(0); held.Load() != 10 || got.Held != 100_00 || got.Available() != 0 {
		t.Errorf("%d orders hold %s of %s", held.Load(), got.Held, got.Posted)
	}
	b.sound()
}

func TestHeldMoneyIsNotSpent(t *testing.T) {
	t.Parallel()
	b := newBooks(t, 2)
	b.fund(100_00)
	key := func(id string) ledger.Key { return ledger.Key{Source: "preorder", ExternalID: id} }
	hold := func(holds ...ledger.Hold) (got []ledger.Code) {
		t.Helper()
		b.inTx(func(tx pgx.Tx) (err error) {
			got, err = b.book.HoldMoney(t.Context(), tx, holds)
			return err
		})
		return got
	}
	got := hold(
		ledger.Hold{Account: b.wallets[0], Amount: 60_00, Key: key("a")},
		ledger.Hold{Account: b.wallets[0], Amount: 50_00, Key: key("b")},
		ledger.Hold{Account: b.wallets[1], Amount: 100_00, Key: key("c")},
		ledger.Hold{Account: b.wallets[0], Amount: 60_00, Key: key("a")},
		ledger.Hold{Account: 77_777_777, Amount: 1, Key: key("d")})
	if want := []ledger.Code{
		ledger.CodeHeld, ledger.CodeRefused, ledger.CodeHeld, ledger.CodeConflict, ledger.CodeUnknownAccount,
	}; !slices.Equal(got, want) {
		t.Errorf("holds %v, want %v", got, want)
	}
	if got := hold(ledger.Hold{Account: b.wallets[0], Amount: 60_00, Key: key("a")},
		ledger.Hold{Account: b.wallets[0], Amount: 61_00, Key: key("a")}); !slices.Equal(got, []ledger.Code{
		ledger.CodeDuplicate, ledger.CodeConflict,
	}) {
		t.Errorf("repeated holds %v", got)
	}
	if got := b.balance(0); got.Held != 60_00 || got.Available() != 40_00 {
		t.Errorf("balance %+v", got)
	}
	if got := hold(ledger.Hold{Account: b.wallets[0], Amount: 40_01, Key: key("e")}); got[0] != ledger.CodeRefused {
		t.Errorf("held money was held once more: %v", got)
	}
	for _, row := range []struct {
		entry ledger.Entry
		want  ledger.Code
	}{
		{b.buy(0, "1", 40_01), ledger.CodeRefused},
		{b.buy(0, "2", 40_00), ledger.CodePosted},
		{b.eat(0, "3", 10_00), ledger.CodePosted}, // on debt: the held money is somebody's dinner
		{b.eat(0, "4", 10_00), ledger.CodeRefused},
		{offline(b.buy(0, "5", 70_00)), ledger.CodePosted},
	} {
		if v := b.postOne(row.entry); v.Code != row.want {
			t.Errorf("purchase %s of held money is %s, want %s", row.entry.ExternalID, v.Code, row.want)
		}
	}
	b.sound()
	end := func(how ledger.HoldEnd, keys ...ledger.Key) (n int) {
		t.Helper()
		b.inTx(func(tx pgx.Tx) (err error) {
			n, err = b.book.EndHolds(t.Context(), tx, keys, how)
			return err
		})
		return n
	}
	if n := end(ledger.HoldReleased, key("a"), key("a"), key("nobody's")); n != 1 {
		t.Errorf("%d holds ended", n)
	}
	if n := end(ledger.HoldTaken, key("a")); n != 0 {
		t.Errorf("an ended hold ended again")
	}
	if got := b.balance(0); got.Held != 0 || got.Posted != -20_00 {
		t.Errorf("balance %+v", got)
	}
	// A preorder is paid from what was held for it, in one transaction.
	b.inTx(func(tx pgx.Tx) error {
		if _, err := b.book.EndHolds(t.Context(), tx, []ledger.Key{key("c")}, ledger.HoldTaken); err != nil {
			return err
		}
		verdicts, err := b.book.Post(t.Context(), tx, []ledger.Entry{b.eat(1, "preordered", 100_00)})
		if err == nil && verdicts[0].Code != ledger.CodePosted {
			err = fmt.Errorf("the preordered meal is %s", verdicts[0].Code)
		}
		return err
	})
	b.sound()
}

func TestAStatementPagesBackAndTellsPastBalances(t *testing.T) {
	t.Parallel()
	b := newBooks(t, 2)
	b.fund(100_00)
	for i := range 6 {
		b.postOne(b.buy(0, fmt.Sprint(i), money.Amount(1+i)*100))
	}
	b.postOne(b.transfer(0, 1, "gift", 9_00))
	page, err := ledger.Statement(t.Context(), b.pool, b.wallets[0], 0, 3)
	b.must(err)
	next, err := ledger.Statement(t.Context(), b.pool, b.wallets[0], page[2].Number, 100)
	b.must(err)
	all := slices.Concat(page, next)
	if len(page) != 3 || len(all) != 8 {
		t.Fatalf("pages of %d and %d movements", len(page), len(next))
	}
	for i, m := range all {
		if m.Number != int32(8-i) || m.Person != b.people[0] {
			t.Errorf("movement %d is %+v", i, m)
		}
		if i+1 < len(all) && m.After != all[i+1].After+m.Amount {
			t.Errorf("movement %d leaves %s, the one before left %s", m.Number, m.After, all[i+1].After)
		}
		at, err := ledger.BalanceAt(t.Context(), b.pool, b.wallets[0], m.PostedAt)
		b.must(err)
		if at != m.After {
			t.Errorf("as of movement %d the balance is %s, want %s", m.Number, at, m.After)
		}
	}
	if all[0].Other != b.wallets[1] || all[0].Kind != ledger.Transfer || all[7].Other != b.bank || all[7].Source != "bank/mkb" {
		t.Errorf("the newest is %+v, the oldest %+v", all[0], all[7])
	}
	before, err := ledger.BalanceAt(t.Context(), b.pool, b.wallets[0], all[7].PostedAt.Add(-time.Microsecond))
	b.must(err)
	if before != 0 {
		t.Errorf("before its first movement a wallet held %s", before)
	}
}
