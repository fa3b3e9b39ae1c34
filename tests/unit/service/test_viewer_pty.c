/* test_viewer_pty.c -- viewer_pty.c: what of a message is typed and what is a resize; input that comes before the
 * shell; what became of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "service/config.h"
#include "service/metrics.h"
#include "service/reply.h"
#include "service/viewer_ws.h"

struct bed {
	struct config cfg;
	struct viewer_ws *ws;
	char typed[4 << 20];
	size_t size;
	unsigned inputs, resizes;
	unsigned cols, rows;
	unsigned code;
	char reason[128];
};

static void on_send(void *arg, int opcode, const void *data, size_t size)
{
	(void)arg;
	(void)data;
	(void)size;
	assert_true(opcode == WS_PONG); /* no message ever */
}

static void on_close(void *arg, uint16_t code, const char *reason)
{
	struct bed *b = arg;
	b->code = code;
	snprintf(b->reason, sizeof(b->reason), "%s", reason);
}

static void on_resize(void *arg, uint16_t cols, uint16_t rows)
{
	struct bed *b = arg;
	b->resizes++;
	b->cols = cols;
	b->rows = rows;
}

static void on_input(void *arg, const uint8_t client[16], uint64_t seq, uint8_t *bytes, size_t size)
{
	struct bed *b = arg;
	(void)client;
	assert_int_equal(seq, 0);
	assert_true(size <= b->cfg.input_bytes && b->size + size <= sizeof(b->typed));
	memcpy(b->typed + b->size, bytes, size);
	b->size += size;
	b->inputs++;
	free(bytes);
}

static const struct viewer_ws_ops ops = {
	.send = on_send, .close = on_close, .resize = on_resize, .input = on_input
};

static struct bed *bed_create(const struct viewer_ws_dialect *dialect, bool may_write)
{
	struct bed *b = calloc(1, sizeof(*b));
	b->cfg.input_bytes = 1000;
	b->cfg.bodies_total_bytes = 64 << 20;
	b->cfg.request_timeout_s = 30;
	b->ws = viewer_ws_create(dialect, &ops, b, may_write, &b->cfg);
	return b;
}

static void bed_destroy(struct bed *b)
{
	viewer_ws_destroy(b->ws);
	assert_int_equal(metric_get(METRIC_BODIES_BYTES), 0);
	free(b);
}

static void say(struct bed *b, bool binary, const void *data, size_t size)
{
	const struct viewer_ws_dialect *d = b->ws->dialect;
	(binary ? d->binary : d->text)(b->ws, data, size);
}

static void assert_typed(const struct bed *b, const char *expected)
{
	assert_int_equal(b->size, strlen(expected));
	assert_memory_equal(b->typed, expected, b->size);
}

static void takes_a_resize_in_either_kind_of_message(void **state)
{
	(void)state;
	static const char *const good[] = {
		"{\"type\":\"resize\",\"cols\":100,\"rows\":40}",
		" \r\n\t{\"rows\":40,\"cols\":1e2,\"type\":\"resize\",\"x\":[]} ",
		"{\"type\":\"resize\",\"cols\":100.0,\"rows\":40.0}"
	};
	for (size_t i = 0; i < 3; i++) {
		for (int binary = 0; binary < 2; binary++) {
			struct bed *b = bed_create(&viewer_ws_pty, true);
			viewer_ws_opened(b->ws);
			say(b, binary != 0, good[i], strlen(good[i]));
			assert_int_equal(b->resizes, 1);
			assert_int_equal(b->cols, 100);
			assert_int_equal(b->rows, 40);
			assert_typed(b, "");
			bed_destroy(b);
		}
	}
}

static void never_types_a_resize_that_is_out_of_range(void **state)
{
	(void)state;
	static const char *const bad[] = { "0",    "-1",     "70000",
					   "1001", "\"80\"", "[80]",
					   "null", "80.5",   "99999999999999999999",
					   "{}" };
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		for (int side = 0; side < 2; side++) {
			char text[128];
			snprintf(text, sizeof(text),
				 "{\"type\":\"resize\",\"cols\":%s,\"rows\":%s}",
				 side == 0 ? bad[i] : "80", side == 0 ? "24" : bad[i]);
			struct bed *b = bed_create(&viewer_ws_pty, true);
			viewer_ws_opened(b->ws);
			say(b, side == 1, text, strlen(text));
			assert_int_equal(b->resizes, 0);
			assert_typed(b, "");
			bed_destroy(b);
		}
	}
}

static void types_all_else_to_the_byte(void **state)
{
	(void)state;
	static const char *const all[] = { "{\"type\":\"resize\"}",
					   "{\"type\":\"input\",\"data\":\"x\"}",
					   "{\"type\":\"resize\",\"cols\":80,\"rows\":24",
					   "[1]",
					   "{",
					   "\"resize\"",
					   "{\"type\":\"resize\",\"cols\":80,\"rows\":24} x",
					   "ls\r",
					   "\377\376\033[M\001" };
	struct bed *b = bed_create(&viewer_ws_pty, true);
	viewer_ws_opened(b->ws);
	char expected[1024] = "";
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		say(b, i % 2 == 0, all[i], strlen(all[i]));
		strcat(expected, all[i]);
	}
	assert_typed(b, expected);
	assert_int_equal(b->resizes, 0);
	say(b, true, "\0", 1);
	say(b, false, "", 0);
	assert_int_equal(b->size, strlen(expected) + 1);
	assert_int_equal(b->inputs, sizeof(all) / sizeof(all[0]) + 1);
	bed_destroy(b);
}

