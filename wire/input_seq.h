/* input_seq.h -- who typed what already: numbers by client, so that a repeat types nothing twice.
 * A client is a 16-byte key (a hash of its Input-Client), its messages are numbered from 1. The
 * table remembers the last number of each; when it is full, the client silent longest is forgotten.
 * Thread: any, one at a time per table. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define INPUT_CLIENT_BYTES 16
#define INPUT_SEQ_CLIENTS_MAX 1024

struct input_seq; /* allocated as it fills: a table without clients is a few words */

enum input_seq_verdict {
	INPUT_SEQ_NEXT,   /* the number expected: type it, then input_seq_accept() */
	INPUT_SEQ_REPEAT, /* already typed: acknowledge, do not type */
	INPUT_SEQ_GAP,    /* numbers before it are missing */
};

/* Returns NULL when there is no memory. */
struct input_seq *input_seq_create(void);
void input_seq_destroy(struct input_seq *t);

/* Judges seq (>= 1) of client; *expected is the number that would be next: 1 of a client that is
 * not known or was forgotten. Changes nothing. */
enum input_seq_verdict input_seq_check(const struct input_seq *t,
				       const uint8_t client[INPUT_CLIENT_BYTES], uint64_t seq,
				       uint64_t *expected);

/* Remembers that all up to seq of client is typed (a lower seq than before takes nothing back), and
 * client as the newest. Returns 0 or -ENOMEM (then the message must not be typed). */
int input_seq_accept(struct input_seq *t, const uint8_t client[INPUT_CLIENT_BYTES], uint64_t seq);
