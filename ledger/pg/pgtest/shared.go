package pgtest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"zvonok/ledger/pg"
	"zvonok/ledger/pg/internal/postmaster"
)

const (
	// cacheFormat changes when the making of a cache does.
	cacheFormat = "1"
	// cacheLife is how long an unused cache of another schema is kept.
	cacheLife = 6 * time.Hour
	// runLife is after how long a cluster's folder counts as left behind by a
	// machine that went down; no test process lives that long.
	runLife = 24 * time.Hour
)

// guardian runs PostgreSQL and waits for the pipe on descriptor 3 to close,
// which the kernel does when the test process ends. It then stops PostgreSQL
// at once and removes $REMOVE.
const guardian = `
"$@" 3<&- &
pid=$!
read -r _ <&3
kill -QUIT $pid 2>/dev/null
wait $pid
rm -rf "$REMOVE"
`

// startShared starts the cluster of this process.
func startShared() (server, error) {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	programs, err := postmaster.Find(ctx, 0)
	if err != nil {
		return server{}, err
	}
	account, err := postmaster.ServiceAccount("")
	if err != nil {
		return server{}, err
	}
	base, err := baseDir(account)
	if err != nil {
		return server{}, err
	}
	dir, err := os.MkdirTemp(base, "run-")
	if err != nil {
		return server{}, fmt.Errorf("make the folder of a test cluster: %w", err)
	}
	if err := account.Own(dir); err != nil {
		return server{}, err
	}
	if err := copyCache(ctx, programs, account, base, filepath.Join(dir, "data")); err != nil {
		return server{}, errors.Join(err, os.RemoveAll(dir))
	}
	lifeline, err := startGuarded(programs, account, dir)
	if err != nil {
		return server{}, errors.Join(err, os.RemoveAll(dir))
	}
	s := server{socketDir: dir, lifeline: lifeline}
	if programs.Major >= 15 {
		// Twice as fast as the default, which writes the copy to the log; its
		// checkpoints cost nothing without fsync.
		s.strategy = " STRATEGY FILE_COPY"
	}
	return s, s.awaitReady(ctx, filepath.Join(dir, "log"))
}

// startGuarded starts a guardian and, under it, PostgreSQL on dir/data. Both
// live until the returned end of the guardian's pipe is closed.
func startGuarded(programs postmaster.Programs, account postmaster.Account, dir string) (*os.File, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make the guardian's pipe: %w", err)
	}
	defer read.Close()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, fmt.Errorf("make the log of a test cluster: %w", err)
	}
	defer log.Close()
	args := append([]string{"-c", guardian, "guardian", programs.Postgres()},
		arguments(filepath.Join(dir, "data"), dir, false, false)...)
	cmd := exec.Command("/bin/sh", args...)
	cmd.Dir = "/"
	cmd.Env = append(postmaster.Environment(), "REMOVE="+dir)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{read}
	cmd.SysProcAttr = account.Attributes()
	cmd.SysProcAttr.Setpgid = true // Ctrl-C must not reach the guardian before it has cleaned up
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start a test cluster: %w", err), write.Close())
	}
	return write, nil
}

// copyCache copies the cached data directory for this schema to dataDir, after
// making it if this process is the first to need it.
func copyCache(
	ctx context.Context, programs postmaster.Programs, account postmaster.Account, base, dataDir string,
) error {
	schema, err := pg.Fingerprint()
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(strings.Join([]string{
		cacheFormat, schema, programs.Dir,
		strconv.Itoa(programs.Major), account.Name,
	}, "\n")))
	cache := filepath.Join(base, "cache-"+hex.EncodeToString(sum[:10]))

	lock, err := os.OpenFile(filepath.Join(base, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("open the lock of the cache: %w", err)
	}
	defer lock.Close() // and so unlock
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock the cache: %w", err)
	}
	if _, err := os.Stat(cache); errors.Is(err, os.ErrNotExist) {
		if err := makeCache(ctx, programs, account, base, cache); err != nil {
			return err
		}
	} else if err != nil {
		return fmt.Errorf("look for the cache: %w", err)
	}
	now := time.Now()
	if err := os.Chtimes(cache, now, now); err != nil {
		return fmt.Errorf("mark the cache as used: %w", err)
	}
	removeOld(base, cache, now)
	cmd := exec.CommandContext(ctx, "cp", "-R", "--preserve=mode", "--reflink=auto", cache, dataDir)
	cmd.Dir = "/"
	cmd.SysProcAttr = account.Attributes()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("copy the cached cluster: %w: %s", err, out)
	}
	return nil
}

// makeCache makes a data directory with the migrated template, cleanly shut down.
func makeCache(
	ctx context.Context, programs postmaster.Programs, account postmaster.Account, base, cache string,
) (err error) {
	dir, err := os.MkdirTemp(base, "run-")
	if err != nil {
		return fmt.Errorf("make the folder of the cache: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := account.Own(dir); err != nil {
		return err
	}
	cluster, err := startCluster(ctx, programs, account, dir, false)
	if err != nil {
		return err
	}
	defer cluster.end()
	if err := cluster.server.exec(ctx, "CREATE DATABASE "+template); err != nil {
		return fmt.Errorf("create the template database: %w", err)
	}
	if _, err := pg.Migrate(ctx, cluster.server.url(template)); err != nil {
		return fmt.Errorf("make the template database: %w", err)
	}
	if err := cluster.stop(syscall.SIGINT); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(dir, "data"), cache); err != nil {
		return fmt.Errorf("put the cache in its place: %w", err)
	}
	return nil
}

// removeOld removes caches of other schemas that nobody has used for long and
// folders of clusters that were left behind. The caller holds the lock.
func removeOld(base, current string, now time.Time) {
	entries, err := os.ReadDir(base)
	if err != nil {
		return // the next process tries again
	}
	for _, entry := range entries {
		info, err := entry.Info()
		path := filepath.Join(base, entry.Name())
		if err != nil || path == current {
			continue
		}
		age := now.Sub(info.ModTime())
		if (strings.HasPrefix(entry.Name(), "cache-") && age > cacheLife) ||
			(strings.HasPrefix(entry.Name(), "run-") && age > runLife) {
			_ = os.RemoveAll(path) // what stays is removed by a later process
		}
	}
}
