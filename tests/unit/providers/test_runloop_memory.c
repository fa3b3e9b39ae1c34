/* What is remembered of devboxes, and memos. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/runloop_private.h"

#define API "https://api.runloop.ai"

static struct runloop_known known_of(unsigned number)
{
	struct runloop_known k = { .port = (uint16_t)number, .boot_ms = number, .pid = number };
	snprintf(k.token, sizeof(k.token), "token-%u", number);
	return k;
}

static struct runloop_key key_of(const struct runloop_memory *m, unsigned number)
{
	char devbox[32];
	struct runloop_key key;
	snprintf(devbox, sizeof(devbox), "dbx_%u", number);
	runloop_memory_key(m, API, devbox, "key", &key);
	return key;
}

static bool knows(struct runloop_memory *m, unsigned number)
{
	struct runloop_key key = key_of(m, number);
	struct runloop_known k;
	if (!runloop_memory_get(m, &key, 1, &k))
		return false;
	assert_int_equal(k.port, number);
	return true;
}

static void put(struct runloop_memory *m, unsigned number)
{
	struct runloop_key key = key_of(m, number);
	struct runloop_known k = known_of(number);
	runloop_memory_put(m, &key, 1, &k);
}

static void remembers_until_it_is_told_to_forget(void **state)
{
	(void)state;
	struct runloop_memory *m = runloop_memory_create(8);
	struct runloop_key key = key_of(m, 1);
	struct runloop_known k;
	assert_false(knows(m, 1));
	put(m, 1);
	assert_true(runloop_memory_get(m, &key, 1, &k));
	assert_string_equal(k.token, "token-1");
	k.port = 77;
	runloop_memory_put(m, &key, 1, &k);
	assert_true(runloop_memory_get(m, &key, 1, &k));
	assert_int_equal(k.port, 77);
	runloop_memory_forget(m, &key);
	runloop_memory_forget(m, &key);
	assert_false(knows(m, 1));
	runloop_memory_destroy(m);
}

static void another_api_key_address_or_devbox_knows_nothing(void **state)
{
	(void)state;
	static const char *const others[][3] = { { API, "dbx_1", "kez" },
						 { API, "dbx_1", "key2" },
						 { API, "dbx_1k", "ey" },
						 { API "d", "bx_1", "key" },
						 { API "x", "dbx_1", "key" } };
	struct runloop_memory *m = runloop_memory_create(8), *other = runloop_memory_create(8);
	struct runloop_key key, first = key_of(m, 1);
	struct runloop_known k;
	put(m, 1);
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		runloop_memory_key(m, others[i][0], others[i][1], others[i][2], &key);
		assert_false(runloop_memory_get(m, &key, 1, &k));
	}
	/* The hash is keyed: in another process it is another. */
	runloop_memory_key(other, API, "dbx_1", "key", &key);
	assert_memory_not_equal(&key, &first, sizeof(key));
	runloop_memory_destroy(m);
	runloop_memory_destroy(other);
	runloop_memory_destroy(NULL);
}

static void the_one_not_used_for_longest_goes_first(void **state)
{
	(void)state;
	struct runloop_memory *m = runloop_memory_create(3);
	for (unsigned i = 1; i <= 3; i++)
		put(m, i);
	assert_true(knows(m, 1));
	put(m, 4);
	assert_false(knows(m, 2));
	put(m, 3); /* is there: nobody goes */
	assert_true(knows(m, 1));
	assert_true(knows(m, 4));
	put(m, 5);
	assert_false(knows(m, 3));
	for (unsigned i = 100; i < 5000; i++)
		put(m, i);
	assert_false(knows(m, 4));
	assert_true(knows(m, 4999));
	assert_true(knows(m, 4997));
	assert_false(knows(m, 4996));
	runloop_memory_destroy(m);
}

static void an_entry_is_good_for_as_long_as_the_api_confirms_it(void **state)
{
	(void)state;
	struct runloop_memory *m = runloop_memory_create(8);
	struct runloop_key key = key_of(m, 1);
	struct runloop_known k = known_of(1);
	uint64_t now = 1000;
	runloop_memory_put(m, &key, now, &k);
	assert_true(runloop_memory_get(m, &key, now + RUNLOOP_MEMORY_US, &k));
	assert_true(runloop_memory_get(m, &key, 0, &k)); /* of a thread that looked earlier */
	runloop_memory_confirm(m, &key, now + RUNLOOP_MEMORY_US);
	assert_true(runloop_memory_get(m, &key, now + 2 * RUNLOOP_MEMORY_US, &k));
	assert_false(runloop_memory_get(m, &key, now + 2 * RUNLOOP_MEMORY_US + 1, &k));
	assert_false(runloop_memory_get(m, &key, now, &k));
	runloop_memory_confirm(m, &key, now);
	assert_false(runloop_memory_get(m, &key, now, &k));
	runloop_memory_destroy(m);
}

