/* test_ws_frame.c -- ws_frame.h: each stream is fed whole, in all cuts in two, and by bytes. */
#include "tests/unit/wire/test.h"

#include "tests/fuzz/fuzz_ws_frame.c" /* the fuzz target itself */

#define BYTES(literal) (const uint8_t *)(literal), sizeof(literal) - 1
#define MAX_MESSAGE_BYTES 100000

/* What a decoder gave, as a line such as "PING() TEXT(Hello) BINARY[70000] ERROR(1002)". */
struct story {
	char text[1024];
	size_t size;
};

static void tell(struct story *s, const struct ws_event *event)
{
	static const char *const names[] = {
		[WS_EVENT_TEXT] = "TEXT", [WS_EVENT_BINARY] = "BINARY", [WS_EVENT_PING] = "PING",
		[WS_EVENT_PONG] = "PONG", [WS_EVENT_CLOSE] = "CLOSE",   [WS_EVENT_ERROR] = "ERROR",
	};
	char code[16] = "";
	if (event->close_code != 0)
		snprintf(code, sizeof(code), "%u%s", event->close_code, event->size > 0 ? " " : "");
	int size;
	if (event->size > 60)
		size = snprintf(s->text + s->size, sizeof(s->text) - s->size, "%s%s[%zu]",
				s->size > 0 ? " " : "", names[event->type], event->size);
	else
		size = snprintf(s->text + s->size, sizeof(s->text) - s->size, "%s%s(%s%.*s)",
				s->size > 0 ? " " : "", names[event->type], code, (int)event->size,
				event->size > 0 ? (const char *)event->data : "");
	assert_true(size > 0 && (size_t)size < sizeof(s->text) - s->size);
	s->size += (size_t)size;
}

/* Feeds one piece in memory of its own. */
static void feed(struct ws_decoder *d, const uint8_t *bytes, size_t size, struct story *s)
{
	uint8_t *piece = exact_copy(bytes, size), *at = piece;
	struct ws_event event;
	do {
		ssize_t taken = ws_decoder_feed(d, at, size, &event);
		assert_true(taken >= 0 && (size_t)taken <= size);
		at += taken;
		size -= (size_t)taken;
		if (event.type != WS_EVENT_NONE)
			tell(s, &event);
	} while (event.type != WS_EVENT_NONE);
	free(piece);
}

/* In one piece, in all cuts in two, and byte by byte. */
static void assert_story(enum ws_role role, const uint8_t *bytes, size_t size, const char *expected)
{
	struct ws_decoder d;
	for (size_t cut = 0; cut < size; cut++) {
		struct story s = { .text = "" };
		ws_decoder_init(&d, role, MAX_MESSAGE_BYTES);
		if (cut > 0)
			feed(&d, bytes, cut, &s);
		feed(&d, bytes + cut, size - cut, &s);
		ws_decoder_fini(&d);
		assert_string_equal(s.text, expected);
	}
	struct story s = { .text = "" };
	ws_decoder_init(&d, role, MAX_MESSAGE_BYTES);
	for (size_t i = 0; i < size; i++)
		feed(&d, bytes + i, 1, &s);
	ws_decoder_fini(&d);
	assert_string_equal(s.text, expected);
}

#define ASSERT_CLIENT_READS(bytes, expected) \
	assert_story(WS_ROLE_CLIENT, (const uint8_t *)(bytes), sizeof(bytes) - 1, expected)
#define ASSERT_SERVER_READS(bytes, expected) \
	assert_story(WS_ROLE_SERVER, (const uint8_t *)(bytes), sizeof(bytes) - 1, expected)

static void reads_the_examples_of_rfc_6455(void **state)
{
	(void)state;
	ASSERT_CLIENT_READS("\x81\x05Hello", "TEXT(Hello)");
	ASSERT_SERVER_READS("\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", "TEXT(Hello)");
	ASSERT_CLIENT_READS("\x01\x03Hel\x80\x02lo", "TEXT(Hello)");
	ASSERT_CLIENT_READS("\x89\x05Hello", "PING(Hello)");
	ASSERT_SERVER_READS("\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", "PONG(Hello)");
}

static void reads_several_messages_in_a_row(void **state)
{
	(void)state;
	ASSERT_CLIENT_READS("\x81\x01"
			    "a\x82\x02"
			    "bc\x89\x00\x8a\x01p\x81\x03"
			    "def\x88\x02\x03\xe8",
			    "TEXT(a) BINARY(bc) PING() PONG(p) TEXT(def) CLOSE(1000)");
}

