package access

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access/phone"
	"zvonok/ledger/registry"
)

// guardianLine is a line of guardians.csv.
type guardianLine struct {
	phone         phone.Number
	email         string
	names         Names
	language      string
	translit      bool
	person        string
	role          Role
	given, ending *time.Time
}

var guardianTable = registry.Table[guardianLine]{
	File: registry.Guardians,
	Columns: []string{
		"phone", "email", "family_name", "given_name", "patronymic", "language", "translit",
		"person_id", "role", "consent_date", "consent_until",
	},
	Parse: parseGuardian,
}

func parseGuardian(line *registry.Line) guardianLine {
	row := guardianLine{
		phone: phoneOf(line, "phone"),
		email: line.Text("email"),
		names: Names{
			Family:     line.Required("family_name", maxName),
			Given:      line.Required("given_name", maxName),
			Patronymic: line.Optional("patronymic", maxName),
		},
		language: "ru",
		person:   line.Code("person_id"),
		role:     Role(line.OneOf("role", string(Legal), string(Trusted), string(Companion))),
		given:    line.Date("consent_date"),
		ending:   line.Date("consent_until"),
	}
	if row.email != "" && !isMailbox(row.email) {
		line.Fail("email", "is not a mailbox like name@example.org")
	}
	if line.Text("language") != "" {
		row.language = line.OneOf("language", "ru", "en")
	}
	if line.Text("translit") != "" {
		row.translit = line.YesNo("translit")
	}
	if row.role == Legal && row.given == nil && line.Text("consent_date") == "" {
		line.Fail("consent_date", "is needed for a legal representative: without a consent nobody may know")
	}
	if row.given != nil && row.ending != nil && row.ending.Before(*row.given) {
		line.Fail("consent_until", "is before consent_date")
	}
	return row
}

