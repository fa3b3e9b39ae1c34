/* ws_frame.c -- the decoder is in a header or in a payload: take_header() ends with
 * begin_payload(), take_payload() with finish_control() or finish_data(). What a peer may not do is
 * found as early as its bytes show it. */
#include "wire/ws_frame.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "wire/bytes.h"

#define FIN_BIT 0x80
#define RESERVED_BITS 0x70
#define OPCODE_BITS 0x0f
#define CONTROL_BIT 0x08 /* of the opcode */
#define MASK_BIT 0x80
#define LENGTH_BITS 0x7f
#define LENGTH_IS_16_BIT 126
#define LENGTH_IS_64_BIT 127

#define CLOSE_PROTOCOL_ERROR 1002
#define CLOSE_NO_CODE 1005
#define CLOSE_NOT_UTF8 1007
#define CLOSE_TOO_BIG 1009

#define MESSAGE_CAPACITY_MIN 4096 /* bytes; the first block for a message that comes in pieces */

void ws_decoder_init(struct ws_decoder *d, enum ws_role role, size_t max_message_bytes)
{
	*d = (struct ws_decoder){
		.role = role,
		.max_message_bytes = max_message_bytes,
		.header_need = 2,
	};
}

static void message_free(struct ws_decoder *d)
{
	free(d->message);
	d->message = NULL;
	d->message_size = 0;
	d->message_capacity = 0;
}

void ws_decoder_fini(struct ws_decoder *d)
{
	message_free(d);
}

/* The decoder takes nothing more. */
static void fail(struct ws_decoder *d, uint16_t close_code, struct ws_event *ret)
{
	d->ended = true;
	message_free(d);
	*ret = (struct ws_event){ .type = WS_EVENT_ERROR, .close_code = close_code };
}

/* Judges the first two bytes of a frame. Returns 0, or the code to close with. */
static uint16_t check_start(const struct ws_decoder *d)
{
	uint8_t opcode = d->header[0] & OPCODE_BITS;
	bool fin = (d->header[0] & FIN_BIT) != 0;
	bool masked = (d->header[1] & MASK_BIT) != 0;
	uint8_t length = d->header[1] & LENGTH_BITS;

	if ((d->header[0] & RESERVED_BITS) != 0 || masked != (d->role == WS_ROLE_SERVER))
		return CLOSE_PROTOCOL_ERROR;
	bool allowed;
	switch (opcode) {
	case WS_CONTINUATION:
		allowed = d->message_opcode != 0;
		break;
	case WS_TEXT:
	case WS_BINARY:
		allowed = d->message_opcode == 0;
		break;
	case WS_CLOSE:
	case WS_PING:
	case WS_PONG:
		allowed = fin && length <= WS_CONTROL_BYTES_MAX;
		break;
	default:
		allowed = false;
	}
	return allowed ? 0 : CLOSE_PROTOCOL_ERROR;
}

static uint8_t header_bytes(const uint8_t start[2])
{
	uint8_t length = start[1] & LENGTH_BITS;
	uint8_t bytes = 2;
	if (length == LENGTH_IS_16_BIT)
		bytes += 2;
	else if (length == LENGTH_IS_64_BIT)
		bytes += 8;
	if ((start[1] & MASK_BIT) != 0)
		bytes += 4;
	return bytes;
}

/* Enters the payload of the frame whose header is complete. Returns 0, or a code to close with. */
static uint16_t begin_payload(struct ws_decoder *d)
{
	uint64_t length = d->header[1] & LENGTH_BITS;
	if (length == LENGTH_IS_16_BIT) {
		length = bytes_load_be16(d->header + 2);
		if (length < LENGTH_IS_16_BIT)
			return CLOSE_PROTOCOL_ERROR;
	} else if (length == LENGTH_IS_64_BIT) {
		length = bytes_load_be64(d->header + 2);
		if (length <= UINT16_MAX || length > INT64_MAX)
			return CLOSE_PROTOCOL_ERROR;
	}
	if ((d->header[1] & MASK_BIT) != 0)
		memcpy(d->mask, d->header + d->header_need - 4, 4);

	d->frame_opcode = d->header[0] & OPCODE_BITS;
	d->frame_fin = (d->header[0] & FIN_BIT) != 0;
	d->frame_left = length;
	d->frame_taken = 0;
	d->header_have = 0;
	d->header_need = 2;
	d->in_payload = true;
	d->control_size = 0;
	if ((d->frame_opcode & CONTROL_BIT) != 0)
		return 0;
	if (d->frame_opcode != WS_CONTINUATION)
		d->message_opcode = d->frame_opcode;
	return length > d->max_message_bytes - d->message_size ? CLOSE_TOO_BIG : 0;
}

