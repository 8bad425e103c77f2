package door

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// keepYears is how long passes, refusals, alarms and excuses are kept: this
// school year and the one before it.
const keepYears = 2

// Forget deletes what is past its time, and returns how many passes and how many
// other rows it was.
func Forget(ctx context.Context, tx pgx.Tx, now time.Time) (passes, others int64, err error) {
	err = tx.QueryRow(ctx, `SELECT passes, others FROM door.forget($1)`, now.AddDate(-keepYears, 0, 0)).Scan(&passes, &others)
	if err != nil {
		return 0, 0, fmt.Errorf("forget passes: %w", err)
	}
	return passes, others, nil
}
