package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/jackc/pgx/v5"

	"zvonok/cmd/zvonok/city"
	"zvonok/ledger/pg/pgtest"
	"zvonok/templates"
)

// zvonok runs a command in this process on a database of its own.
func zvonok(t *testing.T, url string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(args, &out, &errs, []string{"ZVONOK_DATABASE_URL=" + url})
	return out.String(), errs.String(), code
}

// registryFolder writes a small invented city and lets the test spoil it.
func registryFolder(t *testing.T, spoil map[string]func(string) string) string {
	t.Helper()
	made, err := city.New(city.Spec{People: 60, Schools: 4, Seed: 1, Today: time.Now(), MenuFor: 2})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	files := made.Files()
	entries, err := fs.ReadDir(files, ".")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		data, err := fs.ReadFile(files, entry.Name())
		if err != nil {
			t.Fatal(err)
		}
		if change, ok := spoil[entry.Name()]; ok {
			data = []byte(change(string(data)))
		}
		if err := os.WriteFile(filepath.Join(dir, entry.Name()), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestImportTakesAFolderAllOrNothingAndTheSameFolderChangesNothing(t *testing.T) {
	t.Parallel()
	url := pgtest.NewURL(t)
	broken := registryFolder(t, map[string]func(string) string{
		"people.csv": func(s string) string { return strings.Replace(s, ",pupil,", ",pupal,", 1) },
		"cards.csv":  func(s string) string { return s + "XYZ,p-1,social,\n" },
	})
	_, stderr, code := zvonok(t, url, "import", broken)
	if code != exitFailed || !strings.Contains(stderr, "people.csv line ") || !strings.Contains(stderr, "pupal") ||
		!strings.Contains(stderr, "cards.csv line ") {
		t.Errorf("exit %d; the bad lines are not named:\n%s", code, stderr)
	}
	stdout, stderr, code := zvonok(t, url, "import", "--json", registryFolder(t, nil))
	if code != exitDone {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	var report struct {
		Counts []struct {
			File                 string
			Added, Changed, Left int
		}
	}
	if err := json.Unmarshal([]byte(stdout), &report); err != nil {
		t.Fatal(err)
	}
	for _, count := range report.Counts {
		if count.File == "people.csv" && (count.Added != 60 || count.Changed != 0 || count.Left != 0) {
			t.Errorf("after the broken folder was refused, people: %+v, want 60 added", count)
		}
	}
	stdout, _, _ = zvonok(t, url, "import", "--json", registryFolder(t, nil))
	if err := json.Unmarshal([]byte(stdout), &report); err != nil {
		t.Fatal(err)
	}
	for _, count := range report.Counts {
		if count.Added != 0 || count.Changed != 0 {
			t.Errorf("the same folder again: %+v, want nothing added or changed", count)
		}
	}
}

func TestTheSameSeedMakesTheSameCity(t *testing.T) {
	t.Parallel()
	files := func(seed uint64) string {
		made, err := city.New(city.Spec{People: 500, Schools: 6, Seed: seed, Today: time.Unix(0, 0), MenuFor: 3})
		if err != nil {
			t.Fatal(err)
		}
		var all strings.Builder
		for _, name := range []string{"people.csv", "cards.csv", "guardians.csv", "subscriptions.csv"} {
			data, err := fs.ReadFile(made.Files(), name)
			if err != nil {
				t.Fatal(err)
			}
			all.Write(data)
		}
		return all.String()
	}
	if first, again := files(7), files(7); first != again {
		t.Error("one seed made two cities")
	}
	if files(7) == files(8) {
		t.Error("two seeds made one city")
	}
}

func TestGenerateFillsTheDatabaseAndTheBooksAreRight(t *testing.T) {
	t.Parallel()
	url := pgtest.NewURL(t)
	stdout, stderr, code := zvonok(t, url, "generate", "--people", "300", "--schools", "5", "--seed", "3")
	if code != exitDone || !strings.Contains(stdout, "people.csv") {
		t.Fatalf("exit %d\n%s%s", code, stdout, stderr)
	}
	stdout, stderr, code = zvonok(t, url, "ledger", "verify")
	if code != exitDone || !strings.HasPrefix(stdout, "ok") {
		t.Errorf("exit %d\n%s%s", code, stdout, stderr)
	}
	// Its history, once, and not again.
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	// What no device reported is explained by the event's id.
	var event int64
	if err := conn.QueryRow(t.Context(), `SELECT min(event_id) FROM ledger.posting WHERE kind = 'correction'`).Scan(&event); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, code = zvonok(t, url, "explain", "--language", "en", fmt.Sprint(event))
	if code != exitDone || !strings.HasPrefix(stdout, fmt.Sprintf("Event %d: movement of an account\n", event)) {
		t.Errorf("explain: exit %d\n%s%s", code, stdout, stderr)
	}
	past := func() (passes, seen, funded int) {
		if err := conn.QueryRow(t.Context(), `
			SELECT (SELECT count(*) FROM door.pass), (SELECT count(*) FROM door.presence WHERE day_first_in < day_last_out),
			       (SELECT count(*) FROM ledger.balance WHERE posted = 50000)`,
		).Scan(&passes, &seen, &funded); err != nil {
			t.Fatal(err)
		}
		return passes, seen, funded
	}
	passes, seen, funded := past()
	if passes < 2*seen || seen < 200 || funded < 250 {
		t.Errorf("a city of 300 has %d passes, %d people who were seen and %d accounts with money", passes, seen, funded)
	}
	if _, stderr, code := zvonok(t, url, "generate", "--people", "300", "--schools", "5", "--seed", "3"); code != exitDone {
		t.Errorf("the same city again: exit %d\n%s", code, stderr)
	}
	if again, _, _ := past(); again != passes {
		t.Errorf("the same city again has %d passes, not %d", again, passes)
	}
}

// A generated city as registry files is the same city by way of import.
func TestAGeneratedCityCanBeWrittenAsRegistryFiles(t *testing.T) {
	t.Parallel()
	url, dir := pgtest.NewURL(t), filepath.Join(t.TempDir(), "city")
	args := []string{"generate", "--people", "300", "--schools", "5", "--seed", "3"}
	if _, stderr, code := zvonok(t, url, append(args, "--to", dir)...); code != exitDone || !strings.Contains(stderr, "import "+dir) {
		t.Fatalf("exit %d\n%s", code, stderr)
	}
	if _, stderr, code := zvonok(t, url, append(args, "--to", dir)...); code != exitFailed {
		t.Errorf("files that are there are written over: exit %d\n%s", code, stderr)
	}
	if _, stderr, code := zvonok(t, url, append(args, "--history", "0")...); code != exitDone {
		t.Fatalf("exit %d\n%s", code, stderr)
	}
	stdout, stderr, code := zvonok(t, url, "import", "--json", dir)
	var report struct {
		Counts []struct{ Added, Changed, Left int }
	}
	if code != exitDone || json.Unmarshal([]byte(stdout), &report) != nil || len(report.Counts) == 0 {
		t.Fatalf("exit %d\n%s%s", code, stdout, stderr)
	}
	for _, count := range report.Counts {
		if count.Added != 0 || count.Changed != 0 {
			t.Errorf("the files are not the city that was generated: %+v", report.Counts)
			break
		}
	}
}

func TestAKeyIsPrintedOnceListedAndRevoked(t *testing.T) {
	t.Parallel()
	url := pgtest.NewURL(t)
	if _, stderr, code := zvonok(t, url, "import", registryFolder(t, nil)); code != exitDone {
		t.Fatal(stderr)
	}
	stdout, stderr, code := zvonok(t, url, "key", "add", "--kind", "door", "--building", "b-1", "--name", "Main entrance", "--json")
	var added struct {
		ID  int64
		Key string
	}
	if code != exitDone || json.Unmarshal([]byte(stdout), &added) != nil || added.ID == 0 || len(added.Key) < 32 {
		t.Fatalf("exit %d\n%s%s", code, stdout, stderr)
	}
	stdout, _, _ = zvonok(t, url, "key", "list")
	if !strings.Contains(stdout, "Main entrance") || strings.Contains(stdout, added.Key) {
		t.Errorf("key list:\n%s", stdout)
	}
	if _, stderr, code = zvonok(t, url, "key", "revoke", "1"); code != exitDone {
		t.Errorf("revoke: exit %d, %s", code, stderr)
	}
	if stdout, _, _ = zvonok(t, url, "key", "list"); !strings.Contains(stdout, "revoked") {
		t.Errorf("after the revocation:\n%s", stdout)
	}
	if _, stderr, code = zvonok(t, url, "key", "add", "--kind", "door", "--building", "nowhere", "--name", "x"); code != exitFailed || stderr == "" {
		t.Errorf("an unknown building: exit %d, %q", code, stderr)
	}
}

func TestMigrateStatusSaysWhatIsDoneAndChangesNothing(t *testing.T) {
	t.Parallel()
	url := pgtest.NewEmptyURL(t)
	stdout, stderr, code := zvonok(t, url, "migrate", "--status")
	if code != exitDone || !strings.Contains(stdout, "pending") {
		t.Fatalf("exit %d\n%s%s", code, stdout, stderr)
	}
	if stdout, stderr, code = zvonok(t, url, "migrate"); code != exitDone || !strings.Contains(stdout, "0 pending") {
		t.Fatalf("exit %d\n%s%s", code, stdout, stderr)
	}
	if stdout, _, _ = zvonok(t, url, "migrate", "--status"); !strings.Contains(stdout, "0 pending") {
		t.Errorf("after migrating:\n%s", stdout)
	}
}

func TestWrongUsageExitsWithTwoAndSaysWhereHelpIs(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"no command":              {},
		"an unknown command":      {"fly"},
		"an unknown flag":         {"serve", "--fast"},
		"a missing flag":          {"key", "add", "--kind", "door"},
		"a kind that is none":     {"key", "add", "--kind", "window", "--building", "b", "--name", "n"},
		"a city of nobody":        {"generate", "--people", "0", "--schools", "1"},
		"a history of ages":       {"generate", "--people", "9", "--schools", "1", "--history", "9999"},
		"a folder that is absent": {"import", "/does/not/exist"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out, errs bytes.Buffer
			if code := run(args, &out, &errs, nil); code != exitUsage || errs.Len() == 0 {
				t.Errorf("exit %d, %q", code, errs.String())
			}
		})
	}
}

func TestHelpIsEverywhere(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"--help"},
		{"serve", "--help"},
		{"demo", "--help"},
		{"key", "--help"},
		{"key", "add", "--help"},
		{"import", "--help"},
		{"explain", "--help"},
		{"ledger", "verify", "--help"},
		{"operator", "check", "--help"},
	} {
		var out, errs bytes.Buffer
		if code := run(args, &out, &errs, nil); code != exitDone || !strings.Contains(out.String(), "Usage: zvonok") {
			t.Errorf("%v: exit %d\n%s%s", args, code, out.String(), errs.String())
		}
	}
}

