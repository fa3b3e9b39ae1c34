/* write_queue.c -- see write_queue.h. */
#include "store/write_queue.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "service/log.h"
#include "service/metrics.h"

#define QUEUE_WRITES 8192
#define BATCH_WRITES 512 /* compared with each other, so not too many */
#define RETRY_MIN_MS 50
#define CLOSE_RETRY_MS 2000 /* the end tries this long to get a failing batch through */

struct write_queue {
	/* Set by write_queue_create(), then never changed. */
	pthread_t thread;
	batch_fn *write;
	void *arg;
	unsigned retry_max_ms;

	int64_t failing_since_ms; /* its thread only: monotonic; 0: not failing */

	pthread_mutex_t lock; /* guards all below; taken alone */
	pthread_cond_t changed;
	struct write *first, **last;
	size_t waiting; /* queued, or in the batch that is being written */
	bool closing;
	int64_t give_up_ms; /* when closing: monotonic */

	_Atomic bool healthy;
};

static int64_t monotonic_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* --- writing: the queue's thread --- */

/* Says once that writes fail, and once that they no longer do. */
static void note_result(struct write_queue *q, int rc, const struct error *err)
{
	if (rc != 0)
		metric_add(METRIC_STORE_ERRORS, 1);
	if (rc != 0 && q->failing_since_ms == 0) {
		char text[sizeof(err->text)];
		q->failing_since_ms = monotonic_ms();
		log_error("store failing", "code=%d text=\"%s\"", rc,
			  log_safe(text, sizeof(text), err->text));
	} else if (rc == 0 && q->failing_since_ms != 0) {
		log_info("store recovered", "after_ms=%" PRId64,
			 monotonic_ms() - q->failing_since_ms);
		q->failing_since_ms = 0;
	}
	atomic_store(&q->healthy, rc == 0);
}

/* Waits for delay_ms or until the queue closes. Returns false when it is time to give up. */
static bool wait_to_retry(struct write_queue *q, int64_t delay_ms)
{
	/* Jittered: many replicas lose their server at once. */
	delay_ms = delay_ms / 2 + randombytes_uniform((uint32_t)delay_ms / 2 + 1);
	pthread_mutex_lock(&q->lock);
	bool was_closing = q->closing;
	int64_t until_ms = monotonic_ms() + (was_closing ? RETRY_MIN_MS : delay_ms);
	struct timespec until = { .tv_sec = until_ms / 1000, .tv_nsec = until_ms % 1000 * 1000000 };
	while (q->closing == was_closing)
		if (pthread_cond_timedwait(&q->changed, &q->lock, &until) == ETIMEDOUT)
			break;
	bool go_on = !q->closing || monotonic_ms() < q->give_up_ms;
	pthread_mutex_unlock(&q->lock);
	return go_on;
}

static int write_batch(struct write_queue *q, struct write *batch)
{
	int64_t delay_ms = RETRY_MIN_MS;
	for (;;) {
		struct error err = { 0 };
		int rc = q->write(q->arg, batch, &err);
		note_result(q, rc, &err);
		if (rc == 0 || !wait_to_retry(q, delay_ms))
			return rc;
		delay_ms = delay_ms * 2 < q->retry_max_ms ? delay_ms * 2 : q->retry_max_ms;
	}
}

/* Only the last write of a session needs to be carried out. */
static void find_later(struct write *batch)
{
	for (struct write *w = batch; w != NULL; w = w->next)
		for (struct write *other = w->next; other != NULL && w->later == NULL;
		     other = other->next)
			if (other->id_hash == w->id_hash &&
			    other->record.birth == w->record.birth &&
			    strcmp(other->record.id, w->record.id) == 0)
				w->later = other;
}

/* Takes the oldest writes off the queue; waits for one. NULL: closed, and nothing is left. */
static struct write *take_batch(struct write_queue *q, size_t *count)
{
	pthread_mutex_lock(&q->lock);
	while (q->first == NULL && !q->closing)
		pthread_cond_wait(&q->changed, &q->lock);
	struct write *batch = q->first, *newest = NULL;
	for (*count = 0; q->first != NULL && *count < BATCH_WRITES; (*count)++) {
		newest = q->first;
		q->first = newest->next;
	}
	if (newest != NULL)
		newest->next = NULL;
	if (q->first == NULL)
		q->last = &q->first;
	pthread_mutex_unlock(&q->lock);
	return batch;
}

static void free_write(struct write *w)
{
	store_session_fini(&w->record);
	free(w);
}

