package subscription

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"zvonok/access/phone"
	"zvonok/ledger"
	"zvonok/ledger/registry"
)

// Limits of what a line may hold.
const (
	homeRegion = "RU" // the country in which a number without a plus is meant
	maxPhone   = 40   // characters, with spaces and brackets
)

// Import brings subscriptions.csv into the tables. It has the shape of
// [registry.Import] and comes after access.Import.
//
// A row is a wish, matched by all its columns but the threshold. The rows of a
// recipient who has chosen in the cabinet are left out. A threshold without an
// amount keeps the one there is, or begins with [DefaultThreshold]; an amount
// beside another event means nothing.
//
// When the folder brings guardians and no subscriptions, those who are new get
// the wishes everybody begins with (see [Welcome]), by SMS.
func Import(ctx context.Context, tx pgx.Tx, folder *registry.Folder, report *registry.Report) error {
	switch {
	case folder.Has(registry.Subscriptions):
		return importSubscriptions(ctx, tx, folder, report)
	case folder.Has(registry.Guardians) && report.OK():
		// The rights this import has made carry the time of its transaction.
		return welcome(ctx, tx, `
			SELECT child_id, representative_id, 'sms' AS channel
			  FROM access.guardian WHERE created_at = now() AND NOT companion`)
	default:
		return nil
	}
}

// line is a line of subscriptions.csv.
type line struct {
	phone   phone.Number
	person  string
	topic   string
	channel string
	mode    string
	amount  *int64 // kopecks, of a threshold
}

// texts are the allowed texts of a column.
func texts[T ~string](values []T) []string {
	list := make([]string, len(values))
	for i, v := range values {
		list[i] = string(v)
	}
	return list
}

func table() registry.Table[line] {
	topics, channels, modes := texts(Topics()), texts(Channels()), texts(Modes())
	return registry.Table[line]{
		File:    registry.Subscriptions,
		Columns: []string{"phone", "person_id", "event", "channel", "mode", "threshold"},
		Parse: func(l *registry.Line) line {
			row := line{
				person:  l.Code("person_id"),
				topic:   l.OneOf("event", topics...),
				channel: l.OneOf("channel", channels...),
				mode:    l.OneOf("mode", modes...),
			}
			if raw := l.Required("phone", maxPhone); raw != "" {
				number, err := phone.Parse(raw, homeRegion)
				if err != nil {
					l.Fail("phone", "cannot be used: "+strings.TrimPrefix(err.Error(), "not a usable phone number: "))
				}
				row.phone = number
			}
			if amount := l.Amount("threshold"); amount != nil && row.topic == string(Threshold) {
				kopecks := int64(*amount)
				row.amount = &kopecks
			}
			return row
		},
	}
}

