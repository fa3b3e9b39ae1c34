/* canned_server.h -- an HTTP/1.1 server on loopback that plays answers from a table and writes down what it was
 * asked. One thread a connection. Support of the tests of providers/. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What to say to the first request that fits; each step is used once, in the table's order. */
struct canned_step {
	const char *when;    /* how the request line begins: "GET /v1/devboxes/d1" */
	unsigned status;     /* 0: 200 */
	const char *headers; /* more of them, each with CRLF; NULL: none */
	const char *body;    /* NULL: "" */
	size_t filler;       /* so many bytes more of 'x' */
	size_t missing;   /* promised in Content-Length, but the connection is closed before them */
	const char *raw;  /* instead of all that: these bytes, and the connection is closed */
	bool hang;        /* says nothing; until the client goes */
	unsigned barrier; /* waits until so many requests have come */
	bool for_ever;    /* may be used again */
};

struct canned_request {
	char *head; /* request line and headers, 0-terminated */
	char *body; /* 0-terminated */
	size_t body_size;
	unsigned connection; /* 0, 1, ... */
	uint64_t at_us;      /* of CLOCK_MONOTONIC */
};

struct canned_server;

/* steps are borrowed. Failures end the program. */
struct canned_server *canned_start(const struct canned_step *steps, size_t count);
#define CANNED_START(steps) canned_start(steps, sizeof(steps) / sizeof((steps)[0]))
void canned_stop(struct canned_server *s);

const char *canned_url(const struct canned_server *s); /* http://127.0.0.1:PORT */
size_t canned_count(struct canned_server *s);          /* of requests so far */
unsigned canned_connections(struct canned_server *s);
void canned_await(struct canned_server *s, size_t count); /* until they have come; at most 10 s */
/* Good until canned_stop(). */
const struct canned_request *canned_request(struct canned_server *s, size_t index);
/* The value of a header, or NULL; good until the next call. */
const char *canned_header(const struct canned_request *r, const char *name);
