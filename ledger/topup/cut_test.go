package topup_test

import (
	"bytes"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"zvonok/ledger/pg"
	"zvonok/ledger/topup"
)

// cutter stands between us and PostgreSQL. Once armed it lets the next COMMIT
// through and cuts the connection in place of its answer.
type cutter struct {
	url   string
	armed atomic.Bool
	cuts  atomic.Int64
}

func newCutter(t *testing.T, databaseURL string) *cutter {
	t.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	const socket = ".s.PGSQL.5432"
	server := filepath.Join(u.Query().Get("host"), socket)
	dir, err := os.MkdirTemp("", "cut") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", filepath.Join(dir, socket))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		listener.Close()
		os.RemoveAll(dir)
	})
	query := u.Query()
	query.Set("host", dir)
	u.RawQuery = query.Encode()
	k := &cutter{url: u.String()}
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			behind, err := net.Dial("unix", server)
			if err != nil {
				client.Close()
				continue
			}
			var committing atomic.Bool
			go k.pump(behind, client, func(part []byte) {
				if k.armed.Load() && bytes.Contains(part, []byte("commit")) {
					committing.Store(true)
				}
			}, func() bool { return false })
			go k.pump(client, behind, func([]byte) {}, func() bool {
				return committing.Load() && k.armed.CompareAndSwap(true, false)
			})
		}
	}()
	return k
}

// pump copies until one side ends, or cut says so when something has come.
func (k *cutter) pump(to, from net.Conn, see func([]byte), cut func() bool) {
	defer to.Close()
	defer from.Close()
	part := make([]byte, 64<<10)
	for {
		n, err := from.Read(part)
		if err != nil {
			return
		}
		see(part[:n])
		if cut() {
			k.cuts.Add(1)
			return
		}
		if _, err := to.Write(part[:n]); err != nil {
			return
		}
	}
}

// T3, fault row 45: the commit took place and we never heard of it.
func TestACommitOfUnknownFateIsTemporaryAndTheRepeatFindsIt(t *testing.T) {
	t.Parallel()
	c := newCity(t).withBanks()
	cut := newCutter(t, c.url)
	pool, err := pg.Open(t.Context(), pg.Config{URL: cut.url, MaxConns: 2, AppName: "cut", Role: pg.AppRole})
	c.must(err)
	defer pool.Close()
	e := topup.NewEndpoints(topup.Config{Pool: pool, Book: c.book, Log: discard(), Now: c.clock.now})
	defer e.Close()
	ask := func(query string) reply {
		recorder := httptest.NewRecorder()
		request := httptest.NewRequest(http.MethodGet, query, nil)
		request.RemoteAddr = "127.0.0.1:1234"
		e.Handler().ServeHTTP(recorder, request)
		return parse(t, recorder.Body.String())
	}
	ask("/pay/osmp/mkb?command=check&txn_id=0&sum=0.00&account=" + example)
	for _, test := range []struct {
		query string
		again int
	}{{osmpPay("mkb", "1", example, "100.00"), 0}, {sberPay("sber", "1", example, "100.00"), 8}} {
		cut.armed.Store(true)
		if got := ask(test.query); got.code() != 1 {
			t.Errorf("%s: answered %d", test.query, got.code())
		}
		if got := ask(test.query); got.code() != test.again {
			t.Errorf("%s: the repeat is answered %d", test.query, got.code())
		}
	}
	if cut.cuts.Load() != 2 || c.payments() != 2 {
		t.Errorf("%d connections were cut, %d payments are booked", cut.cuts.Load(), c.payments())
	}
	c.sound()
}
