package delivery

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"

	"zvonok/gateway/carrier"
	"zvonok/gateway/subscription"
)

// Queues of River. Each operator has its own, so that a slow one holds up
// nobody else. Digests have queues beside those of live messages, with few
// workers: thousands of their jobs, waiting for a slow operator or relay, must
// not take the places of the few that are urgent.
const (
	MailQueue     = "mail"
	BulkMailQueue = "mail_bulk"
	ResolveQueue  = "resolve"
)

// smsCooldown is how long the next lot of an operator's jobs gathers after the
// last; the first job after a quiet moment is fetched at once.
const smsCooldown = 25 * time.Millisecond

// bulkJobs is how many jobs of digests are worked at once, per operator and for
// the mail: enough to keep a link busy that nobody else wants.
const bulkJobs = 2

// SMSQueue is the queue of an operator's live messages, BulkSMSQueue that of
// its digests. River allows small letters, digits, and single '-' and '_' between
// them in a queue's name.
func SMSQueue(operator string) string { return "sms_" + queueName(operator) }

// BulkSMSQueue is the queue of an operator's digests.
func BulkSMSQueue(operator string) string { return "bulk_" + queueName(operator) }

func smsQueue(operator string, priority carrier.Priority) string {
	if priority == carrier.Bulk {
		return BulkSMSQueue(operator)
	}
	return SMSQueue(operator)
}

func mailQueue(priority carrier.Priority) string {
	if priority == carrier.Bulk {
		return BulkMailQueue
	}
	return MailQueue
}

// queueOf is the queue of a channel's messages of a priority; of SMS, of an operator's.
func queueOf(channel subscription.Channel, operator string, priority carrier.Priority) string {
	switch {
	case channel == subscription.SMS:
		return smsQueue(operator, priority)
	case channel != subscription.Push:
		return mailQueue(priority)
	case priority == carrier.Bulk:
		return BulkPushQueue
	default:
		return PushQueue
	}
}

func queueName(operator string) string {
	words := strings.FieldsFunc(strings.ToLower(operator), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9')
	})
	return strings.Join(words, "_")
}

// SMSArgs sends messages of one operator that were stored together.
type SMSArgs struct {
	Operator string    `json:"operator"`
	At       time.Time `json:"at"`
	IDs      []ID      `json:"ids"`
	Home     string    `json:"home,omitzero"` // the operator's queue, of messages taken off another process
}

// Kind names the job in River.
func (SMSArgs) Kind() string { return "sms" }

// ResolveArgs looks at messages whose outcome is still unknown.
type ResolveArgs struct {
	At  time.Time `json:"at"`
	IDs []ID      `json:"ids"`
}

// Kind names the job in River.
func (ResolveArgs) Kind() string { return "resolve" }

// Sender is the SMS side: a pump per operator, one settler, and the workers.
type Sender struct {
	pool    *pgxpool.Pool
	desk    *Desk
	log     *slog.Logger
	metrics *Metrics
	now     func() time.Time
	pumps   map[string]*pump
	settler *settler
	client  *river.Client[pgx.Tx] // works on the operators' queues; see Follow

	rerouteAfter time.Duration
	dark         map[string]time.Time // since when an operator has no link; of Reroute
	scanned      map[string]int64     // up to which of its jobs Reroute has come
	warned       map[string]time.Time // when the log last named a message of it; of Watch
	process      string
	tidied       time.Time // when Share last looked for jobs of processes that are gone

	stop      context.CancelFunc
	running   sync.WaitGroup
	unfollow  context.CancelFunc
	following sync.WaitGroup
}

// SenderConfig is what a Sender needs.
type SenderConfig struct {
	Pool      *pgxpool.Pool
	Desk      *Desk
	Receipts  *Receipts // hears of receipts that came before their message was written down; may be nil
	Exchange  *carrier.Exchange
	Operators []string
	Process   string // this process's name among all, the River client's id; written into claimed rows
	Log       *slog.Logger
	Metrics   *Metrics
	Now       func() time.Time

	// RerouteAfter is how long an operator is without a link before its messages
	// go by others, 30 s by default.
	RerouteAfter time.Duration
}

// NewSender returns a Sender. [Sender.Start] sets the pumps going.
func NewSender(c SenderConfig) *Sender {
	s := &Sender{
		pool: c.Pool, desk: c.Desk, log: c.Log, metrics: c.Metrics, now: c.Now,
		pumps:        make(map[string]*pump, len(c.Operators)),
		rerouteAfter: cmp.Or(c.RerouteAfter, rerouteAfter), dark: map[string]time.Time{}, scanned: map[string]int64{},
		warned: map[string]time.Time{}, process: c.Process, tidied: c.Now(),
		settler: &settler{
			pool: c.Pool, desk: c.Desk, receipts: c.Receipts, log: c.Log, metrics: c.Metrics, now: c.Now,
			outcomes: make(chan outcome, 64*resultBatch), done: make(chan struct{}),
			late: lateRows{rows: map[ID]lateRow{}}, unstored: make(map[string]*atomic.Int64, len(c.Operators)),
		},
	}
	for _, operator := range c.Operators {
		s.settler.unstored[operator] = new(atomic.Int64)
		s.pumps[operator] = &pump{
			operator: operator, pool: c.Pool, exchange: c.Exchange, settler: s.settler, log: c.Log, now: c.Now,
			sender: c.Process, flying: map[ID]struct{}{}, wake: make(chan struct{}, 1), away: true,
			linkChanged: make(chan struct{}, 1),
		}
	}
	return s
}

