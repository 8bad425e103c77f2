package pg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger/pg/internal/postmaster"
)

// Limits of the private cluster.
const (
	// fastStop is how long PostgreSQL may take to end its sessions and write
	// everything out; after that it is stopped at once and recovers at the next start.
	fastStop = 20 * time.Second
	// immediateStop is how long it may take to stop at once before it is killed.
	immediateStop = 5 * time.Second
	// joinedGrace is how long the owner's stop waits for other commands that use the cluster.
	joinedGrace = 5 * time.Second
	// ownerWait is how long a start waits for another process to let go of the
	// data directory: a command that ends soon, or a process being killed.
	ownerWait = 15 * time.Second
	// joinWait is how long a command waits for a PostgreSQL that another
	// process is just starting; it covers a recovery.
	joinWait = 2 * time.Minute
	// orphanWait is how long the backends of a dead postmaster may take to end by themselves.
	orphanWait = 5 * time.Second
	// poll is how often anything above is looked at.
	poll = 50 * time.Millisecond
	// firstRestart and lastRestart bound the pause before PostgreSQL is started
	// again after it ended by itself; the pause doubles in between.
	firstRestart = 100 * time.Millisecond
	lastRestart  = 5 * time.Second
	// maxSocketPath is the longest path of a Unix socket in bytes, without the closing zero.
	maxSocketPath = 107
)

// The lock files of a cluster.
const (
	ownerLock    = "owner.lock"
	usersLock    = "users.lock"
	stoppingLock = "stopping.lock"
)

// ErrClusterInUse says that another process runs the private PostgreSQL of this data directory.
var ErrClusterInUse = errors.New("another zvonok runs on this data directory")

// ClusterConfig says where the private PostgreSQL lives.
type ClusterConfig struct {
	// DataDir is the setting data_dir; the cluster is its folder postgres.
	DataDir string
	// Log takes what the supervisor has to say; PostgreSQL's own log is a file
	// in the cluster's folder log, one per weekday, each emptied before it is used again.
	Log *slog.Logger
}

// Cluster is the private PostgreSQL of one data directory.
//
// It listens on a Unix socket in a closed folder and on nothing else. The
// kernel stops it when the process that started it dies, even by kill -9; a
// server found running all the same is taken over. When PostgreSQL ends by
// itself it is started again. The data is never deleted, nor touched by another
// major version.
//
// Files under DataDir/postgres:
//
//	data/         PostgreSQL's data directory
//	log/          PostgreSQL's log files
//	start.log     what the last start said before there was a log
//	owner.lock    held by the process that runs the cluster, with its id inside
//	users.lock    shared by the commands that use a cluster run by another process
//	stopping.lock held by the process that is about to stop the cluster: nobody joins any more
//	.s.PGSQL.5432 the socket, unless this path is too long for one
type Cluster struct {
	paths    clusterPaths
	programs postmaster.Programs
	account  postmaster.Account
	log      *slog.Logger

	owner *os.File // the lock on owner.lock; nil when the cluster was joined
	user  *os.File // the shared lock on users.lock; nil when the cluster is our own
	door  *os.File // the lock on stopping.lock; nil until Stop

	former int // the process that ran the cluster before us, or 0

	// server is replaced at each restart. It belongs to the goroutine that
	// starts the cluster, then to the supervisor, then to Stop.
	server   *postmaster.Child
	stopping context.CancelFunc // tells the supervisor
	ended    chan struct{}      // closed when the supervisor has returned
	stop     sync.Once
	stopErr  error
}

// StartCluster starts the private PostgreSQL, making it first where there is
// none, and returns when it answers and has our database. It waits a little for
// another process that is about to let go of the data directory and then
// returns ErrClusterInUse. ctx bounds the start alone; the cluster runs until
// Stop.
func StartCluster(ctx context.Context, config ClusterConfig) (*Cluster, error) {
	return startCluster(ctx, config, ownerWait)
}

// JoinCluster is for commands beside a running zvonok: it uses the private
// PostgreSQL that another process runs, or starts it for its own time. Either
// way the caller stops the Cluster it gets; a cluster of another process goes
// on running then.
func JoinCluster(ctx context.Context, config ClusterConfig) (*Cluster, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, joinWait,
		fmt.Errorf("%w, but its PostgreSQL does not answer", ErrClusterInUse))
	defer cancel()
	for {
		joined, err := join(config)
		if err != nil || joined != nil {
			return joined, err
		}
		started, err := startCluster(ctx, config, 0)
		if !errors.Is(err, ErrClusterInUse) {
			return started, err
		}
		// The other process is starting or stopping the cluster.
		if err := pause(ctx, poll); err != nil {
			return nil, fmt.Errorf("wait for the private PostgreSQL of another process: %w", err)
		}
	}
}

