/* test_event_pty.c -- what the original's clients see of a journal: output as valid UTF-8 whatever the cuts, no
 * states and sizes, a line where output was lost, the end, and no questions in what is replayed. */
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
#include "wire/utf8.h"
#include "wire/ws_frame.h"

#define EPOCH UINT64_C(0x3f9c5a0e77b1d204)
#define LOST "\x18\r\n[ptycast: output was lost here]\r\n"

static const enum viewer_format formats[] = { VIEWER_PTY_SSE, VIEWER_PTY_WS, VIEWER_PTY_WS_BINARY };
#define FORMATS 3

struct bed {
	struct journal *journal;
	struct feed feed;
	struct event_cache *cache;
	/* What one viewer got. */
	struct position pos;
	char out[1 << 20];
	size_t size;
	unsigned events;
	uint64_t last_id;
	char end[512]; /* name and data of the event that ends an SSE stream */
};

static struct bed *bed_create(void)
{
	struct bed *b = calloc(1, sizeof(*b));
	b->journal = journal_create(1 << 20, 80, 24);
	b->cache = event_cache_create();
	b->feed = (struct feed){
		.journal = b->journal, .ready = true, .attached = true, .epoch = EPOCH
	};
	b->feed.now.state = "open";
	return b;
}

static void bed_destroy(struct bed *b)
{
	journal_destroy(b->journal);
	event_cache_destroy(b->cache);
	free(b);
}

static void append(struct bed *b, const void *data, size_t size)
{
	assert_int_equal(journal_append(b->journal, data, size), 0);
	b->feed.version++;
}

static void come(struct bed *b, enum viewer_format format)
{
	b->pos = position_start(&b->feed, format, false, 0, 0);
	b->size = b->events = 0;
}

static void add(struct bed *b, const void *data, size_t size)
{
	assert_true(size > 0 && b->size + size < sizeof(b->out));
	memcpy(b->out + b->size, data, size);
	b->size += size;
	b->out[b->size] = '\0';
	b->events++;
}

static void read_sse(struct bed *b, char *data, size_t size)
{
	data[size] = '\0';
	for (char *at = data, *end; *at != '\0'; at = end + 2) {
		end = strstr(at, "\n\n");
		assert_non_null(end);
		*end = '\0';
		uint64_t epoch, id;
		char name[16];
		assert_int_equal(sscanf(at, "id: %" SCNx64 ":%" SCNu64 "\nevent: %15s", &epoch, &id,
					name),
				 3);
		assert_true(epoch == EPOCH && id >= b->last_id);
		b->last_id = id;
		const char *json = strstr(at, "data: ") + 6;
		if (strcmp(name, "output") != 0) {
			snprintf(b->end, sizeof(b->end), "%s %s", name, json);
			continue;
		}
		json_t *root = json_loads(json, JSON_ALLOW_NUL, NULL);
		const json_t *text = json_object_get(root, "data");
		assert_int_equal(json_object_size(root), 1);
		add(b, json_string_value(text), json_string_length(text));
		json_decref(root);
	}
}

static void read_ws(struct bed *b, enum viewer_format format, uint8_t *data, size_t size)
{
	struct ws_decoder d;
	ws_decoder_init(&d, WS_ROLE_CLIENT, 1 << 20); /* refuses text that is not UTF-8 */
	while (size > 0) {
		struct ws_event event;
		ssize_t n = ws_decoder_feed(&d, data, size, &event);
		assert_true(n > 0);
		data += n;
		size -= (size_t)n;
		assert_int_equal(event.type,
				 format == VIEWER_PTY_WS ? WS_EVENT_TEXT : WS_EVENT_BINARY);
		add(b, event.data, event.size);
	}
	ws_decoder_fini(&d);
}

