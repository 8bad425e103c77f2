package notice

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/gateway/delivery"
)

// record writes what became of every candidate.
func record(ctx context.Context, tx pgx.Tx, candidates []*candidate, messages []*message, stored []delivery.Stored, now time.Time) error {
	place := map[*message]delivery.Stored{}
	i := 0
	for _, m := range messages {
		switch {
		case m.joins != nil:
			place[m] = m.joins.Stored
			m.decided(textStage, passed)
			m.decided(routeStage, passed)
		case m.open():
			place[m] = stored[i]
			m.decided(textStage, passed)
			if stored[i].NoRoute {
				m.decided(routeStage, refused)
			} else {
				m.decided(routeStage, passed)
			}
			i++
		}
	}
	var (
		events, children, representatives  []int64
		ats                                []time.Time
		topics, channels, verdicts, stages []string
		deliveries                         []*int64
		deliveryAts                        []*time.Time
	)
	for _, c := range candidates {
		events = append(events, int64(c.news.event))
		ats = append(ats, c.news.at)
		children = append(children, int64(c.news.child))
		representatives = append(representatives, int64(c.listener.Representative))
		topics = append(topics, string(c.news.topic))
		channels = append(channels, string(c.channel))
		verdict := cmp.Or(c.reason, Told)
		var (
			id *int64
			at *time.Time
		)
		if s, ok := place[c.group]; ok {
			id, at = new(int64(s.ID)), &s.At
			if c.group.capped {
				verdict = Capped
			}
		}
		verdicts = append(verdicts, string(verdict))
		stages = append(stages, strings.TrimSuffix(c.stages, " "))
		deliveries = append(deliveries, id)
		deliveryAts = append(deliveryAts, at)
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO notice.notice (event_id, event_at, child_id, representative_id, topic, channel, verdict, stages,
			delivery_id, delivery_at, decided_at)
		SELECT event_id, event_at, child_id, representative_id, topic, channel, verdict, stages, delivery_id, delivery_at, $1
		FROM unnest($2::bigint[], $3::timestamptz[], $4::bigint[], $5::bigint[], $6::text[], $7::text[], $8::text[],
			$9::text[], $10::bigint[], $11::timestamptz[])
			AS n (event_id, event_at, child_id, representative_id, topic, channel, verdict, stages, delivery_id, delivery_at)`,
		now, events, ats, children, representatives, topics, channels, verdicts, stages, deliveries, deliveryAts)
	if err != nil {
		return fmt.Errorf("record notices: %w", err)
	}
	return nil
}
