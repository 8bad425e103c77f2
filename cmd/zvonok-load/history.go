package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
)

// pastMonths puts passes of everybody into the months that ended before now, as many as asked for: two on each working
// day, but for one day in ten. A city in its second year looks like this to whoever reads it. They are not recorded one
// by one, which would take hours: each month is filled beside the table, which then takes it over and builds its indexes.
func pastMonths(ctx context.Context, database string, months int, now time.Time) error {
	conn, err := pgx.Connect(ctx, database)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, setting := range []string{`SET statement_timeout = 0`, `SET maintenance_work_mem = '1GB'`, `SET timezone = 'UTC'`} {
		if _, err := conn.Exec(ctx, setting); err != nil {
			return fmt.Errorf("fill past months: %w", err)
		}
	}
	begun, total := time.Now(), int64(0)
	for ago := months; ago >= 1; ago-- {
		first := time.Date(now.Year(), now.Month()-time.Month(ago), 1, 0, 0, 0, 0, time.UTC)
		rows, err := pastMonth(ctx, conn, first)
		if err != nil {
			return fmt.Errorf("fill %s: %w", first.Format("2006-01"), err)
		}
		total += rows
		fmt.Fprintf(os.Stderr, "%8s  passes to the end of %s: %d\n",
			time.Since(begun).Round(time.Second), first.Format("January 2006"), total)
	}
	return nil
}

// settle brings a city that was made a moment ago to where a living one is: vacuumed, and on the disk. Otherwise the load
// is measured beside the making of the city, which the database goes on with for minutes.
func settle(ctx context.Context, database string) error {
	conn, err := pgx.Connect(ctx, database)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	begun := time.Now()
	for _, statement := range []string{
		`SET statement_timeout = 0`, `SET maintenance_work_mem = '1GB'`, `VACUUM (ANALYZE)`, `CHECKPOINT`,
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("settle the city: %w", err)
		}
	}
	fmt.Fprintf(os.Stderr, "settled in %s\n", time.Since(begun).Round(time.Second))
	return nil
}

// pastMonth fills the month that begins on first, and answers how many passes that are.
func pastMonth(ctx context.Context, conn *pgx.Conn, first time.Time) (rows int64, err error) {
	name, next := "pass_"+first.Format("2006_01"), first.AddDate(0, 1, 0)
	part := pgx.Identifier{"door", name}.Sanitize()
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		var exists bool
		if err := tx.QueryRow(ctx, `SELECT to_regclass($1) IS NOT NULL`, part).Scan(&exists); err != nil {
			return err
		}
		if !exists {
			if _, err := tx.Exec(ctx, `CREATE TABLE `+part+` (LIKE door.pass INCLUDING ALL EXCLUDING INDEXES)`); err != nil {
				return err
			}
		}
		tag, err := tx.Exec(ctx, `
			INSERT INTO `+part+` (event_id, at, received_at, person_id, organisation_id, building_id, device_id,
			                      direction, kind, merged, suspected, inferred, silent)
			SELECT nextval('ledger.event_id'), t.at, t.at + interval '1 second', p.id, p.organisation_id, b.id, 0,
			       w.way, 1, false, false, false, false
			  FROM generate_series($1::date, $2::date - 1, interval '1 day') AS d (day)
			 CROSS JOIN ledger.person p
			  JOIN (SELECT organisation_id, min(id) AS id FROM ledger.building GROUP BY organisation_id) b
			    ON b.organisation_id = p.organisation_id
			 CROSS JOIN (VALUES (1, time '04:50', 2700), (2, time '10:10', 7200)) AS w (way, from_time, span)
			 CROSS JOIN LATERAL (SELECT hashint8(p.id # (extract(epoch FROM d.day)::bigint + w.way)) AS chance) AS h
			 CROSS JOIN LATERAL (SELECT d.day + w.from_time + make_interval(secs => abs(h.chance::bigint) % w.span) AS at) AS t
			 WHERE p.kind = 'pupil' AND extract(isodow FROM d.day) < 6
			   AND hashint8(p.id # extract(epoch FROM d.day)::bigint) % 10 <> 0`, first, next)
		if err != nil {
			return err
		}
		rows = tag.RowsAffected()
		if exists {
			return nil
		}
		_, err = tx.Exec(ctx, fmt.Sprintf(`ALTER TABLE door.pass ATTACH PARTITION %s FOR VALUES FROM ('%s') TO ('%s')`,
			part, first.Format(time.DateOnly), next.Format(time.DateOnly)))
		return err
	})
	return rows, err
}
