package parent_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"zvonok/access"
	"zvonok/gateway/parent"
	"zvonok/ledger/money"
)

// operation is an operation of the OpenAPI document.
type operation struct{ method, path, id string }

// operations reads the document, as a foreigner would.
func (w *world) operations() []operation {
	w.Helper()
	var document struct {
		Paths map[string]map[string]struct {
			OperationID string `json:"operationId"`
		} `json:"paths"`
	}
	caller{world: w}.get("/api/openapi.json", &document)
	var list []operation
	for path, methods := range document.Paths {
		for method, op := range methods {
			list = append(list, operation{strings.ToUpper(method), path, op.OperationID})
		}
	}
	slices.SortFunc(list, func(a, b operation) int { return strings.Compare(a.path+a.method, b.path+b.method) })
	return list
}

// family is what belongs to the Petrovs.
type family struct {
	child, order, invitation, representative, browser, petition int64
	request                                                     string // of a change of phone
}

// path fills a path with the family's ids.
func (f family) path(path string) string {
	return strings.NewReplacer("{child}", fmt.Sprint(f.child), "{order}", fmt.Sprint(f.order), "{invitation}", fmt.Sprint(f.invitation),
		"{representative}", fmt.Sprint(f.representative), "{channel}", "sms", "{browser}", fmt.Sprint(f.browser), "{petition}", fmt.Sprint(f.petition)).Replace(path)
}

// body is a sound body for an operation, so that only the right to it is asked.
func (f family) body(op operation) any {
	limit := money.Amount(1_00)
	switch op.id {
	case "place-orders":
		return parent.OrderWish{Orders: []parent.WishedMeal{{Date: "2026-11-27", Meal: "lunch"}}}
	case "set-rules":
		return parent.RulesWish{Limit: &limit, Bans: []parent.BanView{{Kind: "dish", Value: "суп"}}}
	case "set-subscriptions":
		return parent.WishesView{Subscriptions: []parent.SubscriptionView{}, Lower: &limit}
	case "check-invitation", "invite":
		return parent.InvitationWish{Children: []int64{f.child}, Phone: stranger, FamilyName: "Серова"}
	case "accept-invitation":
		return parent.AcceptanceWish{FamilyName: "Серова", GivenName: "Инна"}
	case "set-settings":
		return parent.SettingsView{Language: "ru", Fallback: []parent.StepView{}}
	case "set-email":
		return parent.MailboxWish{Address: "nina@example.org"}
	case "change-phone":
		return parent.PhoneWish{Phone: "+79000000066"}
	case "confirm-email", "open-session":
		return parent.CodeTyped{Request: f.request, Code: "123456"}
	case "confirm-phone":
		return parent.PhoneCodes{Request: f.request, OldCode: "123456", NewCode: "123456"}
	case "confirm-holder":
		return parent.AccountTyped{Account: "00000000"} // nobody's
	case "register-browser":
		return parent.BrowserWish{Endpoint: "https://push.example.org/w", Keys: parent.BrowserKeys{
			P256dh: "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4", Auth: "BTBZMqHH6r4Tts7J_aSIgg",
		}}
	case "ask-code":
		return parent.CodeWish{Phone: stranger}
	case "add-application":
		return map[string]any{}
	case "petition":
		return parent.ApplicationWish{
			Organisation: "s1", Children: []parent.WishedChild{{Person: "somebody", FamilyName: "Серова"}}, Purposes: []string{"visits"},
			Until: "2027-05-31", Channels: []string{"sms"},
		}
	case "renew-consent":
		return parent.RenewalWish{Purposes: []string{"visits"}, Until: "2027-05-31"}
	case "name-companion":
		return parent.CompanionWish{FamilyName: "Серова", GivenName: "Инна", Phone: stranger, BornOn: "1990-02-03", Until: "2027-05-31"}
	case "refuse-petition":
		return parent.RefusalWish{Reason: "no"}
	}
	return nil
}

