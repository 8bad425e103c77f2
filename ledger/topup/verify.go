package topup

import "zvonok/ledger"

// Checks returns the statements that hold payments and registries against the
// book: invariant I13. They are given to ledger.Verify.
//
// A day is the bank's: a payment belongs to the day of the registry that has it,
// and the settlement that the registry leads to belongs to that day too, although
// it is booked on a later one. The equation holds of every day, closed or not.
func Checks() []ledger.Check {
	return []ledger.Check{{
		Names: []string{"I13"},
		Says: "A payment is one posting; each line of a registry is in the state that its payment says; " +
			"what a bank's clearing account holds of a day are that day's open lines and the payments no registry " +
			"has come for, less the refunds of that day that are on their way, and nothing else moves it.",
		Query: `
			WITH booked AS (
				SELECT b.id AS partner_id, p.ext_id, p.event_id, p.amount, p.booking_day, p.credit_id
				  FROM topup.partner b
				  JOIN ledger.posting p ON p.source = 'bank/' || b.name
			), payment AS (
				-- Its day is that of the file that has it or, before all, of the file that
				-- had it not when that was settled; without a file it is its own.
				SELECT y.partner_id, y.txn_id, y.amount, y.state, c.event_id AS claimed, m.event_id AS missed,
				       CASE WHEN m.resolution IN ('written_off', 'reversed') THEN m.day ELSE coalesce(c.day, m.day, y.day) END AS day
				  FROM topup.payment y
				  LEFT JOIN (SELECT l.event_id, f.day
				               FROM topup.registry_line l
				               JOIN topup.registry_file f ON f.id = l.file_id
				              WHERE l.state NOT IN ('duplicate', 'ledger_only', 'replaced')) AS c ON c.event_id = y.event_id
				  LEFT JOIN (SELECT l.event_id, l.resolution, f.day
				               FROM topup.registry_line l
				               JOIN topup.registry_file f ON f.id = l.file_id
				              WHERE l.state = 'ledger_only') AS m ON m.event_id = y.event_id
			), paper AS (
				-- What may move a clearing account, and of which day of the bank's it is.
				SELECT y.partner_id, v.prefix || b.name AS source, y.txn_id AS ext_id, y.day
				  FROM payment y
				  JOIN topup.partner b ON b.id = y.partner_id
				 CROSS JOIN (VALUES ('bank/'), ('cancel/')) AS v (prefix)
				UNION ALL
				SELECT f.partner_id, v.prefix || b.name, f.id::text, f.day
				  FROM topup.registry_file f
				  JOIN topup.partner b ON b.id = f.partner_id
				 CROSS JOIN (VALUES ('registry/'), ('replaced/')) AS v (prefix)
				UNION ALL
				SELECT f.partner_id, v.prefix || b.name, v.kind || l.id, f.day
				  FROM topup.registry_line l
				  JOIN topup.registry_file f ON f.id = l.file_id
				  JOIN topup.partner b ON b.id = f.partner_id
				 CROSS JOIN (VALUES ('resolve/', ''), ('replaced/', 'line-')) AS v (prefix, kind)
				 WHERE l.resolution IN ('written_off', 'posted')
				UNION ALL
				SELECT r.partner_id, v.prefix || b.name, r.id::text, (r.decided_at AT TIME ZONE b.time_zone)::date
				  FROM topup.refund r
				  JOIN topup.partner b ON b.id = r.partner_id
				 CROSS JOIN (VALUES ('refund/'), ('refund-given/'), ('refund-returned/')) AS v (prefix)
				 WHERE r.event_id IS NOT NULL
			), moved AS MATERIALIZED (
				SELECT b.id AS partner_id, b.name, p.id, p.source, p.ext_id, p.booking_day, k.day,
				       CASE WHEN p.debit_id = b.clearing_id THEN p.amount ELSE -p.amount END AS amount
				  FROM topup.partner b
				  JOIN (SELECT p.debit_id AS clearing_id, p.* FROM ledger.posting p WHERE p.debit_ver IS NULL
				        UNION ALL
				        SELECT p.credit_id, p.* FROM ledger.posting p WHERE p.credit_ver IS NULL) AS p
				    ON p.clearing_id = b.clearing_id
				  LEFT JOIN paper k ON k.partner_id = b.id AND k.source = p.source AND k.ext_id = p.ext_id
			)
			SELECT 'I13', k.booking_day,
			       format('the posting %s of partner %s has no payment, or another one', k.ext_id, k.partner_id)
			  FROM booked k
			  LEFT JOIN topup.payment y ON y.partner_id = k.partner_id AND y.txn_id = k.ext_id
			 WHERE y.event_id IS DISTINCT FROM k.event_id OR y.amount IS DISTINCT FROM k.amount
			    OR y.wallet_id IS NOT NULL AND y.wallet_id <> k.credit_id
			UNION ALL
			SELECT 'I13', y.day, format('the payment %s of partner %s is not in the book', y.txn_id, y.partner_id)
			  FROM topup.payment y
			 WHERE NOT EXISTS (SELECT FROM booked k WHERE k.partner_id = y.partner_id AND k.ext_id = y.txn_id)
			UNION ALL
			SELECT 'I13', f.day, format('line %s of file %s is %s, and its payment is not so', l.line, f.id, l.state)
			  FROM topup.registry_line l
			  JOIN topup.registry_file f ON f.id = l.file_id
			  LEFT JOIN topup.payment y ON y.event_id = l.event_id
			 WHERE y.partner_id IS DISTINCT FROM f.partner_id OR y.txn_id <> l.txn_id
			    OR l.state IN ('matched', 'other_day', 'account_differs', 'bank_only') AND (l.difference <> 0 OR y.amount <> l.amount)
			    OR l.state IN ('matched', 'other_day', 'bank_only') AND y.account <> l.account
			    OR l.state = 'account_differs' AND y.account = l.account
			    OR l.state = 'amount_differs' AND l.difference = 0
			    OR l.state = 'matched' AND y.day <> f.day
			    OR l.state = 'bank_only' AND y.origin <> 'registry'
			    OR l.state = 'ledger_only' AND (l.amount <> 0 OR l.difference <> y.amount)
			    OR l.state = 'duplicate' AND l.difference <> -l.amount
			    OR (l.state = 'replaced') <> (f.state = 'replaced')
			    OR l.open AND l.state IN ('matched', 'bank_only')
			    OR NOT l.open AND l.resolution IS NULL AND l.state IN ('amount_differs', 'account_differs', 'ledger_only', 'duplicate')
			UNION ALL
			SELECT 'I13', f.day, format('file %s says %s lines of %s, has %s of %s and settled %s', f.id, f.lines, f.total,
			                            l.lines, l.total, coalesce(p.amount, 0))
			  FROM topup.registry_file f
			  CROSS JOIN LATERAL (SELECT count(l.line) AS lines, coalesce(sum(l.amount), 0)::bigint AS total, count(*) FILTER (WHERE l.open) AS open
			                        FROM topup.registry_line l WHERE l.file_id = f.id) AS l
			  LEFT JOIN ledger.posting p ON p.event_id = f.event_id
			 WHERE l.lines <> f.lines OR l.total <> f.total OR coalesce(p.amount, 0) <> f.total
			    OR f.state = 'parsed' OR f.state <> 'replaced' AND (f.state = 'closed') <> (l.open = 0)
			UNION ALL
			SELECT 'I13', p.booking_day, format('posting %s (%s of %s) moves the clearing account of partner %s, and none of its papers says so',
			                                    p.id, p.ext_id, p.source, p.partner_id)
			  FROM moved p
			 WHERE p.day IS NULL
			UNION ALL
			SELECT 'I13', coalesce(c.day, o.day),
			       format('the clearing account of partner %s holds %s of this day, its open lines, payments without a line and refunds are %s',
			              coalesce(c.partner_id, o.partner_id), coalesce(c.holds, 0), coalesce(o.open, 0))
			  FROM (SELECT partner_id, day, sum(amount) AS holds FROM moved WHERE day IS NOT NULL GROUP BY partner_id, day) AS c
			  FULL JOIN (SELECT u.partner_id, u.day, sum(u.amount) AS open
			               FROM (SELECT f.partner_id, f.day, l.difference AS amount
			                       FROM topup.registry_line l
			                       JOIN topup.registry_file f ON f.id = l.file_id
			                      WHERE l.open
			                     UNION ALL
			                     SELECT y.partner_id, y.day, y.amount
			                       FROM payment y
			                      WHERE y.state <> 'cancelled' AND y.claimed IS NULL AND y.missed IS NULL
			                     UNION ALL
			                     SELECT r.partner_id, (r.decided_at AT TIME ZONE b.time_zone)::date, -r.amount
			                       FROM topup.refund r
			                       JOIN topup.partner b ON b.id = r.partner_id
			                      WHERE r.state = 'paid') AS u
			              GROUP BY u.partner_id, u.day) AS o
			    ON o.partner_id = c.partner_id AND o.day = c.day
			 WHERE coalesce(c.holds, 0) <> coalesce(o.open, 0)`,
	}}
}
