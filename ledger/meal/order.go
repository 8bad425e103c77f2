package meal

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger"
	"zvonok/ledger/money"
	"zvonok/ledger/pg"
)

// orderSource is the source of the holds of preorders in the book.
const orderSource = "preorder"

// OrderID is the id of a preorder.
type OrderID int64

func orderKey(id OrderID) ledger.Key {
	return ledger.Key{Source: orderSource, ExternalID: strconv.FormatInt(int64(id), 10)}
}

// Order asks for a meal ahead.
type Order struct {
	Person ledger.PersonID
	// Day is the date of the meal, at midnight UTC.
	Day time.Time
	// Meal is which meal of the day.
	Meal string
	// Dish is a dish of that meal's menu; empty for the whole meal.
	Dish string
}

// The outcomes of orders, beside CodeNotEnough, CodeNoWallet, CodeClosed and CodeUnknownPerson.
const (
	// CodeOrdered: the order is placed and its money is held.
	CodeOrdered Code = "ordered"
	// CodeTooLate: the cut-off has passed.
	CodeTooLate Code = "too_late"
	// CodeNotOnMenu: the menu of that day has no such meal or dish.
	CodeNotOnMenu Code = "not_on_menu"
	// CodeOrderedBefore: it is ordered already.
	CodeOrderedBefore Code = "ordered_before"
)

// OrderVerdict answers an Order.
type OrderVerdict struct {
	Code Code
	// ID is the order's, when it was placed.
	ID    OrderID
	Price money.Amount
}

// cutOff returns the moment until which orders for a day may be changed.
func (c *Canteen) cutOff(day time.Time, zone *time.Location) time.Time {
	return time.Date(day.Year(), day.Month(), day.Day(), 0, 0, 0, 0, zone).Add(-c.CutOff)
}

// PlaceOrders orders meals ahead and holds their money. It returns a verdict for
// each, in order. by is the representative who orders.
func (c *Canteen) PlaceOrders(
	ctx context.Context, tx pgx.Tx, orders []Order, by int64, now time.Time,
) ([]OrderVerdict, error) {
	n := len(orders)
	people, days, meals, dishes := make([]int64, n), make([]time.Time, n), make([]string, n), make([]string, n)
	for i, o := range orders {
		people[i], days[i], meals[i], dishes[i] = int64(o.Person), o.Day, mealName(o.Meal), o.Dish
	}
	rows, err := tx.Query(ctx, `
		SELECT coalesce(p.organisation_id, 0), coalesce(o.time_zone, 'UTC'), coalesce(a.id, 0),
		       CASE WHEN i.dish = '' THEN (SELECT sum(m.price)::bigint FROM meal.menu m
		                                    WHERE m.organisation_id = p.organisation_id AND m.day = i.day AND m.meal = i.meal)
		            ELSE (SELECT m.price FROM meal.menu m
		                   WHERE m.organisation_id = p.organisation_id AND m.day = i.day AND m.meal = i.meal
		                     AND m.dish = i.dish)
		       END
		  FROM unnest($1::bigint[], $2::date[], $3::text[], $4::text[])
		       WITH ORDINALITY AS i (person_id, day, meal, dish, ord)
		  LEFT JOIN ledger.person p ON p.id = i.person_id
		  LEFT JOIN ledger.organisation o ON o.id = p.organisation_id
		  LEFT JOIN ledger.account a ON a.person_id = p.id
		 ORDER BY i.ord`, people, days, meals, dishes)
	if err != nil {
		return nil, fmt.Errorf("look up orders: %w", err)
	}
	type found struct {
		organisation ledger.OrganisationID
		zone         string
		wallet       ledger.AccountID
		price        *money.Amount
	}
	facts, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (f found, err error) {
		err = row.Scan(&f.organisation, &f.zone, &f.wallet, &f.price)
		return f, err
	})
	if err != nil {
		return nil, fmt.Errorf("look up orders: %w", err)
	}
	verdicts := make([]OrderVerdict, n)
	var places []int
	var organisations, prices []int64
	for i, f := range facts {
		zone, err := c.zone(f.zone)
		if err != nil {
			return nil, err
		}
		switch {
		case f.organisation == 0:
			verdicts[i].Code = CodeUnknownPerson
		case f.wallet == 0:
			verdicts[i].Code = CodeNoWallet
		case !now.Before(c.cutOff(orders[i].Day, zone)):
			verdicts[i].Code = CodeTooLate
		case f.price == nil:
			verdicts[i].Code = CodeNotOnMenu
		default:
			verdicts[i].Price = *f.price
			places = append(places, i)
			organisations, prices = append(organisations, int64(f.organisation)), append(prices, int64(*f.price))
		}
	}
	ids, err := insertOrders(ctx, tx, orders, places, organisations, prices, by, now)
	if err != nil {
		return nil, err
	}
	var holds []ledger.Hold
	var held []int
	for n, place := range places {
		v := &verdicts[place]
		if ids[n] == 0 {
			v.Code = CodeOrderedBefore
			continue
		}
		v.Code, v.ID = CodeOrdered, ids[n]
		if v.Price > 0 {
			holds = append(holds, ledger.Hold{Account: facts[place].wallet, Amount: v.Price, Key: orderKey(v.ID)})
			held = append(held, place)
		}
	}
	codes, err := c.book.HoldMoney(ctx, tx, holds)
	if err != nil {
		return nil, err
	}
	var refused []int64
	for n, code := range codes {
		v := &verdicts[held[n]]
		switch code {
		case ledger.CodeHeld:
			continue
		case ledger.CodeClosedAccount:
			v.Code = CodeClosed
		default:
			v.Code = CodeNotEnough
		}
		refused = append(refused, int64(v.ID))
		v.ID = 0
	}
	if len(refused) > 0 {
		if _, err := tx.Exec(ctx, `UPDATE meal.preorder SET state = 'cancelled' WHERE id = ANY ($1)`, refused); err != nil {
			return nil, fmt.Errorf("cancel orders without money: %w", err)
		}
	}
	return verdicts, nil
}

