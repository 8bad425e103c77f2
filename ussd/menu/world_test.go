package menu

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"zvonok/access"
	"zvonok/access/door"
	"zvonok/access/phone"
	"zvonok/gateway/subscription"
	"zvonok/ledger"
	"zvonok/ledger/meal"
	"zvonok/ledger/money"
	"zvonok/ledger/pg"
	"zvonok/ledger/pg/pgtest"
)

// now is when all plays begin: Thursday 15 May 2025, 12:30 in Moscow.
var now = time.Date(2025, time.May, 15, 12, 30, 0, 0, moscow())

// remember is for how long the menu of the plays may show again what it has shown.
const remember = 6 * time.Hour

func moscow() *time.Location {
	zone, err := time.LoadLocation("Europe/Moscow")
	if err != nil {
		panic(err)
	}
	return zone
}

// clock returns a moment so many days before now's.
func clock(daysBefore, hour, minute int) time.Time {
	return time.Date(2025, time.May, 15-daysBefore, hour, minute, 0, 0, moscow())
}

// world is a school with its children and those around them, made by the same code that makes it in life.
type world struct {
	testing.TB
	pool     *pgxpool.Pool
	book     *ledger.Book
	canteen  *meal.Canteen
	recorder *door.Recorder
	school   ledger.OrganisationID
	building ledger.BuildingID
	people   map[string]ledger.PersonID // by given name
	wallets  map[string]ledger.AccountID
	phones   map[phone.Number]access.RepresentativeID
	serial   int64

	menu    *Menu
	journal string
	mu      sync.Mutex
	sent    []string // SMS that were asked for
}

func newWorld(tb testing.TB, pool *pgxpool.Pool) *world {
	tb.Helper()
	w := &world{
		TB: tb, pool: pool, people: map[string]ledger.PersonID{},
		wallets: map[string]ledger.AccountID{}, phones: map[phone.Number]access.RepresentativeID{},
	}
	jobs, err := river.NewClient(riverpgxv5.New(w.pool), &river.Config{Schema: pg.RiverSchema})
	w.must(err)
	w.book = ledger.NewBook(jobs)
	w.canteen = meal.NewCanteen(w.book, jobs)
	w.recorder = door.NewRecorder(jobs)
	w.exec(`INSERT INTO ledger.payee (code, name, inn, payment_code) VALUES ('kp', 'Комбинат', '7723862777', '916')`)
	w.school = one[ledger.OrganisationID](w, `
		INSERT INTO ledger.organisation (code, kind, name, short_name, payee_code, time_zone)
		VALUES ('s-1', 'school', 'Школа', 'Школа', 'kp', 'Europe/Moscow') RETURNING id`)
	w.building = one[ledger.BuildingID](w, `
		INSERT INTO ledger.building (code, organisation_id, address) VALUES ('b-1', $1, 'Улица, 1') RETURNING id`, w.school)
	w.journal = filepath.Join(tb.TempDir(), "views.journal")
	w.menu, err = New(Config{
		Pool: w.pool, Code: "*377*888#",
		Log: slog.New(slog.DiscardHandler), Metrics: NewMetrics(prometheus.NewPedanticRegistry()),
		Now: func() time.Time { return now },
		Send: func(_ context.Context, to phone.Number, text string) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.sent = append(w.sent, string(to)+": "+text)
			return nil
		},
		Remember: remember, Journal: w.journal, Silence: 365 * 24 * time.Hour,
	})
	w.must(err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); w.menu.Run(ctx) }()
	tb.Cleanup(func() { stop(); <-done })
	return w
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) exec(sql string, args ...any) {
	w.Helper()
	_, err := w.pool.Exec(w.Context(), sql, args...)
	w.must(err)
}

func one[T any](w *world, sql string, args ...any) (value T) {
	w.Helper()
	w.must(w.pool.QueryRow(w.Context(), sql, args...).Scan(&value))
	return value
}

func (w *world) inTx(write func(tx pgx.Tx) error) {
	w.Helper()
	w.must(pgx.BeginFunc(w.Context(), w.pool, write))
}

func (w *world) events(n int) []ledger.EventID {
	w.Helper()
	ids, err := ledger.NextEventIDs(w.Context(), w.pool, n)
	w.must(err)
	return ids
}

