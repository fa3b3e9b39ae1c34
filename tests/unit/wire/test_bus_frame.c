/* test_bus_frame.c -- bus_frame.h: each type as real bytes, cut everywhere, at each limit. */
#include "tests/unit/wire/test.h"

#include "tests/fuzz/fuzz_bus_frame.c" /* the fuzz target itself */

#define TEXT(literal)                          \
	{                                      \
		(literal), sizeof(literal) - 1 \
	}
#define BYTES(literal) (const uint8_t *)(literal), sizeof(literal) - 1

/* Session "s1", sender 0x1122334455667788, birth 5, number 6. */
#define HEAD(type)                                                                         \
	"\x01" type "\x00\x02s1"                                                           \
	"\x11\x22\x33\x44\x55\x66\x77\x88\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00" \
	"\x00\x00\x00\x06"
#define HEAD_OF(kind)                           \
	.head = { .type = (kind),               \
		  .session = "s1",              \
		  .sender = 0x1122334455667788, \
		  .birth = 5,                   \
		  .number = 6 }
#define U64(last) "\x00\x00\x00\x00\x00\x00\x00" last

/* One of each type, and of each kind of call: its bytes, and how many of them have to be there. */
static const struct {
	struct bus_frame frame;
	const uint8_t *bytes;
	size_t size;
	size_t rest; /* at its end: bytes that may be fewer */
} frames[] = {
	{ { HEAD_OF(BUS_REGISTER), .reg = { 1, true, 2, 3, 4, UINT64_MAX } },
	  BYTES(HEAD("\x01") U64("\x01") "\x01" U64("\x02") U64("\x03")
			U64("\x04") "\xff\xff\xff\xff\xff\xff\xff\xff"),
	  0 },
	{ { HEAD_OF(BUS_LEAVE) }, BYTES(HEAD("\x02")), 0 },
	{ { HEAD_OF(BUS_PULL), .pull = { 1, 2, 0x0102030405060708 } },
	  BYTES(HEAD("\x03") U64("\x01") U64("\x02") "\x01\x02\x03\x04\x05\x06\x07\x08"),
	  0 },
	{ { HEAD_OF(BUS_CALL), .call = { .request = 9,
					 .kind = BUS_CALL_INPUT,
					 .client = "0123456789abcde",
					 .seq = 7,
					 .bytes = (const uint8_t *)"hi\r",
					 .size = 3 } },
	  BYTES(HEAD("\x04") U64("\x09") "\x01"
					 "0123456789abcde\x00" U64("\x07") "hi\r"),
	  3 },
	{ { HEAD_OF(BUS_CALL),
	    .call = { .request = 9, .kind = BUS_CALL_RESIZE, .cols = 132, .rows = 43 } },
	  BYTES(HEAD("\x04") U64("\x09") "\x02\x00\x84\x00\x2b"),
	  0 },
	{ { HEAD_OF(BUS_CALL), .call = { .request = 9, .kind = BUS_CALL_SIGNAL, .signal = -2 } },
	  BYTES(HEAD("\x04") U64("\x09") "\x03\xff\xff\xff\xfe"),
	  0 },
	{ { HEAD_OF(BUS_CALL), .call = { .request = 9, .kind = BUS_CALL_CLOSE } },
	  BYTES(HEAD("\x04") U64("\x09") "\x04"),
	  0 },
	{ { HEAD_OF(BUS_WELCOME),
	    .card = { .request = 1,
		      .state = 2,
		      .ready = true,
		      .keeps = true,
		      .failed_start = true,
		      .epoch = 3,
		      .oldest = 4,
		      .head = 5,
		      .replayed = 6,
		      .cols = 80,
		      .rows = 24,
		      .reason = TEXT("lost"),
		      .error = TEXT("x"),
		      .ended_json = TEXT("{}"),
		      .exit_json = TEXT("[]"),
		      .steps_count = 2,
		      .steps = { { TEXT("agent"), 1 }, { TEXT("connect"), 0x01020304 } } } },
	  BYTES(HEAD("\x05") U64("\x01") "\x02\x15" U64("\x03") U64("\x04") U64("\x05")
			U64("\x06") "\x00\x50\x00\x18\x00\x04lost\x00\x01x\x00\x02{}\x00\x02[]\x02"
				    "\x00\x05"
				    "agent\x00\x00\x00\x01\x00\x07"
				    "connect\x01\x02\x03\x04"),
	  0 },
	{ { HEAD_OF(BUS_BEAT),
	    .card = { .attached = true, .final = true, .cols = 1, .rows = 0xffff } },
	  BYTES(HEAD("\x08") U64("\x00") "\x00\x0a" U64("\x00") U64("\x00") U64("\x00")
			U64("\x00") "\x00\x01\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00\x00"),
	  0 },
	{ { HEAD_OF(BUS_PIECE),
	    .output = { .request = 1,
			.epoch = 2,
			.start = 3,
			.head = 9,
			.cols = 80,
			.rows = 24,
			.items = (const uint8_t *)"\x01\0\0\0\0\0\0\0\x04\0\0\0\x02$ "
						  "\x02\0\0\0\0\0\0\0\x06\x00\x84\x00\x2b",
			.items_size = 28 } },
	  BYTES(HEAD("\x06") U64("\x01") U64("\x02") U64("\x03")
			U64("\x09") "\x00\x50\x00\x18"
				    "\x01\0\0\0\0\0\0\0\x04\0\0\0\x02$ "
				    "\x02\0\0\0\0\0\0\0\x06\x00\x84\x00\x2b"),
	  28 },
	{ { HEAD_OF(BUS_OUTPUT),
	    .output = { .epoch = 2, .start = 3, .head = 3, .cols = 80, .rows = 24 } },
	  BYTES(HEAD("\x09") U64("\x00") U64("\x02") U64("\x03") U64("\x03") "\x00\x50\x00\x18"),
	  0 },
	{ { HEAD_OF(BUS_ANSWER), .answer = { 1, 204, 0, 0, { 0 }, { 0 } } },
	  BYTES(HEAD("\x07") U64("\x01") "\x00\xcc\x00\x00\x00\x00" U64("\x00") "\x00\x00\x00\x00"),
	  0 },
	{ { HEAD_OF(BUS_ANSWER), .answer = { 1, 409, 3, 8, TEXT("input-gap"), TEXT("no") } },
	  BYTES(HEAD("\x07") U64("\x01") "\x01\x99\x00\x00\x00\x03" U64("\x08") "\x00\x09input-gap"
										"\x00\x02no"),
	  0 },
	{ { HEAD_OF(BUS_GONE) }, BYTES(HEAD("\x0a")), 0 },
	{ { HEAD_OF(BUS_CLAIM) }, BYTES(HEAD("\x0b")), 0 },
};

