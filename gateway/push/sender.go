package push

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	webpush "github.com/SherClockHolmes/webpush-go"
)

// Class says what a failure means.
type Class string

// The classes: a closed list, and a metric label.
const (
	Gone          Class = "gone"
	Refused       Class = "refused"
	Temporary     Class = "temporary"
	HostDown      Class = "host_down"
	Misconfigured Class = "misconfigured"
)

// Classes lists every class, for labels.
func Classes() []Class { return []Class{Gone, Refused, Temporary, HostDown, Misconfigured} }

// Error is why a message was not taken. It names no endpoint: whoever knows one
// can be a nuisance to its owner.
type Error struct {
	Class      Class
	Status     int           // of the service's answer; 0 for none
	RetryAfter time.Duration // for Temporary, HostDown and Misconfigured
	Err        error
}

// Error says what and why.
func (e *Error) Error() string {
	if e.Status != 0 {
		return fmt.Sprintf("push: %s: the service answers %d", e.Class, e.Status)
	}
	return fmt.Sprintf("push: %s: %v", e.Class, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Urgency says whether a message may wake a sleeping phone (RFC 8030 section 5.3).
type Urgency string

// The urgencies.
const (
	Low    Urgency = "low"    // on power and wi-fi
	Normal Urgency = "normal" // with power to spare
	High   Urgency = "high"   // at once
)

// Message is what a browser is sent.
type Message struct {
	Payload []byte        // at most 2048 octets
	TTL     time.Duration // how long the service keeps it for a browser that is away
	Urgency Urgency
	Topic   string // at most 32 characters of base64url: replaces what waits under the same topic
}

// Config is what a Sender needs.
type Config struct {
	Key     *Key
	Contact string // who answers for these messages, a mailbox or an https address (RFC 8292 section 2.1)
	// Services are hosts of push services besides the well-known ones, "push.example.org", or ".example.org" for
	// all hosts below it.
	Services []string
	// AllowPrivate lets names of services lead to addresses that are not public: a push service of one's own.
	AllowPrivate bool
	Roots        *x509.CertPool // who may have issued the services' certificates; nil: the system's

	Log     *slog.Logger
	Metrics *Metrics
	Now     func() time.Time
}

// Sender sends messages to browsers. Its methods may be called from any goroutine.
type Sender struct {
	config   Config
	services []string
	client   *http.Client

	mu     sync.Mutex
	paused map[string]pause     // by host
	taken  map[string]time.Time // when a host last took a message
}

// pause is a service that is left alone.
type pause struct {
	until  time.Time
	class  Class
	status int
}

// NewSender returns a Sender.
func NewSender(c Config) (*Sender, error) {
	if c.Key == nil {
		return nil, errors.New("push messages need a key")
	}
	if !strings.Contains(c.Contact, "@") && !strings.HasPrefix(c.Contact, "https://") {
		return nil, fmt.Errorf("the contact %q is neither a mailbox nor an https address", c.Contact)
	}
	c.Contact = strings.TrimPrefix(c.Contact, "mailto:")
	services := append([]string{}, publicServices...)
	for _, service := range c.Services {
		services = append(services, strings.ToLower(service))
	}
	dialer := &net.Dialer{Timeout: dialTime}
	if !c.AllowPrivate {
		dialer.Control = public
	}
	return &Sender{
		config: c, services: services, paused: map[string]pause{}, taken: map[string]time.Time{},
		client: &http.Client{
			// No proxy: it would resolve the name, out of our sight.
			Transport: &http.Transport{
				DialContext: dialer.DialContext, ForceAttemptHTTP2: true, MaxConnsPerHost: callsPerHost,
				MaxIdleConnsPerHost: callsPerHost, IdleConnTimeout: idleTime, TLSHandshakeTimeout: dialTime,
				TLSClientConfig: &tls.Config{RootCAs: c.Roots, MinVersion: tls.VersionTLS12},
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// PublicKey is what a page gives to pushManager.subscribe as applicationServerKey,
// base64url.
func (s *Sender) PublicKey() string { return s.config.Key.public() }

// Close ends the idle connections.
func (s *Sender) Close() { s.client.CloseIdleConnections() }

// Send has a message brought to a browser and returns nil once its push service
// has taken responsibility for it. Any other outcome is an *Error.
func (s *Sender) Send(ctx context.Context, to Endpoint, m Message) error {
	began := time.Now()
	wrong := s.send(ctx, to, m)
	s.config.Metrics.sent(wrong, time.Since(began))
	if wrong != nil {
		return wrong
	}
	return nil
}

func (s *Sender) send(caller context.Context, to Endpoint, m Message) *Error {
	// The settings may have changed since the browser was registered.
	if err := s.checkURL(to.URL); err != nil {
		return &Error{Class: Refused, Err: err}
	}
	if len(m.Payload) > maxPayload {
		return &Error{Class: Refused, Err: fmt.Errorf("the payload has %d octets, at most %d are sent", len(m.Payload), maxPayload)}
	}
	host := hostOf(to.URL)
	now := s.config.Now()
	if p, ok := s.pausedFor(host, now); ok {
		return &Error{Class: p.class, Status: p.status, RetryAfter: p.until.Sub(now), Err: errPaused}
	}
	ctx, cancel := context.WithTimeout(caller, callTime)
	defer cancel()
	// The library pads the payload in place where the slice has room: several
	// browsers get the same one at once.
	answer, err := webpush.SendNotificationWithContext(ctx, slices.Clip(m.Payload), &webpush.Subscription{
		Endpoint: to.URL,
		Keys: webpush.Keys{
			P256dh: base64.RawURLEncoding.EncodeToString(to.P256dh), Auth: base64.RawURLEncoding.EncodeToString(to.Auth),
		},
	}, &webpush.Options{
		HTTPClient: s.client, Subscriber: s.config.Contact, Topic: m.Topic, TTL: int(max(0, m.TTL) / time.Second),
		Urgency: webpush.Urgency(m.Urgency), VAPIDPublicKey: s.config.Key.public(), VAPIDPrivateKey: s.config.Key.secret(),
		VapidExpiration: time.Now().Add(signatureAge),
	})
	if err != nil {
		var failed *url.Error
		if errors.As(err, &failed) {
			err = failed.Err // without the endpoint
		}
		if errors.Is(err, errPrivate) {
			return &Error{Class: Refused, Err: errPrivate}
		}
		wrong := &Error{Class: HostDown, RetryAfter: usualWait, Err: err}
		if caller.Err() == nil {
			s.rest(host, now, wrong)
		}
		return wrong
	}
	defer answer.Body.Close()
	_, _ = io.CopyN(io.Discard, answer.Body, maxAnswer) // so that the connection can be used again
	wrong := classify(answer, now)
	s.learn(host, now, wrong)
	return wrong
}

var errPaused = errors.New("the push service is left alone for a while")

// classify says what an answer means (RFC 8030 sections 5 and 7.3).
func classify(answer *http.Response, now time.Time) *Error {
	e := &Error{Status: answer.StatusCode}
	switch status := answer.StatusCode; {
	case status >= 200 && status < 300:
		return nil
	case status == http.StatusNotFound || status == http.StatusGone:
		e.Class = Gone
	case status == http.StatusTooManyRequests || status == http.StatusRequestTimeout || status >= 500:
		e.Class, e.RetryAfter = Temporary, hint(answer.Header.Get("Retry-After"), now)
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		e.Class, e.RetryAfter = Misconfigured, configWait
	default:
		e.Class = Refused
	}
	return e
}

// hint reads Retry-After, in seconds or as a date (RFC 9110 section 10.2.3).
func hint(text string, now time.Time) time.Duration {
	wait := usualWait
	if seconds, err := strconv.Atoi(text); err == nil {
		wait = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(text); err == nil {
		wait = at.Sub(now)
	}
	return min(max(wait, time.Second), longestHint)
}

// learn notes what an answer says of a service. One that does not take our
// signature for a browser, and has taken it for another these minutes, means that
// browser: it was subscribed with a key that is not ours (RFC 8292 section 4.2), as
// anybody's page can do. It is no reason to leave the others alone.
func (s *Sender) learn(host string, now time.Time, wrong *Error) {
	switch {
	case wrong == nil:
		s.mu.Lock()
		s.taken[host] = now
		s.mu.Unlock()
	case wrong.Class == Misconfigured:
		s.mu.Lock()
		took, known := s.taken[host]
		s.mu.Unlock()
		if known && now.Sub(took) < configWait {
			wrong.Class, wrong.RetryAfter = Refused, 0
			return
		}
		s.config.Log.Warn("a push service does not take our signature", "service", host, "status", wrong.Status)
	default:
		s.rest(host, now, wrong)
	}
}

// rest leaves a service alone that fails: nothing is sent to it before the time
// it named, whatever the message. "Too many requests" may be about one browser,
// and holds up that one alone.
func (s *Sender) rest(host string, now time.Time, wrong *Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if wrong == nil || wrong.RetryAfter == 0 || wrong.Status == http.StatusTooManyRequests {
		return
	}
	if old := s.paused[host]; now.After(old.until) {
		s.config.Log.Warn("a push service is left alone", "service", host, "class", wrong.Class, "status", wrong.Status,
			"for", wrong.RetryAfter)
	}
	s.paused[host] = pause{now.Add(wrong.RetryAfter), wrong.Class, wrong.Status}
	s.config.Metrics.pauses(len(s.paused))
}

func (s *Sender) pausedFor(host string, now time.Time) (pause, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.paused[host]
	if ok && !now.Before(p.until) {
		delete(s.paused, host)
		s.config.Metrics.pauses(len(s.paused))
		return pause{}, false
	}
	return p, ok
}

func hostOf(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil {
		return "" // checkURL has parsed it
	}
	return strings.ToLower(u.Host)
}
