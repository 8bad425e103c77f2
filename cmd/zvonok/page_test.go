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
// it a bun, reads the SMS that appear without reloading, and dials the code.
func testPage(t *testing.T, demo *program) {
	city := demo.page(t).City
	child, number := subscriber(t, city, 3)
	ctx := browser(t)
	row := fmt.Sprintf(`li.child[data-card=%q]`, child.Card)
	phone := fmt.Sprintf(`article.phone[data-number=%q]`, number)
	var sms, screen string
	var picture []byte
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
		chromedp.Click(phone+` .tab-ussd`, chromedp.ByQuery),
		chromedp.Click(phone+` .send`, chromedp.ByQuery),
		chromedp.WaitVisible(phone+` .screens li:not(.mine)`, chromedp.ByQuery),
		chromedp.Text(phone+` .screens li:not(.mine)`, &screen, chromedp.ByQuery),
		chromedp.FullScreenshot(&picture, 100),
	)
	if err != nil {
		t.Fatal(err)
	}
	given, _, _ := strings.Cut(child.Name, " ")
	if sms == "" || screen == "" {
		t.Errorf("the phone of %s shows SMS %q and screen %q", given, sms, screen)
	}
	if file := os.Getenv("ZVONOK_TEST_SCREENSHOT"); file != "" {
		if err := os.WriteFile(file, picture, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("SMS %q, screen %q", sms, screen)

	// Typing a reply: STOP ends the messages at once (notices.md, Replies).
	before := len(demo.page(t).Inbox[number])
	demo.playPhone(t, "/reply", map[string]string{"number": number, "text": "СТОП"})
	eventually(t, "the confirmation", func() bool { return len(demo.page(t).Inbox[number]) > before })
}
