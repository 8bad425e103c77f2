// Package pgtest gives each test a database of its own in a real PostgreSQL.
//
// The first call in a test process starts one throw-away cluster: a copy of a
// cached data directory in which a template database has been migrated already.
// The cache stands in the folder for temporary files, is named by the hash of
// all migrations and is made by whichever test process comes first, so later
// processes pay for a copy and a start only. Each test then gets a copy of the
// template, made by CREATE DATABASE and dropped when the test ends.
//
// The cluster listens on a Unix socket in a folder of its own, so any number of
// test processes run side by side. It ends and its files go when the test
// process ends, even by kill -9: a guardian shell sees its pipe close.
//
// The cluster does not force writes to disk (fsync is off), for a test's data
// need not outlive the machine. A crash of PostgreSQL alone loses nothing, so
// tests of faults are right too; they use NewCluster, which they may kill.
package pgtest

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"zvonok/ledger/pg"
	"zvonok/ledger/pg/internal/postmaster"
)

const (
	// startTimeout bounds the first use, including making the cache, on a busy machine.
	startTimeout = 3 * time.Minute
	// dropTimeout bounds the removal of one database.
	dropTimeout = time.Minute
	// poolSize is the number of connections of the pool of one test; with maxConnections
	// it leaves room for some twenty tests at once.
	poolSize       = 12
	maxConnections = 300
	// template is the migrated database that each test gets a copy of.
	template = "zvonok_template"
)

// serial numbers the databases of this process.
var serial atomic.Int64

// shared starts the cluster of this process on first use.
var shared = sync.OnceValues(startShared)

// New returns a pool on a fresh migrated database, working under the
// application's role as the program does. Pool and database go when the test
// ends.
func New(t testing.TB) *pgxpool.Pool {
	t.Helper()
	pool, err := pg.Open(t.Context(), pg.Config{
		URL: NewURL(t), MaxConns: poolSize, AppName: "test", Role: pg.AppRole,
	})
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// NewURL returns the URL of a fresh migrated database. It logs in as the owner,
// who may do everything: for tests that start whole programs, and for those
// that tamper with what the application may not touch. The database goes when
// the test ends.
func NewURL(t testing.TB) string {
	t.Helper()
	return newDatabase(t, template)
}

// NewEmptyURL is NewURL with a database that has not been migrated.
func NewEmptyURL(t testing.TB) string {
	t.Helper()
	return newDatabase(t, "template0")
}

func newDatabase(t testing.TB, from string) string {
	t.Helper()
	server, err := shared()
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	name := "test_" + strconv.FormatInt(serial.Add(1), 10)
	if err := server.exec(t.Context(), "CREATE DATABASE "+name+" TEMPLATE "+from+server.strategy); err != nil {
		t.Fatalf("pgtest: create a database: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), dropTimeout)
		defer cancel()
		if err := server.exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("pgtest: drop a database: %v", err)
		}
	})
	return server.url(name)
}

// server is a cluster reached over the socket in its folder.
type server struct {
	socketDir string
	// strategy ends a CREATE DATABASE.
	strategy string
	// lifeline, when the cluster has a guardian, is what keeps it running: the
	// cluster ends when this is closed, at the latest by the end of the process.
	lifeline *os.File
}

func (s server) url(database string) string {
	return (&url.URL{
		Scheme: "postgres", User: url.User(postmaster.Superuser), Host: "", Path: "/" + database,
		RawQuery: url.Values{"host": {s.socketDir}}.Encode(),
	}).String()
}

// exec runs one statement on a connection of its own in the database postgres.
func (s server) exec(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, s.url("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	return err
}

// arguments are those of postgres for a cluster with its socket in socketDir.
func arguments(dataDir, socketDir string, durable, streams bool) []string {
	settings := map[string]string{
		"listen_addresses":        "",
		"unix_socket_directories": socketDir,
		"unix_socket_permissions": "0700",
		"max_connections":         strconv.Itoa(maxConnections),
		"shared_buffers":          "64MB",
		"jit":                     "off",
		"wal_level":               "minimal",
		"wal_sync_method":         "fdatasync", // which a disk that fails knows
		"max_wal_senders":         "0",
		"max_wal_size":            "1GB",
		"checkpoint_timeout":      "1h",
		"track_io_timing":         "off",
		"timezone":                "UTC",
		"log_timezone":            "UTC",
	}
	if !durable {
		settings["fsync"] = "off"
		settings["full_page_writes"] = "off"
		settings["synchronous_commit"] = "off"
	}
	if streams {
		settings["wal_level"] = "replica"
		settings["max_wal_senders"] = "10"
		settings["fsync"] = "off" // the machine does not crash, and copies are made much sooner
	}
	args := []string{"-D", dataDir}
	for name, value := range settings {
		args = append(args, "-c", name+"="+value)
	}
	return args
}

// awaitReady connects until the server answers, or gives up with the end of the server's log.
func (s server) awaitReady(ctx context.Context, logFile string) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := s.exec(ctx, "SELECT")
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			log, _ := os.ReadFile(logFile) // whatever can be had of it helps
			return fmt.Errorf("wait for PostgreSQL to answer: %w; its log ends: %s", err, log[max(0, len(log)-2000):])
		}
	}
}

// baseDir returns the folder of all caches and clusters of this user, owned by
// the account PostgreSQL runs as, which must be able to delete in it.
func baseDir(account postmaster.Account) (string, error) {
	parent := os.TempDir()
	if len(parent) > 60 { // the socket's path must stay under 108 bytes
		parent = "/tmp"
	}
	if err := account.Reach(filepath.Join(parent, "any")); err != nil {
		parent = "/tmp"
	}
	base := filepath.Join(parent, "zvonok-pgtest-"+strconv.Itoa(os.Geteuid()))
	if err := os.Mkdir(base, 0o700); err == nil {
		return base, account.Own(base)
	} else if !os.IsExist(err) {
		return "", fmt.Errorf("make the folder of test clusters: %w", err)
	}
	info, err := os.Lstat(base)
	if err != nil {
		return "", fmt.Errorf("look at the folder of test clusters: %w", err)
	}
	if !info.IsDir() || info.Mode().Perm() != 0o700 {
		return "", fmt.Errorf("%s is not a closed folder of this user: remove it", base)
	}
	return base, account.Own(base)
}
