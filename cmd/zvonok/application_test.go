package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"zvonok/ledger/pg/pgtest"
)

// R22, R23, R24, R25, R26, contract section 2 in style: an application from a file, once
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

	// R25: what was applied for electronically is decided on by the school.
	execute(t, url, `INSERT INTO access.petition (organisation_id, representative_id, kind, form, state, submitted_at)
		SELECT a.organisation_id, a.representative_id, 'companions', jsonb_build_object('reference', 'e', 'organisation', 's1',
			'signed_on', '2026-11-20', 'applicant', a.form->'applicant', 'children', a.form->'children', 'recipients', jsonb_build_array(
			jsonb_build_object('family_name', 'Белова', 'given_name', 'Вера', 'phone', '+7900000008' || n, 'role', 'companion',
				'born_on', '1990-02-03'))), 'submitted', now()
		  FROM access.application a, generate_series(1, 2) n`)
	if list := must(t, url, "application", "list", "s1"); strings.Count(list, "companions") != 2 {
		t.Errorf("waiting:\n%s", list)
	}
	if list := must(t, url, "application", "list", "s1", "--json"); strings.Count(list, `"state": "submitted"`) != 2 {
		t.Errorf("waiting:\n%s", list)
	}
	if accepted := must(t, url, "application", "accept", "1", "--by", "director"); !strings.Contains(accepted, "children 2, people given access 1") {
		t.Errorf("accepted: %s", accepted)
	}
	must(t, url, "application", "refuse", "2", "--reason", "не знаем её")
	for _, args := range [][]string{{"accept", "1"}, {"refuse", "2", "--reason", "x"}, {"accept", "99"}} {
		if _, stderr, code := zvonok(t, url, append([]string{"application"}, args...)...); code != exitFailed || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%v: exit %d %s", args, code, stderr)
		}
	}
	execute(t, url, `DO $$ BEGIN
		ASSERT (SELECT string_agg(state || reason, ' ' ORDER BY id) FROM access.petition) = 'accepted refusedне знаем её', 'what became of them';
		ASSERT (SELECT count(*) FROM access.guardian WHERE role = 'companion') = 2, 'who may lead the children';
	END $$`)
}
