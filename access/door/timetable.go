package door

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/ledger"
	"zvonok/ledger/pg"
)

// Lesson is when a group's day begins on a weekday.
type Lesson struct {
	Group   string // "" for every group that has none of its own
	Weekday time.Weekday
	Begins  ledger.ClockTime
}

// SetTimetable replaces the timetable of an organisation. Without one nobody is
// late and nobody is missed.
func SetTimetable(
	ctx context.Context, tx pgx.Tx, organisation ledger.OrganisationID, lessons []Lesson,
) error {
	groups, weekdays := make([]string, len(lessons)), make([]int16, len(lessons))
	begins := make([]int64, len(lessons))
	for i, l := range lessons {
		if l.Begins < 0 || l.Begins >= ledger.ClockTime(24*time.Hour) {
			return fmt.Errorf("the timetable of organisation %d: a day begins between 00:00 and 24:00", organisation)
		}
		groups[i], weekdays[i], begins[i] = l.Group, int16(l.Weekday), int64(time.Duration(l.Begins)/time.Second)
	}
	var batch pgx.Batch
	batch.Queue(`DELETE FROM door.timetable WHERE organisation_id = $1`, organisation)
	batch.Queue(`
		INSERT INTO door.timetable (organisation_id, group_name, weekday, begins)
		SELECT $1, group_name, weekday, time '00:00' + begins * interval '1 second'
		  FROM unnest($2::text[], $3::smallint[], $4::bigint[]) AS t (group_name, weekday, begins)`,
		organisation, groups, weekdays, begins)
	if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
		return fmt.Errorf("set the timetable of organisation %d: %w", organisation, err)
	}
	return nil
}

// SetHoliday makes a day one without lessons, or one with lessons again.
func SetHoliday(
	ctx context.Context, q pg.Querier, organisation ledger.OrganisationID, day time.Time, holiday bool,
) error {
	query := `INSERT INTO door.holiday (organisation_id, day) VALUES ($1, $2) ON CONFLICT DO NOTHING`
	if !holiday {
		query = `DELETE FROM door.holiday WHERE organisation_id = $1 AND day = $2`
	}
	if _, err := q.Exec(ctx, query, organisation, day); err != nil {
		return fmt.Errorf("set a holiday of organisation %d: %w", organisation, err)
	}
	return nil
}

// Timetable reads when the days of an organisation's groups begin, by group and weekday.
func Timetable(ctx context.Context, q pg.Querier, organisation ledger.OrganisationID) ([]Lesson, error) {
	rows, err := q.Query(ctx, `
		SELECT group_name, weekday, begins - time '00:00' FROM door.timetable
		 WHERE organisation_id = $1 ORDER BY group_name, weekday`, organisation)
	if err != nil {
		return nil, fmt.Errorf("read the timetable of organisation %d: %w", organisation, err)
	}
	lessons, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Lesson, error) {
		var (
			l       Lesson
			weekday int16
			begins  time.Duration
		)
		err := row.Scan(&l.Group, &weekday, &begins)
		l.Weekday, l.Begins = time.Weekday(weekday), ledger.ClockTime(begins)
		return l, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the timetable of organisation %d: %w", organisation, err)
	}
	return lessons, nil
}

// Holidays lists the days without lessons of an organisation from a day on.
func Holidays(
	ctx context.Context, q pg.Querier, organisation ledger.OrganisationID, from time.Time,
) ([]time.Time, error) {
	rows, err := q.Query(ctx, `
		SELECT day FROM door.holiday WHERE organisation_id = $1 AND day >= $2 ORDER BY day`, organisation, from)
	if err != nil {
		return nil, fmt.Errorf("read the holidays of organisation %d: %w", organisation, err)
	}
	days, err := pgx.CollectRows(rows, pgx.RowTo[time.Time])
	if err != nil {
		return nil, fmt.Errorf("read the holidays of organisation %d: %w", organisation, err)
	}
	return days, nil
}

// Excuse is why a person does not come on some days, as a parent or a teacher says.
type Excuse struct {
	ID        int64
	Person    ledger.PersonID
	FirstDay  time.Time // midnight UTC
	LastDay   time.Time // the last day counts
	Reason    string
	By        access.Actor // when an excuse is read: see Actor
	Actor     string       // who said so, as "staff:staff-3"
	CreatedAt time.Time
}

// Excuses lists the excuses of an organisation's people that cover some of these
// days, both included, the latest first; person narrows them to one, 0 to none.
// What was withdrawn is not among them.
func Excuses(
	ctx context.Context, q pg.Querier, organisation ledger.OrganisationID, person ledger.PersonID, from, to time.Time,
) ([]Excuse, error) {
	rows, err := q.Query(ctx, `
		SELECT e.id, e.person_id, e.first_day, e.last_day, e.reason, e.actor, e.created_at
		  FROM ledger.person p
		  JOIN door.excuse e ON e.person_id = p.id AND e.last_day >= $3 AND e.first_day <= $4
		 WHERE p.organisation_id = $1 AND ($2::bigint = 0 OR p.id = $2) AND e.withdrawn_at IS NULL
		 ORDER BY e.first_day DESC, e.id DESC`, organisation, person, from, to)
	if err != nil {
		return nil, fmt.Errorf("list the excuses of organisation %d: %w", organisation, err)
	}
	excuses, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Excuse, error) {
		var e Excuse
		err := row.Scan(&e.ID, &e.Person, &e.FirstDay, &e.LastDay, &e.Reason, &e.Actor, &e.CreatedAt)
		return e, err
	})
	if err != nil {
		return nil, fmt.Errorf("list the excuses of organisation %d: %w", organisation, err)
	}
	return excuses, nil
}

