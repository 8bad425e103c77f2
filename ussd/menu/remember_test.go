package menu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"zvonok/access"
	"zvonok/access/phone"
	"zvonok/gateway/delivery"
	"zvonok/gateway/subscription"
	"zvonok/ledger/pg"
	"zvonok/ledger/pg/pgtest"
	"zvonok/ussd"
)

// until polls, with a patience that no machine exhausts.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not so after %v: %s", patience, what)
		}
	}
}

func openPool(t *testing.T, address string) *pgxpool.Pool {
	t.Helper()
	pool, err := pg.Open(t.Context(), pg.Config{URL: address, MaxConns: 6, AppName: "test", Role: pg.AppRole})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// remembered says whether a phone's balances could be shown without a server.
func (w *world) remembered(link string, number phone.Number) bool {
	m := w.menu.memory
	r := m.of(caller{link, number}, now)
	return r != nil && m.holds(r, now)
}

// dial shows a first screen until the memory has kept it, which it does not while it hears of changes.
func (w *world) dial(t *testing.T, number phone.Number) {
	t.Helper()
	m := w.menu.memory
	until(t, "what the phone was shown is remembered", func() bool {
		if m.of(caller{"op", number}, now) == nil {
			if _, err := w.menu.Show(t.Context(), ussd.Visit{Link: "op", Phone: number, At: now}); err != nil {
				t.Fatal(err)
			}
		}
		return w.remembered("op", number)
	})
}

// goes plays a script and compares.
func (s *stage) goes(t *testing.T, script string) {
	t.Helper()
	compare(t, "script", script, s.play(script))
}

// Issue 4, ussd.md section 5: "cached last known balance with its time is better than an error". The database is
// stopped between two dials. D12, D14: who lost the right before that reads nothing, every view is logged in the end.
func TestTheLastBalanceIsShownWhileThereIsNoDatabase(t *testing.T) {
	t.Parallel()
	cluster := pgtest.NewCluster(t)
	w := newSchoolOn(t, openPool(t, cluster.URL()))
	s := newStageOf(t, w)
	s.exec(`UPDATE access.guardian SET until = $2 WHERE representative_id = $1`, s.phones[grandma], now.Add(time.Hour))
	for _, number := range []phone.Number{mother, englishPa, nanny, grandma} {
		w.dial(t, number)
	}
	s.exec(`UPDATE access.guardian SET revoked_at = $2 WHERE representative_id = $1`, s.phones[nanny], now)
	until(t, "the nanny's removal is heard", func() bool { return !w.remembered("op", nanny) })
	w.dial(t, mother) // for the child's other people are forgotten with her
	w.dial(t, englishPa)
	cluster.Stop(t)
	until(t, "the server is found to be gone", w.menu.memory.changes.unheard)

	s.goes(t, `79000000001 dials *377*888#
| Маша П. 143,50 р
| На 12:30, новее пока нет
(the end)
79000000001 dials *377*888*1#
| Маша П. 143,50 р
| На 12:30, новее пока нет
(the end)
79000000001 dials #377*888#
| Masha P. 143,50 r
| Na 12:30, novee poka net
(the end)
79000000001 dials *377*888*2#
| Сервис занят. Попробуйте позже.
(the end)
79000000006 dials *377*888#
| Masha P. 143.50 RUB
| Petya P. 20.00 RUB
| As of 12:30, nothing newer yet
(the end)
# Removed, never shown anything, and unknown.
79000000007 dials *377*888#
| Сервис занят. Попробуйте позже.
(the end)
79000000002 dials *377*888#
| Сервис занят. Попробуйте позже.
(the end)
79000000009 dials *377*888#
| Сервис занят. Попробуйте позже.
(the end)
`)
	for _, c := range []struct {
		why   string
		visit ussd.Visit
		shown bool
	}{
		{"two hours later", ussd.Visit{Link: "op", Phone: mother, At: now.Add(2 * time.Hour)}, true},
		{"too old", ussd.Visit{Link: "op", Phone: englishPa, At: now.Add(remember)}, false},
		{"a right that has ended by itself", ussd.Visit{Link: "op", Phone: grandma, At: now.Add(2 * time.Hour)}, false},
		{"another operator's link", ussd.Visit{Link: "other", Phone: mother, At: now}, false},
		{"another screen", ussd.Visit{
			Link: "op", Phone: mother, At: now,
			Place: ussd.Place{Name: placeChild, Arg: int64(s.people["Маша"])},
		}, false},
	} {
		if screen, err := w.menu.Show(t.Context(), c.visit); (err == nil) != c.shown {
			t.Errorf("%s: %v, %v", c.why, screen.Lines, err)
		}
	}

	// The views are on the disk, whatever becomes of the process, and go to the access log when the database is back.
	content, err := os.ReadFile(w.journal)
	if err != nil || strings.Count(string(content), `"balance"`) != 6 {
		t.Errorf("the journal holds %q, %v", content, err)
	}
	cluster.Restart(t)
	until(t, "the access log has the views", func() bool {
		var n int
		err := s.pool.QueryRow(t.Context(),
			`SELECT count(*) FROM access.view_log WHERE what = 'balance' AND channel = 'ussd'`).Scan(&n)
		return err == nil && n == 6
	})
	until(t, "the journal is empty", func() bool {
		info, err := os.Stat(w.journal)
		return err == nil && info.Size() == 0
	})
	until(t, "changes are followed again", w.menu.memory.changes.followed)
	s.goes(t, `79000000001 dials *377*888*1#
| Маша П. 143,50 р
(the end)
79000000007 dials *377*888#
| Для этого номера сведений нет. Обратитесь в школу
(the end)
`)
}

// A server that is back may have taken changes that were not heard: what was remembered before counts no more.
func TestNothingIsRememberedOverARestart(t *testing.T) {
	t.Parallel()
	cluster := pgtest.NewCluster(t)
	w := newSchoolOn(t, openPool(t, cluster.URL()))
	w.dial(t, mother)
	cluster.Kill9(t)
	until(t, "the server is found to be gone", w.menu.memory.changes.unheard)
	if !w.remembered("op", mother) {
		t.Error("forgotten while there is no server")
	}
	cluster.Restart(t)
	until(t, "changes are followed again", w.menu.memory.changes.followed)
	if w.remembered("op", mother) {
		t.Error("remembered over a restart")
	}
}

// relay is a socket before PostgreSQL's that can be made to swallow everything.
type relay struct {
	mu      sync.Mutex
	stalled bool
	open    []net.Conn
}

func startRelay(t *testing.T, address string) (*relay, string) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	query := u.Query()
	behind := filepath.Join(query.Get("host"), ".s.PGSQL.5432")
	dir, err := os.MkdirTemp("/tmp", "relay-") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", filepath.Join(dir, ".s.PGSQL.5432"))
	if err != nil {
		t.Fatal(err)
	}
	query.Set("host", dir)
	u.RawQuery = query.Encode()
	r := &relay{}
	t.Cleanup(func() {
		_ = listener.Close()
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, c := range r.open {
			_ = c.Close()
		}
		_ = os.RemoveAll(dir)
	})
	go func() {
		for {
			front, err := listener.Accept()
			if err != nil {
				return
			}
			back, err := net.Dial("unix", behind)
			if err != nil {
				_ = front.Close()
				continue
			}
			r.mu.Lock()
			r.open = append(r.open, front, back)
			r.mu.Unlock()
			go r.carry(front, back)
			go r.carry(back, front)
		}
	}()
	return r, u.String()
}

