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
//     operator has declared dead and that lives again reads it too until its owner is confirmed, two rows later; and so
//     does one that comes with another SIM card than is known, or after a long silence (access.Hear), unless its
//     operator reports so many other cards that it must be reporting something else.
//   - Every view of a child's data is written to the access log. The answer does not wait for it: the log is written
//     in batches a moment later, and screens are refused when it cannot be written for long.
//   - What a consent does not cover, visits or money, is neither read nor shown.
//   - A key that changes something (SMS on and off, language) may be repeated without harm.
//
// # What a replica may say
//
// Who may see, the balance, and what a key changes are asked of the primary, always. Visits, meals and movements, which
// are most of what is read, come from Config.Read and so may be older, by the lag that is allowed there: less than an
// SMS about a visit takes to a phone. Who has just topped up looks for it at once, and finds it: the balance is the
// primary's, and movements that lack the last one that the balance counts are read from the primary too.
//
// # When the database does not answer
//
// With Config.Remember the balances that a phone was last shown are shown again, with their time, to a dial during which
// the database does not answer: "as of 12:40" is better than "try later" (ussd.md section 5). What is remembered is only
// what this process has shown to this very phone by this very link through all the questions above, so nobody learns
// from it what he was not told before. That alone is not enough, since a withdrawal and a removal stop views at once
// (D12, D14). So it is shown in two cases only:
//
//   - The database is slow, or what screens are read from is: the question of rights, which is cheap and has connections
//     of its own, is asked and answered yes, now, for the same person and for each child. This is exact.
//   - There is no server: it refuses connections, so nobody can change anything either. Then what was so when it went
//     away is so still. Every change that takes a right away is told by the database at its commit
//     (access.RightsChanges); each process hears it on a connection of its own and forgets what it concerns. What was
//     remembered counts only if that connection was whole until the server itself closed it and the server has refused
//     since; after a silence, a time-out, or once the server is back, everything is forgotten. Rights that end at a
//     time by themselves are known with what is remembered. Two things stay open: a change committed in the last
//     milliseconds before a crash may go unheard; and a network that refuses for the server, to one process of several,
//     looks like no server. In both a phone reads once more what it has read already.
//
// In any other case, such as a network that swallows everything, nothing is known of rights and nothing is shown. Who
// may not see, or of whom nothing is remembered, waits on and reads what a stranger reads, in the same time. Such views
// are written to a file (Config.Journal) before they are shown, and to the access log when the database is back.
package menu

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
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
	// Read is where visits, meals and movements are read from, a replica for instance; Pool when nil. All else is always
	// asked of and written to Pool.
	Read *pg.Reader
	// Send sends an SMS to the owner of a phone who asked for it (*377*888*4#).
	Send func(ctx context.Context, to phone.Number, text string) error
	// Code is the service code people are told, as they dial it.
	Code    string
	Texts   func() *templates.Texts // the deployment's words of the moment; nil means the built-in ones
	Log     *slog.Logger
	Metrics *Metrics
	Now     func() time.Time
	// Remember is for how long what a phone was shown may be shown again while the database does not answer; 0 is never.
	Remember time.Duration
	// Silence is after how long without a sign of life a phone counts as possibly another's (access.Hear); 0 is never.
	Silence time.Duration
	// Journal is the file that keeps the views of what was shown so until the database has them. With Remember it is
	// required.
	Journal string
}

// Menu shows the screens. It may be used by any number of goroutines.
type Menu struct {
	config Config
	views  *viewLog
	asked  *quota
	sims   simWatch
	memory *memory // nil when nothing is remembered
}

// New makes a Menu. Its Run must be running while screens are shown.
func New(config Config) (*Menu, error) {
	if config.Read == nil {
		config.Read = pg.NewReader(config.Pool)
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Texts == nil {
		config.Texts = templates.Builtin
	}
	m := &Menu{config: config, views: newViewLog(config), asked: newQuota(smsPerDay, askers)}
	if config.Remember > 0 {
		var err error
		if m.memory, err = newMemory(config); err != nil {
			return nil, fmt.Errorf("remember what phones were shown: %w", err)
		}
	}
	return m, nil
}

// Run follows the changes of rights and writes the access log until ctx ends, and then what is left of it.
func (m *Menu) Run(ctx context.Context) {
	var following sync.WaitGroup
	if m.memory != nil {
		following.Go(func() { m.memory.run(ctx) })
	}
	m.views.run(ctx)
	following.Wait()
}

// visitor is who looks at a screen, and the screen's circumstances.
type visitor struct {
	*Menu
	ussd.Visit
	who      access.Representative
	children []access.Child
	withheld bool // the phone may have another owner now
	style    templates.Style

	// What the first screen showed, and of whom; for the memory.
	shownChildren  []access.Child
	shownSummaries []templates.USSDChild
}

// Show returns the screen of a visit. It is the engine's Config.Show.
func (m *Menu) Show(ctx context.Context, visit ussd.Visit) (ussd.Screen, error) {
	v := &visitor{Menu: m, Visit: visit}
	show := v.screen
	if m.memory != nil && asksBalance(visit) {
		show = v.remembering
	}
	screen, err := show(ctx)
	if err != nil {
		return ussd.Screen{}, err
	}
	screen.Style = v.style
	return screen, nil
}

// identify asks who owns the phone, and which children that person may see now, in one round trip with what is in the
// batch before.
func (v *visitor) identify(ctx context.Context, q pg.Querier, batch *pgx.Batch) error {
	caller := access.AskCaller(batch, v.Phone, v.At)
	recycled := delivery.AskRecycled(batch, v.Phone)
	if err := q.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("ask who dials: %w", err)
	}
	v.who, v.children = caller.Representative, caller.Children
	var err error
	v.withheld, err = recycled(ctx, q)
	return err
}

// styleOf is how somebody reads.
func (v *visitor) styleOf(who access.Representative) templates.Style {
	return templates.Style{
		Language: templates.Language(who.Language), Latin: v.Latin || who.Translit, Texts: v.config.Texts(),
	}
}

func (v *visitor) screen(ctx context.Context) (ussd.Screen, error) {
	batch := &pgx.Batch{}
	heard := v.hear(batch)
	if err := v.identify(ctx, v.config.Pool, batch); err != nil {
		return ussd.Screen{}, err
	}
	if err := v.heed(ctx, heard); err != nil {
		return ussd.Screen{}, err
	}
	if v.withheld {
		v.config.Log.Warn("ussd: a phone that was declared dead dials; it is told nothing until its owner is confirmed",
			"representative", v.who.ID)
	}
	if len(v.children) == 0 || v.withheld {
		return v.neutral(), nil
	}
	v.style = v.styleOf(v.who)
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
	found, err := ledger.Organisations(ctx, v.config.Pool, []ledger.OrganisationID{child.Organisation})
	if err != nil {
		return ledger.Organisation{}, err
	}
	organisation, ok := found[child.Organisation]
	if !ok {
		return ledger.Organisation{}, fmt.Errorf("person %d has no organisation", child.ID)
	}
	return organisation, nil
}
