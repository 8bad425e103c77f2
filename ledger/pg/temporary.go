package pg

import (
	"context"
	"errors"
	"io"
	"net"

	"github.com/jackc/pgx/v5/pgconn"
)

// Temporary tells whether repeating the same transaction later may succeed:
// the server was away, restarting, full or out of connections, the connection
// broke, a lock or a statement took too long, or two transactions deadlocked.
// Data that breaks a constraint and SQL that is wrong are permanent. So is the
// end of the caller's own context, which is the caller's decision.
//
// A connection that broke at COMMIT leaves it unknown whether the transaction
// took place; only transactions that are idempotent may be repeated on it.
func Temporary(err error) bool {
	var server *pgconn.PgError
	if errors.As(err, &server) {
		return temporaryCode(server.Code)
	}
	var connect *pgconn.ConnectError
	if errors.As(err, &connect) {
		return true
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	var network net.Error
	return pgconn.SafeToRetry(err) || errors.As(err, &network) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

// temporaryCode knows the classes of SQLSTATE (PostgreSQL manual, appendix A).
func temporaryCode(code string) bool {
	if len(code) != 5 {
		return false
	}
	switch code[:2] {
	case "08", // connection exception
		"40", // serialisation failure, deadlock
		"53", // out of disk, memory or connections
		"57", // cancelled by a time-out, shutting down, starting up
		"58": // system error, such as a failed write
		return true
	}
	return code == "55P03" || // lock_timeout
		code == "25P03" || // idle_in_transaction_session_timeout
		code == "25006" // the server has just become a read-only standby
}
