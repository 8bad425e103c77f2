//go:build interop

package interop_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// capture is dumpcap listening to one port of the loopback. It has captured everything between two datagrams of ours to
// the same port, which nobody reads.
type capture struct {
	t       *testing.T
	file    string
	port    int
	process *process
}

const (
	captureBegins = "interop: the capture begins here"
	captureEnds   = "interop: the capture ends here"
)

// startCapture returns when the capture has begun.
func startCapture(t *testing.T, port int) *capture {
	t.Helper()
	dumpcap := program(t, "Wireshark", "dumpcap")
	c := &capture{t: t, file: filepath.Join(t.TempDir(), "smpp.pcapng"), port: port}
	filter := fmt.Sprintf("tcp port %d or udp port %d", port, port)
	c.process = run(t, nil, nil, dumpcap, "-q", "-i", "lo", "-f", filter, "-w", c.file)
	c.mark(captureBegins)
	return c
}

// mark sends datagrams with a text until the capture has one.
func (c *capture) mark(text string) {
	c.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		conn, err := net.Dial("udp", loopback(c.port))
		if err != nil {
			c.t.Fatal(err)
		}
		_, _ = conn.Write([]byte(text)) // a refusal of the datagram before is told here
		conn.Close()
		if content, _ := os.ReadFile(c.file); bytes.Contains(content, []byte(text)) {
			return
		}
		select {
		case <-c.process.ended:
			transcript.add(row{"Wireshark", "-", "dumpcap cannot capture on the loopback", "NOT TRIED"})
			c.t.Fatal("dumpcap cannot capture on the loopback here: is this user allowed to?")
		case <-time.After(100 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			c.t.Fatal("the capture does not hear the loopback")
		}
	}
}

// dialogue is what the dissector makes of a capture.
type dialogue struct {
	t       *testing.T
	pdus    int
	seen    map[sent]int
	texts   []string // short_message and message_payload as the dissector reads them
	refused []string // command_status other than 0
	wrong   []string // malformed PDUs, warnings of the dissector, octets that are no SMPP
}

// sent is a kind of PDU in one direction.
type sent struct {
	from    end
	command uint32
}

// end is one end of the captured port.
type end bool

const (
	listener  end = true  // the end that is bound to
	initiator end = false // the end that binds
)

func (e end) String() string {
	if e == listener {
		return "the end that was bound to"
	}
	return "the end that bound"
}

// Values of the dissector's expert information.
const (
	expertWarning  = 0x00600000 // severity
	expertSequence = 0x02000000 // group: TCP's own matters, such as a retransmission
)

// fields are what the dissector is asked for.
var fields = []string{
	"tcp.srcport", "tcp.len", "frame.protocols", "tcp.reassembled_in", "tcp.payload", "tcp.analysis.retransmission",
	"smpp.command_id", "smpp.command_status", "smpp.message_text",
	"_ws.malformed", "_ws.expert.severity", "_ws.expert.group", "_ws.expert.message",
}

// stop ends the capture and has it read.
func (c *capture) stop() *dialogue {
	c.t.Helper()
	c.mark(captureEnds)
	_ = c.process.cmd.Process.Signal(syscall.SIGINT)
	<-c.process.ended
	args := []string{
		"-n", "-2", "-r", c.file, "-Y", "tcp", "-d", fmt.Sprintf("tcp.port==%d,smpp", c.port),
		"-o", "tcp.check_checksum:FALSE", "-T", "fields",
		"-E", "separator=/t", "-E", "occurrence=a", "-E", "aggregator=\x1f",
	}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	out, err := exec.Command(program(c.t, "Wireshark", "tshark"), args...).Output()
	if err != nil {
		c.t.Fatalf("the dissector: %v", err)
	}
	d := &dialogue{t: c.t, seen: make(map[sent]int)}
	for line := range strings.Lines(string(out)) {
		d.read(strings.Split(strings.TrimSuffix(line, "\n"), "\t"), c.port)
	}
	return d
}

