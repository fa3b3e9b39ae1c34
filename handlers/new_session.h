/* new_session.h -- the body of POST /sessions, read and checked. Thread: any. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "service/problem.h"
#include "service/session.h"

struct app;
struct principal;
struct provider_config;

struct new_session {
	struct session_spec spec; /* subject is left to the caller; borrows from what is below */
	json_t *body;             /* a reference */
	bool remote;              /* not built in: new_session_find() has to complete it */
	char *params, *sandbox;   /* owned */
	char *target, *owner;     /* owned */
	const char **command;     /* owned; its strings are the body's */
	char **env;               /* owned, and its strings */
};

extern const char *const new_session_members[]; /* for request_json() */

/* providers: the names of those that are switched on, NULL-terminated. idle_timeout_s: the default.
 * False and *problem when body cannot be that; a 503 is no memory. */
bool new_session_read(json_t *body, const struct provider_config *cfg, const char *const *providers,
		      uint32_t idle_timeout_s, struct new_session *ret, struct problem *problem);
/* Completes a remote one for principal: looks its sandbox up, or seals its credential. A stored sandbox's
 * session is its owner's, whoever asks. Blocks. */
bool new_session_find(struct app *app, const struct principal *principal, struct new_session *n,
		      struct problem *problem);
void new_session_fini(struct new_session *n);
