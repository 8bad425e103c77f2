package notice

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger"
)

// BenchmarkDigests composes and queues the day's digest of a generated city:
// letters for nine in ten recipients, SMS for the rest, each with two visits, a
// meal of three dishes and two weeks of spending behind it. It reports
// recipients a second without the pauses that leave room for live messages.
func BenchmarkDigests(b *testing.B) {
	const people = 20_000
	bench := setup(b)
	for _, query := range []string{
		`INSERT INTO ledger.person (code, organisation_id, kind, family_name, given_name)
			SELECT 'x' || n, o.id, 'pupil', 'Петров', 'Маша' FROM ledger.organisation o, generate_series(1, $1) n`,
		`INSERT INTO access.representative (phone, email, family_name, given_name)
			SELECT '79010' || lpad(n::text, 6, '0'), 'r' || n || '@example.org', 'Петрова', 'Ольга' FROM generate_series(1, $1) n`,
		`INSERT INTO access.guardian (child_id, representative_id, role, since)
			SELECT p.id, r.id, 'legal', '2026-09-01' FROM ledger.person p
			JOIN access.representative r ON r.phone = '79010' || lpad(substr(p.code, 2), 6, '0')
			WHERE p.code LIKE 'x%' AND $1 > 0`,
		`INSERT INTO access.consent (child_id, representative_id, visits, meals, form, given_on, since)
			SELECT g.child_id, g.representative_id, true, true, 'registry', '2026-09-01', '2026-09-01'
			FROM access.guardian g JOIN ledger.person p ON p.id = g.child_id WHERE p.code LIKE 'x%' AND $1 > 0`,
		`INSERT INTO subscription.subscription (child_id, topic, mode, representative_id, channel)
			SELECT g.child_id, t, m, g.representative_id, CASE WHEN g.child_id % 10 = 0 THEN 'sms' ELSE 'email' END
			FROM access.guardian g JOIN ledger.person p ON p.id = g.child_id,
				unnest(ARRAY['pass', 'topup', 'threshold']) t, unnest(ARRAY['now', 'day']) m
			WHERE p.code LIKE 'x%' AND $1 > 0`,
		`INSERT INTO door.pass (event_id, at, received_at, person_id, organisation_id, building_id, device_id, direction,
				kind, merged, suspected, inferred, silent)
			SELECT nextval('ledger.event_id'), d + h * interval '1 hour', d + h * interval '1 hour', p.id, p.organisation_id, 1, 1,
				CASE h WHEN 5 THEN 1 ELSE 2 END, 1, false, false, false, false
			FROM generate_series('2026-11-10'::timestamptz, '2026-11-23', '1 day') d, unnest(ARRAY[5, 11]) h, ledger.person p
			WHERE p.code LIKE 'x%' AND extract(isodow FROM d) < 6 AND $1 > 0`,
		`INSERT INTO meal.sale (event_id, posting_id, person_id, organisation_id, device_id, seq, total, balance, at, day,
				booked_on, offline, kind, meal, booked, payee_code, items)
			SELECT nextval('ledger.event_id'), 0, p.id, p.organisation_id, 1, 0, 8000, 50000, d + interval '9 hours', d::date,
				d::date, false, 'hot', 'lunch', 'wallet', 'kp', '[{"name":"Борщ","quantity":1,"price":"40.00"},
				{"name":"Котлета","quantity":1,"price":"30.00"},{"name":"Компот","quantity":1,"price":"10.00"}]'
			FROM generate_series('2026-11-10'::timestamptz, '2026-11-23', '1 day') d, ledger.person p
			WHERE p.code LIKE 'x%' AND extract(isodow FROM d) < 6 AND $1 > 0`,
	} {
		bench.exec(query, people)
	}
	bench.openWallets()
	bench.now = evening
	b.ResetTimer()
	for range b.N {
		began := time.Now()
		bench.digests()
		b.ReportMetric(people/time.Since(began).Seconds(), "recipients/s")
		b.StopTimer()
		bench.exec(`DELETE FROM notice.digest; DELETE FROM notice.digest_run; DELETE FROM delivery.delivery;
			DELETE FROM delivery.letter; DELETE FROM river.river_job`)
		b.StartTimer()
	}
}

// openWallets gives everybody without one a wallet.
func (b *bench) openWallets() {
	b.t.Helper()
	err := pgx.BeginFunc(b.t.Context(), b.pool, func(tx pgx.Tx) error {
		rows, err := tx.Query(b.t.Context(), `
			SELECT p.id FROM ledger.person AS p WHERE NOT EXISTS (SELECT FROM ledger.account AS a WHERE a.person_id = p.id)`)
		if err != nil {
			return err
		}
		people, err := pgx.CollectRows(rows, pgx.RowTo[ledger.PersonID])
		if err != nil {
			return err
		}
		openings := make([]ledger.WalletOpening, len(people))
		for i, person := range people {
			number, err := ledger.NewAccountNumber("55", int64(i+1))
			if err != nil {
				return err
			}
			openings[i] = ledger.WalletOpening{Person: person, Number: number}
		}
		return ledger.OpenWallets(b.t.Context(), tx, openings)
	})
	if err != nil {
		b.t.Fatal(err)
	}
}
