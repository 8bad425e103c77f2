package meal

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger"
	"zvonok/ledger/money"
	"zvonok/ledger/pg"
)

// Record is a sale that was booked.
type Record struct {
	Event        ledger.EventID
	Person       ledger.PersonID
	Organisation ledger.OrganisationID
	Kind         Kind
	Meal         string
	Items        []Item
	Total        money.Amount
	// Balance is what was left in the wallet just after; nil when the wallet was not touched.
	Balance *money.Amount
	At      time.Time
	// Day is the date of At in the organisation's zone, at midnight UTC.
	Day     time.Time
	Offline bool
	// TakenBack tells that the sale was taken back later.
	TakenBack bool
}

const recordColumns = `
	s.event_id, s.person_id, s.organisation_id, s.kind, s.meal, s.items, s.total, s.balance, s.at, s.day, s.offline,
	s.reversed_by IS NOT NULL`

func readRecords(ctx context.Context, q pg.Querier, query string, args ...any) ([]Record, error) {
	rows, err := q.Query(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read sales: %w", err)
	}
	records, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Record, error) {
		var r Record
		var items []byte
		if err := row.Scan(&r.Event, &r.Person, &r.Organisation, &r.Kind, &r.Meal, &items, &r.Total, &r.Balance,
			&r.At, &r.Day, &r.Offline, &r.TakenBack); err != nil {
			return r, err
		}
		if items != nil {
			if err := json.Unmarshal(items, &r.Items); err != nil {
				return r, fmt.Errorf("sale %d: %w", r.Event, err)
			}
		}
		return r, nil
	})
	if err != nil {
		return nil, fmt.Errorf("read sales: %w", err)
	}
	return records, nil
}

// SoldRecords returns the sales that a Sold job tells of, in the order of their events.
func SoldRecords(ctx context.Context, q pg.Querier, fact Sold) ([]Record, error) {
	return readRecords(ctx, q, `
		SELECT `+recordColumns+`
		  FROM meal.sale s
		 WHERE s.event_id = ANY ($1) AND s.day BETWEEN $2 AND $3
		 ORDER BY s.event_id`, fact.EventIDs, fact.From, fact.To)
}

// History returns what a person ate from one day to another, both included, the newest first.
func History(ctx context.Context, q pg.Querier, person ledger.PersonID, from, to time.Time) ([]Record, error) {
	return readRecords(ctx, q, `
		SELECT `+recordColumns+`
		  FROM meal.sale s
		 WHERE s.person_id = $1 AND s.day BETWEEN $2 AND $3
		 ORDER BY s.at DESC, s.event_id DESC`, person, from, to)
}

// ServedMeals returns the meals of a day that the city has paid, by person.
func ServedMeals(
	ctx context.Context, q pg.Querier, people []ledger.PersonID, day time.Time,
) (map[ledger.PersonID][]string, error) {
	rows, err := q.Query(ctx, `
		SELECT person_id, array_agg(meal ORDER BY meal)
		  FROM meal.ration
		 WHERE person_id = ANY ($1) AND day = $2
		 GROUP BY person_id`, people, day)
	if err != nil {
		return nil, fmt.Errorf("read which subsidised meals were served: %w", err)
	}
	served := map[ledger.PersonID][]string{}
	var person ledger.PersonID
	var meals []string
	if _, err := pgx.ForEachRow(rows, []any{&person, &meals}, func() error {
		served[person] = meals
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read which subsidised meals were served: %w", err)
	}
	return served, nil
}
