package meal_test

import (
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"golang.org/x/sync/errgroup"

	"zvonok/ledger"
	"zvonok/ledger/meal"
	"zvonok/ledger/money"
	"zvonok/ledger/pg"
	"zvonok/ledger/pg/pgtest"
)

// noon is a moment at which the school's day and the day of UTC are the same.
var noon = time.Now().UTC().Truncate(24 * time.Hour).Add(9 * time.Hour)

// day is the day of noon, shifted by n days.
func day(n int) time.Time { return noon.Truncate(24*time.Hour).AddDate(0, 0, n) }

// canteen is a database with one school whose meals the payee "kp" cooks.
type canteen struct {
	testing.TB
	*meal.Canteen
	pool *pgxpool.Pool
	book *ledger.Book
	// Pupils: one who pays for everything, one with breakfast, one with lunch,
	// one with all meals paid by the city.
	payer, breakfast, lunch, full ledger.PersonID
	school                        ledger.OrganisationID
	seq                           int64
}

func newCanteen(t testing.TB) *canteen {
	t.Helper()
	c := &canteen{TB: t, pool: pgtest.New(t)}
	jobs, err := river.NewClient(riverpgxv5.New(c.pool), &river.Config{Schema: pg.RiverSchema, Logger: slog.New(slog.DiscardHandler)})
	c.must(err)
	c.book = ledger.NewBook(jobs)
	c.Canteen = meal.NewCanteen(c.book, jobs)
	c.exec(`INSERT INTO ledger.payee (code, name, inn, payment_code) VALUES ('kp', 'Kitchen', '7700000000', '916')`)
	c.exec(`INSERT INTO ledger.organisation (code, kind, name, short_name, payee_code, time_zone)
	        VALUES ('s1', 'school', 'School 1', 'S1', 'kp', 'Europe/Moscow')`)
	c.exec(`INSERT INTO ledger.person (code, organisation_id, kind, family_name, given_name, benefit)
	        SELECT benefit, o.id, 'pupil', 'Ivanov', 'Ivan', benefit
	          FROM ledger.organisation o, unnest(ARRAY['none', 'breakfast', 'lunch', 'full']) AS benefit`)
	people, err := ledger.PeopleByCode(t.Context(), c.pool, []string{"none", "breakfast", "lunch", "full"})
	c.must(err)
	c.payer, c.breakfast, c.lunch, c.full = people["none"], people["breakfast"], people["lunch"], people["full"]
	organisations, err := ledger.OrganisationsByCode(t.Context(), c.pool, []string{"s1"})
	c.must(err)
	c.school = organisations["s1"]
	c.inTx(func(tx pgx.Tx) error {
		var openings []ledger.WalletOpening
		for i, person := range []ledger.PersonID{c.payer, c.breakfast, c.lunch, c.full} {
			number, err := ledger.NewAccountNumber("12", int64(i+1))
			c.must(err)
			openings = append(openings, ledger.WalletOpening{Person: person, Number: number})
		}
		return ledger.OpenWallets(t.Context(), tx, openings)
	})
	return c
}

func (c *canteen) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

func (c *canteen) exec(query string, args ...any) {
	c.Helper()
	_, err := c.pool.Exec(c.Context(), query, args...)
	c.must(err)
}

func (c *canteen) inTx(f func(pgx.Tx) error) {
	c.Helper()
	c.must(pgx.BeginFunc(c.Context(), c.pool, f))
}

func (c *canteen) count(query string, args ...any) (n int) {
	c.Helper()
	c.must(c.pool.QueryRow(c.Context(), query, args...).Scan(&n))
	return n
}

func (c *canteen) topUp(person ledger.PersonID, amount money.Amount) {
	c.Helper()
	c.inTx(func(tx pgx.Tx) error {
		bank, err := ledger.SystemAccounts(c.Context(), tx, ledger.SystemAccount{Kind: ledger.Bank, Owner: "mkb"})
		c.must(err)
		verdicts, err := c.book.Post(c.Context(), tx, []ledger.Entry{{
			Event: c.event(), Kind: ledger.TopUp, Debit: bank[0], Credit: c.balance(person).Account, Amount: amount,
			Source: "bank/mkb", ExternalID: time.Now().String(), OccurredAt: noon,
		}})
		if err == nil && verdicts[0].Code != ledger.CodePosted {
			c.Fatalf("a top-up is %s", verdicts[0].Code)
		}
		return err
	})
}

func (c *canteen) event() ledger.EventID {
	c.Helper()
	ids, err := ledger.NextEventIDs(c.Context(), c.pool, 1)
	c.must(err)
	return ids[0]
}

func (c *canteen) balance(person ledger.PersonID) ledger.Balance {
	c.Helper()
	balances, err := ledger.Balances(c.Context(), c.pool, []ledger.PersonID{person})
	c.must(err)
	return balances[person]
}

