package subscription

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"zvonok/access"
	"zvonok/ledger"
	"zvonok/ledger/pg/pgtest"
)

// R52, R53, D2: per child, event, channel and mode, in any combination.
func TestEachRecipientWishesForEachChildAlone(t *testing.T) {
	w := newWorld(t)
	w.set(w.mother, w.masha,
		Subscription{Pass, SMS, Now}, Subscription{Pass, Push, Now}, Subscription{Pass, Email, Day}, Subscription{Hot, Email, Week})
	w.set(w.mother, w.petya, Subscription{Pass, Email, Now})
	w.set(w.granny, w.masha, Subscription{Pass, SMS, Now}, Subscription{Subsidised, SMS, Now})
	for _, test := range []struct {
		topic    Topic
		mode     Mode
		children []ledger.PersonID
		want     []Wish
	}{
		{Pass, Now, []ledger.PersonID{w.petya, w.masha}, []Wish{
			{w.masha, w.mother, Push},
			{w.masha, w.mother, SMS},
			{w.masha, w.granny, SMS},
			{w.petya, w.mother, Email},
		}},
		{Pass, Now, []ledger.PersonID{w.petya}, []Wish{{w.petya, w.mother, Email}}},
		{Pass, Day, []ledger.PersonID{w.petya, w.masha}, []Wish{{w.masha, w.mother, Email}}},
		{Hot, Week, []ledger.PersonID{w.masha}, []Wish{{w.masha, w.mother, Email}}},
		{Subsidised, Now, []ledger.PersonID{w.masha}, []Wish{{w.masha, w.granny, SMS}}},
		{TopUp, Now, []ledger.PersonID{w.masha}, nil},
		{Pass, Now, nil, nil},
	} {
		if got := w.wishes(test.topic, test.mode, test.children...); !slices.Equal(got, test.want) {
			t.Errorf("%s %s of %v: %v, want %v", test.topic, test.mode, test.children, got, test.want)
		}
	}
}

func TestAWishForWhatDoesNotExistIsRefused(t *testing.T) {
	w := newWorld(t)
	w.set(w.mother, w.masha, Subscription{Pass, SMS, Now})
	for _, wanted := range []Subscription{{"", SMS, Now}, {Pass, "ussd", Now}, {Pass, SMS, "hourly"}} {
		err := w.tx(func(ctx context.Context, tx pgx.Tx) error {
			return Set(ctx, tx, w.mother, w.masha, []Subscription{wanted}, schoolday)
		})
		if !errors.Is(err, ErrSubscription) {
			t.Errorf("%v: %v", wanted, err)
		}
	}
	if got := w.of(w.mother, w.masha); !slices.Equal(got, []Subscription{{Pass, SMS, Now}}) {
		t.Errorf("what was wished before: %v", got)
	}
}

// Whatever is set in whatever order, the last page saved is what is read, in
// both directions of reading.
func TestTheLastPageSavedIsWhatIsRead(t *testing.T) {
	w := newWorld(t)
	pairs := []struct {
		who   access.RepresentativeID
		child ledger.PersonID
	}{{w.mother, w.masha}, {w.mother, w.petya}, {w.granny, w.masha}}
	saved := make([][]Subscription, len(pairs))
	rapid.Check(t, func(t *rapid.T) {
		for range rapid.IntRange(1, 4).Draw(t, "pages") {
			n := rapid.IntRange(0, len(pairs)-1).Draw(t, "pair")
			page := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Subscription {
				return Subscription{
					rapid.SampledFrom(Topics()).Draw(t, "topic"), rapid.SampledFrom(Channels()).Draw(t, "channel"),
					rapid.SampledFrom(Modes()).Draw(t, "mode"),
				}
			}), 0, 8).Draw(t, "page") // a wish may stand twice on a page
			if err := w.tx(func(ctx context.Context, tx pgx.Tx) error {
				return Set(ctx, tx, pairs[n].who, pairs[n].child, page, schoolday)
			}); err != nil {
				t.Fatal(err)
			}
			saved[n] = page
		}
		for n, pair := range pairs {
			want := slices.SortedFunc(slices.Values(saved[n]), func(a, b Subscription) int {
				return strings.Compare(fmt.Sprint(a.Topic, " ", a.Channel, " ", a.Mode), fmt.Sprint(b.Topic, " ", b.Channel, " ", b.Mode))
			})
			want = slices.Compact(want)
			if got := w.of(pair.who, pair.child); !slices.Equal(got, want) {
				t.Fatalf("of pair %d: %v, want %v", n, got, want)
			}
			for _, topic := range Topics() {
				for _, mode := range Modes() {
					wished := w.wishes(topic, mode, pair.child)
					for _, channel := range Channels() {
						listed := slices.Contains(wished, Wish{pair.child, pair.who, channel})
						if listed != slices.Contains(want, Subscription{topic, channel, mode}) {
							t.Fatalf("pair %d, %s %s %s: listed %t", n, topic, channel, mode, listed)
						}
					}
				}
			}
		}
	})
}

