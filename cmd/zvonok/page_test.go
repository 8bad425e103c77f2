package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// browser starts a headless Chromium of its own.
func browser(t *testing.T) context.Context {
	t.Helper()
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		t.Fatal("no Chromium is installed; make test installs it (.ci/setup chromium)")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("accept-lang", "ru-RU"), chromedp.Flag("lang", "ru-RU"), chromedp.WindowSize(1400, 900))
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 2*patience)
	t.Cleanup(cancel)
	return ctx
}

// testPage is a person at the page of phones: picks a child, taps it in, sells
// it a bun, reads the SMS that appear without reloading, dials the code, walks
// the menu by the keys, hangs up, and does the same by the aggregator's HTTP.
func testPage(t *testing.T, demo *program) {
	city := demo.page(t).City
	child, number := subscriber(t, city, 3)
	ctx := browser(t)
	row := fmt.Sprintf(`li.child[data-card=%q]`, child.Card)
	phone := fmt.Sprintf(`article.phone[data-number=%q]`, number)
	var sms, sold, first, visits, shortcut, byHTTP, more string
	var picture []byte
	// A dialogue is a list; a person waits for the line that answers.
	line := func(n int) string { return fmt.Sprintf(`%s .screens li:nth-child(%d)`, phone, n) }
	screen := func(n int, text *string) chromedp.Tasks {
		return chromedp.Tasks{chromedp.WaitVisible(line(n), chromedp.ByQuery), chromedp.Text(line(n), text, chromedp.ByQuery)}
	}
	key := func(n int) chromedp.QueryAction {
		return chromedp.Click(fmt.Sprintf(`%s .pad button:nth-child(%d)`, phone, n), chromedp.ByQuery)
	}
	send := chromedp.Click(phone+` .send`, chromedp.ByQuery)
	err := chromedp.Run(ctx,
		chromedp.Navigate("http://"+demo.ready.Phones+"/"),
		chromedp.WaitVisible(`body[data-ready=yes]`, chromedp.ByQuery),
		chromedp.SetValue(`#search`, child.Name, chromedp.ByQuery),
		chromedp.Evaluate(`document.getElementById("search").dispatchEvent(new Event("input"))`, nil),
		chromedp.WaitVisible(row, chromedp.ByQuery),
		chromedp.Click(row+` .show`, chromedp.ByQuery),
		chromedp.WaitVisible(phone, chromedp.ByQuery),
		chromedp.Click(row+` .in`, chromedp.ByQuery),
		chromedp.WaitVisible(phone+` .messages li`, chromedp.ByQuery),
		chromedp.Text(phone+` .messages li`, &sms, chromedp.ByQuery),
		chromedp.Click(row+` .buffet`, chromedp.ByQuery),
		chromedp.WaitVisible(row+` .answer:not(:empty)`, chromedp.ByQuery),
		chromedp.Text(row+` .answer`, &sold, chromedp.ByQuery),
		// The code stands in the field; "2" is the key of the visits, both to be sent.
		chromedp.Click(phone+` .tab-ussd`, chromedp.ByQuery), send, screen(2, &first),
		key(2), send, screen(4, &visits),
		chromedp.FullScreenshot(&picture, 100),
		chromedp.Click(phone+` .hangup`, chromedp.ByQuery),
		chromedp.WaitVisible(line(5)+`.mine.end`, chromedp.ByQuery),
		chromedp.Click(phone+` .codes button:nth-child(2)`, chromedp.ByQuery), screen(7, &shortcut),
		// The same by the aggregator.
		chromedp.SetValue(phone+` .way`, "http", chromedp.ByQuery),
		chromedp.Click(phone+` .codes button:nth-child(1)`, chromedp.ByQuery), screen(9, &byHTTP),
		key(2), send, screen(11, &more),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("SMS %q, sale %q, screens %q, %q, %q, over HTTP %q, %q", sms, sold, first, visits, shortcut, byHTTP, more)
	given, _, _ := strings.Cut(child.Name, " ")
	screens := map[string]string{"first": first, "visits": visits, "shortcut": shortcut, "HTTP": byHTTP, "HTTP visits": more}
	if sms == "" || sold == "" {
		t.Errorf("the phone of %s shows SMS %q, the till %q", given, sms, sold)
	}
	if !strings.Contains(first, "430") || !strings.Contains(shortcut, "430") || !strings.Contains(byHTTP, "HTTP") ||
		first == visits || !strings.HasPrefix(more, strings.SplitN(visits, "\n", 2)[0]) {
		t.Errorf("the screens of %s are %q", given, screens)
	}
	if file := os.Getenv("ZVONOK_TEST_SCREENSHOT"); file != "" {
		if err := os.WriteFile(file, picture, 0o644); err != nil {
			t.Fatal(err)
		}
	}

	// Typing a reply: STOP ends the messages at once (notices.md, Replies).
	before := len(demo.page(t).Inbox[number])
	demo.playPhone(t, "/reply", map[string]string{"number": number, "text": "СТОП"})
	eventually(t, "the confirmation", func() bool { return len(demo.page(t).Inbox[number]) > before })
}
