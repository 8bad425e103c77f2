package meal_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/xuri/excelize/v2"

	"zvonok/ledger"
	"zvonok/ledger/meal"
	"zvonok/ledger/money"
	"zvonok/ledger/registry"
)

const menuHeader = "org_id,date,meal,dish,portion_g,kcal,protein_g,fat_g,carbohydrate_g,allergens,price\n"

func (c *canteen) importMenu(lines string) (*registry.Report, error) {
	c.Helper()
	folder, err := registry.OpenFS(fstest.MapFS{registry.Menu: {Data: []byte(menuHeader + lines)}})
	c.must(err)
	return registry.Run(c.Context(), c.pool, folder, meal.Import)
}

func TestMenusAreImported(t *testing.T) {
	t.Parallel()
	c := newCanteen(t)
	lines := "s1,2026-11-23,Lunch,Борщ,250,112.5,4.1,6.2,10,молоко; Глютен;молоко,45.00\n" +
		"s1,2026-11-23,lunch,Котлета,90,,,,,,60\n" +
		"s1,2026-11-23,breakfast,Каша,200,180,,,,,40.50\n"
	report, err := c.importMenu(lines)
	c.must(err)
	if !slices.Equal(report.Counts, []registry.Count{{File: registry.Menu, Added: 3}}) {
		t.Errorf("counts %+v", report.Counts)
	}
	report, err = c.importMenu(strings.Replace(lines, "45.00", "47.00", 1))
	c.must(err)
	if !slices.Equal(report.Counts, []registry.Count{{File: registry.Menu, Changed: 1, Left: 2}}) {
		t.Errorf("counts %+v", report.Counts)
	}
	monday := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	menu, err := meal.Menu(t.Context(), c.pool, c.school, monday)
	c.must(err)
	if len(menu) != 2 || menu[0].Meal != "breakfast" || menu[1].Meal != "lunch" || len(menu[1].Dishes) != 2 {
		t.Fatalf("menu %+v", menu)
	}
	soup := menu[1].Dishes[0]
	if soup.Name != "Борщ" || *soup.Energy != 112_500 || *soup.Protein != 4_100 || soup.Price != 47_00 ||
		!slices.Equal(soup.Allergens, []string{"молоко", "глютен"}) || menu[1].Dishes[1].Energy != nil {
		t.Errorf("soup %+v, cutlet %+v", soup, menu[1].Dishes[1])
	}
	for _, row := range []struct{ name, lines, want string }{
		{"an unknown organisation", "s9,2026-11-23,lunch,Борщ,,,,,,,45.00\n", `menu.csv line 2: org_id "s9" is not known`},
		{"a dish twice", "s1,2026-11-24,lunch,Борщ,,,,,,,45.00\ns1,2026-11-24,lunch,Борщ,,,,,,,46.00\n", `given on line 2 already`},
		{"a price with a comma", "s1,2026-11-24,lunch,Борщ,,,,,,,\"45,00\"\n", `price "45,00" must be a sum like 150.00`},
		{"no price", "s1,2026-11-24,lunch,Борщ,,,,,,,\n", `price "" must be a sum`},
		{"a negative price", "s1,2026-11-24,lunch,Борщ,,,,,,,-1.00\n", `price "-1.00" must be 0.00 to`},
		{"no date", "s1,,lunch,Борщ,,,,,,,1.00\n", `date "" must be a date`},
		{"calories in words", "s1,2026-11-24,lunch,Борщ,,many,,,,,1.00\n", `kcal "many" must be a number like 12.5`},
		{"a mountain", "s1,2026-11-24,lunch,Борщ,1000000,,,,,,1.00\n", `portion_g "1000000" is above 100,000`},
	} {
		report, err := c.importMenu(row.lines)
		if err == nil || len(report.Problems) != 1 || !strings.Contains(report.Problems[0].String(), row.want) {
			t.Errorf("%s: %v, %v", row.name, err, report.Problems)
		}
	}
	if n := c.count(`SELECT count(*) FROM meal.menu`); n != 3 {
		t.Errorf("%d dishes after imports that failed", n)
	}
}

