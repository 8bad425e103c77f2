package menu

import (
	"container/list"
	"context"
	"errors"
	"io/fs"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"zvonok/access"
	"zvonok/access/phone"
	"zvonok/ledger"
	"zvonok/ledger/money"
	"zvonok/ledger/pg"
	"zvonok/templates"
	"zvonok/ussd"
)

// Limits of what is remembered.
const (
	rememberedPhones   = 30_000 // the one shown longest ago goes first
	rememberedChildren = 8      // of one phone; with more nothing is remembered
	endsAtOnce         = 2000   // of those asked about in one statement when their rights end

	// lateAfter is how long the first screen is waited for when there is something to show instead. With the question
	// of rights after it the answer is there before the engine's deadline of 5 s.
	lateAfter = 2500 * time.Millisecond
	// lateAgain takes its place for a while after a screen was late, so that a database that does not answer holds
	// each worker for a second and not for three.
	lateAgain    = 500 * time.Millisecond
	troubleLasts = 10 * time.Second
	askTime      = time.Second // for the question of rights
	askConns     = 2
	askTries     = 3       // connections of the pool may have died with the server
	journalMax   = 4 << 20 // octets of the file of views, some 30,000
)

// memory keeps what phones were last shown of their children's balances, for the first screen of a dial during which
// the database does not answer ("as of 12:40" is better than "try later", ussd.md section 5). What may be shown from it,
// and why, stands in the package's comment. It is of this process, and ends with it.
type memory struct {
	config  Config
	asking  *pgxpool.Pool // for questions of rights alone, so that they do not queue behind what is slow
	changes *changes

	mu      sync.Mutex
	phones  map[caller]*list.Element
	order   list.List // of *remembered, the one shown longest ago first
	epoch   uint64    // counts what made us forget
	ends    []*remembered
	trouble time.Time // when a screen was late the last time
}

// caller is a phone by the link that says whose it is: what was shown by one operator's link is not shown by another's.
type caller struct {
	link  string
	phone phone.Number
}

// remembered is what one phone was shown.
type remembered struct {
	caller
	who      access.RepresentativeID
	sim      string
	language string
	translit bool
	children []rememberedChild
	at       time.Time
	// ends is when, if nothing is changed, the first right around these children ends by itself; zero is never. It is
	// found out a moment after the screen (endsKnown).
	ends      time.Time
	endsKnown bool
}

type rememberedChild struct {
	id      ledger.PersonID
	name    templates.Name
	balance money.Amount
}

func newMemory(config Config) (*memory, error) {
	pc := config.Pool.Config()
	pc.MaxConns, pc.MinConns = askConns, 1
	pc.ConnConfig.RuntimeParams["application_name"] = "zvonok ussd rights"
	asking, err := pgxpool.NewWithConfig(context.Background(), pc)
	if err != nil {
		return nil, err
	}
	m := &memory{config: config, asking: asking, phones: map[caller]*list.Element{}}
	m.changes = &changes{memory: m, pool: config.Pool, log: config.Log}
	return m, nil
}

// run follows the changes of rights until ctx ends.
func (m *memory) run(ctx context.Context) {
	m.changes.run(ctx)
	m.asking.Close()
}

// now returns the epoch, which is to be given to keep: what was forgotten between the two stays forgotten.
func (m *memory) now() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.epoch
}

// keep remembers what a phone was shown, unless it cannot be sure to hear when its right to it changes, or it has
// changed since epoch.
func (m *memory) keep(r *remembered, epoch uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forgetOne(r.caller)
	if epoch != m.epoch || !m.changes.followed() || len(r.children) == 0 || len(r.children) > rememberedChildren {
		return
	}
	m.phones[r.caller] = m.order.PushBack(r)
	if m.order.Len() > rememberedPhones {
		m.forgetOne(m.order.Front().Value.(*remembered).caller)
	}
	if len(m.ends) < rememberedPhones {
		m.ends = append(m.ends, r)
	}
	m.config.Metrics.remembered.Set(float64(m.order.Len()))
}

