/* redis_bus_channels.c -- the connection that listens. However many here want a channel, it is subscribed to once.
 * Each SUBSCRIBE and UNSUBSCRIBE is answered once a channel, in order; a channel stands when the last of its
 * answers came and it is still wanted. So a name may be left and joined again at any speed. */
#include "store/redis_bus_private.h"

#include <string.h>

#include "service/metrics.h"

#define SUBSCRIBE_MAX 500 /* channels in one command */

static void say(struct bus *b, const char *verb, struct bus_channel *const *channels,
		unsigned count)
{
	redis_async_begin_silent(&b->sub, count + 1);
	redis_async_word(&b->sub, verb, strlen(verb), NULL, 0);
	for (unsigned i = 0; i < count; i++) {
		redis_async_word(&b->sub, BUS_PREFIX, BUS_PREFIX_SIZE, channels[i]->name,
				 channels[i]->name_size);
		channels[i]->pending++;
	}
	b->changes_due += count;
}

void bus_join(struct bus *b, struct bus_subscription *s)
{
	bool alone = bus_channel_join(&b->channels, s);
	struct bus_channel *channel = s->channel;
	if (alone && redis_async_is_up(&b->sub))
		say(b, "SUBSCRIBE", &channel, 1);
	else if (!alone && channel->stands)
		bus_subscription_up(s);
}

void bus_leave(struct bus *b, struct bus_subscription *s)
{
	struct bus_channel *channel = bus_channel_leave(&b->channels, s);
	if (channel->first != NULL)
		return;
	channel->stands = false;
	if (redis_async_is_up(&b->sub))
		say(b, "UNSUBSCRIBE", &channel, 1);
	else
		bus_channel_remove(&b->channels, channel);
}

/* --- connection --- */

struct batch {
	struct bus *bus;
	struct bus_channel *channels[SUBSCRIBE_MAX];
	unsigned count;
};

static void add_to_batch(void *arg, struct bus_channel *channel)
{
	struct batch *batch = arg;
	batch->channels[batch->count++] = channel;
	if (batch->count == SUBSCRIBE_MAX) {
		say(batch->bus, "SUBSCRIBE", batch->channels, batch->count);
		batch->count = 0;
	}
}

static void on_up(void *arg)
{
	struct bus *b = arg;
	b->sub_known = false;
	redis_async_command(&b->sub, bus_on_sub_info, "INFO");
	/* A connection that may not listen is seen here, also when nobody wants to hear anything yet. */
	static const char *const verbs[] = { "SUBSCRIBE", "UNSUBSCRIBE" };
	for (unsigned i = 0; i < 2; i++) {
		redis_async_begin_silent(&b->sub, 2);
		redis_async_word(&b->sub, verbs[i], strlen(verbs[i]), NULL, 0);
		redis_async_word(&b->sub, BUS_PREFIX, BUS_PREFIX_SIZE, NULL, 0);
	}
	b->changes_due = 2;
	struct batch batch = { .bus = b };
	bus_channels_each(&b->channels, add_to_batch, &batch);
	if (batch.count > 0)
		say(b, "SUBSCRIBE", batch.channels, batch.count);
}

static void on_listening(struct bus *b)
{
	redis_async_good(&b->sub);
	atomic_store(&b->can_hear, true);
	if (b->heard_once)
		metric_add(METRIC_BUS_RECONNECTS, 1);
	b->heard_once = true;
	bus_say_found(b, &b->sub);
	bus_note_connected(b);
	bus_news_of_opening(b, NULL);
}

static void forget_channel(void *arg, struct bus_channel *channel)
{
	struct bus *b = arg;
	channel->pending = 0;
	channel->stands = false;
	if (channel->first == NULL)
		bus_channel_remove(&b->channels, channel);
	else
		bus_channel_tell(channel, BUS_DOWN, NULL, 0);
}

static void on_down(void *arg, const struct error *err)
{
	struct bus *b = arg;
	atomic_store(&b->can_hear, false);
	bus_note_connected(b);
	bus_say_lost(b, &b->sub, err);
	bus_channels_each(&b->channels, forget_channel, b);
	bus_news_of_opening(b, err);
}

/* --- what comes --- */

static struct bus_channel *channel_of(struct bus *b, const redisReply *name)
{
	return bus_channel_find(&b->channels, name->str + BUS_PREFIX_SIZE,
				name->len - BUS_PREFIX_SIZE);
}

static void on_changed(struct bus *b, const redisReply *name, bool subscribed)
{
	if (b->changes_due > 0)
		b->changes_due--;
	if (name->len == BUS_PREFIX_SIZE) {
		if (!subscribed)
			on_listening(b);
		return;
	}
	struct bus_channel *channel = channel_of(b, name);
	if (channel == NULL || channel->pending == 0 || --channel->pending > 0)
		return;
	if (channel->first == NULL) {
		bus_channel_remove(&b->channels, channel);
	} else if (subscribed) {
		channel->stands = true;
		bus_channel_tell(channel, BUS_UP, NULL, 0);
	}
}

static void on_message(struct bus *b, const redisReply *name, const redisReply *data)
{
	struct bus_channel *channel = bus_channel_find(&b->channels, name->str + BUS_PREFIX_SIZE,
						       name->len - BUS_PREFIX_SIZE);
	metric_add(METRIC_BUS_RECEIVED_MESSAGES, 1);
	metric_add(METRIC_BUS_RECEIVED_BYTES, (int64_t)data->len);
	if (channel != NULL)
		bus_channel_tell(channel, BUS_MESSAGE, (const uint8_t *)data->str, data->len);
}

static bool on_push(void *arg, const redisReply *reply)
{
	struct bus *b = arg;
	struct error err;
	/* Else it is PING that a server refuses which loads, or is busy with a script. */
	if (reply->type == REDIS_REPLY_ERROR && b->sub_known && b->changes_due > 0) {
		redis_server_refusal(reply->str, "SUBSCRIBE " BUS_PREFIX "*", &err);
		redis_async_drop(&b->sub, &err);
		return true;
	}
	if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 3)
		return false;
	const redisReply *kind = reply->element[0], *name = reply->element[1],
			 *data = reply->element[2];
	if (kind->type != REDIS_REPLY_STRING || name->type != REDIS_REPLY_STRING ||
	    name->len < BUS_PREFIX_SIZE || memcmp(name->str, BUS_PREFIX, BUS_PREFIX_SIZE) != 0)
		return false;
	if (strcmp(kind->str, "message") == 0 && data->type == REDIS_REPLY_STRING)
		on_message(b, name, data);
	else if (strcmp(kind->str, "subscribe") == 0)
		on_changed(b, name, true);
	else if (strcmp(kind->str, "unsubscribe") == 0)
		on_changed(b, name, false);
	else
		return false;
	return true;
}

const struct redis_async_ops bus_sub_ops = {
	.name = "subscribe",
	.up = on_up,
	.down = on_down,
	.push = on_push,
};