func importGuardians(ctx context.Context, tx pgx.Tx, folder *registry.Folder, report *registry.Report) error {
	const file = registry.Guardians
	merged := report.OK() // else the tables lack what the other files were to bring
	if _, err := tx.Exec(ctx, `
		DROP TABLE IF EXISTS pg_temp.guardian_line, pg_temp.guardian_row, pg_temp.guardian_touched, pg_temp.guardian_dropped;
		CREATE TEMP TABLE guardian_line (
		    line int, phone text, email text, family_name text, given_name text, patronymic text, language text,
		    translit boolean, person text, role text, given_on date, ends_on date
		) ON COMMIT DROP;
		CREATE TEMP TABLE guardian_touched (line int, added boolean) ON COMMIT DROP;
		CREATE TEMP TABLE guardian_dropped (phone text, person text) ON COMMIT DROP`); err != nil {
		return fmt.Errorf("prepare %s: %w", file, err)
	}
	reader, err := guardianTable.Read(folder, report)
	if err != nil {
		return err
	}
	defer reader.Close()
	values := make([]any, 12)
	if _, err := tx.CopyFrom(ctx, pgx.Identifier{"guardian_line"}, []string{
		"line", "phone", "email", "family_name", "given_name", "patronymic", "language",
		"translit", "person", "role", "given_on", "ends_on",
	}, reader.CopySource(func(number int, row guardianLine) []any {
		values = append(values[:0], number, string(row.phone), row.email, row.names.Family, row.names.Given,
			row.names.Patronymic, row.language, row.translit, row.person, string(row.role), row.given, row.ending)
		return values
	})); err != nil {
		return fmt.Errorf("copy %s: %w", file, err)
	}
	if _, err := tx.Exec(ctx, `ANALYZE pg_temp.guardian_line`); err != nil {
		return fmt.Errorf("analyse %s: %w", file, err)
	}
	followed, err := tx.Exec(ctx, followPhones)
	if err != nil {
		return fmt.Errorf("follow who has changed the phone: %w", err)
	}
	checks := []string{
		`SELECT line, format('repeats line %s: the same phone, person and role', first)
		   FROM (SELECT line, first_value(line) OVER (PARTITION BY phone, person, role ORDER BY line) AS first
		           FROM pg_temp.guardian_line) l
		  WHERE line <> first ORDER BY line`,
		`SELECT l.line, format('role "trusted" contradicts line %s, where the same phone is legal', min(o.line))
		   FROM pg_temp.guardian_line l
		   JOIN pg_temp.guardian_line o ON o.phone = l.phone AND o.person = l.person AND o.role = 'legal'
		  WHERE l.role = 'trusted' GROUP BY l.line ORDER BY l.line`,
		// A phone is an identity (D3): two people behind one would have each other's rights.
		`SELECT line, format('the same phone has another name in line %s', first)
		   FROM (SELECT line, lower(family_name || ' ' || given_name) AS name,
		                first_value(line) OVER w AS first,
		                first_value(lower(family_name || ' ' || given_name)) OVER w AS first_name
		           FROM pg_temp.guardian_line WINDOW w AS (PARTITION BY phone ORDER BY line)) l
		  WHERE translate(name, 'ё', 'е') <> translate(first_name, 'ё', 'е') ORDER BY line`,
	}
	if merged {
		checks = append(checks,
			`SELECT l.line, format('person_id "%s" is not known', l.person)
			   FROM pg_temp.guardian_line l
			  WHERE NOT EXISTS (SELECT FROM ledger.person p WHERE p.code = l.person)
			  ORDER BY l.line`,
			`SELECT l.line, format('role "trusted": the phone is that of a legal representative of person_id "%s"', l.person)
			   FROM pg_temp.guardian_line l
			   JOIN access.representative r ON r.phone = l.phone
			   JOIN ledger.person p ON p.code = l.person
			   JOIN access.guardian g ON g.child_id = p.id AND g.representative_id = r.id AND g.role = 'legal'
			                         AND g.revoked_at IS NULL
			  WHERE l.role = 'trusted' ORDER BY l.line`)
	}
	for _, check := range checks {
		if err := registry.Check(ctx, tx, report, file, check); err != nil {
			return err
		}
	}
	if !report.OK() {
		return nil
	}
	dropped, err := tx.Exec(ctx, dropErased, keepPeople)
	if err != nil {
		return fmt.Errorf("leave out the erased: %w", err)
	}
	for _, merge := range []struct{ what, sql string }{
		{"merge representatives", mergeRepresentatives},
		{"find the rows of guardians.csv", findGuardians},
		{"analyse the rows of guardians.csv", `ANALYZE pg_temp.guardian_row`},
		{"merge guardians", mergeGuardians},
		{"merge consents", mergeConsents},
	} {
		if _, err := tx.Exec(ctx, merge.sql); err != nil {
			return fmt.Errorf("%s: %w", merge.what, err)
		}
	}
	count := registry.Count{File: file}
	err = tx.QueryRow(ctx, `
		SELECT count(*) FILTER (WHERE t.added), count(*) FILTER (WHERE NOT t.added), count(*) FILTER (WHERE t.line IS NULL)
		  FROM pg_temp.guardian_line l
		  LEFT JOIN (SELECT line, bool_or(added) AS added FROM pg_temp.guardian_touched GROUP BY line) t USING (line)`).
		Scan(&count.Added, &count.Changed, &count.Left)
	if err != nil {
		return fmt.Errorf("count the rows of %s: %w", file, err)
	}
	count.Left += int(dropped.RowsAffected() + followed.RowsAffected())
	report.Done(count)
	return nil
}

// sameNameOf is the condition that a representative bears the name of line l.
func sameNameOf(r string) string {
	return `translate(lower(` + r + `.family_name || ' ' || ` + r + `.given_name), 'ё', 'е') =
		translate(lower(l.family_name || ' ' || l.given_name), 'ё', 'е')`
}

