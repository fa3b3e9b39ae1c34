/* ticket.c -- a hash table under one lock. A ticket is found by a keyed hash, so neither a reader
 * of our memory nor one who measures our time learns a ticket. */
#include "service/ticket.h"

#include <errno.h>
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "service/metrics.h"

#define SECRET_BYTES 32
#define HASH_BYTES 32
#define SWEEP_MS 5000 /* how long an expired ticket may stay counted */

struct ticket {
	struct ticket *next; /* in its bucket */
	uint8_t hash[HASH_BYTES];
	int64_t ends_ms; /* monotonic */
	bool reusable;
	enum role role;
	int64_t owner_expires_ms; /* Unix time; 0: never */
	char session[65];
	char subject[]; /* 0-terminated: its own size, most are short */
};

struct ticket_table {
	/* Set by ticket_table_create(), then never changed. */
	unsigned max;
	uint8_t hash_key[crypto_generichash_KEYBYTES];
	size_t bucket_mask; /* buckets, a power of two, less 1 */

	pthread_mutex_t lock; /* guards all below */
	struct ticket **buckets;
	unsigned count;
	int64_t next_sweep_ms;
};

static int64_t monotonic_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int ticket_table_create(unsigned max, struct ticket_table **ret)
{
	struct ticket_table *t = calloc(1, sizeof(*t));
	if (t == NULL)
		return -ENOMEM;
	size_t buckets = 64;
	while (buckets < max)
		buckets *= 2;
	t->buckets = calloc(buckets, sizeof(struct ticket *));
	if (t->buckets == NULL) {
		free(t);
		return -ENOMEM;
	}
	t->max = max;
	t->bucket_mask = buckets - 1;
	randombytes_buf(t->hash_key, sizeof(t->hash_key));
	pthread_mutex_init(&t->lock, NULL);
	*ret = t;
	return 0;
}

static void hash_ticket(const struct ticket_table *t, const char *ticket, uint8_t ret[HASH_BYTES])
{
	crypto_generichash(ret, HASH_BYTES, (const uint8_t *)ticket, TICKET_CHARS, t->hash_key,
			   sizeof(t->hash_key));
}

static struct ticket **bucket_of(const struct ticket_table *t, const uint8_t hash[HASH_BYTES])
{
	uint64_t number;
	memcpy(&number, hash, sizeof(number));
	return &t->buckets[number & t->bucket_mask];
}

/* Frees the ticket that link points to; link then points to the next. */
static void remove_locked(struct ticket_table *t, struct ticket **link)
{
	struct ticket *old = *link;
	*link = old->next;
	free(old);
	t->count--;
	metric_add(METRIC_TICKETS, -1);
}

/* Frees the tickets that end at now_ms or before. */
static void sweep_locked(struct ticket_table *t, int64_t now_ms)
{
	for (size_t i = 0; i <= t->bucket_mask; i++)
		for (struct ticket **link = &t->buckets[i]; *link != NULL;) {
			if ((*link)->ends_ms <= now_ms)
				remove_locked(t, link);
			else
				link = &(*link)->next;
		}
	t->next_sweep_ms = now_ms + SWEEP_MS;
}

void ticket_table_destroy(struct ticket_table *t)
{
	if (t == NULL)
		return;
	sweep_locked(t, INT64_MAX - SWEEP_MS);
	pthread_mutex_destroy(&t->lock);
	free(t->buckets);
	sodium_memzero(t->hash_key, sizeof(t->hash_key));
	free(t);
}

int ticket_add(struct ticket_table *t, const struct principal *grant, int64_t ttl_ms, bool reusable,
	       char ret[TICKET_CHARS + 1])
{
	size_t subject_size = strlen(grant->subject) + 1;
	struct ticket *new = malloc(sizeof(*new) + subject_size);
	if (new == NULL)
		return -ENOMEM;
	int64_t now_ms = monotonic_ms();
	uint8_t secret[SECRET_BYTES];
	char name[TICKET_CHARS + 1];
	randombytes_buf(secret, sizeof(secret));
	sodium_bin2base64(name, sizeof(name), secret, sizeof(secret),
			  sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	hash_ticket(t, name, new->hash);
	new->ends_ms = now_ms + ttl_ms;
	new->reusable = reusable;
	new->role = grant->role;
	new->owner_expires_ms = grant->expires_ms;
	memcpy(new->session, grant->session, sizeof(new->session));
	memcpy(new->subject, grant->subject, subject_size);

	pthread_mutex_lock(&t->lock);
	if (t->count >= t->max || now_ms >= t->next_sweep_ms)
		sweep_locked(t, now_ms);
	bool full = t->count >= t->max;
	if (!full) {
		struct ticket **bucket = bucket_of(t, new->hash);
		new->next = *bucket;
		*bucket = new;
		t->count++;
		metric_add(METRIC_TICKETS, 1);
	}
	pthread_mutex_unlock(&t->lock);
	if (full)
		free(new);
	else
		memcpy(ret, name, sizeof(name));
	sodium_memzero(secret, sizeof(secret));
	sodium_memzero(name, sizeof(name));
	return full ? -EAGAIN : 0;
}

static bool look_up(struct ticket_table *t, const char *ticket, const char *session, bool use,
		    struct principal *ret)
{
	if (strnlen(ticket, TICKET_CHARS + 1) != TICKET_CHARS)
		return false;
	uint8_t hash[HASH_BYTES];
	hash_ticket(t, ticket, hash);
	int64_t now_ms = monotonic_ms();
	bool found = false;

	pthread_mutex_lock(&t->lock);
	struct ticket **link = bucket_of(t, hash);
	while (*link != NULL && sodium_memcmp((*link)->hash, hash, HASH_BYTES) != 0)
		link = &(*link)->next;
	struct ticket *it = *link;
	if (it != NULL && it->ends_ms > now_ms && strcmp(it->session, session) == 0) {
		found = true;
		*ret = (struct principal){ .role = it->role,
					   .expires_ms = it->owner_expires_ms,
					   .by_ticket = !it->reusable };
		snprintf(ret->subject, sizeof(ret->subject), "%s", it->subject);
		memcpy(ret->session, it->session, sizeof(ret->session));
		if (use && !it->reusable)
			remove_locked(t, link);
	}
	pthread_mutex_unlock(&t->lock);
	return found;
}

bool ticket_find(struct ticket_table *t, const char *ticket, const char *session,
		 struct principal *ret)
{
	return look_up(t, ticket, session, false, ret);
}

bool ticket_use(struct ticket_table *t, const char *ticket, const char *session,
		struct principal *ret)
{
	return look_up(t, ticket, session, true, ret);
}
