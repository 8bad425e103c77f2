package notice

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"zvonok/gateway/delivery"
	"zvonok/gateway/subscription"
	"zvonok/ledger/pg/pgtest"
)

func newUnsubscribe(t *testing.T, pool *pgxpool.Pool, key byte) *Unsubscribe {
	t.Helper()
	u, err := NewUnsubscribe(UnsubscribeConfig{
		Pool: pool, Base: "https://pass.example.org/", Key: bytes.Repeat([]byte{key}, 32),
		Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return morning },
	})
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// ask sends a request to a link.
func ask(u *Unsubscribe, method, url, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, url, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	u.ServeHTTP(w, r)
	return w
}

func optedOut(t *testing.T, pool *pgxpool.Pool, address string) bool {
	t.Helper()
	health, err := delivery.HealthOf(t.Context(), pool, subscription.Email, []string{address})
	if err != nil {
		t.Fatal(err)
	}
	return health[address].OptedOut
}

func TestOneClickEndsTheLettersToAnAddress(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	u := newUnsubscribe(t, pool, 1)
	url := u.URL("mother@example.org")
	if !strings.HasPrefix(url, "https://pass.example.org/unsubscribe/") || strings.Contains(url, "mother") {
		t.Errorf("the link is %s", url)
	}
	if url != u.URL("mother@example.org") {
		t.Error("the link of an address changes")
	}
	// A GET, as by a program that looks at links, only explains.
	page := ask(u, http.MethodGet, url, "")
	if page.Code != http.StatusOK || !strings.Contains(page.Body.String(), "Отключить письма") {
		t.Errorf("GET answers %d %s", page.Code, page.Body)
	}
	if optedOut(t, pool, "mother@example.org") {
		t.Fatal("a GET ended the letters")
	}
	for range 2 { // RFC 8058 section 3.1; a repetition is answered alike
		if w := ask(u, http.MethodPost, url, "List-Unsubscribe=One-Click"); w.Code != http.StatusOK {
			t.Errorf("POST answers %d", w.Code)
		}
	}
	if !optedOut(t, pool, "mother@example.org") {
		t.Error("the letters go on")
	}
	if page := ask(u, http.MethodGet, url, "", "Accept-Language", "en-GB,en"); !strings.Contains(page.Body.String(), "Stop the letters") {
		t.Errorf("in English the page is %s", page.Body)
	}
}

func TestOnlyAGenuineLinkEndsLetters(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	u := newUnsubscribe(t, pool, 1)
	genuine := u.URL("mother@example.org")
	for name, url := range map[string]string{
		"nothing":           "https://pass.example.org/unsubscribe/",
		"no base64":         "https://pass.example.org/unsubscribe/%21%21",
		"the bare address":  "https://pass.example.org/unsubscribe/mother@example.org",
		"a changed octet":   genuine[:len(genuine)-2] + "AA",
		"of another key":    newUnsubscribe(t, pool, 2).URL("mother@example.org"),
		"longer than sense": genuine + strings.Repeat("A", 10_000),
	} {
		if w := ask(u, http.MethodPost, url, "List-Unsubscribe=One-Click"); w.Code != http.StatusNotFound {
			t.Errorf("%s is answered by %d", name, w.Code)
		}
	}
	if optedOut(t, pool, "mother@example.org") {
		t.Error("a link that is not genuine ended the letters")
	}
	if w := ask(u, http.MethodDelete, genuine, ""); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("DELETE is answered by %d", w.Code)
	}
	if w := ask(u, http.MethodPost, genuine, strings.Repeat("x", 100_000)); w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("a huge body is answered by %d", w.Code)
	}
}

func TestAKnownAndAnUnknownAddressAreAnsweredAlike(t *testing.T) {
	t.Parallel()
	b := setup(t)
	u := newUnsubscribe(t, b.pool, 1)
	known := ask(u, http.MethodPost, u.URL("mother@example.org"), "")
	unknown := ask(u, http.MethodPost, u.URL("nobody@example.org"), "")
	if known.Code != unknown.Code || known.Body.String() != unknown.Body.String() {
		t.Error("the answers tell which address is known")
	}
}

func TestAFloodOfOptOutsIsHeldBackFromTheDatabase(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	u := newUnsubscribe(t, pool, 1)
	url := u.URL("mother@example.org")
	// The clock stands still, so however long it takes, nothing becomes free again.
	codes := map[int]int{}
	for i := range unsubscribeBurst + 50 {
		codes[ask(u, http.MethodPost, u.URL(strings.Repeat("x", i+1)+"@example.org"), "").Code]++
	}
	if codes[http.StatusOK] != unsubscribeBurst || codes[http.StatusTooManyRequests] != 50 {
		t.Errorf("answers %v, want %d taken and 50 put off", codes, unsubscribeBurst)
	}
	// What was taken stays taken, and is answered without the database.
	if w := ask(u, http.MethodPost, u.URL("x@example.org"), ""); w.Code != http.StatusOK {
		t.Errorf("a repetition during the flood is answered by %d", w.Code)
	}
	if w := ask(u, http.MethodPost, url, ""); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" {
		t.Errorf("a new one during the flood is answered by %d", w.Code)
	}
}

func FuzzALinkIsEitherOpenedOrRefused(f *testing.F) {
	u, err := NewUnsubscribe(UnsubscribeConfig{Base: "https://pass.example.org", Key: bytes.Repeat([]byte{1}, 32)})
	if err != nil {
		f.Fatal(err)
	}
	genuine := u.URL("mother@example.org")
	f.Add("")
	f.Add("AAAA")
	f.Add(strings.TrimPrefix(genuine, "https://pass.example.org"+UnsubscribePath))
	f.Fuzz(func(t *testing.T, token string) {
		if address, ok := u.open(token); ok && u.URL(address) != "https://pass.example.org"+UnsubscribePath+token {
			t.Errorf("a second link of %q is taken", address)
		}
	})
}