// petrovs makes something of everything the family can have.
func (w *world) petrovs() family {
	w.Helper()
	f := family{child: int64(w.people["masha"])}
	mother := w.signIn(olga)
	w.pay("masha", 500_00)
	var orders parent.OrderAnswer
	mother.want(http.StatusOK, http.MethodPost, w.path("masha", "/orders"), f.body(operation{id: "place-orders"})).into(w, &orders)
	f.order = orders.Orders[0].ID
	var invitation parent.InvitationView
	mother.want(http.StatusCreated, http.MethodPost, "/invitations", f.body(operation{id: "invite"})).into(w, &invitation)
	f.invitation = invitation.ID
	var change parent.CodeAnswer
	mother.want(http.StatusAccepted, http.MethodPost, "/phone", parent.PhoneWish{Phone: stranger}).into(w, &change)
	f.request = change.Request
	mother.want(http.StatusNoContent, http.MethodPost, "/browsers", f.body(operation{id: "register-browser"}))
	var browsers parent.BrowsersView
	mother.get("/browsers", &browsers)
	if len(browsers.Browsers) != 1 || browsers.Key == "" {
		w.Fatalf("her browsers are %+v", browsers)
	}
	f.browser = browsers.Browsers[0].ID
	var petition parent.PetitionView
	mother.want(http.StatusCreated, http.MethodPost, w.path("masha", "/companions"), f.body(operation{id: "name-companion"})).into(w, &petition)
	f.petition = petition.ID
	f.representative = one[int64](w, `SELECT id FROM access.representative WHERE phone = $1`, strings.TrimPrefix(anna, "+"))
	return f
}

// state is everything of the family that somebody else could spoil.
func (w *world) state(f family) string {
	w.Helper()
	return one[string](w, `
		SELECT concat_ws(E'\n',
		       (SELECT string_agg(g::text, ';' ORDER BY g::text) FROM access.guardian g WHERE child_id = $1),
		       (SELECT string_agg(c::text, ';' ORDER BY c::text) FROM access.consent c WHERE child_id = $1),
		       (SELECT string_agg(s::text, ';' ORDER BY s::text) FROM subscription.subscription s WHERE child_id = $1),
		       (SELECT string_agg(t::text, ';' ORDER BY t::text) FROM ledger.threshold t JOIN ledger.account a ON a.id = t.account_id
		         WHERE a.person_id = $1),
		       (SELECT string_agg(l::text, ';') FROM meal.spending_limit l WHERE person_id = $1),
		       (SELECT string_agg(b::text, ';') FROM meal.ban b WHERE person_id = $1),
		       (SELECT string_agg(o::text, ';' ORDER BY o::text) FROM meal.preorder o WHERE person_id = $1),
		       (SELECT string_agg(i::text, ';' ORDER BY i::text) FROM access.invitation i WHERE inviter_id IN
		         (SELECT representative_id FROM access.guardian WHERE child_id = $1)),
		       (SELECT string_agg(r::text, ';' ORDER BY r::text) FROM access.representative r WHERE id IN
		         (SELECT representative_id FROM access.guardian WHERE child_id = $1)),
		       (SELECT string_agg(b.posted || '/' || b.held, ';') FROM ledger.balance b JOIN ledger.account a ON a.id = b.account_id WHERE a.person_id = $1),
		       (SELECT string_agg(e.id || e.url, ';') FROM push.endpoint e WHERE e.id = $2),
		       (SELECT string_agg(p::text, ';' ORDER BY p::text) FROM access.petition p WHERE p.representative_id IN
		         (SELECT representative_id FROM access.guardian WHERE child_id = $1)),
		       (SELECT count(*) FROM access.application))`, f.child, f.browser)
}

// secrets are words that only the family may read.
var secrets = []string{"Петров", "Маша", "Ольга", "Соколова", "00101519", "79000000001", "79000000003", "7900***01", "Шк 1"}

