package topup

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/singleflight"

	"zvonok/ledger"
	"zvonok/ledger/pg"
)

// Config is what Endpoints needs.
type Config struct {
	Pool *pgxpool.Pool
	// Book books payments and announces them.
	Book *ledger.Book
	// TrustedProxies are ours: what the last of them says in X-Forwarded-For is
	// where a request comes from.
	TrustedProxies []netip.Prefix
	// Log takes ids only.
	Log *slog.Logger
	// Metrics may be nil.
	Metrics *Metrics
	Now     func() time.Time
}

// Endpoints answers banks over HTTP.
type Endpoints struct {
	pool     *pgxpool.Pool
	book     *ledger.Book
	log      *slog.Logger
	metrics  *Metrics
	now      func() time.Time
	partners *directory
	gate     *gate
	watch    *watch
	pays     *pg.Gatherer[payment, booked]
	same     singleflight.Group
	points   points
}

// booked is a booking, or why this one could not be made.
type booked struct {
	booking
	err error
}

// NewEndpoints makes Endpoints. The caller closes them when no request is under way.
func NewEndpoints(c Config) *Endpoints {
	e := &Endpoints{
		pool: c.Pool, book: c.Book, log: c.Log, metrics: c.Metrics, now: c.Now,
		partners: &directory{pool: c.Pool, now: c.Now}, gate: newGate(c.TrustedProxies), watch: newWatch(),
	}
	e.pays = pg.NewGatherer(pg.GathererConfig{Max: maxBatch, Parallel: parallelBatch}, e.bookBatch)
	return e
}

// Close waits for the payments under way.
func (e *Endpoints) Close() { e.pays.Close() }

// Handler serves /pay/osmp/{partner} and /pay/sber/{partner}, GET and POST.
// What the protocols know is answered 200 with XML; who may not ask gets 403 and
// no word more.
func (e *Endpoints) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/pay/osmp/{partner}", func(w http.ResponseWriter, r *http.Request) { e.serve(w, r, OSMP) })
	mux.HandleFunc("/pay/sber/{partner}", func(w http.ResponseWriter, r *http.Request) { e.serve(w, r, Sber) })
	mux.HandleFunc("/pay/", func(w http.ResponseWriter, r *http.Request) { e.forbid(w, r, nil, refusedPartner) })
	return mux
}

