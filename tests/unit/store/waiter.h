/* waiter.h -- waits for done callbacks of a store's writes, and keeps what they said. */
#pragma once

#include <pthread.h>
#include <stdbool.h>

#define WAITER_STATUSES 16

struct waiter {
	pthread_mutex_t lock; /* guards all below */
	pthread_cond_t changed;
	int done, failed;
	int status[WAITER_STATUSES]; /* of the first ones, in their order */
};

#define WAITER_INIT                                                                    \
	{                                                                              \
		.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER \
	}

/* A done callback; arg is the waiter. */
void waiter_note(void *arg, int status);
/* Waits until count are done, at most 20 s. False: they are not. */
bool waiter_wait(struct waiter *w, int count);
int waiter_done(struct waiter *w);

/* Asks every 5 ms until it is so, for 20 s; then the test has failed. */
void wait_until(bool (*is_so)(void *arg), void *arg);
