package ussd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"zvonok/access/phone"
	"zvonok/gateway/carrier"
	"zvonok/gateway/smpp"
	"zvonok/templates/gsm"
)

// rig is a Server between a toy menu and a recording operator. It lives in a synctest bubble: after each message it
// waits until nothing moves any more, and time passes only when a test says so.
type rig struct {
	t      testing.TB
	server *Server
	menu   *toy

	mu       sync.Mutex
	replies  []carrier.Reply
	followed []string
	// ack decides the operator's answer to a page; nil accepts every page at once.
	ack func(carrier.Reply) *carrier.Answered
	// refuse makes handing a page over fail.
	refuse error

	stop context.CancelFunc // ends the server's Run
	done chan struct{}      // closed when it has returned
}

// toy is a menu whose screens say whose they are.
type toy struct {
	mu    sync.Mutex
	shown []Place
	gate  chan struct{} // not nil: screens wait here, or for the end of their context
	stuck bool          // screens wait here and ignore their context
}

func (m *toy) show(ctx context.Context, v Visit) (Screen, error) {
	m.mu.Lock()
	m.shown = append(m.shown, v.Place)
	gate, stuck := m.gate, m.stuck
	m.mu.Unlock()
	if gate != nil {
		if stuck {
			<-gate
		} else {
			select {
			case <-gate:
			case <-ctx.Done():
				return Screen{}, context.Cause(ctx)
			}
		}
	}
	screen := Screen{Place: v.Place, Style: english}
	whose := "for " + string(v.Phone)
	switch v.Place.Name {
	case "":
		screen.Lines = []string{"first " + whose}
		screen.Bar = []Choice{
			{"1", "Leaf", Place{Name: "leaf", Arg: 7}},
			{"2", "Long", Place{Name: "long"}},
			{"3", "Fail", Place{Name: "fail"}},
			{"4", "Panic", Place{Name: "panic"}},
			{"5", "Switch", Place{Name: "switch"}},
		}
		screen.SMS = "first " + whose
		screen.Rest = v.Path
		if len(v.Path) > 0 && v.Path[0] == "8" {
			screen.Rest, screen.End, screen.Bar = nil, true, nil
		}
	case "leaf":
		screen.Lines = []string{fmt.Sprintf("leaf %d %s", v.Place.Arg, whose)}
		screen.Items = []Choice{{"1", "Leaf", Place{Name: "deeper"}}}
		screen.SMS = "leaf " + whose
	case "deeper":
		screen.Lines = []string{"deeper " + whose}
	case "long":
		for n := range 15 {
			screen.Lines = append(screen.Lines, fmt.Sprintf("line %d %s", n, whose))
		}
	case "switch":
		screen.Place, screen.Lines = Place{Name: "leaf", Arg: 7}, []string{"switched " + whose}
		screen.Items = []Choice{{"5", "Again", Place{Name: "switch"}}}
	case "fail":
		return Screen{}, errors.New("the database is away")
	case "panic":
		panic("a mistake")
	}
	return screen, nil
}

// with runs a test in a bubble with a rig whose links are "mts" and "beeline", changed by set.
func with(t *testing.T, set func(*Config), play func(r *rig)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, set)
		play(r)
		r.stop()
		<-r.done
	})
}

func newRig(t testing.TB, set func(*Config)) *rig {
	profiles, err := NewProfiles(nil)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, menu: &toy{}}
	config := Config{
		Links: []Link{{Name: "mts", Profile: profiles["plain-its"]}, {Name: "beeline", Profile: profiles["plain-its"]}},
		Codes: []string{"*377*888#"},
		Show:  r.menu.show,
		Answer: func(_ context.Context, reply carrier.Reply) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.refuse != nil {
				return r.refuse
			}
			r.replies = append(r.replies, reply)
			if r.ack == nil {
				reply.Done(carrier.Answered{At: time.Now()})
			} else if news := r.ack(reply); news != nil {
				reply.Done(*news)
			}
			return nil
		},
		Continue: func(_ context.Context, to phone.Number, text string) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.followed = append(r.followed, string(to)+": "+text)
			return nil
		},
		Log:     slog.New(slog.DiscardHandler),
		Metrics: NewMetrics(prometheus.NewPedanticRegistry()),
	}
	if set != nil {
		set(&config)
	}
	if r.server, err = New(config); err != nil {
		t.Fatal(err)
	}
	var ctx context.Context
	ctx, r.stop = context.WithCancel(t.Context())
	r.done = make(chan struct{})
	go func() {
		defer close(r.done)
		r.server.Run(ctx)
	}()
	return r
}

