package meal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"zvonok/ledger"
	"zvonok/ledger/money"
	"zvonok/ledger/pg"
)

// maxBans is how many bans a child may have.
const maxBans = 100

// BanKind tells what a ban is on.
type BanKind string

// The kinds of bans.
const (
	BanDish     BanKind = "dish"     // by the item's code or name, as the till or the canteen's list has it
	BanCategory BanKind = "category" // as the provider sorts its products and dishes
	BanAllergen BanKind = "allergen" // as the provider declares them, by an item's code or on the day's menu
)

// Ban is what the parents do not want to be sold to their child: in the buffet,
// and of a paid hot meal whose dishes the till lists.
type Ban struct {
	Kind BanKind `json:"kind"`
	// Value is compared without regard to case.
	Value string `json:"value"`
}

// Rules are what the parents have decided on a child's purchases.
type Rules struct {
	// Limit is how much may be spent in the buffet on a day; nil when there is no limit.
	Limit *money.Amount
	// Spent is how much has been spent on the day asked for.
	Spent money.Amount
	Bans  []Ban
}

// Left returns what the limit leaves for the day, or nil when there is no limit.
func (r *Rules) Left() *money.Amount {
	if r.Limit == nil {
		return nil
	}
	left := max(0, *r.Limit-r.Spent)
	return &left
}

// ErrRule is a rule that cannot be: a limit out of bounds, too many bans, a ban
// on nothing.
var ErrRule = errors.New("no such rule")

// SetLimit sets how much a child may spend in the buffet on a day; nil lifts the
// limit. by is the representative who decided. It returns [ErrRule].
func SetLimit(
	ctx context.Context, tx pgx.Tx, person ledger.PersonID, limit *money.Amount, by int64, now time.Time,
) error {
	if limit == nil {
		if _, err := tx.Exec(ctx, `DELETE FROM meal.spending_limit WHERE person_id = $1`, person); err != nil {
			return fmt.Errorf("lift a limit: %w", err)
		}
		return nil
	}
	if *limit < 0 || *limit > maxTotal {
		return fmt.Errorf("%w: %s is not 0 to %s", ErrRule, *limit, maxTotal)
	}
	if _, err := tx.Exec(ctx, `
		INSERT INTO meal.spending_limit (person_id, amount, set_by, set_at)
		VALUES ($1, $2, $3, $4)
		ON CONFLICT (person_id) DO UPDATE
		   SET amount = excluded.amount, set_by = excluded.set_by, set_at = excluded.set_at`,
		person, int64(*limit), by, now); err != nil {
		return fmt.Errorf("set a limit: %w", err)
	}
	return nil
}

// SetBans replaces the bans of a child. by is the representative who decided. It
// returns [ErrRule].
func SetBans(ctx context.Context, tx pgx.Tx, person ledger.PersonID, bans []Ban, by int64, now time.Time) error {
	if len(bans) > maxBans {
		return fmt.Errorf("%w: at most %d bans, not %d", ErrRule, maxBans, len(bans))
	}
	kinds, values := make([]string, len(bans)), make([]string, len(bans))
	for i, ban := range bans {
		kinds[i], values[i] = string(ban.Kind), fold(ban.Value)
		switch ban.Kind {
		case BanDish, BanCategory, BanAllergen:
		default:
			return fmt.Errorf("%w: a ban is on a dish, a category or an allergen", ErrRule)
		}
		if values[i] == "" || len(values[i]) > maxWord {
			return fmt.Errorf("%w: what is banned has 1 to %d bytes", ErrRule, maxWord)
		}
	}
	if _, err := tx.Exec(ctx, `
		DELETE FROM meal.ban b
		 WHERE b.person_id = $1
		   AND NOT EXISTS (SELECT FROM unnest($2::text[], $3::text[]) AS i (kind, value)
		                    WHERE i.kind = b.kind AND i.value = b.value)`, person, kinds, values); err != nil {
		return fmt.Errorf("set bans: %w", err)
	}
	if _, err := tx.Exec(ctx, `
		INSERT INTO meal.ban (person_id, kind, value, set_by, set_at)
		SELECT $1, i.kind, i.value, $4, $5
		  FROM unnest($2::text[], $3::text[]) AS i (kind, value)
		ON CONFLICT (person_id, kind, value) DO NOTHING`, person, kinds, values, by, now); err != nil {
		return fmt.Errorf("set bans: %w", err)
	}
	return nil
}

