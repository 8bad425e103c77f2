package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"zvonok/cmd/zvonok-operator/phones"
)

// asProgram makes the test binary be the program itself, so that the tests run
// it as a process of its own, with the race detector.
const asProgram = "ZVONOK_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(run(os.Args[1:], os.Stdout, os.Stderr, environmentOfProgram()))
	}
	os.Exit(m.Run())
}

func environmentOfProgram() []string {
	var environ []string
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "ZVONOK_TEST_") {
			environ = append(environ, entry)
		}
	}
	return environ
}

// patience bounds every wait of these tests; a wait ends as soon as what is
// waited for has happened.
const patience = 60 * time.Second

// program is a running zvonok.
type program struct {
	t       testing.TB
	command *exec.Cmd
	ready   readyFile
	stderr  *tail
	exited  chan struct{}
}

// tail keeps the end of what a process writes.
type tail struct {
	mu   sync.Mutex
	data []byte
}

func (b *tail) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.data = append(b.data, p...)
	if extra := len(b.data) - 64<<10; extra > 0 {
		b.data = b.data[extra:]
	}
	return len(p), nil
}

func (b *tail) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.data)
}

// start runs the program and waits until its ready-file is written.
func start(t testing.TB, dir string, args ...string) *program {
	t.Helper()
	ready := filepath.Join(dir, fmt.Sprintf("ready-%d.json", time.Now().UnixNano()))
	p := &program{t: t, stderr: &tail{}, exited: make(chan struct{})}
	p.command = exec.Command(os.Args[0], append(args, "--ready-file", ready)...)
	p.command.Env = append(os.Environ(), asProgram+"=1")
	p.command.Dir = dir
	p.command.Stdout, p.command.Stderr = p.stderr, p.stderr
	if err := p.command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.command.Wait() // the tests look at ProcessState
		close(p.exited)
	}()
	t.Cleanup(func() { p.end(syscall.SIGKILL) })
	eventually(t, "the ready-file", func() bool {
		select {
		case <-p.exited:
			t.Fatalf("the program ended before it was ready:\n%s", p.stderr)
		default:
		}
		data, err := os.ReadFile(ready)
		return err == nil && json.Unmarshal(data, &p.ready) == nil
	})
	return p
}

// end sends a signal and waits for the exit.
func (p *program) end(signal os.Signal) int {
	p.t.Helper()
	_ = p.command.Process.Signal(signal) // it may have exited already
	select {
	case <-p.exited:
	case <-time.After(patience):
		p.t.Errorf("the program does not end on %v:\n%s", signal, p.stderr)
		_ = p.command.Process.Kill()
		<-p.exited
	}
	return p.command.ProcessState.ExitCode()
}

// eventually polls a condition of another process. It waits no longer than the
// condition takes.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s in vain for %s", patience, what)
		}
		time.Sleep(20 * time.Millisecond) // between looks at another process, which cannot tell us
	}
}

// command runs a command of the program to its end.
func command(t testing.TB, dir string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	c := exec.CommandContext(ctx, os.Args[0], args...)
	c.Env = append(os.Environ(), asProgram+"=1")
	c.Dir = dir
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("run zvonok %s: %v", strings.Join(args, " "), err)
	}
	return out.String(), errs.String(), c.ProcessState.ExitCode()
}

// upload posts an upload to the device interface.
func (p *program) upload(t testing.TB, key, body string) (int, map[string]any) {
	t.Helper()
	request, err := http.NewRequest(http.MethodPost, "http://"+p.ready.HTTP+"/api/v1/events", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+key)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var answer map[string]any
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		t.Fatalf("answer %d is not JSON: %v", response.StatusCode, err)
	}
	return response.StatusCode, answer
}

func get(t testing.TB, url string) (int, string) {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// pageState is what the page of phones shows.
type pageState struct {
	City    phones.City                 `json:"city"`
	Inbox   map[string][]phones.Message `json:"inbox"`
	Screens map[string][]phones.Screen  `json:"screens"`
}

func (p *program) page(t testing.TB) pageState {
	t.Helper()
	_, body := get(t, "http://"+p.ready.Phones+"/state")
	var state pageState
	if err := json.Unmarshal([]byte(body), &state); err != nil {
		t.Fatal(err)
	}
	return state
}

// playPhone posts to the page of phones as its browser would.
func (p *program) playPhone(t testing.TB, path string, body any) {
	t.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.Post("http://"+p.ready.Phones+path, "application/json", bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode >= 400 {
		answer, _ := io.ReadAll(bufio.NewReader(response.Body))
		t.Fatalf("%s: %d %s", path, response.StatusCode, answer)
	}
}
