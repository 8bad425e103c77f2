package access

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger"
	"zvonok/ledger/pg"
)

// Cursor is a place in the changes of an organisation's cards; the empty one is
// the beginning. To callers it is an opaque word without dots.
//
// It is the snapshot of the database as of the last answer: what that snapshot
// could not see is new, whenever it was begun. A number of the last row would
// miss what a slower transaction commits below it; waiting for all transactions
// would hold a block back for the minutes of an import. While an answer is
// longer than its limit the cursor holds two snapshots, the one before the
// answer and the one of its first page, and the last row given.
type Cursor string

// ErrCursor is a cursor that [CardChanges] never gave.
var ErrCursor = errors.New("not a cursor of card changes")

// maxCursor bounds a cursor, in octets: a snapshot names the transactions under
// way, some tens of digits each.
const maxCursor = 8 << 10

// beginning is the snapshot that sees nothing: the first transaction has number 3.
const beginning = "1:1:"

// parse splits a cursor into the snapshot before the answer, the snapshot of the
// answer ("" when it is yet to be taken) and the last row given.
func (c Cursor) parse() (since, upTo string, id int64, err error) {
	if c == "" {
		return beginning, "", 0, nil
	}
	parts := strings.Split(string(c), "~")
	if len(c) > maxCursor || len(parts) != 1 && len(parts) != 3 || !isSnapshot(parts[0]) {
		return "", "", 0, ErrCursor
	}
	if len(parts) == 1 {
		return parts[0], "", 0, nil
	}
	id, err = strconv.ParseInt(parts[2], 10, 64)
	if err != nil || !isSnapshot(parts[1]) {
		return "", "", 0, ErrCursor
	}
	return parts[0], parts[1], id, nil
}

// isSnapshot reports whether PostgreSQL takes the text as a pg_snapshot:
// xmin:xmax:xip, ..., each xip in its order between xmin and xmax.
func isSnapshot(text string) bool {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return false
	}
	xmin, err := strconv.ParseInt(parts[0], 10, 64)
	if err != nil || xmin < 1 {
		return false
	}
	xmax, err := strconv.ParseInt(parts[1], 10, 64)
	if err != nil || xmax < xmin {
		return false
	}
	if parts[2] == "" {
		return true
	}
	last := xmin
	for number := range strings.SplitSeq(parts[2], ",") {
		xip, err := strconv.ParseInt(number, 10, 64)
		if err != nil || xip < last || xip >= xmax {
			return false
		}
		last = xip
	}
	return true
}

// A database restored from a dump counts transactions anew. A cursor of its
// former life begins again; rows of that life, numbered beyond the present, are
// given to who begins.
const cardChanges = `
	WITH span AS (
	    SELECT CASE WHEN pg_snapshot_xmax($2::text::pg_snapshot) > pg_snapshot_xmax(pg_current_snapshot())
	                THEN $5::text ELSE $2 END::pg_snapshot AS since,
	           coalesce(nullif($3::text, '')::pg_snapshot, pg_current_snapshot()) AS up_to
	)
	SELECT e.id, s.up_to::text, c.id, c.organisation_id, c.uid, c.kind, coalesce(c.person_id, 0),
	       coalesce(c.representative_id, 0), c.state, c.valid_until
	  FROM span s
	  JOIN access.card_event e
	    ON e.organisation_id = $1
	   AND e.xid >= pg_snapshot_xmin(s.since)
	   AND NOT pg_visible_in_snapshot(e.xid, s.since)
	   AND (pg_visible_in_snapshot(e.xid, s.up_to)
	        OR e.xid >= pg_snapshot_xmax(pg_current_snapshot()) AND s.since::text = $5)
	   AND e.id > $4
	  JOIN access.card c ON c.id = e.card_id
	 ORDER BY e.id
	 LIMIT $6`

// CardChanges returns the cards of an organisation that have changed since the
// cursor, each once and as it stands now, and the cursor to ask with the next
// time. At most limit changes are looked at; when there is nothing new the cursor
// stays as it is. A change is given as soon as it is committed, and none is
// passed over.
func CardChanges(ctx context.Context, q pg.Querier, organisation ledger.OrganisationID, since Cursor, limit int) (
	[]Card, Cursor, error,
) {
	before, upTo, id, err := since.parse()
	if err != nil {
		return nil, since, err
	}
	rows, err := q.Query(ctx, cardChanges, organisation, before, upTo, id, beginning, limit)
	if err != nil {
		return nil, since, fmt.Errorf("read the changes of cards: %w", err)
	}
	changes, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Card, error) {
		var c Card
		var until *time.Time
		err := row.Scan(&id, &upTo, &c.ID, &c.Organisation, &c.UID, &c.Kind, &c.Person, &c.Representative, &c.State,
			&until)
		c.ValidUntil = timeOf(until)
		return c, err
	})
	if err != nil {
		return nil, since, fmt.Errorf("read the changes of cards: %w", err)
	}
	next := Cursor(upTo)
	switch {
	case len(changes) == limit:
		next = Cursor(fmt.Sprintf("%s~%s~%d", before, upTo, id))
	case upTo == "":
		next = since
	}
	// The last of several changes of a card is as good as the first: all show it as it stands.
	seen := make(map[CardID]bool, len(changes))
	changes = slices.DeleteFunc(changes, func(c Card) bool {
		again := seen[c.ID]
		seen[c.ID] = true
		return again
	})
	return changes, next, nil
}
