package delivery

import (
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"golang.org/x/sync/errgroup"

	"zvonok/gateway/carrier"
	"zvonok/gateway/push"
	"zvonok/gateway/subscription"
	"zvonok/ledger/pg"
)

// Limits of push messages.
const (
	pushJobs    = 8
	pushJobTime = 2 * time.Minute
	pushAtOnce  = 32 // messages of a job on their way to push services

	ackBatch   = 500 // proofs of delivery written in one transaction
	ackWait    = 20 * time.Millisecond
	ackTimeout = 10 * time.Second
	ackMAC     = 12 // octets; nobody guesses 96 bits over HTTP
)

// pushOperator stands for the push services where an SMS has its operator.
const pushOperator = "push"

// Queues of push messages.
const (
	PushQueue     = "push"
	BulkPushQueue = "push_bulk"
)

// PushArgs sends push messages that were stored together.
type PushArgs struct {
	At  time.Time `json:"at"`
	IDs []ID      `json:"ids"`
}

// Kind names the job in River.
func (PushArgs) Kind() string { return "push" }

// Pusher is the push side: it has messages brought to every browser of their
// recipients, writes what became of them, and takes the proofs that they were
// shown.
//
// A message is 'sent' once one browser's push service has it, 'delivered' once a
// browser has said that it was shown. Browsers whose service says "later" get it
// later, those that have it do not get it again: each browser is a part.
type Pusher struct {
	config PusherConfig
	mac    []byte
	acks   *pg.Gatherer[rowKey, struct{}]
}

// PusherConfig is what a Pusher needs.
type PusherConfig struct {
	Pool    *pgxpool.Pool
	Desk    *Desk
	Sender  *push.Sender
	Process string // this process's name, written into claimed rows
	// Key is a secret of at least 32 octets, the same for all processes and after a restart: it signs what proves a
	// delivery.
	Key     []byte
	Log     *slog.Logger
	Metrics *Metrics
	Now     func() time.Time
}

// NewPusher returns a Pusher. It fails when the key is too short.
func NewPusher(c PusherConfig) (*Pusher, error) {
	if len(c.Key) < 32 {
		return nil, errors.New("the key of proofs of delivery has fewer than 32 octets")
	}
	mac, err := hkdf.Key(sha256.New, c.Key, nil, "proofs of push delivery", 32)
	if err != nil {
		return nil, fmt.Errorf("derive the key of proofs of delivery: %w", err)
	}
	p := &Pusher{config: c, mac: mac}
	p.acks = pg.NewGatherer(pg.GathererConfig{Max: ackBatch, Wait: ackWait, Parallel: 1}, p.acknowledge)
	return p, nil
}

// Close waits until the proofs that have come are written.
func (p *Pusher) Close() { p.acks.Close() }

// Register adds the package's River worker for push messages.
func (p *Pusher) Register(workers *river.Workers) { river.AddWorker(workers, &pushWorker{pusher: p}) }

// Queues are the River queues the Pusher works on.
func (p *Pusher) Queues() map[string]river.QueueConfig {
	return map[string]river.QueueConfig{
		PushQueue:     {MaxWorkers: pushJobs, FetchCooldown: 20 * time.Millisecond},
		BulkPushQueue: {MaxWorkers: bulkJobs},
	}
}

type pushWorker struct {
	river.WorkerDefaults[PushArgs]
	pusher *Pusher
}

// Timeout bounds a job.
func (w *pushWorker) Timeout(*river.Job[PushArgs]) time.Duration { return pushJobTime }

// Work sends the messages of a job and returns when the outcome of each is
// written.
func (w *pushWorker) Work(ctx context.Context, job *river.Job[PushArgs]) error {
	p := w.pusher
	messages, err := p.claim(ctx, job.Args)
	if err != nil || len(messages) == 0 {
		return err
	}
	var group errgroup.Group
	group.SetLimit(pushAtOnce)
	for i := range messages {
		m := &messages[i]
		for n := range m.browsers {
			group.Go(func() error {
				b := &m.browsers[n]
				b.at = p.config.Now()
				b.outcome = p.config.Sender.Send(ctx, b.endpoint, push.Message{
					Payload: m.payload, TTL: m.expires.Sub(b.at), Urgency: urgency(m.priority), Topic: m.tag(),
				})
				return nil
			})
		}
	}
	_ = group.Wait() // the outcomes are in the messages
	// What has been sent must be written even when the job's time is over.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	return pgx.BeginFunc(ctx, p.config.Pool, func(tx pgx.Tx) error { return p.settle(ctx, tx, job.Args.At, messages) })
}

