package meal_test

import (
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger"
	"zvonok/ledger/meal"
	"zvonok/ledger/money"
)

const mother = 7001

func (c *canteen) setLimit(person ledger.PersonID, limit *money.Amount) {
	c.Helper()
	c.inTx(func(tx pgx.Tx) error { return meal.SetLimit(c.Context(), tx, person, limit, mother, noon) })
}

func TestTheDaysLimitStopsTheBuffetOnly(t *testing.T) {
	t.Parallel()
	c := newCanteen(t)
	c.topUp(c.payer, 1000_00)
	limit := money.Amount(100_00)
	c.setLimit(c.payer, &limit)
	tooMuch := c.sale(c.payer, meal.Buffet, "", 50_01)
	verdicts := c.sell(
		c.sale(c.payer, meal.Buffet, "", 50_00),
		tooMuch,
		c.sale(c.payer, meal.Buffet, "", 50_00),
		c.sale(c.payer, meal.Hot, "lunch", 110_00),
		offline(c.sale(c.payer, meal.Buffet, "", 70_00)))
	if got, want := codes(verdicts), []meal.Code{
		meal.CodeSold, meal.CodeOverLimit, meal.CodeSold, meal.CodeSold, meal.CodeSold,
	}; !slices.Equal(got, want) {
		t.Errorf("verdicts %v, want %v", got, want)
	}
	tomorrow := c.sale(c.payer, meal.Buffet, "", 100_00)
	tomorrow.At = noon.AddDate(0, 0, 1)
	if v := c.sell(tomorrow)[0]; v.Code != meal.CodeSold {
		t.Errorf("on the next day a sale is %s", v.Code)
	}
	stopped, err := meal.BlockedPurchases(t.Context(), c.pool, c.payer, day(0), day(1))
	c.must(err)
	if len(stopped) != 1 || stopped[0].Event != tooMuch.Event || stopped[0].Reason != meal.CodeOverLimit || stopped[0].Total != 50_01 {
		t.Errorf("stopped purchases %+v", stopped)
	}
	c.setLimit(c.payer, nil)
	if v := c.sell(c.sale(c.payer, meal.Buffet, "", 100_00))[0]; v.Code != meal.CodeSold {
		t.Errorf("without a limit a sale is %s", v.Code)
	}
	c.sound()
}

// A ban holds whichever of ё and е the parent, the till and the canteen wrote.
func TestABanHoldsForYoAndYeAlike(t *testing.T) {
	t.Parallel()
	c := newCanteen(t)
	c.topUp(c.payer, 1000_00)
	c.inTx(func(tx pgx.Tx) error {
		_, err := meal.SetProducts(t.Context(), tx, []meal.Product{
			{Organisation: c.school, Code: "h1", Name: "Чак-чак", Category: "Печёное", Allergens: []string{"мед"}},
		})
		return err
	})
	_, err := c.importMenu("s1," + day(0).Format(time.DateOnly) + ",lunch,Перец тёртый,,,,,,мёд,90.00\n")
	c.must(err)
	for _, row := range []struct {
		ban  meal.Ban
		item meal.Item
	}{
		{meal.Ban{Kind: meal.BanAllergen, Value: "Мёд"}, meal.Item{Code: "h1", Name: "x"}},
		{meal.Ban{Kind: meal.BanAllergen, Value: "мед"}, meal.Item{Name: "Перец тертый"}},
		{meal.Ban{Kind: meal.BanCategory, Value: "печеное"}, meal.Item{Code: "h1", Name: "x"}},
		{meal.Ban{Kind: meal.BanDish, Value: "Чёрный чай"}, meal.Item{Name: "черный чай"}},
		{meal.Ban{Kind: meal.BanDish, Value: "черный чай"}, meal.Item{Name: "ЧЁРНЫЙ ЧАЙ"}},
		// A till that sends only its code, and one that has a name of its own for it.
		{meal.Ban{Kind: meal.BanDish, Value: "чак-чак"}, meal.Item{Code: "h1"}},
		{meal.Ban{Kind: meal.BanDish, Value: "Чак-чак"}, meal.Item{Code: "h1", Name: "Выпечка 7"}},
	} {
		c.inTx(func(tx pgx.Tx) error {
			return meal.SetBans(t.Context(), tx, c.payer, []meal.Ban{row.ban}, mother, noon)
		})
		row.item.Quantity, row.item.Price = 1, 10_00
		s := c.sale(c.payer, meal.Buffet, "", 10_00)
		s.Items = []meal.Item{row.item}
		if v := c.sell(s)[0]; v.Code != meal.CodeBanned {
			t.Errorf("%v under the ban %v is %s", row.item, row.ban, v.Code)
		}
	}
	c.sound()
}

