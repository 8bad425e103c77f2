package meal

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger"
	"zvonok/ledger/money"
)

// guest is whom a sale is made to, and where the money goes: as it was when the
// sale was made, which a till may report days later.
type guest struct {
	id           ledger.PersonID
	organisation ledger.OrganisationID
	benefit      ledger.Benefit
	payee        string
	zone         *time.Location
	wallet       ledger.AccountID // 0: none
	limited      bool             // the parents limit what is spent in the buffet
}

// sale is one Sale on its way through Sell. Once its verdict has a code it is
// settled and the later stages pass it by.
type sale struct {
	Sale
	guest   *guest
	day     time.Time
	booked  string // who pays: wallet, budget or loss
	posting ledger.PostingID
	// bookedOn is the accounting day.
	bookedOn time.Time
	ordered  []OrderID // preorders that this sale may serve
	orders   []OrderID // and those that it serves
	verdict  Verdict
}

func (s *sale) open() bool { return s.verdict.Code == "" }

func (s *sale) key() ledger.Key { return saleKey(s.Device, s.Seq) }

// opens returns those that are not settled.
func opens(all []*sale) []*sale {
	var list []*sale
	for _, s := range all {
		if s.open() {
			list = append(list, s)
		}
	}
	return list
}

// Sell books sales and returns a verdict for each, in order, as if they came
// one after the other. It announces those it booked in the same transaction. An
// error means that nothing was booked and the transaction is lost.
func (c *Canteen) Sell(ctx context.Context, tx pgx.Tx, sales []Sale) ([]Verdict, error) {
	all := make([]*sale, len(sales))
	for i, asked := range sales {
		asked.Meal = mealName(asked.Meal)
		all[i] = &sale{Sale: asked, verdict: asked.check()}
	}
	for _, stage := range []func(context.Context, pgx.Tx, []*sale) error{
		// The order of locks is rations, preorders, wallets.
		c.seat, c.ration, c.findOrders, c.lockWallets, c.heedParents, c.capOffline, c.serveOrders, c.post,
		c.unserveOrders, c.unration, c.store, c.serveLapsed, c.recall, c.keepWaiting,
	} {
		if err := stage(ctx, tx, all); err != nil {
			return nil, err
		}
	}
	verdicts := make([]Verdict, len(all))
	for i, s := range all {
		verdicts[i] = s.verdict
		c.Metrics.count(s.Kind, s.verdict.Code)
	}
	return verdicts, nil
}

// seat finds the guests, the days and who pays. A sale is of the organisation
// whose till made it, whatever school the child belongs to by now.
func (c *Canteen) seat(ctx context.Context, tx pgx.Tx, all []*sale) error {
	list := opens(all)
	people, buildings, times := make([]int64, len(list)), make([]int64, len(list)), make([]time.Time, len(list))
	for i, s := range list {
		people[i], buildings[i], times[i] = int64(s.Person), int64(s.Building), s.At
	}
	rows, err := tx.Query(ctx, `
		SELECT i.ord, p.id, o.id,
		       coalesce((SELECT x.benefit FROM ledger.benefit_past x
		                  WHERE x.person_id = p.id AND x.until > i.at ORDER BY x.until LIMIT 1), p.benefit),
		       coalesce((SELECT x.payee_code FROM ledger.payee_past x
		                  WHERE x.organisation_id = o.id AND x.until > i.at ORDER BY x.until LIMIT 1), o.payee_code, ''),
		       o.time_zone, coalesce(w.id, 0), l.person_id IS NOT NULL
		  FROM unnest($1::bigint[], $2::bigint[], $3::timestamptz[]) WITH ORDINALITY AS i (person_id, building_id, at, ord)
		  JOIN ledger.person p ON p.id = i.person_id
		  LEFT JOIN ledger.building b ON b.id = i.building_id
		  JOIN ledger.organisation o ON o.id = coalesce(b.organisation_id, p.organisation_id)
		  LEFT JOIN ledger.account w ON w.person_id = p.id
		  LEFT JOIN meal.spending_limit l ON l.person_id = p.id`, people, buildings, times)
	if err != nil {
		return fmt.Errorf("find the guests of sales: %w", err)
	}
	var place int
	var g guest
	var zone string
	if _, err := pgx.ForEachRow(rows, []any{&place, &g.id, &g.organisation, &g.benefit, &g.payee, &zone, &g.wallet, &g.limited},
		func() (err error) {
			found := g
			found.zone, err = c.zone(zone)
			list[place-1].guest = &found
			return err
		}); err != nil {
		return fmt.Errorf("find the guests of sales: %w", err)
	}
	for _, s := range list {
		s.booked = "wallet"
		switch {
		case s.guest == nil:
			s.verdict = refuse(CodeUnknownPerson, "there is no person %d", s.Person)
			continue
		case s.Kind == Subsidised && !entitled(s.guest.benefit, s.Meal):
			s.verdict = notEntitled(s.Person, s.guest.benefit, s.Meal)
		case s.Kind == Subsidised:
			s.booked = "budget"
		case s.guest.wallet == 0:
			s.verdict = refuse(CodeNoWallet, "person %d has no wallet", s.Person)
		}
		s.day = dayOf(s.At, s.guest.zone)
	}
	return nil
}

