package topup_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/text/encoding/charmap"

	"zvonok/ledger/money"
	"zvonok/ledger/topup"
)

// sheet writes a registry in our own format.
type sheet struct {
	text  strings.Builder
	count int
	sum   money.Amount
}

func newSheet(partner, day string, number int) *sheet {
	s := &sheet{}
	fmt.Fprintf(&s.text, "H;%s;7700000000;%s;%d\n", partner, day, number)
	return s
}

func (s *sheet) line(txn, at, account string, amount money.Amount) {
	fmt.Fprintf(&s.text, "P;%s;%s;%s;%s;0.00;T-1\n", txn, at, account, amount)
	s.count++
	s.sum += amount
}

func (s *sheet) String() string { return s.text.String() + fmt.Sprintf("T;%d;%s\n", s.count, s.sum) }

func (c *city) reconcile(partner, name, text string) (topup.Report, error) {
	c.Helper()
	return topup.Reconcile(c.Context(), c.pool, c.book, partner, topup.File{Name: name, Data: strings.NewReader(text)}, c.clock.now())
}

const (
	yesterday   = "2026-11-22"
	yesterdayAt = "2026-11-22T08:30:15+03:00"
)

// T10, fault row 47: a generator that knows the truth.
func TestARegistrysDifferencesAreAllFound(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			c := newCity(t).withBanks()
			random := rand.New(rand.NewPCG(seed, 10))
			today := newSheet("mkb", yesterday, 1)
			truth := map[topup.State]int{}
			late, suspended := money.Amount(0), 0
			pay := func(txn, account string, sum money.Amount) {
				if got := c.code(osmpPay("mkb", txn, account, sum.String())); got != 0 {
					t.Fatalf("payment %s: %d", txn, got)
				}
			}
			for i := range 120 {
				txn, sum := fmt.Sprint(1000+i), money.Amount(1000+random.Int64N(100_000))
				account := []string{example, second}[random.IntN(2)]
				switch random.IntN(9) {
				case 0: // the bank has it and we have not
					truth[topup.BankOnly]++
					today.line(txn, yesterdayAt, account, sum)
					late += sum
				case 1: // the same into no account of ours
					truth[topup.BankOnly]++
					suspended++
					today.line(txn, yesterdayAt, nobody, sum)
				case 2: // we have it and the bank has not
					truth[topup.LedgerOnly]++
					pay(txn, account, sum)
				case 3:
					truth[topup.AmountDiffers]++
					pay(txn, account, sum)
					today.line(txn, yesterdayAt, account, sum+1)
				case 4:
					truth[topup.AccountDiffers]++
					pay(txn, example, sum)
					today.line(txn, yesterdayAt, second, sum)
				case 5: // twice in the file
					truth[topup.Matched]++
					truth[topup.RepeatedLine]++
					pay(txn, account, sum)
					today.line(txn, yesterdayAt, account, sum)
					today.line(txn, yesterdayAt, account, sum)
				case 6: // at 23:59 by the bank's clock, on the next day by ours
					truth[topup.OtherDay]++
					before := c.clock.now()
					c.clock.add(24 * time.Hour)
					pay(txn, account, sum)
					c.clock.set(before)
					today.line(txn, yesterdayAt, account, sum)
				default:
					truth[topup.Matched]++
					pay(txn, account, sum)
					today.line(txn, yesterdayAt, account, sum)
				}
			}
			inWallets := c.wallet(example).Posted + c.wallet(second).Posted
			c.clock.add(25 * time.Hour)
			report, err := c.reconcile("mkb", "one.txt", today.String())
			c.must(err)
			for _, state := range topup.States() {
				if got := report.Tally(state).Count; got != truth[state] {
					t.Errorf("%s: %d, the truth is %d", state, got, truth[state])
				}
			}
			open := truth[topup.AmountDiffers] + truth[topup.AccountDiffers] + truth[topup.LedgerOnly] + truth[topup.RepeatedLine]
			if report.OpenCount != open || len(report.Open) != open {
				t.Errorf("%d lines are open, %d listed, the truth is %d", report.OpenCount, len(report.Open), open)
			}
			if report.Suspense != suspended {
				t.Errorf("%d late credits went to the suspense account, the truth is %d", report.Suspense, suspended)
			}
			if got := c.wallet(example).Posted + c.wallet(second).Posted - inWallets; got != late {
				t.Errorf("%s were credited late, the truth is %s", got, late)
			}
			c.sound()

			// The same file changes nothing, nor do the same lines under the same number.
			for _, text := range []string{today.String(), strings.Replace(today.String(), "T-1", "T-2", 1)} {
				if _, err := c.reconcile("mkb", "again.txt", text); !errors.Is(err, topup.ErrTaken) {
					t.Errorf("a second time: %v", err)
				}
			}
			if n := c.count(`SELECT count(*) FROM topup.registry_line`); n != today.count+truth[topup.LedgerOnly] {
				t.Errorf("%d lines are kept", n)
			}
			c.sound()
		})
	}
}

