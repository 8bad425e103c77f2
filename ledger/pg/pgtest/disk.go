package pgtest

import (
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// diskSource is a library that stands between PostgreSQL and the kernel.
//
//go:embed disk/disk.c
var diskSource []byte

// diskFails names the file whose existence makes the disk fail.
const diskFails = "ZVONOK_TEST_DISK_FAILS"

// NewClusterOnADiskThatFails is NewCluster on a disk that FailDisk and MendDisk
// break and mend. It needs a C compiler, as the race detector does.
func NewClusterOnADiskThatFails(t testing.TB) *Cluster {
	t.Helper()
	cluster, err := newCluster(t, func(c *Cluster) error {
		library := filepath.Join(c.dir, "disk.so")
		if err := compileDisk(library); err != nil {
			return err
		}
		c.environment = []string{"LD_PRELOAD=" + library, diskFails + "=" + c.diskFlag()}
		return c.account.Own(library)
	})
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	return cluster
}

func compileDisk(library string) error {
	source := library + ".c"
	if err := os.WriteFile(source, diskSource, 0o600); err != nil {
		return fmt.Errorf("write the source of a failing disk: %w", err)
	}
	for _, compiler := range []string{os.Getenv("CC"), "gcc", "clang", "cc"} {
		path, err := exec.LookPath(compiler)
		if err != nil {
			continue
		}
		if out, err := exec.Command(path, "-shared", "-fPIC", "-o", library, source).CombinedOutput(); err != nil {
			return fmt.Errorf("compile a failing disk with %s: %w: %s", path, err, out)
		}
		return nil
	}
	return errors.New("a C compiler is needed to make a failing disk: install gcc and libc6-dev")
}

func (c *Cluster) diskFlag() string { return filepath.Join(c.dir, "disk-fails") }

// FailDisk makes every fsync and fdatasync of PostgreSQL an EIO from now on. At
// the next one it gives up, tries to recover and, as that cannot be forced to the
// disk either, ends; AwaitEnd waits for that.
func (c *Cluster) FailDisk(t testing.TB) {
	t.Helper()
	if err := os.WriteFile(c.diskFlag(), nil, 0o644); err != nil {
		t.Fatalf("pgtest: make the disk fail: %v", err)
	}
}

// MendDisk takes FailDisk back.
func (c *Cluster) MendDisk(t testing.TB) {
	t.Helper()
	if err := os.Remove(c.diskFlag()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("pgtest: mend the disk: %v", err)
	}
}
