package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"zvonok/gateway/notice"
	"zvonok/ledger"
	"zvonok/ledger/meal"
	"zvonok/ledger/topup"
)

// every runs work at once and then again and again until ctx ends.
func every(ctx context.Context, period time.Duration, log *slog.Logger, what string, work func(context.Context) error) {
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for {
		if err := work(ctx); err != nil && ctx.Err() == nil {
			log.Warn(what, "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// nightHour is when the books are closed: late enough for the last upload of a
// day, early enough to be done before the first child.
const (
	nightHour  = 3
	nightRetry = 10 * time.Minute
)

// nightly runs work each night at nightHour in the zone until ctx ends. What
// fails is tried again; a night that was missed is made good by the next one.
func nightly(ctx context.Context, now func() time.Time, zone *time.Location, log *slog.Logger, work func(context.Context) error) {
	for {
		t := now().In(zone)
		next := time.Date(t.Year(), t.Month(), t.Day(), nightHour, 0, 0, 0, zone)
		if !next.After(t) {
			next = next.AddDate(0, 0, 1)
		}
		wait := next.Sub(t)
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
			err := work(ctx)
			if err == nil || ctx.Err() != nil {
				break
			}
			log.Error("close the books for the night", "error", err)
			wait = nightRetry
		}
	}
}

// closeBooks is what the books need each night: orders that will not be served
// are cancelled, the days that are over are closed and sealed, and everything
// is verified. In a fleet whoever comes second finds little to do: the books are
// verified by one, and the metrics of all tell when.
func closeBooks(
	ctx context.Context, pool *pgxpool.Pool, book *ledger.Book, canteen *meal.Canteen, now time.Time, log *slog.Logger,
) error {
	today := now.In(book.Zone)
	yesterday := time.Date(today.Year(), today.Month(), today.Day()-1, 0, 0, 0, 0, time.UTC)
	days, err := ledger.CloseDays(ctx, pool, yesterday, "zvonok")
	if errors.Is(err, ledger.ErrClosing) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, day := range days {
		log.Info("accounting day closed", "day", day.Day.Format(time.DateOnly), "postings", day.Postings, "late", day.Late)
	}
	if err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := canteen.LapseOrders(ctx, tx, yesterday.AddDate(0, 0, 1)); err != nil {
			return err
		}
		return canteen.ForgetWaiting(ctx, tx, yesterday)
	}); err != nil {
		return err
	}
	report, done, err := ledger.VerifyOnce(ctx, pool, bookChecks()...)
	if err != nil {
		return err
	}
	if done {
		log.Info("the books are verified", "postings", report.Postings, "violations", len(report.Violations))
	}
	for _, v := range report.Violations {
		log.Error("the books are wrong: run zvonok ledger verify", "violation", v.String())
	}
	return nil
}

// bookChecks are the invariants of the books that are about tables of other packages.
func bookChecks() []ledger.Check { return slices.Concat(topup.Checks(), notice.Checks()) }

// Periods of what runs beside.
const (
	sweepInterval   = 5 * time.Second
	linksInterval   = time.Second
	foldInterval    = 5 * time.Second
	openInterval    = time.Minute
	digestInterval  = time.Minute
	absenceInterval = time.Minute
	dropInterval    = 5 * time.Second

	retentionInterval = time.Hour // how often is asked whether the day's run is due
	monthsInterval    = 12 * time.Hour
)
