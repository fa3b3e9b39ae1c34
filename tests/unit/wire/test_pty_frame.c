/* test_pty_frame.c -- pty_frame.h: each type as real bytes, cut everywhere, at each limit. */
#include "tests/unit/wire/test.h"

#include "tests/fuzz/fuzz_pty_frame.c" /* the fuzz target itself */

#define SPAN(literal)                                           \
	{                                                       \
		(const uint8_t *)(literal), sizeof(literal) - 1 \
	}
#define BYTES(literal) (const uint8_t *)(literal), sizeof(literal) - 1

/* One of each type: its bytes, and how many of them have to be there. */
static const struct {
	struct pty_frame frame;
	const uint8_t *bytes;
	size_t size;
	size_t fixed; /* cut below this it is no frame */
} frames[] = {
	{ { .type = PTY_MESSAGE, .message = SPAN("ls\r") }, BYTES("\x00ls\r"), 1 },
	{ { .type = PTY_RESIZE, .resize = { 80, 24 } }, BYTES("\x01\x00\x50\x00\x18"), 5 },
	{ { .type = PTY_READY }, BYTES("\x02"), 1 },
	{ { .type = PTY2_OPEN,
	    .open = { .id = SPAN("s1"),
		      .cwd = SPAN("/tmp"),
		      .cols = 80,
		      .rows = 24,
		      .alone_s = 600,
		      .linger_s = 0x01020304,
		      .ring_bytes = 4 << 20,
		      .argv = { 2, BYTES("\0\0\0\4bash\0\0\0\2-l") },
		      .env = { 1, BYTES("\0\0\0\3A=b") } } },
	  BYTES("\x10\x02s1\x00\x50\x00\x18\x00\x00\x02\x58\x01\x02\x03\x04\x00\x40\x00\x00"
		"\x00\x04/tmp"
		"\x00\x02\x00\x00\x00\x04"
		"bash\x00\x00\x00\x02-l\x00\x01\x00\x00\x00\x03"
		"A=b"),
	  51 },
	{ { .type = PTY2_ATTACH,
	    .attach = { .id = SPAN("s1"),
			.fence = 3,
			.epoch = 0x3f9c5a0e77b1d204,
			.offset = PTY2_OFFSET_OLDEST } },
	  BYTES("\x11\x02s1\x00\x00\x00\x00\x00\x00\x00\x03\x3f\x9c\x5a\x0e\x77\xb1\xd2\x04"
		"\xff\xff\xff\xff\xff\xff\xff\xff"),
	  28 },
	{ { .type = PTY2_INPUT,
	    .input = { .request = 258,
		       .client = "0123456789abcde",
		       .seq = 7,
		       .bytes = SPAN("hi\r") } },
	  BYTES("\x12\x00\x00\x00\x00\x00\x00\x01\x02"
		"0123456789abcde\x00"
		"\x00\x00\x00\x00\x00\x00\x00\x07hi\r"),
	  PTY2_INPUT_HEADER_BYTES },
	{ { .type = PTY2_RESIZE, .resize = { 0x0102, 0xffff } }, BYTES("\x13\x01\x02\xff\xff"), 5 },
	{ { .type = PTY2_SIGNAL, .signal = { 9, 15 } },
	  BYTES("\x14\x00\x00\x00\x00\x00\x00\x00\x09\x0f"),
	  10 },
	{ { .type = PTY2_ACK, .ack_offset = 1u << 20 },
	  BYTES("\x15\x00\x00\x00\x00\x00\x10\x00\x00"),
	  9 },
	{ { .type = PTY2_CLOSE }, BYTES("\x16"), 1 },
	{ { .type = PTY2_FORGET }, BYTES("\x17"), 1 },
	{ { .type = PTY2_HELLO, .hello = { 2, 0x1122334455667788 } },
	  BYTES("\x20\x02\x11\x22\x33\x44\x55\x66\x77\x88"),
	  10 },
	{ { .type = PTY2_OPENED, .opened = { 1, 5, 0x01020304, SPAN("secret") } },
	  BYTES("\x21\x01\x00\x00\x00\x00\x00\x00\x00\x05\x01\x02\x03\x04\x06secret"),
	  21 },
	{ { .type = PTY2_ATTACHED, .attached = { 1, 2, 3, 4, 80, 24 } },
	  BYTES("\x22\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x02"
		"\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x04\x00\x50\x00\x18"),
	  37 },
	{ { .type = PTY2_DATA, .data = { 4096, SPAN("$ ") } },
	  BYTES("\x23\x00\x00\x00\x00\x00\x00\x10\x00$ "),
	  PTY2_DATA_HEADER_BYTES },
	{ { .type = PTY2_SIZE, .size = { 4096, 132, 43 } },
	  BYTES("\x24\x00\x00\x00\x00\x00\x00\x10\x00\x00\x84\x00\x2b"),
	  13 },
	{ { .type = PTY2_INPUT_ACK, .input_ack = { 258, PTY2_GAP, 8 } },
	  BYTES("\x25\x00\x00\x00\x00\x00\x00\x01\x02\x03\x00\x00\x00\x00\x00\x00\x00\x08"),
	  18 },
	{ { .type = PTY2_SIGNALED, .signaled = { 9, 3 } },
	  BYTES("\x26\x00\x00\x00\x00\x00\x00\x00\x09\x03"),
	  10 },
	{ { .type = PTY2_EXIT, .exit = { 4098, PTY2_SIGNALED_EXIT, 9 } },
	  BYTES("\x27\x00\x00\x00\x00\x00\x00\x10\x02\x01\x09"),
	  11 },
	{ { .type = PTY2_ERROR, .error = { PTY2_ERR_COMMAND, SPAN("no such file") } },
	  BYTES("\x28\x00\x03no such file"),
	  3 },
};

