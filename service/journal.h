/* journal.h -- the append-only bytes of one PTY, with offsets; the newest of them are held. Memory is
 * taken as it fills, in chunks. Changes of size are marks at their offset. Readers hold an offset of
 * their own and nothing in here, so they cost nothing.
 * Thread: the session's loop; the sum over all journals (METRIC_JOURNAL_BYTES) is atomic. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JOURNAL_CHUNK_BYTES (64u << 10)

struct journal_mark {
	uint64_t offset;
	uint16_t cols, rows;
};

struct journal;

/* Holds at least max_bytes once full (rounded up to chunks). Takes no memory for output yet. Starts
 * empty at offset 0 with the given size. Returns NULL without memory. */
struct journal *journal_create(size_t max_bytes, uint16_t cols, uint16_t rows);
void journal_destroy(struct journal *j);

/* Forgets everything and starts empty at offset, with that size: a new epoch, or a gap. */
void journal_restart(struct journal *j, uint64_t offset, uint16_t cols, uint16_t rows);

/* Adds size bytes at the head; the oldest fall out as needed. When there is no memory for one more
 * chunk the oldest one is used again, so this cannot fail once one chunk is there; -ENOMEM else. */
int journal_append(struct journal *j, const uint8_t *data, size_t size);

/* Says that from the head on the size is another one. Nothing happens when it is the same. */
void journal_resize(struct journal *j, uint16_t cols, uint16_t rows);

uint64_t journal_oldest(const struct journal *j);
uint64_t journal_head(const struct journal *j);

/* The bytes at offset that lie in one piece, up to the head. Returns their number, 0 at the head. */
size_t journal_peek(const struct journal *j, uint64_t offset, const uint8_t **data);
/* Copies [offset, offset + size), all of which is held. */
void journal_copy(const struct journal *j, uint64_t offset, uint8_t *out, size_t size);

/* Marks are numbered for ever. The first held one at or behind offset; journal_marks_end() if none. */
uint64_t journal_mark_from(const struct journal *j, uint64_t offset);
uint64_t journal_marks_end(const struct journal *j);
/* Mark number n; one that fell out is NULL. */
const struct journal_mark *journal_mark(const struct journal *j, uint64_t n);
/* The size that held at offset (marks at offset itself included). */
void journal_size_at(const struct journal *j, uint64_t offset, uint16_t *cols, uint16_t *rows);

/* Gives memory back until at most keep_bytes (rounded up to chunks) are held: the oldest go. */
void journal_shrink(struct journal *j, size_t keep_bytes);
size_t journal_memory(const struct journal *j);

/* Where a reader goes on after a gap: the first line start in the newest 64 KiB, else the first
 * character start there. */
uint64_t journal_rejoin(const struct journal *j);
/* Where a reader starts that wants the newest 64 KiB at most: the oldest byte, or as above. */
uint64_t journal_recent(const struct journal *j);