// sale is a sale of till 1 with the next number.
func (c *canteen) sale(person ledger.PersonID, kind meal.Kind, name string, total money.Amount) meal.Sale {
	c.Helper()
	c.seq++
	return meal.Sale{
		Event: c.event(), Person: person, Kind: kind, Meal: name, Total: total, At: noon, Device: 1, Seq: c.seq, Building: 7,
	}
}

func offline(s meal.Sale) meal.Sale {
	s.Mode = ledger.Offline
	return s
}

func (c *canteen) sell(sales ...meal.Sale) (verdicts []meal.Verdict) {
	c.Helper()
	c.inTx(func(tx pgx.Tx) (err error) {
		verdicts, err = c.Sell(c.Context(), tx, sales)
		return err
	})
	return verdicts
}

func (c *canteen) takeBack(of int64) meal.Verdict {
	c.Helper()
	c.seq++
	return c.takeBackAs(meal.Return{Event: c.event(), Device: 1, Seq: c.seq, Of: of, At: noon})
}

func (c *canteen) takeBackAs(r meal.Return) (v meal.Verdict) {
	c.Helper()
	c.inTx(func(tx pgx.Tx) error {
		verdicts, err := c.TakeBack(c.Context(), tx, []meal.Return{r})
		v = verdicts[0]
		return err
	})
	return v
}

func codes(verdicts []meal.Verdict) []meal.Code {
	list := make([]meal.Code, len(verdicts))
	for i, v := range verdicts {
		list[i] = v.Code
	}
	return list
}

// total is credits less debits of an account that is not a wallet.
func (c *canteen) total(kind ledger.AccountKind) money.Amount {
	c.Helper()
	totals, err := ledger.Totals(c.Context(), c.pool)
	c.must(err)
	var sum money.Amount
	for _, t := range totals {
		if t.Kind == kind {
			sum += t.Credit - t.Debit
		}
	}
	return sum
}

func (c *canteen) sound() {
	c.Helper()
	report, err := ledger.Verify(c.Context(), c.pool)
	c.must(err)
	for _, v := range report.Violations {
		c.Errorf("verify: %s", v)
	}
	if n := c.count(`SELECT count(*) FROM meal.sale s
	                  WHERE NOT EXISTS (SELECT FROM ledger.posting p WHERE p.id = s.posting_id AND p.event_id = s.event_id AND p.amount = s.total)`); n != 0 {
		c.Errorf("%d sales are not in the book", n)
	}
}

// A sale by itself, before any balance.
func TestAnUnsoundSaleIsRefusedWithItsReason(t *testing.T) {
	t.Parallel()
	c := newCanteen(t)
	c.topUp(c.payer, 1000_00)
	bun := meal.Item{Code: "b12", Name: "Булочка", Quantity: 2, Price: 35_00}
	with := func(s meal.Sale, items ...meal.Item) meal.Sale {
		s.Items = items
		return s
	}
	for _, row := range []struct {
		name string
		sale meal.Sale
		want meal.Code
	}{
		{"a sale whose items sum up", with(c.sale(c.payer, meal.Buffet, "", 70_00), bun), meal.CodeSold},
		{"a sale without items", c.sale(c.payer, meal.Buffet, "", 70_00), meal.CodeSold},
		{"a hot meal with items", with(c.sale(c.payer, meal.Hot, "lunch", 70_00), bun), meal.CodeSold},
		{"a negative total", c.sale(c.payer, meal.Buffet, "", -1), meal.CodeBadTotal},
		{"a total of nothing", c.sale(c.payer, meal.Buffet, "", 0), meal.CodeBadTotal},
		{"a total above the limit", c.sale(c.payer, meal.Buffet, "", 10000_01), meal.CodeBadTotal},
		{"items that sum up to less", with(c.sale(c.payer, meal.Buffet, "", 70_01), bun), meal.CodeBadTotal},
		{"items that sum up to more", with(c.sale(c.payer, meal.Buffet, "", 69_99), bun), meal.CodeBadTotal},
		{"no pieces of an item", with(c.sale(c.payer, meal.Buffet, "", 1), meal.Item{Name: "x", Price: 1}), meal.CodeBadItem},
		{"too many pieces", with(c.sale(c.payer, meal.Buffet, "", 10_01), meal.Item{Name: "x", Quantity: 1001, Price: 1}), meal.CodeBadItem},
		{"a negative price", with(c.sale(c.payer, meal.Buffet, "", 1), meal.Item{Name: "x", Quantity: 1, Price: -1}, bun), meal.CodeBadItem},
		{"an item that is nothing", with(c.sale(c.payer, meal.Buffet, "", 1), meal.Item{Quantity: 1, Price: 1}), meal.CodeBadItem},
		{"too many items", with(c.sale(c.payer, meal.Buffet, "", 70_00), slices.Repeat([]meal.Item{bun}, 101)...), meal.CodeBadItem},
		{"a hot meal that does not say which", c.sale(c.payer, meal.Hot, " ", 70_00), meal.CodeBadKind},
		{"a kind nobody knows", c.sale(c.payer, "gift", "", 70_00), meal.CodeBadKind},
		{"a person nobody knows", c.sale(4711, meal.Buffet, "", 70_00), meal.CodeUnknownPerson},
	} {
		got := c.sell(row.sale)[0]
		if got.Code != row.want || (got.Message == "") != got.Booked() {
			t.Errorf("%s: %+v, want %s", row.name, got, row.want)
		}
	}
	if got := c.balance(c.payer).Posted; got != 790_00 {
		t.Errorf("%s left", got)
	}
	c.sound()
}

