package parent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"golang.org/x/time/rate"

	"zvonok/access"
	"zvonok/ledger/peer"
)

// Limits of guesses and floods, per address. Behind the one address of a mobile
// network stand thousands of parents, so these stop floods; guesses are stopped
// by the limits of each phone and each code (access.NewCode).
const (
	codeRate  = 1 // requests for codes a second
	codeBurst = 60
	tryRate   = 1 // codes typed a second
	tryBurst  = 60

	maxAddresses = 20_000 // remembered at a time
)

// The session's cookie. Over plain HTTP on this machine a browser may refuse the
// first, which demands TLS; there, and only there, the second stands in.
const (
	hostCookie  = "__Host-zvonok"
	plainCookie = "zvonok"
)

// guard decides where requests come from.
type guard struct {
	tls     bool // the world sees us by https
	proxies []netip.Prefix
	origins *http.CrossOriginProtection
	codes   limits
	tries   limits
}

func newGuard(publicURL string, proxies []netip.Prefix, now func() time.Time) (*guard, error) {
	g := &guard{
		proxies: proxies, origins: http.NewCrossOriginProtection(),
		codes: limits{rate: codeRate, burst: codeBurst, now: now, seen: map[netip.Prefix]*rate.Limiter{}},
		tries: limits{rate: tryRate, burst: tryBurst, now: now, seen: map[netip.Prefix]*rate.Limiter{}},
	}
	if publicURL == "" {
		return g, nil
	}
	public, err := url.Parse(publicURL)
	if err != nil {
		return nil, fmt.Errorf("the public address: %w", err)
	}
	g.tls = public.Scheme == "https"
	if err := g.origins.AddTrustedOrigin(public.Scheme + "://" + public.Host); err != nil {
		return nil, fmt.Errorf("the public address %q: %w", publicURL, err)
	}
	return g, nil
}

// address returns where a request comes from.
func (g *guard) address(r *http.Request) netip.Addr { return peer.Address(r, g.proxies) }

// local tells whether a browser on this machine talks to us in plain HTTP.
func (g *guard) local(r *http.Request) bool {
	if g.tls || r.TLS != nil {
		return false
	}
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	if host == "localhost" {
		return true
	}
	address, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && address.IsLoopback()
}

// cookie makes the session's cookie; an empty token ends it.
func (g *guard) cookie(r *http.Request, token access.Token, until time.Time, now time.Time) http.Cookie {
	c := http.Cookie{
		Name: hostCookie, Value: token.Reveal(), Path: "/", HttpOnly: true, Secure: true, SameSite: http.SameSiteLaxMode,
		MaxAge: int(until.Sub(now) / time.Second),
	}
	if g.local(r) {
		c.Name, c.Secure = plainCookie, false
	}
	if token == "" {
		c.MaxAge = -1
	}
	return c
}

// token returns the token of a request, and whether it came by cookie.
func (g *guard) token(r *http.Request) (token string, byCookie bool) {
	if authorization := r.Header.Get("Authorization"); authorization != "" {
		scheme, token, _ := strings.Cut(authorization, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return "", false
		}
		return strings.TrimSpace(token), false
	}
	name := hostCookie
	if g.local(r) {
		name = plainCookie
	}
	cookie, err := r.Cookie(name)
	if err != nil {
		return "", false
	}
	return cookie.Value, true
}

// limits are the rates of addresses. An IPv6 customer has a whole /64.
type limits struct {
	rate  rate.Limit
	burst int
	now   func() time.Time

	mu   sync.Mutex
	seen map[netip.Prefix]*rate.Limiter
}

func (l *limits) allow(address netip.Addr) bool {
	bits := address.BitLen()
	if address.Is6() {
		bits = 64
	}
	customer, err := address.Prefix(bits)
	if err != nil {
		return false // nobody knows where it comes from
	}
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	limiter := l.seen[customer]
	if limiter == nil {
		if len(l.seen) >= maxAddresses {
			l.forget(now)
		}
		limiter = rate.NewLimiter(l.rate, l.burst)
		l.seen[customer] = limiter
	}
	return limiter.AllowN(now, 1)
}

// forget drops the addresses that have their whole burst again; when there are
// none it drops all.
func (l *limits) forget(now time.Time) {
	for customer, limiter := range l.seen {
		if limiter.TokensAt(now) >= float64(l.burst) {
			delete(l.seen, customer)
		}
	}
	if len(l.seen) >= maxAddresses {
		clear(l.seen)
	}
}

// visitor is who asks.
type visitor struct {
	session  access.Session
	token    string
	byCookie bool // a browser's, on our pages
	request  *http.Request
	now      time.Time
}

type visitorKey struct{}

// visitorOf returns the visitor that a middleware has put into the context.
func visitorOf(ctx context.Context) visitor {
	v, _ := ctx.Value(visitorKey{}).(visitor)
	return v
}

// fromHere makes the visitor, and refuses changes that another origin's page
// makes a browser send (V3.5). Programs, which are no browsers, send no origin.
func (s routes) fromHere(ctx huma.Context, next func(huma.Context)) {
	request, _ := humago.Unwrap(ctx)
	if err := s.guard.origins.Check(request); err != nil {
		s.refuse(ctx, errOrigin)
		return
	}
	next(huma.WithValue(ctx, visitorKey{}, visitor{request: request, now: s.now()}))
}

// signedIn finds the session, or refuses.
func (s routes) signedIn(huma.API) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		v := visitorOf(ctx.Context())
		token, byCookie := s.guard.token(v.request)
		if token == "" {
			s.refuse(ctx, access.ErrNoSession)
			return
		}
		// A browser names the origin of every change it sends; what it does not
		// name is not a browser's, and has no business with a cookie.
		if byCookie && !safe(v.request.Method) && v.request.Header.Get("Origin") == "" &&
			v.request.Header.Get("Sec-Fetch-Site") == "" {
			s.refuse(ctx, errOrigin)
			return
		}
		asking, cancel := context.WithTimeout(ctx.Context(), requestTime)
		defer cancel()
		session, err := s.session(asking, token, v.now)
		if err != nil {
			s.refuse(ctx, err)
			return
		}
		v.session, v.token, v.byCookie = session, token, byCookie
		next(huma.WithValue(ctx, visitorKey{}, v))
	}
}

func (s routes) session(ctx context.Context, token string, now time.Time) (access.Session, error) {
	leave, err := s.turn(ctx)
	if err != nil {
		return access.Session{}, err
	}
	defer leave()
	return access.SessionOf(ctx, s.pool, token, now)
}

func safe(method string) bool { return method == http.MethodGet || method == http.MethodHead }

// refuse answers from a middleware.
func (s routes) refuse(ctx huma.Context, err error) {
	problem := s.problem(ctx.Context(), err)
	var headers huma.HeadersError
	if errors.As(problem, &headers) {
		for name, values := range headers.GetHeaders() {
			for _, value := range values {
				ctx.SetHeader(name, value)
			}
		}
	}
	// problem makes nothing else.
	var document *huma.ErrorModel
	if !errors.As(problem, &document) {
		document = &huma.ErrorModel{Status: http.StatusInternalServerError}
	}
	details := make([]error, len(document.Errors))
	for i, detail := range document.Errors {
		details[i] = detail
	}
	_ = huma.WriteErr(s.api, ctx, document.Status, document.Detail, details...) // the asker may have gone
}
