package access

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger"
)

// staff is who works at the desk of the tests.
var staff = ByStaff("staff-3")

func (w *world) resolve(queries ...CardQuery) []CardHolder {
	w.Helper()
	holders, err := ResolveCards(w.Context(), w.pool, queries)
	if err != nil {
		w.Fatal(err)
	}
	if len(holders) != len(queries) {
		w.Fatalf("%d answers to %d queries", len(holders), len(queries))
	}
	return holders
}

func (w *world) issue(card NewCard, at time.Time) (id CardID, err error) {
	w.Helper()
	err = w.tx(func(ctx context.Context, tx pgx.Tx) error {
		id, err = IssueCard(ctx, tx, card, staff, at)
		return err
	})
	return id, err
}

// active is issue and hand-over.
func (w *world) active(card NewCard, at time.Time) CardID {
	w.Helper()
	id, err := w.issue(card, at)
	if err != nil {
		w.Fatal(err)
	}
	w.must(func(ctx context.Context, tx pgx.Tx) error {
		return HandOver(ctx, tx, id, staff, "sheet 7, line 12", at)
	})
	return id
}

// R15, R17, R18, R19: from the school's desk to the door, with who did what when
// and the mark of the signature; the card is the city's, and only read.
func TestACardWorksFromItsHandOver(t *testing.T) {
	w := newWorld(t)
	id, err := w.issue(NewCard{Organisation: w.school, UID: "9A3F105C", Kind: SocialCard, Person: w.masha}, schoolday)
	if err != nil {
		t.Fatal(err)
	}
	query := CardQuery{Organisation: w.school, UID: "9A3F105C"}
	if h := w.resolve(query)[0]; h.State != Issued || h.Usable(schoolday) {
		t.Errorf("before the hand-over: %+v", h)
	}
	later := schoolday.Add(time.Hour)
	w.must(func(ctx context.Context, tx pgx.Tx) error {
		return HandOver(ctx, tx, id, staff, "sheet 7, line 12", later)
	})
	want := CardHolder{Card: id, Person: w.masha, Kind: SocialCard, State: Active}
	if h := w.resolve(query)[0]; h != want || !h.Usable(later) {
		t.Errorf("after the hand-over: %+v, want %+v", h, want)
	}
	history, err := CardHistory(t.Context(), w.pool, id)
	if err != nil {
		t.Fatal(err)
	}
	if len(history) != 2 || history[0].What != "issued" || history[0].By != staff || !history[0].At.Equal(schoolday) ||
		history[1].What != "handed_over" || history[1].Signature != "sheet 7, line 12" || !history[1].At.Equal(later) {
		t.Errorf("the history is %+v", history)
	}
	if _, err := CardHistory(t.Context(), w.pool, id+1); err != nil {
		t.Errorf("the history of no card: %v", err)
	}
}

// R15, R16, R20: the card is somebody else's and only an identifier. Nothing is
// kept with it of money, of the bank's function, for which one applies elsewhere, or
// of its holder but who that is; so a lost card loses nothing.
func TestACardHoldsNothingButAnIdentifier(t *testing.T) {
	w := newWorld(t)
	got := one[string](w, `SELECT string_agg(column_name, ' ' ORDER BY ordinal_position) FROM information_schema.columns
		WHERE table_schema = 'access' AND table_name = 'card'`)
	if want := "id organisation_id uid kind person_id representative_id state valid_until issued_at blocked_at ended_at"; got != want {
		t.Errorf("a card has %s, want %s", got, want)
	}
	// A second card of the same person, lent or in place of the lost one, is the same person's: the same account.
	w.active(NewCard{Organisation: w.school, UID: "9A3F105C", Kind: SocialCard, Person: w.masha}, schoolday)
	w.active(NewCard{Organisation: w.school, UID: "04A1B2C3D4E580", Kind: Fob, Person: w.masha}, schoolday)
	for _, uid := range []UID{"9A3F105C", "04A1B2C3D4E580"} {
		if h := w.resolve(CardQuery{Organisation: w.school, UID: uid})[0]; h.Person != w.masha || !h.Usable(schoolday) {
			t.Errorf("card %s: %+v", uid, h)
		}
	}
}