// Start runs the pumps until [Sender.Stop].
func (s *Sender) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	go s.settler.run()
	following, unfollow := context.WithCancel(context.Background())
	s.unfollow = unfollow
	for _, p := range s.pumps {
		s.running.Go(func() { p.run(ctx) })
		s.following.Go(func() { s.follow(following, p) })
	}
}

// Drain makes every job give back what is not claimed yet, so that River's soft
// stop waits only for what is in flight.
func (s *Sender) Drain() {
	s.unfollow()
	s.following.Wait()
	for _, p := range s.pumps {
		p.drain()
	}
}

// Stop ends the pumps and writes the outcomes that are still to be written. The
// exchange must have been stopped before: it gives the last results.
func (s *Sender) Stop() {
	s.stop()
	s.running.Wait()
	close(s.settler.outcomes)
	<-s.settler.done
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := bringHome(ctx, s.pool, `queue = $1`, shareQueue(s.process)); err != nil {
		s.log.Warn("stop", "error", err) // another process does it
	}
}

// LinkChanged wakes an operator's pump, and whoever follows its link; it is the
// carrier's callback.
func (s *Sender) LinkChanged(operator string, up bool) {
	p, ok := s.pumps[operator]
	if !ok {
		return
	}
	if up {
		p.nudge()
	}
	select {
	case p.linkChanged <- struct{}{}:
	default:
	}
}

// Late settles a message that was reported as unknown and whose answer came
// after all; it is the carrier's callback.
func (s *Sender) Late(result carrier.Result) {
	if r := s.settler.late.take(ID(result.ID)); r != nil {
		s.settler.settle(outcome{row: r, result: result})
	}
}

// Unstored is how many messages of an operator wait for the database: outcomes
// that are not written, and messages whose claim takes long. It waits for
// nothing.
func (s *Sender) Unstored(operator string) int {
	p, ok := s.pumps[operator]
	if !ok {
		return 0
	}
	n := s.settler.unstored[operator].Load()
	if since := p.claiming.Load(); since != 0 && s.now().UnixNano()-since > int64(slowClaim) {
		n += p.claimed.Load()
	}
	return int(n)
}

// Register adds the package's River workers.
func (s *Sender) Register(workers *river.Workers) {
	river.AddWorker(workers, &smsWorker{sender: s})
	river.AddWorker(workers, &resolveWorker{sender: s})
	river.AddWorker(workers, &fallbackWorker{sender: s})
}

// Queues are the River queues the Sender always works on. Those of the operators
// come and go with their links, see [Sender.Follow].
func (s *Sender) Queues() map[string]river.QueueConfig {
	return map[string]river.QueueConfig{
		ResolveQueue: {MaxWorkers: 4}, shareQueue(s.process): {MaxWorkers: shareWorker, FetchCooldown: smsCooldown},
	}
}

// smsWorker lets the operator's pump send the messages of a job.
type smsWorker struct {
	river.WorkerDefaults[SMSArgs]
	sender *Sender
}

// Timeout is off: the job's patience ends it, and what is in flight must be
// waited for.
func (w *smsWorker) Timeout(*river.Job[SMSArgs]) time.Duration { return -1 }

// Work returns when the outcome of every message is in the database. Messages
// that the link could not take in time come again with the same job.
func (w *smsWorker) Work(ctx context.Context, job *river.Job[SMSArgs]) error {
	p, ok := w.sender.pumps[job.Args.Operator]
	if !ok {
		return fmt.Errorf("operator %q is not in the settings any more", job.Args.Operator)
	}
	t := &ticket{at: job.Args.At, ids: job.Args.IDs, priority: carrier.Priority(job.Priority), serial: job.ID}
	back := p.work(ctx, jobPatience, t)
	switch {
	case back == 0:
		return nil
	case job.Args.Home == "":
		return river.JobSnooze(time.Second)
	}
	// Taken off another process for nothing: whoever can send them may have them.
	home := job.Args
	home.Home = ""
	if _, err := w.sender.desk.river.Insert(context.WithoutCancel(ctx), home,
		&river.InsertOpts{Queue: job.Args.Home, Priority: job.Priority}); err != nil {
		return fmt.Errorf("give shared messages back: %w", err)
	}
	return nil
}

// resolveWorker decides about unknown outcomes that neither a late answer nor a
// receipt has settled in time.
type resolveWorker struct {
	river.WorkerDefaults[ResolveArgs]
	sender *Sender
}

