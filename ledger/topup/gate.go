package topup

import (
	"context"
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"zvonok/ledger/peer"
)

// How long what is known of partners is good for.
const (
	// partnersFresh bounds how late a change of a partner is seen.
	partnersFresh = 2 * time.Second
	// partnersMissed is the same for a name that is not there, so that asking for
	// names that do not exist costs the database little.
	partnersMissed = 250 * time.Millisecond
	// partnersTimeout bounds one reading, so that a bank hears something within its 60 s.
	partnersTimeout = 5 * time.Second
)

// refusal is why a request was answered 403.
type refusal string

const (
	refusedPartner     refusal = "partner"
	refusedAddress     refusal = "address"
	refusedCredentials refusal = "credentials"
	refusedHash        refusal = "hash"
)

func refusals() []refusal {
	return []refusal{refusedPartner, refusedAddress, refusedCredentials, refusedHash}
}

// directory knows the partners. What it knows is as old as partnersFresh, or
// older while the database cannot be read.
type directory struct {
	pool *pgxpool.Pool
	now  func() time.Time

	mu       sync.Mutex
	reading  *reading // the one under way; nil when there is none
	loadedAt time.Time
	partners map[string]*Partner
}

// reading is one look at all partners.
type reading struct {
	done chan struct{}
	err  error
}

// get returns the partner of a name, or nil when there is none. An error means
// that this is not known now. A known partner waits for no one else's reading,
// unless what is known of it is older than a reading can make it: it may have been
// disabled since. All who ask for names that do not exist wait for the same one.
func (d *directory) get(ctx context.Context, name string) (*Partner, error) {
	d.mu.Lock()
	p, known := d.partners[name]
	age := d.now().Sub(d.loadedAt)
	fresh := d.partners != nil && age >= 0 && (known && age < partnersFresh || !known && age < partnersMissed)
	if fresh || known && d.reading != nil && age < partnersFresh+partnersTimeout {
		d.mu.Unlock()
		return p, nil
	}
	r := d.reading
	if r == nil {
		r = &reading{done: make(chan struct{})}
		d.reading = r
		d.mu.Unlock()
		d.read(context.WithoutCancel(ctx), r)
	} else {
		d.mu.Unlock()
		<-r.done // after partnersTimeout at the latest
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.err == nil {
		return d.partners[name], nil
	}
	if !known {
		return nil, r.err
	}
	d.loadedAt = d.now() // not every request is to find out again that it fails
	return p, nil
}

// read reads all partners. When that fails, what was known stays.
func (d *directory) read(ctx context.Context, r *reading) {
	ctx, cancel := context.WithTimeout(ctx, partnersTimeout)
	defer cancel()
	var list []Partner
	list, r.err = ListPartners(ctx, d.pool)

	d.mu.Lock()
	defer d.mu.Unlock()
	d.reading = nil
	close(r.done)
	if r.err != nil {
		return
	}
	d.partners = make(map[string]*Partner, len(list))
	for i := range list {
		d.partners[list[i].Name] = &list[i]
	}
	d.loadedAt = d.now()
}

// gate lets a partner's own requests through.
type gate struct {
	proxies []netip.Prefix
	// key is of this process alone.
	key [sha256.Size]byte

	mu sync.Mutex
	// right are keyed hashes of passwords that were right, by the hash they belong to.
	right map[string][]byte
}

func newGate(proxies []netip.Prefix) *gate {
	g := &gate{proxies: proxies, right: map[string][]byte{}}
	rand.Read(g.key[:]) // never fails
	return g
}

// address returns where a request comes from.
func (g *gate) address(r *http.Request) netip.Addr { return peer.Address(r, g.proxies) }

func contains(networks []netip.Prefix, address netip.Addr) bool {
	return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(address) })
}

// check returns why the request is not this partner's, or "".
func (g *gate) check(p *Partner, r *http.Request) refusal {
	if !contains(p.Allow, g.address(r)) {
		return refusedAddress
	}
	if p.Login != "" {
		login, password, given := r.BasicAuth()
		sameLogin := hmac.Equal([]byte(login), []byte(p.Login))
		if !given || !g.rightPassword(p, password) || !sameLogin {
			return refusedCredentials
		}
	}
	return ""
}

// rightPassword is quick for a password that was right before.
func (g *gate) rightPassword(p *Partner, password string) bool {
	mac := hmac.New(sha256.New, g.key[:])
	mac.Write([]byte(password))
	keyed := mac.Sum(nil)
	g.mu.Lock()
	known := g.right[string(p.hash)]
	g.mu.Unlock()
	if known != nil && hmac.Equal(known, keyed) {
		return true
	}
	if !p.rightPassword(password) {
		return false
	}
	g.mu.Lock()
	g.right[string(p.hash)] = keyed
	g.mu.Unlock()
	return true
}

// signed tells whether the parameters carry the right hash, when the partner
// has a secret: the MD5 in hexadecimal of all others, in the order of their
// lower-case names, as name=value joined by &, and the secret after them.
func (p *Partner) signed(ps parameters) bool {
	return p.secret == "" || hmac.Equal([]byte(strings.ToLower(ps["hash"])), []byte(signature(ps, p.secret)))
}

func signature(ps parameters, secret string) string {
	h := md5.New() // the protocol's choice; the allow-list stands before it
	first := true
	for _, name := range slices.Sorted(maps.Keys(ps)) {
		if name == "hash" {
			continue
		}
		if !first {
			fmt.Fprint(h, "&")
		}
		first = false
		fmt.Fprintf(h, "%s=%s", name, ps[name])
	}
	fmt.Fprint(h, secret)
	return hex.EncodeToString(h.Sum(nil))
}
