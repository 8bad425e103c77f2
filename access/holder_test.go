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

const imsi, otherIMSI = "250010000000001", "250010000000002"

// hear is Hear that does not fail.
func (w *world) hear(number phone.Number, sim string, silence time.Duration, at time.Time) Hearing {
	w.Helper()
	var octets []byte
	if sim != "" {
		octets = []byte(sim)
	}
	heard, err := Hear(w.Context(), w.pool, Heard{Phone: number, SIM: octets, Silence: silence, At: at})
	if err != nil {
		w.Fatal(err)
	}
	return heard
}

// sees counts the children a phone may see.
func (w *world) sees(number phone.Number, at time.Time) int {
	w.Helper()
	children, err := ChildrenOf(w.Context(), w.pool, number, at)
	if err != nil {
		w.Fatal(err)
	}
	for _, child := range []ledger.PersonID{w.masha, w.petya} {
		if _, err := ChildOf(w.Context(), w.pool, number, child, at); (err == nil) != (len(children) > 0) {
			w.Errorf("child %d is found: %v, of %d", child, err, len(children))
		}
	}
	return len(children)
}

// ussd.md section 6, fault 53: another SIM card stops views by the phone at once; the known one, or the owner's
// confirmation, brings them back.
func TestAnotherSIMCardStopsViewsUntilTheOwnerIsConfirmed(t *testing.T) {
	w := newWorld(t)
	hash := SIMHash([]byte("the key of this deployment"))
	mother := w.parent(1, "Петрова", "Ольга", w.masha, w.petya)
	at := time.Now().Add(time.Hour)

	if h := w.hear(number(1), hash(imsi), 0, at); h.Representative != mother || h.Doubt != "" || h.Compared {
		t.Errorf("the first SIM card heard of: %+v", h)
	}
	if h := w.hear(number(1), hash(imsi), 0, at); h.Doubt != "" || !h.Compared || w.sees(number(1), at) != 2 {
		t.Errorf("the same SIM card: %+v", h)
	}
	if h := w.hear(number(1), "", 0, at); h.Doubt != "" || h.Compared {
		t.Errorf("none reported: %+v", h)
	}
	if h := w.hear(number(1), SIMHash([]byte("another key"))(imsi), 0, at); h.Doubt != "" || h.Compared {
		t.Errorf("a hash by another key tells nothing of the card: %+v", h)
	}
	w.hear(number(1), hash(imsi), 0, at)
	if h := w.hear(number(1), hash(otherIMSI), 0, at); h.Doubt != NewSIM || !h.Raised || w.sees(number(1), at) != 0 {
		t.Errorf("another SIM card: %+v", h)
	}
	if h := w.hear(number(1), hash(otherIMSI), 0, at); h.Doubt != NewSIM || h.Raised {
		t.Errorf("the other SIM card again: %+v", h)
	}
	if h := w.hear(number(1), "", 0, at); h.Doubt != NewSIM {
		t.Errorf("without a report the doubt stays: %+v", h)
	}
	if h := w.hear(number(1), hash(imsi), 0, at); h.Doubt != "" || w.sees(number(1), at) != 2 {
		t.Errorf("the known SIM card is back: %+v", h)
	}
	w.hear(number(1), hash(otherIMSI), 0, at)
	if err := ConfirmPhone(t.Context(), w.pool, mother, BySystem("support"), at); err != nil || w.sees(number(1), at) != 2 {
		t.Errorf("confirmed: %v", err)
	}
	if h := w.hear(number(1), hash(otherIMSI), 0, at); h.Doubt != "" {
		t.Errorf("the SIM card after the confirmation is the known one: %+v", h)
	}
	if h := w.hear(number(1), hash(imsi), 0, at); h.Doubt != NewSIM {
		t.Errorf("and the former one is not any more: %+v", h)
	}
	w.exec(`INSERT INTO access.consent (child_id, representative_id, visits, meals, form, given_on, since, created_at)
		VALUES ($1, $2, true, true, 'Z-2', '2026-11-24', $3, $4)`, w.masha, mother, schoolday, at.Add(time.Minute))
	if h := w.hear(number(1), hash(imsi), 0, at.Add(time.Hour)); h.Doubt != "" || w.sees(number(1), at.Add(time.Hour)) != 2 {
		t.Errorf("put on record by a form since: %+v", h)
	}
	if h := w.hear(number(9), hash(imsi), time.Hour, at); h != (Hearing{}) {
		t.Errorf("nobody's phone: %+v", h)
	}
	if stored := one[string](w, `SELECT string_agg(r::text, ' ') FROM access.representative r`); strings.Contains(stored, imsi) ||
		strings.Contains(stored, otherIMSI) {
		t.Errorf("an IMSI is stored: %s", stored)
	}
}

