package templates

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Fault row 48: a broken file is refused when it is saved, and at run the texts
// before it stay in use.
func TestAChangedFileIsReadAgainAndABrokenOneChangesNothing(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "texts.toml")
	age := time.Now()
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		age = age.Add(time.Second) // two writings within the clock's grain are told apart
		if err := os.Chtimes(file, age, age); err != nil {
			t.Fatal(err)
		}
	}
	write(`ru.pass_in = "Пришли в {{.Time}}: {{.Names}}"`)
	live, err := Watch(file)
	if err != nil {
		t.Fatal(err)
	}
	shown := func() string {
		return Pass{Children: []Name{masha}, In: true, At: at("08:15")}.SMS(Style{Texts: live.Texts()})
	}
	for _, step := range []struct {
		content string
		changed bool
		wrong   string
		shown   string
	}{
		{"", false, "", "Пришли в 08:15: Маша П."},
		{`ru.pass_in = "Входит {{.Time}} {{.Names}}"`, true, "", "Входит 08:15 Маша П."},
		{`ru.pass_in = "Входит {{.Time"`, false, "pass_in", "Входит 08:15 Маша П."},
		{`ru.pass_in = "{{range .Names}}{{end}}{{.Time}}"`, false, "more than a variable", "Входит 08:15 Маша П."},
		{`ru.pass_in = `, false, "texts.toml", "Входит 08:15 Маша П."},
		{"", false, "texts.toml", "Входит 08:15 Маша П."}, // still broken, and still said
		{`ru.pass_in = "Вход {{.Time}} {{.Names}}!"`, true, "", "Вход 08:15 Маша П.!"},
	} {
		if step.content != "" {
			write(step.content)
		}
		changed, err := live.Reload(false)
		if changed != step.changed || (err == nil) != (step.wrong == "") || err != nil && !strings.Contains(err.Error(), step.wrong) {
			t.Errorf("%q: changed %v, %v", step.content, changed, err)
		}
		if got := shown(); got != step.shown {
			t.Errorf("%q: %q is shown", step.content, got)
		}
	}
	if changed, err := live.Reload(true); !changed || err != nil {
		t.Errorf("told to read again: %v, %v", changed, err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, err := live.Reload(false); err == nil || shown() != "Вход 08:15 Маша П.!" {
		t.Errorf("without its file: %v, %q", err, shown())
	}
}

func TestWithoutAFileTheTextsAreTheBuiltInOnes(t *testing.T) {
	t.Parallel()
	live, err := Watch("")
	if err != nil || live.Texts() != Builtin() {
		t.Fatal(err)
	}
	if changed, err := live.Reload(true); changed || err != nil {
		t.Errorf("%v, %v", changed, err)
	}
	if _, err := Watch(filepath.Join(t.TempDir(), "none.toml")); err == nil {
		t.Error("a file that is not there was taken at the start")
	}
}
