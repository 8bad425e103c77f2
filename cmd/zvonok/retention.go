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
	"zvonok/access/reader"
	"zvonok/gateway/delivery"
	"zvonok/gateway/push"
	"zvonok/gateway/subscription"
	"zvonok/ledger"
)

type retentionCommands struct {
	Run  retentionRunCommand  `cmd:"" help:"Delete or pseudonymise what is past its time, and write the act of destruction."`
	Acts retentionActsCommand `cmd:"" help:"List the acts of destruction."`
}

// retention is one run: it destroys what is past its time and writes the act.
// Runs take turns; a second one finds nothing and says so in an act of its own.
// Automatic runs begin with [retentionPeriod] between them, and when none is due
// the act is zero.
type retention struct {
	pool      *pgxpool.Pool
	by        access.Actor
	automatic bool
	now       time.Time
}

func (r retention) run(ctx context.Context) (act access.Destruction, err error) {
	conn, err := r.pool.Acquire(ctx)
	if err != nil {
		return act, fmt.Errorf("begin a run of retention: %w", err)
	}
	defer conn.Release()
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock(`+retentionLock+`)`); err != nil {
		return act, fmt.Errorf("wait for another run of retention: %w", err)
	}
	defer func() {
		// A connection that cannot be asked any more has given the lock back, or is closed and does.
		if _, unlock := conn.Exec(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock(`+retentionLock+`)`); unlock != nil {
			err = errors.Join(err, conn.Hijack().Close(context.WithoutCancel(ctx)))
		}
	}()
	if r.automatic {
		last, err := access.Destructions(ctx, r.pool, 1)
		if err != nil || len(last) > 0 && r.now.Sub(last[0].At) < retentionPeriod {
			return act, err
		}
	}
	if err := pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) error { return r.people(ctx, tx) }); err != nil {
		return act, err
	}
	if err := delivery.EraseSecrets(ctx, r.pool, r.now); err != nil {
		return act, err
	}
	if err := delivery.EraseTexts(ctx, r.pool, r.now, !r.automatic); err != nil {
		return act, err
	}
	if err := delivery.EraseAddresses(ctx, r.pool, r.now); err != nil {
		return act, err
	}
	if err := reader.EraseBodies(ctx, r.pool, r.now); err != nil {
		return act, err
	}
	err = pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) error {
		act, err = access.RecordDestruction(ctx, tx, r.by, r.now)
		return err
	})
	return act, err
}

// people destroys what is known of those nobody needs any more, what they wished,
// and what is past its time at the doors.
func (r retention) people(ctx context.Context, tx pgx.Tx) error {
	forgotten, err := access.Forget(ctx, tx, r.now)
	if err != nil {
		return err
	}
	wishes, err := subscription.Forget(ctx, tx)
	if err != nil {
		return err
	}
	browsers, err := push.Forget(ctx, tx)
	if err != nil {
		return err
	}
	names, err := ledger.Pseudonymise(ctx, tx, r.now)
	if err != nil {
		return err
	}
	passes, others, err := door.Forget(ctx, tx, r.now)
	if err != nil {
		return err
	}
	return access.NoteDestroyed(ctx, tx, map[string]int64{
		"representatives_erased": forgotten.Representatives, "applications_emptied": forgotten.Applications,
		"petitions_emptied": forgotten.Petitions, "invitations": forgotten.Invitations, "codes": forgotten.Codes, "cards": forgotten.Cards, "views": forgotten.Views,
		"subscriptions": wishes, "browsers": browsers, "people_pseudonymised": names,
		"passes": passes, "denials_alarms_excuses": others,
	})
}

const retentionLock = `hashtextextended('zvonok retention', 0)`

// retentionPeriod is how often retention runs by itself. The terms of law are 30
// days, what is kept is kept for 29.
const retentionPeriod = 20 * time.Hour

// retainDaily runs retention when the last run is long enough ago, whichever
// process made it.
func retainDaily(ctx context.Context, pool *pgxpool.Pool, log *slog.Logger, now time.Time) error {
	act, err := retention{pool: pool, by: access.BySystem("retention"), automatic: true, now: now}.run(ctx)
	if err == nil && act.ID != 0 {
		log.Info("retention has run", "act", act.ID, "destroyed", describeDestroyed(act.Destroyed))
	}
	return err
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
		act, err := retention{pool: d.pool, by: r.actor(), now: time.Now()}.run(ctx)
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
