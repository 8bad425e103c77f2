package smpptest

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"zvonok/gateway/smpp"
)

const (
	defaultKeep         = 10_000           // SMS kept for Messages
	maxUnjoined         = 1_000            // long messages of which parts are missing
	defaultReceiptRetry = time.Second      // after a receipt was not taken
	receiptTimeout      = 30 * time.Second // for the answer to a receipt
)

// OperatorConfig is what an operator is made of, whichever side binds.
type OperatorConfig struct {
	// Seed decides everything left to chance.
	Seed uint64

	Behaviour Behaviour

	// OnSMS gets every SMS when all its parts have been accepted. It is called by
	// the goroutine that reads the requests and must not take long. It may be
	// nil.
	OnSMS func(SMS)

	// OnMessage gets every message, accepted or not, with the status it will be
	// answered with. It is called as OnSMS is.
	OnMessage func(m *smpp.Message, status smpp.Status)

	// Keep is how many SMS [Operator.Messages] remembers, 10 000 by default;
	// negative means none, for load.
	Keep int

	// Zone is the zone of the dates in receipts, UTC by default.
	Zone *time.Location

	// Session sets the windows and times of the sessions. Its callbacks are the
	// operator's own.
	Session smpp.SessionConfig

	// Record, if not nil, gets what passes over the lines.
	Record *Recorder

	// Log gets what happens to sessions; nil discards it.
	Log *slog.Logger
}

// Stats counts what an operator has done.
type Stats struct {
	Messages  uint64 // submit_sm, deliver_sm or data_sm received, without USSD
	Accepted  uint64
	Refused   map[smpp.Status]uint64
	Silent    uint64 // accepted and not answered, or swallowed
	SMS       uint64 // whole messages shown to phones
	Receipts  uint64 // sent and acknowledged
	Retried   uint64 // receipts that had to be sent again
	Waiting   int    // receipts still to be sent
	USSDCalls int    // dialogues that are open
}

// Operator is the part of an SMSC behind its sessions. It is embedded in [SMSC]
// and [Gateway].
type Operator struct {
	cfg       OperatorConfig
	log       *slog.Logger
	behaviour atomic.Pointer[Behaviour]
	client    bool // we bind to them: what an SMSC delivers we submit
	sessions  func(systemID string) []*smpp.Session
	lines     *lines
	ctx       context.Context
	cancel    context.CancelFunc
	workers   sync.WaitGroup

	messages atomic.Uint64
	accepted atomic.Uint64
	silent   atomic.Uint64

	mu         sync.Mutex
	refused    map[smpp.Status]uint64
	limiter    *rate.Limiter
	stormUntil time.Time
	shown      []SMS
	shownFirst int // place of the oldest in shown once it is full
	smsCount   uint64
	unjoined   map[joinKey]*unjoined
	joinOrder  []joinKey
	states     map[string]*accepted
	stateOrder []string // ids in states; from stateNext on in a circle once it is full
	stateNext  int
	receipts   []receipt // a heap by due
	receiptNo  uint64
	wake       chan struct{}
	acked      uint64
	retried    uint64
	calls      map[string]*Call
	dialled    uint64
}

func newOperator(cfg OperatorConfig, client bool) *Operator {
	if cfg.Keep == 0 {
		cfg.Keep = defaultKeep
	}
	if cfg.Zone == nil {
		cfg.Zone = time.UTC
	}
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	o := &Operator{
		cfg:      cfg,
		log:      log,
		client:   client,
		ctx:      ctx,
		cancel:   cancel,
		refused:  make(map[smpp.Status]uint64),
		unjoined: make(map[joinKey]*unjoined),
		states:   make(map[string]*accepted),
		calls:    make(map[string]*Call),
		wake:     make(chan struct{}, 1),
	}
	o.lines = newLines(o)
	o.SetBehaviour(cfg.Behaviour)
	o.workers.Go(o.sendReceipts)
	return o
}

