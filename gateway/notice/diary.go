package notice

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/access/door"
	"zvonok/gateway/subscription"
	"zvonok/ledger"
	"zvonok/ledger/meal"
	"zvonok/ledger/money"
	"zvonok/templates"
)

// diary is what happened to the children of a batch of digests, as the tables
// say it: one query for each kind of fact.
type diary struct {
	balances map[ledger.PersonID]ledger.Balance
	days     map[ledger.PersonID]map[time.Time]*templates.Day
	also     map[ledger.PersonID][]templates.Message // news of the children, for every reader
	kept     map[keptKey][]templates.Message         // news kept back from one reader
	spent    map[ledger.PersonID]money.Amount        // in paceDays
	school   map[ledger.PersonID]int                 // school days in paceDays
}

type keptKey struct {
	who   access.RepresentativeID
	child ledger.PersonID
}

// page returns a child's day, made when it is missing.
func (d *diary) page(child ledger.PersonID, day time.Time) *templates.Day {
	days := d.days[child]
	if days == nil {
		days = map[time.Time]*templates.Day{}
		d.days[child] = days
	}
	if days[day] == nil {
		days[day] = &templates.Day{Date: day}
	}
	return days[day]
}

// child makes a child's part of a digest; happened is false when there is nothing to tell.
func (d *diary) child(l listed, run digestRun) (part templates.ChildDigest, happened bool) {
	part = templates.ChildDigest{Child: l.name, Own: l.listener.Role == access.Legal, Covers: l.listener.coverage()}
	if part.Covers != templates.VisitsOnly {
		part.Balance = d.balances[l.child].Posted
		part.Lasts = lasts(part.Balance, d.spent[l.child], d.school[l.child])
	}
	for day := run.first(); !day.After(run.day); day = day.AddDate(0, 0, 1) {
		if page := d.days[l.child][day]; page != nil {
			if covered := page.Only(part.Covers); !covered.Empty() {
				part.Days = append(part.Days, covered)
			}
		}
	}
	also := templates.Day{Also: slices.Concat(d.also[l.child], d.kept[keptKey{l.who, l.child}])}.Only(part.Covers).Also
	if len(also) > 0 {
		// News of other days stands on the last page.
		if n := len(part.Days); n == 0 || part.Days[n-1].Date != run.day {
			part.Days = append(part.Days, templates.Day{Date: run.day})
		}
		last := &part.Days[len(part.Days)-1]
		last.Also = slices.Concat(last.Also, also)
	}
	return part, len(part.Days) > 0
}

// coverage is what the consent that a listener has lets a digest tell of.
func (l listener) coverage() templates.Coverage {
	switch {
	case !l.Meals:
		return templates.VisitsOnly
	case !l.Visits:
		return templates.MealsOnly
	default:
		return templates.Everything
	}
}

