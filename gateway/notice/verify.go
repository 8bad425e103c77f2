package notice

import "zvonok/ledger"

// Checks returns the statement that holds thresholds crossed against what became
// of them: the other half of invariant I10. It is given to ledger.Verify.
//
// The queue forgets a job some minutes after it is done, so a job that is done
// proves nothing. What it leaves is the notice, written in the transaction that
// makes the message or says why there is none; until then the job has to wait in
// the queue. Only pupils' parents are told.
func Checks() []ledger.Check {
	return []ledger.Check{{
		Names: []string{"I10"},
		Says: "every crossing has one notice, to the recipient whose threshold it is, or one job that will make it, " +
			"and there is no other notice or job",
		Query: `
			WITH job AS (
				SELECT e.id::bigint AS event_id, count(*) AS jobs,
				       count(*) FILTER (WHERE j.state NOT IN ('completed', 'cancelled', 'discarded')) AS waiting
				  FROM river.river_job j
				 CROSS JOIN LATERAL jsonb_array_elements_text(j.args -> 'event_ids') AS e (id)
				 WHERE j.kind = 'ledger_crossed'
				 GROUP BY e.id
			), told AS (
				SELECT n.event_id, n.event_at, n.child_id, min(n.representative_id) AS first, max(n.representative_id) AS last
				  FROM notice.notice n
				 WHERE n.topic = 'threshold'
				 GROUP BY n.event_id, n.event_at, n.child_id
			), due AS (
				SELECT x.event_id, x.at, x.owner, a.person_id, c.kind
				  FROM ledger.crossing x
				  JOIN ledger.account a ON a.id = x.account_id
				  JOIN ledger.person c ON c.id = a.person_id
			)
			SELECT 'I10', NULL::date, format('the crossing %s has neither a notice nor a job that will make one', d.event_id)
			  FROM due d
			  LEFT JOIN job j ON j.event_id = d.event_id
			  LEFT JOIN told t ON t.event_id = d.event_id AND t.event_at = d.at AND t.child_id = d.person_id
			 WHERE d.kind = 'pupil' AND t.event_id IS NULL AND coalesce(j.waiting, 0) = 0
			UNION ALL
			SELECT 'I10', NULL, format('the crossing %s is announced by %s jobs', j.event_id, j.jobs)
			  FROM job j
			 WHERE j.jobs > 1
			UNION ALL
			SELECT 'I10', NULL, format('a job announces the crossing %s, which is not there', j.event_id)
			  FROM job j
			  LEFT JOIN due d ON d.event_id = j.event_id
			 WHERE d.event_id IS NULL
			UNION ALL
			SELECT 'I10', NULL, CASE WHEN d.event_id IS NULL
			                         THEN format('a notice of %s about person %s tells of the crossing %s, which is not there',
			                                     t.event_at, t.child_id, t.event_id)
			                         ELSE format('the crossing %s of recipient %s is told to recipients %s to %s',
			                                     t.event_id, d.owner, t.first, t.last) END
			  FROM told t
			  LEFT JOIN due d ON d.event_id = t.event_id AND d.at = t.event_at AND d.person_id = t.child_id
			 WHERE d.event_id IS NULL OR t.first <> t.last OR t.first NOT IN (0, d.owner)`,
	}}
}
