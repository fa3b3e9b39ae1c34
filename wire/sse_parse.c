/* sse_parse.c -- see sse_parse.h. Lines are looked for in what was fed; only one that is not whole yet is
 * copied. Buffers are wiped, as events may hold secrets. */
#include "wire/sse_parse.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_CAPACITY 256

void sse_parser_init(struct sse_parser *p, size_t max_bytes)
{
	*p = (struct sse_parser){ .max_bytes = max_bytes };
}

static void wipe_free(char *block, size_t size)
{
	if (block != NULL)
		explicit_bzero(block, size);
	free(block);
}

void sse_parser_fini(struct sse_parser *p)
{
	wipe_free(p->data, p->capacity);
	wipe_free(p->line, p->line_capacity);
	*p = (struct sse_parser){ .failed = true };
}

/* Appends, and a 0 behind it that does not count. Not realloc(): it would leave the old bytes behind. */
static int append(const struct sse_parser *p, char **block, size_t *size, size_t *capacity,
		  const char *bytes, size_t more)
{
	if (more > p->max_bytes - *size)
		return -EMSGSIZE;
	size_t needed = *size + more + 1;
	if (needed > *capacity) {
		size_t larger = *capacity == 0 ? FIRST_CAPACITY : *capacity;
		while (larger < needed)
			larger *= 2;
		char *copy = malloc(larger);
		if (copy == NULL)
			return -ENOMEM;
		if (*size > 0)
			memcpy(copy, *block, *size);
		wipe_free(*block, *capacity);
		*block = copy;
		*capacity = larger;
	}
	if (more > 0)
		memcpy(*block + *size, bytes, more);
	*size += more;
	(*block)[*size] = '\0';
	return 0;
}

static int append_data(struct sse_parser *p, const char *value, size_t size)
{
	int rc = 0;
	if (p->has_data)
		rc = append(p, &p->data, &p->size, &p->capacity, "\n", 1);
	if (rc == 0)
		rc = append(p, &p->data, &p->size, &p->capacity, value, size);
	p->has_data = rc == 0;
	return rc;
}

static bool is_field(const char *line, size_t size, const char *name)
{
	return size == strlen(name) && memcmp(line, name, size) == 0;
}

typedef bool (*event_fn)(void *arg, const char *name, const char *data, size_t data_size);

/* One line, without its end. */
static int take_line(struct sse_parser *p, const char *line, size_t size, event_fn event, void *arg)
{
	if (!p->started) {
		p->started = true;
		if (size >= 3 && memcmp(line, "\xef\xbb\xbf", 3) == 0) {
			line += 3;
			size -= 3;
		}
	}
	if (size == 0) {
		bool go_on = !p->has_data || event(arg, p->name, p->data, p->size);
		p->has_data = false;
		p->size = 0;
		p->name[0] = '\0';
		return go_on ? 0 : -ECANCELED;
	}
	const char *colon = memchr(line, ':', size);
	size_t name_size = colon == NULL ? size : (size_t)(colon - line);
	const char *value = colon == NULL ? line + size : colon + 1;
	size_t value_size = (size_t)(line + size - value);
	if (value_size > 0 && *value == ' ') {
		value++;
		value_size--;
	}
	if (is_field(line, name_size, "data"))
		return append_data(p, value, value_size);
	if (is_field(line, name_size, "event")) {
		if (value_size > sizeof(p->name) - 1)
			value_size = sizeof(p->name) - 1;
		memcpy(p->name, value, value_size);
		p->name[value_size] = '\0';
	}
	return 0;
}

/* The bytes in front of the first CR or LF; size when there is none. */
static size_t line_end(const char *bytes, size_t size)
{
	const char *lf = memchr(bytes, '\n', size);
	size_t end = lf == NULL ? size : (size_t)(lf - bytes);
	const char *cr = memchr(bytes, '\r', end);
	return cr == NULL ? end : (size_t)(cr - bytes);
}

static int feed(struct sse_parser *p, const char *bytes, size_t size, event_fn event, void *arg)
{
	size_t at = 0;
	while (at < size) {
		bool second = p->after_cr && bytes[at] == '\n'; /* of a CRLF */
		p->after_cr = false;
		if (second) {
			at++;
			continue;
		}
		const char *line = bytes + at;
		size_t line_size = line_end(line, size - at);
		bool whole = at + line_size < size;
		int rc = 0;
		if (line_size > p->max_bytes)
			return -EMSGSIZE;
		if (!whole || p->line_size > 0) {
			rc = append(p, &p->line, &p->line_size, &p->line_capacity, line, line_size);
			line = p->line;
		}
		if (rc < 0 || !whole)
			return rc;
		at += line_size;
		p->after_cr = bytes[at++] == '\r';
		if (p->line_size > 0)
			line_size = p->line_size;
		p->line_size = 0;
		rc = take_line(p, line, line_size, event, arg);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int sse_parser_feed(struct sse_parser *p, const char *bytes, size_t size,
		    bool (*event)(void *arg, const char *name, const char *data, size_t data_size),
		    void *arg)
{
	if (p->failed)
		return -ECANCELED;
	int rc = feed(p, bytes, size, event, arg);
	p->failed = rc < 0;
	return rc;
}
