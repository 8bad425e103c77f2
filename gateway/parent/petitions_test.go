package parent_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"zvonok/access/reader"
	"zvonok/gateway/parent"
)

const petitions = "/api/v1/applications/petitions"

// R22, R23, R24, R25, R26, R27, R28, R29: what a legal representative applies for electronically grants
// nothing until the school has accepted it; then it is as if it had been on paper.
func TestAConsentGivenAnewWorksOnceTheSchoolHasAcceptedIt(t *testing.T) {
	w := newWorld(t)
	mother, tablet := w.signIn(olga), w.tablet(reader.StaffTablet, "b1").at("teacher")
	w.signIn(oleg).want(http.StatusNoContent, http.MethodDelete, w.path("masha", "/consent"), nil)
	mother.want(http.StatusNoContent, http.MethodDelete, w.path("masha", "/consent"), nil)
	if mother.sees("masha") {
		t.Fatal("she sees the child after the withdrawal")
	}
	wish := parent.RenewalWish{Purposes: []string{"visits"}, Until: "2027-05-31"}
	var made, again parent.PetitionView
	mother.want(http.StatusCreated, http.MethodPost, w.path("masha", "/consent"), wish).into(t, &made)
	mother.want(http.StatusCreated, http.MethodPost, w.path("masha", "/consent"), wish).into(t, &again)
	if made.State != "submitted" || made.Repeated || !again.Repeated || again.ID != made.ID {
		t.Errorf("made %+v, again %+v", made, again)
	}
	// R27: the phone of the form is the one that was proved.
	if a := made.Form.Applicant; a.Phone != olga || a.Family != "Петрова" {
		t.Errorf("applied by %+v", a)
	}
	if mother.sees("masha") {
		t.Error("she sees the child before the school has decided")
	}
	var waiting parent.PetitionsView
	tablet.want(http.StatusOK, http.MethodGet, petitions, nil).into(t, &waiting)
	if len(waiting.Petitions) != 1 || waiting.Petitions[0].ID != made.ID || waiting.Petitions[0].Form.Children[0].Person != "masha" {
		t.Fatalf("the school sees %+v", waiting)
	}
	accept := fmt.Sprintf("%s/%d/acceptance", petitions, made.ID)
	var taken parent.TakenView
	tablet.want(http.StatusCreated, http.MethodPost, accept, nil).into(t, &taken)
	if taken.Children != 1 || !mother.sees("masha") {
		t.Errorf("taken %+v; she sees the child: %t", taken, mother.sees("masha"))
	}
	tablet.want(http.StatusNotFound, http.MethodPost, accept, nil)
	w.eventually("word of the decision", func() bool {
		return slices.Contains(w.texts(olga), "Заявление принято: Проход и питание. Подробности на сайте")
	})
	var consents parent.ConsentsView
	mother.get(w.path("masha", "/consents"), &consents)
	if c := consents.Consents[0]; !c.Live || c.Form != fmt.Sprintf("e-%d", made.ID) || strings.Join(c.Covers, " ") != "visits" || c.Until == nil {
		t.Errorf("the consent is %+v", c)
	}
	// It began when the school accepted it, not in the hours without a consent.
	if n := one[int](w, `SELECT count(*) FROM access.consent c JOIN access.consent w ON w.child_id = c.child_id
		WHERE c.form LIKE 'e-%' AND w.withdrawn_at > c.since`); n != 0 {
		t.Error("the consent covers the time before it was given")
	}
}

