package parent

import (
	"context"
	"net/http"
	"strings"
	"time"

	"zvonok/ledger"
	"zvonok/ledger/money"
	"zvonok/ledger/pg"
)

// movementsAtOnce is how many movements a page has.
const movementsAtOnce = 50

// MovementsView is a page of a child's account.
type MovementsView struct {
	Wallet    *WalletView    `json:"wallet" doc:"null when the child has none."`
	Movements []MovementView `json:"movements" nullable:"false" doc:"The newest first."`
	Next      int32          `json:"next,omitempty" doc:"For before, to go on; absent at the end."`
}

// MovementView is one movement of money.
type MovementView struct {
	Number int32        `json:"number" doc:"Counts the account's movements from 1."`
	Kind   string       `json:"kind" enum:"topup,hot,buffet,refund,transfer,correction,reversal,release,other"`
	Amount money.Amount `json:"amount" example:"-110.00" doc:"Above zero when money came."`
	After  money.Amount `json:"balance" example:"143.50" doc:"Just after."`
	At     time.Time    `json:"at" doc:"When it happened."`
	Booked time.Time    `json:"booked_at" doc:"When it was booked, which is later after a till was offline."`
	Bank   string       `json:"bank,omitempty" example:"mkb" doc:"Through which bank a top-up came."`
}

// TopUpView says how to top an account up.
type TopUpView struct {
	Account     string `json:"account" example:"00207316"`
	Payee       string `json:"payee,omitempty"`
	INN         string `json:"inn,omitempty"`
	PaymentCode string `json:"payment_code,omitempty" example:"916" doc:"What some banks ask for."`
	Directory   string `json:"directory" example:"/api/v1/topup-points" doc:"Banks, terminals and offices, step by step."`
}

// movementKinds are the kinds that a wallet sees, by what a parent calls them.
var movementKinds = map[ledger.Kind]string{
	ledger.TopUp: "topup", ledger.HotMeal: "hot", ledger.BuffetSale: "buffet", ledger.Refund: "refund",
	ledger.Transfer: "transfer", ledger.Correction: "correction", ledger.Reversal: "reversal", ledger.Release: "release",
}

func (s routes) money() {
	show(s, route{
		method: http.MethodGet, path: "/children/{child}/movements", id: "list-movements",
		summary: "Movements of the account, and its balance",
	}, s.movements)
	show(s, route{
		method: http.MethodGet, path: "/children/{child}/topup", id: "show-topup", summary: "Where and how to top up",
	}, func(ctx context.Context, v visitor, in *OfChild) (TopUpView, error) {
		child, school, err := s.fedAt(ctx, v, in.Child)
		if err != nil {
			return TopUpView{}, err
		}
		if err := s.look(ctx, v, "account", child.ID); err != nil {
			return TopUpView{}, err
		}
		balances, err := ledger.Balances(ctx, s.pool, []ledger.PersonID{child.ID})
		if err != nil {
			return TopUpView{}, err
		}
		wallet, ok := balances[child.ID]
		if !ok {
			return TopUpView{}, errNothing
		}
		payees, err := ledger.Payees(ctx, s.pool)
		payee := payees[school.Payee]
		return TopUpView{wallet.Number, payee.Name, payee.INN, payee.PaymentCode, "/api/v1/topup-points"}, err
	})
}

func (s routes) movements(ctx context.Context, v visitor, in *struct {
	OfChild
	Before int32 `query:"before" minimum:"0" doc:"next of the page before; without it, the newest."`
},
) (MovementsView, error) {
	view := MovementsView{Movements: []MovementView{}}
	child, school, err := s.fedAt(ctx, v, in.Child)
	if err != nil {
		return view, err
	}
	if err := s.look(ctx, v, "movements", child.ID); err != nil {
		return view, err
	}
	balances, err := ledger.Balances(ctx, s.pool, []ledger.PersonID{child.ID})
	if err != nil {
		return view, err
	}
	wallet, ok := balances[child.ID]
	if !ok {
		return view, nil
	}
	view.Wallet = walletView(wallet)
	var movements []ledger.Movement
	if err := s.read.Read(ctx, func(ctx context.Context, q pg.Querier) (err error) {
		movements, err = ledger.FreshStatement(ctx, q, wallet, in.Before, movementsAtOnce)
		return err
	}); err != nil {
		return view, err
	}
	for _, m := range movements {
		kind, ok := movementKinds[m.Kind]
		if !ok {
			kind = "other"
		}
		line := MovementView{
			Number: m.Number, Kind: kind, Amount: m.Amount, After: m.After, At: m.OccurredAt.In(school.Location),
			Booked: m.PostedAt.In(school.Location),
		}
		if m.Kind == ledger.TopUp {
			_, line.Bank, _ = strings.Cut(m.Source, "/")
		}
		view.Movements = append(view.Movements, line)
	}
	if n := len(view.Movements); n == movementsAtOnce && view.Movements[n-1].Number > 1 {
		view.Next = view.Movements[n-1].Number
	}
	return view, nil
}
