package topup_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger"
	"zvonok/ledger/money"
	"zvonok/ledger/pg"
	"zvonok/ledger/topup"
)

// Issue 5, bad input: nothing of it is booked.
func TestABadRequestGetsItsNumberAndBooksNothing(t *testing.T) {
	t.Parallel()
	c := newCity(t).withBanks()
	osmp := func(query string) string { return "/pay/osmp/mkb?" + query }
	sber := func(query string) string { return "/pay/sber/sber?" + query }
	const date, sberDate = "txn_date=20261122083015", "PAY_DATE=22.11.2026_08:30:15"
	sum := func(text string) string {
		return osmp("command=pay&txn_id=1&account=00207316&" + date + "&sum=" + url.QueryEscape(text))
	}
	sberSum := func(text string) string {
		return sber("ACTION=payment&PAY_ID=1&ACCOUNT=00207316&" + sberDate + "&AMOUNT=" + url.QueryEscape(text))
	}
	for _, test := range []struct {
		name, query string
		want        int
	}{
		{"a sum with a comma", sum("500,00"), 300},
		{"a sum with three decimals", sum("500.000"), 300},
		{"a sum with one decimal", sum("500.5"), 300},
		{"a whole sum, which OSMP never sends", sum("500"), 300},
		{"a sum with an exponent", sum("5e2"), 300},
		{"a sum below zero", sum("-500.00"), 300},
		{"a sum with a plus", sum("+500.00"), 300},
		{"a sum with spaces", sum(" 500.00"), 300},
		{"a sum in other digits", sum("٥٠٠.٠٠"), 300},
		{"a sum of 10^20", sum("100000000000000000000.00"), 242},
		{"a sum of a hundred digits", sum(strings.Repeat("9", 100) + ".00"), 242},
		{"no money", sum("0.00"), 241},
		{"less than 10 roubles (R34)", sum("9.99"), 241},
		{"more than 15,000 roubles (R34)", sum("15000.01"), 242},
		{"no sum, as QIWI tests it", osmp("command=pay&txn_id=1&account=00207316&" + date), 300},
		{"a wrong check digit", osmp("command=pay&txn_id=1&sum=10.00&" + date + "&account=" + wrong), 4},
		{"an account of letters", osmp("command=check&txn_id=1&sum=10.00&account=abcdefgh"), 4},
		{"an account that is too long", osmp("command=check&txn_id=1&sum=10.00&account=" + strings.Repeat("0", 200)), 4},
		{"an account that is SQL", osmp("command=check&txn_id=1&sum=10.00&account=" + url.QueryEscape("' OR 1=1--")), 4},
		{"an account that does not exist", osmp("command=pay&txn_id=1&sum=10.00&" + date + "&account=" + nobody), 5},
		{"an id of letters", osmp("command=pay&txn_id=x1&sum=10.00&account=00207316&" + date), 300},
		{"an id of 21 digits", osmp("command=pay&txn_id=" + strings.Repeat("1", 21) + "&sum=10.00&account=00207316&" + date), 300},
		{"the id 0 in a payment", osmp("command=pay&txn_id=0&sum=10.00&account=00207316&" + date), 300},
		{"no id", osmp("command=pay&sum=10.00&account=00207316&" + date), 300},
		{"no date", osmp("command=pay&txn_id=1&sum=10.00&account=00207316"), 300},
		{"a date that does not exist", osmp("command=pay&txn_id=1&sum=10.00&account=00207316&txn_date=20260230083015"), 300},
		{"a date with a fraction", osmp("command=pay&txn_id=1&sum=10.00&account=00207316&txn_date=20261122083015.5"), 300},
		{"an unknown command", osmp("command=refund&txn_id=1"), 300},
		{"no command", osmp("txn_id=1"), 300},
		{"a doubled parameter", osmp("command=pay&txn_id=1&txn_id=2&sum=10.00&account=00207316&" + date), 300},
		{"a doubled parameter in another case", osmp("command=pay&txn_id=1&TXN_ID=2&sum=10.00&account=00207316&" + date), 300},
		{"a broken escape", osmp("command=pay&txn_id=%zz"), 300},
		{"XML in the id", osmp("command=check&account=00207316&sum=1.00&txn_id=" + url.QueryEscape("1</osmp_txn_id><result>0</result>")), 300},
		{"a line break in the id", osmp("command=check&account=00207316&sum=1.00&txn_id=1%0d%0aX-Header:+1"), 300},
		{"a zero byte in the account", osmp("command=check&txn_id=1&sum=1.00&account=00207316%00"), 4},
		{"a query of 100 kB", osmp("command=check&txn_id=1&x=" + strings.Repeat("x", 100_000)), 300},
		{"a foreign payee (R36)", osmp("command=check&txn_id=1&sum=10.00&account=" + foreign), 7},
		{"another payee than the account's", osmp("command=check&txn_id=1&sum=10.00&account=00207316&pay_type=917"), 7},
		{"a pupil who has left", osmp("command=check&txn_id=1&sum=10.00&account=" + gone), 79},
		{"a closed account", osmp("command=check&txn_id=1&sum=10.00&account=" + closed), 7},
		{"too little, asked beforehand", osmp("command=check&txn_id=1&sum=9.99&account=00207316"), 241},
		{"too much, asked beforehand", osmp("command=check&txn_id=1&sum=15000.01&account=00207316"), 242},
		{"a cancel that was not agreed", osmp("command=cancel&txn_id=1"), 7},
		{"the status of nothing", osmp("command=status&txn_id=1"), 243},
		{"the status of no id", osmp("command=status"), 300},

		{"Sberbank: a sum with a comma", sberSum("500,00"), 9},
		{"Sberbank: a sum with one decimal", sberSum("500.5"), 9},
		{"Sberbank: less than 10 roubles", sberSum("9"), 10},
		{"Sberbank: more than 15,000 roubles", sberSum("15001"), 11},
		{"Sberbank: a sum of 10^20", sberSum("100000000000000000000"), 11},
		{"Sberbank: an unknown action", sber("ACTION=refund"), 2},
		{"Sberbank: no action", sber("ACCOUNT=00207316"), 300},
		{"Sberbank: an account that does not exist", sber("ACTION=check&ACCOUNT=" + nobody), 3},
		{"Sberbank: a wrong check digit", sber("ACTION=check&ACCOUNT=" + wrong), 4},
		{"Sberbank: a pupil who has left", sber("ACTION=check&ACCOUNT=" + gone), 5},
		{"Sberbank: an id of letters", sber("ACTION=payment&PAY_ID=a&ACCOUNT=00207316&AMOUNT=10&" + sberDate), 6},
		{"Sberbank: the date of OSMP", sber("ACTION=payment&PAY_ID=1&ACCOUNT=00207316&AMOUNT=10&PAY_DATE=20261122083015"), 12},
		{"Sberbank: no date", sber("ACTION=payment&PAY_ID=1&ACCOUNT=00207316&AMOUNT=10"), 300},
	} {
		t.Run(test.name, func(t *testing.T) {
			body := c.ask(test.query)
			if got := parse(t, body).code(); got != test.want {
				t.Errorf("answered %d, want %d: %s", got, test.want, body)
			}
		})
	}
	if n := c.payments(); n != 0 {
		t.Errorf("%d payments were booked", n)
	}
	c.sound()
}