// pupil adds a pupil.
func (w *world) pupil(given, family string) ledger.PersonID {
	w.Helper()
	w.serial++
	id := one[ledger.PersonID](w, `
		INSERT INTO ledger.person (code, organisation_id, kind, family_name, given_name, benefit)
		VALUES ($1, $2, 'pupil', $3, $4, 'breakfast') RETURNING id`, fmt.Sprintf("p-%d", w.serial), w.school, family, given)
	w.people[given] = id
	return id
}

// child adds a pupil with a wallet.
func (w *world) child(given, family string) {
	w.Helper()
	id := w.pupil(given, family)
	number, err := ledger.NewAccountNumber("12", w.serial)
	w.must(err)
	w.inTx(func(tx pgx.Tx) error {
		return ledger.OpenWallets(w.Context(), tx, []ledger.WalletOpening{{Person: id, Number: number}})
	})
	balances, err := ledger.Balances(w.Context(), w.pool, []ledger.PersonID{id})
	w.must(err)
	w.wallets[given] = balances[id].Account
}

// guardian adds somebody with a phone and a role, "legal" or "trusted", for children; a legal one consents.
func (w *world) guardian(number phone.Number, given, family, language, role string, children ...string) {
	w.Helper()
	id, known := w.phones[number]
	if !known {
		id = one[access.RepresentativeID](w, `
			INSERT INTO access.representative (phone, family_name, given_name, language) VALUES ($1, $2, $3, $4) RETURNING id`,
			number, family, given, language)
		w.phones[number] = id
	}
	for _, child := range children {
		w.exec(`INSERT INTO access.guardian (child_id, representative_id, role, since) VALUES ($1, $2, $3, $4)`,
			w.people[child], id, role, now.AddDate(-1, 0, 0))
		if role == "legal" {
			w.exec(`INSERT INTO access.consent (child_id, representative_id, visits, meals, form, given_on, since)
				VALUES ($1, $2, true, true, 'registry', '2024-05-15', $3)`, w.people[child], id, now.AddDate(-1, 0, 0))
		}
	}
}

func (w *world) topUp(child string, sum money.Amount, at time.Time) {
	w.Helper()
	w.inTx(func(tx pgx.Tx) error {
		bank, err := ledger.SystemAccounts(w.Context(), tx, ledger.SystemAccount{Kind: ledger.Bank, Owner: "mkb"})
		w.must(err)
		event := w.events(1)[0]
		verdicts, err := w.book.Post(w.Context(), tx, []ledger.Entry{{
			Event: event, Kind: ledger.TopUp, Debit: bank[0], Credit: w.wallets[child], Amount: sum,
			Source: "bank/mkb", ExternalID: fmt.Sprint(event), OccurredAt: at,
		}})
		if err == nil && !verdicts[0].Booked() {
			w.Fatalf("a top-up is %s", verdicts[0].Code)
		}
		return err
	})
}

func (w *world) sell(child string, kind meal.Kind, which string, total money.Amount, at time.Time, items ...meal.Item) {
	w.Helper()
	w.serial++
	w.inTx(func(tx pgx.Tx) error {
		verdicts, err := w.canteen.Sell(w.Context(), tx, []meal.Sale{{
			Event: w.events(1)[0], Person: w.people[child], Kind: kind, Meal: which, Total: total, Items: items, At: at,
			Device: 1, Seq: w.serial, Building: w.building, Mode: ledger.Offline,
		}})
		if err == nil && !verdicts[0].Booked() {
			w.Fatalf("a sale is %s: %s", verdicts[0].Code, verdicts[0].Message)
		}
		return err
	})
}

func (w *world) passes(child string, direction door.Direction, times ...time.Time) {
	w.Helper()
	w.inTx(func(tx pgx.Tx) error {
		var taps []door.Tap
		for i, id := range w.events(len(times)) {
			taps = append(taps, door.Tap{
				Event: id, Device: 1, Organisation: w.school, Building: w.building, Person: w.people[child],
				Direction: direction, Kind: door.ByCard, At: times[i], RawAt: times[i], ReceivedAt: times[i],
			})
		}
		_, err := w.recorder.Record(w.Context(), tx, now, taps)
		return err
	})
}

