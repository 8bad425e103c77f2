package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger"
	"zvonok/ledger/meal"
)

type menuCommands struct {
	Repeat menuRepeatCommand `cmd:"" help:"Lay a cycle menu out: the days of the first cycle are repeated until a date."`
}

type menuRepeatCommand struct {
	Org   string `required:"" help:"The organisation: org_id of the registry."`
	First string `required:"" help:"The first day of the cycle, as in 2026-11-30; its menu is imported already."`
	Cycle int    `default:"14" help:"How long the cycle is in days, days of rest among them: two weeks of school days are 14."`
	Until string `required:"" help:"The last day to lay out."`
	JSON  bool   `name:"json" help:"Print JSON."`
}

func (m *menuRepeatCommand) Run(ctx context.Context, c *console) error {
	first, err := parseDay("--first", m.First)
	if err != nil {
		return err
	}
	until, err := parseDay("--until", m.Until)
	if err != nil {
		return err
	}
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		organisations, err := ledger.OrganisationsByCode(ctx, d.pool, []string{m.Org})
		if err != nil {
			return err
		}
		id, known := organisations[m.Org]
		if !known {
			return fmt.Errorf("there is no organisation %q in the register", m.Org)
		}
		var lines int64
		if err := pgx.BeginFunc(ctx, d.pool, func(tx pgx.Tx) error {
			lines, err = meal.RepeatMenu(ctx, tx, id, first, m.Cycle, until)
			return err
		}); err != nil {
			return err
		}
		if m.JSON {
			return printJSON(c.out, map[string]any{"lines": lines})
		}
		_, err = fmt.Fprintf(c.out, "%d lines are laid out; days that had a menu stay as they are\n", lines)
		return err
	})
}
