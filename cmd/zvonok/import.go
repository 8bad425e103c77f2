package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/cmd/zvonok/city"
	"zvonok/gateway/subscription"
	"zvonok/ledger"
	"zvonok/ledger/meal"
	"zvonok/ledger/registry"
)

// importers are the owners of the registry's files, in the order in which they
// depend on each other.
var importers = []struct {
	what string
	run  registry.Import
}{
	{"organisations and people", ledger.ImportRegister},
	{"cards and guardians", access.Import},
	{"subscriptions", subscription.Import},
	{"menus", meal.Import},
}

// importFolder brings a folder into the database, all or nothing.
func importFolder(ctx context.Context, d *database, folder *registry.Folder, progress io.Writer) (*registry.Report, error) {
	begun := time.Now()
	say := func(what string) {
		fmt.Fprintf(progress, "%6s  %s\n", time.Since(begun).Round(100*time.Millisecond), what)
	}
	var runs []registry.Import
	for _, importer := range importers {
		runs = append(runs, func(ctx context.Context, tx pgx.Tx, folder *registry.Folder, report *registry.Report) error {
			say(importer.what)
			return importer.run(ctx, tx, folder, report)
		})
	}
	report, err := registry.Run(ctx, d.pool, folder, runs...)
	if err != nil {
		return report, err
	}
	say("statistics")
	return report, analyse(ctx, d.url)
}

// analyse gathers statistics of tables that have grown from nothing: the
// planner must know before the first tap, not when autovacuum comes round. Only
// the tables' owner may, so it takes a connection of its own.
func analyse(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("gather statistics: %w", err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, `ANALYZE ledger.person, ledger.account, ledger.balance, access.card, access.representative,
		access.guardian, access.consent, subscription.subscription`); err != nil {
		return fmt.Errorf("gather statistics: %w", err)
	}
	return nil
}

type importCommand struct {
	Dir  string `arg:"" type:"existingdir" help:"Folder with the registry files (payees.csv, organisations.csv, ...)."`
	JSON bool   `name:"json" help:"Print JSON."`
}

func (i *importCommand) Run(ctx context.Context, c *console) error {
	folder, err := registry.Open(i.Dir)
	if err != nil {
		return err
	}
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		return c.reportImport(ctx, d, folder, i.JSON)
	})
}

// reportImport imports and prints what was done, or each bad line.
func (c *console) reportImport(ctx context.Context, d *database, folder *registry.Folder, asJSON bool) error {
	report, err := importFolder(ctx, d, folder, c.err)
	if err != nil && !errors.Is(err, registry.ErrProblems) {
		return err
	}
	if asJSON {
		if printed := printJSON(c.out, report); printed != nil {
			return printed
		}
		if err != nil {
			return printedError{err}
		}
		return nil
	}
	if err != nil {
		for _, problem := range report.Problems {
			fmt.Fprintln(c.err, problem)
		}
		if more := report.Found - len(report.Problems); more > 0 {
			fmt.Fprintf(c.err, "and %d more\n", more)
		}
		fmt.Fprintf(c.err, "zvonok: %s; correct these lines and import again\n", registry.ErrProblems)
		return printedError{err}
	}
	rows := make([][]any, 0, len(report.Counts))
	for _, count := range report.Counts {
		rows = append(rows, []any{count.File, count.Added, count.Changed, count.Left})
	}
	return table(c.out, []any{"FILE", "ADDED", "CHANGED", "LEFT"}, rows)
}

type generateCommand struct {
	People  int    `required:"" help:"How many people."`
	Schools int    `required:"" help:"How many organisations."`
	Seed    uint64 `default:"1" help:"The same seed makes the same city."`
	JSON    bool   `name:"json" help:"Print JSON."`
}

func (g *generateCommand) Run(ctx context.Context, c *console) error {
	now := time.Now()
	made, err := city.New(city.Spec{
		People: g.People, Schools: g.Schools, Seed: g.Seed, Today: now, MenuFor: 14,
	})
	if err != nil {
		return usageError{err}
	}
	folder, err := made.Folder()
	if err != nil {
		return err
	}
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		return c.reportImport(ctx, d, folder, g.JSON)
	})
}
