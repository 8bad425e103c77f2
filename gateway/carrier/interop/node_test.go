//go:build interop

package interop_test

import (
	"path/filepath"
	"strconv"
	"testing"

	"zvonok/access/phone"
	"zvonok/gateway/carrier"
	"zvonok/gateway/smpp"
)

// startNode starts node-smpp as "listen" or "connect PORT".
func startNode(t *testing.T, args ...string) *peer {
	t.Helper()
	node := program(t, "node-smpp", "node")
	return startPeer(t, "node-smpp", node, append([]string{filepath.Join("testdata", "smpp.js"), workspace}, args...)...)
}

// startPerl starts Net::SMPP as "listen" or "connect PORT".
func startPerl(t *testing.T, args ...string) *peer {
	t.Helper()
	perl := program(t, "Net::SMPP", "perl")
	return startPeer(t, "Net::SMPP", perl, append([]string{filepath.Join("testdata", "smpp.pl")}, args...)...)
}

var methods = []carrier.Method{carrier.UDH8, carrier.UDH16, carrier.SAR, carrier.Payload}

// SMSCs of somebody else, to which we bind as their client.
func TestWeBindToAnOperatorThatSomebodyElseWrote(t *testing.T) {
	for _, foreign := range []struct {
		name  string
		start func(*testing.T, ...string) *peer
	}{{"node-smpp", startNode}, {"Net::SMPP", startPerl}} {
		t.Run(foreign.name, func(t *testing.T) {
			p := foreign.start(t, "listen")
			port := p.until("its port", 1, named("listening")).Port
			capture := startCapture(t, port)
			for _, method := range methods {
				t.Run("a long text by "+string(method)+" is joined right there and its receipts are matched here", func(t *testing.T) {
					verdict(t, p.name, p.version, "server: long UCS-2 text by "+string(method)+" joined, receipts matched, unbind")
					sendsAndIsUnbound(t, p, port, method)
				})
			}
			b := newBox(t, client("mts", port, carrier.UDH16))
			b.untilReady("mts")
			t.Run("a text of the extension table arrives letter by letter", func(t *testing.T) {
				verdict(t, p.name, p.version, "server: GSM text with extension table")
				b.t, p.t = t, t
				r := b.send("mts", "79000000011", latinText)
				if r.Class != carrier.OK || len(r.Parts) != 1 {
					t.Errorf("got %+v", r)
				}
				got := p.until("the text", 1, func(e event) bool { return e.Event == "text" && e.To == "79000000011" })
				if got.Text != latinText {
					t.Errorf("it read %q", got.Text)
				}
				b.untilDelivered(r)
			})
			textsReachUs(t, p, b, "mts", "server")
			t.Run("a USSD dialogue goes back and forth", func(t *testing.T) {
				verdict(t, p.name, p.version, "server: USSD begin, menu, choice, last screen with TLVs")
				b.t, p.t = t, t
				dialogueOverUSSD(t, p, b)
			})
			t.Run("each end asks whether the other lives and is answered", func(t *testing.T) {
				verdict(t, p.name, p.version, "server: enquire_link both ways")
				b.t, p.t = t, t
				asksBothWays(t, p)
			})
			t.Run("an unbind of the operator is answered and we bind again", func(t *testing.T) {
				verdict(t, p.name, p.version, "server: unbind by it, answered, bound again")
				b.t, p.t = t, t
				before := p.times(named("bound"))
				p.tell(order{Do: "unbind"})
				if got := p.until("the answer to its unbind", 1, answer("unbind")); got.Status != 0 {
					t.Errorf("answered with %#x", got.Status)
				}
				p.until("the next bind", before+1, named("bound"))
				b.untilReady("mts")
			})
			b.t = t
			b.stop()
			p.t = t
			dissect(t, capture, p.name+" as server", func(d *dialogue) {
				d.wants(initiator, uint32(smpp.CmdBindTransceiver), len(methods)+2, "bind_transceiver")
				d.wants(initiator, uint32(smpp.CmdSubmitSM), 13, "submit_sm")
				d.wants(listener, uint32(smpp.CmdDeliverSM), 10, "deliver_sm")
				d.bothWays(uint32(smpp.CmdEnquireLink), "enquire_link")
				d.bothWays(uint32(smpp.CmdUnbind), "unbind")
				d.readsCyrillic()
			})
		})
	}
}

// sendsAndIsUnbound binds for one long text, waits for its receipts and unbinds.
func sendsAndIsUnbound(t *testing.T, p *peer, port int, method carrier.Method) {
	p.t = t
	unbound := p.times(named("unbound"))
	b := newBox(t, client(string(method), port, method))
	b.untilReady(string(method))
	to := phone.Number("7900000010" + strconv.Itoa(len(method)+unbound))
	r := b.send(string(method), to, longText)
	want := 3
	if method == carrier.Payload {
		want = 1
	}
	if r.Class != carrier.OK || len(r.Parts) != want {
		t.Errorf("got %+v, want %d parts", r, want)
	}
	got := p.until("the joined text", 1, func(e event) bool { return e.Event == "text" && e.To == string(to) })
	if got.Text != longText || got.From != "SCHOOL" || got.Parts != want {
		t.Errorf("it joined %+v", got)
	}
	b.untilDelivered(r)
	b.stop()
	p.until("our unbind", unbound+1, named("unbound"))
}

