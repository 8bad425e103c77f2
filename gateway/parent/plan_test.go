package parent_test

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"zvonok/gateway/parent"
	"zvonok/ledger/pg/pgtest"
)

// history is how many rows each growing table has in the test of plans: enough
// for the planner to prefer what it will prefer for years of a city.
const history = 20_000

// No route reads a table that grows from end to end, however much of it there
// is: every statement that the routes send is explained on a city with history,
// as it was sent and with the plan for any arguments (D16).
func TestNoRouteReadsHistoryFromEndToEnd(t *testing.T) {
	t.Parallel()
	url := pgtest.NewURL(t)
	w := worldOn(t, url)
	f := w.petrovs()
	mother := w.signIn(olga)
	w.tap("masha", 1)
	conn, err := pgx.Connect(t.Context(), url) // the owner: the application may not ANALYZE
	w.must(err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	for _, sql := range []string{
		`INSERT INTO ledger.person (code, organisation_id, kind, family_name, given_name)
		 SELECT 'crowd-' || n, 1 + n % 2, 'pupil', 'Иванов', 'Иван' FROM generate_series(1, 2500) n`,
		`INSERT INTO access.representative (phone, family_name, given_name)
		 SELECT 79100000000 + n, 'Иванов', 'Олег' FROM generate_series(1, 2500) n`,
		`INSERT INTO access.guardian (child_id, representative_id, role, since)
		 SELECT 100 + n, 100 + n, 'legal', '2026-01-01' FROM generate_series(1, 2300) n`,
		`INSERT INTO access.consent (child_id, representative_id, visits, meals, form, given_on, since)
		 SELECT 100 + n, 100 + n, true, true, 'registry', '2026-01-01', '2026-01-01' FROM generate_series(1, 2300) n`,
		`INSERT INTO access.view_log (at, child_id, actor_kind, actor_id, what, channel)
		 SELECT timestamptz '2026-11-23 10:00' - n * interval '1 minute', 1 + n % 2000, 'system', 'test', 'test', 'api' FROM generate_series(1, $1) n`,
		`INSERT INTO access.session (token_hash, phone, created_at, seen_at, expires_at)
		 SELECT sha256(n::text::bytea), 79100000000 + n, '2026-11-22', '2026-11-22', '2027-01-01' FROM generate_series(1, $1) n`,
		`INSERT INTO access.code (id, purpose, phone, created_at, expires_at)
		 SELECT gen_random_uuid(), 'sign_in', 79100000000 + n, '2026-11-22', '2026-11-22' FROM generate_series(1, $1) n`,
		`INSERT INTO access.invitation (inviter_id, phone, family_name, state, created_at, expires_at)
		 SELECT 100 + n % 2000, 79200000000 + n, 'Иванов', 'pending', timestamptz '2026-11-22', '2026-11-29' FROM generate_series(1, $1) n`,
		`INSERT INTO access.mailbox_change (id, representative_id, email, code, started_at)
		 SELECT gen_random_uuid(), 100 + n % 2000, 'x', gen_random_uuid(), '2026-11-22' FROM generate_series(1, $1) n`,
		`INSERT INTO access.phone_change (id, representative_id, old_phone, new_phone, old_code, new_code, started_at)
		 SELECT gen_random_uuid(), 100 + n % 2000, 'x', 'y', gen_random_uuid(), gen_random_uuid(), '2026-11-22' FROM generate_series(1, $1) n`,
		`INSERT INTO door.pass (event_id, at, received_at, person_id, organisation_id, building_id, device_id, direction, kind, merged, suspected, inferred, silent)
		 SELECT 1000000 + n, timestamptz '2026-11-23 10:00' - n * interval '1 minute', '2026-11-23', 1 + n % 2000, 1, 1, 1, 1 + n % 2, 1, false, false, false, false
		   FROM generate_series(1, $1) n`,
		`INSERT INTO meal.sale (event_id, posting_id, person_id, organisation_id, device_id, seq, total, at, day, booked_on, offline, kind, meal, booked, payee_code)
		 SELECT 2000000 + n, n, 1 + n % 2000, 1, 1, n, 100, '2026-11-01', date '2026-11-23' - n % 60, date '2026-11-23' - n % 60, false, 'subsidised', 'lunch', 'budget', 'kp'
		   FROM generate_series(1, $1) n`,
		`INSERT INTO meal.menu (organisation_id, day, meal, dish, price)
		 SELECT 1, date '2020-01-01' + n / 20, 'lunch', 'dish ' || n, 100 FROM generate_series(1, $1) n ON CONFLICT DO NOTHING`,
		`INSERT INTO meal.blocked (event_id, person_id, device_id, reason, total, at)
		 SELECT 3000000 + n, 1 + n % 2000, 1, 'banned', 100, timestamptz '2026-11-23' - n * interval '1 minute' FROM generate_series(1, $1) n`,
		`INSERT INTO meal.preorder (person_id, organisation_id, day, meal, price, state, ordered_by, ordered_at)
		 SELECT 100 + n % 2000, 1, date '2025-01-01' + n / 2000, 'lunch', 100, 'served', 1, '2026-01-01' FROM generate_series(1, $1) n`,
		`INSERT INTO delivery.delivery (id, at, event_id, representative_id, topic, channel, address, priority, again, expires_at, body)
		 SELECT 9000000 + n, timestamptz '2026-11-23 10:00' - n * interval '1 minute', 1000000 + n, 100 + n % 2000, 'pass', 'sms',
		        79100000000 + n % 2000, 1, 'fresh', '2026-11-23', 'x' FROM generate_series(1, $1) n`,
		`INSERT INTO notice.notice (event_id, event_at, child_id, representative_id, topic, channel, verdict, stages, decided_at)
		 SELECT 1000000 + n, timestamptz '2026-11-23 10:00' - n * interval '1 minute', 1 + n % 2000, 100 + n % 2000, 'pass', 'sms', 'told', '', '2026-11-23'
		   FROM generate_series(1, $1) n`,
		`INSERT INTO delivery.delivery (id, at, event_id, representative_id, topic, channel, address, priority, again, expires_at, body)
		 SELECT 8000000 + n, timestamptz '2026-11-23 10:00' - n * interval '1 hour', 0, r.id, 'digest', 'sms',
		        r.phone, 1, 'fresh', '2026-11-23', 'x' FROM generate_series(1, 1000) n, access.representative r WHERE r.phone = '79000000001'`,
		`ANALYZE`,
	} {
		args := []any{pgx.QueryExecModeSimpleProtocol}
		if strings.Contains(sql, "$1") {
			args = append(args, history)
		}
		if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	seen := map[string]bool{}
	check := func(op operation, limit int) {
		w.trace.take()
		if r := mother.call(op.method, f.path(op.path), f.body(op)); r.status >= 500 {
			t.Errorf("%s: %d %s", op.id, r.status, r.body)
		}
		statements := 0
		for _, s := range w.trace.take() {
			sql := strings.TrimSpace(s.sql)
			verb := strings.ToLower(strings.Fields(sql + " x")[0])
			if verb != "select" && verb != "with" && verb != "update" && verb != "delete" && verb != "insert" || strings.Contains(sql, "river") {
				continue
			}
			statements++
			for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
				if seen[mode+sql] {
					continue
				}
				seen[mode+sql] = true
				for _, scan := range scans(t, conn, mode, s) {
					t.Errorf("%s reads %s from end to end (%s):\n%s", op.id, scan, mode, sql)
				}
			}
		}
		if statements > limit {
			t.Errorf("%s sends %d statements", op.id, statements)
		}
	}
	for _, op := range w.operations() {
		if strings.HasPrefix(op.path, "/api/v1/parent/") && op.method == http.MethodGet {
			check(op, 11)
		}
	}
	for _, id := range []string{"set-subscriptions", "check-invitation", "set-settings", "refuse-invitation", "confirm-email", "confirm-phone"} {
		for _, op := range w.operations() {
			if op.id == id {
				check(op, 25)
			}
		}
	}
	if len(seen) < 60 {
		t.Errorf("only %d plans were looked at", len(seen))
	}
	// The whole log of a child of 20,000 looks is read by its pages, each as cheap as the first.
	var log parent.LogView
	mother.get(w.path("masha", "/log"), &log)
	if len(log.Views) == 0 {
		t.Error("the log is empty")
	}
}

// grown are the tables that grow with the city or with time.
var grown = regexp.MustCompile(`Seq Scan on (view_log\w*|session|code|invitation|mailbox_change|phone_change|pass\w*|sale\w*|menu|blocked|preorder|delivery_\w+|notice_\w+|representative|guardian|consent|person)\b`)

// scans returns which grown tables a statement reads from end to end.
func scans(t *testing.T, conn *pgx.Conn, mode string, s statement) []string {
	t.Helper()
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.WithoutCancel(t.Context()))
	if _, err := tx.Exec(t.Context(), "SET LOCAL plan_cache_mode = "+mode); err != nil {
		t.Fatal(err)
	}
	args := s.args
	rows, err := tx.Query(t.Context(), "EXPLAIN "+s.sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", s.sql, err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%s: %v", s.sql, err)
	}
	plan := strings.Join(lines, "\n")
	var found []string
	for _, match := range grown.FindAllStringSubmatch(plan, -1) {
		// Partitions without rows, and those that a plan for any arguments prunes when it runs, cost nothing.
		var empty bool
		if err := tx.QueryRow(t.Context(), fmt.Sprintf(`
			SELECT bool_and(reltuples < 500) FROM pg_class WHERE relname = '%s' AND relkind = 'r'`, match[1])).Scan(&empty); err != nil {
			t.Fatal(err)
		}
		if !empty {
			found = append(found, match[1]+"\n"+plan)
		}
	}
	return found
}
