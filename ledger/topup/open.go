package topup

import (
	"context"
	"fmt"
	"time"

	"zvonok/ledger/money"
)

// MeasureOpen measures what waits for a person to settle, for the metrics: lines
// of registries that differ, payments in the suspense account, refunds of which
// nobody has said how they ended, and days of the last week for which a bank that
// sends registries has sent none. It is called now and then; what it reads is what
// is open, however much was settled before.
func (e *Endpoints) MeasureOpen(ctx context.Context) error {
	rows, err := e.pool.Query(ctx, `
		WITH line AS (
			SELECT CASE WHEN l.state = 'ledger_only' AND l.hold_until >= ($1::timestamptz AT TIME ZONE p.time_zone)::date
			            THEN 'waiting' ELSE 'disputed' END AS what,
			       abs(l.difference) AS amount, f.received_at AS since
			  FROM topup.registry_line l
			  JOIN topup.registry_file f ON f.id = l.file_id
			  JOIN topup.partner p ON p.id = f.partner_id
			 WHERE l.open
			UNION ALL
			SELECT 'suspense', amount, booked_at FROM topup.payment WHERE state = 'suspense'
			UNION ALL
			SELECT 'refund', amount, decided_at FROM topup.refund WHERE state = 'paid'
			UNION ALL
			SELECT 'no_registry', y.amount, (d.day::timestamp AT TIME ZONE p.time_zone)
			  FROM topup.partner p
			 CROSS JOIN LATERAL (SELECT ($1::timestamptz AT TIME ZONE p.time_zone)::date - n AS day
			                       FROM generate_series($2 + 1, $2 + 7) AS n) AS d
			 CROSS JOIN LATERAL (SELECT coalesce(sum(y.amount), 0)::bigint AS amount
			                       FROM topup.payment y
			                      WHERE y.partner_id = p.id AND y.day = d.day AND y.state <> 'cancelled') AS y
			 WHERE y.amount > 0
			   AND EXISTS (SELECT FROM topup.registry_file f WHERE f.partner_id = p.id)
			   AND NOT EXISTS (SELECT FROM topup.registry_file f
			                    WHERE f.partner_id = p.id AND f.day = d.day AND f.state <> 'replaced')
		)
		SELECT k.what, count(l.what), coalesce(sum(l.amount), 0)::bigint, coalesce(min(l.since), $1)
		  FROM unnest(ARRAY['waiting', 'disputed', 'suspense', 'refund', 'no_registry']) AS k (what)
		  LEFT JOIN line l ON l.what = k.what
		 GROUP BY k.what`, e.now(), holdDays)
	if err != nil {
		return fmt.Errorf("measure what is open: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var what string
		var count int64
		var sum money.Amount
		var oldest time.Time
		if err := rows.Scan(&what, &count, &sum, &oldest); err != nil {
			return fmt.Errorf("measure what is open: %w", err)
		}
		e.metrics.measured(what, count, sum, e.now().Sub(oldest))
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("measure what is open: %w", err)
	}
	return nil
}

func (m *Metrics) measured(what string, count int64, sum money.Amount, oldest time.Duration) {
	if m == nil {
		return
	}
	m.open.WithLabelValues(what).Set(float64(count))
	m.openRoubles.WithLabelValues(what).Set(float64(sum) / float64(money.Rouble))
	m.openOldest.WithLabelValues(what).Set(oldest.Seconds())
}
