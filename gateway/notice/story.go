package notice

import (
	"context"
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

// Line is what one recipient was told of an event by one channel, or why not.
type Line struct {
	Child          string                  `json:"child"` // the registry's id
	Representative access.RepresentativeID `json:"representative,omitzero"`
	Topic          string                  `json:"topic"`
	Channel        string                  `json:"channel,omitzero"`
	Verdict        Reason                  `json:"verdict"`
	Why            string                  `json:"why"` // the verdict in words
	Stages         []Stage                 `json:"stages"`
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
		l.Why, l.Stages = l.Verdict.words(), l.Verdict.stages()
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
func (r Reason) words() string { return templates.VerdictWords(templates.EN, string(r)) }

// Stage is what one stage of the way from a fact to a message said, in the order
// of the stages.
type Stage struct {
	Stage   string `json:"stage"`
	Verdict string `json:"verdict"` // passed, refused, or not_asked after a refusal
}

// stages are the stages that may say no, and the reasons they leave.
var stages = []struct {
	name    string
	reasons []Reason
}{
	{"consent", []Reason{NotConsented, NoConsent, ConsentExpired, ConsentWithdrawn}},
	{"right_to_know", []Reason{NoListener, NotRepresentative, Removed, Expired}},
	{"subscription", []Reason{NotSubscribed}},
	{"address", []Reason{NoAddress}},
	{"freshness", []Reason{Stale}},
	{"opt_out_and_health", []Reason{OptedOut, Unreachable}},
	{"cap", []Reason{Capped}},
}

// stages says what each stage said when this was what became of a fact.
func (r Reason) stages() []Stage {
	list := make([]Stage, 0, len(stages))
	verdict := "passed"
	for _, s := range stages {
		switch {
		case slices.Contains(s.reasons, r):
			list = append(list, Stage{s.name, "refused"})
			verdict = "not_asked"
		default:
			list = append(list, Stage{s.name, verdict})
		}
	}
	return list
}
