package door

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"

	"zvonok/access"
	"zvonok/ledger"
	"zvonok/ledger/pg"
)

// The breaker of the news "has not come": a school of which too few came at the
// usual minute, or a reader that says nothing, is more likely our fault than an
// epidemic (fault row 59).
const (
	fewArrivals  = 60                  // per cent of the usual number, of all readers and of each
	fewAtReader  = 5                   // people; below this a reader's number is chance, unless it is none at all
	usualDays    = 10                  // school days that say what is usual
	usualPeriod  = 30 * 24 * time.Hour // in which they are looked for
	absenceGrace = 2 * time.Hour       // a check that comes later than this is not news any more
)

// Missed is the job that tells parents that their children have not come. The
// facts are rows of door.absence, read by [Absences].
type Missed struct {
	EventIDs []int64 `json:"event_ids"`
}

// Kind names the job for River.
func (Missed) Kind() string { return "door_missed" }

// AbsenceState is where a batch of absences stands.
type AbsenceState string

// The states.
const (
	Held      AbsenceState = "held"      // waits for a person
	Released  AbsenceState = "released"  // the parents are told
	Cancelled AbsenceState = "cancelled" // nobody is told
)

// AbsenceBatch is who of an organisation had not come by the set time of a day.
type AbsenceBatch struct {
	ID           int64                 `json:"id"`
	Organisation ledger.OrganisationID `json:"-"`
	Code         string                `json:"organisation"` // of the organisation, as the registry has it
	Day          time.Time             `json:"day"`
	MadeAt       time.Time             `json:"made_at"`
	State        AbsenceState          `json:"state"`
	// Cause is why it was held: few_arrivals or silent_reader; empty when it was not.
	Cause string `json:"cause"`
	// Arrived had come by then; Usual is the median of the last school days, or all
	// who were expected when there were none in a month.
	Arrived   int       `json:"arrived"`
	Usual     int       `json:"usual"`
	Missing   int       `json:"missing"`
	DecidedAt time.Time `json:"decided_at,omitzero"`
	DecidedBy string    `json:"decided_by,omitempty"`
}

// SetAbsenceRule sets by when pupils must have come; nil switches the news off.
func SetAbsenceRule(
	ctx context.Context, q pg.Querier, organisation ledger.OrganisationID, by *ledger.ClockTime,
) error {
	query, args := `DELETE FROM door.absence_rule WHERE organisation_id = $1`, []any{organisation}
	if by != nil {
		query = `
			INSERT INTO door.absence_rule (organisation_id, by_time)
			VALUES ($1, time '00:00' + $2 * interval '1 second')
			    ON CONFLICT (organisation_id) DO UPDATE SET by_time = excluded.by_time`
		args = append(args, int64(time.Duration(*by)/time.Second))
	}
	if _, err := q.Exec(ctx, query, args...); err != nil {
		return fmt.Errorf("set when pupils of organisation %d must have come: %w", organisation, err)
	}
	return nil
}

// AbsenceRule is by when an organisation wants its pupils to have come.
type AbsenceRule struct {
	Organisation ledger.OrganisationID
	Code         string // of the organisation, as the registry has it
	By           ledger.ClockTime
}

// AbsenceRules lists the organisations that tell parents of absences, by code.
func AbsenceRules(ctx context.Context, q pg.Querier) ([]AbsenceRule, error) {
	rows, err := q.Query(ctx, `
		SELECT o.id, o.code, r.by_time - time '00:00'
		  FROM door.absence_rule r JOIN ledger.organisation o ON o.id = r.organisation_id ORDER BY o.code`)
	if err != nil {
		return nil, fmt.Errorf("list when pupils must have come: %w", err)
	}
	rules, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (AbsenceRule, error) {
		var (
			r  AbsenceRule
			by time.Duration
		)
		err := row.Scan(&r.Organisation, &r.Code, &by)
		r.By = ledger.ClockTime(by)
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("list when pupils must have come: %w", err)
	}
	return rules, nil
}

