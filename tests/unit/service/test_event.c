/* test_event.c -- what viewers see of a journal: order and ids of events, resume at any offset, resets,
 * characters that are cut, marks in between. Every stream is read back and compared with the bytes. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "service/event.h"
#include "service/journal.h"
#include "wire/base64.h"
#include "wire/ws_frame.h"

#define EPOCH UINT64_C(0x3f9c5a0e77b1d204)
#define EXIT_JSON "{\"reason\":\"exited\",\"exit_code\":0,\"signal\":null}"

#define NATIVE_COUNT VIEWER_PTY_SSE /* the formats in front of it; the others: test_event_pty.c */

/* All that one viewer got, read back. */
struct seen {
	char names[256]; /* first letters of the events: s o r (resize) R (reset) x */
	size_t count;
	uint8_t *bytes;
	size_t size;
	uint64_t first, last; /* id offsets of the first and the last event that has one */
	bool has_first;
	uint64_t resize_at;
	int cols;
	char reason[16];
};

static void seen_fini(struct seen *s)
{
	free(s->bytes);
}

static void seen_event(struct seen *s, const char *name, bool has_id, uint64_t id, json_t *data)
{
	char letter = strcmp(name, "reset") == 0 ? 'R' : strcmp(name, "exit") == 0 ? 'x' : name[0];
	if (s->count < sizeof(s->names) - 1)
		s->names[s->count++] = letter;
	if (has_id && !s->has_first) {
		s->first = id;
		s->has_first = true;
	}
	if (has_id) {
		assert_true(id >= s->last || letter == 'R');
		s->last = id;
	}
	if (letter == 'r') {
		s->resize_at = id;
		s->cols = (int)json_integer_value(json_object_get(data, "cols"));
	} else if (letter == 'R') {
		snprintf(s->reason, sizeof(s->reason), "%s",
			 json_string_value(json_object_get(data, "reason")));
		assert_int_equal(json_integer_value(json_object_get(data, "offset")), id);
	} else if (letter == 'o') {
		json_t *text = json_object_get(data, "data");
		json_t *base64 = json_object_get(data, "base64");
		size_t size = text != NULL ? json_string_length(text) : json_string_length(base64);
		s->bytes = realloc(s->bytes, s->size + size + 1);
		if (text != NULL) {
			memcpy(s->bytes + s->size, json_string_value(text), size);
			s->size += size;
		} else {
			ssize_t n = base64_decode(s->bytes + s->size, json_string_value(base64),
						  size);
			assert_true(n > 0);
			s->size += (size_t)n;
		}
	}
}

static void read_sse(struct seen *s, const char *data, size_t size)
{
	char *copy = strndup(data, size), *at = copy;
	while (*at != '\0') {
		char *end = strstr(at, "\n\n");
		assert_non_null(end);
		*end = '\0';
		uint64_t id = 0, epoch = 0;
		bool has_id = sscanf(at, "id: %" SCNx64 ":%" SCNu64, &epoch, &id) == 2;
		if (has_id)
			assert_true(epoch == EPOCH);
		char name[16];
		assert_int_equal(sscanf(strstr(at, "event: "), "event: %15s", name), 1);
		char *json = strstr(at, "data: ");
		assert_non_null(json);
		assert_null(strchr(json, '\n'));
		json_t *root = json_loads(json + 6, JSON_ALLOW_NUL, NULL);
		assert_non_null(root);
		seen_event(s, name, has_id, id, root);
		json_decref(root);
		at = end + 2;
	}
	free(copy);
}

