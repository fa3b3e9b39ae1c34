/* test_foreign.c -- tunnel/foreign.c: the transports "raw" and "pty-tunnel" before a far end that does as
 * it is told. */
#include "tests/unit/wire/test.h"

#include <errno.h>
#include <string.h>

#include "tests/unit/tunnel/far.h"
#include "tunnel/tunnel.h"
#include "tunnel/ws_client.h"

#define REQUESTS_MAX 16

struct bench {
	struct far_loop loop;
	struct far far;
	struct input_seq *dedupe;
	const struct tunnel_ops *ops;
	struct tunnel *tunnel;

	/* What the tunnel told. */
	unsigned attached_count, resized_count, ended_count;
	struct tunnel_attached attached;
	uint8_t *output; /* owned */
	uint64_t output_size;
	struct {
		uint64_t request;
		enum pty2_verdict verdict;
		uint64_t expected;
	} done[REQUESTS_MAX];
	unsigned done_count;
	enum tunnel_end end;
	char text[256];
};

static void on_attached(void *arg, const struct tunnel_attached *attached)
{
	struct bench *b = arg;
	b->attached = *attached;
	b->attached_count++;
}

static void on_output(void *arg, uint64_t offset, const uint8_t *data, size_t size)
{
	struct bench *b = arg;
	assert_int_equal(b->attached_count, 1);
	assert_int_equal(offset, b->output_size);
	assert_true(size > 0);
	b->output = realloc(b->output, b->output_size + size);
	assert_non_null(b->output);
	memcpy(b->output + b->output_size, data, size);
	b->output_size += size;
}

static void on_resized(void *arg, uint64_t offset, uint16_t cols, uint16_t rows)
{
	struct bench *b = arg;
	assert_int_equal(offset, b->output_size);
	assert_int_equal(cols, 132);
	assert_int_equal(rows, 43);
	b->resized_count++;
}

static void on_input_done(void *arg, uint64_t request, enum pty2_verdict verdict, uint64_t expected)
{
	struct bench *b = arg;
	assert_true(b->done_count < REQUESTS_MAX);
	b->done[b->done_count].request = request;
	b->done[b->done_count].verdict = verdict;
	b->done[b->done_count++].expected = expected;
}

static void on_signaled(void *arg, uint64_t request, int error)
{
	(void)arg;
	(void)request;
	(void)error;
	fail_msg("no such event");
}

static void on_exited(void *arg, uint64_t end, enum pty2_exit_kind kind, unsigned value)
{
	(void)arg;
	(void)end;
	(void)kind;
	(void)value;
	fail_msg("no such event");
}

static void on_ended(void *arg, enum tunnel_end end, uint64_t fence, const char *text)
{
	struct bench *b = arg;
	assert_int_equal(fence, 0);
	b->end = end;
	b->ended_count++;
	snprintf(b->text, sizeof(b->text), "%s", text);
}

static const struct tunnel_events events = {
	.attached = on_attached,
	.output = on_output,
	.resized = on_resized,
	.input_done = on_input_done,
	.signaled = on_signaled,
	.exited = on_exited,
	.ended = on_ended,
};

static bool has_attached(void *arg)
{
	return ((struct bench *)arg)->attached_count > 0;
}

static bool has_ended(void *arg)
{
	return ((struct bench *)arg)->ended_count > 0;
}

/* Starts a tunnel to the far end; epoch is that of the connection before. */
static void connect_tunnel(struct bench *b, uint64_t epoch)
{
	char url[64];
	snprintf(url, sizeof(url), "ws://127.0.0.1:%u/pty/s1/attach?x=1", b->far.port);
	const struct ws_header headers[] = { { "authorization:", "Bearer t0k" },
					     { "x-runloop-tunnel-authorization:", "Bearer t0k" } };
	struct tunnel_params params = {
		.uv = &b->loop.uv,
		.lws = b->loop.lws,
		.url = url,
		.token = "unused",
		.headers = headers,
		.headers_count = COUNT_OF(headers),
		.cols = 100,
		.rows = 30,
		.epoch = epoch,
		.dedupe = b->dedupe,
		.events = &events,
		.arg = b,
	};
	struct error err = { 0 };
	b->attached_count = b->ended_count = 0;
	assert_int_equal(b->ops->create(&params, &b->tunnel, &err), 0);
	assert_int_equal(b->attached_count + b->ended_count, 0); /* never before it returns */
}