// textsReachUs lets the peer send a text of the GSM alphabet and a long one by each method.
func textsReachUs(t *testing.T, p *peer, b *box, operator, role string) {
	t.Run("its text of the extension table is read letter by letter", func(t *testing.T) {
		verdict(t, p.name, p.version, role+": its GSM text with extension table")
		b.t, p.t = t, t
		p.tell(order{Do: "text", From: "79000000029", To: "377", Text: latinText, Method: "plain"})
		if got := b.textFrom("79000000029"); got.Text != latinText {
			t.Errorf("read %q", got.Text)
		}
	})
	for i, method := range methods {
		t.Run("its long text by "+string(method)+" is joined right here", func(t *testing.T) {
			verdict(t, p.name, p.version, role+": its long text by "+string(method)+" joined here")
			b.t, p.t = t, t
			from := phone.Number("7900000002" + strconv.Itoa(i))
			command := "submit_sm"
			if role == "server" {
				command = "deliver_sm"
			}
			p.tell(order{Do: "text", From: string(from), To: "377", Text: longText, Method: string(method)})
			got := b.textFrom(from)
			if got.Text != longText || got.Operator != operator || got.To.Addr != "377" || got.Incomplete {
				t.Errorf("joined %+v", got)
			}
			if a := p.until("our answer", 1, answer(command)); a.Status != 0 {
				t.Errorf("answered with %#x", a.Status)
			}
		})
	}
}

// A pair of binds: what we send goes by one, what the operator sends comes by the other.
func TestReceiptsComeByTheReceiverOfAPairOfBinds(t *testing.T) {
	p := startNode(t, "listen")
	port := p.until("its port", 1, named("listening")).Port
	verdict(t, p.name, p.version, "server: a transmitter and a receiver in place of a transceiver")
	capture := startCapture(t, port)
	account := client("mts", port, carrier.UDH16)
	account.Pair = true
	b := newBox(t, account)
	for _, as := range []string{"transmitter", "receiver"} {
		p.until("the bind as "+as, 1, func(e event) bool { return e.Event == "bound" && e.As == as && e.Status == 0 })
	}
	b.untilReady("mts")
	r := b.send("mts", "79000000061", longText)
	if r.Class != carrier.OK {
		t.Errorf("got %+v", r)
	}
	if got := p.until("the text", 1, named("text")); got.Text != longText {
		t.Errorf("it joined %+v", got)
	}
	b.untilDelivered(r)
	b.stop()
	p.until("both unbinds", 2, named("unbound"))
	dissect(t, capture, p.name+" and a pair of binds", func(d *dialogue) {
		d.wants(initiator, uint32(smpp.CmdBindTransmitter), 1, "bind_transmitter")
		d.wants(initiator, uint32(smpp.CmdBindReceiver), 1, "bind_receiver")
		d.wants(initiator, uint32(smpp.CmdUnbind), 2, "unbind")
		d.wants(listener, uint32(smpp.CmdUnbind.Response()), 2, "unbind_resp")
		d.readsCyrillic()
	})
}

// USSD operations (SMPP 3.4 section 5.3.2.44).
const (
	pssrIndication = 1
	ussrRequest    = 2
	pssrResponse   = 17
	ussrConfirm    = 18
)

// dialogueOverUSSD is a menu, a choice and a last screen.
func dialogueOverUSSD(t *testing.T, p *peer, b *box) {
	const from = "79000000031"
	ucs2 := []byte{0x04, 0x1C, 0x04, 0x30, 0x04, 0x48, 0x04, 0x30} // Маша
	p.tell(order{Do: "dial", From: from, To: "*377#", Op: pssrIndication, Session: 9})
	d := b.dialFrom(from, pssrIndication)
	if d.Text != "*377#" || d.Destination.Addr != "*377#" {
		t.Errorf("dialled %+v", d)
	}
	b.answerDial(d, ussrRequest, 0, []byte("1 Masha"))
	menu := p.until("the menu", 1, func(e event) bool { return e.Event == "ussd" && e.Op == ussrRequest })
	if menu.Text != "1 Masha" || menu.To != from || menu.Info != "0900" {
		t.Errorf("the menu came as %+v", menu)
	}
	p.tell(order{Do: "dial", From: from, To: "*377#", Op: ussrConfirm, Session: 9, Text: "1"})
	choice := b.dialFrom(from, ussrConfirm)
	if choice.Text != "1" {
		t.Errorf("the choice is %+v", choice)
	}
	b.answerDial(choice, pssrResponse, 8, ucs2)
	if last := p.until("the last screen", 1, func(e event) bool {
		return e.Event == "ussd" && e.Op == pssrResponse
	}); last.Text != "Маша" || last.Info != "0900" {
		t.Errorf("the last screen came as %+v", last)
	}
}

