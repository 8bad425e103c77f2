package postmaster

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestTheVersionIsReadFromWhatPostgresSays(t *testing.T) {
	t.Parallel()
	for said, want := range map[string]int{
		"postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n": 15,
		"postgres (PostgreSQL) 18beta1\n":                        18,
		"postgres (PostgreSQL) 9.6.24\n":                         9,
		"postgres (EnterpriseDB) 15\n":                           0,
		"":                                                       0,
	} {
		got, err := parseVersion(said)
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("%q was read as %d, %v; want %d", said, got, err, want)
		}
	}
}

// install makes a folder with programs that tell a version.
func install(t *testing.T, version string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"postgres", "initdb"} {
		script := "#!/bin/sh\necho 'postgres (PostgreSQL) " + version + "'\n"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestTheNewestOrTheWantedVersionIsFound(t *testing.T) {
	old, young, links := install(t, "97.1"), install(t, "98.0"), t.TempDir()
	if err := os.Symlink(filepath.Join(young, "postgres"), filepath.Join(links, "postgres")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PG_BIN", "")
	t.Setenv("PATH", strings.Join([]string{old, links, os.Getenv("PATH")}, string(os.PathListSeparator)))
	for major, want := range map[int]string{0: young, 98: young, 97: old} {
		programs, err := Find(t.Context(), major)
		if err != nil || programs.Dir != want {
			t.Errorf("for version %d, %s was found, %v; want %s", major, programs.Dir, err, want)
		}
	}
	if _, err := Find(t.Context(), 96); err == nil || !strings.Contains(err.Error(), "98, 97") {
		t.Errorf("for version 96 the error is %v; want one that tells what is installed", err)
	}
	t.Setenv("PG_BIN", install(t, "13.5"))
	if _, err := Find(t.Context(), 0); err == nil || !strings.Contains(err.Error(), "14 or later") {
		t.Errorf("for version 13 the error is %v; want one that tells what is needed", err)
	}
	t.Setenv("PG_BIN", t.TempDir())
	if _, err := Find(t.Context(), 0); err == nil || !strings.Contains(err.Error(), "PG_BIN") {
		t.Errorf("for a wrong PG_BIN the error is %v; want one that names it", err)
	}
}

func TestAFolderOfSomebodyElseNamesItsOwner(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	account, err := ServiceAccount(dir)
	if err != nil {
		t.Fatal(err)
	}
	if account.UID == 0 {
		t.Fatal("PostgreSQL would run as root")
	}
	if os.Geteuid() != 0 {
		if _, err := ServiceAccount("/"); err == nil || !strings.Contains(err.Error(), "another user") {
			t.Errorf("a folder of root gave the error %v", err)
		}
		return
	}
	// Root goes on as whoever made the cluster.
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if account, err := ServiceAccount(dir); err != nil || account.UID != 65534 {
		t.Errorf("a folder of user 65534 gives the account %+v, %v", account, err)
	}
}

func TestAChildEndsWithSignalsAndTellsHow(t *testing.T) {
	t.Parallel()
	child, err := StartChild(exec.Command("/bin/sleep", "60"), syscall.SIGKILL)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-child.Exited():
		t.Fatal("it ended by itself")
	default:
	}
	child.Signal(syscall.SIGTERM)
	var exit *exec.ExitError
	if err := child.Err(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Errorf("it ended with %v; want SIGTERM", err)
	}
	child.Signal(syscall.SIGTERM) // harmless now
	if _, err := StartChild(exec.Command("/nonexistent"), syscall.SIGKILL); err == nil {
		t.Error("a program that does not exist was started")
	}
}

func TestAnAdoptedProcessIsSeenToEnd(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("/bin/sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if parent := Parent(cmd.Process.Pid); parent != os.Getpid() {
		t.Errorf("the parent of our child is %d; want %d", parent, os.Getpid())
	}
	adopted, err := Adopt(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	adopted.Signal(syscall.SIGKILL)
	select {
	case <-adopted.Exited(): // while it is a zombie still
	case <-time.After(30 * time.Second):
		t.Error("its end was not seen")
	}
	_ = cmd.Wait()
}

func TestAStalePIDFileIsToldFromNone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := ReadPIDFile(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file gave %v", err)
	}
	for text, want := range map[string]PIDFile{
		"4711\n/data\n1\n5432\n/run/z\n\n1 2\nready\n": {PID: 4711, SocketDir: "/run/z"},
		"4711\n/data\n": {PID: 4711},
		"":              {},
		"-1\n":          {},
		"x\n":           {},
	} {
		if err := os.WriteFile(filepath.Join(dir, "postmaster.pid"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := ReadPIDFile(dir)
		if got != want || (err == nil) != (want.PID > 0) {
			t.Errorf("%q was read as %+v, %v; want %+v", text, got, err, want)
		}
	}
	if Serves(os.Getpid(), dir) || len(Servers(dir)) > 0 {
		t.Error("this test was taken for a server")
	}
}
