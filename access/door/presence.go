package door

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger"
	"zvonok/ledger/pg"
)

// presence is a person's row of door.presence: the fold of all passes.
type presence struct {
	person ledger.PersonID
	last   step // the latest pass; its zero time means that there is none
	day    time.Time
	// The first entry and the last exit of that day; zero when there is none.
	firstIn, lastOut time.Time
}

// fold adds a pass. Later beats earlier and, within the last day, the first
// entry and the last exit win; so the result is that of the set of passes,
// whatever their order. Merged passes count: they are the same passage.
func (p *presence) fold(s step, zone *time.Location) {
	if p.last.at.IsZero() || s.compare(p.last) > 0 {
		p.last = s
	}
	day := dayOf(s.at, zone)
	switch {
	case day.Before(p.day):
		return
	case day.After(p.day):
		p.day, p.firstIn, p.lastOut = day, time.Time{}, time.Time{}
	}
	switch s.direction {
	case In:
		if p.firstIn.IsZero() || s.at.Before(p.firstIn) {
			p.firstIn = s.at
		}
	case Out:
		if s.at.After(p.lastOut) {
			p.lastOut = s.at
		}
	}
}

// dayOf returns the day of a moment in a zone, as midnight UTC, which is how pgx
// reads and writes dates.
func dayOf(at time.Time, zone *time.Location) time.Time {
	year, month, day := at.In(zone).Date()
	return time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
}

// closing returns when the visit that goes on at a moment is closed: the next
// time after it that the organisation's clock shows closeAt (D8).
func closing(at time.Time, zone *time.Location, closeAt ledger.ClockTime) time.Time {
	year, month, day := at.In(zone).Date()
	for ; ; day++ {
		// Hours of the clock, not hours since midnight: a day of 23 hours closes at 22:00 too.
		moment := time.Date(year, month, day, 0, int(time.Duration(closeAt)/time.Minute), 0, 0, zone)
		if moment.After(at) {
			return moment
		}
	}
}

// State is where a person is, as far as the doors know.
type State string

// The states.
const (
	Inside     State = "inside"
	Away       State = "away"
	Incomplete State = "incomplete" // came and was not seen leaving until the day was closed
)

// Visit is the last day on which a person passed a door.
type Visit struct {
	Person ledger.PersonID
	// Day is that day in the organisation's zone, as midnight UTC.
	Day time.Time
	// FirstIn and LastOut are the first entry and the last exit of the day; zero
	// when there was none. A person who went out and came back has a LastOut
	// before LastAt and is inside.
	FirstIn, LastOut time.Time
	// LastAt, LastDirection and LastBuilding are of the latest pass.
	LastAt        time.Time
	LastDirection Direction
	LastBuilding  ledger.BuildingID
	// State is where the person is at the moment asked about.
	State State
	// Zone is the organisation's, in which the times are to be shown.
	Zone *time.Location
}

// LastVisits reads the last visit of each of these people as it looks at now,
// one row each; a person who never passed has no entry.
func LastVisits(
	ctx context.Context, q pg.Querier, people []ledger.PersonID, now time.Time,
) (map[ledger.PersonID]Visit, error) {
	visits := make(map[ledger.PersonID]Visit, len(people))
	if len(people) == 0 {
		return visits, nil
	}
	rows, err := q.Query(ctx, lastVisits, people)
	if err != nil {
		return nil, fmt.Errorf("read the last visits: %w", err)
	}
	return visits, collectVisits(rows, now, visits)
}

// AskLastVisits puts the question of [LastVisits] into a batch. The visits are in the map when the batch has been read.
func AskLastVisits(b *pgx.Batch, people []ledger.PersonID, now time.Time) map[ledger.PersonID]Visit {
	visits := make(map[ledger.PersonID]Visit, len(people))
	b.Queue(lastVisits, people).Query(func(rows pgx.Rows) error { return collectVisits(rows, now, visits) })
	return visits
}

const lastVisits = `
	SELECT d.person_id, d.last_at, d.last_direction, d.last_building_id, d.day, d.day_first_in, d.day_last_out,
	       o.time_zone, extract(epoch FROM o.close_at)::bigint
	  FROM door.presence d
	  JOIN ledger.person p ON p.id = d.person_id
	  JOIN ledger.organisation o ON o.id = p.organisation_id
	 WHERE d.person_id = ANY($1) AND d.last_at IS NOT NULL`

func collectVisits(rows pgx.Rows, now time.Time, into map[ledger.PersonID]Visit) error {
	zones := zones{}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Visit, error) {
		var (
			v                Visit
			firstIn, lastOut *time.Time
			zone             string
			closeAt          int64
		)
		err := row.Scan(&v.Person, &v.LastAt, &v.LastDirection, &v.LastBuilding, &v.Day, &firstIn, &lastOut,
			&zone, &closeAt)
		if err != nil {
			return v, err
		}
		v.FirstIn, v.LastOut = orZero(firstIn), orZero(lastOut)
		v.Zone, err = zones.load(zone)
		if err != nil {
			return v, err
		}
		v.State = stateAt(now, v.LastAt, v.LastDirection, v.Zone, ledger.ClockTime(closeAt)*ledger.ClockTime(time.Second))
		return v, nil
	})
	if err != nil {
		return fmt.Errorf("read the last visits: %w", err)
	}
	for _, visit := range found {
		into[visit.Person] = visit
	}
	return nil
}

// stateAt says where a person is at a moment by the latest pass.
func stateAt(now, lastAt time.Time, direction Direction, zone *time.Location, closeAt ledger.ClockTime) State {
	switch {
	case direction == Out:
		return Away
	case now.Before(closing(lastAt, zone, closeAt)):
		return Inside
	default:
		return Incomplete
	}
}

// zones keeps the time zones of one call: loading one reads a file.
type zones map[string]*time.Location

func (z zones) load(name string) (*time.Location, error) {
	if zone, ok := z[name]; ok {
		return zone, nil
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("the organisation's time zone: %w", err)
	}
	z[name] = zone
	return zone, nil
}

func orZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

// orNull is the other way round.
func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