// of returns what a phone was last shown, nil if that is too long ago.
func (m *memory) of(c caller, at time.Time) *remembered {
	m.mu.Lock()
	defer m.mu.Unlock()
	found, ok := m.phones[c]
	if !ok {
		return nil
	}
	r := found.Value.(*remembered)
	if age := at.Sub(r.at); age < 0 || age >= m.config.Remember {
		m.forgetOne(c)
		return nil
	}
	return r
}

// forgetOne is called with mu held.
func (m *memory) forgetOne(c caller) {
	if found, ok := m.phones[c]; ok {
		m.order.Remove(found)
		delete(m.phones, c)
		m.config.Metrics.remembered.Set(float64(m.order.Len()))
	}
}

// forget drops what was shown to whom a change concerns.
func (m *memory) forget(concerned func(*remembered) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.epoch++
	for e := m.order.Front(); e != nil; {
		r := e.Value.(*remembered)
		e = e.Next()
		if concerned(r) {
			m.forgetOne(r.caller)
		}
	}
}

// newcomers returns those of whom it is not known yet when their rights end.
func (m *memory) newcomers() []*remembered {
	m.mu.Lock()
	defer m.mu.Unlock()
	some := slices.Clone(m.ends[:min(len(m.ends), endsAtOnce)])
	if m.ends = m.ends[len(some):]; len(m.ends) == 0 {
		m.ends = nil
	}
	return slices.DeleteFunc(some, func(r *remembered) bool {
		found, ok := m.phones[r.caller]
		return !ok || found.Value != any(r)
	})
}

// learn notes when rights end by themselves.
func (m *memory) learn(some []*remembered, ends map[ledger.PersonID]time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range some {
		r.endsKnown = true
		for _, c := range r.children {
			if end, ok := ends[c.id]; ok && (r.ends.IsZero() || end.Before(r.ends)) {
				r.ends = end
			}
		}
	}
}

// holds says whether a right that was live when r was shown is live now if nobody has changed anything.
func (m *memory) holds(r *remembered, at time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return r.endsKnown && (r.ends.IsZero() || at.Before(r.ends))
}

// wait is how long a screen is waited for when there is something to show instead.
func (m *memory) wait(at time.Time) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if since := at.Sub(m.trouble); 0 <= since && since < troubleLasts {
		return lateAgain
	}
	return lateAfter
}

func (m *memory) late(at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.trouble = at
}

// ask asks a question of rights on the connections kept for it, at once and not for long.
func (m *memory) ask(ctx context.Context, question func(context.Context, pg.Querier) error) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var err error
	for range askTries {
		err = question(ctx, m.asking)
		if err == nil || ctx.Err() != nil || absent(err) {
			break
		}
	}
	return err
}

// absent says whether an error means that there is no server: every address refused the connection, or answered that
// it is not taking any yet. Nobody can have changed anything there. A time-out says nothing of the kind: the server
// may be well, and the network between us broken.
func absent(err error) bool {
	var several interface{ Unwrap() []error }
	if errors.As(err, &several) {
		for _, one := range several.Unwrap() {
			if !absent(one) {
				return false
			}
		}
		return len(several.Unwrap()) > 0
	}
	const cannotConnectNow = "57P03"
	var server *pgconn.PgError
	if errors.As(err, &server) {
		return server.Code == cannotConnectNow
	}
	// A Unix socket that is not there is as good as a refusal.
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist)
}

// troubled says whether an error means that the database, not our question, is at fault.
func troubled(err error) bool {
	return pg.Temporary(err) || errors.Is(err, context.DeadlineExceeded)
}

