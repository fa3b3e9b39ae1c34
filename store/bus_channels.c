/* bus_channels.c -- see bus_channels.h. */
#include "store/bus_channels.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS_MIN 256

static_assert(sizeof(((struct bus_channels *)0)->key) == crypto_shorthash_KEYBYTES, "its key");

int bus_channels_init(struct bus_channels *t)
{
	memset(t, 0, sizeof(*t));
	t->buckets = calloc(BUCKETS_MIN, sizeof(struct bus_channel *));
	if (t->buckets == NULL)
		return -ENOMEM;
	t->buckets_count = BUCKETS_MIN;
	randombytes_buf(t->key, sizeof(t->key));
	return 0;
}

void bus_channels_fini(struct bus_channels *t)
{
	for (struct bus_subscription *s = t->ended, *next; s != NULL; s = next) {
		next = s->next;
		free(s);
	}
	assert(t->count == 0);
	free(t->buckets);
}

/* --- the table --- */

static uint64_t hash_of(const struct bus_channels *t, const char *name, size_t size)
{
	uint64_t hash;
	static_assert(sizeof(hash) == crypto_shorthash_BYTES, "a hash");
	crypto_shorthash((uint8_t *)&hash, (const uint8_t *)name, size, t->key);
	return hash;
}

static struct bus_channel **bucket_of(const struct bus_channels *t, uint64_t hash)
{
	return &t->buckets[hash & (t->buckets_count - 1)];
}

static struct bus_channel *find(const struct bus_channels *t, uint64_t hash, const char *name,
				size_t size)
{
	struct bus_channel *c = *bucket_of(t, hash);
	while (c != NULL &&
	       (c->hash != hash || c->name_size != size || memcmp(c->name, name, size) != 0))
		c = c->next;
	return c;
}

struct bus_channel *bus_channel_find(struct bus_channels *t, const char *name, size_t size)
{
	return find(t, hash_of(t, name, size), name, size);
}

/* Without memory it stays as it is, which is slow but right. */
static void grow(struct bus_channels *t)
{
	struct bus_channels bigger = { .buckets_count = t->buckets_count * 2 };
	bigger.buckets = calloc(bigger.buckets_count, sizeof(struct bus_channel *));
	if (bigger.buckets == NULL)
		return;
	for (size_t i = 0; i < t->buckets_count; i++) {
		for (struct bus_channel *c = t->buckets[i], *next; c != NULL; c = next) {
			next = c->next;
			struct bus_channel **bucket = bucket_of(&bigger, c->hash);
			c->next = *bucket;
			*bucket = c;
		}
	}
	free(t->buckets);
	t->buckets = bigger.buckets;
	t->buckets_count = bigger.buckets_count;
}

static void insert(struct bus_channels *t, struct bus_channel *channel)
{
	if (t->count >= t->buckets_count)
		grow(t);
	struct bus_channel **bucket = bucket_of(t, channel->hash);
	channel->next = *bucket;
	*bucket = channel;
	t->count++;
}

void bus_channel_remove(struct bus_channels *t, struct bus_channel *channel)
{
	assert(channel->first == NULL);
	struct bus_channel **at = bucket_of(t, channel->hash);
	while (*at != channel)
		at = &(*at)->next;
	*at = channel->next;
	t->count--;
	free(channel);
}

void bus_channels_each(struct bus_channels *t, void (*fn)(void *arg, struct bus_channel *channel),
		       void *arg)
{
	for (size_t i = 0; i < t->buckets_count; i++) {
		for (struct bus_channel *c = t->buckets[i], *next; c != NULL; c = next) {
			next = c->next;
			fn(arg, c);
		}
	}
}

/* --- who is in them --- */

