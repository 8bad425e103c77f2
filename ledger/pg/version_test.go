package pg

import (
	"strings"
	"testing"
)

func TestAServerThatIsTooOldIsRefused(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]string{
		"14.0": "", "15.18 (Debian 15.18-0+deb12u1)": "", "18beta1": "", "19": "",
		"13.22": "14 or later", "9.6.24": "14 or later", "": "none of PostgreSQL", "CockroachDB": "none of PostgreSQL",
	} {
		err := checkServer(version)
		if (err == nil) != (want == "") || (err != nil && !strings.Contains(err.Error(), want)) {
			t.Errorf("version %q gave %v; want %q", version, err, want)
		}
	}
}
