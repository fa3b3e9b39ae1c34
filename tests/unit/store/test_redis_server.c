/* What a server says of itself, and whether that will do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "store/redis_server.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

#define RUN_ID "0123456789abcdef0123456789abcdef01234567"

static int check(const char *version, const char *mode, const char *role, const char *policy,
		 char run_id[REDIS_RUN_ID_BYTES], struct error *err)
{
	char info[512];
	snprintf(info, sizeof(info),
		 "# Server\r\nredis_version:%s\r\nredis_mode:%s\r\nrun_id:" RUN_ID "\r\n"
		 "\r\n# Memory\r\nmaxmemory_policy:%s\r\n\r\n# Replication\r\nrole:%s\r\n",
		 version, mode, policy, role);
	return redis_server_check(info, run_id, err);
}

static void takes_servers_that_are_new_enough(void **state)
{
	(void)state;
	static const char *const versions[] = { "6.2.0", "6.10", "7.0.15", "10.0.0" };
	for (size_t i = 0; i < COUNT_OF(versions); i++) {
		char run_id[REDIS_RUN_ID_BYTES] = "";
		struct error err = { 0 };
		if (check(versions[i], "standalone", "master", "noeviction", run_id, &err) != 0)
			fail_msg("%s: %s", versions[i], err.text);
		assert_string_equal(run_id, RUN_ID);
	}
}

static void says_what_is_wrong_with_a_server(void **state)
{
	(void)state;
	static const struct {
		const char *version, *mode, *role, *policy;
		int code;
		const char *says;
	} cases[] = {
		{ "6.0.16", "standalone", "master", "noeviction", -EPROTO, "6.0.16" },
		{ "5.9.9", "standalone", "master", "noeviction", -EPROTO, "6.2 or newer" },
		{ "x", "standalone", "master", "noeviction", -EPROTO, "6.2 or newer" },
		{ "7.0.15", "cluster", "master", "noeviction", -EINVAL, "cluster-enabled no" },
		{ "7.0.15", "sentinel", "master", "noeviction", -EINVAL, "sentinel" },
		{ "7.0.15", "standalone", "slave", "noeviction", -EROFS, "master" },
		{ "7.0.15", "standalone", "master", "allkeys-lru", -EINVAL, "allkeys-lru" },
		{ "7.0.15", "standalone", "master", "volatile-ttl", -EINVAL, "noeviction" },
		{ "7.0.15", "standalone", "master", "no\tway", -EBADMSG, "maxmemory_policy" },
		{ "", "standalone", "master", "noeviction", -EBADMSG, "redis_version" },
	};
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		char run_id[REDIS_RUN_ID_BYTES] = "untouched";
		struct error err = { 0 };
		assert_int_equal(check(cases[i].version, cases[i].mode, cases[i].role,
				       cases[i].policy, run_id, &err),
				 cases[i].code);
		if (strstr(err.text, cases[i].says) == NULL)
			fail_msg("%s", err.text);
		assert_string_equal(run_id, "untouched");
	}
}

static void refuses_an_info_that_is_cut_at_any_byte(void **state)
{
	(void)state;
	static const char whole[] =
		"redis_version:7.0.1\r\nredis_mode:standalone\r\nrole:master\r\n"
		"maxmemory_policy:noeviction\r\nrun_id:" RUN_ID "\r\n";
	char run_id[REDIS_RUN_ID_BYTES];
	assert_int_equal(redis_server_check(whole, run_id, NULL), 0);
	for (size_t size = 0; size < sizeof(whole) - 3; size++) {
		char cut[sizeof(whole)];
		memcpy(cut, whole, size);
		cut[size] = '\0';
		assert_int_equal(redis_server_check(cut, run_id, NULL), -EBADMSG);
	}
}

static void says_what_a_server_refused(void **state)
{
	(void)state;
	static const struct {
		const char *answer;
		int code;
		const char *text;
	} cases[] = {
		{ "NOAUTH Authentication required.", -EACCES,
		  "redis: GET x refused: NOAUTH Authentication required." },
		{ "NOPERM no", -EACCES, "redis: GET x refused: NOPERM no" },
		{ "WRONGPASS no", -EACCES, "redis: GET x refused: WRONGPASS no" },
		{ "ERR AUTH without password", -EACCES,
		  "redis: GET x refused: ERR AUTH without password" },
		{ "LOADING it", -EAGAIN, "redis: GET x refused: LOADING it" },
		{ "READONLY it", -EAGAIN, "redis: GET x refused: READONLY it" },
		{ "BUSY it", -EAGAIN, "redis: GET x refused: BUSY it" },
		{ "OOM it", -ENOSPC, "redis: GET x refused: OOM it" },
		{ "ERR what", -EIO, "redis: GET x refused: ERR what" },
		{ "", -EIO, "redis: GET x refused: " },
		{ NULL, -EIO, "redis: GET x refused: that is no answer to it" },
	};
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct error err = { 0 };
		assert_int_equal(redis_server_refusal(cases[i].answer, "GET x", &err),
				 cases[i].code);
		assert_int_equal(err.code, cases[i].code);
		assert_string_equal(err.text, cases[i].text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(takes_servers_that_are_new_enough),
		cmocka_unit_test(says_what_is_wrong_with_a_server),
		cmocka_unit_test(refuses_an_info_that_is_cut_at_any_byte),
		cmocka_unit_test(says_what_a_server_refused),
	};
	return cmocka_run_group_tests_name("redis_server", tests, NULL, NULL);
}
