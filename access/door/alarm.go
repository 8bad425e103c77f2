package door

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/ledger"
	"zvonok/ledger/pg"
)

// Alarm is what staff and the legal representatives must learn at once: a
// kindergarten child went out and nobody who may lead it was named (D10).
type Alarm string

// The alarms.
const (
	NoAlarm           Alarm = ""
	NoCompanion       Alarm = "no_companion"       // with the child's own card only
	UnlistedCompanion Alarm = "unlisted_companion" // with somebody who is not on the child's list, or no longer
	YoungCompanion    Alarm = "young_companion"    // with somebody below the organisation's age of companions
)

// Alarms lists every alarm, for labels and tables.
func Alarms() []Alarm { return []Alarm{NoCompanion, UnlistedCompanion, YoungCompanion} }

// Exit is somebody who leaves, or wants to leave, an organisation.
type Exit struct {
	Organisation ledger.OrganisationID
	Person       ledger.PersonID
	// Companion, UnknownCompanion and ByStaff are as in [Tap].
	Companion        access.RepresentativeID
	UnknownCompanion bool
	ByStaff          bool
	At               time.Time
}

// JudgeExits tells for each exit whether it is in order: [NoAlarm], or what is
// wrong with it. Only a child of a kindergarten needs somebody who may lead it
// (D10); a member of staff who lets a child out has handed it over.
func (r *Recorder) JudgeExits(ctx context.Context, q pg.Querier, now time.Time, exits []Exit) ([]Alarm, error) {
	alarms := make([]Alarm, len(exits))
	organisations := make([]ledger.OrganisationID, len(exits))
	for i, exit := range exits {
		organisations[i] = exit.Organisation
	}
	book, err := r.rules.of(ctx, q, organisations, now)
	if err != nil {
		return nil, err
	}
	var people []ledger.PersonID
	for _, exit := range exits {
		if book[exit.Organisation].Kind == ledger.Kindergarten {
			people = append(people, exit.Person)
		}
	}
	if len(people) == 0 {
		return alarms, nil
	}
	known, err := ledger.People(ctx, q, people)
	if err != nil {
		return nil, err
	}
	var (
		led   []int
		leads []access.Lead
	)
	for i, exit := range exits {
		switch {
		case known[exit.Person].Kind != ledger.Pupil || book[exit.Organisation].Kind != ledger.Kindergarten:
		case exit.Companion != 0:
			led = append(led, i)
			leads = append(leads, access.Lead{Child: exit.Person, Companion: exit.Companion, At: exit.At})
		case exit.UnknownCompanion:
			alarms[i] = UnlistedCompanion
		case !exit.ByStaff:
			alarms[i] = NoCompanion
		}
	}
	may, err := access.MayLead(ctx, q, leads)
	if err != nil {
		return nil, err
	}
	for k, verdict := range may {
		alarms[led[k]] = alarmOf(verdict)
	}
	return alarms, nil
}

func alarmOf(verdict access.LeadVerdict) Alarm {
	switch verdict {
	case access.LeadYes:
		return NoAlarm
	case access.LeadTooYoung:
		return YoungCompanion
	default:
		return UnlistedCompanion
	}
}

// raiseAlarms judges the exits of a batch.
func (r *Recorder) raiseAlarms(ctx context.Context, tx pgx.Tx, now time.Time, b *recording) error {
	var (
		of    []int
		exits []Exit
	)
	for i, t := range b.taps {
		if t.Direction == Out {
			of = append(of, i)
			exits = append(exits, Exit{
				Organisation: t.Organisation, Person: t.Person, Companion: t.Companion,
				UnknownCompanion: t.UnknownCompanion, ByStaff: t.Kind == ByStaff, At: t.At,
			})
		}
	}
	alarms, err := r.JudgeExits(ctx, tx, now, exits)
	if err != nil {
		return err
	}
	for k, alarm := range alarms {
		b.verdicts[of[k]].Alarm = alarm
	}
	return nil
}

func (b *recording) queueAlarms(batch *pgx.Batch, now time.Time) {
	var (
		events, people, organisations, buildings []int64
		ats                                      []time.Time
		kinds                                    []string
	)
	for i, v := range b.verdicts {
		if v.Alarm == NoAlarm {
			continue
		}
		t := b.taps[i]
		events, people = append(events, int64(t.Event)), append(people, int64(t.Person))
		organisations, buildings = append(organisations, int64(t.Organisation)), append(buildings, int64(t.Building))
		ats, kinds = append(ats, t.At), append(kinds, string(v.Alarm))
	}
	if len(events) == 0 {
		return
	}
	batch.Queue(`
		INSERT INTO door.alarm (event_id, at, person_id, organisation_id, building_id, kind, raised_at)
		SELECT event_id, at, person_id, organisation_id, building_id, kind, $7
		  FROM unnest($1::bigint[], $2::timestamptz[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[])
		       AS t (event_id, at, person_id, organisation_id, building_id, kind)`,
		events, ats, people, organisations, buildings, kinds, now)
}

// Raised is an alarm as staff see it.
type Raised struct {
	Event     ledger.EventID
	At        time.Time
	Person    ledger.PersonID
	Building  ledger.BuildingID
	Kind      Alarm
	RaisedAt  time.Time
	SettledAt time.Time // zero while it is open
	SettledBy string
}

// RaisedAlarms lists an organisation's alarms from a moment on, the latest first.
func RaisedAlarms(
	ctx context.Context, q pg.Querier, organisation ledger.OrganisationID, since time.Time,
) ([]Raised, error) {
	rows, err := q.Query(ctx, `
		SELECT event_id, at, person_id, building_id, kind, raised_at, settled_at, coalesce(settled_by, '')
		  FROM door.alarm
		 WHERE organisation_id = $1 AND at >= $2
		 ORDER BY at DESC, event_id DESC`, organisation, since)
	if err != nil {
		return nil, fmt.Errorf("list the alarms of organisation %d: %w", organisation, err)
	}
	alarms, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Raised, error) {
		var (
			r       Raised
			settled *time.Time
		)
		err := row.Scan(&r.Event, &r.At, &r.Person, &r.Building, &r.Kind, &r.RaisedAt, &settled, &r.SettledBy)
		r.SettledAt = orZero(settled)
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("list the alarms of organisation %d: %w", organisation, err)
	}
	return alarms, nil
}

// ErrNoAlarm says that there is no open alarm of that event.
var ErrNoAlarm = errors.New("no such open alarm")

// Settle notes that somebody has looked after an alarm of an organisation. It
// returns [ErrNoAlarm] when there is none or it was settled before.
func Settle(
	ctx context.Context, q pg.Querier, organisation ledger.OrganisationID, event ledger.EventID, by access.Actor,
	now time.Time,
) error {
	tag, err := q.Exec(ctx, `
		UPDATE door.alarm SET settled_at = $2, settled_by = $3
		 WHERE event_id = $1 AND settled_at IS NULL AND organisation_id = $4`,
		event, now, by.String(), organisation)
	if err != nil {
		return fmt.Errorf("settle the alarm of event %d: %w", event, err)
	}
	if tag.RowsAffected() == 0 {
		return ErrNoAlarm
	}
	return nil
}
