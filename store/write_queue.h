/* write_queue.h -- writes of sessions that a store carries out later: a bounded queue, and one thread that takes what
 * waits, a batch at a time. A batch that fails (the disk is full, the server is gone) is tried again until it
 * succeeds, and what is behind it waits: so order holds and nothing is lost but by the end. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "service/error.h"
#include "store/store.h"

/* One write. Those of a batch are a list, in the order in which they were queued. */
struct write {
	struct write *next;
	bool deletes;
	struct store_session record; /* of a delete: id, birth, fence only */
	struct write
		*later; /* one of the same creation that takes its place; NULL: it is written */
	int status;     /* set by the batch_fn: 0, or why this one can never be written */
	/* The queue's own. */
	uint64_t id_hash;
	void (*done)(void *arg, int status);
	void *arg;
};

/* Writes all of batch but those that have a later one, and sets the status of each. 0; or a negative errno and why: then
 * all are given once more, after a while. Called on the queue's thread, which it may block. */
typedef int batch_fn(void *arg, struct write *batch, struct error *err);

struct write_queue;

/* Starts the thread. Between two tries it waits 50 ms at first, then up to retry_max_ms. */
int write_queue_create(batch_fn *write, void *arg, unsigned retry_max_ms, struct write_queue **ret,
		       struct error *err);
/* Ends after all that is queued was written, or after some seconds when that fails. NULL is allowed. */
void write_queue_destroy(struct write_queue *q);

/* As store.h's put_session and delete_session. Thread: any. */
int write_queue_put(struct write_queue *q, const struct store_session *record,
		    void (*done)(void *arg, int status), void *arg);
int write_queue_delete(struct write_queue *q, const char *id, uint64_t birth, uint64_t fence,
		       void (*done)(void *arg, int status), void *arg);

/* False from a batch that failed to the next that succeeds. Thread: any. */
bool write_queue_healthy(struct write_queue *q);
