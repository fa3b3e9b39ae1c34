/* redis.c -- the store that replicas share: its life, the queue's writes, and the small ops. Every key is in
 * docs/redis.md. */
#include <errno.h>
#include <hiredis/hiredis.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "store/redis_private.h"

#define RETRY_MAX_MS 500
#define ENDED_TTL_MS (24 * 3600 * 1000) /* of those whose owner never came to forget them */

/* --- the queue's writes --- */

static bool is_nobodys(const struct write *w)
{
	return !w->deletes && w->record.owner == 0;
}

static void append_write(struct redis_conn *c, const struct write *w)
{
	const struct store_session *r = &w->record;
	struct redis_args a;
	if (!w->deletes) {
		redis_index_append_add(c, REDIS_SESSION, (struct redis_entry){ NULL, r->id });
		if (r->subject != NULL)
			redis_index_append_add(c, REDIS_SESSION,
					       (struct redis_entry){ r->subject, r->id });
	}
	redis_conn_script(c, &a, w->deletes ? REDIS_DELETE_SESSION : REDIS_PUT_SESSION,
			  REDIS_SESSION_PREFIX, r->id);
	redis_args_hex(&a, r->birth);
	redis_args_hex(&a, r->fence);
	if (!w->deletes) {
		redis_args_number(&a, r->created_ms);
		redis_args_number(&a, r->ended ? ENDED_TTL_MS : 0);
		redis_record_encode(&a, REDIS_SESSION, r, false);
	}
	redis_conn_append(c, &a);
	if (is_nobodys(w))
		redis_append_nobody(c);
}

/* Index entries of records that were deleted. */
struct leftovers {
	struct redis_entry *entries; /* owned, with their subjects; the ids are the batch's */
	size_t count;
};

static void note_deleted(struct leftovers *l, const char *id, const char *reply)
{
	/* There is room for two entries a write. Without memory a list will find the entry. */
	l->entries[l->count++] = (struct redis_entry){ NULL, id };
	char *subject = reply[0] == '=' ? strdup(reply + 1) : NULL;
	if (subject != NULL)
		l->entries[l->count++] = (struct redis_entry){ subject, id };
}

/* Takes the replies of one write; a record that can never be written is passed over. */
static int take_write(struct redis_conn *c, struct write *w, struct leftovers *l, struct error *err)
{
	unsigned entries = w->deletes ? 0 : w->record.subject != NULL ? 2 : 1;
	redisReply *r;
	int rc = 0;
	for (unsigned i = 0; i <= entries; i++) {
		struct error why = { 0 };
		r = NULL;
		int one = redis_conn_reply(c, &r, &why);
		if (one != 0 && rc == 0) {
			rc = one;
			error_set(err, one, "%s", why.text);
		}
		if (one == 0 && i < entries)
			freeReplyObject(r);
	}
	struct error why = { 0 };
	if (is_nobodys(w) && redis_conn_done(c, &why) != 0 && rc == 0)
		rc = error_set(err, why.code, "%s", why.text);
	w->status = rc == -EINVAL ? rc : 0;
	if (r != NULL && r->type == REDIS_REPLY_INTEGER && r->integer == 0)
		w->status = -ESTALE;
	else if (r != NULL && r->type == REDIS_REPLY_STRING)
		note_deleted(l, w->record.id, r->str);
	freeReplyObject(r);
	return rc == -EINVAL ? 0 : rc;
}

/* Reads on when the server refused some, so that the connection stays. */
static int take_writes(struct redis_conn *c, struct write *batch, struct leftovers *l,
		       struct error *err)
{
	int rc = 0;
	for (struct write *w = batch; rc != -EHOSTUNREACH && w != NULL; w = w->next) {
		struct error why = { 0 };
		int one = w->later == NULL ? take_write(c, w, l, &why) : 0;
		if (one != 0 && (rc == 0 || one == -EHOSTUNREACH)) {
			rc = one;
			error_set(err, one, "%s", why.text);
		}
	}
	return rc;
}

static int write_all(struct redis_conn *c, struct write *batch, struct error *err)
{
	size_t count = 0;
	for (const struct write *w = batch; w != NULL; w = w->next)
		count += w->deletes;
	struct leftovers l = { .entries = calloc(2 * count + 1, sizeof(*l.entries)) };
	if (l.entries == NULL)
		return error_set(err, -ENOMEM, "out of memory");
	for (const struct write *w = batch; w != NULL; w = w->next)
		if (w->later == NULL)
			append_write(c, w);
	int rc = take_writes(c, batch, &l, err);
	if (rc == 0)
		rc = redis_index_remove(c, REDIS_SESSION, l.entries, l.count, err);
	for (size_t i = 0; i < l.count; i++)
		free((char *)l.entries[i].subject);
	free(l.entries);
	return rc;
}

