package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"zvonok/access/reader"
	"zvonok/ledger/money"
	"zvonok/ussd"
)

// Config is the settings file (TOML). Every key can also be given by the
// environment as ZVONOK_SECTION_KEY (ZVONOK_HTTP_LISTEN, and for operators
// ZVONOK_OPERATOR_NAME_KEY), which wins over the file. A secret can be kept in a
// file named by the key with the suffix _file.
type Config struct {
	// DataDir holds the private PostgreSQL and what else must survive a restart.
	DataDir  string         `toml:"data_dir"`
	Database DatabaseConfig `toml:"database"`
	HTTP     HTTPConfig     `toml:"http"`  // devices, banks, portal, USSD callbacks
	Admin    ListenConfig   `toml:"admin"` // metrics, health, profiles, the job queue's page
	SMPP     SMPPConfig     `toml:"smpp"`
	Mail     MailConfig     `toml:"mail"`
	Push     PushConfig     `toml:"push"`
	USSD     USSDConfig     `toml:"ussd"`
	Notice   NoticeConfig   `toml:"notice"`
	Meals    MealsConfig    `toml:"meals"`
	Log      LogConfig      `toml:"log"`

	Operators []OperatorConfig `toml:"operator"`
	Sigur     []SigurConfig    `toml:"sigur"` // access control servers that push their events
	Drops     []DropConfig     `toml:"drop"`  // folders into which controllers export their events
}

// DropConfig is a folder of CSV files.
type DropConfig struct {
	Dir    string `toml:"dir"`
	Device int64  `toml:"device"` // whose events they are (zvonok key list)
}

// SigurConfig is a Sigur access control server.
type SigurConfig struct {
	// Points are its access points and the devices of zvonok key add that stand for them.
	Points map[string]int64 `toml:"points"`
	// In and Out are the site's codes of directions.
	In  int `toml:"in"`
	Out int `toml:"out"`
}

// sigurSites turns the settings into the adapter's terms.
func (c *Config) sigurSites() ([]reader.SigurSite, error) {
	var sites []reader.SigurSite
	for i, s := range c.Sigur {
		site := reader.SigurSite{Points: map[int64]reader.DeviceID{}, In: s.In, Out: s.Out}
		if s.In == s.Out {
			return nil, fmt.Errorf("sigur %d: in, out: give the two codes by which the site tells the directions, such as 1 and 2", i+1)
		}
		for point, device := range s.Points {
			n, err := strconv.ParseInt(point, 10, 64)
			if err != nil || device <= 0 {
				return nil, fmt.Errorf("sigur %d: points: %q = %d: want the number of an access point and the id of a device (zvonok key list)", i+1, point, device)
			}
			site.Points[n] = reader.DeviceID(device)
		}
		if len(site.Points) == 0 {
			return nil, fmt.Errorf("sigur %d: points: name at least one access point", i+1)
		}
		sites = append(sites, site)
	}
	return sites, nil
}

// DatabaseConfig says where PostgreSQL is.
type DatabaseConfig struct {
	URL     string `toml:"url"` // empty: the private PostgreSQL in data_dir
	URLFile string `toml:"url_file"`
	// ReplicaURL is a streaming replica, from which USSD and the parents' pages read; empty: all is read from the primary.
	ReplicaURL     string `toml:"replica_url"`
	ReplicaURLFile string `toml:"replica_url_file"`
	// ReplicaMaxLag is how far the replica may be behind; with more, the primary is read.
	ReplicaMaxLag string `toml:"replica_max_lag"`
	// Connections of the device interface and everything else, and of the job queue.
	// The replica's may be as many as the first.
	MaxConns      int `toml:"max_conns"`
	QueueMaxConns int `toml:"queue_max_conns"`
}

// Bounds of database.replica_max_lag. The lag is looked at four times a second,
// so that less than the lower bound would leave a sound replica for nothing.
const (
	minReplicaLag = time.Second
	maxReplicaLag = 5 * time.Minute
)

// replicaMaxLag is a setting that validate has looked at.
func (d DatabaseConfig) replicaMaxLag() time.Duration {
	lag, _ := time.ParseDuration(d.ReplicaMaxLag)
	return lag
}

