package delivery

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"zvonok/gateway/subscription"
)

// Spare is the same message in the form of the recipient's next channel. It is
// rendered and stored together with the message it stands in for, so that the
// fall-back needs nobody who knows the words.
type Spare struct {
	Channel subscription.Channel
	Address string
	// Patience is how long an SMS may be without the proof of its delivery.
	Patience time.Duration
	Body     string
	Letter   *Letter // for channel email
}

// FallbackArgs looks at messages of which nothing may have been heard for the
// recipient's patience.
type FallbackArgs struct {
	At  time.Time `json:"at"`
	IDs []ID      `json:"ids"`
}

// Kind names the job in River.
func (FallbackArgs) Kind() string { return "fallback" }

// spareColumns gathers rows of delivery.spare.
type spareColumns struct {
	ids                            []int64
	channels, addresses, bodies    []string
	patience                       []time.Duration
	subjects, textBodies, htmlBody []*string
	threads                        []string
}

func (c *spareColumns) add(id ID, s Spare) {
	c.ids = append(c.ids, int64(id))
	c.channels = append(c.channels, string(s.Channel))
	c.addresses = append(c.addresses, s.Address)
	c.bodies = append(c.bodies, s.Body)
	c.patience = append(c.patience, s.Patience)
	var subject, text, html *string
	thread := ""
	if s.Letter != nil {
		thread = s.Letter.Thread
		subject, text, html = &s.Letter.Subject, &s.Letter.Text, &s.Letter.HTML
	}
	c.subjects = append(c.subjects, subject)
	c.textBodies = append(c.textBodies, text)
	c.htmlBody = append(c.htmlBody, html)
	c.threads = append(c.threads, thread)
}

