package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// gateway is the program under load.
type gateway struct {
	binary, dir, operator, relay string

	mu      sync.Mutex
	process *exec.Cmd
	used    time.Duration // CPU of processes that have ended
	ready   struct {
		HTTP     string `json:"http"`
		Database string `json:"database"`
	}
}

func (g *gateway) configFile() string { return filepath.Join(g.dir, "zvonok.toml") }

func (g *gateway) configure() error {
	return os.WriteFile(g.configFile(), fmt.Appendf(nil, `data_dir = %q
[http]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[smpp]
listen = "127.0.0.1:0"
[mail]
smarthost = %q
tls = "none"
[log]
level = "warn"
[[operator]]
name = "box"
address = %q
system_id = "school"
password = "secret12"
binds = 2
window = 500
rate = 20000
roles = ["sms", "ussd"]
source = "SCHOOL"
`, filepath.Join(g.dir, "data"), g.relay, g.operator), 0o600)
}

func (g *gateway) command(args ...string) error {
	c := exec.Command(g.binary, append(args, "--config", g.configFile())...)
	c.Stdout, c.Stderr = os.Stderr, os.Stderr
	if err := c.Run(); err != nil {
		return fmt.Errorf("zvonok %s: %w", args[0], err)
	}
	return nil
}

func (g *gateway) start() error {
	ready := filepath.Join(g.dir, "ready.json")
	if err := os.Remove(ready); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	process := exec.Command(g.binary, "serve", "--config", g.configFile(), "--ready-file", ready)
	process.Stdout, process.Stderr = os.Stderr, os.Stderr
	begun := time.Now()
	if err := process.Start(); err != nil {
		return fmt.Errorf("start the gateway: %w", err)
	}
	var data []byte
	if !waitFor(2*time.Minute, func() bool {
		var err error
		data, err = os.ReadFile(ready)
		return err == nil
	}) {
		return errors.New("the gateway does not get ready")
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.process = process
	fmt.Fprintf(os.Stderr, "the gateway is up after %s\n", time.Since(begun).Round(10*time.Millisecond))
	return json.Unmarshal(data, &g.ready)
}

func (g *gateway) address() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ready.HTTP
}

func (g *gateway) end(signal syscall.Signal) {
	g.mu.Lock()
	process := g.process
	g.mu.Unlock()
	_ = process.Process.Signal(signal) // it may have ended
	_ = process.Wait()                 // its exit code says nothing here
	g.mu.Lock()
	g.used += process.ProcessState.UserTime() + process.ProcessState.SystemTime()
	g.mu.Unlock()
}

func (g *gateway) killAndRestart() error {
	g.end(syscall.SIGKILL)
	return g.start()
}

func (g *gateway) stop() { g.end(syscall.SIGTERM) }

// cpu is how many seconds of CPU the gateway's processes have used, from
// /proc, where a clock tick is 10 ms.
func (g *gateway) cpu() float64 {
	used := g.used.Seconds()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", g.process.Process.Pid))
	if err != nil {
		return used
	}
	// Fields 14 and 15, counted from the process's name, which may hold spaces.
	fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	for _, field := range fields[11:13] {
		ticks, err := strconv.Atoi(string(field))
		if err != nil {
			return used
		}
		used += float64(ticks) / 100
	}
	return used
}
