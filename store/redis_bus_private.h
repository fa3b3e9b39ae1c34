/* redis_bus_private.h -- what the files of the bus over Redis share: redis_bus.c (life, publishing),
 * redis_bus_alive.c (greeting, sign of life, generation), redis_bus_channels.c (subscribing). Channels are
 * "ptycast:" and the name given; keys are in docs/redis.md. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <uv.h>

#include "store/bus.h"
#include "store/bus_channels.h"
#include "store/bus_mailbox.h"
#include "store/redis_async.h"
#include "store/redis_server.h"

#define BUS_PREFIX "ptycast:" /* by itself the channel that only asks whether we may use channels */
#define BUS_PREFIX_SIZE (sizeof(BUS_PREFIX) - 1)

#define BUS_CHANNEL_BYTES 160 /* of a name with the database in front */

struct bus {
	/* Set by open(), then never changed. */
	struct bus_params params; /* without location */
	struct redis_url url;
	char replica[17];  /* hex */
	char life_key[48]; /* the sign of life */
	char ttl_text[16]; /* ms */
	pthread_t thread;

	struct bus_mailbox mailbox;
	_Atomic bool can_publish, can_hear; /* written by the bus's thread */
	_Atomic uint64_t alive_us;

	pthread_mutex_t lock; /* guards below, for open() to wait; taken alone */
	pthread_cond_t changed;
	bool opened; /* or failed: then opening has why */
	struct error opening;

	/* All below: bus's thread only. */
	uv_loop_t loop;
	struct redis_async pub, sub;
	struct bus_channels channels;
	struct bus_op *first, **end; /* messages to be published */
	uv_timer_t beat_timer, close_timer;
	bool closing, said_goodbye, finished;
	bool connected; /* both: as the metric says */

	/* Of the servers that they are connected to, or were last. */
	char run_id[REDIS_RUN_ID_BYTES], sub_run_id[REDIS_RUN_ID_BYTES];
	bool sub_known;       /* sub's server was looked at */
	unsigned changes_due; /* on sub: answers to SUBSCRIBE and UNSUBSCRIBE */
	bool was_up;          /* pub had been good once */
	bool heard_once;      /* sub had been */
	bool lost_said[2];    /* pub, sub: that it is lost */
	bool given;           /* the sign of life stood, on this connection */
	bool life_gone;       /* it had stood, and was gone at this beat */
	bool listed;          /* we are in the list of replicas, as far as we know */
	bool first_beat_over;
	unsigned beats;
	bool records_lost; /* generation was not the server's when we looked last: */
	char lost_generation[REDIS_RUN_ID_BYTES];
	uint64_t trouble_said_us;
};

/* redis_bus.c */
void bus_news_of_opening(struct bus *b,
			 const struct error *err); /* NULL: look whether all is there */
void bus_note_connected(struct bus *b);
void bus_send_waiting(struct bus *b); /* as much as there is room for */
void bus_finish(struct bus *b);
/* Says in the log, once for each time, that a connection is lost, and that it stands. */
void bus_say_lost(struct bus *b, struct redis_async *c, const struct error *err);
void bus_say_found(struct bus *b, struct redis_async *c);

/* redis_bus_alive.c: of pub */
extern const struct redis_async_ops bus_pub_ops;
void bus_say_goodbye(struct bus *b);
void bus_on_sub_info(void *arg, const redisReply *reply, uint64_t sent_us);

/* redis_bus_channels.c: of sub */
extern const struct redis_async_ops bus_sub_ops;
void bus_join(struct bus *b, struct bus_subscription *s);
void bus_leave(struct bus *b, struct bus_subscription *s);
