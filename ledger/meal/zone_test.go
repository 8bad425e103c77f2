package meal_test

import (
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger/meal"
	"zvonok/ledger/money"
)

// A day of a limit, of a subsidised meal and of a preorder's cut-off is the
// school's own: in Vladivostok it ends at 17:00 of Moscow.
func TestTheDayIsThatOfTheSchool(t *testing.T) {
	t.Parallel()
	c := newCanteen(t)
	c.topUp(c.payer, 1000_00)
	c.exec(`UPDATE ledger.organisation SET time_zone = 'Asia/Vladivostok'`)
	vladivostok, err := time.LoadLocation("Asia/Vladivostok")
	c.must(err)
	limit := money.Amount(100_00)
	c.setLimit(c.payer, &limit)
	year, month, date := noon.AddDate(0, 0, -2).Date()
	midnight := time.Date(year, month, date, 0, 0, 0, 0, vladivostok)
	before, after := midnight.Add(-time.Minute), midnight.Add(time.Minute)
	at := func(s meal.Sale, when time.Time) meal.Sale {
		s.At = when
		return s
	}
	left := func(when time.Time) money.Amount {
		t.Helper()
		answer, err := c.Authorize(t.Context(), c.pool, meal.Ask{Person: c.payer, Kind: meal.Buffet, Total: 1, Device: 1, At: when})
		c.must(err)
		return *answer.LimitLeft
	}
	verdicts := c.sell(
		at(c.sale(c.payer, meal.Buffet, "", 100_00), before),
		at(c.sale(c.payer, meal.Buffet, "", 1), before),
		at(c.sale(c.payer, meal.Buffet, "", 60_00), after),
		at(c.sale(c.full, meal.Subsidised, "lunch", 90_00), before),
		at(c.sale(c.full, meal.Subsidised, "lunch", 90_00), before),
		at(c.sale(c.full, meal.Subsidised, "lunch", 90_00), after))
	if got, want := codes(verdicts), []meal.Code{
		meal.CodeSold, meal.CodeOverLimit, meal.CodeSold, meal.CodeSold, meal.CodeAlreadyServed, meal.CodeSold,
	}; !slices.Equal(got, want) {
		t.Errorf("verdicts %v, want %v", got, want)
	}
	if left(before) != 0 || left(after) != 40_00 {
		t.Errorf("the limit leaves %s before midnight, %s after it", left(before), left(after))
	}
	if n := c.count(`SELECT count(*) FROM ledger.posting p JOIN meal.sale s ON s.event_id = p.event_id
	                  WHERE p.booking_day = s.day AND s.day = (s.at AT TIME ZONE 'Asia/Vladivostok')::date`); n != 4 {
		t.Errorf("%d of 4 sales are on the school's day", n)
	}

	lunch := day(5)
	_, err = c.importMenu("s1," + lunch.Format(time.DateOnly) + ",lunch,Борщ,,,,,,,45.00\n")
	c.must(err)
	cutOff := time.Date(lunch.Year(), lunch.Month(), lunch.Day()-3, 0, 0, 0, 0, vladivostok)
	for _, row := range []struct {
		now  time.Time
		want meal.Code
	}{{cutOff, meal.CodeTooLate}, {cutOff.Add(-time.Second), meal.CodeOrdered}} {
		c.inTx(func(tx pgx.Tx) error {
			verdicts, err := c.PlaceOrders(t.Context(), tx, []meal.Order{{Person: c.payer, Day: lunch, Meal: "lunch"}}, mother, row.now)
			if err == nil && verdicts[0].Code != row.want {
				t.Errorf("an order at %s is %s, want %s", row.now, verdicts[0].Code, row.want)
			}
			return err
		})
	}
	c.sound()
}
