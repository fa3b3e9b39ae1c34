/* sandbox.h -- sandboxes as requests name them: stored ones, and those given within a session. Credentials come
 * in clear or sealed in the original's form, are kept sealed, and are opened here for one provider call. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

#include "providers/provider.h"
#include "service/problem.h"
#include "service/reply.h"

struct app;
struct store_sandbox;

/* Reads what a POST /sandboxes, a PATCH, or a line of `ptycast import` says: members of object that are there
 * are put into *record, the credential sealed and redacted. is_new: *record is all 0 but for the subject, when
 * object need not name one; members that are missing get their defaults. Else it has the values so far (old
 * strings are freed). False and *problem: what is wrong, in which member. Opens sealed credentials: on threads
 * that may block. */
bool sandbox_read(struct app *app, const json_t *object, bool is_new, struct store_sandbox *record,
		  struct problem *problem);

/* The first member in which they differ, or NULL. Opens both credentials; one that does not open differs. */
const char *sandbox_difference(struct app *app, const struct store_sandbox *a,
			       const struct store_sandbox *b);

/* A sandbox within a session, {provider, external_id, credential, transport?, agent?, resume?}: its provider, *shown
 * (JSON without the credential, for GET /sessions/:id) and *sealed (for sandbox_target_of()), owned by the
 * caller. The same rules; the members' names in problems begin with "sandbox.". */
bool sandbox_read_inline(struct app *app, const json_t *object,
			 const struct provider_ops **provider, char **shown, char **sealed,
			 struct problem *problem);

/* Logs that the store failed, and makes the answer of it. */
struct reply sandbox_store_failed(int rc, const struct error *err);

/* Looks a stored sandbox up for somebody; subject NULL: an operator. True, its provider (switched on here) and
 * *owner (its subject, owned by the caller); else *problem: 404 not-found, 409 provider-off, 503. Blocks. */
bool sandbox_find(struct app *app, const char *id, const char *subject,
		  const struct provider_ops **provider, char **owner, struct reply *problem);

/* Opens the credential for one call: of the stored sandbox id, which must be owner's and of that provider, or
 * of a sealed text from sandbox_read_inline() (id NULL). -ENOENT slug sandbox-unknown: it was deleted. -EBADMSG slug
 * credential-unreadable: sealed for another key pair. Others, slug busy: the store, no memory. Blocks. The caller: sandbox_target_fini(). */
int sandbox_target_of(struct app *app, const char *id, const char *owner, const char *provider,
		      const char *sealed, struct sandbox_target *ret, struct error *err);
