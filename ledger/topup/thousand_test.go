package topup_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"golang.org/x/sync/errgroup"

	"zvonok/ledger"
	"zvonok/ledger/money"
	"zvonok/ledger/pg"
	"zvonok/ledger/pg/pgtest"
	"zvonok/ledger/topup"
)

// servingAt names the database of a process that answers banks until it is killed.
const servingAt = "ZVONOK_TEST_BANK_DATABASE"

// serveBanks says on the standard output where it listens, and serves.
func serveBanks(url string) error {
	pool, err := pg.Open(context.Background(), pg.Config{URL: url, MaxConns: 8, AppName: "serving", Role: pg.AppRole})
	if err != nil {
		return err
	}
	jobs, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Schema: pg.RiverSchema})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	endpoints := topup.NewEndpoints(topup.Config{Pool: pool, Book: ledger.NewBook(jobs), Log: discard(), Now: time.Now})
	fmt.Println(listener.Addr())
	return http.Serve(listener, endpoints.Handler())
}

// bankServer is a process of ours that answers banks.
type bankServer struct {
	command *exec.Cmd
	address string
}

func (c *city) startServer() *bankServer {
	c.Helper()
	command := exec.CommandContext(c.Context(), os.Args[0])
	command.Env = append(os.Environ(), servingAt+"="+c.url)
	command.Stderr = os.Stderr
	out, err := command.StdoutPipe()
	c.must(err)
	c.must(command.Start())
	address, err := bufio.NewReader(out).ReadString('\n')
	c.must(err)
	return &bankServer{command, strings.TrimSpace(address)}
}

// kill9 ends the process at once and returns when it is gone.
func (s *bankServer) kill9() {
	_ = s.command.Process.Kill() // it cannot have ended before
	_ = s.command.Wait()         // killed
}

// pay asks as a bank does and returns the number of the booked payment; "" when
// there is no answer, or one that says to come again.
func (s *bankServer) pay(ctx context.Context, query string) string {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.address+query, nil)
	if err != nil {
		return ""
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		return ""
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || !strings.Contains(string(body), "<result>0</result>") {
		return ""
	}
	if found := booked.FindSubmatch(body); found != nil {
		return string(found[1])
	}
	return ""
}

var booked = regexp.MustCompile(`<prv_txn>([0-9]+)</prv_txn>`)

// T2, fault rows 1 to 3: of a thousand top-ups a quarter each is under way when
// the server is killed with -9, when PostgreSQL is, when both are, and when nothing
// happens. What was acknowledged is there once, under the number the bank was told;
// the repeat of all thousand ids makes exactly a thousand payments.
func TestAThousandTopUpsSurviveKillsOfServerDatabaseAndBoth(t *testing.T) {
	t.Parallel()
	const payments, workers, quarter = 1000, 8, 250
	cluster := pgtest.NewCluster(t)
	c := newCityAt(t, cluster.URL()).withBanks()
	before := c.wallet(example).Posted
	server := c.startServer()
	query := func(i int) string { return osmpPay("mkb", fmt.Sprint(5000+i), example, "10.00") }
	told := make([]string, payments)
	for phase, kill := range []func(){
		func() { server.kill9() },
		func() { cluster.Kill9(t) },
		func() {
			server.kill9()
			cluster.Kill9(t)
		},
		nil,
	} {
		var once sync.Once
		under, killed := make(chan struct{}), make(chan struct{})
		var mu sync.Mutex
		acknowledged := 0
		var group errgroup.Group
		running := server
		for w := range workers {
			group.Go(func() error {
				for i := phase*quarter + w; i < (phase+1)*quarter; i += workers {
					if i >= (phase+1)*quarter-workers {
						<-killed // the last of each come too late, however slow the kill
					}
					number := running.pay(t.Context(), query(i)) // once: what is lost is repeated below
					mu.Lock()
					if told[i] = number; number != "" {
						acknowledged++
					}
					if acknowledged == quarter/4 {
						once.Do(func() { close(under) })
					}
					mu.Unlock()
				}
				return nil
			})
		}
		<-under
		if kill != nil {
			kill()
		}
		close(killed)
		c.must(group.Wait())
		if kill == nil {
			if acknowledged != quarter {
				t.Errorf("undisturbed, %d of %d were acknowledged", acknowledged, quarter)
			}
			continue
		}
		if phase > 0 {
			cluster.Restart(t)
		}
		if phase != 1 {
			server = c.startServer()
		}
		// Both are back when a payment that was acknowledged is answered again.
		for i := range told {
			if told[i] == "" {
				continue
			}
			deadline, cancel := context.WithTimeout(t.Context(), time.Minute)
			for server.pay(deadline, query(i)) != told[i] {
				if deadline.Err() != nil {
					t.Fatalf("after kill %d the server did not come back", phase)
				}
			}
			cancel()
			break
		}
	}

	deadline, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for c.pool.Ping(deadline) != nil { // connections of the dead database go one by one
		if deadline.Err() != nil {
			t.Fatal("PostgreSQL did not come back")
		}
	}
	c.sound()
	stored := map[string]string{}
	rows, err := c.pool.Query(t.Context(), `SELECT txn_id, event_id::text FROM topup.payment`)
	c.must(err)
	for rows.Next() {
		var txn, number string
		c.must(rows.Scan(&txn, &number))
		stored[txn] = number
	}
	c.must(rows.Err())
	lost := 0
	for i, number := range told {
		if number == "" {
			lost++
		} else if got := stored[fmt.Sprint(5000+i)]; got != number {
			t.Errorf("payment %d was acknowledged as %s and is kept as %q", i, number, got)
		}
	}
	if lost < 3*workers {
		t.Errorf("only %d payments were not acknowledged", lost)
	}
	for i, number := range told {
		got := server.pay(t.Context(), query(i))
		if got == "" || number != "" && got != number {
			t.Errorf("payment %d, told as %q, is repeated as %q", i, number, got)
		}
	}
	if n := c.payments(); n != payments {
		t.Errorf("%d payments of %d", n, payments)
	}
	if got, want := c.wallet(example).Posted, before+payments*10*money.Rouble; got != want {
		t.Errorf("the wallet has %s, want %s", got, want)
	}
	server.kill9()
	c.sound()
}