static void finish_batch(struct write_queue *q, struct write *batch, size_t count, int rc)
{
	pthread_mutex_lock(&q->lock);
	q->waiting -= count;
	pthread_mutex_unlock(&q->lock);
	while (batch != NULL) {
		struct write *w = batch;
		const struct write *written = w;
		while (written->later != NULL)
			written = written->later;
		batch = w->next;
		if (w->done != NULL)
			w->done(w->arg, rc != 0 ? rc : written->status);
		free_write(w);
	}
}

static void *queue_thread(void *arg)
{
	struct write_queue *q = arg;
	size_t count, lost = 0;
	int rc = 0; /* of the last batch: not 0 once we gave up */
	for (struct write *batch; (batch = take_batch(q, &count)) != NULL;) {
		find_later(batch);
		if (rc == 0)
			rc = write_batch(q, batch);
		if (rc != 0)
			lost += count;
		finish_batch(q, batch, count, rc);
	}
	if (lost > 0)
		log_error("store closed", "lost_writes=%zu", lost);
	return NULL;
}

/* --- queueing: any thread --- */

static uint64_t hash_id(const char *id)
{
	uint64_t hash = UINT64_C(14695981039346656037); /* FNV-1a */
	for (; *id != '\0'; id++)
		hash = (hash ^ (unsigned char)*id) * UINT64_C(1099511628211);
	return hash;
}

/* w becomes the queue's, or is freed. */
static int add(struct write_queue *q, struct write *w)
{
	w->id_hash = hash_id(w->record.id);
	pthread_mutex_lock(&q->lock);
	assert(!q->closing);
	bool full = q->waiting >= QUEUE_WRITES;
	if (!full) {
		*q->last = w;
		q->last = &w->next;
		q->waiting++;
		pthread_cond_signal(&q->changed);
	}
	pthread_mutex_unlock(&q->lock);
	if (full)
		free_write(w);
	return full ? -EAGAIN : 0;
}

int write_queue_put(struct write_queue *q, const struct store_session *record,
		    void (*done)(void *arg, int status), void *arg)
{
	struct write *w = calloc(1, sizeof(*w));
	if (w == NULL)
		return -ENOMEM;
	w->done = done;
	w->arg = arg;
	if (store_session_copy(record, &w->record) != 0) {
		free(w);
		return -ENOMEM;
	}
	return add(q, w);
}

int write_queue_delete(struct write_queue *q, const char *id, uint64_t birth, uint64_t fence,
		       void (*done)(void *arg, int status), void *arg)
{
	struct write *w = calloc(1, sizeof(*w));
	if (w == NULL)
		return -ENOMEM;
	w->deletes = true;
	w->done = done;
	w->arg = arg;
	snprintf(w->record.id, sizeof(w->record.id), "%s", id);
	w->record.birth = birth;
	w->record.fence = fence;
	return add(q, w);
}

bool write_queue_healthy(struct write_queue *q)
{
	return atomic_load(&q->healthy);
}

/* --- life --- */

static void free_queue(struct write_queue *q)
{
	pthread_cond_destroy(&q->changed);
	pthread_mutex_destroy(&q->lock);
	free(q);
}

int write_queue_create(batch_fn *write, void *arg, unsigned retry_max_ms, struct write_queue **ret,
		       struct error *err)
{
	struct write_queue *q = calloc(1, sizeof(*q));
	if (q == NULL)
		return error_set(err, -ENOMEM, "out of memory");
	q->write = write;
	q->arg = arg;
	q->retry_max_ms = retry_max_ms;
	q->last = &q->first;
	atomic_init(&q->healthy, true);
	pthread_mutex_init(&q->lock, NULL);
	pthread_condattr_t attributes;
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&q->changed, &attributes);
	pthread_condattr_destroy(&attributes);

	/* Signals are the main thread's. */
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int rc = -pthread_create(&q->thread, NULL, queue_thread, q);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc != 0) {
		free_queue(q);
		return error_set(err, rc, "store: no thread: %s", strerror(-rc));
	}
	pthread_setname_np(q->thread, "store");
	*ret = q;
	return 0;
}

void write_queue_destroy(struct write_queue *q)
{
	if (q == NULL)
		return;
	pthread_mutex_lock(&q->lock);
	q->closing = true;
	q->give_up_ms = monotonic_ms() + CLOSE_RETRY_MS;
	pthread_cond_signal(&q->changed);
	pthread_mutex_unlock(&q->lock);
	pthread_join(q->thread, NULL);
	free_queue(q);
}