/* Gives the viewer all there is. */
static void drain(struct bed *b, enum viewer_format format)
{
	for (;;) {
		const struct burst *burst = event_burst(b->cache, &b->feed, format, &b->pos);
		assert_non_null(burst);
		uint8_t *copy = malloc(burst->size + 1);
		memcpy(copy, burst->data, burst->size);
		if (format == VIEWER_PTY_SSE)
			read_sse(b, (char *)copy, burst->size);
		else
			read_ws(b, format, copy, burst->size);
		free(copy);
		b->pos = burst->after;
		if (burst->count == 0)
			return;
	}
}

static void assert_got(const struct bed *b, const char *expected, size_t size)
{
	assert_int_equal(b->size, size);
	assert_memory_equal(b->out, expected, size);
}

#define ASSERT_GOT(b, expected) assert_got(b, expected, sizeof(expected) - 1)

static void gives_output_and_nothing_else(void **state)
{
	(void)state;
	for (int i = 0; i < FORMATS; i++) {
		struct bed *b = bed_create();
		append(b, "hello", 5);
		journal_resize(b->journal, 100, 30);
		append(b, " you", 4);
		come(b, formats[i]);
		drain(b, formats[i]);
		ASSERT_GOT(b, "hello you");
		assert_int_equal(b->events, 1); /* a size mark does not cut it */
		feed_notify(&b->feed);
		journal_resize(b->journal, 90, 30);
		b->feed.version++;
		drain(b, formats[i]);
		assert_int_equal(b->events, 1);
		bed_destroy(b);
	}
}

static void never_splits_a_character(void **state)
{
	(void)state;
	static const char text[] = "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x9a\x80z\xff\xe2\x82!\r\n";
	static const char valid[] =
		"a\xc3\xa9\xe2\x82\xac\xf0\x9f\x9a\x80z\xef\xbf\xbd\xef\xbf\xbd!\r\n";
	for (int i = 0; i < FORMATS; i++) {
		for (size_t cut = 0; cut <= sizeof(text) - 1; cut++) {
			struct bed *b = bed_create();
			come(b, formats[i]);
			append(b, text, cut);
			drain(b, formats[i]);
			append(b, text + cut, sizeof(text) - 1 - cut);
			drain(b, formats[i]);
			if (formats[i] == VIEWER_PTY_WS_BINARY)
				assert_got(b, text, sizeof(text) - 1);
			else
				assert_got(b, valid, sizeof(valid) - 1);
			bed_destroy(b);
		}
	}
}

/* Asked before it came: not asked again. Asked after that: passed on. And at every place between. */
static void asks_nothing_in_a_replay_and_all_that_is_live(void **state)
{
	(void)state;
	static const char text[] = "one\033[6ntwo\xe2\x82\xac\033]11;?\athree";
	for (int i = 0; i < FORMATS; i++) {
		for (size_t cut = 0; cut <= sizeof(text) - 1; cut++) {
			struct bed *b = bed_create();
			append(b, text, cut);
			come(b, formats[i]);
			drain(b, formats[i]);
			append(b, text + cut, sizeof(text) - 1 - cut);
			drain(b, formats[i]);
			bool first = cut < 7, second = cut < 20;
			char expected[64];
			int n = snprintf(expected, sizeof(expected), "one%stwo\xe2\x82\xac%sthree",
					 first ? "\033[6n" : "", second ? "\033]11;?\a" : "");
			assert_got(b, expected, (size_t)n);
			bed_destroy(b);
		}
	}
}

static void asks_nothing_whatever_the_pieces(void **state)
{
	(void)state;
	struct bed *b = bed_create();
	size_t letters = 0;
	for (unsigned n = 0; n < 400; n++) { /* 60,000 bytes, so that some lie across the pieces */
		char line[200];
		int size = snprintf(line, sizeof(line),
				    "%0*u\033[6n\033]4;%u;?\033\\\xc2\x9b"
				    "c",
				    (int)(n % 131) + 1, n, n % 256);
		letters += (size_t)snprintf(NULL, 0, "%0*u", (int)(n % 131) + 1, n);
		append(b, line, (size_t)size);
	}
	for (int i = 0; i < FORMATS; i++) {
		come(b, formats[i]);
		drain(b, formats[i]);
		assert_int_equal(b->size, letters);
		assert_int_equal(strspn(b->out, "0123456789"), letters);
	}
	bed_destroy(b);
}