static void read_ws(struct seen *s, const char *data, size_t size)
{
	struct ws_decoder d;
	uint8_t *copy = malloc(size + 1), *at = copy;
	memcpy(copy, data, size);
	ws_decoder_init(&d, WS_ROLE_CLIENT, 1 << 20);
	while (size > 0) {
		struct ws_event event;
		ssize_t n = ws_decoder_feed(&d, at, size, &event);
		assert_true(n > 0);
		at += n;
		size -= (size_t)n;
		if (event.type == WS_EVENT_BINARY) {
			uint64_t id = 0;
			for (int i = 0; i < 8; i++)
				id = id << 8 | event.data[i];
			char text[BASE64_CHARS(EVENT_OUTPUT_BYTES) + 1];
			size_t chars = base64_encode(text, event.data + 8, event.size - 8);
			json_t *root = json_pack("{s:s%}", "base64", text, chars);
			seen_event(s, "output", true, id, root);
			json_decref(root);
		} else {
			assert_int_equal(event.type, WS_EVENT_TEXT);
			json_t *root = json_loadb((const char *)event.data, event.size,
						  JSON_ALLOW_NUL, NULL);
			assert_non_null(root);
			const char *id = json_string_value(json_object_get(root, "id"));
			seen_event(s, json_string_value(json_object_get(root, "event")), id != NULL,
				   id == NULL ? 0 : strtoull(strchr(id, ':') + 1, NULL, 10), root);
			json_decref(root);
		}
	}
	ws_decoder_fini(&d);
	free(copy);
}

struct bed {
	struct journal *journal;
	struct feed feed;
	struct event_cache *cache;
};

static void bed_init(struct bed *b)
{
	memset(b, 0, sizeof(*b));
	b->journal = journal_create(1 << 20, 80, 24);
	b->cache = event_cache_create();
	b->feed = (struct feed){
		.journal = b->journal, .ready = true, .epoch = EPOCH, .now.state = "open"
	};
}

static void bed_fini(struct bed *b)
{
	journal_destroy(b->journal);
	event_cache_destroy(b->cache);
}

static void bed_append(struct bed *b, const void *data, size_t size)
{
	assert_int_equal(journal_append(b->journal, data, size), 0);
	b->feed.version++;
}

static void bed_resize(struct bed *b, uint16_t cols)
{
	journal_resize(b->journal, cols, 24);
	b->feed.version++;
}

static void bed_exit(struct bed *b)
{
	b->feed.exit_json = EXIT_JSON;
	b->feed.final = true;
	b->feed.now.state = "ended";
	b->feed.version++;
}

/* Gives the viewer all there is. */
static void drain(struct bed *b, enum viewer_format format, struct position *pos, struct seen *s)
{
	for (;;) {
		const struct burst *burst = event_burst(b->cache, &b->feed, format, pos);
		assert_non_null(burst);
		if (burst->count > 0) {
			assert_int_equal(burst->events[burst->count - 1].end, burst->size);
			if (format == VIEWER_WS_TEXT || format == VIEWER_WS_BINARY)
				read_ws(s, burst->data, burst->size);
			else
				read_sse(s, burst->data, burst->size);
		}
		bool more = burst->count > 0;
		*pos = burst->after;
		if (!more)
			return;
	}
}

static struct position resume(uint64_t offset)
{
	return (struct position){ .start = POSITION_RESUME, .epoch = EPOCH, .offset = offset };
}

static void starts_with_the_state_and_the_oldest_byte(void **state)
{
	(void)state;
	struct bed b;
	bed_init(&b);
	bed_append(&b, "hello", 5);
	struct position pos = { .start = POSITION_OLDEST };
	struct seen s = { 0 };
	drain(&b, VIEWER_SSE_TEXT, &pos, &s);
	assert_string_equal(s.names, "so");
	assert_int_equal(s.last, 5);
	assert_memory_equal(s.bytes, "hello", 5);
	bed_append(&b, " you", 4);
	drain(&b, VIEWER_SSE_TEXT, &pos, &s);
	assert_string_equal(s.names, "soo");
	assert_memory_equal(s.bytes, "hello you", 9);
	seen_fini(&s);
	bed_fini(&b);
}