// CheckAbsence looks for organisations whose set time has passed today and were
// not looked at yet, and makes their batches: released at once when all looks as
// usual, held otherwise. It is to be called every minute; any number of
// processes may do so: the first one's batch of an organisation and day is the
// only one. Each organisation is a transaction of its own, so that trouble with
// one holds up no other; the error names all trouble. It returns the batches it made.
func (r *Recorder) CheckAbsence(ctx context.Context, pool *pgxpool.Pool, now time.Time) ([]AbsenceBatch, error) {
	due, err := dueAbsences(ctx, pool, now)
	if err != nil {
		return nil, err
	}
	var (
		made    []AbsenceBatch
		trouble []error
	)
	for _, d := range due { // a handful in any minute, once a day each
		err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			batch, ok, err := r.makeAbsence(ctx, tx, d, now)
			if ok && err == nil {
				made = append(made, batch)
			}
			return err
		})
		if err != nil {
			trouble = append(trouble, err)
		}
	}
	return made, errors.Join(trouble...)
}

// dueAbsence is an organisation whose set time has passed today.
type dueAbsence struct {
	organisation ledger.OrganisationID
	day          time.Time
	by           time.Time
}

func dueAbsences(ctx context.Context, q pg.Querier, now time.Time) ([]dueAbsence, error) {
	rows, err := q.Query(ctx, `
		SELECT organisation_id, day, by_moment
		  FROM (SELECT r.organisation_id, ($1::timestamptz AT TIME ZONE o.time_zone)::date AS day,
		               (($1::timestamptz AT TIME ZONE o.time_zone)::date + r.by_time) AT TIME ZONE o.time_zone AS by_moment
		          FROM door.absence_rule r
		          JOIN ledger.organisation o ON o.id = r.organisation_id) d
		 WHERE by_moment <= $1 AND by_moment > $1 - $2::interval
		   AND NOT EXISTS (SELECT FROM door.absence_batch b
		                    WHERE b.organisation_id = d.organisation_id AND b.day = d.day)
		 ORDER BY organisation_id`, now, absenceGrace)
	if err != nil {
		return nil, fmt.Errorf("find who is due for a look at absences: %w", err)
	}
	due, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (dueAbsence, error) {
		var d dueAbsence
		err := row.Scan(&d.organisation, &d.day, &d.by)
		return d, err
	})
	if err != nil {
		return nil, fmt.Errorf("find who is due for a look at absences: %w", err)
	}
	return due, nil
}

// makeAbsence makes the batch of one organisation; ok is false when another
// process has made it or there are no lessons today.
func (r *Recorder) makeAbsence(
	ctx context.Context, tx pgx.Tx, d dueAbsence, now time.Time,
) (batch AbsenceBatch, ok bool, err error) {
	a, err := ReadAttendance(ctx, tx, d.organisation, "", 0, d.day, d.day, d.by)
	if err != nil {
		return batch, false, err
	}
	pupils := make([]int64, 0, len(a.Members))
	for _, m := range a.Members {
		if m.Kind == ledger.Pupil {
			pupils = append(pupils, int64(m.Person))
		}
	}
	var missing []int64
	expected := 0
	for _, day := range a.Days {
		if day.Status != Excused && slices.Contains(pupils, int64(day.Person)) {
			expected++
		}
		if day.Status == Absent {
			missing = append(missing, int64(day.Person))
		}
	}
	batch = AbsenceBatch{
		Organisation: d.organisation, Code: a.Organisation.Code, Day: d.day, MadeAt: now, State: Released, Missing: len(missing),
	}
	silent, err := batch.compare(ctx, tx, pupils, expected, d, a.Organisation.Location)
	if err != nil {
		return batch, false, err
	}
	switch {
	case len(missing) == 0: // stored all the same: it has been looked at
	case 100*batch.Arrived < fewArrivals*batch.Usual:
		batch.State, batch.Cause = Held, "few_arrivals"
	case silent:
		batch.State, batch.Cause = Held, "silent_reader"
	}
	err = tx.QueryRow(ctx, `
		INSERT INTO door.absence_batch (organisation_id, day, made_at, state, cause, arrived, usual)
		VALUES ($1, $2, $3, $4, $5, $6, $7)
		    ON CONFLICT DO NOTHING RETURNING id`,
		batch.Organisation, batch.Day, now, batch.State, batch.Cause, batch.Arrived, batch.Usual).Scan(&batch.ID)
	if errors.Is(err, pgx.ErrNoRows) {
		return batch, false, nil
	}
	if err != nil {
		return batch, false, fmt.Errorf("make the absences of organisation %d: %w", d.organisation, err)
	}
	if len(missing) == 0 {
		return batch, false, nil
	}
	_, err = tx.Exec(ctx, `
		INSERT INTO door.absence (event_id, batch_id, person_id, at)
		SELECT nextval('ledger.event_id'), $1, person_id, $3 FROM unnest($2::bigint[]) person_id`,
		batch.ID, missing, d.by)
	if err != nil {
		return batch, false, fmt.Errorf("make the absences of organisation %d: %w", d.organisation, err)
	}
	if batch.State == Released {
		if err := r.tellAbsence(ctx, tx, batch.ID); err != nil {
			return batch, false, err
		}
	}
	return batch, true, nil
}

