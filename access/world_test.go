package access

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"zvonok/access/phone"
	"zvonok/ledger"
	"zvonok/ledger/pg/pgtest"
)

// moscow is the zone of the schools of the world; the kindergarten is two hours east of it.
var (
	moscow       = time.FixedZone("Moscow", 3*60*60)
	yekaterinbrg = time.FixedZone("Yekaterinburg", 5*60*60)
	// schoolday is a Monday morning.
	schoolday = time.Date(2026, time.November, 23, 9, 0, 0, 0, moscow)
)

// world is a small register in a database of its own.
type world struct {
	*testing.T
	pool          *pgxpool.Pool
	school, other ledger.OrganisationID
	kindergarten  ledger.OrganisationID
	// The Petrovs: masha and petya at school, vanya in the kindergarten; kolya is
	// another family's child in the other school.
	masha, petya, vanya, kolya ledger.PersonID
}

func newWorld(t *testing.T) *world {
	t.Helper()
	t.Parallel()
	w := &world{T: t, pool: pgtest.New(t)}
	w.school = w.organisation("s-1", "school", "Europe/Moscow")
	w.other = w.organisation("s-2", "school", "Europe/Moscow")
	w.kindergarten = w.organisation("k-1", "kindergarten", "Asia/Yekaterinburg")
	w.masha = w.pupil("p-1", w.school, "Петрова", "Мария")
	w.petya = w.pupil("p-2", w.school, "Петров", "Пётр")
	w.vanya = w.pupil("p-3", w.kindergarten, "Петров", "Иван")
	w.kolya = w.pupil("p-4", w.other, "Орлов", "Николай")
	return w
}

func (w *world) organisation(code, kind, zone string) ledger.OrganisationID {
	w.Helper()
	return one[ledger.OrganisationID](w, `
		INSERT INTO ledger.organisation (code, kind, name, short_name, time_zone)
		VALUES ($1, $2, $1, $1, $3) RETURNING id`, code, kind, zone)
}

func (w *world) pupil(code string, organisation ledger.OrganisationID, family, given string) ledger.PersonID {
	w.Helper()
	return one[ledger.PersonID](w, `
		INSERT INTO ledger.person (code, organisation_id, kind, family_name, given_name)
		VALUES ($1, $2, 'pupil', $3, $4) RETURNING id`, code, organisation, family, given)
}

// representative adds somebody whose phone ends with these two digits.
func (w *world) representative(digits int, family, given string) RepresentativeID {
	w.Helper()
	return one[RepresentativeID](w, `
		INSERT INTO access.representative (phone, family_name, given_name) VALUES ($1, $2, $3) RETURNING id`,
		number(digits), family, given)
}

// parent adds a legal representative who consented long ago, for ever.
func (w *world) parent(digits int, family, given string, children ...ledger.PersonID) RepresentativeID {
	w.Helper()
	id := w.representative(digits, family, given)
	w.exec(`INSERT INTO access.guardian (child_id, representative_id, role, since)
		SELECT unnest($1::bigint[]), $2, 'legal', $3`, children, id, schoolday.AddDate(-1, 0, 0))
	w.exec(`INSERT INTO access.consent (child_id, representative_id, visits, meals, form, given_on, since)
		SELECT unnest($1::bigint[]), $2, true, true, 'registry', '2025-11-23', $3`, children, id, schoolday.AddDate(-1, 0, 0))
	return id
}

// trusted adds a trusted person of the children.
func (w *world) trusted(digits int, family, given string, children ...ledger.PersonID) RepresentativeID {
	w.Helper()
	id := w.representative(digits, family, given)
	w.exec(`INSERT INTO access.guardian (child_id, representative_id, role, since)
		SELECT unnest($1::bigint[]), $2, 'trusted', $3`, children, id, schoolday.AddDate(0, -1, 0))
	return id
}

func number(digits int) phone.Number { return phone.Number(fmt.Sprintf("790000000%02d", digits)) }

func (w *world) exec(sql string, args ...any) {
	w.Helper()
	if _, err := w.pool.Exec(w.Context(), sql, args...); err != nil {
		w.Fatal(err)
	}
}

// tx runs a write in a transaction that is committed.
func (w *world) tx(write func(ctx context.Context, tx pgx.Tx) error) error {
	w.Helper()
	return pgx.BeginFunc(w.Context(), w.pool, func(tx pgx.Tx) error { return write(w.Context(), tx) })
}

// must is tx for writes that cannot fail.
func (w *world) must(write func(ctx context.Context, tx pgx.Tx) error) {
	w.Helper()
	if err := w.tx(write); err != nil {
		w.Fatal(err)
	}
}

// may asks about one representative and one child.
func (w *world) may(who RepresentativeID, child ledger.PersonID, at time.Time) Verdict {
	w.Helper()
	verdict, err := May(w.Context(), w.pool, who, child, at)
	if err != nil {
		w.Fatal(err)
	}
	return verdict
}

// one reads a single value.
func one[T any](w *world, sql string, args ...any) T {
	w.Helper()
	var value T
	if err := w.pool.QueryRow(w.Context(), sql, args...).Scan(&value); err != nil {
		w.Fatal(err)
	}
	return value
}
