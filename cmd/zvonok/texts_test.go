package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger/pg/pgtest"
)

// Fault row 48, issue 7 item 4: in the running program a good file of texts is in
// use from the next message on, a broken one is refused with its place and
// changes nothing.
func TestAHangupMakesARunningGatewayReadItsTextsAgain(t *testing.T) {
	t.Parallel()
	url, dir := pgtest.NewURL(t), t.TempDir()
	if _, stderr, code := zvonok(t, url, "import", registryFolder(t, nil)); code != exitDone {
		t.Fatal(stderr)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	// Children whose parents hear of passes by SMS, in Russian letters.
	rows, err := conn.Query(t.Context(), `
		SELECT DISTINCT ON (c.person_id) b.code, c.uid FROM access.card AS c
		JOIN subscription.subscription AS s ON s.child_id = c.person_id AND s.topic = 'pass' AND s.mode = 'now' AND s.channel = 'sms'
		JOIN access.representative AS r ON r.id = s.representative_id AND r.language = 'ru' AND NOT r.translit
		JOIN ledger.organisation AS o ON o.id = c.organisation_id AND o.kind = 'school'
		JOIN ledger.building AS b ON b.organisation_id = o.id
		WHERE o.id = (SELECT min(id) FROM ledger.organisation WHERE kind = 'school')
		ORDER BY c.person_id, b.id`)
	if err != nil {
		t.Fatal(err)
	}
	type card struct{ Building, UID string }
	cards, err := pgx.CollectRows(rows, pgx.RowToStructByPos[card])
	if err != nil || len(cards) < 3 {
		t.Fatalf("%d cards, %v", len(cards), err)
	}
	stdout, stderr, code := zvonok(t, url, "key", "add", "--kind", "door", "--building", cards[0].Building, "--name", "d", "--json")
	var key struct{ Key string }
	if code != exitDone || json.Unmarshal([]byte(stdout), &key) != nil {
		t.Fatalf("exit %d: %s", code, stderr)
	}

	texts := filepath.Join(dir, "texts.toml")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(texts, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	words := func(first string) string {
		return fmt.Sprintf("[ru]\npass_in = '%[1]s {{.Time}} {{.Names}}'\npass_in_balance = '%[1]s {{.Time}} {{.Names}} {{.Balance}}'\n", first)
	}
	write(words("Пришли"))
	settings := fmt.Sprintf("data_dir = %q\n[database]\nurl = %q\n[http]\nlisten = '127.0.0.1:0'\n[admin]\nlisten = '127.0.0.1:0'\n"+
		"[smpp]\nlisten = '127.0.0.1:0'\n[notice]\ntemplates_file = %q\n", filepath.Join(dir, "var"), url, texts)
	if err := os.WriteFile(filepath.Join(dir, "zvonok.toml"), []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	gateway := start(t, dir, "serve")
	seq := 0
	told := func(first string) {
		t.Helper()
		now := time.Now().Format(time.RFC3339)
		status, answer := gateway.upload(t, key.Key, fmt.Sprintf(
			`{"sent_at":%q,"events":[{"seq":%d,"type":"pass","card":%q,"direction":"in","at":%q}]}`, now, seq+1, cards[seq].UID, now))
		if status != 200 || fmt.Sprint(answer["acknowledged"]) != fmt.Sprintf("[%d]", seq+1) {
			t.Fatalf("the door was answered %d %v", status, answer)
		}
		seq++
		var body string
		eventually(t, "the message", func() bool {
			return conn.QueryRow(t.Context(), `
				SELECT body FROM delivery.delivery AS d JOIN reader.event AS e ON e.event_id = d.event_id
				WHERE e.seq = $1 AND d.channel = 'sms' LIMIT 1`, seq).Scan(&body) == nil
		})
		if !strings.HasPrefix(body, first+" ") {
			t.Errorf("the message is %q, want %q", body, first)
		}
	}
	said := func(what string, times int) {
		t.Helper()
		eventually(t, fmt.Sprintf("the log to say %q %d times:\n%s", what, times, gateway.stderr), func() bool {
			return strings.Count(gateway.stderr.String(), what) >= times
		})
	}
	const used = "the texts of notice.templates_file are in use"

	told("Пришли")
	write(words("Явились"))
	_ = gateway.command.Process.Signal(syscall.SIGHUP)
	said(used, 1)
	told("Явились")

	write("[ru]\nopt_in = 'SMS'\npass_in = 'Вот {{.Time'\n")
	_ = gateway.command.Process.Signal(syscall.SIGHUP)
	said(texts+":3: [ru] pass_in: is no template", 1)
	said("the texts before it stay in use", 1)
	told("Явились")

	write(words("Тут"))
	_ = gateway.command.Process.Signal(syscall.SIGHUP)
	said(used, 2)
	// Nothing has changed: only a hangup makes it read the file once more.
	_ = gateway.command.Process.Signal(syscall.SIGHUP)
	said(used, 3)
	if code := gateway.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit %d", code)
	}
}
