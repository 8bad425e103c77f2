package pg

import (
	"context"
	"fmt"
	"time"
)

// EnsureMonths makes the monthly partitions of all tables that have them, from
// the month before now to the third after it, and returns how many were
// missing. A daily job calls it, so that rows find their partition; those that
// come before it fall into a default partition and are moved by the next call.
func EnsureMonths(ctx context.Context, q Querier, now time.Time) (int, error) {
	var made int
	if err := q.QueryRow(ctx, `SELECT ledger.ensure_months($1::date)`, now.UTC()).Scan(&made); err != nil {
		return 0, fmt.Errorf("make the partitions of the coming months: %w", err)
	}
	return made, nil
}