// readDiary reads everything that the digests of a batch tell of.
func (t *Teller) readDiary(ctx context.Context, tx pgx.Tx, run digestRun, list []listed) (*diary, error) {
	d := &diary{
		days: map[ledger.PersonID]map[time.Time]*templates.Day{}, also: map[ledger.PersonID][]templates.Message{},
		kept: map[keptKey][]templates.Message{}, spent: map[ledger.PersonID]money.Amount{}, school: map[ledger.PersonID]int{},
	}
	byChild := make(map[ledger.PersonID]listed, len(list))
	who := make([]access.RepresentativeID, 0, len(list))
	for _, l := range list {
		byChild[l.child] = l
		who = append(who, l.who)
	}
	children := make([]ledger.PersonID, 0, len(byChild))
	for child := range byChild {
		children = append(children, child)
	}
	slices.Sort(children)
	var err error
	if d.balances, err = ledger.Balances(ctx, tx, children); err != nil {
		return nil, err
	}
	late, err := readLate(ctx, tx, run, children)
	if err != nil {
		return nil, err
	}
	for _, read := range []func() error{
		func() error { return d.readLateVisits(ctx, tx, run, late, byChild) },
		func() error { return d.readVisits(ctx, tx, run, children, byChild) },
		func() error { return d.readSchoolDays(ctx, tx, run, children, byChild) },
		func() error { return d.readPace(ctx, tx, run, children) },
		func() error { return d.readMeals(ctx, tx, run, children, late) },
		func() error { return d.readTopUps(ctx, tx, run, children, byChild) },
		func() error { return d.readBlocked(ctx, tx, run, children, byChild) },
		func() error { return d.readKept(ctx, tx, run, who, byChild) },
	} {
		if err := read(); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// dateOf is the date of a moment in a zone, as midnight UTC.
func dateOf(at time.Time, zone *time.Location) time.Time {
	year, month, day := at.In(zone).Date()
	return time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
}

// widest are the bounds of a run's days in every zone there is; what lies
// outside of a child's own days is left out by its date.
func (r digestRun) widest() (from, until time.Time) {
	return r.first().Add(-14 * time.Hour), r.day.Add((24 + 14) * time.Hour)
}

// within reports whether a date is one of the run's days.
func (r digestRun) within(day time.Time) bool { return !day.Before(r.first()) && !day.After(r.day) }

// readVisits reads the visits of the days as far as they were reported in time
// for the digest, and passes of earlier days that were reported since the last
// one: what came late (D6), and the evening after it.
func (d *diary) readVisits(
	ctx context.Context, tx pgx.Tx, run digestRun, children []ledger.PersonID, byChild map[ledger.PersonID]listed,
) error {
	_, until := run.widest()
	rows, err := tx.Query(ctx, `
		SELECT p.person_id, p.at, p.direction, p.received_at - p.at >= o.pass_life,
			p.received_at > $4 AND p.received_at - p.at < $6::interval,
			coalesce(c.given_name, ''), coalesce(c.family_name, '')
		FROM unnest($1::bigint[]) AS child (id)
		JOIN door.pass AS p ON p.person_id = child.id AND p.at >= $2 AND p.at < $3 AND NOT p.merged AND NOT p.silent
			AND p.received_at <= $5
		JOIN ledger.organisation AS o ON o.id = p.organisation_id
		LEFT JOIN access.representative AS c ON c.id = p.companion_id
		ORDER BY p.person_id, p.at, p.event_id`, children, run.reach(), until, run.since, run.until(), lateReach)
	if err != nil {
		return fmt.Errorf("read visits: %w", err)
	}
	var (
		child         ledger.PersonID
		at            time.Time
		direction     door.Direction
		late, unheard bool
		companion     templates.Name
	)
	_, err = pgx.ForEachRow(rows, []any{&child, &at, &direction, &late, &unheard, &companion.Given, &companion.Family},
		func() error {
			l := byChild[child]
			at, day := at.In(l.zone), dateOf(at, l.zone)
			if !run.within(day) {
				if day.Before(run.first()) && unheard {
					d.also[child] = append(d.also[child], templates.Pass{
						Children: []templates.Name{l.name}, In: direction == door.In, At: at, Late: late, Dated: true,
					})
				}
				return nil
			}
			page := d.page(child, day)
			n := len(page.Visits)
			switch {
			case direction == door.In:
				page.Visits = append(page.Visits, templates.Visit{In: at, InLate: late, BroughtBy: companion})
			case n > 0 && page.Visits[n-1].Out.IsZero():
				v := &page.Visits[n-1]
				v.Out, v.OutLate, v.CollectedBy = at, late, companion
			default:
				page.Visits = append(page.Visits, templates.Visit{Out: at, OutLate: late, CollectedBy: companion})
			}
			return nil
		})
	if err != nil {
		return fmt.Errorf("read visits: %w", err)
	}
	return nil
}

// lateFact is a pass or a sale that came very late.
type lateFact struct {
	event ledger.EventID
	topic subscription.Topic
	at    time.Time
}

// noteLate keeps where passes and sales are found that come so late that digests do
// not look as far back for them.
func noteLate(ctx context.Context, tx pgx.Tx, facts []news, now time.Time) error {
	var (
		children, events []int64
		topics           []string
		ats              []time.Time
	)
	for _, n := range facts {
		switch n.topic {
		case subscription.Pass, subscription.Hot, subscription.Buffet, subscription.Subsidised:
			if now.Sub(n.at) > lateLeast {
				children, events = append(children, int64(n.child)), append(events, int64(n.event))
				topics, ats = append(topics, string(n.topic)), append(ats, n.at)
			}
		}
	}
	if len(events) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, `
		INSERT INTO notice.late (child_id, known_at, event_id, topic, event_at)
		SELECT child, $1, event, topic, at
		FROM unnest($2::bigint[], $3::bigint[], $4::text[], $5::timestamptz[]) AS l (child, event, topic, at)
		ON CONFLICT DO NOTHING`, now, children, events, topics, ats); err != nil {
		return fmt.Errorf("note what came very late: %w", err)
	}
	return nil
}

// readLate finds what has come very late of children since the last digest.
func readLate(ctx context.Context, tx pgx.Tx, run digestRun, children []ledger.PersonID) ([]lateFact, error) {
	rows, err := tx.Query(ctx, `
		SELECT event_id, topic, event_at FROM notice.late
		WHERE child_id = ANY ($1) AND known_at > $2 AND known_at <= $3
		ORDER BY event_at, event_id`, children, run.since, run.until())
	if err != nil {
		return nil, fmt.Errorf("read what came very late: %w", err)
	}
	late, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (l lateFact, err error) {
		err = row.Scan(&l.event, &l.topic, &l.at)
		return l, err
	})
	if err != nil {
		return nil, fmt.Errorf("read what came very late: %w", err)
	}
	return late, nil
}

