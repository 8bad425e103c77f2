package delivery

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger/pg"
)

// Limits of rerouting.
const (
	rerouteAfter   = 30 * time.Second // without a link anywhere, before an operator's messages go by others
	rerouteJobs    = 50               // looked at in one transaction
	rerouteBatches = 40               // in one call
	longWait       = 2 * time.Minute  // of a message, before the log names it, and between two such lines
)

// Reroute gives the messages that wait for an operator without a link to the
// next operator of their route that has one and was not tried yet (pain 10);
// messages nobody else takes stay where they are. Linked says whether some
// process can send to an operator. It is to be called every few seconds.
func (s *Sender) Reroute(ctx context.Context, linked func(operator string) bool) error {
	now := s.now()
	others := false
	for operator := range s.pumps {
		others = others || linked(operator)
	}
	for operator := range s.pumps {
		since, dark := s.dark[operator]
		switch {
		case linked(operator):
			delete(s.dark, operator)
			continue
		case !dark:
			s.dark[operator] = now
			continue
		case now.Sub(since) < s.rerouteAfter || !others:
			continue
		}
		if err := s.rerouteFrom(ctx, operator, linked); err != nil {
			return err
		}
	}
	return nil
}

// rerouteFrom goes through the operator's waiting jobs from where it stopped.
func (s *Sender) rerouteFrom(ctx context.Context, operator string, linked func(string) bool) error {
	for range rerouteBatches {
		var jobs []waitingJob
		moved := 0
		err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) (err error) {
			if jobs, err = waitingJobs(ctx, tx, SMSQueue(operator), s.scanned[operator]); err != nil || len(jobs) == 0 {
				return err
			}
			moved, err = s.reroute(ctx, tx, operator, jobs, linked)
			return err
		})
		if err != nil {
			return fmt.Errorf("reroute messages of operator %s: %w", operator, err)
		}
		if moved > 0 {
			s.log.Warn("messages go by other operators: theirs has no link", "operator", operator, "messages", moved)
			s.metrics.rerouted.WithLabelValues(operator).Add(float64(moved))
		}
		if len(jobs) < rerouteJobs {
			s.scanned[operator] = 0 // from the beginning, next time
			return nil
		}
		s.scanned[operator] = jobs[len(jobs)-1].id
	}
	return nil
}

// waitingJob is a job that nobody works on.
type waitingJob struct {
	id   int64
	args SMSArgs
}

func waitingJobs(ctx context.Context, tx pgx.Tx, queue string, after int64) ([]waitingJob, error) {
	rows, err := tx.Query(ctx, `
		SELECT id, args FROM river.river_job
		WHERE queue = $1 AND kind = 'sms' AND state = 'available' AND id > $2
		ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED`, queue, after, rerouteJobs)
	if err != nil {
		return nil, err
	}
	var (
		jobs []waitingJob
		job  waitingJob
		args []byte
	)
	_, err = pgx.ForEachRow(rows, []any{&job.id, &args}, func() error {
		job.args = SMSArgs{}
		if err := json.Unmarshal(args, &job.args); err != nil {
			return fmt.Errorf("job %d: %w", job.id, err)
		}
		jobs = append(jobs, job)
		return nil
	})
	return jobs, err
}

// reroute moves what can be moved and returns how many messages that were.
func (s *Sender) reroute(ctx context.Context, tx pgx.Tx, from string, jobs []waitingJob, linked func(string) bool) (int, error) {
	var (
		ids []int64
		ats []time.Time
	)
	for _, job := range jobs {
		for _, id := range job.args.IDs {
			ids, ats = append(ids, int64(id)), append(ats, job.args.At)
		}
	}
	rows, err := tx.Query(ctx, `
		SELECT d.id, d.at, d.address, d.tried, d.priority FROM unnest($1::bigint[], $2::timestamptz[]) AS w (id, at)
		JOIN delivery.delivery AS d ON d.id = w.id AND d.at = w.at
		WHERE d.state = 'queued' AND d.at BETWEEN $3 AND $4 FOR UPDATE OF d`,
		ids, ats, slices.MinFunc(ats, time.Time.Compare), slices.MaxFunc(ats, time.Time.Compare))
	if err != nil {
		return 0, err
	}
	found, err := s.desk.detours(rows, func(operator string) bool { return operator != from && linked(operator) })
	if err != nil {
		return 0, err
	}
	if len(found.ids) == 0 {
		return 0, nil
	}
	if _, err := tx.Exec(ctx, `
		UPDATE delivery.delivery AS d
		SET operator = m.operator, tried = array_append(d.tried, m.operator), reason = 'rerouted from ' || $1 || ', which has no link'
		FROM unnest($2::bigint[], $3::timestamptz[], $4::text[]) AS m (id, at, operator)
		WHERE d.id = m.id AND d.at = m.at AND d.at BETWEEN $5 AND $6`,
		from, found.ids, found.ats, found.operators,
		slices.MinFunc(found.ats, time.Time.Compare), slices.MaxFunc(found.ats, time.Time.Compare)); err != nil {
		return 0, err
	}
	if err := shrink(ctx, tx, jobs, found.moved); err != nil {
		return 0, err
	}
	_, err = s.desk.river.InsertManyFastTx(ctx, tx, found.params())
	return len(found.ids), err
}

