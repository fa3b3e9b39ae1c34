/* json_body.c -- see json_body.h. */
#include "service/json_body.h"

#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void wipe_and_free(void *memory)
{
	if (memory != NULL)
		explicit_bzero(memory, malloc_usable_size(memory));
	free(memory);
}

void json_body_init(void)
{
	json_set_alloc_funcs(malloc, wipe_and_free);
}

static bool deeper_than(const json_t *value, unsigned levels)
{
	if (!json_is_object(value) && !json_is_array(value))
		return false;
	if (levels == 0)
		return true;
	const char *name;
	json_t *child;
	size_t i;
	json_object_foreach((json_t *)value, name,
			    child) if (deeper_than(child, levels - 1)) return true;
	json_array_foreach(value, i, child) if (deeper_than(child, levels - 1)) return true;
	return false;
}

bool json_body_only(const json_t *value, const char *prefix, const char *const *names,
		    struct problem *problem)
{
	const char *name;
	json_t *child;
	json_object_foreach((json_t *)value, name, child)
	{
		const char *const *known = names;
		while (*known != NULL && strcmp(*known, name) != 0)
			known++;
		if (*known != NULL)
			continue;
		char field[sizeof(problem->field)];
		snprintf(field, sizeof(field), "%s%s", prefix, name);
		*problem = problem_bad_request(field, "", "there is no member %s here", field);
		problem->allowed_list = names;
		return false;
	}
	return true;
}

json_t *json_body_parse(const void *data, size_t size, const char *const *names,
			struct problem *problem)
{
	json_error_t error;
	json_t *body = json_loadb(data, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
	if (body == NULL) {
		/* jansson's own text would quote the body. */
		bool twice = json_error_code(&error) == json_error_duplicate_key;
		*problem = problem_make(400, "bad-json", "the body %s (near byte %d)",
					twice ? "has a member twice" : "is not JSON",
					error.position);
		return NULL;
	}
	if (!json_is_object(body))
		*problem = problem_make(400, "bad-json", "the body is not a JSON object");
	else if (deeper_than(body, JSON_BODY_DEPTH_MAX))
		*problem = problem_make(400, "bad-json", "the body is nested deeper than %d",
					JSON_BODY_DEPTH_MAX);
	else if (json_body_only(body, "", names, problem))
		return body;
	json_decref(body);
	return NULL;
}

/* Finds the member: NULL with *ok telling whether that is fine. */
static const json_t *member(const json_t *body, const char *name, bool required, bool *ok,
			    struct problem *problem)
{
	const json_t *value = json_object_get(body, name);
	*ok = value != NULL || !required;
	if (!*ok)
		*problem = problem_bad_request(name, "", "%s is missing", name);
	return value;
}

bool json_body_int(const json_t *body, const char *name, bool required, json_int_t min,
		   json_int_t max, json_int_t *ret, struct problem *problem)
{
	char allowed[48];
	snprintf(allowed, sizeof(allowed), "%" JSON_INTEGER_FORMAT "..%" JSON_INTEGER_FORMAT, min,
		 max);
	bool ok;
	const json_t *value = member(body, name, required, &ok, problem);
	if (value == NULL)
		return ok;
	if (!json_is_integer(value)) {
		*problem = problem_bad_request(name, allowed, "%s: a whole number", name);
		return false;
	}
	json_int_t n = json_integer_value(value);
	if (n < min || n > max) {
		*problem = problem_bad_request(name, allowed,
					       "%s: %" JSON_INTEGER_FORMAT
					       " to %" JSON_INTEGER_FORMAT
					       ", got %" JSON_INTEGER_FORMAT,
					       name, min, max, n);
		return false;
	}
	*ret = n;
	return true;
}

bool json_body_bool(const json_t *body, const char *name, bool *ret, struct problem *problem)
{
	bool ok;
	const json_t *value = member(body, name, false, &ok, problem);
	if (value == NULL)
		return ok;
	if (!json_is_boolean(value)) {
		*problem = problem_bad_request(name, "", "%s: true or false", name);
		return false;
	}
	*ret = json_is_true(value);
	return true;
}

bool json_body_string(const json_t *body, const char *name, bool required, const char **ret,
		      struct problem *problem)
{
	bool ok;
	const json_t *value = member(body, name, required, &ok, problem);
	if (value == NULL)
		return ok;
	if (!json_is_string(value)) {
		*problem = problem_bad_request(name, "", "%s: a string", name);
		return false;
	}
	if (strlen(json_string_value(value)) != json_string_length(value)) {
		*problem = problem_bad_request(name, "", "%s: without U+0000", name);
		return false;
	}
	*ret = json_string_value(value);
	return true;
}
