package main

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"zvonok/ledger"
	"zvonok/ledger/meal"
	"zvonok/ledger/money"
	"zvonok/ledger/pg"
	"zvonok/ledger/pg/pgtest"
	"zvonok/ledger/topup"
)

// office is an accountant at the command line.
type office struct {
	*testing.T
	url  string
	pool *pgxpool.Pool
}

func newOffice(t *testing.T) *office {
	t.Helper()
	url := pgtest.NewURL(t)
	if _, stderr, code := zvonok(t, url, "import", registryFolder(t, nil)); code != exitDone {
		t.Fatal(stderr)
	}
	pool, err := pg.Open(t.Context(), pg.Config{URL: url, AppName: "test", Role: pg.AppRole})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return &office{t, url, pool}
}

// does runs a command that has to succeed.
func (o *office) does(args ...string) string {
	o.Helper()
	stdout, stderr, code := zvonok(o.T, o.url, args...)
	if code != exitDone {
		o.Fatalf("zvonok %s: exit %d\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout
}

// fails runs a command that has to fail with these words.
func (o *office) fails(words string, args ...string) {
	o.Helper()
	stdout, stderr, code := zvonok(o.T, o.url, args...)
	if code != exitFailed || !strings.Contains(stdout+stderr, words) {
		o.Errorf("zvonok %s: exit %d, want %q\n%s%s", strings.Join(args, " "), code, words, stdout, stderr)
	}
}

func (o *office) read(query string, into ...any) {
	o.Helper()
	if err := o.pool.QueryRow(o.Context(), query).Scan(into...); err != nil {
		o.Fatal(err)
	}
}

// An accountant's month: a registry, suspense, refunds by two persons, a child
// who changes school, closing, reports, and books that are right at the end.
func TestAnAccountantDoesEverythingByCommands(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	var person, account, payee, inn, code, home, other string
	var id ledger.PersonID
	o.read(`SELECT p.id, p.code, a.number, y.code, y.inn, y.payment_code, g.code,
	               (SELECT min(x.code) FROM ledger.organisation x WHERE x.code <> g.code)
	          FROM ledger.person p
	          JOIN ledger.account a ON a.person_id = p.id
	          JOIN ledger.organisation g ON g.id = p.organisation_id
	          JOIN ledger.payee y ON y.code = g.payee_code
	         WHERE p.kind = 'pupil' ORDER BY p.id LIMIT 1`, &id, &person, &account, &payee, &inn, &code, &home, &other)
	o.does("partner", "add", "--name", "mkb", "--dialect", "osmp", "--payees", code, "--allow", "127.0.0.0/8")

	// The bank's registry of yesterday has a payment for us and one for nobody.
	yesterday := time.Now().In(ledger.NewBook(nil).Zone).AddDate(0, 0, -1)
	stamp := yesterday.Format(time.RFC3339)
	file := filepath.Join(t.TempDir(), "registry.txt")
	text := fmt.Sprintf("H;mkb;%s;%s;1\nP;11;%s;%s;500.00;0.00;t1\nP;12;%s;99999999;70.00;0.00;t1\nT;2;570.00\n",
		inn, yesterday.Format(time.DateOnly), stamp, account, stamp)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := o.does("ledger", "reconcile", "--partner", "mkb", file); !strings.Contains(out, "1 late credits went to the suspense account") {
		t.Errorf("the reconciliation says\n%s", out)
	}
	broken := filepath.Join(t.TempDir(), "broken.txt")
	torn := strings.Replace(strings.Replace(strings.Replace(text, ";1\n", ";2\n", 1), "500.00;0.00", "500,00;0.00", 1), "70.00;0.00", "7e1;0.00", 1)
	if err := os.WriteFile(broken, []byte(torn), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, words := range []string{"broken.txt, line 2: ", "broken.txt, line 3: "} { // each bad line is named
		o.fails(words, "ledger", "reconcile", "--partner", "mkb", broken)
	}
	o.fails(`"line": 3`, "ledger", "reconcile", "--partner", "mkb", broken, "--json")
	o.fails("taken before", "ledger", "reconcile", "--partner", "mkb", file)
	o.does("ledger", "breaks")
	if out := o.does("ledger", "breaks", "--partner", "mkb", "--json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("open is %s", out)
	}
	o.fails(`there is none named "mbk"`, "ledger", "breaks", "--partner", "mbk") // not: nothing is open

	// Suspense: found, released, gone.
	if out := o.does("ledger", "suspense"); !strings.Contains(out, "unknown") || !strings.Contains(out, "1 payments, 70.00") {
		t.Errorf("in suspense is\n%s", out)
	}
	o.fails("there is no account", "ledger", "release", "--partner", "mkb", "--txn", "12", "--account", "00000000", "--by", "olga")
	o.does("ledger", "release", "--partner", "mkb", "--txn", "12", "--account", account, "--by", "olga")
	o.fails("it is released", "ledger", "release", "--partner", "mkb", "--txn", "12", "--account", account, "--by", "olga")
	if out := o.does("ledger", "suspense", "--json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("in suspense is %s", out)
	}
	if out := o.does("ledger", "statement", account); !strings.Contains(out, "account "+account+": 570.00") {
		t.Errorf("the statement is\n%s", out)
	}

	// A refund takes two persons.
	var asked struct{ ID int64 }
	if err := json.Unmarshal([]byte(o.does("ledger", "refund", "ask", "--partner", "mkb", "--account", account, "--sum", "70",
		"--reason", "paid twice", "--by", "olga", "--json")), &asked); err != nil {
		t.Fatal(err)
	}
	number := fmt.Sprint(asked.ID)
	for _, same := range []string{"olga", " Olga "} {
		o.fails("two persons", "ledger", "refund", "pay", number, "--by", same)
	}
	if out := o.does("ledger", "refund", "list"); !strings.Contains(out, "paid twice") || !strings.Contains(out, "olga (os:") {
		t.Errorf("the refunds are\n%s", out)
	}
	o.does("ledger", "refund", "pay", number, "--by", "pavel")
	o.fails("waits for a decision", "ledger", "refund", "decline", number, "--by", "pavel")

	// It is open until somebody says how it ended: it came back, and goes once more.
	o.fails("refund end "+number, "ledger", "breaks")
	o.does("ledger", "refund", "end", number, "--how", "returned", "--by", "olga")
	o.fails("is on its way", "ledger", "refund", "end", number, "--how", "given", "--by", "olga")
	o.does("ledger", "breaks")
	if err := json.Unmarshal([]byte(o.does("ledger", "refund", "ask", "--partner", "mkb", "--account", account, "--sum", "70",
		"--reason", "paid twice", "--by", "olga", "--json")), &asked); err != nil {
		t.Fatal(err)
	}
	number = fmt.Sprint(asked.ID)
	o.does("ledger", "refund", "pay", number, "--by", "pavel")
	o.does("ledger", "refund", "end", number, "--how", "given", "--by", "olga")
	o.does("ledger", "breaks")

	// An account is closed, by whom and why, and opened; what was in it at a moment is told.
	o.fails("there is no account", "ledger", "account", "close", "00000000", "--reason", "left", "--by", "olga")
	o.does("ledger", "account", "close", account, "--reason", "the child left", "--by", "olga")
	o.fails("is closed already", "ledger", "account", "close", account, "--reason", "the child left", "--by", "olga")
	if out := o.does("ledger", "account", "show", account); !strings.Contains(out, "(closed): 500.00") ||
		!strings.Contains(out, "the child left") || !strings.Contains(out, "olga (os:") {
		t.Errorf("the account is\n%s", out)
	}
	o.does("ledger", "account", "open", account, "--reason", "came back", "--by", "pavel")
	var state struct {
		Balance   string
		BalanceAt string `json:"balance_at"`
		Closed    bool
		Log       []struct{ Reason string }
	}
	if err := json.Unmarshal([]byte(o.does("ledger", "account", "show", account, "--at", "2020-01-01", "--json")), &state); err != nil {
		t.Fatal(err)
	}
	if state.Balance != "500.00" || state.BalanceAt != "0.00" || state.Closed || len(state.Log) != 2 || state.Log[0].Reason != "came back" {
		t.Errorf("the account is %+v", state)
	}
	if _, stderr, code := zvonok(t, o.url, "ledger", "account", "show", account, "--at", "yesterday"); code != exitUsage {
		t.Errorf("a moment that is none: exit %d %s", code, stderr)
	}

	// Whatever is decided is put down to somebody.
	for _, args := range [][]string{
		{"resolve", "1", "--how", "agreed"},
		{"release", "--partner", "mkb", "--txn", "12", "--account", account},
		{"refund", "pay", number},
		{"refund", "decline", number},
		{"refund", "end", number, "--how", "given"},
		{"close", "--through", "2026-01-01"},
		{"reopen", "2026-01-01", "--reason", "x"},
		{"account", "close", account, "--reason", "x"},
		{"account", "open", account, "--reason", "x"},
		{"move", person, "--to", other},
	} {
		for _, by := range [][]string{nil, {"--by", ""}, {"--by", "  "}, {"--by", strings.Repeat("я", 65)}, {"--by", "x\x1b[2J"}, {"--by", "olga (os:pavel)"}} {
			if out, stderr, code := zvonok(t, o.url, append(append([]string{"ledger"}, args...), by...)...); code != exitUsage {
				t.Errorf("%v %q: exit %d %s%s", args, by, code, out, stderr)
			}
		}
	}
	var releasedBy, takenBy string
	o.read(`SELECT y.released_by, f.taken_by FROM topup.payment y, topup.registry_file f WHERE y.released_by IS NOT NULL`, &releasedBy, &takenBy)
	if !strings.HasPrefix(releasedBy, "olga (os:") || !strings.HasPrefix(takenBy, "os:") {
		t.Errorf("kept are %q and %q", releasedBy, takenBy)
	}

	// The bank sends a corrected file.
	corrected := filepath.Join(t.TempDir(), "corrected.txt")
	if err := os.WriteFile(corrected, []byte(strings.Replace(text, ";t1\nT", ";t2\nT", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	o.fails("--replaces 1", "ledger", "reconcile", "--partner", "mkb", corrected)
	if out := o.does("ledger", "reconcile", "--partner", "mkb", corrected, "--replaces", "1", "--by", "olga"); !strings.Contains(out, "in the place of number 1") {
		t.Errorf("the corrected file says\n%s", out)
	}

	// A sale of the day before yesterday, then the days are closed.
	book := ledger.NewBook(nil)
	before := yesterday.AddDate(0, 0, -1)
	sell := func(sale meal.Sale) {
		t.Helper()
		if err := pgx.BeginFunc(t.Context(), o.pool, func(tx pgx.Tx) error {
			events, err := ledger.NextEventIDs(t.Context(), tx, 1)
			if err != nil {
				return err
			}
			sale.Event, sale.Person, sale.Kind, sale.Meal, sale.Device = events[0], id, meal.Hot, "lunch", 1
			verdicts, err := meal.NewCanteen(book, nil).Sell(t.Context(), tx, []meal.Sale{sale})
			if err == nil && verdicts[0].Code != meal.CodeSold {
				t.Errorf("the sale is %+v", verdicts[0])
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	sell(meal.Sale{Total: 110_00, At: before, Seq: 1})
	day := before.Format(time.DateOnly)
	turnover := []string{"report", "turnover", "--payee", payee, "--from", day}
	if out := o.does(append(turnover, "--format", "csv")...); !strings.Contains(out, day+","+home+",") || !strings.Contains(out, ",110.00\n") {
		t.Errorf("the turnover is\n%s", out)
	}
	sheet := filepath.Join(t.TempDir(), "turnover.xlsx")
	o.does(append(turnover, "--format", "xlsx", "--out", sheet)...)
	if data, err := os.ReadFile(sheet); err != nil || !strings.HasPrefix(string(data), "PK") {
		t.Errorf("the spreadsheet: %v", err)
	}
	// A mistyped provider is not one that is owed nothing.
	o.fails(`no provider "kpp"`, "report", "turnover", "--payee", "kpp", "--from", day)
	o.fails(`no provider "kpp"`, "report", "orders", "--payee", "kpp", "--day", day)
	if out := o.does("report", "orders", "--payee", payee, "--day", day, "--json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("the order sheet is %s", out)
	}
	o.fails("is not closed", "ledger", "day", day)
	earlier := before.AddDate(0, 0, -1)
	o.does("ledger", "close", "--through", earlier.Format(time.DateOnly), "--by", "olga")
	sell(meal.Sale{Total: 30_00, At: earlier, Seq: 2, Mode: ledger.Offline}) // late, for a day that is closed
	if out := o.does("ledger", "close", "--through", day, "--by", "olga"); !strings.Contains(out, day) || !strings.Contains(out, "140.00") {
		t.Errorf("closing says\n%s", out)
	}

	// What the closed day holds, and what of it came late (T8).
	if out := o.does("ledger", "day", day); !strings.Contains(out, "2 postings, 140.00") || !strings.Contains(out, "1 wallets") ||
		!strings.Contains(out, "provider "+payee) || !strings.Contains(out, "1 of it belonged to earlier days") || !strings.Contains(out, account) {
		t.Errorf("the day holds\n%s", out)
	}
	var held struct {
		Closing  struct{ Postings int }
		Accounts []struct{ Kind, Debit, Credit string }
		Late     []struct {
			FromDay string `json:"from_day"`
			Sum     string
		}
	}
	if err := json.Unmarshal([]byte(o.does("ledger", "day", day, "--json")), &held); err != nil {
		t.Fatal(err)
	}
	if held.Closing.Postings != 2 || len(held.Accounts) != 2 || held.Accounts[0].Credit != "140.00" || held.Accounts[1].Debit != "140.00" ||
		len(held.Late) != 1 || held.Late[0].FromDay != earlier.Format(time.DateOnly) || held.Late[0].Sum != "30.00" {
		t.Errorf("the day holds %+v", held)
	}
	o.does("ledger", "reopen", day, "--by", "olga", "--reason", "a test")

	// The trial balance: what the provider is owed now, and that it is zero together (I1).
	var trial struct {
		Accounts  []struct{ Kind, Owner, Debit, Credit string }
		Wallets   int
		InWallets string `json:"in_wallets"`
	}
	if err := json.Unmarshal([]byte(o.does("ledger", "totals", "--json")), &trial); err != nil {
		t.Fatal(err)
	}
	if trial.Wallets == 0 || trial.InWallets != "360.00" ||
		!slices.Contains(trial.Accounts, struct{ Kind, Owner, Debit, Credit string }{"provider", payee, "0.00", "140.00"}) {
		t.Errorf("the trial balance is %+v", trial)
	}
	balanced := regexp.MustCompile(`(?m)^provider ` + payee + ` +0\.00 +140\.00 +140\.00 +2$(?s:.*)^together +0\.00 *$`)
	if out := o.does("ledger", "totals"); !balanced.MatchString(out) {
		t.Errorf("the trial balance is\n%s", out)
	}
	invent := func(kopecks int) {
		t.Helper()
		owner, err := pgx.Connect(t.Context(), o.url)
		if err != nil {
			t.Fatal(err)
		}
		defer owner.Close(context.WithoutCancel(t.Context()))
		if _, err := owner.Exec(t.Context(), `UPDATE ledger.balance SET posted = posted + $1 WHERE posted > 0`, kopecks); err != nil {
			t.Fatal(err)
		}
	}
	invent(1)
	if out, _, code := zvonok(t, o.url, "ledger", "totals"); code != exitFailed || !strings.Contains(out, "0.01") {
		t.Errorf("with a kopeck too many: exit %d\n%s", code, out)
	}
	invent(-1)

	// What was done to days is on record, with the seal that is void now.
	var done []struct{ Day, Action, By, Reason, Seal string }
	if err := json.Unmarshal([]byte(o.does("ledger", "closings", "--day", day, "--json")), &done); err != nil {
		t.Fatal(err)
	}
	var actions []string
	for _, d := range done {
		actions = append(actions, d.Action)
		if d.Day != day || !strings.HasPrefix(d.By, "olga (os:") {
			t.Errorf("on record is %+v", d)
		}
	}
	if want := []string{"reopened", "sealed", "closed"}; !slices.Equal(actions, want) {
		t.Fatalf("on record are %v, want %v", actions, want)
	}
	if done[0].Reason != "a test" || len(done[0].Seal) != 64 || done[0].Seal != done[1].Seal || done[2].Seal != "" {
		t.Errorf("on record are %+v", done)
	}
	if out := o.does("ledger", "closings", "--limit", "1"); strings.Count(out, "\n") != 2 || !strings.Contains(out, done[0].Seal+"  a test") {
		t.Errorf("the last that was done is\n%s", out)
	}
	if out := o.does("ledger", "closings", "--day", "2020-01-01", "--json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("of a day that was never closed there is %s", out)
	}

	// The child changes school: the account and its money go along.
	if out := o.does("ledger", "move", person, "--to", other, "--group", "1A", "--by", "olga"); !strings.Contains(out, account+" went along with 360.00") {
		t.Errorf("moving says %s", out)
	}
	o.fails("outside organisation", "ledger", "move", person, "--to", other, "--by", "olga")
	today := time.Now().In(book.Zone).Format(time.DateOnly)
	if out := o.does("report", "moves", "--from", today, "--format", "csv"); !strings.Contains(out, account+","+home+","+other) ||
		!strings.Contains(out, "360.00,olga (os:") {
		t.Errorf("the moves are\n%s", out)
	}
	execute(t, o.url, `INSERT INTO ledger.move (at, account_id, person_id, from_id, to_id, from_payee, to_payee, balance, actor)
		SELECT '2026-01-15 00:30:00+03', account_id, person_id, from_id, to_id, from_payee, to_payee, balance, actor FROM ledger.move`) // the day before, in Greenwich
	if out := o.does("report", "moves", "--from", "2026-01-15", "--format", "csv"); !strings.Contains(out, "\n2026-01-15,"+account) {
		t.Errorf("the moves of the night are\n%s", out)
	}
	if out := o.does("ledger", "verify"); !strings.HasPrefix(out, "ok") {
		t.Errorf("the verification says\n%s", out)
	}
}

// bank.md: banks number their answers differently, send times of their zones and
// registries of their columns; all of it is said when the bank is added.
func TestABankIsAddedWithItsNumbersZoneAndColumns(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	var code, account string
	o.read(`SELECT y.payment_code, a.number
	          FROM ledger.account a
	          JOIN ledger.person p ON p.id = a.person_id
	          JOIN ledger.organisation g ON g.id = p.organisation_id
	          JOIN ledger.payee y ON y.code = g.payee_code
	         ORDER BY a.id LIMIT 1`, &code, &account)
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	add := []string{"partner", "add", "--name", "kaspi", "--dialect", "osmp", "--payees", code, "--allow", "192.0.2.0/24"}
	o.fails(`there is no outcome "lost"; there are [bad_account `, append(add, "--codes", "lost=2")...)
	o.fails("time zone", append(add, "--time-zone", "Moon/Base")...)
	const columns = `"time": "02.01.2006 15:04", "columns": {"txn": 1, "at": 2, "account": 3, "amount": 4}}`
	for words, text := range map[string]string{
		"decimal_coma":         `{"decimal_coma": true, ` + columns, // silently without it, sums would be misread
		"more than one object": "{" + columns + "{}",
		"layout: the columns":  "null", // no layout is our own format, which nobody asked for
	} {
		o.fails(words, append(add, "--layout-file", write("layout.json", text))...)
	}
	if out := o.does("partner", "list", "--json"); strings.TrimSpace(out) != "[]" {
		t.Fatalf("a partner was added: %s", out)
	}
	o.does(append(add, "--codes", "not_found=2,too_small=3", "--time-zone", "Asia/Yekaterinburg",
		"--layout-file", write("layout.json", "{"+columns))...)
	var list []struct {
		Codes map[string]int
		Zone  string `json:"time_zone"`
	}
	if err := json.Unmarshal([]byte(o.does("partner", "list", "--json")), &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != 1 || list[0].Codes["not_found"] != 2 || list[0].Codes["too_small"] != 3 || len(list[0].Codes) != 2 {
		t.Errorf("the partner is %+v", list)
	}
	o.does("ledger", "reconcile", "--partner", "kaspi", write("registry.txt", "7;21.11.2026 08:30;"+account+";500.00\n"))
	var at time.Time
	o.read(`SELECT bank_at FROM topup.payment WHERE txn_id = '7'`, &at)
	if want := time.Date(2026, 11, 21, 3, 30, 0, 0, time.UTC); !at.Equal(want) {
		t.Errorf("the bank took it at %s, want %s", at, want)
	}
}

// A bank moves, changes its password and leaves; its gateway follows, what went wrong
// changes nothing, and the money of its last day is settled all the same.
func TestABankIsChangedDisabledAndEnabledByCommands(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	var code, account, inn string
	o.read(`SELECT y.payment_code, a.number, y.inn
	          FROM ledger.account a
	          JOIN ledger.person p ON p.id = a.person_id
	          JOIN ledger.organisation g ON g.id = p.organisation_id
	          JOIN ledger.payee y ON y.code = g.payee_code
	         ORDER BY a.id LIMIT 1`, &code, &account, &inn)
	write := func(text string) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	o.does("partner", "add", "--name", "mkb", "--dialect", "osmp", "--payees", code, "--allow", "192.0.2.0/24",
		"--user", "kiosk", "--password-file", write("old password\n"))

	jobs, err := insertClient(o.pool)
	if err != nil {
		t.Fatal(err)
	}
	endpoints := topup.NewEndpoints(topup.Config{
		Pool: o.pool, Book: ledger.NewBook(jobs), Log: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	server := httptest.NewServer(endpoints.Handler())
	t.Cleanup(func() {
		server.Close()
		endpoints.Close()
	})
	// check asks as the bank does: the status, and the result that it is told.
	check := func(password, sum string) string {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
			server.URL+"/pay/osmp/mkb?command=check&txn_id=1&account="+account+"&sum="+sum, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.SetBasicAuth("kiosk", password)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		var answer struct {
			Result string `xml:"result"`
		}
		if response.StatusCode == http.StatusOK {
			if err := xml.NewDecoder(response.Body).Decode(&answer); err != nil {
				t.Fatal(err)
			}
		}
		return strings.TrimSpace(fmt.Sprint(response.StatusCode, " ", answer.Result))
	}
	becomes := func(want, password, sum string) {
		t.Helper()
		eventually(t, "the answer "+want, func() bool { return check(password, sum) == want })
	}
	const refused = "403"
	if got := check("old password", "100.00"); got != refused {
		t.Errorf("from an address that is not the bank's: %s", got)
	}
	o.does("partner", "set", "mkb", "--allow", "127.0.0.0/8,::1/128", "--by", "Olga")
	becomes("200 0", "old password", "100.00")
	o.does("partner", "set", "mkb", "--password-file", write("new password\n"), "--min", "50", "--may-cancel", "--by", "Olga")
	becomes("200 0", "new password", "100.00")
	becomes("200 241", "new password", "49.00")
	if got := check("old password", "100.00"); got != refused {
		t.Errorf("the old password: %s", got)
	}
	if out := o.does("partner", "set", "mkb", "--min", "50"); !strings.Contains(out, "is so already") {
		t.Errorf("the same again: %s", out)
	}

	// One wrong flag, and none of them is taken.
	before, logged := o.does("partner", "list", "--json"), o.does("partner", "log", "mkb", "--json")
	for _, wrong := range [][]string{
		{"--allow", "127.0.0.1/8"},
		{"--min", "5"},
		{"--max", "20000"},
		{"--show", "all"},
		{"--payees", "999"},
		{"--time-zone", "Moon/Base"},
		{"--codes", "lost=2"},
		{"--password-file", write("short")},
		{"--secret-file", write("\n")},
		{"--layout-file", write("null")},
	} {
		o.fails("", append([]string{"partner", "set", "mkb", "--no-may-cancel"}, wrong...)...)
	}
	for _, wrong := range [][]string{
		{},
		{"--no-may-cancel", "--user", ""},
		{"--no-may-cancel", "--allow", ""},
		{"--no-may-cancel", "--payees", ""},
		{"--no-may-cancel", "--codes", ""},
		{"--no-may-cancel", "--show", ""},
		{"--no-may-cancel", "--password-file", ""},
		{"--no-may-cancel", "--max", "0"},
		{"--no-may-cancel", "--without", "password"},
		{"--no-may-cancel", "--user", "x", "--without", "user"},
		{"--no-may-cancel", "--name", "other"},
		{"--no-may-cancel", "--dialect", "sber"},
	} {
		if out, _, code := zvonok(t, o.url, append([]string{"partner", "set", "mkb"}, wrong...)...); code == exitDone {
			t.Errorf("%q was taken: %s", wrong, out)
		}
	}
	o.fails(`there is none named "mbk"`, "partner", "set", "mbk", "--min", "60")
	o.fails(`there is none named "mbk"`, "partner", "disable", "mbk")
	if after := o.does("partner", "list", "--json") + o.does("partner", "log", "mkb", "--json"); after != before+logged {
		t.Errorf("something was changed:\n%s\n%s", before+logged, after)
	}

	o.does("partner", "disable", "mkb", "--by", "Olga")
	becomes(refused, "new password", "100.00")
	o.fails("disabled already", "partner", "disable", "mkb")
	if out := o.does("partner", "list"); !strings.Contains(out, "disabled") {
		t.Errorf("the list is\n%s", out)
	}
	day := time.Now().In(ledger.NewBook(nil).Zone).AddDate(0, 0, -1)
	o.does("ledger", "reconcile", "--partner", "mkb", write(fmt.Sprintf("H;mkb;%s;%s;1\nP;11;%s;%s;500.00;0.00;t1\nT;1;500.00\n",
		inn, day.Format(time.DateOnly), day.Format(time.RFC3339), account)))
	if out := o.does("ledger", "statement", account); !strings.Contains(out, "account "+account+": 500.00") {
		t.Errorf("the statement is\n%s", out)
	}
	o.does("partner", "enable", "mkb")
	becomes("200 0", "new password", "100.00")
	o.does("partner", "set", "mkb", "--without", "user")
	becomes("200 0", "no password", "100.00")

	// Who did it, and never what to.
	var log []struct {
		Action   string
		Settings []string
		By       string
	}
	text := o.does("partner", "log", "mkb", "--json")
	if err := json.Unmarshal([]byte(text), &log); err != nil {
		t.Fatal(err)
	}
	var acts []string
	for _, entry := range log {
		acts = append(acts, entry.Action+" "+strings.Join(entry.Settings, ","))
	}
	slices.Reverse(acts)
	want := []string{"changed allow", "changed password,min,may-cancel", "disabled ", "enabled ", "changed user,password"}
	if !slices.Equal(acts, want) || !strings.HasPrefix(log[len(log)-1].By, "Olga (os:") || !strings.HasPrefix(log[0].By, "os:") {
		t.Errorf("the log is %s", text)
	}
	if strings.Contains(text, "new password") || strings.Contains(o.does("partner", "list", "--json"), "new password") {
		t.Error("a password is shown")
	}
	if out := o.does("partner", "log", "mkb"); !strings.Contains(out, "password,min,may-cancel") {
		t.Errorf("the log is\n%s", out)
	}
	o.does("ledger", "verify")
}

// A child that changes school by the registry has the money it had ordered meals
// for at the old one at once, as one that is moved by hand has.
func TestAnImportedMoveFreesTheMoneyOfOrderedMeals(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	var person ledger.PersonID
	var code, home, other string
	o.read(`SELECT p.id, p.code, g.code, (SELECT min(x.code) FROM ledger.organisation x WHERE x.code <> g.code)
	          FROM ledger.person p
	          JOIN ledger.organisation g ON g.id = p.organisation_id
	         WHERE p.kind = 'pupil' ORDER BY p.id LIMIT 1`, &person, &code, &home, &other)
	book := ledger.NewBook(nil)
	day := time.Now().In(book.Zone).AddDate(0, 0, 10)
	held := func() money.Amount {
		t.Helper()
		balances, err := ledger.Balances(t.Context(), o.pool, []ledger.PersonID{person})
		if err != nil {
			t.Fatal(err)
		}
		return balances[person].Held
	}
	if err := pgx.BeginFunc(t.Context(), o.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), `
			INSERT INTO meal.menu (organisation_id, day, meal, dish, price)
			SELECT organisation_id, $2, 'lunch', 'Soup', 4500 FROM ledger.person WHERE id = $1`, person, day.Format(time.DateOnly)); err != nil {
			return err
		}
		accounts, err := ledger.SystemAccounts(t.Context(), tx, ledger.SystemAccount{Kind: ledger.WriteOff})
		if err != nil {
			return err
		}
		balances, err := ledger.Balances(t.Context(), tx, []ledger.PersonID{person})
		if err != nil {
			return err
		}
		if _, err := book.Post(t.Context(), tx, []ledger.Entry{{
			Event: 1, Kind: ledger.Correction, Debit: accounts[0], Credit: balances[person].Account, Amount: 100_00,
			Source: "test", ExternalID: "1", OccurredAt: time.Now(),
		}}); err != nil {
			return err
		}
		verdicts, err := meal.NewCanteen(book, nil).PlaceOrders(t.Context(), tx, []meal.Order{{Person: person, Day: day, Meal: "lunch"}}, 1, time.Now())
		if err == nil && verdicts[0].Code != meal.CodeOrdered {
			t.Errorf("the order is %+v", verdicts[0])
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	o.does("import", registryFolder(t, nil))
	if got := held(); got != 45_00 {
		t.Errorf("before the move %s are held", got)
	}
	o.does("import", registryFolder(t, map[string]func(string) string{
		"people.csv": func(s string) string { return strings.Replace(s, "\n"+code+","+home+",", "\n"+code+","+other+",", 1) },
	}))
	if got := held(); got != 0 {
		t.Errorf("after the move %s are held", got)
	}
	o.does("ledger", "verify")
}

// What the gateway does each night.
func TestTheNightClosesTheBooks(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	book := ledger.NewBook(nil)
	book.Metrics = ledger.NewMetrics(prometheus.NewRegistry())
	canteen := meal.NewCanteen(book, nil)
	now := time.Now()
	if err := pgx.BeginFunc(t.Context(), o.pool, func(tx pgx.Tx) error {
		ids, err := ledger.SystemAccounts(t.Context(), tx, ledger.SystemAccount{Kind: ledger.Settled, Owner: "x"}, ledger.SystemAccount{Kind: ledger.Budget})
		if err != nil {
			return err
		}
		_, err = book.Post(t.Context(), tx, []ledger.Entry{{
			Event: 1, Kind: ledger.Subsidy, Debit: ids[0], Credit: ids[1], Amount: 1, Source: "s", ExternalID: "1",
			OccurredAt: now.AddDate(0, 0, -2),
		}})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second night process finds nothing to do
		if err := closeBooks(t.Context(), o.pool, book, canteen, now, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
	}
	var sealed int
	var through time.Time
	o.read(`SELECT (SELECT count(*) FROM ledger.day WHERE seal IS NOT NULL AND postings = 1), closed_through FROM ledger.gate`,
		&sealed, &through)
	if last, err := ledger.LastVerification(t.Context(), o.pool); err != nil || last.At.IsZero() || last.Found["I13"] != 0 {
		t.Errorf("the last verification is %+v, %v", last, err)
	}
	var verified int
	o.read(`SELECT count(*) FROM ledger.verification`, &verified)
	if verified != 1 {
		t.Errorf("the books were verified %d times in two processes", verified)
	}
	// The book's yesterday, which is no other day's in the hours when it is midnight there and not here.
	if yesterday := now.In(book.Zone).AddDate(0, 0, -1).Format(time.DateOnly); sealed != 1 || through.Format(time.DateOnly) != yesterday {
		t.Errorf("%d days with the posting are sealed, closed is up to %s, not %s", sealed, through.Format(time.DateOnly), yesterday)
	}
}