static void assert_encodes_to(const struct bus_frame *frame, const uint8_t *bytes, size_t size)
{
	size_t encoded_size = 0;
	uint8_t *encoded = bus_frame_encode(frame, &encoded_size);
	assert_non_null(encoded);
	assert_int_equal(encoded_size, size);
	assert_memory_equal(encoded, bytes, size);
	free(encoded);
}

static void writes_every_type_as_it_is_documented(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(frames); i++)
		assert_encodes_to(&frames[i].frame, frames[i].bytes, frames[i].size);
}

static void reads_every_type_back(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(frames); i++) {
		struct bus_frame frame;
		assert_int_equal(bus_frame_decode(frames[i].bytes, frames[i].size, &frame), 0);
		assert_int_equal(frame.head.type, frames[i].frame.head.type);
		assert_encodes_to(&frame, frames[i].bytes, frames[i].size);
	}
}

static void assert_text(struct bus_text text, const char *expected)
{
	assert_int_equal(text.size, strlen(expected));
	assert_memory_equal(text.bytes, expected, text.size);
}

static void reads_fields_where_they_belong(void **state)
{
	(void)state;
	struct bus_frame f;
	assert_int_equal(bus_frame_decode(frames[0].bytes, frames[0].size, &f), 0);
	assert_string_equal(f.head.session, "s1");
	assert_int_equal(f.head.sender, 0x1122334455667788);
	assert_int_equal(f.head.birth, 5);
	assert_int_equal(f.head.number, 6);
	assert_int_equal(f.reg.request, 1);
	assert_true(f.reg.watches);
	assert_int_equal(f.reg.epoch, 2);
	assert_int_equal(f.reg.received, 3);
	assert_int_equal(f.reg.fastest, 4);
	assert_int_equal(f.reg.slowest, UINT64_MAX);

	assert_int_equal(bus_frame_decode(frames[3].bytes, frames[3].size, &f), 0);
	assert_memory_equal(f.call.client, "0123456789abcde", INPUT_CLIENT_BYTES);
	assert_int_equal(f.call.seq, 7);
	assert_int_equal(f.call.size, 3);
	assert_ptr_equal(f.call.bytes, frames[3].bytes + frames[3].size - 3);

	assert_int_equal(bus_frame_decode(frames[5].bytes, frames[5].size, &f), 0);
	assert_int_equal(f.call.signal, -2);

	assert_int_equal(bus_frame_decode(frames[7].bytes, frames[7].size, &f), 0);
	assert_int_equal(f.card.state, 2);
	assert_true(f.card.ready && f.card.keeps && f.card.failed_start);
	assert_false(f.card.attached || f.card.final);
	assert_int_equal(f.card.oldest, 4);
	assert_int_equal(f.card.head, 5);
	assert_int_equal(f.card.replayed, 6);
	assert_text(f.card.reason, "lost");
	assert_text(f.card.error, "x");
	assert_text(f.card.ended_json, "{}");
	assert_text(f.card.exit_json, "[]");
	assert_text(f.card.steps[1].name, "connect");
	assert_int_equal(f.card.steps[1].ms, 0x01020304);

	assert_int_equal(bus_frame_decode(frames[8].bytes, frames[8].size, &f), 0);
	assert_true(f.card.attached && f.card.final);
	assert_false(f.card.ready || f.card.keeps || f.card.failed_start);
	assert_null(f.card.reason.bytes);
	assert_int_equal(f.card.rows, 0xffff);
}

