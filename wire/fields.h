/* fields.h -- private to wire/: the fields of a message, taken from its front and put behind each other.
 * Integers are big-endian. Thread: any. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "wire/bytes.h"

/* Takes fields from the front of a message. One that is not there reads as 0; it and one whose value is not
 * allowed set bad, which is looked at once, at the end. */
struct fields_reader {
	const uint8_t *at;
	size_t left;
	bool bad;
};

static inline const uint8_t *take(struct fields_reader *r, size_t size)
{
	static const uint8_t nothing[16] = { 0 }; /* no field of a fixed size is longer */
	if (r->bad || size > r->left) {
		r->bad = true;
		return nothing;
	}
	const uint8_t *field = r->at;
	r->at += size;
	r->left -= size;
	return field;
}

static inline uint8_t take_u8(struct fields_reader *r)
{
	return take(r, 1)[0];
}

static inline uint16_t take_u16(struct fields_reader *r)
{
	return bytes_load_be16(take(r, 2));
}

static inline uint32_t take_u32(struct fields_reader *r)
{
	return bytes_load_be32(take(r, 4));
}

static inline uint64_t take_u64(struct fields_reader *r)
{
	return bytes_load_be64(take(r, 8));
}

static inline bool take_bool(struct fields_reader *r)
{
	uint8_t x = take_u8(r);
	r->bad |= x > 1;
	return x == 1;
}

/* A size of the terminal; one with 0 in it must never reach one. */
static inline void take_cells(struct fields_reader *r, uint16_t *cols, uint16_t *rows)
{
	*cols = take_u16(r);
	*rows = take_u16(r);
	r->bad |= *cols == 0 || *rows == 0;
}

/* Puts fields behind each other; with at NULL it only counts them. */
struct fields_writer {
	uint8_t *at;
	size_t size;
};

static inline void put(struct fields_writer *w, const void *data, size_t size)
{
	if (w->at != NULL && size > 0) {
		memcpy(w->at, data, size);
		w->at += size;
	}
	w->size += size;
}

static inline void put_u8(struct fields_writer *w, uint8_t x)
{
	put(w, &x, sizeof(x));
}

static inline void put_u16(struct fields_writer *w, uint16_t x)
{
	x = BYTES_BE16(x);
	put(w, &x, sizeof(x));
}

static inline void put_u32(struct fields_writer *w, uint32_t x)
{
	x = BYTES_BE32(x);
	put(w, &x, sizeof(x));
}

static inline void put_u64(struct fields_writer *w, uint64_t x)
{
	x = BYTES_BE64(x);
	put(w, &x, sizeof(x));
}

static inline void put_cells(struct fields_writer *w, uint16_t cols, uint16_t rows)
{
	put_u16(w, cols);
	put_u16(w, rows);
}
