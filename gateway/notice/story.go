package notice

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/gateway/delivery"
	"zvonok/ledger"
	"zvonok/ledger/pg"
)

// Line is what one recipient was told of an event by one channel, or why not.
type Line struct {
	Child          string                  `json:"child"` // the registry's id
	Representative access.RepresentativeID `json:"representative,omitzero"`
	Topic          string                  `json:"topic"`
	Channel        string                  `json:"channel,omitzero"`
	Verdict        Reason                  `json:"verdict"`
	Why            string                  `json:"why"` // the verdict in words
	DecidedAt      time.Time               `json:"decided_at"`
	Delivery       *delivery.Trail         `json:"delivery,omitzero"`
}

// Story reads what became of an event for every recipient. At is the time of
// the event, as recorded. An event that no job has told yet has no lines.
func Story(ctx context.Context, q pg.Querier, event ledger.EventID, at time.Time) ([]Line, error) {
	rows, err := q.Query(ctx, `
		SELECT p.code, n.representative_id, n.topic, n.channel, n.verdict, n.decided_at,
			coalesce(n.delivery_id, 0), coalesce(n.delivery_at, n.decided_at)
		FROM notice.notice AS n
		JOIN ledger.person AS p ON p.id = n.child_id
		WHERE n.event_id = $1 AND n.event_at = $2
		ORDER BY n.representative_id, n.topic, n.channel`, event, at)
	if err != nil {
		return nil, fmt.Errorf("read notices: %w", err)
	}
	var stored []delivery.Stored
	lines, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Line, error) {
		var (
			l Line
			s delivery.Stored
		)
		err := row.Scan(&l.Child, &l.Representative, &l.Topic, &l.Channel, &l.Verdict, &l.DecidedAt, &s.ID, &s.At)
		l.Why = l.Verdict.words()
		stored = append(stored, s)
		return l, err
	})
	if err != nil {
		return nil, fmt.Errorf("read notices: %w", err)
	}
	trails, err := delivery.Trails(ctx, q, stored)
	if err != nil {
		return nil, err
	}
	for i := range lines {
		for j := range trails {
			if trails[j].ID == stored[i].ID {
				lines[i].Delivery = &trails[j]
			}
		}
	}
	return lines, nil
}

// words says a reason as a school secretary would.
func (r Reason) words() string {
	switch r {
	case Told:
		return "a message was made"
	case NoListener:
		return "the child has no representative on record"
	case NotConsented:
		return "the consent does not cover this kind of news"
	case NoConsent:
		return "no legal representative has consented to messages about this child"
	case ConsentExpired:
		return "the consent has run out"
	case ConsentWithdrawn:
		return "the consent was withdrawn"
	case NotRepresentative:
		return "this person may not know of the child"
	case Removed:
		return "this person was excluded"
	case Expired:
		return "this person's right has run out"
	case NotSubscribed:
		return "this person does not want this kind of news at once"
	case NoAddress:
		return "there is no address for the channel this person chose"
	case Stale:
		return "it was no longer news when it came; it goes to the day's digest"
	case OptedOut:
		return "the phone has asked for no more SMS"
	case Unreachable:
		return "the address has refused messages for good"
	case Capped:
		return "the phone has had its number of messages for the day; it goes to the day's digest"
	case Nothing:
		return "nothing happened, so there was no digest"
	default:
		return string(r)
	}
}
