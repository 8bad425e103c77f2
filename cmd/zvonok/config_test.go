package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"zvonok/ledger/meal"
	"zvonok/ussd"
)

func TestAWrongSettingIsNamedWithTheFileTheKeyAndWhatIsAllowed(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		file     string
		environ  []string
		complain []string
	}{
		{"a cut-off that is no time", "[meals]\ncut_off = \"3 days\"\n", nil, []string{"zvonok.toml", "meals.cut_off", "72h"}},
		{"a cap below nothing", "[meals]\noffline_cap = \"-1.00\"\n", nil, []string{"zvonok.toml", "meals.offline_cap", "500.00"}},
		{"a lag that nobody can keep", "[database]\nreplica_max_lag = \"10ms\"\n", nil, []string{"zvonok.toml", "database.replica_max_lag", "from 1s to 5m"}},
		{
			"a replica that is the primary", "[database]\nurl = \"postgres://a/b\"\nreplica_url = \"postgres://a/b\"\n", nil,
			[]string{"zvonok.toml", "database.replica_url", "database.url"},
		},
		{"an unknown key", "[http]\nlisen = \"x\"\n", nil, []string{"zvonok.toml", "http.lisen", "line 2"}},
		{"a value of the wrong type", "[ussd]\ncode = 5\n", nil, []string{"zvonok.toml", "line 2"}},
		{"broken TOML", "[http\n", nil, []string{"zvonok.toml", "line 1"}},
		{"an address without a port", "[http]\nlisten = \"localhost\"\n", nil, []string{"http.listen", "host:port"}},
		{"a TLS policy that does not exist", "[mail]\ntls = \"maybe\"\n", nil, []string{"mail.tls", "none, starttls, tls"}},
		{"a service code that cannot be dialled", "[ussd]\ncode = \"377\"\n", nil, []string{"ussd.code", "*377*888#"}},
		{"balances remembered for days", "[ussd]\nremember = \"48h\"\n", nil, []string{"ussd.remember", "48h", "6h"}},
		{"an operator without an address", "[[operator]]\nname = \"a\"\nsystem_id = \"x\"\n", nil, []string{"operator a", "address"}},
		{
			"a password longer than SMPP allows", "[[operator]]\nname = \"a\"\nsystem_id = \"x\"\naddress = \"h:1\"\npassword = \"123456789\"\n",
			nil,
			[]string{"operator a", "password", "8"},
		},
		{
			"a code whose meaning nobody knows", "[[operator]]\nname = \"a\"\nsystem_id = \"x\"\naddress = \"h:1\"\ncodes = [\"0x45=BAD\"]\n",
			nil,
			[]string{"operator a", "codes", "0x45=BAD", "PR"},
		},
		{
			"two operators of one name",
			"[[operator]]\nname = \"a\"\nsystem_id = \"x\"\naddress = \"h:1\"\n[[operator]]\nname = \"a\"\nsystem_id = \"x\"\naddress = \"h:1\"\n",
			nil,
			[]string{"operator a", "twice"},
		},
		{
			"a USSD profile that does not exist", "[[operator]]\nname = \"a\"\nsystem_id = \"x\"\naddress = \"h:1\"\nroles = [\"ussd\"]\nussd_profile = \"nokia\"\n",
			nil,
			[]string{"zvonok.toml", "operator a", "ussd_profile", "plain-its"},
		},
		{
			"a patience that is no time", "[[operator]]\nname = \"a\"\nsystem_id = \"x\"\naddress = \"h:1\"\nroles = [\"ussd\"]\nussd_timeout = \"3\"\n",
			nil,
			[]string{"zvonok.toml", "operator a", "ussd_timeout", "between 10s and 10m"},
		},
		{
			"a patience that is too long", "[[ussd.http]]\nname = \"at\"\nconvention = \"africastalking\"\nsecret = \"0123456789abcdef\"\ntimeout = \"1h\"\n",
			nil,
			[]string{"zvonok.toml", "ussd.http at", "timeout", "between 10s and 10m"},
		},
		{
			"more dialogues than there is room for", "[[operator]]\nname = \"a\"\nsystem_id = \"x\"\naddress = \"h:1\"\nroles = [\"ussd\"]\nussd_max_open = 1000000\n",
			nil,
			[]string{"zvonok.toml", "operator a", "ussd_max_open", "100000"},
		},
		{"a variable that names no setting", "", []string{"ZVONOK_HTTP_LISEN=x"}, []string{"ZVONOK_HTTP_LISEN"}},
		{"a number that is none", "", []string{"ZVONOK_NOTICE_SMS_PER_DAY=many"}, []string{"ZVONOK_NOTICE_SMS_PER_DAY", "whole number"}},
		{
			"a short secret of an aggregator", "[[ussd.http]]\nname = \"at\"\nconvention = \"africastalking\"\nsecret = \"x\"\n",
			nil,
			[]string{"zvonok.toml", "ussd.http at", "secret", "16"},
		},
		{
			"a key pair that is not there", "[smpp]\ntls_cert_file = \"x\"\ntls_key_file = \"y\"\n",
			nil,
			[]string{"zvonok.toml", "smpp.tls_cert_file"},
		},
		{"a Sigur server without its codes", "[[sigur]]\npoints = { \"1\" = 12 }\n", nil, []string{"sigur 1", "in, out"}},
		{"a Sigur server without a device", "[[sigur]]\nin = 1\nout = 2\npoints = { \"1\" = 0 }\n", nil, []string{"sigur 1", "zvonok key list"}},
		{"a drop folder of no device", "[[drop]]\ndir = \"x\"\n", nil, []string{"drop 1", "zvonok key list"}},
		{"one half of a key pair", "[smpp]\ntls_cert_file = \"x\"\n", nil, []string{"tls_key_file"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "zvonok.toml")
			if err := os.WriteFile(path, []byte(test.file), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := LoadConfig(path, test.environ)
			if err == nil {
				t.Fatal("the setting was taken")
			}
			for _, word := range test.complain {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%q does not say %q", err, word)
				}
			}
		})
	}
}

