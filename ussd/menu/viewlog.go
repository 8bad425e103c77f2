package menu

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"zvonok/access"
)

// errViewsFull means that the access log has not been written for long: nothing is shown that is not noted (D14).
var errViewsFull = errors.New("the access log cannot be written")

// viewLog writes views to the access log in batches, a moment after they were shown, so that no answer waits for it.
// A process that is killed loses the views of that moment, but not those that must outlast the database's absence.
type viewLog struct {
	pool    *pgxpool.Pool
	log     *slog.Logger
	metrics *Metrics

	journal *journal // of what must outlast the process; nil when nothing does

	writing sync.Mutex // one flush at a time; taken before mu

	mu      sync.Mutex
	waiting []access.View
	ended   bool
	filled  chan struct{} // a batch has gathered
}

func newViewLog(config Config) *viewLog {
	l := &viewLog{pool: config.Pool, log: config.Log, metrics: config.Metrics, filled: make(chan struct{}, 1)}
	if config.Remember > 0 {
		l.journal = &journal{path: config.Journal}
	}
	return l
}

// outlast takes views that are kept until the database has them, whatever becomes of this process.
func (l *viewLog) outlast(ctx context.Context, views []access.View) error {
	l.mu.Lock()
	ended := l.ended
	l.mu.Unlock()
	if ended {
		return access.LogView(ctx, l.pool, views)
	}
	return l.journal.write(views)
}

// add takes views. It is an error when too many wait. Once the log has ended they are written at once.
func (l *viewLog) add(ctx context.Context, views []access.View) error {
	l.mu.Lock()
	ended := l.ended
	if !ended {
		if len(l.waiting)+len(views) > viewsKept {
			l.mu.Unlock()
			return errViewsFull
		}
		l.waiting = append(l.waiting, views...)
		if len(l.waiting) >= viewsAtOnce {
			select {
			case l.filled <- struct{}{}:
			default:
			}
		}
		l.metrics.waiting.Set(float64(len(l.waiting)))
	}
	l.mu.Unlock()
	if ended {
		return access.LogView(ctx, l.pool, views)
	}
	return nil
}

// run writes until ctx ends, and then what is left.
func (l *viewLog) run(ctx context.Context) {
	pause := time.NewTimer(viewsWait)
	defer pause.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			continue
		case <-pause.C:
		case <-l.filled:
		}
		wait := viewsWait
		// What is being written when ctx ends is written to its end.
		if err := l.flush(context.WithoutCancel(ctx)); err != nil {
			l.metrics.failed.Inc()
			l.log.Error("ussd: the access log was not written", "error", err)
			wait = viewsRetry
		}
		pause.Reset(wait)
	}
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
	if err := l.flush(context.WithoutCancel(ctx)); err != nil {
		l.metrics.failed.Inc()
		l.log.Error("ussd: the access log was not written; views not written down are lost", "lost", len(l.waiting), "error", err)
	}
}

// flush writes what waits; what was not written waits on.
func (l *viewLog) flush(ctx context.Context) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	for {
		l.mu.Lock()
		batch := l.waiting[:min(len(l.waiting), viewsAtOnce)]
		l.mu.Unlock()
		if len(batch) == 0 {
			return l.pour(ctx)
		}
		limited, cancel := context.WithTimeout(ctx, viewsTime)
		err := access.LogView(limited, l.pool, batch)
		cancel()
		if err != nil {
			return err
		}
		l.mu.Lock()
		l.waiting = append([]access.View(nil), l.waiting[len(batch):]...)
		l.metrics.waiting.Set(float64(len(l.waiting)))
		l.mu.Unlock()
		l.metrics.written.Add(float64(len(batch)))
	}
}

// pour writes what was to outlast the database's absence.
func (l *viewLog) pour(ctx context.Context) error {
	if l.journal == nil {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, viewsTime)
	defer cancel()
	poured, err := l.journal.pour(limited, l.pool)
	if err != nil {
		return err
	}
	if poured > 0 {
		l.metrics.written.Add(float64(poured))
		l.log.Info("ussd: the views of balances shown from memory are in the access log", "views", poured)
	}
	return nil
}
