package pg

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// flushes records batches as they leave and lets each take one second.
type flushes struct {
	mu      sync.Mutex
	batches [][]int
}

func (f *flushes) flush(_ context.Context, batch []int) ([]int, error) {
	f.mu.Lock()
	f.batches = append(f.batches, slices.Clone(batch))
	f.mu.Unlock()
	time.Sleep(time.Second)
	doubled := make([]int, len(batch))
	for i, n := range batch {
		doubled[i] = 2 * n
	}
	return doubled, nil
}

func (f *flushes) seen() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return fmt.Sprint(f.batches)
}

func gather(t *testing.T, config GathererConfig, f *flushes) *Gatherer[int, int] {
	t.Helper()
	g := NewGatherer(config, f.flush)
	t.Cleanup(g.Close)
	return g
}

// call does n and waits until it is on its way.
func call(t *testing.T, g *Gatherer[int, int], numbers ...int) {
	t.Helper()
	for _, n := range numbers {
		go func() {
			if out, err := g.Do(context.Background(), n); err != nil || out != 2*n {
				t.Errorf("call %d got %d, %v", n, out, err)
			}
		}()
		synctest.Wait()
	}
}

func expect(t *testing.T, f *flushes, want string) {
	t.Helper()
	synctest.Wait()
	if got := f.seen(); got != want {
		t.Fatalf("after %s the batches are %s; want %s", time.Since(midnight), got, want)
	}
}

// midnight is where the clock of synctest begins.
var midnight = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func TestALoneCallDoesNotWaitForCompany(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &flushes{}
		g := gather(t, GathererConfig{Max: 100, Wait: 5 * time.Millisecond, Parallel: 2}, f)
		call(t, g, 1)
		expect(t, f, "[[1]]")
		if waited := time.Since(midnight); waited != 0 {
			t.Fatalf("the call waited for %s", waited)
		}
	})
}

func TestCallsGatherWhileABatchIsFlushed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &flushes{}
		g := gather(t, GathererConfig{Max: 100, Wait: 5 * time.Millisecond, Parallel: 1}, f)
		call(t, g, 1, 2, 3, 4)
		time.Sleep(999 * time.Millisecond)
		expect(t, f, "[[1]]")
		time.Sleep(time.Millisecond)
		expect(t, f, "[[1] [2 3 4]]")
	})
}

func TestTheOldestCallWaitsNoLongerThanWaitWhileASlotIsFree(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &flushes{}
		g := gather(t, GathererConfig{Max: 100, Wait: 5 * time.Millisecond, Parallel: 2}, f)
		call(t, g, 1, 2)
		time.Sleep(3 * time.Millisecond)
		call(t, g, 3)
		time.Sleep(time.Millisecond)
		expect(t, f, "[[1]]")
		time.Sleep(time.Millisecond)
		expect(t, f, "[[1] [2 3]]")
		// Both slots are taken now; the next leaves when the first is done.
		call(t, g, 4)
		time.Sleep(994 * time.Millisecond)
		expect(t, f, "[[1] [2 3]]")
		time.Sleep(time.Millisecond)
		expect(t, f, "[[1] [2 3] [4]]")
	})
}

func TestAFullBatchLeavesAtOnceAndNoneIsLargerThanMax(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &flushes{}
		g := gather(t, GathererConfig{Max: 2, Wait: time.Minute, Parallel: 2}, f)
		call(t, g, 1, 2)
		expect(t, f, "[[1]]")
		call(t, g, 3)
		expect(t, f, "[[1] [2 3]]")
		call(t, g, 4, 5, 6)
		time.Sleep(time.Second)
		expect(t, f, "[[1] [2 3] [4 5]]")
		time.Sleep(time.Second)
		expect(t, f, "[[1] [2 3] [4 5] [6]]")
	})
}

func TestAnErrorGoesToAllCallersOfItsBatchAndToNoOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		var turn atomic.Int32
		g := NewGatherer(GathererConfig{Max: 10, Parallel: 1}, func(_ context.Context, batch []int) ([]int, error) {
			time.Sleep(time.Second)
			if turn.Add(1) == 2 {
				return nil, broken
			}
			return batch, nil
		})
		defer g.Close()
		errs := make([]error, 4)
		var group sync.WaitGroup
		for i := range errs {
			group.Go(func() { _, errs[i] = g.Do(context.Background(), i) })
			synctest.Wait()
			if i == 2 {
				time.Sleep(1500 * time.Millisecond) // the second batch is on its way
			}
		}
		group.Wait()
		if errs[0] != nil || !errors.Is(errs[1], broken) || !errors.Is(errs[2], broken) || errs[3] != nil {
			t.Fatalf("the errors are %v", errs)
		}
	})
}

