package delivery

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/gateway/carrier"
	"zvonok/gateway/subscription"
	"zvonok/ledger"
)

// Which SMS count of those that a phone may get in a day (notices.md, Freshness,
// merging, caps) is decided here, by their topics:
//
//   - News takes a place, or stays away when there is none: the digest of the day
//     tells it, and the first that stays away is replaced by the word that it does.
//     That word is the one SMS above the cap. It is all the same how news comes to
//     be an SMS: its reader wants it so, or another channel has failed.
//   - What is [aboveCap] takes a place, too, and goes out whatever its number.
//   - What is [private] takes none: somebody has asked for it in that moment, and
//     how often one may is limited where one asks. Otherwise whoever types a
//     stranger's number into the page of codes could use up the stranger's news.
//
// A message has one place for as long as it lives: a sibling's news that joins it
// while it waits takes none, nor does its second copy after an unknown outcome, by
// another operator, or when it is replayed. Its place is one of the phone's day on
// which it may leave, after the quiet hours: the day of its organisation's zone,
// else of the zone of the phone's children, else of the first organisation on
// record. A place is not given back when the message fails.
//
// The count is one row for each phone and day, which is written and read in one
// statement: whoever comes at the same time waits for that row, so no number of
// processes and batches passes the cap together.

// aboveCap are the topics of what is never kept away: an alarm is what SMS are
// for, the digest is where the cap sends everything else, and no digest tells of
// decisions and invitations, which are rare.
var aboveCap = []string{"alarm", "digest", "petition", "invitation"}

// Use is a message that is about to be made.
type Use struct {
	Address      string
	Organisation ledger.OrganisationID // whose news it is; 0: nobody's
	Topic        string
	Leaves       time.Time // at the earliest
}

// Place is the place of a message in its address's day.
type Place struct {
	Number int // from 1
	Held   bool
	First  bool // the first of the day that is held
}

// Places counts SMS of a phone's day and says which are held, in the order of the
// uses.
func (d *Desk) Places(ctx context.Context, tx pgx.Tx, uses []Use) ([]Place, error) {
	return Places(ctx, tx, subscription.SMS, cmp.Or(d.SMSPerDay, math.MaxInt32), uses)
}

// takePlaces counts uses and returns them with their days, and after them the
// counts of those days. Held are those of a day that have found no place, none while
// there is room: as many of this statement's as it asked for, or as there are by now.
// Uses and counts come one after the other, and Places brings them together: under
// pg.PlannedOnce a join of the two would compare each with each.
const takePlaces = `
	WITH used AS MATERIALIZED (
		SELECT u.n, u.address, u.forced,
			(u.leaves AT TIME ZONE coalesce(
				(SELECT o.time_zone FROM ledger.organisation AS o
				 WHERE o.id = coalesce(nullif(u.organisation, 0), (
					SELECT c.organisation_id FROM access.representative AS r
					JOIN access.guardian AS g ON g.representative_id = r.id
					JOIN ledger.person AS c ON c.id = g.child_id
					WHERE r.phone = u.address
					ORDER BY c.organisation_id LIMIT 1))),
				(SELECT time_zone FROM ledger.organisation ORDER BY id LIMIT 1), 'UTC'))::date AS day
		FROM unnest($2::text[], $3::bigint[], $4::timestamptz[], $5::boolean[]) WITH ORDINALITY
			AS u (address, organisation, leaves, forced, n)
	), wanted AS (
		SELECT day, address, count(*)::int AS total, count(*) FILTER (WHERE forced)::int AS forced FROM used GROUP BY day, address
	), counted AS (
		INSERT INTO delivery.quota AS q (day, channel, address, sent, forced, held)
		SELECT day, $1, address, least(total, greatest($6, forced)), forced, greatest(0, total - greatest($6, forced))
		FROM wanted ORDER BY day, address
		ON CONFLICT (day, channel, address) DO UPDATE SET
			sent = least(q.sent + excluded.sent + excluded.held, greatest($6, q.sent + excluded.forced)),
			forced = q.forced + excluded.forced,
			held = CASE WHEN q.sent + excluded.forced < $6 THEN 0 ELSE q.held END +
				greatest(0, q.sent + excluded.sent + excluded.held - greatest($6, q.sent + excluded.forced))
		RETURNING day, address, sent, held
	)
	SELECT n, address, day, 0, 0 FROM used
	UNION ALL
	SELECT 0, address, day, sent, held FROM counted`

