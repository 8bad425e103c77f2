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

// Denial is a door that refused somebody: a fact for staff, of which nobody else
// is told.
type Denial struct {
	Event        ledger.EventID
	Device       int64
	Organisation ledger.OrganisationID
	Building     ledger.BuildingID
	Card         access.UID
	Person       ledger.PersonID // 0 when the card is nobody's here
	Direction    Direction       // 0 when the reader did not say
	Reason       string          // the device's own word, such as "unknown" or "blocked"
	At           time.Time
	ReceivedAt   time.Time
}

// Deny records that doors refused people, in the caller's transaction.
func (r *Recorder) Deny(ctx context.Context, tx pgx.Tx, denials []Denial) error {
	if len(denials) == 0 {
		return nil
	}
	n := len(denials)
	var (
		events, devices, organisations = make([]int64, n), make([]int64, n), make([]int64, n)
		buildings, people              = make([]int64, n), make([]int64, n)
		cards, reasons                 = make([]string, n), make([]string, n)
		directions                     = make([]int16, n)
		ats, received                  = make([]time.Time, n), make([]time.Time, n)
	)
	for i, d := range denials {
		events[i], devices[i], organisations[i] = int64(d.Event), d.Device, int64(d.Organisation)
		buildings[i], people[i] = int64(d.Building), int64(d.Person)
		cards[i], reasons[i], directions[i] = string(d.Card), d.Reason, int16(d.Direction)
		ats[i], received[i] = d.At, d.ReceivedAt
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO door.denial (event_id, at, received_at, organisation_id, building_id, device_id, card_uid,
		                         person_id, direction, reason)
		SELECT event_id, at, received_at, organisation_id, building_id, device_id, card_uid,
		       nullif(person_id, 0), nullif(direction, 0::smallint), reason
		  FROM unnest($1::bigint[], $2::timestamptz[], $3::timestamptz[], $4::bigint[], $5::bigint[], $6::bigint[],
		              $7::text[], $8::bigint[], $9::smallint[], $10::text[])
		       AS t (event_id, at, received_at, organisation_id, building_id, device_id,
		             card_uid, person_id, direction, reason)`,
		events, ats, received, organisations, buildings, devices, cards, people, directions, reasons)
	if err != nil {
		return fmt.Errorf("store %d denials: %w", n, err)
	}
	return nil
}

// Refused is a denial as staff see it.
type Refused struct {
	Event      ledger.EventID
	At         time.Time
	Building   string // the registry's id
	Device     int64
	Card       access.UID
	Person     ledger.PersonID // 0 when the card is nobody's here
	Direction  Direction       // 0 when the reader did not say
	Reason     string
	ReceivedAt time.Time
}

// Denials lists whom the doors of an organisation refused from a moment until
// before another, the latest first, at most limit of them.
func Denials(
	ctx context.Context, q pg.Querier, organisation ledger.OrganisationID, from, until time.Time, limit int,
) ([]Refused, error) {
	rows, err := q.Query(ctx, `
		SELECT d.event_id, d.at, coalesce(b.code, ''), d.device_id, d.card_uid, coalesce(d.person_id, 0),
		       coalesce(d.direction, 0), d.reason, d.received_at
		  FROM door.denial d
		  LEFT JOIN ledger.building b ON b.id = d.building_id
		 WHERE d.organisation_id = $1 AND d.at >= $2 AND d.at < $3
		 ORDER BY d.at DESC, d.event_id DESC
		 LIMIT $4`, organisation, from, until, limit)
	if err != nil {
		return nil, fmt.Errorf("list the denials of organisation %d: %w", organisation, err)
	}
	denials, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Refused])
	if err != nil {
		return nil, fmt.Errorf("list the denials of organisation %d: %w", organisation, err)
	}
	return denials, nil
}

// Suspicion is a card that turned a door twice within seconds, as when a second
// child passes on it (spec/door.md); for staff only.
type Suspicion struct {
	Event     ledger.EventID
	At        time.Time
	Person    ledger.PersonID
	Building  string // the registry's id
	Direction Direction
}

// Suspicions lists those of an organisation from a moment until before another,
// which is meant for a day or a week: every pass of that time is looked at.
func Suspicions(
	ctx context.Context, q pg.Querier, organisation ledger.OrganisationID, from, until time.Time,
) ([]Suspicion, error) {
	rows, err := q.Query(ctx, `
		SELECT s.event_id, s.at, s.person_id, coalesce(b.code, ''), s.direction
		  FROM ledger.person p
		  JOIN door.pass s ON s.person_id = p.id AND s.at >= $2 AND s.at < $3 AND s.suspected
		  LEFT JOIN ledger.building b ON b.id = s.building_id
		 WHERE p.organisation_id = $1
		 ORDER BY s.at DESC, s.event_id DESC`, organisation, from, until)
	if err != nil {
		return nil, fmt.Errorf("list the suspicions of organisation %d: %w", organisation, err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Suspicion])
	if err != nil {
		return nil, fmt.Errorf("list the suspicions of organisation %d: %w", organisation, err)
	}
	return list, nil
}
