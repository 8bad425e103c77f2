package notice

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access/door"
	"zvonok/ledger"
	"zvonok/ledger/meal"
	"zvonok/ledger/money"
	"zvonok/templates"
)

// evening is the moment of the day's digest on that Monday.
var evening = time.Date(2026, 11, 23, 16, 0, 0, 0, time.UTC)

func (b *bench) exec(query string, args ...any) {
	b.t.Helper()
	if _, err := b.pool.Exec(b.t.Context(), query, args...); err != nil {
		b.t.Fatal(err)
	}
}

// wants subscribes a phone to a digest about a child.
func (b *bench) wants(phone, child, channel, mode string) {
	b.t.Helper()
	b.exec(`
		INSERT INTO subscription.subscription (child_id, topic, mode, representative_id, channel)
		SELECT $2, 'pass', $4, id, $3 FROM access.representative WHERE phone = $1`, phone, b.people[child], channel, mode)
}

// visit records passes of a child, in and out, received as they happened.
func (b *bench) visit(child string, in, out time.Time) {
	b.t.Helper()
	b.tap(child, door.In, in, in)
	if !out.IsZero() {
		b.tap(child, door.Out, out, out)
	}
}

func (b *bench) tap(child string, direction door.Direction, at, received time.Time) door.Passed {
	b.t.Helper()
	var job door.Passed
	err := pgx.BeginFunc(b.t.Context(), b.pool, func(tx pgx.Tx) error {
		ids, err := ledger.NextEventIDs(b.t.Context(), tx, 1)
		if err != nil {
			return err
		}
		job = door.Passed{EventIDs: []int64{int64(ids[0])}, From: at, To: at}
		_, err = door.NewRecorder(b.jobs).Record(b.t.Context(), tx, received, []door.Tap{{
			Event: ids[0], Device: 1, Organisation: b.org, Building: b.places["b1"], Person: b.people[child],
			Direction: direction, Kind: door.ByCard, At: at, RawAt: at, ReceivedAt: received,
		}})
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return job
}

// sell books a sale that a till made offline and reported at once.
func (b *bench) sell(child string, kind meal.Kind, which string, at time.Time, total money.Amount, items ...meal.Item) {
	b.t.Helper()
	b.sellLate(child, kind, which, at, at, total, items...)
}

// sellLate books a sale that a till made offline and reported later.
func (b *bench) sellLate(
	child string, kind meal.Kind, which string, at, received time.Time, total money.Amount, items ...meal.Item,
) {
	b.t.Helper()
	err := pgx.BeginFunc(b.t.Context(), b.pool, func(tx pgx.Tx) error {
		ids, err := ledger.NextEventIDs(b.t.Context(), tx, 1)
		if err != nil {
			return err
		}
		b.seq++
		verdicts, err := meal.NewCanteen(ledger.NewBook(b.jobs), b.jobs).Sell(b.t.Context(), tx, []meal.Sale{{
			Event: ids[0], Person: b.people[child], Kind: kind, Meal: which, Items: items, Total: total, At: at,
			ReceivedAt: received, Device: 2, Seq: b.seq, Mode: ledger.Offline,
		}})
		if err == nil && !verdicts[0].Booked() {
			return fmt.Errorf("the sale is %s", verdicts[0].Code)
		}
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// topUp brings money to a child's account and returns when it was posted.
func (b *bench) topUp(child string, amount money.Amount) (postedAt time.Time) {
	b.t.Helper()
	err := pgx.BeginFunc(b.t.Context(), b.pool, func(tx pgx.Tx) error {
		bank, err := ledger.SystemAccounts(b.t.Context(), tx, ledger.SystemAccount{Kind: ledger.Bank, Owner: "mkb"})
		if err != nil {
			return err
		}
		balances, err := ledger.Balances(b.t.Context(), tx, []ledger.PersonID{b.people[child]})
		if err != nil {
			return err
		}
		ids, err := ledger.NextEventIDs(b.t.Context(), tx, 1)
		if err != nil {
			return err
		}
		if _, err = ledger.NewBook(b.jobs).Post(b.t.Context(), tx, []ledger.Entry{{
			Event: ids[0], Kind: ledger.TopUp, Debit: bank[0], Credit: balances[b.people[child]].Account, Amount: amount,
			Source: "bank/mkb", ExternalID: fmt.Sprint(ids[0]), OccurredAt: time.Now().AddDate(0, 0, -5), // a bank that tells late
		}}); err != nil {
			return err
		}
		return tx.QueryRow(b.t.Context(), `SELECT posted_at FROM ledger.posting WHERE event_id = $1`, ids[0]).Scan(&postedAt)
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return postedAt
}

// cancel takes the newest posting back, as a bank does that has taken a payment by mistake.
func (b *bench) cancel() {
	b.t.Helper()
	err := pgx.BeginFunc(b.t.Context(), b.pool, func(tx pgx.Tx) error {
		var last ledger.Key
		if err := tx.QueryRow(b.t.Context(), `SELECT source, ext_id FROM ledger.posting ORDER BY id DESC LIMIT 1`).
			Scan(&last.Source, &last.ExternalID); err != nil {
			return err
		}
		ids, err := ledger.NextEventIDs(b.t.Context(), tx, 1)
		if err != nil {
			return err
		}
		_, err = ledger.NewBook(b.jobs).Post(b.t.Context(), tx, []ledger.Entry{{
			Event: ids[0], Kind: ledger.Reversal, Source: "cancel", ExternalID: fmt.Sprint(ids[0]), OccurredAt: time.Now(), Reverses: last,
		}})
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) digests() {
	b.t.Helper()
	if err := b.teller.RunDigests(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

// digestVerdicts lists the outcomes as "phone kind verdict".
func (b *bench) digestVerdicts() []string {
	b.t.Helper()
	rows, err := b.pool.Query(b.t.Context(), `
		SELECT r.phone || ' ' || d.kind || ' ' || d.verdict FROM notice.digest AS d
		JOIN access.representative AS r ON r.id = d.representative_id ORDER BY r.phone, d.kind`)
	if err != nil {
		b.t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		b.t.Fatal(err)
	}
	return list
}

func (b *bench) letter() string {
	b.t.Helper()
	var text string
	if err := b.pool.QueryRow(b.t.Context(), `SELECT text_body FROM delivery.letter`).Scan(&text); err != nil {
		b.t.Fatal(err)
	}
	text, _, _ = strings.Cut(text, "\n-- \n") // the footer
	return strings.TrimSpace(text)
}

func at(hour, minute int) time.Time { return time.Date(2026, 11, 23, hour-3, minute, 0, 0, time.UTC) }

func TestTheDaysDigestTellsOfAllChildrenInOneLetterAndOfEachInOneSMS(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.wants("79000000001", "masha", "email", "day")
	b.wants("79000000001", "petya", "email", "day")
	b.wants("79000000001", "petya", "sms", "day")
	b.wants("79000000002", "masha", "sms", "day")
	b.visit("masha", at(8, 15), at(14, 5))
	b.exec(`INSERT INTO meal.menu (organisation_id, day, meal, dish, kcal, price) VALUES
		($1, '2026-11-23', 'lunch', 'Борщ', 180.4, 6000), ($1, '2026-11-23', 'lunch', 'Компот', 90, 2000)`, b.org)
	b.sell("masha", meal.Hot, "lunch", at(12, 0), 80_00)
	b.sell("masha", meal.Buffet, "", at(10, 40), 70_00, meal.Item{Name: "Булочка", Quantity: 2, Price: 35_00})
	b.visit("petya", at(9, 0), time.Time{})
	b.now = evening
	b.digests()
	expect(t, "messages", b.sent(),
		"email mother@example.org Сводка за 23 ноября: Маша, Петя",
		"sms 79000000001 Петя П. 23.11 вход 09:00, траты 0,00 р, баланс 0,00 р",
		"sms 79000000002 Masha P. 23.11 08:15-14:05, traty 150,00 r, balans -150,00 r")
	expect(t, "the children", b.about(), "email mother@example.org masha,petya", "sms 79000000001 petya", "sms 79000000002 masha")
	want := strings.TrimSpace(`
Сводка за 23 ноября: Маша, Петя

Маша П.
Посещение: 08:15 – 14:05
Буфет:     Булочка × 2; 70,00 ₽
Обед:      Борщ, Компот; 270 ккал, 80,00 ₽
Потрачено: 150,00 ₽
Баланс:    −150,00 ₽

Петя П.
Посещение: 09:00 – нет отметки о выходе
Потрачено: 0,00 ₽
Баланс:    0,00 ₽
`)
	if got := strings.ReplaceAll(b.letter(), "\u00a0", " "); got != want {
		t.Errorf("the letter is:\n%s\nwant:\n%s", got, want)
	}
}

func TestNobodyGetsADigestTwiceHoweverItIsRestartedOrRaced(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.wants("79000000001", "petya", "sms", "day")
	b.wants("79000000002", "masha", "sms", "day")
	b.visit("petya", at(9, 0), time.Time{})
	b.visit("masha", at(9, 0), time.Time{})
	b.now = evening
	done := make(chan error, 6)
	for range cap(done) {
		go func() { done <- b.teller.RunDigests(context.WithoutCancel(t.Context())) }()
	}
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	// A process that lost its memory of how far it was.
	b.exec(`UPDATE notice.digest_run SET position = 0, finished_at = NULL`)
	b.now = evening.Add(time.Minute)
	b.digests()
	if sent := b.sent(); len(sent) != 2 {
		t.Errorf("messages:\n%s\nwant two", strings.Join(sent, "\n"))
	}
}

func TestADigestIsMadeFromItsMomentOnAndNotTheNextMorning(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		now  time.Time
		want int
	}{
		"a minute before":    {evening.Add(-time.Minute), 0},
		"at its moment":      {evening, 1},
		"after an hour away": {evening.Add(time.Hour), 1},
		"after a night away": {evening.Add(digestReach), 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.wants("79000000001", "petya", "sms", "day")
			b.visit("petya", at(9, 0), time.Time{})
			b.now = test.now
			b.digests()
			if sent := b.sent(); len(sent) != test.want {
				t.Errorf("messages %q, want %d", sent, test.want)
			}
		})
	}
}

func TestADigestMadeInTheQuietHoursWaitsForTheMorning(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.wants("79000000001", "petya", "sms", "day")
	b.visit("petya", at(9, 0), time.Time{})
	b.now = evening.Add(2 * time.Hour) // 21:00 (D7)
	b.digests()
	var when time.Time
	if err := b.pool.QueryRow(t.Context(), `SELECT scheduled_at FROM river.river_job WHERE kind = 'sms'`).Scan(&when); err != nil {
		t.Fatal(err)
	}
	if want := time.Date(2026, 11, 24, 5, 0, 0, 0, time.UTC); !when.Equal(want) {
		t.Errorf("it is sent at %s, want %s", when, want)
	}
}

func TestNothingHappenedAndThereIsNoDigest(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.wants("79000000001", "petya", "sms", "day")
	b.now = evening
	b.digests()
	expect(t, "messages", b.sent())
	expect(t, "outcomes", b.digestVerdicts(), "79000000001 day nothing")
}

func TestADigestThatMayNotBeSentLeavesItsReason(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.wants("79000000002", "masha", "email", "day") // has no mailbox
	b.wants("79000000003", "masha", "sms", "day")
	b.wants("79000000004", "ivan", "sms", "day") // the consent has run out
	b.visit("masha", at(9, 0), time.Time{})
	b.visit("ivan", at(9, 0), time.Time{})
	b.exec(`INSERT INTO delivery.address (channel, address, opted_out_at) VALUES ('sms', '79000000003', now())`)
	b.now = evening
	b.digests()
	expect(t, "messages", b.sent())
	expect(t, "outcomes", b.digestVerdicts(),
		"79000000002 day no_address", "79000000003 day opted_out", "79000000004 day consent_expired")
}

func TestTheWeeksDigestComesOnFriday(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.wants("79000000001", "petya", "sms", "week")
	b.visit("petya", at(9, 0), at(14, 0))
	b.visit("petya", at(9, 0).AddDate(0, 0, 2), time.Time{})
	b.now = evening.AddDate(0, 0, 3) // Thursday
	b.digests()
	expect(t, "on Thursday", b.sent())
	b.now = evening.AddDate(0, 0, 4)
	b.digests()
	expect(t, "on Friday", b.sent(), "sms 79000000001 Петя П. 21-27.11 2 дня, траты 0,00 р, баланс 0,00 р")
}

func TestWhatCameTooLateToBeNewsIsALineOfTheDigest(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.wants("79000000001", "petya", "email", "day")
	b.tap("petya", door.In, at(8, 21), at(10, 0))                                      // D6
	b.tap("petya", door.In, at(8, 22).AddDate(0, 0, -1), at(10, 0))                    // of yesterday
	b.tap("petya", door.Out, at(14, 0).AddDate(0, 0, -1), at(14, 0).AddDate(0, 0, -1)) // was news
	b.now = evening
	b.digests()
	letter := b.letter()
	for _, want := range []string{"08:21 (сообщено позже)", "22.11 08:22"} {
		if !strings.Contains(letter, want) {
			t.Errorf("the letter does not say %q:\n%s", want, letter)
		}
	}
	if strings.Contains(letter, "22.11 14:00") {
		t.Errorf("the letter repeats news of yesterday:\n%s", letter)
	}
}

func TestAPhoneOverItsCapGetsTheDigestItWasPromised(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i := range 5 {
		b.now = morning.Add(time.Duration(i) * 2 * time.Minute)
		b.tell(b.pass("b1", b.now, "petya"))
	}
	b.now = evening
	b.digests()
	sent := b.sent()
	if last := sent[len(sent)-1]; !strings.HasPrefix(last, "email mother@example.org Сводка за 23 ноября: Петя") {
		t.Errorf("messages:\n%s\nwant a digest at the end", strings.Join(sent, "\n"))
	}
}

func TestARecipientOfTwoOrganisationsGetsOneDigestAtTheLaterMoment(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`INSERT INTO ledger.organisation (code, kind, name, short_name, payee_code, time_zone, digest_at)
		SELECT 's2', kind, 'Школа 2', 'Шк 2', payee_code, time_zone, '20:00' FROM ledger.organisation`)
	b.exec(`UPDATE ledger.person SET organisation_id = (SELECT id FROM ledger.organisation WHERE code = 's2') WHERE code = 'petya'`)
	b.wants("79000000001", "masha", "email", "day")
	b.wants("79000000001", "petya", "email", "day")
	b.visit("masha", at(8, 0), at(14, 0))
	b.visit("petya", at(8, 0), at(14, 0))
	b.now = evening
	b.digests()
	expect(t, "at the first moment", b.sent())
	b.now = evening.Add(time.Hour)
	b.digests()
	expect(t, "at the second", b.sent(), "email mother@example.org Сводка за 23 ноября: Маша, Петя")
}

func TestTheForecastIsTheBalanceAtThePresentPace(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name           string
		balance, spent money.Amount
		days           int
		want           templates.Forecast
	}{
		{"ten days of a hundred, a thousand left", 1000_00, 1000_00, 10, templates.Forecast{Known: true, SchoolDays: 10}},
		{"a part of a day is no day", 199_00, 1000_00, 10, templates.Forecast{Known: true, SchoolDays: 1}},
		{"in debt nothing lasts", -1_00, 1000_00, 10, templates.Forecast{Known: true}},
		{"nothing bought, nothing known", 1000_00, 0, 10, templates.Forecast{}},
		{"two days are no pace", 1000_00, 100_00, 2, templates.Forecast{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := lasts(test.balance, test.spent, test.days); got != test.want {
				t.Errorf("%+v, want %+v", got, test.want)
			}
		})
	}
}

func TestTopUpsAndTheForecastAreInTheLetter(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.wants("79000000001", "masha", "email", "day")
	zone, err := time.LoadLocation("Europe/Moscow")
	if err != nil {
		t.Fatal(err)
	}
	b.topUp("masha", 70_00)
	b.cancel()                                   // which nobody has any more
	posted := b.topUp("masha", 1000_00).In(zone) // by the database's clock
	day := time.Date(posted.Year(), posted.Month(), posted.Day(), 12, 0, 0, 0, zone)
	if posted.Hour() >= 19 || posted.Add(digestSettle).Hour() == 19 {
		day = day.AddDate(0, 0, 1) // what is posted after a day's digest is told in the next one
	}
	for n := range 4 {
		past := day.AddDate(0, 0, -n)
		b.visit("masha", past.Add(-4*time.Hour), past.Add(2*time.Hour))
		b.sell("masha", meal.Buffet, "", past, 100_00)
	}
	b.now = day.Add(7 * time.Hour)
	b.digests()
	letter := strings.ReplaceAll(b.letter(), "\u00a0", " ")
	for _, want := range []string{"Пополнено:    1 000,00 ₽", "Баланс:       600,00 ₽", "примерно на 6 учебных дней"} {
		if !strings.Contains(letter, want) {
			t.Errorf("the letter does not say %q:\n%s", want, letter)
		}
	}
}

// D14: a digest tells of what the consent covers: of visits alone, or of meals
// and money alone.
func TestADigestTellsOfWhatTheConsentCovers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		covers string
		sms    string
		letter string
	}{
		{"visits = true, meals = false", "sms 79000000002 Masha P. 23.11 08:15-14:05", "Маша П.\nПосещение: 08:15 – 14:05"},
		{
			"visits = false, meals = true", "sms 79000000002 Masha P. 23.11 traty 80,00 r, balans -80,00 r",
			"Маша П.\nОбед:      80,00 ₽\nПотрачено: 80,00 ₽\nБаланс:    −80,00 ₽",
		},
	} {
		t.Run(c.covers, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.wants("79000000001", "masha", "email", "day")
			b.wants("79000000002", "masha", "sms", "day")
			b.wants("79000000005", "vera", "sms", "day") // of whom there is nothing the consent covers
			b.visit("masha", at(8, 15), at(14, 5))
			b.sell("masha", meal.Hot, "lunch", at(12, 0), 80_00)
			if strings.HasPrefix(c.covers, "visits = false") {
				b.visit("vera", at(8, 15), at(14, 5))
			} else {
				b.sell("vera", meal.Hot, "lunch", at(12, 0), 80_00)
			}
			b.exec(`UPDATE access.consent SET ` + c.covers)
			b.now = evening
			b.digests()
			expect(t, "messages", b.sent(), "email mother@example.org Сводка за 23 ноября: Маша", c.sms)
			letter := strings.ReplaceAll(b.letter(), "\u00a0", " ")
			if want := "Сводка за 23 ноября: Маша\n\n" + c.letter; letter != want {
				t.Errorf("the letter is:\n%s\nwant:\n%s", letter, want)
			}
			expect(t, "digests", b.digestVerdicts(), "79000000001 day told", "79000000002 day told", "79000000005 day nothing")
		})
	}
}

// The letters of a child's day are one conversation, and lead to the settings.
func TestTheLettersOfAChildsDayAreOneConversation(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.wants("79000000001", "masha", "email", "day")
	b.tell(b.pass("b1", morning, "masha"))
	b.now = evening
	b.digests()
	var threads, linked int
	if err := b.pool.QueryRow(t.Context(), `
		SELECT count(DISTINCT thread), count(*) FILTER (WHERE text_body LIKE '%https://example.org/settings%'
			AND html_body LIKE '%https://example.org/u/mother@example.org%') FROM delivery.letter
		WHERE thread = 'child-' || $1::bigint || '.20261123'`, b.people["masha"]).Scan(&threads, &linked); err != nil {
		t.Fatal(err)
	}
	if threads != 1 || linked != 2 {
		t.Errorf("%d conversations; %d letters with links, want 1 and 2", threads, linked)
	}
}

// A deployment's words are used from the next message on.
func TestADeploymentsTextIsUsedFromTheNextMessageOn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.tell(b.pass("b1", morning, "petya"))
	file := filepath.Join(t.TempDir(), "texts.toml")
	if err := os.WriteFile(file, []byte("[ru]\npass_in_balance = \"Пришли {{.Time}}: {{.Names}}, счёт {{.Balance}}\"\nopt_out = \"Больше не пишем\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if b.texts, err = templates.Load(file); err != nil {
		t.Fatal(err)
	}
	b.now = morning.Add(5 * time.Minute)
	b.tell(b.pass("b2", b.now, "petya"))
	b.says("79000000001", "стоп")
	expect(t, "messages", b.sent(),
		"sms 79000000001 Вход 08:15 Петя П. Баланс 0,00 р", "sms 79000000001 Пришли 08:20: Петя П., счёт 0,00 р",
		"sms 79000000001 Больше не пишем")
}

// What happens after a day's digest is made is told by the next one: nobody who
// wants digests alone would ever hear of a top-up in the evening.
func TestTheEveningAfterADigestIsToldByTheNextOne(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.wants("79000000001", "petya", "email", "day")
	b.visit("petya", at(8, 15), time.Time{})
	posted := b.topUp("petya", 500_00) // by the database's clock
	var moved time.Time
	if err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), `SET LOCAL ROLE NONE`); err != nil {
			return err
		}
		if _, err := tx.Exec(t.Context(), `SET LOCAL session_replication_role = replica`); err != nil { // past the book's guards
			return err
		}
		return tx.QueryRow(t.Context(), `
			UPDATE ledger.posting SET posted_at = $1, booking_day = $2 WHERE posted_at = $3 RETURNING posted_at`,
			at(20, 0), evening, posted).Scan(&moved)
	}); err != nil {
		t.Fatal(err)
	}
	b.now = evening
	b.digests()
	b.tap("petya", door.Out, at(19, 30), at(19, 30)) // while the digest was made, and after
	if text := b.letter(); strings.Contains(text, "19:30") || strings.Contains(text, "Пополнено") {
		t.Errorf("the digest of 19:00 tells of the evening:\n%s", text)
	}
	b.exec(`DELETE FROM delivery.letter`)
	b.now = evening.AddDate(0, 0, 1)
	b.digests()
	text := strings.ReplaceAll(b.letter(), "\u00a0", " ")
	for _, want := range []string{"Выход 23.11 19:30 Петя П.", "Пополнено: 500,00 ₽"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in the next digest:\n%s", want, text)
		}
	}
	b.exec(`DELETE FROM delivery.letter`)
	b.now = evening.AddDate(0, 0, 2)
	b.digests()
	var letters int
	if err := b.pool.QueryRow(t.Context(), `SELECT count(*) FROM delivery.letter`).Scan(&letters); err != nil || letters != 0 {
		t.Errorf("%d letters tell of it once more, %v", letters, err)
	}
}

