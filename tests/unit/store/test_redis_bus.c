/* The bus over Redis between two replicas, and what happens when connections, the server or its data go. Each test
 * has a server of its own. */
#include "tests/unit/store/listener.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "service/metrics.h"
#include "store/redis_async.h"
#include "tests/unit/redis_server.h"

#define TTL_MS 2000
#define KEY_A "ptycast:replica:00000000000000aa"
#define KEY_B "ptycast:replica:00000000000000bb"

struct replica {
	struct bus *bus;
	unsigned ttl_ms; /* 0: TTL_MS */
	_Atomic unsigned resets;
};

struct env {
	struct redis_server *server;
	struct replica a, b;
};

static void count_reset(void *arg)
{
	struct replica *r = arg;
	atomic_fetch_add(&r->resets, 1);
}

static int try_open(const char *location, uint64_t id, struct replica *r, struct error *err)
{
	struct bus_params params = { .location = location,
				     .replica = id,
				     .ttl_ms = r->ttl_ms > 0 ? r->ttl_ms : TTL_MS,
				     .reset = count_reset,
				     .arg = r };
	return bus_redis.open(&params, &r->bus, err);
}

static void open_replica(struct env *env, uint64_t id, struct replica *r)
{
	struct error err = { 0 };
	if (try_open(redis_server_location(env->server), id, r, &err) != 0)
		fail_msg("%s", err.text);
}

static int start(void **state)
{
	struct env *env = calloc(1, sizeof(*env));
	env->server = redis_server_start(NULL);
	open_replica(env, 0xaa, &env->a);
	open_replica(env, 0xbb, &env->b);
	*state = env;
	return 0;
}

static void stop_env(struct env *env)
{
	bus_redis.close(env->a.bus);
	bus_redis.close(env->b.bus);
	env->a.bus = env->b.bus = NULL;
	redis_server_stop(env->server);
	env->server = NULL;
}

static int stop(void **state)
{
	struct env *env = *state;
	stop_env(env);
	listener_free_all();
	free(env);
	return 0;
}

static void hear(struct listener *l, struct replica *r, const char *channel)
{
	listener_start(l, &bus_redis, r->bus, channel);
}

static void end(struct listener *l)
{
	listener_leave(l);
	listener_end(l);
}

static void publish(struct replica *r, const char *channel, const char *text)
{
	assert_int_equal(say(&bus_redis, r->bus, channel, text), 0);
}

/* Looks, for await(). */

static bool is_connected(void *arg)
{
	struct replica *r = arg;
	return bus_redis.connected(r->bus);
}

static bool is_cut(void *arg)
{
	return !is_connected(arg);
}

static bool was_reset(void *arg)
{
	struct replica *r = arg;
	return atomic_load(&r->resets) > 0;
}

struct since {
	struct replica *replica;
	uint64_t us;
};

static bool is_alive_since(void *arg)
{
	struct since *s = arg;
	return bus_redis.alive_us(s->replica->bus) > s->us;
}

/* Until a sign of life that is sent from now on has arrived. */
static void await_alive(struct replica *r)
{
	struct since since = { r, uv_hrtime() / 1000 };
	await(is_alive_since, &since, "sign of life");
}

static void await_message(struct replica *from, struct listener *l, const char *channel)
{
	unsigned before = listener_messages(l);
	publish(from, channel, "again");
	listener_await_messages(l, before + 1);
}

/* --- opening --- */

static void assert_refused(struct env *env, const char *location, int code, const char *says)
{
	struct replica r = { 0 };
	struct error err = { 0 };
	(void)env;
	int rc = try_open(location, 1, &r, &err);
	if (rc != code || err.code != code || strstr(err.text, says) == NULL)
		fail_msg("%d instead of %d: %s", rc, code, err.text);
	assert_null(r.bus);
	assert_null(strstr(err.text, "s3cret"));
}

