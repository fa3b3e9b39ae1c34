/* What every bus does: one suite over the local one and the one over Redis. */
#include "tests/unit/store/listener.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "service/metrics.h"
#include "tests/unit/redis_server.h"

#define THREADS 4
#define EACH 25000 /* messages of a thread */
#define CHANNELS 5000

struct env {
	const struct bus_ops *ops;
	struct redis_server *server; /* NULL: none is needed */
	struct bus *bus;
};

static void never_reset(void *arg)
{
	(void)arg;
	fail();
}

static int open_bus(void **state)
{
	struct env *env = *state;
	struct error err = { 0 };
	struct bus_params params = {
		.location = env->server != NULL ? redis_server_location(env->server) : NULL,
		.replica = 0x1234,
		.ttl_ms = 2000,
		.reset = never_reset,
	};
	if (env->ops->open(&params, &env->bus, &err) != 0)
		fail_msg("%s", err.text);
	return 0;
}

static int close_bus(void **state)
{
	struct env *env = *state;
	env->ops->close(env->bus);
	listener_free_all();
	return 0;
}

static void listen_to(struct env *env, struct listener *l, const char *channel)
{
	listener_start(l, env->ops, env->bus, channel);
}

static void publish(struct env *env, const char *channel, const char *text)
{
	assert_int_equal(say(env->ops, env->bus, channel, text), 0);
}

static void stop(struct listener *l)
{
	listener_leave(l);
	listener_end(l);
}

static void tells_those_who_joined_a_channel_and_nobody_else(void **state)
{
	struct env *env = *state;
	struct listener *a = listener_new(NULL, NULL);
	struct listener *b = listener_new(NULL, NULL);
	struct listener *other = listener_new(NULL, NULL);
	listen_to(env, a, "news");
	listen_to(env, b, "news");
	listen_to(env, other, "new");
	listener_await_ups(a, 1);
	listener_await_ups(b, 1);
	listener_await_ups(other, 1);
	publish(env, "news", "one");
	publish(env, "nobody", "lost");
	publish(env, "news", "two");
	publish(env, "new", "three");
	listener_await_messages(a, 2);
	listener_await_messages(b, 2);
	listener_await_messages(other, 1);
	assert_string_equal((char *)a->last, "two");
	assert_string_equal((char *)b->last, "two");
	assert_string_equal((char *)other->last, "three");

	listener_leave(a);
	listener_end(a);
	publish(env, "news", "four");
	listener_await_messages(b, 3);
	stop(b);
	stop(other);
	assert_int_equal(other->messages, 1);
	assert_int_equal(a->messages, 2);
}

static void one_who_joins_later_is_up_too(void **state)
{
	struct env *env = *state;
	struct listener *first = listener_new(NULL, NULL);
	struct listener *second = listener_new(NULL, NULL);
	listen_to(env, first, "late");
	listener_await_ups(first, 1);
	listen_to(env, second, "late");
	listener_await_ups(second, 1);
	publish(env, "late", "x");
	listener_await_messages(first, 1);
	listener_await_messages(second, 1);
	stop(first);
	stop(second);
}

static void carries_any_bytes_of_any_size(void **state)
{
	struct env *env = *state;
	static const size_t sizes[] = { 0, 1, 3, 4096, 65535, 65536, 300001, 6 << 20, 7 };
	struct listener *l = listener_new(NULL, NULL);
	listen_to(env, l, "bytes");
	listener_await_ups(l, 1);
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint8_t *data = malloc(sizes[i] + 1);
		for (size_t at = 0; at < sizes[i]; at++)
			data[at] = (uint8_t)(at * 31 + at / 251);
		assert_int_equal(env->ops->publish(env->bus, "bytes", data, sizes[i]), 0);
		listener_await_messages(l, i + 1);
		assert_int_equal(l->last_size, sizes[i]);
		for (size_t at = 0; at < sizes[i]; at++)
			if (l->last[at] != (uint8_t)(at * 31 + at / 251))
				fail_msg("size %zu: byte %zu", sizes[i], at);
	}
	stop(l);
}

/* --- order --- */

struct order {
	unsigned next[THREADS];
	_Atomic bool broken;
};

struct writer {
	struct env *env;
	unsigned number;
	pthread_t thread;
};

static void check_order(struct listener *l, enum bus_news news, const uint8_t *data, size_t size)
{
	struct order *order = l->arg;
	unsigned thread, n;
	char text[32] = "";
	if (news != BUS_MESSAGE)
		return;
	memcpy(text, data, size < sizeof(text) - 1 ? size : sizeof(text) - 1);
	if (sscanf(text, "%u %u", &thread, &n) != 2 || n != order->next[thread]++)
		atomic_store(&order->broken, true);
}

static void *write_numbers(void *arg)
{
	struct writer *w = arg;
	for (unsigned i = 0; i < EACH; i++) {
		char text[32];
		snprintf(text, sizeof(text), "%u %u", w->number, i);
		if (say(w->env->ops, w->env->bus, "order", text) != 0)
			abort();
	}
	return NULL;
}

