package topup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger"
	"zvonok/ledger/money"
	"zvonok/ledger/pg"
)

// Breaks returns what is open with a partner, or with all partners when the name
// is empty: days for which no registry has come although the days that a payment
// may wait for one are over, refunds on their way, and open lines of all files, up
// to a thousand of each, the oldest first. A partner that does not exist is an
// ErrPartner.
func Breaks(ctx context.Context, q pg.Querier, partner string, now time.Time) ([]Break, error) {
	if partner != "" {
		if _, err := findPartner(ctx, q, partner); err != nil {
			return nil, err
		}
	}
	silent, err := readSilence(ctx, q, partner, now)
	if err != nil {
		return nil, err
	}
	refunds, err := readOnTheirWay(ctx, q, partner, now)
	if err != nil {
		return nil, err
	}
	lines, err := readBreaks(ctx, q, `($2 = '' OR p.name = $2)`, now, partner)
	if err != nil {
		return nil, err
	}
	return append(append(silent, refunds...), lines...), nil
}

// readOnTheirWay returns the refunds that were paid and have not ended.
func readOnTheirWay(ctx context.Context, q pg.Querier, partner string, now time.Time) ([]Break, error) {
	rows, err := q.Query(ctx, `
		SELECT r.id, p.name, coalesce(r.txn_id, ''), r.event_id, -r.amount, (r.decided_at AT TIME ZONE p.time_zone)::date,
		       r.decided_at < $2::timestamptz - make_interval(days => $3)
		  FROM topup.refund r
		  JOIN topup.partner p ON p.id = r.partner_id
		 WHERE r.state = 'paid' AND ($1 = '' OR p.name = $1)
		 ORDER BY r.decided_at, r.id
		 LIMIT $4`, partner, now, refundDays, maxBreaks)
	if err != nil {
		return nil, fmt.Errorf("look for refunds on their way: %w", err)
	}
	refunds, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Break, error) {
		b := Break{State: OnItsWay}
		err := row.Scan(&b.ID, &b.Partner, &b.Txn, &b.Event, &b.Ours, &b.Since, &b.Disputed)
		return b, err
	})
	if err != nil {
		return nil, fmt.Errorf("look for refunds on their way: %w", err)
	}
	return refunds, nil
}

// readSilence returns the days of the last hundred with payments, but without a
// registry that should have had them.
func readSilence(ctx context.Context, q pg.Querier, partner string, now time.Time) ([]Break, error) {
	rows, err := q.Query(ctx, `
		SELECT p.name, y.day, count(*), sum(y.amount)::bigint
		  FROM topup.partner p
		 CROSS JOIN LATERAL (SELECT ($2::timestamptz AT TIME ZONE p.time_zone)::date - n AS day
		                       FROM generate_series($3 + 1, $4) AS n) AS d
		  JOIN topup.payment y ON y.partner_id = p.id AND y.day = d.day
		 WHERE ($1 = '' OR p.name = $1) AND y.state <> 'cancelled'
		   AND NOT EXISTS (SELECT FROM topup.registry_file f
		                    WHERE f.partner_id = p.id AND f.day = d.day AND f.state <> 'replaced'
		                      AND f.payee_code IN ('', y.payee_code))
		   AND NOT EXISTS (SELECT FROM topup.registry_line l
		                    WHERE l.event_id = y.event_id AND l.state NOT IN ('duplicate', 'replaced'))
		 GROUP BY p.name, y.day
		 ORDER BY y.day, p.name`, partner, now, holdDays, silenceDays)
	if err != nil {
		return nil, fmt.Errorf("look for days without a registry: %w", err)
	}
	silent, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Break, error) {
		b := Break{State: NoRegistry, Disputed: true}
		err := row.Scan(&b.Partner, &b.Since, &b.Payments, &b.Ours)
		return b, err
	})
	if err != nil {
		return nil, fmt.Errorf("look for days without a registry: %w", err)
	}
	return silent, nil
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
	// Posted books a payment again that was taken back: the bank has it after all.
	Posted Resolution = "posted"
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
	if err := checkWho(who); err != nil {
		return err
	}
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
	case how == Posted && state == AmountDiffers && difference < 0:
		if entry, err = bookAgain(ctx, tx, book, p, event, -difference, now); err != nil {
			return err
		}
		entry.Event, entry.Source, entry.ExternalID = events[0], "resolve/"+p.Name, fmt.Sprint(id)
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

// bookAgain makes the posting of a payment that was taken back and of which the
// bank's registry says that it has the money. The bank's repeats were answered as
// the first request, credited. It goes where it was, or to the suspense account.
func bookAgain(
	ctx context.Context, tx pgx.Tx, book *ledger.Book, p *Partner, event int64, sum money.Amount, now time.Time,
) (ledger.Entry, error) {
	entry := ledger.Entry{Kind: ledger.TopUp, Debit: p.clearing, Amount: sum, OccurredAt: now}
	y := payment{partner: p}
	var state string
	var why reason
	if err := tx.QueryRow(ctx, `SELECT account, amount, state, reason FROM topup.payment WHERE event_id = $1 FOR NO KEY UPDATE`, event).
		Scan(&y.account, &y.sum, &state, &why); err != nil {
		return entry, fmt.Errorf("read the payment: %w", err)
	}
	if state != "cancelled" || y.sum != sum {
		return entry, fmt.Errorf("it is booked again only after it was taken back, and whole: it is %s, of %s", state, y.sum)
	}
	w, known, err := readWallet(ctx, tx, y.account, today(book, now))
	if err != nil {
		return entry, err
	}
	if why == credited { // what was in the suspense account is there again
		why = y.suspenseReason(w, known)
	}
	entry.Credit, state = w.id, "credited"
	if why != credited {
		ids, err := ledger.SystemAccounts(ctx, tx, ledger.SystemAccount{Kind: ledger.Suspense})
		if err != nil {
			return entry, err
		}
		entry.Kind, entry.Credit, state = ledger.Unclear, ids[0], "suspense"
	}
	_, err = tx.Exec(ctx, `
		UPDATE topup.payment
		   SET state = $2, reason = $3, wallet_id = CASE WHEN $2 = 'credited' THEN wallet_id END
		 WHERE event_id = $1`, event, state, string(why))
	return entry, err
}
