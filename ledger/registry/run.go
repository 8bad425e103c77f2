package registry

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// importLock is the advisory lock that lets one import run at a time in a
// database; the number only has to be ours.
const importLock int64 = 0x7a766f6e_0001

// Run imports a folder in one transaction, all or nothing, with the imports in
// the given order. The Report is right to print whatever the error is. The
// error wraps ErrProblems when the files are at fault; nothing was imported
// then, nor after any other error.
func Run(ctx context.Context, pool *pgxpool.Pool, folder *Folder, imports ...Import) (*Report, error) {
	report := &Report{}
	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		// A city takes longer than any request may.
		if _, err := tx.Exec(ctx, `
			SELECT set_config('statement_timeout', '0', true), set_config('lock_timeout', '0', true),
			       set_config('idle_in_transaction_session_timeout', '0', true),
			       set_config('work_mem', '64MB', true)`); err != nil {
			return fmt.Errorf("begin an import: %w", err)
		}
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, importLock); err != nil {
			return fmt.Errorf("wait for another import to end: %w", err)
		}
		for _, run := range imports {
			if err := run(ctx, tx, folder, report); err != nil {
				return err
			}
		}
		return report.Err()
	})
	if err != nil {
		report.Counts = nil // what was counted has been rolled back
	}
	return report, err
}
