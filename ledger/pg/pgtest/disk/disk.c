// A disk that fails: while the file named by ZVONOK_TEST_DISK_FAILS exists, nothing
// that is to be forced to the disk gets there. Preloaded into PostgreSQL, see disk.go.
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fails(void)
{
	const char *file = getenv("ZVONOK_TEST_DISK_FAILS");
	int before = errno;
	int there = file != NULL && access(file, F_OK) == 0;

	errno = there ? EIO : before;
	return there;
}

int fsync(int fd) { return fails() ? -1 : (int) syscall(SYS_fsync, fd); }

int fdatasync(int fd) { return fails() ? -1 : (int) syscall(SYS_fdatasync, fd); }
