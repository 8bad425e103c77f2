package reader

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/ledger"
	"zvonok/ledger/meal"
	"zvonok/ledger/money"
	"zvonok/ledger/pg"
)

const listsText = "For decisions while the server cannot be reached: cards with their blocks, and for tills the " +
	"balances, meals ordered ahead, limits, bans and subsidised meals of the people of the device's organisation. Ask first without a cursor, then with the " +
	"cursor of the last answer; while more is true, ask again at once. A card or a person that comes again replaces " +
	"what was told before. A change is in the list within half a minute. Show the age of the list, the time since " +
	"server_time: of what was blocked since it knows nothing."

// Changes are what has changed since a cursor.
type Changes struct {
	Cursor     string         `json:"cursor"`
	More       bool           `json:"more"`
	Cards      []ListedCard   `json:"cards" nullable:"false"`
	People     []ListedPerson `json:"people" nullable:"false"`
	ServerTime time.Time      `json:"server_time"`
}

// ListedCard is a card as a device needs to know it.
type ListedCard struct {
	Card       string    `json:"card" example:"9A3F105C"`
	Person     string    `json:"person,omitempty" example:"p-17"`
	Name       string    `json:"name,omitempty" example:"Петрова М."`
	Companion  bool      `json:"companion,omitempty"`
	Allow      bool      `json:"allow"`
	Reason     Reason    `json:"reason,omitempty"`
	ValidUntil time.Time `json:"valid_until,omitzero"`
}

// ListedPerson is somebody's money as a till needs to know it.
type ListedPerson struct {
	Person     string          `json:"person" example:"p-17"`
	Gone       bool            `json:"gone,omitempty"`
	Balance    money.Amount    `json:"balance" example:"143.50"`
	DebtFloor  money.Amount    `json:"debt_floor" example:"-300.00"`
	Ordered    []meal.HeldMeal `json:"ordered,omitempty" nullable:"false"`
	Limit      *money.Amount   `json:"limit,omitempty" example:"150.00"`
	LimitLeft  *money.Amount   `json:"limit_left,omitempty" example:"50.00"`
	Bans       []meal.Ban      `json:"bans,omitempty" nullable:"false"`
	Subsidised []string        `json:"subsidised,omitempty" nullable:"false"`
	Served     []string        `json:"served,omitempty" nullable:"false"`
}

// listCursor is a place in the changes of an organisation.
type listCursor struct {
	cards   access.Cursor
	version int64
	person  ledger.PersonID // of those that changed at version, up to this one
}

func (c listCursor) String() string {
	return string(c.cards) + "." + strconv.FormatInt(c.version, 36) + "-" + strconv.FormatInt(int64(c.person), 36)
}

func parseListCursor(raw string) (listCursor, error) {
	if raw == "" {
		return listCursor{}, nil
	}
	wrong := &mistake{"query.since", "not a cursor of this interface"}
	cards, place, ok := strings.Cut(raw, ".")
	version, person, hyphen := strings.Cut(place, "-")
	if !ok || !hyphen {
		return listCursor{}, wrong
	}
	v, err := strconv.ParseInt(version, 36, 64)
	if err != nil {
		return listCursor{}, wrong
	}
	p, err := strconv.ParseInt(person, 36, 64)
	if err != nil {
		return listCursor{}, wrong
	}
	return listCursor{access.Cursor(cards), v, ledger.PersonID(p)}, nil
}

// serveLists answers GET /api/v1/lists.
func (in *Intake) serveLists(w http.ResponseWriter, r *http.Request) {
	began := in.now()
	changes, err := in.takeLists(r)
	if err != nil {
		in.refuse(w, r, listsRoute, err)
		return
	}
	in.answer(w, listsRoute, began, changes)
}

