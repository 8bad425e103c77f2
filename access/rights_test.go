package access

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"pgregory.net/rapid"

	"zvonok/ledger"
	"zvonok/ledger/pg"
	"zvonok/ledger/pg/pgtest"
)

// The moments of a family: days since its beginning. never stands for a null.
const never = -1

func dayOf(n int) time.Time {
	return time.Date(2026, time.March, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, n)
}

func orNever(n int) *time.Time {
	if n == never {
		return nil
	}
	return moment(dayOf(n))
}

// relation and agreement are rows of access.guardian and access.consent.
type relation struct {
	who                   int // index into the people of the family
	role                  Role
	since, until, revoked int
}

type agreement struct {
	by                      int
	since, until, withdrawn int
	visits, meals           bool
}

// family is one child with the people round it, as the model sees it.
type family struct {
	relations  []relation
	agreements []agreement
}

// verdict is the rule in the words of D14, without SQL.
func (f family) verdict(who, now int) Verdict {
	within := func(since, until, end int) bool {
		return since <= now && (until == never || now < until) && (end == never || now < end)
	}
	legal := func(who int) bool {
		return slices.ContainsFunc(f.relations, func(r relation) bool {
			return r.who == who && r.role == Legal && within(r.since, r.until, r.revoked)
		})
	}
	mine := slices.IndexFunc(f.relations, func(r relation) bool { return r.who == who && r.role != Companion })
	if mine < 0 || now < f.relations[mine].since {
		return NotRepresentative
	}
	// The consents that count, and when the last of them ended.
	ended, why := never, NoConsent
	for _, a := range f.agreements {
		switch {
		case !legal(a.by) || now < a.since:
			continue
		case within(a.since, a.until, a.withdrawn):
			switch r := f.relations[mine]; {
			case r.revoked != never && r.revoked <= now:
				return Removed
			case r.until != never && r.until <= now:
				return Expired
			}
			return Yes
		case a.withdrawn != never && (a.until == never || a.withdrawn <= a.until):
			if a.withdrawn >= ended {
				ended, why = a.withdrawn, ConsentWithdrawn
			}
		default:
			if a.until > ended {
				ended, why = a.until, ConsentExpired
			}
		}
	}
	return why
}

// store writes the family into the database and returns its child and people.
func (f family) store(ctx context.Context, tx pgx.Tx, people int, organisation ledger.OrganisationID, family int) (
	ledger.PersonID, []RepresentativeID, error,
) {
	var child ledger.PersonID
	err := tx.QueryRow(ctx, `
		INSERT INTO ledger.person (code, organisation_id, kind, family_name, given_name)
		VALUES ($1, $2, 'pupil', 'Петрова', 'Мария') RETURNING id`, fmt.Sprint("f-", family), organisation).Scan(&child)
	if err != nil {
		return 0, nil, err
	}
	ids := make([]RepresentativeID, people)
	for i := range ids {
		err := tx.QueryRow(ctx, `
			INSERT INTO access.representative (phone, family_name, given_name)
			VALUES ($1, 'Петров', 'Олег') RETURNING id`, fmt.Sprintf("7900%04d%03d", family, i)).Scan(&ids[i])
		if err != nil {
			return 0, nil, err
		}
	}
	for _, r := range f.relations {
		if _, err := tx.Exec(ctx, `
			INSERT INTO access.guardian (child_id, representative_id, role, since, until, revoked_at)
			VALUES ($1, $2, $3, $4, $5, $6)`, child, ids[r.who], r.role, dayOf(r.since), orNever(r.until), orNever(r.revoked)); err != nil {
			return 0, nil, err
		}
	}
	for _, a := range f.agreements {
		if _, err := tx.Exec(ctx, `
			INSERT INTO access.consent (child_id, representative_id, visits, meals, form, given_on, since, until, withdrawn_at)
			VALUES ($1, $2, $3, $4, 'test', '2026-03-01', $5, $6, $7)`,
			child, ids[a.by], a.visits, a.meals, dayOf(a.since), orNever(a.until), orNever(a.withdrawn)); err != nil {
			return 0, nil, err
		}
	}
	return child, ids, nil
}

