/* test_typing.c -- agent/typing.h: verdicts, the limit of the queue, and congestion. */
#include "tests/unit/wire/test.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "agent/typing.h"

static const uint8_t one[INPUT_CLIENT_BYTES] = "one", two[INPUT_CLIENT_BYTES] = "two";
static uint8_t megabyte[1 << 20];

static enum pty2_verdict take(struct typing *t, const uint8_t *client, uint64_t seq, size_t size,
			      bool ended, uint64_t expected)
{
	uint64_t told = 0;
	enum pty2_verdict verdict = typing_take(t, client, seq, megabyte, size, ended, &told);
	assert_int_equal(told, expected);
	return verdict;
}

static void numbers_are_typed_once_and_in_order(void **state)
{
	(void)state;
	struct typing t;
	assert_int_equal(typing_init(&t), 0);
	assert_int_equal(take(&t, one, 2, 1, false, 1), PTY2_GAP);
	assert_int_equal(take(&t, one, 1, 1, false, 2), PTY2_QUEUED);
	assert_int_equal(take(&t, one, 1, 1, false, 2), PTY2_REPEATED);
	assert_int_equal(take(&t, one, 3, 1, false, 2), PTY2_GAP);
	assert_int_equal(take(&t, two, 1, 1, false, 2), PTY2_QUEUED);
	assert_int_equal(take(&t, one, 2, 1, false, 3), PTY2_QUEUED);
	assert_int_equal(take(&t, one, 0, 1, false, 0), PTY2_QUEUED);
	assert_int_equal(t.queue.size, 4);
	typing_fini(&t);
}

static void after_the_end_repeats_are_still_known(void **state)
{
	(void)state;
	struct typing t;
	assert_int_equal(typing_init(&t), 0);
	assert_int_equal(take(&t, one, 1, 1, false, 2), PTY2_QUEUED);
	assert_int_equal(take(&t, one, 1, 1, true, 2), PTY2_REPEATED);
	assert_int_equal(take(&t, one, 2, 1, true, 2), PTY2_ENDED);
	assert_int_equal(take(&t, one, 0, 1, true, 0), PTY2_ENDED);
	assert_int_equal(t.queue.size, 1);
	typing_fini(&t);
}

static void a_message_that_does_not_fit_is_refused_whole(void **state)
{
	(void)state;
	struct typing t;
	assert_int_equal(typing_init(&t), 0);
	for (unsigned i = 1; i <= 3; i++)
		assert_int_equal(take(&t, one, i, 1 << 20, false, i + 1), PTY2_QUEUED);
	assert_int_equal(take(&t, one, 4, (1 << 20) - 1, false, 5), PTY2_QUEUED);
	assert_int_equal(take(&t, one, 5, 2, false, 5), PTY2_FULL);
	assert_int_equal(take(&t, two, 0, 2, false, 0), PTY2_FULL);
	assert_int_equal(take(&t, one, 5, 1, false, 6),
			 PTY2_QUEUED); /* its number was not used up */
	assert_int_equal(t.queue.size, TYPING_BYTES_MAX);
	typing_fini(&t);
}

static void congestion_leaves_room_for_one_more_message(void **state)
{
	(void)state;
	struct typing t;
	int ends[2];
	assert_int_equal(typing_init(&t), 0);
	assert_int_equal(pipe2(ends, O_NONBLOCK), 0);
	while (!t.congested)
		typing_force(&t, megabyte, 1 << 16);
	assert_true(t.queue.size + PTY2_FRAME_BYTES_MAX <= TYPING_BYTES_MAX);
	size_t left = t.queue.size;
	bool eased = false;
	while (t.queue.size > 0) {
		bool now = typing_write(&t, ends[1]);
		assert_false(now && eased); /* told once */
		eased |= now;
		ssize_t size = read(ends[0], megabyte, sizeof(megabyte));
		assert_true(size > 0);
		left -= (size_t)size;
	}
	assert_int_equal(left, 0);
	assert_true(eased && !t.congested);
	close(ends[0]);
	close(ends[1]);
	typing_fini(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_are_typed_once_and_in_order),
		cmocka_unit_test(after_the_end_repeats_are_still_known),
		cmocka_unit_test(a_message_that_does_not_fit_is_refused_whole),
		cmocka_unit_test(congestion_leaves_room_for_one_more_message),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
