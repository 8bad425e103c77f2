package access

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access/phone"
	"zvonok/ledger"
	"zvonok/ledger/pg"
	"zvonok/ledger/pg/pgtest"
	"zvonok/ledger/registry"
)

const (
	guardianHeader = "phone,email,family_name,given_name,patronymic,language,translit,person_id,role,consent_date,consent_until\n"
	cardHeader     = "uid,person_id,kind,valid_until\n"
)

// bring imports the files as the command does: all or nothing.
func (w *world) bring(files map[string]string) registry.Report {
	w.Helper()
	dir := w.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			w.Fatal(err)
		}
	}
	folder, err := registry.Open(dir)
	if err != nil {
		w.Fatal(err)
	}
	var report registry.Report
	err = w.tx(func(ctx context.Context, tx pgx.Tx) error {
		if err := Import(ctx, tx, folder, &report); err != nil {
			return err
		}
		return report.Err()
	})
	if err != nil && !errors.Is(err, registry.ErrProblems) {
		w.Fatal(err)
	}
	return report
}

func (w *world) guardians(lines ...string) registry.Report {
	w.Helper()
	return w.bring(map[string]string{registry.Guardians: guardianHeader + strings.Join(lines, "\n") + "\n"})
}

func (w *world) cards(lines ...string) registry.Report {
	w.Helper()
	return w.bring(map[string]string{registry.Cards: cardHeader + strings.Join(lines, "\n") + "\n"})
}

// count checks what an import says it has done with its last file.
func (w *world) count(report registry.Report, added, changed, left int) {
	w.Helper()
	if !report.OK() {
		w.Fatalf("the import found %v", report.Problems)
	}
	got := report.Counts[len(report.Counts)-1]
	got.File = ""
	if want := (registry.Count{Added: added, Changed: changed, Left: left}); got != want {
		w.Errorf("the import says %+v, want %+v", got, want)
	}
}

// person returns the representative whose phone ends with these digits.
func (w *world) who(digits int) RepresentativeID {
	w.Helper()
	r, err := RepresentativeByPhone(w.Context(), w.pool, number(digits))
	if err != nil {
		w.Fatal(err)
	}
	return r.ID
}

// contract.md section 4, R23: a line of each role, with its dates, in the zone of the child's organisation.
func TestGuardiansAreImported(t *testing.T) {
	w := newWorld(t)
	report := w.guardians(
		"+7 (900) 000-00-01,olga@example.org,Петрова,Ольга,Ивановна,ru,yes,p-1,legal,2026-09-01,",
		"8 900 000 00 01,olga@example.org,Петрова,Ольга,Ивановна,ru,yes,p-3,legal,2026-09-01,2026-11-23",
		"+79000000002,,Сидорова,Анна,,en,no,p-1,trusted,2026-10-01,2026-11-22",
		"+79000000002,,Сидорова,Анна,,en,no,p-1,companion,,",
		"79000000003,,Белова,Ирина,,,,p-3,companion,2026-10-01,",
	)
	w.count(report, 5, 0, 0)
	mother, granny, aunt := w.who(1), w.who(2), w.who(3)
	noon := func(day int) time.Time { return time.Date(2026, time.November, day, 12, 0, 0, 0, moscow) }
	for _, test := range []struct {
		sentence string
		who      RepresentativeID
		child    ledger.PersonID
		at       time.Time
		want     Verdict
	}{
		{"the mother's open-ended consent", mother, w.masha, noon(23), Yes},
		{"before the consent nobody may know", mother, w.masha, time.Date(2026, 8, 31, 23, 59, 59, 0, moscow), NotRepresentative},
		{"the consent begins with its day at school", mother, w.masha, time.Date(2026, 9, 1, 0, 0, 0, 0, moscow), Yes},
		{"the last day counts", mother, w.vanya, time.Date(2026, 11, 23, 23, 59, 59, 0, yekaterinbrg), Yes},
		{
			"the next day does not, in the kindergarten's zone", mother, w.vanya,
			time.Date(2026, 11, 24, 0, 0, 0, 0, yekaterinbrg), ConsentExpired,
		},
		{"the trusted person on the last day", granny, w.masha, noon(22), Yes},
		{"the trusted person after it", granny, w.masha, noon(23), Expired},
		{"a companion has no right to know", aunt, w.vanya, noon(23), NotRepresentative},
	} {
		if got := w.may(test.who, test.child, test.at); got != test.want {
			t.Errorf("%s: %s, want %s", test.sentence, got, test.want)
		}
	}
	r, err := RepresentativeByID(t.Context(), w.pool, mother)
	if err != nil {
		t.Fatal(err)
	}
	want := Representative{
		ID: mother, Phone: number(1), Email: "olga@example.org", Names: Names{"Петрова", "Ольга", "Ивановна"},
		Language: "ru", Translit: true,
	}
	if r != want {
		t.Errorf("the mother is %+v, want %+v", r, want)
	}
	if verdicts, err := MayLead(t.Context(), w.pool, []Lead{{w.vanya, aunt, noon(23)}, {w.masha, granny, time.Now()}}); err != nil ||
		!slices.Equal(verdicts, []LeadVerdict{LeadYes, LeadYes}) {
		t.Errorf("the companions: %v, %v", verdicts, err)
	}
}

