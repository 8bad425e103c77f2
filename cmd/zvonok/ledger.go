package main

import (
	"context"
	"errors"

	"zvonok/ledger"
	"zvonok/ledger/topup"
)

type ledgerCommands struct {
	Verify    ledgerVerifyCommand    `cmd:"" help:"Check every invariant of the books; prints ok with counts and control sums, or each violation."`
	Reconcile ledgerReconcileCommand `cmd:"" help:"Compare a bank's registry with the books; what only the bank has is credited."`
}

type ledgerVerifyCommand struct {
	JSON bool `name:"json" help:"Print JSON."`
}

func (l *ledgerVerifyCommand) Run(ctx context.Context, c *console) error {
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		report, err := ledger.Verify(ctx, d.pool, topup.Checks()...)
		if err != nil {
			return err
		}
		if l.JSON {
			err = printJSON(c.out, report)
		} else {
			_, err = report.WriteTo(c.out)
		}
		if err == nil && !report.OK() {
			return printedError{errors.New("the books are wrong")}
		}
		return err
	})
}
