package door

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger"
)

// Backfill stores passes of days gone by: the history of a generated city, or of one that comes from another system.
// It is to [Recorder.Record] what COPY is to INSERT. Nothing is announced, because what is days old is no news (D6),
// and nothing is looked up, so the people must have no passes yet and the taps must come in the order of time, each
// person's own more than the organisation's SamePass apart (D8).
//
// One Backfill is one transaction and one goroutine's.
type Backfill struct {
	tx       pgx.Tx
	recorder *Recorder
	now      time.Time
	people   map[ledger.PersonID]*presence
	months   map[time.Time]bool
	last     time.Time
}

// Backfill begins one in the caller's transaction. Nothing is right until [Backfill.Finish].
func (r *Recorder) Backfill(tx pgx.Tx, now time.Time) *Backfill {
	return &Backfill{tx: tx, recorder: r, now: now, people: map[ledger.PersonID]*presence{}, months: map[time.Time]bool{}}
}

// Add stores taps, in the order of time, also over several calls. Each needs an event id of its own, a direction and
// no time but At. A day of a city is a good number for one call: the rows go by one COPY.
func (b *Backfill) Add(ctx context.Context, taps []Tap) error {
	organisations := make([]ledger.OrganisationID, len(taps))
	for i, t := range taps {
		organisations[i] = t.Organisation
		t.ReceivedAt = t.At
		switch err := t.check(); {
		case err != nil:
			return err
		case t.Direction == 0:
			return fmt.Errorf("fill in the tap %d: it has no direction", t.Event)
		case t.At.Before(b.last):
			return fmt.Errorf("fill in the tap %d: it comes before the one before it", t.Event)
		}
		b.last = t.At
		if err := b.ensureMonth(ctx, t.At); err != nil {
			return err
		}
	}
	rules, err := b.recorder.rules.of(ctx, b.tx, slices.Compact(organisations), b.now)
	if err != nil {
		return err
	}
	_, err = b.tx.CopyFrom(ctx, pgx.Identifier{"door", "pass"}, []string{
		"event_id", "at", "received_at", "person_id", "organisation_id", "building_id", "device_id", "direction", "kind",
		"merged", "suspected", "inferred", "silent", "companion_id",
	}, pgx.CopyFromSlice(len(taps), func(i int) ([]any, error) {
		t := &taps[i]
		p := b.people[t.Person]
		if p == nil {
			p = &presence{person: t.Person}
			b.people[t.Person] = p
		}
		p.fold(newStep(*t), rules[t.Organisation].Location)
		var companion *int64
		if t.Companion != 0 {
			id := int64(t.Companion)
			companion = &id
		}
		return []any{
			int64(t.Event), t.At, t.At, int64(t.Person), int64(t.Organisation), int64(t.Building), t.Device,
			int16(t.Direction), int16(t.Kind), false, false, false, t.Silent, companion,
		}, nil
	}))
	if err != nil {
		return fmt.Errorf("fill in %d passes: %w", len(taps), err)
	}
	return nil
}

// ensureMonth makes the partition of a month, so that old passes do not end in the default one.
func (b *Backfill) ensureMonth(ctx context.Context, at time.Time) error {
	year, month, _ := at.UTC().Date()
	first := time.Date(year, month, 1, 0, 0, 0, 0, time.UTC)
	if b.months[first] {
		return nil
	}
	if _, err := b.tx.Exec(ctx, `SELECT ledger.ensure_month('door.pass', $1)`, first); err != nil {
		return fmt.Errorf("make the partition of %s: %w", first.Format("January 2006"), err)
	}
	b.months[first] = true
	return nil
}

// Finish writes where each person was last seen. A person who has passed before the Backfill is an error.
func (b *Backfill) Finish(ctx context.Context) error {
	people := make([]*presence, 0, len(b.people))
	for _, p := range b.people {
		people = append(people, p)
	}
	slices.SortFunc(people, func(a, b *presence) int { return int(a.person - b.person) })
	_, err := b.tx.CopyFrom(ctx, pgx.Identifier{"door", "presence"}, []string{
		"person_id", "last_at", "last_direction", "last_building_id", "last_device_id", "day", "day_first_in", "day_last_out",
	}, pgx.CopyFromSlice(len(people), func(i int) ([]any, error) {
		p := people[i]
		return []any{
			int64(p.person), p.last.at, int16(p.last.direction), int64(p.last.building), p.last.device, p.day,
			orNull(p.firstIn), orNull(p.lastOut),
		}, nil
	}))
	if err != nil {
		return fmt.Errorf("fill in the presence of %d people who must have none: %w", len(people), err)
	}
	return nil
}