func TestALongSilencePutsAPhoneInDoubt(t *testing.T) {
	w := newWorld(t)
	mother := w.parent(1, "Петрова", "Ольга", w.masha, w.petya)
	const year = 365 * 24 * time.Hour
	at := time.Now()
	if h := w.hear(number(1), "", year, at.Add(300*24*time.Hour)); h.Doubt != "" {
		t.Errorf("within the year after she was put on record: %+v", h)
	}
	later := at.Add(600 * 24 * time.Hour)
	if h := w.hear(number(1), "", year, later); h.Doubt != "" {
		t.Errorf("within the year after she was heard: %+v", h)
	}
	later = later.Add(year + 24*time.Hour)
	if h := w.hear(number(1), "", 0, later); h.Doubt != "" {
		t.Errorf("the setting is off: %+v", h)
	}
	later = later.Add(year + 24*time.Hour)
	if h := w.hear(number(1), "", year, later); h.Doubt != Silence || !h.Raised || w.sees(number(1), later) != 0 {
		t.Errorf("after more than a year: %+v", h)
	}
	if h := w.hear(number(1), "", year, later.Add(time.Minute)); h.Doubt != Silence {
		t.Errorf("the dial in doubt counts as a sign of the owner: %+v", h)
	}
	if err := ConfirmPhone(t.Context(), w.pool, mother, BySystem("support"), later); err != nil || w.sees(number(1), later) != 2 {
		t.Errorf("confirmed: %v", err)
	}
}

// The guardian who changed her SIM card knows the account number of her child; who got the number by chance does not,
// and has five tries.
func TestAPhoneIsConfirmedByAChildsAccountNumber(t *testing.T) {
	w := newWorld(t)
	w.parent(1, "Петрова", "Ольга", w.masha)
	w.parent(2, "Орлова", "Яна", w.kolya)
	at := time.Now().Add(time.Hour)
	w.must(func(ctx context.Context, tx pgx.Tx) error {
		return ledger.OpenWallets(ctx, tx, []ledger.WalletOpening{
			{Person: w.masha, Number: "00101519"}, {Person: w.kolya, Number: "00101527"},
		})
	})
	try := func(digits int, account string) (right bool) {
		t.Helper()
		w.must(func(ctx context.Context, tx pgx.Tx) (err error) {
			right, err = ConfirmByAccount(ctx, tx, number(digits), account, at)
			return err
		})
		return right
	}
	doubt := func() {
		w.exec(`UPDATE access.representative SET doubt = 'sim', doubted_at = $1, doubt_tries = 0`, at)
	}
	doubt()
	if try(1, "00101527") || try(9, "00101519") {
		t.Error("confirmed by another family's account, or for nobody")
	}
	if !try(1, "00101519") {
		t.Error("not confirmed by the child's account")
	}
	children, err := ChildrenOf(t.Context(), w.pool, number(1), at)
	if err != nil || len(children) != 1 {
		t.Errorf("confirmed, she sees %d children, %v", len(children), err)
	}
	doubt()
	for range confirmTries {
		try(1, "00101527")
	}
	if try(1, "00101519") {
		t.Error("confirmed after five wrong numbers")
	}
	w.exec(`UPDATE access.guardian SET revoked_at = $1`, schoolday)
	doubt()
	if try(1, "00101519") {
		t.Error("confirmed by an account of a child she has no right to any more")
	}
}

// A session that was opened before shows nothing while the phone is in doubt.
func TestASessionOfAPhoneInDoubtIsNobodys(t *testing.T) {
	w := newWorld(t)
	mother := w.parent(1, "Петрова", "Ольга", w.masha)
	token, _ := w.signIn(number(1), schoolday)
	w.exec(`UPDATE access.representative SET doubt = 'silence', doubted_at = $1`, schoolday)
	if s, err := w.session(token, schoolday); err != nil || s.Representative.ID != 0 || s.Representative.Names != (Names{}) {
		t.Errorf("the session is of %+v, %v", s.Representative, err)
	}
	if err := ConfirmPhone(t.Context(), w.pool, mother, BySystem("support"), schoolday); err != nil {
		t.Fatal(err)
	}
	if s, err := w.session(token, schoolday); err != nil || s.Representative.ID != mother {
		t.Errorf("confirmed, the session is of %+v, %v", s.Representative, err)
	}
	if err := ConfirmPhone(t.Context(), w.pool, 1<<40, BySystem("support"), schoolday); !errors.Is(err, ErrNoRepresentative) {
		t.Errorf("nobody's phone is confirmed: %v", err)
	}
}