static void says_why_it_cannot_be_opened(void **state)
{
	struct env *env = *state;
	char at[128];
	uint16_t port = redis_server_port(env->server);
	const char *plain = redis_server_location(env->server);
	assert_refused(env, "//127.0.0.1:1", -ECONNREFUSED, "cannot connect: connection refused");
	assert_refused(env, "//[::1]:1", -ECONNREFUSED, "[::1]:1: cannot connect");
	assert_refused(env, "//no-such-host.invalid:1", -EHOSTUNREACH, "cannot resolve");
	assert_refused(env, "//s3cret@h", -EINVAL, "password is missing");
	snprintf(at, sizeof(at), "//:s3cret@127.0.0.1:%u", port);
	assert_refused(env, at, -EACCES, "login refused");
	snprintf(at, sizeof(at), "//u:s3cret@127.0.0.1:%u", port);
	assert_refused(env, at, -EACCES, "login refused: WRONGPASS");
	snprintf(at, sizeof(at), "//127.0.0.1:%u/99", port);
	assert_refused(env, at, -EIO, "login refused: ERR DB index is out of range");

	redis_server_do(env->server, "CONFIG SET maxmemory-policy allkeys-lru");
	assert_refused(env, plain, -EINVAL, "maxmemory-policy allkeys-lru");
	redis_server_do(env->server, "CONFIG SET maxmemory-policy noeviction");

	/* What the user may not do is said at once, not when it is needed. */
	static const struct {
		const char *rights, *says;
	} users[] = {
		{ "+@all -info &ptycast:*", "INFO refused: NOPERM" },
		{ "+@all -get &ptycast:*", "GET ptycast:generation refused: NOPERM" },
		{ "+@all -publish &ptycast:*", "PUBLISH ptycast:* refused: NOPERM" },
		{ "+@all -subscribe &ptycast:*", "SUBSCRIBE ptycast:* refused: NOPERM" },
		{ "+@all &other:*", "refused: NOPERM" },
	};
	for (size_t i = 0; i < sizeof(users) / sizeof(users[0]); i++) {
		redis_server_do(env->server, "ACL DELUSER u");
		char command[256];
		snprintf(command, sizeof(command),
			 "ACL SETUSER u on >s3cret ~ptycast:* resetchannels %s", users[i].rights);
		redis_server_do(env->server, command);
		snprintf(at, sizeof(at), "//u:s3cret@127.0.0.1:%u", port);
		assert_refused(env, at, -EACCES, users[i].says);
	}
	redis_server_do(env->server, "CONFIG SET requirepass s3cret");
	redis_server_login(env->server, "default", "s3cret");
	assert_refused(env, plain, -EACCES, "INFO refused: NOAUTH");
}

static void needs_no_more_rights_than_are_documented(void **state)
{
	struct env *env = *state;
	struct replica r = { 0 };
	struct error err = { 0 };
	char at[128];
	redis_server_do(env->server,
			"ACL SETUSER u on >p%%40s ~ptycast:* resetchannels &ptycast:* -@all "
			"+select +info +ping +get +set +del +pexpire +sadd +srem "
			"+publish +subscribe +unsubscribe");
	snprintf(at, sizeof(at), "//u:p%%2540s@127.0.0.1:%u/3", redis_server_port(env->server));
	if (try_open(at, 0xcc, &r, &err) != 0)
		fail_msg("%s", err.text);
	struct listener *l = listener_new(NULL, NULL);
	hear(l, &r, "x");
	listener_await_ups(l, 1);
	await_message(&r, l, "x");
	await_alive(&r);
	end(l);
	redis_server_do(env->server, "SELECT 3");
	assert_int_equal(redis_server_do(env->server, "EXISTS ptycast:replica:00000000000000cc"),
			 1);
	bus_redis.close(r.bus);
	assert_int_equal(redis_server_do(env->server, "DBSIZE"), 2); /* generation, replicas */
	redisReply *log = redis_server_command(env->server, "ACL LOG");
	assert_int_equal(log->elements, 0);
	freeReplyObject(log);
}