func (d DatabaseConfig) validate() error {
	if d.MaxConns < 4 || d.QueueMaxConns < 4 {
		return errors.New("database.max_conns and database.queue_max_conns: at least 4 each")
	}
	if lag, err := time.ParseDuration(d.ReplicaMaxLag); err != nil || lag < minReplicaLag || lag > maxReplicaLag {
		return fmt.Errorf("database.replica_max_lag: %q is not a time from 1s to 5m, such as 3s", d.ReplicaMaxLag)
	}
	if d.ReplicaURL != "" && d.ReplicaURL == d.URL {
		return errors.New("database.replica_url: is the primary's address, database.url; leave it out when there is no replica")
	}
	return nil
}

// HTTPConfig is the public listener.
type HTTPConfig struct {
	Listen string `toml:"listen"` // host:port; port 0 picks a free one
	// PublicURL is the listener as the world sees it, for links in letters; empty: letters have no links.
	// With https:// browsers are told to come by TLS alone (HSTS); the proxy before us ends it.
	PublicURL string `toml:"public_url"`
	// Proxies are the networks of our own proxies: whom they name in X-Forwarded-For is believed.
	Proxies []string `toml:"proxies"`
}

// page is the address of one of our pages as the world sees it, "" without a public address.
func (h HTTPConfig) page(path string) string {
	if h.PublicURL == "" {
		return ""
	}
	return strings.TrimRight(h.PublicURL, "/") + path
}

// ListenConfig is one listener.
type ListenConfig struct {
	Listen string `toml:"listen"` // host:port; port 0 picks a free one
}

// SMPPConfig is our own SMPP server, to which operators bind.
type SMPPConfig struct {
	Listen      string `toml:"listen"`
	TLSCertFile string `toml:"tls_cert_file"`
	TLSKeyFile  string `toml:"tls_key_file"`
}

// MailConfig is the relay letters are handed to, and the way back.
type MailConfig struct {
	Smarthost    string `toml:"smarthost"`
	TLS          string `toml:"tls"` // none, starttls, tls; empty: none to a relay on this machine, else starttls
	Username     string `toml:"username"`
	Password     string `toml:"password"`
	PasswordFile string `toml:"password_file"`
	From         string `toml:"from"`
	DKIMSelector string `toml:"dkim_selector"`
	DKIMKeyFile  string `toml:"dkim_key_file"`
	// BounceListen takes bounces (RFC 3464) sent to the return path; empty: none are taken.
	BounceListen string `toml:"bounce_listen"`
	BounceDomain string `toml:"bounce_domain"`
}

// PushConfig is about notifications in browsers.
type PushConfig struct {
	// Contact is whom a push service turns to, a mailbox or an https address; empty: the mailbox of mail.from.
	Contact string `toml:"contact"`
	// Services are hosts of push services besides those of the usual browsers; ".example.org" is all hosts below it.
	Services []string `toml:"services"`
}

// USSDConfig is the service code.
type USSDConfig struct {
	Code string `toml:"code"`
	// Remember is for how long a phone may be shown again what it was shown, with its time, while the database does not
	// answer; "0s" is never.
	Remember string `toml:"remember"`
	// SilenceDays is after how many days without a sign of life a phone counts as possibly another's; 0 is never.
	SilenceDays int `toml:"silence_days"`
	// Profiles are further ways in which USSD gateways talk, each a known one with what differs.
	Profiles []ussd.ProfileSetting `toml:"profile"`
	// HTTP are aggregators that call POST /ussd/http/NAME.
	HTTP []USSDCallerConfig `toml:"http"`
}

// maxRemember keeps a balance from being shown that nobody would take for the last one.
const maxRemember = 24 * time.Hour

// remember is a setting that validate has looked at.
func (u USSDConfig) remember() time.Duration {
	d, _ := time.ParseDuration(u.Remember)
	return d
}

func (u USSDConfig) silence() time.Duration { return time.Duration(u.SilenceDays) * 24 * time.Hour }