static void reads_the_items_in_turn(void **state)
{
	(void)state;
	struct bus_frame f;
	assert_int_equal(bus_frame_decode(frames[9].bytes, frames[9].size, &f), 0);
	assert_int_equal(f.output.start, 3);
	assert_int_equal(f.output.head, 9);
	size_t at = 0;
	struct bus_item item;
	assert_true(bus_item_next(&f.output, &at, &item));
	assert_int_equal(item.offset, 4);
	assert_int_equal(item.size, 2);
	assert_memory_equal(item.data, "$ ", 2);
	assert_true(bus_item_next(&f.output, &at, &item));
	assert_int_equal(item.offset, 6);
	assert_null(item.data);
	assert_int_equal(item.cols, 132);
	assert_int_equal(item.rows, 43);
	assert_false(bus_item_next(&f.output, &at, &item));
	assert_false(bus_item_next(&f.output, &at, &item));
}

static void refuses_every_type_cut_at_any_byte_or_longer(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(frames); i++) {
		for (size_t size = 0; size < frames[i].size - frames[i].rest; size++) {
			uint8_t *cut = exact_copy(frames[i].bytes, size);
			struct bus_frame frame = { .head = { .type = BUS_TYPE_END } };
			int rc = bus_frame_decode(cut, size, &frame);
			free(cut);
			assert_int_equal(rc, -EBADMSG);
			assert_int_equal(frame.head.type, BUS_TYPE_END); /* untouched */
		}
		if (frames[i].frame.head.type == BUS_CALL &&
		    frames[i].frame.call.kind == BUS_CALL_INPUT)
			continue; /* its bytes are the rest */
		uint8_t *longer = exactly(frames[i].size + 1);
		memcpy(longer, frames[i].bytes, frames[i].size);
		longer[frames[i].size] = 0;
		struct bus_frame frame;
		assert_int_equal(bus_frame_decode(longer, frames[i].size + 1, &frame), -EBADMSG);
		free(longer);
	}
}

static void says_that_another_version_is_one(void **state)
{
	(void)state;
	struct bus_frame frame = { .head = { .type = BUS_TYPE_END } };
	assert_int_equal(bus_frame_decode(BYTES("\x02"), &frame), -EPROTO);
	assert_int_equal(bus_frame_decode(BYTES("\x00\x01"), &frame), -EPROTO);
	assert_int_equal(bus_frame_decode(BYTES(""), &frame), -EBADMSG);
	assert_int_equal(frame.head.type, BUS_TYPE_END);
}

/* What decoding says to frames[which] with the byte at position replaced. */
static int with_byte(size_t which, size_t position, uint8_t byte)
{
	uint8_t *bytes = exact_copy(frames[which].bytes, frames[which].size);
	assert_true(position < frames[which].size);
	bytes[position] = byte;
	struct bus_frame frame;
	int rc = bus_frame_decode(bytes, frames[which].size, &frame);
	free(bytes);
	return rc;
}

