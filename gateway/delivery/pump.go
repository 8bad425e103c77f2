package delivery

import (
	"cmp"
	"container/heap"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"zvonok/access/phone"
	"zvonok/gateway/carrier"
)

// pump moves the messages of one operator from the table to its link. Every
// River job of the operator leaves its ids here as a ticket; the pump takes the
// most urgent ids of all tickets, marks them 'sending' in one statement, and
// hands them to the exchange, which blocks while the operator's queue is full.
// It claims no more than it can send in claimAhead: that is what a crash puts in
// doubt, and what another process cannot take over.
type pump struct {
	operator string
	pool     *pgxpool.Pool
	exchange *carrier.Exchange
	settler  *settler
	log      *slog.Logger
	now      func() time.Time
	sender   string // this process, written into the rows it claims

	mu      sync.Mutex
	tickets ticketHeap
	flying  map[ID]struct{} // claimed by this pump, outcome not written yet
	limit   int             // how many may fly ...
	looked  time.Time       // ... as of then
	closed  bool            // takes no jobs: the process stops ...
	away    bool            // ... or the operator is not bound here
	wake    chan struct{}

	claiming, claimed atomic.Int64 // since when, Unix ns, and how many, while the database is asked

	linkChanged chan struct{} // holds a token when the operator's link came or went
}

// ticket is the part of a River job that is still to be done.
type ticket struct {
	at       time.Time // when the batch was stored; with the id it finds a row
	ids      []ID      // not claimed yet
	priority carrier.Priority
	serial   int64 // the job's id: first come, first served inside a priority
	flying   int   // claimed, outcome not written yet
	back     int   // given back unclaimed: the job has to come again for them
	index    int   // in the heap, -1 when not there
	done     chan struct{}
}

// rowKey finds a row: its id and the partition's time.
type rowKey struct {
	id ID
	at time.Time
}

type ticketHeap []*ticket

func (h ticketHeap) Len() int { return len(h) }
func (h ticketHeap) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(h[i].priority, h[j].priority), cmp.Compare(h[i].serial, h[j].serial)) < 0
}
func (h ticketHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i]; h[i].index, h[j].index = i, j }
func (h *ticketHeap) Push(x any)   { t := x.(*ticket); t.index = len(*h); *h = append(*h, t) }
func (h *ticketHeap) Pop() any {
	old := *h
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	t.index = -1
	return t
}

// work sends the messages of one job and returns when the outcome of each is
// written, or when patience runs out; given back are then messages still
// unclaimed, for the job to come again.
func (p *pump) work(ctx context.Context, patience time.Duration, t *ticket) (givenBack int) {
	if !p.add(t) {
		return len(t.ids)
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-t.done:
	case <-ctx.Done():
		p.withdraw(t)
	case <-timer.C:
		p.withdraw(t)
	}
	// What is claimed belongs to this job until its outcome is written: a
	// running job is how a successor finds the rows of a process that died.
	<-t.done
	return t.back
}

func (p *pump) add(t *ticket) bool {
	t.done = make(chan struct{})
	t.index = -1
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.away {
		return false
	}
	if len(t.ids) == 0 {
		close(t.done)
		return true
	}
	heap.Push(&p.tickets, t)
	p.nudge()
	return true
}

// withdraw gives the unclaimed ids of t back.
func (p *pump) withdraw(t *ticket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.index >= 0 {
		heap.Remove(&p.tickets, t.index)
		t.giveBack()
	}
}

// giveBack leaves the unclaimed ids to a later run of the job. The pump's lock
// is held and the ticket is in no heap.
func (t *ticket) giveBack() {
	t.back += len(t.ids)
	t.ids = nil
	if t.flying == 0 {
		close(t.done)
	}
}

// drain makes every job give back what it has not claimed, and refuses new ones
// for good.
func (p *pump) drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.giveAllBack()
}

// leave does the same until [pump.come].
func (p *pump) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = true
	p.giveAllBack()
}

// come takes jobs again.
func (p *pump) come() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = false
}

func (p *pump) giveAllBack() {
	for p.tickets.Len() > 0 {
		heap.Pop(&p.tickets).(*ticket).giveBack()
	}
}

