package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"zvonok/cmd/zvonok-operator/phones"
)

// startDemo runs the demo city on free ports in a folder of its own.
func startDemo(t testing.TB, dir string) *program {
	t.Helper()
	return start(t, dir, "demo", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--smpp", "127.0.0.1:0",
		"--phones", "127.0.0.1:0", "--data-dir", dir+"/var")
}

// subscriber finds a child of the first school with exactly one phone, which no
// other child shares, and returns both.
func subscriber(t testing.TB, city phones.City, skip int) (phones.Child, string) {
	t.Helper()
	shared := map[string]int{}
	for _, school := range city.Schools {
		for _, child := range school.Children {
			for _, number := range child.Phones {
				shared[number]++
			}
		}
	}
	for _, child := range city.Schools[0].Children {
		if len(child.Phones) == 1 && shared[child.Phones[0]] == 1 {
			if skip == 0 {
				return child, child.Phones[0]
			}
			skip--
		}
	}
	t.Fatal("the demo city has no child with one phone")
	return phones.Child{}, ""
}

// TestDemo starts the whole program once and crosses every real part of it:
// PostgreSQL, the device interface over HTTP, SMPP over TCP, SMTP, the page.
func TestDemo(t *testing.T) {
	t.Parallel()
	dir := dataFolder(t)
	demo := startDemo(t, dir)
	city := demo.page(t).City

	// Walk 1 of architecture.md: a tap becomes an SMS (R41, R43, R50).
	t.Run("a tap at the door becomes an SMS on the parent's phone", func(t *testing.T) {
		child, number := subscriber(t, city, 0)
		before := len(demo.page(t).Inbox[number])
		now := time.Now()
		status, answer := demo.upload(t, demo.ready.Keys["door"].Key, fmt.Sprintf(
			`{"sent_at":%q,"events":[{"seq":1,"type":"pass","card":%q,"direction":"in","at":%q}]}`,
			now.Format(time.RFC3339), child.Card, now.Format(time.RFC3339)))
		if status != 200 || fmt.Sprint(answer["acknowledged"]) != "[1]" {
			t.Fatalf("the door was answered %d %v", status, answer)
		}
		eventually(t, "the SMS", func() bool { return len(demo.page(t).Inbox[number]) > before })
		text := demo.page(t).Inbox[number][before].Text
		given, _, _ := strings.Cut(child.Name, " ")
		if !strings.Contains(text, now.In(moscow(t)).Format("15:04")) && !strings.Contains(text, now.Add(time.Minute).In(moscow(t)).Format("15:04")) {
			t.Errorf("the SMS does not say when: %q", text)
		}
		t.Logf("%s: %s", given, text)

		// A repeat of an acknowledged event is acknowledged and changes nothing.
		status, answer = demo.upload(t, demo.ready.Keys["door"].Key, fmt.Sprintf(
			`{"sent_at":%q,"events":[{"seq":1,"type":"pass","card":%q,"direction":"in","at":%q}]}`,
			now.Format(time.RFC3339), child.Card, now.Format(time.RFC3339)))
		if status != 200 || fmt.Sprint(answer["acknowledged"]) != "[1]" {
			t.Errorf("the repeat was answered %d %v", status, answer)
		}

		// Pain 23: explain says what happened, without a name, a phone or a text.
		eventually(t, "the receipt", func() bool {
			out, _, code := command(t, dir, "explain", demo.ready.Keys["door"].Name+":1")
			return code == 0 && strings.Contains(out, "delivered")
		})
		out, _, _ := command(t, dir, "explain", demo.ready.Keys["door"].Name+":1")
		for _, secret := range []string{number, given, text} {
			if strings.Contains(out, secret) {
				t.Errorf("explain shows %q:\n%s", secret, out)
			}
		}
	})

	// Walk 2 of architecture.md: a dial becomes an answer (R12, R50).
	t.Run("a dialled code becomes a screen with balance and last visit", func(t *testing.T) {
		_, number := subscriber(t, city, 1)
		demo.playPhone(t, "/dial", map[string]string{"number": number, "text": city.Code})
		eventually(t, "the screen", func() bool {
			return slices.ContainsFunc(demo.page(t).Screens[number], func(s phones.Screen) bool { return !s.Mine })
		})
		screens := demo.page(t).Screens[number]
		if text := screens[len(screens)-1].Text; !strings.ContainsAny(text, "0123456789") {
			t.Errorf("the screen shows no balance: %q", text)
		}
	})

	t.Run("an unknown phone gets a neutral text", func(t *testing.T) {
		const stranger = "+79009999999"
		demo.playPhone(t, "/dial", map[string]string{"number": stranger, "text": city.Code})
		eventually(t, "the screen", func() bool {
			return slices.ContainsFunc(demo.page(t).Screens[stranger], func(s phones.Screen) bool { return !s.Mine && s.End })
		})
	})

	t.Run("a sale at the till debits the wallet and becomes an SMS", func(t *testing.T) {
		child, number := subscriber(t, city, 2)
		before := len(demo.page(t).Inbox[number])
		now := time.Now()
		status, answer := demo.upload(t, demo.ready.Keys["till"].Key, fmt.Sprintf(
			`{"sent_at":%q,"events":[{"seq":1,"type":"sale","card":%q,"kind":"hot","meal":"lunch","total":"110.00","at":%q}]}`,
			now.Format(time.RFC3339), child.Card, now.Format(time.RFC3339)))
		if status != 200 || fmt.Sprint(answer["acknowledged"]) != "[1]" {
			t.Fatalf("the till was answered %d %v", status, answer)
		}
		eventually(t, "the SMS", func() bool { return len(demo.page(t).Inbox[number]) > before })
	})

	t.Run("a tap becomes a letter for a parent who wants mail", func(t *testing.T) {
		// A third of the mothers do; the children of a class are tapped in one upload.
		var events []string
		now := time.Now()
		for i, child := range city.Schools[0].Children[:40] {
			events = append(events, fmt.Sprintf(`{"seq":%d,"type":"pass","card":%q,"direction":"out","at":%q}`,
				i+2, child.Card, now.Format(time.RFC3339)))
		}
		status, answer := demo.upload(t, demo.ready.Keys["door"].Key,
			fmt.Sprintf(`{"sent_at":%q,"events":[%s]}`, now.Format(time.RFC3339), strings.Join(events, ",")))
		if status != 200 {
			t.Fatalf("the door was answered %d %v", status, answer)
		}
		eventually(t, "a letter", func() bool {
			_, body := get(t, "http://"+demo.ready.Phones+"/mail/")
			return strings.Contains(body, "@example.org")
		})
	})

	t.Run("a person at the page of phones sees SMS come and walks a dialogue", func(t *testing.T) { testPage(t, demo) })

	t.Run("a parent signs in by the code on the phone, sees the child and chooses what to be told", func(t *testing.T) {
		testParents(t, demo, dir)
	})

	// Issue 7, item 6. A word it does not know must not be taken for "nothing to stop".
	t.Run("a recall says what it stopped, and what it does not know", func(t *testing.T) {
		settings := filepath.Join(dir, "recall.toml")
		if err := os.WriteFile(settings, []byte("[admin]\nlisten = '"+demo.ready.Admin+"'\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, ask := range []struct {
			args []string
			code int
			says string
		}{
			{[]string{"--template", "pass"}, exitDone, "had left"},
			{[]string{"--template", "pass_in"}, exitUsage, "a recall stops whole topics: pass, "},
			{[]string{"--operator", "nobody"}, exitFailed, "there is no operator \"nobody\"; there are "},
			{[]string{"--organisation", "nobody"}, exitFailed, "there is no organisation"},
			{nil, exitUsage, "say what to stop"},
		} {
			stdout, stderr, code := command(t, dir, append([]string{"--config", settings, "recall"}, ask.args...)...)
			if code != ask.code || !strings.Contains(stdout+stderr, ask.says) {
				t.Errorf("recall %v: exit %d, %s%s", ask.args, code, stdout, stderr)
			}
		}
	})

	t.Run("the books are right", func(t *testing.T) {
		out, errs, code := command(t, dir, "ledger", "verify")
		if code != 0 || !strings.Contains(out, "ok") {
			t.Errorf("ledger verify: exit %d\n%s%s", code, out, errs)
		}
	})

	t.Run("health, readiness and metrics answer", func(t *testing.T) {
		for path, want := range map[string]string{
			"/healthz": "", "/readyz": "", "/metrics": "zvonok_",
		} {
			status, body := get(t, "http://"+demo.ready.Admin+path)
			if status != 200 || !strings.Contains(body, want) {
				t.Errorf("%s: %d\n%.500s", path, status, body)
			}
		}
	})

	t.Run("the dashboards and alert rules ask for metrics there are", func(t *testing.T) {
		_, metrics := get(t, "http://"+demo.ready.Admin+"/metrics")
		testDashboards(t, metrics)
	})

	t.Run("SIGTERM drains and exits with 0, and a new start finds everything", func(t *testing.T) {
		if code := demo.end(syscall.SIGTERM); code != 0 {
			t.Fatalf("exit %d:\n%s", code, demo.stderr)
		}
		startDemo(t, dir)
		if out, errs, code := command(t, dir, "ledger", "verify"); code != 0 {
			t.Errorf("ledger verify after the restart: %s%s", out, errs)
		}
	})
}

func moscow(t testing.TB) *time.Location {
	t.Helper()
	zone, err := time.LoadLocation("Europe/Moscow")
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

// dataFolder is a folder that PostgreSQL's account may enter: as root the
// private cluster runs as that account, and a test's own folder is closed.
func dataFolder(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// A program that was killed leaves PostgreSQL to shut down by itself; until
	// then it writes into the folder that is about to be removed.
	t.Cleanup(func() {
		eventually(t, "PostgreSQL's end", func() bool { return !runsIn(filepath.Join(dir, "*", "postgres", "data")) })
	})
	return dir
}

// runsIn tells whether a PostgreSQL is alive on a data directory of a pattern.
func runsIn(pattern string) bool {
	files, _ := filepath.Glob(filepath.Join(pattern, "postmaster.pid")) // the pattern is well formed
	return slices.ContainsFunc(files, func(file string) bool {
		data, _ := os.ReadFile(file) // gone meanwhile is gone
		first, _, _ := strings.Cut(string(data), "\n")
		pid, err := strconv.Atoi(strings.TrimSpace(first))
		return err == nil && syscall.Kill(pid, 0) == nil
	})
}
