package smpptest_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"zvonok/gateway/smpp"
	"zvonok/gateway/smpp/smpptest"
)

// menu is the smallest USSD application there is: it shows a menu and says
// goodbye to whatever is typed. It answers with the addresses swapped, the
// session TLVs as they came, and the operation first.
type menu struct {
	profile smpptest.USSDProfile
	typed   chan string
	aborted chan uint8
}

func newMenu(p smpptest.USSDProfile) *menu {
	return &menu{profile: p, typed: make(chan string, 10), aborted: make(chan uint8, 10)}
}

func (a *menu) handle(in *smpp.Inbound) {
	m, ok := in.PDU.(*smpp.Message)
	if !ok {
		_ = in.Answer(smpp.StatusInvalidCommandID, "")
		return
	}
	_ = in.Answer(smpp.StatusOK, "")
	op, _ := m.USSDOp()
	switch op {
	case smpptest.OpPSSRIndication:
		a.typed <- m.Destination.Addr + "|" + string(m.Octets())
		a.answer(in.Session(), m, "1 Balance", false)
	case smpptest.OpUSSRConfirm:
		if its, _ := m.TLVs.Get(smpp.TagITSSessionInfo); len(its) == 2 && its[1]&1 == 1 {
			a.aborted <- op
			return
		}
		a.typed <- strings.ReplaceAll(string(m.Octets()), "\x00", "")
		a.answer(in.Session(), m, "Bye", true)
	default:
		a.aborted <- op
	}
}

func (a *menu) answer(s *smpp.Session, m *smpp.Message, text string, end bool) {
	op := a.profile.Continue[0]
	if end {
		op = a.profile.End[0]
	}
	var session smpp.TLVs
	for _, tlv := range m.TLVs {
		switch tlv.Tag {
		case smpp.TagITSSessionInfo:
			value := []byte{tlv.Value[0], tlv.Value[1] + 2}
			if end {
				value[1] |= 1
			}
			session = append(session, smpp.TLV{Tag: tlv.Tag, Value: value})
		case smpp.TagUserMessageReference, smpp.TagUSSDSessionID:
			session = append(session, tlv)
		}
	}
	reply := &smpp.Message{
		Command: smpp.CmdSubmitSM, ServiceType: m.ServiceType, Source: m.Destination, Destination: m.Source,
		ShortMessage: []byte(text), TLVs: smpp.USSD(op, session...),
	}
	switch m.Command {
	case smpp.CmdSubmitSM:
		reply.Command = smpp.CmdDeliverSM
	case smpp.CmdDataSM:
		reply.Command, reply.ShortMessage = smpp.CmdDataSM, nil
		reply.TLVs = append(reply.TLVs, smpp.TLV{Tag: smpp.TagMessagePayload, Value: []byte(text)})
	}
	// The session may be gone; the phone then sees nothing, as it would.
	_ = s.Submit(context.Background(), smpp.Request{PDU: reply, OutsideWindow: true, Timeout: 3 * time.Minute})
}

// againstBoth runs a test with an operator that is bound to, and with one that
// binds to us.
func againstBoth(t *testing.T, profile smpptest.USSDProfile, test func(t *testing.T, o *smpptest.Operator, app *menu)) {
	t.Helper()
	t.Run("we bind to them", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			app := newMenu(profile)
			loop := smpptest.NewLoop()
			smsc, err := smpptest.Start(smpptest.Config{Listener: loop})
			if err != nil {
				t.Fatal(err)
			}
			s, err := smpp.Dial(t.Context(), smpp.ClientConfig{
				Dial: loop.DialContext, SystemID: "zvonok", Session: smpp.SessionConfig{Handle: app.handle},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				s.Kill(errors.New("end of test"))
				<-s.Done()
				_ = smsc.Close(ctx)
			}()
			test(t, smsc.Operator, app)
		})
	})
	t.Run("they bind to us", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			app := newMenu(profile)
			loop := smpptest.NewLoop()
			srv := smpp.NewServer(smpp.ServerConfig{
				Log: slog.New(slog.DiscardHandler),
				Authenticate: func(_ context.Context, r smpp.BindRequest) (smpp.Account, smpp.Status) {
					if r.Bind.Password != "secret" {
						return smpp.Account{}, smpp.StatusInvalidPassword
					}
					return smpp.Account{Roles: smpp.RoleUSSD, MaxBinds: 2}, smpp.StatusOK
				},
				Session: smpp.SessionConfig{Handle: app.handle},
			})
			served := make(chan error, 1)
			go func() { served <- srv.Serve(loop) }()
			gateway, err := smpptest.Connect(t.Context(), smpptest.GatewayConfig{
				Dial: loop.DialContext, SystemID: "operator", Password: "secret",
			})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				_ = gateway.Close(ctx)
				_ = srv.Shutdown(ctx)
				<-served
			}()
			test(t, gateway.Operator, app)
		})
	})
}

