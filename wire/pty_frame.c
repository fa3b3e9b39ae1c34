/* pty_frame.c -- a reader and a writer of fields; take_fields() and put_frame() name the fields of
 * each type in the same order. */
#include "wire/pty_frame.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "wire/bytes.h"

/* Takes fields from the front of a message. One that is not there reads as 0 and sets cut, which is
 * looked at once, at the end. */
struct reader {
	const uint8_t *at;
	size_t left;
	bool cut;
};

static struct pty_span take(struct reader *r, size_t size)
{
	if (size > r->left) {
		r->cut = true;
		size = r->left;
	}
	struct pty_span span = { r->at, size };
	r->at += size;
	r->left -= size;
	return span;
}

static struct pty_span take_rest(struct reader *r)
{
	return take(r, r->left);
}

static uint8_t take_u8(struct reader *r)
{
	struct pty_span span = take(r, 1);
	return r->cut ? 0 : span.data[0];
}

static uint16_t take_u16(struct reader *r)
{
	struct pty_span span = take(r, 2);
	return r->cut ? 0 : bytes_load_be16(span.data);
}

static uint32_t take_u32(struct reader *r)
{
	struct pty_span span = take(r, 4);
	return r->cut ? 0 : bytes_load_be32(span.data);
}

static uint64_t take_u64(struct reader *r)
{
	struct pty_span span = take(r, 8);
	return r->cut ? 0 : bytes_load_be64(span.data);
}

/* Reads a terminal size; one with 0 in it must never reach a terminal. */
static bool take_cells(struct reader *r, uint16_t *cols, uint16_t *rows)
{
	*cols = take_u16(r);
	*rows = take_u16(r);
	return *cols > 0 && *rows > 0;
}

static bool has_nul(struct pty_span span)
{
	return span.size > 0 && memchr(span.data, '\0', span.size) != NULL;
}

/* Reads argv or env; false when there are too many strings or one that no exec could take. */
static bool take_strings(struct reader *r, struct pty_strings *ret)
{
	ret->count = take_u16(r);
	ret->data = r->at;
	if (ret->count > PTY2_STRINGS_MAX)
		return false;
	for (uint16_t i = 0; i < ret->count && !r->cut; i++) {
		if (has_nul(take(r, take_u32(r))))
			return false;
	}
	ret->size = (size_t)(r->at - ret->data);
	return true;
}

static bool take_open(struct reader *r, struct pty_frame *f)
{
	f->open.id = take(r, take_u8(r));
	if (f->open.id.size > PTY2_ID_BYTES_MAX || !take_cells(r, &f->open.cols, &f->open.rows))
		return false;
	f->open.alone_s = take_u32(r);
	f->open.linger_s = take_u32(r);
	f->open.ring_bytes = take_u32(r);
	f->open.cwd = take(r, take_u16(r));
	if (has_nul(f->open.cwd) || !take_strings(r, &f->open.argv) ||
	    !take_strings(r, &f->open.env))
		return false;
	return f->open.cwd.size + f->open.argv.size + f->open.env.size <= PTY2_STRINGS_BYTES_MAX;
}

