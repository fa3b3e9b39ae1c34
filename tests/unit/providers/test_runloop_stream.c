/* test_runloop_stream.c -- runloop_read_stdout(): chunks, cuts, repetitions, ends. */
#include "tests/unit/providers/support.h"

#define STREAM(offset) "GET /v1/devboxes/d1/executions/e1/stream_stdout_updates?offset=" offset " "
#define CHUNK(offset, text) "data: {\"output\":\"" text "\",\"offset\":" offset "}\n\n"
#define BARE(text) "data: {\"output\":\"" text "\"}\n\n"
#define ERROR(code, text) "event: error\ndata: {\"code\":" code ",\"message\":\"" text "\"}\n\n"
#define FFFD "\xef\xbf\xbd"
#define CUT .missing = 100 /* more was promised: the connection is lost */

/* Collects lines, "[...]" each, until one is "ready". */
struct lines {
	char text[32768];
	size_t size;
};

static bool take_line(void *arg, const char *line, size_t size)
{
	struct lines *l = arg;
	assert_true(l->size + size + 3 < sizeof(l->text));
	l->text[l->size++] = '[';
	memcpy(l->text + l->size, line, size);
	l->size += size;
	l->text[l->size++] = ']';
	l->text[l->size] = '\0';
	return size == 5 && memcmp(line, "ready", 5) == 0;
}

/* Plays the steps, all of which must be asked for, and compares. */
static void check(const struct canned_step *steps, size_t count, int expected_rc,
		  const char *expected)
{
	struct canned_server *s = canned_start(steps, count);
	API(a, s);
	struct lines l = { .text = "" };
	struct error err = { .text = "" };
	int rc = runloop_read_stdout(&a, "d1", "e1", take_line, &l, &err);
	if (rc != expected_rc || strcmp(l.text, expected) != 0)
		fail_msg("%d (%s), %.300s", rc, err.text, l.text);
	assert_int_equal(canned_count(s), count);
	for (size_t i = 0; i < count; i++) {
		assert_header(canned_request(s, i), "accept", "text/event-stream");
		assert_header(canned_request(s, i), "authorization", "Bearer " API_KEY);
	}
	canned_stop(s);
}
#define CHECK(rc, lines, ...)                                       \
	do {                                                        \
		const struct canned_step steps[] = { __VA_ARGS__ }; \
		check(steps, COUNT_OF(steps), rc, lines);           \
	} while (0)

static void chunks_are_not_lines(void **state)
{
	(void)state;
	CHECK(0, "[one][][two][ready]",
	      { .when = STREAM("0"),
		.body = ": hello\n" CHUNK("0", "on") CHUNK("2", "e\\n\\ntwo") CHUNK("8", "\\r\\nre")
			CHUNK("12", "") "event: stdout\n" CHUNK("12", "ady\\nmore"),
		CUT });
	CHECK(0, "[ready]", { .when = STREAM("0"), .body = BARE("ready\\n"), CUT });
	CHECK(0, "[a \\\"b\\\"][ready]",
	      { .when = STREAM("0"), .body = CHUNK("0", "a \\\\\\\"b\\\\\\\"\\nready\\n"), CUT });
}

static void a_clean_end_is_the_end(void **state)
{
	(void)state;
	CHECK(-ENODATA, "", { .when = STREAM("0") });
	CHECK(-ENODATA, "", { .when = STREAM("0"), .status = 204 });
	CHECK(-ENODATA, "[a]", { .when = STREAM("0"), .body = CHUNK("0", "a\\n") });
	CHECK(-ENODATA, "[a][b]", { .when = STREAM("0"), .body = CHUNK("0", "a\\nb") });
	CHECK(0, "[ready]", { .when = STREAM("0"), .body = CHUNK("0", "ready") });
	CHECK(-ENODATA, "", { .when = STREAM("0"), .body = "data: {\"output\":\"ready\\n\"}" });
}

