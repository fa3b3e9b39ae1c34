/* journal.c -- see journal.h. A ring of pointers to chunks; chunk n holds the bytes with
 * offset / JOURNAL_CHUNK_BYTES == n (relative to base), so an offset is found by arithmetic. */
#include "service/journal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "service/metrics.h"
#include "wire/utf8.h"

#define REJOIN_BYTES (64u << 10)
#define MARKS_MAX 256 /* resizes that a reader can still be told in their place */

struct journal {
	uint64_t oldest; /* first offset held */
	uint64_t head;   /* offset behind the last byte */
	uint64_t base;   /* offset at which chunk number 0 starts */
	size_t slots_count;
	uint8_t **
		slots; /* slots_count pointers, owned; chunk n is in slot n % slots_count, or NULL */
	size_t chunks;                   /* how many of them are there */
	uint16_t start_cols, start_rows; /* the size in front of the first held mark */
	uint64_t marks_end;
	size_t marks_count;
	size_t marks_capacity;
	struct journal_mark *marks; /* owned, the newest marks_count ones in order */
};

struct journal *journal_create(size_t max_bytes, uint16_t cols, uint16_t rows)
{
	struct journal *j = calloc(1, sizeof(*j));
	if (j == NULL)
		return NULL;
	/* One more than fits, since the oldest chunk is given up as a whole. */
	j->slots_count = (max_bytes + JOURNAL_CHUNK_BYTES - 1) / JOURNAL_CHUNK_BYTES + 1;
	j->start_cols = cols;
	j->start_rows = rows;
	return j;
}

static void drop_chunk(struct journal *j, size_t slot)
{
	if (j->slots[slot] == NULL)
		return;
	free(j->slots[slot]);
	j->slots[slot] = NULL;
	j->chunks--;
	metric_add(METRIC_JOURNAL_BYTES, -(int64_t)JOURNAL_CHUNK_BYTES);
}

static void drop_all(struct journal *j)
{
	for (size_t i = 0; j->slots != NULL && i < j->slots_count; i++)
		drop_chunk(j, i);
}

void journal_destroy(struct journal *j)
{
	if (j == NULL)
		return;
	drop_all(j);
	free(j->slots);
	free(j->marks);
	free(j);
}

void journal_restart(struct journal *j, uint64_t offset, uint16_t cols, uint16_t rows)
{
	drop_all(j);
	j->base = j->oldest = j->head = offset;
	j->marks_count = 0;
	j->start_cols = cols;
	j->start_rows = rows;
}

uint64_t journal_oldest(const struct journal *j)
{
	return j->oldest;
}

uint64_t journal_head(const struct journal *j)
{
	return j->head;
}

static uint64_t chunk_of(const struct journal *j, uint64_t offset)
{
	return (offset - j->base) / JOURNAL_CHUNK_BYTES;
}

static uint8_t *slot_at(const struct journal *j, uint64_t offset)
{
	return j->slots[chunk_of(j, offset) % j->slots_count] +
	       (offset - j->base) % JOURNAL_CHUNK_BYTES;
}

/* Marks in front of what is held only count for the size at its start. */
static void drop_old_marks(struct journal *j)
{
	size_t n = 0;
	while (n < j->marks_count && j->marks[n].offset < j->oldest)
		n++;
	if (n == 0)
		return;
	j->start_cols = j->marks[n - 1].cols;
	j->start_rows = j->marks[n - 1].rows;
	j->marks_count -= n;
	memmove(j->marks, j->marks + n, j->marks_count * sizeof(*j->marks));
}

/* Gives up the oldest chunk; its memory is the caller's. NULL when nothing is held. */
static uint8_t *take_oldest(struct journal *j)
{
	if (j->chunks == 0 || j->oldest == j->head)
		return NULL;
	size_t slot = chunk_of(j, j->oldest) % j->slots_count;
	uint8_t *chunk = j->slots[slot];
	uint64_t next = j->base + (chunk_of(j, j->oldest) + 1) * JOURNAL_CHUNK_BYTES;
	j->slots[slot] = NULL;
	j->oldest = next < j->head ? next : j->head;
	drop_old_marks(j);
	return chunk;
}

/* Makes the chunk at the head, which starts exactly there. */
static int add_chunk(struct journal *j)
{
	if (j->slots == NULL) {
		j->slots = calloc(j->slots_count, sizeof(*j->slots));
		if (j->slots == NULL)
			return -ENOMEM;
	}
	uint8_t *chunk = NULL;
	if (j->chunks < j->slots_count)
		chunk = malloc(JOURNAL_CHUNK_BYTES);
	if (chunk != NULL) {
		j->chunks++;
		metric_add(METRIC_JOURNAL_BYTES, JOURNAL_CHUNK_BYTES);
	} else {
		chunk = take_oldest(j);
		if (chunk == NULL)
			return -ENOMEM;
	}
	size_t slot = chunk_of(j, j->head) % j->slots_count;
	assert(j->slots[slot] == NULL);
	j->slots[slot] = chunk;
	return 0;
}

