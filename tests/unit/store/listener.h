/* listener.h -- a subscriber that writes down what it hears, and whether that was in an order that bus.h allows.
 * For tests of the bus. What fails ends the test. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdbool.h>

#include "store/bus.h"

struct listener {
	const struct bus_ops *ops;
	struct bus *bus;
	struct bus_subscription *subscription;
	struct listener *next; /* of all that were made */
	/* Called on the bus's thread, after the news was counted (the end: before). */
	void (*hook)(struct listener *l, enum bus_news news, const uint8_t *data, size_t size);
	void *arg; /* the hook's */

	pthread_mutex_t lock; /* guards all below */
	pthread_cond_t changed;
	unsigned ups, downs, messages, ends;
	size_t bytes;      /* of all messages */
	const char *wrong; /* static: the first thing that was not allowed */
	uint8_t *last;     /* owned: the newest message */
	size_t last_size;
	bool up, held, holding;
};

/* hook NULL: none. It lives until listener_free_all(): also when its test fails. */
struct listener *listener_new(void (*hook)(struct listener *l, enum bus_news news,
					   const uint8_t *data, size_t size),
			      void *arg);
/* After the bus was closed. */
void listener_free_all(void);

/* Subscribes. */
void listener_start(struct listener *l, const struct bus_ops *ops, struct bus *b,
		    const char *channel);
/* Asks for its end. */
void listener_leave(struct listener *l);
/* Waits for BUS_ENDED and looks whether all was right. */
void listener_end(struct listener *l);

/* Wait until there were so many of them; at most 20 s. */
void listener_await_ups(struct listener *l, unsigned count);
void listener_await_downs(struct listener *l, unsigned count);
void listener_await_messages(struct listener *l, unsigned count);
unsigned listener_messages(struct listener *l);
bool listener_is_up(struct listener *l);

/* Its next call does not return until listener_release(): the bus's thread stands still. Waits until it does. */
void listener_hold(struct listener *l, const char *channel);
void listener_release(struct listener *l);

/* Publishes a text, without its 0. */
int say(const struct bus_ops *ops, struct bus *b, const char *channel, const char *text);

/* Tries look() until it is true; at most 20 s. */
void await(bool (*look)(void *arg), void *arg, const char *what);
