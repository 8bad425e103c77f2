package main

import (
	"context"
	"errors"
	"fmt"
	"os/user"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/access/door"
	"zvonok/ledger"
	"zvonok/ledger/pg"
)

type absenceCommands struct {
	List    absenceListCommand    `cmd:"" help:"List the batches that wait for a person."`
	Release absenceReleaseCommand `cmd:"" help:"Release a held batch: the parents of who still has not come, unexplained, are told."`
	Cancel  absenceCancelCommand  `cmd:"" help:"Cancel a held batch: nobody is told."`
	Set     absenceSetCommand     `cmd:"" help:"Set by when the pupils of an organisation must have come, or switch the news off."`
	Rules   absenceRulesCommand   `cmd:"" help:"List the organisations whose parents are told, and by when pupils must have come."`
}

// signed is who does what a command does.
type signed struct {
	By string `help:"Who does it, as the organisation knows them. Default: the user of the system." placeholder:"CODE"`
}

func (s signed) actor() access.Actor {
	if s.By != "" {
		return access.ByStaff(s.By)
	}
	if u, err := user.Current(); err == nil {
		return access.ByStaff("os:" + u.Username)
	}
	return access.ByStaff("os:unknown")
}

// organisationByCode finds an organisation of the register.
func organisationByCode(ctx context.Context, q pg.Querier, code string) (ledger.OrganisationID, error) {
	found, err := ledger.OrganisationsByCode(ctx, q, []string{code})
	if err != nil {
		return 0, err
	}
	id, ok := found[code]
	if !ok {
		return 0, fmt.Errorf("organisation %q is not in the register; give its org_id of organisations.csv", code)
	}
	return id, nil
}

type absenceListCommand struct {
	Org  string `help:"Of this organisation only (org_id of the registry)." placeholder:"ORG"`
	Days int    `help:"List every batch of the last days, decided ones too." placeholder:"N"`
	JSON bool   `name:"json" help:"Print JSON."`
}

func (a *absenceListCommand) Run(ctx context.Context, c *console) error {
	return c.withDatabase(ctx, func(ctx context.Context, d *database) (err error) {
		var organisation ledger.OrganisationID
		if a.Org != "" {
			if organisation, err = organisationByCode(ctx, d.pool, a.Org); err != nil {
				return err
			}
		}
		var batches []door.AbsenceBatch
		if a.Days > 0 {
			batches, err = door.AbsencesSince(ctx, d.pool, organisation, time.Now().UTC().AddDate(0, 0, -a.Days))
		} else {
			batches, err = door.HeldAbsences(ctx, d.pool, organisation)
		}
		if err != nil {
			return err
		}
		if a.JSON {
			return printJSON(c.out, batches)
		}
		rows := make([][]any, 0, len(batches))
		for _, b := range batches {
			rows = append(rows, []any{
				b.ID, b.Code, b.Day.Format(time.DateOnly), b.State, b.Cause, fmt.Sprintf("%d of usually %d", b.Arrived, b.Usual),
				b.Missing, b.MadeAt.Local().Format(moment), b.DecidedBy,
			})
		}
		return table(c.out, []any{"BATCH", "ORGANISATION", "DAY", "STATE", "CAUSE", "ARRIVED", "MISSING", "MADE", "DECIDED BY"}, rows)
	})
}

type absenceReleaseCommand struct {
	signed
	answering
	Batch int64 `arg:"" help:"The batch, as absence list shows it."`
}

func (a *absenceReleaseCommand) Run(ctx context.Context, c *console) error {
	return c.decideAbsence(ctx, a.answering, a.Batch, true, a.actor(), "is released")
}

type absenceCancelCommand struct {
	signed
	answering
	Batch int64 `arg:"" help:"The batch, as absence list shows it."`
}

func (a *absenceCancelCommand) Run(ctx context.Context, c *console) error {
	return c.decideAbsence(ctx, a.answering, a.Batch, false, a.actor(), "is cancelled, nobody is told")
}

func (c *console) decideAbsence(ctx context.Context, answer answering, batch int64, release bool, by access.Actor, done string) error {
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		jobs, err := insertClient(d.pool)
		if err != nil {
			return err
		}
		recorder := door.NewRecorder(jobs)
		err = pgx.BeginFunc(ctx, d.pool, func(tx pgx.Tx) error {
			return recorder.DecideAbsence(ctx, tx, 0, batch, release, by, time.Now())
		})
		if errors.Is(err, door.ErrNotHeld) {
			return fmt.Errorf("batch %d does not wait for a decision; zvonok absence list shows those that do", batch)
		}
		if err != nil {
			return err
		}
		return answer.print(c, map[string]any{"batch": batch, "released": release}, "batch %d %s", batch, done)
	})
}

type absenceSetCommand struct {
	answering
	Org string `arg:"" help:"The organisation (org_id of the registry)."`
	At  string `arg:"" help:"A time such as 09:15, on the organisation's clock; or off."`
}

func (a *absenceSetCommand) Run(ctx context.Context, c *console) error {
	var by *ledger.ClockTime
	if a.At != "off" {
		at, err := parseClock(a.At)
		if err != nil {
			return usageError{err}
		}
		by = &at
	}
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		organisation, err := organisationByCode(ctx, d.pool, a.Org)
		if err != nil {
			return err
		}
		if err := door.SetAbsenceRule(ctx, d.pool, organisation, by); err != nil {
			return err
		}
		value := map[string]any{"organisation": a.Org, "by": a.At}
		if by == nil {
			return a.print(c, value, "%s: nobody is told that a child has not come", a.Org)
		}
		return a.print(c, value, "%s: parents are told of who has not come by %s and has no excuse", a.Org, a.At)
	})
}

type absenceRulesCommand struct {
	JSON bool `name:"json" help:"Print JSON."`
}

func (a *absenceRulesCommand) Run(ctx context.Context, c *console) error {
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		rules, err := door.AbsenceRules(ctx, d.pool)
		if err != nil {
			return err
		}
		type line struct {
			Organisation string `json:"organisation"`
			By           string `json:"by"`
		}
		lines := make([]line, 0, len(rules))
		rows := make([][]any, 0, len(rules))
		for _, r := range rules {
			lines = append(lines, line{r.Code, formatClock(r.By)})
			rows = append(rows, []any{r.Code, formatClock(r.By)})
		}
		if a.JSON {
			return printJSON(c.out, lines)
		}
		return table(c.out, []any{"ORGANISATION", "BY"}, rows)
	})
}

// parseClock reads a time of day such as 09:15.
func parseClock(text string) (ledger.ClockTime, error) {
	at, err := time.Parse("15:04", text)
	if err != nil {
		return 0, fmt.Errorf("%q is not a time of day such as 09:15", text)
	}
	return ledger.ClockTime(time.Duration(at.Hour())*time.Hour + time.Duration(at.Minute())*time.Minute), nil
}

func formatClock(c ledger.ClockTime) string {
	return fmt.Sprintf("%02d:%02d", time.Duration(c)/time.Hour, time.Duration(c)%time.Hour/time.Minute)
}