int journal_append(struct journal *j, const uint8_t *data, size_t size)
{
	while (size > 0) {
		size_t at = (j->head - j->base) % JOURNAL_CHUNK_BYTES;
		if (at == 0 || j->chunks == 0) {
			if (j->chunks == 0)
				j->base = j->oldest = j->head; /* start afresh: nothing is held */
			int rc = add_chunk(j);
			if (rc < 0)
				return rc;
			at = 0;
		}
		size_t n = JOURNAL_CHUNK_BYTES - at;
		if (n > size)
			n = size;
		memcpy(slot_at(j, j->head), data, n);
		j->head += n;
		data += n;
		size -= n;
	}
	return 0;
}

void journal_resize(struct journal *j, uint16_t cols, uint16_t rows)
{
	uint16_t old_cols, old_rows;
	journal_size_at(j, j->head, &old_cols, &old_rows);
	if (old_cols == cols && old_rows == rows)
		return;
	if (j->marks_count == MARKS_MAX) {
		j->start_cols = j->marks[0].cols;
		j->start_rows = j->marks[0].rows;
		j->marks_count--;
		memmove(j->marks, j->marks + 1, j->marks_count * sizeof(*j->marks));
	}
	if (j->marks_count == j->marks_capacity) {
		size_t capacity = j->marks_capacity == 0 ? 4 : j->marks_capacity * 2;
		struct journal_mark *marks = realloc(j->marks, capacity * sizeof(*marks));
		if (marks == NULL)
			return; /* viewers draw at the old size until the next one */
		j->marks = marks;
		j->marks_capacity = capacity;
	}
	j->marks[j->marks_count++] = (struct journal_mark){ .offset = j->head,
							    .cols = cols,
							    .rows = rows };
	j->marks_end++;
}

size_t journal_peek(const struct journal *j, uint64_t offset, const uint8_t **data)
{
	assert(offset >= j->oldest && offset <= j->head);
	if (offset == j->head)
		return 0;
	size_t in_chunk = JOURNAL_CHUNK_BYTES - (size_t)((offset - j->base) % JOURNAL_CHUNK_BYTES);
	*data = slot_at(j, offset);
	return j->head - offset < in_chunk ? (size_t)(j->head - offset) : in_chunk;
}

void journal_copy(const struct journal *j, uint64_t offset, uint8_t *out, size_t size)
{
	while (size > 0) {
		const uint8_t *data = NULL;
		size_t n = journal_peek(j, offset, &data);
		assert(n > 0);
		if (n > size)
			n = size;
		memcpy(out, data, n);
		out += n;
		offset += n;
		size -= n;
	}
}

uint64_t journal_marks_end(const struct journal *j)
{
	return j->marks_end;
}

uint64_t journal_mark_from(const struct journal *j, uint64_t offset)
{
	uint64_t n = j->marks_end;
	for (size_t i = j->marks_count; i > 0 && j->marks[i - 1].offset >= offset; i--)
		n--;
	return n;
}

const struct journal_mark *journal_mark(const struct journal *j, uint64_t n)
{
	uint64_t first = j->marks_end - j->marks_count;
	return n >= first && n < j->marks_end ? &j->marks[n - first] : NULL;
}

void journal_size_at(const struct journal *j, uint64_t offset, uint16_t *cols, uint16_t *rows)
{
	*cols = j->start_cols;
	*rows = j->start_rows;
	for (size_t i = 0; i < j->marks_count && j->marks[i].offset <= offset; i++) {
		*cols = j->marks[i].cols;
		*rows = j->marks[i].rows;
	}
}

void journal_shrink(struct journal *j, size_t keep_bytes)
{
	size_t keep = (keep_bytes + JOURNAL_CHUNK_BYTES - 1) / JOURNAL_CHUNK_BYTES;
	while (j->chunks > keep) {
		uint8_t *chunk = take_oldest(j);
		if (chunk == NULL) { /* nothing is held, but an empty chunk stands ready */
			drop_all(j);
			return;
		}
		free(chunk);
		j->chunks--;
		metric_add(METRIC_JOURNAL_BYTES, -(int64_t)JOURNAL_CHUNK_BYTES);
	}
}

size_t journal_memory(const struct journal *j)
{
	return j->chunks * JOURNAL_CHUNK_BYTES;
}

uint64_t journal_rejoin(const struct journal *j)
{
	uint64_t from = j->oldest;
	if (j->head - from > REJOIN_BYTES)
		from = j->head - REJOIN_BYTES;
	for (uint64_t at = from; at < j->head;) {
		const uint8_t *data = NULL;
		size_t n = journal_peek(j, at, &data);
		const uint8_t *line_end = memchr(data, '\n', n);
		if (line_end != NULL)
			return at + (uint64_t)(line_end - data) + 1;
		at += n;
	}
	uint8_t start[UTF8_BYTES_MAX];
	size_t size = j->head - from < sizeof(start) ? (size_t)(j->head - from) : sizeof(start);
	journal_copy(j, from, start, size);
	return from + utf8_rest_of_character(NULL, 0, start, size);
}

uint64_t journal_recent(const struct journal *j)
{
	return j->head - j->oldest <= REJOIN_BYTES ? j->oldest : journal_rejoin(j);
}
