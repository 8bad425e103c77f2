package pg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger/pg/internal/postmaster"
)

// run takes over a server that works on the data directory already, or starts
// one, and waits until it answers.
func (c *Cluster) run(ctx context.Context) error {
	adopted, err := c.adopt(ctx)
	if err != nil || adopted {
		return err
	}
	if err := c.clearOrphans(ctx); err != nil {
		return err
	}
	return c.launch(ctx)
}

// adopt takes over a running server. One that the kernel or anybody has told to
// stop does not answer any more; then adopt waits for its end and takes nothing.
func (c *Cluster) adopt(ctx context.Context) (bool, error) {
	for {
		file, err := postmaster.ReadPIDFile(c.paths.data)
		if errors.Is(err, fs.ErrNotExist) || (err == nil && !postmaster.Serves(file.PID, c.paths.data)) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("read which server is running: %w", err)
		}
		// A server whose parent is still dying is about to be told to stop.
		parent := postmaster.Parent(file.PID)
		orphaned := parent != c.former || parent == os.Getpid()
		if file.SocketDir != "" && orphaned {
			running := c.paths
			running.socketDir = file.SocketDir
			if answers(ctx, running.url("postgres")) == nil {
				server, err := postmaster.Adopt(file.PID)
				if err != nil {
					return false, fmt.Errorf("take over a running server: %w", err)
				}
				c.log.Info("took over the private PostgreSQL that was running", "pid", file.PID)
				c.paths, c.server = running, server
				return true, nil
			}
		}
		if err := pause(ctx, poll); err != nil {
			return false, fmt.Errorf("wait for the server of process %d to answer or to end: %w", file.PID, err)
		}
	}
}

// clearOrphans waits for the backends of a postmaster that was killed, and ends
// those that do not notice: PostgreSQL does not start beside them. With nobody
// left, a pid file that remains is stale; PostgreSQL would take it for a live
// one if its number has been given to another process since.
func (c *Cluster) clearOrphans(ctx context.Context) error {
	for began, asked := time.Now(), false; ; {
		orphans := postmaster.Servers(c.paths.data)
		if len(orphans) == 0 {
			break
		}
		if time.Since(began) > orphanWait {
			signal := syscall.SIGQUIT
			if asked {
				signal = syscall.SIGKILL
			}
			c.log.Warn("ending backends of a dead PostgreSQL", "count", len(orphans), "signal", signal.String())
			for _, pid := range orphans {
				_ = syscall.Kill(pid, signal) // it may have ended by itself
			}
			began, asked = time.Now(), true
		}
		if err := pause(ctx, poll); err != nil {
			return fmt.Errorf("wait for the backends of a dead PostgreSQL: %w", err)
		}
	}
	err := os.Remove(filepath.Join(c.paths.data, "postmaster.pid"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove a stale pid file: %w", err)
	}
	return nil
}

// launch starts PostgreSQL and waits until it answers.
func (c *Cluster) launch(ctx context.Context) error {
	if err := c.writeSettings(ctx); err != nil {
		return err
	}
	startLog, err := os.OpenFile(filepath.Join(c.paths.home, "start.log"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the log of PostgreSQL's start: %w", err)
	}
	defer startLog.Close()
	cmd := exec.Command(c.programs.Postgres(), "-D", c.paths.data,
		"-c", "listen_addresses=",
		"-c", "unix_socket_directories="+c.paths.socketDir,
		"-c", "unix_socket_permissions=0700",
		"-c", "port=5432")
	cmd.Dir = "/" // the account may not enter ours
	cmd.Env = postmaster.Environment()
	cmd.Stdout, cmd.Stderr = startLog, startLog
	cmd.SysProcAttr = c.account.Attributes()
	server, err := postmaster.StartChild(cmd, syscall.SIGINT)
	if err != nil {
		return err
	}
	c.server = server
	if err := c.awaitAnswer(ctx, server); err != nil {
		c.shutDown(ctx)
		return err
	}
	return nil
}

// awaitAnswer connects until PostgreSQL answers. Recovery after a crash may
// take its time, so there is no limit here but ctx.
func (c *Cluster) awaitAnswer(ctx context.Context, server *postmaster.Child) error {
	began, said := time.Now(), false
	for {
		if answers(ctx, c.paths.url("postgres")) == nil {
			return nil
		}
		select {
		case <-server.Exited():
			return fmt.Errorf("PostgreSQL did not start: %w: %s", server.Err(), c.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("wait for PostgreSQL to start: %w", context.Cause(ctx))
		case <-time.After(poll):
		}
		if !said && time.Since(began) > connectTimeout {
			said = true
			c.log.Info("the private PostgreSQL is recovering")
		}
	}
}

// lastWords returns the end of what PostgreSQL wrote at its start.
func (c *Cluster) lastWords() string {
	text, err := os.ReadFile(filepath.Join(c.paths.home, "start.log"))
	if err != nil {
		return "its log cannot be read"
	}
	const enough = 600
	return strings.TrimSpace(string(text[max(0, len(text)-enough):]))
}

// supervise starts PostgreSQL again whenever it ends by itself.
func (c *Cluster) supervise(ctx context.Context) {
	defer close(c.ended)
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.server.Exited():
		}
		if ctx.Err() != nil {
			return
		}
		c.log.Error("the private PostgreSQL has ended by itself, starting it again", "error", c.server.Err())
		for wait := firstRestart; ; wait = min(2*wait, lastRestart) {
			err := c.run(ctx)
			if err == nil {
				c.log.Info("the private PostgreSQL is running again")
				break
			}
			if ctx.Err() != nil {
				return
			}
			c.log.Error("the private PostgreSQL does not start", "error", err, "retry_in", wait)
			if pause(ctx, wait) != nil {
				return
			}
		}
	}
}

// shutDown stops the server, ever less gently, and returns when it is gone.
func (c *Cluster) shutDown(ctx context.Context) {
	defer c.awaitLast()
	server := c.server
	server.Signal(syscall.SIGINT)
	select {
	case <-server.Exited():
		return
	case <-time.After(fastStop):
	case <-ctx.Done():
	}
	c.log.Warn("the private PostgreSQL takes long to stop, stopping it at once; it will recover at the next start")
	server.Signal(syscall.SIGQUIT)
	select {
	case <-server.Exited():
		return
	case <-time.After(immediateStop):
	}
	server.Signal(syscall.SIGKILL)
	<-server.Exited()
}

// awaitLast waits for the process that writes the log, which by its nature ends
// after the server.
func (c *Cluster) awaitLast() {
	deadline := time.Now().Add(immediateStop)
	for len(postmaster.Servers(c.paths.data)) > 0 && time.Now().Before(deadline) {
		time.Sleep(poll)
	}
}

// answers tells whether a server takes a statement.
func answers(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, address)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	return conn.Ping(ctx)
}