// USSDCallerConfig is an aggregator that brings dialogues over HTTP.
type USSDCallerConfig struct {
	Name       string   `toml:"name"`
	Convention string   `toml:"convention"` // africastalking
	Secret     string   `toml:"secret"`     // at least 16 characters
	SecretFile string   `toml:"secret_file"`
	Addresses  []string `toml:"addresses"` // the networks it calls from; empty: any
	Region     string   `toml:"region"`    // country of phones in national form; RU
	// As of an operator: ussd_timeout, ussd_continue, ussd_close, ussd_latin.
	Timeout  string `toml:"timeout"`
	Continue bool   `toml:"continue"`
	Close    bool   `toml:"close"`
	Latin    bool   `toml:"latin"`
}

// NoticeConfig is about messages to people.
type NoticeConfig struct {
	// SMSPerDay is the cap of messages to one phone a day.
	SMSPerDay int `toml:"sms_per_day"`
	// TemplatesFile overrides texts.
	TemplatesFile string `toml:"templates_file"`
}

// MealsConfig is about canteens.
type MealsConfig struct {
	// CutOff is until when a preorder may be changed: so long before its day begins.
	CutOff string `toml:"cut_off"`
	// OfflineCap is how much of a child's offline sales of one day the wallet
	// pays, in roubles; what is above it is booked as a loss. "0.00" is no cap.
	OfflineCap string `toml:"offline_cap"`
}

// cutOff and offlineCap are settings that validate has looked at.
func (m MealsConfig) cutOff() time.Duration {
	d, _ := time.ParseDuration(m.CutOff)
	return d
}

func (m MealsConfig) offlineCap() money.Amount {
	sum, _ := money.Parse(m.OfflineCap)
	return sum
}

func (m MealsConfig) validate() error {
	if d, err := time.ParseDuration(m.CutOff); err != nil || d < 0 || d > 60*24*time.Hour {
		return fmt.Errorf("meals.cut_off: %q is not a time from 0s to 1440h, such as 72h", m.CutOff)
	}
	if sum, err := money.Parse(m.OfflineCap); err != nil || sum < 0 {
		return fmt.Errorf("meals.offline_cap: %q is not a sum such as 500.00, or 0.00 for no cap", m.OfflineCap)
	}
	return nil
}

// LogConfig is the log on standard error.
type LogConfig struct {
	Format string `toml:"format"` // text, json
	Level  string `toml:"level"`  // debug, info, warn, error
}

// operatorCode is an entry of an operator's codes.
var operatorCode = regexp.MustCompile(`^(0x[0-9a-fA-F]{1,8}=(OK|THR|QF|TMP|PR|PO|PM|RB)|err:[0-9A-Za-z/]{1,16}=(TMP|PR|PO))$`)

// OperatorConfig is one mobile operator.
type OperatorConfig struct {
	Name         string   `toml:"name"`
	Mode         string   `toml:"mode"` // client: we bind to it; server: it binds to us
	Address      string   `toml:"address"`
	SystemID     string   `toml:"system_id"`
	Password     string   `toml:"password"`
	PasswordFile string   `toml:"password_file"`
	SystemType   string   `toml:"system_type"`
	Addresses    []string `toml:"addresses"` // server mode: the networks it may bind from; empty: any
	Binds        int      `toml:"binds"`
	BindType     string   `toml:"bind_type"` // transceiver, pair
	Window       int      `toml:"window"`
	Rate         int      `toml:"rate"` // SMS parts per second, all binds together
	Roles        []string `toml:"roles"`
	Source       string   `toml:"source"`
	Prefixes     []string `toml:"prefixes"`
	Weight       int      `toml:"weight"`
	Cost         string   `toml:"cost"`
	MessageID    string   `toml:"message_id"`
	Concat       string   `toml:"concatenation"`
	// Codes say what the operator means by a code: "0x45=PR" of an answer, "err:069=PO" of a receipt.
	Codes []string `toml:"codes"`
	// RefusedBulk are the operator's codes for "the subscriber has refused bulk SMS": "0x412" of an answer, "err:069" of
	// a receipt.
	RefusedBulk  []string `toml:"refused_bulk"`
	USSDProfile  string   `toml:"ussd_profile"`
	USSDContinue bool     `toml:"ussd_continue"` // the answer follows by SMS when the session dies before it is shown
	USSDClose    bool     `toml:"ussd_close"`    // answer and close: the first screen ends the session
	USSDTimeout  string   `toml:"ussd_timeout"`  // how long a person may think, as in "180s"
	USSDMaxOpen  int      `toml:"ussd_max_open"` // open dialogues; beyond them the oldest go; 0 is 100,000
	USSDLatin    bool     `toml:"ussd_latin"`    // the gateway or its phones carry no Cyrillic
	TLS          bool     `toml:"tls"`
	TLSName      string   `toml:"tls_name"` // the name in the operator's certificate, when it is not the address's
	TLSCAFile    string   `toml:"tls_ca_file"`
}

