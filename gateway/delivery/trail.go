package delivery

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/access/phone"
	"zvonok/ledger"
	"zvonok/ledger/pg"
)

// Trail is what is on record of one delivery, for explain. The address is
// masked and the text is left out: whoever explains needs neither.
type Trail struct {
	ID       ID        `json:"id"`
	At       time.Time `json:"at"`
	Channel  string    `json:"channel"`
	Address  string    `json:"address"`
	State    State     `json:"state"`
	Reason   string    `json:"reason,omitzero"`
	Operator string    `json:"operator,omitzero"`
	// Routes are the operators it was given to, the first one as it was decided first.
	Routes    []string   `json:"routes,omitempty"`
	Attempt   int        `json:"attempt"`
	Resent    bool       `json:"resent,omitzero"`
	Expires   time.Time  `json:"expires"`
	SendingAt *time.Time `json:"sending_at,omitzero"`
	SettledAt *time.Time `json:"settled_at,omitzero"`
	// Joined are the events of siblings that the same message tells of.
	Joined []ledger.EventID `json:"joined,omitempty"`
	Parts  []TrailPart      `json:"parts"`
	// FellBackAt is when the message went to the recipient's next channel, Then
	// what became of it there; nil when that address takes nothing either.
	FellBackAt *time.Time `json:"fell_back_at,omitzero"`
	Then       *Trail     `json:"then,omitzero"`
}

// TrailPart is one part that went over the air.
type TrailPart struct {
	Attempt     int        `json:"attempt"`
	Number      int        `json:"number"`
	Count       int        `json:"count"`
	Operator    string     `json:"operator"`
	MessageID   string     `json:"message_id"`
	Status      uint32     `json:"status"`
	State       string     `json:"state"`
	Error       string     `json:"error,omitzero"`
	SubmittedAt time.Time  `json:"submitted_at"`
	DoneAt      *time.Time `json:"done_at,omitzero"`
}

// MadeAt finds the deliveries of a topic that were made for a representative at
// one moment, such as those of a digest.
func MadeAt(ctx context.Context, q pg.Querier, who access.RepresentativeID, topic string, at time.Time) ([]Stored, error) {
	rows, err := q.Query(ctx, `
		SELECT id, at FROM delivery.delivery WHERE at = $1 AND representative_id = $2 AND topic = $3 ORDER BY id`, at, who, topic)
	if err != nil {
		return nil, fmt.Errorf("find the deliveries of a moment: %w", err)
	}
	stored, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Stored, error) {
		var s Stored
		err := row.Scan(&s.ID, &s.At)
		return s, err
	})
	if err != nil {
		return nil, fmt.Errorf("find the deliveries of a moment: %w", err)
	}
	return stored, nil
}

// Trails reads the trails of deliveries stored as given, in no particular order.
func Trails(ctx context.Context, q pg.Querier, stored []Stored) ([]Trail, error) {
	ids, ats := make([]int64, len(stored)), make([]time.Time, len(stored))
	for i, s := range stored {
		ids[i], ats[i] = int64(s.ID), s.At
	}
	rows, err := q.Query(ctx, `
		SELECT d.id, d.at, d.channel, d.address, d.state, coalesce(d.reason, ''), coalesce(d.operator, ''), d.tried, d.attempt,
			d.resent, d.expires_at, d.sending_at, d.settled_at, d.joined, p.taken_at, coalesce(p.next_id, 0),
			coalesce(p.next_at, d.at)
		FROM unnest($1::bigint[], $2::timestamptz[]) AS s (id, at)
		JOIN delivery.delivery AS d ON d.id = s.id AND d.at = s.at
		LEFT JOIN delivery.spare AS p ON d.spare AND p.delivery_id = d.id AND p.at = d.at
		ORDER BY d.id`, ids, ats)
	if err != nil {
		return nil, fmt.Errorf("read deliveries: %w", err)
	}
	var next []Stored // the spares, in the order of the trails; id 0 for none
	trails, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Trail, error) {
		var (
			t Trail
			n Stored
		)
		err := row.Scan(&t.ID, &t.At, &t.Channel, &t.Address, &t.State, &t.Reason, &t.Operator, &t.Routes, &t.Attempt, &t.Resent,
			&t.Expires, &t.SendingAt, &t.SettledAt, &t.Joined, &t.FellBackAt, &n.ID, &n.At)
		next = append(next, n)
		t.Address = masked(t.Channel, t.Address)
		return t, err
	})
	if err != nil {
		return nil, fmt.Errorf("read deliveries: %w", err)
	}
	index := make(map[ID]*Trail, len(trails))
	for i := range trails {
		index[trails[i].ID] = &trails[i]
	}
	rows, err = q.Query(ctx, `
		SELECT p.delivery_id, p.attempt, p.number, p.count, p.operator, p.message_id, p.status, p.state,
			coalesce(p.error, ''), p.submitted_at, p.done_at
		FROM unnest($1::bigint[], $2::timestamptz[]) AS s (id, at)
		JOIN delivery.part AS p ON p.delivery_id = s.id AND p.submitted_at >= s.at - interval '1 day'
		ORDER BY p.delivery_id, p.attempt, p.number`, ids, ats)
	if err != nil {
		return nil, fmt.Errorf("read parts: %w", err)
	}
	var (
		id   ID
		part TrailPart
	)
	_, err = pgx.ForEachRow(rows, []any{
		&id, &part.Attempt, &part.Number, &part.Count, &part.Operator, &part.MessageID, &part.Status, &part.State,
		&part.Error, &part.SubmittedAt, &part.DoneAt,
	}, func() error {
		if t, ok := index[id]; ok {
			t.Parts = append(t.Parts, part)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read parts: %w", err)
	}
	for i := range trails {
		if next[i].ID == 0 {
			continue
		}
		// One event has a handful of messages, and few of them fell back.
		then, err := Trails(ctx, q, next[i:i+1])
		if err != nil {
			return nil, err
		}
		if len(then) > 0 {
			trails[i].Then = &then[0]
		}
	}
	return trails, nil
}

// In tells the times of a trail, and of what followed it, in a zone.
func (t *Trail) In(zone *time.Location) {
	if t == nil {
		return
	}
	t.At, t.Expires = t.At.In(zone), t.Expires.In(zone)
	t.SendingAt, t.SettledAt, t.FellBackAt = inZone(t.SendingAt, zone), inZone(t.SettledAt, zone), inZone(t.FellBackAt, zone)
	for i := range t.Parts {
		t.Parts[i].SubmittedAt, t.Parts[i].DoneAt = t.Parts[i].SubmittedAt.In(zone), inZone(t.Parts[i].DoneAt, zone)
	}
	t.Then.In(zone)
}

func inZone(t *time.Time, zone *time.Location) *time.Time {
	if t == nil {
		return nil
	}
	local := t.In(zone)
	return &local
}

// masked hides whose address it is: the subscriber's digits, the mailbox's name.
// One that has been destroyed is empty.
func masked(channel, address string) string {
	if address == "" {
		return ""
	}
	switch channel {
	case "sms":
		return phone.Number(address).Masked()
	case "email":
		_, domain, _ := strings.Cut(address, "@")
		return "***@" + domain
	case "push":
		return "the recipient's browsers"
	default:
		return "***"
	}
}