static void *use(void *arg)
{
	struct runloop_memory *m = arg;
	for (unsigned i = 0; i < 20000; i++) {
		unsigned number = (i * 2654435761u >> 8) % 64;
		struct runloop_key key = key_of(m, number);
		if (i % 3 == 0)
			put(m, number);
		else if (i % 7 == 0)
			runloop_memory_forget(m, &key);
		else
			(void)knows(m, number);
	}
	return NULL;
}

static void is_for_many_threads(void **state)
{
	(void)state;
	struct runloop_memory *m = runloop_memory_create(32);
	pthread_t threads[4];
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, use, m), 0);
	for (size_t i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	runloop_memory_destroy(m);
}

static void a_memo_comes_back_as_it_was(void **state)
{
	(void)state;
	const struct runloop_memo memos[] = {
		{ .kind = RUNLOOP_KIND_AGENT,
		  .devbox = "dbx_1",
		  .boot_ms = 1790000009000,
		  .port = 65535,
		  .pid = 1 },
		{ .kind = RUNLOOP_KIND_TUNNEL,
		  .devbox = "dbx_2",
		  .boot_ms = 1,
		  .port = 8000,
		  .execution = "0199-uuid" },
		{ .kind = RUNLOOP_KIND_NATIVE,
		  .devbox = "dbx_3",
		  .pty_url = "https://13-k.tunnel.runloop.ai",
		  .token = "t0k\"",
		  .name = "ptycast-1",
		  .cols = 1000,
		  .rows = 1 },
	};
	for (size_t i = 0; i < sizeof(memos) / sizeof(memos[0]); i++) {
		struct runloop_memo m;
		char *text = runloop_memo_write(&memos[i]);
		assert_int_equal(runloop_memo_read(text, &m, NULL), 0);
		assert_int_equal(m.kind, memos[i].kind);
		assert_true(m.boot_ms == memos[i].boot_ms && m.pid == memos[i].pid);
		assert_string_equal(m.devbox, memos[i].devbox);
		assert_int_equal(m.port, memos[i].port);
		assert_string_equal(m.execution, memos[i].execution);
		assert_string_equal(m.pty_url, memos[i].pty_url);
		assert_string_equal(m.token, memos[i].token);
		assert_string_equal(m.name, memos[i].name);
		assert_true(m.cols == memos[i].cols && m.rows == memos[i].rows);
		free(text);
	}
}

static void refuses_a_memo_of_another_kind(void **state)
{
	(void)state;
	static const char *const texts[] = { "",
					     "{}",
					     "[]",
					     "{\"kind\":\"x\"}",
					     "{\"kind\":1}",
					     "{\"kind\":\"agent\"}",
					     "{\"kind\":\"agent\",\"devbox\":\"a/b\"}" };
	struct runloop_memo m;
	struct error err = { 0 };
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		assert_int_equal(runloop_memo_read(texts[i], &m, &err), -EBADMSG);
	assert_int_equal(runloop_memo_read(NULL, &m, &err), -EBADMSG);
}

static void an_endpoint_has_the_token_for_the_gateway(void **state)
{
	(void)state;
	const struct runloop_memo memo = { .kind = RUNLOOP_KIND_AGENT };
	struct runloop_endpoint from = { .transport = "agent",
					 .base = "wss://x",
					 .path = "/ws/client?v=2",
					 .token = "control",
					 .shell = "s1",
					 .instance = 5,
					 .tunnel_token = "t0k",
					 .memo = &memo };
	struct endpoint e;
	assert_int_equal(runloop_endpoint_make(&from, &e, NULL), 0);
	assert_string_equal(e.url, "wss://x/ws/client?v=2");
	assert_int_equal(e.headers_count, 1);
	assert_string_equal(e.headers[0].name, "x-runloop-tunnel-authorization:");
	assert_string_equal(e.headers[0].value, "Bearer t0k");
	endpoint_fini(&e);
	from.bearer = true;
	assert_int_equal(runloop_endpoint_make(&from, &e, NULL), 0);
	assert_int_equal(e.headers_count, 2);
	assert_string_equal(e.headers[1].name, "authorization:");
	endpoint_fini(&e);
	from.tunnel_token = "";
	assert_int_equal(runloop_endpoint_make(&from, &e, NULL), 0);
	assert_int_equal(e.headers_count, 0);
	endpoint_fini(&e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(remembers_until_it_is_told_to_forget),
		cmocka_unit_test(another_api_key_address_or_devbox_knows_nothing),
		cmocka_unit_test(the_one_not_used_for_longest_goes_first),
		cmocka_unit_test(an_entry_is_good_for_as_long_as_the_api_confirms_it),
		cmocka_unit_test(is_for_many_threads),
		cmocka_unit_test(a_memo_comes_back_as_it_was),
		cmocka_unit_test(refuses_a_memo_of_another_kind),
		cmocka_unit_test(an_endpoint_has_the_token_for_the_gateway),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
