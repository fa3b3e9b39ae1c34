/* Problems as JSON. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "service/problem.h"

static void assert_json(const struct problem *p, const char *expected)
{
	size_t size;
	char *text = problem_json(p, &size);
	assert_non_null(text);
	assert_string_equal(text, expected);
	assert_int_equal(size, strlen(expected));
	free(text);
}

static void has_the_members_of_rfc_9457(void **state)
{
	(void)state;
	struct problem p = problem_make(404, "not-found", "no such %s", "session");
	assert_json(&p, "{\"type\":\"/problems/not-found\",\"title\":\"Not Found\",\"status\":404,"
			"\"detail\":\"no such session\"}");
}

static void names_field_and_what_is_allowed(void **state)
{
	(void)state;
	static const char *const list[] = { "text", "base64", NULL };
	struct problem p = problem_bad_request("cols", "1..1000", "cols: 1 to 1000, got %d", 0);
	assert_json(&p, "{\"type\":\"/problems/bad-request\",\"title\":\"Bad Request\","
			"\"status\":400,\"detail\":\"cols: 1 to 1000, got 0\",\"field\":\"cols\","
			"\"allowed\":\"1..1000\"}");
	p = problem_bad_request("format", "", "x");
	p.allowed_list = list;
	assert_json(&p, "{\"type\":\"/problems/bad-request\",\"title\":\"Bad Request\","
			"\"status\":400,\"detail\":\"x\",\"field\":\"format\","
			"\"allowed\":[\"text\",\"base64\"]}");
}

static void carries_expected_and_session(void **state)
{
	(void)state;
	struct problem p = problem_make(409, "input-gap", "x");
	p.reply.expected = 2;
	assert_json(&p, "{\"type\":\"/problems/input-gap\",\"title\":\"Conflict\",\"status\":409,"
			"\"detail\":\"x\",\"expected\":2}");
	p = problem_make(502, "start-failed", "x");
	p.session = "s1";
	assert_json(&p, "{\"type\":\"/problems/start-failed\",\"title\":\"Bad Gateway\","
			"\"status\":502,\"detail\":\"x\",\"session\":\"s1\"}");
}

static void is_valid_json_whatever_the_far_end_said(void **state)
{
	(void)state;
	struct problem p = problem_make(502, "start-failed", "\xff\"\n\xc3");
	assert_json(&p, "{\"type\":\"/problems/start-failed\",\"title\":\"Bad Gateway\","
			"\"status\":502,\"detail\":\"\xef\xbf\xbd\\\"\\n\xef\xbf\xbd\"}");
}

static void a_jittered_wait_stays_in_its_bounds(void **state)
{
	(void)state;
	for (int i = 0; i < 1000; i++) {
		unsigned s = retry_after_jittered(2, 10);
		assert_in_range(s, 3, 12);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(has_the_members_of_rfc_9457),
		cmocka_unit_test(names_field_and_what_is_allowed),
		cmocka_unit_test(carries_expected_and_session),
		cmocka_unit_test(is_valid_json_whatever_the_far_end_said),
		cmocka_unit_test(a_jittered_wait_stays_in_its_bounds),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
