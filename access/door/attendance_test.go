package door_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/access/door"
	"zvonok/ledger"
)

// date is the n-th day after that Monday, as midnight UTC.
func date(n int) time.Time { return time.Date(2026, 11, 23+n, 0, 0, 0, 0, time.UTC) }

// lessons sets a timetable: every weekday at 08:30, the kindergarten group
// "Ромашка" at 09:00.
func (c *town) lessons(t testing.TB, s school) {
	t.Helper()
	var lessons []door.Lesson
	for day := time.Monday; day <= time.Friday; day++ {
		lessons = append(lessons,
			door.Lesson{Weekday: day, Begins: ledger.ClockTime(8*time.Hour + 30*time.Minute)},
			door.Lesson{Group: "Ромашка", Weekday: day, Begins: ledger.ClockTime(9 * time.Hour)})
	}
	must(t, pgx.BeginFunc(t.Context(), c.pool, func(tx pgx.Tx) error {
		return door.SetTimetable(t.Context(), tx, s.id, lessons)
	}))
}

// R48: who is in the building, for an evacuation list.
func TestTheEvacuationListNamesWhoIsInside(t *testing.T) {
	t.Parallel()
	c := newTown(t)
	s, other := c.school(t, "school", 5), c.school(t, "school", 1)
	yesterday := s.tap(4, door.In, clock(-10, 0, 0))
	elsewhere := s.tap(2, door.In, clock(8, 2, 0))
	elsewhere.Building = s.buildings[1]
	c.record(t, s.tap(0, door.In, clock(8, 0, 0)), s.tap(1, door.In, clock(8, 1, 0)), elsewhere,
		s.tap(1, door.Out, clock(11, 0, 0)), yesterday, other.tap(0, door.In, clock(8, 0, 0)))
	inside, err := door.WhoIsInside(t.Context(), c.pool, s.id, clock(12, 0, 0))
	must(t, err)
	if len(inside) != 2 || inside[0].Person != s.people[0] || inside[1].Person != s.people[2] {
		t.Fatalf("inside are %+v", inside)
	}
	if p := inside[1]; p.Building != "o-1-1" || p.Address == "" || p.Code != "o-1-p3" || !p.Since.Equal(clock(8, 2, 0)) || p.FamilyName != "Петрова" || p.Group != "5 «А»" {
		t.Errorf("the list says %+v", p)
	}
	inside, err = door.WhoIsInside(t.Context(), c.pool, s.id, clock(22, 0, 0))
	must(t, err)
	if len(inside) != 0 {
		t.Errorf("after the day is closed %d are inside", len(inside))
	}
}

