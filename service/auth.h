/* auth.h -- who asks, and what they may: API keys, JWTs, tickets, the stream cookie.
 * DESIGN: roles view < write < admin; operator is admin for any subject. Compares in constant
 * time. Thread: any. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "service/config.h"
#include "service/error.h"

enum role { ROLE_NONE, ROLE_VIEW, ROLE_WRITE, ROLE_ADMIN, ROLE_OPERATOR };

#define SUBJECT_BYTES 256

struct principal {
	char subject[SUBJECT_BYTES];
	enum role role;
	char session[65];   /* "" or the only session it is good for (tickets, cookies) */
	int64_t expires_ms; /* Unix time; 0: never. A stream ends then */
	bool by_ticket;     /* by a single-use ticket, now spent: a stream answers with a cookie */
	bool by_cookie;     /* the cookie is to be renewed */
};

/* What a request brought; NULL where it did not. Only one of header, ticket, cookie is needed. */
struct credentials {
	const char *authorization; /* the header's value */
	const char *ticket;        /* ?ticket= */
	const char *cookie;        /* value of pt_<session>, for that session's stream alone */
	const char *session;       /* the session of the path, or NULL */
	bool is_stream;            /* GET .../stream or .../ws: where a ticket is accepted */
};

struct auth;

/* cookie_key: 32 bytes from the store. cfg is borrowed and outlives it. Makes and keeps a random
 * API key when nothing is configured (auth_generated_key()). */
int auth_create(const struct config *cfg, const uint8_t cookie_key[32], struct auth **ret,
		struct error *err);
void auth_destroy(struct auth *a);

/* The key made at the start, or NULL when credentials are configured. */
const char *auth_generated_key(const struct auth *a);

/* Returns 0 and fills ret; -EACCES with a text fit for the client (never the credential) when none
 * is good. A Bearer header decides alone. On a stream a good cookie goes before the ticket, which
 * stays unspent, unless the ticket is still good and grants more or to another subject. A
 * single-use ticket that decides is spent by this call. */
int auth_check(struct auth *a, const struct credentials *c, struct principal *ret,
	       struct error *err);

/* Makes a ticket for session and subject; role is VIEW or WRITE. owner_expires_ms: its maker's, 0:
 * never; the ticket is not good past it. Returns 0, -EAGAIN when max_tickets are alive, or -ENOMEM.
 * ret is the ticket, 0-terminated, URL-safe. */
#define TICKET_CHARS 43
int auth_ticket(struct auth *a, const char *session, const char *subject, enum role role,
		unsigned ttl_s, bool reusable, int64_t owner_expires_ms, char ret[TICKET_CHARS + 1],
		int64_t *expires_ms);

/* The value for cookie pt_<session>: "v1.<role>.<expires>.<until>.<subject, base64url>.<mac>". It
 * is good for 5 minutes; renewed, until p->expires_ms, or for a day when that is later or 0. What a
 * cookie gives has that end as its expires_ms. Returns its length. */
#define COOKIE_BYTES 640
size_t auth_cookie(struct auth *a, const char *session, const struct principal *p,
		   char ret[COOKIE_BYTES]);

const char *role_name(enum role role);
