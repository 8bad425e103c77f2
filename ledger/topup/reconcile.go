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
)

const (
	// holdDays is how long a payment that a registry does not have waits for a
	// later one before it is in dispute.
	holdDays = 2
	// earlyDays is how far back a file is looked for that came before its day was
	// over: the longest holidays, in which a bank sends none.
	earlyDays = 14
	// refundDays is how long the bank may take to give a refund to the payer.
	refundDays = 10
	// silenceDays is how far back days without a registry are looked for.
	silenceDays = 100
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
	// Replaced: the file was taken anew, corrected; the line counts for nothing.
	Replaced State = "replaced"
	// NoRegistry: payments of a day for which no file has come; not a line.
	NoRegistry State = "no_registry"
	// OnItsWay: a refund that was paid, and nobody has said how it ended; not a line.
	OnItsWay State = "refund"
)

// States returns the states of lines that count.
func States() []State {
	return []State{Matched, OtherDay, AmountDiffers, AccountDiffers, BankOnly, LedgerOnly, RepeatedLine}
}

// ErrTaken says that this registry was taken before: the same bytes, the same
// payments, the same number of the same day or, of a layout that has no numbers,
// payments of a file of that day.
var ErrTaken = errors.New("this registry was taken before")

// Tally is how many lines are in a state, and their sum (of LedgerOnly: ours).
type Tally struct {
	State State        `json:"state"`
	Count int          `json:"count"`
	Sum   money.Amount `json:"sum"`
}

// Break is an open line, the payments of a day whose registry has not come, or a
// refund on its way: something for a person to settle with the bank.
type Break struct {
	ID      int64  `json:"id"` // 0 for NoRegistry; of OnItsWay the refund's
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
	// Payments is how many there are, of NoRegistry.
	Payments int `json:"payments,omitempty"`
	// Since is the day of the file or, of OnItsWay, that on which it was paid.
	Since time.Time `json:"since"`
	// Disputed tells that it no longer waits for a later file or, of OnItsWay, that
	// the bank has had time enough.
	Disputed bool `json:"disputed"`
}

// Report is what a registry came to.
type Report struct {
	Partner string    `json:"partner"`
	File    string    `json:"file"`
	Day     time.Time `json:"day"`
	Number  int       `json:"number"`
	// Replaces is the number of the file in whose place it was taken; 0 for none.
	Replaces int          `json:"replaces,omitempty"`
	Lines    int          `json:"lines"`
	Total    money.Amount `json:"total"`
	Tallies  []Tally      `json:"tallies"`
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

// MarshalJSON writes the day as a date.
func (b Break) MarshalJSON() ([]byte, error) {
	type plain Break
	return json.Marshal(struct {
		plain
		Since string `json:"since"`
	}{plain(b), b.Since.Format(time.DateOnly)})
}

// MarshalJSON writes the day as a date.
func (r Report) MarshalJSON() ([]byte, error) {
	type plain Report
	return json.Marshal(struct {
		plain
		Day string `json:"day"`
	}{plain(r), r.Day.Format(time.DateOnly)})
}

// WriteTo prints the report as a table.
func (r Report) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	replaces := ""
	if r.Replaces != 0 {
		replaces = fmt.Sprintf(", in the place of number %d", r.Replaces)
	}
	fmt.Fprintf(&b, "%s, %s, number %d%s: %d payments of %s\n",
		r.Partner, r.Day.Format(time.DateOnly), r.Number, replaces, r.Lines, r.Total)
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
	// By is who brings it; it is kept.
	By string
	// Replaces is the number of a file of the same day that this one corrects: it
	// is taken in its place. 0 means that it comes beside all others.
	Replaces int
}

