package delivery_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"zvonok/access/phone"
	"zvonok/gateway/carrier"
	"zvonok/gateway/delivery"
	"zvonok/gateway/smpp"
	"zvonok/gateway/smpp/smpptest"
	"zvonok/gateway/subscription"
	"zvonok/ledger/pg"
	"zvonok/ledger/pg/pgtest"
)

// patience bounds every wait; each ends as soon as what is waited for happens.
const patience = 60 * time.Second

// bench is the sending side of a gateway on real parts: PostgreSQL, River, and
// operators in boxes over SMPP.
type bench struct {
	t        testing.TB
	pool     *pgxpool.Pool
	insert   *river.Client[pgx.Tx]
	client   *river.Client[pgx.Tx]
	exchange *carrier.Exchange
	sender   *delivery.Sender
	receipts *delivery.Receipts
	desk     *delivery.Desk
	boxes    []*smpptest.SMSC
	metrics  *delivery.Metrics
	stopping sync.Once
	ahead    time.Duration                     // of the sender's clock
	only     atomic.Pointer[map[string]string] // the operators of some numbers; see routes
}

// setup starts a bench with one operator per behaviour, the first preferred.
func setup(t testing.TB, behaviours ...smpptest.Behaviour) *bench {
	t.Helper()
	b := &bench{t: t, pool: pgtest.New(t)}
	var configs []carrier.OperatorConfig
	var names []string
	for i, behaviour := range behaviours {
		box, err := smpptest.Start(smpptest.Config{
			OperatorConfig: smpptest.OperatorConfig{Seed: 1, Behaviour: behaviour}, SystemID: "school", Password: "secret",
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { box.Close(context.Background()) })
		b.boxes = append(b.boxes, box)
		name := fmt.Sprintf("box%d", i+1)
		names = append(names, name)
		weight := 0 // a spare
		if i == 0 {
			weight = 10
		}
		timeout := patience // an answer on a slow machine is an answer
		if behaviour.Silence > 0 || behaviour.Swallow > 0 || behaviour.WrongSequence > 0 || behaviour.HalfOpenEvery > 0 || behaviour.Late > 0 {
			timeout = 2 * time.Second // a silent operator must not hold up the end of a test
		}
		configs = append(configs, carrier.OperatorConfig{
			Name: name, Mode: carrier.Client, Address: box.Addr(), SystemID: "school", Password: "secret", Binds: 1,
			Window: 20, Rate: 5000, Roles: []carrier.Role{carrier.RoleSMS}, Source: "SCHOOL", Weight: weight,
			NetworkErrors:   map[string]carrier.Class{"027": carrier.PermanentRoute},
			ResponseTimeout: timeout,
		})
	}
	var err error
	if b.insert, err = river.NewClient(riverpgxv5.New(b.pool), &river.Config{Schema: pg.RiverSchema}); err != nil {
		t.Fatal(err)
	}
	metrics := delivery.NewMetrics(prometheus.NewPedanticRegistry(), names)
	log := slog.New(slog.DiscardHandler)
	b.exchange, err = carrier.New(carrier.Config{
		Operators:   configs,
		Receipts:    func(ctx context.Context, batch []carrier.Receipt) error { return b.receipts.Store(ctx, batch) },
		Messages:    func(context.Context, []carrier.MO) error { return nil },
		Dial:        func(carrier.Dial) {},
		LinkChanged: func(operator string, up bool) { b.sender.LinkChanged(operator, up) },
		Late:        func(r carrier.Result) { b.sender.Late(r) },
		Log:         log,
	})
	if err != nil {
		t.Fatal(err)
	}
	b.desk = delivery.NewDesk(b.insert, func(number phone.Number) []string {
		if only := b.only.Load(); only != nil {
			return []string{(*only)[string(number)]}
		}
		return b.exchange.Route(number)
	})
	b.receipts = delivery.NewReceipts(delivery.ReceiptsConfig{
		Pool: b.pool, Desk: b.desk, Metrics: metrics, Now: time.Now, Learn: b.exchange.Learn, Delivered: func(string, string, bool) {},
	})
	b.sender = delivery.NewSender(delivery.SenderConfig{
		Pool: b.pool, Desk: b.desk, Receipts: b.receipts, Exchange: b.exchange, Operators: names, Process: "test", Log: log, Metrics: metrics,
		Now: time.Now, RerouteAfter: 200 * time.Millisecond,
	})
	b.metrics = metrics
	b.work()
	return b
}

// work makes the client that works on the sender's jobs.
func (b *bench) work() {
	b.t.Helper()
	workers := river.NewWorkers()
	b.sender.Register(workers)
	var err error
	b.client, err = river.NewClient(riverpgxv5.New(b.pool), &river.Config{
		ID: "test", Schema: pg.RiverSchema, Workers: workers, Queues: b.sender.Queues(), Logger: slog.New(slog.DiscardHandler),
		FetchCooldown: 10 * time.Millisecond, FetchPollInterval: 50 * time.Millisecond,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.sender.Follow(b.client)
}

// routes lets each of these numbers be taken by one operator alone.
func (b *bench) routes(operators map[string]string) { b.only.Store(&operators) }

// start sets everything going; the test's end stops it.
func (b *bench) start() {
	b.t.Helper()
	b.sender.Start()
	b.exchange.Start()
	if err := b.client.Start(context.Background()); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(b.stop)
}

// stop is an orderly stop of the process.
func (b *bench) stop() {
	b.stopping.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		b.sender.Drain()
		if err := b.client.Stop(ctx); err != nil {
			b.t.Errorf("stop the queue: %v", err)
		}
		if err := b.exchange.Stop(ctx); err != nil {
			b.t.Errorf("stop the exchange: %v", err)
		}
		b.sender.Stop()
	})
}

// draft is a pass for a phone of its own.
func draft(n int) delivery.Draft {
	return delivery.Draft{
		Event: 1, Topic: "pass", Channel: subscription.SMS, Address: fmt.Sprintf("7900000%04d", n), Priority: carrier.Urgent,
		Again: delivery.Fresh, Expires: time.Now().Add(15 * time.Minute), Body: fmt.Sprintf("Вход 08:15 Маша П. №%d", n),
	}
}

func (b *bench) enqueue(drafts ...delivery.Draft) []delivery.Stored {
	b.t.Helper()
	var stored []delivery.Stored
	err := pgx.BeginFunc(context.Background(), b.pool, func(tx pgx.Tx) error {
		var err error
		stored, err = b.desk.Enqueue(context.Background(), tx, time.Now(), drafts)
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return stored
}

// states counts deliveries by state.
func (b *bench) states() map[delivery.State]int {
	b.t.Helper()
	rows, err := b.pool.Query(context.Background(), `SELECT state, count(*) FROM delivery.delivery GROUP BY state`)
	if err != nil {
		b.t.Fatal(err)
	}
	counts := map[delivery.State]int{}
	var state delivery.State
	var n int
	if _, err := pgx.ForEachRow(rows, []any{&state, &n}, func() error { counts[state] = n; return nil }); err != nil {
		b.t.Fatal(err)
	}
	return counts
}

func (b *bench) await(what string, condition func() bool) {
	b.t.Helper()
	deadline := time.Now().Add(patience)
	for !condition() {
		if time.Now().After(deadline) {
			b.t.Fatalf("waited in vain for %s; deliveries are %v", what, b.states())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// awaitDelivered waits for n deliveries to be settled by their receipts. It
// sweeps as the gateway does: a receipt that comes in the moment in which its
// part is being written matches only then.
func (b *bench) awaitDelivered(n int) {
	b.t.Helper()
	b.await("the receipts", func() bool {
		if b.states()[delivery.Delivered] == n {
			return true
		}
		if err := b.receipts.Sweep(b.t.Context()); err != nil {
			b.t.Fatal(err)
		}
		return false
	})
}

func TestABatchIsSentOnceAndSettledByItsReceipts(t *testing.T) {
	t.Parallel()
	for name, behaviour := range map[string]smpptest.Behaviour{
		"receipts after the answers":                       {},
		"receipts before the answers (pain 1)":             {EarlyReceipts: 1},
		"receipts twice and shuffled":                      {DoubleReceipts: 1, ReceiptJitter: 200 * time.Millisecond},
		"hex ids in answers, decimal in receipts (pain 2)": {ID: smpptest.Hex, ReceiptID: smpptest.Decimal},
		"an ENROUTE after the final receipt":               {Intermediate: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, behaviour)
			b.start()
			const count = 450 // three jobs
			drafts := make([]delivery.Draft, count)
			for i := range drafts {
				drafts[i] = draft(i)
			}
			b.enqueue(drafts...)
			b.awaitDelivered(count)
			got := b.boxes[0].Messages()
			if len(got) != count {
				t.Fatalf("the operator got %d messages, want %d", len(got), count)
			}
			seen := map[string]bool{}
			for _, sms := range got {
				if seen[sms.To] {
					t.Errorf("two messages to one phone")
				}
				seen[sms.To] = true
			}
		})
	}
}

func TestARowIsSendingInTheDatabaseBeforeItsPDUIsWritten(t *testing.T) {
	t.Parallel()
	b := setup(t, smpptest.Behaviour{Silence: 1})
	b.start()
	stored := b.enqueue(draft(1))
	b.await("the message at the operator", func() bool { return b.boxes[0].Stats().Messages == 1 })
	if states := b.states(); states[delivery.Sending] != 1 {
		t.Errorf("while the operator is silent the deliveries are %v, want one sending", states)
	}
	trails, err := delivery.Trails(t.Context(), b.pool, stored)
	if err != nil || len(trails) != 1 || trails[0].Attempt != 1 || trails[0].SendingAt == nil {
		t.Errorf("trail %+v, %v", trails, err)
	}
}

func TestARefusalForTheRecipientFailsAndTwoSuppressTheAddress(t *testing.T) {
	t.Parallel()
	b := setup(t, smpptest.Behaviour{Refuse: map[string]smpp.Status{"7900": smpp.StatusInvalidDestinationAddress}})
	b.start()
	for want := 1; want <= 2; want++ {
		b.enqueue(draft(7))
		b.await("the refusal", func() bool { return b.states()[delivery.Failed] == want })
	}
	address := draft(7).Address
	b.await("the suppression", func() bool {
		health, err := delivery.HealthOf(t.Context(), b.pool, subscription.SMS, []string{address})
		if err != nil {
			t.Fatal(err)
		}
		return health[address].Suppressed
	})
	if stats := b.boxes[0].Stats(); stats.Messages != 2 {
		t.Errorf("the operator was asked %d times, want 2: a permanent refusal is not retried (fault row 16)", stats.Messages)
	}
}

// A subscriber who has refused all bulk SMS is known by a code of the operator's
// own: the phone is left alone from then on, at the first such answer.
func TestAPhoneWhoseOwnerRefusedBulkSMSIsLeftAlone(t *testing.T) {
	t.Parallel()
	for name, behaviour := range map[string]smpptest.Behaviour{
		"by the answer":  {Refuse: map[string]smpp.Status{"7900": 0x412}},
		"by the receipt": {Undelivered: 1, ReceiptError: 69},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, behaviour)
			b.desk.RefusedBulk = delivery.RefusedBulk{"box1": {"0x412", "err:069"}}
			b.start()
			b.enqueue(draft(7))
			address := draft(7).Address
			b.await("the mark", func() bool {
				if err := b.receipts.Sweep(t.Context()); err != nil {
					t.Fatal(err)
				}
				health, err := delivery.HealthOf(t.Context(), b.pool, subscription.SMS, []string{address})
				if err != nil {
					t.Fatal(err)
				}
				return health[address].OptedOut
			})
			b.await("the failure", func() bool { return b.states()[delivery.Failed] == 1 })
			if stats := b.boxes[0].Stats(); stats.Messages != 1 {
				t.Errorf("the operator was asked %d times", stats.Messages)
			}
		})
	}
}

func TestAMessageTheRouteRefusesGoesToTheNextOperator(t *testing.T) {
	t.Parallel()
	b := setup(t, smpptest.Behaviour{Refuse: map[string]smpp.Status{"7900": smpp.StatusInvalidSourceAddress}}, smpptest.Behaviour{})
	b.start()
	b.enqueue(draft(1), draft(2))
	b.awaitDelivered(2)
	if n := len(b.boxes[1].Messages()); n != 2 {
		t.Errorf("the second operator got %d messages, want 2", n)
	}
}

func TestAMessagePastItsLifeIsNotSent(t *testing.T) {
	t.Parallel()
	b := setup(t, smpptest.Behaviour{})
	old := draft(1)
	old.Expires = time.Now().Add(-time.Second)
	b.enqueue(old, draft(2))
	b.start()
	b.awaitDelivered(1)
	if states := b.states(); states[delivery.Stale] != 1 {
		t.Errorf("deliveries are %v, want one stale", states)
	}
	if got := b.boxes[0].Messages(); len(got) != 1 || got[0].To != draft(2).Address {
		t.Errorf("the operator got %d messages", len(got))
	}
}

// Pain 14: PostgreSQL is the only store; what a process that was killed had marked is found in it.
func TestWhatADeadProcessWasSendingIsUnknownAndSentOnceMoreIfItIsStillNews(t *testing.T) {
	t.Parallel()
	b := setup(t, smpptest.Behaviour{})
	ctx := t.Context()
	code := draft(2)
	code.Topic, code.Again = "code", delivery.Never
	b.enqueue(draft(1))
	b.enqueue(code)
	// The process "dead" has taken both jobs and marked both rows, and is gone.
	if _, err := b.pool.Exec(ctx, `
		UPDATE river.river_job SET state = 'running', attempt = 1, attempted_at = now(), attempted_by = ARRAY['dead'];
		UPDATE delivery.delivery SET state = 'sending', attempt = 1, sender = 'dead', sending_at = now()`); err != nil {
		t.Fatal(err)
	}
	var unknown int
	err := pgx.BeginFunc(ctx, b.pool, func(tx pgx.Tx) error {
		var err error
		// The clock of the take-over is a minute behind, so that the wait for a receipt is over.
		unknown, err = delivery.TakeOver(ctx, tx, b.insert, "dead", time.Now().Add(-time.Minute))
		return err
	})
	if err != nil || unknown != 2 {
		t.Fatalf("unknown outcomes: %d, %v; want 2", unknown, err)
	}
	b.start()
	b.awaitDelivered(1)
	if states := b.states(); states[delivery.Unknown] != 1 {
		t.Errorf("deliveries are %v: the login code must stay unknown, never be sent twice", states)
	}
	if got := b.boxes[0].Messages(); len(got) != 1 || got[0].To != draft(1).Address {
		t.Errorf("the operator got %d messages, want the pass alone", len(got))
	}
}

// Pain 9: without a link nothing is turned over; with the link everything goes at once.
func TestAnOperatorThatIsAwayHoldsItsMessagesUnclaimed(t *testing.T) {
	t.Parallel()
	b := setup(t, smpptest.Behaviour{RefuseBinds: 1000, RefuseBindStatus: smpp.StatusSystemError})
	b.enqueue(draft(1), draft(2), draft(3))
	b.start()
	b.await("a bind to be tried twice", func() bool { return b.boxes[0].Binds() >= 2 })
	var attempts int
	if err := b.pool.QueryRow(t.Context(), `
		SELECT coalesce(sum(attempt + (state <> 'available')::int), 0) FROM river.river_job`).Scan(&attempts); err != nil {
		t.Fatal(err)
	}
	if states := b.states(); states[delivery.Queued] != 3 || attempts != 0 {
		t.Errorf("without a link the deliveries are %v and their job was touched %d times, want all queued and untouched",
			states, attempts)
	}
	b.boxes[0].SetBehaviour(smpptest.Behaviour{})
	b.awaitDelivered(3)
}

// Pain 10: what waits for an operator without a link goes by the next of its route; what has no other way waits on.
func TestMessagesOfAnOperatorWithoutALinkGoByAnother(t *testing.T) {
	t.Parallel()
	b := setup(t, smpptest.Behaviour{RefuseBinds: 1 << 30, RefuseBindStatus: smpp.StatusSystemError}, smpptest.Behaviour{})
	b.desk = delivery.NewDesk(b.insert, func(to phone.Number) []string {
		if to == phone.Number(draft(7).Address) {
			return []string{"box1"}
		}
		return b.exchange.Route(to)
	})
	b.sender = delivery.NewSender(delivery.SenderConfig{
		Pool: b.pool, Desk: b.desk, Receipts: b.receipts, Exchange: b.exchange, Operators: []string{"box1", "box2"},
		Process: "test", Log: slog.New(slog.DiscardHandler), Metrics: b.metrics, Now: time.Now, RerouteAfter: 200 * time.Millisecond,
	})
	b.work()
	drafts := make([]delivery.Draft, 300) // two jobs
	for i := range drafts {
		drafts[i] = draft(i)
	}
	b.enqueue(drafts...)
	b.start()
	b.await("all but one to be delivered", func() bool {
		if err := b.sender.Reroute(t.Context(), b.exchange.Ready); err != nil {
			t.Fatal(err)
		}
		if err := b.receipts.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		return b.states()[delivery.Delivered] == 299
	})
	if got := b.states()[delivery.Queued]; got != 1 {
		t.Errorf("%d messages wait, want the one that has no other way", got)
	}
	if got := len(b.boxes[1].Messages()); got != 299 {
		t.Errorf("the second operator has %d messages", got)
	}
	// A receipt may settle a message before the job that sent it has ended.
	b.await("only the message without a way to count as waiting", func() bool {
		backlogs, err := delivery.Backlogs(t.Context(), b.pool, []string{"box1", "box2"})
		if err != nil {
			t.Fatal(err)
		}
		return backlogs[0].Messages == 1 && !backlogs[0].Since.IsZero() && backlogs[1].Messages == 0
	})
	b.boxes[0].SetBehaviour(smpptest.Behaviour{})
	b.awaitDelivered(300)
}

// Pain 12: what is for a gateway that binds to us waits in the database while it is away, also over a restart of ours;
// one that does not answer keeps nothing from another. Pain 13: what waits is seen from outside, with its age and a name.
func TestMessagesWaitInTheDatabaseForAGatewayThatBindsToUs(t *testing.T) {
	t.Parallel()
	b := setup(t, smpptest.Behaviour{}) // its client operator has nothing to do here
	account := func(name string) carrier.OperatorConfig {
		return carrier.OperatorConfig{
			Name: name, Mode: carrier.Server, SystemID: name, Password: "secret", Window: 5, Rate: 5000, QueueLimit: 20,
			Roles: []carrier.Role{carrier.RoleSMS}, ResponseTimeout: 2 * time.Second,
		}
	}
	var log lines
	begin := func() (address string) {
		var err error
		b.exchange, err = carrier.New(carrier.Config{
			Operators:   []carrier.OperatorConfig{account("slow"), account("quick")},
			Receipts:    func(ctx context.Context, batch []carrier.Receipt) error { return b.receipts.Store(ctx, batch) },
			LinkChanged: func(operator string, up bool) { b.sender.LinkChanged(operator, up) },
		})
		if err != nil {
			t.Fatal(err)
		}
		b.desk = delivery.NewDesk(b.insert, func(to phone.Number) []string {
			return []string{map[bool]string{true: "slow", false: "quick"}[to[10] < '5']}
		})
		b.sender = delivery.NewSender(delivery.SenderConfig{
			Pool: b.pool, Desk: b.desk, Receipts: b.receipts, Exchange: b.exchange, Operators: []string{"slow", "quick"},
			Process: "test", Log: slog.New(slog.NewTextHandler(&log, nil)), Metrics: b.metrics, Now: func() time.Time { return time.Now().Add(b.ahead) },
		})
		b.work()
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		settings := b.exchange.ServerConfig()
		settings.SystemID, settings.Log = "zvonok", slog.New(slog.DiscardHandler)
		server := smpp.NewServer(settings)
		served := make(chan struct{})
		go func() { defer close(served); _ = server.Serve(listener) }()
		b.stopping = sync.Once{}
		b.start()
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_ = server.Shutdown(ctx) // gateways that are gone do not answer
			<-served
		})
		return listener.Addr().String()
	}
	bind := func(address, name string, behaviour smpptest.Behaviour) *smpptest.Gateway {
		t.Helper()
		g, err := smpptest.Connect(t.Context(), smpptest.GatewayConfig{
			OperatorConfig: smpptest.OperatorConfig{Behaviour: behaviour}, Address: address, SystemID: name, Password: "secret",
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			_ = g.Close(ctx) // what is missing is the point
		})
		return g
	}

	begin()
	drafts := make([]delivery.Draft, 400)
	slow := 0
	for i := range drafts {
		drafts[i] = draft(i)
		if drafts[i].Address[10] < '5' {
			slow++
		}
	}
	b.enqueue(drafts...)
	b.ahead = 3 * time.Minute
	if err := b.sender.Watch(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"operator=quick messages=200", "oldest_for=3m", "oldest_delivery="} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, log.String())
		}
	}
	b.ahead = 0
	b.stop()

	address := begin()
	bind(address, "slow", smpptest.Behaviour{Silence: 1})
	quick := bind(address, "quick", smpptest.Behaviour{})
	b.await("all messages of the quick gateway", func() bool { return len(quick.Messages()) == len(drafts)-slow })
	b.await("their outcomes", func() bool { return b.states()[delivery.Sent]+b.states()[delivery.Delivered] >= len(drafts)-slow })
}

