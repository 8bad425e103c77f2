package email

import (
	"bytes"
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"zvonok/gateway/email/emailtest"
)

func authority(t *testing.T) *emailtest.Authority {
	t.Helper()
	a, err := emailtest.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issue(t *testing.T, a *emailtest.Authority, host string, until time.Time) tls.Certificate {
	t.Helper()
	c, err := a.Issue(host, until)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestALetterGoesInsideTLSWhereItIsDemanded(t *testing.T) {
	t.Parallel()
	a := authority(t)
	good := issue(t, a, "127.0.0.1", time.Now().Add(time.Hour))
	for _, tt := range []struct {
		policy Security
		option emailtest.Option
	}{
		{STARTTLS, emailtest.WithTLS(good)}, {TLS, emailtest.WithImplicitTLS(good)},
	} {
		t.Run(string(tt.policy), func(t *testing.T) {
			t.Parallel()
			r := bench(t, func(c *Config) { c.Security, c.Roots = tt.policy, a.Roots() }, tt.option)
			for range 3 {
				if wrong := r.send(t, letter(parent)); wrong != nil {
					t.Fatal(wrong)
				}
			}
			letters, sessions := r.relay.Letters(), r.relay.Sessions()
			if len(letters) != 3 || !letters[0].TLS || len(sessions) != 1 || !sessions[0].TLS {
				t.Errorf("%d letters over %+v", len(letters), sessions)
			}
			if clear := string(sessions[0].Clear); strings.Contains(clear, "MAIL") || strings.Contains(clear, "example") {
				t.Errorf("in the clear went %q", clear)
			}
		})
	}
}

// Fault row 31: expired, wrong name, unknown issuer, STARTTLS stripped, TLS
// where there is none: fail closed, alarm, and not an octet of a letter or an
// address in the clear.
func TestWithoutTrustedTLSNothingIsSaid(t *testing.T) {
	t.Parallel()
	a, stranger := authority(t), authority(t)
	day := 24 * time.Hour
	good := issue(t, a, "127.0.0.1", time.Now().Add(day))
	expired := issue(t, a, "127.0.0.1", time.Now().Add(-time.Hour))
	other := issue(t, a, "mail.example.com", time.Now().Add(day))
	unknown := issue(t, stranger, "127.0.0.1", time.Now().Add(day))
	for _, tt := range []struct {
		name    string
		policy  Security
		options []emailtest.Option
		peer    []emailtest.Behaviour
		want    string
	}{
		{"expired, STARTTLS", STARTTLS, []emailtest.Option{emailtest.WithTLS(expired)}, nil, "expired"},
		{"expired, TLS", TLS, []emailtest.Option{emailtest.WithImplicitTLS(expired)}, nil, "expired"},
		{"wrong name, STARTTLS", STARTTLS, []emailtest.Option{emailtest.WithTLS(other)}, nil, "127.0.0.1"},
		{"wrong name, TLS", TLS, []emailtest.Option{emailtest.WithImplicitTLS(other)}, nil, "127.0.0.1"},
		{"unknown issuer, STARTTLS", STARTTLS, []emailtest.Option{emailtest.WithTLS(unknown)}, nil, "unknown authority"},
		{"unknown issuer, TLS", TLS, []emailtest.Option{emailtest.WithImplicitTLS(unknown)}, nil, "unknown authority"},
		{"no STARTTLS", STARTTLS, nil, nil, "does not offer STARTTLS"},
		{
			"STARTTLS stripped", STARTTLS,
			[]emailtest.Option{emailtest.WithTLS(good)},
			[]emailtest.Behaviour{emailtest.StripSTARTTLS()},
			"does not offer STARTTLS",
		},
		{
			"STARTTLS refused", STARTTLS,
			[]emailtest.Option{emailtest.WithTLS(good)},
			[]emailtest.Behaviour{emailtest.Refuse("STARTTLS", "502 5.5.1 Not today")},
			"502",
		},
		{
			"STARTTLS answered and not begun", STARTTLS, nil,
			[]emailtest.Behaviour{
				emailtest.Refuse("EHLO", "250-catcher.example.org\r\n250 STARTTLS"), emailtest.Refuse("STARTTLS", "220 Go ahead"),
			},
			"TLS",
		},
		{"TLS to a server that greets in the clear", TLS, nil, nil, "TLS"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := bench(t, func(c *Config) {
				c.Security, c.Roots, c.Username, c.Password = tt.policy, a.Roots(), "school", "secret-word"
			}, tt.options...)
			r.relay.Behave(tt.peer...)
			wrong := r.send(t, letter(parent))
			if wrong == nil || wrong.Class != Misconfigured || wrong.Phase != Greeting || wrong.RetryAfter != configBackoff {
				t.Fatalf("%v", wrong)
			}
			if !strings.Contains(wrong.Error(), tt.want) {
				t.Errorf("%q does not say %q", wrong.Error(), tt.want)
			}
			for _, s := range r.relay.Sessions() {
				for _, private := range []string{"MAIL", "AUTH", "masha", "bounce", "Маша", "secret-word"} {
					if bytes.Contains(s.Clear, []byte(private)) {
						t.Errorf("in the clear went %q", s.Clear)
					}
				}
			}
			if len(r.relay.Letters()) != 0 || testutil.ToFloat64(r.metrics.relay) != 0 {
				t.Error("no alarm")
			}
			if !strings.Contains(r.log.String(), "mail relay cannot be used") {
				t.Errorf("the log says %q", r.log)
			}
			// and it is not tried again at once, so that a repaired relay is noticed and an account not locked
			if again := r.send(t, letter(parent)); again == nil || again.Phase != Waiting || again.Class != Misconfigured {
				t.Errorf("%v", again)
			}
		})
	}
}

func TestALoginIsMadeInsideTLS(t *testing.T) {
	t.Parallel()
	a := authority(t)
	good := issue(t, a, "127.0.0.1", time.Now().Add(time.Hour))
	for _, tt := range []struct {
		name, password string
		peer           []emailtest.Behaviour
		class          Class
		phase          Phase
	}{
		{"the right password", "secret-word", nil, "", ""},
		{"a wrong password", "guess", nil, Misconfigured, Login},
		{"no mechanism of ours", "secret-word", []emailtest.Behaviour{
			emailtest.Refuse("EHLO", "250-catcher.example.org\r\n250-STARTTLS\r\n250 AUTH GSSAPI"),
		}, Misconfigured, Login},
		{"a login server that is away", "secret-word", []emailtest.Behaviour{
			emailtest.Refuse("AUTH", "454 4.7.0 Temporary failure"),
		}, HostDown, Login},
		{"a connection lost in it", "secret-word", []emailtest.Behaviour{emailtest.HangUp("AUTH")}, HostDown, Login},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := bench(t, func(c *Config) {
				c.Security, c.Roots, c.Username, c.Password = STARTTLS, a.Roots(), "school", tt.password
			}, emailtest.WithTLS(good), emailtest.WithLogin("school", "secret-word"))
			r.relay.Behave(tt.peer...)
			wrong := r.send(t, letter(parent))
			if tt.class == "" {
				if wrong != nil || len(r.relay.Letters()) != 1 {
					t.Fatal(wrong)
				}
				return
			}
			if wrong == nil || wrong.Class != tt.class || wrong.Phase != tt.phase {
				t.Fatalf("%v", wrong)
			}
			if strings.Contains(wrong.Error(), tt.password) || strings.Contains(r.log.String(), tt.password) {
				t.Error("the password is in the log")
			}
		})
	}
}
