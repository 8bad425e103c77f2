package access

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger"
	"zvonok/ledger/pg"
)

// ErrNoCard is a card that does not exist.
var ErrNoCard = errors.New("no such card")

// ErrHolder is a holder who may not have a card of the organisation: a person of
// another organisation, a person who has left, or a companion of none of its children.
var ErrHolder = errors.New("the holder does not belong to the organisation")

// CollisionError refuses a card that readers of the organisation could not tell
// from another one.
type CollisionError struct {
	Card CardID // the card that has the identifier
	Part Part   // what is the same: the whole identifier, or the part a reader keeps
}

// Error names the other card.
func (e *CollisionError) Error() string {
	if e.Part == Whole {
		return fmt.Sprintf("the identifier belongs to card %d of the organisation, which is not returned", e.Card)
	}
	return fmt.Sprintf("readers of the organisation see the same %s of card %d", e.Part, e.Card)
}

// StateError refuses a step that a card in its present state cannot take.
type StateError struct {
	Card  CardID
	State State
	Step  string
}

// Error names the state and the step.
func (e *StateError) Error() string {
	return fmt.Sprintf("card %d is %s and cannot be %s", e.Card, e.State, e.Step)
}

// NewCard is a card to be made out. Exactly one of Person and Representative is set.
type NewCard struct {
	Organisation   ledger.OrganisationID
	UID            UID
	Kind           Kind
	Person         ledger.PersonID
	Representative RepresentativeID // a companion
	ValidUntil     time.Time        // zero: open-ended
}

// IssueCard makes out a card, which opens nothing until [HandOver] (R18, R19).
// It returns a *[CollisionError] when the organisation could not tell it from
// another live card, and [ErrHolder].
func IssueCard(ctx context.Context, tx pgx.Tx, card NewCard, by Actor, now time.Time) (CardID, error) {
	id, err := addCard(ctx, tx, card, Issued, "issued", by, now)
	if err != nil {
		return 0, fmt.Errorf("issue a card: %w", err)
	}
	return id, nil
}

// LendCard lends a temporary card for the rest of the day (R21). It works at
// once and ends by itself when the organisation closes its day, or at midnight
// when that hour is past; then it may be lent again. The child's account is the
// same, because an account belongs to the person and never to a card (R16). The
// errors are those of [IssueCard].
func LendCard(ctx context.Context, tx pgx.Tx, card NewCard, by Actor, now time.Time) (CardID, error) {
	card.Kind = TemporaryCard
	err := tx.QueryRow(ctx, `
		SELECT CASE WHEN closes > $2 THEN closes ELSE midnight END
		  FROM (SELECT (day + close_at) AT TIME ZONE time_zone AS closes,
		               (day + interval '1 day') AT TIME ZONE time_zone AS midnight
		          FROM (SELECT time_zone, close_at, ($2::timestamptz AT TIME ZONE time_zone)::date AS day
		                  FROM ledger.organisation WHERE id = $1) o) e`,
		card.Organisation, now).Scan(&card.ValidUntil)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, fmt.Errorf("lend a card: %w", ErrHolder)
	}
	if err != nil {
		return 0, fmt.Errorf("find the end of the day: %w", err)
	}
	id, err := addCard(ctx, tx, card, Temporary, "lent", by, now)
	if err != nil {
		return 0, fmt.Errorf("lend a card: %w", err)
	}
	return id, nil
}

