package notice

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"zvonok/access/door"
	"zvonok/gateway/carrier"
	"zvonok/gateway/delivery"
	"zvonok/gateway/subscription"
	"zvonok/ledger"
	"zvonok/templates"
)

// Absence is the topic of "has not come". Nobody subscribes to it by itself: who
// wants the visits of a child told at once is told of this one too, by the same
// channels, when the organisation has set a time.
const Absence subscription.Topic = "absence"

// absenceLife is how long it is news that a child has not come: a batch that was
// held and is released at noon still is, one of yesterday is not.
const absenceLife = 6 * time.Hour

// missedWorker tells parents that their children have not come.
type missedWorker struct {
	river.WorkerDefaults[door.Missed]
	teller *Teller
}

// Work tells the absences of a job.
func (w *missedWorker) Work(ctx context.Context, job *river.Job[door.Missed]) error {
	return w.teller.tellMissed(ctx, job.Args)
}

func (t *Teller) tellMissed(ctx context.Context, job door.Missed) error {
	return t.tellAll(ctx, func(ctx context.Context, tx pgx.Tx) ([]news, error) { return t.missedNews(ctx, tx, job) })
}

// missedNews reads absences that have not been told and still are absences: a
// child that has come since, or whose parents have said why it does not, frightens nobody.
func (t *Teller) missedNews(ctx context.Context, tx pgx.Tx, job door.Missed) ([]news, error) {
	absences, err := door.Absences(ctx, tx, job)
	if err != nil {
		return nil, err
	}
	told, err := toldEvents(ctx, tx, job.EventIDs, Absence)
	if err != nil {
		return nil, err
	}
	var children []ledger.PersonID
	for _, a := range absences {
		children = append(children, a.Person)
	}
	people, err := ledger.People(ctx, tx, children)
	if err != nil {
		return nil, err
	}
	var facts []news
	for _, a := range absences {
		if a.Came || a.Excused || told[a.Event] {
			continue
		}
		zone, err := t.zones.load(a.Zone)
		if err != nil {
			return nil, err
		}
		child := people[a.Person]
		facts = append(facts, news{
			event: a.Event, at: a.At, child: a.Person, org: a.Organisation, topic: Absence, wish: subscription.Pass,
			priority: carrier.Urgent, again: delivery.Fresh, expires: a.At.Add(absenceLife), zone: zone,
			words: absenceWords{templates.Name{Given: child.GivenName, Family: child.FamilyName}, a.At.In(zone)},
		})
	}
	return facts, nil
}

// toldEvents tells which of these facts have been told on a topic.
func toldEvents(ctx context.Context, tx pgx.Tx, events []int64, topic subscription.Topic) (map[ledger.EventID]bool, error) {
	rows, err := tx.Query(ctx, `
		SELECT DISTINCT event_id FROM notice.notice WHERE event_id = ANY ($1) AND topic = $2`, events, topic)
	if err != nil {
		return nil, fmt.Errorf("read which facts are told: %w", err)
	}
	told := make(map[ledger.EventID]bool, len(events))
	var event ledger.EventID
	if _, err := pgx.ForEachRow(rows, []any{&event}, func() error { told[event] = true; return nil }); err != nil {
		return nil, fmt.Errorf("read which facts are told: %w", err)
	}
	return told, nil
}

// absenceWords is the text of an absence.
type absenceWords struct {
	child templates.Name
	by    time.Time
}

func (w absenceWords) message(to reader, _ []words) (string, *delivery.Letter) {
	m := templates.Absent{Child: w.child, By: w.by}
	if to.channel == subscription.Email {
		m.Links = to.links
		return "", letter(m.Mail(to.style.Language))
	}
	return m.SMS(to.style), nil
}