func TestACycleMenuRepeats(t *testing.T) {
	t.Parallel()
	c := newCanteen(t)
	_, err := c.importMenu("s1,2026-11-23,lunch,Борщ,,,,,,,45.00\ns1,2026-11-24,lunch,Щи,,,,,,,45.00\ns1,2026-11-30,lunch,Плов,,,,,,,50.00\n")
	c.must(err)
	monday := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	c.inTx(func(tx pgx.Tx) error {
		n, err := meal.RepeatMenu(t.Context(), tx, c.school, monday, 7, monday.AddDate(0, 0, 21))
		if n != 4 {
			t.Errorf("%d lines written", n)
		}
		return err
	})
	for after, want := range map[int]string{7: "Плов", 8: "Щи", 9: "", 14: "Борщ", 15: "Щи", 21: "Борщ", 22: ""} {
		menu, err := meal.Menu(t.Context(), c.pool, c.school, monday.AddDate(0, 0, after))
		c.must(err)
		got := ""
		if len(menu) > 0 {
			got = menu[0].Dishes[0].Name
		}
		if got != want {
			t.Errorf("after %d days there is %q, want %q", after, got, want)
		}
	}
}

func TestOrdersHoldMoneyUntilTheyAreServed(t *testing.T) {
	t.Parallel()
	c := newCanteen(t)
	c.topUp(c.payer, 200_00)
	friday := day(5)
	for _, dish := range []string{"Борщ,,,,,,,45.00", "Котлета,,,,,,,60.00"} {
		_, err := c.importMenu("s1," + friday.Format(time.DateOnly) + ",lunch," + dish + "\n")
		c.must(err)
	}
	place := func(now time.Time, orders ...meal.Order) (verdicts []meal.OrderVerdict) {
		t.Helper()
		c.inTx(func(tx pgx.Tx) (err error) {
			verdicts, err = c.PlaceOrders(t.Context(), tx, orders, mother, now)
			return err
		})
		return verdicts
	}
	whole := meal.Order{Person: c.payer, Day: friday, Meal: "Lunch"}
	soup := meal.Order{Person: c.payer, Day: friday, Meal: "lunch", Dish: "Борщ"}
	midnight := time.Date(friday.Year(), friday.Month(), friday.Day(), 0, 0, 0, 0, time.FixedZone("MSK", 3*60*60))
	cutOff := midnight.Add(-meal.DefaultCutOff)
	verdicts := place(cutOff.Add(-time.Second), whole, whole, soup,
		meal.Order{Person: c.payer, Day: friday, Meal: "dinner"},
		meal.Order{Person: c.payer, Day: friday, Meal: "lunch", Dish: "Плов"},
		meal.Order{Person: c.lunch, Day: friday, Meal: "lunch"},
		meal.Order{Person: 4711, Day: friday, Meal: "lunch"})
	var got []meal.Code
	for _, v := range verdicts {
		got = append(got, v.Code)
	}
	if want := []meal.Code{
		meal.CodeOrdered, meal.CodeOrderedBefore, meal.CodeOrdered, meal.CodeNotOnMenu, meal.CodeNotOnMenu,
		meal.CodeNotEnough, meal.CodeUnknownPerson,
	}; !slices.Equal(got, want) {
		t.Fatalf("verdicts %v, want %v", got, want)
	}
	if b := c.balance(c.payer); b.Held != 150_00 {
		t.Errorf("held %s", b.Held)
	}
	if v := place(cutOff, meal.Order{Person: c.payer, Day: friday, Meal: "lunch", Dish: "Котлета"})[0]; v.Code != meal.CodeTooLate {
		t.Errorf("at the cut-off an order is %s", v.Code)
	}
	cancel := func(now time.Time, ids ...meal.OrderID) (cancelled []meal.OrderID) {
		t.Helper()
		c.inTx(func(tx pgx.Tx) (err error) {
			cancelled, err = c.CancelOrders(t.Context(), tx, c.payer, ids, now)
			return err
		})
		return cancelled
	}
	if ids := cancel(cutOff, verdicts[2].ID); len(ids) != 0 {
		t.Error("an order was cancelled after the cut-off")
	}
	if ids := cancel(cutOff.Add(-time.Second), verdicts[2].ID, 4711); !slices.Equal(ids, []meal.OrderID{verdicts[2].ID}) {
		t.Errorf("cancelled %v", ids)
	}
	if b := c.balance(c.payer); b.Held != 105_00 {
		t.Errorf("held after cancelling %s", b.Held)
	}
	sheet, err := meal.OrderSheet(t.Context(), c.pool, "kp", friday)
	c.must(err)
	if !slices.Equal(sheet, []meal.SheetLine{{Organisation: "s1", Name: "School 1", Meal: "lunch", Portions: 1, Total: 105_00}}) {
		t.Errorf("order sheet %+v", sheet)
	}

	// The wallet has 95.00 free; the ordered lunch is paid from what is held.
	c.exec(`UPDATE ledger.organisation SET debt_floor = 0`)
	lunch := c.sale(c.payer, meal.Hot, "lunch", 105_00)
	lunch.At = midnight.Add(12 * time.Hour)
	other := c.sale(c.payer, meal.Hot, "lunch", 96_00) // of today: nothing is ordered for it
	if v := c.sell(other)[0]; v.Code != meal.CodeNotEnough {
		t.Errorf("a meal from held money is %s", v.Code)
	}
	for _, row := range []struct {
		at      time.Time
		meal    string
		kind    meal.Kind
		want    meal.Code
		balance money.Amount
	}{
		{lunch.At, "Lunch", meal.Hot, "", 200_00},
		{lunch.At, "dinner", meal.Hot, meal.CodeNotEnough, 95_00},
		{lunch.At, "", meal.Buffet, meal.CodeNotEnough, 95_00},
		{noon, "lunch", meal.Hot, meal.CodeNotEnough, 95_00},
	} {
		answer, err := c.Authorize(t.Context(), c.pool, meal.Ask{Person: c.payer, Kind: row.kind, Meal: row.meal, Total: 105_00, Device: 1, At: row.at})
		c.must(err)
		if answer.Reason != row.want || answer.Allow != (row.want == "") || answer.Balance != row.balance {
			t.Errorf("a till that asks for a %s %q of the %s is told %+v", row.kind, row.meal, row.at, answer)
		}
	}
	held, err := meal.HeldMeals(t.Context(), c.pool, c.school, friday)
	c.must(err)
	if len(held) != 1 || !slices.Equal(held[c.payer], []meal.HeldMeal{{Meal: "lunch", Held: 105_00}}) {
		t.Errorf("held for meals: %v", held)
	}
	if v := c.sell(lunch)[0]; v.Code != meal.CodeSold || v.Balance != 95_00 {
		t.Errorf("the ordered meal is %+v", v)
	}
	orders, err := meal.Orders(t.Context(), c.pool, c.payer, friday, friday)
	c.must(err)
	var states []string
	for _, o := range orders {
		states = append(states, o.State)
	}
	slices.Sort(states)
	if !slices.Equal(states, []string{"cancelled", "served"}) || c.balance(c.payer).Held != 0 {
		t.Errorf("orders %+v, held %s", orders, c.balance(c.payer).Held)
	}
	c.sound()

	// An order that is never served lapses.
	if v := place(cutOff.Add(-time.Second), soup)[0]; v.Code != meal.CodeOrdered {
		t.Fatalf("ordering again is %s", v.Code)
	}
	c.inTx(func(tx pgx.Tx) error {
		n, err := c.LapseOrders(t.Context(), tx, friday)
		if n != 0 {
			t.Errorf("%d orders lapsed on their day", n)
		}
		return err
	})
	c.inTx(func(tx pgx.Tx) error {
		n, err := c.LapseOrders(t.Context(), tx, friday.AddDate(0, 0, 1))
		if n != 1 {
			t.Errorf("%d orders lapsed", n)
		}
		return err
	})
	if b := c.balance(c.payer); b.Held != 0 {
		t.Errorf("held after the order lapsed %s", b.Held)
	}
	c.sound()
}

