/* redis_orphans.c -- sessions that nobody has. ptycast:replicas has the ids of all replicas that may own some, and 0, nobody,
 * while there may be sessions that were left: as long as all of them give a sign of life there is nothing to look
 * for. */
#include <errno.h>
#include <hiredis/hiredis.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/redis_private.h"

enum life {
	LIFE_UNKNOWN, /* an owner that is not in the set: to be asked for */
	LIFE_ALIVE,
	LIFE_DEAD,
};

struct replica {
	uint64_t id;
	enum life life;
	bool listed; /* in the set, and known before the walk */
	size_t owns;
};

struct sweep {
	struct redis_conn *c;
	struct replica *replicas; /* owned */
	size_t count;
	bool late;   /* the second walk: of those that were not listed */
	bool called; /* each was */
	int result;  /* what it returned */
	int (*each)(void *arg, const struct store_session *record);
	void *arg;
	struct error *err;
};

static struct replica *find(struct sweep *sweep, uint64_t id)
{
	for (size_t i = 0; i < sweep->count; i++)
		if (sweep->replicas[i].id == id)
			return &sweep->replicas[i];
	return NULL;
}

static struct replica *add(struct sweep *sweep, uint64_t id)
{
	struct replica *grown = reallocarray(sweep->replicas, sweep->count + 1, sizeof(*grown));
	if (grown == NULL)
		return NULL;
	sweep->replicas = grown;
	grown[sweep->count] = (struct replica){ .id = id };
	return &grown[sweep->count++];
}

/* --- who lives --- */

static int list_replicas(struct sweep *sweep)
{
	redisReply *ids;
	redis_conn_append_words(sweep->c, "SMEMBERS ptycast:replicas");
	int rc = redis_conn_reply(sweep->c, &ids, sweep->err);
	if (rc != 0)
		return rc;
	for (size_t i = 0; rc == 0 && i < ids->elements; i++) {
		const char *text = ids->element[i]->str;
		if (text == NULL || strlen(text) != 16 || strspn(text, "0123456789abcdef") != 16)
			continue;
		struct replica *r = add(sweep, strtoull(text, NULL, 16));
		if (r != NULL)
			r->listed = true;
		else
			rc = error_set(sweep->err, -ENOMEM, "out of memory");
	}
	freeReplyObject(ids);
	return rc;
}

static void append_exists(struct redis_conn *c, uint64_t id)
{
	struct redis_args a;
	char hex[17];
	snprintf(hex, sizeof(hex), "%016" PRIx64, id);
	redis_args_init(&a, "EXISTS");
	redis_args_key(&a, "ptycast:replica:", hex, "");
	redis_conn_append(c, &a);
}

static void append_member(struct redis_conn *c, const char *command, uint64_t id)
{
	struct redis_args a;
	redis_args_init(&a, command);
	redis_args_text(&a, "ptycast:replicas");
	redis_args_hex(&a, id);
	redis_conn_append(c, &a);
}

void redis_append_nobody(struct redis_conn *c)
{
	append_member(c, "SADD", 0);
}

/* Of those whose life is not known. *dead: how many of them give no sign of it. */
static int ask_for_life(struct sweep *sweep, size_t *dead)
{
	int rc = 0;
	*dead = 0;
	for (size_t i = 0; i < sweep->count; i++)
		if (sweep->replicas[i].life == LIFE_UNKNOWN)
			append_exists(sweep->c, sweep->replicas[i].id);
	for (size_t i = 0; rc == 0 && i < sweep->count; i++) {
		struct replica *r = &sweep->replicas[i];
		int64_t exists = 0;
		if (r->life != LIFE_UNKNOWN)
			continue;
		rc = redis_conn_number(sweep->c, &exists, sweep->err);
		r->life = exists != 0 && r->id != 0 ? LIFE_ALIVE : LIFE_DEAD;
		*dead += r->life == LIFE_DEAD;
	}
	return rc;
}

/* --- the walk --- */

static int read_record(const char *id, const redisReply *reply, struct store_session *ret)
{
	static const char *const fields[] = { "owner", "fence", "birth", "host", "ended", "state" };
	snprintf(ret->id, sizeof(ret->id), "%s", id);
	if (reply->elements != sizeof(fields) / sizeof(fields[0]))
		return -EBADMSG;
	for (size_t i = 0; i < reply->elements; i++) {
		int rc = redis_record_set(REDIS_SESSION, fields[i], reply->element[i], ret);
		if (rc != 0)
			return rc;
	}
	return 0;
}