// Rows are matched by id; what the parents have taken away since, and what they
// have chosen, stays (D12, D14, D15).
func TestARepeatedImportBringsNothingBack(t *testing.T) {
	w := newWorld(t)
	lines := []string{
		"+79000000001,a@example.org,Петрова,Ольга,,ru,no,p-1,legal,2026-09-01,",
		"+79000000001,a@example.org,Петрова,Ольга,,ru,no,p-2,legal,2026-09-01,",
		"+79000000002,,Сидорова,Анна,,ru,no,p-1,trusted,2026-09-01,",
	}
	w.count(w.guardians(lines...), 3, 0, 0)
	w.count(w.guardians(lines...), 0, 0, 3)
	mother, granny := w.who(1), w.who(2)
	now := time.Now()
	w.must(func(ctx context.Context, tx pgx.Tx) error {
		if err := Exclude(ctx, tx, mother, w.masha, granny, Trusted, now); err != nil {
			return err
		}
		if err := WithdrawConsent(ctx, tx, mother, w.petya, now); err != nil {
			return err
		}
		return SetReading(ctx, tx, mother, Reading{Email: "b@example.org", Language: "en", Translit: true}, now)
	})
	w.count(w.guardians(lines...), 0, 0, 3)
	soon := now.Add(time.Minute)
	if got := w.may(granny, w.masha, soon); got != Removed {
		t.Errorf("the excluded grandmother: %s", got)
	}
	if got := w.may(mother, w.petya, soon); got != ConsentWithdrawn {
		t.Errorf("the withdrawn consent: %s", got)
	}
	r, err := RepresentativeByID(t.Context(), w.pool, mother)
	if err != nil || r.Email != "b@example.org" || r.Language != "en" || !r.Translit {
		t.Errorf("what the mother chose: %+v, %v", r, err)
	}

	// A line without a date, and one of the same day, bring nothing back either.
	w.count(w.guardians("+79000000002,,Сидорова,Анна,,ru,no,p-1,trusted,,"), 0, 0, 1)
	today := now.In(moscow).Format(time.DateOnly)
	w.count(w.guardians("+79000000002,,Сидорова,Анна,,ru,no,p-1,trusted,"+today+","), 0, 0, 1)

	// A later date is a new grant and a new consent.
	tomorrow := now.In(moscow).AddDate(0, 0, 1)
	day := tomorrow.Format(time.DateOnly)
	w.count(w.guardians(
		"+79000000001,a@example.org,Петрова,Ольга,,ru,no,p-2,legal,"+day+",",
		"+79000000002,,Сидорова,Анна,,ru,no,p-1,trusted,"+day+",",
	), 0, 2, 0)
	after := tomorrow.AddDate(0, 0, 1)
	if w.may(granny, w.masha, after) != Yes || w.may(mother, w.petya, after) != Yes {
		t.Errorf("after the new dates: %s, %s", w.may(granny, w.masha, after), w.may(mother, w.petya, after))
	}
	if w.may(granny, w.masha, soon) == Yes || w.may(mother, w.petya, soon) == Yes {
		t.Error("the new dates work before their day")
	}
}

