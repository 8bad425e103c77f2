package access

import (
	"slices"
	"testing"
	"time"
)

// R13, R49, D10: who may lead a child home, a sentence per row.
func TestWhoMayLeadAChild(t *testing.T) {
	w := newWorld(t)
	mother := w.parent(1, "Петрова", "Ольга", w.vanya)
	granny := w.trusted(2, "Сидорова", "Анна", w.vanya)
	aunt := w.representative(3, "Белова", "Ирина")
	brother := w.representative(4, "Петров", "Илья")
	adult := w.representative(5, "Серов", "Олег")
	stranger := w.parent(6, "Орлова", "Елена", w.kolya)
	father := w.representative(7, "Петров", "Антон")
	// The kindergarten's midnight is 22:00 in Moscow; the brother's birthday is the 24th.
	w.exec(`UPDATE access.representative SET born_on = '2008-11-24' WHERE id = $1`, brother)
	w.exec(`UPDATE access.representative SET born_on = '1980-01-01' WHERE id = $1`, adult)
	w.exec(`INSERT INTO access.guardian (child_id, representative_id, role, since, until, revoked_at) VALUES
		($1, $2, 'companion', '2026-09-01', NULL, NULL),
		($1, $3, 'companion', '2026-09-01', NULL, NULL),
		($1, $4, 'companion', '2026-09-01', '2026-11-24', NULL),
		($1, $5, 'legal', '2026-09-01', NULL, '2026-10-01')`, w.vanya, aunt, brother, adult, father)
	birthday := time.Date(2026, time.November, 24, 0, 0, 0, 0, yekaterinbrg)
	tests := []struct {
		sentence string
		who      RepresentativeID
		at       time.Time
		want     LeadVerdict
	}{
		{"the mother leads", mother, schoolday, LeadYes},
		{"a trusted person who is not listed does not", granny, schoolday, LeadUnlisted},
		{"a listed companion checked on paper leads", aunt, schoolday, LeadYes},
		{"a listed brother of 17 does not", brother, birthday.Add(-time.Second), LeadTooYoung},
		{"a listed brother leads from his birthday on", brother, birthday, LeadYes},
		{"a companion leads before the last day ends", adult, schoolday, LeadYes},
		{"a companion whose listing has ended does not", adult, schoolday.AddDate(0, 0, 1), LeadEnded},
		{"a companion whose listing has not begun does not", aunt, schoolday.AddDate(0, -4, 0), LeadEnded},
		{"a father without rights does not", father, schoolday, LeadEnded},
		{"another child's mother does not", stranger, schoolday, LeadUnlisted},
		{"nobody at all does not", 404, schoolday, LeadUnlisted},
	}
	leads := make([]Lead, len(tests))
	for i, test := range tests {
		leads[i] = Lead{w.vanya, test.who, test.at}
	}
	got, err := MayLead(t.Context(), w.pool, leads)
	if err != nil {
		t.Fatal(err)
	}
	for i, test := range tests {
		if got[i] != test.want {
			t.Errorf("%s: %s, want %s", test.sentence, got[i], test.want)
		}
	}
	w.exec(`UPDATE ledger.organisation SET companion_age = 16 WHERE id = $1`, w.kindergarten)
	got, err = MayLead(t.Context(), w.pool, []Lead{{w.vanya, brother, schoolday}})
	if err != nil || !slices.Equal(got, []LeadVerdict{LeadYes}) {
		t.Errorf("where companions of 16 may lead: %v, %v", got, err)
	}
	if none, err := MayLead(t.Context(), w.pool, nil); err != nil || none != nil {
		t.Errorf("no question: %v, %v", none, err)
	}
}
