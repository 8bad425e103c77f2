package delivery

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"zvonok/access"
	"zvonok/gateway/subscription"
	"zvonok/ledger/pg"
)

// keepTexts is how long the text of a message is kept: the law gives 30 days
// after the purpose is reached or the consent withdrawn (spec/practice.md), and a
// run is due once a day. No message about a child is made after the withdrawal,
// so this term keeps both.
const keepTexts = 29 * 24 * time.Hour

// The bounds of one transaction of retention.
const (
	firstSpan = 10 * time.Second // of the messages' time; doubled after few rows, halved after many
	leastSpan = time.Second
	greatSpan = 24 * time.Hour
	fewRows   = 1000
	manyRows  = 4000

	erasedAddresses = 20   // of the erased
	erasedMessages  = 2000 // to them
	erasedCounts    = 5000 // of messages to an address on a day
)

// EraseTexts destroys the texts of messages past their time: SMS and push
// messages, letters, what was to go by the next channel, and what receipts quote.
// Ids, times, states and parts stay, to prove the delivery; the address stays as
// long as its owner is known ([EraseAddresses]), and goes with the text when the
// message was to nobody we know. A message that may still be sent keeps its text.
//
// It takes a stretch of time after the other, each in a transaction that notes
// for the act what it destroyed, and goes on where the last run ended. A thorough
// run begins with the oldest message: what a wrong clock or a restored backup
// has brought in behind is found as well.
func EraseTexts(ctx context.Context, pool *pgxpool.Pool, now time.Time, thorough bool) error {
	until := now.Add(-keepTexts)
	from, err := eraseFrom(ctx, pool, until, thorough)
	if err != nil {
		return err
	}
	var live time.Time // of the first message that keeps its text; the next run begins there
	for span := firstSpan; from.Before(until); {
		end := from.Add(span)
		if end.After(until) {
			end = until
		}
		var rows int64
		err := pgx.BeginTxFunc(ctx, pool, pg.PlannedOnce, func(tx pgx.Tx) (err error) {
			rows, live, err = eraseSpan(ctx, tx, from, end, live, now)
			return err
		})
		if err != nil {
			return fmt.Errorf("destroy the texts of messages: %w", err)
		}
		switch {
		case rows > manyRows:
			span = max(span/2, leastSpan)
		case rows < fewRows:
			span = min(span*2, greatSpan)
		}
		from = end
	}
	return eraseCounts(ctx, pool, until)
}

// eraseCounts deletes how many messages each address got on days before until.
func eraseCounts(ctx context.Context, pool *pgxpool.Pool, until time.Time) error {
	for deleted := int64(erasedCounts); deleted == erasedCounts; {
		tag, err := pool.Exec(ctx, `
			DELETE FROM delivery.quota AS q
			 USING (SELECT day, channel, address FROM delivery.quota WHERE day < $1 ORDER BY day LIMIT $2) AS old
			 WHERE q.day = old.day AND q.channel = old.channel AND q.address = old.address`, until, erasedCounts)
		if err != nil {
			return fmt.Errorf("destroy the counts of messages: %w", err)
		}
		deleted = tag.RowsAffected()
	}
	return nil
}

// eraseFrom returns where a run begins: with the oldest message, or where the
// last run ended.
func eraseFrom(ctx context.Context, q pg.Querier, until time.Time, thorough bool) (time.Time, error) {
	var done *time.Time
	if err := q.QueryRow(ctx, `SELECT done_until FROM delivery.erasure`).Scan(&done); err != nil {
		return time.Time{}, fmt.Errorf("find where the destruction of texts ended: %w", err)
	}
	if done != nil && !thorough {
		return *done, nil
	}
	from := until.Add(-time.Microsecond) // so that the run notes its end, whatever it finds
	var first *time.Time
	if err := q.QueryRow(ctx, `
		SELECT least((SELECT min(at) FROM delivery.delivery), (SELECT min(received_at) FROM delivery.receipt))`).Scan(&first); err != nil {
		return time.Time{}, fmt.Errorf("find the oldest message: %w", err)
	}
	if first != nil && first.Before(from) {
		from = *first
	}
	return from, nil
}

