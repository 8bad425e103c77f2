package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"golang.org/x/sync/errgroup"

	"zvonok/gateway/carrier"
	"zvonok/gateway/email"
	"zvonok/gateway/subscription"
)

// Limits of letters.
const (
	mailJobs      = 4               // jobs worked at once; each sends as many letters at once as the sender has connections
	mailJobTime   = 4 * time.Minute // of a job of two hundred letters at a slow relay
	mailAtOnce    = 8
	mailRetryWait = 5 * time.Minute // when a failure does not say how long to wait
	mailLongest   = time.Hour       // to which the waits between attempts grow, for letters that live for a day
)

// mailOperator stands for the relay where an SMS has its operator.
const mailOperator = "mail"

// MailArgs sends letters that were stored together.
type MailArgs struct {
	At  time.Time `json:"at"`
	IDs []ID      `json:"ids"`
}

// Kind names the job in River.
func (MailArgs) Kind() string { return "mail" }

// Mailer is the e-mail side: it hands letters to the relay and writes what
// became of them.
type Mailer struct{ config MailerConfig }

// MailerConfig is what a Mailer needs.
type MailerConfig struct {
	Pool    *pgxpool.Pool
	Desk    *Desk
	Sender  *email.Sender
	Domain  string // of the Message-IDs
	Process string // this process's name, written into claimed rows
	// Unsubscribe returns the page that ends such letters to this recipient, or "".
	Unsubscribe func(address string) string
	Log         *slog.Logger
	Metrics     *Metrics
	Now         func() time.Time
}

// NewMailer returns a Mailer.
func NewMailer(c MailerConfig) *Mailer { return &Mailer{c} }

// Register adds the package's River worker for letters.
func (m *Mailer) Register(workers *river.Workers) { river.AddWorker(workers, &mailWorker{mailer: m}) }

// Queues are the River queues the Mailer works on.
func (m *Mailer) Queues() map[string]river.QueueConfig {
	return map[string]river.QueueConfig{MailQueue: {MaxWorkers: mailJobs}, BulkMailQueue: {MaxWorkers: bulkJobs}}
}

type mailWorker struct {
	river.WorkerDefaults[MailArgs]
	mailer *Mailer
}

// Timeout bounds a job.
func (w *mailWorker) Timeout(*river.Job[MailArgs]) time.Duration { return mailJobTime }

// Work sends the letters of a job and returns when the outcome of each is
// written. Letters that are no longer queued are done.
func (w *mailWorker) Work(ctx context.Context, job *river.Job[MailArgs]) error {
	m := w.mailer
	letters, err := m.claim(ctx, job.Args)
	if err != nil {
		return err
	}
	var group errgroup.Group
	group.SetLimit(mailAtOnce)
	for i := range letters {
		l := &letters[i]
		if l.state != Sending {
			continue
		}
		group.Go(func() error {
			l.outcome = m.config.Sender.Send(ctx, l.letter)
			return nil
		})
	}
	_ = group.Wait() // the outcomes are in the letters
	// What has been sent must be written even when the job's time is over.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	return pgx.BeginFunc(ctx, m.config.Pool, func(tx pgx.Tx) error { return m.settle(ctx, tx, job.Args.At, letters) })
}

// claimedLetter is a letter on its way.
type claimedLetter struct {
	row
	letter  email.Letter
	outcome error
}