// Reconcile holds a partner's registry against the books, in one transaction.
// Payments that only the bank has are credited, at the bank's time, so that
// nobody is told of them as news. Payments that only we have wait for later
// files for two days. What the file says the bank took is booked as settled.
//
// A file that was taken before is ErrTaken, one that cannot be read is a
// *BadRegistry; neither changes anything. A bank that has sent a wrong file sends
// a corrected one of the same day, which replaces it: what was booked as settled
// for the first is taken back, its lines count no more, and the payments that it
// brought stay where they are until the corrected file has claimed them or they
// are in dispute. A bank that sends a day in parts numbers them; where its layout
// has no numbers, a further file of a day gets the next one as long as it repeats
// no payment of the files before.
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
	if file.By != "" || file.Replaces != 0 {
		if err := checkWho(file.By); err != nil {
			return Report{}, fmt.Errorf("reconcile: %w", err)
		}
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
		report, err = reconcile(ctx, tx, book, p, file, r, now)
		return err
	})
	if err != nil {
		return Report{}, fmt.Errorf("reconcile %s: %w", file.Name, err)
	}
	return report, nil
}

func reconcile(
	ctx context.Context, tx pgx.Tx, book *ledger.Book, p *Partner, from File, r bankRegistry, now time.Time,
) (Report, error) {
	report := Report{Partner: p.Name, File: from.Name, Day: r.day, Replaces: from.Replaces, Lines: len(r.lines), Total: r.total}
	if _, err := tx.Exec(ctx, `SELECT set_config('statement_timeout', $1, true)`,
		fmt.Sprint(reconcileTimeout.Milliseconds())); err != nil {
		return report, fmt.Errorf("begin: %w", err)
	}
	if err := lockRegistries(ctx, tx, p); err != nil {
		return report, err
	}
	payee, err := payeeOf(ctx, tx, p, r)
	if err != nil {
		return report, err
	}
	if err := stage(ctx, tx, r); err != nil {
		return report, err
	}
	replaced, err := replacedFile(ctx, tx, p, payee, from, r)
	if err != nil {
		return report, err
	}
	if r.number, err = numberOf(ctx, tx, p, payee, from, r); err != nil {
		return report, err
	}
	report.Number = r.number
	file, err := enterFile(ctx, tx, p, payee, from, r, replaced, now)
	if err != nil {
		return report, err
	}
	if err := notTheSame(ctx, tx, p, file, replaced, r); err != nil {
		return report, err
	}
	if replaced != 0 {
		if err := withdraw(ctx, tx, book, p, replaced, now); err != nil {
			return report, err
		}
	}
	if report.Suspense, err = creditLate(ctx, tx, book, p, now); err != nil {
		return report, err
	}
	if err := judge(ctx, tx, p, file, payee, replaced, r, now); err != nil {
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

// payeeOf returns the code of the payee that the file is of; it is empty when the file names none.
func payeeOf(ctx context.Context, tx pgx.Tx, p *Partner, r bankRegistry) (payee string, err error) {
	if r.inn == "" {
		return "", nil
	}
	err = tx.QueryRow(ctx, `SELECT code FROM ledger.payee WHERE inn = $1 AND payment_code = ANY ($2) ORDER BY code`,
		r.inn, p.PaymentCodes).Scan(&payee)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", &BadRegistry{Found: 1, Problems: []Problem{{1, "the tax number is of no payee of this partner"}}}
	}
	if err != nil {
		return "", fmt.Errorf("find the payee: %w", err)
	}
	return payee, nil
}

// replacedFile finds the file in whose place this one is taken; 0 when it replaces none.
func replacedFile(ctx context.Context, tx pgx.Tx, p *Partner, payee string, from File, r bankRegistry) (file int64, err error) {
	if from.Replaces == 0 {
		return 0, nil
	}
	var same bool
	err = tx.QueryRow(ctx, `
		SELECT id, sha256 = $5 FROM topup.registry_file
		 WHERE partner_id = $1 AND payee_code = $2 AND day = $3 AND number = $4 AND state <> 'replaced'`,
		int64(p.ID), payee, r.day, from.Replaces, r.hash[:]).Scan(&file, &same)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return 0, fmt.Errorf("there is no file number %d of %s to replace", from.Replaces, r.day.Format(time.DateOnly))
	case err != nil:
		return 0, fmt.Errorf("find the file to replace: %w", err)
	case same:
		return 0, fmt.Errorf("%w: it is the very file that it is to replace", ErrTaken)
	}
	return file, nil
}

