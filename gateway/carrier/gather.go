package carrier

import (
	"context"
	"sync"
	"time"
)

// Limits of what comes in.
const (
	gatherMost    = 500                   // receipts or texts stored by one call
	gatherLull    = 3 * time.Millisecond  // a batch is stored when nothing has come for so long: an SMSC's window is out
	gatherWait    = 30 * time.Millisecond // or when the first has waited so long, since ever more come
	gatherWaiting = 4096                  // not stored yet; more are answered with a temporary error
	storeTimeout  = 10 * time.Second      // SMSCs wait 10 to 60 s for a deliver_sm_resp
)

// gatherer collects what sessions bring into batches, so that a database commits once for many, and tells each its fate
// when its batch is stored. A batch grows while more keeps coming. Whoever stores receipts must not depend on their
// order, since operators do not keep it.
type gatherer[T any] struct {
	flush func(context.Context, []T) error
	items chan gathered[T]
	tasks sync.WaitGroup
}

type gathered[T any] struct {
	value  T
	settle func(error)
}

func newGatherer[T any](flush func(context.Context, []T) error) *gatherer[T] {
	return &gatherer[T]{flush: flush, items: make(chan gathered[T], gatherWaiting)}
}

func (g *gatherer[T]) start() {
	// One batch at a time: what comes while it is stored makes the next one. SMSCs let 10 to 50 receipts a bind wait for
	// their answers, so two at once would only halve the batches.
	g.tasks.Go(g.run)
}

// offer takes an item without waiting. It is false when too much waits already; settle is not called then.
func (g *gatherer[T]) offer(value T, settle func(error)) bool {
	select {
	case g.items <- gathered[T]{value, settle}:
		return true
	default:
		return false
	}
}

// crowded reports that storing does not keep up.
func (g *gatherer[T]) crowded() bool { return len(g.items) > gatherWaiting/4 }

// stop stores what was taken. Nothing may be offered any more.
func (g *gatherer[T]) stop() {
	close(g.items)
	g.tasks.Wait()
}

func (g *gatherer[T]) run() {
	batch := make([]gathered[T], 0, gatherMost)
	for first := range g.items {
		batch = g.fill(append(batch[:0], first))
		values := make([]T, len(batch))
		for i := range batch {
			values[i] = batch[i].value
		}
		ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
		err := g.flush(ctx, values)
		cancel()
		for i := range batch {
			batch[i].settle(err)
		}
		clear(batch)
	}
}

func (g *gatherer[T]) fill(batch []gathered[T]) []gathered[T] {
	longest := time.NewTimer(gatherWait)
	defer longest.Stop()
	lull := time.NewTimer(gatherLull)
	defer lull.Stop()
	for len(batch) < gatherMost {
		select {
		case item, ok := <-g.items:
			if !ok {
				return batch
			}
			batch = append(batch, item)
			lull.Reset(gatherLull)
		case <-lull.C:
			return batch
		case <-longest.C:
			return batch
		}
	}
	return batch
}