// Shutdown limits.
const (
	drainTime = 20 * time.Second // what is in flight may take this long after SIGTERM
)

func defaultConfig() Config {
	return Config{
		DataDir:  "var",
		Database: DatabaseConfig{MaxConns: 20, QueueMaxConns: 16, ReplicaMaxLag: "3s"},
		HTTP:     HTTPConfig{Listen: "127.0.0.1:8080"},
		Admin:    ListenConfig{Listen: "127.0.0.1:9090"},
		SMPP:     SMPPConfig{Listen: "127.0.0.1:2775"},
		Mail:     MailConfig{Smarthost: "127.0.0.1:1025", From: "Школа <pass@example.org>"},
		USSD:     USSDConfig{Code: "*377*888#", Remember: "6h", SilenceDays: 365},
		Notice:   NoticeConfig{SMSPerDay: 30},
		Meals:    MealsConfig{CutOff: "72h", OfflineCap: "0.00"},
		Log:      LogConfig{Format: "text", Level: "info"},
	}
}

func defaultOperator() OperatorConfig {
	return OperatorConfig{
		Mode: "client", Binds: 1, BindType: "transceiver", Window: 50, Rate: 100, Roles: []string{"sms"}, Weight: 10,
		Cost: "0.00", MessageID: "auto", Concat: "udh16", USSDProfile: "plain-its",
		USSDTimeout: defaultUSSDTimeout,
	}
}

// How long a person may think about a USSD screen: networks give up after 40 to
// 180 s, some aggregators after 600.
const (
	defaultUSSDTimeout = "180s"
	minUSSDTimeout     = 10 * time.Second
	maxUSSDTimeout     = 10 * time.Minute
	maxUSSDOpen        = 100_000
)

