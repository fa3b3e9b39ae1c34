/* waiter.c -- see waiter.h. */
#include "tests/unit/store/waiter.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

void waiter_note(void *arg, int status)
{
	struct waiter *w = arg;
	pthread_mutex_lock(&w->lock);
	if (w->done < WAITER_STATUSES)
		w->status[w->done] = status;
	w->done++;
	w->failed += status != 0;
	pthread_cond_signal(&w->changed);
	pthread_mutex_unlock(&w->lock);
}

bool waiter_wait(struct waiter *w, int count)
{
	struct timespec deadline;
	clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_sec += 20;
	pthread_mutex_lock(&w->lock);
	while (w->done < count)
		if (pthread_cond_timedwait(&w->changed, &w->lock, &deadline) != 0)
			break;
	bool all = w->done == count;
	pthread_mutex_unlock(&w->lock);
	return all;
}

int waiter_done(struct waiter *w)
{
	pthread_mutex_lock(&w->lock);
	int done = w->done;
	pthread_mutex_unlock(&w->lock);
	return done;
}

void wait_until(bool (*is_so)(void *arg), void *arg)
{
	for (int i = 0; i < 4000; i++) {
		if (is_so(arg))
			return;
		nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
	}
	fail_msg("waited in vain");
}
