package carrier

import (
	"errors"
	"testing"
	"time"

	"zvonok/gateway/lease"
	"zvonok/gateway/smpp"
	"zvonok/gateway/smpp/smpptest"
	"zvonok/ledger/pg/pgtest"
)

// Fault row 4: while a lease is in doubt, because the database does not answer, its link stays up and silent: messages
// wait, a reply is refused before it can end the session. With the lease sure again the same session sends.
func TestALinkWhoseLeaseIsInDoubtStaysUpAndSilent(t *testing.T) {
	// It beats only when it is told to.
	keeper, err := lease.Open(t.Context(), lease.Config{
		URL: pgtest.NewURL(t), Process: "a", Life: time.Hour, Courtesy: 2 * time.Second, Beat: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(keeper.Close)
	smsc, cfg := operatorOf(t, smpptest.Behaviour{})
	x := newBox(t, Config{Operators: []OperatorConfig{cfg}, Leases: keeper})
	o := x.operators["mts"]
	doubtful := func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		for _, l := range o.links {
			if !l.lease.Valid() {
				return true
			}
		}
		return false
	}
	x.until("a link whose lease is in doubt", doubtful)
	session := smsc.Sessions("")[0]
	err = o.answer(t.Context(), Reply{}, &smpp.Message{Command: smpp.CmdSubmitSM, Destination: smpp.Address{Addr: "79000000001"}})
	if !errors.Is(err, ErrNotBound) {
		t.Errorf("a reply: %v", err)
	}
	x.post("mts", batch(3)...)
	x.until("the messages to wait", func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		for _, l := range o.links {
			return l.idle && l.why == LimitDatabase
		}
		return false
	})
	if n := len(smsc.Messages()); n != 0 {
		t.Errorf("%d messages came without a lease", n)
	}
	up := false
	x.until("the messages to be sent", func() bool {
		up = !up
		keeper.Linked("mts", up) // any reason to look will do
		return len(smsc.Messages()) == 3
	})
	if now := smsc.Sessions(""); len(now) != 1 || now[0] != session || !session.Snapshot().Open {
		t.Errorf("%d sessions, the first one open: %t", len(now), session.Snapshot().Open)
	}
}
