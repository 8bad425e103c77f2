package notice

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/access/door"
	"zvonok/gateway/delivery"
	"zvonok/gateway/subscription"
	"zvonok/ledger"
)

// family names news that siblings share: one direction through one building.
type family struct {
	building  ledger.BuildingID
	direction int16
}

// message is what one or several candidates are told by.
type message struct {
	members []*candidate
	capped  bool              // it says that the cap is reached, instead of the news
	joins   *delivery.Waiting // a message of a sibling that still waits and is to tell of these, too
	before  []words           // what that message tells of already
	wait    time.Time         // not sent before it, so that a sibling may join; zero: at once
}

func (m *message) open() bool { return m.members[0].open() }

// tells reports that the message tells its candidates' news.
func (m *message) tells() bool { return m.open() && !m.capped }

// children are those whose news the message adds: each once, since a child that
// came in twice is told of twice.
func (m *message) children() []ledger.PersonID {
	children := make([]ledger.PersonID, len(m.members))
	for i, c := range m.members {
		children[i] = c.news.child
	}
	return children
}

// joinReach is how far back the passes of a waiting message may lie: the day of
// an offline reader, and more than any organisation lets a pass be news.
const joinReach = 24 * time.Hour

// key writes a family for delivery, "" for news that stands alone.
func (f family) key() string {
	if f == (family{}) {
		return ""
	}
	return fmt.Sprintf("%d:%d", f.building, f.direction)
}

// plan says which candidates one message would tell: news that siblings share;
// all others have one of their own. The cap asks it before anything is merged.
func plan(candidates []*candidate) []*message {
	type key struct {
		representative access.RepresentativeID
		channel        subscription.Channel
		family         family
	}
	var messages []*message
	shared := map[key]*message{}
	for _, c := range candidates {
		if !c.open() {
			continue
		}
		if c.news.family == (family{}) {
			c.group = &message{members: []*candidate{c}}
			messages = append(messages, c.group)
			continue
		}
		k := key{c.listener.Representative, c.channel, c.news.family}
		m := shared[k]
		// A child that came in twice is told of twice.
		if m == nil || slices.ContainsFunc(m.members, func(o *candidate) bool { return o.news.child == c.news.child }) {
			m = &message{}
			shared[k] = m
			messages = append(messages, m)
		}
		m.members = append(m.members, c)
		c.group = m
	}
	return messages
}

// meet finds for each SMS of a family the message of a sibling that is still
// waiting to be sent, and notes that it could tell of both: two facts that meet
// there are one message, and one of the day's number. The waiting rows are locked,
// so that their link takes them with the new text or has taken them before.
func (t *Teller) meet(ctx context.Context, tx pgx.Tx, messages []*message, now time.Time) error {
	var (
		siblings []*message
		asks     []delivery.Ask
	)
	for _, m := range messages {
		if c := m.members[0]; c.channel == subscription.SMS && c.news.family != (family{}) {
			siblings = append(siblings, m)
			asks = append(asks, delivery.Ask{
				Representative: c.listener.Representative, Address: c.address, Family: c.news.family.key(),
			})
		}
	}
	waiting, err := delivery.FindWaiting(ctx, tx, now, asks)
	if err != nil {
		return err
	}
	var events []int64
	for _, w := range waiting {
		if w != nil {
			for _, event := range w.Events {
				events = append(events, int64(event))
			}
		}
	}
	if len(events) == 0 {
		return nil
	}
	told, err := t.readPasses(ctx, tx, door.Passed{EventIDs: events, From: now.Add(-joinReach), To: now.Add(joinReach)}, "true")
	if err != nil {
		return err
	}
	byEvent := make(map[ledger.EventID]*news, len(told))
	for i := range told {
		byEvent[told[i].event] = &told[i]
	}
	joined := map[delivery.ID]bool{}
	for i, m := range siblings {
		w := waiting[i]
		if w == nil || joined[w.ID] {
			continue // one that has been joined already would lose what it now tells
		}
		var before []words
		seen := map[ledger.PersonID]bool{}
		for _, event := range w.Events {
			if n := byEvent[event]; n != nil {
				before = append(before, n.words)
				seen[n.child] = true
			}
		}
		// The same child again is news of its own: it went out and came back.
		again := slices.ContainsFunc(m.members, func(c *candidate) bool { return seen[c.news.child] })
		// What has no spare cannot fall back for the sibling that would.
		if len(before) == len(w.Events) && !again && (w.Spare || len(m.fallsBack()) == 0) {
			m.joins, m.before = w, before
			joined[w.ID] = true
		}
	}
	return nil
}

// merge makes the waiting messages that are joined tell of their siblings' news,
// too, and lets others wait for such.
func (t *Teller) merge(ctx context.Context, tx pgx.Tx, messages []*message, now time.Time) error {
	var extensions []delivery.Extension
	for _, m := range messages {
		if m.joins == nil {
			continue
		}
		extension := delivery.Extension{Stored: m.joins.Stored, Children: m.children()}
		for _, member := range m.members {
			extension.Events = append(extension.Events, member.news.event)
		}
		extension.Body, _ = t.text(m, subscription.SMS)
		if m.joins.Spare {
			extension.Spare = t.spare(m)
		}
		extensions = append(extensions, extension)
	}
	if err := delivery.Extend(ctx, tx, extensions); err != nil {
		return err
	}
	if err := linger(ctx, tx, messages, now); err != nil {
		return err
	}
	noteMerging(messages)
	return nil
}

// linger lets a message to a phone of several children wait for the others, as
// long as the recipient has chosen, or else the organisation.
func linger(ctx context.Context, tx pgx.Tx, messages []*message, now time.Time) error {
	var family []access.RepresentativeID
	for _, m := range messages {
		if m.lingers() {
			family = append(family, m.members[0].listener.Representative)
		}
	}
	if len(family) == 0 {
		return nil
	}
	chosen, err := subscription.MergeWaits(ctx, tx, family)
	if err != nil {
		return err
	}
	waits := map[*message]time.Duration{}
	var who []access.RepresentativeID
	for _, m := range messages {
		if !m.lingers() {
			continue
		}
		c := m.members[0]
		wait, own := chosen[c.listener.Representative]
		if !own {
			wait = c.news.mergeWait
		}
		if wait > 0 {
			waits[m] = wait
			who = append(who, c.listener.Representative)
		}
	}
	if len(who) == 0 {
		return nil
	}
	rows, err := tx.Query(ctx, `
		SELECT representative_id, count(*) FROM access.guardian
		WHERE representative_id = ANY ($1) AND NOT companion AND (revoked_at IS NULL OR revoked_at > $2)
		GROUP BY representative_id`, who, now)
	if err != nil {
		return fmt.Errorf("count the children of phones: %w", err)
	}
	children := map[access.RepresentativeID]int{}
	var (
		id    access.RepresentativeID
		count int
	)
	if _, err := pgx.ForEachRow(rows, []any{&id, &count}, func() error { children[id] = count; return nil }); err != nil {
		return fmt.Errorf("count the children of phones: %w", err)
	}
	for m, wait := range waits {
		if children[m.members[0].listener.Representative] > len(m.members) {
			m.wait = now.Add(wait)
		}
	}
	return nil
}

// lingers tells whether the message might wait: it is a family's, the cap has let
// it through, and it has not joined one that waits.
func (m *message) lingers() bool {
	c := m.members[0]
	return m.tells() && c.channel == subscription.SMS && c.news.family != (family{}) && m.joins == nil
}
