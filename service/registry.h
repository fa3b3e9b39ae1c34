/* registry.h -- all sessions of this replica by id, and the limits on their number. Thread: any. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "service/error.h"
#include "service/reply.h"
#include "service/session.h"

struct registry;

int registry_create(struct app *app, struct registry **ret);
void registry_destroy(struct registry *r); /* all sessions must be stopped */

/* Finds or makes the session of spec, so that of many simultaneous calls with one id exactly one makes
 * it. Returns 201 (made and started), 200 (known, alive, same parameters), or the status of *problem
 * (409 id-differs, id-taken; 429 session-limit; 503). For 200 and 201 *ret is a new reference. An ended
 * session of the same subject is replaced. */
unsigned registry_open(struct registry *r, const struct session_spec *spec, struct session **ret,
		       struct reply *problem);

/* A new reference, or NULL. subject NULL: of any subject (operators). */
struct session *registry_find(struct registry *r, const char *id, const char *subject);

/* Up to limit sessions with id > after (NULL: from the start), by id; subject NULL: all; state -1: any.
 * Returns how many; *more tells that others follow. The references are the caller's. */
size_t registry_list(struct registry *r, const char *subject, int state, const char *after,
		     size_t limit, struct session **ret, bool *more);

/* Takes a session out, out of its loop, and forgets it in the store. False when the id is another's by
 * now. */
bool registry_forget(struct registry *r, struct session *s);

/* --- with a store that replicas share --- */

/* The same as registry_find() for a session that may be another replica's. Returns 200 and a new reference, 404,
 * or 503 and *problem: the store cannot be asked. Blocks. */
unsigned registry_look_up(struct registry *r, const char *id, const char *subject,
			  struct session **ret, struct reply *problem);
/* An ended session's id may be another one's by now, and its last owner not know yet. False: it is, or is
 * forgotten; the old one is out of here. Blocks. */
bool registry_confirm(struct registry *r, struct session *s);
/* Why the store could not do it, for the client. */
struct reply registry_store_problem(int rc);
/* We have just been made the owner of record's session. Thread: any. */
void registry_adopt(struct registry *r, const struct store_session *record);
/* It is not ours any more: out of here, but not out of the store. */
void registry_drop(struct registry *r, struct session *s);
/* The same if nobody has looked it up for unused_us. */
bool registry_drop_unused(struct registry *r, struct session *s, uint64_t unused_us);
/* The store may have lost what it knew: all that we own is written again. Thread: any. */
void registry_rewrite(struct registry *r);

/* At the start: the sessions of the store. */
int registry_restore(struct registry *r, struct error *err);
/* Nothing of a session runs any more. */
void registry_gone(struct registry *r);

/* At the end: no new ones; stops all, waits until they are, at most timeout_ms. False when some are not. */
bool registry_stop(struct registry *r, bool end_local, unsigned timeout_ms);
