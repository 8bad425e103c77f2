package main

import (
	"context"
	"fmt"
	"time"

	"zvonok/ledger/pg"
)

type migrateCommand struct {
	Status bool `help:"Only say what is done and what is pending."`
	JSON   bool `name:"json" help:"Print JSON."`
}

func (m *migrateCommand) Run(ctx context.Context, c *console) error {
	config, err := c.settings()
	if err != nil {
		return err
	}
	work := pg.Migrate
	if m.Status {
		work = pg.Status
	}
	var report pg.MigrationReport
	stop, err := reach(ctx, config, c.logger(config.Log), func(url string) (err error) {
		report, err = work(ctx, url)
		return err
	})
	if err != nil {
		return err
	}
	stop()
	if m.JSON {
		return printJSON(c.out, report)
	}
	rows := make([][]any, 0, len(report.Migrations))
	for _, step := range report.Migrations {
		state := "pending"
		if step.Applied {
			state = step.AppliedAt.Format(time.DateTime)
		}
		rows = append(rows, []any{step.Line, step.Version, step.Name, state})
	}
	if err := table(c.out, []any{"LINE", "VERSION", "NAME", "APPLIED"}, rows); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.out, "%d pending\n", report.Pending())
	return err
}
