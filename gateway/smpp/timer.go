package smpp

import (
	"time"
)

// keep watches the clock: enquire_link and requests without an answer.
func (s *Session) keep() {
	tick := min(s.cfg.EnquireInterval, s.cfg.EnquireTimeout, s.cfg.ResponseTimeout) / 20
	ticker := time.NewTicker(min(max(tick, time.Millisecond), 250*time.Millisecond))
	defer ticker.Stop()
	asked := s.since      // when the last round of enquire_link began
	var waiting time.Time // when the unanswered one was sent; zero if none
	misses := 0
	for {
		select {
		case <-s.dead:
			return
		case <-ticker.C:
		}
		now := time.Now()
		s.expire(now)
		switch {
		case !waiting.IsZero() && s.lastIn.Load() >= int64(waiting.Sub(s.since)):
			waiting, misses = time.Time{}, 0
		case !waiting.IsZero() && now.Sub(waiting) >= s.cfg.EnquireTimeout:
			if misses++; misses >= enquireMisses {
				s.fail(ErrDead)
				return
			}
			s.enquire()
			waiting = now
		case waiting.IsZero() && now.Sub(asked) >= s.cfg.EnquireInterval:
			s.enquire()
			asked, waiting = now, now
		}
	}
}

func (s *Session) enquire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	// A session that is ending needs no enquire_link.
	_, _ = s.enqueueRequest(request{command: CmdEnquireLink, internal: true}, &Plain{Command: CmdEnquireLink})
}

// expire gives up the requests whose answer is overdue. One the socket has not
// taken yet is not overdue: the write timeout watches over it.
func (s *Session) expire(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	written := s.written.Load()
	usual := s.responseTimeout()
	overdue := s.inOrder(func(r request) bool {
		limit := r.timeout
		if limit == 0 {
			limit = usual
		}
		return now.Sub(r.sent) >= limit && r.offset < written
	})
	for _, sequence := range overdue {
		r := s.pending[sequence]
		if !r.internal {
			s.rememberLate(sequence, r)
			if r.windowed {
				s.silent++
			}
		}
		s.settle(sequence, r, Outcome{Kind: Unknown, Err: ErrTimeout})
	}
	for sequence, r := range s.late {
		if now.Sub(r.sent) > lateLife {
			delete(s.late, sequence)
		}
	}
	if s.cfg.StuckAfter > 0 && s.silent >= s.cfg.StuckAfter {
		s.failLocked(ErrStuck)
	}
}

// responseTimeout is how long an answer may take now.
func (s *Session) responseTimeout() time.Duration {
	if s.rtt.total < enoughAnswers {
		return s.cfg.ResponseTimeout
	}
	slow := 3 * s.rtt.quantile(0.99)
	return min(max(slow, s.cfg.ResponseTimeout), slowestFactor*s.cfg.ResponseTimeout)
}

func (s *Session) rememberLate(sequence uint32, r request) {
	if len(s.late) >= lateLimit {
		oldest, found := uint32(0), false
		for candidate, l := range s.late {
			if !found || l.sent.Before(s.late[oldest].sent) {
				oldest, found = candidate, true
			}
		}
		delete(s.late, oldest)
	}
	s.late[sequence] = lateRequest{command: r.command, sent: r.sent, token: r.token}
}