// contract.md, section 2: whatever a command answers, a program can read it.
// Those that run are no such commands.
func TestEveryCommandThatAnswersKnowsJSON(t *testing.T) {
	t.Parallel()
	parser, err := kong.New(&commands{}, kong.Exit(func(int) {}))
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	var look func(*kong.Node)
	look = func(n *kong.Node) {
		for _, child := range n.Children {
			look(child)
		}
		if n.Type != kong.CommandNode || len(n.Children) > 0 || n.Name == "serve" || n.Name == "demo" {
			return
		}
		seen++
		if !slices.ContainsFunc(n.Flags, func(f *kong.Flag) bool { return f.Name == "json" }) {
			t.Errorf("%s does not know --json", n.Path())
		}
	}
	look(parser.Model.Node)
	if seen < 50 {
		t.Errorf("only %d commands", seen)
	}
	var out, errs bytes.Buffer
	var told struct{ Version string }
	if code := run([]string{"version", "--json"}, &out, &errs, nil); code != exitDone || json.Unmarshal(out.Bytes(), &told) != nil || told.Version != version {
		t.Errorf("exit %d: %s%s", code, out.String(), errs.String())
	}
}

// V3.4.1 to V3.4.6: on every route, errors included.
func TestEveryAnswerOnThePublicAddressCarriesItsHeaders(t *testing.T) {
	t.Parallel()
	for address, hsts := range map[string]string{
		"https://pass.example.org": "max-age=31536000", "http://pass.example.org": "", "": "",
	} {
		handler := secured(address, http.NotFoundHandler())
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/no/such/page", nil))
		for name, want := range map[string]string{
			"Strict-Transport-Security": hsts, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
			"X-Frame-Options": "DENY", "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
			"Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
		} {
			if got := w.Header().Get(name); got != want || w.Code != http.StatusNotFound {
				t.Errorf("%s, %d: %s is %q, want %q", address, w.Code, name, got, want)
			}
		}
	}
}