static void setup(struct bench *b, const struct tunnel_ops *ops)
{
	*b = (struct bench){ .ops = ops, .dedupe = input_seq_create() };
	assert_non_null(b->dedupe);
	far_loop_init(&b->loop);
	far_start(&b->far, &b->loop, "127.0.0.1", 0);
}

static void setup_attached(struct bench *b, const struct tunnel_ops *ops)
{
	setup(b, ops);
	connect_tunnel(b, 0);
	far_run_until(&b->loop, has_attached, b);
	far_run_until(&b->loop, far_is_upgraded, &b->far);
}

static void teardown(struct bench *b)
{
	b->ops->destroy(b->tunnel, false);
	far_stop(&b->far);
	far_loop_fini(&b->loop);
	input_seq_destroy(b->dedupe);
	free(b->output);
}

static bool has_output(void *arg)
{
	const struct bench *b = arg;
	return b->output_size >= 5 && memcmp(b->output + b->output_size - 5, "<end>", 5) == 0;
}

/* Everything that was sent to the far end has come: a last input is there. */
static bool has_marker(void *arg)
{
	const struct bench *b = arg;
	const struct far *f = &b->far;
	return f->received_size >= 5 &&
	       memcmp(f->received + f->received_size - 5, "<end>", 5) == 0 && b->done_count > 0 &&
	       b->done[b->done_count - 1].request == 99;
}

static int type(struct bench *b, uint64_t request, uint64_t seq, const void *bytes, size_t size)
{
	static const uint8_t client[INPUT_CLIENT_BYTES] = "me";
	return b->ops->input(b->tunnel, request, client, seq, bytes, size);
}

static void type_marker(struct bench *b)
{
	assert_int_equal(type(b, 99, 0, "<end>", 5), 0);
	far_run_until(&b->loop, has_marker, b);
}

static void are_found_by_name(void **state)
{
	(void)state;
	assert_ptr_equal(tunnel_find("raw"), &tunnel_raw);
	assert_ptr_equal(tunnel_find("pty-tunnel"), &tunnel_pty_tunnel);
	assert_ptr_equal(tunnel_find("agent"), &tunnel_agent);
	assert_null(tunnel_find("ra"));
	assert_string_equal(tunnel_raw.name, "raw");
	assert_false(tunnel_raw.signals || tunnel_raw.keeps || tunnel_raw.resends);
}

static void raw_sends_bytes_and_nothing_else(void **state)
{
	(void)state;
	struct bench b;
	setup_attached(&b, &tunnel_raw);
	assert_int_not_equal(b.attached.epoch, 0);
	assert_int_equal(b.attached.start, 0);
	assert_int_equal(b.attached.cols, 100);
	assert_int_equal(b.attached.rows, 30);
	assert_non_null(strstr(b.far.head, "GET /pty/s1/attach?x=1 HTTP/1.1\r\n"));
	assert_non_null(strstr(b.far.head, "authorization: Bearer t0k\r\n"));
	assert_non_null(strstr(b.far.head, "x-runloop-tunnel-authorization: Bearer t0k\r\n"));
	assert_null(strstr(b.far.head, "unused"));

	assert_int_equal(b.ops->resize(b.tunnel, 132, 43), -ENOTSUP);
	assert_int_equal(b.ops->signal(b.tunnel, 1, 2), -ENOTSUP);
	assert_int_equal(b.ops->hang_up(b.tunnel), -ENOTSUP);
	assert_int_equal(b.ops->forget(b.tunnel), -ENOTSUP);
	assert_int_equal(type(&b, 1, 0, "\0\1\2ls\r", 6), 0);
	assert_int_equal(type(&b, 2, 0, "", 0), 0);
	type_marker(&b);
	assert_int_equal(b.far.messages_count, 2);
	assert_false(b.far.text);
	assert_int_equal(b.far.received_size, 6 + 5);
	assert_memory_equal(b.far.received, "\0\1\2ls\r<end>", 6 + 5);
	assert_int_equal(b.done_count, 3);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(b.done[i].verdict, PTY2_QUEUED);
	assert_int_equal(b.resized_count, 0);
	teardown(&b);
}