// shrink takes messages out of jobs; a job of which nothing is left goes.
func shrink(ctx context.Context, tx pgx.Tx, jobs []waitingJob, moved map[ID]bool) error {
	var (
		empty, less []int64
		args        []string
	)
	for _, job := range jobs {
		left := slices.DeleteFunc(slices.Clone(job.args.IDs), func(id ID) bool { return moved[id] })
		switch len(left) {
		case len(job.args.IDs):
		case 0:
			empty = append(empty, job.id)
		default:
			job.args.IDs = left
			encoded, err := json.Marshal(job.args)
			if err != nil {
				return err
			}
			less, args = append(less, job.id), append(args, string(encoded))
		}
	}
	if _, err := tx.Exec(ctx, `DELETE FROM river.river_job WHERE id = ANY ($1)`, empty); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `
		UPDATE river.river_job AS j SET args = l.args::jsonb FROM unnest($1::bigint[], $2::text[]) AS l (id, args)
		WHERE j.id = l.id`, less, args)
	return err
}

// Backlog is what waits in the database for an operator.
type Backlog struct {
	Operator string
	Messages int       // with those that the operator's link has taken and not settled
	Since    time.Time // of the oldest; zero without messages
	Oldest   ID        // one of the oldest
}

// Backlogs returns what is due and not settled of each operator, in the order of
// names.
func Backlogs(ctx context.Context, q pg.Querier, operators []string) ([]Backlog, error) {
	queues := make([]string, 0, 2*len(operators))
	owners := make([]string, 0, 2*len(operators))
	for _, operator := range operators {
		queues, owners = append(queues, SMSQueue(operator), BulkSMSQueue(operator)), append(owners, operator, operator)
	}
	rows, err := q.Query(ctx, `
		SELECT o.operator, coalesce(sum(jsonb_array_length(j.args->'ids')), 0), min((j.args->>'at')::timestamptz),
			coalesce((min(ARRAY[j.args->>'at', j.args->'ids'->>0]))[2]::bigint, 0)
		FROM unnest($1::text[], $2::text[]) AS o (queue, operator)
		LEFT JOIN river.river_job AS j ON j.queue = o.queue AND j.kind = 'sms' AND j.state IN ('available', 'running', 'retryable')
		GROUP BY o.operator`, queues, owners)
	if err != nil {
		return nil, fmt.Errorf("count what waits: %w", err)
	}
	found := map[string]Backlog{}
	var (
		b     Backlog
		since *time.Time
	)
	if _, err := pgx.ForEachRow(rows, []any{&b.Operator, &b.Messages, &since, &b.Oldest}, func() error {
		b.Since = time.Time{}
		if since != nil {
			b.Since = *since
		}
		found[b.Operator] = b
		return nil
	}); err != nil {
		return nil, fmt.Errorf("count what waits: %w", err)
	}
	all := make([]Backlog, len(operators))
	for i, operator := range operators {
		all[i] = found[operator]
	}
	return all, nil
}

// Watch publishes what waits of each operator, and names in the log a message
// that waits longer than it should (pain 13): whoever is asked why finds it by
// its id. It is to be called every few seconds.
func (s *Sender) Watch(ctx context.Context) error {
	operators := slices.Sorted(maps.Keys(s.pumps))
	backlogs, err := Backlogs(ctx, s.pool, operators)
	if err != nil {
		return err
	}
	now := s.now()
	for _, b := range backlogs {
		age := time.Duration(0)
		if b.Messages > 0 {
			age = max(0, now.Sub(b.Since))
		}
		s.metrics.waiting.WithLabelValues(b.Operator).Set(float64(b.Messages))
		s.metrics.oldest.WithLabelValues(b.Operator).Set(age.Seconds())
		if age >= longWait && now.Sub(s.warned[b.Operator]) >= longWait {
			s.warned[b.Operator] = now
			s.log.Warn("messages wait for their operator", "operator", b.Operator, "messages", b.Messages,
				"oldest_for", age.Round(time.Second), "oldest_delivery", b.Oldest)
		}
	}
	return nil
}