static void fill_random(uint8_t *data, size_t size, unsigned *seed)
{
	for (size_t i = 0; i < size; i++) {
		*seed = *seed * 1103515245 + 12345;
		data[i] = (uint8_t)(*seed >> 16);
	}
}

static void resumes_at_every_offset_without_a_lost_or_doubled_byte(void **state)
{
	(void)state;
	struct bed b;
	uint8_t data[600];
	unsigned seed = 7;
	fill_random(data, sizeof(data), &seed);
	bed_init(&b);
	bed_append(&b, data, 200);
	bed_resize(&b, 100);
	bed_append(&b, data + 200, 200);
	for (int format = 0; format < NATIVE_COUNT; format++) {
		if (format == VIEWER_SSE_TEXT || format == VIEWER_WS_TEXT)
			continue; /* random bytes are not text: the next test */
		for (uint64_t at = 0; at <= 400; at++) {
			struct position pos = resume(at);
			struct seen s = { 0 };
			drain(&b, (enum viewer_format)format, &pos, &s);
			assert_int_equal(s.size, 400 - at);
			assert_memory_equal(s.bytes == NULL ? data : s.bytes, data + at, 400 - at);
			assert_int_equal(pos.offset, 400);
			/* The mark stands at 200: repeated there, not behind it. */
			assert_true((strchr(s.names, 'r') != NULL) == (at <= 200 || s.cols == 100));
			seen_fini(&s);
		}
	}
	bed_fini(&b);
}

static const char text[] = "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x9a\x80z\r\n";

static void never_splits_a_character(void **state)
{
	(void)state;
	for (size_t cut = 0; cut <= sizeof(text) - 1; cut++) {
		for (size_t cut2 = cut; cut2 <= sizeof(text) - 1; cut2++) {
			struct bed b;
			bed_init(&b);
			struct position pos = { .start = POSITION_OLDEST };
			struct position ws = { .start = POSITION_OLDEST };
			struct seen s = { 0 }, w = { 0 };
			size_t ends[] = { 0, cut, cut2, sizeof(text) - 1 };
			for (int i = 0; i < 3; i++) {
				bed_append(&b, text + ends[i], ends[i + 1] - ends[i]);
				drain(&b, VIEWER_SSE_TEXT, &pos, &s);
				drain(&b, VIEWER_WS_TEXT, &ws, &w);
			}
			assert_int_equal(s.size, sizeof(text) - 1);
			assert_memory_equal(s.bytes, text, s.size);
			assert_int_equal(w.size, sizeof(text) - 1);
			assert_memory_equal(w.bytes, text, w.size);
			seen_fini(&s);
			seen_fini(&w);
			bed_fini(&b);
		}
	}
}

static void keeps_a_character_whole_that_a_resize_cuts(void **state)
{
	(void)state;
	for (size_t cut = 0; cut <= sizeof(text) - 1; cut++) {
		struct bed b;
		bed_init(&b);
		struct position live = { .start = POSITION_OLDEST };
		struct seen l = { 0 };
		bed_append(&b, text, cut);
		drain(&b, VIEWER_SSE_TEXT, &live, &l);
		bed_resize(&b, 100);
		drain(&b, VIEWER_SSE_TEXT, &live, &l);
		bed_append(&b, text + cut, sizeof(text) - 1 - cut);
		drain(&b, VIEWER_SSE_TEXT, &live, &l);
		struct position late = { .start = POSITION_OLDEST };
		struct seen s = { 0 };
		drain(&b, VIEWER_SSE_TEXT, &late, &s);
		assert_int_equal(l.size, sizeof(text) - 1);
		assert_memory_equal(l.bytes, text, l.size);
		assert_int_equal(s.size, sizeof(text) - 1);
		assert_memory_equal(s.bytes, text, s.size);
		assert_non_null(strchr(l.names, 'r'));
		assert_true(l.resize_at >= cut && l.resize_at < cut + 4);
		assert_int_equal(s.resize_at, l.resize_at);
		seen_fini(&l);
		seen_fini(&s);
		bed_fini(&b);
	}
}