/* Takes bytes of a header. Returns how many; with *close_code set the frame is not allowed. */
static size_t take_header(struct ws_decoder *d, const uint8_t *data, size_t size,
			  uint16_t *close_code)
{
	size_t taken = 0;
	*close_code = 0;
	while (!d->in_payload && taken < size && *close_code == 0) {
		d->header[d->header_have++] = data[taken++];
		if (d->header_have == 2) {
			d->header_need = header_bytes(d->header);
			*close_code = check_start(d);
		}
		if (d->header_have == d->header_need && *close_code == 0)
			*close_code = begin_payload(d);
	}
	return taken;
}

/* Appends to the message under way. What the peer merely announces costs nothing: the room grows
 * with the bytes that are there. */
static int append(struct ws_decoder *d, const uint8_t *data, size_t size)
{
	size_t need = d->message_size + size; /* begin_payload() checked it against the maximum */
	if (need > d->message_capacity) {
		size_t capacity = 2 * d->message_capacity;
		if (capacity < MESSAGE_CAPACITY_MIN)
			capacity = MESSAGE_CAPACITY_MIN;
		if (capacity > d->max_message_bytes)
			capacity = d->max_message_bytes;
		if (capacity < need)
			capacity = need;
		uint8_t *message = realloc(d->message, capacity);
		if (message == NULL)
			return -ENOMEM;
		d->message = message;
		d->message_capacity = capacity;
	}
	if (size > 0)
		memcpy(d->message + d->message_size, data, size);
	d->message_size = need;
	return 0;
}

static void finish_control(struct ws_decoder *d, struct ws_event *ret)
{
	*ret = (struct ws_event){
		.type = d->frame_opcode == WS_PING ? WS_EVENT_PING : WS_EVENT_PONG,
		.data = d->control,
		.size = d->control_size,
	};
	if (d->frame_opcode != WS_CLOSE)
		return;

	ret->type = WS_EVENT_CLOSE;
	ret->close_code = CLOSE_NO_CODE;
	if (d->control_size > 0) {
		if (d->control_size < 2) {
			fail(d, CLOSE_PROTOCOL_ERROR, ret);
			return;
		}
		ret->close_code = bytes_load_be16(d->control);
		ret->data += 2;
		ret->size -= 2;
		if (!ws_close_code_valid(ret->close_code)) {
			fail(d, CLOSE_PROTOCOL_ERROR, ret);
			return;
		}
		if (!utf8_valid(ret->data, ret->size)) {
			fail(d, CLOSE_NOT_UTF8, ret);
			return;
		}
	}
	d->ended = true;
	message_free(d);
}

/* Ends a data frame that came whole (data is in the caller's buffer) or in pieces. */
static void finish_data(struct ws_decoder *d, const uint8_t *data, size_t size,
			struct ws_event *ret)
{
	if (!d->frame_fin)
		return;
	if (!utf8_validator_complete(&d->utf8)) {
		fail(d, CLOSE_NOT_UTF8, ret);
		return;
	}
	*ret = (struct ws_event){
		.type = d->message_opcode == WS_TEXT ? WS_EVENT_TEXT : WS_EVENT_BINARY,
		.data = data,
		.size = size,
	};
	d->message_opcode = 0;
	d->message_given = true;
}

