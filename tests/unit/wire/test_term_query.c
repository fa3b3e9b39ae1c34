/* test_term_query.c -- term_query.h: what asks is taken out, in every form and cut anywhere; all else stays. */
#include "tests/unit/wire/test.h"

#include "tests/fuzz/fuzz_term_query.c" /* the fuzz target itself */

static void assert_left(const char *data, size_t size, const char *expected, size_t expected_size)
{
	uint8_t out[4096];
	size_t taken;
	size_t n = term_query_remove(out, (const uint8_t *)data, size, true, &taken);
	assert_int_equal(taken, size);
	assert_int_equal(n, expected_size);
	assert_memory_equal(out, expected, n);
}

#define ASSERT_LEFT(data, expected) \
	assert_left(data, sizeof(data) - 1, expected, sizeof(expected) - 1)
#define ASSERT_REMOVED(query) ASSERT_LEFT("a" query "b", "ab")
#define ASSERT_KEPT(data) ASSERT_LEFT(data, data)

static void takes_out_every_question(void **state)
{
	(void)state;
	ASSERT_REMOVED("\033[5n");
	ASSERT_REMOVED("\033[6n");
	ASSERT_REMOVED("\033[?6n");
	ASSERT_REMOVED("\033[?996n");
	ASSERT_REMOVED("\033[c");
	ASSERT_REMOVED("\033[0c");
	ASSERT_REMOVED("\033[>c");
	ASSERT_REMOVED("\033[>0c");
	ASSERT_REMOVED("\033[=c");
	ASSERT_REMOVED("\033[>q");
	ASSERT_REMOVED("\033[>0q");
	ASSERT_REMOVED("\033[1x");
	ASSERT_REMOVED("\033[?u");
	ASSERT_REMOVED("\033[4$p");
	ASSERT_REMOVED("\033[?2026$p");
	ASSERT_REMOVED("\033[?1;1;0S");
	ASSERT_REMOVED("\033[?4m");
	ASSERT_REMOVED("\033[1;1;1;1;1;1*y");
	ASSERT_REMOVED("\033[2$w");
	ASSERT_REMOVED("\033[1'|");
	ASSERT_REMOVED("\033[11t");
	ASSERT_REMOVED("\033[14;2t");
	ASSERT_REMOVED("\033[18t");
	ASSERT_REMOVED("\033[21t");
	ASSERT_REMOVED("\033]10;?\a");
	ASSERT_REMOVED("\033]11;?\033\\");
	ASSERT_REMOVED("\033]12;?\xc2\x9c");
	ASSERT_REMOVED("\033]4;1;?;2;?\a");
	ASSERT_REMOVED("\033]52;c;?\a");
	ASSERT_REMOVED("\033]1337;ReportCellSize\a");
	ASSERT_REMOVED("\033P$qm\033\\");
	ASSERT_REMOVED("\033P+q544e\033\\");
	ASSERT_REMOVED("\033_Gi=1,a=q;AAAA\033\\");
	ASSERT_REMOVED("\005");
	ASSERT_REMOVED("\033Z");
	ASSERT_REMOVED("\033[?1004h");
	ASSERT_REMOVED("\xc2\x9b"
		       "6n"); /* C1 */
	ASSERT_REMOVED("\xc2\x9d"
		       "10;?\xc2\x9c");
	ASSERT_REMOVED("\xc2\x90$qm\xc2\x9c");
	ASSERT_REMOVED("\xc2\x9a");
	ASSERT_REMOVED("\033[6n\033[c\005\033]11;?\a");
}

