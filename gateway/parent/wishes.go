package parent

import (
	"context"
	"net/http"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/gateway/subscription"
	"zvonok/ledger"
	"zvonok/ledger/money"
)

// mostThreshold bounds thresholds, in kopecks: beyond it lies no wallet.
const mostThreshold money.Amount = 1_000_000_00

// WishesView are one's own wishes for the news of one child (R52, R53).
type WishesView struct {
	Subscriptions []SubscriptionView `json:"subscriptions" nullable:"false" maxItems:"54"`
	Lower         *money.Amount      `json:"lower_threshold" nullable:"true" example:"150.00" doc:"Tells when the balance falls below; null for none."`
	Upper         *money.Amount      `json:"upper_threshold" nullable:"true" example:"5000.00" doc:"Tells when the balance reaches it; null for none."`
}

// SubscriptionView is one wish: which news, by which channel, when.
type SubscriptionView struct {
	Topic   string `json:"topic" enum:"pass,hot,buffet,subsidised,topup,threshold"`
	Channel string `json:"channel" enum:"sms,email,push"`
	Mode    string `json:"mode" enum:"now,day,week" doc:"At once, or in the digest of the day or the week."`
}

func (s routes) wishes() {
	show(s, route{
		method: http.MethodGet, path: "/children/{child}/subscriptions", id: "list-subscriptions", summary: "What you are told of a child",
	}, func(ctx context.Context, v visitor, in *OfChild) (WishesView, error) {
		child, err := s.child(ctx, v, in.Child)
		if err != nil {
			return WishesView{}, err
		}
		return s.wishesOf(ctx, child)
	})
	show(s, route{
		method: http.MethodPut, path: "/children/{child}/subscriptions", id: "set-subscriptions", summary: "Choose what you are told of a child",
		text: "It replaces your own wishes, and nobody else's, from the next event on.",
	}, func(ctx context.Context, v visitor, in *struct {
		OfChild
		Body WishesView
	},
	) (WishesView, error) {
		child, err := s.child(ctx, v, in.Child)
		if err != nil {
			return WishesView{}, err
		}
		wanted := make([]subscription.Subscription, len(in.Body.Subscriptions))
		for i, w := range in.Body.Subscriptions {
			wanted[i] = subscription.Subscription{
				Topic: subscription.Topic(w.Topic), Channel: subscription.Channel(w.Channel), Mode: subscription.Mode(w.Mode),
			}
		}
		err = s.write(ctx, func(tx pgx.Tx) error {
			if err := subscription.Set(ctx, tx, child.Representative, child.ID, wanted, v.now); err != nil {
				return err
			}
			if err := s.setThreshold(ctx, tx, child, in.Body.Lower, false, "lower_threshold"); err != nil {
				return err
			}
			return s.setThreshold(ctx, tx, child, in.Body.Upper, true, "upper_threshold")
		})
		if err != nil {
			return WishesView{}, err
		}
		return s.wishesOf(ctx, child)
	})
}

func (s routes) wishesOf(ctx context.Context, child access.Child) (WishesView, error) {
	subscriptions, err := subscription.Of(ctx, s.pool, child.Representative, child.ID)
	if err != nil {
		return WishesView{}, err
	}
	view := WishesView{Subscriptions: make([]SubscriptionView, len(subscriptions))}
	for i, w := range subscriptions {
		view.Subscriptions[i] = SubscriptionView{string(w.Topic), string(w.Channel), string(w.Mode)}
	}
	thresholds, err := ledger.Thresholds(ctx, s.pool, []ledger.PersonID{child.ID})
	for _, t := range thresholds {
		switch {
		case t.Owner != int64(child.Representative):
		case t.Upward:
			view.Upper = &t.Amount
		default:
			view.Lower = &t.Amount
		}
	}
	return view, err
}

// setThreshold sets or removes one's own threshold.
func (s routes) setThreshold(ctx context.Context, tx pgx.Tx, child access.Child, amount *money.Amount, up bool, field string) error {
	owner := int64(child.Representative)
	if amount == nil {
		return ledger.RemoveThresholds(ctx, tx, []ledger.Threshold{{Person: child.ID, Owner: owner, Upward: up}})
	}
	if *amount > mostThreshold || *amount < -mostThreshold {
		return wrong(field, "is beyond "+mostThreshold.String())
	}
	return s.book.SetThreshold(ctx, tx, child.ID, owner, *amount, up)
}
