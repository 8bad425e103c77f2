package delivery

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/ledger"
)

// joinWindow is how far back a message may lie that a sibling's news joins:
// longer than any pass is news.
const joinWindow = time.Hour

// Ask asks for a message of a family to a phone that has not been sent yet.
type Ask struct {
	Representative access.RepresentativeID
	Address        string // digits of the phone
	Family         string
}

// Waiting is a message that is still waiting to be sent for the first time. Its
// row is locked until the end of the caller's transaction.
type Waiting struct {
	Stored
	Events []ledger.EventID // of which it tells, the first one first
	Spare  bool             // it has a spare, which tells of the same
}

// FindWaiting finds for each ask the youngest SMS of that family that still
// waits, nil for none, and locks it. A message that is being taken by its link
// at this moment is not waited for.
func FindWaiting(ctx context.Context, tx pgx.Tx, now time.Time, asks []Ask) ([]*Waiting, error) {
	found := make([]*Waiting, len(asks))
	if len(asks) == 0 {
		return found, nil
	}
	representatives, addresses, families := make([]int64, len(asks)), make([]string, len(asks)), make([]string, len(asks))
	for i, ask := range asks {
		representatives[i], addresses[i], families[i] = int64(ask.Representative), ask.Address, ask.Family
	}
	rows, err := tx.Query(ctx, `
		SELECT a.place, w.id, w.at, w.event_id, w.joined, w.spare
		FROM unnest($1::bigint[], $2::text[], $3::text[]) WITH ORDINALITY AS a (representative, address, family, place)
		CROSS JOIN LATERAL (
			SELECT d.id, d.at, d.event_id, d.joined, d.spare
			FROM delivery.delivery AS d
			WHERE d.address = a.address AND d.at BETWEEN $4 AND $5 AND d.family = a.family AND d.channel = 'sms'
			  AND d.representative_id = a.representative AND d.state = 'queued' AND d.attempt = 0 AND d.expires_at > $5
			ORDER BY d.at DESC LIMIT 1
			FOR UPDATE SKIP LOCKED
		) AS w`, representatives, addresses, families, now.Add(-joinWindow), now)
	if err != nil {
		return nil, fmt.Errorf("find waiting messages: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var (
			place  int
			w      Waiting
			first  ledger.EventID
			joined []ledger.EventID
		)
		if err := rows.Scan(&place, &w.ID, &w.At, &first, &joined, &w.Spare); err != nil {
			return nil, fmt.Errorf("find waiting messages: %w", err)
		}
		w.Events = append([]ledger.EventID{first}, joined...)
		found[place-1] = &w
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("find waiting messages: %w", err)
	}
	return found, nil
}

// Extension makes a waiting message tell of more events.
type Extension struct {
	Stored
	Events   []ledger.EventID  // the new ones
	Children []ledger.PersonID // of whom they are
	Body     string
	Spare    *Spare // the new content of its spare, when it has one
}

// joinIDs writes a list of ids as one text, since a batch's lists of different
// lengths are no array.
func joinIDs[T ~int64](ids []T) string {
	var text []byte
	for i, id := range ids {
		if i > 0 {
			text = append(text, ',')
		}
		text = strconv.AppendInt(text, int64(id), 10)
	}
	return string(text)
}

// Extend rewrites messages that FindWaiting has found in the same transaction.
func Extend(ctx context.Context, tx pgx.Tx, extensions []Extension) error {
	if len(extensions) == 0 {
		return nil
	}
	var (
		ids            []int64
		ats            []time.Time
		bodies, events []string
		children       []string
		spares         spareColumns
		spareAts       []time.Time
	)
	for _, e := range extensions {
		ids, ats, bodies = append(ids, int64(e.ID)), append(ats, e.At), append(bodies, e.Body)
		events, children = append(events, joinIDs(e.Events)), append(children, joinIDs(e.Children))
		if e.Spare != nil {
			spares.add(e.ID, *e.Spare)
			spareAts = append(spareAts, e.At)
		}
	}
	if _, err := tx.Exec(ctx, `
		UPDATE delivery.delivery AS d
		SET body = e.body, joined = d.joined || string_to_array(e.events, ',')::bigint[],
		    children = d.children || string_to_array(e.children, ',')::bigint[]
		FROM unnest($1::bigint[], $2::timestamptz[], $3::text[], $4::text[], $5::text[]) AS e (id, at, body, events, children)
		WHERE d.id = e.id AND d.at = e.at AND d.at BETWEEN $6 AND $7 AND d.state = 'queued'`,
		ids, ats, bodies, events, children, slices.MinFunc(ats, time.Time.Compare), slices.MaxFunc(ats, time.Time.Compare)); err != nil {
		return fmt.Errorf("extend waiting messages: %w", err)
	}
	if len(spareAts) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, `
		UPDATE delivery.spare AS s
		SET body = e.body, subject = e.subject, text_body = e.text_body, html_body = e.html_body
		FROM unnest($1::bigint[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::text[])
			AS e (id, at, body, subject, text_body, html_body)
		WHERE s.delivery_id = e.id AND s.at = e.at AND s.taken_at IS NULL`,
		spares.ids, spareAts, spares.bodies, spares.subjects, spares.textBodies, spares.htmlBody); err != nil {
		return fmt.Errorf("extend the spares of waiting messages: %w", err)
	}
	return nil
}
