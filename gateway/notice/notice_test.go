package notice

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"zvonok/access"
	"zvonok/access/door"
	"zvonok/access/phone"
	"zvonok/gateway/delivery"
	"zvonok/gateway/subscription"
	"zvonok/ledger"
	"zvonok/ledger/pg"
	"zvonok/ledger/pg/pgtest"
	"zvonok/ledger/registry"
	"zvonok/templates"
)

// morning is a school day in Moscow, 08:15.
var morning = time.Date(2026, 11, 23, 5, 15, 0, 0, time.UTC)

// family is a small city: Masha and Petya Petrov with their mother (SMS, and
// mail for Masha), father (in Latin letters), grandmother (trusted); Ivan, whose
// mother has consented to nothing; Vera, whose father subscribed to nothing; and Alla, of
// whom no representative is on record.
var registryFiles = map[string]string{
	"payees.csv":        "payee_id,name,inn,payment_code\nkp,Комбинат,7700000009,916\n",
	"organisations.csv": "org_id,kind,name,short_name,payee_id,time_zone,account_prefix\ns1,school,Школа 1,Шк 1,kp,Europe/Moscow,0020\n",
	"buildings.csv":     "building_id,org_id,address\nb1,s1,ул. Примерная\nb2,s1,ул. Вторая\n",
	"people.csv": "person_id,org_id,kind,family_name,given_name,patronymic,group,benefit,account,left\n" +
		"masha,s1,pupil,Петрова,Маша,,1А,none,,\npetya,s1,pupil,Петров,Петя,,2А,none,,\n" +
		"ivan,s1,pupil,Иванов,Иван,,3А,none,,\nvera,s1,pupil,Белова,Вера,,3А,none,,\n" +
		"alla,s1,pupil,Орлова,Алла,,3А,none,,\n",
	"guardians.csv": "phone,email,family_name,given_name,patronymic,language,translit,person_id,role,consent_date,consent_until\n" +
		"+79000000001,mother@example.org,Петрова,Ольга,,ru,no,masha,legal,2026-09-01,\n" +
		"+79000000001,mother@example.org,Петрова,Ольга,,ru,no,petya,legal,2026-09-01,\n" +
		"+79000000002,,Петров,Олег,,ru,yes,masha,legal,2026-09-01,\n" +
		"+79000000003,,Соколова,Анна,,en,no,masha,trusted,2026-09-01,\n" +
		"+79000000004,,Иванова,Нина,,ru,no,ivan,legal,2026-09-01,\n" +
		"+79000000005,,Белов,Лев,,ru,no,vera,legal,2026-09-01,\n",
	"subscriptions.csv": "phone,person_id,event,channel,mode,threshold\n" +
		"+79000000001,masha,pass,sms,now,\n+79000000001,masha,pass,email,now,\n+79000000001,petya,pass,sms,now,\n" +
		"+79000000001,masha,topup,sms,now,\n+79000000002,masha,pass,sms,now,\n+79000000003,masha,pass,sms,now,\n" +
		"+79000000004,ivan,pass,sms,now,\n",
}

type bench struct {
	t       testing.TB
	pool    *pgxpool.Pool
	jobs    *river.Client[pgx.Tx]
	teller  *Teller
	now     time.Time
	silence time.Duration // after which a phone that is heard again is in doubt
	people  map[string]ledger.PersonID
	org     ledger.OrganisationID
	places  map[string]ledger.BuildingID
	seq     int64 // of sales
	texts   *templates.Texts
	routes  []string // of every number
}

