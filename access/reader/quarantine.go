package reader

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/ledger"
	"zvonok/ledger/pg"
)

// Quarantined is a rejected event as staff see it.
type Quarantined struct {
	Event      ledger.EventID
	Device     DeviceID
	Seq        int64
	Code       Code
	Message    string
	Body       json.RawMessage // as the device sent it; null once it has been destroyed
	ReceivedAt time.Time
}

// Quarantine lists the rejected events of an organisation's devices that nobody
// has looked after, the latest first, at most limit of them.
func Quarantine(
	ctx context.Context, q pg.Querier, organisation ledger.OrganisationID, limit int,
) ([]Quarantined, error) {
	rows, err := q.Query(ctx, `
		SELECT e.event_id, e.device_id, e.seq, e.code, e.message, coalesce(e.body::text, 'null'), e.received_at
		  FROM reader.quarantine e
		  JOIN reader.device d ON d.id = e.device_id
		  JOIN ledger.building b ON b.id = d.building_id
		 WHERE b.organisation_id = $1 AND e.settled_at IS NULL
		 ORDER BY e.received_at DESC, e.event_id DESC
		 LIMIT $2`, organisation, limit)
	if err != nil {
		return nil, fmt.Errorf("list the quarantine of organisation %d: %w", organisation, err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Quarantined, error) {
		var (
			e    Quarantined
			body string
		)
		err := row.Scan(&e.Event, &e.Device, &e.Seq, &e.Code, &e.Message, &body, &e.ReceivedAt)
		e.Body = json.RawMessage(body)
		return e, err
	})
	if err != nil {
		return nil, fmt.Errorf("list the quarantine of organisation %d: %w", organisation, err)
	}
	return list, nil
}

// ErrNotQuarantined says that no such event waits in quarantine.
var ErrNotQuarantined = errors.New("no such event in quarantine")

// SettleQuarantined notes that somebody has looked after a rejected event of an
// organisation's device, for instance by entering by hand what it should have
// been. It returns [ErrNotQuarantined] when there is none or it was settled before.
func SettleQuarantined(
	ctx context.Context, q pg.Querier, organisation ledger.OrganisationID, event ledger.EventID, by access.Actor,
	now time.Time,
) error {
	tag, err := q.Exec(ctx, `
		UPDATE reader.quarantine e SET settled_at = $2, settled_by = $3
		  FROM reader.device d JOIN ledger.building b ON b.id = d.building_id
		 WHERE e.event_id = $1 AND e.settled_at IS NULL AND d.id = e.device_id AND b.organisation_id = $4`,
		event, now, by.String(), organisation)
	if err != nil {
		return fmt.Errorf("settle event %d of the quarantine: %w", event, err)
	}
	if tag.RowsAffected() == 0 {
		return ErrNotQuarantined
	}
	return nil
}
