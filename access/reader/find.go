package reader

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger"
	"zvonok/ledger/pg"
)

// ErrNoEvent is an event that was never reported.
var ErrNoEvent = errors.New("no such event")

// Story is what is on record of a device's event, for explain.
type Story struct {
	Event      ledger.EventID `json:"event"`
	Device     DeviceID       `json:"device"`
	DeviceName string         `json:"device_name"`
	Building   string         `json:"building"`
	Seq        int64          `json:"seq"`
	Type       string         `json:"type"`
	State      string         `json:"state"`     // acknowledged, rejected or cancelled
	TimeZone   string         `json:"time_zone"` // the organisation's
	At         time.Time      `json:"at"`        // when it happened, corrected
	ReceivedAt time.Time      `json:"received_at"`
	// Code and Message say why it was rejected.
	Code      Code   `json:"code,omitzero"`
	Message   string `json:"message,omitzero"`
	Conflicts int    `json:"conflicts,omitzero"` // further contents under the same number
}

// stateNames are the states as people read them.
var stateNames = map[gateState]string{
	acknowledgedState: "acknowledged", rejectedState: "rejected", cancelledState: "cancelled",
}

// Find reads an event by its id ("1234") or by "device:seq", the device by id or
// name. It returns [ErrNoEvent], or an error that says which device is meant by
// a name that several have.
func Find(ctx context.Context, q pg.Querier, what string) (Story, error) {
	const columns = `
		SELECT e.event_id, e.device_id, d.name, b.code, e.seq, e.type, e.state, e.at, e.received_at, o.time_zone,
		       coalesce(r.code, ''), coalesce(r.message, ''),
		       (SELECT count(*) FROM reader.conflict c WHERE c.device_id = e.device_id AND c.seq = e.seq)
		  FROM reader.event e
		  JOIN reader.device d ON d.id = e.device_id
		  JOIN ledger.building b ON b.id = d.building_id
		  JOIN ledger.organisation o ON o.id = b.organisation_id
		  LEFT JOIN reader.quarantine r ON r.event_id = e.event_id AND e.state = 2`
	var (
		rows pgx.Rows
		err  error
	)
	device, number, split := lastCut(what)
	if split {
		seq, notNumber := strconv.ParseInt(number, 10, 64)
		if notNumber != nil {
			return Story{}, fmt.Errorf("event %q: want an event's id, or device:seq such as 12:101", what)
		}
		rows, err = q.Query(ctx, columns+` WHERE e.seq = $1 AND (d.id::text = $2 OR d.name = $2) LIMIT 2`, seq, device)
	} else {
		id, notNumber := strconv.ParseInt(what, 10, 64)
		if notNumber != nil {
			return Story{}, fmt.Errorf("event %q: want an event's id, or device:seq such as 12:101", what)
		}
		rows, err = q.Query(ctx, columns+` WHERE e.event_id = $1 LIMIT 2`, id)
	}
	if err != nil {
		return Story{}, fmt.Errorf("find the event: %w", err)
	}
	stories, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Story, error) {
		var (
			s     Story
			kind  eventType
			state gateState
		)
		err := row.Scan(&s.Event, &s.Device, &s.DeviceName, &s.Building, &s.Seq, &kind, &state, &s.At, &s.ReceivedAt, &s.TimeZone,
			&s.Code, &s.Message, &s.Conflicts)
		s.Type, s.State = kind.String(), stateNames[state]
		return s, err
	})
	switch {
	case err != nil:
		return Story{}, fmt.Errorf("find the event: %w", err)
	case len(stories) == 0:
		return Story{}, ErrNoEvent
	case len(stories) > 1:
		return Story{}, fmt.Errorf("event %q: several devices have this name; use the id, %d or %d",
			what, stories[0].Device, stories[1].Device)
	}
	return stories[0], nil
}

// lastCut cuts at the last colon: a device's name may hold one.
func lastCut(s string) (before, after string, found bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}
