package delivery

import (
	"context"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"zvonok/ledger/pg"
)

// Limits of sharing an operator's messages among processes.
const (
	claimAhead  = 2 * time.Second        // a process claims no more than it can send in this time
	claimLook   = 250 * time.Millisecond // between two looks how much that is
	slowClaim   = time.Second            // the database keeps the pump waiting
	sharedJobs  = 200                    // of other processes, looked at for messages to share
	shareWorker = 4                      // jobs of shared messages at once
	strayAfter  = time.Minute            // a job of shared messages waits so long only if its process is gone
)

// shareQueue is the queue that a process alone works on, for messages it takes
// off others.
func shareQueue(process string) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(process)) // never fails
	return fmt.Sprintf("share_%016x", h.Sum64())
}

// Share lets this process, where it has nothing to do for an operator, take
// messages off another one that has fetched more jobs than it can send: up to
// half of what waits there unclaimed, and no more than it sends in a short time
// itself. Shared says whether another process has a link to the operator, too.
// It is to be called every second.
//
// Both processes then have the message in a job, and whoever marks it first
// sends it; so a process that dies in between loses nothing. Messages to a phone
// for which several wait stay where they are, in their order.
func (s *Sender) Share(ctx context.Context, shared func(operator string) bool) error {
	for operator, p := range s.pumps {
		if !shared(operator) || !p.idle() {
			continue
		}
		taken, err := s.shareOf(ctx, p)
		if err != nil {
			return fmt.Errorf("share messages of operator %s: %w", operator, err)
		}
		s.metrics.shared.WithLabelValues(operator).Add(float64(taken))
	}
	if now := s.now(); now.Sub(s.tidied) > strayAfter {
		s.tidied = now
		return bringHome(ctx, s.pool, `queue LIKE 'share\_%' AND created_at < $1`, now.Add(-strayAfter))
	}
	return nil
}

// shareOf takes this process's share of what waits with others.
func (s *Sender) shareOf(ctx context.Context, p *pump) (taken int, err error) {
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
			WITH named AS MATERIALIZED (
				SELECT j.id AS job, j.priority, (j.args->>'at')::timestamptz AS at, i.id::bigint AS id, i.place
				FROM (
					SELECT * FROM river.river_job
					WHERE state = 'running' AND queue = ANY ($1) AND kind = 'sms'
					  AND attempted_by[array_upper(attempted_by, 1)] <> $2
					ORDER BY priority, id LIMIT $3
				) AS j, jsonb_array_elements_text(j.args->'ids') WITH ORDINALITY AS i (id, place)
			), waiting AS (
				SELECT n.*, count(*) OVER () AS all_waiting, count(*) OVER (PARTITION BY d.address) AS of_phone
				FROM named AS n
				JOIN delivery.delivery AS d ON d.id = n.id AND d.at = n.at
				WHERE d.state = 'queued'
			)
			SELECT id, at, priority, all_waiting FROM waiting WHERE of_phone = 1
			ORDER BY priority, job DESC, place DESC LIMIT $4`, // the urgent first, and of them those whose turn is last
			[]string{SMSQueue(p.operator), BulkSMSQueue(p.operator)}, p.sender, sharedJobs, p.room())
		if err != nil {
			return err
		}
		var (
			key     rowKey
			share   = map[jobKey]map[time.Time][]ID{}
			waiting int
			k       = jobKey{queue: shareQueue(p.sender), operator: p.operator}
		)
		if _, err := pgx.ForEachRow(rows, []any{&key.id, &key.at, &k.priority, &waiting}, func() error {
			if taken >= (waiting+1)/2 {
				return nil
			}
			taken++
			if share[k] == nil {
				share[k] = map[time.Time][]ID{}
			}
			share[k][key.at.UTC()] = append(share[k][key.at.UTC()], key.id)
			return nil
		}); err != nil || taken == 0 {
			return err
		}
		var params []river.InsertManyParams
		for k, byTime := range share {
			for at, ids := range byTime {
				for len(ids) > 0 {
					n := min(jobSize, len(ids))
					params = append(params, river.InsertManyParams{
						Args: SMSArgs{Operator: k.operator, At: at, IDs: ids[:n], Home: smsQueue(k.operator, k.priority)},
						InsertOpts: &river.InsertOpts{
							Queue: k.queue, Priority: int(k.priority),
						},
					})
					ids = ids[n:]
				}
			}
		}
		_, err = s.desk.river.InsertManyFastTx(ctx, tx, params)
		return err
	})
	return taken, err
}

// bringHome puts jobs of shared messages that nobody works on back into their
// operator's queue.
func bringHome(ctx context.Context, q pg.Querier, which string, args ...any) error {
	if _, err := q.Exec(ctx, `
		UPDATE river.river_job SET queue = args->>'home'
		WHERE kind = 'sms' AND state IN ('available', 'retryable', 'scheduled') AND args->>'home' <> '' AND `+which,
		args...); err != nil {
		return fmt.Errorf("bring shared messages home: %w", err)
	}
	return nil
}

// idle reports that the pump could send and has nothing left to claim.
func (p *pump) idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.closed && !p.away && p.tickets.Len() == 0 && p.exchange.Ready(p.operator)
}
