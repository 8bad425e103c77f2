package access

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access/phone"
	"zvonok/ledger"
)

// signIn asks for a code, has it drawn and types it.
func (w *world) signIn(number phone.Number, now time.Time) (token Token, session Session) {
	w.Helper()
	_, code, err := w.newCode(number, now)
	if err != nil {
		w.Fatal(err)
	}
	request := one[RequestID](w, `SELECT id::text FROM access.code WHERE phone = $1 ORDER BY created_at DESC LIMIT 1`, number)
	w.must(func(ctx context.Context, tx pgx.Tx) error {
		var verdict CodeVerdict
		var err error
		token, session, verdict, err = OpenSession(ctx, tx, request, code, now)
		if verdict != CodeRight {
			w.Errorf("signing in: %s", verdict)
		}
		return err
	})
	return token, session
}

func (w *world) session(token Token, now time.Time) (Session, error) {
	w.Helper()
	return SessionOf(w.Context(), w.pool, token.Reveal(), now)
}

// D3, ASVS V7: a session ends by itself, by its owner, and with the phone.
func TestASessionEnds(t *testing.T) {
	w := newWorld(t)
	mother := w.parent(1, "Петрова", "Ольга", w.masha)
	token, session := w.signIn(number(1), schoolday)
	if session.Representative.ID != mother || session.Representative.CabinetSince.IsZero() || session.Phone != number(1) {
		t.Errorf("signed in is %+v", session)
	}
	if len(token.Reveal()) < 43 || strings.Contains(token.String(), token.Reveal()) {
		t.Error("the token is short, or prints itself")
	}
	if n := one[int](w, `SELECT count(*) FROM access.session WHERE strpos(encode(token_hash, 'escape'), $1) > 0`, token.Reveal()); n != 0 {
		t.Error("the token stands in the database")
	}
	ended := func(sentence string, token Token, at time.Time) {
		t.Helper()
		if _, err := w.session(token, at); !errors.Is(err, ErrNoSession) {
			t.Errorf("%s: %v", sentence, err)
		}
	}
	ended("another token", token+"x", schoolday)
	ended("without a request for long", token, schoolday.Add(SessionIdle))
	// Used every week it lives on until its absolute end.
	at := schoolday
	for ; at.Before(schoolday.Add(SessionLife)); at = at.Add(SessionIdle / 2) {
		if s, err := w.session(token, at); err != nil || s.Representative.Names.Given != "Ольга" {
			t.Fatalf("after %s: %+v, %v", at.Sub(schoolday), s, err)
		}
	}
	ended("at its absolute end", token, schoolday.Add(SessionLife))

	token, _ = w.signIn(number(1), at)
	if err := EndSession(t.Context(), w.pool, token.Reveal()); err != nil {
		t.Fatal(err)
	}
	ended("after signing out", token, at)

	first, _ := w.signIn(number(1), at)
	second, _ := w.signIn(number(1), at.Add(time.Second))
	if first == second {
		t.Error("two sessions have one token")
	}
	at = at.Add(CodeLife)
	w.must(func(ctx context.Context, tx pgx.Tx) error {
		change, err := StartPhoneChange(ctx, tx, mother, number(2), at)
		if err != nil {
			return err
		}
		_, err = FinishPhoneChange(ctx, tx, mother, change.ID, change.OldCode, change.NewCode, at)
		return err
	})
	ended("after the change of phone", first, at)
	ended("after the change of phone", second, at)
}

// A phone opens at most twenty sessions; the one-and-twentieth ends the oldest.
func TestAPhoneHasTwentySessionsAtMost(t *testing.T) {
	w := newWorld(t)
	w.parent(1, "Петрова", "Ольга", w.masha)
	at := schoolday
	first, _ := w.signIn(number(1), at)
	for range 20 {
		at = at.Add(3 * time.Hour)
		w.signIn(number(1), at)
	}
	if n := one[int](w, `SELECT count(*) FROM access.session`); n != 20 {
		t.Errorf("%d sessions", n)
	}
	if _, err := w.session(first, at); !errors.Is(err, ErrNoSession) {
		t.Errorf("the oldest lives: %v", err)
	}
}

