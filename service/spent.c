/* spent.c -- a hash table under one lock. A nonce is random and signed, so its own bytes spread well enough. */
#include "service/spent.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "service/metrics.h"

/* One is kept that much longer than it is good: a clock is set back a little, a thread pauses between its look at
 * the clock and here. */
#define SLACK_MS 5000
#define SWEEP_MS 5000 /* how long one may stay after that */

struct entry {
	struct entry *next; /* in its bucket */
	int64_t ends_ms;
	uint8_t nonce[TICKET_NONCE_BYTES];
};

struct spent {
	/* Set by spent_create(), then never changed. */
	unsigned max;
	size_t bucket_mask; /* buckets, a power of two, less 1 */

	pthread_mutex_t lock; /* guards all below */
	struct entry **buckets;
	unsigned count;
	int64_t soonest_ms; /* none ends before; INT64_MAX: there is none */
};

int spent_create(unsigned max, struct spent **ret)
{
	struct spent *s = calloc(1, sizeof(*s));
	if (s == NULL)
		return -ENOMEM;
	size_t buckets = 64;
	while (buckets < max)
		buckets *= 2;
	s->buckets = calloc(buckets, sizeof(struct entry *));
	if (s->buckets == NULL) {
		free(s);
		return -ENOMEM;
	}
	s->max = max;
	s->bucket_mask = buckets - 1;
	s->soonest_ms = INT64_MAX;
	pthread_mutex_init(&s->lock, NULL);
	*ret = s;
	return 0;
}

/* Frees what ends at now_ms or before. */
static void sweep_locked(struct spent *s, int64_t now_ms)
{
	s->soonest_ms = INT64_MAX;
	for (size_t i = 0; i <= s->bucket_mask; i++)
		for (struct entry **link = &s->buckets[i]; *link != NULL;) {
			struct entry *e = *link;
			if (e->ends_ms <= now_ms) {
				*link = e->next;
				free(e);
				s->count--;
				metric_add(METRIC_TICKETS, -1);
				continue;
			}
			if (e->ends_ms < s->soonest_ms)
				s->soonest_ms = e->ends_ms;
			link = &e->next;
		}
}

void spent_destroy(struct spent *s)
{
	if (s == NULL)
		return;
	sweep_locked(s, INT64_MAX);
	pthread_mutex_destroy(&s->lock);
	free(s->buckets);
	free(s);
}

static bool has_locked(const struct spent *s, size_t bucket,
		       const uint8_t nonce[TICKET_NONCE_BYTES])
{
	for (const struct entry *e = s->buckets[bucket]; e != NULL; e = e->next)
		if (memcmp(e->nonce, nonce, TICKET_NONCE_BYTES) == 0)
			return true;
	return false;
}

int spent_add(struct spent *s, const uint8_t nonce[TICKET_NONCE_BYTES], int64_t expires_ms,
	      int64_t now_ms)
{
	uint64_t number;
	memcpy(&number, nonce, sizeof(number));
	size_t bucket = number & s->bucket_mask;
	struct entry *new = malloc(sizeof(*new));
	if (new == NULL)
		return -ENOMEM;
	new->ends_ms = expires_ms + SLACK_MS;
	memcpy(new->nonce, nonce, TICKET_NONCE_BYTES);

	int rc = 0;
	pthread_mutex_lock(&s->lock);
	if (now_ms >= s->soonest_ms && (s->count >= s->max || now_ms - s->soonest_ms >= SWEEP_MS))
		sweep_locked(s, now_ms);
	if (has_locked(s, bucket, nonce)) {
		rc = -EEXIST;
	} else if (s->count >= s->max) {
		rc = -EAGAIN;
	} else {
		new->next = s->buckets[bucket];
		s->buckets[bucket] = new;
		s->count++;
		metric_add(METRIC_TICKETS, 1);
		if (expires_ms + SLACK_MS < s->soonest_ms)
			s->soonest_ms = expires_ms + SLACK_MS;
	}
	pthread_mutex_unlock(&s->lock);
	if (rc != 0)
		free(new);
	return rc;
}
