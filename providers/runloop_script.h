/* runloop_script.h -- the commands that run in a devbox, and what they say. Each command is one word list for
 * any shell: sh -c 'SCRIPT' ptycast 'ARGUMENT'..., the script in POSIX sh, fixed, and all that varies an argument in
 * single quotes. Pure; commands are owned by the caller, NULL without memory. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "providers/provider.h"

enum runloop_arch {
	RUNLOOP_X86_64,
	RUNLOOP_ARM64,
	RUNLOOP_ARCH_COUNT,
};

/* An agent program, in memory. */
struct runloop_agent {
	uint8_t *data; /* owned; NULL: there is none for this architecture */
	size_t size;
	char hash[65]; /* SHA-256, hex */
};

/* text as one word of a POSIX shell, in single quotes. */
char *sh_quote(const char *text);

/* Starts the installed agent, or finds the one that runs. Says RUNLOOP_STARTED, RUNLOOP_NEED,
 * RUNLOOP_NO_AGENT, RUNLOOP_NOT_INSTALLED, RUNLOOP_NOT_STARTED. */
char *runloop_script_start(const struct runloop_agent agents[RUNLOOP_ARCH_COUNT]);
/* Installs the uploaded file, a name in the home directory, and starts it; removes it in any case. Says the
 * same but RUNLOOP_NEED. */
char *runloop_script_install(const struct runloop_agent agents[RUNLOOP_ARCH_COUNT],
			     const char *upload);
/* Removes an uploaded file. */
char *runloop_script_remove(const char *upload);
/* Says RUNLOOP_ALIVE or RUNLOOP_GONE. */
char *runloop_script_alive(uint64_t pid);
/* The original agent with a shell of its own; the handshake is its first word. */
char *runloop_script_pty_tunnel(const struct pty_request *request);

enum runloop_verdict {
	RUNLOOP_NOTHING, /* none of these was said */
	RUNLOOP_STARTED,
	RUNLOOP_NEED,          /* the agent for arch is to be installed */
	RUNLOOP_NO_AGENT,      /* there is none for the machine that text names */
	RUNLOOP_NOT_INSTALLED, /* text says why */
	RUNLOOP_NOT_STARTED,
	RUNLOOP_ALIVE,
	RUNLOOP_GONE,
};

#define RUNLOOP_TEXT_BYTES 121

struct runloop_said {
	enum runloop_verdict verdict;
	struct handshake handshake; /* secret */
	enum runloop_arch arch;
	char text[RUNLOOP_TEXT_BYTES]; /* clean: printable ASCII */
};

/* Finds the verdict among the lines of stdout: the last one. */
void runloop_script_read(const char *out, struct runloop_said *ret);

/* The last line of stderr that is not empty, clean; of a log line of ours its message. "" for none. */
void runloop_script_last_line(const char *err, char ret[RUNLOOP_TEXT_BYTES]);
