//go:build interop

package interop_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"text/template"
	"time"
	"unicode/utf16"

	"zvonok/gateway/carrier"
	"zvonok/gateway/smpp"
)

// kannel is bearerbox and smsbox with the HTTP service they report to.
type kannel struct {
	t                 *testing.T
	version           string
	bearerbox, smsbox *process
	sendSMS           int    // port
	folder            string // of its logs
	callback          string // our HTTP service

	mu      sync.Mutex
	changed chan struct{}
	told    []*url.URL
}

// startKannel starts both boxes against an SMPP server of ours.
func startKannel(t *testing.T, port int) *kannel {
	t.Helper()
	bearerbox, smsbox := program(t, "Kannel", "bearerbox"), program(t, "Kannel", "smsbox")
	version := strings.Trim(firstLine(t, "version", bearerbox, "--version"), "Kanel bxrvsio`'.")
	k := &kannel{t: t, version: version, sendSMS: freePort(t), changed: make(chan struct{})}
	callback := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.told = append(k.told, r.URL)
		close(k.changed)
		k.changed = make(chan struct{})
		w.Header().Set("Content-Type", "text/plain")
	}))
	t.Cleanup(callback.Close)
	k.callback = callback.URL
	k.folder = t.TempDir()
	config := filepath.Join(k.folder, "kannel.conf")
	file, err := os.Create(config)
	if err != nil {
		t.Fatal(err)
	}
	box := freePort(t)
	err = template.Must(template.ParseFiles(filepath.Join("testdata", "kannel.conf"))).Execute(file, map[string]any{
		"Admin": freePort(t), "Smsbox": box, "SMPP": port, "SendSMS": k.sendSMS, "Folder": k.folder,
		"Callback": callback.Listener.Addr().String(),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	k.bearerbox = run(t, nil, nil, bearerbox, "-v", "1", config)
	k.await(box)
	k.smsbox = run(t, nil, nil, smsbox, "-v", "1", config)
	k.smsbox.untilSays("Connected to bearerbox") // a request that comes before makes it panic
	return k
}

// await waits until something of Kannel's listens on a port.
func (k *kannel) await(port int) {
	k.t.Helper()
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		conn, err := net.Dial("tcp", loopback(port))
		if err == nil {
			conn.Close()
			return
		}
		time.Sleep(50 * time.Millisecond) // between tries: Kannel does not say when it listens
	}
	k.t.Fatalf("nothing of Kannel listens on port %d", port)
}