func TestExplainOfAnEventNobodyReportedSaysSo(t *testing.T) {
	t.Parallel()
	_, stderr, code := zvonok(t, pgtest.NewURL(t), "explain", "12:101")
	if code != exitFailed || !strings.Contains(stderr, "never reported") {
		t.Errorf("exit %d, %q", code, stderr)
	}
}

// The lint measures every text with the names of the database, and the form is
// what operators register.
func TestTheTextsAreListedMeasuredAndWrittenForOperators(t *testing.T) {
	t.Parallel()
	url := pgtest.NewURL(t)
	stdout, stderr, code := zvonok(t, url, "templates", "--lint", "--json")
	var findings []struct {
		Key      string
		Parts    int
		Price    string
		Children []string
	}
	if err := json.Unmarshal([]byte(stdout), &findings); err != nil || code != exitDone {
		t.Fatalf("exit %d, %v: %s", code, err, stderr)
	}
	if len(findings) < 100 {
		t.Errorf("%d findings", len(findings))
	}
	for language, want := range map[string][2]bool{"": {true, true}, "ru": {true, false}, "en": {false, true}} {
		stdout, _, code = zvonok(t, url, "templates", "--operator", "--language", language)
		russian, english := strings.Contains(stdout, "Вход %Time% %Names%"), strings.Contains(stdout, "Entry %Time% %Names%")
		if code != exitDone || russian != want[0] || english != want[1] {
			t.Errorf("%q: exit %d\n%s", language, code, stdout)
		}
	}
}

