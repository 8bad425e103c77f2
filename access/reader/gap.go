package reader

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger/pg"
)

// Gap is a run of numbers that a device has used, since it sent later ones, and
// that have not arrived.
type Gap struct {
	Device DeviceID `json:"device"`
	First  int64    `json:"first"`
	Last   int64    `json:"last"`
	// Since and Until are when the events around it happened: what is missing lies between.
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
}

// Gaps lists the gaps in a device's numbers, the oldest first, at most limit of
// them. Numbers before the first that arrived are not missed: a device may begin
// anywhere. A gap closes by itself when the events arrive.
func Gaps(ctx context.Context, q pg.Querier, device DeviceID, limit int) ([]Gap, error) {
	rows, err := q.Query(ctx, `
		SELECT $1::bigint, before + 1, seq - 1, since, at
		  FROM (SELECT seq, at, lag(seq) OVER line AS before, lag(at) OVER line AS since
		          FROM reader.event
		         WHERE device_id = $1
		        WINDOW line AS (ORDER BY seq)) e
		 WHERE seq > before + 1
		 ORDER BY seq
		 LIMIT $2`, device, limit)
	if err != nil {
		return nil, fmt.Errorf("list the gaps of device %d: %w", device, err)
	}
	gaps, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Gap])
	if err != nil {
		return nil, fmt.Errorf("list the gaps of device %d: %w", device, err)
	}
	return gaps, nil
}
