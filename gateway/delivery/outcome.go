package delivery

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"

	"zvonok/access/phone"
	"zvonok/gateway/carrier"
	"zvonok/gateway/subscription"
	"zvonok/ledger/pg"
)

// outcome is a carrier's result for a claimed row.
type outcome struct {
	row    *row
	result carrier.Result
	pump   *pump
}

// verdict is what an outcome means for the row.
type verdict struct {
	state    State
	reason   string
	failures int16
	resent   bool
	operator string    // whose queue it goes to next, when queued
	tried    []string  // routes tried, including operator
	retryAt  time.Time // when queued or unknown: when it is looked at again
	health   int       // +1: the address proved alive or refused nothing; -1: it refused for good
}

// decide says what an outcome means. It is a function of its arguments alone.
// The carrier's table has said already whether the attempt counts, when the
// operator may be tried again and whether another one may be; what is decided
// here is whether the message has life and allowance left.
func decide(now time.Time, r row, result carrier.Result, routes []string) verdict {
	v := verdict{
		reason:   fmt.Sprintf("%s %s", result.Class, result.Reason),
		failures: r.failures, resent: r.resent, operator: result.Operator, tried: r.tried,
	}
	requeue := func(after time.Duration) verdict {
		v.state, v.retryAt = Queued, now.Add(after)
		if !v.retryAt.Before(r.expires) {
			v.state, v.retryAt = Stale, time.Time{}
		}
		return v
	}
	if result.Counted {
		v.failures++
	}
	if result.NumberBad {
		v.health = -1
	}
	switch {
	case result.Class == carrier.OK:
		v.state, v.reason, v.health = Sent, "", +1
		return v
	case result.Class == carrier.Stale:
		v.state = Stale
		return v
	case result.Class == carrier.Unknown:
		v.state = Unknown
		switch {
		case r.resent || r.again == Never:
		case r.again == Fresh:
			v.retryAt = now.Add(freshWait)
		case r.again == Later:
			v.retryAt = now.Add(laterWait)
		}
		return v
	case result.Partial():
		// Sent again as a whole it would show the accepted parts twice.
		v.state = Partial
		return v
	case result.Failover:
		for _, operator := range routes {
			if !slices.Contains(r.tried, operator) {
				v.operator, v.tried = operator, append(slices.Clone(r.tried), operator)
				return requeue(0)
			}
		}
	}
	if v.failures < maxFailures && (result.RetryAfter > 0 || result.Class == carrier.NeverWritten) {
		return requeue(result.RetryAfter)
	}
	v.state = Failed
	return v
}

// settler writes outcomes in batches: the new state, the parts, the receipts
// that came early, the retries, in one transaction. It keeps what it could not
// write until the database takes it.
type settler struct {
	pool     *pgxpool.Pool
	desk     *Desk
	receipts *Receipts // hears of receipts that came early; may be nil
	log      *slog.Logger
	metrics  *Metrics
	now      func() time.Time

	outcomes chan outcome
	done     chan struct{}
	unstored map[string]*atomic.Int64 // outcomes not written yet, by operator
	late     lateRows
}

// lateRows remembers rows whose outcome is unknown, for answers that come after
// all. It is a help, not a promise: after a restart, or past its bounds, the
// receipt or the resolver decides.
type lateRows struct {
	mu   sync.Mutex
	rows map[ID]lateRow
}

type lateRow struct {
	row   *row
	until time.Time
}

func (l *lateRows) remember(r *row, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.rows) >= maxLate {
		for id, old := range l.rows {
			if now.After(old.until) {
				delete(l.rows, id)
			}
		}
		if len(l.rows) >= maxLate {
			return
		}
	}
	kept := *r
	kept.ticket = nil // its job has ended
	l.rows[r.key.id] = lateRow{&kept, now.Add(lateLife)}
}

func (l *lateRows) take(id ID) *row {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.rows[id].row
	delete(l.rows, id)
	return r
}

// settle hands an outcome over. It blocks only when the database has been away
// for so long that tens of thousands of outcomes wait.
func (s *settler) settle(o outcome) {
	s.unstored[o.result.Operator].Add(1)
	s.outcomes <- o
}

