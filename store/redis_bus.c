/* redis_bus.c -- the bus over Redis' pub/sub: one thread with one loop, a connection that publishes and one that
 * listens. Here: its life, and what is published; see redis_bus_private.h for the rest.
 *
 * What is published goes from the mailbox to a list, and from there to the connection in chunks, so that several
 * share a write when there are several, and one that comes alone is written at once. */
#include "store/redis_bus_private.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/log.h"
#include "service/metrics.h"

/* close() lets what waits go out for the first half of CLOSE_MS, and says goodbye in the second. */
#define CLOSE_MS 500

/* --- publishing: bus's thread --- */

static void drop_waiting(struct bus *b)
{
	int64_t count = 0;
	for (struct bus_op *op = b->first, *next; op != NULL; op = next, count++) {
		next = op->next;
		bus_message_free(&b->mailbox, (struct bus_message *)op);
	}
	b->first = NULL;
	b->end = &b->first;
	metric_add(METRIC_BUS_DROPPED_MESSAGES, count);
}

static void send_one(struct bus *b, struct bus_message *m)
{
	redis_async_begin(&b->pub, NULL, 3);
	redis_async_word(&b->pub, "PUBLISH", 7, NULL, 0);
	redis_async_word(&b->pub, BUS_PREFIX, BUS_PREFIX_SIZE, m->channel, m->channel_size);
	redis_async_word(&b->pub, NULL, 0, m->data, m->size);
}

void bus_send_waiting(struct bus *b)
{
	if (!atomic_load(&b->can_publish)) {
		drop_waiting(b);
		return;
	}
	int64_t count = 0, bytes = 0;
	while (b->first != NULL && redis_async_has_room(&b->pub)) {
		struct bus_message *m = (struct bus_message *)b->first;
		b->first = m->op.next;
		send_one(b, m);
		count++;
		bytes += (int64_t)m->size;
		bus_message_free(&b->mailbox, m);
	}
	if (b->first == NULL)
		b->end = &b->first;
	metric_add(METRIC_BUS_PUBLISHED_MESSAGES, count);
	metric_add(METRIC_BUS_PUBLISHED_BYTES, bytes);
	redis_async_flush(&b->pub);
	if (b->closing && b->first == NULL)
		bus_say_goodbye(b);
}

/* --- life: bus's thread --- */

void bus_finish(struct bus *b)
{
	if (b->finished)
		return;
	b->finished = true;
	atomic_store(&b->can_publish, false);
	atomic_store(&b->can_hear, false);
	bus_note_connected(b);
	drop_waiting(b);
	bus_channels_end(&b->channels);
	redis_async_close(&b->pub);
	redis_async_close(&b->sub);
	uv_close((uv_handle_t *)&b->beat_timer, NULL);
	uv_close((uv_handle_t *)&b->close_timer, NULL);
	uv_close((uv_handle_t *)&b->mailbox.wake, NULL);
}

static void on_close_timer(uv_timer_t *timer)
{
	struct bus *b = timer->data;
	if (b->said_goodbye)
		bus_finish(b);
	else
		bus_say_goodbye(b);
}

static void begin_closing(struct bus *b)
{
	b->closing = true;
	if (!atomic_load(&b->can_publish)) {
		bus_finish(b);
		return;
	}
	uv_timer_stop(&b->beat_timer);
	uv_update_time(&b->loop);
	uv_timer_start(&b->close_timer, on_close_timer, CLOSE_MS / 2, CLOSE_MS / 2);
	bus_send_waiting(b);
}