// R27: the phone of the application opens the cabinet, and no other phone does;
// R57: somebody invited may come in and sees nothing yet.
func TestWhoIsExpected(t *testing.T) {
	w := newWorld(t)
	mother := w.parent(1, "Петрова", "Ольга", w.masha)
	if _, err := w.invite(Proposal{Inviter: mother, Children: []ledger.PersonID{w.masha}, Phone: number(2), FamilyName: "Серова"}, schoolday); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		sentence string
		digits   int
		at       time.Time
		want     bool
	}{
		{"a parent", 1, schoolday, true},
		{"somebody invited", 2, schoolday, true},
		{"somebody whose invitation has expired", 2, schoolday.Add(InvitationLife), false},
		{"a stranger", 3, schoolday, false},
	} {
		if got, err := Expected(t.Context(), w.pool, number(test.digits), test.at); err != nil || got != test.want {
			t.Errorf("%s: %t, %v", test.sentence, got, err)
		}
	}
	_, session := w.signIn(number(2), schoolday)
	if session.Representative.ID != 0 {
		t.Errorf("who has not accepted is %+v", session)
	}
	if _, err := ChildOf(t.Context(), w.pool, number(2), w.masha, schoolday); !errors.Is(err, ErrNoChild) {
		t.Errorf("and sees the child: %v", err)
	}
}

// A code is drawn when it is sent, once; before that none is right.
func TestACodeIsDrawnOnce(t *testing.T) {
	w := newWorld(t)
	var request RequestID
	w.must(func(ctx context.Context, tx pgx.Tx) (err error) {
		request, err = AskCode(ctx, tx, SignIn, number(1), schoolday)
		return err
	})
	for _, code := range []string{"", "000000"} {
		if _, verdict := w.useCode(SignIn, request, code, schoolday); verdict != CodeWrong {
			t.Errorf("before it is drawn %q is %s", code, verdict)
		}
	}
	draw := func(at time.Time) (code string, drawn bool) {
		w.must(func(ctx context.Context, tx pgx.Tx) (err error) {
			_, code, drawn, err = DrawCode(ctx, tx, request, at)
			return err
		})
		return code, drawn
	}
	if _, drawn := draw(schoolday.Add(CodeLife)); drawn {
		t.Error("a code is drawn for a request that has expired")
	}
	code, drawn := draw(schoolday)
	if !drawn {
		t.Fatal("no code is drawn")
	}
	if _, again := draw(schoolday); again {
		t.Error("a second code is drawn for one request")
	}
	if _, verdict := w.useCode(SignIn, request, code, schoolday); verdict != CodeRight {
		t.Errorf("the code that was drawn is %s", verdict)
	}
}

// A mailbox is written to when it has answered, and by nobody else's code.
func TestAMailboxIsConfirmedByItsCode(t *testing.T) {
	w := newWorld(t)
	mother := w.parent(1, "Петрова", "Ольга", w.masha)
	stranger := w.parent(2, "Орлова", "Елена", w.kolya)
	start := func(email string) (c MailboxChange, err error) {
		err = w.tx(func(ctx context.Context, tx pgx.Tx) error {
			c, err = StartMailboxChange(ctx, tx, mother, email, schoolday)
			return err
		})
		return c, err
	}
	for _, bad := range []string{"", "mother", "mother@", "a@b\r\nBcc: c@d.org", "a b@example.org"} {
		if _, err := start(bad); !errors.Is(err, ErrMailbox) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	change, err := start("mother@example.org")
	if err != nil {
		t.Fatal(err)
	}
	mailboxOf := func() string { return one[string](w, `SELECT email FROM access.representative WHERE id = $1`, mother) }
	finish := func(who RepresentativeID, code string) (verdict CodeVerdict) {
		w.must(func(ctx context.Context, tx pgx.Tx) (err error) {
			verdict, err = FinishMailboxChange(ctx, tx, who, change.ID, code, schoolday)
			return err
		})
		return verdict
	}
	if v := finish(stranger, change.Code); v != CodeUnknown {
		t.Errorf("another person: %s", v)
	}
	if v := finish(mother, wrong(change.Code)); v != CodeWrong || mailboxOf() != "" {
		t.Errorf("a wrong code: %s, the mailbox is %q", v, mailboxOf())
	}
	if pending, err := MailboxPending(t.Context(), w.pool, mother, schoolday); err != nil || pending != "mother@example.org" {
		t.Errorf("waiting is %q, %v", pending, err)
	}
	if v := finish(mother, change.Code); v != CodeRight || mailboxOf() != "mother@example.org" {
		t.Errorf("the right code: %s, the mailbox is %q", v, mailboxOf())
	}
	if pending, _ := MailboxPending(t.Context(), w.pool, mother, schoolday); pending != "" {
		t.Errorf("still waiting is %q", pending)
	}
	w.must(func(ctx context.Context, tx pgx.Tx) error { return DropMailbox(ctx, tx, mother, schoolday) })
	if mailboxOf() != "" {
		t.Error("the mailbox is kept")
	}
}
