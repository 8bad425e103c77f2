package reader

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// contacts remembers when devices were heard and how wrong their clocks were,
// and writes it down every few seconds: a row per upload would cost as much as
// the upload.
type contacts struct {
	mu    sync.Mutex
	heard map[DeviceID]clock
}

func newContacts() *contacts { return &contacts{heard: map[DeviceID]clock{}} }

// note remembers the clock of an upload.
func (c *contacts) note(device DeviceID, heard clock) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if last, ok := c.heard[device]; !ok || !heard.receivedAt.Before(last.receivedAt) {
		c.heard[device] = heard
	}
}

func (c *contacts) take() map[DeviceID]clock {
	c.mu.Lock()
	defer c.mu.Unlock()
	heard := c.heard
	c.heard = map[DeviceID]clock{}
	return heard
}

// giveBack keeps what could not be written for the next time.
func (c *contacts) giveBack(heard map[DeviceID]clock) {
	for device, clock := range heard {
		c.note(device, clock)
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
	heard := in.contacts.take()
	if len(heard) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, contactWait)
	defer cancel()
	skewed, err := in.storeContacts(ctx, heard)
	if err != nil {
		in.contacts.giveBack(heard)
		in.trouble(ctx, err)
		return
	}
	for _, device := range skewed {
		in.log.WarnContext(ctx, "a device's clock is off by more than two minutes", "device", device,
			"skew", heard[device].skew)
	}
}

// storeContacts writes when devices were heard; it returns those whose clock has
// just become wrong.
func (in *Intake) storeContacts(ctx context.Context, heard map[DeviceID]clock) (skewed []DeviceID, err error) {
	var (
		devices []int64
		seen    []time.Time
		skews   []int64
		flagged []bool
	)
	for device, c := range heard {
		devices, seen = append(devices, int64(device)), append(seen, c.receivedAt)
		skews, flagged = append(skews, c.skew.Milliseconds()), append(flagged, c.flagged())
	}
	rows, err := in.pool.Query(ctx, `
		INSERT INTO reader.contact AS c (device_id, seen_at, skew_ms, skewed_from)
		SELECT device_id, seen_at, skew_ms, CASE WHEN flagged THEN seen_at END
		  FROM unnest($1::bigint[], $2::timestamptz[], $3::bigint[], $4::boolean[])
		       AS t (device_id, seen_at, skew_ms, flagged)
		 ORDER BY device_id
		    ON CONFLICT (device_id) DO UPDATE
		   SET seen_at = excluded.seen_at, skew_ms = excluded.skew_ms,
		       skewed_from = CASE WHEN excluded.skewed_from IS NOT NULL
		                          THEN coalesce(c.skewed_from, excluded.skewed_from) END
		 WHERE c.seen_at <= excluded.seen_at
		RETURNING device_id, coalesce(skewed_from = seen_at, false)`, devices, seen, skews, flagged)
	if err != nil {
		return nil, fmt.Errorf("write when devices were heard: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var (
			device DeviceID
			fresh  bool
		)
		if err := rows.Scan(&device, &fresh); err != nil {
			return nil, fmt.Errorf("write when devices were heard: %w", err)
		}
		if fresh {
			skewed = append(skewed, device)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("write when devices were heard: %w", err)
	}
	return skewed, nil
}
