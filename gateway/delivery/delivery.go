package delivery

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"zvonok/access"
	"zvonok/access/phone"
	"zvonok/gateway/carrier"
	"zvonok/gateway/subscription"
	"zvonok/ledger"
	"zvonok/ledger/pg"
)

// Limits of the package.
const (
	jobSize = 200 // messages per River job: large enough to cost little, small enough to share the queue

	claimSize = 256  // messages marked 'sending' in one statement
	maxFlying = 1024 // of an operator, claimed and without a written outcome: what a crash puts in doubt

	resultBatch = 500                   // outcomes written in one transaction
	resultWait  = 15 * time.Millisecond // how long the first outcome waits for company

	jobPatience = 45 * time.Second // a job gives its unsent messages back after this, below River's rescue of stuck jobs

	maxFailures = 6 // counted failures, over all operators, before a message fails for good (smpp.md, TMP)

	maxLate  = 100_000          // rows remembered for a late answer
	lateLife = 10 * time.Minute // for so long

	deadAfterRefusals = 2                   // permanent refusals in a row before an address counts as dead
	refusalMemory     = 30 * 24 * time.Hour // for so long a refusal counts

	freshWait = 15 * time.Second // an unknown pass waits this long for a receipt before it is sent again
	laterWait = 10 * time.Minute // an unknown top-up or threshold waits this long
)

// ID names a delivery. Its row is found by (id, at).
type ID int64

// State is where a delivery stands; the package comment draws the transitions.
type State string

// The states.
const (
	Queued    State = "queued"
	Sending   State = "sending"
	Sent      State = "sent"
	Delivered State = "delivered"
	Unproved  State = "unproved" // the operator took it, and a day after its last word no receipt has settled it
	Unknown   State = "unknown"
	Partial   State = "partial" // some parts were taken, some refused for good
	Failed    State = "failed"
	Stale     State = "stale"
	Recalled  State = "recalled"
)

// Again says whether a message with an unknown outcome may be sent a second
// time (smpp.md, Unknown outcomes).
type Again string

// The answers to an unknown outcome.
const (
	Never Again = "never" // a login code: the person asks for another one
	Fresh Again = "fresh" // a pass: once, within its life
	Later Again = "later" // money: once, after ten minutes
)

// Draft is a message that is not stored yet.
type Draft struct {
	Event          ledger.EventID
	Joined         []ledger.EventID        // further ones that it tells of: siblings' news
	Representative access.RepresentativeID // 0 when the recipient is only a phone
	// Children are those it tells of: when it has waited, it is sent only if its recipient may still know of all of them.
	Children     []ledger.PersonID
	Organisation ledger.OrganisationID // whose news it is, for a recall; 0 for none
	Topic        string                // a closed list: the topics of notices and 'code', 'reply', 'service'
	Channel      subscription.Channel
	Address      string // digits of a phone, a mailbox, or push.Address
	Priority     carrier.Priority
	Again        Again
	Expires      time.Time // the end of its life: not sent after it
	NotBefore    time.Time // quiet hours: zero means now
	Body         string
	Letter       *Letter // for channel email
	// Family names what a sibling's news may share while this waits; "" stands alone (see [Extend]).
	Family string
	Placed bool   // an SMS that has its place of the phone's day, or needs none (see [Desk.Places])
	Spare  *Spare // the same message for the next channel; nil for none
}

// Letter is the content of an e-mail.
type Letter struct {
	Subject, Text, HTML string
	// Thread names a conversation that a reader's program shows as one, "child-17.20261123"; "" for none.
	Thread string
}

// Desk stores drafts and inserts the jobs that send them. One Desk serves all
// of the process.
type Desk struct {
	river *river.Client[pgx.Tx]
	route func(phone.Number) []string
	ids   idBlock

	// RefusedBulk is set before use, or left empty.
	RefusedBulk RefusedBulk
	// SMSPerDay is how many SMS of news a phone gets in a day (see [Desk.Places]), 0 for any number; set before use.
	SMSPerDay int
}

// NewDesk returns a Desk. Route names the operators for a number in order of
// preference (carrier.Exchange.Route).
func NewDesk(client *river.Client[pgx.Tx], route func(phone.Number) []string) *Desk {
	return &Desk{river: client, route: route}
}

