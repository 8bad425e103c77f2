package access

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger"
	"zvonok/ledger/pg"
)

// Channel is the way by which somebody looked.
type Channel string

// The ways.
const (
	Portal Channel = "portal" // the parents' web pages
	API    Channel = "api"    // the parents' API, behind a mobile application
	USSD   Channel = "ussd"
	Staff  Channel = "staff"  // staff tablets and reports
	Bank   Channel = "bank"   // a payment terminal's check
	Export Channel = "export" // a file
	Reply  Channel = "reply"  // a balance asked for by SMS
)

// View is one look at one child's data.
type View struct {
	Who     Actor
	Child   ledger.PersonID
	What    string // one word of what was shown: "balance", "visits", "meals", at most 64 octets
	Channel Channel
	At      time.Time
}

// LogView writes the looks in one statement (D14). It is called before the data
// is shown; a caller whose log fails shows nothing.
func LogView(ctx context.Context, q pg.Querier, views []View) error {
	if len(views) == 0 {
		return nil
	}
	at := make([]time.Time, len(views))
	children := make([]ledger.PersonID, len(views))
	kinds := make([]ActorKind, len(views))
	ids := make([]string, len(views))
	whats := make([]string, len(views))
	channels := make([]Channel, len(views))
	for i, v := range views {
		at[i], children[i], kinds[i], ids[i] = v.At, v.Child, v.Who.Kind, v.Who.ID
		whats[i], channels[i] = v.What, v.Channel
	}
	_, err := q.Exec(ctx, `
		INSERT INTO access.view_log (at, child_id, actor_kind, actor_id, what, channel)
		SELECT * FROM unnest($1::timestamptz[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[])`,
		at, children, kinds, ids, whats, channels)
	if err != nil {
		return fmt.Errorf("log %d views: %w", len(views), err)
	}
	return nil
}

// Views returns the newest looks at a child's data made before a moment, newest
// first, for the child's representatives to read. The caller asks [May] first.
func Views(ctx context.Context, q pg.Querier, child ledger.PersonID, before time.Time, limit int) ([]View, error) {
	rows, err := q.Query(ctx, `
		SELECT actor_kind, actor_id, child_id, what, channel, at
		  FROM access.view_log
		 WHERE child_id = $1 AND at < $2
		 ORDER BY at DESC
		 LIMIT $3`, child, before, limit)
	if err != nil {
		return nil, fmt.Errorf("read the views of person %d: %w", child, err)
	}
	views, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (View, error) {
		var v View
		err := row.Scan(&v.Who.Kind, &v.Who.ID, &v.Child, &v.What, &v.Channel, &v.At)
		return v, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the views of person %d: %w", child, err)
	}
	return views, nil
}
