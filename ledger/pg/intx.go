package pg

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// InTx runs do in a transaction, which it commits when do returns nil and
// otherwise rolls back, as pgx.BeginFunc does. It is for short transactions that
// come often: BEGIN travels together with the first statement of do, which saves
// a round trip. With one statement that is one of three, and the switches
// between two processes cost more than BEGIN itself.
//
// So the first statement also takes the connection and reports whatever stands
// in the way of beginning. Until then the transaction has no Conn and no
// LargeObjects; when do makes no statement at all, nothing happens.
func InTx(ctx context.Context, pool *pgxpool.Pool, do func(tx pgx.Tx) error) error {
	tx := &lateTx{pool: pool}
	defer func() {
		if tx.Tx != nil {
			_ = tx.Rollback(ctx) // does nothing after a commit; the error of do or of the commit says more
		}
	}()
	if err := do(tx); err != nil || tx.Tx == nil {
		return err
	}
	return tx.Commit(ctx)
}

// lateTx is a transaction that begins with its first statement.
type lateTx struct {
	pgx.Tx // nil until begun
	pool   *pgxpool.Pool
}

// begin begins with a round trip of its own.
func (t *lateTx) begin(ctx context.Context) (err error) {
	if t.Tx == nil {
		t.Tx, err = t.pool.Begin(ctx)
	}
	return err
}

// beginWith begins together with queries. The results are those of queries.
func (t *lateTx) beginWith(ctx context.Context, queries []*pgx.QueuedQuery) pgx.BatchResults {
	batch := &pgx.Batch{}
	batch.BeginTx(pgx.TxOptions{})
	batch.QueuedQueries = append(batch.QueuedQueries, queries...)
	results := t.pool.SendBatch(ctx, batch)
	t.Tx = results.Tx()
	_, _ = results.Exec() // of BEGIN; had it failed, so do the queries
	return results
}

func (t *lateTx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if t.Tx == nil && takesOptions(args) {
		if err := t.begin(ctx); err != nil {
			return nil, err
		}
	}
	if t.Tx != nil {
		return t.Tx.Query(ctx, sql, args...)
	}
	results := t.beginWith(ctx, []*pgx.QueuedQuery{{SQL: sql, Arguments: args}})
	rows, err := results.Query()
	first := &firstRows{Rows: rows, results: results}
	if err != nil {
		first.Close()
	}
	return first, err
}

// takesOptions tells whether args begin with an option of pgx, which batches do not take.
func takesOptions(args []any) bool {
	if len(args) == 0 {
		return false
	}
	switch args[0].(type) {
	case pgx.QueryExecMode, pgx.QueryResultFormats, pgx.QueryResultFormatsByOID:
		return true
	}
	return false
}

func (t *lateTx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	rows, err := t.Query(ctx, sql, args...)
	return firstRow{rows, err}
}

func (t *lateTx) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if t.Tx != nil {
		return t.Tx.Exec(ctx, sql, args...)
	}
	rows, err := t.Query(ctx, sql, args...)
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	rows.Close()
	return rows.CommandTag(), rows.Err()
}

func (t *lateTx) SendBatch(ctx context.Context, batch *pgx.Batch) pgx.BatchResults {
	if t.Tx != nil {
		return t.Tx.SendBatch(ctx, batch)
	}
	return t.beginWith(ctx, batch.QueuedQueries)
}

func (t *lateTx) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, rows pgx.CopyFromSource) (int64, error) {
	if err := t.begin(ctx); err != nil {
		return 0, err
	}
	return t.Tx.CopyFrom(ctx, table, columns, rows)
}

func (t *lateTx) Prepare(ctx context.Context, name, sql string) (*pgconn.StatementDescription, error) {
	if err := t.begin(ctx); err != nil {
		return nil, err
	}
	return t.Tx.Prepare(ctx, name, sql)
}

func (t *lateTx) Begin(ctx context.Context) (pgx.Tx, error) {
	if err := t.begin(ctx); err != nil {
		return nil, err
	}
	return t.Tx.Begin(ctx)
}

// firstRows are the rows of the first statement. With them ends the batch, which
// occupies the connection.
type firstRows struct {
	pgx.Rows
	results pgx.BatchResults
	err     error
}

func (r *firstRows) Next() bool {
	if r.Rows.Next() {
		return true
	}
	r.Close()
	return false
}

func (r *firstRows) Close() {
	r.Rows.Close()
	r.err = r.results.Close()
}

func (r *firstRows) Err() error {
	if err := r.Rows.Err(); err != nil {
		return err
	}
	return r.err
}

// firstRow is the first of some rows, or their error.
type firstRow struct {
	rows pgx.Rows
	err  error
}

func (r firstRow) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	defer r.rows.Close()
	if !r.rows.Next() {
		if err := r.rows.Err(); err != nil {
			return err
		}
		return pgx.ErrNoRows
	}
	if err := r.rows.Scan(dest...); err != nil {
		return err
	}
	r.rows.Close()
	return r.rows.Err()
}
