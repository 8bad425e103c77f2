package delivery

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// failOver gives messages whose receipts speak of the route and not of the
// phone (smpp.md, Receipts: PO) to the next operator of their route that was not
// tried yet, within their life, and returns those that it did not. What may have
// arrived in part, was recalled, or whose reader has refused messages, goes
// nowhere. A nil Desk does nothing.
func (d *Desk) failOver(ctx context.Context, tx pgx.Tx, now time.Time, lost []lostMessage) ([]rowKey, error) {
	var keys, asked []rowKey
	for _, m := range lost {
		keys = append(keys, m.rowKey)
		if d != nil && m.route {
			asked = append(asked, m.rowKey)
		}
	}
	if len(asked) == 0 {
		return keys, nil
	}
	ids, ats := split(asked)
	first, last := slices.MinFunc(ats, time.Time.Compare), slices.MaxFunc(ats, time.Time.Compare)
	rows, err := tx.Query(ctx, `
		SELECT d.id, d.at, d.address, d.tried, d.priority FROM unnest($1::bigint[], $2::timestamptz[]) AS l (id, at)
		JOIN delivery.delivery AS d ON d.id = l.id AND d.at = l.at
		LEFT JOIN delivery.address AS a ON a.channel = 'sms' AND a.address = d.address
		WHERE d.at BETWEEN $3 AND $4 AND d.state = 'failed' AND NOT d.recalled AND d.expires_at > $5
		  AND a.opted_out_at IS NULL AND a.suppressed_at IS NULL
		  AND NOT EXISTS (SELECT FROM access.representative AS h WHERE h.phone = d.address AND h.doubt IS NOT NULL)
		ORDER BY d.id`, ids, ats, first, last, now)
	if err != nil {
		return nil, fmt.Errorf("look for another route: %w", err)
	}
	found, err := d.detours(rows, func(string) bool { return true })
	if err != nil {
		return nil, fmt.Errorf("look for another route: %w", err)
	}
	if len(found.ids) == 0 {
		return keys, nil
	}
	if _, err := tx.Exec(ctx, `
		UPDATE delivery.delivery AS d
		SET state = 'queued', settled_at = NULL, operator = m.operator, tried = array_append(d.tried, m.operator)
		FROM unnest($1::bigint[], $2::timestamptz[], $3::text[]) AS m (id, at, operator)
		WHERE d.id = m.id AND d.at = m.at AND d.at BETWEEN $4 AND $5`, found.ids, found.ats, found.operators, first, last); err != nil {
		return nil, fmt.Errorf("take another route: %w", err)
	}
	if _, err := d.river.InsertManyFastTx(ctx, tx, found.params()); err != nil {
		return nil, fmt.Errorf("insert send jobs: %w", err)
	}
	return slices.DeleteFunc(keys, func(k rowKey) bool { return found.moved[k.id] }), nil
}
