/* loop.h -- the threads on which sessions live. Each runs one libuv loop with a libwebsockets context
 * on it; a session belongs to one of them from birth to end and nothing else touches it. Other threads
 * reach it by its loop's mailbox. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "service/config.h"
#include "service/error.h"

struct loop;
struct lws_context;

/* One note to a loop; embedded at the start of what it carries. */
struct message {
	struct message *next;
	/* Called on the loop's thread; frees what the message carries. */
	void (*run)(struct message *m, struct loop *l);
};

/* Starts the thread. cfg is borrowed. */
int loop_create(const struct config *cfg, unsigned number, struct loop **ret, struct error *err);
/* Ends the thread after the messages that are already in the mailbox; sessions must be gone. */
void loop_destroy(struct loop *l);

/* Thread: any. Bounded: -EAGAIN when LOOP_MAILBOX_MAX messages wait, m is then still the caller's. */
#define LOOP_MAILBOX_MAX 65536
int loop_post(struct loop *l, struct message *m);
/* For answers that were asked for and so are bounded by their questions: never refused. */
void loop_post_answer(struct loop *l, struct message *m);

/* All below: thread: loop. */
uv_loop_t *loop_uv(struct loop *l);
struct lws_context *loop_lws(struct loop *l);
bool loop_is_current(const struct loop *l);
uint64_t loop_now_us(void); /* monotonic; any thread */
int64_t loop_wall_ms(void); /* Unix time; any thread */

/* Work of a session that is to be done once the events at hand are read: the flush to its viewers. */
struct loop_work {
	struct loop_work *next, *prev;
	bool queued;
	/* Returns true when it has more to do and wants to be called again in the next round. */
	bool (*run)(struct loop_work *w);
};
void loop_work_add(struct loop *l, struct loop_work *w);
void loop_work_remove(struct loop *l, struct loop_work *w);

/* Calls fn once a second. */
struct loop_second {
	struct loop_second *next, *prev;
	bool listed;
	void (*fn)(struct loop_second *second, uint64_t now_us, int64_t wall_ms);
};
void loop_second_add(struct loop *l, struct loop_second *second);
void loop_second_remove(struct loop *l, struct loop_second *second);

/* The loop's scratch memory for encoded events, shared by all its sessions (event.h). */
struct event_cache;
struct event_cache *loop_event_cache(struct loop *l);
