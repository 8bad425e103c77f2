package delivery

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"zvonok/gateway/carrier"
	"zvonok/ledger/pg"
)

// Limits of the receipts we give.
const (
	owedLife   = orphanLife       // of a receipt nobody takes: as long as we keep one that we cannot place
	giveAtOnce = 10               // receipts of an operator that await their answer
	giveClaim  = 2 * time.Minute  // a receipt that was taken to be given comes again after this, if its process died
	givePoll   = time.Second      // between two looks for receipts that other processes have stored
	giveWrites = 2                // how often a receipt may have been written: once more when its outcome is unknown
	giveDoubt  = 15 * time.Second // before a receipt with an unknown outcome is given once more
)

// Owe stores receipts that gateways asked for, with what they were asked for
// about, in the caller's transaction: one statement whatever their number.
func Owe(ctx context.Context, q pg.Querier, owed []carrier.Owed) error {
	if len(owed) == 0 {
		return nil
	}
	var (
		operators, messages, sources, destinations []string
		types                                      [4][]int16 // TON and NPI of the source and of the destination
		accepted                                   []time.Time
	)
	for _, r := range owed {
		operators, messages = append(operators, r.Operator), append(messages, r.MessageID)
		sources, destinations = append(sources, clean(r.Source.Addr)), append(destinations, clean(r.Destination.Addr))
		for i, n := range []uint8{r.Source.TON, r.Source.NPI, r.Destination.TON, r.Destination.NPI} {
			types[i] = append(types[i], int16(n))
		}
		accepted = append(accepted, r.AcceptedAt)
	}
	_, err := q.Exec(ctx, `
		INSERT INTO delivery.owed (operator, message_id, source_ton, source_npi, source, destination_ton, destination_npi,
			destination, accepted_at, due_at)
		SELECT operator, message_id, source_ton, source_npi, source, destination_ton, destination_npi, destination, at, at
		FROM unnest($1::text[], $2::text[], $3::smallint[], $4::smallint[], $5::text[], $6::smallint[], $7::smallint[],
			$8::text[], $9::timestamptz[]) AS o (operator, message_id, source_ton, source_npi, source, destination_ton,
			destination_npi, destination, at)`,
		operators, messages, types[0], types[1], sources, types[2], types[3], destinations, accepted)
	if err != nil {
		return fmt.Errorf("store the receipts that gateways asked for: %w", err)
	}
	return nil
}

// Giver gives gateways that are bound to us the receipts they asked for. Each
// operator has its own queue in the database and its own loop, so that one that
// is away, slow or refuses keeps nobody waiting. A receipt is taken before it is
// written and forgotten when it is acknowledged; one that was written and never
// acknowledged is given once more and then left: the gateway can ask for the
// message (query_sm).
type Giver struct {
	cfg     GiverConfig
	wake    map[string]chan struct{}
	stop    context.CancelFunc
	running sync.WaitGroup
}

// GiverConfig is what a Giver needs.
type GiverConfig struct {
	Pool      *pgxpool.Pool
	Exchange  *carrier.Exchange
	Operators []string // those that bind to us
	Log       *slog.Logger
	Metrics   *Metrics
	Now       func() time.Time
}

// NewGiver returns a Giver. [Giver.Start] sets it going.
func NewGiver(c GiverConfig) *Giver {
	g := &Giver{cfg: c, wake: make(map[string]chan struct{})}
	for _, operator := range c.Operators {
		g.wake[operator] = make(chan struct{}, 1)
	}
	return g
}

// Start gives receipts until [Giver.Stop].
func (g *Giver) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	g.stop = cancel
	for operator, wake := range g.wake {
		g.running.Go(func() { g.run(ctx, operator, wake) })
	}
}

// Stop ends it. The exchange must have been stopped before: it has the answers
// to what is being given.
func (g *Giver) Stop() {
	g.stop()
	g.running.Wait()
}

// Nudge says that an operator may be given something: a receipt was stored, or
// it has bound.
func (g *Giver) Nudge(operator string) {
	wake, ok := g.wake[operator]
	if !ok {
		return
	}
	select {
	case wake <- struct{}{}:
	default:
	}
}

