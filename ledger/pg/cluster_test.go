package pg

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger/pg/internal/postmaster"
)

// helperVariable makes the test binary run a cluster on the data directory it
// names, say so, and wait to be killed.
const helperVariable = "ZVONOK_TEST_CLUSTER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(helperVariable); dir != "" {
		cluster, err := StartCluster(context.Background(), ClusterConfig{DataDir: dir, Log: quiet()})
		if err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		fmt.Println(cluster.URL())
		select {}
	}
	code := m.Run()
	_ = os.RemoveAll(preparedPath())
	os.Exit(code)
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// dataDir makes a data directory that PostgreSQL's account may enter, which
// t.TempDir is not when the tests run as root.
func dataDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "zvonok-cluster-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func preparedPath() string { return "/tmp/zvonok-cluster-of-" + strconv.Itoa(os.Getpid()) }

// prepared is a data directory with a stopped cluster in it, made once for all
// tests that do not care how it was made.
var prepared = sync.OnceValues(func() (string, error) {
	dir := preparedPath()
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	cluster, err := StartCluster(context.Background(), ClusterConfig{DataDir: dir, Log: quiet()})
	if err != nil {
		return "", err
	}
	return dir, cluster.Stop(context.Background())
})

// preparedDir is dataDir with a stopped cluster in it.
func preparedDir(t *testing.T) string {
	t.Helper()
	from, err := prepared()
	if err != nil {
		t.Fatal(err)
	}
	dir := dataDir(t)
	if out, err := exec.Command("cp", "-a", filepath.Join(from, "postgres"), dir).CombinedOutput(); err != nil {
		t.Fatalf("copy a cluster: %v: %s", err, out)
	}
	return dir
}

func start(t *testing.T, dir string) *Cluster {
	t.Helper()
	cluster, err := StartCluster(t.Context(), ClusterConfig{DataDir: dir, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, cluster) })
	return cluster
}

func stop(t *testing.T, cluster *Cluster) {
	t.Helper()
	if err := cluster.Stop(context.Background()); err != nil {
		t.Error(err)
	}
}

func connectTo(t *testing.T, address string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func mustExec(t *testing.T, address, sql string) {
	t.Helper()
	if _, err := connectTo(t, address).Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func rows(t *testing.T, address string) (n int) {
	t.Helper()
	if err := connectTo(t, address).QueryRow(t.Context(), "SELECT count(*) FROM kept").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// startHelper runs a cluster in another process.
func startHelper(t *testing.T, dir string) (*exec.Cmd, string) {
	t.Helper()
	helper := exec.Command(os.Args[0])
	helper.Env = append(os.Environ(), helperVariable+"="+dir)
	helper.Stderr = os.Stderr
	out, err := helper.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := helper.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = helper.Process.Kill()
		_ = helper.Wait()
		for len(postmaster.Servers(filepath.Join(dir, "postgres", "data"))) > 0 {
			time.Sleep(time.Millisecond) // the kernel has told it to end
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "postgres://") {
		t.Fatalf("the helper says %q, %v", line, err)
	}
	return helper, strings.TrimSpace(line)
}

func TestAStoppedClusterStartsAgainWithItsData(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	first := start(t, dir)
	mustExec(t, first.URL(), "CREATE TABLE kept AS SELECT 1")
	stop(t, first)
	if _, ok := Attach(dir); ok {
		t.Fatal("a stopped cluster can be attached to")
	}
	second := start(t, dir)
	if n := rows(t, second.URL()); n != 1 {
		t.Fatalf("%d rows are there after a restart; want 1", n)
	}
	conn := connectTo(t, second.URL())
	for setting, want := range map[string]string{
		"listen_addresses": "", "synchronous_commit": "on", "fsync": "on", "data_checksums": "on",
		"server_encoding": "UTF8", "unix_socket_permissions": "0700", "full_page_writes": "on", "lc_collate": "C.UTF-8",
		"log_min_error_statement": "panic", "log_error_verbosity": "terse",
	} {
		var got string
		if err := conn.QueryRow(t.Context(), "SELECT current_setting($1)", setting).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %q, %v; want %q", setting, got, err, want)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "postgres")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the cluster's folder is %v, %v; want it closed to all others", info.Mode(), err)
	}
}

func TestTheProgramWorksOnItsPrivateCluster(t *testing.T) {
	t.Parallel()
	cluster := start(t, preparedDir(t))
	if _, err := Migrate(t.Context(), cluster.URL()); err != nil {
		t.Fatal(err)
	}
	pool, err := Open(t.Context(), Config{URL: cluster.URL(), Role: AppRole})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	var people int
	if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM ledger.person").Scan(&people); err != nil || people != 0 {
		t.Fatalf("there are %d people, %v", people, err)
	}
}

// Fault row 1, as far as the database goes: kill -9 of the whole program.
func TestAfterKill9OfItsProcessTheNextStartHasAllCommittedData(t *testing.T) {
	t.Parallel()
	dir := preparedDir(t)
	helper, address := startHelper(t, dir)
	mustExec(t, address, "CREATE TABLE kept AS SELECT 1")
	if err := helper.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// At once, while the old server may be still running or just stopping.
	second := start(t, dir)
	if n := rows(t, second.URL()); n != 1 {
		t.Fatalf("%d rows are there after kill -9; want 1", n)
	}
}

func TestTheServerEndsWithItsProcess(t *testing.T) {
	t.Parallel()
	dir := preparedDir(t)
	helper, _ := startHelper(t, dir)
	data := filepath.Join(dir, "postgres", "data")
	if len(postmaster.Servers(data)) == 0 {
		t.Fatal("no server runs on the data directory")
	}
	if err := helper.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for ; len(postmaster.Servers(data)) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the server still runs 30 s after its process was killed")
		}
	}
}

