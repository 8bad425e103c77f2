package emailtest

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/smtp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func listen(t *testing.T, options ...Option) *Server {
	t.Helper()
	s, err := Listen("127.0.0.1:0", options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

const hello = "From: =?utf-8?q?=D0=A8=D0=BA=D0=BE=D0=BB=D0=B0?= <pass@example.org>\r\nTo: a@example.net\r\n" +
	"Subject: =?utf-8?q?=D0=A1=D0=B2=D0=BE=D0=B4=D0=BA=D0=B0?= <b>\r\nMIME-Version: 1.0\r\n" +
	"Content-Type: multipart/alternative; boundary=x\r\n\r\n" +
	"--x\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n.one\r\n..two\r\n--x\r\n" +
	"Content-Type: text/html; charset=utf-8\r\n\r\n<script>alert(1)</script><p>three</p>\r\n--x--\r\n"

// The standard library's client is a stranger to this package.
func bring(t *testing.T, s *Server, to ...string) error {
	t.Helper()
	return smtp.SendMail(s.Addr(), nil, "pass@example.org", to, []byte(hello))
}

func TestALetterIsKeptAsItCame(t *testing.T) {
	t.Parallel()
	s := listen(t)
	if err := bring(t, s, "a@example.net", "b@example.net"); err != nil {
		t.Fatal(err)
	}
	got := s.Letters()
	if len(got) != 1 || got[0].Number != 1 || got[0].From != "pass@example.org" ||
		strings.Join(got[0].To, " ") != "a@example.net b@example.net" {
		t.Fatalf("%+v", got)
	}
	if string(got[0].Data) != hello {
		t.Errorf("%q", got[0].Data)
	}
	c, err := got[0].Content()
	if err != nil || c.Subject != "Сводка <b>" || c.From != "Школа <pass@example.org>" || c.Text != ".one\r\n..two" ||
		c.HTML != "<script>alert(1)</script><p>three</p>" {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestThePageShowsLettersAndRunsNothing(t *testing.T) {
	t.Parallel()
	s := listen(t)
	page := http.StripPrefix("/mail", s.Handler())
	get := func(path string) (*http.Response, string) {
		w := httptest.NewRecorder()
		page.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Result(), w.Body.String()
	}
	if _, body := get("/mail/"); !strings.Contains(body, "No letter has come yet") {
		t.Error(body)
	}
	if err := bring(t, s, "a@example.net"); err != nil {
		t.Fatal(err)
	}
	_, body := get("/mail/")
	if !strings.Contains(body, `<a href="1">Сводка &lt;b&gt;</a>`) || !strings.Contains(body, "a@example.net") {
		t.Error(body)
	}
	var r *http.Response
	r, body = get("/mail/1")
	if !strings.Contains(body, `<iframe src="1/html" sandbox`) || !strings.Contains(body, "..two") ||
		strings.Contains(body, "<script>") {
		t.Error(body)
	}
	if policy := r.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'") {
		t.Error(policy)
	}
	r, body = get("/mail/1/html")
	policy := r.Header.Get("Content-Security-Policy")
	if !strings.HasPrefix(policy, "sandbox;") || !strings.Contains(body, "<p>three</p>") {
		t.Error(policy, body)
	}
	if _, body := get("/mail/1/source"); body != hello {
		t.Errorf("%q", body)
	}
	for _, path := range []string{"/mail/2", "/mail/x", "/mail/0/html", "/mail/1/other"} {
		if r, _ := get(path); r.StatusCode != http.StatusNotFound {
			t.Errorf("%s is %d", path, r.StatusCode)
		}
	}
}

func TestWaitReturnsWhatCameAndWhatComes(t *testing.T) {
	t.Parallel()
	s := listen(t)
	to := func(address string) func(Letter) bool {
		return func(l Letter) bool { return l.To[0] == address }
	}
	if err := bring(t, s, "a@example.net"); err != nil {
		t.Fatal(err)
	}
	if l, err := s.Wait(t.Context(), to("a@example.net")); err != nil || l.Number != 1 {
		t.Errorf("%+v, %v", l, err)
	}
	found := make(chan Letter, 1)
	go func() {
		l, _ := s.Wait(t.Context(), to("b@example.net"))
		found <- l
	}()
	if err := bring(t, s, "b@example.net"); err != nil {
		t.Fatal(err)
	}
	if l := <-found; l.Number != 2 {
		t.Errorf("%+v", l)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Wait(ctx, to("nobody")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestOnlySoManyLettersAreKept(t *testing.T) {
	t.Parallel()
	s := listen(t)
	s.sessions = append(s.sessions, Session{Number: 1})
	for range maxLetters + 3 {
		s.keep(Letter{}, 1)
	}
	got := s.Letters()
	if len(got) != maxLetters || got[0].Number != 4 || got[len(got)-1].Number != maxLetters+3 {
		t.Errorf("%d letters, from %d to %d", len(got), got[0].Number, got[len(got)-1].Number)
	}
}

func TestADialogueOutOfOrderIsRefused(t *testing.T) {
	t.Parallel()
	s := listen(t)
	c, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	script := []struct{ say, want string }{
		{"", "220"},
		{"MAIL FROM a@b", "501"},
		{"RCPT TO:<a@example.net>", "503"},
		{"DATA", "503"},
		{"MAIL FROM:<>", "250"},
		{"MAIL FROM:<a@example.org>", "503"},
		{"DATA", "503"},
		{"RCPT TO:<>", "501"},
		{"RCPT TO:<a@example.net> NOTIFY=NEVER", "250"},
		{"RSET", "250"},
		{"DATA", "503"},
		{"STARTTLS", "502"},
		{"AUTH CRAM-MD5", "504"},
		{"NOOP", "250"},
		{"HELO me", "250"},
		{"WHAT", "500"},
		{"QUIT", "221"},
	}
	buffer := make([]byte, 512)
	for _, line := range script {
		if line.say != "" {
			if _, err := io.WriteString(c, line.say+"\r\n"); err != nil {
				t.Fatal(err)
			}
		}
		n, err := c.Read(buffer)
		if err != nil || !strings.HasPrefix(string(buffer[:n]), line.want) {
			t.Fatalf("%s: %q, %v", line.say, buffer[:n], err)
		}
	}
	if _, err := c.Read(buffer); err != io.EOF {
		t.Error(err)
	}
	if len(s.Letters()) != 0 {
		t.Error("something was taken")
	}
}

// Each knob does what its name says, to a client that is not ours.
func TestTheKnobs(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		b    Behaviour
		want string // of the error; "" for none
		kept int
	}{
		{"refuse", Refuse("RCPT", "550 5.1.1 No"), "550", 0},
		{"refuse another", For("@other.example.net", Refuse("RCPT", "550 5.1.1 No")), "", 1},
		{"refuse this one", For("@example.net", Refuse("RCPT", "550 5.1.1 No")), "550", 0},
		{"refuse no more times", Times(0, Refuse("RCPT", "550 5.1.1 No")), "", 1},
		{"greylist", Greylist(), "450", 0},
		{"hang up", HangUp("DATA"), "EOF", 0},
		{"hang up after the final dot", HangUp("END"), "EOF", 1},
		{"lose and hang up", LoseAndHangUp(), "EOF", 0},
		{"die in the letter", DieInData(10), "", 0},
		{"drip", Drip("MAIL", time.Millisecond), "", 1},
		{"hide what is not there", StripSTARTTLS(), "", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := listen(t)
			s.Behave(tt.b)
			err := bring(t, s, "a@example.net")
			switch {
			case tt.name == "die in the letter":
				if err == nil {
					t.Error("nothing is wrong")
				}
			case (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want):
				t.Errorf("%v", err)
			}
			if n := len(s.Letters()); n != tt.kept {
				t.Errorf("%d letters are kept", n)
			}
		})
	}
}

func TestAServerThatIsSilentCanBeClosed(t *testing.T) {
	t.Parallel()
	for _, b := range []Behaviour{Silence("CONNECT"), Silence("END"), StopReading()} {
		s := listen(t)
		reached := make(chan struct{}, 1)
		s.Behave(func(step Step) *Answer {
			a := b(step)
			if a != nil {
				reached <- struct{}{}
			}
			return a
		})
		done := make(chan error, 1)
		go func() { done <- bring(t, s, "a@example.net") }()
		<-reached
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; err == nil {
			t.Error("nothing is wrong")
		}
	}
}
