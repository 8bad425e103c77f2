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
	// A message of the last day before the withdrawal to somebody who will be erased.
	execute(t, url, `INSERT INTO delivery.delivery (id, at, event_id, representative_id, topic, channel, address, priority, again, expires_at, body, state)
		SELECT 1, c.withdrawn_at - interval '1 hour', 1, r.id, 'pass', 'sms', r.phone, 1, 'fresh', c.withdrawn_at, 'Вход 08:15 Маша П.', 'delivered'
		  FROM access.consent c JOIN access.representative r ON r.id = c.representative_id WHERE c.withdrawn_at IS NOT NULL LIMIT 1`)
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
		ASSERT EXISTS (SELECT FROM delivery.delivery WHERE address = '' AND body = '' AND state = 'delivered'),
			'30 days after the withdrawal a message still says to whom it went, or what';
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

// Texts of messages and raw bodies of rejected events are destroyed by the same
// run, in the same act; what is explained afterwards lacks nothing but them. A
// run that broke off has its share in the act of the next.
func TestRetentionDestroysTextsAndRawBodiesAndTheActSaysHowMany(t *testing.T) {
	t.Parallel()
	url := pgtest.NewURL(t)
	must(t, url, "import", registryFolder(t, nil))
	must(t, url, "key", "add", "--kind", "door", "--building", "b-1", "--name", "Main")
	execute(t, url, `INSERT INTO reader.event (device_id, seq, event_id, at, received_at, type, state, body_hash)
		SELECT 1, n, 1000 + n, now() - interval '60 days', now() - interval '60 days', 1, 2, '\x00' FROM generate_series(1, 3) n`)
	execute(t, url, `INSERT INTO reader.quarantine (event_id, device_id, seq, code, message, body, received_at, settled_at, settled_by)
		SELECT 1000 + n, 1, n, 'unknown_card', 'nobody has this card', '{"card":"9A3F105C"}', now() - interval '60 days',
			CASE WHEN n < 3 THEN now() - n * interval '20 days' END, CASE WHEN n < 3 THEN 'staff:t' END FROM generate_series(1, 3) n`)
	execute(t, url, `INSERT INTO delivery.delivery (id, at, event_id, representative_id, topic, channel, address, priority, again, expires_at, body, state)
		VALUES (1, now() - interval '60 days', 1002, 1, 'pass', 'sms', '79000000001', 1, 'fresh', now() - interval '60 days', 'Вход 08:15 Маша П.', 'delivered'),
		       (2, now(), 0, NULL, 'code', 'sms', '79000000001', 1, 'never', now() - interval '1 second', 'Код 123456', 'queued')`)
	execute(t, url, `INSERT INTO access.destroyed VALUES ('message_texts', 7)`)
	// A clone: its conflicts are evidence while the alarm is open, and for 29 days after.
	execute(t, url, `INSERT INTO reader.conflict (device_id, seq, body_hash, body, received_at)
		VALUES (1, 1, '\x01', '{"card":"9A3F105C"}', now() - interval '60 days')`)
	execute(t, url, `INSERT INTO reader.device_alarm (device_id, kind, raised_at, last_at, evidence)
		VALUES (1, 'forked_numbers', now() - interval '60 days', now() - interval '60 days', 'seq 1')`)
	if list := must(t, url, "key", "list"); !strings.Contains(list, "ALARM 1: one number with two contents since") {
		t.Errorf("key list:\n%s", list)
	}
	if list := must(t, url, "key", "list", "--json"); !strings.Contains(list, `"kind": "forked_numbers"`) {
		t.Errorf("key list --json:\n%s", list)
	}
	before := must(t, url, "explain", "Main:2", "--json")

	var act access.Destruction
	if err := json.Unmarshal([]byte(must(t, url, "retention", "run", "--json")), &act); err != nil {
		t.Fatal(err)
	}
	if d := act.Destroyed; d["conflict_bodies"] != 0 || d["message_texts"] != 8 || d["secret_texts"] != 1 || d["quarantine_bodies"] != 1 {
		t.Errorf("the act is %+v", act)
	}
	execute(t, url, `DO $$ BEGIN
		ASSERT (SELECT string_agg(seq::text, ' ' ORDER BY seq) FROM reader.quarantine WHERE body IS NOT NULL) = '1 3',
			'what was settled lately, or not at all, keeps its body; the other does not';
		ASSERT NOT EXISTS (SELECT FROM delivery.delivery WHERE body <> ''), 'a text is left';
		ASSERT NOT EXISTS (SELECT FROM access.destroyed), 'the act left something out';
	END $$`)
	if after := must(t, url, "explain", "Main:2", "--json"); after != before {
		t.Errorf("before: %s\nafter: %s", before, after)
	}
	if again := must(t, url, "retention", "run"); !strings.Contains(again, "nothing was past its time") {
		t.Errorf("again: %s", again)
	}
	must(t, url, "key", "settle", "1", "--by", "director")
	if _, _, code := zvonok(t, url, "key", "settle", "1"); code != exitFailed {
		t.Errorf("settled twice: exit %d", code)
	}
	if list := must(t, url, "key", "list"); strings.Contains(list, "ALARM") {
		t.Errorf("after it was settled:\n%s", list)
	}
	must(t, url, "retention", "run")
	execute(t, url, `DO $$ BEGIN ASSERT (SELECT body IS NOT NULL FROM reader.conflict), 'evidence is gone a moment after it was settled'; END $$`)
	execute(t, url, `UPDATE reader.device_alarm SET settled_at = now() - interval '30 days'`)
	if again := must(t, url, "retention", "run"); !strings.Contains(again, "conflict_bodies: 1") {
		t.Errorf("30 days after it was settled: %s", again)
	}
	// What nobody looked after goes as the pass would have.
	execute(t, url, `UPDATE reader.quarantine SET received_at = now() - interval '2 years 1 day' WHERE settled_at IS NULL`)
	if again := must(t, url, "retention", "run"); !strings.Contains(again, "quarantine_bodies: 1") {
		t.Errorf("two years later: %s", again)
	}
}
