package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// stops is what has been started, to be stopped in reverse.
type stops struct {
	log   *slog.Logger
	steps []stopStep
}

type stopStep struct {
	name string
	stop func(context.Context) error
}

// add registers how to stop what was just started.
func (s *stops) add(name string, stop func(context.Context) error) {
	s.steps = append(s.steps, stopStep{name, stop})
}

// run stops everything, last started first, and says which step hangs or fails.
// Each step has what is left of the context's time; one that overruns it does
// not keep the others from their turn.
func (s *stops) run(ctx context.Context) error {
	var first error
	for _, step := range slices.Backward(s.steps) {
		done := make(chan error, 1)
		begun := time.Now()
		go func() { done <- step.stop(ctx) }()
		var err error
		select {
		case err = <-done:
		case <-ctx.Done():
			// Steps that honour the context return now; give them a moment.
			select {
			case err = <-done:
			case <-time.After(time.Second):
				err = fmt.Errorf("hangs since %s", time.Since(begun).Round(time.Millisecond))
			}
		}
		if err != nil {
			s.log.Error("stop", "part", step.name, "error", err)
			if first == nil {
				first = fmt.Errorf("stop %s: %w", step.name, err)
			}
		}
	}
	s.steps = nil
	return first
}
