package notice

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/gateway/delivery"
	"zvonok/ledger"
	"zvonok/ledger/pg"
	"zvonok/templates"
)

// Fact is something that happened without a device that reported it: money that
// came, a threshold that was crossed, a child that has not come.
type Fact struct {
	Event    ledger.EventID `json:"event"`
	Type     string         `json:"type"` // topup, movement, threshold or absence
	At       time.Time      `json:"at"`
	TimeZone string         `json:"time_zone"` // the child's organisation's
}

// ErrNoFact is an event that is none of these.
var ErrNoFact = errors.New("no such fact")

// FindFact reads a fact by its event. It returns [ErrNoFact].
func FindFact(ctx context.Context, q pg.Querier, event ledger.EventID) (Fact, error) {
	f := Fact{Event: event}
	err := q.QueryRow(ctx, `
		SELECT f.type, f.at, coalesce(o.time_zone, 'UTC') FROM (
			SELECT CASE WHEN p.kind IN ('topup', 'release') THEN 'topup' ELSE 'movement' END AS type, p.posted_at AS at, a.person_id
			FROM ledger.posting AS p LEFT JOIN ledger.account AS a ON a.id IN (p.credit_id, p.debit_id) AND a.person_id IS NOT NULL
			WHERE p.event_id = $1
			UNION ALL
			SELECT 'threshold', c.at, a.person_id
			FROM ledger.crossing AS c JOIN ledger.account AS a ON a.id = c.account_id WHERE c.event_id = $1
			UNION ALL
			SELECT 'absence', a.at, a.person_id FROM door.absence AS a WHERE a.event_id = $1
		) AS f
		LEFT JOIN ledger.person AS p ON p.id = f.person_id
		LEFT JOIN ledger.organisation AS o ON o.id = p.organisation_id
		LIMIT 1`, event).Scan(&f.Type, &f.At, &f.TimeZone)
	if errors.Is(err, pgx.ErrNoRows) {
		return f, ErrNoFact
	}
	if err != nil {
		return f, fmt.Errorf("find the fact: %w", err)
	}
	return f, nil
}

// Line is what one recipient was told of an event by one channel, or why not.
type Line struct {
	Event          ledger.EventID             `json:"event"` // the one asked for, or a threshold that it crossed
	Child          string                     `json:"child"` // the registry's id
	Representative access.RepresentativeID    `json:"representative,omitzero"`
	Topic          string                     `json:"topic"`
	Channel        string                     `json:"channel,omitzero"`
	Verdict        Reason                     `json:"verdict"`
	Why            string                     `json:"why"`    // the verdict in words
	Stages         []templates.ExplainedStage `json:"stages"` // what each decided, when it decided it
	DecidedAt      time.Time                  `json:"decided_at"`
	Delivery       *delivery.Trail            `json:"delivery,omitzero"`
	Digests        []DigestLine               `json:"digests,omitempty"` // that tell it instead
}

// DigestLine is what became of a digest that tells of an event.
type DigestLine struct {
	Kind string    `json:"kind"` // day or week
	Day  time.Time `json:"day"`  // the day of its making, as midnight UTC; zero while it is to come
	// Verdict is [Told], or why there was none; "" while it is to come.
	Verdict  Reason           `json:"verdict,omitzero"`
	MadeAt   *time.Time       `json:"made_at,omitzero"`
	Messages []delivery.Trail `json:"messages,omitempty"`
}

// Story reads what became of an event, and of the thresholds that it made a
// balance cross, for every recipient: in the words of a language and with times
// in a zone. At is the time of the event, as recorded. An event that no job has
// told yet has no lines.
func Story(ctx context.Context, q pg.Querier, event ledger.EventID, at time.Time, l templates.Language, zone *time.Location) ([]Line, error) {
	rows, err := q.Query(ctx, `
		SELECT n.event_id, p.code, n.representative_id, n.topic, n.channel, n.verdict, n.stages, n.decided_at,
			coalesce(n.delivery_id, 0), coalesce(n.delivery_at, n.decided_at)
		FROM (
			SELECT $1::bigint AS event_id, $2::timestamptz AS at
			UNION ALL
			SELECT c.event_id, c.at
			FROM ledger.posting AS m
			JOIN ledger.crossing AS c ON c.account_id IN (m.credit_id, m.debit_id) AND c.posting_id = m.id
			WHERE m.event_id = $1
		) AS e
		JOIN notice.notice AS n ON n.event_id = e.event_id AND n.event_at = e.at
		JOIN ledger.person AS p ON p.id = n.child_id
		ORDER BY n.event_id <> $1, n.event_id, n.representative_id, n.topic, n.channel`, event, at)
	if err != nil {
		return nil, fmt.Errorf("read notices: %w", err)
	}
	var stored []delivery.Stored
	lines, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Line, error) {
		var (
			line   Line
			s      delivery.Stored
			stages string
		)
		err := row.Scan(&line.Event, &line.Child, &line.Representative, &line.Topic, &line.Channel, &line.Verdict, &stages, &line.DecidedAt,
			&s.ID, &s.At)
		line.DecidedAt = line.DecidedAt.In(zone)
		line.Why = templates.VerdictWords(l, string(line.Verdict))
		line.Stages = readStages(stages, line.Verdict, zone)
		for i := range line.Stages {
			line.Stages[i].Words = line.Stages[i].Say(l)
		}
		stored = append(stored, s)
		return line, err
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
				trails[j].In(zone)
				lines[i].Delivery = &trails[j]
			}
		}
		if lines[i].Digests, err = digestLines(ctx, q, lines[i], zone); err != nil {
			return nil, err
		}
	}
	return lines, nil
}