// Two pages saved at once: one of them stands, not a mixture.
func TestRacingPagesDoNotMix(t *testing.T) {
	w := newWorld(t)
	pages := [][]Subscription{
		{{Pass, SMS, Now}, {Hot, SMS, Now}, {Buffet, SMS, Now}},
		{{Pass, Email, Now}, {Hot, Email, Now}, {Buffet, Email, Now}},
	}
	for range 10 {
		errs := make(chan error, 2)
		for _, page := range pages {
			go func() {
				errs <- w.tx(func(ctx context.Context, tx pgx.Tx) error { return Set(ctx, tx, w.mother, w.masha, page, schoolday) })
			}()
		}
		for range pages {
			if err := <-errs; err != nil {
				t.Fatal(err)
			}
		}
		if got := w.of(w.mother, w.masha); len(got) != 3 || got[0].Channel != got[1].Channel || got[1].Channel != got[2].Channel {
			t.Fatalf("the pages are mixed: %v", got)
		}
	}
}

// spec/notices.md, Subscriptions: what a new representative begins with.
func TestANewcomerBeginsWithPassesTopUpsAndAThreshold(t *testing.T) {
	w := newWorld(t)
	welcome := func(newcomers ...Newcomer) {
		t.Helper()
		w.must(func(ctx context.Context, tx pgx.Tx) error { return Welcome(ctx, tx, newcomers) })
	}
	both := Newcomer{Child: w.masha, Representative: w.mother, Channels: []Channel{SMS, Email}}
	welcome(both, Newcomer{Child: w.petya, Representative: w.mother}, both)
	want := []Subscription{
		{Pass, Email, Now},
		{Pass, SMS, Now},
		{Threshold, Email, Now},
		{Threshold, SMS, Now},
		{TopUp, Email, Now},
		{TopUp, SMS, Now},
	}
	if got := w.of(w.mother, w.masha); !slices.Equal(got, want) {
		t.Errorf("with both channels ticked: %v, want %v", got, want)
	}
	first := []Subscription{{Pass, SMS, Now}, {Threshold, SMS, Now}, {TopUp, SMS, Now}}
	if got := w.of(w.mother, w.petya); !slices.Equal(got, first) {
		t.Errorf("without a tick: %v", got)
	}
	if got := w.threshold(w.mother, w.masha); got != "150.00" {
		t.Errorf("the threshold is %q", got)
	}
	// Who has wishes, or has chosen to have none, is left alone.
	w.set(w.granny, w.masha)
	w.set(w.mother, w.petya, Subscription{Hot, Push, Week})
	welcome(Newcomer{Child: w.masha, Representative: w.granny}, Newcomer{Child: w.petya, Representative: w.mother})
	if got := w.of(w.granny, w.masha); len(got) != 0 || w.threshold(w.granny, w.masha) != "" {
		t.Errorf("who wants nothing gets %v and the threshold %q", got, w.threshold(w.granny, w.masha))
	}
	if got := w.of(w.mother, w.petya); !slices.Equal(got, []Subscription{{Hot, Push, Week}}) {
		t.Errorf("who has chosen gets %v", got)
	}
	welcome()
}

// R22, R23: the ticks of the form are the applicant's.
func TestAnApplicationMakesNewcomers(t *testing.T) {
	t.Parallel()
	got := NewcomersOf(access.Application{Channels: []string{"email", "sms"}}, access.Taken{Granted: []access.Granted{
		{Child: 1, Representative: 10, Role: access.Legal},
		{Child: 1, Representative: 11, Role: access.Trusted},
		{Child: 1, Representative: 12, Role: access.Companion},
	}})
	want := []Newcomer{{Child: 1, Representative: 10, Channels: []Channel{Email, SMS}}, {Child: 1, Representative: 11}}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the newcomers are %v, want %v", got, want)
	}
}

func TestTheNextChannelIsTheNextInTheOrder(t *testing.T) {
	t.Parallel()
	order := []Step{{Push, time.Minute}, {SMS, DefaultPatience}, {Email, DefaultPatience}}
	for _, test := range []struct {
		sentence string
		order    []Step
		after    Channel
		want     Channel // "": none
	}{
		{"push is followed by SMS", order, Push, SMS},
		{"SMS is followed by e-mail", order, SMS, Email},
		{"nothing follows the last", order, Email, ""},
		{"nothing follows a channel that is not in the order", order[:2], Email, ""},
		{"nothing follows where there is no order", nil, SMS, ""},
	} {
		if got, ok := Next(test.order, test.after); got.Channel != test.want || ok != (test.want != "") {
			t.Errorf("%s: %v, %t", test.sentence, got, ok)
		}
	}
}