// D11: the floors of hot meals and of the buffet; offline sales are always booked.
func TestWhoPaysForASale(t *testing.T) {
	t.Parallel()
	c := newCanteen(t)
	c.topUp(c.payer, 100_00)
	sales := []meal.Sale{
		c.sale(c.payer, meal.Buffet, "", 60_00),
		c.sale(c.payer, meal.Buffet, "", 60_00),
		c.sale(c.payer, meal.Hot, "lunch", 110_00),
		c.sale(c.payer, meal.Hot, "dinner", 10_00),
		offline(c.sale(c.payer, meal.Buffet, "", 1000_00)),
		c.sale(c.breakfast, meal.Subsidised, "breakfast", 95_00),
		offline(c.sale(c.full, meal.Subsidised, "Lunch", 120_00)),
	}
	verdicts := c.sell(sales...)
	want := []meal.Code{
		meal.CodeSold, meal.CodeNotEnough, meal.CodeSold, meal.CodeNotEnough, meal.CodeSold, meal.CodeSold, meal.CodeSold,
	}
	if got := codes(verdicts); !slices.Equal(got, want) {
		t.Fatalf("verdicts %v, want %v", got, want)
	}
	if verdicts[0].Balance != 40_00 || verdicts[2].Balance != -70_00 || verdicts[4].Balance != -1070_00 {
		t.Errorf("balances %v %v %v", verdicts[0].Balance, verdicts[2].Balance, verdicts[4].Balance)
	}
	if got := c.total(ledger.Buffet); got != 1060_00 {
		t.Errorf("the buffet is owed %s", got)
	}
	if got := c.total(ledger.Provider); got != 325_00 {
		t.Errorf("the provider is owed %s", got)
	}
	if got := c.total(ledger.Budget); got != -215_00 {
		t.Errorf("the city owes %s", got)
	}
	if b := c.balance(c.breakfast); b.Moves != 0 {
		t.Errorf("a subsidised meal moved a wallet: %+v", b)
	}
	if again := c.sell(sales...); !slices.Equal(codes(again), []meal.Code{
		meal.CodeDuplicate, meal.CodeNotEnough, meal.CodeDuplicate, meal.CodeNotEnough, meal.CodeDuplicate,
		meal.CodeDuplicate, meal.CodeDuplicate,
	}) || again[0].Event != sales[0].Event || again[0].Balance != 40_00 || again[4].Balance != -1070_00 {
		t.Errorf("again %+v", again)
	}
	other := sales[0]
	other.Total++
	if v := c.sell(other)[0]; v.Code != meal.CodeConflict {
		t.Errorf("the same number with another total is %s", v.Code)
	}
	if n := c.count(`SELECT count(*) FROM meal.sale`); n != 5 {
		t.Errorf("%d sales are stored", n)
	}
	c.sound()
}

// Staff eat with the pupils and pay for all of it, from wallets of their own and by the same floors. The city pays for
// none of it, and nobody can be written down as if it did.
func TestStaffPayForAllThatTheyEat(t *testing.T) {
	t.Parallel()
	c := newCanteen(t)
	c.exec(`INSERT INTO ledger.person (code, organisation_id, kind, family_name, given_name)
	        VALUES ('teacher', $1, 'staff', 'Petrova', 'Anna')`, int64(c.school))
	people, err := ledger.PeopleByCode(t.Context(), c.pool, []string{"teacher"})
	c.must(err)
	teacher := people["teacher"]
	number, err := ledger.NewAccountNumber("12", 99)
	c.must(err)
	c.inTx(func(tx pgx.Tx) error {
		return ledger.OpenWallets(t.Context(), tx, []ledger.WalletOpening{{Person: teacher, Number: number}})
	})
	c.topUp(teacher, 200_00)
	verdicts := c.sell(
		c.sale(teacher, meal.Buffet, "", 50_00),
		c.sale(teacher, meal.Subsidised, "lunch", 90_00),
		c.sale(teacher, meal.Hot, "lunch", 150_00),
		c.sale(teacher, meal.Hot, "dinner", 150_00), // on debt, as a pupil's dinner would be
		c.sale(teacher, meal.Buffet, "", 1_00),
		offline(c.sale(teacher, meal.Buffet, "", 10_00)),
	)
	if got, want := codes(verdicts), []meal.Code{
		meal.CodeSold, meal.CodeNotEntitled, meal.CodeSold, meal.CodeSold, meal.CodeNotEnough, meal.CodeSold,
	}; !slices.Equal(got, want) {
		t.Errorf("verdicts %v, want %v", got, want)
	}
	if b := c.balance(teacher); b.Posted != -160_00 {
		t.Errorf("the teacher has %s", b.Posted)
	}
	if got := c.total(ledger.Budget); got != 0 {
		t.Errorf("the city owes %s", got)
	}
	c.sound()
	if _, err := c.pool.Exec(t.Context(), `UPDATE ledger.person SET benefit = 'full' WHERE id = $1`, int64(teacher)); err == nil {
		t.Error("the city was made to pay for a teacher")
	}
}

