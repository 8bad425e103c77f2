package topup_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"zvonok/ledger/money"
	"zvonok/ledger/pg"
	"zvonok/ledger/registry"
	"zvonok/ledger/topup"
)

// R31, R33, R34, R36, R37, R38: each way to pay, complete in both languages.
func TestTheDirectoryTellsHowToPayAtEachBankInBothLanguages(t *testing.T) {
	t.Parallel()
	c := newCity(t)
	office := topup.Office{
		Point: "bm-office", Name: "Отделение «Пример»", Address: "ул. Примерная, 1", Metro: "Примерная",
		Hours: "9:00-20:00", Break: "14:00-15:00", Weekend: "вс",
	}
	const header = "point,name,address,phone,metro,hours,break,weekend\n"
	importOffices := func(lines string) (*registry.Report, error) {
		folder, err := registry.OpenFS(fstest.MapFS{registry.Offices: {Data: []byte(header + lines)}})
		c.must(err)
		return registry.Run(t.Context(), c.pool, folder, topup.Import)
	}
	_, err := importOffices("bm-office,Отделение «Пример»,\"ул. Примерная, 1\",,Примерная,9:00-20:00,14:00-15:00,вс\n")
	c.must(err)
	ask := func(query string) (d topup.Directory) {
		c.clock.add(time.Minute) // what was read before is too old
		recorder := httptest.NewRecorder()
		c.endpoints.DirectoryHandler().ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/api/v1/topup-points"+query, nil))
		if recorder.Code != http.StatusOK {
			t.Fatalf("status %d", recorder.Code)
		}
		c.must(json.Unmarshal(recorder.Body.Bytes(), &d))
		return d
	}
	d := ask("")
	points := map[string]topup.Point{}
	for _, p := range d.Points {
		points[p.Code] = p
		if len(p.Steps.RU) == 0 || len(p.Steps.RU) != len(p.Steps.EN) || p.Title.RU == "" || p.Title.EN == "" || p.Bank.EN == "" {
			t.Errorf("%s is not complete in both languages", p.Code)
		}
		if p.Min != 10*money.Rouble || p.Max != 15_000*money.Rouble || p.Commission != 0 {
			t.Errorf("%s: %s to %s for %s", p.Code, p.Min, p.Max, p.Commission)
		}
	}
	for code, steps := range map[string]int{
		"portal": 3, "sber-card": 8, "sber-cash": 7, "sber-online": 4, "mkb-terminal": 5, "bm-terminal": 5, "bm-office": 3, "bm-mobile": 3,
	} {
		if got := len(points[code].Steps.RU); got != steps {
			t.Errorf("%s has %d steps, want %d", code, got, steps)
		}
	}
	// Each way of R31 by the name that parents know.
	for code, bank := range map[string]string{
		"portal": "МПГУ", "sber-online": "Сбербанк Онлайн", "sber-card": "Сбербанка", "sber-cash": "Сбербанка",
		"bm-terminal": "Банка Москвы", "bm-mobile": "«БМ mobile»", "mkb-terminal": "МКБ",
	} {
		if p := points[code]; !strings.Contains(p.Bank.RU+" "+p.Title.RU, bank) {
			t.Errorf("%s is %q of %q, and does not name %s", code, p.Title.RU, p.Bank.RU, bank)
		}
	}
	if len(d.Payees) != 2 || d.Payees[0] != (topup.PayeeCode{Name: "АО Пример", INN: "7700000000", PaymentCode: "916"}) {
		t.Errorf("payees: %+v", d.Payees)
	}
	if got := points["bm-office"].Offices; len(got) != 1 || got[0].Break != office.Break {
		t.Errorf("offices: %+v", got)
	}
	for query, want := range map[string]int{"?metro=%D0%BF%D1%80%D0%B8%D0%BC%D0%B5%D1%80%D0%BD%D0%B0%D1%8F": 1, "?metro=x": 0} {
		for _, p := range ask(query).Points {
			if p.Code == "bm-office" && len(p.Offices) != want {
				t.Errorf("%s: %d offices", query, len(p.Offices))
			}
		}
	}
	report, err := importOffices("bm-office,A,B,,,9-20,,\nnowhere,A,B,,,9-20,,\n")
	if err == nil || report.Found != 1 || report.Problems[0].Line != 3 {
		t.Errorf("an office of no way to pay: %v, %+v", err, report)
	}
	for _, p := range ask("").Points {
		if p.Code == "bm-office" && len(p.Offices) != 1 {
			t.Error("a bad file has changed the offices")
		}
	}
}

// Everybody may ask where to pay, and at any speed: the banks' payments do not
// wait behind it.
func TestAFloodOfQuestionsWhereToPayIsOneQuery(t *testing.T) {
	t.Parallel()
	c := newCity(t).withBanks()
	owner, err := pg.Open(t.Context(), pg.Config{URL: c.url, MaxConns: 1, AppName: "locker"})
	c.must(err)
	defer owner.Close()
	locked, err := owner.Begin(t.Context())
	c.must(err)
	defer locked.Rollback(t.Context()) // after the one below it does nothing
	_, err = locked.Exec(t.Context(), `LOCK TABLE topup.office`)
	c.must(err)
	waiting := func() (n int) {
		t.Helper()
		c.must(locked.QueryRow(t.Context(), `SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'topup.office'::regclass`).Scan(&n))
		return n
	}
	var readers sync.WaitGroup
	for range 15 { // one less than there are connections
		readers.Go(func() {
			recorder := httptest.NewRecorder()
			c.endpoints.DirectoryHandler().ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/api/v1/topup-points?metro=x", nil))
			if recorder.Code != http.StatusOK && recorder.Code != http.StatusServiceUnavailable { // that, when the lock is held for 10 s
				t.Errorf("status %d", recorder.Code)
			}
		})
	}
	for deadline := time.Now().Add(time.Minute); waiting() == 0; {
		if time.Now().After(deadline) {
			t.Fatal("nobody has asked")
		}
	}
	most := 0
	// Not longer than a lock is waited for.
	for i, began := 0, time.Now(); i < 300 && time.Since(began) < 2*time.Second; i++ {
		most = max(most, waiting())
	}
	if most != 1 {
		t.Errorf("the offices were read %d times at once", most)
	}
	c.must(locked.Rollback(t.Context()))
	readers.Wait()
	// What one asked for is not what the next one gets.
	c.exec(`INSERT INTO topup.office (point, name, address, metro, hours) VALUES ('bm-office', 'A', 'B', 'Y', '9-20')`)
	c.clock.add(time.Minute)
	for _, query := range []string{"?metro=x", "", "?metro=y"} {
		recorder := httptest.NewRecorder()
		c.endpoints.DirectoryHandler().ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/api/v1/topup-points"+query, nil))
		if body := recorder.Body.String(); recorder.Code != http.StatusOK || strings.Contains(body, `"name":"A"`) != (query != "?metro=x") {
			t.Errorf("%q: status %d, %s", query, recorder.Code, body)
		}
	}
}