// R28: who has changed the phone online need not visit the school, so the registry
// goes on listing the old one. It stays his record: the old phone, which somebody
// else may have by now, gets no right to the child, also not to a further one.
func TestARegistryThatStillListsAChangedPhoneMeansItsFormerOwner(t *testing.T) {
	w := newWorld(t)
	stale := []string{
		"+79000000001,,Петрова,Ольга,,ru,no,p-1,legal,2026-09-01,",
		"+79000000005,,Серов,Олег,,ru,no,p-3,companion,2026-09-01,",
	}
	w.count(w.guardians(stale...), 2, 0, 0)
	mother, companion := w.who(1), w.who(5)
	now := time.Now()
	for who, to := range map[RepresentativeID]phone.Number{mother: number(2), companion: number(6)} {
		w.must(func(ctx context.Context, tx pgx.Tx) error {
			change, err := StartPhoneChange(ctx, tx, who, to, now)
			if err != nil {
				return err
			}
			verdict, err := FinishPhoneChange(ctx, tx, who, change.ID, change.OldCode, change.NewCode, now)
			if verdict != CodeRight {
				t.Fatalf("the change is %s", verdict)
			}
			return err
		})
	}
	everybody := func() string {
		return one[string](w, `SELECT string_agg(r.id - $1 || ':' || r.phone || ' ' || p.code, ', ' ORDER BY r.id, p.code)
			FROM access.representative r JOIN access.guardian g ON g.representative_id = r.id JOIN ledger.person p ON p.id = g.child_id`, mother)
	}
	want := everybody()
	w.count(w.guardians(stale...), 0, 0, 2)
	if got := everybody(); got != want {
		t.Errorf("after the registry again: %s, want %s", got, want)
	}
	// A further child under the old phone is hers; the line with the new phone beside the old one is one; her card is found.
	report := w.bring(map[string]string{
		registry.Guardians: guardianHeader + strings.Join(append(stale,
			"+79000000002,,Петрова,Ольга,,ru,no,p-1,legal,2026-09-01,",
			"+79000000001,,Петрова,Ольга,,ru,no,p-2,legal,2026-09-01,"), "\n") + "\n",
		registry.Cards: cardHeader + "9A3F1055,+79000000005,own,\n",
	})
	w.count(report, 1, 0, 0)
	if got := report.Counts[0]; got.Added != 1 || got.Left != 3 {
		t.Errorf("guardians.csv: %+v", got)
	}
	if got := w.resolve(CardQuery{Organisation: w.kindergarten, UID: "9A3F1055"})[0]; got.Representative != companion {
		t.Errorf("the card is that of %+v", got)
	}
	if w.may(mother, w.petya, now) != Yes {
		t.Errorf("the further child: %s", w.may(mother, w.petya, now))
	}
	// Somebody else has the phone now: a line with her name is hers.
	w.guardians("+79000000001,,Орлова,Нина,,ru,no,p-4,legal,2026-09-01,", "+79000000001,,Орлова,Нина,,ru,no,p-1,trusted,2026-09-01,")
	nina := w.who(1)
	w.count(w.guardians(stale...), 0, 0, 2)
	if r, err := RepresentativeByID(t.Context(), w.pool, nina); err != nil || nina == mother || r.Names.Family != "Орлова" {
		t.Errorf("the present holder of the phone is %+v, %v", r, err)
	}
}

