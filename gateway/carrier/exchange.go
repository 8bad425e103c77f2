// Package carrier sends short messages through mobile operators and takes what they send back: receipts, texts and
// USSD. An Exchange holds all operators; each has its own sessions, queue and pace, so that one that is slow, full or
// away delays no other.
//
// # A message
//
// Send puts it into its operator's queue, which is short and in memory: the truth is the caller's table. There it waits
// for its turn by priority and deadline, for its recipient's previous message, for tokens of the operator's rate, one
// for each part and all at once, and for a session with room in its window. It is cut into parts on character borders
// and written. Each part ends as answered, never written, or unknown, and the table of outcome classes (outcome.go)
// says what an answer means. The message gets exactly one Result:
//
//   - What the carrier can mend it mends without telling: it waits out a throttle, moves unwritten parts to another
//     session, drops what an operator dislikes in a PDU and tries once more.
//   - What needs time, another operator or a person goes back to the caller with a class, a time and the right to fail
//     over or not. The carrier keeps no message for longer than its queue is slow, except parts that were refused for
//     now while their siblings were accepted: only it can send a part.
//   - A part that was written and never answered may have been sent. The message is Unknown; a late answer is reported
//     through Config.Late.
//
// # What comes in
//
// Receipts and texts are gathered into batches and acknowledged when the caller has stored them; when it cannot, the
// operator is told to keep them. A receipt is what esm_class says is one, never what looks like one. USSD is
// acknowledged at once and handed to Config.Dial, but only from operators whose role it is, since who may assert a
// caller's number may read a child's balance.
//
// # Promises
//
// A message is never handed to two sessions at once. Messages of one class to one phone are written in their order,
// each after the outcome of the one before it. The parts of a message are written together. No text is replaced by
// question marks. Nothing is sent after its deadline.
package carrier

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"zvonok/access/phone"
	"zvonok/gateway/lease"
	"zvonok/gateway/smpp"
)

// Config is what an Exchange is made of. The callbacks are set once and may be nil, except that an exchange without
// Receipts or Messages tells operators to keep what they bring.
type Config struct {
	Operators []OperatorConfig

	// Leases says which binds of client operators this process may make, when several processes work on one database.
	// Nil means that it is alone.
	Leases *lease.Keeper

	// Receipts stores receipts. They are acknowledged to the operators when it returns nil; after an error the
	// operators bring them again. It is called by a few goroutines at once and its context ends after 10 s.
	Receipts func(context.Context, []Receipt) error
	// Messages stores texts of subscribers, on the same terms.
	Messages func(context.Context, []MO) error
	// StoreParts stores parts of long texts whose other parts let themselves be waited for, with the receipts asked for,
	// on the same terms. A part that is stored already stays as it is. It returns all parts of each of these texts that
	// is complete now, one after another; Messages deletes them (MO.Parts).
	StoreParts func(context.Context, []TextPart) ([]TextPart, error)
	// OverdueParts returns the stored parts, one text's after another, of texts of which some part came before a time.
	// It may return a part of the texts; it is asked every few seconds.
	OverdueParts func(ctx context.Context, before time.Time) ([]TextPart, error)
	// Owe stores receipts that gateways asked for with their dials, on the same terms; those asked for with texts come
	// with them (MO.Owed). Without it they are not promised. Give gives them.
	Owe func(context.Context, []Owed) error
	// Dial takes USSD events that were acknowledged already. The events of one phone come one after another; of
	// different phones several at once.
	Dial func(Dial)
	// LinkChanged hears when an operator becomes able to send and when it stops being so. LinkChanged, Late,
	// Alarm and Ported are called by the goroutine that hands out the operator's results.
	LinkChanged func(operator string, up bool)
	// Late hears what became of a message that was reported as Unknown, when the operator answers after all. OK means
	// that all parts were accepted; any other class that it was not sent.
	Late func(Result)
	// Alarm hears what a person should look at.
	Alarm func(Alarm)
	// Unstored tells how many messages of an operator wait for the caller's database, results and such as are to be sent;
	// for Status. It must not wait for anything.
	Unstored func(operator string) int
	// Ported hears what answers taught about where a number is, so that it can be stored.
	Ported func(Ported)

	Log     *slog.Logger
	Metrics prometheus.Registerer // nil for none
	Now     func() time.Time      // time.Now when nil
}