static void skips_the_rest_of_a_character_at_its_start(void **state)
{
	(void)state;
	struct bed b;
	bed_init(&b);
	bed_append(&b, text, sizeof(text) - 1);
	const size_t starts[] = { 0, 1, 3, 3, 6, 6, 6, 10, 10, 10, 10, 11, 12, 13 };
	for (size_t at = 0; at < sizeof(text); at++) {
		struct position pos = resume(at);
		struct seen s = { 0 };
		drain(&b, VIEWER_SSE_TEXT, &pos, &s);
		size_t from = at == 1 ? 1 : starts[at];
		assert_int_equal(s.size, sizeof(text) - 1 - from);
		seen_fini(&s);
	}
	bed_fini(&b);
}

static void gives_an_incomplete_character_as_fffd_at_the_end(void **state)
{
	(void)state;
	struct bed b;
	bed_init(&b);
	struct position pos = { .start = POSITION_OLDEST };
	struct seen s = { 0 };
	bed_append(&b, "a\xe2\x82", 3);
	drain(&b, VIEWER_SSE_TEXT, &pos, &s);
	assert_int_equal(s.size, 1);
	bed_exit(&b);
	drain(&b, VIEWER_SSE_TEXT, &pos, &s);
	assert_int_equal(s.size, 4);
	assert_memory_equal(s.bytes, "a\xef\xbf\xbd", 4);
	assert_string_equal(s.names, "soox");
	assert_int_equal(s.last, 4); /* END + 1 */
	seen_fini(&s);
	bed_fini(&b);
}

static void tells_the_exit_once_and_to_those_who_come_late(void **state)
{
	(void)state;
	struct bed b;
	bed_init(&b);
	bed_append(&b, "bye", 3);
	bed_exit(&b);
	for (uint64_t at = 0; at <= 4; at++) {
		struct position pos = resume(at);
		struct seen s = { 0 };
		drain(&b, VIEWER_SSE_BASE64, &pos, &s);
		drain(&b, VIEWER_SSE_BASE64, &pos, &s);
		assert_string_equal(s.names, at < 3 ? "sox" : at == 3 ? "sx" : "s");
		assert_true(pos.exited);
		seen_fini(&s);
	}
	bed_fini(&b);
}

static void says_what_is_not_there(void **state)
{
	(void)state;
	struct bed b;
	bed_init(&b);
	bed_append(&b, "0123456789", 10);
	struct seen s = { 0 };
	struct position ahead = resume(11);
	drain(&b, VIEWER_SSE_BASE64, &ahead, &s);
	assert_string_equal(s.names, "sRo");
	assert_string_equal(s.reason, "ahead");
	assert_int_equal(s.first, 0);
	assert_int_equal(s.size, 10);
	seen_fini(&s);

	s = (struct seen){ 0 };
	struct position epoch = resume(4);
	epoch.epoch = 99;
	drain(&b, VIEWER_SSE_BASE64, &epoch, &s);
	assert_string_equal(s.names, "sRo");
	assert_string_equal(s.reason, "epoch");
	assert_int_equal(s.size, 10);
	seen_fini(&s);
	bed_fini(&b);
}

static void says_a_gap_and_goes_on_at_a_line(void **state)
{
	(void)state;
	struct bed b;
	bed_init(&b);
	struct position pos = { .start = POSITION_OLDEST };
	struct seen s = { 0 };
	bed_append(&b, "first\n", 6);
	drain(&b, VIEWER_SSE_BASE64, &pos, &s);
	bed_resize(&b, 111);
	for (int i = 0; i < 300000; i++)
		bed_append(&b, "line\r\n", 6);
	drain(&b, VIEWER_SSE_BASE64, &pos, &s);
	assert_int_equal(strncmp(s.names, "soRr", 4), 0);
	assert_string_equal(s.reason, "gap");
	assert_int_equal(s.cols, 111);
	uint64_t expected = 6 + 300000 * 6;
	assert_int_equal(s.last, expected);
	assert_true(s.size - 6 <= 65536 && s.size - 6 > 65536 - 6);
	assert_memory_equal(s.bytes + 6, "line\r\n", 6);
	seen_fini(&s);
	bed_fini(&b);
}