static void knows_the_replay_of_a_shell_that_was_found_again(void **state)
{
	(void)state;
	struct bed *b = bed_create();
	b->feed.ready = b->feed.attached = false;
	come(b, VIEWER_PTY_WS); /* while it is looked for */
	drain(b, VIEWER_PTY_WS);
	append(b, "old\033[6n", 7);
	b->feed.replayed = 7;
	append(b, "new\033[6n", 7);
	b->feed.ready = b->feed.attached = true;
	b->feed.version++;
	drain(b, VIEWER_PTY_WS);
	ASSERT_GOT(b, "oldnew\033[6n");
	bed_destroy(b);
}

/* It came while the service had let go of the sandbox: what was written meanwhile comes behind it. */
static void knows_the_replay_of_a_shell_that_was_asleep(void **state)
{
	(void)state;
	static const char missed[] = "was\033[6nhere\033[", live[] = "cnow\033[6n";
	for (int i = 0; i < FORMATS; i++) {
		struct bed *b = bed_create();
		append(b, "old\033[6n\033[", 9);
		b->feed.attached = false;
		come(b, formats[i]);
		drain(b, formats[i]);
		ASSERT_GOT(b, "old"); /* the question may be a longer one */
		b->feed.attached = true;
		b->feed.replayed = 9 + 1 + sizeof(missed) - 1;
		append(b, "c", 1);
		for (size_t n = 0; n < sizeof(missed) - 1; n++) {
			append(b, missed + n, 1);
			drain(b, formats[i]);
		}
		append(b, live, sizeof(live) - 1);
		drain(b, formats[i]);
		ASSERT_GOT(b, "oldwashere\033[cnow\033[6n"); /* asked across the end: it is live */
		bed_destroy(b);
	}
}

static void asks_nothing_of_a_shell_that_is_over(void **state)
{
	(void)state;
	struct bed *b = bed_create();
	append(b, "old\033[6n", 7);
	b->feed.attached = false;
	come(b, VIEWER_PTY_SSE);
	drain(b, VIEWER_PTY_SSE);
	b->feed.exit_json = "{\"reason\":\"lost\",\"exit_code\":null,\"signal\":null}";
	b->feed.final = true;
	b->feed.version++;
	drain(b, VIEWER_PTY_SSE);
	ASSERT_GOT(b, "old");
	assert_true(b->pos.exited);
	bed_destroy(b);
}

static void starts_at_the_oldest_byte_of_a_short_history(void **state)
{
	(void)state;
	struct bed *b = bed_create();
	append(b, "motd\r\n$ ", 8);
	come(b, VIEWER_PTY_WS);
	drain(b, VIEWER_PTY_WS);
	ASSERT_GOT(b, "motd\r\n$ ");
	for (int i = 0; i < 20000; i++)
		append(b, "line\r\n", 6);
	come(b, VIEWER_PTY_WS);
	drain(b, VIEWER_PTY_WS);
	assert_true(b->size <= 65536 && b->size > 65536 - 7);
	assert_memory_equal(b->out, "line\r\n", 6);
	bed_destroy(b);
}

static void says_where_output_was_lost(void **state)
{
	(void)state;
	for (int i = 0; i < FORMATS; i++) {
		struct bed *b = bed_create();
		append(b, "first", 5);
		come(b, formats[i]);
		drain(b, formats[i]);
		for (int n = 0; n < 300000; n++)
			append(b, "line\r\n", 6);
		drain(b, formats[i]);
		assert_memory_equal(b->out, "first" LOST "line\r\n", 5 + sizeof(LOST) - 1 + 6);
		assert_true(b->pos.offset == journal_head(b->journal));
		b->size = b->last_id = 0;
		b->pos = position_start(&b->feed, formats[i], true, 99, 4); /* of another shell */
		drain(b, formats[i]);
		assert_memory_equal(b->out, LOST, sizeof(LOST) - 1);
		bed_destroy(b);
	}
}

