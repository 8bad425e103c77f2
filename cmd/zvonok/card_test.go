package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"zvonok/ledger/pg/pgtest"
)

// R16, R17, R18, R19, R21: a school without a tablet does it from the command line.
func TestACardIsIssuedHandedOverBlockedAndReplaced(t *testing.T) {
	t.Parallel()
	url := pgtest.NewURL(t)
	must(t, url, "import", registryFolder(t, nil))
	card := func(args ...string) (c shownCard) {
		t.Helper()
		if err := json.Unmarshal([]byte(must(t, url, append(append([]string{"card"}, args...), "--json")...)), &c); err != nil {
			t.Fatal(err)
		}
		return c
	}
	id := func(c shownCard) string { data, _ := json.Marshal(c.ID); return string(data) }
	issued := card("issue", "--person", "p-1", "--card", "04AABBCCDDEE80", "--kind", "social", "--by", "staff-7")
	if issued.State != "issued" || issued.Person != "p-1" {
		t.Fatalf("issued %+v", issued)
	}
	card("hand-over", id(issued), "--signature", "sheet 12, line 3")
	blocked := card("block", id(issued), "--note", "lost")
	if blocked.State != "blocked_lost" || len(blocked.History) != 3 || blocked.History[0].By != "staff:staff-7" ||
		blocked.History[1].Signature != "sheet 12, line 3" || !strings.HasPrefix(blocked.History[2].By, "staff:os:") {
		t.Errorf("blocked %+v", blocked)
	}
	if lent := card("temporary", "--person", "p-1", "--card", "04AABBCCDDEE81"); lent.State != "temporary" || lent.ValidUntil.IsZero() {
		t.Errorf("lent %+v", lent)
	}
	next := card("replace", id(issued), "--card", "04AABBCCDDEE82", "--until", "2099-05-31")
	if next.State != "issued" || next.Kind != "social" || next.ValidUntil.IsZero() {
		t.Errorf("the new card is %+v", next)
	}
	card("return", id(issued))
	if destroyed := card("destroy", id(issued)); destroyed.State != "destroyed" {
		t.Errorf("destroyed %+v", destroyed)
	}
	if list := must(t, url, "card", "find", "--card", "04aabbccddee82"); !strings.Contains(list, "issued") {
		t.Errorf("found:\n%s", list)
	}
	// A reader that keeps three octets makes some identifiers the same.
	must(t, url, "key", "add", "--kind", "door", "--building", "b-1", "--name", "W26", "--profile", "w26")
	for _, test := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"issue", "--person", "p-1", "--card", "99CCDDEE82"}, exitFailed, "tail3"},
		{[]string{"issue", "--person", "p-1", "--card", "04AABBCCDDEE82"}, exitFailed, "belongs to card"},
		{[]string{"issue", "--person", "p-1", "--card", "8804A1B2"}, exitUsage, "read all of it"},
		{[]string{"issue", "--person", "p-1", "--card", "9A3F10FF", "--kind", "ring"}, exitUsage, "bracelet"},
		{[]string{"issue", "--person", "p-9999", "--card", "9A3F10FF"}, exitFailed, "people.csv"},
		{[]string{"block", "99999"}, exitFailed, "card find"},
		{[]string{"hand-over", id(issued), "--signature", "x"}, exitFailed, "destroyed"},
	} {
		if _, stderr, code := zvonok(t, url, append([]string{"card"}, test.args...)...); code != test.code || !strings.Contains(stderr, test.says) {
			t.Errorf("%v: exit %d, %q", test.args, code, stderr)
		}
	}
}

// R4, R48: lists by command, every look at a child in the access log.
func TestPresenceAndAttendanceArePrinted(t *testing.T) {
	t.Parallel()
	url := pgtest.NewURL(t)
	must(t, url, "import", registryFolder(t, nil))
	dir := t.TempDir()
	file := filepath.Join(dir, "timetable.csv")
	if err := os.WriteFile(file, []byte("group,weekday,begins\n,1,00:00\n,2,00:00\n,3,00:00\n,4,00:00\n,5,00:00\n,6,00:00\n,7,00:00\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, url, "timetable", "set", "org-1", file)
	if show := must(t, url, "timetable", "show", "org-1"); strings.Count(show, "00:00") != 7 {
		t.Errorf("timetable:\n%s", show)
	}
	execute(t, url, `INSERT INTO door.presence (person_id, last_at, last_direction, last_building_id, last_device_id, day, day_first_in)
		SELECT p.id, now(), 1, b.id, 1, current_date, now() FROM ledger.person p JOIN ledger.building b USING (organisation_id)
		WHERE p.code = (SELECT min(p.code) FROM ledger.person p JOIN ledger.organisation o ON o.id = p.organisation_id
			WHERE o.code = 'org-1' AND p.kind = 'pupil') LIMIT 1`)
	page := filepath.Join(dir, "list.html")
	must(t, url, "presence", "org-1", "--format", "html", "--output", page)
	if data, err := os.ReadFile(page); err != nil || !strings.Contains(string(data), "Список для эвакуации") {
		t.Errorf("the page: %v\n%s", err, data)
	}
	today := time.Now().Format(time.DateOnly)
	if list := must(t, url, "attendance", "org-1", "--from", today, "--format", "csv"); !strings.Contains(list, ",absent,") {
		t.Errorf("attendance:\n%s", list)
	}
	if groups := must(t, url, "attendance", "org-1", "--from", today, "--by-group"); !strings.Contains(groups, "MISSING") {
		t.Errorf("groups:\n%s", groups)
	}
	must(t, url, "timetable", "holiday", "org-1", today)
	if list := must(t, url, "attendance", "org-1", "--from", today); strings.Contains(list, "absent") {
		t.Errorf("on a holiday:\n%s", list)
	}
	must(t, url, "excuse", "add", "p-1", "--from", today, "--reason", "болезнь")
	if list := must(t, url, "excuse", "list", "org-1", "--from", today); !strings.Contains(list, "болезнь") {
		t.Errorf("excuses:\n%s", list)
	}
	must(t, url, "excuse", "withdraw", "org-1", "1")
	must(t, url, "quarantine", "list", "org-1")
	must(t, url, "key", "gaps", "1")
	execute(t, url, `DO $$ BEGIN ASSERT (SELECT count(*) FROM access.view_log WHERE channel = 'export') > 3, 'looks are not logged'; END $$`)
}