// fold makes words comparable.
func fold(word string) string { return strings.ToLower(strings.TrimSpace(word)) }

// alike makes comparable what parents ban and what canteens declare: people write
// е for ё, and a parent who bans мёд means мед. What a parent wrote is kept and
// shown as it was written.
func alike(word string) string { return strings.ReplaceAll(fold(word), "ё", "е") }

// RulesOf returns the rules for children on days; days is as long as people.
// Those without any rule have the zero Rules.
func RulesOf(ctx context.Context, q pg.Querier, people []ledger.PersonID, days []time.Time) ([]Rules, error) {
	ids := make([]int64, len(people))
	for i, person := range people {
		ids[i] = int64(person)
	}
	rows, err := q.Query(ctx, `
		SELECT l.amount,
		       CASE WHEN l.amount IS NOT NULL
		            THEN (SELECT coalesce(sum(s.total), 0)::bigint
		                    FROM meal.sale s
		                   WHERE s.person_id = i.person_id AND s.day = i.day AND s.kind = 'buffet' AND s.reversed_by IS NULL)
		            ELSE 0 END,
		       (SELECT coalesce(array_agg(b.kind ORDER BY b.id), '{}') FROM meal.ban b WHERE b.person_id = i.person_id),
		       (SELECT coalesce(array_agg(b.value ORDER BY b.id), '{}') FROM meal.ban b WHERE b.person_id = i.person_id)
		  FROM unnest($1::bigint[], $2::date[]) WITH ORDINALITY AS i (person_id, day, ord)
		  LEFT JOIN meal.spending_limit l ON l.person_id = i.person_id
		 ORDER BY i.ord`, ids, days)
	if err != nil {
		return nil, fmt.Errorf("read the parents' rules: %w", err)
	}
	rules, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Rules, error) {
		var r Rules
		var limit *int64
		var kinds, values []string
		if err := row.Scan(&limit, &r.Spent, &kinds, &values); err != nil {
			return r, err
		}
		if limit != nil {
			amount := money.Amount(*limit)
			r.Limit = &amount
		}
		for i := range kinds {
			r.Bans = append(r.Bans, Ban{BanKind(kinds[i]), values[i]})
		}
		return r, nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the parents' rules: %w", err)
	}
	return rules, nil
}

// product is what a provider declares of what it sells.
type product struct {
	name      string
	category  string
	allergens []string
}

// products are what organisations declare: of the codes of their tills, and of
// the dishes on the day's menu by name.
type products map[productKey]product

type productKey struct {
	organisation ledger.OrganisationID
	// code is a till's code, or empty for a dish of the menu.
	code string
	// day and dish name a dish, as alike writes it.
	day  time.Time
	dish string
}

// of returns what is declared of an item sold on a day.
func (p products) of(organisation ledger.OrganisationID, day time.Time, item Item) (names, categories, allergens []string) {
	for _, key := range []productKey{
		{organisation: organisation, code: item.Code},
		{organisation: organisation, day: day, dish: alike(item.Name)},
	} {
		if declared, known := p[key]; known {
			names = append(names, declared.name)
			categories = append(categories, declared.category)
			allergens = append(allergens, declared.allergens...)
		}
	}
	return names, categories, allergens
}

// wanted is an item of which the provider's declaration is asked.
type wanted struct {
	organisation ledger.OrganisationID
	day          time.Time
	item         Item
}

