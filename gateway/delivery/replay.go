package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"

	"zvonok/access/phone"
	"zvonok/gateway/carrier"
	"zvonok/gateway/subscription"
)

// Limits of a replay.
const (
	replayReach = 24 * time.Hour // how far back it looks when it is not told
	replayBatch = 1000           // messages put to their routes in one transaction
)

// Replay says what is put to its route again.
type Replay struct {
	Operator string    // for which it was; one that is not in the settings any more, too
	Since    time.Time // stored at this moment or later; zero: the last 24 hours
	DryRun   bool      // only count

	// Progress hears after each batch how many of how many are done; it may be nil.
	Progress func(done, of int)
}

// ReplayReport counts what a replay did, or would do.
type ReplayReport struct {
	Since  time.Time `json:"since"`
	DryRun bool      `json:"dry_run"`
	Failed int       `json:"failed"` // had failed for good and are queued again
	Stuck  int       `json:"stuck"`  // nobody was working on, and are queued anew
	// LeftOut counts the others that had been for the operator and have not
	// arrived, by the reason why they are left alone.
	LeftOut map[LeftOut]int `json:"left_out"`
}

// LeftOut is why a replay leaves a message alone.
type LeftOut string

// The reasons, in the order in which they are looked for.
const (
	LeftUnderWay  LeftOut = "under_way"       // a process works on it, or its next attempt is near
	LeftWaiting   LeftOut = "waits_its_turn"  // it came only just now, or its time has not come
	LeftUnknown   LeftOut = "outcome_unknown" // it may have arrived
	LeftPartly    LeftOut = "partly_arrived"  // parts of it have arrived or may have
	LeftRecalled  LeftOut = "recalled"        // by staff, or its reader may not know of the child any more
	LeftReplayed  LeftOut = "replayed_before" // once is all
	LeftTooOld    LeftOut = "too_old"         // no news any more
	LeftOtherWay  LeftOut = "went_by_another_channel"
	LeftOptedOut  LeftOut = "opted_out"     // the phone's owner said STOP or refused bulk SMS
	LeftDead      LeftOut = "dead_phone"    // refused for good too often
	LeftInDoubt   LeftOut = "unconfirmed"   // the phone may be in other hands than its owner's
	LeftNewNumber LeftOut = "phone_changed" // its recipient has another phone now, or is gone
	LeftQuiet     LeftOut = "quiet_hours"   // they last longer than its life
	LeftNoRoute   LeftOut = "no_route"      // no operator takes the number
)

// ErrNothingOfOperator says that no message of the time was for the operator.
var ErrNothingOfOperator = errors.New("no message of this time was for the operator")

// quietTopics are the topics that keep the quiet hours (notices.md, D7).
const quietTopics = `('topup', 'threshold', 'digest')`

// quietEnd is when the quiet hours end that l.now, the time in the zone of
// organisation o, falls into; null for none.
const quietEnd = `
		CASE
		WHEN o.quiet_from < o.quiet_until AND l.now::time >= o.quiet_from AND l.now::time < o.quiet_until
			OR o.quiet_from > o.quiet_until AND l.now::time < o.quiet_until
			THEN (l.now::date + o.quiet_until) AT TIME ZONE o.time_zone
		WHEN o.quiet_from > o.quiet_until AND l.now::time >= o.quiet_from
			THEN (l.now::date + 1 + o.quiet_until) AT TIME ZONE o.time_zone
		END`