// lines is a log that a test reads.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Fault row 3: what an orderly stop leaves unsent is found by the next start.
func TestAStopGivesBackWhatItDidNotSend(t *testing.T) {
	t.Parallel()
	b := setup(t, smpptest.Behaviour{AnswerDelay: 200 * time.Millisecond}) // a hundred a second
	drafts := make([]delivery.Draft, 3000)
	for i := range drafts {
		drafts[i] = draft(i)
	}
	b.enqueue(drafts...)
	b.start()
	b.await("the first answers", func() bool { return b.states()[delivery.Queued] < len(drafts) })
	b.stop()
	var queued, held int
	if err := b.pool.QueryRow(t.Context(), `
		SELECT (SELECT count(*) FROM delivery.delivery WHERE state = 'queued'),
			(SELECT count(DISTINCT d.id) FROM river.river_job AS j, jsonb_array_elements_text(j.args->'ids') AS id
			 JOIN delivery.delivery AS d ON d.id = id::bigint AND d.state = 'queued'
			 WHERE j.kind = 'sms' AND j.state IN ('available', 'scheduled', 'retryable'))`).Scan(&queued, &held); err != nil {
		t.Fatal(err)
	}
	if queued == 0 || held != queued {
		t.Errorf("after the stop %d messages are queued and jobs hold %d of them", queued, held)
	}
}

