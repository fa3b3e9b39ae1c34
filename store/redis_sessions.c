/* redis_sessions.c -- what is asked of sessions' records while somebody waits. Each op is one or two round trips on a
 * connection of the pool; what may be done twice is repeated once when that turns out dead. */
#include <assert.h>
#include <errno.h>
#include <hiredis/hiredis.h>
#include <string.h>

#include "store/redis_private.h"

static int decode(struct redis_conn *c, const char *id, const redisReply *reply,
		  struct store_session *ret, struct error *err)
{
	int rc = redis_record_decode(REDIS_SESSION, id, reply, ret);
	if (rc == -EBADMSG)
		redis_conn_nonsense(c, err);
	else if (rc == -ENOMEM)
		error_set(err, rc, "out of memory");
	return rc;
}

/* The reply of a script that is nil when there is no record. */
static int take_script(struct redis_conn *c, const char *id, redisReply **ret, struct error *err)
{
	int rc = redis_conn_reply(c, ret, err);
	if (rc != 0 || (*ret)->type != REDIS_REPLY_NIL)
		return rc;
	freeReplyObject(*ret);
	*ret = NULL;
	error_set(err, -ENOENT, "there is no session %.64s", id);
	return -ENOENT;
}

static bool is_zero(const redisReply *r)
{
	return r->type == REDIS_REPLY_INTEGER && r->integer == 0;
}

/* --- get --- */

static int get(struct redis_conn *c, const char *id, struct store_session *ret, struct error *err)
{
	struct redis_args a;
	redisReply *record = NULL;
	bool settled = false;
	redis_args_init(&a, "HGETALL");
	redis_args_key(&a, REDIS_SESSION_PREFIX, id, "}");
	redis_conn_append(c, &a);
	redis_conn_append_settled(c);
	int rc = redis_conn_reply(c, &record, err);
	if (rc == 0)
		rc = redis_conn_settled(c, &settled, err);
	if (rc == 0)
		rc = decode(c, id, record, ret, err);
	if (rc == -ENOENT)
		rc = settled ? error_set(err, rc, "there is no session %.64s", id)
			     : redis_conn_unsettled(c, err);
	freeReplyObject(record);
	return rc;
}

int redis_get_session(struct store *s, const char *id, struct store_session *ret, struct error *err)
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

/* --- create --- */

static void append_create(struct redis_conn *c, const struct store_session *record, bool may_make)
{
	struct redis_args a;
	redis_conn_script(c, &a, REDIS_CREATE_SESSION, REDIS_SESSION_PREFIX, record->id);
	redis_args_hex(&a, record->birth);
	redis_args_text(&a, may_make ? "1" : "0");
	redis_args_text(&a, record->subject != NULL ? record->subject : "");
	redis_record_encode(&a, REDIS_SESSION, record, true);
	redis_conn_append(c, &a);
}

/* 0: it was made. */
static int take_create(struct redis_conn *c, struct store_session *record,
		       struct store_session *known, struct error *err)
{
	redisReply *r;
	int rc = redis_conn_reply(c, &r, err);
	if (rc != 0)
		return rc;
	const redisReply *what = r->type == REDIS_REPLY_ARRAY && r->elements > 0 ? r->element[0]
										 : r;
	const char *word = what->type == REDIS_REPLY_STRING ? what->str : "";
	if (strcmp(word, "made") == 0 && r->elements == 2) {
		rc = redis_record_set(REDIS_SESSION, "fence", r->element[1], record);
		if (rc != 0)
			redis_conn_nonsense(c, err);
	} else if (strcmp(word, "known") == 0 && r->elements == 2) {
		rc = decode(c, record->id, r->element[1], known, err);
		if (rc == 0)
			rc = error_set(err, -EEXIST, "there is a session %s", record->id);
	} else if (strcmp(word, "missing") == 0) {
		rc = redis_conn_unsettled(c, err);
	} else {
		rc = redis_conn_nonsense(c, err);
	}
	freeReplyObject(r);
	return rc;
}

static int create(struct redis_conn *c, struct store_session *record, struct store_session *known,
		  struct error *err)
{
	const struct redis_entry entries[] = { { NULL, record->id },
					       { record->subject, record->id } };
	unsigned count = record->subject == NULL ? 1 : 2;
	bool settled = false;
	redis_conn_append_settled(c);
	int rc = redis_conn_settled(c, &settled, err);
	if (rc != 0)
		return rc;
	/* One that replaces another has its entries already. */
	if (!settled)
		count = 0;
	for (unsigned i = 0; i < count; i++)
		redis_index_append_add(c, REDIS_SESSION, entries[i]);
	append_create(c, record, settled);
	/* Where the entries were refused the record was, too; if not, the next write adds them. */
	struct error why = { 0 };
	for (unsigned i = 0; i < count; i++)
		redis_conn_done(c, &why);
	rc = take_create(c, record, known, err);
	if (rc == -EEXIST && count == 2 &&
	    (known->subject == NULL || strcmp(known->subject, record->subject) != 0))
		redis_index_remove(c, REDIS_SESSION, &entries[1], 1, NULL);
	return rc;
}

int redis_create_session(struct store *s, struct store_session *record, struct store_session *known,
			 struct error *err)
{
	struct redis_turn turn = { 0 };
	int rc;
	assert(record->birth != 0); /* by it a repeated call knows its own */
	do {
		rc = redis_pool_take(s->pool, &turn, err);
		if (rc == 0)
			rc = create(turn.conn, record, known, err);
	} while (redis_pool_give(s->pool, &turn, true, rc));
	return rc;
}

/* --- lists --- */

