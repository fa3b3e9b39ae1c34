/* meeting.c -- see meeting.h. */
#include "agent/meeting.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/own.h"

#define SOCKET_NAME "agent.sock"
#define LOCK_NAME "lock"
#define LOCK_WAIT_MS 10000
#define BACKLOG 64

/* Makes the parents of path, as the original does; what cannot be made shows when path is opened. */
static void make_parents(char *path)
{
	for (char *slash = path + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
		*slash = '\0';
		(void)mkdir(path, 0755);
		*slash = '/';
	}
}

int meeting_init(struct meeting *m, const struct options *options)
{
	const char *beside = options->config != NULL ? options->config : "/tmp/";
	const char *slash = strrchr(beside, '/');
	int parent_size = slash != NULL ? (int)(slash + 1 - beside) : 0;
	char *path = NULL;
	if (asprintf(&path, "%.*sptycast-%u", parent_size, beside, (unsigned)geteuid()) < 0)
		return -ENOMEM;
	make_parents(path);
	int rc = 0;
	if (mkdir(path, 0700) != 0 && errno != EEXIST)
		rc = -errno;
	int fd = own_directory(path, S_IRWXG | S_IRWXO);
	free(path);
	if (fd < 0)
		return fd != -EPERM && rc < 0 ? rc : fd;
	*m = (struct meeting){ .directory = fd, .lock = -1 };
	return 0;
}

void meeting_fini(struct meeting *m)
{
	meeting_unlock(m);
	close(m->directory);
}

int meeting_lock(struct meeting *m)
{
	int fd = openat(m->directory, LOCK_NAME, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	int rc = own_lock(fd, LOCK_WAIT_MS);
	if (rc < 0) {
		close(fd);
		return rc;
	}
	m->lock = fd;
	return 0;
}

void meeting_unlock(struct meeting *m)
{
	if (m->lock >= 0)
		close(m->lock);
	m->lock = -1;
}

/* Calls bind() or connect() with the socket's name in the directory: a whole path may be longer than a
 * Unix socket's address, and may name another directory by now. Returns 0 or -errno. */
static int at_socket(const struct meeting *m, int fd,
		     int (*call)(int, const struct sockaddr *, socklen_t))
{
	static const struct sockaddr_un address = { .sun_family = AF_UNIX,
						    .sun_path = SOCKET_NAME };
	int back = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (back < 0 || fchdir(m->directory) != 0) {
		int error = errno;
		if (back >= 0)
			close(back);
		return -error;
	}
	int rc = call(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 ? 0 : -errno;
	if (fchdir(back) != 0)
		rc = -errno;
	close(back);
	return rc;
}

int meeting_check_peer(int fd)
{
	struct ucred peer = { .uid = (uid_t)-1 };
	socklen_t size = sizeof(peer);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 || peer.uid != geteuid())
		return -EPERM;
	return 0;
}

int meeting_connect(const struct meeting *m)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	int rc = at_socket(m, fd, connect);
	if (rc == 0)
		rc = meeting_check_peer(fd);
	if (rc < 0) {
		close(fd);
		return rc == -ENOENT ? -ECONNREFUSED : rc;
	}
	return fd;
}

int meeting_listen(const struct meeting *m)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	(void)unlinkat(m->directory, SOCKET_NAME, 0);
	int rc = at_socket(m, fd, bind);
	if (rc == 0 && listen(fd, BACKLOG) != 0)
		rc = -errno;
	if (rc < 0) {
		close(fd);
		return rc;
	}
	return fd;
}
