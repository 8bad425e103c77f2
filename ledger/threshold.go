package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger/money"
	"zvonok/ledger/pg"
)

// Threshold is the balance of one person's wallet of which one recipient wants
// to hear (D1). A recipient has at most one lower and one upper threshold for a
// person.
type Threshold struct {
	Person PersonID
	// Owner is the recipient's id, opaque to the book.
	Owner int64
	// Upward thresholds tell of a balance that rises above Amount, the others
	// of one that falls below it.
	Upward bool
	Amount money.Amount
}

// SetThreshold sets a threshold and holds it against the present balance once:
// who is beyond it now, and was not beyond the one before, hears of it by a
// Crossed job in this transaction. A person without a wallet has no thresholds;
// setting one changes nothing.
func (b *Book) SetThreshold(
	ctx context.Context, tx pgx.Tx, person PersonID, owner int64, amount money.Amount, upward bool,
) error {
	crossings, err := setThresholds(ctx, tx, []Threshold{{person, owner, upward, amount}}, false, true)
	if err != nil || len(crossings) == 0 {
		return err
	}
	b.Metrics.crossed(len(crossings))
	return b.announce(ctx, tx, Crossed{EventIDs: crossings})
}

// LoadThresholds sets thresholds without holding them against present balances:
// for imports, where a balance that is low already is not news. Of several for
// the same recipient, person and direction the last one counts.
func LoadThresholds(ctx context.Context, tx pgx.Tx, thresholds []Threshold) error {
	_, err := setThresholds(ctx, tx, thresholds, false, false)
	return err
}

// RemoveThresholds removes thresholds; their amounts do not matter.
func RemoveThresholds(ctx context.Context, tx pgx.Tx, thresholds []Threshold) error {
	_, err := setThresholds(ctx, tx, thresholds, true, false)
	return err
}

func setThresholds(ctx context.Context, tx pgx.Tx, thresholds []Threshold, remove, evaluate bool) ([]int64, error) {
	if len(thresholds) == 0 {
		return nil, nil
	}
	n := len(thresholds)
	people, owners, amounts := make([]int64, n), make([]int64, n), make([]*int64, n)
	upward := make([]bool, n)
	for i, t := range thresholds {
		people[i], owners[i], upward[i] = int64(t.Person), t.Owner, t.Upward
		if amount := int64(t.Amount); !remove {
			amounts[i] = &amount
		}
	}
	var crossings []int64
	if err := tx.QueryRow(ctx, `
		SELECT coalesce(ledger.set_thresholds(array_agg(t.account_id), array_agg(t.owner), array_agg(t.upward),
		                                      array_agg(t.amount), $5), '{}')
		  FROM (SELECT DISTINCT ON (a.id, i.owner, i.upward) a.id AS account_id, i.owner, i.upward, i.amount
		          FROM unnest($1::bigint[], $2::bigint[], $3::boolean[], $4::bigint[])
		               WITH ORDINALITY AS i (person_id, owner, upward, amount, ord)
		          JOIN ledger.account a ON a.person_id = i.person_id
		         ORDER BY a.id, i.owner, i.upward, i.ord DESC) AS t
		HAVING count(*) > 0`, people, owners, upward, amounts, evaluate).Scan(&crossings); err != nil {
		if errors.Is(err, pgx.ErrNoRows) {
			return nil, nil
		}
		return nil, fmt.Errorf("set thresholds: %w", err)
	}
	return crossings, nil
}

// Thresholds returns the thresholds for the people's wallets, of all recipients.
func Thresholds(ctx context.Context, q pg.Querier, people []PersonID) ([]Threshold, error) {
	rows, err := q.Query(ctx, `
		SELECT a.person_id, t.owner, t.upward, t.amount
		  FROM ledger.account a
		  JOIN ledger.threshold t ON t.account_id = a.id
		 WHERE a.person_id = ANY ($1)
		 ORDER BY a.person_id, t.owner, t.upward`, people)
	if err != nil {
		return nil, fmt.Errorf("read thresholds: %w", err)
	}
	thresholds, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Threshold])
	if err != nil {
		return nil, fmt.Errorf("read thresholds: %w", err)
	}
	return thresholds, nil
}

// Crossing is a threshold that was crossed.
type Crossing struct {
	Event  EventID
	Person PersonID
	// Owner is the recipient whose threshold it is.
	Owner     int64
	Upward    bool
	Threshold money.Amount
	// Balance is what was in the wallet just after.
	Balance money.Amount
	// OccurredAt is when the purchase or top-up happened that crossed it, or
	// when the threshold was set.
	OccurredAt time.Time
}

// Crossings returns the crossings of a Crossed job.
func Crossings(ctx context.Context, q pg.Querier, fact Crossed) ([]Crossing, error) {
	rows, err := q.Query(ctx, `
		SELECT x.event_id, a.person_id, x.owner, x.upward, x.threshold, x.balance, x.occurred_at
		  FROM ledger.crossing x
		  JOIN ledger.account a ON a.id = x.account_id
		 WHERE x.event_id = ANY ($1)
		 ORDER BY x.event_id`, fact.EventIDs)
	if err != nil {
		return nil, fmt.Errorf("read crossings: %w", err)
	}
	crossings, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Crossing])
	if err != nil {
		return nil, fmt.Errorf("read crossings: %w", err)
	}
	return crossings, nil
}
