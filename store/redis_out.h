/* redis_out.h -- commands as the bytes that Redis wants, collected until they are written. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Zero-initialised is empty. */
struct redis_out {
	char *data; /* owned */
	size_t size, capacity;
	bool broken; /* there was no memory: what is here is of no use */
};

/* A command of so many words, each to follow by redis_out_word(). */
void redis_out_begin(struct redis_out *out, unsigned words);
/* One word: head and tail together. */
void redis_out_word(struct redis_out *out, const void *head, size_t head_size, const void *tail,
		    size_t tail_size);
/* Empties it, and keeps no more memory than is usual. */
void redis_out_reset(struct redis_out *out);
/* Wipes and frees: there was a password in it. */
void redis_out_fini(struct redis_out *out);