// insertOrders writes the orders of places and returns their ids; 0 for one that
// is ordered already.
func insertOrders(
	ctx context.Context, tx pgx.Tx, orders []Order, places []int, organisations, prices []int64, by int64, now time.Time,
) ([]OrderID, error) {
	n := len(places)
	ids := make([]OrderID, n)
	if n == 0 {
		return ids, nil
	}
	people, days, meals, dishes := make([]int64, n), make([]time.Time, n), make([]string, n), make([]string, n)
	type orderName struct {
		person     ledger.PersonID
		day        time.Time
		meal, dish string
	}
	at := make(map[orderName]int, n)
	for i, place := range places {
		o := orders[place]
		people[i], days[i], meals[i], dishes[i] = int64(o.Person), o.Day, mealName(o.Meal), o.Dish
		name := orderName{o.Person, dayOf(o.Day, time.UTC), meals[i], o.Dish}
		if _, again := at[name]; !again {
			at[name] = i
		}
	}
	rows, err := tx.Query(ctx, `
		INSERT INTO meal.preorder (person_id, organisation_id, day, meal, dish, price, ordered_by, ordered_at)
		SELECT i.person_id, i.organisation_id, i.day, i.meal, i.dish, i.price, $7, $8
		  FROM unnest($1::bigint[], $2::bigint[], $3::date[], $4::text[], $5::text[], $6::bigint[])
		       WITH ORDINALITY AS i (person_id, organisation_id, day, meal, dish, price, ord)
		 ORDER BY i.person_id, i.day, i.meal, i.dish, i.ord
		ON CONFLICT (person_id, day, meal, dish) WHERE state IN ('placed', 'served') DO NOTHING
		RETURNING id, person_id, day, meal, dish`, people, organisations, days, meals, dishes, prices, by, now)
	if err != nil {
		return nil, fmt.Errorf("place orders: %w", err)
	}
	var id OrderID
	var name orderName
	if _, err := pgx.ForEachRow(rows, []any{&id, &name.person, &name.day, &name.meal, &name.dish}, func() error {
		ids[at[name]] = id
		return nil
	}); err != nil {
		return nil, fmt.Errorf("place orders: %w", err)
	}
	return ids, nil
}