func (g *Giver) run(ctx context.Context, operator string, wake <-chan struct{}) {
	ticker := time.NewTicker(givePoll)
	defer ticker.Stop()
	for {
		for more := true; more && ctx.Err() == nil && g.cfg.Exchange.Gives(operator); {
			var err error
			if more, err = g.round(ctx, operator); err != nil && ctx.Err() == nil {
				g.cfg.Log.Warn("give receipts", "operator", operator, "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-wake:
		case <-ticker.C:
		}
	}
}

// owed is a receipt that was taken to be given.
type owed struct {
	carrier.Owed
	id       int64
	writes   int // how often it may have been written, this time included
	refusals int
}

// round gives the receipts that are due, as many as may await their answer at
// once, and says whether there may be more.
func (g *Giver) round(ctx context.Context, operator string) (more bool, err error) {
	taken, err := takeOwed(ctx, g.cfg.Pool, operator, g.cfg.Now())
	if err != nil {
		return false, err
	}
	var giving sync.WaitGroup
	given := make([]carrier.Given, len(taken))
	for i, r := range taken {
		if r.writes > giveWrites {
			given[i] = carrier.Given{Class: carrier.Stale}
			continue
		}
		// What is on its way when the process stops is waited for: the exchange ends it.
		giving.Go(func() { given[i] = g.cfg.Exchange.Give(context.WithoutCancel(ctx), r.Owed, r.refusals) })
	}
	giving.Wait()
	g.note(taken, given)
	return len(taken) == giveAtOnce, nil
}

// takeOwed takes receipts that are due. Until they are noted they are another's
// only after giveClaim.
func takeOwed(ctx context.Context, q pg.Querier, operator string, now time.Time) ([]owed, error) {
	rows, err := q.Query(ctx, `
		UPDATE delivery.owed AS o
		SET writes = o.writes + 1, due_at = $3
		FROM (
			SELECT id FROM delivery.owed WHERE operator = $1 AND due_at <= $2
			ORDER BY due_at, id LIMIT $4 FOR UPDATE SKIP LOCKED
		) AS due
		WHERE o.id = due.id
		RETURNING o.id, o.message_id, o.source_ton, o.source_npi, o.source, o.destination_ton, o.destination_npi,
			o.destination, o.accepted_at, o.writes, o.refusals`, operator, now, now.Add(giveClaim), giveAtOnce)
	if err != nil {
		return nil, fmt.Errorf("take receipts to be given: %w", err)
	}
	taken, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (owed, error) {
		r := owed{Owed: carrier.Owed{Operator: operator}}
		err := row.Scan(&r.id, &r.MessageID, &r.Source.TON, &r.Source.NPI, &r.Source.Addr, &r.Destination.TON,
			&r.Destination.NPI, &r.Destination.Addr, &r.AcceptedAt, &r.writes, &r.refusals)
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("take receipts to be given: %w", err)
	}
	return taken, nil
}

// The values of the label outcome of receipts we give.
const (
	owedGiven   = "given"
	owedRefused = "refused" // for good
	owedDropped = "dropped" // written twice and never acknowledged
)

// note writes down what became of receipts, until the database takes it: one
// that is acknowledged must not be given again.
func (g *Giver) note(taken []owed, given []carrier.Given) {
	var (
		done, again []int64
		due         []time.Time
		unwritten   []bool
		now         = g.cfg.Now()
	)
	for i, r := range taken {
		outcome := ""
		switch g := given[i]; {
		case g.Class == carrier.OK:
			outcome = owedGiven
		case g.Class == carrier.Stale:
			outcome = owedDropped
		case g.Class == carrier.Unknown:
			again, due, unwritten = append(again, r.id), append(due, now.Add(giveDoubt)), append(unwritten, false)
		case g.RetryAfter > 0:
			again, due, unwritten = append(again, r.id), append(due, now.Add(g.RetryAfter)), append(unwritten, true)
		default:
			outcome = owedRefused
		}
		if outcome == "" {
			continue
		}
		done = append(done, r.id)
		g.cfg.Metrics.owed.WithLabelValues(r.Operator, outcome).Inc()
		if outcome != owedGiven {
			g.cfg.Log.Warn("a receipt is not given", "operator", r.Operator, "message_id", r.MessageID, "outcome", outcome,
				"answer", given[i].Reason)
		}
	}
	if len(taken) == 0 {
		return
	}
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		_, err := g.cfg.Pool.Exec(ctx, `
			WITH given AS (DELETE FROM delivery.owed WHERE id = ANY ($1))
			UPDATE delivery.owed AS o
			SET due_at = a.due, writes = o.writes - a.unwritten::int, refusals = o.refusals + a.unwritten::int
			FROM unnest($2::bigint[], $3::timestamptz[], $4::boolean[]) AS a (id, due, unwritten)
			WHERE o.id = a.id`, done, again, due, unwritten)
		cancel()
		if err == nil {
			return
		}
		g.cfg.Log.Error("note the receipts given", "count", len(taken), "error", err)
		time.Sleep(pause)
	}
}

// Watch drops receipts that nobody has come for and publishes how many are owed.
// It is to be called every few seconds.
func (g *Giver) Watch(ctx context.Context) error {
	old, err := g.cfg.Pool.Exec(ctx, `
		DELETE FROM delivery.owed WHERE accepted_at < $1 AND due_at <= $2`, g.cfg.Now().Add(-owedLife), g.cfg.Now())
	if err != nil {
		return fmt.Errorf("drop receipts nobody came for: %w", err)
	}
	if n := old.RowsAffected(); n > 0 {
		g.cfg.Log.Warn("receipts were dropped: no gateway came for them", "count", n)
	}
	rows, err := g.cfg.Pool.Query(ctx, `
		SELECT o.operator, count(w.id), coalesce(min(w.accepted_at), $2)
		FROM unnest($1::text[]) AS o (operator) LEFT JOIN delivery.owed AS w ON w.operator = o.operator
		GROUP BY o.operator`, g.cfg.Operators, g.cfg.Now())
	if err != nil {
		return fmt.Errorf("count the receipts owed: %w", err)
	}
	var (
		operator string
		count    int
		since    time.Time
	)
	if _, err := pgx.ForEachRow(rows, []any{&operator, &count, &since}, func() error {
		g.cfg.Metrics.owing.WithLabelValues(operator).Set(float64(count))
		g.cfg.Metrics.owedAge.WithLabelValues(operator).Set(max(0, g.cfg.Now().Sub(since).Seconds()))
		return nil
	}); err != nil {
		return fmt.Errorf("count the receipts owed: %w", err)
	}
	return nil
}
