/* runloop_memory.c -- see runloop_memory.h. */
#include "providers/runloop_memory.h"

#include <assert.h>
#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS 1024 /* a power of 2 */

struct entry {
	struct entry *next_in_bucket;
	struct entry *newer, *older;
	struct runloop_key key;
	uint64_t accepted_us;
	uint64_t turn_us; /* when it was kept awake last; 0: never */
	struct runloop_known known;
};

struct runloop_memory {
	uint8_t secret[crypto_generichash_KEYBYTES]; /* set once */
	size_t entries_max;

	pthread_mutex_t lock; /* guards all below */
	size_t count;
	struct entry *newest, *oldest;
	struct entry *buckets[BUCKETS];
};

struct runloop_memory *runloop_memory_create(size_t entries_max)
{
	struct runloop_memory *m = calloc(1, sizeof(*m));
	if (m == NULL)
		return NULL;
	randombytes_buf(m->secret, sizeof(m->secret));
	m->entries_max = entries_max;
	pthread_mutex_init(&m->lock, NULL);
	return m;
}

void runloop_memory_key(const struct runloop_memory *m, const char *base_url, const char *devbox,
			const char *api_key, struct runloop_key *ret)
{
	crypto_generichash_state state;
	const char *const parts[] = { base_url, devbox, api_key };
	crypto_generichash_init(&state, m->secret, sizeof(m->secret), sizeof(ret->bytes));
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]);
	     i++) /* with its 0: none runs into the next */
		crypto_generichash_update(&state, (const unsigned char *)parts[i],
					  strlen(parts[i]) + 1);
	crypto_generichash_final(&state, ret->bytes, sizeof(ret->bytes));
	sodium_memzero(&state, sizeof(state));
}

/* The place that points to the entry of key, or to NULL at the end of its bucket. */
static struct entry **find_locked(struct runloop_memory *m, const struct runloop_key *key)
{
	size_t bucket = ((size_t)key->bytes[0] << 8 | key->bytes[1]) % BUCKETS;
	struct entry **at = &m->buckets[bucket];
	while (*at != NULL && memcmp((*at)->key.bytes, key->bytes, sizeof(key->bytes)) != 0)
		at = &(*at)->next_in_bucket;
	return at;
}

static void unlink_locked(struct runloop_memory *m, struct entry *e)
{
	*(e->newer == NULL ? &m->newest : &e->newer->older) = e->older;
	*(e->older == NULL ? &m->oldest : &e->older->newer) = e->newer;
}

static void link_newest_locked(struct runloop_memory *m, struct entry *e)
{
	e->newer = NULL;
	e->older = m->newest;
	*(m->newest == NULL ? &m->oldest : &m->newest->newer) = e;
	m->newest = e;
}

static void drop_locked(struct runloop_memory *m, struct entry **at)
{
	struct entry *e = *at;
	assert(e != NULL);
	*at = e->next_in_bucket;
	unlink_locked(m, e);
	m->count--;
	sodium_memzero(e, sizeof(*e));
	free(e);
}

bool runloop_memory_get(struct runloop_memory *m, const struct runloop_key *key, uint64_t now_us,
			struct runloop_known *ret)
{
	pthread_mutex_lock(&m->lock);
	struct entry **at = find_locked(m, key);
	bool found = *at != NULL;
	if (found && now_us > (*at)->accepted_us + RUNLOOP_MEMORY_US) {
		drop_locked(m, at);
		found = false;
	}
	if (found) {
		unlink_locked(m, *at);
		link_newest_locked(m, *at);
		*ret = (*at)->known;
	}
	pthread_mutex_unlock(&m->lock);
	return found;
}

void runloop_memory_put(struct runloop_memory *m, const struct runloop_key *key, uint64_t now_us,
			const struct runloop_known *known)
{
	pthread_mutex_lock(&m->lock);
	struct entry **at = find_locked(m, key);
	if (*at != NULL)
		drop_locked(m, at);
	while (m->count > 0 && m->count >= m->entries_max)
		drop_locked(m, find_locked(m, &m->oldest->key));
	struct entry *e = calloc(1, sizeof(*e));
	if (e != NULL) {
		e->key = *key;
		e->accepted_us = now_us;
		e->known = *known;
		*find_locked(m, key) = e;
		link_newest_locked(m, e);
		m->count++;
	}
	pthread_mutex_unlock(&m->lock);
}

void runloop_memory_confirm(struct runloop_memory *m, const struct runloop_key *key,
			    uint64_t now_us)
{
	pthread_mutex_lock(&m->lock);
	struct entry *e = *find_locked(m, key);
	if (e != NULL)
		e->accepted_us = now_us;
	pthread_mutex_unlock(&m->lock);
}

bool runloop_memory_take_turn(struct runloop_memory *m, const struct runloop_key *key,
			      uint64_t now_us, uint64_t interval_us)
{
	pthread_mutex_lock(&m->lock);
	struct entry *e = *find_locked(m, key);
	bool mine = e == NULL || e->turn_us == 0 || now_us >= e->turn_us + interval_us;
	if (e != NULL && mine)
		e->turn_us = now_us;
	pthread_mutex_unlock(&m->lock);
	return mine;
}

void runloop_memory_forget(struct runloop_memory *m, const struct runloop_key *key)
{
	pthread_mutex_lock(&m->lock);
	struct entry **at = find_locked(m, key);
	if (*at != NULL)
		drop_locked(m, at);
	pthread_mutex_unlock(&m->lock);
}

void runloop_memory_destroy(struct runloop_memory *m)
{
	if (m == NULL)
		return;
	while (m->oldest != NULL)
		drop_locked(m, find_locked(m, &m->oldest->key));
	pthread_mutex_destroy(&m->lock);
	sodium_memzero(m, sizeof(*m));
	free(m);
}