// R24, R26: a further child is applied for by its number; whether it exists, or
// whose it is, only the school learns.
func TestAFurtherChildIsTheSchoolsToGive(t *testing.T) {
	w := newWorld(t)
	father, tablet := w.signIn(oleg), w.tablet(reader.StaffTablet, "b1").at("teacher")
	apply := func(person, family string) parent.PetitionView {
		var p parent.PetitionView
		r := father.want(http.StatusCreated, http.MethodPost, "/petitions", parent.ApplicationWish{
			Organisation: "s1", Children: []parent.WishedChild{{Person: person, FamilyName: family}},
		})
		r.into(t, &p)
		return p
	}
	unknown, other, known := apply("nobody", "Петров"), apply("ivan", "Орлов"), apply("petya", "Петров")
	tablet.want(http.StatusOK, http.MethodGet, petitions, nil)
	if n := one[int](w, `SELECT count(*) FROM access.view_log WHERE what = 'application' AND channel = 'staff' AND actor_id = 'teacher'
		AND child_id IN ($1, $2)`, w.people["ivan"], w.people["petya"]); n != 2 {
		t.Errorf("%d of the looks at two children are in the access log", n)
	}
	for _, p := range []parent.PetitionView{unknown, other} {
		r := tablet.want(http.StatusUnprocessableEntity, http.MethodPost, fmt.Sprintf("%s/%d/acceptance", petitions, p.ID), nil)
		if !strings.Contains(r.body, "no child of the organisation has this number and surname") {
			t.Errorf("the school reads %s", r.body)
		}
	}
	refusal := fmt.Sprintf("%s/%d/refusal", petitions, unknown.ID)
	tablet.want(http.StatusUnprocessableEntity, http.MethodPost, refusal, parent.RefusalWish{Reason: " \n"})
	tablet.want(http.StatusNoContent, http.MethodPost, refusal, parent.RefusalWish{Reason: "такого ученика нет"})
	father.want(http.StatusNoContent, http.MethodDelete, fmt.Sprintf("/petitions/%d", other.ID), nil)
	tablet.want(http.StatusCreated, http.MethodPost, fmt.Sprintf("%s/%d/acceptance", petitions, known.ID), nil)
	var own parent.PetitionsView
	father.get("/petitions", &own)
	states := map[int64]string{}
	for _, p := range own.Petitions {
		states[p.ID] = p.State + p.Reason
	}
	if states[unknown.ID] != "refusedтакого ученика нет" || states[other.ID] != "withdrawn" || states[known.ID] != "accepted" {
		t.Errorf("he reads %v", states)
	}
	// An organisation nobody knows is named; one more than ten a day is not taken.
	father.want(http.StatusUnprocessableEntity, http.MethodPost, "/petitions", parent.ApplicationWish{
		Organisation: "s9", Children: []parent.WishedChild{{Person: "masha", FamilyName: "Петрова"}},
	})
	for n := range 7 {
		apply(fmt.Sprintf("nobody%d", n), "Петров")
	}
	father.want(http.StatusTooManyRequests, http.MethodPost, "/petitions", parent.ApplicationWish{
		Organisation: "s1", Children: []parent.WishedChild{{Person: "nobody9", FamilyName: "Петров"}},
	})
}

