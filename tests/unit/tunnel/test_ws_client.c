/* test_ws_client.c -- tunnel/ws_client.h: URLs, and the addresses of a name, one after the other. Names below
 * .test are resolved here. */
#include "tests/unit/wire/test.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/tunnel/far.h"
#include "tunnel/ws_client.h"

#define HOLE "127.0.0.3" /* what comes to it is not answered */

static const char *const *resolved; /* the addresses of every name below .test; NULL at their end */

/* In place of libc's, for libuv's threads. */
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
		struct addrinfo **ret)
{
	int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
	*(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
	size_t size = node != NULL ? strlen(node) : 0;
	if (size < 5 || strcmp(node + size - 5, ".test") != 0)
		return real(node, service, hints, ret);
	if (resolved[0] == NULL)
		return EAI_NONAME;
	struct addrinfo **end = ret,
			numeric = { .ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM };
	for (size_t i = 0; resolved[i] != NULL; i++) {
		int rc = real(resolved[i], service, &numeric, end);
		if (rc != 0)
			return rc;
		end = &(*end)->ai_next;
	}
	return 0;
}

struct bench {
	struct far_loop loop;
	struct far far;
	struct ws_client *client;
	unsigned connected_count, ended_count;
	enum ws_client_end end;
	unsigned code;
	char text[128];
};

static void on_connected(void *arg)
{
	((struct bench *)arg)->connected_count++;
}

static void on_received(void *arg, const uint8_t *data, size_t size, bool first, bool final)
{
	(void)arg;
	(void)data;
	(void)size;
	(void)first;
	(void) final;
}

static void on_drained(void *arg)
{
	(void)arg;
}

static void on_ended(void *arg, enum ws_client_end end, unsigned code, const char *text)
{
	struct bench *b = arg;
	b->client = NULL;
	b->ended_count++;
	b->end = end;
	b->code = code;
	snprintf(b->text, sizeof(b->text), "%s", text);
}

static const struct ws_client_events events = {
	.connected = on_connected,
	.received = on_received,
	.drained = on_drained,
	.ended = on_ended,
};

static bool is_decided(void *arg)
{
	const struct bench *b = arg;
	return b->connected_count + b->ended_count > 0;
}

static void start_client(struct bench *b, const char *host, uint16_t port)
{
	char url[128];
	snprintf(url, sizeof(url), "ws://%s:%u/", host, port);
	struct ws_client_params params = {
		.uv = &b->loop.uv, .lws = b->loop.lws, .url = url, .events = &events, .arg = b
	};
	struct error err = { 0 };
	b->connected_count = b->ended_count = 0;
	uv_update_time(&b->loop.uv);
	assert_int_equal(ws_client_create(&params, &b->client, &err), 0);
	assert_false(is_decided(b));
}

static void setup(struct bench *b, const char *address)
{
	*b = (struct bench){ 0 };
	far_loop_init(&b->loop);
	far_start(&b->far, &b->loop, address, 0);
}

static void teardown(struct bench *b)
{
	ws_client_destroy(b->client, 0);
	far_stop(&b->far);
	far_loop_fini(&b->loop);
}

static bool has_v6(void)
{
	struct sockaddr_in6 name = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	int fd = socket(AF_INET6, SOCK_STREAM, 0);
	bool has = fd >= 0 && bind(fd, (struct sockaddr *)&name, sizeof(name)) == 0;
	if (fd >= 0)
		close(fd);
	return has;
}

/* Listens at HOLE and that port with no room for one more, so that the kernel answers nobody. */
static void dig_hole(uint16_t port, int ret[2])
{
	struct sockaddr_in name = { .sin_family = AF_INET, .sin_port = htons(port) };
	inet_pton(AF_INET, HOLE, &name.sin_addr);
	for (int i = 0; i < 2; i++)
		ret[i] = socket(AF_INET, SOCK_STREAM, 0);
	int on = 1;
	setsockopt(ret[0], SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	assert_int_equal(bind(ret[0], (struct sockaddr *)&name, sizeof(name)), 0);
	assert_int_equal(listen(ret[0], 0), 0);
	assert_int_equal(connect(ret[1], (struct sockaddr *)&name, sizeof(name)), 0);
}

static void fill_hole(const int hole[2])
{
	close(hole[0]);
	close(hole[1]);
}

static void urls_are_split(void **state)
{
	(void)state;
	static const struct {
		const char *url;
		bool tls;
		const char *host;
		uint16_t port;
		const char *path;
	} good[] = {
		{ "ws://host", false, "host", 80, "/" },
		{ "wss://host", true, "host", 443, "/" },
		{ "ws://127.0.0.1:8000/ws/client?v=2", false, "127.0.0.1", 8000, "/ws/client?v=2" },
		{ "wss://[::1]:65535/", true, "::1", 65535, "/" },
		{ "ws://[fe80::1]", false, "fe80::1", 80, "/" },
	};
	struct ws_url u;
	for (size_t i = 0; i < COUNT_OF(good); i++) {
		assert_int_equal(ws_url_parse(good[i].url, &u), 0);
		assert_int_equal(u.tls, good[i].tls);
		assert_string_equal(u.host, good[i].host);
		assert_int_equal(u.port, good[i].port);
		assert_string_equal(u.path, good[i].path);
	}
	static const char *const bad[] = { "",
					   "http://host/",
					   "ws://",
					   "ws:///x",
					   "ws://host:/x",
					   "ws://host:0/x",
					   "ws://host:65536/x",
					   "ws://host:80x/",
					   "ws://u@host/",
					   "ws://[::1/",
					   "ws://[::1]x/",
					   "ws://host?x",
					   "ws://host/a b",
					   "ws://host/a\r\nb",
					   "ws://host/#x" };
	for (size_t i = 0; i < COUNT_OF(bad); i++)
		if (ws_url_parse(bad[i], &u) != -EINVAL)
			fail_msg("taken: %s", bad[i]);
}

static void takes_the_first_address_that_answers(void **state)
{
	(void)state;
	static const char *const lists[][5] = {
		{ "127.0.0.1", NULL },
		{ "::1", "127.0.0.1", NULL },
		{ "127.0.0.2", "127.0.0.1", NULL },
		{ "127.0.0.2", "::1", "127.0.0.4", "127.0.0.1", NULL },
		{ "127.0.0.1", "::1", NULL },
	};
	for (size_t i = 0; i < COUNT_OF(lists); i++) {
		struct bench b;
		setup(&b, "127.0.0.1");
		resolved = lists[i];
		start_client(&b, "far.test", b.far.port);
		far_run_until(&b.loop, is_decided, &b);
		assert_int_equal(b.connected_count, 1);
		assert_int_equal(b.far.conns_count, 1);
		assert_non_null(strcasestr(b.far.head, "\r\nHost: far.test"));
		teardown(&b);
		assert_int_equal(b.ended_count, 0);
	}
}

static void takes_version_6_where_only_that_answers(void **state)
{
	(void)state;
	if (!has_v6())
		skip();
	static const char *const lists[][3] = { { "127.0.0.1", "::1", NULL },
						{ "::1", "127.0.0.1", NULL } };
	struct bench b;
	for (size_t i = 0; i < COUNT_OF(lists); i++) {
		setup(&b, "::1");
		resolved = lists[i];
		start_client(&b, "far.test", b.far.port);
		far_run_until(&b.loop, is_decided, &b);
		assert_int_equal(b.connected_count, 1);
		teardown(&b);
	}
	setup(&b, "::1");
	start_client(&b, "[::1]", b.far.port);
	far_run_until(&b.loop, is_decided, &b);
	assert_int_equal(b.connected_count, 1);
	teardown(&b);
}

static void an_address_that_does_not_answer_has_its_share_of_the_time(void **state)
{
	(void)state;
	static const char *const list[] = { HOLE, "127.0.0.1", NULL };
	struct bench b;
	int hole[2];
	setup(&b, "127.0.0.1");
	dig_hole(b.far.port, hole);
	resolved = list;
	uint64_t before_ms = uv_now(&b.loop.uv);
	start_client(&b, "far.test", b.far.port);
	far_run_until(&b.loop, is_decided, &b);
	assert_int_equal(b.connected_count, 1);
	uint64_t took_ms = uv_now(&b.loop.uv) - before_ms;
	assert_in_range(took_ms, 1900, 9000);
	fill_hole(hole);
	teardown(&b);
}

static void may_be_destroyed_at_any_time(void **state)
{
	(void)state;
	static const char *const lists[][4] = { { HOLE, "127.0.0.2", "127.0.0.1", NULL },
						{ "127.0.0.2", HOLE, "127.0.0.1", NULL } };
	for (size_t i = 0; i < COUNT_OF(lists); i++) {
		for (unsigned ms = 0; ms < 20; ms += ms < 5 ? 1 : 5) {
			struct bench b;
			int hole[2];
			setup(&b, "127.0.0.1");
			dig_hole(b.far.port, hole);
			resolved = lists[i];
			start_client(&b, "far.test", b.far.port);
			if (ms > 0)
				far_run_for(&b.loop, ms);
			ws_client_destroy(b.client, ms % 2 ? 1000 : 0);
			b.client = NULL;
			far_run_for(&b.loop, 20);
			assert_false(is_decided(&b));
			fill_hole(hole);
			teardown(&b);
		}
	}
	/* After one attempt was given up. */
	struct bench b;
	int hole[2];
	static const char *const twice[] = { HOLE, HOLE, NULL };
	setup(&b, "127.0.0.1");
	dig_hole(b.far.port, hole);
	resolved = twice;
	start_client(&b, "far.test", b.far.port);
	far_run_for(&b.loop, 2100);
	assert_false(is_decided(&b));
	fill_hole(hole);
	teardown(&b);
}

static void nobody_is_there_when_that_is_true_of_all(void **state)
{
	(void)state;
	static const char *const lists[][4] = { { "127.0.0.2", "127.0.0.4", NULL },
						{ "::1", "127.0.0.2", NULL },
						{ "127.0.0.2", "::1", NULL } };
	struct bench b;
	for (size_t i = 0; i < COUNT_OF(lists); i++) {
		setup(&b, "127.0.0.1");
		resolved = lists[i];
		start_client(&b, "far.test", b.far.port);
		far_run_until(&b.loop, is_decided, &b);
		assert_int_equal(b.ended_count, 1);
		if (b.end != WS_CLIENT_NOBODY)
			fail_msg("list %zu: %d %s", i, (int)b.end, b.text);
		assert_int_equal(b.far.conns_count, 0);
		teardown(&b);
	}
	setup(&b, "127.0.0.1");
	start_client(&b, "127.0.0.2", b.far.port);
	far_run_until(&b.loop, is_decided, &b);
	assert_int_equal(b.end, WS_CLIENT_NOBODY);
	teardown(&b);
}

static void a_name_without_an_address_is_a_failure(void **state)
{
	(void)state;
	static const char *const none[] = { NULL };
	struct bench b;
	setup(&b, "127.0.0.1");
	resolved = none;
	start_client(&b, "far.test", b.far.port);
	far_run_until(&b.loop, is_decided, &b);
	assert_int_equal(b.end, WS_CLIENT_FAILED);
	assert_true(b.text[0] != '\0');
	teardown(&b);
}

static void who_refuses_has_the_last_word(void **state)
{
	(void)state;
	static const char *const list[] = { "127.0.0.1", "127.0.0.2", NULL };
	struct bench b;
	struct far second;
	setup(&b, "127.0.0.1");
	far_start(&second, &b.loop, "127.0.0.2", b.far.port);
	b.far.status = 503;
	resolved = list;
	start_client(&b, "far.test", b.far.port);
	far_run_until(&b.loop, is_decided, &b);
	assert_int_equal(b.ended_count, 1);
	assert_int_equal(b.end, WS_CLIENT_REFUSED);
	assert_int_equal(b.code, 503);
	far_run_for(&b.loop, 50);
	assert_int_equal(second.conns_count, 0);
	far_stop(&second);
	teardown(&b);
}

static void who_is_reached_may_take_its_time(void **state)
{
	(void)state;
	static const char *const list[] = { "127.0.0.1", "127.0.0.2", NULL };
	struct bench b;
	struct far second;
	setup(&b, "127.0.0.1");
	far_start(&second, &b.loop, "127.0.0.2", b.far.port);
	b.far.answer_ms = 2500; /* longer than the share of an address */
	resolved = list;
	start_client(&b, "far.test", b.far.port);
	far_run_until(&b.loop, is_decided, &b);
	assert_int_equal(b.connected_count, 1);
	assert_int_equal(b.far.conns_count, 1);
	assert_int_equal(second.conns_count, 0);
	far_stop(&second);
	teardown(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(urls_are_split),
		cmocka_unit_test(takes_the_first_address_that_answers),
		cmocka_unit_test(takes_version_6_where_only_that_answers),
		cmocka_unit_test(an_address_that_does_not_answer_has_its_share_of_the_time),
		cmocka_unit_test(may_be_destroyed_at_any_time),
		cmocka_unit_test(nobody_is_there_when_that_is_true_of_all),
		cmocka_unit_test(a_name_without_an_address_is_a_failure),
		cmocka_unit_test(who_refuses_has_the_last_word),
		cmocka_unit_test(who_is_reached_may_take_its_time),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