func urgency(p carrier.Priority) push.Urgency {
	switch p {
	case carrier.Urgent:
		return push.High
	case carrier.Bulk:
		return push.Low
	default:
		return push.Normal
	}
}

// claimedPush is a push message on its way.
type claimedPush struct {
	row
	payload  []byte
	had      bool // a browser has it since an earlier attempt
	browsers []pushTry
}

// pushTry is one browser of a message's recipient.
type pushTry struct {
	endpoint push.Endpoint
	at       time.Time
	outcome  error
}

// tag names a message towards push services and screens: a repetition replaces
// its first copy.
func (m *claimedPush) tag() string { return "n" + strconv.FormatInt(int64(m.key.id), 36) }

// claim marks the job's queued messages as 'sending', or 'stale' past their
// life, and finds the browsers that do not have them yet. A message that some
// browser has stays 'sent' while it goes to the others.
func (p *Pusher) claim(ctx context.Context, args PushArgs) ([]claimedPush, error) {
	now := p.config.Now()
	ids := make([]int64, len(args.IDs))
	for i, id := range args.IDs {
		ids[i] = int64(id)
	}
	if err := p.config.Desk.reviewJob(ctx, p.config.Pool, now, args.At, args.IDs); err != nil {
		return nil, err
	}
	rows, err := p.config.Pool.Query(ctx, `
		UPDATE delivery.delivery
		SET state      = CASE WHEN state = 'sent' THEN 'sent' WHEN expires_at <= $1 THEN 'stale' ELSE 'sending' END,
		    reason     = CASE WHEN state <> 'sent' AND expires_at <= $1 THEN 'stale' ELSE reason END,
		    settled_at = CASE WHEN state = 'sent' THEN settled_at WHEN expires_at <= $1 THEN $1 END,
		    attempt    = CASE WHEN expires_at <= $1 THEN attempt ELSE attempt + 1 END,
		    sender = $2, sending_at = coalesce(sending_at, $1)
		FROM`+withoutBrake+`
		WHERE id = ANY ($3) AND at = $4 AND channel = 'push' AND NOT recalled
		  AND (state IN ('queued', 'sent') OR state = 'sending' AND sender = $2)
		RETURNING id, at, state, attempt, failures, resent, again, topic, address, priority, expires_at, spare, body`,
		now, p.config.Process, ids, args.At)
	if err != nil {
		return nil, fmt.Errorf("mark push messages as sending: %w", err)
	}
	var addresses []string
	messages, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (claimedPush, error) {
		var (
			m    claimedPush
			body string
		)
		if err := r.Scan(&m.key.id, &m.key.at, &m.state, &m.attempt, &m.failures, &m.resent, &m.again, &m.topic, &m.address,
			&m.priority, &m.expires, &m.spare, &body); err != nil {
			return m, err
		}
		addresses = append(addresses, m.address)
		var err error
		m.payload, err = json.Marshal(struct {
			Body string `json:"body"`
			Tag  string `json:"tag"`
			At   int64  `json:"at"`
			Ack  string `json:"ack"`
		}{body, m.tag(), m.key.at.Unix(), p.token(m.key)})
		return m, err
	})
	if err != nil {
		return nil, fmt.Errorf("mark push messages as sending: %w", err)
	}
	has, err := p.haveTaken(ctx, args.At, messages)
	if err != nil {
		return nil, err
	}
	endpoints, err := push.Endpoints(ctx, p.config.Pool, addresses)
	if err != nil {
		return nil, err
	}
	due := messages[:0]
	for _, m := range messages {
		m.had = m.state == Sent
		if m.state == Stale || m.state == Sent && !now.Before(m.expires) {
			continue
		}
		for _, e := range endpoints[m.address] {
			if !has[taken{m.key.id, e.ID}] {
				m.browsers = append(m.browsers, pushTry{endpoint: e})
			}
		}
		due = append(due, m)
	}
	return due, nil
}

// taken names a message that a browser has.
type taken struct {
	id      ID
	browser push.BrowserID
}

// haveTaken reads which browsers have which messages since earlier attempts.
func (p *Pusher) haveTaken(ctx context.Context, at time.Time, messages []claimedPush) (map[taken]bool, error) {
	var again []int64
	for _, m := range messages {
		if m.attempt > 1 {
			again = append(again, int64(m.key.id))
		}
	}
	if len(again) == 0 {
		return nil, nil
	}
	rows, err := p.config.Pool.Query(ctx, `
		SELECT delivery_id, message_id::bigint FROM delivery.part
		WHERE delivery_id = ANY ($1) AND delivery_at = $2 AND submitted_at >= $2::timestamptz - interval '1 day'
		  AND operator = $3 AND state = 'accepted'`, again, at, pushOperator)
	if err != nil {
		return nil, fmt.Errorf("find the browsers that have a message: %w", err)
	}
	has := map[taken]bool{}
	var t taken
	if _, err := pgx.ForEachRow(rows, []any{&t.id, &t.browser}, func() error { has[t] = true; return nil }); err != nil {
		return nil, fmt.Errorf("find the browsers that have a message: %w", err)
	}
	return has, nil
}

