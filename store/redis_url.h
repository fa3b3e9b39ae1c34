/* redis_url.h -- where a Redis is, and who we are there: what --store names behind "redis:". Pure. */
#pragma once

#include <stdint.h>

#include "service/error.h"

struct redis_url {
	char host[256]; /* a name or an address; IPv6 without its brackets */
	uint16_t port;
	char *user, *password; /* owned; user NULL: the default one; both NULL: no AUTH */
	unsigned db;
};

/* Parses "//[[user]:password@]host[:port][/db]"; user and password are percent-decoded, port is 6379 and db 0
 * where they are not given. 0 and *ret is the caller's until redis_url_fini(); -EINVAL with a sentence that
 * never holds the password; -ENOMEM. ret is untouched on failure. Thread: any. */
int redis_url_parse(const char *location, struct redis_url *ret, struct error *err);

/* Wipes and frees; may be called twice. */
void redis_url_fini(struct redis_url *url);
