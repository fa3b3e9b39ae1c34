/* redis_bus_alive.c -- the connection that publishes, and what goes over it besides: the greeting, the sign of
 * life, and the look whether the server still has what was written.
 *
 * The sign of life is renewed by PEXPIRE, which a full server does not refuse, and set when there is none. When it
 * had stood and is gone, either we were stopped for longer than it lives, or the server was emptied: both are a
 * reason to write our records again. The generation alone would not tell all replicas, since the first that
 * misses it writes it anew. */
#include "store/redis_bus_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "service/log.h"
#include "service/metrics.h"

#define GENERATION_KEY "ptycast:generation"
#define SETTLING_KEY "ptycast:settling"
#define SETTLING_MS "4000"
#define REPLICAS_KEY "ptycast:replicas"
/* Every so many beats: somebody may have taken us for dead and off the list. */
#define LIST_BEATS 8
#define DUE_MAX (REDIS_ASYNC_DUE_MAX / 2)   /* no further beats while so many answers are due */
#define TROUBLE_US (60 * UINT64_C(1000000)) /* between two log lines */

static bool is_number(const redisReply *reply)
{
	return reply->type == REDIS_REPLY_INTEGER;
}

static void note_refusal(struct bus *b, const redisReply *reply, const char *what)
{
	uint64_t now_us = uv_hrtime() / 1000;
	if (b->trouble_said_us != 0 && now_us - b->trouble_said_us < TROUBLE_US)
		return;
	b->trouble_said_us = now_us;
	struct error err;
	redis_server_refusal(reply->str, what, &err);
	log_warn("bus refused", "code=%d text=\"%s\"", err.code, err.text);
}

static void drop(struct bus *b, const redisReply *reply, const char *what)
{
	struct error err;
	redis_server_refusal(reply->str, what, &err);
	redis_async_drop(&b->pub, &err);
}

/* --- generation --- */

static void on_generation_set(void *arg, const redisReply *reply, uint64_t sent_us)
{
	(void)sent_us;
	if (reply->type == REDIS_REPLY_ERROR)
		note_refusal(arg, reply, "SET " GENERATION_KEY);
}

/* Makes it the server's. settle: records may be missing, so that for a while a miss proves nothing; said first. */
static void set_generation(struct bus *b, bool settle)
{
	if (settle)
		redis_async_command(&b->pub, on_generation_set, "SET", SETTLING_KEY, "1", "PX",
				    SETTLING_MS);
	redis_async_command(&b->pub, on_generation_set, "SET", GENERATION_KEY, b->run_id);
}

static bool is_generation(const struct bus *b, const redisReply *reply)
{
	return reply->type == REDIS_REPLY_STRING && strcmp(reply->str, b->run_id) == 0;
}

/* The last answer of a beat. */
static void on_generation(void *arg, const redisReply *reply, uint64_t sent_us)
{
	(void)sent_us;
	struct bus *b = arg;
	bool lost = b->life_gone;
	b->life_gone = false;
	if (reply->type == REDIS_REPLY_ERROR) {
		note_refusal(b, reply, "GET " GENERATION_KEY);
	} else if (is_generation(b, reply)) {
		b->records_lost = false;
	} else {
		char seen[REDIS_RUN_ID_BYTES];
		snprintf(seen, sizeof(seen), "%s",
			 reply->type == REDIS_REPLY_STRING ? reply->str : "");
		lost |= !b->records_lost || strcmp(b->lost_generation, seen) != 0;
		b->records_lost = true;
		memcpy(b->lost_generation, seen, sizeof(seen));
		set_generation(b, true); /* each time, until it is there: a full server refuses */
	}
	if (lost) {
		log_warn("bus records lost", "replica=%s server=%s", b->replica, b->run_id);
		b->params.reset(b->params.arg);
	}
}

/* --- sign of life --- */

static void beat_is_over(struct bus *b)
{
	b->first_beat_over = true;
	bus_news_of_opening(b, NULL);
}

static void on_listed(void *arg, const redisReply *reply, uint64_t sent_us)
{
	(void)sent_us;
	struct bus *b = arg;
	b->listed = is_number(reply);
	if (reply->type == REDIS_REPLY_ERROR)
		note_refusal(b, reply, "SADD " REPLICAS_KEY);
}

static void on_life_set(void *arg, const redisReply *reply, uint64_t sent_us)
{
	struct bus *b = arg;
	if (reply->type == REDIS_REPLY_ERROR) {
		note_refusal(b, reply, "SET of the sign of life");
	} else {
		atomic_store(&b->alive_us, sent_us);
		b->given = true;
	}
	beat_is_over(b);
}

static void on_life_renewed(void *arg, const redisReply *reply, uint64_t sent_us)
{
	struct bus *b = arg;
	if (reply->type == REDIS_REPLY_ERROR) {
		/* It became a replica of another: the address may lead to that one now. */
		if (strncmp(reply->str, "READONLY", 8) == 0)
			drop(b, reply, "PEXPIRE");
		else
			note_refusal(b, reply, "PEXPIRE");
		beat_is_over(b);
		return;
	}
	if (is_number(reply) && reply->integer == 1) {
		atomic_store(&b->alive_us, sent_us);
		b->given = true;
		beat_is_over(b);
		return;
	}
	if (b->said_goodbye)
		return;
	b->life_gone |= b->given;
	b->given = false;
	redis_async_command(&b->pub, on_life_set, "SET", b->life_key, "1", "PX", b->ttl_text);
	redis_async_command(&b->pub, on_listed, "SADD", REPLICAS_KEY, b->replica);
}