static void keeps_the_two_apart_in_binary_mode(void **state)
{
	(void)state;
	static const char resize[] = "{\"type\":\"resize\",\"cols\":100,\"rows\":40}";
	struct bed *b = bed_create(&viewer_ws_pty_binary, true);
	viewer_ws_opened(b->ws);
	say(b, true, resize, strlen(resize));
	assert_typed(b, resize);
	assert_int_equal(b->resizes, 0);
	say(b, false, resize, strlen(resize));
	say(b, false, "text is not typed", 17);
	assert_int_equal(b->resizes, 1);
	assert_typed(b, resize);
	bed_destroy(b);
}

static void holds_what_comes_before_the_shell(void **state)
{
	(void)state;
	struct bed *b = bed_create(&viewer_ws_pty, true);
	char expected[3000] = "";
	for (int i = 0; i < 300; i++) {
		char text[16];
		snprintf(text, sizeof(text), "%d,", i);
		say(b, false, text, strlen(text));
		strcat(expected, text);
	}
	say(b, false, "{\"type\":\"resize\",\"cols\":9,\"rows\":9}", 35);
	assert_int_equal(b->resizes, 1); /* not held: the session keeps the last one */
	assert_int_equal(b->inputs, 0);
	viewer_ws_opened(b->ws);
	viewer_ws_opened(b->ws);
	assert_typed(b, expected);
	assert_int_equal(b->inputs, 2); /* of at most 1,000 bytes */
	say(b, false, "x", 1);
	strcat(expected, "x");
	assert_typed(b, expected);
	bed_destroy(b);
}

static void closes_when_too_much_comes_before_the_shell(void **state)
{
	(void)state;
	static uint8_t block[4096];
	struct bed *b = bed_create(&viewer_ws_pty, true);
	for (int i = 0; i < 256; i++)
		say(b, true, block, sizeof(block));
	assert_int_equal(b->code, 0);
	say(b, true, "x", 1);
	assert_int_equal(b->code, 1013);
	viewer_ws_opened(b->ws);
	assert_int_equal(b->inputs, 0); /* not the start of what is not whole */
	bed_destroy(b);

	b = bed_create(&viewer_ws_pty, true);
	b->cfg.bodies_total_bytes = 10000;
	for (int i = 0; i < 4; i++)
		say(b, true, block, sizeof(block));
	assert_int_equal(b->code, 1013);
	bed_destroy(b);
}

static void says_input_that_was_not_delivered(void **state)
{
	(void)state;
	static const struct {
		unsigned status;
		const char *slug;
		unsigned code;
	} all[] = { { 503, "not-delivered", 1011 }, { 503, "delivery-unknown", 1011 },
		    { 429, "input-full", 1011 },    { 503, "busy", 1011 },
		    { 409, "session-ended", 0 },    { 503, "draining", 0 } };
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		struct bed *b = bed_create(&viewer_ws_pty, true);
		viewer_ws_opened(b->ws);
		struct reply reply = reply_ok(204);
		viewer_ws_answer(b->ws, 0, &reply);
		assert_int_equal(b->code, 0);
		reply = reply_problem(all[i].status, all[i].slug, "why");
		viewer_ws_answer(b->ws, 0, &reply);
		assert_int_equal(b->code, all[i].code);
		if (all[i].code != 0)
			assert_string_equal(b->reason, "input not delivered");
		say(b, false, "y\r", 2); /* must not follow what is missing */
		assert_int_equal(b->size, all[i].code != 0 ? 0 : 2);
		bed_destroy(b);
	}
}

static void passes_over_what_a_viewer_may_not(void **state)
{
	(void)state;
	struct bed *b = bed_create(&viewer_ws_pty, false);
	say(b, false, "early", 5);
	viewer_ws_opened(b->ws);
	say(b, false, "late", 4);
	say(b, false, "{\"type\":\"resize\",\"cols\":9,\"rows\":9}", 35);
	assert_int_equal(b->size, 0);
	assert_int_equal(b->resizes, 0);
	assert_int_equal(b->code, 0);
	bed_destroy(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(takes_a_resize_in_either_kind_of_message),
		cmocka_unit_test(never_types_a_resize_that_is_out_of_range),
		cmocka_unit_test(types_all_else_to_the_byte),
		cmocka_unit_test(keeps_the_two_apart_in_binary_mode),
		cmocka_unit_test(holds_what_comes_before_the_shell),
		cmocka_unit_test(closes_when_too_much_comes_before_the_shell),
		cmocka_unit_test(says_input_that_was_not_delivered),
		cmocka_unit_test(passes_over_what_a_viewer_may_not),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
