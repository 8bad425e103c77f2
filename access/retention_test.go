package access

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger"
)

// spec/practice.md: purpose reached or consent withdrawn, then destroyed within
// 30 days; who is still needed stays. A sentence per person.
func TestPeopleAreErasedWhenNobodyNeedsThem(t *testing.T) {
	w := newWorld(t)
	now := schoolday
	ago := func(days int) time.Time { return now.AddDate(0, 0, -days) }
	type person struct {
		sentence string
		role     Role
		until    time.Time
		revoked  time.Time
		child    ledger.PersonID
		erased   bool
	}
	// Masha's mother consents; Petya's withdrew 30 days ago, Vanya's 28 days ago.
	mother := w.parent(1, "Петрова", "Ольга", w.masha)
	withdrawn, recent := w.parent(2, "Петров", "Антон", w.petya), w.parent(3, "Петров", "Илья", w.vanya)
	w.exec(`UPDATE access.consent SET withdrawn_at = $2 WHERE representative_id = $1`, withdrawn, ago(30))
	w.exec(`UPDATE access.consent SET withdrawn_at = $2 WHERE representative_id = $1`, recent, ago(28))
	people := []person{
		{"a trusted person of a child with a consent", Trusted, time.Time{}, time.Time{}, w.masha, false},
		{"a trusted person excluded 30 days ago", Trusted, time.Time{}, ago(30), w.masha, true},
		{"a trusted person excluded 28 days ago", Trusted, time.Time{}, ago(28), w.masha, false},
		{"a trusted person whose time ended 30 days ago", Trusted, ago(30), time.Time{}, w.masha, true},
		{"a trusted person of a child whose consent was withdrawn 30 days ago", Trusted, time.Time{}, time.Time{}, w.petya, true},
		{"a trusted person of a child whose consent was withdrawn 28 days ago", Trusted, time.Time{}, time.Time{}, w.vanya, false},
		{"a companion, who needs no consent", Companion, time.Time{}, time.Time{}, w.petya, false},
		{"a companion taken from the list 30 days ago", Companion, time.Time{}, ago(30), w.petya, true},
	}
	ids := make([]RepresentativeID, len(people))
	for i, p := range people {
		ids[i] = w.representative(10+i, "Серов", "Олег")
		w.exec(`INSERT INTO access.guardian (child_id, representative_id, role, since, until, revoked_at)
			VALUES ($1, $2, $3, $4, $5, $6)`,
			p.child, ids[i], p.role, ago(300), moment(p.until), moment(p.revoked))
	}
	w.exec(`UPDATE access.representative SET created_at = $1`, ago(300))
	stranger := w.representative(40, "Зуева", "Вера") // without any child, made known today
	w.exec(`UPDATE access.representative SET created_at = $2 WHERE id = $1`, stranger, now)
	text := strings.NewReplacer("p-1", "p-9", "p-2", "p-8", "00-01", "00-51", "00-02", "00-52", "00-03", "00-53").Replace(form)
	w.pupil("p-9", w.school, "Петрова", "Яна")
	w.pupil("p-8", w.school, "Петров", "Ян")
	taken, err := w.take(strings.Replace(text, `"2027-05-31"`, `"2026-11-21"`, 1), now)
	if err != nil {
		t.Fatal(err)
	}
	forget := func(now time.Time) (f Forgotten) {
		t.Helper()
		w.must(func(ctx context.Context, tx pgx.Tx) (err error) {
			f, err = Forget(ctx, tx, now)
			return err
		})
		return f
	}
	if f := forget(now); f.Representatives != 5 || f.Applications != 0 {
		t.Errorf("the protocol says %+v, want 5 people", f)
	}
	gone := func(id RepresentativeID) bool {
		t.Helper()
		return one[bool](w, `SELECT erased_at IS NOT NULL AND phone IS NULL
			AND family_name || given_name || patronymic || email = ''
			FROM access.representative WHERE id = $1`, id)
	}
	for i, p := range people {
		if gone(ids[i]) != p.erased {
			t.Errorf("%s: erased %t, want %t", p.sentence, gone(ids[i]), p.erased)
		}
	}
	if gone(mother) || !gone(withdrawn) || gone(recent) || gone(stranger) {
		t.Errorf("erased: the mother %t, who withdrew long ago %t, who withdrew lately %t, who is new %t",
			gone(mother), gone(withdrawn), gone(recent), gone(stranger))
	}
	// The erased are nobody, and their phones may come back as new people.
	if got := w.may(ids[1], w.masha, now); got != Removed {
		t.Errorf("an erased person: %s", got)
	}
	if children, err := ChildrenOf(t.Context(), w.pool, number(11), now); err != nil || len(children) != 0 {
		t.Errorf("an erased phone shows %+v, %v", children, err)
	}
	w.representative(11, "Серов", "Олег")
	if f := forget(now); f != (Forgotten{}) {
		t.Errorf("a second run destroys %+v", f)
	}
	// When the applicant goes, so does the form. The companion of that form stays on its list until 31 December.
	w.exec(`UPDATE access.representative SET created_at = $1`, ago(300))
	if f := forget(now.AddDate(0, 0, 31)); f.Applications != 1 {
		t.Errorf("the protocol says %+v, want one application", f)
	}
	if form := one[string](w, `SELECT form::text FROM access.application WHERE id = $1`, taken.ID); form != "{}" {
		t.Errorf("the form says %s", form)
	}
}

