package ledger

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"zvonok/ledger/money"
	"zvonok/ledger/pg"
)

// maxViolations is how many rows of one check are listed; all are counted.
const maxViolations = 100

// Check is one statement that finds where the books are wrong.
type Check struct {
	// Names are the invariants it checks, such as "I2".
	Names []string
	// Says is the rule in words.
	Says string
	// Query finds violations: rows of the invariant's name, the accounting day
	// (or null) and what is wrong with which row. It takes no parameters and
	// runs with the time zone UTC.
	Query string
}

// Violation is a row that breaks an invariant.
type Violation struct {
	Invariant string `json:"invariant"`
	// Day is the accounting day it is on; zero when it is on none.
	Day time.Time `json:"day,omitzero"`
	// Row says which row is wrong and how.
	Row string `json:"row"`
}

// String returns the violation on one line.
func (v Violation) String() string {
	if v.Day.IsZero() {
		return v.Invariant + " " + v.Row
	}
	return v.Invariant + " " + v.Day.Format(time.DateOnly) + " " + v.Row
}

// VerifyReport is what a verification found.
type VerifyReport struct {
	// At is the moment of the snapshot that was verified, by the database's clock.
	At time.Time `json:"at"`
	// Before is the moment of the verification before; zero when there was none.
	Before time.Time `json:"verified_before_at,omitzero"`
	// Checked are the invariants that were checked.
	Checked []string `json:"checked"`
	// Violations lists up to a hundred rows per check.
	Violations []Violation `json:"violations"`
	// Found counts all violations by invariant.
	Found map[string]int `json:"found"`

	// Counts and control sums of the snapshot.
	Wallets    int64        `json:"wallets"`
	Accounts   int64        `json:"accounts"` // of the system
	Postings   int64        `json:"postings"`
	Turnover   money.Amount `json:"turnover"`    // the sum of all postings
	InWallets  money.Amount `json:"in_wallets"`  // the sum of all wallets
	Held       money.Amount `json:"held"`        // the part of it set aside
	Crossings  int64        `json:"crossings"`   // thresholds crossed
	Refusals   int64        `json:"refusals"`    // refused ids
	ClosedDays int64        `json:"closed_days"` // days with a cut
	LastSeal   string       `json:"last_seal"`   // of the last sealed day, hexadecimal
}

// OK tells whether nothing was found.
func (r VerifyReport) OK() bool { return len(r.Violations) == 0 }

// WriteTo prints the report: ok with counts and control sums, or the violations.
func (r VerifyReport) WriteTo(w io.Writer) (int64, error) {
	var text strings.Builder
	if r.OK() {
		fmt.Fprintf(&text, "ok: %s hold\n", strings.Join(r.Checked, ", "))
	}
	for _, v := range r.Violations {
		fmt.Fprintln(&text, v)
	}
	for _, name := range r.Checked {
		listed := 0
		for _, v := range r.Violations {
			if v.Invariant == name {
				listed++
			}
		}
		if r.Found[name] > listed {
			fmt.Fprintf(&text, "%s and %d more\n", name, r.Found[name]-listed)
		}
	}
	fmt.Fprintf(&text, "wallets %d, system accounts %d, postings %d, refused %d, crossings %d, closed days %d\n",
		r.Wallets, r.Accounts, r.Postings, r.Refusals, r.Crossings, r.ClosedDays)
	fmt.Fprintf(&text, "turnover %s, in wallets %s, held %s, last seal %s\n", r.Turnover, r.InWallets, r.Held, r.LastSeal)
	if !r.Before.IsZero() {
		fmt.Fprintf(&text, "verified before at %s\n", r.Before.UTC().Format(time.RFC3339))
	}
	n, err := io.WriteString(w, text.String())
	return int64(n), err
}