func TestALateCreditIsRepeatedToTheBankAndNewsToNobody(t *testing.T) {
	t.Parallel()
	c := newCity(t).withBanks()
	c.clock.add(5 * 24 * time.Hour)
	s := newSheet("mkb", yesterday, 1)
	s.line("55", yesterdayAt, example, 50000)
	_, err := c.reconcile("mkb", "one.txt", s.String())
	c.must(err)
	// The bank, which never had an answer, asks again.
	first := c.ask(osmpPay("mkb", "55", example, "500.00"))
	if parse(t, first).code() != 0 || c.ask(osmpPay("mkb", "55", example, "500.00")) != first {
		t.Errorf("the repeat is answered %s", first)
	}
	// Sberbank is answered in the protocol it asks in.
	s = newSheet("sber", yesterday, 1)
	s.line("56", yesterdayAt, example, 100_00)
	_, err = c.reconcile("sber", "one.txt", s.String())
	c.must(err)
	second := "/pay/sber/sber?command=pay&txn_id=56&txn_date=20261122083015&account=" + example + "&sum=100.00"
	var event int64
	c.must(c.pool.QueryRow(t.Context(), `SELECT event_id FROM topup.payment WHERE txn_id = '56'`).Scan(&event))
	for _, query := range []string{sberPay("sber", "56", example, "100.00"), second} {
		body := c.ask(query)
		if parse(t, body).code() != 8 || !strings.Contains(strings.ToLower(body), fmt.Sprintf("<ext_id>%d</ext_id>", event)) ||
			strings.Contains(body, "<result>") != (query == second) || c.ask(query) != body {
			t.Errorf("%s is answered %s", query, body)
		}
	}
	var happened time.Time
	c.must(c.pool.QueryRow(t.Context(), `SELECT occurred_at FROM ledger.posting WHERE ext_id = '55'`).Scan(&happened))
	if want := begin().Add(-time.Second); !happened.Equal(want) {
		t.Errorf("it happened at %s by the book, at %s by the bank", happened, want)
	}
	if got := c.wallet(example).Posted; got != 143_50+500_00+100_00 {
		t.Errorf("the balance is %s", got)
	}
	c.sound()
}

func TestAPaymentTheBankForgotWaitsTwoDaysAndIsThenInDispute(t *testing.T) {
	t.Parallel()
	c := newCity(t).withBanks()
	for _, txn := range []string{"1", "2", "3"} {
		c.ask(osmpPay("mkb", txn, example, "100.00"))
	}
	c.clock.add(24 * time.Hour)
	first := newSheet("mkb", yesterday, 1)
	first.line("1", yesterdayAt, example, 10000)
	report, err := c.reconcile("mkb", "one.txt", first.String())
	c.must(err)
	if report.OpenCount != 2 || report.Open[0].Disputed {
		t.Errorf("on the next day: %+v", report)
	}
	c.clock.add(24 * time.Hour)
	next := newSheet("mkb", "2026-11-23", 1)
	next.line("2", "2026-11-22T23:59:59+03:00", example, 10000)
	report, err = c.reconcile("mkb", "two.txt", next.String())
	c.must(err)
	if report.Tally(topup.OtherDay).Count != 1 || report.OpenCount != 0 {
		t.Errorf("the next file: %+v", report)
	}
	breaks := func() []topup.Break {
		list, err := topup.Breaks(t.Context(), c.pool, "mkb", c.clock.now())
		c.must(err)
		return list
	}
	open := func(waiting, disputed float64) {
		t.Helper()
		c.must(c.endpoints.MeasureOpen(t.Context()))
		for what, want := range map[string]float64{"waiting": waiting, "disputed": disputed, "suspense": 0} {
			if n, sum := c.metric("zvonok_topup_open", what), c.metric("zvonok_topup_open_roubles", what); n != want || sum != 100*want {
				t.Errorf("%v lines of %v roubles are %s by the metrics, want %v", n, sum, what, want)
			}
		}
	}
	if list := breaks(); len(list) != 1 || list[0].Txn != "3" || list[0].Disputed {
		t.Errorf("after two days: %+v", list)
	}
	open(1, 0)
	c.clock.add(24 * time.Hour)
	list := breaks()
	if len(list) != 1 || !list[0].Disputed || list[0].Ours != 10000 || list[0].Bank != 0 {
		t.Fatalf("after three days: %+v", list)
	}
	open(0, 1)
	if age := c.metric("zvonok_topup_open_oldest_seconds", "disputed"); age != (48 * time.Hour).Seconds() {
		t.Errorf("the oldest has waited %v s", age)
	}
	c.sound()
	// The bank shows that it gave the notes back.
	resolve := func(id int64, how topup.Resolution) error {
		return pgx.BeginFunc(t.Context(), c.pool, func(tx pgx.Tx) error {
			return topup.ResolveBreak(t.Context(), tx, c.book, id, how, "staff-1", c.clock.now())
		})
	}
	if err := resolve(list[0].ID, topup.Agreed); err == nil {
		t.Error("a difference was agreed away")
	}
	c.must(resolve(list[0].ID, topup.Reversed))
	if err := resolve(list[0].ID, topup.Reversed); err == nil {
		t.Error("it was resolved twice")
	}
	if got := c.wallet(example).Posted; got != 14350+20000 || len(breaks()) != 0 {
		t.Errorf("the balance is %s, open are %v", got, breaks())
	}
	open(0, 0)
	if n := c.count(`SELECT count(*) FROM topup.registry_file WHERE state = 'closed'`); n != 2 {
		t.Errorf("%d files are closed", n)
	}
	c.sound()
}

// A bank whose day ends in the afternoon sends its file of the day before ours is
// over. What comes later stands in the next day's file, or is asked for.
func TestAPaymentAfterItsDaysRegistryIsAskedOfTheNextOne(t *testing.T) {
	t.Parallel()
	c := newCity(t).withBanks()
	c.ask(osmpPay("mkb", "1", example, "100.00"))
	today := newSheet("mkb", yesterday, 1)
	today.line("1", yesterdayAt, example, 100_00)
	_, err := c.reconcile("mkb", "one.txt", today.String())
	c.must(err)
	c.clock.add(time.Hour)
	c.ask(osmpPay("mkb", "2", example, "200.00"))
	c.ask(osmpPay("mkb", "3", second, "300.00"))
	c.clock.add(24 * time.Hour)
	next := newSheet("mkb", "2026-11-23", 1)
	next.line("2", "2026-11-22T09:30:15+03:00", example, 200_00)
	report, err := c.reconcile("mkb", "two.txt", next.String())
	c.must(err)
	if report.Tally(topup.OtherDay).Count != 1 || len(report.Open) != 1 || report.Open[0].Txn != "3" ||
		report.Open[0].State != topup.LedgerOnly || report.Open[0].Ours != 300_00 {
		t.Errorf("the next day's file: %+v", report)
	}
	c.sound()
	c.clock.add(3 * 24 * time.Hour)
	list, err := topup.Breaks(t.Context(), c.pool, "mkb", c.clock.now())
	c.must(err)
	if len(list) != 1 || list[0].Txn != "3" || !list[0].Disputed {
		t.Fatalf("after three days: %+v", list)
	}
	c.must(c.resolve(list[0].ID, topup.Reversed))
	if got := c.clearing("mkb"); got != 0 {
		t.Errorf("the clearing account holds %s", got)
	}
	c.sound()
}