// Exchange is all operators together. Its methods may be called by any goroutine.
type Exchange struct {
	cfg       Config
	now       func() time.Time
	metrics   *Metrics
	router    *router
	operators map[string]*operator
	names     []string // in the order of the settings

	receipts *gatherer[Receipt]
	texts    *gatherer[MO]
	parts    *gatherer[waitingPart]
	owes     *gatherer[Owed]
	joiner   *joiner
	links    atomic.Uint64

	ctx    context.Context // ends when the time to stop is over
	cancel context.CancelFunc
	binds  context.Context // ends when no more binds are made
	unbind context.CancelFunc
	joins  sync.WaitGroup
	closed sync.WaitGroup // goroutines that hand out results

	mu       sync.Mutex
	sessions map[*smpp.Session]servedLink // of our server
}

// servedLink is a session of our server with its operator.
type servedLink struct {
	operator *operator
	link     *link
}

// errNoStore is what operators hear, as a temporary error, while nobody stores what they bring.
var errNoStore = errors.New("nothing stores this")

// New checks the settings and makes an exchange that is not yet connected to anything. The error names the operator,
// the key and what is allowed.
func New(cfg Config) (*Exchange, error) {
	x := &Exchange{
		cfg: cfg, now: cfg.Now, operators: make(map[string]*operator), sessions: make(map[*smpp.Session]servedLink),
		joiner: newJoiner(),
	}
	if x.now == nil {
		x.now = time.Now
	}
	if x.cfg.Log == nil {
		x.cfg.Log = slog.New(slog.DiscardHandler)
	}
	if x.cfg.Receipts == nil {
		x.cfg.Receipts = func(context.Context, []Receipt) error { return errNoStore }
	}
	if x.cfg.Messages == nil {
		x.cfg.Messages = func(context.Context, []MO) error { return errNoStore }
	}
	if x.cfg.StoreParts == nil {
		x.cfg.StoreParts = func(context.Context, []TextPart) ([]TextPart, error) { return nil, errNoStore }
	}
	if x.cfg.OverdueParts == nil {
		x.cfg.OverdueParts = func(context.Context, time.Time) ([]TextPart, error) { return nil, nil }
	}
	if x.cfg.Unstored == nil {
		x.cfg.Unstored = func(string) int { return 0 }
	}
	if x.cfg.Owe == nil {
		x.cfg.Owe = func(context.Context, []Owed) error { return errNoStore }
	}
	x.ctx, x.cancel = context.WithCancel(context.Background())
	x.binds, x.unbind = context.WithCancel(x.ctx)
	x.metrics = NewMetrics(cfg.Metrics)
	x.receipts = newGatherer(x.cfg.Receipts)
	x.texts = newGatherer(x.cfg.Messages)
	x.parts = newGatherer(x.storeParts)
	x.owes = newGatherer(x.cfg.Owe)

	var routes []carrierRoute
	for _, c := range cfg.Operators {
		if _, twice := x.operators[c.Name]; twice {
			return nil, fmt.Errorf("operator %q is configured twice", c.Name)
		}
		o, err := newOperator(c, x)
		if err != nil {
			return nil, err
		}
		if other := x.served(o.cfg.SystemID); other != nil && o.cfg.Mode == Server {
			return nil, fmt.Errorf("operators %q and %q have the same system_id", other.cfg.Name, c.Name)
		}
		x.operators[c.Name] = o
		x.names = append(x.names, c.Name)
		x.metrics.prepare(c.Name)
		if o.cfg.has(RoleSMS) {
			routes = append(routes, carrierRoute{
				name: c.Name, prefixes: o.cfg.Prefixes, weight: o.cfg.Weight, cost: o.cfg.Cost,
			})
		}
	}
	x.router = newRouter(routes)
	return x, nil
}

