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
	Add    applicationAddCommand    `cmd:"" help:"Take an application for informing, with its consents and everybody it gives access to."`
	List   applicationListCommand   `cmd:"" help:"List the electronic applications that wait for a school's decision."`
	Accept applicationAcceptCommand `cmd:"" help:"Accept an electronic application for the school."`
	Refuse applicationRefuseCommand `cmd:"" help:"Refuse an electronic application for the school."`
}

type applicationListCommand struct {
	signed
	Org  string `arg:"" help:"The organisation (org_id of the registry)."`
	JSON bool   `name:"json" help:"Print JSON: the forms in full."`
}

func (a *applicationListCommand) Run(ctx context.Context, c *console) error {
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		organisation, err := organisationByCode(ctx, d.pool, a.Org)
		if err != nil {
			return err
		}
		waiting, err := access.PetitionsFor(ctx, d.pool, organisation, time.Now())
		if err != nil {
			return err
		}
		if a.JSON { // the forms, with names; the table has none
			if err := access.LookAtPetitions(ctx, d.pool, waiting, a.actor(), access.Export, time.Now()); err != nil {
				return err
			}
		}
		shown := make([]parent.PetitionView, len(waiting))
		rows := make([][]any, len(waiting))
		for i, p := range waiting {
			shown[i] = parent.Petition(p)
			rows[i] = []any{p.ID, p.Kind, p.SubmittedAt.Local().Format(moment), p.By, len(p.Form.Children), len(p.Form.Recipients)}
		}
		if a.JSON {
			return printJSON(c.out, shown)
		}
		return table(c.out, []any{"ID", "KIND", "SUBMITTED", "REPRESENTATIVE", "CHILDREN", "COMPANIONS"}, rows)
	})
}

type applicationAcceptCommand struct {
	signed
	ID   access.PetitionID `arg:"" help:"The electronic application, as application list shows it."`
	JSON bool              `name:"json" help:"Print JSON."`
}

func (a *applicationAcceptCommand) Run(ctx context.Context, c *console) error {
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		jobs, err := insertClient(d.pool)
		if err != nil {
			return err
		}
		var taken access.Taken
		err = pgx.BeginFunc(ctx, d.pool, func(tx pgx.Tx) (err error) {
			taken, err = subscription.EnrolPetition(ctx, tx, access.NewDecisions(jobs), 0, a.ID, a.actor(), time.Now())
			return err
		})
		if errors.Is(err, access.ErrNoPetition) {
			return fmt.Errorf("electronic application %d: %w (zvonok application list)", a.ID, err)
		}
		if err != nil {
			return (&applicationAddCommand{File: fmt.Sprintf("electronic application %d", a.ID), JSON: a.JSON}).named(c, err)
		}
		view := parent.Taken(taken)
		if a.JSON {
			return printJSON(c.out, view)
		}
		_, err = fmt.Fprintf(c.out, "application %d: children %d, people given access %d\n", view.ID, view.Children, view.People)
		return err
	})
}

type applicationRefuseCommand struct {
	signed
	answering
	ID     access.PetitionID `arg:"" help:"The electronic application, as application list shows it."`
	Reason string            `required:"" help:"Why; the applicant reads it."`
}

func (a *applicationRefuseCommand) Run(ctx context.Context, c *console) error {
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		jobs, err := insertClient(d.pool)
		if err != nil {
			return err
		}
		err = pgx.BeginFunc(ctx, d.pool, func(tx pgx.Tx) error {
			return access.NewDecisions(jobs).Refuse(ctx, tx, 0, a.ID, a.Reason, a.actor(), time.Now())
		})
		switch {
		case errors.Is(err, access.ErrPetitionReason):
			return usageError{err}
		case errors.Is(err, access.ErrNoPetition):
			return fmt.Errorf("electronic application %d: %w (zvonok application list)", a.ID, err)
		case err != nil:
			return err
		}
		return a.print(c, map[string]any{"id": a.ID, "state": "refused"}, "electronic application %d is refused", a.ID)
	})
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