// nextLetter makes the digests of a moment and returns the letter, "" for none.
func (b *bench) nextLetter(moment time.Time) string {
	b.t.Helper()
	b.exec(`DELETE FROM delivery.letter`)
	b.now = moment
	b.digests()
	var letters int
	if err := b.pool.QueryRow(b.t.Context(), `SELECT count(*) FROM delivery.letter`).Scan(&letters); err != nil {
		b.t.Fatal(err)
	}
	if letters == 0 {
		return ""
	}
	return strings.ReplaceAll(b.letter(), "\u00a0", " ")
}

// door.md, "Late events": a till that was offline reports a meal when the digest of
// its day has been made. The next one tells it, with its date, and no other does;
// the digest of the week has it once, on its own day.
func TestAMealReportedAfterTheDigestOfItsDayIsToldOnceByTheNextOne(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.wants("79000000001", "petya", "email", "day")
	b.wants("79000000001", "petya", "email", "week")
	b.exec(`INSERT INTO meal.menu (organisation_id, day, meal, dish, kcal, price) VALUES
		($1, '2026-11-23', 'lunch', 'Борщ', 180, 6000)`, b.org)
	b.visit("petya", at(8, 15), at(14, 0))
	late := at(20, 30) // the till is online again
	b.sellLate("petya", meal.Hot, "lunch", at(12, 0), late, 80_00)
	b.sellLate("petya", meal.Buffet, "", at(19, 20), at(19, 20), 30_00, meal.Item{Name: "Чай", Quantity: 1, Price: 30_00})
	// As the bench records everything at once, the digest must leave out what came after it.
	if text := b.nextLetter(evening); text == "" || strings.Contains(text, "Обед") || strings.Contains(text, "Чай") {
		t.Errorf("the digest of Monday tells of what came after it:\n%s", text)
	}
	b.sell("petya", meal.Buffet, "", at(10, 40).AddDate(0, 0, 1), 70_00)
	want := strings.TrimSpace(`
Сводка за 24 ноября: Петя

Петя П.
Посещение:   без посещений
Обед 23.11:  Борщ; 180 ккал, 80,00 ₽, сообщено позже
Буфет 23.11: Чай; 30,00 ₽
Буфет:       70,00 ₽
Потрачено:   70,00 ₽
Баланс:      −180,00 ₽
`)
	if text := b.nextLetter(evening.AddDate(0, 0, 1)); text != want {
		t.Errorf("the digest of Tuesday is:\n%s\nwant:\n%s", text, want)
	}
	if text := b.nextLetter(evening.AddDate(0, 0, 2)); text != "" {
		t.Errorf("the digest of Wednesday tells of it once more:\n%s", text)
	}
	week := b.nextLetter(evening.AddDate(0, 0, 4)) // of the day there is nothing to tell
	if strings.Count(week, "Борщ") != 1 || strings.Count(week, "Чай") != 1 || strings.Contains(week, "позже") ||
		!strings.Contains(week, "Потрачено: 180,00 ₽") {
		t.Errorf("the digest of the week is:\n%s", week)
	}
	if text := b.nextLetter(evening.AddDate(0, 0, 11)); text != "" {
		t.Errorf("the next week tells of it once more:\n%s", text)
	}
}

