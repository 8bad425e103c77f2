package notice

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access/door"
	"zvonok/gateway/carrier"
	"zvonok/gateway/delivery"
	"zvonok/gateway/subscription"
	"zvonok/templates"
)

// Alarm is the topic of alarms (D10). Nobody subscribes to it: it goes to every
// legal representative, by SMS, e-mail and push at once.
const Alarm subscription.Topic = "alarm"

// Limits of alarms.
const (
	alarmLife  = 12 * time.Hour // late is better than never, until the child has slept on it
	alarmAgain = "10 minutes"   // the same child's next alarm within this time says nothing new
)

// alarmChannels are the channels of an alarm: all that reach the listener, since
// it cannot wait for the proof that one of them worked.
func alarmChannels(l listener) []subscription.Channel {
	channels := []subscription.Channel{subscription.SMS}
	for _, channel := range []subscription.Channel{subscription.Email, subscription.Push} {
		if addressOf(l, channel) != "" {
			channels = append(channels, channel)
		}
	}
	return channels
}

// alarmNews reads the alarms of a job's passes that have not been told: a
// kindergarten child left without a listed companion. They are never deferred;
// one that comes late, because the reader had no network, is told all the same.
func (t *Teller) alarmNews(ctx context.Context, tx pgx.Tx, job door.Passed) ([]news, error) {
	rows, err := tx.Query(ctx, `
		SELECT a.event_id, a.at, a.person_id, o.id, child.given_name, child.family_name, o.time_zone
		FROM door.alarm AS a
		JOIN ledger.person AS child ON child.id = a.person_id
		JOIN ledger.organisation AS o ON o.id = a.organisation_id
		WHERE a.event_id = ANY ($1) AND child.kind = 'pupil'
		  AND NOT EXISTS (SELECT FROM door.alarm AS e
		                  WHERE e.organisation_id = a.organisation_id AND e.person_id = a.person_id AND e.event_id < a.event_id
		                    AND e.at BETWEEN a.at - $2::interval AND a.at)
		  AND NOT EXISTS (SELECT FROM notice.notice AS n
		                  WHERE n.event_id = a.event_id AND n.event_at = a.at AND n.topic = $3)
		ORDER BY a.event_id`, job.EventIDs, alarmAgain, Alarm)
	if err != nil {
		return nil, fmt.Errorf("read alarms to tell: %w", err)
	}
	facts, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (news, error) {
		n := news{topic: Alarm, priority: carrier.Urgent, again: delivery.Fresh, always: true}
		var (
			w    alarmWords
			zone string
		)
		if err := row.Scan(&n.event, &n.at, &n.child, &n.org, &w.child.Given, &w.child.Family, &zone); err != nil {
			return n, err
		}
		var err error
		n.zone, err = t.zones.load(zone)
		if err != nil {
			return n, err
		}
		n.expires = n.at.Add(alarmLife)
		w.at = n.at.In(n.zone)
		n.words = w
		return n, nil
	})
	if err != nil {
		return nil, fmt.Errorf("read alarms to tell: %w", err)
	}
	return facts, nil
}

// alarmWords is the text of an alarm.
type alarmWords struct {
	child templates.Name
	at    time.Time
}

func (w alarmWords) message(to reader, _ []words) (string, *delivery.Letter) {
	m := templates.Alarm{Child: w.child, At: w.at}
	if to.channel == subscription.Email {
		m.Links = to.links
		return "", letter(m.Mail(to.style.Language))
	}
	return m.SMS(to.style), nil
}