static void on_mail(uv_async_t *wake)
{
	struct bus *b = wake->data;
	bool closed;
	struct bus_op *op = bus_mailbox_take(&b->mailbox, &closed);
	for (struct bus_op *next; op != NULL; op = next) {
		next = op->next;
		switch (op->kind) {
		case BUS_OP_PUBLISH:
			op->next = NULL;
			*b->end = op;
			b->end = &op->next;
			break;
		case BUS_OP_SUBSCRIBE:
			bus_join(b, bus_subscription_of(op));
			break;
		case BUS_OP_UNSUBSCRIBE:
			bus_leave(b, bus_subscription_of(op));
			break;
		}
	}
	bus_send_waiting(b);
	redis_async_flush(&b->sub);
	if (closed && !b->closing)
		begin_closing(b);
}

static void *bus_thread(void *arg)
{
	struct bus *b = arg;
	redis_async_start(&b->pub, &b->loop, &b->url, &bus_pub_ops, b);
	redis_async_start(&b->sub, &b->loop, &b->url, &bus_sub_ops, b);
	uv_run(&b->loop, UV_RUN_DEFAULT); /* until bus_finish() */
	return NULL;
}

void bus_note_connected(struct bus *b)
{
	bool connected = atomic_load(&b->can_publish) && atomic_load(&b->can_hear);
	if (connected != b->connected)
		metric_add(METRIC_BUS_CONNECTED, connected ? 1 : -1);
	b->connected = connected;
}

static bool *lost_said(struct bus *b, const struct redis_async *c)
{
	return &b->lost_said[c == &b->sub];
}

void bus_say_lost(struct bus *b, struct redis_async *c, const struct error *err)
{
	if (b->was_up && b->heard_once && !*lost_said(b, c))
		log_warn("bus lost", "connection=%s code=%d text=\"%s\"", c->ops->name, err->code,
			 err->text);
	else
		log_debug("bus retry", "connection=%s code=%d text=\"%s\"", c->ops->name, err->code,
			  err->text);
	*lost_said(b, c) = true;
}

void bus_say_found(struct bus *b, struct redis_async *c)
{
	if (*lost_said(b, c))
		log_info("bus found", "connection=%s", c->ops->name);
	*lost_said(b, c) = false;
}

void bus_news_of_opening(struct bus *b, const struct error *err)
{
	if (err == NULL && !(b->connected && b->first_beat_over))
		return;
	pthread_mutex_lock(&b->lock);
	if (!b->opened && err != NULL)
		b->opening = *err;
	b->opened = true;
	pthread_cond_signal(&b->changed);
	pthread_mutex_unlock(&b->lock);
}

/* --- any thread --- */

/* Channels know no databases: the name tells those of another service on this server apart. */
static const char *name_in_database(const struct bus *b, const char *channel,
				    char name[BUS_CHANNEL_BYTES])
{
	if (b->url.db == 0)
		return channel;
	snprintf(name, BUS_CHANNEL_BYTES, "%u:%s", b->url.db, channel);
	return name;
}

static int redis_bus_publish(struct bus *b, const char *channel, uint8_t *data, size_t size)
{
	if (atomic_load(&b->can_publish)) {
		char name[BUS_CHANNEL_BYTES];
		return bus_mailbox_publish(&b->mailbox, name_in_database(b, channel, name), data,
					   size);
	}
	free(data);
	metric_add(METRIC_BUS_DROPPED_MESSAGES, 1);
	return -ENOTCONN;
}

static int redis_bus_subscribe(struct bus *b, const char *channel, bus_fn *fn, void *arg,
			       struct bus_subscription **ret)
{
	char name[BUS_CHANNEL_BYTES];
	return bus_subscription_create(&b->mailbox, name_in_database(b, channel, name), fn, arg,
				       ret);
}

static void redis_bus_unsubscribe(struct bus *b, struct bus_subscription *s)
{
	bus_subscription_leave(&b->mailbox, s);
}

static uint64_t redis_bus_alive_us(struct bus *b)
{
	return atomic_load(&b->alive_us);
}

static bool redis_bus_connected(struct bus *b)
{
	return atomic_load(&b->can_publish) && atomic_load(&b->can_hear);
}

/* --- open and close --- */

