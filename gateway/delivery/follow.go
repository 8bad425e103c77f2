package delivery

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
)

// Limits of following the links.
const (
	awayAfter   = 2 * time.Second // without a link, a short reconnection apart, before an operator's jobs are left to others
	followRetry = time.Second     // after the queue could not be changed
)

// Follow lets client work on an operator's queues while this process has a link
// to it, and only then. Messages of an operator that is bound elsewhere, or
// nowhere, wait in the table with their jobs untouched: the process that binds
// next finds them at once, and nobody turns them over and over (pain 9). It is
// called once, before [Sender.Start].
func (s *Sender) Follow(client *river.Client[pgx.Tx]) { s.client = client }

// follow keeps the queues of an operator in step with its link until ctx ends.
func (s *Sender) follow(ctx context.Context, p *pump) {
	working := false
	for ctx.Err() == nil {
		wait := time.Duration(-1)
		switch up := p.exchange.Ready(p.operator); {
		case up && !working:
			p.come()
			if err := s.addQueues(p.operator); err != nil {
				s.log.Warn("work on an operator's queues", "operator", p.operator, "error", err)
				wait = followRetry
				break
			}
			working = true
		case !up && working:
			if !s.stays(ctx, p, awayAfter) {
				continue
			}
			p.leave()
			if err := s.removeQueues(ctx, p.operator); err != nil {
				if ctx.Err() == nil {
					s.log.Warn("leave an operator's queues", "operator", p.operator, "error", err)
				}
				wait = followRetry
				break
			}
			working = false
		}
		if wait < 0 {
			wait = time.Second // covers a lost hint, and a circuit that closes
		}
		select {
		case <-ctx.Done():
			return
		case <-p.linkChanged:
		case <-time.After(wait):
		}
	}
}

// stays reports that the operator's link stayed away for so long.
func (s *Sender) stays(ctx context.Context, p *pump, long time.Duration) bool {
	timer := time.NewTimer(long)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return !p.exchange.Ready(p.operator)
		case <-p.linkChanged:
			if p.exchange.Ready(p.operator) {
				return false
			}
		}
	}
}

func (s *Sender) addQueues(operator string) error {
	var already *river.QueueAlreadyAddedError
	for name, config := range operatorQueues(operator) {
		if err := s.client.Queues().Add(name, config); err != nil && !errors.As(err, &already) {
			return err
		}
	}
	return nil
}

// removeQueues waits for the operator's jobs that are being worked; their pump
// has left, so they only wait for outcomes that are under way.
func (s *Sender) removeQueues(ctx context.Context, operator string) error {
	var missing *river.QueueNotFoundError
	for name := range operatorQueues(operator) {
		if err := s.client.Queues().Remove(ctx, name); err != nil && !errors.As(err, &missing) {
			return err
		}
	}
	return nil
}

// operatorQueues are an operator's queues with the limits that suit each: a job
// of an operator only waits for its pump, so many may wait at once.
func operatorQueues(operator string) map[string]river.QueueConfig {
	return map[string]river.QueueConfig{
		SMSQueue(operator):     {MaxWorkers: 100, FetchCooldown: smsCooldown},
		BulkSMSQueue(operator): {MaxWorkers: bulkJobs},
	}
}