static int try_batch(struct store *s, struct write *batch, struct error *err)
{
	int rc = 0;
	if (s->writer != NULL && !redis_conn_usable(s->writer)) {
		redis_conn_close(s->writer);
		s->writer = NULL;
	}
	if (s->writer == NULL)
		rc = redis_conn_open(&s->peer, redis_now_ms() + REDIS_COMMAND_MS, &s->writer, err);
	if (rc != 0)
		return rc;
	redis_conn_set_deadline(s->writer, redis_now_ms() + REDIS_COMMAND_MS);
	return write_all(s->writer, batch, err);
}

int redis_write_batch(void *arg, struct write *batch, struct error *err)
{
	struct store *s = arg;
	int rc = try_batch(s, batch, err);
	/* The server forgot our scripts: a new connection loads them. */
	return rc != 0 && s->writer != NULL && redis_conn_refused(s->writer)
		       ? try_batch(s, batch, err)
		       : rc;
}

static int redis_put_session(struct store *s, const struct store_session *record,
			     void (*done)(void *arg, int status), void *arg)
{
	return write_queue_put(s->queue, record, done, arg);
}

static int redis_delete_session(struct store *s, const char *id, uint64_t birth, uint64_t fence,
				void (*done)(void *arg, int status), void *arg)
{
	return write_queue_delete(s->queue, id, birth, fence, done, arg);
}

static bool redis_healthy(struct store *s)
{
	return write_queue_healthy(s->queue);
}

/* --- small ops --- */

/* A replica starts without sessions: it takes those that nobody has. */
static int redis_load_sessions(struct store *s,
			       int (*each)(void *arg, const struct store_session *record),
			       void *arg, struct error *err)
{
	(void)s;
	(void)each;
	(void)arg;
	(void)err;
	return 0;
}

/* What SET, if it was refused only for being there, and the GET behind it found; *ret is the caller's. */
static int take_set_and_get(struct redis_conn *c, redisReply **ret, struct error *err)
{
	struct error why = { 0 };
	redisReply *r = NULL;
	int set = redis_conn_done(c, &why);
	int rc = redis_conn_reply(c, &r, err);
	if (rc != 0)
		return rc;
	if (r->type == REDIS_REPLY_STRING) {
		*ret = r;
		return 0;
	}
	freeReplyObject(r);
	redis_conn_nonsense(c, err);
	if (set == 0)
		return -EBADMSG;
	error_set(err, set, "%s", why.text);
	return set;
}

/* *ret is what is there now: value, if there was nothing. */
static int put_value(struct redis_conn *c, const char *name, const void *value, size_t size,
		     redisReply **ret, struct error *err)
{
	struct redis_args a;
	redis_args_init(&a, "SET");
	redis_args_key(&a, "ptycast:value:", name, "");
	redis_args_bytes(&a, value, size);
	redis_args_text(&a, "NX");
	redis_conn_append(c, &a);
	redis_args_init(&a, "GET");
	redis_args_key(&a, "ptycast:value:", name, "");
	redis_conn_append(c, &a);
	return take_set_and_get(c, ret, err);
}

static int get_or_put(struct redis_conn *c, const char *name, void *value, size_t size,
		      struct error *err)
{
	redisReply *r;
	int rc = put_value(c, name, value, size, &r, err);
	if (rc != 0)
		return rc;
	if (r->len == size)
		memcpy(value, r->str, size);
	else
		rc = error_set(err, -EBADMSG, "store: \"%s\" has not %zu bytes", name, size);
	freeReplyObject(r);
	return rc;
}

static int redis_get_or_put(struct store *s, const char *name, void *value, size_t size,
			    struct error *err)
{
	struct redis_turn turn = { 0 };
	int rc;
	do {
		rc = redis_pool_take(s->pool, &turn, err);
		if (rc == 0)
			rc = get_or_put(turn.conn, name, value, size, err);
	} while (redis_pool_give(s->pool, &turn, true, rc));
	return rc;
}