func TestWhatTerminalsReallySendIsTaken(t *testing.T) {
	t.Parallel()
	c := newCity(t).withBanks()
	for _, test := range []struct {
		name, query string
		want        int
	}{
		{"a check before the sum is known (R33, R37)", "/pay/osmp/mkb?command=check&txn_id=0&sum=0.00&account=00207316", 0},
		{"the payee's code (R36)", "/pay/osmp/mkb?command=check&txn_id=1&sum=10.00&account=00207316&pay_type=916", 0},
		{"extras", osmpPay("mkb", "2", example, "10.00") + "&trm_id=T-17&data1=<x>", 0},
		{"the largest sum", osmpPay("mkb", "3", example, "15000.00"), 0},
		{"an id of 20 digits", osmpPay("mkb", strings.Repeat("9", 20), example, "10.00"), 0},
		{"Sberbank in small letters", "/pay/sber/sber?action=payment&account=00207316&amount=10&pay_id=5&pay_date=22.11.2026_08:30:15", 0},
		{"the same in large ones", "/pay/sber/sber?ACTION=PAYMENT&ACCOUNT=00207316&AMOUNT=10.00&PAY_ID=5&PAY_DATE=22.11.2026_08:30:15", 8},
		{"a bank whose clock is a year off", "/pay/osmp/mkb?command=pay&txn_id=6&txn_date=20251122083015&account=00207316&sum=10.00", 0},
	} {
		if got := c.code(test.query); got != test.want {
			t.Errorf("%s: answered %d, want %d", test.name, got, test.want)
		}
	}
	form := url.Values{"command": {"pay"}, "txn_id": {"7"}, "txn_date": {"20261122083015"}, "account": {example}, "sum": {"25.00"}}
	response, err := http.PostForm(c.server.URL+"/pay/osmp/mkb", form)
	c.must(err)
	response.Body.Close()
	if got := c.wallet(example).Posted; got != 14350+1000+1500000+1000+1000+1000+2500 {
		t.Errorf("the balance is %s", got)
	}
	if n := c.count(`SELECT count(*) FROM ledger.posting WHERE source = 'bank/mkb' AND occurred_at < '2026-11-01'`); n != 0 {
		t.Error("a clock a year off was believed")
	}
	c.sound()
}

