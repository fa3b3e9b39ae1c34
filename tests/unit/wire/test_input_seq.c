/* test_input_seq.c -- input_seq.h: order, repeats, and who is forgotten. */
#include "tests/unit/wire/test.h"

#include "tests/fuzz/fuzz_input_seq.c" /* the fuzz target itself */

static enum input_seq_verdict check(const struct input_seq *t, uint16_t client, uint64_t seq,
				    uint64_t *expected)
{
	uint8_t key[INPUT_CLIENT_BYTES];
	key_of(client, key);
	return input_seq_check(t, key, seq, expected);
}

static void accept_next(struct input_seq *t, uint16_t client, uint64_t seq)
{
	uint8_t key[INPUT_CLIENT_BYTES];
	uint64_t expected;
	key_of(client, key);
	assert_int_equal(input_seq_check(t, key, seq, &expected), INPUT_SEQ_NEXT);
	assert_true(expected == seq);
	assert_int_equal(input_seq_accept(t, key, seq), 0);
}

static void types_each_number_once_and_in_order(void **state)
{
	(void)state;
	struct input_seq *t = input_seq_create();
	uint64_t expected;
	for (uint64_t seq = 1; seq <= 10; seq++)
		accept_next(t, 1, seq);
	for (uint64_t seq = 1; seq <= 10; seq++) {
		assert_int_equal(check(t, 1, seq, &expected), INPUT_SEQ_REPEAT);
		assert_int_equal(expected, 11);
	}
	assert_int_equal(check(t, 1, 12, &expected), INPUT_SEQ_GAP);
	assert_int_equal(expected, 11);
	accept_next(t, 1, 11);
	input_seq_destroy(t);
}

static void starts_every_client_at_1(void **state)
{
	(void)state;
	struct input_seq *t = input_seq_create();
	uint64_t expected;
	assert_int_equal(check(t, 1, 2, &expected), INPUT_SEQ_GAP);
	assert_int_equal(expected, 1);
	accept_next(t, 1, 1);
	assert_int_equal(check(t, 2, 2, &expected), INPUT_SEQ_GAP);
	assert_int_equal(expected, 1);
	accept_next(t, 2, 1);
	accept_next(t, 1, 2);
	input_seq_destroy(t);
}

static void checking_changes_nothing(void **state)
{
	(void)state;
	struct input_seq *t = input_seq_create();
	uint64_t expected;
	for (int i = 0; i < 3; i++) {
		assert_int_equal(check(t, 1, 1, &expected), INPUT_SEQ_NEXT);
		assert_int_equal(check(t, 1, 5, &expected), INPUT_SEQ_GAP);
	}
	accept_next(t, 1, 1);
	input_seq_destroy(t);
}

static void a_lower_number_takes_nothing_back(void **state)
{
	(void)state;
	struct input_seq *t = input_seq_create();
	uint8_t key[INPUT_CLIENT_BYTES];
	uint64_t expected;
	key_of(1, key);
	assert_int_equal(input_seq_accept(t, key, 9), 0);
	assert_int_equal(input_seq_accept(t, key, 4), 0);
	assert_int_equal(check(t, 1, 9, &expected), INPUT_SEQ_REPEAT);
	assert_int_equal(expected, 10);
	input_seq_destroy(t);
}

static void nothing_follows_the_largest_number(void **state)
{
	(void)state;
	struct input_seq *t = input_seq_create();
	uint8_t key[INPUT_CLIENT_BYTES];
	uint64_t expected;
	key_of(1, key);
	assert_int_equal(input_seq_accept(t, key, UINT64_MAX), 0);
	assert_int_equal(check(t, 1, UINT64_MAX, &expected), INPUT_SEQ_REPEAT);
	assert_true(expected == UINT64_MAX);
	input_seq_destroy(t);
}

static void knows_clients_by_all_of_their_key(void **state)
{
	(void)state;
	struct input_seq *t = input_seq_create();
	uint64_t expected;
	uint8_t key[INPUT_CLIENT_BYTES] = { 0 };
	assert_int_equal(input_seq_accept(t, key, 1), 0);
	for (size_t i = 0; i < INPUT_CLIENT_BYTES; i++) {
		uint8_t other[INPUT_CLIENT_BYTES] = { 0 };
		other[i] = 1;
		assert_int_equal(input_seq_check(t, other, 1, &expected), INPUT_SEQ_NEXT);
	}
	assert_int_equal(input_seq_check(t, key, 1, &expected), INPUT_SEQ_REPEAT);
	input_seq_destroy(t);
}

static void remembers_1024_clients(void **state)
{
	(void)state;
	struct input_seq *t = input_seq_create();
	uint64_t expected;
	for (uint16_t client = 0; client < INPUT_SEQ_CLIENTS_MAX; client++)
		accept_next(t, client, 1);
	for (uint16_t client = 0; client < INPUT_SEQ_CLIENTS_MAX; client++)
		assert_int_equal(check(t, client, 1, &expected), INPUT_SEQ_REPEAT);
	input_seq_destroy(t);
}

static void forgets_the_client_that_was_silent_longest(void **state)
{
	(void)state;
	struct input_seq *t = input_seq_create();
	uint64_t expected;
	for (uint16_t client = 0; client < INPUT_SEQ_CLIENTS_MAX; client++)
		accept_next(t, client, 1);
	accept_next(t, 0, 2); /* now 1 is the oldest */
	accept_next(t, 5000, 1);
	assert_int_equal(check(t, 0, 2, &expected), INPUT_SEQ_REPEAT);
	assert_int_equal(check(t, 2, 1, &expected), INPUT_SEQ_REPEAT);
	assert_int_equal(check(t, 5000, 1, &expected), INPUT_SEQ_REPEAT);
	assert_int_equal(check(t, 1, 2, &expected), INPUT_SEQ_GAP); /* forgotten */
	assert_int_equal(expected, 1);
	accept_next(t, 1, 1); /* pushes out 2 */
	assert_int_equal(check(t, 2, 2, &expected), INPUT_SEQ_GAP);
	assert_int_equal(check(t, 3, 1, &expected), INPUT_SEQ_REPEAT);
	input_seq_destroy(t);
}

static void destroys_nothing_too(void **state)
{
	(void)state;
	input_seq_destroy(NULL);
}

static void replays_its_corpus(void **state)
{
	(void)state;
	replay_corpus("input_seq", LLVMFuzzerTestOneInput);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(types_each_number_once_and_in_order),
		cmocka_unit_test(starts_every_client_at_1),
		cmocka_unit_test(checking_changes_nothing),
		cmocka_unit_test(a_lower_number_takes_nothing_back),
		cmocka_unit_test(nothing_follows_the_largest_number),
		cmocka_unit_test(knows_clients_by_all_of_their_key),
		cmocka_unit_test(remembers_1024_clients),
		cmocka_unit_test(forgets_the_client_that_was_silent_longest),
		cmocka_unit_test(destroys_nothing_too),
		cmocka_unit_test(replays_its_corpus),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
