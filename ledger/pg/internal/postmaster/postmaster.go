// Package postmaster finds PostgreSQL's server programs on this machine, picks
// the account they may run under and makes new data directories with them.
//
// PostgreSQL refuses to run as root. A process of root therefore runs the
// programs under the account postgres or, where there is none, nobody; every
// other process runs them as itself.
package postmaster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// OldestMajor is the oldest major version of PostgreSQL that Zvonok works with.
	OldestMajor = 14
	// versionTimeout bounds "postgres --version".
	versionTimeout = 10 * time.Second
)

// searched are the folders distributions put the server programs in, besides PATH.
var searched = []string{
	"/usr/lib/postgresql/*/bin",         // Debian, Ubuntu
	"/usr/pgsql-*/bin",                  // PGDG for Red Hat and its kin
	"/usr/libexec/postgresql*",          // Alpine
	"/usr/lib/postgresql*/bin",          // openSUSE
	"/opt/postgresql*/bin",              // hand-made
	"/usr/local/pgsql/bin",              // built from source
	"/nix/var/nix/profiles/default/bin", // Nix
	"/run/current-system/sw/bin",        // NixOS
}

// ErrNoPrograms says that PostgreSQL's server programs are not on this machine.
var ErrNoPrograms = errors.New("PostgreSQL's server programs (initdb, postgres) were not found: " +
	"install them (Debian and Ubuntu: apt-get install postgresql), " +
	"name their folder in PG_BIN, or give database.url")

// Programs are the server programs of one installed version.
type Programs struct {
	// Dir is the folder that holds postgres and initdb.
	Dir string
	// Major is the major version, such as 15.
	Major int
}

// Postgres returns the path of the server program.
func (p Programs) Postgres() string { return filepath.Join(p.Dir, "postgres") }

// Find returns the programs to use: those of PG_BIN alone when that is set,
// else those in PATH and in the folders of distributions. Among several, it
// takes the wanted major version, or the newest when major is 0. It returns
// ErrNoPrograms when there are none at all, and another error that names what
// was found when the wanted version is not among them.
func Find(ctx context.Context, major int) (Programs, error) {
	found, err := installed(ctx)
	if err != nil {
		return Programs{}, err
	}
	if len(found) == 0 {
		return Programs{}, ErrNoPrograms
	}
	var versions []string
	for _, programs := range found { // newest first
		if programs.Major == major || (major == 0 && programs.Major >= OldestMajor) {
			return programs, nil
		}
		versions = append(versions, strconv.Itoa(programs.Major))
	}
	installed := strings.Join(slices.Compact(versions), ", ")
	if major == 0 {
		return Programs{}, fmt.Errorf("PostgreSQL %d or later is needed and only %s is installed: "+
			"install a newer one, or give database.url", OldestMajor, installed)
	}
	return Programs{}, fmt.Errorf("PostgreSQL %d is needed and only %s is installed", major, installed)
}

func installed(ctx context.Context) ([]Programs, error) {
	if dir := os.Getenv("PG_BIN"); dir != "" {
		programs, err := inspect(ctx, dir)
		if err != nil {
			return nil, fmt.Errorf("PG_BIN names the folder %s: %w", dir, err)
		}
		return []Programs{programs}, nil
	}
	dirs := filepath.SplitList(os.Getenv("PATH"))
	for _, pattern := range searched {
		matches, err := filepath.Glob(pattern)
		if err != nil {
			return nil, fmt.Errorf("look for PostgreSQL in %s: %w", pattern, err)
		}
		dirs = append(dirs, matches...)
	}
	var found []Programs
	seen := map[string]bool{}
	for _, dir := range dirs {
		// A folder of PATH often holds links into the true one.
		path, err := filepath.EvalSymlinks(filepath.Join(dir, "postgres"))
		if err != nil || seen[path] {
			continue
		}
		seen[path] = true
		if programs, err := inspect(ctx, filepath.Dir(path)); err == nil {
			found = append(found, programs)
		}
	}
	slices.SortStableFunc(found, func(a, b Programs) int { return b.Major - a.Major })
	return found, nil
}

