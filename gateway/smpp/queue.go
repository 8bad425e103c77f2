package smpp

import "sync"

// queue hands values from many goroutines to one, in order. It takes whole
// batches at a time, so that under load a value costs an append and no wake-up.
// It has no bound of its own: the window and the inbound limit are its bounds.
type queue[T any] struct {
	mu     sync.Mutex
	values []T
	closed bool
	wake   chan struct{} // holds a token while there may be something to take
}

func newQueue[T any]() *queue[T] {
	return &queue[T]{wake: make(chan struct{}, 1)}
}

func (q *queue[T]) push(v T) {
	q.mu.Lock()
	q.values = append(q.values, v)
	first := len(q.values) == 1
	q.mu.Unlock()
	if first {
		q.signal()
	}
}

// close lets take return what is left and then nothing.
func (q *queue[T]) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.signal()
}

func (q *queue[T]) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take waits for values and exchanges them for the emptied slice of the batch
// before. It is not ok when the queue is closed and empty.
func (q *queue[T]) take(emptied []T) (batch []T, ok bool) {
	clear(emptied)
	for {
		q.mu.Lock()
		if len(q.values) > 0 {
			batch, q.values = q.values, emptied[:0]
			q.mu.Unlock()
			return batch, true
		}
		closed := q.closed
		q.mu.Unlock()
		if closed {
			return nil, false
		}
		<-q.wake
	}
}