static void reads_messages_without_bytes(void **state)
{
	(void)state;
	ASSERT_CLIENT_READS("\x81\x00\x82\x00", "TEXT() BINARY()");
	ASSERT_SERVER_READS("\x81\x80\x01\x02\x03\x04\x82\x80\x00\x00\x00\x00", "TEXT() BINARY()");
	ASSERT_CLIENT_READS("\x01\x00\x00\x00\x80\x00", "TEXT()");
	ASSERT_CLIENT_READS("\x01\x00\x80\x02ok", "TEXT(ok)");
}

static void reads_control_frames_between_fragments(void **state)
{
	(void)state;
	ASSERT_CLIENT_READS("\x01\x02on\x89\x01?\x00\x01"
			    "e\x8a\x00\x80\x01!\x81\x03two",
			    "PING(?) PONG() TEXT(one!) TEXT(two)");
	ASSERT_CLIENT_READS("\x02\x02on\x88\x05\x03\xe9"
			    "bye",
			    "CLOSE(1001 bye)");
}

static void reads_every_form_of_length(void **state)
{
	(void)state;
	static const size_t sizes[] = {
		0, 1, 125, 126, 127, 255, 256, 65535, 65536, 65537, 100000
	};
	uint8_t *payload = exactly(MAX_MESSAGE_BYTES);
	for (size_t i = 0; i < MAX_MESSAGE_BYTES; i++)
		payload[i] = (uint8_t)(i * 31 + i / 256);
	for (size_t i = 0; i < COUNT_OF(sizes); i++) {
		for (enum ws_role to = WS_ROLE_SERVER; to <= WS_ROLE_CLIENT; to++) {
			struct log stream = { 0 };
			encode_frame(&stream, to, WS_BINARY, true, payload, sizes[i]);
			struct ws_decoder d;
			struct ws_event event;
			ws_decoder_init(&d, to, MAX_MESSAGE_BYTES);
			assert_int_equal(ws_decoder_feed(&d, stream.bytes, stream.size, &event),
					 stream.size);
			assert_int_equal(event.type, WS_EVENT_BINARY);
			assert_int_equal(event.size, sizes[i]);
			assert_memory_equal(event.data, payload, sizes[i]);
			ws_decoder_fini(&d);
			free(stream.bytes);
		}
	}
	free(payload);
}

static void gives_a_whole_frame_where_it_lies(void **state)
{
	(void)state;
	uint8_t bytes[] = "\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58\x82\x81\x00\x00\x00\x00z";
	struct ws_decoder d;
	struct ws_event event;
	ws_decoder_init(&d, WS_ROLE_SERVER, 100);
	assert_int_equal(ws_decoder_feed(&d, bytes, sizeof(bytes) - 1, &event), 11);
	assert_ptr_equal(event.data, bytes + 6);
	assert_memory_equal(bytes + 6, "Hello", 5);
	assert_null(d.message);
	assert_int_equal(ws_decoder_feed(&d, bytes + 11, sizeof(bytes) - 12, &event), 7);
	assert_ptr_equal(event.data, bytes + 17);
	ws_decoder_fini(&d);
}

static void holds_a_message_in_pieces_until_the_next_call(void **state)
{
	(void)state;
	uint8_t first[] = { 0x82, 0x04, 'a', 'b' }, second[] = { 'c', 'd' };
	struct ws_decoder d;
	struct ws_event event;
	ws_decoder_init(&d, WS_ROLE_CLIENT, 100);
	assert_int_equal(ws_decoder_feed(&d, first, sizeof(first), &event), 4);
	assert_int_equal(event.type, WS_EVENT_NONE);
	assert_int_equal(ws_decoder_feed(&d, second, sizeof(second), &event), 2);
	memset(first, '?', sizeof(first));
	memset(second, '?', sizeof(second));
	assert_int_equal(event.type, WS_EVENT_BINARY);
	assert_int_equal(event.size, 4);
	assert_memory_equal(event.data, "abcd", 4);
	assert_int_equal(ws_decoder_feed(&d, NULL, 0, &event), 0);
	assert_int_equal(event.type, WS_EVENT_NONE);
	assert_null(d.message);
	ws_decoder_fini(&d);
}

