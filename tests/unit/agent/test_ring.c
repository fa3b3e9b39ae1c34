/* test_ring.c -- agent/ring.h: offsets, wrapping, size changes, and readers that fall off. */
#include "tests/unit/wire/test.h"

#include "tests/fuzz/fuzz_agent_ring.c" /* the fuzz target itself, and with it ring.c */

static void fill(struct ring *r, const char *text)
{
	while (*text != '\0') {
		struct iovec spans[2];
		(void)ring_space(r, 1, spans);
		*(char *)spans[0].iov_base = *text++;
		ring_advance(r, 1);
	}
}

/* All that stands from the cursor on, as text such as "abc <100x30> de", a gap as "!7 <80x24> ". */
static void tell(const struct ring *r, struct ring_cursor *c, size_t max, char *ret)
{
	struct ring_item item;
	do {
		ring_next(r, c, max, &item);
		if (item.type == RING_GAP)
			ret += sprintf(ret, "!%u", (unsigned)item.offset);
		if (item.type == RING_SIZE || item.type == RING_GAP)
			ret += sprintf(ret, "<%ux%u>", item.cols, item.rows);
		for (int i = 0; item.type == RING_BYTES && i < item.span_count; i++)
			ret += sprintf(ret, "%.*s", (int)item.spans[i].iov_len,
				       (const char *)item.spans[i].iov_base);
		if (item.type == RING_BYTES)
			ret += sprintf(ret, "|");
	} while (item.type != RING_END);
	*ret = '\0';
}

static void gives_back_bytes_from_every_offset(void **state)
{
	(void)state;
	struct ring r = { 0 };
	char told[64];
	assert_int_equal(ring_init(&r, 8, 80, 24), 0);
	fill(&r, "0123456789abc"); /* wraps; "56789abc" are held */
	assert_int_equal(r.tail, 5);
	assert_int_equal(r.head, 13);
	for (unsigned offset = 5; offset <= 13; offset++) {
		char expected[16] = "";
		struct ring_cursor c = ring_cursor_at(&r, offset);
		tell(&r, &c, 100, told);
		if (offset < 13)
			sprintf(expected, "%s|", &"0123456789abc"[offset]);
		assert_string_equal(told, expected);
	}
	ring_fini(&r);
}

static void cuts_pieces_at_the_maximum(void **state)
{
	(void)state;
	struct ring r = { 0 };
	char told[64];
	assert_int_equal(ring_init(&r, 8, 80, 24), 0);
	fill(&r, "abcdefgh");
	struct ring_cursor c = ring_cursor_at(&r, 0);
	tell(&r, &c, 3, told);
	assert_string_equal(told, "abc|def|gh|");
	ring_fini(&r);
}

static void a_cursor_is_moved_into_what_is_held(void **state)
{
	(void)state;
	struct ring r = { 0 };
	assert_int_equal(ring_init(&r, 4, 80, 24), 0);
	fill(&r, "abcdefgh");
	assert_int_equal(ring_cursor_at(&r, 0).offset, 4);
	assert_int_equal(ring_cursor_at(&r, 3).offset, 4);
	assert_int_equal(ring_cursor_at(&r, 8).offset, 8);
	assert_int_equal(ring_cursor_at(&r, 9).offset, 8);
	assert_int_equal(ring_cursor_at(&r, UINT64_MAX).offset, 8);
	ring_fini(&r);
}

static void sizes_stand_at_their_offset(void **state)
{
	(void)state;
	struct ring r = { 0 };
	char told[64];
	assert_int_equal(ring_init(&r, 16, 80, 24), 0);
	struct ring_cursor live = ring_cursor_at(&r, 0);
	assert_int_equal(ring_resize(&r, 80, 24), 0); /* no change */
	assert_int_equal(ring_resize(&r, 90, 30), 1);
	fill(&r, "ab");
	assert_int_equal(ring_resize(&r, 91, 31), 1);
	assert_int_equal(ring_resize(&r, 92, 32), 1); /* replaces the one before */
	fill(&r, "cd");
	assert_int_equal(ring_resize(&r, 93, 33), 1);
	tell(&r, &live, 100, told);
	assert_string_equal(told, "<90x30>ab|<92x32>cd|<93x33>");

	static const char *const from[] = { "ab|<92x32>cd|<93x33>", "b|<92x32>cd|<93x33>",
					    "cd|<93x33>", "d|<93x33>", "" };
	static const unsigned cols[] = { 90, 90, 92, 92, 93 };
	for (unsigned offset = 0; offset <= 4; offset++) {
		uint16_t c, rows;
		struct ring_cursor late = ring_cursor_at(&r, offset);
		tell(&r, &late, 100, told);
		assert_string_equal(told, from[offset]);
		ring_size_at(&r, offset, &c, &rows);
		assert_int_equal(c, cols[offset]);
	}
	ring_fini(&r);
}

