/* test_journal.c -- the ring of a session: offsets, marks, memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "service/journal.h"
#include "service/metrics.h"

#define MAX_BYTES (4 * JOURNAL_CHUNK_BYTES)

static uint8_t byte_at(uint64_t offset)
{
	return (uint8_t)(offset * 2654435761u >> 13);
}

static void append_pattern(struct journal *j, size_t size)
{
	uint8_t data[5000];
	while (size > 0) {
		size_t n = size < sizeof(data) ? size : sizeof(data);
		for (size_t i = 0; i < n; i++)
			data[i] = byte_at(journal_head(j) + i);
		assert_int_equal(journal_append(j, data, n), 0);
		size -= n;
	}
}

static void assert_pattern(const struct journal *j)
{
	uint64_t at = journal_oldest(j);
	while (at < journal_head(j)) {
		const uint8_t *data = NULL;
		size_t n = journal_peek(j, at, &data);
		assert_true(n > 0);
		for (size_t i = 0; i < n; i++)
			assert_int_equal(data[i], byte_at(at + i));
		at += n;
	}
	assert_int_equal(at, journal_head(j));
}

static void holds_at_least_what_it_was_made_for(void **state)
{
	(void)state;
	struct journal *j = journal_create(MAX_BYTES, 80, 24);
	for (int i = 0; i < 500; i++) {
		append_pattern(j, 4999);
		uint64_t held = journal_head(j) - journal_oldest(j);
		assert_true(held >= MAX_BYTES || journal_oldest(j) == 0);
		assert_true(journal_memory(j) <= MAX_BYTES + JOURNAL_CHUNK_BYTES);
		assert_pattern(j);
	}
	journal_destroy(j);
}

static void takes_no_memory_before_the_first_byte(void **state)
{
	(void)state;
	int64_t before = metric_get(METRIC_JOURNAL_BYTES);
	struct journal *j = journal_create(MAX_BYTES, 80, 24);
	assert_int_equal(journal_memory(j), 0);
	append_pattern(j, 1);
	assert_int_equal(journal_memory(j), JOURNAL_CHUNK_BYTES);
	assert_int_equal(metric_get(METRIC_JOURNAL_BYTES), before + JOURNAL_CHUNK_BYTES);
	journal_destroy(j);
	assert_int_equal(metric_get(METRIC_JOURNAL_BYTES), before);
}

static void copies_over_the_seams_of_chunks(void **state)
{
	(void)state;
	struct journal *j = journal_create(MAX_BYTES, 80, 24);
	append_pattern(j, 2 * JOURNAL_CHUNK_BYTES + 100);
	uint8_t out[300];
	uint64_t at = JOURNAL_CHUNK_BYTES - 150;
	journal_copy(j, at, out, sizeof(out));
	for (size_t i = 0; i < sizeof(out); i++)
		assert_int_equal(out[i], byte_at(at + i));
	journal_destroy(j);
}

static void starts_anew_at_any_offset(void **state)
{
	(void)state;
	struct journal *j = journal_create(MAX_BYTES, 80, 24);
	append_pattern(j, 100000);
	journal_restart(j, 7000001, 100, 30);
	assert_int_equal(journal_oldest(j), 7000001);
	assert_int_equal(journal_head(j), 7000001);
	assert_int_equal(journal_memory(j), 0);
	append_pattern(j, 3 * MAX_BYTES);
	assert_pattern(j);
	uint16_t cols, rows;
	journal_size_at(j, journal_head(j), &cols, &rows);
	assert_int_equal(cols, 100);
	assert_int_equal(rows, 30);
	journal_destroy(j);
}

static void gives_memory_back_and_goes_on(void **state)
{
	(void)state;
	struct journal *j = journal_create(MAX_BYTES, 80, 24);
	append_pattern(j, MAX_BYTES + 12345);
	journal_shrink(j, JOURNAL_CHUNK_BYTES);
	assert_int_equal(journal_memory(j), JOURNAL_CHUNK_BYTES);
	assert_pattern(j);
	append_pattern(j, 2 * MAX_BYTES);
	assert_pattern(j);
	journal_shrink(j, 0);
	assert_int_equal(journal_memory(j), 0);
	assert_int_equal(journal_oldest(j), journal_head(j));
	append_pattern(j, 100);
	assert_int_equal(journal_head(j) - journal_oldest(j), 100);
	assert_pattern(j);
	journal_destroy(j);
}

static void remembers_sizes_at_their_offsets(void **state)
{
	(void)state;
	struct journal *j = journal_create(MAX_BYTES, 80, 24);
	uint16_t cols, rows;
	append_pattern(j, 10);
	journal_resize(j, 80, 24); /* the same: no mark */
	assert_int_equal(journal_marks_end(j), 0);
	journal_resize(j, 90, 25);
	journal_resize(j, 91, 26);
	append_pattern(j, 10);
	journal_resize(j, 92, 27);
	assert_int_equal(journal_marks_end(j), 3);
	assert_int_equal(journal_mark_from(j, 0), 0);
	assert_int_equal(journal_mark_from(j, 10), 0);
	assert_int_equal(journal_mark_from(j, 11), 2);
	assert_int_equal(journal_mark_from(j, 21), 3);
	assert_null(journal_mark(j, 3));
	journal_size_at(j, 9, &cols, &rows);
	assert_int_equal(cols, 80);
	journal_size_at(j, 10, &cols, &rows);
	assert_int_equal(cols, 91);
	journal_size_at(j, 20, &cols, &rows);
	assert_int_equal(cols, 92);
	append_pattern(j, 2 * MAX_BYTES); /* the marks fall out with their bytes */
	assert_null(journal_mark(j, 2));
	assert_int_equal(journal_mark_from(j, journal_oldest(j)), 3);
	journal_size_at(j, journal_oldest(j), &cols, &rows);
	assert_int_equal(cols, 92);
	journal_destroy(j);
}