static void reserves_nothing_for_what_is_only_announced(void **state)
{
	(void)state;
	uint8_t header[] = { 0x82, 0x7f, 0, 0, 0, 0, 0x3f, 0xff, 0xff, 0xff, 'x' };
	struct ws_decoder d;
	struct ws_event event;
	ws_decoder_init(&d, WS_ROLE_CLIENT, 1u << 30);
	assert_int_equal(ws_decoder_feed(&d, header, sizeof(header), &event), sizeof(header));
	assert_int_equal(event.type, WS_EVENT_NONE);
	assert_true(d.message_capacity <= 4096);
	ws_decoder_fini(&d);
}

static void grows_with_a_long_message_and_never_over_the_limit(void **state)
{
	(void)state;
	enum { LIMIT = 70000, PIECE = 1000 };
	uint8_t header[] = { 0x82, 0x7f, 0, 0, 0, 0, 0, 1, LIMIT >> 8 & 0xff, LIMIT & 0xff };
	struct ws_decoder d;
	struct ws_event event;
	size_t grown = 0, capacity = 0;
	ws_decoder_init(&d, WS_ROLE_CLIENT, LIMIT);
	assert_int_equal(ws_decoder_feed(&d, header, sizeof(header), &event), sizeof(header));
	for (size_t sent = 0; sent < LIMIT; sent += PIECE) {
		uint8_t piece[PIECE];
		memset(piece, (int)(sent / PIECE), PIECE);
		assert_int_equal(event.type, WS_EVENT_NONE);
		assert_int_equal(ws_decoder_feed(&d, piece, PIECE, &event), PIECE);
		grown += d.message_capacity != capacity;
		capacity = d.message_capacity;
		assert_true(capacity <= LIMIT && capacity < 2 * (sent + PIECE) + 4096);
	}
	assert_true(grown < 8);
	assert_int_equal(event.type, WS_EVENT_BINARY);
	assert_int_equal(event.size, LIMIT);
	for (size_t i = 0; i < LIMIT; i++) {
		if (event.data[i] != i / PIECE)
			fail_msg("byte %zu", i);
	}
	ws_decoder_fini(&d);
}

static void takes_long_fragments(void **state)
{
	(void)state;
	uint8_t *payload = exactly(60000);
	memset(payload, 'x', 60000);
	struct log stream = { 0 };
	encode_frame(&stream, WS_ROLE_SERVER, WS_TEXT, false, payload, 10000);
	encode_frame(&stream, WS_ROLE_SERVER, WS_CONTINUATION, false, payload, 60000);
	encode_frame(&stream, WS_ROLE_SERVER, WS_CONTINUATION, true, payload, 30000);
	struct ws_decoder d;
	struct story s = { .text = "" };
	ws_decoder_init(&d, WS_ROLE_SERVER, MAX_MESSAGE_BYTES);
	feed(&d, stream.bytes, stream.size, &s);
	assert_string_equal(s.text, "TEXT[100000]");
	ws_decoder_fini(&d);
	free(stream.bytes);
	free(payload);
}

static void closes_with_1009_as_soon_as_too_much_is_announced(void **state)
{
	(void)state;
	/* The limit is 100,000: 0x186a0. */
	ASSERT_CLIENT_READS("\x82\x7f\x00\x00\x00\x00\x00\x01\x86\xa1", "ERROR(1009)");
	ASSERT_CLIENT_READS("\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", "ERROR(1009)");
	ASSERT_CLIENT_READS("\x02\x01x\x00\x7f\x00\x00\x00\x00\x00\x01\x86\xa0", "ERROR(1009)");
	ASSERT_CLIENT_READS("\x02\x01x\x89\x00\x00\x7f\x00\x00\x00\x00\x00\x01\x86\x9f", "PING()");
}

static void takes_a_message_of_just_the_limit(void **state)
{
	(void)state;
	struct ws_decoder d;
	ws_decoder_init(&d, WS_ROLE_CLIENT, 3);
	struct story s = { .text = "" };
	feed(&d,
	     BYTES("\x82\x03"
		   "abc\x02\x01"
		   "a\x80\x02"
		   "bc\x89\x04more\x82\x04"),
	     &s);
	assert_string_equal(s.text, "BINARY(abc) BINARY(abc) PING(more) ERROR(1009)");
	ws_decoder_fini(&d);

	ws_decoder_init(&d, WS_ROLE_CLIENT, 0);
	s = (struct story){ .text = "" };
	feed(&d, BYTES("\x82\x00\x82\x01"), &s);
	assert_string_equal(s.text, "BINARY() ERROR(1009)");
	ws_decoder_fini(&d);
}

