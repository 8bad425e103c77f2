package reader

import (
	"errors"
	"testing"
	"time"
)

func TestPlacesAreBoundedForAllForEachAndInOctets(t *testing.T) {
	t.Parallel()
	p := newPlaces(3, 2, 100)
	take := func(device DeviceID, octets int64) func() {
		t.Helper()
		leave, err := p.take(device, octets)
		if err != nil {
			t.Fatalf("device %d: %v", device, err)
		}
		return leave
	}
	refused := func(name string, device DeviceID, octets int64, want busyError) {
		t.Helper()
		var busy busyError
		if _, err := p.take(device, octets); !errors.As(err, &busy) || busy != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	first, second := take(1, 10), take(1, 10)
	refused("a third of one device", 1, 10, busyError{device: true})
	refused("more octets than are left", 2, 81, busyError{})
	third := take(2, 80)
	refused("a fourth of all", 3, 0, busyError{})
	first()
	second()
	third()
	take(1, 100)()
	if len(p.byDevice) != 0 {
		t.Errorf("%d devices are remembered", len(p.byDevice))
	}
}

func TestSmallBatchesKeepApartAndOthersDoNotWait(t *testing.T) {
	t.Parallel()
	var p pacer
	start := time.Now()
	for _, step := range []struct {
		name    string
		uploads int
		at      time.Duration // after the start
		want    time.Duration
	}{
		{"the first", 1, 0, 0},
		{"a small one soon after", 1, 3 * time.Millisecond, 5 * time.Millisecond},
		{"a large one soon after", smallBatch, 9 * time.Millisecond, 0},
		{"a small one after the large one", 2, 10 * time.Millisecond, 7 * time.Millisecond},
		{"a small one much later", 1, time.Second, 0},
	} {
		if got := p.turn(step.uploads, start.Add(step.at)); got != step.want {
			t.Errorf("%s waits %v, want %v", step.name, got, step.want)
		}
	}
}
