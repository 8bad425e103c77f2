package reader

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

// spec/reliability.md, row 55: two addresses at once are two devices, one that
// has moved to another line is not.
func TestTwoAddressesAtOnceAreTwoDevices(t *testing.T) {
	for sentence, test := range map[string]struct {
		heard string // address@seconds
		want  string // a letter a sighting: s for a second device
	}{
		"the same address all day":                {"192.0.2.1@0 192.0.2.1@30 192.0.2.1@40000", "..."},
		"another address within the minute":       {"192.0.2.1@0 192.0.2.2@59", ".s"},
		"moved to another line":                   {"192.0.2.1@0 192.0.2.2@60 192.0.2.2@90 192.0.2.2@3600", "...."},
		"moved, and back after an hour":           {"192.0.2.1@0 192.0.2.2@120 192.0.2.1@3600", "..."},
		"back at the first address too soon":      {"192.0.2.1@0 192.0.2.2@120 192.0.2.1@600", "..s"},
		"by turns":                                {"192.0.2.1@0 192.0.2.2@100 192.0.2.1@200 192.0.2.2@300", "..ss"},
		"within one network of IPv6":              {"2001:db8::1@0 2001:db8::2@5", ".."},
		"in two networks of IPv6":                 {"2001:db8:0:1::1@0 2001:db8:0:2::1@5", ".s"},
		"over IPv4 and IPv6 at once":              {"192.0.2.1@0 2001:db8::1@5", ".s"},
		"requests that overtook each other":       {"192.0.2.1@10 192.0.2.1@5 192.0.2.2@65", "..s"},
		"long at one address, then soon at other": {"192.0.2.1@0 192.0.2.1@5000 192.0.2.2@5030", "..s"},
	} {
		var w whereabouts
		var got strings.Builder
		for _, entry := range strings.Fields(test.heard) {
			address, seconds, _ := strings.Cut(entry, "@")
			after, err := time.ParseDuration(seconds + "s")
			if err != nil {
				t.Fatal(err)
			}
			letter := "."
			if w.move(sighting{network(netip.MustParseAddr(address)), time.Unix(0, 0).Add(after)}) {
				letter = "s"
			}
			got.WriteString(letter)
		}
		if got.String() != test.want {
			t.Errorf("%s: %s, want %s", sentence, got.String(), test.want)
		}
	}
}
