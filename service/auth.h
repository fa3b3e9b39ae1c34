/* auth.h -- who asks, and what they may: API keys, JWTs, tickets, the stream cookie.
 * DESIGN: roles view < write < admin; operator is admin for any subject. Compares in constant
 * time. Blocks nowhere. Thread: any. */
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
	bool by_ticket;     /* by a single-use ticket: a stream answers with a cookie */
	bool by_cookie;     /* the cookie is to be renewed */

	/* A ticket that is still to be spent, and what it grants for that session then: see auth_check(). Until
	 * then the above is what is granted without it. */
	char spend[33];        /* its name, of hex digits; "": nothing is to be spent */
	unsigned spend_ttl_ms; /* how long it is to be remembered */
	struct {
		char subject[SUBJECT_BYTES];
		enum role role;
		int64_t expires_ms;
	} ticket;
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
 * API key when nothing is configured (auth_generated_key()). Its tickets end with it: no other
 * process takes them. */
int auth_create(const struct config *cfg, const uint8_t cookie_key[32], struct auth **ret,
		struct error *err);
void auth_destroy(struct auth *a);

/* Replicas share the store that cookie_key is from: each takes the tickets of all, and the store remembers
 * which are spent. Before the first thread that uses it. */
void auth_share_tickets(struct auth *a);

/* The key made at the start, or NULL when credentials are configured. */
const char *auth_generated_key(const struct auth *a);

/* Returns 0 and fills ret, or says why not in a text fit for the client (never the credential), ret untouched:
 * -EACCES when none is good; -EAGAIN when as many tickets are spent as may be remembered, so that one that
 * may be good cannot be judged now: 503 busy. A Bearer header decides alone. On a stream a good cookie goes
 * before the ticket, which stays unspent, unless the ticket is still good and grants more or to another subject.
 * A single-use ticket that decides is spent by this call.
 *
 * With shared tickets it is not, as that asks the store and so blocks. ret->spend is its name then, and ret grants
 * what the cookie does, or nothing. Before role and session are looked at, on a thread that may block:
 *     rc = auth_spent(ret, ops->spend(store, ret->spend, ret->spend_ttl_ms, &why), &err);
 * which is 0 or an error of the same meaning as this function's. */
int auth_check(struct auth *a, const struct credentials *c, struct principal *ret,
	       struct error *err);

/* What becomes of p, whose spend is not "": status is what store_ops->spend() returned. 0: p is what the ticket
 * grants; or, when that was spent before (-EEXIST), what the cookie beside it does. -EACCES: it was spent, and no
 * cookie came; -EAGAIN: the store could not be asked, and nothing is known of the ticket. p is nobody then. In any
 * case nothing is to be spent any more. Thread: any. */
int auth_spent(struct principal *p, int status, struct error *err);

/* Makes a ticket for session and subject; role is VIEW or WRITE. owner_expires_ms: its maker's, 0:
 * never; neither the ticket nor what it opens is good past it. ret is the ticket, 0-terminated,
 * URL-safe; *expires_ms is Unix time. */
#define TICKET_BYTES 512
void auth_ticket(struct auth *a, const char *session, const char *subject, enum role role,
		 unsigned ttl_s, bool reusable, int64_t owner_expires_ms, char ret[TICKET_BYTES],
		 int64_t *expires_ms);

/* The value for cookie pt_<session>: "v1.<role>.<expires>.<until>.<subject, base64url>.<mac>". It
 * is good for 5 minutes; renewed, until p->expires_ms, or for a day when that is later or 0. What a
 * cookie gives has that end as its expires_ms. Returns its length. */
#define COOKIE_BYTES 640
size_t auth_cookie(struct auth *a, const char *session, const struct principal *p,
		   char ret[COOKIE_BYTES]);

const char *role_name(enum role role);
