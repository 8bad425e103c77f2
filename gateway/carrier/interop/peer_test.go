//go:build interop

package interop_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is a running program of somebody else. It is ended with the test.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	ended chan struct{}

	mu  sync.Mutex
	log bytes.Buffer // what it wrote for people
}

// Write takes what the program writes for people; the test shows it when it fails.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

// untilSays waits until the program has written a text for people; it looks again and again, since a log tells nobody.
func (p *process) untilSays(text string) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		p.mu.Lock()
		said := bytes.Contains(p.log.Bytes(), []byte(text))
		p.mu.Unlock()
		if said {
			return
		}
	}
	p.t.Fatalf("%s: waited in vain for %q", filepath.Base(p.cmd.Path), text)
}

// run starts a program. Without stdin it reads nothing, without stdout what it prints counts as written for people.
func run(t *testing.T, stdin, stdout *os.File, path string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(path, args...), ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p, p
	if stdin != nil {
		p.cmd.Stdin = stdin
	}
	if stdout != nil {
		p.cmd.Stdout = stdout
	}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // nothing is left when a test panics
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { defer close(p.ended); _ = p.cmd.Wait() }()
	t.Cleanup(func() {
		p.end()
		if t.Failed() {
			p.mu.Lock()
			defer p.mu.Unlock()
			t.Logf("%s wrote:\n%s", filepath.Base(path), p.log.String())
		}
	})
	return p
}

// end asks the program to end, and makes it.
func (p *process) end() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

// event is one line of a peer script: what happened at its end of the link.
type event struct {
	Event   string `json:"event"`
	Version string `json:"version"` // hello
	Port    int    `json:"port"`    // listening
	As      string `json:"as"`      // bound: transceiver, transmitter, receiver
	Command string `json:"command"` // answered
	Status  int    `json:"status"`
	ID      string `json:"id"`    // answered, receipt
	State   string `json:"state"` // receipt, answered query_sm
	From    string `json:"from"`
	To      string `json:"to"`
	Text    string `json:"text"`
	Parts   int    `json:"parts"` // text: joined from so many PDUs
	Op      int    `json:"op"`    // ussd
	Info    string `json:"info"`  // ussd: its_session_info in hexadecimal
}

// order is one line to a peer script: what it is to do.
type order struct {
	Do      string `json:"do"` // text, receipt, dial, query, enquire, unbind
	From    string `json:"from,omitempty"`
	To      string `json:"to,omitempty"`
	Text    string `json:"text,omitempty"`
	Method  string `json:"method,omitempty"` // of a text: plain, udh8, udh16, sar, payload
	ID      string `json:"id,omitempty"`
	Session int    `json:"session,omitempty"`
	Op      int    `json:"op,omitempty"`
}

// peer is a script of testdata around somebody else's SMPP library. It is told what to do by lines of JSON and tells
// what happens in the same way.
type peer struct {
	*process
	name, version string
	stdin         *os.File

	heard   sync.Mutex
	changed chan struct{}
	events  []event
}

// startPeer starts a script and waits for its hello.
func startPeer(t *testing.T, name, path string, args ...string) *peer {
	t.Helper()
	in, stdin, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, stdout, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{name: name, stdin: stdin, changed: make(chan struct{})}
	t.Cleanup(func() { stdin.Close(); out.Close() })
	t.Cleanup(func() {
		if p.version == "" {
			transcript.add(row{name, "-", "does not start on this machine", "NOT TRIED"})
		}
	})
	go p.listen(out)
	p.process = run(t, in, stdout, path, args...)
	in.Close()
	stdout.Close()
	p.version = p.until("its hello", 1, func(e event) bool { return e.Event == "hello" }).Version
	return p
}

func (p *peer) listen(out io.Reader) {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			e = event{Event: "unreadable", Text: lines.Text()}
		}
		p.heard.Lock()
		p.events = append(p.events, e)
		close(p.changed)
		p.changed = make(chan struct{})
		p.heard.Unlock()
	}
}

// tell gives the peer an order.
func (p *peer) tell(o order) {
	p.t.Helper()
	line, err := json.Marshal(o)
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.stdin.Write(append(line, '\n')); err != nil {
		p.t.Fatalf("%s takes no orders: %v", p.name, err)
	}
}

// until waits until n events of a kind have happened since the start and returns the n-th.
func (p *peer) until(what string, n int, is func(event) bool) event {
	p.t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		p.heard.Lock()
		found, changed, all := p.count(is), p.changed, p.events
		p.heard.Unlock()
		if len(found) >= n {
			return found[n-1]
		}
		select {
		case <-changed:
		case <-p.ended:
			p.t.Fatalf("%s ended before %s", p.name, what)
		case <-timer.C:
			p.t.Fatalf("%s: waited in vain for %s; it told %+v", p.name, what, all)
		}
	}
}

func (p *peer) count(is func(event) bool) []event {
	var found []event
	for _, e := range p.events {
		if is(e) {
			found = append(found, e)
		}
	}
	return found
}

// times returns how many events of a kind have happened so far.
func (p *peer) times(is func(event) bool) int {
	p.heard.Lock()
	defer p.heard.Unlock()
	return len(p.count(is))
}

func named(name string) func(event) bool { return func(e event) bool { return e.Event == name } }

// answer is an event of the peer's: its request got an answer.
func answer(command string) func(event) bool {
	return func(e event) bool { return e.Event == "answered" && e.Command == command }
}

// freePort returns a port that was free a moment ago, for a program that does not tell which one it took.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
