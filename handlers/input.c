/* input.c -- POST /sessions/:id/input: what is typed, as raw bytes or as JSON. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "handlers/handlers.h"
#include "handlers/keys.h"
#include "service/app.h"
#include "service/config.h"
#include "service/json_body.h"
#include "service/request.h"
#include "service/session.h"
#include "wire/base64.h"

#define KEYS_MAX 1024
#define SEQ_MAX ((UINT64_C(1) << 53) - 1) /* the largest whole number of JavaScript */

struct bytes {
	uint8_t *data; /* malloc'd; NULL: no memory */
	size_t size;
};

static bool copy_data(const json_t *value, struct bytes *ret, struct problem *problem)
{
	if (!json_is_string(value)) {
		*problem = problem_bad_request("data", "", "data: a string");
		return false;
	}
	ret->size = json_string_length(value);
	ret->data = malloc(ret->size + 1);
	if (ret->data != NULL)
		memcpy(ret->data, json_string_value(value), ret->size);
	return true;
}

static bool decode_base64(const json_t *value, struct bytes *ret, struct problem *problem)
{
	size_t size = json_string_length(value);
	ret->data = malloc(size / 4 * 3 + 1);
	if (ret->data == NULL)
		return true;
	ssize_t decoded = !json_is_string(value)
				  ? -EBADMSG
				  : base64_decode(ret->data, json_string_value(value), size);
	if (decoded < 0) {
		*problem = problem_bad_request("base64", "", "base64: RFC 4648, with padding");
		free(ret->data);
		return false;
	}
	ret->size = (size_t)decoded;
	return true;
}

static bool press_keys(const json_t *value, struct bytes *ret, struct problem *problem)
{
	size_t count = json_array_size(value);
	if (!json_is_array(value) || count > KEYS_MAX) {
		*problem = problem_bad_request("keys", "", "keys: a list of at most %d names",
					       KEYS_MAX);
		return false;
	}
	ret->data = malloc(count * KEY_BYTES_MAX + 1);
	if (ret->data == NULL)
		return true;
	ret->size = 0;
	for (size_t i = 0; i < count; i++) {
		const json_t *key = json_array_get(value, i);
		size_t size = !json_is_string(key)
				      ? 0
				      : key_bytes(json_string_value(key), json_string_length(key),
						  ret->data + ret->size);
		if (size == 0) {
			*problem = problem_bad_request("keys", "",
						       "keys: number %zu is not a key's name",
						       i + 1);
			free(ret->data);
			return false;
		}
		ret->size += size;
	}
	return true;
}

/* What the body says is typed. False: it was answered. */
static bool read_json(struct request *r, struct bytes *ret)
{
	static const char *const names[] = { "data", "base64", "keys", NULL };
	json_auto_t *body = request_json(r, names);
	if (body == NULL)
		return false;
	const json_t *data = json_object_get(body, "data");
	const json_t *base64 = json_object_get(body, "base64");
	const json_t *keys = json_object_get(body, "keys");
	struct problem problem;
	bool ok;
	if (json_object_size(body) != 1) {
		problem = problem_bad_request("data", "", "exactly one of data, base64, keys");
		problem.allowed_list = names;
		ok = false;
	} else if (data != NULL) {
		ok = copy_data(data, ret, &problem);
	} else if (base64 != NULL) {
		ok = decode_base64(base64, ret, &problem);
	} else {
		ok = press_keys(keys, ret, &problem);
	}
	if (!ok)
		request_answer_problem(r, &problem);
	return ok;
}

static bool client_valid(const char *client)
{
	return session_id_valid(client); /* the same characters, the same length */
}

/* Input-Client and Input-Seq: both, or none. False: it was answered. */
static bool read_number(struct request *r, struct input *in)
{
	const char *client = request_header(r, "Input-Client");
	const char *seq = request_header(r, "Input-Seq");
	if (client == NULL && seq == NULL)
		return true;
	struct problem problem;
	if (client == NULL || !client_valid(client)) {
		problem = problem_bad_request("Input-Client", "",
					      "Input-Client: 1 to 64 of A-Z a-z 0-9 _ -, "
					      "together with Input-Seq");
		request_answer_problem(r, &problem);
		return false;
	}
	size_t digits = seq == NULL ? 0 : strspn(seq, "0123456789");
	if (digits >= 1 && digits <= 16 && seq[digits] == '\0')
		in->seq = strtoull(seq, NULL, 10);
	if (in->seq < 1 || in->seq > SEQ_MAX) {
		problem = problem_bad_request("Input-Seq", "1..9007199254740991",
					      "Input-Seq: 1, 2, 3 ..., together with Input-Client");
		request_answer_problem(r, &problem);
		return false;
	}
	session_client_key(client, in->client);
	return true;
}

/* Types what the body is, or, if it is JSON, what it says. */
static void type_body(struct request *r, bool json)
{
	struct input in = { .done = request_resume, .arg = r };
	struct bytes typed = { 0 };
	if (!read_number(r, &in))
		return;
	if (!json)
		typed.data = request_take_body(r, &typed.size);
	else if (!read_json(r, &typed))
		return;
	if (typed.data == NULL) {
		struct problem p = problem_make(503, "busy", "no memory");
		request_answer_problem(r, &p);
		return;
	}
	if (typed.size > r->app->config->input_bytes) {
		free(typed.data);
		request_answer_too_large(r, r->app->config->input_bytes);
		return;
	}
	request_drop_body(r);
	in.bytes = typed.data;
	in.size = typed.size;
	request_wait(r, request_answer_reply);
	session_input(r->session, &in);
}

void handle_input(struct request *r)
{
	type_body(r, r->json);
}

void input_raw(struct request *r)
{
	type_body(r, false);
}