// The statements of retention. Each reads a stretch of time, or the few codes
// that still have a text, by index.
const (
	eraseLetters = `
		DELETE FROM delivery.letter AS l USING delivery.delivery AS d
		 WHERE d.at >= $1 AND d.at < $2 AND d.expires_at <= $3 AND d.channel = 'email'
		   AND l.delivery_id = d.id AND l.at = d.at AND l.at >= $1 AND l.at < $2`
	eraseSpares = `
		UPDATE delivery.spare AS s SET address = '', body = '', subject = NULL, text_body = NULL, html_body = NULL
		  FROM delivery.delivery AS d
		 WHERE d.at >= $1 AND d.at < $2 AND d.expires_at <= $3 AND d.spare
		   AND s.delivery_id = d.id AND s.at = d.at AND s.at >= $1 AND s.at < $2
		   AND (s.address <> '' OR s.body <> '' OR s.text_body IS NOT NULL)`
	eraseMessages = `
		UPDATE delivery.delivery SET body = '', address = CASE WHEN representative_id IS NULL THEN '' ELSE address END
		 WHERE at >= $1 AND at < $2 AND expires_at <= $3 AND (body <> '' OR representative_id IS NULL AND address <> '')`
	eraseReceipts = `
		UPDATE delivery.receipt SET raw = '', address = ''
		 WHERE received_at >= $1 AND received_at < $2 AND (raw <> '' OR address <> '')`
	firstLive    = `SELECT min(at) FROM delivery.delivery WHERE at >= $1 AND at < $2 AND expires_at > $3`
	eraseSecrets = `
		WITH over AS MATERIALIZED (
		SELECT id, at, channel FROM delivery.delivery
		 WHERE topic IN ('code', 'reply') AND body <> ''
		   AND (expires_at <= $1 OR state NOT IN ('queued', 'sending', 'unknown') OR state = 'unknown' AND again = 'never')
		 ORDER BY at
		 LIMIT $2
		   FOR UPDATE SKIP LOCKED
		), letters AS (
		DELETE FROM delivery.letter AS l USING over
		 WHERE over.channel = 'email' AND l.delivery_id = over.id AND l.at = over.at
		), erased AS (
		UPDATE delivery.delivery AS d SET body = '' FROM over WHERE d.id = over.id AND d.at = over.at RETURNING 1
		)
		SELECT count(*) FROM erased`
)

// eraseSpan is one transaction of EraseTexts: of messages made from a moment to
// another. It returns how many rows it emptied, and live, or if that is zero the
// moment of the first message that keeps its text.
func eraseSpan(ctx context.Context, tx pgx.Tx, from, end, live, now time.Time) (int64, time.Time, error) {
	var (
		batch                            pgx.Batch
		texts, letters, spares, receipts int64
		first                            *time.Time
	)
	count := func(n *int64, sql string, args ...any) {
		batch.Queue(sql, args...).Exec(func(tag pgconn.CommandTag) error {
			*n = tag.RowsAffected()
			return nil
		})
	}
	count(&letters, eraseLetters, from, end, now)
	count(&spares, eraseSpares, from, end, now)
	count(&texts, eraseMessages, from, end, now)
	count(&receipts, eraseReceipts, from, end)
	batch.Queue(firstLive, from, end, now).
		QueryRow(func(row pgx.Row) error { return row.Scan(&first) })
	if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
		return 0, live, err
	}
	if live.IsZero() && first != nil {
		live = *first
	}
	done := end
	if !live.IsZero() {
		done = live
	}
	if _, err := tx.Exec(ctx, `UPDATE delivery.erasure SET done_until = $1`, done); err != nil {
		return 0, live, err
	}
	rows := texts + letters + spares + receipts
	return rows, live, noteErased(ctx, tx, map[string]int64{
		"message_texts": texts, "letters": letters, "fallback_texts": spares, "receipt_texts": receipts,
	})
}

// noteErased notes what was destroyed, if anything was.
func noteErased(ctx context.Context, tx pgx.Tx, destroyed map[string]int64) error {
	for what, n := range destroyed {
		if n == 0 {
			delete(destroyed, what)
		}
	}
	if len(destroyed) == 0 {
		return nil
	}
	return access.NoteDestroyed(ctx, tx, destroyed)
}

