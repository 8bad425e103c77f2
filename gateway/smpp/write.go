package smpp

import (
	"fmt"
	"time"
)

func (s *Session) signalWriter() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// write owns the writing side of the socket. It takes all that is queued at
// once: while one batch is on its way the next one gathers, so a busy session
// makes few large writes and an idle one writes at once.
func (s *Session) write() {
	var spare []byte
	for {
		batch, fenced, ok := s.takeQueue(spare)
		if !ok {
			break
		}
		if fenced && s.cfg.Fence != nil && !s.cfg.Fence() {
			s.fail(ErrFenced)
			return
		}
		if err := s.conn.SetWriteDeadline(time.Now().Add(s.cfg.WriteTimeout)); err != nil {
			s.fail(fmt.Errorf("set write deadline: %w", err))
			return
		}
		n, err := s.conn.Write(batch)
		s.written.Add(int64(n))
		if err != nil {
			s.fail(fmt.Errorf("write: %w", err))
			return
		}
		spare = batch
		if cap(spare) > queueMax {
			spare = nil
		}
	}
	s.linger()
}

// takeQueue waits for octets to write, and says whether requests that the fence
// guards are among them. It is not ok when there will be none.
func (s *Session) takeQueue(spare []byte) (batch []byte, fenced, ok bool) {
	for {
		s.mu.Lock()
		if len(s.out) > 0 {
			batch, s.out = s.out, spare[:0]
			fenced, s.fenced = s.fenced, false
			if s.room != nil {
				close(s.room)
				s.room = nil
			}
			s.mu.Unlock()
			return batch, fenced, true
		}
		finishing := s.state == stateFinishing
		s.mu.Unlock()
		if finishing {
			return nil, false, false
		}
		select {
		case <-s.wake:
		case <-s.dead:
			return nil, false, false
		}
	}
}

// linger closes our half of the connection and leaves the other half to the
// reader for a moment: closing both while octets of the peer are unread would
// make the kernel take back the unbind_resp we have just written.
func (s *Session) linger() {
	half, ok := s.conn.(interface{ CloseWrite() error })
	if ok && half.CloseWrite() == nil {
		timer := time.NewTimer(lingerTimeout)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-s.dead:
		}
	}
	s.fail(ErrClosed)
}

// answer queues an answer to the peer. It never waits; a peer that lets its
// answers pile up is dropped.
func (s *Session) answer(sequence uint32, status Status, p PDU) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.enqueue(sequence, status, p)
}

// enqueue encodes a PDU behind those that wait for the writer.
func (s *Session) enqueue(sequence uint32, status Status, p PDU) error {
	if s.state == stateFinishing {
		return s.closedError()
	}
	if len(s.out) > queueMax {
		return ErrDeaf
	}
	before := len(s.out)
	out, err := Append(s.out, sequence, status, p)
	if err != nil {
		return err
	}
	s.out = out
	s.queued += int64(len(out) - before)
	if before == 0 {
		s.signalWriter()
	}
	return nil
}