static int look_at(void *arg, const char *id, const redisReply *reply)
{
	struct sweep *sweep = arg;
	struct store_session record = { 0 }; /* without texts: nothing to free */
	int rc = read_record(id, reply, &record);
	if (rc != 0)
		return rc;
	struct replica *owner = find(sweep, record.owner);
	if (owner == NULL)
		owner = add(sweep, record.owner);
	if (owner == NULL)
		return error_set(sweep->err, -ENOMEM, "out of memory");
	if (record.owner == 0)
		owner->life = LIFE_DEAD;
	owner->owns++;
	/* Nobody is never late: known to be dead from the start. */
	if (owner->life != LIFE_DEAD || sweep->late != (!owner->listed && owner->id != 0))
		return REDIS_WALK_ON;
	sweep->called = true;
	sweep->result = sweep->each(sweep->arg, &record);
	return sweep->result == 0 ? REDIS_WALK_ON : REDIS_WALK_STOP;
}

static int walk(struct sweep *sweep)
{
	const struct redis_walk walk = {
		.kind = REDIS_SESSION,
		.chunk = REDIS_CHUNK_MAX,
		.fields = "owner fence birth host ended state",
		.each = look_at,
		.arg = sweep,
	};
	int rc = redis_index_walk(sweep->c, &walk, sweep->err);
	if (rc == 0 && sweep->result != 0)
		rc = error_set(sweep->err, sweep->result, "the sweep was stopped");
	return rc;
}

/* Owners that the set did not have: it was lost, or they were hung for long. From now on it has them. */
static int walk_late(struct sweep *sweep)
{
	struct error why = { 0 };
	size_t unlisted = 0, dead;
	for (size_t i = 0; i < sweep->count; i++)
		if (sweep->replicas[i].life == LIFE_UNKNOWN) {
			append_member(sweep->c, "SADD", sweep->replicas[i].id);
			unlisted++;
		}
	while (unlisted-- > 0)
		redis_conn_done(sweep->c, &why); /* a full server may refuse it */
	int rc = ask_for_life(sweep, &dead);
	if (rc != 0 || dead == 0)
		return rc;
	sweep->late = true;
	return walk(sweep);
}

/* --- the set --- */

/* Before the walk: what is left behind it puts it in again. */
static int take_nobody_out(struct sweep *sweep)
{
	append_member(sweep->c, "SREM", 0);
	return redis_conn_done(sweep->c, sweep->err);
}

/* A replica that is dead and owns nothing goes; it may have come back to life just now. */
static void forget_replica(struct sweep *sweep, uint64_t id)
{
	struct error why = { 0 };
	int64_t exists = 0;
	append_member(sweep->c, "SREM", id);
	append_exists(sweep->c, id);
	int rc = redis_conn_done(sweep->c, &why);
	if (rc == 0)
		rc = redis_conn_number(sweep->c, &exists, &why);
	if (rc == 0 && exists != 0) {
		append_member(sweep->c, "SADD", id);
		redis_conn_done(sweep->c, &why);
	}
}

/* What fails here the next sweep does. */
static void tidy_up(struct sweep *sweep, bool whole)
{
	struct error why = { 0 };
	for (size_t i = 0; redis_conn_usable(sweep->c) && i < sweep->count; i++) {
		const struct replica *r = &sweep->replicas[i];
		if (r->life == LIFE_DEAD && r->id == 0 && (r->owns > 0 || !whole)) {
			append_member(sweep->c, "SADD", 0);
			redis_conn_done(sweep->c, &why);
		} else if (r->life == LIFE_DEAD && r->id != 0 && r->owns == 0 && whole) {
			forget_replica(sweep, r->id);
		}
	}
}

static int sweep_all(struct sweep *sweep, bool thorough)
{
	size_t dead;
	int rc = list_replicas(sweep);
	if (rc == 0)
		rc = ask_for_life(sweep, &dead);
	if (rc != 0 || (!thorough && dead == 0))
		return rc;
	if (find(sweep, 0) != NULL)
		rc = take_nobody_out(sweep);
	if (rc == 0)
		rc = walk(sweep);
	if (rc == 0)
		rc = walk_late(sweep);
	tidy_up(sweep, rc == 0);
	return rc;
}

int redis_orphans(struct store *s, bool thorough,
		  int (*each)(void *arg, const struct store_session *record), void *arg,
		  struct error *err)
{
	struct redis_turn turn = { 0 };
	struct sweep sweep = { .each = each, .arg = arg, .err = err };
	int rc;
	do {
		free(sweep.replicas);
		sweep.replicas = NULL;
		sweep.count = 0;
		rc = redis_pool_take(s->pool, &turn, err);
		sweep.c = turn.conn;
		if (rc == 0)
			rc = sweep_all(&sweep, thorough);
	} while (redis_pool_give(s->pool, &turn, !sweep.called, rc));
	free(sweep.replicas);
	return rc;
}