// submit hands a text to smsbox and asks to be told what becomes of it: the kind of report and our message id.
func (k *kannel) submit(from, to, text string) {
	k.t.Helper()
	client := http.Client{Timeout: patience}
	resp, err := client.Get("http://" + loopback(k.sendSMS) + "/cgi-bin/sendsms?" + url.Values{
		"username": {"interop"}, "password": {"interop"}, "from": {from}, "to": {to}, "text": {text},
		"coding": {"2"}, "charset": {"UTF-8"}, "dlr-mask": {"31"},
		"dlr-url": {k.callback + "/report?from=" + from + "&kind=%d&id=%F"},
	}.Encode())
	if err != nil {
		k.t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusAccepted {
		k.t.Fatalf("smsbox says %s: %s", resp.Status, body)
	}
}

// until waits for a request of Kannel's to our HTTP service.
func (k *kannel) until(what string, is func(path string, q url.Values) bool) url.Values {
	k.t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	seen := 0
	for {
		k.mu.Lock()
		told, changed := k.told, k.changed
		k.mu.Unlock()
		for _, u := range told[seen:] {
			if is(u.Path, u.Query()) {
				return u.Query()
			}
		}
		seen = len(told)
		select {
		case <-changed:
		case <-timer.C:
			k.t.Fatalf("Kannel: waited in vain for %s; it told %v", what, told)
		}
	}
}

// Kinds of Kannel's delivery reports.
const (
	reportDelivered = "1"
	reportAccepted  = "8"
)

func TestKannelBindsToOurServerAsAnOperatorsGateway(t *testing.T) {
	b, server, port := serving(t)
	capture := startCapture(t, port)
	k := startKannel(t, port)
	b.untilReady("local")
	t.Run("its long text is joined right here", func(t *testing.T) {
		verdict(t, "Kannel", k.version, "bearerbox binds as transceiver, its long UCS-2 submit joined here")
		b.t, k.t = t, t
		k.submit("79000000051", "377", longText)
		if got := b.textFrom("79000000051"); got.Text != longText || got.To.Addr != "377" || got.Incomplete {
			t.Errorf("joined %+v", got)
		}
	})
	t.Run("a receipt of ours is reported to its sender", func(t *testing.T) {
		verdict(t, "Kannel", k.version, "our receipt matched there by our message id")
		b.t, k.t = t, t
		k.submit("79000000052", "377", "Маша")
		if got := b.textFrom("79000000052"); got.Text != "Маша" {
			t.Errorf("got %+v", got)
		}
		id := k.until("the report that we took it", func(path string, q url.Values) bool {
			return path == "/report" && q.Get("from") == "79000000052" && q.Get("kind") == reportAccepted
		}).Get("id")
		sendReceipt(t, server, id, "79000000052")
		k.until("the report of the delivery", func(path string, q url.Values) bool {
			return path == "/report" && q.Get("from") == "79000000052" && q.Get("kind") == reportDelivered
		})
	})
	t.Run("our long text is joined right there", func(t *testing.T) {
		verdict(t, "Kannel", k.version, "our long UCS-2 deliver_sm joined there")
		b.t, k.t = t, t
		if r := b.send("local", "79000000053", longText); r.Class != carrier.OK || len(r.Parts) != 3 {
			t.Errorf("got %+v", r)
		}
		got := k.until("the text", func(path string, q url.Values) bool {
			return path == "/text" && q.Get("to") == "+79000000053"
		})
		if text := utf16BE(t, got.Get("body")); text != longText || got.Get("from") != "SCHOOL" {
			t.Errorf("it joined %q in %v", text, got)
		}
	})
	t.Run("our text of the extension table arrives letter by letter", func(t *testing.T) {
		verdict(t, "Kannel", k.version, "our GSM deliver_sm with extension table")
		b.t, k.t = t, t
		if r := b.send("local", "79000000054", latinText); r.Class != carrier.OK || len(r.Parts) != 1 {
			t.Errorf("got %+v", r)
		}
		got := k.until("the text", func(path string, q url.Values) bool {
			return path == "/text" && q.Get("to") == "+79000000054"
		})
		if got.Get("body") != latinText {
			t.Errorf("it read %q in %v", got.Get("body"), got)
		}
	})
	t.Run("each end asks whether the other lives and is answered", func(t *testing.T) {
		verdict(t, "Kannel", k.version, "enquire_link both ways")
		b.t = t
		// Its log names each PDU it sends and gets; which end sent which the dissector tells below.
		for _, pdu := range []string{"type_name: enquire_link\n", "type_name: enquire_link_resp\n"} {
			b.until("an enquire_link of Kannel's", func() bool {
				log, _ := os.ReadFile(filepath.Join(k.folder, "bearerbox.log"))
				return bytes.Contains(log, []byte("Sending enquire link")) && bytes.Contains(log, []byte(pdu))
			})
		}
	})
	t.Run("our unbind is answered and it binds again", func(t *testing.T) {
		verdict(t, "Kannel", k.version, "unbind by us, answered, bound again")
		b.t, k.t = t, t
		closeSession(t, server)
		b.until("the end of the link", func() bool { return len(b.ups) >= 2 })
		b.untilReady("local")
		k.submit("79000000055", "377", "Маша")
		b.textFrom("79000000055")
	})
	t.Run("its unbind is answered", func(t *testing.T) {
		verdict(t, "Kannel", k.version, "unbind by it, answered")
		b.t, k.t = t, t
		k.bearerbox.end()
		b.until("the end of the link", func() bool { return !b.Ready("local") })
	})
	b.t, k.t = t, t
	dissect(t, capture, "Kannel as client", func(d *dialogue) {
		d.wants(initiator, uint32(smpp.CmdBindTransceiver), 2, "bind_transceiver")
		d.wants(initiator, uint32(smpp.CmdSubmitSM), 4, "submit_sm")
		d.wants(listener, uint32(smpp.CmdDeliverSM), 5, "deliver_sm")
		d.bothWays(uint32(smpp.CmdEnquireLink), "enquire_link")
		d.bothWays(uint32(smpp.CmdUnbind), "unbind")
		d.readsCyrillic()
	})
}

// utf16BE reads a text as Kannel hands on UCS-2.
func utf16BE(t *testing.T, octets string) string {
	t.Helper()
	if len(octets)%2 != 0 {
		t.Errorf("half a character in %x", octets)
	}
	units := make([]uint16, 0, len(octets)/2)
	for i := 0; i+1 < len(octets); i += 2 {
		units = append(units, uint16(octets[i])<<8|uint16(octets[i+1]))
	}
	return string(utf16.Decode(units))
}