static int keep(struct redis_conn *c, const char *name, const void *value, size_t size,
		struct error *err)
{
	redisReply *r;
	int rc = put_value(c, name, value, size, &r, err);
	if (rc != 0)
		return rc;
	if (r->len != size || memcmp(r->str, value, size) != 0)
		rc = error_set(err, -EEXIST, "store: it has another \"%s\"", name);
	freeReplyObject(r);
	return rc;
}

static int redis_keep(struct store *s, const char *name, const void *value, size_t size,
		      struct error *err)
{
	struct redis_turn turn = { 0 };
	int rc;
	do {
		rc = redis_pool_take(s->pool, &turn, err);
		if (rc == 0)
			rc = keep(turn.conn, name, value, size, err);
	} while (redis_pool_give(s->pool, &turn, true, rc));
	return rc;
}

/* nonce: by it a repeated call knows that it was the first itself. */
static int spend(struct redis_conn *c, const char *name, const char *nonce, unsigned ttl_ms,
		 struct error *err)
{
	struct redis_args a;
	redisReply *r;
	redis_args_init(&a, "SET");
	redis_args_key(&a, "ptycast:ticket:", name, "");
	redis_args_text(&a, nonce);
	redis_args_text(&a, "NX");
	redis_args_text(&a, "PX");
	redis_args_number(&a, ttl_ms);
	redis_conn_append(c, &a);
	redis_args_init(&a, "GET");
	redis_args_key(&a, "ptycast:ticket:", name, "");
	redis_conn_append(c, &a);
	int rc = take_set_and_get(c, &r, err);
	if (rc != 0)
		return rc;
	if (strcmp(r->str, nonce) != 0)
		rc = error_set(err, -EEXIST, "it was used before");
	freeReplyObject(r);
	return rc;
}

static int redis_spend(struct store *s, const char *name, unsigned ttl_ms, struct error *err)
{
	struct redis_turn turn = { 0 };
	uint8_t random[16];
	char nonce[2 * sizeof(random) + 1];
	int rc;
	randombytes_buf(random, sizeof(random));
	sodium_bin2hex(nonce, sizeof(nonce), random, sizeof(random));
	do {
		rc = redis_pool_take(s->pool, &turn, err);
		if (rc == 0)
			rc = spend(turn.conn, name, nonce, ttl_ms, err);
	} while (redis_pool_give(s->pool, &turn, true, rc));
	return rc;
}

/* --- life --- */

static void free_store(struct store *s)
{
	redis_conn_close(s->writer);
	redis_pool_destroy(s->pool);
	redis_peer_fini(&s->peer);
	free(s);
}

static int redis_open(const char *location, struct store **ret, struct error *err)
{
	struct store *s = calloc(1, sizeof(*s));
	if (s == NULL)
		return error_set(err, -ENOMEM, "out of memory");
	int rc = redis_peer_init(&s->peer, location, err);
	if (rc != 0) {
		free(s);
		return rc;
	}
	rc = redis_pool_create(&s->peer, &s->pool, err);
	if (rc == 0)
		rc = write_queue_create(redis_write_batch, s, RETRY_MAX_MS, &s->queue, err);
	if (rc != 0) {
		free_store(s);
		return rc;
	}
	*ret = s;
	return 0;
}

static void redis_close(struct store *s)
{
	if (s == NULL)
		return;
	write_queue_destroy(s->queue);
	free_store(s);
}

const struct store_ops store_redis = {
	.scheme = "redis",
	.open = redis_open,
	.open_tool = redis_open, /* there is no lock that it could leave out */
	.close = redis_close,
	.load_sessions = redis_load_sessions,
	.put_session = redis_put_session,
	.delete_session = redis_delete_session,
	.get_or_put = redis_get_or_put,
	.reseal_session = redis_reseal_session,
	.get_sandbox = redis_get_sandbox,
	.list_sandboxes = redis_list_sandboxes,
	.count_sandboxes = redis_count_sandboxes,
	.insert_sandbox = redis_insert_sandbox,
	.update_sandbox = redis_update_sandbox,
	.delete_sandbox = redis_delete_sandbox,
	.healthy = redis_healthy,
	.shared = true,
	.get_session = redis_get_session,
	.create_session = redis_create_session,
	.list_sessions = redis_list_sessions,
	.count_sessions = redis_count_sessions,
	.take_session = redis_take_session,
	.orphans = redis_orphans,
	.spend = redis_spend,
	.keep = redis_keep,
};
