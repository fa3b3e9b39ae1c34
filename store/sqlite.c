/* sqlite.c -- the embedded store: a queue of writes before one SQLite file, and one thread that
 * takes them, all that are waiting in one transaction. A write that fails (the disk is full) is
 * tried again until it succeeds, and those behind it wait: so order holds and nothing is lost but
 * by closing. */
#include "store/store.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "service/log.h"
#include "service/metrics.h"
#include "store/sqlite_db.h"

#define QUEUE_OPS 8192
#define BATCH_OPS 512 /* in one transaction; compared with each other, so not too many */
#define RETRY_MIN_MS 50
#define RETRY_MAX_MS 5000
#define CLOSE_RETRY_MS 2000 /* close() tries this long to get a failing write through */

enum op_kind { OP_PUT, OP_DELETE };

struct op {
	struct op *next;
	enum op_kind kind;
	struct store_session record; /* owned; a delete has its id only */
	uint64_t id_hash;
	bool superseded; /* a later operation of its batch writes the same session */
	int status;
	void (*done)(void *arg, int status);
	void *arg;
};

struct store {
	pthread_t thread;         /* set by sqlite_open(), then never changed */
	int64_t failing_since_ms; /* store's thread only: monotonic; 0: not failing */

	pthread_mutex_t db_lock; /* guards db; taken alone */
	struct sqlite_db *db;

