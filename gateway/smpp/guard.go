package smpp

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	wrongBindsPerMinute = 10             // of one address, before it is shut out
	wrongBindsPerID     = 30             // a minute with one system_id, before it counts as attacked
	penaltyPerID        = 20             // connections of one system_id that wait for their refusal
	trustLife           = 24 * time.Hour // how long a right login keeps an address from being shut out
	guardLimit          = 10_000         // addresses and system_ids remembered
)

// guard counts what strangers do: connections, binds under way and wrong
// logins by address, wrong logins by system_id. Wrong logins slow the wrong
// ones down; they never keep out somebody who knows the password and comes from
// an address that did not guess.
type guard struct {
	cfg ServerConfig

	mu        sync.Mutex
	conns     int
	addresses map[netip.Addr]*addressRecord
	ids       map[string]*idRecord
	unbound   []*stranger // oldest first
	pruned    time.Time   // when ids was last
}

type addressRecord struct {
	conns   int
	unbound int
	wrong   *rate.Limiter // tokens left for wrong logins
	lastBad time.Time
	trusted time.Time // until when a right login speaks for it
	seen    time.Time
}

type idRecord struct {
	wrong   *rate.Limiter
	waiting int // connections that wait for their refusal
	seen    time.Time
}

// stranger is a connection that has not bound yet.
type stranger struct {
	conn    net.Conn
	address netip.Addr
	bound   bool
}

func newGuard(cfg ServerConfig) *guard {
	return &guard{
		cfg:       cfg,
		addresses: make(map[netip.Addr]*addressRecord),
		ids:       make(map[string]*idRecord),
	}
}

// sourceAddress is what counts as one address: an IPv4 address, or the 64 bit
// network an IPv6 host can change its addresses in.
func sourceAddress(addr net.Addr) netip.Addr {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	if ip.Is6() {
		if network, err := ip.Prefix(64); err == nil {
			return network.Addr()
		}
	}
	return ip
}

// enter lets a new connection in, or says that it must be closed. When too many
// are unbound the oldest of them has to go: a peer with a password binds at
// once.
func (g *guard) enter(conn net.Conn, now time.Time) (s *stranger, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	address := sourceAddress(conn.RemoteAddr())
	r := g.address(address, now)
	if g.conns >= g.cfg.MaxConns || r.conns >= g.cfg.MaxConnsPerAddress || r.unbound >= g.cfg.MaxUnboundPerAddress {
		return nil, false
	}
	if r.wrong.TokensAt(now) < 1 && now.After(r.trusted) {
		return nil, false
	}
	s = &stranger{conn: conn, address: address}
	if len(g.unbound) >= g.cfg.MaxUnbound {
		// Its goroutine sees the closed connection and leaves.
		g.unbound[0].conn.Close()
		g.unbound = g.unbound[1:]
	}
	g.unbound = append(g.unbound, s)
	g.conns++
	r.conns++
	r.unbound++
	return s, true
}

// bound says that a connection has logged in.
func (g *guard) bound(s *stranger, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s.bound = true
	r := g.address(s.address, now)
	r.unbound--
	r.trusted = now.Add(trustLife)
	g.forget(s)
}

// leave says that a connection has ended.
func (g *guard) leave(s *stranger, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.address(s.address, now)
	g.conns--
	r.conns--
	if !s.bound {
		r.unbound--
		g.forget(s)
	}
}

func (g *guard) forget(s *stranger) {
	for i := range g.unbound {
		if g.unbound[i] == s {
			g.unbound = append(g.unbound[:i], g.unbound[i+1:]...)
			return
		}
	}
}

// suspect says that a login is not worth checking: its system_id is under
// attack and its address has guessed wrong within the last minute.
func (g *guard) suspect(s *stranger, systemID string, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	id, known := g.ids[systemID]
	if !known || id.wrong.TokensAt(now) >= 1 {
		return false
	}
	r := g.address(s.address, now)
	return now.After(r.trusted) && now.Sub(r.lastBad) < time.Minute
}

// wrong counts a wrong login. It is not ok if so many with this system_id wait
// for their refusal already that this one gets none.
func (g *guard) wrong(s *stranger, systemID string, now time.Time) (ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.address(s.address, now)
	r.wrong.AllowN(now, 1)
	r.lastBad = now
	id := g.ids[systemID]
	if id == nil {
		if len(g.ids) >= guardLimit && now.Sub(g.pruned) >= time.Second {
			g.pruned = now
			prune(g.ids, func(r *idRecord) bool { return r.waiting == 0 && now.Sub(r.seen) > time.Minute })
		}
		if len(g.ids) >= guardLimit {
			return false
		}
		id = &idRecord{wrong: rate.NewLimiter(rate.Limit(wrongBindsPerID)/60, wrongBindsPerID)}
		g.ids[systemID] = id
	}
	id.seen = now
	id.wrong.AllowN(now, 1)
	if id.waiting >= penaltyPerID {
		return false
	}
	id.waiting++
	return true
}

// refused says that a wrong login has waited for its refusal.
func (g *guard) refused(systemID string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ids[systemID].waiting--
}

func (g *guard) address(address netip.Addr, now time.Time) *addressRecord {
	r := g.addresses[address]
	if r == nil {
		if len(g.addresses) >= guardLimit {
			prune(g.addresses, func(r *addressRecord) bool { return r.conns == 0 && now.Sub(r.seen) > time.Minute })
		}
		if len(g.addresses) >= guardLimit {
			// So many addresses within a minute: memory is worth more than memories.
			prune(g.addresses, func(r *addressRecord) bool { return r.conns == 0 })
		}
		r = &addressRecord{wrong: rate.NewLimiter(rate.Limit(wrongBindsPerMinute)/60, wrongBindsPerMinute)}
		g.addresses[address] = r
	}
	r.seen = now
	return r
}

func prune[K comparable, V any](records map[K]V, useless func(V) bool) {
	for key, record := range records {
		if useless(record) {
			delete(records, key)
		}
	}
}