// Attach returns the address of the private PostgreSQL of a data directory if
// one is running and answers, whoever runs it. The cluster may stop at any
// time; a command that works on it uses JoinCluster, for which a stop waits.
func Attach(dataDir string) (address string, ok bool) {
	paths, err := locate(dataDir)
	if err != nil {
		return "", false
	}
	file, err := postmaster.ReadPIDFile(paths.data)
	if err != nil || file.SocketDir == "" || !postmaster.Serves(file.PID, paths.data) {
		return "", false
	}
	paths.socketDir = file.SocketDir
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	if err := answers(ctx, paths.url(clusterDatabase)); err != nil {
		return "", false
	}
	return paths.url(clusterDatabase), true
}

// Joined tells whether another process runs the cluster.
func (c *Cluster) Joined() bool { return c.owner == nil }

// URL returns the address of the cluster's database, for its owner: migrations
// use it as it is, the pool takes AppRole on it.
func (c *Cluster) URL() string { return c.paths.url(clusterDatabase) }

// Stop ends the cluster: after a little time for commands that joined it,
// sessions are cut and everything is written out; if that takes more than 20 s
// or ctx ends, PostgreSQL is stopped at once, which loses nothing but costs a
// recovery at the next start. Stop of a joined cluster only leaves it. Further
// calls return what the first did.
func (c *Cluster) Stop(ctx context.Context) error {
	c.stop.Do(func() { c.stopErr = c.end(ctx) })
	return c.stopErr
}

// RemoveCluster deletes the private PostgreSQL of a data directory and all that
// is in it. One that is in use gives ErrClusterInUse.
func RemoveCluster(ctx context.Context, dataDir string) error {
	paths, err := locate(dataDir)
	if err != nil {
		return err
	}
	if _, err := os.Stat(paths.home); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	owner, _, err := takeOwnership(ctx, paths.home, ownerWait)
	if err != nil {
		return err
	}
	defer owner.Close()
	if len(postmaster.Servers(paths.data)) > 0 {
		return fmt.Errorf("%w: PostgreSQL itself is still running in %s", ErrClusterInUse, paths.data)
	}
	for _, path := range []string{paths.home, filepath.Join(dataDir, "postgres")} { // the latter may be a link
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("remove the private PostgreSQL: %w", err)
		}
	}
	return nil
}

func startCluster(ctx context.Context, config ClusterConfig, wait time.Duration) (_ *Cluster, err error) {
	paths, account, err := makeHome(config)
	if err != nil {
		return nil, err
	}
	c := &Cluster{paths: paths, account: account, log: config.Log, ended: make(chan struct{})}
	if c.owner, c.former, err = takeOwnership(ctx, paths.home, wait); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.owner.Close())
		}
	}()
	if c.programs, err = findPrograms(ctx, paths.data); err != nil {
		return nil, err
	}
	if err := c.initialise(ctx); err != nil {
		return nil, err
	}
	if c.paths.socketDir, err = socketDir(paths.home, account); err != nil {
		return nil, err
	}
	if err := c.run(ctx); err != nil {
		return nil, err
	}
	if err := c.createDatabase(ctx); err != nil {
		c.shutDown(ctx)
		return nil, err
	}
	supervised, cancel := context.WithCancel(context.Background())
	c.stopping = cancel
	go c.supervise(supervised)
	return c, nil
}

func join(config ClusterConfig) (*Cluster, error) {
	paths, err := locate(config.DataDir)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(paths.home); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	user, err := os.OpenFile(filepath.Join(paths.home, usersLock), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("join the private PostgreSQL: %w", err)
	}
	// The owner takes this lock for itself once it stops. One that is about to
	// stop, or is dead, takes its PostgreSQL along: it answers for a moment yet, and
	// is not to be joined.
	if syscall.Flock(int(user.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) == nil &&
		!held(paths.home, stoppingLock) && held(paths.home, ownerLock) {
		if _, ok := Attach(config.DataDir); ok {
			file, err := postmaster.ReadPIDFile(paths.data)
			if err == nil {
				paths.socketDir = file.SocketDir
				return &Cluster{paths: paths, log: config.Log, user: user}, nil
			}
		}
	}
	return nil, user.Close()
}

// held tells whether a process holds one of the locks for itself. The kernel
// frees the locks of a dead one.
func held(home, name string) bool {
	file, err := os.Open(filepath.Join(home, name))
	if err != nil {
		return false // never made: nobody has held it
	}
	defer file.Close()
	return syscall.Flock(int(file.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) != nil
}

// takeOwnership locks owner.lock and returns which process had it before. The
// kernel frees the lock when the process ends, however it ends, so no stale
// lock can be left.
func takeOwnership(ctx context.Context, home string, wait time.Duration) (_ *os.File, former int, err error) {
	lock, err := os.OpenFile(filepath.Join(home, ownerLock), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, 0, fmt.Errorf("open the lock of the data directory: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.Close())
		}
	}()
	readFormer := func() int {
		var text [32]byte
		n, _ := lock.ReadAt(text[:], 0) // an empty file is read as no process
		pid, err := strconv.Atoi(strings.TrimSpace(string(text[:n])))
		if err != nil {
			return 0
		}
		return pid
	}
	deadline := time.Now().Add(wait)
	for syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		if !time.Now().Before(deadline) {
			return nil, 0, fmt.Errorf("%w: process %d, in %s", ErrClusterInUse, readFormer(), filepath.Dir(home))
		}
		if err := pause(ctx, poll); err != nil {
			return nil, 0, fmt.Errorf("wait for the lock of the data directory: %w", err)
		}
	}
	former = readFormer()
	if err := lock.Truncate(0); err != nil {
		return nil, 0, fmt.Errorf("write the lock of the data directory: %w", err)
	}
	if _, err := lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return nil, 0, fmt.Errorf("write the lock of the data directory: %w", err)
	}
	return lock, former, nil
}