func TestARepeatedImportChangesWhatTheFileChanges(t *testing.T) {
	w := newWorld(t)
	w.count(w.guardians(
		"+79000000001,,Петрова,Ольга,,ru,no,p-1,legal,2026-09-01,2027-05-31",
		"+79000000002,,Сидорова,Анна,,ru,no,p-1,trusted,2026-09-01,",
		"+79000000003,,Белова,Ирина,,ru,no,p-1,companion,,",
	), 3, 0, 0)
	w.count(w.guardians(
		"+79000000001,o@example.org,Иванова,Ольга,,ru,no,p-1,legal,2026-09-01,2026-12-31",
		"+79000000002,,Сидорова,Анна,,ru,no,p-1,trusted,2026-10-01,2026-10-31",
		"+79000000003,,Белова,Ирина,,ru,no,p-1,companion,,2026-01-31",
	), 0, 3, 0)
	mother, granny := w.who(1), w.who(2)
	for _, test := range []struct {
		who  RepresentativeID
		at   time.Time
		want Verdict
	}{
		{mother, time.Date(2027, 1, 1, 0, 0, 0, 0, moscow), ConsentExpired},
		{granny, time.Date(2026, 9, 15, 0, 0, 0, 0, moscow), NotRepresentative},
		{granny, time.Date(2026, 10, 15, 0, 0, 0, 0, moscow), Yes},
		{granny, time.Date(2026, 11, 15, 0, 0, 0, 0, moscow), Expired},
	} {
		if got := w.may(test.who, w.masha, test.at); got != test.want {
			t.Errorf("representative %d at %s: %s, want %s", test.who, test.at, got, test.want)
		}
	}
	r, err := RepresentativeByID(t.Context(), w.pool, mother)
	if err != nil || r.Names.Family != "Иванова" || r.Email != "o@example.org" {
		t.Errorf("the mother who married: %+v, %v", r, err)
	}
	if v, err := MayLead(t.Context(), w.pool, []Lead{{w.masha, w.who(3), time.Now()}}); err != nil || v[0] != LeadEnded {
		t.Errorf("the companion whose time is over: %v, %v", v, err)
	}
	// The trusted grandmother becomes the guardian, and consents.
	w.count(w.guardians("+79000000002,,Сидорова,Анна,,ru,no,p-1,legal,2026-11-01,"), 0, 1, 0)
	if got := w.may(granny, w.masha, time.Date(2027, 2, 1, 0, 0, 0, 0, moscow)); got != Yes {
		t.Errorf("the grandmother as guardian: %s", got)
	}
}

func TestEachBadLineOfGuardiansIsNamed(t *testing.T) {
	w := newWorld(t)
	w.parent(9, "Петров", "Антон", w.masha)
	report := w.guardians(
		"+79000000001,,Петрова,Ольга,,ru,no,p-1,legal,2026-09-01,",          // 2: good
		"12345,,Петрова,Ольга,,ru,no,p-1,legal,2026-09-01,",                 // 3
		"+79000000002,at.example.org,Серов,Олег,,ru,no,p-1,trusted,,",       // 4
		"+79000000003,,Серов,Олег,,de,no,p-1,trusted,,",                     // 5
		"+79000000004,,Серов,Олег,,ru,maybe,p-1,trusted,,",                  // 6
		"+79000000005,,Серов,Олег,,ru,no,p-1,uncle,,",                       // 7
		"+79000000006,,Серов,Олег,,ru,no,p-1,legal,,",                       // 8
		"+79000000007,,Серов,Олег,,ru,no,p-1,trusted,2026-09-02,2026-09-01", // 9
		"+79000000008,,Серов,Олег,,ru,no,p-1,trusted,01.09.2026,",           // 10
		"+79000000010,,,Олег,,ru,no,p-1,trusted,,",                          // 11
		"+79000000011,,Серов,Олег,,ru,no,p-77,trusted,,",                    // 12
		"+79000000001,,Петрова,Ольга,,ru,no,p-1,legal,2026-09-01,",          // 13
		"+79000000001,,Петрова,Ольга,,ru,no,p-1,trusted,2026-09-01,",        // 14
		"+79000000001,,Серов,Олег,,ru,no,p-2,trusted,2026-09-01,",           // 15
		"+79000000009,,Петров,Антон,,ru,no,p-1,trusted,,",                   // 16
		"+79000000012,,Сёмина,Ольга,,ru,no,p-1,trusted,,",                   // 17: good
		"+79000000012,,СЕМИНА,ольга,,ru,no,p-2,trusted,,",                   // 18: good, the same name
	)
	w.problems(report, map[int]string{
		3: "phone", 4: "email", 5: "language", 6: "translit", 7: "role", 8: "consent_date", 9: "before consent_date",
		10: "date like", 11: "family_name is empty", 12: `"p-77" is not known`, 13: "repeats line 2", 14: "contradicts line 2",
		15: "another name in line 2", 16: "legal representative",
	})
	if n := one[int](w, `SELECT count(*) FROM access.representative`); n != 1 {
		t.Errorf("%d people were written all the same", n-1)
	}
}

// problems checks that exactly these lines are named, for these reasons.
func (w *world) problems(report registry.Report, want map[int]string) {
	w.Helper()
	named := map[int]bool{}
	for _, p := range report.Problems {
		reason, expected := want[p.Line]
		if !expected || !strings.Contains(p.Reason, reason) {
			w.Errorf("line %d: %s; want %q", p.Line, p.Reason, reason)
		}
		named[p.Line] = true
	}
	for line, reason := range want {
		if !named[line] {
			w.Errorf("line %d is not named; want %q", line, reason)
		}
	}
}

