/* sandbox_private.h -- what sandbox.c and sandbox_credential.c share. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

#include "service/problem.h"

struct app;
struct store_sandbox;

/* What object says by "credential" or "credential_sealed". *ret: an object of strings in clear, a new reference; NULL
 * when it says nothing. */
bool sandbox_read_credential(const struct app *app, const json_t *object, bool required,
			     json_t **ret, struct problem *problem);
/* Puts it into *record, sealed and redacted. */
bool sandbox_keep_credential(const struct app *app, json_t *credential,
			     struct store_sandbox *record, struct problem *problem);

/* value as text, sealed, the caller's; NULL without memory. */
char *sandbox_seal_json(const struct app *app, const json_t *value);
/* And back, a new reference; NULL when it does not open. */
json_t *sandbox_open_json(const struct app *app, const char *sealed);

/* Both return false, with *problem filled. */
bool sandbox_no_memory(struct problem *problem);
bool sandbox_refuse(struct problem *problem, const char *field, const char *text);

bool sandbox_is_printable(const char *text, size_t size); /* ASCII alone */
