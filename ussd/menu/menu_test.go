package menu

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"zvonok/access"
	"zvonok/access/phone"
	"zvonok/gateway/subscription"
	"zvonok/ledger"
	"zvonok/ussd"
)

// D14: every view of a child's data is in the access log, which the parents can read.
func TestEveryViewIsLogged(t *testing.T) {
	t.Parallel()
	w := newSchool(t)
	masha := w.people["Маша"]
	show := func(number phone.Number, place string, path ...string) {
		t.Helper()
		v := ussd.Visit{Phone: number, Path: path, At: now}
		if place != "" {
			v.Place = ussd.Place{Name: place, Arg: int64(masha)}
		}
		if _, err := w.menu.Show(t.Context(), v); err != nil {
			t.Fatal(err)
		}
	}
	show(father, "")
	show(nanny, placeVisits)
	show(nanny, placeMeals)
	show(nanny, placeHistory)
	show(nanny, placeTopUp)
	show(nanny, placeAccess)
	show(nanny, "", "1")
	show(nanny, "", "2")
	show(nanny, "", "4")
	show(stranger, "")
	show(nanny, placeLanguage) // says nothing of the child
	show(stranger, placeVisits)

	views := w.menu.views
	w.must(views.flush(t.Context()))
	logged, _, err := access.Views(t.Context(), w.pool, masha, access.ViewPage{}, 100)
	w.must(err)
	count := map[string]int{}
	for _, v := range logged {
		if v.Channel != access.USSD || !v.At.Equal(now) {
			t.Errorf("logged as %+v", v)
		}
		count[v.Who.ID+" "+v.What]++
	}
	father, nanny := access.ByRepresentative(w.phones[father]).ID, access.ByRepresentative(w.phones[nanny]).ID
	for _, want := range []string{
		father + " summary", nanny + " visits", nanny + " meals", nanny + " movements", nanny + " account", nanny + " access",
		nanny + " balance", nanny + " visit", nanny + " by sms",
	} {
		if count[want] != 1 {
			t.Errorf("%q is logged %d times: %v", want, count[want], count)
		}
		delete(count, want)
	}
	if len(count) > 0 {
		t.Errorf("logged besides: %v", count)
	}
	logged, _, err = access.Views(t.Context(), w.pool, w.people["Петя"], access.ViewPage{}, 100)
	if err != nil || len(logged) != 1 {
		t.Errorf("the other child of the father is logged %d times, %v", len(logged), err)
	}
}

func TestNothingIsShownThatCannotBeLogged(t *testing.T) {
	t.Parallel()
	w := newSchool(t)
	w.menu.views.writing.Lock()
	defer w.menu.views.writing.Unlock()
	w.menu.views.mu.Lock()
	w.menu.views.waiting = make([]access.View, viewsKept)
	w.menu.views.mu.Unlock()
	_, err := w.menu.Show(t.Context(), ussd.Visit{Phone: mother, At: now})
	if !errors.Is(err, errViewsFull) {
		t.Errorf("with a full log a screen is %v", err)
	}
	w.menu.views.mu.Lock()
	w.menu.views.waiting = nil
	w.menu.views.mu.Unlock()
}

func TestViewsThatWereNotWrittenWaitAndAreWrittenAtTheEnd(t *testing.T) {
	t.Parallel()
	w := newSchool(t)
	log := newViewLog(w.menu.config)
	view := access.View{Who: access.BySystem("test"), Child: w.people["Маша"], What: "balance", Channel: access.USSD, At: now}
	w.must(log.add(t.Context(), []access.View{view}))
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := log.flush(gone); err == nil {
		t.Error("written without a connection")
	}
	if len(log.waiting) != 1 {
		t.Fatalf("%d views wait", len(log.waiting))
	}
	log.run(gone) // ends at once, and writes first
	w.must(log.add(t.Context(), []access.View{view}))
	if got := one[int](w, `SELECT count(*) FROM access.view_log WHERE actor_id = 'test'`); got != 2 {
		t.Errorf("%d views were written", got)
	}
}

