package door

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger/pg"
	"zvonok/ledger/pg/pgtest"
)

// The neighbours of late passes are looked up for each person, also by a plan
// that was made when there was no pass yet and is kept: else a door that was
// offline takes longer with each upload (issue 6: 100,000 events under 30 s).
func TestNeighboursAreFoundByPersonEvenByAPlanMadeForEmptyTables(t *testing.T) {
	t.Parallel()
	conn, err := pgx.Connect(t.Context(), pgtest.NewURL(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for _, sql := range []string{
		pg.PlannedOnce.BeginQuery,
		"PREPARE question (bigint[], timestamptz[], timestamptz[], timestamptz, timestamptz) AS " + neighbours,
	} {
		if _, err := conn.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := conn.Query(t.Context(), `EXPLAIN EXECUTE question ('{1}', '{2026-11-01}', '{2026-11-02}', '2026-11-01', '2026-11-02')`,
		pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	if plan := strings.Join(lines, "\n"); strings.Contains(plan, "Join Filter") || !strings.Contains(plan, "Index Cond: ((person_id = t.person_id) AND (at >= t.since)") {
		t.Errorf("the plan is\n%s", plan)
	}
}
