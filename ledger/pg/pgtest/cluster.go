package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"zvonok/ledger/pg/internal/postmaster"
)

// stopTimeout bounds one stop of a cluster.
const stopTimeout = time.Minute

// Cluster is a PostgreSQL of one test's own, which it may stop, kill and start
// again. It commits durably, as far as a crash of PostgreSQL goes.
type Cluster struct {
	programs postmaster.Programs
	account  postmaster.Account
	dir      string
	durable  bool
	streams  bool // to replicas
	server   server
	child    *postmaster.Child
	// environment is what the server's has beside ours.
	environment []string
}

// NewCluster starts a private cluster with one migrated database. It ends, and
// its files go, when the test ends.
func NewCluster(t testing.TB) *Cluster {
	t.Helper()
	cluster, err := newCluster(t, func(*Cluster) error { return nil })
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	return cluster
}

// NewPrimary is NewCluster with one that replicas can follow. Neither they nor it outlast a crash of the machine.
func NewPrimary(t testing.TB) *Cluster {
	t.Helper()
	cluster, err := newCluster(t, func(c *Cluster) error { c.streams = true; return nil })
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	return cluster
}

// Replica starts a streaming replica of c, a copy by pg_basebackup, which may
// have replicas itself. It ends, and its files go, when the test ends.
func (c *Cluster) Replica(t testing.TB) *Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	replica, err := c.replicate(ctx, t)
	if err != nil {
		t.Fatalf("pgtest: make a replica: %v", err)
	}
	return replica
}

func (c *Cluster) replicate(ctx context.Context, t testing.TB) (*Cluster, error) {
	replica, err := emptyCluster(ctx, t)
	if err != nil {
		return nil, err
	}
	replica.streams = true
	// -R makes it a standby that knows its primary.
	cmd := exec.CommandContext(ctx, filepath.Join(c.programs.Dir, "pg_basebackup"), "-D", filepath.Join(replica.dir, "data"), "-R",
		"-c", "fast", "-X", "stream", "--no-manifest", "--no-sync", "-h", c.dir, "-U", postmaster.Superuser, "-w")
	cmd.Dir = "/"
	cmd.Env = postmaster.Environment()
	cmd.SysProcAttr = c.account.Attributes()
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("take a base backup: %w: %s", err, out)
	}
	return replica, replica.start(ctx)
}

// newCluster starts a cluster when prepare has made it what it is to be.
func newCluster(t testing.TB, prepare func(*Cluster) error) (*Cluster, error) {
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	cluster, err := emptyCluster(ctx, t)
	if err != nil {
		return nil, err
	}
	base := filepath.Dir(cluster.dir)
	if err := copyCache(ctx, cluster.programs, cluster.account, base, filepath.Join(cluster.dir, "data")); err != nil {
		return nil, err
	}
	if err := prepare(cluster); err != nil {
		return nil, err
	}
	return cluster, cluster.start(ctx)
}

