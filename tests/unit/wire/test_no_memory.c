/* test_no_memory.c -- what the codecs that allocate do when they get nothing. Their code is
 * compiled in here with an allocator that refuses on demand. */
#include <stdbool.h>
#include <stdlib.h>

static bool refuse;

static void *calloc_or_refuse(size_t count, size_t size)
{
	return refuse ? NULL : calloc(count, size);
}

static void *realloc_or_refuse(void *block, size_t size)
{
	return refuse ? NULL : realloc(block, size);
}

#define calloc calloc_or_refuse
#define realloc realloc_or_refuse
#include "wire/input_seq.c"
#include "wire/ws_frame.c"
#undef calloc
#undef realloc

#include "tests/unit/wire/test.h"

static void the_decoder_ends_without_a_leak(void **state)
{
	(void)state;
	uint8_t first[] = { 0x02, 0x02, 'a', 'b' }, second[8192] = { 0x80, 0x7e, 0x1f, 0x00 };
	struct ws_decoder d;
	struct ws_event event;
	ws_decoder_init(&d, WS_ROLE_CLIENT, 1u << 20);
	refuse = false;
	assert_int_equal(ws_decoder_feed(&d, first, sizeof(first), &event), sizeof(first));
	refuse = true;
	assert_int_equal(ws_decoder_feed(&d, second, sizeof(second), &event), -ENOMEM);
	refuse = false;
	assert_null(d.message);
	uint8_t ping[] = { 0x89, 0x00 };
	assert_int_equal(ws_decoder_feed(&d, ping, sizeof(ping), &event), 0);
	assert_int_equal(event.type, WS_EVENT_NONE);
	ws_decoder_fini(&d);
}

static void the_decoder_needs_none_for_whole_frames(void **state)
{
	(void)state;
	uint8_t frames[] = { 0x82, 0x02, 'a', 'b', 0x89, 0x01, 'p' };
	struct ws_decoder d;
	struct ws_event event;
	ws_decoder_init(&d, WS_ROLE_CLIENT, 100);
	refuse = true;
	assert_int_equal(ws_decoder_feed(&d, frames, sizeof(frames), &event), 4);
	assert_int_equal(event.type, WS_EVENT_BINARY);
	assert_int_equal(ws_decoder_feed(&d, frames + 4, 3, &event), 3);
	assert_int_equal(event.type, WS_EVENT_PING);
	refuse = false;
	ws_decoder_fini(&d);
}

static void an_input_that_cannot_be_remembered_is_not_accepted(void **state)
{
	(void)state;
	refuse = true;
	assert_null(input_seq_create());
	refuse = false;
	struct input_seq *t = input_seq_create();
	assert_non_null(t);
	refuse = true;
	uint8_t key[INPUT_CLIENT_BYTES] = { 1 };
	uint64_t expected;
	assert_int_equal(input_seq_accept(t, key, 1), -ENOMEM);
	assert_int_equal(input_seq_check(t, key, 1, &expected), INPUT_SEQ_NEXT);
	refuse = false;

	/* A full table: who is known goes on, who is not is refused. */
	for (uint8_t client = 1; client <= CLIENTS_FIRST; client++) {
		key[0] = client;
		assert_int_equal(input_seq_accept(t, key, 1), 0);
	}
	refuse = true;
	assert_int_equal(input_seq_accept(t, key, 2), 0);
	key[0] = CLIENTS_FIRST + 1;
	assert_int_equal(input_seq_accept(t, key, 1), -ENOMEM);
	refuse = false;
	for (uint8_t client = 1; client <= CLIENTS_FIRST; client++) {
		key[0] = client;
		assert_int_equal(input_seq_check(t, key, 1, &expected), INPUT_SEQ_REPEAT);
	}
	input_seq_destroy(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_decoder_ends_without_a_leak),
		cmocka_unit_test(the_decoder_needs_none_for_whole_frames),
		cmocka_unit_test(an_input_that_cannot_be_remembered_is_not_accepted),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
