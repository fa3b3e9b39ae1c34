/* ticket.h -- the tickets that are alive: random names for a role on one session, kept as hashes in
 * memory. They end with the process; their owner makes new ones. Thread: any. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "service/auth.h"

struct ticket_table;

/* max: tickets alive at once. */
int ticket_table_create(unsigned max, struct ticket_table **ret);
void ticket_table_destroy(struct ticket_table *t); /* NULL is allowed */

/* Makes a ticket good for ttl_ms: what it grants is grant's subject, role, session and expires_ms.
 * Returns 0; -EAGAIN when max are alive; -ENOMEM. */
int ticket_add(struct ticket_table *t, const struct principal *grant, int64_t ttl_ms, bool reusable,
	       char ret[TICKET_CHARS + 1]);

/* Looks a ticket up for session. Returns true and what it grants; by_ticket: it is single use. */
bool ticket_find(struct ticket_table *t, const char *ticket, const char *session,
		 struct principal *ret);

/* The same, and a single-use one is spent: of many callers at once one gets it. */
bool ticket_use(struct ticket_table *t, const char *ticket, const char *session,
		struct principal *ret);