// phoneOn is a phone on a link with the session id the network gave its dialogue.
type phoneOn struct {
	*rig
	link   string
	number phone.Number
	id     byte
}

const (
	masha = phone.Number("79000000001")
	petya = phone.Number("79000000002")
)

func (r *rig) phone(number phone.Number) *phoneOn {
	return &phoneOn{rig: r, link: "mts", number: number, id: 0x2a}
}

// send gives a message to the server and returns what came back for it, as text lines; "" when nothing did.
func (p *phoneOn) send(op byte, text string, change ...func(*carrier.Dial)) string {
	p.t.Helper()
	before := len(p.all())
	d := carrier.Dial{
		Operator: p.link, Link: 1, Command: smpp.CmdDeliverSM,
		Source:      smpp.Address{TON: 1, NPI: 1, Addr: string(p.number)},
		Destination: smpp.Address{TON: 0, NPI: 1, Addr: "377"},
		Phone:       p.number, Op: op, HasOp: true, Text: text,
		TLVs: smpp.TLVs{smpp.Uint8(smpp.TagUSSDServiceOp, op), {Tag: smpp.TagITSSessionInfo, Value: []byte{p.id, 0}}},
	}
	for _, c := range change {
		c(&d)
	}
	p.server.Dial(d)
	synctest.Wait()
	return strings.Join(p.all()[before:], "\n&\n")
}

func (p *phoneOn) dial(text string) string { p.t.Helper(); return p.send(opPSSR, text) }
func (p *phoneOn) key(text string) string  { p.t.Helper(); return p.send(opUSSRConfirm, text) }

// all returns every page sent so far: its text, and "." under the last page of a dialogue.
func (r *rig) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var pages []string
	for _, reply := range r.replies {
		pages = append(pages, read(r.t, reply))
	}
	return pages
}

func read(t testing.TB, reply carrier.Reply) string {
	t.Helper()
	text, err := gsm.DecodeGSM7(reply.Octets)
	if reply.DataCoding == 8 || reply.DataCoding == 0x48 {
		text, err = gsm.DecodeUCS2(reply.Octets)
	}
	if err != nil {
		t.Errorf("a page cannot be decoded: %v", err)
	}
	if reply.Op == opPSSRResponse || reply.Op == opPSSDResponse {
		text += "\n."
	}
	return text
}

func (r *rig) last() carrier.Reply {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.replies[len(r.replies)-1]
}

func (r *rig) sms() string {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.followed, "\n")
}

func (r *rig) open(want int) {
	r.t.Helper()
	if got := r.server.Open(); got != want {
		r.t.Errorf("%d dialogues are open, want %d", got, want)
	}
}

// expect compares a page with what a phone should show.
func expect(t testing.TB, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n%s\n-- want --\n%s", what, got, want)
	}
}

func (r *rig) ignored(why ignoring) float64 {
	return testutil.ToFloat64(r.server.links["mts"].meter.ignored[why])
}

func (r *rig) ended(how ending) float64 {
	return testutil.ToFloat64(r.server.links["mts"].meter.ended[how])
}

const (
	firstPage   = "first for 79000000001\n1 Leaf 2 Long 3 Fail 4 Panic 5 Switch 0 Exit"
	leafPage    = "leaf 7 for 79000000001\n1 Leaf\n0 Back"
	deeperPage  = "deeper for 79000000001\n0 Back"
	expiredPage = "Сеанс истёк, наберите *377*888#\n."
	laterPage   = "Сервис занят. Попробуйте позже.\n."
	tooManyPage = "Слишком много запросов. Попробуйте через минуту.\n."
)