// remembering shows the first screen, and, when the database does not answer, what the phone was last shown there.
func (v *visitor) remembering(ctx context.Context) (ussd.Screen, error) {
	m := v.memory
	from := caller{v.Link, v.Phone}
	last, epoch := m.of(from, v.At), m.now()
	if last == nil {
		screen, err := v.screen(ctx)
		v.remember(epoch, err)
		return screen, err
	}
	fresh := *v
	limited, cancel := context.WithTimeout(ctx, m.wait(v.At))
	screen, err := fresh.screen(limited)
	cancel()
	if err == nil || ctx.Err() != nil || !troubled(err) {
		*v = fresh
		v.remember(epoch, err)
		return screen, err
	}
	m.late(v.At)
	screen, ok, recallErr := v.recall(ctx, last)
	switch {
	case recallErr != nil:
		return ussd.Screen{}, recallErr
	case ok:
		return screen, nil
	case errors.Is(err, context.DeadlineExceeded):
		// There is nothing to show: go on waiting, as anybody does of whom nothing is remembered.
		screen, err = v.screen(ctx)
		v.remember(epoch, err)
	}
	return screen, err
}

// remember keeps what a visitor was shown.
func (v *visitor) remember(epoch uint64, err error) {
	if err != nil {
		return
	}
	r := &remembered{
		caller: caller{v.Link, v.Phone}, who: v.who.ID, sim: v.SIM, language: v.who.Language, translit: v.who.Translit, at: v.At,
	}
	for i, c := range v.shownChildren {
		if s := v.shownSummaries[i]; s.Balance != nil {
			r.children = append(r.children, rememberedChild{c.ID, s.Child, *s.Balance})
			r.at = s.Now // in the school's zone
		}
	}
	if len(v.shownSummaries) < len(v.children) && len(v.children) > 0 {
		return // a shortcut to one of several children leaves what is known of all
	}
	v.memory.keep(r, epoch)
}

// recall shows what a phone was last shown, if whoever holds it may see that now. It asks; only when there is no
// server that could answer, it goes by what was so when the server went away.
func (v *visitor) recall(ctx context.Context, r *remembered) (screen ussd.Screen, ok bool, err error) {
	if r.sim != v.SIM {
		return ussd.Screen{}, false, nil // who is to be asked about it does not answer
	}
	children := r.children
	asked := v.memory.ask(ctx, func(ctx context.Context, q pg.Querier) error { return v.identify(ctx, q, &pgx.Batch{}) })
	switch {
	case asked == nil:
		if v.who.ID != r.who || v.withheld {
			return ussd.Screen{}, false, nil
		}
		children = nil
		for _, c := range r.children {
			if child, may := v.child(c.id); may && child.Meals {
				children = append(children, c)
			}
		}
	case !absent(asked) || !v.memory.changes.unheard() || !v.memory.holds(r, v.At):
		return ussd.Screen{}, false, nil
	default:
		v.who = access.Representative{ID: r.who, Language: r.language, Translit: r.translit}
	}
	if len(children) == 0 {
		return ussd.Screen{}, false, nil
	}
	v.style = v.styleOf(v.who)
	answer := templates.USSDRemembered{At: r.at, Now: v.At.In(r.at.Location())}
	views := make([]access.View, len(children))
	for i, c := range children {
		answer.Children = append(answer.Children, templates.USSDChild{Child: c.name, Balance: &c.balance})
		views[i] = access.View{
			Who: access.ByRepresentative(r.who), Child: c.id, What: "balance", Channel: access.USSD, At: v.At,
		}
	}
	// The database may be away for longer than this process lives.
	if err := v.views.outlast(ctx, views); err != nil {
		return ussd.Screen{}, false, err
	}
	v.config.Metrics.shown("remembered")
	return ussd.Screen{Lines: answer.Lines(v.style), End: true}, true, nil
}

// asksBalance says whether a visit is one that a remembered balance answers.
func asksBalance(v ussd.Visit) bool {
	return v.Place == ussd.Place{} && (len(v.Path) == 0 ||
		v.Path[0] != shortcutVisit && v.Path[0] != shortcutMeals && v.Path[0] != shortcutSMS)
}
