package reader

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"

	"zvonok/access/door"
	"zvonok/ledger/meal"
	"zvonok/ledger/pg"
)

// Config is what an Intake works with. All fields but Proxies are required.
type Config struct {
	Pool     *pgxpool.Pool
	River    *river.Client[pgx.Tx]
	Recorder *door.Recorder
	Canteen  *meal.Canteen
	Log      *slog.Logger
	Metrics  *Metrics
	Now      func() time.Time
	// Proxies are ours: whom they name in X-Forwarded-For is believed. None by default.
	Proxies []netip.Prefix
}

// Intake answers devices. It is safe for use by any number of goroutines.
type Intake struct {
	pool     *pgxpool.Pool
	recorder *door.Recorder
	canteen  *meal.Canteen
	log      *slog.Logger
	metrics  *Metrics
	now      func() time.Time
	proxies  []netip.Prefix

	keys      *keyring
	gather    *pg.Gatherer[*upload, answer]
	bodyTime  time.Duration // see the constant of that name
	pace      pacer
	large     chan struct{} // places for uploads that are batches by themselves
	uploads   *places
	questions *places
	contacts  *contacts
	foreign   sync.Map // ids of devices of which countForeign has noted it

	lastTrouble atomic.Pointer[string] // a repeated failure is logged once
	closing     sync.Once
	stop        context.CancelFunc
	stopped     sync.WaitGroup
}

// NewIntake makes an Intake, which works until Close.
func NewIntake(config Config) *Intake {
	in := &Intake{
		pool: config.Pool, recorder: config.Recorder, canteen: config.Canteen,
		log: config.Log, metrics: config.Metrics, now: config.Now, proxies: config.Proxies,
		keys:      newKeyring(config.Pool, config.Now),
		bodyTime:  bodyTime,
		large:     make(chan struct{}, parallel),
		uploads:   newPlaces(maxUploads, maxDeviceUploads, maxOctets),
		questions: newPlaces(maxQuestions, maxQuestions, maxQuestions*maxQuestion),
		contacts:  newContacts(),
	}
	in.gather = pg.NewGatherer(pg.GathererConfig{Max: maxGathered, Wait: gatherWait, Parallel: parallel}, in.storeGathered)
	ctx, stop := context.WithCancel(context.Background())
	in.stop = stop
	in.stopped.Go(func() { in.keepContacts(ctx) })
	return in
}

// Close finishes the uploads that wait and writes down when devices were last
// heard. Uploads that come later are answered with 503. It may be called more
// than once.
func (in *Intake) Close() {
	in.closing.Do(func() {
		in.gather.Close()
		in.stop()
		in.stopped.Wait()
		in.keys.close()
	})
}

// trouble logs what is wrong with the server: the first time, and when it changes.
func (in *Intake) trouble(ctx context.Context, err error) {
	text := err.Error()
	if last := in.lastTrouble.Swap(&text); last == nil || *last != text {
		in.log.ErrorContext(ctx, "devices cannot be served", "error", text)
	}
}

// well notes that the server works again.
func (in *Intake) well(ctx context.Context) {
	if in.lastTrouble.Load() != nil && in.lastTrouble.Swap(nil) != nil {
		in.log.InfoContext(ctx, "devices are served again")
	}
}

// places bound the work under way: requests of all devices and of each, and the
// octets of their bodies.
type places struct {
	all, each int
	octets    int64

	mu         sync.Mutex
	taken      int
	byDevice   map[DeviceID]int
	octetsLeft int64
}

func newPlaces(all, each int, octets int64) *places {
	return &places{all: all, each: each, octets: octets, byDevice: map[DeviceID]int{}, octetsLeft: octets}
}

// take takes a place for a request whose body has at most so many octets, or
// returns a busyError. The caller calls leave when the request is answered.
func (p *places) take(device DeviceID, octets int64) (leave func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken >= p.all || p.octetsLeft < octets {
		return nil, busyError{}
	}
	if p.byDevice[device] >= p.each {
		return nil, busyError{device: true}
	}
	p.taken++
	p.byDevice[device]++
	p.octetsLeft -= octets
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.taken--
		p.octetsLeft += octets
		if p.byDevice[device]--; p.byDevice[device] == 0 {
			delete(p.byDevice, device)
		}
	}, nil
}
