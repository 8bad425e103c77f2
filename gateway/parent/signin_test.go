package parent_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"zvonok/access"
	"zvonok/gateway/parent"
)

// D3, contract section 8: a parent signs in by the code that our own SMS brings.
func TestAParentSignsInByTheCodeOnHerPhone(t *testing.T) {
	w := newWorld(t)
	request := w.askCode(" 8 (900) 000-00-01 ")
	code := w.codeOn(olga, 0)
	if text := w.texts(olga)[0]; text != "Код входа "+code+". Никому не сообщайте. Срок 10 минут" {
		t.Errorf("the SMS is %q", text)
	}
	type sent struct {
		topic, again, operator string
		priority               int
		life                   time.Duration
	}
	var s sent
	w.must(w.pool.QueryRow(t.Context(), `
		SELECT topic, again, operator, priority, expires_at - at FROM delivery.delivery`).
		Scan(&s.topic, &s.again, &s.operator, &s.priority, &s.life))
	if (s != sent{"code", "never", "box", 1, 10 * time.Minute}) {
		t.Errorf("the SMS is queued as %+v: it goes first, and never twice", s)
	}
	nobody := caller{world: w}
	wrong := "000000"
	if code == wrong {
		wrong = "000001"
	}
	refused := nobody.want(http.StatusUnauthorized, http.MethodPost, "/session", parent.CodeTyped{Request: request, Code: wrong})
	unknown := nobody.want(http.StatusUnauthorized, http.MethodPost, "/session",
		parent.CodeTyped{Request: "9b2f6a3e-6b0e-4a0e-8a52-0d5a2a6f1c11", Code: code})
	if refused.body != unknown.body {
		t.Errorf("a wrong code is told from an unknown request:\n%s\n%s", refused.body, unknown.body)
	}
	var answer parent.SessionAnswer
	signed := nobody.want(http.StatusOK, http.MethodPost, "/session", parent.CodeTyped{Request: request, Code: code})
	signed.into(t, &answer)
	if signed.header.Get("Cache-Control") != "no-store" {
		t.Error("a token may be kept by a cache")
	}
	again := nobody.want(http.StatusUnauthorized, http.MethodPost, "/session", parent.CodeTyped{Request: request, Code: code})
	if again.body != refused.body {
		t.Errorf("a used code is told from a wrong one: %s", again.body)
	}
	mother := caller{world: w, token: answer.Token}
	var me parent.SelfView
	mother.get("/me", &me)
	if me.Phone != olga || me.Name != "Петрова Ольга" {
		t.Errorf("signed in is %+v", me)
	}
	mother.want(http.StatusNoContent, http.MethodDelete, "/session", nil)
	mother.want(http.StatusUnauthorized, http.MethodGet, "/me", nil)

	logs := w.logs.String()
	for _, secret := range []string{code, answer.Token, "79000000001", "Ольга"} {
		if strings.Contains(logs, secret) {
			t.Errorf("the log holds %q:\n%s", secret, logs)
		}
	}
	if !strings.Contains(logs, "signed in") || !strings.Contains(logs, "a sign-in was refused") {
		t.Errorf("the log lacks the sign-ins:\n%s", logs)
	}
}

// V6.3.8, D12: whether a phone is known is told by neither the answer nor the
// work before it. The statements are noted where they are sent: they are the same,
// one by one, so the time is.
func TestAskingForACodeTellsNothing(t *testing.T) {
	w := newWorld(t)
	nobody := caller{world: w}
	w.askCode(nina) // a new connection sends statements of its own
	asked := map[string][]string{}
	var answers []string
	settled := func() {
		w.eventually("the jobs of codes", func() bool {
			return one[int](w, `SELECT count(*) FROM river.river_job WHERE kind = 'code_asked' AND state <> 'completed'`) == 0
		})
	}
	for _, phone := range []string{olga, stranger, anna} {
		settled()
		w.trace.take()
		r := nobody.want(http.StatusAccepted, http.MethodPost, "/code", map[string]string{"phone": phone})
		var answer parent.CodeAnswer
		r.into(t, &answer)
		answers = append(answers, strings.Replace(r.body, answer.Request, "", 1))
		// What the request itself sends comes before its COMMIT; the job's comes after.
		for _, s := range w.trace.take() {
			asked[phone] = append(asked[phone], s.sql)
			if strings.EqualFold(s.sql, "commit") {
				break
			}
		}
	}
	settled()
	if len(asked[stranger]) < 4 || !slices.Equal(asked[olga], asked[stranger]) {
		t.Errorf("for a known phone the work is\n%s\nand for an unknown one\n%s",
			strings.Join(asked[olga], "\n"), strings.Join(asked[stranger], "\n"))
	}
	if answers[0] != answers[1] || answers[0] != answers[2] {
		t.Errorf("the answers differ: %q", answers)
	}
	if n := len(w.texts(stranger)); n != 0 {
		t.Errorf("a stranger is sent %d messages", n)
	}
	// No more does a limit.
	for _, phone := range []string{olga, stranger} {
		for range 2 {
			w.askCode(phone)
		}
		r := nobody.want(http.StatusTooManyRequests, http.MethodPost, "/code", map[string]string{"phone": phone})
		if r.header.Get("Retry-After") == "" {
			t.Error("it is not said when to ask again")
		}
		answers = append(answers, r.body)
	}
	if answers[3] != answers[4] {
		t.Errorf("the limits differ: %q", answers[3:])
	}
}

