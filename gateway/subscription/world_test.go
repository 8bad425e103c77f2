package subscription

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"zvonok/access"
	"zvonok/ledger"
	"zvonok/ledger/pg/pgtest"
	"zvonok/ledger/registry"
)

var schoolday = time.Date(2026, time.November, 23, 9, 0, 0, 0, time.FixedZone("Moscow", 3*60*60))

// world is two children, their mother and grandmother, and a stranger.
type world struct {
	*testing.T
	pool                    *pgxpool.Pool
	masha, petya            ledger.PersonID
	mother, granny, unknown access.RepresentativeID
}

func newWorld(t *testing.T) *world {
	t.Helper()
	t.Parallel()
	w := &world{T: t, pool: pgtest.New(t)}
	school := one[ledger.OrganisationID](w, `
		INSERT INTO ledger.organisation (code, kind, name, short_name, time_zone)
		VALUES ('s-1', 'school', 'School', 'School', 'Europe/Moscow') RETURNING id`)
	child := func(code, family, given, account string) ledger.PersonID {
		id := one[ledger.PersonID](w, `
			INSERT INTO ledger.person (code, organisation_id, kind, family_name, given_name)
			VALUES ($1, $2, 'pupil', $3, $4) RETURNING id`, code, school, family, given)
		w.must(func(ctx context.Context, tx pgx.Tx) error {
			return ledger.OpenWallets(ctx, tx, []ledger.WalletOpening{{Person: id, Number: account}})
		})
		return id
	}
	w.masha, w.petya = child("p-1", "Петрова", "Мария", "00101519"), child("p-2", "Петров", "Пётр", "00101527")
	person := func(digits int) access.RepresentativeID {
		return one[access.RepresentativeID](w, `
			INSERT INTO access.representative (phone, family_name, given_name) VALUES ($1, 'Петрова', 'Ольга') RETURNING id`,
			fmt.Sprintf("790000000%02d", digits))
	}
	w.mother, w.granny, w.unknown = person(1), person(2), person(3)
	w.exec(`INSERT INTO access.guardian (child_id, representative_id, role, since, created_at) VALUES
		($1, $3, 'legal', '2026-09-01', '2026-09-01'), ($2, $3, 'legal', '2026-09-01', '2026-09-01'),
		($1, $4, 'trusted', '2026-09-01', '2026-09-01')`, w.masha, w.petya, w.mother, w.granny)
	return w
}

func one[T any](w *world, sql string, args ...any) T {
	w.Helper()
	var value T
	if err := w.pool.QueryRow(w.Context(), sql, args...).Scan(&value); err != nil {
		w.Fatal(err)
	}
	return value
}

func (w *world) exec(sql string, args ...any) {
	w.Helper()
	if _, err := w.pool.Exec(w.Context(), sql, args...); err != nil {
		w.Fatal(err)
	}
}

func (w *world) tx(write func(ctx context.Context, tx pgx.Tx) error) error {
	w.Helper()
	return pgx.BeginFunc(w.Context(), w.pool, func(tx pgx.Tx) error { return write(w.Context(), tx) })
}

func (w *world) must(write func(ctx context.Context, tx pgx.Tx) error) {
	w.Helper()
	if err := w.tx(write); err != nil {
		w.Fatal(err)
	}
}

func (w *world) set(who access.RepresentativeID, child ledger.PersonID, wanted ...Subscription) {
	w.Helper()
	w.must(func(ctx context.Context, tx pgx.Tx) error { return Set(ctx, tx, who, child, wanted, schoolday) })
}

func (w *world) of(who access.RepresentativeID, child ledger.PersonID) []Subscription {
	w.Helper()
	got, err := Of(w.Context(), w.pool, who, child)
	if err != nil {
		w.Fatal(err)
	}
	return got
}

func (w *world) wishes(topic Topic, mode Mode, children ...ledger.PersonID) []Wish {
	w.Helper()
	got, err := Wishes(w.Context(), w.pool, children, topic, mode)
	if err != nil {
		w.Fatal(err)
	}
	return got
}

// threshold is the lower threshold of somebody for a child, "" when there is none.
func (w *world) threshold(who access.RepresentativeID, child ledger.PersonID) string {
	w.Helper()
	thresholds, err := ledger.Thresholds(w.Context(), w.pool, []ledger.PersonID{child})
	if err != nil {
		w.Fatal(err)
	}
	for _, t := range thresholds {
		if t.Owner == int64(who) && !t.Upward {
			return t.Amount.String()
		}
	}
	return ""
}

// bring imports the files as the command does: access first, all or nothing.
func (w *world) bring(files map[string]string) registry.Report {
	w.Helper()
	dir := w.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			w.Fatal(err)
		}
	}
	folder, err := registry.Open(dir)
	if err != nil {
		w.Fatal(err)
	}
	var report registry.Report
	err = w.tx(func(ctx context.Context, tx pgx.Tx) error {
		for _, step := range []registry.Import{access.Import, Import} {
			if err := step(ctx, tx, folder, &report); err != nil {
				return err
			}
		}
		return report.Err()
	})
	if err != nil && !errors.Is(err, registry.ErrProblems) {
		w.Fatal(err)
	}
	return report
}
