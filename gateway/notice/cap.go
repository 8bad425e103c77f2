package notice

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"zvonok/access"
	"zvonok/gateway/delivery"
	"zvonok/gateway/subscription"
	"zvonok/templates"
)

// limit gives each SMS its place of the phone's day (delivery.Desk.Places) and
// refuses what finds none. The first one says so. News that one message will tell
// takes one place together, and none where it joins a message that has its place
// and still waits.
func (t *Teller) limit(ctx context.Context, tx pgx.Tx, messages []*message, now time.Time) error {
	var (
		counted []*message
		uses    []delivery.Use
	)
	for _, m := range messages {
		c := m.members[0]
		if c.channel != subscription.SMS || m.joins != nil {
			m.decided(capStage, exempt)
			continue
		}
		use := delivery.Use{Address: c.address, Organisation: c.news.org, Topic: string(c.news.topic), Leaves: now}
		if c.notUntil.After(now) {
			use.Leaves = c.notUntil
		}
		counted, uses = append(counted, m), append(uses, use)
	}
	places, err := t.desk.Places(ctx, tx, uses)
	if err != nil {
		return err
	}
	for i, m := range counted {
		switch place := places[i]; {
		case m.members[0].news.always:
			m.decided(capStage, exempt)
		case place.First:
			m.capped = true
			m.decided(capStage, countOutcome(capNotice, place.Number, t.desk.SMSPerDay))
		case place.Held:
			m.decided(capStage, countOutcome(refused, place.Number, t.desk.SMSPerDay))
			for _, c := range m.members {
				c.reason = Capped
			}
		default:
			m.decided(capStage, countOutcome(passed, place.Number, t.desk.SMSPerDay))
		}
	}
	return nil
}

// cappedWorker looks after news that its next channel, SMS, did not take since the
// phone had had its number of them.
type cappedWorker struct {
	river.WorkerDefaults[delivery.Capped]
	teller *Teller
}

// Work does it for the messages of a job.
func (w *cappedWorker) Work(ctx context.Context, job *river.Job[delivery.Capped]) error {
	return w.teller.keepForDigest(ctx, job.Args.Messages)
}

// keepForDigest notes of news that was told by a channel that failed that the cap
// keeps it back, so that the digest of the day tells it whatever its reader wants
// (see recipients), and says so to the phones that have not been told. A repeated
// job finds the notices changed and says nothing.
func (t *Teller) keepForDigest(ctx context.Context, messages []delivery.CappedMessage) error {
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	var changed []string // topics
	err := pgx.BeginFunc(ctx, t.pool, func(tx pgx.Tx) error {
		now := t.now()
		kept, err := markCapped(ctx, tx, messages, now)
		if err != nil {
			return err
		}
		for _, topics := range kept {
			changed = append(changed, topics...)
		}
		var first []delivery.CappedMessage
		for _, m := range messages {
			if m.First && len(kept[m.Stored.ID]) > 0 && now.Before(m.Expires) {
				first = append(first, m)
			}
		}
		drafts, err := t.capNotices(ctx, tx, first)
		if err != nil {
			return err
		}
		_, err = t.desk.Enqueue(ctx, tx, now, drafts)
		return err
	})
	if err != nil {
		return fmt.Errorf("keep news for the digest: %w", err)
	}
	for _, topic := range changed {
		t.metrics.verdict(subscription.Topic(topic), Capped)
	}
	return nil
}

// markCapped changes the verdicts of notices and returns the topics of those of
// each message.
func markCapped(ctx context.Context, tx pgx.Tx, messages []delivery.CappedMessage, now time.Time) (map[delivery.ID][]string, error) {
	var (
		events, representatives, ids []int64
		channels, stages             []string
		ats                          []time.Time
	)
	for _, m := range messages {
		for _, event := range m.Events {
			events, representatives = append(events, int64(event)), append(representatives, int64(m.Representative))
			ids, ats, channels = append(ids, int64(m.Stored.ID)), append(ats, m.Stored.At), append(channels, string(m.Channel))
			o := countOutcome(refused, m.Number, m.Limit)
			if m.First {
				o = countOutcome(capNotice, m.Number, m.Limit)
			}
			stages = append(stages, fmt.Sprintf(" %s%s %sd", capStage, o, digestStage))
		}
	}
	rows, err := tx.Query(ctx, `
		UPDATE notice.notice AS n
		SET verdict = 'capped', decided_at = $1, stages = n.stages || m.stages
		FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::text[]) AS m (event, representative, id, channel, stages)
		WHERE n.event_id = m.event AND n.representative_id = m.representative AND n.channel = m.channel AND n.delivery_id = m.id
		  AND n.verdict = 'told' AND n.event_at BETWEEN $7 AND $8
		RETURNING n.delivery_id, n.topic`, now, events, representatives, ids, channels, stages,
		slices.MinFunc(ats, time.Time.Compare).Add(-noticeReach), slices.MaxFunc(ats, time.Time.Compare).Add(time.Hour))
	if err != nil {
		return nil, fmt.Errorf("note what is kept back: %w", err)
	}
	kept := map[delivery.ID][]string{}
	var (
		id    delivery.ID
		topic string
	)
	if _, err := pgx.ForEachRow(rows, []any{&id, &topic}, func() error { kept[id] = append(kept[id], topic); return nil }); err != nil {
		return nil, fmt.Errorf("note what is kept back: %w", err)
	}
	return kept, nil
}

// capNotices tells the readers of messages that their phones have had the day's
// number of SMS.
func (t *Teller) capNotices(ctx context.Context, tx pgx.Tx, messages []delivery.CappedMessage) ([]delivery.Draft, error) {
	if len(messages) == 0 {
		return nil, nil
	}
	var who []access.RepresentativeID
	for _, m := range messages {
		who = append(who, m.Representative)
	}
	rows, err := tx.Query(ctx, `SELECT id, phone, language, translit FROM access.representative WHERE id = ANY ($1)`, who)
	if err != nil {
		return nil, fmt.Errorf("read how people read: %w", err)
	}
	type person struct {
		phone string
		style templates.Style
	}
	people := map[access.RepresentativeID]person{}
	var (
		id access.RepresentativeID
		p  = person{style: templates.Style{Texts: t.texts()}}
	)
	if _, err := pgx.ForEachRow(rows, []any{&id, &p.phone, &p.style.Language, &p.style.Latin}, func() error {
		people[id] = p
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read how people read: %w", err)
	}
	var drafts []delivery.Draft
	for _, m := range messages {
		reader, ok := people[m.Representative]
		if !ok {
			continue // erased since
		}
		drafts = append(drafts, delivery.Draft{
			Event: m.Events[0], Representative: m.Representative, Organisation: m.Organisation, Topic: m.Topic,
			Channel: subscription.SMS, Address: reader.phone, Priority: m.Priority, Again: delivery.Fresh, Expires: m.Expires,
			NotBefore: m.NotBefore, Placed: true, Body: templates.Capped{}.SMS(reader.style),
		})
	}
	return drafts, nil
}
