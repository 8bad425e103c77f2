package delivery

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"

	"zvonok/access"
	"zvonok/access/phone"
	"zvonok/gateway/carrier"
	"zvonok/gateway/subscription"
	"zvonok/ledger"
)

// stillRight is for how long what was decided when a message was made holds: what
// leaves within it is sent as it is. What has waited longer, for the end of the
// night, for a sibling, for a link or a relay, or for proof of another channel, is
// asked about again before it leaves. A right ends by itself, at midnight as a
// rule and so within the quiet hours, or is taken away (D14, D12), and the
// recipient may have another phone by then.
const stillRight = 15 * time.Second

// Why a message is not sent after all, where it is no verdict of access.
const (
	notConsented = "not_consented" // the consent does not cover such news any more
	noAddress    = "no_address"    // the recipient has none by this channel any more
)

// visitTopics and moneyTopics are what a consent must cover to be told of.
var (
	visitTopics = []string{"pass", "alarm", "absence"}
	moneyTopics = []string{"hot", "buffet", "subsidised", "topup", "threshold", "blocked"}
)

// Covered says whether a consent to visits, and to meals and money, covers news of a topic (D14).
func Covered(topic string, visits, meals bool) bool {
	return (visits || !slices.Contains(visitTopics, topic)) && (meals || !slices.Contains(moneyTopics, topic))
}

// recipient is whom a message is for, as it stands in its row.
type recipient struct {
	who      access.RepresentativeID
	children []ledger.PersonID
	topic    string
	channel  subscription.Channel
	address  string
}

// present is where a recipient is reached now, or why he is told nothing.
type present struct {
	address string
	why     string
}

// presently asks of each recipient whether he may still know of all the children
// that a message tells of, and where he is reached. It is two questions whatever
// the number.
func presently(ctx context.Context, tx pgx.Tx, list []recipient, now time.Time) ([]present, error) {
	var children []ledger.PersonID
	for _, r := range list {
		children = append(children, r.children...)
	}
	answers := make([]present, len(list))
	for i, r := range list {
		answers[i].address = r.address
	}
	if len(children) == 0 {
		return answers, nil // messages that tell of nobody
	}
	slices.Sort(children)
	audience, err := access.Audience(ctx, tx, slices.Compact(children), now)
	if err != nil {
		return nil, err
	}
	type pair struct {
		who   access.RepresentativeID
		child ledger.PersonID
	}
	listeners := make(map[pair]access.Listener, len(audience))
	for _, l := range audience {
		listeners[pair{l.Representative, l.Child}] = l
	}
	for i, r := range list {
		for _, child := range r.children {
			l, known := listeners[pair{r.who, child}]
			switch {
			case !known:
				answers[i].why = string(access.NotRepresentative)
			case l.Verdict != access.Yes:
				answers[i].why = string(l.Verdict)
			case !Covered(r.topic, l.Visits, l.Meals):
				answers[i].why = notConsented
			}
			switch {
			case !known:
			case r.channel == subscription.SMS:
				answers[i].address = string(l.Phone)
			case r.channel == subscription.Email:
				answers[i].address = l.Email
			}
		}
		if a := &answers[i]; a.why == "" && a.address == "" {
			a.why = noAddress
		}
	}
	return answers, nil
}

// review asks again about messages that are about to be sent and have waited.
// Those that must not be sent are recalled; those whose recipient has moved go
// where he is now, and fail where that address takes nothing. It returns those
// that go by another operator than the one that asks.
func (d *Desk) review(ctx context.Context, pool *pgxpool.Pool, now time.Time, keys []rowKey, operator string) (map[ID]bool, error) {
	keys = slices.DeleteFunc(slices.Clone(keys), func(k rowKey) bool { return now.Sub(k.at) < stillRight })
	if len(keys) == 0 {
		return nil, nil
	}
	left := map[ID]bool{}
	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		list, err := waitedFor(ctx, tx, keys)
		if err != nil || len(list) == 0 {
			return err
		}
		recipients := make([]recipient, len(list))
		for i, m := range list {
			recipients[i] = m.recipient
		}
		answers, err := presently(ctx, tx, recipients, now)
		if err != nil {
			return err
		}
		stop := map[string][]Stored{}
		var moved []waiting
		for i, m := range list {
			switch a := answers[i]; {
			case a.why != "":
				stop[a.why] = append(stop[a.why], Stored{ID: m.key.id, At: m.key.at})
			case a.address != m.address:
				m.address = a.address
				moved = append(moved, m)
			}
		}
		for why, stored := range stop {
			if err := Withhold(ctx, tx, stored, why, now); err != nil {
				return err
			}
		}
		return d.readdress(ctx, tx, moved, operator, left, now)
	})
	if err != nil {
		return nil, fmt.Errorf("ask again about messages that have waited: %w", err)
	}
	return left, nil
}

