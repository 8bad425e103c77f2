package access

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger"
)

// form is an application of two children and two recipients.
const form = `{
	"reference": "2026-117", "organisation": "s-1", "signed_on": "2026-11-20", "consent_until": "2027-05-31",
	"applicant": {"family_name": "Петрова", "given_name": "Ольга", "patronymic": "Ивановна", "phone": "8 (900) 000-00-01",
	              "email": "olga@example.org", "language": "ru", "translit": true},
	"children": [{"person": "p-1", "family_name": "Петрова"}, {"person": "p-2", "family_name": "петров"}],
	"channels": ["sms", "email"],
	"recipients": [
		{"family_name": "Сидорова", "given_name": "Анна", "phone": "+7 900 000-00-02", "role": "trusted", "children": ["p-1"]},
		{"family_name": "Белова", "given_name": "Ирина", "phone": "+7 900 000-00-03", "role": "companion",
		 "born_on": "1990-02-03", "until": "2026-12-31"}
	]}`

func (w *world) take(text string, now time.Time) (taken Taken, err error) {
	w.Helper()
	application, err := ParseApplication(strings.NewReader(text))
	if err != nil {
		return Taken{}, err
	}
	err = w.tx(func(ctx context.Context, tx pgx.Tx) error {
		taken, err = TakeApplication(ctx, tx, application, staff, now)
		return err
	})
	return taken, err
}

// R22, R23, R24, R25, R26, R27: one record of several children and several
// recipients; access follows by itself. R56: a trusted person named on the form.
func TestAnApplicationOpensTheCabinets(t *testing.T) {
	w := newWorld(t)
	taken, err := w.take(form, schoolday)
	if err != nil {
		t.Fatal(err)
	}
	mother, granny, aunt := w.who(1), w.who(2), w.who(3)
	want := []Granted{
		{w.masha, mother, Legal},
		{w.petya, mother, Legal},
		{w.masha, granny, Trusted},
		{w.masha, aunt, Companion},
		{w.petya, aunt, Companion},
	}
	if taken.Repeated || taken.Applicant != mother || !slices.Equal(taken.Granted, want) {
		t.Errorf("taken %+v, want %+v", taken, want)
	}
	last := time.Date(2027, time.June, 1, 0, 0, 0, 0, moscow)
	for _, test := range []struct {
		sentence string
		who      RepresentativeID
		child    ledger.PersonID
		at       time.Time
		want     Verdict
	}{
		{"the mother sees the first child", mother, w.masha, schoolday, Yes},
		{"the mother sees the second child", mother, w.petya, schoolday, Yes},
		{"the grandmother sees the child named for her", granny, w.masha, schoolday, Yes},
		{"the grandmother does not see the other", granny, w.petya, schoolday, NotRepresentative},
		{"the aunt sees nothing", aunt, w.masha, schoolday, NotRepresentative},
		{"the consent ends with its last day", mother, w.masha, last, ConsentExpired},
		{"and lives until then", mother, w.masha, last.Add(-time.Second), Yes},
	} {
		if got := w.may(test.who, test.child, test.at); got != test.want {
			t.Errorf("%s: %s, want %s", test.sentence, got, test.want)
		}
	}
	if v, err := MayLead(t.Context(), w.pool, []Lead{{w.petya, aunt, schoolday}, {w.petya, aunt, last}}); err != nil ||
		!slices.Equal(v, []LeadVerdict{LeadYes, LeadEnded}) {
		t.Errorf("the aunt leads: %v, %v", v, err)
	}
	consents, err := Consents(t.Context(), w.pool, w.masha)
	if err != nil || len(consents) != 1 || consents[0].Form != "2026-117" || !consents[0].Visits || !consents[0].Meals {
		t.Errorf("the consents are %+v, %v", consents, err)
	}
	r, err := RepresentativeByID(t.Context(), w.pool, mother)
	if err != nil || r.Email != "olga@example.org" || !r.Translit || r.Names.Patronymic != "Ивановна" {
		t.Errorf("the mother is %+v, %v", r, err)
	}

	again, err := w.take(form, schoolday.Add(time.Hour))
	if err != nil || !again.Repeated || again.ID != taken.ID || again.Applicant != mother || again.Granted != nil {
		t.Errorf("keyed in twice: %+v, %v", again, err)
	}
	if _, err := w.take(strings.Replace(form, `"2027-05-31"`, `"2028-05-31"`, 1), schoolday); !errors.Is(err, ErrReference) {
		t.Errorf("another form of the same number: %v", err)
	}
	stored := one[string](w, `SELECT form::text FROM access.application WHERE id = $1`, taken.ID)
	var kept Application
	if err := json.Unmarshal([]byte(stored), &kept); err != nil || kept.SignedOn.Format(time.DateOnly) != "2026-11-20" {
		t.Errorf("the form is kept as %s, %v", stored, err)
	}
}

