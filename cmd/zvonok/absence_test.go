package main

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger/pg/pgtest"
)

// execute runs SQL as the owner of the database.
func execute(t *testing.T, url, sql string, args ...any) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

// must runs a command that cannot fail and returns what it printed.
func must(t *testing.T, url string, args ...string) string {
	t.Helper()
	stdout, stderr, code := zvonok(t, url, args...)
	if code != exitDone {
		t.Fatalf("zvonok %s: exit %d, %s", strings.Join(args, " "), code, stderr)
	}
	return stdout
}

// Fault row 59: a person decides on what was held.
func TestAHeldBatchOfAbsencesIsListedAndDecidedOnce(t *testing.T) {
	t.Parallel()
	url := pgtest.NewURL(t)
	must(t, url, "import", registryFolder(t, nil))
	must(t, url, "absence", "set", "org-1", "09:15")
	if list := must(t, url, "absence", "rules"); !strings.Contains(list, "09:15") {
		t.Errorf("rules:\n%s", list)
	}
	execute(t, url, `
		INSERT INTO door.absence_batch (organisation_id, day, made_at, state, cause, arrived, usual)
		SELECT id, '2026-11-23', now(), 'held', 'few_arrivals', 3, 40 FROM ledger.organisation ORDER BY id LIMIT 2`)
	list := must(t, url, "absence", "list")
	if strings.Count(list, "few_arrivals") != 2 || !strings.Contains(list, "3 of usually 40") {
		t.Errorf("held:\n%s", list)
	}
	must(t, url, "absence", "release", "1", "--by", "staff-7")
	must(t, url, "absence", "cancel", "2")
	for _, args := range [][]string{{"absence", "release", "2"}, {"absence", "cancel", "1"}, {"absence", "release", "99"}} {
		if _, stderr, code := zvonok(t, url, args...); code != exitFailed || !strings.Contains(stderr, "absence list") {
			t.Errorf("%v: exit %d, %q", args, code, stderr)
		}
	}
	if list := must(t, url, "absence", "list"); strings.Contains(list, "few_arrivals") {
		t.Errorf("still held:\n%s", list)
	}
	if list := must(t, url, "absence", "list", "--days", "3650"); !strings.Contains(list, "staff:staff-7") {
		t.Errorf("decided:\n%s", list)
	}
	must(t, url, "absence", "set", "org-1", "off")
	if _, _, code := zvonok(t, url, "absence", "set", "org-1", "quarter past nine"); code != exitUsage {
		t.Errorf("a time that is none: exit %d", code)
	}
}