// run writes until the channel is closed and empty.
func (s *settler) run() {
	defer close(s.done)
	for first := range s.outcomes {
		batch := append(make([]outcome, 0, resultBatch), first)
		timer := time.NewTimer(resultWait)
	gather:
		for len(batch) < resultBatch {
			select {
			case o, ok := <-s.outcomes:
				if !ok {
					break gather
				}
				batch = append(batch, o)
			case <-timer.C:
				break gather
			}
		}
		timer.Stop()
		s.write(batch)
		for _, o := range batch {
			s.unstored[o.result.Operator].Add(-1)
			if o.result.Class == carrier.Unknown {
				s.late.remember(o.row, s.now())
			}
			if o.row.ticket != nil {
				o.pump.settled(o.row.key.id, o.row.ticket)
			}
		}
	}
}

// write tries until the batch is in the database: an outcome that is known must
// not be forgotten, or a message is sent twice.
func (s *settler) write(batch []outcome) {
	pause := 100 * time.Millisecond
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		var settled []match
		err := pgx.BeginTxFunc(ctx, s.pool, pg.PlannedOnce, func(tx pgx.Tx) (err error) {
			settled, err = s.writeTx(ctx, tx, batch)
			return err
		})
		cancel()
		if err == nil {
			if s.receipts != nil {
				s.receipts.tell(settled, s.now())
			}
			return
		}
		s.log.Error("write outcomes", "count", len(batch), "error", err)
		time.Sleep(pause)
		pause = min(2*pause, 5*time.Second)
	}
}

// writeTx returns the receipts that had come before their parts were written.
func (s *settler) writeTx(ctx context.Context, tx pgx.Tx, batch []outcome) ([]match, error) {
	now := s.now()
	var (
		ids                        []int64
		ats                        []time.Time
		attempts, failures         []int16
		resent                     []bool
		states, reasons, operators []string
		tried                      []string
		sick, well, refusers       []string
		jobs                       []river.InsertManyParams
		parts                      partColumns
		failed                     []rowKey
	)
	for _, o := range batch {
		v := decide(now, *o.row, o.result, s.desk.route(phone.Number(o.row.address)))
		if s.desk.RefusedBulk.answer(o.result) {
			v.state, v.reason, v.retryAt = Failed, refusedBulkReason, time.Time{}
			refusers = append(refusers, o.row.address)
		}
		s.metrics.outcome(o.result.Operator, o.result.Class)
		ids = append(ids, int64(o.row.key.id))
		ats = append(ats, o.row.key.at)
		attempts = append(attempts, o.row.attempt)
		failures = append(failures, v.failures)
		resent = append(resent, v.resent)
		states = append(states, string(v.state))
		reasons = append(reasons, v.reason)
		operators = append(operators, v.operator)
		tried = append(tried, strings.Join(v.tried, ","))
		switch v.health {
		case -1:
			sick = append(sick, o.row.address)
		case +1:
			well = append(well, o.row.address)
		}
		parts.add(o, now)
		if v.state == Failed && o.row.spare {
			failed = append(failed, o.row.key)
		}
		if v.retryAt.IsZero() {
			continue
		}
		id := []ID{o.row.key.id}
		options := &river.InsertOpts{Priority: int(o.row.priority), ScheduledAt: v.retryAt}
		if v.state == Unknown {
			options.Queue = ResolveQueue
			jobs = append(jobs, river.InsertManyParams{Args: ResolveArgs{At: o.row.key.at, IDs: id}, InsertOpts: options})
		} else {
			options.Queue = smsQueue(v.operator, o.row.priority)
			jobs = append(jobs, river.InsertManyParams{
				Args: SMSArgs{Operator: v.operator, At: o.row.key.at, IDs: id}, InsertOpts: options,
			})
		}
	}
	first, last := slices.MinFunc(ats, time.Time.Compare), slices.MaxFunc(ats, time.Time.Compare)
	// A receipt may have settled an unknown row meanwhile: the attempt and the
	// state guard what is known already. A message recalled on its way is not
	// sent a second time.
	if _, err := tx.Exec(ctx, `
		UPDATE delivery.delivery AS d
		SET state = CASE WHEN o.state = 'queued' AND d.recalled THEN 'recalled' ELSE o.state END,
		    reason = nullif(o.reason, ''), failures = o.failures, resent = o.resent,
		    operator = o.operator, tried = string_to_array(o.tried, ','),
		    settled_at = CASE WHEN NOT d.recalled AND o.state IN ('queued', 'unknown') THEN NULL ELSE $1::timestamptz END
		FROM unnest($2::bigint[], $3::timestamptz[], $4::smallint[], $5::text[], $6::text[], $7::smallint[],
			$8::boolean[], $9::text[], $10::text[])
			AS o (id, at, attempt, state, reason, failures, resent, operator, tried)
		WHERE d.id = o.id AND d.at = o.at AND d.at BETWEEN $11 AND $12
		  AND d.attempt = o.attempt AND d.state IN ('sending', 'unknown')`,
		now, ids, ats, attempts, states, reasons, failures, resent, operators, tried, first, last); err != nil {
		return nil, fmt.Errorf("update deliveries: %w", err)
	}
	if err := parts.insert(ctx, tx); err != nil {
		return nil, err
	}
	settled, lost, err := matchOrphans(ctx, tx, now, parts.operators, parts.keys)
	if err != nil {
		return nil, err
	}
	if err := s.desk.heedRefusals(ctx, tx, settled, now); err != nil {
		return nil, err
	}
	if err := optOutRefusers(ctx, tx, refusers, now); err != nil {
		return nil, err
	}
	left, err := s.desk.failOver(ctx, tx, now, lost)
	if err != nil {
		return nil, err
	}
	if err := recordHealth(ctx, tx, now, subscription.SMS, sick, well); err != nil {
		return nil, err
	}
	if err := s.desk.fallBack(ctx, tx, now, append(failed, left...)); err != nil {
		return nil, err
	}
	if len(jobs) > 0 {
		if _, err := s.desk.river.InsertManyFastTx(ctx, tx, jobs); err != nil {
			return nil, fmt.Errorf("insert retries: %w", err)
		}
	}
	return settled, nil
}