// ration lets each child have each subsidised meal once a day. The primary key
// decides between sales that come at the same time.
func (c *Canteen) ration(ctx context.Context, tx pgx.Tx, all []*sale) error {
	var list []*sale
	for _, s := range all {
		if s.open() && s.Kind == Subsidised {
			list = append(list, s)
		}
	}
	for len(list) > 0 {
		missed, err := serveRations(ctx, tx, list)
		if err != nil {
			return err
		}
		list = missed
	}
	return nil
}

// serveRations settles which sales have their ration. It returns those whose
// ration was served and has been taken back meanwhile: they are to try again.
func serveRations(ctx context.Context, tx pgx.Tx, list []*sale) (missed []*sale, err error) {
	n := len(list)
	people, events, devices, seqs := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	days, meals := make([]time.Time, n), make([]string, n)
	for i, s := range list {
		people[i], events[i], devices[i], seqs[i] = int64(s.Person), int64(s.Event), s.Device, s.Seq
		days[i], meals[i] = s.day, s.Meal
	}
	rows, err := tx.Query(ctx, `
		INSERT INTO meal.ration (person_id, day, meal, event_id, device_id, seq)
		SELECT i.person_id, i.day, i.meal, i.event_id, i.device_id, i.seq
		  FROM unnest($1::bigint[], $2::date[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[])
		       WITH ORDINALITY AS i (person_id, day, meal, event_id, device_id, seq, ord)
		 ORDER BY i.person_id, i.day, i.meal, i.ord
		ON CONFLICT (person_id, day, meal) DO NOTHING
		RETURNING event_id`, people, days, meals, events, devices, seqs)
	if err != nil {
		return nil, fmt.Errorf("ration subsidised meals: %w", err)
	}
	served, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, fmt.Errorf("ration subsidised meals: %w", err)
	}
	if len(served) == n {
		return nil, nil
	}
	// Whoever takes back what stands in the way of a sale waits for it, and finds it
	// among those that wait.
	rows, err = tx.Query(ctx, `
		SELECT i.event_id
		  FROM unnest($1::bigint[], $2::date[], $3::text[], $4::bigint[]) AS i (person_id, day, meal, event_id)
		  JOIN meal.ration r ON r.person_id = i.person_id AND r.day = i.day AND r.meal = i.meal
		 WHERE i.event_id <> ALL ($5)
		 ORDER BY i.person_id, i.day, i.meal
		   FOR KEY SHARE OF r`, people, days, meals, events, served)
	if err != nil {
		return nil, fmt.Errorf("hold the rations that were served: %w", err)
	}
	refused, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, fmt.Errorf("hold the rations that were served: %w", err)
	}
	for _, s := range list {
		switch event := int64(s.Event); {
		case slices.Contains(refused, event):
			s.verdict = refuse(CodeAlreadyServed, "%s of %s has been served to person %d",
				s.Meal, s.day.Format(time.DateOnly), s.Person)
		case !slices.Contains(served, event):
			missed = append(missed, s)
		}
	}
	return missed, nil
}

