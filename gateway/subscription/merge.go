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

// MaxMergeWait is the longest time a message may wait for a sibling's news
// (spec/notices.md, Freshness, merging, caps).
const MaxMergeWait = 90 * time.Second

// ErrMergeWait is a wait outside of 0 to 90 seconds.
var ErrMergeWait = errors.New("a message waits 0 to 90 seconds for a sibling's news")

// SetMergeWait stores how long messages to a recipient of several children wait
// for a sibling's news; nil leaves it to the organisation. It returns
// [ErrMergeWait].
func SetMergeWait(ctx context.Context, tx pgx.Tx, who access.RepresentativeID, wait *time.Duration) error {
	if wait != nil && (*wait < 0 || *wait > MaxMergeWait) {
		return ErrMergeWait
	}
	if _, err := tx.Exec(ctx, `
		WITH gone AS (
		    DELETE FROM subscription.merge WHERE representative_id = $1 AND $2::interval IS NULL
		)
		INSERT INTO subscription.merge (representative_id, wait)
		SELECT $1, $2::interval WHERE $2::interval IS NOT NULL
		ON CONFLICT (representative_id) DO UPDATE SET wait = excluded.wait`, who, wait); err != nil {
		return fmt.Errorf("store how long messages to representative %d wait: %w", who, err)
	}
	return nil
}

// MergeWaits returns the waits of those recipients who have chosen one.
func MergeWaits(ctx context.Context, q pg.Querier, who []access.RepresentativeID) (
	map[access.RepresentativeID]time.Duration, error,
) {
	rows, err := q.Query(ctx, `
		SELECT representative_id, wait FROM subscription.merge WHERE representative_id = ANY ($1)`, who)
	if err != nil {
		return nil, fmt.Errorf("read how long messages to %d representatives wait: %w", len(who), err)
	}
	waits := make(map[access.RepresentativeID]time.Duration)
	var id access.RepresentativeID
	var wait time.Duration
	if _, err := pgx.ForEachRow(rows, []any{&id, &wait}, func() error { waits[id] = wait; return nil }); err != nil {
		return nil, fmt.Errorf("read how long messages to %d representatives wait: %w", len(who), err)
	}
	return waits, nil
}
