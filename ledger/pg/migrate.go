package pg

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"zvonok/ledger/pg/internal/postmaster"
)

// RiverSchema is the schema of River's tables.
const RiverSchema = "river"

const (
	// migrationTable records which of our migrations have run.
	migrationTable = "public.zvonok_migration"
	// migrationLock is the advisory lock under which migrations run; the
	// number only has to be ours ("zvonok" in ASCII).
	migrationLock int64 = 0x7a766f6e6f6b
	// migrationLockPoll is how often a process asks again for the lock another one holds.
	migrationLockPoll = 200 * time.Millisecond
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// ErrNewerSchema says that the database has been migrated by a newer program.
var ErrNewerSchema = errors.New("the database is newer than this program")

// Migration is one step of the schema.
type Migration struct {
	// Line tells whose numbering it is: "zvonok" or "river".
	Line string `json:"line"`
	// Version is the number within its line.
	Version int64 `json:"version"`
	// Name is the file's name without number and ending.
	Name string `json:"name"`
	// Applied tells whether the database has it.
	Applied bool `json:"applied"`
	// AppliedAt is when the database got it; zero when it has not.
	AppliedAt time.Time `json:"applied_at,omitzero"`
}

// MigrationReport is the state of a database's schema.
type MigrationReport struct {
	// Migrations are all steps this program knows, in order, ours first.
	Migrations []Migration `json:"migrations"`
	// Ran counts the steps that this call ran.
	Ran int `json:"ran"`
}

// Pending returns how many steps the database lacks.
func (r MigrationReport) Pending() int {
	n := 0
	for _, m := range r.Migrations {
		if !m.Applied {
			n++
		}
	}
	return n
}

// Migrate brings the database to this program's version: our own migrations,
// then River's. It takes one advisory lock for all of it, so any number of
// processes may start at once; the others wait until ctx ends. A database newer
// than the program is left alone and gives ErrNewerSchema. Each of our
// migrations is one transaction, so a failed one leaves nothing behind and can
// be repeated.
//
// The URL must log in as the owner of the database, or as a role that may
// create schemas in it and is a member of AppRole.
func Migrate(ctx context.Context, url string) (MigrationReport, error) {
	conn, err := connect(ctx, url)
	if err != nil {
		return MigrationReport{}, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := checkServer(conn.PgConn().ParameterStatus("server_version")); err != nil {
		return MigrationReport{}, err
	}
	if err := lockMigrations(ctx, conn); err != nil {
		return MigrationReport{}, err
	}
	before, err := readStatus(ctx, conn)
	if err != nil {
		return MigrationReport{}, err
	}
	if before.Pending() == 0 {
		return before, nil
	}
	if err := migrateOwn(ctx, conn.Config()); err != nil {
		return MigrationReport{}, err
	}
	if err := migrateRiver(ctx, conn); err != nil {
		return MigrationReport{}, err
	}
	after, err := readStatus(ctx, conn)
	if err != nil {
		return MigrationReport{}, err
	}
	after.Ran = before.Pending() - after.Pending()
	return after, nil
}

// Status reads the state of the schema and changes nothing. A database newer
// than the program gives ErrNewerSchema.
func Status(ctx context.Context, url string) (MigrationReport, error) {
	conn, err := connect(ctx, url)
	if err != nil {
		return MigrationReport{}, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return readStatus(ctx, conn)
}

func connect(ctx context.Context, url string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("read the database URL: %w", err)
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTimeout
	}
	setDefault(config, "application_name", "zvonok migrate")
	// A migration over a large table may take as long as it needs.
	config.RuntimeParams["statement_timeout"] = "0"
	// The record of migrations has a timestamp without zone.
	config.RuntimeParams["timezone"] = "UTC"
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect to the database: %w", err)
	}
	return conn, nil
}

// checkServer refuses a server that is too old, by the version it gives itself.
func checkServer(version string) error {
	digits := strings.IndexFunc(version+".", func(r rune) bool { return r < '0' || r > '9' })
	major, err := strconv.Atoi(version[:digits])
	if err != nil {
		return fmt.Errorf("the server calls its version %q, which is none of PostgreSQL", version)
	}
	if major < postmaster.OldestMajor {
		return fmt.Errorf("PostgreSQL %d or later is needed, this one is %s", postmaster.OldestMajor, version)
	}
	return nil
}

// lockMigrations takes the lock for the life of the connection. It asks again
// and again instead of waiting inside the server: a waiting statement holds a
// snapshot, and CREATE INDEX CONCURRENTLY of the process that has the lock
// would wait for that snapshot in turn.
func lockMigrations(ctx context.Context, conn *pgx.Conn) error {
	tick := time.NewTicker(migrationLockPoll)
	defer tick.Stop()
	for {
		var locked bool
		if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", migrationLock).Scan(&locked); err != nil {
			return fmt.Errorf("lock the migrations: %w", err)
		}
		if locked {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for another process to finish its migrations: %w", context.Cause(ctx))
		}
	}
}

// migrateOwn runs our migrations.
func migrateOwn(ctx context.Context, config *pgx.ConnConfig) error {
	files, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return fmt.Errorf("open the embedded migrations: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, stdlib.OpenDB(*config), files,
		goose.WithTableName(migrationTable), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("read the embedded migrations: %w", err)
	}
	defer provider.Close()
	if _, err := provider.Up(ctx); err != nil {
		// What PostgreSQL would advise stands beside its message, not in it.
		var refusal *pgconn.PgError
		if errors.As(err, &refusal) && refusal.Hint != "" {
			return fmt.Errorf("migrate the database: %w. %s", err, refusal.Hint)
		}
		return fmt.Errorf("migrate the database: %w", err)
	}
	return nil
}

