/* bus.h -- messages between replicas: channels that anybody publishes on and subscribes to, and the sign of
 * life that a replica gives. A message may be lost (a restart, a connection that is cut): who needs it asks
 * again. One implementation a file (local_bus.c, redis_bus.c), one conformance suite
 * (tests/unit/store/test_bus.c) over both. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "service/error.h"

struct bus;
struct bus_subscription;

enum bus_news {
	BUS_UP, /* the subscription stands: what is published from now on comes. Again after each DOWN */
	BUS_MESSAGE, /* data, size: borrowed for the call */
	BUS_DOWN,    /* it does not: messages are being lost */
	BUS_ENDED,   /* after bus_unsubscribe: the last call */
};

/* Called on the bus's thread: must not block, and may call publish, subscribe and unsubscribe. */
typedef void bus_fn(void *arg, enum bus_news news, const uint8_t *data, size_t size);

struct bus_params {
	const char *location; /* as for the store: what follows the scheme in --store */
	uint64_t replica;     /* our id; never 0 */
	unsigned ttl_ms;      /* of the sign of life; it is given every quarter of that */
	/* The records may be gone or older than they were: the server was restarted, restored or emptied.
	 * Called on the bus's thread, after each reconnect, too. */
	void (*reset)(void *arg);
	void *arg;
};

struct bus_ops {
	/* Starts the thread. The first connection is made before it returns, so that what is wrong is said:
	 * not reachable, refused, too old. p is copied. */
	int (*open)(const struct bus_params *p, struct bus **ret, struct error *err);
	/* Takes the sign of life back, ends the thread; subscriptions get BUS_ENDED. NULL is allowed. */
	void (*close)(struct bus *b);

	/* data is malloc'd, size bytes, and given away in any case. In order for one calling thread. 0 when it was
	 * queued; -ENOTCONN: there is no connection; -EAGAIN: more than BUS_QUEUE_BYTES wait. Thread: any. */
	int (*publish)(struct bus *b, const char *channel, uint8_t *data, size_t size);

	/* -ENOMEM, else *ret; fn is called with BUS_UP once it stands. Several may have one channel. Thread: any. */
	int (*subscribe)(struct bus *b, const char *channel, bus_fn *fn, void *arg,
			 struct bus_subscription **ret);
	/* Asks; fn is called once more, with BUS_ENDED. Thread: any. */
	void (*unsubscribe)(struct bus *b, struct bus_subscription *s);

	/* When the last sign of life that arrived was sent, in us of CLOCK_MONOTONIC; 0: none did. Thread: any. */
	uint64_t (*alive_us)(struct bus *b);
	bool (*connected)(struct bus *b); /* both ways. Thread: any */
};

#define BUS_QUEUE_BYTES (64u << 20)

extern const struct bus_ops bus_local; /* within this process: location is not used */
extern const struct bus_ops bus_redis;