// A day for which no registry has come is asked as a day (NoRegistry), and its
// payments are not missed by the file of the day after.
func TestTheRegistryOfADayDoesNotMissThePaymentsOfASilentOne(t *testing.T) {
	t.Parallel()
	c := newCity(t).withBanks()
	c.ask(osmpPay("mkb", "1", example, "100.00"))
	c.clock.add(48 * time.Hour)
	report, err := c.reconcile("mkb", "two.txt", newSheet("mkb", "2026-11-23", 1).String())
	c.must(err)
	if report.OpenCount != 0 {
		t.Errorf("the next day's file: %+v", report)
	}
	s := newSheet("mkb", yesterday, 1)
	s.line("1", yesterdayAt, example, 100_00)
	report, err = c.reconcile("mkb", "one.txt", s.String())
	c.must(err)
	if report.Tally(topup.Matched).Count != 1 || report.OpenCount != 0 {
		t.Errorf("the day's own file: %+v", report)
	}
	c.sound()
}

// A bank that sends no file at all is found out, day by day; one that sends the
// file of one payee is asked for the other's.
func TestADayWithoutARegistryIsAsked(t *testing.T) {
	t.Parallel()
	c := newCity(t)
	c.partner(topup.NewPartner{Name: "mkb", Dialect: topup.OSMP, PaymentCodes: []string{"916", "917"}})
	c.partner(topup.NewPartner{Name: "sber", Dialect: topup.Sber})
	c.ask(osmpPay("mkb", "1", example, "100.00"))
	c.ask(osmpPay("mkb", "2", example, "100.00"))
	c.ask(osmpPay("mkb", "3", foreign, "50.00"))
	breaks := func() []topup.Break {
		t.Helper()
		list, err := topup.Breaks(t.Context(), c.pool, "", c.clock.now())
		c.must(err)
		return list
	}
	open := func(want float64) {
		t.Helper()
		c.must(c.endpoints.MeasureOpen(t.Context()))
		if got := c.metric("zvonok_topup_open", "no_registry"); got != want {
			t.Errorf("%v days without a registry by the metric, want %v", got, want)
		}
	}
	c.clock.add(2 * 24 * time.Hour)
	if list := breaks(); len(list) != 0 { // it may still come
		t.Errorf("after two days: %+v", list)
	}
	c.clock.add(24 * time.Hour)
	list := breaks()
	if len(list) != 1 || list[0].State != topup.NoRegistry || list[0].Partner != "mkb" || list[0].Payments != 3 ||
		list[0].Ours != 250_00 || list[0].Since.Format(time.DateOnly) != yesterday {
		t.Errorf("after three days: %+v", list)
	}
	open(0) // it has never sent one: not worth an alarm
	next := newSheet("mkb", "2026-11-24", 1)
	_, err := c.reconcile("mkb", "next.txt", next.String())
	c.must(err)
	open(1)
	s := newSheet("mkb", yesterday, 1)
	s.line("1", yesterdayAt, example, 100_00)
	s.line("2", yesterdayAt, example, 100_00)
	_, err = c.reconcile("mkb", "one.txt", s.String())
	c.must(err)
	if list := breaks(); len(list) != 1 || list[0].Payments != 1 || list[0].Ours != 50_00 {
		t.Errorf("with the registry of one payee: %+v", list)
	}
	open(0)
	other := strings.Replace(newSheet("mkb", yesterday, 1).String(), "7700000000", "7700000001", 1)
	_, err = c.reconcile("mkb", "two.txt", other)
	c.must(err)
	if list := breaks(); len(list) != 1 || list[0].State != topup.LedgerOnly || list[0].Txn != "3" {
		t.Errorf("with both registries: %+v", list)
	}
	c.sound()
}

func TestADifferentSumIsWrittenOff(t *testing.T) {
	t.Parallel()
	c := newCity(t).withBanks()
	c.ask(osmpPay("mkb", "1", example, "100.00"))
	s := newSheet("mkb", yesterday, 1)
	s.line("1", yesterdayAt, example, 9000)
	report, err := c.reconcile("mkb", "one.txt", s.String())
	c.must(err)
	if len(report.Open) != 1 || report.Open[0].Ours != 10000 || report.Open[0].Bank != 9000 {
		t.Fatalf("%+v", report)
	}
	c.inTx(func(tx pgx.Tx) error {
		return topup.ResolveBreak(t.Context(), tx, c.book, report.Open[0].ID, topup.WrittenOff, "staff-1", c.clock.now())
	})
	c.sound()
	if got := c.clearing("mkb"); got != 0 {
		t.Errorf("the clearing account holds %s", got)
	}
}

