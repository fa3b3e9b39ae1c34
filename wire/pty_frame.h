/* pty_frame.h -- messages of a PTY tunnel, as bytes and back. One frame is one binary WebSocket
 * message: a type byte, then its fields, big-endian, without padding.
 *
 * Types 0x00 to 0x02 are the original dialect (client to agent only; the agent answers with raw
 * bytes). 0x10 and up are version 2, spoken on connections with v=2 only:
 *
 *   client to agent
 *   0x10 OPEN    u8 id_size, id, u16 cols, u16 rows, u32 alone_s, u32 linger_s, u32 ring_bytes,
 *                u16 cwd_size, cwd, u16 argc, argc * (u32 size, bytes),
 *                u16 envc, envc * (u32 size, "NAME=VALUE")
 *   0x11 ATTACH  u8 id_size, id, u64 fence, u64 epoch (0 = whichever),
 *                u64 offset (2^64-1 = oldest held)
 *   0x12 INPUT   u64 request, 16 bytes client, u64 seq (0 = not numbered), bytes
 *   0x13 RESIZE  u16 cols, u16 rows
 *   0x14 SIGNAL  u64 request, u8 signal number (of Linux)
 *   0x15 ACK     u64 offset: all before it was received and may be forgotten by the flow rule
 *   0x16 CLOSE   (none) hang up the shell; EXIT follows
 *   0x17 FORGET  (none) after EXIT: ring and status are not needed any more
 *
 *   agent to client
 *   0x20 HELLO    u8 version (2), u64 instance
 *   0x21 OPENED   u8 created, u64 epoch, u32 pid, u8 token_size, token
 *   0x22 ATTACHED u64 epoch, u64 start, u64 head, u64 fence, u16 cols, u16 rows (at start)
 *   0x23 DATA     u64 offset of the first byte, bytes; an offset past the expected one is a gap
 *   0x24 SIZE     u64 offset, u16 cols, u16 rows
 *   0x25 INPUT_ACK u64 request, u8 verdict, u64 expected
 *   0x26 SIGNALED u64 request, u8 errno (0 = delivered)
 *   0x27 EXIT     u64 end offset, u8 kind (0 exited, 1 signal, 2 not known), u8 value
 *   0x28 ERROR    u16 code, text (UTF-8); a close follows
 *
 * Source: docs/agent-protocol.md; the original dialect: vercel/sandbox, packages/pty-tunnel-server.
 * Thread: any. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "wire/input_seq.h"

#define PTY2_OFFSET_OLDEST UINT64_MAX
#define PTY2_ID_BYTES_MAX 64
#define PTY2_TOKEN_BYTES_MAX 64
#define PTY2_INPUT_BYTES_MAX (1u << 20) /* bytes typed by one INPUT frame */
#define PTY2_FRAME_BYTES_MAX (PTY2_INPUT_BYTES_MAX + (256u << 10)) /* any frame to the agent */
/* Of one OPEN: argc and envc each; cwd and the argv and env blocks together, u32 sizes included. */
#define PTY2_STRINGS_MAX 1024
#define PTY2_STRINGS_BYTES_MAX (192u << 10)

enum pty_frame_type {
	PTY_MESSAGE = 0x00,
	PTY_RESIZE = 0x01,
	PTY_READY = 0x02,

	PTY2_OPEN = 0x10,
	PTY2_ATTACH = 0x11,
	PTY2_INPUT = 0x12,
	PTY2_RESIZE = 0x13,
	PTY2_SIGNAL = 0x14,
	PTY2_ACK = 0x15,
	PTY2_CLOSE = 0x16,
	PTY2_FORGET = 0x17,

	PTY2_HELLO = 0x20,
	PTY2_OPENED = 0x21,
	PTY2_ATTACHED = 0x22,
	PTY2_DATA = 0x23,
	PTY2_SIZE = 0x24,
	PTY2_INPUT_ACK = 0x25,
	PTY2_SIGNALED = 0x26,
	PTY2_EXIT = 0x27,
	PTY2_ERROR = 0x28,
};

enum pty2_verdict {
	PTY2_QUEUED = 0,   /* in the agent's queue for that shell */
	PTY2_REPEATED = 1, /* seen before: not typed again */
	PTY2_FULL = 2,     /* refused whole, the queue has no room */
	PTY2_GAP = 3,      /* expected says which number is missing; refused, not remembered */
	PTY2_ENDED = 4,    /* the shell is gone */
};

