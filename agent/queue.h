/* queue.h -- bytes that wait to be written, in one circular buffer that grows. Thread: any. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* Embedded in its user; zero-initialised it is empty. */
struct queue {
	uint8_t *bytes; /* owned */
	size_t capacity;
	size_t at; /* of the first byte */
	size_t size;
};

/* Makes room for size bytes more. Returns 0 or -ENOMEM. */
int queue_reserve(struct queue *q, size_t size);

/* Appends a copy. Returns 0 or -ENOMEM, the queue unchanged; cannot fail after queue_reserve(). */
int queue_append(struct queue *q, const void *data, size_t size);

/* All the bytes, in order; the spans are good until the next change. Returns how many spans. */
int queue_spans(const struct queue *q, struct iovec ret[2]);

/* Drops the first size bytes. A large buffer that became empty is freed. */
void queue_drop(struct queue *q, size_t size);

void queue_fini(struct queue *q);
