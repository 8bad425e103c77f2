package ledger_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"zvonok/ledger"
	"zvonok/ledger/money"
	"zvonok/ledger/pg"
	"zvonok/ledger/pg/pgtest"
)

// nextEvent numbers events above those of the database's sequence.
var nextEvent atomic.Int64

// today is the day on which tests post.
var today = time.Now().UTC()

// books is a database with one school, some pupils and their wallets.
type books struct {
	testing.TB
	pool    *pgxpool.Pool
	owner   *pgxpool.Pool // may do everything; made by tamper
	url     string
	book    *ledger.Book
	people  []ledger.PersonID
	wallets []ledger.AccountID
	prefix  string // of sources, where several tests share a database
	// The accounts of the system.
	bank, provider, buffet, budget, suspense, writeOff, settled ledger.AccountID
}

// spoil changes a new database; only the mutation gate does.
var spoil = func(*books) {}

func newBooks(t testing.TB, pupils int) *books {
	t.Helper()
	return newBooksAt(t, pgtest.NewURL(t), pupils)
}

func newBooksAt(t testing.TB, url string, pupils int) *books {
	t.Helper()
	b := newBooksOn(t, url, &books{})
	spoil(b)
	b.exec(`INSERT INTO ledger.payee (code, name, inn, payment_code) VALUES ('kp', 'Kitchen', '7700000000', '916')`)
	b.exec(`INSERT INTO ledger.organisation (code, kind, name, short_name, payee_code, time_zone)
	        VALUES ('s1', 'school', 'School 1', 'S1', 'kp', 'Europe/Moscow')`)
	b.exec(`INSERT INTO ledger.person (code, organisation_id, kind, family_name, given_name)
	        SELECT 'p-' || i, o.id, 'pupil', 'Ivanov', 'Ivan' FROM generate_series(1, $1::int) AS i, ledger.organisation o ORDER BY i`, pupils)
	b.inTx(func(tx pgx.Tx) error {
		ids, err := ledger.SystemAccounts(t.Context(), tx,
			ledger.SystemAccount{Kind: ledger.Bank, Owner: "mkb"},
			ledger.SystemAccount{Kind: ledger.Provider, Owner: "kp"},
			ledger.SystemAccount{Kind: ledger.Buffet, Owner: "kp"},
			ledger.SystemAccount{Kind: ledger.Budget},
			ledger.SystemAccount{Kind: ledger.Suspense},
			ledger.SystemAccount{Kind: ledger.WriteOff},
			ledger.SystemAccount{Kind: ledger.Settled, Owner: "mkb"})
		if err != nil {
			return err
		}
		b.bank, b.provider, b.buffet, b.budget = ids[0], ids[1], ids[2], ids[3]
		b.suspense, b.writeOff, b.settled = ids[4], ids[5], ids[6]
		return nil
	})
	b.openWallets()
	return b
}

// newBooksOn opens a database that holds what like's does.
func newBooksOn(t testing.TB, url string, like *books) *books {
	t.Helper()
	b := *like
	b.TB, b.url, b.owner = t, url, nil
	pool, err := pg.Open(t.Context(), pg.Config{URL: b.url, MaxConns: 24, AppName: "test", Role: pg.AppRole})
	b.must(err)
	t.Cleanup(pool.Close)
	b.pool = pool
	jobs, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Schema: pg.RiverSchema, Logger: slog.New(slog.DiscardHandler)})
	b.must(err)
	b.book = ledger.NewBook(jobs)
	return &b
}

// openWallets opens wallets for all people who have none and makes them the people of b.
func (b *books) openWallets() {
	b.Helper()
	rows, err := b.pool.Query(b.Context(), `
		SELECT p.id FROM ledger.person p WHERE NOT EXISTS (SELECT FROM ledger.account a WHERE a.person_id = p.id) ORDER BY p.id`)
	b.must(err)
	b.people, err = pgx.CollectRows(rows, pgx.RowTo[ledger.PersonID])
	b.must(err)
	openings := make([]ledger.WalletOpening, len(b.people))
	for i, person := range b.people {
		number, err := ledger.NewAccountNumber("12", int64(person))
		b.must(err)
		openings[i] = ledger.WalletOpening{Person: person, Number: number}
	}
	b.inTx(func(tx pgx.Tx) error { return ledger.OpenWallets(b.Context(), tx, openings) })
	rows, err = b.pool.Query(b.Context(), `SELECT id FROM ledger.account WHERE person_id = ANY ($1) ORDER BY person_id`, b.people)
	b.must(err)
	b.wallets, err = pgx.CollectRows(rows, pgx.RowTo[ledger.AccountID])
	b.must(err)
}

