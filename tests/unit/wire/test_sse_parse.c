/* test_sse_parse.c -- sse_parse.h: lines and fields, cut anywhere, and the limits. */
#include <stdbool.h>
#include <stdlib.h>

static bool refuse; /* memory */

static void *malloc_or_refuse(size_t size)
{
	return refuse ? NULL : malloc(size);
}

#define malloc malloc_or_refuse
#include "wire/sse_parse.c"
#undef malloc

#include "tests/unit/wire/test.h"

#include "tests/fuzz/fuzz_sse_parse.c" /* the fuzz target itself */

/* Events as text, "name=data;" each. */
struct events {
	char text[1024];
	size_t size;
	const char *stop_at; /* data; NULL: none */
};

static bool collect(void *arg, const char *name, const char *data, size_t size)
{
	struct events *e = arg;
	assert_int_equal(data[size], '\0');
	int n = snprintf(e->text + e->size, sizeof(e->text) - e->size, "%s=%s;", name, data);
	assert_true(n >= 0 && (size_t)n < sizeof(e->text) - e->size);
	e->size += (size_t)n;
	return e->stop_at == NULL || strcmp(data, e->stop_at) != 0;
}

/* All at once, byte by byte, and cut in two at every place. */
static void assert_events(const char *bytes, size_t size, const char *expected)
{
	for (size_t cut = 0; cut <= size + 1; cut++) {
		struct events e = { .text = "" };
		struct sse_parser p;
		sse_parser_init(&p, 1000);
		if (cut <= size) {
			assert_int_equal(sse_parser_feed(&p, bytes, cut, collect, &e), 0);
			assert_int_equal(sse_parser_feed(&p, bytes + cut, size - cut, collect, &e),
					 0);
		}
		for (size_t i = 0; cut > size && i < size; i++)
			assert_int_equal(sse_parser_feed(&p, bytes + i, 1, collect, &e), 0);
		sse_parser_fini(&p);
		assert_string_equal(e.text, expected);
	}
}
#define ASSERT_EVENTS(bytes, expected) assert_events(bytes, sizeof(bytes) - 1, expected)

static void reads_events_cut_at_any_byte(void **state)
{
	(void)state;
	ASSERT_EVENTS("", "");
	ASSERT_EVENTS("data: a\n\n", "=a;");
	ASSERT_EVENTS("data: a\n\ndata: b\n\n", "=a;=b;");
	ASSERT_EVENTS("event: error\ndata: {\"code\":408}\n\ndata: x\n\n",
		      "error={\"code\":408};=x;");
	ASSERT_EVENTS("data: a\n", ""); /* not finished */
	ASSERT_EVENTS("data: a\n\ndata: b", "=a;");
}

static void a_line_ends_with_lf_crlf_or_cr(void **state)
{
	(void)state;
	ASSERT_EVENTS("data: a\r\n\r\ndata: b\r\n\r\n", "=a;=b;");
	ASSERT_EVENTS("data: a\r\rdata: b\r\r", "=a;=b;");
	ASSERT_EVENTS("data: a\r\n\ndata: b\n\r\ndata: c\r\n\r", "=a;=b;=c;");
	ASSERT_EVENTS("data: a\rdata: b\ndata: c\r\n\n", "=a\nb\nc;");
	ASSERT_EVENTS("\r\n\n\r\r\ndata: a\n\n", "=a;");
}

static void a_field_is_what_the_standard_says(void **state)
{
	(void)state;
	ASSERT_EVENTS("data:a\n\n", "=a;");
	ASSERT_EVENTS("data:  a \n\n", "= a ;"); /* one space goes */
	ASSERT_EVENTS("data:\ta\n\n", "=\ta;");
	ASSERT_EVENTS("data: a:b: c\n\n", "=a:b: c;");
	ASSERT_EVENTS("data\n\n", "=;");
	ASSERT_EVENTS("data:\n\n", "=;");
	ASSERT_EVENTS("data\ndata\n\n", "=\n;");
	ASSERT_EVENTS("data: a\ndata:\ndata: b\n\n", "=a\n\nb;");
	ASSERT_EVENTS(" data: a\nDATA: b\ndat: c\ndataa: d\n\n", "");
	ASSERT_EVENTS(": comment\n:\ndata: a\n:x\n\n", "=a;");
	ASSERT_EVENTS("id: 7\nretry: 1\nfoo: bar\nfoo\ndata: a\n\n", "=a;");
	ASSERT_EVENTS("event: x\n\ndata: a\n\n", "=a;"); /* no data, no event, no name */
	ASSERT_EVENTS("event: x\nevent: y\ndata: a\n\n", "y=a;");
	ASSERT_EVENTS("event: x\nevent\ndata: a\n\n", "=a;");
	ASSERT_EVENTS("data: a\nevent: x\n\n", "x=a;");
}

static void a_byte_order_mark_is_dropped_at_the_start_only(void **state)
{
	(void)state;
	ASSERT_EVENTS("\xef\xbb\xbf"
		      "data: a\n\n",
		      "=a;");
	ASSERT_EVENTS("\xef\xbb\xbf\n"
		      "data: a\n\n",
		      "=a;");
	ASSERT_EVENTS("\xef\xbb"
		      "data: a\n\n",
		      "");
	ASSERT_EVENTS("data: a\n\n\xef\xbb\xbf"
		      "data: b\n\n",
		      "=a;");
	ASSERT_EVENTS("\n\xef\xbb\xbf"
		      "data: b\n\n",
		      "");
}

