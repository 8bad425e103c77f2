package door

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger"
	"zvonok/ledger/pg"
)

// Present is somebody who is in a building now.
type Present struct {
	Person     ledger.PersonID   `json:"-"`
	Code       string            `json:"person"` // the registry's id
	Kind       ledger.PersonKind `json:"kind"`
	FamilyName string            `json:"family_name"`
	GivenName  string            `json:"given_name"`
	Patronymic string            `json:"patronymic"`
	Group      string            `json:"group"`
	Building   string            `json:"building"` // the registry's id
	Address    string            `json:"address"`
	Since      time.Time         `json:"since"` // the latest entry
}

// WhoIsInside lists who of an organisation is inside at a moment, for an evacuation
// list: by building, pupils by their groups, then staff. Whoever came and was
// not seen leaving counts until the day is closed; somebody who left by an
// unwatched door is on the list, nobody inside is missing from it.
func WhoIsInside(
	ctx context.Context, q pg.Querier, organisation ledger.OrganisationID, now time.Time,
) ([]Present, error) {
	settings, err := settingsOf(ctx, q, organisation)
	if err != nil {
		return nil, err
	}
	rows, err := q.Query(ctx, `
		SELECT p.id, p.code, p.kind, p.family_name, p.given_name, p.patronymic, p.group_name,
		       coalesce(b.code, ''), coalesce(b.address, ''), d.last_at
		  FROM ledger.person p
		  JOIN door.presence d ON d.person_id = p.id
		  LEFT JOIN ledger.building b ON b.id = d.last_building_id
		 WHERE p.organisation_id = $1 AND d.last_direction = 1 AND d.last_at <= $2
		 ORDER BY b.code, p.kind, p.group_name, p.family_name, p.given_name, p.id`, organisation, now)
	if err != nil {
		return nil, fmt.Errorf("list who is inside organisation %d: %w", organisation, err)
	}
	people, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Present])
	for i := range people {
		people[i].Since = people[i].Since.In(settings.Location)
	}
	if err != nil {
		return nil, fmt.Errorf("list who is inside organisation %d: %w", organisation, err)
	}
	return slices.DeleteFunc(people, func(p Present) bool {
		return !now.Before(closing(p.Since, settings.Location, settings.CloseAt))
	}), nil
}

// settingsOf reads one organisation.
func settingsOf(
	ctx context.Context, q pg.Querier, organisation ledger.OrganisationID,
) (ledger.Organisation, error) {
	found, err := ledger.Organisations(ctx, q, []ledger.OrganisationID{organisation})
	if err != nil {
		return ledger.Organisation{}, err
	}
	settings, ok := found[organisation]
	if !ok {
		return ledger.Organisation{}, fmt.Errorf("there is no organisation %d", organisation)
	}
	return settings, nil
}

// Status is what one day of one person was.
type Status string

// The statuses.
const (
	Attended Status = "present"
	Late     Status = "late"    // came after the timetable's beginning
	Excused  Status = "excused" // did not come, with a reason on record
	Absent   Status = "absent"  // did not come
)

// Day is one person's day at an organisation.
type Day struct {
	Person ledger.PersonID
	Date   time.Time // midnight UTC
	Status Status
	// FirstIn and LastOut are the first entry and the last exit; zero when there was none.
	FirstIn, LastOut time.Time
	// Incomplete: the person came and was not seen leaving until the day was closed (D8).
	Incomplete bool
	// LateBy is how long after the beginning the person came.
	LateBy time.Duration
	// Reason is why an absence is excused.
	Reason string
}

// Member is a pupil or a member of staff on a list of attendance.
type Member struct {
	Person     ledger.PersonID   `json:"-"`
	Code       string            `json:"person"` // the registry's id
	Kind       ledger.PersonKind `json:"kind"`
	FamilyName string            `json:"family_name"`
	GivenName  string            `json:"given_name"`
	Patronymic string            `json:"patronymic"`
	Group      string            `json:"group"`
	leftOn     time.Time
}

// Attendance is who came and who did not, over some days.
type Attendance struct {
	Organisation ledger.Organisation
	From, To     time.Time // the first and the last day, midnight UTC
	Members      []Member  // by kind, group and name
	Days         []Day     // by date, then in the order of the members
}