// A meal of last week that came after its digest is in the next one, beside what
// the days of that week cost.
func TestAMealReportedAfterTheDigestOfItsWeekIsInTheNextOne(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.wants("79000000001", "petya", "email", "week")
	b.sellLate("petya", meal.Buffet, "", at(12, 0).AddDate(0, 0, 3), at(9, 0).AddDate(0, 0, 7), 70_00) // Thursday, on Monday
	b.sell("petya", meal.Buffet, "", at(12, 0).AddDate(0, 0, 8), 50_00)
	if text := b.nextLetter(evening.AddDate(0, 0, 4)); text != "" {
		t.Errorf("the first week's digest is:\n%s", text)
	}
	text := b.nextLetter(evening.AddDate(0, 0, 11))
	if !strings.Contains(text, "буфет 26.11: 70,00 ₽, сообщено позже") || !strings.Contains(text, "Потрачено: 50,00 ₽") {
		t.Errorf("the second week's digest is:\n%s", text)
	}
}

// What a limit stopped in the evening is told by the next digest, once.
func TestAPurchaseStoppedAfterTheDigestIsToldByTheNextOne(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.wants("79000000001", "petya", "email", "day")
	b.visit("petya", at(8, 15), at(14, 0))
	stop := func(event int64, at time.Time) {
		b.exec(`INSERT INTO meal.blocked (event_id, person_id, device_id, reason, total, at) VALUES ($1, $2, 2, 'over_limit', 7000, $3)`,
			event, b.people["petya"], at)
	}
	stop(1001, at(10, 40))
	stop(1002, at(19, 20))
	if text := b.nextLetter(evening); !strings.Contains(text, "Покупка 10:40 отклонена") || strings.Contains(text, "19:20") {
		t.Errorf("the digest of the day is:\n%s", text)
	}
	if text := b.nextLetter(evening.AddDate(0, 0, 1)); !strings.Contains(text, "Покупка 23.11 19:20 отклонена") || strings.Contains(text, "10:40") {
		t.Errorf("the next digest is:\n%s", text)
	}
	if text := b.nextLetter(evening.AddDate(0, 0, 2)); text != "" {
		t.Errorf("it is told once more:\n%s", text)
	}
}

