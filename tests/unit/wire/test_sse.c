/* test_sse.c -- sse.h: what is escaped and what is not, whole events, ids. */
#include "tests/unit/wire/test.h"

#include "tests/fuzz/fuzz_sse.c" /* the fuzz target itself */

static void assert_escaped(const char *data, size_t size, const char *expected)
{
	char out[512];
	assert_true(JSON_ESCAPE_BYTES(size) <= sizeof(out));
	size_t written = json_escape(out, (const uint8_t *)data, size);
	assert_int_equal(written, strlen(expected));
	assert_memory_equal(out, expected, written);
}

#define ASSERT_ESCAPED(data, expected) assert_escaped(data, sizeof(data) - 1, expected)

static void escapes_what_json_forbids_and_nothing_else(void **state)
{
	(void)state;
	ASSERT_ESCAPED("", "");
	ASSERT_ESCAPED("$ ls -l /tmp", "$ ls -l /tmp");
	ASSERT_ESCAPED("\"\\", "\\\"\\\\");
	ASSERT_ESCAPED("\b\t\n\f\r", "\\b\\t\\n\\f\\r");
	ASSERT_ESCAPED("\033[32mok\033[0m\r\n", "\\u001b[32mok\\u001b[0m\\r\\n");
	ASSERT_ESCAPED("\0\x01\x1f\x7f", "\\u0000\\u0001\\u001f\x7f");
	ASSERT_ESCAPED("\xe2\x80\xa8", "\xe2\x80\xa8"); /* U+2028 is allowed in JSON */
	ASSERT_ESCAPED("a\xff"
		       "b\xe2\x82",
		       "a\xef\xbf\xbd"
		       "b\xef\xbf\xbd");
}

static void escapes_every_control_character(void **state)
{
	(void)state;
	for (unsigned c = 0; c < 0x20; c++) {
		const char *letter = c > 0 ? strchr("\bb\tt\nn\ff\rr", (int)c) : NULL;
		char expected[8];
		if (letter != NULL)
			snprintf(expected, sizeof(expected), "\\%c", letter[1]);
		else
			snprintf(expected, sizeof(expected), "\\u%04x", c);
		assert_escaped(&(char){ (char)c }, 1, expected);
	}
}

/* Alone in a text of every length, so in every place of a block and behind the last one. */
static void finds_a_special_byte_at_every_place_in_a_block(void **state)
{
	(void)state;
	static const char specials[] = { '\0', 0x1f, '"', '\\', '\x7f', '!',
					 '#',  '[',  ']', ' ',  '\x80' };
	for (size_t size = 1; size <= 40; size++) {
		for (size_t at = 0; at < size; at++) {
			for (size_t i = 0; i < sizeof(specials); i++) {
				uint8_t *text = exactly(size);
				memset(text, 'x', size);
				text[at] = (uint8_t)specials[i];
				check_escape(text, size);
				free(text);
			}
		}
	}
}

static void never_needs_more_room_than_it_says(void **state)
{
	(void)state;
	for (size_t size = 0; size <= 70; size++) {
		uint8_t *text = exactly(size);
		char *out = exactly(JSON_ESCAPE_BYTES(size)); /* AddressSanitizer watches its end */
		memset(text, '\0', size);
		assert_int_equal(json_escape(out, text, size), JSON_ESCAPE_BYTES(size));
		memset(text, '\xff', size);
		assert_int_equal(json_escape(out, text, size), 3 * size);
		memset(text, '"', size);
		assert_int_equal(json_escape(out, text, size), 2 * size);
		free(out);
		free(text);
	}
}

static void gives_the_same_for_text_cut_at_every_character(void **state)
{
	(void)state;
	static const char text[] = "\033[1mgr\xc3\xbc\xc3\x9f \xe2\x82\xac\033[0m \xf0\x9f\x98\x80 "
				   "\"\xff\xe2\x82\"\r\n";
	const uint8_t *data = (const uint8_t *)text;
	size_t size = sizeof(text) - 1;
	char whole[JSON_ESCAPE_BYTES(sizeof(text))], pieces[sizeof(whole)];
	size_t whole_size = json_escape(whole, data, size);
	for (size_t at = 0; at <= size; at++) {
		size_t cut = at - utf8_incomplete_tail(data, at);
		size_t pieces_size = json_escape(pieces, data, cut);
		pieces_size += json_escape(pieces + pieces_size, data + cut, size - cut);
		assert_int_equal(pieces_size, whole_size);
		assert_memory_equal(pieces, whole, whole_size);
	}
}

static void writes_an_output_event_as_text(void **state)
{
	(void)state;
	static const char expected[] = "id: 3f9c5a0e77b1d204:4096\n"
				       "event: output\n"
				       "data: {\"data\":\"\\u001b[32mok\\u001b[0m\\r\\n\"}\n\n";
	static const uint8_t data[] = "\033[32mok\033[0m\r\n";
	char out[SSE_OUTPUT_BYTES(sizeof(data))];
	assert_int_equal(sse_output_text(out, 0x3f9c5a0e77b1d204, 4096, data, sizeof(data) - 1),
			 sizeof(expected) - 1);
	assert_memory_equal(out, expected, sizeof(expected) - 1);
}