// Start connects to the operators and begins to take what they bring. It does not wait for any of them.
func (x *Exchange) Start() {
	x.receipts.start()
	x.texts.start()
	x.parts.start()
	x.owes.start()
	x.joins.Go(func() { x.tendJoins(x.ctx) })
	x.joins.Go(func() { x.handOverdue(x.ctx) })
	for _, o := range x.operators {
		x.closed.Go(o.results.run)
		x.closed.Go(o.replies.run)
		o.start(x.binds)
	}
}

// start brings the goroutines of an operator up.
func (o *operator) start(binds context.Context) {
	o.mu.Lock()
	o.unbound = o.x.now()
	o.mu.Unlock()
	if o.dials != nil {
		o.dials.start()
	}
	o.tasks.Go(func() { o.housekeep(o.x.ctx) })
	if o.cfg.Mode == Client {
		for bind := range o.cfg.Binds {
			o.tasks.Go(func() { o.keepLeased(binds, bind) })
		}
	}
}

// Stop ends the exchange in order. Messages that were not written come back as NeverWritten at once; those that were
// are waited for as long as ctx allows and are Unknown after that; receipts and texts that were taken are stored; every
// session is closed with unbind. When Stop returns every done has been called. The error says that answers were
// missing. An exchange that was never started must not be stopped.
func (x *Exchange) Stop(ctx context.Context) error {
	x.unbind()
	var closing sync.WaitGroup
	errs := make([]error, len(x.names))
	for i, name := range x.names {
		o := x.operators[name]
		o.drain()
		closing.Go(func() { errs[i] = o.closeLinks(ctx) })
	}
	closing.Wait()
	x.cancel()
	x.joins.Wait()
	for _, o := range x.operators {
		o.tasks.Wait()
	}
	x.owes.stop() // hands over dials
	for _, o := range x.operators {
		if o.dials != nil {
			o.dials.stop()
		}
	}
	x.receipts.stop()
	x.parts.stop() // hands over texts
	x.texts.stop()
	for _, o := range x.operators {
		o.results.close()
		o.replies.close()
	}
	x.closed.Wait()
	return errors.Join(errs...)
}

func (x *Exchange) nextLink() Link { return Link(x.links.Add(1)) }

// Send gives messages to an operator and calls done exactly once for each, from any goroutine and possibly before Send
// returns. It takes the messages in their order and waits while the operator's queue is full; while the operator is
// away it does not wait but gives them back as NeverWritten. The error says that no operator of that name sends SMS or
// that ctx ended; the messages that were not taken then have been given back, too.
//
// done must not block for long: the operator's other results wait for it.
func (x *Exchange) Send(ctx context.Context, operator string, batch []SMS, done func(Result)) error {
	o, ok := x.operators[operator]
	if !ok || !o.cfg.has(RoleSMS) {
		for i := range batch {
			done(Result{
				ID: batch[i].ID, Attempt: batch[i].Attempt, Operator: operator,
				Class: NeverWritten, Reason: "no such operator for SMS", Failover: true,
			})
		}
		return fmt.Errorf("send to operator %s: %w", operator, ErrUnknownOperator)
	}
	return o.send(ctx, batch, done)
}

// Ready reports whether messages sent to the operator now would be written soon: it is bound and its circuit is
// closed. A throttled operator is ready, its queue is only slow.
func (x *Exchange) Ready(operator string) bool {
	o, ok := x.operators[operator]
	return ok && o.cfg.has(RoleSMS) && o.ready()
}

// Appetite is how many messages of one part the operator takes from this process in a time, by its rate as it is now
// and by its windows and their round trip: at least twice what the windows hold, so that it shows when they are what
// limits, and at least one.
func (x *Exchange) Appetite(operator string, in time.Duration) int {
	o, ok := x.operators[operator]
	if !ok {
		return 1
	}
	return o.appetite(in)
}