static void holds_while_the_journal_is_not_known(void **state)
{
	(void)state;
	struct bed b;
	bed_init(&b);
	b.feed.ready = false;
	b.feed.now.state = "connecting";
	struct position pos = resume(3);
	struct seen s = { 0 };
	drain(&b, VIEWER_SSE_TEXT, &pos, &s);
	assert_string_equal(s.names, "s");
	bed_append(&b, "012345", 6);
	b.feed.ready = true;
	b.feed.now.state = "open";
	feed_notify(&b.feed);
	b.feed.version++;
	drain(&b, VIEWER_SSE_TEXT, &pos, &s);
	assert_string_equal(s.names, "sso");
	assert_memory_equal(s.bytes, "345", 3);
	seen_fini(&s);
	bed_fini(&b);
}

static void tells_each_step_once_and_a_newcomer_the_last(void **state)
{
	(void)state;
	static const char *const steps[] = { "devbox", "install", "start" };
	struct bed b;
	bed_init(&b);
	b.feed.ready = false;
	b.feed.now.state = "provisioning";
	struct position pos = { .start = POSITION_OLDEST };
	struct seen s = { 0 };
	drain(&b, VIEWER_SSE_TEXT, &pos, &s);
	assert_string_equal(s.names, "s");
	for (unsigned i = 0; i < 3; i++) { /* faster than the viewer */
		b.feed.now.step = steps[i];
		b.feed.now.step_ms = i;
		feed_notify(&b.feed);
		b.feed.version++;
	}
	const struct burst *burst = event_burst(b.cache, &b.feed, VIEWER_SSE_TEXT, &pos);
	assert_int_equal(burst->count, 3);
	const char *at = burst->data;
	for (unsigned i = 0; i < 3; i++) {
		at = strstr(at, steps[i]);
		assert_non_null(at);
	}
	pos = burst->after;
	assert_int_equal(event_burst(b.cache, &b.feed, VIEWER_SSE_TEXT, &pos)->count, 0);
	struct position late = { .start = POSITION_OLDEST };
	burst = event_burst(b.cache, &b.feed, VIEWER_SSE_TEXT, &late);
	assert_int_equal(burst->count, 1);
	assert_non_null(strstr(burst->data, "\"step\":\"start\",\"step_ms\":2"));
	/* Who is too far behind is told the newest ones. */
	for (unsigned i = 0; i < 3 * FEED_NOTICES; i++) {
		b.feed.now.step_ms = 100 + i;
		feed_notify(&b.feed);
		b.feed.version++;
	}
	burst = event_burst(b.cache, &b.feed, VIEWER_SSE_TEXT, &pos);
	assert_int_equal(burst->count, FEED_NOTICES);
	char last[32];
	snprintf(last, sizeof(last), "\"step_ms\":%u", 100 + 3 * FEED_NOTICES - 1);
	assert_non_null(strstr(burst->data, last));
	seen_fini(&s);
	bed_fini(&b);
}

static void shares_one_encoding_between_viewers_at_one_place(void **state)
{
	(void)state;
	struct bed b;
	bed_init(&b);
	bed_append(&b, "shared", 6);
	struct position one = { .start = POSITION_OLDEST }, two = one;
	const struct burst *first = event_burst(b.cache, &b.feed, VIEWER_SSE_TEXT, &one);
	const char *data = first->data;
	char copy[512];
	memcpy(copy, data, first->size);
	memset((char *)data, '#', first->size); /* a second encoding would undo this */
	const struct burst *second = event_burst(b.cache, &b.feed, VIEWER_SSE_TEXT, &two);
	assert_ptr_equal(second->data, data);
	assert_int_equal(second->data[0], '#');
	b.feed.version++;
	second = event_burst(b.cache, &b.feed, VIEWER_SSE_TEXT, &two);
	assert_memory_equal(second->data, copy, second->size);
	bed_fini(&b);
}

