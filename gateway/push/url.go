package push

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
)

// publicServices are the hosts of the push services of browsers; those that
// begin with a dot stand for all hosts below it.
var publicServices = []string{
	"fcm.googleapis.com",         // Chrome and what is built on it
	".push.services.mozilla.com", // Firefox
	".push.apple.com",            // Safari
	".notify.windows.com",        // Edge
}

// checkURL says why an endpoint is not one of a push service we call.
func (s *Sender) checkURL(raw string) error {
	if len(raw) > maxURL {
		return fmt.Errorf("the endpoint has more than %d octets", maxURL)
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return errors.New("the endpoint is no address of the web") // the error would quote it
	case u.Scheme != "https" || u.Opaque != "":
		return errors.New("the endpoint is not https")
	case u.User != nil || u.Fragment != "":
		return errors.New("the endpoint has a login or a fragment")
	case strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r > '~' }):
		return errors.New("the endpoint has characters that no address has")
	}
	host := strings.ToLower(u.Host)
	for _, service := range s.services {
		if host == service || strings.HasPrefix(service, ".") && strings.HasSuffix(host, service) {
			return nil
		}
	}
	return errors.New("the endpoint is not that of a known push service (push.services in the settings adds one)")
}

// errPrivate says that the name of a push service leads into our own network.
var errPrivate = errors.New("the address is not public")

// public refuses a connection to an address that is not public; it is asked
// after the name was resolved, so a name cannot hide where it leads.
func public(network, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil || network != "tcp4" && network != "tcp6" {
		return errPrivate
	}
	if !isPublic(at.Addr().Unmap()) {
		return errPrivate
	}
	return nil
}

// reserved are networks of IANA's registries of special purposes that the
// predicates of netip do not know.
var reserved = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"), // carrier-grade NAT
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("64:ff9b::/96"), // NAT64 leads to any IPv4 address
	netip.MustParsePrefix("64:ff9b:1::/48"),
	netip.MustParsePrefix("100::/64"),
	netip.MustParsePrefix("2001::/23"),
	netip.MustParsePrefix("2001:db8::/32"),
	netip.MustParsePrefix("2002::/16"), // 6to4, likewise
}

func isPublic(a netip.Addr) bool {
	if !a.IsGlobalUnicast() || a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.Zone() != "" {
		return false
	}
	for _, prefix := range reserved {
		if prefix.Contains(a) {
			return false
		}
	}
	return true
}
