/* redis_async.h -- one connection to Redis on a libuv loop, made again by itself when it is lost. Replies are
 * parsed by hiredis' reader; connecting, writing and matching replies is ours, because hiredis 0.14's async API
 * - finds what a channel's message belongs to by name, and forgets it when an UNSUBSCRIBE is answered, though
 *   another SUBSCRIBE of that name may be under way;
 * - aborts the process at a push that it does not know;
 * - has no limit for connecting, and blocks the loop to resolve a name.
 * Thread: the loop's. */
#pragma once

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "service/error.h"
#include "store/redis_out.h"
#include "store/redis_url.h"

#define REDIS_ASYNC_CONNECT_MS 1000 /* for one address */
#define REDIS_ASYNC_SILENCE_MS 3000 /* nothing was heard though an answer is due: it is dropped */
#define REDIS_ASYNC_RETRY_MIN_MS 20
#define REDIS_ASYNC_RETRY_MAX_MS 500
/* Written at once. What waits behind it stays with the user, so that a sign of life need not wait long. */
#define REDIS_ASYNC_CHUNK_BYTES (256u << 10)
#define REDIS_ASYNC_REPLY_BYTES_MAX (68u << 20) /* more than BUS_QUEUE_BYTES */
#define REDIS_ASYNC_DUE_MAX 128

struct redis_async;

/* sent_us: when its command was given to us, of CLOCK_MONOTONIC. reply is borrowed; it may be an error. Not
 * called for those that were due when the connection was lost. */
typedef void redis_async_fn(void *arg, const redisReply *reply, uint64_t sent_us);

struct redis_async_ops {
	const char *name; /* as in log lines */

	/* It stands, and we are logged in. */
	void (*up)(void *arg);
	/* It was lost, or an attempt to make it failed; err says why. */
	void (*down)(void *arg, const struct error *err);
	/* True: reply belongs to no command (a subscription's news), and it was dealt with. NULL: never. */
	bool (*push)(void *arg, const redisReply *reply);
	/* There is room for another chunk. NULL is allowed. */
	void (*drained)(void *arg);
	/* The reply to a command without fn is an error. NULL is allowed. */
	void (*refused)(void *arg, const redisReply *reply);
};

enum redis_async_state {
	REDIS_ASYNC_OFF,
	REDIS_ASYNC_RESOLVING,
	REDIS_ASYNC_CONNECTING,
	REDIS_ASYNC_GREETING, /* AUTH and SELECT are on their way */
	REDIS_ASYNC_UP,
	REDIS_ASYNC_CLOSING, /* the socket */
	REDIS_ASYNC_WAITING, /* to try again */
};

struct redis_async {
	const struct redis_async_ops *ops;
	void *arg;
	const struct redis_url *url; /* borrowed */
	uv_loop_t *loop;

	enum redis_async_state state;
	bool closing; /* redis_async_close() was called */
	unsigned retry_ms;
	uv_timer_t timer; /* until the attempt is given up, or the next is made */
	uv_timer_t probe;
	uint64_t probed_ms; /* loop time */
	uv_getaddrinfo_t resolve;
	struct addrinfo *addresses, *address; /* owned; the one in use */
	uv_tcp_t tcp;
	uv_connect_t connect;

	struct redis_out out, flight; /* collected; being written */
	uv_write_t write;
	bool writing;
	bool overdue; /* too many answers are due: the next flush fails, as what calls begin cannot */

	redisReader *reader;
	uint64_t sent, answered; /* commands that get a reply; of this connection */
	uint64_t heard_us;       /* when something came, or was waited for at first */
	struct {
		uint64_t number, sent_us;
		redis_async_fn *fn;
	} due[REDIS_ASYNC_DUE_MAX]; /* a ring: replies that somebody waits for */
	unsigned due_first, due_count;
	unsigned greetings; /* replies until it is up */

	char in[64 << 10];
};

/* Starts to connect. url and ops are borrowed. */
void redis_async_start(struct redis_async *c, uv_loop_t *loop, const struct redis_url *url,
		       const struct redis_async_ops *ops, void *arg);
/* Ends it, without a call of down(); the loop is to run until it has nothing left, then fini. That waits for a
 * name that is being resolved. */
void redis_async_close(struct redis_async *c);
void redis_async_fini(struct redis_async *c);

/* The server is no good: the connection, if there is one, is lost with that reason. */
void redis_async_drop(struct redis_async *c, const struct error *err);
/* The server is good: the next time it is lost, begin with a short pause again. */
void redis_async_good(struct redis_async *c);

/* One command: begin with the number of its words, then each. fn NULL: the reply does not matter. Only while up;
 * else nothing happens. It is written by redis_async_flush(), or after the callback that we are in. */
void redis_async_begin(struct redis_async *c, redis_async_fn *fn, unsigned words);
void redis_async_word(struct redis_async *c, const char *head, size_t head_size, const void *tail,
		      size_t tail_size); /* one word: head and tail together */
/* A command whose words are all texts, NULL at the end. */
void redis_async_words(struct redis_async *c, redis_async_fn *fn, const char *const *words);
#define redis_async_command(c, fn, ...) \
	redis_async_words(c, fn, (const char *const[]){ __VA_ARGS__, NULL })
/* As redis_async_begin(), but it gets no reply of its own: SUBSCRIBE and UNSUBSCRIBE. */
void redis_async_begin_silent(struct redis_async *c, unsigned words);
void redis_async_flush(struct redis_async *c);

bool redis_async_is_up(const struct redis_async *c);
/* False when a chunk is full: wait for drained(). */
bool redis_async_has_room(const struct redis_async *c);
/* How many replies somebody waits for; of more than REDIS_ASYNC_DUE_MAX the connection is dropped. */
unsigned redis_async_due(const struct redis_async *c);
