/* route.h -- the table of what can be asked for. It is defined in handlers/routes.c, above this part,
 * and found at link time as the assets are. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "service/auth.h"

struct problem;
struct request;

enum method { /* HEAD is GET without a body */
	      METHOD_GET = 1,
	      METHOD_POST = 2,
	      METHOD_DELETE = 4,
	      METHOD_PATCH = 8,
};

enum route_flag {
	ROUTE_TICKET = 1,   /* ?ticket= is accepted */
	ROUTE_STREAM = 2,   /* what an EventSource asks for: so is the cookie pt_<session> */
	ROUTE_JSON = 4,     /* has a JSON body, of body_bytes_max at most */
	ROUTE_INPUT = 8,    /* the body is input: raw, or JSON; config.input_bytes counts */
	ROUTE_METRICS = 16, /* on the metrics listener when there is one */
	ROUTE_RAW = 32, /* the body is input, whatever its type says; config.input_bytes counts */
	ROUTE_FRESH = 128, /* shows the session as its owner knows it now */
	ROUTE_WATCH = 256, /* and its output */
	ROUTE_TOKEN = 64,  /* ?token= is accepted, and wins over the header; "null" is none */
};

struct route {
	const char
		*path; /* "/sessions/:id/stream", with at most one variable: ":id" is a session that
			   * is found before the handler is called; ":sandbox" is just taken */
	enum method method;
	const char *name; /* unique: for metrics */
	enum role role;   /* ROLE_NONE: open to all */
	unsigned flags;   /* of enum route_flag */
	size_t body_bytes_max;

	/* Called once the body is complete. Answers by one of request_answer...(), or waits by
	 * request_wait(). Must not block. Thread: HTTP. */
	void (*handle)(struct request *r);

	/* NULL, or tells a refusal in another way than by a problem body; false: it does not. */
	bool (*refuse)(struct request *r, const struct problem *p);
};

extern const struct route routes[];
extern const size_t routes_count;
