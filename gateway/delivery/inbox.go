package delivery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/ledger"
	"zvonok/ledger/pg"
)

// private are the topics of messages that no list shows again: codes are
// secrets, and answers were asked for.
var private = []string{"code", "reply"}

// inboxReach is how far before its first message a page of an inbox may reach:
// what bounds the partitions that are opened.
const inboxReach = 400 * 24 * time.Hour

// Message is a message as its recipient reads it again.
type Message struct {
	Stored
	Events  []ledger.EventID // of which it tells; none for a digest or a service message
	Topic   string
	Channel string
	State   State
	Subject string // of a letter
	Text    string // empty once it has been destroyed
	// SettledAt is when it was delivered or given up; zero while neither.
	SettledAt time.Time
}

// InboxPage says where a page begins: the zero InboxPage is the newest message.
type InboxPage Stored

// String writes the place for a link; [ParseInboxPage] reads it.
func (p InboxPage) String() string {
	if p.At.IsZero() {
		return ""
	}
	return fmt.Sprintf("%d.%d", p.At.UnixMicro(), p.ID)
}

// ParseInboxPage reads what String has written; the empty text is the newest page.
func ParseInboxPage(text string) (InboxPage, error) {
	if text == "" {
		return InboxPage{}, nil
	}
	at, id, found := strings.Cut(text, ".")
	micros, err := strconv.ParseInt(at, 10, 64)
	number, more := strconv.ParseInt(id, 10, 64)
	p := InboxPage{ID: ID(number), At: time.UnixMicro(micros)}
	if !found || err != nil || more != nil || p.At.Year() < 2000 || p.At.Year() > 9999 {
		return InboxPage{}, errors.New("not a place in an inbox")
	}
	return p, nil
}

const inbox = `
	SELECT d.id, d.at, d.event_id, d.joined, d.topic, d.channel, d.state, coalesce(l.subject, ''),
	       coalesce(l.text_body, d.body), d.settled_at
	  FROM (SELECT m.*
	          FROM unnest($2::text[]) AS a (address)
	         CROSS JOIN LATERAL (
	               SELECT * FROM delivery.delivery AS d
	                WHERE d.address = a.address AND d.at <= $3 AND d.at > $5 AND (d.at, d.id) < ($3, $4)
	                  AND d.representative_id = $1 AND d.topic <> ALL ($7)
	                ORDER BY d.at DESC, d.id DESC
	                LIMIT $6) AS m
	         ORDER BY m.at DESC, m.id DESC
	         LIMIT $6) AS d
	  LEFT JOIN delivery.letter AS l ON d.channel = 'email' AND l.delivery_id = d.id AND l.at = d.at
	 ORDER BY d.at DESC, d.id DESC`

// Inbox returns a page of what was sent to a representative at these addresses,
// newest first, and where the next page begins; its zero value is the end.
// Whether the reader may still know of the children is the caller's question.
func Inbox(ctx context.Context, q pg.Querier, who access.RepresentativeID, addresses []string, page InboxPage, now time.Time,
	limit int,
) ([]Message, InboxPage, error) {
	if page.At.IsZero() {
		page = InboxPage{At: now.Add(time.Hour)} // a clock of another process may be ahead
	}
	rows, err := q.Query(ctx, inbox, who, addresses, page.At, page.ID, page.At.Add(-inboxReach), limit, private)
	if err != nil {
		return nil, InboxPage{}, fmt.Errorf("read the messages of representative %d: %w", who, err)
	}
	messages, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Message, error) {
		var m Message
		var event ledger.EventID
		var settled *time.Time
		err := row.Scan(&m.ID, &m.At, &event, &m.Events, &m.Topic, &m.Channel, &m.State, &m.Subject, &m.Text, &settled)
		if event != 0 {
			m.Events = append([]ledger.EventID{event}, m.Events...)
		}
		if settled != nil {
			m.SettledAt = *settled
		}
		return m, err
	})
	if err != nil {
		return nil, InboxPage{}, fmt.Errorf("read the messages of representative %d: %w", who, err)
	}
	if len(messages) < limit {
		return messages, InboxPage{}, nil
	}
	return messages, InboxPage(messages[len(messages)-1].Stored), nil
}

// Unsent is a message that has not reached its recipient for certain and could
// still be sent, once more, by the next channel, or when it is replayed.
type Unsent struct {
	Stored
	Events []ledger.EventID // of which it tells; none for a digest
}

// UnsentTo finds and locks the unsent messages of the last two days to a
// representative at these addresses. Two days are longer than any message lives.
func UnsentTo(ctx context.Context, tx pgx.Tx, who access.RepresentativeID, addresses []string, now time.Time) (
	[]Unsent, error,
) {
	rows, err := tx.Query(ctx, `
		SELECT d.id, d.at, d.event_id, d.joined
		  FROM delivery.delivery AS d
		 WHERE d.address = ANY ($1) AND d.at > $2 AND d.representative_id = $3 AND d.topic <> ALL ($4)
		   AND (d.state IN ('queued', 'sending', 'unknown', 'failed') OR d.spare AND d.state IN ('sent', 'partial'))
		   AND NOT d.recalled
		 ORDER BY d.at, d.id
		   FOR UPDATE OF d`, addresses, now.Add(-longestLife), who, private)
	if err != nil {
		return nil, fmt.Errorf("find what waits for representative %d: %w", who, err)
	}
	unsent, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Unsent, error) {
		var u Unsent
		var event ledger.EventID
		err := row.Scan(&u.ID, &u.At, &event, &u.Events)
		if event != 0 {
			u.Events = append([]ledger.EventID{event}, u.Events...)
		}
		return u, err
	})
	if err != nil {
		return nil, fmt.Errorf("find what waits for representative %d: %w", who, err)
	}
	return unsent, nil
}

// Withhold keeps messages from being sent from now on: what is queued is
// recalled, what is on its way is neither sent again nor by another channel.
func Withhold(ctx context.Context, tx pgx.Tx, stored []Stored, reason string, now time.Time) error {
	if len(stored) == 0 {
		return nil
	}
	ids, ats := make([]int64, len(stored)), make([]time.Time, len(stored))
	for i, s := range stored {
		ids[i], ats[i] = int64(s.ID), s.At
	}
	if _, err := tx.Exec(ctx, `
		UPDATE delivery.delivery AS d
		   SET recalled = true,
		       state = CASE WHEN d.state = 'queued' THEN 'recalled' ELSE d.state END,
		       reason = CASE WHEN d.state = 'queued' THEN $3 ELSE d.reason END,
		       settled_at = CASE WHEN d.state = 'queued' THEN $4 ELSE d.settled_at END
		  FROM unnest($1::bigint[], $2::timestamptz[]) AS w (id, at)
		 WHERE d.id = w.id AND d.at = w.at AND d.at >= $5`, ids, ats, reason, now, slices.MinFunc(ats, time.Time.Compare)); err != nil {
		return fmt.Errorf("withhold %d messages: %w", len(stored), err)
	}
	return nil
}