// CancelOrders cancels orders of a person until the cut-off and frees their
// money. It returns the ids that it cancelled; the others are not the person's,
// not placed any more, or too late.
func (c *Canteen) CancelOrders(
	ctx context.Context, tx pgx.Tx, person ledger.PersonID, ids []OrderID, now time.Time,
) ([]OrderID, error) {
	rows, err := tx.Query(ctx, `
		SELECT p.id, p.day, o.time_zone
		  FROM meal.preorder p
		  JOIN ledger.organisation o ON o.id = p.organisation_id
		 WHERE p.id = ANY ($1) AND p.person_id = $2 AND p.state = 'placed'
		 ORDER BY p.id
		   FOR NO KEY UPDATE OF p`, ids, person)
	if err != nil {
		return nil, fmt.Errorf("look up orders to cancel: %w", err)
	}
	var open []OrderID
	var id OrderID
	var day time.Time
	var zone string
	if _, err := pgx.ForEachRow(rows, []any{&id, &day, &zone}, func() error {
		location, err := c.zone(zone)
		if err == nil && now.Before(c.cutOff(day, location)) {
			open = append(open, id)
		}
		return err
	}); err != nil {
		return nil, fmt.Errorf("look up orders to cancel: %w", err)
	}
	return open, c.endOrders(ctx, tx, open, "cancelled", ledger.HoldReleased)
}

// LapseOrders ends the orders that will not be served any more, and frees their
// money: those of days before day, and those of children who have left or who
// belong to another organisation by now. It returns how many.
func (c *Canteen) LapseOrders(ctx context.Context, tx pgx.Tx, day time.Time) (int, error) {
	return c.lapse(ctx, tx, `
		SELECT o.id
		  FROM meal.preorder o
		  JOIN ledger.person p ON p.id = o.person_id
		 WHERE o.state = 'placed'
		   AND (o.day < $1 OR o.organisation_id <> p.organisation_id OR p.left_on <= o.day)
		 ORDER BY o.id
		   FOR NO KEY UPDATE OF o`, day)
}

