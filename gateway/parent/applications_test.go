package parent_test

import (
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"zvonok/access/reader"
	"zvonok/gateway/parent"
)

// form is an application of two children and two recipients, as a school keys it in.
func form() map[string]any {
	return map[string]any{
		"reference": "17/2026", "organisation": "s1", "signed_on": "2026-11-20", "channels": []string{"sms"},
		"applicant": map[string]any{"family_name": "Белова", "given_name": "Вера", "phone": "8 (900) 000-00-77"},
		"children": []map[string]any{
			{"person": "masha", "family_name": "Петрова"}, {"person": "petya", "family_name": "Петров"},
		},
		"recipients": []map[string]any{
			{"family_name": "Белов", "given_name": "Лев", "phone": "+79000000078", "role": "trusted", "children": []string{"petya"}},
			{"family_name": "Ветрова", "given_name": "Инна", "phone": "+79000000079", "role": "companion"},
		},
	}
}

const addApplication = "/api/v1/applications"

// R22, R23, R24, R25, R26, R27: one record of several children and several recipients; from then on
// the phones of the application, and no others, open the cabinet.
func TestASchoolKeysAnApplicationIn(t *testing.T) {
	w := newWorld(t)
	tablet := w.tablet(reader.StaffTablet, "b1").at("teacher")
	var taken parent.TakenView
	tablet.want(http.StatusCreated, http.MethodPost, addApplication, form()).into(t, &taken)
	if taken.Repeated || taken.Children != 2 || taken.People != 3 {
		t.Errorf("taken is %+v", taken)
	}
	mother := w.signIn(stranger)
	if !mother.sees("masha") || !mother.sees("petya") {
		t.Error("the applicant does not see both children")
	}
	uncle := w.signIn("+79000000078")
	if uncle.sees("masha") || !uncle.sees("petya") {
		t.Error("the uncle sees another child than the one of the form")
	}
	if w.signIn("+79000000079").sees("petya") {
		t.Error("a companion sees a child")
	}
	var wishes parent.WishesView
	mother.get(w.path("petya", "/subscriptions"), &wishes)
	if len(wishes.Subscriptions) != 3 || wishes.Lower == nil || *wishes.Lower != 150_00 {
		t.Errorf("the applicant begins with %+v", wishes)
	}
	var consents parent.ConsentsView
	mother.get(w.path("petya", "/consents"), &consents)
	if !slices.ContainsFunc(consents.Consents, func(c parent.ConsentView) bool { return c.You && c.Live && c.Form == "17/2026" }) {
		t.Errorf("the consents are %+v", consents)
	}
	var own parent.ApplicationsView
	mother.get("/applications", &own)
	if len(own.Applications) != 1 || own.Applications[0].Form.Reference != "17/2026" || len(own.Applications[0].Form.Recipients) != 2 {
		t.Errorf("her applications are %+v", own)
	}
	if by := one[string](w, `SELECT actor_kind || ' ' || actor_id FROM access.application`); by != "staff teacher" {
		t.Errorf("keyed in by %s", by)
	}
}

// A retry is the same application: four at once and one later are one record.
func TestARepeatedApplicationIsOne(t *testing.T) {
	w := newWorld(t)
	tablet := w.tablet(reader.StaffTablet, "b1").at("teacher")
	var wait sync.WaitGroup
	statuses := make([]int, 4)
	for i := range statuses {
		wait.Go(func() { statuses[i] = w.send(tablet.request(http.MethodPost, addApplication, form())).status })
	}
	wait.Wait()
	slices.Sort(statuses)
	if !slices.Equal(statuses, []int{200, 200, 200, 201}) {
		t.Errorf("four at once are answered %v", statuses)
	}
	var taken parent.TakenView
	tablet.want(http.StatusOK, http.MethodPost, addApplication, form()).into(t, &taken)
	if !taken.Repeated {
		t.Errorf("the fifth is %+v", taken)
	}
	other := form()
	other["signed_on"] = "2026-11-21"
	tablet.want(http.StatusConflict, http.MethodPost, addApplication, other)
	counts := query[int](w, `
		SELECT 'applications', count(*) FROM access.application UNION ALL
		SELECT 'consents', count(*) FROM access.consent WHERE form = '17/2026' UNION ALL
		SELECT 'people', count(*) FROM access.representative WHERE phone LIKE '7900000007_'`)
	if !maps.Equal(counts, map[string]int{"applications": 1, "consents": 2, "people": 3}) {
		t.Errorf("stored are %v", counts)
	}
}

