package topup

import (
	"testing"
	"testing/synctest"
	"time"
)

// Of requests that come together after a pause only one reads the partners. The
// others wait for it: a bank may have been disabled, or its password changed, in
// all that time. What is a few seconds old is good enough meanwhile.
func TestWhatIsKnownOfAPartnerIsNeverOlderThanAReadingMakesIt(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		age   time.Duration
		waits bool
	}{{3 * time.Second, false}, {time.Hour, true}} {
		synctest.Test(t, func(t *testing.T) {
			r := &reading{done: make(chan struct{})} // another request's
			d := &directory{
				now: time.Now, loadedAt: time.Now().Add(-test.age), reading: r,
				partners: map[string]*Partner{"mkb": {Name: "mkb"}},
			}
			var got *Partner
			go func() {
				var err error
				if got, err = d.get(t.Context(), "mkb"); err != nil {
					t.Error(err)
				}
			}()
			synctest.Wait()
			if waits := got == nil; waits != test.waits {
				t.Errorf("what is %s old: it waits: %t", test.age, waits)
			}
			d.mu.Lock()
			d.partners, d.reading, d.loadedAt = map[string]*Partner{"mkb": {Name: "mkb", Disabled: true}}, nil, time.Now()
			close(r.done)
			d.mu.Unlock()
			synctest.Wait()
			if got == nil || got.Disabled != test.waits {
				t.Errorf("what is %s old: got %+v", test.age, got)
			}
		})
	}
}
