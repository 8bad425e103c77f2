package parent

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/ledger"
	"zvonok/ledger/meal"
	"zvonok/ledger/money"
	"zvonok/ledger/pg"
)

// MealsView is what a child ate.
type MealsView struct {
	From    date          `json:"from"`
	To      date          `json:"to"`
	Days    []MealDay     `json:"days" nullable:"false" doc:"The newest first; only days with something on them."`
	Stopped []StoppedView `json:"stopped" nullable:"false" doc:"Purchases that your limits and bans stopped, the newest first."`
}

// MealDay is what a child ate on a day.
type MealDay struct {
	Date  date         `json:"date"`
	Spent money.Amount `json:"spent" example:"110.00" doc:"From the child's account."`
	Kcal  float64      `json:"kcal,omitempty" doc:"Of the dishes whose calories are declared."`
	Meals []EatenView  `json:"meals" nullable:"false"`
}

// EatenView is one meal or purchase.
type EatenView struct {
	At        time.Time     `json:"at"`
	Kind      string        `json:"kind" enum:"hot,buffet,subsidised,meal" doc:"meal: a hot meal, whoever paid it."`
	Meal      string        `json:"meal,omitempty" example:"lunch"`
	Total     *money.Amount `json:"total,omitempty" example:"110.00" doc:"What the child's account paid; absent when it did not."`
	Items     []ItemView    `json:"items" nullable:"false" doc:"What the till's receipt lists."`
	Dishes    []DishView    `json:"dishes" nullable:"false" doc:"What it was made of, by the menu of the day."`
	TakenBack bool          `json:"taken_back,omitempty" doc:"The sale was taken back."`
}

// ItemView is a line of a receipt.
type ItemView struct {
	Name     string       `json:"name"`
	Quantity int          `json:"quantity"`
	Price    money.Amount `json:"price" example:"35.00"`
}

// DishView is a dish with its composition (R46). A number that the kitchen did
// not declare is absent.
type DishView struct {
	Name         string       `json:"name"`
	Category     string       `json:"category,omitempty"`
	Portion      *float64     `json:"portion_g,omitempty"`
	Kcal         *float64     `json:"kcal,omitempty"`
	Protein      *float64     `json:"protein_g,omitempty"`
	Fat          *float64     `json:"fat_g,omitempty"`
	Carbohydrate *float64     `json:"carbohydrate_g,omitempty"`
	Allergens    []string     `json:"allergens" nullable:"false"`
	Price        money.Amount `json:"price" example:"45.00"`
}

// StoppedView is a purchase that a rule stopped.
type StoppedView struct {
	At     time.Time    `json:"at"`
	Reason string       `json:"reason" enum:"over_limit,banned"`
	Value  string       `json:"value,omitempty" doc:"The banned dish, category or allergen."`
	Total  money.Amount `json:"total" example:"70.00"`
}

// MenuView is what the canteen offers.
type MenuView struct {
	Days []MenuDayView `json:"days" nullable:"false"`
}

// MenuDayView is the menu of a day.
type MenuDayView struct {
	Date  date           `json:"date"`
	Meals []MenuMealView `json:"meals" nullable:"false"`
}

// MenuMealView is a meal of a menu.
type MenuMealView struct {
	Meal   string       `json:"meal" example:"lunch"`
	Price  money.Amount `json:"price" example:"110.00" doc:"Of the whole meal."`
	Dishes []DishView   `json:"dishes" nullable:"false"`
}

// OrdersView are preorders.
type OrdersView struct {
	Orders []OrderView `json:"orders" nullable:"false"`
}

// OrderView is a preorder.
type OrderView struct {
	ID    int64        `json:"id"`
	Date  date         `json:"date"`
	Meal  string       `json:"meal"`
	Dish  string       `json:"dish,omitempty" doc:"Absent for the whole meal."`
	Price money.Amount `json:"price" example:"110.00"`
	State string       `json:"state" enum:"placed,cancelled,served,lapsed"`
}

// OrderWish asks for meals ahead.
type OrderWish struct {
	Orders []WishedMeal `json:"orders" nullable:"false" minItems:"1" maxItems:"50"`
}

// WishedMeal is a meal, or one dish of it, on a day.
type WishedMeal struct {
	Date date   `json:"date"`
	Meal string `json:"meal" minLength:"1" maxLength:"64" example:"lunch"`
	Dish string `json:"dish,omitempty" maxLength:"200" doc:"A dish of the menu; without it, the whole meal."`
}

// OrderAnswer says what became of each wish, in order.
type OrderAnswer struct {
	Orders []OrderVerdict `json:"orders" nullable:"false"`
}