// notices.md, Texts: a text that costs a second part for some children is named,
// and the children by their ids. Here the text has room for the initials of usual
// names and none for the widest letter in Latin, "Shch.".
func TestTheLintNamesTheChildrenForWhomATextCostsASecondPart(t *testing.T) {
	t.Parallel()
	url, dir := pgtest.NewURL(t), t.TempDir()
	const long = "Щщщщщщщщщщщщщщщщщщщ"
	folder := registryFolder(t, map[string]func(string) string{"people.csv": func(s string) string {
		org := strings.Split(strings.Split(s, "\n")[1], ",")[1]
		return s + "p-hostile," + org + ",pupil,Щукина," + long + ",,1А,none,,\n"
	}})
	if _, stderr, code := zvonok(t, url, "import", folder); code != exitDone {
		t.Fatal(stderr)
	}
	texts, settings := filepath.Join(dir, "texts.toml"), filepath.Join(dir, "zvonok.toml")
	source := ""
	for words := "entered"; ; words += "!" {
		one := "[en]\npass_in = '{{.Time}} {{.Names}} " + words + "'\n"
		if err := os.WriteFile(texts, []byte(one), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := templates.Load(texts); err != nil {
			break // it costs two parts for everybody
		}
		source = one
	}
	for file, content := range map[string]string{
		texts:    source,
		settings: fmt.Sprintf("[notice]\ntemplates_file = %q\n[[operator]]\nname = 'a'\nsystem_id = 's'\npassword = 'p'\naddress = '127.0.0.1:1'\ncost = '2.50'\n", texts),
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	stdout, stderr, code := zvonok(t, url, "--config", settings, "templates", "--lint", "--json")
	var findings []struct {
		Key, Language string
		Parts, Costly int
		Price         string
		Children      []string
	}
	if err := json.Unmarshal([]byte(stdout), &findings); err != nil || code != exitDone {
		t.Fatalf("exit %d, %v: %s", code, err, stderr)
	}
	first := findings[0] // the dearest comes first
	if first.Key != "pass_in" || first.Language != "en" || first.Parts != 2 || first.Costly != 1 || first.Price != "5.00" ||
		len(first.Children) != 1 || first.Children[0] != "p-hostile" {
		t.Errorf("the dearest text is %+v, want pass_in for p-hostile alone", first)
	}
	for _, f := range findings[1:] {
		if f.Parts != 1 || len(f.Children) > 0 {
			t.Errorf("%+v costs a second part", f)
		}
	}
	stdout, _, code = zvonok(t, url, "--config", settings, "templates", "--lint")
	if code != exitDone || !strings.Contains(stdout, "pass_in (en) costs a second part for: p-hostile\n") || strings.Contains(stdout, long) {
		t.Errorf("exit %d\n%s", code, stdout)
	}
}

func TestAnExplanationIsInTheLanguageOfTheTerminal(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		asked       string
		environment map[string]string
		want        templates.Language
	}{
		{"", nil, templates.EN},
		{"", map[string]string{"LANG": "ru_RU.UTF-8"}, templates.RU},
		{"", map[string]string{"LANG": "ru_RU.UTF-8", "LC_ALL": "C"}, templates.EN},
		{"ru", map[string]string{"LANG": "en_GB.UTF-8"}, templates.RU},
	} {
		if got := languageOf(c.asked, func(key string) string { return c.environment[key] }); got != c.want {
			t.Errorf("%q, %v: %s", c.asked, c.environment, got)
		}
	}
}