// reviewJob does so for the messages of a job that no operator works on.
func (d *Desk) reviewJob(ctx context.Context, pool *pgxpool.Pool, now, at time.Time, ids []ID) error {
	keys := make([]rowKey, len(ids))
	for i, id := range ids {
		keys[i] = rowKey{id, at}
	}
	_, err := d.review(ctx, pool, now, keys, "")
	return err
}

// waiting is a message that has waited.
type waiting struct {
	recipient
	key      rowKey
	priority carrier.Priority
}

// waitedFor reads the messages that tell of children and can still be sent.
func waitedFor(ctx context.Context, tx pgx.Tx, keys []rowKey) ([]waiting, error) {
	ids, ats := split(keys)
	rows, err := tx.Query(ctx, `
		SELECT d.id, d.at, d.representative_id, d.children, d.topic, d.channel, d.address, d.priority
		FROM unnest($1::bigint[], $2::timestamptz[]) AS k (id, at)
		JOIN delivery.delivery AS d ON d.id = k.id AND d.at = k.at
		WHERE d.at BETWEEN $3 AND $4 AND d.children <> '{}' AND d.state IN ('queued', 'sent') AND NOT d.recalled
		ORDER BY d.id`, ids, ats, slices.MinFunc(ats, time.Time.Compare), slices.MaxFunc(ats, time.Time.Compare))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (m waiting, err error) {
		err = row.Scan(&m.key.id, &m.key.at, &m.who, &m.children, &m.topic, &m.channel, &m.address, &m.priority)
		return m, err
	})
}

// readdress sends waiting messages to where their recipients are reached now: a
// handful, since people seldom change their phones.
func (d *Desk) readdress(
	ctx context.Context, tx pgx.Tx, moved []waiting, operator string, left map[ID]bool, now time.Time,
) error {
	var failed []rowKey
	for _, m := range moved {
		health, err := HealthOf(ctx, tx, m.channel, []string{m.address})
		if err != nil {
			return err
		}
		takes, why := "", ""
		switch h := health[m.address]; {
		case h.OptedOut:
			why = "opted_out"
		case h.Suppressed:
			why = "unreachable"
		case h.Doubted:
			why = "unconfirmed"
		case m.channel == subscription.SMS:
			why = "no_route"
			if routes := d.route(phone.Number(m.address)); len(routes) > 0 {
				takes, why = routes[0], ""
			}
		}
		tag, err := tx.Exec(ctx, `
			UPDATE delivery.delivery
			SET address = $3, state = CASE WHEN $4 = '' THEN state ELSE 'failed' END, reason = coalesce(nullif($4, ''), reason),
			    settled_at = CASE WHEN $4 = '' THEN settled_at ELSE $5::timestamptz END,
			    operator = coalesce(nullif($6, ''), operator), tried = CASE WHEN $6 = '' THEN tried ELSE ARRAY[$6] END
			WHERE id = $1 AND at = $2 AND state = 'queued'`, m.key.id, m.key.at, m.address, why, now, takes)
		switch {
		case err != nil:
			return fmt.Errorf("send message %d to its recipient's new address: %w", m.key.id, err)
		case tag.RowsAffected() == 0: // somebody has taken it
		case why != "":
			failed = append(failed, m.key)
		case takes != operator:
			left[m.key.id] = true
			if _, err := d.river.InsertTx(ctx, tx, SMSArgs{Operator: takes, At: m.key.at, IDs: []ID{m.key.id}},
				&river.InsertOpts{Queue: smsQueue(takes, m.priority), Priority: int(m.priority)}); err != nil {
				return fmt.Errorf("insert a send job: %w", err)
			}
		}
	}
	return d.fallBack(ctx, tx, now, failed)
}