// Rules 2 and 3 of idempotency, fault row 43.
func TestARepeatGetsTheStoredAnswerDaysLater(t *testing.T) {
	t.Parallel()
	c := newCity(t).withBanks()
	osmp, sber := osmpPay("mkb", "100", example, "500.00"), sberPay("sber", "200", example, "300.00")
	first := c.ask(osmp)
	c.ask(sber)
	sberRepeat := c.ask(sber)
	for _, wait := range []time.Duration{time.Second, 26 * time.Hour, 40 * 24 * time.Hour} {
		c.clock.add(wait)
		c.setClosed(example, true) // what has become of the account meanwhile is no matter
		if again := c.ask(osmp); again != first {
			t.Errorf("OSMP after %s: %s, first %s", wait, again, first)
		}
		if again := c.ask(sber); again != sberRepeat || parse(t, again).code() != 8 {
			t.Errorf("Sberbank after %s: %s, before %s", wait, again, sberRepeat)
		}
	}
	for _, other := range []string{
		osmpPay("mkb", "100", example, "500.01"), osmpPay("mkb", "100", second, "500.00"), osmpPay("mkb", "100", nobody, "500.00"),
		osmpPay("mkb", "100", wrong, "500.00"), osmpPay("mkb", "100", example, "0.00"), osmpPay("mkb", "100", example, "9.00"),
		osmpPay("mkb", "100", example, "15000.01"), osmpPay("mkb", "100", example, "100000000000000000000.00"),
		osmpPay("mkb", "100", example, "500,00"),
	} {
		if got := c.code(other); got != 300 {
			t.Errorf("%s: answered %d", other, got)
		}
	}
	for _, other := range []string{
		sberPay("sber", "200", second, "300.00"), sberPay("sber", "200", wrong, "300.00"), sberPay("sber", "200", example, "300.5"),
	} {
		if got := c.code(other); got != 6 {
			t.Errorf("Sberbank, %s: answered %d", other, got)
		}
	}
	if got := c.metric("zvonok_topup_conflicts_total"); got != 12 {
		t.Errorf("%v conflicts were reported", got)
	}
	// The same id of another bank is another payment.
	if got := c.code(sberPay("sber", "100", second, "20.00")); got != 0 {
		t.Errorf("another bank's payment: %d", got)
	}
	if got := c.wallet(example).Posted; got != 14350+50000+30000 {
		t.Errorf("the balance is %s", got)
	}
	c.sound()
}

// T1, fault row 44.
func TestAHundredOfOnePaymentFromSixteenClientsAreOneCredit(t *testing.T) {
	t.Parallel()
	c := newCity(t).withBanks()
	bodies := make([]string, 100)
	var clients sync.WaitGroup
	for client := range 16 {
		clients.Go(func() {
			for i := client; i < len(bodies); i += 16 {
				_, bodies[i] = c.get(osmpPay("mkb", "77", example, "500.00"))
			}
		})
	}
	clients.Wait()
	for i, body := range bodies {
		if body != bodies[0] || parse(t, body).code() != 0 {
			t.Fatalf("answer %d is %s, the first %s", i, body, bodies[0])
		}
	}
	if got := c.code(osmpPay("mkb", "77", example, "500.10")); got != 300 {
		t.Errorf("an altered sum: %d", got)
	}
	if got := c.wallet(example).Posted; got != 14350+50000 {
		t.Errorf("the balance is %s", got)
	}
	c.sound()
}

// Fault row 44: at the same moment, on different connections and in two
// processes, with two more that say another sum under the same id.
func TestFiftyPaymentsOfOneIDAtOnceAreOneCredit(t *testing.T) {
	t.Parallel()
	c := newCity(t).withBanks()
	other := topup.NewEndpoints(topup.Config{Pool: c.pool, Book: c.book, Log: discard(), Now: c.clock.now})
	defer other.Close()
	server := httptest.NewServer(other.Handler())
	defer server.Close()

	start := make(chan struct{})
	var clients sync.WaitGroup
	bodies := make([]string, 50)
	for i := range bodies {
		query := sberPay("sber", "4242", example, "500.00")
		if i >= 48 {
			query = sberPay("sber", "4242", example, "499.00")
		}
		base := c.server.URL
		if i%2 == 1 {
			base = server.URL
		}
		clients.Go(func() {
			<-start
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+query, nil)
			if err != nil {
				t.Error(err)
				return
			}
			_, bodies[i] = c.do(request)
		})
	}
	close(start)
	clients.Wait()
	numbers, codes := map[string]int{}, map[int]int{}
	for _, body := range bodies {
		r := parse(t, body)
		codes[r.code()]++
		if r.code() == 0 || r.code() == 8 {
			numbers[r.ExtID]++
		}
	}
	if len(numbers) != 1 || codes[0] == 0 || codes[0]+codes[8]+codes[6] != 50 || codes[6] != 2 && codes[6] != 48 {
		t.Errorf("answers by code %v, by our number %v", codes, numbers)
	}
	if n := c.payments(); n != 1 {
		t.Errorf("%d payments were booked", n)
	}
	c.sound()
}

// Many different payments at once are gathered, and each is booked.
func TestPaymentsThatComeTogetherAreAllBooked(t *testing.T) {
	t.Parallel()
	c := newCity(t).withBanks()
	var clients sync.WaitGroup
	for client := range 20 {
		clients.Go(func() {
			for i := range 10 {
				account := []string{example, second, gone, closed, nobody}[i%5]
				_, body := c.get(osmpPay("mkb", fmt.Sprint(1000+client*10+i), account, "10.00"))
				if want := map[string]int{nobody: 5}[account]; parse(t, body).code() != want {
					t.Errorf("%s: %s", account, body)
				}
			}
		})
	}
	clients.Wait()
	if n := c.payments(); n != 160 {
		t.Errorf("%d payments were booked", n)
	}
	if got := c.wallet(second).Posted; got != 40*1000 {
		t.Errorf("the balance is %s", got)
	}
	c.sound()
}