// migrateRiver runs River's migrations as AppRole, so that River's tables
// belong to the role its client runs under: it rebuilds its own indexes, which
// only an owner may.
func migrateRiver(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.Exec(ctx,
		"CREATE SCHEMA IF NOT EXISTS "+RiverSchema+" AUTHORIZATION "+AppRole); err != nil {
		return fmt.Errorf("create the schema of the job queue: %w", err)
	}
	config, err := pgxpool.ParseConfig(conn.Config().ConnString())
	if err != nil {
		return fmt.Errorf("read the database URL: %w", err)
	}
	config.ConnConfig = conn.Config()
	config.MaxConns = 2
	config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error { return becomeRole(ctx, conn, AppRole) }
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("open the pool of database connections: %w", err)
	}
	defer pool.Close()
	migrator, err := newRiverMigrator(pool)
	if err != nil {
		return err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return fmt.Errorf("migrate the job queue: %w", err)
	}
	return nil
}

// newRiverMigrator makes River's migrator; pool may be nil when only the list
// of migrations is asked of it.
func newRiverMigrator(pool *pgxpool.Pool) (*rivermigrate.Migrator[pgx.Tx], error) {
	migrator, err := rivermigrate.New(riverpgxv5.New(pool),
		&rivermigrate.Config{Schema: RiverSchema, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, fmt.Errorf("read the job queue's migrations: %w", err)
	}
	return migrator, nil
}

// readStatus compares what the program knows with what the database records.
func readStatus(ctx context.Context, conn *pgx.Conn) (MigrationReport, error) {
	known, err := knownMigrations()
	if err != nil {
		return MigrationReport{}, err
	}
	own, err := appliedMigrations(ctx, conn, migrationTable,
		"SELECT version_id, max(tstamp) AT TIME ZONE 'UTC' FROM "+migrationTable+
			" WHERE is_applied AND version_id > 0 GROUP BY version_id")
	if err != nil {
		return MigrationReport{}, err
	}
	river, err := appliedMigrations(ctx, conn, RiverSchema+".river_migration",
		"SELECT version, created_at FROM "+RiverSchema+".river_migration")
	if err != nil {
		return MigrationReport{}, err
	}
	applied := map[string]map[int64]time.Time{"zvonok": own, "river": river}
	newest := map[string]int64{}
	for i, m := range known {
		known[i].AppliedAt, known[i].Applied = applied[m.Line][m.Version]
		newest[m.Line] = max(newest[m.Line], m.Version)
	}
	for line, versions := range applied {
		for version := range versions {
			if version > newest[line] {
				return MigrationReport{}, fmt.Errorf(
					"%w: it has %s migration %d and the program knows only those up to %d; run a newer zvonok on it",
					ErrNewerSchema, line, version, newest[line])
			}
		}
	}
	return MigrationReport{Migrations: known}, nil
}

func knownMigrations() ([]Migration, error) {
	entries, err := migrationFiles.ReadDir("migrations")
	if err != nil {
		return nil, fmt.Errorf("read the embedded migrations: %w", err)
	}
	var known []Migration
	for _, entry := range entries { // sorted by name, so by number
		version, err := goose.NumericComponent(entry.Name())
		if err != nil {
			return nil, fmt.Errorf("read the embedded migrations: %w", err)
		}
		_, name, _ := strings.Cut(strings.TrimSuffix(entry.Name(), ".sql"), "_")
		known = append(known, Migration{Line: "zvonok", Version: version, Name: name})
	}
	migrator, err := newRiverMigrator(nil)
	if err != nil {
		return nil, err
	}
	for _, m := range migrator.AllVersions() {
		known = append(known, Migration{Line: "river", Version: int64(m.Version), Name: m.Name})
	}
	return known, nil
}

// appliedMigrations reads versions and times with query from table, or nothing when there is no such table yet.
func appliedMigrations(ctx context.Context, conn *pgx.Conn, table, query string) (map[int64]time.Time, error) {
	var exists bool
	if err := conn.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", table).Scan(&exists); err != nil {
		return nil, fmt.Errorf("look for the record of migrations: %w", err)
	}
	applied := map[int64]time.Time{}
	if !exists {
		return applied, nil
	}
	rows, err := conn.Query(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("read the record of migrations: %w", err)
	}
	var version int64
	var at time.Time
	if _, err := pgx.ForEachRow(rows, []any{&version, &at}, func() error {
		applied[version] = at
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read the record of migrations: %w", err)
	}
	return applied, nil
}

// Fingerprint names the schema this program makes: it differs between programs
// whose migrations differ in a single byte. Caches of migrated databases go by it.
func Fingerprint() (string, error) {
	hash := sha256.New()
	entries, err := migrationFiles.ReadDir("migrations")
	if err != nil {
		return "", fmt.Errorf("read the embedded migrations: %w", err)
	}
	for _, entry := range entries {
		text, err := migrationFiles.ReadFile("migrations/" + entry.Name())
		if err != nil {
			return "", fmt.Errorf("read the embedded migrations: %w", err)
		}
		fmt.Fprintf(hash, "%s %d\n%s", entry.Name(), len(text), text)
	}
	migrator, err := newRiverMigrator(nil)
	if err != nil {
		return "", err
	}
	for _, m := range migrator.AllVersions() {
		fmt.Fprintf(hash, "river %d %s %d\n%s", m.Version, m.Name, len(m.SQLUp), m.SQLUp)
	}
	return hex.EncodeToString(hash.Sum(nil)[:12]), nil
}