func TestCardsAreImported(t *testing.T) {
	w := newWorld(t)
	w.count(w.cards(
		"9a3f105c,p-1,social,",
		"04A1B2C3D4E580,p-2,bracelet,2027-05-31",
		"9A3F105C,p-4,own,", // another organisation
		"0102030405,p-3,temporary,2036-11-23",
	), 4, 0, 0)
	got := w.resolve(
		CardQuery{Organisation: w.school, UID: "9A3F105C"}, CardQuery{Organisation: w.school, UID: "04A1B2C3D4E580"},
		CardQuery{Organisation: w.other, UID: "9A3F105C"}, CardQuery{Organisation: w.kindergarten, UID: "0102030405"},
	)
	for i, want := range []CardHolder{
		{Person: w.masha, Kind: SocialCard, State: Active},
		{Person: w.petya, Kind: Bracelet, State: Active, ValidUntil: time.Date(2027, 6, 1, 0, 0, 0, 0, moscow)},
		{Person: w.kolya, Kind: OwnCard, State: Active},
		{Person: w.vanya, Kind: TemporaryCard, State: Temporary, ValidUntil: time.Date(2036, 11, 24, 0, 0, 0, 0, yekaterinbrg)},
	} {
		h := got[i]
		same := h.ValidUntil.Equal(want.ValidUntil)
		h.Card, h.ValidUntil, want.ValidUntil = 0, time.Time{}, time.Time{}
		if !same || h != want {
			t.Errorf("card %d: %+v until %s, want %+v", i, h, got[i].ValidUntil, want)
		}
	}
	// Again, with one changed, one blocked by the school meanwhile and one new.
	w.must(func(ctx context.Context, tx pgx.Tx) error {
		return BlockCard(ctx, tx, got[0].Card, staff, "", time.Now())
	})
	w.count(w.cards(
		"9A3F105C,p-1,social,",
		"04A1B2C3D4E580,p-2,bracelet,2028-05-31",
		"9A3F1055,p-1,fob,",
	), 1, 1, 1)
	if h := w.resolve(CardQuery{Organisation: w.school, UID: "9A3F105C"})[0]; h.State != BlockedLost {
		t.Errorf("the import unblocked a lost card: %+v", h)
	}
	history, err := CardHistory(t.Context(), w.pool, got[1].Card)
	if err != nil || len(history) != 2 || history[0].What != "imported" || history[1].What != "changed" ||
		history[1].By != byRegistry {
		t.Errorf("the history of an imported card: %+v, %v", history, err)
	}
}

// R13: a person_id that begins with a plus is a companion's phone; the card works
// wherever a child of his goes.
func TestACompanionsCardIsImportedByPhone(t *testing.T) {
	w := newWorld(t)
	report := w.bring(map[string]string{
		registry.Guardians: guardianHeader +
			"+79000000003,,Белова,Ирина,,ru,no,p-3,companion,2026-09-01,\n" +
			"+79000000003,,Белова,Ирина,,ru,no,p-1,trusted,2026-09-01,\n",
		registry.Cards: cardHeader + "9A3F1055,+7 900 000-00-03,own,\n",
	})
	w.count(report, 1, 0, 0)
	aunt := w.who(3)
	for _, organisation := range []ledger.OrganisationID{w.kindergarten, w.school} {
		h := w.resolve(CardQuery{Organisation: organisation, UID: "9A3F1055"})[0]
		if h.Representative != aunt || h.Person != 0 || h.State != Active {
			t.Errorf("organisation %d: %+v", organisation, h)
		}
	}
	if h := w.resolve(CardQuery{Organisation: w.other, UID: "9A3F1055"})[0]; h.State != Unknown {
		t.Errorf("a school of no child of hers: %+v", h)
	}
}

