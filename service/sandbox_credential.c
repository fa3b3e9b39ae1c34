/* sandbox_credential.c -- credentials as requests bring them, in clear or sealed, and as they are kept. What is secret is
 * wiped before it is freed; jansson's own memory is wiped by json_body_init(). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/app.h"
#include "service/sandbox_private.h"
#include "store/seal.h"
#include "store/store.h"

#define SECRETS_MAX 8
#define SECRET_NAME_MAX 32
#define SECRET_BYTES_MAX 4096
#define SEALED_CHARS_MAX 8192
#define REDACT_FROM 20 /* shorter ones are not shown at all: their end would tell too much */
#define REDACT_SHOWN 4

bool sandbox_no_memory(struct problem *problem)
{
	*problem = problem_make(503, "busy", "no memory");
	return false;
}

bool sandbox_refuse(struct problem *problem, const char *field, const char *text)
{
	*problem = problem_bad_request(field, "", "%s: %s", field, text);
	return false;
}

bool sandbox_is_printable(const char *text, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (text[i] < ' ' || text[i] > '~')
			return false;
	return true;
}

/* What a client in JavaScript sealed may end as its input field did. */
static size_t without_trailing_space(const char *text, size_t size)
{
	while (size > 0 && strchr(" \t\r\n\v\f", text[size - 1]) != NULL && text[size - 1] != '\0')
		size--;
	return size;
}

/* Adds a secret under name. It goes into a header of a request: so it may hold nothing that ends one. */
static bool add_secret(json_t *credential, const char *name, const char *text, size_t size,
		       struct problem *problem, const char *field)
{
	if (size < 1 || size > SECRET_BYTES_MAX || !sandbox_is_printable(text, size))
		return sandbox_refuse(problem, field, "1 to 4096 printable ASCII characters");
	return json_object_set_new(credential, name, json_stringn(text, size)) == 0 ||
	       sandbox_no_memory(problem);
}

static bool open_secret(const struct app *app, json_t *credential, const char *name,
			const json_t *value, struct problem *problem, const char *field)
{
	uint8_t *data = NULL;
	size_t size = 0;
	const char *sealed = json_string_value(value);
	int rc = strlen(sealed) != json_string_length(value) || strlen(sealed) > SEALED_CHARS_MAX
			 ? -EBADMSG
			 : seal_open(app->seal_keys, sealed, &data, &size);
	if (rc == -ENOMEM)
		return sandbox_no_memory(problem);
	if (rc != 0) {
		*problem = problem_make(400, "credential-unreadable",
					"%s: sealed for another key pair, or damaged", field);
		snprintf(problem->field, sizeof(problem->field), "%s", field);
		return false;
	}
	bool ok = add_secret(credential, name, (char *)data,
			     without_trailing_space((char *)data, size), problem, field);
	seal_free(data, size);
	return ok;
}

static bool is_secret_name(const char *name)
{
	size_t size = strspn(name, "abcdefghijklmnopqrstuvwxyz_");
	return size >= 1 && size <= SECRET_NAME_MAX && name[size] == '\0';
}

/* Adds what value, the member called member, says: an object of strings, or one for "api_key". */
static bool read_secrets(const struct app *app, const json_t *value, const char *member,
			 bool sealed, json_t *credential, struct problem *problem)
{
	json_auto_t *bare = json_is_string(value) ? json_pack("{s:O}", "api_key", value) : NULL;
	json_t *object = bare != NULL ? bare : (json_t *)value;
	if (!json_is_object(object) || json_object_size(object) < 1 ||
	    json_object_size(object) > SECRETS_MAX)
		return sandbox_refuse(problem, member, "a string, or an object of 1 to 8 strings");
	const char *name;
	json_t *secret;
	json_object_foreach(object, name, secret)
	{
		if (!is_secret_name(name) || !json_is_string(secret))
			return sandbox_refuse(problem, member,
					      "names of 1 to 32 of a-z and _, and strings");
		char field[sizeof(problem->field)];
		snprintf(field, sizeof(field), "%s.%s", member, name);
		bool ok = sealed ? open_secret(app, credential, name, secret, problem, field)
				 : add_secret(credential, name, json_string_value(secret),
					      json_string_length(secret), problem, field);
		if (!ok)
			return false;
	}
	return true;
}

bool sandbox_read_credential(const struct app *app, const json_t *object, bool required,
			     json_t **ret, struct problem *problem)
{
	const json_t *clear = json_object_get(object, "credential");
	const json_t *sealed = json_object_get(object, "credential_sealed");
	*ret = NULL;
	if ((clear != NULL && sealed != NULL) || (required && clear == NULL && sealed == NULL))
		return sandbox_refuse(problem, "credential",
				      "this or credential_sealed, exactly one of them");
	if (clear == NULL && sealed == NULL)
		return true;
	json_t *credential = json_object();
	if (credential == NULL)
		return sandbox_no_memory(problem);
	if (!read_secrets(app, clear != NULL ? clear : sealed,
			  clear != NULL ? "credential" : "credential_sealed", clear == NULL,
			  credential, problem)) {
		json_decref(credential);
		return false;
	}
	*ret = credential;
	return true;
}

char *sandbox_seal_json(const struct app *app, const json_t *value)
{
	char *text = json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS);
	if (text == NULL)
		return NULL;
	char *sealed = seal(app->seal_keys, text, strlen(text));
	seal_free(text, strlen(text));
	return sealed;
}

json_t *sandbox_open_json(const struct app *app, const char *sealed)
{
	uint8_t *text = NULL;
	size_t size;
	if (seal_open(app->seal_keys, sealed, &text, &size) != 0)
		return NULL;
	json_t *value = json_loadb((char *)text, size, 0, NULL);
	seal_free(text, size);
	return value;
}

static char *redact(json_t *credential)
{
	json_auto_t *shown = json_object();
	const char *name;
	json_t *secret;
	json_object_foreach(credential, name, secret)
	{
		size_t size = json_string_length(secret);
		const char *text = json_string_value(secret);
		json_object_set_new(shown, name,
				    size < REDACT_FROM
					    ? json_string("***")
					    : json_sprintf("...%s", text + size - REDACT_SHOWN));
	}
	return json_dumps(shown, JSON_COMPACT | JSON_SORT_KEYS);
}

bool sandbox_keep_credential(const struct app *app, json_t *credential,
			     struct store_sandbox *record, struct problem *problem)
{
	char *sealed = sandbox_seal_json(app, credential), *redacted = redact(credential);
	if (sealed == NULL || redacted == NULL) {
		free(sealed);
		free(redacted);
		return sandbox_no_memory(problem);
	}
	free(record->credential);
	free(record->redacted);
	record->credential = sealed;
	record->redacted = redacted;
	return true;
}
