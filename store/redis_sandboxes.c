/* redis_sandboxes.c -- sandboxes' records. "change" in a record is a random number of the call that made or changed it
 * last: by it a call that is repeated, since no answer came, knows its own work. */
#include <errno.h>
#include <hiredis/hiredis.h>
#include <sodium.h>
#include <string.h>

#include "store/redis_private.h"

static int no_sandbox(const char *id, struct error *err)
{
	return error_set(err, -ENOENT, "there is no sandbox %.64s", id);
}

static uint64_t random_number(void)
{
	uint64_t n;
	randombytes_buf(&n, sizeof(n));
	return n;
}

/* --- reading --- */

static int get(struct redis_conn *c, const char *id, struct store_sandbox *ret, struct error *err)
{
	struct redis_args a;
	redisReply *r;
	redis_args_init(&a, "HGETALL");
	redis_args_key(&a, REDIS_SANDBOX_PREFIX, id, "}");
	redis_conn_append(c, &a);
	int rc = redis_conn_reply(c, &r, err);
	if (rc != 0)
		return rc;
	rc = redis_record_decode(REDIS_SANDBOX, id, r, ret);
	freeReplyObject(r);
	if (rc == -ENOENT)
		return no_sandbox(id, err);
	if (rc == -EBADMSG)
		return redis_conn_nonsense(c, err);
	return rc == 0 ? 0 : error_set(err, rc, "out of memory");
}

int redis_get_sandbox(struct store *s, const char *id, struct store_sandbox *ret, struct error *err)
{
	struct redis_turn turn = { 0 };
	int rc;
	do {
		rc = redis_pool_take(s->pool, &turn, err);
		if (rc == 0)
			rc = get(turn.conn, id, ret, err);
	} while (redis_pool_give(s->pool, &turn, true, rc));
	return rc;
}

struct list {
	const char *subject;
	size_t left;
	int (*each)(void *arg, const struct store_sandbox *record);
	void *arg;
	struct error *err;
	int result; /* what each returned */
};

static int list_one(void *arg, const char *id, const redisReply *reply)
{
	struct list *l = arg;
	struct store_sandbox record;
	int rc = redis_record_decode(REDIS_SANDBOX, id, reply, &record);
	if (rc != 0)
		return rc;
	int result = REDIS_WALK_WRONG;
	if (l->subject == NULL ||
	    (record.subject != NULL && strcmp(record.subject, l->subject) == 0)) {
		l->left--;
		l->result = l->each(l->arg, &record);
		result = l->left == 0 || l->result != 0 ? REDIS_WALK_STOP : REDIS_WALK_ON;
	}
	if (l->result != 0)
		error_set(l->err, l->result, "the list stopped at sandbox %s", id);
	store_sandbox_fini(&record);
	return result;
}

int redis_list_sandboxes(struct store *s, const char *subject, const char *after, size_t limit,
			 int (*each)(void *arg, const struct store_sandbox *record), void *arg,
			 struct error *err)
{
	struct redis_turn turn = { 0 };
	struct list list = { subject, limit, each, arg, err, 0 };
	struct redis_walk walk = {
		.kind = REDIS_SANDBOX,
		.subject = subject,
		.after = after,
		.chunk = limit < REDIS_CHUNK_MAX ? limit : REDIS_CHUNK_MAX,
		.each = list_one,
		.arg = &list,
	};
	int rc;
	if (limit == 0)
		return 0;
	do {
		rc = redis_pool_take(s->pool, &turn, err);
		if (rc == 0)
			rc = redis_index_walk(turn.conn, &walk, err);
	} while (redis_pool_give(s->pool, &turn, list.left == limit, rc));
	return rc != 0 ? rc : list.result;
}

/* Of the index: after a crash it may have one too many, until the next list. */
int redis_count_sandboxes(struct store *s, const char *subject, size_t *ret, struct error *err)
{
	struct redis_turn turn = { 0 };
	int64_t count = 0;
	int rc;
	do {
		rc = redis_pool_take(s->pool, &turn, err);
		if (rc != 0)
			continue;
		struct redis_args a;
		redis_args_init(&a, "ZCARD");
		redis_args_key(&a, "ptycast:sandboxes:", subject, "");
		redis_conn_append(turn.conn, &a);
		rc = redis_conn_number(turn.conn, &count, err);
	} while (redis_pool_give(s->pool, &turn, true, rc));
	if (rc == 0)
		*ret = (size_t)count;
	return rc;
}

/* --- writing --- */