// lockWallets locks the wallets of all sales before anything is added up that
// another transaction may be adding to: a day's offline sales under the cap, or
// what was spent under a limit. It also comes before held money is taken.
func (c *Canteen) lockWallets(ctx context.Context, tx pgx.Tx, all []*sale) error {
	needed := false
	var wallets []ledger.AccountID
	for _, s := range all {
		if !s.open() || s.booked != "wallet" {
			continue
		}
		wallets = append(wallets, s.guest.wallet)
		offline := s.Mode == ledger.Offline
		needed = needed || len(s.ordered) > 0 || offline && c.OfflineCap > 0 || !offline && s.Kind == Buffet && s.guest.limited
	}
	if !needed {
		return nil
	}
	return c.book.LockWallets(ctx, tx, wallets)
}

// capOffline moves offline sales above the child's cap of the day to the
// offline losses.
func (c *Canteen) capOffline(ctx context.Context, tx pgx.Tx, all []*sale) error {
	if c.OfflineCap <= 0 {
		return nil
	}
	type personDay struct {
		person ledger.PersonID
		day    time.Time
	}
	var list []*sale
	var people []int64
	var days []time.Time
	for _, s := range all {
		if s.open() && s.Mode == ledger.Offline && s.booked == "wallet" {
			list = append(list, s)
			people, days = append(people, int64(s.Person)), append(days, s.day)
		}
	}
	if len(list) == 0 {
		return nil
	}
	rows, err := tx.Query(ctx, `
		SELECT s.person_id, s.day, sum(s.total)::bigint
		  FROM (SELECT DISTINCT person_id, day FROM unnest($1::bigint[], $2::date[]) AS u (person_id, day)) AS i
		  JOIN meal.sale s ON s.person_id = i.person_id AND s.day = i.day
		 WHERE s.offline AND s.booked = 'wallet' AND s.reversed_by IS NULL
		 GROUP BY s.person_id, s.day`, people, days)
	if err != nil {
		return fmt.Errorf("sum up offline sales of the day: %w", err)
	}
	spent := map[personDay]money.Amount{}
	var key personDay
	var sum money.Amount
	if _, err := pgx.ForEachRow(rows, []any{&key.person, &key.day, &sum}, func() error {
		spent[key] = sum
		return nil
	}); err != nil {
		return fmt.Errorf("sum up offline sales of the day: %w", err)
	}
	for _, s := range list {
		key := personDay{s.Person, s.day}
		if spent[key]+s.Total > c.OfflineCap {
			s.booked = "loss"
			continue
		}
		spent[key] += s.Total
	}
	return nil
}

// accounts are the system's accounts of a batch of sales.
type accounts map[ledger.SystemAccount]ledger.AccountID

// payeeAccount names the account of a payee that takes the money of a kind of sale.
func payeeAccount(kind Kind, payee string) ledger.SystemAccount {
	if kind == Buffet {
		return ledger.SystemAccount{Kind: ledger.Buffet, Owner: payee}
	}
	return ledger.SystemAccount{Kind: ledger.Provider, Owner: payee}
}

func (c *Canteen) findAccounts(ctx context.Context, tx pgx.Tx, list []*sale) (accounts, error) {
	found := accounts{{Kind: ledger.Budget}: 0, {Kind: ledger.OfflineLoss}: 0}
	for _, s := range list {
		found[payeeAccount(s.Kind, s.guest.payee)] = 0
	}
	names := make([]ledger.SystemAccount, 0, len(found))
	for name := range found {
		names = append(names, name)
	}
	ids, err := ledger.SystemAccounts(ctx, tx, names...)
	if err != nil {
		return nil, err
	}
	for i, name := range names {
		found[name] = ids[i]
	}
	return found, nil
}

