/* slots.c -- see slots.h. A slot that is released goes to the first who waits, never through the free ones: so
 * nobody who comes later is faster. */
#include "service/slots.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

struct slots {
	pthread_mutex_t lock; /* guards all below, and next, prev, queued of requests */
	unsigned free;
	struct slot_request *first, *last; /* those that wait; none while there are free slots */
};

struct slots *slots_create(unsigned count)
{
	assert(count > 0);
	struct slots *s = calloc(1, sizeof(*s));
	if (s == NULL)
		return NULL;
	pthread_mutex_init(&s->lock, NULL);
	s->free = count;
	return s;
}

void slots_destroy(struct slots *s)
{
	if (s == NULL)
		return;
	assert(s->first == NULL);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

static void remove_locked(struct slots *s, struct slot_request *r)
{
	*(r->prev != NULL ? &r->prev->next : &s->first) = r->next;
	*(r->next != NULL ? &r->next->prev : &s->last) = r->prev;
	r->next = r->prev = NULL;
	r->queued = false;
}

bool slots_acquire(struct slots *s, struct slot_request *r)
{
	pthread_mutex_lock(&s->lock);
	r->slots = s;
	r->next = r->prev = NULL;
	bool granted = s->free > 0;
	if (granted) {
		s->free--;
	} else {
		r->prev = s->last;
		*(s->last != NULL ? &s->last->next : &s->first) = r;
		s->last = r;
	}
	r->queued = !granted;
	pthread_mutex_unlock(&s->lock);
	return granted;
}

void slots_release(struct slots *s)
{
	pthread_mutex_lock(&s->lock);
	struct slot_request *next = s->first;
	if (next != NULL)
		remove_locked(s, next);
	else
		s->free++;
	pthread_mutex_unlock(&s->lock);
	if (next != NULL)
		next->granted(next);
}

bool slots_cancel(struct slot_request *r)
{
	struct slots *s = r->slots;
	if (s == NULL)
		return false;
	pthread_mutex_lock(&s->lock);
	bool waited = r->queued;
	if (waited)
		remove_locked(s, r);
	pthread_mutex_unlock(&s->lock);
	return waited;
}
