package pg

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

// ErrClosed says that a Gatherer takes no more calls.
var ErrClosed = errors.New("closed: no more work is taken")

// GathererConfig says how long and how many calls are gathered.
type GathererConfig struct {
	// Max is the largest batch, in calls; at least 1.
	Max int
	// Wait is the longest time a call waits for company while another batch is
	// being flushed and a further flush is allowed.
	Wait time.Duration
	// Parallel is how many batches may be flushed at once; at least 1.
	Parallel int
}

// Gatherer turns concurrent calls of one into batches, so that forty uploads
// that arrive together cost one transaction instead of forty.
//
// While nothing is being flushed a call is flushed at once, so a quiet system
// pays no delay. While a flush runs, calls gather, and the next batch leaves
// when the first of these is true: no flush is running any more; Max calls
// have gathered; the oldest has waited for Wait. The last two need a free slot
// of Parallel. So the size of batches follows the load by itself: the busier
// the database, the larger the batches.
//
// The queue has no bound of its own: each call occupies its caller until it is
// answered, so whoever bounds the callers bounds the queue.
type Gatherer[In, Out any] struct {
	config GathererConfig
	flush  func(ctx context.Context, batch []In) ([]Out, error)

	mu      sync.Mutex
	waiting []*gathered[In, Out] // oldest first
	running int                  // flushes under way
	closed  bool
	timer   *time.Timer   // wakes dispatch when the oldest call has waited long enough
	idle    chan struct{} // closed when closed, nothing waits and nothing runs
}

// gathered is one call on its way.
type gathered[In, Out any] struct {
	ctx   context.Context
	in    In
	since time.Time
	done  chan gatheredResult[Out] // buffered, so that a flush never waits for a caller who left
}

type gatheredResult[Out any] struct {
	out Out
	err error
}

// NewGatherer makes a Gatherer whose batches are done by flush. flush must
// return one Out per In, in order; its error goes to every caller of that
// batch. Its context is not that of any caller and is never cancelled, since
// the batch belongs to all of its callers: flush bounds its own time. NewGatherer
// panics when Max or Parallel is below 1, since that is a mistake in the program.
func NewGatherer[In, Out any](
	config GathererConfig, flush func(ctx context.Context, batch []In) ([]Out, error),
) *Gatherer[In, Out] {
	if config.Max < 1 || config.Parallel < 1 {
		panic(fmt.Sprintf("pg.NewGatherer: Max is %d and Parallel is %d, both must be at least 1",
			config.Max, config.Parallel))
	}
	g := &Gatherer[In, Out]{config: config, flush: flush, idle: make(chan struct{})}
	g.timer = time.AfterFunc(time.Hour, g.wake)
	g.timer.Stop()
	return g
}

// Do adds in to a batch and waits for its outcome. When ctx ends first, Do
// returns its cause; a call whose batch has not left by then is taken out of
// it, one whose batch has left may still be done. After Close it returns
// ErrClosed.
func (g *Gatherer[In, Out]) Do(ctx context.Context, in In) (Out, error) {
	var none Out
	if ctx.Err() != nil {
		return none, context.Cause(ctx)
	}
	call := &gathered[In, Out]{ctx: ctx, in: in, since: time.Now(), done: make(chan gatheredResult[Out], 1)}
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return none, ErrClosed
	}
	g.waiting = append(g.waiting, call)
	g.dispatch()
	g.mu.Unlock()

	select {
	case result := <-call.done:
		return result.out, result.err
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
}

// Close refuses new calls, flushes those that wait and returns when the last
// batch is done. It may be called more than once.
func (g *Gatherer[In, Out]) Close() {
	g.mu.Lock()
	if !g.closed {
		g.closed = true
		g.timer.Stop()
		g.dispatch()
		if g.running == 0 {
			close(g.idle)
		}
	}
	g.mu.Unlock()
	<-g.idle
}

func (g *Gatherer[In, Out]) wake() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dispatch()
}

// dispatch starts every batch that is due. The caller holds mu.
func (g *Gatherer[In, Out]) dispatch() {
	for g.running < g.config.Parallel && len(g.waiting) > 0 {
		due := g.running == 0 || g.closed || len(g.waiting) >= g.config.Max
		if !due {
			left := g.config.Wait - time.Since(g.waiting[0].since)
			if left > 0 {
				g.timer.Reset(left)
				return
			}
		}
		if batch := g.take(); len(batch) > 0 {
			g.running++
			go g.run(batch)
		}
	}
}

// take removes up to Max calls from the queue and drops those whose callers
// have gone. The caller holds mu.
func (g *Gatherer[In, Out]) take() []*gathered[In, Out] {
	batch := make([]*gathered[In, Out], 0, min(len(g.waiting), g.config.Max))
	taken := 0
	for _, call := range g.waiting {
		if len(batch) == g.config.Max {
			break
		}
		taken++
		if call.ctx.Err() == nil {
			batch = append(batch, call)
		}
	}
	rest := copy(g.waiting, g.waiting[taken:])
	clear(g.waiting[rest:])
	g.waiting = g.waiting[:rest]
	return batch
}

func (g *Gatherer[In, Out]) run(batch []*gathered[In, Out]) {
	outs, err := g.flushSafely(batch)
	for i, call := range batch {
		if err != nil {
			call.done <- gatheredResult[Out]{err: err}
		} else {
			call.done <- gatheredResult[Out]{out: outs[i]}
		}
	}
	// Who was just answered often calls again at once. Letting those go first
	// keeps them in one batch; otherwise small batches and large ones alternate.
	runtime.Gosched()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running--
	g.dispatch()
	if g.closed && g.running == 0 {
		close(g.idle)
	}
}

// flushSafely turns a panic of flush into an error of this batch: one bad call
// must not take the process, and with it every other call, down.
func (g *Gatherer[In, Out]) flushSafely(batch []*gathered[In, Out]) (outs []Out, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("flush a batch of %d: panic: %v\n%s", len(batch), cause, debug.Stack())
		}
	}()
	ins := make([]In, len(batch))
	for i, call := range batch {
		ins[i] = call.in
	}
	outs, err = g.flush(context.Background(), ins)
	if err == nil && len(outs) != len(ins) {
		err = fmt.Errorf("flush a batch of %d: got %d outcomes", len(ins), len(outs))
	}
	return outs, err
}