func readProducts(ctx context.Context, q pg.Querier, list []wanted) (products, error) {
	if len(list) == 0 {
		return nil, nil
	}
	n := len(list)
	organisations, codes, days, dishes := make([]int64, n), make([]string, n), make([]time.Time, n), make([]string, n)
	for i, w := range list {
		organisations[i], codes[i], days[i], dishes[i] = int64(w.organisation), w.item.Code, w.day, alike(w.item.Name)
	}
	rows, err := q.Query(ctx, `
		SELECT DISTINCT p.organisation_id, p.code, '0001-01-01'::date, '', p.name, lower(p.category), p.allergens
		  FROM unnest($1::bigint[], $2::text[]) AS i (organisation_id, code)
		  JOIN meal.product p ON p.organisation_id = i.organisation_id AND p.code = i.code
		UNION ALL
		SELECT DISTINCT m.organisation_id, '', m.day, replace(lower(m.dish), 'ё', 'е'), m.dish, lower(m.category), m.allergens
		  FROM unnest($1::bigint[], $3::date[], $4::text[]) AS i (organisation_id, day, dish)
		  JOIN meal.menu m ON m.organisation_id = i.organisation_id AND m.day = i.day
		                   AND replace(lower(m.dish), 'ё', 'е') = i.dish`,
		organisations, codes, days, dishes)
	if err != nil {
		return nil, fmt.Errorf("read what the canteen declares: %w", err)
	}
	declared := products{}
	var key productKey
	var p product
	if _, err := pgx.ForEachRow(rows, []any{&key.organisation, &key.code, &key.day, &key.dish, &p.name, &p.category, &p.allergens},
		func() error {
			if key.code != "" {
				key.day = time.Time{}
			}
			// A dish may be on the menu of several meals: what any of them declares counts.
			declared[key] = product{p.name, p.category, append(declared[key].allergens, p.allergens...)}
			return nil
		}); err != nil {
		return nil, fmt.Errorf("read what the canteen declares: %w", err)
	}
	return declared, nil
}

// banned returns the ban that an item falls under.
func (r *Rules) banned(w wanted, declared products) (Ban, bool) {
	names, categories, allergens := declared.of(w.organisation, w.day, w.item)
	for _, ban := range r.Bans {
		value, hit := alike(ban.Value), false
		same := func(word string) bool { return alike(word) == value }
		switch ban.Kind {
		case BanDish:
			// A till may send no more than its code, or a name of its own: what the
			// parents know is the canteen's name.
			hit = same(w.item.Code) || same(w.item.Name) || slices.ContainsFunc(names, same)
		case BanCategory:
			hit = slices.ContainsFunc(categories, same)
		case BanAllergen:
			hit = slices.ContainsFunc(allergens, same)
		}
		if hit {
			return ban, true
		}
	}
	return Ban{}, false
}

// judge holds a purchase against the rules: bans, and in the buffet the limit.
// The verdict has no code when they allow it; value is the banned word.
func (r *Rules) judge(
	kind Kind, total money.Amount, items []wanted, declared products,
) (verdict Verdict, value string) {
	for i, w := range items {
		if ban, hit := r.banned(w, declared); hit {
			return refuse(CodeBanned, "line %d is banned by the parents: %s", i+1, ban.Kind), ban.Value
		}
	}
	if kind == Buffet && r.Limit != nil && r.Spent+total > *r.Limit {
		return refuse(CodeOverLimit, "the day's limit of %s leaves %s", *r.Limit, *r.Left()), ""
	}
	return Verdict{}, ""
}

// itemsOf names the items of a sale for their declarations.
func itemsOf(organisation ledger.OrganisationID, day time.Time, items []Item) []wanted {
	list := make([]wanted, len(items))
	for i, item := range items {
		list[i] = wanted{organisation, day, item}
	}
	return list
}

