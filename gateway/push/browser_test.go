package push_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"zvonok/access"
	"zvonok/gateway/push"
	"zvonok/gateway/push/pushtest"
	"zvonok/ledger/pg/pgtest"
)

func people(t *testing.T, n int) (*pgxpool.Pool, []access.RepresentativeID) {
	t.Helper()
	pool := pgtest.New(t)
	rows, err := pool.Query(t.Context(), `
		INSERT INTO access.representative (phone, family_name, given_name)
		SELECT '790000000' || lpad(n::text, 2, '0'), 'Петрова', 'Ольга' FROM generate_series(1, $1) n RETURNING id`, n)
	if err != nil {
		t.Fatal(err)
	}
	who, err := pgx.CollectRows(rows, pgx.RowTo[access.RepresentativeID])
	if err != nil {
		t.Fatal(err)
	}
	return pool, who
}

func (r *rig) register(t *testing.T, pool *pgxpool.Pool, who access.RepresentativeID, sub push.Subscription) error {
	t.Helper()
	return pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error { return r.sender.Register(t.Context(), tx, who, sub, r.now) })
}

func subscription(b *pushtest.Browser, device string) push.Subscription {
	return push.Subscription{Endpoint: b.URL, P256dh: b.P256dh, Auth: b.Auth, Device: device}
}

func TestABrowserIsRegisteredListedAndRemoved(t *testing.T) {
	r := newRig(t)
	pool, who := people(t, 2)
	phone, laptop := r.service.Subscribe(), r.service.Subscribe()
	for i, sub := range []push.Subscription{
		subscription(phone, "Chrome\r\n Android"), subscription(laptop, "Firefox"), subscription(phone, "Chrome 2"), // at every visit
	} {
		r.now = noon.Add(time.Duration(i) * time.Minute)
		if err := r.register(t, pool, who[0], sub); err != nil {
			t.Fatal(err)
		}
	}
	list, err := push.List(t.Context(), pool, who[0])
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 2 || list[0].Device != "Chrome 2" || list[1].Device != "Firefox" {
		t.Fatalf("the list is %+v", list)
	}
	// The laptop is signed in to by the other parent: it reads that one's news from now on.
	if err := r.register(t, pool, who[1], subscription(laptop, "Firefox")); err != nil {
		t.Fatal(err)
	}
	if err := push.Remove(t.Context(), pool, who[0], laptop.URL); err != nil { // no longer his to remove
		t.Fatal(err)
	}
	found, err := push.Endpoints(t.Context(), pool, []string{push.Address(who[0]), push.Address(who[1]), "r999", "+79000000001"})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != 2 || found[push.Address(who[0])][0].URL != phone.URL || found[push.Address(who[1])][0].URL != laptop.URL {
		t.Fatalf("found %+v", found)
	}
	if there, err := push.RemoveID(t.Context(), pool, who[0], found[push.Address(who[1])][0].ID); err != nil || there {
		t.Fatalf("somebody else's browser was removed (%v)", err)
	}
	if err := push.Remove(t.Context(), pool, who[0], phone.URL); err != nil {
		t.Fatal(err)
	}
	reachable, err := push.Reachable(t.Context(), pool, who)
	if err != nil || len(reachable) != 1 || !reachable[who[1]] {
		t.Fatalf("reachable: %v, %v", reachable, err)
	}
}