// Stored is where a draft's row is found.
type Stored struct {
	ID ID
	At time.Time
	// NoRoute says of a draft just stored that no operator takes its number, so that it failed at once.
	NoRoute bool
}

// Enqueue stores drafts as 'queued' and inserts the jobs that send them, all in
// the caller's transaction: a handful of statements whatever the number of drafts. It
// returns one Stored per draft, in order. A draft for which no operator has a
// route is stored as 'failed' with the reason no_route, so that it can be
// explained; it is never silently lost.
func (d *Desk) Enqueue(ctx context.Context, tx pgx.Tx, now time.Time, drafts []Draft) ([]Stored, error) {
	if len(drafts) == 0 {
		return nil, nil
	}
	now = now.Truncate(time.Microsecond) // as PostgreSQL keeps it: (id, at) must find the row again
	if err := d.place(ctx, tx, now, drafts); err != nil {
		return nil, err
	}
	first, err := d.ids.take(ctx, tx, len(drafts))
	if err != nil {
		return nil, err
	}
	stored := make([]Stored, len(drafts))
	var (
		row     columns
		letters letterColumns
		spares  spareColumns
		watches watchList
		refused []rowKey
		jobs    = map[jobKey][]ID{}
		order   []jobKey
	)
	for i, draft := range drafts {
		id := first[i]
		stored[i] = Stored{ID: id, At: now}
		operator, state, reason := "", Queued, ""
		key := jobKey{queue: queueOf(draft.Channel, "", draft.Priority), kind: draft.Channel, priority: draft.Priority, notBefore: draft.NotBefore}
		if draft.Channel == subscription.SMS {
			routes := d.route(phone.Number(draft.Address))
			if len(routes) == 0 {
				state, reason = Failed, "no_route"
				stored[i].NoRoute = true
			} else {
				operator = routes[0]
				key.queue, key.operator = queueOf(draft.Channel, operator, draft.Priority), operator
			}
		}
		row.add(id, draft, state, operator, reason)
		if draft.Letter != nil {
			letters.add(id, *draft.Letter)
		}
		if draft.Spare != nil {
			spares.add(id, *draft.Spare)
		}
		if state != Queued {
			refused = append(refused, rowKey{id, now})
			continue
		}
		if draft.Spare != nil && draft.Channel != subscription.Email { // nobody proves that a letter has arrived
			watches.add(id, draft, now)
		}
		if _, seen := jobs[key]; !seen {
			order = append(order, key)
		}
		jobs[key] = append(jobs[key], id)
	}
	if err := row.insert(ctx, tx, now); err != nil {
		return nil, err
	}
	if err := letters.insert(ctx, tx, now); err != nil {
		return nil, err
	}
	if err := spares.insert(ctx, tx, now); err != nil {
		return nil, err
	}
	params := watches.params(now)
	for _, key := range order {
		for ids := jobs[key]; len(ids) > 0; {
			n := min(jobSize, len(ids))
			params = append(params, key.params(now, ids[:n]))
			ids = ids[n:]
		}
	}
	if len(params) > 0 {
		if _, err := d.river.InsertManyFastTx(ctx, tx, params); err != nil {
			return nil, fmt.Errorf("insert send jobs: %w", err)
		}
	}
	return stored, d.fallBack(ctx, tx, now, refused)
}

// jobKey groups drafts that can share a job.
type jobKey struct {
	queue, operator string
	kind            subscription.Channel
	priority        carrier.Priority
	notBefore       time.Time
}

func (k jobKey) params(at time.Time, ids []ID) river.InsertManyParams {
	options := &river.InsertOpts{Queue: k.queue, Priority: int(k.priority), ScheduledAt: k.notBefore}
	var args river.JobArgs
	switch k.kind {
	case subscription.SMS:
		args = SMSArgs{Operator: k.operator, At: at, IDs: ids}
	case subscription.Push:
		args = PushArgs{At: at, IDs: ids}
	default:
		args = MailArgs{At: at, IDs: ids}
	}
	return river.InsertManyParams{Args: args, InsertOpts: options}
}

// columns gathers rows of delivery.delivery for one INSERT by unnest.
type columns struct {
	ids, events, representatives, orgs    []int64
	topics, channels, addresses           []string
	priorities                            []int16
	again, bodies, states, operators, why []string
	families, joined, children            []string
	spares                                []bool
	expires                               []time.Time
}

