package delivery_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"zvonok/access/phone"
	"zvonok/gateway/delivery"
	"zvonok/gateway/email"
	"zvonok/gateway/subscription"
	"zvonok/ledger"
	"zvonok/ledger/pg"
	"zvonok/ledger/pg/pgtest"
)

const capPhone = "79000000001"

func places(t *testing.T, pool *pgxpool.Pool, perDay int, uses ...delivery.Use) (list []delivery.Place) {
	t.Helper()
	err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) (err error) {
		list, err = delivery.Places(t.Context(), tx, subscription.SMS, perDay, uses)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// notices.md, caps: however many processes and batches ask at once, as many get a
// place as there are, and one of the others is the first that got none.
func TestNoRaceOfBatchesPassesTheCap(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	noon := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	var (
		racing sync.WaitGroup
		mu     sync.Mutex
		all    []delivery.Place
	)
	for batch := range 8 {
		racing.Go(func() {
			var uses []delivery.Use
			for i := range 10 {
				// In another order in every batch, to meet each other's rows.
				uses = append(uses, delivery.Use{Address: fmt.Sprintf("7900000000%d", (i+batch)%2), Topic: "pass", Leaves: noon})
			}
			list := places(t, pool, 30, uses...)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, list...)
		})
	}
	racing.Wait()
	kept, first := 0, 0
	for _, p := range all {
		if !p.Held {
			kept++
		}
		if p.First {
			first++
		}
		if p.Held != (p.Number > 30) || p.First != (p.Number == 31) {
			t.Errorf("%+v", p)
		}
	}
	if kept != 60 || first != 2 {
		t.Errorf("two phones got %d places of 30 each, %d were told so", kept, first)
	}
}

// The statement of a batch is planned once, by index alone. What it does must grow with the batch and not with its
// square: it joins nothing by comparing each with each.
func TestPlacesOfABatchAreFoundWithoutComparingEachWithEach(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	const n = 400
	var (
		addresses     [n]string
		organisations [n]int64
		leaves        [n]time.Time
		forced        [n]bool
	)
	for i := range n {
		addresses[i], organisations[i], leaves[i] = fmt.Sprintf("7900000%04d", i), int64(1+i), time.Now()
	}
	if _, err := pool.Exec(t.Context(), `
		INSERT INTO ledger.organisation (id, code, kind, name, short_name, time_zone)
		SELECT n, 's' || n, 'school', 'S', 'S', 'Europe/Moscow' FROM generate_series(1, $1::int) AS n`, n); err != nil {
		t.Fatal(err)
	}
	tx, err := pool.BeginTx(t.Context(), pg.PlannedOnce)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	rows, err := tx.Query(t.Context(), "EXPLAIN (ANALYZE, TIMING OFF) "+delivery.TakePlaces,
		"sms", addresses[:], organisations[:], leaves[:], forced[:], 30)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	if text := strings.Join(plan, "\n"); strings.Contains(text, "Removed by Join Filter") {
		t.Errorf("rows are compared each with each:\n%s", text)
	}
}

func TestAnAlarmTakesAPlaceAndIsNeverHeld(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	noon := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	use := func(topic string) delivery.Use { return delivery.Use{Address: capPhone, Topic: topic, Leaves: noon} }
	got := fmt.Sprint(places(t, pool, 3, use("pass"), use("alarm"), use("pass"), use("pass"), use("digest"), use("pass")),
		places(t, pool, 3, use("alarm"), use("pass")), places(t, pool, 3, use("alarm")),
		// The setting was raised in the middle of the day.
		places(t, pool, 7, use("pass"), use("pass"), use("pass")))
	want := "[{1 false false} {2 false false} {4 true true} {5 true false} {3 false false} {6 true false}] " +
		"[{4 false false} {8 true false}] [{5 false false}] [{6 false false} {7 false false} {8 true true}]"
	if got != want {
		t.Errorf("places %s\nwant   %s", got, want)
	}
}

