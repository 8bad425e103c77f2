package notice

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/gateway/delivery"
	"zvonok/gateway/subscription"
)

// limit counts the messages of each phone and day and refuses those over the
// cap. The message that reaches it says so. News that one message will tell takes
// one place together, and none where it joins a message that has its place and
// still waits.
func (t *Teller) limit(ctx context.Context, tx pgx.Tx, messages []*message, now time.Time) error {
	type key struct {
		day     time.Time
		address string
	}
	var order []key
	perPhone := map[key][]*message{}
	for _, m := range messages {
		c := m.members[0]
		if c.channel != subscription.SMS || m.joins != nil || c.news.always {
			m.decided(capStage, exempt)
			continue
		}
		local := now.In(c.news.zone)
		k := key{time.Date(local.Year(), local.Month(), local.Day(), 0, 0, 0, 0, time.UTC), c.address}
		if _, seen := perPhone[k]; !seen {
			order = append(order, k)
		}
		perPhone[k] = append(perPhone[k], m)
	}
	uses := make([]delivery.Use, 0, len(order))
	for _, k := range order {
		uses = append(uses, delivery.Use{Day: k.day, Address: k.address, Count: len(perPhone[k])})
	}
	totals, err := delivery.Spend(ctx, tx, subscription.SMS, uses)
	if err != nil {
		return err
	}
	for i, k := range order {
		before := totals[i] - len(perPhone[k])
		for n, m := range perPhone[k] {
			switch place := before + n + 1; {
			case place == t.perDay+1:
				// The first one over the cap is replaced by the word that the rest
				// will be in the digest.
				m.capped = true
				m.decided(capStage, countOutcome(capNotice, place, t.perDay))
			case place > t.perDay:
				m.decided(capStage, countOutcome(refused, place, t.perDay))
				for _, c := range m.members {
					c.reason = Capped
				}
			default:
				m.decided(capStage, countOutcome(passed, place, t.perDay))
			}
		}
	}
	return nil
}
