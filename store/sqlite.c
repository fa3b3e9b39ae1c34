/* sqlite.c -- the embedded store: one SQLite file, and a queue of writes before it; all that are waiting go into one
 * transaction. */
#include "store/store.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "store/sqlite_db.h"
#include "store/write_queue.h"

#define RETRY_MAX_MS 5000

struct store {
	struct write_queue *queue; /* set by open_store(), then never changed */

	pthread_mutex_t db_lock; /* guards db; taken alone */
	struct sqlite_db *db;
};

/* --- writing --- */

/* Writes all of batch or nothing. A record that this file can never take is passed over, with its status, so that
 * it does not stand in the way of the others for ever. */
static int write_batch(void *arg, struct write *batch, struct error *err)
{
	struct store *s = arg;
	pthread_mutex_lock(&s->db_lock);
	int rc = sqlite_db_begin(s->db);
	for (struct write *w = batch; rc == 0 && w != NULL; w = w->next) {
		if (w->later != NULL)
			continue;
		w->status = w->deletes ? sqlite_db_delete(s->db, w->record.id)
				       : sqlite_db_put(s->db, &w->record);
		if (w->status != -EINVAL)
			rc = w->status;
	}
	if (rc == 0)
		rc = sqlite_db_commit(s->db);
	if (rc != 0)
		rc = sqlite_db_rollback(s->db, err);
	pthread_mutex_unlock(&s->db_lock);
	return rc;
}

static int sqlite_put_session(struct store *s, const struct store_session *record,
			      void (*done)(void *arg, int status), void *arg)
{
	return write_queue_put(s->queue, record, done, arg);
}

static int sqlite_delete_session(struct store *s, const char *id, uint64_t birth, uint64_t fence,
				 void (*done)(void *arg, int status), void *arg)
{
	return write_queue_delete(s->queue, id, birth, fence, done, arg);
}

static bool sqlite_healthy(struct store *s)
{
	return write_queue_healthy(s->queue);
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
	pthread_mutex_destroy(&s->db_lock);
	free(s);
}

static int open_store(const char *location, bool shared, struct store **ret, struct error *err)
{
	struct store *s = calloc(1, sizeof(*s));
	if (s == NULL)
		return error_set(err, -ENOMEM, "out of memory");
	pthread_mutex_init(&s->db_lock, NULL);
	int rc = sqlite_db_open(location, shared, &s->db, err);
	if (rc == 0)
		rc = write_queue_create(write_batch, s, RETRY_MAX_MS, &s->queue, err);
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
	write_queue_destroy(s->queue);
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