// A registry goes on listing a phone after its owner has changed it (R28). Such a
// line means him and not whoever may have the phone now: that would be a new
// representative, to whom the child's news go. It is told by the name, which the
// present holder of the phone, if there is one, does not bear. A line that is
// there with the new phone as well goes; those are what is counted.
var followPhones = `
	WITH moved AS MATERIALIZED (
	    SELECT DISTINCT ON (l.line) l.line, l.person, l.role, r.phone
	      FROM pg_temp.guardian_line l
	      JOIN access.former_address f ON f.address = l.phone
	      JOIN access.representative r ON r.id = f.representative_id AND r.phone IS NOT NULL
	      LEFT JOIN access.representative h ON h.phone = l.phone
	     WHERE ` + sameNameOf("r") + ` AND (h.id IS NULL OR NOT ` + sameNameOf("h") + `)
	     ORDER BY l.line, r.id DESC
	), doubled AS (
	    SELECT m.line FROM moved m
	     WHERE EXISTS (SELECT FROM pg_temp.guardian_line o WHERE o.phone = m.phone AND o.person = m.person AND o.role = m.role)
	), followed AS (
	    UPDATE pg_temp.guardian_line l SET phone = m.phone FROM moved m
	     WHERE l.line = m.line AND l.line NOT IN (SELECT line FROM doubled)
	)
	DELETE FROM pg_temp.guardian_line l USING doubled d WHERE l.line = d.line`

// A registry goes on listing those whose consent was withdrawn, whose right has
// ended, and whom retention has erased. Their lines bring nothing back, unless
// they carry a date later than that end; guardian_dropped tells the files that
// refer to these lines.
const dropErased = `
	WITH gone AS (
	    DELETE FROM pg_temp.guardian_line l
	     WHERE NOT EXISTS (SELECT FROM access.representative r WHERE r.phone = l.phone)
	       AND (l.ends_on < (now() - $1::interval)::date
	            OR EXISTS (SELECT FROM ledger.person p
	                         JOIN access.guardian g ON g.child_id = p.id
	                         JOIN access.representative r ON r.id = g.representative_id
	                        WHERE p.code = l.person AND r.erased_at IS NOT NULL
	                          AND sha256(convert_to(r.id || ':' || l.phone, 'UTF8')) = ANY (r.erased_keys)
	                          AND (l.given_on IS NULL OR l.given_on <= (r.erased_at - $1::interval)::date)))
	    RETURNING phone, person
	)
	INSERT INTO pg_temp.guardian_dropped (phone, person) SELECT phone, person FROM gone`

// Of several lines of one phone the last one says how the person reads.
const mergeRepresentatives = `
	WITH merged AS (
	    INSERT INTO access.representative AS r (phone, email, family_name, given_name, patronymic, language, translit)
	    SELECT DISTINCT ON (phone) phone, email, family_name, given_name, patronymic, language, translit
	      FROM pg_temp.guardian_line
	     ORDER BY phone, line DESC
	    ON CONFLICT (phone) DO UPDATE
	       SET family_name = excluded.family_name,
	           given_name = excluded.given_name,
	           patronymic = excluded.patronymic,
	           email = CASE WHEN r.reading_at IS NULL THEN excluded.email ELSE r.email END,
	           language = CASE WHEN r.reading_at IS NULL THEN excluded.language ELSE r.language END,
	           translit = CASE WHEN r.reading_at IS NULL THEN excluded.translit ELSE r.translit END
	     WHERE (r.family_name, r.given_name, r.patronymic)
	           IS DISTINCT FROM (excluded.family_name, excluded.given_name, excluded.patronymic)
	        OR r.reading_at IS NULL
	           AND (r.email, r.language, r.translit) IS DISTINCT FROM (excluded.email, excluded.language, excluded.translit)
	    RETURNING phone, xmax = 0 AS added
	)
	INSERT INTO pg_temp.guardian_touched (line, added)
	SELECT l.line, false FROM pg_temp.guardian_line l JOIN merged USING (phone) WHERE NOT merged.added`

