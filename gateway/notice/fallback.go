package notice

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/gateway/delivery"
	"zvonok/gateway/subscription"
)

// fallback gives each candidate the channel that follows in its recipient's
// order (D2). Where the wanted channel has no address, has been opted out of or
// is dead, the next one takes over at once; where it is open, the message has a
// spare for it. A channel by which the recipient hears of the fact anyway is no
// fall-back.
func fallback(ctx context.Context, tx pgx.Tx, candidates []*candidate, now time.Time) ([]*candidate, error) {
	var who []access.RepresentativeID
	for _, c := range candidates {
		if c.channel != "" && (c.open() || c.barred()) {
			who = append(who, c.listener.Representative)
		}
	}
	if len(who) == 0 {
		return candidates, nil
	}
	slices.Sort(who)
	orders, err := subscription.Fallbacks(ctx, tx, slices.Compact(who))
	if err != nil || len(orders) == 0 {
		return candidates, err
	}
	var byPush []access.RepresentativeID
	for id, order := range orders {
		if slices.ContainsFunc(order, func(s subscription.Step) bool { return s.Channel == subscription.Push }) {
			byPush = append(byPush, id)
		}
	}
	if err := findBrowsers(ctx, tx, byPush, candidates); err != nil {
		return nil, err
	}
	takes, err := takers(ctx, tx, candidates, orders)
	if err != nil {
		return nil, err
	}
	type told struct {
		news    *news
		who     access.RepresentativeID
		channel subscription.Channel
	}
	taken := map[told]bool{}
	for _, c := range candidates {
		taken[told{c.news, c.listener.Representative, c.channel}] = true
	}
	var substitutes []*candidate
	for _, c := range candidates {
		if c.channel == "" || !c.open() && !c.barred() {
			continue
		}
		next := nextStep(c.listener, orders[c.listener.Representative], c.channel, takes)
		if next == nil || taken[told{c.news, c.listener.Representative, next.channel}] {
			continue
		}
		c.decided(fallbackStage, nextOutcome(next.channel))
		if c.open() {
			c.next = next
			continue
		}
		taken[told{c.news, c.listener.Representative, next.channel}] = true
		substitute := *c
		substitute.reason, substitute.channel, substitute.address = "", next.channel, next.address
		substitute.stages = c.upTo(addressStage)
		substitute.decided(addressStage, passed)
		substitute.decided(fallbackStage, insteadOutcome(c.channel))
		substitutes = append(substitutes, &substitute)
	}
	fresh(substitutes, now)
	quiet(substitutes, now)
	if err := health(ctx, tx, substitutes); err != nil {
		return nil, err
	}
	return append(candidates, substitutes...), nil
}

// barred reports that a candidate was refused because of its address alone.
func (c *candidate) barred() bool {
	return c.reason == NoAddress || c.reason == OptedOut || c.reason == Unreachable || c.reason == Unconfirmed
}

// takers says which addresses of orders take messages: of whom it depends which
// channel is the next.
func takers(
	ctx context.Context, tx pgx.Tx, candidates []*candidate, orders map[access.RepresentativeID][]subscription.Step,
) (func(subscription.Channel, string) bool, error) {
	addresses := map[subscription.Channel][]string{}
	for _, c := range candidates {
		for _, s := range orders[c.listener.Representative] {
			if address := addressOf(c.listener, s.Channel); address != "" {
				addresses[s.Channel] = append(addresses[s.Channel], address)
			}
		}
	}
	health := map[subscription.Channel]map[string]delivery.Health{}
	for channel, list := range addresses {
		var err error
		if health[channel], err = delivery.HealthOf(ctx, tx, channel, list); err != nil {
			return nil, err
		}
	}
	return func(channel subscription.Channel, address string) bool {
		h := health[channel][address]
		return !h.OptedOut && !h.Suppressed && !h.Doubted
	}, nil
}

// nextStep is the first channel after one in an order that reaches the listener.
func nextStep(
	l listener, order []subscription.Step, after subscription.Channel, takes func(subscription.Channel, string) bool,
) *step {
	patience := subscription.DefaultPatience
	if i := slices.IndexFunc(order, func(s subscription.Step) bool { return s.Channel == after }); i >= 0 {
		patience = order[i].Patience
	}
	for {
		next, ok := subscription.Next(order, after)
		if !ok {
			return nil
		}
		if address := addressOf(l, next.Channel); address != "" && takes(next.Channel, address) {
			return &step{next.Channel, address, patience}
		}
		after = next.Channel
	}
}
