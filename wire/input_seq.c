/* input_seq.c -- see input_seq.h.
 * The clients stand in an array, the newest first. Nearly every message is of the client before it,
 * which is found at once; a search through all 1,024 is 24 KiB, about a microsecond. */
#include "wire/input_seq.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "wire/bytes.h"

#define CLIENTS_FIRST 4 /* room made for the first client; doubled when it is full */

struct client {
	uint8_t key[INPUT_CLIENT_BYTES];
	uint64_t last; /* the highest number typed */
};

struct input_seq {
	struct client *clients; /* owned */
	size_t count;
	size_t capacity;
};

struct input_seq *input_seq_create(void)
{
	return calloc(1, sizeof(struct input_seq));
}

void input_seq_destroy(struct input_seq *t)
{
	if (t == NULL)
		return;
	free(t->clients);
	free(t);
}

/* The place of the client, or count when it is not known. */
static size_t find(const struct input_seq *t, const uint8_t key[INPUT_CLIENT_BYTES])
{
	static_assert(INPUT_CLIENT_BYTES == 16, "a key is compared as two words");
	uint64_t front = bytes_load64(key), back = bytes_load64(key + 8);
	size_t i = 0;
	while (i < t->count && (bytes_load64(t->clients[i].key) != front ||
				bytes_load64(t->clients[i].key + 8) != back))
		i++;
	return i;
}

enum input_seq_verdict input_seq_check(const struct input_seq *t,
				       const uint8_t client[INPUT_CLIENT_BYTES], uint64_t seq,
				       uint64_t *expected)
{
	size_t i = find(t, client);
	uint64_t last = i < t->count ? t->clients[i].last : 0;
	*expected = last < UINT64_MAX ? last + 1 : last;
	if (seq <= last)
		return INPUT_SEQ_REPEAT;
	return seq == *expected ? INPUT_SEQ_NEXT : INPUT_SEQ_GAP;
}

static int grow(struct input_seq *t)
{
	size_t capacity = t->capacity == 0 ? CLIENTS_FIRST : 2 * t->capacity;
	struct client *clients = realloc(t->clients, capacity * sizeof(*clients));
	if (clients == NULL)
		return -ENOMEM;
	t->clients = clients;
	t->capacity = capacity;
	return 0;
}

int input_seq_accept(struct input_seq *t, const uint8_t client[INPUT_CLIENT_BYTES], uint64_t seq)
{
	struct client entry = { .last = seq };
	memcpy(entry.key, client, INPUT_CLIENT_BYTES);

	size_t i = find(t, client);
	if (i < t->count) {
		if (t->clients[i].last > seq)
			entry.last = t->clients[i].last;
	} else if (t->count == INPUT_SEQ_CLIENTS_MAX) {
		i = t->count - 1; /* the one silent longest gives its place */
	} else {
		if (t->count == t->capacity && grow(t) < 0)
			return -ENOMEM;
		t->count++;
	}
	memmove(t->clients + 1, t->clients, i * sizeof(*t->clients));
	t->clients[0] = entry;
	return 0;
}
