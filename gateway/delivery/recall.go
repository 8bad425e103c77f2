package delivery

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"zvonok/access/phone"
	"zvonok/gateway/carrier"
	"zvonok/ledger"
)

// Limits of a recall.
const (
	recallReach  = 24 * time.Hour   // how far back it looks when it is not told
	cancelsAtOne = 20               // requests to operators at once: outside of the window, so few
	cancelTime   = 10 * time.Second // for one of them
)

// Filter says which messages are recalled; empty fields do not narrow it.
type Filter struct {
	Topic        string // such as "pass" or "digest", one topic of [Draft]
	Organisation ledger.OrganisationID
	Operator     string
	Since        time.Time // stored at this moment or later; zero: the last 24 hours
}

// RecallReport counts what became of recalled messages.
type RecallReport struct {
	Stopped   int `json:"stopped"`   // had not been sent, and are not any more
	Cancelled int `json:"cancelled"` // were with an operator, who took them back before delivery
	Left      int `json:"left"`      // had left: delivered, or nobody can tell that they were not
}

// Recall stops messages. From its first moment on nothing is taken to be sent,
// until what waits is stopped by one statement, found through the jobs that name
// it; other news waits that long. What is on its way is not sent a second time and does
// not fall back; what an operator has taken and may still hold is cancelled
// there (cancel_sm), part by part. Recalling again continues an interrupted
// recall. Without an exchange, or with an operator that is away, nothing is
// cancelled.
//
// Messages that are made after the recall are not its concern: who wants to stop
// a kind of news stops its cause first.
func Recall(ctx context.Context, pool *pgxpool.Pool, exchange *carrier.Exchange, f Filter, now time.Time) (RecallReport, error) {
	if f.Since.IsZero() {
		f.Since = now.Add(-recallReach)
	}
	var r RecallReport
	// A row that was being settled during the first round is back in its queue
	// for the second.
	for range 2 {
		stopped, err := stop(ctx, pool, f, now)
		if err != nil {
			return r, err
		}
		r.Stopped += stopped
		if err := hold(ctx, pool, f); err != nil {
			return r, err
		}
	}
	if exchange != nil {
		var err error
		if r.Cancelled, err = cancel(ctx, pool, exchange, f, now); err != nil {
			return r, err
		}
	}
	err := pool.QueryRow(ctx, `
		SELECT count(*) FROM delivery.delivery AS d
		WHERE d.state IN ('sending', 'sent', 'delivered', 'unproved', 'partial', 'unknown') AND`+recallFilter,
		f.Topic, f.Organisation, f.Operator, f.Since).Scan(&r.Left)
	if err != nil {
		return r, fmt.Errorf("count what had left: %w", err)
	}
	return r, nil
}

// recallFilter is a Filter as a condition on delivery.delivery d, of the
// parameters $1 to $4.
const recallFilter = `
	($1::text = '' OR d.topic = $1) AND ($2::bigint = 0 OR d.organisation_id = $2) AND ($3::text = '' OR d.operator = $3) AND d.at >= $4`

// Whoever takes messages to send them holds the brake together with all others
// until they are marked; a recall pulls it for itself alone. So no message leaves
// its queue while a recall goes through it, however long that takes, and what it
// has not come to yet is as safe as what it has.
const (
	withoutBrake = ` pg_advisory_xact_lock_shared(hashtextextended('zvonok recall', 0)) AS brake `
	pullBrake    = `SELECT pg_advisory_xact_lock(hashtextextended('zvonok recall', 0))`
)

// stop recalls what waits. Rows that a link has taken by now have left.
func stop(ctx context.Context, pool *pgxpool.Pool, f Filter, now time.Time) (stopped int, err error) {
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, pullBrake); err != nil {
			return fmt.Errorf("stop the sending: %w", err)
		}
		stopped, err = stopTx(ctx, tx, f, now)
		return err
	})
	return stopped, err
}

func stopTx(ctx context.Context, tx pgx.Tx, f Filter, now time.Time) (int, error) {
	tag, err := tx.Exec(ctx, `
		WITH jobs AS MATERIALIZED (
			SELECT (args->>'at')::timestamptz AS at, args->'ids' AS ids
			FROM river.river_job
			WHERE kind IN ('sms', 'mail', 'push') AND state IN ('available', 'pending', 'retryable', 'running', 'scheduled')
		), named AS (
			SELECT DISTINCT jobs.at, id::bigint AS id
			FROM jobs, jsonb_array_elements_text(jobs.ids) AS id
			WHERE jobs.at >= $4
		), waiting AS (
			SELECT d.id, d.at
			FROM named AS n
			JOIN delivery.delivery AS d ON d.id = n.id AND d.at = n.at
			WHERE d.state = 'queued' AND`+recallFilter+`
			FOR UPDATE OF d SKIP LOCKED
		)
		UPDATE delivery.delivery AS d
		SET state = 'recalled', recalled = true, reason = 'recalled', settled_at = $5
		FROM waiting AS w
		WHERE d.id = w.id AND d.at = w.at`, f.Topic, f.Organisation, f.Operator, f.Since, now)
	if err != nil {
		return 0, fmt.Errorf("recall what waits: %w", err)
	}
	return int(tag.RowsAffected()), nil
}

