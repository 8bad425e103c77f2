package menu

import (
	"context"
	"slices"
	"strings"
	"time"

	"zvonok/access"
	"zvonok/ledger"
	"zvonok/ledger/meal"
	"zvonok/ledger/pg"
	"zvonok/templates"
	"zvonok/ussd"
)

// meals shows what a child ate today and on the last school day before.
func (v *visitor) meals(ctx context.Context, child access.Child) (ussd.Screen, error) {
	if !child.Meals {
		return v.neutral(), nil
	}
	eaten, err := v.eaten(ctx, child, true)
	if err != nil {
		return ussd.Screen{}, err
	}
	screen := ussd.Screen{Place: v.Place, Lines: eaten.Lines(v.style), SMS: eaten.SMS(v.style)}
	return screen, v.shown(ctx, "meals", child)
}

// mealsOf answers a shortcut: what children ate today.
func (v *visitor) mealsOf(ctx context.Context, children []access.Child) (ussd.Screen, error) {
	screen := ussd.Screen{End: true}
	var sms []string
	covered := slices.DeleteFunc(slices.Clone(children), func(c access.Child) bool { return !c.Meals })
	if len(covered) == 0 {
		return v.neutral(), nil
	}
	for _, child := range covered {
		eaten, err := v.eaten(ctx, child, false)
		if err != nil {
			return ussd.Screen{}, err
		}
		screen.Lines = append(screen.Lines, eaten.Lines(v.style)...)
		sms = append(sms, eaten.SMS(v.style))
	}
	screen.SMS = v.config.Code + ": " + strings.Join(sms, "; ")
	return screen, v.shown(ctx, "meals", covered...)
}

// eaten reads the meals of today and, if asked, of the last day before on which there were any.
func (v *visitor) eaten(ctx context.Context, child access.Child, before bool) (templates.USSDMeals, error) {
	organisation, err := v.organisation(ctx, child)
	if err != nil {
		return templates.USSDMeals{}, err
	}
	now := v.At.In(organisation.Location)
	today := dateOf(now)
	from := today
	if before {
		from = today.AddDate(0, 0, -lookBack)
	}
	var records []meal.Record
	if err := v.config.Read.Read(ctx, func(ctx context.Context, q pg.Querier) (err error) {
		records, err = meal.History(ctx, q, child.ID, from, today)
		return err
	}); err != nil {
		return templates.USSDMeals{}, err
	}
	days := []time.Time{today}
	for _, r := range records { // the newest first
		if r.Day.Before(today) && !r.TakenBack {
			days = append(days, r.Day)
			break
		}
	}
	eaten := templates.USSDMeals{Child: name(child), Now: now}
	for _, day := range days {
		d, err := v.mealDay(ctx, day, organisation.Location, records)
		if err != nil {
			return eaten, err
		}
		eaten.Days = append(eaten.Days, d)
	}
	return eaten, nil
}

// mealDay puts the meals of one day together with their dishes: those sold, or those of the canteen's menu when the
// till named none.
func (v *visitor) mealDay(
	ctx context.Context, day time.Time, zone *time.Location, records []meal.Record,
) (templates.USSDMealDay, error) {
	result := templates.USSDMealDay{Date: noonOf(day, zone)}
	menus := map[ledger.OrganisationID][]meal.MenuMeal{} // of the canteens that served: a child may have changed school
	for _, r := range slices.Backward(records) {
		if !r.Day.Equal(day) || r.TakenBack {
			continue
		}
		e := templates.Eaten{Kind: templates.Kind(r.Kind), Meal: templates.Meal(strings.ToLower(r.Meal)), Sum: r.Total}
		for _, item := range r.Items {
			e.Dishes = append(e.Dishes, templates.Dish{Name: item.Name, Quantity: item.Quantity})
		}
		if len(e.Dishes) == 0 && r.Kind != meal.Buffet {
			if _, read := menus[r.Organisation]; !read {
				if err := v.config.Read.Read(ctx, func(ctx context.Context, q pg.Querier) (err error) {
					menus[r.Organisation], err = meal.Menu(ctx, q, r.Organisation, day)
					return err
				}); err != nil {
					return result, err
				}
			}
			e.Dishes = dishesOf(menus[r.Organisation], r.Meal)
		}
		result.Eaten = append(result.Eaten, e)
	}
	return result, nil
}

func dishesOf(menu []meal.MenuMeal, name string) []templates.Dish {
	var dishes []templates.Dish
	for _, m := range menu {
		if strings.EqualFold(m.Meal, name) {
			for _, d := range m.Dishes {
				dishes = append(dishes, templates.Dish{Name: d.Name})
			}
		}
	}
	return dishes
}

// dateOf returns the day of a moment, in its own zone, as dates are kept: midnight UTC.
func dateOf(at time.Time) time.Time {
	year, month, day := at.Date()
	return time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
}

// noonOf returns a moment of a date in a zone.
func noonOf(day time.Time, zone *time.Location) time.Time {
	return time.Date(day.Year(), day.Month(), day.Day(), 12, 0, 0, 0, zone)
}

// wallets reads the wallet of one child; ok is false when there is none.
func (v *visitor) wallet(ctx context.Context, child access.Child) (wallet ledger.Balance, ok bool, err error) {
	found, err := ledger.Balances(ctx, v.config.Pool, []ledger.PersonID{child.ID})
	wallet, ok = found[child.ID]
	return wallet, ok, err
}