// claim marks the job's queued letters as 'sending', or 'stale' past their
// life, and reads their content. Those that this process marked before are from
// an earlier try of this very job whose outcome could not be written; a letter's
// Message-ID lets the reader's side recognise the repetition.
func (m *Mailer) claim(ctx context.Context, args MailArgs) ([]claimedLetter, error) {
	ids := make([]int64, len(args.IDs))
	for i, id := range args.IDs {
		ids[i] = int64(id)
	}
	if err := m.config.Desk.reviewJob(ctx, m.config.Pool, m.config.Now(), args.At, args.IDs); err != nil {
		return nil, err
	}
	rows, err := m.config.Pool.Query(ctx, `
		WITH claimed AS (
			UPDATE delivery.delivery
			SET state      = CASE WHEN expires_at <= $1 THEN 'stale' ELSE 'sending' END,
			    reason     = CASE WHEN expires_at <= $1 THEN 'stale' ELSE reason END,
			    settled_at = CASE WHEN expires_at <= $1 THEN $1 END,
			    attempt    = CASE WHEN expires_at <= $1 THEN attempt ELSE attempt + 1 END,
			    sender = $2, sending_at = $1
			FROM`+withoutBrake+`
			WHERE id = ANY ($3) AND at = $4 AND channel = 'email'
			  AND (state = 'queued' OR state = 'sending' AND sender = $2)
			RETURNING id, at, state, attempt, failures, resent, again, topic, address, priority, expires_at, spare
		)
		SELECT c.*, l.subject, l.text_body, l.html_body, l.thread
		FROM claimed AS c JOIN delivery.letter AS l ON l.delivery_id = c.id AND l.at = c.at`,
		m.config.Now(), m.config.Process, ids, args.At)
	if err != nil {
		return nil, fmt.Errorf("mark letters as sending: %w", err)
	}
	letters, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (claimedLetter, error) {
		var (
			l      claimedLetter
			thread string
		)
		err := r.Scan(&l.key.id, &l.key.at, &l.state, &l.attempt, &l.failures, &l.resent, &l.again, &l.topic, &l.address,
			&l.priority, &l.expires, &l.spare, &l.letter.Subject, &l.letter.Text, &l.letter.HTML, &thread)
		l.letter.ID, l.letter.To, l.letter.Date = int64(l.key.id), l.address, l.key.at
		l.letter.MessageID = fmt.Sprintf("%d.%d@%s", l.key.id, l.key.at.Unix(), m.config.Domain)
		if thread != "" {
			l.letter.References = []string{thread + "@" + m.config.Domain}
		}
		l.letter.Unsubscribe = m.config.Unsubscribe(l.address)
		return l, err
	})
	if err != nil {
		return nil, fmt.Errorf("mark letters as sending: %w", err)
	}
	return letters, nil
}

// decideLetter says what the outcome of a letter means. Unlike an SMS a letter
// is tried for as long as it lives: relays answer 4xx for hours (greylisting),
// and that is nobody's fault.
func decideLetter(now time.Time, l claimedLetter) verdict {
	v := verdict{failures: l.failures, resent: l.resent}
	if l.outcome == nil {
		v.state = Sent // the relay has it; that the mailbox exists is not proved by that
		return v
	}
	var failure *email.Error
	if !errors.As(l.outcome, &failure) {
		failure = &email.Error{Class: email.Temporary, RetryAfter: mailRetryWait}
	}
	v.reason = fmt.Sprintf("%s %d %d.%d.%d", failure.Class, failure.Code,
		failure.Enhanced[0], failure.Enhanced[1], failure.Enhanced[2])
	switch failure.Class {
	case email.Address:
		v.state, v.health = Failed, -1
	case email.Refused:
		v.state = Failed
	case email.Unknown:
		v.state = Unknown
		if !l.resent && l.again != Never && failure.RetryAfter > 0 {
			v.retryAt = now.Add(failure.RetryAfter)
		}
	default: // Temporary, HostDown, Reputation, Misconfigured: the letter is untouched
		wait := max(failure.RetryAfter, time.Second)
		if failure.Class == email.Temporary {
			if l.again != Fresh { // a pass has not the life to be patient
				wait = max(wait, min(wait<<min(v.failures, 8), mailLongest))
			}
			v.failures++
		}
		v.state, v.retryAt = Queued, now.Add(wait)
		if !v.retryAt.Before(l.expires) {
			v.state, v.retryAt = Stale, time.Time{}
		}
	}
	return v
}

