/* test_slots.c -- as many as may, in their order, and who takes its wish back in time has none. */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "service/slots.h"

/* --- one thread --- */

#define WAITERS 4

static struct waiter {
	struct slot_request request; /* first */
	bool at_once;
	unsigned granted; /* its place in the order; 0: not yet */
} waiters[WAITERS];
static unsigned granted_count;

static void note_grant(struct slot_request *r)
{
	struct waiter *w = (struct waiter *)r;
	assert_int_equal(w->granted, 0);
	w->granted = ++granted_count;
}

/* All ask, for one slot: the first gets it. */
static struct slots *crowd(void)
{
	granted_count = 0;
	struct slots *s = slots_create(1);
	assert_non_null(s);
	for (unsigned i = 0; i < WAITERS; i++) {
		waiters[i] = (struct waiter){ .request = { .granted = note_grant } };
		waiters[i].at_once = slots_acquire(s, &waiters[i].request);
		assert_int_equal(waiters[i].at_once, i == 0);
	}
	return s;
}

static void grants_in_the_order_of_asking(void **state)
{
	(void)state;
	struct slots *s = crowd();
	for (unsigned i = 1; i < WAITERS; i++) {
		assert_int_equal(waiters[i].granted, 0);
		slots_release(s);
		assert_int_equal(waiters[i].granted, i);
	}
	slots_release(s);
	assert_int_equal(granted_count, WAITERS - 1);
	assert_true(slots_acquire(s, &waiters[0].request));
	slots_release(s);
	slots_destroy(s);
	slots_destroy(NULL);
}

static void has_as_many_as_it_was_made_with(void **state)
{
	(void)state;
	struct slots *s = slots_create(3);
	struct slot_request r[5] = { 0 };
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(slots_acquire(s, &r[i]), i < 3);
	assert_true(slots_cancel(&r[3]));
	assert_true(slots_cancel(&r[4]));
	for (unsigned i = 0; i < 3; i++)
		slots_release(s);
	for (unsigned i = 0; i < 3; i++)
		assert_true(slots_acquire(s, &r[i]));
	slots_destroy(s);
}

static void who_cancels_in_time_is_passed_over(void **state)
{
	(void)state;
	/* The first of those that wait, one between, the last. */
	for (unsigned gone = 1; gone < WAITERS; gone++) {
		struct slots *s = crowd();
		assert_true(slots_cancel(&waiters[gone].request));
		assert_false(slots_cancel(&waiters[gone].request));
		for (unsigned i = 1; i < WAITERS; i++)
			slots_release(s);
		assert_int_equal(granted_count, WAITERS - 2);
		assert_int_equal(waiters[gone].granted, 0);
		/* It may ask again. */
		assert_true(slots_acquire(s, &waiters[gone].request));
		slots_release(s);
		slots_destroy(s);
	}
}

static void who_has_its_slot_cannot_cancel(void **state)
{
	(void)state;
	struct slots *s = crowd();
	struct slot_request never = { 0 };
	assert_false(slots_cancel(&never));
	assert_false(slots_cancel(&waiters[0].request)); /* at once */
	slots_release(s);
	assert_false(slots_cancel(&waiters[1].request)); /* later */
	assert_true(slots_cancel(&waiters[2].request));
	assert_true(slots_cancel(&waiters[3].request));
	slots_release(s);
	slots_destroy(s);
}

static struct slots *passed_on;

static void pass_on(struct slot_request *r)
{
	note_grant(r);
	slots_release(passed_on);
}

static void a_grant_may_release(void **state)
{
	(void)state;
	struct slots *s = passed_on = crowd();
	for (unsigned i = 1; i < WAITERS; i++)
		waiters[i].request.granted = pass_on;
	slots_release(s);
	for (unsigned i = 1; i < WAITERS; i++)
		assert_int_equal(waiters[i].granted, i);
	assert_true(slots_acquire(s, &waiters[0].request));
	slots_release(s);
	slots_destroy(s);
}

/* --- threads --- */

#define THREADS 4
#define ROUNDS 20000
#define HELD_MAX 2

struct worker {
	struct slot_request request; /* first */
	pthread_mutex_t lock;
	pthread_cond_t woken;
	bool has_slot; /* under lock */
	unsigned seed, got, waited, cancelled;
};

static struct slots *shared;
static atomic_uint held;
static atomic_bool too_many;

static void wake(struct slot_request *r)
{
	struct worker *w = (struct worker *)r;
	pthread_mutex_lock(&w->lock);
	w->has_slot = true;
	pthread_cond_signal(&w->woken);
	pthread_mutex_unlock(&w->lock);
}

static void wait_for_grant(struct worker *w)
{
	pthread_mutex_lock(&w->lock);
	while (!w->has_slot)
		pthread_cond_wait(&w->woken, &w->lock);
	w->has_slot = false;
	pthread_mutex_unlock(&w->lock);
}

static void *work(void *arg)
{
	struct worker *w = arg;
	for (unsigned i = 0; i < ROUNDS; i++) {
		if (!slots_acquire(shared, &w->request)) {
			w->seed = w->seed * 1103515245u + 12345u;
			if ((w->seed >> 16) % 4 == 0 && slots_cancel(&w->request)) {
				w->cancelled++;
				continue;
			}
			wait_for_grant(w);
			w->waited++;
		}
		if (atomic_fetch_add(&held, 1) >= HELD_MAX)
			atomic_store(&too_many, true);
		sched_yield(); /* let others find it taken */
		atomic_fetch_sub(&held, 1);
		w->got++;
		slots_release(shared);
	}
	return NULL;
}

static void of_many_threads_never_more_than_may_hold_one(void **state)
{
	(void)state;
	shared = slots_create(HELD_MAX);
	static struct worker workers[THREADS];
	pthread_t threads[THREADS];
	for (unsigned i = 0; i < THREADS; i++) {
		workers[i] = (struct worker){ .request = { .granted = wake }, .seed = i };
		pthread_mutex_init(&workers[i].lock, NULL);
		pthread_cond_init(&workers[i].woken, NULL);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, work, &workers[i]);
	unsigned waited = 0, cancelled = 0;
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		waited += workers[i].waited;
		cancelled += workers[i].cancelled;
		assert_int_equal(workers[i].got + workers[i].cancelled, ROUNDS);
		pthread_cond_destroy(&workers[i].woken);
		pthread_mutex_destroy(&workers[i].lock);
	}
	assert_false(atomic_load(&too_many));
	assert_true(waited > 0 && cancelled > 0); /* they did meet */
	/* None is lost, and none too many. */
	struct slot_request r[HELD_MAX + 1] = { 0 };
	for (unsigned i = 0; i <= HELD_MAX; i++)
		assert_int_equal(slots_acquire(shared, &r[i]), i < HELD_MAX);
	assert_true(slots_cancel(&r[HELD_MAX]));
	slots_destroy(shared);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(grants_in_the_order_of_asking),
		cmocka_unit_test(has_as_many_as_it_was_made_with),
		cmocka_unit_test(who_cancels_in_time_is_passed_over),
		cmocka_unit_test(who_has_its_slot_cannot_cancel),
		cmocka_unit_test(a_grant_may_release),
		cmocka_unit_test(of_many_threads_never_more_than_may_hold_one),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
