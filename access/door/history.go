package door

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/ledger"
	"zvonok/ledger/pg"
)

// Pass is a recorded pass.
type Pass struct {
	Event        ledger.EventID
	At           time.Time
	RawAt        time.Time // what the device's clock said
	ReceivedAt   time.Time
	Person       ledger.PersonID
	Organisation ledger.OrganisationID
	Building     ledger.BuildingID
	Device       int64
	Direction    Direction
	Kind         Kind
	Merged       bool
	Suspected    bool
	Inferred     bool
	Silent       bool
	Card         access.CardID           // 0 without a card
	Companion    access.RepresentativeID // 0 when nobody was named
	AdmittedBy   ledger.PersonID         // 0 unless let in by staff
	Alarm        Alarm
}

const passColumns = `
	SELECT p.event_id, p.at, coalesce(p.raw_at, p.at), p.received_at, p.person_id, p.organisation_id, p.building_id,
	       p.device_id, p.direction, p.kind, p.merged, p.suspected, p.inferred, p.silent,
	       coalesce(p.card_id, 0), coalesce(p.companion_id, 0), coalesce(p.admitted_by, 0), coalesce(a.kind, '')
	  FROM door.pass p
	  LEFT JOIN door.alarm a ON a.event_id = p.event_id`

// Passes reads the passes that a job names, in the order of their times.
func Passes(ctx context.Context, q pg.Querier, job Passed) ([]Pass, error) {
	rows, err := q.Query(ctx, passColumns+`
		 WHERE p.event_id = ANY($1) AND p.at BETWEEN $2 AND $3
		 ORDER BY p.at, p.event_id`, job.EventIDs, job.From, job.To)
	if err != nil {
		return nil, fmt.Errorf("read %d passes: %w", len(job.EventIDs), err)
	}
	passes, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Pass])
	if err != nil {
		return nil, fmt.Errorf("read %d passes: %w", len(job.EventIDs), err)
	}
	return passes, nil
}

// FindPass reads one pass by its event id alone, wherever in time it lies; found
// is false when the event is not a pass.
func FindPass(ctx context.Context, q pg.Querier, event ledger.EventID) (pass Pass, found bool, err error) {
	rows, err := q.Query(ctx, passColumns+` WHERE p.event_id = $1`, event)
	if err != nil {
		return Pass{}, false, fmt.Errorf("find the pass %d: %w", event, err)
	}
	passes, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Pass])
	if err != nil {
		return Pass{}, false, fmt.Errorf("find the pass %d: %w", event, err)
	}
	if len(passes) == 0 {
		return Pass{}, false, nil
	}
	return passes[0], true, nil
}

// History reads a person's passes from a moment until before another, in the
// order of their times, merged ones included.
func History(ctx context.Context, q pg.Querier, person ledger.PersonID, from, until time.Time) ([]Pass, error) {
	rows, err := q.Query(ctx, passColumns+`
		 WHERE p.person_id = $1 AND p.at >= $2 AND p.at < $3
		 ORDER BY p.at, p.event_id`, person, from, until)
	if err != nil {
		return nil, fmt.Errorf("read the passes of person %d: %w", person, err)
	}
	passes, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Pass])
	if err != nil {
		return nil, fmt.Errorf("read the passes of person %d: %w", person, err)
	}
	return passes, nil
}