// spec/door.md, Card codes: an identifier means something inside one organisation only.
func TestOneIdentifierInTwoOrganisationsIsTwoCards(t *testing.T) {
	w := newWorld(t)
	w.active(NewCard{Organisation: w.school, UID: "9A3F105C", Kind: OwnCard, Person: w.masha}, schoolday)
	w.active(NewCard{Organisation: w.other, UID: "9A3F105C", Kind: OwnCard, Person: w.kolya}, schoolday)
	got := w.resolve(
		CardQuery{Organisation: w.other, UID: "9A3F105C"},
		CardQuery{Organisation: w.kindergarten, UID: "9A3F105C"},
		CardQuery{Organisation: w.school, UID: "9A3F105C"},
		CardQuery{Organisation: w.school, UID: "FFFFFFFF"},
	)
	if got[0].Person != w.kolya || got[1] != (CardHolder{}) || got[2].Person != w.masha || got[3].State != Unknown {
		t.Errorf("got %+v", got)
	}
}

func TestACollidingCardIsRefusedAtIssue(t *testing.T) {
	w := newWorld(t)
	first := w.active(NewCard{Organisation: w.school, UID: "9A3F105C", Kind: OwnCard, Person: w.masha}, schoolday)
	refused := func(sentence string, uid UID, part Part) {
		t.Helper()
		_, err := w.issue(NewCard{Organisation: w.school, UID: uid, Kind: OwnCard, Person: w.petya}, schoolday)
		collision, ok := errors.AsType[*CollisionError](err)
		if !ok || collision.Card != first || collision.Part != part {
			t.Errorf("%s: got %v, want a collision with card %d in %q", sentence, err, first, part)
		}
	}
	refused("the same identifier", "9A3F105C", Whole)

	w.must(func(ctx context.Context, tx pgx.Tx) error { return BlockCard(ctx, tx, first, staff, "", schoolday) })
	refused("the identifier of a lost card, which still exists", "9A3F105C", Whole)

	w.must(func(ctx context.Context, tx pgx.Tx) error {
		collisions, err := SetReaderForms(ctx, tx, w.school, []Part{Tail3, Head4})
		if len(collisions) != 0 {
			t.Errorf("a single card collides: %+v", collisions)
		}
		return err
	})
	refused("another identifier that Wiegand-26 cannot tell apart", "FF3F105C", Tail3)
	refused("a longer one whose first four octets are the same", "9A3F105C112233", Head4)

	w.must(func(ctx context.Context, tx pgx.Tx) error { return ReturnCard(ctx, tx, first, staff, schoolday) })
	again := NewCard{Organisation: w.school, UID: "9A3F105C", Kind: OwnCard, Person: w.petya}
	if _, err := w.issue(again, schoolday); err != nil {
		t.Errorf("the identifier of a returned card: %v", err)
	}
}

// A reader that keeps a part of the identifier still finds the card, unless two fit.
func TestShortenedIdentifiersAreResolvedInsideTheOrganisation(t *testing.T) {
	w := newWorld(t)
	w.active(NewCard{Organisation: w.school, UID: "9A3F105C", Kind: OwnCard, Person: w.masha}, schoolday)
	second := w.active(NewCard{Organisation: w.school, UID: "AA3F105C", Kind: OwnCard, Person: w.petya}, schoolday)
	w.active(NewCard{Organisation: w.other, UID: "9A3F1000", Kind: OwnCard, Person: w.kolya}, schoolday)
	ask := func(profile, raw string) CardHolder {
		t.Helper()
		p, err := ParseProfile(profile)
		if err != nil {
			t.Fatal(err)
		}
		uid, part, err := p.Read(raw)
		if err != nil {
			t.Fatal(err)
		}
		return w.resolve(CardQuery{Organisation: w.school, UID: uid, Part: part})[0]
	}
	for _, test := range []struct {
		profile, raw string
		person       ledger.PersonID
	}{
		{"plain", "9A3F105C", w.masha},
		{"reversed", "5C103F9A", w.masha},
		{"reversed-w26", "016,16282", w.masha},
		{"w34", "9A3F105C", w.masha},
		{"reversed-w34", "5C103FAA", w.petya},
	} {
		if h := ask(test.profile, test.raw); h.Person != test.person || h.State != Active {
			t.Errorf("%s %s: %+v, want person %d", test.profile, test.raw, h, test.person)
		}
	}
	if h := ask("w26", "063,04188"); h != (CardHolder{State: Ambiguous}) {
		t.Errorf("two cards end with the same three octets: %+v", h)
	}
	w.must(func(ctx context.Context, tx pgx.Tx) error {
		collisions, err := SetReaderForms(ctx, tx, w.school, []Part{Tail3})
		if len(collisions) != 1 || collisions[0].Part != Tail3 || collisions[0].Second != second {
			t.Errorf("staff is told of %+v", collisions)
		}
		return err
	})
	w.must(func(ctx context.Context, tx pgx.Tx) error {
		return ReturnCard(ctx, tx, second, staff, schoolday.Add(time.Hour))
	})
	if h := ask("w26", "063,04188"); h.Person != w.masha {
		t.Errorf("after the other card was returned: %+v", h)
	}
}