func (c *spareColumns) insert(ctx context.Context, tx pgx.Tx, now time.Time) error {
	if len(c.ids) == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO delivery.spare (delivery_id, at, channel, address, patience, body, subject, text_body, html_body, thread)
		SELECT id, $1, channel, address, patience, body, subject, text_body, html_body, thread
		FROM unnest($2::bigint[], $3::text[], $4::text[], $5::interval[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[])
			AS r (id, channel, address, patience, body, subject, text_body, html_body, thread)`,
		now, c.ids, c.channels, c.addresses, c.patience, c.bodies, c.subjects, c.textBodies, c.htmlBody, c.threads)
	if err != nil {
		return fmt.Errorf("store spares: %w", err)
	}
	return nil
}

// watchList groups messages by the moment at which somebody looks whether they
// have arrived.
type watchList struct{ ids map[time.Time][]ID }

func (w *watchList) add(id ID, d Draft, now time.Time) {
	from := now
	if d.NotBefore.After(now) {
		from = d.NotBefore
	}
	at := from.Add(d.Spare.Patience)
	if !at.Before(d.Expires) {
		return // by then it is no news any more
	}
	if w.ids == nil {
		w.ids = map[time.Time][]ID{}
	}
	w.ids[at] = append(w.ids[at], id)
}

func (w *watchList) params(now time.Time) []river.InsertManyParams {
	var params []river.InsertManyParams
	for at, ids := range w.ids {
		params = append(params, river.InsertManyParams{
			Args:       FallbackArgs{At: now, IDs: ids},
			InsertOpts: &river.InsertOpts{Queue: ResolveQueue, ScheduledAt: at},
		})
	}
	return params
}

// fallBack sends messages that failed, or of which nothing was heard, by the
// next channel of their recipients: once, within their life, and not in the quiet
// hours, where the news keeps them (D7): it lives on from their end. An SMS takes
// its place of the phone's day, or stays away (see [Desk.Places]). Taking the spare
// and storing what it becomes are one transaction. Messages without a spare, and a
// nil Desk, do nothing.
//
// It comes after what the transaction has to say of addresses: the counts of
// phones are locked last, lest two transactions wait for each other.
func (d *Desk) fallBack(ctx context.Context, tx pgx.Tx, now time.Time, lost []rowKey) error {
	if d == nil || len(lost) == 0 {
		return nil
	}
	ids, ats := split(lost)
	rows, err := tx.Query(ctx, `
		UPDATE delivery.spare AS s
		SET taken_at = $1
		FROM unnest($2::bigint[], $3::timestamptz[]) AS k (id, at)
		JOIN delivery.delivery AS d ON d.id = k.id AND d.at = k.at
		LEFT JOIN ledger.organisation AS o ON o.id = d.organisation_id AND d.topic IN `+quietTopics+`
		CROSS JOIN LATERAL (SELECT $1::timestamptz AT TIME ZONE o.time_zone AS now) AS l
		WHERE s.delivery_id = k.id AND s.at = k.at AND s.at BETWEEN $4 AND $5 AND s.taken_at IS NULL
		  AND d.spare AND NOT d.recalled AND d.state <> 'delivered' AND d.expires_at > $1
		RETURNING d.id, d.at, d.channel, d.event_id, d.joined, d.children, coalesce(d.representative_id, 0), coalesce(d.organisation_id, 0), d.topic,
			d.priority, d.again, d.expires_at, s.channel, s.address, s.body,
			s.subject IS NOT NULL, coalesce(s.subject, ''), coalesce(s.text_body, ''), coalesce(s.html_body, ''), s.thread,`+quietEnd,
		now, ids, ats, slices.MinFunc(ats, time.Time.Compare), slices.MaxFunc(ats, time.Time.Compare))
	if err != nil {
		return fmt.Errorf("take spares: %w", err)
	}
	spares, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (lostSpare, error) {
		var (
			l         lostSpare
			draft     = &l.draft
			letter    Letter
			hasLetter bool
			quiet     *time.Time // until then
		)
		err := row.Scan(&l.from.id, &l.from.at, &l.channel, &draft.Event, &draft.Joined, &draft.Children, &draft.Representative,
			&draft.Organisation, &draft.Topic, &draft.Priority, &draft.Again, &draft.Expires, &draft.Channel, &draft.Address, &draft.Body,
			&hasLetter, &letter.Subject, &letter.Text, &letter.HTML, &letter.Thread, &quiet)
		if hasLetter {
			draft.Letter = &letter
		}
		if quiet != nil {
			draft.NotBefore = *quiet
			if longer := quiet.Add(draft.Expires.Sub(now)); longer.After(draft.Expires) {
				draft.Expires = longer
			}
		}
		return l, err
	})
	if err != nil {
		return fmt.Errorf("take spares: %w", err)
	}
	if spares, err = entitled(ctx, tx, spares, now); err != nil {
		return err
	}
	if spares, err = willing(ctx, tx, spares); err != nil {
		return err
	}
	if spares, err = d.keepWithin(ctx, tx, now, spares); err != nil || len(spares) == 0 {
		return err
	}
	drafts := make([]Draft, len(spares))
	ids, ats = make([]int64, len(spares)), make([]time.Time, len(spares))
	for i, s := range spares {
		drafts[i], ids[i], ats[i] = s.draft, int64(s.from.id), s.from.at
	}
	stored, err := d.Enqueue(ctx, tx, now, drafts)
	if err != nil {
		return err
	}
	next := make([]int64, len(stored))
	for i, s := range stored {
		next[i] = int64(s.ID)
	}
	if _, err := tx.Exec(ctx, `
		UPDATE delivery.spare AS s
		SET next_id = k.next, next_at = $1
		FROM unnest($2::bigint[], $3::timestamptz[], $4::bigint[]) AS k (id, at, next)
		WHERE s.delivery_id = k.id AND s.at = k.at AND s.at BETWEEN $5 AND $6`,
		stored[0].At, ids, ats, next, slices.MinFunc(ats, time.Time.Compare), slices.MaxFunc(ats, time.Time.Compare)); err != nil {
		return fmt.Errorf("note the fall-back: %w", err)
	}
	return nil
}

// lostSpare is the spare of a message that did not get through.
type lostSpare struct {
	from    rowKey
	channel subscription.Channel // by which it did not
	draft   Draft
}

// entitled leaves out what tells somebody of children of whom he may not know any
// more, and addresses the rest to where its recipients are reached now.
func entitled(ctx context.Context, tx pgx.Tx, spares []lostSpare, now time.Time) ([]lostSpare, error) {
	list := make([]recipient, len(spares))
	for i, s := range spares {
		list[i] = recipient{s.draft.Representative, s.draft.Children, s.draft.Topic, s.draft.Channel, s.draft.Address}
	}
	answers, err := presently(ctx, tx, list, now)
	if err != nil {
		return nil, err
	}
	kept := spares[:0]
	for i, s := range spares {
		if answers[i].why == "" {
			s.draft.Address = answers[i].address
			kept = append(kept, s)
		}
	}
	return kept, nil
}

// willing leaves out what goes to an address that has opted out or is dead.
func willing(ctx context.Context, tx pgx.Tx, spares []lostSpare) ([]lostSpare, error) {
	addresses := map[subscription.Channel][]string{}
	for _, s := range spares {
		addresses[s.draft.Channel] = append(addresses[s.draft.Channel], s.draft.Address)
	}
	health := map[subscription.Channel]map[string]Health{}
	for channel, list := range addresses {
		found, err := HealthOf(ctx, tx, channel, list)
		if err != nil {
			return nil, err
		}
		health[channel] = found
	}
	return slices.DeleteFunc(spares, func(s lostSpare) bool {
		h := health[s.draft.Channel][s.draft.Address]
		return h.OptedOut || h.Suppressed || h.Doubted
	}), nil
}

func split(keys []rowKey) ([]int64, []time.Time) {
	ids, ats := make([]int64, len(keys)), make([]time.Time, len(keys))
	for i, key := range keys {
		ids[i], ats[i] = int64(key.id), key.at
	}
	return ids, ats
}

// fallbackWorker looks whether messages have arrived in time.
type fallbackWorker struct {
	river.WorkerDefaults[FallbackArgs]
	sender *Sender
}

// Work sends by the next channel what has been without a receipt for the
// recipient's patience since it was sent, and of which the operator, asked, has
// no better news. What has not even been sent by then
// is given up here, so that it does not come twice. Messages that were sent
// late are looked at again when their patience is over.
func (w *fallbackWorker) Work(ctx context.Context, job *river.Job[FallbackArgs]) error {
	var wait time.Duration
	ids := make([]int64, len(job.Args.IDs))
	for i, id := range job.Args.IDs {
		ids[i] = int64(id)
	}
	if err := w.sender.inquire(ctx, job.Args.At, ids); err != nil {
		return err
	}
	err := pgx.BeginFunc(ctx, w.sender.pool, func(tx pgx.Tx) error {
		now := w.sender.now()
		var due []rowKey
		rows, err := tx.Query(ctx, `
			SELECT d.id, d.state, coalesce(d.sending_at, d.at) + s.patience
			FROM delivery.delivery AS d
			JOIN delivery.spare AS s ON s.delivery_id = d.id AND s.at = d.at
			WHERE d.id = ANY ($1) AND d.at = $2 AND s.taken_at IS NULL AND NOT d.recalled AND d.expires_at > $3
			  AND d.state IN ('queued', 'sending', 'sent', 'unknown', 'failed', 'partial')
			ORDER BY d.id FOR UPDATE OF d`, ids, job.Args.At, now)
		if err != nil {
			return fmt.Errorf("look for lost messages: %w", err)
		}
		var (
			id       ID
			state    State
			patience time.Time
			unsent   []int64
		)
		if _, err := pgx.ForEachRow(rows, []any{&id, &state, &patience}, func() error {
			switch {
			case state == Queued:
				unsent = append(unsent, int64(id))
				due = append(due, rowKey{id, job.Args.At})
			case state == Failed || state == Partial || !now.Before(patience):
				due = append(due, rowKey{id, job.Args.At})
			case wait == 0 || patience.Sub(now) < wait:
				wait = patience.Sub(now)
			}
			return nil
		}); err != nil {
			return fmt.Errorf("look for lost messages: %w", err)
		}
		if len(unsent) > 0 {
			if _, err := tx.Exec(ctx, `
				UPDATE delivery.delivery SET state = 'failed', reason = 'gave way to the next channel', settled_at = $3
				WHERE id = ANY ($1) AND at = $2 AND state = 'queued'`, unsent, job.Args.At, now); err != nil {
				return fmt.Errorf("give up messages that were not sent: %w", err)
			}
		}
		return w.sender.desk.fallBack(ctx, tx, now, due)
	})
	if err != nil {
		return err
	}
	if wait > 0 {
		return river.JobSnooze(wait)
	}
	return nil
}