// Operators returns the names of the operators in the order of the settings.
func (x *Exchange) Operators() []string { return slices.Clone(x.names) }

// Route returns the operators for a number in order of preference, bound or not; none when no operator takes it. See
// router for the order.
func (x *Exchange) Route(to phone.Number) []string { return x.router.route(to, x.now()) }

// Prefix returns the longest configured prefix the number begins with, the one to be named in Delivered.
func (x *Exchange) Prefix(to phone.Number) string { return x.router.prefix(to) }

// Delivered takes note whether a message to a number with this prefix was delivered within 60 s. Numbers move away from
// operators that are late, by small steps, and back again.
func (x *Exchange) Delivered(operator, prefix string, within bool) {
	if _, ok := x.operators[operator]; ok {
		x.router.delivered(operator, prefix, within, x.now())
	}
}

// SetPorted replaces the imported table of ported numbers.
func (x *Exchange) SetPorted(numbers *PortedNumbers) { x.router.setPorted(numbers) }

// SetLearned adds what refusals have taught before or in another process; what is past its end is forgotten.
func (x *Exchange) SetLearned(numbers []Ported) { x.router.setLearned(numbers, x.now()) }

// SetEvidence replaces what is known of how well the operators serve their prefixes.
func (x *Exchange) SetEvidence(all []Evidence) { x.router.setEvidence(all) }

// Learn takes note of the ids of a part and of the receipt it was matched with, so that the operator's way of writing
// them can be found out (setting message_id = "auto").
func (x *Exchange) Learn(operator, submitted, receipted string) {
	o, ok := x.operators[operator]
	if !ok {
		return
	}
	if mode, changed := o.reader.ids.Learn(submitted, receipted); changed {
		o.log.Info("way of writing message ids changed", "message_id", string(mode))
	}
}

// served returns the operator that binds to our server with this system_id, nil when there is none.
func (x *Exchange) served(systemID string) *operator {
	for _, o := range x.operators {
		if o.cfg.Mode == Server && o.cfg.SystemID == systemID {
			return o
		}
	}
	return nil
}

// ServerConfig returns the part of our SMPP server's settings that concerns its accounts, which are the operators in
// server mode: who may bind, and what becomes of their sessions. The caller adds its own address, TLS and log.
func (x *Exchange) ServerConfig() smpp.ServerConfig {
	return smpp.ServerConfig{
		Authenticate: x.authenticate,
		Opened:       x.opened,
		Session: smpp.SessionConfig{
			Handle: x.handle,
			Late:   lateTicket,
		},
	}
}

// authenticate decides about a bind to our server.
func (x *Exchange) authenticate(_ context.Context, r smpp.BindRequest) (smpp.Account, smpp.Status) {
	o := x.served(r.Bind.SystemID)
	if o == nil {
		// A comparison all the same, so that the time does not tell which names exist.
		smpp.SamePassword(r.Bind.Password, "")
		return smpp.Account{}, smpp.StatusInvalidSystemID
	}
	if !smpp.SamePassword(r.Bind.Password, o.cfg.Password) {
		return smpp.Account{}, smpp.StatusInvalidPassword
	}
	binds := o.cfg.Binds
	if o.cfg.Pair {
		binds *= 2
	}
	account := smpp.Account{
		SystemID:      o.cfg.SystemID,
		Networks:      slices.Clone(o.cfg.Networks),
		MaxBinds:      binds,
		DeliverWindow: o.cfg.Window,
		Rate:          max(o.cfg.Rate, inboundLeast),
	}
	if o.cfg.has(RoleUSSD) {
		account.Roles |= smpp.RoleUSSD
	}
	return account, smpp.StatusOK
}

// opened takes over a session of our server. Nothing is read from it before opened returns.
func (x *Exchange) opened(session *smpp.Session) {
	o := x.served(session.Binding().SystemID)
	if o == nil {
		return
	}
	l := o.newLink()
	x.mu.Lock()
	x.sessions[session] = servedLink{o, l}
	x.mu.Unlock()
	o.tasks.Go(func() {
		o.lead(l, session)
		x.mu.Lock()
		delete(x.sessions, session)
		x.mu.Unlock()
	})
}

