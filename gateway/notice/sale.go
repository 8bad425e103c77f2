package notice

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"zvonok/gateway/carrier"
	"zvonok/gateway/delivery"
	"zvonok/gateway/subscription"
	"zvonok/ledger/meal"
	"zvonok/ledger/money"
	"zvonok/templates"
)

// soldWorker tells of meals and purchases (R41, R44, R45).
type soldWorker struct {
	river.WorkerDefaults[meal.Sold]
	teller *Teller
}

// Work tells the sales of a job.
func (w *soldWorker) Work(ctx context.Context, job *river.Job[meal.Sold]) error {
	_, err := w.teller.sold.Do(ctx, job.Args)
	return err
}

func (t *Teller) tellSold(ctx context.Context, jobs []meal.Sold) ([]struct{}, error) {
	all := meal.Sold{From: jobs[0].From, To: jobs[0].To}
	for _, job := range jobs {
		all.EventIDs = append(all.EventIDs, job.EventIDs...)
		if job.From.Before(all.From) {
			all.From = job.From
		}
		if job.To.After(all.To) {
			all.To = job.To
		}
	}
	return make([]struct{}, len(jobs)), t.tellAll(ctx, func(ctx context.Context, tx pgx.Tx) ([]news, error) {
		return t.soldNews(ctx, tx, all)
	})
}

// soldNews reads sales that have not been told. One that was taken back before
// its turn is no news.
func (t *Teller) soldNews(ctx context.Context, tx pgx.Tx, job meal.Sold) ([]news, error) {
	rows, err := tx.Query(ctx, `
		SELECT s.event_id, s.at, s.person_id, s.kind, s.meal, s.total, coalesce(s.balance, 0), s.items,
			child.given_name, child.family_name, o.time_zone, o.id
		FROM meal.sale AS s
		JOIN ledger.person AS child ON child.id = s.person_id
		JOIN ledger.organisation AS o ON o.id = child.organisation_id
		WHERE s.event_id = ANY ($1) AND s.day BETWEEN $2 AND $3 AND s.reversed_by IS NULL AND child.kind = 'pupil'
		  AND NOT EXISTS (SELECT FROM notice.notice AS n WHERE n.event_id = s.event_id AND n.event_at = s.at)
		ORDER BY s.at, s.event_id`, job.EventIDs, job.From, job.To)
	if err != nil {
		return nil, fmt.Errorf("read sales to tell: %w", err)
	}
	facts, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (news, error) {
		n := news{priority: carrier.Normal, again: delivery.Later}
		var (
			w     soldWords
			zone  string
			items []byte
		)
		if err := row.Scan(&n.event, &n.at, &n.child, &w.kind, &w.meal, &w.total, &w.balance, &items,
			&w.child.Given, &w.child.Family, &zone, &n.org); err != nil {
			return n, err
		}
		var err error
		if n.zone, err = t.zones.load(zone); err != nil {
			return n, err
		}
		if items != nil {
			if err := json.Unmarshal(items, &w.dishes); err != nil {
				return n, fmt.Errorf("items of sale %d: %w", n.event, err)
			}
		}
		n.topic = subscription.Topic(w.kind) // hot, buffet and subsidised are topics by the same names
		n.expires = n.at.Add(saleLife)
		w.at = n.at.In(n.zone)
		n.words = w
		return n, nil
	})
	if err != nil {
		return nil, fmt.Errorf("read sales to tell: %w", err)
	}
	return facts, nil
}

// soldWords is the text of a sale.
type soldWords struct {
	child          templates.Name
	kind           meal.Kind
	meal           templates.Meal
	at             time.Time
	total, balance money.Amount
	dishes         []struct {
		Name     string `json:"name"`
		Quantity int    `json:"quantity"`
	}
}

func (w soldWords) message(to reader, _ []words) (string, *delivery.Letter) {
	m := templates.Sale{
		Child: w.child, Kind: templates.Kind(w.kind), Meal: w.meal, At: w.at, Sum: w.total, Balance: w.balance, Own: to.legal,
	}
	for _, dish := range w.dishes {
		m.Dishes = append(m.Dishes, templates.Dish{Name: dish.Name, Quantity: dish.Quantity})
	}
	if to.channel == subscription.Email {
		m.Links = to.links
		return "", letter(m.Mail(to.style.Language))
	}
	return m.SMS(to.style), nil
}
