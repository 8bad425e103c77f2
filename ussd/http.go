package ussd

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"zvonok/access/phone"
	"zvonok/gateway/carrier"
	"zvonok/gateway/smpp"
	"zvonok/ledger/peer"
)

// Limits of a call over HTTP.
const (
	minSecret = 16          // characters
	maxBody   = 8 << 10     // octets; a real call has a few hundred
	maxID     = 128         // octets of a session id
	callSlack = time.Second // how much longer than the engine's deadline a call waits for its answer
)

// call is what a convention reads from a request.
type call struct {
	kind       kind // either, when the convention does not tell a begin from an input
	session    string
	msisdn     string // as written by the caller
	code       string // the service code, "" when the caller does not say it
	text       string
	cumulative bool // text repeats all inputs so far
}

// convention is one way of speaking USSD over HTTP. To add one, write a file with a value of this type, and name it in
// conventions.
type convention struct {
	method string // of its requests
	// read reads a request whose secret was right and whose body is limited. The error goes to the caller.
	read func(r *http.Request) (call, error)
	// write answers it.
	write func(w http.ResponseWriter, c call, a answer)
	// closed answers a call that only tells that a session is over.
	closed func(w http.ResponseWriter)
}

// conventions are those there are, by their names in the settings.
func conventions() map[string]convention {
	return map[string]convention{"africastalking": africasTalking()}
}

// Check says what is wrong with a Caller: its convention or its secret.
func (c *Caller) Check() error {
	if known := conventions(); known[c.Convention].read == nil {
		return fmt.Errorf("unknown convention %q: want one of %s",
			c.Convention, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
	}
	if len(c.Secret) < minSecret {
		return fmt.Errorf("secret: it has fewer than %d characters", minSecret)
	}
	return nil
}

// Handler serves /ussd/http/LINK for every link with a Caller, by the method of its convention. The secret is taken from "Authorization: Bearer",
// from the password of HTTP Basic, or, for callers that can be given nothing but an address, from the query parameter
// "secret". Without it nothing tells which links there are.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/ussd/http/{link}", s.serveCall)
	return mux
}

func (s *Server) serveCall(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	l := s.links[r.PathValue("link")]
	if !s.trusted(l, r) {
		s.meter.foreign.Inc()
		http.Error(w, "unknown link or wrong secret", http.StatusUnauthorized)
		return
	}
	if r.Method != l.speaks.method {
		w.Header().Set("Allow", l.speaks.method)
		http.Error(w, "the link's convention is "+l.speaks.method, http.StatusMethodNotAllowed)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	c, err := l.speaks.read(r)
	if err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			http.Error(w, "request too large", http.StatusRequestEntityTooLarge)
			return
		}
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	number, err := l.HTTP.number(c.msisdn)
	switch {
	case err != nil:
		l.meter.ignored[ignoredNoPhone].Inc()
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	case c.session == "" || len(c.session) > maxID:
		l.meter.ignored[ignoredUnclear].Inc()
		http.Error(w, fmt.Sprintf("the session id is missing or longer than %d octets", maxID), http.StatusBadRequest)
		return
	}
	e := event{
		// Cloned, so that an open dialogue does not keep the whole body.
		key: key{l, phone.Number(strings.Clone(string(number)))}, id: strings.Clone(c.session),
		kind: c.kind, dialed: c.code, text: c.text, cumulative: c.cumulative, mustAnswer: true,
	}
	if c.kind == abort {
		s.take(e)
		l.speaks.closed(w)
		return
	}
	if a, ok := s.ask(r.Context(), e); ok {
		l.speaks.write(w, c, a)
	} else {
		http.Error(w, "no answer", http.StatusServiceUnavailable)
	}
}

// ask takes an event and waits for its answer.
func (s *Server) ask(ctx context.Context, e event) (answer, bool) {
	type reply struct {
		answer
		settled func(carrier.Answered)
	}
	replies := make(chan reply, 1)
	e.write = func(a answer, settled func(carrier.Answered)) error {
		replies <- reply{a, settled}
		return nil
	}
	if !s.take(e) {
		return answer{}, false
	}
	late := time.NewTimer(s.config.Deadline + callSlack)
	defer late.Stop()
	select {
	case got := <-replies:
		if ctx.Err() == nil {
			got.settled(carrier.Answered{Status: smpp.StatusOK, At: s.config.Now()})
			return got.answer, true
		}
	case <-ctx.Done():
	case <-late.C:
	}
	e.kind = abort // the caller has gone, and with it the session
	s.take(e)
	return answer{}, false
}

// trusted says whether a request may speak for the phones of a link. The time it takes does not depend on where a
// wrong secret differs, nor on whether there is such a link.
func (s *Server) trusted(l *link, r *http.Request) bool {
	given := r.URL.Query().Get("secret")
	if _, password, ok := r.BasicAuth(); ok {
		given = password
	} else if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		given = token
	}
	want, from := "", []netip.Prefix(nil)
	if l != nil && l.HTTP != nil {
		want, from = l.HTTP.Secret, l.HTTP.From
	}
	wantHash, givenHash := sha256.Sum256([]byte(want)), sha256.Sum256([]byte(given))
	right := subtle.ConstantTimeCompare(wantHash[:], givenHash[:]) == 1
	address := peer.Address(r, s.config.Proxies)
	allowed := len(from) == 0 || slices.ContainsFunc(from, func(p netip.Prefix) bool { return p.Contains(address) })
	return right && want != "" && allowed
}

// number reads the phone of a call.
func (c *Caller) number(raw string) (phone.Number, error) {
	const (
		tonUnknown, tonInternational = 0, 1
		npiISDN                      = 1
	)
	region, ton := c.Region, byte(tonUnknown)
	if region == "" {
		region = "RU"
	}
	if strings.HasPrefix(strings.TrimSpace(raw), "+") {
		ton = tonInternational
	}
	return phone.FromMSISDN(raw, ton, npiISDN, region)
}