// T8: a till that was offline reports an ordered lunch after the night in which the
// order lapsed: the parent and the kitchen read of it as they would have in time.
func TestAnOrderThatLapsedBeforeItsSaleCameIsServed(t *testing.T) {
	t.Parallel()
	c := newCanteen(t)
	c.topUp(c.payer, 200_00)
	yesterday := day(-1)
	_, err := c.importMenu("s1," + yesterday.Format(time.DateOnly) + ",lunch,Борщ,,,,,,,45.00\n")
	c.must(err)
	for _, orders := range [][]meal.Order{
		{{Person: c.payer, Day: yesterday, Meal: "lunch"}},
		{{Person: c.payer, Day: yesterday, Meal: "lunch", Dish: "Борщ"}, {Person: c.payer, Day: yesterday, Meal: "lunch"}},
	} {
		c.inTx(func(tx pgx.Tx) error {
			_, err := c.PlaceOrders(t.Context(), tx, orders, mother, yesterday.AddDate(0, 0, -7))
			return err
		})
		// The first one's night is followed by a second order, as when a child moves away and back.
		_, err := ledger.CloseDays(t.Context(), c.pool, yesterday, "test")
		c.must(err)
		c.inTx(func(tx pgx.Tx) error {
			_, err := c.LapseOrders(t.Context(), tx, day(0))
			return err
		})
	}
	dinner, lunch := offline(c.sale(c.payer, meal.Hot, "dinner", 10_00)), offline(c.sale(c.payer, meal.Hot, "lunch", 90_00))
	dinner.At, lunch.At = noon.AddDate(0, 0, -1), noon.AddDate(0, 0, -1)
	states := func() (states []string) {
		t.Helper()
		orders, err := meal.Orders(t.Context(), c.pool, c.payer, yesterday, yesterday)
		c.must(err)
		for _, o := range orders {
			states = append(states, o.Dish+" "+o.State)
		}
		return states
	}
	c.sell(dinner)
	if got := states(); !slices.Equal(got, []string{" lapsed", " lapsed", "Борщ lapsed"}) {
		t.Errorf("after another meal the orders are %q", got)
	}
	for range 2 {
		if v := c.sell(lunch)[0]; !v.Booked() || v.Balance != 100_00 {
			t.Errorf("the late lunch is %+v", v)
		}
	}
	if got := states(); !slices.Equal(got, []string{" lapsed", " served", "Борщ served"}) {
		t.Errorf("the orders are %q", got)
	}
	sheet, err := meal.OrderSheet(t.Context(), c.pool, "kp", yesterday)
	c.must(err)
	if len(sheet) != 2 || sheet[0].Portions != 1 || sheet[1].Portions != 1 {
		t.Errorf("the order sheet is %+v", sheet)
	}
	if held := c.balance(c.payer).Held; held != 0 {
		t.Errorf("%s is held", held)
	}
	c.sound()
}

