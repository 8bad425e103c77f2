package email

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-message/mail"
	"github.com/emersion/go-msgauth/dkim"
	"github.com/emersion/go-smtp"
	"pgregory.net/rapid"
)

var thursday = time.Date(2026, time.May, 14, 19, 0, 0, 0, time.UTC)

const school = "Школа <pass@example.org>"

// fields returns the names of the header's fields, in order.
func fields(t interface {
	Helper()
	Fatal(...any)
}, built []byte,
) []string {
	t.Helper()
	header, _, ok := bytes.Cut(built, []byte("\r\n\r\n"))
	if !ok {
		t.Fatal("no end of the header")
	}
	var names []string
	for _, line := range strings.Split(string(header), "\r\n") {
		if line == "" || line[0] == ' ' || line[0] == '\t' {
			continue
		}
		name, _, _ := strings.Cut(line, ":")
		names = append(names, name)
	}
	return names
}

// Fault row 49, V1.3.11: CR and LF and worse in every field a person may have
// typed; the header has the same fields, the envelope one sender.
func TestNothingTypedAddsAHeaderField(t *testing.T) {
	t.Parallel()
	plain, err := build(letter(parent), school, parent, thursday, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Join(fields(t, plain), " ")
	hostile := rapid.OneOf(
		rapid.String(),
		rapid.SampledFrom([]string{
			"Маша\r\nBcc: x@example.com", "\r\n\r\n<script>", "\n.\r\nMAIL FROM:<a@b>", "=?utf-8?q?=0D=0ABcc:_x?=", "\u2028Bcc: x",
			"\x00", "\x1b[31m", strings.Repeat("Я", 500), "a\rb", "\u202eгнус", "\xff\xfe", " ", "", `"quoted" <x@example.com>, y`,
		}),
	)
	rapid.Check(t, func(t *rapid.T) {
		l := letter(parent)
		l.Subject = hostile.Draw(t, "subject")
		l.Text = "x" + hostile.Draw(t, "text")
		l.HTML = "x" + hostile.Draw(t, "html")
		from := (&mail.Address{Name: hostile.Draw(t, "name"), Address: "pass@example.org"}).String()
		built, err := build(l, from, parent, thursday, nil)
		if err != nil {
			return // net/mail does not take such a name back
		}
		assertWire(t, built)
		if got := strings.Join(fields(t, built), " "); got != want {
			t.Fatalf("the header has %s, want %s", got, want)
		}
		r, err := mail.CreateReader(bytes.NewReader(built))
		if err != nil {
			t.Fatal(err)
		}
		if subject, err := r.Header.Subject(); err != nil || subject != oneLine(l.Subject) {
			t.Fatalf("the subject is %q, %v", subject, err)
		}
		if to, err := r.Header.AddressList("To"); err != nil || len(to) != 1 || to[0].Address != parent {
			t.Fatalf("it goes to %v, %v", to, err)
		}
		if list, err := r.Header.AddressList("From"); err != nil || len(list) != 1 || list[0].Address != "pass@example.org" {
			t.Fatalf("it comes from %v, %v", list, err)
		}
		parts := 0
		for {
			_, err := r.NextPart()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			parts++
		}
		if parts != 2 {
			t.Fatalf("%d parts", parts)
		}
	})
}

func TestAWrongLetterIsNotBuilt(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change func(*Letter)
		want   string
	}{
		{"no text", func(l *Letter) { l.Text = "" }, "no text"},
		{"no id", func(l *Letter) { l.MessageID = "" }, "id of a message"},
		{"an id with a line break", func(l *Letter) { l.MessageID = "a@b\r\nBcc: x@y" }, "id of a message"},
		{"an id with brackets", func(l *Letter) { l.MessageID = "<a@b>" }, "id of a message"},
		{"a reference with a space", func(l *Letter) { l.References = []string{"a b@c"} }, "id of a message"},
		{"a script to unsubscribe at", func(l *Letter) { l.Unsubscribe = "javascript:alert(1)" }, "unsubscribe"},
		{"a line break to unsubscribe at", func(l *Letter) { l.Unsubscribe = "https://x.example.org/\r\nBcc: y" }, "unsubscribe"},
		{"a bracket to unsubscribe at", func(l *Letter) { l.Unsubscribe = "https://x.example.org/>,<mailto:y" }, "unsubscribe"},
		{"nowhere to unsubscribe at", func(l *Letter) { l.Unsubscribe = "https:///path" }, "unsubscribe"},
		{"a sender that is none", func(l *Letter) { l.From = "school" }, "sender"},
		{"a sender with quotes", func(l *Letter) { l.From = `"a b"@example.org` }, "sender"},
		{"half a megabyte", func(l *Letter) { l.Text = strings.Repeat("Маша ", 60_000) }, "octets"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := bench(t, nil)
			l := letter(parent)
			tt.change(&l)
			wrong := r.send(t, l)
			if wrong == nil || wrong.Class != Refused || wrong.Phase != Building || wrong.Temporary() ||
				!strings.Contains(wrong.Error(), tt.want) {
				t.Errorf("%v", wrong)
			}
			if len(r.relay.Sessions()) != 0 {
				t.Error("the relay was asked")
			}
		})
	}
}

func TestAnAddressIsReadOrRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ raw, mailbox, domain string }{
		{"masha@example.org", "masha@example.org", "example.org"},
		{"Masha.Parent+school@Example.ORG", "Masha.Parent+school@example.org", "example.org"},
		{"o'neil@example.org", "o'neil@example.org", "example.org"},
		{"masha@почта.рф", "masha@xn--80a1acny.xn--p1ai", "xn--80a1acny.xn--p1ai"},
		{"dev@localhost", "dev@localhost", "localhost"},
		{"", "", ""},
		{"masha", "", ""},
		{"@example.org", "", ""},
		{"masha@", "", ""},
		{"masha@example", "", ""},
		{"masha@example.org.", "", ""},
		{"masha@exa mple.org", "", ""},
		{"masha@[127.0.0.1]", "", ""},
		{"masha@example.org>", "", ""},
		{"masha@example.org> SIZE=1", "", ""},
		{"masha@example.org\r\nRCPT TO:<x@y.example.org>", "", ""},
		{"a@b@example.org", "", ""},
		{`"a b"@example.org`, "", ""},
		{"Маша <masha@example.org>", "", ""},
		{"маша@example.org", "", ""},
		{"ma..sha@example.org", "", ""},
		{".masha@example.org", "", ""},
		{strings.Repeat("a", 65) + "@example.org", "", ""},
		{"a@" + strings.Repeat("a.", 130) + "org", "", ""},
	} {
		mailbox, domain, err := parseAddress(tt.raw)
		if mailbox != tt.mailbox || domain != tt.domain || (err == nil) != (tt.mailbox != "") {
			t.Errorf("%q is %q at %q, %v", tt.raw, mailbox, domain, err)
		}
	}
	r := bench(t, nil)
	if wrong := r.send(t, letter("masha@example")); wrong == nil || wrong.Class != Address || wrong.Phase != Building {
		t.Errorf("%v", wrong)
	}
}

// publish answers the DNS query for a key.
func publish(t *testing.T, key crypto.Signer, algorithm string) func(string) ([]string, error) {
	t.Helper()
	public, ok := key.Public().(ed25519.PublicKey)
	raw := []byte(public)
	if !ok {
		var err error
		if raw, err = x509.MarshalPKIXPublicKey(key.Public()); err != nil {
			t.Fatal(err)
		}
	}
	return func(name string) ([]string, error) {
		if name != "s2026._domainkey.example.org" {
			return nil, errors.New("no such name")
		}
		return []string{"v=DKIM1; k=" + algorithm + "; p=" + base64.StdEncoding.EncodeToString(raw)}, nil
	}
}

func TestASignedLetterIsVerifiedAsItArrives(t *testing.T) {
	t.Parallel()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		algorithm string
		key       crypto.Signer
	}{{"rsa", rsaKey}, {"ed25519", edKey}} {
		t.Run(tt.algorithm, func(t *testing.T) {
			t.Parallel()
			r := bench(t, func(c *Config) { c.DKIM = &DKIM{Domain: "example.org", Selector: "s2026", Key: tt.key} })
			if wrong := r.send(t, letter(parent)); wrong != nil {
				t.Fatal(wrong)
			}
			arrived := r.relay.Letters()[0].Data
			options := &dkim.VerifyOptions{LookupTXT: publish(t, tt.key, tt.algorithm)}
			verify := func(data []byte) (*dkim.Verification, error) {
				v, err := dkim.VerifyWithOptions(bytes.NewReader(data), options)
				if err != nil || len(v) != 1 {
					t.Fatalf("%v, %v", v, err)
				}
				return v[0], v[0].Err
			}
			v, err := verify(arrived)
			if err != nil || v.Domain != "example.org" {
				t.Fatalf("%+v", v)
			}
			// RFC 8058 section 4: the one click counts only inside the signature.
			covered := strings.ToLower(strings.Join(v.HeaderKeys, " ") + " ")
			for _, field := range []string{"from", "to", "subject", "message-id", "list-unsubscribe", "list-unsubscribe-post"} {
				if !strings.Contains(covered, field+" ") {
					t.Errorf("%s is not signed: %s", field, covered)
				}
			}
			for _, forgery := range []struct{ name, old, new string }{
				{"another body", "=D0=9C=D0=B0=D1=88=D0=B0 =D0=9F.", "=D0=9C=D0=B0=D1=88=D0=B0 =D0=A1."},
				{"another place to unsubscribe", "<https://zvonok.example.org", "<https://other.example.org"},
				{"a second From", "Subject:", "From: x@example.com\r\nSubject:"},
			} {
				forged := bytes.Replace(arrived, []byte(forgery.old), []byte(forgery.new), 1)
				if bytes.Equal(forged, arrived) {
					t.Fatalf("%s: there is nothing to forge in\n%s", forgery.name, arrived)
				}
				if _, err := verify(forged); err == nil {
					t.Errorf("%s is not noticed", forgery.name)
				}
			}
		})
	}
}