func (c *columns) add(id ID, d Draft, state State, operator, reason string) {
	c.ids = append(c.ids, int64(id))
	c.events = append(c.events, int64(d.Event))
	c.representatives = append(c.representatives, int64(d.Representative))
	c.orgs = append(c.orgs, int64(d.Organisation))
	c.families = append(c.families, d.Family)
	c.joined = append(c.joined, joinIDs(d.Joined))
	c.children = append(c.children, joinIDs(d.Children))
	c.spares = append(c.spares, d.Spare != nil)
	c.topics = append(c.topics, d.Topic)
	c.channels = append(c.channels, string(d.Channel))
	c.addresses = append(c.addresses, d.Address)
	c.priorities = append(c.priorities, int16(d.Priority))
	c.again = append(c.again, string(d.Again))
	c.expires = append(c.expires, d.Expires)
	body := d.Body
	if body == "" && d.Letter != nil && slices.Contains(private, d.Topic) {
		body = d.Letter.Subject // EraseSecrets finds what has a body
	}
	c.bodies = append(c.bodies, body)
	c.states = append(c.states, string(state))
	c.operators = append(c.operators, operator)
	c.why = append(c.why, reason)
}

func (c *columns) insert(ctx context.Context, tx pgx.Tx, now time.Time) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO delivery.delivery (id, at, event_id, representative_id, topic, channel, address, priority,
			again, expires_at, body, state, operator, reason, tried, organisation_id, family, spare, joined, children)
		SELECT id, $1, event, nullif(representative, 0), topic, channel, address, priority,
			again, expires, body, state, nullif(operator, ''), nullif(reason, ''),
			CASE WHEN operator = '' THEN '{}' ELSE ARRAY[operator] END, nullif(organisation, 0), nullif(family, ''), spare,
			string_to_array(joined, ',')::bigint[], string_to_array(children, ',')::bigint[]
		FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::smallint[],
			$9::text[], $10::timestamptz[], $11::text[], $12::text[], $13::text[], $14::text[], $15::bigint[], $16::text[],
			$17::boolean[], $18::text[], $19::text[])
			AS r (id, event, representative, topic, channel, address, priority, again, expires, body, state, operator, reason,
				organisation, family, spare, joined, children)`,
		now, c.ids, c.events, c.representatives, c.topics, c.channels, c.addresses, c.priorities,
		c.again, c.expires, c.bodies, c.states, c.operators, c.why, c.orgs, c.families, c.spares, c.joined, c.children)
	if err != nil {
		return fmt.Errorf("store deliveries: %w", err)
	}
	return nil
}

type letterColumns struct {
	ids                           []int64
	subjects, text, html, threads []string
}

func (c *letterColumns) add(id ID, l Letter) {
	c.ids = append(c.ids, int64(id))
	c.subjects = append(c.subjects, l.Subject)
	c.text = append(c.text, l.Text)
	c.html = append(c.html, l.HTML)
	c.threads = append(c.threads, l.Thread)
}

func (c *letterColumns) insert(ctx context.Context, tx pgx.Tx, now time.Time) error {
	if len(c.ids) == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO delivery.letter (delivery_id, at, subject, text_body, html_body, thread)
		SELECT id, $1, subject, text_body, html_body, thread
		FROM unnest($2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[]) AS r (id, subject, text_body, html_body, thread)`,
		now, c.ids, c.subjects, c.text, c.html, c.threads)
	if err != nil {
		return fmt.Errorf("store letters: %w", err)
	}
	return nil
}

// idBlock hands out delivery ids from blocks of the sequence, which steps by
// blockSize. Ids of a block that a stopped process did not use are gaps.
type idBlock struct {
	mu        sync.Mutex
	next, end int64
}

const blockSize = 1000 // INCREMENT BY of delivery.delivery_block

func (b *idBlock) take(ctx context.Context, q pg.Querier, n int) ([]ID, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	ids := make([]ID, 0, n)
	for len(ids) < n {
		if b.next == b.end {
			var start int64
			if err := q.QueryRow(ctx, `SELECT nextval('delivery.delivery_block')`).Scan(&start); err != nil {
				return nil, fmt.Errorf("take delivery ids: %w", err)
			}
			b.next, b.end = start, start+blockSize
		}
		ids = append(ids, ID(b.next))
		b.next++
	}
	return ids, nil
}
