/* far.h -- for tests of tunnel/: a loop with libwebsockets on it, and on the same loop a far end, a
 * WebSocket server that does as it is told and remembers what it got. Failures fail the test. Thread: one. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "wire/ws_frame.h"

#define FAR_DEADLINE_MS 20000
#define FAR_CONNS_MAX 16

struct lws_context;

/* Embedded in its user, like struct far. */
struct far_loop {
	uv_loop_t uv;
	uv_timer_t deadline;
	struct lws_context *lws;
};

void far_loop_init(struct far_loop *l);
void far_loop_fini(struct far_loop *l);

/* Runs the loop until look() is true. */
void far_run_until(struct far_loop *l, bool (*look)(void *arg), void *arg);

/* Runs it for a time; for what must not happen. */
void far_run_for(struct far_loop *l, uint64_t ms);

struct far_conn {
	uv_tcp_t socket;
	struct far *far;
	bool upgraded, ended;
	struct ws_decoder decoder;
	uint8_t in[8192];
	size_t in_size; /* of the request head */
};

struct far {
	struct far_loop *loop;
	uv_tcp_t listener;
	uv_timer_t answer_timer;
	uint16_t port;

	/* To be set: */
	unsigned status;    /* the answer; 101 at first */
	unsigned answer_ms; /* how late it comes */

	/* To be read: */
	struct far_conn *conns[FAR_CONNS_MAX]; /* owned; in the order they came */
	unsigned conns_count;
	struct far_conn *conn; /* the newest that was upgraded; NULL */
	char head[8192];       /* the newest request */
	uint8_t *received;     /* owned: all messages, one behind the other */
	size_t received_size, messages_count;
	bool text;           /* one of them was a text message */
	unsigned close_code; /* of the peer's close frame; 0: none came */
	bool ended;          /* the newest connection has ended */
};

/* Listens; port 0: any. */
void far_start(struct far *f, struct far_loop *l, const char *address, uint16_t port);
void far_stop(struct far *f);

/* Writes one frame on the newest connection. */
void far_send(struct far *f, enum ws_opcode opcode, bool fin, const void *data, size_t size);

/* Writes a close frame; code 1005 stands for none. */
void far_close(struct far *f, uint16_t code, const char *reason);

/* Ends the connection without a word. */
void far_cut(struct far *f);

/* For far_run_until(): arg is the far end. */
bool far_is_upgraded(void *arg);
bool far_has_ended(void *arg);