static void closes_with_1002_on_broken_frames(void **state)
{
	(void)state;
	ASSERT_SERVER_READS("\x81\x05Hello", "ERROR(1002)"); /* a client has to mask */
	ASSERT_CLIENT_READS("\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", "ERROR(1002)");
	ASSERT_CLIENT_READS("\xc1\x01x", "ERROR(1002)"); /* reserved bits */
	ASSERT_CLIENT_READS("\xa1\x01x", "ERROR(1002)");
	ASSERT_CLIENT_READS("\x91\x01x", "ERROR(1002)");
	ASSERT_CLIENT_READS("\x80\x01x", "ERROR(1002)"); /* nothing to continue */
	ASSERT_CLIENT_READS("\x00\x01x", "ERROR(1002)");
	ASSERT_CLIENT_READS("\x01\x01x\x81\x01x", "ERROR(1002)"); /* the first did not end */
	ASSERT_CLIENT_READS("\x01\x01x\x02\x01x", "ERROR(1002)");
	ASSERT_CLIENT_READS("\x81\x01x\x80\x01x", "TEXT(x) ERROR(1002)");
	ASSERT_CLIENT_READS("\x09\x00", "ERROR(1002)"); /* control frames are whole */
	ASSERT_CLIENT_READS("\x08\x00", "ERROR(1002)");
	ASSERT_CLIENT_READS("\x0a\x00", "ERROR(1002)");
	ASSERT_CLIENT_READS("\x89\x7e\x00\x7e", "ERROR(1002)"); /* and short */
	ASSERT_CLIENT_READS("\x88\x7f\x00\x00\x00\x00\x00\x01\x00\x00", "ERROR(1002)");
	ASSERT_CLIENT_READS("\x82\x7e\x00\x7d", "ERROR(1002)"); /* lengths are minimal */
	ASSERT_CLIENT_READS("\x82\x7f\x00\x00\x00\x00\x00\x00\xff\xff", "ERROR(1002)");
	ASSERT_CLIENT_READS("\x82\x7f\x80\x00\x00\x00\x00\x01\x00\x00", "ERROR(1002)");
}

static void closes_with_1002_on_every_reserved_opcode(void **state)
{
	(void)state;
	static const uint8_t reserved[] = { 3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf };
	for (size_t i = 0; i < sizeof(reserved); i++) {
		const uint8_t bytes[] = { 0x80 | reserved[i], 0x00 };
		assert_story(WS_ROLE_CLIENT, bytes, sizeof(bytes), "ERROR(1002)");
	}
}

static void closes_with_1007_on_text_that_is_not_utf8(void **state)
{
	(void)state;
	ASSERT_CLIENT_READS("\x81\x03ok\xff", "ERROR(1007)");
	ASSERT_CLIENT_READS("\x81\x02\xc0\x80", "ERROR(1007)");
	ASSERT_CLIENT_READS("\x81\x03\xed\xa0\x80", "ERROR(1007)");
	ASSERT_CLIENT_READS("\x81\x02\xe2\x82", "ERROR(1007)"); /* ends inside a character */
	ASSERT_CLIENT_READS("\x01\x02\xe2\x82\x80\x00", "ERROR(1007)");
	ASSERT_CLIENT_READS("\x01\x02\xe2\x82\x80\x01z", "ERROR(1007)");
	ASSERT_CLIENT_READS("\x01\x01\xff", "ERROR(1007)"); /* before the message ends */
	ASSERT_SERVER_READS("\x81\x82\x01\x02\x03\x04\xfe\xfd", "ERROR(1007)");
	ASSERT_CLIENT_READS("\x82\x03ok\xff", "BINARY(ok\xff)"); /* binary may hold anything */
}

static void reads_a_character_cut_between_fragments(void **state)
{
	(void)state;
	ASSERT_CLIENT_READS(
		"\x01\x01\xf0\x00\x01\x9f\x89\x02\xff\xff\x00\x01\x98\x80\x01\x80\x81\x01x",
		"PING(\xff\xff) TEXT(\xf0\x9f\x98\x80) TEXT(x)");
}

static void reads_close_frames(void **state)
{
	(void)state;
	ASSERT_CLIENT_READS("\x88\x00", "CLOSE(1005)"); /* none given */
	ASSERT_CLIENT_READS("\x88\x02\x03\xe8", "CLOSE(1000)");
	ASSERT_CLIENT_READS("\x88\x05\x03\xf5"
			    "bye",
			    "CLOSE(1013 bye)");
	ASSERT_CLIENT_READS("\x88\x06\x11\x31\xe2\x82\xac!", "CLOSE(4401 \xe2\x82\xac!)");
	ASSERT_SERVER_READS("\x88\x82\x01\x02\x03\x04\x02\xea", "CLOSE(1000)");
}