// decidePush says what the outcomes of a message at its recipient's browsers
// mean. Like a letter it is tried for as long as it lives.
func decidePush(now time.Time, m claimedPush) verdict {
	v := verdict{failures: m.failures, resent: m.resent, state: Failed, reason: "no browser is registered"}
	if m.had {
		v.state, v.reason = Sent, ""
	}
	var wait time.Duration
	for _, b := range m.browsers {
		var wrong *push.Error
		switch {
		case b.outcome == nil:
			v.state = Sent
			continue
		case !errors.As(b.outcome, &wrong):
			wrong = &push.Error{Class: push.HostDown, RetryAfter: mailRetryWait}
		}
		if v.state != Sent {
			v.reason = fmt.Sprintf("%s %d", wrong.Class, wrong.Status)
		}
		if wrong.RetryAfter > 0 && (wait == 0 || wrong.RetryAfter < wait) {
			wait = wrong.RetryAfter
		}
	}
	if v.state == Sent {
		v.reason = ""
	}
	if wait == 0 {
		return v
	}
	later := now.Add(max(wait, time.Second))
	switch {
	case later.Before(m.expires):
		v.retryAt = later
		if v.state != Sent {
			v.state = Queued
		}
	case v.state != Sent:
		v.state = Stale
	}
	return v
}

// settle writes the outcomes of a job's messages and the jobs that try again.
func (p *Pusher) settle(ctx context.Context, tx pgx.Tx, at time.Time, messages []claimedPush) error {
	now := p.config.Now()
	var (
		ids                []int64
		attempts, failures []int16
		states, reasons    []string
		lost               []rowKey
		jobs               []river.InsertManyParams
		learned            push.Outcomes
		parts              pushParts
	)
	for _, m := range messages {
		v := decidePush(now, m)
		p.config.Metrics.outcome(pushOperator, classOf(v.state))
		ids = append(ids, int64(m.key.id))
		attempts = append(attempts, m.attempt)
		failures = append(failures, v.failures)
		states = append(states, string(v.state))
		reasons = append(reasons, v.reason)
		if v.state == Failed && m.spare {
			lost = append(lost, m.key)
		}
		for n, b := range m.browsers {
			parts.add(m, n, b)
			var wrong *push.Error
			switch {
			case b.outcome == nil:
				learned.Taken = append(learned.Taken, b.endpoint.ID)
			case errors.As(b.outcome, &wrong) && wrong.Class == push.Gone:
				learned.Gone = append(learned.Gone, b.endpoint.ID)
			case errors.As(b.outcome, &wrong) && wrong.Class == push.Refused:
				learned.Refused = append(learned.Refused, b.endpoint.ID)
			}
		}
		if !v.retryAt.IsZero() {
			jobs = append(jobs, river.InsertManyParams{
				Args: PushArgs{At: at, IDs: []ID{m.key.id}},
				InsertOpts: &river.InsertOpts{
					Queue: queueOf(subscription.Push, "", m.priority), Priority: int(m.priority), ScheduledAt: v.retryAt,
				},
			})
		}
	}
	if len(ids) == 0 {
		return nil
	}
	// A browser may have shown it already.
	if _, err := tx.Exec(ctx, `
		UPDATE delivery.delivery AS d
		SET state = CASE WHEN o.state = 'queued' AND d.recalled THEN 'recalled' ELSE o.state END,
		    reason = nullif(o.reason, ''), failures = o.failures, operator = $1,
		    settled_at = CASE WHEN NOT d.recalled AND o.state = 'queued' THEN NULL ELSE $2::timestamptz END
		FROM unnest($3::bigint[], $4::smallint[], $5::text[], $6::text[], $7::smallint[])
			AS o (id, attempt, state, reason, failures)
		WHERE d.id = o.id AND d.at = $8 AND d.attempt = o.attempt AND d.state IN ('sending', 'sent')`,
		pushOperator, now, ids, attempts, states, reasons, failures, at); err != nil {
		return fmt.Errorf("update push messages: %w", err)
	}
	if err := parts.insert(ctx, tx, at); err != nil {
		return err
	}
	if err := push.Learn(ctx, tx, learned, now); err != nil {
		return err
	}
	if len(jobs) > 0 {
		if _, err := p.config.Desk.river.InsertManyFastTx(ctx, tx, jobs); err != nil {
			return fmt.Errorf("insert retries: %w", err)
		}
	}
	return p.config.Desk.fallBack(ctx, tx, now, lost)
}