func TestCodesInvitationsCardsAndViewsAreForgottenInTime(t *testing.T) {
	w := newWorld(t)
	mother := w.parent(1, "Петрова", "Ольга", w.masha)
	// The database lets nothing young go, by its own clock; so these are of 2020.
	then := time.Date(2020, time.March, 2, 9, 0, 0, 0, moscow)
	w.exec(`UPDATE access.guardian SET since = $1`, then)
	w.exec(`UPDATE access.consent SET since = $1`, then)
	if _, _, err := w.newCode(number(1), then); err != nil {
		t.Fatal(err)
	}
	if _, err := w.invite(Proposal{
		Inviter: mother, Children: []ledger.PersonID{w.masha}, Phone: number(2), FamilyName: "Серов",
	}, then); err != nil {
		t.Fatal(err)
	}
	w.must(func(ctx context.Context, tx pgx.Tx) error {
		if _, err := StartMailboxChange(ctx, tx, mother, "mother@example.org", then); err != nil {
			return err
		}
		_, err := StartPhoneChange(ctx, tx, mother, number(3), then)
		return err
	})
	w.signIn(number(1), then)
	card := w.active(NewCard{Organisation: w.school, UID: "9A3F105C", Kind: OwnCard, Person: w.masha}, then)
	w.must(func(ctx context.Context, tx pgx.Tx) error { return ReturnCard(ctx, tx, card, staff, then) })
	w.active(NewCard{Organisation: w.school, UID: "9A3F105C", Kind: OwnCard, Person: w.masha}, then)
	if err := LogView(t.Context(), w.pool, []View{
		{staff, w.masha, "visits", Staff, then}, {staff, w.masha, "visits", Staff, time.Now()},
	}); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		sentence string
		at       time.Time
		want     Forgotten
	}{
		{"at first nothing", then.Add(CodeLife), Forgotten{}},
		{"codes a day after they ended", then.Add(CodeLife + 24*time.Hour + time.Second), Forgotten{Codes: 5}},
		{"invitations 30 days after they ended", then.Add(InvitationLife + 30*24*time.Hour + time.Second), Forgotten{Invitations: 1}},
		{"ended cards after a year", then.AddDate(1, 0, 0).Add(time.Second), Forgotten{Cards: 1}},
		{"views after three years", then.AddDate(3, 0, 0).Add(time.Second), Forgotten{Views: 1}},
	} {
		var got Forgotten
		w.must(func(ctx context.Context, tx pgx.Tx) (err error) {
			got, err = Forget(ctx, tx, test.at)
			return err
		})
		if got != test.want {
			t.Errorf("%s: %+v, want %+v", test.sentence, got, test.want)
		}
	}
	for table, rows := range map[string]int{
		"card": 1, "card_event": 2, "view_log": 1, "code": 0, "invitation": 0, "invitation_child": 0, "phone_change": 0,
		"mailbox_change": 0, "session": 0,
	} {
		if n := one[int](w, `SELECT count(*) FROM access.`+table); n != rows {
			t.Errorf("access.%s keeps %d rows, want %d", table, n, rows)
		}
	}
}

// A school has 30 days to decide on an electronic application; its form is emptied
// 29 days after that, and what was accepted stands in the application.
func TestElectronicApplicationsAreForgottenInTime(t *testing.T) {
	w := newWorld(t)
	mother := w.parent(1, "Петрова", "Ольга", w.masha)
	submit := func(state string, submitted, decided int) {
		w.exec(`INSERT INTO access.petition (organisation_id, representative_id, kind, form, state, submitted_at, decided_at, decided_by)
			VALUES ($1, $2, 'application', '{"reference":"e"}', $3, $4, $5, 'staff:t')`, w.school, mother, state,
			schoolday.AddDate(0, 0, -submitted), moment(schoolday.AddDate(0, 0, -decided)))
	}
	submit("accepted", 40, 30)
	submit("refused", 40, 28)
	w.exec(`INSERT INTO access.petition (organisation_id, representative_id, kind, form, state, submitted_at)
		SELECT $1, $2, 'application', '{"reference":"e"}', 'submitted', t FROM unnest($3::timestamptz[]) t`, w.school, mother,
		[]time.Time{schoolday.AddDate(0, 0, -31), schoolday.AddDate(0, 0, -29)})
	var f Forgotten
	w.must(func(ctx context.Context, tx pgx.Tx) (err error) {
		f, err = Forget(ctx, tx, schoolday)
		return err
	})
	if got := one[string](w, `SELECT string_agg(state || form::text, ' ' ORDER BY id) FROM access.petition`); f.Petitions != 2 ||
		got != `accepted{} refused{"reference": "e"} expired{} submitted{"reference": "e"}` {
		t.Errorf("emptied %d: %s", f.Petitions, got)
	}
}