// ReadAttendance reads the attendance of an organisation from one day to
// another, both included, given as midnights UTC; group narrows it to one class
// or kindergarten group, person to one person (R48). A day counts as missed only
// when the timetable says that the group has lessons on it, it is no holiday and
// its beginning has passed; other days are listed for those who came. The length
// of the period is bounded by maxPeriod.
func ReadAttendance(
	ctx context.Context, q pg.Querier, organisation ledger.OrganisationID, group string, person ledger.PersonID,
	from, to, now time.Time,
) (Attendance, error) {
	if to.Before(from) || to.Sub(from) > maxPeriod {
		return Attendance{}, fmt.Errorf("attendance is read for 1 to %d days", maxPeriod/(24*time.Hour)+1)
	}
	settings, err := settingsOf(ctx, q, organisation)
	if err != nil {
		return Attendance{}, err
	}
	a := Attendance{Organisation: settings, From: from, To: to}
	if a.Members, err = readMembers(ctx, q, organisation, group, person, from); err != nil {
		return Attendance{}, err
	}
	came, err := a.readDays(ctx, q)
	if err != nil {
		return Attendance{}, err
	}
	excuses, err := a.readExcuses(ctx, q)
	if err != nil {
		return Attendance{}, err
	}
	timetable, err := readTimetable(ctx, q, settings, from, to)
	if err != nil {
		return Attendance{}, err
	}
	a.judge(came, excuses, timetable, now)
	return a, nil
}

// maxPeriod bounds what one list of attendance covers: a school year.
const maxPeriod = 366 * 24 * time.Hour

// personDay names a day of a person.
type personDay struct {
	person ledger.PersonID
	day    int64 // since 1970
}

// keyOf makes the key of a date, which is a midnight UTC.
func keyOf(person ledger.PersonID, date time.Time) personDay {
	return personDay{person, dayNumber(date)}
}

func dayNumber(date time.Time) int64 { return date.Unix() / (24 * 60 * 60) }

func readMembers(
	ctx context.Context, q pg.Querier, organisation ledger.OrganisationID, group string, person ledger.PersonID,
	from time.Time,
) ([]Member, error) {
	rows, err := q.Query(ctx, `
		SELECT id, code, kind, family_name, given_name, patronymic, group_name, coalesce(left_on, '9999-12-31')
		  FROM ledger.person
		 WHERE organisation_id = $1 AND ($2 = '' OR group_name = $2) AND ($3::bigint = 0 OR id = $3)
		   AND (left_on IS NULL OR left_on > $4)
		 ORDER BY kind, group_name, family_name, given_name, id`, organisation, group, person, from)
	if err != nil {
		return nil, fmt.Errorf("list the members of organisation %d: %w", organisation, err)
	}
	members, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Member, error) {
		var m Member
		err := row.Scan(&m.Person, &m.Code, &m.Kind, &m.FamilyName, &m.GivenName, &m.Patronymic, &m.Group, &m.leftOn)
		return m, err
	})
	if err != nil {
		return nil, fmt.Errorf("list the members of organisation %d: %w", organisation, err)
	}
	return members, nil
}

