package subscription

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger"
)

// Forget deletes the wishes of representatives whom access.Forget has erased,
// with their thresholds, and returns how many wishes there were.
func Forget(ctx context.Context, tx pgx.Tx) (int64, error) {
	rows, err := tx.Query(ctx, `
		SELECT a.person_id, t.owner, t.upward
		  FROM ledger.threshold t
		  JOIN access.representative r ON r.id = t.owner
		  JOIN ledger.account a ON a.id = t.account_id
		 WHERE r.erased_at IS NOT NULL`)
	if err != nil {
		return 0, fmt.Errorf("find the thresholds of the erased: %w", err)
	}
	thresholds, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (ledger.Threshold, error) {
		var t ledger.Threshold
		err := row.Scan(&t.Person, &t.Owner, &t.Upward)
		return t, err
	})
	if err != nil {
		return 0, fmt.Errorf("find the thresholds of the erased: %w", err)
	}
	if err := ledger.RemoveThresholds(ctx, tx, thresholds); err != nil {
		return 0, err
	}
	for _, table := range []string{"choice", "fallback", "merge"} {
		if _, err := tx.Exec(ctx, `
			DELETE FROM subscription.`+table+` s USING access.representative r
			 WHERE r.id = s.representative_id AND r.erased_at IS NOT NULL`); err != nil {
			return 0, fmt.Errorf("forget the %s of the erased: %w", table, err)
		}
	}
	tag, err := tx.Exec(ctx, `
		DELETE FROM subscription.subscription s USING access.representative r
		 WHERE r.id = s.representative_id AND r.erased_at IS NOT NULL`)
	if err != nil {
		return 0, fmt.Errorf("forget the wishes of the erased: %w", err)
	}
	return tag.RowsAffected(), nil
}
