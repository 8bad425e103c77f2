package menu

import (
	"context"
	"time"

	"zvonok/access"
	"zvonok/access/door"
	"zvonok/ledger"
	"zvonok/ledger/pg"
	"zvonok/templates"
	"zvonok/ussd"
)

// visits shows the last five school days of a child: days from Monday to Friday, and those of weekends on which the
// child came. A school day without a visit is shown as such; whether it was a holiday the parents know.
func (v *visitor) visits(ctx context.Context, child access.Child) (ussd.Screen, error) {
	if !child.Visits {
		return v.neutral(), nil
	}
	organisation, err := v.organisation(ctx, child)
	if err != nil {
		return ussd.Screen{}, err
	}
	now := v.At.In(organisation.Location)
	today := dateOf(now)
	from := midnight(today.AddDate(0, 0, -lookBack), organisation.Location)
	var passes []door.Pass
	if err := v.config.Read.Read(ctx, func(ctx context.Context, q pg.Querier) (err error) {
		passes, err = door.History(ctx, q, child.ID, from, midnight(today.AddDate(0, 0, 1), organisation.Location))
		return err
	}); err != nil {
		return ussd.Screen{}, err
	}
	last, err := v.lastVisits(ctx, []ledger.PersonID{child.ID})
	if err != nil {
		return ussd.Screen{}, err
	}
	found := map[time.Time]templates.USSDVisitDay{}
	for _, p := range passes {
		at := p.At.In(organisation.Location)
		day := found[dateOf(at)]
		switch {
		case p.Direction == door.In && day.In.IsZero():
			day.In = at
		case p.Direction == door.Out:
			day.Out = at
		}
		found[dateOf(at)] = day
	}
	visits := templates.USSDVisits{Child: name(child), Now: now}
	for n := 0; n <= lookBack && len(visits.Days) < schoolDays; n++ {
		date := today.AddDate(0, 0, -n)
		day, came := found[date]
		weekend := date.Weekday() == time.Saturday || date.Weekday() == time.Sunday
		if !came && weekend {
			continue
		}
		day.Date = noonOf(date, organisation.Location)
		day.Inside = last[child.ID].State == door.Inside && dateOf(last[child.ID].LastAt.In(organisation.Location)).Equal(date)
		visits.Days = append(visits.Days, day)
	}
	screen := ussd.Screen{Place: v.Place, Lines: visits.Lines(v.style), SMS: visits.SMS(v.style)}
	return screen, v.shown(ctx, "visits", child)
}

// lastVisits reads the last visits of children.
func (v *visitor) lastVisits(ctx context.Context, children []ledger.PersonID) (last map[ledger.PersonID]door.Visit, err error) {
	err = v.config.Read.Read(ctx, func(ctx context.Context, q pg.Querier) (err error) {
		last, err = door.LastVisits(ctx, q, children, v.At)
		return err
	})
	return last, err
}

// midnight returns the beginning of a date in a zone.
func midnight(day time.Time, zone *time.Location) time.Time {
	return time.Date(day.Year(), day.Month(), day.Day(), 0, 0, 0, 0, zone)
}