// parseUSSDTimeout reads such a time; empty is the default.
func parseUSSDTimeout(key, text string) (time.Duration, error) {
	if text == "" {
		text = defaultUSSDTimeout
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < minUSSDTimeout || d > maxUSSDTimeout {
		return 0, fmt.Errorf("%s: %q is not a time between 10s and 10m, such as %q", key, text, defaultUSSDTimeout)
	}
	return d, nil
}

// LoadConfig reads the settings. With path empty it reads zvonok.toml when it is
// there. Every error names the file or variable, the key, and what is allowed.
func LoadConfig(path string, environ []string) (Config, error) {
	c := defaultConfig()
	name := path
	if name == "" {
		name = "zvonok.toml"
	}
	data, err := os.ReadFile(name)
	switch {
	case err == nil:
		if err := c.parse(name, data); err != nil {
			return Config{}, err
		}
	case path == "" && errors.Is(err, os.ErrNotExist):
	default:
		return Config{}, fmt.Errorf("read settings: %w", err)
	}
	if err := c.applyEnvironment(environ); err != nil {
		return Config{}, err
	}
	if err := c.readSecrets(); err != nil {
		return Config{}, fmt.Errorf("%s: %w", name, err)
	}
	if err := c.validate(); err != nil {
		return Config{}, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

// parse reads TOML over the defaults. Operators get theirs one by one: an array
// of tables starts from nothing.
func (c *Config) parse(name string, data []byte) error {
	var raw struct {
		Operators []map[string]any `toml:"operator"`
	}
	if err := toml.Unmarshal(data, &raw); err != nil {
		return explainTOML(name, err)
	}
	decoder := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields()
	if err := decoder.Decode(c); err != nil {
		return explainTOML(name, err)
	}
	for i := range c.Operators {
		given := raw.Operators[i]
		operator := reflect.ValueOf(&c.Operators[i]).Elem()
		defaults := reflect.ValueOf(defaultOperator())
		for f := range operator.NumField() {
			if _, set := given[operator.Type().Field(f).Tag.Get("toml")]; !set {
				operator.Field(f).Set(defaults.Field(f))
			}
		}
	}
	return nil
}

// explainTOML says where a settings file is wrong.
func explainTOML(name string, err error) error {
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) && len(strict.Errors) > 0 {
		var unknown []string
		for _, e := range strict.Errors {
			line, _ := e.Position()
			unknown = append(unknown, fmt.Sprintf("%s (line %d)", strings.Join(e.Key(), "."), line))
		}
		return fmt.Errorf("%s: unknown key %s; the README lists the settings", name, strings.Join(unknown, ", "))
	}
	var decode *toml.DecodeError
	if errors.As(err, &decode) {
		line, column := decode.Position()
		key := ""
		if k := decode.Key(); len(k) > 0 {
			key = strings.Join(k, ".") + ": "
		}
		return fmt.Errorf("%s: line %d, column %d: %s%s", name, line, column, key, strings.TrimPrefix(decode.Error(), "toml: "))
	}
	return fmt.Errorf("%s: %w", name, err)
}

const environmentPrefix = "ZVONOK_"

// applyEnvironment sets keys from ZVONOK_SECTION_KEY. A variable with the prefix
// that names no setting is an error, like an unknown key.
func (c *Config) applyEnvironment(environ []string) error {
	targets := map[string]reflect.Value{}
	collectKeys(targets, "", reflect.ValueOf(c).Elem())
	for i := range c.Operators {
		name := strings.ToUpper(regexp.MustCompile(`[^A-Za-z0-9]`).ReplaceAllString(c.Operators[i].Name, "_"))
		collectKeys(targets, "OPERATOR_"+name+"_", reflect.ValueOf(&c.Operators[i]).Elem())
	}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		key, ours := strings.CutPrefix(name, environmentPrefix)
		if !ours {
			continue
		}
		target, ok := targets[key]
		if !ok {
			return fmt.Errorf("environment: %s names no setting; settings are ZVONOK_SECTION_KEY, as in ZVONOK_HTTP_LISTEN", name)
		}
		if err := setFromText(target, value); err != nil {
			return fmt.Errorf("environment: %s: %w", name, err)
		}
	}
	return nil
}

func collectKeys(targets map[string]reflect.Value, prefix string, v reflect.Value) {
	for i := range v.NumField() {
		key := prefix + strings.ToUpper(v.Type().Field(i).Tag.Get("toml"))
		switch field := v.Field(i); {
		case field.Kind() == reflect.Struct:
			collectKeys(targets, key+"_", field)
		case field.Kind() == reflect.Slice && field.Type().Elem().Kind() == reflect.Struct:
		default:
			targets[key] = field
		}
	}
}

func setFromText(target reflect.Value, text string) error {
	switch target.Kind() {
	case reflect.String:
		target.SetString(text)
	case reflect.Int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", text)
		}
		target.SetInt(int64(n))
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%q is not true or false", text)
		}
		target.SetBool(b)
	case reflect.Slice:
		var list []string
		for item := range strings.SplitSeq(text, ",") {
			if item = strings.TrimSpace(item); item != "" {
				list = append(list, item)
			}
		}
		target.Set(reflect.ValueOf(list))
	default:
		return fmt.Errorf("cannot be set by the environment")
	}
	return nil
}

// readSecrets fills secrets from the files that name them.
func (c *Config) readSecrets() error {
	type secret struct {
		key   string
		file  string
		value *string
	}
	secrets := []secret{
		{"database.url_file", c.Database.URLFile, &c.Database.URL},
		{"database.replica_url_file", c.Database.ReplicaURLFile, &c.Database.ReplicaURL},
		{"mail.password_file", c.Mail.PasswordFile, &c.Mail.Password},
	}
	for i := range c.USSD.HTTP {
		h := &c.USSD.HTTP[i]
		secrets = append(secrets, secret{"ussd.http " + h.Name + ": secret_file", h.SecretFile, &h.Secret})
	}
	for i := range c.Operators {
		o := &c.Operators[i]
		secrets = append(secrets, secret{"operator " + o.Name + ": password_file", o.PasswordFile, &o.Password})
	}
	for _, s := range secrets {
		if s.file == "" {
			continue
		}
		if *s.value != "" {
			return fmt.Errorf("%s is set and so is the secret itself; keep one of the two", s.key)
		}
		data, err := os.ReadFile(s.file)
		if err != nil {
			return fmt.Errorf("%s: %w", s.key, err)
		}
		*s.value = strings.TrimRight(string(data), "\r\n")
	}
	return nil
}