// replayable finds what was for an operator and has not arrived, with the reason
// to leave it alone or none. A message that had no route at all comes with those
// of every operator: its route says whose it is now. The quiet hours are those
// of the organisation, for the topics that keep them.
const replayable = `
	WITH named AS MATERIALIZED (
		SELECT (j.args->>'at')::timestamptz AS at, i.id::bigint AS id, min(j.id) AS job,
			bool_or(j.state = 'running') AS running, bool_or(j.state = 'scheduled') AS later
		FROM river.river_job AS j, jsonb_array_elements_text(j.args->'ids') AS i (id)
		WHERE j.kind = 'sms' AND j.state IN ('available', 'pending', 'retryable', 'running', 'scheduled')
		GROUP BY 1, 2
	)
	SELECT d.id, d.at, d.address, d.priority, d.state = 'queued', d.operator IS NULL,
		CASE WHEN d.state = 'queued' THEN coalesce(n.job, 0) ELSE 0 END, q.until,
		CASE
		WHEN d.state = 'sending' OR d.state = 'queued' AND n.running THEN 'under_way'
		WHEN d.state = 'unknown' THEN 'outcome_unknown'
		WHEN d.state = 'recalled' OR d.recalled THEN 'recalled'
		WHEN d.state = 'partial' OR EXISTS (
			SELECT FROM delivery.part AS p
			WHERE p.delivery_id = d.id AND p.submitted_at >= d.at - interval '1 day'
			  AND p.state IN ('accepted', 'enroute', 'unknown', 'delivered')) THEN 'partly_arrived'
		WHEN d.state = 'stale' OR d.expires_at <= $3 OR d.body = '' THEN 'too_old'
		WHEN d.state = 'queued' AND n.job IS NOT NULL AND (
			n.later AND d.attempt = 0 OR coalesce(d.sending_at, d.at) > $3 - $4::interval) THEN 'waits_its_turn'
		WHEN d.replayed_at IS NOT NULL THEN 'replayed_before'
		WHEN s.next_id IS NOT NULL THEN 'went_by_another_channel'
		WHEN a.opted_out_at IS NOT NULL THEN 'opted_out'
		WHEN a.suppressed_at IS NOT NULL THEN 'dead_phone'
		WHEN EXISTS (SELECT FROM access.representative AS h WHERE h.phone = d.address AND h.doubt IS NOT NULL) THEN 'unconfirmed'
		WHEN d.representative_id IS NOT NULL AND r.phone IS DISTINCT FROM d.address THEN 'phone_changed'
		WHEN q.until >= d.expires_at THEN 'quiet_hours'
		ELSE '' END
	FROM delivery.delivery AS d
	LEFT JOIN named AS n ON n.id = d.id AND n.at = d.at
	LEFT JOIN delivery.spare AS s ON d.spare AND s.delivery_id = d.id AND s.at = d.at
	LEFT JOIN delivery.address AS a ON a.channel = 'sms' AND a.address = d.address
	LEFT JOIN access.representative AS r ON r.id = d.representative_id
	LEFT JOIN ledger.organisation AS o ON o.id = d.organisation_id AND d.topic IN ` + quietTopics + `
	CROSS JOIN LATERAL (SELECT $3::timestamptz AT TIME ZONE o.time_zone AS now) AS l
	CROSS JOIN LATERAL (SELECT ` + quietEnd + ` AS until) AS q
	WHERE d.at >= $2 AND d.channel = 'sms'
	  AND (d.operator = $1 OR d.state = 'failed' AND (d.operator IS NULL OR $1 = ANY (d.tried)))
	  AND d.state NOT IN ('sent', 'delivered', 'unproved')
	ORDER BY d.at, d.id`

// candidate is a message that may be put to its route again.
type candidate struct {
	key      rowKey
	address  phone.Number
	priority carrier.Priority
	queued   bool // else failed
	orphan   bool // never had a route
	job      int64
	until    *time.Time // the end of the quiet hours it falls into
	verdict  LeftOut
}

// Replay puts what failed for an operator, or what nobody works on, to its
// route again, oldest first: each message once in its life, within its life, and
// never one that has arrived, or may have, even in part. It may be interrupted
// and called again. A running gateway needs not to be told.
func (d *Desk) Replay(ctx context.Context, pool *pgxpool.Pool, r Replay, now time.Time) (ReplayReport, error) {
	if r.Since.IsZero() {
		r.Since = now.Add(-replayReach)
	}
	report := ReplayReport{Since: r.Since, DryRun: r.DryRun, LeftOut: map[LeftOut]int{}}
	rows, err := pool.Query(ctx, replayable, r.Operator, r.Since, now, longWait)
	if err != nil {
		return report, fmt.Errorf("look for what to replay: %w", err)
	}
	var (
		c     candidate
		found []candidate
	)
	if _, err := pgx.ForEachRow(rows, []any{
		&c.key.id, &c.key.at, &c.address, &c.priority, &c.queued, &c.orphan, &c.job, &c.until, &c.verdict,
	}, func() error {
		routes := d.route(c.address)
		switch {
		case c.orphan && !slices.Contains(routes, r.Operator): // not this one's either
		case c.verdict != "":
			report.LeftOut[c.verdict]++
		case len(routes) == 0:
			report.LeftOut[LeftNoRoute]++
		default:
			found = append(found, c)
		}
		return nil
	}); err != nil {
		return report, fmt.Errorf("look for what to replay: %w", err)
	}
	if len(found) == 0 && len(report.LeftOut) == 0 {
		return report, ErrNothingOfOperator
	}
	if r.DryRun {
		for _, c := range found {
			report.count(c)
		}
		return report, nil
	}
	done := 0
	for batch := range slices.Chunk(found, replayBatch) {
		var replayed []candidate
		if err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) (err error) {
			replayed, err = d.replay(ctx, tx, batch, now)
			return err
		}); err != nil {
			return report, fmt.Errorf("replay messages: %w", err)
		}
		for _, c := range replayed {
			report.count(c)
		}
		if missed := len(batch) - len(replayed); missed > 0 {
			report.LeftOut[LeftUnderWay] += missed // somebody took them since
		}
		if done += len(batch); r.Progress != nil {
			r.Progress(done, len(found))
		}
	}
	return report, nil
}