static void writes_every_type_as_it_is_documented(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(frames); i++) {
		assert_int_equal(pty_frame_size(&frames[i].frame), frames[i].size);
		uint8_t out[128];
		assert_int_equal(pty_frame_encode(&frames[i].frame, out), frames[i].size);
		assert_memory_equal(out, frames[i].bytes, frames[i].size);
	}
}

/* Field by field, since a union has padding: what was decoded writes the same bytes again. */
static void reads_every_type_back(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(frames); i++) {
		struct pty_frame frame;
		assert_int_equal(pty_frame_decode(frames[i].bytes, frames[i].size, &frame), 0);
		assert_int_equal(frame.type, frames[i].frame.type);
		uint8_t out[128];
		assert_int_equal(pty_frame_encode(&frame, out), frames[i].size);
		assert_memory_equal(out, frames[i].bytes, frames[i].size);
	}
}

static void reads_fields_where_they_belong(void **state)
{
	(void)state;
	struct pty_frame f;
	assert_int_equal(pty_frame_decode(BYTES("\x01\x00\x50\x00\x18"), &f), 0);
	assert_int_equal(f.resize.cols, 80);
	assert_int_equal(f.resize.rows, 24);

	assert_int_equal(pty_frame_decode(frames[3].bytes, frames[3].size, &f), 0);
	assert_int_equal(f.open.id.size, 2);
	assert_memory_equal(f.open.id.data, "s1", 2);
	assert_int_equal(f.open.linger_s, 0x01020304);
	assert_int_equal(f.open.ring_bytes, 4 << 20);
	assert_int_equal(f.open.cwd.size, 4);
	assert_memory_equal(f.open.cwd.data, "/tmp", 4);
	assert_int_equal(f.open.argv.count, 2);
	assert_int_equal(f.open.env.count, 1);

	assert_int_equal(pty_frame_decode(frames[5].bytes, frames[5].size, &f), 0);
	assert_int_equal(f.input.request, 258);
	assert_memory_equal(f.input.client, "0123456789abcde", INPUT_CLIENT_BYTES);
	assert_int_equal(f.input.seq, 7);
	assert_int_equal(f.input.bytes.size, 3);
	assert_ptr_equal(f.input.bytes.data, frames[5].bytes + PTY2_INPUT_HEADER_BYTES);
}

static void refuses_every_type_cut_at_any_byte(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(frames); i++) {
		for (size_t size = 0; size < frames[i].size; size++) {
			uint8_t *cut = exact_copy(frames[i].bytes, size);
			struct pty_frame frame = { .type = 0xff };
			int rc = pty_frame_decode(cut, size, &frame);
			free(cut);
			assert_int_equal(rc, size < frames[i].fixed ? -EBADMSG : 0);
			if (rc < 0)
				assert_int_equal(frame.type, 0xff); /* untouched on failure */
		}
	}
}

static void ignores_what_follows_fixed_fields(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(frames); i++) {
		uint8_t longer[128];
		memcpy(longer, frames[i].bytes, frames[i].size);
		memcpy(longer + frames[i].size, "tail", 4);
		struct pty_frame frame;
		assert_int_equal(pty_frame_decode(longer, frames[i].size + 4, &frame), 0);
		size_t taken = pty_frame_size(&frame);
		assert_true(taken == frames[i].size || taken == frames[i].size + 4);
	}
}

