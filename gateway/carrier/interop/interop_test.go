//go:build interop

// Package interop_test lets Zvonok speak with SMPP and mail programs that others wrote, on the loopback, and lets
// Wireshark's dissector read along. What two ends of our own agree upon may still be wrong; here the other end has
// never seen our code:
//
//   - Kannel's bearerbox and smsbox bind to our server as an operator's gateway does;
//   - node-smpp and Net::SMPP are once the operator's SMSC and once the gateway that binds to us;
//   - libsmpp34 takes our PDUs apart and puts them together again;
//   - tshark decodes every octet of those dialogues, and none may be malformed;
//   - mailparser reads letters as a mail program does.
//
// The script .ci/interop installs the programs and runs the tests. A program that is not there is a failure with a
// sentence, never a skip. At the end stands a table of what was tried with which version; it is also left in
// var/interop/transcript.txt.
package interop_test

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"
)

// patience bounds every wait; the programs of others start slowly on a busy machine.
const patience = 60 * time.Second

// workspace is where .ci/interop puts what npm brings and where the transcript is left.
const workspace = "../../../var/interop"

func TestMain(m *testing.M) {
	status := m.Run()
	if table := transcript.table(); table != "" {
		fmt.Print("\n", table)
		if err := os.WriteFile(filepath.Join(workspace, "transcript.txt"), []byte(table), 0o644); err != nil {
			fmt.Println("the transcript cannot be kept:", err)
			status = max(status, 1)
		}
	}
	os.Exit(status)
}

// transcript collects the verdicts of the run.
var transcript ledger

type ledger struct {
	mu   sync.Mutex
	rows []row
}

// row is one line of the transcript.
type row struct{ peer, version, what, verdict string }

// verdict enters what a test tries and, when it has ended, how it went.
func verdict(t *testing.T, peer, version, what string) {
	t.Helper()
	t.Cleanup(func() {
		v := "pass"
		if t.Failed() {
			v = "FAIL"
		}
		transcript.add(row{peer, version, what, v})
	})
}

func (l *ledger) add(r row) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rows = append(l.rows, r)
}

func (l *ledger) table() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.rows) == 0 {
		return ""
	}
	slices.SortStableFunc(l.rows, func(a, b row) int { return cmp.Compare(a.peer, b.peer) })
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PEER\tVERSION\tWHAT\tVERDICT")
	for _, r := range l.rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.peer, r.version, r.what, r.verdict)
	}
	_ = w.Flush() // a strings.Builder takes everything
	return b.String()
}

// program finds a program of somebody else. That it is not there is a failure which the transcript shows.
func program(t *testing.T, peer, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		for _, dir := range []string{"/usr/sbin", "/usr/local/sbin"} {
			if path, err = exec.LookPath(filepath.Join(dir, name)); err == nil {
				break
			}
		}
	}
	if err != nil {
		transcript.add(row{peer, "-", "is not on this machine", "NOT TRIED"})
		t.Fatalf("%s cannot be tried: the program %s is not on this machine; .ci/interop installs it", peer, name)
	}
	return path
}

// firstLine returns the first line a program prints with these arguments that contains a text.
func firstLine(t *testing.T, containing, path string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, containing) {
			return strings.TrimSpace(line)
		}
	}
	t.Fatalf("%s does not tell its version: %v: %s", path, err, out)
	return ""
}
