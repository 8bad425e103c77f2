package delivery

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"zvonok/gateway/carrier"
	"zvonok/ledger/pg"
)

// Limits of receipts.
const (
	orphanLife  = 72 * time.Hour     // a receipt waits this long for its message (smpp.md, Receipts)
	proofWait   = 24 * time.Hour     // after a receipt that settles nothing: then a message has no proof (smpp.md, Receipts)
	doubtsSwept = 1000               // messages closed without a proof in one transaction
	partsWindow = 8 * 24 * time.Hour // operators reuse ids: a receipt is for a message of the last days

	promptly = 60 * time.Second // delivered within this time speaks for a route (issue 3, evidence)

	keySeparator = "\x1f" // joins the keys of one receipt in an array parameter; no key contains it
)

// Receipts stores receipts and settles the messages they are for. It is the
// carrier's callback: the operator is acknowledged only after it returned nil.
type Receipts struct{ config ReceiptsConfig }

// ReceiptsConfig is what Receipts needs.
type ReceiptsConfig struct {
	Pool    *pgxpool.Pool
	Desk    *Desk // sends by the next channel what a receipt says was lost; nil: nothing does
	Metrics *Metrics
	Now     func() time.Time
	// Learn hears the id of a part and that of its receipt (carrier.Exchange.Learn).
	Learn func(operator, submitted, receipted string)
	// Delivered hears of each part with a final receipt whether it was delivered
	// soon enough to speak for the operator's route to this address.
	Delivered func(operator, address string, within bool)
}

// NewReceipts returns the receipts' side of the package.
func NewReceipts(c ReceiptsConfig) *Receipts { return &Receipts{c} }

// Store writes a batch of receipts into the inbox and settles the parts and
// deliveries they match, in one transaction. Receipts that match nothing wait
// as orphans for the other side.
func (r *Receipts) Store(ctx context.Context, receipts []carrier.Receipt) error {
	if len(receipts) == 0 {
		return nil
	}
	now := r.config.Now()
	settled, err := r.store(ctx, receipts, now)
	if err != nil {
		return err
	}
	r.tell(settled, now)
	return nil
}

// store is Store for what teaches nothing of receipts, and returns what settled
// a part.
func (r *Receipts) store(ctx context.Context, receipts []carrier.Receipt, now time.Time) (settled []match, err error) {
	err = pgx.BeginTxFunc(ctx, r.config.Pool, pg.PlannedOnce, func(tx pgx.Tx) error {
		ids, err := insertReceipts(ctx, tx, now, receipts)
		if err != nil {
			return err
		}
		matches, err := matchReceipts(ctx, tx, now, receipts, ids)
		if err != nil {
			return err
		}
		var lost []lostMessage
		if settled, lost, err = applyMatches(ctx, tx, now, matches); err != nil {
			return err
		}
		if err := r.config.Desk.heedRefusals(ctx, tx, settled, now); err != nil {
			return err
		}
		left, err := r.config.Desk.failOver(ctx, tx, now, lost)
		if err != nil {
			return err
		}
		if err := r.config.Desk.fallBack(ctx, tx, now, left); err != nil {
			return err
		}
		return storeOrphans(ctx, tx, now, receipts, ids, matches)
	})
	if err != nil {
		return nil, fmt.Errorf("store receipts: %w", err)
	}
	return settled, nil
}

// tell lets the carrier learn from receipts that found their part.
func (r *Receipts) tell(settled []match, now time.Time) {
	for _, m := range settled {
		r.config.Metrics.receipt(m.operator, m.state)
		r.config.Learn(m.operator, m.submitted, m.messageID)
		// One that comes later has been counted as missing.
		if m.final && now.Sub(m.submittedAt) < ReceiptPatience {
			r.config.Delivered(m.operator, m.address, m.state == partDelivered && m.doneAt.Sub(m.submittedAt) <= promptly)
		}
	}
}

