/* own.c -- see own.h. */
#include "agent/own.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LOCK_STEP_MS 20

/* Returns fd when it is of that type, ours and without the forbidden bits, else closes it. */
static int check(int fd, mode_t type, mode_t forbidden)
{
	struct stat status;
	if (fstat(fd, &status) == 0 && (status.st_mode & S_IFMT) == type &&
	    status.st_uid == geteuid() && (status.st_mode & forbidden) == 0)
		return fd;
	close(fd);
	return -EPERM;
}

int own_directory(const char *path, mode_t forbidden)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == ELOOP || errno == ENOTDIR ? -EPERM : -errno;
	return check(fd, S_IFDIR, forbidden);
}

int own_file(int directory, const char *name)
{
	/* A FIFO or a device must not block. */
	int flags = O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
	int fd = openat(directory, name, flags, 0600);
	if (fd < 0)
		return errno == ELOOP || errno == EISDIR || errno == ENXIO ? -EPERM : -errno;
	return check(fd, S_IFREG, S_IRWXG | S_IRWXO);
}

int own_lock(int fd, unsigned wait_ms)
{
	for (unsigned waited = 0; flock(fd, LOCK_EX | LOCK_NB) != 0; waited += LOCK_STEP_MS) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return -errno;
		if (waited >= wait_ms)
			return -ETIMEDOUT;
		nanosleep(&(struct timespec){ .tv_nsec = LOCK_STEP_MS * 1000000L }, NULL);
	}
	return 0;
}
