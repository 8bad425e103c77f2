package pg_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"zvonok/ledger/pg"
	"zvonok/ledger/pg/pgtest"
)

func exec(t *testing.T, address, sql string) error {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), sql)
	return err
}

func TestManyProcessesMigrateOneDatabaseOnce(t *testing.T) {
	t.Parallel()
	address := pgtest.NewEmptyURL(t)
	before, err := pg.Status(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	if before.Pending() != len(before.Migrations) || before.Pending() == 0 {
		t.Fatalf("an empty database lacks %d of %d migrations", before.Pending(), len(before.Migrations))
	}
	var group sync.WaitGroup
	var mu sync.Mutex
	ran := 0
	for range 4 {
		group.Go(func() {
			report, err := pg.Migrate(t.Context(), address)
			if err != nil {
				t.Error(err)
				return
			}
			if report.Pending() != 0 {
				t.Errorf("%d migrations are pending after Migrate", report.Pending())
			}
			mu.Lock()
			ran += report.Ran
			mu.Unlock()
		})
	}
	group.Wait()
	if ran != before.Pending() {
		t.Errorf("four processes ran %d migrations together; want each of the %d once", ran, before.Pending())
	}
	after, err := pg.Status(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range after.Migrations {
		if !m.Applied || time.Since(m.AppliedAt).Abs() > time.Hour {
			t.Errorf("%s %d %s: applied is %v, at %s", m.Line, m.Version, m.Name, m.Applied, m.AppliedAt)
		}
	}
}

func TestAnOwnerWhoIsNoSuperuserMayMigrate(t *testing.T) {
	t.Parallel()
	address := pgtest.NewEmptyURL(t)
	if err := exec(t, address, `
		CREATE ROLE zvonok_plain CREATEROLE;
		DO $$ BEGIN EXECUTE format('ALTER DATABASE %I OWNER TO zvonok_plain', current_database()); END $$`); err != nil {
		t.Fatal(err)
	}
	report, err := pg.Migrate(t.Context(), address+"&role=zvonok_plain")
	if err != nil || report.Pending() != 0 {
		t.Fatalf("%d migrations are pending, %v", report.Pending(), err)
	}
	if err := exec(t, address, `
		DO $$ BEGIN ASSERT (SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'ledger') = 'zvonok_plain'; END $$
	`); err != nil {
		t.Errorf("somebody else migrated: %v", err)
	}
}

// Who may not migrate is told what to ask the administrator for.
func TestAnOwnerWhoMayNotTakeTheApplicationsRoleIsToldWhatToAskFor(t *testing.T) {
	t.Parallel()
	address := pgtest.NewEmptyURL(t)
	if err := exec(t, address, `
		CREATE ROLE zvonok_poor;
		DO $$ BEGIN EXECUTE format('ALTER DATABASE %I OWNER TO zvonok_poor', current_database()); END $$`); err != nil {
		t.Fatal(err)
	}
	_, err := pg.Migrate(t.Context(), address+"&role=zvonok_poor")
	if err == nil || !strings.Contains(err.Error(), "GRANT zvonok_app TO zvonok_poor") {
		t.Errorf("the error is %v", err)
	}
}

func TestStatusChangesNothing(t *testing.T) {
	t.Parallel()
	address := pgtest.NewEmptyURL(t)
	if _, err := pg.Status(t.Context(), address); err != nil {
		t.Fatal(err)
	}
	if err := exec(t, address, "CREATE TABLE public.zvonok_migration ()"); err != nil {
		t.Fatalf("Status made its table: %v", err)
	}
}

func TestADatabaseOfANewerProgramIsRefused(t *testing.T) {
	t.Parallel()
	for line, sql := range map[string]string{
		"zvonok": "INSERT INTO public.zvonok_migration (version_id, is_applied) VALUES (90000, true)",
		"river":  "INSERT INTO river.river_migration (line, version) VALUES ('main', 90000)",
	} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			address := pgtest.NewURL(t)
			if err := exec(t, address, sql); err != nil {
				t.Fatal(err)
			}
			_, migrateErr := pg.Migrate(t.Context(), address)
			_, statusErr := pg.Status(t.Context(), address)
			for _, err := range []error{migrateErr, statusErr} {
				if !errors.Is(err, pg.ErrNewerSchema) || !strings.Contains(err.Error(), line+" migration 90000") {
					t.Errorf("the error is %v; want ErrNewerSchema that names the migration", err)
				}
			}
		})
	}
}