static void refuses_close_frames_that_make_no_sense(void **state)
{
	(void)state;
	ASSERT_CLIENT_READS("\x88\x01\x03", "ERROR(1002)");
	ASSERT_CLIENT_READS("\x88\x02\x03\xed", "ERROR(1002)"); /* 1005 is not for the wire */
	ASSERT_CLIENT_READS("\x88\x02\x00\x00", "ERROR(1002)");
	ASSERT_CLIENT_READS("\x88\x03\x03\xe8\xff", "ERROR(1007)");
	ASSERT_CLIENT_READS("\x88\x04\x03\xe8\xe2\x82", "ERROR(1007)");
}

static void takes_nothing_after_a_close_or_an_error(void **state)
{
	(void)state;
	ASSERT_CLIENT_READS("\x88\x00\x81\x01x\x88\x00", "CLOSE(1005)");
	ASSERT_CLIENT_READS("\x83\x00\x81\x01x", "ERROR(1002)");

	uint8_t bytes[] = { 0x88, 0x00, 0x81, 0x01, 'x' };
	struct ws_decoder d;
	struct ws_event event;
	ws_decoder_init(&d, WS_ROLE_CLIENT, 100);
	assert_int_equal(ws_decoder_feed(&d, bytes, sizeof(bytes), &event), 2);
	assert_int_equal(ws_decoder_feed(&d, bytes + 2, 3, &event), 0);
	assert_int_equal(event.type, WS_EVENT_NONE);
	ws_decoder_fini(&d);
}

static void frees_a_message_that_never_ends(void **state)
{
	(void)state; /* LeakSanitizer looks */
	struct ws_decoder d;
	struct story s = { .text = "" };
	ws_decoder_init(&d, WS_ROLE_CLIENT, 100);
	feed(&d, BYTES("\x02\x05hello"), &s);
	ws_decoder_fini(&d);
	ws_decoder_fini(&d);

	ws_decoder_init(&d, WS_ROLE_CLIENT, 100);
	feed(&d, BYTES("\x02\x05hello\x83\x00"), &s);
	assert_null(d.message);
	assert_string_equal(s.text, "ERROR(1002)");
}

static void writes_headers_of_every_length(void **state)
{
	(void)state;
	static const struct {
		uint64_t payload_bytes;
		const uint8_t *header;
		size_t size;
	} headers[] = {
		{ 0, BYTES("\x82\x00") },
		{ 125, BYTES("\x82\x7d") },
		{ 126, BYTES("\x82\x7e\x00\x7e") },
		{ 65535, BYTES("\x82\x7e\xff\xff") },
		{ 65536, BYTES("\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00") },
		{ INT64_MAX, BYTES("\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff") },
	};
	for (size_t i = 0; i < COUNT_OF(headers); i++) {
		uint8_t out[WS_HEADER_BYTES_MAX];
		assert_int_equal(ws_header_encode(out, WS_BINARY, true, headers[i].payload_bytes,
						  NULL),
				 headers[i].size);
		assert_memory_equal(out, headers[i].header, headers[i].size);

		const uint8_t mask[4] = { 1, 2, 3, 4 };
		assert_int_equal(ws_header_encode(out, WS_BINARY, true, headers[i].payload_bytes,
						  mask),
				 headers[i].size + 4);
		assert_int_equal(out[1], headers[i].header[1] | 0x80);
		assert_memory_equal(out + 2, headers[i].header + 2, headers[i].size - 2);
		assert_memory_equal(out + headers[i].size, mask, 4);
	}
}

static void writes_opcode_and_fin(void **state)
{
	(void)state;
	uint8_t out[WS_HEADER_BYTES_MAX];
	ws_header_encode(out, WS_TEXT, false, 1, NULL);
	assert_int_equal(out[0], 0x01);
	ws_header_encode(out, WS_CONTINUATION, true, 1, NULL);
	assert_int_equal(out[0], 0x80);
	ws_header_encode(out, WS_PONG, true, 125, NULL);
	assert_int_equal(out[0], 0x8a);
}