func TestADialogueWorksInEveryProfileAndDirection(t *testing.T) {
	dialled := map[string]string{
		"tata": "*377*888#|", "eyeline": "ussd:377|888", "c-gateway": "79000009999|*377*888#",
	}
	for _, profile := range smpptest.USSDProfiles() {
		t.Run(profile.Name, func(t *testing.T) {
			againstBoth(t, profile, func(t *testing.T, o *smpptest.Operator, app *menu) {
				call, err := o.Dial(t.Context(), profile, "79000000001", "*377*888#")
				if err != nil {
					t.Fatal(err)
				}
				want, ok := dialled[profile.Name]
				if !ok {
					want = "377|*377*888#"
				}
				if got := <-app.typed; got != want {
					t.Errorf("dialled as %q, want %q", got, want)
				}
				screen, err := call.Screen(t.Context())
				if err != nil || screen.Text != "1 Balance" || screen.End {
					t.Fatalf("screen %+v, %v", screen, err)
				}
				if o.Stats().USSDCalls != 1 {
					t.Error("the dialogue is not open")
				}
				time.Sleep(time.Minute) // the user thinks
				screen, err = call.Ask(t.Context(), "1")
				if err != nil || screen.Text != "Bye" || !screen.End {
					t.Fatalf("screen %+v, %v", screen, err)
				}
				if got := <-app.typed; got != "1" {
					t.Errorf("typed %q", got)
				}
				synctest.Wait()
				if o.Stats().USSDCalls != 0 {
					t.Error("the dialogue is still open")
				}
				if _, err := call.Screen(t.Context()); !errors.Is(err, smpptest.ErrCallOver) {
					t.Errorf("a screen after the end: %v", err)
				}
			})
		})
	}
}