// R52, D14: switching SMS off takes the SMS wishes and leaves the others; on gives what a newcomer has.
func TestSMSAreSwitchedWithoutTouchingOtherChannels(t *testing.T) {
	t.Parallel()
	w := newSchool(t)
	masha := w.people["Маша"]
	show := func(place string) {
		t.Helper()
		v := ussd.Visit{Phone: mother, Place: ussd.Place{Name: place, Arg: int64(masha)}, At: now}
		if _, err := w.menu.Show(t.Context(), v); err != nil {
			t.Fatal(err)
		}
	}
	email := subscription.Subscription{Topic: subscription.Pass, Channel: subscription.Email, Mode: subscription.Day}
	check := func(what string, want ...subscription.Subscription) {
		t.Helper()
		got, err := subscription.Of(t.Context(), w.pool, w.phones[mother], masha)
		w.must(err)
		if len(got) != len(want) {
			t.Fatalf("%s: %v", what, got)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("%s: %v", what, got)
			}
		}
	}
	show(placeSMSOff)
	show(placeSMSOff) // a key twice
	check("off", email)
	show(placeSMSOn)
	show(placeSMSOn)
	check("on", email,
		subscription.Subscription{Topic: subscription.Pass, Channel: subscription.SMS, Mode: subscription.Now},
		subscription.Subscription{Topic: subscription.TopUp, Channel: subscription.SMS, Mode: subscription.Now})
}

func TestAnothersChildIsNotReachedByItsPlace(t *testing.T) {
	t.Parallel()
	w := newSchool(t)
	for _, place := range []string{
		placeChild, placeMeals, placeVisits, placeSMS, placeSMSOn, placeSMSOff, placeHistory, placeTopUp, placeAccess,
	} {
		v := ussd.Visit{Phone: mother, Place: ussd.Place{Name: place, Arg: int64(w.people["Петя"])}, At: now}
		screen, err := w.menu.Show(t.Context(), v)
		w.must(err)
		if !screen.End || len(screen.Items)+len(screen.Bar) > 0 || screen.SMS != "" {
			t.Errorf("%s of another's child shows %+v", place, screen)
		}
	}
}

func TestAPhoneGetsSoManyAnswersBySMSADay(t *testing.T) {
	t.Parallel()
	q := newQuota(2, 3)
	take := func(number phone.Number, after time.Duration) bool { return q.take(number, now.Add(after)) }
	if !take(mother, 0) || !take(mother, time.Hour) || take(mother, 2*time.Hour) {
		t.Error("not two on a day")
	}
	if !take(father, 2*time.Hour) {
		t.Error("another phone gets none")
	}
	if !take(mother, dayLength) {
		t.Error("none on the next day")
	}
	for _, number := range []phone.Number{father, aunt, nanny} {
		take(number, dayLength)
	}
	if len(q.asked) > 3 {
		t.Errorf("%d phones are remembered", len(q.asked))
	}
}

// R46: what a child ate at the former school is what that school cooked.
func TestAMealIsMadeOfWhatTheCanteenThatServedItCooked(t *testing.T) {
	t.Parallel()
	w := newSchool(t)
	other := one[ledger.OrganisationID](w, `
		INSERT INTO ledger.organisation (code, kind, name, short_name, payee_code, time_zone)
		VALUES ('s-2', 'school', 'Школа 2', 'Школа 2', 'kp', 'Europe/Moscow') RETURNING id`)
	w.exec(`INSERT INTO meal.menu (organisation_id, day, meal, dish, price)
	        SELECT $1, day, meal, 'Плов', 0 FROM meal.menu GROUP BY day, meal`, other)
	w.exec(`UPDATE ledger.person SET organisation_id = $2 WHERE id = $1`, w.people["Маша"], other)
	screen, err := w.menu.Show(t.Context(), ussd.Visit{Phone: mother, Place: ussd.Place{Name: placeMeals, Arg: int64(w.people["Маша"])}, At: now})
	w.must(err)
	if shown := strings.Join(screen.Lines, "\n"); !strings.Contains(shown, "Каша овсяная") || strings.Contains(shown, "Плов") {
		t.Errorf("the meals are\n%s", shown)
	}
}