// A registry goes on listing the card of a companion whose right has ended, as it
// does that of a pupil who has left: neither is a reason to refuse everything else.
func TestTheCardOfACompanionWhoseRightHasEndedIsLeftOut(t *testing.T) {
	w := newWorld(t)
	w.guardians("+79000000003,,Белова,Ирина,,ru,no,p-3,companion,2025-09-01,",
		"+79000000004,,Серов,Олег,,ru,no,p-3,companion,2025-09-01,", "+79000000005,,Зуева,Вера,,ru,no,p-3,companion,2025-09-01,")
	w.exec(`UPDATE access.guardian SET until = now() - interval '1 day' WHERE representative_id = $1`, w.who(3))
	w.exec(`UPDATE access.guardian SET revoked_at = now() - interval '1 day' WHERE representative_id = $1`, w.who(4))
	w.count(w.cards("9A3F1053,+79000000003,own,", "9A3F1054,+79000000004,own,", "9A3F1055,+79000000005,own,", "9A3F105C,p-1,own,"), 2, 0, 2)
	w.problems(w.cards("9A3F1056,+79000000006,own,"), map[int]string{2: "not the phone of"})
}

func TestEachBadLineOfCardsIsNamed(t *testing.T) {
	w := newWorld(t)
	w.active(NewCard{Organisation: w.school, UID: "AAAAAAAA", Kind: OwnCard, Person: w.masha}, schoolday)
	w.must(func(ctx context.Context, tx pgx.Tx) error {
		_, err := SetReaderForms(ctx, tx, w.school, []Part{Tail3})
		return err
	})
	w.problems(w.cards(
		"9A3F105C,p-1,own,",            // 2: good
		"9A3F10,p-1,own,",              // 3
		"XYZ,p-1,own,",                 // 4
		"9A3F1060,p-77,own,",           // 5
		"9A3F1061,p-1,ring,",           // 6
		"9A3F1062,p-1,temporary,",      // 7
		"9A3F1063,p-1,own,31.05.2027",  // 8
		"9A3F105C,p-2,own,",            // 9
		"9A3F105C,p-1,own,",            // 10
		"9A3F105C,p-4,own,",            // 11: good, another organisation
		"BB3F105C,p-2,own,",            // 12
		"9A3F1064,+123,own,",           // 13
		"9A3F1065,p-1,own,,",           // 14
		"9A3F1066,,own,",               // 15
		"04A1B2C3D4E580,p-3,bracelet,", // 16: good
		"8804A1B2,p-1,own,",            // 17: what a reader makes of a longer one
	), map[int]string{
		3: "uid", 4: "uid", 5: `"p-77" is not known`, 6: `"ring" is not known`, 7: "valid_until", 8: "date like",
		9: "stands in line 2", 10: "stands in line 2", 12: "cannot tell", 13: "person_id", 14: "fields", 15: "person_id is empty",
		17: "first part of a longer identifier",
	})
	w.problems(w.cards(
		"AAAAAAAA,p-2,own,",          // 2
		"AAAAAAAA,p-4,own,",          // 3: good, another organisation
		"CCAAAAAA,p-1,own,",          // 4
		"9A3F1064,+79000000077,own,", // 5
	), map[int]string{2: "another person's card", 4: "cannot tell", 5: "not the phone of"})
	if n := one[int](w, `SELECT count(*) FROM access.card`); n != 1 {
		t.Errorf("%d cards were written all the same", n-1)
	}
}

