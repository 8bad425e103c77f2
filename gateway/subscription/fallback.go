package subscription

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/ledger/pg"
)

// How long a message may wait for the proof of its delivery before the next
// channel is tried.
const (
	DefaultPatience = 5 * time.Minute // spec/notices.md, Fall-back
	minPatience     = time.Minute     // receipts take seconds; less would send most messages twice
	maxPatience     = time.Hour
)

// Step is one channel of a recipient's order.
type Step struct {
	Channel Channel
	// Patience is how long a message waits here for the proof of its delivery.
	Patience time.Duration
}

// ErrFallback is an order of channels that cannot be: an unknown channel, one
// that stands in it twice, or a patience outside of 1 to 60 minutes.
var ErrFallback = errors.New("channels stand in an order once each, with a patience of 1 to 60 minutes")

// Next returns the channel that follows a channel in an order, if there is one.
// A channel that is not in the order has no next: the recipient has not asked
// for another.
func Next(order []Step, after Channel) (Step, bool) {
	for i, step := range order[:max(0, len(order)-1)] {
		if step.Channel == after {
			return order[i+1], true
		}
	}
	return Step{}, false
}

// SetFallback stores a recipient's order of channels; an empty one means that
// nothing is tried elsewhere. It returns [ErrFallback].
func SetFallback(ctx context.Context, tx pgx.Tx, who access.RepresentativeID, order []Step) error {
	channels := make([]Channel, len(order))
	patience := make([]time.Duration, len(order))
	seen := map[Channel]bool{}
	for i, step := range order {
		known := step.Channel == SMS || step.Channel == Email || step.Channel == Push
		if !known || seen[step.Channel] || step.Patience < minPatience || step.Patience > maxPatience {
			return ErrFallback
		}
		seen[step.Channel] = true
		channels[i], patience[i] = step.Channel, step.Patience
	}
	// Two pages saved at once take turns on the recipient's own row.
	batch := &pgx.Batch{}
	batch.Queue(`SELECT pg_advisory_xact_lock('subscription.fallback'::regclass::int, hashint8($1))`, who)
	batch.Queue(`DELETE FROM subscription.fallback WHERE representative_id = $1`, who)
	batch.Queue(`
		INSERT INTO subscription.fallback (representative_id, position, channel, patience)
		SELECT $1, n, channel, patience
		  FROM unnest($2::text[], $3::interval[]) WITH ORDINALITY AS o (channel, patience, n)`, who, channels, patience)
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("store the order of channels of representative %d: %w", who, err)
	}
	return nil
}

// Fallbacks returns the orders of channels of those recipients who have one.
func Fallbacks(ctx context.Context, q pg.Querier, who []access.RepresentativeID) (
	map[access.RepresentativeID][]Step, error,
) {
	rows, err := q.Query(ctx, `
		SELECT representative_id, channel, patience
		  FROM subscription.fallback
		 WHERE representative_id = ANY ($1)
		 ORDER BY representative_id, position`, who)
	if err != nil {
		return nil, fmt.Errorf("read the orders of channels of %d representatives: %w", len(who), err)
	}
	orders := make(map[access.RepresentativeID][]Step)
	var id access.RepresentativeID
	var step Step
	_, err = pgx.ForEachRow(rows, []any{&id, &step.Channel, &step.Patience}, func() error {
		orders[id] = append(orders[id], step)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the orders of channels of %d representatives: %w", len(who), err)
	}
	return orders, nil
}