// emptyCluster makes the folder of a cluster.
func emptyCluster(ctx context.Context, t testing.TB) (*Cluster, error) {
	programs, err := postmaster.Find(ctx, 0)
	if err != nil {
		return nil, err
	}
	account, err := postmaster.ServiceAccount("")
	if err != nil {
		return nil, err
	}
	base, err := baseDir(account)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(base, "run-")
	if err != nil {
		return nil, fmt.Errorf("make the folder of a test cluster: %w", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // what stays is removed by a later process
	if err := account.Own(dir); err != nil {
		return nil, err
	}
	cluster := &Cluster{programs: programs, account: account, dir: dir, durable: true, server: server{socketDir: dir}}
	t.Cleanup(cluster.end)
	return cluster, nil
}

// startCluster makes a new, empty cluster in dir and starts it.
func startCluster(
	ctx context.Context, programs postmaster.Programs, account postmaster.Account, dir string, durable bool,
) (*Cluster, error) {
	data := filepath.Join(dir, "data")
	if err := programs.Init(ctx, account, data, durable); err != nil {
		return nil, err
	}
	if err := account.Admit(data); err != nil {
		return nil, err
	}
	cluster := &Cluster{
		programs: programs, account: account, dir: dir, durable: durable, server: server{socketDir: dir},
	}
	if err := cluster.start(ctx); err != nil {
		cluster.end()
		return nil, err
	}
	return cluster, nil
}

// URL returns the address of the cluster's migrated database, for the owner. It
// stays the same over restarts.
func (c *Cluster) URL() string { return c.server.url(template) }

// Stop shuts PostgreSQL down in order, cutting its connections.
func (c *Cluster) Stop(t testing.TB) {
	t.Helper()
	if err := c.stop(syscall.SIGINT); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
}

// Kill9 kills the postmaster and all its backends with SIGKILL, as a crash of
// the machine's memory would, and returns when all are gone.
func (c *Cluster) Kill9(t testing.TB) {
	t.Helper()
	servers := postmaster.Servers(filepath.Join(c.dir, "data"))
	for _, pid := range servers {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended by itself
	}
	<-c.child.Exited()
	for len(postmaster.Servers(filepath.Join(c.dir, "data"))) > 0 {
		time.Sleep(time.Millisecond) // the kernel is still at it
	}
}

// AwaitEnd returns when PostgreSQL has ended, by itself or because it was killed.
func (c *Cluster) AwaitEnd(t testing.TB) {
	t.Helper()
	select {
	case <-c.child.Exited():
	case <-time.After(startTimeout):
		t.Fatal("pgtest: PostgreSQL did not end")
	}
}

// Log returns what PostgreSQL has logged.
func (c *Cluster) Log(t testing.TB) string {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(c.dir, "log"))
	if err != nil {
		t.Fatalf("pgtest: read what PostgreSQL has logged: %v", err)
	}
	return string(log)
}

// Restart starts PostgreSQL again after it has ended and returns when it
// answers, recovered.
func (c *Cluster) Restart(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	if err := c.start(ctx); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
}

// PID returns the postmaster's process id, for tests that stop it in its
// tracks with SIGSTOP and SIGCONT.
func (c *Cluster) PID() int { return c.child.PID() }

// Freeze stops all its processes in their tracks, as a machine that hangs: connections stay, nothing answers. It goes on
// by Thaw, at the latest when the test ends.
func (c *Cluster) Freeze(t testing.TB) {
	t.Helper()
	t.Cleanup(c.thaw)
	c.signalAll(syscall.SIGSTOP)
}

// Thaw lets a frozen cluster go on.
func (c *Cluster) Thaw(t testing.TB) {
	t.Helper()
	c.thaw()
}

func (c *Cluster) thaw() { c.signalAll(syscall.SIGCONT) }

// signalAll signals the postmaster first, so that it starts no more.
func (c *Cluster) signalAll(signal syscall.Signal) {
	_ = syscall.Kill(c.PID(), signal) // it may have ended by itself
	for _, pid := range postmaster.Servers(filepath.Join(c.dir, "data")) {
		_ = syscall.Kill(pid, signal)
	}
}

func (c *Cluster) start(ctx context.Context) error {
	logFile := filepath.Join(c.dir, "log")
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("make the log of a test cluster: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(c.programs.Postgres(), arguments(filepath.Join(c.dir, "data"), c.dir, c.durable, c.streams)...)
	cmd.Dir = "/"
	cmd.Env = append(postmaster.Environment(), c.environment...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = c.account.Attributes()
	child, err := postmaster.StartChild(cmd, syscall.SIGQUIT)
	if err != nil {
		return err
	}
	c.child = child
	return c.server.awaitReady(ctx, logFile)
}

// stop sends signal and waits for the end.
func (c *Cluster) stop(signal syscall.Signal) error {
	c.child.Signal(signal)
	select {
	case <-c.child.Exited():
		return nil
	case <-time.After(stopTimeout):
		c.end()
		return errors.New("PostgreSQL did not stop in time and was killed")
	}
}

// end kills whatever still runs.
func (c *Cluster) end() {
	if c.child != nil {
		c.child.Signal(syscall.SIGQUIT)
		select {
		case <-c.child.Exited():
		case <-time.After(stopTimeout):
			c.child.Signal(syscall.SIGKILL)
			<-c.child.Exited()
		}
	}
}
