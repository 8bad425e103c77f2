package reader

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger/peer"
)

// contacts remembers when devices were heard, how wrong their clocks were and
// from where they talked, and writes it down every few seconds: a row per upload
// would cost as much as the upload.
type contacts struct {
	mu    sync.Mutex
	heard map[DeviceID]heard
}

// heard is what was heard of a device since it was last written down.
type heard struct {
	clock  clock     // with a zero receivedAt: it has only asked
	listed time.Time // when it took the list of cards and people; zero when it did not
	// seen are its sightings, in their order: of each stay at an address the last one.
	seen []sighting
}

func newContacts() *contacts { return &contacts{heard: map[DeviceID]heard{}} }

// note remembers the clock of an upload.
func (c *contacts) note(device DeviceID, clock clock) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.heard[device]
	if !clock.receivedAt.Before(h.clock.receivedAt) {
		h.clock = clock
		c.heard[device] = h
	}
}

// list remembers that a device has taken all that its list has to tell.
func (c *contacts) list(device DeviceID, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.heard[device]
	if at.After(h.listed) {
		h.listed = at
		c.heard[device] = h
	}
}

// see remembers where a request of a device came from.
func (c *contacts) see(device DeviceID, s sighting) {
	if !s.address.IsValid() {
		return
	}
	s.address = network(s.address)
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.heard[device]
	switch n := len(h.seen); {
	case n > 0 && h.seen[n-1].address == s.address:
		h.seen[n-1].at = s.at
		return
	case n < maxHeard:
		h.seen = append(h.seen, s)
		c.heard[device] = h
	}
}

// see notes where a request of a device comes from.
func (in *Intake) see(device DeviceID, r *http.Request) {
	in.contacts.see(device, sighting{peer.Address(r, in.proxies), in.now()})
}

func (c *contacts) take() map[DeviceID]heard {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.heard
	c.heard = map[DeviceID]heard{}
	return all
}

// giveBack keeps what could not be written for the next time.
func (c *contacts) giveBack(all map[DeviceID]heard) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for device, old := range all {
		h := c.heard[device]
		if h.clock.receivedAt.Before(old.clock.receivedAt) {
			h.clock = old.clock
		}
		if h.listed.Before(old.listed) {
			h.listed = old.listed
		}
		h.seen = append(old.seen, h.seen...)
		h.seen = h.seen[:min(len(h.seen), maxHeard)]
		c.heard[device] = h
	}
}

// keepContacts writes contacts until ctx ends, and once more then.
func (in *Intake) keepContacts(ctx context.Context) {
	tick := time.NewTicker(contactWait)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			in.writeContacts(ctx)
		case <-ctx.Done():
			in.writeContacts(context.WithoutCancel(ctx))
			return
		}
	}
}

func (in *Intake) writeContacts(ctx context.Context) {
	all := in.contacts.take()
	if len(all) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, contactWait)
	defer cancel()
	var (
		skewed []DeviceID
		fresh  []alarmed
	)
	err := pgx.BeginFunc(ctx, in.pool, func(tx pgx.Tx) (err error) {
		skewed, fresh, err = in.storeContacts(ctx, tx, all)
		return err
	})
	if err != nil {
		in.contacts.giveBack(all)
		in.trouble(ctx, err)
		return
	}
	for _, device := range skewed {
		in.log.WarnContext(ctx, "a device's clock is off by more than two minutes", "device", device,
			"skew", all[device].clock.skew)
	}
	in.tellAlarms(ctx, fresh)
}

