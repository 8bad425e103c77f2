package delivery_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"zvonok/access/phone"
	"zvonok/gateway/carrier"
	"zvonok/gateway/delivery"
	"zvonok/gateway/email"
	"zvonok/gateway/email/emailtest"
	"zvonok/gateway/push"
	"zvonok/gateway/push/pushtest"
	"zvonok/gateway/subscription"
	"zvonok/ledger/pg"
	"zvonok/ledger/pg/pgtest"
)

// post is the side of letters and push messages on real parts: PostgreSQL,
// River, an SMTP relay and a push service on sockets.
type post struct {
	*bench
	relay   *emailtest.Server
	mailer  *delivery.Mailer
	service *pushtest.Service
	pushes  *push.Sender
	pusher  *delivery.Pusher
}

func setupPost(t *testing.T) *post {
	t.Helper()
	t.Parallel()
	p := &post{bench: &bench{t: t, pool: pgtest.New(t)}, service: pushtest.NewService()}
	t.Cleanup(p.service.Close)
	log := slog.New(slog.DiscardHandler)
	var err error
	if p.relay, err = emailtest.Listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.relay.Close() })
	letters, err := email.NewSender(email.Config{
		Relay: p.relay.Addr(), Security: email.Plain, From: "Школа <pass@example.org>", Log: log,
		Metrics: email.NewMetrics(prometheus.NewRegistry()), Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(letters.Close)
	source, err := push.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	key, err := push.ParseKey(source)
	if err != nil {
		t.Fatal(err)
	}
	p.pushes, err = push.NewSender(push.Config{
		Key: key, Contact: "pass@example.org", Services: []string{p.service.Host()}, AllowPrivate: true, Roots: p.service.Roots(),
		Log: log, Metrics: push.NewMetrics(prometheus.NewRegistry()), Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.pushes.Close)
	if p.insert, err = river.NewClient(riverpgxv5.New(p.pool), &river.Config{Schema: pg.RiverSchema}); err != nil {
		t.Fatal(err)
	}
	metrics := delivery.NewMetrics(prometheus.NewPedanticRegistry(), []string{"mail", "push"})
	p.desk = delivery.NewDesk(p.insert, func(phone.Number) []string { return []string{"box1"} })
	p.mailer = delivery.NewMailer(delivery.MailerConfig{
		Pool: p.pool, Desk: p.desk, Sender: letters, Domain: "example.org", Process: "test",
		Unsubscribe: func(string) string { return "" }, Log: log, Metrics: metrics, Now: time.Now,
	})
	p.pusher, err = delivery.NewPusher(delivery.PusherConfig{
		Pool: p.pool, Desk: p.desk, Sender: p.pushes, Process: "test", Key: []byte(strings.Repeat("k", 32)), Log: log,
		Metrics: metrics, Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.pusher.Close)
	// The workers of unknown outcomes and of fall-backs are those of the SMS side.
	sender := delivery.NewSender(delivery.SenderConfig{Pool: p.pool, Desk: p.desk, Process: "test", Log: log, Metrics: metrics, Now: time.Now})
	workers := river.NewWorkers()
	sender.Register(workers)
	p.mailer.Register(workers)
	p.pusher.Register(workers)
	queues := sender.Queues()
	for _, more := range []map[string]river.QueueConfig{p.mailer.Queues(), p.pusher.Queues()} {
		for name, config := range more {
			queues[name] = config
		}
	}
	p.client, err = river.NewClient(riverpgxv5.New(p.pool), &river.Config{
		ID: "test", Schema: pg.RiverSchema, Workers: workers, Queues: queues, Logger: log,
		FetchCooldown: 10 * time.Millisecond, FetchPollInterval: 50 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.client.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := p.client.Stop(ctx); err != nil {
			t.Errorf("stop the queue: %v", err)
		}
	})
	return p
}

// topUp is a letter that lives for a day.
func topUp(to string) delivery.Draft {
	return delivery.Draft{
		Event: 1, Topic: "topup", Channel: subscription.Email, Address: to, Priority: carrier.Normal, Again: delivery.Later,
		Expires: time.Now().Add(24 * time.Hour),
		Letter:  &delivery.Letter{Subject: "Пополнение: Маша", Text: "Пополнение: Маша\n", HTML: "<p>Маша", Thread: "child-17.20261123"},
	}
}

// awaitState waits for a delivery's state and returns its reason.
func (b *bench) awaitState(s delivery.Stored, want delivery.State) string {
	b.t.Helper()
	var state delivery.State
	var reason string
	b.await(fmt.Sprintf("message %d to be %s", s.ID, want), func() bool {
		err := b.pool.QueryRow(context.Background(), `SELECT state, coalesce(reason, '') FROM delivery.delivery WHERE id = $1 AND at = $2`,
			s.ID, s.At).Scan(&state, &reason)
		if err != nil {
			b.t.Fatal(err)
		}
		return state == want
	})
	return reason
}

// awaitRetry waits until a message waits for its next attempt, and returns for
// how long it is to wait.
func (b *bench) awaitRetry(kind string) time.Duration {
	b.t.Helper()
	var wait time.Duration
	b.await("the next attempt to be planned", func() bool {
		var seconds float64
		err := b.pool.QueryRow(context.Background(), `
			SELECT extract(epoch FROM max(scheduled_at) - now()) FROM river.river_job
			WHERE kind = $1 AND state = 'scheduled' HAVING count(*) > 0`, kind).Scan(&seconds)
		wait = time.Duration(seconds * float64(time.Second))
		return err == nil
	})
	return wait
}

// hurry lets what is planned for later happen now.
func (b *bench) hurry() {
	b.t.Helper()
	if _, err := b.pool.Exec(context.Background(), `
		UPDATE river.river_job SET state = 'available', scheduled_at = now() WHERE state IN ('scheduled', 'retryable')`); err != nil {
		b.t.Fatal(err)
	}
}

func suppressed(t *testing.T, pool *pgxpool.Pool, channel subscription.Channel, address string) bool {
	t.Helper()
	health, err := delivery.HealthOf(t.Context(), pool, channel, []string{address})
	if err != nil {
		t.Fatal(err)
	}
	return health[address].Suppressed
}

// Fault row 29: a greylisted letter comes at the next attempt, and nobody is
// suppressed for it.
func TestAGreylistedLetterIsTriedAgainLaterAndArrivesOnce(t *testing.T) {
	p := setupPost(t)
	p.relay.Behave(emailtest.Greylist())
	stored := p.enqueue(topUp("mother@example.org"))
	if wait := p.awaitRetry("mail"); wait < 4*time.Minute || wait > 15*time.Minute {
		t.Errorf("the next attempt is in %v; greylists want 5 to 15 minutes", wait)
	}
	if n := len(p.relay.Letters()); n != 0 {
		t.Fatalf("%d letters came", n)
	}
	p.hurry()
	p.awaitState(stored[0], delivery.Sent)
	if n := len(p.relay.Letters()); n != 1 || suppressed(t, p.pool, subscription.Email, "mother@example.org") {
		t.Errorf("%d letters came, or the address is suppressed", n)
	}
}

// Fault row 29: which answers suppress an address, and which never do.
func TestOnlyTwoAnswersAboutTheMailboxSuppressAnAddress(t *testing.T) {
	p := setupPost(t)
	for domain, c := range map[string]struct {
		reply      string
		state      delivery.State // of the first letter
		suppressed bool           // after two
	}{
		"unknown.example.org":  {"550 5.1.1 No such user", delivery.Failed, true},
		"nodomain.example.org": {"550 5.1.2 Bad destination", delivery.Failed, true},
		"nullmx.example.org":   {"556 5.1.10 Recipient address has null MX", delivery.Failed, true},
		"disabled.example.org": {"550 5.2.1 Mailbox disabled", delivery.Failed, true},
		"bare.example.org":     {"550 no", delivery.Failed, false},
		"full.example.org":     {"552 5.2.2 Mailbox full", delivery.Failed, false},
		"policy.example.org":   {"554 5.7.1 Blocked", delivery.Queued, false},
		"busy.example.org":     {"451 4.3.0 Later", delivery.Queued, false},
		"fulltmp.example.org":  {"452 4.2.2 Mailbox full", delivery.Queued, false},
	} {
		t.Run(domain, func(t *testing.T) {
			p.relay.Behave(emailtest.For(domain, emailtest.Refuse("RCPT", c.reply)))
			address := "parent@" + domain
			for range 2 {
				stored := p.enqueue(topUp(address))
				p.await("an attempt", func() bool {
					var n int
					if err := p.pool.QueryRow(context.Background(), `SELECT count(*) FROM delivery.part WHERE delivery_id = $1`, stored[0].ID).Scan(&n); err != nil {
						t.Fatal(err)
					}
					return n > 0
				})
				p.awaitState(stored[0], c.state)
			}
			if got := suppressed(t, p.pool, subscription.Email, address); got != c.suppressed {
				t.Errorf("suppressed: %v", got)
			}
		})
	}
}

// A relay takes letters for dead mailboxes and lets them bounce: that it took the
// next one proves nothing, so two bounces suppress.
func TestTwoBouncesSuppressAnAddressThoughItsRelayTakesEverything(t *testing.T) {
	p := setupPost(t)
	const address = "gone@example.org"
	for n := 1; n <= 2; n++ {
		stored := p.enqueue(topUp(address))
		p.awaitState(stored[0], delivery.Sent)
		if err := p.mailer.Bounced(t.Context(), email.Bounce{ID: int64(stored[0].ID), Class: email.Address, Enhanced: [3]int{5, 1, 1}}); err != nil {
			t.Fatal(err)
		}
		p.awaitState(stored[0], delivery.Failed)
		if got := suppressed(t, p.pool, subscription.Email, address); got != (n == 2) {
			t.Fatalf("after %d bounces suppressed is %v", n, got)
		}
	}
	// A bounce for a reason of policy pauses the destination and suppresses nobody.
	stored := p.enqueue(topUp("one@policy.example.org"))
	p.awaitState(stored[0], delivery.Sent)
	for range 2 { // the same notification may come twice
		if err := p.mailer.Bounced(t.Context(), email.Bounce{ID: int64(stored[0].ID), Class: email.Reputation, Enhanced: [3]int{5, 7, 1}}); err != nil {
			t.Fatal(err)
		}
	}
	if suppressed(t, p.pool, subscription.Email, "one@policy.example.org") {
		t.Error("a policy suppressed an address")
	}
	next := p.enqueue(topUp("two@policy.example.org"))
	if wait := p.awaitRetry("mail"); wait < 30*time.Minute {
		t.Errorf("the destination is paused for %v", wait)
	}
	if reason := p.awaitState(next[0], delivery.Queued); !strings.HasPrefix(reason, "reputation") {
		t.Errorf("the reason is %q", reason)
	}
}

// Fault row 28: a relay that closes after the final dot. The letter is sent once
// more, with the same Message-ID, and not a third time.
func TestALetterOfUnknownFateIsRepeatedOnceWithTheSameMessageID(t *testing.T) {
	p := setupPost(t)
	p.relay.Behave(emailtest.HangUp("END"))
	stored := p.enqueue(topUp("mother@example.org"))
	p.awaitState(stored[0], delivery.Unknown)
	if wait := p.awaitRetry("resolve"); wait < 5*time.Minute {
		t.Errorf("it is repeated in %v", wait)
	}
	p.hurry()
	p.await("the repetition", func() bool { return len(p.relay.Letters()) == 2 })
	p.awaitState(stored[0], delivery.Unknown)
	p.hurry()
	p.await("all jobs to be done", func() bool {
		var n int
		if err := p.pool.QueryRow(context.Background(), `
			SELECT count(*) FROM river.river_job WHERE state IN ('available', 'running', 'scheduled', 'retryable')`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n == 0
	})
	for _, part := range p.trails(stored)[0].Parts { // no relay has refused it
		if part.State != "unknown" {
			t.Errorf("attempt %d is %s", part.Attempt, part.State)
		}
	}
	letters := p.relay.Letters()
	ids := map[string]bool{}
	for _, l := range letters {
		c, err := l.Content()
		if err != nil {
			t.Fatal(err)
		}
		id, err := c.Header.MessageID()
		if err != nil {
			t.Fatal(err)
		}
		ids[id] = true
		if references, err := c.Header.MsgIDList("References"); err != nil || len(references) != 1 || references[0] != "child-17.20261123@example.org" {
			t.Errorf("References are %q (%v)", references, err)
		}
	}
	if len(letters) != 2 || len(ids) != 1 {
		t.Errorf("%d letters with %d Message-IDs", len(letters), len(ids))
	}
}

func TestTheWaitsForALetterOfTheDayGrow(t *testing.T) {
	p := setupPost(t)
	p.relay.Behave(emailtest.Refuse("RCPT", "451 4.3.0 Later"))
	p.enqueue(topUp("mother@example.org"))
	var waits []time.Duration
	for range 5 {
		waits = append(waits, p.awaitRetry("mail").Round(time.Minute))
		p.hurry()
		p.await("the attempt", func() bool {
			var attempts int
			if err := p.pool.QueryRow(context.Background(), `SELECT max(attempt) FROM delivery.delivery WHERE state = 'queued'`).Scan(&attempts); err != nil {
				return false
			}
			return attempts == len(waits)+1
		})
	}
	want := []time.Duration{5 * time.Minute, 10 * time.Minute, 20 * time.Minute, 40 * time.Minute, time.Hour}
	for i := range want {
		if waits[i] != want[i] {
			t.Fatalf("the waits are %v, want %v", waits, want)
		}
	}
}
