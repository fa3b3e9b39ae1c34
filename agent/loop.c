/* loop.c -- see loop.h. */
#include "agent/loop.h"

#include <errno.h>
#include <limits.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif

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

static uint64_t now_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

uint64_t loop_now_ms(void)
{
	return now_us() / 1000;
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

void loop_timer_set_us(struct loop *loop, struct loop_timer *t, uint64_t after_us)
{
	t->due_us = now_us() + after_us;
	if (t->armed)
		return;
	t->armed = true;
	list_append(&loop->timers, &t->node);
}

void loop_timer_set(struct loop *loop, struct loop_timer *t, uint64_t after_ms)
{
	loop_timer_set_us(loop, t, after_ms * 1000);
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
		if (next == NULL || t->due_us < next->due_us)
			next = t;
	}
	return next;
}

/* As epoll_wait(), until due_us (UINT64_MAX: without end). The call with a finer clock is of Linux 5.11,
 * and sandboxes that filter system calls may refuse it. */
static int wait_until(struct loop *loop, uint64_t due_us)
{
	uint64_t now = due_us != UINT64_MAX ? now_us() : 0;
	uint64_t left = due_us > now ? due_us - now : 0;
	if (!loop->coarse) {
		struct timespec timeout = { .tv_sec = (time_t)(left / 1000000),
					    .tv_nsec = (long)(left % 1000000) * 1000 };
		long count = syscall(SYS_epoll_pwait2, loop->epoll_fd, loop->batch, LOOP_BATCH,
				     due_us != UINT64_MAX ? &timeout : NULL, NULL, (size_t)0);
		if (count >= 0 || (errno != ENOSYS && errno != EPERM))
			return (int)count;
		loop->coarse = true;
	}
	uint64_t left_ms = (left + 999) / 1000;
	int timeout = left_ms > INT_MAX ? INT_MAX : (int)left_ms;
	return epoll_wait(loop->epoll_fd, loop->batch, LOOP_BATCH,
			  due_us != UINT64_MAX ? timeout : -1);
}

static void run_timers(struct loop *loop)
{
	uint64_t now = now_us();
	for (struct loop_timer *t; (t = next_timer(loop)) != NULL && t->due_us <= now;) {
		loop_timer_clear(t);
		t->due(t);
	}
}

int loop_once(struct loop *loop)
{
	const struct loop_timer *next = next_timer(loop);
	int count = wait_until(loop, next != NULL ? next->due_us : UINT64_MAX);
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
