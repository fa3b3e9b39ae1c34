/* ws_client.h -- one outgoing WebSocket on a loop: libwebsockets with the name resolved beforehand
 * (its own resolving blocks the loop). The addresses of a name are tried one after the other, until a
 * connection stands. Thread: the loop's. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "service/error.h"

struct lws_context;
struct lws_protocols;

/* What a loop gives its context. */
const struct lws_protocols *ws_client_protocols(void);
#define WS_CLIENT_BUFFER_BYTES (64u << 10) /* bytes taken from a socket at once */

#define WS_CLIENT_QUEUE_BYTES (8u << 20) /* unsent; more is refused */

struct ws_client;

enum ws_client_end {
	WS_CLIENT_LOST,    /* after it was open: cut, or no answer to pings */
	WS_CLIENT_CLOSED,  /* the peer sent a close frame; code is its */
	WS_CLIENT_REFUSED, /* the opening was answered with an HTTP status; code is that */
	WS_CLIENT_NOBODY,  /* nothing listens there */
	WS_CLIENT_FAILED,  /* no connection: name, network, TLS, time */
};

struct ws_client_events {
	void (*connected)(void *arg);
	/* A piece of a message; pieces of one message come in a row. */
	void (*received)(void *arg, const uint8_t *data, size_t size, bool first, bool final);
	/* All that was queued is in the socket. */
	void (*drained)(void *arg);
	/* Once, after it: nothing more, and the pointer is not good any more. text: during the call. */
	void (*ended)(void *arg, enum ws_client_end end, unsigned code, const char *text);
};

struct ws_header {
	const char *name; /* lower case, with a colon: "ptycast-token:" */
	const char *value;
};
#define WS_CLIENT_HEADERS_MAX 4

struct ws_client_params {
	uv_loop_t *uv;
	struct lws_context *lws;
	const char *url;                 /* ws:// or wss:// */
	const struct ws_header *headers; /* more request headers; values are secrets; copied */
	size_t headers_count;            /* at most WS_CLIENT_HEADERS_MAX */
	const struct ws_client_events *events; /* static */
	void *arg;
};

/* Starts to connect; the outcome is an event, never before this returns. p is not kept. */
int ws_client_create(const struct ws_client_params *p, struct ws_client **ret, struct error *err);

/* Ends it: no event comes any more; memory is freed when the loop is done with it. With code 0 the
 * connection is just cut, else a close frame goes first, behind all that is queued. NULL is allowed. */
void ws_client_destroy(struct ws_client *c, unsigned code);

/* Queues one binary message made of two parts (copied). -EAGAIN when the queue is full, -ENOTCONN. */
int ws_client_send(struct ws_client *c, const void *head, size_t head_size, const void *body,
		   size_t body_size);

/* True when size bytes more may be queued now. */
bool ws_client_has_room(const struct ws_client *c, size_t size);

/* Stops and starts reading. */
void ws_client_pause(struct ws_client *c, bool pause);

/* Splits ws[s]://host[:port]/path?query. Returns 0 or -EINVAL. path is borrowed from url. */
struct ws_url {
	bool tls;
	char host[256];
	uint16_t port;
	const char *path; /* "/..." or "/" */
};
int ws_url_parse(const char *url, struct ws_url *ret);