// R21: forgotten or lost; the temporary card ends by itself and is lent again the next day.
func TestATemporaryCardEndsThatEvening(t *testing.T) {
	w := newWorld(t)
	lend := func(person ledger.PersonID, at time.Time) (id CardID, err error) {
		err = w.tx(func(ctx context.Context, tx pgx.Tx) error {
			id, err = LendCard(ctx, tx, NewCard{Organisation: w.school, UID: "04A1B2C3D4E580", Person: person}, staff, at)
			return err
		})
		return id, err
	}
	monday, err := lend(w.masha, schoolday)
	if err != nil {
		t.Fatal(err)
	}
	query := CardQuery{Organisation: w.school, UID: "04A1B2C3D4E580"}
	closing := time.Date(2026, time.November, 23, 22, 0, 0, 0, moscow)
	h := w.resolve(query)[0]
	if h.State != Temporary || h.Kind != TemporaryCard || !h.ValidUntil.Equal(closing) || h.Person != w.masha {
		t.Errorf("on Monday: %+v", h)
	}
	if !h.Usable(closing.Add(-time.Second)) || h.Usable(closing) {
		t.Error("it does not end at 22:00")
	}
	if _, err := lend(w.petya, schoolday.Add(time.Hour)); err == nil {
		t.Error("lent twice on one day")
	}
	nextDay := schoolday.AddDate(0, 0, 1)
	tuesday, err := lend(w.petya, nextDay)
	if err != nil {
		t.Fatal(err)
	}
	// An event of Monday that is uploaded on Tuesday is still Masha's.
	onMonday, onTuesday := query, query
	onMonday.At, onTuesday.At = schoolday.Add(time.Hour), nextDay.Add(time.Hour)
	got := w.resolve(onMonday, onTuesday, query)
	if got[0].Card != monday || got[0].Person != w.masha || !got[0].Usable(onMonday.At) {
		t.Errorf("Monday's event: %+v", got[0])
	}
	if got[1].Card != tuesday || got[1].Person != w.petya || got[2] != got[1] {
		t.Errorf("Tuesday's event: %+v, now %+v", got[1], got[2])
	}
	history, err := CardHistory(t.Context(), w.pool, monday)
	if err != nil {
		t.Fatal(err)
	}
	if last := history[len(history)-1]; last.What != "returned" || last.By.Kind != SystemActor || !last.At.Equal(closing) {
		t.Errorf("the end of Monday's card is written as %+v", last)
	}
	// After the day is closed a card is lent until midnight.
	late := time.Date(2026, time.November, 24, 22, 30, 0, 0, moscow)
	w.must(func(ctx context.Context, tx pgx.Tx) error { return ReturnCard(ctx, tx, tuesday, staff, late) })
	if _, err := lend(w.petya, late); err != nil {
		t.Fatal(err)
	}
	if h := w.resolve(query)[0]; !h.ValidUntil.Equal(time.Date(2026, time.November, 25, 0, 0, 0, 0, moscow)) {
		t.Errorf("lent late in the evening: %+v", h)
	}
}

