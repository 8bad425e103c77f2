package topup_test

import (
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"zvonok/ledger"
	"zvonok/ledger/money"
	"zvonok/ledger/pg"
	"zvonok/ledger/pg/pgtest"
	"zvonok/ledger/topup"
)

// The accounts of the tests' city. The examples of the specification have 00207316.
const (
	example  = "00207316" // Ivanov Pyotr, with 143.50
	second   = "12000014"
	gone     = "12000022" // has left
	closed   = "12000030" // closed for top-ups
	foreign  = "12000048" // of another payee
	nobody   = "12000055" // a right number of nobody
	wrong    = "00207315" // a wrong check digit
	moscow   = "Europe/Moscow"
	loopback = "127.0.0.0/8"
)

// city is a database with five pupils, some banks and our endpoints over HTTP.
type city struct {
	testing.TB
	pool      *pgxpool.Pool
	url       string
	book      *ledger.Book
	endpoints *topup.Endpoints
	server    *httptest.Server
	registry  *prometheus.Registry
	log       *logged
	clock     *clock
}

// clock is the time of a test.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) set(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = at
}

func (c *clock) add(d time.Duration) { c.set(c.now().Add(d)) }

// logged keeps what was logged.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// begin is the moment of the specification's examples.
func begin() time.Time {
	zone, err := time.LoadLocation(moscow)
	if err != nil {
		panic(err)
	}
	return time.Date(2026, 11, 22, 8, 30, 16, 0, zone)
}

func newCity(t testing.TB) *city {
	t.Helper()
	return newCityAt(t, pgtest.NewURL(t))
}