// R4, R48, D8.
func TestAttendanceTellsWhoCameLateAndWhoDidNotCome(t *testing.T) {
	t.Parallel()
	c := newTown(t)
	s := c.school(t, "school", 7)
	c.lessons(t, s)
	c.exec(t, `UPDATE ledger.person SET group_name = 'Ромашка' WHERE id = $1`, s.people[5])
	c.exec(t, `UPDATE ledger.person SET kind = 'staff', group_name = '' WHERE id = $1`, s.people[6])
	c.record(t,
		s.tap(0, door.In, clock(8, 15, 0)), s.tap(0, door.Out, clock(14, 0, 0)), // in time
		s.tap(1, door.In, clock(8, 42, 0)), s.tap(1, door.Out, clock(14, 0, 0)), // late
		s.tap(2, door.In, clock(8, 20, 0)), // never seen leaving
		// 3 is excused, 4 is absent
		s.tap(5, door.In, clock(8, 45, 0)), s.tap(5, door.Out, clock(14, 0, 0)), // in time for this group
		s.tap(6, door.Out, clock(14, 0, 0))) // an exit without an entry
	_, err := door.AddExcuse(t.Context(), c.pool, door.Excuse{
		Person: s.people[3], FirstDay: date(-3), LastDay: date(0), Reason: "болезнь", By: access.ByStaff("staff-1"),
	}, clock(7, 0, 0))
	must(t, err)
	a, err := door.ReadAttendance(t.Context(), c.pool, s.id, "", 0, date(0), date(0), clock(23, 0, 0))
	must(t, err)
	got := map[ledger.PersonID]door.Day{}
	for _, day := range a.Days {
		got[day.Person] = day
	}
	for n, want := range []struct {
		status     door.Status
		late       time.Duration
		incomplete bool
	}{
		{door.Attended, 0, false},
		{door.Late, 12 * time.Minute, false},
		{door.Attended, 0, true},
		{door.Excused, 0, false},
		{door.Absent, 0, false},
		{door.Attended, 0, false},
		{door.Attended, 0, false},
	} {
		day := got[s.people[n]]
		if day.Status != want.status || day.LateBy != want.late || day.Incomplete != want.incomplete {
			t.Errorf("person %d: %+v, want %+v", n, day, want)
		}
	}
	if day := got[s.people[0]]; !day.FirstIn.Equal(clock(8, 15, 0)) || !day.LastOut.Equal(clock(14, 0, 0)) {
		t.Errorf("the times are %v and %v", day.FirstIn, day.LastOut)
	}
	if got[s.people[3]].Reason != "болезнь" {
		t.Errorf("the reason is %q", got[s.people[3]].Reason)
	}
	groups := a.ByGroup()
	i := slices.IndexFunc(groups, func(g door.GroupDay) bool { return g.Group == "5 «А»" })
	want := door.GroupDay{
		Kind: ledger.Pupil, Group: "5 «А»", Date: date(0), Listed: 5, Present: 3, Late: 1, Excused: 1, Missing: 1, Incomplete: 1,
	}
	if groups[i] != want {
		t.Errorf("the class is %+v, want %+v", groups[i], want)
	}
}

func TestAnAbsenceIsOneOnlyWhenThereAreLessons(t *testing.T) {
	t.Parallel()
	c := newTown(t)
	s := c.school(t, "school", 1)
	absent := func(name string, from, to time.Time, now time.Time, want int) {
		t.Helper()
		a, err := door.ReadAttendance(t.Context(), c.pool, s.id, "", s.people[0], from, to, now)
		must(t, err)
		n := 0
		for _, day := range a.Days {
			if day.Status == door.Absent {
				n++
			}
		}
		if n != want {
			t.Errorf("%s: absent on %d days, want %d", name, n, want)
		}
	}
	absent("without a timetable", date(0), date(6), clock(240, 0, 0), 0)
	c.lessons(t, s)
	absent("a week with two free days", date(0), date(6), clock(240, 0, 0), 5)
	absent("before the lessons begin", date(0), date(0), clock(8, 29, 0), 0)
	absent("the future", date(1), date(4), clock(12, 0, 0), 0)
	must(t, door.SetHoliday(t.Context(), c.pool, s.id, date(1), true))
	absent("a week with a holiday", date(0), date(6), clock(240, 0, 0), 4)
	must(t, door.SetHoliday(t.Context(), c.pool, s.id, date(1), false))
	id, err := door.AddExcuse(t.Context(), c.pool, door.Excuse{
		Person: s.people[0], FirstDay: date(2), LastDay: date(3), Reason: "соревнования", By: access.ByStaff("staff-1"),
	}, clock(7, 0, 0))
	must(t, err)
	absent("with an excuse of two days", date(0), date(6), clock(240, 0, 0), 3)
	must(t, door.WithdrawExcuse(t.Context(), c.pool, s.id, id, clock(8, 0, 0)))
	absent("with an excuse taken back", date(0), date(6), clock(240, 0, 0), 5)
	c.exec(t, `UPDATE ledger.person SET left_on = '2026-11-26' WHERE id = $1`, s.people[0])
	absent("in the week of leaving", date(0), date(6), clock(240, 0, 0), 3)
	for name, e := range map[string]door.Excuse{
		"no reason":      {FirstDay: date(0), LastDay: date(0), Reason: " "},
		"a long reason":  {FirstDay: date(0), LastDay: date(0), Reason: strings.Repeat("а", 201)},
		"turned around":  {FirstDay: date(1), LastDay: date(0), Reason: "болезнь"},
		"ten years long": {FirstDay: date(0), LastDay: date(3650), Reason: "болезнь"},
	} {
		e.Person = s.people[0]
		if _, err := door.AddExcuse(t.Context(), c.pool, e, clock(7, 0, 0)); err != door.ErrExcuse {
			t.Errorf("an excuse with %s: %v", name, err)
		}
	}
}