func TestARunningServerIsTakenOver(t *testing.T) {
	t.Parallel()
	dir := preparedDir(t)
	first := start(t, dir)
	mustExec(t, first.URL(), "CREATE TABLE kept AS SELECT 1")
	stop(t, first)
	// A server that nobody looks after.
	orphan := exec.Command(first.programs.Postgres(), "-D", first.paths.data, "-c", "listen_addresses=",
		"-c", "unix_socket_directories="+first.paths.socketDir)
	orphan.Dir, orphan.Env, orphan.SysProcAttr = "/", postmaster.Environment(), first.account.Attributes()
	if err := orphan.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- orphan.Wait() }()
	t.Cleanup(func() { _ = orphan.Process.Signal(syscall.SIGINT) })
	for {
		if _, ok := Attach(dir); ok {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}

	second := start(t, dir)
	if second.server.PID() != orphan.Process.Pid {
		t.Fatalf("server %d runs; want %d to have been taken over", second.server.PID(), orphan.Process.Pid)
	}
	if n := rows(t, second.URL()); n != 1 {
		t.Fatalf("%d rows are there; want 1", n)
	}
	stop(t, second)
	if err := <-exited; err != nil {
		t.Fatalf("the server that was taken over ended with %v; want a clean end", err)
	}
}

// Fault row 5: kill -9 of the postmaster.
func TestAKilledServerIsStartedAgainWithAllCommittedData(t *testing.T) {
	t.Parallel()
	dir := preparedDir(t)
	cluster := start(t, dir)
	mustExec(t, cluster.URL(), "CREATE TABLE kept AS SELECT 1")
	file, err := postmaster.ReadPIDFile(cluster.paths.data)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(file.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if now, err := postmaster.ReadPIDFile(cluster.paths.data); err == nil && now.PID != file.PID {
			if _, ok := Attach(dir); ok {
				break
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("the server does not answer 30 s after it was killed")
		}
	}
	if n := rows(t, cluster.URL()); n != 1 {
		t.Fatalf("%d rows are there after kill -9 of the server; want 1", n)
	}
}

func TestAStalePIDFileOfALivingStrangerDoesNotStopAStart(t *testing.T) {
	t.Parallel()
	dir := preparedDir(t)
	first := start(t, dir)
	stop(t, first)
	// A process of the same account has got the dead server's id.
	stranger := exec.Command("/bin/sleep", "60")
	stranger.Dir, stranger.SysProcAttr = "/", first.account.Attributes()
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stranger.Process.Kill()
		_ = stranger.Wait()
	})
	pidFile := filepath.Join(first.paths.data, "postmaster.pid")
	text := fmt.Sprintf("%d\n%s\n1700000000\n5432\n%s\n\n  0 0\nready\n",
		stranger.Process.Pid, first.paths.data, first.paths.socketDir)
	if err := os.WriteFile(pidFile, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := first.account.Own(pidFile); err != nil {
		t.Fatal(err)
	}
	if _, ok := Attach(dir); ok {
		t.Fatal("a stranger was taken for the server")
	}
	start(t, dir)
	if err := stranger.Process.Signal(syscall.Signal(0)); err != nil {
		t.Fatalf("the stranger was killed: %v", err)
	}
}

