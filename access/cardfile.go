package access

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger"
	"zvonok/ledger/pg"
)

// CardByID reads a card of an organisation as it stands, and locks it, so that
// what is decided on it holds until the transaction ends. Another organisation's
// card is [ErrNoCard], like one that does not exist.
func CardByID(ctx context.Context, tx pgx.Tx, organisation ledger.OrganisationID, id CardID) (Card, error) {
	rows, err := tx.Query(ctx, `
		SELECT `+cardColumns+` FROM access.card c WHERE c.id = $1 AND c.organisation_id = $2 FOR UPDATE`, id, organisation)
	if err != nil {
		return Card{}, fmt.Errorf("read card %d: %w", id, err)
	}
	card, err := pgx.CollectExactlyOneRow(rows, scanCard)
	if errors.Is(err, pgx.ErrNoRows) {
		return Card{}, ErrNoCard
	}
	if err != nil {
		return Card{}, fmt.Errorf("read card %d: %w", id, err)
	}
	return card, nil
}

// FindCard reads a card as it stands, whosever it is, or returns [ErrNoCard].
func FindCard(ctx context.Context, q pg.Querier, id CardID) (Card, error) {
	rows, err := q.Query(ctx, `SELECT `+cardColumns+` FROM access.card c WHERE c.id = $1`, id)
	if err != nil {
		return Card{}, fmt.Errorf("read card %d: %w", id, err)
	}
	card, err := pgx.CollectExactlyOneRow(rows, scanCard)
	if errors.Is(err, pgx.ErrNoRows) {
		return Card{}, ErrNoCard
	}
	if err != nil {
		return Card{}, fmt.Errorf("read card %d: %w", id, err)
	}
	return card, nil
}

// CardsWithUID lists the cards that have or had an identifier, newest first: the
// live one, if there is one, and whoever held it before. Organisation 0 stands
// for all.
func CardsWithUID(ctx context.Context, q pg.Querier, organisation ledger.OrganisationID, uid UID) ([]Card, error) {
	rows, err := q.Query(ctx, `
		SELECT `+cardColumns+`
		  FROM ledger.organisation o
		  JOIN access.card c ON c.organisation_id = o.id AND c.uid = $2
		 WHERE $1 = 0 OR o.id = $1
		 ORDER BY c.state IN ('returned', 'destroyed'), c.issued_at DESC, c.id DESC`, organisation, uid)
	if err != nil {
		return nil, fmt.Errorf("find the cards of an identifier: %w", err)
	}
	cards, err := pgx.CollectRows(rows, scanCard)
	if err != nil {
		return nil, fmt.Errorf("find the cards of an identifier: %w", err)
	}
	return cards, nil
}

// AddReaderForm notes that a reader of the organisation keeps only a part of the
// identifiers; from now on a card that collides there is refused at issue. It
// returns the pairs that collide already, for staff to replace.
func AddReaderForm(ctx context.Context, tx pgx.Tx, organisation ledger.OrganisationID, part Part) ([]Collision, error) {
	if part == Whole {
		return nil, nil
	}
	rows, err := tx.Query(ctx, `SELECT part FROM access.reader_form WHERE organisation_id = $1`, organisation)
	if err != nil {
		return nil, fmt.Errorf("read the reader forms of organisation %d: %w", organisation, err)
	}
	parts, err := pgx.CollectRows(rows, pgx.RowTo[Part])
	if err != nil {
		return nil, fmt.Errorf("read the reader forms of organisation %d: %w", organisation, err)
	}
	return SetReaderForms(ctx, tx, organisation, append(parts, part))
}

// CardKinds lists the kinds of identifiers that may be issued (R17), by code.
func CardKinds(ctx context.Context, q pg.Querier) ([]Kind, error) {
	rows, err := q.Query(ctx, `SELECT code FROM access.card_kind ORDER BY code`)
	if err != nil {
		return nil, fmt.Errorf("list the kinds of cards: %w", err)
	}
	kinds, err := pgx.CollectRows(rows, pgx.RowTo[Kind])
	if err != nil {
		return nil, fmt.Errorf("list the kinds of cards: %w", err)
	}
	return kinds, nil
}