// Row 58, V8.2: a parent of another family walks every route of the document with
// the family's ids, sees nothing and changes nothing; every answer is the one for
// an id that nobody has.
func TestAParentOfAnotherFamilySeesNothing(t *testing.T) {
	w := newWorld(t)
	f := w.petrovs()
	none := family{child: 987654321, order: 987654321, invitation: 987654321, representative: 987654321, browser: 987654321, petition: 987654321, request: "9b2f6a3e-6b0e-4a0e-8a52-0d5a2a6f1c11"}
	other := w.signIn(nina)
	before := w.state(f)
	walked := 0
	for _, op := range w.operations() {
		if op.id == "end-session" || op.id == "end-sessions" {
			continue // they would end the walk
		}
		walked++
		r := other.call(op.method, f.path(op.path), f.body(op))
		for _, secret := range secrets {
			if strings.Contains(r.body, secret) {
				t.Errorf("%s %s shows %q: %s", op.method, op.path, secret, r.body)
			}
		}
		absent := other.call(op.method, none.path(op.path), none.body(op))
		if r.status != absent.status || strings.Contains(op.path, "{") && r.body != absent.body {
			t.Errorf("%s %s: %d %s\nfor an id that nobody has: %d %s", op.method, op.path, r.status, r.body, absent.status, absent.body)
		}
		harmless := op.id == "cancel-invitation" || op.id == "refuse-invitation" || op.id == "resume-channel"
		if strings.Contains(op.path, "{child}") && r.status != http.StatusNotFound ||
			strings.Contains(op.path, "{") && r.status < 400 && !harmless {
			t.Errorf("%s %s: %d %s", op.method, op.path, r.status, r.body)
		}
	}
	if walked < 46 {
		t.Errorf("only %d routes were walked", walked)
	}
	if after := w.state(f); after != before {
		t.Errorf("something of the family has changed:\n%s\n%s", before, after)
	}
	if n := one[int](w, `SELECT count(*) FROM access.view_log WHERE child_id = $1 AND actor_id = (
		SELECT id::text FROM access.representative WHERE phone = $2)`, f.child, strings.TrimPrefix(nina, "+")); n != 0 {
		t.Errorf("%d looks of the other mother are on record", n)
	}
}

// V7, row 58: without a session, with one that has expired, with one that was
// ended, and with a device's key, every route but the sign-in answers alike: 401.
func TestWithoutASessionNothingIsSeen(t *testing.T) {
	w := newWorld(t)
	f := w.petrovs()
	expired, ended := w.signIn(oleg), w.signIn(oleg)
	ended.want(http.StatusNoContent, http.MethodDelete, "/session", nil)
	w.pass(access.SessionIdle)
	before := w.state(f)
	for who, c := range map[string]caller{
		"nobody": {world: w}, "somebody with a session that has expired": expired, "somebody who has signed out": ended,
		"a door": w.tablet("door", "b1"), "somebody who guesses": {world: w, token: "zvk_AAAA"},
	} {
		for _, op := range w.operations() {
			if !strings.HasPrefix(op.path, "/api/v1/parent/") || op.id == "ask-code" {
				continue
			}
			r := c.call(op.method, f.path(op.path), f.body(op))
			if r.status != http.StatusUnauthorized {
				t.Errorf("%s, %s %s: %d %s", who, op.method, op.path, r.status, r.body)
			}
		}
	}
	if after := w.state(f); after != before {
		t.Errorf("something of the family has changed:\n%s\n%s", before, after)
	}
}