// ask asks the rule in all three ways and fails unless they agree.
func ask(ctx context.Context, q pg.Querier, child ledger.PersonID, people []RepresentativeID, who, now int) (Verdict, error) {
	verdict, err := May(ctx, q, people[who], child, dayOf(now))
	if err != nil {
		return "", err
	}
	listeners, err := Audience(ctx, q, []ledger.PersonID{child}, dayOf(now))
	if err != nil {
		return "", err
	}
	heard := NotRepresentative
	for _, l := range listeners {
		if l.Representative == people[who] {
			heard = l.Verdict
		}
	}
	if heard != verdict {
		return "", fmt.Errorf("May says %s and Audience %s", verdict, heard)
	}
	representative, err := RepresentativeByID(ctx, q, people[who])
	if err != nil {
		return "", err
	}
	children, err := ChildrenOf(ctx, q, representative.Phone, dayOf(now))
	if err != nil {
		return "", err
	}
	sees := slices.ContainsFunc(children, func(c Child) bool { return c.ID == child })
	if sees != (verdict == Yes) {
		return "", fmt.Errorf("May says %s and ChildrenOf shows the child: %t", verdict, sees)
	}
	return verdict, nil
}

// D14, D12, R1, R2, R13: who may know, a sentence per row. Person 0 is the
// mother, 1 the father, 2 the asker unless the row says otherwise; it is day 10.
func TestWhoMayKnowOfAChild(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	mother := relation{0, Legal, 0, never, never}
	father := relation{1, Legal, 0, never, never}
	consent := agreement{0, 1, never, never, true, true}
	trusted := relation{2, Trusted, 2, never, never}
	for i, test := range []struct {
		sentence string
		family
		who  int
		want Verdict
	}{
		{"a mother who consented may", family{[]relation{mother}, []agreement{consent}}, 0, Yes},
		{"a father may on the mother's consent", family{[]relation{mother, father}, []agreement{consent}}, 1, Yes},
		{"a trusted person may on the mother's consent", family{[]relation{mother, trusted}, []agreement{consent}}, 2, Yes},
		{"a stranger may not", family{[]relation{mother}, []agreement{consent}}, 2, NotRepresentative},
		{
			"a companion may not, though listed and with a consent",
			family{[]relation{mother, {2, Companion, 0, never, never}}, []agreement{consent}},
			2, NotRepresentative,
		},
		{
			"a companion who is trusted too may",
			family{[]relation{mother, trusted, {2, Companion, 0, never, never}}, []agreement{consent}},
			2, Yes,
		},
		{"nobody may without any consent", family{[]relation{mother, trusted}, nil}, 0, NoConsent},
		{
			"a trusted person's own consent is worth nothing",
			family{[]relation{mother, trusted}, []agreement{{2, 1, never, never, true, true}}},
			2, NoConsent,
		},
		{
			"a stranger's consent is worth nothing",
			family{[]relation{mother}, []agreement{{2, 1, never, never, true, true}}},
			0, NoConsent,
		},
		{
			"a consent for the future is none yet",
			family{[]relation{mother}, []agreement{{0, 11, never, never, true, true}}},
			0, NoConsent,
		},
		{
			"a consent begins with its first moment",
			family{[]relation{mother}, []agreement{{0, 10, never, never, true, true}}},
			0, Yes,
		},
		{
			"a consent ends with its last moment",
			family{[]relation{mother}, []agreement{{0, 1, 10, never, true, true}}},
			0, ConsentExpired,
		},
		{
			"a withdrawal stops the mother herself",
			family{[]relation{mother}, []agreement{{0, 1, never, 10, true, true}}},
			0, ConsentWithdrawn,
		},
		{
			"a withdrawal stops the trusted person too",
			family{[]relation{mother, trusted}, []agreement{{0, 1, never, 10, true, true}}},
			2, ConsentWithdrawn,
		},
		{
			"a withdrawal announced for tomorrow stops nothing today",
			family{[]relation{mother}, []agreement{{0, 1, never, 11, true, true}}},
			0, Yes,
		},
		{
			"the father's consent stands when the mother's is withdrawn",
			family{[]relation{mother, father}, []agreement{{0, 1, never, 5, true, true}, {1, 1, never, never, true, true}}},
			0, Yes,
		},
		{
			"a new consent after a withdrawal counts",
			family{[]relation{mother}, []agreement{{0, 1, never, 5, true, true}, {0, 7, never, never, true, true}}},
			0, Yes,
		},
		{
			"the last to end names the reason: expired after withdrawn",
			family{[]relation{mother}, []agreement{{0, 1, never, 5, true, true}, {0, 6, 8, never, true, true}}},
			0, ConsentExpired,
		},
		{
			"the last to end names the reason: withdrawn after expired",
			family{[]relation{mother}, []agreement{{0, 1, 4, never, true, true}, {0, 6, never, 8, true, true}}},
			0, ConsentWithdrawn,
		},
		{
			"a withdrawal after the last day changes nothing",
			family{[]relation{mother}, []agreement{{0, 1, 4, 8, true, true}}},
			0, ConsentExpired,
		},
		{
			"a withdrawal at the last moment is a withdrawal",
			family{[]relation{mother}, []agreement{{0, 1, 8, 8, true, true}}},
			0, ConsentWithdrawn,
		},
		{
			"of two that ended at one moment the withdrawn one names the reason",
			family{[]relation{mother}, []agreement{{0, 1, 8, never, true, true}, {0, 1, never, 8, true, true}}},
			0, ConsentWithdrawn,
		},
		{
			"a mother is legal from the first moment of her right",
			family{[]relation{{0, Legal, 10, never, never}}, []agreement{consent}},
			0, Yes,
		},
		{
			"the consent of a mother whose own right has ended falls",
			family{[]relation{{0, Legal, 0, 10, never}, father}, []agreement{consent}},
			1, NoConsent,
		},
		{
			"the consent of a mother who is no longer legal falls",
			family{[]relation{{0, Legal, 0, never, 9}, father}, []agreement{consent}},
			1, NoConsent,
		},
		{
			"a trusted person who was excluded may not",
			family{[]relation{mother, {2, Trusted, 2, never, 10}}, []agreement{consent}},
			2, Removed,
		},
		{
			"an exclusion counts more than an expiry",
			family{[]relation{mother, {2, Trusted, 2, 8, 9}}, []agreement{consent}},
			2, Removed,
		},
		{
			"a trusted person's right ends with its last moment",
			family{[]relation{mother, {2, Trusted, 2, 10, never}}, []agreement{consent}},
			2, Expired,
		},
		{
			"a trusted person's right has not begun",
			family{[]relation{mother, {2, Trusted, 11, never, never}}, []agreement{consent}},
			2, NotRepresentative,
		},
		{
			"the consent is named before the exclusion",
			family{[]relation{mother, {2, Trusted, 2, never, 9}}, nil},
			2, NoConsent,
		},
	} {
		if got := test.family.verdict(test.who, 10); got != test.want {
			t.Errorf("%s: the model of the property test says %s, want %s", test.sentence, got, test.want)
		}
		t.Run(test.sentence, func(t *testing.T) {
			tx := begin(t, pool)
			child, people, err := test.family.store(t.Context(), tx, 3, organisationIn(t, tx), i)
			if err != nil {
				t.Fatal(err)
			}
			got, err := ask(t.Context(), tx, child, people, test.who, 10)
			if err != nil {
				t.Fatal(err)
			}
			if got != test.want {
				t.Errorf("verdict %s, want %s", got, test.want)
			}
		})
	}
}