// nudge wakes the loop; p.mu need not be held.
func (p *pump) nudge() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// settled marks a message of t as written.
func (p *pump) settled(id ID, t *ticket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.flying, id)
	p.landed(t)
	if p.tickets.Len() > 0 && p.free() > 0 {
		p.nudge() // it has waited for room
	}
}

// room is how many messages may be claimed now. What is claimed and not yet
// written down is what a crash puts in doubt, wherever it is delayed: in the
// operator's queue, on the line, or on its way into the database.
func (p *pump) room() int {
	now := p.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.looked) >= claimLook {
		p.limit, p.looked = min(p.exchange.Appetite(p.operator, claimAhead), maxFlying), now
	}
	return p.free()
}

// free is the room there is, none while it is too little for a statement of its
// own; p.mu is held.
func (p *pump) free() int {
	free := p.limit - len(p.flying)
	if free < min(claimSize, (p.limit+3)/4) {
		return 0
	}
	return free
}

// landed counts one message of t down; p.mu is held.
func (p *pump) landed(t *ticket) {
	t.flying--
	if t.flying == 0 && t.index < 0 {
		close(t.done)
	}
}

// claim is one id taken from a ticket.
type claim struct {
	key    rowKey
	ticket *ticket
}

// take removes up to n of the most urgent ids.
func (p *pump) take(n int) []claim {
	p.mu.Lock()
	defer p.mu.Unlock()
	var claims []claim
	for n > 0 && p.tickets.Len() > 0 {
		t := p.tickets[0]
		k := min(n, len(t.ids))
		ids := t.ids[:k]
		t.ids = t.ids[k:]
		t.flying += k
		n -= k
		if len(t.ids) == 0 {
			heap.Pop(&p.tickets)
		}
		for _, id := range ids {
			// A job that came twice finds its messages in flight already.
			if _, flies := p.flying[id]; flies {
				p.landed(t)
				continue
			}
			p.flying[id] = struct{}{}
			claims = append(claims, claim{rowKey{id, t.at}, t})
		}
	}
	return claims
}

// run is the pump's loop. It ends when ctx is done and nothing is in flight.
func (p *pump) run(ctx context.Context) {
	// The exchange says when a link comes up; the ticker covers a lost hint.
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		for p.exchange.Ready(p.operator) {
			claims := p.take(min(claimSize, p.room()))
			if len(claims) == 0 {
				break
			}
			p.send(ctx, claims)
			if ctx.Err() != nil {
				return
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		case <-ticker.C:
		}
	}
}

// send claims rows and hands them to the exchange.
func (p *pump) send(ctx context.Context, claims []claim) {
	p.claimed.Store(int64(len(claims)))
	p.claiming.Store(p.now().UnixNano())
	claims, rows, err := p.markRight(ctx, claims)
	p.claiming.Store(0)
	if err != nil {
		// Nothing was marked or the mark's fate is unknown; the job comes again
		// and finds out. Its ids must not be taken for done.
		p.log.Warn("claim deliveries", "operator", p.operator, "error", err)
		p.giveBack(ctx, claims)
		return
	}
	batch := make([]carrier.SMS, 0, len(rows))
	claimed := make(map[ID]*row, len(rows))
	for i := range rows {
		r := &rows[i]
		if r.state != Sending { // stale: settled by the claim itself
			continue
		}
		claimed[r.key.id] = r
		batch = append(batch, carrier.SMS{
			// The carrier counts attempts that spend the allowance, not every try.
			ID: int64(r.key.id), Attempt: r.failures + 1, To: phone.Number(r.address), Text: r.body,
			Priority: r.priority, Deadline: r.expires,
		})
	}
	// Rows that were not queued any more (a repeated job, a recall) are done.
	for _, c := range claims {
		if r, ok := claimed[c.key.id]; ok {
			r.ticket = c.ticket
			continue
		}
		p.settled(c.key.id, c.ticket)
	}
	if len(batch) == 0 {
		return
	}
	err = p.exchange.Send(ctx, p.operator, batch, func(result carrier.Result) {
		p.settler.settle(outcome{row: claimed[ID(result.ID)], result: result, pump: p})
	})
	if err != nil {
		p.log.Warn("send", "operator", p.operator, "error", err)
	}
}