// post books what is left.
func (c *Canteen) post(ctx context.Context, tx pgx.Tx, all []*sale) error {
	list := opens(all)
	if len(list) == 0 {
		return nil
	}
	system, err := c.findAccounts(ctx, tx, list)
	if err != nil {
		return err
	}
	entries := make([]ledger.Entry, len(list))
	for i, s := range list {
		key := s.key()
		e := ledger.Entry{
			Event: s.Event, Amount: s.Total, Source: key.Source, ExternalID: key.ExternalID,
			OccurredAt: s.At, Day: s.day, Credit: system[payeeAccount(s.Kind, s.guest.payee)],
		}
		switch s.booked {
		case "budget":
			e.Kind, e.Debit, e.Subject = ledger.SubsidisedMeal, system[ledger.SystemAccount{Kind: ledger.Budget}], s.Person
		case "loss":
			e.Kind, e.Debit, e.Subject = ledger.Lost, system[ledger.SystemAccount{Kind: ledger.OfflineLoss}], s.Person
		default:
			e.Kind, e.Debit, e.Mode = ledger.BuffetSale, s.guest.wallet, s.Mode
			if s.Kind == Hot {
				e.Kind = ledger.HotMeal
			}
		}
		entries[i] = e
	}
	verdicts, err := c.book.Post(ctx, tx, entries)
	if err != nil {
		return fmt.Errorf("book %d sales: %w", len(list), err)
	}
	for i, s := range list {
		s.verdict, s.posting, s.bookedOn = verdictOf(verdicts[i]), verdicts[i].Posting, verdicts[i].Day
		if s.verdict.Code == CodeSold && s.booked == "wallet" {
			s.verdict.Balance = verdicts[i].DebitAfter
		}
	}
	return nil
}

// verdictOf puts an outcome of the book into the words of the canteen.
func verdictOf(v ledger.Verdict) Verdict {
	switch v.Code {
	case ledger.CodePosted:
		return Verdict{Code: CodeSold, Event: v.Event}
	case ledger.CodeDuplicate:
		return Verdict{Code: CodeDuplicate, Event: v.Event, Balance: v.DebitAfter}
	case ledger.CodeRefused:
		return refuse(CodeNotEnough, "there is not enough money in the wallet")
	case ledger.CodeClosedAccount:
		return refuse(CodeClosed, "the wallet is closed")
	case ledger.CodeCancelled:
		return refuse(CodeCancelled, "this number was cancelled before the sale came")
	case ledger.CodeConflict:
		return refuse(CodeConflict, "this number was used for something else")
	}
	return refuse(CodeConflict, "the book does not take it: %s", v.Code)
}

// unration gives back the rations of subsidised meals that were not booked now.
func (c *Canteen) unration(ctx context.Context, tx pgx.Tx, all []*sale) error {
	sold := map[ledger.EventID]bool{}
	for _, s := range all {
		if s.verdict.Code == CodeSold {
			sold[s.Event] = true
		}
	}
	var events []int64
	for _, s := range all {
		if s.booked == "budget" && !sold[s.Event] {
			events = append(events, int64(s.Event))
		}
	}
	return deleteRations(ctx, tx, events)
}

func deleteRations(ctx context.Context, tx pgx.Tx, events []int64) error {
	if len(events) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, `DELETE FROM meal.ration WHERE event_id = ANY ($1)`, events); err != nil {
		return fmt.Errorf("give rations back: %w", err)
	}
	return nil
}