// Verify checks the invariants of the book, and those of more, on one snapshot,
// while others go on writing. It reads everything: a minute and more for a year
// of a city. What it found is kept (LastVerification). An error means that it
// could not be finished, not that something is wrong with the books.
//
// Of the invariants of the specification, I13 (banks' registries), I14 (devices'
// sequences) and the notices of I10 are about tables of other packages; their
// checks come as more.
func Verify(ctx context.Context, pool *pgxpool.Pool, more ...Check) (VerifyReport, error) {
	report := VerifyReport{Found: map[string]int{}, Violations: []Violation{}}
	if err := pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly},
		func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, `
				SELECT set_config('statement_timeout', '0', true), set_config('timezone', 'UTC', true),
				       set_config('datestyle', 'ISO', true), set_config('work_mem', '256MB', true),
				       set_config('max_parallel_workers_per_gather', '4', true),
				       -- Everything is read anyway: no compiling, and no index probe per row.
				       set_config('jit', 'off', true), set_config('enable_nestloop', 'off', true)`); err != nil {
				return fmt.Errorf("prepare: %w", err)
			}
			if err := report.readSums(ctx, tx); err != nil {
				return err
			}
			for _, check := range slices.Concat(invariants, more) {
				if err := report.run(ctx, tx, check); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
		return report, fmt.Errorf("verify the books: %w", err)
	}
	if err := report.tryToChange(ctx, pool); err != nil {
		return report, fmt.Errorf("verify the books: %w", err)
	}
	slices.SortFunc(report.Checked, compareNames)
	report.Checked = slices.Compact(report.Checked)
	found := make(map[string]int, len(report.Checked))
	for _, name := range report.Checked {
		found[name] = report.Found[name]
	}
	if _, err := pool.Exec(ctx, `INSERT INTO ledger.verification (at, found) VALUES ($1, $2) ON CONFLICT DO NOTHING`,
		report.At, found); err != nil {
		return report, fmt.Errorf("verify the books: keep what was found: %w", err)
	}
	return report, nil
}

// verifyingLock is the advisory lock of who verifies by VerifyOnce; the number
// only has to be ours.
const verifyingLock int64 = 0x7a766f6e_0003

