package reader

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"zvonok/ledger"
	"zvonok/ledger/pg"
)

// result is what became of one fact.
type result struct {
	kind      string // one of the labels of zvonok_reader_events_total
	rejection Rejection
	revoked   bool  // the device's key is no longer valid: the whole upload is refused
	err       error // could not be stored
}

// pacer keeps small batches apart. A transaction costs some ten times what one
// more event in it costs, so under a load that the database would keep up with
// in batches of five, it is better to let the next batch grow a little. A quiet
// system waits for nothing, nor does one whose batches are large anyway.
type pacer struct {
	mu   sync.Mutex
	last time.Time // when the latest batch began, or will
}

// turn returns how long a batch of so many uploads is to wait.
func (p *pacer) turn(uploads int, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	begin := now
	if next := p.last.Add(smallBatchTime); uploads < smallBatch && next.After(now) && next.Sub(now) <= smallBatchTime {
		begin = next
	}
	p.last = begin
	return begin.Sub(now)
}

// storeGathered stores uploads that were gathered.
func (in *Intake) storeGathered(ctx context.Context, uploads []*upload) ([]answer, error) {
	time.Sleep(in.pace.turn(len(uploads), time.Now()))
	return in.storeUploads(ctx, uploads)
}

// storeUploads stores uploads and answers each.
func (in *Intake) storeUploads(ctx context.Context, uploads []*upload) ([]answer, error) {
	n := 0
	for _, u := range uploads {
		n += len(u.facts)
	}
	facts := make([]*fact, 0, n)
	for _, u := range uploads {
		facts = append(facts, u.facts...)
	}
	results := make([]result, n)
	in.storeFacts(ctx, facts, results)
	answers := make([]answer, len(uploads))
	for i, u := range uploads {
		answers[i] = in.answerUpload(u, results[:len(u.facts)])
		results = results[len(u.facts):]
	}
	return answers, nil
}

// answerUpload puts the answer together and counts.
func (in *Intake) answerUpload(u *upload, results []result) answer {
	for _, r := range results {
		if r.revoked {
			in.keys.forget(u.device.ID)
			return answer{err: errKey}
		}
		if r.err != nil {
			return answer{err: r.err}
		}
	}
	a := answer{acknowledged: make([]int64, 0, len(results))}
	answered := make(map[int64]bool, len(results))
	for i, r := range results {
		f := u.facts[i]
		in.metrics.events.WithLabelValues(f.event.String(), r.kind).Inc()
		if r.rejection.Code != "" {
			a.rejected = append(a.rejected, r.rejection)
			in.metrics.rejections.WithLabelValues(string(r.rejection.Code)).Inc()
		} else if !answered[f.seq] {
			answered[f.seq] = true
			a.acknowledged = append(a.acknowledged, f.seq)
		}
	}
	return a
}

// storeFacts stores facts in one transaction. When the database refuses them for
// what they hold, it halves them until the one at fault stands alone; that one
// goes to quarantine. When the database is away nothing is stored any more, and
// every fact that is not stored has the error as its result.
func (in *Intake) storeFacts(ctx context.Context, facts []*fact, results []result) {
	err := in.tryFacts(ctx, facts, results)
	switch {
	case err == nil:
	case pg.Temporary(err) || errors.Is(err, errAgain) || isTimeout(err):
		for i := range results {
			results[i] = result{err: err}
		}
	case len(facts) > 1:
		in.metrics.split.Inc()
		half := len(facts) / 2
		in.storeFacts(ctx, facts[:half], results[:half])
		in.storeFacts(ctx, facts[half:], results[half:])
	default:
		f := facts[0]
		if f.rejection.Code == Unprocessable {
			results[0] = result{err: err}
			return
		}
		in.log.ErrorContext(ctx, "an event cannot be stored and goes to quarantine",
			"device", f.device.ID, "seq", f.seq, "type", f.event.String(), "error", describe(err))
		poisoned := *f
		poisoned.rejection = Rejection{
			Seq: f.seq, Code: Unprocessable, Message: "the event could not be stored; staff have been told",
		}
		in.storeFacts(ctx, []*fact{&poisoned}, results)
	}
}

