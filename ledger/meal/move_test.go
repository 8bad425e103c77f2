package meal_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger"
	"zvonok/ledger/meal"
)

// An account moves with its child between schools and providers: the number and
// the money stay, the orders at the old canteen are freed, what the next
// provider is owed from then on is its own, and the balance that moved is noted.
func TestAnAccountMovesWithItsChild(t *testing.T) {
	t.Parallel()
	c := newCanteen(t)
	c.topUp(c.payer, 300_00)
	c.exec(`INSERT INTO ledger.payee (code, name, inn, payment_code) VALUES ('kp2', 'Kombinat 2', '7707083893', '917')`)
	var other ledger.OrganisationID
	c.must(c.pool.QueryRow(t.Context(), `
		INSERT INTO ledger.organisation (code, kind, name, short_name, payee_code, time_zone, debt_floor)
		VALUES ('s2', 'school', 'School 2', 'S2', 'kp2', 'Europe/Moscow', -5000) RETURNING id`).Scan(&other))
	friday := day(5)
	_, err := c.importMenu("s1," + friday.Format(time.DateOnly) + ",lunch,Борщ,,,,,,,45.00\n")
	c.must(err)
	c.inTx(func(tx pgx.Tx) error {
		verdicts, err := c.PlaceOrders(t.Context(), tx, []meal.Order{{Person: c.payer, Day: friday, Meal: "lunch"}}, mother, noon)
		if err == nil && verdicts[0].Code != meal.CodeOrdered {
			t.Fatalf("the order is %s", verdicts[0].Code)
		}
		return err
	})
	c.sell(c.sale(c.payer, meal.Hot, "lunch", 100_00))
	before := c.balance(c.payer)

	began := time.Now().Add(-time.Minute)
	c.inTx(func(tx pgx.Tx) error {
		freed, err := c.Move(t.Context(), tx, c.payer, other, "5Б", "olga")
		if freed != 1 {
			t.Errorf("%d orders are freed", freed)
		}
		return err
	})
	after := c.balance(c.payer)
	if after.Number != before.Number || after.Account != before.Account || after.Posted != 200_00 || after.Held != 0 ||
		after.DebtFloor != -50_00 {
		t.Errorf("the wallet was %+v and is %+v", before, after)
	}
	moves, err := ledger.Moves(t.Context(), c.pool, began, time.Now().Add(time.Minute))
	c.must(err)
	if len(moves) != 1 || moves[0].FromOrganisation != "s1" || moves[0].ToOrganisation != "s2" || moves[0].FromPayee != "kp" ||
		moves[0].ToPayee != "kp2" || moves[0].Balance != 200_00 || moves[0].Number != before.Number || moves[0].Actor != "olga" {
		t.Errorf("moves %+v", moves)
	}
	c.sell(c.sale(c.payer, meal.Hot, "lunch", 30_00))
	for payee, want := range map[ledger.PayeeCode]int{"kp": 100_00, "kp2": 30_00} {
		lines, err := meal.Turnover(t.Context(), c.pool, payee, day(0), day(0))
		c.must(err)
		if len(lines) != 1 || int(lines[0].Net()) != want {
			t.Errorf("the turnover of %s is %+v", payee, lines)
		}
	}
	c.inTx(func(tx pgx.Tx) error {
		sub, err := tx.Begin(t.Context())
		c.must(err)
		if _, err := c.Move(t.Context(), sub, c.payer, other, "", "olga"); err == nil {
			t.Error("it moved to where it is")
		}
		return sub.Rollback(t.Context())
	})

	// The registry's import is a move as well; so is an organisation's new provider.
	c.exec(`UPDATE ledger.person SET organisation_id = $2 WHERE id = $1`, c.payer, c.school)
	c.exec(`UPDATE ledger.organisation SET payee_code = 'kp2' WHERE id = $1`, c.school)
	moves, err = ledger.Moves(t.Context(), c.pool, began, time.Now().Add(time.Minute))
	c.must(err)
	if len(moves) != 3 || moves[1].ToOrganisation != "s1" || moves[1].Actor != "import" || moves[1].Balance != 170_00 ||
		moves[2].FromOrganisation != "s1" || moves[2].ToOrganisation != "s1" || moves[2].FromPayee != "kp" || moves[2].ToPayee != "kp2" {
		t.Errorf("moves %+v", moves)
	}
	c.sound()
}

// A report of a closed day does not change: a late sale and a return are of the
// day they are booked on, and the report is what the book moved.
func TestTheTurnoverOfAClosedDayNeverChanges(t *testing.T) {
	t.Parallel()
	c := newCanteen(t)
	c.topUp(c.payer, 1000_00)
	yesterday := func(s meal.Sale) meal.Sale {
		s.At = noon.AddDate(0, 0, -1)
		return s
	}
	first := yesterday(c.sale(c.payer, meal.Hot, "lunch", 110_00))
	c.sell(first)
	read := func() (ofYesterday, ofToday []meal.TurnoverLine) {
		t.Helper()
		var err error
		ofYesterday, err = meal.Turnover(t.Context(), c.pool, "kp", day(-1), day(-1))
		c.must(err)
		ofToday, err = meal.Turnover(t.Context(), c.pool, "kp", day(0), day(0))
		c.must(err)
		return ofYesterday, ofToday
	}
	closed, _ := read()
	_, err := ledger.CloseDays(t.Context(), c.pool, day(-1), "test")
	c.must(err)
	c.sell(offline(yesterday(c.sale(c.payer, meal.Hot, "lunch", 40_00))))
	c.takeBack(first.Seq)
	was, today := read()
	if len(was) != 1 || was[0] != closed[0] || was[0].Net() != 110_00 {
		t.Errorf("the closed day's report was %+v and is %+v", closed, was)
	}
	if len(today) != 1 || today[0].Sales != 1 || today[0].Late != 1 || today[0].Returns != 1 || today[0].Net() != -70_00 {
		t.Errorf("today's report is %+v", today)
	}
	if got := was[0].Net() + today[0].Net(); got != c.total(ledger.Provider) {
		t.Errorf("the reports say %s, the book %s", got, c.total(ledger.Provider))
	}
	c.sound()
}
