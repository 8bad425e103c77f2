package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"

	"zvonok/gateway/delivery"
	"zvonok/gateway/lease"
)

// Limits of the watch over processes.
const (
	rescueInterval = 3 * time.Second // how often dead processes are looked for
	rescueTimeout  = 30 * time.Second
)

// processName is unlike that of any other process, past or present.
func processName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	var random [6]byte
	rand.Read(random[:]) // never fails (crypto/rand)
	return fmt.Sprintf("zvonok-%.40s-%d-%s", host, os.Getpid(), hex.EncodeToString(random[:]))
}

// rescuer gives back what dead processes left running.
type rescuer struct {
	pool  *pgxpool.Pool
	river *river.Client[pgx.Tx]
	log   *slog.Logger
	name  string // this process
	now   func() time.Time
}

// run looks for dead processes until ctx ends.
func (r *rescuer) run(ctx context.Context) {
	ticker := time.NewTicker(rescueInterval)
	defer ticker.Stop()
	for {
		if err := r.look(ctx); err != nil && ctx.Err() == nil {
			r.log.Warn("look for dead processes", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// look takes over from every process that has running jobs and no lock.
func (r *rescuer) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, rescueTimeout)
	defer cancel()
	rows, err := r.pool.Query(ctx, `
		SELECT DISTINCT attempted_by[array_upper(attempted_by, 1)] FROM river.river_job
		WHERE state = 'running' AND attempted_by[array_upper(attempted_by, 1)] <> $1`, r.name)
	if err != nil {
		return fmt.Errorf("list running jobs: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("list running jobs: %w", err)
	}
	for _, name := range names {
		err := pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) error {
			dead, err := lease.Dead(ctx, tx, name)
			if err != nil || !dead {
				return err
			}
			unknown, err := delivery.TakeOver(ctx, tx, r.river, name, r.now())
			if err != nil {
				return err
			}
			r.log.Warn("took over from a dead process", "process", name, "unknown_outcomes", unknown)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