// The job of a batch names each sale that was booked now, once.
func TestSalesAreAnnouncedOnce(t *testing.T) {
	t.Parallel()
	c := newCanteen(t)
	c.topUp(c.payer, 100_00)
	bun := c.sale(c.payer, meal.Buffet, "", 70_00)
	bun.Items = []meal.Item{{Code: "b12", Name: "Булочка", Quantity: 2, Price: 35_00}}
	yesterday := offline(c.sale(c.payer, meal.Hot, "lunch", 20_00))
	yesterday.At = noon.AddDate(0, 0, -1)
	sales := []meal.Sale{bun, c.sale(c.payer, meal.Buffet, "", 500_00), yesterday}
	c.sell(sales...)
	c.sell(sales...)
	rows, err := c.pool.Query(t.Context(), `SELECT args FROM river.river_job WHERE kind = 'meal_sold'`)
	c.must(err)
	facts, err := pgx.CollectRows(rows, pgx.RowTo[meal.Sold])
	c.must(err)
	if len(facts) != 1 || !slices.Equal(facts[0].EventIDs, []int64{int64(bun.Event), int64(yesterday.Event)}) ||
		!facts[0].From.Equal(day(-1)) || !facts[0].To.Equal(day(0)) {
		t.Fatalf("announced %+v", facts)
	}
	records, err := meal.SoldRecords(t.Context(), c.pool, facts[0])
	c.must(err)
	if len(records) != 2 || !slices.Equal(records[0].Items, bun.Items) || *records[0].Balance != 30_00 || records[0].Kind != meal.Buffet ||
		!records[1].Offline || records[1].Meal != "lunch" || !records[1].Day.Equal(day(-1)) {
		t.Errorf("records %+v", records)
	}
	history, err := meal.History(t.Context(), c.pool, c.payer, day(-7), day(0))
	c.must(err)
	if len(history) != 2 || history[0].Event != bun.Event {
		t.Errorf("history %+v", history)
	}
}

// A subsidised meal: by benefit and meal, once per child, meal and day.
func TestASubsidisedMealIsServedOnceADay(t *testing.T) {
	t.Parallel()
	c := newCanteen(t)
	for _, row := range []struct {
		name   string
		person ledger.PersonID
		meal   string
		want   meal.Code
	}{
		{"breakfast for one with breakfast", c.breakfast, "breakfast", meal.CodeSold},
		{"a second breakfast", c.breakfast, "breakfast", meal.CodeAlreadyServed},
		{"lunch for one with breakfast", c.breakfast, "lunch", meal.CodeNotEntitled},
		{"lunch for one with lunch", c.lunch, "lunch", meal.CodeSold},
		{"breakfast for one with everything", c.full, "breakfast", meal.CodeSold},
		{"a snack for one with everything", c.full, "snack", meal.CodeSold},
		{"lunch for one with nothing", c.payer, "lunch", meal.CodeNotEntitled},
	} {
		if v := c.sell(c.sale(row.person, meal.Subsidised, row.meal, 90_00))[0]; v.Code != row.want {
			t.Errorf("%s is %s, want %s", row.name, v.Code, row.want)
		}
	}
	twice := c.sell(c.sale(c.full, meal.Subsidised, "lunch", 90_00), c.sale(c.full, meal.Subsidised, "lunch", 90_00))
	if got := codes(twice); !slices.Equal(got, []meal.Code{meal.CodeSold, meal.CodeAlreadyServed}) {
		t.Errorf("two lunches in one upload are %v", got)
	}
	tomorrow := c.sale(c.breakfast, meal.Subsidised, "breakfast", 90_00)
	tomorrow.At = noon.AddDate(0, 0, 1)
	if v := c.sell(tomorrow)[0]; v.Code != meal.CodeSold {
		t.Errorf("breakfast on the next day is %s", v.Code)
	}
	// What was taken back may be served again; the repeat of the first sale
	// does not count as a serving.
	first := c.sale(c.lunch, meal.Subsidised, "lunch", 90_00)
	first.At = noon.AddDate(0, 0, 1)
	c.sell(first)
	if v := c.takeBack(first.Seq); v.Code != meal.CodeSold || v.Balance != 0 {
		t.Errorf("taking back a subsidised meal is %+v", v)
	}
	if v := c.sell(first)[0]; v.Code != meal.CodeDuplicate {
		t.Errorf("the repeat of a sale that was taken back is %s", v.Code)
	}
	second := c.sale(c.lunch, meal.Subsidised, "lunch", 90_00)
	second.At = first.At
	if v := c.sell(second)[0]; v.Code != meal.CodeSold {
		t.Errorf("serving again is %s", v.Code)
	}
	if got := c.total(ledger.Budget); got != -7*90_00 {
		t.Errorf("the city owes %s", got)
	}
	c.sound()
}