func isTimeout(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || pgconn.Timeout(err)
}

// describe names an error of the database without its detail, which may quote data.
func describe(err error) string {
	var server *pgconn.PgError
	if errors.As(err, &server) {
		return fmt.Sprintf("%s: %s (table %s, constraint %s)", server.Code, server.Message, server.TableName,
			server.ConstraintName)
	}
	return err.Error()
}

// tryFacts stores facts in one transaction, again when it met a deadlock.
func (in *Intake) tryFacts(ctx context.Context, facts []*fact, results []result) error {
	var err error
	for range deadlocks {
		if err = in.tryOnce(ctx, facts, results); !isDeadlock(err) {
			return err
		}
	}
	return err
}

func isDeadlock(err error) bool {
	var server *pgconn.PgError
	return errors.Is(err, errAgain) || errors.As(err, &server) && strings.HasPrefix(server.Code, "40")
}

func (in *Intake) tryOnce(ctx context.Context, facts []*fact, results []result) error {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	began := in.now()
	s := &storing{in: in, facts: facts, now: began, results: make([]result, len(facts)), early: map[int]bool{}}
	if err := pgx.BeginTxFunc(ctx, in.pool, pg.PlannedOnce, func(tx pgx.Tx) error { return s.run(ctx, tx) }); err != nil {
		return fmt.Errorf("store %d events: %w", len(facts), err)
	}
	in.tellAlarms(ctx, s.alarms)
	in.metrics.batch.Observe(float64(len(facts)))
	in.metrics.commit.Observe(in.now().Sub(began).Seconds())
	copy(results, s.results)
	return nil
}

// storing is one transaction on its way. It does not change the facts, so that
// they can be tried again.
type storing struct {
	in      *Intake
	facts   []*fact
	now     time.Time
	results []result // one for each fact

	first  map[gateKey]int          // the first fact of this batch with that number
	fresh  []int                    // facts that happen now, by their numbers
	ids    map[int]ledger.EventID   // of the fresh ones
	past   map[gateKey]passedBefore // numbers that were used before this batch
	early  map[int]bool             // fresh reversals whose sale has not come
	people []resolved               // who each fact is about
	alarms []alarmed                // raised by conflicts
}

// run is the transaction.
func (s *storing) run(ctx context.Context, tx pgx.Tx) error {
	if err := s.resolve(ctx, tx); err != nil {
		return err
	}
	if err := s.gate(ctx, tx); err != nil {
		return err
	}
	if err := s.recordPasses(ctx, tx); err != nil {
		return err
	}
	if err := s.recordDenials(ctx, tx); err != nil {
		return err
	}
	if err := s.bookSales(ctx, tx); err != nil {
		return err
	}
	s.answerDuplicates()
	if err := s.keepRejected(ctx, tx); err != nil {
		return err
	}
	var err error
	s.alarms, err = raiseAlarms(ctx, tx, s.forks(), s.now)
	return err
}

// reject notes that a fact is rejected.
func (s *storing) reject(i int, code Code, message string) {
	s.results[i] = result{
		kind: resultRejected, rejection: Rejection{Seq: s.facts[i].seq, Code: code, Message: message},
	}
}

// fine reports whether a fact has not been rejected so far.
func (s *storing) fine(i int) bool { return s.results[i].rejection.Code == "" }

// each yields the fresh facts of these types that have not been rejected.
func (s *storing) each(types ...eventType) iter.Seq2[int, *fact] {
	return func(yield func(int, *fact) bool) {
		for _, i := range s.fresh {
			if f := s.facts[i]; s.fine(i) && slices.Contains(types, f.event) && !yield(i, f) {
				return
			}
		}
	}
}
