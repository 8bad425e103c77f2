package carrier

import "sync"

// resultList carries results from the sessions' goroutines to the callers' callbacks. Its length is bounded by what
// the operator has taken.
type resultList struct {
	mu     sync.Mutex
	list   []func()
	closed bool
	wake   chan struct{}
}

func (r *resultList) push(f func()) {
	r.mu.Lock()
	r.list = append(r.list, f)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// run calls what is pushed until close; then what is left.
func (r *resultList) run() {
	var batch []func()
	for {
		r.mu.Lock()
		batch, r.list = r.list, batch[:0]
		closed := r.closed
		r.mu.Unlock()
		for i, f := range batch {
			f()
			batch[i] = nil
		}
		if len(batch) > 0 {
			continue
		}
		if closed {
			return
		}
		<-r.wake
	}
}

func (r *resultList) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}