// inspect asks the programs in dir for their version.
func inspect(ctx context.Context, dir string) (Programs, error) {
	for _, name := range []string{"postgres", "initdb"} {
		if _, err := exec.LookPath(filepath.Join(dir, name)); err != nil {
			return Programs{}, fmt.Errorf("look for %s: %w", name, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return Programs{}, fmt.Errorf("ask postgres for its version: %w", err)
	}
	major, err := parseVersion(string(out))
	if err != nil {
		return Programs{}, err
	}
	return Programs{Dir: dir, Major: major}, nil
}

// parseVersion reads the major version from "postgres (PostgreSQL) 15.18 (Debian ...)" or "... 18beta1".
func parseVersion(out string) (int, error) {
	_, version, _ := strings.Cut(out, "(PostgreSQL) ")
	end := strings.IndexFunc(version, func(r rune) bool { return r < '0' || r > '9' })
	if end > 0 {
		if major, err := strconv.Atoi(version[:end]); err == nil {
			return major, nil
		}
	}
	return 0, fmt.Errorf("postgres does not tell its version: it says %q", out)
}

// Account is whom the server programs run as.
type Account struct {
	Name     string
	UID, GID uint32
	// other is true when the account is not the process's own.
	other bool
}

// ServiceAccount picks the account for a cluster in dir, which may not exist
// yet: the process's own unless that is root; then whoever owns dir already,
// postgres, or else nobody. A dir that belongs to somebody whom this process
// cannot become is an error.
func ServiceAccount(dir string) (Account, error) {
	uid := uint32(os.Geteuid())
	owner, owned := ownerOf(dir)
	if uid != 0 {
		if owned && owner != uid {
			return Account{}, fmt.Errorf("%s belongs to another user (%d): run zvonok as that user or as root, "+
				"or choose another data_dir", dir, owner)
		}
		return accountByID(uid, false)
	}
	if owned && owner != 0 {
		return accountByID(owner, true)
	}
	for _, name := range []string{"postgres", "nobody"} {
		entry, err := user.Lookup(name)
		if err != nil {
			continue
		}
		if account, err := newAccount(entry, true); err == nil && account.UID != 0 {
			return account, nil
		}
	}
	return Account{}, errors.New("PostgreSQL refuses to run as root, and this machine has neither " +
		"an account postgres nor nobody to run it as: create one, or give database.url")
}

func ownerOf(path string) (uid uint32, exists bool) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return stat.Uid, true
}

func accountByID(uid uint32, other bool) (Account, error) {
	entry, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return Account{}, fmt.Errorf("PostgreSQL needs its account to have a name, but user %d has none: "+
			"give it one in /etc/passwd, or give database.url (%w)", uid, err)
	}
	return newAccount(entry, other)
}

func newAccount(entry *user.User, other bool) (Account, error) {
	uid, err := strconv.ParseUint(entry.Uid, 10, 32)
	if err != nil {
		return Account{}, fmt.Errorf("read the id of user %s: %w", entry.Username, err)
	}
	gid, err := strconv.ParseUint(entry.Gid, 10, 32)
	if err != nil {
		return Account{}, fmt.Errorf("read the group of user %s: %w", entry.Username, err)
	}
	return Account{Name: entry.Username, UID: uint32(uid), GID: uint32(gid), other: other}, nil
}

// Attributes returns how to start a program under the account.
func (a Account) Attributes() *syscall.SysProcAttr {
	attributes := &syscall.SysProcAttr{}
	if a.other {
		attributes.Credential = &syscall.Credential{Uid: a.UID, Gid: a.GID}
	}
	return attributes
}

// Own gives a file or folder to the account; it does nothing when the account
// is the process's own.
func (a Account) Own(path string) error {
	if !a.other {
		return nil
	}
	if err := os.Lchown(path, int(a.UID), int(a.GID)); err != nil {
		return fmt.Errorf("give %s to the account %s: %w", path, a.Name, err)
	}
	return nil
}

