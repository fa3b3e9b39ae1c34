/* listener.c -- see listener.h. */
#include "tests/unit/store/listener.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DEADLINE_S 20

static struct timespec deadline(void)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += DEADLINE_S;
	return until;
}

static const char *fault(const struct listener *l, enum bus_news news)
{
	if (l->ends > 0)
		return "news after the end";
	if (news == BUS_UP && l->up)
		return "up twice";
	if (news == BUS_DOWN && !l->up)
		return "down, but was not up";
	if (news == BUS_MESSAGE && !l->up)
		return "a message while it was not up";
	return NULL;
}

static void on_news(void *arg, enum bus_news news, const uint8_t *data, size_t size)
{
	struct listener *l = arg;
	if (l->hook != NULL &&
	    news == BUS_ENDED) /* once the end is counted, the test may be over */
		l->hook(l, news, data, size);
	pthread_mutex_lock(&l->lock);
	if (l->wrong == NULL)
		l->wrong = fault(l, news);
	switch (news) {
	case BUS_UP:
		l->ups++;
		l->up = true;
		break;
	case BUS_DOWN:
		l->downs++;
		l->up = false;
		break;
	case BUS_MESSAGE:
		l->messages++;
		l->bytes += size;
		free(l->last);
		l->last = malloc(size + 1);
		memcpy(l->last, data, size);
		l->last[size] = '\0';
		l->last_size = size;
		break;
	case BUS_ENDED:
		l->ends++;
		break;
	}
	l->holding = l->held;
	pthread_cond_broadcast(&l->changed);
	while (l->held)
		pthread_cond_wait(&l->changed, &l->lock);
	l->holding = false;
	pthread_mutex_unlock(&l->lock);
	if (news != BUS_ENDED && l->hook != NULL)
		l->hook(l, news, data, size);
}

static struct listener *all;

struct listener *listener_new(void (*hook)(struct listener *l, enum bus_news news,
					   const uint8_t *data, size_t size),
			      void *arg)
{
	struct listener *l = calloc(1, sizeof(*l));
	assert_non_null(l);
	l->hook = hook;
	l->arg = arg;
	pthread_mutex_init(&l->lock, NULL);
	pthread_condattr_t monotonic;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&l->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	l->next = all;
	all = l;
	return l;
}

void listener_free_all(void)
{
	while (all != NULL) {
		struct listener *l = all;
		all = l->next;
		free(l->last);
		pthread_cond_destroy(&l->changed);
		pthread_mutex_destroy(&l->lock);
		free(l);
	}
}

void listener_start(struct listener *l, const struct bus_ops *ops, struct bus *b,
		    const char *channel)
{
	l->ops = ops;
	l->bus = b;
	assert_int_equal(ops->subscribe(b, channel, on_news, l, &l->subscription), 0);
}

void listener_leave(struct listener *l)
{
	l->ops->unsubscribe(l->bus, l->subscription);
}

static void await_count(struct listener *l, const unsigned *counter, unsigned count,
			const char *what)
{
	struct timespec until = deadline();
	int rc = 0;
	pthread_mutex_lock(&l->lock);
	while (*counter < count && rc == 0)
		rc = pthread_cond_timedwait(&l->changed, &l->lock, &until);
	unsigned got = *counter;
	const char *wrong = l->wrong;
	pthread_mutex_unlock(&l->lock);
	if (wrong != NULL)
		fail_msg("%s", wrong);
	if (got < count)
		fail_msg("%u of %u %s", got, count, what);
}

void listener_await_ups(struct listener *l, unsigned count)
{
	await_count(l, &l->ups, count, "ups");
}

void listener_await_downs(struct listener *l, unsigned count)
{
	await_count(l, &l->downs, count, "downs");
}

void listener_await_messages(struct listener *l, unsigned count)
{
	await_count(l, &l->messages, count, "messages");
}

void listener_end(struct listener *l)
{
	await_count(l, &l->ends, 1, "ends");
	pthread_mutex_lock(&l->lock);
	assert_null(l->wrong);
	assert_int_equal(l->ends, 1);
	pthread_mutex_unlock(&l->lock);
}

unsigned listener_messages(struct listener *l)
{
	pthread_mutex_lock(&l->lock);
	unsigned messages = l->messages;
	pthread_mutex_unlock(&l->lock);
	return messages;
}

bool listener_is_up(struct listener *l)
{
	pthread_mutex_lock(&l->lock);
	bool up = l->up;
	pthread_mutex_unlock(&l->lock);
	return up;
}

void listener_hold(struct listener *l, const char *channel)
{
	struct timespec until = deadline();
	pthread_mutex_lock(&l->lock);
	l->held = true;
	pthread_mutex_unlock(&l->lock);
	assert_int_equal(say(l->ops, l->bus, channel, "hold"), 0);
	int rc = 0;
	pthread_mutex_lock(&l->lock);
	while (!l->holding && rc == 0)
		rc = pthread_cond_timedwait(&l->changed, &l->lock, &until);
	pthread_mutex_unlock(&l->lock);
	assert_int_equal(rc, 0);
}

void listener_release(struct listener *l)
{
	pthread_mutex_lock(&l->lock);
	l->held = false;
	pthread_cond_broadcast(&l->changed);
	pthread_mutex_unlock(&l->lock);
}

int say(const struct bus_ops *ops, struct bus *b, const char *channel, const char *text)
{
	return ops->publish(b, channel, (uint8_t *)strdup(text), strlen(text));
}

void await(bool (*look)(void *arg), void *arg, const char *what)
{
	struct timespec now, until = deadline();
	while (!look(arg)) {
		nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (now.tv_sec > until.tv_sec)
			fail_msg("it did not happen: %s", what);
	}
}