// A kindergarten child raises an alarm, staff settle it.
func TestAnAlarmIsSettledOnce(t *testing.T) {
	t.Parallel()
	c := newTown(t)
	s := c.school(t, "kindergarten", 1)
	verdict := c.record(t, s.tap(0, door.Out, clock(17, 0, 0)))[0]
	if verdict.Alarm != door.NoCompanion {
		t.Fatalf("the exit is %+v", verdict)
	}
	alarms, err := door.RaisedAlarms(t.Context(), c.pool, s.id, monday)
	must(t, err)
	if len(alarms) != 1 || alarms[0].Event != verdict.Event || alarms[0].Kind != door.NoCompanion || !alarms[0].SettledAt.IsZero() {
		t.Fatalf("alarms %+v", alarms)
	}
	passes, err := door.Passes(t.Context(), c.pool, c.jobs(t)[0])
	must(t, err)
	if passes[0].Alarm != door.NoCompanion {
		t.Errorf("who tells of the pass does not see the alarm: %+v", passes[0])
	}
	must(t, door.Settle(t.Context(), c.pool, s.id, verdict.Event, access.ByStaff("staff-1"), clock(17, 5, 0)))
	if err := door.Settle(t.Context(), c.pool, s.id, verdict.Event, access.ByStaff("staff-2"), clock(17, 6, 0)); err != door.ErrNoAlarm {
		t.Errorf("settling it again: %v", err)
	}
	alarms, err = door.RaisedAlarms(t.Context(), c.pool, s.id, monday)
	must(t, err)
	if alarms[0].SettledBy != "staff:staff-1" || !alarms[0].SettledAt.Equal(clock(17, 5, 0)) {
		t.Errorf("afterwards %+v", alarms[0])
	}
}

// BenchmarkAttendanceOfAMonth reads a month of a school of 2,000 whose passes
// lie among those of twenty others (issue 6: under 300 ms).
func BenchmarkAttendanceOfAMonth(b *testing.B) {
	c := newTown(b)
	s := c.school(b, "school", 2000)
	c.lessons(b, s)
	others := c.school(b, "school", 8000)
	for _, school := range []school{s, others} {
		// Four passes a day, in the order of time as they would arrive.
		c.exec(b, `
			INSERT INTO door.pass (event_id, at, received_at, person_id, organisation_id, building_id, device_id,
			                       direction, kind, merged, suspected, inferred, silent)
			SELECT nextval('ledger.event_id'), at, at, person_id, $1, 1, 1, direction, 1, false, false, false, false
			  FROM (SELECT day + hour + (person_id % 1800) * interval '1 second' AS at, person_id,
			               CASE WHEN n % 2 = 1 THEN 1 ELSE 2 END::smallint AS direction
			          FROM unnest($2::bigint[]) person_id
			         CROSS JOIN generate_series('2026-11-01 00:00+03'::timestamptz, '2026-11-30 00:00+03', '1 day') day
			         CROSS JOIN (VALUES (1, interval '8 hours'), (2, interval '11 hours'), (3, interval '12 hours'),
			                            (4, interval '14 hours')) v (n, hour)
			         WHERE extract(isodow FROM day AT TIME ZONE 'Europe/Moscow') < 6) p
			 ORDER BY at`, school.id, school.people)
	}
	c.vacuum(b)
	b.ResetTimer()
	for b.Loop() {
		a, err := door.ReadAttendance(b.Context(), c.pool, s.id, "", 0, date(-22), date(7), clock(240, 0, 0))
		must(b, err)
		if len(a.Days) != 2000*21 {
			b.Fatalf("%d days", len(a.Days))
		}
	}
}
