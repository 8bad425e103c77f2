package parent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"

	"zvonok/access"
	"zvonok/access/reader"
	"zvonok/gateway/delivery"
	"zvonok/gateway/push"
	"zvonok/ledger"
	"zvonok/ledger/meal"
	"zvonok/ledger/pg"
	"zvonok/templates"
)

// Limits of the API.
const (
	prefix = "/api/v1/parent"

	maxBody     = 64 << 10 // octets; the longest honest body is a list of wishes
	bodyTime    = 5 * time.Second
	requestTime = 10 * time.Second // of the database, per request
	retryAfter  = 5                // seconds, told with 503

	// Parents share the pool of connections with doors and tills, and must leave
	// them most of it on the evening on which everybody looks.
	poolShare = 3 // a third of the connections
	slotTime  = 2 * time.Second
)

// API is the parents' API.
type API struct {
	pool      *pgxpool.Pool
	read      *pg.Reader
	river     *river.Client[pgx.Tx]
	desk      *delivery.Desk
	book      *ledger.Book
	canteen   *meal.Canteen
	push      *push.Sender
	intake    *reader.Intake
	decisions *access.Decisions
	texts     func() *templates.Texts
	views     *access.ViewLog
	guard     *guard
	slots     chan struct{} // requests under way
	log       *slog.Logger
	metrics   *Metrics
	now       func() time.Time
	silence   time.Duration
}

// Config is what an API needs.
type Config struct {
	Pool    *pgxpool.Pool
	Read    *pg.Reader // where visits, meals and movements are read from, a replica for instance; nil: Pool
	River   *river.Client[pgx.Tx]
	Desk    *delivery.Desk
	Book    *ledger.Book
	Canteen *meal.Canteen
	Push    *push.Sender
	Intake  *reader.Intake // knows the staff tablets, at which applications are keyed in
	// Texts are the texts of the moment; nil: the built-in ones.
	Texts func() *templates.Texts
	// PublicURL is our HTTP listener as the world sees it; "" when it is not told.
	PublicURL string
	// Silence is after how long without a sign of life a phone counts as possibly another's (access.Hear); 0 is never.
	Silence time.Duration
	// Proxies are ours: what the last of them says in X-Forwarded-For is believed.
	Proxies []netip.Prefix
	Log     *slog.Logger
	Metrics *Metrics
	Now     func() time.Time
}

// New returns an API. It fails when PublicURL is not an origin.
func New(c Config) (*API, error) {
	if c.Texts == nil {
		c.Texts = templates.Builtin
	}
	if c.Read == nil {
		c.Read = pg.NewReader(c.Pool)
	}
	guard, err := newGuard(c.PublicURL, c.Proxies, c.Now)
	if err != nil {
		return nil, err
	}
	return &API{
		pool: c.Pool, read: c.Read, river: c.River, desk: c.Desk, book: c.Book, canteen: c.Canteen, push: c.Push, intake: c.Intake, decisions: access.NewDecisions(c.River), texts: c.Texts,
		views: access.NewViewLog(c.Pool), guard: guard,
		slots: make(chan struct{}, max(2, int(c.Pool.Config().MaxConns)/poolShare)), log: c.Log, metrics: c.Metrics, now: c.Now,
		silence: c.Silence,
	}, nil
}

// Close waits for what is being written, after the listener has ended.
func (a *API) Close() { a.views.Close() }

// The names of the ways to sign requests in the OpenAPI document.
const (
	tokenScheme  = "parentToken"
	cookieScheme = "parentCookie"
	staffScheme  = "staffKey"
)

// Register puts the API's routes on an API object and describes them there.
func (a *API) Register(api huma.API) {
	description := api.OpenAPI()
	if description.Components.SecuritySchemes == nil {
		description.Components.SecuritySchemes = map[string]*huma.SecurityScheme{}
	}
	description.Components.SecuritySchemes[tokenScheme] = &huma.SecurityScheme{
		Type: "http", Scheme: "bearer", Description: "The token that POST " + prefix + "/session has answered with.",
	}
	description.Components.SecuritySchemes[cookieScheme] = &huma.SecurityScheme{
		Type: "apiKey", In: "cookie", Name: hostCookie,
		Description: "The same token, as a browser keeps it. Requests that change something must come from our own origin.",
	}
	description.Components.SecuritySchemes[staffScheme] = &huma.SecurityScheme{
		Type: "http", Scheme: "bearer",
		Description: "The key of a staff tablet; the header Staff says who is at it, by the registry's id.",
	}
	description.Components.Schemas.RegisterTypeAlias(reflect.TypeFor[access.Date](), reflect.TypeFor[date]())
	s := routes{a, api}
	s.signIn()
	s.children()
	s.meals()
	s.money()
	s.circle()
	s.invitations()
	s.consents()
	s.wishes()
	s.self()
	s.browsers()
	s.messages()
	s.applications()
	s.petitions()
	s.decide()
}