func TestAMigrationWaitsForTheOneThatRuns(t *testing.T) {
	t.Parallel()
	address := pgtest.NewEmptyURL(t)
	holder, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := holder.Exec(t.Context(), "SELECT pg_advisory_lock(x'7a766f6e6f6b'::bigint)"); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := pg.Migrate(t.Context(), address)
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(500 * time.Millisecond):
	}
	if err := holder.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestTheFingerprintIsThatOfTheMigrations(t *testing.T) {
	t.Parallel()
	first, err := pg.Fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	second, err := pg.Fingerprint()
	if err != nil || first != second || !regexp.MustCompile(`^[0-9a-f]{24}$`).MatchString(first) {
		t.Fatalf("the fingerprints are %q and %q, %v", first, second, err)
	}
}

func TestEveryMigrationNamesItsOwner(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("migrations/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no migrations: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(string(text), "\n")
		if !regexp.MustCompile(`^-- Owner: [a-z/]+\b`).MatchString(first) {
			t.Errorf("%s begins %q; want its owner", file, first)
		}
	}
}

// I16, for all tables at once: what the application may not change is not its own.
func TestTheApplicationOwnsNothingButTheQueue(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	rows, err := pool.Query(t.Context(), `
		SELECT c.oid::regclass::text
		  FROM pg_class c
		  JOIN pg_namespace n ON n.oid = c.relnamespace
		 WHERE pg_get_userbyid(c.relowner) = 'zvonok_app'
		   AND n.nspname <> 'river' AND n.nspname NOT LIKE 'pg\_%'`)
	if err != nil {
		t.Fatal(err)
	}
	owned, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(owned) > 0 {
		t.Fatalf("the application owns %v, %v", owned, err)
	}
	for _, sql := range []string{
		"DELETE FROM public.zvonok_migration", "DELETE FROM ledger.person", "TRUNCATE ledger.person",
		"ALTER TABLE ledger.person ADD COLUMN x int", "CREATE TABLE ledger.mine ()",
	} {
		if _, err := pool.Exec(t.Context(), sql); err == nil {
			t.Errorf("the application may %s", sql)
		}
	}
}

type chime struct {
	Times int `json:"times"`
}

func (chime) Kind() string { return "chime" }

func TestTheQueueWorksUnderTheApplicationsRole(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Schema: pg.RiverSchema})
	if err != nil {
		t.Fatal(err)
	}
	err = pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		_, err := client.InsertTx(t.Context(), tx, chime{Times: 2}, nil)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	jobs, err := client.JobList(t.Context(), river.NewJobListParams().Kinds("chime"))
	if err != nil || len(jobs.Jobs) != 1 {
		t.Fatalf("the queue holds %v, %v; want one job", jobs, err)
	}
	// What River's own maintenance does.
	if _, err := pool.Exec(t.Context(), "REINDEX INDEX CONCURRENTLY river.river_job_args_index"); err != nil {
		t.Fatal(err)
	}
}