static int insert(struct redis_conn *c, const struct store_sandbox *record, uint64_t change,
		  struct error *err)
{
	const struct redis_entry entries[] = { { NULL, record->id },
					       { record->subject, record->id } };
	struct store_sandbox made = *record;
	struct redis_args a;
	int64_t done = 0;
	struct error why = { 0 };
	made.revision = 1;
	for (unsigned i = 0; i < 2; i++)
		redis_index_append_add(c, REDIS_SANDBOX, entries[i]);
	redis_conn_script(c, &a, REDIS_INSERT_SANDBOX, REDIS_SANDBOX_PREFIX, record->id);
	redis_args_hex(&a, change);
	redis_record_encode(&a, REDIS_SANDBOX, &made, true);
	redis_conn_append(c, &a);
	redis_conn_done(c, &why); /* a full server refuses the record, too */
	redis_conn_done(c, &why);
	int rc = redis_conn_number(c, &done, err);
	if (rc == 0 && done == 0) {
		redis_index_remove(c, REDIS_SANDBOX, &entries[1], 1, &why);
		rc = error_set(err, -EEXIST, "there is a sandbox %s", record->id);
	}
	return rc;
}

int redis_insert_sandbox(struct store *s, const struct store_sandbox *record, struct error *err)
{
	struct redis_turn turn = { 0 };
	uint64_t change = random_number();
	int rc;
	do {
		rc = redis_pool_take(s->pool, &turn, err);
		if (rc == 0)
			rc = insert(turn.conn, record, change, err);
	} while (redis_pool_give(s->pool, &turn, true, rc));
	return rc;
}

/* The reply of a script: the subject that the record had, owned by *reply; -ENOENT, -ESTALE. */
static int take_subject(struct redis_conn *c, const char *id, redisReply **reply,
			const char **subject, struct error *err)
{
	int rc = redis_conn_reply(c, reply, err);
	if (rc != 0)
		return rc;
	const redisReply *r = *reply;
	if (r->type == REDIS_REPLY_STRING && r->str[0] == '=') {
		*subject = r->str + 1;
		return 0;
	}
	if (r->type == REDIS_REPLY_NIL) {
		no_sandbox(id, err);
		return -ENOENT;
	}
	if (r->type == REDIS_REPLY_INTEGER) {
		error_set(err, -ESTALE, "sandbox %s was changed meanwhile", id);
		return -ESTALE;
	}
	redis_conn_nonsense(c, err);
	return -EBADMSG;
}

static int update(struct redis_conn *c, const struct store_sandbox *record, uint64_t change,
		  struct error *err)
{
	struct store_sandbox next = *record;
	struct redis_args a;
	redisReply *r = NULL;
	const char *before = NULL;
	struct error why = { 0 };
	next.revision++;
	redis_index_append_add(c, REDIS_SANDBOX,
			       (struct redis_entry){ record->subject, record->id });
	redis_conn_script(c, &a, REDIS_UPDATE_SANDBOX, REDIS_SANDBOX_PREFIX, record->id);
	redis_args_hex(&a, change);
	redis_args_number(&a, (int64_t)record->revision);
	redis_record_encode(&a, REDIS_SANDBOX, &next, false);
	redis_conn_append(c, &a);
	redis_conn_done(c, &why);
	int rc = take_subject(c, record->id, &r, &before, err);
	struct redis_entry wrong = { rc == 0 ? before : record->subject, record->id };
	/* It had another subject, or there is none. */
	if (rc == -ENOENT || rc == -ESTALE || (rc == 0 && strcmp(before, record->subject) != 0))
		redis_index_remove(c, REDIS_SANDBOX, &wrong, 1, &why);
	freeReplyObject(r);
	return rc;
}

int redis_update_sandbox(struct store *s, const struct store_sandbox *record, struct error *err)
{
	struct redis_turn turn = { 0 };
	uint64_t change = random_number();
	int rc;
	do {
		rc = redis_pool_take(s->pool, &turn, err);
		if (rc == 0)
			rc = update(turn.conn, record, change, err);
	} while (redis_pool_give(s->pool, &turn, true, rc));
	return rc;
}

static int delete (struct redis_conn *c, const char *id, struct error *err)
{
	struct redis_args a;
	redisReply *r = NULL;
	const char *subject = NULL;
	struct error why = { 0 };
	redis_conn_script(c, &a, REDIS_DELETE_SANDBOX, REDIS_SANDBOX_PREFIX, id);
	redis_conn_append(c, &a);
	int rc = take_subject(c, id, &r, &subject, err);
	if (rc == 0) {
		const struct redis_entry entries[] = { { NULL, id }, { subject, id } };
		redis_index_remove(c, REDIS_SANDBOX, entries, 2, &why);
	}
	freeReplyObject(r);
	return rc;
}

/* Not repeated when the answer was lost: it would be -ENOENT. */
int redis_delete_sandbox(struct store *s, const char *id, struct error *err)
{
	struct redis_turn turn = { 0 };
	int rc;
	do {
		rc = redis_pool_take(s->pool, &turn, err);
		if (rc == 0)
			rc = delete (turn.conn, id, err);
	} while (redis_pool_give(s->pool, &turn, false, rc));
	return rc;
}
