package access

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access/phone"
	"zvonok/ledger/registry"
)

// cardLine is a line of cards.csv.
type cardLine struct {
	uid    UID
	person string       // the registry's id, or "" when it is
	phone  phone.Number // a companion's
	kind   string
	ending *time.Time
}

var cardTable = registry.Table[cardLine]{
	File:    registry.Cards,
	Columns: []string{"uid", "person_id", "kind", "valid_until"},
	Parse:   parseCard,
}

func parseCard(line *registry.Line) cardLine {
	row := cardLine{kind: line.Code("kind"), ending: line.Date("valid_until")}
	uid, err := ParseUID(line.Text("uid"))
	switch {
	case errors.Is(err, ErrPartUID):
		line.Fail("uid", "is the first part of a longer identifier (88 and three octets); give all of it")
	case err != nil:
		line.Fail("uid", "is not 4 to 10 octets in hexadecimal")
	}
	row.uid = uid
	if strings.HasPrefix(line.Text("person_id"), "+") {
		row.phone = phoneOf(line, "person_id")
	} else {
		row.person = line.Code("person_id")
	}
	if row.kind == string(TemporaryCard) && row.ending == nil {
		line.Fail("valid_until", "is needed for a temporary card")
	}
	return row
}

func importCards(ctx context.Context, tx pgx.Tx, folder *registry.Folder, report *registry.Report) error {
	const file = registry.Cards
	merged := report.OK() // else the tables lack what the other files were to bring
	if _, err := tx.Exec(ctx, `
		DROP TABLE IF EXISTS pg_temp.card_line, pg_temp.card_row, pg_temp.card_touched;
		CREATE TEMP TABLE card_line (line int, uid text, person text, phone text, kind text, ends_on date) ON COMMIT DROP;
		CREATE TEMP TABLE card_touched (line int, added boolean) ON COMMIT DROP`); err != nil {
		return fmt.Errorf("prepare %s: %w", file, err)
	}
	reader, err := cardTable.Read(folder, report)
	if err != nil {
		return err
	}
	defer reader.Close()
	values := make([]any, 6)
	if _, err := tx.CopyFrom(ctx, pgx.Identifier{"card_line"},
		[]string{"line", "uid", "person", "phone", "kind", "ends_on"},
		reader.CopySource(func(number int, row cardLine) []any {
			values = append(values[:0], number, string(row.uid), row.person, string(row.phone), row.kind, row.ending)
			return values
		})); err != nil {
		return fmt.Errorf("copy %s: %w", file, err)
	}
	if merged {
		// A companion may have changed the phone that is listed (see followPhones).
		if _, err := tx.Exec(ctx, `
			UPDATE pg_temp.card_line l SET phone = r.phone
			  FROM access.former_address f JOIN access.representative r ON r.id = f.representative_id
			 WHERE f.address = l.phone AND r.phone IS NOT NULL
			   AND NOT EXISTS (SELECT FROM access.representative h WHERE h.phone = l.phone)`); err != nil {
			return fmt.Errorf("follow who has changed the phone: %w", err)
		}
		if folder.Has(registry.Guardians) {
			// The cards of companions whom guardians.csv still lists and who were erased.
			if _, err := tx.Exec(ctx, `
			DELETE FROM pg_temp.card_line l USING pg_temp.guardian_dropped d
			 WHERE l.phone = d.phone AND NOT EXISTS (SELECT FROM access.representative r WHERE r.phone = l.phone)`); err != nil {
				return fmt.Errorf("leave out the cards of the erased: %w", err)
			}
		}
		if err := checkCards(ctx, tx, report); err != nil {
			return err
		}
	}
	if !report.OK() {
		return nil
	}
	var now time.Time
	if err := tx.QueryRow(ctx, `SELECT now()`).Scan(&now); err != nil {
		return fmt.Errorf("read the time of the import: %w", err)
	}
	if err := EndTemporaryCards(ctx, tx, 0, now); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, mergeCards); err != nil {
		return fmt.Errorf("merge cards: %w", err)
	}
	count := registry.Count{File: file}
	err = tx.QueryRow(ctx, `
		SELECT count(*) FILTER (WHERE t.added), count(*) FILTER (WHERE NOT t.added), count(*) FILTER (WHERE t.line IS NULL)
		  FROM pg_temp.card_line l
		  LEFT JOIN (SELECT line, bool_or(added) AS added FROM pg_temp.card_touched GROUP BY line) t USING (line)`).
		Scan(&count.Added, &count.Changed, &count.Left)
	if err != nil {
		return fmt.Errorf("count the rows of %s: %w", file, err)
	}
	report.Done(count)
	return nil
}

