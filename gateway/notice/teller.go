package notice

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"

	"zvonok/access"
	"zvonok/access/door"
	"zvonok/gateway/carrier"
	"zvonok/gateway/delivery"
	"zvonok/gateway/push"
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
	money    bool               // about meals and money, else about visits: what the consent must cover
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
	// family groups news of one recipient into one message; 0 stands alone.
	family family
	words  words
}

// wanted is the topic whose subscribers are told.
func (n *news) wanted() subscription.Topic { return cmp.Or(n.wish, n.topic) }

// family names news that siblings share: one direction through one building.
type family struct {
	building  ledger.BuildingID
	direction int16
}

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

// message is what one or several candidates are told by.
type message struct {
	members []*candidate
	capped  bool
	joins   *delivery.Waiting // a message of a sibling that still waits and is to tell of these, too
	before  []words           // what that message tells of already
	wait    time.Time         // not sent before it, so that a sibling may join; zero: at once
}

func (m *message) open() bool { return m.members[0].open() }

// Teller walks facts through the stages.
type Teller struct {
	pool    *pgxpool.Pool
	desk    *delivery.Desk
	log     *slog.Logger
	metrics *Metrics
	now     func() time.Time
	perDay  int
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
	Pool      *pgxpool.Pool
	Desk      *delivery.Desk
	Log       *slog.Logger
	Metrics   *Metrics
	Now       func() time.Time
	SMSPerDay int // cap of messages to a phone a day
	// Texts are the texts of the moment, which a deployment may replace while the gateway runs; nil: the built-in ones.
	Texts func() *templates.Texts
	// Links lead from a letter to an address to our pages; nil: letters have no links.
	Links func(address string) templates.Links
}