// Places counts messages of a channel that may not be more than a number a day.
// The rows are taken in one order, so concurrent batches do not deadlock.
func Places(ctx context.Context, tx pgx.Tx, channel subscription.Channel, perDay int, uses []Use) ([]Place, error) {
	if len(uses) == 0 {
		return nil, nil
	}
	var (
		addresses     []string
		organisations []int64
		leaves        []time.Time
		forced        []bool
	)
	for _, u := range uses {
		addresses, organisations = append(addresses, u.Address), append(organisations, int64(u.Organisation))
		leaves, forced = append(leaves, u.Leaves), append(forced, slices.Contains(aboveCap, u.Topic))
	}
	rows, err := tx.Query(ctx, takePlaces, string(channel), addresses, organisations, leaves, forced, int32(min(perDay, math.MaxInt32/2)))
	if err != nil {
		return nil, fmt.Errorf("count messages per address: %w", err)
	}
	type key struct {
		day     time.Time
		address string
	}
	type count struct{ sent, held, total, asked int }
	counts := map[key]*count{}
	keys := make([]key, len(uses))
	var (
		n, sent, held int
		k             key
	)
	if _, err := pgx.ForEachRow(rows, []any{&n, &k.address, &k.day, &sent, &held}, func() error {
		c := counts[k]
		if c == nil {
			c = &count{}
			counts[k] = c
		}
		if n == 0 {
			c.sent, c.held = sent, held
			return nil
		}
		c.total++
		if !forced[n-1] {
			c.asked++
		}
		keys[n-1] = k
		return nil
	}); err != nil {
		return nil, fmt.Errorf("count messages per address: %w", err)
	}
	type hand struct{ next, free, held int }
	hands := make(map[key]*hand, len(counts))
	for k, c := range counts {
		mine := min(c.asked, c.held)
		hands[k] = &hand{next: c.sent - (c.total - mine), free: c.asked - mine, held: c.held - mine}
	}
	list := make([]Place, len(uses))
	for i, k := range keys {
		h := hands[k]
		switch {
		case forced[i]:
			h.next++
			list[i] = Place{Number: h.next}
		case h.free > 0:
			h.free--
			h.next++
			list[i] = Place{Number: h.next}
		default:
			list[i] = Place{Number: counts[k].sent + h.held + 1, Held: true, First: h.held == 0}
			h.held++
		}
	}
	return list, nil
}

// place gives the SMS among drafts that have no place yet their places, held or
// not: what may be held asks for its place before it is drafted.
func (d *Desk) place(ctx context.Context, tx pgx.Tx, now time.Time, drafts []Draft) error {
	var uses []Use
	for _, draft := range drafts {
		if draft.Channel == subscription.SMS && !draft.Placed && !slices.Contains(private, draft.Topic) {
			uses = append(uses, draft.use(now))
		}
	}
	_, err := d.Places(ctx, tx, uses)
	return err
}

func (draft Draft) use(now time.Time) Use {
	u := Use{Address: draft.Address, Organisation: draft.Organisation, Topic: draft.Topic, Leaves: now}
	if draft.NotBefore.After(now) {
		u.Leaves = draft.NotBefore
	}
	return u
}

// Capped says of messages that the next channel would have been SMS and that the
// phone has had its number of them.
type Capped struct {
	Messages []CappedMessage `json:"messages"`
}

// CappedMessage is one of them.
type CappedMessage struct {
	Stored         Stored                  `json:"stored"` // by the channel before
	Events         []ledger.EventID        `json:"events"`
	Representative access.RepresentativeID `json:"representative"`
	Organisation   ledger.OrganisationID   `json:"organisation"`
	Topic          string                  `json:"topic"`
	Channel        subscription.Channel    `json:"channel"` // the one before
	Priority       carrier.Priority        `json:"priority"`
	NotBefore      time.Time               `json:"not_before"`
	Expires        time.Time               `json:"expires"`
	Number         int                     `json:"number"`
	Limit          int                     `json:"limit"`
	First          bool                    `json:"first"` // the phone is to be told so
}

// Kind names the job in River.
func (Capped) Kind() string { return "capped" }

// keepWithin gives the SMS among the drafts of a fall-back their places and leaves
// out those that are held; a job says of which that is true.
func (d *Desk) keepWithin(ctx context.Context, tx pgx.Tx, now time.Time, lost []lostSpare) ([]lostSpare, error) {
	var uses []Use
	for _, l := range lost {
		if l.draft.Channel == subscription.SMS {
			uses = append(uses, l.draft.use(now))
		}
	}
	places, err := d.Places(ctx, tx, uses)
	if err != nil || len(places) == 0 {
		return lost, err
	}
	var (
		kept   []lostSpare
		capped Capped
	)
	for _, l := range lost {
		if l.draft.Channel != subscription.SMS {
			kept = append(kept, l)
			continue
		}
		place := places[0]
		places = places[1:]
		if !place.Held {
			l.draft.Placed = true
			kept = append(kept, l)
			continue
		}
		capped.Messages = append(capped.Messages, CappedMessage{
			Stored: Stored{ID: l.from.id, At: l.from.at}, Events: append([]ledger.EventID{l.draft.Event}, l.draft.Joined...),
			Representative: l.draft.Representative, Organisation: l.draft.Organisation, Topic: l.draft.Topic, Channel: l.channel,
			Priority: l.draft.Priority, NotBefore: l.draft.NotBefore, Expires: l.draft.Expires,
			Number: place.Number, Limit: d.SMSPerDay, First: place.First,
		})
	}
	if len(capped.Messages) == 0 {
		return kept, nil
	}
	if _, err := d.river.InsertTx(ctx, tx, capped, nil); err != nil {
		return nil, fmt.Errorf("insert the job of what is over the cap: %w", err)
	}
	return kept, nil
}