// serverTLS is how operators bind to us, nil without TLS.
func (c *SMPPConfig) serverTLS() (*tls.Config, error) {
	if c.TLSCertFile == "" {
		return nil, nil
	}
	certificate, err := tls.LoadX509KeyPair(c.TLSCertFile, c.TLSKeyFile)
	if err != nil {
		return nil, fmt.Errorf("smpp.tls_cert_file, smpp.tls_key_file: %w", err)
	}
	return &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}, nil
}

// validate stops a wrong setting before anything starts.
func (c *Config) validate() error {
	for key, address := range map[string]string{
		"http.listen": c.HTTP.Listen, "admin.listen": c.Admin.Listen, "smpp.listen": c.SMPP.Listen,
		"mail.smarthost": c.Mail.Smarthost,
	} {
		if err := checkAddress(address); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	if c.Mail.BounceListen != "" {
		if err := checkAddress(c.Mail.BounceListen); err != nil {
			return fmt.Errorf("mail.bounce_listen: %w", err)
		}
	}
	if u, err := url.Parse(c.HTTP.PublicURL); err != nil || c.HTTP.PublicURL != "" && (u.Scheme != "https" && u.Scheme != "http" || u.Host == "") {
		return fmt.Errorf("http.public_url: %q is not an address such as https://pass.example.org", c.HTTP.PublicURL)
	}
	if c.DataDir == "" {
		return errors.New("data_dir: must name a folder")
	}
	if (c.SMPP.TLSCertFile == "") != (c.SMPP.TLSKeyFile == "") {
		return errors.New("smpp.tls_cert_file and smpp.tls_key_file: give both or neither")
	}
	if _, err := c.SMPP.serverTLS(); err != nil {
		return err
	}
	if c.Mail.TLS == "" {
		c.Mail.TLS = "starttls"
		if host, _, _ := net.SplitHostPort(c.Mail.Smarthost); host == "localhost" || net.ParseIP(host).IsLoopback() {
			c.Mail.TLS = "none"
		}
	}
	if err := oneOf("mail.tls", c.Mail.TLS, "none", "starttls", "tls"); err != nil {
		return err
	}
	if _, err := mail.ParseAddress(c.Mail.From); err != nil {
		return fmt.Errorf("mail.from: %q is not a mail address such as \"School <pass@example.org>\"", c.Mail.From)
	}
	if c.Push.Contact != "" && !strings.Contains(c.Push.Contact, "@") && !strings.HasPrefix(c.Push.Contact, "https://") {
		return fmt.Errorf("push.contact: %q is neither a mailbox nor an https address", c.Push.Contact)
	}
	for _, service := range c.Push.Services {
		if !regexp.MustCompile(`^\.?[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+$`).MatchString(service) {
			return fmt.Errorf("push.services: %q is not a host such as push.example.org", service)
		}
	}
	if !regexp.MustCompile(`^\*[0-9]+(\*[0-9]+)*#$`).MatchString(c.USSD.Code) {
		return fmt.Errorf("ussd.code: %q is not a service code such as *377*888#", c.USSD.Code)
	}
	if d, err := time.ParseDuration(c.USSD.Remember); err != nil || d < 0 || d > maxRemember {
		return fmt.Errorf("ussd.remember: %q is not a time from 0s to 24h, such as 6h", c.USSD.Remember)
	}
	if err := between("ussd.silence_days", c.USSD.SilenceDays, 0, 3650); err != nil {
		return err
	}
	if err := oneOf("log.format", c.Log.Format, "text", "json"); err != nil {
		return err
	}
	if err := oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error"); err != nil {
		return err
	}
	if err := c.Meals.validate(); err != nil {
		return err
	}
	if c.Notice.SMSPerDay < 1 {
		return fmt.Errorf("notice.sms_per_day: %d is not a positive number", c.Notice.SMSPerDay)
	}
	if err := c.Database.validate(); err != nil {
		return err
	}
	if _, err := c.sigurSites(); err != nil {
		return err
	}
	for i, d := range c.Drops {
		if d.Dir == "" || d.Device <= 0 {
			return fmt.Errorf("drop %d: dir, device: give a folder and the id of a device (zvonok key list)", i+1)
		}
	}
	seen := map[string]bool{}
	for i := range c.Operators {
		o := &c.Operators[i]
		if !regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$`).MatchString(o.Name) {
			return fmt.Errorf("operator %d: name: %q must be 1 to 32 letters, digits, '-' or '_'", i+1, o.Name)
		}
		if seen[o.Name] {
			return fmt.Errorf("operator %s: name: used twice", o.Name)
		}
		seen[o.Name] = true
		if err := o.validate(); err != nil {
			return fmt.Errorf("operator %s: %w", o.Name, err)
		}
	}
	if _, err := operatorConfigs(c.Operators); err != nil {
		return err
	}
	_, err := ussdLinks(*c)
	return err
}

func (o *OperatorConfig) validate() error {
	if err := oneOf("mode", o.Mode, "client", "server"); err != nil {
		return err
	}
	if o.Mode == "client" {
		if err := checkAddress(o.Address); err != nil {
			return fmt.Errorf("address: %w", err)
		}
	}
	if o.SystemID == "" || len(o.SystemID) > 15 {
		return errors.New("system_id: 1 to 15 characters (SMPP 3.4)")
	}
	if len(o.Password) > 8 {
		return errors.New("password: at most 8 characters (SMPP 3.4)")
	}
	for _, err := range []error{
		oneOf("bind_type", o.BindType, "transceiver", "pair"),
		oneOf("message_id", o.MessageID, "auto", "as-is", "hex", "dec"),
		oneOf("concatenation", o.Concat, "udh8", "udh16", "sar", "payload"),
		between("binds", o.Binds, 1, 32),
		between("window", o.Window, 1, 10_000),
		between("rate", o.Rate, 1, 100_000),
		between("weight", o.Weight, 0, 1_000),
		between("ussd_max_open", o.USSDMaxOpen, 0, maxUSSDOpen),
	} {
		if err != nil {
			return err
		}
	}
	for _, role := range o.Roles {
		if err := oneOf("roles", role, "sms", "ussd"); err != nil {
			return err
		}
	}
	for _, code := range o.Codes {
		if !operatorCode.MatchString(code) {
			return fmt.Errorf(`codes: %q is neither like "0x45=PR" (of an answer: OK, THR, QF, TMP, PR, PO, PM or RB) nor like "err:069=PO" (of a receipt: TMP, PR or PO)`, code)
		}
	}
	for _, code := range o.RefusedBulk {
		if !regexp.MustCompile(`^(0x[0-9a-fA-F]{1,8}|err:[0-9A-Za-z]{1,8})$`).MatchString(code) {
			return fmt.Errorf(`refused_bulk: %q is neither the code of an answer such as "0x412" nor of a receipt such as "err:069"`, code)
		}
	}
	for _, prefix := range o.Prefixes {
		if !regexp.MustCompile(`^[0-9]{1,15}$`).MatchString(prefix) {
			return fmt.Errorf("prefixes: %q is not 1 to 15 digits", prefix)
		}
	}
	for _, network := range o.Addresses {
		if _, _, err := net.ParseCIDR(network); err != nil {
			return fmt.Errorf("addresses: %q is not a network such as 192.0.2.0/24", network)
		}
	}
	return nil
}

func oneOf(key, value string, allowed ...string) error {
	for _, a := range allowed {
		if value == a {
			return nil
		}
	}
	return fmt.Errorf("%s: %q is not one of %s", key, value, strings.Join(allowed, ", "))
}

func between(key string, value, low, high int) error {
	if value < low || value > high {
		return fmt.Errorf("%s: %d is not between %d and %d", key, value, low, high)
	}
	return nil
}

func checkAddress(address string) error {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q is not host:port", address)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("%q: the port is not a number from 0 to 65535", address)
	}
	return nil
}

// dataDir returns the data folder as an absolute path.
func (c *Config) dataDir() (string, error) {
	dir, err := filepath.Abs(c.DataDir)
	if err != nil {
		return "", fmt.Errorf("data_dir: %w", err)
	}
	return dir, nil
}
