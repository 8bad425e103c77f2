package ledger_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"zvonok/ledger"
	"zvonok/ledger/money"
	"zvonok/ledger/pg"
)

// T11: the disk is full. The server process of one connection may write no file
// beyond 16 MiB, while the table of ids is larger than that: what does not fit
// is an error of the whole call, nothing of it is booked, and the repeat books
// it once there is room.
func TestAFullDiskBooksNothingAndTheRepeatBooksAll(t *testing.T) {
	t.Parallel()
	const limit = 16 << 20 // a segment of the write-ahead log is as long and must go on
	b := newBooks(t, 2)
	b.fund(10_000_00)
	// Tombstones, four to a page, which leave no room on it.
	b.tamper(fmt.Sprintf(`
		INSERT INTO ledger.idem (source, ext_id, body)
		SELECT 'filler', i::text, h.hash
		  FROM generate_series(100001, 100000 + %d) AS i,
		       (SELECT string_agg(encode(sha256(n::text::bytea), 'hex'), '') AS hash FROM generate_series(1, 31) AS n) AS h`, 5*limit/8192))
	conn, err := b.pool.Acquire(t.Context())
	b.must(err)
	defer conn.Release()
	var server int
	b.must(conn.QueryRow(t.Context(), `SELECT pg_backend_pid()`).Scan(&server))
	// The account that may limit the server's process is the server's own.
	mayWrite := func(octets any) {
		t.Helper()
		b.tamper(fmt.Sprintf(`COPY (SELECT) TO PROGRAM 'prlimit --pid %d --fsize=%v:'`, server, octets))
	}
	mayWrite(limit)
	entries := make([]ledger.Entry, 500)
	for i := range entries {
		entries[i] = b.buy(i%2, fmt.Sprint(i), 1_00)
	}
	post := func() (verdicts []ledger.Verdict, err error) {
		err = pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
			verdicts, err = b.book.Post(t.Context(), tx, entries)
			return err
		})
		return verdicts, err
	}
	if _, err := post(); err == nil || !strings.Contains(err.Error(), "could not extend file") {
		t.Fatalf("on a full disk the call ended with %v", err)
	}
	if n := b.count(`SELECT count(*) FROM ledger.posting WHERE kind = 'buffet'`); n != 0 || b.balance(0).Posted != 10_000_00 {
		t.Errorf("%d postings are booked, the balance is %s", n, b.balance(0).Posted)
	}
	b.sound()

	mayWrite("unlimited")
	verdicts, err := post()
	b.must(err)
	for i, v := range verdicts {
		if v.Code != ledger.CodePosted {
			t.Fatalf("entry %d of the repeat is %s", i, v.Code)
		}
	}
	b.sound()
}

// T11: no connection is free, or the server takes too long. The caller hears it
// within its own time, nothing is booked, and the repeat is.
func TestAnExhaustedPoolAndAnOverdueStatementBookNothing(t *testing.T) {
	t.Parallel()
	b := newBooks(t, 1)
	b.fund(100_00)
	narrow, err := pg.Open(t.Context(), pg.Config{URL: b.url, MaxConns: 1, AppName: "narrow", Role: pg.AppRole})
	b.must(err)
	defer narrow.Close()
	post := func(ctx context.Context, prepare string) error {
		return pgx.BeginFunc(ctx, narrow, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, prepare); err != nil {
				return err
			}
			_, err := b.book.Post(ctx, tx, []ledger.Entry{b.buy(0, "1", 1_00)})
			return err
		})
	}

	only, err := narrow.Acquire(t.Context())
	b.must(err)
	hurried, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := post(hurried, ``); err == nil || hurried.Err() == nil {
		t.Errorf("without a free connection the call ended with %v", err)
	}
	only.Release()

	holder, err := b.pool.Begin(t.Context())
	b.must(err)
	defer holder.Rollback(context.WithoutCancel(t.Context()))
	b.must(b.book.LockWallets(t.Context(), holder, b.wallets))
	if err := post(t.Context(), `SET LOCAL statement_timeout = '100ms'`); err == nil || !strings.Contains(err.Error(), "statement timeout") {
		t.Errorf("the overdue call ended with %v", err)
	}
	b.must(holder.Rollback(t.Context()))
	if got := b.balance(0).Posted; got != 100_00 {
		t.Errorf("the balance is %s", got)
	}
	b.sound()

	b.must(post(t.Context(), ``))
	if got := b.balance(0).Posted; got != 99_00 {
		t.Errorf("after the repeat the balance is %s", got)
	}
	b.sound()
}

// T19: a database that has only the books is brought to this program's version
// while eight writers post. No write fails, none is lost, and the books are
// right before and after.
func TestAnUpgradeWithWritersOn(t *testing.T) {
	t.Parallel()
	const writers = 8
	b := newBooks(t, writers)
	b.fund(10_000_00)
	const books = 4 // the migrations of the register, the book, the meals and the banks
	b.tamper(`
		DO $$
		DECLARE
			s name;
		BEGIN
			FOR s IN SELECT nspname FROM pg_namespace
			          WHERE nspname NOT IN ('ledger', 'meal', 'topup', 'river', 'public', 'information_schema')
			            AND nspname NOT LIKE 'pg\_%' LOOP
				EXECUTE format('DROP SCHEMA %I CASCADE', s);
			END LOOP;
		END
		$$`, fmt.Sprintf(`DELETE FROM public.zvonok_migration WHERE version_id > %d`, books))
	status, err := pg.Status(t.Context(), b.url)
	b.must(err)
	pending := status.Pending()
	if pending < 6 {
		t.Fatalf("only %d migrations are pending", pending)
	}
	b.sound()

	migrated := make(chan struct{})
	var posted [writers]atomic.Int64
	group, ctx := errgroup.WithContext(t.Context())
	for w := range writers {
		group.Go(func() error {
			for i := 0; ; i++ {
				select {
				case <-migrated:
					if i > 2 { // some after the upgrade as well
						return nil
					}
				default:
				}
				entries := []ledger.Entry{b.buy(w, fmt.Sprintf("%d-%d", w, i), 1)}
				for n := range i % 4 * 5 { // singles and batches
					entries = append(entries, b.buy(w, fmt.Sprintf("%d-%d-%d", w, i, n), 1))
				}
				verdicts, err := b.tryPost(ctx, entries...)
				if err != nil {
					return err
				}
				for _, v := range verdicts {
					if v.Code != ledger.CodePosted {
						return fmt.Errorf("writer %d: a sale is %s", w, v.Code)
					}
				}
				posted[w].Add(int64(len(entries)))
			}
		})
	}
	await(t, func() bool { return posted[0].Load() > 0 })
	report, err := pg.Migrate(t.Context(), b.url)
	close(migrated)
	b.must(err)
	b.must(group.Wait())
	if report.Ran != pending || report.Pending() != 0 {
		t.Errorf("%d of %d migrations ran, %d are pending", report.Ran, pending, report.Pending())
	}
	for w := range writers {
		if got, want := b.balance(w).Posted, 10_000_00-money.Amount(posted[w].Load()); got != want {
			t.Errorf("writer %d has %s, want %s", w, got, want)
		}
	}
	b.sound()
}
