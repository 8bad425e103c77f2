package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"zvonok/ledger/pg/pgtest"
)

// Issue 3, number portability by an imported file: what the administrator sees.
func TestAFileOfPortedNumbersIsImportedByCommand(t *testing.T) {
	t.Parallel()
	dir := dataFolder(t)
	write := func(name, content string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	settings := write("zvonok.toml", fmt.Sprintf(`
data_dir = %q
[database]
url = %q
[[operator]]
name = "mts"
mode = "client"
address = "127.0.0.1:1"
system_id = "school"
password = "secret"
[[operator]]
name = "tele2"
mode = "client"
address = "127.0.0.1:1"
system_id = "school"
password = "secret"
`, dir, pgtest.NewURL(t)))
	for _, step := range []struct {
		file, lines string
		args        []string
		code        int
		want        []string // on both outputs
	}{
		{
			"good.csv", "Number,OwnerId\n9000000001,mTELE2\n9000000002,mOTHER\n9000000003,mts\n",
			[]string{"--owner", "mTELE2=tele2"},
			0,
			[]string{"IN THE TABLE NOW", "mOTHER", "--owner"},
		},
		{"changes.csv", "number,operator\n79000000001,\n", []string{"--changes", "--json"}, 0, []string{`"total": 1`}},
		{"bad.csv", "number,operator\nx,mts\n", nil, 1, []string{"bad.csv:2: the number is no phone number", "nothing was changed"}},
		{"header.csv", "a,b\n", nil, 1, []string{"header.csv: line 1"}},
		{"good.csv", "number,operator\n", []string{"--owner", "x=nobody"}, 2, []string{"mts, tele2"}},
	} {
		out, errs, code := command(t, dir, append([]string{"operator", "ported", write(step.file, step.lines), "--config", settings}, step.args...)...)
		if code != step.code {
			t.Errorf("%s %v: exit %d\n%s%s", step.file, step.args, code, out, errs)
		}
		for _, want := range step.want {
			if !strings.Contains(out+errs, want) {
				t.Errorf("%s %v: %q is not in\n%s%s", step.file, step.args, want, out, errs)
			}
		}
	}
}
