/* Host and Origin: whose they are. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "service/origin.h"

static void finds_an_item_in_a_comma_list(void **state)
{
	(void)state;
	assert_true(list_has("a,b, c ", "a"));
	assert_true(list_has("a,b, c ", "c"));
	assert_true(list_has("keep-alive, Upgrade", "upgrade"));
	assert_false(list_has("a,b,c", "d"));
	assert_false(list_has("abc", "ab"));
	assert_false(list_has("a,,b", ""));
	assert_false(list_has("", "a"));
	assert_false(list_has(NULL, "a"));
}

static void a_loopback_listener_knows_its_own_names(void **state)
{
	(void)state;
	assert_true(host_is_local("localhost", NULL));
	assert_true(host_is_local("LOCALHOST:8080", NULL));
	assert_true(host_is_local("127.0.0.1:8080", NULL));
	assert_true(host_is_local("127.8.9.1", NULL));
	assert_true(host_is_local("[::1]:8080", NULL));
	assert_true(host_is_local("[::1]", NULL));
	assert_true(host_is_local("dev.example", "dev.example"));
	assert_true(host_is_local("dev.example:8080", "x, dev.example"));
}

static void foreign_names_are_foreign(void **state)
{
	(void)state;
	static const char *const hosts[] = { "evil.example",
					     "127.0.0.1.evil.example",
					     "localhost.evil.example",
					     "evil.example:127",
					     "128.0.0.1",
					     "[::2]",
					     "",
					     ":8080",
					     "localhost:",
					     "localhost:x",
					     "localhost:123456",
					     "localhost:80@evil",
					     "[::1",
					     "[::1]x",
					     "127.1",
					     "0.0.0.0" };
	for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++)
		assert_false(host_is_local(hosts[i], "dev.example"));
}

static void an_origin_is_compared_by_name_and_port(void **state)
{
	(void)state;
	assert_true(origin_is_host("http://localhost:8080", "localhost:8080"));
	assert_true(origin_is_host("https://pty.example", "pty.example"));
	assert_true(origin_is_host("https://pty.example", "PTY.example:443"));
	assert_true(origin_is_host("http://[::1]:8080", "[::1]:8080"));
	assert_false(origin_is_host("http://localhost:8081", "localhost:8080"));
	assert_false(origin_is_host("http://localhost", "localhost:8080"));
	assert_false(origin_is_host("http://evil.example", "pty.example"));
	assert_false(origin_is_host("http://pty.example.evil", "pty.example"));
	assert_false(origin_is_host("http://pty.example/", "pty.example"));
	assert_false(origin_is_host("http://x@pty.example", "pty.example"));
	assert_false(origin_is_host("null", "null"));
	assert_false(origin_is_host("", ""));
	assert_false(origin_is_host("file://", ""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(finds_an_item_in_a_comma_list),
		cmocka_unit_test(a_loopback_listener_knows_its_own_names),
		cmocka_unit_test(foreign_names_are_foreign),
		cmocka_unit_test(an_origin_is_compared_by_name_and_port),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