// What a parent reads of a child's orders costs the same after years of everybody's.
func TestAChildsOrdersAreReadWithoutEverybodyElses(t *testing.T) {
	t.Parallel()
	c := newCanteen(t)
	c.exec(`INSERT INTO meal.preorder (person_id, organisation_id, day, meal, price, state, ordered_by, ordered_at)
	        SELECT CASE WHEN n % 1000 = 0 THEN $1::bigint ELSE $2::bigint END, $3::bigint, $4::date - n / 100, 'lunch', 100, 'cancelled', $5, now()
	          FROM generate_series(1, 50000) n`, int64(c.payer), int64(c.full), int64(c.school), day(0), mother)
	c.exec(`VACUUM ANALYZE meal.preorder`)
	c.inTx(func(tx pgx.Tx) error {
		pages := func() (n int) { // that this connection has touched; within a transaction it only grows
			c.must(tx.QueryRow(t.Context(), `
				SELECT pg_stat_get_xact_blocks_fetched('meal.preorder'::regclass) +
				       (SELECT sum(pg_stat_get_xact_blocks_fetched(indexrelid)) FROM pg_index WHERE indrelid = 'meal.preorder'::regclass)`).Scan(&n))
			return n
		}
		before := pages()
		orders, err := meal.Orders(t.Context(), tx, c.payer, day(-100), day(0))
		if n := pages() - before; len(orders) != 10 || n < 1 || n > 40 {
			t.Errorf("%d orders are read from %d pages", len(orders), n)
		}
		return err
	})
}