enum pty2_exit_kind {
	PTY2_EXITED = 0,
	PTY2_SIGNALED_EXIT = 1,
	PTY2_EXIT_UNKNOWN = 2,
};

enum pty2_error {
	PTY2_ERR_BAD_FRAME = 1,
	PTY2_ERR_NO_SHELL = 2, /* no such id, or it was forgotten */
	PTY2_ERR_COMMAND = 3,  /* cannot be executed; the text says why */
	PTY2_ERR_NO_PTY = 4,   /* this machine gives no PTY */
	PTY2_ERR_LIMIT = 5,    /* too many shells */
	PTY2_ERR_DENIED = 6,   /* the token is for another shell */
	PTY2_ERR_CWD = 7,
	PTY2_ERR_DIFFERS = 8, /* OPEN of a known id with other parameters */
	PTY2_ERR_INTERNAL = 9,
};

struct pty_span {
	const uint8_t *data; /* borrowed from the decoded message */
	size_t size;
};

/* Reads the strings of argv or env in turn. */
struct pty_strings {
	uint16_t count;
	const uint8_t *data; /* borrowed; checked by pty_frame_decode() */
	size_t size;
};

struct pty_frame {
	enum pty_frame_type type;
	union {
		struct pty_span message; /* PTY_MESSAGE */
		struct {
			uint16_t cols, rows;
		} resize; /* PTY_RESIZE, PTY2_RESIZE */
		struct {
			struct pty_span id, cwd;
			uint16_t cols, rows;
			uint32_t alone_s, linger_s, ring_bytes; /* ring_bytes 0: the agent's own */
			struct pty_strings argv, env;
		} open;
		struct {
			struct pty_span id;
			uint64_t fence, epoch, offset;
		} attach;
		struct {
			uint64_t request;
			uint8_t client[INPUT_CLIENT_BYTES];
			uint64_t seq;
			struct pty_span bytes;
		} input;
		struct {
			uint64_t request;
			uint8_t number;
		} signal;
		uint64_t ack_offset;
		struct {
			uint8_t version;
			uint64_t instance;
		} hello;
		struct {
			uint8_t created;
			uint64_t epoch;
			uint32_t pid;
			struct pty_span token;
		} opened;
		struct {
			uint64_t epoch, start, head, fence;
			uint16_t cols, rows;
		} attached;
		struct {
			uint64_t offset;
			struct pty_span bytes;
		} data;
		struct {
			uint64_t offset;
			uint16_t cols, rows;
		} size;
		struct {
			uint64_t request;
			uint8_t verdict; /* enum pty2_verdict */
			uint64_t expected;
		} input_ack;
		struct {
			uint64_t request;
			uint8_t error; /* errno of Linux */
		} signaled;
		struct {
			uint64_t end;
			uint8_t kind; /* enum pty2_exit_kind */
			uint8_t value;
		} exit;
		struct {
			uint16_t code; /* enum pty2_error */
			struct pty_span text;
		} error;
	};
};

/* Decodes one message of size bytes. Trailing bytes behind fixed fields are ignored, as the
 * original does. Returns 0 and fills ret (its spans point into data); -EBADMSG when it is empty,
 * cut off, holds counts over the limits above, a string of cwd, argv or env with a 0 byte inside
 * (exec would cut it), or cols or rows of 0, also in a PTY_RESIZE (it must never reach a terminal);
 * -ENOTSUP for an unknown type. ret is untouched on failure. Ids, names, codes and verdicts are not
 * judged here. */
int pty_frame_decode(const uint8_t *data, size_t size, struct pty_frame *ret);

/* Bytes that pty_frame_encode() will write. */
size_t pty_frame_size(const struct pty_frame *frame);

/* Writes the frame to out, which holds pty_frame_size(frame) bytes; returns that number. The caller
 * keeps the limits above. */
size_t pty_frame_encode(const struct pty_frame *frame, uint8_t *out);

/* Bytes in front of the payload of a DATA and an INPUT frame: to send those without a copy, encode
 * the frame with an empty span and let the bytes follow. */
#define PTY2_DATA_HEADER_BYTES 9
#define PTY2_INPUT_HEADER_BYTES 33

/* Next string of argv or env: returns 1 and sets *ret, 0 at the end. *at starts as 0. */
int pty_strings_next(const struct pty_strings *strings, size_t *at, struct pty_span *ret);

/* Appends one string in the form of argv and env to out, which holds 4 + size bytes more. Returns
 * the bytes written. For OPEN: build both blocks, then point argv and env of the frame at them. */
size_t pty_strings_append(uint8_t *out, const void *data, size_t size);
