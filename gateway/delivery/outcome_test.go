package delivery

import (
	"testing"
	"time"

	"zvonok/gateway/carrier"
)

func TestAnOutcomeDecidesWhatBecomesOfAMessage(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 8, 15, 0, 0, time.UTC)
	fresh := row{again: Fresh, expires: now.Add(15 * time.Minute), tried: []string{"a"}}
	later, code := fresh, fresh
	later.again, code.again = Later, Never
	dying := fresh
	dying.expires = now.Add(20 * time.Second)
	resent := fresh
	resent.resent = true
	spent := fresh
	spent.failures = maxFailures - 1
	parts := []carrier.Part{{Number: 1, Count: 2, Answered: true, Written: true}, {Number: 2, Count: 2, Answered: true, Written: true, Status: 8}}

	tests := []struct {
		name     string
		row      row
		result   carrier.Result
		routes   []string
		state    State
		wait     time.Duration // until it is looked at again; 0: never
		operator string
		failures int16
		health   int
	}{
		{"an accepted message is sent", fresh, carrier.Result{Class: carrier.OK}, nil, Sent, 0, "a", 0, +1},
		{"a throttled one waits and is not counted", fresh, carrier.Result{Class: carrier.Throttle, RetryAfter: time.Second}, nil, Queued, time.Second, "a", 0, 0},
		{"one that was never written goes back at once", fresh, carrier.Result{Class: carrier.NeverWritten}, nil, Queued, -1, "a", 0, 0},
		{"a temporary refusal is counted and waits", fresh, carrier.Result{Class: carrier.Temporary, Counted: true, RetryAfter: 30 * time.Second}, nil, Queued, 30 * time.Second, "a", 1, 0},
		{"a wait past the life of the news makes it stale", dying, carrier.Result{Class: carrier.Temporary, Counted: true, RetryAfter: 30 * time.Second}, nil, Stale, 0, "a", 1, 0},
		{"the last counted failure is the end", spent, carrier.Result{Class: carrier.Temporary, Counted: true, RetryAfter: time.Second}, nil, Failed, 0, "a", maxFailures, 0},
		{"a refusal with failover goes to the operator not tried yet", fresh, carrier.Result{Class: carrier.PermanentRoute, Failover: true}, []string{"a", "b"}, Queued, -1, "b", 0, 0},
		{"without another operator it fails", fresh, carrier.Result{Class: carrier.PermanentRoute, Failover: true}, []string{"a"}, Failed, 0, "a", 0, 0},
		{"a bad number fails and hurts its health", fresh, carrier.Result{Class: carrier.PermanentRecipient, NumberBad: true}, []string{"a", "b"}, Failed, 0, "a", 0, -1},
		{"a message of ours that is wrong fails", fresh, carrier.Result{Class: carrier.PermanentMessage}, []string{"a", "b"}, Failed, 0, "a", 0, 0},
		{"half a message is not sent again as a whole (pain 4)", fresh, carrier.Result{Class: carrier.Temporary, RetryAfter: time.Second, Parts: parts}, nil, Partial, 0, "a", 0, 0},
		{"an unknown pass is looked at soon", fresh, carrier.Result{Class: carrier.Unknown}, nil, Unknown, freshWait, "a", 0, 0},
		{"unknown news of money after ten minutes", later, carrier.Result{Class: carrier.Unknown}, nil, Unknown, laterWait, "a", 0, 0},
		{"an unknown login code never", code, carrier.Result{Class: carrier.Unknown}, nil, Unknown, 0, "a", 0, 0},
		{"one that was sent twice already never", resent, carrier.Result{Class: carrier.Unknown}, nil, Unknown, 0, "a", 0, 0},
		{"one the carrier found too old is stale", fresh, carrier.Result{Class: carrier.Stale}, nil, Stale, 0, "a", 0, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.result.Operator = "a"
			v := decide(now, test.row, test.result, test.routes)
			if v.state != test.state || v.operator != test.operator || v.failures != test.failures || v.health != test.health {
				t.Errorf("got %s by %s with %d failures, health %+d", v.state, v.operator, v.failures, v.health)
			}
			switch {
			case test.wait == 0 && !v.retryAt.IsZero():
				t.Errorf("it is looked at again after %s", v.retryAt.Sub(now))
			case test.wait == -1 && !v.retryAt.Equal(now), test.wait > 0 && !v.retryAt.Equal(now.Add(test.wait)):
				t.Errorf("it is looked at again after %s", v.retryAt.Sub(now))
			}
		})
	}
}
