package smpp

import (
	"math/bits"
	"time"
)

// Snapshot is the state of a session at one moment. Counters count from the
// bind.
type Snapshot struct {
	BoundAt time.Time
	LastIn  time.Time // when the last PDU of the peer came
	Open    bool      // it takes requests

	Window    int           // size of the window
	InWindow  int           // requests in it that wait for their answer
	Outside   int           // requests outside the window that wait for their answer
	Waiting   int           // callers that wait for the window
	Waited    time.Duration // sum of the time callers have waited for it
	QueuedOut int           // octets that wait for the socket

	Submitted    uint64 // requests queued for the socket
	Answered     uint64 // outcomes by kind
	NeverWritten uint64
	Unknown      uint64
	Late         uint64 // answers that came after their outcome was unknown
	Stray        uint64 // answers that fit no request
	Nacks        uint64 // generic_nack received

	Inbound         uint64 // requests of the peer handed to the handler
	InboundAnswered uint64
	InboundPending  int    // those without an answer of ours
	Refused         uint64 // requests of the peer answered without the handler
	Strange         uint64 // PDUs that could not be decoded or are unknown

	OctetsIn  uint64
	OctetsOut uint64

	// RTT tells the time from the queueing of a request to its answer, of the
	// requests in the window. The percentiles are of the last few thousand and
	// exact to a fifth.
	RTTLast time.Duration
	RTTP50  time.Duration
	RTTP99  time.Duration

	// ResponseTimeout is how long an answer may take now.
	ResponseTimeout time.Duration
}

type counters struct {
	submitted, answered, neverWritten, unknown, late, stray, nacks uint64
	inbound, inboundAnswered, refused, strange                     uint64
}

// Snapshot tells the state of the session.
func (s *Session) Snapshot() Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Snapshot{
		BoundAt:         s.since,
		LastIn:          s.since.Add(time.Duration(s.lastIn.Load())),
		Open:            s.state == stateOpen,
		Window:          s.cfg.Window,
		InWindow:        s.inWindow,
		Outside:         s.inFlight - s.inWindow,
		Waiting:         int(s.waiting.Load()),
		Waited:          time.Duration(s.waited.Load()),
		QueuedOut:       len(s.out),
		Submitted:       s.n.submitted,
		Answered:        s.n.answered,
		NeverWritten:    s.n.neverWritten,
		Unknown:         s.n.unknown,
		Late:            s.n.late,
		Stray:           s.n.stray,
		Nacks:           s.n.nacks,
		Inbound:         s.n.inbound,
		InboundAnswered: s.n.inboundAnswered,
		InboundPending:  s.inboundPending,
		Refused:         s.n.refused,
		Strange:         s.n.strange,
		OctetsIn:        uint64(s.bytesIn.Load()),
		OctetsOut:       uint64(s.written.Load()),
		RTTLast:         s.rtt.last,
		RTTP50:          s.rtt.quantile(0.5),
		RTTP99:          s.rtt.quantile(0.99),
		ResponseTimeout: s.responseTimeout(),
	}
}

const (
	latencyUnit    = 16 * time.Microsecond // upper bound of the first bucket
	latencyBuckets = 4 * 25                // four to a doubling, up to nine minutes
	latencyMemory  = 4096                  // samples after which old ones count half
)

// latency is a histogram of round trips. Each power of two has four buckets.
type latency struct {
	buckets [latencyBuckets]uint32
	total   uint32
	last    time.Duration
}

func (l *latency) add(d time.Duration) {
	l.last = d
	l.buckets[latencyBucket(d)]++
	l.total++
	if l.total < latencyMemory {
		return
	}
	l.total = 0
	for i := range l.buckets {
		l.buckets[i] /= 2
		l.total += l.buckets[i]
	}
}

func latencyBucket(d time.Duration) int {
	n := uint64(max(d, 0) / (latencyUnit / 4)) // quarters of the unit
	if n < 4 {
		return 0
	}
	power := bits.Len64(n) - 3 // n is 4 to 7 times two to this power
	return min(4*power+int(n>>power)-3, latencyBuckets-1)
}

// latencyBound is the upper bound of a bucket.
func latencyBound(bucket int) time.Duration {
	if bucket == 0 {
		return latencyUnit
	}
	power, quarter := (bucket-1)/4, (bucket-1)%4
	return latencyUnit / 4 * time.Duration(quarter+5) << power
}

// quantile is an upper bound of the share q of the samples, 0 without samples.
func (l *latency) quantile(q float64) time.Duration {
	if l.total == 0 {
		return 0
	}
	left := max(uint32(float64(l.total)*q+0.5), 1)
	for i, n := range l.buckets {
		if n >= left {
			return latencyBound(i)
		}
		left -= n
	}
	return latencyBound(latencyBuckets - 1)
}
