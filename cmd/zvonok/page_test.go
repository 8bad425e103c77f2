package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"unicode"

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

// testPage is a person at the page of phones: picks a child, taps it in, sells it a bun, reads the SMS that appear without
// reloading, dials the code and every shortcut, walks the whole menu by the keys, hangs up, and does the same by the
// aggregator's HTTP.
func testPage(t *testing.T, demo *program) {
	city := demo.page(t).City
	child, number := subscriber(t, city, 3)
	h := &handset{t: t, ctx: browser(t), css: fmt.Sprintf(`article.phone[data-number=%q]`, number)}
	row := fmt.Sprintf(`li.child[data-card=%q]`, child.Card)
	var sms, sold string
	h.run(
		chromedp.Navigate("http://"+demo.ready.Phones+"/"),
		chromedp.WaitVisible(`body[data-ready=yes]`, chromedp.ByQuery),
		chromedp.SetValue(`#search`, child.Name, chromedp.ByQuery),
		chromedp.Evaluate(`document.getElementById("search").dispatchEvent(new Event("input"))`, nil),
		chromedp.WaitVisible(row, chromedp.ByQuery),
		chromedp.Click(row+` .show`, chromedp.ByQuery),
		chromedp.WaitVisible(h.css, chromedp.ByQuery),
		chromedp.Click(row+` .in`, chromedp.ByQuery),
		chromedp.WaitVisible(h.css+` .messages li`, chromedp.ByQuery),
		chromedp.Text(h.css+` .messages li`, &sms, chromedp.ByQuery),
		// The SMS may be faster than the door's own answer, which is not to be taken for the till's.
		chromedp.WaitVisible(row+` .answer:not(:empty)`, chromedp.ByQuery),
		chromedp.Click(row+` .buffet`, chromedp.ByQuery),
		chromedp.WaitVisible(row+` .answer:not(:empty)`, chromedp.ByQuery),
		chromedp.Text(row+` .answer`, &sold, chromedp.ByQuery),
		chromedp.Click(h.css+` .tab-ussd`, chromedp.ByQuery),
	)
	if sms == "" || sold == "" {
		t.Errorf("the phone of %s shows SMS %q, the till %q", child.Name, sms, sold)
	}
	first := h.press("") // the code stands in the field
	if !strings.Contains(first, "430") {
		t.Errorf("the first screen is %q", first)
	}
	visits := h.walk(first)
	if file := os.Getenv("ZVONOK_TEST_SCREENSHOT"); file != "" {
		h.press("2")
		var picture []byte
		h.run(chromedp.FullScreenshot(&picture, 100))
		if err := os.WriteFile(file, picture, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h.hangUp()

	// The buttons of the shortcuts: the menu, the balance, the visit, the meals, all by SMS, in Latin letters.
	given, _, _ := strings.Cut(first, " ")
	balance, visit, meals := h.code(2), h.code(3), h.code(4)
	if !strings.HasPrefix(balance, given) || !strings.Contains(balance, "430") || strings.Contains(balance, "\n") ||
		!strings.HasPrefix(visit, given) || strings.Contains(visit, "430") || strings.Contains(visit, "\n") ||
		!strings.HasPrefix(meals, given) || !strings.Contains(meals, "70") { // the bun
		t.Errorf("the shortcuts show %q, %q and %q", balance, visit, meals)
	}
	before := len(demo.page(t).Inbox[number])
	h.code(5)
	eventually(t, "the answer by SMS", func() bool { return len(demo.page(t).Inbox[number]) > before })
	if got := h.code(6); strings.ContainsFunc(got, func(r rune) bool { return r > unicode.MaxLatin1 }) || !strings.Contains(got, "430") {
		t.Errorf("in Latin letters: %q", got)
	}

	// The same by the aggregator.
	h.hangUp()
	h.run(chromedp.SetValue(h.css+` .way`, "http", chromedp.ByQuery))
	if got := h.code(1); got != first {
		t.Errorf("by HTTP the first screen is %q, not %q", got, first)
	}
	if !strings.Contains(h.note, "HTTP") {
		t.Errorf("by HTTP the note is %q", h.note)
	}
	if got := h.walk(first); got != visits {
		t.Errorf("by HTTP the visits are %q, not %q", got, visits)
	}

	// Typing a reply: STOP ends the messages at once (notices.md, Replies).
	before = len(demo.page(t).Inbox[number])
	demo.playPhone(t, "/reply", map[string]string{"number": number, "text": "СТОП"})
	eventually(t, "the confirmation", func() bool { return len(demo.page(t).Inbox[number]) > before })
}

// handset is a phone on the page whose USSD tab is open.
type handset struct {
	t     *testing.T
	ctx   context.Context
	css   string
	lines int    // of its dialogues: what was typed, and what came back
	note  string // under the last screen: its time and form
}

func (h *handset) run(actions ...chromedp.Action) {
	h.t.Helper()
	if err := chromedp.Run(h.ctx, actions...); err != nil {
		h.t.Fatal(err)
	}
}

// line is the last line.
func (h *handset) line() string { return fmt.Sprintf(`%s .screens li:nth-child(%d)`, h.css, h.lines) }

// answer waits for the screen that answers and returns it without the time under it.
func (h *handset) answer() string {
	h.t.Helper()
	h.lines += 2
	var text string
	h.run(chromedp.WaitVisible(h.line(), chromedp.ByQuery), chromedp.Text(h.line(), &text, chromedp.ByQuery))
	end := max(0, strings.LastIndexByte(text, '\n'))
	h.note = text[end:]
	return text[:end]
}

// press types keys on the pad and sends them.
func (h *handset) press(keys string) string {
	h.t.Helper()
	for _, key := range keys {
		button := 1 + strings.IndexRune("123456789*0#", key)
		h.run(chromedp.Click(fmt.Sprintf(`%s .pad button:nth-child(%d)`, h.css, button), chromedp.ByQuery))
	}
	h.run(chromedp.Click(h.css+` .send`, chromedp.ByQuery))
	return h.answer()
}

// code presses the n-th button of the codes.
func (h *handset) code(n int) string {
	h.t.Helper()
	h.run(chromedp.Click(fmt.Sprintf(`%s .codes button:nth-child(%d)`, h.css, n), chromedp.ByQuery))
	return h.answer()
}

// hangUp closes the dialogue.
func (h *handset) hangUp() {
	h.t.Helper()
	h.run(chromedp.Click(h.css+` .hangup`, chromedp.ByQuery))
	h.lines++
	h.run(chromedp.WaitVisible(h.line()+`.mine.end`, chromedp.ByQuery))
}

// walk goes to every screen of the menu and back to the first one, by "0" and by "00", and returns that of the visits.
func (h *handset) walk(first string) (visits string) {
	h.t.Helper()
	seen := map[string]string{first: "the first screen"}
	for _, key := range []string{"1", "2", "3", "4", "5", "6", "7"} {
		screen := h.press(key)
		if known := seen[screen]; known != "" || screen == "" {
			h.t.Errorf("key %s shows %q, as %s does", key, screen, known)
		}
		seen[screen] = "key " + key
		back := "0"
		if key == "2" {
			visits, back = screen, "00"
			if more := h.press("9"); more == screen { // another page, or the hint that there is none
				h.t.Errorf("key 9 changes nothing: %q", more)
			}
		}
		if got := h.press(back); got != first {
			h.t.Errorf("back from key %s by %s: %q", key, back, got)
		}
	}
	answer, _, _ := strings.Cut(first, "\n")
	if got := h.press("8"); got == first || !strings.Contains(got, answer) { // a hint over the same answer
		h.t.Errorf("what is no key shows %q", got)
	}
	return visits
}
