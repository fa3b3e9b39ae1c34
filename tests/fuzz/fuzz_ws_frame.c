/* fuzz_ws_frame.c -- the decoder gives the same events however its bytes are cut, and gives back
 * what was encoded. The first byte chooses role and limit, the second how the bytes are cut. */
#include "tests/fuzz/fuzz.h"

#include "wire/ws_frame.h"

/* What a decoder gave, in order, as bytes that can be compared. */
struct log {
	uint8_t *bytes;
	size_t size, capacity;
};

static void log_add(struct log *log, const void *data, size_t size)
{
	if (log->size + size > log->capacity) {
		log->capacity = 2 * (log->size + size);
		log->bytes = realloc(log->bytes, log->capacity);
		require(log->bytes != NULL);
	}
	if (size > 0)
		memcpy(log->bytes + log->size, data, size);
	log->size += size;
}

static void log_event(struct log *log, const struct ws_event *event)
{
	log_add(log, &event->type, sizeof(event->type));
	log_add(log, &event->close_code, sizeof(event->close_code));
	log_add(log, &event->size, sizeof(event->size));
	log_add(log, event->data, event->size);
}

static void check_event(const struct ws_event *event, size_t max_message_bytes)
{
	switch (event->type) {
	case WS_EVENT_NONE:
		require(event->data == NULL && event->size == 0);
		break;
	case WS_EVENT_TEXT:
		require(utf8_valid(event->data, event->size));
		require(event->size <= max_message_bytes);
		break;
	case WS_EVENT_BINARY:
		require(event->size <= max_message_bytes);
		break;
	case WS_EVENT_PING:
	case WS_EVENT_PONG:
		require(event->size <= WS_CONTROL_BYTES_MAX);
		break;
	case WS_EVENT_CLOSE:
		require(event->size <= WS_CONTROL_BYTES_MAX - 2);
		require(utf8_valid(event->data, event->size));
		require(event->close_code == 1005 || ws_close_code_valid(event->close_code));
		break;
	case WS_EVENT_ERROR:
		require(event->close_code == 1002 || event->close_code == 1007 ||
			event->close_code == 1009);
		break;
	}
}

/* Feeds pieces of piece_bytes each, every one in memory of its own. */
static struct log decode(enum ws_role role, size_t max_message_bytes, const uint8_t *data,
			 size_t size, size_t piece_bytes)
{
	struct log log = { 0 };
	struct ws_decoder d;
	bool ended = false;
	ws_decoder_init(&d, role, max_message_bytes);
	for (size_t at = 0; at < size; at += piece_bytes) {
		size_t left = size - at < piece_bytes ? size - at : piece_bytes;
		uint8_t *piece = exact_copy(data + at, left);
		uint8_t *rest = piece;
		struct ws_event event;
		do {
			ssize_t taken = ws_decoder_feed(&d, rest, left, &event);
			require(taken >= 0 && (size_t)taken <= left);
			rest += taken;
			left -= (size_t)taken;
			check_event(&event, max_message_bytes);
			if (event.type == WS_EVENT_NONE) {
				require(ended ? taken == 0 : left == 0);
			} else {
				require(!ended);
				ended = event.type == WS_EVENT_ERROR ||
					event.type == WS_EVENT_CLOSE;
				log_event(&log, &event);
			}
			require(d.message_capacity <= 2 * size + 4096);
			require(d.message_capacity <= max_message_bytes);
		} while (event.type != WS_EVENT_NONE);
		free(piece);
	}
	ws_decoder_fini(&d);
	ws_decoder_fini(&d);
	return log;
}

static void check_splits(enum ws_role role, size_t max_message_bytes, const uint8_t *data,
			 size_t size, size_t piece_bytes)
{
	struct log whole = decode(role, max_message_bytes, data, size, size);
	struct log pieces = decode(role, max_message_bytes, data, size, piece_bytes);
	struct log single = decode(role, max_message_bytes, data, size, 1);
	require(whole.size == pieces.size && whole.size == single.size);
	if (whole.size > 0) {
		require(memcmp(whole.bytes, pieces.bytes, whole.size) == 0);
		require(memcmp(whole.bytes, single.bytes, whole.size) == 0);
	}
	free(whole.bytes);
	free(pieces.bytes);
	free(single.bytes);
}

static void encode_frame(struct log *stream, enum ws_role to, enum ws_opcode opcode, bool fin,
			 const uint8_t *data, size_t size)
{
	static const uint8_t mask[4] = { 0x9a, 0x00, 0xff, 0x31 };
	uint8_t header[WS_HEADER_BYTES_MAX];
	size_t header_bytes = ws_header_encode(header, opcode, fin, size,
					       to == WS_ROLE_SERVER ? mask : NULL);
	require(header_bytes >= 2 && header_bytes <= WS_HEADER_BYTES_MAX);
	log_add(stream, header, header_bytes);
	log_add(stream, data, size);
	if (to == WS_ROLE_SERVER && size > 0) /* in two steps: the phase has to carry over */ {
		uint8_t *payload = stream->bytes + stream->size - size;
		ws_mask(payload, size / 2, mask, 0);
		ws_mask(payload + size / 2, size - size / 2, mask, size / 2);
	}
}

/* Sends data as one message in fragments with pings between them, and expects just that. */
static void check_message(enum ws_role role, const uint8_t *data, size_t size,
			  size_t fragment_bytes)
{
	struct log stream = { 0 }, expected = { 0 };
	bool text = utf8_valid(data, size);
	enum ws_opcode opcode = text ? WS_TEXT : WS_BINARY;
	for (size_t at = 0; size - at > fragment_bytes; at += fragment_bytes) {
		encode_frame(&stream, role, opcode, false, data + at, fragment_bytes);
		encode_frame(&stream, role, WS_PING, true, data, fragment_bytes % 126);
		log_event(&expected,
			  &(struct ws_event){ WS_EVENT_PING, data, fragment_bytes % 126, 0 });
		opcode = WS_CONTINUATION;
	}
	size_t last = size > 0 && size % fragment_bytes == 0 ? fragment_bytes
							     : size % fragment_bytes;
	encode_frame(&stream, role, opcode, true, data + size - last, last);
	log_event(&expected,
		  &(struct ws_event){ text ? WS_EVENT_TEXT : WS_EVENT_BINARY, data, size, 0 });

	struct log got = decode(role, size, stream.bytes, stream.size, stream.size);
	require(got.size == expected.size && memcmp(got.bytes, expected.bytes, got.size) == 0);
	free(stream.bytes);
	free(expected.bytes);
	free(got.bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2)
		return 0;
	enum ws_role role = (data[0] & 1) != 0 ? WS_ROLE_CLIENT : WS_ROLE_SERVER;
	size_t max_message_bytes = (size_t)(data[0] >> 1) * 64;
	size_t piece_bytes = (size_t)data[1] + 1;
	check_splits(role, max_message_bytes, data + 2, size - 2, piece_bytes);
	check_message(role, data + 2, size - 2, piece_bytes);
	return 0;
}
