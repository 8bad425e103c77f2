package ussd

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"zvonok/gateway/carrier"
	"zvonok/gateway/smpp"
	"zvonok/gateway/smpp/smpptest"
	"zvonok/templates/gsm"
)

// wire is an operator's end of a connection, octet by octet, for what no decent encoder would write.
type wire struct {
	t      *testing.T
	conn   net.Conn
	frames *smpp.FrameReader
	number uint32
}

// newWire takes the bind of a server with this profile.
func newWire(t *testing.T, profile string) *wire {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	operator := account
	operator.Mode, operator.Address = carrier.Client, listener.Addr().String()
	serve(t, profile, operator, balance)
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	w := &wire{t: t, conn: conn, frames: smpp.NewFrameReader(conn, smpp.MaxUnboundPDU)}
	bind, _ := w.next(smpp.CmdBindTransceiver)
	octets, err := smpp.Append(nil, bind.Sequence, smpp.StatusOK, &smpp.BindResp{Type: smpp.Transceiver})
	if err != nil {
		t.Fatal(err)
	}
	w.write(octets)
	return w
}

func (w *wire) write(octets []byte) {
	w.t.Helper()
	if _, err := w.conn.Write(octets); err != nil {
		w.t.Fatal(err)
	}
}

// next returns the next PDU of a kind.
func (w *wire) next(command smpp.CommandID) (smpp.Header, smpp.PDU) {
	w.t.Helper()
	for {
		frame, err := w.frames.Next()
		if err != nil {
			w.t.Fatalf("wait for %s: %v", command, err)
		}
		h, pdu, err := smpp.Decode(bytes.Clone(frame))
		if err != nil {
			w.t.Fatal(err)
		}
		if h.Command == command || h.Command == smpp.CmdGenericNack {
			return h, pdu
		}
	}
}

// deliver writes a deliver_sm whose text and parameters are the octets given, and returns the status of its answer.
func (w *wire) deliver(source string, change func(*smpp.Message), textAndTLVs []byte) smpp.Status {
	w.t.Helper()
	w.number++
	m := &smpp.Message{
		Command: smpp.CmdDeliverSM, ServiceType: "USSD", Source: smpp.Address{TON: 1, NPI: 1, Addr: source},
		Destination: smpp.Address{NPI: 1, Addr: "377"},
	}
	if change != nil {
		change(m)
	}
	octets, err := smpp.Append(nil, w.number, smpp.StatusOK, m)
	if err != nil {
		w.t.Fatal(err)
	}
	octets = append(octets[:len(octets)-1], textAndTLVs...) // sm_length is the last octet of an empty message
	octets[2], octets[3] = byte(len(octets)>>8), byte(len(octets))
	w.write(octets)
	h, _ := w.next(smpp.CmdDeliverSMResp)
	if h.Sequence != w.number {
		w.t.Errorf("%s answers %d", h.Command, h.Sequence)
	}
	return h.Status
}

