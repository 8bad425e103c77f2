package push_test

import (
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"zvonok/gateway/push"
	"zvonok/gateway/push/pushtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, time.November, 23, 12, 0, 0, 0, time.UTC)

type rig struct {
	service *pushtest.Service
	sender  *push.Sender
	now     time.Time
}

// newRig is a sender and a push service on the loopback, which it is allowed to call.
func newRig(t *testing.T, change ...func(*push.Config)) *rig {
	t.Helper()
	r := &rig{service: pushtest.NewService(), now: noon}
	source, err := push.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	key, err := push.ParseKey(append(source, '\n'))
	if err != nil {
		t.Fatal(err)
	}
	config := push.Config{
		Key: key, Contact: "pass@example.org", Services: []string{r.service.Host()}, AllowPrivate: true, Roots: r.service.Roots(),
		Log: slog.New(slog.DiscardHandler), Metrics: push.NewMetrics(prometheus.NewPedanticRegistry()),
		Now: func() time.Time { return r.now },
	}
	for _, c := range change {
		c(&config)
	}
	if r.sender, err = push.NewSender(config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.sender.Close(); r.service.Close() })
	return r
}

func endpoint(t *testing.T, b *pushtest.Browser) push.Endpoint {
	t.Helper()
	e := push.Endpoint{URL: b.URL}
	var err error
	if e.P256dh, err = base64.RawURLEncoding.DecodeString(b.P256dh); err != nil {
		t.Fatal(err)
	}
	if e.Auth, err = base64.RawURLEncoding.DecodeString(b.Auth); err != nil {
		t.Fatal(err)
	}
	return e
}

func (r *rig) send(t *testing.T, b *pushtest.Browser) *push.Error {
	t.Helper()
	err := r.sender.Send(t.Context(), endpoint(t, b), push.Message{Payload: []byte(`{"body":"Вход 08:15 Маша П."}`), TTL: time.Minute, Urgency: push.High})
	if err == nil {
		return nil
	}
	wrong, ok := errors.AsType[*push.Error](err)
	if !ok {
		t.Fatalf("%T is no *push.Error", err)
	}
	return wrong
}

