package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger/money"
	"zvonok/ledger/pg"
)

// Move is a wallet that changed its organisation or its payee, with what was in
// it. A payee that holds the parents' money hands that sum over to the next.
type Move struct {
	At      time.Time `json:"at"`
	Account AccountID `json:"account_id"`
	// Number is the account number known outside; a move does not change it.
	Number string   `json:"account"`
	Person PersonID `json:"person"`
	// FromOrganisation and ToOrganisation are the registry's ids; equal when it
	// was the organisation that changed its payee.
	FromOrganisation string    `json:"from_org"`
	ToOrganisation   string    `json:"to_org"`
	FromPayee        PayeeCode `json:"from_payee"`
	ToPayee          PayeeCode `json:"to_payee"`
	// Balance may be below zero: a debt moves as well.
	Balance money.Amount `json:"balance"`
	// Actor is who did it; "import" for the registry's files.
	Actor string `json:"by"`
}

// MovePerson moves a person to another organisation. The wallet, its number and
// its money go along; its debt floor is that of the new organisation from now
// on. The move is noted with the balance (Moves), as one by the registry's
// import is. Somebody who has left belongs to the new organisation again. A
// person or an organisation that is not in the register, and a move to where the
// person is already, are errors.
func MovePerson(ctx context.Context, tx pgx.Tx, person PersonID, to OrganisationID, group, actor string) error {
	if _, err := tx.Exec(ctx, `SELECT set_config('zvonok.actor', $1, true)`, actor); err != nil {
		return fmt.Errorf("move person %d: %w", person, err)
	}
	tag, err := tx.Exec(ctx, `
		UPDATE ledger.person
		   SET organisation_id = $2, group_name = $3, left_on = NULL
		 WHERE id = $1 AND organisation_id <> $2`, person, to, group)
	if err != nil {
		return fmt.Errorf("move person %d: %w", person, err)
	}
	if tag.RowsAffected() == 0 {
		return fmt.Errorf("move person %d: there is no such person outside organisation %d", person, to)
	}
	return nil
}

// Moves returns the moves from one moment to before another, in their order.
func Moves(ctx context.Context, q pg.Querier, from, to time.Time) ([]Move, error) {
	rows, err := q.Query(ctx, `
		SELECT m.at, m.account_id, a.number, m.person_id, f.code, t.code, m.from_payee, m.to_payee, m.balance, m.actor
		  FROM ledger.move m
		  JOIN ledger.account a ON a.id = m.account_id
		  JOIN ledger.organisation f ON f.id = m.from_id
		  JOIN ledger.organisation t ON t.id = m.to_id
		 WHERE m.at >= $1 AND m.at < $2
		 ORDER BY m.id`, from, to)
	if err != nil {
		return nil, fmt.Errorf("read moves: %w", err)
	}
	moves, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Move])
	if err != nil {
		return nil, fmt.Errorf("read moves: %w", err)
	}
	return moves, nil
}