// markRight marks the claims after asking again about those that have waited. On
// an error it returns the claims that are to be given back.
func (p *pump) markRight(ctx context.Context, claims []claim) ([]claim, []row, error) {
	keys := make([]rowKey, len(claims))
	for i, c := range claims {
		keys[i] = c.key
	}
	left, err := p.settler.desk.review(ctx, p.pool, p.now(), keys, p.operator)
	if err != nil {
		return claims, nil, err
	}
	kept := claims[:0]
	for _, c := range claims {
		if left[c.key.id] {
			p.settled(c.key.id, c.ticket)
		} else {
			kept = append(kept, c)
		}
	}
	if len(kept) == 0 {
		return nil, nil, nil
	}
	rows, err := p.mark(ctx, kept)
	return kept, rows, err
}

// giveBack returns claimed ids to their tickets after a failed claim, and waits
// a moment so that a database that is away is not hammered.
func (p *pump) giveBack(ctx context.Context, claims []claim) {
	p.mu.Lock()
	for _, c := range claims {
		delete(p.flying, c.key.id)
		c.ticket.flying--
		if p.closed || p.away {
			c.ticket.back++
			if c.ticket.flying == 0 && c.ticket.index < 0 {
				close(c.ticket.done)
			}
			continue
		}
		c.ticket.ids = append(c.ticket.ids, c.key.id)
		if c.ticket.index < 0 {
			heap.Push(&p.tickets, c.ticket)
		}
	}
	p.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-time.After(time.Second):
	}
}

// row is a claimed delivery with what the decision about its outcome needs.
type row struct {
	key      rowKey
	state    State
	attempt  int16
	failures int16
	resent   bool
	again    Again
	topic    string
	address  string
	body     string
	priority carrier.Priority
	expires  time.Time
	tried    []string
	spare    bool // another channel may take over
	ticket   *ticket
}

// mark commits 'sending' for the claimed rows that are still queued, or 'stale'
// for those whose life is over, and returns them. A row that this process has
// marked before without ever sending it (the answer to the commit was lost) is
// claimed again: nothing in flight is ever among the claims.
func (p *pump) mark(ctx context.Context, claims []claim) ([]row, error) {
	ids, ats := make([]int64, len(claims)), make([]time.Time, len(claims))
	first, last := claims[0].key.at, claims[0].key.at
	for i, c := range claims {
		ids[i], ats[i] = int64(c.key.id), c.key.at
		if c.key.at.Before(first) {
			first = c.key.at
		}
		if c.key.at.After(last) {
			last = c.key.at
		}
	}
	now := p.now()
	// The bounds on d.at let the planner leave out every other month.
	result, err := p.pool.Query(ctx, `
		UPDATE delivery.delivery AS d
		SET state      = CASE WHEN d.expires_at <= $1 THEN 'stale' ELSE 'sending' END,
		    reason     = CASE WHEN d.expires_at <= $1 THEN 'stale' ELSE d.reason END,
		    settled_at = CASE WHEN d.expires_at <= $1 THEN $1 END,
		    attempt    = CASE WHEN d.expires_at <= $1 THEN d.attempt ELSE d.attempt + 1 END,
		    operator = $2, sender = $3, sending_at = $1
		FROM unnest($4::bigint[], $5::timestamptz[]) AS c (id, at),`+withoutBrake+`
		WHERE d.id = c.id AND d.at = c.at AND d.at BETWEEN $6 AND $7
		  AND (d.state = 'queued' OR d.state = 'sending' AND d.sender = $3)
		RETURNING d.id, d.at, d.state, d.attempt, d.failures, d.resent, d.again, d.topic, d.address, d.body,
			d.priority, d.expires_at, d.tried, d.spare`,
		now, p.operator, p.sender, ids, ats, first, last)
	if err != nil {
		return nil, fmt.Errorf("mark deliveries as sending: %w", err)
	}
	defer result.Close()
	rows := make([]row, 0, len(claims))
	for result.Next() {
		var r row
		if err := result.Scan(&r.key.id, &r.key.at, &r.state, &r.attempt, &r.failures, &r.resent, &r.again, &r.topic,
			&r.address, &r.body, &r.priority, &r.expires, &r.tried, &r.spare); err != nil {
			return nil, fmt.Errorf("read claimed delivery: %w", err)
		}
		rows = append(rows, r)
	}
	if err := result.Err(); err != nil {
		return nil, fmt.Errorf("mark deliveries as sending: %w", err)
	}
	return rows, nil
}
