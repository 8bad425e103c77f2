package notice

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/access/door"
	"zvonok/ledger"
)

// missed makes the absences of the day as of nine o'clock, and returns the job
// that tells of them.
func (b *bench) missed() door.Missed {
	b.t.Helper()
	ctx := b.t.Context()
	by := ledger.ClockTime(9 * time.Hour)
	recorder := door.NewRecorder(b.jobs)
	err := pgx.BeginFunc(ctx, b.pool, func(tx pgx.Tx) error {
		if err := door.SetAbsenceRule(ctx, tx, b.org, &by); err != nil {
			return err
		}
		return door.SetTimetable(ctx, tx, b.org, []door.Lesson{{Weekday: morning.Weekday(), Begins: by}})
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.now = morning.Add(46 * time.Minute) // 09:01
	batches, err := recorder.CheckAbsence(ctx, b.pool, b.now)
	if err != nil || len(batches) != 1 {
		b.t.Fatal(batches, err)
	}
	// Nobody has ever come: somebody looks, and releases it.
	if err := pgx.BeginFunc(ctx, b.pool, func(tx pgx.Tx) error {
		return recorder.DecideAbsence(ctx, tx, b.org, batches[0].ID, true, access.ByStaff("staff-1"), b.now)
	}); err != nil {
		b.t.Fatal(err)
	}
	var job door.Missed
	err = b.pool.QueryRow(ctx, `SELECT args FROM river.river_job WHERE kind = 'door_missed'`).Scan(&job)
	if err != nil {
		b.t.Fatal(err)
	}
	return job
}

func (b *bench) tellOfAbsence(job door.Missed) {
	b.t.Helper()
	if err := b.teller.tellMissed(b.t.Context(), job); err != nil {
		b.t.Fatal(err)
	}
}

// Issue 6, item 4: "did not arrive" goes to who wants the visits told, once, and
// not about a child that has come or is excused by then.
func TestWhoWantsVisitsIsToldThatTheChildHasNotCome(t *testing.T) {
	t.Parallel()
	b := setup(t)
	job := b.missed()
	b.pass("b1", b.now, "petya") // came at 09:01, after the batch was made
	b.tellOfAbsence(job)
	b.tellOfAbsence(job)
	expect(t, "messages", b.sent(),
		"email mother@example.org Нет отметки о приходе: Маша",
		"sms 79000000001 Маша П.: к 09:00 нет отметки о приходе",
		"sms 79000000002 Masha P.: k 09:00 net otmetki o prikhode",
		"sms 79000000003 Masha P.: no arrival recorded by 09:00")
	if n := len(b.verdicts()); n == 0 {
		t.Error("no verdicts are on record")
	}
}

func TestNobodyIsToldOfAnAbsenceThatIsExplainedOrPast(t *testing.T) {
	t.Parallel()
	b := setup(t)
	job := b.missed()
	day := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	for _, child := range []string{"masha", "petya"} {
		if _, err := door.AddExcuse(t.Context(), b.pool, door.Excuse{
			Person: b.people[child], FirstDay: day, LastDay: day, Reason: "болеет", By: access.ByStaff("staff-1"),
		}, b.now); err != nil {
			t.Fatal(err)
		}
	}
	b.tellOfAbsence(job)
	expect(t, "messages", b.sent())

	late := setup(t)
	job = late.missed()
	late.now = late.now.Add(absenceLife)
	late.tellOfAbsence(job)
	expect(t, "messages in the afternoon", late.sent())
}