// lapse ends the orders that a query finds.
func (c *Canteen) lapse(ctx context.Context, tx pgx.Tx, query string, args ...any) (int, error) {
	rows, err := tx.Query(ctx, query, args...)
	if err != nil {
		return 0, fmt.Errorf("look up orders that lapsed: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[OrderID])
	if err != nil {
		return 0, fmt.Errorf("look up orders that lapsed: %w", err)
	}
	return len(ids), c.endOrders(ctx, tx, ids, "lapsed", ledger.HoldReleased)
}

// Move moves a child to another organisation with the wallet and its money
// (ledger.MovePerson). Meals ordered at the old one are not served any more:
// their money is freed. It returns how many orders that were.
func (c *Canteen) Move(
	ctx context.Context, tx pgx.Tx, person ledger.PersonID, to ledger.OrganisationID, group, actor string,
) (int, error) {
	// Orders before wallets, as a sale locks them.
	freed, err := c.lapse(ctx, tx, `
		SELECT id
		  FROM meal.preorder
		 WHERE person_id = $1 AND state = 'placed' AND organisation_id <> $2
		 ORDER BY id
		   FOR NO KEY UPDATE`, person, to)
	if err != nil {
		return 0, err
	}
	return freed, ledger.MovePerson(ctx, tx, person, to, group, actor)
}

func (c *Canteen) endOrders(ctx context.Context, tx pgx.Tx, ids []OrderID, state string, end ledger.HoldEnd) error {
	if len(ids) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, `UPDATE meal.preorder SET state = $2 WHERE id = ANY ($1)`, ids, state); err != nil {
		return fmt.Errorf("end orders: %w", err)
	}
	keys := make([]ledger.Key, len(ids))
	for i, id := range ids {
		keys[i] = orderKey(id)
	}
	if _, err := c.book.EndHolds(ctx, tx, keys, end); err != nil {
		return err
	}
	return nil
}

// findOrders finds and locks the preorders that hot meals may serve.
func (c *Canteen) findOrders(ctx context.Context, tx pgx.Tx, all []*sale) error {
	var list []*sale
	var people []int64
	var days []time.Time
	var meals []string
	for _, s := range all {
		if s.open() && s.Kind == Hot {
			list = append(list, s)
			people, days, meals = append(people, int64(s.Person)), append(days, s.day), append(meals, s.Meal)
		}
	}
	if len(list) == 0 {
		return nil
	}
	rows, err := tx.Query(ctx, `
		SELECT o.id, i.ord
		  FROM unnest($1::bigint[], $2::date[], $3::text[]) WITH ORDINALITY AS i (person_id, day, meal, ord)
		  JOIN meal.preorder o ON o.person_id = i.person_id AND o.day = i.day AND o.meal = i.meal
		 WHERE o.state = 'placed'
		 ORDER BY o.id, i.ord
		   FOR NO KEY UPDATE OF o`, people, days, meals)
	if err != nil {
		return fmt.Errorf("look up the orders of meals: %w", err)
	}
	var id OrderID
	var place int
	if _, err := pgx.ForEachRow(rows, []any{&id, &place}, func() error {
		list[place-1].ordered = append(list[place-1].ordered, id)
		return nil
	}); err != nil {
		return fmt.Errorf("look up the orders of meals: %w", err)
	}
	return nil
}

// serveOrders takes the money that was held for hot meals that are about to be
// booked: a preordered meal is paid from it. The first of two sales serves it.
func (c *Canteen) serveOrders(ctx context.Context, tx pgx.Tx, all []*sale) error {
	var orders []OrderID
	for _, s := range all {
		for _, id := range s.ordered {
			if s.open() && !slices.Contains(orders, id) {
				orders = append(orders, id)
				s.orders = append(s.orders, id)
			}
		}
	}
	if len(orders) == 0 {
		return nil
	}
	return c.endOrders(ctx, tx, orders, "served", ledger.HoldTaken)
}

// unserveOrders puts back the orders of meals that were not booked after all.
// Their money stays free: the wallet has less than the meal costs.
func (c *Canteen) unserveOrders(ctx context.Context, tx pgx.Tx, all []*sale) error {
	var orders []OrderID
	for _, s := range all {
		if s.verdict.Code != CodeSold {
			orders = append(orders, s.orders...)
		}
	}
	if len(orders) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, `UPDATE meal.preorder SET state = 'placed' WHERE id = ANY ($1)`, orders); err != nil {
		return fmt.Errorf("put orders back: %w", err)
	}
	return nil
}

// serveLapsed notes that meals were served whose orders lapsed in the night,
// before a till that was offline reported them. Their money was freed, and the
// wallet has paid; but the child ate, and the kitchen cooked, what was ordered.
func (c *Canteen) serveLapsed(ctx context.Context, tx pgx.Tx, all []*sale) error {
	var people, organisations []int64
	var days []time.Time
	var meals []string
	for _, s := range all {
		if s.verdict.Code == CodeSold && s.Kind == Hot && s.bookedOn.After(s.day) {
			people, organisations = append(people, int64(s.Person)), append(organisations, int64(s.guest.organisation))
			days, meals = append(days, s.day), append(meals, s.Meal)
		}
	}
	if len(people) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, `
		UPDATE meal.preorder o
		   SET state = 'served'
		 WHERE o.state = 'lapsed'
		   AND o.id IN (
		       SELECT max(l.id)
		         FROM unnest($1::bigint[], $2::bigint[], $3::date[], $4::text[]) AS i (person_id, organisation_id, day, meal)
		         JOIN meal.preorder l ON l.person_id = i.person_id AND l.organisation_id = i.organisation_id
		                              AND l.day = i.day AND l.meal = i.meal
		        WHERE l.state = 'lapsed'
		          AND NOT EXISTS (SELECT FROM meal.preorder p
		                           WHERE p.person_id = l.person_id AND p.day = l.day AND p.meal = l.meal AND p.dish = l.dish
		                             AND p.state IN ('placed', 'served'))
		        GROUP BY l.person_id, l.day, l.meal, l.dish)`, people, organisations, days, meals); err != nil {
		return fmt.Errorf("note orders served late: %w", err)
	}
	return nil
}