// Lost, replaced, found: what a late event sees is the state of its own time.
func TestABlockedCardIsJudgedByTheTimeOfTheEvent(t *testing.T) {
	w := newWorld(t)
	id := w.active(NewCard{Organisation: w.school, UID: "9A3F105C", Kind: OwnCard, Person: w.masha}, schoolday)
	lost := schoolday.Add(3 * time.Hour)
	w.must(func(ctx context.Context, tx pgx.Tx) error {
		return BlockCard(ctx, tx, id, staff, "said the mother", lost)
	})
	at := func(when time.Time) State {
		t.Helper()
		return w.resolve(CardQuery{Organisation: w.school, UID: "9A3F105C", At: when})[0].State
	}
	if at(lost.Add(-time.Second)) != Active || at(lost) != BlockedLost || at(time.Time{}) != BlockedLost {
		t.Errorf("around the loss: %s, %s, now %s", at(lost.Add(-time.Second)), at(lost), at(time.Time{}))
	}
	if at(schoolday.AddDate(0, 0, -3)) != Active {
		t.Errorf("an event from before the card was keyed in: %s", at(schoolday.AddDate(0, 0, -3)))
	}
	w.must(func(ctx context.Context, tx pgx.Tx) error { return FoundCard(ctx, tx, id, staff, lost.Add(time.Hour)) })
	if at(time.Time{}) != Active {
		t.Error("the found card does not work")
	}
	var next CardID
	w.must(func(ctx context.Context, tx pgx.Tx) (err error) {
		next, err = ReplaceCard(ctx, tx, id, "04A1B2C3D4E580", "", time.Time{}, staff, lost.Add(2*time.Hour))
		return err
	})
	w.must(func(ctx context.Context, tx pgx.Tx) error {
		return HandOver(ctx, tx, next, staff, "sheet 8", lost.Add(2*time.Hour))
	})
	if at(time.Time{}) != BlockedReplaced {
		t.Errorf("the replaced card is %s", at(time.Time{}))
	}
	cards, err := CardsOf(t.Context(), w.pool, w.masha)
	if err != nil {
		t.Fatal(err)
	}
	if len(cards) != 2 || cards[0].ID != next || cards[0].Kind != OwnCard || !cards[0].Usable(lost.Add(3*time.Hour)) ||
		cards[1].ID != id {
		t.Errorf("the cards of the child: %+v", cards)
	}
	w.must(func(ctx context.Context, tx pgx.Tx) error {
		return DestroyCard(ctx, tx, id, staff, "act 4", lost.Add(4*time.Hour))
	})
	if at(time.Time{}) != Destroyed || at(lost.Add(-time.Second)) != Active {
		t.Errorf("destroyed: %s, on the morning before %s", at(time.Time{}), at(lost.Add(-time.Second)))
	}
}