// R2, D12: a trusted person views, and chooses the own news; what belongs to the
// parents is refused, route by route.
func TestWhatATrustedPersonMayDo(t *testing.T) {
	w := newWorld(t)
	f := w.petrovs()
	granny := w.signIn(anna)
	mother := one[int64](w, `SELECT id FROM access.representative WHERE phone = $1`, strings.TrimPrefix(olga, "+"))
	f.representative = mother
	refused := map[string]int{
		"place-orders": 403, "cancel-order": 403, "set-rules": 403, "withdraw-consent": 403, "exclude-representative": 403,
		"petition": 403, "renew-consent": 403, "name-companion": 403, "withdraw-petition": 404,
		"list-waiting-petitions": 401, "accept-petition": 401, "refuse-petition": 401,
		"invite": 404, "check-invitation": 404, "accept-invitation": 404,
		"remove-browser": 404, "confirm-email": 401, "confirm-phone": 401, "confirm-holder": 401, "open-session": 401,
		"add-application": 401, "upload-events": 401, "authorize": 401, "lists": 401,
	}
	allowed := []string{
		"list-children", "show-child", "list-visits", "list-meals", "show-menu", "list-orders", "show-rules", "list-movements",
		"show-topup", "list-representatives", "show-log", "list-consents", "list-own-consents", "list-applications", "list-petitions",
		"list-subscriptions", "set-subscriptions", "show-self", "set-settings", "set-email", "drop-email", "resume-channel",
		"change-phone", "list-messages", "list-invitations", "list-browsers", "register-browser", "cancel-invitation", "refuse-invitation", "ask-code",
	}
	before := w.state(f)
	for _, op := range w.operations() {
		if op.id == "end-session" || op.id == "end-sessions" {
			continue
		}
		if op.id == "change-phone" {
			w.pass(access.CodeLife)
		}
		r := granny.call(op.method, f.path(op.path), f.body(op))
		want, isRefused := refused[op.id]
		switch {
		case isRefused && r.status != want:
			t.Errorf("%s (%s %s): %d, want %d: %s", op.id, op.method, op.path, r.status, want, r.body)
		case !isRefused && !slices.Contains(allowed, op.id):
			t.Errorf("nobody has said whether a trusted person may %s", op.id)
		case !isRefused && r.status >= 400:
			t.Errorf("%s (%s %s): %d %s", op.id, op.method, op.path, r.status, r.body)
		}
	}
	// All that has changed is her own: wishes, a threshold, settings.
	own := func(state string) string {
		var kept []string
		id := fmt.Sprint(one[int64](w, `SELECT id FROM access.representative WHERE phone = $1`, strings.TrimPrefix(anna, "+")))
		for _, row := range strings.FieldsFunc(state, func(r rune) bool { return r == ';' || r == '\n' }) {
			fields := strings.Split(strings.Trim(row, "()"), ",")
			if !slices.Contains(fields, id) {
				kept = append(kept, row)
			}
		}
		return strings.Join(kept, "\n")
	}
	if b, a := own(before), own(w.state(f)); a != b {
		t.Errorf("something of the family has changed:\n%s\n\n%s", b, a)
	}
}

