package delivery_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"zvonok/gateway/carrier"
	"zvonok/gateway/delivery"
	"zvonok/gateway/smpp"
	"zvonok/ledger/pg/pgtest"
)

// giving is a process whose server gateways bind to, over SMPP and on
// PostgreSQL. Every text that comes in is stored with the receipt it asks for.
type giving struct {
	t        *testing.T
	pool     *pgxpool.Pool
	exchange *carrier.Exchange
	giver    *delivery.Giver
	address  string
	ahead    atomic.Int64 // of the clock that receipts are due by
	stop     func()

	mu    sync.Mutex
	taken []carrier.MO // the texts, once stored
}

func setupGiving(t *testing.T, pool *pgxpool.Pool, operators ...string) *giving {
	t.Helper()
	g := &giving{t: t, pool: pool}
	now := func() time.Time { return time.Now().Add(time.Duration(g.ahead.Load())) }
	var configs []carrier.OperatorConfig
	for _, name := range operators {
		configs = append(configs, carrier.OperatorConfig{
			Name: name, Mode: carrier.Server, SystemID: name, Password: "secret", Binds: 2, Window: 5, Rate: 1000,
		})
	}
	log := slog.New(slog.DiscardHandler)
	var err error
	g.exchange, err = carrier.New(carrier.Config{
		Operators: configs, Log: log,
		Messages: func(ctx context.Context, batch []carrier.MO) error {
			err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) (err error) {
				if batch, err = delivery.ClaimTexts(ctx, tx, batch); err != nil {
					return err
				}
				var owed []carrier.Owed
				for _, text := range batch {
					owed = append(owed, text.Owed...)
				}
				return delivery.Owe(ctx, tx, owed)
			})
			if err != nil {
				return err
			}
			g.mu.Lock()
			g.taken = append(g.taken, batch...)
			g.mu.Unlock()
			for _, text := range batch {
				g.giver.Nudge(text.Operator)
			}
			return nil
		},
		StoreParts: func(ctx context.Context, parts []carrier.TextPart) ([]carrier.TextPart, error) {
			return delivery.StoreParts(ctx, pool, parts)
		},
		OverdueParts: func(ctx context.Context, before time.Time) ([]carrier.TextPart, error) {
			return delivery.OverdueParts(ctx, pool, before)
		},
		Now:         now,
		LinkChanged: func(operator string, _ bool) { g.giver.Nudge(operator) },
	})
	if err != nil {
		t.Fatal(err)
	}
	g.giver = delivery.NewGiver(delivery.GiverConfig{
		Pool: pool, Exchange: g.exchange, Operators: operators, Log: log, Now: now,
		Metrics: delivery.NewMetrics(prometheus.NewPedanticRegistry(), operators),
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g.address = listener.Addr().String()
	settings := g.exchange.ServerConfig()
	settings.SystemID, settings.Log = "zvonok", log
	settings.Session.ResponseTimeout = time.Second // a silent gateway must not hold up the end of a test
	server := smpp.NewServer(settings)
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	g.giver.Start()
	g.exchange.Start()
	g.stop = sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = server.Shutdown(ctx)
		<-served
		_ = g.exchange.Stop(ctx)
		g.giver.Stop()
	})
	t.Cleanup(g.stop)
	return g
}

// esme is a gateway that binds to us and asks for receipts.
type esme struct {
	t       *testing.T
	session *smpp.Session
	answer  atomic.Uint32 // to a receipt; silent is none

	mu    sync.Mutex
	given []string // ids of the receipts that came, in their order
}

const silent = 0xFFFFFFFF

func (g *giving) bind(operator string, kind smpp.BindType, answer uint32) *esme {
	g.t.Helper()
	e := &esme{t: g.t}
	e.answer.Store(answer)
	ctx, cancel := context.WithTimeout(g.t.Context(), patience)
	defer cancel()
	var err error
	e.session, err = smpp.Dial(ctx, smpp.ClientConfig{
		Address: g.address, SystemID: operator, Password: "secret", Type: kind,
		Session: smpp.SessionConfig{Handle: func(in *smpp.Inbound) {
			m, ok := in.PDU.(*smpp.Message)
			if !ok || !m.IsReceipt() {
				g.t.Errorf("%s came", in.Header.Command)
				return
			}
			id, _ := m.TLVs.Text(smpp.TagReceiptedMessageID)
			e.mu.Lock()
			e.given = append(e.given, id)
			e.mu.Unlock()
			if answer := e.answer.Load(); answer != silent {
				_ = in.Answer(smpp.Status(answer), "")
			}
		}},
	})
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(e.unbind)
	return e
}

