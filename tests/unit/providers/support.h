/* support.h -- what the tests of providers/ that ask a canned server share. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/runloop_api.h"
#include "tests/unit/providers/canned_server.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
#define API_KEY "rl-key-0123456789"
#define SECOND_US UINT64_C(1000000)

/* A call that lasts for at most ms. */
#define CALL(name, ms)                                                          \
	atomic_bool name##_cancelled = false;                                   \
	const struct provider_call name = { .deadline_us = provider_now_us() +  \
							   (ms)*UINT64_C(1000), \
					    .cancelled = &name##_cancelled }

/* An account at the server, for at most 20 s. */
#define API(name, server)                                                \
	CALL(name##_call, 20000);                                        \
	struct runloop_api name = { .http = http_client_of_thread(NULL), \
				    .call = &name##_call,                \
				    .base_url = canned_url(server),      \
				    .api_key = API_KEY }

#define ASSERT_STARTS(text, start) assert_memory_equal(text, start, sizeof(start) - 1)

static inline void assert_header(const struct canned_request *r, const char *name,
				 const char *value)
{
	const char *got = canned_header(r, name);
	if (got == NULL)
		fail_msg("no header %s", name);
	assert_string_equal(got, value);
}

static inline void assert_error(const struct error *err, int code, const char *slug,
				const char *text)
{
	assert_string_equal(err->text, text);
	assert_int_equal(err->code, code);
	assert_non_null(err->slug);
	assert_string_equal(err->slug, slug);
}