// Each step from each state: what is allowed, and that a repeated step changes nothing.
func TestStepsOfACardsLife(t *testing.T) {
	w := newWorld(t)
	steps := map[string]func(context.Context, pgx.Tx, CardID) error{
		"hand over": func(ctx context.Context, tx pgx.Tx, id CardID) error {
			return HandOver(ctx, tx, id, staff, "", schoolday)
		},
		"block": func(ctx context.Context, tx pgx.Tx, id CardID) error {
			return BlockCard(ctx, tx, id, staff, "", schoolday)
		},
		"find": func(ctx context.Context, tx pgx.Tx, id CardID) error { return FoundCard(ctx, tx, id, staff, schoolday) },
		"return": func(ctx context.Context, tx pgx.Tx, id CardID) error {
			return ReturnCard(ctx, tx, id, staff, schoolday)
		},
		"destroy": func(ctx context.Context, tx pgx.Tx, id CardID) error {
			return DestroyCard(ctx, tx, id, staff, "", schoolday)
		},
		"replace": func(ctx context.Context, tx pgx.Tx, id CardID) error {
			_, err := ReplaceCard(ctx, tx, id, "04A1B2C3D4E580", "", time.Time{}, staff, schoolday)
			return err
		},
	}
	allowed := map[State]map[string]State{
		Issued: {
			"hand over": Active, "block": BlockedLost, "return": Returned, "destroy": Destroyed, "replace": BlockedReplaced,
		},
		Active: {
			"hand over": Active, "block": BlockedLost, "find": Active, "return": Returned, "destroy": Destroyed,
			"replace": BlockedReplaced,
		},
		BlockedLost: {
			"block": BlockedLost, "find": Active, "return": Returned, "destroy": Destroyed, "replace": BlockedReplaced,
		},
		BlockedReplaced: {"return": Returned, "destroy": Destroyed},
		Temporary:       {"hand over": Temporary, "block": BlockedLost, "find": Temporary, "return": Returned, "destroy": Destroyed},
		Returned:        {"return": Returned, "destroy": Destroyed},
		Destroyed:       {"destroy": Destroyed},
	}
	for from, steps1 := range allowed {
		for name, step := range steps {
			tx := begin(t, w.pool)
			var id CardID
			kind, state := OwnCard, from
			if from == Temporary {
				kind = TemporaryCard
			}
			if err := tx.QueryRow(t.Context(), `
				INSERT INTO access.card (organisation_id, uid, kind, person_id, state, valid_until, issued_at, blocked_at, ended_at)
				VALUES ($1, '9A3F105C', $2, $3, $4, '2026-11-23 22:00+03', '2026-09-01',
				        CASE WHEN $4 LIKE 'blocked%' THEN timestamptz '2026-09-02' END,
				        CASE WHEN $4 IN ('returned', 'destroyed') THEN timestamptz '2026-09-03' END) RETURNING id`,
				w.school, kind, w.masha, state).Scan(&id); err != nil {
				t.Fatal(err)
			}
			err := step(t.Context(), tx, id)
			want, ok := steps1[name]
			if wrong, isState := errors.AsType[*StateError](err); !ok && (!isState || wrong.State != from) {
				t.Errorf("%s a card that is %s: %v, want a StateError", name, from, err)
			}
			if !ok {
				want = from
			} else if err != nil {
				t.Errorf("%s a card that is %s: %v", name, from, err)
			}
			var got State
			if err := tx.QueryRow(t.Context(), `SELECT state FROM access.card WHERE id = $1`, id).Scan(&got); err != nil {
				t.Fatal(err)
			}
			if got != want {
				t.Errorf("%s a card that is %s makes it %s, want %s", name, from, got, want)
			}
			if err := tx.Rollback(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.tx(func(ctx context.Context, tx pgx.Tx) error {
		return HandOver(ctx, tx, 404, staff, "", schoolday)
	}); !errors.Is(err, ErrNoCard) {
		t.Errorf("no such card: %v", err)
	}
}

func TestOnlyPeopleOfTheOrganisationHaveItsCards(t *testing.T) {
	w := newWorld(t)
	mother := w.parent(1, "Петрова", "Ольга", w.vanya)
	w.exec(`UPDATE ledger.person SET left_on = '2026-11-23' WHERE id = $1`, w.petya)
	for _, test := range []struct {
		sentence string
		card     NewCard
		ok       bool
	}{
		{"a pupil of the school", NewCard{Organisation: w.school, Person: w.masha}, true},
		{"a pupil of another school", NewCard{Organisation: w.school, Person: w.kolya}, false},
		{"a pupil who has left today", NewCard{Organisation: w.school, Person: w.petya}, false},
		{"a mother at her child's kindergarten", NewCard{Organisation: w.kindergarten, Representative: mother}, true},
		{"a mother at a school of no child of hers", NewCard{Organisation: w.school, Representative: mother}, false},
		{"nobody", NewCard{Organisation: w.school}, false},
		{"two holders", NewCard{Organisation: w.kindergarten, Person: w.vanya, Representative: mother}, false},
	} {
		test.card.UID, test.card.Kind = "9A3F105C", OwnCard
		id, err := w.issue(test.card, schoolday)
		if ok := err == nil; ok != test.ok || !ok && !errors.Is(err, ErrHolder) {
			t.Errorf("%s: %v", test.sentence, err)
		}
		if err == nil {
			w.must(func(ctx context.Context, tx pgx.Tx) error { return ReturnCard(ctx, tx, id, staff, schoolday) })
		}
	}
}

// Two desks issue the same identifiers at the same time: each is issued once, and
// of two that Wiegand-26 cannot tell apart one.
func TestRacingDesksIssueAnIdentifierOnce(t *testing.T) {
	w := newWorld(t)
	w.must(func(ctx context.Context, tx pgx.Tx) error {
		_, err := SetReaderForms(ctx, tx, w.school, []Part{Tail3})
		return err
	})
	const desks = 8
	results := make(chan error, desks)
	for i := range desks {
		go func() {
			_, err := w.issue(NewCard{
				Organisation: w.school, UID: UID(fmt.Sprintf("%02X3F105C", i/2)), Kind: OwnCard, Person: w.masha,
			}, schoolday)
			results <- err
		}()
	}
	issued := 0
	for range desks {
		err := <-results
		if _, collided := errors.AsType[*CollisionError](err); err == nil {
			issued++
		} else if !collided {
			t.Error(err)
		}
	}
	if issued != 1 {
		t.Errorf("%d cards issued, want 1", issued)
	}
}

// What was done to a card is not rewritten by the application, and neither is the log of views.
func TestHistoryIsAppendOnlyForTheApplication(t *testing.T) {
	w := newWorld(t)
	w.active(NewCard{Organisation: w.school, UID: "9A3F105C", Kind: OwnCard, Person: w.masha}, schoolday)
	w.must(func(ctx context.Context, tx pgx.Tx) error {
		return LogView(ctx, tx, []View{{staff, w.masha, "visits", Staff, time.Now()}})
	})
	for _, sql := range []string{
		`UPDATE access.card_event SET what = 'found'`, `DELETE FROM access.card_event`,
		`UPDATE access.view_log SET what = 'nothing'`, `DELETE FROM access.view_log`, `TRUNCATE access.view_log`,
		`UPDATE access.guardian_event SET what = 'granted'`, `DELETE FROM access.guardian_event`,
		`DELETE FROM access.card`, `DELETE FROM access.consent`, `DELETE FROM access.guardian`,
	} {
		if _, err := w.pool.Exec(t.Context(), sql); err == nil {
			t.Errorf("%s was allowed", sql)
		}
	}
	if n := one[int](w, `SELECT access.forget_views(now() + interval '1 year')`); n != 0 {
		t.Errorf("%d views of today were forgotten", n)
	}
}

// D14: who looked, whose data, what, when, for the parent to read.
func TestViewsAreReadNewestFirst(t *testing.T) {
	w := newWorld(t)
	mother := w.parent(1, "Петрова", "Ольга", w.masha)
	views := []View{
		{ByRepresentative(mother), w.masha, "balance", USSD, schoolday},
		{staff, w.masha, "visits", Staff, schoolday.Add(time.Minute)},
		{ByPartner("mkb"), w.petya, "name", Bank, schoolday.Add(2 * time.Minute)},
		{ByRepresentative(mother), w.masha, "meals", Portal, schoolday.AddDate(2, 0, 0)},
	}
	if err := LogView(t.Context(), w.pool, views); err != nil {
		t.Fatal(err)
	}
	if err := LogView(t.Context(), w.pool, nil); err != nil {
		t.Fatal(err)
	}
	same := func(got, want []View) bool {
		return slices.EqualFunc(got, want, func(a, b View) bool {
			at := a.At.Equal(b.At)
			a.At, b.At = time.Time{}, time.Time{}
			return at && a == b
		})
	}
	got, next, err := Views(t.Context(), w.pool, w.masha, ViewPage{}, 2)
	if err != nil || !same(got, []View{views[3], views[1]}) {
		t.Errorf("the newest two: %+v, %v", got, err)
	}
	place, err := ParseViewPage(next.String())
	if err != nil {
		t.Fatal(err)
	}
	got, next, err = Views(t.Context(), w.pool, w.masha, place, 10)
	if err != nil || !same(got, []View{views[0]}) || next != (ViewPage{}) {
		t.Errorf("before the school's look: %+v, %v", got, err)
	}
	for _, text := range []string{"1", "a.1", "1.b", "999999999999999999.1", "-1.1", "1.1' OR 1=1"} {
		if _, err := ParseViewPage(text); err == nil {
			t.Errorf("%q is taken for a place", text)
		}
	}
}

// D14: looks of one moment stand on one page each, and on one only.
func TestNoViewIsLostBetweenPages(t *testing.T) {
	w := newWorld(t)
	log := NewViewLog(w.pool)
	var views []View
	for n := range 7 {
		views = append(views, View{ByStaff(fmt.Sprint(n)), w.masha, "visits", Staff, schoolday})
	}
	if err := log.Write(t.Context(), views...); err != nil {
		t.Fatal(err)
	}
	log.Close()
	if err := log.Write(t.Context(), views...); err == nil {
		t.Error("a closed log takes views")
	}
	seen := map[string]int{}
	for page := (ViewPage{}); ; {
		got, next, err := Views(t.Context(), w.pool, w.masha, page, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range got {
			seen[v.Who.ID]++
		}
		if page = next; page == (ViewPage{}) {
			break
		}
	}
	if len(seen) != 7 || slices.Max(slices.Collect(maps.Values(seen))) != 1 {
		t.Errorf("the pages show %v", seen)
	}
}
