/* problem.c -- see problem.h. */
#include "service/problem.h"

#include <jansson.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "wire/utf8.h"

static const char *title_of(unsigned status)
{
	switch (status) {
	case 400:
		return "Bad Request";
	case 401:
		return "Unauthorized";
	case 403:
		return "Forbidden";
	case 404:
		return "Not Found";
	case 405:
		return "Method Not Allowed";
	case 409:
		return "Conflict";
	case 413:
		return "Payload Too Large";
	case 415:
		return "Unsupported Media Type";
	case 429:
		return "Too Many Requests";
	case 501:
		return "Not Implemented";
	case 502:
		return "Bad Gateway";
	case 504:
		return "Gateway Timeout";
	default:
		return "Service Unavailable";
	}
}

struct problem problem_make(unsigned status, const char *slug, const char *format, ...)
{
	struct problem p = { .reply = { .status = status, .slug = slug } };
	va_list args;
	va_start(args, format);
	vsnprintf(p.reply.detail, sizeof(p.reply.detail), format, args);
	va_end(args);
	return p;
}

struct problem problem_bad_request(const char *field, const char *allowed, const char *format, ...)
{
	struct problem p = { .reply = { .status = 400, .slug = "bad-request" } };
	snprintf(p.field, sizeof(p.field), "%s", field);
	snprintf(p.allowed, sizeof(p.allowed), "%s", allowed);
	va_list args;
	va_start(args, format);
	vsnprintf(p.reply.detail, sizeof(p.reply.detail), format, args);
	va_end(args);
	return p;
}

/* Texts may come from a far end, or were cut inside a character. */
static json_t *json_text(const char *text)
{
	uint8_t valid[3 * sizeof(((struct reply *)NULL)->detail)];
	size_t size = strnlen(text, sizeof(valid) / 3);
	size = utf8_replace(valid, (const uint8_t *)text, size);
	return json_stringn((const char *)valid, size);
}

char *problem_json(const struct problem *p, size_t *size)
{
	json_auto_t *root = json_pack("{s:o, s:s, s:I, s:o}", "type",
				      json_sprintf("/problems/%s", p->reply.slug), "title",
				      title_of(p->reply.status), "status",
				      (json_int_t)p->reply.status, "detail",
				      json_text(p->reply.detail));
	if (root == NULL)
		return NULL;
	if (p->field[0] != '\0')
		json_object_set_new(root, "field", json_text(p->field));
	if (p->allowed[0] != '\0')
		json_object_set_new(root, "allowed", json_text(p->allowed));
	if (p->allowed_list != NULL) {
		json_t *list = json_array();
		for (const char *const *item = p->allowed_list; *item != NULL; item++)
			json_array_append_new(list, json_text(*item));
		json_object_set_new(root, "allowed", list);
	}
	if (p->reply.expected != 0)
		json_object_set_new(root, "expected", json_integer((json_int_t)p->reply.expected));
	if (p->session != NULL)
		json_object_set_new(root, "session", json_text(p->session));
	if (p->error != NULL)
		json_object_set_new(root, "error", json_text(p->error));
	char *text = json_dumps(root, JSON_COMPACT);
	*size = text == NULL ? 0 : strlen(text);
	return text;
}

unsigned retry_after_jittered(unsigned base_s, unsigned spread_s)
{
	return base_s + 1 + randombytes_uniform(spread_s);
}
