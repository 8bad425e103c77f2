package access

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access/phone"
	"zvonok/ledger"
)

func (w *world) invite(p Proposal, now time.Time) (i Invitation, err error) {
	w.Helper()
	err = w.tx(func(ctx context.Context, tx pgx.Tx) error {
		i, err = Invite(ctx, tx, p, now)
		return err
	})
	return i, err
}

func (w *world) accept(id InvitationID, number phone.Number, names Names, now time.Time) (a Acceptance) {
	w.Helper()
	w.must(func(ctx context.Context, tx pgx.Tx) (err error) {
		a, err = Accept(ctx, tx, id, number, names, now)
		return err
	})
	return a
}

// R57, R58, R59, R60, R61, R62, R63, R64, D12, and R56: from
// the invitation to the view, without visiting the school.
func TestAnInvitedPersonSeesTheChildAfterAccepting(t *testing.T) {
	w := newWorld(t)
	mother := w.parent(1, "Петрова", "Ольга", w.masha, w.petya)
	proposal := Proposal{
		Inviter: mother, Children: []ledger.PersonID{w.petya, w.masha, w.petya}, Phone: number(2), FamilyName: " Сидорова ",
	}
	invitation, err := w.invite(proposal, schoolday)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(invitation.Children, []ledger.PersonID{w.masha, w.petya}) || invitation.FamilyName != "Сидорова" ||
		!invitation.ExpiresAt.Equal(schoolday.Add(7*24*time.Hour)) || invitation.State != "pending" {
		t.Errorf("the invitation is %+v", invitation)
	}
	waiting, err := InvitationsTo(t.Context(), w.pool, number(2), schoolday)
	if err != nil {
		t.Fatal(err)
	}
	if len(waiting) != 1 || waiting[0].ID != invitation.ID || waiting[0].InviterGiven != "Ольга" || waiting[0].Children != 2 {
		t.Errorf("in the cabinet waits %+v", waiting)
	}
	later := schoolday.Add(time.Hour)
	a := w.accept(invitation.ID, number(2), Names{Family: "сидорова", Given: "Анна"}, later)
	if a.Outcome != Accepted || !a.New || len(a.Children) != 2 {
		t.Fatalf("accepted: %+v", a)
	}
	for _, child := range []ledger.PersonID{w.masha, w.petya} {
		if got := w.may(a.Representative, child, later); got != Yes {
			t.Errorf("she may not know of person %d: %s", child, got)
		}
	}
	circle, err := Circle(t.Context(), w.pool, w.masha)
	if err != nil {
		t.Fatal(err)
	}
	if len(circle) != 2 || circle[1].Role != Trusted || circle[1].GrantedBy != mother || circle[1].Names.Given != "Анна" ||
		circle[1].Phone != number(2) || !circle[1].Live(later) || circle[1].Live(schoolday) {
		t.Errorf("the mother sees the list %+v", circle)
	}
	if a := w.accept(invitation.ID, number(2), Names{Family: "Сидорова", Given: "Анна"}, later); a.Outcome != NotInvited {
		t.Errorf("accepted twice: %+v", a)
	}
	// D12: removal works at once.
	w.must(func(ctx context.Context, tx pgx.Tx) error {
		return Exclude(ctx, tx, mother, w.masha, a.Representative, Trusted, later.Add(time.Minute))
	})
	if got := w.may(a.Representative, w.masha, later.Add(time.Minute)); got != Removed {
		t.Errorf("after the exclusion: %s", got)
	}
	if got := w.may(a.Representative, w.petya, later.Add(time.Minute)); got != Yes {
		t.Errorf("the other child: %s", got)
	}
}