/* Takes bytes of the payload; the last one ends the frame. Returns how many, or -ENOMEM. */
static ssize_t take_payload(struct ws_decoder *d, uint8_t *data, size_t size, struct ws_event *ret)
{
	if (size > d->frame_left)
		size = (size_t)d->frame_left;
	if (d->role == WS_ROLE_SERVER)
		ws_mask(data, size, d->mask, d->frame_taken);
	bool whole = d->frame_taken == 0 && size == d->frame_left;
	d->frame_left -= size;
	d->frame_taken += size;
	d->in_payload = d->frame_left > 0;

	if ((d->frame_opcode & CONTROL_BIT) != 0) {
		if (size > 0)
			memcpy(d->control + d->control_size, data, size);
		d->control_size = (uint8_t)(d->control_size + size);
		if (!d->in_payload)
			finish_control(d, ret);
		return (ssize_t)size;
	}

	if (d->message_opcode == WS_TEXT && !utf8_validator_feed(&d->utf8, data, size)) {
		fail(d, CLOSE_NOT_UTF8, ret);
		return (ssize_t)size;
	}
	if (whole && d->frame_fin && d->message_size == 0) {
		finish_data(d, data, size, ret);
		return (ssize_t)size;
	}
	if (append(d, data, size) < 0) {
		d->ended = true;
		message_free(d);
		return -ENOMEM;
	}
	if (!d->in_payload)
		finish_data(d, d->message, d->message_size, ret);
	return (ssize_t)size;
}

ssize_t ws_decoder_feed(struct ws_decoder *d, uint8_t *data, size_t size, struct ws_event *ret)
{
	*ret = (struct ws_event){ .type = WS_EVENT_NONE };
	if (d->message_given) {
		message_free(d);
		d->message_given = false;
	}
	size_t taken = 0;
	while (taken < size && !d->ended && ret->type == WS_EVENT_NONE) {
		uint16_t close_code;
		taken += take_header(d, data + taken, size - taken, &close_code);
		if (close_code != 0) {
			fail(d, close_code, ret);
		} else if (d->in_payload) {
			ssize_t rc = take_payload(d, data + taken, size - taken, ret);
			if (rc < 0)
				return rc;
			taken += (size_t)rc;
		}
	}
	return (ssize_t)taken;
}

size_t ws_header_encode(uint8_t out[WS_HEADER_BYTES_MAX], enum ws_opcode opcode, bool fin,
			uint64_t payload_bytes, const uint8_t mask[4])
{
	assert(payload_bytes <= INT64_MAX);
	assert((opcode & CONTROL_BIT) == 0 || (fin && payload_bytes <= WS_CONTROL_BYTES_MAX));
	size_t size = 2;
	out[0] = (uint8_t)((fin ? FIN_BIT : 0) | opcode);
	if (payload_bytes < LENGTH_IS_16_BIT) {
		out[1] = (uint8_t)payload_bytes;
	} else if (payload_bytes <= UINT16_MAX) {
		out[1] = LENGTH_IS_16_BIT;
		bytes_store_be16(out + size, (uint16_t)payload_bytes);
		size += 2;
	} else {
		out[1] = LENGTH_IS_64_BIT;
		bytes_store_be64(out + size, payload_bytes);
		size += 8;
	}
	if (mask != NULL) {
		out[1] |= MASK_BIT;
		memcpy(out + size, mask, 4);
		size += 4;
	}
	return size;
}

void ws_mask(uint8_t *data, size_t size, const uint8_t mask[4], uint64_t phase)
{
	uint8_t turned[8];
	for (size_t i = 0; i < sizeof(turned); i++)
		turned[i] = mask[(phase + i) % 4];
	uint64_t word = bytes_load64(turned);
	size_t at = 0;
	for (; size - at >= 8; at += 8)
		bytes_store64(data + at, bytes_load64(data + at) ^ word);
	for (; at < size; at++)
		data[at] ^= turned[at % 4];
}

size_t ws_close_encode(uint8_t out[WS_CONTROL_BYTES_MAX], uint16_t code, const char *reason)
{
	if (code == CLOSE_NO_CODE)
		return 0;
	assert(ws_close_code_valid(code));
	bytes_store_be16(out, code);
	if (reason == NULL)
		return 2;
	const uint8_t *text = (const uint8_t *)reason;
	size_t size = utf8_valid_prefix(text, strnlen(reason, WS_CONTROL_BYTES_MAX - 2));
	memcpy(out + 2, text, size);
	return 2 + size;
}

bool ws_close_code_valid(uint16_t code)
{
	return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
	       (code >= 3000 && code <= 4999);
}