struct list {
	const char *subject, *state;
	size_t left;
	int (*each)(void *arg, const struct store_session *record);
	void *arg;
	struct error *err;
	int result; /* what each returned */
};

static int list_one(void *arg, const char *id, const redisReply *reply)
{
	struct list *l = arg;
	struct store_session record;
	int rc = redis_record_decode(REDIS_SESSION, id, reply, &record);
	if (rc != 0)
		return rc;
	bool theirs = l->subject == NULL ||
		      (record.subject != NULL && strcmp(record.subject, l->subject) == 0);
	int result = theirs ? REDIS_WALK_ON : REDIS_WALK_WRONG;
	if (theirs && (l->state == NULL || strcmp(record.state, l->state) == 0)) {
		l->left--;
		l->result = l->each(l->arg, &record);
		result = l->left == 0 || l->result != 0 ? REDIS_WALK_STOP : REDIS_WALK_ON;
	}
	if (l->result != 0)
		error_set(l->err, l->result, "the list stopped at session %s", id);
	store_session_fini(&record);
	return result;
}

int redis_list_sessions(struct store *s, const char *subject, const char *state, const char *after,
			size_t limit, int (*each)(void *arg, const struct store_session *record),
			void *arg, struct error *err)
{
	struct redis_turn turn = { 0 };
	struct list list = { subject, state, limit, each, arg, err, 0 };
	struct redis_walk walk = {
		.kind = REDIS_SESSION,
		.subject = subject,
		.after = after,
		.chunk = limit < REDIS_CHUNK_MAX && state == NULL ? limit : REDIS_CHUNK_MAX,
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

struct tally {
	const char *subject;
	size_t count, limit;
};

/* The reply is of the fields "ended subject". */
static int count_one(void *arg, const char *id, const redisReply *reply)
{
	struct tally *t = arg;
	struct store_session record = { 0 };
	(void)id;
	if (reply->elements != 2 || reply->element[1]->type != REDIS_REPLY_STRING ||
	    strcmp(reply->element[1]->str, t->subject) != 0)
		return REDIS_WALK_WRONG;
	int rc = redis_record_set(REDIS_SESSION, "ended", reply->element[0], &record);
	if (rc != 0)
		return rc;
	t->count += !record.ended;
	return t->count >= t->limit ? REDIS_WALK_STOP : REDIS_WALK_ON;
}

int redis_count_sessions(struct store *s, const char *subject, size_t limit, size_t *ret,
			 struct error *err)
{
	struct redis_turn turn = { 0 };
	struct tally tally = { .subject = subject, .limit = limit };
	struct redis_walk walk = {
		.kind = REDIS_SESSION,
		.subject = subject,
		.chunk = REDIS_CHUNK_MAX,
		.fields = "ended subject",
		.each = count_one,
		.arg = &tally,
	};
	int rc;
	do {
		tally.count = 0;
		rc = redis_pool_take(s->pool, &turn, err);
		if (rc == 0)
			rc = redis_index_walk(turn.conn, &walk, err);
	} while (redis_pool_give(s->pool, &turn, true, rc));
	if (rc == 0)
		*ret = tally.count;
	return rc;
}

/* --- owners --- */

static int take(struct redis_conn *c, const char *id, uint64_t owner, uint64_t me, uint64_t fence,
		struct store_session *ret, struct error *err)
{
	struct redis_args a;
	redisReply *r = NULL;
	redis_conn_script(c, &a, REDIS_TAKE_SESSION, REDIS_SESSION_PREFIX, id);
	redis_args_hex(&a, owner);
	redis_args_hex(&a, me);
	redis_args_hex(&a, fence);
	redis_conn_append(c, &a);
	int rc = take_script(c, id, &r, err);
	if (rc == 0)
		rc = is_zero(r) ? error_set(err, -ESTALE, "session %.64s has another owner", id)
				: decode(c, id, r, ret, err);
	freeReplyObject(r);
	return rc;
}

int redis_take_session(struct store *s, const char *id, uint64_t owner, uint64_t me, uint64_t fence,
		       struct store_session *ret, struct error *err)
{
	struct redis_turn turn = { 0 };
	int rc;
	do {
		rc = redis_pool_take(s->pool, &turn, err);
		if (rc == 0)
			rc = take(turn.conn, id, owner, me, fence, ret, err);
	} while (redis_pool_give(s->pool, &turn, true, rc));
	return rc;
}

/* --- sealing anew --- */

static void add_optional(struct redis_args *a, const char *text)
{
	redis_args_text(a, text != NULL ? "1" : "0");
	redis_args_text(a, text != NULL ? text : "");
}

static int reseal(struct redis_conn *c, const struct store_session *seen, const char *endpoint,
		  const char *target, struct error *err)
{
	struct redis_args a;
	int64_t done = 0;
	redis_conn_script(c, &a, REDIS_RESEAL_SESSION, REDIS_SESSION_PREFIX, seen->id);
	add_optional(&a, seen->endpoint);
	add_optional(&a, seen->target);
	add_optional(&a, endpoint);
	add_optional(&a, target);
	redis_conn_append(c, &a);
	int rc = redis_conn_number(c, &done, err);
	if (rc == 0 && done == 0)
		rc = error_set(err, -ESTALE, "session %s was changed meanwhile", seen->id);
	return rc;
}

int redis_reseal_session(struct store *s, const struct store_session *seen, const char *endpoint,
			 const char *target, struct error *err)
{
	struct redis_turn turn = { 0 };
	int rc;
	do {
		rc = redis_pool_take(s->pool, &turn, err);
		if (rc == 0)
			rc = reseal(turn.conn, seen, endpoint, target, err);
	} while (redis_pool_give(s->pool, &turn, true, rc));
	return rc;
}