// D12: who may invite whom, a sentence per row.
func TestWhoMayInvite(t *testing.T) {
	w := newWorld(t)
	mother := w.parent(1, "Петрова", "Ольга", w.masha)
	granny := w.trusted(2, "Сидорова", "Анна", w.masha)
	w.parent(3, "Орлова", "Елена", w.kolya)
	father := w.representative(4, "Петров", "Антон")
	w.exec(`INSERT INTO access.guardian (child_id, representative_id, role, since)
		VALUES ($1, $2, 'legal', '2026-01-01')`, w.petya, father)
	for _, test := range []struct {
		sentence string
		change   func(*Proposal)
		want     error
	}{
		{"a mother invites", func(*Proposal) {}, nil},
		{"a trusted person cannot delegate", func(p *Proposal) { p.Inviter = granny }, ErrNotAllowed},
		{"nobody shares another family's child", func(p *Proposal) { p.Children = []ledger.PersonID{w.kolya} }, ErrNotAllowed},
		{"not even beside the own", func(p *Proposal) { p.Children = []ledger.PersonID{w.masha, w.kolya} }, ErrNotAllowed},
		{
			"a father without any consent sees nothing and shares nothing",
			func(p *Proposal) { p.Inviter, p.Children = father, []ledger.PersonID{w.petya} }, ErrNotAllowed,
		},
		{"somebody who does not exist does not invite", func(p *Proposal) { p.Inviter = 404 }, ErrNotAllowed},
		{"nobody invites himself", func(p *Proposal) { p.Phone = number(1) }, ErrInviteSelf},
		{"no children are no invitation", func(p *Proposal) { p.Children = nil }, ErrNotAllowed},
		{"a right that has ended is not granted", func(p *Proposal) { p.Until = schoolday }, ErrNotAllowed},
		{"an invitation needs a surname", func(p *Proposal) { p.FamilyName = "  " }, ErrNoName},
		{"a surname is one line", func(p *Proposal) { p.FamilyName = "Серов\nBcc: x" }, ErrNoName},
		{"a surname has an end", func(p *Proposal) { p.FamilyName = strings.Repeat("Ы", maxName+1) }, ErrNoName},
	} {
		p := Proposal{Inviter: mother, Children: []ledger.PersonID{w.masha}, Phone: number(9), FamilyName: "Серов"}
		test.change(&p)
		if _, err := w.invite(p, schoolday); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.sentence, err, test.want)
		}
	}
}

// D12: the answer is the same whether or not the phone is anybody's, and no
// child's name is shown before the names have matched.
func TestAnInvitationTellsNothing(t *testing.T) {
	w := newWorld(t)
	mother := w.parent(1, "Петрова", "Ольга", w.masha)
	w.trusted(2, "Сидорова", "Анна", w.masha)
	w.parent(3, "Орлова", "Елена", w.kolya)
	var answers []Invitation
	for _, digits := range []int{2, 3, 44} { // of the same child already, of another family, nobody's
		i, err := w.invite(Proposal{
			Inviter: mother, Children: []ledger.PersonID{w.masha}, Phone: number(digits), FamilyName: "Серов",
		}, schoolday)
		if err != nil {
			t.Fatal(err)
		}
		i.ID, i.Phone = 0, ""
		answers = append(answers, i)
	}
	for _, answer := range answers[1:] {
		if fmt.Sprint(answer) != fmt.Sprint(answers[0]) {
			t.Errorf("the answers differ: %+v and %+v", answers[0], answer)
		}
	}
	listed, err := Invitations(t.Context(), w.pool, mother, schoolday)
	if err != nil || len(listed) != 3 {
		t.Errorf("the mother's list: %+v, %v", listed, err)
	}
}

// D12: 7 days, 10 a day, the same one twice is one.
func TestInvitationsAreLimited(t *testing.T) {
	w := newWorld(t)
	mother := w.parent(1, "Петрова", "Ольга", w.masha)
	proposal := func(digits int) Proposal {
		return Proposal{Inviter: mother, Children: []ledger.PersonID{w.masha}, Phone: number(digits), FamilyName: "Серов"}
	}
	first, err := w.invite(proposal(10), schoolday)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := w.invite(proposal(10), schoolday.Add(time.Hour)); err != nil || again.ID != first.ID {
		t.Errorf("the same invitation twice: %+v, %v", again, err)
	}
	for n := 1; n < 10; n++ {
		if _, err := w.invite(proposal(10+n), schoolday); err != nil {
			t.Fatalf("invitation %d of the day: %v", n+1, err)
		}
	}
	if _, err := w.invite(proposal(20), schoolday.Add(23*time.Hour)); !errors.Is(err, ErrTooManyInvitations) {
		t.Errorf("the eleventh of the day: %v", err)
	}
	if _, err := w.invite(proposal(20), schoolday.Add(24*time.Hour)); err != nil {
		t.Errorf("the first of the next day: %v", err)
	}
	names := Names{Family: "Серов", Given: "Олег"}
	end := first.ExpiresAt
	if a := w.accept(first.ID, number(10), names, end); a.Outcome != NotInvited {
		t.Errorf("accepted after seven days: %+v", a)
	}
	if waiting, err := InvitationsTo(t.Context(), w.pool, number(10), end); err != nil || len(waiting) != 0 {
		t.Errorf("waiting after seven days: %+v, %v", waiting, err)
	}
	if a := w.accept(first.ID, number(10), names, end.Add(-time.Second)); a.Outcome != Accepted {
		t.Errorf("accepted in the last second: %+v", a)
	}
}