func (e *esme) unbind() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = e.session.Close(ctx)
}

// texts submits so many texts with a flag and returns their ids.
func (e *esme) texts(n int, registered uint8) []string {
	e.t.Helper()
	ids := make([]string, n)
	var sending sync.WaitGroup
	for i := range ids {
		sending.Go(func() {
			outcome, err := e.session.Do(e.t.Context(), smpp.Request{PDU: &smpp.Message{
				Command: smpp.CmdSubmitSM, RegisteredDelivery: registered, ShortMessage: []byte("?"),
				Source:      smpp.Address{TON: 1, NPI: 1, Addr: fmt.Sprintf("790000000%02d", i)},
				Destination: smpp.Address{TON: 3, Addr: "377"},
			}})
			if err != nil || outcome.Status != smpp.StatusOK {
				e.t.Errorf("submit: %+v, %v", outcome, err)
			}
			ids[i] = outcome.MessageID()
		})
	}
	sending.Wait()
	slices.Sort(ids)
	return ids
}

func (e *esme) receipts() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Sorted(slices.Values(e.given))
}

func (g *giving) owed() int {
	g.t.Helper()
	var n int
	if err := g.pool.QueryRow(context.Background(), `SELECT count(*) FROM delivery.owed`).Scan(&n); err != nil {
		g.t.Fatal(err)
	}
	return n
}

func (g *giving) await(what string, condition func() bool) {
	g.t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			g.t.Fatalf("waited in vain for %s; %d receipts are owed", what, g.owed())
		}
	}
}

// SMPP 3.4 section 5.2.17: more texts than the window holds, each with its
// receipt, once; what asks for a receipt in case of failure gets none.
func TestAGatewayIsGivenEachReceiptItAskedForOnce(t *testing.T) {
	t.Parallel()
	g := setupGiving(t, pgtest.New(t), "gate")
	e := g.bind("gate", smpp.Transceiver, 0)
	e.texts(5, 0)
	e.texts(5, 2)
	ids := e.texts(40, 1)
	g.await("the receipts", func() bool { return len(e.receipts()) >= 40 && g.owed() == 0 })
	if got := e.receipts(); !slices.Equal(got, ids) {
		t.Errorf("receipts for %d ids, want each of %d once", len(got), len(ids))
	}
}

// Pain 12: a gateway that is away loses no receipt, whoever else restarts
// meanwhile, and one that has only its sending half bound waits for the other.
func TestReceiptsWaitForAGatewayThatIsAwayAndSurviveARestart(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	g := setupGiving(t, pool, "gate")
	sending := g.bind("gate", smpp.Transmitter, 0)
	ids := sending.texts(7, 1)
	if n := g.owed(); n != 7 {
		t.Fatalf("%d receipts are stored when the texts are acknowledged, want 7", n)
	}
	g.stop()
	g = setupGiving(t, pool, "gate")
	hearing := g.bind("gate", smpp.Receiver, 0)
	g.await("the receipts", func() bool { return g.owed() == 0 })
	if got := hearing.receipts(); !slices.Equal(got, ids) || len(sending.receipts()) > 0 {
		t.Errorf("receipts %v, want %v", got, ids)
	}
}

// A receipt the gateway cannot take for now comes again when its time has come,
// not at once and again (pain 9); one it refuses for good does not.
func TestAReceiptRefusedForNowComesAgainLater(t *testing.T) {
	t.Parallel()
	g := setupGiving(t, pgtest.New(t), "gate")
	e := g.bind("gate", smpp.Transceiver, uint32(smpp.StatusReceiverTemporary))
	ids := e.texts(1, 1)
	refusals := func(n int) func() bool {
		return func() bool {
			var refused int
			err := g.pool.QueryRow(t.Context(), `SELECT coalesce(max(refusals), 0) FROM delivery.owed WHERE writes = 0`).Scan(&refused)
			return err == nil && refused == n
		}
	}
	g.await("the refusal", refusals(1))
	if got := len(e.receipts()); got != 1 {
		t.Errorf("given %d times within the pause", got)
	}
	e.answer.Store(0)
	g.ahead.Store(int64(time.Minute))
	g.await("the receipt", func() bool { return g.owed() == 0 })
	if got := e.receipts(); len(got) != 2 || got[0] != ids[0] || got[1] != ids[0] {
		t.Errorf("receipts %v for %v", got, ids)
	}
	e.answer.Store(uint32(smpp.StatusReceiverPermanent))
	e.texts(1, 1)
	g.await("the end of it", func() bool { return len(e.receipts()) == 3 && g.owed() == 0 })
}

