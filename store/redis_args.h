/* redis_args.h -- a command for Redis while it is put together. Pure. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define REDIS_ARGS_MAX 72

/* On the stack. Texts that are added are borrowed until the command is sent. */
struct redis_args {
	int count;
	const char *text[REDIS_ARGS_MAX];
	size_t size[REDIS_ARGS_MAX];
	char space[2048]; /* of numbers and keys */
	size_t used;
};

void redis_args_init(struct redis_args *a, const char *command);
void redis_args_text(struct redis_args *a, const char *text);
void redis_args_bytes(struct redis_args *a, const void *data, size_t size);
void redis_args_number(struct redis_args *a, int64_t n);
void redis_args_hex(struct redis_args *a, uint64_t n); /* 16 digits */
/* prefix, id, suffix as one. */
void redis_args_key(struct redis_args *a, const char *prefix, const char *id, const char *suffix);