// D12: both names must match on acceptance; a sentence per row.
func TestBothNamesMustMatchOnAcceptance(t *testing.T) {
	w := newWorld(t)
	mother := w.parent(1, "Петрова", "Ольга", w.masha)
	w.representative(2, "Семёнова", "Анна")
	for i, test := range []struct {
		sentence      string
		family, given string // as the parent typed them
		phone         int
		names         Names
		want          Outcome
	}{
		{"a newcomer of that surname", "Серов", "", 10, Names{Family: "Серов", Given: "Олег"}, Accepted},
		{"a newcomer of another surname", "Серов", "", 11, Names{Family: "Белов", Given: "Олег"}, NamesDiffer},
		{"a newcomer without a given name", "Серов", "", 12, Names{Family: "Серов"}, NamesDiffer},
		{"a newcomer of another given name", "Серов", "Олег", 13, Names{Family: "Серов", Given: "Пётр"}, NamesDiffer},
		{"somebody known, with ё and е and another case", "СЕМЕНОВА", "анна", 2, Names{Family: "Семёнова", Given: "Анна"}, Accepted},
		{"somebody known who gives another given name", "Семёнова", "", 2, Names{Family: "Семёнова", Given: "Мария"}, NamesDiffer},
		{"somebody known whom the parent calls otherwise", "Белова", "", 2, Names{Family: "Белова", Given: "Анна"}, NamesDiffer},
		{"a hyphen of another kind", "Петрова—Водкина", "", 14, Names{Family: "Петрова-Водкина", Given: "Ия"}, Accepted},
	} {
		invitation, err := w.invite(Proposal{
			Inviter: mother, Children: []ledger.PersonID{w.masha}, Phone: number(test.phone),
			FamilyName: test.family, GivenName: test.given,
		}, schoolday.AddDate(0, 0, i))
		if err != nil {
			t.Fatal(err)
		}
		if a := w.accept(invitation.ID, number(test.phone), test.names, schoolday.AddDate(0, 0, i)); a.Outcome != test.want {
			t.Errorf("%s: %s, want %s", test.sentence, a.Outcome, test.want)
		}
	}
	// Five wrong names end the invitation, also for the right one.
	invitation, err := w.invite(Proposal{
		Inviter: mother, Children: []ledger.PersonID{w.masha}, Phone: number(20), FamilyName: "Серов",
	}, schoolday)
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if a := w.accept(invitation.ID, number(20), Names{Family: "Белов", Given: "Олег"}, schoolday); a.Outcome != NamesDiffer {
			t.Fatalf("a wrong name: %+v", a)
		}
	}
	if a := w.accept(invitation.ID, number(20), Names{Family: "Серов", Given: "Олег"}, schoolday); a.Outcome != NotInvited {
		t.Errorf("the right name after five wrong ones: %+v", a)
	}
}

