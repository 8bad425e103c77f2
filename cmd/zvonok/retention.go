package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"zvonok/access"
	"zvonok/access/door"
	"zvonok/gateway/push"
	"zvonok/gateway/subscription"
	"zvonok/ledger"
)

type retentionCommands struct {
	Run  retentionRunCommand  `cmd:"" help:"Delete or pseudonymise what is past its time, and write the act of destruction."`
	Acts retentionActsCommand `cmd:"" help:"List the acts of destruction."`
}

// retain destroys what is past its time and writes the act, in one transaction.
// Runs take turns; a second one finds nothing and says so in an act of its own.
func retain(ctx context.Context, tx pgx.Tx, by access.Actor, now time.Time) (access.Destruction, error) {
	if err := retentionTurn(ctx, tx); err != nil {
		return access.Destruction{}, err
	}
	forgotten, err := access.Forget(ctx, tx, now)
	if err != nil {
		return access.Destruction{}, err
	}
	wishes, err := subscription.Forget(ctx, tx)
	if err != nil {
		return access.Destruction{}, err
	}
	browsers, err := push.Forget(ctx, tx)
	if err != nil {
		return access.Destruction{}, err
	}
	names, err := ledger.Pseudonymise(ctx, tx, now)
	if err != nil {
		return access.Destruction{}, err
	}
	passes, others, err := door.Forget(ctx, tx, now)
	if err != nil {
		return access.Destruction{}, err
	}
	return access.RecordDestruction(ctx, tx, map[string]int64{
		"representatives_erased": forgotten.Representatives, "applications_emptied": forgotten.Applications,
		"invitations": forgotten.Invitations, "codes": forgotten.Codes, "cards": forgotten.Cards, "views": forgotten.Views,
		"subscriptions": wishes, "browsers": browsers, "people_pseudonymised": names,
		"passes": passes, "denials_alarms_excuses": others,
	}, by, now)
}

// retentionTurn waits for other runs.
func retentionTurn(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('zvonok retention', 0))`); err != nil {
		return fmt.Errorf("wait for another run of retention: %w", err)
	}
	return nil
}

// retentionPeriod is how often retention runs by itself. The terms of law are 30
// days, what is kept is kept for 29.
const retentionPeriod = 20 * time.Hour

// retainDaily runs retention when the last run is long enough ago, whichever
// process made it.
func retainDaily(ctx context.Context, pool *pgxpool.Pool, log *slog.Logger, now time.Time) error {
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if err := retentionTurn(ctx, tx); err != nil {
			return err
		}
		last, err := access.Destructions(ctx, tx, 1)
		if err != nil || len(last) > 0 && now.Sub(last[0].At) < retentionPeriod {
			return err
		}
		act, err := retain(ctx, tx, access.BySystem("retention"), now)
		if err == nil {
			log.Info("retention has run", "act", act.ID, "destroyed", describeDestroyed(act.Destroyed))
		}
		return err
	})
}

// describeDestroyed writes what an act names, but for what was none.
func describeDestroyed(destroyed map[string]int64) string {
	var parts []string
	for _, what := range slices.Sorted(maps.Keys(destroyed)) {
		if n := destroyed[what]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s: %d", what, n))
		}
	}
	if parts == nil {
		return "nothing was past its time"
	}
	return strings.Join(parts, ", ")
}

type retentionRunCommand struct {
	signed
	JSON bool `name:"json" help:"Print JSON."`
}

func (r *retentionRunCommand) Run(ctx context.Context, c *console) error {
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		var act access.Destruction
		err := pgx.BeginFunc(ctx, d.pool, func(tx pgx.Tx) (err error) {
			act, err = retain(ctx, tx, r.actor(), time.Now())
			return err
		})
		if err != nil {
			return err
		}
		if r.JSON {
			return printJSON(c.out, act)
		}
		_, err = fmt.Fprintf(c.out, "act %d of %s: %s\n", act.ID, act.At.Local().Format(moment), describeDestroyed(act.Destroyed))
		return err
	})
}

type retentionActsCommand struct {
	Limit int  `default:"50" help:"How many, the latest first."`
	JSON  bool `name:"json" help:"Print JSON."`
}

func (r *retentionActsCommand) Run(ctx context.Context, c *console) error {
	if r.Limit < 1 {
		return usageError{errors.New("--limit: want a positive number")}
	}
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		acts, err := access.Destructions(ctx, d.pool, r.Limit)
		if err != nil {
			return err
		}
		if r.JSON {
			return printJSON(c.out, append([]access.Destruction{}, acts...))
		}
		rows := make([][]any, 0, len(acts))
		for _, a := range acts {
			rows = append(rows, []any{a.ID, a.At.Local().Format(moment), a.By, describeDestroyed(a.Destroyed)})
		}
		return table(c.out, []any{"ACT", "AT", "BY", "DESTROYED"}, rows)
	})
}
