/* sandbox_change.h -- stored sandboxes are made and changed here, for the API and for `ptycast import`. All of
 * it blocks. */
#pragma once

#include <stdbool.h>

#include <jansson.h>

#include "service/problem.h"

struct app;
struct store_sandbox;

enum sandbox_result {
	SANDBOX_REFUSED, /* *problem says why */
	SANDBOX_CREATED,
	SANDBOX_UNCHANGED, /* it was there, with the same content */
	SANDBOX_CHANGED,
};

/* Stores *record, which sandbox_read() made. When its id is in use: by the same subject with the same content,
 * *record becomes what is stored; with other content, that is replaced if replace is set, but never the
 * provider; else 409 id-differs, or id-taken for another subject's. */
enum sandbox_result sandbox_put(struct app *app, struct store_sandbox *record, bool replace,
				struct problem *problem);

/* Changes what members say of subject's sandbox id (NULL: of anybody's); *ret is the new record, the caller's. */
bool sandbox_patch(struct app *app, const char *id, const char *subject, const json_t *members,
		   struct store_sandbox *ret, struct problem *problem);

/* Finds subject's sandbox id (NULL: anybody's): *ret is the caller's; 404 not-found. */
bool sandbox_get(struct app *app, const char *id, const char *subject, struct store_sandbox *ret,
		 struct problem *problem);

bool sandbox_delete(struct app *app, const char *id, const char *subject, struct problem *problem);