// Sales of one child that come by several connections at once do not pass the
// parents' limit together.
func TestSimultaneousSalesDoNotPassTheLimit(t *testing.T) {
	t.Parallel()
	c := newCanteen(t)
	c.topUp(c.payer, 1000_00)
	limit := money.Amount(100_00)
	c.setLimit(c.payer, &limit)
	sold, _ := c.atOnce(16, func() meal.Sale { return c.sale(c.payer, meal.Buffet, "", 30_00) })
	if sold != 3 {
		t.Errorf("%d sales of 30 were booked under a limit of 100", sold)
	}
	c.sound()
}

func TestBansByDishCategoryAndAllergen(t *testing.T) {
	t.Parallel()
	c := newCanteen(t)
	c.topUp(c.payer, 1000_00)
	c.inTx(func(tx pgx.Tx) error {
		if _, err := meal.SetProducts(t.Context(), tx, []meal.Product{
			{Organisation: c.school, Code: "c1", Name: "Шоколад", Category: "Сладости", Allergens: []string{"Молоко", "орехи"}},
			{Organisation: c.school, Code: "j1", Name: "Сок", Category: "Напитки"},
		}); err != nil {
			return err
		}
		return meal.SetBans(t.Context(), tx, c.payer, []meal.Ban{{meal.BanDish, " Чипсы "}, {meal.BanAllergen, "Орехи"}}, mother, noon)
	})
	item := func(code, name string) meal.Item { return meal.Item{Code: code, Name: name, Quantity: 1, Price: 10_00} }
	buy := func(items ...meal.Item) meal.Sale {
		s := c.sale(c.payer, meal.Buffet, "", money.Amount(len(items))*10_00)
		s.Items = items
		return s
	}
	for _, row := range []struct {
		name  string
		items []meal.Item
		want  meal.Code
		value string
	}{
		{"what is not banned", []meal.Item{item("j1", "Сок"), item("x", "Булочка")}, meal.CodeSold, ""},
		{"a banned dish by its name", []meal.Item{item("j1", "Сок"), item("x", "чипсы")}, meal.CodeBanned, "чипсы"},
		{"a product with a banned allergen", []meal.Item{item("c1", "Шоколадка")}, meal.CodeBanned, "орехи"},
	} {
		sale := buy(row.items...)
		if v := c.sell(sale)[0]; v.Code != row.want {
			t.Errorf("%s is %+v, want %s", row.name, v, row.want)
		}
		if row.value != "" {
			var value string
			c.must(c.pool.QueryRow(t.Context(), `SELECT value FROM meal.blocked WHERE event_id = $1`, sale.Event).Scan(&value))
			if value != row.value {
				t.Errorf("%s is noted as %q", row.name, value)
			}
		}
	}
	// What menu.csv says of today's dishes counts for a till without codes, in the
	// buffet and of a paid hot meal; the limit is the buffet's alone.
	_, err := c.importMenu("s1," + day(0).Format(time.DateOnly) + ",lunch,Котлета,,,,,,Орехи;глютен,90.00\n")
	c.must(err)
	nothing := money.Amount(0)
	c.setLimit(c.payer, &nothing)
	cutlet := buy(item("", "котлета"))
	if v := c.sell(cutlet)[0]; v.Code != meal.CodeBanned {
		t.Errorf("a dish whose menu declares a banned allergen is %s", v.Code)
	}
	hot := c.sale(c.payer, meal.Hot, "lunch", 10_00)
	hot.Items = cutlet.Items
	answer, err := c.Authorize(t.Context(), c.pool, meal.Ask{
		Person: c.payer, Kind: meal.Hot, Meal: "lunch", Items: hot.Items, Total: 10_00, Device: 1, At: noon,
	})
	c.must(err)
	if answer.Allow || answer.Reason != meal.CodeBanned || !slices.Equal(answer.Banned, []int{0}) || answer.LimitLeft != nil {
		t.Errorf("a hot meal of a banned dish is told %+v", answer)
	}
	if v := c.sell(hot)[0]; v.Code != meal.CodeBanned {
		t.Errorf("a hot meal of a banned dish is %s", v.Code)
	}
	hot = c.sale(c.payer, meal.Hot, "lunch", 10_00)
	hot.Items = []meal.Item{item("", "Суп")}
	if v := c.sell(hot)[0]; v.Code != meal.CodeSold {
		t.Errorf("a hot meal over the buffet's limit is %s", v.Code)
	}
	c.setLimit(c.payer, nil)
	c.inTx(func(tx pgx.Tx) error {
		return meal.SetBans(t.Context(), tx, c.payer, []meal.Ban{{meal.BanCategory, "сладости"}}, mother, noon)
	})
	if v := c.sell(buy(item("x", "чипсы")))[0]; v.Code != meal.CodeSold {
		t.Errorf("what is not banned any more is %s", v.Code)
	}
	if v := c.sell(buy(item("c1", "Шоколад")))[0]; v.Code != meal.CodeBanned {
		t.Errorf("a banned category is %s", v.Code)
	}
	if v := c.sell(offline(buy(item("c1", "Шоколад"))))[0]; v.Code != meal.CodeSold {
		t.Errorf("what has been eaten is %s", v.Code)
	}
	c.inTx(func(tx pgx.Tx) error {
		for _, bans := range [][]meal.Ban{{{"colour", "red"}}, {{meal.BanDish, " "}}} {
			if err := meal.SetBans(t.Context(), tx, c.payer, bans, mother, noon); err == nil {
				t.Errorf("the bans %v were taken", bans)
			}
		}
		return nil
	})
}