// The states of a part that receipts lead to.
const (
	partRefused     = "refused"  // by the operator's answer, not by a receipt
	partAccepted    = "accepted" // or written and never answered
	partEnroute     = "enroute"
	partUnknown     = "unknown" // to the operator
	partDelivered   = "delivered"
	partUndelivered = "undelivered"
	partExpired     = "expired"
	partDeleted     = "deleted"
	partRejected    = "rejected"
)

// partState translates a receipt's state; final says that nothing follows it.
func partState(s carrier.ReceiptState) (state string, final bool) {
	switch s {
	case carrier.StateDelivered:
		return partDelivered, true
	case carrier.StateExpired:
		return partExpired, true
	case carrier.StateDeleted:
		return partDeleted, true
	case carrier.StateUndeliverable:
		return partUndelivered, true
	case carrier.StateRejected:
		return partRejected, true
	case carrier.StateUnknown:
		return partUnknown, false // it proves nothing either way
	default: // enroute, accepted, scheduled
		return partEnroute, false
	}
}

// match is a receipt with the part it is for.
type match struct {
	index       int // of the receipt in its batch
	receiptID   int64
	operator    string
	messageID   string // of the receipt
	submitted   string // of the part, as the operator gave it
	address     string
	state       string
	final       bool
	route       bool // it speaks of the route, not of the phone
	err         string
	doneAt      time.Time
	deliveryID  int64
	deliveryAt  time.Time
	attempt     int16
	number      int16
	submittedAt time.Time
	had         string
}

// lostMessage is a delivery that failed by receipts.
type lostMessage struct {
	rowKey
	route bool // all of it by the route's fault, so that another operator may have it
}

// speaksOfRoute says that a receipt's error is the route's. What an operator
// has deleted was somebody's will.
func speaksOfRoute(r carrier.Receipt) bool {
	return r.Class == carrier.PermanentRoute && (r.State == carrier.StateUndeliverable || r.State == carrier.StateRejected)
}

