package reader

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/ledger"
	"zvonok/ledger/meal"
)

// bookSales hands fresh sales to the canteen, and after them the reversals,
// which may be of sales in the same batch.
func (s *storing) bookSales(ctx context.Context, tx pgx.Tx) error {
	some := false
	for range s.each(saleEvent, reversalEvent) {
		some = true
		break
	}
	if !some {
		return nil
	}
	if _, err := tx.Exec(ctx, `SET LOCAL plan_cache_mode = auto`); err != nil {
		return fmt.Errorf("let the books plan as they like: %w", err)
	}
	var (
		of    []int
		sales []meal.Sale
	)
	for i, f := range s.each(saleEvent) {
		sold := meal.Sale{
			Event: s.ids[i], Person: s.people[i].person, Kind: meal.Kind(f.sale.kind), Meal: f.sale.meal,
			Items: mealItems(f.sale.items), Total: f.sale.total, At: f.at, ReceivedAt: f.receivedAt, Device: int64(f.device.ID), Seq: f.seq,
			Building: f.device.BuildingID,
			// The device reports what has happened: it is booked whatever the balance (D11).
			Mode:   ledger.Offline,
			Silent: f.silent,
		}
		of, sales = append(of, i), append(sales, sold)
	}
	if len(sales) > 0 {
		verdicts, err := s.in.canteen.Sell(ctx, tx, sales)
		if err != nil {
			return err
		}
		for k, verdict := range verdicts {
			if !verdict.Booked() {
				s.reject(of[k], codeOf(verdict.Code), verdict.Message)
			}
		}
	}
	return s.takeBack(ctx, tx)
}

func mealItems(items []soldItem) []meal.Item {
	list := make([]meal.Item, len(items))
	for i, item := range items {
		list[i] = meal.Item{Code: item.code, Name: item.name, Quantity: item.quantity, Price: item.price}
	}
	return list
}

// codeOf puts a refusal of the canteen into the words of this interface.
func codeOf(code meal.Code) Code {
	switch code {
	case meal.CodeBadItem, meal.CodeBadKind:
		return BadEvent
	case meal.CodeBadTotal:
		return BadTotal
	case meal.CodeUnknownPerson:
		return UnknownPerson
	case meal.CodeNoWallet:
		return NoWallet
	case meal.CodeNotEntitled:
		return NotEntitled
	case meal.CodeAlreadyServed:
		return AlreadyServed
	case meal.CodeNoSale:
		return NoSale
	case meal.CodeReversed:
		return AlreadyReversed
	case meal.CodeConflict, meal.CodeCancelled:
		return Conflict
	default:
		return Refused
	}
}

// takeBack hands fresh reversals to the canteen, but for those whose sale has not
// come yet: the gate has seen to them.
func (s *storing) takeBack(ctx context.Context, tx pgx.Tx) error {
	var (
		of      []int
		returns []meal.Return
	)
	for i, f := range s.each(reversalEvent) {
		if s.early[i] {
			continue
		}
		of = append(of, i)
		returns = append(returns, meal.Return{
			Event: s.ids[i], Device: int64(f.device.ID), Seq: f.seq, Of: f.of, At: f.at,
		})
	}
	if len(returns) == 0 {
		return nil
	}
	verdicts, err := s.in.canteen.TakeBack(ctx, tx, returns)
	if err != nil {
		return err
	}
	var done []meal.Return
	for k, verdict := range verdicts {
		switch i := of[k]; {
		case verdict.Booked():
			done = append(done, returns[k])
		case verdict.Code == meal.CodeNoSale && s.past[s.facts[i].sold()].state == cancelledState:
			s.reject(i, AlreadyReversed, "of: the sale has been reversed before")
		default:
			s.reject(i, codeOf(verdict.Code), verdict.Message)
		}
	}
	return s.sellWaiting(ctx, tx, done)
}

// sellWaiting sells the subsidised meals that were refused because of sales that
// have just been taken back, so that the order in which a till reports a mistake
// and what it served instead changes nothing. What staff have settled by hand
// stays as it is.
func (s *storing) sellWaiting(ctx context.Context, tx pgx.Tx, returns []meal.Return) error {
	if len(returns) == 0 {
		return nil
	}
	sales, err := s.in.canteen.Waiting(ctx, tx, returns)
	if err != nil || len(sales) == 0 {
		return err
	}
	here := make(map[ledger.EventID]int, len(s.ids))
	for i, id := range s.ids {
		here[id] = i
	}
	var before []int64
	for _, sold := range sales {
		if _, now := here[sold.Event]; !now {
			before = append(before, int64(sold.Event))
		}
	}
	rows, err := tx.Query(ctx, `
		SELECT event_id FROM reader.quarantine WHERE event_id = ANY ($1) AND settled_at IS NULL FOR UPDATE`, before)
	if err != nil {
		return fmt.Errorf("read the quarantine of refused meals: %w", err)
	}
	open, err := pgx.CollectRows(rows, pgx.RowTo[ledger.EventID])
	if err != nil {
		return fmt.Errorf("read the quarantine of refused meals: %w", err)
	}
	sales = slices.DeleteFunc(sales, func(sold meal.Sale) bool {
		_, now := here[sold.Event]
		return !now && !slices.Contains(open, sold.Event)
	})
	if len(sales) == 0 {
		return nil
	}
	verdicts, err := s.in.canteen.Sell(ctx, tx, sales)
	if err != nil {
		return err
	}
	var events, devices, seqs []int64
	for k, verdict := range verdicts {
		sold := sales[k]
		i, now := here[sold.Event]
		switch {
		case !verdict.Booked():
		case now:
			s.results[i] = result{kind: resultAcknowledged}
		default:
			events = append(events, int64(sold.Event))
			devices, seqs = append(devices, sold.Device), append(seqs, sold.Seq)
		}
	}
	if len(events) == 0 {
		return nil
	}
	var batch pgx.Batch
	batch.Queue(`
		UPDATE reader.event e
		   SET state = 1
		  FROM unnest($1::bigint[], $2::bigint[]) AS t (device_id, seq)
		 WHERE e.device_id = t.device_id AND e.seq = t.seq`, devices, seqs)
	batch.Queue(`UPDATE reader.quarantine SET settled_at = $2, settled_by = $3 WHERE event_id = ANY ($1)`,
		events, s.now, access.BySystem("meal_served_instead").String())
	if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
		return fmt.Errorf("let refused meals out of quarantine: %w", err)
	}
	return nil
}