func importSubscriptions(ctx context.Context, tx pgx.Tx, folder *registry.Folder, report *registry.Report) error {
	const file = registry.Subscriptions
	merged := report.OK() // else the tables lack what the other files were to bring
	if _, err := tx.Exec(ctx, `
		DROP TABLE IF EXISTS pg_temp.subscription_line, pg_temp.subscription_row;
		CREATE TEMP TABLE subscription_line (
		    line int, phone text, person text, topic text, channel text, mode text, amount bigint
		) ON COMMIT DROP`); err != nil {
		return fmt.Errorf("prepare %s: %w", file, err)
	}
	reader, err := table().Read(folder, report)
	if err != nil {
		return err
	}
	defer reader.Close()
	values := make([]any, 7)
	if _, err := tx.CopyFrom(ctx, pgx.Identifier{"subscription_line"},
		[]string{"line", "phone", "person", "topic", "channel", "mode", "amount"},
		reader.CopySource(func(number int, row line) []any {
			values = append(values[:0], number, string(row.phone), row.person, row.topic, row.channel, row.mode, row.amount)
			return values
		})); err != nil {
		return fmt.Errorf("copy %s: %w", file, err)
	}
	// Wishes of those whom guardians.csv still lists and who were erased.
	if folder.Has(registry.Guardians) && merged {
		if _, err := tx.Exec(ctx, `
			DELETE FROM pg_temp.subscription_line l USING pg_temp.guardian_dropped d
			 WHERE l.phone = d.phone AND l.person = d.person`); err != nil {
			return fmt.Errorf("leave out the wishes of the erased: %w", err)
		}
	}
	if merged {
		if _, err := tx.Exec(ctx, followPhones); err != nil {
			return fmt.Errorf("follow who has changed the phone: %w", err)
		}
	}
	if _, err := tx.Exec(ctx, `ANALYZE pg_temp.subscription_line`); err != nil {
		return fmt.Errorf("analyse %s: %w", file, err)
	}
	checks := []string{
		`SELECT l.line, format('repeats line %s', d.first)
		   FROM (SELECT phone, person, topic, channel, mode, min(line) AS first
		           FROM pg_temp.subscription_line
		          GROUP BY phone, person, topic, channel, mode HAVING count(*) > 1) d
		   JOIN pg_temp.subscription_line l USING (phone, person, topic, channel, mode)
		  WHERE l.line <> d.first ORDER BY l.line`,
		`SELECT l.line, format('another threshold of the same phone and person stands in line %s', d.first)
		   FROM (SELECT phone, person, min(line) AS first, (array_agg(amount ORDER BY line))[1] AS amount
		           FROM pg_temp.subscription_line
		          WHERE amount IS NOT NULL
		          GROUP BY phone, person HAVING min(amount) <> max(amount)) d
		   JOIN pg_temp.subscription_line l USING (phone, person)
		  WHERE l.amount <> d.amount ORDER BY l.line`,
	}
	if merged {
		if _, err := tx.Exec(ctx, findRows); err != nil {
			return fmt.Errorf("find whom the rows of %s are about: %w", file, err)
		}
		checks = append(checks,
			`SELECT l.line, format('person_id "%s" is not known', l.person)
			   FROM pg_temp.subscription_line l
			  WHERE NOT EXISTS (SELECT FROM ledger.person p WHERE p.code = l.person)
			  ORDER BY l.line`,
			`SELECT l.line, format('phone "+%s" is not that of a representative of person_id "%s"', l.phone, l.person)
			   FROM pg_temp.subscription_line l
			   JOIN ledger.person p ON p.code = l.person
			  WHERE NOT EXISTS (SELECT FROM pg_temp.subscription_row r WHERE r.line = l.line)
			  ORDER BY l.line`)
	}
	for _, check := range checks {
		if err := registry.Check(ctx, tx, report, file, check); err != nil {
			return err
		}
	}
	if !report.OK() {
		return nil
	}
	thresholds, changed, err := readThresholds(ctx, tx)
	if err != nil {
		return err
	}
	count := registry.Count{File: file, Changed: changed}
	tag, err := tx.Exec(ctx, `
		INSERT INTO subscription.subscription (child_id, topic, mode, representative_id, channel)
		SELECT child_id, topic, mode, representative_id, channel
		  FROM pg_temp.subscription_row
		 WHERE NOT chosen
		 ORDER BY child_id, topic, mode, representative_id, channel
		ON CONFLICT (child_id, topic, mode, representative_id, channel) DO NOTHING`)
	if err != nil {
		return fmt.Errorf("merge subscriptions: %w", err)
	}
	if err := loadThresholds(ctx, tx, thresholds); err != nil {
		return err
	}
	count.Added = int(tag.RowsAffected())
	if err := tx.QueryRow(ctx, `SELECT count(*) FROM pg_temp.subscription_line`).Scan(&count.Left); err != nil {
		return fmt.Errorf("count the rows of %s: %w", file, err)
	}
	count.Left -= count.Added + count.Changed
	report.Done(count)
	return nil
}

