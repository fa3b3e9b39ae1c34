/* test_utf8.c -- utf8.h: the examples of the Unicode standard, every code point, every cut. */
#include "tests/unit/wire/test.h"

#include "tests/fuzz/fuzz_utf8.c" /* the fuzz target itself */

#define R "\xef\xbf\xbd" /* U+FFFD */

static const char every_length[] = "a\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"; /* a, ä, €, an emoji */

static void assert_replaced(const char *data, size_t size, const char *expected)
{
	uint8_t out[256];
	assert_true(3 * size <= sizeof(out));
	size_t written = utf8_replace(out, (const uint8_t *)data, size);
	assert_int_equal(written, strlen(expected));
	assert_memory_equal(out, expected, written);
}

#define ASSERT_REPLACED(data, expected) assert_replaced(data, sizeof(data) - 1, expected)

static void replaces_each_maximal_subpart_once(void **state)
{
	(void)state;
	/* Unicode 15, section 3.9, tables 3-8 to 3-11. */
	ASSERT_REPLACED("\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41", R R R R R R R R "A");
	ASSERT_REPLACED("\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41", R R R R R R R R "A");
	ASSERT_REPLACED("\xf4\x91\x92\x93\xff\x41\x80\xbf\x42", R R R R R "A" R R "B");
	ASSERT_REPLACED("\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", R R R R "A");

	ASSERT_REPLACED("", "");
	ASSERT_REPLACED("plain", "plain");
	ASSERT_REPLACED("\xe2\x82\xac", "\xe2\x82\xac");
	ASSERT_REPLACED("\xe2\x82", R);
	ASSERT_REPLACED("\xf0\x9f\x98", R);
	ASSERT_REPLACED("x\xf0\x9f\x98y", "x" R "y");
	ASSERT_REPLACED("\xff\xfe", R R);
	ASSERT_REPLACED("\xf5\x80\x80\x80", R R R R);
	ASSERT_REPLACED("\xef\xbb\xbf"
			"a",
			"\xef\xbb\xbf"
			"a"); /* a byte order mark stays */
}

static void accepts_every_code_point_and_no_surrogate(void **state)
{
	(void)state;
	for (uint32_t code = 0x80; code <= 0x10ffff; code++) {
		uint8_t text[4];
		size_t size;
		if (code < 0x800) {
			text[0] = (uint8_t)(0xc0 | code >> 6);
			size = 2;
		} else if (code < 0x10000) {
			text[0] = (uint8_t)(0xe0 | code >> 12);
			size = 3;
		} else {
			text[0] = (uint8_t)(0xf0 | code >> 18);
			size = 4;
		}
		for (size_t i = 1; i < size; i++)
			text[i] = (uint8_t)(0x80 | (code >> (6 * (size - 1 - i)) & 0x3f));
		bool surrogate = code >= 0xd800 && code <= 0xdfff;
		bool valid;
		if (utf8_valid(text, size) == surrogate)
			fail_msg("U+%04x", code);
		if (!surrogate)
			assert_int_equal(utf8_step(text, size, &valid), size);
	}
}

/* Every pair and triple of bytes, against the decoder of the standard. */
static void agrees_with_whatwg_on_all_short_texts(void **state)
{
	(void)state;
	for (uint32_t bits = 0; bits < 1u << 24; bits++) {
		uint8_t text[3] = { (uint8_t)(bits >> 16), (uint8_t)(bits >> 8), (uint8_t)bits };
		if (text[0] < 0xc0 || (text[2] > 0x42 && text[2] < 0x7e))
			continue; /* the rest is nothing new */
		uint8_t expected[9], out[9];
		bool expected_valid;
		size_t expected_size = whatwg_decode(expected, text, 3, &expected_valid);
		size_t size = utf8_replace(out, text, 3);
		if (size != expected_size || memcmp(out, expected, size) != 0 ||
		    utf8_valid(text, 3) != expected_valid)
			fail_msg("%02x %02x %02x", text[0], text[1], text[2]);
	}
}

