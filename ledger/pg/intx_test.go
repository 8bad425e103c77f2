package pg_test

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"zvonok/ledger/pg"
	"zvonok/ledger/pg/pgtest"
)

// sentConn counts what is sent to the server.
type sentConn struct {
	net.Conn
	sent *atomic.Int64
}

func (c sentConn) Write(p []byte) (int, error) {
	c.sent.Add(1)
	return c.Conn.Write(p)
}

// newNotes is a pool of one connection to a database with a table of notes,
// and the number of things sent over it.
func newNotes(t *testing.T) (*pgxpool.Pool, *atomic.Int64) {
	t.Helper()
	config, err := pgxpool.ParseConfig(pgtest.NewURL(t))
	if err != nil {
		t.Fatal(err)
	}
	var sent atomic.Int64
	config.MaxConns = 1
	config.ConnConfig.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		return sentConn{conn, &sent}, err
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if _, err := pool.Exec(t.Context(), `CREATE TABLE note (text text PRIMARY KEY)`); err != nil {
		t.Fatal(err)
	}
	return pool, &sent
}

func notes(t *testing.T, pool *pgxpool.Pool) int {
	t.Helper()
	var count int
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM note`).Scan(&count); err != nil {
		t.Fatal(err)
	}
	return count
}

func TestATransactionBeginsTogetherWithItsFirstStatement(t *testing.T) {
	t.Parallel()
	pool, sent := newNotes(t)
	for name, first := range map[string]func(ctx context.Context, tx pgx.Tx) error{
		"Exec": func(ctx context.Context, tx pgx.Tx) error {
			tag, err := tx.Exec(ctx, `INSERT INTO note VALUES ($1)`, "by Exec")
			if err == nil && tag.RowsAffected() != 1 {
				t.Errorf("Exec tells of %d rows", tag.RowsAffected())
			}
			return err
		},
		"Query": func(ctx context.Context, tx pgx.Tx) error {
			rows, err := tx.Query(ctx, `INSERT INTO note VALUES ($1), ($2) RETURNING text`, "by Query", "by Query too")
			if err != nil {
				return err
			}
			texts, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err == nil && len(texts) != 2 {
				t.Errorf("Query returns %q", texts)
			}
			return err
		},
		"QueryRow": func(ctx context.Context, tx pgx.Tx) error {
			var text string
			err := tx.QueryRow(ctx, `INSERT INTO note VALUES ($1) RETURNING text`, "by QueryRow").Scan(&text)
			if err == nil && text != "by QueryRow" {
				t.Errorf("QueryRow returns %q", text)
			}
			return err
		},
		"SendBatch": func(ctx context.Context, tx pgx.Tx) error {
			batch := &pgx.Batch{}
			batch.Queue(`INSERT INTO note VALUES ($1)`, "by SendBatch")
			return tx.SendBatch(ctx, batch).Close()
		},
	} {
		// The first time the statements are prepared, which is sent by itself.
		for _, warm := range []bool{false, true} {
			if _, err := pool.Exec(t.Context(), `DELETE FROM note`); err != nil {
				t.Fatal(err)
			}
			before := sent.Load()
			if err := pg.InTx(t.Context(), pool, func(tx pgx.Tx) error { return first(t.Context(), tx) }); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if n := sent.Load() - before; warm && n != 2 {
				t.Errorf("%s in a transaction was sent in %d parts; want 2, the second of which is the commit", name, n)
			}
			if notes(t, pool) == 0 {
				t.Errorf("%s in a transaction wrote nothing", name)
			}
		}
	}
}

func TestWhateverComesFirstIsInTheTransaction(t *testing.T) {
	t.Parallel()
	pool, _ := newNotes(t)
	undo := errors.New("undo")
	for name, first := range map[string]func(ctx context.Context, tx pgx.Tx) error{
		"Exec": func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `INSERT INTO note VALUES ('a')`)
			return err
		},
		"Query with rows left unread": func(ctx context.Context, tx pgx.Tx) error {
			rows, err := tx.Query(ctx, `INSERT INTO note VALUES ('a'), ('b') RETURNING text`)
			if err != nil {
				return err
			}
			rows.Next()
			rows.Close()
			return rows.Err()
		},
		"Query with an option of pgx": func(ctx context.Context, tx pgx.Tx) error {
			rows, err := tx.Query(ctx, `INSERT INTO note VALUES ('a')`, pgx.QueryExecModeSimpleProtocol)
			if err != nil {
				return err
			}
			rows.Close()
			return rows.Err()
		},
		"QueryRow that finds nothing": func(ctx context.Context, tx pgx.Tx) error {
			var text string
			if err := tx.QueryRow(ctx, `SELECT text FROM note`).Scan(&text); !errors.Is(err, pgx.ErrNoRows) {
				t.Errorf("QueryRow returns %v; want no rows", err)
			}
			return nil
		},
		"CopyFrom": func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.CopyFrom(ctx, pgx.Identifier{"note"}, []string{"text"}, pgx.CopyFromRows([][]any{{"a"}}))
			return err
		},
		"Begin": func(ctx context.Context, tx pgx.Tx) error {
			return pgx.BeginFunc(ctx, tx, func(nested pgx.Tx) error {
				_, err := nested.Exec(ctx, `INSERT INTO note VALUES ('a')`)
				return err
			})
		},
		"Prepare": func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Prepare(ctx, "", `SELECT 1`)
			return err
		},
	} {
		err := pg.InTx(t.Context(), pool, func(tx pgx.Tx) error {
			if err := first(t.Context(), tx); err != nil {
				return err
			}
			if _, err := tx.Exec(t.Context(), `INSERT INTO note VALUES ('second')`); err != nil {
				return err
			}
			return undo
		})
		if !errors.Is(err, undo) {
			t.Errorf("%s: %v; want the error of the function", name, err)
		}
		if n := notes(t, pool); n != 0 {
			t.Errorf("%s: %d notes outlive the rollback", name, n)
		}
	}
}

func TestAFirstStatementThatFailsLeavesTheConnectionFree(t *testing.T) {
	t.Parallel()
	pool, _ := newNotes(t)
	if _, err := pool.Exec(t.Context(), `INSERT INTO note VALUES ('a')`); err != nil {
		t.Fatal(err)
	}
	for sql, want := range map[string]string{
		`INSERT INTO note VALUES ('a')`: "23505",
		`SELECT * FROM no_such_table`:   "42P01",
	} {
		for range 2 { // the second time it may be prepared
			err := pg.InTx(t.Context(), pool, func(tx pgx.Tx) error {
				_, err := tx.Exec(t.Context(), sql)
				return err
			})
			var refused *pgconn.PgError
			if !errors.As(err, &refused) || refused.Code != want {
				t.Errorf("%s: %v; want SQLSTATE %s", sql, err, want)
			}
			err = pg.InTx(t.Context(), pool, func(tx pgx.Tx) error {
				var one int
				_ = tx.QueryRow(t.Context(), sql).Scan(&one)
				return nil // as if nothing had happened
			})
			if err == nil {
				t.Errorf("%s: a transaction that failed was committed", sql)
			}
		}
	}
	// The pool has one connection: it must have come back each time.
	if n := notes(t, pool); n != 1 {
		t.Errorf("%d notes; want 1", n)
	}
}

func TestATransactionWithoutStatementsNeedsNoConnection(t *testing.T) {
	t.Parallel()
	pool, _ := newNotes(t)
	pool.Close()
	if err := pg.InTx(t.Context(), pool, func(pgx.Tx) error { return nil }); err != nil {
		t.Errorf("with nothing to do: %v", err)
	}
	err := pg.InTx(t.Context(), pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), `SELECT 1`)
		return err
	})
	if err == nil {
		t.Error("a statement without a connection succeeded")
	}
}