static void goes_on_at_the_last_chunk_and_drops_its_repetition(void **state)
{
	(void)state;
	CHECK(0, "[abc][def][ready]",
	      { .when = STREAM("0"),
		.body = CHUNK("0", "abc") CHUNK("3", "\\nde") ERROR("408", "time is up") },
	      { .when = STREAM("3"), .body = CHUNK("3", "\\nde") CHUNK("6", "f\\nready\\n"), CUT });
	/* a server that starts behind it */
	CHECK(0, "[abcd][ready]",
	      { .when = STREAM("0"), .body = CHUNK("0", "ab") ERROR("\"408\"", "") },
	      { .when = STREAM("0"), .body = CHUNK("2", "cd\\nready\\n"), CUT });
	/* the same text at another place is no repetition */
	CHECK(0, "[a][a][ready]",
	      { .when = STREAM("0"), .body = CHUNK("0", "a\\n") ERROR("408", "") },
	      { .when = STREAM("0"), .body = CHUNK("2", "a\\n") CHUNK("4", "ready\\n"), CUT });
	/* and twice cut without any progress */
	CHECK(0, "[ready]", { .when = STREAM("0"), .body = CHUNK("0", "rea") ERROR("408", "") },
	      { .when = STREAM("0"), .body = CHUNK("0", "rea") ERROR("408", "") },
	      { .when = STREAM("0"), .body = CHUNK("0", "rea"), CUT },
	      { .when = STREAM("0"), .body = "", CUT },
	      { .when = STREAM("0"), .body = CHUNK("0", "rea") CHUNK("3", "dy\\n"), CUT });
}

static void opens_a_lost_connection_again(void **state)
{
	(void)state;
	CHECK(0, "[abc][ready]",
	      { .when = STREAM("0"), .body = CHUNK("0", "ab") CHUNK("2", "c\\nr"), CUT },
	      { .when = STREAM("2"), .body = CHUNK("2", "c\\nr") CHUNK("5", "eady\\n"), CUT });
	/* an event that was cut is none */
	CHECK(0, "[abc][ready]",
	      { .when = STREAM("0"),
		.body = CHUNK("0", "ab") "data: {\"output\":\"c\\n\"}\n",
		CUT },
	      { .when = STREAM("0"), .body = CHUNK("2", "c\\nready\\n"), CUT });
	CHECK(0, "[ready]",
	      { .when = STREAM("0"), .status = 503, .headers = "retry-after-ms: 10\r\n" },
	      { .when = STREAM("0"), .status = 429, .headers = "retry-after-ms: 10\r\n" },
	      { .when = STREAM("0"), .body = CHUNK("0", "ready\\n"), CUT });
}

static void finds_a_repetition_in_another_cut(void **state)
{
	(void)state;
	/* longer than before */
	CHECK(0, "[abcdef][ready]",
	      { .when = STREAM("0"), .body = CHUNK("0", "abc") ERROR("408", "") },
	      { .when = STREAM("0"), .body = CHUNK("0", "abcdef\\nready\\n"), CUT });
	/* in smaller pieces */
	CHECK(0, "[abcdef][ready]",
	      { .when = STREAM("0"), .body = CHUNK("0", "abcd") ERROR("408", "") },
	      { .when = STREAM("0"),
		.body = CHUNK("0", "ab") CHUNK("2", "c") CHUNK("3", "def\\n")
			CHUNK("7", "ready\\n"),
		CUT });
	/* from the start, whatever we asked for */
	CHECK(0, "[ab][cdef][ready]",
	      { .when = STREAM("0"),
		.body = CHUNK("0", "ab\\n") CHUNK("3", "cd") ERROR("408", "") },
	      { .when = STREAM("3"),
		.body = CHUNK("0", "ab\\n") CHUNK("3", "cd") CHUNK("5", "ef\\nready\\n"),
		CUT });
	CHECK(0, "[ab][cdef][ready]",
	      { .when = STREAM("0"),
		.body = CHUNK("0", "ab\\n") CHUNK("3", "cd") ERROR("408", "") },
	      { .when = STREAM("3"), .body = CHUNK("1", "b\\ncdef\\nready\\n"), CUT });
	/* other bytes at the same place: rather twice than never */
	CHECK(0, "[abxyz][ready]",
	      { .when = STREAM("0"), .body = CHUNK("0", "ab") ERROR("408", "") },
	      { .when = STREAM("0"), .body = CHUNK("0", "xyz\\nready\\n"), CUT });
}

