package notice

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/gateway/delivery"
	"zvonok/gateway/push"
	"zvonok/gateway/subscription"
	"zvonok/ledger"
)

// listeners makes a candidate of every fact and everybody who is or was to know
// of the child.
func listeners(ctx context.Context, tx pgx.Tx, facts []news, now time.Time) ([]*candidate, error) {
	children := make([]ledger.PersonID, 0, len(facts))
	for i := range facts {
		children = append(children, facts[i].child)
	}
	slices.Sort(children)
	audience, err := access.Audience(ctx, tx, slices.Compact(children), now)
	if err != nil {
		return nil, err
	}
	byChild := map[ledger.PersonID][]access.Listener{}
	for _, l := range audience {
		byChild[l.Child] = append(byChild[l.Child], l)
	}
	var candidates []*candidate
	for i := range facts {
		n := &facts[i]
		heard := false
		for _, l := range byChild[n.child] {
			if n.only != 0 && n.only != l.Representative || n.always && l.Role != access.Legal {
				continue
			}
			c := &candidate{news: n, listener: listener{Listener: l}}
			c.admit()
			candidates = append(candidates, c)
			heard = true
		}
		if !heard {
			nobody := &candidate{news: n}
			nobody.refuse(rightStage, NoListener)
			candidates = append(candidates, nobody)
		}
	}
	return candidates, nil
}

// admit asks whether there is a consent to such news, and whether the listener
// has the right to know.
func (c *candidate) admit() {
	switch l := c.listener; {
	case l.Verdict == access.NotRepresentative: // asked before the consent, see access.rights
		c.refuse(rightStage, NotRepresentative)
	case l.Verdict == access.Removed || l.Verdict == access.Expired:
		c.decided(consentStage, passed)
		c.refuse(rightStage, Reason(l.Verdict))
	case l.Verdict != access.Yes:
		c.refuse(consentStage, Reason(l.Verdict))
	case !delivery.Covered(string(c.news.topic), l.Visits, l.Meals):
		c.refuse(consentStage, NotConsented)
	default:
		c.decided(consentStage, passed)
		c.decided(rightStage, outcome(l.Role))
	}
}

// wishes gives each open candidate its channels: one candidate per channel
// wanted now, or a refusal.
func wishes(ctx context.Context, tx pgx.Tx, candidates []*candidate) ([]*candidate, error) {
	type wish struct {
		child          ledger.PersonID
		representative access.RepresentativeID
	}
	children := map[subscription.Topic][]ledger.PersonID{}
	for _, c := range candidates {
		if c.open() && !c.news.always {
			children[c.news.wanted()] = append(children[c.news.wanted()], c.news.child)
		}
	}
	wanted := map[subscription.Topic]map[wish][]subscription.Channel{}
	var byPush []access.RepresentativeID
	for topic, list := range children {
		slices.Sort(list)
		found, err := subscription.Wishes(ctx, tx, slices.Compact(list), topic, subscription.Now)
		if err != nil {
			return nil, err
		}
		wanted[topic] = map[wish][]subscription.Channel{}
		for _, w := range found {
			key := wish{w.Child, w.Representative}
			wanted[topic][key] = append(wanted[topic][key], w.Channel)
			if w.Channel == subscription.Push {
				byPush = append(byPush, w.Representative)
			}
		}
	}
	for _, c := range candidates {
		if c.open() && c.news.always {
			byPush = append(byPush, c.listener.Representative)
		}
	}
	if err := findBrowsers(ctx, tx, byPush, candidates); err != nil {
		return nil, err
	}
	result := make([]*candidate, 0, len(candidates))
	for _, c := range candidates {
		if !c.open() {
			result = append(result, c)
			continue
		}
		channels := wanted[c.news.wanted()][wish{c.news.child, c.listener.Representative}]
		if c.news.always {
			channels = alarmChannels(c.listener)
		}
		if len(channels) == 0 {
			c.refuse(subscriptionStage, NotSubscribed)
			result = append(result, c)
			continue
		}
		if c.news.always {
			c.decided(subscriptionStage, always)
		} else {
			c.decided(subscriptionStage, passed)
		}
		for _, channel := range channels {
			one := *c
			one.channel = channel
			one.address = addressOf(c.listener, channel)
			if one.address == "" {
				one.refuse(addressStage, NoAddress)
			} else {
				one.decided(addressStage, passed)
			}
			result = append(result, &one)
		}
	}
	return result, nil
}

// findBrowsers notes which of some recipients have a browser to show a push
// message in.
func findBrowsers(ctx context.Context, tx pgx.Tx, who []access.RepresentativeID, candidates []*candidate) error {
	reachable, err := push.Reachable(ctx, tx, who)
	if err != nil {
		return err
	}
	for _, c := range candidates {
		c.listener.browser = c.listener.browser || reachable[c.listener.Representative]
	}
	return nil
}

// addressOf is where a listener is reached by a channel, "" for nowhere.
func addressOf(l listener, channel subscription.Channel) string {
	switch {
	case channel == subscription.SMS:
		return string(l.Phone)
	case channel == subscription.Email:
		return l.Email
	case channel == subscription.Push && l.browser:
		return push.Address(l.Representative)
	default:
		return ""
	}
}

// health refuses addresses that opted out or are dead.
func health(ctx context.Context, tx pgx.Tx, candidates []*candidate) error {
	addresses := map[subscription.Channel][]string{}
	for _, c := range candidates {
		if c.open() {
			addresses[c.channel] = append(addresses[c.channel], c.address)
		}
	}
	for channel, list := range addresses {
		slices.Sort(list)
		state, err := delivery.HealthOf(ctx, tx, channel, slices.Compact(list))
		if err != nil {
			return err
		}
		for _, c := range candidates {
			if !c.open() || c.channel != channel {
				continue
			}
			switch h := state[c.address]; {
			case h.OptedOut:
				c.refuse(healthStage, OptedOut)
			case h.Suppressed:
				c.refuse(healthStage, Unreachable)
			case h.Doubted:
				c.refuse(healthStage, Unconfirmed)
			default:
				c.decided(healthStage, passed)
			}
		}
	}
	return nil
}