// V2.4.1: who asks or guesses without end is stopped, whatever address he claims
// to have; a moment later he may try again.
func TestAnAddressIsLimited(t *testing.T) {
	w := newWorld(t)
	nobody := caller{world: w}
	refused := 0
	for n := range 100 {
		r := nobody.request(http.MethodPost, "/session", parent.CodeTyped{Request: "x", Code: "123456"})
		r.Header.Set("X-Forwarded-For", fmt.Sprintf("192.0.2.%d", n))
		if w.send(r).status == http.StatusTooManyRequests {
			refused++
		}
	}
	if refused != 40 {
		t.Errorf("of 100 tries in a moment %d are refused", refused)
	}
	w.pass(time.Minute)
	nobody.want(http.StatusUnauthorized, http.MethodPost, "/session", parent.CodeTyped{Request: "x", Code: "123456"})
}

// V3.3, V3.5, V7: the cookie, and who may use it.
func TestABrowserIsSignedInByItsCookie(t *testing.T) {
	w := newWorld(t)
	request := w.askCode(olga)
	code := w.codeOn(olga, 0)
	signed := caller{world: w}.call(http.MethodPost, "/session", parent.CodeTyped{Request: request, Code: code})
	cookies := (&http.Response{Header: signed.header}).Cookies()
	if len(cookies) != 1 || cookies[0].Name != "zvonok" || !cookies[0].HttpOnly || cookies[0].SameSite != http.SameSiteLaxMode ||
		cookies[0].MaxAge != int(access.SessionLife/time.Second) {
		t.Fatalf("the cookie is %+v", cookies)
	}
	browse := func(method, path string, cookie *http.Cookie, headers ...string) reply {
		r := caller{world: w}.request(method, path, nil)
		r.AddCookie(cookie)
		for i := 0; i < len(headers); i += 2 {
			if headers[i] == "Host" {
				r.Host = headers[i+1]
			}
			r.Header.Set(headers[i], headers[i+1])
		}
		return w.send(r)
	}
	plain := cookies[0]
	host := &http.Cookie{Name: "__Host-zvonok", Value: plain.Value}
	for _, test := range []struct {
		sentence, method, path string
		cookie                 *http.Cookie
		headers                []string
		want                   int
	}{
		{"a page reads", "GET", "/me", plain, nil, 200},
		{"our own page changes", "DELETE", "/email", plain, []string{"Origin", w.url}, 204},
		{"a browser that says so", "DELETE", "/email", plain, []string{"Sec-Fetch-Site", "same-origin"}, 204},
		{"another site's page", "DELETE", "/email", plain, []string{"Origin", "https://evil.example"}, 403},
		{"a page of a sister host", "DELETE", "/email", plain, []string{"Origin", w.url, "Sec-Fetch-Site", "same-site"}, 403},
		{"who hides where it comes from", "DELETE", "/email", plain, nil, 403},
		{"the plain name elsewhere than on this machine", "GET", "/me", plain, []string{"Host", "school.example"}, 401},
		{"the strict name there", "GET", "/me", host, []string{"Host", "school.example"}, 200},
		{"another token", "GET", "/me", &http.Cookie{Name: "zvonok", Value: "x"}, nil, 401},
	} {
		if r := browse(test.method, test.path, test.cookie, test.headers...); r.status != test.want {
			t.Errorf("%s: %d, want %d: %s", test.sentence, r.status, test.want, r.body)
		}
	}
	// Signing in from elsewhere gets the strict cookie.
	before := len(w.texts(olga))
	request = w.askCode(olga)
	far := caller{world: w}.request(http.MethodPost, "/session", parent.CodeTyped{Request: request, Code: w.codeOn(olga, before)})
	far.Host = "school.example"
	cookies = (&http.Response{Header: w.send(far).header}).Cookies()
	if len(cookies) != 1 || cookies[0].Name != "__Host-zvonok" || !cookies[0].Secure || !cookies[0].HttpOnly || cookies[0].Path != "/" ||
		cookies[0].Domain != "" {
		t.Errorf("the cookie is %+v", cookies)
	}
	// A page of another site cannot sign somebody in as somebody else.
	evil := caller{world: w}.request(http.MethodPost, "/session", parent.CodeTyped{Request: request, Code: "123456"})
	evil.Header.Set("Origin", "https://evil.example")
	if r := w.send(evil); r.status != http.StatusForbidden {
		t.Errorf("another site signs in: %d", r.status)
	}
	// Signing out everywhere ends both.
	if r := browse("DELETE", "/sessions", plain, "Origin", w.url); r.status != http.StatusNoContent || !strings.Contains(r.header.Get("Set-Cookie"), "Max-Age=0") {
		t.Errorf("signing out everywhere: %d %v", r.status, r.header)
	}
	if r := browse("GET", "/me", host, "Host", "school.example"); r.status != http.StatusUnauthorized {
		t.Errorf("the other browser: %d", r.status)
	}
}