func (r *relay) carry(to io.WriteCloser, from io.Reader) {
	defer to.Close()
	octets := make([]byte, 32<<10)
	for {
		n, err := from.Read(octets)
		if err != nil {
			return
		}
		r.mu.Lock()
		stalled := r.stalled
		r.mu.Unlock()
		if stalled {
			continue
		}
		if _, err := to.Write(octets[:n]); err != nil {
			return
		}
	}
}

// A network that swallows everything tells nothing of the server, which may be well and taking a withdrawal at this
// moment: nothing is shown, though it is remembered.
func TestNothingIsShownWhenNothingCanBeKnownOfRights(t *testing.T) {
	t.Parallel()
	relay, address := startRelay(t, pgtest.NewURL(t))
	w := newSchoolOn(t, openPool(t, address))
	w.dial(t, mother)
	relay.mu.Lock()
	relay.stalled = true
	relay.mu.Unlock()
	for range 2 { // at once, and when the silence has been noticed
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		screen, err := w.menu.Show(ctx, ussd.Visit{Link: "op", Phone: mother, At: now})
		cancel()
		if err == nil {
			t.Errorf("shown: %q", screen.Lines)
		}
	}
	until(t, "what was remembered is forgotten", func() bool { return !w.remembered("op", mother) })
}

