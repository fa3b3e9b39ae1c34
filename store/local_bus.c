/* local_bus.c -- the bus of a service that is alone: a thread that hands messages from those who publish to those
 * who subscribed. Each bus is a world of its own. */
#include "store/bus.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "service/metrics.h"
#include "store/bus_channels.h"
#include "store/bus_mailbox.h"

struct bus {
	pthread_t thread;
	uv_loop_t loop;
	struct bus_mailbox mailbox;
	struct bus_channels channels; /* bus's thread only */
};

static void deliver(struct bus *b, struct bus_message *message)
{
	metric_add(METRIC_BUS_PUBLISHED_MESSAGES, 1);
	metric_add(METRIC_BUS_PUBLISHED_BYTES, (int64_t)message->size);
	struct bus_channel *channel = bus_channel_find(&b->channels, message->channel,
						       message->channel_size);
	if (channel != NULL) {
		metric_add(METRIC_BUS_RECEIVED_MESSAGES, 1);
		metric_add(METRIC_BUS_RECEIVED_BYTES, (int64_t)message->size);
		bus_channel_tell(channel, BUS_MESSAGE, message->data, message->size);
	}
	bus_message_free(&b->mailbox, message);
}

static void on_mail(uv_async_t *wake)
{
	struct bus *b = wake->data;
	bool closed;
	struct bus_op *op = bus_mailbox_take(&b->mailbox, &closed);
	for (struct bus_op *next; op != NULL; op = next) {
		next = op->next;
		struct bus_subscription *s;
		struct bus_channel *channel;
		switch (op->kind) {
		case BUS_OP_PUBLISH:
			deliver(b, (struct bus_message *)op);
			break;
		case BUS_OP_SUBSCRIBE:
			s = bus_subscription_of(op);
			bus_channel_join(&b->channels, s);
			bus_subscription_up(s);
			break;
		case BUS_OP_UNSUBSCRIBE:
			channel = bus_channel_leave(&b->channels, bus_subscription_of(op));
			if (channel != NULL && channel->first == NULL)
				bus_channel_remove(&b->channels, channel);
			break;
		}
	}
	if (closed) {
		bus_channels_end(&b->channels);
		uv_close((uv_handle_t *)&b->mailbox.wake, NULL);
	}
}

static void *bus_thread(void *arg)
{
	struct bus *b = arg;
	uv_run(&b->loop, UV_RUN_DEFAULT);
	return NULL;
}

static int local_open(const struct bus_params *p, struct bus **ret, struct error *err)
{
	(void)p;
	struct bus *b = calloc(1, sizeof(*b));
	if (b == NULL)
		return error_set(err, -ENOMEM, "bus: no memory");
	int rc = sodium_init() < 0 ? -EIO : bus_channels_init(&b->channels);
	if (rc != 0)
		goto free_bus;
	rc = uv_loop_init(&b->loop);
	if (rc != 0)
		goto fini_channels;
	rc = bus_mailbox_init(&b->mailbox, &b->loop, on_mail, b);
	if (rc != 0)
		goto close_loop;

	/* Signals are the main thread's. */
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = -pthread_create(&b->thread, NULL, bus_thread, b);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc != 0)
		goto fini_mailbox;
	pthread_setname_np(b->thread, "bus");
	metric_add(METRIC_BUS_CONNECTED, 1);
	*ret = b;
	return 0;

fini_mailbox:
	uv_close((uv_handle_t *)&b->mailbox.wake, NULL);
	uv_run(&b->loop, UV_RUN_DEFAULT);
	bus_mailbox_fini(&b->mailbox);
close_loop:
	uv_loop_close(&b->loop);
fini_channels:
	bus_channels_fini(&b->channels);
free_bus:
	free(b);
	return error_set(err, rc, "bus: not started: %s", strerror(-rc));
}

static void local_close(struct bus *b)
{
	if (b == NULL)
		return;
	bus_mailbox_close(&b->mailbox);
	pthread_join(b->thread, NULL);
	metric_add(METRIC_BUS_CONNECTED, -1);
	uv_loop_close(&b->loop);
	bus_mailbox_fini(&b->mailbox);
	bus_channels_fini(&b->channels);
	free(b);
}

static int local_publish(struct bus *b, const char *channel, uint8_t *data, size_t size)
{
	return bus_mailbox_publish(&b->mailbox, channel, data, size);
}

static int local_subscribe(struct bus *b, const char *channel, bus_fn *fn, void *arg,
			   struct bus_subscription **ret)
{
	return bus_subscription_create(&b->mailbox, channel, fn, arg, ret);
}

static void local_unsubscribe(struct bus *b, struct bus_subscription *s)
{
	bus_subscription_leave(&b->mailbox, s);
}

static uint64_t local_alive_us(struct bus *b)
{
	(void)b;
	return uv_hrtime() / 1000; /* nobody else can doubt it */
}

static bool local_connected(struct bus *b)
{
	(void)b;
	return true;
}

const struct bus_ops bus_local = {
	.open = local_open,
	.close = local_close,
	.publish = local_publish,
	.subscribe = local_subscribe,
	.unsubscribe = local_unsubscribe,
	.alive_us = local_alive_us,
	.connected = local_connected,
};
