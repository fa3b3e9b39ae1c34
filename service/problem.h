/* problem.h -- what was wrong with a request, as RFC 9457 problem+json. The slugs are listed in
 * openapi.yaml. Thread: any. */
#pragma once

#include <stddef.h>

#include "service/reply.h"

struct problem {
	struct reply reply;              /* status, slug, detail, retry_after_s, expected */
	char field[64];                  /* member, parameter or header at fault; "": none */
	char allowed[64];                /* what may stand there, "1..1000"; "": none */
	const char *const *allowed_list; /* the same as a list, NULL-terminated; NULL: none */
	const char *session;             /* borrowed; NULL: none */
	const char *error;               /* the original's word for it, static; NULL: none */
};

struct problem problem_make(unsigned status, const char *slug, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* 400 bad-request at field; allowed may be "". */
struct problem problem_bad_request(const char *field, const char *allowed, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* The body, owned by the caller (free()); NULL without memory. What is not UTF-8 becomes U+FFFD. */
char *problem_json(const struct problem *p, size_t *size);

/* 1 to spread_s more than base_s: so that clients who were refused together do not come back together. */
unsigned retry_after_jittered(unsigned base_s, unsigned spread_s);
