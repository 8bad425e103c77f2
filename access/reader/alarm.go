package reader

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/ledger"
	"zvonok/ledger/pg"
)

// DeviceAlarm is a kind of sign that a device's key was stolen or the device
// cloned (spec/reliability.md, row 55). Nothing is refused for it: which of the
// two is the school's own only people can tell, and no event may be lost.
type DeviceAlarm string

// The alarms.
const (
	TwoAddresses  DeviceAlarm = "two_addresses"  // heard from two network addresses at once
	ForkedNumbers DeviceAlarm = "forked_numbers" // a number was used for two contents
)

// DeviceAlarms lists every kind, for labels.
func DeviceAlarms() []DeviceAlarm { return []DeviceAlarm{TwoAddresses, ForkedNumbers} }

// When two addresses are two devices. One that has moved to another line is not
// heard from the old one again, and takes longer than a minute to find the new.
const (
	togetherTime  = time.Minute      // between a request from one address and one from another
	alternateTime = 15 * time.Minute // for coming back to the address before
	networkBits   = 64               // of an IPv6 address: the rest changes by itself
	maxHeard      = 8                // changes of address remembered until they are written
)

// sighting is a request of a device as the network shows it.
type sighting struct {
	address netip.Addr
	at      time.Time
}

// network is what stands for a device's place in the network.
func network(a netip.Addr) netip.Addr {
	if a.Is6() {
		return netip.PrefixFrom(a.WithZone(""), networkBits).Masked().Addr()
	}
	return a
}

// places a device was heard from: the last, and another one before it.
type whereabouts struct{ last, former sighting }

// move notes a sighting and tells whether it is a second device.
func (w *whereabouts) move(s sighting) (second bool) {
	switch {
	case w.last.address == s.address:
		if s.at.After(w.last.at) {
			w.last.at = s.at
		}
		return false
	case w.last.address.IsValid():
		second = s.at.Sub(w.last.at).Abs() < togetherTime ||
			s.address == w.former.address && s.at.Sub(w.former.at) < alternateTime
		w.former = w.last
	}
	w.last = s
	return second
}

// alarmed is an alarm to be raised.
type alarmed struct {
	device   DeviceID
	kind     DeviceAlarm
	evidence string
}

// raiseAlarms notes alarms. One that is open already counts on, and is not among
// what is returned.
func raiseAlarms(ctx context.Context, tx pgx.Tx, alarms []alarmed, now time.Time) (fresh []alarmed, err error) {
	if len(alarms) == 0 {
		return nil, nil
	}
	var (
		devices         []int64
		kinds, evidence []string
		times           []int64
		index           = map[alarmed]int{}
	)
	for _, a := range alarms {
		key := alarmed{device: a.device, kind: a.kind}
		if i, ok := index[key]; ok {
			times[i]++
			continue
		}
		index[key] = len(devices)
		devices, kinds = append(devices, int64(a.device)), append(kinds, string(a.kind))
		evidence, times = append(evidence, a.evidence), append(times, 1)
	}
	rows, err := tx.Query(ctx, `
		INSERT INTO reader.device_alarm AS a (device_id, kind, raised_at, last_at, times, evidence)
		SELECT device_id, kind, $5, $5, times, evidence
		  FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::text[]) AS t (device_id, kind, times, evidence)
		 ORDER BY device_id, kind
		    ON CONFLICT (device_id, kind) WHERE settled_at IS NULL
		    DO UPDATE SET last_at = excluded.last_at, times = a.times + excluded.times
		RETURNING device_id, kind, evidence, xmax = 0`, devices, kinds, times, evidence, now)
	if err != nil {
		return nil, fmt.Errorf("raise alarms of devices: %w", err)
	}
	var (
		a     alarmed
		isNew bool
	)
	_, err = pgx.ForEachRow(rows, []any{&a.device, &a.kind, &a.evidence, &isNew}, func() error {
		if isNew {
			fresh = append(fresh, a)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("raise alarms of devices: %w", err)
	}
	return fresh, nil
}

// tellAlarms counts alarms and logs those that are new.
func (in *Intake) tellAlarms(ctx context.Context, fresh []alarmed) {
	for _, a := range fresh {
		in.metrics.alarms.WithLabelValues(string(a.kind)).Inc()
		in.log.WarnContext(ctx, "a device's key may be stolen, or the device cloned",
			"device", a.device, "alarm", string(a.kind), "evidence", a.evidence)
	}
}

// forks are the alarms of a batch's conflicts.
func (s *storing) forks() []alarmed {
	var alarms []alarmed
	for i, f := range s.facts {
		if s.results[i].kind == resultConflict {
			alarms = append(alarms, alarmed{f.device.ID, ForkedNumbers, "seq " + strconv.FormatInt(f.seq, 10)})
		}
	}
	return alarms
}

// RaisedAlarm is an alarm of a device as staff see it.
type RaisedAlarm struct {
	ID       int64       `json:"id"`
	Device   DeviceID    `json:"device"`
	Name     string      `json:"name"`
	Kind     DeviceAlarm `json:"kind" enum:"two_addresses,forked_numbers"`
	RaisedAt time.Time   `json:"raised_at"`
	LastAt   time.Time   `json:"last_at"`
	Times    int64       `json:"times" doc:"How often it has shown."`
	Evidence string      `json:"evidence" doc:"The two network addresses, or the first number that came twice."`
}

// OpenAlarms lists the alarms of devices that nobody has settled, of one
// organisation or, for 0, of all, the latest first.
func OpenAlarms(ctx context.Context, q pg.Querier, organisation ledger.OrganisationID) ([]RaisedAlarm, error) {
	rows, err := q.Query(ctx, `
		SELECT a.id, a.device_id, d.name, a.kind, a.raised_at, a.last_at, a.times, a.evidence
		  FROM reader.device_alarm a
		  JOIN reader.device d ON d.id = a.device_id
		  JOIN ledger.building b ON b.id = d.building_id
		 WHERE a.settled_at IS NULL AND (b.organisation_id = $1 OR $1 = 0)
		 ORDER BY a.last_at DESC, a.id DESC`, organisation)
	if err != nil {
		return nil, fmt.Errorf("list the alarms of devices: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[RaisedAlarm])
	if err != nil {
		return nil, fmt.Errorf("list the alarms of devices: %w", err)
	}
	return list, nil
}

// ErrNoDeviceAlarm says that there is no such open alarm.
var ErrNoDeviceAlarm = errors.New("no such open alarm of a device")

// SettleAlarm notes that somebody has looked after an alarm of an organisation's
// device (0: of anybody's), for instance by giving the device a new key. It
// returns [ErrNoDeviceAlarm] when there is none or it was settled before.
func SettleAlarm(
	ctx context.Context, q pg.Querier, organisation ledger.OrganisationID, id int64, by access.Actor, now time.Time,
) error {
	tag, err := q.Exec(ctx, `
		UPDATE reader.device_alarm a SET settled_at = $2, settled_by = $3
		  FROM reader.device d JOIN ledger.building b ON b.id = d.building_id
		 WHERE a.id = $1 AND a.settled_at IS NULL AND d.id = a.device_id AND (b.organisation_id = $4 OR $4 = 0)`,
		id, now, by.String(), organisation)
	if err != nil {
		return fmt.Errorf("settle alarm %d of a device: %w", id, err)
	}
	if tag.RowsAffected() == 0 {
		return ErrNoDeviceAlarm
	}
	return nil
}
