/* test_http_retry.c -- http_retry_delay_ms(): what is tried again, and when. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "providers/http_client.h"

#define WALL_MS INT64_C(1790000000000) /* Mon, 21 Sep 2026 14:13:20 GMT */

static struct http_answer status(unsigned status)
{
	return (struct http_answer){ .result = HTTP_DONE, .status = status };
}

static int64_t delay(const struct http_answer *a)
{
	return http_retry_delay_ms(a, 0, 0, WALL_MS);
}

static void retries_these_statuses_and_no_others(void **state)
{
	(void)state;
	for (unsigned s = 200; s < 600; s++) {
		struct http_answer a = status(s);
		bool wanted = s == 408 || s == 409 || s == 429 || s >= 500;
		assert_int_equal(delay(&a), wanted ? 1000 : -1);
	}
}

static void retries_when_there_was_no_answer_but_not_when_we_ended_it(void **state)
{
	(void)state;
	static const struct {
		enum http_result result;
		bool wanted;
	} cases[] = {
		{ HTTP_ENOUGH, false },    { HTTP_CUT, true },        { HTTP_UNREACHABLE, true },
		{ HTTP_TIMEOUT, true },    { HTTP_TOO_LARGE, false }, { HTTP_CANCELLED, false },
		{ HTTP_NO_MEMORY, false },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct http_answer a = { .result = cases[i].result };
		assert_int_equal(delay(&a), cases[i].wanted ? 1000 : -1);
	}
	struct http_answer a = { .result = HTTP_UNREACHABLE, .hopeless = true };
	assert_int_equal(delay(&a), -1);
}

static void waits_twice_as_long_each_time_and_gives_up_after_five(void **state)
{
	(void)state;
	static const int64_t expected[] = { 1000, 2000, 4000, 8000, 16000, -1, -1 };
	struct http_answer a = status(503);
	for (unsigned n = 0; n < 7; n++)
		assert_int_equal(http_retry_delay_ms(&a, n, 0, WALL_MS), expected[n]);
	assert_int_equal(http_retry_delay_ms(&a, 1000000, 0, WALL_MS), -1);
}

static void takes_off_up_to_a_quarter(void **state)
{
	(void)state;
	struct http_answer a = status(500);
	assert_int_equal(http_retry_delay_ms(&a, 0, 1, WALL_MS), 750);
	assert_int_equal(http_retry_delay_ms(&a, 0, 0.5, WALL_MS), 875);
	assert_int_equal(http_retry_delay_ms(&a, 2, 1, WALL_MS), 3000);
}

static void obeys_x_should_retry_both_ways(void **state)
{
	(void)state;
	struct http_answer a = status(503);
	snprintf(a.should_retry, sizeof(a.should_retry), "false");
	assert_int_equal(delay(&a), -1);
	a = status(400);
	snprintf(a.should_retry, sizeof(a.should_retry), "true");
	assert_int_equal(delay(&a), 1000);
	assert_int_equal(http_retry_delay_ms(&a, 5, 0, WALL_MS), -1);
	snprintf(a.should_retry, sizeof(a.should_retry), "yes");
	assert_int_equal(delay(&a), -1);
	a = status(200); /* that is none */
	snprintf(a.should_retry, sizeof(a.should_retry), "true");
	assert_int_equal(delay(&a), -1);
}

static void waits_as_long_as_the_server_says_but_not_for_ever(void **state)
{
	(void)state;
	static const struct {
		const char *ms, *after;
		int64_t expected;
	} cases[] = {
		{ "120", "", 120 },
		{ "120.75", "", 120 },
		{ "0", "", 0 },
		{ "120", "7", 120 }, /* milliseconds go first */
		{ "20001", "", 20000 },
		{ "1e3", "2", 2000 }, /* that is no number here */
		{ "-1", "2", 2000 },
		{ "", "2", 2000 },
		{ "", "0.2", 200 },
		{ "", "0", 0 },
		{ "", "3600", 20000 },
		{ "", "99999999999999999999999999999999999999999999", 20000 },
		{ "", "-5", 1000 },
		{ "", "nan", 1000 },
		{ "", "inf", 1000 },
		{ "", "0x10", 1000 },
		{ "", ".", 1000 },
		{ "", "1.2.3", 1000 },
		{ "", "soon", 1000 },
		{ "nonsense", "", 1000 },
		{ "", "Mon, 21 Sep 2026 14:13:25 GMT", 5000 },
		{ "", "Monday, 21-Sep-26 14:13:21 GMT", 1000 },
		{ "", "Mon Sep 21 14:13:23 2026", 3000 },
		{ "", "Mon, 21 Sep 2026 14:00:00 GMT", 0 }, /* it is over */
		{ "", "Mon, 21 Sep 2026 16:00:00 GMT", 20000 },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct http_answer a = status(429);
		snprintf(a.retry_after_ms, sizeof(a.retry_after_ms), "%s", cases[i].ms);
		snprintf(a.retry_after, sizeof(a.retry_after), "%s", cases[i].after);
		int64_t got = delay(&a);
		if (got != cases[i].expected)
			fail_msg("retry-after-ms \"%s\", retry-after \"%s\": %lld", cases[i].ms,
				 cases[i].after, (long long)got);
	}
}

static void does_not_wait_long_for_a_status_that_is_final(void **state)
{
	(void)state;
	struct http_answer a = status(404);
	snprintf(a.retry_after, sizeof(a.retry_after), "1");
	assert_int_equal(delay(&a), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(retries_these_statuses_and_no_others),
		cmocka_unit_test(retries_when_there_was_no_answer_but_not_when_we_ended_it),
		cmocka_unit_test(waits_twice_as_long_each_time_and_gives_up_after_five),
		cmocka_unit_test(takes_off_up_to_a_quarter),
		cmocka_unit_test(obeys_x_should_retry_both_ways),
		cmocka_unit_test(waits_as_long_as_the_server_says_but_not_for_ever),
		cmocka_unit_test(does_not_wait_long_for_a_status_that_is_final),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
