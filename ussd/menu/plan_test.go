package menu

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"zvonok/access/phone"
	"zvonok/ledger/pg/pgtest"
	"zvonok/templates"
	"zvonok/ussd"
)

// asked is one statement a screen asked the database.
type asked struct {
	sql  string
	args []any
}

// tracer notes the statements that pass.
type tracer struct {
	mu    sync.Mutex
	asked []asked
}

func (t *tracer) note(sql string, args []any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.asked = append(t.asked, asked{sql, args})
}

func (t *tracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	t.note(data.SQL, data.Args)
	return ctx
}

func (t *tracer) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (t *tracer) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return ctx
}

func (t *tracer) TraceBatchQuery(_ context.Context, _ *pgx.Conn, data pgx.TraceBatchQueryData) {
	t.note(data.SQL, data.Args)
}

func (t *tracer) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

// during returns what was asked while do ran.
func (t *tracer) during(do func()) []asked {
	t.mu.Lock()
	t.asked = nil
	t.mu.Unlock()
	do()
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.asked)
}

// traced opens a database whose statements are noted, as its owner: the application may not ANALYZE.
func traced(tb testing.TB) (*pgxpool.Pool, *tracer) {
	tb.Helper()
	config, err := pgxpool.ParseConfig(pgtest.NewURL(tb))
	if err != nil {
		tb.Fatal(err)
	}
	t := &tracer{}
	config.ConnConfig.Tracer = t
	pool, err := pgxpool.NewWithConfig(tb.Context(), config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(pool.Close)
	return pool, t
}

const (
	crowd     = 8_000 // children: enough for the planner to choose as it will for 400,000
	firstCost = 80    // pages of the database the first screen may touch
	otherCost = 250
	olderCost = 20 // pages more that years of history may cost: an index grows by a level
)

// fill makes a city with some weeks of history.
func fill(tb testing.TB, pool *pgxpool.Pool) {
	tb.Helper()
	for _, sql := range []string{
		`INSERT INTO ledger.payee (code, name, inn, payment_code) VALUES ('kp', 'Kitchen', '7723862777', '916')`,
		`INSERT INTO ledger.organisation (id, code, kind, name, short_name, payee_code, time_zone)
		 SELECT n, 's-' || n, 'school', 'School', 'School', 'kp', 'Europe/Moscow' FROM generate_series(1, 700) n`,
		`INSERT INTO ledger.person (id, code, organisation_id, kind, family_name, given_name)
		 SELECT n, 'p-' || n, 1 + n % 700, 'pupil', 'Петрова', 'Мария' FROM generate_series(1, $1::int) n`,
		`INSERT INTO ledger.account (id, kind, person_id, number)
		 SELECT 1000000 + n, 'wallet', n, lpad(n::text, 8, '0') FROM generate_series(1, $1::int) n`,
		`INSERT INTO ledger.balance (account_id, posted, policy_floor, floor, ver)
		 SELECT 1000000 + n, 14350, -30000, -30000, 6 FROM generate_series(1, $1::int) n`,
		`INSERT INTO ledger.posting (id, event_id, amount, debit_id, credit_id, debit_after, debit_ver, occurred_at, posted_at,
		                             xid, booking_day, kind, source, ext_id, forced)
		 SELECT m * 1000000 + n, m * 1000000 + n, 5000, 1000000 + n, 7, 14350, m, $2::timestamptz - m * interval '3 days',
		        $2::timestamptz, 1, ($2::timestamptz - m * interval '3 days')::date, 'hot', 'till/1', m || '-' || n, false
		   FROM generate_series(1, $1::int) n, generate_series(1, 6) m`,
		`INSERT INTO meal.sale (event_id, posting_id, person_id, organisation_id, device_id, seq, total, balance, at, day,
		                        booked_on, offline, kind, meal, booked, payee_code)
		 SELECT m * 1000000 + n, m * 1000000 + n, n, 1 + n % 700, 1, m * 1000000 + n, 5000, 14350,
		        $2::timestamptz - m * interval '1 day', ($2::timestamptz - m * interval '1 day')::date,
		        ($2::timestamptz - m * interval '1 day')::date, false, 'hot', 'lunch', 'wallet', 'kp'
		   FROM generate_series(1, $1::int) n, generate_series(0, 3) m`,
		`INSERT INTO meal.menu (organisation_id, day, meal, dish, price)
		 SELECT o, ($2::timestamptz - d * interval '1 day')::date, 'lunch', dish, 0
		   FROM generate_series(1, 700) o, generate_series(0, 9) d, unnest(ARRAY['Борщ', 'Котлета', 'Компот']) dish
		  WHERE $1::int > 0`,
		`INSERT INTO access.representative (id, phone, family_name, given_name)
		 SELECT n, 79000000000 + n, 'Петров', 'Олег' FROM generate_series(1, $1::int) n`,
		`INSERT INTO access.guardian (child_id, representative_id, role, since)
		 SELECT n, n, 'legal', timestamptz '2024-01-01' FROM generate_series(1, $1::int) n UNION ALL
		 SELECT n, 1 + n % $1::int, 'trusted', timestamptz '2024-01-01' FROM generate_series(1, $1::int) n`,
		`INSERT INTO access.consent (child_id, representative_id, visits, meals, form, given_on, since)
		 SELECT n, n, true, true, 'registry', '2024-01-01', '2024-01-01' FROM generate_series(1, $1::int) n`,
		`INSERT INTO subscription.subscription (child_id, topic, mode, representative_id, channel)
		 SELECT n, 'pass', 'now', n, 'sms' FROM generate_series(1, $1::int) n`,
		`INSERT INTO door.pass (event_id, at, received_at, person_id, organisation_id, building_id, device_id, direction, kind,
		                        merged, suspected, inferred, silent)
		 SELECT m * 1000000 + n, $2::timestamptz - m * interval '12 hours', $2, n, 1 + n % 700, 1, 1, 1 + m % 2, 1,
		        false, false, false, false
		   FROM generate_series(1, $1::int) n, generate_series(1, 12) m`,
		`INSERT INTO door.presence (person_id, last_at, last_direction, last_building_id, day, day_first_in)
		 SELECT n, $2::timestamptz, 1, 1, $2::timestamptz::date, $2::timestamptz FROM generate_series(1, $1::int) n`,
		`ANALYZE`,
	} {
		var args []any
		if strings.Contains(sql, "$1") {
			args = append(args, crowd)
		}
		if strings.Contains(sql, "$2") {
			args = append(args, now)
		}
		if _, err := pool.Exec(tb.Context(), sql, args...); err != nil {
			tb.Fatalf("%s: %v", sql, err)
		}
	}
}

func plain(pool *pgxpool.Pool) *Menu {
	menu, err := New(Config{
		Pool: pool, Code: "*377*888#", Log: slog.New(slog.DiscardHandler), Metrics: NewMetrics(prometheus.NewRegistry()),
		Send: func(context.Context, phone.Number, string) error { return nil },
		Now:  func() time.Time { return now },
	})
	if err != nil {
		panic(err)
	}
	return menu
}

// Issue 4, Speed: the query plan of the first screen is index-only or single-row lookups, whatever the size of history;
// and so are those of all other screens.
func TestScreensAreReadByIndexesWhateverTheHistory(t *testing.T) {
	t.Parallel()
	pool, tracer := traced(t)
	fill(t, pool)
	menu := plain(pool)
	const child = 1234
	visit := func(place string, path ...string) ussd.Visit {
		v := ussd.Visit{Link: "op", Phone: "79000001234", Path: path, At: now}
		if place != "" {
			v.Place = ussd.Place{Name: place, Arg: child}
		}
		return v
	}
	screens := map[string]ussd.Visit{
		"the first screen": visit(""), "balance": visit("", "1"), "last visit": visit("", "2"), "meals today": visit("", "3"),
		"by SMS": visit("", "4"), "child": visit(placeChild), "meals": visit(placeMeals), "visits": visit(placeVisits),
		"SMS": visit(placeSMS), "history": visit(placeHistory), "top up": visit(placeTopUp), "access": visit(placeAccess),
		"language": visit(placeLanguage), "a stranger": {Phone: "79995556677", At: now},
	}
	// cost is what a screen asks and how many pages of the database that touches.
	cost := func(what string) (statements []asked, pages int) {
		t.Helper()
		statements = tracer.during(func() {
			screen, err := menu.Show(t.Context(), screens[what])
			if err != nil || len(screen.Lines)+len(screen.Items) == 0 {
				t.Fatalf("%s: %+v, %v", what, screen, err)
			}
		})
		for _, s := range statements {
			plan := explain(t, pool, s)
			pages += plan.pages()
			plan.walk(func(n *node) {
				// One page is a table of a few rows, such as the payees, or a month that has not begun.
				if n.Type == "Seq Scan" && n.pages() > 1 {
					t.Errorf("%s: %s is read from end to end: %s", what, n.Relation, s.sql)
				}
			})
		}
		return statements, pages
	}
	young := map[string]int{}
	for what := range screens {
		statements, pages := cost(what)
		limit := otherCost
		if what == "the first screen" || what == "a stranger" || what == "balance" {
			limit = firstCost
		}
		t.Logf("%s: %d statements, %d pages", what, len(statements), pages)
		if pages > limit || len(statements) < 3 || len(statements) > 10 {
			t.Errorf("%s touches %d pages in %d statements", what, pages, len(statements))
		}
		young[what] = pages
	}
	age(t, pool, child)
	for what := range screens {
		if _, pages := cost(what); pages > young[what]+olderCost {
			t.Errorf("%s touches %d pages after years, %d before", what, pages, young[what])
		}
	}
}

// age gives one child years of passes, sales and movements, all of them before what the city has.
func age(t *testing.T, pool *pgxpool.Pool, child int) {
	t.Helper()
	const rows = 4_000
	for _, sql := range []string{
		`INSERT INTO door.pass (event_id, at, received_at, person_id, organisation_id, building_id, device_id, direction, kind,
		                        merged, suspected, inferred, silent)
		 SELECT 900000000 + n, $3::timestamptz - interval '20 days' - n * interval '6 hours', $3, $1, 1, 1, 1, 1 + n % 2, 1,
		        false, false, false, false
		   FROM generate_series(1, $2::int) n`,
		`INSERT INTO ledger.posting (id, event_id, amount, debit_id, credit_id, debit_after, debit_ver, occurred_at, posted_at,
		                             xid, booking_day, kind, source, ext_id, forced)
		 SELECT n, 900000000 + n, 5000, 1000000 + $1, 7, 14350, -n, $3::timestamptz - interval '20 days' - n * interval '6 hours',
		        $3::timestamptz, 1, ($3::timestamptz - interval '20 days' - n * interval '6 hours')::date, 'hot', 'till/1', 'old-' || n,
		        false
		   FROM generate_series(1, $2::int) n`,
		`INSERT INTO meal.sale (event_id, posting_id, person_id, organisation_id, device_id, seq, total, balance, at, day,
		                        booked_on, offline, kind, meal, booked, payee_code)
		 SELECT 900000000 + n, n, $1, 1, 1, 900000000 + n, 5000, 14350, at, at::date, at::date, false, 'hot', 'lunch', 'wallet', 'kp'
		   FROM (SELECT n, $3::timestamptz - interval '20 days' - n * interval '6 hours' AS at FROM generate_series(1, $2::int) n) old`,
		`ANALYZE`,
	} {
		var args []any
		if strings.Contains(sql, "$1") {
			args = []any{child, rows, now}
		}
		if _, err := pool.Exec(t.Context(), sql, args...); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// node is a step of a plan.
type node struct {
	Type     string `json:"Node Type"`
	Relation string `json:"Relation Name"`
	Hit      int    `json:"Shared Hit Blocks"`
	Read     int    `json:"Shared Read Blocks"`
	Plans    []node
}

// pages is how many pages of the database the step and those below it touched.
func (n *node) pages() int { return n.Hit + n.Read }

// walk visits the step and those below it.
func (n *node) walk(visit func(*node)) {
	visit(n)
	for i := range n.Plans {
		n.Plans[i].walk(visit)
	}
}

// explain runs a statement again and returns how it was answered.
func explain(t *testing.T, pool *pgxpool.Pool, s asked) *node {
	t.Helper()
	var raw []byte
	if err := pool.QueryRow(t.Context(), "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "+s.sql, s.args...).Scan(&raw); err != nil {
		t.Fatalf("explain %s: %v", s.sql, err)
	}
	var plans []struct{ Plan node }
	if err := json.Unmarshal(raw, &plans); err != nil {
		t.Fatal(err)
	}
	return &plans[0].Plan
}

// Issue 4, item 3: an unknown phone, a withdrawn consent, a removed trusted person, and a number that the operator has
// declared dead: the same neutral text, in the same time. The time is that of the same questions.
func TestWhoMaySeeNobodyCostsTheSameWork(t *testing.T) {
	t.Parallel()
	pool, tracer := traced(t)
	for _, sql := range []string{
		`INSERT INTO ledger.organisation (id, code, kind, name, short_name, time_zone)
		 VALUES (1, 's', 'school', 'S', 'S', 'Europe/Moscow')`,
		`INSERT INTO ledger.person (id, code, organisation_id, kind, family_name, given_name)
		 VALUES (1, 'p', 1, 'pupil', 'П', 'М'), (2, 'q', 1, 'pupil', 'П', 'К')`,
		`INSERT INTO access.representative (id, phone, family_name, given_name, language) VALUES
		 (1, '79000000001', 'A', 'A', 'en'), (2, '79000000002', 'B', 'B', 'en'), (3, '79000000003', 'C', 'C', 'en')`,
		`INSERT INTO access.guardian (child_id, representative_id, role, since, revoked_at) VALUES
		 (1, 1, 'legal', '2024-01-01', NULL), (2, 2, 'legal', '2024-01-01', NULL), (2, 3, 'trusted', '2024-01-01', '2025-01-01')`,
		`INSERT INTO access.consent (child_id, representative_id, visits, meals, form, given_on, since, withdrawn_at) VALUES
		 (1, 1, true, true, 'registry', '2024-01-01', '2024-01-01', '2025-01-01'),
		 (2, 2, true, true, 'registry', '2024-01-01', '2024-01-01', NULL)`,
		`INSERT INTO access.representative (id, phone, family_name, given_name, language)
		 VALUES (4, '79000000004', 'D', 'D', 'en')`,
		`INSERT INTO access.guardian (child_id, representative_id, role, since) VALUES (2, 4, 'legal', '2024-01-01')`,
		`INSERT INTO access.consent (child_id, representative_id, visits, meals, form, given_on, since)
		 VALUES (2, 4, true, true, 'registry', '2024-01-01', '2024-01-01')`,
		`INSERT INTO delivery.address (channel, address, refusals, suppressed_at, reason)
		 VALUES ('sms', '79000000004', 2, clock_timestamp(), 'refused')`,
	} {
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	menu := plain(pool)
	const recycled = phone.Number("79000000004")
	for _, path := range [][]string{nil, {"1"}, {"2", "1"}, {"3"}, {"4"}, {"7"}} {
		var first []string
		var text ussd.Screen
		for _, nobody := range []phone.Number{"79000000009", "79000000001", "79000000003", recycled} {
			var screen ussd.Screen
			var err error
			var sql []string
			for _, s := range tracer.during(func() {
				screen, err = menu.Show(t.Context(), ussd.Visit{Phone: nobody, Path: path, At: now})
			}) {
				sql = append(sql, s.sql)
			}
			if err != nil {
				t.Fatal(err)
			}
			if first == nil {
				first, text = sql, screen
			}
			if nobody == recycled && len(sql) >= len(first) {
				sql = sql[:len(first)] // and then whether its owner has been confirmed since
			}
			if !slices.Equal(sql, first) || len(sql) < 3 {
				t.Errorf("%v: %s asks\n%s\nand a stranger\n%s", path, nobody, strings.Join(sql, "\n"), strings.Join(first, "\n"))
			}
			if fmt.Sprint(screen) != fmt.Sprint(text) || screen.Style != text.Style || screen.SMS != "" || !screen.End {
				t.Errorf("%v: %s reads %+v and a stranger %+v", path, nobody, screen, text)
			}
		}
	}
	screen, err := menu.Show(t.Context(), ussd.Visit{Phone: "79000000002", At: now})
	if err != nil || screen.Style.Language != templates.EN {
		t.Errorf("who may see is shown %+v, %v", screen, err)
	}
}

// BenchmarkFirstScreen is the first screen from the database, one at a time and many at once.
func BenchmarkFirstScreen(b *testing.B) {
	pool, _ := traced(b)
	fill(b, pool)
	menu := plain(pool)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); menu.Run(ctx) }()
	defer func() { stop(); <-done }()
	b.ReportAllocs()
	b.ResetTimer()
	n := 0
	for b.Loop() {
		n++
		number := phone.Number(fmt.Sprintf("7900%07d", 1+n*7919%crowd))
		if _, err := menu.Show(b.Context(), ussd.Visit{Phone: number, At: now}); err != nil {
			b.Fatal(err)
		}
	}
}
