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
// anywhere. A gap closes by itself when the events arrive. A device that does not
// count its events itself has none.
func Gaps(ctx context.Context, q pg.Querier, device DeviceID, limit int) ([]Gap, error) {
	rows, err := q.Query(ctx, `
		SELECT $1::bigint, before + 1, seq - 1, since, at
		  FROM (SELECT seq, at, lag(seq) OVER line AS before, lag(at) OVER line AS since
		          FROM reader.event
		         WHERE device_id = $1
		           AND NOT (SELECT foreign_numbers FROM reader.device WHERE id = $1)
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

// countForeign notes of the devices of uploads that their numbers are not their
// own: a Sigur server counts the events of all its doors together, and numbers of
// lines without one are made of what they say. Numbers that do not follow each
// other are no gap then.
func (in *Intake) countForeign(ctx context.Context, uploads []*upload) error {
	var ids []DeviceID
	for _, u := range uploads {
		if _, known := in.foreign.Load(u.device.ID); !known {
			ids = append(ids, u.device.ID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	if _, err := in.pool.Exec(ctx, `UPDATE reader.device SET foreign_numbers = true WHERE id = ANY ($1) AND NOT foreign_numbers`, ids); err != nil {
		return fmt.Errorf("note whose numbers are not their own: %w", err)
	}
	for _, id := range ids {
		in.foreign.Store(id, true)
	}
	return nil
}

// Sequence is what is wrong with the numbers of one device (I14 of the books):
// numbers that have not arrived, and numbers that came with two contents, as
// from a cloned or restored device. Neither is a mistake in the books; both are
// for staff to look into.
type Sequence struct {
	Device DeviceID `json:"device"`
	Name   string   `json:"name"`
	// Missing counts the numbers between its first and its last that have not arrived.
	Missing int64 `json:"missing"`
	// Conflicts counts the numbers that came with another content as well.
	Conflicts int64 `json:"conflicts"`
}

// Sequences returns the devices whose numbers have gaps or conflicts. It reads
// the numbers of all events.
func Sequences(ctx context.Context, q pg.Querier) ([]Sequence, error) {
	rows, err := q.Query(ctx, `
		SELECT d.id, d.name, CASE WHEN d.foreign_numbers THEN 0 ELSE coalesce(e.missing, 0) END, coalesce(c.conflicts, 0)
		  FROM reader.device d
		  LEFT JOIN (SELECT device_id, max(seq) - min(seq) + 1 - count(*) AS missing
		               FROM reader.event GROUP BY device_id) AS e ON e.device_id = d.id
		  LEFT JOIN (SELECT device_id, count(DISTINCT seq) AS conflicts
		               FROM reader.conflict GROUP BY device_id) AS c ON c.device_id = d.id
		 WHERE e.missing > 0 AND NOT d.foreign_numbers OR c.conflicts > 0
		 ORDER BY d.id`)
	if err != nil {
		return nil, fmt.Errorf("look through the devices' numbers: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Sequence])
	if err != nil {
		return nil, fmt.Errorf("look through the devices' numbers: %w", err)
	}
	return list, nil
}
