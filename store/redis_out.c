/* redis_out.c -- see redis_out.h. By hand: hiredis' formatters take a malloc, and most of a small message's time. */
#include "store/redis_out.h"

#include <stdlib.h>
#include <string.h>

#define START_BYTES 4096
#define KEEP_BYTES (1u << 20)

static bool reserve(struct redis_out *out, size_t size)
{
	if (size <= out->capacity - out->size)
		return true;
	size_t capacity = out->capacity < START_BYTES ? START_BYTES : out->capacity;
	while (capacity - out->size < size)
		capacity *= 2;
	char *data = realloc(out->data, capacity);
	if (data == NULL)
		return false;
	out->data = data;
	out->capacity = capacity;
	return true;
}

static void append(struct redis_out *out, const void *data, size_t size)
{
	if (size == 0 || out->broken)
		return;
	if (!reserve(out, size)) {
		out->broken = true;
		return;
	}
	memcpy(out->data + out->size, data, size);
	out->size += size;
}

/* "$12\r\n" */
static void append_number(struct redis_out *out, char kind, size_t number)
{
	char text[24], *at = text + sizeof(text);
	*--at = '\n';
	*--at = '\r';
	do
		*--at = (char)('0' + number % 10);
	while ((number /= 10) > 0);
	*--at = kind;
	append(out, at, (size_t)(text + sizeof(text) - at));
}

void redis_out_begin(struct redis_out *out, unsigned words)
{
	append_number(out, '*', words);
}

void redis_out_word(struct redis_out *out, const void *head, size_t head_size, const void *tail,
		    size_t tail_size)
{
	append_number(out, '$', head_size + tail_size);
	append(out, head, head_size);
	append(out, tail, tail_size);
	append(out, "\r\n", 2);
}

void redis_out_reset(struct redis_out *out)
{
	out->size = 0;
	out->broken = false;
	if (out->capacity > KEEP_BYTES)
		redis_out_fini(out);
}

void redis_out_fini(struct redis_out *out)
{
	if (out->data != NULL)
		explicit_bzero(out->data, out->capacity);
	free(out->data);
	*out = (struct redis_out){ 0 };
}