// Two tills, and the menu, may call one meal differently: it is one meal all the
// same. What is no meal of the day is paid by the parents alone, or a till could
// have the city pay for any number of them.
func TestAMealIsTheSameWhateverATillCallsIt(t *testing.T) {
	t.Parallel()
	c := newCanteen(t)
	c.topUp(c.payer, 100_00)
	for _, row := range []struct {
		person ledger.PersonID
		meal   string
		want   meal.Code
	}{
		{c.full, "lunch", meal.CodeSold},
		{c.full, " ОБЕД ", meal.CodeAlreadyServed},
		{c.full, "obed", meal.CodeAlreadyServed},
		{c.full, "Завтрак", meal.CodeSold},
		{c.full, "breakfast", meal.CodeAlreadyServed},
		{c.full, "Второй  завтрак", meal.CodeSold},
		{c.full, "second-breakfast", meal.CodeAlreadyServed},
		{c.full, "2-й завтрак", meal.CodeAlreadyServed},
		{c.full, "Полдник", meal.CodeSold},
		{c.full, "snack", meal.CodeAlreadyServed},
		{c.full, "supper", meal.CodeSold},
		{c.full, "ужин", meal.CodeAlreadyServed},
		{c.full, "dinner", meal.CodeAlreadyServed},
		{c.full, "обед 2", meal.CodeNotEntitled},
		{c.full, "lunch.", meal.CodeNotEntitled},
		{c.breakfast, "завтрак", meal.CodeSold},
		{c.breakfast, "обед", meal.CodeNotEntitled},
		{c.lunch, "Обед", meal.CodeSold},
	} {
		answer, err := c.Authorize(t.Context(), c.pool,
			meal.Ask{Person: row.person, Kind: meal.Subsidised, Meal: row.meal, Total: 90_00, Device: 1, At: noon})
		c.must(err)
		v := c.sell(c.sale(row.person, meal.Subsidised, row.meal, 90_00))[0]
		if v.Code != row.want || answer.Allow != v.Booked() || !answer.Allow && answer.Reason != v.Code {
			t.Errorf("%q is %s, want %s; the till was told %+v", row.meal, v.Code, row.want, answer)
		}
	}
	if v := c.sell(c.sale(c.payer, meal.Hot, "обед 2", 10_00))[0]; v.Code != meal.CodeSold {
		t.Errorf("a paid meal of another name is %s", v.Code)
	}

	// What a parent orders by the menu's name is served by the till's.
	friday := day(5)
	_, err := c.importMenu("s1," + friday.Format(time.DateOnly) + ",Обед,Борщ,,,,,,,45.00\n")
	c.must(err)
	c.inTx(func(tx pgx.Tx) error {
		verdicts, err := c.PlaceOrders(t.Context(), tx, []meal.Order{
			{Person: c.payer, Day: friday, Meal: "lunch"}, {Person: c.payer, Day: friday, Meal: "обед"},
		}, mother, noon)
		if err == nil && (verdicts[0].Code != meal.CodeOrdered || verdicts[1].Code != meal.CodeOrderedBefore) {
			t.Errorf("the orders are %+v", verdicts)
		}
		return err
	})
	lunch := c.sale(c.payer, meal.Hot, "Обед", 45_00)
	lunch.At = friday.Add(9 * time.Hour)
	if v := c.sell(lunch)[0]; v.Code != meal.CodeSold || c.balance(c.payer).Held != 0 {
		t.Errorf("the ordered meal is %+v, and %s is held", v, c.balance(c.payer).Held)
	}
	if records, err := meal.History(t.Context(), c.pool, c.payer, friday, friday); err != nil || len(records) != 1 || records[0].Meal != "lunch" {
		t.Errorf("the history is %+v, %v", records, err)
	}
	c.sound()
}

func TestTwoTillsServeASubsidisedMealOnce(t *testing.T) {
	t.Parallel()
	c := newCanteen(t)
	var sales []meal.Sale
	for till := range 8 {
		s := c.sale(c.full, meal.Subsidised, "lunch", 90_00)
		s.Device = int64(till)
		sales = append(sales, s)
	}
	results := make(chan meal.Code)
	for _, s := range sales {
		go func() {
			var verdicts []meal.Verdict
			err := pgx.BeginFunc(t.Context(), c.pool, func(tx pgx.Tx) (err error) {
				verdicts, err = c.Sell(t.Context(), tx, []meal.Sale{s})
				return err
			})
			if err != nil {
				t.Error(err)
				verdicts = []meal.Verdict{{}}
			}
			results <- verdicts[0].Code
		}()
	}
	tally := map[meal.Code]int{}
	for range sales {
		tally[<-results]++
	}
	if tally[meal.CodeSold] != 1 || tally[meal.CodeAlreadyServed] != 7 {
		t.Errorf("verdicts %v", tally)
	}
	c.sound()
}

