/* slots.h -- a counting semaphore for threads that must not block: who gets no slot is told when it has one. */
#pragma once

#include <stdbool.h>

struct slots;

/* One wish for a slot; embedded. From slots_acquire() until granted() was called or slots_cancel() returned true it
 * must stay where it is. It may be used again then. */
struct slot_request {
	/* The slot is its: called once, on the thread that released one, without a lock; must not block. It may
	 * use slots_...(). */
	void (*granted)(struct slot_request *r);

	/* Of slots.c. */
	struct slots *slots;
	struct slot_request *next, *prev;
	bool queued;
};

/* NULL without memory. count: more than 0. */
struct slots *slots_create(unsigned count);
/* Nobody may be waiting any more, and no call be running. NULL is allowed. */
void slots_destroy(struct slots *s);

/* All below: thread: any. */

/* True: granted, and granted() is not called. False: r waits behind those that came before; granted() may be
 * called before this returns. Who has a slot gives it back by one slots_release(). */
bool slots_acquire(struct slots *s, struct slot_request *r);
void slots_release(struct slots *s);

/* True: r waited and does not any more, granted() will not be called. False: it has its slot, granted() was called,
 * is running or is about to be: the slot is to be released by whom granted() tells. Also for an r that never
 * waited. */
bool slots_cancel(struct slot_request *r);
