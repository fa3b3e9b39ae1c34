/* queue.c -- see queue.h. */
#include "agent/queue.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CAPACITY_FIRST 1024
#define CAPACITY_KEPT 4096 /* an empty queue holds no more */

int queue_reserve(struct queue *q, size_t size)
{
	if (size > SIZE_MAX / 4 - q->size)
		return -ENOMEM;
	if (q->size + size <= q->capacity)
		return 0;
	size_t capacity = q->capacity == 0 ? CAPACITY_FIRST : q->capacity;
	while (capacity < q->size + size)
		capacity *= 2;
	uint8_t *bytes = malloc(capacity);
	if (bytes == NULL)
		return -ENOMEM;
	struct iovec spans[2];
	int count = queue_spans(q, spans);
	size_t copied = 0;
	for (int i = 0; i < count; i++) {
		memcpy(bytes + copied, spans[i].iov_base, spans[i].iov_len);
		copied += spans[i].iov_len;
	}
	free(q->bytes);
	*q = (struct queue){ .bytes = bytes, .capacity = capacity, .size = q->size };
	return 0;
}

int queue_append(struct queue *q, const void *data, size_t size)
{
	if (size == 0)
		return 0;
	if (queue_reserve(q, size) < 0)
		return -ENOMEM;
	size_t end = (q->at + q->size) % q->capacity;
	size_t first = q->capacity - end < size ? q->capacity - end : size;
	memcpy(q->bytes + end, data, first);
	memcpy(q->bytes, (const uint8_t *)data + first, size - first);
	q->size += size;
	return 0;
}

int queue_spans(const struct queue *q, struct iovec ret[2])
{
	if (q->size == 0)
		return 0;
	size_t first = q->capacity - q->at;
	if (q->size <= first) {
		ret[0] = (struct iovec){ q->bytes + q->at, q->size };
		return 1;
	}
	ret[0] = (struct iovec){ q->bytes + q->at, first };
	ret[1] = (struct iovec){ q->bytes, q->size - first };
	return 2;
}

void queue_drop(struct queue *q, size_t size)
{
	assert(size <= q->size);
	q->size -= size;
	q->at = q->size == 0 ? 0 : (q->at + size) % q->capacity;
	if (q->size == 0 && q->capacity > CAPACITY_KEPT)
		queue_fini(q);
}

void queue_fini(struct queue *q)
{
	free(q->bytes);
	*q = (struct queue){ 0 };
}