// R28: the phone is changed by codes to both, and everybody is signed out.
func TestAPhoneIsChangedByBothCodes(t *testing.T) {
	w := newWorld(t)
	mother := w.signIn(olga)
	tablet := w.signIn(olga)
	var answer parent.CodeAnswer
	before := len(w.texts(olga))
	mother.want(http.StatusAccepted, http.MethodPost, "/phone", parent.PhoneWish{Phone: stranger}).into(t, &answer)
	oldCode, newCode := w.codeOn(olga, before), w.codeOn(stranger, 0)
	mother.want(http.StatusUnauthorized, http.MethodPost, "/phone/confirmation",
		parent.PhoneCodes{Request: answer.Request, OldCode: newCode, NewCode: oldCode})
	w.signIn(nina).want(http.StatusUnauthorized, http.MethodPost, "/phone/confirmation",
		parent.PhoneCodes{Request: answer.Request, OldCode: oldCode, NewCode: newCode})
	mother.want(http.StatusNoContent, http.MethodPost, "/phone/confirmation",
		parent.PhoneCodes{Request: answer.Request, OldCode: oldCode, NewCode: newCode})
	for _, c := range []caller{mother, tablet} {
		c.want(http.StatusUnauthorized, http.MethodGet, "/children", nil)
	}
	var view parent.ChildrenView
	w.signIn(stranger).get("/children", &view)
	if len(view.Children) != 2 {
		t.Errorf("the new phone sees %d children", len(view.Children))
	}
	// Whether a phone is somebody's is told only to who holds it.
	mother = w.signIn(stranger)
	answers := map[string]string{}
	w.pass(access.CodeLife)
	for _, to := range []string{nina, "+79000000066"} {
		r := mother.want(http.StatusAccepted, http.MethodPost, "/phone", parent.PhoneWish{Phone: to})
		r.into(t, &answer)
		answers[strings.Replace(r.body, answer.Request, "", 1)] = to
	}
	if len(answers) != 1 {
		t.Errorf("the answers differ: %v", answers)
	}
	mother.want(http.StatusUnprocessableEntity, http.MethodPost, "/phone", parent.PhoneWish{Phone: stranger})
}

// V7.3: a session ends when it is idle, and at its absolute limit.
func TestASessionEndsInTime(t *testing.T) {
	w := newWorld(t)
	mother := w.signIn(olga)
	for range 5 {
		w.pass(access.SessionIdle - time.Hour)
		mother.want(http.StatusOK, http.MethodGet, "/me", nil)
	}
	w.pass(access.SessionIdle)
	mother.want(http.StatusUnauthorized, http.MethodGet, "/me", nil)
}

