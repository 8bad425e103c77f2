package ledger

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger/money"
)

// CodeHeld says that the money of a Hold is set aside.
const CodeHeld Code = "held"

// Hold asks to set money of a wallet aside, for a preorder.
type Hold struct {
	Account AccountID
	// Amount is above zero.
	Amount money.Amount
	// Key is the id of the hold, by which it is ended.
	Key Key
}

// HoldEnd tells what became of the money.
type HoldEnd string

// The ends of a hold.
const (
	// HoldTaken: the money is about to be posted in the same transaction.
	HoldTaken HoldEnd = "taken"
	// HoldReleased: the money is free again.
	HoldReleased HoldEnd = "released"
)

// HoldMoney sets money aside and returns a verdict for each hold, in order:
// CodeHeld, CodeDuplicate, CodeConflict, CodeRefused, CodeUnknownAccount or
// CodeClosedAccount. Holds on one wallet are counted in their order; one that
// does not fit leaves no room for the later ones of the call either.
func (b *Book) HoldMoney(ctx context.Context, tx pgx.Tx, holds []Hold) ([]Code, error) {
	accounts, amounts := make([]int64, len(holds)), make([]int64, len(holds))
	sources, ids := make([]string, len(holds)), make([]string, len(holds))
	for i, h := range holds {
		if err := h.Key.check(); err != nil {
			return nil, fmt.Errorf("hold money: %w", err)
		}
		if h.Amount <= 0 {
			return nil, fmt.Errorf("hold money: %s is not above zero", h.Amount)
		}
		accounts[i], amounts[i], sources[i], ids[i] = int64(h.Account), int64(h.Amount), h.Key.Source, h.Key.ExternalID
	}
	rows, err := tx.Query(ctx, `SELECT ord, verdict FROM ledger.hold_money($1, $2, $3, $4)`, accounts, amounts, sources, ids)
	if err != nil {
		return nil, fmt.Errorf("hold money: %w", err)
	}
	codes := make([]Code, len(holds))
	var place int
	var code Code
	if _, err := pgx.ForEachRow(rows, []any{&place, &code}, func() error {
		codes[place-1] = code
		return nil
	}); err != nil {
		return nil, fmt.Errorf("hold money: %w", err)
	}
	return codes, nil
}

// EndHolds ends holds and returns how many of them were open; the others stay as
// they are.
func (b *Book) EndHolds(ctx context.Context, tx pgx.Tx, keys []Key, end HoldEnd) (int, error) {
	sources, ids := make([]string, len(keys)), make([]string, len(keys))
	for i, k := range keys {
		sources[i], ids[i] = k.Source, k.ExternalID
	}
	var ended int
	if err := tx.QueryRow(ctx, `SELECT ledger.end_holds($1, $2, $3)`, sources, ids, string(end)).Scan(&ended); err != nil {
		return 0, fmt.Errorf("end holds: %w", err)
	}
	return ended, nil
}
