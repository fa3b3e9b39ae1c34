/* pty.c -- runs a command in a terminal of its own, for a program that cannot make one.
 *
 *   pty COLS ROWS COMMAND [ARGUMENT...]
 *
 * What comes on stdin is typed, what the terminal prints goes to stdout. Lines on fd 3 are orders, each
 * answered on fd 4 by a line with an errno value, 0 when it was done:
 *
 *   resize COLS ROWS
 *   signal NUMBER     to the foreground process group; ESRCH when there is none
 *
 * Ends with the command, with its status (128 + N after a signal), however long others hold the
 * terminal. The end of stdin or of fd 3 hangs the terminal up. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define ORDERS_FD 3
#define ANSWERS_FD 4
#define DRAIN_MS 200 /* without output, when others still hold the terminal */

/* Bytes on their way from one descriptor to another. */
struct channel {
	uint8_t data[65536];
	size_t start, end;
};

static void die(const char *what)
{
	perror(what);
	_exit(99);
}

static void on_child(int number)
{
	(void)number;
}

static bool channel_is_empty(const struct channel *c)
{
	return c->start == c->end;
}

/* Reads into an empty channel. Returns 0, or -1 at the end of what there is to read. */
static int channel_fill(struct channel *c, int fd)
{
	ssize_t n = read(fd, c->data, sizeof(c->data));
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	if (n <= 0)
		return -1;
	c->start = 0;
	c->end = (size_t)n;
	return 0;
}

/* Writes what fits. Returns 0, or -1 when nobody reads. */
static int channel_flush(struct channel *c, int fd)
{
	ssize_t n = write(fd, c->data + c->start, c->end - c->start);
	if (n < 0)
		return errno == EINTR || errno == EAGAIN ? 0 : -1;
	c->start += (size_t)n;
	return 0;
}

static void set_nonblocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0)
		die("fcntl");
}

static int obey(int terminal, const char *order)
{
	unsigned short cols, rows;
	int number;
	if (sscanf(order, "resize %hu %hu", &cols, &rows) == 2) {
		const struct winsize size = { .ws_col = cols, .ws_row = rows };
		return ioctl(terminal, TIOCSWINSZ, &size) == 0 ? 0 : errno;
	}
	if (sscanf(order, "signal %d", &number) == 1) {
		pid_t group = tcgetpgrp(terminal);
		if (group <= 0)
			return ESRCH;
		return kill(-group, number) == 0 ? 0 : errno;
	}
	return EINVAL;
}

/* Takes orders off fd 3. Returns -1 at its end. */
static int take_orders(int terminal)
{
	static char line[256];
	static size_t used;
	char buffer[256];
	ssize_t n = read(ORDERS_FD, buffer, sizeof(buffer));
	if (n < 0 && errno == EINTR)
		return 0;
	if (n <= 0)
		return -1;
	for (ssize_t i = 0; i < n; i++) {
		if (buffer[i] != '\n') {
			if (used < sizeof(line) - 1)
				line[used++] = buffer[i];
			continue;
		}
		line[used] = '\0';
		used = 0;
		dprintf(ANSWERS_FD, "%d\n", obey(terminal, line));
	}
	return 0;
}

/* What the command printed last: the kernel may still be carrying it when its end is known. */
static void drain(int terminal, struct channel *out)
{
	struct pollfd in = { .fd = terminal, .events = POLLIN };
	struct pollfd room = { .fd = STDOUT_FILENO, .events = POLLOUT };
	for (;;) {
		while (!channel_is_empty(out)) {
			if (poll(&room, 1, -1) > 0 && channel_flush(out, STDOUT_FILENO) != 0)
				return;
		}
		if (poll(&in, 1, DRAIN_MS) <= 0 || channel_fill(out, terminal) != 0)
			return;
	}
}

int main(int argc, char **argv)
{
	if (argc < 4) {
		fprintf(stderr, "usage: pty COLS ROWS COMMAND [ARGUMENT...]\n");
		return 98;
	}
	/* By hand there is nobody at 3 and 4: no orders then, and the terminal is not put there. */
	bool has_orders = fcntl(ORDERS_FD, F_GETFD) != -1;
	for (int fd = ORDERS_FD; fd <= ANSWERS_FD; fd++)
		if (fcntl(fd, F_GETFD) == -1 && dup2(STDERR_FILENO, fd) < 0)
			die("dup2");
	fcntl(ORDERS_FD, F_SETFD, FD_CLOEXEC);
	fcntl(ANSWERS_FD, F_SETFD, FD_CLOEXEC);

	/* The child's end comes in ppoll() alone. */
	sigset_t blocked, open_set;
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGCHLD);
	sigprocmask(SIG_BLOCK, &blocked, &open_set);
	const struct sigaction action = { .sa_handler = on_child };
	sigaction(SIGCHLD, &action, NULL);
	signal(SIGPIPE, SIG_IGN);

	const struct winsize size = { .ws_col = (unsigned short)atoi(argv[1]),
				      .ws_row = (unsigned short)atoi(argv[2]) };
	int terminal;
	pid_t child = forkpty(&terminal, NULL, NULL, &size);
	if (child < 0)
		die("forkpty");
	if (child == 0) {
		signal(SIGPIPE, SIG_DFL);
		sigprocmask(SIG_SETMASK, &open_set, NULL);
		execvp(argv[3], argv + 3);
		die(argv[3]);
	}
	set_nonblocking(terminal);
	set_nonblocking(STDOUT_FILENO);

	static struct channel in, out;
	bool is_open = true; /* the command can close its terminal, and live on */
	int status;
	for (;;) {
		if (waitpid(child, &status, WNOHANG) == child) {
			drain(terminal, &out);
			return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
		}
		/* The terminal is read when its last output is gone, and stdin when the last input is. */
		struct pollfd fds[] = {
			{ .fd = channel_is_empty(&in) ? STDIN_FILENO : -1, .events = POLLIN },
			{ .fd = channel_is_empty(&out) ? -1 : STDOUT_FILENO, .events = POLLOUT },
			{ .fd = is_open ? terminal : -1 },
			{ .fd = has_orders ? ORDERS_FD : -1, .events = POLLIN },
		};
		if (channel_is_empty(&out))
			fds[2].events |= POLLIN;
		if (!channel_is_empty(&in))
			fds[2].events |= POLLOUT;
		if (fds[2].events == 0)
			fds[2].fd = -1; /* else POLLHUP would be there again and again */
		if (ppoll(fds, 4, NULL, &open_set) < 0)
			continue;
		if (fds[0].revents != 0 && channel_fill(&in, STDIN_FILENO) != 0)
			break;
		if (fds[1].revents != 0 && channel_flush(&out, STDOUT_FILENO) != 0)
			break;
		if ((fds[2].revents & POLLOUT) != 0)
			channel_flush(&in, terminal);
		if ((fds[2].revents & (POLLIN | POLLHUP)) != 0 && channel_is_empty(&out) &&
		    channel_fill(&out, terminal) != 0)
			is_open = false;
		if (fds[3].revents != 0 && take_orders(terminal) != 0)
			break;
	}
	close(terminal); /* SIGHUP for the command and the foreground */
	return 129;
}