// D13: after a good check a payment is never refused.
func TestMoneyForAnAccountThatIsNoLongerOpenGoesToTheSuspenseAccount(t *testing.T) {
	t.Parallel()
	c := newCity(t).withBanks()
	if got := c.code("/pay/osmp/mkb?command=check&txn_id=1&sum=100.00&account=" + example); got != 0 {
		t.Fatalf("check: %d", got)
	}
	c.setClosed(example, true)
	first := c.ask(osmpPay("mkb", "1", example, "100.00"))
	if parse(t, first).code() != 0 || c.ask(osmpPay("mkb", "1", example, "100.00")) != first {
		t.Errorf("the payment was answered %s", first)
	}
	for i, account := range []string{gone, closed, foreign} {
		if got := c.code(osmpPay("mkb", fmt.Sprint(10+i), account, "100.00")); got != 0 {
			t.Errorf("%s: %d", account, got)
		}
	}
	if n := c.count(`SELECT count(*) FROM ledger.posting WHERE kind = 'unclear' AND amount = 10000`); n != 4 {
		t.Errorf("%d postings to the suspense account", n)
	}
	if got := c.wallet(example).Posted; got != 14350 {
		t.Errorf("the closed wallet has %s", got)
	}
	if got := c.metric("zvonok_topup_suspense_total"); got != 4 {
		t.Errorf("%v went to the suspense account by the metrics", got)
	}

	// A person finds out whose it is.
	release := func(txn, account string) error {
		return pgx.BeginFunc(t.Context(), c.pool, func(tx pgx.Tx) error {
			return topup.ReleasePayment(t.Context(), tx, c.book, topup.Release{Partner: "mkb", Txn: txn, Account: account, By: "staff-1"}, c.clock.now())
		})
	}
	c.must(release("1", second))
	if err := release("10", ""); err == nil {
		t.Error("it was released to no account")
	}
	if err := release("1", second); err == nil {
		t.Error("it was released twice")
	}
	if err := release("11", nobody); err == nil {
		t.Error("it was released to nobody")
	}
	if got := c.wallet(second).Posted; got != 10000 {
		t.Errorf("the right wallet has %s", got)
	}
	c.sound()
}

// A wallet closed between our reading and the posting: the book's word counts.
func TestAWalletClosedUnderAPaymentSendsItToTheSuspenseAccount(t *testing.T) {
	t.Parallel()
	c := newCity(t).withBanks()
	wallet := c.wallet(example).Account
	locked, err := c.pool.Begin(t.Context())
	c.must(err)
	defer locked.Rollback(t.Context()) // after a commit it does nothing
	c.must(c.book.LockWallets(t.Context(), locked, []ledger.AccountID{wallet}))
	answered := make(chan string, 1)
	go func() {
		_, body := c.get(osmpPay("mkb", "1", example, "100.00"))
		answered <- body
	}()
	// The payment waits for the wallet now, which it has read as open.
	for deadline := time.Now().Add(20 * time.Second); c.count(`SELECT count(*) FROM pg_locks WHERE NOT granted`) == 0; {
		if time.Now().After(deadline) {
			t.Fatal("the payment never came to the wallet")
		}
	}
	c.must(ledger.SetClosed(t.Context(), locked, []ledger.AccountID{wallet}, true, "accountant 5", "left"))
	c.must(locked.Commit(t.Context()))
	if body := <-answered; parse(t, body).code() != 0 {
		t.Errorf("answered %s", body)
	}
	if n := c.count(`SELECT count(*) FROM topup.payment WHERE state = 'suspense' AND reason = 'closed' AND wallet_id IS NULL`); n != 1 {
		t.Error("the payment is not in the suspense account")
	}
	c.sound()
}

// Facts of a top-up are announced in its transaction (issue 5, item 7; R41, R42).
func TestATopUpIsAnnouncedWithItsCrossing(t *testing.T) {
	t.Parallel()
	c := newCity(t).withBanks()
	c.inTx(func(tx pgx.Tx) error {
		return c.book.SetThreshold(t.Context(), tx, c.wallet(example).Person, 7, 50000, true)
	})
	c.exec(`DELETE FROM river.river_job`)
	for range 3 {
		c.ask(osmpPay("mkb", "1", example, "500.00"))
	}
	for kind, want := range map[string]int{"ledger_posted": 1, "ledger_crossed": 1} {
		if n := c.count(`SELECT count(*) FROM river.river_job WHERE kind = $1`, kind); n != want {
			t.Errorf("%d jobs %s", n, kind)
		}
	}
	var prv, event int
	c.must(c.pool.QueryRow(t.Context(), `
		SELECT y.event_id, (j.args -> 'event_ids' ->> 0)::bigint FROM topup.payment y, river.river_job j WHERE j.kind = 'ledger_posted'`).
		Scan(&prv, &event))
	if prv != event {
		t.Errorf("the payment is event %d, announced is %d", prv, event)
	}
}

