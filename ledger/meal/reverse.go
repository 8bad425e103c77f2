package meal

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger"
	"zvonok/ledger/money"
)

// Return asks to take a sale back.
type Return struct {
	// Event is the fact that it was taken back.
	Event ledger.EventID
	// Device made the sale under the number Of, and takes it back under Seq.
	Device, Seq, Of int64
	// At is when.
	At time.Time
}

// sold is a sale that is to be taken back.
type sold struct {
	event  ledger.EventID
	person ledger.PersonID
	total  money.Amount
	day    time.Time
	booked string
	zone   *time.Location
	// takenBackOn is the accounting day of the reversal.
	takenBackOn time.Time
}

// TakeBack takes sales back whole: the money returns to where it came from, a
// subsidised meal may be served again, and Waiting finds those that were refused
// for it. It returns a verdict for each, in order: CodeSold when it was taken back
// now, CodeDuplicate, CodeNoSale, CodeReversed, CodeConflict or CodeCancelled. A sale booked earlier in the same transaction
// can be taken back. An error means that the transaction is lost.
func (c *Canteen) TakeBack(ctx context.Context, tx pgx.Tx, returns []Return) ([]Verdict, error) {
	if len(returns) == 0 {
		return nil, nil
	}
	originals, err := c.findSold(ctx, tx, returns)
	if err != nil {
		return nil, err
	}
	verdicts := make([]Verdict, len(returns))
	var entries []ledger.Entry
	var places []int
	for i, r := range returns {
		original, ok := originals[i]
		if !ok {
			verdicts[i] = refuse(CodeNoSale, "the device has no booked sale of the number %d", r.Of)
			continue
		}
		key := saleKey(r.Device, r.Seq)
		entries = append(entries, ledger.Entry{
			Event: r.Event, Kind: ledger.Reversal, Source: key.Source, ExternalID: key.ExternalID,
			OccurredAt: r.At, Day: dayOf(r.At, original.zone), Reverses: saleKey(r.Device, r.Of),
		})
		places = append(places, i)
	}
	booked, err := c.book.Post(ctx, tx, entries)
	if err != nil {
		return nil, fmt.Errorf("take back %d sales: %w", len(returns), err)
	}
	var done []int
	for n, v := range booked {
		place := places[n]
		verdicts[place] = verdictOf(v)
		switch v.Code {
		case ledger.CodePosted, ledger.CodeDuplicate:
			verdicts[place].Balance = v.CreditAfter
		case ledger.CodeOverReversed:
			verdicts[place] = refuse(CodeReversed, "the sale %d has been taken back before", returns[place].Of)
		case ledger.CodeNoOriginal, ledger.CodeNotReversible:
			verdicts[place] = refuse(CodeNoSale, "the number %d is not a sale", returns[place].Of)
		}
		if v.Code == ledger.CodePosted {
			original := originals[place]
			original.takenBackOn = v.Day
			originals[place] = original
			done = append(done, place)
		}
	}
	if err := c.noteReturns(ctx, tx, returns, originals, verdicts, done); err != nil {
		return nil, err
	}
	return verdicts, dropWaiting(ctx, tx, returns, verdicts)
}

// findSold finds the sales of returns, by the place of the return.
func (c *Canteen) findSold(ctx context.Context, tx pgx.Tx, returns []Return) (map[int]sold, error) {
	sources, ids := make([]string, len(returns)), make([]string, len(returns))
	for i, r := range returns {
		key := saleKey(r.Device, r.Of)
		sources[i], ids[i] = key.Source, key.ExternalID
	}
	rows, err := tx.Query(ctx, `
		SELECT i.ord, s.event_id, s.person_id, s.total, s.day, s.booked, o.time_zone
		  FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS i (source, ext_id, ord)
		  JOIN ledger.idem k ON k.source = i.source AND k.ext_id = i.ext_id
		  JOIN ledger.posting p ON p.id = k.posting_id AND p.booking_day = k.booking_day
		  JOIN meal.sale s ON s.event_id = p.event_id
		  JOIN ledger.organisation o ON o.id = s.organisation_id`, sources, ids)
	if err != nil {
		return nil, fmt.Errorf("find the sales to take back: %w", err)
	}
	found := make(map[int]sold, len(returns))
	var place int
	var s sold
	var zone string
	if _, err := pgx.ForEachRow(rows, []any{&place, &s.event, &s.person, &s.total, &s.day, &s.booked, &zone},
		func() (err error) {
			s.zone, err = c.zone(zone)
			found[place-1] = s
			return err
		}); err != nil {
		return nil, fmt.Errorf("find the sales to take back: %w", err)
	}
	return found, nil
}

// noteReturns writes down what was taken back, and gives rations back.
func (c *Canteen) noteReturns(
	ctx context.Context, tx pgx.Tx, returns []Return, originals map[int]sold, verdicts []Verdict, done []int,
) error {
	if len(done) == 0 {
		return nil
	}
	n := len(done)
	events, sales, people := make([]int64, n), make([]int64, n), make([]int64, n)
	devices, seqs, totals := make([]int64, n), make([]int64, n), make([]int64, n)
	balances := make([]*int64, n)
	times, days, saleDays, bookedOn := make([]time.Time, n), make([]time.Time, n), make([]time.Time, n), make([]time.Time, n)
	var rations []int64
	for i, place := range done {
		r, s := returns[place], originals[place]
		events[i], sales[i], people[i] = int64(r.Event), int64(s.event), int64(s.person)
		devices[i], seqs[i], totals[i] = r.Device, r.Seq, int64(s.total)
		times[i], days[i], saleDays[i], bookedOn[i] = r.At, dayOf(r.At, s.zone), s.day, s.takenBackOn
		switch s.booked {
		case "wallet":
			balance := int64(verdicts[place].Balance)
			balances[i] = &balance
		case "budget":
			rations = append(rations, int64(s.event))
		}
	}
	if _, err := tx.Exec(ctx, `
		WITH noted AS (
			INSERT INTO meal.reversal (event_id, sale_event_id, person_id, device_id, seq, total, balance, at, day, booked_on)
			SELECT i.event_id, i.sale_id, i.person_id, i.device_id, i.seq, i.total, i.balance, i.at, i.day, i.booked_on
			  FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
			              $8::timestamptz[], $9::date[], $11::date[])
			       AS i (event_id, sale_id, person_id, device_id, seq, total, balance, at, day, booked_on)
		)
		UPDATE meal.sale s
		   SET reversed_by = i.event_id
		  FROM unnest($1::bigint[], $2::bigint[], $10::date[]) AS i (event_id, sale_id, day)
		 WHERE s.event_id = i.sale_id AND s.day = i.day`,
		events, sales, people, devices, seqs, totals, balances, times, days, saleDays, bookedOn); err != nil {
		return fmt.Errorf("note %d sales taken back: %w", n, err)
	}
	return deleteRations(ctx, tx, rations)
}