static void pty_tunnel_has_a_type_byte_and_a_greeting(void **state)
{
	(void)state;
	struct bench b;
	setup_attached(&b, &tunnel_pty_tunnel);
	assert_int_equal(b.ops->resize(b.tunnel, 132, 43), 0);
	assert_int_equal(b.resized_count, 1);
	assert_int_equal(b.ops->signal(b.tunnel, 1, 2), -ENOTSUP);
	assert_int_equal(type(&b, 1, 0, "ls\r", 3), 0);
	type_marker(&b);
	static const uint8_t expected[] = { 1, 0,   100, 0,    30, 2,   1,   0,   132, 0,  43,
					    0, 'l', 's', '\r', 0,  '<', 'e', 'n', 'd', '>' };
	assert_int_equal(b.far.messages_count, 5);
	assert_int_equal(b.far.received_size, sizeof(expected));
	assert_memory_equal(b.far.received, expected, sizeof(expected));
	teardown(&b);
}

static void output_is_what_comes_in_any_kind_of_message(void **state)
{
	(void)state;
	static const struct tunnel_ops *const all[] = { &tunnel_raw, &tunnel_pty_tunnel };
	for (size_t i = 0; i < COUNT_OF(all); i++) {
		struct bench b;
		setup_attached(&b, all[i]);
		static uint8_t large[300000];
		for (size_t j = 0; j < sizeof(large); j++)
			large[j] = (uint8_t)(j * 7 >> 3);
		far_send(&b.far, WS_BINARY, true, "\0bin", 4);
		far_send(&b.far, WS_BINARY, true, "", 0);
		far_send(&b.far, WS_TEXT, true, "text", 4);
		far_send(&b.far, WS_PING, true, "ping", 4);
		far_send(&b.far, WS_BINARY, false, "in ", 3);
		far_send(&b.far, WS_CONTINUATION, false, "", 0);
		far_send(&b.far, WS_CONTINUATION, true, "pieces", 6);
		far_send(&b.far, WS_BINARY, true, large, sizeof(large));
		far_send(&b.far, WS_BINARY, true, "<end>", 5);
		far_run_until(&b.loop, has_output, &b);
		assert_int_equal(b.output_size, 4 + 4 + 9 + sizeof(large) + 5);
		assert_memory_equal(b.output, "\0bintextin pieces", 17);
		assert_memory_equal(b.output + 17, large, sizeof(large));
		teardown(&b);
	}
}

static void input_of_any_size_arrives_whole_and_in_order(void **state)
{
	(void)state;
	static const struct tunnel_ops *const all[] = { &tunnel_raw, &tunnel_pty_tunnel };
	static const size_t piece = 32 << 10, size = (1 << 20) + 1;
	for (size_t i = 0; i < COUNT_OF(all); i++) {
		struct bench b;
		setup_attached(&b, all[i]);
		uint8_t *bytes = malloc(size);
		assert_non_null(bytes);
		for (size_t j = 0; j < size; j++)
			bytes[j] = (uint8_t)(j * 7 >> 3);
		assert_int_equal(type(&b, 1, 0, bytes, size), 0);
		type_marker(&b);
		size_t head = i == 0 ? 0 : 1, at = i == 0 ? 0 : 6; /* behind the greeting */
		for (size_t from = 0; from < size; from += piece) {
			size_t n = size - from < piece ? size - from : piece;
			assert_memory_equal(b.far.received + at + head, bytes + from, n);
			at += head + n;
		}
		assert_int_equal(at + head + 5, b.far.received_size);
		free(bytes);
		teardown(&b);
	}
}

