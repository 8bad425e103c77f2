package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"text/tabwriter"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"zvonok/ledger/pg"
)

// database is an open database for the time of a command.
type database struct {
	url  string
	pool *pgxpool.Pool
	stop func()
}

// openDatabase opens the database of the settings for a command beside the
// gateway: that of database.url, or the private PostgreSQL, which it uses when
// it runs and otherwise starts for its own time.
func openDatabase(ctx context.Context, config Config, log *slog.Logger) (*database, error) {
	d := &database{}
	stop, err := reach(ctx, config, log, func(url string) (err error) {
		d.url = url
		if _, err := pg.Migrate(ctx, url); err != nil {
			return err
		}
		d.pool, err = pg.Open(ctx, pg.Config{URL: url, AppName: "zvonok command", Role: pg.AppRole})
		return err
	})
	if err != nil {
		return nil, err
	}
	d.stop = stop
	return d, nil
}

// reach gives the database of the settings to use, and returns how it is left
// again. When the gateway whose private PostgreSQL it was stops or is killed at
// that very moment, the database is reached once more: it waits for the end and
// starts it itself.
func reach(ctx context.Context, config Config, log *slog.Logger, use func(url string) error) (stop func(), err error) {
	if config.Database.URL != "" {
		return func() {}, use(config.Database.URL)
	}
	dir, err := config.dataDir()
	if err != nil {
		return nil, err
	}
	for {
		cluster, err := pg.JoinCluster(ctx, pg.ClusterConfig{DataDir: dir, Log: log})
		if err != nil {
			return nil, err
		}
		stop := func() {
			if err := cluster.Stop(context.WithoutCancel(ctx)); err != nil {
				log.Warn("stop the private PostgreSQL", "error", err)
			}
		}
		if err = use(cluster.URL()); err == nil {
			return stop, nil
		}
		_, answers := pg.Attach(dir)
		stop()
		if answers || !cluster.Joined() || ctx.Err() != nil {
			return nil, err
		}
	}
}

func (d *database) close() {
	d.pool.Close()
	d.stop()
}

// withDatabase runs a command's work on the database of the settings.
func (c *console) withDatabase(ctx context.Context, work func(ctx context.Context, d *database) error) error {
	config, err := c.settings()
	if err != nil {
		return err
	}
	// A command prints its own result; of the database only trouble is said.
	quiet := config.Log
	if quiet.Level == "info" {
		quiet.Level = "warn"
	}
	d, err := openDatabase(ctx, config, c.logger(quiet))
	if err != nil {
		return err
	}
	defer d.close()
	return work(ctx, d)
}

// insertClient is a River client that only inserts jobs.
func insertClient(pool *pgxpool.Pool) (*river.Client[pgx.Tx], error) {
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Schema: pg.RiverSchema})
	if err != nil {
		return nil, fmt.Errorf("open the job queue: %w", err)
	}
	return client, nil
}

// printJSON writes a value as indented JSON.
func printJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

// table writes aligned columns.
func table(w io.Writer, header []any, rows [][]any) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for _, row := range append([][]any{header}, rows...) {
		for i, cell := range row {
			if i > 0 {
				fmt.Fprint(t, "\t")
			}
			fmt.Fprint(t, cell)
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}