#define BODY 30 /* where the fields begin */

static void refuses_values_that_are_not_allowed(void **state)
{
	(void)state;
	struct bus_frame frame;
	for (unsigned byte = 0; byte <= 0xff; byte++) {
		bool id = (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') ||
			  (byte >= 'A' && byte <= 'Z') || byte == '-' || byte == '_';
		assert_int_equal(with_byte(1, 5, (uint8_t)byte), id ? 0 : -EBADMSG);
		bool without_body = byte == BUS_LEAVE || byte == BUS_GONE || byte == BUS_CLAIM;
		assert_int_equal(with_byte(1, 1, (uint8_t)byte), without_body ? 0 : -EBADMSG);
		assert_int_equal(with_byte(0, BODY + 8, (uint8_t)byte), byte <= 1 ? 0 : -EBADMSG);
		assert_int_equal(with_byte(6, BODY + 8, (uint8_t)byte),
				 byte == BUS_CALL_CLOSE || byte == BUS_CALL_FORGET ? 0 : -EBADMSG);
		assert_int_equal(with_byte(8, BODY + 9, (uint8_t)byte),
				 byte <= 0x1f ? 0 : -EBADMSG);
	}
	assert_int_equal(with_byte(3, BODY + 32, 0), -EBADMSG);  /* an input without its number */
	assert_int_equal(with_byte(4, BODY + 10, 0), -EBADMSG);  /* cols of a call */
	assert_int_equal(with_byte(4, BODY + 12, 0), -EBADMSG);  /* rows */
	assert_int_equal(with_byte(7, BODY + 43, 0), -EBADMSG);  /* of a card */
	assert_int_equal(with_byte(10, BODY + 33, 0), -EBADMSG); /* of output */

	assert_int_equal(bus_frame_decode(BYTES("\x01\x02\x00\x00" U64("\x01") U64("\x01")
							U64("\x01")),
					  &frame),
			 -EBADMSG); /* no session */
}

static void holds_ids_texts_and_steps_to_their_limits(void **state)
{
	(void)state;
	struct bus_frame f = { .head = { .type = BUS_BEAT } }, back;
	f.card.cols = f.card.rows = 1;
	memset(f.head.session, 'x', BUS_SESSION_MAX);
	static char text[BUS_TEXT_MAX];
	memset(text, 't', sizeof(text));
	f.card.reason = (struct bus_text){ text, BUS_TEXT_MAX };
	f.card.steps_count = BUS_STEPS_MAX;
	size_t size = 0;
	uint8_t *bytes = bus_frame_encode(&f, &size);
	assert_non_null(bytes);
	assert_int_equal(bus_frame_decode(bytes, size, &back), 0);
	assert_int_equal(strlen(back.head.session), BUS_SESSION_MAX);
	assert_int_equal(back.card.reason.size, BUS_TEXT_MAX);
	assert_int_equal(back.card.steps_count, BUS_STEPS_MAX);

	/* One more of each. The body is behind an id of 64 bytes; the steps of 6 bytes each are last. */
	size_t reason_at = 28 + BUS_SESSION_MAX + 46, steps_at = size - 1 - 6 * BUS_STEPS_MAX;
	uint8_t *more = exactly(size + 6);
	memcpy(more, bytes, size);
	memset(more + size, 0, 6);
	more[steps_at]++;
	assert_int_equal(bus_frame_decode(more, size + 6, &back), -EBADMSG);
	memcpy(more, bytes, reason_at + 2);
	assert_int_equal(more[reason_at] * 256 + more[reason_at + 1], BUS_TEXT_MAX);
	more[reason_at + 1]++;
	more[reason_at + 2] = 't';
	memcpy(more + reason_at + 3, bytes + reason_at + 2, size - reason_at - 2);
	assert_int_equal(bus_frame_decode(more, size + 1, &back), -EBADMSG);
	memcpy(more, "\x01\x08\x00\x41x", 5);
	memcpy(more + 5, bytes + 4, size - 4);
	assert_int_equal(bus_frame_decode(more, size + 1, &back), -EBADMSG);
	free(more);
	free(bytes);
}

static void cuts_a_long_text_at_a_character(void **state)
{
	(void)state;
	static char text[2 * BUS_TEXT_MAX];
	for (size_t i = 0; i < sizeof(text); i += 2)
		memcpy(text + i, "\xc3\xa4", 2);
	struct bus_frame f = { .head = { .type = BUS_ANSWER, .session = "s" } }, back;
	f.answer.slug = (struct bus_text){ text, sizeof(text) };
	f.answer.detail = (struct bus_text){ text + 1, BUS_TEXT_MAX + 1 }; /* its first is a rest */
	size_t size = 0;
	uint8_t *bytes = bus_frame_encode(&f, &size);
	assert_non_null(bytes);
	assert_int_equal(bus_frame_decode(bytes, size, &back), 0);
	assert_int_equal(back.answer.slug.size, BUS_TEXT_MAX);
	assert_int_equal(back.answer.detail.size, BUS_TEXT_MAX - 1);
	free(bytes);
}

static void takes_the_largest_input_and_no_larger_message(void **state)
{
	(void)state;
	size_t input_size = 4u << 20, size = 0;
	struct bus_frame f = { .head = { .type = BUS_CALL, .session = "s" } }, back;
	uint8_t *input = calloc(1, input_size);
	f.call = (struct bus_call){
		.kind = BUS_CALL_INPUT, .seq = 1, .bytes = input, .size = input_size
	};
	uint8_t *bytes = bus_frame_encode(&f, &size);
	assert_non_null(bytes);
	assert_int_equal(bus_frame_decode(bytes, size, &back), 0);
	assert_int_equal(back.call.size, input_size);
	bytes = realloc(bytes, BUS_FRAME_BYTES_MAX + 1);
	assert_non_null(bytes);
	memset(bytes + size, 0, BUS_FRAME_BYTES_MAX + 1 - size);
	assert_int_equal(bus_frame_decode(bytes, BUS_FRAME_BYTES_MAX, &back), 0);
	assert_int_equal(bus_frame_decode(bytes, BUS_FRAME_BYTES_MAX + 1, &back), -EBADMSG);
	free(bytes);
	free(input);
}

/* --- items --- */

/* Encodes them as output from start, and returns what decoding says. */
static int pass(const uint8_t *items, size_t items_size, uint64_t start, struct bus_frame *back)
{
	struct bus_frame f = { .head = { .type = BUS_OUTPUT, .session = "s" } };
	f.output = (struct bus_output){
		.start = start, .cols = 1, .rows = 1, .items = items, .items_size = items_size
	};
	size_t size = 0;
	uint8_t *bytes = bus_frame_encode(&f, &size);
	assert_non_null(bytes);
	int rc = bus_frame_decode(bytes, size, back);
	free(bytes);
	return rc;
}

static void collects_items_to_their_limit(void **state)
{
	(void)state;
	static const uint8_t output[BUS_PIECE_BYTES];
	struct bus_items items = { 0 };
	struct bus_frame back;
	assert_int_equal(pass(items.data, items.size, 0, &back), 0);
	assert_int_equal(bus_items_add_output(&items, 100, output, 0), 0);
	assert_int_equal(items.size, 0);
	assert_int_equal(bus_items_add_output(&items, 100, output, BUS_PIECE_BYTES - 1), 0);
	assert_int_equal(bus_items_add_size(&items, 100 + BUS_PIECE_BYTES - 1, 80, 24), 0);
	size_t before = items.size;
	assert_int_equal(bus_items_add_output(&items, 70000, output, 2), -EMSGSIZE);
	assert_int_equal(items.size, before);
	assert_int_equal(items.output_bytes, BUS_PIECE_BYTES - 1);
	assert_int_equal(bus_items_add_output(&items, 70000, output, 1), 0);
	assert_int_equal(pass(items.data, items.size, 100, &back), 0);
	bus_items_fini(&items);
	assert_null(items.data);
	assert_int_equal(items.size + items.output_bytes + items.capacity, 0);

	/* All of it byte by byte; then changes of size without end. */
	for (size_t i = 0; i < BUS_PIECE_BYTES; i++)
		assert_int_equal(bus_items_add_output(&items, i, output, 1), 0);
	int rc = 0;
	for (size_t i = 0; i < 100000 && rc == 0; i++)
		rc = bus_items_add_size(&items, BUS_PIECE_BYTES, 80, 24);
	assert_int_equal(rc, -EMSGSIZE);
	assert_true(items.size <= 1u << 20);
	assert_int_equal(pass(items.data, items.size, 0, &back), 0);
	bus_items_fini(&items);
}

static void refuses_items_that_are_not_in_order(void **state)
{
	(void)state;
	static const struct {
		uint64_t start, first, second;
		int expected;
	} cases[] = {
		{ 10, 10, 13, 0 },
		{ 10, 11, 20, 0 }, /* a hole is seen by who reads it */
		{ 11, 10, 13, -EBADMSG },
		{ 10, 10, 12, -EBADMSG },
		{ 0, UINT64_MAX - 3, UINT64_MAX, 0 },
		{ 0, UINT64_MAX - 2, UINT64_MAX, -EBADMSG },
	};
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct bus_items items = { 0 };
		struct bus_frame back;
		assert_int_equal(bus_items_add_output(&items, cases[i].first, BYTES("abc")), 0);
		assert_int_equal(bus_items_add_size(&items, cases[i].second, 80, 24), 0);
		assert_int_equal(pass(items.data, items.size, cases[i].start, &back),
				 cases[i].expected);
		bus_items_fini(&items);
	}
}

