/* EPOCH:OFFSET as clients send it back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "handlers/event_id.h"

static void reads_epoch_and_offset(void **state)
{
	(void)state;
	uint64_t epoch = 0, offset = 0;
	assert_true(event_id_parse("3f9c5a0e77b1d204:4096", &epoch, &offset));
	assert_true(epoch == UINT64_C(0x3f9c5a0e77b1d204));
	assert_int_equal(offset, 4096);
	assert_true(event_id_parse("0000000000000000:1", &epoch, &offset));
	assert_true(event_id_parse("ffffffffffffffff:9999999999999999999", &epoch, &offset));
	assert_true(epoch == UINT64_MAX && offset == UINT64_C(9999999999999999999));
}

static void refuses_anything_else_and_touches_nothing(void **state)
{
	(void)state;
	static const char *const ids[] = { "",
					   ":",
					   "4096",
					   "3f9c5a0e77b1d204",
					   "3f9c5a0e77b1d204:",
					   "3F9C5A0E77B1D204:1",
					   "3f9c5a0e77b1d20:1",
					   "3f9c5a0e77b1d2044:1",
					   "3f9c5a0e77b1d204:-1",
					   "3f9c5a0e77b1d204: 1",
					   "3f9c5a0e77b1d204:1 ",
					   "3f9c5a0e77b1d204:1:2",
					   "3f9c5a0e77b1d204:12345678901234567890",
					   "0x9c5a0e77b1d204:1" };
	uint64_t epoch = 7, offset = 8;
	for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++)
		assert_false(event_id_parse(ids[i], &epoch, &offset));
	assert_int_equal(epoch, 7);
	assert_int_equal(offset, 8);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_epoch_and_offset),
		cmocka_unit_test(refuses_anything_else_and_touches_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
