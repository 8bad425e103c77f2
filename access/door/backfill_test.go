package door_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access/door"
	"zvonok/ledger"
)

// A day that is filled in looks like one that was recorded, and is told to nobody.
func TestFilledInPassesLookLikeRecordedOnes(t *testing.T) {
	t.Parallel()
	c := newTown(t)
	s := c.school(t, "school", 4)
	pass := func(person int, direction door.Direction, at time.Time) door.Tap {
		tap := s.tap(person, direction, at)
		tap.RawAt, tap.ReceivedAt = time.Time{}, time.Time{}
		return tap
	}
	lastYear := monday.AddDate(-1, 0, 0)
	days := [][]door.Tap{
		{pass(0, door.In, lastYear.Add(8*time.Hour)), pass(1, door.In, lastYear.Add(9*time.Hour)), pass(0, door.Out, lastYear.Add(14*time.Hour))},
		{pass(0, door.In, clock(8, 15, 0)), pass(0, door.Out, clock(14, 5, 0))},
	}
	must(t, pgx.BeginFunc(t.Context(), c.pool, func(tx pgx.Tx) error {
		fill := c.recorder.Backfill(tx, clock(20, 0, 0))
		for _, taps := range days {
			ids, err := ledger.NextEventIDs(t.Context(), tx, len(taps))
			must(t, err)
			for i := range taps {
				taps[i].Event = ids[i]
			}
			must(t, fill.Add(t.Context(), taps))
		}
		return fill.Finish(t.Context())
	}))
	if jobs := c.jobs(t); len(jobs) != 0 {
		t.Errorf("history was told: %+v", jobs)
	}
	c.record(t, s.tap(2, door.In, clock(8, 15, 0)), s.tap(2, door.Out, clock(14, 5, 0)))
	visits, err := door.LastVisits(t.Context(), c.pool, s.people, clock(20, 0, 0))
	must(t, err)
	filled, recorded := visits[s.people[0]], visits[s.people[2]]
	filled.Person = recorded.Person
	if !filled.LastAt.Equal(recorded.LastAt) || !filled.FirstIn.Equal(recorded.FirstIn) || !filled.LastOut.Equal(recorded.LastOut) ||
		!filled.Day.Equal(recorded.Day) || filled.LastDirection != recorded.LastDirection || filled.State != recorded.State ||
		filled.LastBuilding != recorded.LastBuilding {
		t.Errorf("filled in:\n%+v\nrecorded:\n%+v", filled, recorded)
	}
	if _, ok := visits[s.people[3]]; ok {
		t.Error("a person without passes has a visit")
	}
	history, err := door.History(t.Context(), c.pool, s.people[0], lastYear, monday.AddDate(0, 0, 1))
	must(t, err)
	if len(history) != 4 || !history[0].At.Equal(lastYear.Add(8*time.Hour)) || history[0].Direction != door.In {
		t.Errorf("history %+v", history)
	}
	var strays int
	must(t, c.pool.QueryRow(t.Context(), `SELECT count(*) FROM door.pass WHERE tableoid = 'door.pass_default'::regclass`).Scan(&strays))
	if strays != 0 {
		t.Errorf("%d passes of last year have no month of their own", strays)
	}
	// A tap today goes on from the history.
	if v := c.record(t, s.tap(0, door.Out, clock(14, 5, 30))); !v[0].Merged {
		t.Errorf("a repeat of the last filled in pass is %+v", v[0])
	}
}

func TestOutOfOrderOrOfPeopleWithPassesNothingIsFilledIn(t *testing.T) {
	t.Parallel()
	c := newTown(t)
	s := c.school(t, "school", 2)
	c.record(t, s.tap(0, door.In, clock(8, 0, 0)))
	fill := func(taps ...door.Tap) error {
		return pgx.BeginFunc(t.Context(), c.pool, func(tx pgx.Tx) error {
			ids, err := ledger.NextEventIDs(t.Context(), tx, len(taps))
			must(t, err)
			for i := range taps {
				taps[i].Event = ids[i]
			}
			fill := c.recorder.Backfill(tx, clock(20, 0, 0))
			if err := fill.Add(t.Context(), taps); err != nil {
				return err
			}
			return fill.Finish(t.Context())
		})
	}
	for what, taps := range map[string][]door.Tap{
		"of somebody who has passes": {s.tap(0, door.In, monday.AddDate(0, 0, -1))},
		"out of order":               {s.tap(1, door.In, clock(9, 0, 0)), s.tap(1, door.Out, clock(8, 0, 0))},
		"without a direction":        {s.tap(1, 0, clock(9, 0, 0))},
	} {
		if err := fill(taps...); err == nil {
			t.Errorf("passes %s are filled in", what)
		}
	}
	var passes int
	must(t, c.pool.QueryRow(t.Context(), `SELECT count(*) FROM door.pass`).Scan(&passes))
	if passes != 1 {
		t.Errorf("%d passes are stored, want the one recorded", passes)
	}
}