// asksBothWays waits for an enquire_link of ours and sends one of the peer's.
func asksBothWays(t *testing.T, p *peer) {
	p.until("our enquire_link", p.times(named("enquired"))+1, named("enquired"))
	p.tell(order{Do: "enquire"})
	if got := p.until("our answer to its enquire_link", 1, answer("enquire_link")); got.Status != 0 {
		t.Errorf("answered with %#x", got.Status)
	}
}

// Gateways of somebody else, which bind to our server.
func TestAGatewayThatSomebodyElseWroteBindsToUs(t *testing.T) {
	for _, foreign := range []struct {
		name  string
		start func(*testing.T, ...string) *peer
	}{{"node-smpp", startNode}, {"Net::SMPP", startPerl}} {
		t.Run(foreign.name, func(t *testing.T) {
			b, server, port := serving(t)
			capture := startCapture(t, port)
			p := foreign.start(t, "connect", strconv.Itoa(port))
			if got := p.until("its bind", 1, named("bound")); got.Status != 0 {
				t.Fatalf("the bind was answered with %#x", got.Status)
			}
			b.untilReady("local")
			t.Run("our long text is joined right there", func(t *testing.T) {
				verdict(t, p.name, p.version, "client: our long UCS-2 text joined there")
				b.t, p.t = t, t
				if r := b.send("local", "79000000041", longText); r.Class != carrier.OK || len(r.Parts) != 3 {
					t.Errorf("got %+v", r)
				}
				if got := p.until("the text", 1, named("text")); got.Text != longText || got.From != "SCHOOL" {
					t.Errorf("it joined %+v", got)
				}
			})
			textsReachUs(t, p, b, "local", "client")
			t.Run("a text we accepted can be asked for", func(t *testing.T) {
				verdict(t, p.name, p.version, "client: query_sm of what we accepted")
				p.t = t
				id := p.until("an id of ours", 1, answer("submit_sm")).ID
				p.tell(order{Do: "query", ID: id})
				if got := p.until("the state", 1, answer("query_sm")); got.Status != 0 || got.State != "2" || got.ID != id {
					t.Errorf("asked for %s, got %+v", id, got)
				}
			})
			t.Run("a receipt of ours is understood", func(t *testing.T) {
				verdict(t, p.name, p.version, "client: our receipt understood")
				p.t = t
				id := p.until("an id of ours", 1, answer("submit_sm")).ID
				sendReceipt(t, server, id, "79000000020")
				if got := p.until("the receipt", 1, named("receipt")); got.ID != id || got.State != "DELIVRD" {
					t.Errorf("got %+v", got)
				}
			})
			t.Run("a USSD dialogue goes back and forth", func(t *testing.T) {
				verdict(t, p.name, p.version, "client: USSD begin, menu, choice, last screen with TLVs")
				b.t, p.t = t, t
				dialogueOverUSSD(t, p, b)
			})
			t.Run("each end asks whether the other lives and is answered", func(t *testing.T) {
				verdict(t, p.name, p.version, "client: enquire_link both ways")
				p.t = t
				asksBothWays(t, p)
			})
			t.Run("its unbind is answered", func(t *testing.T) {
				verdict(t, p.name, p.version, "client: unbind by it, answered")
				b.t, p.t = t, t
				p.tell(order{Do: "unbind"})
				if got := p.until("our answer", 1, answer("unbind")); got.Status != 0 {
					t.Errorf("answered with %#x", got.Status)
				}
				b.until("the end of the link", func() bool { return !b.Ready("local") })
			})
			t.Run("our unbind is answered", func(t *testing.T) {
				verdict(t, p.name, p.version, "client: unbind by us, answered")
				again := foreign.start(t, "connect", strconv.Itoa(port))
				again.until("its bind", 1, named("bound"))
				b.t = t
				b.untilReady("local")
				closeSession(t, server)
				again.until("our unbind", 1, named("unbound"))
			})
			b.t, p.t = t, t
			dissect(t, capture, p.name+" as client", func(d *dialogue) {
				d.wants(initiator, uint32(smpp.CmdBindTransceiver), 2, "bind_transceiver")
				d.wants(initiator, uint32(smpp.CmdSubmitSM), 13, "submit_sm")
				d.wants(listener, uint32(smpp.CmdDeliverSM), 6, "deliver_sm")
				d.wants(initiator, uint32(smpp.CmdQuerySM), 1, "query_sm")
				d.bothWays(uint32(smpp.CmdEnquireLink), "enquire_link")
				d.bothWays(uint32(smpp.CmdUnbind), "unbind")
				d.readsCyrillic()
			})
		})
	}
}
