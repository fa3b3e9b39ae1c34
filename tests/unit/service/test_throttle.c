/* Failures by address. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "service/throttle.h"

static uint64_t key_of(const char *text)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(1) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(2) };
	if (inet_pton(AF_INET, text, &v4.sin_addr) == 1)
		return throttle_key((const struct sockaddr *)&v4);
	assert_int_equal(inet_pton(AF_INET6, text, &v6.sin6_addr), 1);
	return throttle_key((const struct sockaddr *)&v6);
}

static void one_address_is_one_key(void **state)
{
	(void)state;
	assert_true(key_of("192.0.2.1") == key_of("192.0.2.1"));
	assert_true(key_of("192.0.2.1") == key_of("::ffff:192.0.2.1"));
	assert_true(key_of("192.0.2.1") != key_of("192.0.2.2"));
	assert_true(key_of("2001:db8::1") == key_of("2001:db8::ffff:1"));
	assert_true(key_of("2001:db8:0:1::1") != key_of("2001:db8::1"));
}

static void beyond_the_limit_it_says_how_long_to_wait(void **state)
{
	(void)state;
	static struct throttle t;
	throttle_init(&t);
	for (int i = 0; i < 3; i++)
		assert_int_equal(throttle_fail(&t, 5, 3, 100), 0);
	assert_int_equal(throttle_fail(&t, 5, 3, 100), 60);
	assert_int_equal(throttle_fail(&t, 5, 3, 130), 30);
	assert_int_equal(throttle_fail(&t, 7, 3, 130), 0); /* another address */
	assert_int_equal(throttle_fail(&t, 5, 3, 160), 0); /* the next minute */
	throttle_fini(&t);
}

static void without_a_limit_it_never_does(void **state)
{
	(void)state;
	static struct throttle t;
	throttle_init(&t);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(throttle_fail(&t, 5, 0, 100), 0);
	throttle_fini(&t);
}

static void more_addresses_than_slots_push_out_old_ones_only(void **state)
{
	(void)state;
	static struct throttle t;
	throttle_init(&t);
	for (uint64_t i = 1; i < 100000; i++)
		assert_int_equal(throttle_fail(&t, i * UINT64_C(0x9e3779b97f4a7c15) | 1, 1, 100),
				 0);
	throttle_fini(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_address_is_one_key),
		cmocka_unit_test(beyond_the_limit_it_says_how_long_to_wait),
		cmocka_unit_test(without_a_limit_it_never_does),
		cmocka_unit_test(more_addresses_than_slots_push_out_old_ones_only),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
