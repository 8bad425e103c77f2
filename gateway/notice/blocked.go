package notice

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"zvonok/gateway/carrier"
	"zvonok/gateway/delivery"
	"zvonok/gateway/subscription"
	"zvonok/ledger"
	"zvonok/ledger/meal"
	"zvonok/templates"
)

// Blocked is the topic of purchases that a limit or a ban of the parents
// stopped. Nobody subscribes to it by itself: who wants the child's purchases
// told at once is told of these, too, by the same channels.
const Blocked subscription.Topic = "blocked"

// stoppedWorker tells of stopped purchases.
type stoppedWorker struct {
	river.WorkerDefaults[meal.Stopped]
	teller *Teller
}

// Work tells the stopped purchases of a job.
func (w *stoppedWorker) Work(ctx context.Context, job *river.Job[meal.Stopped]) error {
	return w.teller.tellStopped(ctx, job.Args)
}

func (t *Teller) tellStopped(ctx context.Context, job meal.Stopped) error {
	return t.tellAll(ctx, func(ctx context.Context, tx pgx.Tx) ([]news, error) { return t.stoppedNews(ctx, tx, job) })
}

// stoppedNews reads stopped purchases that have not been told.
func (t *Teller) stoppedNews(ctx context.Context, tx pgx.Tx, job meal.Stopped) ([]news, error) {
	stopped, err := meal.StoppedPurchases(ctx, tx, job)
	if err != nil || len(stopped) == 0 {
		return nil, err
	}
	told, err := toldEvents(ctx, tx, job.EventIDs, Blocked)
	if err != nil {
		return nil, err
	}
	children := make([]ledger.PersonID, len(stopped))
	for i, s := range stopped {
		children[i] = s.Person
	}
	pupils, err := t.readPupils(ctx, tx, children)
	if err != nil {
		return nil, err
	}
	var facts []news
	for _, s := range stopped {
		child, ok := pupils[s.Person]
		if !ok || told[s.Event] {
			continue
		}
		facts = append(facts, news{
			event: s.Event, at: s.At, child: s.Person, org: child.org, topic: Blocked, wish: subscription.Buffet,
			priority: carrier.Normal, again: delivery.Later, expires: s.At.Add(saleLife), zone: child.zone,
			words: blockedWords{templates.Blocked{
				Child: child.name, At: s.At.In(child.zone), Why: whyBlocked(s.Reason), Dish: s.Value,
			}},
		})
	}
	return facts, nil
}

// pupil is what texts need to know of a child.
type pupil struct {
	name templates.Name
	org  ledger.OrganisationID
	zone *time.Location
}

// readPupils reads children; people who are none are left out.
func (t *Teller) readPupils(ctx context.Context, tx pgx.Tx, children []ledger.PersonID) (map[ledger.PersonID]pupil, error) {
	rows, err := tx.Query(ctx, `
		SELECT p.id, p.given_name, p.family_name, o.id, o.time_zone
		FROM ledger.person AS p JOIN ledger.organisation AS o ON o.id = p.organisation_id
		WHERE p.id = ANY ($1) AND p.kind = 'pupil'`, children)
	if err != nil {
		return nil, fmt.Errorf("read the children: %w", err)
	}
	pupils := make(map[ledger.PersonID]pupil, len(children))
	var (
		id   ledger.PersonID
		p    pupil
		zone string
	)
	if _, err := pgx.ForEachRow(rows, []any{&id, &p.name.Given, &p.name.Family, &p.org, &zone}, func() error {
		var err error
		p.zone, err = t.zones.load(zone)
		pupils[id] = p
		return err
	}); err != nil {
		return nil, fmt.Errorf("read the children: %w", err)
	}
	return pupils, nil
}

// blockedWords is the text of a stopped purchase.
type blockedWords struct{ templates.Blocked }

func (w blockedWords) message(to reader, _ []words) (string, *delivery.Letter) {
	if to.channel == subscription.Email {
		w.Links = to.links
		return "", letter(w.Mail(to.style.Language))
	}
	return w.SMS(to.style), nil
}
