package topup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"zvonok/ledger"
	"zvonok/ledger/money"
	"zvonok/ledger/pg"
)

const (
	// holdDays is how long a payment that a registry does not have waits for a
	// later one before it is in dispute.
	holdDays = 2
	// maxBreaks is how many open lines a report lists; all are counted.
	maxBreaks = 1000
	// reconcileTimeout is for the one statement that judges a million lines.
	reconcileTimeout = 5 * time.Minute
	// registryLock is the class of advisory locks that let one at a time take a
	// partner's file, settle a line of it or take a payment back.
	registryLock = 1953460304
)

// State is what a registry's line is in the light of the books.
type State string

// The states. Each line of a file is in exactly one.
const (
	// Matched: the same payment, on the same day.
	Matched State = "matched"
	// OtherDay: the same payment on another day; a neighbouring one is in order.
	OtherDay State = "other_day"
	// AmountDiffers: the same id with another sum.
	AmountDiffers State = "amount_differs"
	// AccountDiffers: the same id and sum for another account.
	AccountDiffers State = "account_differs"
	// BankOnly: we had not heard of it; it is credited late.
	BankOnly State = "bank_only"
	// LedgerOnly: we have it and the file has not; not a line of the file.
	LedgerOnly State = "ledger_only"
	// RepeatedLine: a line before it, in this file or an earlier one, was this payment.
	RepeatedLine State = "duplicate"
)

// States returns all states.
func States() []State {
	return []State{Matched, OtherDay, AmountDiffers, AccountDiffers, BankOnly, LedgerOnly, RepeatedLine}
}

// ErrTaken says that this registry was taken before: the same bytes, or the
// same number of the same day.
var ErrTaken = errors.New("this registry was taken before")

// Tally is how many lines are in a state, and their sum (of LedgerOnly: ours).
type Tally struct {
	State State        `json:"state"`
	Count int          `json:"count"`
	Sum   money.Amount `json:"sum"`
}

// Break is an open line: something for a person to settle with the bank.
type Break struct {
	ID      int64  `json:"id"`
	Partner string `json:"partner"`
	File    string `json:"file"`
	// Line is its number in the file; 0 for LedgerOnly.
	Line  int    `json:"line,omitempty"`
	State State  `json:"state"`
	Txn   string `json:"txn_id"`
	Event int64  `json:"event"`
	// Bank is the bank's sum, Ours is ours.
	Bank money.Amount `json:"bank"`
	Ours money.Amount `json:"ours"`
	// Since is the day of the file.
	Since time.Time `json:"since"`
	// Disputed tells that it no longer waits for a later file.
	Disputed bool `json:"disputed"`
}

// Report is what a registry came to.
type Report struct {
	Partner string       `json:"partner"`
	File    string       `json:"file"`
	Day     time.Time    `json:"day"`
	Number  int          `json:"number"`
	Lines   int          `json:"lines"`
	Total   money.Amount `json:"total"`
	Tallies []Tally      `json:"tallies"`
	// Suspense counts the late credits that went to the suspense account.
	Suspense int `json:"suspense"`
	// Open lists up to a thousand breaks of this file; OpenCount counts them all.
	Open      []Break `json:"open"`
	OpenCount int     `json:"open_count"`
}

// Tally returns how many lines are in a state.
func (r Report) Tally(state State) Tally {
	for _, t := range r.Tallies {
		if t.State == state {
			return t
		}
	}
	return Tally{State: state}
}

// MarshalJSON writes days as dates.
func (b Break) MarshalJSON() ([]byte, error) {
	type plain Break
	return json.Marshal(struct {
		plain
		Since string `json:"since"`
	}{plain(b), b.Since.Format(time.DateOnly)})
}