// The answer to a till before it sells is what the sale would get.
func TestATillIsToldWhatASaleWouldGet(t *testing.T) {
	t.Parallel()
	c := newCanteen(t)
	c.topUp(c.payer, 100_00)
	limit := money.Amount(60_00)
	c.setLimit(c.payer, &limit)
	c.inTx(func(tx pgx.Tx) error {
		return meal.SetBans(t.Context(), tx, c.payer, []meal.Ban{{meal.BanDish, "чипсы"}}, mother, noon)
	})
	c.sell(c.sale(c.payer, meal.Buffet, "", 20_00), c.sale(c.full, meal.Subsidised, "lunch", 90_00))
	chips := []meal.Item{{Name: "Сок", Quantity: 1, Price: 10_00}, {Name: "Чипсы", Quantity: 1, Price: 10_00}}
	for _, row := range []struct {
		name string
		ask  meal.Ask
		want meal.Code // empty: allowed
	}{
		{"within everything", meal.Ask{Person: c.payer, Kind: meal.Buffet, Total: 40_00}, ""},
		{"above the limit", meal.Ask{Person: c.payer, Kind: meal.Buffet, Total: 40_01}, meal.CodeOverLimit},
		{"a banned item", meal.Ask{Person: c.payer, Kind: meal.Buffet, Total: 20_00, Items: chips}, meal.CodeBanned},
		{"a debt meal", meal.Ask{Person: c.payer, Kind: meal.Hot, Meal: "lunch", Total: 200_00}, ""},
		{"more than the debt floor", meal.Ask{Person: c.payer, Kind: meal.Hot, Meal: "lunch", Total: 380_01}, meal.CodeNotEnough},
		{"the buffet on nothing", meal.Ask{Person: c.lunch, Kind: meal.Buffet, Total: 1}, meal.CodeNotEnough},
		{"a second subsidised lunch", meal.Ask{Person: c.full, Kind: meal.Subsidised, Meal: "Lunch", Total: 90_00}, meal.CodeAlreadyServed},
		{"a subsidised breakfast", meal.Ask{Person: c.full, Kind: meal.Subsidised, Meal: "breakfast", Total: 90_00}, ""},
		{"a meal the city does not pay", meal.Ask{Person: c.payer, Kind: meal.Subsidised, Meal: "lunch", Total: 90_00}, meal.CodeNotEntitled},
		{"nobody", meal.Ask{Person: 4711, Kind: meal.Buffet, Total: 1}, meal.CodeUnknownPerson},
		{"a bad total", meal.Ask{Person: c.payer, Kind: meal.Buffet, Total: -1}, meal.CodeBadTotal},
	} {
		row.ask.At, row.ask.Device = noon, 1
		before := c.count(`SELECT count(*) FROM ledger.posting`)
		answer, err := c.Authorize(t.Context(), c.pool, row.ask)
		c.must(err)
		if answer.Reason != row.want || answer.Allow != (row.want == "") || (answer.Message == "") != answer.Allow {
			t.Errorf("%s: %+v, want %q", row.name, answer, row.want)
		}
		if row.ask.Person == c.payer && row.ask.Kind == meal.Buffet && row.want != meal.CodeBadTotal {
			if answer.Balance != 80_00 || answer.LimitLeft == nil || *answer.LimitLeft != 40_00 {
				t.Errorf("%s: balance %s, limit left %v", row.name, answer.Balance, answer.LimitLeft)
			}
		}
		if row.want == meal.CodeBanned && !slices.Equal(answer.Banned, []int{1}) {
			t.Errorf("banned items %v", answer.Banned)
		}
		if after := c.count(`SELECT count(*) FROM ledger.posting`); after != before {
			t.Errorf("%s: asking booked something", row.name)
		}
		sale := c.sale(row.ask.Person, row.ask.Kind, row.ask.Meal, row.ask.Total)
		sale.Items = row.ask.Items
		tx, err := c.pool.Begin(t.Context())
		c.must(err)
		verdicts, err := c.Sell(t.Context(), tx, []meal.Sale{sale})
		c.must(err)
		c.must(tx.Rollback(t.Context()))
		if got := verdicts[0].Code; got != row.want && !(row.want == "" && got == meal.CodeSold) {
			t.Errorf("%s: the till is told %q, the sale is %s", row.name, row.want, got)
		}
	}
	if n := c.count(`SELECT count(*) FROM meal.blocked`); n != 2 {
		t.Errorf("%d stopped purchases are noted", n)
	}
}