// readLateVisits reads the passes among what came very late that readVisits leaves
// out. Their times are in the statement, so no other month is looked at.
func (d *diary) readLateVisits(
	ctx context.Context, tx pgx.Tx, run digestRun, late []lateFact, byChild map[ledger.PersonID]listed,
) error {
	var (
		events []int64
		ats    []time.Time
	)
	for _, l := range late {
		if l.topic == subscription.Pass {
			events, ats = append(events, int64(l.event)), append(ats, l.at)
		}
	}
	if len(events) == 0 {
		return nil
	}
	rows, err := tx.Query(ctx, `
		SELECT p.person_id, p.at, p.direction FROM door.pass AS p
		WHERE p.event_id = ANY ($1) AND p.at = ANY ($2) AND NOT p.merged AND NOT p.silent
		  AND p.received_at - p.at >= $3::interval
		ORDER BY p.person_id, p.at, p.event_id`, events, ats, lateReach)
	if err != nil {
		return fmt.Errorf("read late visits: %w", err)
	}
	var (
		child     ledger.PersonID
		at        time.Time
		direction door.Direction
	)
	if _, err := pgx.ForEachRow(rows, []any{&child, &at, &direction}, func() error {
		l := byChild[child]
		if run.within(dateOf(at, l.zone)) {
			return nil // it stands on its day's page
		}
		d.also[child] = append(d.also[child], templates.Pass{
			Children: []templates.Name{l.name}, In: direction == door.In, At: at.In(l.zone), Late: true, Dated: true,
		})
		return nil
	}); err != nil {
		return fmt.Errorf("read late visits: %w", err)
	}
	return nil
}

// readSchoolDays counts on how many of the last two weeks' days each child was
// there. The index of passes by person alone answers it.
func (d *diary) readSchoolDays(
	ctx context.Context, tx pgx.Tx, run digestRun, children []ledger.PersonID, byChild map[ledger.PersonID]listed,
) error {
	zones := make([]string, len(children))
	for i, child := range children {
		zones[i] = byChild[child].zone.String()
	}
	rows, err := tx.Query(ctx, `
		SELECT p.person_id, count(DISTINCT (p.at AT TIME ZONE child.zone)::date)
		FROM unnest($1::bigint[], $4::text[]) AS child (id, zone)
		JOIN door.pass AS p ON p.person_id = child.id AND p.at >= $2 AND p.at < $3 AND NOT p.merged
		GROUP BY p.person_id`, children, run.moment.AddDate(0, 0, -paceDays), run.moment, zones)
	if err != nil {
		return fmt.Errorf("count school days: %w", err)
	}
	var (
		child ledger.PersonID
		count int
	)
	if _, err := pgx.ForEachRow(rows, []any{&child, &count}, func() error { d.school[child] = count; return nil }); err != nil {
		return fmt.Errorf("count school days: %w", err)
	}
	return nil
}