// checkCards finds the holders of the lines and what is wrong with them.
func checkCards(ctx context.Context, tx pgx.Tx, report *registry.Report) error {
	const file = registry.Cards
	// One row for each organisation where the card is to work. The card of a
	// person who has left, or of a companion whose every right has ended, is in
	// the file and nowhere else: registries go on listing both.
	if _, err := tx.Exec(ctx, `
		ANALYZE pg_temp.card_line;
		CREATE TEMP TABLE card_row ON COMMIT DROP AS
		SELECT l.line, l.uid, l.kind, p.organisation_id, p.id AS person_id, NULL::bigint AS representative_id,
		       (l.ends_on + 1)::timestamp AT TIME ZONE o.time_zone AS valid_until
		  FROM pg_temp.card_line l
		  JOIN ledger.person p ON p.code = l.person
		  JOIN ledger.organisation o ON o.id = p.organisation_id
		 WHERE l.phone = '' AND (p.left_on IS NULL OR p.left_on > (now() AT TIME ZONE o.time_zone)::date)
		 UNION ALL
		SELECT l.line, l.uid, l.kind, o.id, NULL, l.representative_id, (l.ends_on + 1)::timestamp AT TIME ZONE o.time_zone
		  FROM (SELECT DISTINCT l.line, l.uid, l.kind, l.ends_on, g.representative_id, p.organisation_id
		          FROM pg_temp.card_line l
		          JOIN access.representative r ON r.phone = l.phone
		          JOIN access.guardian g ON g.representative_id = r.id AND g.revoked_at IS NULL
		                                AND (g.until IS NULL OR g.until > now())
		          JOIN ledger.person p ON p.id = g.child_id
		         WHERE l.phone <> '') l
		  JOIN ledger.organisation o ON o.id = l.organisation_id;
		ANALYZE pg_temp.card_row`); err != nil {
		return fmt.Errorf("find the holders of %s: %w", file, err)
	}
	for _, check := range []string{
		`SELECT l.line, format('person_id "%s" is not known', l.person)
		   FROM pg_temp.card_line l
		  WHERE l.phone = '' AND NOT EXISTS (SELECT FROM ledger.person p WHERE p.code = l.person)
		  ORDER BY l.line`,
		`SELECT l.line, format('person_id "+%s" is not the phone of a representative or companion of any child', l.phone)
		   FROM pg_temp.card_line l
		  WHERE l.phone <> ''
		    AND NOT EXISTS (SELECT FROM access.representative r JOIN access.guardian g ON g.representative_id = r.id
		                     WHERE r.phone = l.phone)
		  ORDER BY l.line`,
		`SELECT l.line, format('kind "%s" is not known; the kinds are %s', l.kind,
		                       (SELECT string_agg(code, ', ' ORDER BY code) FROM access.card_kind))
		   FROM pg_temp.card_line l
		  WHERE l.kind NOT IN (SELECT code FROM access.card_kind)
		  ORDER BY l.line`,
		`SELECT DISTINCT line, format('uid "%s" stands in line %s already', uid, first)
		   FROM (SELECT line, uid, first_value(line) OVER (PARTITION BY organisation_id, uid ORDER BY line) AS first
		           FROM pg_temp.card_row) r
		  WHERE line <> first ORDER BY line`,
		`SELECT r.line, format('readers of the organisation cannot tell uid "%s" from that of line %s', r.uid, min(o.line))
		   FROM access.reader_form f
		   JOIN pg_temp.card_row r ON r.organisation_id = f.organisation_id
		   JOIN pg_temp.card_row o ON o.organisation_id = f.organisation_id AND o.line < r.line AND o.uid <> r.uid
		                          AND access.part(o.uid, f.part) = access.part(r.uid, f.part)
		  GROUP BY r.line, r.uid ORDER BY r.line`,
		`SELECT r.line, format('uid "%s" is the identifier of another person''s card (card %s)', r.uid, min(c.id))
		   FROM pg_temp.card_row r
		   JOIN access.card c ON c.organisation_id = r.organisation_id AND c.uid = r.uid
		                     AND c.state NOT IN ('returned', 'destroyed')
		  WHERE (c.person_id, c.representative_id) IS DISTINCT FROM (r.person_id, r.representative_id)
		    AND NOT (c.state = 'temporary' AND c.valid_until <= now())
		  GROUP BY r.line, r.uid ORDER BY r.line`,
		`SELECT r.line, format('readers of the organisation cannot tell uid "%s" from card %s', r.uid, min(c.id))
		   FROM access.reader_form f
		   JOIN pg_temp.card_row r ON r.organisation_id = f.organisation_id
		   JOIN access.card c ON c.organisation_id = f.organisation_id AND c.state NOT IN ('returned', 'destroyed')
		                     AND c.uid <> r.uid AND access.part(c.uid, f.part) = access.part(r.uid, f.part)
		  WHERE NOT (c.state = 'temporary' AND c.valid_until <= now())
		  GROUP BY r.line, r.uid ORDER BY r.line`,
	} {
		if err := registry.Check(ctx, tx, report, file, check); err != nil {
			return err
		}
	}
	return nil
}

// The registry says whose a card is and until when. Whether it is blocked, or
// not handed over yet, the school knows better.
const mergeCards = `
	WITH merged AS (
	    INSERT INTO access.card AS c (organisation_id, uid, kind, person_id, representative_id, state, valid_until, issued_at)
	    SELECT organisation_id, uid, kind, person_id, representative_id,
	           CASE kind WHEN 'temporary' THEN 'temporary' ELSE 'active' END, valid_until, now()
	      FROM pg_temp.card_row
	     ORDER BY organisation_id, uid
	    ON CONFLICT (organisation_id, uid) WHERE state NOT IN ('returned', 'destroyed') DO UPDATE
	       SET kind = excluded.kind, valid_until = excluded.valid_until,
	           state = CASE WHEN c.state IN ('active', 'temporary') THEN excluded.state ELSE c.state END
	     WHERE (c.kind, c.valid_until) IS DISTINCT FROM (excluded.kind, excluded.valid_until)
	    RETURNING id, organisation_id, uid, xmax = 0 AS added
	), told AS (
	    INSERT INTO access.card_event (card_id, organisation_id, what, at, actor_kind, actor_id)
	    SELECT id, organisation_id, CASE WHEN added THEN 'imported' ELSE 'changed' END, now(), 'registry', 'import'
	      FROM merged
	)
	INSERT INTO pg_temp.card_touched (line, added)
	SELECT r.line, m.added FROM merged m JOIN pg_temp.card_row r USING (organisation_id, uid)`