// page returns the next page written to a phone.
func (w *wire) page() string {
	w.t.Helper()
	_, pdu := w.next(smpp.CmdSubmitSM)
	m, ok := pdu.(*smpp.Message)
	if !ok {
		w.t.Fatalf("got %+v", pdu)
	}
	text, err := gsm.DecodeGSM7(m.ShortMessage)
	if m.DataCoding == 8 {
		text, err = gsm.DecodeUCS2(m.ShortMessage)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return text
}

// Issue 4, bad input: garbage text, inputs of 255 octets, wrong lengths of parameters: an answer or silence, and the link
// lives.
func TestWhateverOctetsComeTheLinkLives(t *testing.T) {
	t.Parallel()
	later := strings.TrimSuffix(laterPage, "\n.")
	const begin, key = "\x05\x01\x00\x01\x01", "\x05\x01\x00\x01\x12"
	session := "\x13\x83\x00\x02\x2a\x00"
	text := func(s string) string { return string([]byte{byte(len(s))}) + s }
	tests := []struct {
		what   string
		change func(*smpp.Message)
		octets string
		status smpp.Status // of the acknowledgement
		want   string      // the page that follows; "" is silence ...
		closed string      // ... or, if the profile closes what is not clear, this
	}{
		{what: "a begin", octets: text("*377*888#") + begin + session, want: menuRU},
		{what: "254 octets that are no text", octets: text(strings.Repeat("\xFE\x1B", 127)) + key + session, want: "Нет такого пункта\n" + menuRU},
		{what: "254 stars", octets: text(strings.Repeat("*", 254)) + key + session, want: "Нет такого пункта\n" + menuRU},
		{what: "254 digits dialled", octets: text(strings.Repeat("9", 254)) + begin + session, want: menuRU},
		{what: "255 octets, one more than there may be", octets: text(strings.Repeat("9", 255)) + begin + session, status: smpp.StatusInvalidMessageLength},
		{what: "255 octets, in the payload", octets: "\x00" + begin + session + "\x04\x24\x00\xFF" + strings.Repeat("9", 255), want: menuRU},
		{what: "a payload of two thousand octets", octets: "\x00" + begin + session + "\x04\x24\x07\xD0" + strings.Repeat("\xD8\x00", 1000), want: menuRU},
		{what: "a text and a payload", octets: text("*377*888*1#") + begin + session + "\x04\x24\x00\x01x", want: balanceRU},
		{what: "an operation longer than the PDU, so that nothing says USSD", octets: text("*377*888#") + "\x05\x01\xFF\xFF\x01", status: smpp.StatusReceiverPermanent},
		{what: "an operation without a value", octets: text("*377*888#") + "\x05\x01\x00\x00", closed: later},
		{what: "an operation of two octets", octets: text("*377*888#") + "\x05\x01\x00\x02\x00\x01", closed: later},
		{what: "a session longer than the PDU", octets: text("*377*888#") + begin + "\x13\x83\x00\x09\x2a\x00", want: menuRU},
		{what: "a session of one octet", octets: text("*377*888*1#") + begin + "\x13\x83\x00\x01\x2a", want: balanceRU},
		{what: "three octets behind the parameters", octets: text("*377*888#") + begin + session + "\x00\x00\x00", want: menuRU},
		{what: "the operation twice", octets: text("*377*888*1#") + begin + session + key, want: balanceRU},
		{
			what: "a validity period that is no time", octets: text("*377*888#") + begin + session, want: menuRU,
			change: func(m *smpp.Message) { m.ValidityPeriod = "dialog 7" }, // the C gateway's own id of the dialogue
		},
		{
			what: "the esm_class of a transaction", octets: text("*377*888*1#") + begin + session, want: balanceRU,
			change: func(m *smpp.Message) { m.ESMClass = 0x02 }, // Eyeline
		},
		{
			what: "a caller who is no number", octets: text("*377*888#") + begin + session,
			closed: "The service is busy. Please try again later.", // of no country
			change: func(m *smpp.Message) { m.Source.Addr = "7" },
		},
	}
	for _, profile := range []string{"plain-its", "closes"} {
		t.Run(profile, func(t *testing.T) {
			t.Parallel()
			w := newWire(t, profile)
			for n, test := range tests {
				source := fmt.Sprintf("790000000%02d", n)
				if strings.HasSuffix(test.octets, key+session) { // a key needs a dialogue
					if status := w.deliver(source, nil, []byte(text("*377*888#")+begin+session)); status != smpp.StatusOK {
						t.Fatalf("%s: a begin before it got %s", test.what, status)
					}
					if got := w.page(); got != menuRU {
						t.Fatalf("%s: before it was shown %q", test.what, got)
					}
				}
				if status := w.deliver(source, test.change, []byte(test.octets)); status != test.status {
					t.Errorf("%s is acknowledged with %s", test.what, status)
				}
				want := test.want
				if want == "" && profile == "closes" {
					want = test.closed
				}
				if want == "" { // what comes next is the page of somebody who asks afterwards
					w.deliver("79000000099", nil, []byte(text(fmt.Sprintf("*377*888*1*%d#", n))+begin+session))
					want = balanceRU
				}
				if got := w.page(); got != want {
					t.Errorf("%s: shown %q, want %q", test.what, got, want)
				}
			}
		})
	}
}

// Issue 4, item 2 and ussd.md 5: no state is tied to a connection; the key comes by the next one and goes on.
func TestADialogueGoesOnWhenItsConnectionIsLost(t *testing.T) {
	t.Parallel()
	goesOn := func(t *testing.T, s *service, operator *smpptest.Operator, lose func()) {
		caller := &handset{t: t, operator: operator, profile: gateways(t)["plain-its"], number: "79000000001"}
		if screen := caller.dial("*377*888#"); screen.Text != menuRU {
			t.Fatalf("shown %q", screen.Text)
		}
		lose()
		if screen := caller.press("1"); screen.Text != balanceRU || !screen.End {
			t.Errorf("by the next connection: shown %q, end %v", screen.Text, screen.End)
		}
		if got := s.Open(); got != 0 {
			t.Errorf("%d dialogues are open", got)
		}
	}
	t.Run("we bind", func(t *testing.T) {
		t.Parallel()
		smsc, address := listen(t, smpptest.OperatorConfig{})
		operator := account
		operator.Mode, operator.Address = carrier.Client, address
		s := serve(t, "plain-its", operator, balance)
		<-s.bound
		goesOn(t, s, smsc.Operator, func() {
			smsc.Cut()
			<-s.bound // that it is lost
			<-s.bound // that it is back
		})
	})
	t.Run("the gateway binds", func(t *testing.T) {
		t.Parallel()
		operator := account
		operator.Mode, operator.Binds = carrier.Server, 2 // the lost one may not have been noticed yet
		s := serve(t, "plain-its", operator, balance)
		gateway := bindTo(t, s, smpptest.OperatorConfig{})
		<-s.bound
		goesOn(t, s, gateway.Operator, func() {
			for _, session := range gateway.Sessions("") {
				session.Kill(errors.New("the line is cut"))
			}
			<-s.bound
			if err := gateway.Bind(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	})
}