// pushParts gathers rows of delivery.part: one for each browser and attempt,
// with the browser's id where an SMS has the operator's.
type pushParts struct {
	ids, browsers, statuses   []int64
	attempts, numbers, counts []int16
	submitted                 []time.Time
}

func (c *pushParts) add(m claimedPush, n int, b pushTry) {
	status := int64(http.StatusCreated)
	if b.outcome != nil {
		status = 0
		var wrong *push.Error
		if errors.As(b.outcome, &wrong) {
			status = int64(wrong.Status)
		}
	}
	c.ids = append(c.ids, int64(m.key.id))
	c.browsers = append(c.browsers, int64(b.endpoint.ID))
	c.statuses = append(c.statuses, status)
	c.attempts = append(c.attempts, m.attempt)
	c.numbers = append(c.numbers, int16(n+1))
	c.counts = append(c.counts, int16(len(m.browsers)))
	c.submitted = append(c.submitted, b.at)
}

func (c *pushParts) insert(ctx context.Context, tx pgx.Tx, at time.Time) error {
	if len(c.ids) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, `
		INSERT INTO delivery.part (delivery_id, delivery_at, attempt, number, count, operator, message_id, message_key,
			status, state, submitted_at)
		SELECT id, $1, attempt, number, count, $2, browser::text, '', status,
			CASE WHEN status = 201 THEN 'accepted' ELSE 'refused' END, submitted
		FROM unnest($3::bigint[], $4::bigint[], $5::bigint[], $6::smallint[], $7::smallint[], $8::smallint[], $9::timestamptz[])
			AS p (id, browser, status, attempt, number, count, submitted)
		ON CONFLICT DO NOTHING`, at, pushOperator, c.ids, c.browsers, c.statuses, c.attempts, c.numbers, c.counts,
		c.submitted); err != nil {
		return fmt.Errorf("store the attempts of push messages: %w", err)
	}
	return nil
}

// token names a delivery to the browser that shows it, signed: whoever has it
// can say that the message was shown, and nothing else.
func (p *Pusher) token(key rowKey) string {
	raw := binary.BigEndian.AppendUint64(nil, uint64(key.id))
	raw = binary.BigEndian.AppendUint64(raw, uint64(key.at.UnixMicro()))
	return base64.RawURLEncoding.EncodeToString(append(raw, p.sign(raw)...))
}

func (p *Pusher) sign(raw []byte) []byte {
	mac := hmac.New(sha256.New, p.mac)
	mac.Write(raw)
	return mac.Sum(nil)[:ackMAC]
}

func (p *Pusher) openToken(token string) (rowKey, bool) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(raw) != 16+ackMAC || !hmac.Equal(raw[16:], p.sign(raw[:16])) {
		return rowKey{}, false
	}
	return rowKey{
		ID(binary.BigEndian.Uint64(raw)), time.UnixMicro(int64(binary.BigEndian.Uint64(raw[8:]))),
	}, true
}

// ServeHTTP takes the proofs that messages were shown, at [push.AckPath]. It
// needs no session: a service worker has none when it wakes.
func (p *Pusher) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	key, ok := p.openToken(strings.TrimPrefix(r.URL.Path, push.AckPath))
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if _, err := p.acks.Do(r.Context(), key); err != nil {
		p.config.Log.Warn("note that a push message was shown", "error", err)
		w.Header().Set("Retry-After", "10")
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// acknowledge settles the messages of a batch of proofs.
func (p *Pusher) acknowledge(ctx context.Context, keys []rowKey) ([]struct{}, error) {
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	ids, ats := split(keys)
	tag, err := p.config.Pool.Exec(ctx, `
		UPDATE delivery.delivery AS d
		SET state = 'delivered', reason = NULL, settled_at = $1
		FROM unnest($2::bigint[], $3::timestamptz[]) AS k (id, at)
		WHERE d.id = k.id AND d.at = k.at AND d.channel = 'push' AND d.state IN ('sending', 'sent', 'unknown')`,
		p.config.Now(), ids, ats)
	if err != nil {
		return nil, fmt.Errorf("settle push messages: %w", err)
	}
	for range tag.RowsAffected() {
		p.config.Metrics.receipt(pushOperator, partDelivered)
	}
	return make([]struct{}, len(keys)), nil
}