// readDays folds the members' passes into days. Each member is one probe of an
// index that holds all that is needed, so the table itself is not read. A pass is
// put into its day by a search among the midnights of the organisation's zone:
// turning each of 200,000 into a local date took a third of the whole time.
func (a *Attendance) readDays(ctx context.Context, q pg.Querier) (map[personDay]Day, error) {
	people := make([]int64, len(a.Members))
	for i, m := range a.Members {
		people[i] = int64(m.Person)
	}
	var (
		dates     []time.Time
		midnights []time.Time // one more than dates: the end
	)
	for date := a.From; !date.After(a.To); date = date.AddDate(0, 0, 1) {
		dates = append(dates, date)
		midnights = append(midnights, midnight(date, a.Organisation.Location))
	}
	end := midnight(a.To.AddDate(0, 0, 1), a.Organisation.Location)
	rows, err := q.Query(ctx, `
		SELECT p.person_id, width_bucket(p.at, $2::timestamptz[]) AS day,
		       min(p.at) FILTER (WHERE p.direction = 1), max(p.at) FILTER (WHERE p.direction = 1),
		       max(p.at) FILTER (WHERE p.direction = 2)
		  FROM door.pass p
		 WHERE p.person_id = ANY($1) AND p.at >= $3 AND p.at < $4
		 GROUP BY 1, 2`, people, midnights, midnights[0], end)
	if err != nil {
		return nil, fmt.Errorf("read the passes of organisation %d: %w", a.Organisation.ID, err)
	}
	days := make(map[personDay]Day, len(people)*len(dates))
	var (
		person                   ledger.PersonID
		place                    int
		firstIn, lastIn, lastOut *time.Time
	)
	_, err = pgx.ForEachRow(rows, []any{&person, &place, &firstIn, &lastIn, &lastOut}, func() error {
		day := Day{Person: person, Date: dates[place-1], FirstIn: orZero(firstIn), LastOut: orZero(lastOut)}
		// Of the same moment the entry counts as the later one.
		day.Incomplete = lastIn != nil && !orZero(lastIn).Before(day.LastOut)
		days[keyOf(day.Person, day.Date)] = day
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the passes of organisation %d: %w", a.Organisation.ID, err)
	}
	return days, nil
}

// midnight is the beginning of a day in a zone.
func midnight(date time.Time, zone *time.Location) time.Time {
	return time.Date(date.Year(), date.Month(), date.Day(), 0, 0, 0, 0, zone)
}

func (a *Attendance) readExcuses(ctx context.Context, q pg.Querier) (map[personDay]string, error) {
	people := make([]int64, len(a.Members))
	for i, m := range a.Members {
		people[i] = int64(m.Person)
	}
	rows, err := q.Query(ctx, `
		SELECT e.person_id, day::date, e.reason
		  FROM door.excuse e
		 CROSS JOIN LATERAL generate_series(greatest(e.first_day, $2::date)::timestamp,
		                                    least(e.last_day, $3::date)::timestamp, interval '1 day') day
		 WHERE e.person_id = ANY($1) AND e.first_day <= $3 AND e.last_day >= $2 AND e.withdrawn_at IS NULL
		 ORDER BY e.id`, people, a.From, a.To)
	if err != nil {
		return nil, fmt.Errorf("read the excuses of organisation %d: %w", a.Organisation.ID, err)
	}
	excuses := map[personDay]string{}
	var (
		person ledger.PersonID
		date   time.Time
		reason string
	)
	_, err = pgx.ForEachRow(rows, []any{&person, &date, &reason}, func() error {
		excuses[keyOf(person, date)] = reason
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the excuses of organisation %d: %w", a.Organisation.ID, err)
	}
	return excuses, nil
}

// judge puts the days together.
func (a *Attendance) judge(came map[personDay]Day, excuses map[personDay]string, t *timetable, now time.Time) {
	zone := a.Organisation.Location
	for date := a.From; !date.After(a.To); date = date.AddDate(0, 0, 1) {
		closed := !now.Before(closing(midnight(date, zone), zone, a.Organisation.CloseAt))
		for _, m := range a.Members {
			key := keyOf(m.Person, date)
			begins, school := t.begins(m.Group, date)
			day, here := came[key]
			day.Incomplete = day.Incomplete && closed
			switch {
			case here && school && !day.FirstIn.IsZero() && day.FirstIn.After(begins):
				day.Status, day.LateBy = Late, day.FirstIn.Sub(begins)
			case here:
				day.Status = Attended
			case excuses[key] != "":
				day = Day{Person: m.Person, Date: date, Status: Excused, Reason: excuses[key]}
			case school && m.Kind == ledger.Pupil && !now.Before(begins) && date.Before(m.leftOn):
				day = Day{Person: m.Person, Date: date, Status: Absent}
			default:
				continue
			}
			a.Days = append(a.Days, day)
		}
	}
}

// GroupDay counts one group's day: of pupils, or of staff under Group "".
type GroupDay struct {
	Kind       ledger.PersonKind
	Group      string
	Date       time.Time // midnight UTC
	Listed     int       // who belonged to it
	Present    int       // who came, in time or late
	Late       int
	Excused    int
	Missing    int
	Incomplete int // who came and was not seen leaving
}

// ByGroup counts the days of each group, by date, kind and group.
func (a Attendance) ByGroup() []GroupDay {
	type group struct {
		kind ledger.PersonKind
		name string
	}
	type key struct {
		group
		day int64
	}
	groupOf := make(map[ledger.PersonID]group, len(a.Members))
	listed := map[group][]time.Time{} // the last days of its members
	for _, m := range a.Members {
		g := group{m.Kind, m.Group}
		groupOf[m.Person] = g
		listed[g] = append(listed[g], m.leftOn)
	}
	counts := map[key]*GroupDay{}
	for _, day := range a.Days {
		k := key{groupOf[day.Person], dayNumber(day.Date)}
		c := counts[k]
		if c == nil {
			c = &GroupDay{Kind: k.kind, Group: k.name, Date: day.Date}
			for _, leftOn := range listed[k.group] {
				if day.Date.Before(leftOn) {
					c.Listed++
				}
			}
			counts[k] = c
		}
		switch day.Status {
		case Late:
			c.Late++
			c.Present++
		case Attended:
			c.Present++
		case Excused:
			c.Excused++
		case Absent:
			c.Missing++
		}
		if day.Incomplete {
			c.Incomplete++
		}
	}
	groups := make([]GroupDay, 0, len(counts))
	for _, c := range counts {
		groups = append(groups, *c)
	}
	slices.SortFunc(groups, func(a, b GroupDay) int {
		return cmp.Or(a.Date.Compare(b.Date), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Group, b.Group))
	})
	return groups
}