// V15.3, V4.1: hostile bodies are refused whole, by every route that takes one.
func TestHostileBodiesAreRefused(t *testing.T) {
	w := newWorld(t)
	f := w.petrovs()
	mother := w.signIn(olga)
	before := w.state(f)
	huge := `{"phone":"` + strings.Repeat("9", 1<<20) + `"}`
	deep := strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5000)
	for _, op := range w.operations() {
		if !strings.HasPrefix(op.path, "/api/v1/parent/") || f.body(op) == nil {
			continue
		}
		path := f.path(op.path)
		var sound map[string]any
		text, err := json.Marshal(f.body(op))
		w.must(err)
		w.must(json.Unmarshal(text, &sound))
		for _, extra := range []string{"role", "balance", "school", "representative_id", "__proto__"} {
			more := map[string]any{extra: "legal"}
			for name, value := range sound {
				more[name] = value
			}
			if r := mother.call(op.method, path, more); r.status != http.StatusUnprocessableEntity || !strings.Contains(r.body, extra) {
				t.Errorf("%s with %q: %d %s", op.id, extra, r.status, r.body)
			}
		}
		for name := range sound {
			for _, value := range []any{map[string]any{"$gt": ""}, []any{[]any{}}, 1e300, true} {
				other := map[string]any{}
				for n, v := range sound {
					other[n] = v
				}
				if _, isBool := sound[name].(bool); isBool && value == true {
					continue
				}
				other[name] = value
				if r := mother.call(op.method, path, other); r.status != http.StatusUnprocessableEntity {
					t.Errorf("%s with %s=%v: %d %s", op.id, name, value, r.status, r.body)
				}
			}
		}
		for _, bad := range []struct {
			what, body string
			want       []int
		}{
			{"a megabyte", huge, []int{413}},
			{"no JSON", "phone=1", []int{400, 422}},
			{"half of it", string(text[:len(text)/2]), []int{400, 422}},
			{"deep", deep, []int{400, 422}},
			{"a list", "[]", []int{422}},
			{"null", "null", []int{422}},
			{"nothing", "", []int{400, 422}},
			{"no UTF-8", "{\"phone\":\"\xff\xfe\"}", []int{400, 422}},
		} {
			r := mother.call(op.method, path, bad.body)
			if !slices.Contains(bad.want, r.status) {
				t.Errorf("%s with %s: %d %.300s", op.id, bad.what, r.status, r.body)
			}
			for _, leak := range []string{"goroutine", "pgx", "SQLSTATE", ".go:", "SELECT"} {
				if strings.Contains(r.body, leak) {
					t.Errorf("%s with %s says %q: %.300s", op.id, bad.what, leak, r.body)
				}
			}
		}
	}
	for _, path := range []string{
		"/children/0", "/children/-1", "/children/abc", "/children/1e3", "/children/99999999999999999999", "/children/%27%20OR%201=1--",
		"/children/٣", "/children/%00",
	} {
		if r := mother.call(http.MethodGet, path, nil); r.status != http.StatusNotFound && r.status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", path, r.status, r.body)
		}
	}
	for _, question := range []string{
		"/visits?from=2026-11-01&to=2026-12-30", "/visits?from=2026-11-30&to=2026-11-01", "/meals?from=yesterday",
		"/menu?to=9999-99-99", "/movements?before=-1", "/movements?before=x", "/log?before=x",
	} {
		mother.want(http.StatusUnprocessableEntity, http.MethodGet, w.path("masha", question), nil)
	}
	if after := w.state(f); after != before {
		t.Errorf("something of the family has changed:\n%s\n%s", before, after)
	}
}

// D12: an invitation is limited, and tells nothing of who has the phone.
func TestAnInvitationTellsNothing(t *testing.T) {
	w := newWorld(t)
	mother := w.signIn(olga)
	answers := map[string]bool{}
	for _, phone := range []string{anna, nina, stranger} { // of the family, of another, nobody's
		r := mother.want(http.StatusCreated, http.MethodPost, "/invitations", w.invitation(phone, "masha"))
		var i parent.InvitationView
		r.into(t, &i)
		answers[strings.NewReplacer(fmt.Sprintf(`"id":%d`, i.ID), "", phone, "").Replace(r.body)] = true
	}
	if len(answers) != 1 {
		t.Errorf("the answers differ: %v", answers)
	}
	mother.want(http.StatusUnprocessableEntity, http.MethodPost, "/invitations", w.invitation(olga, "masha")) // to herself
	// Accepted by another phone than the invited one, it does not exist.
	var made parent.InvitationsView
	mother.get("/invitations", &made)
	for _, i := range made.Made {
		if i.Phone == stranger {
			w.signIn(oleg).want(http.StatusNotFound, http.MethodPost, fmt.Sprintf("/invitations/%d/acceptance", i.ID),
				parent.AcceptanceWish{FamilyName: "Серова", GivenName: "Инна"})
		}
	}
	for n := range 7 {
		mother.want(http.StatusCreated, http.MethodPost, "/invitations", w.invitation(fmt.Sprintf("+790000001%02d", n), "masha"))
	}
	mother.want(http.StatusTooManyRequests, http.MethodPost, "/invitations", w.invitation("+79000000199", "masha"))
	w.pass(24 * time.Hour)
	mother.want(http.StatusCreated, http.MethodPost, "/invitations", w.invitation("+79000000199", "masha"))
}
