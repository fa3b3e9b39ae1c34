/* redis_index.h -- the sorted sets that list the ids of records: all of a kind, and those of each subject. An entry is
 * written before its record, so there may be entries without one: they are taken out where they are met. */
#pragma once

#include "store/redis_record.h"

struct redis_entry {
	const char *subject; /* of whose set; NULL: of the set of all */
	const char *id;
};

/* A record's key is that, its id, and "}": in a cluster each would be in the slot of its id. */
#define REDIS_SESSION_PREFIX "ptycast:session:{"
#define REDIS_SANDBOX_PREFIX "ptycast:sandbox:{"

void redis_index_append_add(struct redis_conn *c, enum redis_record kind, struct redis_entry e);

/* Takes entries out, but those whose record turns out to be there, of that subject. */
int redis_index_remove(struct redis_conn *c, enum redis_record kind,
		       const struct redis_entry *entries, size_t count, struct error *err);

enum redis_walk_result {
	REDIS_WALK_ON,
	REDIS_WALK_STOP,
	REDIS_WALK_WRONG, /* the entry has no such record */
};

struct redis_walk {
	enum redis_record kind;
	const char *subject; /* as in struct redis_entry */
	const char *after;   /* ids behind that; NULL: all */
	size_t chunk;        /* records that are asked for at once, at most REDIS_CHUNK_MAX */
	const char *
		fields; /* separated by spaces, the first is one that each has; NULL: all, as HGETALL */
	/* What it returns says how to go on; a negative errno ends the walk, too. reply is the walk's, and never
	 * empty. */
	int (*each)(void *arg, const char *id, const struct redisReply *reply);
	void *arg;
};

#define REDIS_CHUNK_MAX 500

/* Calls each, in the order of the ids. A record that cannot be read is passed over. */
int redis_index_walk(struct redis_conn *c, const struct redis_walk *walk, struct error *err);
