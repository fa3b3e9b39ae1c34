/* loop.h -- one epoll set with its file descriptors and timers: all that the agent waits for.
 * Callbacks may add, change and remove any watch or timer, their own too. Times are of the monotonic
 * clock. Thread: one. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "agent/list.h"

#define LOOP_BATCH 32

/* Embedded in its user. */
struct loop_watch {
	int fd; /* -1 while it watches nothing */
	uint32_t events;
	void (*ready)(struct loop_watch *w, uint32_t events);
};

/* Embedded in its user; zero-initialised it is not armed. */
struct loop_timer {
	struct list_node node;
	uint64_t due_us;
	bool armed;
	void (*due)(struct loop_timer *t);
};

struct loop {
	int epoll_fd;
	struct list_node timers; /* of struct loop_timer, in no order: there are few */
	struct epoll_event batch[LOOP_BATCH];
	int batch_count;
	bool coarse; /* this kernel waits in whole milliseconds only */
};

int loop_init(struct loop *loop);
void loop_fini(struct loop *loop);

/* Waits for what comes first, at most until the next timer, and calls back. Returns 0 or -errno. */
int loop_once(struct loop *loop);

uint64_t loop_now_ms(void);

/* Watches w->fd for events (EPOLLIN, EPOLLOUT). With none it leaves the set altogether: a hang-up
 * would be told again and again otherwise. The fd must be one that epoll takes. */
void loop_watch(struct loop *loop, struct loop_watch *w, uint32_t events);

/* Forgets w, also what this round had still to tell it. Call it before the fd is closed. */
void loop_unwatch(struct loop *loop, struct loop_watch *w);

/* Arms t, or moves it when it is armed. */
void loop_timer_set(struct loop *loop, struct loop_timer *t, uint64_t after_ms);
void loop_timer_set_us(struct loop *loop, struct loop_timer *t, uint64_t after_us);
void loop_timer_clear(struct loop_timer *t);