// Work sends a message once more if its class allows and its life is not over;
// otherwise it stays unknown, which is the truth.
func (w *resolveWorker) Work(ctx context.Context, job *river.Job[ResolveArgs]) error {
	s := w.sender
	ids := make([]int64, len(job.Args.IDs))
	for i, id := range job.Args.IDs {
		ids[i] = int64(id)
	}
	var resent int
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		now := s.now()
		rows, err := tx.Query(ctx, `
			UPDATE delivery.delivery
			SET state = 'queued', resent = true, reason = 'resent', settled_at = NULL
			WHERE id = ANY ($1) AND at = $2 AND state = 'unknown' AND NOT resent AND NOT recalled AND again <> 'never'
			  AND expires_at > $3
			RETURNING id, coalesce(operator, ''), priority, channel`, ids, job.Args.At, now)
		if err != nil {
			return fmt.Errorf("take unknown deliveries again: %w", err)
		}
		again := map[jobKey][]ID{}
		for rows.Next() {
			var id ID
			var key jobKey
			if err := rows.Scan(&id, &key.operator, &key.priority, &key.kind); err != nil {
				return fmt.Errorf("take unknown deliveries again: %w", err)
			}
			key.queue = queueOf(key.kind, key.operator, key.priority)
			again[key] = append(again[key], id)
			resent++
		}
		if err := rows.Err(); err != nil {
			return fmt.Errorf("take unknown deliveries again: %w", err)
		}
		var params []river.InsertManyParams
		for key, ids := range again {
			params = append(params, key.params(job.Args.At, ids))
		}
		if len(params) == 0 {
			return nil
		}
		if _, err := s.desk.river.InsertManyFastTx(ctx, tx, params); err != nil {
			return fmt.Errorf("insert send jobs: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.metrics.resends.Add(float64(resent))
	return nil
}

// TakeOver makes the messages that a dead process had marked 'sending' unknown
// outcomes, and lets its running jobs be worked again, in one transaction. A
// running job names every row its process had claimed, so no index on the state
// is needed. It returns how many outcomes are unknown.
func TakeOver(ctx context.Context, tx pgx.Tx, client *river.Client[pgx.Tx], process string, now time.Time) (int, error) {
	rows, err := tx.Query(ctx, `
		WITH jobs AS MATERIALIZED (
			SELECT (args->>'at')::timestamptz AS at, args->'ids' AS ids
			FROM river.river_job
			WHERE state = 'running' AND kind IN ('sms', 'mail', 'push') AND attempted_by[array_upper(attempted_by, 1)] = $1
		), claimed AS (
			SELECT jobs.at, id::bigint AS id FROM jobs, jsonb_array_elements_text(jobs.ids) AS id
		)
		UPDATE delivery.delivery AS d
		SET state = 'unknown', reason = 'UNK process died'
		FROM claimed AS c
		WHERE d.id = c.id AND d.at = c.at AND d.state = 'sending' AND d.sender = $1
		RETURNING d.id, d.at, d.priority, d.again, d.resent`, process)
	if err != nil {
		return 0, fmt.Errorf("find claimed deliveries of %s: %w", process, err)
	}
	type key struct {
		at       time.Time
		again    Again
		priority int
	}
	unknown := map[key][]ID{}
	count := 0
	for rows.Next() {
		var (
			id     ID
			k      key
			resent bool
		)
		if err := rows.Scan(&id, &k.at, &k.priority, &k.again, &resent); err != nil {
			return 0, fmt.Errorf("find claimed deliveries of %s: %w", process, err)
		}
		count++
		if resent || k.again == Never {
			continue
		}
		unknown[k] = append(unknown[k], id)
	}
	if err := rows.Err(); err != nil {
		return 0, fmt.Errorf("find claimed deliveries of %s: %w", process, err)
	}
	var params []river.InsertManyParams
	for k, ids := range unknown {
		wait := freshWait
		if k.again == Later {
			wait = laterWait
		}
		params = append(params, river.InsertManyParams{
			Args:       ResolveArgs{At: k.at, IDs: ids},
			InsertOpts: &river.InsertOpts{Queue: ResolveQueue, Priority: k.priority, ScheduledAt: now.Add(wait)},
		})
	}
	if len(params) > 0 {
		if _, err := client.InsertManyFastTx(ctx, tx, params); err != nil {
			return 0, fmt.Errorf("insert resolve jobs: %w", err)
		}
	}
	// River would find these jobs only by their age, minutes later. The process
	// is known to be dead, so they are given back at once.
	if _, err := tx.Exec(ctx, `
		UPDATE river.river_job SET state = 'available', scheduled_at = now(), attempt = greatest(attempt - 1, 0),
			queue = CASE WHEN args->>'home' <> '' THEN args->>'home' ELSE queue END
		WHERE state = 'running' AND attempted_by[array_upper(attempted_by, 1)] = $1`, process); err != nil {
		return 0, fmt.Errorf("give the jobs of %s back: %w", process, err)
	}
	return count, nil
}
