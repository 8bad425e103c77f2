package delivery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/access/phone"
	"zvonok/gateway/subscription"
	"zvonok/ledger/pg"
)

// Health is what is known of an address.
type Health struct {
	OptedOut   bool // the person said STOP, or the operator says they refused bulk SMS
	Suppressed bool // refused for good twice in a row: dead phone, dead mailbox
	Doubted    bool // a phone that may be in other hands than its owner's (access.Hear)
}

// HealthOf reads the health of addresses of one channel in one query; an
// address that is not in the result is well.
func HealthOf(ctx context.Context, q pg.Querier, channel subscription.Channel, addresses []string) (map[string]Health, error) {
	rows, err := q.Query(ctx, `
		SELECT address, opted_out_at IS NOT NULL, suppressed_at IS NOT NULL
		FROM delivery.address WHERE channel = $1 AND address = ANY ($2)`, string(channel), addresses)
	if err != nil {
		return nil, fmt.Errorf("read address health: %w", err)
	}
	health := map[string]Health{}
	var address string
	var h Health
	if _, err := pgx.ForEachRow(rows, []any{&address, &h.OptedOut, &h.Suppressed}, func() error {
		health[address] = h
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read address health: %w", err)
	}
	if channel != subscription.SMS {
		return health, nil
	}
	doubted, err := access.Doubted(ctx, q, addresses)
	if err != nil {
		return nil, err
	}
	for _, number := range doubted {
		h := health[number]
		h.Doubted = true
		health[number] = h
	}
	return health, nil
}

// Recycled says that a phone may have another owner: operators refused it for
// good, twice in a row, and yet it dials or writes. Until its owner is put on
// record anew, by a form or the registry, whoever holds it is to be told nothing
// (spec/reliability.md, fault 53). That a phone is alive proves nothing.
func Recycled(ctx context.Context, q pg.Querier, number phone.Number) (bool, error) {
	batch := &pgx.Batch{}
	recycled := AskRecycled(batch, number)
	if err := q.SendBatch(ctx, batch).Close(); err != nil {
		return false, err
	}
	return recycled(ctx, q)
}

// AskRecycled puts the question of [Recycled] into a batch. The answer may be had when the batch has been read; only of
// a phone that was declared dead something more is asked for it.
func AskRecycled(b *pgx.Batch, number phone.Number) (answer func(context.Context, pg.Querier) (bool, error)) {
	var dead *time.Time
	b.Queue(`SELECT max(suppressed_at) FROM delivery.address WHERE channel = $1 AND address = $2`,
		string(subscription.SMS), string(number)).QueryRow(func(row pgx.Row) error {
		if err := row.Scan(&dead); err != nil {
			return fmt.Errorf("read address health: %w", err)
		}
		return nil
	})
	return func(ctx context.Context, q pg.Querier) (bool, error) {
		if dead == nil {
			return false, nil
		}
		return deadAndUnconfirmed(ctx, q, number, *dead)
	}
}

// deadAndUnconfirmed says whether nobody has put the owner of a phone on record since it was declared dead.
func deadAndUnconfirmed(ctx context.Context, q pg.Querier, number phone.Number, dead time.Time) (bool, error) {
	who, err := access.RepresentativeByPhone(ctx, q, number)
	if errors.Is(err, access.ErrNoRepresentative) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	confirmed, err := access.ConfirmedAt(ctx, q, who.ID)
	return err == nil && !confirmed.After(dead), err
}

// longestLife is longer than any message lives.
const longestLife = 48 * time.Hour

// OptOut stops messages of a channel to an address at once, those that wait to be
// sent included: they fail, and fall back where there is a next channel. Answers
// and codes were asked for and still leave. [OptIn] is the reverse. Both may be
// repeated.
func OptOut(ctx context.Context, q pg.Querier, channel subscription.Channel, address, reason string, now time.Time) error {
	_, err := q.Exec(ctx, `
		INSERT INTO delivery.address (channel, address, opted_out_at, reason) VALUES ($1, $2, $3, $4)
		ON CONFLICT (channel, address) DO UPDATE
		SET opted_out_at = coalesce(delivery.address.opted_out_at, excluded.opted_out_at), reason = excluded.reason`,
		string(channel), address, now, reason)
	if err != nil {
		return fmt.Errorf("record opt-out: %w", err)
	}
	return stopWaiting(ctx, q, channel, address, "opted_out", now)
}

// StopInDoubt stops what waits to be sent to a phone that may be in other hands
// than its owner's, as [OptOut] does.
func StopInDoubt(ctx context.Context, q pg.Querier, number phone.Number, now time.Time) error {
	return stopWaiting(ctx, q, subscription.SMS, string(number), "unconfirmed", now)
}

// stopWaiting fails the messages nobody asked for that wait to be sent to an
// address. What is being taken at this moment has left.
func stopWaiting(ctx context.Context, q pg.Querier, channel subscription.Channel, address, reason string, now time.Time) error {
	if _, err := q.Exec(ctx, `
		UPDATE delivery.delivery AS d
		SET state = 'failed', reason = $6, settled_at = $3
		FROM (
			SELECT id, at FROM delivery.delivery
			WHERE channel = $1 AND address = $2 AND at > $4 AND state = 'queued' AND topic <> ALL ($5)
			FOR UPDATE SKIP LOCKED
		) AS waiting
		WHERE d.id = waiting.id AND d.at = waiting.at AND d.at > $4`,
		string(channel), address, now, now.Add(-longestLife), private, reason); err != nil {
		return fmt.Errorf("stop what waits for an address: %w", err)
	}
	return nil
}

// OptIn resumes what [OptOut] has stopped, and forgets earlier refusals.
func OptIn(ctx context.Context, q pg.Querier, channel subscription.Channel, address string) error {
	_, err := q.Exec(ctx, `
		UPDATE delivery.address SET opted_out_at = NULL, suppressed_at = NULL, reason = NULL, refusals = 0
		WHERE channel = $1 AND address = $2`, string(channel), address)
	if err != nil {
		return fmt.Errorf("record opt-in: %w", err)
	}
	return nil
}

// recordHealth counts permanent refusals and clears the count of addresses that
// are proved to be alive. A refusal longer ago than refusalMemory does not count:
// a mailbox is only ever known to refuse, since a relay takes letters for dead
// ones, too, and lets them bounce.
func recordHealth(ctx context.Context, tx pgx.Tx, now time.Time, channel subscription.Channel, sick, well []string) error {
	if len(sick) > 0 {
		slices.Sort(sick)
		_, err := tx.Exec(ctx, `
			INSERT INTO delivery.address AS a (channel, address, refusals, refused_at, suppressed_at, reason)
			SELECT $1, address, count(*), $4, CASE WHEN count(*) >= $3 THEN $4::timestamptz END, 'refused'
			FROM unnest($2::text[]) AS s (address) GROUP BY address ORDER BY address
			ON CONFLICT (channel, address) DO UPDATE
			SET refusals = excluded.refusals + CASE WHEN a.refused_at > $4 - $5::interval THEN a.refusals ELSE 0 END,
			    refused_at = $4,
			    suppressed_at = CASE WHEN a.suppressed_at IS NOT NULL THEN a.suppressed_at
			        WHEN excluded.refusals + CASE WHEN a.refused_at > $4 - $5::interval THEN a.refusals ELSE 0 END >= $3 THEN $4 END,
			    reason = 'refused'`,
			string(channel), sick, deadAfterRefusals, now, refusalMemory)
		if err != nil {
			return fmt.Errorf("count refusals: %w", err)
		}
	}
	if len(well) > 0 {
		// Nearly always this touches no row: only addresses once refused are listed.
		_, err := tx.Exec(ctx, `
			UPDATE delivery.address SET refusals = 0
			WHERE channel = $1 AND address = ANY ($2) AND refusals > 0 AND suppressed_at IS NULL`, string(channel), well)
		if err != nil {
			return fmt.Errorf("clear refusals: %w", err)
		}
	}
	return nil
}