// partColumns gathers rows of delivery.part.
type partColumns struct {
	ids                               []int64
	ats, submitted                    []time.Time
	attempts, numbers, counts         []int16
	statuses                          []int64
	operators, messages, keys, states []string
}

func (c *partColumns) add(o outcome, now time.Time) {
	for _, p := range o.result.Parts {
		if !p.Written {
			continue
		}
		state := partAccepted
		if p.Answered && p.Status != 0 {
			state = partRefused
		}
		at := p.At
		if at.IsZero() {
			at = now
		}
		c.ids = append(c.ids, int64(o.row.key.id))
		c.ats = append(c.ats, o.row.key.at)
		c.submitted = append(c.submitted, at)
		c.attempts = append(c.attempts, o.row.attempt)
		c.numbers = append(c.numbers, int16(p.Number))
		c.counts = append(c.counts, int16(p.Count))
		c.statuses = append(c.statuses, int64(p.Status))
		c.operators = append(c.operators, o.result.Operator)
		c.messages = append(c.messages, clean(p.MessageID))
		c.keys = append(c.keys, clean(p.Key))
		c.states = append(c.states, state)
	}
}

func (c *partColumns) insert(ctx context.Context, tx pgx.Tx) error {
	if len(c.ids) == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO delivery.part (delivery_id, delivery_at, attempt, number, count, operator, message_id, message_key,
			status, state, submitted_at)
		SELECT * FROM unnest($1::bigint[], $2::timestamptz[], $3::smallint[], $4::smallint[], $5::smallint[], $6::text[],
			$7::text[], $8::text[], $9::bigint[], $10::text[], $11::timestamptz[])
		ON CONFLICT DO NOTHING`,
		c.ids, c.ats, c.attempts, c.numbers, c.counts, c.operators, c.messages, c.keys, c.statuses, c.states, c.submitted)
	if err != nil {
		return fmt.Errorf("store parts: %w", err)
	}
	return nil
}
