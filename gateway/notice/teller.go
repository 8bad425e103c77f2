package notice

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"

	"zvonok/access"
	"zvonok/access/door"
	"zvonok/gateway/carrier"
	"zvonok/gateway/delivery"
	"zvonok/gateway/subscription"
	"zvonok/ledger"
	"zvonok/ledger/meal"
	"zvonok/ledger/pg"
	"zvonok/templates"
)

// Limits of the package.
const (
	gatherJobs = 64                    // jobs told in one transaction
	gatherWait = 25 * time.Millisecond // how long a job waits for company while another transaction runs

	gatherParallel = 2                // transactions at once
	tellTimeout    = 20 * time.Second // a transaction ends by then; the job comes again

	saleLife      = 6 * time.Hour  // a purchase is news for the rest of the school day
	topUpLife     = 24 * time.Hour // money is news for a day, quiet hours included
	thresholdLife = 24 * time.Hour
)

// news is a fact about one child, ready to be told.
type news struct {
	event    ledger.EventID
	at       time.Time // when it happened, corrected; with the event it names the record
	child    ledger.PersonID
	org      ledger.OrganisationID
	topic    subscription.Topic
	wish     subscription.Topic // whose subscribers are told, where that is not the topic itself
	expires  time.Time          // the end of its life as news
	priority carrier.Priority
	again    delivery.Again
	quiet    *quietHours // nil: never deferred
	zone     *time.Location
	only     access.RepresentativeID // a threshold concerns one representative alone; 0: all
	// always tells the legal representatives whatever they have subscribed to, and above the cap: an alarm.
	always bool
	// mergeWait is how long a message to a phone of several children waits for a sibling.
	mergeWait time.Duration
	// heldUntil is until when "left" waits for an entry to a sister building; moved: it has come.
	heldUntil time.Time
	moved     bool
	// family groups news of one recipient into one message; 0 stands alone.
	family family
	words  words
}

// wanted is the topic whose subscribers are told.
func (n *news) wanted() subscription.Topic { return cmp.Or(n.wish, n.topic) }

// words renders a message about one child, or about several siblings.
type words interface {
	// message renders the text for a reader; others are the siblings' news, told in the same message.
	message(to reader, others []words) (body string, letter *delivery.Letter)
}

// reader is a recipient as the templates need to know them.
type reader struct {
	style   templates.Style
	legal   bool // the child's own representative: may read of benefits
	meals   bool // the consent covers meals and money
	channel subscription.Channel
	links   templates.Links // in letters
}

// candidate is one possible message: a fact, a recipient, a channel.
type candidate struct {
	news     *news
	listener listener
	channel  subscription.Channel // "" while no wish is known
	address  string
	reason   Reason // "" while no stage said no
	stages   string // what the stages have decided so far (see decided)
	notAfter time.Time
	notUntil time.Time // quiet hours
	next     *step     // where the message goes when this channel fails
	group    *message
}

// step is a channel of a listener's order of fall-back.
type step struct {
	channel  subscription.Channel
	address  string
	patience time.Duration
}

// listener is somebody who may or might know of a child.
type listener struct {
	access.Listener
	browser bool // has one that shows notifications; asked only where a push message is wanted
}

func (c *candidate) open() bool { return c.reason == "" }

// Teller walks facts through the stages.
type Teller struct {
	pool    *pgxpool.Pool
	river   *river.Client[pgx.Tx]
	desk    *delivery.Desk
	log     *slog.Logger
	metrics *Metrics
	now     func() time.Time
	texts   func() *templates.Texts
	links   func(address string) templates.Links
	zones   zones

	passes  *pg.Gatherer[door.Passed, struct{}]
	sold    *pg.Gatherer[meal.Sold, struct{}]
	posted  *pg.Gatherer[ledger.Posted, struct{}]
	crossed *pg.Gatherer[ledger.Crossed, struct{}]
}

// Config is what a Teller needs.
type Config struct {
	Pool    *pgxpool.Pool
	River   *river.Client[pgx.Tx] // inserts what is held back; it works on nothing
	Desk    *delivery.Desk
	Log     *slog.Logger
	Metrics *Metrics
	Now     func() time.Time
	// Texts are the texts of the moment, which a deployment may replace while the gateway runs; nil: the built-in ones.
	Texts func() *templates.Texts
	// Links lead from a letter to an address to our pages; nil: letters have no links.
	Links func(address string) templates.Links
}

