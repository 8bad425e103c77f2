package ussd

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const secret = "a-secret-of-the-aggregator"

// aggregator is an HTTP caller in Africa's Talking's convention, with one session.
type aggregator struct {
	*rig
	session string
	phone   string
	query   string
	header  http.Header
	from    string
}

func (r *rig) aggregator(session string) *aggregator {
	return &aggregator{
		rig: r, session: session, phone: "+79000000001", from: "192.0.2.7:4000",
		header: http.Header{"Authorization": {"Bearer " + secret}},
	}
}

func (a *aggregator) post(form url.Values) *http.Response {
	return a.postIn(a.t.Context(), form)
}

func (a *aggregator) postIn(ctx context.Context, form url.Values) *http.Response {
	request := httptest.NewRequestWithContext(ctx, http.MethodPost, "/ussd/http/at"+a.query, strings.NewReader(form.Encode()))
	request.Header = a.header.Clone()
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.RemoteAddr = a.from
	recorder := httptest.NewRecorder()
	a.server.Handler().ServeHTTP(recorder, request)
	return recorder.Result()
}

// says sends all inputs so far, as the convention wants, and returns the answer's body.
func (a *aggregator) says(all string) string {
	a.t.Helper()
	response := a.post(url.Values{
		"sessionId": {a.session}, "phoneNumber": {a.phone}, "networkCode": {"25001"},
		"serviceCode": {"*377*888#"}, "text": {all},
	})
	body, err := io.ReadAll(response.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Sprintf("%d %s", response.StatusCode, strings.TrimSpace(string(body)))
	}
	if got := response.Header.Get("Content-Type"); got != "text/plain; charset=utf-8" {
		a.t.Errorf("the answer is %s", got)
	}
	return string(body)
}

func withAggregator(t *testing.T, play func(r *rig)) {
	with(t, func(c *Config) {
		c.Proxies = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
		c.Links = append(c.Links, Link{Name: "at", FollowBySMS: true, HTTP: &Caller{
			Convention: "africastalking", Secret: secret,
			From: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
		}})
	}, play)
}

// Contract section 7: the Africa's Talking convention.
func TestAnAggregatorWalksTheMenu(t *testing.T) {
	withAggregator(t, func(r *rig) {
		a := r.aggregator("ATUid_1")
		expect(t, "empty text begins", a.says(""), "CON "+firstPage)
		expect(t, "one input", a.says("1"), "CON "+leafPage)
		expect(t, "all inputs so far", a.says("1*1"), "CON "+deeperPage)
		expect(t, "a call said twice gets the same answer", a.says("1*1"), "CON "+deeperPage)
		expect(t, "back", a.says("1*1*0"), "CON "+leafPage)
		expect(t, "back again", a.says("1*1*0*0"), "CON "+firstPage)
		expect(t, "and out", a.says("1*1*0*0*0"), "END Goodbye!")
		expect(t, "the last call said twice", a.says("1*1*0*0*0"), "END Goodbye!")
		expect(t, "something after the end", a.says("1*1*0*0*0*1"), "END "+strings.TrimSuffix(expiredPage, "\n."))
		r.open(0)
	})
}

func TestAnAggregatorMayPassShortcutsInTheFirstText(t *testing.T) {
	withAggregator(t, func(r *rig) {
		expect(t, "past the code", r.aggregator("ATUid_1").says("1*1"), "CON "+deeperPage)
		expect(t, "with the code", r.aggregator("ATUid_2").says("*377*888*1#"), "CON "+leafPage)
	})
}

func TestAnAggregatorTellsThatASessionIsOver(t *testing.T) {
	withAggregator(t, func(r *rig) {
		a := r.aggregator("ATUid_1")
		a.says("")
		r.open(1)
		response := a.post(url.Values{"sessionId": {"ATUid_1"}, "phoneNumber": {a.phone}, "status": {"Incomplete"}})
		if response.StatusCode != http.StatusNoContent {
			t.Errorf("answered with %s", response.Status)
		}
		r.open(0)
	})
}

func TestASessionBelongsToItsPhone(t *testing.T) {
	withAggregator(t, func(r *rig) {
		a, b := r.aggregator("ATUid_1"), r.aggregator("ATUid_1")
		b.phone = "+79000000002"
		a.says("")
		if got := b.says("1"); strings.Contains(got, "79000000001") {
			t.Errorf("another phone was shown %q", got)
		}
		expect(t, "the owner goes on", a.says("1"), "CON "+leafPage)
	})
}

