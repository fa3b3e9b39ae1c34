/* test_spent.c -- which tickets are spent, by a clock of our own. That of many at once one wins is in test_auth.c. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "service/metrics.h"
#include "service/spent.h"

#define START_MS INT64_C(1790000000000)
#define MINUTE_MS 60000
#define KEPT_MS 5000 /* longer than it is good */

/* Spends the ticket with that number, which is good for a minute from the start. */
static int spend(struct spent *s, unsigned number, int64_t at_ms)
{
	uint8_t nonce[TICKET_NONCE_BYTES] = { 0 };
	memcpy(nonce, &number, sizeof(number));
	return spent_add(s, nonce, START_MS + MINUTE_MS, START_MS + at_ms);
}

static struct spent *make(unsigned max)
{
	struct spent *s = NULL;
	assert_int_equal(spent_create(max, &s), 0);
	return s;
}

static void a_ticket_is_spent_once(void **state)
{
	(void)state;
	struct spent *s = make(1000);
	for (unsigned i = 0; i < 1000; i++)
		assert_int_equal(spend(s, i, 0), 0);
	for (unsigned i = 0; i < 1000; i++)
		assert_int_equal(spend(s, i, MINUTE_MS - 1), -EEXIST);
	assert_int_equal(metric_get(METRIC_TICKETS), 1000);
	spent_destroy(s);
	spent_destroy(NULL);
	assert_int_equal(metric_get(METRIC_TICKETS), 0);
}

static void nonces_that_share_their_first_bytes_are_two(void **state)
{
	(void)state;
	struct spent *s = make(10);
	uint8_t nonce[TICKET_NONCE_BYTES] = { 1 };
	assert_int_equal(spent_add(s, nonce, START_MS + 1, START_MS), 0);
	nonce[TICKET_NONCE_BYTES - 1] = 1;
	assert_int_equal(spent_add(s, nonce, START_MS + 1, START_MS), 0);
	assert_int_equal(spent_add(s, nonce, START_MS + 1, START_MS), -EEXIST);
	spent_destroy(s);
}

static void when_it_is_full_a_new_one_waits_for_the_first_to_end(void **state)
{
	(void)state;
	struct spent *s = make(3);
	uint8_t brief[TICKET_NONCE_BYTES] = { 0xff };
	assert_int_equal(spend(s, 1, 0), 0);
	assert_int_equal(spent_add(s, brief, START_MS + 1000, START_MS), 0);
	assert_int_equal(spend(s, 2, 0), 0);
	assert_int_equal(spend(s, 3, 0), -EAGAIN);
	assert_int_equal(spend(s, 3, 1000 + KEPT_MS - 1), -EAGAIN);
	assert_int_equal(spend(s, 1, 1000 + KEPT_MS - 1), -EEXIST); /* what is in is known */
	assert_int_equal(spend(s, 3, 1000 + KEPT_MS), 0);
	assert_int_equal(spend(s, 4, 1000 + KEPT_MS), -EAGAIN);
	assert_int_equal(metric_get(METRIC_TICKETS), 3);
	assert_int_equal(spend(s, 4, MINUTE_MS + KEPT_MS), 0);
	assert_int_equal(metric_get(METRIC_TICKETS), 1);
	spent_destroy(s);
}

static void a_clock_that_is_set_back_a_little_spends_nothing_twice(void **state)
{
	(void)state;
	struct spent *s = make(1);
	assert_int_equal(spend(s, 1, 0), 0);
	assert_int_equal(spend(s, 2, MINUTE_MS + KEPT_MS - 1), -EAGAIN); /* it looks what can go */
	assert_int_equal(spend(s, 1, MINUTE_MS - 1), -EEXIST);
	spent_destroy(s);
}

static void the_ended_go_by_themselves(void **state)
{
	(void)state;
	struct spent *s = make(1000);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(spend(s, i, 0), 0);
	uint8_t later[TICKET_NONCE_BYTES] = { 0xff };
	int64_t late_ms = START_MS + MINUTE_MS + 3 * KEPT_MS;
	assert_int_equal(spent_add(s, later, late_ms + 1, late_ms), 0);
	assert_int_equal(metric_get(METRIC_TICKETS), 1);
	spent_destroy(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_ticket_is_spent_once),
		cmocka_unit_test(nonces_that_share_their_first_bytes_are_two),
		cmocka_unit_test(when_it_is_full_a_new_one_waits_for_the_first_to_end),
		cmocka_unit_test(a_clock_that_is_set_back_a_little_spends_nothing_twice),
		cmocka_unit_test(the_ended_go_by_themselves),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