// menuDay names an organisation's day.
type menuDay struct {
	org ledger.OrganisationID
	day time.Time
}

// menuKey names a meal of such a day.
type menuKey struct {
	org  ledger.OrganisationID
	day  time.Time
	meal string
}

// readPace sums up what each child's account has paid for food in the last two
// weeks.
func (d *diary) readPace(ctx context.Context, tx pgx.Tx, run digestRun, children []ledger.PersonID) error {
	rows, err := tx.Query(ctx, `
		SELECT s.person_id, sum(s.total)::bigint
		FROM unnest($1::bigint[]) AS child (id)
		JOIN meal.sale AS s ON s.person_id = child.id AND s.day BETWEEN $2 AND $3 AND s.reversed_by IS NULL
			AND s.balance IS NOT NULL
		GROUP BY s.person_id`, children, run.day.AddDate(0, 0, 1-paceDays), run.day)
	if err != nil {
		return fmt.Errorf("sum up the spending: %w", err)
	}
	var (
		child ledger.PersonID
		sum   money.Amount
	)
	if _, err := pgx.ForEachRow(rows, []any{&child, &sum}, func() error { d.spent[child] = sum; return nil }); err != nil {
		return fmt.Errorf("sum up the spending: %w", err)
	}
	return nil
}

// readMeals reads what was eaten on the days as far as it was reported in time
// for the digest, and the meals of earlier days that were reported since the last
// one. They have had no digest of their own day, so they are told with its date,
// and beside what this one's days have cost. A meal whose till did not say what it
// was of consists of the day's menu.
func (d *diary) readMeals(
	ctx context.Context, tx pgx.Tx, run digestRun, children []ledger.PersonID, late []lateFact,
) error {
	var (
		lateIDs   []int64
		lateDates []time.Time
	)
	for _, l := range late {
		if l.topic != subscription.Pass {
			lateIDs = append(lateIDs, int64(l.event))
			for n := -1; n <= 1; n++ { // the date in whatever zone
				lateDates = append(lateDates, dateOf(l.at, time.UTC).AddDate(0, 0, n))
			}
		}
	}
	rows, err := tx.Query(ctx, `
		SELECT s.person_id, s.organisation_id, s.day, s.kind, s.meal, s.total, s.balance IS NOT NULL, s.items, s.at <= $5, s.at, s.event_id
		FROM unnest($1::bigint[]) AS child (id)
		JOIN meal.sale AS s ON s.person_id = child.id AND s.day BETWEEN $4 AND $3 AND s.reversed_by IS NULL
			AND s.received_at <= $6 AND (s.day >= $2 OR s.received_at > $5 AND s.received_at - s.at < $9::interval)
		UNION ALL
		SELECT s.person_id, s.organisation_id, s.day, s.kind, s.meal, s.total, s.balance IS NOT NULL, s.items, s.at <= $5, s.at, s.event_id
		FROM meal.sale AS s
		WHERE s.event_id = ANY ($7) AND s.day = ANY ($8) AND s.day < $2 AND s.received_at - s.at >= $9::interval
			AND s.reversed_by IS NULL
		ORDER BY 1, 10, 11`, children, run.first(), run.day, run.mealsFrom(), run.since, run.until(), lateIDs, lateDates, mealReach)
	if err != nil {
		return fmt.Errorf("read meals: %w", err)
	}
	type sale struct {
		child ledger.PersonID
		key   menuKey
		kind  meal.Kind
		total money.Amount
		own   bool // paid from the child's account
		items []meal.Item
		late  bool // the last digest would have told of it, had it come in time
	}
	sales, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (sale, error) {
		var (
			s     sale
			items []byte
		)
		err := row.Scan(&s.child, &s.key.org, &s.key.day, &s.kind, &s.key.meal, &s.total, &s.own, &items, &s.late, nil, nil)
		if err == nil && items != nil {
			err = json.Unmarshal(items, &s.items)
		}
		return s, err
	})
	if err != nil {
		return fmt.Errorf("read meals: %w", err)
	}
	days := map[menuDay]bool{}
	for _, s := range sales {
		days[menuDay{s.key.org, s.key.day}] = true
	}
	menus, err := readMenus(ctx, tx, days)
	if err != nil {
		return err
	}
	for _, s := range sales {
		day := s.key.day
		eaten := templates.Eaten{Kind: templates.Kind(s.kind), Meal: templates.Meal(s.key.meal)}
		if day.Before(run.first()) {
			eaten.Date, eaten.Late = day, s.late
			day = run.day // news of other days stands on the last page
		}
		page := d.page(s.child, day)
		if s.own {
			eaten.Sum = s.total
			if eaten.Date.IsZero() {
				page.Spent += s.total
			}
		}
		menu := menus[menuKey{s.key.org, s.key.day, strings.ToLower(s.key.meal)}]
		for _, item := range s.items {
			dish := templates.Dish{Name: item.Name, Quantity: item.Quantity}
			for _, known := range menu {
				if strings.EqualFold(known.Name, item.Name) {
					dish.Kcal = known.Kcal * max(1, item.Quantity)
				}
			}
			eaten.Dishes = append(eaten.Dishes, dish)
		}
		if len(s.items) == 0 && s.kind != meal.Buffet {
			eaten.Dishes = menu
		}
		page.Meals = append(page.Meals, eaten)
	}
	return nil
}