// Where the answer to a request for input comes only with the input, it must
// not come before (spec/ussd.md, section 1.4).
func TestALateProfileAnswersWhenTheUserHas(t *testing.T) {
	profile, err := smpptest.USSDProfileNamed("eyeline")
	if err != nil {
		t.Fatal(err)
	}
	inBubble(t, smpptest.OperatorConfig{}, func(t *testing.T, smsc *smpptest.SMSC, bind func(smpp.BindType) *esme) {
		e := bind(smpp.Transceiver)
		call, err := smsc.Dial(t.Context(), profile, "79000000001", "*377*888*2#")
		if err != nil {
			t.Fatal(err)
		}
		begin := (<-e.in).PDU.(*smpp.Message)
		if string(begin.ShortMessage) != "888*2" {
			t.Errorf("rest of the code %q", begin.ShortMessage)
		}
		reference, _ := begin.TLVs.Get(smpp.TagUserMessageReference)
		ask := func(op uint8) (chan smpp.Outcome, time.Time) {
			done := make(chan smpp.Outcome, 1)
			err := e.Submit(t.Context(), smpp.Request{
				PDU: &smpp.Message{
					Command: smpp.CmdSubmitSM, Source: begin.Destination, Destination: begin.Source,
					ShortMessage: []byte("?"),
					TLVs:         smpp.USSD(op, smpp.TLV{Tag: smpp.TagUserMessageReference, Value: reference}),
				},
				OutsideWindow: true, Timeout: 3 * time.Minute, Done: func(o smpp.Outcome) { done <- o },
			})
			if err != nil {
				t.Fatal(err)
			}
			return done, time.Now()
		}
		done, asked := ask(smpptest.OpUSSRRequest)
		if _, err := call.Screen(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Second)
		if err := call.Press(t.Context(), "1"); err != nil {
			t.Fatal(err)
		}
		if o := <-done; o.Status != smpp.StatusOK || time.Since(asked) != 50*time.Second {
			t.Errorf("outcome %+v after %s", o, time.Since(asked))
		}
		<-e.in // the input
		done, _ = ask(smpptest.OpUSSRRequest)
		if _, err := call.Screen(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := call.Abort(t.Context()); err != nil {
			t.Fatal(err)
		}
		if o := <-done; o.Status != 0x455 {
			t.Errorf("the user broke off, outcome %+v", o)
		}
		done, _ = ask(smpptest.OpPSSRResponse)
		if o := <-done; o.Status != 0x407 {
			t.Errorf("the dialogue is over, outcome %+v", o)
		}
	})
}

func TestAUserBreaksOffInTheWayOfTheProfile(t *testing.T) {
	for _, profile := range smpptest.USSDProfiles() {
		if profile.LateAnswer {
			continue // see TestALateProfileAnswersWhenTheUserHas
		}
		t.Run(profile.Name, func(t *testing.T) {
			againstBoth(t, profile, func(t *testing.T, o *smpptest.Operator, app *menu) {
				call, err := o.Dial(t.Context(), profile, "79000000001", "*377*888#")
				if err != nil {
					t.Fatal(err)
				}
				if _, err := call.Screen(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := call.Abort(t.Context()); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				switch {
				case profile.Abort != 0:
					if op := <-app.aborted; op != profile.Abort {
						t.Errorf("operation %d", op)
					}
				case profile.EndBit:
					if op := <-app.aborted; op != smpptest.OpUSSRConfirm {
						t.Errorf("operation %d", op)
					}
				case len(app.aborted) != 0:
					t.Error("something was sent although nothing is ever heard here")
				}
				if o.Stats().USSDCalls != 0 {
					t.Error("the dialogue is still open")
				}
			})
		})
	}
}

func TestAGatewayThatLooksAtTheFirstTLVOnlyTakesOthersForNotifications(t *testing.T) {
	profile, err := smpptest.USSDProfileNamed("c-gateway")
	if err != nil {
		t.Fatal(err)
	}
	inBubble(t, smpptest.OperatorConfig{}, func(t *testing.T, smsc *smpptest.SMSC, bind func(smpp.BindType) *esme) {
		e := bind(smpp.Transceiver)
		if _, err := smsc.Dial(t.Context(), profile, "79000000001", "*377*888#"); err != nil {
			t.Fatal(err)
		}
		o := e.send(t, &smpp.Message{
			Command: smpp.CmdSubmitSM, Destination: smpp.Address{Addr: "79000000001"}, ShortMessage: []byte("x"),
			TLVs: smpp.TLVs{smpp.Uint16(smpp.TagUserMessageReference, 1), smpp.Uint8(smpp.TagUSSDServiceOp, 17)},
		})
		if o.Status != smpp.StatusInvalidTLVValue {
			t.Errorf("outcome %+v", o)
		}
	})
}

func TestANewDialogueOfAPhoneReplacesTheOld(t *testing.T) {
	profile, err := smpptest.USSDProfileNamed("plain-its")
	if err != nil {
		t.Fatal(err)
	}
	againstBoth(t, profile, func(t *testing.T, o *smpptest.Operator, _ *menu) {
		old, err := o.Dial(t.Context(), profile, "79000000001", "*377*888#")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := old.Screen(t.Context()); err != nil {
			t.Fatal(err)
		}
		next, err := o.Dial(t.Context(), profile, "79000000001", "*377*888#")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := old.Screen(t.Context()); !errors.Is(err, smpptest.ErrCallOver) {
			t.Errorf("the old dialogue: %v", err)
		}
		if screen, err := next.Screen(t.Context()); err != nil || screen.Text != "1 Balance" {
			t.Errorf("screen %+v, %v", screen, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := next.Screen(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a screen nobody sent: %v", err)
		}
		if n := o.Stats().USSDCalls; n != 1 {
			t.Errorf("%d dialogues are open", n)
		}
	})
}

func TestAGatewayBindsTakesMessagesAndSubmitsTexts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		loop := smpptest.NewLoop()
		texts := make(chan *smpp.Message, 10)
		srv := smpp.NewServer(smpp.ServerConfig{
			Log: slog.New(slog.DiscardHandler),
			Authenticate: func(_ context.Context, r smpp.BindRequest) (smpp.Account, smpp.Status) {
				if !smpp.SamePassword(r.Bind.Password, "secret") {
					return smpp.Account{}, smpp.StatusInvalidPassword
				}
				return smpp.Account{MaxBinds: 2}, smpp.StatusOK
			},
			Session: smpp.SessionConfig{Handle: func(in *smpp.Inbound) {
				_ = in.Answer(smpp.StatusOK, "M1")
				texts <- in.PDU.(*smpp.Message)
			}},
		})
		served := make(chan error, 1)
		go func() { served <- srv.Serve(loop) }()
		cfg := smpptest.GatewayConfig{Dial: loop.DialContext, SystemID: "operator", Password: "wrong"}
		var refused *smpp.BindError
		_, err := smpptest.Connect(t.Context(), cfg)
		if !errors.As(err, &refused) || refused.Status != smpp.StatusInvalidPassword {
			t.Errorf("a wrong password: %v", err)
		}
		cfg.Password = "secret"
		gateway, err := smpptest.Connect(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := gateway.Bind(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := len(gateway.Sessions("")); n != 2 {
			t.Errorf("%d binds", n)
		}
		if status, err := gateway.SendText(t.Context(), "79000000001", "377", "STOP"); err != nil || status != smpp.StatusOK {
			t.Errorf("status %s, %v", status, err)
		}
		if m := <-texts; m.Command != smpp.CmdSubmitSM || string(m.ShortMessage) != "STOP" {
			t.Errorf("came as %+v", m)
		}
		// Our SMS goes out as deliver_sm, its receipt comes back as submit_sm.
		m := sms("79000000001", "hello")
		m.Command = smpp.CmdDeliverSM
		o, err := srv.Sessions("operator")[0].Do(t.Context(), smpp.Request{PDU: m})
		if err != nil || o.Status != smpp.StatusOK {
			t.Errorf("outcome %+v, %v", o, err)
		}
		if m := <-texts; !m.IsReceipt() || m.Command != smpp.CmdSubmitSM {
			t.Errorf("the receipt came as %+v", m)
		}
		if got := gateway.MessagesTo("79000000001"); len(got) != 1 || got[0].Text != "hello" {
			t.Errorf("shown %+v", got)
		}
		if err := gateway.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if err := srv.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		<-served
	})
}
