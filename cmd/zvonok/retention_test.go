package main

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"zvonok/access"
	"zvonok/ledger/pg"
	"zvonok/ledger/pg/pgtest"
)

// Issue 6, item 7: within 30 days after a withdrawal or after somebody has left
// the data is destroyed, the books stay, and an act that cannot be rewritten says so.
func TestRetentionDestroysInTimeAndWritesTheAct(t *testing.T) {
	t.Parallel()
	url := pgtest.NewURL(t)
	must(t, url, "import", registryFolder(t, nil))
	execute(t, url, `UPDATE access.representative SET created_at = now() - interval '1 year'`)
	execute(t, url, `UPDATE access.consent SET since = now() - interval '1 year', withdrawn_at = now() - interval '29 days 1 hour'
		WHERE child_id = (SELECT min(child_id) FROM access.consent)`)
	execute(t, url, `UPDATE ledger.person SET left_on = current_date - 31 WHERE code IN ('p-1', 'p-2')`)
	execute(t, url, `UPDATE ledger.balance b SET posted = 0 FROM ledger.account a JOIN ledger.person p ON p.id = a.person_id
		WHERE a.id = b.account_id AND p.code = 'p-1'`)
	execute(t, url, `UPDATE ledger.balance b SET posted = 100 FROM ledger.account a JOIN ledger.person p ON p.id = a.person_id
		WHERE a.id = b.account_id AND p.code = 'p-2'`)
	execute(t, url, `INSERT INTO door.excuse (person_id, first_day, last_day, reason, actor, created_at)
		SELECT min(id), '2020-01-01', '2020-01-02', 'болезнь', 'staff:t', now() FROM ledger.person`)
	var act access.Destruction
	if err := json.Unmarshal([]byte(must(t, url, "retention", "run", "--by", "director", "--json")), &act); err != nil {
		t.Fatal(err)
	}
	if act.Destroyed["representatives_erased"] < 1 || act.Destroyed["denials_alarms_excuses"] != 1 ||
		act.Destroyed["people_pseudonymised"] < 1 || act.By != "staff:director" {
		t.Errorf("the act is %+v", act)
	}
	execute(t, url, `DO $$ BEGIN
		ASSERT (SELECT family_name FROM ledger.person WHERE code = 'p-1') = '—', 'who has left is named';
		ASSERT NOT EXISTS (SELECT FROM ledger.account a JOIN ledger.person p ON p.id = a.person_id JOIN ledger.balance b ON b.account_id = a.id
			WHERE p.code = 'p-2' AND b.posted <> 0 AND p.family_name = '—'), 'money that is owed lost its owner';
	END $$`)
	if again := must(t, url, "retention", "run"); !strings.Contains(again, "nothing was past its time") {
		t.Errorf("again: %s", again)
	}
	if list := must(t, url, "retention", "acts"); strings.Count(list, "\n") != 3 || !strings.Contains(list, "staff:director") {
		t.Errorf("acts:\n%s", list)
	}
	// By itself it runs once a day, whichever process looks.
	pool, err := pg.Open(t.Context(), pg.Config{URL: url, AppName: "test", Role: pg.AppRole})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	count := func() (n int) {
		if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM access.destruction`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for hours, want := range []int{2, 2} {
		if err := retainDaily(t.Context(), pool, slog.New(slog.DiscardHandler), time.Now().Add(time.Duration(hours)*time.Hour)); err != nil || count() != want {
			t.Errorf("after %d hours: %v, %d acts", hours, err, count())
		}
	}
	if err := retainDaily(t.Context(), pool, slog.New(slog.DiscardHandler), time.Now().Add(retentionPeriod)); err != nil || count() != 3 {
		t.Errorf("a day later: %v, %d acts", err, count())
	}
	if _, err := pool.Exec(t.Context(), `DELETE FROM access.destruction`); err == nil {
		t.Error("an act can be deleted")
	}
}
