/* test_flow.c -- agent/flow.h: how much may be read, by whom there is. */
#include "tests/unit/wire/test.h"

#include "agent/flow.h"

enum { CAPACITY = 1000 };

static void nobody_there_limits_nothing(void **state)
{
	(void)state;
	struct flow f = { 0 };
	assert_int_equal(flow_room(&f, 0, CAPACITY), CAPACITY);
	assert_int_equal(flow_room(&f, 123456, CAPACITY), CAPACITY);
}

static void what_a_reader_has_not_got_is_kept(void **state)
{
	(void)state;
	static const enum flow_guard guards[] = { FLOW_READER, FLOW_LOST, FLOW_UNREAD };
	for (size_t i = 0; i < COUNT_OF(guards); i++) {
		struct flow f;
		flow_guard(&f, guards[i], 5000);
		assert_int_equal(flow_room(&f, 5000, CAPACITY), CAPACITY);
		assert_int_equal(flow_room(&f, 5400, CAPACITY), CAPACITY - 400);
		assert_int_equal(flow_room(&f, 5999, CAPACITY), 1);
		assert_int_equal(flow_room(&f, 6000, CAPACITY), 0);
		assert_int_equal(flow_room(&f, 6001, CAPACITY), 0);
	}
}

static void progress_makes_room(void **state)
{
	(void)state;
	struct flow f;
	flow_guard(&f, FLOW_READER, 0);
	assert_int_equal(flow_room(&f, CAPACITY, CAPACITY), 0);
	assert_true(flow_progress(&f, 300));
	assert_int_equal(flow_room(&f, CAPACITY, CAPACITY), 300);
	assert_false(flow_progress(&f, 300));
	assert_false(flow_progress(&f, 299)); /* not back */
	assert_int_equal(flow_room(&f, CAPACITY, CAPACITY), 300);
}

static void overwriting_lasts_until_the_next_progress(void **state)
{
	(void)state;
	struct flow f;
	flow_guard(&f, FLOW_READER, 0);
	f.overwriting = true;
	assert_int_equal(flow_room(&f, 5 * CAPACITY, CAPACITY), CAPACITY);
	assert_false(flow_progress(&f, 0));
	assert_true(f.overwriting);
	assert_true(flow_progress(&f, 1));
	assert_int_equal(flow_room(&f, 5 * CAPACITY, CAPACITY), 0);
	f.overwriting = true;
	flow_guard(&f, FLOW_READER, 5 * CAPACITY); /* another one */
	assert_false(f.overwriting);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nobody_there_limits_nothing),
		cmocka_unit_test(what_a_reader_has_not_got_is_kept),
		cmocka_unit_test(progress_makes_room),
		cmocka_unit_test(overwriting_lasts_until_the_next_progress),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