// NewTeller returns a Teller.
func NewTeller(c Config) *Teller {
	t := &Teller{
		pool: c.Pool, river: c.River, desk: c.Desk, log: c.Log, metrics: c.Metrics, now: c.Now, texts: c.Texts,
		links: c.Links,
	}
	if t.texts == nil {
		t.texts = templates.Builtin
	}
	if t.links == nil {
		t.links = func(string) templates.Links { return templates.Links{} }
	}
	gather := pg.GathererConfig{Max: gatherJobs, Wait: gatherWait, Parallel: gatherParallel}
	t.passes = pg.NewGatherer(gather, t.tellPasses)
	t.sold = pg.NewGatherer(gather, t.tellSold)
	t.posted = pg.NewGatherer(gather, t.tellPosted)
	t.crossed = pg.NewGatherer(gather, t.tellCrossed)
	return t
}

// Register adds the package's River workers.
func (t *Teller) Register(workers *river.Workers) {
	river.AddWorker(workers, &passWorker{teller: t})
	river.AddWorker(workers, &soldWorker{teller: t})
	river.AddWorker(workers, &postedWorker{teller: t})
	river.AddWorker(workers, &crossedWorker{teller: t})
	river.AddWorker(workers, &missedWorker{teller: t})
	river.AddWorker(workers, &stoppedWorker{teller: t})
	river.AddWorker(workers, &decidedWorker{teller: t})
	river.AddWorker(workers, &cappedWorker{teller: t})
}

// Close waits until what is being told is told.
func (t *Teller) Close() {
	t.passes.Close()
	t.sold.Close()
	t.posted.Close()
	t.crossed.Close()
}

// tellAll reads news and tells them in one transaction.
func (t *Teller) tellAll(ctx context.Context, read func(context.Context, pgx.Tx) ([]news, error)) error {
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	var facts []news
	err := pgx.BeginTxFunc(ctx, t.pool, pg.PlannedOnce, func(tx pgx.Tx) error {
		var err error
		if facts, err = read(ctx, tx); err != nil || len(facts) == 0 {
			return err
		}
		return t.tell(ctx, tx, facts)
	})
	if err != nil {
		return fmt.Errorf("tell news: %w", err)
	}
	if len(facts) > 0 {
		t.metrics.told(len(facts), t.now().Sub(facts[0].at))
	}
	return nil
}

// zones keeps the time zones of organisations.
type zones struct{ loaded sync.Map }

func (z *zones) load(name string) (*time.Location, error) {
	if zone, ok := z.loaded.Load(name); ok {
		return zone.(*time.Location), nil
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("time zone of an organisation: %w", err)
	}
	z.loaded.Store(name, zone)
	return zone, nil
}

// tell walks facts through every stage in one transaction. Facts that are told
// already are left out by the caller.
func (t *Teller) tell(ctx context.Context, tx pgx.Tx, facts []news) error {
	now := t.now()
	if err := noteLate(ctx, tx, facts, now); err != nil {
		return err
	}
	candidates, err := listeners(ctx, tx, facts, now)
	if err != nil {
		return err
	}
	if candidates, err = wishes(ctx, tx, candidates); err != nil {
		return err
	}
	fresh(candidates, now)
	quiet(candidates, now)
	if err := health(ctx, tx, candidates); err != nil {
		return err
	}
	if candidates, err = fallback(ctx, tx, candidates, now); err != nil {
		return err
	}
	messages := plan(candidates)
	if err := t.meet(ctx, tx, messages, now); err != nil {
		return err
	}
	if err := t.limit(ctx, tx, messages, now); err != nil {
		return err
	}
	if err := t.merge(ctx, tx, messages, now); err != nil {
		return err
	}
	if err := digested(ctx, tx, candidates); err != nil {
		return err
	}
	stored, err := t.desk.Enqueue(ctx, tx, now, t.render(messages))
	if err != nil {
		return err
	}
	if err := record(ctx, tx, candidates, messages, stored, now); err != nil {
		return err
	}
	for _, c := range candidates {
		t.metrics.verdict(c.news.topic, cmp.Or(c.reason, Told))
	}
	return nil
}