// VerifyOnce verifies the books, unless they have been since the last closed day
// was sealed, or another process does so now. done tells whether it did: of the
// processes of a fleet one is enough, and LastVerification tells the others.
func VerifyOnce(ctx context.Context, pool *pgxpool.Pool, more ...Check) (report VerifyReport, done bool, err error) {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return report, false, fmt.Errorf("verify the books: %w", err)
	}
	defer conn.Release()
	if err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, verifyingLock).Scan(&done); err != nil {
		return report, false, fmt.Errorf("verify the books: %w", err)
	}
	if !done {
		return report, false, nil
	}
	defer func() {
		ctx := context.WithoutCancel(ctx)
		if _, unlockErr := conn.Exec(ctx, `SELECT pg_advisory_unlock($1)`, verifyingLock); unlockErr != nil {
			// Whoever gets this connection next must not hold the lock.
			conn.Conn().Close(ctx)
			err = errors.Join(err, fmt.Errorf("verify the books: %w", unlockErr))
		}
	}()
	var fresh bool
	if err := conn.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM ledger.verification WHERE at > (SELECT max(sealed_at) FROM ledger.day))`).
		Scan(&fresh); err != nil {
		return report, false, fmt.Errorf("look for the last verification: %w", err)
	}
	if fresh {
		return report, false, nil
	}
	report, err = Verify(ctx, pool, more...)
	return report, err == nil, err
}

// Verification is what is kept of a verification.
type Verification struct {
	// At is the moment of the snapshot that was verified; zero when there was none yet.
	At time.Time
	// Found counts the violations of each invariant that was checked.
	Found map[string]int
}

// LastVerification returns the last one that was finished, whichever process did it.
func LastVerification(ctx context.Context, q pg.Querier) (Verification, error) {
	var v Verification
	err := q.QueryRow(ctx, `SELECT at, found FROM ledger.verification ORDER BY at DESC LIMIT 1`).Scan(&v.At, &v.Found)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return v, fmt.Errorf("read the last verification: %w", err)
	}
	return v, nil
}

// compareNames orders I2 before I10.
func compareNames(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}

func (r *VerifyReport) readSums(ctx context.Context, tx pgx.Tx) error {
	var seal []byte
	var before *time.Time
	if err := tx.QueryRow(ctx, `
		SELECT now(), (SELECT max(at) FROM ledger.verification), b.wallets, b.posted, b.held, p.postings, p.amount,
		       (SELECT count(*) FROM ledger.account WHERE id < 1000000),
		       (SELECT count(*) FROM ledger.crossing), (SELECT count(*) FROM ledger.refusal),
		       (SELECT count(*) FROM ledger.day),
		       (SELECT seal FROM ledger.day WHERE seal IS NOT NULL ORDER BY day DESC LIMIT 1)
		  FROM (SELECT count(*) AS wallets, coalesce(sum(posted), 0)::bigint AS posted, coalesce(sum(held), 0)::bigint AS held
		          FROM ledger.balance) AS b,
		       (SELECT count(*) AS postings, coalesce(sum(amount), 0)::bigint AS amount FROM ledger.posting) AS p`).
		Scan(&r.At, &before, &r.Wallets, &r.InWallets, &r.Held, &r.Postings, &r.Turnover,
			&r.Accounts, &r.Crossings, &r.Refusals, &r.ClosedDays, &seal); err != nil {
		return fmt.Errorf("read the control sums: %w", err)
	}
	r.Before = orZero(before)
	r.LastSeal = hex.EncodeToString(seal)
	return nil
}

func (r *VerifyReport) run(ctx context.Context, tx pgx.Tx, check Check) error {
	what := strings.Join(check.Names, " and ")
	rows, err := tx.Query(ctx, check.Query)
	if err != nil {
		return fmt.Errorf("check %s: %w", what, err)
	}
	var v Violation
	var day *time.Time
	listed := 0
	if _, err := pgx.ForEachRow(rows, []any{&v.Invariant, &day, &v.Row}, func() error {
		r.Found[v.Invariant]++
		if listed++; listed <= maxViolations {
			v.Day = orZero(day)
			r.Violations = append(r.Violations, v)
		}
		return nil
	}); err != nil {
		return fmt.Errorf("check %s: %w", what, err)
	}
	r.Checked = append(r.Checked, check.Names...)
	return nil
}

// tryToChange checks I16: it tries, as the application's role, to change, to
// delete and to add postings, and wants to be refused.
func (r *VerifyReport) tryToChange(ctx context.Context, pool *pgxpool.Pool) error {
	const name = "I16"
	for _, attempt := range []string{
		`UPDATE ledger.posting SET amount = amount WHERE false`,
		`DELETE FROM ledger.posting WHERE false`,
		`TRUNCATE ledger.posting`,
		`INSERT INTO ledger.posting SELECT * FROM ledger.posting WHERE false`,
		`UPDATE ledger.idem SET ext_id = ext_id WHERE false`,
		`DELETE FROM ledger.idem WHERE false`,
		`UPDATE ledger.balance SET posted = posted WHERE false`,
		`UPDATE ledger.day SET seal = seal WHERE false`,
	} {
		refused := errors.New("rolled back in any case")
		err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, `SET LOCAL ROLE zvonok_app`); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '2s'`); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, attempt); err != nil {
				return err
			}
			return refused
		})
		var pgErr *pgconn.PgError
		switch {
		case errors.Is(err, refused):
			r.Found[name]++
			r.Violations = append(r.Violations, Violation{
				Invariant: name, Row: "the application's role was allowed: " + attempt,
			})
		case errors.As(err, &pgErr) && pgErr.Code == "42501": // insufficient_privilege
		default:
			return fmt.Errorf("try to change postings: %w", err)
		}
	}
	return nil
}
