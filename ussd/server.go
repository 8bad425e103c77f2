package ussd

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"zvonok/access/phone"
	"zvonok/gateway/carrier"
	"zvonok/templates"
)

// Limits and time-outs of a dialogue.
const (
	// defaultDeadline is how long the menu may take. Gateways wait 10 to 25 s (ussd.md section 3), people less.
	defaultDeadline = 5 * time.Second
	// defaultTTL is how long a person may think. Networks give up after 40 to 180 s, some HTTP callers after more.
	defaultTTL = 180 * time.Second
	// repeatWindow is how long an equal message is taken for a repetition by the gateway, not by the person.
	repeatWindow = 3 * time.Second
	// doubtWindow is how far the acknowledgement of a page may come behind the key pressed on it, on a gateway that
	// gives both when the person has typed.
	doubtWindow = time.Second
	// shownAfter is when a page counts as seen on a gateway that acknowledges late: it takes about 2 s on the air.
	shownAfter = 5 * time.Second
	// finalWait is how long the acknowledgement of a last page is waited for; all gateways give it at once.
	finalWait = 30 * time.Second
	// writeWait is how long handing a page to the link may take.
	writeWait = 2 * time.Second
	// drainWait is how long Run waits at the end for what is in flight; a step takes at most its deadline.
	drainWait = 8 * time.Second
	// sweepEvery is how often dialogues past their time are dropped. They are not answered in between either.
	sweepEvery = time.Second

	burst       = 10          // begins a phone may make within burstPeriod (issue 4: ten a minute)
	burstPeriod = time.Minute // from the first of them
	maxBursts   = 200_000     // phones remembered for it, twice: 30 MB

	maxHints   = 3    // answers that are no key before the dialogue is closed
	maxSteps   = 200  // answers in one dialogue; a person makes ten, a broken gateway any number
	maxDepth   = 8    // screens remembered for going back
	maxWaiting = 2000 // steps of one link that wait for a worker; at a few ms each more would come too late
	// defaultWorkers is how many steps run at once. A step is a few reads of the database, so this is about what its
	// pool can use.
	defaultWorkers = 16
	defaultMaxOpen = 100_000 // open dialogues, all links together; 200 MB at most
)

// Link is one way by which dials reach us and which is trusted to say whose they are: an operator with the role "ussd"
// or an HTTP caller.
type Link struct {
	Name    string  // the operator's name, or LINK in /ussd/http/LINK
	Profile Profile // how an operator's gateway speaks; for HTTP only its Limits count
	HTTP    *Caller // nil for an operator

	TTL            time.Duration // how long a person may think; 0 is 180 s
	MaxOpen        int           // open dialogues of this link; 0 is the whole of Config.MaxOpen
	AnswerAndClose bool          // the first screen closes the dialogue: no menu
	Latin          bool          // the link or its phones carry no UCS-2: everything in Latin letters
	// FollowBySMS: when a dialogue dies before its answer was shown, the answer follows once by SMS.
	FollowBySMS bool
}

// Caller is who may call the HTTP interface for a link. The phone in such a call is the only proof of identity, so
// both the secret and, when given, the address must be right.
type Caller struct {
	Convention string // "africastalking"
	Secret     string // at least 16 characters
	From       []netip.Prefix
	Region     string // country of phone numbers in national form, "RU" when empty
}

// Config is what a Server needs. Links, Codes, Show, Answer, Log and Metrics are required.
type Config struct {
	Links []Link
	Codes []string // the service codes, the one people are told first: "*377*888#"

	// Show is the menu: the screen this phone sees at this place, now. It is called from several goroutines and must
	// obey its context. An error closes the dialogue with "try later".
	Show func(ctx context.Context, v Visit) (Screen, error)
	// Answer hands a page to an operator: carrier.Exchange.Answer.
	Answer func(ctx context.Context, r carrier.Reply) error
	// Continue sends an answer that was not shown as an SMS. It is called at most once per dialogue, and only for links
	// with FollowBySMS.
	Continue func(ctx context.Context, to phone.Number, text string) error

	// SIM makes a keyed hash of an IMSI, which goes no further than here. Nil: IMSIs are not looked at.
	SIM func(imsi string) string

	// Proxies are our own, which say in X-Forwarded-For from where an HTTP caller comes.
	Proxies []netip.Prefix

	Workers  int           // steps at once; 0 is 16
	MaxOpen  int           // open dialogues; 0 is 100,000
	Deadline time.Duration // how long the menu may take before the dialogue is closed with "try later"; 0 is 5 s
	Now      func() time.Time
	Log      *slog.Logger
	Metrics  *Metrics
}