func insertReceipts(ctx context.Context, tx pgx.Tx, now time.Time, receipts []carrier.Receipt) ([]int64, error) {
	n := len(receipts)
	operators, messages, addresses, states := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	errs, raws := make([]string, n), make([]string, n)
	submits, dones := make([]*time.Time, n), make([]*time.Time, n)
	for i, receipt := range receipts {
		operators[i], messages[i], addresses[i] = receipt.Operator, clean(receipt.MessageID), string(receipt.To)
		states[i], errs[i], raws[i] = string(receipt.State), clean(receipt.NetworkError), clean(receipt.Raw)
		submits[i], dones[i] = optional(receipt.SubmitAt), optional(receipt.DoneAt)
	}
	// The ids are drawn in the order of the batch, then the rows are inserted.
	rows, err := tx.Query(ctx, `
		WITH incoming AS MATERIALIZED (
			SELECT nextval(pg_get_serial_sequence('delivery.receipt', 'id')) AS id, r.*
			FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[], $8::timestamptz[],
				$9::text[]) WITH ORDINALITY
				AS r (operator, message_id, address, state, error, submit_at, done_at, raw, n)
		), stored AS (
			INSERT INTO delivery.receipt (id, received_at, operator, message_id, address, state, error, submit_at, done_at, raw)
			SELECT id, $1, operator, message_id, address, state, error, submit_at, done_at, raw FROM incoming
		)
		SELECT id FROM incoming ORDER BY n`,
		now, operators, messages, addresses, states, errs, submits, dones, raws)
	if err != nil {
		return nil, fmt.Errorf("insert receipts: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, fmt.Errorf("insert receipts: %w", err)
	}
	return ids, nil
}

// matchReceipts finds the part of each receipt by operator account and
// canonical key, the receipt's best key first, the youngest part first.
func matchReceipts(ctx context.Context, tx pgx.Tx, now time.Time, receipts []carrier.Receipt, ids []int64) ([]match, error) {
	var (
		indexes, ranks  []int32
		operators, keys []string
	)
	for i, receipt := range receipts {
		for rank, key := range receipt.Keys {
			indexes = append(indexes, int32(i))
			ranks = append(ranks, int32(rank))
			operators = append(operators, receipt.Operator)
			keys = append(keys, clean(key))
		}
	}
	rows, err := tx.Query(ctx, `
		SELECT DISTINCT ON (k.index) k.index, p.delivery_id, p.delivery_at, p.attempt, p.number, p.submitted_at,
			p.state, p.message_id
		FROM unnest($1::int[], $2::int[], $3::text[], $4::text[]) AS k (index, rank, operator, key)
		JOIN delivery.part AS p ON p.operator = k.operator AND p.message_key = k.key
			AND p.message_key <> '' AND p.submitted_at > $5
		ORDER BY k.index, k.rank, p.submitted_at DESC`,
		indexes, ranks, operators, keys, now.Add(-partsWindow))
	if err != nil {
		return nil, fmt.Errorf("match receipts: %w", err)
	}
	defer rows.Close()
	var matches []match
	for rows.Next() {
		var m match
		if err := rows.Scan(&m.index, &m.deliveryID, &m.deliveryAt, &m.attempt, &m.number, &m.submittedAt,
			&m.had, &m.submitted); err != nil {
			return nil, fmt.Errorf("match receipts: %w", err)
		}
		receipt := receipts[m.index]
		m.receiptID = ids[m.index]
		m.operator, m.messageID, m.address = receipt.Operator, receipt.MessageID, string(receipt.To)
		m.state, m.final = partState(receipt.State)
		m.route = speaksOfRoute(receipt)
		m.err, m.doneAt = receipt.NetworkError, receipt.DoneAt
		if m.doneAt.IsZero() {
			m.doneAt = now
		}
		matches = append(matches, m)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("match receipts: %w", err)
	}
	return matches, nil
}

// partKey finds a part's row.
type partKey struct {
	deliveryID  int64
	submittedAt time.Time
	attempt     int16
	number      int16
}

func isFinal(state string) bool {
	return state != partAccepted && state != partEnroute && state != partUnknown
}

// applyMatches folds the receipts of each part to one new state, writes it, and
// settles the deliveries. A final state is never overwritten; a second final
// state that differs is kept as a conflict. It returns the matches that changed
// their part, and the deliveries that failed by them.
func applyMatches(ctx context.Context, tx pgx.Tx, now time.Time, matches []match) ([]match, []lostMessage, error) {
	if len(matches) == 0 {
		return nil, nil, nil
	}
	folded := map[partKey]match{}
	var conflicts []match
	slices.SortFunc(matches, func(a, b match) int { return cmp.Compare(a.receiptID, b.receiptID) })
	for _, m := range matches {
		key := partKey{m.deliveryID, m.submittedAt, m.attempt, m.number}
		had := m.had
		if earlier, ok := folded[key]; ok {
			had = earlier.state
		}
		switch {
		case isFinal(had):
			if m.final && m.state != had {
				m.had = had
				conflicts = append(conflicts, m)
			}
		case m.state == partUnknown && had == partEnroute:
			// The operator has said more before.
		default:
			m.had = had
			folded[key] = m
		}
	}
	if err := writeParts(ctx, tx, folded); err != nil {
		return nil, nil, err
	}
	if err := storeDoubts(ctx, tx, now, folded); err != nil {
		return nil, nil, err
	}
	lost, err := settleDeliveries(ctx, tx, now, folded)
	if err != nil {
		return nil, nil, err
	}
	if err := writeConflicts(ctx, tx, now, conflicts); err != nil {
		return nil, nil, err
	}
	changed := make([]match, 0, len(folded))
	for _, m := range folded {
		changed = append(changed, m)
	}
	return changed, lost, nil
}

func writeParts(ctx context.Context, tx pgx.Tx, folded map[partKey]match) error {
	var (
		ids              []int64
		submitted, dones []time.Time
		attempts, number []int16
		states, errs     []string
	)
	for key, m := range folded {
		ids = append(ids, key.deliveryID)
		submitted = append(submitted, key.submittedAt)
		attempts = append(attempts, key.attempt)
		number = append(number, key.number)
		states = append(states, m.state)
		errs = append(errs, clean(m.err))
		dones = append(dones, m.doneAt)
	}
	if len(ids) == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, `
		UPDATE delivery.part AS p
		SET state = m.state, error = nullif(m.error, ''), done_at = m.done_at
		FROM unnest($1::bigint[], $2::timestamptz[], $3::smallint[], $4::smallint[], $5::text[], $6::text[], $7::timestamptz[])
			AS m (delivery_id, submitted_at, attempt, number, state, error, done_at)
		WHERE p.delivery_id = m.delivery_id AND p.submitted_at = m.submitted_at AND p.attempt = m.attempt
		  AND p.number = m.number AND p.state IN ('accepted', 'enroute', 'unknown')
		  AND p.submitted_at BETWEEN $8 AND $9`,
		ids, submitted, attempts, number, states, errs, dones,
		slices.MinFunc(submitted, time.Time.Compare), slices.MaxFunc(submitted, time.Time.Compare))
	if err != nil {
		return fmt.Errorf("update parts: %w", err)
	}
	return nil
}