func TestOnlyTheBrowserReadsAMessageAndItsServiceKnowsWhoSentIt(t *testing.T) {
	r := newRig(t)
	masha := r.service.Subscribe()
	short, long := `{"body":"Вход"}`, `{"body":"`+strings.Repeat("ы", 900)+`"}`
	for _, payload := range []string{short, long} {
		err := r.sender.Send(t.Context(), endpoint(t, masha), push.Message{
			Payload: []byte(payload), TTL: 14*time.Minute + 900*time.Millisecond, Urgency: push.High, Topic: "n5k",
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	got := r.service.Messages()
	if len(got) != 2 || string(got[0].Payload) != short || string(got[1].Payload) != long {
		t.Fatalf("the browser read %d messages, not the ones that were sent", len(got))
	}
	m := got[0]
	if m.TTL != 14*60 || m.Urgency != "high" || m.Topic != "n5k" || m.Contact != "mailto:pass@example.org" ||
		m.PublicKey != r.sender.PublicKey() {
		t.Errorf("TTL %d, urgency %q, topic %q, contact %q, key ours %v", m.TTL, m.Urgency, m.Topic, m.Contact,
			m.PublicKey == r.sender.PublicKey())
	}
	if got[0].Length != got[1].Length {
		t.Errorf("the length tells a short message (%d octets) from a long one (%d)", got[0].Length, got[1].Length)
	}
}

// One payload goes to several browsers at once: sending must not write into it.
func TestThePayloadIsNotTouched(t *testing.T) {
	r := newRig(t)
	payload := append(make([]byte, 0, 256), `{"body":"Вход"}`...)
	if err := r.sender.Send(t.Context(), endpoint(t, r.service.Subscribe()), push.Message{Payload: payload}); err != nil {
		t.Fatal(err)
	}
	for i, b := range payload[len(payload):cap(payload)] {
		if b != 0 {
			t.Fatalf("octet %d behind the payload is %#x", i, b)
		}
	}
}

func TestAnAnswerOfAPushServiceIsClassified(t *testing.T) {
	for name, c := range map[string]struct {
		answer pushtest.Answer
		class  push.Class
		wait   time.Duration
	}{
		"gone for good":                {pushtest.Answer{Status: 410}, push.Gone, 0},
		"never been there":             {pushtest.Answer{Status: 404}, push.Gone, 0},
		"too many":                     {pushtest.Answer{Status: 429, RetryAfter: "120"}, push.Temporary, 2 * time.Minute},
		"down until a date":            {pushtest.Answer{Status: 503, RetryAfter: noon.Add(90 * time.Second).Format(http.TimeFormat)}, push.Temporary, 90 * time.Second},
		"down, without a hint":         {pushtest.Answer{Status: 500}, push.Temporary, 30 * time.Second},
		"a hint of a week is too long": {pushtest.Answer{Status: 503, RetryAfter: "604800"}, push.Temporary, 30 * time.Minute},
		"a hint of the past":           {pushtest.Answer{Status: 503, RetryAfter: "-5"}, push.Temporary, time.Second},
		"a wrong signature":            {pushtest.Answer{Status: 403}, push.Misconfigured, 5 * time.Minute},
		"not wanted":                   {pushtest.Answer{Status: 400}, push.Refused, 0},
		"a redirect is not followed":   {pushtest.Answer{Status: 307}, push.Refused, 0},
		"no answer":                    {pushtest.Answer{HangUp: true}, push.HostDown, 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.service.Behave(func(pushtest.Request) pushtest.Answer { return c.answer })
			wrong := r.send(t, r.service.Subscribe())
			if wrong == nil || wrong.Class != c.class || wrong.RetryAfter != c.wait {
				t.Fatalf("%v, wait %v; want %s, wait %v", wrong, wrong.RetryAfter, c.class, c.wait)
			}
			if strings.Contains(wrong.Error(), r.service.Host()) {
				t.Error("the error names the endpoint")
			}
		})
	}
}

func TestAServiceThatAsksToWaitIsLeftAloneAndOneBrowsersTooManyHoldsUpNobodyElse(t *testing.T) {
	r := newRig(t)
	one, other := r.service.Subscribe(), r.service.Subscribe()
	r.service.Behave(func(q pushtest.Request) pushtest.Answer {
		if q.Browser == one {
			return pushtest.Answer{Status: 429, RetryAfter: "60"}
		}
		return pushtest.Answer{}
	})
	if wrong := r.send(t, one); wrong == nil || wrong.Class != push.Temporary {
		t.Fatal(wrong)
	}
	if wrong := r.send(t, other); wrong != nil {
		t.Fatalf("another browser was held up: %v", wrong)
	}
	r.service.Behave(func(pushtest.Request) pushtest.Answer { return pushtest.Answer{Status: 503, RetryAfter: "60"} })
	r.send(t, one)
	r.service.Behave(nil)
	before := r.service.Requests()
	r.now = noon.Add(59 * time.Second)
	if wrong := r.send(t, other); wrong == nil || wrong.Class != push.Temporary || wrong.RetryAfter != time.Second {
		t.Errorf("during the pause: %v", wrong)
	}
	if n := r.service.Requests() - before; n != 0 {
		t.Errorf("the service was asked %d times while it wanted to be left alone", n)
	}
	r.now = noon.Add(60 * time.Second)
	if wrong := r.send(t, other); wrong != nil {
		t.Errorf("after the pause: %v", wrong)
	}
}

// A browser that was subscribed with somebody else's key, which any page can
// register here, is refused by its service for ever. It holds up nobody else, is
// forgotten in the end, and is told from a key of ours that nobody takes.
func TestABrowserOfAnotherKeyHoldsUpNobody(t *testing.T) {
	for _, status := range []int{http.StatusUnauthorized, http.StatusForbidden} {
		r := newRig(t)
		hostile, other := r.service.Subscribe(), r.service.Subscribe()
		r.service.Behave(func(q pushtest.Request) pushtest.Answer {
			if q.Browser == hostile {
				return pushtest.Answer{Status: status}
			}
			return pushtest.Answer{}
		})
		if wrong := r.send(t, hostile); wrong == nil || wrong.Class != push.Misconfigured {
			t.Errorf("%d, and nothing known of the service: %v", status, wrong)
		}
		if wrong := r.send(t, other); wrong != nil {
			t.Errorf("%d to one browser holds another up: %v", status, wrong)
		}
		r.now = noon.Add(4 * time.Minute)
		if wrong := r.send(t, hostile); wrong == nil || wrong.Class != push.Refused || wrong.RetryAfter != 0 {
			t.Errorf("%d, and the service takes our key: %v", status, wrong)
		}
		r.now = noon.Add(10 * time.Minute)
		if wrong := r.send(t, hostile); wrong == nil || wrong.Class != push.Misconfigured {
			t.Errorf("%d, and the service has long taken nothing: %v", status, wrong)
		}
	}
}

func TestNoAddressOfOurOwnNetworkIsCalled(t *testing.T) {
	// The name is allowed, but leads to the loopback: what a hostile endpoint would try.
	r := newRig(t, func(c *push.Config) { c.AllowPrivate = false })
	if wrong := r.send(t, r.service.Subscribe()); wrong == nil || wrong.Class != push.Refused {
		t.Fatalf("%v; want refused", wrong)
	}
	// And a service that is not allowed is not called at all.
	stranger := newRig(t, func(c *push.Config) { c.Services = nil })
	if wrong := stranger.send(t, stranger.service.Subscribe()); wrong == nil || wrong.Class != push.Refused {
		t.Fatalf("%v; want refused", wrong)
	}
	if n := r.service.Requests() + stranger.service.Requests(); n != 0 {
		t.Errorf("%d requests came", n)
	}
}

func TestACallerWhoGivesUpDoesNotPauseTheService(t *testing.T) {
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := r.service.Subscribe()
	if err := r.sender.Send(ctx, endpoint(t, b), push.Message{Payload: []byte("{}")}); err == nil {
		t.Fatal("sent without time")
	}
	if wrong := r.send(t, b); wrong != nil {
		t.Errorf("the next message: %v", wrong)
	}
}

func TestAKeyIsReadOrRefused(t *testing.T) {
	for name, source := range map[string]string{
		"empty": "", "words": "not a key", "short": "AAAA", "zero": strings.Repeat("A", 43),
	} {
		if _, err := push.ParseKey([]byte(source)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for _, contact := range []string{"", "http://example.org", "nobody"} {
		source, _ := push.NewKey()
		key, err := push.ParseKey(source)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := push.NewSender(push.Config{Key: key, Contact: contact}); err == nil {
			t.Errorf("the contact %q was taken", contact)
		}
	}
}
