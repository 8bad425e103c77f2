package smpp

// deliverResults calls the callbacks of our requests.
func (s *Session) deliverResults() {
	var batch []result
	for ok := true; ok; {
		if batch, ok = s.results.take(batch); !ok {
			return
		}
		for i := range batch {
			r := &batch[i]
			switch {
			case r.strange != nil:
				s.cfg.Inspect(*r.strange)
				continue
			case r.windowed:
				<-s.slots
			}
			if r.done != nil {
				r.done(r.outcome)
			}
		}
	}
}

// deliverInbox hands the requests of the peer to the handler. Those that were
// not handed over when the session ended are dropped: they are not
// acknowledged, so the peer still has them.
func (s *Session) deliverInbox() {
	var batch []*Inbound
	for ok := true; ok; {
		if batch, ok = s.inbox.take(batch); !ok {
			return
		}
		for _, in := range batch {
			select {
			case <-s.dead:
			default:
				s.cfg.Handle(in)
			}
		}
	}
}