func setup(t testing.TB) *bench {
	t.Helper()
	b := &bench{t: t, pool: pgtest.New(t), now: morning, people: map[string]ledger.PersonID{}, places: map[string]ledger.BuildingID{}, texts: templates.Builtin(), routes: []string{"box"}}
	files := fstest.MapFS{}
	for name, content := range registryFiles {
		files[name] = &fstest.MapFile{Data: []byte(content)}
	}
	folder, err := registry.OpenFS(files)
	if err != nil {
		t.Fatal(err)
	}
	report, err := registry.Run(t.Context(), b.pool, folder, ledger.ImportRegister, access.Import, subscription.Import)
	if err != nil {
		t.Fatalf("import: %v %v", err, report.Problems)
	}
	// An import takes nobody whose right has ended long before the day it is run on.
	b.exec(`UPDATE access.consent SET until = '2026-10-01' WHERE child_id = (SELECT id FROM ledger.person WHERE code = 'ivan')`)
	if b.jobs, err = river.NewClient(riverpgxv5.New(b.pool), &river.Config{Schema: pg.RiverSchema}); err != nil {
		t.Fatal(err)
	}
	desk := delivery.NewDesk(b.jobs, func(phone.Number) []string { return b.routes })
	desk.SMSPerDay = 3
	b.teller = NewTeller(Config{
		Pool: b.pool, River: b.jobs, Desk: desk,
		Log: slog.New(slog.DiscardHandler), Metrics: NewMetrics(prometheus.NewPedanticRegistry()),
		Now: func() time.Time { return b.now }, Texts: func() *templates.Texts { return b.texts },
		Links: func(address string) templates.Links {
			return templates.Links{Settings: "https://example.org/settings", Unsubscribe: "https://example.org/u/" + address}
		},
	})
	t.Cleanup(b.teller.Close)
	var code string
	var id int64
	rows, err := b.pool.Query(t.Context(), `SELECT code, id FROM ledger.person`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pgx.ForEachRow(rows, []any{&code, &id}, func() error { b.people[code] = ledger.PersonID(id); return nil }); err != nil {
		t.Fatal(err)
	}
	rows, err = b.pool.Query(t.Context(), `SELECT code, id, organisation_id FROM ledger.building`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pgx.ForEachRow(rows, []any{&code, &id, &b.org}, func() error { b.places[code] = ledger.BuildingID(id); return nil }); err != nil {
		t.Fatal(err)
	}
	return b
}

// pass records that a child came in through a building at a time, and returns
// the job that tells of it.
func (b *bench) pass(building string, at time.Time, children ...string) door.Passed {
	b.t.Helper()
	recorder := door.NewRecorder(b.jobs)
	job := door.Passed{From: at, To: at}
	err := pgx.BeginFunc(b.t.Context(), b.pool, func(tx pgx.Tx) error {
		ids, err := ledger.NextEventIDs(b.t.Context(), tx, len(children))
		if err != nil {
			return err
		}
		var taps []door.Tap
		for i, child := range children {
			taps = append(taps, door.Tap{
				Event: ids[i], Device: 1, Organisation: b.org, Building: b.places[building], Person: b.people[child],
				Direction: door.In, Kind: door.ByCard, At: at, RawAt: at, ReceivedAt: at,
			})
			job.EventIDs = append(job.EventIDs, int64(ids[i]))
		}
		_, err = recorder.Record(b.t.Context(), tx, at, taps)
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return job
}

func (b *bench) tell(job door.Passed) {
	b.t.Helper()
	if _, err := b.teller.tellPasses(b.t.Context(), []door.Passed{job}); err != nil {
		b.t.Fatal(err)
	}
}

// sent lists the messages as "channel address text", in order of storing.
func (b *bench) sent() []string {
	b.t.Helper()
	rows, err := b.pool.Query(b.t.Context(), `
		SELECT d.channel || ' ' || d.address || ' ' || coalesce(l.subject, d.body)
		FROM delivery.delivery AS d LEFT JOIN delivery.letter AS l ON l.delivery_id = d.id AND l.at = d.at ORDER BY d.id`)
	if err != nil {
		b.t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		b.t.Fatal(err)
	}
	return list
}

// about lists of whom the messages tell, in order of storing: what has waited asks
// about all of them before it is sent.
func (b *bench) about() []string {
	b.t.Helper()
	rows, err := b.pool.Query(b.t.Context(), `
		SELECT d.channel || ' ' || d.address || ' ' ||
		       (SELECT string_agg(p.code, ',' ORDER BY c.place)
		          FROM unnest(d.children) WITH ORDINALITY AS c (id, place) JOIN ledger.person AS p ON p.id = c.id)
		FROM delivery.delivery AS d ORDER BY d.id`)
	if err != nil {
		b.t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		b.t.Fatal(err)
	}
	return list
}

// verdicts lists what became of facts as "child phone channel verdict".
func (b *bench) verdicts() []string {
	b.t.Helper()
	rows, err := b.pool.Query(b.t.Context(), `
		SELECT p.code || ' ' || coalesce(r.phone, '-') || ' ' || n.channel || ' ' || n.verdict
		FROM notice.notice AS n JOIN ledger.person AS p ON p.id = n.child_id
		LEFT JOIN access.representative AS r ON r.id = n.representative_id
		ORDER BY n.event_id, r.phone, n.channel`)
	if err != nil {
		b.t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		b.t.Fatal(err)
	}
	return list
}

func expect(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s:\n%s\nwant:\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestAPassIsToldToEachWhoMayAndWantsToKnowInTheirLanguage(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.tell(b.pass("b1", morning, "masha"))
	expect(t, "messages", b.sent(),
		"email mother@example.org Вход 08:15: Маша",
		"sms 79000000001 Вход 08:15 Маша П. Баланс 0,00 р",
		"sms 79000000002 Vkhod 08:15 Masha P. Balans 0,00 r",
		"sms 79000000003 Entry 08:15 Masha P. Balance 0.00 RUB")
}

func TestEveryRefusalLeavesItsReason(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.tell(b.pass("b1", morning, "ivan")) // the consent has run out (D14)
	b.tell(b.pass("b1", morning, "vera")) // nothing is wanted
	b.tell(b.pass("b1", morning, "alla")) // nobody is on record
	expect(t, "verdicts", b.verdicts(),
		"ivan 79000000004  consent_expired",
		"vera 79000000005  not_subscribed",
		"alla -  no_listener")
	expect(t, "messages", b.sent())
}

func TestARepeatedJobTellsNothingTwice(t *testing.T) {
	t.Parallel()
	b := setup(t)
	job := b.pass("b1", morning, "masha")
	b.tell(job)
	before := len(b.sent())
	b.tell(job)
	if after := len(b.sent()); after != before {
		t.Errorf("%d messages after the job came again, want %d", after, before)
	}
}

func TestTwoRacingJobsOfOneFactMakeOneMessage(t *testing.T) {
	t.Parallel()
	b := setup(t)
	job := b.pass("b1", morning, "petya")
	done := make(chan error, 8)
	for range cap(done) {
		go func() {
			_, err := b.teller.tellPasses(context.WithoutCancel(t.Context()), []door.Passed{job})
			done <- err
		}()
	}
	for range cap(done) {
		<-done // the losers may fail: River brings their job again, and it finds the fact told
	}
	expect(t, "messages", b.sent(), "sms 79000000001 Вход 08:15 Петя П. Баланс 0,00 р")
}

// Pain 24: one SMS per family phone.
func TestSiblingsThroughOneDoorShareAMessage(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.tell(b.pass("b1", morning, "masha", "petya"))
	var mothers []string
	for _, message := range b.sent() {
		if strings.Contains(message, "sms 79000000001") {
			mothers = append(mothers, message)
		}
	}
	expect(t, "the mother's SMS", mothers, "sms 79000000001 Вход 08:15 Маша П., Петя П.")
}

func TestSiblingsThroughDifferentDoorsDoNotShareAMessage(t *testing.T) {
	t.Parallel()
	b := setup(t)
	one, two := b.pass("b1", morning, "masha"), b.pass("b2", morning, "petya")
	if _, err := b.teller.tellPasses(t.Context(), []door.Passed{one, two}); err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, message := range b.sent() {
		if strings.Contains(message, "sms 79000000001") {
			count++
		}
	}
	if count != 2 {
		t.Errorf("the mother got %d SMS, want 2", count)
	}
}

func TestAPassThatIsNoNewsAnyMoreIsNotSent(t *testing.T) {
	t.Parallel()
	b := setup(t)
	job := b.pass("b1", morning, "petya")
	b.now = morning.Add(15 * time.Minute) // D6
	b.tell(job)
	expect(t, "messages", b.sent())
	expect(t, "verdicts", b.verdicts(), "petya 79000000001 sms stale")
}

// Pain 24: STOP holds.
func TestAPhoneThatSaidStopGetsNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if err := delivery.OptOut(t.Context(), b.pool, subscription.SMS, "79000000001", "stop", morning); err != nil {
		t.Fatal(err)
	}
	b.tell(b.pass("b1", morning, "petya"))
	expect(t, "messages", b.sent())
	expect(t, "verdicts", b.verdicts(), "petya 79000000001 sms opted_out")
}

func TestTheFirstMessageOverTheDaysCapSaysSoAndTheRestAreInTheDigest(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i := range 6 {
		b.now = morning.Add(time.Duration(i) * 2 * time.Minute)
		b.tell(b.pass("b1", b.now, "petya"))
	}
	sent := b.sent()
	if len(sent) != 4 || !strings.Contains(sent[3], "Лимит SMS на сегодня исчерпан") {
		t.Errorf("with a cap of 3 the phone got:\n%s", strings.Join(sent, "\n"))
	}
	capped := 0
	for _, v := range b.verdicts() {
		if strings.HasSuffix(v, string(Capped)) {
			capped++
		}
	}
	if capped != 3 {
		t.Errorf("%d facts are on record as capped, want 3", capped)
	}
}

// Pain 24: quiet hours.
func TestQuietHoursEndWhereTheyShould(t *testing.T) {
	t.Parallel()
	zone, err := time.LoadLocation("Europe/Moscow")
	if err != nil {
		t.Fatal(err)
	}
	night := quietHours{21 * time.Hour, 8 * time.Hour}
	at := func(text string) time.Time {
		parsed, err := time.ParseInLocation(time.DateTime, text, zone)
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	for _, test := range []struct {
		name  string
		hours quietHours
		now   string
		until string
	}{
		{"in the day nothing waits", night, "2026-11-22 12:00:00", "2026-11-22 12:00:00"},
		{"in the evening until the morning", night, "2026-11-22 21:00:00", "2026-11-23 08:00:00"},
		{"in the night until the morning", night, "2026-11-23 03:00:00", "2026-11-23 08:00:00"},
		{"at their end they are over", night, "2026-11-23 08:00:00", "2026-11-23 08:00:00"},
		{"hours within a day", quietHours{13 * time.Hour, 14 * time.Hour}, "2026-11-22 13:30:00", "2026-11-22 14:00:00"},
		{"equal times mean none", quietHours{8 * time.Hour, 8 * time.Hour}, "2026-11-22 08:00:00", "2026-11-22 08:00:00"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := test.hours.until(at(test.now)); !got.Equal(at(test.until)) {
				t.Errorf("until %s, want %s", got, test.until)
			}
		})
	}
}

func TestTheWordsForStopAndStartAreUnderstoodAsPeopleTypeThem(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]keyword{
		"СТОП": stop, "стоп": stop, " Стоп! ": stop, "CTOП": stop, "stop": stop, "STOP please": stop, "cnjg": stop, "\"СТОП\"": stop,
		"сотп": stop, "СТОП СМС": stop, "отказ": stop, "ыещз": stop, "STOP\u202e": stop, "стоп😀": stop, "ТОП-10": stop,
		"СТАРТ": start, "start": start, "cnfhn": start,
		"Баланс": other, "": other, "не стоп": other, "стопка": other, "стол": other,
		strings.Repeat("СТОП", 1000): other, "\u0000": other, "......": other,
	} {
		t.Run(fmt.Sprintf("%q", text), func(t *testing.T) {
			t.Parallel()
			if got := parseKeyword(text); got != want {
				t.Errorf("%q is taken for %d, want %d", text, got, want)
			}
		})
	}
}
