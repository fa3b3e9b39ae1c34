/* typing.h -- what is typed into one PTY: whole messages, each once, in a queue until the terminal takes
 * them. Thread: one. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/queue.h"
#include "wire/input_seq.h"
#include "wire/pty_frame.h"

#define TYPING_BYTES_MAX (4u << 20)

/* Embedded in its user. */
struct typing {
	struct queue queue;
	struct input_seq *seen; /* owned */
	bool congested;         /* so full that messages without a verdict should not be read */
};

/* Returns 0 or -ENOMEM. */
int typing_init(struct typing *t);
void typing_fini(struct typing *t);

/* Takes a message whole or not at all; seq 0: without a number. *expected is set for numbered ones. */
enum pty2_verdict typing_take(struct typing *t, const uint8_t client[INPUT_CLIENT_BYTES],
			      uint64_t seq, const uint8_t *data, size_t size, bool ended,
			      uint64_t *expected);

/* Takes a message whatever the size of the queue: its sender looks at congested before the next. */
void typing_force(struct typing *t, const uint8_t *data, size_t size);

/* Writes to fd what it takes. Returns true when the queue was congested and is no more. */
bool typing_write(struct typing *t, int fd);
