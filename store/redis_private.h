/* redis_private.h -- the Redis store, for the files that carry its ops out: redis.c (its life, the queue, small ones),
 * redis_sessions.c, redis_orphans.c, redis_sandboxes.c. */
#pragma once

#include "store/redis_index.h"
#include "store/redis_pool.h"
#include "store/store.h"
#include "store/write_queue.h"

struct store {
	/* Set by open_store(), then never changed. */
	struct redis_peer peer;
	struct redis_pool *pool;
	struct write_queue *queue;

	struct redis_conn *writer; /* the queue's thread only; NULL: none */
};

/* Writes what the queue holds; see batch_fn. */
int redis_write_batch(void *arg, struct write *batch, struct error *err);

/* There may be a session that is nobody's: nobody is a replica that is always dead, so that the next sweep looks at
 * all. Behind what made it so. */
void redis_append_nobody(struct redis_conn *c);

/* As store.h's ops of these names. */
int redis_get_session(struct store *s, const char *id, struct store_session *ret,
		      struct error *err);
int redis_create_session(struct store *s, struct store_session *record, struct store_session *known,
			 struct error *err);
int redis_list_sessions(struct store *s, const char *subject, const char *state, const char *after,
			size_t limit, int (*each)(void *arg, const struct store_session *record),
			void *arg, struct error *err);
int redis_count_sessions(struct store *s, const char *subject, size_t limit, size_t *ret,
			 struct error *err);
int redis_take_session(struct store *s, const char *id, uint64_t owner, uint64_t me, uint64_t fence,
		       struct store_session *ret, struct error *err);
int redis_reseal_session(struct store *s, const struct store_session *seen, const char *endpoint,
			 const char *target, struct error *err);
int redis_orphans(struct store *s, bool thorough,
		  int (*each)(void *arg, const struct store_session *record), void *arg,
		  struct error *err);

int redis_get_sandbox(struct store *s, const char *id, struct store_sandbox *ret,
		      struct error *err);
int redis_list_sandboxes(struct store *s, const char *subject, const char *after, size_t limit,
			 int (*each)(void *arg, const struct store_sandbox *record), void *arg,
			 struct error *err);
int redis_count_sandboxes(struct store *s, const char *subject, size_t *ret, struct error *err);
int redis_insert_sandbox(struct store *s, const struct store_sandbox *record, struct error *err);
int redis_update_sandbox(struct store *s, const struct store_sandbox *record, struct error *err);
int redis_delete_sandbox(struct store *s, const char *id, struct error *err);
