package carrier

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"
)

// Limits and defaults of the settings.
const (
	defaultBinds  = 1
	defaultWindow = 10
	defaultRate   = 10 // parts per second; every contract names more
	maxBinds      = 50
	maxWindow     = 1000
	shortestQueue = 100                    // messages taken from the caller and without a result yet ...
	longestQueue  = 2000                   // ...
	queueTime     = 500 * time.Millisecond // ... are what the rate sends in this time: a crash puts them in doubt
	maxPassword   = 8                      // octets, SMPP 3.4 section 5.2.2
	maxSystemID   = 15                     // section 5.2.1
	maxService    = 5                      // section 5.2.11
)

// Mode says who binds to whom.
type Mode string

// The modes.
const (
	Client Mode = "client" // we bind to the operator's SMSC and send by submit_sm
	Server Mode = "server" // the operator's gateway binds to our server and is sent deliver_sm
)

// Role is what an operator's link is for.
type Role string

// The roles. Only a link with RoleUSSD may assert who dialled.
const (
	RoleSMS  Role = "sms"
	RoleUSSD Role = "ussd"
)

// OperatorConfig is the account with one operator (contract.md section 3). Zero values mean the defaults given here.
type OperatorConfig struct {
	Name string
	Mode Mode // Client

	// Address is host:port of the SMSC; SystemID and Password are ours there. In server mode they are the operator's
	// with us.
	Address    string
	SystemID   string
	Password   string
	SystemType string
	TLS        *tls.Config    // client mode: nil is without TLS
	Networks   []netip.Prefix // server mode: where binds may come from; empty is anywhere

	Binds  int     // 1; how many binds, or pairs of binds
	Pair   bool    // a transmitter and a receiver in place of each transceiver
	Window int     // 10; submits awaiting an answer, per bind
	Rate   float64 // 10; SMS parts per second, all binds together
	Roles  []Role  // RoleSMS

	Source   string   // sender name, short code or number; empty lets the operator put in its own
	Prefixes []string // digits of E.164; the longest wins, none takes the rest
	Weight   int      // share among operators with equal prefixes; 0 is a spare
	Cost     int64    // kopecks per part

	MessageID     IDMode           // IDAuto
	Concatenation Method           // UDH16
	Overrides     []Override       // of the status table
	NetworkErrors map[string]Class // of receipts: err text or "type/code" to PR, PO, TMP
	ServiceType   string           // of SMS, at most 5 octets
	LatinCoding   byte             // data_coding of GSM-7; 0
	Location      *time.Location   // of dates in receipts; UTC
	Region        string           // of numbers in national form, ISO 3166-1; "RU"

	// QueueLimit is how many messages may be taken and be without a result, windows not counted; by default what the
	// rate sends in half a second, at least 100 and at most 2,000. It is what a crash puts in doubt.
	QueueLimit int

	// Timers of the sessions, in terms of smpp.SessionConfig; zero is the default there.
	ResponseTimeout time.Duration
	EnquireInterval time.Duration
	EnquireTimeout  time.Duration
	BindTimeout     time.Duration

	// Dial opens connections to the operator in client mode, through a tunnel for instance; a net.Dialer when nil.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// withDefaults completes and checks the settings. The error names the key and what is allowed.
func (c OperatorConfig) withDefaults() (OperatorConfig, error) {
	if c.Name == "" {
		return c, errors.New(`operator without a name: set "name"`)
	}
	wrong := func(key, format string, args ...any) (OperatorConfig, error) {
		return c, fmt.Errorf("operator %q: %s: %s", c.Name, key, fmt.Sprintf(format, args...))
	}
	switch c.Mode {
	case "":
		c.Mode = Client
	case Client, Server:
	default:
		return wrong("mode", `%q is neither "client" nor "server"`, c.Mode)
	}
	if c.Mode == Client {
		if _, _, err := net.SplitHostPort(c.Address); err != nil {
			return wrong("address", "host:port is needed in client mode: %v", err)
		}
	} else if c.Password == "" {
		return wrong("password", "the operator needs one to bind to our server")
	}
	if c.SystemID == "" || len(c.SystemID) > maxSystemID {
		return wrong("system_id", "1 to %d characters are allowed", maxSystemID)
	}
	if len(c.Password) > maxPassword {
		return wrong("password", "SMPP allows %d characters", maxPassword)
	}
	if len(c.ServiceType) > maxService {
		return wrong("service_type", "SMPP allows %d characters", maxService)
	}
	if c.Binds == 0 {
		c.Binds = defaultBinds
	}
	if c.Binds < 0 || c.Binds > maxBinds {
		return wrong("binds", "1 to %d are allowed", maxBinds)
	}
	if c.Window == 0 {
		c.Window = defaultWindow
	}
	if c.Window < 0 || c.Window > maxWindow {
		return wrong("window", "1 to %d are allowed", maxWindow)
	}
	if c.Rate == 0 {
		c.Rate = defaultRate
	}
	if c.Rate < 0 {
		return wrong("rate", "parts per second above 0 are allowed")
	}
	if len(c.Roles) == 0 {
		c.Roles = []Role{RoleSMS}
	}
	for _, r := range c.Roles {
		if r != RoleSMS && r != RoleUSSD {
			return wrong("roles", `%q is neither "sms" nor "ussd"`, r)
		}
	}
	for _, p := range c.Prefixes {
		if p == "" || !digitsOnly(p) {
			return wrong("prefixes", "%q is not a string of digits", p)
		}
	}
	if c.Weight < 0 {
		return wrong("weight", "0 and above are allowed")
	}
	switch c.Concatenation {
	case "":
		c.Concatenation = UDH16
	case UDH8, UDH16, SAR, Payload:
	default:
		return wrong("concatenation", `%q is none of "udh8", "udh16", "sar", "payload"`, c.Concatenation)
	}
	for code, class := range c.NetworkErrors {
		if class != PermanentRecipient && class != PermanentRoute && class != Temporary {
			return wrong("network_errors", "%q: class %q is none of PR, PO, TMP", code, class)
		}
	}
	if c.Location == nil {
		c.Location = time.UTC
	}
	if c.Region == "" {
		c.Region = "RU"
	}
	if c.QueueLimit == 0 {
		c.QueueLimit = min(max(int(c.Rate*queueTime.Seconds()), shortestQueue), longestQueue)
	}
	return c, nil
}

func digitsOnly(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// has reports whether the operator has a role.
func (c OperatorConfig) has(r Role) bool { return slices.Contains(c.Roles, r) }
