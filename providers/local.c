/* local.c -- provider "local": a shell on this machine. It runs one agent a session, in a session of its
 * own, so that the shell outlives this process; the agent's handshake line says where it listens and with
 * which token. It gets a short environment (never the service's secrets) and no descriptor above 2. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "providers/provider.h"

#define HANDSHAKE_BYTES_MAX 4096
#define ENVIRONMENT_BYTES 4096 /* of one variable */

/* The variables that a login has, from ours. count is at least 8. */
static void make_environment(char out[8][ENVIRONMENT_BYTES], char *pointers[9])
{
	static const struct {
		const char *name, *fallback;
	} wanted[] = {
		{ "HOME", "/" },
		{ "PATH", "/usr/local/bin:/usr/bin:/bin" },
		{ "USER", "user" },
		{ "SHELL", "/bin/sh" },
		{ "LANG", "C.UTF-8" },
		{ "TZ", NULL },
		{ "TERM", "xterm-256color" },
	};
	size_t count = 0;
	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		const char *value = getenv(wanted[i].name);
		if (strcmp(wanted[i].name, "TERM") == 0)
			value = NULL; /* the viewers' terminal, not the one we were started in */
		if (value == NULL)
			value = wanted[i].fallback;
		if (value == NULL)
			continue;
		int n = snprintf(out[count], sizeof(out[count]), "%s=%s", wanted[i].name, value);
		if (n < 0 || (size_t)n >= sizeof(out[count])) /* half a value is worse than none */
			continue;
		pointers[count] = out[count];
		count++;
	}
	pointers[count] = NULL;
}

/* Starts the agent with its stdout in *read_fd. */
static int start_agent(const char *path, int *read_fd, pid_t *pid, struct error *err)
{
	char space[8][ENVIRONMENT_BYTES];
	char *environment[9];
	/* A service that hangs is followed by another replica only after that one's TTL. */
	char *const argv[] = { (char *)path, "--mode=agent", "--listen=127.0.0.1",
			       "--reader-stall=5s", NULL };
	int fds[2];
	if (pipe2(fds, O_CLOEXEC) < 0)
		return error_set(err, -errno, "no pipe: %s", strerror(errno));
	make_environment(space, environment);

	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t all, none;
	sigfillset(&all);
	sigemptyset(&none);
	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attributes);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, fds[1], 1);
	posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
	const char *home = getenv("HOME");
	if (home != NULL && access(home, X_OK) == 0)
		posix_spawn_file_actions_addchdir_np(&actions, home);
	posix_spawn_file_actions_addclosefrom_np(&actions, 3);
	posix_spawnattr_setsigdefault(&attributes, &all);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGDEF |
						      POSIX_SPAWN_SETSIGMASK);
	int rc = posix_spawn(pid, path, &actions, &attributes, argv, environment);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	close(fds[1]);
	if (rc != 0) {
		close(fds[0]);
		return error_set(err, -rc, "cannot start the agent %s: %s", path, strerror(rc));
	}
	*read_fd = fds[0];
	return 0;
}

/* Reads up to the first newline. Returns its length, without it. */
static ssize_t read_line(int fd, char *line, size_t size, uint64_t deadline_ms, struct error *err)
{
	size_t have = 0;
	while (have < size - 1) {
		uint64_t now = provider_now_us() / 1000;
		struct pollfd p = { .fd = fd, .events = POLLIN };
		if (now >= deadline_ms || poll(&p, 1, (int)(deadline_ms - now)) == 0)
			return error_set(err, -ETIMEDOUT, "the agent said nothing in time");
		ssize_t n = read(fd, line + have, size - 1 - have);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return error_set(err, -EBADMSG, "the agent ended before it was ready");
		char *end = memchr(line + have, '\n', (size_t)n);
		have += (size_t)n;
		if (end != NULL) {
			*end = '\0';
			return end - line;
		}
	}
	return error_set(err, -EBADMSG, "the agent's first line is too long");
}

static int make_endpoint(const char *line, size_t size, const char *shell, struct endpoint *ret,
			 struct error *err)
{
	struct handshake h;
	if (handshake_parse(line, size, &h) == 0 || !h.v2)
		return error_set(err, -EBADMSG, "the agent's handshake was not understood");
	char url[64];
	snprintf(url, sizeof(url), "ws://127.0.0.1:%u/ws/client?v=2", h.port);
	*ret = (struct endpoint){
		.transport = strdup("agent"),
		.url = strdup(url),
		.token = strdup(h.token),
		.shell = strdup(shell),
		.instance = h.instance,
	};
	explicit_bzero(&h, sizeof(h));
	if (ret->transport != NULL && ret->url != NULL && ret->token != NULL && ret->shell != NULL)
		return 0;
	endpoint_fini(ret);
	return error_set(err, -ENOMEM, "no memory");
}

static int open_pty(const struct provider_call *call, const struct pty_request *request,
		    struct endpoint *ret, struct error *err)
{
	char line[HANDSHAKE_BYTES_MAX];
	int fd = -1;
	pid_t pid = -1;
	provider_call_step(call, "agent");
	int rc = start_agent(call->cfg->agent, &fd, &pid, err);
	if (rc < 0)
		return rc;
	ssize_t n = read_line(fd, line, sizeof(line), call->deadline_us / 1000, err);
	close(fd);
	rc = n < 0 ? (int)n : make_endpoint(line, (size_t)n, request->shell, ret, err);
	explicit_bzero(line, sizeof(line));
	if (rc < 0 && n != -EBADMSG) /* it still runs: nobody would ever talk to it */
		kill(pid, SIGTERM);
	return rc;
}

const struct provider_ops provider_local = {
	.name = "local",
	.transport = "agent",
	.capabilities = { .reattach = true,
			  .replay = true,
			  .exit_code = true,
			  .signal = true,
			  .resize = true },
	.open_pty = open_pty,
};