/* --- both well --- */

static void replicas_hear_each_other(void **state)
{
	struct env *env = *state;
	struct listener *at_a = listener_new(NULL, NULL);
	struct listener *at_b = listener_new(NULL, NULL);
	hear(at_a, &env->a, "x");
	hear(at_b, &env->b, "x");
	listener_await_ups(at_a, 1);
	listener_await_ups(at_b, 1);
	publish(&env->a, "x", "from a");
	listener_await_messages(at_a, 1);
	listener_await_messages(at_b, 1);
	publish(&env->b, "x", "from b");
	listener_await_messages(at_a, 2);
	listener_await_messages(at_b, 2);
	assert_string_equal((char *)at_a->last, "from b");
	end(at_a);
	end(at_b);
	assert_int_equal(env->a.resets + env->b.resets, 0);
}

static void gives_and_takes_back_its_sign_of_life(void **state)
{
	struct env *env = *state;
	struct replica c = { 0 };
	open_replica(env, 0xfedcba9876543210, &c);
	assert_true(bus_redis.alive_us(c.bus) > 0);
	for (unsigned i = 0; i < 3; i++) {
		long long ttl_ms = redis_server_do(env->server,
						   "PTTL ptycast:replica:fedcba9876543210");
		assert_true(ttl_ms > TTL_MS / 4 && ttl_ms <= TTL_MS);
		await_alive(&c);
	}
	assert_int_equal(redis_server_do(env->server, "SCARD ptycast:replicas"), 3);
	bus_redis.close(c.bus);
	assert_int_equal(redis_server_do(env->server, "EXISTS ptycast:replica:fedcba9876543210"),
			 0);
	/* Who sweeps has to see that it is gone. */
	assert_int_equal(redis_server_do(env->server, "SCARD ptycast:replicas"), 3);
}

static void its_end_sends_what_was_published_before(void **state)
{
	struct env *env = *state;
	enum { COUNT = 5000 };
	struct replica c = { 0 };
	struct listener *l = listener_new(NULL, NULL);
	open_replica(env, 0xcc, &c);
	hear(l, &env->b, "x");
	listener_await_ups(l, 1);
	for (unsigned i = 0; i < COUNT; i++)
		publish(&c, "x", "last words");
	bus_redis.close(c.bus);
	listener_await_messages(l, COUNT);
	end(l);
}

/* --- connections --- */

static void survives_the_loss_of_the_connection_that_listens(void **state)
{
	struct env *env = *state;
	struct listener *l = listener_new(NULL, NULL);
	struct listener *left = listener_new(NULL, NULL);
	struct listener *late = listener_new(NULL, NULL);
	hear(l, &env->a, "x");
	hear(left, &env->a, "y");
	listener_await_ups(l, 1);
	listener_await_ups(left, 1);
	int64_t reconnects = metric_get(METRIC_BUS_RECONNECTS);
	listener_leave(left);
	assert_int_equal(redis_server_do(env->server, "CLIENT KILL TYPE pubsub"), 1);
	hear(late, &env->a, "z");
	listener_await_downs(l, 1);
	listener_await_ups(l, 2);
	listener_await_ups(late, 1);
	await_message(&env->b, l, "x");
	await_message(&env->b, late, "z");
	await(is_connected, &env->a, "connected");
	await(is_connected, &env->b, "connected");
	assert_int_equal(metric_get(METRIC_BUS_RECONNECTS) - reconnects, 1);
	assert_int_equal(env->a.resets + env->b.resets, 0);
	listener_end(left);
	end(l);
	end(late);
}