// heedParents refuses online purchases that a ban or, in the buffet, the limit
// forbids, and notes them as facts for the parents. What the city pays is not the
// parents' purchase, and what was sold offline has been eaten.
func (c *Canteen) heedParents(ctx context.Context, tx pgx.Tx, all []*sale) error {
	var list []*sale
	var people []ledger.PersonID
	var days []time.Time
	var items []wanted
	for _, s := range all {
		if s.open() && s.Kind != Subsidised && s.Mode != ledger.Offline {
			list, people, days = append(list, s), append(people, s.Person), append(days, s.day)
		}
	}
	if len(list) == 0 {
		return nil
	}
	read, err := RulesOf(ctx, tx, people, days)
	if err != nil {
		return err
	}
	type personDay struct {
		person ledger.PersonID
		day    time.Time
	}
	rules := make(map[personDay]*Rules, len(list))
	for i, s := range list {
		rules[personDay{s.Person, s.day}] = &read[i]
		if len(read[i].Bans) > 0 {
			items = append(items, itemsOf(s.guest.organisation, s.day, s.Items)...)
		}
	}
	declared, err := readProducts(ctx, tx, items)
	if err != nil {
		return err
	}
	var stopped []blocked
	for _, s := range list {
		r := rules[personDay{s.Person, s.day}]
		verdict, value := r.judge(s.Kind, s.Total, itemsOf(s.guest.organisation, s.day, s.Items), declared)
		if verdict.Code != "" {
			s.verdict = verdict
			stopped = append(stopped, blocked{s.Event, s.Person, s.Device, verdict.Code, value, s.Total, s.At})
			continue
		}
		if s.Kind == Buffet {
			r.Spent += s.Total
		}
	}
	return c.noteBlocked(ctx, tx, stopped)
}

// blocked is a purchase that a rule of the parents stopped.
type blocked struct {
	event  ledger.EventID
	person ledger.PersonID
	device int64
	reason Code
	value  string
	total  money.Amount
	at     time.Time
}

// attemptWindow is how long the same child's same purchase, stopped at the same
// till by the same rule, is one attempt: a child who asks three times is told
// of once.
const attemptWindow = 10 * time.Minute

// noteBlocked writes stopped purchases down and announces them in the same
// transaction, but for those that repeat an attempt.
func (c *Canteen) noteBlocked(ctx context.Context, tx pgx.Tx, list []blocked) error {
	if len(list) == 0 {
		return nil
	}
	n := len(list)
	events, people, devices, totals := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	reasons, values, times := make([]string, n), make([]string, n), make([]time.Time, n)
	for i, b := range list {
		events[i], people[i], devices[i], totals[i] = int64(b.event), int64(b.person), b.device, int64(b.total)
		reasons[i], values[i], times[i] = string(b.reason), b.value, b.at
	}
	rows, err := tx.Query(ctx, `
		INSERT INTO meal.blocked (event_id, person_id, device_id, reason, value, total, at)
		SELECT DISTINCT ON (i.person_id, i.device_id, i.reason, i.value)
		       i.event_id, i.person_id, i.device_id, i.reason, i.value, i.total, i.at
		  FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::bigint[], $7::timestamptz[])
		       AS i (event_id, person_id, device_id, reason, value, total, at)
		 WHERE NOT EXISTS (SELECT FROM meal.blocked b
		                    WHERE b.person_id = i.person_id AND b.at > i.at - $8::interval AND b.at <= i.at
		                      AND (b.device_id, b.reason, b.value) = (i.device_id, i.reason, i.value))
		 ORDER BY i.person_id, i.device_id, i.reason, i.value, i.at
		ON CONFLICT (event_id) DO NOTHING
		RETURNING event_id`, events, people, devices, reasons, values, totals, times, attemptWindow)
	if err != nil {
		return fmt.Errorf("note blocked purchases: %w", err)
	}
	fact := Stopped{}
	if fact.EventIDs, err = pgx.CollectRows(rows, pgx.RowTo[int64]); err != nil {
		return fmt.Errorf("note blocked purchases: %w", err)
	}
	if len(fact.EventIDs) == 0 {
		return nil
	}
	return c.announce(ctx, tx, fact)
}