// A new mailbox is written to when its code has been typed.
func TestAMailboxIsConfirmed(t *testing.T) {
	w := newWorld(t)
	mother := w.signIn(olga)
	var answer parent.CodeAnswer
	mother.want(http.StatusAccepted, http.MethodPut, "/email", parent.MailboxWish{Address: "olga@example.org"}).into(t, &answer)
	letter := one[string](w, `SELECT text_body FROM delivery.letter`)
	if subject := one[string](w, `SELECT subject FROM delivery.letter`); sixDigits.MatchString(subject) {
		t.Errorf("the code stands in the subject: %q", subject)
	}
	var me parent.SelfView
	mother.get("/me", &me)
	if me.Email != "" || me.EmailWaiting != "olga@example.org" {
		t.Errorf("before the code: %+v", me)
	}
	w.exec(`INSERT INTO delivery.address (channel, address, suppressed_at) VALUES ('email', 'olga@example.org', now())`)
	mother.want(http.StatusUnauthorized, http.MethodPost, "/email/confirmation", parent.CodeTyped{Request: answer.Request, Code: "1"})
	mother.want(http.StatusNoContent, http.MethodPost, "/email/confirmation",
		parent.CodeTyped{Request: answer.Request, Code: sixDigits.FindString(letter)})
	mother.get("/me", &me)
	if me.Email != "olga@example.org" || me.Mail.Unreachable {
		t.Errorf("after the code: %+v", me)
	}
	for _, bad := range []string{"x", "a@b.c\r\nBcc: d@e.fg", "<script>@example.org"} {
		mother.want(http.StatusUnprocessableEntity, http.MethodPut, "/email", parent.MailboxWish{Address: bad})
	}
	mother.want(http.StatusNoContent, http.MethodDelete, "/email", nil)
	me = parent.SelfView{}
	mother.get("/me", &me)
	if me.Email != "" {
		t.Error("the mailbox is kept")
	}
}

// ussd.md section 6: somebody whose SIM card is another than the one known, or who was silent for long, is nobody in the
// cabinet until she has given a child's account number. Who got the number by chance learns nothing there.
func TestAPhoneInDoubtIsConfirmedByAChildsAccountNumber(t *testing.T) {
	w := newWorld(t)
	before := w.signIn(olga)
	w.exec(`UPDATE access.representative SET doubt = 'sim', doubted_at = now() + interval '100 years'
		WHERE '+' || phone = $1`, olga)
	after := w.signIn(olga)
	for what, c := range map[string]caller{"signed in before": before, "signed in since": after} {
		var self parent.SelfView
		c.get("/me", &self)
		if self.Name != "" || self.Email != "" || !strings.Contains(self.Confirm, "лицевого счёта") {
			t.Errorf("%s: %+v", what, self)
		}
		var view parent.ChildrenView
		c.get("/children", &view)
		if len(view.Children) != 0 {
			t.Errorf("%s: she sees %d children", what, len(view.Children))
		}
	}
	account := one[string](w, `
		SELECT a.number FROM ledger.account a JOIN access.guardian g ON g.child_id = a.person_id
		  JOIN access.representative r ON r.id = g.representative_id
		 WHERE '+' || r.phone = $1 ORDER BY a.number LIMIT 1`, olga)
	after.want(http.StatusUnauthorized, http.MethodPost, "/confirmation", parent.AccountTyped{Account: "00000000"})
	after.want(http.StatusNoContent, http.MethodPost, "/confirmation", parent.AccountTyped{Account: account})
	var self parent.SelfView
	after.get("/me", &self)
	var view parent.ChildrenView
	before.get("/children", &view)
	if self.Name == "" || self.Confirm != "" || len(view.Children) == 0 {
		t.Errorf("confirmed: %+v, %d children", self, len(view.Children))
	}
}

// Fault 53: a code that arrives at a phone which operators had declared dead proves that it lives, and not whose it is.
// The cabinet knows nobody by it, dials and texts are told the same, until a child's account number is given.
func TestAPhoneThatWasDeclaredDeadOpensNobodysCabinet(t *testing.T) {
	w := newWorld(t)
	before := w.signIn(olga)
	w.exec(`INSERT INTO delivery.address (channel, address, refusals, suppressed_at, reason)
		VALUES ('sms', substr($1, 2), 2, clock_timestamp(), 'refused')`, olga)
	after := w.signIn(olga)
	for what, c := range map[string]caller{"signed in before": before, "signed in since": after} {
		var self parent.SelfView
		c.get("/me", &self)
		var view parent.ChildrenView
		c.get("/children", &view)
		if self.Name != "" || self.Confirm == "" || len(view.Children) != 0 {
			t.Errorf("%s: %+v, %d children", what, self, len(view.Children))
		}
	}
	if doubt := one[string](w, `SELECT doubt FROM access.representative WHERE '+' || phone = $1`, olga); doubt != "dead" {
		t.Errorf("the doubt is %q", doubt)
	}
	account := one[string](w, `SELECT number FROM ledger.account WHERE person_id = $1`, w.people["masha"])
	after.want(http.StatusNoContent, http.MethodPost, "/confirmation", parent.AccountTyped{Account: account})
	var view parent.ChildrenView
	after.get("/children", &view)
	if len(view.Children) == 0 {
		t.Error("confirmed, she sees no children")
	}
}