// hold keeps what is on its way from being sent once more or to a further
// browser, what has left from falling back, and what failed from being replayed.
func hold(ctx context.Context, pool *pgxpool.Pool, f Filter) error {
	_, err := pool.Exec(ctx, `
		WITH flying AS (
			SELECT d.id, d.at FROM delivery.delivery AS d
			WHERE (d.state IN ('sending', 'unknown', 'failed') OR d.spare AND d.state IN ('sent', 'partial')
			       OR d.channel = 'push' AND d.state = 'sent')
			  AND NOT d.recalled AND`+recallFilter+`
			FOR UPDATE SKIP LOCKED
		)
		UPDATE delivery.delivery AS d
		SET recalled = true
		FROM flying AS f
		WHERE d.id = f.id AND d.at = f.at AND d.at >= $4`,
		f.Topic, f.Organisation, f.Operator, f.Since)
	if err != nil {
		return fmt.Errorf("hold what is on its way: %w", err)
	}
	return nil
}

// sentPart is a part that an operator may still hold.
type sentPart struct {
	key        partKey
	deliveryAt time.Time
	operator   string
	messageID  string
	address    phone.Number
}

// cancel asks operators to withdraw what they have not delivered, and returns
// how many messages they withdrew whole.
func cancel(ctx context.Context, pool *pgxpool.Pool, exchange *carrier.Exchange, f Filter, now time.Time) (int, error) {
	rows, err := pool.Query(ctx, `
		SELECT p.delivery_id, p.submitted_at, p.attempt, p.number, p.delivery_at, p.operator, p.message_id, d.address
		FROM delivery.part AS p
		JOIN delivery.delivery AS d ON d.id = p.delivery_id AND d.at = p.delivery_at
		WHERE p.submitted_at >= $4 AND p.state IN ('accepted', 'enroute', 'unknown') AND p.message_id <> '' AND d.channel = 'sms'
		  AND d.state IN ('sending', 'sent', 'unknown') AND`+recallFilter+`
		ORDER BY p.submitted_at`, f.Topic, f.Organisation, f.Operator, f.Since)
	if err != nil {
		return 0, fmt.Errorf("find what to cancel: %w", err)
	}
	parts, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (sentPart, error) {
		var p sentPart
		err := row.Scan(&p.key.deliveryID, &p.key.submittedAt, &p.key.attempt, &p.key.number, &p.deliveryAt, &p.operator,
			&p.messageID, &p.address)
		return p, err
	})
	if err != nil {
		return 0, fmt.Errorf("find what to cancel: %w", err)
	}
	var (
		mu        sync.Mutex
		withdrawn []sentPart
		group     errgroup.Group
	)
	group.SetLimit(cancelsAtOne)
	for _, p := range parts {
		group.Go(func() error {
			asking, stop := context.WithTimeout(ctx, cancelTime)
			defer stop()
			if exchange.Cancel(asking, p.operator, p.messageID, p.address).Verdict == carrier.Settled {
				mu.Lock()
				defer mu.Unlock()
				withdrawn = append(withdrawn, p)
			}
			return nil
		})
	}
	_ = group.Wait() // a refusal is an answer: the part has left
	if len(withdrawn) == 0 {
		return 0, nil
	}
	// What an operator has withdrawn is on record even when the asker is gone.
	return noteWithdrawn(context.WithoutCancel(ctx), pool, withdrawn, now)
}

// noteWithdrawn writes the parts that operators withdrew and recalls the
// messages of which no part is left.
func noteWithdrawn(ctx context.Context, pool *pgxpool.Pool, parts []sentPart, now time.Time) (int, error) {
	slices.SortFunc(parts, func(a, b sentPart) int { return int(a.key.deliveryID - b.key.deliveryID) })
	var (
		ids               []int64
		submitted, ats    []time.Time
		attempts, numbers []int16
	)
	for _, p := range parts {
		ids = append(ids, p.key.deliveryID)
		submitted = append(submitted, p.key.submittedAt)
		ats = append(ats, p.deliveryAt)
		attempts = append(attempts, p.key.attempt)
		numbers = append(numbers, p.key.number)
	}
	cancelled := 0
	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `
			UPDATE delivery.part AS p
			SET state = 'deleted', error = 'cancelled', done_at = $1
			FROM unnest($2::bigint[], $3::timestamptz[], $4::smallint[], $5::smallint[]) AS w (id, submitted_at, attempt, number)
			WHERE p.delivery_id = w.id AND p.submitted_at = w.submitted_at AND p.attempt = w.attempt AND p.number = w.number
			  AND p.state <> 'delivered'`, now, ids, submitted, attempts, numbers); err != nil {
			return fmt.Errorf("note cancelled parts: %w", err)
		}
		// The operator's receipt may have said "deleted" already.
		tag, err := tx.Exec(ctx, `
			UPDATE delivery.delivery AS d
			SET state = 'recalled', recalled = true, reason = 'cancelled', settled_at = $1
			FROM (SELECT DISTINCT id, at FROM unnest($2::bigint[], $3::timestamptz[]) AS w (id, at)) AS w
			WHERE d.id = w.id AND d.at = w.at AND d.state IN ('sent', 'unknown', 'failed')
			  AND NOT EXISTS (SELECT FROM delivery.part AS p
			                  WHERE p.delivery_id = d.id AND p.submitted_at >= d.at - interval '1 day'
			                    AND p.state IN ('accepted', 'enroute', 'unknown', 'delivered'))`, now, ids, ats)
		if err != nil {
			return fmt.Errorf("note cancelled messages: %w", err)
		}
		cancelled = int(tag.RowsAffected())
		return nil
	})
	return cancelled, err
}