static void a_repaired_character_breaks_no_other_line(void **state)
{
	(void)state;
	CHECK(0,
	      "[gr" FFFD "\xc3\xbc"
	      "n][ready]",
	      { .when = STREAM("0"), .body = CHUNK("0", "gr" FFFD) ERROR("408", "") },
	      { .when = STREAM("0"), .body = CHUNK("0", "gr\xc3\xbcn\\nready\\n"), CUT });
	CHECK(0, "[" FFFD FFFD "][ready]",
	      { .when = STREAM("0"),
		.body = CHUNK("0", FFFD) CHUNK("1", FFFD "\\nre") ERROR("408", "") },
	      { .when = STREAM("1"), .body = CHUNK("1", FFFD "\\nre") CHUNK("5", "ady\\n"), CUT });
	/* without offsets, the same text in another cut has another length */
	CHECK(0, "[\xe2\x82\xac][ready]",
	      { .when = STREAM("0"), .body = BARE("\xe2\x82\xac\\nre") BARE("a"), CUT },
	      { .when = STREAM("0"), .body = BARE(FFFD) BARE(FFFD FFFD "\\nready\\n"), CUT });
}

static void without_offsets_all_comes_from_the_start_again(void **state)
{
	(void)state;
	CHECK(0, "[a][b][ready]",
	      { .when = STREAM("0"), .body = BARE("a\\nb\\nrea") ERROR("408", "") },
	      { .when = STREAM("0"), .body = BARE("a\\n") BARE("b\\nr"), CUT },
	      { .when = STREAM("0"), .body = BARE("a"), CUT },
	      { .when = STREAM("0"), .body = BARE("a\\nb") BARE("\\nready\\n"), CUT });
	/* what comes again is not given twice at the end either */
	CHECK(-ENODATA, "[a]", { .when = STREAM("0"), .body = BARE("a\\n"), CUT },
	      { .when = STREAM("0"), .body = BARE("a") });
	/* one without an offset behind one with: it follows it */
	CHECK(0, "[abcd][ready]", { .when = STREAM("0"), .body = CHUNK("0", "ab") BARE("c"), CUT },
	      { .when = STREAM("2"), .body = CHUNK("2", "c") BARE("d\\nready\\n"), CUT });
}

static void an_odd_offset_is_none(void **state)
{
	(void)state;
	CHECK(0, "[ab][ready]",
	      { .when = STREAM("0"),
		.body = CHUNK("-1", "a") CHUNK("\"7\"", "b\\n") CHUNK("1.5", "ready\\n"),
		CUT });
	CHECK(0, "[a][ready]",
	      { .when = STREAM("0"), .body = CHUNK("9223372036854775807", "a\\n"), CUT },
	      { .when = STREAM("9223372036854775807"),
		.body = CHUNK("9223372036854775807", "a\\n") BARE("ready\\n"),
		CUT });
}

static void events_that_say_nothing_are_skipped(void **state)
{
	(void)state;
	CHECK(0, "[ready]",
	      { .when = STREAM("0"),
		.body = "data: {}\n\ndata: {\"output\":null}\n\nevent: ping\n\nid: 7\nretry: 1\n\n"
			"data: {\"output\":7,\"offset\":3}\n\n" CHUNK("0", "ready\\n"),
		CUT });
}

static void ends_with_the_error_that_the_stream_tells(void **state)
{
	(void)state;
	CHECK(-ENOENT, "[a]",
	      { .when = STREAM("0"),
		.body = CHUNK("0", "a\\n") ERROR("404", "gone") CHUNK("2", "b\\n") });
	CHECK(-EACCES, "", { .when = STREAM("0"), .body = ERROR("\"401\"", "no") });
	CHECK(-EIO, "", { .when = STREAM("0"), .body = ERROR("500", "no") });
	CHECK(-EIO, "", { .when = STREAM("0"), .body = ERROR("null", "no") });
	CHECK(-EIO, "", { .when = STREAM("0"), .body = ERROR("-7", "no") });
	CHECK(-EIO, "", { .when = STREAM("0"), .body = "event: error\ndata: what?\n\n" });
	CHECK(-ENOENT, "", { .when = STREAM("0"), .status = 404 });
	CHECK(-EIO, "", { .when = STREAM("0"), .status = 302, .headers = "Location: /x\r\n" });

	static const struct canned_step step = { .when = STREAM("0"),
						 .body = ERROR("500", "it is " API_KEY) };
	struct canned_server *s = canned_start(&step, 1);
	API(a, s);
	struct lines l = { .text = "" };
	struct error err;
	assert_int_equal(runloop_read_stdout(&a, "d1", "e1", take_line, &l, &err), -EIO);
	assert_error(&err, -EIO, "provider-error",
		     "runloop: read-stdout failed: 500: it is [hidden]");
	canned_stop(s);
}