// routes registers routes on an API object.
type routes struct {
	*API
	api huma.API
}

// route is one route, apart from what it does.
type route struct {
	method, path  string
	id            string // the operation's name in the document
	summary, text string
	status        int  // of success; 0: 200, or 204 without a body
	open          bool // needs no session
	errors        []int
}

// operation completes a route for the document.
func (s routes) operation(r route) huma.Operation {
	op := huma.Operation{
		OperationID: r.id, Method: r.method, Path: prefix + r.path, Summary: r.summary, Description: r.text,
		Tags: []string{"parents"}, DefaultStatus: r.status, MaxBodyBytes: maxBody, BodyReadTimeout: bodyTime,
		Errors:      append(r.errors, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusServiceUnavailable),
		Middlewares: huma.Middlewares{s.measured, s.fromHere},
	}
	if r.method != http.MethodGet && r.method != http.MethodDelete {
		op.Errors = append(op.Errors, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity)
	}
	if !r.open {
		op.Security = []map[string][]string{{tokenScheme: {}}, {cookieScheme: {}}}
		op.Errors = append(op.Errors, http.StatusUnauthorized)
		op.Middlewares = append(op.Middlewares, s.signedIn(s.api))
	}
	if strings.Contains(r.path, "{") {
		op.Errors = append(op.Errors, http.StatusNotFound)
	}
	if r.method != http.MethodGet {
		op.Errors = append(op.Errors, http.StatusForbidden)
	}
	return op
}

// shown is an answer with a body. Personal pages are kept by nobody (V14.3.2).
type shown[T any] struct {
	CacheControl string `header:"Cache-Control"`
	Body         T
}

// done is an answer without one.
type done struct {
	CacheControl string `header:"Cache-Control"`
}

const noStore = "no-store"

// show registers a route that answers with a document.
func show[I, O any](s routes, r route, serve func(context.Context, visitor, *I) (O, error)) {
	huma.Register(s.api, s.operation(r), func(ctx context.Context, in *I) (*shown[O], error) {
		ctx, cancel := context.WithTimeout(ctx, requestTime)
		defer cancel()
		leave, err := s.turn(ctx)
		if err != nil {
			return nil, s.problem(ctx, err)
		}
		defer leave()
		body, err := serve(ctx, visitorOf(ctx), in)
		if err != nil {
			return nil, s.problem(ctx, err)
		}
		return &shown[O]{noStore, body}, nil
	})
}

// do registers a route that answers with nothing but success.
func do[I any](s routes, r route, serve func(context.Context, visitor, *I) error) {
	r.status = http.StatusNoContent
	huma.Register(s.api, s.operation(r), func(ctx context.Context, in *I) (*done, error) {
		ctx, cancel := context.WithTimeout(ctx, requestTime)
		defer cancel()
		leave, err := s.turn(ctx)
		if err != nil {
			return nil, s.problem(ctx, err)
		}
		defer leave()
		if err := serve(ctx, visitorOf(ctx), in); err != nil {
			return nil, s.problem(ctx, err)
		}
		return &done{noStore}, nil
	})
}

// turn waits until the request may ask the database, and returns how to give the
// turn back. It is taken after the body has been read: a slow body takes nobody's.
func (a *API) turn(ctx context.Context) (leave func(), err error) {
	wait := time.NewTimer(slotTime)
	defer wait.Stop()
	select {
	case a.slots <- struct{}{}:
		return func() { <-a.slots }, nil
	case <-wait.C:
		return nil, errBusy
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// write runs a change in one transaction.
func (a *API) write(ctx context.Context, change func(tx pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, a.pool, change)
}

// errKept is an error whose transaction is committed all the same: a wrong try
// has been counted.
type errKept struct{ error }

// writeKept is write for changes that are kept when they end with an errKept.
func (a *API) writeKept(ctx context.Context, change func(tx pgx.Tx) error) error {
	var kept errKept
	err := a.write(ctx, func(tx pgx.Tx) error {
		err := change(tx)
		if errors.As(err, &kept) {
			return nil
		}
		return err
	})
	if err == nil && kept.error != nil {
		return kept.error
	}
	return err
}

// look writes the looks of a visitor at children to the access log, all of them
// in one statement. What follows an error is not shown.
func (a *API) look(ctx context.Context, v visitor, what string, children ...ledger.PersonID) error {
	views := make([]access.View, len(children))
	channel := access.API
	if v.byCookie {
		channel = access.Portal
	}
	for i, child := range children {
		views[i] = access.View{
			Who: access.ByRepresentative(v.session.Representative.ID), Child: child, What: what, Channel: channel, At: v.now,
		}
	}
	if err := a.views.Write(ctx, views...); err != nil {
		return fmt.Errorf("note a look at %s: %w", what, err)
	}
	return nil
}