// R13, R49, D10: who may lead a child is named with a date of birth and a last
// day, is of the organisation's age, and may lead once the school has accepted it.
func TestACompanionIsNamedByAParentAndAcceptedByTheSchool(t *testing.T) {
	w := newWorld(t)
	w.exec(`UPDATE ledger.organisation SET kind = 'kindergarten' WHERE code = 's1'`)
	mother, tablet := w.signIn(olga), w.tablet(reader.StaffTablet, "b1").at("teacher")
	wish := parent.CompanionWish{FamilyName: "Серова", GivenName: "Инна", Phone: stranger, BornOn: "2009-01-01", Until: "2027-05-31"}
	path := w.path("masha", "/companions")
	for sentence, change := range map[string]func(*parent.CompanionWish){
		"seventeen years old":     func(*parent.CompanionWish) {},
		"without a birthday":      func(c *parent.CompanionWish) { c.BornOn = "" },
		"no day":                  func(c *parent.CompanionWish) { c.BornOn = "1990-02-30" },
		"until a day past":        func(c *parent.CompanionWish) { c.BornOn, c.Until = "1990-02-03", "2020-01-01" },
		"by a phone that is none": func(c *parent.CompanionWish) { c.BornOn, c.Phone = "1990-02-03", "12" },
		"with the own phone":      func(c *parent.CompanionWish) { c.BornOn, c.Phone = "1990-02-03", olga },
	} {
		bad := wish
		change(&bad)
		if r := mother.call(http.MethodPost, path, bad); r.status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", sentence, r.status, r.body)
		}
	}
	wish.BornOn = "1990-02-03"
	var made parent.PetitionView
	mother.want(http.StatusCreated, http.MethodPost, path, wish).into(t, &made)
	circle := func() (roles []string) {
		var view parent.CircleView
		mother.get(w.path("masha", "/representatives"), &view)
		for _, m := range view.Representatives {
			roles = append(roles, m.Role)
		}
		return roles
	}
	if roles := circle(); strings.Contains(strings.Join(roles, " "), "companion") {
		t.Errorf("before the school has accepted: %v", roles)
	}
	accept := fmt.Sprintf("%s/%d/acceptance", petitions, made.ID)
	// Another school, a door and somebody who is not of the staff decide nothing.
	w.tablet(reader.StaffTablet, "b2").at("other").want(http.StatusNotFound, http.MethodPost, accept, nil)
	w.tablet(reader.Door, "b1").at("teacher").want(http.StatusForbidden, http.MethodPost, accept, nil)
	tablet.at("masha").want(http.StatusForbidden, http.MethodPost, accept, nil)
	consents := one[int](w, `SELECT count(*) FROM access.consent`)
	tablet.want(http.StatusCreated, http.MethodPost, accept, nil)
	if roles := circle(); strings.Count(strings.Join(roles, " "), "companion") != 1 {
		t.Errorf("once the school has accepted: %v", roles)
	}
	if n := one[int](w, `SELECT count(*) FROM access.consent`); n != consents {
		t.Error("naming a companion has changed a consent")
	}
	// A companion sees nothing, and the parent takes the name from the list again.
	if w.signIn(stranger).sees("masha") {
		t.Error("a companion sees the child")
	}
	id := one[int64](w, `SELECT id FROM access.representative WHERE phone = $1`, strings.TrimPrefix(stranger, "+"))
	mother.want(http.StatusNoContent, http.MethodDelete, w.path("masha", fmt.Sprintf("/representatives/%d?role=companion", id)), nil)
	if roles := circle(); strings.Contains(strings.Join(roles, " "), "companion") {
		t.Errorf("taken from the list: %v", roles)
	}
}

// R27: a phone that was changed meanwhile is not the one of the form; a right that
// has ended meanwhile names nobody; after 30 days there is nothing to accept.
func TestAPetitionIsJudgedAtTheMomentOfTheDecision(t *testing.T) {
	w := newWorld(t)
	mother, tablet := w.signIn(olga), w.tablet(reader.StaffTablet, "b1").at("teacher")
	var p parent.PetitionView
	wish := parent.CompanionWish{FamilyName: "Серова", GivenName: "Инна", Phone: stranger, BornOn: "1990-02-03"}
	mother.want(http.StatusCreated, http.MethodPost, w.path("masha", "/companions"), wish).into(t, &p)
	accept := fmt.Sprintf("%s/%d/acceptance", petitions, p.ID)
	phone := strings.TrimPrefix(olga, "+")
	w.exec(`UPDATE access.representative SET phone = '79000000066' WHERE phone = $1`, phone)
	tablet.want(http.StatusUnprocessableEntity, http.MethodPost, accept, nil)
	w.exec(`UPDATE access.representative SET phone = $1 WHERE phone = '79000000066'`, phone)
	w.exec(`UPDATE access.guardian SET until = since + interval '1 second' WHERE role = 'legal' AND representative_id =
		(SELECT id FROM access.representative WHERE phone = $1)`, phone)
	tablet.want(http.StatusUnprocessableEntity, http.MethodPost, accept, nil)
	w.exec(`UPDATE access.petition SET submitted_at = submitted_at - interval '31 days'`)
	tablet.want(http.StatusNotFound, http.MethodPost, accept, nil)
	if n := one[int](w, `SELECT count(*) FROM access.guardian WHERE role = 'companion'`); n != 0 {
		t.Errorf("%d companions were granted", n)
	}
}
