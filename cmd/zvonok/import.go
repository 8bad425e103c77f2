package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/cmd/zvonok/city"
	"zvonok/gateway/subscription"
	"zvonok/ledger"
	"zvonok/ledger/meal"
	"zvonok/ledger/registry"
	"zvonok/ledger/topup"
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
	{"menus and products", meal.Import},
	{"offices of banks", topup.Import},
}

// importFolder brings a folder into the database, all or nothing.
func importFolder(ctx context.Context, d *database, folder *registry.Folder, progress io.Writer) (*registry.Report, error) {
	say := newProgress(progress)
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
	if err := freeMoved(ctx, d, say); err != nil {
		return report, fmt.Errorf("the import is done, but meals ordered at former schools wait for the night: %w", err)
	}
	say("statistics")
	return report, analyse(ctx, d.url)
}

// freeMoved cancels the meals that children who have moved or left had ordered,
// whose money is free with that. It has a transaction of its own, since orders are
// locked before wallets and the import has locked those.
func freeMoved(ctx context.Context, d *database, say func(string)) error {
	jobs, err := insertClient(d.pool)
	if err != nil {
		return err
	}
	book := ledger.NewBook(jobs)
	freed := 0
	if err := pgx.BeginFunc(ctx, d.pool, func(tx pgx.Tx) error {
		// What was ordered for yesterday is the night's business: a till may be late.
		freed, err = meal.NewCanteen(book, jobs).LapseOrders(ctx, tx, time.Now().In(book.Zone).AddDate(0, 0, -1))
		return err
	}); err != nil {
		return err
	}
	if freed > 0 {
		say(fmt.Sprintf("%d meals ordered at former schools are cancelled, their money is free", freed))
	}
	return nil
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
		access.guardian, access.consent, subscription.subscription, door.pass, door.presence`); err != nil {
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
	History int    `default:"3" help:"Days of passes before today; 0 for none." placeholder:"DAYS"`
	To      string `type:"path" help:"Write the city's registry files into this folder, for import, and leave the database alone." placeholder:"DIR"`
	JSON    bool   `name:"json" help:"Print JSON."`
}

// Of a generated city.
const (
	generatedMenu    = 14     // days, beginning with today
	generatedBalance = 500_00 // kopecks every account begins with
	maxHistory       = 3 * 366
)

func (g *generateCommand) Run(ctx context.Context, c *console) error {
	now := time.Now()
	switch {
	case g.History < 0 || g.History > maxHistory:
		return usageError{fmt.Errorf("--history: %d is not between 0 and %d days", g.History, maxHistory)}
	}
	made, err := city.New(city.Spec{
		People: g.People, Schools: g.Schools, Seed: g.Seed, Today: now, MenuFor: generatedMenu,
	})
	if err != nil {
		return usageError{err}
	}
	if g.To != "" {
		if err := os.CopyFS(g.To, made.Files()); err != nil {
			return fmt.Errorf("write the city's files: %w", err)
		}
		fmt.Fprintf(c.err, "wrote the registry files of %d people; zvonok import %s brings them in\n", g.People, g.To)
		return nil
	}
	folder, err := made.Folder()
	if err != nil {
		return err
	}
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		if err := c.reportImport(ctx, d, folder, g.JSON); err != nil {
			return err
		}
		return g.past(ctx, d, now, newProgress(c.err))
	})
}

// past gives a generated city its history, once: a city that has passes keeps them.
func (g *generateCommand) past(ctx context.Context, d *database, now time.Time, say func(string)) error {
	var begun bool
	if err := d.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM door.presence)`).Scan(&begun); err != nil {
		return fmt.Errorf("look for a history: %w", err)
	}
	if begun {
		say("the city has a history already; it stays as it is")
		return nil
	}
	jobs, err := insertClient(d.pool)
	if err != nil {
		return err
	}
	past := history{Days: g.History, Balance: generatedBalance, Seed: g.Seed}
	if err := past.make(ctx, d.pool, jobs, now, say); err != nil {
		return err
	}
	say("statistics")
	return analyse(ctx, d.url)
}

// newProgress says what is being done, with the seconds since the beginning.
func newProgress(w io.Writer) func(what string) {
	begun := time.Now()
	return func(what string) {
		fmt.Fprintf(w, "%6s  %s\n", time.Since(begun).Round(100*time.Millisecond), what)
	}
}
