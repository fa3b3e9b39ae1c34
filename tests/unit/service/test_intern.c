/* test_intern.c -- the same text for the same name, and nothing for what is no name. It fills the process's table: the
 * last test leaves no room. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "service/intern.h"

static void gives_one_text_for_the_same_bytes(void **state)
{
	(void)state;
	char open[] = "open and more";
	const char *first = intern(open, 4);
	assert_string_equal(first, "open");
	memset(open, 'x', sizeof(open)); /* it was copied */
	assert_string_equal(first, "open");
	assert_ptr_equal(intern("open", 4), first);
	assert_string_equal(intern("opened", 6), "opened");
	assert_string_equal(intern("ope", 3), "ope");
	assert_ptr_equal(intern("open", 4), first);
	assert_string_equal(intern("viewer-limit-2", 14), "viewer-limit-2");
}

static void what_is_no_name_is_unknown(void **state)
{
	(void)state;
	static const char *const bad[] = { "",   "Open", "a b",      "a_b",   "a/b",
					   "a.", "a\n",  "\xc3\xa4", "a\x7f", "\"" };
	const char *unknown = intern("unknown", 7);
	assert_string_equal(unknown, "unknown");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_ptr_equal(intern(bad[i], strlen(bad[i])), unknown);
	assert_ptr_equal(intern(NULL, 0), unknown);
	assert_ptr_equal(intern("a\0b", 3), unknown);
	char longest[INTERN_BYTES_MAX + 1];
	memset(longest, 'a', sizeof(longest));
	assert_ptr_equal(intern(longest, sizeof(longest)), unknown);
	assert_int_equal(strlen(intern(longest, INTERN_BYTES_MAX)), INTERN_BYTES_MAX);
	assert_int_equal(strlen(intern(longest, INTERN_BYTES_MAX - 1)), INTERN_BYTES_MAX - 1);
}

#define THREADS 4
#define NAMES 600 /* more than there may be */

struct asker {
	pthread_barrier_t *start;
	const char *got[NAMES];
};

static void *ask_for_all(void *arg)
{
	struct asker *a = arg;
	pthread_barrier_wait(a->start);
	for (unsigned i = 0; i < NAMES; i++) {
		char name[16];
		int size = snprintf(name, sizeof(name), "name-%u", i);
		a->got[i] = intern(name, (size_t)size);
	}
	return NULL;
}

static void threads_get_the_same_texts_until_there_are_512(void **state)
{
	(void)state;
	static struct asker askers[THREADS];
	pthread_barrier_t start;
	pthread_barrier_init(&start, NULL, THREADS);
	pthread_t threads[THREADS];
	for (unsigned i = 0; i < THREADS; i++) {
		askers[i].start = &start;
		pthread_create(&threads[i], NULL, ask_for_all, &askers[i]);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	pthread_barrier_destroy(&start);

	unsigned known = 0;
	for (unsigned n = 0; n < NAMES; n++) {
		char name[16];
		snprintf(name, sizeof(name), "name-%u", n);
		const char *got = askers[0].got[n];
		known += strcmp(got, name) == 0;
		if (strcmp(got, name) != 0)
			assert_string_equal(got, "unknown");
		for (unsigned i = 1; i < THREADS; i++)
			assert_ptr_equal(askers[i].got[n], got);
	}
	/* 6 are of the tests above. */
	assert_int_equal(known, INTERN_COUNT_MAX - 6);
	assert_string_equal(intern("one-more", 8), "unknown");
	assert_string_equal(intern("open", 4), "open"); /* who is in stays in */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gives_one_text_for_the_same_bytes),
		cmocka_unit_test(what_is_no_name_is_unknown),
		cmocka_unit_test(threads_get_the_same_texts_until_there_are_512),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