// What is being stored while a digest is made may come to light behind its back:
// the digest leaves the last minute to the next one.
func TestWhatComesAtTheMomentOfADigestIsInOneOfTwo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.wants("79000000001", "petya", "email", "day")
	b.visit("petya", at(8, 15), time.Time{})
	first := b.nextLetter(evening)
	b.tap("petya", door.Out, evening.Add(-time.Second), evening.Add(-time.Second)) // committed after the digest was read
	b.sell("petya", meal.Buffet, "", evening.Add(-time.Second), 70_00)
	second := b.nextLetter(evening.AddDate(0, 0, 1))
	for _, once := range []string{"18:59", "Буфет"} {
		if n := strings.Count(first+second, once); n != 1 {
			t.Errorf("%q is told %d times:\n%s\n%s", once, n, first, second)
		}
	}
}

// A threshold is told in the digest to who wants it there and not at once.
func TestAThresholdThatIsWantedInADigestAloneIsALineOfIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	event := b.crossing(morning)
	b.exec(`UPDATE subscription.subscription SET mode = 'day' WHERE topic = 'threshold'`)
	b.now = morning.Add(time.Second)
	if err := b.teller.tellAll(t.Context(), func(ctx context.Context, tx pgx.Tx) ([]news, error) {
		return b.teller.crossedNews(ctx, tx, []int64{event})
	}); err != nil {
		t.Fatal(err)
	}
	expect(t, "verdicts", b.verdicts(), "masha 79000000001  in_digest")
	b.now = evening
	b.digests()
	expect(t, "messages", b.sent(), "sms 79000000001 Маша П. 23.11 без посещений, траты 0,00 р, баланс 0,00 р")
}