// Ask is a question of a till before it sells.
type Ask struct {
	Person ledger.PersonID
	Kind   Kind
	Meal   string
	Items  []Item
	Total  money.Amount
	Device int64
	At     time.Time
}

// Answer is what a till is told.
type Answer struct {
	Allow bool
	// Reason and Message say why not.
	Reason  Code
	Message string
	// Balance is the money in the wallet that is free to be spent, with what is
	// held for the meal asked about.
	Balance money.Amount
	// LimitLeft is what the parents' limit leaves for today; nil when there is none.
	LimitLeft *money.Amount
	// Banned are the places of the items the parents do not want sold.
	Banned []int
}

// Authorize tells a till whether a sale would be booked now. It books nothing;
// a purchase that a rule of the parents stops is noted as a fact for them and
// announced, in a transaction of its own.
func (c *Canteen) Authorize(ctx context.Context, q *pgxpool.Pool, ask Ask) (Answer, error) {
	var answer Answer
	no := func(v Verdict) (Answer, error) {
		answer.Allow, answer.Reason, answer.Message = false, v.Code, v.Message
		return answer, nil
	}
	ask.Meal = mealName(ask.Meal)
	asked := Sale{Kind: ask.Kind, Meal: ask.Meal, Items: ask.Items, Total: ask.Total}
	if v := asked.check(); v.Code != "" {
		return no(v)
	}
	var organisation ledger.OrganisationID
	var benefit ledger.Benefit
	var zone string
	var wallet, closed, enough bool
	// Money that is held for this very meal is there to pay for it, as in Sell.
	rows, err := q.Query(ctx, `
		SELECT p.organisation_id, p.benefit, o.time_zone, b.account_id IS NOT NULL, coalesce(b.closed, false),
		       coalesce(f.free, 0), coalesce(ledger.debit_allowed($2, f.free, f.free - $3, b.policy_floor), false)
		  FROM ledger.person p
		  JOIN ledger.organisation o ON o.id = p.organisation_id
		  LEFT JOIN ledger.account a ON a.person_id = p.id
		  LEFT JOIN ledger.balance b ON b.account_id = a.id
		 CROSS JOIN LATERAL (
		       SELECT b.posted - b.held + CASE WHEN $2 THEN (
		              SELECT coalesce(sum(h.amount), 0)::bigint
		                FROM meal.preorder r
		                JOIN ledger.hold h ON h.source = $6 AND h.ext_id = r.id::text AND h.state = 'open'
		               WHERE r.person_id = p.id AND r.day = ($4::timestamptz AT TIME ZONE o.time_zone)::date
		                 AND r.meal = $5 AND r.state = 'placed') ELSE 0 END AS free) f
		 WHERE p.id = $1`, ask.Person, ask.Kind == Hot, int64(ask.Total), ask.At, ask.Meal, orderSource)
	if err != nil {
		return answer, fmt.Errorf("authorize a sale: %w", err)
	}
	known := false
	if _, err := pgx.ForEachRow(rows,
		[]any{&organisation, &benefit, &zone, &wallet, &closed, &answer.Balance, &enough},
		func() error { known = true; return nil }); err != nil {
		return answer, fmt.Errorf("authorize a sale: %w", err)
	}
	if !known {
		return no(refuse(CodeUnknownPerson, "there is no person %d", ask.Person))
	}
	location, err := c.zone(zone)
	if err != nil {
		return answer, err
	}
	day := dayOf(ask.At, location)
	if ask.Kind == Subsidised {
		served := false
		if err := q.QueryRow(ctx, `
			SELECT EXISTS (SELECT FROM meal.ration WHERE person_id = $1 AND day = $2 AND meal = $3)`,
			ask.Person, day, ask.Meal).Scan(&served); err != nil {
			return answer, fmt.Errorf("authorize a sale: %w", err)
		}
		switch {
		case !entitled(benefit, ask.Meal):
			return no(notEntitled(ask.Person, benefit, ask.Meal))
		case served:
			return no(refuse(CodeAlreadyServed, "%s has been served to person %d today", ask.Meal, ask.Person))
		}
		answer.Allow = true
		return answer, nil
	}
	stop, err := c.authorizeByRules(ctx, q, ask, organisation, day, &answer)
	if err != nil || stop.Code != "" {
		answer.Reason, answer.Message = stop.Code, stop.Message
		return answer, err
	}
	switch {
	case !wallet:
		return no(refuse(CodeNoWallet, "person %d has no wallet", ask.Person))
	case closed:
		return no(refuse(CodeClosed, "the wallet is closed"))
	case !enough:
		return no(refuse(CodeNotEnough, "there is not enough money in the wallet"))
	}
	answer.Allow = true
	return answer, nil
}