static void survives_the_loss_of_the_connection_that_publishes(void **state)
{
	struct env *env = *state;
	struct listener *at_a = listener_new(NULL, NULL), *at_b = listener_new(NULL, NULL);
	hear(at_a, &env->a, "x");
	hear(at_b, &env->b, "x");
	listener_await_ups(at_a, 1);
	listener_await_ups(at_b, 1);
	assert_int_equal(redis_server_do(env->server, "CLIENT KILL TYPE normal"), 2);
	await(was_reset, &env->a, "reset");
	await(was_reset, &env->b, "reset");
	await_message(&env->b, at_a, "x");
	await_message(&env->a, at_b, "x");
	await_alive(&env->a);
	end(at_a);
	end(at_b);
	assert_int_equal(at_a->downs + at_b->downs, 0);
	assert_int_equal(atomic_load(&env->a.resets), 1);
}

/* Numbers in order, each at most once. */
struct stream {
	unsigned next;
	_Atomic bool broken;
};

static void check_stream(struct listener *l, enum bus_news news, const uint8_t *data, size_t size)
{
	struct stream *s = l->arg;
	char text[16] = "";
	if (news != BUS_MESSAGE)
		return;
	memcpy(text, data, size < 15 ? size : 15);
	unsigned n = (unsigned)strtoul(text, NULL, 10);
	if (n < s->next)
		atomic_store(&s->broken, true);
	s->next = n + 1;
}

static void goes_on_after_a_restart_in_the_middle_of_a_stream(void **state)
{
	struct env *env = *state;
	static struct stream stream; /* also when the test fails */
	memset(&stream, 0, sizeof(stream));
	struct listener *l = listener_new(check_stream, &stream);
	hear(l, &env->a, "x");
	listener_await_ups(l, 1);
	bool refused = false;
	char text[16];
	int64_t dropped = metric_get(METRIC_BUS_DROPPED_MESSAGES);
	for (unsigned i = 0; !listener_is_up(l) || listener_messages(l) < 4000; i++) {
		snprintf(text, sizeof(text), "%u", i);
		int rc = say(&bus_redis, env->b.bus, "x", text);
		refused |= rc == -ENOTCONN;
		assert_true(rc == 0 || rc == -ENOTCONN || rc == -EAGAIN);
		if (i == 2000) {
			listener_await_messages(l, 1);
			redis_server_kill(env->server);
			await(is_cut, &env->a, "cut");
			await(is_cut, &env->b, "cut");
		}
		if (i == 3000)
			redis_server_restart(env->server);
	}
	listener_await_downs(l, 1);
	listener_await_ups(l, 2);
	await(is_connected, &env->b, "connected");
	assert_true(listener_is_up(l));
	snprintf(text, sizeof(text), "%u", 100000000);
	publish(&env->b, "x", text);
	listener_await_messages(l, 4001);
	end(l);
	assert_int_equal(l->downs, 1);
	assert_true(refused);
	assert_true(metric_get(METRIC_BUS_DROPPED_MESSAGES) > dropped);
	assert_false(atomic_load(&stream.broken));
	await(was_reset, &env->a, "reset");
	await(was_reset, &env->b, "reset");
	await_alive(&env->a);
	await_alive(&env->b);
	assert_int_equal(redis_server_do(env->server, "EXISTS " KEY_A " " KEY_B), 2);
}

static void waits_for_a_server_that_loads_its_data(void **state)
{
	struct env *env = *state;
	/* So slowly that several PINGs meet it: it refuses them, which is no reason to leave. */
	static const char *const options[] = { "--save",
					       "900 1",
					       "--key-load-delay",
					       "300",
					       "--loading-process-events-interval-bytes",
					       "1024",
					       NULL };
	struct listener *l = listener_new(NULL, NULL);
	stop_env(env);
	env->server = redis_server_start(options);
	open_replica(env, 0xaa, &env->a);
	redis_server_do(env->server, "EVAL %s 0",
			"for i = 1, 4000 do redis.call('SET', i, string.rep('x', 20)) end");
	hear(l, &env->a, "x");
	listener_await_ups(l, 1);
	redis_server_terminate(env->server);
	listener_await_downs(l, 1);
	redis_server_restart(env->server); /* returns when it has loaded */
	await(was_reset, &env->a, "reset");
	await(is_connected, &env->a, "connected");
	await_message(&env->a, l, "x");
	await_alive(&env->a);
	end(l);
	assert_int_equal(l->downs, 1);
	assert_int_equal(atomic_load(&env->a.resets), 1);
	assert_int_equal(redis_server_do(env->server, "EXISTS 4000 ptycast:settling"), 2);
}