static void tells_the_end_of_a_stream(void **state)
{
	(void)state;
	static const struct {
		const char *exit, *reason, *end;
	} all[] = {
		{ "{\"reason\":\"exited\",\"exit_code\":3,\"signal\":null}", NULL,
		  "exit {\"code\":3,\"reason\":\"exited\",\"exit_code\":3,\"signal\":null}" },
		{ "{\"reason\":\"exited\",\"exit_code\":null,\"signal\":\"SIGKILL\"}", NULL,
		  "exit {\"code\":null,\"reason\":\"exited\",\"exit_code\":null,\"signal\":\"SIGKILL\"}" },
		{ "{\"reason\":\"lost\",\"exit_code\":null,\"signal\":null}", "gone \"there\"\xff",
		  "error {\"message\":\"gone \\\"there\\\"\xef\xbf\xbd\"}" },
		{ "{\"reason\":\"lost\",\"exit_code\":null,\"signal\":null}", NULL,
		  "error {\"message\":\"the session was lost\"}" },
		{ "{\"reason\":\"failed\",\"exit_code\":null,\"signal\":null}", NULL,
		  "error {\"message\":\"the session could not be started\"}" },
	};
	for (size_t n = 0; n < sizeof(all) / sizeof(all[0]); n++) {
		for (int i = 0; i < FORMATS; i++) {
			struct bed *b = bed_create();
			append(b, "bye\xe2\x82", 5);
			b->feed.exit_json = all[n].exit;
			b->feed.reason = all[n].reason;
			b->feed.final = true;
			come(b, formats[i]);
			drain(b, formats[i]);
			assert_true(b->pos.exited);
			assert_memory_equal(b->out, "bye", 3);
			assert_string_equal(b->end, formats[i] == VIEWER_PTY_SSE ? all[n].end : "");
			if (formats[i] == VIEWER_PTY_SSE)
				assert_int_equal(b->last_id, 6); /* END + 1 */
			assert_int_equal(event_failure(&b->feed) != NULL, n >= 2);
			bed_destroy(b);
		}
	}
}

static void shares_what_is_live_between_those_who_came_at_different_times(void **state)
{
	(void)state;
	struct bed *b = bed_create();
	append(b, "one", 3);
	come(b, VIEWER_PTY_WS);
	drain(b, VIEWER_PTY_WS);
	struct position early = b->pos;
	append(b, "two", 3);
	come(b, VIEWER_PTY_WS);
	drain(b, VIEWER_PTY_WS);
	struct position late = b->pos;
	append(b, "three", 5);
	early = event_burst(b->cache, &b->feed, VIEWER_PTY_WS, &early)->after;
	late = event_burst(b->cache, &b->feed, VIEWER_PTY_WS, &late)->after;
	assert_true(position_equal(&early, &late));
	bed_destroy(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gives_output_and_nothing_else),
		cmocka_unit_test(never_splits_a_character),
		cmocka_unit_test(asks_nothing_in_a_replay_and_all_that_is_live),
		cmocka_unit_test(asks_nothing_whatever_the_pieces),
		cmocka_unit_test(knows_the_replay_of_a_shell_that_was_found_again),
		cmocka_unit_test(knows_the_replay_of_a_shell_that_was_asleep),
		cmocka_unit_test(asks_nothing_of_a_shell_that_is_over),
		cmocka_unit_test(starts_at_the_oldest_byte_of_a_short_history),
		cmocka_unit_test(says_where_output_was_lost),
		cmocka_unit_test(tells_the_end_of_a_stream),
		cmocka_unit_test(shares_what_is_live_between_those_who_came_at_different_times),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