func TestWhoHasNoSecretIsToldNothing(t *testing.T) {
	withAggregator(t, func(r *rig) {
		const refused = "401 unknown link or wrong secret"
		a := r.aggregator("ATUid_1")
		for what, change := range map[string]func(){
			"no secret":                  func() { a.header = http.Header{} },
			"a wrong one":                func() { a.header = http.Header{"Authorization": {"Bearer " + secret + "x"}} },
			"the right one from outside": func() { a.from = "198.51.100.1:4000" },
			"an address that is none":    func() { a.from = "pipe" },
			"one who says it is another": func() {
				a.from = "198.51.100.1:4000"
				a.header.Set("X-Forwarded-For", "192.0.2.7")
			},
			"a stranger behind our proxy": func() {
				a.from = "203.0.113.1:4000"
				a.header.Set("X-Forwarded-For", "192.0.2.7, 198.51.100.1")
			},
			"our proxy for nobody": func() { a.from = "203.0.113.1:4000" },
		} {
			good := *a
			a.header = a.header.Clone()
			change()
			expect(t, what, a.says(""), refused)
			*a = good
		}
		a.from = "203.0.113.1:4000"
		a.header.Set("X-Forwarded-For", "198.51.100.1, 192.0.2.7")
		expect(t, "behind our proxy", a.says(""), "CON "+firstPage)
		a.from = "192.0.2.7:4000"

		a.header = http.Header{}
		a.query = "?secret=" + secret
		expect(t, "in the address", a.says(""), "CON "+firstPage)
		a.query = ""
		request := httptest.NewRequest(http.MethodPost, "/", nil)
		request.SetBasicAuth("at", secret)
		a.header = request.Header
		expect(t, "as a password", a.says("1"), "CON "+leafPage)

		recorder := httptest.NewRecorder()
		r.server.Handler().ServeHTTP(recorder, httptest.NewRequest(http.MethodPost, "/ussd/http/mts?secret=", nil))
		if recorder.Code != http.StatusUnauthorized {
			t.Errorf("an operator's link is served over HTTP: %d", recorder.Code)
		}
		for query, want := range map[string]int{
			"": http.StatusUnauthorized, "?secret=" + secret: http.StatusMethodNotAllowed,
		} {
			get := httptest.NewRequest(http.MethodGet, "/ussd/http/at"+query, nil)
			get.RemoteAddr = a.from
			recorder = httptest.NewRecorder()
			r.server.Handler().ServeHTTP(recorder, get)
			if recorder.Code != want {
				t.Errorf("a GET with %q is answered with %d", query, recorder.Code)
			}
		}
	})
}

func TestACallThatIsNoneIsRefused(t *testing.T) {
	withAggregator(t, func(r *rig) {
		a := r.aggregator("")
		expect(t, "no session", a.says(""), "400 the session id is missing or longer than 128 octets")
		a.session = strings.Repeat("x", maxID+1)
		expect(t, "a session without end", a.says(""), "400 the session id is missing or longer than 128 octets")
		a.session, a.phone = "ATUid_1", "anonymous"
		if got := a.says(""); !strings.HasPrefix(got, "400 not a usable phone number") {
			t.Errorf("a phone that is none: %q", got)
		}
		a.phone = "+79000000001"
		expect(t, "a body without end", a.says(strings.Repeat("1*", maxBody)), "413 request too large")
		r.open(0)
	})
}

func TestACallerIsAnsweredInTimeWhateverTheMenuDoes(t *testing.T) {
	withAggregator(t, func(r *rig) {
		r.menu.gate, r.menu.stuck = make(chan struct{}), true
		begun := time.Now()
		expect(t, "a menu that hangs", r.aggregator("ATUid_1").says(""), "END "+strings.TrimSuffix(laterPage, "\n."))
		if took := time.Since(begun); took != defaultDeadline {
			t.Errorf("answered after %v", took)
		}
		close(r.menu.gate)
	})
}

func TestCallsThatRepeatAWaitingOneGetItsAnswer(t *testing.T) {
	withAggregator(t, func(r *rig) {
		gate := make(chan struct{})
		r.menu.gate = gate
		answers := make(chan string, 2)
		for range 2 {
			go func() { answers <- r.aggregator("ATUid_1").says("") }()
			synctest.Wait()
		}
		close(gate)
		expect(t, "one", <-answers, "CON "+firstPage)
		expect(t, "the other", <-answers, "CON "+firstPage)
		if len(r.menu.shown) != 1 {
			t.Errorf("the menu was asked %d times", len(r.menu.shown))
		}
	})
}

// Issue 4, item 4, over HTTP: a caller that has gone shows nobody anything.
func TestACallerThatGoesAwayHasEndedItsSession(t *testing.T) {
	withAggregator(t, func(r *rig) {
		r.menu.gate = make(chan struct{})
		a := r.aggregator("ATUid_1")
		ctx, leave := context.WithCancel(r.t.Context())
		statuses := make(chan int)
		go func() {
			form := url.Values{"sessionId": {a.session}, "phoneNumber": {a.phone}, "text": {""}}
			statuses <- a.postIn(ctx, form).StatusCode
		}()
		synctest.Wait()
		r.open(1)
		leave()
		if got := <-statuses; got != http.StatusServiceUnavailable {
			t.Errorf("answered with %d", got)
		}
		r.open(0)
		close(r.menu.gate)
		expect(t, "the answer", r.sms(), "79000000001: first for 79000000001")
	})
}
