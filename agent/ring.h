/* ring.h -- the newest bytes of one PTY, each with its offset, and the size changes between them.
 * Readers hold a cursor; the ring knows nothing of them. A byte's offset never changes, and neither
 * does a mark's. Memory is reserved whole and taken page by page as bytes come: an empty ring costs
 * nothing. Thread: any, one at a time. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* More size changes than this between the oldest and the newest byte push the oldest bytes out. */
#define RING_MARKS_MAX 4096

struct ring_mark {
	uint64_t offset; /* the size holds from this byte on */
	uint64_t serial; /* counts all changes, so that two at one offset can be told apart */
	uint16_t cols, rows;
};

/* Embedded in its user; the fields are the ring's own. */
struct ring {
	uint8_t *bytes; /* owned: mapped */
	size_t capacity;
	uint64_t head;           /* offset after the newest byte */
	uint64_t tail;           /* offset of the oldest one held */
	uint16_t cols, rows;     /* before the first of marks */
	struct ring_mark *marks; /* owned; tail <= offset <= head, offsets and serials rise */
	size_t mark_count, mark_capacity;
	uint64_t next_serial;
};

/* A place between two items of the ring. */
struct ring_cursor {
	uint64_t offset; /* next byte */
	uint64_t serial; /* next mark */
};

enum ring_item_type {
	RING_END, /* the cursor has all there is */
	RING_BYTES,
	RING_SIZE, /* cols and rows hold from offset on */
	RING_GAP, /* bytes were overwritten before the cursor came to them: it goes on at offset, where
		     * cols and rows hold */
};

struct ring_item {
	enum ring_item_type type;
	uint64_t offset;
	struct iovec spans[2]; /* BYTES: borrowed, until the next change of the ring */
	int span_count;
	size_t size;
	uint16_t cols, rows;
};

/* Returns 0 or -ENOMEM. */
int ring_init(struct ring *r, size_t capacity, uint16_t cols, uint16_t rows);
void ring_fini(struct ring *r);

/* Where the next bytes go, at most max of them; the spans hold the oldest bytes until something is
 * written there. Returns how many spans. */
int ring_space(const struct ring *r, size_t max, struct iovec ret[2]);

/* Takes over size bytes that were written to ring_space(). */
void ring_advance(struct ring *r, size_t size);

/* Sets a size at the head. Returns 1, 0 when it is the size already, or -ENOMEM. */
int ring_resize(struct ring *r, uint16_t cols, uint16_t rows);

/* The size that holds at offset (tail..head), changes at offset itself among it. */
void ring_size_at(const struct ring *r, uint64_t offset, uint16_t *cols, uint16_t *rows);

/* A cursor at offset, moved into tail..head, that has seen the size changes up to and at it. */
struct ring_cursor ring_cursor_at(const struct ring *r, uint64_t offset);

/* Gives what stands at the cursor, at most max bytes and none behind a size change, and moves the
 * cursor past it. */
void ring_next(const struct ring *r, struct ring_cursor *c, size_t max, struct ring_item *ret);