// compare counts who had come by the set time, today and on the last school
// days, and tells whether a reader is silent: today it saw nobody, or far fewer
// than it usually sees by then, as one does that lost its network at ten to nine.
// While nothing is known to be usual, as in the first days with doors and after
// the summer, all who are expected are.
func (b *AbsenceBatch) compare(
	ctx context.Context, q pg.Querier, pupils []int64, expected int, d dueAbsence, zone *time.Location,
) (silent bool, err error) {
	begin := midnight(d.day, zone).Add(-usualPeriod)
	rows, err := q.Query(ctx, `
		SELECT (at AT TIME ZONE $4)::date AS day, device_id, count(DISTINCT person_id)
		  FROM door.pass
		 WHERE person_id = ANY($1) AND at >= $2 AND at < $3 AND direction = 1
		   AND (at AT TIME ZONE $4)::time < ($3::timestamptz AT TIME ZONE $4)::time
		 GROUP BY GROUPING SETS ((day), (day, device_id))`, pupils, begin, d.by, zone.String())
	if err != nil {
		return false, fmt.Errorf("count the usual arrivals of organisation %d: %w", b.Organisation, err)
	}
	var (
		today      = dayNumber(d.day)
		arrivals   = map[int64]int{}           // by day
		byReader   = map[int64]map[int64]int{} // by device and day
		day        time.Time
		device     *int64
		people     int
		schooldays []int64
	)
	_, err = pgx.ForEachRow(rows, []any{&day, &device, &people}, func() error {
		n := dayNumber(day)
		if device == nil {
			arrivals[n] = people
			if n != today {
				schooldays = append(schooldays, n)
			}
			return nil
		}
		if byReader[*device] == nil {
			byReader[*device] = map[int64]int{}
		}
		byReader[*device][n] = people
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("count the usual arrivals of organisation %d: %w", b.Organisation, err)
	}
	slices.Sort(schooldays)
	schooldays = schooldays[max(0, len(schooldays)-usualDays):]
	b.Arrived = arrivals[today]
	if len(schooldays) == 0 {
		b.Usual = expected
		return false, nil
	}
	b.Usual = median(arrivals, schooldays)
	for _, counts := range byReader {
		usual := median(counts, schooldays)
		silent = silent || usual > 0 && counts[today] == 0 ||
			usual >= fewAtReader && 100*counts[today] < fewArrivals*usual
	}
	return silent, nil
}

// median is the middle one of the counts of these days; a day without one counts as 0.
func median(counts map[int64]int, days []int64) int {
	sorted := make([]int, len(days))
	for i, day := range days {
		sorted[i] = counts[day]
	}
	slices.Sort(sorted)
	return sorted[len(sorted)/2]
}

// tellAbsence inserts the job of a released batch.
func (r *Recorder) tellAbsence(ctx context.Context, tx pgx.Tx, batch int64) error {
	rows, err := tx.Query(ctx, `SELECT event_id FROM door.absence WHERE batch_id = $1 ORDER BY event_id`, batch)
	if err != nil {
		return fmt.Errorf("release the absences %d: %w", batch, err)
	}
	events, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return fmt.Errorf("release the absences %d: %w", batch, err)
	}
	job := river.InsertManyParams{Args: Missed{EventIDs: events}}
	if _, err := r.river.InsertManyFastTx(ctx, tx, []river.InsertManyParams{job}); err != nil {
		return fmt.Errorf("insert the job that tells of absences: %w", err)
	}
	return nil
}

// HeldAbsences lists the batches that wait for a person, the oldest first, of one
// organisation or, for 0, of all.
func HeldAbsences(ctx context.Context, q pg.Querier, organisation ledger.OrganisationID) ([]AbsenceBatch, error) {
	return readBatches(ctx, q, `b.state = 'held' AND ($1 = 0 OR b.organisation_id = $1) ORDER BY b.made_at, b.id`, organisation)
}