// Reach returns an error that names the first folder on the way to path which
// the account may not enter. It judges by the permission bits of owner, group
// and others, which is how such folders (a home of root) are closed in practice.
func (a Account) Reach(path string) error {
	if !a.other {
		return nil
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it will be made by us, enterable
		}
		if err != nil {
			return fmt.Errorf("look at the folder %s: %w", dir, err)
		}
		enter := fs.FileMode(0o001)
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			switch {
			case stat.Uid == a.UID:
				enter = 0o100
			case stat.Gid == a.GID:
				enter = 0o010
			}
		}
		if info.Mode().Perm()&enter == 0 {
			return fmt.Errorf("PostgreSQL does not run as root but as the account %s, and that account may not enter "+
				"the folder %s (%s): choose a data_dir elsewhere, such as /var/lib/zvonok, or let others enter it "+
				"(chmod o+x %s)", a.Name, dir, info.Mode().Perm(), dir)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

// Superuser is the name of the only login role of a cluster made by Init. It is
// a fixed name, not that of an operating system's account, so that a data
// directory may be moved between machines and accounts.
const Superuser = "zvonok"

// Init makes a data directory at dir, which must be absent or empty, into which
// nobody may log in until Admit has said who may. durable asks for every file
// to be forced to disk before Init returns.
func (p Programs) Init(ctx context.Context, account Account, dir string, durable bool) error {
	args := []string{
		"--pgdata=" + dir, "--username=" + Superuser, "--auth=reject", "--encoding=UTF8",
		"--locale=C.UTF-8", "--data-checksums",
	}
	if !durable {
		args = append(args, "--no-sync")
	}
	cmd := exec.CommandContext(ctx, filepath.Join(p.Dir, "initdb"), args...)
	cmd.Dir = "/" // the account may not enter ours
	cmd.Env = Environment()
	cmd.SysProcAttr = account.Attributes()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("initdb in %s as %s: %w: %s", dir, account.Name, err, lastLines(string(out), 4))
	}
	return nil
}

// Takes reports whether PostgreSQL accepts a value of a setting, which may depend
// on the libraries that it was built with. It asks the program, on the data
// directory dir, without starting a server.
func (p Programs) Takes(ctx context.Context, account Account, dir, setting, value string) bool {
	cmd := exec.CommandContext(ctx, p.Postgres(), "-D", dir, "-c", setting+"="+value, "-C", setting)
	cmd.Dir = "/" // the account may not enter ours
	cmd.Env = Environment()
	cmd.SysProcAttr = account.Attributes()
	return cmd.Run() == nil
}

// Admit rewrites who may log in: over the Unix socket, as Superuser, whoever the
// kernel says is the account or the process's own user. No password exists that
// could leak, and a socket whose folder was opened by mistake still admits
// nobody else.
func (a Account) Admit(dataDir string) error {
	names := []string{a.Name}
	if own, err := user.LookupId(strconv.Itoa(os.Geteuid())); err == nil && own.Username != a.Name {
		names = append(names, own.Username)
	}
	var ident strings.Builder
	for _, name := range names {
		fmt.Fprintf(&ident, "zvonok %q %s\n", name, Superuser)
	}
	for file, text := range map[string]string{
		"pg_hba.conf":   "local all,replication " + Superuser + " peer map=zvonok\n",
		"pg_ident.conf": ident.String(),
	} {
		path := filepath.Join(dataDir, file)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return fmt.Errorf("write who may log in: %w", err)
		}
		if err := a.Own(path); err != nil {
			return err
		}
	}
	return nil
}

// Environment is ours without PostgreSQL's own variables, which would redirect
// the programs to another cluster, and with the untranslated messages that logs want.
func Environment() []string {
	env := slices.DeleteFunc(os.Environ(), func(entry string) bool {
		return strings.HasPrefix(entry, "PG") || strings.HasPrefix(entry, "LC_") || strings.HasPrefix(entry, "LANG")
	})
	return append(env, "LC_ALL=C")
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], " | ")
}