func (r *ReplayReport) count(c candidate) {
	if c.queued {
		r.Stuck++
	} else {
		r.Failed++
	}
}

// replay puts messages to their routes if they still are as they were found, and
// returns those.
func (d *Desk) replay(ctx context.Context, tx pgx.Tx, batch []candidate, now time.Time) ([]candidate, error) {
	// A recall that runs goes first: it must find all that waits.
	if _, err := tx.Exec(ctx, `SELECT`+withoutBrake); err != nil {
		return nil, err
	}
	free, err := lockJobs(ctx, tx, batch)
	if err != nil {
		return nil, err
	}
	held := map[int64]bool{0: true}
	for _, job := range free {
		held[job.id] = true
	}
	var (
		byKey     = map[ID]candidate{}
		ids       []int64
		ats       []time.Time
		operators []string
	)
	for _, c := range batch {
		if !held[c.job] { // being fetched in this moment
			continue
		}
		byKey[c.key.id] = c
		ids, ats, operators = append(ids, int64(c.key.id)), append(ats, c.key.at), append(operators, d.route(c.address)[0])
	}
	if len(ids) == 0 {
		return nil, nil
	}
	rows, err := tx.Query(ctx, `
		UPDATE delivery.delivery AS d
		SET state = 'queued', reason = 'replayed', replayed_at = $1, settled_at = NULL, failures = 0,
		    operator = r.operator, tried = ARRAY[r.operator]
		FROM unnest($2::bigint[], $3::timestamptz[], $4::text[]) AS r (id, at, operator)
		WHERE d.id = r.id AND d.at = r.at AND d.at BETWEEN $5 AND $6
		  AND d.state IN ('failed', 'queued') AND NOT d.recalled AND d.replayed_at IS NULL AND d.expires_at > $1
		RETURNING d.id, d.operator`,
		now, ids, ats, operators, slices.MinFunc(ats, time.Time.Compare), slices.MaxFunc(ats, time.Time.Compare))
	if err != nil {
		return nil, err
	}
	var (
		id       ID
		operator string
		replayed []candidate
		moved    = map[ID]bool{}
		again    = map[jobKey]map[time.Time][]ID{}
	)
	if _, err := pgx.ForEachRow(rows, []any{&id, &operator}, func() error {
		c := byKey[id]
		replayed, moved[id] = append(replayed, c), true
		key := jobKey{queue: smsQueue(operator, c.priority), operator: operator, kind: subscription.SMS, priority: c.priority}
		if c.until != nil {
			key.notBefore = c.until.UTC()
		}
		if again[key] == nil {
			again[key] = map[time.Time][]ID{}
		}
		at := c.key.at.UTC()
		again[key][at] = append(again[key][at], id)
		return nil
	}); err != nil {
		return nil, err
	}
	if err := shrink(ctx, tx, free, moved); err != nil {
		return nil, err
	}
	var params []river.InsertManyParams
	for key, byTime := range again {
		for at, ids := range byTime {
			slices.Sort(ids)
			for few := range slices.Chunk(ids, jobSize) {
				params = append(params, key.params(at, few))
			}
		}
	}
	if len(params) > 0 {
		if _, err := d.river.InsertManyFastTx(ctx, tx, params); err != nil {
			return nil, err
		}
	}
	return replayed, nil
}

// lockJobs locks the jobs that name the candidates and that nobody works on.
func lockJobs(ctx context.Context, tx pgx.Tx, batch []candidate) ([]waitingJob, error) {
	var wanted []int64
	for _, c := range batch {
		if c.job != 0 {
			wanted = append(wanted, c.job)
		}
	}
	rows, err := tx.Query(ctx, `
		SELECT id, args FROM river.river_job
		WHERE id = ANY ($1) AND state IN ('available', 'pending', 'retryable', 'scheduled')
		ORDER BY id FOR UPDATE SKIP LOCKED`, wanted)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (job waitingJob, err error) {
		var args []byte
		if err := row.Scan(&job.id, &args); err != nil {
			return job, err
		}
		if err := json.Unmarshal(args, &job.args); err != nil {
			return job, fmt.Errorf("job %d: %w", job.id, err)
		}
		return job, nil
	})
}
