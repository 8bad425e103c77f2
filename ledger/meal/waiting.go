package meal

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger"
)

// waitingLife is how long a refused meal may still be booked: by then a till's
// reversal has come, or never will.
const waitingLife = 100 * 24 * time.Hour

// keepWaiting keeps subsidised meals that have been eaten and were refused because
// one had been served. A till reports late and in any order: the serving that
// stands in their way may be a mistake that it takes back.
func (c *Canteen) keepWaiting(ctx context.Context, tx pgx.Tx, all []*sale) error {
	var events, people, devices, seqs []int64
	var days []time.Time
	var meals, sales []string
	for _, s := range all {
		if s.verdict.Code != CodeAlreadyServed || s.Mode != ledger.Offline {
			continue
		}
		document, err := json.Marshal(s.Sale)
		if err != nil {
			return fmt.Errorf("write down a refused meal: %w", err)
		}
		events, people = append(events, int64(s.Event)), append(people, int64(s.Person))
		devices, seqs = append(devices, s.Device), append(seqs, s.Seq)
		days, meals, sales = append(days, s.day), append(meals, s.Meal), append(sales, string(document))
	}
	if len(events) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, `
		INSERT INTO meal.waiting (event_id, person_id, day, meal, device_id, seq, sale)
		SELECT i.event_id, i.person_id, i.day, i.meal, i.device_id, i.seq, i.sale::jsonb
		  FROM unnest($1::bigint[], $2::bigint[], $3::date[], $4::text[], $5::bigint[], $6::bigint[], $7::text[])
		       AS i (event_id, person_id, day, meal, device_id, seq, sale)
		ON CONFLICT (event_id) DO NOTHING`, events, people, days, meals, devices, seqs, sales); err != nil {
		return fmt.Errorf("keep %d refused meals: %w", len(events), err)
	}
	return nil
}

// Waiting returns the meals that were refused because of sales that these returns
// have taken back in this transaction, the first of each child, meal and day: they
// may be sold now. What they were refused for is not served any more.
func (c *Canteen) Waiting(ctx context.Context, tx pgx.Tx, returns []Return) ([]Sale, error) {
	events := make([]int64, len(returns))
	for i, r := range returns {
		events[i] = int64(r.Event)
	}
	rows, err := tx.Query(ctx, `
		SELECT DISTINCT ON (w.person_id, w.day, w.meal) w.sale
		  FROM meal.reversal r
		  JOIN meal.sale s ON s.event_id = r.sale_event_id
		  JOIN meal.waiting w ON w.person_id = s.person_id AND w.day = s.day AND w.meal = s.meal
		 WHERE r.event_id = ANY ($1) AND s.booked = 'budget'
		   AND NOT EXISTS (SELECT FROM meal.sale b WHERE b.event_id = w.event_id AND b.day = w.day)
		 ORDER BY w.person_id, w.day, w.meal, w.event_id`, events)
	if err != nil {
		return nil, fmt.Errorf("look for refused meals: %w", err)
	}
	sales, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (s Sale, err error) {
		var document []byte
		if err = row.Scan(&document); err != nil {
			return s, err
		}
		err = json.Unmarshal(document, &s)
		s.ReceivedAt = time.Time{} // it is news now
		return s, err
	})
	if err != nil {
		return nil, fmt.Errorf("look for refused meals: %w", err)
	}
	return sales, nil
}

// dropWaiting forgets refused meals that their tills take back.
func dropWaiting(ctx context.Context, tx pgx.Tx, returns []Return, verdicts []Verdict) error {
	var devices, seqs []int64
	for i, r := range returns {
		if verdicts[i].Code == CodeNoSale {
			devices, seqs = append(devices, r.Device), append(seqs, r.Of)
		}
	}
	if len(devices) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, `
		DELETE FROM meal.waiting w
		 USING unnest($1::bigint[], $2::bigint[]) AS i (device_id, seq)
		 WHERE w.device_id = i.device_id AND w.seq = i.seq`, devices, seqs); err != nil {
		return fmt.Errorf("forget refused meals: %w", err)
	}
	return nil
}

// ForgetWaiting forgets refused meals that nobody will take the place of any more.
func (c *Canteen) ForgetWaiting(ctx context.Context, tx pgx.Tx, today time.Time) error {
	if _, err := tx.Exec(ctx, `DELETE FROM meal.waiting WHERE day < $1`, today.Add(-waitingLife)); err != nil {
		return fmt.Errorf("forget refused meals: %w", err)
	}
	return nil
}