	pthread_mutex_t lock; /* guards all below; taken alone */
	pthread_cond_t changed;
	struct op *first, **last;
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

/* --- writing: the store's thread --- */

/* Writes all of batch or nothing. An operation that this file can never take is passed over, with
 * its status, so that it does not stand in the way of the others for ever. */
static int try_batch(struct store *s, struct op *batch, struct error *err)
{
	pthread_mutex_lock(&s->db_lock);
	int rc = sqlite_db_begin(s->db);
	for (struct op *op = batch; rc == 0 && op != NULL; op = op->next) {
		if (op->superseded)
			continue;
		op->status = op->kind == OP_PUT ? sqlite_db_put(s->db, &op->record)
						: sqlite_db_delete(s->db, op->record.id);
		if (op->status != -EINVAL)
			rc = op->status;
	}
	if (rc == 0)
		rc = sqlite_db_commit(s->db);
	if (rc != 0)
		rc = sqlite_db_rollback(s->db, err);
	pthread_mutex_unlock(&s->db_lock);
	return rc;
}

/* Says once that writes fail, and once that they no longer do. */
static void note_result(struct store *s, int rc, const struct error *err)
{
	if (rc != 0)
		metric_add(METRIC_STORE_ERRORS, 1);
	if (rc != 0 && s->failing_since_ms == 0) {
		char text[sizeof(err->text)];
		s->failing_since_ms = monotonic_ms();
		log_error("store failing", "code=%d text=\"%s\"", rc,
			  log_safe(text, sizeof(text), err->text));
	} else if (rc == 0 && s->failing_since_ms != 0) {
		log_info("store recovered", "after_ms=%" PRId64,
			 monotonic_ms() - s->failing_since_ms);
		s->failing_since_ms = 0;
	}
	atomic_store(&s->healthy, rc == 0);
}

/* Waits for delay_ms or until the store closes. Returns false when it is time to give up. */
static bool wait_to_retry(struct store *s, int64_t delay_ms)
{
	pthread_mutex_lock(&s->lock);
	bool was_closing = s->closing;
	int64_t until_ms = monotonic_ms() + (was_closing ? RETRY_MIN_MS : delay_ms);
	struct timespec until = { .tv_sec = until_ms / 1000, .tv_nsec = until_ms % 1000 * 1000000 };
	while (s->closing == was_closing)
		if (pthread_cond_timedwait(&s->changed, &s->lock, &until) == ETIMEDOUT)
			break;
	bool go_on = !s->closing || monotonic_ms() < s->give_up_ms;
	pthread_mutex_unlock(&s->lock);
	return go_on;
}

static int write_batch(struct store *s, struct op *batch)
{
	int64_t delay_ms = RETRY_MIN_MS;
	for (;;) {
		struct error err = { 0 };
		int rc = try_batch(s, batch, &err);
		note_result(s, rc, &err);
		if (rc == 0 || !wait_to_retry(s, delay_ms))
			return rc;
		delay_ms = delay_ms * 2 < RETRY_MAX_MS ? delay_ms * 2 : RETRY_MAX_MS;
	}
}

/* Only the last operation on a session needs to be written. */
static void mark_superseded(struct op *batch)
{
	for (struct op *op = batch; op != NULL; op = op->next)
		for (struct op *later = op->next; later != NULL && !op->superseded;
		     later = later->next)
			op->superseded = later->id_hash == op->id_hash &&
					 strcmp(later->record.id, op->record.id) == 0;
}

/* Takes the oldest operations off the queue; waits for one. NULL: closed, and nothing is left. */
static struct op *take_batch(struct store *s, size_t *count)
{
	pthread_mutex_lock(&s->lock);
	while (s->first == NULL && !s->closing)
		pthread_cond_wait(&s->changed, &s->lock);
	struct op *batch = s->first, *newest = NULL;
	for (*count = 0; s->first != NULL && *count < BATCH_OPS; (*count)++) {
		newest = s->first;
		s->first = newest->next;
	}
	if (newest != NULL)
		newest->next = NULL;
	if (s->first == NULL)
		s->last = &s->first;
	pthread_mutex_unlock(&s->lock);
	return batch;
}

static void free_op(struct op *op)
{
	store_session_fini(&op->record);
	free(op);
}

static void finish_batch(struct store *s, struct op *batch, size_t count, int rc)
{
	pthread_mutex_lock(&s->lock);
	s->waiting -= count;
	pthread_mutex_unlock(&s->lock);
	while (batch != NULL) {
		struct op *op = batch;
		batch = op->next;
		if (op->done != NULL)
			op->done(op->arg, rc != 0 ? rc : op->status);
		free_op(op);
	}
}

static void *store_thread(void *arg)
{
	struct store *s = arg;
	size_t count, lost = 0;
	int rc = 0; /* of the last batch: not 0 once we gave up */
	for (struct op *batch; (batch = take_batch(s, &count)) != NULL;) {
		mark_superseded(batch);
		if (rc == 0)
			rc = write_batch(s, batch);
		if (rc != 0)
			lost += count;
		finish_batch(s, batch, count, rc);
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

/* op becomes the queue's, or is freed. */
static int queue_op(struct store *s, struct op *op)
{
	op->id_hash = hash_id(op->record.id);
	pthread_mutex_lock(&s->lock);
	assert(!s->closing);
	bool full = s->waiting >= QUEUE_OPS;
	if (!full) {
		*s->last = op;
		s->last = &op->next;
		s->waiting++;
		pthread_cond_signal(&s->changed);
	}
	pthread_mutex_unlock(&s->lock);
	if (full)
		free_op(op);
	return full ? -EAGAIN : 0;
}

static int sqlite_put_session(struct store *s, const struct store_session *record,
			      void (*done)(void *arg, int status), void *arg)
{
	struct op *op = calloc(1, sizeof(*op));
	if (op == NULL)
		return -ENOMEM;
	op->kind = OP_PUT;
	op->done = done;
	op->arg = arg;
	if (store_session_copy(record, &op->record) != 0) {
		free(op);
		return -ENOMEM;
	}
	return queue_op(s, op);
}

static int sqlite_delete_session(struct store *s, const char *id)
{
	struct op *op = calloc(1, sizeof(*op));
	if (op == NULL)
		return -ENOMEM;
	op->kind = OP_DELETE;
	snprintf(op->record.id, sizeof(op->record.id), "%s", id);
	return queue_op(s, op);
}

static bool sqlite_healthy(struct store *s)
{
	return atomic_load(&s->healthy);
}

/* --- reading --- */

/* Reads all, then calls, without the lock: each may use the store. */
static int sqlite_load_sessions(struct store *s,
				int (*each)(void *arg, const struct store_session *record),
				void *arg, struct error *err)
{
	struct store_session *records = NULL;
	size_t count = 0;
	pthread_mutex_lock(&s->db_lock);
	int rc = sqlite_db_read_all(s->db, &records, &count, err);
	pthread_mutex_unlock(&s->db_lock);
	for (size_t i = 0; i < count; i++) {
		if (rc == 0 && (rc = each(arg, &records[i])) != 0)
			error_set(err, rc, "loading stopped at session %s", records[i].id);
		store_session_fini(&records[i]);
	}
	free(records);
	return rc;
}

static int sqlite_get_or_put(struct store *s, const char *name, void *value, size_t size,
			     struct error *err)
{
	pthread_mutex_lock(&s->db_lock);
	int rc = sqlite_db_get_or_put(s->db, name, value, size, err);
	pthread_mutex_unlock(&s->db_lock);
	return rc;
}

/* --- what blocks: the caller's thread --- */

static int sqlite_reseal_session(struct store *s, const struct store_session *seen,
				 const char *endpoint, const char *target, struct error *err)
{
	pthread_mutex_lock(&s->db_lock);
	int rc = sqlite_db_reseal_session(s->db, seen, endpoint, target, err);
	pthread_mutex_unlock(&s->db_lock);
	return rc;
}

static int sqlite_get_sandbox(struct store *s, const char *id, struct store_sandbox *ret,
			      struct error *err)
{
	pthread_mutex_lock(&s->db_lock);
	int rc = sqlite_db_get_sandbox(s->db, id, ret, err);
	pthread_mutex_unlock(&s->db_lock);
	return rc;
}

static int sqlite_list_sandboxes(struct store *s, const char *subject, const char *after,
				 size_t limit,
				 int (*each)(void *arg, const struct store_sandbox *record),
				 void *arg, struct error *err)
{
	pthread_mutex_lock(&s->db_lock);
	int rc = sqlite_db_list_sandboxes(s->db, subject, after, limit, each, arg, err);
	pthread_mutex_unlock(&s->db_lock);
	return rc;
}

static int sqlite_count_sandboxes(struct store *s, const char *subject, size_t *ret,
				  struct error *err)
{
	pthread_mutex_lock(&s->db_lock);
	int rc = sqlite_db_count_sandboxes(s->db, subject, ret, err);
	pthread_mutex_unlock(&s->db_lock);
	return rc;
}

static int sqlite_insert_sandbox(struct store *s, const struct store_sandbox *record,
				 struct error *err)
{
	pthread_mutex_lock(&s->db_lock);
	int rc = sqlite_db_insert_sandbox(s->db, record, err);
	pthread_mutex_unlock(&s->db_lock);
	return rc;
}

static int sqlite_update_sandbox(struct store *s, const struct store_sandbox *record,
				 struct error *err)
{
	pthread_mutex_lock(&s->db_lock);
	int rc = sqlite_db_update_sandbox(s->db, record, err);
	pthread_mutex_unlock(&s->db_lock);
	return rc;
}

static int sqlite_delete_sandbox(struct store *s, const char *id, struct error *err)
{
	pthread_mutex_lock(&s->db_lock);
	int rc = sqlite_db_delete_sandbox(s->db, id, err);
	pthread_mutex_unlock(&s->db_lock);
	return rc;
}

/* --- life --- */

static void free_store(struct store *s)
{
	sqlite_db_close(s->db);
	pthread_cond_destroy(&s->changed);
	pthread_mutex_destroy(&s->lock);
	pthread_mutex_destroy(&s->db_lock);
	free(s);
}

static int start_thread(struct store *s, struct error *err)
{
	/* Signals are the main thread's. */
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int rc = -pthread_create(&s->thread, NULL, store_thread, s);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc != 0)
		return error_set(err, rc, "store: no thread: %s", strerror(-rc));
	pthread_setname_np(s->thread, "store");
	return 0;
}

static int open_store(const char *location, bool shared, struct store **ret, struct error *err)
{
	struct store *s = calloc(1, sizeof(*s));
	if (s == NULL)
		return error_set(err, -ENOMEM, "out of memory");
	s->last = &s->first;
	atomic_init(&s->healthy, true);
	pthread_mutex_init(&s->db_lock, NULL);
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_t attributes;
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&s->changed, &attributes);
	pthread_condattr_destroy(&attributes);

	int rc = sqlite_db_open(location, shared, &s->db, err);
	if (rc == 0)
		rc = start_thread(s, err);
	if (rc != 0) {
		free_store(s);
		return rc;
	}
	*ret = s;
	return 0;
}

static int sqlite_open(const char *location, struct store **ret, struct error *err)
{
	return open_store(location, false, ret, err);
}

static int sqlite_open_tool(const char *location, struct store **ret, struct error *err)
{
	return open_store(location, true, ret, err);
}

static void sqlite_close(struct store *s)
{
	if (s == NULL)
		return;
	pthread_mutex_lock(&s->lock);
	s->closing = true;
	s->give_up_ms = monotonic_ms() + CLOSE_RETRY_MS;
	pthread_cond_signal(&s->changed);
	pthread_mutex_unlock(&s->lock);
	pthread_join(s->thread, NULL);
	free_store(s);
}

const struct store_ops store_sqlite = {
	.scheme = "sqlite",
	.open = sqlite_open,
	.open_tool = sqlite_open_tool,
	.close = sqlite_close,
	.load_sessions = sqlite_load_sessions,
	.put_session = sqlite_put_session,
	.delete_session = sqlite_delete_session,
	.get_or_put = sqlite_get_or_put,
	.reseal_session = sqlite_reseal_session,
	.get_sandbox = sqlite_get_sandbox,
	.list_sandboxes = sqlite_list_sandboxes,
	.count_sandboxes = sqlite_count_sandboxes,
	.insert_sandbox = sqlite_insert_sandbox,
	.update_sandbox = sqlite_update_sandbox,
	.delete_sandbox = sqlite_delete_sandbox,
	.healthy = sqlite_healthy,
};
