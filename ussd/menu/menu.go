// Package menu is what *377*888# shows (R50): the first screen, which answers at once, and behind its keys the meals,
// the visits, the switch of SMS, the account, how to top it up, the language, and who else has access.
//
// Each screen is made anew when it is shown. First it is asked who owns the phone and which children that person may
// see at this moment (access.ChildrenOf, D14); a screen about a child that is not among them any more is the neutral
// text. Then a few rows are read, each by its key or by an index over one person, whatever the size of history, and
// the words are taken from package templates.
//
// The promises:
//
//   - An unknown phone, a phone whose consents are withdrawn and a trusted person who was removed cost the same
//     questions and read the same text, in a language that does not depend on what we know of them. A phone that the
//     operator has declared dead and that lives again reads it too until its owner is confirmed, two rows later.
//   - Every view of a child's data is written to the access log. The answer does not wait for it: the log is written
//     in batches a moment later, and screens are refused when it cannot be written for long.
//   - What a consent does not cover, visits or money, is neither read nor shown.
//   - A key that changes something (SMS on and off, language) may be repeated without harm.
package menu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"zvonok/access"
	"zvonok/access/phone"
	"zvonok/gateway/delivery"
	"zvonok/ledger"
	"zvonok/ledger/pg"
	"zvonok/templates"
	"zvonok/ussd"
)

// Limits of what is read and sent.
const (
	schoolDays  = 5                      // shown of the visits
	lookBack    = 14                     // days among which they are looked for: the longest holidays but the summer's
	movements   = 5                      // shown of an account
	smsPerDay   = 10                     // answers by SMS a phone may ask for on a day
	smsChildren = 5                      // children told of by one request
	askers      = 100_000                // phones remembered for smsPerDay
	dayLength   = 24 * time.Hour         // of smsPerDay
	viewsAtOnce = 500                    // written to the access log in one statement
	viewsKept   = 20 * viewsAtOnce       // not yet written; with more, screens are refused
	viewsWait   = 200 * time.Millisecond // between two statements
	viewsRetry  = time.Second            // after one that failed
	viewsTime   = 5 * time.Second        // for one statement
)

// Names of screens and actions, as places of the engine. The argument is the child's id.
const (
	placeChild    = "child"
	placeMeals    = "meals"
	placeVisits   = "visits"
	placeSMS      = "sms"
	placeSMSOn    = "sms on"
	placeSMSOff   = "sms off"
	placeHistory  = "history"
	placeTopUp    = "topup"
	placeAccess   = "access"
	placeLanguage = "language"
	placeRussian  = "language ru"
	placeEnglish  = "language en"
	placeLatin    = "language latin"
)

// Config is what a Menu needs. All of Pool, Send, Code, Log and Metrics are required.
type Config struct {
	Pool *pgxpool.Pool
	// Read is where screens are read from, a replica for instance; Pool when nil. Rights and what a key changes are
	// always asked of and written to Pool.
	Read pg.Querier
	// Send sends an SMS to the owner of a phone who asked for it (*377*888*4#).
	Send func(ctx context.Context, to phone.Number, text string) error
	// Code is the service code people are told, as they dial it.
	Code    string
	Texts   func() *templates.Texts // the deployment's words of the moment; nil means the built-in ones
	Log     *slog.Logger
	Metrics *Metrics
	Now     func() time.Time
}

// Menu shows the screens. It may be used by any number of goroutines.
type Menu struct {
	config Config
	views  *viewLog
	asked  *quota
}