static void leaves_all_else(void **state)
{
	(void)state;
	ASSERT_KEPT("");
	ASSERT_KEPT("plain text?\r\n\xc3\xa9\xe2\x82\xac 6n [c");
	ASSERT_KEPT("\033[1;31mred\033[0m\033[2J\033[H\033[?1049h\033[?25l");
	ASSERT_KEPT("\033[>4;2m\033[>1u\033[<u\033[=1u\033[4l\033[!p\033[2 q");
	ASSERT_KEPT("\033[>4n"); /* switches modifiers off */
	ASSERT_KEPT("\033[8;24;80t\033[22;0t\033[23;0t\033[1t");
	ASSERT_KEPT(
		"\033]0;what?\a\033]10;#ffffff\a\033]4;1;rgb:00/00/00\033\\\033]8;;http://x/?q\a");
	ASSERT_KEPT("\033]52;c;aGVsbG8=\a");
	ASSERT_KEPT("\033Pq#0;2;0;0;0\033\\\033_Ga=T,f=100;AAAA\033\\");
	ASSERT_KEPT("\0337\0338\033(B\033=\033>\033M");
	ASSERT_KEPT("\033[?1004l\033[?2004h\033[?1006;1004h");
	ASSERT_KEPT("\033["); /* cut, and nothing follows */
	ASSERT_KEPT("\033]10;?");
	ASSERT_KEPT("\xc2\xa9\xc2\x85\xc2");
}

static void leaves_what_is_broken_off(void **state)
{
	(void)state;
	ASSERT_KEPT("\033[6\030n");
	ASSERT_KEPT("\033]10;?\030");
	/* An ESC ends a text whatever follows it. */
	ASSERT_LEFT("\033]10;?\033[1m", "\033[1m");
	/* What a question breaks off must not go on behind it. */
	ASSERT_LEFT("\033[6\033[cn", "\033[6\030n");
	ASSERT_LEFT("\033\xc2\x9b"
		    "6n[6n",
		    "\033\030[6n");
}

static void carries_out_control_characters_inside(void **state)
{
	(void)state;
	ASSERT_LEFT("a\033[6\r\nnb", "a\r\nb");
	ASSERT_LEFT("a\033[6\005nb", "ab");
}

static void lets_a_long_sequence_through(void **state)
{
	(void)state;
	char data[3000] = "\033]52;c;";
	memset(data + 7, 'A', sizeof(data) - 9);
	data[sizeof(data) - 2] = '?';
	data[sizeof(data) - 1] = '\a';
	assert_left(data, sizeof(data), data, sizeof(data));
	uint8_t out[sizeof(data)];
	size_t taken;
	for (size_t size = TERM_QUERY_BYTES_MAX; size < sizeof(data); size++) {
		term_query_remove(out, (const uint8_t *)data, size, false, &taken);
		assert_int_equal(taken, size);
	}
}

/* In pieces, with what is held given again in front of the next one. */
static void gives_the_same_cut_at_any_two_places(void **state)
{
	(void)state;
	static const char text[] = "ls\033[6n\r\n\033]11;?\033\\\xc2\x9b"
				   "c\xc2\xa9 \033[1mx\033[0m\033P$qm\033\\\033]0;t\a\005$ ";
	static const char expected[] = "ls\r\n\xc2\xa9 \033[1mx\033[0m\033]0;t\a$ ";
	const uint8_t *data = (const uint8_t *)text;
	size_t size = sizeof(text) - 1;
	for (size_t one = 0; one <= size; one++) {
		for (size_t two = one; two <= size; two++) {
			const size_t ends[] = { one, two, size };
			uint8_t out[sizeof(text)];
			size_t written = 0, at = 0, taken;
			for (size_t i = 0; i < COUNT_OF(ends); i++) {
				written += term_query_remove(out + written, data + at, ends[i] - at,
							     i == 2, &taken);
				at += taken;
			}
			assert_int_equal(at, size);
			assert_int_equal(written, sizeof(expected) - 1);
			assert_memory_equal(out, expected, written);
		}
	}
}

static void replays_the_corpus(void **state)
{
	(void)state;
	replay_corpus("term_query", LLVMFuzzerTestOneInput);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(takes_out_every_question),
		cmocka_unit_test(leaves_all_else),
		cmocka_unit_test(leaves_what_is_broken_off),
		cmocka_unit_test(carries_out_control_characters_inside),
		cmocka_unit_test(lets_a_long_sequence_through),
		cmocka_unit_test(gives_the_same_cut_at_any_two_places),
		cmocka_unit_test(replays_the_corpus),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
