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

// ViewPage says where a page of the log begins: the zero ViewPage is the newest view.
type ViewPage struct {
	Before time.Time
	id     int64
}

// String writes the place for a link; [ParseViewPage] reads it.
func (p ViewPage) String() string {
	if p.Before.IsZero() {
		return ""
	}
	return fmt.Sprintf("%d.%d", p.Before.UnixMicro(), p.id)
}

// ParseViewPage reads what String has written; the empty text is the newest page.
func ParseViewPage(text string) (ViewPage, error) {
	if text == "" {
		return ViewPage{}, nil
	}
	at, id, found := strings.Cut(text, ".")
	micros, err := strconv.ParseInt(at, 10, 64)
	p := ViewPage{Before: time.UnixMicro(micros)}
	if err == nil {
		p.id, err = strconv.ParseInt(id, 10, 64)
	}
	// PostgreSQL's years end at 294276.
	if !found || err != nil || p.Before.Year() < 2000 || p.Before.Year() > 9999 {
		return ViewPage{}, errors.New("not a place in the log of views")
	}
	return p, nil
}

const viewsOf = `
	SELECT actor_kind, actor_id, child_id, what, channel, at, id
	  FROM access.view_log
	 WHERE child_id = $1 AND at <= $2 AND (at, id) < ($2, $3)
	 ORDER BY at DESC, id DESC
	 LIMIT $4`

// Views returns a page of the looks at a child's data, newest first, for the
// child's representatives to read, and where the next page begins; its zero
// value is the end. The caller asks [May] first.
func Views(ctx context.Context, q pg.Querier, child ledger.PersonID, page ViewPage, limit int) ([]View, ViewPage, error) {
	if page.Before.IsZero() {
		page = ViewPage{Before: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)}
	}
	rows, err := q.Query(ctx, viewsOf, child, page.Before, page.id, limit)
	if err != nil {
		return nil, ViewPage{}, fmt.Errorf("read the views of person %d: %w", child, err)
	}
	var next ViewPage
	views, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (View, error) {
		var v View
		err := row.Scan(&v.Who.Kind, &v.Who.ID, &v.Child, &v.What, &v.Channel, &v.At, &next.id)
		next.Before = v.At
		return v, err
	})
	if err != nil {
		return nil, ViewPage{}, fmt.Errorf("read the views of person %d: %w", child, err)
	}
	if len(views) < limit {
		next = ViewPage{}
	}
	return views, next, nil
}

// Limits of a ViewLog.
const (
	viewRequests = 256 // requests whose looks share one statement
	viewParallel = 2
	viewTime     = 5 * time.Second
)

// ViewLog writes looks for many requests at once: those that meet share one
// statement. Unlike a log that is written afterwards it loses none, since each
// request waits for its own.
type ViewLog struct {
	gather *pg.Gatherer[[]View, struct{}]
}

// NewViewLog returns a ViewLog, to be closed after its users have ended.
func NewViewLog(q pg.Querier) *ViewLog {
	config := pg.GathererConfig{Max: viewRequests, Parallel: viewParallel}
	return &ViewLog{pg.NewGatherer(config, func(ctx context.Context, batch [][]View) ([]struct{}, error) {
		ctx, cancel := context.WithTimeout(ctx, viewTime)
		defer cancel()
		return make([]struct{}, len(batch)), LogView(ctx, q, slices.Concat(batch...))
	})}
}

// Write returns when the looks are on record. Its caller shows nothing on an error.
func (l *ViewLog) Write(ctx context.Context, views ...View) error {
	if len(views) == 0 {
		return nil
	}
	_, err := l.gather.Do(ctx, views)
	return err
}

// Close waits for what is being written.
func (l *ViewLog) Close() { l.gather.Close() }