func addCard(ctx context.Context, tx pgx.Tx, card NewCard, state State, what string, by Actor, now time.Time) (
	CardID, error,
) {
	// Two desks of one organisation take turns: the check of shortened forms
	// below is not something an index can do.
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock('access.card'::regclass::int, $1::int)`,
		card.Organisation); err != nil {
		return 0, fmt.Errorf("wait for the organisation's desk: %w", err)
	}
	if err := checkHolder(ctx, tx, card, now); err != nil {
		return 0, err
	}
	if err := EndTemporaryCards(ctx, tx, card.Organisation, now); err != nil {
		return 0, err
	}
	var collision CollisionError
	err := tx.QueryRow(ctx, `
		SELECT c.id, f.part
		  FROM (SELECT '' AS part UNION ALL
		        SELECT part FROM access.reader_form WHERE organisation_id = $1) f
		  JOIN access.card c ON c.organisation_id = $1 AND c.state NOT IN ('returned', 'destroyed')
		   AND access.part(c.uid, f.part) = access.part($2, f.part)
		 ORDER BY length(f.part), f.part, c.id
		 LIMIT 1`, card.Organisation, card.UID).Scan(&collision.Card, &collision.Part)
	if err == nil {
		return 0, &collision
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return 0, fmt.Errorf("look for a card like this one: %w", err)
	}
	var id CardID
	err = tx.QueryRow(ctx, `
		WITH added AS (
		    INSERT INTO access.card (organisation_id, uid, kind, person_id, representative_id, state, valid_until, issued_at)
		    VALUES ($1, $2, $3, nullif($4::bigint, 0), nullif($5::bigint, 0), $6, $7, $8)
		    RETURNING id, organisation_id
		), told AS (
		    INSERT INTO access.card_event (card_id, organisation_id, what, at, actor_kind, actor_id)
		    SELECT id, organisation_id, $9, $8, $10, $11 FROM added
		)
		SELECT id FROM added`,
		card.Organisation, card.UID, card.Kind, card.Person, card.Representative, state, moment(card.ValidUntil), now,
		what, by.Kind, by.ID).Scan(&id)
	if err != nil {
		return 0, fmt.Errorf("store the card: %w", err)
	}
	return id, nil
}

func checkHolder(ctx context.Context, tx pgx.Tx, card NewCard, now time.Time) error {
	if (card.Person == 0) == (card.Representative == 0) {
		return ErrHolder
	}
	var belongs bool
	err := tx.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM ledger.person p JOIN ledger.organisation o ON o.id = p.organisation_id
		                WHERE p.organisation_id = $1
		                  AND (p.left_on IS NULL OR p.left_on > ($4::timestamptz AT TIME ZONE o.time_zone)::date)
		                  AND (p.id = $2
		                       OR EXISTS (SELECT FROM access.guardian g
		                                   WHERE g.child_id = p.id AND g.representative_id = $3
		                                     AND (g.until IS NULL OR g.until > $4)
		                                     AND (g.revoked_at IS NULL OR g.revoked_at > $4))))`,
		card.Organisation, card.Person, card.Representative, now).Scan(&belongs)
	if err != nil {
		return fmt.Errorf("check the holder: %w", err)
	}
	if !belongs {
		return ErrHolder
	}
	return nil
}

// EndTemporaryCards writes down the end of the temporary cards whose time is
// over, of one organisation or, for 0, of all. They opened nothing since; this
// frees their identifiers and tells the offline lists.
func EndTemporaryCards(ctx context.Context, tx pgx.Tx, organisation ledger.OrganisationID, now time.Time) error {
	_, err := tx.Exec(ctx, `
		WITH ended AS (
		    UPDATE access.card SET state = 'returned', ended_at = valid_until
		     WHERE ($1 = 0 OR organisation_id = $1) AND state = 'temporary' AND valid_until <= $2
		    RETURNING id, organisation_id, ended_at
		)
		INSERT INTO access.card_event (card_id, organisation_id, what, at, actor_kind, actor_id)
		SELECT id, organisation_id, 'returned', ended_at, 'system', 'end of the day' FROM ended`,
		organisation, now)
	if err != nil {
		return fmt.Errorf("end temporary cards: %w", err)
	}
	return nil
}

// HandOver gives an issued card to its holder; from now on it works. The mark of
// the signature, for instance the number of the sheet and the line, is kept with
// who handed it over and when (R19).
func HandOver(ctx context.Context, tx pgx.Tx, card CardID, by Actor, signature string, now time.Time) error {
	return turn(ctx, tx, step{
		card: card, from: []State{Issued}, to: Active, what: "handed_over", by: by, signature: signature, at: now,
	})
}

// BlockCard blocks a lost card. It works at once for every decision made online;
// offline lists carry it as a change (see [CardChanges]).
func BlockCard(ctx context.Context, tx pgx.Tx, card CardID, by Actor, note string, now time.Time) error {
	return turn(ctx, tx, step{
		card: card, from: []State{Issued, Active, Temporary}, to: BlockedLost,
		what: "blocked_lost", by: by, note: note, at: now,
	})
}

// FoundCard makes a lost card work again.
func FoundCard(ctx context.Context, tx pgx.Tx, card CardID, by Actor, now time.Time) error {
	return turn(ctx, tx, step{card: card, from: []State{BlockedLost}, to: Active, what: "found", by: by, at: now})
}