func TestARecipientHasTenBrowsersAndTheLongestUnheardOfGoes(t *testing.T) {
	r := newRig(t)
	pool, who := people(t, 1)
	for i := range 12 {
		r.now = noon.Add(time.Duration(i) * time.Minute)
		if err := r.register(t, pool, who[0], subscription(r.service.Subscribe(), fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	list, err := push.List(t.Context(), pool, who[0])
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 10 || list[9].Device != "2" {
		t.Fatalf("%d browsers, the oldest is %q", len(list), list[len(list)-1].Device)
	}
}

func TestAHostileSubscriptionIsRefused(t *testing.T) {
	r := newRig(t)
	pool, who := people(t, 1)
	good := r.service.Subscribe()
	for name, change := range map[string]func(*push.Subscription){
		"http":                  func(s *push.Subscription) { s.Endpoint = "http" + strings.TrimPrefix(s.Endpoint, "https") },
		"our own admin":         func(s *push.Subscription) { s.Endpoint = "https://127.0.0.1:9090/recall" },
		"the cloud's metadata":  func(s *push.Subscription) { s.Endpoint = "https://169.254.169.254/latest" },
		"a number as a host":    func(s *push.Subscription) { s.Endpoint = "https://2130706433/" },
		"another port":          func(s *push.Subscription) { s.Endpoint = "https://fcm.googleapis.com:8443/fcm/send/x" },
		"a login":               func(s *push.Subscription) { s.Endpoint = "https://fcm.googleapis.com@example.org/x" },
		"a login before":        func(s *push.Subscription) { s.Endpoint = "https://a:b@fcm.googleapis.com/x" },
		"a name that only ends": func(s *push.Subscription) { s.Endpoint = "https://evilfcm.googleapis.com/x" },
		"a name that begins":    func(s *push.Subscription) { s.Endpoint = "https://fcm.googleapis.com.example.org/x" },
		"a name below nothing":  func(s *push.Subscription) { s.Endpoint = "https://evilpush.apple.com/x" },
		"a backslash":           func(s *push.Subscription) { s.Endpoint = `https://example.org\@fcm.googleapis.com/x` },
		"a line break":          func(s *push.Subscription) { s.Endpoint += "\r\nX: y" },
		"no host":               func(s *push.Subscription) { s.Endpoint = "https:///x" },
		"a file":                func(s *push.Subscription) { s.Endpoint = "file:///etc/passwd" },
		"too long":              func(s *push.Subscription) { s.Endpoint += strings.Repeat("a", 2000) },
		"no key":                func(s *push.Subscription) { s.P256dh = "" },
		"a point off the curve": func(s *push.Subscription) {
			s.P256dh = base64.RawURLEncoding.EncodeToString(slices.Repeat([]byte{4}, 65))
		},
		"a short secret":     func(s *push.Subscription) { s.Auth = "AAAA" },
		"a secret of a page": func(s *push.Subscription) { s.Auth = strings.Repeat("A", 1<<20) },
	} {
		sub := subscription(good, "x")
		change(&sub)
		if err := r.register(t, pool, who[0], sub); !errors.Is(err, push.ErrSubscription) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, endpoint := range []string{
		"https://fcm.googleapis.com/fcm/send/abc:def", "https://updates.push.services.mozilla.com/wpush/v2/abc",
		"https://web.push.apple.com/abc", "https://wns2-par02p.notify.windows.com/w/?token=abc%3d",
	} {
		sub := subscription(good, "x")
		sub.Endpoint = endpoint
		if err := r.register(t, pool, who[0], sub); err != nil {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
}

func TestABrowserThatIsGoneOrRefusesEverythingIsForgotten(t *testing.T) {
	r := newRig(t)
	pool, who := people(t, 1)
	for range 3 {
		if err := r.register(t, pool, who[0], subscription(r.service.Subscribe(), "")); err != nil {
			t.Fatal(err)
		}
	}
	found, err := push.Endpoints(t.Context(), pool, []string{push.Address(who[0])})
	if err != nil {
		t.Fatal(err)
	}
	ids := found[push.Address(who[0])]
	learn := func(o push.Outcomes) {
		t.Helper()
		if err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error { return push.Learn(t.Context(), tx, o, noon) }); err != nil {
			t.Fatal(err)
		}
	}
	left := func() int {
		list, err := push.List(t.Context(), pool, who[0])
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	learn(push.Outcomes{Gone: []push.BrowserID{ids[0].ID}})
	if left() != 2 {
		t.Fatalf("%d browsers are left after one was gone", left())
	}
	for range 4 {
		learn(push.Outcomes{Refused: []push.BrowserID{ids[1].ID, ids[2].ID}})
	}
	learn(push.Outcomes{Taken: []push.BrowserID{ids[2].ID}})
	learn(push.Outcomes{Refused: []push.BrowserID{ids[1].ID, ids[2].ID}})
	list, err := push.List(t.Context(), pool, who[0])
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 1 || list[0].ID != ids[2].ID || list[0].Used == nil {
		t.Fatalf("left: %+v", list)
	}
}
