package main

import (
	"encoding/json"
	"strings"
	"testing"

	"zvonok/ledger/pg/pgtest"
)

// D6 to D8, D10, D11: a school's own rules are shown and changed by command; what is not named stays, and what is
// outside its limits changes nothing.
func TestTheRulesOfAnOrganisationAreShownAndChanged(t *testing.T) {
	t.Parallel()
	url := pgtest.NewURL(t)
	must(t, url, "import", registryFolder(t, nil))
	before := must(t, url, "organisation", "show", "org-1", "--json")
	for _, row := range []struct {
		flags []string
		says  string
	}{
		{[]string{"--debt-floor", "300.00"}, "zero or below"},
		{[]string{"--debt-floor", "many"}, "--debt-floor"},
		{[]string{"--pass-life", "0s"}, "from a second to a day"},
		{[]string{"--same-pass=-1s"}, "from zero to an hour"},
		{[]string{"--merge-wait", "91s"}, "90 seconds"},
		{[]string{"--leave-wait", "16m"}, "15 minutes"},
		{[]string{"--companion-age", "100"}, "99 years"},
		{[]string{"--close-at", "25:00"}, "--close-at"},
		{[]string{"--digest-at", "late"}, "--digest-at"},
		{[]string{"--quiet", "21:00"}, "--quiet"},
		{[]string{"--quiet", "21:00-8"}, "--quiet"},
	} {
		_, stderr, code := zvonok(t, url, append([]string{"organisation", "set", "org-1"}, row.flags...)...)
		if code != exitUsage || !strings.Contains(stderr, row.says) {
			t.Errorf("%v: exit %d, %s", row.flags, code, stderr)
		}
	}
	if after := must(t, url, "organisation", "show", "org-1", "--json"); after != before {
		t.Errorf("a refused change made %s of %s", after, before)
	}
	if _, stderr, code := zvonok(t, url, "organisation", "set", "nobody", "--leave-wait", "5m"); code != exitFailed || !strings.Contains(stderr, "org_id") {
		t.Errorf("exit %d, %s", code, stderr)
	}

	must(t, url, "organisation", "set", "org-1", "--debt-floor=-150.00", "--quiet", "22:30-07:15", "--merge-wait", "45s",
		"--leave-wait", "10m", "--digest-at", "18:30", "--close-at", "21:00", "--same-pass", "2m", "--pass-life", "20m", "--companion-age", "21")
	must(t, url, "organisation", "set", "org-1", "--quiet", "none")
	want := map[string]any{
		"organisation": "org-1", "debt_floor": "-150.00", "pass_life": "20m0s", "same_pass": "2m0s", "close_at": "21:00",
		"quiet": "none", "digest_at": "18:30", "merge_wait": "45s", "leave_wait": "10m0s", "companion_age": 21.0,
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(must(t, url, "organisation", "show", "org-1", "--json")), &got); err != nil {
		t.Fatal(err)
	}
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s is %v, want %v", name, got[name], value)
		}
	}
	if len(got) != len(want) {
		t.Errorf("shown: %v", got)
	}
	// The floor is that of the wallets at once.
	execute(t, url, `DO $$ BEGIN ASSERT (SELECT count(*) > 0 AND bool_and(b.policy_floor = -15000) FROM ledger.balance b
		JOIN ledger.account a ON a.id = b.account_id JOIN ledger.person p ON p.id = a.person_id
		JOIN ledger.organisation o ON o.id = p.organisation_id WHERE o.code = 'org-1'); END $$`)
	if text := must(t, url, "organisation", "show", "org-1"); !strings.Contains(text, "leave-wait") || !strings.Contains(text, "10m0s") {
		t.Errorf("shown as\n%s", text)
	}
}