static void a_reader_at_the_head_sees_two_sizes_at_one_offset(void **state)
{
	(void)state;
	struct ring r = { 0 };
	char told[64];
	assert_int_equal(ring_init(&r, 16, 80, 24), 0);
	struct ring_cursor live = ring_cursor_at(&r, 0);
	assert_int_equal(ring_resize(&r, 90, 30), 1);
	tell(&r, &live, 100, told);
	assert_string_equal(told, "<90x30>");
	assert_int_equal(ring_resize(&r, 91, 31), 1);
	tell(&r, &live, 100, told);
	assert_string_equal(told, "<91x31>");
	ring_fini(&r);
}

static void a_size_that_was_overwritten_still_holds(void **state)
{
	(void)state;
	struct ring r = { 0 };
	char told[64];
	assert_int_equal(ring_init(&r, 4, 80, 24), 0);
	struct ring_cursor slow = ring_cursor_at(&r, 0);
	fill(&r, "ab");
	assert_int_equal(ring_resize(&r, 90, 30), 1);
	fill(&r, "cd");
	assert_int_equal(ring_resize(&r, 91, 31), 1);
	fill(&r, "efg");
	tell(&r, &slow, 100, told);
	assert_string_equal(told, "!3<90x30>d|<91x31>efg|");
	ring_fini(&r);
}

static void a_reader_that_stands_at_the_oldest_byte_misses_no_size(void **state)
{
	(void)state;
	struct ring r = { 0 };
	char told[64];
	assert_int_equal(ring_init(&r, 4, 80, 24), 0);
	fill(&r, "ab");
	struct ring_cursor c = ring_cursor_at(&r, 2);
	assert_int_equal(ring_resize(&r, 90, 30), 1);
	fill(&r, "cdef"); /* the tail is at the mark now */
	assert_int_equal(r.tail, 2);
	tell(&r, &c, 100, told);
	assert_string_equal(told, "<90x30>cdef|");
	ring_fini(&r);
}

static void too_many_sizes_push_out_the_oldest_bytes(void **state)
{
	(void)state;
	struct ring r = { 0 };
	assert_int_equal(ring_init(&r, 1 << 20, 80, 24), 0);
	for (unsigned i = 0; i < 2 * RING_MARKS_MAX; i++) {
		assert_int_equal(ring_resize(&r, (uint16_t)(100 + i % 2), 24), 1);
		fill(&r, "x");
	}
	assert_int_equal(r.mark_count, RING_MARKS_MAX);
	assert_int_equal(r.tail, RING_MARKS_MAX);
	uint16_t cols, rows;
	ring_size_at(&r, r.tail, &cols, &rows);
	assert_int_equal(cols, 100);
	ring_fini(&r);
}

static void replays_its_corpus(void **state)
{
	(void)state;
	replay_corpus("agent_ring", LLVMFuzzerTestOneInput);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gives_back_bytes_from_every_offset),
		cmocka_unit_test(cuts_pieces_at_the_maximum),
		cmocka_unit_test(a_cursor_is_moved_into_what_is_held),
		cmocka_unit_test(sizes_stand_at_their_offset),
		cmocka_unit_test(a_reader_at_the_head_sees_two_sizes_at_one_offset),
		cmocka_unit_test(a_size_that_was_overwritten_still_holds),
		cmocka_unit_test(a_reader_that_stands_at_the_oldest_byte_misses_no_size),
		cmocka_unit_test(too_many_sizes_push_out_the_oldest_bytes),
		cmocka_unit_test(replays_its_corpus),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
