package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
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

// Pain 15, fault rows 40 and 41: several processes on one database share an
// operator's binds. One that is killed is replaced within seconds; one that is
// stopped for a while and goes on sends nothing by the bind it had.
func TestProcessesOnOneDatabaseShareAnOperator(t *testing.T) {
	t.Parallel()
	const binds = 2
	smsc, err := smpptest.Start(smpptest.Config{
		OperatorConfig: smpptest.OperatorConfig{Behaviour: smpptest.Behaviour{AnswerDelay: 50 * time.Millisecond}},
		SystemID:       "school", Password: "secret",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = smsc.Close(context.Background()) }) // connections of stopped processes stay open until they end
	url := pgtest.NewURL(t)
	dir := dataFolder(t)
	settings := filepath.Join(dir, "zvonok.toml")
	if err := os.WriteFile(settings, fmt.Appendf(nil, `
data_dir = %q
[database]
url = %q
[http]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[smpp]
listen = "127.0.0.1:0"
[[operator]]
name = "mts"
mode = "client"
address = %q
system_id = "school"
password = "secret"
binds = %d
window = 10
rate = 60
roles = ["sms"]
source = "SCHOOL"
`, dir, url, smsc.Addr(), binds), 0o644); err != nil {
		t.Fatal(err)
	}
	launch := func() *program { return start(t, dir, "serve", "--config", settings) }
	bound := func() []*smpp.Session {
		var open []*smpp.Session
		for _, s := range smsc.Sessions("") {
			if s.Snapshot().Open {
				open = append(open, s)
			}
		}
		return open
	}
	// neverMore watches over the number of binds while a condition is waited for.
	neverMore := func(what string, limit int, condition func() bool) {
		t.Helper()
		eventually(t, what, func() bool {
			if n := len(bound()); n > limit {
				t.Fatalf("%d binds, the operator allows %d", n, limit)
			}
			return condition()
		})
	}

	first := launch()
	neverMore("both binds", binds, func() bool { return len(bound()) == binds })
	alone := bound()
	second := launch()
	neverMore("one bind to move", binds, func() bool {
		return len(bound()) == binds && !slices.Equal(bound(), alone)
	})

	var taken *smpp.Session // the second process's
	for _, s := range bound() {
		if !slices.Contains(alone, s) {
			taken = s
		}
	}

	eventually(t, "things to settle", func() bool { return time.Since(taken.Snapshot().BoundAt) > 2*time.Second })

	// Killed: the kernel closes its connections, the database frees its leases.
	_ = second.command.Process.Kill()
	killed := time.Now()
	<-second.exited
	neverMore("the bind of the killed process to be taken over", binds, func() bool {
		return len(bound()) == binds && !taken.Snapshot().Open
	})
	t.Logf("taken over %s after kill -9", time.Since(killed).Round(time.Millisecond))
	if took := time.Since(killed); took > 10*time.Second {
		t.Errorf("the take-over took %s", took)
	}

	// Stopped in the midst of work.
	before := bound()
	third := launch()
	neverMore("one bind to move again", binds, func() bool {
		return len(bound()) == binds && !slices.Equal(bound(), before)
	})
	kept := slices.IndexFunc(bound(), func(s *smpp.Session) bool { return slices.Contains(before, s) })
	if kept < 0 {
		t.Fatal("the first process kept no bind")
	}
	old := bound()[kept]
	const messages = 900
	pool := enqueue(t, url, messages)
	eventually(t, "the first process to be busy", func() bool { return old.Snapshot().Inbound > 20 })
	_ = first.command.Process.Signal(syscall.SIGSTOP)
	stopped := time.Now()
	// Its connection stays, so that for this while there is one bind more.
	neverMore("the bind of the stopped process to be taken over", binds+1, func() bool { return len(bound()) == binds+1 })
	t.Logf("taken over %s after SIGSTOP", time.Since(stopped).Round(time.Millisecond))
	eventually(t, "the operator to have read what was under way", func() bool { return old.Snapshot().InboundPending == 0 })
	sent := old.Snapshot().Inbound
	_ = first.command.Process.Signal(syscall.SIGCONT)
	neverMore("the old bind to be given up", binds+1, func() bool { return !old.Snapshot().Open })
	<-old.Done()
	if now := old.Snapshot().Inbound; now != sent {
		t.Errorf("%d messages came by the old bind after its lease had ended", now-sent)
	}
	neverMore("the binds to be shared again", binds, func() bool { return len(bound()) == binds })

	// Nothing is lost, and what was under way at the stop came once more at most.
	eventually(t, "all messages to be delivered", func() bool {
		var open int
		if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM delivery.delivery WHERE state <> 'delivered'`).Scan(&open); err != nil {
			t.Fatal(err)
		}
		return open == 0
	})
	shown := map[string]int{}
	twice := 0
	for _, m := range smsc.Messages() {
		if shown[m.To]++; shown[m.To] == 2 {
			twice++
		}
	}
	t.Logf("%d messages, %d of them twice", len(shown), twice)
	if len(shown) != messages || twice > 10 {
		t.Errorf("%d phones of %d have a message, %d have two; the window is 10", len(shown), messages, twice)
	}
	for _, p := range []*program{first, third} {
		if code := p.end(syscall.SIGTERM); code != 0 {
			t.Errorf("exit %d:\n%s", code, p.stderr)
		}
	}
}

// enqueue stores messages for the operator "mts", as a process does.
func enqueue(t *testing.T, url string, n int) *pgxpool.Pool {
	t.Helper()
	pool, err := pg.Open(t.Context(), pg.Config{URL: url, MaxConns: 2, AppName: "test", Role: pg.AppRole})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Schema: pg.RiverSchema})
	if err != nil {
		t.Fatal(err)
	}
	desk := delivery.NewDesk(client, func(phone.Number) []string { return []string{"mts"} })
	drafts := make([]delivery.Draft, n)
	for i := range drafts {
		drafts[i] = delivery.Draft{
			Event: 1, Topic: "pass", Channel: subscription.SMS, Address: fmt.Sprintf("7900000%04d", i),
			Priority: carrier.Urgent, Again: delivery.Fresh, Expires: time.Now().Add(time.Hour), Body: "Entry 08:15",
		}
	}
	// Few at a time, as uploads bring them: a process takes so many jobs at once
	// and not more, and these are enough for several.
	err = pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		for few := range slices.Chunk(drafts, 3) {
			if _, err := desk.Enqueue(t.Context(), tx, time.Now(), few); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return pool
}
