/* shell.h -- one program on one PTY: its output in a ring, its input in a queue, who looks at it, and
 * how it ended. It lives on after its end until its owner destroys it. Thread: one. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/child.h"
#include "agent/flow.h"
#include "agent/list.h"
#include "agent/loop.h"
#include "agent/ring.h"
#include "agent/spawn.h"
#include "agent/typing.h"
#include "wire/pty_frame.h"

#define SHELL_TOKEN_BYTES_MAX 256
#define SHELL_CELLS_MAX 1000

enum shell_state {
	SHELL_STARTING, /* forked, not known whether the program can be run */
	SHELL_RUNNING,
	SHELL_DRAINING, /* the child is dead, its last output is being read */
	SHELL_ENDED,    /* all output is in the ring; exit_kind and exit_value are valid */
	SHELL_STATE_COUNT,
};

struct shell;

/* One that gets the output. Embedded in its user. */
struct shell_viewer {
	struct list_node node;
	struct ring_cursor cursor;
	bool holder; /* it acknowledges, so the flow rule is about what it has */

	/* There is more at the cursor, or the shell ended. */
	void (*changed)(struct shell_viewer *v);
	/* The input queue, which was congested, has room again. */
	void (*input_drained)(struct shell_viewer *v);
	/* The shell is being destroyed; v is detached already. */
	void (*dropped)(struct shell_viewer *v);
};

/* What the owner is told. It may destroy the shell in any of them. */
struct shell_events {
	void (*started)(struct shell *s);
	/* The program could not be run. The owner must destroy the shell. */
	void (*failed)(struct shell *s, const struct spawn_failure *failure);
	/* It ended, and somebody was ready for its output; told once. */
	void (*over)(struct shell *s);
	/* Nobody asked for it in time: a shell without ready, or an ended one that was kept long enough. */
	void (*unused)(struct shell *s);
};

#define SHELL_UNHEARD_MS 120000

struct shell_options {
	const char *id; /* copied, like the token */
	const char *token;
	struct spawn_request spawn; /* borrowed for the call */
	size_t ring_bytes;
	/* Hang up when no holder is attached for so long; 0: never. Until one has acknowledged something, after
	 * SHELL_UNHEARD_MS at most: perhaps whoever opened it does not know that it is there. */
	uint64_t alone_ms;
	uint64_t
		linger_ms; /* an ended one is kept so long; version 2: from when its end was told */
	uint64_t stall_ms; /* how long a reader without progress may stop the PTY */
	uint64_t
		lost_ms; /* how long output is kept for a holder that was lost, or is yet to come */
	uint64_t unready_ms; /* old dialect: unused() when nobody is ready so long; 0: version 2 */
	void *owner;
	const struct shell_events *events;
};

struct shell {
	/* Set once. */
	struct list_node node; /* the owner's */
	char id[PTY2_ID_BYTES_MAX + 1];
	char token[SHELL_TOKEN_BYTES_MAX + 1];
	uint64_t serial;     /* the owner's: tells two shells of one id apart */
	uint64_t process_id; /* the owner's: its name in the old dialect, 0 when it has none */
	uint64_t parameters; /* the owner's: hash of what it was opened with */
	char command[64];    /* argv[0], cut, for messages */
	uint64_t epoch;
	void *owner;

	/* To be read by everybody. */
	enum shell_state state;
	struct child child;
	struct ring ring;
	struct typing typing;        /* to be read: typing.congested */
	uint64_t fence;              /* the highest seen */
	struct shell_viewer *holder; /* borrowed; NULL: none */
	bool ready;                  /* somebody was ready for the output, or attached */
	uint8_t exit_kind;           /* enum pty2_exit_kind */
	uint8_t exit_value;
	uint64_t ended_ms; /* when it entered SHELL_ENDED */
	bool exit_told;    /* a holder was told exit_kind and exit_value */

	/* Its own. */
	const struct shell_events *events;
	struct loop *loop;
	struct loop_watch master;
	struct loop_watch start; /* the pipe that tells about the exec */
	int slave;
	bool hanging_up;
	struct list_node viewers;
	struct flow flow;
	bool heard; /* a holder has acknowledged something */
	uint64_t alone_ms, linger_ms, stall_ms, lost_ms;
	uint64_t untold_ms;            /* as linger_ms, while exit_told is false */
	size_t burst_bytes;            /* read since the last pause */
	struct loop_timer pause_timer; /* output comes fast: let it come in larger pieces */
	struct loop_timer stall_timer; /* the reader makes no progress */
	struct loop_timer lost_timer;  /* the holder does not come back */
	struct loop_timer alone_timer;
	struct loop_timer unused_timer; /* not ready in time, or lingered long enough */
	struct loop_timer quiet_timer;  /* draining: nothing came */
	struct loop_timer drain_timer;  /* draining: it never ends */
	struct loop_timer kill_timer;   /* hanging up was not enough */
};

/* Starts the program. Returns 0 and *ret, or -1 and fills failure; -ENOMEM counts as SPAWN_FORK. */
int shell_create(struct loop *loop, const struct shell_options *options, struct shell **ret,
		 struct spawn_failure *failure);

/* Kills what is left of it, detaches everybody, frees all. */
void shell_destroy(struct shell *s);

/* Some child died: looks whether it was this one. */
void shell_check_child(struct shell *s);

/* Attaches v with its cursor where the caller has set it. A holder takes the place of the one there
 * is, which the caller has to detach first. */
void shell_attach(struct shell *s, struct shell_viewer *v);

/* Detaches v. clean: it left of its own will, nothing has to be kept for it. */
void shell_detach(struct shell *s, struct shell_viewer *v, bool clean);

/* The holder has all before offset. */
void shell_acknowledge(struct shell *s, uint64_t offset);

/* A viewer of the old dialect took bytes, or is ready for them. */
void shell_viewer_moved(struct shell *s);
void shell_set_ready(struct shell *s);

/* Takes the bytes whole or not at all; seq 0: without a number. *expected is set for numbered input. */
enum pty2_verdict shell_input(struct shell *s, const uint8_t client[INPUT_CLIENT_BYTES],
			      uint64_t seq, const uint8_t *data, size_t size, uint64_t *expected);

/* For the old dialect, which has no verdict: takes all, so do not read on from the connection while
 * s->typing.congested; input_drained() tells when it may go on. */
void shell_type(struct shell *s, const uint8_t *data, size_t size);

/* The holder's socket has taken how it ended. */
void shell_exit_told(struct shell *s);

/* 1 to SHELL_CELLS_MAX, else ignored. */
void shell_resize(struct shell *s, uint16_t cols, uint16_t rows);

/* Sends a signal to the foreground process group. Returns 0 or an errno. */
int shell_signal(struct shell *s, int number);

/* Asks the programs to end, and ends them 2 s later. The exit comes as usual. */
void shell_hang_up(struct shell *s);
