/* redis_conn.h -- one blocking connection to a Redis, by hiredis: commands are appended, sent together, and their
 * replies taken in that order. Each call has a deadline. A connection is one thread's at a time.
 *
 * SIGPIPE must be ignored or blocked: hiredis writes with write(2). */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "service/error.h"
#include "store/redis_args.h"
#include "store/redis_script.h"
#include "store/redis_server.h"
#include "store/redis_url.h"

struct redisReply;

#define REDIS_CONNECT_MS 1000
#define REDIS_COMMAND_MS 2000

/* The server, as all connections of one store see it. */
struct redis_peer {
	/* Set by redis_peer_init(), then never changed. */
	struct redis_url url;
	char name[128]; /* "redis://host:port", for texts */

	pthread_mutex_t lock;            /* guards below; taken alone */
	char run_id[REDIS_RUN_ID_BYTES]; /* of the last server that was met; "": none yet */
};

/* As redis_url_parse(). */
int redis_peer_init(struct redis_peer *peer, const char *location, struct error *err);
void redis_peer_fini(struct redis_peer *peer);

struct redis_conn;

/* Connects, authenticates, looks whether the server can be used, and notes when it may have lost records: see
 * "generation" in docs/redis.md. Blocks until deadline_ms (redis_now_ms()), but for a name that has to be resolved.
 * -EHOSTUNREACH; -EACCES: it refuses user or password, or the user may not do something; as
 * redis_server_check(); -ENOMEM. */
int redis_conn_open(struct redis_peer *peer, int64_t deadline_ms, struct redis_conn **ret,
		    struct error *err);
void redis_conn_close(struct redis_conn *c); /* NULL is allowed */

/* False when it was cut, or replies are still to come: it must not be used any more. */
bool redis_conn_usable(const struct redis_conn *c);
/* True when what was asked was surely not done, so that it may be asked again on another connection. */
bool redis_conn_refused(const struct redis_conn *c);
/* Monotonic. Of what is asked from now on. */
void redis_conn_set_deadline(struct redis_conn *c, int64_t deadline_ms);
int64_t redis_now_ms(void);

void redis_conn_append(struct redis_conn *c, const struct redis_args *a);
/* A command of fixed words, separated by spaces. */
void redis_conn_append_words(struct redis_conn *c, const char *words);
/* Starts the call of a script on one key: prefix, id, "}". */
void redis_conn_script(const struct redis_conn *c, struct redis_args *a, enum redis_script script,
		       const char *prefix, const char *id);

/* Waits for the next reply; free it with freeReplyObject(). -EHOSTUNREACH: cut, or too late, or the server cannot
 * answer now; -ENOSPC: it is full; -EACCES; -EINVAL: the key holds something else than ours. After an error that
 * the server said the replies behind it still come. */
int redis_conn_reply(struct redis_conn *c, struct redisReply **ret, struct error *err);
/* The same where nothing but success matters. */
int redis_conn_done(struct redis_conn *c, struct error *err);
/* The same for a number; -EBADMSG when it is none. */
int redis_conn_number(struct redis_conn *c, int64_t *ret, struct error *err);
/* Says that a reply is not what it should be; -EBADMSG. */
int redis_conn_nonsense(struct redis_conn *c, struct error *err);

/* Appends the question whether all records are there, and takes the answer. False: one that is not there may be one that
 * its owner is about to write again. */
void redis_conn_append_settled(struct redis_conn *c);
int redis_conn_settled(struct redis_conn *c, bool *ret, struct error *err);
/* Says that; -EHOSTUNREACH. */
int redis_conn_unsettled(struct redis_conn *c, struct error *err);