// NewTeller returns a Teller.
func NewTeller(c Config) *Teller {
	t := &Teller{
		pool: c.Pool, desk: c.Desk, log: c.Log, metrics: c.Metrics, now: c.Now, perDay: c.SMSPerDay, texts: c.Texts,
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
	messages := merge(candidates)
	if err := t.join(ctx, tx, messages, now); err != nil {
		return err
	}
	if err := linger(ctx, tx, messages, now); err != nil {
		return err
	}
	if err := t.limit(ctx, tx, messages, now); err != nil {
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

// listeners makes a candidate of every fact and everybody who is or was to know
// of the child.
func listeners(ctx context.Context, tx pgx.Tx, facts []news, now time.Time) ([]*candidate, error) {
	children := make([]ledger.PersonID, 0, len(facts))
	for i := range facts {
		children = append(children, facts[i].child)
	}
	slices.Sort(children)
	audience, err := access.Audience(ctx, tx, slices.Compact(children), now)
	if err != nil {
		return nil, err
	}
	byChild := map[ledger.PersonID][]access.Listener{}
	for _, l := range audience {
		byChild[l.Child] = append(byChild[l.Child], l)
	}
	var candidates []*candidate
	for i := range facts {
		n := &facts[i]
		heard := false
		for _, l := range byChild[n.child] {
			if n.only != 0 && n.only != l.Representative || n.always && l.Role != access.Legal {
				continue
			}
			c := &candidate{news: n, listener: listener{Listener: l}}
			switch {
			case l.Verdict != access.Yes:
				c.reason = Reason(l.Verdict)
			case n.money && !l.Meals, !n.money && !l.Visits:
				c.reason = NotConsented
			}
			candidates = append(candidates, c)
			heard = true
		}
		if !heard {
			candidates = append(candidates, &candidate{news: n, reason: NoListener})
		}
	}
	return candidates, nil
}

// wishes gives each open candidate its channels: one candidate per channel
// wanted now, or a refusal.
func wishes(ctx context.Context, tx pgx.Tx, candidates []*candidate) ([]*candidate, error) {
	type wish struct {
		child          ledger.PersonID
		representative access.RepresentativeID
	}
	children := map[subscription.Topic][]ledger.PersonID{}
	for _, c := range candidates {
		if c.open() && !c.news.always {
			children[c.news.wanted()] = append(children[c.news.wanted()], c.news.child)
		}
	}
	wanted := map[subscription.Topic]map[wish][]subscription.Channel{}
	var byPush []access.RepresentativeID
	for topic, list := range children {
		slices.Sort(list)
		found, err := subscription.Wishes(ctx, tx, slices.Compact(list), topic, subscription.Now)
		if err != nil {
			return nil, err
		}
		wanted[topic] = map[wish][]subscription.Channel{}
		for _, w := range found {
			key := wish{w.Child, w.Representative}
			wanted[topic][key] = append(wanted[topic][key], w.Channel)
			if w.Channel == subscription.Push {
				byPush = append(byPush, w.Representative)
			}
		}
	}
	for _, c := range candidates {
		if c.open() && c.news.always {
			byPush = append(byPush, c.listener.Representative)
		}
	}
	if err := findBrowsers(ctx, tx, byPush, candidates); err != nil {
		return nil, err
	}
	result := make([]*candidate, 0, len(candidates))
	for _, c := range candidates {
		if !c.open() {
			result = append(result, c)
			continue
		}
		channels := wanted[c.news.wanted()][wish{c.news.child, c.listener.Representative}]
		if c.news.always {
			channels = alarmChannels(c.listener)
		}
		if len(channels) == 0 {
			c.reason = NotSubscribed
			result = append(result, c)
			continue
		}
		for _, channel := range channels {
			one := *c
			one.channel = channel
			one.address = addressOf(c.listener, channel)
			if one.address == "" {
				one.reason = NoAddress
			}
			result = append(result, &one)
		}
	}
	return result, nil
}

// findBrowsers notes which of some recipients have a browser to show a push
// message in.
func findBrowsers(ctx context.Context, tx pgx.Tx, who []access.RepresentativeID, candidates []*candidate) error {
	reachable, err := push.Reachable(ctx, tx, who)
	if err != nil {
		return err
	}
	for _, c := range candidates {
		c.listener.browser = c.listener.browser || reachable[c.listener.Representative]
	}
	return nil
}

// addressOf is where a listener is reached by a channel, "" for nowhere.
func addressOf(l listener, channel subscription.Channel) string {
	switch {
	case channel == subscription.SMS:
		return string(l.Phone)
	case channel == subscription.Email:
		return l.Email
	case channel == subscription.Push && l.browser:
		return push.Address(l.Representative)
	default:
		return ""
	}
}

// fresh refuses what is no longer news (D6).
func fresh(candidates []*candidate, now time.Time) {
	for _, c := range candidates {
		if c.open() && !now.Before(c.news.expires) {
			c.reason = Stale
		}
	}
}

// quiet defers what may wait until the quiet hours end, and lets it live on
// from there (D7).
func quiet(candidates []*candidate, now time.Time) {
	for _, c := range candidates {
		c.notAfter = c.news.expires
		if !c.open() || c.news.quiet == nil {
			continue
		}
		if until := c.news.quiet.until(now.In(c.news.zone)); until.After(now) {
			c.notUntil = until
			if life := c.news.expires.Sub(now); c.notAfter.Before(until.Add(life)) {
				c.notAfter = until.Add(life)
			}
		}
	}
}

// quietHours are minutes of the organisation's day.
type quietHours struct{ from, to time.Duration }

// until returns when the quiet hours that now lies in end, or now.
func (q quietHours) until(now time.Time) time.Time {
	midnight := time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, now.Location())
	at := func(day int, offset time.Duration) time.Time {
		d := midnight.AddDate(0, 0, day)
		return time.Date(d.Year(), d.Month(), d.Day(), 0, int(offset/time.Minute), 0, 0, now.Location())
	}
	for day := -1; day <= 0; day++ {
		from, to := at(day, q.from), at(day, q.to)
		if !to.After(from) {
			to = at(day+1, q.to)
		}
		if q.from != q.to && !now.Before(from) && now.Before(to) {
			return to
		}
	}
	return now
}

// health refuses addresses that opted out or are dead.
func health(ctx context.Context, tx pgx.Tx, candidates []*candidate) error {
	addresses := map[subscription.Channel][]string{}
	for _, c := range candidates {
		if c.open() {
			addresses[c.channel] = append(addresses[c.channel], c.address)
		}
	}
	for channel, list := range addresses {
		slices.Sort(list)
		state, err := delivery.HealthOf(ctx, tx, channel, slices.Compact(list))
		if err != nil {
			return err
		}
		for _, c := range candidates {
			if !c.open() || c.channel != channel {
				continue
			}
			switch h := state[c.address]; {
			case h.OptedOut:
				c.reason = OptedOut
			case h.Suppressed:
				c.reason = Unreachable
			}
		}
	}
	return nil
}

// merge puts news that siblings share into one message; all other candidates
// get one of their own.
func merge(candidates []*candidate) []*message {
	type key struct {
		representative access.RepresentativeID
		channel        subscription.Channel
		family         family
	}
	var messages []*message
	shared := map[key]*message{}
	for _, c := range candidates {
		if !c.open() {
			continue
		}
		if c.news.family == (family{}) {
			c.group = &message{members: []*candidate{c}}
			messages = append(messages, c.group)
			continue
		}
		k := key{c.listener.Representative, c.channel, c.news.family}
		m := shared[k]
		// A child that came in twice is told of twice.
		if m == nil || slices.ContainsFunc(m.members, func(o *candidate) bool { return o.news.child == c.news.child }) {
			m = &message{}
			shared[k] = m
			messages = append(messages, m)
		}
		m.members = append(m.members, c)
		c.group = m
	}
	return messages
}

// limit counts the messages of each phone and day and refuses those over the
// cap. The message that reaches it says so.
func (t *Teller) limit(ctx context.Context, tx pgx.Tx, messages []*message, now time.Time) error {
	type key struct {
		day     time.Time
		address string
	}
	var order []key
	perPhone := map[key][]*message{}
	for _, m := range messages {
		c := m.members[0]
		if c.channel != subscription.SMS || m.joins != nil || c.news.always {
			continue
		}
		local := now.In(c.news.zone)
		k := key{time.Date(local.Year(), local.Month(), local.Day(), 0, 0, 0, 0, time.UTC), c.address}
		if _, seen := perPhone[k]; !seen {
			order = append(order, k)
		}
		perPhone[k] = append(perPhone[k], m)
	}
	uses := make([]delivery.Use, 0, len(order))
	for _, k := range order {
		uses = append(uses, delivery.Use{Day: k.day, Address: k.address, Count: len(perPhone[k])})
	}
	totals, err := delivery.Spend(ctx, tx, subscription.SMS, uses)
	if err != nil {
		return err
	}
	for i, k := range order {
		before := totals[i] - len(perPhone[k])
		for n, m := range perPhone[k] {
			switch place := before + n + 1; {
			case place == t.perDay+1:
				// The first one over the cap is replaced by the word that the rest
				// will be in the digest.
				m.capped = true
			case place > t.perDay:
				for _, c := range m.members {
					c.reason = Capped
				}
			}
		}
	}
	return nil
}

// render makes a draft of each message that is still to be told.
func (t *Teller) render(messages []*message) []delivery.Draft {
	var drafts []delivery.Draft
	for _, m := range messages {
		if !m.open() || m.joins != nil {
			continue
		}
		c := m.members[0]
		draft := delivery.Draft{
			Event: c.news.event, Representative: c.listener.Representative, Organisation: c.news.org,
			Topic: string(c.news.topic), Channel: c.channel, Address: c.address, Priority: c.news.priority,
			Again: c.news.again, Expires: c.notAfter, NotBefore: c.notUntil,
		}
		if m.wait.After(draft.NotBefore) {
			draft.NotBefore = m.wait
		}
		if m.capped {
			draft.Body = templates.Capped{}.SMS(t.reader(c, c.channel).style)
		} else {
			draft.Body, draft.Letter = t.text(m, c.channel)
			draft.Spare = t.spare(m)
			draft.Family = c.news.family.key()
		}
		drafts = append(drafts, draft)
	}
	return drafts
}

// reader is the recipient of a candidate, reading by a channel.
func (t *Teller) reader(c *candidate, channel subscription.Channel) reader {
	return reader{
		style:   t.style(c.listener, channel),
		legal:   c.listener.Role == access.Legal,
		meals:   c.listener.Meals,
		channel: channel,
		links:   t.linksFor(c.listener, channel),
	}
}

// linksFor are the links in a letter to a listener, none by other channels.
func (t *Teller) linksFor(l listener, channel subscription.Channel) templates.Links {
	if channel != subscription.Email {
		return templates.Links{}
	}
	return t.links(l.Email)
}

// style is how a listener reads by a channel. Latin letters save money in an SMS;
// elsewhere they would only be hard to read.
func (t *Teller) style(l listener, channel subscription.Channel) templates.Style {
	return templates.Style{
		Language: templates.Language(l.Language), Latin: l.Translit && channel == subscription.SMS, Texts: t.texts(),
	}
}

// text renders a message for a channel.
func (t *Teller) text(m *message, channel subscription.Channel) (string, *delivery.Letter) {
	all := slices.Clone(m.before)
	for _, member := range m.members {
		all = append(all, member.news.words)
	}
	body, letter := all[0].message(t.reader(m.members[0], channel), all[1:])
	if letter != nil {
		letter.Thread = thread(m.members[0].news.child, m.members[0].news.at.In(m.members[0].news.zone))
	}
	return body, letter
}

// thread names the conversation of a child's day, in which a reader's program
// shows its letters as one.
func thread(child ledger.PersonID, day time.Time) string {
	return fmt.Sprintf("child-%d.%s", child, day.Format("20060102"))
}

// spare renders a message for the recipient's next channel, nil for none.
func (t *Teller) spare(m *message) *delivery.Spare {
	next := m.members[0].next
	if next == nil {
		return nil
	}
	s := &delivery.Spare{Channel: next.channel, Address: next.address, Patience: next.patience}
	s.Body, s.Letter = t.text(m, next.channel)
	return s
}

// record writes what became of every candidate.
func record(ctx context.Context, tx pgx.Tx, candidates []*candidate, messages []*message, stored []delivery.Stored, now time.Time) error {
	place := map[*message]delivery.Stored{}
	i := 0
	for _, m := range messages {
		switch {
		case m.joins != nil:
			place[m] = m.joins.Stored
		case m.open():
			place[m] = stored[i]
			i++
		}
	}
	var (
		events, children, representatives []int64
		ats                               []time.Time
		topics, channels, verdicts        []string
		deliveries                        []*int64
		deliveryAts                       []*time.Time
	)
	for _, c := range candidates {
		events = append(events, int64(c.news.event))
		ats = append(ats, c.news.at)
		children = append(children, int64(c.news.child))
		representatives = append(representatives, int64(c.listener.Representative))
		topics = append(topics, string(c.news.topic))
		channels = append(channels, string(c.channel))
		verdict := cmp.Or(c.reason, Told)
		var (
			id *int64
			at *time.Time
		)
		if s, ok := place[c.group]; ok {
			id, at = new(int64(s.ID)), &s.At
			if c.group.capped {
				verdict = Capped
			}
		}
		verdicts = append(verdicts, string(verdict))
		deliveries = append(deliveries, id)
		deliveryAts = append(deliveryAts, at)
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO notice.notice (event_id, event_at, child_id, representative_id, topic, channel, verdict,
			delivery_id, delivery_at, decided_at)
		SELECT event_id, event_at, child_id, representative_id, topic, channel, verdict, delivery_id, delivery_at, $1
		FROM unnest($2::bigint[], $3::timestamptz[], $4::bigint[], $5::bigint[], $6::text[], $7::text[], $8::text[],
			$9::bigint[], $10::timestamptz[])
			AS n (event_id, event_at, child_id, representative_id, topic, channel, verdict, delivery_id, delivery_at)`,
		now, events, ats, children, representatives, topics, channels, verdicts, deliveries, deliveryAts)
	if err != nil {
		return fmt.Errorf("record notices: %w", err)
	}
	return nil
}