func newCityAt(t testing.TB, url string) *city {
	t.Helper()
	c := &city{TB: t, url: url, clock: &clock{at: begin()}, log: &logged{}, registry: prometheus.NewRegistry()}
	var err error
	c.pool, err = pg.Open(t.Context(), pg.Config{URL: url, MaxConns: 16, AppName: "test", Role: pg.AppRole})
	c.must(err)
	t.Cleanup(c.pool.Close)
	jobs, err := river.NewClient(riverpgxv5.New(c.pool), &river.Config{Schema: pg.RiverSchema})
	c.must(err)
	c.book = ledger.NewBook(jobs)
	c.book.Now = c.clock.now
	c.exec(`INSERT INTO ledger.payee (code, name, inn, payment_code)
	        VALUES ('kp', 'АО Пример', '7700000000', '916'), ('kp2', 'ООО Другое', '7700000001', '917')`)
	c.exec(`INSERT INTO ledger.organisation (code, kind, name, short_name, payee_code, time_zone)
	        VALUES ('s1', 'school', 'Школа 1', 'Ш1', 'kp', 'Europe/Moscow'), ('s2', 'school', 'Школа 2', 'Ш2', 'kp2', 'Europe/Moscow')`)
	c.exec(`INSERT INTO ledger.person (code, organisation_id, kind, family_name, given_name, patronymic, left_on)
	        SELECT p.code, o.id, 'pupil', p.family, p.given, p.patronymic, p.left_on::date
	          FROM (VALUES ('p-1', 's1', 'Иванов', 'Пётр', 'Сергеевич', NULL), ('p-2', 's1', 'Ли', 'Анна', '', NULL),
	                       ('p-3', 's1', 'Петрова', 'Мария', '', '2026-09-01'), ('p-4', 's1', 'Сидоров', 'Олег', '', NULL),
	                       ('p-5', 's2', 'Кузнецова', 'Вера', '', NULL)) AS p (code, org, family, given, patronymic, left_on)
	          JOIN ledger.organisation o ON o.code = p.org`)
	people, err := ledger.PeopleByCode(t.Context(), c.pool, []string{"p-1", "p-2", "p-3", "p-4", "p-5"})
	c.must(err)
	c.inTx(func(tx pgx.Tx) error {
		return ledger.OpenWallets(t.Context(), tx, []ledger.WalletOpening{
			{Person: people["p-1"], Number: example},
			{Person: people["p-2"], Number: second},
			{Person: people["p-3"], Number: gone},
			{Person: people["p-4"], Number: closed},
			{Person: people["p-5"], Number: foreign},
		})
	})
	c.setClosed(closed, true)
	c.correct(example, 14350)
	c.endpoints = topup.NewEndpoints(topup.Config{
		Pool: c.pool, Book: c.book, Log: slog.New(slog.NewTextHandler(c.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Metrics: topup.NewMetrics(c.registry), Now: c.clock.now,
	})
	c.server = httptest.NewServer(c.endpoints.Handler())
	t.Cleanup(func() {
		c.server.Close()
		c.endpoints.Close()
	})
	return c
}

// withBanks adds the banks of the specification's examples.
func (c *city) withBanks() *city {
	c.Helper()
	c.partner(topup.NewPartner{Name: "mkb", Dialect: topup.OSMP})
	c.partner(topup.NewPartner{Name: "sber", Dialect: topup.Sber})
	return c
}

// partner adds a bank that serves 916 and calls from this machine unless it
// says otherwise. The endpoints see it when they have not been asked for 2 s.
func (c *city) partner(n topup.NewPartner) topup.Partner {
	c.Helper()
	if n.PaymentCodes == nil {
		n.PaymentCodes = []string{"916"}
	}
	if n.Allow == nil {
		n.Allow = []netip.Prefix{netip.MustParsePrefix(loopback)}
	}
	p, err := topup.AddPartner(c.Context(), c.pool, n, c.clock.now())
	c.must(err)
	return p
}

func (c *city) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

func (c *city) exec(query string, args ...any) {
	c.Helper()
	_, err := c.pool.Exec(c.Context(), query, args...)
	c.must(err)
}

func (c *city) inTx(f func(pgx.Tx) error) {
	c.Helper()
	c.must(pgx.BeginFunc(c.Context(), c.pool, f))
}

func (c *city) wallet(number string) ledger.Balance {
	c.Helper()
	wallets, err := ledger.WalletsByNumber(c.Context(), c.pool, []string{number})
	c.must(err)
	return wallets[number]
}

func (c *city) setClosed(number string, state bool) {
	c.Helper()
	c.inTx(func(tx pgx.Tx) error {
		return ledger.SetClosed(c.Context(), tx, []ledger.AccountID{c.wallet(number).Account}, state, "accountant 5", "left")
	})
}

// correct gives or takes money by hand.
func (c *city) correct(number string, amount money.Amount) {
	c.Helper()
	accounts, err := ledger.SystemAccounts(c.Context(), c.pool, ledger.SystemAccount{Kind: ledger.WriteOff})
	c.must(err)
	events, err := ledger.NextEventIDs(c.Context(), c.pool, 1)
	c.must(err)
	e := ledger.Entry{
		Event: events[0], Kind: ledger.Correction, Debit: accounts[0], Credit: c.wallet(number).Account, Amount: amount,
		Source: "hand", ExternalID: fmt.Sprint(events[0]), OccurredAt: c.clock.now(),
	}
	if amount < 0 {
		e.Debit, e.Credit, e.Amount = e.Credit, e.Debit, -amount
	}
	c.inTx(func(tx pgx.Tx) error {
		verdicts, err := c.book.Post(c.Context(), tx, []ledger.Entry{e})
		if err == nil && verdicts[0].Code != ledger.CodePosted {
			err = fmt.Errorf("correction: %s", verdicts[0].Code)
		}
		return err
	})
}

// get asks as a bank does and returns the status and the body.
func (c *city) get(pathAndQuery string) (int, string) {
	c.Helper()
	request, err := http.NewRequestWithContext(c.Context(), http.MethodGet, c.server.URL+pathAndQuery, nil)
	c.must(err)
	return c.do(request)
}

func (c *city) do(request *http.Request) (int, string) {
	c.Helper()
	response, err := http.DefaultClient.Do(request)
	c.must(err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	c.must(err)
	return response.StatusCode, string(body)
}

// ask wants an answer of the protocol.
func (c *city) ask(pathAndQuery string) string {
	c.Helper()
	status, body := c.get(pathAndQuery)
	if status != http.StatusOK {
		c.Fatalf("GET %s: status %d", pathAndQuery, status)
	}
	return body
}

// reply is an answer of any of the protocols.
type reply struct {
	Txn    string `xml:"osmp_txn_id"`
	Prv    string `xml:"prv_txn"`
	Sum    string `xml:"sum"`
	Result *int   `xml:"result"`
	Code   *int   `xml:"CODE"`
	ExtID  string `xml:"EXT_ID"`
	Name   string `xml:"fields>field1"`
	FIO    string `xml:"FIO"`
}

func (r reply) code() int {
	if r.Result != nil {
		return *r.Result
	}
	if r.Code != nil {
		return *r.Code
	}
	return -1
}

func parse(t testing.TB, body string) (r reply) {
	t.Helper()
	if err := xml.Unmarshal([]byte(body), &r); err != nil {
		t.Fatalf("not XML: %v: %s", err, body)
	}
	return r
}

// code asks and returns the result.
func (c *city) code(pathAndQuery string) int {
	c.Helper()
	return parse(c, c.ask(pathAndQuery)).code()
}

// osmpPay is the query of an OSMP payment of now.
func osmpPay(partner, txn, account, sum string) string {
	return "/pay/osmp/" + partner + "?command=pay&txn_id=" + txn + "&txn_date=20261122083015&account=" + account + "&sum=" + url.QueryEscape(sum)
}

// sberPay is that of a Sberbank payment.
func sberPay(partner, txn, account, sum string) string {
	return "/pay/sber/" + partner + "?ACTION=payment&ACCOUNT=" + account + "&AMOUNT=" + url.QueryEscape(sum) +
		"&PAY_ID=" + txn + "&PAY_DATE=22.11.2026_08:30:15"
}

func (c *city) count(query string, args ...any) int {
	c.Helper()
	var n int
	c.must(c.pool.QueryRow(c.Context(), query, args...).Scan(&n))
	return n
}

// payments counts what was booked.
func (c *city) payments() int { c.Helper(); return c.count(`SELECT count(*) FROM topup.payment`) }

// sound wants the books and the registries to be right.
func (c *city) sound() {
	c.Helper()
	report, err := ledger.Verify(context.WithoutCancel(c.Context()), c.pool, topup.Checks()...)
	c.must(err)
	for _, v := range report.Violations {
		c.Errorf("verify: %s", v)
	}
}

// metric returns the value of a counter or a gauge by name and label values.
func (c *city) metric(name string, labels ...string) float64 {
	c.Helper()
	families, err := c.registry.Gather()
	c.must(err)
	total := 0.0
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
	next:
		for _, m := range family.GetMetric() {
			for _, want := range labels {
				found := false
				for _, pair := range m.GetLabel() {
					found = found || pair.GetValue() == want
				}
				if !found {
					continue next
				}
			}
			total += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return total
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
