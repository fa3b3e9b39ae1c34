/* conn.h -- one connection: its socket, what HTTP and WebSocket have in common for both dialects, and
 * its end. Output has no queue of its own: the dialect gives one frame after the other straight out of
 * the ring, and only what the socket left over of a frame is copied. Thread: one. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "agent/list.h"
#include "agent/loop.h"
#include "agent/queue.h"
#include "agent/shell.h"
#include "wire/ws_frame.h"

#define CONN_DATA_BYTES_MAX ((size_t)64 << 10) /* PTY bytes in one frame */
#define CONN_CLOSE_CODE_ERROR 4400
#define CONN_CLOSE_CODE_BEHIND 4408
#define CONN_CLOSE_CODE_FENCED 4409

struct agent;
struct conn;

enum conn_state {
	CONN_HEAD,    /* the request head is not complete yet */
	CONN_OPEN,    /* WebSocket frames both ways */
	CONN_CLOSING, /* the last bytes are going out */
	CONN_CLOSED,  /* they are out; what still comes is thrown away until the peer's end */
	CONN_DEAD,    /* to be freed at the end of this round */
	CONN_STATE_COUNT,
};

/* What differs between the two dialects. */
struct conn_dialect {
	/* The connection is upgraded; s is what check_legacy() found, NULL in version 2. */
	void (*opened)(struct conn *c, struct shell *s);
	/* A whole message came; it is good for this call only. */
	void (*message)(struct conn *c, const struct ws_event *event);
	/* Sends the next frame, by conn_send_data() or others. Returns false when there is none or the
	 * socket took nothing. */
	bool (*next)(struct conn *c);
	/* True while no further message may be looked at. */
	bool (*paused)(const struct conn *c);
};

extern const struct conn_dialect conn_legacy; /* conn_legacy.c */
extern const struct conn_dialect conn_v2;     /* conn_v2.c */

struct conn {
	struct list_node node; /* in agent->conns */
	struct agent *agent;   /* borrowed, outlives us */
	struct loop_watch watch;
	struct loop_timer timeout; /* of the head, of a silent peer, of the end */
	struct loop_timer ping;
	enum conn_state state;
	const struct conn_dialect *dialect; /* NULL until it is upgraded */
	struct ws_decoder decoder;
	struct queue in;  /* the head while it comes; then what came while it was paused */
	struct queue out; /* the unsent rest of a frame, and the small frames behind it */
	bool socket_full;
	uint64_t heard_ms; /* when the peer last gave a sign of life */

	/* The dialect's. */
	struct shell *shell; /* attached to; NULL: to none. Not ours */
	struct shell_viewer viewer;
	bool control;          /* its token opens every shell */
	uint64_t allowed;      /* serial of the shell that its token opens, 0: none */
	struct shell *opening; /* v2: OPEN was not answered yet */
	bool opening_created;
	bool exit_told;
	bool was_ready;
};

/* Takes over fd, accepted and non-blocking. Returns NULL when there is no memory (fd is closed). */
struct conn *conn_create(struct agent *agent, int fd);

/* Ends it at once: clean when the peer took its leave. Freed at the end of the round. */
void conn_drop(struct conn *c, bool clean);

/* Frees a connection that was dropped. */
void conn_destroy(struct conn *c);

/* Makes a WebSocket of it: the answer is in c->out, what came behind the head in c->in. */
void conn_upgrade(struct conn *c, const struct conn_dialect *dialect, struct shell *s);

/* The answer of HTTP is in c->out: sends it and ends the connection. */
void conn_finish(struct conn *c);

/* Leaves the shell, sends what is under way and a close frame, and ends the connection. */
void conn_close(struct conn *c, uint16_t code, const char *reason);

/* Queues a small frame. */
void conn_send(struct conn *c, enum ws_opcode opcode, const void *payload, size_t size);

/* Sends a binary frame of head and spans (size bytes in all), without a copy but for what the socket
 * does not take. Only from next(). Returns false when the socket took nothing: the frame is not sent. */
bool conn_send_data(struct conn *c, const void *head, size_t head_size, const struct iovec *spans,
		    int span_count);

/* Sends what there is to send. */
void conn_flush(struct conn *c);

/* It may be paused no more: looks at what came meanwhile. */
void conn_resume(struct conn *c);
