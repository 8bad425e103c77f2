package access

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger"
	"zvonok/ledger/pg"
)

// Lead is a child led to or from a kindergarten by somebody at a moment.
type Lead struct {
	Child     ledger.PersonID
	Companion RepresentativeID
	At        time.Time
}

// LeadVerdict answers whether somebody may lead a child: [LeadYes], or why not.
type LeadVerdict string

// The verdicts of [MayLead]: a closed list.
const (
	LeadYes      LeadVerdict = "yes"
	LeadUnlisted LeadVerdict = "unlisted"  // never on the child's list
	LeadEnded    LeadVerdict = "ended"     // was on it, or will be
	LeadTooYoung LeadVerdict = "too_young" // below the organisation's age of companions (D10)
)

// MayLead answers, one verdict for each lead in its order and in one statement,
// whether the kindergarten may give the child to that person (R13, R49, D10): a
// legal representative, or a listed companion of the organisation's age whose
// listing is live at that moment. A trusted person may see and not lead, unless
// listed. A companion without a date of birth was checked on paper by the school.
func MayLead(ctx context.Context, q pg.Querier, leads []Lead) ([]LeadVerdict, error) {
	if len(leads) == 0 {
		return nil, nil
	}
	children := make([]ledger.PersonID, len(leads))
	companions := make([]RepresentativeID, len(leads))
	at := make([]time.Time, len(leads))
	for i, lead := range leads {
		children[i], companions[i], at[i] = lead.Child, lead.Companion, lead.At
	}
	rows, err := q.Query(ctx, `
		SELECT CASE WHEN g.listed IS NOT TRUE THEN 'unlisted'
		            WHEN NOT g.live THEN 'ended'
		            WHEN NOT g.legal AND r.born_on > (q.at AT TIME ZONE o.time_zone)::date
		                                             - make_interval(years => o.companion_age) THEN 'too_young'
		            ELSE 'yes'
		       END
		  FROM unnest($1::bigint[], $2::bigint[], $3::timestamptz[])
		       WITH ORDINALITY AS q (child_id, representative_id, at, n)
		  LEFT JOIN ledger.person p ON p.id = q.child_id
		  LEFT JOIN ledger.organisation o ON o.id = p.organisation_id
		  LEFT JOIN access.representative r ON r.id = q.representative_id
		 CROSS JOIN LATERAL (
		        SELECT count(*) > 0 AS listed, bool_or(l.live) AS live, bool_or(l.live AND l.role = 'legal') AS legal
		          FROM (SELECT g.role,
		                       g.since <= q.at AND (g.until IS NULL OR g.until > q.at)
		                       AND (g.revoked_at IS NULL OR g.revoked_at > q.at) AS live
		                  FROM access.guardian g
		                 WHERE g.child_id = q.child_id AND g.representative_id = q.representative_id
		                   AND g.role IN ('legal', 'companion')) l) g
		 ORDER BY q.n`, children, companions, at)
	if err != nil {
		return nil, fmt.Errorf("ask who may lead %d children: %w", len(leads), err)
	}
	verdicts, err := pgx.CollectRows(rows, pgx.RowTo[LeadVerdict])
	if err != nil {
		return nil, fmt.Errorf("ask who may lead %d children: %w", len(leads), err)
	}
	return verdicts, nil
}