// A registry goes on listing a phone after its owner has changed it (R28). The
// wish is his, unless the phone is that of another representative of the child
// now, or he stands in the file with the new phone as well.
const followPhones = `
	WITH moved AS MATERIALIZED (
	    SELECT DISTINCT ON (l.line) l.line, l.person, r.phone
	      FROM pg_temp.subscription_line l
	      JOIN access.former_address f ON f.address = l.phone
	      JOIN access.representative r ON r.id = f.representative_id AND r.phone IS NOT NULL
	      JOIN ledger.person p ON p.code = l.person
	      JOIN access.guardian g ON g.child_id = p.id AND g.representative_id = r.id AND NOT g.companion
	     WHERE NOT EXISTS (SELECT FROM access.representative h JOIN access.guardian o ON o.representative_id = h.id
	                        WHERE h.phone = l.phone AND o.child_id = p.id AND NOT o.companion)
	     ORDER BY l.line, r.id DESC
	), doubled AS (
	    SELECT m.line FROM moved m
	     WHERE EXISTS (SELECT FROM pg_temp.subscription_line o WHERE o.phone = m.phone AND o.person = m.person)
	), followed AS (
	    UPDATE pg_temp.subscription_line l SET phone = m.phone FROM moved m
	     WHERE l.line = m.line AND l.line NOT IN (SELECT line FROM doubled)
	)
	DELETE FROM pg_temp.subscription_line l USING doubled d WHERE l.line = d.line`

const findRows = `
	CREATE TEMP TABLE subscription_row ON COMMIT DROP AS
	SELECT l.line, p.id AS child_id, r.id AS representative_id, l.topic, l.channel, l.mode, l.amount,
	       c.child_id IS NOT NULL AS chosen
	  FROM pg_temp.subscription_line l
	  JOIN ledger.person p ON p.code = l.person
	  JOIN access.representative r ON r.phone = l.phone
	  JOIN access.guardian g ON g.child_id = p.id AND g.representative_id = r.id AND NOT g.companion
	  LEFT JOIN subscription.choice c ON c.child_id = p.id AND c.representative_id = r.id;
	ANALYZE pg_temp.subscription_row`

// readThresholds returns the thresholds that the file sets or changes, and how
// many of its lines only change an amount. It is asked before the rows are merged.
func readThresholds(ctx context.Context, tx pgx.Tx) (thresholds []ledger.Threshold, changed int, err error) {
	rows, err := tx.Query(ctx, `
		SELECT r.child_id, r.representative_id, coalesce(max(r.amount), $1),
		       count(*) FILTER (WHERE s.child_id IS NOT NULL AND r.amount IS NOT NULL)
		  FROM pg_temp.subscription_row r
		  LEFT JOIN ledger.account a ON a.person_id = r.child_id
		  LEFT JOIN ledger.threshold t ON t.account_id = a.id AND t.owner = r.representative_id AND NOT t.upward
		  LEFT JOIN subscription.subscription s
		         ON s.child_id = r.child_id AND s.topic = r.topic AND s.mode = r.mode
		        AND s.representative_id = r.representative_id AND s.channel = r.channel
		 WHERE r.topic = 'threshold' AND NOT r.chosen AND (t.amount IS NULL OR r.amount <> t.amount)
		 GROUP BY r.child_id, r.representative_id
		 ORDER BY r.child_id, r.representative_id`, DefaultThreshold)
	if err != nil {
		return nil, 0, fmt.Errorf("find the thresholds to set: %w", err)
	}
	var t ledger.Threshold
	var lines int
	_, err = pgx.ForEachRow(rows, []any{&t.Person, &t.Owner, &t.Amount, &lines}, func() error {
		thresholds = append(thresholds, t)
		changed += lines
		return nil
	})
	if err != nil {
		return nil, 0, fmt.Errorf("find the thresholds to set: %w", err)
	}
	return thresholds, changed, nil
}
