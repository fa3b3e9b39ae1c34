/* runloop_sandbox.h -- a directory that stands in for a devbox: the scripts really run there, as another user where
 * the tests are root, with /tmp and the like inside it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "providers/runloop_script.h"

struct sandbox {
	char root[128];
	char home[512];    /* "": none */
	char path[512];    /* PATH */
	const char *shell; /* "dash", "busybox sh" */
	uid_t uid;
	/* In the child, before it becomes that user; or NULL. */
	void (*prepare)(const struct sandbox *s);
};

/* Shells that are installed, NULL at the end. */
const char *const *sandbox_shells(void);

/* home: its name below root; NULL: none. */
void sandbox_init(struct sandbox *s, const char *shell, const char *home);
void sandbox_fini(struct sandbox *s); /* removes it; ends agents that run there */

/* A file below root: owned by the user. */
void sandbox_write(const struct sandbox *s, const char *path, const void *data, size_t size,
		   mode_t mode);
/* An executable in the first directory of PATH. */
void sandbox_program(const struct sandbox *s, const char *name, const char *text);

struct said {
	int status;
	char out[65536], err[65536];
};
/* Runs command (and frees it) until nobody has its stdout and stderr any more. */
void sandbox_run(const struct sandbox *s, char *command, struct said *ret);
/* The same in the background: sandbox_wait() gets the result. */
struct running {
	pid_t pid;
	int out, err;
};
void sandbox_start(const struct sandbox *s, char *command, struct running *ret);
void sandbox_wait(struct running *r, struct said *ret);

/* The agent of this build with all that the scripts want; false: it is not built, or for another machine. */
bool sandbox_agent(struct runloop_agent agents[RUNLOOP_ARCH_COUNT]);