// A second application joins people who are known, and may be for one purpose only.
func TestAnApplicationJoinsKnownPeople(t *testing.T) {
	w := newWorld(t)
	granny := w.representative(2, "Сидорова", "Анна")
	w.exec(`UPDATE access.representative SET email = 'anna@example.org' WHERE id = $1`, granny)
	text := strings.Replace(form, `"channels"`, `"purposes": ["meals"], "channels"`, 1)
	if _, err := w.take(text, schoolday); err != nil {
		t.Fatal(err)
	}
	if w.who(2) != granny || w.may(granny, w.masha, schoolday) != Yes {
		t.Errorf("the grandmother: %s", w.may(granny, w.masha, schoolday))
	}
	listeners, err := Audience(t.Context(), w.pool, []ledger.PersonID{w.petya}, schoolday)
	if err != nil || len(listeners) != 1 || listeners[0].Visits || !listeners[0].Meals {
		t.Errorf("the consent covers %+v, %v", listeners, err)
	}
}

// Each mistake is named by its place; nothing is written.
func TestABadApplicationIsRefusedAsAWhole(t *testing.T) {
	w := newWorld(t)
	w.representative(3, "Орлова", "Елена")
	edit := func(old, changed string) string {
		t.Helper()
		if !strings.Contains(form, old) {
			t.Fatalf("the form has no %s", old)
		}
		return strings.Replace(form, old, changed, 1)
	}
	for _, test := range []struct {
		sentence, text string
		paths          []string
	}{
		{"no JSON", "{", []string{""}},
		{"a misspelt field", edit(`"consent_until"`, `"consent_untill"`), []string{""}},
		{"something behind it", form + "{}", []string{""}},
		{"a megabyte", form + strings.Repeat(" ", 1<<20), []string{""}},
		{"a number for a name", edit(`"Ольга"`, `7`), []string{"applicant.given_name"}},
		{"no reference", edit(`"2026-117"`, `""`), []string{"reference"}},
		{"the registry's own name", edit(`"2026-117"`, `"registry"`), []string{"reference"}},
		{"a date of another form", edit(`"2026-11-20"`, `"20.11.2026"`), []string{"signed_on"}},
		{"a consent that ends before it begins", edit(`"2027-05-31"`, `"2026-11-19"`), []string{"consent_until"}},
		{"a signature of tomorrow", edit(`"2026-11-20"`, `"2026-11-24"`), []string{"signed_on"}},
		{"a telephone that is none", edit(`"8 (900) 000-00-01"`, `"112"`), []string{"applicant.phone"}},
		{"a mailbox that is none", edit(`"olga@example.org"`, `"olga"`), []string{"applicant.email"}},
		{"e-mail ticked and none given", edit(`"olga@example.org"`, `""`), []string{"applicant.email"}},
		{"an unknown channel", edit(`["sms", "email"]`, `["pigeon"]`), []string{"channels[0]"}},
		{"a name over two lines", edit(`"Ирина"`, `"Ири\nна"`), []string{"recipients[1].given_name"}},
		{"an unknown role", edit(`"companion"`, `"legal"`), []string{"recipients[1].role"}},
		{"a child that is not in the form", edit(`["p-1"]`, `["p-9"]`), []string{"recipients[0].children[0]"}},
		{"the applicant as recipient", edit(`"+7 900 000-00-02"`, `"+7 900 000-00-01"`), []string{"recipients[0].phone"}},
		{
			"no child", edit(`[{"person": "p-1", "family_name": "Петрова"}, {"person": "p-2", "family_name": "петров"}]`, `[]`),
			[]string{"children", "recipients[0].children[0]"},
		},
		{"a child twice", edit(`"person": "p-2"`, `"person": "p-1"`), []string{"children[1].person"}},
		{"an unknown organisation", edit(`"s-1"`, `"s-9"`), []string{"organisation"}},
		{
			"a child of another organisation, an unknown child",
			edit(`{"person": "p-2", "family_name": "петров"}`,
				`{"person": "p-4", "family_name": "Орлов"}, {"person": "p-99", "family_name": "Орлов"}`),
			[]string{"children[1]", "children[2]", "recipients[1].phone"},
		},
		{"a child of another surname", edit(`"петров"`, `"Петренко"`), []string{"children[1]", "recipients[1].phone"}},
		{"a phone that belongs to another name", form, []string{"recipients[1].phone"}},
	} {
		_, err := w.take(test.text, schoolday)
		refused, ok := errors.AsType[*FormError](err)
		if !ok {
			t.Errorf("%s: %v, want a FormError", test.sentence, err)
			continue
		}
		var paths []string
		for _, p := range refused.Problems {
			paths = append(paths, p.Path)
		}
		if !slices.Equal(paths, test.paths) {
			t.Errorf("%s: %v, want %v", test.sentence, refused.Problems, test.paths)
		}
	}
	if n := one[int](w, `SELECT (SELECT count(*) FROM access.representative) + (SELECT count(*) FROM access.application)`); n != 1 {
		t.Errorf("%d rows were written all the same", n-1)
	}
}

func FuzzParseApplication(f *testing.F) {
	f.Add(form)
	f.Add(`{"reference":"1","children":[{}],"recipients":[{"until":"2026-01-01"}]}`)
	f.Add(`{"signed_on":"0000-00-00"}`)
	f.Add(`null`)
	f.Fuzz(func(t *testing.T, text string) {
		a, err := ParseApplication(strings.NewReader(text))
		if err != nil {
			refused, ok := errors.AsType[*FormError](err)
			if !ok || len(refused.Problems) == 0 || refused.Error() == "" {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		again, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseApplication(strings.NewReader(string(again))); err != nil {
			t.Fatalf("%q was taken, and not as %s: %v", text, again, err)
		}
	})
}