static void refuses_items_that_cannot_be(void **state)
{
	(void)state;
	static const struct {
		const uint8_t *bytes;
		size_t size;
	} bad[] = {
		{ BYTES("\x00" U64("\x05") "\x00\x50\x00\x18") },
		{ BYTES("\x03" U64("\x05") "\x00\x50\x00\x18") },
		{ BYTES("\x02" U64("\x05") "\x00\x00\x00\x18") },
		{ BYTES("\x02" U64("\x05") "\x00\x50\x00\x00") },
		{ BYTES("\x02" U64("\x05") "\x00\x50\x00") },
		{ BYTES("\x01" U64("\x05") "\x00\x00\x00\x00") },
		{ BYTES("\x01" U64("\x05") "\x00\x00\x00\x02x") },
		{ BYTES("\x01" U64("\x05") "\xff\xff\xff\xffxxxx") },
		{ BYTES("\x01" U64("\x05") "\x00\x00\x00\x01x\x01") },
	};
	struct bus_frame back;
	for (size_t i = 0; i < COUNT_OF(bad); i++) {
		assert_int_equal(pass(bad[i].bytes, bad[i].size, 0, &back), -EBADMSG);
		/* Nor does one who reads them without that check go astray. */
		struct bus_output output = { .items = bad[i].bytes, .items_size = bad[i].size };
		struct bus_item item;
		size_t at = 0;
		while (bus_item_next(&output, &at, &item))
			assert_true(at < bad[i].size);
	}

	/* More output than a piece may have, in two. */
	size_t size = 2 * 13 + BUS_PIECE_BYTES + 1, second = 13 + BUS_PIECE_BYTES;
	uint8_t *items = exactly(size);
	memset(items, 0, size);
	memcpy(items, "\x01\0\0\0\0\0\0\0\0\0\x01\0\0", 13);
	memcpy(items + second, "\x01\0\0\0\0\0\x01\0\0\0\0\0\x01", 13);
	assert_int_equal(pass(items, second, 0, &back), 0);
	assert_int_equal(pass(items, size, 0, &back), -EBADMSG);
	free(items);
}

static void replays_the_corpus(void **state)
{
	(void)state;
	replay_corpus("bus_frame", LLVMFuzzerTestOneInput);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(writes_every_type_as_it_is_documented),
		cmocka_unit_test(reads_every_type_back),
		cmocka_unit_test(reads_fields_where_they_belong),
		cmocka_unit_test(reads_the_items_in_turn),
		cmocka_unit_test(refuses_every_type_cut_at_any_byte_or_longer),
		cmocka_unit_test(says_that_another_version_is_one),
		cmocka_unit_test(refuses_values_that_are_not_allowed),
		cmocka_unit_test(holds_ids_texts_and_steps_to_their_limits),
		cmocka_unit_test(cuts_a_long_text_at_a_character),
		cmocka_unit_test(takes_the_largest_input_and_no_larger_message),
		cmocka_unit_test(collects_items_to_their_limit),
		cmocka_unit_test(refuses_items_that_are_not_in_order),
		cmocka_unit_test(refuses_items_that_cannot_be),
		cmocka_unit_test(replays_the_corpus),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