func TestADKIMKeyIsReadFromPEM(t *testing.T) {
	t.Parallel()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8 := func(key any) []byte {
		raw, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
	}
	pkcs1 := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey)})
	for _, tt := range []struct {
		name   string
		source []byte
		want   string
	}{
		{"RSA in PKCS #8", pkcs8(rsaKey), ""},
		{"RSA in PKCS #1", pkcs1, ""},
		{"Ed25519", pkcs8(edKey), ""},
		{"a curve DKIM does not have", pkcs8(curve), "cannot sign"},
		{"no PEM", []byte("key"), "no PEM block"},
		{"PEM of something else", pem.EncodeToMemory(&pem.Block{Type: "X", Bytes: []byte("x")}), "neither"},
	} {
		key, err := ParseDKIMKey(tt.source)
		if tt.want == "" && (err != nil || key == nil) ||
			tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// libraries.md section 4: go-smtp sets no deadline while the body is written.
func TestAPeerThatStopsReadingCostsOneWrite(t *testing.T) {
	t.Parallel()
	r := bench(t, nil)
	r.hurry()
	ours, theirs := net.Pipe() // without buffers, so that the peer's reading is all the reading there is
	defer theirs.Close()
	go func() {
		in := bufio.NewReader(theirs)
		reply := func(text string) { _, _ = io.WriteString(theirs, text+"\r\n") }
		reply("220 hello")
		for _, text := range []string{"250 hello", "250 OK", "250 OK", "354 go ahead"} {
			if _, err := in.ReadString('\n'); err != nil {
				return
			}
			reply(text)
		}
	}()
	conn := &timedConn{Conn: ours, limit: r.sender.times.final, write: r.sender.times.write}
	client, err := r.sender.greet(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	wrong := r.sender.transact(t.Context(), &session{client: client, conn: conn}, envelope{
		from: "a@example.org", to: parent, message: bytes.Repeat([]byte("x\r\n"), 50_000),
	})
	if wrong == nil || wrong.Class != HostDown || wrong.Phase != Data {
		t.Errorf("%v", wrong)
	}
	if took := time.Since(began); took > time.Minute { // the peer would never read on
		t.Errorf("it took %v", took)
	}
}

// A lifted deadline must not leave a read that lasts for ever either.
func TestNoDeadlineIsLifted(t *testing.T) {
	t.Parallel()
	ours, theirs := net.Pipe()
	defer theirs.Close()
	conn := &timedConn{Conn: ours, limit: 50 * time.Millisecond, write: time.Second}
	for _, deadline := range []time.Time{{}, time.Now().Add(time.Hour)} {
		if err := conn.SetDeadline(deadline); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("it read something")
		}
	}
}

func TestAnErrorSaysWhereAndWhat(t *testing.T) {
	t.Parallel()
	e := classify(Rcpt, 550, smtp.EnhancedCode{5, 1, 1}, "<"+parent+">: unknown")
	if got := e.Error(); got != "send letter: address at rcpt: 550 5.1.1" {
		t.Errorf("%q", got)
	}
	e = &Error{Class: HostDown, Phase: Dialling, Err: io.EOF}
	if got := e.Error(); got != "send letter: host_down at dialling: EOF" || !errors.Is(e, io.EOF) {
		t.Errorf("%q", got)
	}
}

func FuzzBuild(f *testing.F) {
	f.Add("Сводка", "Маша\n", "<p>Маша</p>", "day@example.org", "https://x.example.org/", "Школа")
	f.Add("a\r\nb", ".", "", "a@b", "", "")
	f.Fuzz(func(t *testing.T, subject, text, html, id, unsubscribe, name string) {
		from := (&mail.Address{Name: name, Address: "pass@example.org"}).String()
		l := Letter{Subject: subject, Text: text, HTML: html, MessageID: id, Unsubscribe: unsubscribe}
		built, err := build(l, from, parent, thursday, nil)
		if err != nil {
			return
		}
		assertWire(t, built)
		for _, name := range fields(t, built) {
			switch name {
			case "Date", "From", "To", "Subject", "Message-Id", "Auto-Submitted", "List-Unsubscribe", "List-Unsubscribe-Post",
				"Mime-Version", "Content-Type", "Content-Transfer-Encoding":
			default:
				t.Fatalf("the header has %s", name)
			}
		}
	})
}

func FuzzParseAddress(f *testing.F) {
	for _, seed := range []string{
		"a@example.org", "a@b@c.org", "a@почта.рф", "a@[1.2.3.4]", "\"a\"@b.org", "a@b.org\r\n", "a@\u00ad.org",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		mailbox, domain, err := parseAddress(raw)
		if err != nil {
			return
		}
		if strings.ContainsAny(mailbox, " <>\r\n\t\"(),;:\\[]") || strings.Count(mailbox, "@") != 1 ||
			!strings.HasSuffix(mailbox, "@"+domain) {
			t.Fatalf("%q became %q", raw, mailbox)
		}
		if again, _, err := parseAddress(mailbox); err != nil || again != mailbox {
			t.Fatalf("%q became %q, then %q, %v", raw, mailbox, again, err)
		}
	})
}