// PlacedOrder is an order that a parent has placed.
type PlacedOrder struct {
	ID    OrderID
	Day   time.Time
	Meal  string
	Dish  string
	Price money.Amount
	// State is placed, cancelled, served or lapsed.
	State string
}

// Orders returns the orders for a person from one day to another, both included.
func Orders(ctx context.Context, q pg.Querier, person ledger.PersonID, from, to time.Time) ([]PlacedOrder, error) {
	rows, err := q.Query(ctx, `
		SELECT id, day, meal, dish, price, state
		  FROM meal.preorder
		 WHERE person_id = $1 AND day BETWEEN $2 AND $3
		 ORDER BY day, meal, dish, id`, person, from, to)
	if err != nil {
		return nil, fmt.Errorf("read orders: %w", err)
	}
	orders, err := pgx.CollectRows(rows, pgx.RowToStructByPos[PlacedOrder])
	if err != nil {
		return nil, fmt.Errorf("read orders: %w", err)
	}
	return orders, nil
}

// HeldMeal is a meal of a day that has been ordered ahead, and the money that is
// held for it: for a till, over and above the balance.
type HeldMeal struct {
	Meal string       `json:"meal" example:"lunch"`
	Held money.Amount `json:"held" example:"105.00"`
}

// HeldMeals returns what is ordered ahead and not served yet at an organisation
// on a day, by person, in the order of the meals' names.
func HeldMeals(
	ctx context.Context, q pg.Querier, organisation ledger.OrganisationID, day time.Time,
) (map[ledger.PersonID][]HeldMeal, error) {
	rows, err := q.Query(ctx, `
		SELECT o.person_id, o.meal, sum(h.amount)::bigint
		  FROM meal.preorder o
		  JOIN ledger.hold h ON h.source = $3 AND h.ext_id = o.id::text AND h.state = 'open'
		 WHERE o.organisation_id = $1 AND o.day = $2 AND o.state = 'placed'
		 GROUP BY o.person_id, o.meal
		 ORDER BY o.person_id, o.meal`, organisation, day, orderSource)
	if err != nil {
		return nil, fmt.Errorf("read what is held for meals: %w", err)
	}
	held := map[ledger.PersonID][]HeldMeal{}
	var person ledger.PersonID
	var m HeldMeal
	if _, err := pgx.ForEachRow(rows, []any{&person, &m.Meal, &m.Held}, func() error {
		held[person] = append(held[person], m)
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read what is held for meals: %w", err)
	}
	return held, nil
}

// SheetLine is what a provider is to bring to an organisation: so many portions
// of a meal, or of a dish of it.
type SheetLine struct {
	Organisation string       `json:"org_id"` // the registry's id
	Name         string       `json:"organisation"`
	Meal         string       `json:"meal"`
	Dish         string       `json:"dish"` // empty for the whole meal
	Portions     int64        `json:"portions"`
	Total        money.Amount `json:"total"`
}

// OrderSheet returns what is ordered of a payee's kitchens for a day, by
// organisation, meal and dish.
func OrderSheet(ctx context.Context, q pg.Querier, payee ledger.PayeeCode, day time.Time) ([]SheetLine, error) {
	rows, err := q.Query(ctx, `
		SELECT o.code, o.name, p.meal, p.dish, count(*), sum(p.price)::bigint
		  FROM meal.preorder p
		  JOIN ledger.organisation o ON o.id = p.organisation_id
		 WHERE o.payee_code = $1 AND p.day = $2 AND p.state IN ('placed', 'served')
		 GROUP BY o.code, o.name, p.meal, p.dish
		 ORDER BY o.code, p.meal, p.dish`, string(payee), day)
	if err != nil {
		return nil, fmt.Errorf("read the order sheet: %w", err)
	}
	sheet, err := pgx.CollectRows(rows, pgx.RowToStructByPos[SheetLine])
	if err != nil {
		return nil, fmt.Errorf("read the order sheet: %w", err)
	}
	return sheet, nil
}
