package access

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger"
	"zvonok/ledger/pg"
)

// CardID names one issue of an identifier: the same piece of plastic given to
// another person later has another CardID.
type CardID int64

// Kind is what sort of identifier a card is. The kinds are rows of
// access.card_kind (R17); these are the ones every database has.
type Kind string

// The kinds every database has.
const (
	SocialCard    Kind = "social" // the city's social card, somebody else's card that we only read (R15)
	OwnCard       Kind = "own"
	Fob           Kind = "fob"
	Bracelet      Kind = "bracelet"
	TemporaryCard Kind = "temporary" // lent for a day (R21)
)

// State is where a card stands in its life.
type State string

// The states. A card is live, and its identifier taken, until it is returned or
// destroyed.
const (
	Unknown         State = ""                 // no such card in the organisation
	Ambiguous       State = "ambiguous"        // several cards fit what the reader has kept; never stored
	Issued          State = "issued"           // made out, not handed over yet
	Active          State = "active"           //
	BlockedLost     State = "blocked_lost"     // reported lost
	BlockedReplaced State = "blocked_replaced" // another card has taken its place
	Temporary       State = "temporary"        // lent until valid_until, then it ends by itself
	Returned        State = "returned"         // given back; the identifier is free
	Destroyed       State = "destroyed"
)

// CardQuery asks whose a card was at a moment in one organisation.
type CardQuery struct {
	Organisation ledger.OrganisationID
	UID          UID
	// Part is set when the reader does not report the whole identifier; see
	// [Profile.Read].
	Part Part
	// At is when the card was used; zero asks how it stands. An event uploaded
	// days late is judged by the card's holder and state at its own time: a
	// temporary card may have passed to another child since.
	At time.Time
}

// CardHolder is whose a card is. When State is [Unknown] or [Ambiguous] the rest is zero.
type CardHolder struct {
	Card           CardID
	Person         ledger.PersonID  // 0 when it is a companion's card
	Representative RepresentativeID // 0 when it is a pupil's or staff member's card
	Kind           Kind
	State          State
	ValidUntil     time.Time // zero when open-ended
}

// Usable reports whether the card opens a door and pays at that moment.
func (h CardHolder) Usable(at time.Time) bool {
	return (h.State == Active || h.State == Temporary) && (h.ValidUntil.IsZero() || at.Before(h.ValidUntil))
}

// A card is what it was at the moment asked about. Of several cards the one that
// lived then counts, else the latest issued before that moment; an event from
// before the first issue (a card used before it was keyed in) takes the first.
// Each branch is switched off as a whole when the query asks for another part.
const resolveCards = resolveHead + resolveParts + resolveTail

// resolveWhole is the same for queries of whole identifiers, which is what most
// readers report: it takes a third of the time to plan.
const resolveWhole = resolveHead + resolveTail

const resolveHead = `
	SELECT coalesce(c.id, 0), coalesce(c.person_id, 0), coalesce(c.representative_id, 0), coalesce(c.kind, ''),
	       CASE WHEN c.id IS NULL THEN ''
	            WHEN q.part <> '' AND c.cards > 1 THEN 'ambiguous'
	            WHEN c.ended_at > q.at OR (c.state LIKE 'blocked%' AND c.blocked_at > q.at)
	                THEN CASE WHEN c.blocked_at <= q.at THEN 'blocked_lost'
	                          WHEN c.kind = 'temporary' THEN 'temporary'
	                          ELSE 'active' END
	            ELSE c.state
	       END,
	       c.valid_until
	  FROM (SELECT organisation_id, uid, part, coalesce(at, 'infinity') AS at, n
	          FROM unnest($1::bigint[], $2::text[], $3::text[], $4::timestamptz[])
	               WITH ORDINALITY AS u (organisation_id, uid, part, at, n)) q
	  LEFT JOIN LATERAL (
	        SELECT f.*, count(*) FILTER (WHERE f.lives) OVER () AS cards
	          FROM (SELECT l.*, l.issued_at <= q.at AND (l.ended_at IS NULL OR l.ended_at > q.at) AS lives
	                  FROM (SELECT a.* FROM access.card a
	                         WHERE q.part = '' AND a.organisation_id = q.organisation_id AND a.uid = q.uid`

const resolveParts = `
	                         UNION ALL
	                        SELECT a.* FROM access.card a
	                         WHERE q.part IN ('head3', 'head4') AND a.organisation_id = q.organisation_id
	                           AND a.uid >= q.uid AND a.uid < q.uid || 'G' -- behind F
	                         UNION ALL
	                        SELECT a.* FROM access.card a
	                         WHERE q.part IN ('tail3', 'tail4') AND a.organisation_id = q.organisation_id
	                           AND right(a.uid, 6) = right(q.uid, 6) AND right(a.uid, length(q.uid)) = q.uid`

const resolveTail = `) l) f
	         ORDER BY f.lives DESC,
	                  f.issued_at <= q.at DESC,
	                  CASE WHEN f.issued_at <= q.at THEN f.issued_at END DESC,
	                  f.issued_at, f.id DESC
	         LIMIT 1) c ON true
	 ORDER BY q.n`

// ResolveCards tells whose the cards are, one answer for each query, in its
// order, in one statement.
func ResolveCards(ctx context.Context, q pg.Querier, queries []CardQuery) ([]CardHolder, error) {
	if len(queries) == 0 {
		return nil, nil
	}
	organisations := make([]ledger.OrganisationID, len(queries))
	uids := make([]UID, len(queries))
	parts := make([]Part, len(queries))
	at := make([]*time.Time, len(queries))
	for i, query := range queries {
		organisations[i], uids[i], parts[i], at[i] = query.Organisation, query.UID, query.Part, moment(query.At)
	}
	statement := resolveWhole
	if slices.ContainsFunc(queries, func(query CardQuery) bool { return query.Part != Whole }) {
		statement = resolveCards
	}
	rows, err := q.Query(ctx, statement, organisations, uids, parts, at)
	if err != nil {
		return nil, fmt.Errorf("resolve %d cards: %w", len(queries), err)
	}
	holders, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (CardHolder, error) {
		var h CardHolder
		var until *time.Time
		err := row.Scan(&h.Card, &h.Person, &h.Representative, &h.Kind, &h.State, &until)
		if h.State == Ambiguous {
			return CardHolder{State: Ambiguous}, err
		}
		h.ValidUntil = timeOf(until)
		return h, err
	})
	if err != nil {
		return nil, fmt.Errorf("resolve %d cards: %w", len(queries), err)
	}
	return holders, nil
}

// moment is a time for a column that may be null: the zero time is null.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// timeOf is the other direction of moment.
func timeOf(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}