// WriteTo prints the report as a table.
func (r Report) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %s, number %d: %d payments of %s\n",
		r.Partner, r.Day.Format(time.DateOnly), r.Number, r.Lines, r.Total)
	for _, t := range r.Tallies {
		fmt.Fprintf(&b, "  %-16s %8d %16s\n", t.State, t.Count, t.Sum)
	}
	if r.Suspense > 0 {
		fmt.Fprintf(&b, "  %d late credits went to the suspense account\n", r.Suspense)
	}
	for _, o := range r.Open {
		fmt.Fprintf(&b, "open %d: %s, line %d, payment %s: the bank has %s, we have %s\n",
			o.ID, o.State, o.Line, o.Txn, o.Bank, o.Ours)
	}
	if more := r.OpenCount - len(r.Open); more > 0 {
		fmt.Fprintf(&b, "and %d more\n", more)
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

// File is a registry to reconcile.
type File struct {
	// Name is that of the file, without its folder's.
	Name string
	Data io.Reader
}

// Reconcile holds a partner's registry against the books, in one transaction.
// Payments that only the bank has are credited, at the bank's time, so that
// nobody is told of them as news. Payments that only we have wait for later
// files for two days. What the file says the bank took is booked as settled.
//
// A file that was taken before is ErrTaken, one that cannot be read is a
// *BadRegistry; neither changes anything.
func Reconcile(
	ctx context.Context, pool *pgxpool.Pool, book *ledger.Book, partner string, file File, now time.Time,
) (Report, error) {
	data, err := io.ReadAll(io.LimitReader(file.Data, maxRegistry+1))
	if err != nil {
		return Report{}, fmt.Errorf("reconcile: read the file: %w", err)
	}
	if len(data) > maxRegistry {
		return Report{}, fmt.Errorf("reconcile: the file has more than %d bytes", maxRegistry)
	}
	p, err := findPartner(ctx, pool, partner)
	if err != nil {
		return Report{}, fmt.Errorf("reconcile: %w", err)
	}
	r, err := parseRegistry(p, file.Name, data)
	if err != nil {
		return Report{}, fmt.Errorf("reconcile %s: %w", file.Name, err)
	}
	var report Report
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		report, err = reconcile(ctx, tx, book, p, file.Name, r, now)
		return err
	})
	if err != nil {
		return Report{}, fmt.Errorf("reconcile %s: %w", file.Name, err)
	}
	return report, nil
}

func reconcile(
	ctx context.Context, tx pgx.Tx, book *ledger.Book, p *Partner, name string, r bankRegistry, now time.Time,
) (Report, error) {
	report := Report{Partner: p.Name, File: name, Day: r.day, Number: r.number, Lines: len(r.lines), Total: r.total}
	if _, err := tx.Exec(ctx, `SELECT set_config('statement_timeout', $1, true)`,
		fmt.Sprint(reconcileTimeout.Milliseconds())); err != nil {
		return report, fmt.Errorf("begin: %w", err)
	}
	if err := lockRegistries(ctx, tx, p); err != nil {
		return report, err
	}
	file, payee, err := enterFile(ctx, tx, p, name, r, now)
	if err != nil {
		return report, err
	}
	if err := stage(ctx, tx, r); err != nil {
		return report, err
	}
	if report.Suspense, err = creditLate(ctx, tx, book, p, now); err != nil {
		return report, err
	}
	if err := judge(ctx, tx, p, file, payee, r, now); err != nil {
		return report, err
	}
	if err := settle(ctx, tx, book, p, file, r, now); err != nil {
		return report, err
	}
	if err := closeFiles(ctx, tx, p); err != nil {
		return report, err
	}
	if err := report.read(ctx, tx, file, now); err != nil {
		return report, err
	}
	return report, nil
}

