package ussd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"zvonok/gateway/carrier"
	"zvonok/gateway/smpp"
	"zvonok/gateway/smpp/smpptest"
	"zvonok/templates"
)

// gateways are the kinds of gateways we can speak with: the profile we use for each, and how it behaves.
func gateways(t *testing.T) map[string]smpptest.USSDProfile {
	behaves := func(name string, change func(*smpptest.USSDProfile)) smpptest.USSDProfile {
		p, err := smpptest.USSDProfileNamed(name)
		if err != nil {
			t.Fatal(err)
		}
		if change != nil {
			change(&p)
		}
		return p
	}
	return map[string]smpptest.USSDProfile{
		"plain-its": behaves("plain-its", nil),
		"its-units": behaves("units", nil),
		"tata":      behaves("tata", func(p *smpptest.USSDProfile) { p.End = nil }), // only the end bit tells
		"sixdee":    behaves("sixdee", nil),
		"mica":      behaves("mica", func(p *smpptest.USSDProfile) { p.Destination = smpp.Address{Addr: "888"} }),
		"smpp+":     behaves("smpp+", func(p *smpptest.USSDProfile) { p.LateAnswer = true }),
		"eyeline":   behaves("eyeline", nil),
		"c-gateway": behaves("c-gateway", nil),
		"ussn-end":  behaves("ussn-end", nil),
		"op32":      behaves("plain-its", func(p *smpptest.USSDProfile) { p.EndBit, p.End = false, []uint8{32} }),
		"huawei":    behaves("huawei", nil),
		"kz-found": behaves("plain-its", func(p *smpptest.USSDProfile) {
			p.ServiceType, p.Code, p.EndBit, p.NoNumber = "USSD_", smpptest.CodeInDestination, false, true
			p.Extra = smpp.TLVs{
				smpp.Text(smpp.TagCallbackNum, "000000000000000"), // where others have the IMSI
				smpp.Text(smpp.TagSourceSubaddress, "79000009999"), smpp.Text(smpp.TagDestSubaddress, "79000009998"),
			}
		}),
		"data-sm": behaves("glo", nil),
		"raw-dcs": behaves("plain-its", func(p *smpptest.USSDProfile) { p.DataCoding = 0x48 }),
	}
}

// balance is a menu of two screens, in the words of the vectors T2 and T3 of ussd.md.
func balance(_ context.Context, v Visit) (Screen, error) {
	screen := Screen{Place: v.Place, Style: templates.Style{Language: templates.RU}}
	if v.Latin || v.Hint == templates.EN {
		screen.Style.Language = templates.EN
	}
	words := map[templates.Language][]string{
		templates.RU: {"Баланс", "Посещение", "English", "Баланс: 1250,00 р.", "Посещение: 14.05 08:12-13:40"},
		templates.EN: {"Balance", "Last visit", "Russian", "Balance: 1250.00 RUB", "Last visit: 14.05 08:12"},
	}[screen.Style.Language]
	if v.Place.Name == "balance" || len(v.Path) > 0 && v.Path[0] == "1" {
		screen.Place, screen.Lines, screen.End = Place{Name: "balance"}, words[3:], true
		return screen, nil
	}
	for n, label := range words[:3] {
		screen.Items = append(screen.Items, Choice{Key: fmt.Sprint(n + 1), Label: label, To: Place{Name: "balance"}})
	}
	return screen, nil
}

const (
	menuRU, menuEN       = "1 Баланс\n2 Посещение\n3 English\n0 Выход", "1 Balance\n2 Last visit\n3 Russian\n0 Exit"
	balanceRU, balanceEN = "Баланс: 1250,00 р.\nПосещение: 14.05 08:12-13:40", "Balance: 1250.00 RUB\nLast visit: 14.05 08:12"
)

const (
	// patience bounds every wait of a test; nothing that works comes near it, however busy the machine is.
	patience = time.Minute
	// farewell is how long the parts wait for each other when a test is over.
	farewell = 200 * time.Millisecond
)

