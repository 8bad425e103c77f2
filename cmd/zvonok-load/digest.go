package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"zvonok/ledger/pg"
	"zvonok/templates"
)

// prepareDigests makes the day's digest of everybody due: each recipient of
// passes by SMS wants one, each child has been in and out today, and no digest
// of today has been made. The gateway finds it within a minute.
func prepareDigests(ctx context.Context, url string) error {
	pool, err := pg.Open(ctx, pg.Config{URL: url, AppName: "zvonok-load"}) // not in the application's role: it changes the register
	if err != nil {
		return err
	}
	defer pool.Close()
	for _, step := range []struct{ what, sql string }{
		{"forget the digests of today", `DELETE FROM notice.digest WHERE day >= current_date - 1`},
		{"forget the digests of today", `DELETE FROM notice.digest_run`},
		{"subscribe everybody to the day's digest", `
			INSERT INTO subscription.subscription (child_id, topic, mode, representative_id, channel)
			SELECT child_id, topic, 'day', representative_id, channel FROM subscription.subscription
			WHERE topic = 'pass' AND mode = 'now' AND channel = 'sms' ON CONFLICT DO NOTHING`},
		{"let every child pass in and out", `
			INSERT INTO door.pass (event_id, at, received_at, person_id, organisation_id, building_id, device_id, direction,
				kind, merged, suspected, inferred, silent)
			SELECT nextval('ledger.event_id'), m.at, m.at, p.id, p.organisation_id, b.id, 0, m.direction,
				1, false, false, false, false
			FROM ledger.person AS p
			JOIN ledger.organisation AS o ON o.id = p.organisation_id
			CROSS JOIN LATERAL (SELECT min(id) AS id FROM ledger.building WHERE organisation_id = o.id) AS b
			CROSS JOIN LATERAL (VALUES
				(date_trunc('day', now() AT TIME ZONE o.time_zone) AT TIME ZONE o.time_zone + interval '1 minute', 1),
				(date_trunc('day', now() AT TIME ZONE o.time_zone) AT TIME ZONE o.time_zone + interval '2 minutes', 2)
			) AS m (at, direction)
			WHERE p.kind = 'pupil' AND NOT EXISTS (
				SELECT FROM door.pass AS had WHERE had.person_id = p.id AND had.at = m.at)`},
		{"learn what the tables hold", `ANALYZE subscription.subscription`},
		{"learn what the tables hold", `ANALYZE door.pass`},
		{"make the digest due", `
			UPDATE ledger.organisation
			SET digest_at = (now() AT TIME ZONE time_zone)::time - interval '1 second', quiet_from = '00:00', quiet_until = '00:00'`},
	} {
		if _, err := pool.Exec(ctx, "SET statement_timeout = '10min'; "+step.sql); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	fmt.Fprintln(os.Stderr, "the day's digest of everybody is due")
	return nil
}

// awaitDigests waits until the gateway has begun to make the digest.
func awaitDigests(ctx context.Context, pool *pgxpool.Pool) error {
	var begun bool
	var err error
	if !waitFor(3*time.Minute, func() bool {
		err = pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM notice.digest)`).Scan(&begun)
		return err != nil || begun
	}) {
		return fmt.Errorf("the gateway does not begin the digest")
	}
	return err
}

// digestFigures waits until the digest is made and says how long it took.
func digestFigures(ctx context.Context, pool *pgxpool.Pool, f *figures) error {
	const patience = time.Hour
	var finished bool
	var err error
	if !waitFor(patience, func() bool {
		err = pool.QueryRow(ctx, `SELECT bool_and(finished_at IS NOT NULL) FROM notice.digest_run`).Scan(&finished)
		return err != nil || finished
	}) {
		return fmt.Errorf("the digest is not made after %s", patience)
	}
	if err != nil {
		return fmt.Errorf("wait for the digest: %w", err)
	}
	if err := pool.QueryRow(ctx, `
		SELECT count(*) FILTER (WHERE verdict = 'told'), extract(epoch FROM max(made_at) - min(made_at))
		FROM notice.digest`).Scan(&f.Digests, &f.DigestSeconds); err != nil {
		return fmt.Errorf("count the digests: %w", err)
	}
	return nil
}

// entryWords are how the SMS of an entry begins, in each language and alphabet;
// those of a digest begin with a name.
func entryWords() []string {
	var words []string
	for _, style := range templates.Styles(nil) {
		text := templates.Pass{Children: []templates.Name{{Given: "X", Family: "Y"}}, In: true}.SMS(style)
		word, _, _ := strings.Cut(text, " ")
		words = append(words, word+" ")
	}
	return words
}
