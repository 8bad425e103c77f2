package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"time"

	"zvonok/ledger"
)

type ledgerDayCommand struct {
	Day  string `arg:"" help:"The day, as in 2026-11-22."`
	JSON bool   `name:"json" help:"Print JSON."`
}

func (l *ledgerDayCommand) Run(ctx context.Context, c *console) error {
	day, err := parseDay("day", l.Day)
	if err != nil {
		return err
	}
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		closed, err := ledger.Days(ctx, d.pool, []time.Time{day})
		if err != nil {
			return err
		}
		if len(closed) == 0 || closed[0].Seal == nil {
			return fmt.Errorf("the day %s is not closed and sealed, or nothing was booked on it", l.Day)
		}
		turnovers, err := ledger.Turnovers(ctx, d.pool, day)
		if err != nil {
			return err
		}
		late, err := ledger.LatePostings(ctx, d.pool, day)
		if err != nil {
			return err
		}
		if l.JSON {
			return printJSON(c.out, struct {
				Closing   ledger.Day           `json:"closing"`
				Turnovers []ledger.Turnover    `json:"accounts"`
				Late      []ledger.LatePosting `json:"late"`
			}{closed[0], turnovers, late})
		}
		fmt.Fprintf(c.out, "%s, closed %s: %d postings, %s\nseal %s\n", l.Day, closed[0].ClosedAt.Local().Format(moment),
			closed[0].Postings, closed[0].Amount, hex.EncodeToString(closed[0].Seal))
		rows := make([][]any, len(turnovers))
		for i, t := range turnovers {
			name := string(t.Kind)
			switch {
			case t.Kind == ledger.Wallet:
				name = fmt.Sprintf("%d wallets", t.Accounts)
			case t.Owner != "":
				name += " " + t.Owner
			}
			rows[i] = []any{name, t.Opening, t.Debit, t.Credit, t.Closing, t.Postings}
		}
		if err := table(c.out, []any{"ACCOUNT", "OPENING", "DEBIT", "CREDIT", "CLOSING", "POSTINGS"}, rows); err != nil {
			return err
		}
		if len(late) == 0 {
			_, err = fmt.Fprintln(c.out, "nothing of it belonged to an earlier day")
			return err
		}
		fmt.Fprintf(c.out, "%d of it belonged to earlier days, which were closed:\n", len(late))
		rows = rows[:0]
		for _, p := range late {
			rows = append(rows, []any{
				p.From.Format(time.DateOnly), p.OccurredAt.Local().Format(moment), p.Kind, p.Amount, p.Wallet, p.Source, p.External,
			})
		}
		return table(c.out, []any{"DAY", "HAPPENED", "KIND", "SUM", "ACCOUNT", "SOURCE", "ID"}, rows)
	})
}
