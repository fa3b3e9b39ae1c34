/* redis_pool.h -- a few connections for callers that wait for the answer, from several threads.
 *
 *	struct redis_turn turn = { 0 };
 *	do {
 *		rc = redis_pool_take(pool, &turn, err);
 *		if (rc == 0)
 *			rc = ask(turn.conn, ...);
 *	} while (redis_pool_give(pool, &turn, true, rc));
 */
#pragma once

#include "store/redis_conn.h"

struct redis_pool;

struct redis_turn {
	struct redis_conn *conn; /* set by redis_pool_take() */
	/* The pool's own; all 0 at first. */
	int64_t deadline_ms;
	bool again;
};

/* peer is borrowed. Makes the first connection, so that what is wrong is said: as redis_conn_open(). */
int redis_pool_create(struct redis_peer *peer, struct redis_pool **ret, struct error *err);
void redis_pool_destroy(struct redis_pool *p); /* all were given back; NULL is allowed */

/* A connection for this caller alone, with a deadline of REDIS_COMMAND_MS for the whole turn. -EHOSTUNREACH: there is none,
 * or all are taken until then; -ENOMEM. Thread: any. */
int redis_pool_take(struct redis_pool *p, struct redis_turn *turn, struct error *err);

/* Gives it back, or closes it when it is of no use any more; rc is what became of the call. True: it is to be made
 * once more, on a new connection: the old one was dead, and the call may be repeated, or was surely not carried
 * out. */
bool redis_pool_give(struct redis_pool *p, struct redis_turn *turn, bool repeatable, int rc);
