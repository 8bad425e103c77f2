package door_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/access/door"
	"zvonok/ledger"
)

// arrive records that the first people of a school came on a day by a reader.
func (c *town) arrive(t testing.TB, s school, day, people int, readers ...int64) {
	t.Helper()
	var taps []door.Tap
	for n := range people {
		tap := s.tap(n, door.In, clock(24*day+8, n, 0))
		tap.Device = readers[n%len(readers)]
		taps = append(taps, tap)
	}
	if len(taps) > 0 {
		c.record(t, taps...)
	}
}

// check runs CheckAbsence at a moment.
func (c *town) check(t testing.TB, now time.Time) []door.AbsenceBatch {
	t.Helper()
	batches, err := c.recorder.CheckAbsence(t.Context(), c.pool, now)
	must(t, err)
	return batches
}

func (c *town) missedJobs(t testing.TB) []door.Missed {
	t.Helper()
	rows, err := c.pool.Query(t.Context(), `SELECT args FROM river.river_job WHERE kind = 'door_missed' ORDER BY id`)
	must(t, err)
	jobs, err := pgx.CollectRows(rows, pgx.RowTo[door.Missed])
	must(t, err)
	return jobs
}

// Fault row 59, issue 6 item 4.
func TestTheNewsOfAbsencesIsHeldWhenTheFaultMayBeOurs(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		today   int
		readers []int64
		state   door.AbsenceState
		cause   string
	}{
		{"nearly all came", 9, []int64{1, 2}, door.Released, ""},
		{"six of ten came, by the usual readers", 6, []int64{1, 2}, door.Released, ""},
		{"five of ten came", 5, []int64{1, 2}, door.Held, "few_arrivals"},
		{"nobody came: the readers are dead", 0, []int64{1}, door.Held, "few_arrivals"},
		{"nearly all came, and one reader said nothing", 9, []int64{1}, door.Held, "silent_reader"},
		{"nearly all came, and one reader fell silent early", 9, []int64{1, 1, 1, 2}, door.Held, "silent_reader"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := newTown(t)
			s := c.school(t, "school", 11)
			c.lessons(t, s)
			by := ledger.ClockTime(9 * time.Hour)
			must(t, door.SetAbsenceRule(t.Context(), c.pool, s.id, &by))
			for day := -7; day <= -3; day++ { // last week
				c.arrive(t, s, day, 10, 1, 2)
			}
			c.arrive(t, s, 0, test.today, test.readers...)
			if early := c.check(t, clock(8, 59, 0)); len(early) != 0 {
				t.Errorf("before the time %+v", early)
			}
			batches := c.check(t, clock(9, 0, 0))
			if len(batches) != 1 || batches[0].State != test.state || batches[0].Cause != test.cause ||
				batches[0].Arrived != test.today || batches[0].Usual != 10 || batches[0].Missing != 11-test.today {
				t.Fatalf("batches %+v", batches)
			}
			if again := c.check(t, clock(9, 1, 0)); len(again) != 0 {
				t.Errorf("a minute later %+v", again)
			}
			told := 0
			if test.state == door.Released {
				told = 1
			}
			if jobs := c.missedJobs(t); len(jobs) != told {
				t.Errorf("%d jobs, want %d", len(jobs), told)
			}
			held, err := door.HeldAbsences(t.Context(), c.pool, 0)
			must(t, err)
			if len(held) != 1-told {
				t.Errorf("%d batches are held", len(held))
			}
		})
	}
}

// Fault row 59 on the first day with doors, or after the summer: nothing is known
// to be usual, so all who are expected are.
func TestWithoutAUsualNumberTheNewsOfAbsencesIsHeldWhenFewOfAllCame(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		today, excused int
		state          door.AbsenceState
		usual          int
	}{{0, 0, door.Held, 10}, {5, 0, door.Held, 10}, {6, 0, door.Released, 10}, {5, 2, door.Released, 8}} {
		c := newTown(t)
		s := c.school(t, "school", 10)
		c.lessons(t, s)
		by := ledger.ClockTime(9 * time.Hour)
		must(t, door.SetAbsenceRule(t.Context(), c.pool, s.id, &by))
		c.arrive(t, s, -40, 10, 1) // long ago
		c.arrive(t, s, 0, test.today, 1)
		for n := range test.excused {
			_, err := door.AddExcuse(t.Context(), c.pool, door.Excuse{
				Person: s.people[9-n], FirstDay: date(0), LastDay: date(0), Reason: "болеет", By: access.ByStaff("staff-1"),
			}, clock(7, 0, 0))
			must(t, err)
		}
		batches := c.check(t, clock(9, 0, 0))
		if len(batches) != 1 || batches[0].State != test.state || batches[0].Usual != test.usual || batches[0].Arrived != test.today {
			t.Errorf("%d of 10 came, %d are excused: %+v", test.today, test.excused, batches)
		}
	}
}

