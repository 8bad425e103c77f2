package ussd

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"zvonok/access/phone"
	"zvonok/gateway/carrier"
	"zvonok/gateway/smpp"
)

// Whatever phones, gateways and the menu do, in whatever order: nothing of one phone is shown to another, no message
// is answered twice, a phone has one dialogue, and in the end nothing is left.
func TestWhateverHappensEveryPhoneSeesOnlyItsOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		// Inside a bubble a test has no deadline to ask for, so the T is passed as a mere TB.
		rapid.Check(struct{ rapid.TB }{t}, func(check *rapid.T) {
			r := newRig(t, func(c *Config) {
				c.Workers, c.MaxOpen = 2, 4
				for i := range c.Links {
					c.Links[i].FollowBySMS = true
				}
			})
			defer func() { r.stop(); <-r.done }()
			numbers := []phone.Number{"79000000001", "79000000002", "79000000003", "79000000004", "79000000005"}
			type seat struct {
				link   string
				number phone.Number
			}
			asked := map[seat]int{}
			event := func(op byte, text string) func(*rapid.T) {
				return func(check *rapid.T) {
					p := r.phone(rapid.SampledFrom(numbers).Draw(check, "phone"))
					p.link = rapid.SampledFrom([]string{"mts", "beeline"}).Draw(check, "link")
					p.id = rapid.SampledFrom([]byte{1, 2, 3}).Draw(check, "id")
					asked[seat{p.link, p.number}]++
					p.send(op, text)
				}
			}
			check.Repeat(map[string]func(*rapid.T){
				"dial":          event(opPSSR, "*377*888#"),
				"dial a leaf":   event(opPSSR, "*377*888*1#"),
				"press 1":       event(opUSSRConfirm, "1"),
				"press 2":       event(opUSSRConfirm, "2"),
				"press 9":       event(opUSSRConfirm, "9"),
				"press 0":       event(opUSSRConfirm, "0"),
				"press 4":       event(opUSSRConfirm, "4"),
				"type the code": event(opUSSRConfirm, "*377*888#"),
				"hang up":       event(129, ""),
				"confirm":       event(opUSSNConfirm, ""),
				"something":     event(99, "1"),
				"wait": func(check *rapid.T) {
					time.Sleep(rapid.SampledFrom([]time.Duration{
						time.Millisecond, time.Second, repeatWindow, defaultDeadline, burstPeriod, defaultTTL,
					}).Draw(check, "for"))
					synctest.Wait()
				},
				"the menu hangs": func(check *rapid.T) {
					r.menu.mu.Lock()
					defer r.menu.mu.Unlock()
					if r.menu.gate == nil {
						r.menu.gate = make(chan struct{})
					}
				},
				"the menu goes on": func(check *rapid.T) {
					r.menu.mu.Lock()
					if r.menu.gate != nil {
						close(r.menu.gate)
						r.menu.gate = nil
					}
					r.menu.mu.Unlock()
					synctest.Wait()
				},
				"the operator changes its mind": func(check *rapid.T) {
					news := rapid.SampledFrom([]*carrier.Answered{
						nil, {}, {Status: 0x407}, {Err: carrier.ErrLinkLost}, {Err: carrier.ErrNoAnswer},
					}).Draw(check, "answer")
					r.mu.Lock()
					r.ack = func(carrier.Reply) *carrier.Answered { return news }
					r.refuse = rapid.SampledFrom([]error{nil, nil, carrier.ErrNotBound}).Draw(check, "error")
					r.mu.Unlock()
				},
				"": func(check *rapid.T) {
					answered := map[seat]int{}
					r.mu.Lock()
					replies := r.replies
					followed := r.followed
					r.mu.Unlock()
					for _, reply := range replies {
						to := phone.Number(reply.Destination.Addr)
						answered[seat{reply.Operator, to}]++
						text := read(t, reply)
						for _, number := range numbers {
							if number != to && strings.Contains(text, string(number)) {
								check.Fatalf("%s was shown %q", to, text)
							}
						}
						if its, _ := reply.TLVs.Get(smpp.TagITSSessionInfo); len(its) != 2 {
							check.Fatalf("an answer without its session: %v", reply.TLVs)
						}
					}
					for seat, n := range answered {
						if n > asked[seat] {
							check.Fatalf("%v asked %d times and was answered %d times", seat, asked[seat], n)
						}
					}
					for _, sms := range followed {
						if to, text, _ := strings.Cut(sms, ": "); !strings.HasSuffix(text, to) {
							check.Fatalf("by SMS: %q", sms)
						}
					}
					r.consistent(check)
				},
			})
			r.menu.mu.Lock()
			if r.menu.gate != nil {
				close(r.menu.gate)
			}
			r.menu.mu.Unlock()
			time.Sleep(defaultTTL + 2*sweepEvery + repeatWindow)
			synctest.Wait()
			r.server.mu.Lock()
			defer r.server.mu.Unlock()
			if len(r.server.dialogues) != 0 || r.server.open != 0 || r.server.inHand != 0 {
				check.Fatalf("left: %d dialogues, %d open, %d in hand",
					len(r.server.dialogues), r.server.open, r.server.inHand)
			}
		})
	})
}

// consistent checks that the counts, the lists and the map of the server tell the same.
func (r *rig) consistent(t rapid.TB) {
	r.server.mu.Lock()
	defer r.server.mu.Unlock()
	open, closed := 0, 0
	for _, l := range r.server.ring {
		for _, list := range []*list{&l.open, &l.closed} {
			n := 0
			for d := list.first; d != nil; d = d.next {
				n++
				if d.list != list || r.server.dialogues[d.key] != d || d.over != (list == &l.closed) {
					t.Fatalf("a dialogue of %s is on the wrong list", l.Name)
				}
			}
			if n != list.length {
				t.Fatalf("a list of %d says %d", n, list.length)
			}
		}
		open += l.open.length
		closed += l.closed.length
	}
	if open != r.server.open || open+closed != len(r.server.dialogues) || open > r.server.config.MaxOpen {
		t.Fatalf("%d open and %d closed, counted %d, known %d",
			open, closed, r.server.open, len(r.server.dialogues))
	}
}
