package ussd

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"zvonok/gateway/carrier"
	"zvonok/gateway/smpp"
	"zvonok/templates/gsm"
)

// Whatever an operator sends, as a begin and then in the dialogue: no panic, at most one answer each, one that fits a
// phone, goes back where the message came from and tells of nobody else.
func FuzzDial(f *testing.F) {
	f.Add(byte(0), true, byte(1), byte(0), "377", "*377*888#", []byte{0x2a, 0}, []byte{0, 5})
	f.Add(byte(1), true, byte(18), byte(0), "", "9", []byte{0x2a, 1}, []byte{})
	f.Add(byte(2), false, byte(0), byte(8), "ussd:377", "ABORT from mobile phone", []byte{}, []byte{1, 2, 3, 4})
	f.Add(byte(3), true, byte(129), byte(0x18), "", "", []byte{1}, make([]byte, 300))
	f.Fuzz(func(t *testing.T, which byte, hasOp bool, op, class byte, dest, text string, its, reference []byte) {
		var replies []carrier.Reply
		menu := &toy{}
		config := Config{
			Codes: []string{"*377*888#"}, Show: menu.show, Log: slog.New(slog.DiscardHandler),
			Metrics: NewMetrics(prometheus.NewRegistry()),
			Answer: func(_ context.Context, r carrier.Reply) error {
				replies = append(replies, r)
				r.Done(carrier.Answered{})
				return nil
			},
		}
		for _, p := range table() {
			p.UnclearCloses = which&1 == 1
			config.Links = append(config.Links, Link{Name: p.Name, Profile: p, Latin: which&2 == 2})
		}
		s, err := New(config)
		if err != nil {
			t.Fatal(err)
		}
		d := carrier.Dial{
			Operator: config.Links[int(which)%len(config.Links)].Name, Link: 3, Command: smpp.CmdDeliverSM,
			Source: smpp.Address{TON: 1, NPI: 1, Addr: string(masha)}, Destination: smpp.Address{Addr: dest}, Phone: masha,
			Op: opPSSR, HasOp: true, Text: "*377*888#", ESMClass: 0,
			TLVs: smpp.TLVs{{Tag: smpp.TagITSSessionInfo, Value: its}, {Tag: smpp.TagUserMessageReference, Value: reference}},
		}
		for _, message := range []func(){
			func() {},
			func() { d.Op, d.HasOp, d.ESMClass, d.Text = op, hasOp, class, text },
			func() { d.Op, d.HasOp, d.ESMClass, d.Text = opUSSRConfirm, true, 0, "1" },
		} {
			message()
			before := len(replies)
			s.Dial(d)
			for l := s.links[d.Operator]; l.waiting.length > 0; {
				s.run(t.Context(), s.next())
				s.done()
			}
			if len(replies) > before+1 {
				t.Fatalf("%d answers to one message", len(replies)-before)
			}
		}
		for _, r := range replies {
			words := read(t, r)
			if r.Destination != d.Source || r.Source != d.Destination || r.Link != d.Link || len(r.Octets) == 0 {
				t.Fatalf("answered with %+v", r)
			}
			septets, latin := gsm.Septets(words)
			if septets > maxGSM7+len("\n.") || !latin && len(r.Octets) > 2*maxUCS2 {
				t.Fatalf("a page of %d octets: %q", len(r.Octets), words)
			}
			if strings.Contains(words, string(petya)) {
				t.Fatalf("of somebody else: %q", words)
			}
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for len(s.dialogues) > 0 {
			for _, d := range s.dialogues {
				s.end(d, endedAborted, d.heard)
				s.forget(d)
			}
		}
		if s.open != 0 {
			t.Fatalf("%d dialogues are counted", s.open)
		}
	})
}