// Nothing is granted by an invitation that another phone accepts, that was taken
// back or declined, or whose inviter has lost the right meanwhile (R63).
func TestAnInvitationIsVerifiedOnAcceptance(t *testing.T) {
	w := newWorld(t)
	mother := w.parent(1, "Петрова", "Ольга", w.masha, w.petya)
	father := w.parent(2, "Петров", "Антон", w.vanya)
	names := Names{Family: "Серов", Given: "Олег"}
	invite := func(inviter RepresentativeID, digits int, children ...ledger.PersonID) InvitationID {
		t.Helper()
		i, err := w.invite(Proposal{
			Inviter: inviter, Children: children, Phone: number(digits), FamilyName: "Серов",
		}, schoolday)
		if err != nil {
			t.Fatal(err)
		}
		return i.ID
	}
	later := schoolday.Add(time.Hour)
	other := invite(mother, 10, w.masha)
	if a := w.accept(other, number(11), names, later); a.Outcome != NotInvited {
		t.Errorf("accepted by another phone: %+v", a)
	}
	w.must(func(ctx context.Context, tx pgx.Tx) error { return Cancel(ctx, tx, other, father, later) })
	w.must(func(ctx context.Context, tx pgx.Tx) error { return Decline(ctx, tx, other, number(11), later) })
	if a := w.accept(other, number(10), names, later); a.Outcome != Accepted {
		t.Errorf("others' refusals count: %+v", a)
	}
	cancelled, declined := invite(mother, 12, w.masha), invite(mother, 13, w.masha)
	w.must(func(ctx context.Context, tx pgx.Tx) error { return Cancel(ctx, tx, cancelled, mother, later) })
	w.must(func(ctx context.Context, tx pgx.Tx) error { return Decline(ctx, tx, declined, number(13), later) })
	if w.accept(cancelled, number(12), names, later).Outcome != NotInvited ||
		w.accept(declined, number(13), names, later).Outcome != NotInvited {
		t.Error("an invitation that was taken back or declined was accepted")
	}

	part, whole := invite(mother, 14, w.masha, w.petya), invite(father, 15, w.vanya)
	w.must(func(ctx context.Context, tx pgx.Tx) error {
		if err := WithdrawConsent(ctx, tx, father, w.vanya, later); err != nil {
			return err
		}
		return Revoke(ctx, tx, w.masha, mother, Legal, staff, later)
	})
	if a := w.accept(whole, number(15), names, later); a.Outcome != Lapsed {
		t.Errorf("the father's consent is withdrawn: %+v", a)
	}
	if a := w.accept(part, number(14), names, later); a.Outcome != Accepted || !slices.Equal(a.Children, []ledger.PersonID{w.petya}) {
		t.Errorf("the mother may still share one child: %+v", a)
	}
	if got := w.may(w.who(14), w.masha, later); got != NotRepresentative {
		t.Errorf("and the other: %s", got)
	}
}

// A legal representative who accepts is not made a trusted person; an excluded
// one who accepts a new invitation sees again.
func TestAcceptingRenewsAndNeverLowersARight(t *testing.T) {
	w := newWorld(t)
	mother := w.parent(1, "Петрова", "Ольга", w.masha)
	father := w.parent(2, "Петров", "Антон", w.masha)
	granny := w.trusted(3, "Сидорова", "Анна", w.masha)
	w.must(func(ctx context.Context, tx pgx.Tx) error {
		return Exclude(ctx, tx, mother, w.masha, granny, Trusted, schoolday)
	})
	until := schoolday.AddDate(0, 1, 0)
	for _, guest := range []struct {
		digits int
		names  Names
	}{{2, Names{Family: "Петров", Given: "Антон"}}, {3, Names{Family: "Сидорова", Given: "Анна"}}} {
		i, err := w.invite(Proposal{
			Inviter: mother, Children: []ledger.PersonID{w.masha}, Phone: number(guest.digits),
			FamilyName: guest.names.Family, Until: until,
		}, schoolday)
		if err != nil {
			t.Fatal(err)
		}
		if a := w.accept(i.ID, number(guest.digits), guest.names, schoolday.Add(time.Hour)); a.Outcome != Accepted || a.New {
			t.Fatalf("accepted: %+v", a)
		}
	}
	roles := one[string](w, `
		SELECT string_agg(role, ' ' ORDER BY representative_id) FROM access.guardian WHERE child_id = $1`, w.masha)
	if roles != "legal legal trusted" {
		t.Errorf("the roles are %s", roles)
	}
	if w.may(father, w.masha, until) != Yes || w.may(granny, w.masha, schoolday.Add(time.Hour)) != Yes ||
		w.may(granny, w.masha, until) != Expired {
		t.Errorf("the father %s, the grandmother %s and later %s", w.may(father, w.masha, until),
			w.may(granny, w.masha, schoolday.Add(time.Hour)), w.may(granny, w.masha, until))
	}
}

// Ten racing invitations of a parent who has made nine: one more is made.
func TestRacingInvitationsAreCounted(t *testing.T) {
	w := newWorld(t)
	mother := w.parent(1, "Петрова", "Ольга", w.masha)
	proposal := func(digits int) Proposal {
		return Proposal{Inviter: mother, Children: []ledger.PersonID{w.masha}, Phone: number(digits), FamilyName: "Серов"}
	}
	for n := range 9 {
		if _, err := w.invite(proposal(10+n), schoolday); err != nil {
			t.Fatal(err)
		}
	}
	results := make(chan error, 10)
	for n := range 10 {
		go func() {
			_, err := w.invite(proposal(30+n), schoolday)
			results <- err
		}()
	}
	made := 0
	for range 10 {
		if err := <-results; err == nil {
			made++
		} else if !errors.Is(err, ErrTooManyInvitations) {
			t.Error(err)
		}
	}
	if made != 1 {
		t.Errorf("%d more were made, want 1", made)
	}
}

