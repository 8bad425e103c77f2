package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"zvonok/ledger/pg/pgtest"
)

// R22 to R26, contract section 2 in style: an application from a file, once
// however often it is added, and what is wrong by its field.
func TestAnApplicationIsAddedFromAFile(t *testing.T) {
	t.Parallel()
	url := pgtest.NewURL(t)
	dir := t.TempDir()
	for name, text := range map[string]string{
		"organisations.csv": "org_id,kind,name,short_name,payee_id,time_zone,account_prefix\ns1,school,Школа 1,Шк 1,,Europe/Moscow,0020\n",
		"people.csv": "person_id,org_id,kind,family_name,given_name,patronymic,group,benefit,account,left\n" +
			"masha,s1,pupil,Петрова,Маша,,1А,none,,\npetya,s1,pupil,Петров,Петя,,2А,none,,\n",
		"good.json": `{"reference":"17","organisation":"s1","signed_on":"2026-11-20",
			"applicant":{"family_name":"Петрова","given_name":"Ольга","phone":"+79000000001"},
			"children":[{"person":"masha","family_name":"Петрова"},{"person":"petya","family_name":"Петров"}],
			"recipients":[{"family_name":"Соколова","given_name":"Анна","phone":"+79000000003","role":"trusted"}]}`,
		"other.json": `{"reference":"17","organisation":"s1","signed_on":"2026-11-19",
			"applicant":{"family_name":"Петрова","given_name":"Ольга","phone":"+79000000001"},
			"children":[{"person":"masha","family_name":"Петрова"}]}`,
		"bad.json": `{"reference":"18","organisation":"s1","signed_on":"20.11.2026",
			"applicant":{"family_name":"Петрова","given_name":"Ольга","phone":"none"},
			"children":[{"person":"masha","family_name":""}]}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, stderr, code := zvonok(t, url, "import", dir); code != exitDone {
		t.Fatal(stderr)
	}
	stdout, stderr, code := zvonok(t, url, "application", "add", "--json", filepath.Join(dir, "good.json"))
	var taken struct {
		Repeated         bool
		Children, People int
	}
	if err := json.Unmarshal([]byte(stdout), &taken); code != exitDone || err != nil || taken.Repeated || taken.Children != 2 || taken.People != 2 {
		t.Errorf("exit %d: %s%s", code, stdout, stderr)
	}
	if stdout, _, code := zvonok(t, url, "application", "add", filepath.Join(dir, "good.json")); code != exitDone ||
		!strings.Contains(stdout, "taken before") {
		t.Errorf("the second time: exit %d %s", code, stdout)
	}
	if _, stderr, code := zvonok(t, url, "application", "add", filepath.Join(dir, "other.json")); code != exitFailed ||
		!strings.Contains(stderr, "number") {
		t.Errorf("another with its number: exit %d %s", code, stderr)
	}
	_, stderr, code = zvonok(t, url, "application", "add", filepath.Join(dir, "bad.json"))
	for _, field := range []string{"signed_on: ", "applicant.phone: ", "children[0].family_name: "} {
		if code != exitFailed || !strings.Contains(stderr, field) {
			t.Errorf("%q is not named: exit %d\n%s", field, code, stderr)
		}
	}
	if _, stderr, code := zvonok(t, url, "application", "add", filepath.Join(dir, "nothing.json")); code != exitFailed || strings.Count(stderr, "\n") != 1 {
		t.Errorf("no file: exit %d %s", code, stderr)
	}
}