func TestAHeldBatchIsReleasedOrCancelledOnce(t *testing.T) {
	t.Parallel()
	for _, release := range []bool{true, false} {
		c := newTown(t)
		s := c.school(t, "school", 4)
		c.lessons(t, s)
		by := ledger.ClockTime(9 * time.Hour)
		must(t, door.SetAbsenceRule(t.Context(), c.pool, s.id, &by))
		c.arrive(t, s, -3, 4, 1)
		batch := c.check(t, clock(9, 5, 0))[0]
		c.record(t, s.tap(0, door.In, clock(9, 10, 0))) // comes late
		decide := func() error {
			return pgx.BeginFunc(t.Context(), c.pool, func(tx pgx.Tx) error {
				return c.recorder.DecideAbsence(t.Context(), tx, s.id, batch.ID, release, access.ByStaff("staff-1"), clock(9, 20, 0))
			})
		}
		must(t, decide())
		if err := decide(); !errors.Is(err, door.ErrNotHeld) {
			t.Errorf("deciding twice: %v", err)
		}
		jobs := c.missedJobs(t)
		if !release {
			if len(jobs) != 0 {
				t.Errorf("a cancelled batch is told: %+v", jobs)
			}
			continue
		}
		if len(jobs) != 1 || len(jobs[0].EventIDs) != 4 {
			t.Fatalf("jobs %+v", jobs)
		}
		absences, err := door.Absences(t.Context(), c.pool, jobs[0])
		must(t, err)
		for _, a := range absences {
			if came := a.Person == s.people[0]; a.Came != came {
				t.Errorf("person %d: came since %v", a.Person, a.Came)
			}
		}
	}
}

// Any number of processes may look, whatever restarts: one batch and one job for
// an organisation and day.
func TestABatchIsMadeOnceWhoeverLooks(t *testing.T) {
	t.Parallel()
	c := newTown(t)
	by := ledger.ClockTime(9 * time.Hour)
	for range 3 {
		s := c.school(t, "school", 3)
		c.lessons(t, s)
		must(t, door.SetAbsenceRule(t.Context(), c.pool, s.id, &by))
		c.arrive(t, s, 0, 2, 1)
	}
	var (
		all  sync.WaitGroup
		made atomic.Int64
	)
	for range 4 {
		all.Go(func() {
			batches, err := c.recorder.CheckAbsence(t.Context(), c.pool, clock(9, 0, 0))
			if err != nil {
				t.Error(err)
			}
			made.Add(int64(len(batches)))
		})
	}
	all.Wait()
	if made.Load() != 3 || len(c.missedJobs(t)) != 3 {
		t.Errorf("%d batches and %d jobs for 3 schools", made.Load(), len(c.missedJobs(t)))
	}
}

func TestWhoHasAnExcuseByTheTimeOfTellingIsNotTold(t *testing.T) {
	t.Parallel()
	c := newTown(t)
	s := c.school(t, "school", 2)
	c.lessons(t, s)
	by := ledger.ClockTime(9 * time.Hour)
	must(t, door.SetAbsenceRule(t.Context(), c.pool, s.id, &by))
	batch := c.check(t, clock(9, 0, 0))[0]
	must(t, pgx.BeginFunc(t.Context(), c.pool, func(tx pgx.Tx) error {
		return c.recorder.DecideAbsence(t.Context(), tx, s.id, batch.ID, true, access.ByStaff("staff-1"), clock(9, 0, 30))
	}))
	_, err := door.AddExcuse(t.Context(), c.pool, door.Excuse{
		Person: s.people[1], FirstDay: date(0), LastDay: date(0), Reason: "болеет", By: access.ByStaff("staff-1"),
	}, clock(9, 1, 0))
	must(t, err)
	absences, err := door.Absences(t.Context(), c.pool, c.missedJobs(t)[0])
	must(t, err)
	if len(absences) != 2 || absences[0].Excused || !absences[1].Excused {
		t.Errorf("absences %+v", absences)
	}
}

func TestNobodyIsMissedWithoutARuleOrLessons(t *testing.T) {
	t.Parallel()
	c := newTown(t)
	s := c.school(t, "school", 2)
	c.lessons(t, s)
	if batches := c.check(t, clock(9, 0, 0)); len(batches) != 0 {
		t.Errorf("without a rule %+v", batches)
	}
	by := ledger.ClockTime(9 * time.Hour)
	must(t, door.SetAbsenceRule(t.Context(), c.pool, s.id, &by))
	if batches := c.check(t, clock(5*24+9, 0, 0)); len(batches) != 0 {
		t.Errorf("on a Saturday %+v", batches)
	}
	if batches := c.check(t, clock(11, 1, 0)); len(batches) != 0 {
		t.Errorf("hours later it is no news %+v", batches)
	}
	must(t, door.SetAbsenceRule(t.Context(), c.pool, s.id, nil))
	if batches := c.check(t, clock(9, 0, 0)); len(batches) != 0 {
		t.Errorf("with the rule taken back %+v", batches)
	}
}
