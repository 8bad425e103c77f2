package menu

import (
	"context"

	"zvonok/access"
	"zvonok/ledger"
	"zvonok/ledger/pg"
	"zvonok/templates"
	"zvonok/ussd"
)

// history shows the balance and the last five movements of a child's account.
func (v *visitor) history(ctx context.Context, child access.Child) (ussd.Screen, error) {
	if !child.Meals {
		return v.neutral(), nil
	}
	wallet, ok, err := v.wallet(ctx, child)
	if err != nil {
		return ussd.Screen{}, err
	}
	if !ok {
		return v.topUp(ctx, child) // which says that there is no account
	}
	organisation, err := v.organisation(ctx, child)
	if err != nil {
		return ussd.Screen{}, err
	}
	var statement []ledger.Movement
	if err := v.config.Read.Read(ctx, func(ctx context.Context, q pg.Querier) (err error) {
		statement, err = ledger.FreshStatement(ctx, q, wallet, 0, movements)
		return err
	}); err != nil {
		return ussd.Screen{}, err
	}
	history := templates.USSDHistory{Child: name(child), Balance: wallet.Posted}
	for _, m := range statement {
		history.Movements = append(history.Movements, templates.USSDMovement{
			At: m.OccurredAt.In(organisation.Location), Kind: string(m.Kind), Amount: m.Amount,
		})
	}
	screen := ussd.Screen{Place: v.Place, Lines: history.Lines(v.style), SMS: history.SMS(v.style)}
	return screen, v.shown(ctx, "movements", child)
}

// topUp shows what a bank's terminal asks for: the account number and the payee's code (R30, R36).
func (v *visitor) topUp(ctx context.Context, child access.Child) (ussd.Screen, error) {
	if !child.Meals {
		return v.neutral(), nil
	}
	wallet, _, err := v.wallet(ctx, child)
	if err != nil {
		return ussd.Screen{}, err
	}
	organisation, err := v.organisation(ctx, child)
	if err != nil {
		return ussd.Screen{}, err
	}
	payees, err := ledger.Payees(ctx, v.config.Pool)
	if err != nil {
		return ussd.Screen{}, err
	}
	how := templates.USSDTopUp{
		Child: name(child), Account: wallet.Number, Payee: payees[organisation.Payee].PaymentCode,
	}
	screen := ussd.Screen{Place: at(placeTopUp, child), Lines: how.Lines(v.style), SMS: how.SMS(v.style)}
	return screen, v.shown(ctx, "account", child)
}
