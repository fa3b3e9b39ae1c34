/* http_client.h -- HTTP requests by libcurl, blocking, one client a thread, which keeps its connections. A
 * request ends at its deadline, or soon after its call was cancelled. No redirects, no proxy, no cookies; the
 * answer is limited in size; certificates are verified; plain http only to loopback hosts. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "providers/provider.h"

struct http_client;

/* The calling thread's own, made at its first use, freed when the thread ends. ca_file: NULL, or PEM of
 * private CAs, trusted beside the system's. NULL without memory. */
struct http_client *http_client_of_thread(const char *ca_file);

#define HTTP_HEADERS_MAX 8

struct http_request {
	const char *what;   /* for the log: a static text of a-z and "-" */
	const char *method; /* "GET", "POST" */
	const char *url;
	const char
		*headers[HTTP_HEADERS_MAX]; /* "Name: value"; secrets are wiped from our copies */
	unsigned headers_count;
	const void *body; /* NULL: none (a POST has Content-Length: 0 then) */
	size_t body_size;
	/* Or a multipart form instead of body, as upload_file wants it; path NULL: none. */
	const char *upload_path;
	const void *upload_data;
	size_t upload_size;
	uint32_t timeout_ms;  /* of this request; the call's deadline holds too */
	uint32_t low_speed_s; /* give up without a byte either way for so long; 0: off */
	/* Of a body that is collected. An answer that is no 2xx is cut there and still HTTP_DONE. */
	size_t answer_bytes_max;
	/* It must not be carried out twice: goes over a new connection, as libcurl sends a request again by
	 * itself when a kept one proves to be dead. */
	bool once;
	/* NULL, or takes the body as it comes of a 200 (nothing is collected then). Returns false: enough, the
	 * request ends with HTTP_ENOUGH. */
	bool (*on_body)(void *arg, const char *data, size_t size);
	void *arg;
};

enum http_result {
	HTTP_DONE,        /* there is an answer: look at its status */
	HTTP_ENOUGH,      /* on_body said so */
	HTTP_CUT,         /* the answer began and broke off */
	HTTP_UNREACHABLE, /* no connection, TLS refused, or none of an answer: text says why */
	HTTP_TIMEOUT,     /* timeout_ms is over */
	HTTP_TOO_LARGE,
	HTTP_CANCELLED, /* the call was */
	HTTP_NO_MEMORY,
};

struct http_answer {
	enum http_result result;
	bool sent; /* bytes of the request may have reached the server: it is not known what it did */
	bool hopeless; /* UNREACHABLE, and it would be again: plain http, a bad URL, a certificate */
	unsigned status; /* 0: none came */
	char *body;      /* owned, 0-terminated; NULL for none */
	size_t body_size;
	/* Headers that steer retries; "" where there is none. */
	char retry_after[64], retry_after_ms[32], should_retry[8];
	char text[160]; /* why there is no answer; no secret */
};
void http_answer_fini(struct http_answer *a); /* wipes the body */

/* Does count (1 or 2) requests at the same time; returns when all are over. */
void http_client_perform(struct http_client *c, const struct provider_call *call,
			 const struct http_request *requests, unsigned count,
			 struct http_answer *answers);

/* The SDK's rules: how long to wait before try number attempt + 1 (attempt 0 was the first), or -1: do not.
 * random is uniform in 0 .. 1. Waits that the server asks for are capped at 20 s. Pure. */
int64_t http_retry_delay_ms(const struct http_answer *a, unsigned attempt, double random,
			    int64_t wall_ms);
