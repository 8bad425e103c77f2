// Package peer tells who is at the other end of an HTTP request.
package peer

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Address returns where a request comes from. A proxy of ours says it in the
// last place of X-Forwarded-For; what others say there counts for nothing. It is
// the zero Addr when our own proxy says nothing that is an address.
func Address(r *http.Request, proxies []netip.Prefix) netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	address := peer.Addr().Unmap()
	if !slices.ContainsFunc(proxies, func(p netip.Prefix) bool { return p.Contains(address) }) {
		return address
	}
	all := r.Header.Values("X-Forwarded-For")
	if len(all) == 0 {
		return address
	}
	places := strings.Split(all[len(all)-1], ",")
	forwarded, err := netip.ParseAddr(strings.TrimSpace(places[len(places)-1]))
	if err != nil {
		return netip.Addr{}
	}
	return forwarded.Unmap()
}
