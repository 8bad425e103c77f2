package ledger

// walletLegs are the movements of wallets, from both sides of the postings.
const walletLegs = `
	SELECT p.debit_id AS account_id, -p.amount AS delta, p.debit_after AS after, p.debit_ver AS ver, p.id,
	       p.booking_day, p.forced
	  FROM ledger.posting p
	 WHERE p.debit_ver IS NOT NULL
	UNION ALL
	SELECT p.credit_id, p.amount, p.credit_after, p.credit_ver, p.id, p.booking_day, false
	  FROM ledger.posting p
	 WHERE p.credit_ver IS NOT NULL`

// systemLegs are those of all other accounts.
const systemLegs = `
	SELECT p.debit_id AS account_id, p.amount AS debit, 0::bigint AS credit, p.booking_day, p.xid
	  FROM ledger.posting p
	 WHERE p.debit_ver IS NULL
	UNION ALL
	SELECT p.credit_id, 0, p.amount, p.booking_day, p.xid
	  FROM ledger.posting p
	 WHERE p.credit_ver IS NULL`

// invariants are the checks of the book itself. Each reads the tables once or
// twice in whatever order is fastest. Where that cannot tell which row is wrong,
// it compares sums or exclusive ors of hashes first, which needs neither sorting
// nor large joins, and looks closer only at what differs.
var invariants = []Check{
	{
		Names: []string{"I1"},
		Says:  "what wallets hold and what all other accounts hold is zero together",
		Query: `
			WITH other AS (
				SELECT coalesce(sum(s.credit - s.debit), 0) AS total
				  FROM (SELECT debit, credit FROM ledger.fold
				        UNION ALL
				        SELECT debit, credit FROM (` + systemLegs + `) AS l
				         WHERE l.xid >= (SELECT watermark FROM ledger.fold_mark)) AS s
			), wallet AS (
				SELECT coalesce(sum(posted), 0) AS total FROM ledger.balance
			)
			SELECT 'I1', NULL::date, format('wallets hold %s kopecks, all other accounts %s', w.total, o.total)
			  FROM wallet w, other o
			 WHERE w.total + o.total <> 0`,
	},
	{
		Names: []string{"I2", "I3"},
		Says: "a wallet holds what its postings make; its movements are numbered without gaps and " +
			"each balance follows from the one before",
		// The links (number, balance) of a sound chain cancel out but for its
		// first and last one.
		Query: `
			WITH made AS (
				SELECT l.account_id, sum(l.delta) AS total, count(*) AS moves,
				       bit_xor(hashint8extended(l.after, l.ver) # hashint8extended(l.after - l.delta, l.ver - 1)) AS chain
				  FROM (` + walletLegs + `) AS l
				 GROUP BY l.account_id
			), suspect AS MATERIALIZED (
				SELECT coalesce(b.account_id, m.account_id) AS account_id, b.posted, b.ver,
				       coalesce(m.total, 0) AS total, coalesce(m.moves, 0) AS moves
				  FROM ledger.balance b
				  FULL JOIN made m ON m.account_id = b.account_id
				 WHERE b.posted IS DISTINCT FROM coalesce(m.total, 0)
				    OR b.ver IS DISTINCT FROM coalesce(m.moves, 0)
				    OR coalesce(m.chain, 0) <> hashint8extended(0, 0) # hashint8extended(b.posted, b.ver)
			)
			SELECT 'I2', NULL::date, format('wallet %s holds %s kopecks, its postings make %s', s.account_id,
			                                coalesce(s.posted::text, 'no row and'), s.total)
			  FROM suspect s
			 WHERE s.posted IS DISTINCT FROM s.total
			UNION ALL
			SELECT 'I3', l.booking_day,
			       format('posting %s moves wallet %s by %s to %s as movement %s, after movement %s that left %s',
			              l.id, s.account_id, l.delta, l.after, l.ver, l.ver_before, l.before)
			  FROM suspect s
			 CROSS JOIN LATERAL (
				SELECT m.*, lag(m.after, 1, 0::bigint) OVER w AS before, lag(m.ver, 1, 0) OVER w AS ver_before
				  FROM (SELECT p.id, p.booking_day, -p.amount AS delta, p.debit_after AS after, p.debit_ver AS ver
				          FROM ledger.posting p
				         WHERE p.debit_id = s.account_id AND p.debit_ver IS NOT NULL
				        UNION ALL
				        SELECT p.id, p.booking_day, p.amount, p.credit_after, p.credit_ver
				          FROM ledger.posting p
				         WHERE p.credit_id = s.account_id AND p.credit_ver IS NOT NULL) AS m
				WINDOW w AS (ORDER BY m.ver, m.id)) AS l
			 WHERE l.ver <> l.ver_before + 1 OR l.after <> l.before + l.delta
			UNION ALL
			SELECT 'I3', NULL, format('wallet %s has counted %s movements, its postings are %s', s.account_id, s.ver, s.moves)
			  FROM suspect s
			 WHERE s.ver IS DISTINCT FROM s.moves`,
	},
	{
		Names: []string{"I4"},
		Says: "no wallet is below its floor, and no floor is below the policy's without a forced posting " +
			"or a change of policy",
		Query: `
			SELECT 'I4', NULL::date, format('wallet %s holds %s with floor %s and policy floor %s',
			                                b.account_id, b.posted, b.floor, b.policy_floor)
			  FROM ledger.balance b
			 WHERE b.posted < b.floor OR b.floor > b.policy_floor
			UNION ALL
			SELECT 'I4', NULL, format('wallet %s has floor %s below its policy floor %s, and nothing forced it',
			                          b.account_id, b.floor, b.policy_floor)
			  FROM ledger.balance b
			  LEFT JOIN LATERAL (
				SELECT coalesce(max(m.ver), 0) AS ver
				  FROM (SELECT p.debit_ver AS ver FROM ledger.posting p
				         WHERE p.debit_id = b.account_id AND p.debit_ver IS NOT NULL AND p.debit_after >= b.policy_floor
				        UNION ALL
				        SELECT p.credit_ver FROM ledger.posting p
				         WHERE p.credit_id = b.account_id AND p.credit_ver IS NOT NULL AND p.credit_after >= b.policy_floor) AS m
			  ) AS sound ON true
			 WHERE b.floor < b.policy_floor
			   AND NOT EXISTS (SELECT FROM ledger.posting p
			                    WHERE p.debit_id = b.account_id AND p.debit_ver > sound.ver AND p.forced)
			   AND NOT EXISTS (SELECT FROM ledger.floor_change f
			                    WHERE f.account_id = b.account_id AND f.ver >= sound.ver)`,
	},
	{
		Names: []string{"I5"},
		Says:  "every posting has its id, every id its posting, refusal or tombstone, and what was asked",
		Query: `
			WITH booked AS (
				SELECT count(*) AS n, bit_xor(hashtextextended(concat_ws(chr(31), p.source, p.ext_id, p.booking_day, p.id,
				       ledger.body_of(p.kind, p.debit_id, p.credit_id, p.amount, p.subject_id, p.reverses_id)), 0)) AS mix
				  FROM ledger.posting p
			), taken AS (
				SELECT count(*) AS n, bit_xor(hashtextextended(concat_ws(chr(31), k.source, k.ext_id, k.booking_day, k.posting_id,
				       k.body), 0)) AS mix
				  FROM ledger.idem k
				 WHERE k.posting_id IS NOT NULL
				   AND NOT EXISTS (SELECT FROM ledger.refusal f WHERE f.posting_id = k.posting_id)
			), doubt AS MATERIALIZED (
				SELECT 1 FROM booked b, taken t WHERE (b.n, b.mix) IS DISTINCT FROM (t.n, t.mix)
			)
			SELECT 'I5', coalesce(p.booking_day, k.booking_day),
			       CASE WHEN p.id IS NULL THEN format('the id %s of %s is taken by posting %s, which is not there',
			                                          k.ext_id, k.source, k.posting_id)
			            WHEN k.posting_id IS NULL THEN format('posting %s (%s of %s) has no id', p.id, p.ext_id, p.source)
			            ELSE format('posting %s (%s of %s) is not what was asked under its id', p.id, p.ext_id, p.source) END
			  FROM doubt
			 CROSS JOIN (ledger.posting p
			       FULL JOIN (SELECT * FROM ledger.idem k
			                   WHERE k.posting_id IS NOT NULL
			                     AND NOT EXISTS (SELECT FROM ledger.refusal f WHERE f.posting_id = k.posting_id)) AS k
			         ON k.posting_id = p.id AND k.booking_day = p.booking_day)
			 WHERE p.id IS NULL OR k.posting_id IS NULL
			    OR (k.source, k.ext_id) <> (p.source, p.ext_id)
			    OR k.body <> ledger.body_of(p.kind, p.debit_id, p.credit_id, p.amount, p.subject_id, p.reverses_id)`,
	},
	{
		Names: []string{"I6", "I7"},
		Says: "top-ups are within their limits; each kind goes between the accounts it may; " +
			"a subsidised meal touches no wallet",
		Query: `
			SELECT CASE WHEN p.kind = 'topup' AND p.amount NOT BETWEEN 1000 AND 1500000 THEN 'I6' ELSE 'I7' END, p.booking_day,
			       format('posting %s: %s of %s kopecks from %s %s to %s %s%s', p.id, p.kind, p.amount,
			              coalesce(p.debit_kind, 'no account'), p.debit_id, coalesce(p.credit_kind, 'no account'), p.credit_id,
			              CASE WHEN p.forced THEN ', forced' END)
			  FROM (SELECT p.*, CASE WHEN p.debit_id >= 1000000 THEN 'wallet' ELSE d.kind END AS debit_kind,
			               CASE WHEN p.credit_id >= 1000000 THEN 'wallet' ELSE c.kind END AS credit_kind
			          FROM ledger.posting p
			          LEFT JOIN ledger.account d ON d.id = p.debit_id AND d.id < 1000000
			          LEFT JOIN ledger.account c ON c.id = p.credit_id AND c.id < 1000000) AS p
			  LEFT JOIN ledger.posting_rule r
			    ON r.kind = p.kind AND r.debit_kind = p.debit_kind AND r.credit_kind = p.credit_kind
			 WHERE (p.kind = 'topup' AND p.amount NOT BETWEEN 1000 AND 1500000)
			    OR (p.kind <> 'reversal' AND (r.kind IS NULL OR (p.forced AND NOT r.may_force)))
			    OR (p.kind = 'subsidised' AND (p.debit_id >= 1000000 OR p.credit_id >= 1000000))
			    OR (p.debit_ver IS NULL) <> (p.debit_id < 1000000)
			    OR (p.credit_ver IS NULL) <> (p.credit_id < 1000000)
			UNION ALL
			SELECT 'I7', p.booking_day, format('posting %s reverses %s and does not go back between its accounts',
			                                   p.id, p.reverses_id)
			  FROM ledger.posting p
			  LEFT JOIN ledger.posting o ON o.id = p.reverses_id
			 WHERE p.kind = 'reversal'
			   AND (o.id IS NULL OR (o.debit_id, o.credit_id) <> (p.credit_id, p.debit_id))`,
	},
	{
		Names: []string{"I8"},
		Says:  "no more is reversed than was posted, and no reversal is reversed",
		Query: `
			WITH back AS (
				SELECT p.reverses_id, sum(p.amount) AS amount
				  FROM ledger.posting p
				 WHERE p.kind = 'reversal'
				 GROUP BY p.reverses_id
			)
			SELECT 'I8', o.booking_day, format('posting %s of %s kopecks (%s): reversals make %s, noted are %s',
			                                   coalesce(b.reverses_id, x.posting_id), o.amount, o.kind,
			                                   coalesce(b.amount, 0), x.reversed)
			  FROM back b
			  FULL JOIN ledger.reversed x ON x.posting_id = b.reverses_id
			  LEFT JOIN ledger.posting o ON o.id = coalesce(b.reverses_id, x.posting_id)
			 WHERE coalesce(b.amount, 0) > o.amount OR o.kind = 'reversal'
			    OR x.reversed IS DISTINCT FROM coalesce(b.amount, 0) OR x.amount <> o.amount`,
	},
	{
		Names: []string{"I9"},
		Says:  "what a wallet holds aside is the sum of its open holds",
		Query: `
			SELECT 'I9', NULL::date, format('wallet %s has %s kopecks held, its open holds make %s',
			                                coalesce(b.account_id, h.account_id), b.held, coalesce(h.amount, 0))
			  FROM (SELECT account_id, held FROM ledger.balance WHERE held <> 0) AS b
			  FULL JOIN (SELECT account_id, sum(amount) AS amount FROM ledger.hold WHERE state = 'open' GROUP BY account_id) AS h
			    ON h.account_id = b.account_id
			 WHERE b.held IS DISTINCT FROM h.amount OR b.held < 0`,
	},
	{
		Names: []string{"I10"},
		Says:  "every crossing of a threshold, computed anew from the balances, is there once, and no other is",
		Query: `
			WITH due AS (
				SELECT l.account_id, t.owner, t.upward, t.amount, l.ver, l.after, l.id, l.booking_day
				  FROM (` + walletLegs + `) AS l
				  JOIN (SELECT account_id, owner, upward, amount, since_ver, 2147483647 AS until_ver FROM ledger.threshold
				        UNION ALL
				        SELECT account_id, owner, upward, amount, since_ver, until_ver FROM ledger.threshold_past) AS t
				    ON t.account_id = l.account_id AND l.ver > t.since_ver AND l.ver <= t.until_ver
				 WHERE ledger.crossed(t.upward, t.amount, l.after - l.delta, l.after)
			)
			SELECT 'I10', d.booking_day,
			       format('wallet %s, recipient %s, movement %s: %s', coalesce(d.account_id, x.account_id),
			              coalesce(d.owner, x.owner), coalesce(d.ver, x.ver),
			              CASE WHEN x.account_id IS NULL
			                   THEN format('posting %s crossed %s and no crossing says so', d.id, d.amount)
			                   WHEN d.account_id IS NULL
			                   THEN format('the crossing %s says a threshold was crossed that was not', x.event_id)
			                   ELSE format('the crossing %s says other numbers than posting %s', x.event_id, d.id) END)
			  FROM due d
			  FULL JOIN (SELECT * FROM ledger.crossing WHERE posting_id IS NOT NULL) AS x
			    ON x.account_id = d.account_id AND x.owner = d.owner AND x.upward = d.upward AND x.ver = d.ver
			 WHERE d.account_id IS NULL OR x.account_id IS NULL
			    OR (x.threshold, x.balance, x.posting_id) <> (d.amount, d.after, d.id)
			UNION ALL
			SELECT 'I10', NULL, format('the crossing %s of wallet %s, found when a threshold was set, was none',
			                           x.event_id, x.account_id)
			  FROM ledger.crossing x
			  LEFT JOIN LATERAL (
				SELECT p.debit_after AS after FROM ledger.posting p
				 WHERE p.debit_id = x.account_id AND p.debit_ver = x.ver AND p.debit_ver IS NOT NULL
				UNION ALL
				SELECT p.credit_after FROM ledger.posting p
				 WHERE p.credit_id = x.account_id AND p.credit_ver = x.ver AND p.credit_ver IS NOT NULL) AS l ON true
			 WHERE x.posting_id IS NULL
			   AND (coalesce(l.after, 0) <> x.balance
			        OR CASE WHEN x.upward THEN x.balance <= x.threshold ELSE x.balance >= x.threshold END)`,
	},
	{
		Names: []string{"I11"},
		Says:  "nothing was booked on a day after it was closed, and its count, sum, leaves and seal compute anew",
		Query: `
			WITH sealed AS (
				SELECT d.*, lag(d.seal) OVER (ORDER BY d.day) AS seal_before FROM ledger.day d
			), made AS (
				SELECT p.booking_day AS day, p.leaf, count(*) AS n, sum(p.amount) AS amount, count(p.late_from) AS late,
				       sha256(string_agg(p.digest, ''::bytea)) AS digest
				  FROM (SELECT p.booking_day, p.id / 1024 AS leaf, p.amount, p.late_from, ledger.posting_digest(p) AS digest
				          FROM ledger.posting p
				         WHERE p.booking_day <= (SELECT max(day) FROM ledger.day WHERE seal IS NOT NULL)
				         ORDER BY p.booking_day, leaf, p.id) AS p
				 GROUP BY p.booking_day, p.leaf
			), changed AS MATERIALIZED (
				SELECT coalesce(m.day, l.day) AS day, coalesce(m.leaf, l.leaf) AS leaf, coalesce(m.n, 0) AS n, l.marks
				  FROM made m
				  FULL JOIN ledger.day_leaf l ON l.day = m.day AND l.leaf = m.leaf
				 WHERE m.digest IS DISTINCT FROM l.digest
			)
			SELECT 'I11', p.booking_day, format('posting %s was booked on this day after it was closed', p.id)
			  FROM ledger.posting p
			 CROSS JOIN ledger.gate g
			  LEFT JOIN ledger.day d ON d.day = p.booking_day
			 WHERE p.booking_day <= g.closed_through AND (d.day IS NULL OR p.xid >= d.closing_xid)
			UNION ALL
			SELECT 'I11', c.day, format('posting %s is not what was sealed', r.id)
			  FROM changed c
			 CROSS JOIN LATERAL (
				SELECT p.id, substring(ledger.posting_digest(p) FOR 4) AS mark
				  FROM ledger.posting p
				 WHERE p.booking_day = c.day AND p.id >= c.leaf * 1024 AND p.id < (c.leaf + 1) * 1024) AS r
			 WHERE NOT EXISTS (SELECT FROM generate_series(0, length(c.marks) / 4 - 1) AS i
			                    WHERE substring(c.marks FROM i * 4 + 1 FOR 4) = r.mark)
			UNION ALL
			SELECT 'I11', c.day, format('of the postings %s to %s, %s were sealed and %s are there',
			                            c.leaf * 1024, c.leaf * 1024 + 1023, coalesce(length(c.marks), 0) / 4, c.n)
			  FROM changed c
			 WHERE coalesce(length(c.marks), 0) / 4 <> c.n
			UNION ALL
			SELECT 'I11', d.day, format('%s postings of %s kopecks, %s of them late, were sealed; there are %s of %s, %s late',
			                            d.postings, d.amount, d.late,
			                            coalesce(t.n, 0), coalesce(t.amount, 0), coalesce(t.late, 0))
			  FROM ledger.day d
			  LEFT JOIN (SELECT day, sum(n) AS n, sum(amount) AS amount, sum(late) AS late FROM made GROUP BY day) AS t
			    ON t.day = d.day
			 WHERE d.seal IS NOT NULL
			   AND (d.postings, d.amount, d.late) <> (coalesce(t.n, 0), coalesce(t.amount, 0), coalesce(t.late, 0))
			UNION ALL
			SELECT 'I11', s.day, 'the seal does not follow from the seal before and the leaves'
			  FROM sealed s
			 WHERE s.seal IS NOT NULL
			   AND s.seal <> ledger.seal_over(s.seal_before, s.day,
			                                  (SELECT string_agg(l.digest, ''::bytea ORDER BY l.leaf)
			                                     FROM ledger.day_leaf l WHERE l.day = s.day))`,
	},
	{
		Names: []string{"I12"},
		Says:  "opening, turnover and closing of each account and closed day agree with each other and with the postings",
		Query: `
			WITH chain AS (
				SELECT a.*, lag(a.closing, 1, 0::bigint) OVER (PARTITION BY a.account_id ORDER BY a.day) AS before
				  FROM ledger.day_account a
			), noted AS (
				SELECT account_id, sum(debit) AS debit, sum(credit) AS credit, sum(postings) AS n
				  FROM ledger.day_account
				 GROUP BY account_id
			), booked AS (
				SELECT l.account_id, sum(l.debit) AS debit, sum(l.credit) AS credit, count(*) AS n
				  FROM (SELECT p.debit_id AS account_id, p.booking_day, p.amount AS debit, 0::bigint AS credit FROM ledger.posting p
				        UNION ALL
				        SELECT p.credit_id, p.booking_day, 0, p.amount FROM ledger.posting p) AS l
				 WHERE l.booking_day <= (SELECT max(day) FROM ledger.day WHERE seal IS NOT NULL)
				 GROUP BY l.account_id
			)
			SELECT 'I12', c.day, format('account %s: opening %s after closing %s, debit %s, credit %s, closing %s', c.account_id,
			                            c.opening, c.before, c.debit, c.credit, c.closing)
			  FROM chain c
			 WHERE c.opening <> c.before OR c.closing <> c.opening + c.credit - c.debit
			UNION ALL
			SELECT 'I12', NULL, format('account %s: turnovers of closed days make debit %s, credit %s, its postings %s, %s',
			                           coalesce(n.account_id, b.account_id), n.debit, n.credit, b.debit, b.credit)
			  FROM noted n
			  FULL JOIN booked b ON b.account_id = n.account_id
			 WHERE (n.debit, n.credit, n.n) IS DISTINCT FROM (b.debit, b.credit, b.n)`,
	},
	{
		Names: []string{"I15"},
		Says:  "the folded totals are what a full count below their watermark makes",
		Query: `
			SELECT 'I15', coalesce(f.booking_day, m.booking_day),
			       format('account %s is folded to debit %s, credit %s, its postings make %s, %s',
			              coalesce(f.account_id, m.account_id), f.debit, f.credit, m.debit, m.credit)
			  FROM ledger.fold f
			  FULL JOIN (SELECT l.account_id, l.booking_day, sum(l.debit) AS debit, sum(l.credit) AS credit, count(*) AS postings
			               FROM (` + systemLegs + `) AS l
			              WHERE l.xid < (SELECT watermark FROM ledger.fold_mark)
			              GROUP BY l.account_id, l.booking_day) AS m
			    ON m.account_id = f.account_id AND m.booking_day = f.booking_day
			 WHERE (f.debit, f.credit, f.postings) IS DISTINCT FROM (m.debit, m.credit, m.postings)`,
	},
	{
		Names: []string{"I16"},
		Says:  "the application's role can neither add, change nor remove postings, on any partition",
		Query: `
			SELECT 'I16', NULL::date, format('the application''s role may %s %s', r.privilege, t.relid)
			  FROM (SELECT relid FROM pg_partition_tree('ledger.posting')
			        UNION ALL
			        SELECT unnest(ARRAY['ledger.idem', 'ledger.balance', 'ledger.day', 'ledger.day_leaf',
			                            'ledger.crossing']::regclass[])) AS t
			 CROSS JOIN unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) AS r (privilege)
			 WHERE has_table_privilege('zvonok_app', t.relid, r.privilege)
			UNION ALL
			SELECT 'I16', NULL, format('the trigger that guards %s is missing or disabled', t.relid)
			  FROM pg_partition_tree('ledger.posting') AS t
			 WHERE NOT EXISTS (SELECT FROM pg_trigger g
			                    WHERE g.tgrelid = t.relid AND g.tgname = 'append_only' AND g.tgenabled = 'O')`,
	},
	{
		Names: []string{"I17"},
		Says:  "all postings of an event were booked by one transaction",
		Query: `
			WITH torn AS MATERIALIZED (
				SELECT p.event_id FROM ledger.posting p GROUP BY p.event_id HAVING min(p.xid) <> max(p.xid)
			)
			SELECT 'I17', min(p.booking_day), format('the postings %s of event %s were booked by %s transactions',
			                                         string_agg(p.id::text, ', ' ORDER BY p.id), p.event_id, count(DISTINCT p.xid))
			  FROM ledger.posting p
			 WHERE p.event_id = ANY (ARRAY(SELECT t.event_id FROM torn t))
			 GROUP BY p.event_id`,
	},
}
