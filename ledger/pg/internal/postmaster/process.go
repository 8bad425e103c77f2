package postmaster

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// adoptedPoll is how often a server that is not our child is looked at.
const adoptedPoll = 200 * time.Millisecond

// PIDFile is what a running server writes into its data directory
// (postmaster.pid; PostgreSQL's miscadmin.h names the lines).
type PIDFile struct {
	// PID is the postmaster's process id.
	PID int
	// SocketDir is the folder of its Unix socket; empty while it is starting.
	SocketDir string
}

// ReadPIDFile reads postmaster.pid in a data directory. Without one it returns
// fs.ErrNotExist. A file that outlived its server is returned like any other;
// Serves tells them apart.
func ReadPIDFile(dataDir string) (PIDFile, error) {
	text, err := os.ReadFile(filepath.Join(dataDir, "postmaster.pid"))
	if err != nil {
		return PIDFile{}, err
	}
	lines := strings.Split(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil || pid <= 1 {
		// It is being written, or a crash of the machine has left it empty.
		return PIDFile{}, fs.ErrNotExist
	}
	file := PIDFile{PID: pid}
	if len(lines) > 4 {
		file.SocketDir = strings.TrimSpace(lines[4])
	}
	return file, nil
}

// Serves tells whether the process is a PostgreSQL server working on the data
// directory: every one of them has it as its working directory, which no other
// process that got a dead server's id by chance would have.
func Serves(pid int, dataDir string) bool {
	cwd, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "cwd"))
	if err != nil || cwd != dataDir {
		return false
	}
	name, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "comm"))
	return err == nil && strings.HasPrefix(string(name), "postgres") && !zombie(pid)
}

// Servers lists all server processes working on a data directory, backends
// included, whose postmaster may be gone.
func Servers(dataDir string) []int {
	var pids []int
	entries, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		return nil // only a malformed pattern could be the cause
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(entry)))
		if err == nil && Serves(pid, dataDir) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Parent returns the id of a process's parent, or 0 when the process has ended.
func Parent(pid int) int {
	fields := status(pid)
	if len(fields) < 2 {
		return 0
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0
	}
	return parent
}

func zombie(pid int) bool {
	fields := status(pid)
	return len(fields) == 0 || fields[0] == "Z" || fields[0] == "X"
}

// status returns the fields of /proc/PID/stat behind the name, which may hold
// anything: state, parent and so on.
func status(pid int) []string {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return nil
	}
	return strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
}

// Adopt makes a Child of a running server that another process has started. It
// does not end with this process.
func Adopt(pid int) (*Child, error) {
	process, err := os.FindProcess(pid)
	if err != nil {
		return nil, err
	}
	child := &Child{process: process, exited: make(chan struct{}), err: errors.New("the process has ended")}
	go func() {
		defer close(child.exited)
		for process.Signal(syscall.Signal(0)) == nil && !zombie(pid) {
			time.Sleep(adoptedPoll)
		}
	}()
	return child, nil
}