static void subscribes_to_thousands_of_channels_again(void **state)
{
	struct env *env = *state;
	enum { CHANNELS = 5000 };
	struct listener **all = calloc(CHANNELS, sizeof(struct listener *));
	char name[32];
	for (unsigned i = 0; i < CHANNELS; i++) {
		snprintf(name, sizeof(name), "channel:%u", i);
		all[i] = listener_new(NULL, NULL);
		hear(all[i], &env->a, name);
	}
	for (unsigned i = 0; i < CHANNELS; i++)
		listener_await_ups(all[i], 1);
	uint64_t start_us = uv_hrtime() / 1000;
	redis_server_do(env->server, "CLIENT KILL TYPE pubsub");
	for (unsigned i = 0; i < CHANNELS; i++)
		listener_await_ups(all[i], 2);
	assert_true(uv_hrtime() / 1000 - start_us < 5000000); /* some 50 ms, but for sanitizers */
	for (unsigned i = 0; i < CHANNELS; i += 499) {
		snprintf(name, sizeof(name), "channel:%u", i);
		await_message(&env->b, all[i], name);
	}
	for (unsigned i = 0; i < CHANNELS; i++)
		listener_leave(all[i]);
	for (unsigned i = 0; i < CHANNELS; i++)
		listener_end(all[i]);
	free(all);
}

static void is_cut_and_comes_back_when_it_listens_too_slowly(void **state)
{
	struct env *env = *state;
	const size_t size = 256 << 10;
	struct listener *l = listener_new(NULL, NULL);
	redis_server_do(env->server, "CONFIG SET client-output-buffer-limit %s", "pubsub 1mb 0 0");
	hear(l, &env->a, "x");
	listener_await_ups(l, 1);
	listener_hold(l, "x");
	/* Until the server has cut it: the sockets' buffers hold some megabytes. */
	unsigned sent = 0;
	for (bool listens = true; listens;) {
		assert_true(++sent < 1000);
		uint8_t *data = calloc(1, size);
		assert_int_equal(bus_redis.publish(env->b.bus, "x", data, size), 0);
		redisReply *clients = redis_server_command(env->server, "CLIENT LIST TYPE pubsub");
		listens = clients->len > 0;
		freeReplyObject(clients);
	}
	listener_release(l);
	listener_await_downs(l, 1);
	listener_await_ups(l, 2);
	assert_true(listener_messages(l) < sent + 1);
	await_message(&env->b, l, "x");
	end(l);
	assert_int_equal(env->a.resets, 0);
}

static void drops_a_server_that_stands_still_and_finds_it_again(void **state)
{
	struct env *env = *state;
	struct listener *l = listener_new(NULL, NULL);
	hear(l, &env->a, "x");
	listener_await_ups(l, 1);
	redis_server_freeze(env->server);
	uint64_t start_us = uv_hrtime() / 1000;
	listener_await_downs(l, 1);
	uint64_t took_us = uv_hrtime() / 1000 - start_us;
	assert_true(took_us > 2000000 && took_us < 10000000);
	await(is_cut, &env->a, "cut");
	await(is_cut, &env->b, "cut");
	assert_true(bus_redis.alive_us(env->a.bus) <= start_us);
	/* New connections are taken by the kernel, but nobody answers on them: not up by that. */
	struct listener *late = listener_new(NULL, NULL);
	hear(late, &env->a, "y");
	assert_int_equal(say(&bus_redis, env->b.bus, "x", "x"), -ENOTCONN);
	redis_server_thaw(env->server);
	listener_await_ups(l, 2);
	listener_await_ups(late, 1);
	await(is_connected, &env->b, "connected");
	await_message(&env->b, l, "x");
	await_alive(&env->a);
	await(was_reset, &env->a, "reset");
	end(l);
	end(late);
}