// handle takes a request that came to our server.
func (x *Exchange) handle(in *smpp.Inbound) {
	x.mu.Lock()
	served, ok := x.sessions[in.Session()]
	x.mu.Unlock()
	if !ok {
		_ = in.Answer(refuseLater(in), "")
		return
	}
	served.operator.handle(served.link, in)
}

// QueryResult is the answer to a query_sm or a cancel_sm.
type QueryResult struct {
	Verdict Verdict
	Status  smpp.Status
	State   ReceiptState // when Settled by a query
	Err     error        // why there is no answer
}

// Query asks an operator for the state of a part by the id it gave. An operator that does not offer this, or cannot
// tell, gives the verdict AskAgain or AwaitReceipt; unknownIDs is how many times in a row it has answered that it does
// not know the id (0x0C).
func (x *Exchange) Query(ctx context.Context, operator, messageID string, unknownIDs int) QueryResult {
	o, ok := x.operators[operator]
	switch {
	case !ok:
		return QueryResult{Verdict: AskAgain, Err: ErrUnknownOperator}
	case !o.offersQuery():
		return QueryResult{Verdict: AwaitReceipt, Status: smpp.StatusInvalidCommandID}
	}
	outcome, err := o.ask(ctx, &smpp.Query{MessageID: messageID, Source: o.coder.source})
	if err != nil {
		return QueryResult{Verdict: AskAgain, Err: err}
	}
	if outcome.Status == smpp.StatusInvalidMessageID {
		unknownIDs++
	}
	if outcome.Status == smpp.StatusInvalidCommandID {
		o.mu.Lock()
		o.queryAgain = x.now().Add(queryPause)
		o.mu.Unlock()
	}
	r := QueryResult{Verdict: QueryVerdict(outcome.Status, unknownIDs), Status: outcome.Status}
	if resp, ok := outcome.Answer.(*smpp.QueryResp); ok && r.Verdict == Settled && !resp.NoBody {
		r.State, ok = stateCode(byte(resp.State))
		if !ok {
			r.Verdict = AwaitReceipt
		}
	} else if r.Verdict == Settled {
		r.Verdict = AwaitReceipt
	}
	return r
}

// offersQuery is false for a while after the operator has said that it knows no query_sm.
func (o *operator) offersQuery() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !o.x.now().Before(o.queryAgain)
}

// Cancel withdraws a part that the operator has accepted and may not have delivered yet.
func (x *Exchange) Cancel(ctx context.Context, operator, messageID string, to phone.Number) QueryResult {
	o, ok := x.operators[operator]
	if !ok {
		return QueryResult{Verdict: AskAgain, Err: ErrUnknownOperator}
	}
	outcome, err := o.ask(ctx, &smpp.Cancel{
		ServiceType: o.cfg.ServiceType, MessageID: messageID, Source: o.coder.source,
		Destination: smpp.Address{TON: 1, NPI: 1, Addr: string(to)},
	})
	if err != nil {
		return QueryResult{Verdict: AskAgain, Err: err}
	}
	return QueryResult{Verdict: CancelVerdict(outcome.Status), Status: outcome.Status}
}

// ask sends a request that is no message over any session and waits for the answer, outside the window.
func (o *operator) ask(ctx context.Context, p smpp.PDU) (smpp.Outcome, error) {
	session, _ := o.replyLink(0, nil)
	if session == nil {
		return smpp.Outcome{}, ErrNotBound
	}
	outcome, err := session.Do(ctx, smpp.Request{PDU: p, OutsideWindow: true})
	switch {
	case err != nil:
		return outcome, fmt.Errorf("ask operator %s: %w", o.cfg.Name, err)
	case outcome.Kind != smpp.Answered:
		return outcome, ErrNoAnswer
	default:
		return outcome, nil
	}
}
