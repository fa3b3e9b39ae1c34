/* ring.c -- see ring.h. */
#include "agent/ring.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

int ring_init(struct ring *r, size_t capacity, uint16_t cols, uint16_t rows)
{
	void *bytes = mmap(NULL, capacity, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (bytes == MAP_FAILED)
		return -ENOMEM;
	/* A huge page would make 2 MiB of the first byte. */
	(void)madvise(bytes, capacity, MADV_NOHUGEPAGE);
	*r = (struct ring){ .bytes = bytes, .capacity = capacity, .cols = cols, .rows = rows };
	return 0;
}

void ring_fini(struct ring *r)
{
	if (r->bytes != NULL)
		munmap(r->bytes, r->capacity);
	free(r->marks);
	*r = (struct ring){ 0 };
}

/* The bytes from offset on, in one piece or, around the end of the memory, in two. */
static int spans_at(const struct ring *r, uint64_t offset, size_t size, struct iovec ret[2])
{
	size_t at = (size_t)(offset % r->capacity);
	size_t first = r->capacity - at;
	if (size <= first) {
		ret[0] = (struct iovec){ r->bytes + at, size };
		return size > 0;
	}
	ret[0] = (struct iovec){ r->bytes + at, first };
	ret[1] = (struct iovec){ r->bytes, size - first };
	return 2;
}

int ring_space(const struct ring *r, size_t max, struct iovec ret[2])
{
	return spans_at(r, r->head, max < r->capacity ? max : r->capacity, ret);
}

/* Moves the tail; the marks that it passes become the size in front of it. One at the tail stays:
 * a cursor that stands there may not have seen it. */
static void drop_before(struct ring *r, uint64_t tail)
{
	size_t passed = 0;
	while (passed < r->mark_count && r->marks[passed].offset < tail)
		passed++;
	if (passed > 0) {
		r->cols = r->marks[passed - 1].cols;
		r->rows = r->marks[passed - 1].rows;
		r->mark_count -= passed;
		memmove(r->marks, r->marks + passed, r->mark_count * sizeof(*r->marks));
	}
	r->tail = tail;
}

void ring_advance(struct ring *r, size_t size)
{
	assert(size <= r->capacity);
	r->head += size;
	if (r->head - r->tail > r->capacity)
		drop_before(r, r->head - r->capacity);
}

static struct ring_mark *append_mark(struct ring *r)
{
	if (r->mark_count == RING_MARKS_MAX)
		drop_before(r, r->marks[0].offset + 1);
	if (r->mark_count == r->mark_capacity) {
		size_t capacity = r->mark_capacity == 0 ? 4 : 2 * r->mark_capacity;
		struct ring_mark *marks = realloc(r->marks, capacity * sizeof(*marks));
		if (marks == NULL)
			return NULL;
		r->marks = marks;
		r->mark_capacity = capacity;
	}
	return &r->marks[r->mark_count++];
}

int ring_resize(struct ring *r, uint16_t cols, uint16_t rows)
{
	uint16_t now_cols, now_rows;
	ring_size_at(r, r->head, &now_cols, &now_rows);
	if (cols == now_cols && rows == now_rows)
		return 0;

	struct ring_mark *mark = NULL;
	if (r->mark_count > 0 && r->marks[r->mark_count - 1].offset == r->head)
		mark = &r->marks[r->mark_count - 1];
	else
		mark = append_mark(r);
	if (mark == NULL)
		return -ENOMEM;
	*mark = (struct ring_mark){ r->head, r->next_serial++, cols, rows };
	return 1;
}

void ring_size_at(const struct ring *r, uint64_t offset, uint16_t *cols, uint16_t *rows)
{
	*cols = r->cols;
	*rows = r->rows;
	for (size_t i = r->mark_count; i > 0; i--) {
		if (r->marks[i - 1].offset <= offset) {
			*cols = r->marks[i - 1].cols;
			*rows = r->marks[i - 1].rows;
			return;
		}
	}
}

/* The first mark that the cursor has not seen. */
static const struct ring_mark *next_mark(const struct ring *r, uint64_t serial)
{
	size_t i = r->mark_count;
	while (i > 0 && r->marks[i - 1].serial >= serial)
		i--;
	return i < r->mark_count ? &r->marks[i] : NULL;
}

struct ring_cursor ring_cursor_at(const struct ring *r, uint64_t offset)
{
	if (offset < r->tail)
		offset = r->tail;
	if (offset > r->head)
		offset = r->head;
	struct ring_cursor c = { .offset = offset, .serial = r->next_serial };
	for (size_t i = r->mark_count; i > 0 && r->marks[i - 1].offset > offset; i--)
		c.serial = r->marks[i - 1].serial;
	return c;
}

void ring_next(const struct ring *r, struct ring_cursor *c, size_t max, struct ring_item *ret)
{
	if (c->offset < r->tail) {
		*c = ring_cursor_at(r, r->tail);
		*ret = (struct ring_item){ .type = RING_GAP, .offset = r->tail };
		ring_size_at(r, r->tail, &ret->cols, &ret->rows);
		return;
	}
	const struct ring_mark *mark = next_mark(r, c->serial);
	if (mark != NULL && mark->offset <= c->offset) {
		*ret = (struct ring_item){ .type = RING_SIZE,
					   .offset = mark->offset,
					   .cols = mark->cols,
					   .rows = mark->rows };
		c->serial = mark->serial + 1;
		return;
	}
	uint64_t left = (mark != NULL ? mark->offset : r->head) - c->offset;
	if (left == 0) {
		*ret = (struct ring_item){ .type = RING_END, .offset = c->offset };
		return;
	}
	*ret = (struct ring_item){ .type = RING_BYTES,
				   .offset = c->offset,
				   .size = left < max ? (size_t)left : max };
	ret->span_count = spans_at(r, c->offset, ret->size, ret->spans);
	c->offset += ret->size;
}