int bus_subscription_create(struct bus_mailbox *m, const char *channel, bus_fn *fn, void *arg,
			    struct bus_subscription **ret)
{
	size_t name_size = strlen(channel);
	assert(name_size > 0);
	struct bus_subscription *s = calloc(1, sizeof(*s));
	struct bus_channel *own = calloc(1, sizeof(*own) + name_size + 1);
	if (s == NULL || own == NULL) {
		free(s);
		free(own);
		return -ENOMEM;
	}
	own->name_size = name_size;
	memcpy(own->name, channel, name_size + 1);
	s->fn = fn;
	s->arg = arg;
	s->channel = own;
	s->subscribe.kind = BUS_OP_SUBSCRIBE;
	s->unsubscribe.kind = BUS_OP_UNSUBSCRIBE;
	*ret = s; /* now: fn may be called before we return */
	if (bus_mailbox_post(m, &s->subscribe))
		return 0;
	*ret = NULL;
	free(own);
	free(s);
	return -ENOTCONN;
}

void bus_subscription_leave(struct bus_mailbox *m, struct bus_subscription *s)
{
	if (!atomic_exchange(&s->leaving, true))
		bus_mailbox_post(m, &s->unsubscribe);
}

struct bus_subscription *bus_subscription_of(struct bus_op *op)
{
	size_t offset = op->kind == BUS_OP_SUBSCRIBE
				? offsetof(struct bus_subscription, subscribe)
				: offsetof(struct bus_subscription, unsubscribe);
	return (struct bus_subscription *)((char *)op - offset);
}

static void finish(struct bus_channels *t, struct bus_subscription *s)
{
	atomic_store(&s->leaving, true);
	s->channel = NULL;
	s->prev = NULL;
	if (t->ending) {
		s->next = t->ended;
		t->ended = s;
	}
	s->fn(s->arg, BUS_ENDED, NULL, 0);
	if (!t->ending)
		free(s);
}

bool bus_channel_join(struct bus_channels *t, struct bus_subscription *s)
{
	struct bus_channel *own = s->channel;
	if (t->ending) {
		free(own);
		finish(t, s);
		return false;
	}
	own->hash = hash_of(t, own->name, own->name_size);
	struct bus_channel *c = find(t, own->hash, own->name, own->name_size);
	if (c == NULL) {
		c = own;
		insert(t, c);
	} else {
		free(own);
	}
	bool alone = c->first == NULL;
	s->channel = c;
	s->joined = true;
	s->prev = c->last;
	if (c->last != NULL)
		c->last->next = s;
	else
		c->first = s;
	c->last = s;
	return alone;
}

struct bus_channel *bus_channel_leave(struct bus_channels *t, struct bus_subscription *s)
{
	struct bus_channel *c = s->channel;
	if (c == NULL) /* it has ended with all others */
		return NULL;
	assert(s->joined);
	if (s->prev != NULL)
		s->prev->next = s->next;
	else
		c->first = s->next;
	if (s->next != NULL)
		s->next->prev = s->prev;
	else
		c->last = s->prev;
	finish(t, s);
	return c;
}

void bus_subscription_up(struct bus_subscription *s)
{
	if (s->up || atomic_load(&s->leaving))
		return;
	s->up = true;
	s->fn(s->arg, BUS_UP, NULL, 0);
}

void bus_channel_tell(struct bus_channel *channel, enum bus_news news, const uint8_t *data,
		      size_t size)
{
	for (struct bus_subscription *s = channel->first; s != NULL; s = s->next) {
		if (news == BUS_UP) {
			bus_subscription_up(s);
			continue;
		}
		if (!s->up || atomic_load(&s->leaving))
			continue;
		s->up = news != BUS_DOWN;
		s->fn(s->arg, news, data, size);
	}
}

static void end_all_in(void *arg, struct bus_channel *channel)
{
	struct bus_channels *t = arg;
	while (channel->first != NULL)
		bus_channel_leave(t, channel->first);
	bus_channel_remove(t, channel);
}

void bus_channels_end(struct bus_channels *t)
{
	t->ending = true;
	bus_channels_each(t, end_all_in, t);
}
