package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// testDashboards compares what the embedded rules and dashboard ask for with
// what a running program offers (contract.md section 9).
func testDashboards(t *testing.T, metrics string) {
	offered := map[string]bool{}
	for line := range strings.Lines(metrics) {
		if name := regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*`).FindString(line); name != "" {
			offered[name] = true
		}
	}
	asked := 0
	for _, file := range []string{"dashboards/zvonok.rules.yml", "dashboards/zvonok.grafana.json"} {
		data, err := dashboards.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`\b(zvonok|process|go)_[a-z_]+[a-z]\b`).FindAllString(string(data), -1) {
			asked++
			if !offered[name] {
				t.Errorf("%s asks for %s, which /metrics does not have", file, name)
			}
		}
	}
	if asked < 60 {
		t.Errorf("only %d metrics are asked for", asked)
	}
}

func TestDashboardsAreWrittenAndNobodysWorkIsWrittenOver(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "monitoring")
	for range 2 {
		stdout, stderr, code := zvonok(t, "", "dashboards", dir)
		if code != exitDone || strings.Count(stdout, "\n") != 2 {
			t.Fatalf("exit %d\n%s%s", code, stdout, stderr)
		}
	}
	var board struct {
		Title  string
		Panels []struct {
			Title   string
			Type    string
			Targets []struct{ Expr string }
		}
	}
	data, err := os.ReadFile(filepath.Join(dir, "zvonok.grafana.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &board); err != nil || board.Title == "" {
		t.Errorf("the dashboard is no JSON: %v", err)
	}
	for _, panel := range board.Panels {
		if panel.Type != "row" && (len(panel.Targets) == 0 || panel.Targets[0].Expr == "") {
			t.Errorf("the panel %q shows nothing", panel.Title)
		}
	}
	rules := filepath.Join(dir, "zvonok.rules.yml")
	if err := os.WriteFile(rules, []byte("groups: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := zvonok(t, "", "dashboards", dir); code != exitFailed || !strings.Contains(stderr, "--force") {
		t.Errorf("somebody's rules are written over: exit %d, %s", code, stderr)
	}
	if _, stderr, code := zvonok(t, "", "dashboards", dir, "--force"); code != exitDone {
		t.Errorf("exit %d, %s", code, stderr)
	}
}