// The day is the phone's: of the organisation whose news it is, of the phone's
// children where it is nobody's news, else of the first organisation.
func TestTheDayOfAPhoneIsThatOfItsZone(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	ctx := t.Context()
	var far int64
	for _, step := range []string{
		`INSERT INTO ledger.organisation (code, kind, name, short_name, time_zone) VALUES ('m', 'school', 'M', 'M', 'Europe/Moscow')`,
		`INSERT INTO ledger.organisation (code, kind, name, short_name, time_zone) VALUES ('k', 'school', 'K', 'K', 'Asia/Kamchatka')`,
		`INSERT INTO ledger.person (code, organisation_id, kind, family_name, given_name)
			SELECT 'p', id, 'pupil', 'П', 'П' FROM ledger.organisation WHERE code = 'k'`,
		`INSERT INTO access.representative (phone, family_name, given_name) VALUES ('79000000002', 'П', 'О')`,
		`INSERT INTO access.guardian (child_id, representative_id, role, since)
			SELECT p.id, r.id, 'legal', '2026-09-01' FROM ledger.person AS p, access.representative AS r`,
	} {
		if _, err := pool.Exec(ctx, step); err != nil {
			t.Fatal(err)
		}
	}
	if err := pool.QueryRow(ctx, `SELECT id FROM ledger.organisation WHERE code = 'k'`).Scan(&far); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		address string
		org     ledger.OrganisationID
		hour    int // in UTC, when the next day has just begun there
	}{
		"news of an organisation": {"79000000001", ledger.OrganisationID(far), 12},
		"the children's":          {"79000000002", 0, 12},
		"a stranger's":            {"79000000003", 0, 21},
	} {
		next := time.Date(2026, 11, 23, test.hour, 0, 0, 0, time.UTC)
		use := func(at time.Time) delivery.Use {
			return delivery.Use{Address: test.address, Organisation: test.org, Topic: "pass", Leaves: at}
		}
		got := fmt.Sprint(places(t, pool, 1, use(next.Add(-time.Second))), places(t, pool, 1, use(next.Add(-time.Second)), use(next)))
		if want := "[{1 false false}] [{2 true true} {1 false false}]"; got != want {
			t.Errorf("%s: places %s, want %s", name, got, want)
		}
	}
}

// D7: what waits for the end of the quiet hours is one of the day that they end on.
func TestWhatWaitsForTheMorningTakesItsPlaceThere(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Schema: pg.RiverSchema})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, pool: pool, desk: delivery.NewDesk(client, func(phone.Number) []string { return []string{"box"} })}
	if _, err := pool.Exec(t.Context(), `INSERT INTO ledger.organisation (code, kind, name, short_name, time_zone)
		VALUES ('u', 'school', 'U', 'U', 'UTC')`); err != nil {
		t.Fatal(err)
	}
	tomorrow := time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, 1).Add(8 * time.Hour)
	code, digest := draft(1), draft(2)
	code.Topic, digest.Topic = "code", "digest"
	digest.NotBefore, digest.Expires = tomorrow, tomorrow.Add(time.Hour)
	b.enqueue(code, digest) // whoever asks for a code uses up no news
	var got string
	if err := pool.QueryRow(t.Context(), `SELECT string_agg(day::text || ' ' || sent, ', ') FROM delivery.quota`).Scan(&got); err != nil {
		t.Fatal(err)
	}
	if want := tomorrow.Format(time.DateOnly) + " 1"; got != want {
		t.Errorf("the phone's days are %s, want %s", got, want)
	}
}

// notices.md, Fall-back and caps: what comes to be an SMS because another channel
// has failed takes a place like any other, or stays away.
func TestTheNextChannelTakesAPlaceOfThePhonesDay(t *testing.T) {
	p := setupPost(t)
	p.desk.SMSPerDay = 2
	// The organisation's day is at its noon, whatever the hour.
	zone := fmt.Sprintf("Etc/GMT%+d", time.Now().UTC().Hour()-12)
	var org ledger.OrganisationID
	if err := p.pool.QueryRow(t.Context(), `INSERT INTO ledger.organisation (code, kind, name, short_name, time_zone)
		VALUES ('s', 'school', 'S', 'S', $1) RETURNING id`, zone).Scan(&org); err != nil {
		t.Fatal(err)
	}
	var stored []delivery.Stored
	for i := range 4 {
		d := draft(i + 1)
		d.Channel, d.Address, d.Body, d.Representative = subscription.Email, "mother@example.org", "", 5
		d.Organisation = org
		d.Letter = &delivery.Letter{Subject: "s", Text: "t", HTML: "h"}
		d.Spare = &delivery.Spare{Channel: subscription.SMS, Address: capPhone, Patience: time.Hour, Body: "Вход 08:15 Маша П."}
		stored = append(stored, p.enqueue(d)...)
	}
	for _, s := range stored {
		p.awaitState(s, delivery.Sent)
	}
	var racing sync.WaitGroup
	for _, s := range stored {
		racing.Go(func() {
			if err := p.mailer.Bounced(context.Background(), email.Bounce{ID: int64(s.ID), Class: email.Address}); err != nil {
				t.Error(err)
			}
		})
	}
	racing.Wait()
	var sms, held, first int
	if err := p.pool.QueryRow(t.Context(), `
		SELECT (SELECT count(*) FROM delivery.delivery WHERE channel = 'sms'), count(*), count(*) FILTER (WHERE (m->>'first')::boolean)
		FROM river.river_job AS j, jsonb_array_elements(j.args->'messages') AS m WHERE j.kind = 'capped'`).Scan(&sms, &held, &first); err != nil {
		t.Fatal(err)
	}
	if sms != 2 || held != 2 || first != 1 {
		t.Errorf("%d SMS, %d held, %d the first; want 2, 2, 1", sms, held, first)
	}
}
