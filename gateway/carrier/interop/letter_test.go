//go:build interop

package interop_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"log/slog"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"zvonok/gateway/email"
	"zvonok/gateway/email/emailtest"
	"zvonok/ledger/money"
	"zvonok/templates"
)

// parsed is a letter as mailparser tells it.
type parsed struct {
	Version             string
	Subject, Text, HTML string
	Date                time.Time
	From, To            []struct{ Address, Name string }
	MessageID           string
	References          []string
	Unsubscribe         string
	OneClick            string
	AutoSubmitted       string
	Headers             []string
	Attachments         int
}

// Letters reach a relay and are read there by somebody else's parser.
func TestMailparserReadsOurLettersAsTheyWereMeant(t *testing.T) {
	node := program(t, "mailparser", "node")
	relay, err := emailtest.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = relay.Close() })
	paths, err := email.NewReturnPath("bounce@example.org", bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	sender, err := email.NewSender(email.Config{
		Relay: relay.Addr(), Security: email.Plain, From: "Школа № 5 <pass@example.org>", ReturnPath: paths,
		DKIM: &email.DKIM{
			Domain: "example.org", Selector: "school", Key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32)),
		},
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Metrics: email.NewMetrics(prometheus.NewRegistry()), Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	thursday := time.Date(2026, time.May, 14, 19, 0, 0, 0, time.UTC)
	digest := templates.Digest{From: thursday, To: thursday, Children: []templates.ChildDigest{{
		Child: templates.Name{Given: "Маша", Family: "Петрова"}, Own: true, Balance: money.Amount(14350),
	}}}.Mail(templates.RU)
	base := email.Letter{
		To: "parent@example.com", Subject: "Маша П. вошла в школу", Text: "Маша П. вошла в 08:15.",
		References: []string{"day-1@example.org"}, Unsubscribe: "https://example.org/u/abc?x=1&y=2", Date: thursday,
	}
	for i, c := range []struct {
		name   string
		change func(*email.Letter)
	}{
		{"a letter of plain Cyrillic text", func(*email.Letter) {}},
		{"a letter in text and HTML", func(l *email.Letter) {
			l.HTML = "<p>Маша&nbsp;П. вошла в <b>08:15</b> — баланс 143,50&nbsp;₽</p>"
		}},
		{"the digest of a day", func(l *email.Letter) {
			l.Subject, l.Text, l.HTML = digest.Subject, digest.Text, digest.HTML
		}},
		{"a subject longer than a line, with emoji", func(l *email.Letter) {
			l.Subject = strings.TrimSpace(strings.Repeat("Маша и Саша 🫖 пришли ", 12))
		}},
		{"a text of long lines, dots and equals signs", func(l *email.Letter) {
			l.Text = ".\n..\nFrom here = there\n" + strings.Repeat("съешь ещё булок ", 100) + "\n=C3=A9\nконец "
		}},
		{"a letter nobody subscribed to", func(l *email.Letter) { l.Unsubscribe = "" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := base
			c.change(&l)
			l.ID, l.MessageID = int64(i+1), "pass-"+string(rune('a'+i))+"@example.org"
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := sender.Send(ctx, l); err != nil {
				t.Fatal(err)
			}
			taken, err := relay.Wait(ctx, func(got emailtest.Letter) bool { return got.From == paths.For(l.ID) })
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(node, filepath.Join("testdata", "mail.js"), workspace)
			cmd.Stdin = bytes.NewReader(taken.Data)
			var complaint bytes.Buffer
			cmd.Stderr = &complaint
			out, err := cmd.Output()
			if err != nil {
				transcript.add(row{"mailparser", "-", "does not start on this machine", "NOT TRIED"})
				t.Fatalf("mailparser: %v: %s", err, complaint.String())
			}
			var got parsed
			if err := json.Unmarshal(out, &got); err != nil {
				t.Fatal(err)
			}
			verdict(t, "mailparser", got.Version, c.name+": subject, bodies, headers")
			compare(t, l, got)
		})
	}
}

// compare demands that a person would see the letter as it was given to the Sender.
func compare(t *testing.T, l email.Letter, got parsed) {
	t.Helper()
	same := func(what, want, got string) {
		t.Helper()
		if want != got {
			t.Errorf("%s:\nmeant %q\nread  %q", what, want, got)
		}
	}
	same("subject", l.Subject, got.Subject)
	same("text", strings.TrimSuffix(l.Text, "\n"), strings.TrimSuffix(got.Text, "\n"))
	same("HTML", strings.TrimSuffix(l.HTML, "\n"), strings.TrimSuffix(got.HTML, "\n"))
	same("Message-ID", "<"+l.MessageID+">", got.MessageID)
	same("List-Unsubscribe", l.Unsubscribe, got.Unsubscribe)
	same("Auto-Submitted", "auto-generated", got.AutoSubmitted)
	if l.Unsubscribe != "" {
		same("List-Unsubscribe-Post", "List-Unsubscribe=One-Click", got.OneClick)
	}
	if len(got.From) != 1 || got.From[0].Name != "Школа № 5" || got.From[0].Address != "pass@example.org" {
		t.Errorf("from %+v", got.From)
	}
	if len(got.To) != 1 || got.To[0].Address != l.To {
		t.Errorf("to %+v", got.To)
	}
	if len(got.References) != 1 || got.References[0] != "<"+l.References[0]+">" {
		t.Errorf("references %q", got.References)
	}
	if !got.Date.Equal(l.Date) {
		t.Errorf("dated %s", got.Date)
	}
	if !slices.Contains(got.Headers, "dkim-signature") || got.Attachments != 0 {
		t.Errorf("headers %q, %d attachments", got.Headers, got.Attachments)
	}
}