func TestWhoMayNotAskIsTold403AndNothingElse(t *testing.T) {
	t.Parallel()
	c := newCity(t).withBanks()
	c.partner(topup.NewPartner{Name: "far", Dialect: topup.OSMP, Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	c.partner(topup.NewPartner{Name: "basic", Dialect: topup.OSMP, Login: "kiosk", Password: "correct horse"})
	c.partner(topup.NewPartner{Name: "signed", Dialect: topup.Sber, Secret: "a long secret"})
	c.partner(topup.NewPartner{Name: "ended", Dialect: topup.OSMP})
	_, err := topup.DisablePartner(t.Context(), c.pool, "ended", true, "olga", c.clock.now())
	c.must(err)
	const check = "?command=check&txn_id=1&account=00207316&sum=10.00"
	const hash = "&hash=" // of the other parameters in the order of their names
	for _, test := range []struct {
		name, path, user, password, forwarded string
		want                                  int
		reason                                string
	}{
		{"an unknown bank", "/pay/osmp/nobody" + check, "", "", "", 403, "partner"},
		{"no bank", "/pay/osmp/" + check, "", "", "", 403, "partner"},
		{"a bank in the other dialect", "/pay/sber/mkb" + check, "", "", "", 403, "partner"},
		{"a disabled bank", "/pay/osmp/ended" + check, "", "", "", 403, "partner"},
		{"a bank from elsewhere", "/pay/osmp/far" + check, "", "", "", 403, "address"},
		{"a bank that says it is from there", "/pay/osmp/far" + check, "", "", "192.0.2.1", 403, "address"},
		{"no password", "/pay/osmp/basic" + check, "", "", "", 403, "credentials"},
		{"a wrong password", "/pay/osmp/basic" + check, "kiosk", "wrong horse", "", 403, "credentials"},
		{"a wrong user", "/pay/osmp/basic" + check, "other", "correct horse", "", 403, "credentials"},
		{"the right password", "/pay/osmp/basic" + check, "kiosk", "correct horse", "", 200, ""},
		{"the right password again", "/pay/osmp/basic" + check, "kiosk", "correct horse", "", 200, ""},
		{"a wrong password after the right one", "/pay/osmp/basic" + check, "kiosk", "wrong horse", "", 403, "credentials"},
		{"no hash", "/pay/sber/signed" + check, "", "", "", 403, "hash"},
		{"a wrong hash", "/pay/sber/signed" + check + hash + strings.Repeat("0", 32), "", "", "", 403, "hash"},
		{"a doubled parameter under a hash", "/pay/sber/signed" + check + "&sum=1.00", "", "", "", 403, "hash"},
		{"the right hash", "/pay/sber/signed" + check + hash + topup.Signature(check[1:], "a long secret"), "", "", "", 200, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := c.metric("zvonok_topup_forbidden_total", test.reason)
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.server.URL+test.path, nil)
			c.must(err)
			if test.user != "" {
				request.SetBasicAuth(test.user, test.password)
			}
			if test.forwarded != "" {
				request.Header.Set("X-Forwarded-For", test.forwarded)
			}
			status, body := c.do(request)
			if status != test.want {
				t.Fatalf("status %d: %s", status, body)
			}
			if status == 403 {
				if body != "" {
					t.Errorf("it said %q", body)
				}
				if c.metric("zvonok_topup_forbidden_total", test.reason) != before+1 {
					t.Errorf("it was not counted as %s", test.reason)
				}
			}
		})
	}
	if text := c.log.String(); !strings.Contains(text, "bank request refused") || strings.Contains(text, "horse") ||
		strings.Contains(text, "secret") || strings.Contains(text, "Иванов") || strings.Contains(text, example) {
		t.Error("the log misses a refusal or says more than ids")
	}
}

// Whoever asks for banks that there are not, from wherever, costs the database one
// reading at a time, and no bank waits behind it.
func TestNamesOfNobodyAreLookedUpOnceAtATime(t *testing.T) {
	t.Parallel()
	c := newCity(t).withBanks()
	check := "/pay/osmp/mkb?command=check&txn_id=1&sum=10.00&account=" + example
	c.ask(check)
	owner, err := pg.Open(t.Context(), pg.Config{URL: c.url, MaxConns: 1, AppName: "locker"})
	c.must(err)
	defer owner.Close()
	locked, err := owner.Begin(t.Context())
	c.must(err)
	defer locked.Rollback(t.Context()) // after the one below it does nothing
	_, err = locked.Exec(t.Context(), `LOCK TABLE topup.partner`)
	c.must(err)
	c.clock.add(time.Minute)
	waiting := func() (n int) {
		t.Helper()
		c.must(locked.QueryRow(t.Context(), `SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'topup.partner'::regclass`).Scan(&n))
		return n
	}
	var clients sync.WaitGroup
	for i := range 15 { // one less than there are connections
		clients.Go(func() {
			status, _ := c.get(fmt.Sprintf("/pay/osmp/nobody%d%s", i, check[len("/pay/osmp/mkb"):]))
			if status != http.StatusForbidden && status != http.StatusServiceUnavailable { // that, when it takes 5 s
				t.Errorf("a bank that there is not: status %d", status)
			}
		})
	}
	for deadline := time.Now().Add(time.Minute); waiting() == 0; {
		if time.Now().After(deadline) {
			t.Fatal("nobody has asked for the partners")
		}
	}
	most := 0
	// Not longer than a reading may take: what it leaves behind would be counted.
	for i, began := 0, time.Now(); i < 300 && time.Since(began) < 2*time.Second; i++ {
		most = max(most, waiting())
	}
	if most != 1 {
		t.Errorf("the partners were read %d times at once", most)
	}
	if got := c.code(check); got != 0 {
		t.Errorf("a bank is told %d meanwhile", got)
	}
	c.must(locked.Rollback(t.Context()))
	clients.Wait()
}