// OrderVerdict is the answer to one wish.
type OrderVerdict struct {
	Code  string       `json:"code" enum:"ordered,ordered_before,too_late,not_on_menu,not_enough,no_wallet,wallet_closed"`
	ID    int64        `json:"id,omitempty" doc:"The order's, when it was placed."`
	Price money.Amount `json:"price" example:"110.00"`
}

// RulesView are the parents' rules for the buffet.
type RulesView struct {
	Limit *money.Amount `json:"limit" nullable:"true" example:"150.00" doc:"How much may be spent a day; null for no limit."`
	Spent money.Amount  `json:"spent_today" example:"35.00"`
	Left  *money.Amount `json:"left_today" nullable:"true" example:"115.00"`
	Bans  []BanView     `json:"bans" nullable:"false"`
}

// BanView is what is not to be sold to a child.
type BanView struct {
	Kind  string `json:"kind" enum:"dish,category,allergen"`
	Value string `json:"value" minLength:"1" maxLength:"64" example:"орехи"`
}

// RulesWish replaces the rules.
type RulesWish struct {
	Limit *money.Amount `json:"limit" nullable:"true" example:"150.00" doc:"null lifts the limit."`
	Bans  []BanView     `json:"bans" nullable:"false" maxItems:"100"`
}

func (s routes) meals() {
	show(s, route{
		method: http.MethodGet, path: "/children/{child}/meals", id: "list-meals",
		summary: "Meals, with what they were made of",
	}, s.eaten)
	show(s, route{
		method: http.MethodGet, path: "/children/{child}/menu", id: "show-menu", summary: "The canteen's menu",
		text: "Of a period, which may lie ahead.",
	}, func(ctx context.Context, v visitor, in *struct {
		OfChild
		Period
	},
	) (MenuView, error) {
		child, school, err := s.fedAt(ctx, v, in.Child)
		if err != nil {
			return MenuView{}, err
		}
		from, to, err := in.bounds(v.now, school.Location)
		if err != nil {
			return MenuView{}, err
		}
		days, err := meal.Menus(ctx, s.pool, child.Organisation, from, to)
		return menuView(days), err
	})
	show(s, route{
		method: http.MethodGet, path: "/children/{child}/orders", id: "list-orders", summary: "Preordered meals",
	}, func(ctx context.Context, v visitor, in *struct {
		OfChild
		Period
	},
	) (OrdersView, error) {
		child, school, err := s.fedAt(ctx, v, in.Child)
		if err != nil {
			return OrdersView{}, err
		}
		from, to, err := in.bounds(v.now, school.Location)
		if err != nil {
			return OrdersView{}, err
		}
		if err := s.look(ctx, v, "orders", child.ID); err != nil {
			return OrdersView{}, err
		}
		orders, err := meal.Orders(ctx, s.pool, child.ID, from, to)
		view := OrdersView{Orders: make([]OrderView, len(orders))}
		for i, o := range orders {
			view.Orders[i] = OrderView{int64(o.ID), dateOf(o.Day), o.Meal, o.Dish, o.Price, o.State}
		}
		return view, err
	})
	show(s, route{
		method: http.MethodPost, path: "/children/{child}/orders", id: "place-orders", summary: "Preorder meals",
		text: "Each is placed or refused by itself, and the money of those placed is held. Legal representatives only.",
	}, s.order)
	do(s, route{
		method: http.MethodDelete, path: "/children/{child}/orders/{order}", id: "cancel-order",
		summary: "Cancel a preorder", text: "Until the kitchen's cut-off; after it there is no such order to cancel. Legal representatives only.",
	}, func(ctx context.Context, v visitor, in *struct {
		OfChild
		Order string `path:"order" maxLength:"32"`
	},
	) error {
		child, err := s.own(ctx, v, in.Child)
		if err != nil {
			return err
		}
		order, err := id[meal.OrderID](in.Order)
		if err != nil {
			return err
		}
		return s.write(ctx, func(tx pgx.Tx) error {
			cancelled, err := s.canteen.CancelOrders(ctx, tx, child.ID, []meal.OrderID{order}, v.now)
			if err == nil && len(cancelled) == 0 {
				err = errNothing
			}
			return err
		})
	})
	show(s, route{
		method: http.MethodGet, path: "/children/{child}/rules", id: "show-rules", summary: "Limits and bans for the buffet",
	}, func(ctx context.Context, v visitor, in *OfChild) (RulesView, error) {
		child, err := s.fed(ctx, v, in.Child)
		if err != nil {
			return RulesView{}, err
		}
		return s.rules(ctx, v, child)
	})
	show(s, route{
		method: http.MethodPut, path: "/children/{child}/rules", id: "set-rules", summary: "Set limits and bans",
		text: "They replace those that stand. Legal representatives only.",
	}, func(ctx context.Context, v visitor, in *struct {
		OfChild
		Body RulesWish
	},
	) (RulesView, error) {
		child, err := s.own(ctx, v, in.Child)
		if err != nil {
			return RulesView{}, err
		}
		if !child.Meals {
			return RulesView{}, errPurpose
		}
		bans := make([]meal.Ban, len(in.Body.Bans))
		for i, b := range in.Body.Bans {
			bans[i] = meal.Ban{Kind: meal.BanKind(b.Kind), Value: b.Value}
		}
		by := int64(v.session.Representative.ID)
		if err := s.write(ctx, func(tx pgx.Tx) error {
			if err := meal.SetLimit(ctx, tx, child.ID, in.Body.Limit, by, v.now); err != nil {
				return err
			}
			return meal.SetBans(ctx, tx, child.ID, bans, by, v.now)
		}); err != nil {
			return RulesView{}, err
		}
		return s.rules(ctx, v, child)
	})
}