func (in *Intake) takeLists(r *http.Request) (Changes, error) {
	device, err := in.keys.device(r.Context(), r.Header.Get("Authorization"))
	if err != nil {
		return Changes{}, err
	}
	in.see(device.ID, r)
	leave, err := in.questions.take(device.ID, 0)
	if err != nil {
		return Changes{}, err
	}
	defer leave()
	in.metrics.underWay.WithLabelValues(listsRoute).Inc()
	defer in.metrics.underWay.WithLabelValues(listsRoute).Dec()
	cursor, err := parseListCursor(r.URL.Query().Get("since"))
	if err != nil {
		return Changes{}, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), listTime)
	defer cancel()
	changes, err := in.changes(ctx, device, cursor)
	if err != nil {
		return Changes{}, err
	}
	if !changes.More {
		in.contacts.list(device.ID, changes.ServerTime)
	}
	in.well(r.Context())
	return changes, nil
}

// changes reads what has changed since a cursor.
func (in *Intake) changes(ctx context.Context, device *Device, cursor listCursor) (Changes, error) {
	now := in.now()
	changes := Changes{Cards: []ListedCard{}, People: []ListedPerson{}, ServerTime: now}
	cards, next, err := access.CardChanges(ctx, in.pool, device.Organisation, cursor.cards, listPage)
	if errors.Is(err, access.ErrCursor) {
		return Changes{}, &mistake{"query.since", "not a cursor of this interface"}
	}
	if err != nil {
		return Changes{}, err
	}
	changes.More = next != cursor.cards
	cursor.cards = next
	if changes.Cards, err = in.listCards(ctx, device, cards, now); err != nil {
		return Changes{}, err
	}
	if err := in.renewList(ctx, device.Organisation, now); err != nil {
		return Changes{}, err
	}
	people, err := readEntries(ctx, in.pool, device.Organisation, cursor)
	if err != nil {
		return Changes{}, err
	}
	for _, p := range people {
		if device.Kind != Till { // nobody else needs to know for whom the city pays
			p.Subsidised, p.Served = nil, nil
		}
		changes.People = append(changes.People, p.ListedPerson)
		cursor.version, cursor.person = p.version, p.id
	}
	changes.More = changes.More || len(people) == listPage
	changes.Cursor = cursor.String()
	return changes, nil
}

// listCards puts cards into the form of a device.
func (in *Intake) listCards(
	ctx context.Context, device *Device, cards []access.Card, now time.Time,
) ([]ListedCard, error) {
	people := make([]ledger.PersonID, 0, len(cards))
	for _, c := range cards {
		if c.Person != 0 {
			people = append(people, c.Person)
		}
	}
	known, err := ledger.People(ctx, in.pool, people)
	if err != nil {
		return nil, err
	}
	listed := make([]ListedCard, 0, len(cards))
	for _, c := range cards {
		l := ListedCard{Card: device.Profile.Show(c.UID), Companion: c.Representative != 0, ValidUntil: c.ValidUntil}
		if person, ok := known[c.Person]; ok {
			l.Person, l.Name = person.Code, shortName(person)
		}
		holder := access.CardHolder{
			Card: c.ID, Person: c.Person, Representative: c.Representative, Kind: c.Kind, State: c.State,
			ValidUntil: c.ValidUntil,
		}
		code, _ := judgeCard(holder, now)
		if code == CompanionAlone {
			code = ""
		}
		l.Allow, l.Reason = code == "", Reason(code)
		listed = append(listed, l)
	}
	return listed, nil
}

// renewList makes the list of an organisation's people anew when it is old, and
// gives what changed the next version. Tills that ask at once make it once: the
// row of the version is the lock.
func (in *Intake) renewList(ctx context.Context, organisation ledger.OrganisationID, now time.Time) error {
	err := pgx.BeginFunc(ctx, in.pool, func(tx pgx.Tx) error {
		var version int64
		err := tx.QueryRow(ctx, `
			INSERT INTO reader.list AS l (organisation_id, version, made_at)
			VALUES ($1, 1, $2)
			    ON CONFLICT (organisation_id) DO UPDATE
			   SET version = l.version + 1, made_at = excluded.made_at
			 WHERE l.made_at <= excluded.made_at - $3::interval
			RETURNING version`, organisation, now, listLife).Scan(&version)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		return makeList(ctx, tx, organisation, version, now)
	})
	if err != nil {
		return fmt.Errorf("renew the list of organisation %d: %w", organisation, err)
	}
	return nil
}

