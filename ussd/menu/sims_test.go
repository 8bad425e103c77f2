package menu

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"zvonok/access"
	"zvonok/access/phone"
	"zvonok/ussd"
)

// reads is what a phone with a SIM card reads on its first screen.
func (w *world) reads(number phone.Number, imsi string, at time.Time) string {
	w.Helper()
	visit := ussd.Visit{Link: "op", Phone: number, At: at}
	if imsi != "" {
		visit.SIM = access.SIMHash([]byte("key"))(imsi)
	}
	screen, err := w.menu.Show(w.Context(), visit)
	w.must(err)
	return strings.Join(screen.Lines, "|")
}

// ussd.md section 6: "re-confirm guardianship when the operator reports a new IMSI". The same card changes nothing; by
// another the phone reads what a stranger reads, on whatever screen; confirmed, it reads on.
func TestAPhoneWithAnotherSIMCardReadsWhatAStrangerReads(t *testing.T) {
	t.Parallel()
	w := newSchool(t)
	var log strings.Builder
	w.menu.config.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	const imsi, other = "250010000000001", "250010000000002"
	at := time.Now().Add(time.Hour)
	unknown := w.reads(stranger, imsi, at)
	for _, step := range []struct {
		what, imsi string
		known      bool
	}{
		{"the first card", imsi, true},
		{"the same card", imsi, true},
		{"no card reported", "", true},
		{"another card", other, false},
		{"no card reported then", "", false},
		{"the known card again", imsi, true},
		{"and the other", other, false},
	} {
		if got := w.reads(mother, step.imsi, at); (got == unknown) == step.known || got == "" {
			t.Errorf("%s: %q", step.what, got)
		}
	}
	screen, err := w.menu.Show(t.Context(), ussd.Visit{
		Link: "op", Phone: mother, At: at,
		Place: ussd.Place{Name: placeHistory, Arg: int64(w.people["Маша"])},
	})
	if err != nil || strings.Join(screen.Lines, "|") != unknown || !screen.End {
		t.Errorf("a screen under way goes on: %q, %v", screen.Lines, err)
	}
	w.must(access.ConfirmPhone(t.Context(), w.pool, w.phones[mother], access.BySystem("support"), at))
	if got := w.reads(mother, other, at); got == unknown {
		t.Errorf("confirmed, it reads %q", got)
	}
	if strings.Contains(log.String(), imsi) || strings.Contains(log.String(), other) || strings.Contains(log.String(), string(mother)) {
		t.Errorf("the log tells an IMSI or a phone: %s", log.String())
	}
}

// A gateway that reports the number of the node that serves the phone, or anything else that changes, must not lock a
// city out: it is not believed any more, and what followed from it is taken back.
func TestAGatewayThatReportsOtherCardsForManyPhonesIsNotBelieved(t *testing.T) {
	t.Parallel()
	w := newSchool(t)
	at := time.Now().Add(time.Hour)
	w.exec(`UPDATE access.representative SET sim = $1`, []byte(access.SIMHash([]byte("key"))("250010000000001")))
	const crowd = 3 * simsChanged
	for n := range crowd {
		number := phone.Number(fmt.Sprintf("790000001%02d", n))
		w.guardian(number, "Яна", "Орлова", "ru", "legal", "Ира")
		w.exec(`UPDATE access.representative SET sim = $1 WHERE phone = $2`,
			[]byte(access.SIMHash([]byte("key"))(fmt.Sprintf("2500100000001%02d", n))), number)
	}
	unknown := w.reads(stranger, "", at)
	var out []string
	for n := range crowd {
		if w.reads(phone.Number(fmt.Sprintf("790000001%02d", n)), "250019999999999", at) == unknown {
			out = append(out, fmt.Sprint(n))
		}
	}
	if len(out) != simsChanged-1 && len(out) != simsChanged {
		t.Errorf("%d phones of %d were told nothing: %v", len(out), crowd, out)
	}
	for n := range crowd {
		if w.reads(phone.Number(fmt.Sprintf("790000001%02d", n)), "250019999999999", at) == unknown {
			t.Errorf("phone %d stays locked out", n)
		}
	}
	if !w.menu.sims.believes("other", at) || w.menu.sims.believes("op", at) {
		t.Error("it is not the link that reported them that is not believed")
	}
	if !w.menu.sims.believes("op", at.Add(simsDistrust)) {
		t.Error("it is never believed again")
	}
}

// People do change their cards: as many as that among thousands are nothing to take back.
func TestAFewChangedCardsAmongManyAreBelieved(t *testing.T) {
	t.Parallel()
	var w simWatch
	at := time.Now()
	for n := range 10_000 {
		heard := access.Hearing{Representative: 1, Compared: true}
		if n%100 == 99 { // far more than ever change in an hour
			heard.Doubt, heard.Raised = access.NewSIM, true
		}
		if w.note("op", heard, at) != nil {
			t.Fatalf("not believed after %d", n)
		}
	}
}

// Nobody learns whose a phone once was by what is asked: a phone in doubt, a known and an unknown one cost the same
// statement.
func TestHearingAsksTheSameOfEverybody(t *testing.T) {
	t.Parallel()
	pool, tracer := traced(t)
	for _, sql := range []string{
		`INSERT INTO access.representative (phone, family_name, given_name) VALUES ('79000000001', 'A', 'A')`,
		`INSERT INTO access.representative (phone, family_name, given_name, doubt, doubted_at)
		 VALUES ('79000000002', 'B', 'B', 'sim', now() + interval '1 day')`,
	} {
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	menu := plain(pool)
	menu.config.Silence = time.Hour
	var first []string
	for _, number := range []phone.Number{stranger, "79000000001", "79000000002"} {
		var sql []string
		for _, s := range tracer.during(func() {
			visit := ussd.Visit{Link: "op", Phone: number, SIM: access.SIMHash([]byte("key"))("250010000000001"), At: time.Now()}
			if _, err := menu.Show(context.Background(), visit); err != nil {
				t.Error(err)
			}
		}) {
			sql = append(sql, s.sql)
		}
		if first == nil {
			first = sql
		}
		if !slices.Equal(sql, first) || len(sql) < 4 {
			t.Errorf("%s asks\n%s\nand a stranger\n%s", number, strings.Join(sql, "\n"), strings.Join(first, "\n"))
		}
	}
}