// What is wrong is named by its field, and nothing is stored.
func TestAWrongApplicationIsRefusedByItsField(t *testing.T) {
	w := newWorld(t)
	tablet := w.tablet(reader.StaffTablet, "b1").at("teacher")
	child := func(change func(map[string]any)) func(map[string]any) {
		return func(f map[string]any) {
			delete(f, "recipients")
			change(f["children"].([]map[string]any)[1])
		}
	}
	applicant := func(name string, value any) func(map[string]any) {
		return func(f map[string]any) { f["applicant"].(map[string]any)[name] = value }
	}
	for _, test := range []struct {
		sentence string
		change   func(map[string]any)
		field    string
	}{
		{"a child of another school", child(func(c map[string]any) { c["person"], c["family_name"] = "ivan", "Орлов" }), "body.children[1]"},
		{"a child that nobody knows", child(func(c map[string]any) { c["person"] = "nobody" }), "body.children[1]"},
		{"a surname that is another's", child(func(c map[string]any) { c["family_name"] = "Орлов" }), "body.children[1]"},
		{"another school", func(f map[string]any) { f["organisation"] = "s2" }, "body.organisation"},
		{"a school that nobody knows", func(f map[string]any) { f["organisation"] = "s9" }, "body.organisation"},
		{"a phone that is none", applicant("phone", "123"), "body.applicant.phone"},
		{"a phone of somebody of another name", applicant("phone", olga), "body.applicant.phone"},
		{"no given name", applicant("given_name", ""), "body.applicant.given_name"},
		{"a name in which a header hides", applicant("family_name", "Белова\r\nBcc: x"), "body.applicant.family_name"},
		{"a role nobody can have", func(f map[string]any) { f["recipients"].([]map[string]any)[0]["role"] = "legal" }, "body.recipients[0].role"},
		{"a day that is none", func(f map[string]any) { f["signed_on"] = "2026-02-30" }, "body.signed_on"},
		{"a day to come", func(f map[string]any) { f["signed_on"] = "2026-12-24" }, "body.signed_on"},
		{"a number where a word stands", func(f map[string]any) { f["reference"] = 17 }, "body.reference"},
		{"a field nobody knows", func(f map[string]any) { f["balance"] = "1000.00" }, "body"},
		{"no children", func(f map[string]any) { f["children"] = nil }, "body.children"},
	} {
		f := form()
		test.change(f)
		r := tablet.want(http.StatusUnprocessableEntity, http.MethodPost, addApplication, f)
		var problem struct {
			Errors []struct{ Location, Message string }
		}
		r.into(t, &problem)
		if len(problem.Errors) == 0 || problem.Errors[0].Location != test.field || problem.Errors[0].Message == "" {
			t.Errorf("%s: %s, want %s", test.sentence, r.body, test.field)
		}
	}
	// A child of another school is as unknown as one that does not exist.
	var answers []string
	for _, person := range []string{"ivan", "nobody"} {
		f := form()
		f["children"] = []map[string]any{{"person": person, "family_name": "Орлов"}}
		answers = append(answers, tablet.call(http.MethodPost, addApplication, f).body)
	}
	if answers[0] != answers[1] {
		t.Errorf("the answers differ: %q", answers)
	}
	for sentence, by := range map[string]string{
		"nobody": "", "a stranger": "nobody", "a child": "masha", "a teacher of another school": "other",
	} {
		if r := tablet.at(by).call(http.MethodPost, addApplication, form()); r.status != http.StatusForbidden {
			t.Errorf("keyed in by %s: %d %s", sentence, r.status, r.body)
		}
	}
	tablet.want(http.StatusRequestEntityTooLarge, http.MethodPost, addApplication, `{"reference":"`+strings.Repeat("x", 1<<20)+`"}`)
	tablet.want(http.StatusUnprocessableEntity, http.MethodPost, addApplication, `{"reference"`)
	if n := one[int](w, `SELECT count(*) FROM access.application`) + one[int](w, `SELECT count(*) FROM access.representative WHERE phone LIKE '7900000007_'`); n != 0 {
		t.Errorf("%d rows are stored", n)
	}
}

// Only a tablet of staff keys in, and a parent's token is no key.
func TestOnlyStaffKeyApplicationsIn(t *testing.T) {
	w := newWorld(t)
	for who, c := range map[string]caller{
		"nobody": {world: w}, "a door": w.tablet(reader.Door, "b1"), "a till": w.tablet(reader.Till, "b1"), "a parent": w.signIn(olga),
	} {
		want := http.StatusUnauthorized
		if who == "a door" || who == "a till" {
			want = http.StatusForbidden
		}
		if r := c.at("teacher").call(http.MethodPost, addApplication, form()); r.status != want {
			t.Errorf("%s: %d %s", who, r.status, r.body)
		}
	}
	// A tablet of the other school finds none of the children.
	f := form()
	f["organisation"] = "s2"
	r := w.tablet(reader.StaffTablet, "b2").at("other").want(http.StatusUnprocessableEntity, http.MethodPost, addApplication, f)
	if strings.Contains(r.body, "Маша") {
		t.Errorf("the other school learns %s", r.body)
	}
	revoked := w.tablet(reader.StaffTablet, "b1").at("teacher")
	w.exec(`UPDATE reader.device SET revoked_at = now() WHERE name = 'staff-tabletb1'`)
	revoked.want(http.StatusUnauthorized, http.MethodPost, addApplication, form())
}

// Row 55 of spec/reliability.md: a tablet's key keys applications in and decides
// on electronic ones from two addresses at once. Nothing is refused; staff are told.
func TestATabletsKeyUsedFromTwoAddressesForApplicationsRaisesAnAlarm(t *testing.T) {
	w := newWorld(t)
	tablet := w.tablet(reader.StaffTablet, "b1").at("teacher")
	from := func(address string) {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
		w.client = &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}}
		w.pass(20 * time.Second)
	}
	from("127.0.0.1")
	tablet.want(http.StatusCreated, http.MethodPost, addApplication, form())
	from("127.0.0.2")
	tablet.want(http.StatusOK, http.MethodGet, petitions, nil)
	w.intake.Close() // writes down where tablets were heard
	alarms, err := reader.OpenAlarms(t.Context(), w.pool, w.orgs["s1"])
	w.must(err)
	if len(alarms) != 1 || alarms[0].Kind != reader.TwoAddresses || alarms[0].Evidence != "127.0.0.1 and 127.0.0.2" {
		t.Errorf("alarms of devices %+v", alarms)
	}
}