func TestACallerWhoLeavesDoesNotHarmTheBatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &flushes{}
		g := gather(t, GathererConfig{Max: 100, Wait: time.Minute, Parallel: 1}, f)
		tired := errors.New("tired")
		left := make(chan error, 2)
		leave := func(n int, after time.Duration) {
			ctx, cancel := context.WithTimeoutCause(context.Background(), after, tired)
			go func() {
				defer cancel()
				_, err := g.Do(ctx, n)
				left <- err
			}()
			synctest.Wait()
		}
		leave(1, 300*time.Millisecond) // its batch has left by then
		call(t, g, 2)
		leave(3, 500*time.Millisecond) // its batch has not
		call(t, g, 4)
		time.Sleep(600 * time.Millisecond)
		for range 2 {
			if err := <-left; !errors.Is(err, tired) {
				t.Errorf("a caller who left got %v; want the cause", err)
			}
		}
		time.Sleep(400 * time.Millisecond)
		expect(t, f, "[[1] [2 4]]")
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := g.Do(ended, 5); !errors.Is(err, context.Canceled) {
			t.Errorf("a call with an ended context got %v", err)
		}
	})
}

func TestCloseFlushesWhatWaitsAndRefusesWhatComes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &flushes{}
		g := NewGatherer(GathererConfig{Max: 2, Wait: time.Hour, Parallel: 1}, f.flush)
		call(t, g, 1, 2, 3, 4)
		var group sync.WaitGroup
		for range 2 {
			group.Go(g.Close)
		}
		synctest.Wait()
		if _, err := g.Do(context.Background(), 5); !errors.Is(err, ErrClosed) {
			t.Errorf("a call after Close got %v", err)
		}
		group.Wait()
		expect(t, f, "[[1] [2 3] [4]]")
		if took := time.Since(midnight); took != 3*time.Second {
			t.Errorf("Close took %s; want the 3 s of three batches", took)
		}
	})
}

func TestABatchThatPanicsOrMiscountsIsAnErrorAndTheNextOneGoes(t *testing.T) {
	t.Parallel()
	g := NewGatherer(GathererConfig{Max: 10, Parallel: 1}, func(_ context.Context, batch []int) ([]int, error) {
		switch batch[0] {
		case 1:
			panic("on purpose")
		case 2:
			return nil, nil
		}
		return batch, nil
	})
	defer g.Close()
	if _, err := g.Do(t.Context(), 1); err == nil || !strings.Contains(err.Error(), "on purpose") {
		t.Errorf("a panic became %v", err)
	}
	if _, err := g.Do(t.Context(), 2); err == nil || !strings.Contains(err.Error(), "0 outcomes") {
		t.Errorf("a miscount became %v", err)
	}
	if out, err := g.Do(t.Context(), 3); err != nil || out != 3 {
		t.Errorf("the next call got %d, %v", out, err)
	}
}

func TestEveryCallerGetsTheOutcomeOfTheirOwnCall(t *testing.T) {
	t.Parallel()
	const callers, each, largest, parallel = 64, 50, 16, 3
	var running, batches atomic.Int32
	g := NewGatherer(GathererConfig{Max: largest, Wait: time.Millisecond, Parallel: parallel},
		func(_ context.Context, batch []int) ([]int, error) {
			if now := running.Add(1); now > parallel {
				t.Errorf("%d batches are flushed at once", now)
			}
			defer running.Add(-1)
			if len(batch) > largest {
				t.Errorf("a batch has %d calls", len(batch))
			}
			batches.Add(1)
			squares := make([]int, len(batch))
			for i, n := range batch {
				squares[i] = n * n
			}
			return squares, nil
		})
	var group sync.WaitGroup
	for caller := range callers {
		group.Go(func() {
			for i := range each {
				n := caller*each + i
				if out, err := g.Do(t.Context(), n); err != nil || out != n*n {
					t.Errorf("call %d got %d, %v", n, out, err)
				}
			}
		})
	}
	group.Wait()
	g.Close()
	if n := batches.Load(); n == 0 || n > callers*each {
		t.Errorf("%d calls went in %d batches", callers*each, n)
	}
}