func TestAnOrderOfChannelsIsKeptAsGiven(t *testing.T) {
	w := newWorld(t)
	set := func(order ...Step) error {
		return w.tx(func(ctx context.Context, tx pgx.Tx) error { return SetFallback(ctx, tx, w.mother, order) })
	}
	order := []Step{{Push, time.Minute}, {SMS, 7 * time.Minute}}
	if err := set(Step{Email, time.Hour}, Step{Push, time.Hour}, Step{SMS, time.Hour}); err != nil {
		t.Fatal(err)
	}
	if err := set(order...); err != nil {
		t.Fatal(err)
	}
	for _, wrong := range [][]Step{
		{{SMS, DefaultPatience}, {SMS, DefaultPatience}},
		{{"ussd", DefaultPatience}},
		{{SMS, time.Second}},
		{{SMS, 61 * time.Minute}},
	} {
		if err := set(wrong...); !errors.Is(err, ErrFallback) {
			t.Errorf("%v: %v", wrong, err)
		}
	}
	got, err := Fallbacks(t.Context(), w.pool, []access.RepresentativeID{w.mother, w.granny})
	if err != nil || len(got) != 1 || !slices.Equal(got[w.mother], order) {
		t.Errorf("the orders are %v, %v", got, err)
	}
	if err := set(); err != nil {
		t.Fatal(err)
	}
	if got, err := Fallbacks(t.Context(), w.pool, []access.RepresentativeID{w.mother}); err != nil || len(got) != 0 {
		t.Errorf("after taking it back: %v, %v", got, err)
	}
}

// Wishes of a batch are read by the index, with a plan made for the arguments
// and with one made for any.
func TestWishesOfABatchUseTheIndexOnly(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	conn, err := pgx.Connect(ctx, pgtest.NewURL(t)) // the owner: the application may not ANALYZE
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	children := make([]string, 0, 500)
	for n := 1; n <= 500; n++ {
		children = append(children, fmt.Sprint(n*39))
	}
	if _, err := conn.Exec(ctx, `
		INSERT INTO ledger.organisation (id, code, kind, name, short_name, time_zone)
		VALUES (1, 's-1', 'school', 'School', 'School', 'Europe/Moscow');
		INSERT INTO ledger.person (id, code, organisation_id, kind, family_name, given_name)
		SELECT n, 'p-' || n, 1, 'pupil', 'Петрова', 'Мария' FROM generate_series(1, 20000) n;
		INSERT INTO access.representative (id, phone, family_name, given_name)
		SELECT n, 79000000000 + n, 'Петров', 'Олег' FROM generate_series(1, 20000) n;
		INSERT INTO subscription.subscription (child_id, topic, mode, representative_id, channel)
		SELECT n, topic, 'now', n, 'sms' FROM generate_series(1, 20000) n,
		       unnest(ARRAY['pass', 'topup', 'threshold', 'hot', 'buffet']) topic;
		ANALYZE subscription.subscription;
		PREPARE wishes (bigint[], text, text) AS
		SELECT child_id, representative_id, channel FROM subscription.subscription
		 WHERE child_id = ANY ($1) AND topic = $2 AND mode = $3 ORDER BY child_id, representative_id, channel`); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
		if _, err := conn.Exec(ctx, `SET plan_cache_mode = `+mode); err != nil {
			t.Fatal(err)
		}
		rows, err := conn.Query(ctx, `EXPLAIN EXECUTE wishes ('{`+strings.Join(children, ",")+`}', 'pass', 'now')`,
			pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			t.Fatal(err)
		}
		plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		if text := strings.Join(plan, "\n"); strings.Contains(text, "Seq Scan") || !strings.Contains(text, "subscription_pkey") {
			t.Errorf("%s:\n%s", mode, text)
		}
	}
}

// spec/practice.md: with the person go the wishes, the thresholds and the order of channels.
func TestTheWishesOfTheErasedAreForgotten(t *testing.T) {
	w := newWorld(t)
	w.must(func(ctx context.Context, tx pgx.Tx) error {
		if err := Welcome(ctx, tx, []Newcomer{
			{Child: w.masha, Representative: w.mother},
			{Child: w.petya, Representative: w.mother},
			{Child: w.masha, Representative: w.granny},
		}); err != nil {
			return err
		}
		return SetFallback(ctx, tx, w.mother, []Step{{Push, DefaultPatience}, {SMS, DefaultPatience}})
	})
	w.set(w.mother, w.petya, Subscription{Pass, SMS, Now})
	w.exec(`UPDATE access.representative SET erased_at = now(), phone = NULL WHERE id = $1`, w.mother)
	for _, want := range []int64{4, 0} {
		w.must(func(ctx context.Context, tx pgx.Tx) error {
			if got, err := Forget(ctx, tx); err != nil || got != want {
				t.Errorf("forgotten %d, %v, want %d", got, err, want)
			}
			return nil
		})
	}
	left := one[string](w, `SELECT concat_ws(' ', (SELECT count(*) FROM subscription.subscription),
		(SELECT count(*) FROM subscription.choice), (SELECT count(*) FROM subscription.fallback),
		(SELECT count(*) FROM ledger.threshold))`)
	if left != "3 0 0 1" {
		t.Errorf("wishes, choices, orders and thresholds left: %s, want 3 0 0 1", left)
	}
}