// read takes one packet: the values of fields, each a list.
func (d *dialogue) read(values []string, port int) {
	value := make(map[string]string)
	for i, f := range fields {
		if i < len(values) {
			value[f] = values[i]
		}
	}
	list := func(f string) []string {
		if value[f] == "" {
			return nil
		}
		return strings.Split(value[f], "\x1f")
	}
	from := end(value["tcp.srcport"] == strconv.Itoa(port))
	for _, id := range list("smpp.command_id") {
		command, err := strconv.ParseUint(id, 0, 32)
		if err != nil {
			d.wrong = append(d.wrong, "unreadable command_id "+id)
		}
		d.pdus++
		d.seen[sent{from, uint32(command)}]++
	}
	for _, status := range list("smpp.command_status") {
		if n, err := strconv.ParseUint(status, 0, 32); err != nil || n != 0 {
			d.refused = append(d.refused, status)
		}
	}
	d.texts = append(d.texts, list("smpp.message_text")...)
	for _, m := range list("_ws.malformed") {
		d.wrong = append(d.wrong, "malformed: "+m)
	}
	severities, groups, messages := list("_ws.expert.severity"), list("_ws.expert.group"), list("_ws.expert.message")
	for i := range severities {
		severity, _ := strconv.ParseUint(severities[i], 0, 32)
		group := uint64(0)
		if i < len(groups) {
			group, _ = strconv.ParseUint(groups[i], 0, 32)
		}
		if severity >= expertWarning && group != expertSequence {
			d.wrong = append(d.wrong, fmt.Sprintf("%v: %s", messages, value["frame.protocols"]))
		}
	}
	// What is sent again by TCP is not decoded again, and what is half a PDU is decoded with its other half.
	again, half := value["tcp.analysis.retransmission"] != "", value["tcp.reassembled_in"] != ""
	if value["tcp.len"] != "0" && !strings.Contains(value["frame.protocols"], ":smpp") && !again && !half {
		d.wrong = append(d.wrong, fmt.Sprintf("octets that are no SMPP: %s %q", value["tcp.payload"], messages))
	}
}

// wants demands that the dissector has seen at least so many PDUs of a kind.
func (d *dialogue) wants(from end, command uint32, atLeast int, name string) {
	d.t.Helper()
	if got := d.seen[sent{from, command}]; got < atLeast {
		d.t.Errorf("the dissector saw %d %s from %s, want %d or more", got, name, from, atLeast)
	}
}

// bothWays demands a request of each end and as many answers.
func (d *dialogue) bothWays(command uint32, name string) {
	d.t.Helper()
	for _, from := range []end{initiator, listener} {
		d.wants(from, command, 1, name)
		d.wants(!from, command|0x80000000, d.seen[sent{from, command}]-1, name+"_resp") // the last may be cut off
		d.wants(!from, command|0x80000000, 1, name+"_resp")
	}
}

// clean demands that nothing was malformed and nothing was refused.
func (d *dialogue) clean() {
	d.t.Helper()
	if d.pdus == 0 {
		d.t.Error("the dissector saw no PDU")
	}
	if len(d.wrong) > 0 {
		d.t.Errorf("the dissector objects: %q", d.wrong)
	}
	if len(d.refused) > 0 {
		d.t.Errorf("refused with command_status %q", d.refused)
	}
}

// wiresharkVersion is asked for once.
var wiresharkVersion = sync.OnceValue(func() string {
	out, _ := exec.Command("tshark", "--version").Output()
	for line := range strings.Lines(string(out)) {
		if rest, ok := strings.CutPrefix(line, "TShark (Wireshark) "); ok {
			version, _, _ := strings.Cut(rest, " ")
			return strings.TrimSuffix(version, ".\n")
		}
	}
	return "?"
})

// dissect stops the capture and enters the dissector's verdict about a dialogue.
func dissect(t *testing.T, c *capture, peer string, check func(*dialogue)) {
	t.Helper()
	t.Run("the dissector finds every PDU in order", func(t *testing.T) {
		c.t = t
		d := c.stop()
		verdict(t, "Wireshark", wiresharkVersion(), fmt.Sprintf("%d PDUs with %s, none malformed or refused", d.pdus, peer))
		d.clean()
		check(d)
	})
}

// The control of all verdicts of the dissector: it does object when there is something to object to.
func TestTheDissectorSeesAMalformedPDU(t *testing.T) {
	verdict(t, "Wireshark", wiresharkVersion(), "a submit_sm whose text is shorter than its length is seen as malformed")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := startCapture(t, l.Addr().(*net.TCPAddr).Port)
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	pdu := []byte{
		0, 0, 0, 34, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1, // header of a submit_sm
		0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // everything empty
		0, 200, // 200 octets of text, of which none comes
	}
	if _, err := conn.Write(pdu); err != nil {
		t.Fatal(err)
	}
	if d := c.stop(); len(d.wrong) == 0 {
		t.Errorf("it found nothing wrong with %x: %+v", pdu, d.seen)
	}
}
