package door_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"zvonok/access/door"
	"zvonok/ledger"
	"zvonok/ledger/pg"
	"zvonok/ledger/pg/pgtest"
)

var moscow = time.FixedZone("MSK", 3*60*60)

// monday is a school day.
var monday = time.Date(2026, 11, 23, 0, 0, 0, 0, moscow)

// clock returns a time of that Monday.
func clock(hour, minute, second int) time.Time {
	return monday.Add(time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute + time.Duration(second)*time.Second)
}

// town is a database with organisations and people, and a recorder.
type town struct {
	pool     *pgxpool.Pool
	url      string // of the owner
	recorder *door.Recorder
	serial   int
}

func newTown(t testing.TB) *town {
	t.Helper()
	url := pgtest.NewURL(t)
	pool, err := pg.Open(t.Context(), pg.Config{URL: url, MaxConns: 12, AppName: "test", Role: pg.AppRole})
	must(t, err)
	t.Cleanup(pool.Close)
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Schema: pg.RiverSchema})
	if err != nil {
		t.Fatal(err)
	}
	return &town{pool: pool, url: url, recorder: door.NewRecorder(client)}
}

// school is an organisation with two buildings and some people.
type school struct {
	id        ledger.OrganisationID
	buildings [2]ledger.BuildingID
	people    []ledger.PersonID
}

func (c *town) school(t testing.TB, kind string, people int) school {
	t.Helper()
	c.serial++
	var s school
	code := fmt.Sprintf("o-%d", c.serial)
	must(t, c.pool.QueryRow(t.Context(), `
		INSERT INTO ledger.organisation (code, kind, name, short_name, time_zone)
		VALUES ($1, $2, 'Школа', 'Школа', 'Europe/Moscow') RETURNING id`, code, kind).Scan(&s.id))
	for i := range s.buildings {
		must(t, c.pool.QueryRow(t.Context(), `
			INSERT INTO ledger.building (code, organisation_id, address) VALUES ($1, $2, 'Улица, 1') RETURNING id`,
			fmt.Sprintf("%s-%d", code, i), s.id).Scan(&s.buildings[i]))
	}
	rows, err := c.pool.Query(t.Context(), `
		INSERT INTO ledger.person (code, organisation_id, kind, family_name, given_name, group_name)
		SELECT $1 || '-p' || n, $2, 'pupil', 'Петрова', 'Маша', '5 «А»' FROM generate_series(1, $3) n
		RETURNING id`, code, s.id, people)
	must(t, err)
	s.people, err = pgx.CollectRows(rows, pgx.RowTo[ledger.PersonID])
	must(t, err)
	return s
}

// tap is a pass of the n-th person by the first building's door.
func (s school) tap(person int, direction door.Direction, at time.Time) door.Tap {
	return door.Tap{
		Device: 1, Organisation: s.id, Building: s.buildings[0], Person: s.people[person],
		Direction: direction, Kind: door.ByCard, At: at, RawAt: at, ReceivedAt: at.Add(time.Second),
	}
}

// record stores taps in one transaction, with event ids of their own.
func (c *town) record(t testing.TB, taps ...door.Tap) []door.Verdict {
	t.Helper()
	verdicts, err := c.try(t.Context(), taps)
	must(t, err)
	return verdicts
}

func (c *town) try(ctx context.Context, taps []door.Tap) (verdicts []door.Verdict, err error) {
	err = pgx.BeginFunc(ctx, c.pool, func(tx pgx.Tx) error {
		for i := range taps {
			if err := tx.QueryRow(ctx, `SELECT nextval('ledger.event_id')`).Scan(&taps[i].Event); err != nil {
				return err
			}
		}
		verdicts, err = c.recorder.Record(ctx, tx, clock(12, 0, 0), taps)
		return err
	})
	return verdicts, err
}

// visit reads the last visit of a person.
func (c *town) visit(t testing.TB, person ledger.PersonID, now time.Time) door.Visit {
	t.Helper()
	visits, err := door.LastVisits(t.Context(), c.pool, []ledger.PersonID{person}, now)
	must(t, err)
	return visits[person]
}

// jobs reads the jobs that tell of passes, oldest first.
func (c *town) jobs(t testing.TB) []door.Passed {
	t.Helper()
	rows, err := c.pool.Query(t.Context(), `SELECT args FROM river.river_job WHERE kind = 'door_passed' ORDER BY id`)
	must(t, err)
	jobs, err := pgx.CollectRows(rows, pgx.RowTo[door.Passed])
	must(t, err)
	return jobs
}

func (c *town) exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	_, err := c.pool.Exec(t.Context(), sql, args...)
	must(t, err)
}

// vacuum does what autovacuum would have done by now.
func (c *town) vacuum(t testing.TB) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), c.url)
	must(t, err)
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), "VACUUM ANALYZE")
	must(t, err)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