// An order whose meal the wallet cannot pay after all stays an order.
func TestAnOrderSurvivesARefusedSale(t *testing.T) {
	t.Parallel()
	c := newCanteen(t)
	c.exec(`UPDATE ledger.organisation SET debt_floor = 0`)
	c.topUp(c.payer, 50_00)
	friday := day(5)
	_, err := c.importMenu("s1," + friday.Format(time.DateOnly) + ",lunch,Борщ,,,,,,,45.00\n")
	c.must(err)
	c.inTx(func(tx pgx.Tx) error {
		_, err := c.PlaceOrders(t.Context(), tx, []meal.Order{{Person: c.payer, Day: friday, Meal: "lunch"}}, mother, noon)
		return err
	})
	dearer := c.sale(c.payer, meal.Hot, "lunch", 60_00)
	dearer.At = friday.Add(9 * time.Hour)
	if v := c.sell(dearer)[0]; v.Code != meal.CodeNotEnough {
		t.Errorf("the dearer meal is %s", v.Code)
	}
	orders, err := meal.Orders(t.Context(), c.pool, c.payer, friday, friday)
	c.must(err)
	if len(orders) != 1 || orders[0].State != "placed" {
		t.Errorf("orders %+v", orders)
	}
	c.sound()
}

func TestTheProvidersTurnover(t *testing.T) {
	t.Parallel()
	c := newCanteen(t)
	c.topUp(c.payer, 1000_00)
	lunch := c.sale(c.payer, meal.Hot, "lunch", 110_00)
	c.sell(lunch, c.sale(c.payer, meal.Hot, "lunch", 110_00), c.sale(c.payer, meal.Buffet, "", 35_50),
		c.sale(c.full, meal.Subsidised, "lunch", 95_00), c.sale(c.payer, meal.Buffet, "", 5000_00))
	c.takeBack(lunch.Seq)
	lines, err := meal.Turnover(t.Context(), c.pool, "kp", day(0), day(0))
	c.must(err)
	var text bytes.Buffer
	c.must(meal.TurnoverSheet(lines).WriteCSV(&text))
	date := day(0).Format(time.DateOnly)
	want := "day,org_id,organisation,kind,meal,paid_by,sales,late,total,returns,returned,net\n" +
		date + ",s1,School 1,buffet,,wallet,1,0,35.50,0,0.00,35.50\n" +
		date + ",s1,School 1,hot,lunch,wallet,2,0,220.00,1,110.00,110.00\n" +
		date + ",s1,School 1,subsidised,lunch,budget,1,0,95.00,0,0.00,95.00\n"
	if text.String() != want {
		t.Errorf("the report is\n%swant\n%s", text.String(), want)
	}
	if got := lines[0].Net() + lines[1].Net() + lines[2].Net(); got != c.total("provider")+c.total("buffet") {
		t.Errorf("the report says %s, the book owes %s", got, c.total("provider")+c.total("buffet"))
	}
	var sheet bytes.Buffer
	c.must(meal.TurnoverSheet(lines).WriteXLSX(&sheet))
	file, err := excelize.OpenReader(&sheet)
	c.must(err)
	defer file.Close()
	rows, err := file.GetRows("turnover", excelize.Options{RawCellValue: true})
	c.must(err)
	if len(rows) != 5 || rows[0][0] != "day" || rows[2][3] != "hot" || rows[2][8] != "220" || rows[1][11] != "35.5" ||
		rows[4][0] != "total" || rows[4][11] != "240.5" {
		t.Errorf("the sheet is %q", rows)
	}
	if others, err := meal.Turnover(t.Context(), c.pool, "nobody", day(0), day(0)); err != nil || len(others) != 0 {
		t.Errorf("another payee's turnover is %v, %v", others, err)
	}
}