// AbsencesSince lists all batches from a day on, the latest first, of one
// organisation or, for 0, of all.
func AbsencesSince(
	ctx context.Context, q pg.Querier, organisation ledger.OrganisationID, day time.Time,
) ([]AbsenceBatch, error) {
	return readBatches(ctx, q, `($1 = 0 OR b.organisation_id = $1) AND b.day >= $2 ORDER BY b.day DESC, b.id DESC`,
		organisation, day)
}

func readBatches(ctx context.Context, q pg.Querier, condition string, args ...any) ([]AbsenceBatch, error) {
	rows, err := q.Query(ctx, `
		SELECT b.id, b.organisation_id, o.code, b.day, b.made_at, b.state, b.cause, b.arrived, b.usual,
		       (SELECT count(*) FROM door.absence a WHERE a.batch_id = b.id), b.decided_at, coalesce(b.decided_by, '')
		  FROM door.absence_batch b
		  JOIN ledger.organisation o ON o.id = b.organisation_id
		 WHERE `+condition, args...)
	if err != nil {
		return nil, fmt.Errorf("list batches of absences: %w", err)
	}
	batches, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (AbsenceBatch, error) {
		var (
			b       AbsenceBatch
			decided *time.Time
		)
		err := row.Scan(&b.ID, &b.Organisation, &b.Code, &b.Day, &b.MadeAt, &b.State, &b.Cause, &b.Arrived, &b.Usual,
			&b.Missing, &decided, &b.DecidedBy)
		b.DecidedAt = orZero(decided)
		return b, err
	})
	if err != nil {
		return nil, fmt.Errorf("list batches of absences: %w", err)
	}
	return batches, nil
}

// ErrNotHeld is a batch that does not wait, or does not exist.
var ErrNotHeld = errors.New("no such held batch of absences")

// DecideAbsence releases a held batch, so that the parents are told, or cancels
// it; organisation is whose it must be, 0 for any. It returns [ErrNotHeld].
func (r *Recorder) DecideAbsence(
	ctx context.Context, tx pgx.Tx, organisation ledger.OrganisationID, batch int64, release bool,
	by access.Actor, now time.Time,
) error {
	state := Cancelled
	if release {
		state = Released
	}
	tag, err := tx.Exec(ctx, `
		UPDATE door.absence_batch SET state = $2, decided_at = $3, decided_by = $4
		 WHERE id = $1 AND state = 'held' AND ($5 = 0 OR organisation_id = $5)`,
		batch, state, now, by.String(), organisation)
	if err != nil {
		return fmt.Errorf("decide on the absences %d: %w", batch, err)
	}
	if tag.RowsAffected() == 0 {
		return ErrNotHeld
	}
	if !release {
		return nil
	}
	return r.tellAbsence(ctx, tx, batch)
}

// AbsentPupil is a fact of which the parents are told: somebody had not come.
type AbsentPupil struct {
	Event        ledger.EventID
	Person       ledger.PersonID
	Organisation ledger.OrganisationID
	Zone         string    // of the organisation
	At           time.Time // the time by which the pupil was to come
	// Came is set when the pupil has come since, Excused when somebody has said
	// why not, so that nobody is frightened late.
	Came, Excused bool
}

// Absences reads the facts that a job names, as they look now.
func Absences(ctx context.Context, q pg.Querier, job Missed) ([]AbsentPupil, error) {
	rows, err := q.Query(ctx, `
		SELECT a.event_id, a.person_id, o.id, o.time_zone, a.at,
		       EXISTS (SELECT FROM door.pass p
		                WHERE p.person_id = a.person_id AND p.direction = 1
		                  AND p.at >= b.day::timestamp AT TIME ZONE o.time_zone
		                  AND p.at < (b.day + 1)::timestamp AT TIME ZONE o.time_zone),
		       EXISTS (SELECT FROM door.excuse e
		                WHERE e.person_id = a.person_id AND e.withdrawn_at IS NULL
		                  AND b.day BETWEEN e.first_day AND e.last_day)
		  FROM door.absence a
		  JOIN door.absence_batch b ON b.id = a.batch_id
		  JOIN ledger.organisation o ON o.id = b.organisation_id
		 WHERE a.event_id = ANY($1)
		 ORDER BY a.event_id`, job.EventIDs)
	if err != nil {
		return nil, fmt.Errorf("read %d absences: %w", len(job.EventIDs), err)
	}
	absences, err := pgx.CollectRows(rows, pgx.RowToStructByPos[AbsentPupil])
	if err != nil {
		return nil, fmt.Errorf("read %d absences: %w", len(job.EventIDs), err)
	}
	return absences, nil
}