static void says_which_types_it_does_not_know(void **state)
{
	(void)state;
	for (unsigned type = 0; type <= 0xff; type++) {
		uint8_t message[64] = { (uint8_t)type };
		struct pty_frame frame;
		bool known = type <= 0x02 || (type >= 0x10 && type <= 0x17) ||
			     (type >= 0x20 && type <= 0x28);
		int rc = pty_frame_decode(message, sizeof(message), &frame);
		assert_int_equal(rc == -ENOTSUP, !known);
	}
}

static void refuses_a_size_with_0_in_it(void **state)
{
	(void)state;
	static const struct {
		const uint8_t *bytes;
		size_t size;
	} zeros[] = {
		{ BYTES("\x01\x00\x00\x00\x18") },
		{ BYTES("\x01\x00\x50\x00\x00") },
		{ BYTES("\x13\x00\x00\x00\x18") },
		{ BYTES("\x13\x00\x50\x00\x00") },
		{ BYTES("\x24\0\0\0\0\0\0\0\0\x00\x00\x00\x18") },
		{ BYTES("\x22\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
			"\0\x50\0\0") },
		{ BYTES("\x10\x01x\x00\x00\x00\x18\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0") },
	};
	struct pty_frame frame;
	for (size_t i = 0; i < COUNT_OF(zeros); i++)
		assert_int_equal(pty_frame_decode(zeros[i].bytes, zeros[i].size, &frame), -EBADMSG);
}

/* Encodes a frame and decodes it again. Returns what decoding says. */
static int pass(const struct pty_frame *frame)
{
	struct pty_frame back;
	uint8_t *bytes = exactly(pty_frame_size(frame));
	size_t size = pty_frame_encode(frame, bytes);
	assert_int_equal(size, pty_frame_size(frame));
	int rc = pty_frame_decode(bytes, size, &back);
	free(bytes);
	return rc;
}

static void holds_ids_tokens_and_input_to_their_limits(void **state)
{
	(void)state;
	uint8_t *block = exactly(PTY2_INPUT_BYTES_MAX + 1);
	memset(block, 'x', PTY2_INPUT_BYTES_MAX + 1);
	struct pty_frame open = { .type = PTY2_OPEN, .open = { .cols = 1, .rows = 1 } };
	struct pty_frame attach = { .type = PTY2_ATTACH };
	struct pty_frame opened = { .type = PTY2_OPENED };
	struct pty_frame input = { .type = PTY2_INPUT };
	for (unsigned over = 0; over <= 1; over++) {
		int expected = over > 0 ? -EBADMSG : 0;
		open.open.id = (struct pty_span){ block, PTY2_ID_BYTES_MAX + over };
		attach.attach.id = open.open.id;
		opened.opened.token = (struct pty_span){ block, PTY2_TOKEN_BYTES_MAX + over };
		input.input.bytes = (struct pty_span){ block, PTY2_INPUT_BYTES_MAX + over };
		assert_int_equal(pass(&open), expected);
		assert_int_equal(pass(&attach), expected);
		assert_int_equal(pass(&opened), expected);
		assert_int_equal(pass(&input), expected);
	}
	free(block);
}

static void holds_argv_and_env_to_1024_strings_each(void **state)
{
	(void)state;
	static const uint8_t empty_strings[4 * (PTY2_STRINGS_MAX + 1)]; /* each a u32 size of 0 */
	struct pty_strings most = { PTY2_STRINGS_MAX, empty_strings, 4 * PTY2_STRINGS_MAX };
	struct pty_strings over = { PTY2_STRINGS_MAX + 1, empty_strings, sizeof(empty_strings) };
	struct pty_frame f = { .type = PTY2_OPEN, .open = { .cols = 1, .rows = 1 } };
	f.open.argv = f.open.env = most;
	assert_int_equal(pass(&f), 0);
	f.open.argv = over;
	assert_int_equal(pass(&f), -EBADMSG);
	f.open.argv = most;
	f.open.env = over;
	assert_int_equal(pass(&f), -EBADMSG);
}

static void holds_cwd_argv_and_env_together_to_192_kib(void **state)
{
	(void)state;
	size_t room = PTY2_STRINGS_BYTES_MAX;
	uint8_t *text = exactly(room);
	memset(text, 'x', room);
	uint8_t *argv = exactly(room), *env = exactly(room);
	for (unsigned over = 0; over <= 1; over++) {
		struct pty_frame f = { .type = PTY2_OPEN, .open = { .cols = 1, .rows = 1 } };
		f.open.cwd = (struct pty_span){ text, 1000 };
		f.open.argv = (struct pty_strings){ 1, argv,
						    pty_strings_append(argv, text, 100000) };
		size_t left = room - 1000 - f.open.argv.size;
		f.open.env = (struct pty_strings){ 1, env,
						   pty_strings_append(env, text, left - 4 + over) };
		assert_int_equal(pass(&f), over > 0 ? -EBADMSG : 0);
	}
	free(env);
	free(argv);
	free(text);
}