func makeList(ctx context.Context, tx pgx.Tx, organisation ledger.OrganisationID, version int64, now time.Time) error {
	settings, err := ledger.Organisations(ctx, tx, []ledger.OrganisationID{organisation})
	if err != nil {
		return err
	}
	year, month, day := now.In(settings[organisation].Location).Date()
	today := time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
	rows, err := tx.Query(ctx, `
		SELECT id, code, benefit FROM ledger.person
		 WHERE organisation_id = $1 AND (left_on IS NULL OR left_on > $2)
		 ORDER BY id`, organisation, today)
	if err != nil {
		return err
	}
	var (
		people   []ledger.PersonID
		codes    []string
		benefits []ledger.Benefit
		days     []time.Time
		id       ledger.PersonID
		code     string
		benefit  ledger.Benefit
	)
	_, err = pgx.ForEachRow(rows, []any{&id, &code, &benefit}, func() error {
		people, codes, benefits, days = append(people, id), append(codes, code), append(benefits, benefit), append(days, today)
		return nil
	})
	if err != nil {
		return err
	}
	balances, err := ledger.Balances(ctx, tx, people)
	if err != nil {
		return err
	}
	rules, err := meal.RulesOf(ctx, tx, people, days)
	if err != nil {
		return err
	}
	ordered, err := meal.HeldMeals(ctx, tx, organisation, today)
	if err != nil {
		return err
	}
	served, err := meal.ServedMeals(ctx, tx, people, today)
	if err != nil {
		return err
	}
	entries := make([]string, len(people))
	for i, person := range people {
		balance := balances[person]
		entry, err := json.Marshal(ListedPerson{
			Person: codes[i], Balance: balance.Available(), DebtFloor: balance.DebtFloor, Ordered: ordered[person],
			Limit: rules[i].Limit, LimitLeft: rules[i].Left(), Bans: rules[i].Bans,
			Subsidised: meal.Entitled(benefits[i]), Served: served[person],
		})
		if err != nil {
			return err
		}
		entries[i] = string(entry)
	}
	return storeEntries(ctx, tx, organisation, version, people, entries)
}

// storeEntries gives the version to what differs from what was told before.
func storeEntries(
	ctx context.Context, tx pgx.Tx, organisation ledger.OrganisationID, version int64,
	people []ledger.PersonID, entries []string,
) error {
	var batch pgx.Batch
	batch.Queue(`
		INSERT INTO reader.list_entry AS e (organisation_id, person_id, version, entry)
		SELECT $1, person_id, $2, entry::jsonb
		  FROM unnest($3::bigint[], $4::text[]) AS t (person_id, entry)
		    ON CONFLICT (organisation_id, person_id) DO UPDATE
		   SET version = excluded.version, entry = excluded.entry
		 WHERE e.entry IS DISTINCT FROM excluded.entry`, organisation, version, people, entries)
	batch.Queue(`
		UPDATE reader.list_entry
		   SET version = $2, entry = NULL
		 WHERE organisation_id = $1 AND entry IS NOT NULL AND person_id <> ALL($3)`, organisation, version, people)
	return tx.SendBatch(ctx, &batch).Close()
}

// listedEntry is an entry with its place.
type listedEntry struct {
	ListedPerson
	id      ledger.PersonID
	version int64
}

func readEntries(
	ctx context.Context, q pg.Querier, organisation ledger.OrganisationID, since listCursor,
) ([]listedEntry, error) {
	rows, err := q.Query(ctx, `
		SELECT e.person_id, e.version, coalesce(e.entry, jsonb_build_object('person', p.code, 'gone', true))
		  FROM reader.list_entry e
		  JOIN ledger.person p ON p.id = e.person_id
		 WHERE e.organisation_id = $1 AND (e.version, e.person_id) > ($2, $3)
		 ORDER BY e.version, e.person_id
		 LIMIT $4`, organisation, since.version, since.person, listPage)
	if err != nil {
		return nil, fmt.Errorf("read the list of organisation %d: %w", organisation, err)
	}
	entries, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (listedEntry, error) {
		var e listedEntry
		err := row.Scan(&e.id, &e.version, &e.ListedPerson)
		return e, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the list of organisation %d: %w", organisation, err)
	}
	return entries, nil
}
