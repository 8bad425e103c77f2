package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"zvonok/ledger"
	"zvonok/ledger/money"
	"zvonok/ledger/pg"
)

type organisationCommands struct {
	Show organisationShowCommand `cmd:"" help:"Show the rules of an organisation."`
	Set  organisationSetCommand  `cmd:"" help:"Change rules of an organisation; what is not named stays."`
}

type organisationShowCommand struct {
	Org  string `arg:"" help:"The organisation (org_id of the registry)."`
	JSON bool   `name:"json" help:"Print JSON."`
}

func (o *organisationShowCommand) Run(ctx context.Context, c *console) error {
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		id, err := organisationByCode(ctx, d.pool, o.Org)
		if err != nil {
			return err
		}
		return printRules(ctx, c, d.pool, id, o.JSON)
	})
}

type organisationSetCommand struct {
	Org          string         `arg:"" help:"The organisation (org_id of the registry)."`
	DebtFloor    *string        `help:"How deep a hot meal may take a wallet, such as --debt-floor=-300.00." placeholder:"ROUBLES"`
	PassLife     *time.Duration `help:"How long a passage is news." placeholder:"15m"`
	SamePass     *time.Duration `help:"Within what time the same card and direction is one passage." placeholder:"60s"`
	CloseAt      *string        `help:"When a day's visits are closed." placeholder:"22:00"`
	Quiet        *string        `help:"The quiet hours, or none." placeholder:"21:00-08:00"`
	DigestAt     *string        `help:"When digests are made." placeholder:"19:00"`
	MergeWait    *time.Duration `help:"How long a message to a phone of several children waits for a sibling, at most 90s." placeholder:"0s"`
	LeaveWait    *time.Duration `help:"How long \"left\" waits for an entry to a sister building, at most 15m." placeholder:"0s"`
	CompanionAge *int           `help:"The youngest companion who may collect a child, in years." placeholder:"18"`
	JSON         bool           `name:"json" help:"Print JSON."`
}

func (o *organisationSetCommand) Run(ctx context.Context, c *console) error {
	change, err := o.change()
	if err != nil {
		return usageError{err}
	}
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		id, err := organisationByCode(ctx, d.pool, o.Org)
		if err != nil {
			return err
		}
		err = ledger.ChangeRules(ctx, d.pool, id, change)
		if errors.Is(err, ledger.ErrBadRule) {
			return usageError{err}
		}
		if err != nil {
			return err
		}
		return printRules(ctx, c, d.pool, id, o.JSON)
	})
}

// change reads the flags.
func (o *organisationSetCommand) change() (ledger.RuleChange, error) {
	change := ledger.RuleChange{
		PassLife: o.PassLife, SamePass: o.SamePass, MergeWait: o.MergeWait, LeaveWait: o.LeaveWait, CompanionAge: o.CompanionAge,
	}
	if o.DebtFloor != nil {
		floor, err := money.Parse(*o.DebtFloor)
		if err != nil {
			return change, fmt.Errorf("--debt-floor %q: %w", *o.DebtFloor, err)
		}
		change.DebtFloor = &floor
	}
	clock := func(flag, text string, into **ledger.ClockTime) error {
		at, err := parseClock(text)
		if err != nil {
			return fmt.Errorf("--%s: %w", flag, err)
		}
		*into = &at
		return nil
	}
	if o.CloseAt != nil {
		if err := clock("close-at", *o.CloseAt, &change.CloseAt); err != nil {
			return change, err
		}
	}
	if o.DigestAt != nil {
		if err := clock("digest-at", *o.DigestAt, &change.DigestAt); err != nil {
			return change, err
		}
	}
	if o.Quiet == nil {
		return change, nil
	}
	from, until := "00:00", "00:00" // equal times: none
	if *o.Quiet != "none" {
		var both bool
		if from, until, both = strings.Cut(*o.Quiet, "-"); !both {
			return change, fmt.Errorf("--quiet %q is neither two times such as 21:00-08:00 nor none", *o.Quiet)
		}
	}
	if err := clock("quiet", from, &change.QuietFrom); err != nil {
		return change, err
	}
	return change, clock("quiet", until, &change.QuietUntil)
}

// printRules shows the rules of an organisation under the names of the flags that change them.
func printRules(ctx context.Context, c *console, q pg.Querier, id ledger.OrganisationID, asJSON bool) error {
	found, err := ledger.Organisations(ctx, q, []ledger.OrganisationID{id})
	if err != nil {
		return err
	}
	o := found[id]
	quiet := "none"
	if o.QuietFrom != o.QuietUntil {
		quiet = formatClock(o.QuietFrom) + "-" + formatClock(o.QuietUntil)
	}
	rules := []struct {
		name  string
		value any
	}{
		{"debt-floor", o.DebtFloor.String()},
		{"pass-life", o.PassLife.String()},
		{"same-pass", o.SamePass.String()},
		{"close-at", formatClock(o.CloseAt)},
		{"quiet", quiet},
		{"digest-at", formatClock(o.DigestAt)},
		{"merge-wait", o.MergeWait.String()},
		{"leave-wait", o.LeaveWait.String()},
		{"companion-age", o.CompanionAge},
	}
	if asJSON {
		value := map[string]any{"organisation": o.Code}
		for _, rule := range rules {
			value[strings.ReplaceAll(rule.name, "-", "_")] = rule.value
		}
		return printJSON(c.out, value)
	}
	rows := make([][]any, len(rules))
	for i, rule := range rules {
		rows[i] = []any{rule.name, rule.value}
	}
	return table(c.out, []any{"RULE", o.Code}, rows)
}