// Server keeps the dialogues of all links. Its methods may be called from any goroutine.
type Server struct {
	config Config
	codes  []code
	links  map[string]*link
	frames map[templates.Style]templates.USSDFrame
	log    *slog.Logger
	meter  *Metrics
	seed   maphash.Seed

	mu        sync.Mutex
	work      *sync.Cond // signalled when a turn waits or the server drains
	dialogues map[key]*dialogue
	open      int
	bursts    *bursts
	ring      []*link // links in turn, so that none waits for the flood of another
	whose     int     // turn of ring it is
	inHand    int     // turns the workers have taken up
	draining  bool
	trouble   string // why there was no screen the last time
}

// New makes a Server. The error says which link or code is wrong.
func New(config Config) (*Server, error) {
	if config.Workers == 0 {
		config.Workers = defaultWorkers
	}
	if config.MaxOpen == 0 {
		config.MaxOpen = defaultMaxOpen
	}
	if config.Deadline == 0 {
		config.Deadline = defaultDeadline
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	s := &Server{
		config:    config,
		links:     make(map[string]*link, len(config.Links)),
		frames:    map[templates.Style]templates.USSDFrame{},
		log:       config.Log,
		meter:     config.Metrics,
		seed:      maphash.MakeSeed(),
		dialogues: map[key]*dialogue{},
		bursts:    newBursts(config.Now()),
	}
	s.work = sync.NewCond(&s.mu)
	for _, raw := range config.Codes {
		c, err := parseCode(raw)
		if err != nil {
			return nil, err
		}
		s.codes = append(s.codes, c)
	}
	if len(s.codes) == 0 {
		return nil, errors.New("ussd: no service code")
	}
	for _, language := range []templates.Language{templates.RU, templates.EN} {
		for _, latin := range []bool{false, true} {
			style := templates.Style{Language: language, Latin: latin}
			s.frames[style] = templates.NewUSSDFrame(style)
		}
	}
	for _, l := range config.Links {
		if err := s.addLink(l); err != nil {
			return nil, fmt.Errorf("ussd link %q: %w", l.Name, err)
		}
	}
	return s, nil
}

func (s *Server) addLink(l Link) error {
	if l.Name == "" {
		return errors.New("it has no name")
	}
	if _, taken := s.links[l.Name]; taken {
		return errors.New("the name is taken")
	}
	link := &link{meter: s.meter.link(l.Name)}
	if l.HTTP != nil {
		if err := l.HTTP.Check(); err != nil {
			return err
		}
		link.speaks = conventions()[l.HTTP.Convention]
	}
	if l.TTL == 0 {
		l.TTL = defaultTTL
	}
	if l.MaxOpen == 0 || l.MaxOpen > s.config.MaxOpen {
		l.MaxOpen = s.config.MaxOpen
	}
	if l.Profile.Limits == (Limits{}) {
		l.Profile.Limits = usual().Limits
	}
	link.Link = l
	s.links[l.Name] = link
	s.ring = append(s.ring, link)
	return nil
}

// Run answers until ctx ends, then finishes what is in flight and returns. Dialogues waiting for a person end with it:
// the next process answers their next key with "session expired". It is called once.
func (s *Server) Run(ctx context.Context) {
	var workers sync.WaitGroup
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	for range s.config.Workers {
		workers.Go(func() {
			for t := s.next(); t != nil; t = s.next() {
				s.run(base, t)
				s.done()
			}
		})
	}
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-ticker.C:
			s.sweep()
		}
	}
	s.mu.Lock()
	s.draining = true
	s.work.Broadcast()
	s.mu.Unlock()
	stuck := time.AfterFunc(drainWait, cancel)
	defer stuck.Stop()
	workers.Wait()
}

// Open returns how many dialogues are open.
func (s *Server) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}

// frame returns the words round a page.
func (s *Server) frame(style templates.Style) templates.USSDFrame {
	key := templates.Style{Language: templates.RU, Latin: style.Latin} // a deployment's texts have no frame of their own
	if style.Language == templates.EN {
		key.Language = templates.EN
	}
	return s.frames[key]
}

// Guess returns the style of words said to a phone nothing is known about: the language the operator hints, else
// Russian for the zone +7 and English for the rest of the world.
func Guess(number phone.Number, hint templates.Language, latin bool) templates.Style {
	switch {
	case hint != "":
	case len(number) > 0 && number[0] == '7':
		hint = templates.RU
	default:
		hint = templates.EN
	}
	return templates.Style{Language: hint, Latin: latin}
}
