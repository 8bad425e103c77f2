package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"zvonok/gateway/delivery"
	"zvonok/ledger/pg/pgtest"
)

// Pain 12, the replay command: what the administrator sees.
func TestAnOperatorsFailuresAreReplayedByCommand(t *testing.T) {
	t.Parallel()
	dir := dataFolder(t)
	url := pgtest.NewURL(t)
	settings := filepath.Join(dir, "zvonok.toml")
	if err := os.WriteFile(settings, fmt.Appendf(nil, `
data_dir = %q
[database]
url = %q
[[operator]]
name = "mts"
mode = "client"
address = "127.0.0.1:1"
system_id = "school"
password = "secret"
`, dir, url), 0o644); err != nil {
		t.Fatal(err)
	}
	replay := func(args ...string) (out, errs string, code int) {
		return command(t, dir, append([]string{"operator", "replay", "--config", settings}, args...)...)
	}
	expect := func(code int, want []string, args ...string) {
		t.Helper()
		out, errs, got := replay(args...)
		if got != code {
			t.Errorf("%v: exit %d\n%s%s", args, got, out, errs)
		}
		for _, w := range want {
			if !strings.Contains(out+errs, w) {
				t.Errorf("%v: %q is not in\n%s%s", args, w, out, errs)
			}
		}
	}
	expect(2, []string{"--since", "2026-11-22T08:15:00+03:00"}, "mts", "--since", "yesterday")
	expect(1, []string{`no operator "nobody"`, "mts", "no message since"}, "nobody")
	expect(0, []string{"operator mts", "0 that had failed and 0 that were stuck"}, "mts")

	pool := enqueue(t, url, 5)
	if _, err := pool.Exec(t.Context(), `
		UPDATE delivery.delivery SET state = CASE address WHEN '79000000000' THEN 'unknown' ELSE 'failed' END,
			expires_at = CASE address WHEN '79000000001' THEN now() ELSE expires_at END`); err != nil {
		t.Fatal(err)
	}
	expect(0, []string{"3 that had failed", "would be put", "too old: no news any more", "outcome unknown"}, "mts", "--dry-run")
	out, errs, code := replay("mts", "--json")
	var report delivery.ReplayReport
	if err := json.Unmarshal([]byte(out), &report); err != nil || code != 0 || !strings.Contains(errs, "3 of 3 messages") {
		t.Fatalf("exit %d, %v\n%s%s", code, err, out, errs)
	}
	if report.Failed != 3 || report.DryRun || report.LeftOut[delivery.LeftTooOld] != 1 || report.LeftOut[delivery.LeftUnknown] != 1 {
		t.Errorf("%+v", report)
	}
	var queued int
	if err := pool.QueryRow(t.Context(), `
		SELECT count(*) FROM delivery.delivery WHERE state = 'queued' AND replayed_at IS NOT NULL`).Scan(&queued); err != nil {
		t.Fatal(err)
	}
	if queued != 3 {
		t.Errorf("%d messages are queued, want 3", queued)
	}
	expect(0, []string{"0 that had failed", "wait their turn"}, "mts")
}
