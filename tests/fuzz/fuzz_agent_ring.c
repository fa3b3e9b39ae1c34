/* fuzz_agent_ring.c -- the ring against a plain model: all the bytes ever written, and all size changes.
 * The input is a list of 3-byte steps: what to do, and a number. */
#include "tests/fuzz/fuzz.h"

/* Fuzz targets are linked with wire/ alone. */
#include "agent/ring.c"

enum { CAPACITY = 64, CURSORS = 3 };

static uint8_t byte_at(uint64_t offset)
{
	return (uint8_t)(offset * 131 + offset / 256 * 29);
}

/* A reader, and what it knows. */
struct reader {
	struct ring_cursor cursor;
	uint64_t expected; /* offset of its next byte */
	uint16_t cols, rows;
};

static void write_bytes(struct ring *r, size_t size)
{
	struct iovec spans[2];
	uint64_t head = r->head, tail = r->tail;
	size_t written = 0;
	int count = ring_space(r, size, spans);
	require(count >= (size > 0) && count <= 2);
	for (int i = 0; i < count; i++) {
		uint8_t *at = spans[i].iov_base;
		for (size_t j = 0; j < spans[i].iov_len; j++)
			at[j] = byte_at(head + written++);
	}
	require(written == (size < CAPACITY ? size : CAPACITY));
	ring_advance(r, written);
	require(r->head == head + written && r->tail >= tail && r->head - r->tail <= CAPACITY);
}

static void read_one(const struct ring *r, struct reader *reader, size_t max)
{
	struct ring_item item;
	ring_next(r, &reader->cursor, max, &item);
	uint16_t cols, rows;
	switch (item.type) {
	case RING_BYTES:
		require(item.offset == reader->expected && item.size >= 1 && item.size <= max);
		for (int i = 0; i < item.span_count; i++) {
			const uint8_t *at = item.spans[i].iov_base;
			for (size_t j = 0; j < item.spans[i].iov_len; j++)
				require(at[j] == byte_at(reader->expected++));
		}
		require(reader->expected == item.offset + item.size);
		break;
	case RING_SIZE:
		require(item.offset == reader->expected);
		reader->cols = item.cols;
		reader->rows = item.rows;
		break;
	case RING_GAP:
		require(item.offset == r->tail && item.offset > reader->expected);
		reader->expected = item.offset;
		reader->cols = item.cols;
		reader->rows = item.rows;
		break;
	case RING_END:
		require(reader->expected == r->head);
		ring_size_at(r, r->head, &cols, &rows);
		require(cols == reader->cols && rows == reader->rows);
		break;
	}
	require(reader->cursor.offset == reader->expected);
}

static void attach(const struct ring *r, struct reader *reader, uint64_t offset)
{
	reader->cursor = ring_cursor_at(r, offset);
	reader->expected = reader->cursor.offset;
	require(reader->expected >= r->tail && reader->expected <= r->head);
	ring_size_at(r, reader->expected, &reader->cols, &reader->rows);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct ring r;
	require(ring_init(&r, CAPACITY, 80, 24) == 0);
	struct reader readers[CURSORS];
	for (size_t i = 0; i < CURSORS; i++)
		attach(&r, &readers[i], 0);
	for (; size >= 3; data += 3, size -= 3) {
		struct reader *reader = &readers[data[0] % CURSORS];
		unsigned number = (unsigned)data[1] << 8 | data[2];
		switch (data[0] / CURSORS % 4) {
		case 0:
			write_bytes(&r, number % (2 * CAPACITY));
			break;
		case 1:
			require(ring_resize(&r, (uint16_t)(data[1] % 4 + 1),
					    (uint16_t)(data[2] % 4 + 1)) >= 0);
			break;
		case 2:
			read_one(&r, reader, number % 32 + 1);
			break;
		case 3:
			attach(&r, reader, r.tail > number % 8 ? r.tail + number - 4 : number);
			break;
		}
	}
	ring_fini(&r);
	return 0;
}
