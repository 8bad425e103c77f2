package access

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access/phone"
)

func (w *world) newCode(number phone.Number, now time.Time) (request RequestID, code string, err error) {
	w.Helper()
	err = w.tx(func(ctx context.Context, tx pgx.Tx) error {
		request, code, err = NewCode(ctx, tx, SignIn, number, now)
		return err
	})
	return request, code, err
}

func (w *world) useCode(purpose Purpose, request RequestID, code string, now time.Time) (
	number phone.Number, verdict CodeVerdict,
) {
	w.Helper()
	w.must(func(ctx context.Context, tx pgx.Tx) (err error) {
		number, verdict, err = UseCode(ctx, tx, purpose, request, code, now)
		return err
	})
	return number, verdict
}

// wrong is a code that is not this one.
func wrong(code string) string {
	if code == "000000" {
		return "000001"
	}
	return "000000"
}

// Issue 6, item 8: single use, 10 minutes, 5 tries, bound to the request and the purpose.
func TestAOneTimeCodeIsGoodOnce(t *testing.T) {
	w := newWorld(t)
	request, code, err := w.newCode(number(1), schoolday)
	if err != nil || len(code) != 6 {
		t.Fatalf("code of %d digits, %v", len(code), err)
	}
	other, otherCode, err := w.newCode(number(2), schoolday)
	if err != nil {
		t.Fatal(err)
	}
	expect := func(sentence string, purpose Purpose, request RequestID, code string, at time.Time, want CodeVerdict) {
		t.Helper()
		got, verdict := w.useCode(purpose, request, code, at)
		if verdict != want || (got == number(1)) != (want == CodeRight) {
			t.Errorf("%s: %s for %q, want %s", sentence, verdict, got, want)
		}
	}
	soon, end := schoolday.Add(time.Minute), schoolday.Add(CodeLife)
	expect("a wrong code", SignIn, request, wrong(code), soon, CodeWrong)
	expect("another purpose", newPhone, request, code, soon, CodeUnknown)
	if code != otherCode {
		expect("another request's code", SignIn, other, code, soon, CodeWrong)
	}
	expect("no request", SignIn, "9b2f6a3e-6b0e-4a0e-8a52-0d5a2a6f1c11", code, soon, CodeUnknown)
	expect("no name of a request", SignIn, "'; DROP TABLE", code, soon, CodeUnknown)
	expect("too late", SignIn, request, code, end, CodeExpired)
	expect("the right code in the last second", SignIn, request, code, end.Add(-time.Second), CodeRight)
	expect("once more", SignIn, request, code, soon, CodeUsed)

	for range 5 {
		w.useCode(SignIn, other, wrong(otherCode), soon)
	}
	if _, verdict := w.useCode(SignIn, other, otherCode, soon); verdict != CodeExhausted {
		t.Errorf("the right code after five wrong ones: %s", verdict)
	}
	if n := one[int](w, `SELECT count(*) FROM access.code WHERE encode(hash, 'escape') LIKE '%' || $1 || '%'`, code); n != 0 {
		t.Error("the code stands in the database")
	}
}

func TestCodesToOnePhoneAreLimited(t *testing.T) {
	w := newWorld(t)
	at := schoolday
	for n := range 10 {
		if n > 0 && n%3 == 0 {
			if _, _, err := w.newCode(number(1), at); !errors.Is(err, ErrTooManyCodes) {
				t.Fatalf("a fourth code within ten minutes: %v", err)
			}
			at = at.Add(CodeLife)
		}
		if _, _, err := w.newCode(number(1), at); err != nil {
			t.Fatalf("code %d: %v", n+1, err)
		}
	}
	at = at.Add(time.Hour)
	if _, _, err := w.newCode(number(1), at); !errors.Is(err, ErrTooManyCodes) {
		t.Errorf("an eleventh code in a day: %v", err)
	}
	if _, _, err := w.newCode(number(2), at); err != nil {
		t.Errorf("another phone: %v", err)
	}
	if _, _, err := w.newCode(number(1), at.Add(24*time.Hour)); err != nil {
		t.Errorf("the next day: %v", err)
	}
}

// Two people type the same code at once: one gets in.
func TestARacedCodeIsSpentOnce(t *testing.T) {
	w := newWorld(t)
	request, code, err := w.newCode(number(1), schoolday)
	if err != nil {
		t.Fatal(err)
	}
	verdicts := make(chan CodeVerdict, 4)
	for range 4 {
		go func() {
			_, verdict := w.useCode(SignIn, request, code, schoolday)
			verdicts <- verdict
		}()
	}
	right := 0
	for range 4 {
		if <-verdicts == CodeRight {
			right++
		}
	}
	if right != 1 {
		t.Errorf("the code was right %d times", right)
	}
}