// A day is a day in the zone of the child's organisation, and the last one counts.
const findGuardians = `
	CREATE TEMP TABLE guardian_row ON COMMIT DROP AS
	SELECT l.line, p.id AS child_id, r.id AS representative_id, l.role, l.given_on,
	       coalesce(l.given_on::timestamp AT TIME ZONE o.time_zone,
	                least(now(), l.ends_on::timestamp AT TIME ZONE o.time_zone)) AS since,
	       (l.ends_on + 1)::timestamp AT TIME ZONE o.time_zone AS until
	  FROM pg_temp.guardian_line l
	  JOIN ledger.person p ON p.code = l.person
	  JOIN ledger.organisation o ON o.id = p.organisation_id
	  JOIN access.representative r ON r.phone = l.phone`

const mergeGuardians = `
	WITH merged AS (
	    INSERT INTO access.guardian AS g (child_id, representative_id, role, since, until)
	    SELECT child_id, representative_id, role, since, CASE WHEN role <> 'legal' THEN until END
	      FROM pg_temp.guardian_row
	     ORDER BY child_id, representative_id
	    ON CONFLICT (child_id, representative_id, companion) DO UPDATE
	       SET role = excluded.role,
	           since = CASE WHEN g.revoked_at IS NULL AND (excluded.role = 'legal' OR excluded.since = now())
	                        THEN least(g.since, excluded.since, excluded.until - interval '1 day')
	                        ELSE excluded.since END,
	           until = excluded.until,
	           granted_by = NULL,
	           revoked_at = NULL
	     -- What was taken away comes back only by a later date; a line without a date changes the last day at most.
	     WHERE CASE WHEN g.revoked_at IS NOT NULL THEN excluded.since > g.revoked_at AND excluded.since <> now()
	                WHEN g.role <> excluded.role THEN true
	                WHEN g.role = 'legal' THEN excluded.since < g.since OR g.until IS NOT NULL
	                WHEN excluded.since = now() THEN g.until IS DISTINCT FROM excluded.until
	                ELSE (g.since, g.until) IS DISTINCT FROM (excluded.since, excluded.until) END
	    RETURNING child_id, representative_id, role, since, until, xmax = 0 AS added
	), told AS (
	    INSERT INTO access.guardian_event (child_id, representative_id, role, what, since, until, at, actor_kind, actor_id)
	    SELECT child_id, representative_id, role, CASE WHEN added THEN 'granted' ELSE 'changed' END, since, until,
	           now(), 'registry', 'import'
	      FROM merged
	)
	INSERT INTO pg_temp.guardian_touched (line, added)
	SELECT n.line, m.added FROM merged m JOIN pg_temp.guardian_row n USING (child_id, representative_id, role)`

const mergeConsents = `
	WITH merged AS (
	    INSERT INTO access.consent AS c (child_id, representative_id, visits, meals, form, given_on, since, until)
	    SELECT child_id, representative_id, true, true, 'registry', given_on, since, until
	      FROM pg_temp.guardian_row n
	     WHERE role = 'legal'
	       AND NOT EXISTS (SELECT FROM access.consent w
	                        WHERE w.child_id = n.child_id AND w.representative_id = n.representative_id
	                          AND w.withdrawn_at >= n.since)
	     ORDER BY child_id, representative_id
	    ON CONFLICT (child_id, representative_id) WHERE form = 'registry' AND withdrawn_at IS NULL DO UPDATE
	       SET given_on = excluded.given_on, since = excluded.since, until = excluded.until
	     WHERE (c.given_on, c.since, c.until) IS DISTINCT FROM (excluded.given_on, excluded.since, excluded.until)
	    RETURNING child_id, representative_id, xmax = 0 AS added
	)
	INSERT INTO pg_temp.guardian_touched (line, added)
	SELECT n.line, false
	  FROM merged m JOIN pg_temp.guardian_row n USING (child_id, representative_id)
	 WHERE n.role = 'legal'`