func TestANumberWithoutARouteIsOnRecord(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Schema: pg.RiverSchema})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, pool: pool, desk: delivery.NewDesk(client, func(phone.Number) []string { return nil })}
	stored := b.enqueue(draft(1))
	trails, err := delivery.Trails(t.Context(), pool, stored)
	if err != nil || len(trails) != 1 || trails[0].State != delivery.Failed || trails[0].Reason != "no_route" {
		t.Errorf("trail %+v, %v; want failed, no_route (pain 11)", trails, err)
	}
}

func TestOptOutHoldsUntilOptIn(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	ctx, now := t.Context(), time.Now()
	const address = "79000000001"
	optedOut := func() bool {
		health, err := delivery.HealthOf(ctx, pool, subscription.SMS, []string{address})
		if err != nil {
			t.Fatal(err)
		}
		return health[address].OptedOut
	}
	if optedOut() {
		t.Error("a new address is opted out")
	}
	for range 2 { // repeated without harm
		if err := delivery.OptOut(ctx, pool, subscription.SMS, address, "stop", now); err != nil {
			t.Fatal(err)
		}
	}
	if !optedOut() {
		t.Error("the opt-out is not on record")
	}
	if err := delivery.OptIn(ctx, pool, subscription.SMS, address); err != nil {
		t.Fatal(err)
	}
	if optedOut() {
		t.Error("the opt-in changed nothing")
	}
}