// ReplaceCard blocks a card for good and makes out another for the same holder
// in one step: there is no moment at which both work. The new card keeps the
// kind unless one is named. The errors are those of [IssueCard].
func ReplaceCard(ctx context.Context, tx pgx.Tx, old CardID, uid UID, kind Kind, validUntil time.Time,
	by Actor, now time.Time,
) (CardID, error) {
	next := NewCard{UID: uid, ValidUntil: validUntil}
	err := tx.QueryRow(ctx, `
		SELECT organisation_id, CASE WHEN $2 = '' THEN kind ELSE $2 END, coalesce(person_id, 0),
		       coalesce(representative_id, 0)
		  FROM access.card WHERE id = $1`, old, kind).
		Scan(&next.Organisation, &next.Kind, &next.Person, &next.Representative)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, ErrNoCard
	}
	if err != nil {
		return 0, fmt.Errorf("read card %d: %w", old, err)
	}
	err = turn(ctx, tx, step{
		card: old, from: []State{Issued, Active, BlockedLost}, to: BlockedReplaced,
		what: "blocked_replaced", by: by, at: now, once: true,
	})
	if err != nil {
		return 0, err
	}
	return IssueCard(ctx, tx, next, by, now)
}

// ReturnCard takes a card back; its identifier is free from now on.
func ReturnCard(ctx context.Context, tx pgx.Tx, card CardID, by Actor, now time.Time) error {
	return turn(ctx, tx, step{
		card: card, from: []State{Issued, Active, Temporary, BlockedLost, BlockedReplaced}, to: Returned,
		what: "returned", by: by, at: now,
	})
}

// DestroyCard writes down the destruction of a card.
func DestroyCard(ctx context.Context, tx pgx.Tx, card CardID, by Actor, note string, now time.Time) error {
	return turn(ctx, tx, step{
		card: card, from: []State{Issued, Active, Temporary, BlockedLost, BlockedReplaced, Returned}, to: Destroyed,
		what: "destroyed", by: by, note: note, at: now,
	})
}

// step is one step in the life of a card.
type step struct {
	card            CardID
	from            []State
	to              State
	what            string
	by              Actor
	signature, note string
	at              time.Time
	once            bool // taking it again is an error
}

// turn takes the step and writes it into the card's history. A card that stands
// there already is left as it is, unless the step is one to be taken once: two
// people may report the same loss.
func turn(ctx context.Context, tx pgx.Tx, s step) error {
	tag, err := tx.Exec(ctx, `
		WITH turned AS (
		    UPDATE access.card
		       SET state = CASE WHEN $3 = 'active' AND kind = 'temporary' THEN 'temporary' ELSE $3 END,
		           blocked_at = CASE WHEN $3 = 'active' THEN NULL
		                             WHEN $3 LIKE 'blocked%' THEN coalesce(blocked_at, $4)
		                             ELSE blocked_at END,
		           ended_at = CASE WHEN $3 IN ('returned', 'destroyed') THEN coalesce(ended_at, $4) END
		     WHERE id = $1 AND state = ANY ($2)
		    RETURNING id, organisation_id
		)
		INSERT INTO access.card_event (card_id, organisation_id, what, at, actor_kind, actor_id, signature, note)
		SELECT id, organisation_id, $5, $4, $6, $7, $8, $9 FROM turned`,
		s.card, s.from, s.to, s.at, s.what, s.by.Kind, s.by.ID, s.signature, s.note)
	if err != nil {
		return fmt.Errorf("write card %d as %s: %w", s.card, s.what, err)
	}
	if tag.RowsAffected() == 1 {
		return nil
	}
	var state State
	err = tx.QueryRow(ctx, `SELECT state FROM access.card WHERE id = $1`, s.card).Scan(&state)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return ErrNoCard
	case err != nil:
		return fmt.Errorf("read card %d: %w", s.card, err)
	case !s.once && (state == s.to || s.to == Active && state == Temporary):
		return nil
	default:
		return &StateError{Card: s.card, State: state, Step: s.what}
	}
}

// Card is a card as it stands.
type Card struct {
	ID             CardID
	Organisation   ledger.OrganisationID
	UID            UID
	Kind           Kind
	Person         ledger.PersonID
	Representative RepresentativeID
	State          State
	ValidUntil     time.Time
}