static void keeps_a_nul_in_the_data(void **state)
{
	(void)state;
	struct told t = { .bytes = exactly(64), .room = 64, .max_bytes = 100 };
	assert_int_equal(parse((const uint8_t *)"data: a\0b\n\n", 11, 3, &t), 0);
	assert_int_equal(t.size, 5);
	assert_memory_equal(t.bytes, "\0a\0b", 5);
	free(t.bytes);
}

static void cuts_a_name_that_is_too_long(void **state)
{
	(void)state;
	char bytes[128], name[71];
	memset(name, 'n', 70);
	name[70] = '\0';
	struct events e = { .text = "" };
	struct sse_parser p;
	sse_parser_init(&p, 1000);
	int size = snprintf(bytes, sizeof(bytes), "event: %s\ndata: a\n\n", name);
	assert_int_equal(sse_parser_feed(&p, bytes, (size_t)size, collect, &e), 0);
	assert_int_equal(e.size, 63 + 3);
	sse_parser_fini(&p);
}

/* What comes of bytes in pieces of step, with a limit of 20. */
static int feed_limited(const char *bytes, size_t step)
{
	struct told t = { .bytes = exactly(4096), .room = 4096, .max_bytes = 20 };
	int rc = parse((const uint8_t *)bytes, strlen(bytes), step, &t);
	free(t.bytes);
	return rc;
}

static void refuses_what_is_beyond_the_limit(void **state)
{
	(void)state;
	for (size_t step = 1; step <= 64; step++) {
		assert_int_equal(feed_limited("data: 01234567890123\n\n", step), 0);
		assert_int_equal(feed_limited("data: 012345678901234\n\n", step), -EMSGSIZE);
		assert_int_equal(feed_limited(": 0123456789012345678", step), -EMSGSIZE);
		assert_int_equal(feed_limited("data:0123456789\ndata:012345678\n\n", step), 0);
		assert_int_equal(feed_limited("data:0123456789\ndata:0123456789\n\n", step),
				 -EMSGSIZE);
		/* each event has the whole of it */
		assert_int_equal(feed_limited("data:012345678901234\n\ndata:012345678901234\n\n",
					      step),
				 0);
	}
}

static void stops_when_it_is_told_to(void **state)
{
	(void)state;
	struct events e = { .text = "", .stop_at = "b" };
	struct sse_parser p;
	sse_parser_init(&p, 1000);
	const char bytes[] = "data: a\n\ndata: b\n\ndata: c\n\n";
	assert_int_equal(sse_parser_feed(&p, bytes, sizeof(bytes) - 1, collect, &e), -ECANCELED);
	assert_string_equal(e.text, "=a;=b;");
	assert_true(sse_parser_feed(&p, "data: d\n\n", 9, collect, &e) < 0);
	assert_string_equal(e.text, "=a;=b;");
	sse_parser_fini(&p);
	assert_true(sse_parser_feed(&p, "data: d\n\n", 9, collect, &e) < 0);
}

static void ends_without_memory_and_without_a_leak(void **state)
{
	(void)state;
	struct events e = { .text = "" };
	struct sse_parser p;
	/* for the data, and for a line that is not whole yet */
	static const char *const last[] = { "data: b\n", "da" };
	for (size_t i = 0; i < COUNT_OF(last); i++) {
		sse_parser_init(&p, 1000);
		refuse = true;
		assert_int_equal(sse_parser_feed(&p, ": c\n\n", 5, collect, &e),
				 0); /* needs none */
		assert_int_equal(sse_parser_feed(&p, last[i], strlen(last[i]), collect, &e),
				 -ENOMEM);
		refuse = false;
		assert_true(sse_parser_feed(&p, "\n\n", 2, collect, &e) < 0);
		sse_parser_fini(&p);
	}
	char more[400]; /* and when what it has does not suffice */
	memset(more, 'x', sizeof(more));
	sse_parser_init(&p, 1000);
	assert_int_equal(sse_parser_feed(&p, "data: b", 7, collect, &e), 0);
	refuse = true;
	assert_int_equal(sse_parser_feed(&p, more, sizeof(more), collect, &e), -ENOMEM);
	refuse = false;
	sse_parser_fini(&p);
	assert_string_equal(e.text, "");
}

static void replays_its_corpus(void **state)
{
	(void)state;
	replay_corpus("sse_parse", LLVMFuzzerTestOneInput);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_events_cut_at_any_byte),
		cmocka_unit_test(a_line_ends_with_lf_crlf_or_cr),
		cmocka_unit_test(a_field_is_what_the_standard_says),
		cmocka_unit_test(a_byte_order_mark_is_dropped_at_the_start_only),
		cmocka_unit_test(keeps_a_nul_in_the_data),
		cmocka_unit_test(cuts_a_name_that_is_too_long),
		cmocka_unit_test(refuses_what_is_beyond_the_limit),
		cmocka_unit_test(stops_when_it_is_told_to),
		cmocka_unit_test(ends_without_memory_and_without_a_leak),
		cmocka_unit_test(replays_its_corpus),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