static void beat(struct bus *b)
{
	if (redis_async_due(&b->pub) > DUE_MAX)
		return;
	redis_async_command(&b->pub, on_life_renewed, "PEXPIRE", b->life_key, b->ttl_text);
	redis_async_command(&b->pub, on_generation, "GET", GENERATION_KEY);
	if (!b->listed || b->beats++ % LIST_BEATS == 0)
		redis_async_command(&b->pub, on_listed, "SADD", REPLICAS_KEY, b->replica);
}

static void on_beat(uv_timer_t *timer)
{
	struct bus *b = timer->data;
	beat(b);
	redis_async_flush(&b->pub);
}

static void on_goodbye(void *arg, const redisReply *reply, uint64_t sent_us)
{
	(void)reply;
	(void)sent_us;
	bus_finish(arg);
}

void bus_say_goodbye(struct bus *b)
{
	if (b->said_goodbye)
		return;
	b->said_goodbye = true;
	/* In the list of replicas it stays until a sweep finds that it has nothing. */
	redis_async_command(&b->pub, on_goodbye, "DEL", b->life_key);
	redis_async_flush(&b->pub);
}

/* --- greeting --- */

/* False: the connection was dropped. */
static bool check_server(struct redis_async *c, const redisReply *info,
			 char run_id[REDIS_RUN_ID_BYTES])
{
	struct error err;
	int rc;
	if (info->type == REDIS_REPLY_STRING)
		rc = redis_server_check(info->str, run_id, &err);
	else
		rc = redis_server_refusal(info->str, "INFO", &err);
	if (rc != 0)
		redis_async_drop(c, &err);
	return rc == 0;
}

/* What one publishes and the other never hears would be lost without a word. */
static void drop_other_server(struct bus *b)
{
	struct error err;
	if (strcmp(b->run_id, b->sub_run_id) == 0)
		return;
	error_set(&err, -ECONNRESET,
		  "redis: it is another server than the one that is published to");
	redis_async_drop(&b->sub, &err);
}

void bus_on_sub_info(void *arg, const redisReply *reply, uint64_t sent_us)
{
	(void)sent_us;
	struct bus *b = arg;
	b->sub_known = check_server(&b->sub, reply, b->sub_run_id);
	if (b->sub_known && atomic_load(&b->can_publish))
		drop_other_server(b);
}

static void on_info(void *arg, const redisReply *reply, uint64_t sent_us)
{
	(void)sent_us;
	struct bus *b = arg;
	if (check_server(&b->pub, reply, b->run_id) && atomic_load(&b->can_hear))
		drop_other_server(b);
}

static void on_first_generation(void *arg, const redisReply *reply, uint64_t sent_us)
{
	(void)sent_us;
	struct bus *b = arg;
	if (reply->type == REDIS_REPLY_ERROR) { /* such as LOADING */
		drop(b, reply, "GET " GENERATION_KEY);
		return;
	}
	b->records_lost = false;
	if (!is_generation(b, reply))
		/* A new service on an empty server has nothing to wait for. */
		set_generation(b, b->was_up || reply->type == REDIS_REPLY_STRING);
}

static void on_may_publish(void *arg, const redisReply *reply, uint64_t sent_us)
{
	(void)sent_us;
	struct bus *b = arg;
	if (reply->type == REDIS_REPLY_ERROR) {
		drop(b, reply, "PUBLISH " BUS_PREFIX "*");
		return;
	}
	redis_async_good(&b->pub);
	b->given = b->listed = b->life_gone = false;
	b->beats = 0;
	beat(b);
	uint64_t every_ms = b->params.ttl_ms / 4 > 0 ? b->params.ttl_ms / 4 : 1;
	uv_timer_start(&b->beat_timer, on_beat, every_ms, every_ms);
	atomic_store(&b->can_publish, true);
	bus_say_found(b, &b->pub);
	bus_note_connected(b);
	if (b->was_up) {
		metric_add(METRIC_BUS_RECONNECTS, 1);
		b->params.reset(b->params.arg);
	}
	b->was_up = true;
}

static void on_up(void *arg)
{
	struct bus *b = arg;
	redis_async_command(&b->pub, on_info, "INFO");
	redis_async_command(&b->pub, on_first_generation, "GET", GENERATION_KEY);
	redis_async_command(&b->pub, on_may_publish, "PUBLISH", BUS_PREFIX, "");
}

static void on_down(void *arg, const struct error *err)
{
	struct bus *b = arg;
	atomic_store(&b->can_publish, false);
	uv_timer_stop(&b->beat_timer);
	bus_note_connected(b);
	bus_say_lost(b, &b->pub, err);
	bus_send_waiting(b); /* nowhere: it is dropped */
	bus_news_of_opening(b, err);
	if (b->closing)
		bus_finish(b);
}

static void on_drained(void *arg)
{
	bus_send_waiting(arg);
}

static void on_refused(void *arg, const redisReply *reply)
{
	metric_add(METRIC_BUS_DROPPED_MESSAGES, 1);
	note_refusal(arg, reply, "PUBLISH");
}

const struct redis_async_ops bus_pub_ops = {
	.name = "publish",
	.up = on_up,
	.down = on_down,
	.drained = on_drained,
	.refused = on_refused,
};