static void keeps_the_order_of_each_thread(void **state)
{
	struct env *env = *state;
	static struct order order; /* also when the test fails */
	memset(&order, 0, sizeof(order));
	struct listener *l = listener_new(check_order, &order);
	listen_to(env, l, "order");
	listener_await_ups(l, 1);
	struct writer writers[THREADS];
	for (unsigned i = 0; i < THREADS; i++) {
		writers[i] = (struct writer){ .env = env, .number = i };
		pthread_create(&writers[i].thread, NULL, write_numbers, &writers[i]);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(writers[i].thread, NULL);
	listener_await_messages(l, THREADS * EACH);
	stop(l);
	assert_false(atomic_load(&order.broken));
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(order.next[i], EACH);
}

/* --- coming and going --- */

static void may_leave_before_it_is_up(void **state)
{
	struct env *env = *state;
	for (unsigned i = 0; i < 200; i++) {
		struct listener *l = listener_new(NULL, NULL);
		listen_to(env, l, "hasty");
		stop(l);
		assert_int_equal(l->messages, 0);
		assert_true(l->ups <= 1);
	}
}

static void may_leave_and_join_at_any_speed(void **state)
{
	struct env *env = *state;
	enum { COUNT = 300 };
	struct listener *all[COUNT];
	for (unsigned i = 0; i < COUNT; i++) {
		all[i] = listener_new(NULL, NULL);
		listen_to(env, all[i], "revolving");
		if (i + 1 < COUNT)
			listener_leave(all[i]);
	}
	struct listener *last = all[COUNT - 1];
	listener_await_ups(last, 1);
	publish(env, "revolving", "now");
	listener_await_messages(last, 1);
	for (unsigned i = 0; i + 1 < COUNT; i++) {
		listener_end(all[i]);
		assert_int_equal(all[i]->messages, 0);
	}
	stop(last);
	assert_int_equal(last->messages, 1);
}

static void leave_at_the_first(struct listener *l, enum bus_news news, const uint8_t *data,
			       size_t size)
{
	(void)data;
	(void)size;
	if (news == BUS_MESSAGE)
		listener_leave(l);
}

static void may_leave_from_within(void **state)
{
	struct env *env = *state;
	struct listener *leaves = listener_new(leave_at_the_first, NULL);
	struct listener *stays = listener_new(NULL, NULL);
	listen_to(env, leaves, "within");
	listen_to(env, stays, "within");
	listener_await_ups(leaves, 1);
	listener_await_ups(stays, 1);
	for (unsigned i = 0; i < 100; i++)
		publish(env, "within", "x");
	listener_await_messages(stays, 100);
	listener_end(leaves);
	assert_int_equal(leaves->messages, 1);
	stop(stays);
}

static void echo(struct listener *l, enum bus_news news, const uint8_t *data, size_t size)
{
	struct listener *inner = l->arg;
	if (news != BUS_MESSAGE)
		return;
	if (l->messages == 1) {
		listener_start(inner, l->ops, l->bus, "echoes");
		return;
	}
	uint8_t *copy = malloc(size);
	memcpy(copy, data, size);
	l->ops->publish(l->bus, "echoes", copy, size);
}

static void may_join_and_publish_from_within(void **state)
{
	struct env *env = *state;
	struct listener *inner = listener_new(NULL, NULL);
	struct listener *outer = listener_new(echo, inner);
	listen_to(env, outer, "calls");
	listener_await_ups(outer, 1);
	publish(env, "calls", "first");
	listener_await_messages(outer, 1);
	listener_await_ups(inner, 1);
	publish(env, "calls", "second");
	listener_await_messages(inner, 1);
	assert_string_equal((char *)inner->last, "second");
	stop(outer);
	stop(inner);
}

static void serves_thousands_of_channels(void **state)
{
	struct env *env = *state;
	struct listener **all = calloc(CHANNELS, sizeof(struct listener *));
	char name[32];
	uint64_t start_us = uv_hrtime() / 1000;
	for (unsigned i = 0; i < CHANNELS; i++) {
		snprintf(name, sizeof(name), "channel:%u", i);
		all[i] = listener_new(NULL, NULL);
		listen_to(env, all[i], name);
	}
	for (unsigned i = 0; i < CHANNELS; i++)
		listener_await_ups(all[i], 1);
	for (unsigned i = 0; i < CHANNELS; i++) {
		snprintf(name, sizeof(name), "channel:%u", i);
		publish(env, name, name);
	}
	for (unsigned i = 0; i < CHANNELS; i++) {
		listener_await_messages(all[i], 1);
		snprintf(name, sizeof(name), "channel:%u", i);
		assert_string_equal((char *)all[i]->last, name);
	}
	for (unsigned i = 0; i < CHANNELS; i++)
		listener_leave(all[i]);
	for (unsigned i = 0; i < CHANNELS; i++)
		listener_end(all[i]);
	free(all);
	assert_true(uv_hrtime() / 1000 - start_us < 10 * 1000000u); /* 50 ms, but for sanitizers */
}

/* --- limits, and the end --- */

static void refuses_more_than_its_queue_holds_and_loses_nothing_of_it(void **state)
{
	struct env *env = *state;
	struct listener *gate = listener_new(NULL, NULL);
	struct listener *end = listener_new(NULL, NULL);
	const size_t size = 1 << 20;
	listen_to(env, gate, "gate");
	listen_to(env, end, "end");
	listener_await_ups(gate, 1);
	listener_await_ups(end, 1);
	listener_hold(gate, "gate");
	int64_t sent = metric_get(METRIC_BUS_PUBLISHED_BYTES);
	int64_t dropped = metric_get(METRIC_BUS_DROPPED_MESSAGES);
	unsigned taken = 0;
	int rc;
	while ((rc = env->ops->publish(env->bus, "sink", calloc(1, size), size)) == 0) {
		taken++;
		assert_true(taken * size < BUS_QUEUE_BYTES);
	}
	assert_int_equal(rc, -EAGAIN);
	assert_int_equal(taken, BUS_QUEUE_BYTES / size - 1); /* and what is around them */
	assert_int_equal(metric_get(METRIC_BUS_DROPPED_MESSAGES) - dropped, 1);
	listener_release(gate);

	while (say(env->ops, env->bus, "end", "x") == -EAGAIN)
		sched_yield();
	listener_await_messages(end, 1);
	assert_int_equal(metric_get(METRIC_BUS_PUBLISHED_BYTES) - sent, taken * size + 1);
	stop(gate);
	stop(end);
}

static void is_connected_and_alive(void **state)
{
	struct env *env = *state;
	assert_true(env->ops->connected(env->bus));
	uint64_t now_us = uv_hrtime() / 1000, alive_us = env->ops->alive_us(env->bus);
	assert_true(alive_us > 0);
	assert_true(alive_us <= now_us + 1000);
	assert_true(now_us < alive_us + 2000000);
	assert_int_equal(metric_get(METRIC_BUS_CONNECTED), 1);
}

static void refuse_to_go_on(struct listener *l, enum bus_news news, const uint8_t *data,
			    size_t size)
{
	(void)data;
	(void)size;
	if (news != BUS_ENDED)
		return;
	/* Too late for all that, but no harm. */
	struct bus_subscription *s = NULL;
	l->ops->unsubscribe(l->bus, l->subscription);
	if (say(l->ops, l->bus, "closing", "x") != -ENOTCONN ||
	    l->ops->subscribe(l->bus, "closing", NULL, NULL, &s) != -ENOTCONN)
		abort();
}

static void its_end_ends_all_subscriptions(void **state)
{
	struct env *env = *state;
	struct listener *first = listener_new(refuse_to_go_on, NULL);
	struct listener *second = listener_new(NULL, NULL);
	struct listener *left = listener_new(NULL, NULL);
	listen_to(env, first, "closing");
	listener_await_ups(first, 1);
	listen_to(env, left, "closing");
	listener_leave(left);
	listen_to(env, second, "closing"); /* may not have joined yet */
	env->ops->close(env->bus);
	assert_int_equal(first->ends, 1);
	listener_end(first);
	listener_end(second);
	listener_end(left);
	assert_int_equal(metric_get(METRIC_BUS_CONNECTED), 0);
	env->ops->close(NULL);
	open_bus(state);
}

#define BUS_TEST(fn) cmocka_unit_test_setup_teardown(fn, open_bus, close_bus)
/* cmocka has no parameters: the same list, with another bus in the state. */
#define BUS_TESTS                                                                            \
	{                                                                                    \
		BUS_TEST(tells_those_who_joined_a_channel_and_nobody_else),                  \
			BUS_TEST(one_who_joins_later_is_up_too),                             \
			BUS_TEST(carries_any_bytes_of_any_size),                             \
			BUS_TEST(keeps_the_order_of_each_thread),                            \
			BUS_TEST(may_leave_before_it_is_up),                                 \
			BUS_TEST(may_leave_and_join_at_any_speed),                           \
			BUS_TEST(may_leave_from_within),                                     \
			BUS_TEST(may_join_and_publish_from_within),                          \
			BUS_TEST(serves_thousands_of_channels),                              \
			BUS_TEST(refuses_more_than_its_queue_holds_and_loses_nothing_of_it), \
			BUS_TEST(is_connected_and_alive),                                    \
			BUS_TEST(its_end_ends_all_subscriptions),                            \
	}

static struct env local = { .ops = &bus_local }, redis = { .ops = &bus_redis };

static int use_local(void **state)
{
	*state = &local;
	return 0;
}

static int use_redis(void **state)
{
	redis.server = redis_server_start(NULL);
	*state = &redis;
	return 0;
}

static int stop_redis(void **state)
{
	(void)state;
	redis_server_stop(redis.server);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = BUS_TESTS;
	int failed = cmocka_run_group_tests_name("bus local", tests, use_local, NULL);
	failed += cmocka_run_group_tests_name("bus redis", tests, use_redis, stop_redis);
	return failed;
}
