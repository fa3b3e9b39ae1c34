/* json_body.h -- reads what a client sent as JSON, strictly: what is not known, or not of the right kind,
 * is refused by name. Pure. Thread: any. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "service/problem.h"

/* Before the first use of jansson: from here on its memory is wiped when it is freed, because what clients send
 * may be secret. */
void json_body_init(void);

/* Deeper nesting is refused. */
#define JSON_BODY_DEPTH_MAX 16

/* An object (a new reference) whose members are all among names (NULL-terminated), or NULL and
 * *problem: not JSON, not an object, a member twice, an unknown member. Strings may hold U+0000. */
json_t *json_body_parse(const void *data, size_t size, const char *const *names,
			struct problem *problem);

/* False and *problem when value has a member that is not among names; prefix goes in front of the name
 * in the problem ("sandbox."), "" for none. */
bool json_body_only(const json_t *value, const char *prefix, const char *const *names,
		    struct problem *problem);

/* Reads an integer member between min and max; when it is missing *ret stays, unless it is required. */
bool json_body_int(const json_t *body, const char *name, bool required, json_int_t min,
		   json_int_t max, json_int_t *ret, struct problem *problem);

/* Reads a boolean member; when it is missing *ret stays. */
bool json_body_bool(const json_t *body, const char *name, bool *ret, struct problem *problem);

/* Reads a string member without U+0000; when it is missing *ret stays, unless it is required. *ret lives as
 * long as body. */
bool json_body_string(const json_t *body, const char *name, bool required, const char **ret,
		      struct problem *problem);
