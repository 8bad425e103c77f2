package access

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access/phone"
	"zvonok/ledger"
	"zvonok/ledger/pg"
)

// RepresentativeID names a parent, another legal representative, a trusted
// person or a companion.
type RepresentativeID int64

// Role is the relation of a representative to one child.
type Role string

// The roles.
const (
	Legal     Role = "legal"     // a parent or another legal representative (R1)
	Trusted   Role = "trusted"   // sees and chooses like a parent, cannot delegate (R2)
	Companion Role = "companion" // leads the child to the kindergarten and home, sees nothing (R13)
)

// Verdict answers whether somebody may know of a child: [Yes], or what is missing.
type Verdict string

// The verdicts: a closed list. When several things are missing the consent is
// named before the asker's own right (spec/notices.md, From fact to message).
const (
	Yes               Verdict = "yes"
	NoConsent         Verdict = "no_consent"         // no legal representative ever consented
	ConsentExpired    Verdict = "consent_expired"    // the last consent is past its last day
	ConsentWithdrawn  Verdict = "consent_withdrawn"  // the last consent was withdrawn
	NotRepresentative Verdict = "not_representative" // a stranger, a companion, or a right that has not begun
	Removed           Verdict = "removed"            // excluded by a legal representative or by the school
	Expired           Verdict = "expired"            // the right is past its last day
)

// Verdicts lists every verdict, for labels and tables.
func Verdicts() []Verdict {
	return []Verdict{Yes, NoConsent, ConsentExpired, ConsentWithdrawn, NotRepresentative, Removed, Expired}
}

// May answers whether a representative may at that moment know of a child: be
// sent messages of it and be shown its data. A child or a representative that
// does not exist is [NotRepresentative].
func May(ctx context.Context, q pg.Querier, who RepresentativeID, child ledger.PersonID, at time.Time) (Verdict, error) {
	var verdict Verdict
	err := q.QueryRow(ctx, `
		SELECT verdict FROM access.rights($3) WHERE child_id = $1 AND representative_id = $2`,
		child, who, at).Scan(&verdict)
	if errors.Is(err, pgx.ErrNoRows) {
		return NotRepresentative, nil
	}
	if err != nil {
		return "", fmt.Errorf("ask whether representative %d may know of person %d: %w", who, child, err)
	}
	return verdict, nil
}

// Listener is somebody who may or might know of a child, with how to reach him.
type Listener struct {
	Child          ledger.PersonID
	Representative RepresentativeID
	Role           Role
	Verdict        Verdict
	// What the live consent covers: visits, or meals and money. Both false unless there is one.
	Visits, Meals bool
	Phone         phone.Number // "" when the person has been erased
	Email         string       // "" when none
	Language      string       // "ru" or "en"
	Translit      bool         // SMS in Latin letters (D15)
}

// Rights and people are looked up by key, child by child: for a batch of some
// hundreds the planner would otherwise rather read everybody in the city, which
// OFFSET and LIMIT forbid.
const audience = `
	SELECT r.child_id, r.representative_id, r.role, r.verdict, r.visits, r.meals,
	       coalesce(p.phone, ''), p.email, p.language, p.translit
	  FROM (SELECT DISTINCT unnest($1::bigint[]) AS child_id) c
	 CROSS JOIN LATERAL (SELECT * FROM access.rights($2) WHERE child_id = c.child_id OFFSET 0) r
	 CROSS JOIN LATERAL (SELECT * FROM access.representative WHERE id = r.representative_id LIMIT 1) p
	 ORDER BY r.child_id, r.representative_id`

// Audience returns every legal and trusted representative, past or present, of
// these children, each with the verdict at that moment, ordered by child and
// representative; companions are not among them. It is one query, for the
// notices of a batch of facts.
func Audience(ctx context.Context, q pg.Querier, children []ledger.PersonID, at time.Time) ([]Listener, error) {
	rows, err := q.Query(ctx, audience, children, at)
	if err != nil {
		return nil, fmt.Errorf("find who may know of %d children: %w", len(children), err)
	}
	listeners, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Listener])
	if err != nil {
		return nil, fmt.Errorf("find who may know of %d children: %w", len(children), err)
	}
	return listeners, nil
}

// RightsChanges is the channel of the database on which a change that may have
// taken a right away is told as it is committed: words "c" and the id of a child,
// "r" and that of a representative, "p" and a phone, or "*" for too many. It is
// for who has to know of changes without asking; it is no answer to the question.
const RightsChanges = "zvonok_rights"

// NextEnds returns, for the children some right or consent around whom ends by
// itself after a moment, when the first one does.
func NextEnds(ctx context.Context, q pg.Querier, children []ledger.PersonID, after time.Time) (
	map[ledger.PersonID]time.Time, error,
) {
	rows, err := q.Query(ctx, `
		SELECT c.id, least(g.ends, k.ends)
		  FROM unnest($1::bigint[]) AS c (id)
		 CROSS JOIN LATERAL (SELECT least(min(until) FILTER (WHERE until > $2),
		                                  min(revoked_at) FILTER (WHERE revoked_at > $2)) AS ends
		                       FROM access.guardian WHERE child_id = c.id) g
		 CROSS JOIN LATERAL (SELECT least(min(until) FILTER (WHERE until > $2),
		                                  min(withdrawn_at) FILTER (WHERE withdrawn_at > $2)) AS ends
		                       FROM access.consent WHERE child_id = c.id) k
		 WHERE least(g.ends, k.ends) IS NOT NULL`, children, after)
	if err != nil {
		return nil, fmt.Errorf("ask when rights to %d children end: %w", len(children), err)
	}
	ends := map[ledger.PersonID]time.Time{}
	var child ledger.PersonID
	var end time.Time
	if _, err := pgx.ForEachRow(rows, []any{&child, &end}, func() error {
		ends[child] = end
		return nil
	}); err != nil {
		return nil, fmt.Errorf("ask when rights to %d children end: %w", len(children), err)
	}
	return ends, nil
}