func TestSettingsComeFromDefaultsFileEnvironmentAndSecretFilesInThatOrder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("pass1234\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "zvonok.toml")
	file := "[http]\nlisten = \"127.0.0.1:1\"\n[[operator]]\nname = \"mts\"\naddress = \"127.0.0.1:2776\"\nsystem_id = \"school\"\n" +
		"password_file = \"" + secret + "\"\nrate = 500\nroles = [\"sms\", \"ussd\"]\n"
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := LoadConfig(path, []string{"ZVONOK_HTTP_LISTEN=127.0.0.1:2", "ZVONOK_OPERATOR_MTS_WINDOW=7", "PATH=/bin"})
	if err != nil {
		t.Fatal(err)
	}
	o := c.Operators[0]
	if c.Meals.cutOff() != meal.DefaultCutOff || c.Meals.offlineCap() != 0 {
		t.Errorf("by default the meals are %+v", c.Meals)
	}
	if c.HTTP.Listen != "127.0.0.1:2" {
		t.Errorf("the environment did not win: http.listen = %q", c.HTTP.Listen)
	}
	if c.Admin.Listen != "127.0.0.1:9090" {
		t.Errorf("the default is gone: admin.listen = %q", c.Admin.Listen)
	}
	if o.Password != "pass1234" {
		t.Errorf("the password file was not read: %q", o.Password)
	}
	if o.Window != 7 || o.Rate != 500 || o.Binds != 1 || o.Mode != "client" || len(o.Roles) != 2 {
		t.Errorf("operator = %+v", o)
	}
}

// The README is what an administrator has: its blocks about USSD are settings that load, and each reaches its link.
func TestTheUSSDSettingsOfTheREADMEReachTheirLinks(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	file := ""
	for _, part := range strings.Split(string(readme), "```toml\n")[1:] {
		block, _, _ := strings.Cut(part, "```")
		for _, head := range []string{"[[operator]]", "[[ussd.profile]]", "[[ussd.http]]"} {
			if strings.HasPrefix(block, head) {
				file += block
			}
		}
	}
	for _, change := range [][2]string{
		{`password_file = "/etc/zvonok/mts.password"`, `password = "secret"`},
		{`secret_file = "/etc/zvonok/at.secret"`, `secret = "0123456789abcdef"`},
		{`ussd_profile = "plain-its"`, `ussd_profile = "beeline-2026"`},
		{`ussd_timeout = "180s"`, `ussd_timeout = "90s"`},
		{`ussd_continue = false`, `ussd_continue = true`},
		{`ussd_close = false`, `ussd_close = true`},
		{`ussd_latin = false`, `ussd_latin = true`},
		{`ussd_max_open = 0`, `ussd_max_open = 500`},
	} {
		if strings.Count(file, change[0]) != 1 {
			t.Fatalf("the README does not say %s once", change[0])
		}
		file = strings.Replace(file, change[0], change[1], 1)
	}
	file += "region = \"KE\"\nlatin = true\ncontinue = true\nclose = true\n" // of [[ussd.http]], the last block
	path := filepath.Join(t.TempDir(), "zvonok.toml")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	config, err := LoadConfig(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	links, err := ussdLinks(config)
	if err != nil {
		t.Fatal(err)
	}
	profiles, err := ussd.NewProfiles(config.USSD.Profiles)
	if err != nil {
		t.Fatal(err)
	}
	want := []ussd.Link{
		{
			Name: "mts", Profile: profiles["beeline-2026"], TTL: 90 * time.Second, MaxOpen: 500,
			AnswerAndClose: true, Latin: true, FollowBySMS: true,
		},
		{
			Name: "at", TTL: 180 * time.Second, AnswerAndClose: true, Latin: true, FollowBySMS: true,
			HTTP: &ussd.Caller{
				Convention: "africastalking", Secret: "0123456789abcdef", Region: "KE",
				From: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
			},
		},
	}
	if !reflect.DeepEqual(links, want) {
		t.Errorf("the links are\n%+v\nwant\n%+v", links, want)
	}
	known, err := ussd.NewProfiles(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name := range known {
		if !strings.Contains(string(readme), "`"+name+"`") {
			t.Errorf("the README does not name the profile %s", name)
		}
	}
}