// numberOf returns the file's number within its day. A layout has none: the file
// takes that of the one it replaces, or the next one after those that it does not
// touch. One that repeats their payments may be a corrected file or a mistake,
// which only a person can tell.
func numberOf(ctx context.Context, tx pgx.Tx, p *Partner, payee string, from File, r bankRegistry) (int, error) {
	if p.Layout == nil {
		return r.number, nil
	}
	if from.Replaces != 0 {
		return from.Replaces, nil
	}
	var last, repeats, of int
	var taken bool
	if err := tx.QueryRow(ctx, `
		SELECT coalesce(max(f.number), 0), coalesce(sum(l.repeats), 0)::integer,
		       coalesce(min(f.number) FILTER (WHERE l.repeats > 0), 0), coalesce(bool_or(f.sha256 = $4), false)
		  FROM topup.registry_file f
		  CROSS JOIN LATERAL (SELECT count(*) AS repeats
		                        FROM topup_incoming i
		                        JOIN topup.registry_line l ON l.file_id = f.id AND l.txn_id = i.txn_id
		                       WHERE l.line IS NOT NULL) AS l
		 WHERE f.partner_id = $1 AND f.payee_code = $2 AND f.day = $3 AND f.state <> 'replaced'`,
		int64(p.ID), payee, r.day, r.hash[:]).Scan(&last, &repeats, &of, &taken); err != nil {
		return 0, fmt.Errorf("number the file: %w", err)
	}
	switch {
	case taken:
		return 0, ErrTaken
	case repeats > 0:
		return 0, fmt.Errorf("%w: %d of its payments are in number %d of %s; if it corrects that file, take it in its place (--replaces %d)",
			ErrTaken, repeats, of, r.day.Format(time.DateOnly), of)
	}
	return last + 1, nil
}

// enterFile writes the file's row, which no other file may have.
func enterFile(
	ctx context.Context, tx pgx.Tx, p *Partner, payee string, from File, r bankRegistry, replaced int64, now time.Time,
) (id int64, err error) {
	if replaced != 0 { // it gives its number up first
		if _, err := tx.Exec(ctx, `UPDATE topup.registry_file SET state = 'replaced', replaced_at = $2 WHERE id = $1`,
			replaced, now); err != nil {
			return 0, fmt.Errorf("replace a file: %w", err)
		}
	}
	err = tx.QueryRow(ctx, `
		INSERT INTO topup.registry_file (partner_id, name, sha256, payee_code, day, number, received_at, lines, total, state, taken_by)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'parsed', $10)
		ON CONFLICT DO NOTHING
		RETURNING id`,
		int64(p.ID), clip(strings.ToValidUTF8(from.Name, "\ufffd")), r.hash[:], payee, r.day, r.number, now, len(r.lines), int64(r.total), from.By).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, takenBefore(ctx, tx, p, r)
	}
	if err != nil {
		return 0, fmt.Errorf("enter the file: %w", err)
	}
	if replaced != 0 {
		if _, err := tx.Exec(ctx, `UPDATE topup.registry_file SET replaced_by = $2 WHERE id = $1`, replaced, id); err != nil {
			return 0, fmt.Errorf("replace a file: %w", err)
		}
	}
	return id, nil
}

