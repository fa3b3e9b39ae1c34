/* JSON from clients, read strictly. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "service/json_body.h"

static const char *const names[] = { "n", "b", "s", NULL };

static json_t *parse(const char *text, struct problem *problem)
{
	memset(problem, 0, sizeof(*problem));
	return json_body_parse(text, strlen(text), names, problem);
}

static void assert_bad_json(const char *text, const char *detail)
{
	struct problem problem;
	assert_null(parse(text, &problem));
	assert_int_equal(problem.reply.status, 400);
	assert_string_equal(problem.reply.slug, "bad-json");
	assert_string_equal(problem.reply.detail, detail);
}

static void says_where_it_is_no_json_without_repeating_it(void **state)
{
	(void)state;
	assert_bad_json("", "the body is not JSON (near byte 0)");
	assert_bad_json("{\"n\":", "the body is not JSON (near byte 5)");
	assert_bad_json("{\"s\":\"\xff\"}", "the body is not JSON (near byte 6)");
	assert_bad_json("{} x", "the body is not JSON (near byte 4)");
	assert_bad_json("{\"n\":1,\"n\":2}", "the body has a member twice (near byte 10)");
	assert_bad_json("[]", "the body is not a JSON object");
	assert_bad_json("7", "the body is not JSON (near byte 1)");
}

static void bounds_the_depth(void **state)
{
	(void)state;
	struct problem problem;
	char text[128] = "{\"n\":";
	size_t levels = JSON_BODY_DEPTH_MAX - 1;
	for (size_t i = 0; i < levels; i++)
		strcat(text, "[");
	for (size_t i = 0; i < levels; i++)
		strcat(text, "]");
	strcat(text, "}");
	json_t *body = parse(text, &problem);
	assert_non_null(body);
	json_decref(body);
	assert_bad_json("{\"n\":[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]}",
			"the body is nested deeper than 16");
}

static void names_an_unknown_member(void **state)
{
	(void)state;
	struct problem problem;
	assert_null(parse("{\"n\":1,\"other\":2}", &problem));
	assert_string_equal(problem.reply.slug, "bad-request");
	assert_string_equal(problem.field, "other");
	assert_ptr_equal(problem.allowed_list, names);
}

static void reads_whole_numbers_in_range(void **state)
{
	(void)state;
	struct problem problem;
	static const char *const bad[] = { "{\"n\":0}",     "{\"n\":11}",   "{\"n\":1.0}",
					   "{\"n\":\"1\"}", "{\"n\":null}", "{\"n\":true}" };
	json_int_t n = 5;
	json_t *body = parse("{\"n\":10}", &problem);
	assert_true(json_body_int(body, "n", true, 1, 10, &n, &problem));
	assert_int_equal(n, 10);
	json_decref(body);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		body = parse(bad[i], &problem);
		assert_false(json_body_int(body, "n", false, 1, 10, &n, &problem));
		assert_string_equal(problem.field, "n");
		assert_string_equal(problem.allowed, "1..10");
		json_decref(body);
	}
	body = parse("{}", &problem);
	assert_true(json_body_int(body, "n", false, 1, 10, &n, &problem));
	assert_int_equal(n, 10); /* untouched */
	assert_false(json_body_int(body, "n", true, 1, 10, &n, &problem));
	assert_string_equal(problem.reply.detail, "n is missing");
	json_decref(body);
}

static void reads_booleans_and_strings(void **state)
{
	(void)state;
	struct problem problem;
	bool b = false;
	const char *s = NULL;
	json_t *body = parse("{\"b\":true,\"s\":\"x\"}", &problem);
	assert_true(json_body_bool(body, "b", &b, &problem) && b);
	assert_true(json_body_string(body, "s", true, &s, &problem));
	assert_string_equal(s, "x");
	json_decref(body);
	body = parse("{\"b\":1,\"s\":\"x\\u0000\"}", &problem);
	assert_false(json_body_bool(body, "b", &b, &problem));
	assert_string_equal(problem.field, "b");
	assert_false(json_body_string(body, "s", true, &s, &problem));
	assert_string_equal(problem.field, "s");
	json_decref(body);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(says_where_it_is_no_json_without_repeating_it),
		cmocka_unit_test(bounds_the_depth),
		cmocka_unit_test(names_an_unknown_member),
		cmocka_unit_test(reads_whole_numbers_in_range),
		cmocka_unit_test(reads_booleans_and_strings),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