func (c *Canteen) authorizeByRules(
	ctx context.Context, q *pgxpool.Pool, ask Ask, organisation ledger.OrganisationID, day time.Time, answer *Answer,
) (Verdict, error) {
	rules, err := RulesOf(ctx, q, []ledger.PersonID{ask.Person}, []time.Time{day})
	if err != nil {
		return Verdict{}, err
	}
	r := &rules[0]
	if ask.Kind == Buffet {
		answer.LimitLeft = r.Left()
	}
	items := itemsOf(organisation, day, ask.Items)
	var declared products
	if len(r.Bans) > 0 {
		if declared, err = readProducts(ctx, q, items); err != nil {
			return Verdict{}, err
		}
	}
	for i, w := range items {
		if _, hit := r.banned(w, declared); hit {
			answer.Banned = append(answer.Banned, i)
		}
	}
	verdict, value := r.judge(ask.Kind, ask.Total, items, declared)
	if verdict.Code == "" {
		return verdict, nil
	}
	return verdict, pgx.BeginFunc(ctx, q, func(tx pgx.Tx) error {
		events, err := ledger.NextEventIDs(ctx, tx, 1)
		if err != nil {
			return err
		}
		stopped := blocked{events[0], ask.Person, ask.Device, verdict.Code, value, ask.Total, ask.At}
		return c.noteBlocked(ctx, tx, []blocked{stopped})
	})
}

// Blocked is a purchase that a rule of the parents stopped.
type Blocked struct {
	Event  ledger.EventID
	Person ledger.PersonID
	// Reason is CodeOverLimit or CodeBanned.
	Reason Code
	// Value is the banned dish, category or allergen.
	Value string
	Total money.Amount
	At    time.Time
}

const blockedColumns = `event_id, person_id, reason, value, total, at`

func readBlocked(ctx context.Context, q pg.Querier, query string, args ...any) ([]Blocked, error) {
	rows, err := q.Query(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read blocked purchases: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Blocked])
	if err != nil {
		return nil, fmt.Errorf("read blocked purchases: %w", err)
	}
	return list, nil
}

// StoppedPurchases returns the purchases that a Stopped job tells of, in the
// order of their events.
func StoppedPurchases(ctx context.Context, q pg.Querier, fact Stopped) ([]Blocked, error) {
	return readBlocked(ctx, q, `
		SELECT `+blockedColumns+` FROM meal.blocked WHERE event_id = ANY ($1) ORDER BY event_id`, fact.EventIDs)
}

// BlockedPurchases returns the purchases of a child that were stopped from one
// moment to before another, the newest first.
func BlockedPurchases(
	ctx context.Context, q pg.Querier, person ledger.PersonID, from, to time.Time,
) ([]Blocked, error) {
	return readBlocked(ctx, q, `
		SELECT `+blockedColumns+`
		  FROM meal.blocked
		 WHERE person_id = $1 AND at >= $2 AND at < $3
		 ORDER BY at DESC, event_id DESC`, person, from, to)
}
