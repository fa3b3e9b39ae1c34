/* request.h -- one HTTP request as its handler sees it: who asks, for which session, with which body;
 * and the ways to answer. It lives from the head of the request to the last byte of the answer.
 * Thread: the HTTP thread of its connection, all of it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <jansson.h>

#include "service/auth.h"
#include "service/call.h"
#include "service/problem.h"
#include "service/route.h"
#include "service/viewer.h"

#define SANDBOX_ID_MAX 64 /* of A-Z a-z 0-9 _ - */

struct app;
struct asset;
struct listener;
struct MHD_Connection;
struct MHD_Response;
struct MHD_UpgradeResponseHandle;
struct session;

typedef void request_fn(struct request *r, const struct reply *reply);

struct request {
	/* Set before the handler is called. */
	struct app *app;
	struct listener *listener;
	struct MHD_Connection *connection;
	const struct route *route;        /* NULL: refused before one was found */
	const struct asset *asset;        /* GET of an embedded file */
	struct session *session;          /* a reference; NULL where the path has none */
	char look_up[SANDBOX_ID_MAX + 1]; /* a session that the store may know; "": none */
	char sandbox[SANDBOX_ID_MAX + 1]; /* of the path, "" where it has none */
	struct principal principal;       /* who asks; nobody on open routes */
	const char *host, *origin;        /* headers, NULL without; libmicrohttpd's memory */
	bool head;                        /* HEAD: only the head of the answer is sent */
	bool json;                        /* the body is application/json */

	/* The body while it comes. Owned. */
	uint8_t *body;
	size_t body_size, body_capacity, body_bytes_max;
	uint64_t bytes_received, bytes_discarded;
	uint64_t announced; /* Content-Length; UINT64_MAX: chunked */

	/* The answer. */
	struct MHD_Response *response; /* owned; NULL when there was no memory for it */
	unsigned status;
	bool answered;
	bool waiting; /* request_wait() was called, and finish not yet */
	bool close;   /* the connection is not to be used again */
	request_fn *finish;
	struct call call;
	uint64_t started_us;

	/* For stream.c and ws.c. */
	struct viewer_params viewer;
	bool viewer_reserved; /* of session; given back with the request */

	/* Of the handler while it waits; freed with the request by its own function. */
	void *work;
	void (*free_work)(void *work);
};

/* --- what was asked --- */

/* NULL when the request has none. Good as long as the request. */
const char *request_header(const struct request *r, const char *name);
const char *request_query(const struct request *r, const char *name);

/* The body, and with it the duty to free() it; never NULL, also when it is empty: NULL is no memory. */
uint8_t *request_take_body(struct request *r, size_t *size);

/* Frees the body before the request waits. */
void request_drop_body(struct request *r);

/* The body as a JSON object whose members are all among names (NULL-terminated), or NULL when it was
 * answered with what is wrong. */
json_t *request_json(struct request *r, const char *const *names);

/* --- the answer: exactly one --- */

void request_answer_empty(struct request *r, unsigned status);
/* Takes value over; NULL is no memory. */
void request_answer_json(struct request *r, unsigned status, json_t *value);
/* The bytes are borrowed for ever (static), or else owned from here on (malloc'd; NULL is no memory). */
void request_answer_static(struct request *r, unsigned status, const char *type, const void *data,
			   size_t size);
void request_answer_owned(struct request *r, unsigned status, const char *type, void *data,
			  size_t size);
void request_answer_problem(struct request *r, const struct problem *p);
void request_answer_too_large(struct request *r, size_t bytes_max);
/* 503, or for a stream no answer at all: an EventSource gives up for good on a status that is not 200, and
 * connects again, to our successor, when the connection breaks. */
void request_answer_draining(struct request *r);
/* An empty answer or a problem: a request_fn. */
void request_answer_reply(struct request *r, const struct reply *reply);
/* Takes response over: for stream.c and ws.c. */
void request_answer_response(struct request *r, unsigned status, struct MHD_Response *response);
/* Once it is answered. */
void request_add_header(struct request *r, const char *name, const char *value);

/* Instead of an answer: the request waits. Give request_resume and r as reply_fn and argument, after
 * this call, to exactly one session_...() call, and return; finish is called with what comes. */
void request_wait(struct request *r, request_fn *finish);
void request_resume(void *r, const struct reply *reply); /* Thread: any */

/* Instead of an answer: run is called on a thread that may block (the store, keys), and then finish with the
 * reply that run gave. While run runs nothing else touches r; what it makes goes to r->session and r->work.
 * When too many wait, finish is called with 503 busy, and run is not. run may hand the duty to call
 * request_resume() on by returning false (it does not touch r afterwards). */
void request_block(struct request *r, bool (*run)(struct request *r, struct reply *reply),
		   request_fn *finish);

/* Takes the connection out of libmicrohttpd's hands, suspended or upgraded, until the one
 * request_give_back(). */
void request_take_over(struct request *r);
void request_take_over_upgraded(struct request *r, struct MHD_UpgradeResponseHandle *handle);
void request_give_back(void *r); /* Thread: any */

bool request_on_loopback(const struct request *r);

/* --- for http.c --- */

struct request *request_create(struct listener *listener, struct MHD_Connection *connection);
void request_destroy(struct request *r); /* NULL is allowed */
/* Takes size bytes of the body, or throws them away once the request is answered. */
void request_feed(struct request *r, const void *data, size_t size);
