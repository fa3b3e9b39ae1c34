/* redis_index.c -- see redis_index.h. */
#include "store/redis_index.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/log.h"

static const struct {
	const char *record, *all, *subject;
} names[] = {
	[REDIS_SESSION] = { REDIS_SESSION_PREFIX, "ptycast:sessions", "ptycast:sessions:" },
	[REDIS_SANDBOX] = { REDIS_SANDBOX_PREFIX, "ptycast:sandboxes", "ptycast:sandboxes:" },
};

static void add_index(struct redis_args *a, enum redis_record kind, const char *subject)
{
	if (subject == NULL)
		redis_args_text(a, names[kind].all);
	else
		redis_args_key(a, names[kind].subject, subject, "");
}

void redis_index_append_add(struct redis_conn *c, enum redis_record kind, struct redis_entry e)
{
	struct redis_args a;
	redis_args_init(&a, "ZADD");
	add_index(&a, kind, e.subject);
	redis_args_text(&a, "0");
	redis_args_text(&a, e.id);
	redis_conn_append(c, &a);
}

/* --- taking out --- */

static void append_remove(struct redis_conn *c, enum redis_record kind, struct redis_entry e)
{
	struct redis_args a;
	redis_args_init(&a, "ZREM");
	add_index(&a, kind, e.subject);
	redis_args_text(&a, e.id);
	redis_conn_append(c, &a);
	redis_args_init(&a, "HMGET");
	redis_args_key(&a, names[kind].record, e.id, "}");
	redis_args_text(&a, "created_ms");
	redis_args_text(&a, "subject");
	redis_conn_append(c, &a);
}

/* Whether there is a record behind the entry after all. */
static int take_remove(struct redis_conn *c, struct redis_entry e, bool *ret, struct error *err)
{
	redisReply *r = NULL;
	int rc = redis_conn_done(c, err);
	int read = redis_conn_reply(c, &r, err);
	if (read == 0 && (r->type != REDIS_REPLY_ARRAY || r->elements != 2))
		read = redis_conn_nonsense(c, err);
	if (read == 0) {
		const redisReply *created = r->element[0], *subject = r->element[1];
		*ret = created->type != REDIS_REPLY_NIL &&
		       (e.subject == NULL || (subject->type == REDIS_REPLY_STRING &&
					      strcmp(subject->str, e.subject) == 0));
	}
	freeReplyObject(r);
	return read == -EINVAL ? rc : read != 0 ? read : rc; /* no hash: no record */
}

int redis_index_remove(struct redis_conn *c, enum redis_record kind,
		       const struct redis_entry *entries, size_t count, struct error *err)
{
	int rc = 0;
	size_t again = 0;
	for (size_t i = 0; i < count; i++)
		append_remove(c, kind, entries[i]);
	/* Who made the record meanwhile wrote the entry before: it is written again. */
	for (size_t i = 0; rc == 0 && i < count; i++) {
		bool there = false;
		rc = take_remove(c, entries[i], &there, err);
		if (rc == 0 && there) {
			redis_index_append_add(c, kind, entries[i]);
			again++;
		}
	}
	while (rc == 0 && again-- > 0)
		rc = redis_conn_done(c, err);
	return rc;
}

/* --- walking --- */

static void append_ids(struct redis_conn *c, const struct redis_walk *walk, const char *after)
{
	struct redis_args a;
	redis_args_init(&a, "ZRANGEBYLEX");
	add_index(&a, walk->kind, walk->subject);
	if (after == NULL)
		redis_args_text(&a, "-");
	else
		redis_args_key(&a, "(", after, "");
	redis_args_text(&a, "+");
	redis_args_text(&a, "LIMIT");
	redis_args_text(&a, "0");
	redis_args_number(&a, (int64_t)walk->chunk);
	redis_conn_append(c, &a);
}

