package reader

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

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
	for k, verdict := range verdicts {
		switch i := of[k]; {
		case verdict.Booked():
		case verdict.Code == meal.CodeNoSale && s.past[s.facts[i].sold()].state == cancelledState:
			s.reject(i, AlreadyReversed, "of: the sale has been reversed before")
		default:
			s.reject(i, codeOf(verdict.Code), verdict.Message)
		}
	}
	return nil
}
