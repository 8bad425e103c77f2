package notice

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	_ "embed" // unsubscribe.html
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/time/rate"

	"zvonok/gateway/delivery"
	"zvonok/gateway/subscription"
)

// Limits of the unsubscribe page.
const (
	unsubscribeBody    = 4 << 10 // octets of a POST; RFC 8058 sends some thirty
	unsubscribeRate    = 20      // opt-outs written a second, over all addresses: a flood must not take the database
	unsubscribeBurst   = 100
	unsubscribeMemory  = 10_000 // addresses whose repetition is answered without the database
	unsubscribeTimeout = 5 * time.Second
	longestToken       = 512 // octets; an address has at most 254
)

// UnsubscribePath is where the page is to be mounted.
const UnsubscribePath = "/unsubscribe/"

// Unsubscribe ends letters to an address: a page that explains (GET), and the
// one click of RFC 8058 (POST), which mail programs send by themselves.
//
// A link holds the address, encrypted and authenticated: nobody can make one for
// an address he was not written to, read the address out of a log, or learn
// whether an address is known, since every genuine link is answered alike. It
// does not expire: the right to be left alone does not either.
type Unsubscribe struct {
	pool    *pgxpool.Pool
	base    string
	seal    cipher.AEAD
	nonces  []byte
	limiter *rate.Limiter
	log     *slog.Logger
	now     func() time.Time

	mu   sync.Mutex
	done map[string]struct{} // addresses that were opted out lately
}

// UnsubscribeConfig is what an Unsubscribe needs.
type UnsubscribeConfig struct {
	Pool *pgxpool.Pool
	Base string // the address of our HTTP listener as the world sees it, "https://pass.example.org"
	// Key is a secret of at least 32 octets that outlives the process. Links made with another key are dead.
	Key []byte
	Log *slog.Logger
	Now func() time.Time
}

// NewUnsubscribe returns an Unsubscribe. It fails when the key is too short.
func NewUnsubscribe(c UnsubscribeConfig) (*Unsubscribe, error) {
	if len(c.Key) < 32 {
		return nil, errors.New("the key of unsubscribe links has fewer than 32 octets")
	}
	secret, err := hkdf.Key(sha256.New, c.Key, nil, "unsubscribe links", 64)
	if err != nil {
		return nil, fmt.Errorf("derive the key of unsubscribe links: %w", err)
	}
	block, err := aes.NewCipher(secret[:32])
	if err != nil {
		return nil, fmt.Errorf("derive the key of unsubscribe links: %w", err)
	}
	seal, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("derive the key of unsubscribe links: %w", err)
	}
	return &Unsubscribe{
		pool: c.Pool, base: strings.TrimRight(c.Base, "/"), seal: seal, nonces: secret[32:],
		limiter: rate.NewLimiter(unsubscribeRate, unsubscribeBurst), log: c.Log, now: c.Now, done: map[string]struct{}{},
	}, nil
}

// URL is the link that ends letters to an address, always the same for one
// address; "" without a base. It is for delivery.MailerConfig.Unsubscribe.
func (u *Unsubscribe) URL(address string) string {
	if u.base == "" {
		return ""
	}
	// The nonce is made of the address, so a nonce is never used for two.
	mac := hmac.New(sha256.New, u.nonces)
	mac.Write([]byte(address))
	nonce := mac.Sum(nil)[:u.seal.NonceSize()]
	return u.base + UnsubscribePath + base64.RawURLEncoding.EncodeToString(u.seal.Seal(nonce, nonce, []byte(address), nil))
}

// open reads the address out of a token.
func (u *Unsubscribe) open(token string) (string, bool) {
	if len(token) > longestToken {
		return "", false
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(sealed) < u.seal.NonceSize() {
		return "", false
	}
	address, err := u.seal.Open(nil, sealed[:u.seal.NonceSize()], sealed[u.seal.NonceSize():], nil)
	return string(address), err == nil
}

// ServeHTTP answers GET with the page and POST with the opt-out. Nothing needs a
// session, since a mail program has none (RFC 8058 section 3.2).
func (u *Unsubscribe) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Robots-Tag", "noindex")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'")
	address, ok := u.open(strings.TrimPrefix(r.URL.Path, UnsubscribePath))
	if !ok {
		u.show(w, r, http.StatusNotFound, "dead")
		return
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		u.show(w, r, http.StatusOK, "ask")
	case http.MethodPost:
		// The body says List-Unsubscribe=One-Click, or comes from the page's own
		// form; the link alone is the permission, so it is not looked at.
		r.Body = http.MaxBytesReader(w, r.Body, unsubscribeBody)
		if err := r.ParseForm(); err != nil {
			u.show(w, r, http.StatusRequestEntityTooLarge, "dead")
			return
		}
		u.end(w, r, address)
	default:
		h.Set("Allow", "GET, HEAD, POST")
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

// end opts an address out. Repetitions cost nothing.
func (u *Unsubscribe) end(w http.ResponseWriter, r *http.Request, address string) {
	if u.seen(address) {
		u.show(w, r, http.StatusOK, "done")
		return
	}
	if !u.limiter.AllowN(u.now(), 1) {
		w.Header().Set("Retry-After", "10")
		u.show(w, r, http.StatusTooManyRequests, "later")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), unsubscribeTimeout)
	defer cancel()
	if err := delivery.OptOut(ctx, u.pool, subscription.Email, address, "unsubscribe", u.now()); err != nil {
		u.log.Warn("unsubscribe", "error", err)
		w.Header().Set("Retry-After", "60")
		u.show(w, r, http.StatusServiceUnavailable, "later")
		return
	}
	u.remember(address)
	u.show(w, r, http.StatusOK, "done")
}

func (u *Unsubscribe) seen(address string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	_, ok := u.done[address]
	return ok
}

// remember keeps an address until there are too many: then all are forgotten,
// and each costs one more write.
func (u *Unsubscribe) remember(address string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.done) >= unsubscribeMemory {
		clear(u.done)
	}
	u.done[address] = struct{}{}
}

//go:embed unsubscribe.html
var unsubscribeHTML string

var unsubscribePage = template.Must(template.New("unsubscribe").Parse(unsubscribeHTML))

// show writes the page in the language the reader's browser asks for.
func (u *Unsubscribe) show(w http.ResponseWriter, r *http.Request, status int, what string) {
	language := "ru"
	if strings.HasPrefix(strings.ToLower(strings.TrimSpace(r.Header.Get("Accept-Language"))), "en") {
		language = "en"
	}
	var page bytes.Buffer
	if err := unsubscribePage.Execute(&page, map[string]any{
		"Language": language, "English": language == "en", "What": what,
	}); err != nil {
		u.log.Error("render the unsubscribe page", "error", err)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(page.Bytes()) // the reader may have gone
	}
}