// fedAt is fed with the child's school.
func (s routes) fedAt(ctx context.Context, v visitor, text string) (access.Child, ledger.Organisation, error) {
	child, err := s.fed(ctx, v, text)
	if err != nil {
		return child, ledger.Organisation{}, err
	}
	schools, err := ledger.Organisations(ctx, s.pool, []ledger.OrganisationID{child.Organisation})
	return child, schools[child.Organisation], err
}

func (s routes) rules(ctx context.Context, v visitor, child access.Child) (RulesView, error) {
	schools, err := ledger.Organisations(ctx, s.pool, []ledger.OrganisationID{child.Organisation})
	if err != nil {
		return RulesView{}, err
	}
	if err := s.look(ctx, v, "rules", child.ID); err != nil {
		return RulesView{}, err
	}
	year, month, day := v.now.In(schools[child.Organisation].Location).Date()
	rules, err := meal.RulesOf(ctx, s.pool, []ledger.PersonID{child.ID},
		[]time.Time{time.Date(year, month, day, 0, 0, 0, 0, time.UTC)})
	if err != nil {
		return RulesView{}, err
	}
	r := rules[0]
	view := RulesView{Limit: r.Limit, Spent: r.Spent, Left: r.Left(), Bans: make([]BanView, len(r.Bans))}
	for i, b := range r.Bans {
		view.Bans[i] = BanView{string(b.Kind), b.Value}
	}
	return view, nil
}

func (s routes) order(ctx context.Context, v visitor, in *struct {
	OfChild
	Body OrderWish
},
) (OrderAnswer, error) {
	child, err := s.own(ctx, v, in.Child)
	if err != nil {
		return OrderAnswer{}, err
	}
	if !child.Meals {
		return OrderAnswer{}, errPurpose
	}
	orders := make([]meal.Order, len(in.Body.Orders))
	for i, wish := range in.Body.Orders {
		day, ok := wish.Date.day()
		if !ok {
			return OrderAnswer{}, wrong("orders", "have dates like 2026-11-23")
		}
		orders[i] = meal.Order{Person: child.ID, Day: day, Meal: wish.Meal, Dish: wish.Dish}
	}
	answer := OrderAnswer{Orders: make([]OrderVerdict, len(orders))}
	err = s.write(ctx, func(tx pgx.Tx) error {
		verdicts, err := s.canteen.PlaceOrders(ctx, tx, orders, int64(v.session.Representative.ID), v.now)
		for i, verdict := range verdicts {
			answer.Orders[i] = OrderVerdict{string(verdict.Code), int64(verdict.ID), verdict.Price}
		}
		return err
	})
	return answer, err
}

