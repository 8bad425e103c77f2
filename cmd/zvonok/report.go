package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"zvonok/ledger"
	"zvonok/ledger/meal"
	"zvonok/ledger/pg"
)

type reportCommands struct {
	Turnover turnoverCommand `cmd:"" help:"What a provider sold, per accounting day and organisation: a closed day's never changes."`
	Orders   ordersCommand   `cmd:"" help:"The daily order sheet: what is ordered of a provider's kitchens for a day."`
	Moves    movesCommand    `cmd:"" help:"Accounts that changed school or provider, with the balance that went along."`
}

// output is how a report is written.
type output struct {
	Format string `enum:"table,csv,xlsx,json" default:"table" help:"One of ${enum}."`
	JSON   bool   `name:"json" help:"The same as --format json."`
	Out    string `help:"Write to this file instead of the terminal." type:"path" placeholder:"FILE"`
}

// write writes a report; lines is what JSON shows.
func (o *output) write(c *console, sheet meal.Sheet, lines any) (err error) {
	var w io.Writer = c.out
	if o.Out != "" {
		file, err := os.OpenFile(o.Out, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		defer func() {
			if closed := file.Close(); err == nil {
				err = closed
			}
		}()
		w = file
	}
	switch {
	case o.JSON || o.Format == "json":
		return printJSON(w, lines)
	case o.Format == "csv":
		return sheet.WriteCSV(w)
	case o.Format == "xlsx":
		if o.Out == "" {
			return usageError{fmt.Errorf("a spreadsheet needs --out FILE")}
		}
		return sheet.WriteXLSX(w)
	}
	header := make([]any, len(sheet.Header))
	for i, name := range sheet.Header {
		header[i] = name
	}
	rows := make([][]any, len(sheet.Rows))
	for i, row := range sheet.Rows {
		for _, cell := range row {
			rows[i] = append(rows[i], sheet.Text(cell))
		}
	}
	return table(w, header, rows)
}

// period reads the first and the last day of a report.
func period(from, to string) (first, last time.Time, err error) {
	if first, err = parseDay("--from", from); err != nil {
		return first, last, err
	}
	if to == "" {
		return first, first, nil
	}
	if last, err = parseDay("--to", to); err == nil && last.Before(first) {
		err = usageError{fmt.Errorf("--to: %s is before --from %s", to, from)}
	}
	return first, last, err
}

// knownPayee refuses a provider that is not in the register: an empty report
// would say that nothing is owed. The empty name is that of organisations
// whose provider the register does not say.
func knownPayee(ctx context.Context, q pg.Querier, code string) error {
	payees, err := ledger.Payees(ctx, q)
	if err != nil {
		return err
	}
	if _, known := payees[ledger.PayeeCode(code)]; !known && code != "" {
		return fmt.Errorf("there is no provider %q in the register: --payee wants a payee_id of payees.csv", code)
	}
	return nil
}

type turnoverCommand struct {
	Payee  string `required:"" help:"The provider: payee_id of the registry."`
	From   string `required:"" help:"The first accounting day, as in 2026-11-01."`
	To     string `help:"The last one; without it only the first."`
	output `embed:""`
}

func (t *turnoverCommand) Run(ctx context.Context, c *console) error {
	from, to, err := period(t.From, t.To)
	if err != nil {
		return err
	}
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		if err := knownPayee(ctx, d.pool, t.Payee); err != nil {
			return err
		}
		lines, err := meal.Turnover(ctx, d.pool, ledger.PayeeCode(t.Payee), from, to)
		if err != nil {
			return err
		}
		return t.write(c, meal.TurnoverSheet(lines), lines)
	})
}

type ordersCommand struct {
	Payee  string `required:"" help:"The provider: payee_id of the registry."`
	Day    string `required:"" help:"The day the meals are for, as in 2026-11-25."`
	output `embed:""`
}

func (o *ordersCommand) Run(ctx context.Context, c *console) error {
	day, err := parseDay("--day", o.Day)
	if err != nil {
		return err
	}
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		if err := knownPayee(ctx, d.pool, o.Payee); err != nil {
			return err
		}
		lines, err := meal.OrderSheet(ctx, d.pool, ledger.PayeeCode(o.Payee), day)
		if err != nil {
			return err
		}
		return o.write(c, meal.OrdersSheet(day, lines), lines)
	})
}

type movesCommand struct {
	From   string `required:"" help:"The first day, as in 2026-11-01."`
	To     string `help:"The last one; without it only the first."`
	output `embed:""`
}

func (m *movesCommand) Run(ctx context.Context, c *console) error {
	from, to, err := period(m.From, m.To)
	if err != nil {
		return err
	}
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		zone := ledger.NewBook(nil).Zone
		midnight := func(day time.Time) time.Time { return time.Date(day.Year(), day.Month(), day.Day(), 0, 0, 0, 0, zone) }
		moves, err := ledger.Moves(ctx, d.pool, midnight(from), midnight(to.AddDate(0, 0, 1)))
		if err != nil {
			return err
		}
		for i := range moves {
			moves[i].At = moves[i].At.In(zone) // the days asked for are the zone's
		}
		return m.write(c, meal.MovesSheet(moves), moves)
	})
}
