package ledger_test

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger"
	"zvonok/ledger/pg"
)

// startPrivate starts the private PostgreSQL of the program.
func startPrivate(t *testing.T, dataDir string) (url string) {
	t.Helper()
	cluster, err := pg.StartCluster(t.Context(), pg.ClusterConfig{DataDir: dataDir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return cluster.URL()
}

// T15: a base backup and the log up to a point bring back the books as they
// were at that point: verified, with the same counts and seal, knowing every id
// before it and none after it.
func TestABackupAndItsLogRestoreTheBooksToAPoint(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "zvonok-restore-") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, path := range []string{dir, filepath.Join(dir, "log"), filepath.Join(dir, "b"), filepath.Join(dir, "b", "postgres")} {
		if err := os.MkdirAll(path, 0o711); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o711); err != nil { // PostgreSQL may run as another account
			t.Fatal(err)
		}
	}
	url := startPrivate(t, filepath.Join(dir, "a"))
	if _, err := pg.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	b := newBooksAt(t, url, 2)
	b.fund(1000_00)
	for i := range 20 {
		past := b.buy(i%2, fmt.Sprint("past-", i), 1_00)
		past.OccurredAt = ago(1)
		b.postOne(past)
	}
	b.closeThrough(ago(1))

	var programs, sockets string
	b.tamperRow(`SELECT setting FROM pg_config WHERE name = 'BINDIR'`, &programs)
	b.tamperRow(`SHOW unix_socket_directories`, &sockets)
	client := func(name string, args ...string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), filepath.Join(programs, name), append(args, "-h", sockets, "-U", "zvonok", "-w")...)
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
		return cmd
	}
	archive := filepath.Join(dir, "log")
	receiver := client("pg_receivewal", "-D", archive, "--synchronous")
	b.must(receiver.Start())
	await(t, func() bool {
		var streaming bool
		b.tamperRow(`SELECT EXISTS (SELECT FROM pg_stat_replication WHERE state = 'streaming')`, &streaming)
		return streaming
	})
	restored := filepath.Join(dir, "b", "postgres", "data")
	if out, err := client("pg_basebackup", "-D", restored, "-X", "none", "-c", "fast", "--no-manifest").CombinedOutput(); err != nil {
		t.Fatalf("take the backup: %v: %s", err, out)
	}
	for i := range 20 {
		b.postOne(b.buy(i%2, fmt.Sprint("before-", i), 1_00))
	}
	_, err = b.book.Fold(t.Context(), b.pool)
	b.must(err)
	want := b.sound()
	var point string
	b.tamperRow(`SELECT pg_create_restore_point('here')::text`, &point)
	for i := range 20 {
		b.postOne(b.buy(i%2, fmt.Sprint("after-", i), 1_00))
	}
	var segment string
	b.tamperRow(`SELECT pg_walfile_name(pg_switch_wal())`, &segment)
	await(t, func() bool {
		_, err := os.Stat(filepath.Join(archive, segment))
		return err == nil
	})
	b.must(receiver.Process.Signal(syscall.SIGINT))
	b.must(receiver.Wait())

	for name, text := range map[string]string{
		"recovery.signal": "",
		"postgresql.auto.conf": fmt.Sprintf("restore_command = 'cp \"%s/%%f\" \"%%p\"'\n"+
			"recovery_target_name = 'here'\nrecovery_target_action = 'promote'\n", archive),
	} {
		b.must(os.WriteFile(filepath.Join(restored, name), []byte(text), 0o600))
	}
	own(t, filepath.Join(dir, "a", "postgres", "data"), archive, restored)
	back := newBooksOn(t, startPrivate(t, filepath.Join(dir, "b")), b)
	await(t, func() bool {
		var recovering bool
		back.must(back.pool.QueryRow(t.Context(), `SELECT pg_is_in_recovery()`).Scan(&recovering))
		return !recovering
	})
	got := back.sound()
	if got.Postings != want.Postings || got.InWallets != want.InWallets || got.Turnover != want.Turnover || got.LastSeal != want.LastSeal ||
		got.ClosedDays != want.ClosedDays {
		t.Errorf("restored are %+v, backed up were %+v", got, want)
	}
	if v := back.postOne(back.buy(0, "before-0", 1_00)); v.Code != ledger.CodeDuplicate {
		t.Errorf("an id from before the point is %s", v.Code)
	}
	if v := back.postOne(back.buy(0, "after-0", 1_00)); v.Code != ledger.CodePosted {
		t.Errorf("an id from after the point is %s", v.Code)
	}
	_, err = back.book.Fold(t.Context(), back.pool)
	back.must(err)
	back.sound()
}

// tamperRow reads a row as the owner of the database, outside of a transaction.
func (b *books) tamperRow(query string, into ...any) {
	b.Helper()
	conn, err := pgx.Connect(b.Context(), b.url)
	b.must(err)
	defer conn.Close(context.WithoutCancel(b.Context()))
	b.must(conn.QueryRow(b.Context(), query).Scan(into...))
}

// await waits for a condition, for a minute at most.
func await(t *testing.T, condition func() bool) {
	t.Helper()
	for began := time.Now(); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatal("it did not come about within a minute")
		}
	}
}

// own gives folders to the account that owns like.
func own(t *testing.T, like string, folders ...string) {
	t.Helper()
	info, err := os.Stat(like)
	if err != nil {
		t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	for _, folder := range folders {
		if err := filepath.WalkDir(folder, func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return os.Lchown(path, int(owner.Uid), int(owner.Gid))
		}); err != nil {
			t.Fatal(err)
		}
	}
}
