/* reply.h -- the answer to a request that another thread works out: a status, and for errors the
 * problem (RFC 9457) that http.c makes a body of. A plain value, copied freely. */
#pragma once

#include <stdint.h>

struct reply {
	unsigned status;  /* HTTP status */
	const char *slug; /* NULL without a problem; static text, the end of /problems/<slug> */
	char detail[200]; /* one sentence for a person */
	unsigned retry_after_s; /* 0: no Retry-After */
	uint64_t expected;      /* 0: no member "expected" */
};

/* Takes an answer. Called exactly once, on any thread, must not block. */
typedef void reply_fn(void *arg, const struct reply *reply);

struct reply reply_ok(unsigned status);
struct reply reply_problem(unsigned status, const char *slug, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
