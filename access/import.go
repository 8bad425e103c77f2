package access

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"zvonok/access/phone"
	"zvonok/ledger/registry"
)

// homeRegion is the country in which a number without a plus is meant.
const homeRegion = "RU"

// Limits of what a line may hold.
const (
	maxEmail = 254 // octets, RFC 5321 section 4.5.3.1.3
	maxName  = 100 // characters of a name; the longest in registers have some 60
	maxPhone = 40  // characters, with spaces and brackets
)

// Import brings guardians.csv and cards.csv into the tables, in this order,
// since a card may be a companion's. It has the shape of [registry.Import].
//
// A row of guardians.csv is matched by phone, person and role. A legal row is
// also that representative's consent for the child, with its dates; the dates of
// a trusted or companion row bound that right. The last day counts. What was
// withdrawn, revoked or excluded comes back only by a consent_date later than
// that. What a person has chosen in the cabinet stays as chosen.
//
// A row of cards.csv is matched by the identifier inside the organisation of its
// holder. A person_id that begins with a plus is the phone of a companion, whose
// card works in every organisation where a child of his goes, and is left out when
// his every right has ended, like the card of somebody who has left. A blocked
// card stays blocked.
//
// Before the cards of the file come those of the register: the cards of people
// who have left end, and the cards of people who now belong to another
// organisation go with them.
func Import(ctx context.Context, tx pgx.Tx, folder *registry.Folder, report *registry.Report) error {
	if folder.Has(registry.Guardians) {
		if err := importGuardians(ctx, tx, folder, report); err != nil {
			return err
		}
	}
	if report.OK() {
		if err := followPeople(ctx, tx); err != nil {
			return err
		}
	}
	if folder.Has(registry.Cards) {
		return importCards(ctx, tx, folder, report)
	}
	return nil
}

func phoneOf(line *registry.Line, column string) phone.Number {
	raw := line.Required(column, maxPhone)
	if raw == "" {
		return ""
	}
	number, err := phone.Parse(raw, homeRegion)
	if err != nil {
		line.Fail(column, "cannot be used: "+strings.TrimPrefix(err.Error(), "not a usable phone number: "))
	}
	return number
}

// isMailbox reports whether a text has the form of a mailbox. Whether it exists
// only a letter can tell.
func isMailbox(text string) bool {
	local, domain, at := strings.Cut(text, "@")
	return at && printable(text) && len(text) <= maxEmail && len(local) > 0 && len(local) <= 64 && len(domain) > 2 &&
		!strings.ContainsAny(text, " \t,;:<>()[]\\\"") && !strings.Contains(domain, "@") &&
		strings.Contains(domain[1:len(domain)-1], ".") && !strings.Contains(text, "..") &&
		!strings.HasPrefix(local, ".") && !strings.HasSuffix(local, ".")
}

// followPeople ends the cards of people who have left, and moves the cards of
// people who belong to another organisation now, unless the identifier is taken
// there.
func followPeople(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, `
		WITH ended AS (
		    UPDATE access.card c SET state = 'returned', ended_at = now()
		      FROM ledger.person p JOIN ledger.organisation o ON o.id = p.organisation_id
		     WHERE p.id = c.person_id AND c.state NOT IN ('returned', 'destroyed')
		       AND (p.organisation_id <> c.organisation_id OR p.left_on <= (now() AT TIME ZONE o.time_zone)::date)
		    RETURNING c.id, c.organisation_id, c.uid, c.kind, c.person_id, c.valid_until, c.blocked_at,
		              p.organisation_id AS next,
		              (p.left_on <= (now() AT TIME ZONE o.time_zone)::date) IS TRUE AS gone
		), moved AS (
		    INSERT INTO access.card (organisation_id, uid, kind, person_id, state, valid_until, issued_at)
		    SELECT next, uid, kind, person_id, CASE kind WHEN 'temporary' THEN 'temporary' ELSE 'active' END,
		           valid_until, now()
		      FROM ended WHERE NOT gone AND blocked_at IS NULL
		    ON CONFLICT (organisation_id, uid) WHERE state NOT IN ('returned', 'destroyed') DO NOTHING
		    RETURNING id, organisation_id
		)
		INSERT INTO access.card_event (card_id, organisation_id, what, at, actor_kind, actor_id, note)
		SELECT id, organisation_id, 'returned', now(), 'registry', 'import',
		       CASE WHEN gone THEN 'has left' ELSE 'another organisation' END FROM ended
		 UNION ALL
		SELECT id, organisation_id, 'imported', now(), 'registry', 'import', 'another organisation' FROM moved`)
	if err != nil {
		return fmt.Errorf("follow people who moved or left: %w", err)
	}
	return nil
}