func (b *books) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *books) exec(query string, args ...any) {
	b.Helper()
	_, err := b.pool.Exec(b.Context(), query, args...)
	b.must(err)
}

// tamper runs a statement as the owner of the database, past every guard.
func (b *books) tamper(statements ...string) {
	b.Helper()
	if b.owner == nil {
		pool, err := pg.Open(b.Context(), pg.Config{URL: b.url, MaxConns: 2, AppName: "tamper"})
		b.must(err)
		b.Cleanup(pool.Close)
		b.owner = pool
	}
	b.must(pgx.BeginFunc(b.Context(), b.owner, func(tx pgx.Tx) error {
		if _, err := tx.Exec(b.Context(), `SET LOCAL session_replication_role = replica`); err != nil {
			return err
		}
		for _, statement := range statements {
			if _, err := tx.Exec(b.Context(), statement); err != nil {
				return err
			}
		}
		return nil
	}))
}

func (b *books) inTx(f func(pgx.Tx) error) {
	b.Helper()
	b.must(pgx.BeginFunc(b.Context(), b.pool, f))
}

// post books entries in a transaction of their own.
func (b *books) post(entries ...ledger.Entry) []ledger.Verdict {
	b.Helper()
	verdicts, err := b.tryPost(b.Context(), entries...)
	b.must(err)
	return verdicts
}

func (b *books) tryPost(ctx context.Context, entries ...ledger.Entry) (verdicts []ledger.Verdict, err error) {
	err = pgx.BeginFunc(ctx, b.pool, func(tx pgx.Tx) error {
		verdicts, err = b.book.Post(ctx, tx, entries)
		return err
	})
	return verdicts, err
}

// postOne books one entry and returns its outcome.
func (b *books) postOne(entry ledger.Entry) ledger.Verdict {
	b.Helper()
	return b.post(entry)[0]
}

func (b *books) topUp(wallet int, id string, amount money.Amount) ledger.Entry {
	return ledger.Entry{
		Event: b.event(), Kind: ledger.TopUp, Debit: b.bank, Credit: b.wallets[wallet], Amount: amount,
		Source: b.prefix + "bank/mkb", ExternalID: id, OccurredAt: today,
	}
}

func (b *books) buy(wallet int, id string, amount money.Amount) ledger.Entry {
	return ledger.Entry{
		Event: b.event(), Kind: ledger.BuffetSale, Debit: b.wallets[wallet], Credit: b.buffet, Amount: amount,
		Source: b.prefix + "till/1", ExternalID: id, OccurredAt: today,
	}
}

// event is a new event of the tests that do not ask the database for theirs.
func (b *books) event() ledger.EventID { return ledger.EventID(1_000_000_000 + nextEvent.Add(1)) }

func (b *books) eat(wallet int, id string, amount money.Amount) ledger.Entry {
	e := b.buy(wallet, id, amount)
	e.Kind, e.Credit = ledger.HotMeal, b.provider
	return e
}

func offline(e ledger.Entry) ledger.Entry {
	e.Mode = ledger.Offline
	return e
}

// events gives each entry an event of its own.
func (b *books) events(entries []ledger.Entry) []ledger.Entry {
	b.Helper()
	ids, err := ledger.NextEventIDs(b.Context(), b.pool, len(entries))
	b.must(err)
	for i := range entries {
		entries[i].Event = ids[i]
	}
	return entries
}

// fund tops up every wallet by amount.
func (b *books) fund(amount money.Amount) {
	b.Helper()
	entries := make([]ledger.Entry, len(b.wallets))
	for i := range b.wallets {
		entries[i] = b.topUp(i, fmt.Sprintf("fund-%d", i), amount)
	}
	for i, v := range b.post(b.events(entries)...) {
		if v.Code != ledger.CodePosted {
			b.Fatalf("funding wallet %d: %s", i, v.Code)
		}
	}
}

func (b *books) balance(wallet int) ledger.Balance {
	b.Helper()
	balances, err := ledger.Balances(b.Context(), b.pool, b.people[wallet:wallet+1])
	b.must(err)
	return balances[b.people[wallet]]
}

func (b *books) count(query string, args ...any) int {
	b.Helper()
	var n int
	b.must(b.pool.QueryRow(b.Context(), query, args...).Scan(&n))
	return n
}

// sound wants the verification to find nothing.
func (b *books) sound() ledger.VerifyReport {
	b.Helper()
	report, err := ledger.Verify(b.Context(), b.pool)
	b.must(err)
	for _, v := range report.Violations {
		b.Errorf("verify: %s", v)
	}
	return report
}
