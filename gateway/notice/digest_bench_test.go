package notice

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access/door"
	"zvonok/ledger"
)

// BenchmarkDigests composes and queues the day's digest of a generated city:
// letters for nine in ten recipients, SMS for the rest, each with two visits, a
// meal of three dishes and two weeks of spending behind it. Meanwhile two hundred
// passes a second are told. It reports recipients a second, the pauses that leave
// room for live messages included, and how long telling twenty passes took alone
// and beside the digests. 400,000 recipients in ten minutes are 667 a second.
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
	bench.exec(`ANALYZE`)
	bench.now = evening
	live := bench.newLive()
	live.run(b.Context(), 10*time.Second)
	alone := live.took
	b.ResetTimer()
	for range b.N {
		beside, stop := context.WithCancel(b.Context())
		done := make(chan struct{})
		go func() { defer close(done); live.run(beside, time.Hour) }()
		began := time.Now()
		bench.digests()
		took := time.Since(began)
		stop()
		<-done
		b.ReportMetric(people/took.Seconds(), "recipients/s")
		report(b, alone, "alone")
		report(b, live.took, "beside")
		live.took = nil
		b.StopTimer()
		bench.exec(`DELETE FROM notice.digest; DELETE FROM notice.digest_run; DELETE FROM delivery.delivery;
			DELETE FROM delivery.letter; DELETE FROM river.river_job`)
		b.StartTimer()
	}
}

// live is what the doors of the city send while digests are made.
type live struct {
	*bench
	children []ledger.PersonID
	took     []time.Duration
}

const (
	liveBatch = 20
	livePace  = 100 * time.Millisecond
)

func (b *bench) newLive() *live {
	b.t.Helper()
	rows, err := b.pool.Query(b.t.Context(), `SELECT id FROM ledger.person WHERE code LIKE 'x%' ORDER BY random()`)
	if err != nil {
		b.t.Fatal(err)
	}
	children, err := pgx.CollectRows(rows, pgx.RowTo[ledger.PersonID])
	if err != nil {
		b.t.Fatal(err)
	}
	return &live{bench: b, children: children}
}

// run tells passes at a steady pace until it is told to stop.
func (l *live) run(ctx context.Context, limit time.Duration) {
	ticker := time.NewTicker(livePace)
	defer ticker.Stop()
	recorder := door.NewRecorder(l.jobs)
	for end := time.Now().Add(limit); time.Now().Before(end) && ctx.Err() == nil; {
		<-ticker.C
		job := door.Passed{From: l.now, To: l.now}
		err := pgx.BeginFunc(l.t.Context(), l.pool, func(tx pgx.Tx) error {
			ids, err := ledger.NextEventIDs(l.t.Context(), tx, liveBatch)
			if err != nil {
				return err
			}
			taps := make([]door.Tap, liveBatch)
			for i := range taps {
				taps[i] = door.Tap{
					Event: ids[i], Device: 1, Organisation: l.org, Building: l.places["b1"], Person: l.children[i],
					Direction: door.In, Kind: door.ByCard, At: l.now, RawAt: l.now, ReceivedAt: l.now,
				}
				job.EventIDs = append(job.EventIDs, int64(ids[i]))
			}
			l.children = append(l.children[liveBatch:], l.children[:liveBatch]...)
			_, err = recorder.Record(l.t.Context(), tx, l.now, taps)
			return err
		})
		if err != nil {
			l.t.Error(err)
			return
		}
		began := time.Now()
		if _, err := l.teller.tellPasses(l.t.Context(), []door.Passed{job}); err != nil {
			l.t.Error(err)
			return
		}
		l.took = append(l.took, time.Since(began))
	}
}

// report writes down how long telling took.
func report(b *testing.B, took []time.Duration, when string) {
	slices.Sort(took)
	if n := len(took); n > 0 {
		b.ReportMetric(float64(took[n/2].Microseconds())/1000, "ms-p50-"+when)
		b.ReportMetric(float64(took[n*99/100].Microseconds())/1000, "ms-p99-"+when)
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