// takenBefore says of a file with the number of another what may be done.
func takenBefore(ctx context.Context, tx pgx.Tx, p *Partner, r bankRegistry) error {
	var same bool
	if err := tx.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM topup.registry_file WHERE partner_id = $1 AND sha256 = $2 AND state <> 'replaced')`,
		int64(p.ID), r.hash[:]).Scan(&same); err != nil {
		return fmt.Errorf("look for the file: %w", err)
	}
	if same {
		return ErrTaken
	}
	return fmt.Errorf("%w, number %d of %s with other contents; if this one corrects it, take it in its place (--replaces %d)",
		ErrTaken, r.number, r.day.Format(time.DateOnly), r.number)
}

// notTheSame refuses a file with just the payments of another one: a bank's export
// that was made or named anew. Its settlement would be booked twice. One that only
// repeats some is taken, and what it repeats is open.
func notTheSame(ctx context.Context, tx pgx.Tx, p *Partner, file, replaced int64, r bankRegistry) error {
	if len(r.lines) == 0 {
		return nil
	}
	var day time.Time
	var number int
	err := tx.QueryRow(ctx, `
		SELECT f.day, f.number
		  FROM topup.registry_file f
		 WHERE f.partner_id = $1 AND f.id <> ALL (ARRAY[$2, $3]::bigint[]) AND f.state <> 'replaced' AND f.lines = $4 AND f.total = $5
		   AND NOT EXISTS (SELECT i.txn_id, i.amount FROM topup_incoming i
		                   EXCEPT -- an anti-join would be planned as loops when the tables have just grown
		                   SELECT l.txn_id, l.amount FROM topup.registry_line l WHERE l.file_id = f.id AND l.line IS NOT NULL)
		 ORDER BY f.id
		 LIMIT 1`, int64(p.ID), file, replaced, len(r.lines), int64(r.total)).Scan(&day, &number)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err != nil:
		return fmt.Errorf("look for the same file: %w", err)
	}
	return fmt.Errorf("%w, as number %d of %s: the payments are the same", ErrTaken, number, day.Format(time.DateOnly))
}

// withdraw takes back what a replaced file has booked as settled and written off.
// Its lines count no more, and what earlier files were found to have forgotten
// by them is forgotten again.
func withdraw(ctx context.Context, tx pgx.Tx, book *ledger.Book, p *Partner, file int64, now time.Time) error {
	var claimed int
	if err := tx.QueryRow(ctx, `
		SELECT count(*)
		  FROM topup.registry_line l
		  JOIN topup.registry_line c ON c.event_id = l.event_id AND c.state NOT IN ('duplicate', 'ledger_only', 'replaced')
		 WHERE l.file_id = $1 AND l.state = 'ledger_only' AND l.resolution = 'written_off'`, file).Scan(&claimed); err != nil {
		return fmt.Errorf("withdraw a file: %w", err)
	}
	if claimed > 0 {
		return fmt.Errorf("%d payments that the file to be replaced had not were written off, and a later file has them: settle the lines of this one by hand", claimed)
	}
	if err := tx.QueryRow(ctx, `
		SELECT count(*) FROM topup.registry_line WHERE file_id = $1 AND state = 'amount_differs' AND resolution = 'posted'`,
		file).Scan(&claimed); err != nil {
		return fmt.Errorf("withdraw a file: %w", err)
	}
	if claimed > 0 {
		return fmt.Errorf("%d payments of the file to be replaced were booked again by hand: settle the lines of this one by hand", claimed)
	}
	rows, err := tx.Query(ctx, `
		SELECT 'registry/' || $2, f.id::text, f.id::text FROM topup.registry_file f WHERE f.id = $1 AND f.event_id IS NOT NULL
		UNION ALL
		SELECT 'resolve/' || $2, l.id::text, 'line-' || l.id
		  FROM topup.registry_line l
		 WHERE l.file_id = $1 AND l.resolution = 'written_off'`, file, p.Name)
	if err != nil {
		return fmt.Errorf("withdraw a file: %w", err)
	}
	entries, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (ledger.Entry, error) {
		e := ledger.Entry{Kind: ledger.Reversal, Source: "replaced/" + p.Name, OccurredAt: now}
		err := row.Scan(&e.Reverses.Source, &e.Reverses.ExternalID, &e.ExternalID)
		return e, err
	})
	if err != nil {
		return fmt.Errorf("withdraw a file: %w", err)
	}
	for from := 0; from < len(entries); from += postChunk {
		chunk := entries[from:min(from+postChunk, len(entries))]
		events, err := ledger.NextEventIDs(ctx, tx, len(chunk))
		if err != nil {
			return err
		}
		for i := range chunk {
			chunk[i].Event = events[i]
		}
		verdicts, err := book.Post(ctx, tx, chunk)
		if err != nil {
			return err
		}
		for i, v := range verdicts {
			if v.Code != ledger.CodePosted {
				return fmt.Errorf("withdraw a file: take %s of %s back: the book says %s", chunk[i].Reverses.ExternalID, chunk[i].Reverses.Source, v.Code)
			}
		}
	}
	if _, err := tx.Exec(ctx, `
		UPDATE topup.registry_line m
		   SET open = true, resolution = NULL, resolved_by = NULL, resolved_at = NULL
		  FROM topup.registry_line c
		 WHERE c.file_id = $1 AND c.state NOT IN ('duplicate', 'ledger_only')
		   AND m.event_id = c.event_id AND m.file_id <> $1 AND m.state = 'ledger_only' AND m.resolution = 'carried_over'`, file); err != nil {
		return fmt.Errorf("withdraw a file: %w", err)
	}
	if _, err := tx.Exec(ctx, `
		UPDATE topup.registry_file f
		   SET state = 'matched'
		 WHERE f.partner_id = $1 AND f.state = 'closed'
		   AND EXISTS (SELECT FROM topup.registry_line l WHERE l.file_id = f.id AND l.open)`, int64(p.ID)); err != nil {
		return fmt.Errorf("withdraw a file: %w", err)
	}
	if _, err := tx.Exec(ctx, `UPDATE topup.registry_line SET state = 'replaced', open = false WHERE file_id = $1`, file); err != nil {
		return fmt.Errorf("withdraw a file: %w", err)
	}
	return nil
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

// judge gives each line its state, and finds what the file should have had: the
// payments of its day, those that came on an earlier day after the file of that
// day was taken, and those of a file that it replaces. All of the file's own
// payments are there by now. One that was cancelled, or written off because a
// file had it not, is nothing of ours any more.
func judge(
	ctx context.Context, tx pgx.Tx, p *Partner, file int64, payee string, replaced int64, r bankRegistry, now time.Time,
) error {
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
		                    WHEN o.ours <> i.amount THEN 'amount_differs'
		                    WHEN y.account <> i.account THEN 'account_differs'
		                    WHEN y.origin = 'registry' THEN 'bank_only'
		                    WHEN y.day <> $3::date THEN 'other_day'
		                    ELSE 'matched' END AS state
		          FROM topup_incoming i
		          JOIN topup.payment y ON y.partner_id = $1 AND y.txn_id = i.txn_id
		          LEFT JOIN topup.registry_line m
		            ON m.event_id = y.event_id AND m.state = 'ledger_only' AND m.resolution = 'written_off'
		          CROSS JOIN LATERAL (SELECT CASE WHEN y.state = 'cancelled' OR m.event_id IS NOT NULL THEN 0
		                                          ELSE y.amount END AS ours) AS o
		          LEFT JOIN topup.registry_line c
		            ON c.event_id = y.event_id AND c.state NOT IN ('duplicate', 'ledger_only', 'replaced')) AS j
		 ORDER BY j.line`, int64(p.ID), file, r.day, now); err != nil {
		return fmt.Errorf("judge the lines: %w", err)
	}
	if _, err := tx.Exec(ctx, `
		INSERT INTO topup.registry_line (file_id, event_id, txn_id, at, amount, fee, difference, account, terminal,
		                                 state, open, hold_until)
		SELECT $2, y.event_id, y.txn_id, y.bank_at, 0, 0, y.amount, y.account, y.terminal, 'ledger_only', true,
		       $3::date + $5::integer
		  FROM topup.payment y
		 WHERE y.partner_id = $1 AND y.state <> 'cancelled'
		   AND (($4 = '' OR y.payee_code = $4)
		        AND y.day = ANY (ARRAY(SELECT $3::date
		                               UNION ALL
		                               SELECT f.day
		                                 FROM topup.registry_file f
		                                 JOIN topup.partner p ON p.id = f.partner_id
		                                WHERE f.partner_id = $1 AND f.state <> 'replaced' AND f.payee_code IN ('', $4)
		                                  AND f.day >= $3::date - $7::integer AND f.day < $3
		                                  AND f.received_at < (f.day + 1)::timestamp AT TIME ZONE p.time_zone + interval '1 hour'))
		        OR y.event_id = ANY (ARRAY(SELECT l.event_id FROM topup.registry_line l WHERE l.file_id = $6)))
		   AND NOT EXISTS (SELECT FROM topup.registry_line c
		                    WHERE c.event_id = y.event_id AND c.state NOT IN ('duplicate', 'replaced'))
		 ORDER BY y.event_id`, int64(p.ID), file, r.day, payee, holdDays, replaced, earlyDays); err != nil {
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
		         WHERE f.partner_id = $1 AND f.state NOT IN ('closed', 'replaced')) AS n
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
