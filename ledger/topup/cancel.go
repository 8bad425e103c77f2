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

// errNoPayment says that nothing was paid under an id.
var errNoPayment = errors.New("there is no such payment")

// kept is a payment as it stands now.
type kept struct {
	txn      string
	event    ledger.EventID
	sum      money.Amount
	bookedAt time.Time
	state    string
}

const selectKept = `
	SELECT txn_id, event_id, amount, booked_at, state
	  FROM topup.payment
	 WHERE partner_id = $1 AND ($2 <> '' AND txn_id = $2 OR $3 <> 0 AND event_id = $3)`

// readPayment finds a payment by the partner's id or by our number.
func readPayment(ctx context.Context, q pg.Querier, p *Partner, txn string, prv int64) (kept, error) {
	return scanKept(q.QueryRow(ctx, selectKept, int64(p.ID), txn, prv))
}

// lockPayment does so and keeps it from others until the transaction ends.
func lockPayment(ctx context.Context, tx pgx.Tx, p *Partner, txn string, prv int64) (kept, error) {
	return scanKept(tx.QueryRow(ctx, selectKept+` FOR NO KEY UPDATE`, int64(p.ID), txn, prv))
}

func scanKept(row pgx.Row) (y kept, err error) {
	err = row.Scan(&y.txn, &y.event, &y.sum, &y.bookedAt, &y.state)
	if errors.Is(err, pgx.ErrNoRows) {
		return y, errNoPayment
	}
	if err != nil {
		return y, fmt.Errorf("read a payment: %w", err)
	}
	return y, nil
}

// answerOf tells of a payment, whatever was asked about it.
func (y kept) answerOf(outcome Outcome, comment string) answer {
	return answer{outcome: outcome, comment: comment, txn: y.txn, prv: int64(y.event), sum: y.sum, bookedAt: y.bookedAt}
}

// status tells what became of a payment.
func (e *Endpoints) status(ctx context.Context, p *Partner, r request) (answer, error) {
	prv := r.prv
	txn := r.txn
	if prv != 0 {
		txn = ""
	}
	y, err := readPayment(ctx, e.pool, p, txn, prv)
	switch {
	case errors.Is(err, errNoPayment):
		return answer{outcome: UnknownPayment, txn: r.txn}, nil
	case err != nil:
		return answer{}, err
	case y.state == "cancelled":
		return y.answerOf(Cancelled, ""), nil
	}
	return y.answerOf(OK, "credited"), nil
}

// cancel takes a payment back, if the partner may, the money is still there and
// no registry of the partner says that it took it: what has been settled goes
// back as a refund. A repeat gets the same answer.
func (e *Endpoints) cancel(ctx context.Context, p *Partner, r request) (answer, error) {
	if !p.MayCancel {
		return answer{outcome: Forbidden, txn: r.txn}, nil
	}
	txn := r.txn
	if r.prv != 0 {
		txn = ""
	}
	var a answer
	err := pgx.BeginFunc(ctx, e.pool, func(tx pgx.Tx) error {
		if err := lockRegistries(ctx, tx, p); err != nil {
			return err
		}
		y, err := lockPayment(ctx, tx, p, txn, r.prv)
		if errors.Is(err, errNoPayment) {
			a = answer{outcome: UnknownPayment, txn: r.txn}
			return nil
		}
		if err != nil {
			return err
		}
		switch y.state {
		case "cancelled":
			a = y.answerOf(OK, "cancelled")
			return nil
		case "released": // the suspense account has it no more
			a = y.answerOf(CancelImpossible, "")
			return nil
		}
		a, err = e.takeBack(ctx, tx, p, y)
		return err
	})
	return a, err
}

// takeBack reverses a payment. A registry's line that misses it is settled with
// that; any other line of it says that the bank has the money.
func (e *Endpoints) takeBack(ctx context.Context, tx pgx.Tx, p *Partner, y kept) (answer, error) {
	var settled bool
	if err := tx.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM topup.registry_line
		                WHERE event_id = $1 AND state NOT IN ('duplicate', 'ledger_only', 'replaced')
		                   OR event_id = $1 AND state = 'ledger_only' AND resolution = 'written_off')`,
		int64(y.event)).Scan(&settled); err != nil {
		return answer{}, fmt.Errorf("look for the registry's line of event %d: %w", y.event, err)
	}
	if settled {
		return y.answerOf(CancelImpossible, ""), nil
	}
	events, err := ledger.NextEventIDs(ctx, tx, 1)
	if err != nil {
		return answer{}, err
	}
	verdicts, err := e.book.Post(ctx, tx, []ledger.Entry{{
		Event: events[0], Kind: ledger.Reversal, Source: "cancel/" + p.Name, ExternalID: y.txn, OccurredAt: e.now(),
		Reverses: ledger.Key{Source: p.source(), ExternalID: y.txn},
	}})
	if err != nil {
		return answer{}, err
	}
	switch verdicts[0].Code {
	case ledger.CodePosted:
	case ledger.CodeRefused, ledger.CodeOverReversed, ledger.CodeDuplicate:
		// A refused id stays refused: its repeat is a duplicate without a posting.
		return y.answerOf(CancelImpossible, ""), nil
	default:
		return answer{}, fmt.Errorf("cancel the payment of event %d: the book says %s", y.event, verdicts[0].Code)
	}
	if _, err := tx.Exec(ctx, `UPDATE topup.payment SET state = 'cancelled' WHERE event_id = $1`, int64(y.event)); err != nil {
		return answer{}, fmt.Errorf("cancel the payment of event %d: %w", y.event, err)
	}
	tag, err := tx.Exec(ctx, `
		UPDATE topup.registry_line
		   SET open = false, resolution = 'reversed', resolved_by = 'bank', resolved_at = $2
		 WHERE event_id = $1 AND state = 'ledger_only' AND open`, int64(y.event), e.now())
	if err != nil {
		return answer{}, fmt.Errorf("settle the line of event %d: %w", y.event, err)
	}
	if tag.RowsAffected() > 0 {
		if err := closeFiles(ctx, tx, p); err != nil {
			return answer{}, err
		}
	}
	return y.answerOf(OK, "cancelled"), nil
}