// What a till calls a meal, or a registry an organisation, is no formula in the
// accountant's spreadsheet; a sum below zero stays a number.
func TestAReportRunsNoFormula(t *testing.T) {
	t.Parallel()
	var text bytes.Buffer
	line := meal.TurnoverLine{
		Day: day(0), Organisation: "+1", Name: `=HYPERLINK("http://example.org")`, Kind: meal.Hot, Meal: "@SUM(A1)", Booked: "wallet",
		Returns: 1, Returned: 110_00,
	}
	if err := meal.TurnoverSheet([]meal.TurnoverLine{line}).WriteCSV(&text); err != nil {
		t.Fatal(err)
	}
	_, got, _ := strings.Cut(text.String(), "\n")
	want := day(0).Format(time.DateOnly) + `,'+1,"'=HYPERLINK(""http://example.org"")",hot,'@SUM(A1),wallet,0,0,0.00,1,110.00,-110.00` + "\n"
	if got != want {
		t.Errorf("the line is\n%swant\n%s", got, want)
	}
	var sheet bytes.Buffer
	if err := meal.TurnoverSheet([]meal.TurnoverLine{line}).WriteXLSX(&sheet); err != nil {
		t.Fatal(err)
	}
	file, err := excelize.OpenReader(&sheet)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, cell := range []string{"B2", "C2", "E2"} {
		if formula, err := file.GetCellFormula("turnover", cell); formula != "" || err != nil {
			t.Errorf("%s of the spreadsheet is the formula %q, %v", cell, formula, err)
		}
	}
}

// products.csv tells bans what a till's codes are.
func TestProductsAreImported(t *testing.T) {
	t.Parallel()
	c := newCanteen(t)
	importProducts := func(lines string) (*registry.Report, error) {
		t.Helper()
		folder, err := registry.OpenFS(fstest.MapFS{
			registry.Products: {Data: []byte("org_id,code,name,category,allergens\n" + lines)},
		})
		c.must(err)
		return registry.Run(t.Context(), c.pool, folder, meal.Import)
	}
	const first = "s1,c1,Шоколад,Сладости,Молоко;орехи\ns1,j1,Сок,Напитки,\n"
	for _, step := range []struct {
		lines string
		want  registry.Count
	}{
		{first, registry.Count{Added: 2}},
		{first, registry.Count{Left: 2}},
		{"s1,j1,Сок яблочный,Напитки,\ns1,b1,Булочка,,глютен\n", registry.Count{Added: 1, Changed: 1}},
	} {
		report, err := importProducts(step.lines)
		c.must(err)
		step.want.File = registry.Products
		if !slices.Equal(report.Counts, []registry.Count{step.want}) {
			t.Errorf("counts %+v, want %+v", report.Counts, step.want)
		}
	}
	report, err := importProducts("s9,c1,x,,\ns1,c1,x,,\ns1,c1,y,,\ns1,,y,,\n")
	if err == nil || report.Found != 3 {
		t.Errorf("bad lines: %v, %+v", err, report)
	}
	if n := c.count(`SELECT count(*) FROM meal.product WHERE name IN ('x', 'y')`); n != 0 {
		t.Error("a bad file was imported")
	}
}
