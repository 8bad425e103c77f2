package main

import (
	"context"
	"errors"
	"fmt"

	"zvonok/ledger"
)

type ledgerTotalsCommand struct {
	JSON bool `name:"json" help:"Print JSON."`
}

func (l *ledgerTotalsCommand) Run(ctx context.Context, c *console) error {
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		trial, err := ledger.ReadTrialBalance(ctx, d.pool)
		if err != nil {
			return err
		}
		if l.JSON {
			err = printJSON(c.out, trial)
		} else {
			rows := make([][]any, 0, len(trial.Accounts)+2)
			for i := range trial.Accounts {
				t := &trial.Accounts[i]
				name := string(t.Kind)
				if t.Owner != "" {
					name += " " + t.Owner
				}
				rows = append(rows, []any{name, t.Debit, t.Credit, t.Balance(), t.Postings})
			}
			rows = append(rows,
				[]any{fmt.Sprintf("%d wallets", trial.Wallets), "", "", trial.InWallets, ""},
				[]any{"together", "", "", trial.Difference(), ""})
			err = table(c.out, []any{"ACCOUNT", "DEBIT", "CREDIT", "BALANCE", "POSTINGS"}, rows)
			if err == nil && trial.OnHold != 0 {
				_, err = fmt.Fprintf(c.out, "of what is in wallets %s is set aside for orders\n", trial.OnHold)
			}
		}
		if err == nil && trial.Difference() != 0 {
			return printedError{errors.New("the books do not balance: zvonok ledger verify finds the rows")}
		}
		return err
	})
}
