/* ws_frame.h -- WebSocket frames, as bytes and back, for both roles; no I/O.
 * The decoder takes bytes cut anywhere and gives whole messages; it checks all that RFC 6455 asks
 * of a receiver: masks by role, reserved bits, fragments with control frames between them, the
 * 125-byte limit of control frames, minimal lengths, UTF-8 of text and of close reasons, codes.
 * Source: RFC 6455 sections 5, 7 and 8. Thread: any, one at a time per decoder. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "wire/utf8.h"

enum ws_opcode {
	WS_CONTINUATION = 0x0,
	WS_TEXT = 0x1,
	WS_BINARY = 0x2,
	WS_CLOSE = 0x8,
	WS_PING = 0x9,
	WS_PONG = 0xa,
};

enum ws_role {
	WS_ROLE_SERVER, /* what it receives has to be masked */
	WS_ROLE_CLIENT, /* what it receives must not be */
};

#define WS_HEADER_BYTES_MAX 14
#define WS_CONTROL_BYTES_MAX 125

enum ws_event_type {
	WS_EVENT_NONE,   /* all bytes taken, nothing complete yet */
	WS_EVENT_TEXT,   /* a whole text message, valid UTF-8 */
	WS_EVENT_BINARY, /* a whole binary message */
	WS_EVENT_PING,   /* to be answered with a pong of the same bytes */
	WS_EVENT_PONG,
	WS_EVENT_CLOSE, /* close_code is the peer's, 1005 when it gave none; data is the reason */
	WS_EVENT_ERROR, /* the peer broke the protocol: close with close_code (1002, 1007, 1009) */
};

struct ws_event {
	enum ws_event_type type;
	const uint8_t *data; /* borrowed: good until the next call on the decoder or the next change
			      * of the caller's buffer; not 0-terminated */
	size_t size;
	uint16_t close_code; /* CLOSE and ERROR only */
};

/* Embedded by its user; the fields are the decoder's own. Holds no memory between messages,
 * once the call after the message was made. */
struct ws_decoder {
	enum ws_role role;
	size_t max_message_bytes;
	uint8_t header[WS_HEADER_BYTES_MAX];
	uint8_t header_have;
	uint8_t header_need;
	uint8_t frame_opcode;
	bool frame_fin;
	bool in_payload;
	bool ended;         /* after ERROR or CLOSE: takes nothing more */
	bool message_given; /* message is the caller's until the next call */
	uint8_t mask[4];
	uint64_t frame_left;    /* payload bytes of this frame still to come */
	uint64_t frame_taken;   /* payload bytes of this frame already taken: the mask's phase */
	uint8_t message_opcode; /* WS_TEXT or WS_BINARY while a message is under way, else 0 */
	struct utf8_validator utf8;
	uint8_t *message; /* owned: the message under way, when it did not come in one piece */
	size_t message_size;
	size_t message_capacity;
	uint8_t control[WS_CONTROL_BYTES_MAX];
	uint8_t control_size;
};

/* Messages over max_message_bytes end with WS_EVENT_ERROR 1009. Does not allocate. */
void ws_decoder_init(struct ws_decoder *d, enum ws_role role, size_t max_message_bytes);

/* Frees what a message under way holds. May be called twice. */
void ws_decoder_fini(struct ws_decoder *d);

/* Takes bytes from data (which it unmasks in place) until one event is complete or all are taken.
 * Returns how many it took (call again with the rest while the event is not WS_EVENT_NONE), and
 * fills ret; or -ENOMEM. After that, WS_EVENT_ERROR or WS_EVENT_CLOSE it takes nothing more: it
 * returns 0 with WS_EVENT_NONE. A frame that lies whole in data is given where it lies; what comes
 * in pieces is copied, into memory that grows with what has come and is freed by the next call. */
ssize_t ws_decoder_feed(struct ws_decoder *d, uint8_t *data, size_t size, struct ws_event *ret);

/* Writes the header of one frame; mask is NULL for a server. Returns its length, 2 to 14. */
size_t ws_header_encode(uint8_t out[WS_HEADER_BYTES_MAX], enum ws_opcode opcode, bool fin,
			uint64_t payload_bytes, const uint8_t mask[4]);

/* Masks or unmasks size bytes in place; phase is how many payload bytes went before. */
void ws_mask(uint8_t *data, size_t size, const uint8_t mask[4], uint64_t phase);

/* Writes a close payload: code, and reason (may be NULL) cut to fit, at a character and before
 * anything that is not UTF-8. Returns its length; that of code 1005 ("none given") is 0, so what a
 * WS_EVENT_CLOSE brought can be echoed. Other codes have to be valid. */
size_t ws_close_encode(uint8_t out[WS_CONTROL_BYTES_MAX], uint16_t code, const char *reason);

/* True when RFC 6455 section 7.4 lets an endpoint send this code in a frame. */
bool ws_close_code_valid(uint16_t code);