// The phones of the plays.
const (
	mother    = phone.Number("79000000001") // of Masha, reads Russian
	father    = phone.Number("79000000002") // of Masha and Petya
	aunt      = phone.Number("79000000003") // of three children
	foster    = phone.Number("79000000004") // of eleven
	englishMa = phone.Number("79000000005") // of Masha, reads English
	englishPa = phone.Number("79000000006") // of Masha and Petya, reads English
	nanny     = phone.Number("79000000007") // trusted with Masha
	stranger  = phone.Number("79000000009")
	grandma   = phone.Number("79000000010") // of Alexandrina, who has a long name and a debt
	newcomer  = phone.Number("79000000011") // of Ira, of whom nothing is known yet
	unbanked  = phone.Number("79000000012") // of Tim, who has no account
)

// newSchool is the world of the plays.
func newSchool(tb testing.TB) *world { return newSchoolOn(tb, pgtest.New(tb)) }

func newSchoolOn(tb testing.TB, pool *pgxpool.Pool) *world {
	tb.Helper()
	w := newWorld(tb, pool)
	w.child("Маша", "Петрова")
	w.child("Петя", "Петров")
	w.child("Вася", "Петров")
	w.child("Александрина", "Константинопольская")
	w.child("Ира", "Орлова")
	eleven := []string{"Маша", "Петя", "Вася"}
	for _, given := range []string{"Аня", "Боря", "Вера", "Гена", "Даша", "Егор", "Женя", "Зоя"} {
		w.child(given, "Сидоров")
		eleven = append(eleven, given)
	}
	w.guardian(mother, "Ольга", "Петрова", "ru", "legal", "Маша")
	w.guardian(father, "Олег", "Петров", "ru", "legal", "Маша", "Петя")
	w.guardian(aunt, "Анна", "Петрова", "ru", "legal", "Маша", "Петя", "Вася")
	w.guardian(foster, "Нина", "Сидорова", "ru", "legal", eleven...)
	w.guardian(englishMa, "Mary", "Smith", "en", "legal", "Маша")
	w.guardian(englishPa, "John", "Smith", "en", "legal", "Маша", "Петя")
	w.guardian(nanny, "Вера", "Котова", "ru", "trusted", "Маша")
	w.guardian(grandma, "Зинаида", "Котова", "ru", "legal", "Александрина")
	w.guardian(newcomer, "Яна", "Орлова", "ru", "legal", "Ира")
	w.pupil("Тим", "Орлов")
	w.guardian(unbanked, "Ян", "Орлов", "ru", "legal", "Тим")

	w.exec(`INSERT INTO meal.menu (organisation_id, day, meal, dish, price)
		SELECT $1, d, m, dish, 0 FROM unnest(ARRAY['2025-05-15'::date, '2025-05-14'::date]) d,
		       (VALUES ('breakfast', 'Каша овсяная'), ('breakfast', 'Чай'), ('lunch', 'Борщ со сметаной'),
		               ('lunch', 'Котлета с пюре'), ('lunch', 'Компот')) AS menu (m, dish)`, w.school)
	w.topUp("Маша", 300_00, clock(3, 18, 40))
	w.sell("Маша", meal.Subsidised, "breakfast", 95_00, clock(1, 9, 30))
	w.sell("Маша", meal.Hot, "lunch", 110_00, clock(1, 12, 15))
	w.sell("Маша", meal.Subsidised, "breakfast", 95_00, clock(0, 9, 30))
	w.sell("Маша", meal.Buffet, "", 46_50, clock(0, 10, 40),
		meal.Item{Code: "b12", Name: "Булочка", Quantity: 2, Price: 15_00},
		meal.Item{Code: "s1", Name: "Сок", Quantity: 1, Price: 16_50})
	w.topUp("Петя", 20_00, clock(2, 10, 0))
	w.sell("Александрина", meal.Hot, "lunch", 110_00, clock(0, 12, 15))

	w.passes("Маша", door.In, clock(6, 8, 20), clock(3, 8, 10), clock(2, 8, 12), clock(1, 8, 15), clock(0, 8, 15))
	w.passes("Маша", door.Out, clock(6, 13, 50), clock(2, 14, 5), clock(1, 13, 40))
	w.passes("Петя", door.In, clock(1, 8, 16))
	w.passes("Петя", door.Out, clock(1, 14, 5))
	w.passes("Александрина", door.Out, clock(1, 14, 5))
	w.inTx(func(tx pgx.Tx) error {
		return subscription.Set(w.Context(), tx, w.phones[mother], w.people["Маша"], []subscription.Subscription{
			{Topic: subscription.Pass, Channel: subscription.SMS, Mode: subscription.Now},
			{Topic: subscription.Pass, Channel: subscription.Email, Mode: subscription.Day},
		}, now)
	})
	return w
}