// begin opens a transaction that is never committed.
func begin(t *testing.T, pool *pgxpool.Pool) pgx.Tx {
	t.Helper()
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) })
	return tx
}

func organisationIn(t *testing.T, tx pgx.Tx) ledger.OrganisationID {
	t.Helper()
	var id ledger.OrganisationID
	if err := tx.QueryRow(t.Context(), `
		INSERT INTO ledger.organisation (code, kind, name, short_name, time_zone)
		VALUES ('s-1', 'school', 'School', 'School', 'Europe/Moscow') RETURNING id`).Scan(&id); err != nil {
		t.Fatal(err)
	}
	return id
}

// D14 over random families: the SQL rule and the model agree at every moment,
// in all three ways of asking, and whatever the other families are.
func TestTheRuleIsTheModelsRule(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	ctx := t.Context()
	const people, days = 4, 8
	day := rapid.IntRange(0, days)
	later := func(t *rapid.T, label string, since int) int {
		if rapid.Bool().Draw(t, label+" set") {
			return rapid.IntRange(since+1, days+2).Draw(t, label)
		}
		return never
	}
	rapid.Check(t, func(t *rapid.T) {
		var families [2]family
		for n := range families {
			f := &families[n]
			for who := range people {
				role := rapid.SampledFrom([]Role{Legal, Legal, Trusted, Companion, ""}).Draw(t, "role")
				if role == "" {
					continue
				}
				r := relation{who: who, role: role, since: day.Draw(t, "since")}
				r.until = later(t, "until", r.since)
				r.revoked = rapid.SampledFrom([]int{never, never, 0, 3, 5, days}).Draw(t, "revoked")
				f.relations = append(f.relations, r)
				if role != Companion && rapid.Bool().Draw(t, "companion too") {
					f.relations = append(f.relations, relation{who, Companion, 0, never, never})
				}
			}
			for range rapid.IntRange(0, 4).Draw(t, "consents") {
				a := agreement{by: rapid.IntRange(0, people-1).Draw(t, "by"), since: day.Draw(t, "consent"), visits: true}
				a.until = later(t, "consent until", a.since)
				a.withdrawn = rapid.SampledFrom([]int{never, never, 2, 4, 6, days}).Draw(t, "withdrawn")
				a.meals = rapid.Bool().Draw(t, "meals")
				f.agreements = append(f.agreements, a)
			}
		}
		err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			var organisation ledger.OrganisationID
			if err := tx.QueryRow(ctx, `
				INSERT INTO ledger.organisation (code, kind, name, short_name, time_zone)
				VALUES ('s-1', 'school', 'School', 'School', 'Europe/Moscow') RETURNING id`).Scan(&organisation); err != nil {
				return err
			}
			for n, f := range families {
				child, ids, err := f.store(ctx, tx, people, organisation, n)
				if err != nil {
					return err
				}
				now := day.Draw(t, "now")
				for who := range people {
					got, err := ask(ctx, tx, child, ids, who, now)
					if err != nil {
						return err
					}
					if want := f.verdict(who, now); got != want {
						return fmt.Errorf("family %d, person %d, day %d: %s, want %s: %+v", n, who, now, got, want, f)
					}
				}
			}
			return errRollback
		})
		if !errors.Is(err, errRollback) {
			t.Fatal(err)
		}
	})
}