func (e *Endpoints) serve(w http.ResponseWriter, r *http.Request, dialect Dialect) {
	began := e.now()
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		w.Header().Set("Allow", "GET, POST")
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	p, err := e.partners.get(r.Context(), r.PathValue("partner"))
	if err != nil {
		// Not even the dialect's temporary answer: who asks is not known.
		e.log.Error("read partners", "error", err)
		w.Header().Set("Retry-After", "30")
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if p == nil || p.Dialect != dialect || p.Disabled {
		e.forbid(w, r, p, refusedPartner)
		return
	}
	if why := e.gate.check(p, r); why != "" {
		e.forbid(w, r, p, why)
		return
	}
	ps, err := readParameters(r)
	if err != nil {
		// Nothing of it is to be trusted, its signature least.
		if p.Signed {
			e.forbid(w, r, p, refusedHash)
			return
		}
		e.reply(w, p, request{protocol: p.defaultProtocol(), command: unknownCommand}, Missing,
			p.render(p.defaultProtocol(), answer{outcome: Missing}), began)
		return
	}
	if !p.signed(ps) {
		e.forbid(w, r, p, refusedHash)
		return
	}
	q, outcome := p.read(ps)
	body, outcome := e.answer(r.Context(), p, q, ps, outcome)
	e.reply(w, p, q, outcome, body, began)
}

func (p *Partner) defaultProtocol() protocol {
	if p.Dialect == Sber {
		return sberProtocol1
	}
	return osmpProtocol
}

// forbid says nothing but 403.
func (e *Endpoints) forbid(w http.ResponseWriter, r *http.Request, p *Partner, why refusal) {
	e.metrics.refused(why)
	id := PartnerID(0)
	if p != nil {
		id = p.ID
	}
	e.log.Warn("bank request refused", "partner", id, "reason", why, "address", e.gate.address(r))
	w.WriteHeader(http.StatusForbidden)
}

func (e *Endpoints) reply(w http.ResponseWriter, p *Partner, q request, outcome Outcome, body []byte, began time.Time) {
	e.metrics.answered(q.command, outcome, e.now().Sub(began))
	switch outcome {
	case OK, Duplicate:
		e.log.Debug("bank request", "partner", p.ID, "command", q.command, "outcome", outcome, "txn", q.txn)
	case Conflict:
		e.log.Error("bank request: the id is of another payment", "partner", p.ID, "command", q.command, "txn", q.txn)
	default:
		e.log.Info("bank request", "partner", p.ID, "command", q.command, "outcome", outcome, "txn", q.txn)
	}
	header := w.Header()
	header.Set("Content-Type", "text/xml; charset=utf-8")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	w.Write(body) // a terminal that has gone asks again
}

// answer returns the bytes to answer with, and what they say.
func (e *Endpoints) answer(ctx context.Context, p *Partner, q request, ps parameters, outcome Outcome) ([]byte, Outcome) {
	var a answer
	var err error
	switch {
	case q.command == checkCommand:
		a, err = e.check(ctx, p, q, ps, outcome)
	case q.command == payCommand && q.txn != "" && outcome.ofMoney():
		a, err = e.refuse(ctx, p, q, outcome)
	case outcome != OK:
		a = answer{outcome: outcome, txn: q.txn}
	case q.command == payCommand:
		var b booking
		if b, err = e.pay(ctx, p, q); err == nil && b.answer != nil {
			return b.answer, b.outcome
		}
		a = answer{outcome: b.outcome, txn: q.txn}
	case q.command == statusCommand:
		limited, cancel := context.WithTimeout(ctx, checkTimeout)
		a, err = e.status(limited, p, q)
		cancel()
	case q.command == cancelCommand:
		limited, cancel := context.WithTimeout(ctx, payTimeout)
		a, err = e.cancel(limited, p, q)
		cancel()
	}
	if err != nil {
		// Also when it cannot get better by itself: a final answer would be a
		// lie about money that may have been booked.
		e.log.Error("bank request failed", "partner", p.ID, "command", q.command, "txn", q.txn, "error", err)
		a = answer{outcome: Temporary, txn: q.txn}
	}
	return p.render(q.protocol, a), a.outcome
}

// check answers whether an account may be topped up and whose it is. It writes nothing.
func (e *Endpoints) check(ctx context.Context, p *Partner, q request, ps parameters, outcome Outcome) (answer, error) {
	a := answer{outcome: outcome, txn: q.txn}
	number := q.account
	if number == "" {
		number = ps["account"]
	}
	now := e.now()
	if !e.watch.admit(p, number, now) {
		a.outcome = Technical
		return a, nil
	}
	if outcome == BadAccount {
		e.watched(p, number, true, now)
	}
	if outcome != OK {
		return a, nil
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	w, known, err := readWallet(ctx, e.pool, q.account, today(e.book, now))
	if err != nil {
		return a, err
	}
	e.watched(p, number, !known, now)
	switch {
	case !known:
		a.outcome = NotFound
	case w.left:
		a.outcome = Inactive
	case w.closed:
		a.outcome = Closed
	case !p.serves(w.payee, q.payee):
		a.outcome = Forbidden
	case q.sum > 0 && q.sum < p.Min:
		a.outcome = TooSmall
	case q.sum > p.Max:
		a.outcome = TooLarge
	default:
		a.comment = "found"
		if p.Dialect == OSMP {
			a.comment = noComment
		}
		a.found = &found{
			name: w.name.shownTo(p), balance: w.balance, recommend: min(max(recommended, p.Min), p.Max),
			payee: payeeLine(w.payee.Name, w.payee.INN),
		}
	}
	return a, nil
}

// watched notes what a check found and raises the alarm.
func (e *Endpoints) watched(p *Partner, number string, wrong bool, now time.Time) {
	if e.watch.note(p, number, wrong, now) {
		e.metrics.walked()
		e.log.Error("someone walks through account numbers: checks are paused", "partner", p.ID, "pause", watchPause)
	}
}

// pay books a payment. Requests that say the same at the same time share one
// booking, and so get the same answer.
func (e *Endpoints) pay(ctx context.Context, p *Partner, q request) (booking, error) {
	y := payment{
		partner: p, protocol: q.protocol, origin: fromPay, txn: q.txn, account: q.account, sum: q.sum, bankAt: q.bankAt,
		payee: q.payee, terminal: q.terminal,
	}
	key := p.Name + " " + string(q.protocol) + " " + q.txn + " " + q.account + " " + q.sum.String()
	done := e.same.DoChan(key, func() (any, error) {
		// Not the context of the first who asked: others wait for it as well.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), payTimeout)
		defer cancel()
		b, err := e.pays.Do(ctx, y)
		if err != nil {
			return booking{}, err
		}
		return b.booking, b.err
	})
	select {
	case result := <-done:
		if result.Err != nil {
			return booking{}, result.Err
		}
		return result.Val.(booking), nil
	case <-ctx.Done():
		return booking{}, context.Cause(ctx)
	}
}

// refuse answers a payment whose account or sum cannot be. Under an id that we
// have, it is another account or sum than the one that was booked.
func (e *Endpoints) refuse(ctx context.Context, p *Partner, q request, outcome Outcome) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	_, err := readPayment(ctx, e.pool, p, q.txn, 0)
	switch {
	case errors.Is(err, errNoPayment):
		return answer{outcome: outcome, txn: q.txn}, nil
	case err != nil:
		return answer{}, err
	}
	return answer{outcome: Conflict, txn: q.txn}, nil
}

// bookBatch books the payments that came together in one transaction. When that
// fails for good, each is tried by itself, so that one does not stop the others.
func (e *Endpoints) bookBatch(ctx context.Context, batch []payment) ([]booked, error) {
	ctx, cancel := context.WithTimeout(ctx, payTimeout)
	defer cancel()
	outs := make([]booked, len(batch))
	bookings, err := e.bookTogether(ctx, batch)
	if err != nil && len(batch) > 1 && !pg.Temporary(err) && !errors.Is(err, context.DeadlineExceeded) {
		for i := range batch {
			one, err := e.bookTogether(ctx, batch[i:i+1])
			if err != nil {
				outs[i].err = err
				continue
			}
			outs[i].booking = one[0]
		}
		return outs, nil
	}
	if err != nil {
		return nil, err
	}
	for i := range bookings {
		outs[i].booking = bookings[i]
	}
	return outs, nil
}

func (e *Endpoints) bookTogether(ctx context.Context, batch []payment) (bookings []booking, err error) {
	err = pg.InTx(ctx, e.pool, func(tx pgx.Tx) error {
		bookings, err = bookPayments(ctx, tx, e.book, batch, e.now())
		return err
	})
	if err != nil {
		return nil, err
	}
	for i := range bookings {
		if b := &bookings[i]; b.suspense != credited {
			e.metrics.suspended(b.suspense)
			e.log.Warn("payment to the suspense account", "partner", batch[i].partner.ID, "txn", batch[i].txn, "reason", b.suspense)
		}
	}
	return bookings, nil
}