// SetBehaviour changes how the operator behaves from now on. Messages it has
// accepted keep the receipts they were promised.
func (o *Operator) SetBehaviour(b Behaviour) {
	if b.ErrorStatus == 0 {
		b.ErrorStatus = smpp.StatusSystemError
	}
	if b.ThrottleStatus == 0 {
		b.ThrottleStatus = smpp.StatusThrottled
	}
	if b.NackStatus == 0 {
		b.NackStatus = smpp.StatusInvalidMessageLength
	}
	if b.RefuseBindStatus == 0 {
		b.RefuseBindStatus = smpp.StatusAlreadyBound
	}
	if b.UndeliveredState == 0 {
		b.UndeliveredState = smpp.StateUndeliverable
	}
	if b.ReceiptRetry == 0 {
		b.ReceiptRetry = defaultReceiptRetry
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.limiter = nil
	if b.Rate > 0 {
		o.limiter = rate.NewLimiter(rate.Limit(b.Rate), max(int(b.Rate), 1))
	}
	o.stormUntil = time.Time{}
	o.behaviour.Store(&b)
}

// Behaviour is how the operator behaves now.
func (o *Operator) Behaviour() Behaviour { return *o.behaviour.Load() }

// Stats counts what the operator has done since its start.
func (o *Operator) Stats() Stats {
	o.mu.Lock()
	defer o.mu.Unlock()
	refused := make(map[smpp.Status]uint64, len(o.refused))
	for status, n := range o.refused {
		refused[status] = n
	}
	return Stats{
		Messages:  o.messages.Load(),
		Accepted:  o.accepted.Load(),
		Refused:   refused,
		Silent:    o.silent.Load(),
		SMS:       o.smsCount,
		Receipts:  o.acked,
		Retried:   o.retried,
		Waiting:   len(o.receipts),
		USSDCalls: len(o.calls),
	}
}

func (o *Operator) sessionConfig() smpp.SessionConfig {
	cfg := o.cfg.Session
	cfg.Handle = o.handle
	cfg.Late = nil
	cfg.Inspect = func(s smpp.Strange) {
		o.log.Warn("strange PDU", "command", s.Header.Command.String(), "reason", s.Reason)
	}
	return cfg
}

func (o *Operator) close() {
	o.cancel()
	o.workers.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, call := range o.calls {
		call.hangUp()
	}
	clear(o.calls)
}

// handle takes a request of the other side.
func (o *Operator) handle(in *smpp.Inbound) {
	switch p := in.PDU.(type) {
	case *smpp.Message:
		switch _, ussd := p.USSDOp(); {
		case ussd:
			o.handleUSSD(in, p)
		case p.IsReceipt():
			// Receipts for what we delivered; there is nobody to show them to.
			o.reply(in, smpp.StatusOK, "")
		default:
			o.handleMessage(in, p)
		}
	case *smpp.Query:
		o.handleQuery(in, p)
	case *smpp.Cancel:
		o.handleCancel(in, p)
	default:
		o.reply(in, smpp.StatusInvalidCommandID, "")
	}
}

// reply answers a request. If the session is gone there is nobody to tell.
func (o *Operator) reply(in *smpp.Inbound, status smpp.Status, id string) {
	if err := in.Answer(status, id); err != nil {
		o.log.Debug("answer not sent", "command", in.Header.Command.String(), "err", err)
	}
}

func (o *Operator) handleMessage(in *smpp.Inbound, m *smpp.Message) {
	n := o.messages.Add(1)
	b := o.behaviour.Load()
	var draw *rand.Rand
	if b.random() {
		draw = rand.New(rand.NewPCG(o.cfg.Seed, n))
	}
	if every(b.DropEvery, n) {
		in.Session().Kill(errors.New("the operator cuts the line"))
		return
	}
	if every(b.HalfOpenEvery, n) {
		o.lines.die(in.Session())
		return
	}
	if status := o.judge(b, m, n, in.ReceivedAt, draw); status != smpp.StatusOK {
		o.mu.Lock()
		o.refused[status]++
		o.mu.Unlock()
		if o.cfg.OnMessage != nil {
			o.cfg.OnMessage(m, status)
		}
		o.delay(b, draw, func() { o.reply(in, status, "") })
		return
	}
	if share(draw, b.Swallow) {
		o.silent.Add(1)
		return
	}
	o.accepted.Add(1)
	id := b.answerID(o.cfg.Seed, n)
	if o.cfg.OnMessage != nil {
		o.cfg.OnMessage(m, smpp.StatusOK)
	}
	o.show(in, m, id)
	o.promise(b, in, m, n, id, draw)
	if every(b.UnbindEvery, n) {
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		o.workers.Go(func() {
			// The answers that are missing are the point.
			_ = in.Session().Close(ended)
		})
	}
	if share(draw, b.Silence) {
		o.silent.Add(1)
		return
	}
	o.delay(b, draw, func() { o.reply(in, smpp.StatusOK, id) })
}

// every says whether the n-th of something is one of every so many.
func every(so int, n uint64) bool { return so > 0 && n%uint64(so) == 0 }

func share(draw *rand.Rand, p float64) bool { return p > 0 && draw.Float64() < p }

// delay answers after the time an answer takes.
func (o *Operator) delay(b *Behaviour, draw *rand.Rand, answer func()) {
	d := b.AnswerDelay
	if b.AnswerJitter > 0 {
		d += time.Duration(draw.Int64N(int64(b.AnswerJitter)))
	}
	if share(draw, b.Late) {
		d = b.LateDelay
	}
	if d <= 0 {
		answer()
		return
	}
	time.AfterFunc(d, answer)
}

// judge decides about a message.
func (o *Operator) judge(b *Behaviour, m *smpp.Message, n uint64, now time.Time, draw *rand.Rand) smpp.Status {
	if len(b.Refuse) > 0 {
		longest, status := -1, smpp.StatusOK
		for prefix, s := range b.Refuse {
			if strings.HasPrefix(m.Destination.Addr, prefix) && len(prefix) > longest {
				longest, status = len(prefix), s
			}
		}
		if status != smpp.StatusOK {
			return status
		}
	}
	if b.StormEvery > 0 {
		o.mu.Lock()
		if every(b.StormEvery, n) {
			o.stormUntil = now.Add(b.StormFor)
		}
		storm := now.Before(o.stormUntil)
		o.mu.Unlock()
		if storm {
			return b.ThrottleStatus
		}
	}
	if b.Rate > 0 {
		o.mu.Lock()
		limiter := o.limiter
		o.mu.Unlock()
		if limiter != nil && !limiter.AllowN(now, 1) {
			return b.ThrottleStatus
		}
	}
	if share(draw, b.Errors) {
		return b.ErrorStatus
	}
	return smpp.StatusOK
}
