package topup

import "zvonok/ledger"

// Checks returns the statements that hold payments and registries against the
// book: invariant I13. They are given to ledger.Verify.
func Checks() []ledger.Check {
	return []ledger.Check{{
		Names: []string{"I13"},
		Says: "A payment is one posting; each line of a registry is in the state that its payment says; " +
			"a bank's clearing account holds exactly what is not settled.",
		Query: `
			WITH booked AS (
				SELECT b.id AS partner_id, p.ext_id, p.event_id, p.amount, p.booking_day, p.credit_id
				  FROM topup.partner b
				  JOIN ledger.posting p ON p.source = 'bank/' || b.name
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
			UNION ALL
			SELECT 'I13', f.day, format('file %s says %s lines of %s, has %s of %s and settled %s', f.id, f.lines, f.total,
			                            l.lines, l.total, coalesce(p.amount, 0))
			  FROM topup.registry_file f
			  CROSS JOIN LATERAL (SELECT count(l.line) AS lines, coalesce(sum(l.amount), 0)::bigint AS total, count(*) FILTER (WHERE l.open) AS open
			                        FROM topup.registry_line l WHERE l.file_id = f.id) AS l
			  LEFT JOIN ledger.posting p ON p.event_id = f.event_id
			 WHERE l.lines <> f.lines OR l.total <> f.total OR coalesce(p.amount, 0) <> f.total
			    OR f.state = 'parsed' OR (f.state = 'closed') <> (l.open = 0)
			UNION ALL
			SELECT 'I13', NULL::date, format('the clearing account of partner %s holds %s and should hold %s', b.id, c.holds, y.paid - f.settled)
			  FROM topup.partner b
			  CROSS JOIN LATERAL (SELECT coalesce(sum(CASE WHEN p.debit_id = b.clearing_id THEN p.amount ELSE -p.amount END), 0)::bigint AS holds
			                        FROM ledger.posting p
			                       WHERE b.clearing_id IN (p.debit_id, p.credit_id)
			                         AND p.source IN ('bank/' || b.name, 'cancel/' || b.name, 'registry/' || b.name)) AS c
			  CROSS JOIN LATERAL (SELECT coalesce(sum(y.amount), 0)::bigint AS paid
			                        FROM topup.payment y WHERE y.partner_id = b.id AND y.state <> 'cancelled') AS y
			  CROSS JOIN LATERAL (SELECT coalesce(sum(f.total), 0)::bigint AS settled
			                        FROM topup.registry_file f WHERE f.partner_id = b.id) AS f
			 WHERE c.holds <> y.paid - f.settled`,
	}}
}