// Usable reports whether the card opens a door and pays at that moment.
func (c Card) Usable(at time.Time) bool {
	return CardHolder{State: c.State, ValidUntil: c.ValidUntil}.Usable(at)
}

// cardColumns is what scanCard reads, in its order.
const cardColumns = `c.id, c.organisation_id, c.uid, c.kind, coalesce(c.person_id, 0),
	coalesce(c.representative_id, 0), c.state, c.valid_until`

func scanCard(row pgx.CollectableRow) (Card, error) {
	var c Card
	var until *time.Time
	err := row.Scan(&c.ID, &c.Organisation, &c.UID, &c.Kind, &c.Person, &c.Representative, &c.State, &until)
	c.ValidUntil = timeOf(until)
	return c, err
}

// CardsOf returns a person's cards, newest first, the ended ones too.
func CardsOf(ctx context.Context, q pg.Querier, person ledger.PersonID) ([]Card, error) {
	rows, err := q.Query(ctx, `
		SELECT `+cardColumns+` FROM access.card c WHERE c.person_id = $1 ORDER BY c.issued_at DESC, c.id DESC`, person)
	if err != nil {
		return nil, fmt.Errorf("read the cards of person %d: %w", person, err)
	}
	cards, err := pgx.CollectRows(rows, scanCard)
	if err != nil {
		return nil, fmt.Errorf("read the cards of person %d: %w", person, err)
	}
	return cards, nil
}

// CardEvent is one line of a card's history.
type CardEvent struct {
	// What is one of imported, changed, issued, handed_over, lent, blocked_lost,
	// blocked_replaced, found, returned, destroyed.
	What      string
	At        time.Time
	By        Actor
	Signature string
	Note      string
}

// CardHistory returns who did what to a card and when, oldest first.
func CardHistory(ctx context.Context, q pg.Querier, card CardID) ([]CardEvent, error) {
	rows, err := q.Query(ctx, `
		SELECT what, at, actor_kind, actor_id, signature, note
		  FROM access.card_event WHERE card_id = $1 ORDER BY id`, card)
	if err != nil {
		return nil, fmt.Errorf("read the history of card %d: %w", card, err)
	}
	events, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (CardEvent, error) {
		var e CardEvent
		err := row.Scan(&e.What, &e.At, &e.By.Kind, &e.By.ID, &e.Signature, &e.Note)
		return e, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the history of card %d: %w", card, err)
	}
	return events, nil
}

// Collision is a pair of live cards of one organisation that a reader cannot tell apart.
type Collision struct {
	Part          Part
	First, Second CardID
}

// SetReaderForms says which shortened identifiers the readers of an organisation
// see; from now on a card that collides in one of them is refused at issue. It
// returns the pairs that collide already, for staff to replace: such a card is
// resolved as [Ambiguous] at those readers.
func SetReaderForms(ctx context.Context, tx pgx.Tx, organisation ledger.OrganisationID, parts []Part) (
	[]Collision, error,
) {
	_, err := tx.Exec(ctx, `
		WITH gone AS (
		    DELETE FROM access.reader_form WHERE organisation_id = $1 AND part <> ALL ($2)
		)
		INSERT INTO access.reader_form (organisation_id, part)
		SELECT DISTINCT $1::bigint, part FROM unnest($2::text[]) AS p (part)
		ON CONFLICT DO NOTHING`, organisation, parts)
	if err != nil {
		return nil, fmt.Errorf("set the reader forms of organisation %d: %w", organisation, err)
	}
	rows, err := tx.Query(ctx, `
		SELECT f.part, a.id, b.id
		  FROM access.reader_form f
		  JOIN access.card a ON a.organisation_id = f.organisation_id AND a.state NOT IN ('returned', 'destroyed')
		  JOIN access.card b ON b.organisation_id = f.organisation_id AND b.state NOT IN ('returned', 'destroyed')
		   AND b.id > a.id AND access.part(b.uid, f.part) = access.part(a.uid, f.part)
		 WHERE f.organisation_id = $1
		 ORDER BY f.part, a.id, b.id`, organisation)
	if err != nil {
		return nil, fmt.Errorf("look for colliding cards of organisation %d: %w", organisation, err)
	}
	collisions, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Collision])
	if err != nil {
		return nil, fmt.Errorf("look for colliding cards of organisation %d: %w", organisation, err)
	}
	return collisions, nil
}