// store writes the sales that were booked, and announces those that may be told of.
func (c *Canteen) store(ctx context.Context, tx pgx.Tx, all []*sale) error {
	var list []*sale
	for _, s := range all {
		if s.verdict.Code == CodeSold {
			list = append(list, s)
		}
	}
	if len(list) == 0 {
		return nil
	}
	n := len(list)
	events, postings, people, organisations := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	buildings, balances := make([]*int64, n), make([]*int64, n)
	devices, seqs, totals := make([]int64, n), make([]int64, n), make([]int64, n)
	times, days, bookedOn, offline := make([]time.Time, n), make([]time.Time, n), make([]time.Time, n), make([]bool, n)
	received := make([]*time.Time, n)
	kinds, meals, booked, payees := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	items := make([]*string, n)
	fact := Sold{}
	for i, s := range list {
		events[i], postings[i], people[i] = int64(s.Event), int64(s.posting), int64(s.Person)
		organisations[i], devices[i], seqs[i], totals[i] = int64(s.guest.organisation), s.Device, s.Seq, int64(s.Total)
		if building := int64(s.Building); building != 0 {
			buildings[i] = &building
		}
		if balance := int64(s.verdict.Balance); s.booked == "wallet" {
			balances[i] = &balance
		}
		times[i], days[i], bookedOn[i], offline[i] = s.At, s.day, s.bookedOn, s.Mode == ledger.Offline
		if !s.ReceivedAt.IsZero() {
			received[i] = &s.ReceivedAt
		}
		kinds[i], meals[i], booked[i], payees[i] = string(s.Kind), s.Meal, s.booked, s.guest.payee
		if len(s.Items) > 0 {
			lines, err := json.Marshal(s.Items)
			if err != nil {
				return fmt.Errorf("write the items of a sale: %w", err)
			}
			text := string(lines)
			items[i] = &text
		}
		if s.Silent {
			continue
		}
		if len(fact.EventIDs) == 0 || s.day.Before(fact.From) {
			fact.From = s.day
		}
		if s.day.After(fact.To) {
			fact.To = s.day
		}
		fact.EventIDs = append(fact.EventIDs, int64(s.Event))
	}
	if _, err := tx.Exec(ctx, `
		INSERT INTO meal.sale (event_id, posting_id, person_id, organisation_id, building_id, device_id, seq, total,
		                       balance, at, day, offline, kind, meal, booked, payee_code, items, booked_on, received_at)
		SELECT i.event_id, i.posting_id, i.person_id, i.organisation_id, i.building_id, i.device_id, i.seq, i.total,
		       i.balance, i.at, i.day, i.offline, i.kind, i.meal, i.booked, i.payee_code, i.items::jsonb, i.booked_on,
		       coalesce(i.received_at, now())
		  FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
		              $8::bigint[], $9::bigint[], $10::timestamptz[], $11::date[], $12::boolean[], $13::text[],
		              $14::text[], $15::text[], $16::text[], $17::text[], $18::date[], $19::timestamptz[])
		       AS i (event_id, posting_id, person_id, organisation_id, building_id, device_id, seq, total,
		             balance, at, day, offline, kind, meal, booked, payee_code, items, booked_on, received_at)`,
		events, postings, people, organisations, buildings, devices, seqs, totals,
		balances, times, days, offline, kinds, meals, booked, payees, items, bookedOn, received); err != nil {
		return fmt.Errorf("store %d sales: %w", n, err)
	}
	if len(fact.EventIDs) == 0 {
		return nil
	}
	return c.announce(ctx, tx, fact)
}

// recall answers repeats of sales that would be refused today: the register, the
// rations or the cap may have changed since the first one was booked.
func (c *Canteen) recall(ctx context.Context, tx pgx.Tx, all []*sale) error {
	var list []*sale
	var sources, ids []string
	for _, s := range all {
		if !s.verdict.Booked() {
			key := s.key()
			list, sources, ids = append(list, s), append(sources, key.Source), append(ids, key.ExternalID)
		}
	}
	if len(list) == 0 {
		return nil
	}
	rows, err := tx.Query(ctx, `
		SELECT i.ord, s.event_id, s.person_id, s.kind, s.meal, s.total, coalesce(s.balance, 0)
		  FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS i (source, ext_id, ord)
		  JOIN ledger.idem k ON k.source = i.source AND k.ext_id = i.ext_id
		  JOIN ledger.posting p ON p.id = k.posting_id AND p.booking_day = k.booking_day
		  JOIN meal.sale s ON s.event_id = p.event_id`, sources, ids)
	if err != nil {
		return fmt.Errorf("look for earlier sales: %w", err)
	}
	var place int
	var first Sale
	var balance money.Amount
	if _, err := pgx.ForEachRow(rows,
		[]any{&place, &first.Event, &first.Person, &first.Kind, &first.Meal, &first.Total, &balance},
		func() error {
			s := list[place-1]
			if first.Person == s.Person && first.Kind == s.Kind && first.Meal == s.Meal && first.Total == s.Total {
				s.verdict = Verdict{Code: CodeDuplicate, Event: first.Event, Balance: balance}
			}
			return nil
		}); err != nil {
		return fmt.Errorf("look for earlier sales: %w", err)
	}
	return nil
}
