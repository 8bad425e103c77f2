package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger/money"
	"zvonok/ledger/pg"
)

// Movement is one posting as its wallet sees it.
type Movement struct {
	Account AccountID
	Person  PersonID
	Posting PostingID
	Event   EventID
	Kind    Kind
	// Amount is above zero when money came into the wallet, below when it left.
	Amount money.Amount
	// After is the balance just after.
	After money.Amount
	// Number counts the wallet's movements from 1.
	Number int32
	// OccurredAt is when it happened, PostedAt when it was booked.
	OccurredAt, PostedAt time.Time
	// Day is the accounting day, at midnight UTC.
	Day time.Time
	// Other is the account on the other side.
	Other AccountID
	// Source is who brought it, such as "bank/mkb".
	Source string
	// Reverses is the posting taken back; 0 unless this is a reversal.
	Reverses PostingID
	// Forced tells that it was booked whatever the balance.
	Forced bool
}

// movements selects both sides of the postings of wallets; the conditions of a
// query follow in both halves.
const (
	debitMovement = `
		SELECT p.debit_id AS account_id, p.id, p.event_id, p.kind, -p.amount AS amount, p.debit_after AS after,
		       p.debit_ver AS ver, p.occurred_at, p.posted_at, p.booking_day, p.credit_id AS other_id, p.source,
		       coalesce(p.reverses_id, 0) AS reverses_id, p.forced
		  FROM ledger.posting p
		 WHERE p.debit_ver IS NOT NULL`
	creditMovement = `
		SELECT p.credit_id, p.id, p.event_id, p.kind, p.amount, p.credit_after, p.credit_ver,
		       p.occurred_at, p.posted_at, p.booking_day, p.debit_id, p.source, coalesce(p.reverses_id, 0), p.forced
		  FROM ledger.posting p
		 WHERE p.credit_ver IS NOT NULL`
	movementColumns = `
		m.account_id, a.person_id, m.id, m.event_id, m.kind, m.amount, m.after, m.ver,
		m.occurred_at, m.posted_at, m.booking_day, m.other_id, m.source, m.reverses_id, m.forced`
)

func readMovements(ctx context.Context, q pg.Querier, query string, args ...any) ([]Movement, error) {
	rows, err := q.Query(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read movements: %w", err)
	}
	movements, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Movement])
	if err != nil {
		return nil, fmt.Errorf("read movements: %w", err)
	}
	return movements, nil
}

// Statement returns up to limit movements of a wallet, the newest first. With
// before above zero it goes on from there: movements whose Number is lower.
func Statement(ctx context.Context, q pg.Querier, wallet AccountID, before int32, limit int) ([]Movement, error) {
	if before <= 0 {
		before = 1<<31 - 1
	}
	return readMovements(ctx, q, `
		SELECT `+movementColumns+`
		  FROM (SELECT *
		          FROM (`+debitMovement+` AND p.debit_id = $1 AND p.debit_ver < $2
		                 ORDER BY p.debit_ver DESC LIMIT $3) AS d
		        UNION ALL
		        SELECT *
		          FROM (`+creditMovement+` AND p.credit_id = $1 AND p.credit_ver < $2
		                 ORDER BY p.credit_ver DESC LIMIT $3) AS c
		        ORDER BY ver DESC
		        LIMIT $3) AS m
		  JOIN ledger.account a ON a.id = m.account_id
		 ORDER BY m.ver DESC`, wallet, before, limit)
}

// FreshStatement is Statement where what is read may be older than a balance
// that is known: a page that lacks a movement which the balance counts is
// pg.ErrBehind, beside what was read.
func FreshStatement(ctx context.Context, q pg.Querier, wallet Balance, before int32, limit int) ([]Movement, error) {
	movements, err := Statement(ctx, q, wallet.Account, before, limit)
	if err != nil {
		return nil, err
	}
	newest := wallet.Moves
	if before > 0 {
		newest = min(newest, before-1)
	}
	if newest > 0 && (len(movements) == 0 || movements[0].Number < newest) {
		return movements, fmt.Errorf("read movements: %w", pg.ErrBehind)
	}
	return movements, nil
}

// BalanceAt returns what was in a wallet at a moment, by the order of booking.
func BalanceAt(ctx context.Context, q pg.Querier, wallet AccountID, at time.Time) (money.Amount, error) {
	var balance money.Amount
	err := q.QueryRow(ctx, `
		SELECT m.after
		  FROM (SELECT *
		          FROM (`+debitMovement+` AND p.debit_id = $1 AND p.posted_at <= $2
		                 ORDER BY p.debit_ver DESC LIMIT 1) AS d
		        UNION ALL
		        SELECT *
		          FROM (`+creditMovement+` AND p.credit_id = $1 AND p.posted_at <= $2
		                 ORDER BY p.credit_ver DESC LIMIT 1) AS c) AS m
		 ORDER BY m.ver DESC
		 LIMIT 1`, wallet, at).Scan(&balance)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return 0, fmt.Errorf("read a balance as of a moment: %w", err)
	}
	return balance, nil
}

// PostedMovements returns the movements of wallets that a Posted job tells of,
// in the order of their events.
func PostedMovements(ctx context.Context, q pg.Querier, fact Posted) ([]Movement, error) {
	const events = ` AND p.event_id = ANY ($1) AND p.booking_day BETWEEN $2 AND $3`
	return readMovements(ctx, q, `
		SELECT `+movementColumns+`
		  FROM (`+debitMovement+events+` UNION ALL `+creditMovement+events+`) AS m
		  JOIN ledger.account a ON a.id = m.account_id
		 ORDER BY m.event_id, m.id, m.ver`, fact.EventIDs, fact.From, fact.To)
}