// R27: the phone of the cabinet is the phone of the application, or there is no cabinet.
func TestACabinetIsFoundByItsPhone(t *testing.T) {
	w := newWorld(t)
	mother := w.parent(1, "Петрова", "Ольга", w.masha)
	open := func(digits int, at time.Time) (r Representative, err error) {
		err = w.tx(func(ctx context.Context, tx pgx.Tx) error {
			r, err = OpenCabinet(ctx, tx, number(digits), at)
			return err
		})
		return r, err
	}
	r, err := open(1, schoolday)
	if err != nil || r.ID != mother || !r.CabinetSince.Equal(schoolday) {
		t.Errorf("the mother's phone opens %+v, %v", r, err)
	}
	if r, err := open(1, schoolday.Add(time.Hour)); err != nil || !r.CabinetSince.Equal(schoolday) {
		t.Errorf("the second time: %+v, %v", r, err)
	}
	if _, err := open(2, schoolday); !errors.Is(err, ErrNoRepresentative) {
		t.Errorf("another phone: %v", err)
	}
}

// R28: a change of phone needs the codes of both phones; rights stay with the person.
func TestAPhoneIsChangedByTheCodesOfBoth(t *testing.T) {
	w := newWorld(t)
	mother := w.parent(1, "Петрова", "Ольга", w.masha)
	stranger := w.parent(3, "Орлова", "Елена", w.kolya)
	start := func(to phone.Number, at time.Time) (c PhoneChange, err error) {
		err = w.tx(func(ctx context.Context, tx pgx.Tx) error {
			c, err = StartPhoneChange(ctx, tx, mother, to, at)
			return err
		})
		return c, err
	}
	finish := func(who RepresentativeID, c PhoneChange, oldCode, newCode string, at time.Time) (verdict CodeVerdict, err error) {
		err = w.tx(func(ctx context.Context, tx pgx.Tx) error {
			var refused error
			if verdict, refused = FinishPhoneChange(ctx, tx, who, c.ID, oldCode, newCode, at); !errors.Is(refused, ErrPhoneTaken) {
				return refused
			}
			verdict = "taken"
			return nil
		})
		return verdict, err
	}
	if _, err := start(number(1), schoolday); !errors.Is(err, ErrSamePhone) {
		t.Errorf("a change to the phone one has: %v", err)
	}
	change, err := start(number(2), schoolday)
	if err != nil {
		t.Fatal(err)
	}
	if change.OldPhone != number(1) || change.NewPhone != number(2) {
		t.Errorf("the codes go to %s and %s", change.OldPhone.Masked(), change.NewPhone.Masked())
	}
	for _, test := range []struct {
		sentence         string
		who              RepresentativeID
		oldCode, newCode string
		want             CodeVerdict
	}{
		{"the new phone's code alone", mother, wrong(change.OldCode), change.NewCode, CodeWrong},
		{"the old phone's code alone", mother, change.OldCode, wrong(change.NewCode), CodeWrong},
		{"another person", stranger, change.OldCode, change.NewCode, CodeUnknown},
		{"both codes", mother, change.OldCode, change.NewCode, CodeRight},
		{"both codes again", mother, change.OldCode, change.NewCode, CodeUsed},
	} {
		got, err := finish(test.who, change, test.oldCode, test.newCode, schoolday.Add(time.Minute))
		if err != nil || got != test.want {
			t.Errorf("%s: %s, %v, want %s", test.sentence, got, err, test.want)
		}
	}
	if children, err := ChildrenOf(t.Context(), w.pool, number(2), schoolday); err != nil || len(children) != 1 {
		t.Errorf("the new phone shows %+v, %v", children, err)
	}
	if children, err := ChildrenOf(t.Context(), w.pool, number(1), schoolday); err != nil || len(children) != 0 {
		t.Errorf("the old phone shows %+v, %v", children, err)
	}
	// Whether a phone is somebody's is told only to who holds it.
	at := schoolday.Add(time.Hour)
	taken, err := start(number(3), at)
	if err != nil {
		t.Fatalf("starting a change to somebody's phone: %v", err)
	}
	if got, err := finish(mother, taken, taken.OldCode, wrong(taken.NewCode), at); err != nil || got != CodeWrong {
		t.Errorf("without that phone's code: %s, %v", got, err)
	}
	if got, err := finish(mother, taken, taken.OldCode, taken.NewCode, at); err != nil || got != "taken" {
		t.Errorf("with it: %s, %v", got, err)
	}
	if w.who(3) != stranger {
		t.Error("the phone changed hands")
	}
}

// Two people swap or chase phones at the same time: each phone ends with one person.
func TestRacingChangesOfPhoneKeepPhonesUnique(t *testing.T) {
	w := newWorld(t)
	people := make([]RepresentativeID, 4)
	changes := make([]PhoneChange, 4)
	for i := range people {
		people[i] = w.representative(i+1, "Петрова", fmt.Sprint("Анна", i))
	}
	for i, who := range people {
		w.must(func(ctx context.Context, tx pgx.Tx) (err error) {
			changes[i], err = StartPhoneChange(ctx, tx, who, number(50+i/2), schoolday)
			return err
		})
	}
	errs := make(chan error, 4)
	for i, who := range people {
		go func() {
			errs <- w.tx(func(ctx context.Context, tx pgx.Tx) error {
				_, err := FinishPhoneChange(ctx, tx, who, changes[i].ID, changes[i].OldCode, changes[i].NewCode, schoolday)
				return err
			})
		}()
	}
	done := 0
	for range 4 {
		if err := <-errs; err == nil {
			done++
		} else if !errors.Is(err, ErrPhoneTaken) {
			t.Error(err)
		}
	}
	if done != 2 {
		t.Errorf("%d changes were made, want 2", done)
	}
}