static void masks_at_every_length_phase_and_address(void **state)
{
	(void)state;
	const uint8_t mask[4] = { 0x37, 0xfa, 0x21, 0x3d };
	for (size_t size = 0; size <= 40; size++) {
		for (uint64_t phase = 0; phase < 4; phase++) {
			for (size_t address = 0; address < 8; address++) {
				uint8_t data[64], expected[64];
				for (size_t i = 0; i < sizeof(data); i++)
					data[i] = expected[i] = (uint8_t)(i * 7);
				for (size_t i = 0; i < size; i++)
					expected[address + i] ^= mask[(phase + i) % 4];
				ws_mask(data + address, size, mask, phase + (UINT64_C(1) << 40));
				assert_memory_equal(data, expected, sizeof(data));
			}
		}
	}
}

static void writes_close_payloads(void **state)
{
	(void)state;
	uint8_t out[WS_CONTROL_BYTES_MAX];
	assert_int_equal(ws_close_encode(out, 1000, "bye"), 5);
	assert_memory_equal(out,
			    "\x03\xe8"
			    "bye",
			    5);
	assert_int_equal(ws_close_encode(out, 4401, ""), 2);
	assert_memory_equal(out, "\x11\x31", 2);
	assert_int_equal(ws_close_encode(out, 1001, NULL), 2);
	assert_int_equal(ws_close_encode(out, 1005, "ignored"), 0); /* as it came: without a code */
}

static void cuts_a_close_reason_at_a_character(void **state)
{
	(void)state;
	char reason[200];
	uint8_t out[WS_CONTROL_BYTES_MAX];
	for (size_t ascii = 118; ascii <= 124; ascii++) {
		memset(reason, 'x', ascii);
		memcpy(reason + ascii, "\xe2\x82\xac\xe2\x82\xac", 7);
		size_t expected = ascii <= 120 ? ascii + 3 : ascii <= 123 ? ascii : 123;
		assert_int_equal(ws_close_encode(out, 1000, reason), 2 + expected);
		assert_memory_equal(out + 2, reason, expected);
	}
	assert_int_equal(ws_close_encode(out, 1000, "ok\xff no"), 4);
}

static void knows_the_close_codes_that_may_be_sent(void **state)
{
	(void)state;
	for (uint32_t code = 0; code <= UINT16_MAX; code++) {
		bool allowed = (code >= 1000 && code <= 1014 && code != 1004 && code != 1005 &&
				code != 1006) ||
			       (code >= 3000 && code <= 4999);
		if (ws_close_code_valid((uint16_t)code) != allowed)
			fail_msg("%u", code);
	}
}

static void replays_its_corpus(void **state)
{
	(void)state;
	replay_corpus("ws_frame", LLVMFuzzerTestOneInput);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_the_examples_of_rfc_6455),
		cmocka_unit_test(reads_several_messages_in_a_row),
		cmocka_unit_test(reads_messages_without_bytes),
		cmocka_unit_test(reads_control_frames_between_fragments),
		cmocka_unit_test(reads_every_form_of_length),
		cmocka_unit_test(gives_a_whole_frame_where_it_lies),
		cmocka_unit_test(holds_a_message_in_pieces_until_the_next_call),
		cmocka_unit_test(reserves_nothing_for_what_is_only_announced),
		cmocka_unit_test(grows_with_a_long_message_and_never_over_the_limit),
		cmocka_unit_test(takes_long_fragments),
		cmocka_unit_test(closes_with_1009_as_soon_as_too_much_is_announced),
		cmocka_unit_test(takes_a_message_of_just_the_limit),
		cmocka_unit_test(closes_with_1002_on_broken_frames),
		cmocka_unit_test(closes_with_1002_on_every_reserved_opcode),
		cmocka_unit_test(closes_with_1007_on_text_that_is_not_utf8),
		cmocka_unit_test(reads_a_character_cut_between_fragments),
		cmocka_unit_test(reads_close_frames),
		cmocka_unit_test(refuses_close_frames_that_make_no_sense),
		cmocka_unit_test(takes_nothing_after_a_close_or_an_error),
		cmocka_unit_test(frees_a_message_that_never_ends),
		cmocka_unit_test(writes_headers_of_every_length),
		cmocka_unit_test(writes_opcode_and_fin),
		cmocka_unit_test(masks_at_every_length_phase_and_address),
		cmocka_unit_test(writes_close_payloads),
		cmocka_unit_test(cuts_a_close_reason_at_a_character),
		cmocka_unit_test(knows_the_close_codes_that_may_be_sent),
		cmocka_unit_test(replays_its_corpus),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