// Child is a child that somebody may know of.
type Child struct {
	ID             ledger.PersonID
	Representative RepresentativeID // the asker
	Role           Role
	// What the live consent covers: visits, or meals and money.
	Visits, Meals bool
	Code          string // the registry's id
	Organisation  ledger.OrganisationID
	FamilyName    string
	GivenName     string
	Patronymic    string
	Group         string // class or kindergarten group
}

// The phone's owner is looked up by a scalar subquery, which the planner carries
// into the rule; a join would have to read every right first.
const childrenOf = `
	SELECT r.child_id, r.representative_id, r.role, r.visits, r.meals,
	       p.code, p.organisation_id, p.family_name, p.given_name, p.patronymic, p.group_name
	  FROM access.rights($2) r
	  JOIN ledger.person p ON p.id = r.child_id
	 WHERE r.representative_id = (SELECT id FROM access.representative WHERE phone = $1 AND doubt IS NULL)
	   AND r.verdict = 'yes'
	 ORDER BY p.given_name, p.family_name, r.child_id`

// ChildrenOf returns the children the phone's owner may see at that moment, by
// given name. For an unknown phone there are none, nor for one that may be in
// other hands ([Hear]).
func ChildrenOf(ctx context.Context, q pg.Querier, number phone.Number, at time.Time) ([]Child, error) {
	rows, err := q.Query(ctx, childrenOf, number, at)
	if err != nil {
		return nil, fmt.Errorf("find the children of a phone: %w", err)
	}
	return collectChildren(rows)
}

func collectChildren(rows pgx.Rows) ([]Child, error) {
	children, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Child])
	if err != nil {
		return nil, fmt.Errorf("find the children of a phone: %w", err)
	}
	return children, nil
}

// Caller is who owns a phone, and whom that person may see.
type Caller struct {
	Representative         // its ID is 0 when the phone is nobody's
	Children       []Child // as of [ChildrenOf]
}

// AskCaller puts the questions of [RepresentativeByPhone] and [ChildrenOf] into a batch, so that they travel together
// and with what else is asked. The caller is known when the batch has been read. Both are asked about an unknown phone
// too, which takes as long therefore.
func AskCaller(b *pgx.Batch, number phone.Number, at time.Time) *Caller {
	c := &Caller{}
	b.Queue(representativeByPhone, number).Query(func(rows pgx.Rows) error {
		var err error
		if c.Representative, err = collectRepresentative(rows); errors.Is(err, ErrNoRepresentative) {
			return nil
		}
		return err
	})
	b.Queue(childrenOf, number, at).Query(func(rows pgx.Rows) error {
		var err error
		c.Children, err = collectChildren(rows)
		return err
	})
	return c
}

const childOf = `
	SELECT r.child_id, r.representative_id, r.role, r.visits, r.meals,
	       p.code, p.organisation_id, p.family_name, p.given_name, p.patronymic, p.group_name
	  FROM access.rights($3) r
	  JOIN ledger.person p ON p.id = r.child_id
	 WHERE r.child_id = $2
	   AND r.representative_id = (SELECT id FROM access.representative WHERE phone = $1 AND doubt IS NULL)
	   AND r.verdict = 'yes'`

// ErrNoChild is a child that the asker may not know of, or that does not exist:
// outside there is no difference.
var ErrNoChild = errors.New("no such child")

// ChildOf is [May] for the owner of a phone and one child, with what a page
// about the child needs. It returns [ErrNoChild] when the answer is not [Yes].
func ChildOf(ctx context.Context, q pg.Querier, number phone.Number, child ledger.PersonID, at time.Time) (Child, error) {
	rows, err := q.Query(ctx, childOf, number, child, at)
	if err != nil {
		return Child{}, fmt.Errorf("ask whether a phone may know of person %d: %w", child, err)
	}
	c, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[Child])
	if errors.Is(err, pgx.ErrNoRows) {
		return Child{}, ErrNoChild
	}
	if err != nil {
		return Child{}, fmt.Errorf("ask whether a phone may know of person %d: %w", child, err)
	}
	return c, nil
}

// KnownAt returns of whom a representative might know at each of these moments.
func KnownAt(ctx context.Context, q pg.Querier, who RepresentativeID, moments []time.Time) (
	map[time.Time][]ledger.PersonID, error,
) {
	known := make(map[time.Time][]ledger.PersonID, len(moments))
	for _, at := range moments {
		known[at] = nil
	}
	if len(moments) == 0 {
		return known, nil
	}
	rows, err := q.Query(ctx, `
		SELECT m.place, r.child_id
		  FROM unnest($2::timestamptz[]) WITH ORDINALITY AS m (at, place)
		 CROSS JOIN LATERAL access.rights(m.at) AS r
		 WHERE r.representative_id = $1 AND r.verdict = 'yes'`, who, moments)
	if err != nil {
		return nil, fmt.Errorf("ask of whom representative %d might know when: %w", who, err)
	}
	var place int
	var child ledger.PersonID
	if _, err := pgx.ForEachRow(rows, []any{&place, &child}, func() error {
		known[moments[place-1]] = append(known[moments[place-1]], child)
		return nil
	}); err != nil {
		return nil, fmt.Errorf("ask of whom representative %d might know when: %w", who, err)
	}
	return known, nil
}