static void gives_the_same_whatever_the_pace(void **state)
{
	(void)state;
	unsigned seed = 99;
	for (int round = 0; round < 30; round++) {
		struct bed b;
		uint8_t data[40000];
		bed_init(&b);
		fill_random(data, sizeof(data), &seed);
		struct position live[NATIVE_COUNT];
		struct seen seen[NATIVE_COUNT];
		memset(seen, 0, sizeof(seen));
		for (int f = 0; f < NATIVE_COUNT; f++)
			live[f] = (struct position){ .start = POSITION_OLDEST };
		size_t at = 0;
		while (at < sizeof(data)) {
			fill_random((uint8_t *)&seed, 0, &seed);
			seed = seed * 1103515245 + 12345;
			size_t n = (seed >> 8) % 3000;
			if (n > sizeof(data) - at)
				n = sizeof(data) - at;
			bed_append(&b, data + at, n);
			at += n;
			if ((seed >> 20) % 4 == 0)
				bed_resize(&b, (uint16_t)(1 + (seed >> 10) % 200));
			drain(&b, (enum viewer_format)((seed >> 24) % NATIVE_COUNT),
			      &live[(seed >> 24) % NATIVE_COUNT],
			      &seen[(seed >> 24) % NATIVE_COUNT]);
		}
		bed_exit(&b);
		for (int f = 0; f < NATIVE_COUNT; f++)
			drain(&b, (enum viewer_format)f, &live[f], &seen[f]);
		assert_int_equal(seen[VIEWER_SSE_BASE64].size, sizeof(data));
		assert_memory_equal(seen[VIEWER_SSE_BASE64].bytes, data, sizeof(data));
		assert_int_equal(seen[VIEWER_WS_BINARY].size, sizeof(data));
		assert_memory_equal(seen[VIEWER_WS_BINARY].bytes, data, sizeof(data));
		/* Text: the same characters as when all is decoded at once. */
		uint8_t *whole = malloc(3 * sizeof(data));
		size_t size = utf8_replace(whole, data, sizeof(data));
		assert_int_equal(seen[VIEWER_SSE_TEXT].size, size);
		assert_memory_equal(seen[VIEWER_SSE_TEXT].bytes, whole, size);
		assert_int_equal(seen[VIEWER_WS_TEXT].size, size);
		assert_memory_equal(seen[VIEWER_WS_TEXT].bytes, whole, size);
		free(whole);
		for (int f = 0; f < NATIVE_COUNT; f++)
			seen_fini(&seen[f]);
		bed_fini(&b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(starts_with_the_state_and_the_oldest_byte),
		cmocka_unit_test(resumes_at_every_offset_without_a_lost_or_doubled_byte),
		cmocka_unit_test(never_splits_a_character),
		cmocka_unit_test(keeps_a_character_whole_that_a_resize_cuts),
		cmocka_unit_test(skips_the_rest_of_a_character_at_its_start),
		cmocka_unit_test(gives_an_incomplete_character_as_fffd_at_the_end),
		cmocka_unit_test(tells_the_exit_once_and_to_those_who_come_late),
		cmocka_unit_test(says_what_is_not_there),
		cmocka_unit_test(says_a_gap_and_goes_on_at_a_line),
		cmocka_unit_test(holds_while_the_journal_is_not_known),
		cmocka_unit_test(tells_each_step_once_and_a_newcomer_the_last),
		cmocka_unit_test(shares_one_encoding_between_viewers_at_one_place),
		cmocka_unit_test(gives_the_same_whatever_the_pace),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