// lockRegistries keeps a partner's lines and what they say of payments as they
// are until the transaction ends. It comes before the locks of payments.
func lockRegistries(ctx context.Context, tx pgx.Tx, p *Partner) error {
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1, $2)`, registryLock, int32(p.ID)); err != nil {
		return fmt.Errorf("wait for the partner's registries: %w", err)
	}
	return nil
}

// enterFile writes the file's row, which no other file may have.
func enterFile(
	ctx context.Context, tx pgx.Tx, p *Partner, name string, r bankRegistry, now time.Time,
) (id int64, payee string, err error) {
	if r.inn != "" {
		err := tx.QueryRow(ctx, `SELECT code FROM ledger.payee WHERE inn = $1 AND payment_code = ANY ($2) ORDER BY code`,
			r.inn, p.PaymentCodes).Scan(&payee)
		if errors.Is(err, pgx.ErrNoRows) {
			return 0, "", &BadRegistry{Found: 1, Problems: []Problem{{1, "the tax number is of no payee of this partner"}}}
		}
		if err != nil {
			return 0, "", fmt.Errorf("find the payee: %w", err)
		}
	}
	err = tx.QueryRow(ctx, `
		INSERT INTO topup.registry_file (partner_id, name, sha256, payee_code, day, number, received_at, lines, total, state)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'parsed')
		ON CONFLICT DO NOTHING
		RETURNING id`,
		int64(p.ID), clip(name), r.hash[:], payee, r.day, r.number, now, len(r.lines), int64(r.total)).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, "", ErrTaken
	}
	if err != nil {
		return 0, "", fmt.Errorf("enter the file: %w", err)
	}
	return id, payee, nil
}

// stage copies the lines to where statements can reach them.
func stage(ctx context.Context, tx pgx.Tx, r bankRegistry) error {
	if _, err := tx.Exec(ctx, `
		CREATE TEMPORARY TABLE topup_incoming (
		    line integer NOT NULL, txn_id text NOT NULL, at timestamptz NOT NULL, account text NOT NULL,
		    amount bigint NOT NULL, fee bigint NOT NULL, terminal text NOT NULL
		) ON COMMIT DROP`); err != nil {
		return fmt.Errorf("stage the lines: %w", err)
	}
	if _, err := tx.CopyFrom(ctx, pgx.Identifier{"topup_incoming"},
		[]string{"line", "txn_id", "at", "account", "amount", "fee", "terminal"},
		pgx.CopyFromSlice(len(r.lines), func(i int) ([]any, error) {
			l := &r.lines[i]
			return []any{l.line, l.txn, l.at, l.account, int64(l.amount), int64(l.fee), l.terminal}, nil
		})); err != nil {
		return fmt.Errorf("stage the lines: %w", err)
	}
	if _, err := tx.Exec(ctx, `ANALYZE topup_incoming`); err != nil {
		return fmt.Errorf("stage the lines: %w", err)
	}
	return nil
}

// creditLate books the payments that only the bank has.
func creditLate(ctx context.Context, tx pgx.Tx, book *ledger.Book, p *Partner, now time.Time) (suspense int, err error) {
	rows, err := tx.Query(ctx, `
		SELECT DISTINCT ON (i.txn_id) i.txn_id, i.at, i.account, i.amount, i.terminal
		  FROM topup_incoming i
		 WHERE NOT EXISTS (SELECT FROM topup.payment y WHERE y.partner_id = $1 AND y.txn_id = i.txn_id)
		 ORDER BY i.txn_id, i.line`, int64(p.ID))
	if err != nil {
		return 0, fmt.Errorf("look for payments we have not: %w", err)
	}
	missing, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (payment, error) {
		y := payment{partner: p, protocol: p.defaultProtocol(), origin: fromRegistry}
		err := row.Scan(&y.txn, &y.bankAt, &y.account, &y.sum, &y.terminal)
		return y, err
	})
	if err != nil {
		return 0, fmt.Errorf("look for payments we have not: %w", err)
	}
	if len(missing) == 0 {
		return 0, nil
	}
	bookings, err := bookPayments(ctx, tx, book, missing, now)
	if err != nil {
		return 0, fmt.Errorf("credit late payments: %w", err)
	}
	for _, b := range bookings {
		if b.suspense != credited {
			suspense++
		}
	}
	return suspense, nil
}

// judge gives each line its state, and finds what the file should have had. All
// its payments are there by now; one that a registry brought and no line has
// claimed yet was brought by this file.
func judge(ctx context.Context, tx pgx.Tx, p *Partner, file int64, payee string, r bankRegistry, now time.Time) error {
	if _, err := tx.Exec(ctx, `
		INSERT INTO topup.registry_line (file_id, line, event_id, txn_id, at, amount, fee, difference, account, terminal,
		                                 state, open, resolution, resolved_by, resolved_at)
		SELECT $2, j.line, j.event_id, j.txn_id, j.at, j.amount, j.fee,
		       CASE WHEN j.state = 'duplicate' THEN 0 ELSE j.ours END - j.amount,
		       j.account, j.terminal, j.state,
		       j.state IN ('amount_differs', 'account_differs', 'duplicate')
		           OR j.state = 'other_day' AND abs(j.our_day - $3::date) > 1,
		       CASE WHEN j.state = 'bank_only' THEN 'posted' END,
		       CASE WHEN j.state = 'bank_only' THEN 'registry' END,
		       CASE WHEN j.state = 'bank_only' THEN $4::timestamptz END
		  FROM (SELECT i.*, y.event_id, o.ours, y.day AS our_day,
		               CASE WHEN row_number() OVER (PARTITION BY i.txn_id ORDER BY i.line) > 1 OR c.event_id IS NOT NULL
		                        THEN 'duplicate'
		                    WHEN y.origin = 'registry' THEN 'bank_only'
		                    WHEN o.ours <> i.amount THEN 'amount_differs'
		                    WHEN y.account <> i.account THEN 'account_differs'
		                    WHEN y.day <> $3::date THEN 'other_day'
		                    ELSE 'matched' END AS state
		          FROM topup_incoming i
		          JOIN topup.payment y ON y.partner_id = $1 AND y.txn_id = i.txn_id
		          CROSS JOIN LATERAL (SELECT CASE WHEN y.state = 'cancelled' THEN 0 ELSE y.amount END AS ours) AS o
		          LEFT JOIN topup.registry_line c ON c.event_id = y.event_id AND c.state NOT IN ('duplicate', 'ledger_only')) AS j
		 ORDER BY j.line`, int64(p.ID), file, r.day, now); err != nil {
		return fmt.Errorf("judge the lines: %w", err)
	}
	if _, err := tx.Exec(ctx, `
		INSERT INTO topup.registry_line (file_id, event_id, txn_id, at, amount, fee, difference, account, terminal,
		                                 state, open, hold_until)
		SELECT $2, y.event_id, y.txn_id, y.bank_at, 0, 0, y.amount, y.account, y.terminal, 'ledger_only', true,
		       $3::date + $5::integer
		  FROM topup.payment y
		 WHERE y.partner_id = $1 AND y.day = $3 AND ($4 = '' OR y.payee_code = $4) AND y.state <> 'cancelled'
		   AND NOT EXISTS (SELECT FROM topup.registry_line c WHERE c.event_id = y.event_id AND c.state <> 'duplicate')
		 ORDER BY y.event_id`, int64(p.ID), file, r.day, payee, holdDays); err != nil {
		return fmt.Errorf("look for payments the file has not: %w", err)
	}
	if _, err := tx.Exec(ctx, `
		UPDATE topup.registry_line m
		   SET open = false, resolution = 'carried_over', resolved_by = 'registry', resolved_at = $2
		  FROM topup.registry_line c
		 WHERE c.file_id = $1 AND c.state NOT IN ('duplicate', 'ledger_only')
		   AND m.event_id = c.event_id AND m.state = 'ledger_only' AND m.open`, file, now); err != nil {
		return fmt.Errorf("settle what earlier files had not: %w", err)
	}
	return nil
}

// settle books what the file says the bank took as settled.
func settle(
	ctx context.Context, tx pgx.Tx, book *ledger.Book, p *Partner, file int64, r bankRegistry, now time.Time,
) error {
	if r.total == 0 {
		return nil
	}
	events, err := ledger.NextEventIDs(ctx, tx, 1)
	if err != nil {
		return err
	}
	verdicts, err := book.Post(ctx, tx, []ledger.Entry{{
		Event: events[0], Kind: ledger.Settlement, Debit: p.settled, Credit: p.clearing, Amount: r.total,
		Source: "registry/" + p.Name, ExternalID: fmt.Sprint(file), OccurredAt: now,
	}})
	if err != nil {
		return err
	}
	if verdicts[0].Code != ledger.CodePosted {
		return fmt.Errorf("book the settlement: the book says %s", verdicts[0].Code)
	}
	if _, err := tx.Exec(ctx, `UPDATE topup.registry_file SET event_id = $2 WHERE id = $1`, file, int64(events[0])); err != nil {
		return fmt.Errorf("book the settlement: %w", err)
	}
	return nil
}

// closeFiles closes the partner's files that have nothing open.
func closeFiles(ctx context.Context, tx pgx.Tx, p *Partner) error {
	if _, err := tx.Exec(ctx, `
		UPDATE topup.registry_file f
		   SET state = n.state
		  FROM (SELECT f.id, CASE WHEN EXISTS (SELECT FROM topup.registry_line l WHERE l.file_id = f.id AND l.open)
		                          THEN 'matched' ELSE 'closed' END AS state
		          FROM topup.registry_file f
		         WHERE f.partner_id = $1 AND f.state <> 'closed') AS n
		 WHERE f.id = n.id AND f.state <> n.state`, int64(p.ID)); err != nil {
		return fmt.Errorf("close files: %w", err)
	}
	return nil
}

// read fills the counts and the open lines in.
func (r *Report) read(ctx context.Context, tx pgx.Tx, file int64, now time.Time) error {
	rows, err := tx.Query(ctx, `
		SELECT l.state, count(*), sum(CASE WHEN l.state = 'ledger_only' THEN l.difference ELSE l.amount END)::bigint,
		       count(*) FILTER (WHERE l.open)
		  FROM topup.registry_line l
		 WHERE l.file_id = $1
		 GROUP BY l.state`, file)
	if err != nil {
		return fmt.Errorf("count the lines: %w", err)
	}
	found := map[State]Tally{}
	var t Tally
	var open int
	if _, err := pgx.ForEachRow(rows, []any{&t.State, &t.Count, &t.Sum, &open}, func() error {
		found[t.State] = t
		r.OpenCount += open
		return nil
	}); err != nil {
		return fmt.Errorf("count the lines: %w", err)
	}
	for _, state := range States() {
		t := found[state]
		t.State = state
		r.Tallies = append(r.Tallies, t)
	}
	r.Open, err = readBreaks(ctx, tx, `l.file_id = $2`, now, file)
	return err
}

// Breaks returns open lines of all files of a partner, or of all partners when
// the name is empty: the oldest first, up to a thousand.
func Breaks(ctx context.Context, q pg.Querier, partner string, now time.Time) ([]Break, error) {
	return readBreaks(ctx, q, `($2 = '' OR p.name = $2)`, now, partner)
}

func readBreaks(ctx context.Context, q pg.Querier, where string, now time.Time, arg any) ([]Break, error) {
	rows, err := q.Query(ctx, `
		SELECT l.id, p.name, f.name, coalesce(l.line, 0), l.state, l.txn_id, l.event_id, l.amount, l.amount + l.difference, f.day,
		       l.state <> 'ledger_only' OR l.hold_until < ($1::timestamptz AT TIME ZONE p.time_zone)::date
		  FROM topup.registry_line l
		  JOIN topup.registry_file f ON f.id = l.file_id
		  JOIN topup.partner p ON p.id = f.partner_id
		 WHERE l.open AND `+where+`
		 ORDER BY f.day, l.id
		 LIMIT $3`, now, arg, maxBreaks)
	if err != nil {
		return nil, fmt.Errorf("read open lines: %w", err)
	}
	breaks, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (b Break, err error) {
		err = row.Scan(&b.ID, &b.Partner, &b.File, &b.Line, &b.State, &b.Txn, &b.Event, &b.Bank, &b.Ours, &b.Since, &b.Disputed)
		return b, err
	})
	if err != nil {
		return nil, fmt.Errorf("read open lines: %w", err)
	}
	return breaks, nil
}

// Resolution is how a person settles an open line.
type Resolution string

// The resolutions.
const (
	// WrittenOff books the difference against the write-offs.
	WrittenOff Resolution = "written_off"
	// Reversed takes the payment back from where it went: the bank never had it.
	Reversed Resolution = "reversed"
	// Agreed changes nothing in the books: of lines whose sums are the same.
	Agreed Resolution = "agreed"
)

// ResolveBreak settles an open line on someone's word. who is the id of a
// member of staff. A line that is not open, and a resolution that does not fit
// it, are errors. A payment whose money has left the suspense account is not
// reversed: it would be paid twice.
func ResolveBreak(
	ctx context.Context, tx pgx.Tx, book *ledger.Book, id int64, how Resolution, who string, now time.Time,
) error {
	if err := resolveBreak(ctx, tx, book, id, how, who, now); err != nil {
		return fmt.Errorf("resolve line %d: %w", id, err)
	}
	return nil
}

func resolveBreak(
	ctx context.Context, tx pgx.Tx, book *ledger.Book, id int64, how Resolution, who string, now time.Time,
) error {
	var partner string
	if err := tx.QueryRow(ctx, `
		SELECT p.name
		  FROM topup.registry_line l
		  JOIN topup.registry_file f ON f.id = l.file_id
		  JOIN topup.partner p ON p.id = f.partner_id
		 WHERE l.id = $1`, id).Scan(&partner); err != nil {
		return fmt.Errorf("it is not open: %w", err)
	}
	p, err := findPartner(ctx, tx, partner)
	if err != nil {
		return err
	}
	if err := lockRegistries(ctx, tx, p); err != nil {
		return err
	}
	var state State
	var txn string
	var event int64
	var difference money.Amount
	if err := tx.QueryRow(ctx, `
		SELECT state, txn_id, event_id, difference FROM topup.registry_line WHERE id = $1 AND open`, id).
		Scan(&state, &txn, &event, &difference); err != nil {
		return fmt.Errorf("it is not open: %w", err)
	}
	events, err := ledger.NextEventIDs(ctx, tx, 1)
	if err != nil {
		return err
	}
	entry := ledger.Entry{Event: events[0], OccurredAt: now}
	switch {
	case how == Agreed && difference == 0:
	case how == WrittenOff && difference != 0:
		accounts, err := ledger.SystemAccounts(ctx, tx, ledger.SystemAccount{Kind: ledger.WriteOff})
		if err != nil {
			return err
		}
		entry.Kind, entry.Source, entry.ExternalID = ledger.Writeoff, "resolve/"+p.Name, fmt.Sprint(id)
		entry.Debit, entry.Credit, entry.Amount = accounts[0], p.clearing, difference
		if difference < 0 {
			entry.Debit, entry.Credit, entry.Amount = entry.Credit, entry.Debit, -difference
		}
	case how == Reversed && state == LedgerOnly:
		y, err := lockPayment(ctx, tx, p, txn, 0)
		if err != nil {
			return err
		}
		if y.state == "released" {
			return errors.New("the payment has been moved out of the suspense account, so it cannot be reversed; write it off")
		}
		entry.Kind, entry.Source, entry.ExternalID = ledger.Reversal, "cancel/"+p.Name, txn
		entry.Reverses = ledger.Key{Source: p.source(), ExternalID: txn}
		if _, err := tx.Exec(ctx, `UPDATE topup.payment SET state = 'cancelled' WHERE event_id = $1`, event); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%s is no way out of %s with a difference of %s", how, state, difference)
	}
	if entry.Kind != "" {
		verdicts, err := book.Post(ctx, tx, []ledger.Entry{entry})
		if err != nil {
			return err
		}
		if verdicts[0].Code != ledger.CodePosted {
			return fmt.Errorf("the book says %s", verdicts[0].Code)
		}
	}
	if _, err := tx.Exec(ctx, `
		UPDATE topup.registry_line SET open = false, resolution = $2, resolved_by = $3, resolved_at = $4 WHERE id = $1`,
		id, string(how), who, now); err != nil {
		return err
	}
	return closeFiles(ctx, tx, p)
}