static void writes_an_output_event_as_base64(void **state)
{
	(void)state;
	static const char expected[] = "id: 000000000000000a:18446744073709551615\n"
				       "event: output\n"
				       "data: {\"base64\":\"/wAbWw==\"}\n\n";
	static const uint8_t data[] = { 0xff, 0x00, 0x1b, 0x5b };
	char out[SSE_OUTPUT_BYTES(sizeof(data))];
	assert_int_equal(sse_output_base64(out, 10, UINT64_MAX, data, sizeof(data)),
			 sizeof(expected) - 1);
	assert_memory_equal(out, expected, sizeof(expected) - 1);
}

static void writes_other_events_with_an_id_and_without(void **state)
{
	(void)state;
	static const char json[] = "{\"cols\":80,\"rows\":24}";
	char out[sizeof(json) + 128];

	static const char with_id[] = "id: ffffffffffffffff:0\nevent: resize\n"
				      "data: {\"cols\":80,\"rows\":24}\n\n";
	assert_int_equal(sse_event(out, true, UINT64_MAX, 0, "resize", json, sizeof(json) - 1),
			 sizeof(with_id) - 1);
	assert_memory_equal(out, with_id, sizeof(with_id) - 1);

	static const char without_id[] = "event: state\ndata: {\"cols\":80,\"rows\":24}\n\n";
	assert_int_equal(sse_event(out, false, 1, 2, "state", json, sizeof(json) - 1),
			 sizeof(without_id) - 1);
	assert_memory_equal(out, without_id, sizeof(without_id) - 1);
}

static void reads_an_id_back(void **state)
{
	(void)state;
	uint64_t epoch, offset;
	assert_int_equal(sse_id_parse("3f9c5a0e77b1d204:4096", 21, &epoch, &offset), 0);
	assert_true(epoch == 0x3f9c5a0e77b1d204);
	assert_true(offset == 4096);
	assert_int_equal(sse_id_parse("0000000000000000:0", 18, &epoch, &offset), 0);
	assert_true(epoch == 0);
	assert_true(offset == 0);
	assert_int_equal(sse_id_parse("ffffffffffffffff:18446744073709551615", 37, &epoch, &offset),
			 0);
	assert_true(epoch == UINT64_MAX);
	assert_true(offset == UINT64_MAX);
}

static void refuses_an_id_that_was_never_written(void **state)
{
	(void)state;
	static const char *const texts[] = {
		"",
		":",
		"3f9c5a0e77b1d204",
		"3f9c5a0e77b1d204:",
		"3f9c5a0e77b1d20:4096",
		"3f9c5a0e77b1d2044:4096",
		"3F9C5A0E77B1D204:4096",
		"3f9c5a0e77b1d20g:4096",
		"3f9c5a0e77b1d204 4096",
		"3f9c5a0e77b1d204:-1",
		"3f9c5a0e77b1d204:+1",
		"3f9c5a0e77b1d204: 1",
		"3f9c5a0e77b1d204:1 ",
		"3f9c5a0e77b1d204:0x10",
		"3f9c5a0e77b1d204:007",
		"3f9c5a0e77b1d204:18446744073709551616",
		"3f9c5a0e77b1d204:28446744073709551615",
		"3f9c5a0e77b1d204:184467440737095516150",
	};
	uint64_t epoch = 7, offset = 8;
	for (size_t i = 0; i < COUNT_OF(texts); i++)
		assert_int_equal(sse_id_parse(texts[i], strlen(texts[i]), &epoch, &offset),
				 -EBADMSG);
	assert_int_equal(sse_id_parse("3f9c5a0e77b1d204:40\0", 20, &epoch, &offset), -EBADMSG);
	assert_true(epoch == 7); /* untouched on failure */
	assert_true(offset == 8);
}

static void replays_its_corpus(void **state)
{
	(void)state;
	replay_corpus("sse", LLVMFuzzerTestOneInput);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(escapes_what_json_forbids_and_nothing_else),
		cmocka_unit_test(escapes_every_control_character),
		cmocka_unit_test(finds_a_special_byte_at_every_place_in_a_block),
		cmocka_unit_test(never_needs_more_room_than_it_says),
		cmocka_unit_test(gives_the_same_for_text_cut_at_every_character),
		cmocka_unit_test(writes_an_output_event_as_text),
		cmocka_unit_test(writes_an_output_event_as_base64),
		cmocka_unit_test(writes_other_events_with_an_id_and_without),
		cmocka_unit_test(reads_an_id_back),
		cmocka_unit_test(refuses_an_id_that_was_never_written),
		cmocka_unit_test(replays_its_corpus),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