static void ends_quickly_while_the_server_is_gone(void **state)
{
	struct env *env = *state;
	struct listener *l = listener_new(NULL, NULL);
	struct listener *late = listener_new(NULL, NULL);
	hear(l, &env->a, "x");
	listener_await_ups(l, 1);
	redis_server_freeze(env->server);
	publish(&env->a, "x", "never sent");
	uint64_t start_us = uv_hrtime() / 1000;
	bus_redis.close(env->a.bus);                          /* connected, as far as it knows */
	assert_true(uv_hrtime() / 1000 - start_us < 2000000); /* 500 ms, but for sanitizers */
	listener_end(l);
	redis_server_thaw(env->server);
	redis_server_kill(env->server);
	await(is_cut, &env->b, "cut");
	hear(late, &env->b, "x");
	bus_redis.close(env->b.bus);
	listener_end(late);
	assert_int_equal(late->ups, 0);
	env->a.bus = env->b.bus = NULL;
}

static bool is_dead(void *arg)
{
	return redis_server_do(arg, "EXISTS ptycast:replica:00000000000000cc") == 0;
}

static void goes_on_after_it_stood_still_itself(void **state)
{
	struct env *env = *state;
	/* So that it stands still for longer than a server may be silent. */
	struct replica c = { .ttl_ms = REDIS_ASYNC_SILENCE_MS / 3 * 4 };
	struct listener *l = listener_new(NULL, NULL);
	open_replica(env, 0xcc, &c);
	hear(l, &c, "x");
	listener_await_ups(l, 1);
	listener_hold(l, "x");
	publish(&env->a, "x", "meanwhile");
	await(is_dead, env->server, "death");
	assert_int_equal(atomic_load(&c.resets), 0);
	listener_release(l);
	await(was_reset, &c, "reset"); /* others may have taken what was ours */
	await_alive(&c);
	assert_false(is_dead(env->server));
	listener_await_messages(l, 2);
	end(l);
	assert_int_equal(l->downs, 0);
	bus_redis.close(c.bus);
}

/* --- the server's data --- */

static void tells_all_replicas_that_records_were_lost(void **state)
{
	struct env *env = *state;
	struct listener *l = listener_new(NULL, NULL);
	hear(l, &env->a, "x");
	listener_await_ups(l, 1);
	redis_server_do(env->server, "FLUSHALL");
	await(was_reset, &env->a, "reset of a");
	await(was_reset, &env->b, "reset of b");
	await_alive(&env->a);
	await_alive(&env->b);
	assert_int_equal(redis_server_do(env->server,
					 "EXISTS ptycast:generation ptycast:settling " KEY_A
					 " " KEY_B),
			 4);
	assert_int_equal(redis_server_do(env->server, "SCARD ptycast:replicas"), 2);
	assert_true(redis_server_do(env->server, "PTTL ptycast:settling") > 0);
	assert_int_equal(atomic_load(&env->a.resets), 1);
	assert_int_equal(atomic_load(&env->b.resets), 1);
	end(l);
	assert_int_equal(l->downs, 0);
}