// service is a Server on a real Exchange, with one operator named "op".
type service struct {
	*Server
	exchange *carrier.Exchange
	bound    chan struct{} // gets something when the operator is bound
	close    func()        // by the end of the test at the latest
}

func serve(
	t *testing.T, profile string, operator carrier.OperatorConfig, show func(context.Context, Visit) (Screen, error),
) *service {
	t.Helper()
	yes := true
	profiles, err := NewProfiles([]ProfileSetting{{Name: "closes", UnclearCloses: &yes, FloodCloses: &yes}})
	if err != nil {
		t.Fatal(err)
	}
	p, err := profiles.Get(profile)
	if err != nil {
		t.Fatal(err)
	}
	s := &service{bound: make(chan struct{}, 16)}
	operator.Name, operator.Roles = "op", []carrier.Role{carrier.RoleUSSD}
	s.exchange, err = carrier.New(carrier.Config{
		Operators:   []carrier.OperatorConfig{operator},
		Dial:        func(d carrier.Dial) { s.Dial(d) },
		LinkChanged: func(string, bool) { s.bound <- struct{}{} },
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Server, err = New(Config{
		Links: []Link{{Name: "op", Profile: p}}, Codes: []string{"*377*888#"}, Show: show,
		Answer:   func(ctx context.Context, r carrier.Reply) error { return s.exchange.Answer(ctx, r) },
		Deadline: patience, Log: slog.New(slog.DiscardHandler), Metrics: NewMetrics(prometheus.NewPedanticRegistry()),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	s.exchange.Start()
	s.close = sync.OnceFunc(func() {
		limit, cancel := context.WithTimeout(context.Background(), farewell)
		defer cancel()
		stop()
		<-done
		_ = s.exchange.Stop(limit) // of answers that a gateway keeps back for a dialogue nobody goes on with
	})
	t.Cleanup(s.close)
	return s
}

// bindTo makes the operator bind to our server, as gateways of the other arrangement do.
func bindTo(t *testing.T, s *service, cfg smpptest.OperatorConfig) *smpptest.Gateway {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	config := s.exchange.ServerConfig()
	config.SystemID, config.Log = "zvonok", slog.New(slog.DiscardHandler)
	server := smpp.NewServer(config)
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	gateway, err := smpptest.Connect(t.Context(), smpptest.GatewayConfig{
		OperatorConfig: cfg, Address: listener.Addr().String(),
		SystemID: "esme01", Password: "secret01", Type: smpp.Transceiver,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		limit, cancel := context.WithTimeout(context.Background(), farewell)
		defer cancel()
		_ = gateway.Close(limit) // what waits for the phone is of no interest any more
		_ = server.Shutdown(limit)
		<-served
	})
	return gateway
}

// listen makes the operator an SMSC; the address is for our operator's settings.
func listen(t *testing.T, cfg smpptest.OperatorConfig) (*smpptest.SMSC, string) {
	t.Helper()
	smsc, err := smpptest.Start(smpptest.Config{OperatorConfig: cfg, SystemID: "esme01", Password: "secret01"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		limit, cancel := context.WithTimeout(context.Background(), farewell)
		defer cancel()
		_ = smsc.Close(limit)
	})
	return smsc, smsc.Addr()
}

var account = carrier.OperatorConfig{SystemID: "esme01", Password: "secret01", SystemType: "USSD", Binds: 1}

// Issue 4, item 1 and its evidence: one suite for every profile, in both arrangements, over real SMPP sockets.
//
// With -v it prints what every profile is and what it did.
func TestEveryProfileHoldsTheSameDialogues(t *testing.T) {
	t.Parallel()
	results := &conformance{lines: map[string]string{}}
	t.Cleanup(func() { t.Logf("\n%s", results) })
	for name, behaviour := range gateways(t) {
		t.Run(name+", we bind to its USSD centre", func(t *testing.T) {
			t.Parallel()
			smsc, address := listen(t, smpptest.OperatorConfig{})
			operator := account
			operator.Mode, operator.Address = carrier.Client, address
			s := serve(t, name, operator, balance)
			<-s.bound
			conform(t, s, smsc.Operator, behaviour, smpp.CmdDeliverSM, results)
		})
		t.Run(name+", its gateway binds to our server", func(t *testing.T) {
			t.Parallel()
			operator := account
			operator.Mode = carrier.Server
			s := serve(t, name, operator, balance)
			conform(t, s, bindTo(t, s, smpptest.OperatorConfig{}).Operator, behaviour, smpp.CmdSubmitSM, results)
		})
	}
}

// handset is a phone of the operator in the box.
type handset struct {
	t        *testing.T
	operator *smpptest.Operator
	profile  smpptest.USSDProfile
	number   string
	call     *smpptest.Call
}

func (s *handset) context() context.Context {
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	s.t.Cleanup(cancel)
	return ctx
}

func (s *handset) dial(code string) smpptest.Screen {
	s.t.Helper()
	var err error
	if s.call, err = s.operator.Dial(s.context(), s.profile, s.number, code); err != nil {
		s.t.Fatal(err)
	}
	return s.screen()
}

func (s *handset) screen() smpptest.Screen {
	s.t.Helper()
	screen, err := s.call.Screen(s.context())
	if errors.Is(err, smpptest.ErrCallOver) { // the last screen and the end of the call come at once
		screen, err = s.call.Screen(s.context())
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return screen
}

func (s *handset) press(keys string) smpptest.Screen {
	s.t.Helper()
	if err := s.call.Press(s.context(), keys); err != nil {
		s.t.Fatal(err)
	}
	return s.screen()
}

// conformance is the table of what each profile did, for a reader.
type conformance struct {
	mu    sync.Mutex
	lines map[string]string
}

const conformanceLine = "%-10s %-12s %-15s %-8s %-8s %-21s %s"

// String writes the table, a profile and arrangement a line.
func (c *conformance) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	header := fmt.Sprintf(conformanceLine, "profile", "who binds", "begin, key", "page/end", "codings", "session id",
		"what holds")
	return header + "\n" + strings.Join(slices.Sorted(maps.Values(c.lines)), "\n")
}

// add notes what one profile did in one arrangement: every check is a word, and one that failed is in capitals.
func (c *conformance) add(t *testing.T, p Profile, command smpp.CommandID, checks []string) {
	who := "we"
	if command == smpp.CmdSubmitSM {
		who = "the gateway"
	}
	session := make([]string, 0, len(p.Session))
	for _, tag := range p.Session {
		session = append(session, fmt.Sprintf("%04x", uint16(tag)))
	}
	line := fmt.Sprintf(conformanceLine, p.Name, who, fmt.Sprint(p.Begin, p.Input), fmt.Sprintf("%d/%d", p.Continue, p.End),
		fmt.Sprintf("%02x/%02x", p.GSM7, p.UCS2), strings.Join(session, " ")+" "+string(p.ITS), strings.Join(checks, ", "))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lines[t.Name()] = line
}

// conform holds the same dialogues whatever the profile. The command is that of what comes to us: deliver_sm when we
// bind, submit_sm when the gateway does.
func conform(
	t *testing.T, s *service, operator *smpptest.Operator, behaviour smpptest.USSDProfile, command smpp.CommandID,
	results *conformance,
) {
	p := s.links["op"].Profile
	var checks []string
	done := func(what string) {
		if t.Failed() {
			what = strings.ToUpper(what) + "!"
		}
		checks = append(checks, what)
	}
	defer func() { results.add(t, p, command, checks) }()
	phone := &handset{t: t, operator: operator, profile: behaviour, number: "79000000001"}
	shows := func(what string, got smpptest.Screen, text string, end bool, coding byte) {
		t.Helper()
		if got.Text != text || got.End != end || got.DataCoding != coding {
			t.Errorf("%s: shown %q, end %v, data_coding %#x; want %q, %v, %#x",
				what, got.Text, got.End, got.DataCoding, text, end, coding)
		}
		if got.Message.TLVs[0].Tag != smpp.TagUSSDServiceOp {
			t.Errorf("%s: the first parameter is %s", what, got.Message.TLVs[0].Tag)
		}
		from, to := got.Message.Source, got.Message.Destination
		if want := wantSource(behaviour); want != "" && from.Addr != want || from.TON != behaviour.Destination.TON ||
			from.NPI != behaviour.Destination.NPI || to.TON != 1 || to.NPI != 1 ||
			got.Message.RegisteredDelivery != 0 || got.Message.ServiceType != behaviour.ServiceType {
			t.Errorf("%s: answered as %+v", what, got.Message)
		}
	}
	shows("a dial", phone.dial("*377*888#"), menuRU, false, p.UCS2)
	shows("a key closes with the answer", phone.press("1"), balanceRU, true, p.UCS2)
	done("menu, answer")
	if behaviour.Code != smpptest.CodeStripped { // such a gateway does not tell how the code was dialled
		shows("a dial with a hash in front", phone.dial("#377*888#"), menuEN, false, p.GSM7)
		shows("a key", phone.press("1#"), balanceEN, true, p.GSM7)
		done("latin")
	}
	shows("a shortcut", phone.dial("*377*888*1#"), balanceRU, true, p.UCS2)

	done("shortcut")
	shows("a dial", phone.dial("*377*888#"), menuRU, false, p.UCS2)
	shows("what is no key", phone.press("garbage"), "Нет такого пункта\n"+menuRU, false, p.UCS2)
	done("hint")
	replaced := phone.call
	shows("a redial replaces the dialogue", phone.dial("*377*888#"), menuRU, false, p.UCS2)
	if behaviour.LateAnswer { // the gateway's news of the page that was replaced come now
		if err := replaced.Abort(phone.context()); err != nil {
			t.Fatal(err)
		}
	}
	done("redial")
	if err := phone.call.Abort(phone.context()); err != nil {
		t.Fatal(err)
	}
	shows("a dial after an abort", phone.dial("*377*888*1#"), balanceRU, true, p.UCS2)
	if open := s.Open(); open != 0 {
		t.Errorf("%d dialogues are open after the abort and a shortcut", open)
	}
	done("abort")

	// Wrong lengths and garbage: the link lives, other phones are served.
	for _, tlvs := range []smpp.TLVs{
		{{Tag: smpp.TagUSSDServiceOp}},
		{{Tag: smpp.TagUSSDServiceOp, Value: []byte{0, 1}}},
		{smpp.Uint8(smpp.TagUSSDServiceOp, 1), {Tag: smpp.TagITSSessionInfo, Value: []byte{1}}},
		{smpp.Uint8(smpp.TagUSSDServiceOp, 18), {Tag: smpp.TagUSSDSessionID, Value: make([]byte, 200)}},
		{smpp.Uint8(smpp.TagUSSDServiceOp, 99), {Tag: 0x4142, Value: []byte{1, 2, 3}}},
	} {
		m := &smpp.Message{
			Command: command, ServiceType: "USSD", Source: smpp.Address{TON: 1, NPI: 1, Addr: "79000000003"},
			Destination: smpp.Address{Addr: "377"}, ShortMessage: bytes.Repeat([]byte{0xFE, 0x00, 0x1B}, 84), TLVs: tlvs,
		}
		if status, err := operator.Send(phone.context(), m); err != nil || status != smpp.StatusOK {
			t.Errorf("garbage is answered with %v, %v", status, err)
		}
	}
	other := &handset{t: t, operator: operator, profile: behaviour, number: "79000000002"}
	shows("another phone afterwards", other.dial("*377*888#"), menuRU, false, p.UCS2)
	shows("and its key", other.press("2"), balanceRU, true, p.UCS2)
	done("garbage, other phones")
}

func wantSource(behaviour smpptest.USSDProfile) string {
	switch {
	case behaviour.Destination.Addr != "":
		return behaviour.Destination.Addr
	case behaviour.Code == smpptest.CodeInDestination:
		return "" // as dialled, which differs
	default:
		return "377"
	}
}