static void refuses_strings_that_exec_would_cut(void **state)
{
	(void)state;
	struct pty_frame f = { .type = PTY2_OPEN, .open = { .cols = 1, .rows = 1 } };
	struct pty_strings good = { 1, BYTES("\0\0\0\2ok") }, bad = { 1, BYTES("\0\0\0\3a\0b") };
	f.open.argv = f.open.env = good;
	assert_int_equal(pass(&f), 0);
	f.open.argv = bad;
	assert_int_equal(pass(&f), -EBADMSG);
	f.open.argv = good;
	f.open.env = bad;
	assert_int_equal(pass(&f), -EBADMSG);
	f.open.env = good;
	f.open.cwd = (struct pty_span)SPAN("/a\0b");
	assert_int_equal(pass(&f), -EBADMSG);
}

static void refuses_string_sizes_past_the_end(void **state)
{
	(void)state;
	struct pty_frame f = { .type = PTY2_OPEN, .open = { .cols = 1, .rows = 1 } };
	f.open.argv = (struct pty_strings){ 1, BYTES("\xff\xff\xff\xff") };
	assert_int_equal(pass(&f), -EBADMSG);
	f.open.argv = (struct pty_strings){ 3, BYTES("\0\0\0\1a\0\0\0\1b") };
	assert_int_equal(pass(&f), -EBADMSG);
}

static void reads_strings_in_turn(void **state)
{
	(void)state;
	static const char *const texts[] = { "bash", "", "-c", "echo \xc3\xa4" };
	uint8_t block[64];
	struct pty_strings strings = { COUNT_OF(texts), block, 0 };
	for (size_t i = 0; i < COUNT_OF(texts); i++)
		strings.size += pty_strings_append(block + strings.size, texts[i],
						   strlen(texts[i]));
	size_t at = 0;
	struct pty_span string;
	for (size_t i = 0; i < COUNT_OF(texts); i++) {
		assert_int_equal(pty_strings_next(&strings, &at, &string), 1);
		assert_int_equal(string.size, strlen(texts[i]));
		assert_memory_equal(string.data, texts[i], string.size);
	}
	assert_int_equal(pty_strings_next(&strings, &at, &string), 0);
	assert_int_equal(pty_strings_next(&strings, &at, &string), 0);

	struct pty_strings none = { 0 }, cut = { 1, BYTES("\0\0\0\5bash") };
	at = 0;
	assert_int_equal(pty_strings_next(&none, &at, &string), 0);
	assert_int_equal(pty_strings_next(&cut, &at, &string), 0);
}

static void writes_data_and_input_headers_for_bytes_that_follow(void **state)
{
	(void)state;
	struct pty_frame data = { .type = PTY2_DATA, .data = { .offset = 1 } };
	assert_int_equal(pty_frame_size(&data), PTY2_DATA_HEADER_BYTES);
	struct pty_frame input = { .type = PTY2_INPUT };
	assert_int_equal(pty_frame_size(&input), PTY2_INPUT_HEADER_BYTES);
}

static void replays_its_corpus(void **state)
{
	(void)state;
	replay_corpus("pty_frame", LLVMFuzzerTestOneInput);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(writes_every_type_as_it_is_documented),
		cmocka_unit_test(reads_every_type_back),
		cmocka_unit_test(reads_fields_where_they_belong),
		cmocka_unit_test(refuses_every_type_cut_at_any_byte),
		cmocka_unit_test(ignores_what_follows_fixed_fields),
		cmocka_unit_test(says_which_types_it_does_not_know),
		cmocka_unit_test(refuses_a_size_with_0_in_it),
		cmocka_unit_test(holds_ids_tokens_and_input_to_their_limits),
		cmocka_unit_test(holds_argv_and_env_to_1024_strings_each),
		cmocka_unit_test(holds_cwd_argv_and_env_together_to_192_kib),
		cmocka_unit_test(refuses_strings_that_exec_would_cut),
		cmocka_unit_test(refuses_string_sizes_past_the_end),
		cmocka_unit_test(reads_strings_in_turn),
		cmocka_unit_test(writes_data_and_input_headers_for_bytes_that_follow),
		cmocka_unit_test(replays_its_corpus),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