/* Reads the fields of f->type; false when one is out of its limits. */
static bool take_fields(struct reader *r, struct pty_frame *f)
{
	switch (f->type) {
	case PTY_MESSAGE:
		f->message = take_rest(r);
		return true;
	case PTY_RESIZE:
	case PTY2_RESIZE:
		return take_cells(r, &f->resize.cols, &f->resize.rows);
	case PTY_READY:
	case PTY2_CLOSE:
	case PTY2_FORGET:
		return true;
	case PTY2_OPEN:
		return take_open(r, f);
	case PTY2_ATTACH:
		f->attach.id = take(r, take_u8(r));
		f->attach.fence = take_u64(r);
		f->attach.epoch = take_u64(r);
		f->attach.offset = take_u64(r);
		return f->attach.id.size <= PTY2_ID_BYTES_MAX;
	case PTY2_INPUT: {
		f->input.request = take_u64(r);
		struct pty_span client = take(r, INPUT_CLIENT_BYTES);
		memcpy(f->input.client, client.data, client.size);
		f->input.seq = take_u64(r);
		f->input.bytes = take_rest(r);
		return f->input.bytes.size <= PTY2_INPUT_BYTES_MAX;
	}
	case PTY2_SIGNAL:
		f->signal.request = take_u64(r);
		f->signal.number = take_u8(r);
		return true;
	case PTY2_ACK:
		f->ack_offset = take_u64(r);
		return true;
	case PTY2_HELLO:
		f->hello.version = take_u8(r);
		f->hello.instance = take_u64(r);
		return true;
	case PTY2_OPENED:
		f->opened.created = take_u8(r);
		f->opened.epoch = take_u64(r);
		f->opened.pid = take_u32(r);
		f->opened.token = take(r, take_u8(r));
		return f->opened.token.size <= PTY2_TOKEN_BYTES_MAX;
	case PTY2_ATTACHED:
		f->attached.epoch = take_u64(r);
		f->attached.start = take_u64(r);
		f->attached.head = take_u64(r);
		f->attached.fence = take_u64(r);
		return take_cells(r, &f->attached.cols, &f->attached.rows);
	case PTY2_DATA:
		f->data.offset = take_u64(r);
		f->data.bytes = take_rest(r);
		return true;
	case PTY2_SIZE:
		f->size.offset = take_u64(r);
		return take_cells(r, &f->size.cols, &f->size.rows);
	case PTY2_INPUT_ACK:
		f->input_ack.request = take_u64(r);
		f->input_ack.verdict = take_u8(r);
		f->input_ack.expected = take_u64(r);
		return true;
	case PTY2_SIGNALED:
		f->signaled.request = take_u64(r);
		f->signaled.error = take_u8(r);
		return true;
	case PTY2_EXIT:
		f->exit.end = take_u64(r);
		f->exit.kind = take_u8(r);
		f->exit.value = take_u8(r);
		return true;
	case PTY2_ERROR:
		f->error.code = take_u16(r);
		f->error.text = take_rest(r);
		return true;
	}
	return false;
}

static bool is_type(uint8_t byte)
{
	return byte <= PTY_READY || (byte >= PTY2_OPEN && byte <= PTY2_FORGET) ||
	       (byte >= PTY2_HELLO && byte <= PTY2_ERROR);
}

int pty_frame_decode(const uint8_t *data, size_t size, struct pty_frame *ret)
{
	if (size == 0)
		return -EBADMSG;
	if (!is_type(data[0]))
		return -ENOTSUP;
	struct pty_frame frame = { .type = data[0] };
	struct reader r = { .at = data + 1, .left = size - 1 };
	if (!take_fields(&r, &frame) || r.cut)
		return -EBADMSG;
	*ret = frame;
	return 0;
}

/* Puts fields behind each other; with at NULL it only counts them. */
struct writer {
	uint8_t *at;
	size_t size;
};

static void put(struct writer *w, const void *data, size_t size)
{
	if (w->at != NULL && size > 0) {
		memcpy(w->at, data, size);
		w->at += size;
	}
	w->size += size;
}

static void put_u8(struct writer *w, uint8_t x)
{
	put(w, &x, sizeof(x));
}

static void put_u16(struct writer *w, uint16_t x)
{
	x = BYTES_BE16(x);
	put(w, &x, sizeof(x));
}

static void put_u32(struct writer *w, uint32_t x)
{
	x = BYTES_BE32(x);
	put(w, &x, sizeof(x));
}

static void put_u64(struct writer *w, uint64_t x)
{
	x = BYTES_BE64(x);
	put(w, &x, sizeof(x));
}

static void put_span(struct writer *w, struct pty_span span)
{
	put(w, span.data, span.size);
}

static void put_span_u8(struct writer *w, struct pty_span span)
{
	assert(span.size <= UINT8_MAX);
	put_u8(w, (uint8_t)span.size);
	put_span(w, span);
}

static void put_cells(struct writer *w, uint16_t cols, uint16_t rows)
{
	put_u16(w, cols);
	put_u16(w, rows);
}

static void put_strings(struct writer *w, const struct pty_strings *strings)
{
	put_u16(w, strings->count);
	put(w, strings->data, strings->size);
}