static void finds_what_is_not_ascii_at_every_place_in_a_block(void **state)
{
	(void)state;
	for (size_t size = 0; size <= 150; size++) {
		for (size_t at = 0; at < size; at++) {
			uint8_t *text = exactly(size);
			memset(text, 'x', size);
			text[at] = 0xff;
			assert_int_equal(utf8_valid_prefix(text, size), at);
			text[at] = 0x7f;
			assert_true(utf8_valid(text, size));
			free(text);
		}
	}
}

static void steps_over_characters_and_over_invalid_parts(void **state)
{
	(void)state;
	const uint8_t text[] = "a\xc3\xa4\xe2\x82\xf0\x9f\x98\x80\xff\xf0\x9f\x98";
	static const struct {
		size_t bytes;
		bool valid;
	} parts[] = { { 1, true }, { 2, true },  { 2, false },
		      { 4, true }, { 1, false }, { 3, false } };
	size_t at = 0;
	for (size_t i = 0; i < COUNT_OF(parts); i++) {
		bool valid = !parts[i].valid;
		assert_int_equal(utf8_step(text + at, sizeof(text) - 1 - at, &valid),
				 parts[i].bytes);
		assert_int_equal(valid, parts[i].valid);
		at += parts[i].bytes;
	}
	assert_int_equal(at, sizeof(text) - 1);
}

static size_t incomplete_tail(const char *text)
{
	return utf8_incomplete_tail((const uint8_t *)text, strlen(text));
}

static void holds_back_only_what_may_still_become_a_character(void **state)
{
	(void)state;
	assert_int_equal(incomplete_tail(""), 0);
	assert_int_equal(incomplete_tail("a"), 0);
	assert_int_equal(incomplete_tail("\xc3"), 1);
	assert_int_equal(incomplete_tail("\xc3\xa4"), 0);
	assert_int_equal(incomplete_tail("a\xe2"), 1);
	assert_int_equal(incomplete_tail("a\xe2\x82"), 2);
	assert_int_equal(incomplete_tail("a\xe2\x82\xac"), 0);
	assert_int_equal(incomplete_tail("a\xf0\x9f"), 2);
	assert_int_equal(incomplete_tail("a\xf0\x9f\x98"), 3);
	assert_int_equal(incomplete_tail("\xf0\x9f\x98"), 3);
	assert_int_equal(incomplete_tail("\xf0\x9f\x98\x80"), 0);
	/* Hopeless ones go out at once. */
	assert_int_equal(incomplete_tail("\x80"), 0);
	assert_int_equal(incomplete_tail("\xc0"), 0);
	assert_int_equal(incomplete_tail("\xff"), 0);
	assert_int_equal(incomplete_tail("\xf5\x80"), 0);
	assert_int_equal(incomplete_tail("\xe0\x80"), 0);
	assert_int_equal(incomplete_tail("\xed\xa0"), 0);
	assert_int_equal(incomplete_tail("\xf4\x90\x80"), 0);
	assert_int_equal(incomplete_tail("\xc3\xa4\x80\x80"), 0);
	assert_int_equal(incomplete_tail("\x80\x80\x80\x80"), 0);
}

static void gives_the_same_text_for_a_character_cut_at_every_byte(void **state)
{
	(void)state;
	size_t size = sizeof(every_length) - 1;
	const uint8_t *text = (const uint8_t *)every_length;
	for (size_t cut = 0; cut <= size; cut++) {
		size_t tail = utf8_incomplete_tail(text, cut);
		uint8_t out[64];
		size_t written = utf8_replace(out, text, cut - tail);
		written += utf8_replace(out + written, text + cut - tail, size - cut + tail);
		assert_int_equal(written, size);
		assert_memory_equal(out, text, size);
	}
}

static size_t rest_of(const char *before, const char *data)
{
	return utf8_rest_of_character((const uint8_t *)before, strlen(before),
				      (const uint8_t *)data, strlen(data));
}

