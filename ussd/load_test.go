package ussd

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"zvonok/access/phone"
	"zvonok/gateway/carrier"
	"zvonok/gateway/smpp"
)

// crowd is a server with a menu of usual size and an operator that accepts everything.
type crowd struct {
	server   *Server
	answered atomic.Int64
	reply    chan struct{} // one for each answer
	stop     context.CancelFunc
	done     chan struct{}
}

func newCrowd(tb testing.TB, set func(*Config)) *crowd {
	c := &crowd{reply: make(chan struct{}, 1<<17), done: make(chan struct{})}
	config := Config{
		Links: []Link{{Name: "mts", Profile: usual()}},
		Codes: []string{"*377*888#"},
		Show: func(_ context.Context, v Visit) (Screen, error) {
			child := func(name string) Place { return Place{Name: name, Arg: 17} }
			return Screen{
				Place: child("child"), Style: russian, Lead: 3,
				Lines: []string{fmt.Sprintf("Маша П. 143,%s р", v.Phone[9:]), "Вход 22.11 08:15"},
				Bar: []Choice{
					{"1", "Питание", child("meals")},
					{"2", "Визиты", child("visits")},
					{"3", "SMS", child("sms")},
					{"4", "История", child("history")},
					{"5", "Пополнить", child("topup")},
					{"6", "Язык", child("language")},
					{"7", "Доступ", child("circle")},
				},
				SMS: fmt.Sprintf("Маша П.: баланс 143,%s р, вход 22.11 08:15", v.Phone[9:]),
			}, nil
		},
		Answer: func(_ context.Context, r carrier.Reply) error {
			r.Done(carrier.Answered{})
			c.answered.Add(1)
			c.reply <- struct{}{}
			return nil
		},
		Log:     slog.New(slog.DiscardHandler),
		Metrics: NewMetrics(prometheus.NewRegistry()),
	}
	if set != nil {
		set(&config)
	}
	server, err := New(config)
	if err != nil {
		tb.Fatal(err)
	}
	c.server = server
	var ctx context.Context
	ctx, c.stop = context.WithCancel(context.Background())
	go func() {
		defer close(c.done)
		server.Run(ctx)
	}()
	tb.Cleanup(func() { c.stop(); <-c.done })
	return c
}

func (c *crowd) begin(n int) {
	number := phone.Number(fmt.Sprintf("7900%07d", n))
	c.server.Dial(carrier.Dial{
		Operator: "mts", Link: 1, Command: smpp.CmdDeliverSM, Op: opPSSR, HasOp: true, Phone: number,
		Source:      smpp.Address{TON: 1, NPI: 1, Addr: string(number)},
		Destination: smpp.Address{TON: 0, NPI: 1, Addr: "377"}, ServiceType: "USSD",
		Text: "*377*888#", Octets: []byte("*377*888#"),
		TLVs: smpp.TLVs{
			smpp.Uint8(smpp.TagUSSDServiceOp, opPSSR), {Tag: smpp.TagITSSessionInfo, Value: []byte{byte(n), 0}},
		},
	})
}

// begins lets so many phones dial, a hundred ahead of their answers.
func (c *crowd) begins(from, count int) {
	const ahead = 100
	for n := range count {
		c.begin(from + n)
		if n >= ahead {
			<-c.reply
		}
	}
	for range min(ahead, count) {
		<-c.reply
	}
}

// Issue 4, item 2: 100,000 open dialogues in under 200 MB; and a flood of begins that never end costs no more.
func TestAHundredThousandOpenDialoguesAreSmall(t *testing.T) {
	people, flood, limit := 100_000, 20_000, uint64(200<<20)
	if raceDetector { // it makes a dial ten times as slow and a dialogue no larger
		people, flood, limit = people/10, flood/10, limit/10
	}
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	c := newCrowd(t, func(c *Config) { c.MaxOpen = people })
	before := heap()
	c.begins(0, people)
	used := heap() - before
	t.Logf("%d open dialogues use %d MB, %d octets each", c.server.Open(), used>>20, used/uint64(people))
	if c.server.Open() != people || used > limit {
		t.Errorf("%d are open and use %d octets", c.server.Open(), used)
	}
	c.begins(people, flood)
	if used := heap() - before; c.server.Open() != people || used > limit {
		t.Errorf("after the flood %d are open and use %d octets", c.server.Open(), used)
	}
}

// BenchmarkBegin is one dial through the engine, without menu and operator, one at a time and many at once.
func BenchmarkBegin(b *testing.B) {
	b.Run("one", func(b *testing.B) {
		c := newCrowd(b, nil)
		b.ReportAllocs()
		for n := range b.N {
			c.begin(n)
			<-c.reply
		}
	})
	b.Run("hundred", func(b *testing.B) {
		c := newCrowd(b, nil)
		b.ReportAllocs()
		c.begins(0, b.N)
	})
}

// BenchmarkPage is the cutting of the usual first page.
func BenchmarkPage(b *testing.B) {
	c := newCrowd(b, nil)
	screen, err := c.server.config.Show(b.Context(), Visit{Phone: "79000000001"})
	if err != nil {
		b.Fatal(err)
	}
	words := c.server.frame(russian)
	b.ReportAllocs()
	for b.Loop() {
		newLayout(screen, words, true, false, false, usual().Limits).page(0, "")
	}
}