func (s routes) eaten(ctx context.Context, v visitor, in *struct {
	OfChild
	Period
},
) (MealsView, error) {
	child, school, err := s.fedAt(ctx, v, in.Child)
	if err != nil {
		return MealsView{}, err
	}
	from, to, err := in.bounds(v.now, school.Location)
	if err != nil {
		return MealsView{}, err
	}
	if err := s.look(ctx, v, "meals", child.ID); err != nil {
		return MealsView{}, err
	}
	var records []meal.Record
	menus := map[ledger.OrganisationID][]meal.MenuDay{} // of the canteens that served: a child may have changed school
	var stopped []meal.Blocked
	if err := s.read.Read(ctx, func(ctx context.Context, q pg.Querier) (err error) {
		if records, err = meal.History(ctx, q, child.ID, from, to); err != nil {
			return err
		}
		clear(menus)
		for _, r := range records {
			if _, read := menus[r.Organisation]; read {
				continue
			}
			if menus[r.Organisation], err = meal.Menus(ctx, q, r.Organisation, from, to); err != nil {
				return err
			}
		}
		stopped, err = meal.BlockedPurchases(ctx, q, child.ID, midnight(from, school), midnight(to.AddDate(0, 0, 1), school))
		return err
	}); err != nil {
		return MealsView{}, err
	}
	view := MealsView{From: dateOf(from), To: dateOf(to), Days: mealDays(child, school, records, menus)}
	view.Stopped = make([]StoppedView, len(stopped))
	for i, b := range stopped {
		view.Stopped[i] = StoppedView{b.At.In(school.Location), string(b.Reason), b.Value, b.Total}
	}
	return view, nil
}

// mealDays puts sales and menus together.
func mealDays(
	child access.Child, school ledger.Organisation, records []meal.Record, menus map[ledger.OrganisationID][]meal.MenuDay,
) []MealDay {
	type course struct {
		canteen ledger.OrganisationID
		day     date
		meal    string
	}
	dishes := map[course][]meal.Dish{}
	for canteen, days := range menus {
		for _, m := range days {
			for _, served := range m.Meals {
				dishes[course{canteen, dateOf(m.Day), served.Meal}] = served.Dishes
			}
		}
	}
	days := []MealDay{}
	for _, r := range records {
		day := dateOf(r.Day)
		if n := len(days); n == 0 || days[n-1].Date != day {
			days = append(days, MealDay{Date: day})
		}
		last := &days[len(days)-1]
		eaten := EatenView{
			At: r.At.In(school.Location), Kind: string(r.Kind), Meal: r.Meal, TakenBack: r.TakenBack,
			Items: make([]ItemView, len(r.Items)), Dishes: []DishView{},
		}
		if r.Balance != nil {
			eaten.Total = &r.Total
		}
		// Whether the city pays is nobody's business but the own representatives' (D5).
		if child.Role != access.Legal && r.Kind != meal.Buffet {
			eaten.Kind, eaten.Total = "meal", nil
		}
		menu := dishes[course{r.Organisation, day, strings.ToLower(r.Meal)}]
		for i, item := range r.Items {
			eaten.Items[i] = ItemView{item.Name, item.Quantity, item.Price}
			if known := slices.IndexFunc(menu, func(d meal.Dish) bool { return strings.EqualFold(d.Name, item.Name) }); known >= 0 {
				eaten.Dishes = append(eaten.Dishes, dishView(menu[known]))
				last.Kcal += kcal(menu[known], item.Quantity, r.TakenBack)
			}
		}
		if len(r.Items) == 0 {
			for _, d := range menu {
				eaten.Dishes = append(eaten.Dishes, dishView(d))
				last.Kcal += kcal(d, 1, r.TakenBack)
			}
		}
		if eaten.Total != nil && !r.TakenBack {
			last.Spent += r.Total
		}
		last.Meals = append(last.Meals, eaten)
	}
	return days
}

func kcal(d meal.Dish, quantity int, takenBack bool) float64 {
	if d.Energy == nil || takenBack {
		return 0
	}
	return float64(*d.Energy) * float64(quantity) / 1000
}

func menuView(days []meal.MenuDay) MenuView {
	view := MenuView{Days: make([]MenuDayView, len(days))}
	for i, day := range days {
		view.Days[i] = MenuDayView{Date: dateOf(day.Day), Meals: make([]MenuMealView, len(day.Meals))}
		for j, served := range day.Meals {
			line := MenuMealView{Meal: served.Meal, Dishes: make([]DishView, len(served.Dishes))}
			for k, dish := range served.Dishes {
				line.Dishes[k] = dishView(dish)
				line.Price += dish.Price
			}
			view.Days[i].Meals[j] = line
		}
	}
	return view
}

func dishView(d meal.Dish) DishView {
	number := func(t *meal.Thousandths) *float64 {
		if t == nil {
			return nil
		}
		n := float64(*t) / 1000
		return &n
	}
	if d.Allergens == nil {
		d.Allergens = []string{}
	}
	return DishView{
		Name: d.Name, Category: d.Category, Portion: number(d.Portion), Kcal: number(d.Energy), Protein: number(d.Protein),
		Fat: number(d.Fat), Carbohydrate: number(d.Carbohydrate), Allergens: d.Allergens, Price: d.Price,
	}
}