// D12, R58: exclusion and its limits, a sentence per row.
func TestWhoMayExcludeWhom(t *testing.T) {
	w := newWorld(t)
	mother := w.parent(1, "Петрова", "Ольга", w.masha)
	father := w.parent(2, "Петров", "Антон", w.masha)
	granny := w.trusted(3, "Сидорова", "Анна", w.masha)
	uncle := w.trusted(4, "Серов", "Олег", w.masha)
	stranger := w.parent(5, "Орлова", "Елена", w.kolya)
	w.must(func(ctx context.Context, tx pgx.Tx) error {
		return WithdrawConsent(ctx, tx, father, w.masha, schoolday)
	})
	for _, test := range []struct {
		sentence string
		by, whom RepresentativeID
		role     Role
		want     error
	}{
		{"a trusted person does not exclude another", uncle, granny, Trusted, ErrNotAllowed},
		{"another child's mother does not", stranger, granny, Trusted, ErrNotAllowed},
		{"a mother does not exclude the father", mother, father, Legal, ErrNotAllowed},
		{"nor as a trusted person, which he is not", mother, father, Trusted, ErrNoRight},
		{"a trusted person gives up the own right", uncle, uncle, Trusted, nil},
		{"a father who has withdrawn his consent still excludes", father, granny, Trusted, nil},
		{"what is gone cannot be taken away again", mother, granny, Trusted, ErrNoRight},
	} {
		err := w.tx(func(ctx context.Context, tx pgx.Tx) error {
			return Exclude(ctx, tx, test.by, w.masha, test.whom, test.role, schoolday.Add(time.Hour))
		})
		if !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.sentence, err, test.want)
		}
	}
	events := one[string](w, `
		SELECT string_agg(what || ' by ' || actor_kind, ', ' ORDER BY id) FROM access.guardian_event
		 WHERE child_id = $1`, w.masha)
	if events != "revoked by representative, revoked by representative" {
		t.Errorf("the history is %s", events)
	}
}

// D14: a withdrawal stops views and messages at once, for everybody who stood on it.
func TestWithdrawalStopsEverybodyAtOnce(t *testing.T) {
	w := newWorld(t)
	mother := w.parent(1, "Петрова", "Ольга", w.masha, w.petya)
	granny := w.trusted(2, "Сидорова", "Анна", w.masha)
	withdraw := func(who RepresentativeID, child ledger.PersonID, at time.Time) error {
		return w.tx(func(ctx context.Context, tx pgx.Tx) error { return WithdrawConsent(ctx, tx, who, child, at) })
	}
	if err := withdraw(granny, w.masha, schoolday); !errors.Is(err, ErrNotAllowed) {
		t.Errorf("a trusted person withdraws: %v", err)
	}
	if err := withdraw(mother, w.masha, schoolday); err != nil {
		t.Fatal(err)
	}
	if err := withdraw(mother, w.masha, schoolday.Add(time.Hour)); err != nil {
		t.Errorf("withdrawing twice: %v", err)
	}
	if w.may(mother, w.masha, schoolday) != ConsentWithdrawn || w.may(granny, w.masha, schoolday) != ConsentWithdrawn {
		t.Errorf("after it: %s, %s", w.may(mother, w.masha, schoolday), w.may(granny, w.masha, schoolday))
	}
	if w.may(mother, w.petya, schoolday) != Yes {
		t.Errorf("the other child: %s", w.may(mother, w.petya, schoolday))
	}
	consents, err := Consents(t.Context(), w.pool, w.masha)
	if err != nil || len(consents) != 1 || !consents[0].WithdrawnAt.Equal(schoolday) || consents[0].Form != "registry" {
		t.Errorf("the consents are %+v, %v", consents, err)
	}
	children, err := ChildrenOf(t.Context(), w.pool, number(1), schoolday)
	if err != nil || len(children) != 1 || children[0].ID != w.petya {
		t.Errorf("the mother's phone shows %+v, %v", children, err)
	}
}