// settleDeliveries derives the state of each touched delivery from all parts of
// its latest attempt: delivered when every part is, failed when one is lost for
// good and none is outstanding. It returns those that failed.
func settleDeliveries(ctx context.Context, tx pgx.Tx, now time.Time, folded map[partKey]match) ([]lostMessage, error) {
	var (
		ids []int64
		ats []time.Time
	)
	route := map[ID]bool{} // all of its receipts here speak of the route
	for _, m := range folded {
		if m.final {
			ids = append(ids, m.deliveryID)
			ats = append(ats, m.deliveryAt)
			blamed, seen := route[ID(m.deliveryID)]
			route[ID(m.deliveryID)] = m.route && (blamed || !seen)
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	rows, err := tx.Query(ctx, `
		WITH touched AS (
			SELECT DISTINCT id, at FROM unnest($2::bigint[], $3::timestamptz[]) AS t (id, at)
		), standing AS (
			SELECT t.id, t.at, p.attempt,
				bool_and(p.state = 'delivered') AND count(*) = max(p.count) AS delivered,
				bool_and(p.state NOT IN ('accepted', 'enroute', 'unknown')) AND count(*) = max(p.count) AS finished,
				bool_or(p.state = 'delivered') AS some,
				max(p.error) FILTER (WHERE p.state <> 'delivered') AS error,
				max(p.state) FILTER (WHERE p.state <> 'delivered') AS lost
			FROM touched AS t
			JOIN delivery.part AS p ON p.delivery_id = t.id AND p.submitted_at >= t.at - interval '1 day'
				AND p.submitted_at >= $4
			GROUP BY t.id, t.at, p.attempt
		)
		UPDATE delivery.delivery AS d
		SET state = CASE WHEN s.delivered THEN 'delivered' ELSE 'failed' END,
		    reason = CASE WHEN s.delivered THEN NULL ELSE 'receipt ' || s.lost || coalesce(' ' || s.error, '') END,
		    settled_at = $1
		FROM standing AS s
		WHERE d.id = s.id AND d.at = s.at AND d.attempt = s.attempt AND s.finished
		  AND d.at BETWEEN $5 AND $6 AND d.state IN ('sending', 'sent', 'unknown', 'unproved')
		RETURNING d.id, d.at, d.state, s.some`,
		now, ids, ats, slices.MinFunc(ats, time.Time.Compare).Add(-24*time.Hour),
		slices.MinFunc(ats, time.Time.Compare), slices.MaxFunc(ats, time.Time.Compare))
	if err != nil {
		return nil, fmt.Errorf("settle deliveries: %w", err)
	}
	var (
		lost  []lostMessage
		key   rowKey
		state State
		some  bool // of its parts arrived
	)
	if _, err := pgx.ForEachRow(rows, []any{&key.id, &key.at, &state, &some}, func() error {
		if state == Failed {
			lost = append(lost, lostMessage{key, route[key.id] && !some})
		}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("settle deliveries: %w", err)
	}
	return lost, nil
}

// storeDoubts takes note of messages with news that settles nothing, so that
// SweepDoubts finds them. The same news once more gives no more time.
func storeDoubts(ctx context.Context, tx pgx.Tx, now time.Time, folded map[partKey]match) error {
	var keys []rowKey
	for _, m := range folded {
		if !m.final && m.state != m.had {
			keys = append(keys, rowKey{ID(m.deliveryID), m.deliveryAt})
		}
	}
	if len(keys) == 0 {
		return nil
	}
	// One order in all processes, so that none waits for another in a circle.
	slices.SortFunc(keys, func(a, b rowKey) int { return cmp.Or(cmp.Compare(a.id, b.id), a.at.Compare(b.at)) })
	keys = slices.CompactFunc(keys, func(a, b rowKey) bool { return a.id == b.id && a.at.Equal(b.at) })
	ids, ats := make([]int64, len(keys)), make([]time.Time, len(keys))
	for i, key := range keys {
		ids[i], ats[i] = int64(key.id), key.at
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO delivery.doubt (delivery_id, delivery_at, due_at)
		SELECT id, at, $1 FROM unnest($2::bigint[], $3::timestamptz[]) AS d (id, at)
		ON CONFLICT (delivery_id, delivery_at) DO UPDATE SET due_at = excluded.due_at`, now.Add(proofWait), ids, ats)
	if err != nil {
		return fmt.Errorf("note what receipts leave open: %w", err)
	}
	return nil
}

// closeDoubts closes messages whose time for a proof is over: some part of them
// is known to be lost, or there is no proof.
const closeDoubts = `
	WITH due AS MATERIALIZED (
		SELECT delivery_id, delivery_at FROM delivery.doubt
		WHERE due_at <= $1 ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED
	), done AS (
		DELETE FROM delivery.doubt AS o USING due WHERE o.delivery_id = due.delivery_id AND o.delivery_at = due.delivery_at
	), standing AS MATERIALIZED (
		SELECT due.delivery_id AS id, due.delivery_at AS at, p.attempt,
			max(p.state) FILTER (WHERE p.state IN ('refused', 'undelivered', 'expired', 'deleted', 'rejected')) AS lost,
			max(p.state) FILTER (WHERE p.state IN ('enroute', 'unknown')) AS doubt
		FROM due
		JOIN delivery.part AS p ON p.delivery_id = due.delivery_id AND p.submitted_at >= due.delivery_at - interval '1 day'
		GROUP BY 1, 2, 3
	), closed AS (
		UPDATE delivery.delivery AS d
		SET state = CASE WHEN s.lost IS NULL THEN 'unproved' ELSE 'failed' END,
		    reason = 'receipt ' || coalesce(s.lost, s.doubt), settled_at = $1
		FROM standing AS s
		WHERE d.id = s.id AND d.at = s.at AND d.attempt = s.attempt AND coalesce(s.lost, s.doubt) IS NOT NULL
		  AND d.channel = 'sms' AND d.state IN ('sent', 'unknown')
	)
	SELECT count(*) FROM due`

// SweepDoubts closes messages without a proof when nothing has settled them for
// a day after the last receipt that left them open (smpp.md, Receipts: UNKNOWN).
// It is to be called every few seconds.
func (r *Receipts) SweepDoubts(ctx context.Context) error {
	for due := doubtsSwept; due == doubtsSwept; {
		err := pgx.BeginTxFunc(ctx, r.config.Pool, pg.PlannedOnce, func(tx pgx.Tx) error {
			return tx.QueryRow(ctx, closeDoubts, r.config.Now(), doubtsSwept).Scan(&due)
		})
		if err != nil {
			return fmt.Errorf("close messages without a proof: %w", err)
		}
	}
	return nil
}

func writeConflicts(ctx context.Context, tx pgx.Tx, now time.Time, conflicts []match) error {
	if len(conflicts) == 0 {
		return nil
	}
	var (
		ids                           []int64
		operators, messages, had, got []string
	)
	for _, m := range conflicts {
		ids = append(ids, m.receiptID)
		operators = append(operators, m.operator)
		messages = append(messages, clean(m.messageID))
		had = append(had, m.had)
		got = append(got, m.state)
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO delivery.receipt_conflict (receipt_id, received_at, operator, message_id, had, got)
		SELECT id, $1, operator, message_id, had, got
		FROM unnest($2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[]) AS c (id, operator, message_id, had, got)`,
		now, ids, operators, messages, had, got)
	if err != nil {
		return fmt.Errorf("store receipt conflicts: %w", err)
	}
	return nil
}

func storeOrphans(ctx context.Context, tx pgx.Tx, now time.Time, receipts []carrier.Receipt, ids []int64, matches []match) error {
	matched := make(map[int]bool, len(matches))
	for _, m := range matches {
		matched[m.index] = true
	}
	var (
		routes                                             []bool
		receiptIDs                                         []int64
		operators, messages, keys, addresses, states, errs []string
		dones                                              []*time.Time
	)
	for i, receipt := range receipts {
		if matched[i] {
			continue
		}
		cleaned := make([]string, len(receipt.Keys))
		for j, key := range receipt.Keys {
			cleaned[j] = strings.ReplaceAll(clean(key), keySeparator, "")
		}
		receiptIDs = append(receiptIDs, ids[i])
		operators = append(operators, receipt.Operator)
		messages = append(messages, clean(receipt.MessageID))
		keys = append(keys, strings.Join(cleaned, keySeparator))
		addresses = append(addresses, string(receipt.To))
		state, _ := partState(receipt.State)
		states = append(states, state)
		errs = append(errs, clean(receipt.NetworkError))
		routes = append(routes, speaksOfRoute(receipt))
		dones = append(dones, optional(receipt.DoneAt))
	}
	if len(receiptIDs) == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO delivery.orphan (receipt_id, received_at, operator, message_id, keys, address, state, error, route, done_at)
		SELECT id, $1, operator, message_id, string_to_array(keys, $2), address, state, error, route, done_at
		FROM unnest($3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::boolean[],
			$11::timestamptz[]) AS o (id, operator, message_id, keys, address, state, error, route, done_at)`,
		now, keySeparator, receiptIDs, operators, messages, keys, addresses, states, errs, routes, dones)
	if err != nil {
		return fmt.Errorf("store unmatched receipts: %w", err)
	}
	return nil
}

// matchOrphans settles parts that were just written by receipts that came
// before them (operators and keys are of the new parts, one per part). It
// returns the receipts that settled something and the deliveries that failed by
// them.
func matchOrphans(ctx context.Context, tx pgx.Tx, now time.Time, operators, keys []string) ([]match, []lostMessage, error) {
	if len(keys) == 0 {
		return nil, nil, nil
	}
	rows, err := tx.Query(ctx, `
		WITH wanted AS (
			SELECT DISTINCT operator, key FROM unnest($1::text[], $2::text[]) AS w (operator, key) WHERE key <> ''
		), found AS (
			DELETE FROM delivery.orphan AS o
			USING wanted AS w
			WHERE o.keys && $2::text[] AND o.operator = w.operator AND w.key = ANY (o.keys)
			RETURNING o.receipt_id, o.operator, o.message_id, o.address, o.state, o.error, o.route,
				coalesce(o.done_at, o.received_at) AS done_at, w.key
		)
		SELECT DISTINCT ON (f.receipt_id) f.receipt_id, f.operator, f.message_id, f.address, f.state, f.error, f.route, f.done_at,
			p.delivery_id, p.delivery_at, p.attempt, p.number, p.submitted_at, p.state, p.message_id
		FROM found AS f
		JOIN delivery.part AS p ON p.operator = f.operator AND p.message_key = f.key AND p.message_key <> ''
			AND p.submitted_at > $3
		ORDER BY f.receipt_id, p.submitted_at DESC`,
		operators, keys, now.Add(-partsWindow))
	if err != nil {
		return nil, nil, fmt.Errorf("match early receipts: %w", err)
	}
	matches, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (match, error) {
		var m match
		err := row.Scan(&m.receiptID, &m.operator, &m.messageID, &m.address, &m.state, &m.err, &m.route, &m.doneAt,
			&m.deliveryID, &m.deliveryAt, &m.attempt, &m.number, &m.submittedAt, &m.had, &m.submitted)
		m.final = isFinal(m.state)
		return m, err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("match early receipts: %w", err)
	}
	return applyMatches(ctx, tx, now, matches)
}

// Sweep is the periodic part: it matches receipts that crossed their part in
// flight (each side committed without seeing the other) and drops orphans past
// their time.
func (r *Receipts) Sweep(ctx context.Context) error {
	now := r.config.Now()
	var settled []match
	err := pgx.BeginFunc(ctx, r.config.Pool, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
			SELECT DISTINCT o.operator, p.message_key
			FROM delivery.orphan AS o
			CROSS JOIN unnest(o.keys) AS k (key)
			JOIN delivery.part AS p ON p.operator = o.operator AND p.message_key = k.key AND p.message_key <> ''
				AND p.submitted_at > $1
			WHERE k.key <> ''`, now.Add(-partsWindow))
		if err != nil {
			return fmt.Errorf("sweep early receipts: %w", err)
		}
		var operators, keys []string
		for rows.Next() {
			var operator, key string
			if err := rows.Scan(&operator, &key); err != nil {
				return fmt.Errorf("sweep early receipts: %w", err)
			}
			operators, keys = append(operators, operator), append(keys, key)
		}
		if err := rows.Err(); err != nil {
			return fmt.Errorf("sweep early receipts: %w", err)
		}
		var lost []lostMessage
		if settled, lost, err = matchOrphans(ctx, tx, now, operators, keys); err != nil {
			return err
		}
		if err := r.config.Desk.heedRefusals(ctx, tx, settled, now); err != nil {
			return err
		}
		left, err := r.config.Desk.failOver(ctx, tx, now, lost)
		if err != nil {
			return err
		}
		if err := r.config.Desk.fallBack(ctx, tx, now, left); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `DELETE FROM delivery.orphan WHERE received_at < $1`, now.Add(-orphanLife)); err != nil {
			return fmt.Errorf("drop old receipts: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	r.tell(settled, now)
	return nil
}

// clean makes foreign octets fit a text column: valid UTF-8 without NUL.
func clean(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "")
}

func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// ReceiptPatience is how long a receipt may take before its message counts
// against the route that took it.
const ReceiptPatience = 3 * time.Minute

// Silence is a message part whose receipt is missing.
type Silence struct{ Operator, Address string }

// Silent returns the parts that operators accepted in a time and of which no
// final receipt has come.
func Silent(ctx context.Context, q pg.Querier, from, to time.Time) ([]Silence, error) {
	rows, err := q.Query(ctx, `
		SELECT p.operator, d.address FROM delivery.part AS p
		JOIN delivery.delivery AS d ON d.id = p.delivery_id AND d.at = p.delivery_at
		WHERE p.submitted_at >= $1 AND p.submitted_at < $2 AND p.state IN ('accepted', 'enroute', 'unknown')
		  AND p.message_key <> '' AND d.channel = 'sms'`, from, to)
	if err != nil {
		return nil, fmt.Errorf("look for missing receipts: %w", err)
	}
	silent, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Silence])
	if err != nil {
		return nil, fmt.Errorf("look for missing receipts: %w", err)
	}
	return silent, nil
}
