/* spawn.h -- a program on a new PTY. Thread: one. */
#pragma once

#include <stdint.h>
#include <sys/types.h>

struct spawn_request {
	char **argv;     /* argv[0] is looked up in the PATH of env */
	char **env;      /* NAME=VALUE, all of it; NULL at the end, like argv */
	const char *cwd; /* NULL: ours */
	uint16_t cols, rows;
};

struct spawn_child {
	pid_t pid;  /* a session leader, the PTY its controlling terminal */
	int master; /* non-blocking */
	int slave; /* held by us, so that the master does not hang up while the child has closed it */
	int failed; /* pipe: a struct spawn_failure comes when the program cannot be run; else its end */
};

enum spawn_stage {
	SPAWN_PTY,
	SPAWN_CWD,
	SPAWN_COMMAND,
	SPAWN_FORK,
};

struct spawn_failure {
	enum spawn_stage stage;
	int error; /* errno */
};

/* Closes all descriptors from first on. */
void close_from(int first);

/* Makes the PTY and forks. Returns 0 and fills ret, whose descriptors are the caller's; or -1 and
 * fills failure. Does not wait for the exec: see spawn_child.failed. */
int spawn(const struct spawn_request *request, struct spawn_child *ret,
	  struct spawn_failure *failure);