func TestAMonthsPartitionIsMadeOnceAndTakesItsRows(t *testing.T) {
	t.Parallel()
	address := pgtest.NewURL(t)
	// A table with all that a real one may have: a guard against deletion, a
	// generated column, a check, an index.
	if err := exec(t, address, `
		CREATE SCHEMA log;
		CREATE TABLE log.tap (
			at timestamptz NOT NULL,
			n integer NOT NULL CHECK (n > 0),
			twice integer GENERATED ALWAYS AS (n * 2) STORED,
			PRIMARY KEY (n, at)
		) PARTITION BY RANGE (at);
		CREATE INDEX tap_at ON log.tap (at);
		CREATE TABLE log.tap_default PARTITION OF log.tap DEFAULT;
		CREATE FUNCTION log.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused'; END $$;
		CREATE TRIGGER guard BEFORE DELETE ON log.tap FOR EACH ROW EXECUTE FUNCTION log.refuse();
		INSERT INTO log.tap VALUES
			('2026-10-31 23:59:59.9Z', 1), ('2026-11-01 00:00:00Z', 2),
			('2026-11-30 23:59:59.9Z', 3), ('2026-12-01 00:00:00Z', 4);
		GRANT USAGE ON SCHEMA log TO zvonok_app;
		GRANT SELECT, INSERT ON log.tap TO zvonok_app`); err != nil {
		t.Fatal(err)
	}
	pool, err := pg.Open(t.Context(), pg.Config{URL: address, Role: pg.AppRole, MaxConns: 8})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	var group sync.WaitGroup
	var mu sync.Mutex
	made := 0
	for i := range 8 {
		group.Go(func() {
			// The months are those of UTC whatever the session's zone is.
			var new bool
			err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
				zone := []string{"Asia/Kamchatka", "America/Anchorage"}[i%2]
				if _, err := tx.Exec(t.Context(), fmt.Sprintf("SET LOCAL timezone = '%s'", zone)); err != nil {
					return err
				}
				return tx.QueryRow(t.Context(), "SELECT ledger.ensure_month('log.tap', '2026-11-17')").Scan(&new)
			})
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if new {
				made++
			}
		})
	}
	group.Wait()
	if made != 1 {
		t.Errorf("eight callers at once made the partition %d times", made)
	}
	if _, err := pool.Exec(t.Context(), "INSERT INTO log.tap VALUES ('2026-11-15', 5)"); err != nil {
		t.Fatal(err)
	}
	rows, err := pool.Query(t.Context(),
		"SELECT format('%s %s %s', tableoid::regclass, n, twice) FROM log.tap ORDER BY n")
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	want := "[log.tap_default 1 2 log.tap_2026_11 2 4 log.tap_2026_11 3 6 log.tap_default 4 8 log.tap_2026_11 5 10]"
	if fmt.Sprint(got) != want || err != nil {
		t.Errorf("the rows are %v, %v; want %s", got, err, want)
	}
	// The guard holds again, in the old partition and in the new one.
	for _, n := range []int{1, 2} {
		if err := exec(t, address, fmt.Sprintf("DELETE FROM log.tap WHERE n = %d", n)); err == nil ||
			!strings.Contains(err.Error(), "refused") {
			t.Errorf("row %d was deleted: %v", n, err)
		}
	}
	if _, err := pool.Exec(t.Context(), "SELECT ledger.ensure_month('ledger.person', '2026-11-17')"); err == nil {
		t.Error("a table without partitions got one")
	}
}

func TestEveryTableHasThePartitionsOfTheComingMonths(t *testing.T) {
	t.Parallel()
	address := pgtest.NewURL(t)
	if err := exec(t, address, `
		CREATE TABLE ledger.tap (at timestamptz NOT NULL) PARTITION BY RANGE (at);
		CREATE TABLE ledger.tap_default PARTITION OF ledger.tap DEFAULT`); err != nil {
		t.Fatal(err)
	}
	pool, err := pg.Open(t.Context(), pg.Config{URL: address, Role: pg.AppRole})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	// The last hour of a year in UTC, already the next year in Moscow.
	now := time.Date(2031, 12, 31, 23, 0, 0, 0, time.UTC).In(time.FixedZone("Moscow", 3*3600))
	if made, err := pg.EnsureMonths(t.Context(), pool, now); err != nil || made < 5 {
		t.Fatalf("%d partitions were made, %v; want five of each table", made, err)
	}
	if made, err := pg.EnsureMonths(t.Context(), pool, now); err != nil || made != 0 {
		t.Fatalf("%d partitions were made again, %v", made, err)
	}
	rows, err := pool.Query(t.Context(), `
		SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'ledger.tap'::regclass ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	want := "[ledger.tap_2031_11 ledger.tap_2031_12 ledger.tap_2032_01 ledger.tap_2032_02 " +
		"ledger.tap_2032_03 ledger.tap_default]"
	if err != nil || fmt.Sprint(got) != want {
		t.Fatalf("the partitions are %v, %v; want %s", got, err, want)
	}
}
