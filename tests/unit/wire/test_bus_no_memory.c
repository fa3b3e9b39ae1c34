/* test_bus_no_memory.c -- what bus_frame.h does when it gets none. Its code is compiled in here with an
 * allocator that refuses on demand. */
#include <stdbool.h>
#include <stdlib.h>

static bool refuse;

static void *malloc_or_refuse(size_t size)
{
	return refuse ? NULL : malloc(size);
}

static void *realloc_or_refuse(void *block, size_t size)
{
	return refuse ? NULL : realloc(block, size);
}

#define malloc malloc_or_refuse
#define realloc realloc_or_refuse
#include "wire/bus_frame.c"
#include "wire/bus_items.c"
#undef malloc
#undef realloc

#include "tests/unit/wire/test.h"

static void a_message_is_not_made(void **state)
{
	(void)state;
	struct bus_frame frame = { .head = { .type = BUS_GONE, .session = "s" } };
	size_t size = 7;
	refuse = true;
	assert_null(bus_frame_encode(&frame, &size));
	assert_int_equal(size, 7);
	refuse = false;
}

static void items_stay_as_they_were(void **state)
{
	(void)state;
	static const uint8_t output[ITEMS_FIRST_BYTES];
	struct bus_items items = { 0 };
	refuse = true;
	assert_int_equal(bus_items_add_size(&items, 1, 80, 24), -ENOMEM);
	assert_null(items.data);
	refuse = false;
	assert_int_equal(bus_items_add_size(&items, 1, 80, 24), 0);
	refuse = true;
	assert_int_equal(bus_items_add_output(&items, 1, output, sizeof(output)), -ENOMEM);
	assert_int_equal(items.size, ITEM_SIZE_BYTES);
	assert_int_equal(items.output_bytes, 0);
	assert_int_equal(bus_items_add_output(&items, 1, output, 1), 0); /* that fits */
	refuse = false;
	bus_items_fini(&items);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_message_is_not_made),
		cmocka_unit_test(items_stay_as_they_were),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