func TestOnlyAProxyOfOursSaysWhereARequestComesFrom(t *testing.T) {
	t.Parallel()
	c := newCity(t)
	c.partner(topup.NewPartner{Name: "far", Dialect: topup.OSMP, Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	e := topup.NewEndpoints(topup.Config{
		Pool: c.pool, Book: c.book, Log: discard(), Now: c.clock.now,
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	})
	defer e.Close()
	for forwarded, want := range map[string]int{
		"192.0.2.1": 200, "203.0.113.9, 192.0.2.1": 200, "192.0.2.1, 203.0.113.9": 403, "x": 403, "": 403,
	} {
		request := httptest.NewRequest(http.MethodGet, "/pay/osmp/far?command=check&txn_id=1&account=00207316&sum=10.00", nil)
		request.RemoteAddr = "127.0.0.1:1234"
		if forwarded != "" {
			request.Header.Set("X-Forwarded-For", forwarded)
		}
		recorder := httptest.NewRecorder()
		e.Handler().ServeHTTP(recorder, request)
		if recorder.Code != want {
			t.Errorf("forwarded for %q: status %d", forwarded, recorder.Code)
		}
	}
}

// Fault row 54.
func TestAWalkThroughAccountNumbersIsStoppedAndReported(t *testing.T) {
	t.Parallel()
	c := newCity(t).withBanks()
	check := func(partner, account string) int {
		return c.code("/pay/osmp/" + partner + "?command=check&txn_id=0&sum=0.00&account=" + account)
	}
	names, stopped := 0, 0
	for serial := range int64(300) {
		number, err := ledger.NewAccountNumber("12", serial+1)
		c.must(err)
		switch check("mkb", number) {
		case 0:
			names++
		case 8:
			stopped++
		}
	}
	if names > 1 || stopped < 200 {
		t.Errorf("%d names were told, %d checks stopped", names, stopped)
	}
	if got := c.metric("zvonok_topup_enumeration_alarms_total"); got != 1 {
		t.Errorf("%v alarms", got)
	}
	if got := check("mkb", example); got != 0 {
		t.Errorf("another range is stopped as well: %d", got)
	}
	if got := c.code("/pay/sber/sber?ACTION=check&ACCOUNT=" + second); got != 0 {
		t.Errorf("another bank is stopped as well: %d", got)
	}
	if got := c.code(osmpPay("mkb", "1", second, "10.00")); got != 0 {
		t.Errorf("a payment is stopped as well: %d", got)
	}
	// Nor does a payment that cannot be tell more than a check that was stopped.
	for _, account := range []string{second, nobody} {
		if got := c.code(osmpPay("mkb", "2", account, "0.01")); got != 241 {
			t.Errorf("a kopeck for %s: %d", account, got)
		}
	}
	c.clock.add(6 * time.Minute)
	if got := check("mkb", second); got != 0 {
		t.Errorf("after the pause: %d", got)
	}
}

// Fault row 54: how long a check takes does not tell whether the account exists.
func TestACheckTakesAsLongForAnAccountThatIsNotThere(t *testing.T) {
	t.Parallel()
	c := newCity(t)
	many := topup.CheckLimits{Checks: 1 << 20, Wrong: 1 << 20, RangeWrong: 1 << 20, RangeNumbers: 1 << 20}
	c.partner(topup.NewPartner{Name: "mkb", Dialect: topup.OSMP, Limits: many})
	ask := func(account string, want int) time.Duration {
		began := time.Now()
		if got := c.code("/pay/osmp/mkb?command=check&txn_id=0&sum=0.00&account=" + account); got != want {
			t.Fatalf("the check of %s is %d", account, got)
		}
		return time.Since(began)
	}
	ask(example, 0)
	// In pairs, so that the load of the machine is the same on both sides.
	var differences []time.Duration
	for i := range 100 {
		if i%2 == 0 {
			differences = append(differences, ask(example, 0)-ask(nobody, 5))
		} else {
			differences = append(differences, -(ask(nobody, 5) - ask(example, 0)))
		}
	}
	slices.Sort(differences)
	if median := differences[len(differences)/2]; median.Abs() > 5*time.Millisecond {
		t.Errorf("a known account takes %s longer", median)
	}
}

// D5, R33, R37.
func TestANameIsShownAsTheContractSays(t *testing.T) {
	t.Parallel()
	c := newCity(t)
	for _, show := range []topup.Show{topup.Masked, topup.Short, topup.Full} {
		c.partner(topup.NewPartner{Name: "o-" + string(show), Dialect: topup.OSMP, Show: show})
		c.partner(topup.NewPartner{Name: "s-" + string(show), Dialect: topup.Sber, Show: show})
	}
	for _, test := range []struct{ partner, account, want string }{
		{"masked", example, "Ив*** П."},
		{"short", example, "Иванов Пётр"},
		{"full", example, "Иванов Пётр Сергеевич"},
		{"masked", second, "Л*** А."},
		{"full", second, "Ли Анна"},
	} {
		if got := parse(t, c.ask("/pay/osmp/o-"+test.partner+"?command=check&txn_id=0&sum=0.00&account="+test.account)).Name; got != test.want {
			t.Errorf("OSMP %s: %q, want %q", test.partner, got, test.want)
		}
	}
	for partner, want := range map[string]string{"masked": "Ив*** Пётр", "short": "Иванов Пётр", "full": "Иванов Пётр Сергеевич"} {
		if got := parse(t, c.ask("/pay/sber/s-"+partner+"?ACTION=check&ACCOUNT="+example)).FIO; got != want {
			t.Errorf("Sberbank %s: %q, want %q", partner, got, want)
		}
	}
}

func TestAPartnersOwnNumbersAndLimitsHold(t *testing.T) {
	t.Parallel()
	c := newCity(t)
	c.partner(topup.NewPartner{
		Name: "kaspi", Dialect: topup.OSMP, Min: 100 * money.Rouble, Max: 200 * money.Rouble,
		Codes: map[topup.Outcome]int{topup.NotFound: 2, topup.TooSmall: 3, topup.TooLarge: 3},
	})
	for query, want := range map[string]int{
		"/pay/osmp/kaspi?command=check&txn_id=0&sum=0.00&account=" + nobody: 2,
		osmpPay("kaspi", "1", example, "99.99"):                             3,
		osmpPay("kaspi", "2", example, "200.01"):                            3,
		osmpPay("kaspi", "3", example, "200.00"):                            0,
	} {
		if got := c.code(query); got != want {
			t.Errorf("%s: %d, want %d", query, got, want)
		}
	}
}

func TestAPaymentIsTakenBackOnlyWhileTheMoneyIsThere(t *testing.T) {
	t.Parallel()
	c := newCity(t)
	c.partner(topup.NewPartner{Name: "pegas", Dialect: topup.OSMP, MayCancel: true})
	paid := parse(t, c.ask(osmpPay("pegas", "1", second, "100.00")))
	c.ask(osmpPay("pegas", "2", second, "50.00"))
	c.correct(second, -6000)
	cancel := func(query string) int { return c.code("/pay/osmp/pegas?command=cancel&" + query) }
	if got := cancel("prv_txn=" + paid.Prv); got != 251 {
		t.Errorf("a cancel of spent money: %d", got)
	}
	if got := cancel("txn_id=9&cancel_txn_id=2"); got != 0 {
		t.Errorf("a cancel of money that is there: %d", got)
	}
	if got := cancel("txn_id=2"); got != 0 {
		t.Errorf("the same again: %d", got)
	}
	if got := cancel("txn_id=1"); got != 251 {
		t.Errorf("a refused cancel again: %d", got)
	}
	if got := cancel("txn_id=3"); got != 243 {
		t.Errorf("a cancel of nothing: %d", got)
	}
	if got := c.code("/pay/osmp/pegas?command=status&txn_id=2"); got != 300 {
		t.Errorf("the status of a cancelled payment: %d", got)
	}
	if got := c.code("/pay/osmp/pegas?command=status&prv_txn=" + paid.Prv); got != 0 {
		t.Errorf("the status by our number: %d", got)
	}
	if got := c.wallet(second).Posted; got != 4000 {
		t.Errorf("the balance is %s", got)
	}
	c.sound()
}

// Fault row 9: a lock held by someone is temporary, never a final number.
func TestALockHeldByOthersIsAnsweredRepeatLater(t *testing.T) {
	t.Parallel()
	c := newCity(t).withBanks()
	c.ask("/pay/osmp/mkb?command=check&txn_id=0&sum=0.00&account=" + example) // the partner is known now
	owner, err := pg.Open(t.Context(), pg.Config{URL: c.url, MaxConns: 1, AppName: "locker"})
	c.must(err)
	defer owner.Close()
	locked, err := owner.Begin(t.Context())
	c.must(err)
	defer locked.Rollback(t.Context()) // after the second one it does nothing
	_, err = locked.Exec(t.Context(), `LOCK TABLE topup.payment`)
	c.must(err)
	// A process whose locks give up sooner, so that the test does.
	hasty, err := pg.Open(t.Context(), pg.Config{URL: c.url + "&lock_timeout=200", MaxConns: 2, AppName: "hasty", Role: pg.AppRole})
	c.must(err)
	defer hasty.Close()
	e := topup.NewEndpoints(topup.Config{Pool: hasty, Book: c.book, Log: discard(), Now: c.clock.now})
	defer e.Close()
	ask := func(query string) int {
		recorder := httptest.NewRecorder()
		request := httptest.NewRequest(http.MethodGet, query, nil)
		request.RemoteAddr = "127.0.0.1:1234"
		e.Handler().ServeHTTP(recorder, request)
		return parse(t, recorder.Body.String()).code()
	}
	if got := ask(osmpPay("mkb", "1", example, "10.00")); got != 1 {
		t.Errorf("OSMP: %d", got)
	}
	if got := ask(sberPay("sber", "1", example, "10.00")); got != 1 {
		t.Errorf("Sberbank: %d", got)
	}
	c.must(locked.Rollback(t.Context()))
	if got := ask(osmpPay("mkb", "1", example, "10.00")); got != 0 {
		t.Errorf("the repeat: %d", got)
	}
	c.sound()
}

func TestAPartnerThatCannotBeIsRefused(t *testing.T) {
	t.Parallel()
	c := newCity(t).withBanks()
	good := topup.NewPartner{
		Name: "new", Dialect: topup.OSMP, PaymentCodes: []string{"916"}, Allow: []netip.Prefix{netip.MustParsePrefix(loopback)},
	}
	for name, spoil := range map[string]func(*topup.NewPartner){
		"a name of capitals":          func(n *topup.NewPartner) { n.Name = "MKB" },
		"a name that is taken":        func(n *topup.NewPartner) { n.Name = "mkb" },
		"a name that climbs":          func(n *topup.NewPartner) { n.Name = "../x" },
		"no dialect":                  func(n *topup.NewPartner) { n.Dialect = "" },
		"an unknown payee":            func(n *topup.NewPartner) { n.PaymentCodes = []string{"999"} },
		"no payee":                    func(n *topup.NewPartner) { n.PaymentCodes = nil },
		"no network":                  func(n *topup.NewPartner) { n.Allow = nil },
		"a user without a password":   func(n *topup.NewPartner) { n.Login = "x" },
		"a short password":            func(n *topup.NewPartner) { n.Login, n.Password = "x", "short" },
		"a maximum above the law's":   func(n *topup.NewPartner) { n.Max = 20_000 * money.Rouble },
		"a number for no outcome":     func(n *topup.NewPartner) { n.Codes = map[topup.Outcome]int{"x": 1} },
		"a time zone that is not one": func(n *topup.NewPartner) { n.TimeZone = "Moon/Base" },
		"an unknown way to show":      func(n *topup.NewPartner) { n.Show = "all" },
		"a layout without columns":    func(n *topup.NewPartner) { n.Layout = &topup.Layout{Time: "2006"} },
	} {
		n := good
		spoil(&n)
		if _, err := topup.AddPartner(t.Context(), c.pool, n, c.clock.now()); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if _, err := topup.AddPartner(t.Context(), c.pool, good, c.clock.now()); err != nil {
		t.Errorf("the good one was refused: %v", err)
	}
	list, err := topup.ListPartners(t.Context(), c.pool)
	c.must(err)
	if len(list) != 3 || list[1].Name != "new" || list[1].Show != topup.Masked || list[1].Max != topup.DefaultMax {
		t.Errorf("partners: %+v", list)
	}
}

// A change is all of it or nothing, and what may not be added may not be changed to.
func TestAChangeOfAPartnerIsAllOrNothing(t *testing.T) {
	t.Parallel()
	c := newCity(t)
	c.partner(topup.NewPartner{Name: "mkb", Dialect: topup.OSMP, Login: "kiosk", Password: "correct horse"})
	c.partner(topup.NewPartner{Name: "open", Dialect: topup.OSMP})
	state := func() (s string) {
		t.Helper()
		c.must(c.pool.QueryRow(t.Context(), `
			SELECT string_agg(p::text, ' ' ORDER BY p.id) || (SELECT count(*) FROM topup.partner_log) FROM topup.partner p`).Scan(&s))
		return s
	}
	before, good := state(), 100*money.Rouble
	text := func(s string) *string { return &s }
	for name, test := range map[string]struct {
		partner string
		change  topup.PartnerChange
	}{
		"a bank that there is not":    {"mbk", topup.PartnerChange{}},
		"an unknown payee":            {"mkb", topup.PartnerChange{PaymentCodes: []string{"999"}}},
		"no payee":                    {"mkb", topup.PartnerChange{PaymentCodes: []string{}}},
		"no network":                  {"mkb", topup.PartnerChange{Allow: []netip.Prefix{}}},
		"an untidy network":           {"mkb", topup.PartnerChange{Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")}}},
		"a short password":            {"mkb", topup.PartnerChange{Password: text("short")}},
		"a user without a password":   {"open", topup.PartnerChange{Login: text("kiosk")}},
		"a password without a user":   {"open", topup.PartnerChange{Password: text("correct horse")}},
		"a short secret":              {"mkb", topup.PartnerChange{Secret: text("short")}},
		"an unknown way to show":      {"mkb", topup.PartnerChange{Show: (*topup.Show)(text("all"))}},
		"a least above the greatest":  {"mkb", topup.PartnerChange{Min: new(200 * money.Rouble)}},
		"a number for no outcome":     {"mkb", topup.PartnerChange{Codes: map[topup.Outcome]int{"x": 1}}},
		"a layout without columns":    {"mkb", topup.PartnerChange{Layout: &topup.Layout{Time: "2006"}}},
		"a time zone that is not one": {"mkb", topup.PartnerChange{TimeZone: text("Moon/Base")}},
	} {
		test.change.Max = &good
		_, _, err := topup.ChangePartner(t.Context(), c.pool, test.partner, test.change, "olga", c.clock.now())
		if !errors.Is(err, topup.ErrPartner) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := topup.ChangePartner(t.Context(), c.pool, "mkb", topup.PartnerChange{Max: &good}, "", c.clock.now()); err == nil {
		t.Error("a change by nobody was taken")
	}
	if after := state(); after != before {
		t.Errorf("something was changed:\n%s\n%s", before, after)
	}
	p, changed, err := topup.ChangePartner(t.Context(), c.pool, "mkb", topup.PartnerChange{Max: &good, Min: new(10 * money.Rouble)}, "olga", c.clock.now())
	if err != nil || !slices.Equal(changed, []string{"max"}) || p.Max != good || p.Login != "kiosk" {
		t.Errorf("changed %v of %+v: %v", changed, p, err)
	}
}
