package carrier

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"zvonok/gateway/smpp"
	"zvonok/gateway/smpp/smpptest"
)

// serving is a box whose operator binds to our server, and the server's address.
func serving(t *testing.T, change ...func(*OperatorConfig)) (*box, string) {
	t.Helper()
	cfg := OperatorConfig{
		Name: "local", Mode: Server, SystemID: "gate", Password: "secret", Rate: 5000, Window: 20, Binds: 2,
		Roles: []Role{RoleSMS, RoleUSSD}, Source: "SCHOOL",
	}
	for _, f := range change {
		f(&cfg)
	}
	x := newBox(t, Config{Operators: []OperatorConfig{cfg}})
	return x, serve(t, x)
}

// serve starts our server for the operators of a box and returns its address.
func serve(t *testing.T, x *box) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	settings := x.ServerConfig()
	settings.SystemID, settings.Log, settings.WrongLoginDelay = "zvonok", slog.New(slog.DiscardHandler), time.Millisecond
	server := smpp.NewServer(settings)
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = server.Shutdown(ctx)
		<-served
	})
	return listener.Addr().String()
}

func gateway(t *testing.T, address string, change ...func(*smpptest.GatewayConfig)) (*smpptest.Gateway, error) {
	t.Helper()
	cfg := smpptest.GatewayConfig{Address: address, SystemID: "gate", Password: "secret"}
	for _, f := range change {
		f(&cfg)
	}
	g, err := smpptest.Connect(within(t), cfg)
	if err == nil {
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_ = g.Close(ctx)
		})
	}
	return g, err
}

func TestAnOperatorThatBindsToUsIsSentAndSendsMessages(t *testing.T) {
	t.Parallel()
	x, address := serving(t)
	g, err := gateway(t, address)
	if err != nil {
		t.Fatal(err)
	}
	x.untilReady("local")
	text := strings.Repeat("Вход 08:15 Маша П. ", 5)
	r := x.send("local", sms(1, "79000000001", text))[1]
	if r.Class != OK || len(r.Parts) != 2 {
		t.Fatalf("got %+v", r)
	}
	if shown := g.MessagesTo("79000000001"); len(shown) != 1 || shown[0].Text != text {
		t.Errorf("shown %+v", shown)
	}
	if status, err := g.SendText(within(t), "79000000002", "377", "СТОП"); err != nil || status != smpp.StatusOK {
		t.Errorf("got %s, %v", status, err)
	}
	x.heard(func() {
		if len(x.texts) != 1 || x.texts[0].From != "79000000002" || x.texts[0].Operator != "local" {
			t.Errorf("texts %+v", x.texts)
		}
	})
}

// As server: database down is 0x08 on submit_sm.
func TestASubmitThatCannotBeStoredIsASystemError(t *testing.T) {
	t.Parallel()
	x, address := serving(t)
	g, err := gateway(t, address)
	if err != nil {
		t.Fatal(err)
	}
	x.heard(func() { x.storeErr = context.DeadlineExceeded })
	if status, _ := g.SendText(within(t), "79000000002", "377", "СТОП"); status != smpp.StatusSystemError {
		t.Errorf("got %s", status)
	}
}

func TestATextAcceptedBySubmitCanBeAskedFor(t *testing.T) {
	t.Parallel()
	_, address := serving(t)
	g, err := gateway(t, address)
	if err != nil {
		t.Fatal(err)
	}
	session := g.Sessions("")[0]
	outcome, err := session.Do(within(t), smpp.Request{PDU: &smpp.Message{
		Command: smpp.CmdSubmitSM, Source: smpp.Address{TON: 1, NPI: 1, Addr: "79000000001"},
		Destination: smpp.Address{Addr: "377"}, ShortMessage: []byte("?"),
	}})
	if err != nil || outcome.Status != smpp.StatusOK || outcome.MessageID() == "" {
		t.Fatalf("got %+v, %v", outcome, err)
	}
	asked, err := session.Do(within(t), smpp.Request{PDU: &smpp.Query{MessageID: outcome.MessageID()}})
	if err != nil {
		t.Fatal(err)
	}
	if resp, ok := asked.Answer.(*smpp.QueryResp); !ok || resp.State != smpp.StateDelivered ||
		resp.MessageID != outcome.MessageID() {
		t.Errorf("got %+v", asked)
	}
	// After a restart, and in another process, the id is still known; to another account it is not.
	again := newAcceptedIDs("gate", "secret")
	if at, ours := again.read(outcome.MessageID()); !ours || time.Since(at) > patience {
		t.Errorf("after a restart: accepted at %s, ours %t", at, ours)
	}
	if _, ours := newAcceptedIDs("gate2", "secret").read(outcome.MessageID()); ours {
		t.Error("another account may ask for it")
	}
	asked, _ = session.Do(within(t), smpp.Request{PDU: &smpp.Query{MessageID: strings.Repeat("0", 32)}})
	if asked.Status != smpp.StatusInvalidMessageID {
		t.Errorf("a made-up id got %s", asked.Status)
	}
	asked, _ = session.Do(within(t), smpp.Request{PDU: &smpp.Query{MessageID: "nothing"}})
	if asked.Status != smpp.StatusInvalidMessageID {
		t.Errorf("an unknown id got %s", asked.Status)
	}
	cancelled, _ := session.Do(within(t), smpp.Request{PDU: &smpp.Cancel{MessageID: outcome.MessageID()}})
	if cancelled.Status != smpp.StatusCancelFailed {
		t.Errorf("cancel got %s", cancelled.Status)
	}
	replaced, _ := session.Do(within(t), smpp.Request{PDU: &smpp.Replace{MessageID: outcome.MessageID()}})
	if replaced.Status != smpp.StatusReplaceFailed {
		t.Errorf("replace got %s", replaced.Status)
	}
}

