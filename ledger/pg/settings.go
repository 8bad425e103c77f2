package pg

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Bounds of the private cluster's shared memory, in bytes: a quarter of the
// machine's memory within these. More than the upper bound helps a city of
// 400,000 little, and the machine is also the gateway's.
const (
	minSharedBuffers = 64 << 20
	maxSharedBuffers = 2 << 30
	// unknownMemory is assumed when the machine does not tell its memory.
	unknownMemory = 1 << 30
)

// writeSettings writes PostgreSQL's settings for one small machine that is also
// the gateway's. They are written anew at each start; an administrator's own go
// to ALTER SYSTEM, which PostgreSQL keeps in another file that wins.
func (c *Cluster) writeSettings(ctx context.Context) error {
	memory := machineMemory()
	buffers := min(max(memory/4, minSharedBuffers), maxSharedBuffers)
	megabytes := func(bytes uint64) string { return strconv.FormatUint(bytes>>20, 10) + "MB" }
	settings := []struct{ name, value, reason string }{
		{"max_connections", "100", "pools of the gateway, its commands and an administrator"},
		{"shared_buffers", megabytes(buffers), "a quarter of the memory, bounded"},
		{"effective_cache_size", megabytes(max(memory/2, buffers)), "what the kernel caches besides"},
		{"work_mem", "8MB", "statements are set-based but not large"},
		{"maintenance_work_mem", megabytes(min(max(memory/16, 32<<20), 256<<20)), "index builds and vacuum"},
		{"synchronous_commit", "on", "what a device was acknowledged is on the disk"},
		{"wal_compression", c.walCompression(ctx), "full-page images are most of the log"},
		{"max_wal_size", "512MB", "bounds the recovery after a crash to seconds"},
		{"checkpoint_timeout", "5min", "the same, for quiet times"},
		{"checkpoint_completion_target", "0.9", "spreads the writes"},
		{"random_page_cost", "1.1", "a solid-state disk, or all in memory"},
		{"max_parallel_workers_per_gather", "0", "two cores serve many small statements"},
		{"jit", "off", "the same"},
		{"autovacuum_naptime", "15s", "queue tables turn over in seconds"},
		{"autovacuum_vacuum_scale_factor", "0.05", "the same"},
		{"autovacuum_analyze_scale_factor", "0.05", "the same"},
		{"autovacuum_vacuum_insert_scale_factor", "0.1", "large tables only grow"},
		{"autovacuum_vacuum_cost_limit", "1000", "vacuum keeps up with the queue"},
		{"timezone", "UTC", "the organisations have their zones, the server has none"},
		{"log_timezone", "UTC", "the same"},
		{"logging_collector", "on", "the log goes on when our process dies"},
		{"log_directory", c.paths.log, "beside the data, not in it"},
		{"log_filename", "postgres-%a.log", "one file per weekday"},
		{"log_truncate_on_rotation", "on", "so a week is kept"},
		{"log_rotation_age", "1d", "the same"},
		{"log_rotation_size", "0", "a file is emptied by time alone"},
		{"log_file_mode", "0600", "like the data"},
		{"log_error_verbosity", "terse", "details quote rows, and rows are people"},
		{"log_min_error_statement", "panic", "the same for statements"},
		{"log_checkpoints", "off", "of no use to an administrator of a school"},
	}
	var text strings.Builder
	text.WriteString("# Written by zvonok at each start. Settings of your own: ALTER SYSTEM SET ...\n")
	for _, setting := range settings {
		fmt.Fprintf(&text, "%s = '%s' # %s\n", setting.name, strings.ReplaceAll(setting.value, "'", "''"), setting.reason)
	}
	path := filepath.Join(c.paths.data, "postgresql.conf")
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		return fmt.Errorf("write PostgreSQL's settings: %w", err)
	}
	return c.account.Own(path)
}

// walCompression is the cheapest method that this PostgreSQL was built with. Its
// own one cost a fifth of the processor's time in a morning's load, LZ4 next to
// nothing.
func (c *Cluster) walCompression(ctx context.Context) string {
	if c.programs.Major >= 15 && c.programs.Takes(ctx, c.account, c.paths.data, "wal_compression", "lz4") {
		return "lz4"
	}
	return "on"
}

// machineMemory returns the memory this process may use, in bytes: the
// machine's, or the limit of its control group when that is lower.
func machineMemory() uint64 {
	memory := uint64(unknownMemory)
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); err == nil {
		memory = uint64(info.Totalram) * uint64(info.Unit)
	}
	for _, path := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if limit, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil {
			memory = min(memory, limit)
		}
	}
	return memory
}

// shortHash names a path in a few letters.
func shortHash(path string) string {
	sum := sha256.Sum256([]byte(path))
	return hex.EncodeToString(sum[:6])
}
