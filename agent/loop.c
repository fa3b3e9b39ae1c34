/* loop.c -- see loop.h. */
#include "agent/loop.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <time.h>
#include <unistd.h>

int loop_init(struct loop *loop)
{
	*loop = (struct loop){ .epoll_fd = epoll_create1(EPOLL_CLOEXEC) };
	list_init(&loop->timers);
	return loop->epoll_fd < 0 ? -errno : 0;
}

void loop_fini(struct loop *loop)
{
	close(loop->epoll_fd);
}

uint64_t loop_now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void loop_watch(struct loop *loop, struct loop_watch *w, uint32_t events)
{
	if (events == w->events)
		return;
	struct epoll_event event = { .events = events, .data.ptr = w };
	int op = events == 0 ? EPOLL_CTL_DEL : w->events == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
	if (epoll_ctl(loop->epoll_fd, op, w->fd, &event) == 0)
		w->events = events;
}

void loop_unwatch(struct loop *loop, struct loop_watch *w)
{
	loop_watch(loop, w, 0);
	for (int i = 0; i < loop->batch_count; i++) {
		if (loop->batch[i].data.ptr == w)
			loop->batch[i].data.ptr = NULL;
	}
}

void loop_timer_set(struct loop *loop, struct loop_timer *t, uint64_t after_ms)
{
	t->due_ms = loop_now_ms() + after_ms;
	if (t->armed)
		return;
	t->armed = true;
	list_append(&loop->timers, &t->node);
}

void loop_timer_clear(struct loop_timer *t)
{
	if (!t->armed)
		return;
	t->armed = false;
	list_remove(&t->node);
}

static struct loop_timer *next_timer(struct loop *loop)
{
	struct loop_timer *next = NULL;
	LIST_FOREACH(node, &loop->timers)
	{
		struct loop_timer *t = CONTAINER_OF(node, struct loop_timer, node);
		if (next == NULL || t->due_ms < next->due_ms)
			next = t;
	}
	return next;
}

static int wait_ms(struct loop *loop)
{
	const struct loop_timer *next = next_timer(loop);
	if (next == NULL)
		return -1;
	uint64_t now = loop_now_ms();
	if (next->due_ms <= now)
		return 0;
	/* One more, as the clock is cut to whole milliseconds: else it wakes just before the time. */
	uint64_t left = next->due_ms - now + 1;
	return left > INT_MAX ? INT_MAX : (int)left;
}

static void run_timers(struct loop *loop)
{
	uint64_t now = loop_now_ms();
	for (struct loop_timer *t; (t = next_timer(loop)) != NULL && t->due_ms <= now;) {
		loop_timer_clear(t);
		t->due(t);
	}
}

int loop_once(struct loop *loop)
{
	int count = epoll_wait(loop->epoll_fd, loop->batch, LOOP_BATCH, wait_ms(loop));
	if (count < 0 && errno != EINTR)
		return -errno;
	loop->batch_count = count > 0 ? count : 0;
	for (int i = 0; i < loop->batch_count; i++) {
		struct loop_watch *w = loop->batch[i].data.ptr;
		if (w != NULL)
			w->ready(w, loop->batch[i].events);
	}
	loop->batch_count = 0;
	run_timers(loop);
	return 0;
}