static int start_thread(struct bus *b)
{
	/* Signals are the main thread's. */
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int rc = -pthread_create(&b->thread, NULL, bus_thread, b);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc == 0)
		pthread_setname_np(b->thread, "bus");
	return rc;
}

static int init(struct bus *b)
{
	int rc = sodium_init() < 0 ? -EIO : bus_channels_init(&b->channels);
	if (rc != 0)
		return rc;
	rc = uv_loop_init(&b->loop);
	if (rc != 0)
		goto fini_channels;
	rc = bus_mailbox_init(&b->mailbox, &b->loop, on_mail, b);
	if (rc != 0)
		goto close_loop;
	uv_timer_init(&b->loop, &b->beat_timer);
	uv_timer_init(&b->loop, &b->close_timer);
	b->beat_timer.data = b->close_timer.data = b;
	b->end = &b->first;
	pthread_mutex_init(&b->lock, NULL);
	pthread_cond_init(&b->changed, NULL);
	rc = start_thread(b);
	if (rc == 0)
		return 0;

	pthread_cond_destroy(&b->changed);
	pthread_mutex_destroy(&b->lock);
	uv_close((uv_handle_t *)&b->beat_timer, NULL);
	uv_close((uv_handle_t *)&b->close_timer, NULL);
	uv_close((uv_handle_t *)&b->mailbox.wake, NULL);
	uv_run(&b->loop, UV_RUN_DEFAULT);
	bus_mailbox_fini(&b->mailbox);
close_loop:
	uv_loop_close(&b->loop);
fini_channels:
	bus_channels_fini(&b->channels);
	return rc;
}

static void redis_bus_close(struct bus *b)
{
	if (b == NULL)
		return;
	bus_mailbox_close(&b->mailbox);
	pthread_join(b->thread, NULL);
	redis_async_fini(&b->pub);
	redis_async_fini(&b->sub);
	uv_loop_close(&b->loop);
	bus_mailbox_fini(&b->mailbox);
	bus_channels_fini(&b->channels);
	pthread_cond_destroy(&b->changed);
	pthread_mutex_destroy(&b->lock);
	redis_url_fini(&b->url);
	free(b);
}

static int redis_bus_open(const struct bus_params *p, struct bus **ret, struct error *err)
{
	struct bus *b = calloc(1, sizeof(*b));
	if (b == NULL)
		return error_set(err, -ENOMEM, "bus: no memory");
	b->params = *p;
	b->params.location = NULL;
	snprintf(b->replica, sizeof(b->replica), "%016" PRIx64, p->replica);
	snprintf(b->life_key, sizeof(b->life_key), BUS_PREFIX "replica:%s", b->replica);
	snprintf(b->ttl_text, sizeof(b->ttl_text), "%u", p->ttl_ms);
	int rc = redis_url_parse(p->location, &b->url, err);
	if (rc != 0)
		goto free_bus;
	rc = init(b);
	if (rc != 0) {
		error_set(err, rc, "bus: not started: %s", strerror(-rc));
		goto fini_url;
	}

	/* Not for long: an attempt has its limits. */
	pthread_mutex_lock(&b->lock);
	while (!b->opened)
		pthread_cond_wait(&b->changed, &b->lock);
	struct error opening = b->opening;
	pthread_mutex_unlock(&b->lock);
	if (opening.code != 0) {
		redis_bus_close(b);
		return error_set(err, opening.code, "%s", opening.text);
	}
	*ret = b;
	return 0;

fini_url:
	redis_url_fini(&b->url);
free_bus:
	free(b);
	return rc;
}

const struct bus_ops bus_redis = {
	.open = redis_bus_open,
	.close = redis_bus_close,
	.publish = redis_bus_publish,
	.subscribe = redis_bus_subscribe,
	.unsubscribe = redis_bus_unsubscribe,
	.alive_us = redis_bus_alive_us,
	.connected = redis_bus_connected,
};
