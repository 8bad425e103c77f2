package topup_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"zvonok/ledger"
	"zvonok/ledger/pg"
	"zvonok/ledger/topup"
)

// dyingAt names the database of a process that answers banks and is killed as it
// begins to write the answer to a booked payment.
const dyingAt = "ZVONOK_TEST_DYING_BANK_DATABASE"

func TestMain(m *testing.M) {
	if url := os.Getenv(dyingAt); url != "" {
		if err := dieAnswering(url); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	if url := os.Getenv(servingAt); url != "" {
		if err := serveBanks(url); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// dieAnswering says on the standard output where it listens, and serves until it dies.
func dieAnswering(url string) error {
	ctx := context.Background()
	pool, err := pg.Open(ctx, pg.Config{URL: url, MaxConns: 2, AppName: "dying", Role: pg.AppRole})
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
	return http.Serve(dyingListener{listener}, endpoints.Handler())
}

type dyingListener struct{ net.Listener }

func (l dyingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return dyingConn{conn}, err
}

type dyingConn struct{ net.Conn }

// Write kills the process in place of writing that a payment is booked.
func (c dyingConn) Write(part []byte) (int, error) {
	if bytes.Contains(part, []byte("<prv_txn>")) || bytes.Contains(part, []byte("<EXT_ID>")) || bytes.Contains(part, []byte("<ext_id>")) {
		if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
			panic(err)
		}
		select {}
	}
	return c.Conn.Write(part)
}

// Fault row 45: the process is killed with -9 between the credit and the first
// byte of its answer. Whoever answers the repeat gives the first answer, and the
// money is credited once.
func TestAKillBetweenCreditAndAnswerLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	c := newCity(t).withBanks()
	for i, test := range []struct {
		name, check, pay string
		again            int
	}{
		{"OSMP", "/pay/osmp/mkb?command=check&txn_id=0&sum=0.00&account=" + example, osmpPay("mkb", "450", example, "100.00"), 0},
		{"Sberbank 1", "/pay/sber/sber?ACTION=check&ACCOUNT=" + example, sberPay("sber", "451", example, "100.00"), 8},
		{
			"Sberbank 2", "/pay/sber/sber?command=check&account=" + example,
			"/pay/sber/sber?command=pay&txn_id=452&txn_date=20261122083015&account=" + example + "&sum=100.00", 8,
		},
	} {
		command := exec.CommandContext(t.Context(), os.Args[0])
		command.Env = append(os.Environ(), dyingAt+"="+c.url)
		command.Stderr = os.Stderr
		out, err := command.StdoutPipe()
		c.must(err)
		c.must(command.Start())
		address, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatalf("%s: the process says nothing: %v", test.name, err)
		}
		ask := func(query string) (*http.Response, error) {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+strings.TrimSpace(address)+query, nil)
			c.must(err)
			return http.DefaultTransport.RoundTrip(request)
		}
		response, err := ask(test.check)
		c.must(err) // a check is answered
		response.Body.Close()
		if response, err := ask(test.pay); err == nil {
			response.Body.Close()
			t.Errorf("%s: the dying process answered %s", test.name, response.Status)
		}
		command.Wait() // how it ended is in its state
		if status, ok := command.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
			t.Fatalf("%s: the process ended with %s", test.name, command.ProcessState)
		}
		if n := c.payments(); n != i+1 {
			t.Fatalf("%s: %d payments are booked after the kill, want %d", test.name, n, i+1)
		}
		var first, again string
		var event int64
		c.must(c.pool.QueryRow(t.Context(), `
			SELECT convert_from(answer, 'UTF8'), convert_from(coalesce(repeat_answer, answer), 'UTF8'), event_id
			  FROM topup.payment ORDER BY event_id DESC LIMIT 1`).Scan(&first, &again, &event))
		if parse(t, first).code() != 0 || !strings.Contains(first, fmt.Sprint(event)) {
			t.Errorf("%s: the first answer would have been %s", test.name, first)
		}
		for range 3 {
			if got := c.ask(test.pay); got != again || parse(t, got).code() != test.again || !strings.Contains(got, fmt.Sprint(event)) {
				t.Errorf("%s: the repeat is answered %s, want %s", test.name, got, again)
			}
		}
		if n := c.payments(); n != i+1 {
			t.Errorf("%s: %d payments are booked after the repeats, want %d", test.name, n, i+1)
		}
	}
	if got := c.wallet(example).Posted; got != 143_50+300_00 {
		t.Errorf("the wallet has %s", got)
	}
	c.sound()
}