// A meal that is being refused because one was served, while that one is being
// taken back: the two meet at the ration, and the meal is among those that wait.
func TestAMealRefusedWhileAnotherIsTakenBackWaits(t *testing.T) {
	t.Parallel()
	c := newCanteen(t)
	first, second := offline(c.sale(c.full, meal.Subsidised, "lunch", 59_00)), offline(c.sale(c.full, meal.Subsidised, "lunch", 90_00))
	c.sell(first)
	refusing, err := c.pool.Begin(t.Context())
	c.must(err)
	defer refusing.Rollback(t.Context()) // after a failure
	verdicts, err := c.Sell(t.Context(), refusing, []meal.Sale{second})
	c.must(err)
	if verdicts[0].Code != meal.CodeAlreadyServed {
		t.Fatalf("a second lunch is %s", verdicts[0].Code)
	}
	back := []meal.Return{{Event: c.event(), Device: 1, Seq: 9001, Of: first.Seq, At: noon}}
	done := make(chan error, 1)
	go func() {
		done <- pgx.BeginFunc(t.Context(), c.pool, func(tx pgx.Tx) error {
			if _, err := c.TakeBack(t.Context(), tx, back); err != nil {
				return err
			}
			waiting, err := c.Waiting(t.Context(), tx, back)
			if err != nil {
				return err
			}
			if len(waiting) != 1 || waiting[0].Event != second.Event {
				t.Errorf("%d meals wait", len(waiting))
				return nil
			}
			verdicts, err := c.Sell(t.Context(), tx, waiting)
			if err == nil && verdicts[0].Code != meal.CodeSold {
				t.Errorf("what has waited is %s", verdicts[0].Code)
			}
			return err
		})
	}()
	for blocked := 0; blocked == 0 && len(done) == 0; {
		blocked = c.count(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0`)
	}
	c.must(refusing.Commit(t.Context()))
	c.must(<-done)
	if got := c.total(ledger.Budget); got != -90_00 {
		t.Errorf("the city owes %s", got)
	}
	// It is sold: taking it back, too, leaves nobody waiting.
	back = []meal.Return{{Event: c.event(), Device: 1, Seq: 9002, Of: second.Seq, At: noon}}
	c.inTx(func(tx pgx.Tx) error {
		verdicts, err := c.TakeBack(t.Context(), tx, back)
		if err != nil || verdicts[0].Code != meal.CodeSold {
			t.Errorf("taking it back is %+v", verdicts)
			return err
		}
		waiting, err := c.Waiting(t.Context(), tx, back)
		if len(waiting) != 0 {
			t.Errorf("%d meals wait that were sold", len(waiting))
		}
		return err
	})
	c.inTx(func(tx pgx.Tx) error { return c.ForgetWaiting(t.Context(), tx, day(101)) })
	if n := c.count(`SELECT count(*) FROM meal.waiting`); n != 0 {
		t.Errorf("%d refused meals are remembered after 101 days", n)
	}
	c.sound()
}

func TestASaleIsTakenBackOnce(t *testing.T) {
	t.Parallel()
	c := newCanteen(t)
	c.topUp(c.payer, 100_00)
	lunch := c.sale(c.payer, meal.Hot, "lunch", 80_00)
	refused := c.sale(c.payer, meal.Buffet, "", 500_00)
	c.sell(lunch, refused)
	back := meal.Return{Event: c.event(), Device: 1, Seq: 9001, Of: lunch.Seq, At: noon}
	if v := c.takeBackAs(back); v.Code != meal.CodeSold || v.Balance != 100_00 || v.Event != back.Event {
		t.Errorf("taken back %+v", v)
	}
	if v := c.takeBackAs(back); v.Code != meal.CodeDuplicate || v.Event != back.Event {
		t.Errorf("the repeat is %+v", v)
	}
	for _, row := range []struct {
		name string
		of   int64
		want meal.Code
	}{
		{"a second time", lunch.Seq, meal.CodeReversed},
		{"a number that was never used", 4711, meal.CodeNoSale},
		{"a sale that was refused", refused.Seq, meal.CodeNoSale},
		{"the taking back", back.Seq, meal.CodeNoSale},
	} {
		if v := c.takeBack(row.of); v.Code != row.want || v.Message == "" {
			t.Errorf("taking back %s is %+v, want %s", row.name, v, row.want)
		}
	}
	// A till sells and takes back in one upload.
	bun := c.sale(c.payer, meal.Buffet, "", 10_00)
	c.inTx(func(tx pgx.Tx) error {
		if _, err := c.Sell(t.Context(), tx, []meal.Sale{bun}); err != nil {
			return err
		}
		verdicts, err := c.TakeBack(t.Context(), tx, []meal.Return{{Event: c.event(), Device: 1, Seq: 9002, Of: bun.Seq, At: noon}})
		if err == nil && verdicts[0].Code != meal.CodeSold {
			t.Errorf("taking back in the same upload is %s", verdicts[0].Code)
		}
		return err
	})
	records, err := meal.History(t.Context(), c.pool, c.payer, day(0), day(0))
	c.must(err)
	if len(records) != 2 || !records[0].TakenBack || !records[1].TakenBack {
		t.Errorf("history %+v", records)
	}
	if got := c.balance(c.payer).Posted; got != 100_00 {
		t.Errorf("%s left", got)
	}
	c.sound()
}

// What is above the cap of a day's offline sales is booked to the offline
// losses: the provider is paid, staff look into it.
func TestOfflineSalesAboveTheCapAreLosses(t *testing.T) {
	t.Parallel()
	c := newCanteen(t)
	c.OfflineCap = 300_00
	first, second := offline(c.sale(c.payer, meal.Buffet, "", 200_00)), offline(c.sale(c.payer, meal.Hot, "lunch", 200_00))
	third, fourth := offline(c.sale(c.payer, meal.Buffet, "", 100_00)), offline(c.sale(c.payer, meal.Buffet, "", 50_00))
	fourth.At = noon.AddDate(0, 0, -1)
	all := []meal.Sale{first, second, third, fourth}
	for round := range 2 { // a repeat finds the cap used up and is a repeat all the same
		for i, v := range c.sell(all...) {
			if want := []meal.Code{meal.CodeSold, meal.CodeDuplicate}[round]; v.Code != want {
				t.Errorf("round %d, sale %d is %+v, want %s", round, i, v, want)
			}
		}
	}
	if got := c.balance(c.payer).Posted; got != -350_00 {
		t.Errorf("the wallet holds %s", got)
	}
	if got := c.total(ledger.OfflineLoss); got != -200_00 {
		t.Errorf("lost are %s", got)
	}
	if v := c.takeBack(second.Seq); v.Code != meal.CodeSold {
		t.Errorf("taking back a loss is %s", v.Code)
	}
	if got := c.total(ledger.OfflineLoss); got != 0 {
		t.Errorf("lost are %s", got)
	}
	c.sound()
}

// atOnce makes sales and books each in a transaction of its own, all at the same
// time; every other transaction has a sale of another child beside it, before or
// after. It counts the booked ones.
func (c *canteen) atOnce(n int, make func() meal.Sale) (sold int, events []ledger.EventID) {
	c.Helper()
	var group errgroup.Group
	var mu sync.Mutex
	for i := range n {
		batch := []meal.Sale{make()}
		events = append(events, batch[0].Event)
		mine := 0
		switch other := offline(c.sale(c.full, meal.Hot, "dinner", 1_00)); i % 4 {
		case 1:
			batch = append(batch, other)
		case 3:
			batch, mine = append([]meal.Sale{other}, batch...), 1
		}
		group.Go(func() error {
			return pgx.BeginFunc(c.Context(), c.pool, func(tx pgx.Tx) error {
				verdicts, err := c.Sell(c.Context(), tx, batch)
				if err == nil && verdicts[mine].Code == meal.CodeSold {
					mu.Lock()
					sold++
					mu.Unlock()
				}
				return err
			})
		})
	}
	c.must(group.Wait())
	return sold, events
}

// The cap is exact although uploads race: all are booked, and the wallet pays for
// as many as the cap allows.
func TestRacingUploadsDoNotPassTheOfflineCap(t *testing.T) {
	t.Parallel()
	c := newCanteen(t)
	c.OfflineCap = 300_00
	sold, events := c.atOnce(16, func() meal.Sale { return offline(c.sale(c.payer, meal.Buffet, "", 80_00)) })
	if sold != 16 {
		t.Errorf("%d of 16 offline sales were booked", sold)
	}
	if got := c.balance(c.payer).Posted; got != -240_00 {
		t.Errorf("the wallet holds %s", got)
	}
	if n := c.count(`SELECT count(*) FROM meal.sale WHERE booked = 'loss' AND event_id = ANY ($1)`, events); n != 13 {
		t.Errorf("%d sales are losses", n)
	}
	c.sound()
}

// A repeat is a repeat although the register has changed meanwhile: the child
// has lost the benefit, moved to a school of another payee, or left.
func TestARepeatIsARepeatWhateverHasChanged(t *testing.T) {
	t.Parallel()
	c := newCanteen(t)
	c.topUp(c.payer, 100_00)
	lunch, bun := c.sale(c.full, meal.Subsidised, "lunch", 90_00), c.sale(c.payer, meal.Buffet, "", 10_00)
	c.sell(lunch, bun)
	c.exec(`INSERT INTO ledger.payee (code, name, inn, payment_code) VALUES ('other', 'Other', '7700000001', '917')`)
	c.exec(`UPDATE ledger.organisation SET payee_code = 'other'`)
	c.exec(`UPDATE ledger.person SET benefit = 'none'`)
	for i, v := range c.sell(lunch, bun) {
		if v.Code != meal.CodeDuplicate {
			t.Errorf("repeat %d is %+v", i, v)
		}
	}
	later := c.sale(c.payer, meal.Buffet, "", 10_00)
	later.At = time.Now().Add(time.Minute)
	if v := c.sell(later)[0]; v.Code != meal.CodeSold {
		t.Errorf("a sale for the new payee is %+v", v)
	}
	if n := c.count(`SELECT count(*) FROM ledger.account WHERE kind = 'buffet'`); n != 2 {
		t.Errorf("%d buffet accounts", n)
	}
	c.sound()
}

// What a till that was offline reports late is owed to who cooked that day, and
// paid by who paid for the child's meals then, whatever the register says by now;
// and it is a sale of the till's own school, whose child may have moved on.
func TestALateSaleIsJudgedByItsOwnTime(t *testing.T) {
	t.Parallel()
	c := newCanteen(t)
	c.topUp(c.payer, 1000_00)
	c.exec(`INSERT INTO ledger.building (id, code, organisation_id, address) VALUES (7, 'b7', $1, 'x')`, int64(c.school))
	c.exec(`INSERT INTO ledger.payee (code, name, inn, payment_code)
	        VALUES ('kp2', 'Kombinat 2', '7707083893', '917'), ('kp3', 'Kombinat 3', '7700000001', '918')`)
	var other ledger.OrganisationID
	c.must(c.pool.QueryRow(t.Context(), `
		INSERT INTO ledger.organisation (code, kind, name, short_name, payee_code, time_zone)
		VALUES ('s2', 'school', 'School 2', 'S2', 'kp3', 'Asia/Vladivostok') RETURNING id`).Scan(&other))
	at := func(when time.Time, s meal.Sale) meal.Sale {
		s = offline(s)
		s.At = when
		return s
	}
	before := time.Now().Add(-time.Hour)
	c.exec(`UPDATE ledger.organisation SET payee_code = 'kp2' WHERE id = $1`, int64(c.school))
	c.exec(`UPDATE ledger.person SET benefit = 'none' WHERE id = $1`, int64(c.full))
	c.exec(`UPDATE ledger.person SET benefit = 'lunch' WHERE id = $1`, int64(c.payer))
	after := time.Now().Add(time.Minute)
	c.inTx(func(tx pgx.Tx) error {
		_, err := c.Move(t.Context(), tx, c.payer, other, "5Б", "olga")
		return err
	})
	verdicts := c.sell(
		at(before, c.sale(c.payer, meal.Hot, "dinner", 10_00)),
		at(before, c.sale(c.payer, meal.Buffet, "", 20_00)),
		at(before, c.sale(c.full, meal.Subsidised, "dinner", 30_00)),
		at(before, c.sale(c.payer, meal.Subsidised, "lunch", 40_00)),
		at(after, c.sale(c.payer, meal.Hot, "dinner", 50_00)),
		at(after, c.sale(c.full, meal.Subsidised, "lunch", 60_00)),
		at(after, c.sale(c.payer, meal.Subsidised, "lunch", 70_00)))
	if got, want := codes(verdicts), []meal.Code{
		meal.CodeSold, meal.CodeSold, meal.CodeSold, meal.CodeNotEntitled, meal.CodeSold, meal.CodeNotEntitled, meal.CodeSold,
	}; !slices.Equal(got, want) {
		t.Errorf("verdicts %v, want %v", got, want)
	}
	for payee, want := range map[ledger.PayeeCode]money.Amount{"kp": 60_00, "kp2": 120_00, "kp3": 0} {
		lines, err := meal.Turnover(t.Context(), c.pool, payee, day(-2), day(2))
		c.must(err)
		var sum money.Amount
		for _, l := range lines {
			sum += l.Net()
			if l.Organisation != "s1" {
				t.Errorf("a sale is of organisation %s", l.Organisation)
			}
		}
		if sum != want {
			t.Errorf("%s is owed %s, want %s", payee, sum, want)
		}
	}
	c.sound()

	// A benefit of the past is forgotten when no till can be that late.
	forget := func(now time.Time) int {
		c.inTx(func(tx pgx.Tx) error {
			_, err := ledger.Pseudonymise(t.Context(), tx, now)
			return err
		})
		return c.count(`SELECT count(*) FROM ledger.benefit_past`)
	}
	if young, old := forget(time.Now().AddDate(0, 0, 90)), forget(time.Now().AddDate(0, 0, 110)); young != 2 || old != 0 {
		t.Errorf("%d benefits of the past are known after 90 days, %d after 110", young, old)
	}
}