// EraseSecrets destroys the texts of one-time codes and of answers as soon as
// they were sent or their life is over: nobody reads them again. It is called
// every few seconds. What another transaction holds is left for the next time.
func EraseSecrets(ctx context.Context, pool *pgxpool.Pool, now time.Time) error {
	err := pgx.BeginTxFunc(ctx, pool, pg.PlannedOnce, func(tx pgx.Tx) error {
		var erased int64
		err := tx.QueryRow(ctx, eraseSecrets, now, manyRows).Scan(&erased)
		if err != nil {
			return err
		}
		return noteErased(ctx, tx, map[string]int64{"secret_texts": erased})
	})
	if err != nil {
		return fmt.Errorf("destroy the texts of codes: %w", err)
	}
	return nil
}

// EraseAddresses takes the phones and mailboxes of those whom access.Forget has
// erased out of the messages to them, with the texts.
func EraseAddresses(ctx context.Context, pool *pgxpool.Pool, now time.Time) error {
	for more := true; more; {
		err := pgx.BeginTxFunc(ctx, pool, pg.PlannedOnce, func(tx pgx.Tx) (err error) {
			more, err = eraseAddresses(ctx, tx, now)
			return err
		})
		if err != nil {
			return fmt.Errorf("destroy the addresses of the erased: %w", err)
		}
	}
	return nil
}

func eraseAddresses(ctx context.Context, tx pgx.Tx, now time.Time) (more bool, err error) {
	list, err := access.ErasedAddresses(ctx, tx, erasedAddresses)
	if err != nil || len(list) == 0 {
		return false, err
	}
	representatives, addresses := make([]int64, len(list)), make([]string, len(list))
	for i, e := range list {
		representatives[i], addresses[i] = int64(e.Representative), e.Address
	}
	var messages int64
	if err := tx.QueryRow(ctx, `
		WITH found AS MATERIALIZED (
		SELECT d.id, d.at, d.channel, d.spare
		  FROM unnest($1::bigint[], $2::text[]) AS e (representative_id, address)
		  JOIN delivery.delivery AS d ON d.address = e.address AND d.representative_id = e.representative_id
		 WHERE d.expires_at <= $4
		 LIMIT $3
		   FOR UPDATE OF d
		), letters AS (
		DELETE FROM delivery.letter AS l USING found AS f
		 WHERE f.channel = 'email' AND l.delivery_id = f.id AND l.at = f.at
		), spares AS (
		UPDATE delivery.spare AS s SET address = '', body = '', subject = NULL, text_body = NULL, html_body = NULL
		  FROM found AS f WHERE f.spare AND s.delivery_id = f.id AND s.at = f.at
		), emptied AS (
		UPDATE delivery.delivery AS d SET address = '', body = '' FROM found AS f WHERE d.id = f.id AND d.at = f.at RETURNING 1
		)
		SELECT count(*) FROM emptied`, representatives, addresses, erasedMessages, now).Scan(&messages); err != nil {
		return false, err
	}
	if err := noteErased(ctx, tx, map[string]int64{"message_addresses": messages}); err != nil {
		return false, err
	}
	if messages == erasedMessages {
		return true, nil // there may be more to these
	}
	// A message that may still be sent keeps its address, until the next run.
	rows, err := tx.Query(ctx, `
		SELECT e.representative_id, e.address
		  FROM unnest($1::bigint[], $2::text[]) AS e (representative_id, address)
		 WHERE NOT EXISTS (SELECT FROM delivery.delivery AS d
		                    WHERE d.address = e.address AND d.representative_id = e.representative_id)`, representatives, addresses)
	if err != nil {
		return false, err
	}
	done, err := pgx.CollectRows(rows, pgx.RowToStructByPos[access.ErasedAddress])
	if err != nil || len(done) == 0 {
		return false, err
	}
	// What is known of a phone or a mailbox is known of its owner, unless somebody has it now.
	if _, err := tx.Exec(ctx, `
		DELETE FROM delivery.address AS a
		 USING unnest($1::text[]) AS e (address)
		 WHERE a.channel = ANY ($2) AND a.address = e.address
		   AND NOT EXISTS (SELECT FROM access.representative AS r WHERE r.phone = e.address)
		   AND NOT EXISTS (SELECT FROM access.representative AS r WHERE r.email = e.address AND r.email <> '')`,
		addresses, []string{string(subscription.SMS), string(subscription.Email)}); err != nil {
		return false, err
	}
	return true, access.DropErasedAddresses(ctx, tx, done)
}