func TestOfTwoStartsAtOnceOneWinsAndTheOtherSaysWho(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	type outcome struct {
		cluster *Cluster
		err     error
	}
	outcomes := make(chan outcome)
	for range 2 {
		go func() {
			cluster, err := startCluster(t.Context(), ClusterConfig{DataDir: dir, Log: quiet()}, 0)
			outcomes <- outcome{cluster, err}
		}()
	}
	won := 0
	for range 2 {
		o := <-outcomes
		if o.err == nil {
			won++
			defer stop(t, o.cluster)
			continue
		}
		if !errors.Is(o.err, ErrClusterInUse) || !strings.Contains(o.err.Error(), strconv.Itoa(os.Getpid())) {
			t.Errorf("the loser says %v; want ErrClusterInUse with the winner's process id", o.err)
		}
	}
	if won != 1 {
		t.Fatalf("%d of two starts won", won)
	}
}

func TestAStartWaitsForACommandThatIsAboutToEnd(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	command, err := JoinCluster(t.Context(), ClusterConfig{DataDir: dir, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	mustExec(t, command.URL(), "CREATE TABLE kept AS SELECT 1")
	ended := make(chan error, 1)
	go func() { ended <- command.Stop(context.Background()) }()
	cluster := start(t, dir)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if n := rows(t, cluster.URL()); n != 1 {
		t.Fatalf("%d rows are there; want 1", n)
	}
}

func TestACommandJoinsARunningClusterAndIsWaitedFor(t *testing.T) {
	t.Parallel()
	dir := preparedDir(t)
	owner := start(t, dir)
	joined, err := JoinCluster(t.Context(), ClusterConfig{DataDir: dir, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	if joined.URL() != owner.URL() {
		t.Fatalf("the command works on %s; want the running %s", joined.URL(), owner.URL())
	}
	if address, ok := Attach(dir); !ok || address != owner.URL() {
		t.Fatalf("Attach gives %q, %v; want %q", address, ok, owner.URL())
	}
	stopped := make(chan struct{})
	go func() {
		stop(t, owner)
		close(stopped)
	}()
	mustExec(t, joined.URL(), "SELECT pg_sleep(0.3)")
	select {
	case <-stopped:
		t.Error("the owner stopped under a command that had joined")
	default:
	}
	stop(t, joined)
	<-stopped
}

// One that joined it then would find its connections cut within the second.
func TestACommandDoesNotJoinAClusterThatIsAboutToStop(t *testing.T) {
	t.Parallel()
	dir := preparedDir(t)
	owner := start(t, dir)
	mustExec(t, owner.URL(), "CREATE TABLE kept AS SELECT 1")
	first, err := JoinCluster(t.Context(), ClusterConfig{DataDir: dir, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	go func() {
		stop(t, owner)
		close(stopped)
	}()
	for !held(owner.paths.home, stoppingLock) {
		if err := pause(t.Context(), poll); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok := Attach(dir); !ok {
		t.Log("the server is gone already")
	}
	type result struct {
		cluster *Cluster
		err     error
	}
	second := make(chan result, 1)
	go func() {
		c, err := JoinCluster(t.Context(), ClusterConfig{DataDir: dir, Log: quiet()})
		second <- result{c, err}
	}()
	stop(t, first)
	<-stopped
	r := <-second
	if r.err != nil {
		t.Fatal(r.err)
	}
	defer stop(t, r.cluster)
	if r.cluster.Joined() {
		t.Error("the command has joined a cluster that was about to stop")
	}
	if n := rows(t, r.cluster.URL()); n != 1 {
		t.Errorf("%d rows are there, want 1", n)
	}
}

func TestACommandThatLeavesDoesNotStopTheRunningCluster(t *testing.T) {
	t.Parallel()
	dir := preparedDir(t)
	owner := start(t, dir)
	for range 2 {
		joined, err := JoinCluster(t.Context(), ClusterConfig{DataDir: dir, Log: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		stop(t, joined)
	}
	mustExec(t, owner.URL(), "SELECT 1")
}

func TestDataThatIsNotOursToTouchIsRefused(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		sentence string
		file     string
		text     string
		words    []string
	}{
		{"the data of another major version", "PG_VERSION", "12\n", []string{"PostgreSQL 12", "database.url", "pg_upgrade"}},
		{"a version that is none", "PG_VERSION", "new\n", []string{"PG_VERSION", `"new"`}},
		{"files of something else", "letters.txt", "dear\n", []string{"no PostgreSQL data", "move them away"}},
	} {
		t.Run(row.sentence, func(t *testing.T) {
			t.Parallel()
			dir := dataDir(t)
			path := filepath.Join(dir, "postgres", "data", row.file)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(row.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := StartCluster(t.Context(), ClusterConfig{DataDir: dir, Log: quiet()})
			if err == nil {
				t.Fatal("it was started")
			}
			for _, word := range row.words {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("the error is %q; want it to say %q", err, word)
				}
			}
			if text, err := os.ReadFile(path); err != nil || string(text) != row.text {
				t.Errorf("the file holds %q, %v; want it untouched", text, err)
			}
		})
	}
}

func TestADeepDataDirectoryGetsAShortSocket(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	deep := filepath.Join(dir, strings.Repeat("d", 60), strings.Repeat("e", 60))
	cluster := start(t, deep)
	if len(cluster.paths.socketDir)+len("/"+socketName) > maxSocketPath {
		t.Fatalf("the socket is in %s", cluster.paths.socketDir)
	}
	t.Cleanup(func() { _ = os.RemoveAll(cluster.paths.socketDir) })
	mustExec(t, cluster.URL(), "SELECT 1")
	if address, ok := Attach(deep); !ok || address != cluster.URL() {
		t.Fatalf("Attach gives %q, %v; want %q", address, ok, cluster.URL())
	}
}

func TestAFolderThatPostgreSQLMayNotEnterIsNamed(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		// Only root runs PostgreSQL under another account; for others the
		// same folder is their own.
		start(t, filepath.Join(dataDir(t), "inner"))
		return
	}
	closed := filepath.Join(dataDir(t), "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := StartCluster(t.Context(), ClusterConfig{DataDir: filepath.Join(closed, "var"), Log: quiet()})
	if err == nil || !strings.Contains(err.Error(), closed) || !strings.Contains(err.Error(), "data_dir") {
		t.Fatalf("the error is %v; want it to name %s and the setting", err, closed)
	}
}

// A checkout in the home of root, which is closed to all others.
func TestBelowAClosedHomeTheClusterIsKeptElsewhereWithALink(t *testing.T) {
	t.Parallel()
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	checkout, err := os.MkdirTemp(home, "zvonok-cluster-") // closed by its mode
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(checkout) })
	dir := filepath.Join(checkout, "var")
	cluster := start(t, dir)
	mustExec(t, cluster.URL(), "CREATE TABLE kept AS SELECT 1")
	if address, ok := Attach(dir); !ok || address != cluster.URL() {
		t.Errorf("Attach gives %q, %v; want %q", address, ok, cluster.URL())
	}
	stop(t, cluster)
	second := start(t, dir)
	if n := rows(t, second.URL()); n != 1 {
		t.Errorf("%d rows are there after a restart; want 1", n)
	}
	stop(t, second)
	if err := RemoveCluster(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, "postgres"), cluster.paths.home} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
}

func TestAMachineWithoutPostgreSQLIsToldWhatToInstall(t *testing.T) {
	t.Setenv("PG_BIN", t.TempDir())
	_, err := StartCluster(t.Context(), ClusterConfig{DataDir: dataDir(t), Log: quiet()})
	if err == nil || !strings.Contains(err.Error(), "PG_BIN") {
		t.Fatalf("the error is %v; want it to name PG_BIN", err)
	}
	for _, word := range []string{"apt-get install postgresql", "PG_BIN", "database.url"} {
		if !strings.Contains(postmaster.ErrNoPrograms.Error(), word) {
			t.Errorf("%q does not say %q", postmaster.ErrNoPrograms, word)
		}
	}
}

func TestPostgreSQLsLogHoldsNoRows(t *testing.T) {
	t.Parallel()
	cluster := start(t, preparedDir(t))
	conn := connectTo(t, cluster.URL())
	const phone = "79000000042"
	for _, sql := range []string{
		"CREATE TABLE people (phone text UNIQUE)",
		"INSERT INTO people VALUES ('" + phone + "')",
		"INSERT INTO people VALUES ('" + phone + "')", // breaks the constraint; the detail would quote the row
	} {
		_, _ = conn.Exec(t.Context(), sql)
	}
	stop(t, cluster)
	files, err := filepath.Glob(filepath.Join(cluster.paths.log, "*.log"))
	if err != nil || len(files) == 0 {
		t.Fatalf("there is no log: %v, %v", files, err)
	}
	said := false
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		said = said || strings.Contains(string(text), "people_phone_key")
		if strings.Contains(string(text), phone) {
			t.Errorf("%s quotes the row: %s", file, text)
		}
	}
	if !said {
		t.Error("the log does not tell of the broken constraint at all")
	}
}

func TestARemovedClusterIsGoneAndOneInUseStays(t *testing.T) {
	t.Parallel()
	dir := preparedDir(t)
	cluster := start(t, dir)
	lock, _, err := takeOwnership(t.Context(), cluster.paths.home, 0)
	if !errors.Is(err, ErrClusterInUse) {
		t.Fatalf("the lock of a running cluster was taken: %v, %v", lock, err)
	}
	stop(t, cluster)
	if err := RemoveCluster(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "postgres")); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the cluster's folder is still there: %v", err)
	}
	if err := RemoveCluster(t.Context(), dir); err != nil {
		t.Fatalf("removing nothing: %v", err)
	}
}