static void refuses_what_it_does_not_understand(void **state)
{
	(void)state;
	CHECK(-EBADMSG, "", { .when = STREAM("0"), .body = "data: [DONE]\n\n" });
	CHECK(-EBADMSG, "", { .when = STREAM("0"), .body = "data: {\n\n" });
	CHECK(-EBADMSG, "", { .when = STREAM("0"), .body = "data: ", .filler = 2u << 20 });
	CHECK(-ENOENT, "", { .when = STREAM("0"), .status = 404, .filler = 2u << 20 });
}

static void a_line_has_a_limit(void **state)
{
	(void)state;
	static char body[40000], line[16386], expected[16500];
	memset(line, 'x', 16384);
	snprintf(expected, sizeof(expected), "[%s][ready]", line);
	snprintf(body, sizeof(body), CHUNK("0", "%s\\n") CHUNK("16385", "ready\\n"), line);
	CHECK(0, expected, { .when = STREAM("0"), .body = body, CUT });
	line[16384] = 'x';
	snprintf(body, sizeof(body), CHUNK("0", "%s\\n") CHUNK("16386", "ready\\n"), line);
	CHECK(-EBADMSG, "", { .when = STREAM("0"), .body = body, CUT });
}

static void ends_at_the_deadline(void **state)
{
	(void)state;
	static const struct canned_step cases[] = {
		{ .when = STREAM("0"), .hang = true },
		{ .when = STREAM("0"), .for_ever = true, .body = ERROR("408", "") },
		{ .when = STREAM("0"), .for_ever = true, CUT },
	};
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct canned_server *s = canned_start(&cases[i], 1);
		API(a, s);
		CALL(short_call, 500);
		a.call = &short_call;
		struct lines l = { .text = "" };
		struct error err;
		assert_int_equal(runloop_read_stdout(&a, "d1", "e1", take_line, &l, &err),
				 -ETIMEDOUT);
		assert_string_equal(err.slug, "start-timeout");
		assert_true(provider_now_us() - short_call.deadline_us < SECOND_US);
		assert_true(canned_count(s) <= 4); /* not as fast as it can */
		canned_stop(s);
	}
}

struct background {
	struct runloop_api *api;
	struct lines lines;
	struct error err;
	uint64_t ended_us;
};

static void *read_in_background(void *arg)
{
	struct background *b = arg;
	b->api->http = http_client_of_thread(NULL);
	runloop_read_stdout(b->api, "d1", "e1", take_line, &b->lines, &b->err);
	b->ended_us = provider_now_us();
	return NULL;
}

static void ends_soon_after_it_was_cancelled(void **state)
{
	(void)state;
	static const struct canned_step steps[] = { { .when = STREAM("0"), .hang = true } };
	struct canned_server *s = CANNED_START(steps);
	API(a, s);
	struct background b = { .api = &a };
	pthread_t thread;
	assert_int_equal(pthread_create(&thread, NULL, read_in_background, &b), 0);
	canned_await(s, 1);
	uint64_t cancelled_us = provider_now_us();
	atomic_store(&a_call_cancelled, true);
	pthread_join(thread, NULL);
	assert_true(b.ended_us - cancelled_us < SECOND_US);
	assert_error(&b.err, -ECANCELED, "start-cancelled", "it was cancelled");
	canned_stop(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(chunks_are_not_lines),
		cmocka_unit_test(a_clean_end_is_the_end),
		cmocka_unit_test(goes_on_at_the_last_chunk_and_drops_its_repetition),
		cmocka_unit_test(opens_a_lost_connection_again),
		cmocka_unit_test(finds_a_repetition_in_another_cut),
		cmocka_unit_test(a_repaired_character_breaks_no_other_line),
		cmocka_unit_test(without_offsets_all_comes_from_the_start_again),
		cmocka_unit_test(an_odd_offset_is_none),
		cmocka_unit_test(events_that_say_nothing_are_skipped),
		cmocka_unit_test(ends_with_the_error_that_the_stream_tells),
		cmocka_unit_test(refuses_what_it_does_not_understand),
		cmocka_unit_test(a_line_has_a_limit),
		cmocka_unit_test(ends_at_the_deadline),
		cmocka_unit_test(ends_soon_after_it_was_cancelled),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
