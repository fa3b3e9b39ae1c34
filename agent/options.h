/* options.h -- the command line of the agent, in the syntax of Go's flag package, as the original's.
 * Thread: one. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum mode {
	MODE_SINGLE, /* one shell; agent and runner in one process */
	MODE_CLIENT, /* one shell in the agent that runs beside, which is started when there is none */
	MODE_SERVER, /* an agent for --mode=client to come */
	MODE_AGENT,  /* an agent for version 2 alone; shells come by OPEN */
};

struct options {
	enum mode mode;
	char *token;        /* NULL: random. A copy, owned, wiped from argv and environment */
	char *listen;       /* NULL: all interfaces */
	char *config;       /* NULL: none given */
	char *registration; /* NULL: none; mode agent alone */
	char *cwd;          /* NULL: as it is */
	bool debug;
	uint64_t port;       /* 0: any */
	uint64_t cols, rows; /* 1 to SHELL_CELLS_MAX */
	uint64_t ring_bytes;
	uint64_t inactivity_ms;
	uint64_t linger_ms;
	uint64_t alone_ms; /* 0: never */
	uint64_t idle_exit_ms;
	uint64_t stall_ms;
	uint64_t lost_ms;
	uint64_t ping_ms;
	uint64_t dead_ms;
	char **command; /* the rest of argv; NULL at its end */

	/* For options.c alone. */
	char *mode_name; /* NULL: single */
	char *token_flag, *token_file;
	bool help, version;
};

#define OPTIONS_RING_BYTES_MIN \
	((size_t)512 << 10) /* twice what a holder may leave unacknowledged */
#define OPTIONS_RING_BYTES_MAX ((size_t)256 << 20)

enum options_verdict {
	OPTIONS_RUN,
	OPTIONS_EXIT, /* all is said; *status is the process's */
};

/* Reads argv and the environment, prints what is to be printed (usage, version, errors). --env, and a
 * TERM when there is none, go into the environment of this process, the token out of it. */
enum options_verdict options_parse(int argc, char **argv, struct options *ret, int *status);

/* Reads a Go duration ("1m30s", "250ms", "0"). Returns 0, or -EINVAL with *ret untouched. */
int options_duration(const char *text, uint64_t *ret_ms);
