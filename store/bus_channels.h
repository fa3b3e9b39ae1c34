/* bus_channels.h -- which channels somebody here wants to hear, and who. Shared by all implementations of
 * bus.h. Thread: the bus's, where nothing else is said. What a bus_fn asks for goes through the mailbox, so
 * nothing here changes while one is called. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/bus.h"
#include "store/bus_mailbox.h"

struct bus_channel {
	struct bus_channel *next; /* in its bucket */
	uint64_t hash;
	struct bus_subscription *first, *last; /* who joined it, oldest first */
	/* Of redis_bus.c: */
	unsigned pending; /* answers to SUBSCRIBE and UNSUBSCRIBE that are to come */
	bool stands;      /* the server knows it */
	size_t name_size;
	char name[];
};

struct bus_subscription {
	/* Set when made, then never changed. */
	bus_fn *fn;
	void *arg;

	_Atomic bool leaving; /* bus_unsubscribe() was called: only BUS_ENDED is to come */
	struct bus_op subscribe, unsubscribe; /* in the mailbox */

	/* Bus's thread only. */
	struct bus_channel
		*channel; /* until it has joined: its own, in case nobody else has that one */
	bool joined;
	bool up;                              /* BUS_UP was said last */
	struct bus_subscription *next, *prev; /* in its channel; next also in ended */
};

struct bus_channels {
	struct bus_channel **buckets;
	size_t buckets_count; /* a power of two */
	size_t count;
	uint8_t key[16]; /* names come from outside: nobody can make them meet in one bucket */
	struct bus_subscription *ended; /* kept until the end, see bus_channels_end() */
	bool ending;
};

int bus_channels_init(struct bus_channels *t); /* 0 or -ENOMEM */
/* All must have ended. */
void bus_channels_fini(struct bus_channels *t);

/* Makes one and puts it into the mailbox. 0; -ENOMEM; -ENOTCONN once the mailbox is closed. Thread: any. */
int bus_subscription_create(struct bus_mailbox *m, const char *channel, bus_fn *fn, void *arg,
			    struct bus_subscription **ret);
/* Thread: any. */
void bus_subscription_leave(struct bus_mailbox *m, struct bus_subscription *s);
/* The one that op is embedded in. */
struct bus_subscription *bus_subscription_of(struct bus_op *op);

/* NULL: nobody wants it. */
struct bus_channel *bus_channel_find(struct bus_channels *t, const char *name, size_t size);
/* Puts s into its channel; true when that is new, or had nobody. */
bool bus_channel_join(struct bus_channels *t, struct bus_subscription *s);
/* Takes s out and ends it: it is freed. Returns the channel, which may have nobody now. */
struct bus_channel *bus_channel_leave(struct bus_channels *t, struct bus_subscription *s);
void bus_channel_remove(struct bus_channels *t,
			struct bus_channel *channel); /* frees it; has nobody */

/* Tells all that are in it, as far as it is news to them. */
void bus_channel_tell(struct bus_channel *channel, enum bus_news news, const uint8_t *data,
		      size_t size);
void bus_subscription_up(struct bus_subscription *s);

/* fn may remove the channel that it is given. */
void bus_channels_each(struct bus_channels *t, void (*fn)(void *arg, struct bus_channel *channel),
		       void *arg);
/* Ends all that are there, and from now on all that come. Their memory stays until bus_channels_fini(), for
 * unsubscribe() in other threads that did not see the end yet. */
void bus_channels_end(struct bus_channels *t);
