package notice

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/access/phone"
	"zvonok/gateway/carrier"
	"zvonok/gateway/delivery"
	"zvonok/gateway/subscription"
	"zvonok/templates"
)

// says brings texts from a phone to the Replier.
func (b *bench) says(from phone.Number, texts ...string) {
	b.t.Helper()
	desk := delivery.NewDesk(b.jobs, func(phone.Number) []string { return []string{"box"} })
	r := NewReplier(b.pool, desk, func() *templates.Texts { return b.texts }, func() time.Time { return b.now })
	r.Silence = b.silence
	var batch []carrier.MO
	for _, text := range texts {
		batch = append(batch, carrier.MO{From: from, Text: text})
	}
	if err := r.Take(b.t.Context(), batch); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) optedOut(phone string) bool {
	b.t.Helper()
	health, err := delivery.HealthOf(b.t.Context(), b.pool, subscription.SMS, []string{phone})
	if err != nil {
		b.t.Fatal(err)
	}
	return health[phone].OptedOut
}

// Pain 24: keywords by MO.
func TestStopEndsSMSAtOnceWithOneConfirmationAndStartResumes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.says("79000000002", "стоп", "СТОП", "STOP!!!") // an operator may bring a text again
	if !b.optedOut("79000000002") {
		t.Error("the phone is not opted out")
	}
	b.tell(b.pass("b1", morning, "masha"))
	b.says("79000000002", "старт")
	if b.optedOut("79000000002") {
		t.Error("the phone is still opted out")
	}
	var got []string
	for _, m := range b.sent() {
		if strings.HasPrefix(m, "sms 79000000002") {
			got = append(got, m)
		}
	}
	expect(t, "messages", got,
		"sms 79000000002 SMS otklyucheny. Vklyuchit snova: otpravte START",
		"sms 79000000002 SMS vklyucheny. Otklyuchit: otpravte STOP")
}

// STOP holds for what waits as well: for the end of the quiet hours, for a sibling,
// for an operator that is away. Answers that were asked for still come.
func TestStopEndsWhatWaitsToBeSent(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.order("79000000001", "sms", "email")
	b.exec(`DELETE FROM subscription.subscription WHERE channel = 'email'`)
	b.tell(b.pass("b1", morning, "masha"))
	b.says("79000000001", "Баланс", "стоп")
	rows, err := b.pool.Query(t.Context(), `
		SELECT address || ' ' || topic || ' ' || state || coalesce(' ' || reason, '') FROM delivery.delivery ORDER BY id`)
	if err != nil {
		t.Fatal(err)
	}
	states, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "messages", states, "79000000001 pass failed opted_out", "79000000002 pass queued", "79000000003 pass queued",
		"79000000001 reply queued", "79000000001 reply queued")
}

func TestAnyOtherTextIsAnsweredWithTheBalanceTenTimesADay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.visit("petya", at(8, 15), time.Time{})
	for range 12 {
		b.says("79000000001", "Баланс")
	}
	got := b.sent()
	if len(got) != 10 || got[0] != "sms 79000000001 Баланс: Маша П. 0,00 р, Петя П. 0,00 р" {
		t.Errorf("%d answers: %q", len(got), got)
	}
	b.now = b.now.AddDate(0, 0, 1)
	b.says("79000000001", "?")
	if n := len(b.sent()); n != 11 {
		t.Errorf("%d answers with the next day's", n)
	}
	// The parents read in the access log who looked, by which way (D14).
	views, _, err := access.Views(t.Context(), b.pool, b.people["petya"], access.ViewPage{}, 100)
	if err != nil {
		t.Fatal(err)
	}
	if len(views) != 11 || views[0].Channel != access.Reply || views[0].What != "balance" {
		t.Errorf("%d views are logged: %+v", len(views), views)
	}
}

// notices.md, Replies: the ten answers a day are of the phone's day, in the zone of
// its children's organisation.
func TestTheDayOfAnswersIsThatOfTheChildrensOrganisation(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.now = time.Date(2026, 11, 23, 20, 59, 0, 0, time.UTC) // the last minute of Moscow's day
	for range 11 {
		b.says("79000000001", "Баланс")
	}
	b.says("79000000099", "Баланс", "Баланс") // a stranger has one, of the same day
	if n := len(b.sent()); n != 11 {
		t.Errorf("%d answers, want ten and one", n)
	}
	b.now = b.now.Add(time.Minute)
	b.says("79000000001", "Баланс")
	b.says("79000000099", "Баланс")
	if n := len(b.sent()); n != 13 {
		t.Errorf("%d answers after midnight, want 13", n)
	}
	b.now = time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC) // no new day in Moscow
	b.says("79000000099", "Баланс")
	if n := len(b.sent()); n != 13 {
		t.Errorf("%d answers after midnight of UTC, want 13", n)
	}
}

func TestAnAnswerTellsWhatTheConsentCovers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`UPDATE access.consent SET meals = false`)
	b.visit("masha", at(8, 15), time.Time{})
	b.now = at(9, 0)
	b.says("79000000003", "balance")
	b.says("79000000001", "баланс")
	expect(t, "messages", b.sent(),
		"sms 79000000003 Masha P.: entry 08:15", "sms 79000000001 Баланс: Маша П. нет данных, Петя П. нет данных")
}

func TestAStrangerIsAnsweredOnceADayAndLearnsNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for range 5 {
		b.says("79009999999", "Маша Петрова")
	}
	b.says("79000000004", "баланс") // a mother whose consent has run out is a stranger, too
	b.says("", "Баланс")            // a name or a short code
	expect(t, "messages", b.sent(),
		"sms 79009999999 Для этого номера сведений нет. Обратитесь в школу",
		"sms 79000000004 Для этого номера сведений нет. Обратитесь в школу")
}