// findPrograms finds the programs of the version that made the data directory,
// or the newest for a new one.
func findPrograms(ctx context.Context, dataDir string) (postmaster.Programs, error) {
	text, err := os.ReadFile(filepath.Join(dataDir, "PG_VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		return postmaster.Find(ctx, 0)
	}
	if err != nil {
		return postmaster.Programs{}, fmt.Errorf("read the version of the data directory: %w", err)
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return postmaster.Programs{}, fmt.Errorf("%s says %q, which is no version of PostgreSQL",
			filepath.Join(dataDir, "PG_VERSION"), strings.TrimSpace(string(text)))
	}
	programs, err := postmaster.Find(ctx, major)
	if err != nil {
		return postmaster.Programs{}, fmt.Errorf("%s was made by PostgreSQL %d: %w. "+
			"Install version %d again (postgresql-%d), or move the data with pg_dump or pg_upgrade and give database.url",
			dataDir, major, err, major, major)
	}
	return programs, nil
}

// initialise makes the data directory where there is none. It is made beside
// its place and renamed, so that a half-made one is never taken for a whole.
func (c *Cluster) initialise(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(c.paths.data, "PG_VERSION")); err == nil {
		return c.account.Admit(c.paths.data)
	}
	if entries, err := os.ReadDir(c.paths.data); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s holds files but no PostgreSQL data: look what they are and move them away", c.paths.data)
	}
	c.log.Info("making the private PostgreSQL", "dir", c.paths.data, "version", c.programs.Major)
	unfinished := c.paths.data + ".new"
	if err := os.RemoveAll(unfinished); err != nil {
		return fmt.Errorf("remove a half-made data directory: %w", err)
	}
	if err := c.programs.Init(ctx, c.account, unfinished, true); err != nil {
		return err
	}
	if err := c.account.Admit(unfinished); err != nil {
		return err
	}
	if err := os.Rename(unfinished, c.paths.data); err != nil {
		return fmt.Errorf("put the new data directory in its place: %w", err)
	}
	return nil
}

func (c *Cluster) createDatabase(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, c.paths.url("postgres"))
	if err != nil {
		return fmt.Errorf("connect to the private PostgreSQL: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var exists bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", clusterDatabase).
		Scan(&exists); err != nil {
		return fmt.Errorf("look for the database: %w", err)
	}
	if exists {
		return nil
	}
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+clusterDatabase); err != nil {
		return fmt.Errorf("create the database: %w", err)
	}
	return nil
}

func (c *Cluster) end(ctx context.Context) error {
	if c.owner == nil {
		if err := c.user.Close(); err != nil {
			return fmt.Errorf("leave the private PostgreSQL: %w", err)
		}
		return nil
	}
	users, err := c.awaitUsers(ctx)
	c.stopping()
	<-c.ended
	c.shutDown(ctx)
	for _, file := range []*os.File{users, c.door, c.owner} {
		if file != nil {
			err = errors.Join(err, file.Close())
		}
	}
	return err
}

// awaitUsers keeps new commands out and waits until none uses the cluster any
// more, or long enough.
func (c *Cluster) awaitUsers(ctx context.Context) (*os.File, error) {
	stopping, err := os.OpenFile(filepath.Join(c.paths.home, stoppingLock), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("keep users of the private PostgreSQL out: %w", err)
	}
	c.door = stopping
	for syscall.Flock(int(stopping.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		if pause(ctx, poll) != nil { // who looks whether it is held holds it for a moment
			break
		}
	}
	users, err := os.OpenFile(filepath.Join(c.paths.home, usersLock), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("wait for the users of the private PostgreSQL: %w", err)
	}
	deadline := time.Now().Add(joinedGrace)
	for syscall.Flock(int(users.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil && time.Now().Before(deadline) {
		if pause(ctx, poll) != nil {
			break
		}
	}
	return users, nil
}

// pause waits, or returns the cause for which ctx ended.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