func TestOnlyTheAccountsMayBind(t *testing.T) {
	t.Parallel()
	_, address := serving(t, func(c *OperatorConfig) { c.Binds = 1 })
	for name, change := range map[string]func(*smpptest.GatewayConfig){
		"a wrong password": func(c *smpptest.GatewayConfig) { c.Password = "wrong" },
		"an unknown name":  func(c *smpptest.GatewayConfig) { c.SystemID = "nobody" },
		"no password":      func(c *smpptest.GatewayConfig) { c.Password = "" },
	} {
		var refused *smpp.BindError
		if _, err := gateway(t, address, change); err == nil || !asBindError(err, &refused) ||
			refused.Status != smpp.StatusInvalidPassword {
			t.Errorf("%s: got %v", name, err)
		}
	}
	g, err := gateway(t, address)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Bind(within(t)); err == nil || !strings.Contains(err.Error(), "RALYBND") {
		t.Errorf("a second bind got %v", err)
	}
}

func asBindError(err error, target **smpp.BindError) bool {
	bind, ok := err.(*smpp.BindError)
	*target = bind
	return ok
}

func TestBindsFromElsewhereAreRefused(t *testing.T) {
	t.Parallel()
	_, address := serving(t, func(c *OperatorConfig) { c.Networks = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} })
	if _, err := gateway(t, address); err == nil {
		t.Error("bound")
	}
}

func TestOnlyABindThatHearsIsSentTo(t *testing.T) {
	t.Parallel()
	x, address := serving(t)
	if _, err := gateway(t, address, func(c *smpptest.GatewayConfig) { c.Type = smpp.Transmitter }); err != nil {
		t.Fatal(err)
	}
	x.until("the bind", func() bool { return x.Status()[0].BindsUp == 1 })
	if x.Ready("local") {
		t.Error("a transmitter of the operator is called ready for our messages")
	}
	if _, err := gateway(t, address, func(c *smpptest.GatewayConfig) { c.Type = smpp.Receiver }); err != nil {
		t.Fatal(err)
	}
	x.untilReady("local")
	if r := x.send("local", sms(1, number(1), "a"))[1]; r.Class != OK {
		t.Errorf("got %+v", r)
	}
}

func TestTwoAccountsOfOurServerCannotHaveOneName(t *testing.T) {
	t.Parallel()
	a := OperatorConfig{Name: "a", Mode: Server, SystemID: "gate", Password: "x"}
	b := a
	b.Name = "b"
	if _, err := New(Config{Operators: []OperatorConfig{a, b}}); err == nil {
		t.Error("accepted")
	}
}

func TestQueryAndCancelAskTheOperator(t *testing.T) {
	t.Parallel()
	x, smsc := connected(t, smpptest.Behaviour{ReceiptDelay: time.Hour})
	r := x.send("mts", sms(1, number(1), "a"))[1]
	id := r.Parts[0].MessageID
	if got := x.Query(within(t), "mts", id, 0); got.Verdict != Settled || got.State != StateEnroute {
		t.Errorf("query: %+v", got)
	}
	if got := x.Cancel(within(t), "mts", id, number(1)); got.Verdict != Settled {
		t.Errorf("cancel: %+v", got)
	}
	if got := x.Query(within(t), "mts", id, 0); got.State != StateDeleted {
		t.Errorf("query after cancel: %+v", got)
	}
	first := x.Query(within(t), "mts", "999", 0)
	second := x.Query(within(t), "mts", "999", 1)
	if first.Verdict != AskAgain || second.Verdict != NeverAccepted {
		t.Errorf("an unknown id: %+v, then %+v", first, second)
	}
	if got := x.Cancel(within(t), "mts", "999", number(1)); got.Verdict != AlreadyLeft {
		t.Errorf("cancel of an unknown id: %+v", got)
	}
	smsc.SetBehaviour(smpptest.Behaviour{NoQueries: true})
	if got := x.Query(within(t), "mts", id, 0); got.Verdict != AskAgain || got.Status != smpp.StatusInvalidCommandID {
		t.Errorf("an operator without query_sm: %+v", got)
	}
	smsc.SetBehaviour(smpptest.Behaviour{})
	if got := x.Query(within(t), "mts", id, 0); got.Verdict != AwaitReceipt {
		t.Errorf("it is asked again at once: %+v", got)
	}
	if got := x.Query(within(t), "nobody", id, 0); got.Err == nil {
		t.Error("an unknown operator answered")
	}
	if !slices.Contains(Classes(), r.Class) {
		t.Errorf("class %s is not listed", r.Class)
	}
}