static void puts_a_generation_right_and_resets_once(void **state)
{
	struct env *env = *state;
	redisReply *before = redis_server_command(env->server, "GET ptycast:generation");
	assert_int_equal(before->len, 40);
	assert_int_equal(redis_server_do(env->server, "EXISTS ptycast:settling"), 0);
	bus_redis.close(env->b.bus);
	env->b.bus = NULL;
	redis_server_do(env->server, "SET ptycast:generation another");
	await(was_reset, &env->a, "reset");
	await_alive(&env->a);
	await_alive(&env->a);
	redisReply *after = redis_server_command(env->server, "GET ptycast:generation");
	assert_string_equal(after->str, before->str);
	assert_int_equal(redis_server_do(env->server, "EXISTS ptycast:settling"), 1);
	assert_int_equal(atomic_load(&env->a.resets), 1);
	freeReplyObject(before);
	freeReplyObject(after);
}

static void lives_on_a_full_server(void **state)
{
	struct env *env = *state;
	struct listener *l = listener_new(NULL, NULL);
	hear(l, &env->a, "x");
	listener_await_ups(l, 1);
	redis_server_do(env->server, "CONFIG SET maxmemory 1");
	redisReply *full = redis_server_command(env->server, "SET x y");
	assert_int_equal(full->type, REDIS_REPLY_ERROR);
	freeReplyObject(full);
	for (unsigned i = 0; i < 6; i++) /* longer than TTL_MS */
		await_alive(&env->a);
	assert_true(redis_server_do(env->server, "PTTL " KEY_A) > 0);
	await_message(&env->b, l, "x");
	assert_int_equal(atomic_load(&env->a.resets), 0);

	/* Gone, it cannot be set; and all is said to be lost, but once. */
	redis_server_do(env->server, "FLUSHALL");
	await(was_reset, &env->a, "reset");
	uint64_t dead_us = bus_redis.alive_us(env->a.bus);
	await_message(&env->b, l, "x");
	assert_int_equal(redis_server_do(env->server, "EXISTS " KEY_A), 0);
	assert_true(bus_redis.alive_us(env->a.bus) == dead_us);
	redis_server_do(env->server, "CONFIG SET maxmemory 0");
	await_alive(&env->a);
	assert_int_equal(redis_server_do(env->server, "EXISTS " KEY_A), 1);
	assert_int_equal(atomic_load(&env->a.resets), 1);
	end(l);
}

static void leaves_a_server_that_became_a_replica(void **state)
{
	struct env *env = *state;
	redis_server_do(env->server, "REPLICAOF 127.0.0.1 1");
	await(is_cut, &env->a, "cut");
	redis_server_do(env->server, "REPLICAOF NO ONE");
	await(is_connected, &env->a, "connected");
	await(was_reset, &env->a, "reset");
	await_alive(&env->a);
}

#define REDIS_TEST(fn) cmocka_unit_test_setup_teardown(fn, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		REDIS_TEST(says_why_it_cannot_be_opened),
		REDIS_TEST(needs_no_more_rights_than_are_documented),
		REDIS_TEST(replicas_hear_each_other),
		REDIS_TEST(gives_and_takes_back_its_sign_of_life),
		REDIS_TEST(its_end_sends_what_was_published_before),
		REDIS_TEST(survives_the_loss_of_the_connection_that_listens),
		REDIS_TEST(survives_the_loss_of_the_connection_that_publishes),
		REDIS_TEST(goes_on_after_a_restart_in_the_middle_of_a_stream),
		REDIS_TEST(waits_for_a_server_that_loads_its_data),
		REDIS_TEST(subscribes_to_thousands_of_channels_again),
		REDIS_TEST(is_cut_and_comes_back_when_it_listens_too_slowly),
		REDIS_TEST(drops_a_server_that_stands_still_and_finds_it_again),
		REDIS_TEST(goes_on_after_it_stood_still_itself),
		REDIS_TEST(ends_quickly_while_the_server_is_gone),
		REDIS_TEST(tells_all_replicas_that_records_were_lost),
		REDIS_TEST(puts_a_generation_right_and_resets_once),
		REDIS_TEST(lives_on_a_full_server),
		REDIS_TEST(leaves_a_server_that_became_a_replica),
	};
	return cmocka_run_group_tests_name("bus over redis", tests, NULL, NULL);
}