static void skips_the_rest_of_a_character_that_began_before(void **state)
{
	(void)state;
	size_t size = sizeof(every_length) - 1;
	static const size_t rests[] = { 0, 0, 1, 0, 2, 1, 0, 3, 2, 1, 0 };
	for (size_t cut = 1; cut <= size; cut++)
		assert_int_equal(utf8_rest_of_character((const uint8_t *)every_length, cut,
							(const uint8_t *)every_length + cut,
							size - cut),
				 rests[cut]);

	assert_int_equal(rest_of("abc", "\x80\x80z"), 0); /* nothing began: they are invalid */
	assert_int_equal(rest_of("ab\xe2", "\x82\xac\x80"), 2);
	assert_int_equal(rest_of("ab\xe2", "\x82z"), 1); /* the rest of an invalid part */
	assert_int_equal(rest_of("ab\xe0", "\x80z"), 0); /* E0 80 is none */
	assert_int_equal(rest_of("ab\xe2", "z"), 0);
	assert_int_equal(rest_of("ab\xe2", ""), 0);
	assert_int_equal(rest_of("\x80\x80\x80", "\x80"), 0); /* complete, whatever began it */
}

static void takes_leading_continuations_for_a_rest_when_the_start_is_not_held(void **state)
{
	(void)state;
	assert_int_equal(utf8_rest_of_character(NULL, 0, (const uint8_t *)"\x9f\x98\x80\x80z", 5),
			 3);
	assert_int_equal(utf8_rest_of_character(NULL, 0, (const uint8_t *)"\x80z", 2), 1);
	assert_int_equal(utf8_rest_of_character(NULL, 0, (const uint8_t *)"z\x80", 2), 0);
	assert_int_equal(rest_of("\x9f", "\x98\x80\x80z"), 2);
	assert_int_equal(rest_of("\x9f\x98", "\x80\x80z"), 1);
}

static void validates_a_text_in_pieces(void **state)
{
	(void)state;
	size_t size = sizeof(every_length) - 1;
	struct utf8_validator v = { 0 };
	for (size_t i = 0; i < size; i++) {
		assert_true(utf8_validator_feed(&v, (const uint8_t *)every_length + i, 1));
		assert_int_equal(utf8_validator_complete(&v),
				 utf8_incomplete_tail((const uint8_t *)every_length, i + 1) == 0);
	}
	assert_true(utf8_validator_feed(&v, NULL, 0));
	assert_true(utf8_validator_complete(&v));
}

static void says_at_once_what_cannot_become_valid(void **state)
{
	(void)state;
	static const char *const texts[] = { "\x80",      "\xc1",     "\xe0\x9f", "\xed\xa0",
					     "\xf0\x8f",  "\xf4\x90", "\xf5",     "\xff",
					     "\xe2\x82z", "\xc3\xc3" };
	for (size_t i = 0; i < COUNT_OF(texts); i++) {
		struct utf8_validator v = { 0 };
		size_t size = strlen(texts[i]);
		assert_true(utf8_validator_feed(&v, (const uint8_t *)texts[i], size - 1));
		assert_false(utf8_validator_feed(&v, (const uint8_t *)texts[i] + size - 1, 1));
	}
}

static void replays_its_corpus(void **state)
{
	(void)state;
	replay_corpus("utf8", LLVMFuzzerTestOneInput);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(replaces_each_maximal_subpart_once),
		cmocka_unit_test(accepts_every_code_point_and_no_surrogate),
		cmocka_unit_test(agrees_with_whatwg_on_all_short_texts),
		cmocka_unit_test(finds_what_is_not_ascii_at_every_place_in_a_block),
		cmocka_unit_test(steps_over_characters_and_over_invalid_parts),
		cmocka_unit_test(holds_back_only_what_may_still_become_a_character),
		cmocka_unit_test(gives_the_same_text_for_a_character_cut_at_every_byte),
		cmocka_unit_test(skips_the_rest_of_a_character_that_began_before),
		cmocka_unit_test(takes_leading_continuations_for_a_rest_when_the_start_is_not_held),
		cmocka_unit_test(validates_a_text_in_pieces),
		cmocka_unit_test(says_at_once_what_cannot_become_valid),
		cmocka_unit_test(replays_its_corpus),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
