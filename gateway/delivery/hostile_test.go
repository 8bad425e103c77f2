package delivery_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"

	"pgregory.net/rapid"

	"zvonok/gateway/delivery"
	"zvonok/gateway/subscription"
	"zvonok/templates"
)

// Fault row 49: names out of every script, with line breaks, direction marks,
// tags, headers, JSON, two hundred letters or none, leave the structure of a push
// message and of a letter as it is, on the wire. (What becomes of SMS and screens
// is TestNoNameChangesTheStructureOfAnSMS of templates.)
func TestNoNameChangesTheStructureOfAPushMessageOrALetter(t *testing.T) {
	p := setupPost(t)
	who, _ := p.subscribe("79000000001", 1)
	hostile := []string{
		"", " ", strings.Repeat("Ё", 200), "Маша\r\nBcc: x@example.org\r\n\r\nтело", `","body":"x`, `\u0000\`, "<script>alert(1)</script>",
		"\u202eашаМ\u202c", "\u2066\u2069", "😀👩‍👩‍👧", "مريم", "美雪", "'; DROP TABLE delivery.delivery; --", "{{.Names}}", "%n%s", "=?utf-8?B?eA==?=",
		"\x00\x1b[2J", "\xff\xfe", ".\r\n.\r\nQUIT",
	}
	letter := rapid.OneOf(rapid.SampledFrom(hostile), rapid.String())
	var drafts []delivery.Draft
	for i := range 40 {
		name := templates.Name{Given: letter.Example(i), Family: letter.Example(i + 1000)}
		if i < len(hostile) {
			name = templates.Name{Given: hostile[i], Family: hostile[len(hostile)-1-i]}
		}
		m := templates.Absent{Child: name, By: time.Date(2026, 11, 23, 8, 45, 0, 0, time.UTC)}
		shown := entry(who)
		shown.Body = m.SMS(templates.Style{})
		mail := m.Mail(templates.RU)
		written := topUp(fmt.Sprintf("r%d@example.org", i))
		written.Letter = &delivery.Letter{Subject: mail.Subject, Text: mail.Text, HTML: mail.HTML, Thread: "child-1.20261123"}
		drafts = append(drafts, shown, written)
	}
	p.enqueue(drafts...)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	pushed, err := p.service.Wait(ctx, 40)
	if err != nil {
		t.Fatal(err)
	}
	bodies := map[string]bool{}
	for _, d := range drafts {
		if d.Channel == subscription.Push {
			bodies[d.Body] = true
		}
	}
	for _, m := range pushed {
		s := read(t, m) // a JSON object of the four fields, or it fails
		if !bodies[s.Body] || strings.ContainsFunc(s.Body, func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) }) {
			t.Errorf("a browser shows %q", s.Body)
		}
	}
	p.await("the letters", func() bool { return len(p.relay.Letters()) == 40 })
	fields := ""
	for _, l := range p.relay.Letters() {
		c, err := l.Content()
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for f := c.Header.Fields(); f.Next(); {
			names = append(names, f.Key())
		}
		list := strings.Join(names, " ")
		if fields == "" {
			fields = list
		}
		if list != fields || len(l.To) != 1 || strings.ContainsFunc(c.Subject, unicode.IsControl) ||
			strings.Count(c.HTML, "<script") > 0 || !strings.HasSuffix(strings.TrimSpace(c.HTML), "</html>") {
			t.Errorf("the header has %s, the subject is %q", list, c.Subject)
		}
	}
}
