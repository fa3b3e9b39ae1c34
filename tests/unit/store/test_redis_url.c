/* What --store redis:... may say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "store/redis_url.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

static void assert_text(const char *got, const char *wanted)
{
	if (wanted == NULL) {
		assert_null(got);
		return;
	}
	assert_non_null(got);
	assert_string_equal(got, wanted);
}

static void takes_all_forms(void **state)
{
	(void)state;
	static const struct {
		const char *location, *host, *user, *password;
		uint16_t port;
		unsigned db;
	} cases[] = {
		{ "//redis.example:7000/3", "redis.example", NULL, NULL, 7000, 3 },
		{ "//redis_1", "redis_1", NULL, NULL, 6379, 0 },
		{ "//10.0.0.1/", "10.0.0.1", NULL, NULL, 6379, 0 },
		{ "//[fd00::1]:1/15", "fd00::1", NULL, NULL, 1, 15 },
		{ "//[::ffff:10.0.0.1]", "::ffff:10.0.0.1", NULL, NULL, 6379, 0 },
		{ "//:s3cret@h:65535", "h", NULL, "s3cret", 65535, 0 },
		{ "//ptycast:a%40b%3a%2F%25@h", "h", "ptycast", "a@b:/%", 6379, 0 },
		{ "//p%C3%a9:a:b@h/1", "h", "p\xc3\xa9", "a:b", 6379, 1 },
		{ "//u:a@b/c@h:2/4", "h", "u", "a@b/c", 2, 4 },
	};
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct redis_url url;
		struct error err = { 0 };
		if (redis_url_parse(cases[i].location, &url, &err) != 0)
			fail_msg("%s: %s", cases[i].location, err.text);
		assert_string_equal(url.host, cases[i].host);
		assert_text(url.user, cases[i].user);
		assert_text(url.password, cases[i].password);
		assert_int_equal(url.port, cases[i].port);
		assert_int_equal(url.db, cases[i].db);
		redis_url_fini(&url);
		assert_null(url.password);
		redis_url_fini(&url);
	}
}

static void refuses_what_is_none_and_never_says_the_password(void **state)
{
	(void)state;
	static const char *const cases[] = {
		"",
		"/h",
		"h:1",
		"//",
		"//:1",
		"//h:",
		"//h:0",
		"//h:65536",
		"//h:99999999999",
		"//h:1x",
		"//h:+1",
		"//h/x",
		"//h/1/2",
		"//h/65536",
		"//h?db=1",
		"//fd00::1",
		"//[fd00::1",
		"//[]:1",
		"//[h]:1",
		"//h h",
		"//s3cret@h",
		"//s3cret:@h",
		"//u:s3cret@",
		"//u:s3cret@:1",
		"//u:s3cret%@h",
		"//u:s3cret%4@h",
		"//u:s3cret%4g@h",
		"//u:s3cret%00@h",
		"//s3cret%zz:p@h",
		"//u:s3cret@h/x",
	};
	char longest[300] = "//";
	memset(longest + 2, 'h', 256);
	for (size_t i = 0; i <= COUNT_OF(cases); i++) {
		const char *location = i < COUNT_OF(cases) ? cases[i] : longest;
		struct redis_url url = { .port = 7 };
		struct error err = { 0 };
		if (redis_url_parse(location, &url, &err) != -EINVAL)
			fail_msg("taken: %s", location);
		assert_int_equal(err.code, -EINVAL);
		assert_null(strstr(err.text, "s3cret"));
		assert_int_equal(url.port, 7);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(takes_all_forms),
		cmocka_unit_test(refuses_what_is_none_and_never_says_the_password),
	};
	return cmocka_run_group_tests_name("redis_url", tests, NULL, NULL);
}
