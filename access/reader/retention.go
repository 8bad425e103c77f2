package reader

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"zvonok/access"
	"zvonok/ledger/pg"
)

// How long the raw bodies of what was not taken in are kept (spec/practice.md).
// Once staff have looked after one its purpose is reached. What nobody looks
// after goes when the event would have: a pass is kept for two years
// (door.Forget), a sale as long as the books.
const (
	keepSettled     = 29 * 24 * time.Hour // within 30 days, and a run is due once a day
	keepPassesYears = 2
	keepSalesYears  = 5
)

// erasedBodies bounds one transaction of EraseBodies.
const erasedBodies = 1000

// EraseBodies destroys the raw bodies of rejected events and of conflicts that
// are past their time, in small transactions which note for the act how many they
// were. Numbers, codes and times stay: a repeat is answered as before.
func EraseBodies(ctx context.Context, pool *pgxpool.Pool, now time.Time) error {
	settled, passes, sales := now.Add(-keepSettled), now.AddDate(-keepPassesYears, 0, 0), now.AddDate(-keepSalesYears, 0, 0)
	for _, step := range []struct {
		what, sql string
		args      []any
	}{
		{"quarantine_bodies", `
			UPDATE reader.quarantine q SET body = NULL
			  FROM (SELECT event_id FROM reader.quarantine
			         WHERE settled_at < $2 AND settled_at IS NOT NULL AND body IS NOT NULL
			         ORDER BY settled_at LIMIT $1) old
			 WHERE q.event_id = old.event_id`, []any{settled}},
		{"quarantine_bodies", `
			UPDATE reader.quarantine q SET body = NULL
			  FROM (SELECT u.event_id FROM reader.quarantine u
			          JOIN reader.event e ON e.device_id = u.device_id AND e.seq = u.seq
			         WHERE u.received_at < $2 AND u.settled_at IS NULL AND u.body IS NOT NULL
			           AND (e.type NOT IN (4, 5) OR u.received_at < $3)
			         ORDER BY u.received_at LIMIT $1) old
			 WHERE q.event_id = old.event_id`, []any{passes, sales}},
		// The alarm of a device whose numbers forked stands for all of its conflicts.
		{"conflict_bodies", `
			UPDATE reader.conflict c SET body = NULL
			  FROM (SELECT o.device_id, o.seq, o.body_hash FROM reader.conflict o
			         WHERE o.body IS NOT NULL AND o.received_at < $2
			           AND (o.received_at < $3
			                OR NOT EXISTS (SELECT FROM reader.device_alarm a
			                                WHERE a.device_id = o.device_id AND a.kind = 'forked_numbers'
			                                  AND (a.settled_at IS NULL OR a.settled_at >= $2)))
			         ORDER BY o.received_at LIMIT $1) old
			 WHERE c.device_id = old.device_id AND c.seq = old.seq AND c.body_hash = old.body_hash`, []any{settled, passes}},
	} {
		for erased := int64(erasedBodies); erased == erasedBodies; {
			err := pgx.BeginTxFunc(ctx, pool, pg.PlannedOnce, func(tx pgx.Tx) error {
				tag, err := tx.Exec(ctx, step.sql, append([]any{erasedBodies}, step.args...)...)
				if erased = tag.RowsAffected(); err != nil || erased == 0 {
					return err
				}
				return access.NoteDestroyed(ctx, tx, map[string]int64{step.what: erased})
			})
			if err != nil {
				return fmt.Errorf("destroy %s: %w", step.what, err)
			}
		}
	}
	return nil
}
