/* test_http_head.c -- agent/http_head.h: what is a request head, and what is said in it. */
#include "tests/unit/wire/test.h"

#include "tests/fuzz/fuzz_agent_http.c" /* the fuzz target itself, and with it http_head.c */

static char *text;

/* Parses a copy, which lives until the next call. */
static int parse(const char *head, struct http_head *ret)
{
	free(text);
	text = exact_copy(head, strlen(head));
	return http_head_parse(text, strlen(head), ret);
}

static int free_text(void **state)
{
	(void)state;
	free(text);
	text = NULL;
	return 0;
}

static void finds_the_end_at_the_empty_line(void **state)
{
	(void)state;
	static const char whole[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\nrest\r\n\r\n";
	size_t end = sizeof("GET / HTTP/1.1\r\nHost: x\r\n\r\n") - 1;
	for (size_t size = 0; size < sizeof(whole); size++)
		assert_int_equal(http_head_find_end(whole, size), size < end ? 0 : end);
}

static void reads_an_upgrade_request(void **state)
{
	(void)state;
	struct http_head head;
	assert_int_equal(parse("GET /ws/client?v=2&x=y HTTP/1.1\r\n"
			       "HOST: sandbox.test:8000\r\n"
			       "connection: keep-alive ,\tUPGRADE \r\n"
			       "Upgrade: h2c\r\nUpgrade: WebSocket\r\n"
			       "sec-websocket-version: 8, 13\r\n"
			       "Sec-WebSocket-Key:abc==  \r\n"
			       "Origin: https://sandbox.test\r\n"
			       "Ptycast-Token:\t s3cr3t \r\n"
			       "X-Empty:\r\n\r\n",
			       &head),
			 0);
	assert_string_equal(head.method, "GET");
	assert_string_equal(head.path, "/ws/client");
	assert_string_equal(head.query, "v=2&x=y");
	assert_string_equal(head.host, "sandbox.test:8000");
	assert_string_equal(head.websocket_key, "abc==");
	assert_string_equal(head.origin, "https://sandbox.test");
	assert_string_equal(head.token, "s3cr3t");
	assert_true(head.asks_upgrade && head.asks_websocket && head.version_13);
}

static void what_is_not_there_is_not_asked_for(void **state)
{
	(void)state;
	struct http_head head;
	assert_int_equal(
		parse("POST http://host/x?y HTTP/1.1\r\nHost:\r\nConnection: upgraded, x upgrade\r\n"
		      "Upgrade: websockets\r\nSec-WebSocket-Version: 130\r\n\r\n",
		      &head),
		0);
	assert_string_equal(head.path, "/x");
	assert_string_equal(head.query, "y");
	assert_string_equal(head.host, "");
	assert_null(head.origin);
	assert_null(head.token);
	assert_null(head.websocket_key);
	assert_false(head.asks_upgrade || head.asks_websocket || head.version_13);
	assert_int_equal(parse("GET http://host HTTP/1.0\r\n\r\n", &head), 0);
	assert_string_equal(head.path, "/");
	assert_string_equal(head.query, "");
	assert_null(head.host);
}

static void refuses_what_is_not_a_head(void **state)
{
	(void)state;
	static const char *const heads[] = {
		"\r\n\r\n",
		"GET / HTTP/1.1\r\n\r\n",                       /* no Host */
		"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", /* two */
		"GET / HTTP/1.1\r\nHost: x\r\nOrigin: a\r\nOrigin: a\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\nPtycast-Token: a\r\nPtycast-Token: a\r\n\r\n",
		"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET / HTTP/1.1 \r\nHost: x\r\n\r\n",
		"GET / HTTP/2\r\nHost: x\r\n\r\n",
		"GET / http/1.1\r\nHost: x\r\n\r\n",
		"GET /\r\nHost: x\r\n\r\n",
		" / HTTP/1.1\r\nHost: x\r\n\r\n",
		"G\"T / HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\n: no name\r\n\r\n",
		"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
		"GET / HTTP/1.1\nHost: x\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\rY: z\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\x01\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\x7f\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\n",
		"",
	};
	struct http_head head;
	for (size_t i = 0; i < COUNT_OF(heads); i++) {
		if (parse(heads[i], &head) != -EBADMSG)
			fail_msg("taken: %s", heads[i]);
	}
	char nul[] = "GET / HTTP/1.1\r\nHost: x\0y\r\n\r\n";
	assert_int_equal(http_head_parse(nul, sizeof(nul) - 1, &head), -EBADMSG);
}

static void finds_and_decodes_parameters(void **state)
{
	(void)state;
	static const struct {
		const char *query, *value; /* of "token"; NULL: not there */
	} cases[] = {
		{ "token=abc", "abc" },
		{ "processId=1&token=a%3D%3d+b", "a== b" },
		{ "a&b=&token=&x", "" },
		{ "token", "" },
		{ "t%6Fken=x", "x" },
		{ "token=first&token=second", "first" },
		{ "token=%zz&token=second", "second" }, /* what is not well-formed does not count */
		{ "token=a;b&token=second", "second" },
		{ "token=a%3Bb", "a;b" },
		{ "token=%", NULL },
		{ "token=%4", NULL },
		{ "token=%00", NULL },
		{ "tokens=x&atoken=y&Token=z", NULL },
		{ "", NULL },
		{ "token=a=b", "a=b" },
		{ "token=0123456789abcde", "0123456789abcde" },
		{ "token=0123456789abcdef", NULL }, /* one too long for us */
	};
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		char value[16];
		bool found = http_query_find(cases[i].query, "token", value, sizeof(value));
		assert_int_equal(found, cases[i].value != NULL);
		if (found)
			assert_string_equal(value, cases[i].value);
	}
}

static void compares_origin_and_host(void **state)
{
	(void)state;
	assert_true(http_origin_is_host("http://a.test", "a.test"));
	assert_true(http_origin_is_host("https://A.test:81/path?x#y", "a.TEST:81"));
	assert_true(http_origin_is_host("http://user:pw@a.test", "a.test"));
	assert_true(http_origin_is_host("http://[::1]:80", "[::1]:80"));
	assert_false(http_origin_is_host("http://a.test", "b.test"));
	assert_false(http_origin_is_host("http://a.test:81", "a.test"));
	assert_false(http_origin_is_host("http://a.test", "a.test:80"));
	assert_false(http_origin_is_host("http://a.test.evil", "a.test"));
	assert_false(http_origin_is_host("null", "null"));
	assert_false(http_origin_is_host("", ""));
	assert_false(http_origin_is_host("http://a.test", NULL));
}

static void replays_its_corpus(void **state)
{
	(void)state;
	replay_corpus("agent_http", LLVMFuzzerTestOneInput);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(finds_the_end_at_the_empty_line),
		cmocka_unit_test(reads_an_upgrade_request),
		cmocka_unit_test(what_is_not_there_is_not_asked_for),
		cmocka_unit_test(refuses_what_is_not_a_head),
		cmocka_unit_test(finds_and_decodes_parameters),
		cmocka_unit_test(compares_origin_and_host),
		cmocka_unit_test(replays_its_corpus),
	};
	return cmocka_run_group_tests(tests, NULL, free_text);
}
