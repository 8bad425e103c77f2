package smpp_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"zvonok/gateway/smpp"
	"zvonok/gateway/smpp/smpptest"
)

// accounts lets in the accounts it names, all with the password "secret".
func accounts(all ...smpp.Account) func(context.Context, smpp.BindRequest) (smpp.Account, smpp.Status) {
	return func(_ context.Context, r smpp.BindRequest) (smpp.Account, smpp.Status) {
		for _, a := range all {
			if a.SystemID == r.Bind.SystemID {
				if smpp.SamePassword(r.Bind.Password, "secret") {
					return a, smpp.StatusOK
				}
				return smpp.Account{}, smpp.StatusInvalidPassword
			}
		}
		return smpp.Account{}, smpp.StatusInvalidSystemID
	}
}

// client binds to a server and lives until the end of the test.
func client(t *testing.T, cfg smpp.ClientConfig) (*smpp.Session, error) {
	t.Helper()
	s, err := smpp.Dial(t.Context(), cfg)
	if err == nil {
		t.Cleanup(func() {
			s.Kill(errors.New("end of test"))
			<-s.Done()
		})
	}
	return s, err
}

func mustBind(t *testing.T, cfg smpp.ClientConfig) *smpp.Session {
	t.Helper()
	s, err := client(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func status(t *testing.T, s *smpp.Session, pdu smpp.PDU) smpp.Status {
	t.Helper()
	o, err := s.Do(t.Context(), smpp.Request{PDU: pdu})
	if err != nil || o.Kind != smpp.Answered {
		t.Fatalf("outcome %+v, %v", o, err)
	}
	return o.Status
}

func refusal(t *testing.T, err error) smpp.Status {
	t.Helper()
	var refused *smpp.BindError
	if !errors.As(err, &refused) {
		t.Fatalf("error %v is no refusal", err)
	}
	return refused.Status
}

func acceptAll(in *smpp.Inbound) { _ = in.Answer(smpp.StatusOK, "A1") }

func TestABindCarriesWhoIsWhoInBothDirections(t *testing.T) {
	t.Parallel()
	opened := make(chan *smpp.Session, 1)
	srv, address := serverOf(t, smpp.ServerConfig{
		SystemID:     "ZVONOK",
		Authenticate: accounts(smpp.Account{SystemID: "operator", Roles: smpp.RoleUSSD}),
		Session:      smpp.SessionConfig{Handle: acceptAll},
		Opened:       func(s *smpp.Session) { opened <- s },
	})
	s := mustBind(t, smpp.ClientConfig{
		Address: address, SystemID: "operator", Password: "secret", SystemType: "USSD", Type: smpp.Transmitter,
	})
	theirs := <-opened
	b := s.Binding()
	if b.Side != smpp.SideESME || b.Type != smpp.Transmitter || b.PeerSystemID != "ZVONOK" || b.Version != smpp.Version34 {
		t.Errorf("our binding is %+v", b)
	}
	b = theirs.Binding()
	if b.Side != smpp.SideSMSC || b.Type != smpp.Transmitter || b.SystemID != "operator" || b.SystemType != "USSD" ||
		b.Account.Roles != smpp.RoleUSSD || b.Remote.String() != s.Binding().Local.String() {
		t.Errorf("the server's binding is %+v", b)
	}
	if len(srv.Sessions("operator")) != 1 || len(srv.Sessions("")) != 1 || len(srv.Sessions("other")) != 0 {
		t.Error("the server does not list its session")
	}
	if o, err := s.Do(t.Context(), smpp.Request{PDU: text("79000000001")}); err != nil || o.MessageID() != "A1" {
		t.Errorf("outcome %+v, %v", o, err)
	}
}

func TestTheServerDeliversToABindThatReceives(t *testing.T) {
	t.Parallel()
	srv, address := serverOf(t, smpp.ServerConfig{Session: smpp.SessionConfig{Handle: acceptAll}})
	got := make(chan *smpp.Message, 1)
	mustBind(t, smpp.ClientConfig{
		Address: address, SystemID: "operator", Type: smpp.Receiver,
		Session: smpp.SessionConfig{Handle: func(in *smpp.Inbound) {
			got <- in.PDU.(*smpp.Message)
			_ = in.Answer(smpp.StatusOK, "")
		}},
	})
	m := text("79000000001")
	m.Command = smpp.CmdDeliverSM
	eventually(t, "the bind is listed", func() bool { return len(srv.Sessions("operator")) == 1 })
	if st := status(t, srv.Sessions("operator")[0], m); st != smpp.StatusOK {
		t.Errorf("answered with %s", st)
	}
	if m := <-got; m.Destination.Addr != "79000000001" {
		t.Errorf("delivered %+v", m)
	}
}

func TestTheAccountDecidesWhatABindMayDo(t *testing.T) {
	t.Parallel()
	ussd := text("377")
	ussd.TLVs = smpp.USSD(1)
	data := &smpp.Message{Command: smpp.CmdDataSM, TLVs: smpp.USSD(18)}
	plain := text("79000000001")
	multi := &smpp.Raw{Command: smpp.CmdSubmitMulti}
	none := smpp.Account{}
	for name, c := range map[string]struct {
		account smpp.Account
		bind    smpp.BindType
		pdu     smpp.PDU
		want    smpp.Status
	}{
		"a transmitter may submit":               {none, smpp.Transmitter, plain, smpp.StatusOK},
		"a receiver may not submit":              {none, smpp.Receiver, plain, smpp.StatusInvalidBindStatus},
		"a receiver may not query":               {none, smpp.Receiver, &smpp.Query{}, smpp.StatusInvalidBindStatus},
		"a receiver may send data_sm":            {none, smpp.Receiver, &smpp.Message{Command: smpp.CmdDataSM}, 0},
		"USSD needs its role":                    {none, smpp.Transceiver, ussd, smpp.StatusTLVNotAllowed},
		"USSD in data_sm needs its role too":     {none, smpp.Transceiver, data, smpp.StatusTLVNotAllowed},
		"with the role USSD is taken":            {smpp.Account{Roles: smpp.RoleUSSD}, smpp.Transceiver, ussd, smpp.StatusOK},
		"a command nobody offers is not known":   {none, smpp.Transceiver, multi, smpp.StatusInvalidCommandID},
		"a cancel is handed to the handler":      {none, smpp.Transceiver, &smpp.Cancel{}, smpp.StatusOK},
		"a replacement is handed to the handler": {none, smpp.Transceiver, &smpp.Replace{}, smpp.StatusOK},
	} {
		c.account.SystemID = "operator"
		_, address := serverOf(t, smpp.ServerConfig{
			Authenticate: accounts(c.account), Session: smpp.SessionConfig{Handle: acceptAll},
		})
		s := mustBind(t, smpp.ClientConfig{Address: address, SystemID: "operator", Password: "secret", Type: c.bind})
		if got := status(t, s, c.pdu); got != c.want {
			t.Errorf("%s: answered with %s, want %s", name, got, c.want)
		}
	}
}

func TestTheRateOfAnAccountCountsOverAllItsBinds(t *testing.T) {
	t.Parallel()
	_, address := serverOf(t, smpp.ServerConfig{
		Authenticate: accounts(smpp.Account{SystemID: "operator", Rate: 0.001, Burst: 5, MaxBinds: 2}),
		Session:      smpp.SessionConfig{Handle: acceptAll},
	})
	cfg := smpp.ClientConfig{Address: address, SystemID: "operator", Password: "secret"}
	binds := []*smpp.Session{mustBind(t, cfg), mustBind(t, cfg)}
	got := make(map[smpp.Status]int)
	for i := range 12 {
		got[status(t, binds[i%2], text("79000000001"))]++
	}
	if got[smpp.StatusOK] != 5 || got[smpp.StatusThrottled] != 7 {
		t.Errorf("answers %v, want 5 accepted and 7 throttled", got)
	}
}

func TestAPeerThatDoesNotHeedThrottlingIsDropped(t *testing.T) {
	t.Parallel()
	_, address := serverOf(t, smpp.ServerConfig{
		Authenticate: accounts(smpp.Account{SystemID: "operator", Rate: 1}),
		Session:      smpp.SessionConfig{Handle: acceptAll},
	})
	s := mustBind(t, smpp.ClientConfig{
		Address: address, SystemID: "operator", Password: "secret", Session: smpp.SessionConfig{Window: 1000},
	})
	var err error
	for range 100_000 {
		if err = s.Submit(t.Context(), smpp.Request{PDU: text("79000000001")}); err != nil {
			break
		}
	}
	var closed *smpp.ClosedError
	if !errors.As(err, &closed) {
		t.Errorf("error %v after 100,000 messages against a rate of 1", err)
	}
}

func TestTheWindowOfAnAccountBoundsItsUnansweredRequests(t *testing.T) {
	t.Parallel()
	held := make(chan *smpp.Inbound, 100)
	_, address := serverOf(t, smpp.ServerConfig{
		Authenticate: accounts(smpp.Account{SystemID: "operator", Window: 3}),
		Session:      smpp.SessionConfig{Handle: func(in *smpp.Inbound) { held <- in }},
	})
	s := mustBind(t, smpp.ClientConfig{Address: address, SystemID: "operator", Password: "secret"})
	c := make(outcomes, 10)
	for i := range 5 {
		submit(t, s, i, c)
	}
	for range 2 {
		if o := <-c; o.Status != smpp.StatusThrottled || o.Token.(int) < 3 {
			t.Errorf("outcome %+v", o)
		}
	}
	for range 3 {
		if err := (<-held).Answer(smpp.StatusOK, "A1"); err != nil {
			t.Error(err)
		}
	}
	for range 3 {
		if o := <-c; o.Status != smpp.StatusOK {
			t.Errorf("outcome %+v", o)
		}
	}
}

// Fault row 25: the same system_id twice, or more binds than allowed.
func TestMoreBindsThanAllowedAreRefusedWithAlreadyBound(t *testing.T) {
	t.Parallel()
	_, address := serverOf(t, smpp.ServerConfig{
		Authenticate: accounts(smpp.Account{SystemID: "one"}, smpp.Account{SystemID: "two", MaxBinds: 2}),
	})
	for id, binds := range map[string]int{"one": 1, "two": 2} {
		cfg := smpp.ClientConfig{Address: address, SystemID: id, Password: "secret"}
		var first *smpp.Session
		for range binds {
			first = mustBind(t, cfg)
		}
		if _, err := client(t, cfg); refusal(t, err) != smpp.StatusAlreadyBound {
			t.Errorf("%s: %v", id, err)
		}
		// Pain 20: a bind that was closed leaves no trace.
		if err := first.Close(t.Context()); err != nil {
			t.Error(err)
		}
		eventually(t, "the place of a closed bind is free", func() bool {
			_, err := client(t, cfg)
			return err == nil
		})
	}
}

// eventually tries until it succeeds.
// patience bounds every wait in real time; nothing that works comes near it,
// however busy the machine is.
const patience = time.Minute

func eventually(t *testing.T, what string, try func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !try(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

// Pain 20: rebinding leaks nothing. goleak watches over the goroutines.
func TestRebindingAThousandTimesLeaksNothing(t *testing.T) {
	t.Parallel()
	srv, address := serverOf(t, smpp.ServerConfig{
		Authenticate: accounts(smpp.Account{SystemID: "operator"}), Session: smpp.SessionConfig{Handle: acceptAll},
	})
	for i := range 1000 {
		var s *smpp.Session
		eventually(t, "bind again", func() bool {
			var err error
			s, err = smpp.Dial(t.Context(), smpp.ClientConfig{Address: address, SystemID: "operator", Password: "secret"})
			return err == nil
		})
		switch i % 3 {
		case 0:
			s.Kill(errors.New("cut"))
			<-s.Done()
		default:
			if err := s.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	eventually(t, "no session is left", func() bool { return len(srv.Sessions("")) == 0 })
}

// As server we give no oracle: a wrong name sounds like a wrong password, and
// so does a right login from a wrong place.
func TestAWrongLoginDoesNotTellWhatIsWrong(t *testing.T) {
	t.Parallel()
	const delay = 50 * time.Millisecond
	_, address := serverOf(t, smpp.ServerConfig{
		WrongLoginDelay: delay,
		Authenticate: accounts(
			smpp.Account{SystemID: "operator"},
			smpp.Account{SystemID: "elsewhere", Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}},
			smpp.Account{SystemID: "here", Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
			smpp.Account{SystemID: "receiver", Types: []smpp.BindType{smpp.Receiver}},
		),
	})
	for name, c := range map[string]struct {
		id, password string
		want         smpp.Status
	}{
		"wrong password":        {"operator", "guess", smpp.StatusInvalidPassword},
		"unknown name":          {"nobody", "secret", smpp.StatusInvalidPassword},
		"wrong network":         {"elsewhere", "secret", smpp.StatusInvalidPassword},
		"right network":         {"here", "secret", smpp.StatusOK},
		"not this kind of bind": {"receiver", "secret", smpp.StatusBindFailed},
	} {
		start := time.Now()
		_, err := client(t, smpp.ClientConfig{Address: address, SystemID: c.id, Password: c.password})
		took := time.Since(start)
		if c.want == smpp.StatusOK {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if got := refusal(t, err); got != c.want {
			t.Errorf("%s: refused with %s", name, got)
		}
		if c.want == smpp.StatusInvalidPassword && took < delay {
			t.Errorf("%s: refused after %s", name, took)
		}
	}
}

// Fault row 24.
func TestAFloodOfWrongPasswordsLocksOutItsAddressesAndNobodyElse(t *testing.T) {
	t.Parallel()
	var log logBuffer
	_, address := serverOf(t, smpp.ServerConfig{
		WrongLoginDelay: time.Millisecond,
		Authenticate:    accounts(smpp.Account{SystemID: "operator", MaxBinds: 100}),
		Log:             slog.New(slog.NewJSONHandler(&log, nil)),
	})
	from := func(ip string) smpp.ClientConfig {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
		return smpp.ClientConfig{Address: address, SystemID: "operator", Dial: dialer.DialContext}
	}
	// Somebody who has logged in before, then 500 guesses from 10 addresses.
	known := from("127.0.0.2")
	known.Password = "secret"
	mustBind(t, known)
	var wg sync.WaitGroup
	var mu sync.Mutex
	refused, shut := 0, 0
	began := time.Now()
	for i := range 10 {
		wg.Go(func() {
			guess := from(fmt.Sprintf("127.0.1.%d", i+1))
			guess.Password = "guess"
			for range 50 {
				_, err := smpp.Dial(t.Context(), guess)
				var bad *smpp.BindError
				mu.Lock()
				if errors.As(err, &bad) && bad.Status == smpp.StatusInvalidPassword {
					refused++
				} else {
					shut++
				}
				mu.Unlock()
			}
		})
	}
	// Meanwhile the account binds from a known address and from a new one.
	var slowest time.Duration
	for _, ip := range []string{"127.0.0.2", "127.0.0.3", "127.0.0.2", "127.0.0.3"} {
		valid := from(ip)
		valid.Password = "secret"
		start := time.Now()
		if _, err := client(t, valid); err != nil {
			t.Errorf("a valid bind from %s: %v", ip, err)
		}
		slowest = max(slowest, time.Since(start))
	}
	wg.Wait()
	if most := 100 + int(100*time.Since(began).Minutes()) + 20; refused < 80 || refused > most {
		t.Errorf("%d guesses were answered; 10 a minute from each of 10 addresses are to be", refused)
	}
	if slowest > patience/2 { // the figure is in the log: it says as much about the machine
		t.Errorf("a valid bind took %s", slowest)
	}
	fresh := from("127.0.0.4")
	fresh.Password = "secret"
	if _, err := client(t, fresh); err != nil {
		t.Errorf("a valid bind from a new address after the flood: %v", err)
	}
	if lines := strings.Count(log.String(), "\n"); lines > 30 {
		t.Errorf("%d log lines for 500 guesses", lines)
	}
	if strings.Contains(log.String(), "guess") || strings.Contains(log.String(), "secret") {
		t.Error("a password is in the log")
	}
	t.Logf("%d refused, %d shut out, slowest valid bind %s", refused, shut, slowest)
}

func TestControlCharactersInASystemIDStayInsideTheirLogLine(t *testing.T) {
	t.Parallel()
	var log logBuffer
	_, address := serverOf(t, smpp.ServerConfig{
		WrongLoginDelay: time.Millisecond, Authenticate: accounts(), Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	_, err := client(t, smpp.ClientConfig{Address: address, SystemID: "a\r\nb\x1b", Password: "x"})
	refusal(t, err)
	eventually(t, "the refusal is logged", func() bool { return log.String() != "" })
	if strings.Count(log.String(), "\n") != 1 || strings.ContainsAny(log.String(), "\r\x1b") {
		t.Errorf("log %q", log.String())
	}
}

// trickledBind is a bind that comes octet by octet and takes its time.
var trickledBind = []byte("" +
	"\x00\x00\x00\x29\x00\x00\x00\x09\x00\x00\x00\x00\x00\x00\x00\x01" +
	"esme01\x00secret01\x00USSD\x00\x34\x00")

// Fault row 23: idle sockets, sockets that send an octet now and then, and a
// bind among them.
// It runs alone, because it measures.
func TestTwoThousandSlowSocketsDoNotKeepABindAway(t *testing.T) {
	const timeout = 5 * time.Second // the default
	_, address := serverOf(t, smpp.ServerConfig{UnboundTimeout: timeout, MaxUnboundPerAddress: 40})
	var wg sync.WaitGroup
	var mu sync.Mutex
	longest := time.Duration(0)
	started := make(chan struct{}, 2000)
	for i := range 2000 {
		wg.Go(func() {
			dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 2, byte(1+i%50))}}
			conn, err := dialer.DialContext(t.Context(), "tcp", address)
			started <- struct{}{}
			if err != nil {
				return // shut out: as good as closed
			}
			defer conn.Close()
			start := time.Now()
			stop := make(chan struct{})
			go func() {
				defer close(stop)
				readAll(conn)
			}()
			tick := time.NewTicker(500 * time.Millisecond)
			defer tick.Stop()
			for n := 0; ; n++ {
				if i%2 == 0 {
					_, _ = conn.Write([]byte{trickledBind[n]})
				}
				select {
				case <-tick.C:
				case <-stop:
					mu.Lock()
					longest = max(longest, time.Since(start))
					mu.Unlock()
					return
				}
			}
		})
	}
	var binds []time.Duration
	for i := range 100 {
		for range 20 {
			<-started
		}
		start := time.Now()
		cfg := smpp.ClientConfig{Address: address, SystemID: fmt.Sprint(i)}
		s, err := smpp.Dial(t.Context(), cfg)
		if err != nil { // on a machine that is busy enough a bind, too, meets the timeout; it comes again
			s, err = smpp.Dial(t.Context(), cfg)
		}
		if err != nil {
			t.Errorf("bind %d: %v", i, err)
			continue
		}
		binds = append(binds, time.Since(start))
		s.Kill(errors.New("enough"))
		<-s.Done()
	}
	wg.Wait()
	slices.Sort(binds)
	p99 := binds[len(binds)-2]
	// The figures are in the log: they say as much about the machine as about us.
	if p99 > patience/2 {
		t.Errorf("the 99th percentile of binds took %s", p99)
	}
	if longest > timeout+patience/2 {
		t.Errorf("a socket without bind lived %s", longest)
	}
	t.Logf("binds among 2000 slow sockets: p50 %s, p99 %s; longest slow socket %s", binds[len(binds)/2], p99, longest)
}

func TestSocketsWithoutABindAreClosedAfterFiveSeconds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		loop := smpptest.NewLoop()
		srv := smpp.NewServer(smpp.ServerConfig{Authenticate: accounts(), Log: slog.New(slog.DiscardHandler)})
		served := make(chan error, 1)
		go func() { served <- srv.Serve(loop) }()
		for name, behave := range map[string]func(net.Conn){
			"silent": func(net.Conn) {},
			"an octet a second": func(conn net.Conn) {
				for _, octet := range trickledBind {
					if _, err := conn.Write([]byte{octet}); err != nil {
						return
					}
					time.Sleep(time.Second)
				}
			},
			"enquire_link and no bind": func(conn net.Conn) {
				frame, _ := smpp.Append(nil, 1, 0, &smpp.Plain{Command: smpp.CmdEnquireLink})
				_, _ = conn.Write(frame)
			},
		} {
			conn, err := loop.DialContext(t.Context(), "", "")
			if err != nil {
				t.Fatal(err)
			}
			var behaving sync.WaitGroup
			behaving.Go(func() { behave(conn) })
			if _, took := readAll(conn); took != 5*time.Second {
				t.Errorf("%s: closed after %s", name, took)
			}
			conn.Close()
			behaving.Wait()
		}
		if err := srv.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		<-served
	})
}

func TestBeforeABindNothingElseIsDone(t *testing.T) {
	t.Parallel()
	_, address := serverOf(t, smpp.ServerConfig{Session: smpp.SessionConfig{Handle: func(*smpp.Inbound) {
		t.Error("a request without bind reached the handler")
	}}})
	p := newPeer(t, dialTCP(t, address))
	for i, c := range []struct {
		pdu    smpp.PDU
		answer smpp.CommandID
		status smpp.Status
	}{
		{text("79000000001"), smpp.CmdSubmitSMResp, smpp.StatusInvalidBindStatus},
		{&smpp.Query{}, smpp.CmdQuerySMResp, smpp.StatusInvalidBindStatus},
		{&smpp.Raw{Command: 0x77}, smpp.CmdGenericNack, smpp.StatusInvalidBindStatus},
		{&smpp.Raw{Command: smpp.CmdBindTransceiver}, smpp.CmdBindTransceiverResp, smpp.StatusInvalidMessageLength},
		{&smpp.Plain{Command: smpp.CmdEnquireLink}, smpp.CmdEnquireLinkResp, smpp.StatusOK},
	} {
		p.send(uint32(i+1), 0, c.pdu)
		h := <-p.in
		<-p.pdus
		if h.Command != c.answer || h.Status != c.status || h.Sequence != uint32(i+1) {
			t.Errorf("%s is answered with %+v", c.pdu.CommandID(), h)
		}
	}
	p.expectEnd() // patience has an end
}

func TestAnUnbindBeforeABindIsAnswered(t *testing.T) {
	t.Parallel()
	_, address := serverOf(t, smpp.ServerConfig{})
	p := newPeer(t, dialTCP(t, address))
	p.send(9, 0, &smpp.Plain{Command: smpp.CmdUnbind})
	p.expect(smpp.CmdUnbindResp)
	p.expectEnd()
}

// Fault row 22: what scanners and broken peers send to the port.
func TestOtherProtocolsOnThePortAreClosedAtOnce(t *testing.T) {
	t.Parallel()
	_, address := serverOf(t, smpp.ServerConfig{UnboundTimeout: patience})
	for name, octets := range map[string][]byte{
		"HTTP":                    []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"TLS":                     {0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xFC, 0x03, 0x03},
		"SSH":                     []byte("SSH-2.0-OpenSSH_9.2\r\n"),
		"zeros":                   make([]byte, 64),
		"a PDU of 2 KiB unbound":  {0, 0, 8, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1},
		"a PDU of two gigabytes":  {0x7F, 0xFF, 0xFF, 0xFF, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1},
		"a PDU of four gigabytes": {0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1},
	} {
		conn := dialTCP(t, address)
		if _, err := conn.Write(octets); err != nil {
			t.Fatal(err)
		}
		answer, took := readAll(conn)
		if took > patience/2 {
			t.Errorf("%s: closed after %s", name, took)
		}
		if len(answer) > 0 {
			if h := smpp.ParseHeader(answer); h.Command != smpp.CmdGenericNack || h.Status != smpp.StatusInvalidCommandLength {
				t.Errorf("%s: answered with %+v", name, h)
			}
		}
	}
	mustBind(t, smpp.ClientConfig{Address: address, SystemID: "operator"})
}

// Fault row 22: less than 1 MB of growth for a connection, whatever it sends.
func TestAHostileConnectionGrowsByLessThanAMegabyte(t *testing.T) {
	held := make(chan *smpp.Inbound, 100_000)
	srv, address := serverOf(t, smpp.ServerConfig{
		Authenticate: accounts(smpp.Account{SystemID: "operator", MaxBinds: 1000}),
		Session:      smpp.SessionConfig{Handle: func(in *smpp.Inbound) { held <- in }}, // never answers
	})
	for name, c := range map[string]struct {
		pdu    func() []byte
		repeat int
	}{
		"messages of 64 KB, never answered": {func() []byte {
			frame, _ := smpp.Append(nil, 1, 0, &smpp.Message{Command: smpp.CmdSubmitSM, TLVs: smpp.TLVs{
				{Tag: smpp.TagMessagePayload, Value: make([]byte, 64_000)},
			}})
			return frame
		}, 500},
		"small messages, never answered": {func() []byte {
			frame, _ := smpp.Append(nil, 1, 0, text("79000000001"))
			return frame
		}, 20_000},
		"a claim of 64 KB and four octets": {func() []byte {
			return []byte{0, 1, 0, 0}
		}, 1},
		"nonsense of 64 KB": {func() []byte {
			frame, _ := smpp.Append(nil, 1, 0, &smpp.Raw{Command: smpp.CmdSubmitSM, Body: bytes.Repeat([]byte{'x'}, 65_000)})
			return frame
		}, 90},
	} {
		const connections = 10
		before := heap()
		var conns []net.Conn
		frame := c.pdu()
		for range connections {
			conn := dialTCP(t, address)
			bind, _ := smpp.Append(nil, 1, 0, &smpp.Bind{SystemID: "operator", Password: "secret"})
			if _, err := conn.Write(bind); err != nil {
				t.Fatal(err)
			}
			go func() { _, _ = io.Copy(io.Discard, conn) }()
			for range c.repeat {
				if _, err := conn.Write(frame); err != nil {
					break // dropped: that is an answer, too
				}
			}
			conns = append(conns, conn)
		}
		eventually(t, "all is read", func() bool {
			for _, s := range srv.Sessions("operator") { // those that were dropped are done, too
				if c.repeat > 1 && s.Snapshot().OctetsIn < uint64(c.repeat*len(frame)) {
					return false
				}
			}
			return true
		})
		grown := (heap() - before) / connections
		if grown > 1<<20 {
			t.Errorf("%s: %d octets for a connection", name, grown)
		}
		t.Logf("%s: %d KiB for a connection", name, grown>>10)
		for _, conn := range conns {
			conn.Close()
		}
		eventually(t, "the connections are gone", func() bool { return len(srv.Sessions("operator")) == 0 })
		for len(held) > 0 {
			<-held
		}
	}
}

// heap is the size of what is reachable, in octets.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// certificate makes a self-signed certificate for a name.
func certificate(t *testing.T, name string, until time.Time) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: name},
		DNSNames:     []string{name},
		NotBefore:    until.Add(-48 * time.Hour),
		NotAfter:     until,
		IsCA:         true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestTLSIsCheckedOnBothSides(t *testing.T) {
	t.Parallel()
	good, trusted := certificate(t, "smsc.example", time.Now().Add(time.Hour))
	stale, staleTrusted := certificate(t, "smsc.example", time.Now().Add(-time.Hour))
	_, unrelated := certificate(t, "smsc.example", time.Now().Add(time.Hour))
	for name, c := range map[string]struct {
		server tls.Certificate
		client *tls.Config
		ok     bool
	}{
		"the right certificate":     {good, &tls.Config{RootCAs: trusted, ServerName: "smsc.example"}, true},
		"another name":              {good, &tls.Config{RootCAs: trusted, ServerName: "other.example"}, false},
		"the name of the address":   {good, &tls.Config{RootCAs: trusted}, false},
		"an unknown issuer":         {good, &tls.Config{RootCAs: unrelated, ServerName: "smsc.example"}, false},
		"an expired certificate":    {stale, &tls.Config{RootCAs: staleTrusted, ServerName: "smsc.example"}, false},
		"no TLS against a TLS port": {good, nil, false},
	} {
		opened := make(chan *smpp.Session, 1)
		_, address := serverOf(t, smpp.ServerConfig{
			TLS: &tls.Config{Certificates: []tls.Certificate{c.server}}, Session: smpp.SessionConfig{Handle: acceptAll},
			Opened: func(s *smpp.Session) { opened <- s }, UnboundTimeout: patience,
		})
		s, err := client(t, smpp.ClientConfig{Address: address, TLS: c.client, SystemID: "operator", Password: "secret"})
		if (err == nil) != c.ok {
			t.Errorf("%s: error %v", name, err)
			continue
		}
		if c.ok && status(t, s, text("79000000001")) != smpp.StatusOK {
			t.Errorf("%s: no message goes through", name)
		}
		if len(opened) > 0 && !c.ok {
			t.Errorf("%s: the server has a session", name)
		}
	}
}

// A bind refused for its length never reaches the wire, and the caller learns
// that the settings are wrong.
func TestABindThatDoesNotFitIsToldFromARefusal(t *testing.T) {
	t.Parallel()
	_, address := serverOf(t, smpp.ServerConfig{})
	_, err := client(t, smpp.ClientConfig{Address: address, SystemID: "operator", Password: "longer than 8"})
	if !errors.Is(err, smpp.ErrNotEncodable) {
		t.Errorf("error %v", err)
	}
}

func TestABindThatIsNotAnsweredTimesOut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		loop := smpptest.NewLoop()
		go func() {
			conn, err := loop.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, conn)
			conn.Close()
		}()
		start := time.Now()
		_, err := smpp.Dial(t.Context(), smpp.ClientConfig{Dial: loop.DialContext, SystemID: "zvonok"})
		if !errors.Is(err, smpp.ErrTimeout) || time.Since(start) != 10*time.Second {
			t.Errorf("error %v after %s", err, time.Since(start))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := smpp.Dial(ctx, smpp.ClientConfig{Dial: loop.DialContext}); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	})
}

func TestShutdownUnbindsEverybodyAndWaits(t *testing.T) {
	t.Parallel()
	srv, address := serverOf(t, smpp.ServerConfig{Session: smpp.SessionConfig{Handle: acceptAll}})
	var clients []*smpp.Session
	for range 5 {
		clients = append(clients, mustBind(t, smpp.ClientConfig{Address: address, SystemID: "operator"}))
	}
	idle := dialTCP(t, address)
	eventually(t, "all are bound", func() bool { return len(srv.Sessions("")) == 5 })
	if err := srv.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	for _, s := range clients {
		<-s.Done()
		if !errors.Is(s.Err(), smpp.ErrUnbound) {
			t.Errorf("ended with %v", s.Err())
		}
	}
	if _, took := readAll(idle); took > patience/2 {
		t.Errorf("a connection without bind lived %s", took)
	}
	if _, err := client(t, smpp.ClientConfig{Address: address}); err == nil {
		t.Error("a bind after shutdown")
	}
}