// ErrExcuse is an excuse whose days or reason cannot be.
var ErrExcuse = errors.New("an excuse has a reason and at most a year of days")

// maxReason bounds a reason, in characters.
const maxReason = 200

// AddExcuse notes why a person does not come. It returns the id of the note.
func AddExcuse(ctx context.Context, q pg.Querier, e Excuse, now time.Time) (int64, error) {
	e.Reason = strings.Join(strings.Fields(e.Reason), " ")
	if e.Reason == "" || len([]rune(e.Reason)) > maxReason || e.LastDay.Before(e.FirstDay) ||
		e.LastDay.Sub(e.FirstDay) > maxPeriod {
		return 0, ErrExcuse
	}
	var id int64
	err := q.QueryRow(ctx, `
		INSERT INTO door.excuse (person_id, first_day, last_day, reason, actor, created_at)
		VALUES ($1, $2, $3, $4, $5, $6) RETURNING id`,
		e.Person, e.FirstDay, e.LastDay, e.Reason, e.By.String(), now).Scan(&id)
	if err != nil {
		return 0, fmt.Errorf("excuse person %d: %w", e.Person, err)
	}
	return id, nil
}

// ErrNoExcuse is an excuse that the organisation does not have.
var ErrNoExcuse = errors.New("no such excuse")

// WithdrawExcuse takes an excuse of one of the organisation's people back; doing
// so again changes nothing. It returns [ErrNoExcuse].
func WithdrawExcuse(
	ctx context.Context, q pg.Querier, organisation ledger.OrganisationID, id int64, now time.Time,
) error {
	tag, err := q.Exec(ctx, `
		UPDATE door.excuse e SET withdrawn_at = coalesce(e.withdrawn_at, $2)
		  FROM ledger.person p WHERE e.id = $1 AND p.id = e.person_id AND p.organisation_id = $3`, id, now, organisation)
	if err != nil {
		return fmt.Errorf("withdraw the excuse %d: %w", id, err)
	}
	if tag.RowsAffected() == 0 {
		return ErrNoExcuse
	}
	return nil
}

// timetable answers when a group's day begins.
type timetable struct {
	zone     *time.Location
	lessons  map[lessonKey]ledger.ClockTime
	grouped  map[string]bool // groups with lessons of their own
	holidays map[int64]bool  // by the number of the day
}

type lessonKey struct {
	group   string
	weekday time.Weekday
}

func readTimetable(
	ctx context.Context, q pg.Querier, organisation ledger.Organisation, from, to time.Time,
) (*timetable, error) {
	t := &timetable{
		zone: organisation.Location, lessons: map[lessonKey]ledger.ClockTime{}, grouped: map[string]bool{},
		holidays: map[int64]bool{},
	}
	rows, err := q.Query(ctx, `
		SELECT group_name, weekday, extract(epoch FROM begins)::bigint FROM door.timetable WHERE organisation_id = $1`,
		organisation.ID)
	if err != nil {
		return nil, fmt.Errorf("read the timetable of organisation %d: %w", organisation.ID, err)
	}
	var (
		group   string
		weekday int16
		begins  int64
		day     time.Time
	)
	_, err = pgx.ForEachRow(rows, []any{&group, &weekday, &begins}, func() error {
		t.lessons[lessonKey{group, time.Weekday(weekday)}] = ledger.ClockTime(time.Duration(begins) * time.Second)
		t.grouped[group] = true
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the timetable of organisation %d: %w", organisation.ID, err)
	}
	rows, err = q.Query(ctx, `
		SELECT day FROM door.holiday WHERE organisation_id = $1 AND day BETWEEN $2 AND $3`, organisation.ID, from, to)
	if err != nil {
		return nil, fmt.Errorf("read the holidays of organisation %d: %w", organisation.ID, err)
	}
	_, err = pgx.ForEachRow(rows, []any{&day}, func() error {
		t.holidays[dayNumber(day)] = true
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the holidays of organisation %d: %w", organisation.ID, err)
	}
	return t, nil
}

// begins returns when a group's day begins; school is false when it has no
// lessons on that day.
func (t *timetable) begins(group string, date time.Time) (at time.Time, school bool) {
	if t.holidays[dayNumber(date)] {
		return time.Time{}, false
	}
	if !t.grouped[group] {
		group = ""
	}
	clock, school := t.lessons[lessonKey{group, date.Weekday()}]
	if !school {
		return time.Time{}, false
	}
	return time.Date(date.Year(), date.Month(), date.Day(), 0, 0, int(time.Duration(clock)/time.Second), 0, t.zone), true
}
