package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"zvonok/access/phone"
	"zvonok/gateway/carrier"
	"zvonok/gateway/delivery"
	"zvonok/gateway/routing"
)

type operatorReplayCommand struct {
	Name   string `arg:"" help:"The operator's name; also that of one which is not in the settings any more."`
	Since  string `help:"Only messages made since then, as in 2026-11-22T08:15:00+03:00; default: the last 24 hours."`
	DryRun bool   `help:"Only count."`
	JSON   bool   `name:"json" help:"Print JSON."`
}

func (o *operatorReplayCommand) Run(ctx context.Context, c *console) error {
	replay := delivery.Replay{Operator: o.Name, DryRun: o.DryRun}
	if o.Since != "" {
		var err error
		if replay.Since, err = time.Parse(time.RFC3339, o.Since); err != nil {
			return usageError{fmt.Errorf("--since: %q is not a time such as 2026-11-22T08:15:00+03:00", o.Since)}
		}
	}
	config, err := c.settings()
	if err != nil {
		return err
	}
	var names []string
	for _, operator := range config.Operators {
		names = append(names, operator.Name)
	}
	replay.Progress = func(done, of int) { fmt.Fprintf(c.err, "%d of %d messages\n", done, of) }
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		route, err := routes(ctx, config, d)
		if err != nil {
			return err
		}
		jobs, err := insertClient(d.pool)
		if err != nil {
			return err
		}
		report, err := delivery.NewDesk(jobs, route).Replay(ctx, d.pool, replay, time.Now())
		switch {
		case errors.Is(err, delivery.ErrNothingOfOperator) && !slices.Contains(names, o.Name):
			return fmt.Errorf("the settings have no operator %q (they have %s), and no message since %s was for one of that name",
				o.Name, strings.Join(names, ", "), report.Since.Local().Format(moment))
		case errors.Is(err, delivery.ErrNothingOfOperator): // nothing to do, and nothing wrong
		case err != nil && report.Failed+report.Stuck > 0:
			return fmt.Errorf("%w; %d messages are under way, the command can be given again", err, report.Failed+report.Stuck)
		case err != nil:
			return err
		}
		if o.JSON {
			return printJSON(c.out, report)
		}
		return printReplay(c.out, o.Name, report)
	})
}

// routes are the routes of the settings, with what was learned of numbers, for a
// command that has no links.
func routes(ctx context.Context, config Config, d *database) (func(phone.Number) []string, error) {
	operators, err := operatorConfigs(config.Operators)
	if err != nil {
		return nil, err
	}
	exchange, err := carrier.New(carrier.Config{Operators: operators})
	if err != nil {
		return nil, err
	}
	memory := routing.New(routing.Config{Pool: d.pool, Exchange: exchange, Log: slog.New(slog.DiscardHandler), Now: time.Now})
	if err := memory.Sync(ctx); err != nil {
		return nil, err
	}
	return exchange.Route, nil
}

// leftOutWords say why messages are left alone.
var leftOutWords = map[delivery.LeftOut]string{
	delivery.LeftUnderWay:  "under way: a process works on them",
	delivery.LeftWaiting:   "wait their turn, or for their time",
	delivery.LeftUnknown:   "outcome unknown: they may have arrived",
	delivery.LeftPartly:    "parts of them have arrived, or may have",
	delivery.LeftRecalled:  "recalled, or their reader may not know of the child any more",
	delivery.LeftReplayed:  "replayed before: once is all",
	delivery.LeftTooOld:    "too old: no news any more",
	delivery.LeftOtherWay:  "went by the recipient's next channel",
	delivery.LeftOptedOut:  "the phone's owner has refused messages",
	delivery.LeftDead:      "the phone is dead: refused for good too often",
	delivery.LeftInDoubt:   "the phone may be in other hands and waits to be confirmed",
	delivery.LeftNewNumber: "the recipient has another phone now, or is gone",
	delivery.LeftQuiet:     "quiet hours last longer than their life",
	delivery.LeftNoRoute:   "no operator takes the number",
}

func printReplay(w io.Writer, operator string, r delivery.ReplayReport) error {
	what := "put to their route again"
	if r.DryRun {
		what = "would be put to their route again"
	}
	fmt.Fprintf(w, "operator %s, messages since %s: %d that had failed and %d that were stuck %s\n",
		operator, r.Since.Local().Format(moment), r.Failed, r.Stuck, what)
	if len(r.LeftOut) == 0 {
		return nil
	}
	fmt.Fprintln(w, "\nLeft alone:")
	var rows [][]any
	for _, reason := range slices.Sorted(maps.Keys(r.LeftOut)) {
		rows = append(rows, []any{r.LeftOut[reason], leftOutWords[reason]})
	}
	return table(w, []any{"MESSAGES", "WHY"}, rows)
}