// storeContacts writes when and where devices were heard; it returns those whose
// clock has just become wrong, and the alarms it raised. Other processes hear the
// same devices: the rows are locked, so that each continues what the others saw.
func (in *Intake) storeContacts(ctx context.Context, tx pgx.Tx, all map[DeviceID]heard) (
	skewed []DeviceID, fresh []alarmed, err error,
) {
	devices := make([]int64, 0, len(all))
	for device := range all {
		devices = append(devices, int64(device))
	}
	slices.Sort(devices)
	places, err := readWhereabouts(ctx, tx, devices)
	if err != nil {
		return nil, nil, err
	}
	var (
		n                    = len(devices)
		seen                 = make([]*time.Time, n)
		skews                = make([]int64, n)
		flagged              = make([]bool, n)
		addresses, formers   = make([]*netip.Addr, n), make([]*netip.Addr, n)
		addressAts, formerAt = make([]*time.Time, n), make([]*time.Time, n)
		listed               = make([]*time.Time, n)
		alarms               []alarmed
		now                  time.Time
	)
	for i, device := range devices {
		h, w := all[DeviceID(device)], places[DeviceID(device)]
		for _, s := range h.seen {
			before := w.last.address
			if w.move(s) {
				alarms = append(alarms, alarmed{DeviceID(device), TwoAddresses, before.String() + " and " + s.address.String()})
			}
			if s.at.After(now) {
				now = s.at
			}
		}
		if !h.clock.receivedAt.IsZero() {
			seen[i] = &h.clock.receivedAt
		}
		skews[i], flagged[i] = h.clock.skew.Milliseconds(), h.clock.flagged()
		addresses[i], addressAts[i] = w.last.columns()
		formers[i], formerAt[i] = w.former.columns()
		if !h.listed.IsZero() {
			listed[i] = &h.listed
		}
	}
	// A device that only asks is heard as well, and its clock stays what it was.
	rows, err := tx.Query(ctx, `
		INSERT INTO reader.contact AS c (device_id, seen_at, skew_ms, skewed_from, address, address_at, former, former_at, listed_at)
		SELECT device_id, coalesce(seen_at, address_at, listed_at), CASE WHEN seen_at IS NOT NULL THEN skew_ms END,
		       CASE WHEN flagged AND seen_at IS NOT NULL THEN seen_at END, address, address_at, former, former_at,
		       listed_at
		  FROM unnest($1::bigint[], $2::timestamptz[], $3::bigint[], $4::boolean[], $5::inet[], $6::timestamptz[], $7::inet[],
		              $8::timestamptz[], $9::timestamptz[])
		       AS t (device_id, seen_at, skew_ms, flagged, address, address_at, former, former_at, listed_at)
		 WHERE coalesce(seen_at, address_at, listed_at) IS NOT NULL
		 ORDER BY device_id
		    ON CONFLICT (device_id) DO UPDATE
		   SET seen_at = greatest(c.seen_at, excluded.seen_at),
		       skew_ms = CASE WHEN excluded.skew_ms IS NOT NULL AND c.seen_at <= excluded.seen_at THEN excluded.skew_ms ELSE c.skew_ms END,
		       skewed_from = CASE WHEN excluded.skew_ms IS NULL OR c.seen_at > excluded.seen_at THEN c.skewed_from
		                          WHEN excluded.skewed_from IS NOT NULL THEN coalesce(c.skewed_from, excluded.skewed_from) END,
		       address = excluded.address, address_at = excluded.address_at,
		       former = excluded.former, former_at = excluded.former_at,
		       listed_at = greatest(c.listed_at, excluded.listed_at)
		RETURNING device_id, coalesce(skewed_from = seen_at, false)`,
		devices, seen, skews, flagged, addresses, addressAts, formers, formerAt, listed)
	if err != nil {
		return nil, nil, fmt.Errorf("write when devices were heard: %w", err)
	}
	var (
		device DeviceID
		isNew  bool
	)
	_, err = pgx.ForEachRow(rows, []any{&device, &isNew}, func() error {
		if isNew {
			skewed = append(skewed, device)
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("write when devices were heard: %w", err)
	}
	fresh, err = raiseAlarms(ctx, tx, alarms, now)
	return skewed, fresh, err
}

// columns are a sighting as it is stored.
func (s sighting) columns() (*netip.Addr, *time.Time) {
	if !s.address.IsValid() {
		return nil, nil
	}
	return &s.address, &s.at
}

// readWhereabouts reads and locks where devices were heard from.
func readWhereabouts(ctx context.Context, tx pgx.Tx, devices []int64) (map[DeviceID]whereabouts, error) {
	rows, err := tx.Query(ctx, `
		SELECT device_id, address, address_at, former, former_at FROM reader.contact
		 WHERE device_id = ANY ($1) ORDER BY device_id FOR UPDATE`, devices)
	if err != nil {
		return nil, fmt.Errorf("read where devices were heard: %w", err)
	}
	var (
		places           = map[DeviceID]whereabouts{}
		device           DeviceID
		address, former  *netip.Addr
		addressAt, other *time.Time
	)
	_, err = pgx.ForEachRow(rows, []any{&device, &address, &addressAt, &former, &other}, func() error {
		var w whereabouts
		if address != nil {
			w.last = sighting{*address, *addressAt}
		}
		if former != nil {
			w.former = sighting{*former, *other}
		}
		places[device] = w
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read where devices were heard: %w", err)
	}
	return places, nil
}
