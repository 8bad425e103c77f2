package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"

	"zvonok/gateway/delivery"
)

// Limits of the watch over processes.
const (
	presenceRetry  = time.Second     // how soon a lost lock is taken again
	rescueInterval = 3 * time.Second // how often dead processes are looked for
	rescueTimeout  = 30 * time.Second
)

// presence shows the other processes on the database that this one lives: a
// session advisory lock under its name, held by a connection of its own. The
// lock ends with the process, whatever ends it, and nothing has to be written
// or cleaned up.
type presence struct {
	name string
	url  string
	log  *slog.Logger

	stop context.CancelFunc
	done sync.WaitGroup
}

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

// presenceKey is the lock of a process's name, in SQL.
const presenceKey = `hashtextextended('zvonok process ' || $1, 0)`

// announce takes the lock and keeps it until [presence.withdraw].
func announce(ctx context.Context, name, url string, log *slog.Logger) (*presence, error) {
	p := &presence{name: name, url: url, log: log}
	conn, err := p.lock(ctx)
	if err != nil {
		return nil, err
	}
	background, stop := context.WithCancel(context.Background())
	p.stop = stop
	p.done.Go(func() { p.keep(background, conn) })
	return p, nil
}

func (p *presence) lock(ctx context.Context) (*pgx.Conn, error) {
	conn, err := pgx.Connect(ctx, p.url)
	if err != nil {
		return nil, fmt.Errorf("announce the process: %w", err)
	}
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock(`+presenceKey+`)`, p.name); err != nil {
		conn.Close(ctx)
		return nil, fmt.Errorf("announce the process: %w", err)
	}
	return conn, nil
}

// keep waits on the connection; when the database goes away it locks again as
// soon as it is back, before anybody looks for the dead.
func (p *presence) keep(ctx context.Context, conn *pgx.Conn) {
	for ctx.Err() == nil {
		// Nothing is ever notified: this returns when the connection breaks.
		_, err := conn.WaitForNotification(ctx)
		if err == nil {
			continue
		}
		conn.Close(context.Background())
		for ctx.Err() == nil {
			if conn, err = p.lock(ctx); err == nil {
				break
			}
			select {
			case <-ctx.Done():
			case <-time.After(presenceRetry):
			}
		}
	}
	if conn != nil {
		conn.Close(context.Background())
	}
}

func (p *presence) withdraw() {
	p.stop()
	p.done.Wait()
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
			var dead bool
			if err := tx.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock(`+presenceKey+`)`, name).Scan(&dead); err != nil {
				return fmt.Errorf("ask after %s: %w", name, err)
			}
			if !dead {
				return nil
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
