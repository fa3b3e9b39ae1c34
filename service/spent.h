/* spent.h -- the single-use tickets that are spent, each until it expires: for a service whose store nobody shares.
 * They end with the process, and so do its tickets. Thread: any. */
#pragma once

#include <stdint.h>

#include "service/ticket.h"

struct spent;

/* max: tickets that are spent and have not expired. Returns 0 or -ENOMEM. */
int spent_create(unsigned max, struct spent **ret);
void spent_destroy(struct spent *s); /* NULL is allowed */

/* 0 for the first call with that nonce, of however many at once; -EEXIST for all later ones until the ticket has
 * expired (expires_ms, now_ms: Unix time); -EAGAIN when there are max, -ENOMEM: it is not spent then. One counts
 * for 5 s longer than it is good. */
int spent_add(struct spent *s, const uint8_t nonce[TICKET_NONCE_BYTES], int64_t expires_ms,
	      int64_t now_ms);
