package pg

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"zvonok/ledger/pg/internal/postmaster"
)

const (
	// systemHome holds the clusters of a root who keeps data where nobody else may go.
	systemHome = "/var/lib/zvonok"
	// clusterDatabase is the one database of the private cluster.
	clusterDatabase = "zvonok"
	// socketName is the file PostgreSQL makes in its socket folder.
	socketName = ".s.PGSQL.5432"
)

// clusterPaths are the places of a cluster.
type clusterPaths struct {
	home, data, log, socketDir string
}

func (p clusterPaths) url(database string) string {
	return (&url.URL{
		Scheme: "postgres", User: url.User(postmaster.Superuser), Path: "/" + database,
		RawQuery: url.Values{"host": {p.socketDir}}.Encode(),
	}).String()
}

// locate names the places of a cluster without touching them. Links on the way
// are followed, so that the data directory is known as the kernel knows it.
func locate(dataDir string) (clusterPaths, error) {
	home, err := filepath.Abs(filepath.Join(dataDir, "postgres"))
	if err != nil {
		return clusterPaths{}, fmt.Errorf("find the folder of the private PostgreSQL: %w", err)
	}
	for existing := home; existing != "/"; existing = filepath.Dir(existing) {
		if real, err := filepath.EvalSymlinks(existing); err == nil {
			home = real + strings.TrimPrefix(home, existing)
			break
		}
	}
	return clusterPaths{home: home, data: filepath.Join(home, "data"), log: filepath.Join(home, "log")}, nil
}

// makeHome makes the cluster's folder and picks the account to run it.
func makeHome(config ClusterConfig) (clusterPaths, postmaster.Account, error) {
	paths, err := locate(config.DataDir)
	if err != nil {
		return clusterPaths{}, postmaster.Account{}, err
	}
	account, err := postmaster.ServiceAccount(paths.home)
	if err != nil {
		return clusterPaths{}, account, err
	}
	if err := os.MkdirAll(config.DataDir, 0o755); err != nil {
		return clusterPaths{}, account, fmt.Errorf("make the data directory: %w", err)
	}
	if err := account.Reach(paths.home); err != nil {
		if paths, err = moveHome(config, paths, account, err); err != nil {
			return clusterPaths{}, account, err
		}
	}
	for _, dir := range []string{paths.home, paths.log} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return clusterPaths{}, account, fmt.Errorf("make the folder of the private PostgreSQL: %w", err)
		}
		if err := os.Chmod(dir, 0o700); err != nil {
			return clusterPaths{}, account, fmt.Errorf("close the folder of the private PostgreSQL: %w", err)
		}
		if err := account.Own(dir); err != nil {
			return clusterPaths{}, account, err
		}
	}
	return paths, account, nil
}

// moveHome finds another place for the cluster of a root whose data directory
// lies where PostgreSQL's account may not go, which is the rule below a home of
// root: a folder of its own under systemHome, to which a link is left in the
// data directory. What exists already is not moved: that is the caller's
// unreachable.
func moveHome(
	config ClusterConfig, paths clusterPaths, account postmaster.Account, unreachable error,
) (clusterPaths, error) {
	home := filepath.Join(systemHome, shortHash(paths.home))
	temporary := strings.HasPrefix(paths.home, os.TempDir()+"/") // is not to leave anything behind
	if _, err := os.Lstat(paths.home); err == nil || temporary || account.Reach(home) != nil {
		return clusterPaths{}, unreachable
	}
	if err := os.MkdirAll(systemHome, 0o755); err != nil {
		return clusterPaths{}, errors.Join(unreachable, err)
	}
	if err := os.MkdirAll(home, 0o700); err != nil {
		return clusterPaths{}, errors.Join(unreachable, err)
	}
	if err := os.Symlink(home, filepath.Join(config.DataDir, "postgres")); err != nil {
		return clusterPaths{}, errors.Join(unreachable, err)
	}
	config.Log.Info("PostgreSQL does not run as root, and its account may not enter the data directory: "+
		"the private PostgreSQL is kept elsewhere, with a link to it", "account", account.Name, "dir", home)
	return locate(config.DataDir)
}

// socketDir returns where the socket goes: the cluster's own folder, or one
// with a short name for a data directory that lies too deep.
func socketDir(home string, account postmaster.Account) (string, error) {
	if len(filepath.Join(home, socketName)) <= maxSocketPath {
		return home, nil
	}
	parent := os.Getenv("XDG_RUNTIME_DIR")
	if os.Geteuid() == 0 {
		parent = "/run"
	}
	if info, err := os.Stat(parent); parent == "" || err != nil || !info.IsDir() {
		parent = "/tmp"
	}
	dir := filepath.Join(parent, "zvonok-"+shortHash(home))
	if err := os.Mkdir(dir, 0o700); err == nil {
		return dir, account.Own(dir)
	} else if !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("make a folder for PostgreSQL's socket: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", fmt.Errorf("look at the folder of PostgreSQL's socket: %w", err)
	}
	// In a folder that all may write to, somebody else could have made it.
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || stat.Uid != account.UID || !info.IsDir() || info.Mode().Perm() != 0o700 {
		return "", fmt.Errorf("%s, the folder for PostgreSQL's socket, is not a closed folder of the account %s: "+
			"remove it", dir, account.Name)
	}
	return dir, nil
}
