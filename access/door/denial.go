package door

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/ledger"
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
