// Package subscription knows who wants which news of which child by which
// channel, and when.
//
// A subscription is a row (child, recipient, topic, channel, mode): having it is
// the wish, and several rows of one topic are wishes side by side. Whether the
// recipient may know at all is not asked here but by access.Audience; a wish of
// somebody who has lost the right lies still and speaks again if the right comes
// back.
//
// The promises:
//
//   - A change works for the next fact: [Wishes] reads the tables, in one query
//     for the children of a whole batch.
//   - What a recipient has chosen in the cabinet no import changes.
//   - The amount of a threshold belongs to the books, which find its crossings;
//     here is only who hears of them and how.
package subscription

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/ledger"
	"zvonok/ledger/money"
	"zvonok/ledger/pg"
)

// Topic is a kind of news (R52).
type Topic string

// The topics.
const (
	Pass       Topic = "pass"       // entry and exit, with the companion in a kindergarten
	Hot        Topic = "hot"        // a paid hot meal
	Buffet     Topic = "buffet"     // a purchase in the buffet
	Subsidised Topic = "subsidised" // a meal the city pays for
	TopUp      Topic = "topup"
	Threshold  Topic = "threshold" // the balance crossed the recipient's threshold (D1)
)

// Topics lists every topic, for labels and pages.
func Topics() []Topic { return []Topic{Pass, Hot, Buffet, Subsidised, TopUp, Threshold} }

// Channel is a way by which news reach somebody without being asked for.
type Channel string

// The channels.
const (
	SMS   Channel = "sms"
	Email Channel = "email"
	Push  Channel = "push"
)

// Channels lists every channel, for labels and pages.
func Channels() []Channel { return []Channel{SMS, Email, Push} }

// Mode is when news are told (R53).
type Mode string

// The modes. They may be wished for side by side.
const (
	Now  Mode = "now"  // at the moment of the event
	Day  Mode = "day"  // in the digest of the day
	Week Mode = "week" // in the digest of the week
)

// Modes lists every mode, for labels and pages.
func Modes() []Mode { return []Mode{Now, Day, Week} }

// DefaultThreshold is below which balance a new representative is told
// (spec/notices.md, Subscriptions).
const DefaultThreshold money.Amount = 150_00

// Wish is one recipient's wish to hear of one child by one channel.
type Wish struct {
	Child          ledger.PersonID
	Representative access.RepresentativeID
	Channel        Channel
}

// Wishes returns who wants the news of a topic in a mode about these children,
// in one query, ordered by child, recipient and channel. It says nothing about
// who may.
func Wishes(ctx context.Context, q pg.Querier, children []ledger.PersonID, topic Topic, mode Mode) ([]Wish, error) {
	rows, err := q.Query(ctx, `
		SELECT child_id, representative_id, channel
		  FROM subscription.subscription
		 WHERE child_id = ANY ($1) AND topic = $2 AND mode = $3
		 ORDER BY child_id, representative_id, channel`, children, topic, mode)
	if err != nil {
		return nil, fmt.Errorf("read the wishes for %d children: %w", len(children), err)
	}
	wishes, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Wish])
	if err != nil {
		return nil, fmt.Errorf("read the wishes for %d children: %w", len(children), err)
	}
	return wishes, nil
}

// Subscription is one wish of a recipient for one child.
type Subscription struct {
	Topic   Topic
	Channel Channel
	Mode    Mode
}

// Of returns what a recipient wants to hear of a child, ordered by topic,
// channel and mode.
func Of(ctx context.Context, q pg.Querier, who access.RepresentativeID, child ledger.PersonID) ([]Subscription, error) {
	rows, err := q.Query(ctx, `
		SELECT topic, channel, mode
		  FROM subscription.subscription
		 WHERE representative_id = $1 AND child_id = $2
		 ORDER BY topic, channel, mode`, who, child)
	if err != nil {
		return nil, fmt.Errorf("read what representative %d wants of person %d: %w", who, child, err)
	}
	subscriptions, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Subscription])
	if err != nil {
		return nil, fmt.Errorf("read what representative %d wants of person %d: %w", who, child, err)
	}
	return subscriptions, nil
}

// ErrSubscription is a wish for something that does not exist.
var ErrSubscription = errors.New("no such topic, channel or mode")

// Set replaces what a recipient wants to hear of a child by these wishes, which
// may be none; it works for the next fact, and later imports leave it. The
// caller has asked access.May. It returns [ErrSubscription].
func Set(ctx context.Context, tx pgx.Tx, who access.RepresentativeID, child ledger.PersonID, wanted []Subscription,
	now time.Time,
) error {
	topics := make([]Topic, len(wanted))
	channels := make([]Channel, len(wanted))
	modes := make([]Mode, len(wanted))
	for i, s := range wanted {
		if !slices.Contains(Topics(), s.Topic) || !slices.Contains(Channels(), s.Channel) ||
			!slices.Contains(Modes(), s.Mode) {
			return ErrSubscription
		}
		topics[i], channels[i], modes[i] = s.Topic, s.Channel, s.Mode
	}
	// The row of the choice comes first: two pages saved at once take turns on it.
	batch := &pgx.Batch{}
	batch.Queue(`
		INSERT INTO subscription.choice (child_id, representative_id, chosen_at) VALUES ($1, $2, $3)
		ON CONFLICT (child_id, representative_id) DO UPDATE SET chosen_at = excluded.chosen_at`, child, who, now)
	batch.Queue(`
		DELETE FROM subscription.subscription s
		 WHERE s.child_id = $1 AND s.representative_id = $2
		   AND (s.topic, s.channel, s.mode) NOT IN (SELECT * FROM unnest($3::text[], $4::text[], $5::text[]))`,
		child, who, topics, channels, modes)
	batch.Queue(`
		INSERT INTO subscription.subscription (child_id, representative_id, topic, channel, mode)
		SELECT $1, $2, w.* FROM unnest($3::text[], $4::text[], $5::text[]) w
		ON CONFLICT DO NOTHING`, child, who, topics, channels, modes)
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("store what representative %d wants of person %d: %w", who, child, err)
	}
	return nil
}