// smpp.md, Unknown outcomes: written and never acknowledged, a receipt is given
// once more and then left; query_sm still tells. The same holds for what a
// process had taken when it died.
func TestAReceiptWithAnUnknownOutcomeIsGivenOnceMore(t *testing.T) {
	t.Parallel()
	g := setupGiving(t, pgtest.New(t), "gate")
	e := g.bind("gate", smpp.Transceiver, silent)
	ids := e.texts(1, 1)
	written := func(n int) func() bool {
		return func() bool {
			var doubts int
			err := g.pool.QueryRow(t.Context(), `SELECT count(*) FROM delivery.owed WHERE writes = $1 AND due_at < $2`, n,
				time.Now().Add(time.Duration(g.ahead.Load())+time.Minute)).Scan(&doubts) // not the two minutes of one on its way
			return err == nil && doubts == 1
		}
	}
	g.await("the first doubt", written(1))
	g.ahead.Add(int64(time.Minute))
	g.await("the second doubt", written(2))
	g.ahead.Add(int64(time.Minute))
	g.await("the end of it", func() bool { return g.owed() == 0 })
	if got := e.receipts(); len(got) != 2 || got[0] != got[1] {
		t.Errorf("given as %v, want twice", got)
	}
	asked, err := e.session.Do(t.Context(), smpp.Request{PDU: &smpp.Query{MessageID: ids[0]}})
	if resp, ok := asked.Answer.(*smpp.QueryResp); err != nil || !ok || resp.State != smpp.StateDelivered {
		t.Errorf("query: %+v, %v", asked, err)
	}
}

func TestAReceiptNobodyTakesForThreeDaysIsDropped(t *testing.T) {
	t.Parallel()
	g := setupGiving(t, pgtest.New(t), "gate")
	e := g.bind("gate", smpp.Transmitter, 0)
	e.texts(1, 1)
	for _, test := range []struct {
		age  time.Duration
		owed int
	}{{71 * time.Hour, 1}, {73 * time.Hour, 0}} {
		g.ahead.Store(int64(test.age))
		if err := g.giver.Watch(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := g.owed(); n != test.owed {
			t.Errorf("after %s %d receipts are owed, want %d", test.age, n, test.owed)
		}
	}
}

// Pain 12: a slow client is isolated.
func TestAGatewayThatDoesNotAnswerDelaysNoOther(t *testing.T) {
	t.Parallel()
	g := setupGiving(t, pgtest.New(t), "deaf", "gate")
	deaf, e := g.bind("deaf", smpp.Transceiver, silent), g.bind("gate", smpp.Transceiver, 0)
	deaf.texts(30, 1)
	g.await("the silence", func() bool { return len(deaf.receipts()) > 0 })
	ids := e.texts(30, 1)
	g.await("the receipts", func() bool { return len(e.receipts()) == 30 })
	if got := e.receipts(); !slices.Equal(got, ids) {
		t.Errorf("receipts %s", strings.Join(got, " "))
	}
}

// Two processes of one database share the account's queue and give each receipt once.
func TestTwoProcessesGiveNoReceiptTwice(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	a, b := setupGiving(t, pool, "gate"), setupGiving(t, pool, "gate")
	one, two := a.bind("gate", smpp.Transceiver, 0), b.bind("gate", smpp.Transceiver, 0)
	ids := slices.Concat(one.texts(60, 1), two.texts(60, 1))
	slices.Sort(ids)
	a.await("the receipts", func() bool { return a.owed() == 0 })
	got := slices.Concat(one.receipts(), two.receipts())
	slices.Sort(got)
	if !slices.Equal(got, ids) {
		t.Errorf("%d receipts, want each of %d once", len(got), len(ids))
	}
}