// When the people of the folder could not be merged, nothing is said of lines
// that only lack them.
func TestABadFileBeforeIsNotBlamedOnTheNext(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	for name, content := range map[string]string{
		registry.Guardians: guardianHeader + "+79000000001,,Петрова,Ольга,,ru,no,p-new,legal,2026-09-01,\n" +
			"+79000000001,,Петрова,Ольга,,ru,no,p-new,legal,2026-09-01,\n",
		registry.Cards: cardHeader + "9A3F105C,p-new,own,\n" + "9A3F105C,+79000000009,own,\n" + "xyz,p-new,own,\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	folder, err := registry.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var report registry.Report
	report.Add(registry.People, 2, "benefit must be one of none, breakfast, lunch, full")
	w.must(func(ctx context.Context, tx pgx.Tx) error { return Import(ctx, tx, folder, &report) })
	var lines []string
	for _, p := range report.Problems[1:] {
		lines = append(lines, fmt.Sprint(p.File, " ", p.Line))
	}
	if !slices.Equal(lines, []string{"guardians.csv 3", "cards.csv 4"}) {
		t.Errorf("the import blames %v", report.Problems[1:])
	}
	if n := one[int](w, `SELECT (SELECT count(*) FROM access.representative) + (SELECT count(*) FROM access.card)`); n != 0 {
		t.Errorf("%d rows were written all the same", n)
	}
}

// A pupil who changes school takes the card along; one who leaves frees it.
func TestCardsFollowTheRegister(t *testing.T) {
	w := newWorld(t)
	w.count(w.cards("9A3F105C,p-1,own,", "AAAAAAAA,p-2,own,", "BBBBBBBB,p-4,own,"), 3, 0, 0)
	before := time.Now()
	w.exec(`UPDATE ledger.person SET organisation_id = $1 WHERE id = $2`, w.other, w.masha)
	w.exec(`UPDATE ledger.person SET left_on = current_date - 1 WHERE id = $1`, w.petya)
	// The freed identifier is another pupil's in the same file, and the old line of the leaver stands there still.
	lyuba := w.pupil("p-5", w.school, "Зуева", "Любовь")
	w.count(w.cards("AAAAAAAA,p-5,own,", "AAAAAAAA,p-2,own,", "9A3F105C,p-1,own,"), 1, 0, 2)
	got := w.resolve(
		CardQuery{Organisation: w.other, UID: "9A3F105C"}, CardQuery{Organisation: w.school, UID: "9A3F105C"},
		CardQuery{Organisation: w.school, UID: "9A3F105C", At: before}, CardQuery{Organisation: w.school, UID: "AAAAAAAA"},
	)
	if got[0].Person != w.masha || got[0].State != Active {
		t.Errorf("at the new school: %+v", got[0])
	}
	if got[1].State != Returned || got[2].State != Active || got[2].Person != w.masha {
		t.Errorf("at the old school: %+v, and before the move: %+v", got[1], got[2])
	}
	if got[3].Person != lyuba {
		t.Errorf("the freed card: %+v", got[3])
	}
}

// benchPeople is the size of the city of the benchmark.
const benchPeople = 100_000

// A city's cards and guardians, from the file to the last index. Beside it
// stands what a bare COPY of the same lines into a table without indexes takes.
func BenchmarkImport(b *testing.B) {
	ctx := b.Context()
	dir := b.TempDir()
	writeLines(b, filepath.Join(dir, registry.Guardians), guardianHeader, benchPeople*5/4, func(n int) string {
		// Every child has a mother, every fourth a grandmother.
		child, role, name := n+1, "legal", "Петрова,Ольга,Ивановна"
		if n >= benchPeople {
			child, role, name = (n-benchPeople)*4+1, "trusted", "Сидорова,Анна,"
		}
		return fmt.Sprintf("+7900%07d,,%s,ru,no,p-%d,%s,2026-09-01,\n", n, name, child, role)
	})
	writeLines(b, filepath.Join(dir, registry.Cards), cardHeader, benchPeople, func(n int) string {
		return fmt.Sprintf("%08X,p-%d,social,\n", uint32(n+1)*2654435761, n+1)
	})
	folder, err := registry.Open(dir)
	if err != nil {
		b.Fatal(err)
	}
	run := func(b *testing.B, work func(ctx context.Context, tx pgx.Tx, report *registry.Report) error) {
		for b.Loop() {
			b.StopTimer()
			pool, err := pg.Open(ctx, pg.Config{URL: pgtest.NewURL(b)})
			if err != nil {
				b.Fatal(err)
			}
			for _, sql := range []string{
				`INSERT INTO ledger.organisation (id, code, kind, name, short_name, time_zone)
				 SELECT n, 's-' || n, 'school', 'School', 'School', 'Europe/Moscow' FROM generate_series(1, $1 / 500) n`,
				`INSERT INTO ledger.person (id, code, organisation_id, kind, family_name, given_name)
				 SELECT n, 'p-' || n, 1 + n % ($1 / 500), 'pupil', 'Петрова', 'Мария' FROM generate_series(1, $1) n`,
			} {
				if _, err := pool.Exec(ctx, sql, benchPeople); err != nil {
					b.Fatal(err)
				}
			}
			var report registry.Report
			b.StartTimer()
			err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
				if err := work(ctx, tx, &report); err != nil {
					return err
				}
				return report.Err()
			})
			b.StopTimer()
			if err != nil {
				b.Fatal(err)
			}
			pool.Close()
			b.StartTimer()
		}
		b.ReportMetric(float64(benchPeople*9/4*b.N)/b.Elapsed().Seconds(), "lines/s")
	}
	b.Run("import", func(b *testing.B) {
		run(b, func(ctx context.Context, tx pgx.Tx, report *registry.Report) error {
			if _, err := tx.Exec(ctx, `SET LOCAL statement_timeout = '10min'`); err != nil {
				return err
			}
			return Import(ctx, tx, folder, report)
		})
	})
	b.Run("copy alone", func(b *testing.B) {
		run(b, func(ctx context.Context, tx pgx.Tx, _ *registry.Report) error {
			for _, name := range []string{registry.Guardians, registry.Cards} {
				file, err := os.Open(filepath.Join(dir, name))
				if err != nil {
					return err
				}
				defer file.Close()
				if _, err := tx.Exec(ctx, `
					DROP TABLE IF EXISTS pg_temp.line;
					CREATE TEMP TABLE line (text text) ON COMMIT DROP`); err != nil {
					return err
				}
				if _, err := tx.Conn().PgConn().CopyFrom(ctx, file, `COPY line FROM STDIN`); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

func writeLines(b *testing.B, path, header string, n int, line func(n int) string) {
	b.Helper()
	file, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	out := bufio.NewWriter(file)
	_, _ = out.WriteString(header) // Flush returns the error
	for i := range n {
		_, _ = out.WriteString(line(i))
	}
	if err := errors.Join(out.Flush(), file.Close()); err != nil {
		b.Fatal(err)
	}
}

// spec/practice.md: a registry that goes on listing who withdrew the consent, or
// whose right has ended, and whom retention has erased, brings nobody back; a new
// consent by a later date does, and so does somebody else of the family.
func TestARegistryThatStillListsTheErasedBringsNobodyBack(t *testing.T) {
	w := newWorld(t)
	files := map[string]string{
		registry.Guardians: guardianHeader + strings.Join([]string{
			"+79000000001,,Петрова,Ольга,,ru,no,p-1,legal,2025-09-01,",
			"+79000000002,,Петров,Антон,,ru,no,p-2,legal,2025-09-01,",
			"+79000000003,,Сидорова,Анна,,ru,no,p-1,trusted,,",
			"+79000000004,,Белова,Ирина,,ru,no,p-3,companion,2025-09-01,",
			"+79000000007,,Белов,Иван,,ru,no,p-3,companion,2025-09-01,2025-10-01",
		}, "\n") + "\n",
		registry.Cards: cardHeader + "9A3F1055,+79000000004,own,\n",
	}
	guardiansOnly := map[string]string{registry.Guardians: files[registry.Guardians]}
	w.bring(guardiansOnly)
	w.exec(`UPDATE access.representative SET created_at = now() - interval '1 year'`)
	w.exec(`UPDATE access.consent SET withdrawn_at = now() - interval '40 days' WHERE child_id = $1`, w.masha)
	w.exec(`UPDATE access.guardian SET revoked_at = now() - interval '40 days' WHERE role = 'companion'`)
	var f Forgotten
	forget := func() {
		w.must(func(ctx context.Context, tx pgx.Tx) (err error) {
			f, err = Forget(ctx, tx, time.Now())
			return err
		})
	}
	if forget(); f.Representatives != 3 {
		t.Fatalf("erased %d, want the mother, the grandmother and the companion", f.Representatives)
	}
	named := func() string {
		return one[string](w, `SELECT coalesce(string_agg(family_name, ' ' ORDER BY phone), '') FROM access.representative WHERE phone IS NOT NULL`)
	}
	report := w.bring(files)
	if !report.OK() {
		t.Fatalf("the import is refused: %v", report.Problems)
	}
	if got := named(); got != "Петров" {
		t.Errorf("after the same registry again: %s", got)
	}
	if n := one[int](w, `SELECT count(*) FROM access.consent c JOIN access.representative r ON r.id = c.representative_id
		WHERE c.child_id = $1 AND c.withdrawn_at IS NULL`, w.masha); n != 0 {
		t.Error("the withdrawn consent lives again")
	}
	today := time.Now().Format(time.DateOnly)
	report = w.guardians("+79000000001,,Петрова,Ольга,,ru,no,p-1,legal,"+today+",",
		"+79000000005,,Петров,Илья,,ru,no,p-1,legal,2025-09-01,", "+79000000006,,Серова,Вера,,ru,no,p-1,trusted,,")
	if got := named(); !report.OK() || got != "Петрова Петров Петров Серова" {
		t.Errorf("after a new consent, and new people: %s, %v", got, report.Problems)
	}
}