// digestLines finds what became of the digests that were to tell of an event:
// the first of each kind that knew what was decided by then. One event has a handful of
// recipients, and few of them digests.
func digestLines(ctx context.Context, q pg.Querier, line Line, zone *time.Location) ([]DigestLine, error) {
	i := slices.IndexFunc(line.Stages, func(s templates.ExplainedStage) bool { return len(s.Digests) > 0 })
	if i < 0 {
		return nil, nil
	}
	var digests []DigestLine
	for _, kind := range line.Stages[i].Digests {
		rows, err := q.Query(ctx, `
			SELECT kind, day, verdict, made_at FROM notice.digest
			WHERE representative_id = $1 AND kind = $2 AND day >= $3::timestamptz::date - 1 AND known_until >= $3
			ORDER BY day LIMIT 1`, line.Representative, kind, line.DecidedAt)
		if err != nil {
			return nil, fmt.Errorf("read digests: %w", err)
		}
		found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (DigestLine, error) {
			var d DigestLine
			err := row.Scan(&d.Kind, &d.Day, &d.Verdict, &d.MadeAt)
			return d, err
		})
		if err != nil {
			return nil, fmt.Errorf("read digests: %w", err)
		}
		if len(found) == 0 {
			digests = append(digests, DigestLine{Kind: kind})
			continue
		}
		d := found[0]
		stored, err := delivery.MadeAt(ctx, q, line.Representative, digestTopic, *d.MadeAt)
		if err != nil {
			return nil, err
		}
		if d.Messages, err = delivery.Trails(ctx, q, stored); err != nil {
			return nil, err
		}
		for i := range d.Messages {
			d.Messages[i].In(zone)
		}
		*d.MadeAt = d.MadeAt.In(zone)
		digests = append(digests, d)
	}
	return digests, nil
}

// Explained is the line as its words need it.
func (l Line) Explained() templates.ExplainedRecipient {
	r := templates.ExplainedRecipient{
		Representative: int64(l.Representative), Child: l.Child, Topic: l.Topic, Channel: l.Channel, Verdict: string(l.Verdict),
		DecidedAt: l.DecidedAt, Stages: l.Stages, Message: explainedMessage(l.Delivery),
	}
	for _, d := range l.Digests {
		digest := templates.ExplainedDigest{Kind: d.Kind, Day: d.Day, Verdict: string(d.Verdict), MadeAt: d.MadeAt}
		for _, m := range d.Messages {
			digest.Messages = append(digest.Messages, *explainedMessage(&m))
		}
		r.Digests = append(r.Digests, digest)
	}
	return r
}

func explainedMessage(t *delivery.Trail) *templates.ExplainedMessage {
	if t == nil {
		return nil
	}
	m := &templates.ExplainedMessage{
		ID: int64(t.ID), MadeAt: t.At, Channel: t.Channel, Address: t.Address, State: string(t.State), Reason: t.Reason,
		Operator:  t.Operator,
		SettledAt: t.SettledAt, Expires: t.Expires, Resent: t.Resent, Siblings: len(t.Joined),
		FellBackAt: t.FellBackAt, Next: explainedMessage(t.Then),
	}
	for _, p := range t.Parts {
		m.Parts = append(m.Parts, templates.ExplainedPart{
			Attempt: p.Attempt, Number: p.Number, Count: p.Count, By: p.Operator, MessageID: p.MessageID, State: p.State,
			Error: p.Error, SubmittedAt: p.SubmittedAt, DoneAt: p.DoneAt,
		})
	}
	return m
}
