package topup_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger/money"
	"zvonok/ledger/topup"
)

// R31, R33, R34, R36 to R38: each way to pay, complete in both languages.
func TestTheDirectoryTellsHowToPayAtEachBankInBothLanguages(t *testing.T) {
	t.Parallel()
	c := newCity(t)
	office := topup.Office{
		Point: "bm-office", Name: "Отделение «Пример»", Address: "ул. Примерная, 1", Metro: "Примерная",
		Hours: "9:00-20:00", Break: "14:00-15:00", Weekend: "вс",
	}
	c.inTx(func(tx pgx.Tx) error { return topup.ReplaceOffices(t.Context(), tx, []topup.Office{office}) })
	ask := func(query string) (d topup.Directory) {
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
	if err := pgx.BeginFunc(t.Context(), c.pool, func(tx pgx.Tx) error {
		return topup.ReplaceOffices(t.Context(), tx, []topup.Office{{Point: "nowhere", Name: "x", Address: "x"}})
	}); err == nil {
		t.Error("an office of no way to pay was taken")
	}
}