static void repeats_are_dropped_here_also_after_another_connection(void **state)
{
	(void)state;
	struct bench b;
	setup_attached(&b, &tunnel_raw);
	assert_int_equal(type(&b, 1, 1, "a", 1), 0);
	assert_int_equal(type(&b, 2, 1, "a", 1), 0); /* told at once, before the first */
	assert_int_equal(type(&b, 3, 3, "c", 1), 0);
	assert_int_equal(b.done_count, 2);
	assert_int_equal(b.done[0].verdict, PTY2_REPEATED);
	assert_int_equal(b.done[1].verdict, PTY2_GAP);
	assert_int_equal(b.done[1].expected, 2);
	type_marker(&b);
	assert_int_equal(b.far.received_size, 1 + 5);

	far_cut(&b.far);
	far_run_until(&b.loop, has_ended, &b);
	assert_int_equal(b.end, TUNNEL_LOST);
	assert_int_equal(type(&b, 4, 2, "b", 1), -ENOTCONN);
	b.ops->destroy(b.tunnel, false);
	uint64_t epoch = b.attached.epoch;
	b.done_count = 0;
	connect_tunnel(&b, epoch);
	far_run_until(&b.loop, has_attached, &b);
	assert_int_not_equal(b.attached.epoch, epoch);
	assert_int_equal(type(&b, 1, 1, "a", 1), 0);
	assert_int_equal(b.done[0].verdict, PTY2_REPEATED);
	assert_int_equal(type(&b, 2, 2, "b", 1), 0);
	type_marker(&b);
	assert_int_equal(b.far.received_size, 6 + 1 + 5);
	teardown(&b);
}

struct outcome {
	unsigned code; /* close code, 0 for a cut; or an HTTP status */
	enum tunnel_end end;
	const char *text; /* a part of it; NULL: whatever */
};

static void check_closes(const struct tunnel_ops *ops, const struct outcome *cases, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct bench b;
		setup_attached(&b, ops);
		far_send(&b.far, WS_BINARY, true, "<end>", 5);
		if (cases[i].code == 0) {
			far_run_until(&b.loop, has_output, &b);
			far_cut(&b.far);
		} else {
			far_close(&b.far, (uint16_t)cases[i].code, "bye");
		}
		far_run_until(&b.loop, has_ended, &b);
		if (b.end != cases[i].end)
			fail_msg("%s: close %u is %d", ops->name, cases[i].code, (int)b.end);
		assert_true(has_output(&b)); /* all that came before */
		assert_int_equal(b.ops->resize(b.tunnel, 132, 43),
				 ops == &tunnel_raw ? -ENOTSUP : -ENOTCONN);
		teardown(&b);
		assert_int_equal(b.ended_count, 1);
	}
}

static void close_codes_tell_an_end_from_a_loss(void **state)
{
	(void)state;
	static const struct outcome raw[] = {
		{ 4000, TUNNEL_EXITED, NULL }, { 1000, TUNNEL_EXITED, NULL },
		{ 1005, TUNNEL_LOST, NULL },   { 1001, TUNNEL_LOST, NULL },
		{ 1011, TUNNEL_LOST, NULL },   { 1012, TUNNEL_LOST, NULL },
		{ 4001, TUNNEL_LOST, NULL },   { 4409, TUNNEL_LOST, NULL },
		{ 0, TUNNEL_LOST, NULL },
	};
	static const struct outcome typed[] = {
		{ 1000, TUNNEL_EXITED, NULL }, { 1005, TUNNEL_EXITED, NULL },
		{ 1001, TUNNEL_LOST, NULL },   { 4000, TUNNEL_LOST, NULL },
		{ 4408, TUNNEL_LOST, NULL },   { 0, TUNNEL_LOST, NULL },
	};
	check_closes(&tunnel_raw, raw, COUNT_OF(raw));
	check_closes(&tunnel_pty_tunnel, typed, COUNT_OF(typed));
}

static void check_refusals(const struct tunnel_ops *ops, uint64_t epoch,
			   const struct outcome *cases, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct bench b;
		setup(&b, ops);
		b.far.status = cases[i].code;
		connect_tunnel(&b, epoch);
		far_run_until(&b.loop, has_ended, &b);
		if (b.end != cases[i].end)
			fail_msg("%s: status %u is %d", ops->name, cases[i].code, (int)b.end);
		if (cases[i].text != NULL && strstr(b.text, cases[i].text) == NULL)
			fail_msg("%s: status %u says %s", ops->name, cases[i].code, b.text);
		assert_int_equal(type(&b, 1, 1, "a", 1), -ENOTCONN);
		teardown(&b);
		assert_int_equal(b.attached_count, 0);
		assert_int_equal(b.ended_count, 1);
	}
}

