/* agent.h -- the whole of a running agent: its shells, its connections, its tokens.
 * Thread: one. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "agent/list.h"
#include "agent/loop.h"
#include "agent/options.h"
#include "agent/shell.h"

#define AGENT_SHELLS_MAX 256
#define AGENT_CONNS_MAX 320 /* more, so that one shell too many is told so */
#define AGENT_TOKEN_CHARS 44
#define AGENT_RECEIVE_BYTES ((size_t)64 << 10)
#define AGENT_HANDSHAKE_BYTES_MAX 4096

struct agent;

/* Who asked for shells of the old dialect, and is told of them. */
struct agent_runner {
	void (*started)(struct agent *agent, struct shell *s);
	void (*failed)(struct agent *agent, struct shell *s, const struct spawn_failure *failure);
	void (*over)(struct agent *agent, struct shell *s);
	/* Nobody was ready for it in time. */
	void (*unused)(struct agent *agent, struct shell *s);
};

struct agent {
	const struct options *options; /* borrowed from main() */
	struct loop loop;
	struct loop_watch listener;
	struct loop_timer listen_timer; /* not listening until then: no descriptors were left */
	struct loop_watch signals;
	struct loop_timer stop_timer; /* what has not ended by then is cut off */
	struct loop_timer idle_timer; /* without a shell for too long */
	int port;
	uint64_t instance;
	char control_token[SHELL_TOKEN_BYTES_MAX + 1];
	struct list_node shells; /* of struct shell, owned */
	int shell_count;
	uint64_t next_serial;
	struct list_node
		conns;  /* of struct conn, owned; the dead are freed at the end of a round */
	int conn_count; /* without the dead */
	int dead_count;
	struct registry *registry;         /* owned; NULL: none */
	struct registration *registration; /* borrowed from main(); NULL: none */
	const struct agent_runner *runner; /* NULL: no shells of the old dialect */
	bool had_shells;
	bool stopping;
	bool done;
	int status;                            /* of the process */
	uint8_t received[AGENT_RECEIVE_BYTES]; /* of the connection that is being read */
};

/* A program to start. Strings are borrowed for the call. */
struct agent_open {
	const char *id;    /* NULL: a random one */
	const char *token; /* NULL: a random one */
	char **argv;       /* empty: the user's shell */
	char **env;
	const char *cwd;
	uint16_t cols, rows;
	uint32_t alone_s, linger_s; /* 0: the agent's own */
	uint32_t ring_bytes;
	uint64_t unready_ms; /* as in struct shell_options */
	uint64_t parameters;
};

int agent_init(struct agent *agent, const struct options *options);
void agent_fini(struct agent *agent);

/* Serves until it is done. Returns the status of the process. */
int agent_run(struct agent *agent);

/* Ends all shells and connections in order, in a bounded time. */
void agent_stop(struct agent *agent, int status);

/* Starts a program. Returns 0 and *ret, or -1 and fills failure. */
int agent_open(struct agent *agent, const struct agent_open *open, struct shell **ret,
	       struct spawn_failure *failure);

struct shell *agent_find(struct agent *agent, const void *id, size_t id_size);
struct shell *agent_find_process(struct agent *agent, uint64_t process_id);
struct shell *agent_find_token(struct agent *agent, const char *token);
bool agent_is_control_token(const struct agent *agent, const char *token);

/* Destroys a shell; its viewers are told. */
void agent_forget(struct agent *agent, struct shell *s);

/* True when there is a place for one more shell. If need be, one of version 2 that has ended is forgotten:
 * of those whose end was told the one that ended first, else of the others. */
bool agent_make_room(struct agent *agent);

/* Writes 44 characters, URL-safe base64 of 32 random bytes, and a 0. */
void agent_random_token(char ret[AGENT_TOKEN_CHARS + 1]);

/* Writes the handshake line, with its newline and 0-terminated; s is NULL for an agent without one. */
void agent_handshake(const struct agent *agent, const struct shell *s,
		     char ret[AGENT_HANDSHAKE_BYTES_MAX]);