// Issue 5: a registry with broken lines. It is all or nothing, and each line is named.
func TestABrokenRegistryIsRefusedWithItsLinesNamed(t *testing.T) {
	t.Parallel()
	c := newCity(t).withBanks()
	const head, foot = "H;mkb;7700000000;2026-11-21;1\n", "T;1;500.00\n"
	const good = "P;1;2026-11-21T08:30:15+03:00;00207316;500.00;0.00;T\n"
	for _, test := range []struct {
		name, text string
		line       int
	}{
		{"empty", "", 1},
		{"no header", good + foot, 1},
		{"of another bank", strings.Replace(head, "mkb", "sber", 1) + good + foot, 1},
		{"a payee that is not the bank's", strings.Replace(head, "7700000000", "7700000001", 1) + good + foot, 1},
		{"a day that does not exist", strings.Replace(head, "11-21", "02-30", 1) + good + foot, 1},
		{"cut", head + good, 2},
		{"a count that is wrong", head + good + "T;2;500.00\n", 3},
		{"a sum that is wrong", head + good + "T;1;500.01\n", 3},
		{"a sum with a comma", head + strings.Replace(good, "500.00", "500,00", 1) + foot, 2},
		{"a sum of 10^20", head + strings.Replace(good, "500.00", "100000000000000000000.00", 1) + foot, 2},
		{"a sum below zero", head + strings.Replace(good, "500.00", "-500.00", 1) + foot, 2},
		{"no money", head + strings.Replace(good, "500.00", "0.00", 1) + foot, 2},
		{"an id of letters", head + strings.Replace(good, "P;1;", "P;x;", 1) + foot, 2},
		{"a time without a zone", head + strings.Replace(good, "+03:00", "", 1) + foot, 2},
		{"too few columns", head + "P;1;2026-11-21T08:30:15+03:00\n" + foot, 2},
		{"an unknown line", head + good + "X;1\n" + foot, 3},
		{"more after the end", head + good + foot + good, 4},
		{"not text", head + "\xff\xfe" + good + foot, 1},
	} {
		_, err := c.reconcile("mkb", "bad.txt", test.text)
		var bad *topup.BadRegistry
		if !errors.As(err, &bad) || len(bad.Problems) == 0 || bad.Problems[0].Line != test.line {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	if n := c.count(`SELECT count(*) FROM topup.registry_file`) + c.payments(); n != 0 {
		t.Errorf("%d rows were written", n)
	}
	if _, err := c.reconcile("nobody", "one.txt", head+good+foot); !errors.Is(err, topup.ErrPartner) {
		t.Errorf("a bank that does not exist: %v", err)
	}
	report, err := c.reconcile("mkb", "good.txt", "\ufeff"+strings.ReplaceAll(head+good+foot, "\n", "\r\n"))
	if err != nil || report.Tally(topup.BankOnly).Count != 1 {
		t.Errorf("the good one: %+v, %v", report, err)
	}
	c.sound()
}

// Issue 5: a registry that is uploaded twice, the second time in another dress.
// Nothing of it is settled twice.
func TestARegistryWithTheSamePaymentsIsNotTakenTwice(t *testing.T) {
	t.Parallel()
	c := newCity(t).withBanks()
	c.ask(osmpPay("mkb", "1", example, "100.00"))
	c.clock.add(24 * time.Hour)
	first := newSheet("mkb", yesterday, 1)
	first.line("1", yesterdayAt, example, 100_00)
	first.line("2", yesterdayAt, second, 50_00)
	_, err := c.reconcile("mkb", "one.txt", first.String())
	c.must(err)
	other := newSheet("mkb", yesterday, 1)
	other.line("2", yesterdayAt, second, 50_00)
	other.line("1", yesterdayAt, example, 100_00)
	for name, text := range map[string]string{
		"under the next number": strings.Replace(first.String(), yesterday+";1", yesterday+";2", 1),
		"of the day after":      strings.Replace(first.String(), "H;mkb;7700000000;"+yesterday, "H;mkb;7700000000;2026-11-23", 1),
		"of all payees":         strings.Replace(first.String(), "7700000000", "", 1),
		"in another order":      strings.Replace(other.String(), yesterday+";1", yesterday+";2", 1),
	} {
		if _, err := c.reconcile("mkb", "two.txt", text); !errors.Is(err, topup.ErrTaken) || !strings.Contains(err.Error(), "number 1 of "+yesterday) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := c.clearing("mkb"); got != 0 {
		t.Errorf("the clearing account holds %s", got)
	}
	c.sound()
	// The rest of the day may repeat a payment, and is taken.
	rest := newSheet("mkb", yesterday, 2)
	rest.line("2", yesterdayAt, second, 50_00)
	rest.line("3", yesterdayAt, second, 100_00)
	report, err := c.reconcile("mkb", "rest.txt", rest.String())
	c.must(err)
	if report.Tally(topup.RepeatedLine).Count != 1 || report.Tally(topup.BankOnly).Count != 1 {
		t.Errorf("the rest: %+v", report)
	}
	c.sound()
	// A bank that sent the wrong number corrects it.
	_, err = c.replace("mkb", "three.txt", rest.String()+"\n", 2)
	c.must(err)
	c.sound()
}

// A registry of a wrong day gives way to an empty one, and the right one is taken.
func TestARegistryOfAWrongDayIsTakenAnew(t *testing.T) {
	t.Parallel()
	c := newCity(t).withBanks()
	c.ask(osmpPay("mkb", "1", example, "100.00"))
	c.clock.add(24 * time.Hour)
	right := newSheet("mkb", yesterday, 1)
	right.line("1", yesterdayAt, example, 100_00)
	report, err := c.reconcile("mkb", "one.txt", strings.Replace(right.String(), yesterday+";1", "2026-12-22;1", 1))
	c.must(err)
	if report.Tally(topup.OtherDay).Count != 1 || report.OpenCount != 1 {
		t.Errorf("the file of a wrong day: %+v", report)
	}
	if _, err := c.reconcile("mkb", "two.txt", right.String()); !errors.Is(err, topup.ErrTaken) {
		t.Errorf("beside it the right one is taken: %v", err)
	}
	_, err = c.replace("mkb", "none.txt", newSheet("mkb", "2026-12-22", 1).String(), 1)
	c.must(err)
	c.sound()
	report, err = c.reconcile("mkb", "two.txt", right.String())
	c.must(err)
	if report.Tally(topup.Matched).Count != 1 || report.OpenCount != 0 {
		t.Errorf("the right one: %+v", report)
	}
	if got := c.clearing("mkb"); got != 0 {
		t.Errorf("the clearing account holds %s", got)
	}
	list, err := topup.Breaks(t.Context(), c.pool, "mkb", c.clock.now())
	c.must(err)
	if len(list) != 0 {
		t.Errorf("open are %+v", list)
	}
	c.sound()
}

// A file keeps its name whatever the system wrote it in, and its report says the
// day as a day.
func TestARegistryMayHaveAnyName(t *testing.T) {
	t.Parallel()
	c := newCity(t).withBanks()
	report, err := c.reconcile("mkb", "\x90\xa5\xa5\xe1\xe2\xe0.txt", newSheet("mkb", yesterday, 1).String()) // of an archive in CP866
	c.must(err)
	text, err := json.Marshal(report)
	c.must(err)
	if !strings.Contains(string(text), `"day":"`+yesterday+`"`) {
		t.Errorf("the report is %s", text)
	}
}

func TestABanksOwnRegistryIsReadByItsLayout(t *testing.T) {
	t.Parallel()
	c := newCity(t)
	c.partner(topup.NewPartner{Name: "agent", Dialect: topup.OSMP, Layout: &topup.Layout{
		Separator: "\t", Skip: 3, Time: "02.01.2006 15:04:05", Total: "Total:", FileName: "AGENT_20060102",
		Columns: topup.Columns{At: 1, Clock: 2, Txn: 3, Account: 4, Amount: 5},
	}})
	c.partner(topup.NewPartner{Name: "branch", Dialect: topup.Sber, Layout: &topup.Layout{
		Encoding: "windows-1251", Time: "02/01/2006", DecimalComma: true,
		Columns: topup.Columns{Txn: 4, At: 3, Account: 5, Amount: 6, Fee: 7, Terminal: 2},
	}})
	agent := "Agent_ID\t1\nAgent_name\tx\nContract_number\t7\nTotal:\t2\t150.00\n" +
		"21.11.2026\t08:30:15\t11\t00207316\t100.00\n21.11.2026\t23:59:59\t12\t12000014\t50.00\n"
	report, err := c.reconcile("agent", "AGENT_20261121.txt", agent)
	c.must(err)
	if report.Tally(topup.BankOnly) != (topup.Tally{State: topup.BankOnly, Count: 2, Sum: 15000}) || report.Day.Format(time.DateOnly) != "2026-11-21" {
		t.Errorf("%+v", report)
	}
	branch, err := charmap.Windows1251.NewEncoder().String("ГОСБ9038;0017;21/11/2026;21;00207316;200,00;0,00;оплата питания\n")
	c.must(err)
	report, err = c.reconcile("branch", "x.txt", branch)
	c.must(err)
	if report.Total != 20000 || c.wallet(example).Posted != 14350+10000+20000 {
		t.Errorf("%+v, the balance is %s", report, c.wallet(example).Posted)
	}
	if _, err := c.reconcile("agent", "AGENT_x.txt", agent); err == nil {
		t.Error("a file whose name tells no day was taken")
	}
	c.sound()

	// The rest of the day comes in a second file, which repeats nothing.
	second := strings.NewReplacer("\t11\t", "\t13\t", "\t12\t", "\t14\t").Replace(agent)
	report, err = c.reconcile("agent", "AGENT_20261121.txt", second)
	c.must(err)
	if report.Number != 2 || report.Tally(topup.BankOnly).Count != 2 {
		t.Errorf("the second file of the day: %+v", report)
	}
	// A file that repeats a payment of the day is a corrected one or a mistake: a person says so.
	corrected := strings.NewReplacer("Total:\t2\t150.00", "Total:\t1\t100.00", "21.11.2026\t23:59:59\t12\t12000014\t50.00\n", "").Replace(agent)
	for _, text := range []string{corrected, agent + "\n", agent, second} {
		if _, err := c.reconcile("agent", "AGENT_20261121.txt", text); !errors.Is(err, topup.ErrTaken) {
			t.Errorf("a file with payments of an earlier one: %v", err)
		}
	}
	c.sound()
	report, err = c.replace("agent", "AGENT_20261121.txt", corrected, 1)
	c.must(err)
	if report.Number != 1 || report.Tally(topup.BankOnly).Count != 1 || report.Tally(topup.LedgerOnly).Count != 1 || report.OpenCount != 1 {
		t.Errorf("the corrected file: %+v", report)
	}
	c.sound()
}

// replace takes a corrected registry in the place of a number of its day.
func (c *city) replace(partner, name, text string, number int) (topup.Report, error) {
	c.Helper()
	return topup.Reconcile(c.Context(), c.pool, c.book, partner, topup.File{
		Name: name, Data: strings.NewReader(text), By: "olga (os:root)", Replaces: number,
	}, c.clock.now())
}

// clearing is what a partner's clearing account holds.
func (c *city) clearing(partner string) money.Amount {
	c.Helper()
	return money.Amount(c.count(`SELECT coalesce(sum(CASE WHEN p.debit_id = b.clearing_id THEN p.amount ELSE -p.amount END), 0)
	                   FROM topup.partner b JOIN ledger.posting p ON b.clearing_id IN (p.debit_id, p.credit_id) WHERE b.name = '` + partner + `'`))
}

// A bank's first file of a day is wrong in every way, and its second one right:
// nothing is credited or settled twice, and what the first had made open is not.
func TestACorrectedRegistryTakesThePlaceOfTheWrongOne(t *testing.T) {
	t.Parallel()
	c := newCity(t).withBanks()
	for i := range 4 {
		c.ask(osmpPay("mkb", fmt.Sprint(i+1), example, "100.00"))
	}
	c.clock.add(24 * time.Hour)
	c.ask(osmpPay("mkb", "9", second, "30.00")) // of the next day
	wrong := newSheet("mkb", yesterday, 1)
	wrong.line("1", yesterdayAt, example, 100_00) // right
	wrong.line("2", yesterdayAt, example, 90_00)  // another sum
	wrong.line("3", yesterdayAt, second, 100_00)  // another account
	wrong.line("5", yesterdayAt, second, 70_00)   // was never paid
	wrong.line("6", yesterdayAt, second, 80_00)   // was paid, and never asked
	first, err := c.reconcile("mkb", "one.txt", wrong.String())
	c.must(err)
	if first.OpenCount != 3 || first.Tally(topup.BankOnly).Count != 2 {
		t.Fatalf("the wrong file: %+v", first)
	}
	for _, b := range first.Open {
		if b.State == topup.AmountDiffers {
			c.must(c.resolve(b.ID, topup.WrittenOff))
		}
	}
	c.sound()
	right := newSheet("mkb", yesterday, 1)
	for _, txn := range []string{"1", "2", "3", "4"} {
		right.line(txn, yesterdayAt, example, 100_00)
	}
	right.line("6", yesterdayAt, second, 80_00)
	if _, err := c.reconcile("mkb", "two.txt", right.String()); !errors.Is(err, topup.ErrTaken) {
		t.Errorf("without a word it is taken: %v", err)
	}
	if _, err := c.replace("mkb", "two.txt", wrong.String(), 1); !errors.Is(err, topup.ErrTaken) {
		t.Errorf("the file in its own place: %v", err)
	}
	if _, err := c.replace("mkb", "two.txt", right.String(), 2); err == nil || !strings.Contains(err.Error(), "no file number 2") {
		t.Errorf("in the place of a file that there is not: %v", err)
	}
	if _, err := topup.Reconcile(t.Context(), c.pool, c.book, "mkb", topup.File{
		Name: "two.txt", Data: strings.NewReader(right.String()), Replaces: 1,
	}, c.clock.now()); err == nil {
		t.Error("nobody in particular replaced a file")
	}
	c.sound()
	report, err := c.replace("mkb", "two.txt", right.String(), 1)
	c.must(err)
	if report.Tally(topup.Matched).Count != 4 || report.Tally(topup.BankOnly).Count != 1 ||
		report.OpenCount != 1 || report.Open[0].Txn != "5" || report.Open[0].State != topup.LedgerOnly {
		t.Errorf("the right file: %+v", report)
	}
	c.sound()
	// What the wrong file brought is taken back by hand, as the bank never had it.
	if got := c.wallet(second).Posted; got != 30_00+70_00+80_00 {
		t.Errorf("before that the wallet has %s", got)
	}
	c.must(c.resolve(report.Open[0].ID, topup.Reversed))
	if got := c.wallet(second).Posted; got != 30_00+80_00 {
		t.Errorf("the wallet has %s", got)
	}
	if got := c.clearing("mkb"); got != 30_00 {
		t.Errorf("the clearing account holds %s, of the next day's payment", got)
	}
	if list, err := topup.Breaks(t.Context(), c.pool, "mkb", c.clock.now()); err != nil || len(list) != 0 {
		t.Errorf("open are %+v, %v", list, err)
	}
	if n := c.count(`SELECT count(*) FROM topup.registry_file WHERE taken_by = 'olga (os:root)' AND state = 'closed'`); n != 1 {
		t.Errorf("%d files are kept with who brought them", n)
	}
	// The wrong one may be right after all, or come once more by mistake: only in the place of the other.
	if _, err := c.reconcile("mkb", "one.txt", wrong.String()); !errors.Is(err, topup.ErrTaken) {
		t.Errorf("the wrong file again: %v", err)
	}
	c.sound()
}

// What an earlier file had not, the wrong file had and the corrected one has not
// is open again.
func TestAPaymentThatACorrectedRegistryHasNotIsForgottenAgain(t *testing.T) {
	t.Parallel()
	c := newCity(t).withBanks()
	c.ask(osmpPay("mkb", "1", example, "100.00"))
	c.clock.add(24 * time.Hour)
	_, err := c.reconcile("mkb", "one.txt", newSheet("mkb", yesterday, 1).String())
	c.must(err)
	c.clock.add(24 * time.Hour)
	next := newSheet("mkb", "2026-11-23", 1)
	next.line("1", "2026-11-22T23:59:59+03:00", example, 100_00)
	_, err = c.reconcile("mkb", "two.txt", next.String())
	c.must(err)
	breaks := func() (txns []string) {
		list, err := topup.Breaks(t.Context(), c.pool, "mkb", c.clock.now())
		c.must(err)
		for _, b := range list {
			txns = append(txns, b.Txn)
		}
		return txns
	}
	if got := breaks(); len(got) != 0 {
		t.Errorf("open are %v", got)
	}
	_, err = c.replace("mkb", "three.txt", newSheet("mkb", "2026-11-23", 1).String(), 1)
	c.must(err)
	if got := breaks(); len(got) != 1 || got[0] != "1" {
		t.Errorf("open are %v", got)
	}
	if got := c.clearing("mkb"); got != 100_00 {
		t.Errorf("the clearing account holds %s", got)
	}
	c.sound()
}

// A payment that was written off because a registry had it not, and that a later
// one has after all, is money of the bank's that the books know nothing of.
func TestAPaymentWrittenOffTooSoonIsOpenWhenItsRegistryComes(t *testing.T) {
	t.Parallel()
	c := newCity(t).withBanks()
	c.ask(osmpPay("mkb", "1", example, "100.00"))
	c.clock.add(24 * time.Hour)
	report, err := c.reconcile("mkb", "one.txt", newSheet("mkb", yesterday, 1).String())
	c.must(err)
	c.must(c.resolve(report.Open[0].ID, topup.WrittenOff))
	if got := c.clearing("mkb"); got != 0 {
		t.Errorf("the clearing account holds %s", got)
	}
	c.sound()
	c.clock.add(24 * time.Hour)
	next := newSheet("mkb", "2026-11-23", 1)
	next.line("1", "2026-11-22T23:59:59+03:00", example, 100_00)
	report, err = c.reconcile("mkb", "two.txt", next.String())
	c.must(err)
	if len(report.Open) != 1 || report.Open[0].State != topup.AmountDiffers || report.Open[0].Ours != 0 {
		t.Fatalf("the later file: %+v", report)
	}
	c.sound()
	// The first file cannot be taken back under it.
	if _, err := c.replace("mkb", "three.txt", newSheet("mkb", yesterday, 1).String()+"\n", 1); err == nil {
		t.Error("a file was replaced whose written-off payment a later file has")
	}
	c.must(c.resolve(report.Open[0].ID, topup.WrittenOff))
	if got := c.clearing("mkb"); got != 0 {
		t.Errorf("the clearing account holds %s", got)
	}
	c.sound()
}

// A bank that never had our answer repeats a payment days after we have taken it
// back, because its registry had it not. It is told that it was credited, so the
// child has to get it when the bank's registry shows the money.
func TestAPaymentTakenBackTooSoonIsBookedAgain(t *testing.T) {
	t.Parallel()
	c := newCity(t).withBanks()
	pays := map[string]string{"1": example, "2": second, "3": gone, "4": example}
	first := map[string]string{}
	for txn, account := range pays {
		first[txn] = c.ask(osmpPay("mkb", txn, account, "100.00"))
	}
	c.clock.add(24 * time.Hour)
	missed, err := c.reconcile("mkb", "one.txt", newSheet("mkb", yesterday, 1).String())
	c.must(err)
	c.clock.add(72 * time.Hour)
	for _, b := range missed.Open {
		if b.Txn != "4" {
			c.must(c.resolve(b.ID, topup.Reversed))
		} else if err := c.resolve(b.ID, topup.Posted); err == nil {
			t.Error("a payment that is booked was booked again")
		}
	}
	next := newSheet("mkb", "2026-11-26", 1)
	for txn, account := range pays {
		if again := c.ask(osmpPay("mkb", txn, account, "100.00")); again != first[txn] {
			t.Errorf("the repeat of %s is answered %s, first %s", txn, again, first[txn])
		}
		sum := money.Amount(100_00)
		if txn == "4" {
			sum = 110_00
		}
		next.line(txn, yesterdayAt, account, sum)
	}
	c.setClosed(second, true)
	c.clock.add(24 * time.Hour)
	shown, err := c.reconcile("mkb", "two.txt", next.String())
	c.must(err)
	if shown.Tally(topup.AmountDiffers).Count != 4 || shown.OpenCount != 4 {
		t.Fatalf("the later file: %+v", shown)
	}
	for _, b := range shown.Open {
		if err := c.resolve(b.ID, topup.Posted); (err == nil) != (b.Txn != "4") {
			t.Errorf("payment %s is booked again: %v", b.Txn, err)
		}
		if err := c.resolve(b.ID, topup.Posted); err == nil {
			t.Errorf("payment %s is booked again a second time", b.Txn)
		}
		if b.Txn == "4" { // it was never taken back, so the bank's ten roubles are a difference
			c.must(c.resolve(b.ID, topup.WrittenOff))
		}
	}
	if got := c.wallet(example).Posted; got != 143_50+200_00 {
		t.Errorf("the wallet has %s", got)
	}
	if got := c.clearing("mkb"); got != 0 {
		t.Errorf("the clearing account holds %s", got)
	}
	if list, err := topup.Breaks(t.Context(), c.pool, "mkb", c.clock.now()); err != nil || len(list) != 0 {
		t.Errorf("open are %+v, %v", list, err)
	}
	// What was closed meanwhile, or had left before, is in suspense, from where a person releases it.
	suspense, err := topup.Suspense(t.Context(), c.pool)
	c.must(err)
	if len(suspense) != 2 || suspense[0].Reason+" "+suspense[1].Reason != "closed left" && suspense[0].Reason+" "+suspense[1].Reason != "left closed" {
		t.Errorf("in suspense are %+v", suspense)
	}
	for _, s := range suspense {
		c.inTx(func(tx pgx.Tx) error {
			return topup.ReleasePayment(t.Context(), tx, c.book, topup.Release{Partner: "mkb", Txn: s.Txn, Account: example, By: "staff-1"}, c.clock.now())
		})
	}
	if got := c.code("/pay/osmp/mkb?command=status&txn_id=1"); got != 0 {
		t.Errorf("the status of the payment: %d", got)
	}
	c.sound()
	// The file cannot be taken back under what was booked again for it.
	if _, err := c.replace("mkb", "three.txt", newSheet("mkb", "2026-11-26", 1).String(), 1); err == nil || !strings.Contains(err.Error(), "3 payments") {
		t.Errorf("the file was replaced: %v", err)
	}
	c.sound()
}

// I13 names what was tampered with.
func TestTheVerificationFindsATamperedPayment(t *testing.T) {
	t.Parallel()
	c := newCity(t).withBanks()
	c.ask(osmpPay("mkb", "1", example, "100.00"))
	s := newSheet("mkb", yesterday, 1)
	s.line("1", yesterdayAt, example, 10000)
	_, err := c.reconcile("mkb", "one.txt", s.String())
	c.must(err)
	c.sound()
	owner, err := pgx.Connect(t.Context(), c.url)
	c.must(err)
	defer owner.Close(t.Context())
	for name, tamper := range map[string]string{
		"a sum":                   `UPDATE topup.payment SET amount = amount + 100`,
		"an account":              `UPDATE topup.payment SET account = '12000014'`,
		"a payment that vanished": `DELETE FROM topup.payment`,
		"a line that vanished":    `DELETE FROM topup.registry_line`,
		"a line's state":          `UPDATE topup.registry_line SET state = 'other_day', open = true`,
		"a file's sum":            `UPDATE topup.registry_file SET total = total + 1`,
		"a file's day":            `UPDATE topup.registry_file SET day = day - 1`,
		"a line open for nothing": `UPDATE topup.registry_line SET open = true; UPDATE topup.registry_file SET state = 'matched'`,
		"money from nowhere":      `UPDATE ledger.posting SET source = 'x' WHERE kind = 'settlement'`,
	} {
		tx, err := owner.Begin(t.Context())
		c.must(err)
		_, err = tx.Exec(t.Context(), `SET LOCAL session_replication_role = replica; `+tamper)
		c.must(err)
		found := 0
		for _, check := range topup.Checks() {
			rows, err := tx.Query(t.Context(), check.Query)
			c.must(err)
			for rows.Next() {
				found++
			}
			c.must(rows.Err())
		}
		if found == 0 {
			t.Errorf("%s was not found", name)
		}
		c.must(tx.Rollback(t.Context()))
	}
}

func BenchmarkReconcile100000Lines(b *testing.B) {
	c := newCity(b).withBanks()
	const n = 100_000
	// Payments as if they had been made: rows and postings by the registry's own
	// path, then the next day's file of the same partner finds them all.
	s := newSheet("mkb", "2026-11-21", 1)
	for i := range n {
		s.line(fmt.Sprint(1_000_000+i), "2026-11-21T08:30:15+03:00", []string{example, second}[i%2], 1000)
	}
	started := time.Now()
	_, err := c.reconcile("mkb", "late.txt", s.String())
	c.must(err)
	late := time.Since(started)
	owner, err := pgx.Connect(b.Context(), c.url)
	c.must(err)
	defer owner.Close(b.Context())
	for _, sql := range []string{
		`DELETE FROM topup.registry_line`, `DELETE FROM topup.registry_file`,
		`UPDATE topup.payment SET origin = 'pay', day = '2026-11-21'`, `ANALYZE topup.payment`,
	} {
		_, err := owner.Exec(b.Context(), sql)
		c.must(err)
	}
	number := 1
	for b.Loop() {
		b.StopTimer()
		number++
		_, err := owner.Exec(b.Context(), `TRUNCATE topup.registry_line, topup.registry_file`)
		c.must(err)
		text := strings.Replace(s.String(), ";1\n", fmt.Sprintf(";%d\n", number), 1)
		b.StartTimer()
		report, err := c.reconcile("mkb", "day.txt", text)
		c.must(err)
		if report.Tally(topup.Matched).Count != n {
			b.Fatalf("%+v", report.Tallies)
		}
	}
	b.ReportMetric(late.Seconds(), "s/100k-late-credits")
}

func (c *city) resolve(id int64, how topup.Resolution) error {
	c.Helper()
	return pgx.BeginFunc(c.Context(), c.pool, func(tx pgx.Tx) error {
		return topup.ResolveBreak(c.Context(), tx, c.book, id, how, "staff-1", c.clock.now())
	})
}

// Money that the registry misses goes back once, whoever takes it back: not after
// it was moved out of the suspense account, and not by hand after the bank did.
func TestMoneyThatARegistryMissesGoesBackOnce(t *testing.T) {
	t.Parallel()
	c := newCity(t)
	c.partner(topup.NewPartner{Name: "mkb", Dialect: topup.OSMP, MayCancel: true})
	c.setClosed(second, true)
	for txn, account := range map[string]string{"1": second, "2": second, "3": example, "4": example, "5": example} {
		if got := c.code(osmpPay("mkb", txn, account, "100.00")); got != 0 {
			t.Fatalf("payment %s: %d", txn, got)
		}
	}
	c.clock.add(24 * time.Hour)
	s := newSheet("mkb", yesterday, 1)
	s.line("5", yesterdayAt, example, 100_00)
	report, err := c.reconcile("mkb", "one.txt", s.String())
	c.must(err)
	lines := map[string]int64{}
	for _, b := range report.Open {
		lines[b.Txn] = b.ID
	}
	if len(lines) != 4 {
		t.Fatalf("open are %+v", report.Open)
	}

	// The first is released to a wallet, the second is paid back to the payer.
	c.inTx(func(tx pgx.Tx) error {
		return topup.ReleasePayment(t.Context(), tx, c.book, topup.Release{Partner: "mkb", Txn: "1", Account: example, By: "staff-1"}, c.clock.now())
	})
	refund, err := c.askRefund(topup.RefundAsk{Partner: "mkb", Txn: "2", Reason: "r", By: "olga"})
	c.must(err)
	c.must(c.payRefund(refund, "pavel"))
	for _, txn := range []string{"1", "2"} {
		if err := c.resolve(lines[txn], topup.Reversed); err == nil {
			t.Errorf("payment %s, no longer in suspense, was reversed", txn)
		}
		if got := c.code("/pay/osmp/mkb?command=cancel&txn_id=" + txn); got != 251 {
			t.Errorf("the cancel of payment %s, no longer in suspense: %d", txn, got)
		}
	}
	// The third is cancelled by the bank: its line is settled with that.
	if got := c.code("/pay/osmp/mkb?command=cancel&txn_id=3"); got != 0 {
		t.Errorf("the cancel of a payment that the registry misses: %d", got)
	}
	for _, how := range []topup.Resolution{topup.Reversed, topup.WrittenOff} {
		if err := c.resolve(lines["3"], how); err == nil {
			t.Errorf("the line of a cancelled payment was %s as well", how)
		}
	}
	// The fourth is written off by hand, and the fifth has been settled by the registry.
	c.must(c.resolve(lines["4"], topup.WrittenOff))
	for _, txn := range []string{"4", "5"} {
		if got := c.code("/pay/osmp/mkb?command=cancel&txn_id=" + txn); got != 251 {
			t.Errorf("the cancel of payment %s, settled meanwhile: %d", txn, got)
		}
	}
	if got := c.wallet(example).Posted; got != 143_50+300_00 {
		t.Errorf("the wallet has %s", got)
	}
	if n := c.count(`SELECT coalesce(sum(CASE WHEN p.debit_id = a.id THEN -p.amount ELSE p.amount END), 0)
	                   FROM ledger.account a JOIN ledger.posting p ON a.id IN (p.debit_id, p.credit_id) WHERE a.kind = 'suspense'`); n != 0 {
		t.Errorf("the suspense account holds %d kopecks", n)
	}
	c.sound()
}
