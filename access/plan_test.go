package access

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger/pg/pgtest"
)

// crowd is how many children the plans are made for: enough for the planner to
// prefer what it will prefer for 400,000.
const crowd = 50_000

// The questions of the hot path read indexes only, with a plan made for the
// arguments and with one made for any (D16, issue 6: authorize under 20 ms).
func TestQuestionsOfRightsAndCardsUseIndexesOnly(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	// The owner: the application may not ANALYZE.
	conn, err := pgx.Connect(ctx, pgtest.NewURL(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	for _, sql := range []string{
		`INSERT INTO ledger.organisation (id, code, kind, name, short_name, time_zone)
		 SELECT n, 's-' || n, 'school', 'School', 'School', 'Europe/Moscow' FROM generate_series(1, 50) n`,
		`INSERT INTO ledger.person (id, code, organisation_id, kind, family_name, given_name)
		 SELECT n, 'p-' || n, 1 + n % 50, 'pupil', 'Петрова', 'Мария' FROM generate_series(1, $1) n`,
		`INSERT INTO access.representative (id, phone, family_name, given_name)
		 SELECT n, 79000000000 + n, 'Петров', 'Олег' FROM generate_series(1, $1) n`,
		`INSERT INTO access.guardian (child_id, representative_id, role, since)
		 SELECT n, 1 + n * 7 % $1::bigint, 'legal', timestamptz '2026-01-01' FROM generate_series(1, $1) n UNION ALL
		 SELECT n, 1 + (n * 7 + 1) % $1::bigint, 'trusted', timestamptz '2026-01-01' FROM generate_series(1, $1) n`,
		`INSERT INTO access.consent (child_id, representative_id, visits, meals, form, given_on, since)
		 SELECT n, 1 + n * 7 % $1::bigint, true, true, 'registry', '2026-01-01', '2026-01-01' FROM generate_series(1, $1) n`,
		`INSERT INTO access.card (organisation_id, uid, kind, person_id, state, issued_at)
		 SELECT 1 + n % 50, lpad(upper(to_hex(n)), 8, '0'), 'own', n, 'active', '2026-01-01' FROM generate_series(1, $1) n`,
		`ANALYZE ledger.person, access.representative, access.guardian, access.consent, access.card`,
	} {
		var args []any
		if strings.Contains(sql, "$1") {
			args = []any{crowd}
		}
		if _, err := conn.Exec(ctx, sql, args...); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	var children, organisations, uids, heads, tails, whole, head3, tail3, stands []string
	for n := 99; n <= 500*99; n += 99 {
		uid := fmt.Sprintf("%08X", n)
		children = append(children, fmt.Sprint(n))
		organisations = append(organisations, fmt.Sprint(1+n%50))
		uids, heads, tails = append(uids, uid), append(heads, uid[:6]), append(tails, uid[2:])
		whole, stands = append(whole, `""`), append(stands, "NULL")
		head3, tail3 = append(head3, "head3"), append(tail3, "tail3")
	}
	for _, question := range []struct {
		name, types, sql string
		args             []string
	}{
		{
			"the audience of 500 children", "bigint[], timestamptz", audience,
			[]string{array(children), "'2026-11-23'"},
		},
		{"the children of a phone", "text, timestamptz", childrenOf, []string{"'79000001234'", "'2026-11-23'"}},
		{
			"500 cards", "bigint[], text[], text[], timestamptz[]", resolveCards,
			[]string{array(organisations), array(uids), array(whole), array(stands)},
		},
		{
			"500 cards at readers that report them whole", "bigint[], text[], text[], timestamptz[]", resolveWhole,
			[]string{array(organisations), array(uids), array(whole), array(stands)},
		},
		{
			"500 cards at readers that keep the first three octets", "bigint[], text[], text[], timestamptz[]", resolveCards,
			[]string{array(organisations), array(heads), array(head3), array(stands)},
		},
		{
			"500 cards at readers that keep the last three octets", "bigint[], text[], text[], timestamptz[]", resolveCards,
			[]string{array(organisations), array(tails), array(tail3), array(stands)},
		},
	} {
		for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
			t.Run(question.name+", "+mode, func(t *testing.T) {
				plan := explain(t, conn, mode, question.types, question.sql, question.args)
				if strings.Contains(plan, "Seq Scan on") {
					t.Errorf("a table is read from end to end:\n%s", plan)
				}
			})
		}
	}
}

// array writes an array as a literal.
func array(elements []string) string { return "'{" + strings.Join(elements, ",") + "}'" }

// explain runs a question and returns how it was answered.
func explain(t *testing.T, conn *pgx.Conn, mode, types, sql string, args []string) string {
	t.Helper()
	ctx := t.Context()
	if _, err := conn.Exec(ctx, fmt.Sprintf(`
		SET plan_cache_mode = %s;
		DEALLOCATE ALL;
		PREPARE question (%s) AS %s`, mode, types, sql), pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	rows, err := conn.Query(ctx, fmt.Sprintf("EXPLAIN (ANALYZE, TIMING off) EXECUTE question (%s)", strings.Join(args, ", ")),
		pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}