static void append_record(struct redis_conn *c, const struct redis_walk *walk, const char *id)
{
	struct redis_args a;
	redis_args_init(&a, walk->fields == NULL ? "HGETALL" : "HMGET");
	redis_args_key(&a, names[walk->kind].record, id, "}");
	for (const char *at = walk->fields; at != NULL && *at != '\0';) {
		size_t size = strcspn(at, " ");
		redis_args_bytes(&a, at, size);
		at += size + (at[size] == ' ');
	}
	redis_conn_append(c, &a);
}

static bool is_id(const redisReply *r)
{
	return r->type == REDIS_REPLY_STRING && r->len >= 1 && r->len <= 64 &&
	       strlen(r->str) == r->len;
}

static int take_ids(struct redis_conn *c, redisReply **ret, struct error *err)
{
	redisReply *ids;
	int rc = redis_conn_reply(c, &ids, err);
	if (rc != 0)
		return rc;
	bool good = ids->type == REDIS_REPLY_ARRAY;
	for (size_t i = 0; good && i < ids->elements; i++)
		good = is_id(ids->element[i]);
	if (!good) {
		freeReplyObject(ids);
		redis_conn_nonsense(c, err);
		return -EBADMSG;
	}
	*ret = ids;
	return 0;
}

/* What each said of the record. */
static int show(const struct redis_walk *walk, const char *id, const redisReply *record)
{
	if (record->type != REDIS_REPLY_ARRAY || record->elements == 0 ||
	    record->element[0]->type == REDIS_REPLY_NIL)
		return REDIS_WALK_WRONG;
	int rc = walk->each(walk->arg, id, record);
	if (rc != -EBADMSG)
		return rc;
	char text[80];
	log_warn("record not understood", "id=%s", log_safe(text, sizeof(text), id));
	return REDIS_WALK_ON;
}

/* Sets *stop at the end. */
static int walk_chunk(struct redis_conn *c, const struct redis_walk *walk, const redisReply *ids,
		      bool *stop, struct error *err)
{
	struct redis_entry *wrong = calloc(ids->elements + 1, sizeof(*wrong));
	if (wrong == NULL)
		return error_set(err, -ENOMEM, "out of memory");
	size_t wrong_count = 0;
	int result = REDIS_WALK_ON, rc = 0;
	for (size_t i = 0; i < ids->elements; i++)
		append_record(c, walk, ids->element[i]->str);
	for (size_t i = 0; rc == 0 && i < ids->elements; i++) {
		const char *id = ids->element[i]->str;
		redisReply *record = NULL;
		rc = redis_conn_reply(c, &record, err);
		int said = REDIS_WALK_ON;
		if (rc == 0 && result == REDIS_WALK_ON) {
			said = show(walk, id, record);
		} else if (rc == -EINVAL) { /* something else has that key */
			said = REDIS_WALK_WRONG;
			rc = 0;
		}
		freeReplyObject(record);
		if (said == REDIS_WALK_WRONG)
			wrong[wrong_count++] = (struct redis_entry){ walk->subject, id };
		else if (said != REDIS_WALK_ON)
			result = said;
	}
	if (rc == 0 && result >= 0 && wrong_count > 0)
		rc = redis_index_remove(c, walk->kind, wrong, wrong_count, err);
	free(wrong);
	*stop = result == REDIS_WALK_STOP;
	return rc != 0 ? rc : result < 0 ? result : 0;
}

int redis_index_walk(struct redis_conn *c, const struct redis_walk *walk, struct error *err)
{
	char after[65];
	bool stop = false;
	int rc = 0;
	if (walk->after != NULL)
		snprintf(after, sizeof(after), "%s", walk->after);
	const char *from = walk->after != NULL ? after : NULL;
	while (rc == 0 && !stop) {
		redisReply *ids = NULL;
		append_ids(c, walk, from);
		rc = take_ids(c, &ids, err);
		if (rc != 0)
			break;
		rc = walk_chunk(c, walk, ids, &stop, err);
		stop = stop || ids->elements < walk->chunk;
		if (ids->elements > 0)
			snprintf(after, sizeof(after), "%s", ids->element[ids->elements - 1]->str);
		from = after;
		freeReplyObject(ids);
	}
	return rc;
}
