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
	"zvonok/gateway/parent"
	"zvonok/gateway/subscription"
)

type applicationCommands struct {
	Add applicationAddCommand `cmd:"" help:"Take an application for informing, with its consents and everybody it gives access to."`
}

type applicationAddCommand struct {
	File string `arg:"" help:"The application as JSON, as POST /api/v1/applications takes it; - for standard input."`
	By   string `default:"console" help:"Who keys it in: the registry's id of a member of staff."`
	JSON bool   `name:"json" help:"Print JSON."`
}

func (a *applicationAddCommand) Run(ctx context.Context, c *console) error {
	form, err := a.read()
	if err != nil {
		return a.named(c, err)
	}
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		var taken access.Taken
		if err := pgx.BeginFunc(ctx, d.pool, func(tx pgx.Tx) error {
			var err error
			taken, err = subscription.Enrol(ctx, tx, form, access.ByStaff(a.By), time.Now())
			return err
		}); err != nil {
			return a.named(c, err)
		}
		view := parent.Taken(taken)
		if a.JSON {
			return printJSON(c.out, view)
		}
		if view.Repeated {
			_, err := fmt.Fprintf(c.out, "application %d has been taken before; nothing was changed\n", view.ID)
			return err
		}
		_, err := fmt.Fprintf(c.out, "application %d: children %d, people given access %d\n", view.ID, view.Children, view.People)
		return err
	})
}

func (a *applicationAddCommand) read() (access.Application, error) {
	var source io.Reader = os.Stdin
	if a.File != "-" {
		file, err := os.Open(a.File)
		if err != nil {
			return access.Application{}, fmt.Errorf("read the application: %w", err)
		}
		defer file.Close()
		source = file
	}
	return access.ParseApplication(source)
}

// named prints everything that is wrong with the form, a line each with its
// field, as who keyed it in wants to read it.
func (a *applicationAddCommand) named(c *console, err error) error {
	var form *access.FormError
	switch {
	case errors.Is(err, access.ErrReference):
		return fmt.Errorf("%s: reference: %w; give this one a number of its own", a.File, err)
	case !errors.As(err, &form):
		return err
	}
	if a.JSON {
		if err := printJSON(c.out, map[string]any{"problems": form.Problems}); err != nil {
			return err
		}
	}
	for _, p := range form.Problems {
		where := a.File
		if p.Path != "" {
			where += ": " + p.Path
		}
		fmt.Fprintf(c.err, "%s: %s\n", where, p.Reason)
	}
	return printedError{err}
}
