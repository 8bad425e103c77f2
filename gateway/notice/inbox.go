package notice

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/gateway/delivery"
	"zvonok/gateway/push"
	"zvonok/ledger"
	"zvonok/ledger/pg"
)

// Message is a message as its recipient reads it again, in the notification
// centre (R62).
type Message struct {
	delivery.Message
	// Children are of whom it tells.
	Children []ledger.PersonID
	// Withheld tells that the reader may no longer know of one of them: subject
	// and text are empty then (D14).
	Withheld bool
}

// noticeReach is how long before a message the facts may lie of which it tells.
const noticeReach = 8 * 24 * time.Hour

// Inbox returns a page of the messages that were sent to a representative at
// these addresses, newest first, and where the next page begins; its zero value
// is the end. A message is shown while its reader may know of every child it
// tells of. A digest does not say of whom it told: it is shown while its reader
// may know of every child he might know of when it was made.
func Inbox(ctx context.Context, q pg.Querier, who access.Representative, addresses []string, page delivery.InboxPage,
	now time.Time, limit int,
) ([]Message, delivery.InboxPage, error) {
	list, next, err := delivery.Inbox(ctx, q, who.ID, addresses, page, now, limit)
	if err != nil || len(list) == 0 {
		return nil, next, err
	}
	visible, err := access.ChildrenOf(ctx, q, who.Phone, now)
	if err != nil {
		return nil, next, err
	}
	may := make([]ledger.PersonID, len(visible))
	for i, child := range visible {
		may[i] = child.ID
	}
	var events []ledger.EventID
	var moments []time.Time // of digests
	for _, m := range list {
		events = append(events, m.Events...)
		if len(m.Events) == 0 {
			moments = append(moments, m.At)
		}
	}
	children, err := childrenOf(ctx, q, who.ID, events, list[len(list)-1].At.Add(-noticeReach), list[0].At.Add(time.Hour))
	if err != nil {
		return nil, next, err
	}
	known, err := access.KnownAt(ctx, q, who.ID, moments)
	if err != nil {
		return nil, next, err
	}
	messages := make([]Message, len(list))
	for i, m := range list {
		messages[i] = Message{Message: m}
		told := known[m.At]
		if len(m.Events) > 0 {
			told = nil
			for _, event := range m.Events {
				// An event without a record of whom it was about is shown to nobody.
				if len(children[event]) == 0 {
					messages[i].Withheld = true
				}
				told = append(told, children[event]...)
			}
		}
		slices.Sort(told)
		messages[i].Children = slices.Compact(told)
		if slices.ContainsFunc(messages[i].Children, func(c ledger.PersonID) bool { return !slices.Contains(may, c) }) {
			messages[i].Withheld = true
		}
		if messages[i].Withheld {
			messages[i].Subject, messages[i].Text, messages[i].Children = "", "", nil
		}
	}
	return messages, next, nil
}

const childrenOfEvents = `
	SELECT DISTINCT n.event_id, n.child_id
	  FROM notice.notice AS n
	 WHERE n.event_id = ANY ($2) AND n.representative_id = $1 AND n.event_at BETWEEN $3 AND $4`

// childrenOf returns about whom a representative was told by events.
func childrenOf(ctx context.Context, q pg.Querier, who access.RepresentativeID, events []ledger.EventID, from, to time.Time) (
	map[ledger.EventID][]ledger.PersonID, error,
) {
	children := map[ledger.EventID][]ledger.PersonID{}
	if len(events) == 0 {
		return children, nil
	}
	rows, err := q.Query(ctx, childrenOfEvents, who, events, from, to)
	if err != nil {
		return nil, fmt.Errorf("read of whom messages tell: %w", err)
	}
	var event ledger.EventID
	var child ledger.PersonID
	if _, err := pgx.ForEachRow(rows, []any{&event, &child}, func() error {
		children[event] = append(children[event], child)
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read of whom messages tell: %w", err)
	}
	return children, nil
}

// Silence keeps what has not been sent of a child from those of its
// representatives who may no longer know of it, at the moment of a withdrawal or
// an exclusion and in its transaction (D14, D12). A message that tells of a
// sibling too, and a digest, are kept back whole.
func Silence(ctx context.Context, tx pgx.Tx, child ledger.PersonID, now time.Time) error {
	audience, err := access.Audience(ctx, tx, []ledger.PersonID{child}, now)
	if err != nil {
		return err
	}
	for _, l := range audience { // a child has a handful
		if l.Verdict == access.Yes {
			continue
		}
		unsent, err := delivery.UnsentTo(ctx, tx, l.Representative, []string{string(l.Phone), l.Email, push.Address(l.Representative)}, now)
		if err != nil {
			return err
		}
		if len(unsent) == 0 {
			continue
		}
		var events []ledger.EventID
		for _, u := range unsent {
			events = append(events, u.Events...)
		}
		children, err := childrenOf(ctx, tx, l.Representative, events, unsent[0].At.Add(-noticeReach), now.Add(time.Hour))
		if err != nil {
			return err
		}
		var stop []delivery.Stored
		for _, u := range unsent {
			if len(u.Events) == 0 || slices.ContainsFunc(u.Events, func(e ledger.EventID) bool {
				return slices.Contains(children[e], child)
			}) {
				stop = append(stop, u.Stored)
			}
		}
		if err := delivery.Withhold(ctx, tx, stop, string(l.Verdict), now); err != nil {
			return err
		}
	}
	return nil
}