static void put_open(struct writer *w, const struct pty_frame *f)
{
	put_span_u8(w, f->open.id);
	put_cells(w, f->open.cols, f->open.rows);
	put_u32(w, f->open.alone_s);
	put_u32(w, f->open.linger_s);
	put_u32(w, f->open.ring_bytes);
	assert(f->open.cwd.size <= UINT16_MAX);
	put_u16(w, (uint16_t)f->open.cwd.size);
	put_span(w, f->open.cwd);
	put_strings(w, &f->open.argv);
	put_strings(w, &f->open.env);
}

static void put_frame(struct writer *w, const struct pty_frame *f)
{
	put_u8(w, (uint8_t)f->type);
	switch (f->type) {
	case PTY_MESSAGE:
		put_span(w, f->message);
		break;
	case PTY_RESIZE:
	case PTY2_RESIZE:
		put_cells(w, f->resize.cols, f->resize.rows);
		break;
	case PTY_READY:
	case PTY2_CLOSE:
	case PTY2_FORGET:
		break;
	case PTY2_OPEN:
		put_open(w, f);
		break;
	case PTY2_ATTACH:
		put_span_u8(w, f->attach.id);
		put_u64(w, f->attach.fence);
		put_u64(w, f->attach.epoch);
		put_u64(w, f->attach.offset);
		break;
	case PTY2_INPUT:
		put_u64(w, f->input.request);
		put(w, f->input.client, INPUT_CLIENT_BYTES);
		put_u64(w, f->input.seq);
		put_span(w, f->input.bytes);
		break;
	case PTY2_SIGNAL:
		put_u64(w, f->signal.request);
		put_u8(w, f->signal.number);
		break;
	case PTY2_ACK:
		put_u64(w, f->ack_offset);
		break;
	case PTY2_HELLO:
		put_u8(w, f->hello.version);
		put_u64(w, f->hello.instance);
		break;
	case PTY2_OPENED:
		put_u8(w, f->opened.created);
		put_u64(w, f->opened.epoch);
		put_u32(w, f->opened.pid);
		put_span_u8(w, f->opened.token);
		break;
	case PTY2_ATTACHED:
		put_u64(w, f->attached.epoch);
		put_u64(w, f->attached.start);
		put_u64(w, f->attached.head);
		put_u64(w, f->attached.fence);
		put_cells(w, f->attached.cols, f->attached.rows);
		break;
	case PTY2_DATA:
		put_u64(w, f->data.offset);
		put_span(w, f->data.bytes);
		break;
	case PTY2_SIZE:
		put_u64(w, f->size.offset);
		put_cells(w, f->size.cols, f->size.rows);
		break;
	case PTY2_INPUT_ACK:
		put_u64(w, f->input_ack.request);
		put_u8(w, f->input_ack.verdict);
		put_u64(w, f->input_ack.expected);
		break;
	case PTY2_SIGNALED:
		put_u64(w, f->signaled.request);
		put_u8(w, f->signaled.error);
		break;
	case PTY2_EXIT:
		put_u64(w, f->exit.end);
		put_u8(w, f->exit.kind);
		put_u8(w, f->exit.value);
		break;
	case PTY2_ERROR:
		put_u16(w, f->error.code);
		put_span(w, f->error.text);
		break;
	}
}

size_t pty_frame_size(const struct pty_frame *frame)
{
	struct writer w = { 0 };
	put_frame(&w, frame);
	return w.size;
}

size_t pty_frame_encode(const struct pty_frame *frame, uint8_t *out)
{
	struct writer w = { .at = out };
	put_frame(&w, frame);
	return w.size;
}

int pty_strings_next(const struct pty_strings *strings, size_t *at, struct pty_span *ret)
{
	size_t left = strings->size - *at;
	if (left < 4)
		return 0;
	uint32_t size = bytes_load_be32(strings->data + *at);
	if (size > left - 4)
		return 0;
	*ret = (struct pty_span){ strings->data + *at + 4, size };
	*at += 4 + (size_t)size;
	return 1;
}

size_t pty_strings_append(uint8_t *out, const void *data, size_t size)
{
	assert(size <= UINT32_MAX);
	bytes_store_be32(out, (uint32_t)size);
	if (size > 0)
		memcpy(out + 4, data, size);
	return 4 + size;
}