// The database is slow: the right is asked on connections of its own, and what was remembered shown if the answer is
// yes. D12: a removal counts at once, also one that was never heard of. A number that has another owner now, too.
func TestRightsAreAskedBeforeTheLastBalanceIsShown(t *testing.T) {
	t.Parallel()
	owner, err := pgxpool.New(t.Context(), pgtest.NewURL(t))
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close()
	w := newSchoolOn(t, openPool(t, owner.Config().ConnString()))
	w.dial(t, mother)
	w.dial(t, nanny)
	w.dial(t, englishMa)
	w.dial(t, englishPa)
	for _, sql := range []string{
		`ALTER TABLE access.guardian DISABLE TRIGGER told`,
		`ALTER TABLE access.representative DISABLE TRIGGER told`,
		`ALTER TABLE delivery.address DISABLE TRIGGER told_new`,
		`UPDATE access.guardian SET revoked_at = '2025-01-01' WHERE role = 'trusted'`,
		`UPDATE access.representative SET phone = '79000000099' WHERE phone = '79000000005'`,
		`UPDATE access.representative SET phone = '79000000005' WHERE phone = '79000000002'`,
		`INSERT INTO delivery.address (channel, address, suppressed_at) VALUES ('sms', '79000000006', clock_timestamp())`,
	} {
		if _, err := owner.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	// Everything that is not kept for the question of rights is taken.
	for range w.pool.Config().MaxConns {
		conn, err := w.pool.Acquire(t.Context())
		w.must(err)
		defer conn.Release()
	}
	show := func(number phone.Number) (ussd.Screen, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		return w.menu.Show(ctx, ussd.Visit{Link: "op", Phone: number, At: now})
	}
	until(t, "the mother is shown the last balance", func() bool {
		screen, err := show(mother)
		return err == nil && strings.Join(screen.Lines, "|") == "Маша П. 143,50 р|На 12:30, новее пока нет"
	})
	for why, number := range map[string]phone.Number{
		"removed": nanny, "the number is another guardian's": englishMa, "the number was declared dead": englishPa, "unknown": stranger,
	} {
		if screen, err := show(number); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %q, %v: want what a stranger reads, when a stranger reads it", why, screen.Lines, err)
		}
	}
}

// What may take a right away is told at its commit, and forgotten by the phones it concerns and by no others.
func TestChangesOfRightsMakeForget(t *testing.T) {
	t.Parallel()
	w := newSchool(t)
	masha := w.people["Маша"]
	for what, change := range map[string]func(){
		"a removal": func() {
			w.exec(`UPDATE access.guardian SET revoked_at = $2 WHERE representative_id = $1`, w.phones[nanny], now)
		},
		"a withdrawn consent": func() {
			w.exec(`UPDATE access.consent SET withdrawn_at = $2 WHERE child_id = $1 AND representative_id = $3`, masha, now, w.phones[father])
		},
		"a narrower consent": func() { w.exec(`UPDATE access.consent SET meals = false WHERE child_id = $1`, masha) },
		"a change of phone": func() {
			w.exec(`UPDATE access.representative SET phone = '79000000098' WHERE phone = $1`, nanny)
			w.exec(`UPDATE access.representative SET phone = $1 WHERE phone = '79000000098'`, nanny)
		},
		"a dead phone": func() {
			w.exec(`INSERT INTO delivery.address (channel, address, suppressed_at) VALUES ('sms', $1, $2)`, nanny, now)
			w.must(delivery.OptIn(w.Context(), w.pool, subscription.SMS, string(nanny)))
		},
		"very many changes": func() { w.exec(`SELECT pg_notify($1, '*')`, access.RightsChanges) },
	} {
		w.exec(`UPDATE access.guardian SET revoked_at = NULL`)
		w.exec(`UPDATE access.consent SET withdrawn_at = NULL, meals = true`)
		w.dial(t, grandma)
		w.dial(t, nanny)
		until(t, "both are remembered", func() bool {
			if !w.remembered("op", grandma) {
				w.dial(t, grandma)
			}
			return w.remembered("op", nanny)
		})
		change()
		until(t, what+" makes forget", func() bool { return !w.remembered("op", nanny) })
		if what != "very many changes" && !w.remembered("op", grandma) {
			t.Errorf("%s of others makes forget what the grandmother was shown", what)
		}
	}
	for range 600 {
		w.pupil("Гость", "Гостев")
	}
	w.exec(`UPDATE access.consent SET withdrawn_at = NULL, meals = true`)
	w.exec(`INSERT INTO access.consent (child_id, representative_id, visits, meals, form, given_on, since)
		SELECT id, $1, true, true, 'x', '2024-01-01', '2024-01-01' FROM ledger.person WHERE given_name = 'Гость'`, w.phones[mother])
	w.dial(t, grandma)
	w.exec(`UPDATE access.consent SET meals = false WHERE form = 'x'`) // of other children, and too many to name
	until(t, "the grandmother is forgotten", func() bool { return !w.remembered("op", grandma) })
}

