package ledger

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger/pg"
)

// EventID is the identity of a fact. Passes, sales, top-ups and crossings share
// one space of ids, so an id names one fact whatever its table.
type EventID int64

// NextEventIDs takes n ids that nobody else has or will have. Ids that are
// taken and then not used leave gaps, which mean nothing.
func NextEventIDs(ctx context.Context, q pg.Querier, n int) ([]EventID, error) {
	rows, err := q.Query(ctx, `SELECT nextval('ledger.event_id') FROM generate_series(1, $1)`, n)
	if err != nil {
		return nil, fmt.Errorf("take event ids: %w", err)
	}
	ids, err := pgx.AppendRows(make([]EventID, 0, n), rows, pgx.RowTo[EventID])
	if err != nil {
		return nil, fmt.Errorf("take event ids: %w", err)
	}
	return ids, nil
}