static void bounds_the_marks(void **state)
{
	(void)state;
	struct journal *j = journal_create(MAX_BYTES, 80, 24);
	for (unsigned i = 0; i < 10000; i++)
		journal_resize(j, (uint16_t)(1 + i % 1000), 24);
	assert_int_equal(journal_marks_end(j), 10000);
	assert_null(journal_mark(j, 0));
	assert_int_equal(journal_mark(j, 9999)->cols, 1000);
	uint64_t first = journal_mark_from(j, 0);
	assert_true(first > 0 && journal_mark(j, first) != NULL);
	journal_destroy(j);
}

static void rejoins_at_a_line_start_or_a_character(void **state)
{
	(void)state;
	struct journal *j = journal_create(MAX_BYTES, 80, 24);
	uint8_t x[1000];
	memset(x, 'x', sizeof(x));
	for (int i = 0; i < 300; i++)
		journal_append(j, x, sizeof(x));
	assert_int_equal(journal_rejoin(j), 300000 - 65536); /* no line end: the character there */
	journal_append(j, (const uint8_t *)"\nab", 3);
	assert_int_equal(journal_rejoin(j), 300001);
	journal_restart(j, 0, 80, 24);
	for (int i = 0; i < 100000; i++) /* three bytes each, so 64 KiB back is inside of one */
		journal_append(j, (const uint8_t *)"\xe2\x82\xac", 3);
	assert_int_equal(journal_rejoin(j) % 3, 0);
	assert_true(journal_rejoin(j) - (300000 - 65536) < 3);
	journal_destroy(j);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(holds_at_least_what_it_was_made_for),
		cmocka_unit_test(takes_no_memory_before_the_first_byte),
		cmocka_unit_test(copies_over_the_seams_of_chunks),
		cmocka_unit_test(starts_anew_at_any_offset),
		cmocka_unit_test(gives_memory_back_and_goes_on),
		cmocka_unit_test(remembers_sizes_at_their_offsets),
		cmocka_unit_test(bounds_the_marks),
		cmocka_unit_test(rejoins_at_a_line_start_or_a_character),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
