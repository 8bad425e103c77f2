package notice

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access/door"
	"zvonok/ledger"
)

// BenchmarkTell tells batches of 256 passes of children with one phone each,
// from the fact to the stored message: what 2,000 taps a second cost this room.
func BenchmarkTell(b *testing.B) {
	const batch = 256
	w := setup(b)
	err := pgx.BeginFunc(b.Context(), w.pool, func(tx pgx.Tx) error {
		for _, statement := range []string{
			`INSERT INTO ledger.person (code, organisation_id, kind, family_name, given_name, patronymic, group_name)
			 SELECT 'n' || n, $1, 'pupil', 'Петров', 'Маша', '', '' FROM generate_series(1, 256) n`,
			`INSERT INTO access.representative (phone, email, family_name, given_name, patronymic, language, translit)
			 SELECT 79100000000 + n, '', 'Петров', 'Пётр', '', 'ru', false FROM generate_series(1, 256) n WHERE $1 > 0`,
			`INSERT INTO access.guardian (child_id, representative_id, role, since)
			 SELECT p.id, r.id, 'legal', '2026-01-01' FROM ledger.person p
			 JOIN access.representative r ON r.phone = (79100000000 + substr(p.code, 2)::bigint)::text WHERE p.code ~ '^n[0-9]' AND $1 > 0`,
			`INSERT INTO access.consent (child_id, representative_id, visits, meals, form, given_on, since)
			 SELECT child_id, representative_id, true, true, 'registry', '2026-01-01', '2026-01-01' FROM access.guardian g
			 JOIN ledger.person p ON p.id = g.child_id WHERE p.code ~ '^n[0-9]' AND $1 > 0`,
			`INSERT INTO subscription.subscription (child_id, topic, mode, representative_id, channel)
			 SELECT child_id, 'pass', 'now', representative_id, 'sms' FROM access.guardian g
			 JOIN ledger.person p ON p.id = g.child_id WHERE p.code ~ '^n[0-9]' AND $1 > 0`,
		} {
			if _, err := tx.Exec(b.Context(), statement, int64(w.org)); err != nil {
				return fmt.Errorf("%s: %w", statement, err)
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	rows, err := w.pool.Query(b.Context(), `SELECT id FROM ledger.person WHERE code ~ '^n[0-9]' ORDER BY id`)
	if err != nil {
		b.Fatal(err)
	}
	people, err := pgx.CollectRows(rows, pgx.RowTo[ledger.PersonID])
	if err != nil {
		b.Fatal(err)
	}
	children := make([]string, batch)
	for i, id := range people {
		children[i] = fmt.Sprintf("n%d", id)
		w.people[children[i]] = id
	}
	w.teller.desk.SMSPerDay = 1 << 30
	at := morning
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		at = at.Add(2 * time.Minute)
		job := w.pass("b1", at, children...)
		w.now = at.Add(time.Second)
		b.StartTimer()
		if _, err := w.teller.tellPasses(b.Context(), []door.Passed{job}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*batch)/b.Elapsed().Seconds(), "passes/s")
}