// New makes a Menu. Its Run must be running while screens are shown.
func New(config Config) *Menu {
	if config.Read == nil {
		config.Read = config.Pool
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Texts == nil {
		config.Texts = templates.Builtin
	}
	return &Menu{config: config, views: newViewLog(config), asked: newQuota(smsPerDay, askers)}
}

// Run writes the access log until ctx ends, and then what is left of it.
func (m *Menu) Run(ctx context.Context) { m.views.run(ctx) }

// visitor is who looks at a screen, and the screen's circumstances.
type visitor struct {
	*Menu
	ussd.Visit
	who      access.Representative
	children []access.Child
	style    templates.Style
}

// Show returns the screen of a visit. It is the engine's Config.Show.
func (m *Menu) Show(ctx context.Context, visit ussd.Visit) (ussd.Screen, error) {
	v := &visitor{Menu: m, Visit: visit}
	screen, err := v.screen(ctx)
	if err != nil {
		return ussd.Screen{}, err
	}
	screen.Style = v.style
	return screen, nil
}

func (v *visitor) screen(ctx context.Context) (ussd.Screen, error) {
	var err error
	v.who, err = access.RepresentativeByPhone(ctx, v.config.Pool, v.Phone)
	if err != nil && !errors.Is(err, access.ErrNoRepresentative) {
		return ussd.Screen{}, err
	}
	// Asked for an unknown phone too, so that it takes as long.
	v.children, err = access.ChildrenOf(ctx, v.config.Pool, v.Phone, v.At)
	if err != nil {
		return ussd.Screen{}, err
	}
	recycled, err := delivery.Recycled(ctx, v.config.Pool, v.Phone)
	if err != nil {
		return ussd.Screen{}, err
	}
	if recycled {
		v.config.Log.Warn("ussd: a phone that was declared dead dials; it is told nothing until its owner is confirmed",
			"representative", v.who.ID)
	}
	if len(v.children) == 0 || recycled {
		return v.neutral(), nil
	}
	v.style = templates.Style{
		Language: templates.Language(v.who.Language), Latin: v.Latin || v.who.Translit, Texts: v.config.Texts(),
	}
	switch v.Place.Name {
	case "":
		return v.first(ctx)
	case placeLanguage:
		return v.language(), nil
	case placeRussian, placeEnglish, placeLatin:
		return v.setLanguage(ctx)
	}
	child, ok := v.child(ledger.PersonID(v.Place.Arg))
	if !ok {
		return v.neutral(), nil
	}
	return v.about(ctx, child)
}

// about returns a screen about one child.
func (v *visitor) about(ctx context.Context, child access.Child) (ussd.Screen, error) {
	switch v.Place.Name {
	case placeChild:
		return v.one(ctx, child, v.Place)
	case placeMeals:
		return v.meals(ctx, child)
	case placeVisits:
		return v.visits(ctx, child)
	case placeSMS:
		return v.sms(ctx, child)
	case placeSMSOn, placeSMSOff:
		return v.switchSMS(ctx, child, v.Place.Name == placeSMSOn)
	case placeHistory:
		return v.history(ctx, child)
	case placeTopUp:
		return v.topUp(ctx, child)
	case placeAccess:
		return v.circle(ctx, child)
	default:
		return ussd.Screen{}, fmt.Errorf("no screen %q", v.Place.Name)
	}
}

// child returns one of the children the visitor may see now.
func (v *visitor) child(id ledger.PersonID) (access.Child, bool) {
	for _, c := range v.children {
		if c.ID == id {
			return c, true
		}
	}
	return access.Child{}, false
}

// neutral is all that anybody reads who may see nobody. It says nothing about why, in a language that says nothing
// either.
func (v *visitor) neutral() ussd.Screen {
	v.style = ussd.Guess(v.Phone, v.Hint, v.Latin)
	v.style.Texts = v.config.Texts()
	v.config.Metrics.shown("neutral")
	return ussd.Screen{Place: v.Place, Lines: strings.Split(templates.Unknown{}.USSD(v.style), "\n"), End: true}
}

// shown notes that something of these children is shown, in the access log and in the metrics.
func (v *visitor) shown(ctx context.Context, what string, children ...access.Child) error {
	v.config.Metrics.shown(what)
	views := make([]access.View, len(children))
	for i, c := range children {
		views[i] = access.View{
			Who: access.ByRepresentative(v.who.ID), Child: c.ID, What: what, Channel: access.USSD, At: v.At,
		}
	}
	return v.views.add(ctx, views)
}

// name is a child's name as screens show it.
func name(c access.Child) templates.Name {
	return templates.Name{Given: c.GivenName, Family: c.FamilyName}
}

// at is the place of a screen about a child.
func at(screen string, child access.Child) ussd.Place {
	return ussd.Place{Name: screen, Arg: int64(child.ID)}
}

// organisation returns the child's organisation, whose zone and payee screens need.
func (v *visitor) organisation(ctx context.Context, child access.Child) (ledger.Organisation, error) {
	found, err := ledger.Organisations(ctx, v.config.Read, []ledger.OrganisationID{child.Organisation})
	if err != nil {
		return ledger.Organisation{}, err
	}
	organisation, ok := found[child.Organisation]
	if !ok {
		return ledger.Organisation{}, fmt.Errorf("person %d has no organisation", child.ID)
	}
	return organisation, nil
}