// A change that is heard while a screen is being read is not overtaken by what the screen leaves behind.
func TestWhatIsForgottenWhileAScreenIsReadStaysForgotten(t *testing.T) {
	t.Parallel()
	w := newSchool(t)
	w.dial(t, mother)
	m := w.menu.memory
	epoch, r := m.now(), m.of(caller{"op", mother}, now)
	m.changes.take(fmt.Sprintf("c%d", w.people["Маша"]))
	m.keep(r, epoch)
	if m.of(caller{"op", mother}, now) != nil {
		t.Error("kept what was read before the change")
	}
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	w := newSchool(t)
	m := w.menu.memory
	until(t, "the changes of rights are followed", m.changes.followed)
	one := []rememberedChild{{id: 1}}
	for n := range rememberedPhones + 10 {
		m.keep(&remembered{caller: caller{"op", phone.Number(fmt.Sprint(n))}, children: one, at: now}, m.now())
	}
	if m.order.Len() != rememberedPhones || len(m.phones) != rememberedPhones || len(m.ends) > rememberedPhones {
		t.Errorf("%d phones are remembered, %d by name, %d to be asked about", m.order.Len(), len(m.phones), len(m.ends))
	}
	if m.of(caller{"op", "9"}, now) != nil || m.of(caller{"op", "10"}, now) == nil {
		t.Error("the one shown longest ago does not go first")
	}
	m.keep(&remembered{caller: caller{"op", "many"}, children: make([]rememberedChild, rememberedChildren+1), at: now}, m.now())
	if m.of(caller{"op", "many"}, now) != nil {
		t.Error("any number of children of one phone is remembered")
	}
}

func TestOnlyARefusalMeansThatThereIsNoServer(t *testing.T) {
	t.Parallel()
	refused := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	for err, want := range map[error]bool{
		refused:                                        true,
		fmt.Errorf("dial: %w", fs.ErrNotExist):         true,
		&pgconn.PgError{Code: "57P03"}:                 true,
		errors.Join(refused, refused):                  true,
		errors.Join(refused, context.DeadlineExceeded): false, // another address may be well
		context.DeadlineExceeded:                       false,
		io.EOF:                                         false,
		&pgconn.PgError{Code: "57P01"}:                 false, // an administrator ended one connection
		&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EHOSTUNREACH)}: false,
	} {
		if absent(err) != want {
			t.Errorf("%v: %v", err, !want)
		}
	}
}

// A process that died while it wrote leaves a part of a line, which must not swallow the view written after it.
func TestAViewWrittenAfterAHalfLineIsLogged(t *testing.T) {
	t.Parallel()
	w := newSchool(t)
	j := &journal{path: filepath.Join(t.TempDir(), "views")}
	w.must(os.WriteFile(j.path, []byte(`{"actor_kind":"repr`), 0o600))
	w.must(j.write([]access.View{{Who: access.ByRepresentative(1), Child: w.people["Маша"], What: "balance", At: time.Now()}}))
	if n, err := j.pour(t.Context(), w.pool); err != nil || n != 1 {
		t.Errorf("%d views reached the log: %v", n, err)
	}
}