// readMenus reads the dishes of some organisations' days with their calories.
func readMenus(ctx context.Context, tx pgx.Tx, days map[menuDay]bool) (map[menuKey][]templates.Dish, error) {
	orgs, dates := make([]int64, 0, len(days)), make([]time.Time, 0, len(days))
	for d := range days {
		orgs, dates = append(orgs, int64(d.org)), append(dates, d.day)
	}
	rows, err := tx.Query(ctx, `
		SELECT m.organisation_id, m.day, m.meal, m.dish, coalesce(m.kcal, 0)::float8
		FROM unnest($1::bigint[], $2::date[]) AS d (organisation_id, day)
		JOIN meal.menu AS m ON m.organisation_id = d.organisation_id AND m.day = d.day
		ORDER BY m.organisation_id, m.day, m.meal, m.dish`, orgs, dates)
	if err != nil {
		return nil, fmt.Errorf("read menus: %w", err)
	}
	menus := map[menuKey][]templates.Dish{}
	var (
		key  menuKey
		dish templates.Dish
		kcal float64
	)
	if _, err := pgx.ForEachRow(rows, []any{&key.org, &key.day, &key.meal, &dish.Name, &kcal}, func() error {
		dish.Kcal = int(math.Round(kcal))
		menus[key] = append(menus[key], dish)
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read menus: %w", err)
	}
	return menus, nil
}

// lateBooking is how many days before its posting money may be booked: what a
// bank's registry brings late is booked on the day it was paid while that is open.
const lateBooking = 31

// readTopUps sums up the money that came to the children's accounts between the
// last digest and this one, whatever day it is booked on; the booking
// day only bounds the months that are looked at. What came in the evening after
// the last digest is told on the first day of this one, and what was taken back
// since is not told at all.
func (d *diary) readTopUps(
	ctx context.Context, tx pgx.Tx, run digestRun, children []ledger.PersonID, byChild map[ledger.PersonID]listed,
) error {
	rows, err := tx.Query(ctx, `
		SELECT a.person_id, p.posted_at, p.amount - coalesce(r.reversed, 0)
		FROM unnest($1::bigint[]) AS child (id)
		JOIN ledger.account AS a ON a.person_id = child.id
		JOIN ledger.posting AS p ON p.credit_id = a.id AND p.credit_ver IS NOT NULL AND p.kind IN ('topup', 'release')
			AND p.booking_day BETWEEN $2::date - $6::int AND $3::date + 1 AND p.posted_at > $4 AND p.posted_at <= $5
		LEFT JOIN ledger.reversed AS r ON r.posting_id = p.id
		WHERE p.amount > coalesce(r.reversed, 0)`,
		children, run.first(), run.day, run.since, run.until(), lateBooking)
	if err != nil {
		return fmt.Errorf("read top-ups: %w", err)
	}
	var (
		child ledger.PersonID
		at    time.Time
		sum   money.Amount
	)
	if _, err := pgx.ForEachRow(rows, []any{&child, &at, &sum}, func() error {
		day := dateOf(at, byChild[child].zone)
		if day.Before(run.first()) {
			day = run.first()
		}
		d.page(child, day).ToppedUp += sum
		return nil
	}); err != nil {
		return fmt.Errorf("read top-ups: %w", err)
	}
	return nil
}

// readBlocked reads purchases that the parents' rules or an empty account stopped
// since the last digest. A till that asks is online, so none is reported late;
// those of the evening after the last digest are told with their date.
func (d *diary) readBlocked(
	ctx context.Context, tx pgx.Tx, run digestRun, children []ledger.PersonID, byChild map[ledger.PersonID]listed,
) error {
	rows, err := tx.Query(ctx, `
		SELECT b.person_id, b.at, b.reason
		FROM unnest($1::bigint[]) AS child (id)
		JOIN meal.blocked AS b ON b.person_id = child.id AND b.at > $2 AND b.at <= $3
		ORDER BY b.person_id, b.at, b.event_id`, children, run.since, run.until())
	if err != nil {
		return fmt.Errorf("read blocked purchases: %w", err)
	}
	var (
		child  ledger.PersonID
		at     time.Time
		reason meal.Code
	)
	if _, err := pgx.ForEachRow(rows, []any{&child, &at, &reason}, func() error {
		l := byChild[child]
		m := templates.Blocked{Child: l.name, At: at.In(l.zone), Why: whyBlocked(reason)}
		if day := dateOf(at, l.zone); run.within(day) {
			page := d.page(child, day)
			page.Also = append(page.Also, m)
		} else {
			m.Dated = true
			d.also[child] = append(d.also[child], m)
		}
		return nil
	}); err != nil {
		return fmt.Errorf("read blocked purchases: %w", err)
	}
	return nil
}

func whyBlocked(reason meal.Code) templates.Why {
	switch reason {
	case meal.CodeBanned:
		return templates.Ban
	case meal.CodeOverLimit:
		return templates.Limit
	default:
		return templates.Funds
	}
}

// readKept reads the crossings of thresholds that were kept back from a reader
// since the last digest, or that the reader wants in digests alone. Passes, meals
// and top-ups that were are in the digest anyway.
func (d *diary) readKept(
	ctx context.Context, tx pgx.Tx, run digestRun, who []access.RepresentativeID, byChild map[ledger.PersonID]listed,
) error {
	rows, err := tx.Query(ctx, `
		SELECT DISTINCT n.representative_id, n.child_id, c.event_id, c.upward, c.threshold, c.balance
		FROM notice.notice AS n
		JOIN ledger.crossing AS c ON c.event_id = n.event_id
		WHERE n.representative_id = ANY ($1) AND n.verdict IN ('stale', 'capped', 'in_digest') AND n.topic = 'threshold'
		  AND n.decided_at > $2 AND n.decided_at <= $4 AND n.event_at > $2::timestamptz - $3::interval
		ORDER BY n.representative_id, n.child_id, c.event_id`, who, run.since, lateReach, run.until())
	if err != nil {
		return fmt.Errorf("read what was kept back: %w", err)
	}
	var (
		key   keptKey
		event ledger.EventID
		m     templates.Threshold
	)
	if _, err := pgx.ForEachRow(rows, []any{&key.who, &key.child, &event, &m.Up, &m.Threshold, &m.Balance}, func() error {
		if l, ok := byChild[key.child]; ok {
			m.Child = l.name
			d.kept[key] = append(d.kept[key], m)
		}
		return nil
	}); err != nil {
		return fmt.Errorf("read what was kept back: %w", err)
	}
	return nil
}