// errRollback ends a transaction that was only for looking.
var errRollback = errors.New("roll back")

// The purposes of a consent go with the verdict, and only with a live one.
func TestAConsentCoversWhatItSays(t *testing.T) {
	w := newWorld(t)
	mother := w.representative(1, "Петрова", "Ольга")
	w.exec(`INSERT INTO access.guardian (child_id, representative_id, role, since) VALUES ($1, $2, 'legal', $3)`,
		w.masha, mother, schoolday.AddDate(0, -2, 0))
	w.exec(`INSERT INTO access.consent (child_id, representative_id, visits, meals, form, given_on, since, until)
		VALUES ($1, $2, false, true, 'a', '2026-10-01', $3, $4), ($1, $2, true, false, 'b', '2026-10-01', $3, NULL)`,
		w.masha, mother, schoolday.AddDate(0, -1, 0), schoolday)
	for _, test := range []struct {
		at            time.Time
		visits, meals bool
	}{
		{schoolday.AddDate(0, 0, -1), true, true},
		{schoolday, true, false},
		{schoolday.AddDate(0, -2, 1), false, false},
	} {
		listeners, err := Audience(t.Context(), w.pool, []ledger.PersonID{w.masha}, test.at)
		if err != nil {
			t.Fatal(err)
		}
		if len(listeners) != 1 || listeners[0].Visits != test.visits || listeners[0].Meals != test.meals {
			t.Errorf("at %s: %+v, want visits %t, meals %t", test.at, listeners, test.visits, test.meals)
		}
	}
}

// Audience tells how to reach everybody, of every child asked about and of no other.
func TestAudienceIsEverybodyRoundTheChildren(t *testing.T) {
	w := newWorld(t)
	mother := w.parent(1, "Петрова", "Ольга", w.masha, w.petya)
	granny := w.trusted(2, "Сидорова", "Анна", w.masha)
	w.parent(3, "Орлова", "Елена", w.kolya)
	w.exec(`UPDATE access.representative SET email = 'olga@example.org', language = 'en', translit = true WHERE id = $1`, mother)
	w.must(func(ctx context.Context, tx pgx.Tx) error {
		return Exclude(ctx, tx, mother, w.masha, granny, Trusted, schoolday)
	})
	got, err := Audience(t.Context(), w.pool, []ledger.PersonID{w.masha, w.petya, w.vanya}, schoolday)
	if err != nil {
		t.Fatal(err)
	}
	olga := Listener{
		Child: w.masha, Representative: mother, Role: Legal, Verdict: Yes, Visits: true, Meals: true,
		Phone: number(1), Email: "olga@example.org", Language: "en", Translit: true,
	}
	ofPetya := olga
	ofPetya.Child = w.petya
	want := []Listener{olga, {
		Child: w.masha, Representative: granny, Role: Trusted, Verdict: Removed, Visits: true, Meals: true,
		Phone: number(2), Language: "ru",
	}, ofPetya}
	if !slices.Equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	children, err := ChildrenOf(t.Context(), w.pool, number(1), schoolday)
	if err != nil {
		t.Fatal(err)
	}
	if len(children) != 2 || children[0].ID != w.masha || children[1].ID != w.petya || children[0].GivenName != "Мария" ||
		children[0].Organisation != w.school || children[0].Code != "p-1" || children[0].Representative != mother {
		t.Errorf("the mother's phone shows %+v", children)
	}
	if nobody, err := ChildrenOf(t.Context(), w.pool, number(99), schoolday); err != nil || len(nobody) != 0 {
		t.Errorf("an unknown phone shows %+v, %v", nobody, err)
	}
}
