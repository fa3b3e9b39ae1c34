/* spawn.c -- see spawn.h. */
#include "agent/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

/* A kernel that is older than the headers, or qemu, may lack it: the loop below is for them. */
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif
#define DESCRIPTORS_MAX 65536 /* how far the loop goes when the limit is "unlimited" */

static int open_slave(int master)
{
	int slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave >= 0)
		return slave;
	char name[64];
	if (ptsname_r(master, name, sizeof(name)) != 0)
		return -1;
	return open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
}

/* Returns 0 and both ends, or -1 with errno. */
static int open_pty(uint16_t cols, uint16_t rows, int *ret_master, int *ret_slave)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (master < 0)
		return -1;
	int slave = -1;
	if (grantpt(master) != 0 || unlockpt(master) != 0)
		goto close_master;
	slave = open_slave(master);
	if (slave < 0)
		goto close_master;

	struct winsize size = { .ws_col = cols, .ws_row = rows };
	(void)ioctl(master, TIOCSWINSZ, &size);
	struct termios termios;
	if (tcgetattr(slave, &termios) == 0) {
		termios.c_iflag |= IUTF8; /* so that erase takes whole characters */
		(void)tcsetattr(slave, TCSANOW, &termios);
	}
	*ret_master = master;
	*ret_slave = slave;
	return 0;

close_master:;
	int error = errno;
	close(master);
	errno = error;
	return -1;
}

void close_from(int first)
{
	if (syscall(SYS_close_range, (unsigned)first, ~0U, 0U) == 0)
		return;
	struct rlimit limit;
	int end = DESCRIPTORS_MAX;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < DESCRIPTORS_MAX)
		end = (int)limit.rlim_cur;
	for (int fd = first; fd < end; fd++)
		close(fd);
}

static void default_signals(void)
{
	for (int number = 1; number < NSIG; number++)
		(void)signal(number, SIG_DFL);
	sigset_t none;
	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
}

/* In the child: becomes the program, or tells why not. pipe and slave are above 2. */
_Noreturn static void become(const struct spawn_request *request, int slave, int pipe_end)
{
	struct spawn_failure failure = { .stage = SPAWN_PTY };
	if (setsid() < 0 || ioctl(slave, TIOCSCTTY, 0) != 0)
		goto tell;
	for (int fd = 0; fd <= 2; fd++) {
		if (dup2(slave, fd) < 0)
			goto tell;
	}
	if (pipe_end != 3 && dup3(pipe_end, 3, O_CLOEXEC) < 0)
		goto tell;
	pipe_end = 3;
	close_from(4);
	default_signals();

	failure.stage = SPAWN_CWD;
	if (request->cwd != NULL && chdir(request->cwd) != 0)
		goto tell;
	failure.stage = SPAWN_COMMAND;
	environ = request->env;
	execvp(request->argv[0], request->argv);
tell:
	failure.error = errno;
	(void)!write(pipe_end, &failure, sizeof(failure));
	_exit(127);
}

int spawn(const struct spawn_request *request, struct spawn_child *ret,
	  struct spawn_failure *failure)
{
	int master, slave, ends[2];
	*failure = (struct spawn_failure){ .stage = SPAWN_PTY };
	if (open_pty(request->cols, request->rows, &master, &slave) < 0) {
		failure->error = errno;
		return -1;
	}
	failure->stage = SPAWN_FORK;
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0) {
		failure->error = errno;
		goto close_pty;
	}
	pid_t pid = fork();
	if (pid == 0)
		become(request, slave, ends[1]);
	if (pid < 0) {
		failure->error = errno;
		goto close_pipe;
	}
	close(ends[1]);
	*ret = (struct spawn_child){
		.pid = pid, .master = master, .slave = slave, .failed = ends[0]
	};
	return 0;

close_pipe:
	close(ends[0]);
	close(ends[1]);
close_pty:
	close(slave);
	close(master);
	return -1;
}