// settle writes the outcomes of a job's letters and the jobs that try again.
func (m *Mailer) settle(ctx context.Context, tx pgx.Tx, at time.Time, letters []claimedLetter) error {
	now := m.config.Now()
	var (
		ids, statuses      []int64
		attempts, failures []int16
		states, reasons    []string
		messages           []string
		sick               []string
		jobs               []river.InsertManyParams
		failed             []rowKey
	)
	for _, l := range letters {
		if l.state != Sending {
			continue
		}
		v := decideLetter(now, l)
		m.config.Metrics.outcome(mailOperator, classOf(v.state))
		ids = append(ids, int64(l.key.id))
		attempts = append(attempts, l.attempt)
		failures = append(failures, v.failures)
		states = append(states, string(v.state))
		reasons = append(reasons, v.reason)
		messages = append(messages, l.letter.MessageID)
		if v.state == Failed && l.spare {
			failed = append(failed, l.key)
		}
		status := int64(250)
		var failure *email.Error
		if errors.As(l.outcome, &failure) {
			status = int64(failure.Code)
		}
		statuses = append(statuses, status)
		if v.health < 0 {
			sick = append(sick, l.address)
		}
		if v.retryAt.IsZero() {
			continue
		}
		options := &river.InsertOpts{Queue: mailQueue(l.priority), Priority: int(l.priority), ScheduledAt: v.retryAt}
		if v.state == Unknown {
			options.Queue = ResolveQueue
			jobs = append(jobs, river.InsertManyParams{Args: ResolveArgs{At: at, IDs: []ID{l.key.id}}, InsertOpts: options})
		} else {
			jobs = append(jobs, river.InsertManyParams{Args: MailArgs{At: at, IDs: []ID{l.key.id}}, InsertOpts: options})
		}
	}
	if len(ids) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, `
		UPDATE delivery.delivery AS d
		SET state = CASE WHEN o.state = 'queued' AND d.recalled THEN 'recalled' ELSE o.state END,
		    reason = nullif(o.reason, ''), failures = o.failures, operator = $1,
		    settled_at = CASE WHEN NOT d.recalled AND o.state IN ('queued', 'unknown') THEN NULL ELSE $2::timestamptz END
		FROM unnest($3::bigint[], $4::smallint[], $5::text[], $6::text[], $7::smallint[])
			AS o (id, attempt, state, reason, failures)
		WHERE d.id = o.id AND d.at = $8 AND d.attempt = o.attempt AND d.state = 'sending'`,
		mailOperator, now, ids, attempts, states, reasons, failures, at); err != nil {
		return fmt.Errorf("update letters: %w", err)
	}
	// The Message-ID is kept for explain; no receipt will ask for it, so it has no key.
	if _, err := tx.Exec(ctx, `
		INSERT INTO delivery.part (delivery_id, delivery_at, attempt, number, count, operator, message_id, message_key,
			status, state, submitted_at)
		SELECT id, $1, attempt, 1, 1, $2, message, '', status,
			CASE WHEN status = 250 THEN 'accepted' WHEN state = 'unknown' THEN 'unknown' ELSE 'refused' END, $3
		FROM unnest($4::bigint[], $5::smallint[], $6::text[], $7::bigint[], $8::text[]) AS p (id, attempt, message, status, state)
		ON CONFLICT DO NOTHING`, at, mailOperator, now, ids, attempts, messages, statuses, states); err != nil {
		return fmt.Errorf("store the letters' attempts: %w", err)
	}
	if err := recordHealth(ctx, tx, now, subscription.Email, sick, nil); err != nil {
		return err
	}
	if len(jobs) > 0 {
		if _, err := m.config.Desk.river.InsertManyFastTx(ctx, tx, jobs); err != nil {
			return fmt.Errorf("insert retries: %w", err)
		}
	}
	return m.config.Desk.fallBack(ctx, tx, now, failed)
}

// classOf is the outcome class of a letter's new state, for the metric.
func classOf(s State) carrier.Class {
	switch s {
	case Sent:
		return carrier.OK
	case Queued:
		return carrier.Temporary
	case Unknown:
		return carrier.Unknown
	case Stale:
		return carrier.Stale
	default:
		return carrier.PermanentRecipient
	}
}

// Bounced settles a letter whose bounce came later (RFC 3464): it is the mail
// intake's callback. The id has been signed by us.
func (m *Mailer) Bounced(ctx context.Context, b email.Bounce) error {
	now := m.config.Now()
	return pgx.BeginFunc(ctx, m.config.Pool, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
			UPDATE delivery.delivery SET state = 'failed', reason = $2, settled_at = $3
			WHERE id = $1 AND channel = 'email' AND state IN ('sent', 'unknown', 'sending') AND at > $3::timestamptz - interval '14 days'
			RETURNING id, at, address`, b.ID, "bounce "+string(b.Class), now)
		if err != nil {
			return fmt.Errorf("settle a bounced letter: %w", err)
		}
		var (
			lost      []rowKey
			key       rowKey
			addresses []string
			address   string
		)
		if _, err := pgx.ForEachRow(rows, []any{&key.id, &key.at, &address}, func() error {
			lost, addresses = append(lost, key), append(addresses, address)
			return nil
		}); err != nil {
			return fmt.Errorf("settle a bounced letter: %w", err)
		}
		switch b.Class {
		case email.Address:
			if err := recordHealth(ctx, tx, now, subscription.Email, addresses, nil); err != nil {
				return err
			}
		case email.Reputation: // the destination is at fault, not the address
			for _, address := range addresses {
				m.config.Sender.Pause(address)
			}
		}
		return m.config.Desk.fallBack(ctx, tx, now, lost)
	})
}