// Fault 53: a number that the operator gave up and that writes again may be another's: neither its questions nor its
// START bring news of a child, until the parent is on record anew.
func TestARecycledNumberIsToldNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`INSERT INTO delivery.address (channel, address, refusals, suppressed_at, reason)
		VALUES ('sms', '79000000002', 2, clock_timestamp(), 'refused')`)
	b.says("79000000002", "сколько денег?", "старт")
	b.tell(b.pass("b1", morning, "masha"))
	var got []string
	for _, m := range b.sent() {
		if strings.HasPrefix(m, "sms 79000000002") {
			got = append(got, m)
		}
	}
	unknown := "sms 79000000002 " + templates.Unknown{}.SMS(templates.Style{Language: templates.RU, Latin: true})
	for _, m := range got {
		if m != unknown {
			t.Errorf("the new owner of the number reads %q", m)
		}
	}
	if len(got) == 0 {
		t.Error("the new owner of the number is not answered")
	}
	var doubt string
	if err := b.pool.QueryRow(t.Context(), `SELECT coalesce(doubt, '') FROM access.representative WHERE phone = '79000000002'`).Scan(&doubt); err != nil || doubt != "dead" {
		t.Errorf("the cabinet is to know it too, but the doubt is %q, %v", doubt, err)
	}
	b.exec(`INSERT INTO access.consent (child_id, representative_id, visits, meals, form, given_on, since)
		SELECT c.child_id, c.representative_id, true, true, 'Z-2', c.given_on, c.since FROM access.consent c
		JOIN access.representative r ON r.id = c.representative_id WHERE r.phone = '79000000002' LIMIT 1`)
	b.says("79000000002", "старт")
	var suppressed bool
	if err := b.pool.QueryRow(t.Context(), `
		SELECT suppressed_at IS NOT NULL FROM delivery.address WHERE address = '79000000002'`).Scan(&suppressed); err != nil || suppressed {
		t.Errorf("after a new form START does not help: %v, %v", suppressed, err)
	}
}

// What waits for a phone does not leave any more once it is heard again after a long silence.
func TestADoubtEndsWhatWaitsToBeSent(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`DELETE FROM subscription.subscription WHERE channel = 'email'`)
	b.silence = 365 * 24 * time.Hour
	b.exec(`UPDATE access.representative SET heard_at = now() - interval '2 years', created_at = now() - interval '3 years'`)
	b.exec(`UPDATE access.guardian SET created_at = now() - interval '3 years'`)
	b.exec(`UPDATE access.consent SET created_at = now() - interval '3 years'`)
	b.tell(b.pass("b1", morning, "masha"))
	b.says("79000000001", "Баланс")
	rows, err := b.pool.Query(t.Context(), `
		SELECT address || ' ' || topic || ' ' || state || coalesce(' ' || reason, '') FROM delivery.delivery ORDER BY id`)
	if err != nil {
		t.Fatal(err)
	}
	states, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "messages", states, "79000000001 pass failed unconfirmed", "79000000002 pass queued", "79000000003 pass queued",
		"79000000001 reply queued")
}

// ussd.md section 6: a phone with another SIM card, or that was silent for long, gets neither answers nor news until its
// owner is confirmed; START does not bring them back, letters go on.
func TestAPhoneInDoubtIsToldNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`UPDATE access.representative SET doubt = 'sim', doubted_at = now() + interval '1 day' WHERE phone = '79000000002'`)
	b.exec(`UPDATE access.representative SET email = 'mother@example.org' WHERE phone = '79000000002'`)
	b.exec(`INSERT INTO subscription.subscription (child_id, topic, mode, representative_id, channel)
		SELECT p.id, 'pass', 'now', r.id, 'email' FROM ledger.person p, access.representative r
		WHERE p.code = 'masha' AND r.phone = '79000000002' ON CONFLICT DO NOTHING`)
	b.says("79000000002", "сколько денег?", "старт")
	b.tell(b.pass("b1", morning, "masha"))
	unknown := "sms 79000000002 " + templates.Unknown{}.SMS(templates.Style{Language: templates.RU, Latin: true})
	answers, letters := 0, 0
	for _, m := range b.sent() {
		switch {
		case m == unknown:
			answers++
		case strings.HasPrefix(m, "sms 79000000002"):
			t.Errorf("the holder of the phone reads %q", m)
		case strings.HasPrefix(m, "email mother@example.org"):
			letters++
		}
	}
	if answers == 0 || letters == 0 {
		t.Errorf("%d answers and %d letters among %q", answers, letters, b.sent())
	}
}

// smpp.md, Session: parts that were stored before the rest of their text came go with the answer, and of two processes
// that read such a text one answers.
func TestATextReadFromStoredPartsIsAnsweredOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	key := carrier.TextKey{Operator: "box", Sender: "79000000001", Recipient: "377", Reference: 9, Count: 2}
	_, err := delivery.StoreParts(t.Context(), b.pool, []carrier.TextPart{{TextKey: key, Number: 1, ReceivedAt: b.now}})
	if err != nil {
		t.Fatal(err)
	}
	desk := delivery.NewDesk(b.jobs, func(phone.Number) []string { return []string{"box"} })
	r := NewReplier(b.pool, desk, func() *templates.Texts { return b.texts }, func() time.Time { return b.now })
	for range 2 {
		if err := r.Take(t.Context(), []carrier.MO{{From: "79000000001", Text: "баланс", Parts: key, Claimed: true}}); err != nil {
			t.Fatal(err)
		}
	}
	if got := b.sent(); len(got) != 1 {
		t.Errorf("answers %q, want one", got)
	}
}
