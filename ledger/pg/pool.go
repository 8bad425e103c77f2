// Package pg is the way to PostgreSQL: the pool of connections, the reading
// from a replica, the one numbered list of migrations, the gathering of single calls into batches, and
// the private PostgreSQL that Zvonok runs for itself when it is given no other.
//
// It knows nothing of what is stored. Each package of ours keeps its own
// tables in a schema of its own name and writes them through a [Querier]; the
// migrations of all of them stand in the folder migrations, because their order
// is one.
//
// Promises:
//   - a connection of the pool never waits for ever: statements, locks and idle
//     transactions all have limits on the server's side, which hold even when
//     our process has stopped breathing;
//   - the application works under the role zvonok_app, which owns none of the
//     books, so that the rights in the database hold against our own mistakes;
//   - a database newer than the program is refused, never altered;
//   - what a [Reader] reads from a replica is never older than the settings
//     allow, and a replica that fails is not noticed by who reads;
//   - the private cluster is never deleted, upgraded or shared by two owners.
package pg

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// AppRole is the role under which the application works. The first migration
// makes it; it cannot log in, a connection becomes it by SET ROLE.
const AppRole = "zvonok_app"

// Limits of a connection. A URL that sets the same parameter itself wins; a
// transaction that is long by nature (an import) lifts the limit for itself by
// SET LOCAL statement_timeout.
const (
	// connectTimeout bounds one attempt to connect.
	connectTimeout = 5 * time.Second
	// pingTimeout bounds the check of a connection that has been idle.
	pingTimeout = 2 * time.Second
	// statementTimeout is longer than the slowest page or batch and shorter
	// than anyone's patience.
	statementTimeout = 30 * time.Second
	// lockTimeout turns a pile-up behind one stuck transaction into errors
	// that callers repeat.
	lockTimeout = 10 * time.Second
	// idleInTransactionTimeout frees the locks of a process that has stopped
	// in the middle of a transaction, and lets the watermark of xids move on.
	idleInTransactionTimeout = 60 * time.Second
	// connLifetime and its jitter renew connections without renewing all at once.
	connLifetime       = time.Hour
	connLifetimeJitter = 10 * time.Minute
	connIdleTime       = 10 * time.Minute
)

// Querier is what a statement needs: a pool, a connection or a transaction.
// Reads are functions of a Querier; a write that must share the caller's
// transaction asks for a pgx.Tx by name.
type Querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	SendBatch(ctx context.Context, batch *pgx.Batch) pgx.BatchResults
	CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, rows pgx.CopyFromSource) (int64, error)
}

// PlannedOnce begins a transaction whose statements are planned once for each
// connection. It is for batches whose statements are all lookups and writes by
// key, so that one plan is right whatever the size of the batch; planning them
// anew over the months' partitions took as long as running them.
//
// The plan must be right for full tables even when it is made for empty ones, on
// the first morning of a new database: there reading a whole table looks
// cheapest, and would be done for minutes until PostgreSQL's statistics have
// caught up. So only plans by index are considered.
var PlannedOnce = pgx.TxOptions{BeginQuery: `BEGIN;
	SET LOCAL plan_cache_mode = force_generic_plan;
	SET LOCAL enable_seqscan = off;
	SET LOCAL enable_hashjoin = off;
	SET LOCAL enable_mergejoin = off`}

var (
	_ Querier = (*pgxpool.Pool)(nil)
	_ Querier = (*pgx.Conn)(nil)
	_ Querier = pgx.Tx(nil)
)

// Config says how to open a pool.
type Config struct {
	// URL is a PostgreSQL connection string, as a URL or as key=value pairs.
	URL string
	// MaxConns bounds the pool; 0 means the greater of 4 and the number of CPUs.
	MaxConns int32
	// AppName is shown in pg_stat_activity.
	AppName string
	// Role is the role every connection becomes, usually AppRole; empty means
	// the role that logs in.
	Role string
}

// Open opens a pool and waits until one connection works. The caller closes the
// pool. An error means that the URL is wrong, the server cannot be reached or
// the role cannot be taken; the pool is then closed already.
func Open(ctx context.Context, config Config) (*pgxpool.Pool, error) {
	pc, err := poolConfig(config)
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, fmt.Errorf("open the pool of database connections: %w", err)
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, fmt.Errorf("connect to the database: %w", err)
	}
	return pool, nil
}

// poolConfig is what all pools have in common.
func poolConfig(config Config) (*pgxpool.Config, error) {
	pc, err := pgxpool.ParseConfig(config.URL)
	if err != nil {
		return nil, fmt.Errorf("read the database URL: %w", err)
	}
	if config.MaxConns > 0 {
		pc.MaxConns = config.MaxConns
	}
	pc.MaxConnLifetime = connLifetime
	pc.MaxConnLifetimeJitter = connLifetimeJitter
	pc.MaxConnIdleTime = connIdleTime
	pc.PingTimeout = pingTimeout
	pc.ConnConfig.DialFunc = dial
	if pc.ConnConfig.ConnectTimeout == 0 {
		pc.ConnConfig.ConnectTimeout = connectTimeout
	}
	setDefault(pc.ConnConfig, "application_name", config.AppName)
	setDefault(pc.ConnConfig, "statement_timeout", milliseconds(statementTimeout))
	setDefault(pc.ConnConfig, "lock_timeout", milliseconds(lockTimeout))
	setDefault(pc.ConnConfig, "idle_in_transaction_session_timeout", milliseconds(idleInTransactionTimeout))
	if config.Role != "" {
		pc.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
			return becomeRole(ctx, conn, config.Role)
		}
	}
	return pc, nil
}

func setDefault(config *pgx.ConnConfig, parameter, value string) {
	if _, given := config.RuntimeParams[parameter]; !given && value != "" {
		config.RuntimeParams[parameter] = value
	}
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

func becomeRole(ctx context.Context, conn *pgx.Conn, role string) error {
	if _, err := conn.Exec(ctx, "SET ROLE "+pgx.Identifier{role}.Sanitize()); err != nil {
		return fmt.Errorf("become the role %s: %w", role, err)
	}
	return nil
}