// The parents hear of an attempt once, by a job of the transaction that notes it.
func TestAStoppedPurchaseIsAnnouncedOncePerAttempt(t *testing.T) {
	t.Parallel()
	c := newCanteen(t)
	c.topUp(c.payer, 100_00)
	limit := money.Amount(60_00)
	c.setLimit(c.payer, &limit)
	told := func() (events []int64) {
		t.Helper()
		rows, err := c.pool.Query(t.Context(), `SELECT args FROM river.river_job WHERE kind = 'meal_stopped' ORDER BY id`)
		c.must(err)
		facts, err := pgx.CollectRows(rows, pgx.RowTo[meal.Stopped])
		c.must(err)
		for _, fact := range facts {
			events = append(events, fact.EventIDs...)
		}
		return events
	}
	ask := meal.Ask{Person: c.payer, Kind: meal.Buffet, Total: 70_00, Device: 1, At: noon}
	for _, step := range []struct {
		name string
		at   time.Time
		till int64
		want int // attempts announced so far
	}{
		{"the first attempt", noon, 1, 1},
		{"the same once more", noon.Add(time.Minute), 1, 1},
		{"at another till", noon.Add(2 * time.Minute), 2, 2},
		{"in the next break", noon.Add(time.Hour), 1, 3},
	} {
		ask.At, ask.Device = step.at, step.till
		answer, err := c.Authorize(t.Context(), c.pool, ask)
		c.must(err)
		if answer.Reason != meal.CodeOverLimit {
			t.Fatalf("%s is %+v", step.name, answer)
		}
		if got := len(told()); got != step.want {
			t.Errorf("after %s %d attempts are announced, want %d", step.name, got, step.want)
		}
	}
	twice := []meal.Sale{c.sale(c.payer, meal.Buffet, "", 70_00), c.sale(c.payer, meal.Buffet, "", 70_00)}
	for i := range twice {
		twice[i].At = noon.Add(3 * time.Hour)
	}
	c.sell(twice...)
	events := told()
	if len(events) != 4 {
		t.Fatalf("announced %v", events)
	}
	stopped, err := meal.StoppedPurchases(t.Context(), c.pool, meal.Stopped{EventIDs: events})
	c.must(err)
	if len(stopped) != 4 || stopped[0].Person != c.payer || stopped[0].Reason != meal.CodeOverLimit || stopped[3].Total != 70_00 {
		t.Errorf("stopped %+v", stopped)
	}
	// What is rolled back was never announced.
	tx, err := c.pool.Begin(t.Context())
	c.must(err)
	late := c.sale(c.payer, meal.Buffet, "", 70_00)
	late.At = noon.Add(5 * time.Hour)
	_, err = c.Sell(t.Context(), tx, []meal.Sale{late})
	c.must(err)
	c.must(tx.Rollback(t.Context()))
	if got := told(); len(got) != 4 {
		t.Errorf("a rolled back attempt was announced: %v", got)
	}
}
