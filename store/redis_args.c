/* redis_args.c -- see redis_args.h. */
#include "store/redis_args.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static char *take_space(struct redis_args *a, size_t size)
{
	assert(a->used + size <= sizeof(a->space));
	char *space = a->space + a->used;
	a->used += size;
	return space;
}

void redis_args_bytes(struct redis_args *a, const void *data, size_t size)
{
	assert(a->count < REDIS_ARGS_MAX);
	a->text[a->count] = data;
	a->size[a->count++] = size;
}

void redis_args_text(struct redis_args *a, const char *text)
{
	redis_args_bytes(a, text, strlen(text));
}

void redis_args_init(struct redis_args *a, const char *command)
{
	a->count = 0;
	a->used = 0;
	redis_args_text(a, command);
}

void redis_args_number(struct redis_args *a, int64_t n)
{
	char *space = take_space(a, 21);
	snprintf(space, 21, "%" PRId64, n);
	redis_args_text(a, space);
}

void redis_args_hex(struct redis_args *a, uint64_t n)
{
	char *space = take_space(a, 17);
	snprintf(space, 17, "%016" PRIx64, n);
	redis_args_text(a, space);
}

void redis_args_key(struct redis_args *a, const char *prefix, const char *id, const char *suffix)
{
	size_t size = strlen(prefix) + strlen(id) + strlen(suffix) + 1;
	char *space = take_space(a, size);
	snprintf(space, size, "%s%s%s", prefix, id, suffix);
	redis_args_text(a, space);
}
