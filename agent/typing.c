/* typing.c -- see typing.h. */
#include "agent/typing.h"

#include <errno.h>
#include <sys/uio.h>

/* One more message, and what is read with it, still fits then. */
#define CONGESTED_BYTES (TYPING_BYTES_MAX - PTY2_FRAME_BYTES_MAX - (128u << 10))

int typing_init(struct typing *t)
{
	*t = (struct typing){ .seen = input_seq_create() };
	return t->seen != NULL ? 0 : -ENOMEM;
}

void typing_fini(struct typing *t)
{
	queue_fini(&t->queue);
	input_seq_destroy(t->seen);
	t->seen = NULL;
}

void typing_force(struct typing *t, const uint8_t *data, size_t size)
{
	(void)queue_append(&t->queue, data, size);
	t->congested |= t->queue.size > CONGESTED_BYTES;
}

enum pty2_verdict typing_take(struct typing *t, const uint8_t client[INPUT_CLIENT_BYTES],
			      uint64_t seq, const uint8_t *data, size_t size, bool ended,
			      uint64_t *expected)
{
	enum input_seq_verdict verdict = INPUT_SEQ_NEXT;
	if (seq != 0) {
		verdict = input_seq_check(t->seen, client, seq, expected);
		if (verdict == INPUT_SEQ_REPEAT)
			return PTY2_REPEATED;
	}
	if (ended)
		return PTY2_ENDED;
	if (verdict == INPUT_SEQ_GAP)
		return PTY2_GAP;
	if (t->queue.size + size > TYPING_BYTES_MAX || queue_reserve(&t->queue, size) < 0)
		return PTY2_FULL;
	if (seq != 0) {
		if (input_seq_accept(t->seen, client, seq) < 0)
			return PTY2_FULL;
		*expected = seq + 1;
	}
	typing_force(t, data, size); /* there is room: it cannot fail */
	return PTY2_QUEUED;
}

bool typing_write(struct typing *t, int fd)
{
	while (t->queue.size > 0) {
		struct iovec spans[2];
		int count = queue_spans(&t->queue, spans);
		ssize_t size = writev(fd, spans, count);
		if (size <= 0)
			break;
		queue_drop(&t->queue, (size_t)size);
	}
	if (!t->congested || t->queue.size > CONGESTED_BYTES)
		return false;
	t->congested = false;
	return true;
}