static void refusals_tell_what_may_be_tried_again(void **state)
{
	(void)state;
	static const struct outcome raw[] = {
		{ 404, TUNNEL_GONE, "does not know" },
		{ 410, TUNNEL_GONE, "does not know" },
		{ 409, TUNNEL_LOST, "is attached" },
		{ 401, TUNNEL_LOST, "token" },
		{ 403, TUNNEL_LOST, "token" },
		{ 502, TUNNEL_LOST, "refused" },
		{ 503, TUNNEL_LOST, "refused" },
		{ 400, TUNNEL_LOST, "refused" },
		{ 429, TUNNEL_LOST, "refused" },
		{ 500, TUNNEL_LOST, "refused" },
		{ 302, TUNNEL_LOST, NULL },
		{ 200, TUNNEL_LOST, NULL },
	};
	static const struct outcome typed[] = {
		{ 404, TUNNEL_LOST, NULL },      { 400, TUNNEL_FAILED, "token" },
		{ 401, TUNNEL_FAILED, "token" }, { 403, TUNNEL_FAILED, "token" },
		{ 410, TUNNEL_LOST, NULL },      { 503, TUNNEL_LOST, NULL },
	};
	static const struct outcome again[] = { { 404, TUNNEL_GONE, "does not know" } };
	check_refusals(&tunnel_raw, 0, raw, COUNT_OF(raw));
	check_refusals(&tunnel_raw, 7, raw, COUNT_OF(raw));
	check_refusals(&tunnel_pty_tunnel, 0, typed, COUNT_OF(typed));
	check_refusals(&tunnel_pty_tunnel, 7, again, COUNT_OF(again));
}

static void nobody_at_the_address_is_a_loss(void **state)
{
	(void)state;
	struct bench b;
	setup(&b, &tunnel_raw);
	uint16_t port = b.far.port;
	far_stop(&b.far);
	far_start(&b.far, &b.loop, "127.0.0.1", 0);
	uint16_t other = b.far.port;
	b.far.port = port;
	connect_tunnel(&b, 0);
	b.far.port = other;
	far_run_until(&b.loop, has_ended, &b);
	assert_int_equal(b.end, TUNNEL_LOST);
	teardown(&b);
}

static void leaving_says_so_and_a_cut_does_not(void **state)
{
	(void)state;
	for (int leave = 0; leave < 2; leave++) {
		struct bench b;
		setup_attached(&b, &tunnel_raw);
		assert_int_equal(type(&b, 1, 0, "<end>", 5), 0);
		if (!leave)
			type_marker(&b);
		b.ops->destroy(b.tunnel, leave);
		b.tunnel = NULL;
		far_run_until(&b.loop, far_has_ended, &b.far);
		assert_int_equal(b.far.close_code, leave ? 1000 : 0);
		if (leave) /* behind what was typed */
			assert_memory_equal(b.far.received, "<end>", 5);
		assert_int_equal(b.ended_count, 0);
		teardown(&b);
	}
}

static void a_pause_stops_the_output(void **state)
{
	(void)state;
	struct bench b;
	setup_attached(&b, &tunnel_raw);
	b.ops->pause(b.tunnel, true);
	far_send(&b.far, WS_BINARY, true, "<end>", 5);
	far_run_for(&b.loop, 100);
	assert_int_equal(b.output_size, 0);
	b.ops->pause(b.tunnel, false);
	far_run_until(&b.loop, has_output, &b);
	teardown(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(are_found_by_name),
		cmocka_unit_test(raw_sends_bytes_and_nothing_else),
		cmocka_unit_test(pty_tunnel_has_a_type_byte_and_a_greeting),
		cmocka_unit_test(output_is_what_comes_in_any_kind_of_message),
		cmocka_unit_test(input_of_any_size_arrives_whole_and_in_order),
		cmocka_unit_test(repeats_are_dropped_here_also_after_another_connection),
		cmocka_unit_test(close_codes_tell_an_end_from_a_loss),
		cmocka_unit_test(refusals_tell_what_may_be_tried_again),
		cmocka_unit_test(nobody_at_the_address_is_a_loss),
		cmocka_unit_test(leaving_says_so_and_a_cut_does_not),
		cmocka_unit_test(a_pause_stops_the_output),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
